"""Verifying a stream: what was written passes, and whatever was done to it afterwards is found and placed."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnlog.domain import events as e
from turnlog.domain.chain import commitment, event_hash
from turnlog.domain.envelope import erase, header_of, split
from turnlog.domain.mapper import StreamRow
from turnlog.domain.verification import StreamCheck
from turnlog.testing.conversation import Conversation
from turnlog.testing.scenario import at
from turnlog.testing.sealing import CODEC, STREAM, check, erased, seal_stream
from turnlog.testing.strategies import living

EVENTS = (
    e.SessionStarted(user_id="alice"),
    e.MessageAdded(message_id="m1", role="user", content="hello"),
    e.MessageAdded(message_id="m2", role="assistant", content="hi"),
    e.RouteEntered(route="booking"),
)
DELETED = (*EVENTS, e.SessionDeleted())


def turns_of(sizes: list[int], n: int) -> list[tuple[int, int]]:
    """Return the places of n events in turns of these sizes, the last one as long as there are events left."""
    turns: list[tuple[int, int]] = []
    for size in [*sizes, *[1] * n]:
        size = min(size, n - len(turns))  # noqa: PLW2901 - the last turn ends with the stream
        turns += [(i, size) for i in range(1, size + 1)]
    return turns


@given(living, st.lists(st.integers(1, 4), max_size=5))
def test_whatever_was_sealed_verifies(conversation: Conversation, sizes: list[int]) -> None:
    """Any history, in turns of any size, passes; read at once or row by row."""
    rows = seal_stream(conversation.events, turns=turns_of(sizes, len(conversation.events)))
    assert check(rows) is None
    checked = StreamCheck(STREAM, "s-1")
    for row in rows:
        checked.feed([row], CODEC.event)
    assert checked.finish() is None
    assert (checked.version, checked.hash) == (len(rows), header_of(rows[-1][3]).hash)


@given(living)
def test_a_deleted_stream_verifies_when_its_content_is_gone(conversation: Conversation) -> None:
    """Erased, the chain still holds from the first event to the tombstone."""
    assert check(erased(seal_stream([*conversation.events, e.SessionDeleted()]))) is None


@given(living, st.data())
def test_any_bit_that_flips_is_found(conversation: Conversation, data: st.DataObject) -> None:
    """Each single bit of each stored byte counts, and the failure names the version it is in."""
    rows = seal_stream(conversation.events)
    which = data.draw(st.integers(0, len(rows) - 1))
    bit = data.draw(st.integers(0, len(rows[which][3]) * 8 - 1))
    failure = check(flipped(rows, which, bit))
    assert failure is not None
    assert (failure.session_id, failure.version) == ("s-1", which + 1)


@pytest.mark.parametrize("stream", [seal_stream(EVENTS), erased(seal_stream(DELETED))], ids=["whole", "erased"])
def test_every_single_bit_of_a_stream_counts(stream: list[StreamRow]) -> None:
    """All of them, one after the other: none can be changed unseen, nor end in anything but a failure."""
    unseen = [
        (version, bit)
        for which, (_, version, _, state) in enumerate(stream)
        for bit in range(len(state) * 8)
        if (failure := check(flipped(stream, which, bit))) is None or failure.version != version
    ]
    assert unseen == []


def flipped(rows: list[StreamRow], which: int, bit: int) -> list[StreamRow]:
    """Return the rows with one bit of one state changed."""
    position, version, topic, state = rows[which]
    changed = bytearray(state)
    changed[bit // 8] ^= 1 << bit % 8
    return [*rows[:which], (position, version, topic, bytes(changed)), *rows[which + 1 :]]


@given(living, st.data())
def test_nothing_can_be_taken_out_moved_or_put_in(conversation: Conversation, data: st.DataObject) -> None:
    """Any other order or selection of the rows, renumbered or not, fails."""
    rows = seal_stream(conversation.events)
    chosen = data.draw(st.lists(st.sampled_from(rows), max_size=len(rows) + 2))
    if chosen == rows[: len(chosen)]:
        chosen = [*chosen, rows[0], rows[0]]
    assert check(chosen) is not None
    renumbered = [(n * 10, n, topic, state) for n, (_, _, topic, state) in enumerate(chosen, 1)]
    assert check(renumbered) is not None


@example(EVENTS, 1)
@given(living.map(lambda conversation: tuple(conversation.events)), st.integers(0, 40))
def test_a_cut_tail_is_found_only_by_a_head_kept_elsewhere(events: Any, n: int) -> None:
    """A prefix of whole turns is a good chain: its last hash is what differs from the head one has kept."""
    rows = seal_stream(events)
    checked = StreamCheck(STREAM, "s-1")
    checked.feed(rows[:n], CODEC.event)
    assert checked.finish() is None
    assert (checked.hash == header_of(rows[-1][3]).hash) == (n >= len(rows))


# --- what can be done to a stream, and what is said of it -------------------------------------------------------------


def put(rows: list[StreamRow], version: int, **fields: Any) -> list[StreamRow]:
    """Return the rows with one of them changed: its ``position``, ``version``, ``topic`` or ``state``."""
    names = ("position", "version", "topic", "state")
    changed = {**dict(zip(names, rows[version - 1], strict=True)), **fields}
    row: Any = tuple(changed[name] for name in names)
    return [*rows[: version - 1], row, *rows[version:]]


def reworded(state: bytes, old: bytes, new: bytes) -> bytes:
    """Return the bytes with something else in their place, sealed again by one who has no other event to change."""
    assert old in state
    cut, _, private = split(state)
    assert private is not None
    before = header_of(state).commitment
    cut, private = cut.replace(old, new), private.replace(old, new)
    after = commitment(private)
    cut = cut.replace(msgspec.json.encode(before), msgspec.json.encode(after))
    return b'{"header":' + cut + b',"hash":' + msgspec.json.encode(event_hash(cut)) + b'},"private":' + private + b"}"


def state_of(rows: list[StreamRow], version: int) -> bytes:
    """Return one row's bytes."""
    return rows[version - 1][3]


