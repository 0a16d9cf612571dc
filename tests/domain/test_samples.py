"""Stored samples of every event: what earlier releases wrote must be read for ever.

A file of tests/samples is the exact ``state`` of one stored event, named by its topic, and is never edited. A new
schema gets a new file beside the old one, whose expected event is then what the upcasters make of it.
"""

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from turnlog.domain import events as e
from turnlog.domain.chain import genesis
from turnlog.domain.envelope import NewEvent, header_of, private_of, seal, split
from turnlog.domain.mapper import Mapper, StreamRow
from turnlog.domain.session import fold, initial
from turnlog.domain.upcasting import REGISTRY
from turnlog.testing.sealing import CODEC, check, erased

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
STREAM = "default/sample"
FIRST = "SessionStarted.v1"
LAST = "SessionDeleted.v1"
LATER = datetime(2025, 12, 24, 18, 0, tzinfo=UTC)

EXPECTED: dict[str, Any] = {
    FIRST: e.SessionStarted(
        user_id="user-älïce",
        agent="concierge",
        data={"party_size": 2, "vip": False, "budget": 1e22, "notes": None},
        context={"locale": "de-DE", "nested": {"list": [1, 1.0, True, "1", -0.0, 5e-324]}},
        metadata={"channel": "web", "big": 2**70},
        continued_from="session-before",
        forked_from=e.ForkPoint(session_id="session-origin", version=41),
    ),
    "OwnerAssigned.v1": e.OwnerAssigned(user_id="user-bob"),
    "MessageAdded.v1": e.MessageAdded(
        message_id="m-1",
        role="assistant",
        content=[{"type": "text", "text": 'A table for two? 🍽 "quoted" \\ \0 \u2028 line\nbreak'}],
        name="",
        tool_calls=[{"id": "c-1", "type": "function", "function": {"name": "search", "arguments": "{}"}}],
        tool_call_id="c-0",
        metadata={},
        route="booking",
        step="party-size",
    ),
    "MessageEdited.v1": e.MessageEdited(message_id="m-1", content=None),
    "MessageRemoved.v1": e.MessageRemoved(message_id="m-1"),
    "HistoryCleared.v1": e.HistoryCleared(),
    "HistoryReplaced.v1": e.HistoryReplaced(
        messages=(
            e.ReplacementMessage(message_id="m-2", role="user", content="hello"),
            e.ReplacementMessage(
                message_id="m-3",
                role="tool",
                content={"rows": []},
                name="search",
                tool_calls=[],
                tool_call_id="c-1",
                metadata={"source": "import"},
                route="booking",
                step="party-size",
                occurred_at=LATER,
            ),
        )
    ),
    "HistoryCompacted.v1": e.HistoryCompacted(message_id="m-4", summary="They want a table.", kept=1),
    "DataCollected.v1": e.DataCollected(values={"name": "Ada", "": [None]}, removed=("notes", "vip")),
    "DataCleared.v1": e.DataCleared(),
    "ContextSet.v1": e.ContextSet(values={"locale": None}, removed=("nested",)),
    "MetadataSet.v1": e.MetadataSet(values={"channel": "mail"}, removed=("big",)),
    "RouteEntered.v1": e.RouteEntered(route="booking", title="Book a table", reason="asked for it"),
    "RouteExited.v1": e.RouteExited(route="booking", completed=True),
    "StepEntered.v1": e.StepEntered(step="party-size", description="How many?"),
    "TransitionPlanned.v1": e.TransitionPlanned(route="goodbye", condition="when booked", reason="done"),
    "TransitionCancelled.v1": e.TransitionCancelled(),
    "ToolCalled.v1": e.ToolCalled(call_id="c-1", name="search", arguments={"day": "2026-01-02", "seats": 2}),
    "ToolReturned.v1": e.ToolReturned(call_id="c-1", name="search", content=["table 4"], error="partial"),
    "RunStarted.v1": e.RunStarted(run_id="r-1", details={"model": "m", "temperature": 0.1}),
    "RunFinished.v1": e.RunFinished(
        run_id="r-1", status="failed", result={"n": 1}, error="timeout", usage={"tokens": 123}
    ),
    "StatusChanged.v1": e.StatusChanged(status="completed", reason="said goodbye"),
    LAST: e.SessionDeleted(),
}
"""What each sample reads as now."""

topics = pytest.mark.parametrize("topic", EXPECTED)


