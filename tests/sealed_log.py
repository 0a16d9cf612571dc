"""A log for tests of its format: rows that the package has sealed, open to damage, and the export that holds them."""

import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from turnlog.domain.chain import genesis
from turnlog.domain.envelope import NewEvent, erase, header_of, seal
from turnlog.domain.events import TOPICS, DataCollected, Event, MessageAdded, SessionDeleted, SessionStarted

START = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
GENESIS = b"genesis salt 16b"
TOPIC_OF = {cls: topic for topic, cls in TOPICS.items()}


@dataclass
class Row:
    """One stored event with its place in the log."""

    position: int
    stream: str
    version: int
    topic: str
    state: bytes


@dataclass
class Log:
    """What a store would hold, in position order; ``keys`` are (session, version)."""

    rows: list[Row] = field(default_factory=list[Row])
    keys: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def turn(self, session: str, *events: Event, **changes: Any) -> None:
        """Append one turn; ``changes`` are to the ``NewEvent`` of each."""
        for i, event in enumerate(events, 1):
            new = msgspec.structs.replace(self._new(session, event, (i, len(events))), **changes)
            state, _ = seal(new)
            self.rows.append(Row(2 * len(self.rows) + 1, new.originator_id, new.originator_version, new.topic, state))

    def _new(self, session: str, event: Event, turn: tuple[int, int]) -> NewEvent:
        stream, n = f"default/{session}", len(self.rows)
        before = [row for row in self.rows if row.stream == stream]
        return NewEvent(
            originator_id=stream,
            originator_version=len(before) + 1,
            topic=TOPIC_OF[type(event)],
            event=event,
            event_id=f"0194259f-7a80-7000-8000-{n:012}",
            recorded_at=START + timedelta(milliseconds=n),
            occurred_at=None,
            turn=turn,
            previous=header_of(before[-1].state).hash if before else genesis(GENESIS, stream),
            salt=n.to_bytes(16, "big"),
            genesis=None if before else GENESIS,
        )

    def row(self, session: str, version: int) -> Row:
        """Return one event's row."""
        return next(row for row in self.rows if (row.stream, row.version) == (f"default/{session}", version))

    def erase(self, session: str) -> None:
        """Destroy every P of a session."""
        for row in self.rows:
            if row.stream == f"default/{session}":
                row.state = erase(row.state)

    def heads(self) -> bytes:
        """Return a file with the head of every session."""
        return lines([head(row) for row in {row.stream: row for row in self.rows}.values()])

    def export(self) -> bytes:
        """Return the export; states that are not UTF-8 go in as they are."""
        events = [{"event": {**vars(row), "state": row.state.decode(errors="surrogateescape")}} for row in self.rows]
        key = {"kind": "message", "key": "m-1", "fingerprint": b64encode(bytes(16)).decode()}
        keys = [{"key": {**key, "stream": f"default/{session}", "version": version}} for session, version in self.keys]
        first = {"turnlog": "export", "format": 1, "tenant": "default", "position": 1_000_000}
        return lines([first, *events, *keys, {"end": {"events": len(events), "keys": len(keys)}}])


def lines(entries: Sequence[object]) -> bytes:
    """Return line-JSON."""
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    return text.encode(errors="surrogateescape")


def head(row: Row) -> dict[str, object]:
    """Return the head that an event is."""
    text = b64encode(header_of(row.state).hash).decode()
    return {"session_id": row.stream.partition("/")[2], "version": row.version, "hash": text}


def said(content: str, **more: Any) -> MessageAdded:
    """Return a message."""
    return MessageAdded(message_id="m-1", role="user", content=content, **more)


def sample(*, erased: bool = True) -> Log:
    """Return 14 events of s1 (turns of 1, 3, 1), s2 (1, 1, 3) and ``gone`` (1, 2, 1; erased), interleaved."""
    log = Log(keys=[("s1", 3), ("s2", 1)])
    log.turn("s1", SessionStarted(user_id="alice"))
    log.turn("s2", SessionStarted(data={"private": 1, "header": '"},"private":null}'}))
    log.turn("s1", DataCollected(values={"city": "Zürich"}), said("hello"), said("there", name='},"genesis":"'))
    log.turn("gone", SessionStarted(user_id="bob"))
    log.turn("s2", said("bye"), actor='a "robot"}', causation_id="c", correlation_id="\\", occurred_at=START)
    log.turn("gone", said("secret"), said("more"))
    log.turn("s1", said("again"))
    log.turn("s2", said("x"), said("y"), said("z"))
    log.turn("gone", SessionDeleted())
    if erased:
        log.erase("gone")
    return log
