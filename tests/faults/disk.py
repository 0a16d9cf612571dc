"""A disk below SQLite that remembers every write, and can fail: a VFS around the one SQLite has, made with ctypes.

``Disk`` records what is written, cut, synced and deleted below one directory, while it is the default VFS of this
process, and asks ``fault`` before each. ``crashes`` makes the files as a power failure may leave them: what was synced
is there, and of what was not, any part in any order, torn into sectors. (A write that was not synced harms no bytes
beside it; SQLite supposes as much by itself.)
"""

import _sqlite3
import ctypes
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

SECTOR = 512
IOERR_WRITE, IOERR_FSYNC, FULL = 778, 1034, 13
_CREATE, _JOURNALS = 0x4, 0x800 | 0x4000 | 0x80000
_int, _pointer, _long = ctypes.c_int, ctypes.c_void_p, ctypes.c_int64


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods``."""

    _fields_ = [
        ("version", _int),
        ("close", ctypes.CFUNCTYPE(_int, _pointer)),
        ("read", _pointer),
        ("write", ctypes.CFUNCTYPE(_int, _pointer, _pointer, _int, _long)),
        ("truncate", ctypes.CFUNCTYPE(_int, _pointer, _long)),
        ("sync", ctypes.CFUNCTYPE(_int, _pointer, _int)),
        *[(f"other{i}", _pointer) for i in range(13)],
    ]


class _File(ctypes.Structure):
    """The beginning of ``sqlite3_file``."""

    _fields_ = [("methods", ctypes.POINTER(_Methods))]


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``."""

    _fields_ = [
        ("version", _int),
        ("file_size", _int),
        ("longest_path", _int),
        ("next", _pointer),
        ("name", ctypes.c_char_p),
        ("data", _pointer),
        ("open", ctypes.CFUNCTYPE(_int, _pointer, _pointer, _pointer, _int, _pointer)),
        ("delete", ctypes.CFUNCTYPE(_int, _pointer, ctypes.c_char_p, _int)),
        *[(f"other{i}", _pointer) for i in range(14)],
    ]


class Operation(NamedTuple):
    """What was done to a file: ``write``, ``truncate`` (to ``offset``), ``sync`` or ``delete``; ``mark`` is a note.

    A ``sync`` with ``offset`` 1 synced the directory too: the first of a journal that was opened to be created. A sync
    that failed is ``lost``: Linux forgets what it could not write, and the next sync succeeds without it.
    """

    kind: str
    path: str
    offset: int = 0
    data: bytes = b""


_kept: list[object] = []
"""What SQLite may still call, long after a test has ended."""


