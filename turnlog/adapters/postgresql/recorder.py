"""The log in PostgreSQL (14 or newer, a primary, UTF8; psycopg 3). Start with ``PostgreSQLRecorder.append``.

Atomicity: an append is one statement, which PostgreSQL commits by itself; it takes no lock. Where somebody else was
first, a unique index says so, and it is decided anew inside a transaction, again and again until it fits.
Order: positions are drawn without a lock, so a later one may be visible first; readers are shown only what is settled
(tail.py). Where that cannot be proven, or by ``ordering="strict"``, appends exclude each other.
Durability: ``full`` waits for the disk and for synchronous standbys, ``normal`` for this server's disk alone: with
less, a crash would give positions a second time that readers have passed. A server with ``fsync=off`` is told so.
"""

from collections.abc import Sequence

from turnlog.adapters.names import Names, name_range
from turnlog.adapters.postgresql import storage, tables
from turnlog.adapters.postgresql.attempt import Appending
from turnlog.adapters.postgresql.pool import Pool
from turnlog.adapters.postgresql.tracking import PostgreSQLProcessRecorder
from turnlog.adapters.postgresql.writing import Forgetting, Writing
from turnlog.adapters.sealed import sealed_key, sealed_snapshot
from turnlog.adapters.server_group import Appends
from turnlog.adapters.several import by_version, pages
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, SnapshotRow, StreamVersion


