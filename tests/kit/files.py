"""A log in a directory of files: the example of docs/adapters.md, which shows all of this, part by part.

Atomicity: an append is one line; one that does not end was never acknowledged, and the next writer cuts it off.
Order: positions are those of the lines, written under a lock. Durability: ``full`` is an fsync before the answer.
"""

import fcntl
import os
import threading
from bisect import bisect_right, insort
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec

import turnlog
from turnlog import ConcurrencyConflict, CorruptLog, OutcomeUnknown, StoreUnavailable
from turnlog.adapters import process_fork
from turnlog.adapters.following import News
from turnlog.domain.envelope import erase
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, SnapshotRow, StreamVersion
from turnlog.domain.typed import decoder


class Line(msgspec.Struct, omit_defaults=True):
    """What one append wrote; ``first`` is the position of its first row."""

    first: int
    rows: list[tuple[str, int, str, bytes]] = []
    keys: list[tuple[str, KeyRow]] = []
    snapshots: list[tuple[str, SnapshotRow]] = []
    erased: list[str] = []
    tracking: tuple[str, int] | None = None


def encode(line: Line, size: int = 0) -> bytes:
    """Return a line with its checksum, its JSON padded with blanks to ``size``."""
    body = msgspec.json.encode(line).ljust(size)
    return b"%08x %b\n" % (crc32(body), body)


def decode(raw: bytes, place: str) -> Line:
    """Read a line."""
    checksum, _, body = raw.removesuffix(b"\n").partition(b" ")
    if checksum != b"%08x" % crc32(body):
        raise CorruptLog(f"{place}: a line does not match its checksum")
    return decoder(Line)(body)


def without(line: Line, streams: set[str]) -> Line:
    """Return the line without what it holds of erased streams; places and headers stay."""
    return Line(
        first=line.first,
        rows=[(s, version, topic, erase(state) if s in streams else state) for s, version, topic, state in line.rows],
        keys=[(stream, key) for stream, key in line.keys if stream not in streams],
        snapshots=[(stream, snapshot) for stream, snapshot in line.snapshots if stream not in streams],
        erased=line.erased,
        tracking=line.tracking,
    )


class Contents:
    """All that the lines say, in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, str, bytes]] = []
        self.streams: dict[str, list[tuple[int, int]]] = {}  # (version, position), sorted
        self.keys: dict[str, dict[tuple[str, str], KeyRow]] = {}
        self.snapshots: dict[str, SnapshotRow] = {}
        self.tracked: dict[str, int] = {}
        self.segments: dict[str, set[Path]] = {}  # which files hold something of a stream
        self.unwiped: set[str] = set()  # erased, but their content may still be in those files

    def apply(self, line: Line, segment: Path) -> None:
        """Take in one line."""
        if line.first != len(self.rows) + 1:
            raise CorruptLog(f"{segment}: positions go on at {line.first}, expected {len(self.rows) + 1}")
        for row in line.rows:
            self.rows.append(row)
            insort(self.streams.setdefault(row[0], []), (row[1], len(self.rows)))
        for stream, key in line.keys:
            self.keys.setdefault(stream, {})[key.kind, key.key] = key
        self.snapshots.update(line.snapshots)
        for stream in [row[0] for row in line.rows] + [stream for stream, _ in line.keys + line.snapshots]:
            self.segments.setdefault(stream, set()).add(segment)
        for stream in line.erased:
            self.erase(stream)
        if line.tracking is not None:
            self.tracked[line.tracking[0]] = line.tracking[1]

    def erase(self, stream: str) -> None:
        """Forget what a stream holds."""
        for _, position in self.streams.get(stream, ()):
            name, version, topic, state = self.rows[position - 1]
            self.rows[position - 1] = (name, version, topic, erase(state))
        self.keys.pop(stream, None)
        self.snapshots.pop(stream, None)
        self.unwiped.add(stream)

    def last(self, stream: str) -> int:
        """Return a stream's last version."""
        return self.streams[stream][-1][0] if stream in self.streams else 0


def wiped_line(raw: bytes, streams: set[str], path: Path) -> bytes:
    """Return a stored line of the same length without what it holds of these streams."""
    size = len(raw.removesuffix(b"\n").partition(b" ")[2])
    return encode(without(decode(raw, str(path)), streams), size)


def write(file: int, data: bytes, at: int) -> None:
    """Write all of it at this place."""
    while data:
        n = os.pwrite(file, data, at)
        data, at = data[n:], at + n


