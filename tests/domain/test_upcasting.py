"""Old schemas of an event are carried forward; unknown ones are refused, and nothing stored is ever imported.

There is no second schema yet. The ones that prove the mechanism live here.
"""

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from eventsourcing.persistence import StoredEvent
from hypothesis import given

from turnlog.domain import events as e
from turnlog.domain.chain import event_hash
from turnlog.domain.envelope import header_of, split
from turnlog.domain.errors import CorruptLog, UnknownEvent
from turnlog.domain.events import Erased
from turnlog.domain.mapper import Codec, Mapper, StreamRow
from turnlog.domain.session import fold, initial
from turnlog.domain.upcasting import REGISTRY, Registry
from turnlog.testing.scenario import at
from turnlog.testing.sealing import CODEC, STREAM, check, erased, seal_stream
from turnlog.testing.strategies import struct

SAMPLE = Path(__file__).resolve().parent.parent / "samples" / "MessageAdded.v1.json"


class MessageAddedInParts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The second schema: content is always a list of parts, and ``role`` is called ``author``."""

    message_id: str
    author: str
    parts: list[Any]
    route: str | None = None


class MessageAddedWithLanguage(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The third schema: the second one, with a language that old messages do not have."""

    message_id: str
    author: str
    parts: list[Any]
    language: str
    route: str | None = None


def into_parts(body: dict[str, Any]) -> dict[str, Any]:
    """Carry the first schema forward to the second."""
    match body["content"]:
        case None:
            parts: list[Any] = []
        case [*parts]:
            pass
        case other:
            parts = [{"type": "text", "text": other}]
    return {"message_id": body["message_id"], "author": body["role"], "parts": parts, "route": body.get("route")}


def with_language(body: dict[str, Any]) -> dict[str, Any]:
    """Carry the second schema forward to the third."""
    return {**body, "language": "und"}


V1, V2, V3 = "MessageAdded.v1", "MessageAdded.v2", "MessageAdded.v3"
SECOND = REGISTRY.with_schema(V1, V2, MessageAddedInParts, into_parts)
THIRD = SECOND.with_schema(V2, V3, MessageAddedWithLanguage, with_language)

STARTED = e.SessionStarted(user_id="alice")
OLD = e.MessageAdded(message_id="m1", role="user", content="hello", name="lost", route="booking")
IN_PARTS = MessageAddedInParts(message_id="m2", author="user", parts=[{"type": "text", "text": "again"}])
NEWEST = MessageAddedWithLanguage(message_id="m3", author="assistant", parts=[], language="de")


def mixed() -> list[StreamRow]:
    """Return a stream that three releases have written to, one after the other."""
    rows = seal_stream([STARTED, OLD])
    for registry, event in ((SECOND, IN_PARTS), (THIRD, NEWEST)):
        rows += seal_stream([event], registry=registry, previous=header_of(rows[-1][3]).hash, after=len(rows))
    return rows


def events_of(codec: Codec, rows: list[StreamRow]) -> list[Any]:
    """Return what a fold would be given."""
    return [event for event, _ in codec.facts(STREAM, rows)]


def test_an_old_event_reads_as_the_new_class() -> None:
    """One step forward: the codec gives the second schema's class, however it is asked."""
    codec, (_, row) = Codec(SECOND), seal_stream([STARTED, OLD])
    expected: Any = MessageAddedInParts(
        message_id="m1", author="user", parts=[{"type": "text", "text": "hello"}], route="booking"
    )
    assert codec.event(V1, row[3]) == expected
    assert list(codec.facts(STREAM, [row], 1)) == [(expected, at(2))]
    assert codec.occurrence(STREAM, row) == (expected, at(2), at(2))
    recorded = codec.recorded((20, STREAM, 2, V1, row[3]))
    assert (recorded.event, recorded.topic, recorded.version) == (expected, V1, 2)
    mapper = Mapper(codec=codec)
    assert mapper.to_domain_event(StoredEvent(STREAM, 2, V1, row[3])).event == expected


def test_old_events_read_together_are_carried_forward_as_well() -> None:
    """A run of old events, decoded in one call, is what each of them is by itself."""
    rows = seal_stream([STARTED, OLD, OLD])[1:]
    codec = Codec(THIRD)
    assert [one.private.body for one in codec.run(STREAM, rows)] == [codec.event(V1, row[3]) for row in rows]


def test_the_stored_sample_reads_as_the_new_class() -> None:
    """What is on disk since the first release goes the whole way."""
    read: Any = Codec(THIRD).event(V1, SAMPLE.read_bytes())
    assert type(read) is MessageAddedWithLanguage
    assert (read.author, read.language, read.route) == ("assistant", "und", "booking")
    assert read.parts[0]["type"] == "text"


