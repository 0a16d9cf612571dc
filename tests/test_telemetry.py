"""What a store tells OpenTelemetry and the log of slow operations, and what it never tells."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

import turnlog
from turnlog import aio
from turnlog.adapters.inside import decider_of

ROOT = Path(__file__).resolve().parent.parent
SECRETS = ("alice-7", "s-4711", "m-0815", "cmd-9", "tenant-x", "sesame", "secret words", "tester", "127.0.0.1")
"""Ids, content and places: none of them may be told."""


class Told:
    """An SDK that keeps what it is told."""

    def __init__(self) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meters = MeterProvider(metric_readers=[self._reader])
        self.options: dict[str, Any] = {"tracer_provider": self.tracers, "meter_provider": self.meters}

    def spans(self, name: str = "turnlog.") -> list[ReadableSpan]:
        """Return the spans that ended, those whose names begin so."""
        return [span for span in self._spans.get_finished_spans() if span.name.startswith(name)]

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """Return the attributes and value of each point of a metric; of a histogram how many were counted."""
        found = self._reader.get_metrics_data()
        return [
            (dict(point.attributes or {}), point.value if isinstance(point, NumberDataPoint) else point.count)
            for resource in (found.resource_metrics if found else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if metric.name == name
        ]

    def everything(self) -> str:
        """Return all of it as text."""
        found = self._reader.get_metrics_data()
        return "".join([*(span.to_json() for span in self.spans("")), found.to_json() if found else ""])


@pytest.fixture
def told() -> Iterator[Told]:
    """An SDK of this test's own."""
    one = Told()
    yield one
    one.tracers.shutdown()
    one.meters.shutdown()


@pytest.fixture
def system(url: str) -> str:
    """The kind of database, as OpenTelemetry calls it."""
    return url.partition(":")[0]


@pytest.fixture
def watched(url: str, told: Told) -> Iterator[turnlog.ConversationStore]:
    """A store on every backend that tells ``told``."""
    with turnlog.open(url, **told.options) as store:
        yield store


def test_an_append_is_a_span_below_the_callers(watched: turnlog.ConversationStore, told: Told, system: str) -> None:
    """It says how many events were appended, how, and that nobody else was first; the metrics count the same."""
    session = watched.session()
    with told.tracers.get_tracer("application").start_as_current_span("request") as request, session.turn():
        session.add_message("user", "one")
        session.add_message("assistant", "two")
    created, said = told.spans("turnlog.append")
    assert said.attributes == {
        "db.system.name": system,
        "turnlog.durability": watched.stats().durability,
        "turnlog.events": 2,
        "turnlog.retries": 0,
    }
    assert created.parent is None
    assert said.parent is not None
    assert said.parent.span_id == request.get_span_context().span_id
    assert said.status.status_code is StatusCode.UNSET
    assert told.points("turnlog.append.duration") == [({"db.system.name": system}, 2)]
    assert told.points("turnlog.append.events") == [({"db.system.name": system}, 3)]
    assert told.points("turnlog.append.retries") == []
    assert told.points("turnlog.failures") == []


def test_an_append_in_a_transaction_of_the_application_is_told_too(postgresql_url: str, told: Told) -> None:
    """It is a span like any other, and says that it is pending."""
    with turnlog.open(postgresql_url, **told.options) as store, psycopg.connect(postgresql_url) as connection:
        store.using(connection).session("s-4711").add_message("user", "secret words")
    durabilities = [(span.attributes or {})["turnlog.durability"] for span in told.spans("turnlog.append")]
    assert durabilities == ["pending", "pending"]


def test_an_append_from_asyncio_is_below_the_tasks_span(url: str, told: Told) -> None:
    """Though another thread makes it; of two tasks, each one's own."""

    async def say(store: aio.ConversationStore, name: str) -> int:
        with told.tracers.get_tracer("application").start_as_current_span(name) as request:
            await store.session(name)
            return request.get_span_context().span_id

    async def both() -> list[int]:
        async with aio.open(url, **told.options) as store:
            return list(await asyncio.gather(say(store, "a"), say(store, "b")))

    expected = asyncio.run(both())
    parents = [span.parent.span_id for span in told.spans("turnlog.append") if span.parent is not None]
    assert sorted(parents) == sorted(expected)


