"""The log in MariaDB (10.6 or newer) or MySQL (8.0, not tested), by PyMySQL. Start with ``MariaDBRecorder.append``.

Atomicity: an append is one InnoDB transaction, sent in one packet. Where somebody else was first, a unique index says
so; it is decided anew while nobody else can write, so it fits then.
Order: positions are given by one row that is locked until the commit (head.py), so they become visible in
their order and without gaps. No AUTO_INCREMENT: that gives numbers before the commit, and in any order.
Durability: the server's settings decide (storage.py): ``full`` is ``innodb_flush_log_at_trx_commit=1``, and
``sync_binlog=1`` where there is a binary log; a server that promises less is told so, and receipts say ``normal``.

Statements are those that both servers understand: no RETURNING, no sequences.
"""

from collections.abc import Sequence

from turnlog.adapters.mariadb import storage, tables
from turnlog.adapters.mariadb.beside import Beside
from turnlog.adapters.mariadb.connection import Connection, run
from turnlog.adapters.mariadb.pool import Pool
from turnlog.adapters.mariadb.tracking import MariaDBProcessRecorder
from turnlog.adapters.mariadb.writing import Appending, Forgetting
from turnlog.adapters.names import Names, name_range
from turnlog.adapters.sealed import sealed_key, sealed_snapshot
from turnlog.adapters.server_group import Appends
from turnlog.adapters.several import by_version, pages
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, SnapshotRow, StreamVersion


class MariaDBRecorder(MariaDBProcessRecorder):
    """turnlog's recorder: adds keys, snapshots, deciding again under the lock, and erasing."""

    expires = False

    def __init__(self, pool: Pool, names: Names, views: Forgetting | None = None) -> None:
        super().__init__(pool, events_table=names.events, tracking_table=names.tracking, originator_id_type="text")
        self.durability = pool.durability
        self._names = names
        keys, snapshots = pool.table(names.keys), pool.table(names.snapshots)
        self.writing = Appending(self, keys, snapshots, views)
        self.appends = Appends(self.writing, pool.timeout_s, ways=1)
        self.beside = Beside(pool)
        self._select_keys = f"SELECT kind, `key`, version, fingerprint, seal FROM {keys} WHERE originator_id = %s"
        self._select_snapshot = f"SELECT version, revision, hash, state, seal FROM {snapshots} WHERE originator_id = %s"

    def prepare(self) -> None:
        """Create the tables if they are not there; several processes may do so at once.

        Raises:
            StoreError: a newer turnlog made them.
        """
        tables.prepare(self.pool, self._names)
        self.durability = storage.durability(self.pool)

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``, see ``Recorder``: decided again under the lock, a conflict cannot come twice."""
        positions = self.appends.append(batches, again)
        self.tell()
        return positions

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        with self.source.read() as connection:
            return self.key_rows(connection, stream, keys)

    def key_rows(self, connection: Connection, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, read on ``connection``, in the order in which they are given."""
        if not keys:
            return []
        rows = run(connection, self._select_keys + " AND (kind, `key`) IN %s", (stream, list(keys))).fetchall()
        found = {(row[0], row[1]): sealed_key(stream, row) for row in rows}
        return [found[pair] for pair in dict.fromkeys(keys) if pair in found]

    def select_versions(self, wanted: Sequence[StreamVersion]) -> dict[StreamVersion, StreamRow]:
        """Return events of any streams, see ``Recorder``."""
        statement = (
            "SELECT position, originator_id, originator_version, topic, state"
            f" FROM {self.events_table} FORCE INDEX (stream) WHERE (originator_id, originator_version) IN %s"
        )
        return dict(by_version(row for page in pages(wanted) for row in self.source.rows(statement, (page,))))

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        """Return every key of a stream, see ``Recorder``."""
        rows = self.source.rows(self._select_keys + " ORDER BY version, kind, `key`", (stream,))
        return [sealed_key(stream, row) for row in rows]

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        return sealed_snapshot(stream, next(iter(self.source.rows(self._select_snapshot, (stream,))), None))

    def snapshot_row(self, connection: Connection, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, read on ``connection``."""
        return sealed_snapshot(stream, run(connection, self._select_snapshot, (stream,)).fetchone())

    def visible(self, *, limit: int) -> list[str] | None:  # noqa: ARG002 - the port's
        """Return nothing: positions are committed in order."""
        return []

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        """Return names of streams, see ``Recorder``: each is one step in the index, however long it is."""
        low, high = name_range(prefix)
        statement = (
            f"SELECT DISTINCT originator_id FROM {self.events_table} WHERE originator_id > %s AND originator_id < %s"
            " ORDER BY originator_id LIMIT %s"
        )
        return [row[0] for row in self.source.rows(statement, (max(after, low), high, limit))]

    # --- upkeep -------------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Return what the server's own check of the tables finds, and how many events and keys are of no session."""
        return storage.check(self.pool, self._names)

    def size_bytes(self) -> int | None:
        """Return how much the tables and their indexes use."""
        return storage.size_bytes(self.source, self._names)

    def lingering(self) -> list[str]:
        """Return where erased bytes may linger: InnoDB keeps old versions of rows, and its logs."""
        return storage.lingering(self.pool)

    def scrub(self, *, vacuum: bool) -> list[str]:
        """Rewrite the tables without old versions of rows; see ``Recorder``."""
        return storage.scrub(self.pool, self._names, vacuum=vacuum)

    def close(self) -> None:
        """Close everything."""
        self.beside.close()
        self.pool.close()
