"""The log as Redis has it: one stream of events a session, and one that says in which order they came.

An event's place in a Redis stream is its version (``VERSION-1``), or its position (``POSITION-1``): the last N of a
session are read from its end, without the rest. The script append.lua is the only one that writes.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple, cast

import msgspec

from turnlog.adapters.attempt import Broken, Lost, Taken, Undone
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.keys import Keys
from turnlog.adapters.redis.scripts import APPEND, HOLD, OVERDUE, SWEEP
from turnlog.adapters.redis.server import Server
from turnlog.adapters.redis.wire import Command, Cut, Unsent
from turnlog.adapters.sealed import sealed_key, sealed_snapshot
from turnlog.domain.chain import row_seal
from turnlog.domain.envelope import FORMAT, Header
from turnlog.domain.errors import CorruptLog
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import Batch, KeyRow, SnapshotRow, StreamVersion
from turnlog.projections.session_index import moment

PAGE = 1_000
"""Entries of the order that are looked through at a time, and events that are asked for in one packet."""
HOLD_S = 10.0
"""For so long what somebody decides by is kept from being erased."""
EXPIRED = "expired"
"""Stands for the id of the event that no session has said: that it has expired."""
_NOTHING_OF_VIEWS: tuple[bytes | str | int, ...] = (0,)


class Also(NamedTuple):
    """What else belongs to an append.

    ``lease`` of the views, if ``views`` holds what is to be written there; ``token`` of who has decided by what he read
    in ``read``; what a process recorder has ``tracked``: an application and a position; ``step`` and id of the
    ``joint`` append that it is a part of, see joint.py; how long sessions live, where the log is not to say it.
    """

    lease: bytes = b""
    views: Sequence[bytes | str | int] = _NOTHING_OF_VIEWS
    token: str = ""
    read: Sequence[str] = ()
    tracked: tuple[str, int] | None = None
    step: str = ""
    joint: str = ""
    ttl: bytes | int | None = None
    since: float = 0.0
    """When the reading began, by ``monotonic``."""


NOTHING = Also()


class Pointer(NamedTuple):
    """An entry of the order: which event is at a position."""

    position: int
    stream: str
    version: int
    topic: str
    expired_at: int | None = None
    """In milliseconds since 1970: it is no event, but says that the session has expired."""
    part: int = 0
    place: int = 0
    """What the event itself has for a position: that in its partition, where there are some."""


class Log:
    """Events, keys and snapshots under one prefix."""

    views_apart = False
    """Whether views cannot be written by the script that appends."""

    def __init__(self, server: Server | Cluster, keys: Keys, *, ttl_s: float | None = None) -> None:
        self.server = server
        self.keys = keys
        self.ttl: bytes | int = b"" if ttl_s is None else max(1, round(ttl_s * 1000))
        self.expires = ttl_s is not None
        """Whether sessions may: it takes another look with each read."""

    # --- reading ------------------------------------------------------------------------------------------------------

    def stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        first = max(after + 1, 0)
        if limit == 0 or (upto is not None and upto < first):
            return []
        bounds = (f"{first}-0", "+" if upto is None else f"{upto}-2")
        counted = () if limit is None else ("COUNT", limit)
        command = ("XREVRANGE", bounds[1], bounds[0]) if desc else ("XRANGE", *bounds)
        entries = self._of(stream, (command[0], self.keys.events(stream), *command[1:], *counted))
        return [_row(entry) for entry in entries or ()]

    def versions(self, wanted: Sequence[StreamVersion]) -> list[tuple[StreamVersion, StreamRow]]:
        """Return events of any streams, asked for in one packet."""
        commands = [(name, ("XRANGE", self.keys_of(name).events(name), f"{v}-0", f"{v}-2")) for name, v in wanted]
        answers = zip(wanted, self._of_all(commands), strict=True)
        return [(at, _row(entry)) for at, entries in answers for entry in entries or ()]

    def select(self, after: int, upto: int | None, limit: int, topics: Sequence[str], prefix: str) -> list[LogRow]:
        """Return events in position order, see ``Recorder``."""
        wanted, known = self.pointers(max(after, 0), upto, prefix), frozenset(topics)
        if known:
            wanted = (pointer for pointer in wanted if pointer.topic in known)
        found: list[LogRow] = []
        while len(found) < limit and (page := list(islice(wanted, min(PAGE, limit - len(found))))):
            found += self._events(page)
        return found

    def pointers(self, after: int, upto: int | None = None, prefix: str = "") -> Iterator[Pointer]:
        """Yield entries of the order above ``after``."""
        end = "+" if upto is None else f"{upto}-2"
        while upto is None or after < upto:
            entries = self.server.read("XRANGE", self.keys.order, f"{after + 1}-0", end, "COUNT", PAGE)
            for entry in entries:
                pointer = pointer_of(entry)
                if pointer.stream.startswith(prefix):
                    yield pointer
            if len(entries) < PAGE:
                return
            after = _number(entries[-1][0])

    def _events(self, page: Sequence[Pointer]) -> Iterator[LogRow]:
        """Read the events of pointers: those that follow one another in one stream together."""
        runs = [list(run) for _, run in groupby(enumerate(page), lambda at: (at[1].stream, at[1].version - at[0]))]
        commands = [
            ("XRANGE", self.keys_of(one.stream).events(one.stream), f"{one.version}-0", f"{run[-1][1].version}-2")
            for run in runs
            for _, one in run[:1]
        ]
        for run, entries in zip(runs, self.server.read_all(commands) if commands else (), strict=True):
            rows = {row[1]: row for row in map(_row, entries)}
            for _, pointer in run:
                row = rows.get(pointer.version)
                if pointer.expired_at is not None:
                    yield tombstone(pointer)
                elif row is not None and row[0] == pointer.place:
                    yield (pointer.position, pointer.stream, *row[1:])

    def keys_of(self, stream: str) -> Keys:  # noqa: ARG002 - a partition has its own
        """Return the names of the keys where a stream is."""
        return self.keys

    def hold(self, stream: str, token: str, ms: int) -> None:
        """Note that somebody decides by what he reads in a stream.

        Raises:
            Cut, Unsent. Reserved: somebody is going to write to it.
        """
        raise_reserved(self.server.run(HOLD, (self.keys.reading(stream), self.keys.reserved), (stream, token, ms)))

    def let_go(self, streams: Iterable[str], token: str) -> None:
        """Note that he decides by them no longer."""
        self.server.read_all([("ZREM", self.keys.reading(stream), token) for stream in streams])

    def position(self) -> int:
        """Return the position given last, 0 if none was."""
        return int(self.server.read("GET", self.keys.head) or 0)

    def wait(self, after: int, timeout_s: float) -> bool:
        """Wait for an event above ``after``; return whether there is one."""
        milliseconds = max(1, round(timeout_s * 1000))
        last = f"{after}-{(1 << 64) - 1}"
        return bool(self.server.wait(("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", self.keys.order, last)))

    def names(self, prefix: str, after: str, limit: int) -> list[str]:
        """Return names of streams, see ``Recorder.streams``: a step in a sorted set, however many there are."""
        low = f"({after}" if after >= prefix and after else f"[{prefix}"
        high = b"+" if not prefix else b"(" + _above(prefix.encode())
        found = self.server.read("ZRANGE", self.keys.names, low, high, "BYLEX", "LIMIT", 0, limit)
        return [name.decode() for name in found]

    def used(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, in the order in which they are given."""
        pairs = list(dict.fromkeys(keys))
        if not pairs:
            return []
        values = self._of(stream, ("HMGET", self.keys.keys(stream), *(_field(*pair) for pair in pairs)))
        found = zip(pairs, values or [None] * len(pairs), strict=True)
        return [_key(stream, *pair, value) for pair, value in found if value is not None]

    def all_used(self, stream: str) -> list[KeyRow]:
        """Return every key of a stream."""
        answer: list[bytes] = self._of(stream, ("HGETALL", self.keys.keys(stream))) or []
        rows = [
            _key(stream, kind, key, value)
            for field, value in zip(answer[::2], answer[1::2], strict=True)
            for kind, _, key in (field.decode().partition("\0"),)
        ]
        return sorted(rows, key=lambda row: (row.version, row.kind, row.key))

    def snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the stream's snapshot; a damaged one is as good as none."""
        stored = self._of(stream, ("GET", self.keys.snapshot(stream)))
        try:
            row = None if stored is None else msgspec.msgpack.decode(stored, type=tuple[int, int, bytes, bytes, bytes])
        except msgspec.MsgspecError:
            return None
        return sealed_snapshot(stream, row)

    def _of(self, stream: str, command: Command) -> Any:
        """Return what a command reads of a stream, see ``_of_all``."""
        return self._of_all(((stream, command),))[0]

    def _of_all(self, asked: Sequence[tuple[str, Command]]) -> list[Any]:
        """Return what commands read of streams, ``None`` where a stream's time is over though it was not ended yet."""
        commands = [command for _, command in asked]
        if not self.expires:
            return self.server.read_all(commands)
        deadlines = [("ZSCORE", self.keys_of(stream).deadlines, stream) for stream, _ in asked]
        told, *answers = self.server.read_all((("TIME",), *deadlines, *commands))
        now_ms = 1000 * int(told[0]) + int(told[1]) // 1000
        pairs = zip(answers[: len(asked)], answers[len(asked) :], strict=True)
        return [answer if deadline is None or float(deadline) > now_ms else None for deadline, answer in pairs]

    # --- appending ----------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[Batch], also: Also = NOTHING) -> list[int]:
        """Commit ``batches``, all or none, in one round trip; return, per batch, the position of its last row.

        Raises:
            Taken: a version or key is taken. Undone: it is worth another try. Lost, Broken: see attempt.py.
            Settled: somebody else has written this part.
            CorruptLog: what is to be erased is no stored event.
        """
        self.server.require_writable()
        keys: list[bytes] = [*self.keys.shared()]
        arguments: list[bytes | str | int] = [also.lease, also.token, len(also.read)]
        arguments += (self.ttl if also.ttl is None else also.ttl, also.step, also.joint, len(batches))
        for batch in batches:
            keys += self.keys.of(batch.stream)
            arguments += _arguments(batch)
        keys += map(self.keys.reading, also.read)
        arguments += (b"",) if also.tracked is None else also.tracked
        arguments += also.views
        try:
            answer: Any = self.server.run(APPEND, keys, arguments)
        except Cut as error:
            raise Lost from error
        except Unsent as error:
            raise Broken from error
        return _positions(answer)

    # --- expiring -----------------------------------------------------------------------------------------------------

    def look_for_lives(self) -> None:
        """Look whether there are sessions that live for a time, also where this program gives none."""
        self.expires = self.expires or bool(self.server.read("EXISTS", self.keys.lives))

    def overdue(self, limit: int) -> list[str]:
        """Return the streams whose time is over."""
        return [name.decode() for name in self.server.read_script(OVERDUE, (self.keys.deadlines,), (limit,))]

    def sweep(self, stream: str, also: Also = NOTHING) -> bool:
        """End a stream whose time is over, with what views hold of it; return whether it is ended by now.

        Raises:
            Cut, Unsent. Reserved: somebody is going to write to it.
        """
        keys = (*self.keys.shared(), *self.keys.of(stream))
        answer = self.server.run(SWEEP, keys, (also.lease, stream, *also.views))
        raise_reserved(answer)
        return isinstance(answer, int) or answer == b"alive"


