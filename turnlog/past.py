"""A session's past: any state of it, its events, replay and comparison. Everything here reads the store."""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from typing import cast

from turnlog import inputs
from turnlog.decider import Decider
from turnlog.domain.envelope import header_of
from turnlog.domain.errors import CorruptLog, InvalidInput, SessionGone
from turnlog.domain.events import Erased, Json
from turnlog.domain.session import evolve, initial, same_json
from turnlog.domain.values import Change, Diff, RecordedEvent, SessionState, Step
from turnlog.projections.history import LARGEST_PAGE

_MISSING = object()
_PLAIN = re.compile(r"[\w-]+")


def version_at(decider: Decider, session_id: str, moment: int | datetime, newest: int, field: str = "at") -> int:
    """Return the version that ``moment`` means: itself, or the last one recorded at or before that time.

    Raises:
        InvalidInput: there is no such version.
    """
    if isinstance(moment, datetime):
        return _version_at_time(decider, session_id, inputs.when(field, moment), newest)
    if type(moment) is not int or not 0 <= moment <= newest:
        raise InvalidInput(
            field, f"expected a version from 0 to {newest} or an aware datetime, got {inputs.shown(moment)}"
        )
    return moment


def _version_at_time(decider: Decider, session_id: str, time: datetime, newest: int) -> int:
    """Search the stream by halves: ``recorded_at`` never decreases in it."""
    stream = decider.stream(session_id)
    low, high = 0, newest
    while low < high:
        middle = (low + high + 1) // 2
        row = decider.recorder.select_stream(stream, after=middle - 1, upto=middle)[0]
        if header_of(row[3]).recorded_at <= time:
            low = middle
        else:
            high = middle - 1
    return low


def events(decider: Decider, session_id: str, after: int, upto: int) -> Iterator[RecordedEvent]:
    """Yield a session's events with ``after < version <= upto``, oldest first.

    Raises:
        SessionGone: it was deleted meanwhile.
        CorruptLog: an event cannot be read.
    """
    stream = decider.stream(session_id)
    while after < upto:
        rows = decider.recorder.select_stream(stream, after=after, upto=upto, limit=LARGEST_PAGE)
        if not rows:
            return
        for position, version, topic, state in rows:
            recorded = decider.codec.recorded((position, stream, version, topic, state))
            if isinstance(recorded.event, Erased):
                raise _missing(decider, session_id, version)
            yield recorded
        after = rows[-1][1]


def _missing(decider: Decider, session_id: str, version: int) -> SessionGone | CorruptLog:
    """Return what it means that an event's content is missing: that of a deleted session is destroyed."""
    if decider.load(session_id).state.deleted:
        return SessionGone(f"session {session_id!r} was deleted")
    return CorruptLog(f"session {decider.stream(session_id)!r}, version {version}: the content is gone")


def replay(decider: Decider, session_id: str, upto: int) -> Iterator[Step]:
    """Yield every event with the state before and after it."""
    before = initial(decider.tenant, session_id)
    for event in events(decider, session_id, 0, upto):
        after = evolve(before, event.event, event.recorded_at)
        yield Step(event=event, before=before, after=after)
        before = after


def compare(before: SessionState, after: SessionState) -> Diff:
    """Return what differs between two states of one session, field by field and key by key."""
    changes: list[Change] = []
    for name in before.__struct_fields__:
        if name not in _NOT_COMPARED:
            _compare(name, getattr(before, name), getattr(after, name), changes)
    return Diff(session_id=after.id, from_version=before.version, to_version=after.version, changes=tuple(changes))


_NOT_COMPARED = frozenset({"id", "tenant", "version", "updated_at", "route_history"})


def _compare(path: str, before: Json, after: Json, changes: list[Change]) -> None:
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = cast("dict[str, Json]", before), cast("dict[str, Json]", after)
        for key in {**old, **new}:
            _compare(f"{path}.{_step(key)}", old.get(key, _MISSING), new.get(key, _MISSING), changes)
    elif before is _MISSING:
        changes.append(Change(path=path, kind="added", after=after))
    elif after is _MISSING:
        changes.append(Change(path=path, kind="removed", before=before))
    elif not _same(before, after):
        changes.append(Change(path=path, kind="changed", before=before, after=after))


def _step(key: str) -> str:
    """Return a key as a step of a path: as it is where it is a plain name, else as JSON, so that no two look alike."""
    return key if _PLAIN.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def _same(before: Json, after: Json) -> bool:
    if isinstance(before, (dict, list, str, int, float)) and isinstance(after, (dict, list, str, int, float)):
        return same_json(before, after)
    return bool(before == after)
