"""The log on a cluster: partitions, each in one slot, and one order over all of them in another.

A session belongs to one partition, by its name. There an append is what it is on one server: one script, all or
nothing, and a place in the partition's own order. Then it is given its position: a second script appends what the
partition has beyond what was given, to the order of all, if nobody has done so meanwhile; so each event comes there
once, and those of a partition as they are there. Last, the position is noted in the partition, so that a session can be
read by itself.

A writer may die in between. What he left without a position, whoever writes there next, or asks for the log's position,
moves on; a position that was not noted is found in the order. So nothing of it is ever lost, or doubled, and no reader
of the order is overtaken. An append to several partitions is decided in one step and written by one script each, if
need be by somebody else: joint.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import islice
from time import monotonic
from typing import Any
from zlib import crc32

from turnlog.adapters.attempt import Lost, Undone
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.joint import NOT_TOLD, Joint
from turnlog.adapters.redis.keys import Keys, OneSlot
from turnlog.adapters.redis.log import HOLD_S, NOTHING, PAGE, Also, Log, Pointer, pointer_of
from turnlog.adapters.redis.scripts import ORDER
from turnlog.adapters.redis.wire import Command, translating
from turnlog.domain.errors import CorruptLog, InvalidInput
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import Batch, KeyRow, SnapshotRow, StreamVersion

PARTITIONS = 16
PLACE_BYTES = 8


class PartitionedLog(Log):
    """Events, keys and snapshots under one prefix of a cluster.

    Args:
        partitions: how many a new log has; an old one keeps its number.
    """

    views_apart = True

    def __init__(self, server: Cluster, *, ttl_s: float | None = None, partitions: int | None = None) -> None:
        super().__init__(server, server.keys, ttl_s=ttl_s)
        prefix = server.keys.prefix
        self._moved = f"{prefix}{{log}}:moved".encode()
        number = f"{prefix}{{log}}:partitions".encode()
        if not server.read_only:
            server.write("SETNX", number, partitions or PARTITIONS)
        n = int(server.read("GET", number) or partitions or PARTITIONS)
        if partitions not in (None, n):
            raise InvalidInput("partitions", f"this log has {n}; their number cannot be changed")
        self.parts = [Log(server, OneSlot(prefix, f"p{i}"), ttl_s=ttl_s) for i in range(n)]
        self.joint = Joint(server, f"{prefix}{{log}}:joint".encode(), self.parts, self.part)
        self.settle()

    def part(self, stream: str) -> int:
        """Return the number of a stream's partition."""
        return crc32(stream.encode()) % len(self.parts)

    def of(self, stream: str) -> Log:
        """Return the partition of a stream."""
        return self.parts[self.part(stream)]

    # --- reading ------------------------------------------------------------------------------------------------------

    def stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        rows = self.of(stream).stream(stream, after=after, upto=upto, desc=desc, limit=limit)
        with translating(self.server.name):
            positions = self._positions(self.part(stream), [row[0] for row in rows])
        return [(positions[row[0]], *row[1:]) for row in rows]

    def versions(self, wanted: Sequence[StreamVersion]) -> list[tuple[StreamVersion, StreamRow]]:
        """See ``Log``: of all partitions together, and then their positions."""
        found = [(at, self.part(at[0]), row) for at, row in super().versions(wanted)]
        noted = self.server.read_all([self._noted_at(part, row[0]) for _, part, row in found])
        with translating(self.server.name):
            positions = [
                int.from_bytes(told, "big") or self._positions(part, (row[0],))[row[0]]
                for told, (_, part, row) in zip(noted, found, strict=True)
            ]
        return [(at, (position, *row[1:])) for position, (at, _, row) in zip(positions, found, strict=True)]

    def select(self, after: int, upto: int | None, limit: int, topics: Sequence[str], prefix: str) -> list[LogRow]:
        """Return events in position order, see ``Recorder``; where sessions have expired, with what says so."""
        found = super().select(after, upto, limit, topics, prefix)
        if not found and self.expires:
            self.settle()
            found = super().select(after, upto, limit, topics, prefix)
        return found

    def keys_of(self, stream: str) -> Keys:
        """See ``Log``."""
        return self.of(stream).keys

    def position(self) -> int:
        """Return the position given last, after every event that is there has been given one."""
        self.settle()
        return super().position()

    def names(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return names of streams, see ``Recorder.streams``: of each partition as many."""
        found = merge(*(part.names(prefix, after, limit) for part in self.parts), key=str.encode)
        return list(islice(found, limit))

    def used(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """See ``Log``."""
        return self.of(stream).used(stream, keys)

    def all_used(self, stream: str) -> list[KeyRow]:
        """See ``Log``."""
        return self.of(stream).all_used(stream)

    def snapshot(self, stream: str) -> SnapshotRow | None:
        """See ``Log``."""
        return self.of(stream).snapshot(stream)

    def hold(self, stream: str, token: str, ms: int) -> None:
        """See ``Log``."""
        with self.joint.looked_at():
            self.of(stream).hold(stream, token, ms)

    # --- writing ------------------------------------------------------------------------------------------------------

    def let_go(self, streams: Iterable[str], token: str) -> None:
        """See ``Log``."""
        self.server.read_all([("ZREM", self.of(stream).keys.reading(stream), token) for stream in streams])

    def append(self, batches: Sequence[Batch], also: Also = NOTHING) -> list[int]:
        """Commit ``batches``, see ``Log``; of several partitions, see joint.py."""
        shares: dict[int, list[Batch]] = {}
        for batch in batches:
            shares.setdefault(self.part(batch.stream), []).append(batch)
        others = [stream for stream in also.read if self.part(stream) not in shares]
        if others and monotonic() - also.since > HOLD_S / 2:
            raise Undone from TimeoutError("what was decided by may be erased by now")
        with self.joint.looked_at():
            if len(shares) > 1:
                places = self.joint.append(batches, lambda part: self._share(part, also))
            else:
                places = {
                    part: self.parts[part].append(share, self._share(part, also)) for part, share in shares.items()
                }
        try:
            found = {part: self._given(part, places[part]) for part in shares}
            if others:  # whoever waits to erase those need not wait longer
                self.let_go(others, also.token)
        except NOT_TOLD as error:
            raise Lost from error
        placed = {part: iter(places[part]) for part in shares}
        parts = [self.part(batch.stream) for batch in batches]
        return [found[part].get(next(placed[part]), 0) for part in parts]

    def _share(self, part: int, also: Also) -> Also:
        read = tuple(stream for stream in also.read if self.part(stream) == part)
        return Also(token=also.token if read else "", read=read)

    def _given(self, part: int, places: Sequence[int]) -> dict[int, int]:
        """Have positions given up to the last of these places, and return those of all."""
        wanted = [place for place in places if place]
        if not wanted:
            return {}
        self._move(part)
        return self._positions(part, wanted)

    def settle(self) -> None:
        """Give positions to whatever has none, and write what was decided: what a writer left who died."""
        asked = [("HGETALL", self.joint.key), ("HGETALL", self._moved)]
        notes, moved, *heads = self.server.read_all([*asked, *(("GET", part.keys.head) for part in self.parts)])
        if notes and not self.server.read_only:
            with translating(self.server.name):
                self.joint.end(notes)
            heads = self.server.read_all([("GET", part.keys.head) for part in self.parts])
        known = dict(zip(map(int, moved[::2]), map(int, moved[1::2]), strict=True))
        behind = [part for part, head in enumerate(heads) if int(head or 0) > known.get(part, 0)]
        if not self.server.read_only:
            with translating(self.server.name):
                for part in behind:
                    self._move(part)

    def _move(self, part: int) -> None:
        """Give positions to the events of a partition that have none, and note them there.

        Raises:
            Cut, Unsent.
        """
        moved = int(self.server.read("HGET", self._moved, part) or 0)
        while pointers := list(islice(self.parts[part].pointers(moved), PAGE)):
            arguments: list[bytes | str | int] = [part, moved, len(pointers)]
            for pointer in pointers:
                expired = "" if pointer.expired_at is None else pointer.expired_at
                arguments += (pointer.position, pointer.stream, pointer.version, pointer.topic, expired)
            answer: Any = self.server.run(ORDER, (self.keys.head, self.keys.order, self._moved), arguments)
            if isinstance(answer, int):
                self._note(part, {pointer.position: answer + i for i, pointer in enumerate(pointers)})
                moved = pointers[-1].position
            else:
                moved = int(answer)

    def _note(self, part: int, positions: dict[int, int]) -> None:
        """Note positions in their partition: one long text, eight bytes for each of its events."""
        runs: list[tuple[int, bytearray]] = []
        for place, position in sorted(positions.items()):
            if not runs or runs[-1][0] + len(runs[-1][1]) // PLACE_BYTES != place:
                runs.append((place, bytearray()))
            runs[-1][1].extend(position.to_bytes(PLACE_BYTES, "big"))
        key = self._places(part)
        self.server.read_all([("SETRANGE", key, place * PLACE_BYTES, bytes(noted)) for place, noted in runs])

    def _positions(self, part: int, places: Sequence[int]) -> dict[int, int]:
        """Return the positions of events, by their places in a partition; those not noted are found in the order."""
        found = self._noted(part, places)
        if missing := [place for place in places if not found[place]]:
            self._move(part)
            found |= self._noted(part, missing)
            if lost := {place for place in missing if not found[place]}:
                again = self._in_order(part, lost)
                self._note(part, again)
                found |= again
        return found

    def _noted(self, part: int, places: Sequence[int]) -> dict[int, int]:
        if not places:
            return {}
        key, low, high = self._places(part), min(places), max(places)
        if high - low < 2 * len(places) + PAGE:
            (noted,) = self.server.read_all([("GETRANGE", key, low * PLACE_BYTES, (high + 1) * PLACE_BYTES - 1)])
            parts = [noted[(place - low) * PLACE_BYTES : (place - low + 1) * PLACE_BYTES] for place in places]
        else:
            parts = self.server.read_all([self._noted_at(part, place) for place in places])
        return {place: int.from_bytes(each, "big") for place, each in zip(places, parts, strict=True)}

    def _noted_at(self, part: int, place: int) -> Command:
        return ("GETRANGE", self._places(part), place * PLACE_BYTES, (place + 1) * PLACE_BYTES - 1)

    def _in_order(self, part: int, missing: set[int]) -> dict[int, int]:
        """Return the positions of events of a partition by looking through the order, from its end."""
        found: dict[int, int] = {}
        for pointer in self._backwards():
            if pointer.part == part and pointer.place in missing:
                found[pointer.place] = pointer.position
                if len(found) == len(missing):
                    return found
        raise CorruptLog(f"partition {part} has events that the order of the log does not have")

    def _backwards(self) -> Iterator[Pointer]:
        end = "+"
        while entries := self.server.read("XREVRANGE", self.keys.order, end, "-", "COUNT", PAGE):
            yield from map(pointer_of, entries)
            end = b"(" + entries[-1][0]

    def _places(self, part: int) -> bytes:
        return self.parts[part].keys.head + b":places"

    # --- expiring -----------------------------------------------------------------------------------------------------

    def look_for_lives(self) -> None:
        """See ``Log``."""
        for part in self.parts:
            part.look_for_lives()
        self.expires = any(part.expires for part in self.parts)
        for part in self.parts:
            part.expires = self.expires

    def overdue(self, limit: int) -> list[str]:
        """See ``Log``."""
        return [stream for part in self.parts for stream in part.overdue(limit)][:limit]

    def sweep(self, stream: str, also: Also = NOTHING) -> bool:  # noqa: ARG002 - views are elsewhere, see writing.py
        """See ``Log``."""
        try:
            with self.joint.looked_at():
                return self.of(stream).sweep(stream)
        except Undone:
            return False
