"""Sessions of confused-ai: of its SQL session store, its SQLite session store, its AgentDb, its three Redis stores."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from turnlog.adapters.migration.session import Found, Note, OldMessage, OldRun, OldSession, Unreadable
from turnlog.adapters.migration.values import (
    Account,
    UnreadableValueError,
    a_list,
    an_object,
    decoded,
    message_of,
    text_or_none,
)
from turnlog.domain.events import Json
from turnlog.domain.values import RUN_STATUSES

Row = Mapping[str, Any]

_STATES = frozenset({"active", "paused", "completed", "expired", "archived", "failed"})
_NAMES = {
    "agent_id": "agentId",
    "user_id": "userId",
    "created_at": "createdAt",
    "updated_at": "updatedAt",
    "expires_at": "expiresAt",
    "start_time": "startTime",
    "end_time": "endTime",
    "session_id": "sessionId",
}
"""Columns as the same values are called in Redis."""
_BESIDES = (
    "session_type",
    "team_id",
    "workflow_id",
    "agent_data",
    "team_data",
    "workflow_data",
    "runs",
    "summary",
)
"""Columns of an AgentDb that turnlog has no place of its own for: kept in the metadata."""
_RUN = {"id", "sessionId", "status", "startTime", "endTime", "result", "error"}


def from_row(row: Row, runs: Iterable[Row] = ()) -> Found:
    """Return what a row of the SQL or the SQLite session store stands for, with the rows of its runs."""

    def read(account: Account) -> OldSession:
        given = [{**_named(run), "result": decoded(f"the result of run {run['id']!r}", run["result"])} for run in runs]
        return _session(account, _named(row), given)

    return _guarded(str(row["id"]), read)


def from_hash(fields: Mapping[str, Any], messages: Sequence[Json], runs: Sequence[Json], account: Account) -> Found:
    """Return what a hash and its lists in Redis stand for; ``account`` has notes of their reading."""

    def read(account: Account) -> OldSession:
        given = [an_object("a run", run) for run in runs]
        return _session(account, {**fields, "messages": list(messages)}, given)

    return _guarded(str(fields["id"]), read, account)


def from_agent_db(row: Row) -> Found:
    """Return what a row of an AgentDb's sessions stands for; its messages stand in ``session_data``."""

    def read(account: Account) -> OldSession:
        data = an_object("session_data", row.get("session_data"), account)
        rest = {key: value for key, value in data.items() if key not in {"messages", "metadata"}}
        besides = {name: _json_or_text(row.get(name)) for name in _BESIDES if row.get(name) is not None}
        metadata = {
            **an_object("metadata", row.get("metadata")),
            **an_object("session_data.metadata", data.get("metadata")),
        }
        kept = {**({"session_data": rest} if rest else {}), **besides}
        given = {**_named(row), "messages": data.get("messages"), "metadata": metadata}
        return _session(account, given, [], besides=kept)

    return _guarded(str(row["session_id"]), read)


def _guarded(session_id: str, read: Callable[[Account], OldSession], account: Account | None = None) -> Found:
    try:
        found = read(account or Account(session_id))
    except UnreadableValueError as error:
        return Unreadable(note=Note(what="session", id=session_id, session_id=session_id, reason=str(error)))
    return found


def _named(row: Row) -> dict[str, Any]:
    return {_NAMES.get(name, name): value for name, value in row.items()}


def _session(
    account: Account,
    given: Mapping[str, Any],
    runs: Sequence[Mapping[str, Any]],
    besides: Mapping[str, Json] | None = None,
) -> OldSession:
    said = (
        message_of(item, f"number {i}", account)
        for i, item in enumerate(a_list("messages", given.get("messages"), account))
    )
    messages: list[OldMessage] = [one for one in said if one is not None]
    kept = {**(besides or {}), **_kept(given)}
    updated_at = account.moment("updatedAt", given.get("updatedAt"))
    return OldSession(
        session_id=account.session_id,
        user_id=text_or_none(given.get("userId")),
        agent=text_or_none(given.get("agentId")),
        status=_status(given, account),
        created_at=account.moment("createdAt", given.get("createdAt")),
        updated_at=updated_at,
        context=an_object("context", given.get("context")),
        metadata={**an_object("metadata", given.get("metadata")), **({"confused-ai": kept} if kept else {})},
        messages=tuple(messages),
        runs=tuple(_run(run, account) for run in sorted(runs, key=lambda run: str(run.get("startTime")))),
        lost=tuple(account.lost),
        changed=tuple(account.changed),
    )


def _kept(given: Mapping[str, Any]) -> dict[str, Json]:
    expires = given.get("expiresAt")
    return {"expiresAt": str(expires)} if expires else {}


def _status(given: Mapping[str, Any], account: Account) -> str:
    state = given.get("state") or "active"
    if state in _STATES:
        return str(state)
    account.change("status", state, "turnlog has none such: the session is active")
    return "active"


def _run(run: Mapping[str, Any], account: Account) -> OldRun:
    run_id = str(run.get("id"))
    status = str(run.get("status"))
    if status != "running" and status not in RUN_STATUSES:
        account.change("run", run_id, f"its status was {status!r:.40}")
        status = "failed"
    return OldRun(
        run_id=run_id,
        status=status,
        details={key: value for key, value in run.items() if key not in _RUN and value is not None},
        result=run.get("result"),
        error=text_or_none(run.get("error")),
        started_at=account.moment(f"the start of run {run_id}", run.get("startTime")),
        finished_at=account.moment(f"the end of run {run_id}", run.get("endTime")),
    )


def _json_or_text(value: Any) -> Json:
    try:
        return decoded("it", value)
    except UnreadableValueError:
        return str(value)