def sample(topic: str) -> bytes:
    """Return the stored bytes."""
    return (SAMPLES / f"{topic}.json").read_bytes()


def row(topic: str) -> StreamRow:
    """Return the sample as a row of its stream."""
    version = header_of(sample(topic)).version
    return (version, version, topic, sample(topic))


def as_sealed(topic: str, previous: bytes) -> NewEvent:
    """Return the event whose bytes the sample is: everything in it follows from its version."""
    version = list(EXPECTED).index(topic) + 1 if topic != LAST else 2
    start = datetime(2026, 1, 1, 9, 30, tzinfo=UTC)
    return NewEvent(
        originator_id=STREAM,
        originator_version=version,
        topic=topic,
        event=EXPECTED[topic],
        event_id=f"019b7a00-0000-7000-8000-{version:012x}",
        recorded_at=start + timedelta(seconds=version, microseconds=version),
        occurred_at=LATER if version % 3 == 0 else None,
        turn=(1, 1),
        previous=previous,
        salt=bytes([version]) * 16,
        genesis=bytes([255]) * 16 if version == 1 else None,
        actor="agent-1" if version % 2 else None,
        correlation_id="request-7" if version % 4 else None,
        causation_id="019b79ff-0000-7000-8000-000000000000" if version % 5 else None,
    )


def test_every_topic_has_a_sample_and_every_sample_a_topic() -> None:
    """Whatever turnlog can meet in a log, the newest schemas and the older ones, is here."""
    names = {path.name.removesuffix(".json") for path in SAMPLES.iterdir()}
    assert names == {*REGISTRY.newest, *REGISTRY.older} == set(EXPECTED)


@topics
def test_a_sample_reads_as_the_event_it_was(topic: str) -> None:
    """Each field has the value it was written with, through the codec and through the library's mapper."""
    state = sample(topic)
    assert repr(CODEC.event(topic, state)) == repr(EXPECTED[topic])
    recorded = CODEC.recorded((5, STREAM, header_of(state).version, topic, state))
    written = as_sealed(topic, b"")
    assert repr(recorded.event) == repr(EXPECTED[topic])
    assert (recorded.event_id, recorded.turn) == (written.event_id, (1, 1))
    assert (recorded.recorded_at, recorded.occurred_at) == (
        written.recorded_at,
        written.occurred_at or written.recorded_at,
    )
    assert (recorded.actor, recorded.correlation_id, recorded.causation_id) == (
        written.actor,
        written.correlation_id,
        written.causation_id,
    )
    stored = Mapper().to_stored_event(as_sealed(topic, header_of(state).previous))
    assert repr(Mapper().to_domain_event(stored).event) == repr(EXPECTED[topic])


@topics
def test_a_sample_verifies(topic: str) -> None:
    """Its commitment and its hash are those of its bytes, computed here without turnlog's own functions."""
    state = sample(topic)
    cut, digest, private = split(state)
    assert private is not None
    assert sha256(b"turnlog.private.1\n" + private).digest() == header_of(state).commitment
    assert sha256(b"turnlog.event.1\n" + cut).digest() == digest
    assert state.endswith(b',"hash":"' + b64encode(digest) + b'"},"private":' + private + b"}")


@topics
def test_the_same_event_is_still_written_in_the_same_bytes(topic: str) -> None:
    """Today's turnlog writes what the one that made the sample wrote; a field added since is absent at its default."""
    if topic in REGISTRY.older:
        pytest.skip("an older schema is read, and no longer written")
    state = sample(topic)
    assert seal(as_sealed(topic, header_of(state).previous))[0] == state


def test_the_samples_are_one_stream() -> None:
    """Without the tombstone they verify as a whole, from the genesis on, and fold."""
    rows = sorted(row(topic) for topic in EXPECTED if topic != LAST)
    assert check(rows, stream=STREAM) is None
    state = fold(initial("default", "sample"), CODEC.facts(STREAM, rows))
    assert (state.version, state.user_id, state.status, state.tool_call_count) == (22, "user-bob", "completed", 1)
    private = private_of(rows[0][3])
    assert private is not None
    assert private.genesis is not None
    assert genesis(private.genesis, STREAM) == header_of(rows[0][3]).previous


def test_the_tombstone_ends_an_erased_stream() -> None:
    """After the start and its own event nothing is left but the proof that they were."""
    rows = erased([row(FIRST), row(LAST)])
    assert check(rows, stream=STREAM) is None
    assert fold(initial("default", "sample"), CODEC.facts(STREAM, rows)).deleted