@contextmanager
def translating() -> Generator[None, None, None]:
    """Raise the operating system's errors as turnlog's."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"the directory of the log: {error}") from error


class Folder:
    """The files, and what was read of them. Only who holds the lock writes: a line, at the end of the last segment."""

    def __init__(self, path: Path, *, durability: str, segment_bytes: int) -> None:
        self.path = path
        self.durability = durability
        self.is_closed = False
        self._segment_bytes = segment_bytes
        self._begin()
        process_fork.watch(self)
        with translating():
            path.mkdir(parents=True, exist_ok=True)
        with self.writing():
            pass  # what a dead writer left half done is done

    def _begin(self) -> None:
        self._contents = Contents()
        self._number, self._end = 1, 0  # of the segment that is being read, and how far
        self._mutex, self._reading = threading.Lock(), threading.Lock()

    def before_fork(self) -> None:
        """Let a writer end, or the child would inherit the lock's file, and hold the lock as long as it lives."""
        self._is_at_rest = self._mutex.acquire(timeout=5)

    def after_fork(self, *, child: bool) -> None:
        """Go on; in the child from the beginning: another thread may have been in the midst of reading."""
        if child:
            self._begin()
        elif self._is_at_rest:
            self._mutex.release()

    @contextmanager
    def now(self) -> Generator[Contents, None, None]:
        """Lend the contents, with everything in them that was written until now."""
        with self._reading, translating():
            if self.is_closed:
                raise StoreUnavailable("the log is closed")
            while self._read_on():
                self._number, self._end = self._number + 1, 0
            yield self._contents

    def _read_on(self) -> bool:
        """Take in the lines that the segment has got; return whether there is a next one."""
        path, is_full = self._segment(), self._segment(1).exists()
        if path.exists() and path.stat().st_size > self._end:
            with path.open("rb") as file:
                file.seek(self._end)
                for raw in file:
                    if not raw.endswith(b"\n"):  # it is being written, or its writer died
                        break
                    self._contents.apply(decode(raw, f"{path}, byte {self._end}"), path)
                    self._end += len(raw)
        return is_full

    @contextmanager
    def writing(self) -> Generator[Contents, None, None]:
        """Keep out other threads and other processes; the contents change by ``add`` only."""
        with translating(), self._mutex, self._locked():
            with self.now() as contents:
                path = self._segment()
                if path.exists() and path.stat().st_size > self._end:
                    os.truncate(path, self._end)  # a line without an end: its writer died, and told nobody of it
                self._wipe(contents)
            yield contents

    @contextmanager
    def _locked(self) -> Generator[None, None, None]:
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)  # which lets go of it

    def add(self, line: Line) -> None:
        """Write a line, and read it like anybody else's."""
        path, end = (self._segment(1), 0) if self._end >= self._segment_bytes else (self._segment(), self._end)
        is_new = not path.exists()
        file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            try:
                write(file, encode(line), end)
            except OSError:
                os.ftruncate(file, end)
                raise
            self._sync(file, is_new=is_new)
        finally:
            os.close(file)
        with self.now() as contents:
            self._wipe(contents)

    def _wipe(self, contents: Contents) -> None:
        """Have the files hold nothing of erased streams. Lines keep their lengths: readers find their places again."""
        for path in {path for stream in contents.unwiped for path in contents.segments.get(stream, ())}:
            before = path.read_bytes()
            wiped = b"".join(wiped_line(raw, contents.unwiped, path) for raw in before.splitlines(keepends=True))
            if wiped != before:
                file = os.open(path.with_suffix(".new"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                try:
                    write(file, wiped, 0)
                    self._sync(file, is_new=False)
                    path.with_suffix(".new").replace(path)  # all of it, or nothing
                    self._sync(file, is_new=True)
                finally:
                    os.close(file)
        contents.unwiped.clear()

    def _segment(self, after: int = 0) -> Path:
        return self.path / f"{self._number + after:08}.log"

    def _sync(self, file: int, *, is_new: bool) -> None:
        if self.durability != "full":
            return
        try:
            os.fsync(file)
            if is_new:  # a file that no directory names is lost
                directory = os.open(self.path, os.O_RDONLY)
                os.fsync(directory)
                os.close(directory)
        except OSError as error:
            raise OutcomeUnknown(f"{self.path} was written, but not synced: {error}") from error


def version_of(place: tuple[int, int]) -> int:
    """Return the version of an entry of ``Contents.streams``."""
    return place[0]


def fits(now: Contents, batch: Batch) -> bool:
    """Return whether versions and keys of a batch are free."""
    used = now.keys.get(batch.stream, {})
    is_free = not batch.rows or batch.rows[0][0] > now.last(batch.stream)
    return is_free and not any((key.kind, key.key) in used for key in batch.keys)


def line_of(batches: Sequence[Batch], first: int) -> Line:
    """Return the line of an append; what it erases it does not hold."""
    erased = [batch.stream for batch in batches if batch.erase]
    line = Line(
        first=first,
        rows=[(batch.stream, *row) for batch in batches for row in batch.rows],
        keys=[(batch.stream, key) for batch in batches for key in batch.keys],
        snapshots=[(batch.stream, batch.snapshot) for batch in batches if batch.snapshot is not None],
        erased=erased,
    )
    return without(line, set(erased))


class FileRecorder:
    """turnlog's recorder on such a folder. Everything is held in memory; each answer reads first what was added."""

    expires = False

    def __init__(self, path: str | Path, *, durability: str = "full", segment_bytes: int = 1 << 20) -> None:
        self.durability = durability
        self.folder = Folder(Path(path), durability=durability, segment_bytes=segment_bytes)
        self._news = News(poll_s=0.02)

    # --- reading ---

    def select_stream(
        self, stream: str, *, after: int = 0, upto: int | None = None, desc: bool = False, limit: int | None = None
    ) -> list[StreamRow]:
        """Return events of one stream."""
        with self.folder.now() as now:
            places = now.streams.get(stream, [])
            low = bisect_right(places, after, key=version_of)
            high = len(places) if upto is None else bisect_right(places, upto, key=version_of)
            found = places[low:high][:: -1 if desc else 1][:limit]
            return [(position, *now.rows[position - 1][1:]) for _, position in found]

    def select_log(
        self, *, after: int = 0, upto: int | None = None, limit: int, topics: Sequence[str] = (), prefix: str = ""
    ) -> list[LogRow]:
        """Return events of the log."""
        with self.folder.now() as now:
            end = len(now.rows) if upto is None else min(upto, len(now.rows))
            rows = ((n, *now.rows[n - 1]) for n in range(max(after, 0) + 1, end + 1))
            wanted = (row for row in rows if (not topics or row[3] in topics) and row[1].startswith(prefix))
            return list(islice(wanted, limit))

    def select_versions(self, wanted: Sequence[StreamVersion]) -> dict[StreamVersion, StreamRow]:
        """Return events of any streams."""
        return {(s, v): row for s, v in wanted for row in self.select_stream(s, after=v - 1, upto=v)}

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used."""
        with self.folder.now() as now:
            used = now.keys.get(stream, {})
            return [used[key] for key in keys if key in used]

    def select_all_keys(self, stream: str) -> list[KeyRow]:
        """Return all of them."""
        with self.folder.now() as now:
            return list(now.keys.get(stream, {}).values())

    def select_snapshot(self, stream: str) -> SnapshotRow | None:
        """Return the newest snapshot."""
        with self.folder.now() as now:
            return now.snapshots.get(stream)

    def streams(self, *, prefix: str, after: str = "", limit: int) -> list[str]:
        """Return names of streams."""
        with self.folder.now() as now:
            return sorted(name for name in now.streams if name.startswith(prefix) and name > after)[:limit]

    def position(self) -> int:
        """Return the position of the newest event."""
        with self.folder.now() as now:
            return len(now.rows)

    def visible(self, *, limit: int) -> list[str] | None:  # noqa: ARG002 - the port's
        """Return nothing: what can be read has its place."""
        return []

    # --- writing ---

    def append(self, batches: Sequence[Batch], again: Again) -> list[int]:
        """Commit the batches."""
        with self.folder.writing() as now:
            if not batches or not all(fits(now, batch) for batch in batches):
                batches = again(self)
                if not all(fits(now, batch) for batch in batches):
                    raise ConcurrencyConflict("a version or key of what was to be appended is taken")
            line = line_of(batches, len(now.rows) + 1)
            if line != Line(first=line.first):
                self.folder.add(line)
            ends = [now.streams[batch.stream][-1][1] if batch.rows else 0 for batch in batches]
        self.tell()
        return ends

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait for an event: woken by this process's own, looking every 20 ms for those of others."""
        return self._news.wait(lambda: self.position() > after, timeout_s)

    def tell(self) -> None:
        """Wake those who wait."""
        self._news.tell()

    def check(self) -> list[str]:
        """Read every file once more, from the disk."""
        try:
            FileRecorder(self.folder.path, durability=self.durability).close()
        except CorruptLog as error:
            return [str(error)]
        return []

    def size_bytes(self) -> int | None:
        """Return the size of all segments."""
        return sum(path.stat().st_size for path in self.folder.path.glob("*.log"))

    def lingering(self) -> list[str]:
        """Say where erased bytes may be."""
        return ["blocks that the file system has freed, until it uses them again"]

    def scrub(self, *, vacuum: bool) -> list[str]:  # noqa: ARG002 - the port's
        """Do what a writer who died had left to do; what the file system has freed is out of reach."""
        with self.folder.writing():
            return self.lingering()

    def close(self) -> None:
        """Refuse further use."""
        self.folder.is_closed = True


def opened(url: str, *, durability: str, options: dict[str, Any]) -> turnlog.Backend:
    """Open ``files:///path/to/folder``: what the entry point names."""
    folder = url.removeprefix("files://")
    return turnlog.Backend(FileRecorder(folder, durability=durability), name="files")