def test_two_steps_are_taken_one_after_the_other() -> None:
    """From the first schema to the third by way of the second."""
    codec, (_, row) = Codec(THIRD), seal_stream([STARTED, OLD])
    expected: Any = MessageAddedWithLanguage(
        message_id="m1", author="user", parts=[{"type": "text", "text": "hello"}], language="und", route="booking"
    )
    assert codec.event(V1, row[3]) == expected


def test_a_log_of_all_schemas_is_read_as_one() -> None:
    """Each event takes the steps it needs; the newest takes none, and others are not touched."""
    carried = MessageAddedWithLanguage(
        message_id="m1", author="user", parts=[{"type": "text", "text": "hello"}], language="und", route="booking"
    )
    again = MessageAddedWithLanguage(message_id="m2", author="user", parts=IN_PARTS.parts, language="und")
    assert events_of(Codec(THIRD), mixed()) == [STARTED, carried, again, NEWEST]


def test_upcasting_changes_no_stored_byte() -> None:
    """A log of all schemas still verifies: hashes are over what was written, not over what it is read as."""
    assert check(mixed(), codec=Codec(THIRD)) is None


@given(struct(e.MessageAdded))
def test_any_old_event_is_carried_forward(event: Any) -> None:
    """Whatever the fields of the old event were, it is read, and what the new schema keeps is unchanged."""
    old: e.MessageAdded = event
    _, row = seal_stream([STARTED, old])
    read: Any = Codec(THIRD).event(V1, row[3])
    assert (read.message_id, read.author, read.route) == (old.message_id, old.role, old.route)
    assert repr(read.parts) == repr(into_parts({"message_id": "", "role": "", "content": old.content})["parts"])


def test_a_schema_from_before_the_first_folds() -> None:
    """An older schema of today's event reaches state through ``evolve`` as any other."""
    before = "DataCollected.v0"

    class Collected(msgspec.Struct, frozen=True):
        key: str
        value: Any

    written = Registry(newest={**REGISTRY.newest, before: Collected})
    reading = Registry(newest=REGISTRY.newest).with_schema(
        before, "DataCollected.v1", e.DataCollected, lambda body: {"values": {body["key"]: body["value"]}}
    )
    events = [STARTED, Collected("a", 1), e.DataCollected(values={"b": 2}), Collected("a", 1.0)]
    rows = seal_stream(events, registry=written)
    state = fold(initial("default", "s-1"), Codec(reading).facts(STREAM, rows))
    assert repr(state.data) == "{'a': 1.0, 'b': 2}"


def test_fields_are_converted_as_a_decoder_would() -> None:
    """Times and tuples in an upcasted body become times and tuples."""
    name = "HistoryReplaced.v1"
    again = REGISTRY.with_schema(name, "HistoryReplaced.v2", e.HistoryReplaced, dict)
    message = e.ReplacementMessage(message_id="m1", role="user", content=1e22, occurred_at=at(0))
    (row,) = seal_stream([e.HistoryReplaced(messages=(message, message))])
    assert repr(Codec(again).event(name, row[3])) == repr(e.HistoryReplaced(messages=(message, message)))


def test_a_registry_is_a_value() -> None:
    """A new schema makes a new registry; the newest schema of each event is the one that is written."""
    assert V2 not in REGISTRY.newest
    assert not REGISTRY.older
    assert (THIRD.topic_of(NEWEST), set(THIRD.older)) == (V3, {V1, V2})
    assert set(THIRD.newest) == {*REGISTRY.newest, V3} - {V1}
    assert REGISTRY.topic_of(OLD) == V1
    with pytest.raises(KeyError):
        THIRD.topic_of(OLD)


def test_an_erased_event_needs_no_upcaster() -> None:
    """Without content there is nothing to carry forward; the topic stays the one it was written with."""
    rows = erased(mixed())
    topics = ["SessionStarted.v1", V1, V2, V3]
    assert events_of(Codec(THIRD), rows) == [Erased(topic) for topic in topics]
    recorded = Codec(THIRD).recorded((20, STREAM, *rows[1][1:]))
    assert (recorded.event, recorded.topic) == (Erased(V1), V1)


DAMAGE = {
    "a field that the step needs is missing": (b'"content":"hello",', b""),
    "a field that the class needs is missing": (b'"message_id":"m1",', b""),
    "a field of another type": (b'"role":"user"', b'"role":["user"]'),
    "no object": (b'"body":{', b'"body":[{'),
}


