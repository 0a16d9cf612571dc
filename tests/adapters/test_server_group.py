"""Appends of several threads that share a statement of a server's: each keeps its own positions and its own error."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from turnlog.adapters.connect import connect
from turnlog.adapters.grouping import Grouping, Request, Take
from turnlog.adapters.postgresql import PostgreSQLRecorder
from turnlog.adapters.postgresql.writing import Writing
from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.recorder import Batch
from turnlog.testing.contracts.rows import batch, grow, key, not_again

ORDERINGS = ("auto", "strict")
LONG_S = 60.0


class Gathered:
    """A recorder whose appends wait until so many have come together, and are written then."""

    def __init__(self, recorder: PostgreSQLRecorder) -> None:
        self.recorder = recorder
        self.expected = 0
        self.sizes: list[int] = []
        self._write = recorder.appends.together
        recorder.appends.grouping = self._grouping = Grouping(self._together, LONG_S)

    def _together(self, take: Take) -> None:
        while self._grouping.waiting < self.expected:
            threading.Event().wait(0.001)

        def counted() -> list[Request]:
            requests = take()
            self.sizes.append(len(requests))
            return requests

        self._write(counted)

    def at_once(self, *calls: Callable[[], Any]) -> list[Any]:
        """Make calls together; return their results, or what they raised."""
        self.expected = len(calls)
        with ThreadPoolExecutor(len(calls)) as pool:
            jobs = [pool.submit(call) for call in calls]
        self.expected = 0
        return [job.exception() or job.result() for job in jobs]


@pytest.fixture(params=ORDERINGS)
def gathered(request: pytest.FixtureRequest, postgresql_url: str) -> Iterator[Gathered]:
    """A recorder on an empty log, by which appends exclude each other or do not."""
    options: dict[str, Any] = {"timeout_s": LONG_S, "ordering": request.param}
    backend = connect(postgresql_url, durability="full", engine=None, options=options)
    assert isinstance(backend.recorder, PostgreSQLRecorder)
    yield Gathered(backend.recorder)
    backend.recorder.close()
    backend.views.close()


def test_what_fits_is_one_statement(gathered: Gathered, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appends of different sessions, with what they need, are sent at once."""
    recorder = gathered.recorder
    rows = grow(recorder, "t/a", 2)
    sent: list[int] = []
    insert = Writing.insert

    def counted(self: Writing, connection: Any, batches: Sequence[Batch], *, drawn: bool) -> list[int]:
        sent.append(len(batches))
        return insert(self, connection, batches, drawn=drawn)

    monkeypatch.setattr(Writing, "insert", counted)
    of_a, of_b, of_two = gathered.at_once(
        lambda: recorder.append((batch("t/a", 2, before=rows, keys=[key("k", 3)]),), not_again),
        lambda: recorder.append((batch("t/b", 1),), not_again),
        lambda: recorder.append((batch("t/d", 1), batch("t/c", 3)), not_again),
    )
    assert (gathered.sizes[-1], sent) == (3, [4])
    last = {stream: recorder.select_stream(stream)[-1][0] for stream in ("t/a", "t/b", "t/c", "t/d")}
    assert (of_a, of_b, of_two) == ([last["t/a"]], [last["t/b"]], [last["t/d"], last["t/c"]])
    assert [each.key for each in recorder.select_all_keys("t/a")] == ["k"]


def test_what_does_not_fit(gathered: Gathered) -> None:
    """Where one does not fit, or is refused, the others are written; two of one session come one after the other."""
    recorder = gathered.recorder
    rows = grow(recorder, "t/a", 2)

    def refuse(_: object) -> Sequence[Batch]:
        raise LookupError("refused")

    def anew(reader: Any) -> Sequence[Batch]:
        return (batch("t/a", 1, before=reader.select_stream("t/a"), words="anew"),)

    first, second, refused, other = gathered.at_once(
        lambda: recorder.append((batch("t/a", 1, before=rows),), anew),
        lambda: recorder.append((batch("t/a", 1, before=rows),), anew),
        lambda: recorder.append((batch("t/a", 1, before=rows[:1]), batch("t/c", 1)), refuse),
        lambda: recorder.append((batch("t/b", 1),), not_again),
    )
    assert isinstance(refused, LookupError)
    assert sorted((first, second)) == [[row[0]] for row in recorder.select_stream("t/a")[2:]]
    assert [row[1] for row in recorder.select_stream("t/a")] == [1, 2, 3, 4]
    assert recorder.select_stream("t/c") == []
    assert other == [recorder.select_stream("t/b")[-1][0]]


@pytest.mark.parametrize("after", [False, True])
def test_cut(gathered: Gathered, monkeypatch: pytest.MonkeyPatch, *, after: bool) -> None:
    """Where the connection breaks with the statement under way, each is there exactly once all the same."""
    recorder = gathered.recorder
    insert = Writing.insert
    cuts: list[int] = []

    def cut(self: Writing, connection: Any, batches: Sequence[Batch], *, drawn: bool) -> list[int]:
        if cuts:
            return insert(self, connection, batches, drawn=drawn)
        cuts.append(len(batches))
        if after:
            insert(self, connection, batches, drawn=drawn)
        connection.close()
        raise psycopg.OperationalError("cut")

    monkeypatch.setattr(Writing, "insert", cut)
    positions = gathered.at_once(
        *(lambda n=n: recorder.append((batch(f"t/{n}", 2, keys=[key("k", 1)]),), not_again) for n in range(5))
    )
    assert cuts == [5]
    assert [recorder.select_stream(f"t/{n}")[-1][0] for n in range(5)] == [position for (position,) in positions]
    assert [len(recorder.select_stream(f"t/{n}")) for n in range(5)] == [2] * 5


def test_the_store_is_closed(gathered: Gathered) -> None:
    """All hear of it when there is no connection to be had any more."""
    recorder = gathered.recorder
    recorder.pool.close()
    errors = gathered.at_once(*(lambda n=n: recorder.append((batch(f"t/{n}", 1),), not_again) for n in range(8)))
    assert all(isinstance(error, StoreUnavailable) for error in errors)