def test_a_decision_made_again_is_a_retry(watched: turnlog.ConversationStore, told: Told, system: str) -> None:
    """Of two handles that stand at the same version, the second one's append is decided once more."""
    first = watched.session("s")
    second = watched.get("s")
    first.add_message("user", "one")
    second.add_message("user", "two")
    assert [span.attributes["turnlog.retries"] for span in told.spans("turnlog.append") if span.attributes] == [0, 0, 1]
    assert told.points("turnlog.append.retries") == [({"db.system.name": system}, 1)]


def test_an_append_that_is_asked_for_what_fits_at_first_is_no_retry(
    watched: turnlog.ConversationStore, told: Told
) -> None:
    """Forks and resets are decided under the lock in the first place."""
    session = watched.session("s")
    session.fork()
    session.reset()
    assert told.points("turnlog.append.retries") == []
    assert sum(value for _, value in told.points("turnlog.append.events")) == watched.position


def test_a_failure_is_told_by_its_class(watched: turnlog.ConversationStore, told: Told, system: str) -> None:
    """Without its words, which name the session."""
    first = watched.session("s")
    second = watched.get("s")
    first.add_message("user", "one")
    with pytest.raises(turnlog.ConcurrencyConflict):
        second.add_message("user", "two", expected_version=second.version)
    span = told.spans("turnlog.append")[-1]
    assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())
    assert span.attributes is not None
    assert span.attributes["error.type"] == "ConcurrencyConflict"
    failure = {"db.system.name": system, "error.type": "ConcurrencyConflict"}
    assert told.points("turnlog.failures") == [({**failure, "turnlog.operation": "append"}, 1)]
    assert (failure, 1) in told.points("turnlog.append.duration")
    assert sum(value for _, value in told.points("turnlog.append.events")) == watched.position


def _lags(told: Told) -> dict[str, int]:
    return {attributes["turnlog.view"]: value for attributes, value in told.points("turnlog.view.lag")}


def test_the_lag_of_views_is_asked_for(watched: turnlog.ConversationStore, told: Told, system: str) -> None:
    """It grows with the log though nobody asks the view anything, and a query that catches up is a span."""
    watched.session("s", user_id="u").add_message("user", "one")
    assert _lags(told) == {"session_index": 2, "message_index": 2}
    watched.sessions()
    assert _lags(told) == {"session_index": 0, "message_index": 2}
    (span,) = told.spans("turnlog.catch_up")
    assert span.attributes == {
        "db.system.name": system,
        "turnlog.view": "session_index",
        "turnlog.lag": 2,
        "turnlog.positions": 2,
    }
    watched.sessions()
    assert len(told.spans("turnlog.catch_up")) == 1
    watched.close()
    assert _lags(told) == {}


def test_a_rebuild_tells_how_far_it_is(watched: turnlog.ConversationStore, told: Told, system: str) -> None:
    """While it runs: the gauges follow what ``progress`` is told."""
    watched.session("s").add_message("user", "one")
    seen: list[list[int]] = []

    def look(_: object) -> None:
        seen.append([told.points(f"turnlog.rebuild.{name}")[0][1] for name in ("position", "target")])

    watched.rebuild("session_index", progress=look)
    assert seen == [[0, 2], [2, 2]]
    (span,) = told.spans("turnlog.rebuild")
    assert span.attributes == {"db.system.name": system, "turnlog.view": "session_index"}


def test_stores_share_a_meter(tmp_path: Path, told: Told) -> None:
    """Of views of the same name the lag is that of the one furthest behind; a store that was dropped is forgotten."""
    with turnlog.open(f"sqlite:///{tmp_path}/a.db", **told.options) as a:
        a.session("s").add_message("user", "one")
        b = turnlog.open(f"sqlite:///{tmp_path}/b.db", **told.options)
        b.session("s")
        assert _lags(told)["session_index"] == 2
        for i in range(3):
            b.session(f"s{i}")
        assert _lags(told)["session_index"] == 4
        b.close()
        assert _lags(told)["session_index"] == 2
        assert told.points("turnlog.append.events") == [({"db.system.name": "sqlite"}, 6)]


def _use_everything(url: str, options: dict[str, Any]) -> None:
    with turnlog.open(url, tenant="tenant-x", **options) as store:
        session = store.session("s-4711", user_id="alice-7", metadata={"password": "sesame"})
        stale = store.get("s-4711")
        session.add_message("user", "secret words", message_id="m-0815", command_id="cmd-9", actor="alice-7")
        with pytest.raises(turnlog.ConcurrencyConflict):
            stale.add_message("user", "secret words", expected_version=1)
        with pytest.raises(turnlog.IdempotencyConflict):
            stale.add_message("user", "other secret words", message_id="m-0815")
        session.history()
        session.fork("s-4711-fork")
        store.sessions(user_id="alice-7")
        store.messages(user_id="alice-7")
        store.users()
        store.stats()
        store.rebuild()
        store.erase_user("alice-7")
        with pytest.raises(turnlog.SessionGone):
            session.refresh()


