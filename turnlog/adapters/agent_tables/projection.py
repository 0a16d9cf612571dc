"""A read model that keeps the tables of @falai/agent: one row a session, one a visible message.

It is committed with its checkpoint, rebuilt, parked and made to forget like every projection. Beside each table stands
one of its own: sessions' states, to fold on from, and the order of their messages. One page of the log is one query for
states, one fold a session, one write a table.

The whole history stands inside ``collected_data`` too, where those tools look for it: so a session's row is written
anew, however long it is, once a page in which something happened to it. ``history=False`` leaves it out.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from turnlog.adapters.agent_tables import values
from turnlog.adapters.agent_tables.dialects import Dialect, dialect_of
from turnlog.adapters.agent_tables.layout import Layout
from turnlog.adapters.agent_tables.statements import Statements
from turnlog.adapters.agent_tables.values import STATUSES, Said
from turnlog.domain import events as e
from turnlog.domain.errors import CorruptLog, InvalidInput
from turnlog.domain.events import Erased, Event, Json
from turnlog.domain.session import FOLD_REVISION, fold, initial
from turnlog.domain.typed import decoder
from turnlog.domain.values import STATUSES as OURS
from turnlog.domain.values import RecordedEvent, SessionState
from turnlog.projections.session_index import microseconds, moment

REVISION = 1
"""Raise it with every change to what the tables hold."""
_TICK = timedelta(microseconds=1)
_CHUNK = 500
"""Sessions that are asked for at once."""


class _Kept(msgspec.Struct):
    """What is kept of a session to fold on from; ``said_at`` is when its last message was said, and as it is told."""

    state: SessionState
    updated_at: datetime
    step_description: str | None = None
    user_id: str | None = None
    ordinal: int = 0
    said_at: datetime | None = None
    told_at: datetime | None = None


_encode = msgspec.json.Encoder().encode
_decode = decoder(_Kept)


class AgentTables:
    """Keeps ``agent_sessions`` and ``agent_messages``, for ``store.add_projection`` and ``turnlog project``.

    Args:
        sessions: what the sessions' table is called; beside it stands one of the same name with ``_state``.
        messages: what the messages' table is called; beside it stands one of the same name with ``_order``.
        session_columns: other names for columns, by the names in docs/existing-tools.md.
        message_columns: as above.
        flows: the columns and words of @falai/agent 2.x, which says flow where 1.x says route.
        history: whether ``collected_data`` holds the messages, too.
        statuses: what turnlog's statuses are called there, if not as ``STATUSES`` says.
        tenant: whose sessions; the tables have no column for it.
        name: of the view; another one for each set of tables.

    Raises:
        InvalidInput: a name is no identifier, or is used twice.
    """

    key = "session"

    def __init__(
        self,
        *,
        sessions: str = "agent_sessions",
        messages: str = "agent_messages",
        session_columns: Mapping[str, str] | None = None,
        message_columns: Mapping[str, str] | None = None,
        flows: bool = False,
        history: bool = True,
        statuses: Mapping[str, str] | None = None,
        tenant: str = "default",
        name: str = "agent_tables",
    ) -> None:
        self.name = name
        self.revision = 1_000 * FOLD_REVISION + REVISION
        self._layout = Layout(sessions, messages, session_columns or {}, message_columns or {}, flows=flows)
        self._flows = flows
        self._history = history
        self._statuses = {**STATUSES, **(statuses or {})}
        if unknown := self._statuses.keys() - OURS:
            raise InvalidInput("statuses", f"{min(unknown)!r:.100} is no status of a session")
        self._tenant = tenant

    def create(self, connection: Any) -> None:
        """Create the tables, empty."""
        dialect = dialect_of(connection)
        for statement in self._layout.creating(dialect.types, dialect.wording.quote):
            dialect.run(connection, statement)

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Write what events mean; those that were applied are passed over.

        Raises:
            CorruptLog: an event before one of these is missing.
        """
        ours = [event for event in events if event.tenant == self._tenant]
        if ours:
            _Page(self._layout, dialect_of(connection), connection, history=self._history).apply(ours, self._row)

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Delete a session's rows."""
        if tenant == self._tenant:
            _Page(self._layout, dialect_of(connection), connection, history=False).delete([session_id])

    def _row(self, kept: _Kept, dialect: Dialect, history: str | None) -> list[object]:
        """Return the values of a session's row, in the order of its columns."""
        state, time = kept.state, dialect.time
        state = msgspec.structs.replace(state, updated_at=kept.updated_at)
        blob = values.blob(state, kept.step_description, history, flows=self._flows)
        row: list[object] = [
            state.id,
            state.user_id,
            state.agent,
            self._statuses[state.status],
            state.current_route,
            state.current_step,
            dialect.json(blob),
            state.message_count,
            time(state.last_message_at),
            time(state.completed_at),
            time(state.created_at),
            time(state.updated_at),
        ]
        return [*row, None, None, state.version] if self._flows else row


