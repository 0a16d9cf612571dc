"""An append to several partitions of a cluster: all of it or nothing, whoever dies in between.

It is noted as begun. Each partition is asked whether its part fits, and keeps the streams for it: nobody else writes to
them, or decides by them. Then it is decided, by one step in the slot of the order, together with what is to be written;
from there on it will be. Each part is written by the script that gives its streams free again, so that is done once,
whoever does it; last, the note is deleted.

Who comes to a stream that is kept looks at the note. What was decided he writes himself, so he need not wait for
somebody who may be dead; so does who opens the store, or asks for the log's position. What was not decided for
``OPEN_MS`` he gives up in its owner's place, who then finds that he is too late and begins anew.

Until all parts are written a reader may see one and not yet the other.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from uuid import uuid4

import msgspec
import redis

from turnlog.adapters.attempt import Broken, Lost, Undone
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.log import Also, Log, Reserved, Settled
from turnlog.adapters.redis.scripts import DECIDE, FREE
from turnlog.adapters.redis.wire import Cut, Unsent
from turnlog.domain.errors import OutcomeUnknown, StoreUnavailable
from turnlog.domain.recorder import Batch
from turnlog.domain.typed import decoder

OPEN_MS = 2_000
"""So many milliseconds somebody may take to decide before others believe him dead; it takes him a few."""
NOT_TOLD = (Cut, Unsent, Broken, Undone, StoreUnavailable, redis.RedisError)
"""What is raised where, of something that was begun, the end is not known."""
Shares = Mapping[int, Sequence[Batch]]
"""The batches of each partition, by its number."""


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What was decided: the batches, and how long sessions live, in milliseconds (0: as before)."""

    batches: Sequence[Batch]
    ttl: int


_decode_note = decoder(Note, msgspec.msgpack)


class Joint:
    """The joint appends of one log.

    Args:
        key: where they are noted.
        parts: the partitions.
        part: tells the number of a stream's partition.
    """

    def __init__(self, server: Cluster, key: bytes, parts: Sequence[Log], part: Callable[[str], int]) -> None:
        self._server = server
        self.key = key
        self._parts = parts
        self._part = part

    def append(self, batches: Sequence[Batch], also: Callable[[int], Also]) -> dict[int, list[int]]:
        """Write them; return for each partition the place of the last row of each of its batches.

        Args:
            batches: of several partitions.
            also: tells what a partition is to look at besides.

        Raises:
            Taken, Undone, Broken: nothing was written, or will be. Lost: it was, or will be, or nothing was.
        """
        shares = self._shares(batches)
        joint = uuid4().hex
        self._server.read_script(DECIDE, (self.key,), ("begin", joint, ""))
        try:
            for part in sorted(shares):  # all take them in this order, so nobody waits for somebody who waits for him
                self._parts[part].append(shares[part], also(part)._replace(step="reserve", joint=joint))
        except BaseException as error:
            with suppress(*NOT_TOLD, OutcomeUnknown):  # then whoever comes there does it, after OPEN_MS
                self._give_up(joint, shares)
            if isinstance(error, (Lost, OutcomeUnknown)):
                raise Broken from error.__cause__ or error  # nobody else decides that it is to be
            raise
        note = Note(batches, int(self._parts[0].ttl or 0))
        try:
            if self._server.run(DECIDE, (self.key,), ("decide", joint, msgspec.msgpack.encode(note))):
                return self._written(joint, shares, note.ttl)
        except NOT_TOLD as error:
            raise Lost from error
        with suppress(*NOT_TOLD):
            self._free(joint, shares)
        raise Undone from InterruptedError("it took so long that somebody else gave it up")

    @contextmanager
    def looked_at(self) -> Generator[None, None, None]:
        """Where it turns out inside that a stream is kept for another append, do what can be done about that.

        Raises:
            Undone: it was kept; it is worth another try.
        """
        try:
            yield
        except Reserved as reserved:
            try:
                self._look_at(reserved)
            except (*NOT_TOLD, Lost, OutcomeUnknown) as error:  # all of it about the other append
                raise Undone from error
            raise

    def _look_at(self, reserved: Reserved) -> None:
        joint, stream = reserved.joint, reserved.stream
        if not self._ended(joint, self._server.read("HGET", self.key, joint)):
            self._free(joint, {self._part(stream): [Batch(stream, ())]})

    def end(self, notes: Sequence[bytes]) -> None:
        """Write what was decided and is not known to be written; who is doing so himself does not mind.

        Args:
            notes: what stands under ``key``: id and note of each.
        """
        for joint, noted in zip(notes[::2], notes[1::2], strict=True):
            self._ended(joint.decode(), noted)

    def _ended(self, joint: str, noted: bytes | None) -> bool:
        """Write it, or give it up; return whether it was written, or may be yet."""
        if noted is None or noted.isdigit():
            return bool(self._server.run(DECIDE, (self.key,), ("give up", joint, OPEN_MS)))
        note = _decode_note(noted)
        if self._server.run(DECIDE, (self.key,), ("decide", joint, noted)):  # once more: a replica is to have it, too
            with suppress(Lost, Broken, Undone):  # then the next does it
                self._written(joint, self._shares(note.batches), note.ttl)
        return True

    def _written(self, joint: str, shares: Shares, ttl: int) -> dict[int, list[int]]:
        """Write what is not written yet; return the places.

        Raises:
            Lost: others have written some of it.
        """
        also = Also(step="write", joint=joint, ttl=ttl or b"")
        places: dict[int, list[int]] = {}
        for part, share in shares.items():
            with suppress(Settled):
                places[part] = self._parts[part].append(share, also)
        self._server.write("HDEL", self.key, joint)
        if len(places) < len(shares):
            raise Lost from InterruptedError("somebody else has written it")
        return places

    def _give_up(self, joint: str, shares: Shares) -> None:
        self._server.run(DECIDE, (self.key,), ("give up", joint, 0))
        self._free(joint, shares)

    def _free(self, joint: str, shares: Shares) -> None:
        for part, share in shares.items():
            streams = [batch.stream for batch in share]
            self._server.read_script(FREE, (self._parts[part].keys.reserved,), (joint, *streams))

    def _shares(self, batches: Sequence[Batch]) -> dict[int, list[Batch]]:
        shares: dict[int, list[Batch]] = {}
        for batch in batches:
            shares.setdefault(self._part(batch.stream), []).append(batch)
        return shares
