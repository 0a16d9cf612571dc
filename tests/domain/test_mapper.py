"""The codec, and the mapper it offers to ``eventsourcing``."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from eventsourcing.persistence import InfrastructureFactory, JSONTranscoder, Notification, StoredEvent
from hypothesis import given
from hypothesis import strategies as st

from tests.domain.test_envelope import new_event, new_events
from turnlog.domain import events as e
from turnlog.domain.envelope import NewEvent, erase, seal
from turnlog.domain.errors import CorruptLog, UnknownEvent
from turnlog.domain.events import Erased
from turnlog.domain.mapper import Codec, Mapper, StreamRow
from turnlog.domain.session import fold, initial
from turnlog.domain.values import RecordedEvent
from turnlog.testing.conversation import Conversation
from turnlog.testing.scenario import at
from turnlog.testing.sealing import CODEC, STREAM, seal_stream
from turnlog.testing.strategies import conversations, times

PLAIN = {"IS_SNAPSHOTTING_ENABLED": ""}
COMPRESSED = {"COMPRESSOR_TOPIC": "eventsourcing.compressor:ZlibCompressor"}
CIPHER = {"CIPHER_TOPIC": "eventsourcing.cipher:AESCipher", "CIPHER_KEY": b64encode(b"k" * 32).decode()}
ENVIRONMENTS = [PLAIN, COMPRESSED, CIPHER, {**COMPRESSED, **CIPHER}]
environments = pytest.mark.parametrize("env", ENVIRONMENTS, ids=["plain", "compressed", "encrypted", "both"])

EVENTS = (e.SessionStarted(), e.MessageAdded(message_id="m1", role="user", content="hello"), e.HistoryCleared())


def mapper_of(env: dict[str, str]) -> Any:
    """Construct the mapper as a program of that library does, from its environment."""
    everything = {"PERSISTENCE_MODULE": "eventsourcing.popo", "MAPPER_TOPIC": "turnlog.domain.mapper:Mapper", **env}
    factory: Any = InfrastructureFactory.construct(everything)
    return factory.mapper(JSONTranscoder())


@environments
def test_the_library_finds_our_mapper(env: dict[str, str]) -> None:
    """It is constructed by the library's own factory and keeps what the environment asks for."""
    mapper = mapper_of(env)
    assert type(mapper) is Mapper
    assert (mapper.compressor is not None, mapper.cipher is not None) == (
        "COMPRESSOR_TOPIC" in env,
        "CIPHER_TOPIC" in env,
    )


@environments
@given(new=new_events)
def test_every_event_goes_through_the_mapper_and_back(env: dict[str, str], new: NewEvent) -> None:
    """Compressed and encrypted or not, each event comes back with everything known of it."""
    mapper = mapper_of(env)
    stored = mapper.to_stored_event(new)
    assert (stored.originator_id, stored.originator_version, stored.topic) == (
        new.originator_id,
        new.originator_version,
        new.topic,
    )
    state, _ = seal(new)
    assert (stored.state == state) == (env is PLAIN)
    assert repr(mapper.to_domain_event(stored)) == repr(recorded(0, new, state))


def recorded(position: int, new: NewEvent, state: bytes) -> RecordedEvent:
    """Return what the codec reads."""
    return CODEC.recorded((position, new.originator_id, new.originator_version, new.topic, state))


def test_encrypted_bytes_do_not_show_the_content() -> None:
    """A cipher covers header and content alike."""
    stored = mapper_of(CIPHER).to_stored_event(new_event(e.OwnerAssigned(user_id="U-MARK"), actor="A-MARK"))
    assert b"MARK" not in stored.state
    assert b"header" not in stored.state


def test_a_notification_has_its_position() -> None:
    """What the library hands on with a position keeps it; a stored event has none."""
    new = new_event(e.HistoryCleared())
    stored = Mapper().to_stored_event(new)
    told = Notification(stored.originator_id, stored.originator_version, stored.topic, stored.state, id=42)
    assert Mapper().to_domain_event(told).position == 42
    assert Mapper().to_domain_event(stored).position == 0


def test_a_recorded_event_is_one_to_the_library() -> None:
    """It has the two names by which that library knows a domain event."""
    event = Mapper().to_domain_event(Mapper().to_stored_event(new_event(e.HistoryCleared())))
    assert (event.originator_id, event.originator_version) == (STREAM, 3)


