"""Ending well what goes on until it is stopped."""

import signal
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from types import FrameType
from typing import Any


@contextmanager
def stopping() -> Generator[list[int], None, None]:
    """Yield a list that a first SIGINT or SIGTERM is added to; a second ends the program as always."""
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def catch(number: int, _: FrameType | None) -> None:
        caught.append(number)
        _restore(before.items())

    for number in before:
        signal.signal(number, catch)
    try:
        yield caught
    finally:
        _restore(before.items())


def _restore(handlers: Iterable[tuple[signal.Signals, Any]]) -> None:
    for number, handler in handlers:
        signal.signal(number, handler)