ROWS = seal_stream(EVENTS)
OTHER = seal_stream(EVENTS, stream="default/s-2")
IN_TURNS = seal_stream(EVENTS, turns=[(1, 2), (2, 2), (1, 2), (2, 2)])
BEFORE_ERASURE = seal_stream(DELETED)
GONE = erased(BEFORE_ERASURE)
AFTER_THE_END = seal_stream([*DELETED, e.HistoryCleared()])
FORGED = reworded(state_of(ROWS, 2), b"hello", b"hallo")

Tampering = tuple[list[StreamRow], int, str]

TAMPERED: dict[str, Tampering] = {
    "a missing event": ([*ROWS[:1], *ROWS[2:]], 3, "expected version 2, found 3"),
    "a missing first event": (ROWS[1:], 2, "expected version 1, found 2"),
    "an event twice": ([*ROWS[:2], *ROWS[1:]], 2, "expected version 3, found 2"),
    "two events in the wrong order": ([ROWS[0], ROWS[2], ROWS[1], ROWS[3]], 3, "expected version 2, found 3"),
    "a version that is not its own": (put(ROWS, 2, state=state_of(ROWS, 3)), 2, "the header 3"),
    "another topic in the row": (put(ROWS, 2, topic="ToolCalled.v1"), 2, "the header 2 and MessageAdded.v1"),
    "another session's stream": (OTHER, 1, "not bound to this session's name"),
    "an event of another session": (put(ROWS, 2, state=state_of(OTHER, 2)), 2, "the chain is broken"),
    "a stream that begins with a message": (seal_stream(EVENTS[1:]), 1, "the first event is MessageAdded.v1"),
    "changed content": (
        put(ROWS, 2, state=state_of(ROWS, 2).replace(b"hello", b"hallo")),
        2,
        "the content does not match its commitment",
    ),
    "changed actor": (
        put(ROWS, 2, state=state_of(ROWS, 2)[:-2] + b',"actor":"eve"}}'),
        2,
        "the content does not match its commitment",
    ),
    "a changed time": (
        put(ROWS, 2, state=state_of(ROWS, 2).replace(b"2026-01-01", b"2025-01-01")),
        2,
        "the header does not match its hash",
    ),
    "content changed with its own hashes": (put(ROWS, 2, state=FORGED), 3, "the chain is broken"),
    "a cut turn": (IN_TURNS[:3], 3, "event 1 of 2 is the last one there"),
    "a turn that begins in its middle": (
        seal_stream(EVENTS, turns=[(1, 1), (2, 2), (1, 1), (1, 1)]),
        2,
        "a turn is not whole: event 2 of 2 follows 1 of 1",
    ),
    "a turn that changes its size": (
        seal_stream(EVENTS, turns=[(1, 2), (2, 3), (3, 3), (1, 1)]),
        2,
        "event 2 of 3 follows 1 of 2",
    ),
    "a turn of nothing": (seal_stream(EVENTS, turns=[(1, 1), (1, 0), (1, 1), (1, 1)]), 2, "a turn is not whole"),
    "a time that goes back": (
        seal_stream(EVENTS, recorded_at=lambda version: at(-version)),
        2,
        "recorded_at goes back",
    ),
    "positions that do not rise": (put(ROWS, 2, position=10), 2, "position 10 does not rise with the version"),
    "a position of nothing": (put(ROWS, 1, position=0), 1, "position 0 does not rise"),
    "content gone without a deletion": (put(ROWS, 3, state=erase(state_of(ROWS, 3))), 3, "never deleted"),
    "the last content gone without a deletion": (put(ROWS, 4, state=erase(state_of(ROWS, 4))), 4, "never deleted"),
    "all content gone without a deletion": (erased(ROWS), 1, "the content is gone, but the session was never deleted"),
    "a deletion that left all content": (BEFORE_ERASURE, 1, "the content of this event is still there"),
    "a deletion that left its own content": ([*GONE[:4], BEFORE_ERASURE[4]], 5, "the content of this event is still"),
    "a deletion that left content before it": ([*BEFORE_ERASURE[:4], GONE[4]], 1, "the content of this event is still"),
    "content put back after the deletion": (put(GONE, 3, state=state_of(ROWS, 3)), 3, "the session was deleted, but"),
    "an event after the deletion": (erased(AFTER_THE_END), 6, "an event follows SessionDeleted"),
    "an event of another format": (
        put(ROWS, 2, state=reworded(state_of(ROWS, 2), b'"format":1', b'"format":2')),
        2,
        "format 2 is not known: a newer turnlog wrote it",
    ),
    "a time without a zone": (put(ROWS, 2, state=reworded(state_of(ROWS, 2), b':02Z"', b':02"')), 2, ""),
    "a second genesis": (
        put(ROWS, 2, state=reworded(state_of(ROWS, 2), b'"hello"}', b'"hello"},"genesis":"c2FsdA=="')),
        2,
        "a genesis salt stands above version 1",
    ),
    "bytes that are no event": (put(ROWS, 2, state=b"{}"), 2, "not a stored event"),
    "no bytes": (put(ROWS, 2, state=b""), 2, "not a stored event"),
}