class Disk:
    """Use as a context manager, with no database of ``directory`` open before or after.

    Attributes:
        operations: what was done, in order.
        fault: asked before each operation; gives what SQLite is told instead of success (0: go on). With ``torn``, half
            of a write that fails is written.
    """

    def __init__(self, directory: Path) -> None:
        self.operations: list[Operation] = []
        self.fault: Callable[[Operation], int] = lambda _: 0
        self.torn = False
        self._directory = str(directory)
        self._paths: dict[int, str] = {}
        self._new_journals: set[int] = set()
        self._library = _library()
        self._under: Any = ctypes.cast(self._library.sqlite3_vfs_find(None), ctypes.POINTER(_Vfs)).contents
        self._vfs = _Vfs.from_buffer_copy(self._under)
        self._vfs.name = b"turnlog-disk"
        self._open = _Vfs._fields_[6][1](self._opened)
        self._delete = _Vfs._fields_[7][1](self._deleted)
        self._vfs.open, self._vfs.delete = self._open, self._delete
        self._methods: dict[int, tuple[_Methods, _Methods]] = {}
        _kept.append(self)

    def __enter__(self) -> Self:
        assert self._library.sqlite3_vfs_register(ctypes.byref(self._vfs), 1) == 0
        return self

    def __exit__(self, *_: object) -> None:
        self._library.sqlite3_vfs_unregister(ctypes.byref(self._vfs))

    def mark(self, note: int) -> None:
        """Note that something was acknowledged."""
        self.operations.append(Operation("mark", "", note))

    def _opened(self, _: int, name: int | None, file: int, flags: int, out: int) -> int:
        result = int(self._under.open(ctypes.addressof(self._under), name, file, flags, out))
        path = "" if name is None else ctypes.string_at(name).decode()  # SQLite itself keeps the name's address
        if result == 0 and path.startswith(self._directory):
            self._paths[file] = path
            if flags & _CREATE and flags & _JOURNALS:
                self._new_journals.add(file)
            opened = ctypes.cast(file, ctypes.POINTER(_File)).contents
            opened.methods = ctypes.pointer(self._around(opened.methods.contents))
        return result

    def _around(self, under: _Methods) -> _Methods:
        address = ctypes.addressof(under)
        if address not in self._methods:
            made = _Methods.from_buffer_copy(under)
            made.close = type(under.close)(partial(self._closed, under))
            made.write = type(under.write)(partial(self._written, under))
            made.truncate = type(under.truncate)(partial(self._truncated, under))
            made.sync = type(under.sync)(partial(self._synced, under))
            self._methods[address] = (under, made)
        return self._methods[address][1]

    def _closed(self, under: _Methods, file: int) -> int:
        self._paths.pop(file, None)
        self._new_journals.discard(file)
        return int(under.close(file))

    def _written(self, under: _Methods, file: int, data: int, size: int, offset: int) -> int:
        operation = Operation("write", self._paths[file], offset, ctypes.string_at(data, size))
        failed = self._failed(operation)
        if failed:
            if self.torn:
                under.write(file, data, size // 2, offset)
                self.operations.append(operation._replace(data=operation.data[: size // 2]))
            return failed
        return int(under.write(file, data, size, offset))

    def _truncated(self, under: _Methods, file: int, size: int) -> int:
        return self._failed(Operation("truncate", self._paths[file], size)) or int(under.truncate(file, size))

    def _synced(self, under: _Methods, file: int, flags: int) -> int:
        new = file in self._new_journals
        self._new_journals.discard(file)
        operation = Operation("sync", self._paths[file], int(new))
        failed = self._failed(operation)
        if failed:
            self.operations.append(operation._replace(kind="lost"))
        return failed or int(under.sync(file, flags))

    def _deleted(self, _: int, name: bytes, sync: int) -> int:
        path = name.decode()
        if path.startswith(self._directory):
            self.operations.append(Operation("delete", path))
            if sync & 1:
                self.operations.append(Operation("sync", path, 1))
        return int(self._under.delete(ctypes.addressof(self._under), name, sync))

    def _failed(self, operation: Operation) -> int:
        code = self.fault(operation)
        if code == 0:
            self.operations.append(operation)
        return code


class Crash(NamedTuple):
    """What lies on the disk after the power failed: ``files`` by path; ``noted`` is the last mark before it."""

    files: dict[str, bytes]
    noted: int


def crashes(operations: Sequence[Operation], before: dict[str, bytes], n: int, seed: int) -> Iterator[Crash]:
    """Yield ``n`` states that the disk may be in if the power fails at some instant; ``before`` is what it held."""
    dice = random.Random(seed)  # noqa: S311 - no secret
    instants = sorted(dice.randrange(len(operations) + 1) for _ in range(n))
    safe = {path: bytearray(data) for path, data in before.items()}
    pending: list[Operation] = []
    noted = done = 0
    for instant in instants:
        for operation in operations[done:instant]:
            match operation.kind:
                case "mark":
                    noted = operation.offset
                case "sync":
                    _apply(safe, [one for one in pending if _covers(operation, one)])
                    pending = [one for one in pending if not _covers(operation, one)]
                case "lost":
                    pending = [one for one in pending if one.path != operation.path]
                case _:
                    pending.append(operation)
        done = instant
        files = {path: bytearray(data) for path, data in safe.items()}
        _apply(files, _some(pending, dice))
        yield Crash({path: bytes(data) for path, data in files.items()}, noted)


def _covers(sync: Operation, one: Operation) -> bool:
    return one.path == sync.path or (sync.offset == 1 and one.kind == "delete")


def _some(pending: Sequence[Operation], dice: random.Random) -> Iterator[Operation]:
    """Yield those operations that reached the disk, some of them in part."""
    likely = dice.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    for operation in pending:
        if operation.kind != "write" or dice.random() < 0.7:
            if dice.random() < likely:
                yield operation
            continue
        for start in range(0, len(operation.data), SECTOR):
            if dice.random() < likely:
                part = operation.data[start : start + SECTOR]
                yield operation._replace(offset=operation.offset + start, data=part)


def _apply(files: dict[str, bytearray], operations: Sequence[Operation] | Iterator[Operation]) -> None:
    for kind, path, offset, data in operations:
        if kind == "delete":
            files.pop(path, None)
            continue
        file = files.setdefault(path, bytearray())
        if kind == "truncate":
            del file[offset:]
        else:
            file.extend(bytes(max(offset - len(file), 0)))
            file[offset : offset + len(data)] = data


def _library() -> Any:
    """Return the SQLite that Python's module uses.

    Raises:
        OSError: it is built into the module and cannot be reached.
    """
    library = ctypes.CDLL(_sqlite3.__file__)
    try:
        library.sqlite3_libversion.restype = ctypes.c_char_p
    except AttributeError as error:
        raise OSError("Python's sqlite3 module hides its SQLite") from error
    assert library.sqlite3_libversion().decode() == sqlite3.sqlite_version
    library.sqlite3_vfs_find.restype = ctypes.c_void_p
    return library
