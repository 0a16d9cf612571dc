"""What can happen to a log, each with the words by which it must be found."""

import re
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from typing import Any

from tests.sealed_log import GENESIS, START, Log, said, sample
from turnlog.domain.envelope import erase
from turnlog.domain.events import Event, SessionDeleted, SessionStarted

Damage = Callable[[Log], None]


def swap(session: str, version: int, old: bytes, new: bytes) -> Damage:
    """``old`` gives way to ``new`` in one event's state."""

    def damage(log: Log) -> None:
        row = log.row(session, version)
        assert row.state.count(old) == 1
        row.state = row.state.replace(old, new)

    return damage


def swap_hash(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """One of the hashes of version 3 changes."""

    def damage(log: Log) -> None:
        row = log.row("s1", 3)
        row.state = re.sub(rb'(?<="%b":")[^"]+' % name.encode(), lambda found: change(found[0]), row.state, count=1)

    return damage


def other_first(text: bytes) -> bytes:
    """Return base64 of another hash."""
    return (b"B" if text[:1] == b"A" else b"A") + text[1:]


def other_spelling(text: bytes) -> bytes:
    """Return the same hash in base64 whose left-over bits are not zero."""
    respelled = text[:-2] + bytes([text[-2] + 1]) + b"="
    assert b64decode(respelled) == b64decode(text)
    return respelled


def put(session: str, version: int, /, **columns: Any) -> Damage:
    """Columns of one row change."""
    return lambda log: vars(log.row(session, version)).update(columns)


def drop(session: str, *versions: int) -> Damage:
    """Rows vanish."""

    def damage(log: Log) -> None:
        for version in versions:
            log.rows.remove(log.row(session, version))

    return damage


def exchange_states(log: Log) -> None:
    """Two events change places, the rows stay."""
    one, other = log.row("s1", 3), log.row("s1", 4)
    one.state, other.state = other.state, one.state


def exchange_rows(log: Log) -> None:
    """Two events change places, with their versions."""
    one, other = log.row("s1", 3), log.row("s1", 4)
    i = log.rows.index(one)
    one.position, other.position = other.position, one.position
    log.rows[i], log.rows[i + 1] = other, one


def exchange_lines(log: Log) -> None:
    """Two lines of different sessions change places."""
    log.rows[0], log.rows[1] = log.rows[1], log.rows[0]


def insert_copy(log: Log) -> None:
    """An event stands there twice."""
    row = log.row("s1", 3)
    log.rows.insert(log.rows.index(row) + 1, replace(row, position=row.position + 1))


def append_copy(log: Log) -> None:
    """An event stands there again under the next version."""
    log.rows.append(replace(log.row("s1", 5), version=6, position=999))


def erase_one(log: Log) -> None:
    """The P of one event vanishes."""
    log.row("s1", 3).state = erase(log.row("s1", 3).state)


def restore(version: int) -> Damage:
    """The P of one erased event is back."""
    whole = sample(erased=False).row("gone", version).state
    return lambda log: vars(log.row("gone", version)).update(state=whole)


def rename(log: Log) -> None:
    """A whole stream has another name."""
    for row in log.rows:
        row.stream = row.stream.replace("default/s1", "default/s9")


def key(session: str, version: int) -> Damage:
    """There is one key more."""
    return lambda log: log.keys.append((session, version))


ROW_SAYS = "session \"s1\", version {}: the row says {} '{}', the header {} 'MessageAdded.v1'"
STILL_THERE = 'session "gone", version {}: the content is still there, but the session was deleted'

DAMAGES: dict[str, tuple[Damage, str]] = {
    "body": (swap("s1", 3, b"hello", b"jello"), 'session "s1", version 3: the content does not match its commitment'),
    "salt": (swap("s1", 3, b'"salt":"A', b'"salt":"B'), 'session "s1", version 3: the content does not match'),
    "header": (swap("s1", 3, b'"event_id":"0', b'"event_id":"1'), 'session "s1", version 3: the header does not match'),
    "hash": (swap_hash("hash", other_first), 'session "s1", version 3: the header does not match its hash'),
    "hash, spelled otherwise": (swap_hash("hash", other_spelling), 'session "s1", version 3: the stored bytes do not'),
    "commitment": (swap_hash("commitment", other_first), 'session "s1", version 3: the header does not match its hash'),
    "previous": (swap_hash("previous", other_first), 'session "s1", version 3: the header does not match its hash'),
    "column version": (put("s1", 3, version=9), 'session "s1", version 9: expected version 3, found 9'),
    "column topic": (put("s1", 3, topic="MessageAdded.v2"), ROW_SAYS.format(3, 3, "MessageAdded.v2", 3)),
    "column position": (put("s1", 3, position=1), "line 5: position 1 does not rise"),
    "position beyond the log": (put("gone", 4, position=1_000_001), "line 15: position 1000001 does not rise"),
    "dropped": (drop("s1", 3), 'session "s1", version 4: expected version 3, found 4'),
    "dropped first": (drop("s1", 1), 'session "s1", version 2: expected version 1, found 2'),
    "states exchanged": (exchange_states, ROW_SAYS.format(3, 3, "MessageAdded.v1", 4)),
    "rows exchanged": (exchange_rows, 'session "s1", version 4: expected version 3, found 4'),
    "lines exchanged": (exchange_lines, "line 3: position 1 does not rise"),
    "copy inserted": (insert_copy, 'session "s1", version 3: expected version 4, found 3'),
    "copy appended": (append_copy, ROW_SAYS.format(6, 6, "MessageAdded.v1", 5)),
    "turn cut": (drop("s2", 5), 'session "s2", version 4: the last turn is cut: event 2 of 3'),
    "turn cut after its first": (drop("s2", 4, 5), 'session "s2", version 3: the last turn is cut: event 1 of 3'),
    "one erased": (erase_one, 'session "s1", version 3: the content is gone, but the session was not deleted'),
    "tombstone cut off": (drop("gone", 4), 'session "gone", version 1: the content is gone, but the session was not'),
    "first restored": (restore(1), STILL_THERE.format(1)),
    "one restored": (restore(3), STILL_THERE.format(3)),
    "tombstone restored": (restore(4), STILL_THERE.format(4)),
    "renamed": (rename, 'session "s9", version 1: version 1 is not bound to this session\'s name'),
    "one event renamed": (put("s1", 3, stream="default/s9"), 'session "s9", version 3: expected version 1, found 3'),
    "other tenant": (put("gone", 1, stream="other/gone"), "line 7: the stream 'other/gone' is not of this tenant"),
    "key of an erased session": (key("gone", 1), 'session "gone", version 1: a key is left'),
    "key of no event": (key("s1", 6), 'session "s1", version 6: a key is left'),
    "key of no session": (key("s9", 1), 'session "s9", version 1: a key is left'),
}
"""Done to ``sample()``."""


def log_of(*events: Event | tuple[Event, dict[str, Any]]) -> Log:
    """Return a log of one session s1, each event a turn; with changes to the ``NewEvent``, forged."""
    log = Log()
    for event in events:
        if isinstance(event, tuple):
            log.turn("s1", event[0], **event[1])
        else:
            log.turn("s1", event)
    return log


def resealed(old: bytes, new: bytes) -> Log:
    """Return a log of one event in which ``old`` gave way to ``new`` and the hashes were made right again."""
    log = log_of(SessionStarted(user_id="a"))
    swap("s1", 1, old, new)(log)
    state = log.rows[0].state
    for name, prefix, start, end in (
        (b"commitment", b"turnlog.private.1\n", state.index(b',"private":') + 11, len(state) - 1),
        (b"hash", b"turnlog.event.1\n", len(b'{"header":'), state.index(b',"hash":"')),
    ):
        right = b64encode(sha256(prefix + state[start:end]).digest())
        state = re.sub(rb'(?<="%b":")[^"]+' % name, right, state, count=1)
    log.rows[0].state = state
    return log


START_EVENT, EVENT = SessionStarted(), said("x")
BEFORE = START - timedelta(microseconds=1)

FORGERIES: dict[str, tuple[Log, str]] = {
    "no start": (log_of(EVENT), "version 1: the first event is MessageAdded.v1, not SessionStarted"),
    "other genesis": (log_of((START_EVENT, {"previous": bytes(32)})), "version 1: version 1 is not bound"),
    "no genesis": (log_of((START_EVENT, {"genesis": None})), "version 1: a salt of the genesis stands in version 1"),
    "genesis again": (log_of(START_EVENT, (EVENT, {"genesis": GENESIS})), "version 2: a salt of the genesis stands in"),
    "broken chain": (log_of(START_EVENT, (EVENT, {"previous": bytes(32)})), "version 2: the chain is broken"),
    "after the end": (log_of(START_EVENT, SessionDeleted(), EVENT), "version 3: an event follows SessionDeleted"),
    "backwards": (log_of(START_EVENT, (EVENT, {"recorded_at": BEFORE})), "version 2: recorded_at goes back"),
    "turn from its middle": (log_of(START_EVENT, (EVENT, {"turn": (2, 2)})), "version 2: a turn is not whole: event 2"),
    "turn beyond its end": (log_of(START_EVENT, (EVENT, {"turn": (2, 1)})), "version 2: a turn is not whole: event 2"),
    "turn of another length": (
        log_of(START_EVENT, (EVENT, {"turn": (1, 2)}), (EVENT, {"turn": (2, 3)})),
        "version 3: a turn is not whole: event 2 of 3 follows event 1 of 2",
    ),
    "turn of nothing": (log_of(START_EVENT, (EVENT, {"turn": (0, 0)})), "version 2: the stored bytes do not have the"),
    "short salt": (log_of((START_EVENT, {"salt": b"short"})), "version 1: the stored bytes do not have the form"),
    "salt, spelled otherwise": (resealed(b"AAAA==", b"AAAB=="), "version 1: the stored bytes do not have the form"),
    "other format": (resealed(b'"format":1', b'"format":2'), "version 1: the stored bytes do not have the form"),
    "a blank": (resealed(b',"turn"', b', "turn"'), "version 1: the stored bytes do not have the form"),
    "no body": (resealed(b'"body"', b'"bode"'), "version 1: the stored bytes do not have the form"),
    "no JSON": (resealed(b'"body":{', b'"body":{,'), "version 1: it is no JSON object"),
    "no such day": (resealed(b'at":"2025-01-02T', b'at":"2025-02-30T'), "version 1: day is out of range for month"),
    "no such day then": (resealed(b'at":null', b'at":"2025-02-30T00:00:00Z"'), "version 1: day is out of range"),
    "no such hour": (resealed(b"T03:", b"T24:"), "version 1: the stored bytes do not have the form"),
    "not UTC": (resealed(b':05Z"', b':05+00:00"'), "version 1: the stored bytes do not have the form"),
}
"""Streams that break a rule although their hashes match."""