class Overdue(Undone):
    """A stream's time is over, and it was not ended yet."""


class Reserved(Undone):
    """A joint append is going to write to a stream: which, and the stream."""

    def __init__(self, joint: str, stream: str) -> None:
        super().__init__(joint, stream)
        self.joint, self.stream = joint, stream


class Settled(Exception):
    """What a joint append was going to write there was written by somebody else."""


class Refused(Exception):
    """What was tracked is not above what was recorded."""


def raise_reserved(answer: Any) -> None:
    """Raise ``Reserved`` where a script answers that a stream is."""
    if isinstance(answer, bytes) and answer.startswith(b"reserved "):
        raise Reserved(*answer.decode().split(" ", 2)[1:])


def _positions(answer: Any) -> list[int]:
    if isinstance(answer, list):
        return cast("list[int]", answer)
    raise_reserved(answer)
    word, _, where = answer.decode(errors="replace").partition(" ")
    match word:
        case "taken":
            raise Taken(where) from IntegrityError(f"already recorded: {where}")
        case "tracked":
            raise Refused
        case "corrupt":
            raise CorruptLog(f"the bytes are not a stored event: {where}")
        case "overdue":
            raise Overdue(where)
        case "settled":
            raise Settled
        case _:
            raise Undone from InterruptedError(f"{word} {where}")


