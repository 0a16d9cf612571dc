"""A stored event, byte for byte: what is written, in which order, what erasing leaves."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnlog.domain import events as e
from turnlog.domain.chain import genesis
from turnlog.domain.envelope import NewEvent, erase, header_of, private_of, seal, split
from turnlog.domain.errors import CorruptLog
from turnlog.domain.events import Event
from turnlog.domain.mapper import absent
from turnlog.domain.upcasting import REGISTRY
from turnlog.testing.sealing import CODEC, STREAM
from turnlog.testing.strategies import events, ids, times

NOON = datetime(2026, 1, 2, 12, 30, 0, 123456, tzinfo=UTC)
SALT, GENESIS, PREVIOUS = b"s" * 16, b"g" * 16, b"p" * 32
hashes = st.binary(min_size=32, max_size=32)
salts = st.binary(min_size=16, max_size=16)


def new_event(event: Event, **fields: Any) -> NewEvent:
    """Return an event about to be stored, plain but for ``fields``."""
    plain: dict[str, Any] = {
        "originator_id": STREAM,
        "originator_version": 3,
        "topic": REGISTRY.topic_of(event),
        "event": event,
        "event_id": "01900000-0000-7000-8000-000000000003",
        "recorded_at": NOON,
        "occurred_at": None,
        "turn": (1, 1),
        "previous": PREVIOUS,
        "salt": SALT,
    }
    return NewEvent(**{**plain, **fields})


new_events = st.builds(
    new_event,
    events,
    originator_version=st.integers(1, 2**63 - 1),
    event_id=ids,
    recorded_at=times,
    occurred_at=st.none() | times,
    turn=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    previous=hashes,
    salt=salts,
    genesis=st.none() | salts,
    actor=st.none() | ids,
    correlation_id=st.none() | ids,
    causation_id=st.none() | ids,
)


def test_the_bytes_of_a_stored_event_are_these() -> None:
    """Fields in this order, no blanks, times with Z, hashes in base64; ids that are not given are left out of P."""
    state, _ = seal(new_event(e.MessageAdded(message_id="m1", role="user", content="é\0")))
    private = (
        b'{"salt":"c3Nzc3Nzc3Nzc3Nzc3Nzcw==","body":{"message_id":"m1","role":"user","content":"\xc3\xa9\\u0000"}}'
    )
    header = (
        b'{"format":1,"event_id":"01900000-0000-7000-8000-000000000003","version":3,"topic":"MessageAdded.v1",'
        b'"recorded_at":"2026-01-02T12:30:00.123456Z","occurred_at":null,"turn":[1,1],'
        b'"previous":"cHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHA=","commitment":"'
        + b64encode(sha256(b"turnlog.private.1\n" + private).digest())
        + b'"'
    )
    digest = b64encode(sha256(b"turnlog.event.1\n" + header).digest())
    assert state == b'{"header":' + header + b',"hash":"' + digest + b'"},"private":' + private + b"}"


def test_whatever_can_be_personal_is_in_the_private_part() -> None:
    """Body, actor, correlation, causation and genesis are in P, after the salt; H has none of them."""
    new = new_event(
        e.OwnerAssigned(user_id="U-MARK"),
        actor="A-MARK",
        correlation_id="C-MARK",
        causation_id="D-MARK",
        genesis=GENESIS,
        occurred_at=NOON,
    )
    state, _ = seal(new)
    cut, _, private = split(state)
    assert private is not None
    assert list(json.loads(private)) == ["salt", "body", "actor", "correlation_id", "causation_id", "genesis"]
    assert b"MARK" not in cut
    assert b"MARK" not in erase(state)
    assert json.loads(erase(state))["private"] is None


def test_fields_at_their_default_are_not_stored() -> None:
    """An absent field reads as its default, so a field may be added; an empty one that differs from it is kept."""
    assert body(e.SessionStarted()) == {}
    assert body(e.MessageAdded(message_id="m", role="user", content=None)) == {
        "message_id": "m",
        "role": "user",
        "content": None,
    }
    kept = e.MessageAdded(message_id="m", role="user", content="", name="", tool_calls=[], tool_call_id="", metadata={})
    assert body(kept) == {
        "message_id": "m",
        "role": "user",
        "content": "",
        "name": "",
        "tool_calls": [],
        "tool_call_id": "",
        "metadata": {},
    }


def body(event: Event) -> Any:
    """Return the stored body of an event, as any reader of JSON sees it."""
    return json.loads(seal(new_event(event))[0])["private"]["body"]


@given(new_events)
def test_every_event_survives(new: NewEvent) -> None:
    """Each field of each event, with every id and time around it, comes back as it was given, types included."""
    state, digest = seal(new)
    row = (7, new.originator_id, new.originator_version, new.topic, state)
    recorded = CODEC.recorded(row)
    assert repr(recorded.event) == repr(new.event)
    assert (recorded.tenant, recorded.session_id) == ("default", "s-1")
    assert (recorded.version, recorded.position, recorded.topic) == (new.originator_version, 7, new.topic)
    assert (recorded.event_id, recorded.turn) == (new.event_id, new.turn)
    assert (recorded.recorded_at, recorded.occurred_at) == (new.recorded_at, new.occurred_at or new.recorded_at)
    assert (recorded.actor, recorded.correlation_id, recorded.causation_id) == (
        new.actor,
        new.correlation_id,
        new.causation_id,
    )
    assert recorded.hash == b64encode(digest).decode()
    assert repr(CODEC.event(new.topic, state)) == repr(new.event)
    header, private = header_of(state), private_of(state)
    assert private is not None
    assert (header.previous, header.version, header.hash) == (new.previous, new.originator_version, digest)
    assert (private.salt, private.genesis) == (new.salt, new.genesis)


@given(new_events)
def test_hashes_are_over_the_stored_bytes(new: NewEvent) -> None:
    """Commitment and hash follow from the bytes that were cut out, by SHA-256 and nothing else."""
    state, digest = seal(new)
    cut, stored_hash, private = split(state)
    assert private is not None
    assert b'{"header":' + cut + b',"hash":"' + b64encode(digest) + b'"},"private":' + private + b"}" == state
    assert header_of(state).commitment == sha256(b"turnlog.private.1\n" + private).digest()
    assert stored_hash == digest == sha256(b"turnlog.event.1\n" + cut).digest()


@given(new_events)
def test_erasing_keeps_the_header_byte_for_byte(new: NewEvent) -> None:
    """H and hash stay, P becomes null, a second erasure changes nothing, and the event reads as erased."""
    state, digest = seal(new)
    gone = erase(state)
    cut, _, private = split(state)
    assert private is not None
    assert gone == state[: -len(private) - 1] + b"null}"
    assert split(gone) == (cut, digest, None)
    assert erase(gone) == gone
    assert private_of(gone) is None
    assert CODEC.event(new.topic, gone) == absent(new.topic)
    recorded = CODEC.recorded((7, new.originator_id, new.originator_version, new.topic, gone))
    assert (recorded.actor, recorded.correlation_id, recorded.causation_id) == (None, None, None)
    assert (recorded.hash, recorded.event_id) == (b64encode(digest).decode(), new.event_id)
    assert recorded.occurred_at == (new.occurred_at or new.recorded_at)


@given(new_events, salts)
def test_equal_content_is_not_recognisable(new: NewEvent, salt: bytes) -> None:
    """The commitment hangs on the salt: who guesses an erased content cannot check the guess."""
    other = msgspec.structs.replace(new, salt=salt)
    same = header_of(seal(new)[0]).commitment == header_of(seal(other)[0]).commitment
    assert same == (salt == new.salt)


@given(st.binary(max_size=200))
@example(b"")
@example(b"{}")
@example(b'{"header":{},"private":null}')
@example(b'{"header":{"format":1,"hash":""},"private":null}')
@example(b',"private":')
def test_other_bytes_are_refused(state: bytes) -> None:
    """What is not a stored event is CorruptLog, never another error and never an event."""
    for read in (split, header_of):
        with pytest.raises(CorruptLog):
            read(state)


@pytest.mark.parametrize("state", [b"", b"{}", b'{"header":{}}'])
def test_only_a_stored_event_can_be_erased(state: bytes) -> None:
    """Erasing anything else is CorruptLog, not a half-written row."""
    with pytest.raises(CorruptLog):
        erase(state)


@given(new_events, st.data())
def test_a_stored_event_cut_short_is_refused(new: NewEvent, data: st.DataObject) -> None:
    """No prefix of a stored event passes for one."""
    state, _ = seal(new)
    cut = state[: data.draw(st.integers(0, len(state) - 1))]
    for read in (split, header_of):
        with pytest.raises(CorruptLog):
            read(cut)


def test_content_cannot_pass_for_structure() -> None:
    """A body that holds the very bytes which part header and content is cut in the right place."""
    nasty = {"private": None, "hash": "x", ',"private":': ',"private":null}'}
    state, _ = seal(new_event(e.DataCollected(values=nasty)))
    assert CODEC.event("DataCollected.v1", state) == e.DataCollected(values=nasty)
    assert json.loads(erase(state)) == {"header": json.loads(state)["header"], "private": None}


def test_the_genesis_binds_a_stream_to_its_name() -> None:
    """Version 1 names a hash of its salt and the stream's name as the one before it."""
    expected = sha256(b"turnlog.genesis.1\n" + GENESIS + "default/ü".encode()).digest()
    assert genesis(GENESIS, "default/ü") == expected


def test_a_time_of_another_zone_is_the_same_instant() -> None:
    """Whatever the offset it was written with, it reads as that instant."""
    paris = NOON.astimezone(timezone(timedelta(hours=2)))
    state, _ = seal(new_event(e.HistoryCleared(), recorded_at=paris, occurred_at=paris))
    assert header_of(state).recorded_at == NOON
