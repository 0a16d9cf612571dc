"""Real processes for tests: several at once that must all succeed, or one that is killed while it writes.

They are forked from a server that has imported everything, so that one starts in some 10 ms; no thread or connection
of the test's process is inherited.
"""

import faulthandler
import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from multiprocessing.synchronize import Barrier
from time import monotonic
from typing import Any

PROCESSES = multiprocessing.get_context("forkserver")
_ADAPTERS = ("sql", "sqlite.views", "postgresql", "mariadb", "redis.recorder", "redis.views", "mongodb.views")
PROCESSES.set_forkserver_preload(["pytest", "turnlog", *(f"turnlog.adapters.{one}" for one in _ADAPTERS), __name__])
DEADLINE_S = 240.0
"""How long children may take, on a machine that is busy with other things."""


class ChildError(AssertionError):
    """A child has raised; the message is its traceback."""


def together(work: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
    """Run ``work`` once per tuple of arguments, each in a process, begun at once; return what each returned.

    Raises:
        ChildError: one has raised, or was not done in time.
    """
    barrier = PROCESSES.Barrier(len(arguments))
    children = [_begin(work, tuple(each), barrier) for each in arguments]
    deadline = monotonic() + DEADLINE_S
    try:
        return [_result(process, pipe, deadline) for process, pipe in children]
    finally:
        for process, pipe in children:
            process.kill()
            process.join()
            pipe.close()


def alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run ``work`` in a process and return what it returned."""
    return together(work, arguments)[0]


class Victim:
    """A process that reports through a pipe until it is killed: ``work(report, *arguments)``."""

    def __init__(self, work: Callable[..., None], *arguments: Any) -> None:
        self._pipe, report = PROCESSES.Pipe(duplex=False)
        self._process = PROCESSES.Process(target=_reporting, args=(work, report, arguments), daemon=True)
        self._process.start()
        report.close()

    def reports(self, seconds: float) -> Iterator[Any]:
        """Yield what it reports until so much time has passed; it goes on after that.

        Raises:
            ChildError: it has ended by itself.
        """
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            if self._pipe.poll(left):
                yield self._receive()

    def first(self) -> Any:
        """Wait for a report."""
        if not self._pipe.poll(DEADLINE_S):
            self.kill()
            raise ChildError("the child has reported nothing")
        return self._receive()

    def reports_until(self, is_enough: Callable[[Any], bool]) -> list[Any]:
        """Return what it reports, up to a report that is enough.

        Raises:
            ChildError: there was none in time, or it has ended by itself.
        """
        found = [self.first()]
        deadline = monotonic() + DEADLINE_S
        while not is_enough(found[-1]):
            if monotonic() > deadline:
                raise ChildError("the child has not reported what was waited for")
            found.append(self.first())
        return found

    def kill(self) -> list[Any]:
        """Kill it where it stands (SIGKILL) and return what it had reported and nobody had read."""
        self._process.kill()
        self._process.join()
        rest: list[Any] = []
        try:
            while self._pipe.poll(0):
                rest.append(self._receive())
        except (EOFError, OSError):
            pass  # the last report was cut
        self._pipe.close()
        assert self._process.exitcode == -signal.SIGKILL, f"it ended by itself: {self._process.exitcode}"
        self._process.close()
        return rest

    def _receive(self) -> Any:
        report = self._pipe.recv()
        if isinstance(report, ChildError):
            raise report
        return report


def _begin(
    work: Callable[..., Any], arguments: tuple[Any, ...], barrier: Barrier
) -> tuple[ForkServerProcess, Connection]:
    pipe, answer = PROCESSES.Pipe(duplex=False)
    process = PROCESSES.Process(target=_answering, args=(work, arguments, barrier, answer), daemon=True)
    process.start()
    answer.close()
    return process, pipe


def _result(process: ForkServerProcess, pipe: Connection, deadline: float) -> Any:
    if not pipe.poll(max(deadline - monotonic(), 0)):
        raise ChildError("the child was not done in time")
    try:
        result = pipe.recv()
    except EOFError:
        process.join()
        raise ChildError(f"the child ended without an answer, with exit code {process.exitcode}") from None
    if isinstance(result, ChildError):
        raise result
    return result


def _answering(work: Callable[..., Any], arguments: tuple[Any, ...], barrier: Barrier, answer: Connection) -> None:
    faulthandler.enable()
    try:
        barrier.wait(DEADLINE_S)
        result = work(*arguments)
    except BaseException:  # noqa: BLE001 - told to the test
        result = ChildError(traceback.format_exc())
    answer.send(result)


def _reporting(work: Callable[..., None], report: Connection, arguments: tuple[Any, ...]) -> None:
    faulthandler.enable()
    try:
        work(report, *arguments)
    except BaseException:  # noqa: BLE001 - told to the test
        report.send(ChildError(traceback.format_exc()))
