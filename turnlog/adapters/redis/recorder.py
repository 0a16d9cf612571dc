"""The log in Redis (6.2 or newer), by redis-py. Start with ``RedisRecorder.append``.

Atomicity: an append is one script (append.lua), which the server runs alone: it checks every version and key of all
batches before it writes the first of them. Where somebody else was first, it is decided anew (writing.py).
Order: the same script counts positions up, so they are given in the order of commits and without gaps.
Durability: the server's settings decide (durability.py). ``full`` is ``appendonly yes``, ``appendfsync always`` and no
eviction: a server that does not have them is refused. ``normal`` outlives the writer's process.
Time to live: where ``ttl_s`` is given, every append to a session sets its deadline anew. One that is overdue reads as
it were not there, and is ended as a whole (sweep.lua), with what views hold of it, by the next who appends to it or
asks for the position of the log. Who follows the log finds that it was deleted.
"""

from collections.abc import Sequence

from turnlog.adapters.redis import durability
from turnlog.adapters.redis.log import Log
from turnlog.adapters.redis.recorders import RedisProcessRecorder
from turnlog.adapters.redis.writing import Appending, Forgetting, OneByOne, Sweeper
from turnlog.adapters.server_group import Appends
from turnlog.adapters.several import pages
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, SnapshotRow, StreamVersion

WAYS = 8
"""So many appends of a process are under way at the same time; the server syncs for all that it finds waiting."""


class RedisRecorder(RedisProcessRecorder):
    """turnlog's recorder: adds keys, snapshots, deciding again, and erasing."""

    def __init__(self, log: Log, views: Forgetting | None = None) -> None:
        server = log.server
        super().__init__(server, originator_id_type="text", log=log)
        self.durability = server.durability
        self._sweeper = Sweeper(self.log, views)
        appending = Appending(log, views, self._sweeper)
        self.appends: Appends | OneByOne = (
            OneByOne(appending, server.timeout_s)
            if log.views_apart
            else Appends(appending, server.timeout_s, ways=WAYS)
        )

    def prepare(self) -> None:
        """Look what the server keeps.

        Raises:
            InvalidInput: it cannot keep what was asked for. StoreUnavailable: it is too old, or cannot be reached.
        """
        self.durability = durability.reached(self.server)
        self.log.look_for_lives()

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit ``batches``, see ``Recorder``."""
        return self.appends.append(batches, again)

    @property
    def expires(self) -> bool:
        """Whether sessions may expire, and what was read of one be gone."""
        return self.log.expires

    def position(self) -> int:
        """Return the position of the newest event, 0 if there is none; sessions that are overdue are ended first.

        So whoever catches up, which is how all strong queries begin, does so with a log in which they are not.
        """
        if self.log.expires:
            self._sweeper.sweep_all()
        return super().position()

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        return self.log.used(stream, keys)

    def select_versions(self, wanted: Sequence[StreamVersion]) -> dict[StreamVersion, StreamRow]:
        """Return events of any streams, see ``Recorder``."""
        return {at: row for page in pages(wanted) for at, row in self.log.versions(page)}

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        """Return every key of a stream, see ``Recorder``."""
        return self.log.all_used(stream)

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot, see ``Reader``."""
        return self.log.snapshot(stream)

    def visible(self, *, limit: int) -> list[str] | None:  # noqa: ARG002 - the port's
        """Return nothing: positions are committed in order."""
        return []

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        """Return names of streams, see ``Recorder``."""
        return self.log.names(prefix, after, limit)

    # --- upkeep -------------------------------------------------------------------------------------------------------

    def check(self) -> list[str]:
        """Return where the order, the names and the sessions' streams do not agree."""
        return durability.check(self.log)

    def size_bytes(self) -> int | None:
        """Return how much memory the whole server uses for data, other keys than turnlog's included."""
        return durability.size_bytes(self.server)

    def lingering(self) -> list[str]:
        """Return where erased bytes may linger: in the append-only file, until it is rewritten."""
        return durability.lingering(self.server)

    def scrub(self, *, vacuum: bool) -> list[str]:
        """Have the append-only file rewritten; see ``Recorder``."""
        return durability.scrub(self.server, vacuum=vacuum)

    def close(self) -> None:
        """Close every connection."""
        self.server.close()