def test_tenant_and_session_part_at_the_first_slash() -> None:
    """A session's id may have slashes, a tenant's name has none."""
    state, _ = seal(new_event(e.HistoryCleared()))
    read = CODEC.recorded((1, "shop/a/b", 3, "HistoryCleared.v1", state))
    assert (read.tenant, read.session_id, read.originator_id) == ("shop", "a/b", "shop/a/b")


@given(conversations)
def test_a_stream_read_back_folds_to_the_same_state(conversation: Conversation) -> None:
    """From events to bytes to facts to state: nothing is lost on the way."""
    rows = seal_stream(conversation.events)
    read = fold(initial("default", "s-1"), CODEC.facts(STREAM, rows))
    assert msgspec.json.encode(read) == msgspec.json.encode(conversation.state)


@given(conversations, st.data())
def test_facts_go_on_from_any_version(conversation: Conversation, data: st.DataObject) -> None:
    """A snapshot's version is where the tail begins."""
    rows = seal_stream(conversation.events)
    n = data.draw(st.integers(0, len(rows)))
    facts = list(CODEC.facts(STREAM, rows[n:], n))
    assert repr(facts) == repr([(event, at(i)) for i, event in enumerate(conversation.events, 1)][n:])


def test_a_gap_is_said_with_its_place() -> None:
    """A version that is missing, twice there or out of order is CorruptLog, naming session and version."""
    first, second, third = seal_stream(EVENTS)
    for rows in ([first, third], [first, first, second], [second], [first, third, second]):
        with pytest.raises(CorruptLog, match=f"'{STREAM}'.*version [12] is missing"):
            list(CODEC.facts(STREAM, rows))
    with pytest.raises(CorruptLog, match="version 4 is missing, found 3"):
        list(CODEC.facts(STREAM, [third], 3))