def test_nothing_personal_is_told(url: str, told: Told, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No id, no content, no name of a file or host: neither in spans, metrics and errors nor among slow operations."""
    if "postgresql" in url:
        url = url.replace("tester@", "tester:sesame@")
    _use_everything(url, {**told.options, "slow_s": 1e-9})
    operations = {record.__dict__["turnlog"]["operation"] for record in _slow(caplog)}
    assert operations == {"append", "load", "query", "catch_up", "rebuild_page"}
    assert {span.name for span in told.spans()} == {"turnlog.append", "turnlog.catch_up", "turnlog.rebuild"}
    text = told.everything() + "".join(f"{vars(record)} {record.getMessage()}" for record in _slow(caplog))
    assert [secret for secret in (*SECRETS, str(tmp_path)) if secret in text] == []


def _slow(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "turnlog.slow"]


def test_slow_operations_are_logged_in_one_line(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """What, how long, how many events and retries; as text and as the record's field ``turnlog``. It needs no SDK."""
    with turnlog.open(url, slow_s=1e-9) as store:
        store.session("s").add_message("user", "one")
        record = _slow(caplog)[-1]
        durability = store.stats().durability
    fields = record.__dict__["turnlog"]
    took_s = fields.pop("took_s")
    assert took_s > 0
    assert fields == {"operation": "append", "durability": durability, "events": 1, "retries": 0}
    assert record.getMessage() == f"slow operation=append took_s={took_s} durability={durability} events=1 retries=0"


@pytest.mark.parametrize("options", [{}, {"slow_s": 3600}])
def test_what_is_not_slow_is_not_logged(url: str, options: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    """Below the threshold, and without one, nothing is."""
    with turnlog.open(url, **options) as store:
        store.session("s").add_message("user", "one")
        store.rebuild()
    assert _slow(caplog) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("slow_s", 0), ("slow_s", "1"), ("slow_s", True), ("tracer_provider", "x"), ("meter_provider", TracerProvider())],
)
def test_options_are_checked(option: str, value: object) -> None:
    """A threshold is a number of seconds; a provider is one."""
    options: dict[str, Any] = {option: value}
    with pytest.raises(turnlog.InvalidInput, match=f"^{option}: expected"):
        turnlog.open("memory://", **options)


def test_without_listeners_an_append_is_the_recorders_own(url: str) -> None:
    """OpenTelemetry's API is imported here, but nobody has set up an SDK: nothing stands in between."""
    with turnlog.open(url) as store:
        decider = decider_of(store)
        assert decider.append == decider.recorder.append


WITHOUT_IT = """
import logging, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import turnlog

logging.basicConfig(stream=sys.stdout, format="%(name)s %(message)s")
with turnlog.open(sys.argv[1], slow_s=1e-9) as store:
    store.session("s").add_message("user", "one")
    assert store.rebuild() is None
"""
NOT_SET_UP = """
import sys
import turnlog

with turnlog.open("memory://") as store:
    store.session("s").add_message("user", "one")
print([name for name in sys.modules if name.partition(".")[0] == "opentelemetry"])
"""
SET_UP = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
import turnlog

spans = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
with turnlog.open("memory://") as store:
    store.session("s").add_message("user", "one")
print(*(span.name for span in spans.get_finished_spans()))
"""


@pytest.fixture
def run() -> Callable[..., str]:
    """Run a program in a process of its own and return what it printed."""

    def call(program: str, *arguments: str) -> str:
        command = [sys.executable, "-W", "error", "-c", program, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    return call


def test_it_works_where_opentelemetry_is_not_installed(run: Callable[..., str], sqlite_url: str) -> None:
    """Everything, the log of slow operations too."""
    printed = run(WITHOUT_IT, sqlite_url)
    assert "turnlog.slow slow operation=append took_s=" in printed


def test_opentelemetry_is_not_imported_for_nobody(run: Callable[..., str]) -> None:
    """Neither by importing turnlog nor by opening a store."""
    assert run(NOT_SET_UP) == "[]\n"


def test_the_global_provider_is_used(run: Callable[..., str]) -> None:
    """Whoever sets up an SDK before a store is opened need not tell turnlog."""
    assert run(SET_UP) == "turnlog.append turnlog.append\n"
