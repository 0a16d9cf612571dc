"""Watching a store: a log of slow operations and, where there is a provider, OpenTelemetry. docs/telemetry.md lists it.

Whether anybody watches is decided once, when the store is opened; where nobody does, nothing of this is called. No id,
no content and no error's words go into any of it: they may be personal, or a password.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any

from turnlog import inputs
from turnlog.domain.errors import InvalidInput, TurnlogError
from turnlog.domain.recorder import Again, Batch, Reader, Recorder
from turnlog.domain.values import RebuildProgress, ViewStatus
from turnlog.projections.backend import Backend
from turnlog.projections.watching import UNWATCHED, Append, Facts, Operation, Watch

if TYPE_CHECKING:
    from turnlog.instruments import Instruments

LONGEST_SLOW_S = 86_400
_LONG = frozenset({"rebuild"})
"""Never called slow: it takes as long as the log is long. Its pages are looked at one by one."""
_OF_THE_API = ("opentelemetry.trace", "opentelemetry.metrics")
"""Where the providers come from that do nothing; those that do something come from an SDK."""
_SYSTEMS = {"postgres": "postgresql"}
_slow = logging.getLogger("turnlog.slow")


def watch_of(url: str | Backend, options: dict[str, Any]) -> Watch:
    """Return who is told of a store's operations. ``options`` are taken out as they are used.

    Raises:
        InvalidInput: an option is not understood.
    """
    slow_s = options.pop("slow_s", None)
    slow_s = None if slow_s is None else inputs.seconds("slow_s", slow_s, most=LONGEST_SLOW_S)
    given = {name: options.pop(name, None) for name in ("tracer_provider", "meter_provider")}
    for (name, provider), method in zip(given.items(), ("get_tracer", "get_meter"), strict=True):
        if provider is not None and not callable(getattr(provider, method, None)):
            raise InvalidInput(name, f"expected a provider of OpenTelemetry, got {type(provider).__name__}")
    name = url.name if isinstance(url, Backend) else inputs.text("url", url)
    scheme = name.partition("://")[0].partition("+")[0]
    instruments = _instruments(_SYSTEMS.get(scheme, scheme), **given)
    return UNWATCHED if slow_s is None and instruments is None else Watching(slow_s, instruments)


def _instruments(system: str, tracer_provider: Any, meter_provider: Any) -> "Instruments | None":
    """Return what tells OpenTelemetry; ``None`` where nobody listens.

    Who has set up an SDK has imported OpenTelemetry: where nobody has, it is not looked for.
    """
    if tracer_provider is meter_provider is None and not any(name in sys.modules for name in _OF_THE_API):
        return None
    from opentelemetry import metrics, trace

    tracers = trace.get_tracer_provider() if tracer_provider is None else tracer_provider
    meters = metrics.get_meter_provider() if meter_provider is None else meter_provider
    if all(type(provider).__module__.startswith(_OF_THE_API) for provider in (tracers, meters)):
        return None
    from turnlog.instruments import Instruments

    return Instruments(system, tracers, meters)


class Watching:
    """Takes the time of operations.

    Args:
        slow_s: those that take longer are logged; ``None``: none is.
        instruments: those are told of all.
    """

    def __init__(self, slow_s: float | None, instruments: "Instruments | None") -> None:
        self._slow_s = slow_s
        self.instruments = instruments

    def appending(self, recorder: Recorder) -> Append:
        """Return the recorder's ``append``, watched; a decision that is asked for once more is a retry."""
        append = recorder.append

        def watched(batches: Sequence[Batch], again: Again) -> list[int]:
            asked = 0 if batches else -1  # to be asked first is no retry
            newest = batches

            def ask(reader: Reader) -> Sequence[Batch]:
                nonlocal asked, newest
                asked += 1
                newest = again(reader)
                return newest

            facts: Facts = {"durability": recorder.durability}
            with _Doing(self, "append", facts):
                try:
                    return append(batches, ask)
                finally:
                    facts["events"] = sum([len(batch.rows) for batch in newest])
                    facts["retries"] = max(asked, 0)

        return watched

    def doing(self, what: Operation, **facts: int | str) -> AbstractContextManager[Facts]:
        """Take the time of what is surrounded, and tell of it."""
        return _Doing(self, what, facts)

    def over(self, what: Operation, span: Any, took_s: float, facts: Facts, error: str | None) -> None:
        """Tell of an operation that is over."""
        if self.instruments is not None:
            self.instruments.over(what, span, took_s, facts, error)
        if self._slow_s is not None and took_s >= self._slow_s and what not in _LONG:
            _log_slow(what, took_s, facts, error)

    def reached(self, progress: RebuildProgress) -> None:
        """Take note of how far a rebuild is."""
        if self.instruments is not None:
            self.instruments.reached(progress)

    def follow(self, status: Callable[[], Iterable[ViewStatus]]) -> None:
        """Have the lag of the views asked for whenever metrics are collected, as long as ``status`` lives."""
        if self.instruments is not None:
            self.instruments.follow(status)


class _Doing:
    """An operation under way; a class, for a generator takes twice as long, on the way of every append."""

    __slots__ = ("_around", "_began", "_facts", "_span", "_watching", "_what")

    def __init__(self, watching: Watching, what: Operation, facts: Facts) -> None:
        self._watching = watching
        self._what: Operation = what
        self._facts = facts
        self._around = None if watching.instruments is None else watching.instruments.span(what)
        self._span: Any = None

    def __enter__(self) -> Facts:
        self._began = perf_counter()
        if self._around is not None:
            self._span = self._around.__enter__()
        return self._facts

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        took_s = perf_counter() - self._began
        name = type(error).__qualname__ if isinstance(error, TurnlogError) else None  # others are the application's own
        self._watching.over(self._what, self._span, took_s, self._facts, name)
        if self._around is not None:
            self._around.__exit__(kind, error, trace)


def _log_slow(what: Operation, took_s: float, facts: Facts, error: str | None) -> None:
    fields: dict[str, object] = {"operation": what, "took_s": round(took_s, 6), **facts}
    if error is not None:
        fields["error"] = error
    words = " ".join(f"{name}={value}" for name, value in fields.items())
    _slow.warning("slow %s", words, extra={"turnlog": fields})