@pytest.mark.parametrize(("old", "new"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_old_event_is_said_with_its_place(old: bytes, new: bytes) -> None:
    """A body that cannot be carried forward is CorruptLog, naming session and version."""
    codec, (_, row) = Codec(THIRD), seal_stream([STARTED, OLD])
    state = row[3].replace(old, new)
    assert state != row[3]
    place = f"'{STREAM}', version 2"
    with pytest.raises(CorruptLog, match=place):
        list(codec.facts(STREAM, [(20, 2, V1, state)], 1))
    with pytest.raises(CorruptLog, match=place):
        codec.recorded((20, STREAM, 2, V1, state))
    with pytest.raises(CorruptLog, match=place):
        codec.occurrence(STREAM, (20, 2, V1, state))
    with pytest.raises(CorruptLog):
        codec.event(V1, state)


def test_a_downgrade_is_refused_clearly() -> None:
    """An older turnlog names session, version and topic, and says what to do; what it knows it still reads."""
    rows = mixed()
    with pytest.raises(UnknownEvent, match=rf"'{STREAM}', version 3: .*'{V2}'.*newer turnlog.*upgrade"):
        events_of(CODEC, rows)
    assert events_of(CODEC, rows[:2]) == [STARTED, OLD]
    failure = check(rows)
    assert failure is not None
    assert failure.version == 3
    assert V2 in failure.reason


def test_a_registry_that_forgot_a_step_is_refused() -> None:
    """A step to a schema that nobody knows is an unknown event, not a half-converted one."""
    broken = Registry(newest={"SessionStarted.v1": e.SessionStarted}, older={V1: (V2, into_parts)})
    _, row = seal_stream([STARTED, OLD])
    with pytest.raises(UnknownEvent, match=V2):
        Codec(broken).event(V1, row[3])


HOSTILE = [
    "os:system",
    "builtins:eval",
    "this:d",
    "antigravity:fly",
    "turnlog.domain.events:MessageAdded",
    "turnlog.domain.events.MessageAdded",
    "eventsourcing.domain:Aggregate",
    "__import__('os').system('true')",
    "MessageAdded",
    "MessageAdded.v1 ",
    "MessageAdded.v01",
    "messageadded.v1",
    "MessageAdded.v1\0",
    "../MessageAdded.v1",
    "__class__",
    "",
]


@pytest.mark.parametrize("topic", HOSTILE)
def test_a_hostile_topic_is_an_unknown_event_and_imports_nothing(topic: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A topic is looked up in a table; whatever it names is neither imported nor called."""
    state = renamed(seal_stream([STARTED])[0][3], topic)
    loaded = set(sys.modules)
    for read in (
        lambda: list(CODEC.facts(STREAM, [(10, 1, topic, state)])),
        lambda: CODEC.recorded((10, STREAM, 1, topic, state)),
        lambda: CODEC.occurrence(STREAM, (10, 1, topic, state)),
        lambda: Mapper().to_domain_event(StoredEvent(STREAM, 1, topic, state)),
    ):
        with pytest.raises(UnknownEvent) as caught:
            read()
        assert f"'{STREAM}', version 1" in str(caught.value)
        assert repr(topic) in str(caught.value)
    with pytest.raises(UnknownEvent):
        CODEC.event(topic, state)
    assert check([(10, 1, topic, state)]) is not None
    assert set(sys.modules) == loaded
    assert capfd.readouterr() == ("", "")


def renamed(state: bytes, topic: str) -> bytes:
    """Return the stored event under another topic, its hash made to fit."""
    cut, _, private = split(state)
    assert private is not None
    cut = cut.replace(b'"SessionStarted.v1"', msgspec.json.encode(topic))
    return b'{"header":' + cut + b',"hash":' + msgspec.json.encode(event_hash(cut)) + b'},"private":' + private + b"}"


def test_a_hostile_topic_in_the_header_alone_changes_nothing() -> None:
    """The row's topic decides how it is read; that the header says another one is for ``verify`` to find."""
    state = renamed(seal_stream([STARTED])[0][3], "os:system")
    assert CODEC.event("SessionStarted.v1", state) == STARTED
    failure = check([(10, 1, "SessionStarted.v1", state)])
    assert failure is not None
    assert "os:system" in failure.reason


def test_what_a_body_says_of_classes_is_data() -> None:
    """Names that other formats take for instructions are keys like any other."""
    values = {"__class__": "os:system", "_topic": "os:system", "py/object": "os.system", "$type": "x", "!!python": 1}
    event = e.DataCollected(values=values)
    (_, row) = seal_stream([STARTED, event])
    assert CODEC.event(row[2], row[3]) == event
