"""Decoders of what has a type, made one at a time.

msgspec keeps what it has found out about a class on that class, and puts it there before it is complete, so that a
struct may contain itself. A second thread that makes a decoder of the same class meanwhile takes the half for the
whole, and reads where nothing is yet: SIGSEGV (msgspec 0.22). So turnlog makes its decoders here, under one lock, which
a fork waits for: its child would keep the half for ever.
"""

import os
import threading
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import TypeVar

import msgspec

T = TypeVar("T")

_making = threading.RLock()  # which the forked child's only thread can let go of, too
# Registered before the databases' (process_fork.py), so called after them: nobody who has a lock of theirs waits here.
os.register_at_fork(before=_making.acquire, after_in_parent=_making.release, after_in_child=_making.release)


def decoder(kind: type[T], form: ModuleType = msgspec.json) -> Callable[[bytes | str], T]:
    """Return what decodes JSON (or another ``form`` of msgspec's) into ``kind``.

    It raises ``msgspec.MsgspecError`` for what is none, and ``UnicodeDecodeError``.
    """
    with _making:
        return form.Decoder(kind).decode  # type: ignore[no-any-return]  # a module's attributes are not known


def converter(kind: type[T]) -> Callable[[object], T]:
    """Return what makes ``kind`` of what was decoded without a type.

    It raises ``msgspec.ValidationError`` for what is none.
    """
    decoder(kind)
    return partial(msgspec.convert, type=kind)
