"""What OpenTelemetry is told: names, units and attributes, all of them here. Needs ``turnlog[opentelemetry]``."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, WeakMethod

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation
from opentelemetry.trace import Span, StatusCode, TracerProvider

from turnlog.domain.errors import StoreError
from turnlog.domain.values import RebuildProgress, ViewStatus
from turnlog.projections.watching import Facts, Operation

SPANS = frozenset({"append", "catch_up", "rebuild"})
"""Operations that are worth a span; how long the others took is told by the log of slow ones."""
BOUNDARIES_S = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""From an append in memory to the longest that one waits by default."""
Status = Callable[[], Iterable[ViewStatus]]


class Instruments:
    """The spans and metrics of one store.

    Args:
        system: the kind of database, as OpenTelemetry calls it.
        tracers: gives the tracer.
        meters: gives the meter.
    """

    def __init__(self, system: str, tracers: TracerProvider, meters: MeterProvider) -> None:
        version = metadata.version("turnlog")
        self._tracer = tracers.get_tracer("turnlog", version)
        self._meters, self._meter = meters, meters.get_meter("turnlog", version)
        self._system = {"db.system.name": system}
        meter = self._meter
        self._duration = meter.create_histogram(
            "turnlog.append.duration",
            "s",
            "How long appends took, deciding again included.",
            explicit_bucket_boundaries_advisory=BOUNDARIES_S,
        )
        self._events = meter.create_counter("turnlog.append.events", "{event}", "Events appended.")
        self._retries = meter.create_counter(
            "turnlog.append.retries", "{retry}", "How often an append was decided again: somebody else was first."
        )
        self._failures = meter.create_counter("turnlog.failures", "{failure}", "Operations that raised, by error.")
        self._position = meter.create_gauge("turnlog.rebuild.position", "{position}", "How far a rebuild is.")
        self._target = meter.create_gauge("turnlog.rebuild.target", "{position}", "Where that rebuild ends.")

    def span(self, what: Operation) -> AbstractContextManager[Span | None]:
        """Surround an operation by a span, if it is to have one. An error's words are not recorded."""
        if what not in SPANS:
            return nullcontext()
        return self._tracer.start_as_current_span(
            f"turnlog.{what}", attributes=self._system, record_exception=False, set_status_on_exception=False
        )

    def over(self, what: Operation, span: Span | None, took_s: float, facts: Facts, error: str | None) -> None:
        """Tell of an operation that is over; ``error`` is the class of what it raised."""
        outcome = self._system if error is None else {**self._system, "error.type": error}
        if span is not None:
            span.set_attributes({f"turnlog.{name}": value for name, value in facts.items()})
            if error is not None:
                span.set_attribute("error.type", error)
                span.set_status(StatusCode.ERROR)
        if what == "append":
            self._duration.record(took_s, outcome)
            if facts["retries"]:
                self._retries.add(int(facts["retries"]), self._system)
            if error is None:
                self._events.add(int(facts["events"]), self._system)
        if error is not None:
            self._failures.add(1, {**outcome, "turnlog.operation": what})

    def reached(self, progress: RebuildProgress) -> None:
        """Tell how far a rebuild is."""
        attributes = {**self._system, "turnlog.view": progress.view}
        self._position.set(progress.position, attributes)
        self._target.set(progress.target, attributes)

    def follow(self, status: Status) -> None:
        """Have the lag of views observed, as long as what ``status`` is a method of is there."""
        with _lock:
            lags = _lags.get(self._meters)
            if lags is None:
                lags = _lags[self._meters] = Lags(self._meter)
        lags.add(self._system, WeakMethod(status))


class Lags:
    """The lag of the views of all stores that one provider of meters is told of.

    There is one instrument of a name in a meter, and its callbacks can neither be added to nor taken away.
    """

    def __init__(self, meter: Meter) -> None:
        self._known: list[tuple[dict[str, str], WeakMethod[Status]]] = []
        meter.create_observable_gauge(
            "turnlog.view.lag", [self._observe], "{position}", "Positions of the log that a view has not applied yet."
        )

    def add(self, system: dict[str, str], status: "WeakMethod[Status]") -> None:
        """Add a store's."""
        with _lock:
            self._known.append((system, status))

    def _observe(self, _: CallbackOptions) -> Iterator[Observation]:
        """Yield each view's; where several stores have one of the same name, that of the one furthest behind."""
        most: dict[tuple[str, str], Observation] = {}
        for system, method in self._living():
            for view in _views(method):
                attributes: dict[str, Any] = {**system, "turnlog.view": view.name}
                key = (system["db.system.name"], view.name)
                if key not in most or most[key].value < view.lag:
                    most[key] = Observation(view.lag, attributes)
        yield from most.values()

    def _living(self) -> list[tuple[dict[str, str], Status]]:
        with _lock:
            self._known = [known for known in self._known if known[1]() is not None]
            return [(system, method) for system, found in self._known if (method := found()) is not None]


def _views(status: Status) -> Iterable[ViewStatus]:
    """Return how the views of a store stand; nothing of one that is closed or does not answer."""
    try:
        return status()
    except StoreError:
        return ()


_lags: "WeakKeyDictionary[MeterProvider, Lags]" = WeakKeyDictionary()
"""Module state, and has to be: the stores of a process share its meter. It goes when that goes."""
_lock = Lock()
