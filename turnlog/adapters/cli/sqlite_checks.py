"""What ``doctor`` looks at in a SQLite store: the library, the file, the disk under it. Reads and measures only."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from time import perf_counter

from turnlog.adapters.cli.findings import SYNCS, TOO_FAST_S, Finding, judged, size

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]  # asked for before it is used

OLDEST = (3, 35, 0)
WAL_RESET_FIXED = (3, 51, 3)
WAL_RESET_BACKPORTS = {(3, 44): 6, (3, 50): 7}
"""https://sqlite.org/wal.html#walresetbug: 3.7.0 to 3.51.2, but for these patch releases."""
NETWORK = frozenset(
    {"9p", "afs", "ceph", "cifs", "drvfs", "glusterfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "sshfs"}
)
"""Types in /proc/self/mountinfo, ``fuse.`` left out; 9p and drvfs are folders that a virtual machine shares."""
VOLATILE = frozenset({"tmpfs", "ramfs"})
LARGE_WAL_BYTES = 64 * 2**20
LITTLE_SPACE_BYTES = 256 * 2**20
SERIALIZED = 3
"""sqlite3.threadsafety: connections may be shared between threads."""
SYNCHRONOUS = {0: ("OFF", "none"), 1: ("NORMAL", "normal"), 2: ("FULL", "full"), 3: ("EXTRA", "full")}
SURVIVES = {
    "full": "an acknowledged event survives power loss, if the disk keeps its word",
    "normal": "an acknowledged event survives the end of the process, not power loss",
    "none": "nothing is promised",
}


def findings(path: str, connection: sqlite3.Connection, synchronous: int, durability: str) -> Iterator[Finding]:
    """Yield what there is to say of the database at ``path``.

    ``connection`` reads it; ``synchronous`` is the writing connection's setting, ``durability`` what it was opened for.
    """
    yield from _library()
    yield from _journal(connection, synchronous, durability)
    yield on_file_system(file_system_of(path))
    yield _synced_write(path)
    yield _lock_file(path)
    yield _space(path)
    yield _log_size(path)
    yield _free_pages(connection)
    yield _integrity(connection)


def not_writable(path: Path) -> Iterator[Finding]:
    """Yield what of the database cannot be written to; a store is not opened then, not even to read."""
    for name, place in (("file", path), ("directory", path.absolute().parent)):
        if not os.access(place, os.W_OK):
            yield Finding("bad", name, f"{place} is read-only for this user; turnlog keeps files beside the database")


def _library() -> Iterator[Finding]:
    good = sqlite3.sqlite_version_info >= OLDEST
    yield judged("SQLite", sqlite3.sqlite_version + ("" if good else ", needs 3.35 or newer"), good=good)
    yield wal_reset_bug(sqlite3.sqlite_version_info)
    if sqlite3.threadsafety != SERIALIZED:
        yield Finding("bad", "threads", f"SQLite was built with thread safety {sqlite3.threadsafety}, not serialized")


def wal_reset_bug(version: tuple[int, int, int]) -> Finding:
    """Judge whether this SQLite can damage a database that several connections write and checkpoint."""
    if version >= WAL_RESET_FIXED or version[2] >= WAL_RESET_BACKPORTS.get(version[:2], version[2] + 1):
        return Finding("ok", "WAL-reset bug", "fixed in this SQLite")
    advice = "turnlog keeps clear of it (checkpoints only under its lock); let no other program write to the file"
    return Finding("warning", "WAL-reset bug", f"this SQLite has it (fixed in 3.51.3): {advice}")


def _journal(connection: sqlite3.Connection, synchronous: int, durability: str) -> Iterator[Finding]:
    mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
    yield judged("journal mode", mode, good=mode == "wal")
    name, reached = SYNCHRONOUS.get(synchronous, (str(synchronous), "none"))
    words = f"{reached} (synchronous={name}): {SURVIVES[reached]}"
    yield judged("durability", words, good=reached == durability)


def on_file_system(kind: str | None) -> Finding:
    """Judge the type of file system that a database lies on."""
    if kind is None:
        return Finding("ok", "file system", "cannot be told on this system")
    if kind.removeprefix("fuse.") in NETWORK:
        return Finding("bad", "file system", f"{kind}: a network file system; SQLite's locks are not safe there")
    if kind in VOLATILE:
        return Finding("warning", "file system", f"{kind}: in memory, gone with the machine whatever the durability")
    return Finding("ok", "file system", kind)


def file_system_of(path: str, mounts: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the type of the file system that holds ``path``; ``None`` where the system does not say."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = Path(path).resolve()
    best: tuple[int, str] | None = None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        if place.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), after.split()[0])
    return None if best is None else best[1]


def _synced_write(path: str) -> Finding:
    """Measure what one durable commit waits for: 4 KiB written beside the database and synced."""
    try:
        with tempfile.NamedTemporaryFile(dir=Path(path).parent, prefix=".turnlog-doctor-") as file:
            took = median(_sync_once(file.fileno()) for _ in range(SYNCS))
    except OSError as error:
        return Finding("warning", "one synced write", f"cannot be measured: {error.strerror}")
    return synced_in(took)


def _sync_once(descriptor: int) -> float:
    began = perf_counter()
    os.write(descriptor, bytes(4096))
    os.fsync(descriptor)
    return perf_counter() - began


def synced_in(took_s: float) -> Finding:
    """Judge how long one synced write took."""
    words = f"{took_s * 1000:.3f} ms (median of {SYNCS})"
    if took_s < TOO_FAST_S:
        return Finding("warning", "one synced write", f"{words}: too fast for a disk; it may not survive power loss")
    return Finding("ok", "one synced write", words)


def _lock_file(path: str) -> Finding:
    lock = f"{path}.lock"
    if fcntl is None:
        return Finding("warning", "lock file", "not on this system: processes take turns less fairly")
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        return Finding("ok", "lock file", f"{lock}: made with the first write")
    except OSError as error:
        return Finding("bad", "lock file", f"{lock}: cannot be opened: {error.strerror}")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return Finding("ok", "lock file", f"{lock}: somebody is writing now")
    except OSError as error:
        return Finding("warning", "lock file", f"{lock}: locks do not work here ({error.strerror})")
    finally:
        os.close(descriptor)
    return Finding("ok", "lock file", f"{lock}: free")


def _space(path: str) -> Finding:
    free = shutil.disk_usage(Path(path).parent).free
    return Finding("warning" if free < LITTLE_SPACE_BYTES else "ok", "free disk space", size(free))


def _log_size(path: str) -> Finding:
    log = Path(f"{path}-wal")
    used = log.stat().st_size if log.exists() else 0
    if used < LARGE_WAL_BYTES:
        return Finding("ok", "write-ahead log", size(used))
    return Finding("warning", "write-ahead log", f"{size(used)}: an open reader keeps it from shrinking")


def _free_pages(connection: sqlite3.Connection) -> Finding:
    free, page = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size"))
    return Finding("ok", "free space in the file", size(free * page))


def _integrity(connection: sqlite3.Connection) -> Finding:
    rows = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(5)")]
    return judged("integrity", "; ".join(rows), good=rows == ["ok"])
