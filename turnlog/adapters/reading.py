"""Reading from within an append's own transaction."""

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import KeyRow, SnapshotRow

C_contra = TypeVar("C_contra", contravariant=True)


class Reading(Protocol[C_contra]):
    """A recorder that can read on a connection which it is given; the methods are those of ``Reader``."""

    def stream_rows(
        self, connection: C_contra, stream: str, after: int, upto: int | None, *, desc: bool, limit: int | None
    ) -> list[StreamRow]:
        """Return a stream's rows."""
        ...

    def key_rows(self, connection: C_contra, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used."""
        ...

    def snapshot_row(self, connection: C_contra, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot."""
        ...


class Inside(Generic[C_contra]):
    """A ``Reader`` on the connection of an append that keeps other writers out."""

    def __init__(self, recorder: Reading[C_contra], connection: C_contra) -> None:
        self._recorder = recorder
        self._connection = connection

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        return self._recorder.stream_rows(self._connection, stream, after, upto, desc=desc, limit=limit)

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        return self._recorder.key_rows(self._connection, stream, keys)

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        return self._recorder.snapshot_row(self._connection, stream)