class _Page:
    """Applies one page of events on one connection."""

    def __init__(self, layout: Layout, dialect: Dialect, connection: Any, *, history: bool) -> None:
        self._layout = layout
        self._dialect = dialect
        self._connection = connection
        self._history = history
        self._sql = Statements(layout, dialect.wording)
        self._kept: dict[str, _Kept] = {}
        self._facts: dict[str, list[tuple[Event | Erased, datetime]]] = {}
        self._rows: list[Sequence[object]] = []
        self._places: list[Sequence[object]] = []

    def apply(self, events: Sequence[RecordedEvent], row_of: Any) -> None:
        """Fold the events into states, write messages as they come, then the sessions' rows."""
        self._load({event.session_id: None for event in events})
        for event in events:
            self._take(event)
        self._flush()
        rows: list[Sequence[object]] = []
        states: list[Sequence[object]] = []
        for session_id, facts in self._facts.items():
            kept = self._kept[session_id]
            kept.state = fold(kept.state, facts)
            history = self._history_of(session_id) if self._history else None
            rows.append(row_of(kept, self._dialect, history))
            states.append((session_id, _encode(kept).decode()))
        self._dialect.run_all(self._connection, self._sql.replace_session, rows)
        self._dialect.run_all(self._connection, self._sql.replace_state, states)

    def delete(self, session_ids: Iterable[str]) -> None:
        """Delete all rows of sessions."""
        for session_id in session_ids:
            for statement in self._sql.delete:
                self._run(statement, session_id)

    def _load(self, session_ids: Iterable[str]) -> None:
        ids = list(session_ids)
        for i in range(0, len(ids), _CHUNK):
            some = ids[i : i + _CHUNK]
            for session_id, state in self._run(self._sql.states(len(some)), *some).fetchall():
                self._kept[session_id] = _decode(state)

    def _take(self, recorded: RecordedEvent) -> None:
        session_id, event, at = recorded.session_id, recorded.event, recorded.occurred_at
        kept = self._kept.get(session_id)
        if isinstance(event, e.SessionDeleted):
            self._flush()
            self._kept.pop(session_id, None)
            self._facts.pop(session_id, None)
            self.delete([session_id])
            return
        if kept is None and isinstance(event, e.SessionStarted):
            state = initial(recorded.tenant, session_id)
            kept = self._kept[session_id] = _Kept(state=state, updated_at=at, user_id=event.user_id)
        if kept is None:
            if isinstance(event, Erased):
                return  # its end follows
            raise CorruptLog(f"session {session_id!r}: version {recorded.version} was found, but nothing before it")
        facts = self._facts.get(session_id, [])
        version = kept.state.version + len(facts)
        if recorded.version <= version:
            return
        if recorded.version != version + 1:
            raise CorruptLog(f"session {session_id!r}: version {version + 1} is missing, found {recorded.version}")
        self._facts.setdefault(session_id, facts).append((event, at))
        kept.updated_at = max(kept.updated_at, at)
        self._change(kept, event, at)

    def _change(self, kept: _Kept, event: Event | Erased, at: datetime) -> None:
        """Write what an event does to messages, and note what the state does not hold."""
        session_id = kept.state.id
        match event:
            case e.MessageAdded():
                self._add(kept, _said(event), at)
            case e.MessageEdited(message_id, content):
                self._edit(session_id, message_id, content)
            case e.MessageRemoved(message_id):
                self._flush()
                self._run(self._sql.remove_message, session_id, message_id)
                self._run(self._sql.remove_place, session_id, message_id)
            case e.HistoryCleared():
                self._clear(session_id)
            case e.HistoryReplaced(messages):
                self._clear(session_id)
                for message in messages:
                    self._add(kept, _said(message), message.occurred_at or at)
            case e.HistoryCompacted(message_id, summary, count):
                self._compact(kept, message_id, summary, count, at)
            case e.OwnerAssigned(user_id):
                self._flush()
                kept.user_id = user_id
                self._run(self._sql.assign, user_id, session_id)
            case e.StepEntered(_, description):
                kept.step_description = description
            case _:
                pass

    def _add(self, kept: _Kept, said: Said, at: datetime) -> None:
        kept.ordinal += 1
        told = at
        if kept.told_at is not None and kept.said_at is not None and kept.said_at <= at <= kept.told_at:
            told = kept.told_at + _TICK  # readers order by it
        kept.said_at, kept.told_at = at, told
        self._insert(kept, said, told, kept.ordinal)

    def _insert(self, kept: _Kept, said: Said, at: datetime, ordinal: int) -> None:
        dialect, session_id = self._dialect, kept.state.id
        calls = values.row_tool_calls(said.tool_calls)
        self._rows.append(
            (
                said.message_id,
                session_id,
                kept.user_id,
                values.row_role(said.role),
                dialect.shown(values.text_of(said.content)),
                dialect.short(said.route),
                dialect.short(said.step),
                None if calls is None else dialect.json(values.json_of(calls)),
                None,
                dialect.time(at),
            )
        )
        item = values.json_of(values.history_item(said)) if self._history else None
        self._places.append((session_id, ordinal, said.message_id, microseconds(at), item))

    def _edit(self, session_id: str, message_id: str, content: Json) -> None:
        self._flush()
        self._run(self._sql.edit_message, self._dialect.shown(values.text_of(content)), session_id, message_id)
        if self._history:
            for (item,) in self._run(self._sql.item, session_id, message_id).fetchall():
                new = values.json_of(values.reworded(msgspec.json.decode(item), content))
                self._run(self._sql.edit_item, new, session_id, message_id)

    def _clear(self, session_id: str) -> None:
        self._flush()
        self._run(self._sql.clear_messages, session_id)
        self._run(self._sql.clear_places, session_id)

    def _compact(self, kept: _Kept, message_id: str, summary: Json, count: int, at: datetime) -> None:
        """Delete all but the newest messages, and put the summary before those, in the order of times too."""
        self._flush()
        session_id = kept.state.id
        newest: list[tuple[int, int]] = self._run(self._sql.newest, session_id, count).fetchall() if count else []
        said = Said(message_id, "system", summary, None, None, None, None, None)
        if not newest:
            self._clear(session_id)
            self._add(kept, said, at)
            return
        first, told = newest[-1]
        self._run(self._sql.drop_messages, session_id, session_id, first)
        self._run(self._sql.drop_places, session_id, first)
        self._insert(kept, said, moment(told) - _TICK, first - 1)

    def _history_of(self, session_id: str) -> str:
        items = self._run(self._sql.items, session_id).fetchall()
        return f"[{','.join(item for (item,) in items)}]"

    def _flush(self) -> None:
        """Write the messages that were gathered."""
        self._dialect.run_all(self._connection, self._sql.insert_message, self._rows)
        self._dialect.run_all(self._connection, self._sql.insert_place, self._places)
        self._rows, self._places = [], []

    def _run(self, statement: str, *parameters: object) -> Any:
        return self._dialect.run(self._connection, statement, parameters)


def _said(event: e.MessageAdded | e.ReplacementMessage) -> Said:
    return Said(
        event.message_id,
        event.role,
        event.content,
        event.name,
        event.tool_calls,
        event.tool_call_id,
        event.route,
        event.step,
    )
