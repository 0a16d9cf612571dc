"""Copying a log, one tenant's or all of it, to another store on whatever backend: ids, times, versions, hashes, keys.

Events are copied in the source's order, a few hundred to a commit, then what the order does not show: keys, and the
proof that every session ends there as it ends here. Nothing is noted anywhere: the newest event of the target says how
far it is, so a copy that was killed goes on where it was, and doubles nothing. Positions are the target's own, in the
same order; snapshots come along, views are made there. Memory does not grow with the log.

The source may be written to meanwhile. What is erased there during the copy is erased in the target too.
"""

from collections.abc import Callable, Iterable, Iterator
from time import monotonic, perf_counter

import msgspec

from turnlog.adapters.inside import decider_of
from turnlog.adapters.transfer.foreign import ForeignRows, Turn, Turns, Written, groups
from turnlog.decider import SNAPSHOT_EVERY
from turnlog.domain.chain import commitment, event_hash
from turnlog.domain.envelope import header_of, split
from turnlog.domain.errors import ConcurrencyConflict, CorruptLog, InvalidInput, StoreUnavailable
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Recorder, SnapshotRow
from turnlog.store import ConversationStore

PAGE = 1_000
"""How many events or sessions are read at a time."""
WAIT_S = 0.25
"""How long one wait for news lasts before it is asked whether to go on."""
SETTLE_S = 60.0
"""How long events are waited for that are committed, and have no settled place in the source's order yet."""


class CopyProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Given to ``copy_log(progress=…)``: events copied so far; ``position`` is the source's, ``head`` its newest."""

    copied: int
    position: int
    head: int


class CopyReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the two stores have in common now, and how much of it was copied by this call.

    ``position`` is the source's up to which everything is there.
    """

    sessions: int
    events: int
    keys: int
    copied: int
    copied_keys: int
    position: int
    seconds: float


Progress = Callable[[CopyProgress], None]


def copy_log(
    source: ConversationStore,
    target: ConversationStore,
    *,
    every_tenant: bool = False,
    follow: Callable[[], bool] | None = None,
    progress: Progress | None = None,
) -> CopyReport:
    """Make the target hold the source's log, sessions of other tenants left alone; return when it is level.

    With ``every_tenant`` all of the log is copied, whatever tenants the two stores were opened for. ``follow`` is asked
    four times a second whether to go on copying what is written from then on. A key of a command that changed nothing
    is no event: one that is used while this goes on may be found by the next call only.

    Raises:
        InvalidInput: the target holds something else, or is of another tenant; the message names the first session.
        CorruptLog: an event of the source does not match its hash, or the two ends of a session differ afterwards.
        StoreUnavailable: transactions in the source stay open and hold up its order.
        StoreError: a storage failed; what was copied is whole turns, and calling again goes on.
    """
    if source.tenant != target.tenant and not every_tenant:
        raise InvalidInput("target", f"is of tenant {target.tenant!r}, the source of {source.tenant!r}")
    return _Copying(source, target, "" if every_tenant else f"{source.tenant}/", progress or _silent).run(follow)


def _silent(_: CopyProgress) -> None:
    return


class _Copying:
    """Copies the streams that begin with ``prefix``, and keeps the account of it."""

    def __init__(self, source: ConversationStore, target: ConversationStore, prefix: str, tell: Progress) -> None:
        self._source, self._target = decider_of(source).recorder, decider_of(target).recorder
        self._catch_up = target.catch_up
        self._prefix = prefix
        self._foreign = ForeignRows(self._target, self._snapshot)
        self._tell = tell
        self._began = perf_counter()
        self._turns = Turns()
        self._after = 0
        self._copied = self._copied_keys = 0

    def run(self, follow: Callable[[], bool] | None) -> CopyReport:
        """Copy until level, then as long as ``follow`` says so."""
        for stream in self._streams(self._target):
            self._require_ours(stream)
        self._after = self._reached()
        if self._after:
            for stream in self._streams(self._source):
                self._complete(stream)
        self._copy_events()
        sessions, events, keys = self._settle(self._streams(self._source))
        settled = self._after
        while not self._is_level():
            self._copy_events(settling=True)
        while follow is not None and follow():
            self._source.wait_for_news(self._after, WAIT_S)
            self._copy_events(settling=True)
        if self._after != settled:
            sessions, events, keys = self._settle(self._streams(self._source))
        self._catch_up()
        return CopyReport(
            sessions=sessions,
            events=events,
            keys=keys,
            copied=self._copied,
            copied_keys=self._copied_keys,
            position=self._after,
            seconds=perf_counter() - self._began,
        )

    # --- where to begin -----------------------------------------------------------------------------------------------

    def _require_ours(self, stream: str) -> None:
        """Refuse a session of the target that is not the source's, as far as it goes."""
        (position, version, _, state) = _last(self._target, stream)
        there = self._source.select_stream(stream, after=version - 1, upto=version)
        if not there or split(there[0][3])[:2] != split(state)[:2]:
            name = stream.removeprefix(self._prefix)
            what = "is another one" if there else "goes on" if _has(self._source, stream) else "is not in the source"
            words = f"session {name!r} {what} (version {version}, position {position})"
            raise InvalidInput("target", f"it holds something else: {words}; nothing was copied")

    def _reached(self) -> int:
        """Return the source's position of the newest of these events in the target: all before it is there."""
        upto = self._target.position()
        while upto > 0:
            rows = self._target.select_log(after=max(upto - PAGE, 0), upto=upto, limit=PAGE, prefix=self._prefix)
            if rows:
                _, stream, version, _, _ = rows[-1]
                return self._source.select_stream(stream, after=version - 1, upto=version)[0][0]
            upto -= PAGE
        return 0

    def _complete(self, stream: str) -> None:
        """Copy what is missing of a session before the place that was reached, if an import of a part led there."""
        theirs = self._target.select_stream(stream, desc=True, limit=1)
        version = theirs[0][1] if theirs else 0
        turns = Turns()
        while rows := self._source.select_stream(stream, after=version, limit=PAGE):
            taken = [turns.take(stream, row) for row in rows if row[0] <= self._after]
            for group in groups(self._whole(turn) for turn in taken if turn is not None):
                self._add(group)
            if len(taken) < PAGE:
                return
            version = rows[-1][1]

    # --- events, in order ---------------------------------------------------------------------------------------------

    def _copy_events(self, *, settling: bool = False) -> None:
        """Copy up to the source's head; ``settling``, also the keys of each session that comes along."""
        while rows := self._source.select_log(after=self._after, limit=PAGE, prefix=self._prefix):
            taken = [self._turns.take(row[1], (row[0], *row[2:])) for row in rows]
            whole = [self._whole(turn) for turn in taken if turn is not None]
            for group in groups(whole):
                self._add(group)
            self._after = rows[-1][0]
            if settling:
                self._settle({turn.stream: None for turn in whole})
            self._tell(CopyProgress(copied=self._copied, position=self._after, head=self._source.position()))

    def _whole(self, turn: Turn) -> Turn:
        """Return the turn with what of it stands before the place where this copy began, its hashes checked."""
        last = turn.rows[-1]
        _, n = header_of(last[3]).turn
        if len(turn.rows) < n:
            turn = Turn(turn.stream, tuple(self._source.select_stream(turn.stream, after=last[1] - n, upto=last[1])))
        for row in turn.rows:
            _require_sound(turn.stream, row)
        return turn

    def _add(self, group: list[Turn]) -> Written:
        written = self._foreign.add(group)
        self._copied += written.events
        self._copied_keys += written.keys
        for failure in self._foreign.refused.values():
            words = f"session {failure.session_id!r}, version {failure.version}: {failure.reason}"
            raise ConcurrencyConflict(f"the target was written to meanwhile: {words}")
        return written

    def _snapshot(self, stream: str, first: int, last: int) -> SnapshotRow | None:
        """Return the source's snapshot, where the versions written are those that its target would have made it of."""
        if (first - 1) // SNAPSHOT_EVERY == last // SNAPSHOT_EVERY:
            return None
        snapshot = self._source.select_snapshot(stream)
        return snapshot if snapshot is not None and snapshot.version <= last else None

    def _is_level(self) -> bool:
        """Return whether nothing is left to copy; wait for what has no settled place in the source's order yet."""
        deadline = monotonic() + SETTLE_S
        while self._source.visible(limit=1) != []:
            if self._source.select_log(after=self._after, limit=1, prefix=self._prefix):
                return False
            if monotonic() > deadline:
                raise StoreUnavailable("transactions that are open in the source hold up the order of its events")
            self._source.wait_for_news(self._after, WAIT_S)
        return not self._source.select_log(after=self._after, limit=1, prefix=self._prefix)

    # --- session by session -------------------------------------------------------------------------------------------

    def _settle(self, streams: Iterable[str]) -> tuple[int, int, int]:
        """Bring the keys of sessions along and prove their ends; return how many sessions, events and keys they are."""
        counted = [0, 0, 0]
        for group in groups(self._left_over(streams, counted)):
            self._add(group)
        return counted[0], counted[1], counted[2]

    def _left_over(self, streams: Iterable[str], counted: list[int]) -> Iterator[Turn]:
        for stream in streams:
            version = self._proven(stream)
            keys = [key for key in self._source.select_all_keys(stream) if key.version <= version]
            there = self._target.select_keys(stream, [key[:2] for key in keys]) if keys else []
            missing = set(keys).difference(there)
            yield from (Turn(stream, (), key) for key in keys if key in missing)
            counted[0] += 1
            counted[1] += version
            counted[2] += len(keys)

    def _proven(self, stream: str) -> int:
        """Return the version that a session is at in the target; its end there is the source's event of this version.

        Raises:
            CorruptLog: it is not.
        """
        theirs = self._target.select_stream(stream, desc=True, limit=1)
        if not theirs:
            return 0
        version, state = theirs[0][1], theirs[0][3]
        here = self._source.select_stream(stream, after=version - 1, upto=version)
        if not here or split(here[0][3])[:2] != split(state)[:2]:
            raise CorruptLog(f"session {stream!r}: version {version} is not the same in both stores")
        return version

    def _streams(self, recorder: Recorder) -> Iterator[str]:
        after = ""
        while names := recorder.streams(prefix=self._prefix, after=after, limit=PAGE):
            yield from names
            after = names[-1]


def _last(recorder: Recorder, stream: str) -> StreamRow:
    return recorder.select_stream(stream, desc=True, limit=1)[0]


def _has(recorder: Recorder, stream: str) -> bool:
    return bool(recorder.select_stream(stream, limit=1))


def _require_sound(stream: str, row: StreamRow) -> None:
    """Refuse an event whose bytes are not those that were sealed.

    Raises:
        CorruptLog: naming it.
    """
    header, digest, private = split(row[3])
    sound = event_hash(header) == digest and (private is None or commitment(private) == header_of(row[3]).commitment)
    if not sound:
        raise CorruptLog(f"session {stream!r}, version {row[1]}: the event in the source does not match its hash")
