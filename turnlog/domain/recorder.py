"""The ports through which turnlog stores events. Every backend implements them; nothing else is asked of one.

On top of ``eventsourcing``'s recorder contract: a reader that has seen position N never later finds a new event with a
position below N; appends of several processes; keys; snapshots; erasing.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from turnlog.domain.mapper import LogRow, StreamRow

StreamVersion: TypeAlias = tuple[str, int]
"""One event: its stream, and its version there."""
FINGERPRINT_BYTES = 16
NOTHING_CHANGED = b"\0"
PENDING = "pending"
"""The durability of what an application's own transaction has yet to commit, and may roll back."""


class KeyRow(NamedTuple):
    """A ``message_id`` or ``command_id`` that was used: ``kind`` is ``message`` or ``command``.

    ``version`` is that of the event it led to. ``fingerprint`` is 16 bytes of the command's hash; where the command
    changed nothing, a zero byte follows (``NOTHING_CHANGED``) and ``version`` is that of the last event then.
    """

    kind: str
    key: str
    version: int
    fingerprint: bytes


class SnapshotRow(NamedTuple):
    """A cached state: the version it is of, the revision of the fold, the hash of that version's event, its bytes."""

    version: int
    revision: int
    hash: bytes
    state: bytes


class Batch(NamedTuple):
    """What one append writes to one stream; all batches of an append are committed together or not at all.

    ``rows`` are (version, topic, state), versions dense. With ``erase`` the content of every event of the stream is
    destroyed, these rows' included, with its keys, snapshot and view rows.
    """

    stream: str
    rows: Sequence[tuple[int, str, bytes]]
    keys: Sequence[KeyRow] = ()
    snapshot: SnapshotRow | None = None
    erase: bool = False


class Reader(Protocol):
    """Reading one consistent log. All limits are in events; positions and versions start at 1."""

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return a stream's events with ``after < version <= upto``, oldest first or, with ``desc``, newest first."""
        ...

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the (kind, key) pairs that were used in this stream.

        Raises:
            CorruptLog: a row does not match its checksum.
        """
        ...

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot; a damaged one is as good as none."""
        ...


Again: TypeAlias = Callable[[Reader], Sequence[Batch]]
"""Decides anew: returns batches that fit what it reads."""


class Recorder(Reader, Protocol):
    """Where the log is kept."""

    durability: str
    """What an acknowledged append survives: ``full`` power loss, ``normal`` the end of this process, ``none``.

    ``PENDING`` where it is not committed yet.
    """

    @property
    def expires(self) -> bool:
        """Whether a session's time may be over, so that what was read of it is gone and no event says so."""
        return False

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches`` and return, per batch, the position of its last row (0 where it has none).

        Positions within a batch rise; other writers' may lie between them where there is no lock. If a version or key
        is already taken, or no batch is given, nothing of it is written and ``again`` is asked for batches that fit
        what it then reads: under whatever keeps other writers out or, where nothing does, until nobody else was first.
        In any case nothing that it reads is erased before its batches are committed. What ``again`` raises is raised
        here, with nothing written.

        Raises:
            ConcurrencyConflict, StoreUnavailable, OutcomeUnknown, CorruptLog.
        """
        ...

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events with ``after < position <= upto`` in position order, of streams that begin with ``prefix``."""
        ...

    def select_versions(self, wanted: Sequence[StreamVersion]) -> dict[StreamVersion, StreamRow]:
        """Return events of any streams, however many, by stream and version; what is not there is left out.

        It is asked for the contents of a page of messages, so it should take one round trip for a few hundred of them.
        They need not be of one moment. Where nothing is wanted, nothing is asked.
        """
        ...

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        """Return every key of a stream (for export, fork and verify).

        Raises:
            CorruptLog: a row does not match its checksum.
        """
        ...

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        """Return names of streams in order of their bytes, those above ``after``."""
        ...

    def position(self) -> int:
        """Return the position of the log's newest event, 0 if there is none.

        Where later positions can be visible first: the newest of those below which nothing new can appear any more.
        """
        ...

    def visible(self, *, limit: int) -> list[str] | None:
        """Return the streams of events above ``position()``, as it is now; ``None`` if more than ``limit``.

        They can be read by stream already, but not in the log's order. There are none where position is order. Who
        asks first and then reads the log to its head misses nothing that was committed before.
        """
        ...

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait until there is an event above ``after``, or the time is over; return whether there is one."""
        ...

    def check(self) -> list[str]:
        """Return what the storage's own check finds wrong (nothing where it has none)."""
        ...

    def size_bytes(self) -> int | None:
        """Return how much storage is used."""
        ...

    def lingering(self) -> list[str]:
        """Return, in words, where erased bytes may physically linger until ``scrub``."""
        ...

    def scrub(self, *, vacuum: bool) -> list[str]:
        """Destroy what still physically holds erased bytes; return, in words, what could not be reached."""
        ...

    def close(self) -> None:
        """Release everything. Closing twice does nothing; using it afterwards raises ``StoreUnavailable``."""
        ...