@pytest.mark.parametrize("tampered", TAMPERED.values(), ids=TAMPERED)
def test_tampering_is_found_with_its_place_and_reason(tampered: Tampering) -> None:
    """The failure names the session, the first bad version, and what is wrong there."""
    rows, version, reason = tampered
    failure = check(rows)
    assert failure is not None
    assert (failure.session_id, failure.version) == ("s-1", version)
    assert reason in failure.reason


def test_a_recomputed_chain_passes_and_only_a_kept_head_tells() -> None:
    """Who can rewrite everything can make a chain that holds; its head is another."""
    rewritten = seal_stream([EVENTS[0], e.MessageAdded(message_id="m1", role="user", content="forged"), *EVENTS[2:]])
    assert check(rewritten) is None
    assert header_of(rewritten[-1][3]).hash != header_of(ROWS[-1][3]).hash


def test_content_that_cannot_be_read_fails_although_its_hashes_hold() -> None:
    """A chain computed over a body that is no event of its topic is no valid log."""
    (row,) = seal_stream(EVENTS[:1])
    nonsense = reworded(row[3], b'"user_id":"alice"', b'"user_id":17')
    failure = check([(10, 1, row[2], nonsense)])
    assert failure is not None
    assert "the content cannot be read" in failure.reason


def test_an_unknown_event_fails() -> None:
    """An event that this turnlog does not know is not passed over in silence."""
    first, second, *_ = ROWS
    newer = reworded(second[3], b"MessageAdded.v1", b"MessageAdded.v9")
    failure = check([first, (20, 2, "MessageAdded.v9", newer)])
    assert failure is not None
    assert failure.version == 2
    assert "MessageAdded.v9" in failure.reason


def test_after_the_first_failure_nothing_is_looked_at() -> None:
    """The first thing found is the one that is told."""
    checked = StreamCheck(STREAM, "s-1")
    checked.feed([ROWS[1]], CODEC.event)
    checked.feed(ROWS, unread)
    failure = checked.finish()
    assert failure is not None
    assert failure.version == 2


def unread(topic: str, state: bytes) -> object:
    """Stand for a decoder that is never asked."""
    raise AssertionError((topic, state))


@pytest.mark.parametrize("versions", [{1}, {3}, {2, 4}, {4, 9}])
def test_versions_can_be_watched_for(versions: set[int]) -> None:
    """The hashes of the events at given versions are remembered, to be compared with heads kept elsewhere."""
    checked = StreamCheck(STREAM, "s-1", watch=versions)
    checked.feed(ROWS[: min(versions) - 1], CODEC.event)
    assert checked.watched == {}
    checked.feed(ROWS[min(versions) - 1 :], CODEC.event)
    assert checked.finish() is None
    assert checked.watched == {version: header_of(state_of(ROWS, version)).hash for version in versions - {9}}


def test_the_first_events_can_be_collected() -> None:
    """Those up to a version, as they were just read, each with its time; erased ones are none."""
    checked = StreamCheck(STREAM, "s-1", collect=3)
    checked.feed(ROWS[:2], CODEC.event)
    assert checked.facts == [(EVENTS[0], at(1)), (EVENTS[1], at(2))]
    checked.feed(ROWS[2:], CODEC.event)
    assert checked.facts == [(EVENTS[2], at(3))]
    checked = StreamCheck(STREAM, "s-1", collect=3)
    checked.feed(GONE, CODEC.event)
    assert checked.facts == []
    assert checked.deleted


def test_more_can_be_required_of_a_stream() -> None:
    """What another check finds counts, unless something was found before."""
    checked = StreamCheck(STREAM, "s-1")
    checked.require(lambda: None)
    assert checked.failure is None
    checked.require(lambda: (3, "first"))
    checked.require(lambda: (1, "second"))
    assert checked.failure is not None
    assert (checked.failure.session_id, checked.failure.version, checked.failure.reason) == ("s-1", 3, "first")


def test_an_empty_stream_has_nothing_wrong() -> None:
    """Nothing recorded is nothing to find."""
    assert check([]) is None
