"""Statements that are prepared by hand: on every kind of connection an append finds its way, and its positions."""

from collections.abc import Iterator

import pytest
from psycopg_pool import ConnectionPool

from turnlog.adapters.connect import connect
from turnlog.adapters.postgresql.connection import Connection
from turnlog.adapters.postgresql.writing import FEW
from turnlog.domain.recorder import Batch, Recorder
from turnlog.testing.contracts.rows import batch, grow, key, write

S = "default/s"


def discard(connection: Connection) -> None:
    """Forget what turnlog has prepared, on each connection that is given back."""
    connection.autocommit = True
    select = "SELECT name FROM pg_prepared_statements WHERE starts_with(name, 'turnlog_')"
    for (name,) in connection.execute(select, prepare=False).fetchall():
        connection.pgconn.exec_(f"DEALLOCATE {name}".encode())
    connection.autocommit = False


@pytest.fixture(params=["its own", "shared by two", "discarding", "unprepared"])
def recorder(request: pytest.FixtureRequest, postgresql_url: str) -> Iterator[Recorder]:
    """A recorder on a pool of its own or of an application's."""
    if request.param == "its own":
        backend = connect(postgresql_url, durability="full", engine=None, options={})
        yield backend.recorder
        backend.recorder.close()
        return
    with ConnectionPool[Connection](
        postgresql_url,
        min_size=1,
        max_size=3,
        kwargs={"prepare_threshold": None} if request.param == "unprepared" else {},
        reset=discard if request.param == "discarding" else None,
    ) as pool:
        recorders = [connect(postgresql_url, durability="full", engine=pool, options={}).recorder for _ in range(2)]
        if request.param == "shared by two":
            grow(recorders[0], "default/other", 3)
        yield recorders[1]
        for each in recorders:
            each.close()


def test_rows_and_keys_come_back(recorder: Recorder) -> None:
    """Few or many rows, with and without keys: each is there as given, and the last one's position is told."""
    there = grow(recorder, S, 1)
    for rows, keys in ((1, 0), (2, 0), (1, 1), (2, 2), (FEW, FEW), (FEW + 1, 1), (1, FEW + 1), (3, 1)):
        newest = there[-1][1]
        given = batch(
            S, rows, before=there, keys=[key(f"ключ{rows}{keys}{n}", newest + 1 + n % rows) for n in range(keys)]
        )
        (position,) = write(recorder, given)
        there = recorder.select_stream(S)
        assert [row[1:] for row in there[-rows:]] == list(given.rows)
        assert there[-1][0] == position
        assert sorted(recorder.select_keys(S, [(k.kind, k.key) for k in given.keys])) == sorted(given.keys)
    positions = [row[0] for row in there]
    assert positions == sorted(set(positions))


def test_what_is_taken_is_refused(recorder: Recorder) -> None:
    """A row or a key that is taken is decided anew, and nothing of the first try is left."""
    rows = grow(recorder, S, 2)
    write(recorder, batch(S, 1, before=rows, keys=[key("k", 3)]))
    asked: list[int] = []

    def again(_: object) -> tuple[Batch, ...]:
        asked.append(1)
        return ()

    assert recorder.append((batch(S, 2, before=rows),), again) == []
    there = recorder.select_stream(S)
    assert recorder.append((batch(S, 1, before=there, keys=[key("l", 4), key("k", 4)]),), again) == []
    assert (len(asked), recorder.select_stream(S)) == (2, there)
    assert [each.key for each in recorder.select_all_keys(S)] == ["k"]
