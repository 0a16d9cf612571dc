"""What a PostgreSQL log shows its readers, case by case: settled events only, in order, and all of them."""

from collections.abc import Iterator
from itertools import count

import psycopg
import pytest

import turnlog
from tests.servers import PostgreSQL
from turnlog.adapters.connect import connect
from turnlog.adapters.postgresql.tail import Watermark
from turnlog.domain.recorder import Batch, Recorder

_versions = count(1)


@pytest.fixture(params=[1, 3], ids=["plain", "partitions"])
def recorder(postgresql_url: str, request: pytest.FixtureRequest) -> Iterator[Recorder]:
    """A recorder on an empty log, that reads."""
    backend = connect(postgresql_url, durability="full", engine=None, options={"partitions": request.param})
    yield backend.recorder
    backend.recorder.close()
    backend.views.close()


class Writer:
    """A transaction of somebody else's."""

    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url)

    def put(self) -> int:
        """Append an event and return its position."""
        statement = (
            "INSERT INTO turnlog_events (originator_id, originator_version, topic, state)"
            " VALUES ('default/w', %s, 't', 'x') RETURNING position"
        )
        row = self.connection.execute(statement, (next(_versions),)).fetchone()
        assert row is not None
        return int(row[0])

    def lose(self) -> None:
        """Append an event and roll it back: a hole."""
        self.put()
        self.connection.rollback()

    def put_and_commit(self) -> int:
        """Append an event that is there at once."""
        position = self.put()
        self.connection.commit()
        return position


@pytest.fixture
def a(recorder: Recorder, postgresql_url: str) -> Iterator[Writer]:
    """A writer, on tables that are there."""
    assert recorder.position() == 0
    writer = Writer(postgresql_url)
    yield writer
    writer.connection.close()


@pytest.fixture
def b(recorder: Recorder, postgresql_url: str) -> Iterator[Writer]:
    """Another writer."""
    assert recorder.position() == 0
    writer = Writer(postgresql_url)
    yield writer
    writer.connection.close()


def shown(recorder: Recorder) -> list[int]:
    """Return the positions that a reader from the beginning gets."""
    return [row[0] for row in recorder.select_log(limit=99)]


def test_a_late_commit_holds_back_what_came_after(recorder: Recorder, a: Writer, b: Writer) -> None:
    """An event above one that is not committed yet can be read by its stream, and in order only after it."""
    first, second = a.put(), b.put_and_commit()
    assert shown(recorder) == []
    assert recorder.visible(limit=9) == ["default/w"]
    assert recorder.visible(limit=0) is None
    assert [row[0] for row in recorder.select_stream("default/w")] == [second]
    a.connection.commit()
    assert shown(recorder) == [first, second]
    assert recorder.visible(limit=9) == []


def test_own_writes_are_read_beside_an_open_append(a: Writer, postgresql_url: str) -> None:
    """Queries show what was just written although somebody else's open append holds back its place in the log."""
    a.put()
    with turnlog.open(postgresql_url) as store:
        session = store.session("mine", user_id="me")
        session.add_message("user", "hello")
        assert store.position == 0
        assert [item.session_id for item in store.sessions(user_id="me").items] == ["mine"]
        assert [message.content for message in store.messages(user_id="me").items] == ["hello"]
        assert store.stats().messages == 1
        a.connection.rollback()
        assert store.position > 0
        assert [item.message_count for item in store.sessions().items] == [1]


def test_a_hole_is_passed_when_its_owner_is_over(recorder: Recorder, a: Writer, b: Writer) -> None:
    """What was rolled back never comes: as soon as its owner is over, what is above it is shown."""
    a.put()
    position = b.put_and_commit()
    assert shown(recorder) == []
    a.connection.rollback()
    assert shown(recorder) == [position]


def test_savepoints(recorder: Recorder, a: Writer, b: Writer) -> None:
    """A first append that is rolled back to a savepoint is over at once; a later one with its transaction."""
    a.connection.execute("SAVEPOINT s")
    a.put()
    a.connection.execute("ROLLBACK TO SAVEPOINT s")
    position = b.put_and_commit()
    assert shown(recorder) == [position]
    first = a.put()
    a.connection.execute("SAVEPOINT s")
    a.put()
    a.connection.execute("ROLLBACK TO SAVEPOINT s")
    last = b.put_and_commit()
    assert shown(recorder) == [position]
    a.connection.commit()
    assert shown(recorder) == [position, first, last]


def test_a_prepared_transaction(recorder: Recorder, a: Writer, b: Writer) -> None:
    """A transaction between PREPARE and its end is waited for, though it belongs to no process."""
    first, second = a.put(), b.put_and_commit()
    assert shown(recorder) == []
    a.connection.execute("PREPARE TRANSACTION 'p1'")
    a.connection.commit()
    assert shown(recorder) == []
    a.connection.autocommit = True
    a.connection.execute("COMMIT PREPARED 'p1'")
    assert shown(recorder) == [first, second]


