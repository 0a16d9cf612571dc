"""The way of every write: load → decide → one append → receipt.

What the caller's handle knows is decided on at once, without a read. If somebody else wrote meanwhile, the recorder
asks again under its lock: what was missed is read, everything is decided anew, and the append then fits.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from os import urandom
from typing import NamedTuple, TypeAlias, TypeGuard

import msgspec
from msgspec.structs import replace

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.chain import genesis
from turnlog.domain.commands import LOOKING_UP, NOTHING, Command, Found, fingerprint
from turnlog.domain.envelope import NewEvent, header_of, seal
from turnlog.domain.errors import (
    ConcurrencyConflict,
    CorruptLog,
    IdempotencyConflict,
    InvalidInput,
    RuleViolation,
    SessionGone,
    SessionNotFound,
)
from turnlog.domain.events import Event
from turnlog.domain.mapper import Codec, StreamRow, text_hash
from turnlog.domain.recorder import (
    FINGERPRINT_BYTES,
    NOTHING_CHANGED,
    PENDING,
    Batch,
    KeyRow,
    Reader,
    Recorder,
    SnapshotRow,
)
from turnlog.domain.session import FOLD_REVISION, decide, evolve, fold, initial
from turnlog.domain.values import Message, Receipt, SessionState
from turnlog.inputs import WriteOptions
from turnlog.projections.history import (
    LARGEST_PAGE,
    Occurrence,
    messages_back,
    occurrences_back,
    pages_back,
    require_living,
    same_messages,
    visible_message,
    window,
)
from turnlog.projections.progress import CALL_TOPICS, RUN_TOPICS
from turnlog.projections.watching import UNWATCHED, Watch

SNAPSHOT_EVERY = 100
"""Events between snapshots: opening a session folds fewer than this, however long it is."""


class Loaded(NamedTuple):
    """What is known of a stream: its state, and the hash of its last event."""

    state: SessionState
    hash: bytes


KeyOfMessage: TypeAlias = tuple[str, bytes]
"""A ``message_id``, and the fingerprint of the command that would add this message."""


class Said(msgspec.Struct, frozen=True):
    """A command on its way into the log, with what the caller said about it.

    ``keys`` are (kind, key, fingerprint): the ids under which it is written at most once. ``bare`` is the command
    without ids made for it, by which a repetition is known; ``made`` is the one that the caller learns, with the
    receipt's field for it. ``introduces`` are ids of messages that the command brings though it is not made at most
    once for them. ``first`` is said only to a session that begins with it.
    """

    command: Command
    bare: Command
    occurred_at: datetime | None = None
    actor: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    keys: tuple[tuple[str, str, bytes], ...] = ()
    expected_version: int | None = None
    made: tuple[str, str] | None = None
    introduces: tuple[KeyOfMessage, ...] = ()
    first: bool = False


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
            return plan, self.receipt_at(loaded.state.id, plan.loaded.state.version, nothing=True)
        receipt = self._first_receipt(loaded.state.id, plan.earlier[-1])
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
            done = self._earlier(reader, stream, (("command", *turn_key),))
            if done is not None:
                return Plan(Batch(stream, ()), loaded, (), (done,))
        now = self.now(state)
        decided: list[tuple[Event, Said]] = []
        pending: list[Occurrence] = []
        keys: list[KeyRow] = []
        earlier: list[KeyRow] = []
        for one in (one for one in said if not (one.first and loaded.state.version)):
            if one.keys:
                done = self._earlier(reader, stream, one.keys)
                if done is not None:
                    earlier.append(done)
                    continue
            if one.expected_version is not None:
                self.require_version(loaded, one.expected_version)
            found = NOTHING
            if type(one.command) in LOOKING_UP:
                found = self.look_up(reader, stream, loaded.state.version, one.command, pending)
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
        return self._sealed(loaded, decided, keys, tuple(earlier))

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

    # --- what commands name -------------------------------------------------------------------------------------------

    def look_up(
        self, reader: Reader, stream: str, version: int, command: Command, pending: Sequence[Occurrence]
    ) -> Found:
        """Find what ``command`` names among the events up to ``version`` and those ``pending`` after them.

        Raises:
            SessionGone: the session was deleted, and what it names was erased.
        """
        try:
            return self._look_up(reader, stream, version, command, pending)
        except CorruptLog:
            require_living(reader, stream)
            raise

    def _look_up(
        self, reader: Reader, stream: str, version: int, command: Command, pending: Sequence[Occurrence]
    ) -> Found:
        match command:
            case c.EditMessage(message_id) | c.RemoveMessage(message_id):
                messages = self.messages(reader, stream, version, pending)
                found = Found(message=_found_message(visible_message(messages, message_id)))
            case c.PopMessage():
                messages = self.messages(reader, stream, version, pending, first_page=8)
                found = Found(message=_found_message(next(messages, None)))
            case c.SetHistory(given):
                found = Found(same=same_messages(self.messages(reader, stream, version, pending), given))
            case c.CompactHistory(_, _, keep_last):
                messages = self.messages(reader, stream, version, pending)
                kept = window(messages, last=keep_last, max_tokens=None, count=None, exact=keep_last == 0)
                found = Found(kept=len(kept))
            case c.ReturnTool(call_id):
                calls = self.back(reader, stream, version, pending, CALL_TOPICS, first_page=8)
                events = (event for _, event, _, _ in calls)
                name = next((event.name for event in events if _is_call(event, call_id)), None)
                found = Found(call=None if name is None else c.FoundCall(name))
            case c.StartRun(run_id) | c.FinishRun(run_id):
                found = Found(run=_found_run(self.back(reader, stream, version, pending, RUN_TOPICS), run_id))
            case _:
                found = NOTHING
        return found

    def messages(
        self, reader: Reader, stream: str, version: int, pending: Sequence[Occurrence] = (), first_page: int = 64
    ) -> Iterator[Message]:
        """Yield the visible messages newest first, as of ``version`` and the events ``pending`` after it."""
        return messages_back(
            self.codec, stream, pages_back(reader, stream, upto=version, first_page=first_page), pending
        )

    def back(
        self,
        reader: Reader,
        stream: str,
        version: int,
        pending: Sequence[Occurrence],
        topics: frozenset[str],
        first_page: int = 64,
    ) -> Iterator[Occurrence]:
        """Yield events of these topics newest first: those ``pending``, then those stored up to ``version``."""
        pages = pages_back(reader, stream, upto=version, first_page=first_page)
        return occurrences_back(self.codec, stream, pages, topics, pending)

    def _earlier(self, reader: Reader, stream: str, keys: Sequence[tuple[str, str, bytes]]) -> KeyRow | None:
        """Return the row of one of these keys, if it was used; each that was must have been for the same command."""
        wanted = {(kind, key): print_ for kind, key, print_ in keys}
        used = reader.select_keys(stream, list(wanted))
        for row in used:
            if row.fingerprint[:FINGERPRINT_BYTES] != wanted[row.kind, row.key]:
                raise IdempotencyConflict(
                    f"{row.kind}_id {row.key!r} was already used for something else in this session"
                )
        return used[0] if used else None

    # --- receipts -----------------------------------------------------------------------------------------------------

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

    def earlier_receipt(self, session_id: str, keys: Sequence[tuple[str, str, bytes]]) -> Receipt | None:
        """Return the first receipt of a write that was made under one of these keys.

        Raises:
            IdempotencyConflict: a key was used for something else.
        """
        row = self._earlier(self.recorder, self.stream(session_id), keys)
        return None if row is None else self._first_receipt(session_id, row)

    def events_of(self, session_id: str, command_id: str) -> list[Event | e.Erased] | None:
        """Return the events of the append that was made under this ``command_id``; ``None`` if there was none."""
        stream = self.stream(session_id)
        used = self.recorder.select_keys(stream, (("command", command_id),))
        if not used:
            return None
        if used[0].fingerprint[FINGERPRINT_BYTES:] == NOTHING_CHANGED:
            return []
        return [self.codec.event(row[2], row[3]) for row in self._append_of(stream, used[0].version)]

    def _first_receipt(self, session_id: str, row: KeyRow) -> Receipt:
        """Return the receipt of the write that used this key, with the ids that it gave."""
        if row.fingerprint[FINGERPRINT_BYTES:] == NOTHING_CHANGED:
            return self.receipt_at(session_id, row.version, nothing=True)
        receipt = self.receipt_at(session_id, row.version)
        stream = self.stream(session_id)
        ((_, _, topic, state),) = self.recorder.select_stream(stream, after=row.version - 1, upto=row.version)
        if row.kind == "message":
            return replace(receipt, message_id=row.key)
        match self.codec.event(topic, state):
            case e.MessageAdded(message_id) | e.HistoryCompacted(message_id) | e.MessageRemoved(message_id):
                return replace(receipt, message_id=message_id)
            case e.ToolCalled(call_id) | e.ToolReturned(call_id):
                return replace(receipt, call_id=call_id)
            case e.RunStarted(run_id) | e.RunFinished(run_id):
                return replace(receipt, run_id=run_id)
            case _:
                return receipt

    def receipt_at(self, session_id: str, version: int, *, nothing: bool = False) -> Receipt:
        """Return the receipt of the append that wrote ``version``, or of writing ``nothing`` when it was the newest."""
        stream = self.stream(session_id)
        rows = self._row(stream, version) if nothing else self._append_of(stream, version)
        last = header_of(rows[-1][3])
        return Receipt(
            session_id=session_id,
            version=last.version,
            position=rows[-1][0],
            event_ids=() if nothing else tuple(header_of(row[3]).event_id for row in rows),
            recorded_at=last.recorded_at,
            durability=self.recorder.durability,
            hash=text_hash(last.hash),
        )

    def _append_of(self, stream: str, version: int) -> list[StreamRow]:
        """Return the rows of the append that wrote ``version``."""
        i, n = header_of(self._row(stream, version)[0][3]).turn
        return self.recorder.select_stream(stream, after=version - i, upto=version - i + n)

    def _row(self, stream: str, version: int) -> list[StreamRow]:
        rows = self.recorder.select_stream(stream, after=version - 1, upto=version)
        if not rows:
            raise CorruptLog(f"session {stream!r}: version {version} is missing")
        return rows


def said_with(
    command: Command, options: WriteOptions, *, bare: Command | None = None, message_id: str | None = None
) -> Said:
    """Return a command with what the keywords of a write say about it, and the ``message_id`` its caller gave it."""
    command_id = options.get("command_id")
    given = [(kind, key) for kind, key in (("message", message_id), ("command", command_id)) if key is not None]
    print_ = fingerprint((bare or command,)) if given else b""
    return Said(
        command=command,
        bare=bare or command,
        occurred_at=options.get("occurred_at"),
        actor=options.get("actor"),
        correlation_id=options.get("correlation_id"),
        causation_id=options.get("causation_id"),
        keys=tuple((kind, key, print_) for kind, key in given),
        expected_version=options.get("expected_version"),
    )


def _has(reader: Reader, stream: str, version: int, digest: bytes) -> bool:
    """Return whether a stream's event of this version is the one with this hash."""
    rows = reader.select_stream(stream, after=version - 1, upto=version)
    return bool(rows) and header_of(rows[0][3]).hash == digest


def _found_message(message: Message | None) -> c.FoundMessage | None:
    return None if message is None else c.FoundMessage(message.message_id, message.content)


def _is_call(event: object, call_id: str) -> TypeGuard[e.ToolCalled]:
    return isinstance(event, e.ToolCalled) and event.call_id == call_id


def _found_run(events: Iterator[Occurrence], run_id: str) -> c.FoundRun | None:
    finished = None
    for _, event, _, _ in events:
        match event:
            case e.RunFinished(id_, status, result, error, usage) if id_ == run_id:
                finished = c.FinishRun(run_id, status, result, error, usage)
            case e.RunStarted(id_, details) if id_ == run_id:
                return c.FoundRun(details, finished)
            case _:
                pass
    return None


_encode_state = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(SessionState).decode