class IntegrityError(Exception):
    """What every database's driver calls it when something is there already."""


def _arguments(batch: Batch) -> list[bytes | str | int]:
    snapshot = batch.snapshot
    given: list[bytes | str | int] = [batch.stream, int(batch.erase), len(batch.rows), len(batch.keys)]
    given.append(int(snapshot is not None))
    for row in batch.rows:
        given += row
    for key in batch.keys:
        given += (_field(key.kind, key.key), _value(batch.stream, key))
    if snapshot is not None:
        given.append(msgspec.msgpack.encode((*snapshot, row_seal(batch.stream, *snapshot))))
    return given


# --- row ↔ entry ------------------------------------------------------------------------------------------------------


def pointer_of(entry: Any) -> Pointer:
    """Return an entry of the order."""
    id_, (_, stream, _, version, _, topic, *more) = entry
    rest = dict(zip(more[::2], more[1::2], strict=True))
    position, expired_at = _number(id_), rest.get(b"x")
    return Pointer(
        position,
        stream.decode(),
        int(version),
        topic.decode(),
        None if expired_at is None else int(expired_at),
        int(rest.get(b"n", 0)),
        int(rest.get(b"q", position)),
    )


def tombstone(pointer: Pointer) -> LogRow:
    """Return what a follower sees where a session has expired: that it was deleted, with nothing that was in it."""
    header = Header(
        format=FORMAT,
        event_id=EXPIRED,
        version=pointer.version,
        topic=pointer.topic,
        recorded_at=moment(1000 * (pointer.expired_at or 0)),
        occurred_at=None,
        turn=(1, 1),
        previous=b"",
        commitment=b"",
        hash=b"",
    )
    state = b'{"header":' + msgspec.json.encode(header) + b',"private":null}'
    return (pointer.position, pointer.stream, pointer.version, pointer.topic, state)


def _number(id_: bytes) -> int:
    return int(id_.partition(b"-")[0])


def _row(entry: Any) -> StreamRow:
    id_, (_, position, _, topic, _, state) = entry
    return (int(position), _number(id_), topic.decode(), state)


def _field(kind: str, key: str) -> str:
    return f"{kind}\0{key}"


def _value(stream: str, key: KeyRow) -> bytes:
    return msgspec.msgpack.encode((key.version, key.fingerprint, row_seal(stream, *key)))


def _key(stream: str, kind: str, key: str, value: bytes) -> KeyRow:
    try:
        version, fingerprint, seal = msgspec.msgpack.decode(value, type=tuple[int, bytes, bytes])
    except msgspec.MsgspecError as error:
        raise CorruptLog(f"session {stream!r}: the row of key {kind} {key!r} is damaged") from error
    return sealed_key(stream, (kind, key, version, fingerprint, seal))


def _above(prefix: bytes) -> bytes:
    """Return what follows all that begins with ``prefix``, in the order of bytes."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))