def test_a_prepared_transaction_over_a_crash(
    recorder: Recorder, a: Writer, b: Writer, postgresql: PostgreSQL, postgresql_url: str
) -> None:
    """It is waited for under the new name that it has after a crash; numbers that the crash has skipped are not."""
    a.connection.execute("CHECKPOINT")  # the next is minutes away: after one beside this test no number is skipped
    a.connection.commit()
    first, second = a.put(), b.put_and_commit()
    assert shown(recorder) == []
    a.connection.execute("PREPARE TRANSACTION 'p2'")
    a.connection.commit()
    postgresql.crash()
    postgresql.start()
    assert shown(recorder) == []
    c = Writer(postgresql_url)
    c.connection.autocommit = True
    c.connection.execute("COMMIT PREPARED 'p2'")
    third = c.put()
    c.connection.close()
    assert third > second + 1
    assert shown(recorder) == [first, second, third]


def test_who_never_appends_is_not_waited_for(recorder: Recorder, a: Writer, b: Writer) -> None:
    """An open transaction that has written something else holds nothing back, until it appends."""
    b.connection.execute("CREATE TABLE other (i int)")
    b.connection.commit()
    a.connection.execute("INSERT INTO other VALUES (1)")
    b.lose()
    position = b.put_and_commit()
    assert shown(recorder) == [position]
    first, second = a.put(), b.put_and_commit()
    assert shown(recorder) == [position]
    a.connection.commit()
    assert shown(recorder) == [position, first, second]


def test_an_owner_that_was_killed(recorder: Recorder, a: Writer, b: Writer) -> None:
    """A killed owner's hole is passed."""
    a.put()
    position = b.put_and_commit()
    assert shown(recorder) == []
    b.connection.execute("SELECT pg_terminate_backend(%s, 10000)", (a.connection.info.backend_pid,))
    b.connection.commit()
    assert shown(recorder) == [position]


def test_a_hole_of_millions(recorder: Recorder, a: Writer) -> None:
    """No list of missing numbers is kept."""
    a.put_and_commit()
    a.connection.execute("SELECT setval('turnlog_events_position_seq', 30000000)")
    a.put_and_commit()
    assert shown(recorder) == [1, 30000001]


def test_a_reader_that_begins_late(recorder: Recorder, a: Writer, b: Writer, postgresql_url: str) -> None:
    """One that begins beside an open append knows nothing of older holes; what the views have proven is enough."""
    b.put_and_commit()
    b.lose()
    old = b.put_and_commit()
    a.put()
    assert shown(recorder) == [1]
    b.connection.execute("INSERT INTO turnlog_views VALUES ('v', 1, %s, '', '')", (old,))
    b.connection.commit()
    late = connect(postgresql_url, durability="full", engine=None, options={}).recorder
    assert shown(late)[-1] == old
    late.close()


def test_a_sequence_that_is_drawn_from_ahead(recorder: Recorder, a: Writer, postgresql_url: str) -> None:
    """Where positions cannot be proven, appends exclude each other, and are numbered in that order."""
    a.connection.execute("ALTER SEQUENCE turnlog_events_position_seq CACHE 10")
    a.connection.commit()
    assert recorder.position() == 0
    both = [connect(postgresql_url, durability="full", engine=None, options={}).recorder for _ in range(2)]
    for i in range(6):
        both[i % 2].append((Batch(f"default/{i}", [(1, "t", b""), (2, "t", b"")]),), lambda _: ())
    assert shown(both[0]) == shown(both[1]) == list(range(1, 13))
    for each in both:
        each.close()


class TestWatermark:
    """The algorithm alone."""

    def test_dense(self) -> None:
        """Without a hole nobody need be asked."""
        mark = Watermark()
        mark.looked(5, 5, 0)
        assert (mark.settled, mark.top) == (5, 5)

    def test_a_holder_from_before_may_own_any_hole(self) -> None:
        """Who was there at the first look may own everything; who came later, only what lies above that look."""
        mark = Watermark()
        mark.looked(5, 2, 0)
        mark.held({"1/1"})
        assert mark.settled == 2
        mark.looked(9, 2, 0)
        mark.held({"2/1"})
        assert mark.settled == 5
        mark.looked(9, 5, 0)
        mark.held(set())
        assert mark.settled == 9

    def test_a_prepared_holder_inherits(self) -> None:
        """A prepared transaction may be a holder that vanished: it owns what that one may own."""
        mark = Watermark()
        mark.looked(5, 2, 0)
        mark.held({"1/1"})
        mark.looked(9, 2, 0)
        mark.held({"-1/77"})
        assert mark.settled == 2
        mark.held(set())
        assert mark.settled == 9

    def test_what_others_have_proven(self) -> None:
        """A proven position counts as far as the log goes."""
        mark = Watermark()
        mark.looked(5, 0, 4)
        assert mark.settled == 4
        mark.looked(5, 0, 900)
        assert mark.settled == 5