def damaged(state: bytes) -> StreamRow:
    """Return the second row with other bytes in it."""
    return (20, 2, "MessageAdded.v1", state)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda state: state[:-9],
    "empty": lambda _: b"",
    "not JSON": lambda state: b"\x00" + state,
    "not UTF-8": lambda state: state.replace(b"hello", b"hell\xff"),
    "a missing field": lambda state: state.replace(b'"role":"user",', b""),
    "a field of another type": lambda state: state.replace(b'"role":"user"', b'"role":1'),
    "no header": lambda _: b'{"private":null}',
    "a bad time": lambda state: state.replace(b'"recorded_at":"2026-01-01', b'"recorded_at":"2026-13-01'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_row_is_said_with_its_place(damage: Callable[[bytes], bytes]) -> None:
    """Bytes that cannot be read are CorruptLog, naming session and version, however they are read."""
    rows = seal_stream(EVENTS)
    bad = damaged(damage(rows[1][3]))
    assert bad[3] != rows[1][3]
    with pytest.raises(CorruptLog, match=f"'{STREAM}', version 2"):
        list(CODEC.facts(STREAM, [rows[0], bad]))
    with pytest.raises(CorruptLog, match=f"'{STREAM}', version 2"):
        CODEC.recorded((20, STREAM, 2, bad[2], bad[3]))
    with pytest.raises(CorruptLog, match=f"'{STREAM}', version 2"):
        CODEC.occurrence(STREAM, bad)
    with pytest.raises(CorruptLog):
        CODEC.event(bad[2], bad[3])
    with pytest.raises(CorruptLog):
        Mapper().to_domain_event(StoredEvent(STREAM, 2, bad[2], bad[3]))


def test_what_was_read_before_the_damage_is_good() -> None:
    """Facts come one by one, so a damaged row does not hide those before it."""
    rows = seal_stream(EVENTS)
    facts = CODEC.facts(STREAM, [rows[0], damaged(b"")])
    assert next(facts) == (EVENTS[0], at(1))
    with pytest.raises(CorruptLog):
        next(facts)


def test_an_unknown_topic_is_said_with_its_place() -> None:
    """A newer turnlog's event is UnknownEvent, naming session, version and topic."""
    (row,) = seal_stream(EVENTS[:1])
    unknown = (10, 1, "SessionStarted.v9", row[3])
    place = f"'{STREAM}', version 1: .*'SessionStarted.v9'"
    with pytest.raises(UnknownEvent, match=place):
        list(CODEC.facts(STREAM, [unknown]))
    with pytest.raises(UnknownEvent, match=place):
        CODEC.recorded((10, STREAM, 1, unknown[2], unknown[3]))
    with pytest.raises(UnknownEvent, match=place):
        CODEC.occurrence(STREAM, unknown)
    with pytest.raises(UnknownEvent, match=r"'SessionStarted\.v9'"):
        CODEC.event(unknown[2], unknown[3])


def test_erased_rows_are_read_as_erased() -> None:
    """Content that is gone is a fact of its own, with the time it was recorded."""
    rows = [(*row[:3], erase(row[3])) for row in seal_stream(EVENTS)]
    topics = ["SessionStarted.v1", "MessageAdded.v1", "HistoryCleared.v1"]
    assert list(CODEC.facts(STREAM, rows)) == [(Erased(topic), at(n)) for n, topic in enumerate(topics, 1)]


@given(times)
def test_an_occurrence_has_both_times(occurred_at: Any) -> None:
    """When it was recorded and when it happened; where only one was given, that one twice."""
    for given_time in (occurred_at, None):
        new = new_event(e.HistoryCleared(), occurred_at=given_time)
        event, recorded_at, happened_at = CODEC.occurrence(STREAM, (1, 3, new.topic, seal(new)[0]))
        assert (event, recorded_at, happened_at) == (new.event, new.recorded_at, given_time or new.recorded_at)


def test_a_codec_is_its_registry() -> None:
    """Two codecs of one registry know the same topics."""
    assert Codec().topics == CODEC.topics
    assert set(Codec().topics.values()) == set(e.TOPICS)


def messages(n: int) -> list[StreamRow]:
    """Return the rows of n messages, versions 2 and up."""
    added = [e.MessageAdded(message_id=f"m{i}", role="user", content={"a": i, "b": i}) for i in range(n)]
    return seal_stream([e.SessionStarted(), *added])[1:]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_run_is_read_as_its_rows_are(n: int) -> None:
    """Many events of one topic, decoded in one call, are what each of them is by itself."""
    rows = messages(n)
    read = [(one.private.body, one.header.recorded_at) for one in CODEC.run(STREAM, rows)]
    assert read == list(CODEC.facts(STREAM, rows, 1))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_in_a_run_is_said_with_its_place(damage: Callable[[bytes], bytes]) -> None:
    """One damaged row among many is named, although they were decoded together."""
    rows = messages(5)
    bad = damage(rows[2][3].replace(b'{"a":1,"b":1}', b'"hello"'))
    rows[2] = (*rows[2][:3], bad if bad != rows[2][3] else b"")
    with pytest.raises(CorruptLog, match=f"'{STREAM}', version 4"):
        CODEC.run(STREAM, rows)


def test_an_erased_row_in_a_run_is_said_with_its_place() -> None:
    """Content that is gone where others still have theirs is damage."""
    rows = messages(5)
    rows[3] = (*rows[3][:3], erase(rows[3][3]))
    with pytest.raises(CorruptLog, match=f"'{STREAM}', version 5: the content is gone"):
        CODEC.run(STREAM, rows)


def test_damaged_rows_of_a_run_cannot_make_up_for_each_other() -> None:
    """Two events in one row and one event over two rows are damage, although their number is right in the end."""
    rows = messages(3)
    first, second, third = (row[3] for row in rows)
    head, comma, tail = third.partition(b',"b":')
    states = [first + b"," + second, head, comma[1:] + tail]
    with pytest.raises(CorruptLog, match="version 2"):
        CODEC.run(STREAM, [(*row[:3], state) for row, state in zip(rows, states, strict=True)])


def test_an_unknown_topic_in_a_run_is_said_with_its_place() -> None:
    """Decoding many together refuses what decoding one refuses."""
    rows = [(position, version, "MessageAdded.v9", state) for position, version, _, state in messages(2)]
    with pytest.raises(UnknownEvent, match=f"'{STREAM}', version 2: .*'MessageAdded.v9'"):
        CODEC.run(STREAM, rows)