class PostgreSQLRecorder(PostgreSQLProcessRecorder):
    """turnlog's recorder: adds keys, snapshots, deciding again until it fits, and erasing."""

    expires = False

    def __init__(
        self,
        pool: Pool,
        names: Names,
        views: Forgetting | None = None,
        *,
        ordering: str = "auto",
        partitions: int | None = None,
    ) -> None:
        super().__init__(
            pool,
            events_table=names.events,
            tracking_table=names.tracking,
            views=pool.table(names.views),
            originator_id_type="text",
            ordering=ordering,
            partitions=partitions,
        )
        self.durability = pool.durability
        self._names = names
        self._keys_table, self._snapshots_table = pool.table(names.keys), pool.table(names.snapshots)
        self.writing = Writing(self.events_table, self._keys_table, self._snapshots_table, views)
        self.appends = Appends(Appending(self), pool.timeout_s, ways=max(pool.size - 1, 1))
        self._select_keys = f"SELECT kind, key, version, fingerprint, seal FROM {self._keys_table}"
        self._select_some_keys = (
            "SELECT k.kind, k.key, k.version, k.fingerprint, k.seal"
            ' FROM unnest(%b::text[], %b::text[]) WITH ORDINALITY AS w (kind, "key", n)'
            f' JOIN {self._keys_table} AS k ON k.originator_id = %b AND k.kind = w.kind COLLATE "C"'
            ' AND k.key = w.key COLLATE "C" AND hashtextextended(k.key, 0) = hashtextextended(w.key COLLATE "C", 0)'
            ' AND hashtextextended(k.key, 1) = hashtextextended(w.key COLLATE "C", 1) ORDER BY w.n'
        )
        self._select_snapshot = (
            f"SELECT version, revision, hash, state, seal FROM {self._snapshots_table} WHERE originator_id = %b"
        )

    def prepare(self) -> None:
        """Create the tables if they are not there; several processes may do so at once.

        Raises:
            StoreError: a newer turnlog made them.
            InvalidInput: they are there, in another number of partitions than was asked for.
        """
        tables.prepare(self.pool, self._names, self._partitions)
        self.durability = storage.durability(self.pool)

    # --- append -------------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``, see ``Recorder``. Who would have to wait for a connection shares one, and a statement."""
        positions = self.appends.append(batches, again)
        if positions:
            self.news.ring()
        return positions

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``: by something as safe as an append that returned."""
        found = [sealed_key(stream, row) for row in self.pool.rows(*self.keys_query(stream, keys))]
        if found and not self.pool.read_only:
            self.pool.confirm()
        return found

    def keys_query(self, stream: str, keys: Sequence[tuple[str, str]]) -> tuple[str, Sequence[object]]:
        """Return the statement that reads some keys, and its parameters."""
        return self._select_some_keys, ([kind for kind, _ in keys], [key for _, key in keys], stream)

    def select_versions(self, wanted: Sequence[StreamVersion]) -> dict[StreamVersion, StreamRow]:
        """Return events of any streams, see ``Recorder``."""
        return dict(by_version(row for page in pages(wanted) for row in self.pool.rows(*self.versions_query(page))))

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        """Return every key of a stream, see ``Recorder``."""
        return [sealed_key(stream, row) for row in self.pool.rows(*self.all_keys_query(stream))]

    def all_keys_query(self, stream: str) -> tuple[str, Sequence[object]]:
        """Return the statement that reads every key of a stream, and its parameters."""
        return self._select_keys + " WHERE originator_id = %b ORDER BY version, kind, key", (stream,)

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        return sealed_snapshot(stream, next(iter(self.pool.rows(*self.snapshot_query(stream))), None))

    def snapshot_query(self, stream: str) -> tuple[str, Sequence[object]]:
        """Return the statement that reads a stream's snapshot, and its parameters."""
        return self._select_snapshot, (stream,)

    def visible(self, *, limit: int) -> list[str] | None:
        """Return the streams of events that can be read but are not settled yet, see ``Recorder``."""
        self.tail.head()
        if not self.tail.in_doubt:
            return []
        rows = self.pool.rows(*self.above_query(self.tail.settled, limit + 1))
        return None if len(rows) > limit else list({row[0]: None for row in rows})

    def above_query(self, position: int, limit: int) -> tuple[str, Sequence[object]]:
        """Return the statement that reads whose the events above a position are, and its parameters."""
        statement = f"SELECT originator_id FROM {self.events_table} WHERE position > %b ORDER BY position LIMIT %b"
        return statement, (position, limit)

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        """Return names of streams, see ``Recorder``."""
        return [row[0] for row in self.pool.rows(*self.streams_query(prefix, after, limit))]

    def streams_query(self, prefix: str, after: str, limit: int) -> tuple[str, Sequence[object]]:
        """Return the statement that reads names of streams: each is one step in the index, however long it is."""
        low, high = name_range(prefix)
        next_one = f"SELECT originator_id FROM {self.events_table} WHERE originator_id > {{}} AND originator_id < %b"
        next_one += " ORDER BY originator_id LIMIT 1"
        statement = (
            f"WITH RECURSIVE names AS (({next_one.format('%b')}) UNION ALL"
            f" SELECT ({next_one.format('names.originator_id')}) FROM names WHERE originator_id IS NOT NULL)"
            " SELECT originator_id FROM names WHERE originator_id IS NOT NULL LIMIT %b"
        )
        return statement, (max(after, low), high, high, limit)

    # --- upkeep -------------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Return what PostgreSQL's own check of indexes finds (extension amcheck), and keys that no session has."""
        return storage.check(self.pool, self._names)

    def size_bytes(self) -> int | None:
        """Return how much the tables and their indexes use."""
        ((size,),) = self.pool.rows(*self.size_query(), prepare=False)
        return int(size)

    def size_query(self) -> tuple[str, Sequence[object]]:
        """Return the statement that says how much is used, and its parameters."""
        return storage.size_query(self.pool, self._names)

    def lingering(self) -> list[str]:
        """Return where erased bytes may linger: PostgreSQL keeps old versions of rows, and its write-ahead log."""
        return storage.lingering(self.pool)

    def scrub(self, *, vacuum: bool) -> list[str]:
        """Rewrite the tables without old versions of rows; see ``Recorder``."""
        return storage.scrub(self.pool, self._names, vacuum=vacuum)

    def close(self) -> None:
        """Close everything."""
        super().close()
        self.pool.close()
