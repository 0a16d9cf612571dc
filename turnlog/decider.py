"""The way of every write: load → decide → one append → receipt.

What the caller's handle knows is decided on at once, without a read. If somebody else wrote meanwhile, the recorder
asks again under its lock: what was missed is read, everything is decided anew, and the append then fits.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from os import urandom
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from turnlog.domain.chain import genesis
from turnlog.domain.commands import LOOKING_UP, NOTHING
from turnlog.domain.envelope import NewEvent, header_of, seal
from turnlog.domain.errors import (
    ConcurrencyConflict,
    InvalidInput,
    RuleViolation,
    SessionGone,
    SessionNotFound,
)
from turnlog.domain.events import Event
from turnlog.domain.mapper import Codec, text_hash
from turnlog.domain.recorder import (
    NOTHING_CHANGED,
    PENDING,
    Batch,
    KeyRow,
    Reader,
    Recorder,
    SnapshotRow,
)
from turnlog.domain.session import FOLD_REVISION, decide, evolve, fold, initial
from turnlog.domain.typed import decoder
from turnlog.domain.values import Receipt, SessionState
from turnlog.lookup import Stretch, look_up
from turnlog.projections.history import LARGEST_PAGE, Occurrence
from turnlog.projections.watching import UNWATCHED, Watch
from turnlog.receipts import Receipts, earlier
from turnlog.saying import KeyOfMessage, Said

SNAPSHOT_EVERY = 100
"""Events between snapshots: opening a session folds fewer than this, however long it is."""


class Loaded(NamedTuple):
    """What is known of a stream: its state, and the hash of its last event."""

    state: SessionState
    hash: bytes


class Plan(NamedTuple):
    """What an append would write, and what is known once it has."""

    batch: Batch
    loaded: Loaded
    event_ids: tuple[str, ...]
    earlier: tuple[KeyRow, ...]
    """The keys under which commands of this append were already written before."""

    @property
    def writes(self) -> bool:
        """Whether there is anything to append."""
        return bool(self.batch.rows or self.batch.keys)


class Decider:
    """Loads and writes the sessions of one tenant.

    Args:
        max_event_bytes: the largest content of one event, encoded.
        watch: is told of appends and loads.
    """

    def __init__(
        self,
        recorder: Recorder,
        codec: Codec,
        tenant: str,
        clock: Callable[[], datetime],
        new_id: Callable[[], str],
        max_event_bytes: int,
        watch: Watch = UNWATCHED,
    ) -> None:
        self.recorder = recorder
        self.watch = watch
        self.append = watch.appending(recorder)
        """The recorder's, as it is to be called."""
        self.codec = codec
        self.tenant = tenant
        self.clock = clock
        self.new_id = new_id
        self.max_event_bytes = max_event_bytes

    def stream(self, session_id: str) -> str:
        """Return the name of a session's stream."""
        return f"{self.tenant}/{session_id}"

    # --- load ---------------------------------------------------------------------------------------------------------

    def load(self, session_id: str, known: Loaded | None = None, reader: Reader | None = None) -> Loaded:
        """Return the session as it is now: ``known``, or its snapshot, and what came after.

        Raises:
            UnknownEvent, CorruptLog: an event of it cannot be read.
        """
        reader = reader or self.recorder
        with self.watch.doing("load") as facts:
            if known is not None and self._may_be_gone() and not self._stands(reader, known):
                known = None
            loaded = known or self._snapshot(reader, session_id) or self.nothing(session_id)
            newest = self._forward(reader, session_id, loaded, None)
            facts["events"] = newest.state.version - loaded.state.version
        return newest

    def at_version(self, session_id: str, version: int) -> SessionState:
        """Return the state right after ``version``, which must exist."""
        snapshot = self._snapshot(self.recorder, session_id)
        usable = snapshot is not None and snapshot.state.version <= version
        start = snapshot if snapshot is not None and usable else self.nothing(session_id)
        return self._forward(self.recorder, session_id, start, version).state

    def nothing(self, session_id: str) -> Loaded:
        """Return what is known of a session of which nothing is recorded."""
        return Loaded(initial(self.tenant, session_id), b"")

    def _forward(self, reader: Reader, session_id: str, loaded: Loaded, upto: int | None) -> Loaded:
        stream = self.stream(session_id)
        state, digest = loaded
        while True:
            rows = reader.select_stream(stream, after=state.version, upto=upto, limit=LARGEST_PAGE)
            if not rows:
                return Loaded(state, digest)
            state = fold(state, self.codec.facts(stream, rows, state.version))
            digest = header_of(rows[-1][3]).hash
            if len(rows) < LARGEST_PAGE:
                return Loaded(state, digest)

    def _snapshot(self, reader: Reader, session_id: str) -> Loaded | None:
        stream = self.stream(session_id)
        row = reader.select_snapshot(stream)
        if row is None or row.revision != FOLD_REVISION or not _has(reader, stream, row.version, row.hash):
            return None
        return Loaded(_decode_state(row.state), row.hash)

    def _may_be_gone(self) -> bool:
        """Return whether what was read may be gone: rolled back with what was pending, or expired (on Redis)."""
        return self.recorder.durability == PENDING or self.recorder.expires

    def _stands(self, reader: Reader, known: Loaded) -> bool:
        """Return whether what is known is still there."""
        version = known.state.version
        return version == 0 or _has(reader, self.stream(known.state.id), version, known.hash)

    # --- write --------------------------------------------------------------------------------------------------------

    def write(
        self,
        loaded: Loaded,
        said: Sequence[Said],
        *,
        decided: Sequence[tuple[Event, Said]] = (),
        turn_key: tuple[str, bytes] | None = None,
        also: Sequence[Batch] = (),
    ) -> tuple[Plan, Receipt]:
        """Decide ``said`` and commit what follows, all or nothing, together with ``also``; give the receipt.

        ``decided`` are the events, if somebody has already decided on ``loaded`` (only where no key is given).

        Raises:
            RuleViolation, InvalidInput, SessionNotFound: on the newest state, the rules forbid it.
            ConcurrencyConflict: the session is not at the version that was expected.
            StoreError: the storage failed; nothing was written, unless it is ``OutcomeUnknown``.
        """
        newest = None if decided else self._plan_on_newest(loaded, said, turn_key)
        plan = newest or self._sealed(loaded, decided, (), ())
        if plan.writes or also:

            def again(reader: Reader) -> Sequence[Batch]:
                nonlocal plan
                plan = self.plan(reader, self.load(loaded.state.id, loaded, reader), said, turn_key)
                return (plan.batch, *also)

            # Keys alone stand on no version: what erases meanwhile is only noticed by deciding where it cannot.
            first = (plan.batch, *also) if plan.batch.rows else ()
            position = self.append(first, again)[0]
            if plan.batch.rows:
                return plan, self.receipt(plan, position)
        if not plan.earlier:
            return plan, self.receipts(loaded.state.id).at(plan.loaded.state.version, nothing=True)
        receipt = self.receipts(loaded.state.id).first(plan.earlier[-1])
        return plan, receipt if turn_key is None else replace(receipt, message_id=None, call_id=None, run_id=None)

    def _plan_on_newest(self, loaded: Loaded, said: Sequence[Said], turn_key: tuple[str, bytes] | None) -> Plan:
        """Plan on what is known; an answer other than "write this" must come from the newest state."""
        try:
            plan = self.plan(self.recorder, loaded, said, turn_key)
        except (RuleViolation, InvalidInput, SessionNotFound, ConcurrencyConflict):
            newest = self.load(loaded.state.id, loaded)
            if newest.hash == loaded.hash:
                raise
            return self.plan(self.recorder, newest, said, turn_key)
        if plan.batch.rows:
            return plan
        newest = self.load(loaded.state.id, loaded)
        if newest.hash == loaded.hash:
            return plan
        return self.plan(self.recorder, newest, said, turn_key)

    def plan(
        self, reader: Reader, loaded: Loaded, said: Sequence[Said], turn_key: tuple[str, bytes] | None = None
    ) -> Plan:
        """Decide every command in turn on the state that the one before left, and seal the events."""
        state = loaded.state
        if state.deleted:  # said here for those who say nothing, too: an empty turn
            raise SessionGone(f"session {state.id!r} was deleted")
        stream = self.stream(state.id)
        if turn_key is not None:
            done = earlier(reader, stream, (("command", *turn_key),))
            if done is not None:
                return Plan(Batch(stream, ()), loaded, (), (done,))
        now = self.now(state)
        decided: list[tuple[Event, Said]] = []
        pending: list[Occurrence] = []
        keys: list[KeyRow] = []
        done_before: list[KeyRow] = []
        for one in (one for one in said if not (one.first and loaded.state.version)):
            if one.keys:
                done = earlier(reader, stream, one.keys)
                if done is not None:
                    done_before.append(done)
                    continue
            if one.expected_version is not None:
                self.require_version(loaded, one.expected_version)
            found = NOTHING
            if type(one.command) in LOOKING_UP:
                found = look_up(one.command, Stretch(self.codec, reader, stream, loaded.state.version, pending))
            before = state.version
            for event in decide(state, one.command, found):
                state = evolve(state, event, now)
                decided.append((event, one))
                pending.append(Occurrence(state.version, event, now, one.occurred_at or now))
            nothing = NOTHING_CHANGED if state.version == before else b""
            keys += [KeyRow(kind, key, state.version, print_ + nothing) for kind, key, print_ in one.keys]
            if one.introduces and not nothing:
                keys += self._introduced(reader, stream, one.introduces, keys, state.version)
        if turn_key is not None:
            nothing = b"" if decided else NOTHING_CHANGED
            keys.append(KeyRow("command", turn_key[0], state.version, turn_key[1] + nothing))
        return self._sealed(loaded, decided, keys, tuple(done_before))

    def _introduced(
        self, reader: Reader, stream: str, messages: Sequence[KeyOfMessage], keys: Sequence[KeyRow], version: int
    ) -> list[KeyRow]:
        """Return the keys of messages that were never said under their ids before."""
        used = self.used_messages(reader, stream, messages) | {row.key for row in keys if row.kind == "message"}
        return [KeyRow("message", id_, version, print_) for id_, print_ in dict(messages).items() if id_ not in used]

    def used_messages(self, reader: Reader, stream: str, messages: Sequence[KeyOfMessage]) -> set[str]:
        """Return those of the ids under which a message was said before."""
        return {row.key for row in reader.select_keys(stream, [("message", message_id) for message_id, _ in messages])}

    def _sealed(
        self, loaded: Loaded, decided: Sequence[tuple[Event, Said]], keys: Sequence[KeyRow], earlier: tuple[KeyRow, ...]
    ) -> Plan:
        """Make the rows to append for what was decided, and the state after it."""
        state, previous = loaded
        stream, topics, new_id, version = self.stream(state.id), self.codec.topics, self.new_id, state.version
        now, n, genesis_salt = self.now(state), len(decided), None
        if version == 0:
            genesis_salt = urandom(16)
            previous = genesis(genesis_salt, stream)
        rows: list[tuple[int, str, bytes]] = []
        event_ids: list[str] = []
        for i, (event, one) in enumerate(decided, 1):
            version += 1
            topic, event_id = topics[type(event)], new_id()
            sealed, previous = seal(
                NewEvent(
                    stream,
                    version,
                    topic,
                    event,
                    event_id,
                    now,
                    one.occurred_at,
                    (i, n),
                    previous,
                    urandom(16),
                    genesis_salt if version == 1 else None,
                    one.actor,
                    one.correlation_id,
                    one.causation_id,
                )
            )
            if len(sealed) > self.max_event_bytes:
                raise self._too_large(event)
            rows.append((version, topic, sealed))
            event_ids.append(event_id)
        snapshot = None
        if decided:
            state = fold(state, [(event, now) for event, _ in decided])
            if version // SNAPSHOT_EVERY > loaded.state.version // SNAPSHOT_EVERY:
                snapshot = SnapshotRow(version, FOLD_REVISION, previous, _encode_state(state))
        batch = Batch(stream, rows, keys, snapshot)
        return Plan(batch, Loaded(state, previous), tuple(event_ids), earlier)

    def receipt(self, plan: Plan, position: int) -> Receipt:
        """Return the receipt of an append whose last row got ``position``."""
        state, digest = plan.loaded
        return Receipt(
            session_id=state.id,
            version=state.version,
            position=position,
            event_ids=plan.event_ids,
            recorded_at=state.updated_at,
            durability=self.recorder.durability,
            hash=text_hash(digest),
        )

    def receipts(self, session_id: str) -> Receipts:
        """Return what finds the receipts of earlier appends to a session."""
        return Receipts(self.recorder, self.codec, self.stream(session_id), session_id)

    def now(self, state: SessionState) -> datetime:
        """Return the time to record: the clock's, but never before the session's last event."""
        now = self.clock()
        last = state.updated_at
        return last if last is not None and now < last else now

    def require_version(self, loaded: Loaded, expected: int) -> None:
        """Return if the session is at that version.

        Raises:
            SessionGone, ConcurrencyConflict: it was deleted, or is at another.
        """
        version = loaded.state.version
        if loaded.state.deleted:
            raise SessionGone(f"session {loaded.state.id!r} was deleted")
        if version != expected:
            raise ConcurrencyConflict(
                f"session {loaded.state.id!r} is at version {version}, expected_version was {expected}"
            )

    def _too_large(self, event: Event) -> InvalidInput:
        sizes = {name: len(msgspec.json.encode(getattr(event, name))) for name in event.__struct_fields__}
        field = max(sizes, key=lambda name: sizes[name])
        return InvalidInput(field, f"expected at most {self.max_event_bytes} bytes, got {sizes[field]}")


def _has(reader: Reader, stream: str, version: int, digest: bytes) -> bool:
    """Return whether a stream's event of this version is the one with this hash."""
    rows = reader.select_stream(stream, after=version - 1, upto=version)
    return bool(rows) and header_of(rows[0][3]).hash == digest


_encode_state = msgspec.json.Encoder().encode
_decode_state = decoder(SessionState)
