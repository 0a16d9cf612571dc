"""What must not be carried across ``os.fork()``, and is renewed there.

The registry is module state, and has to be: the interpreter has one list of what it calls around a fork, nothing can
be taken off it again, and it must not keep databases alive that the application has forgotten. Hence weak references.
"""

import os
from typing import Any, Protocol
from weakref import WeakKeyDictionary

_known: "WeakKeyDictionary[Forking, None]" = WeakKeyDictionary()
"""In the order in which they were made: a thread that holds several locks has taken them in that order."""
_spoilt: dict[str, list[Any]] = {}


class Forking(Protocol):
    """Something with locks, threads or open files."""

    def before_fork(self) -> None:
        """Come to rest, if that is possible before long."""
        ...

    def after_fork(self, *, child: bool) -> None:
        """Go on; in the child with nothing that it shares with its parent."""
        ...


def watch(one: Forking) -> None:
    """Tell ``one`` of forks for as long as it lives."""
    _known[one] = None


def spoil(path: str, inherited: object) -> None:
    """Note that this process has inherited SQLite's state of a file in use, and keep that from ever being closed.

    SQLite knows a file by its inode and counts the locks it believes to hold on it: a child that inherits connections
    inherits the counts without the locks. Whatever it opens on that file runs unprotected: the parent may delete the
    write-ahead log that the child is writing, and the child, closing, tidies up in shared memory behind the parent.
    """
    import ctypes  # only here; the one way to hold on to an object even while the interpreter takes itself down

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))
    _spoilt.setdefault(path, []).append(inherited)


def is_spoilt(path: str) -> bool:
    """Return whether this process must not open that file."""
    return path in _spoilt


def _before() -> None:
    for one in list(_known):
        one.before_fork()


def _in_parent() -> None:
    for one in list(_known):
        one.after_fork(child=False)


def _in_child() -> None:
    for one in list(_known):
        one.after_fork(child=True)


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
