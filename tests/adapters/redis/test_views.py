"""Views in Redis: one turn at a time, all or nothing, generations that swap, what projections are lent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from tests.projections.log import STARTED, Log, filled, said
from tests.servers import Redis
from turnlog.adapters.connect import connect
from turnlog.adapters.redis import lease
from turnlog.adapters.redis.connection import Records
from turnlog.adapters.redis.server import Server
from turnlog.adapters.redis.views import RedisViews
from turnlog.domain import events as e
from turnlog.domain.errors import InvalidInput, StoreError, StoreUnavailable
from turnlog.domain.values import RebuildProgress, RecordedEvent
from turnlog.projections import building
from turnlog.projections.backend import Backend
from turnlog.projections.message_index import MessageIndex
from turnlog.projections.session_index import SessionFilter, SessionIndex
from turnlog.testing.contracts.views import ViewsContract

ALL = SessionFilter(tenant="default")


@pytest.fixture
def backend(redis_url: str) -> Iterator[Backend]:
    """An empty log with views."""
    opened = connect(redis_url, durability="full", engine=None, options={})
    yield opened
    opened.recorder.close()


class TestViews(ViewsContract):
    """Our contract."""


class Words:
    """An application's read model: how often each word was said in each session."""

    name = "words"
    revision = 1
    poison: str | None = None

    def create(self, records: Records) -> None:
        """There is nothing to create."""
        assert records.range("said") == []

    def apply(self, events: Sequence[RecordedEvent], records: Records) -> None:
        """Count."""
        for recorded in events:
            match recorded.event:
                case e.MessageAdded(message_id=message_id):
                    key = f"{recorded.session_id} {message_id}"
                    records.put("said", key, (records.get("said", key) or 0) + 1)
                    if message_id == self.poison:
                        raise ValueError(f"cannot count {message_id}")
                case _:
                    pass

    def forget(self, tenant: str, session_id: str, records: Records) -> None:
        """Forget the session's words."""
        assert tenant
        for key, _ in records.range("said", prefix=f"{session_id} "):
            records.delete("said", key)


def words(log: Log) -> list[tuple[str, int]]:
    """Return the rows of ``Words``, in order."""
    with log.views.read() as connection:
        return Records(connection.of("words")).range("said")


@pytest.fixture
def log(redis_url: str) -> Iterator[Log]:
    """An empty log."""
    opened = Log(redis_url)
    yield opened
    opened.close()


@pytest.fixture
def other(log: Log) -> Iterator[Callable[..., Log]]:
    """Open the storage of ``log`` again, as another process would."""
    opened: list[Log] = []

    def again(*, read_only: bool = False) -> Log:
        opened.append(log.again(read_only=read_only))
        return opened[-1]

    yield again
    for one in opened:
        one.close()


def test_all_views_are_what_a_fresh_fold_gives(log: Log, other: Callable[..., Log]) -> None:
    """Also after sessions were erased, reworded, compacted and given to others, in pages; another process agrees."""
    log.with_views()
    log.engine.add(Words())
    for n in range(12):
        log.append(f"s-{n}", STARTED, said("one"), said("two"), said("three"))
    assert log.engine.catch_up()
    log.append("s-1", e.MessageEdited(message_id="two", content="other"), e.MessageRemoved(message_id="one"))
    log.append("s-2", e.HistoryCleared(), said("one"))
    log.append("s-3", e.HistoryCompacted(message_id="sum", summary="short", kept=1))
    log.append("s-4", e.OwnerAssigned(user_id="bob"))
    log.append(
        "s-5", e.StatusChanged(status="completed", reason=None), e.RouteEntered(route="r", title=None, reason=None)
    )
    log.delete("s-6")
    assert log.engine.catch_up()
    assert [log.engine.check(status.name) for status in log.engine.status()] == [[], [], []]
    counts = log.views.counts("default")
    assert (counts.sessions, counts.users, counts.statuses) == (11, 2, {"active": 10, "completed": 1})
    assert counts.events == 11 * 4 + 8
    assert [(user.user_id, user.sessions, user.messages) for user in log.views.select_users("default", limit=9)] == [
        ("alice", 10, 26),
        ("bob", 1, 3),
    ]
    assert [row.message_id for row in log.views.select_messages("default", "bob", limit=9)] == ["three", "two", "one"]
    second = other(read_only=True).with_views()
    assert second.views.select_sessions(ALL, limit=99) == log.views.select_sessions(ALL, limit=99)
    assert second.engine.check("session_index") == []


def test_wrong_rows_are_named_and_rebuilt(log: Log) -> None:
    """Checking names the session; rebuilding gives every row again, and leaves no key of what it replaced."""
    filled(log).with_views()
    log.engine.add(Words())
    assert log.engine.catch_up()
    expected = words(log)
    with log.views.write() as connection:
        connection.of("session_index").delete(b"rows", b"default/s-3")
        Records(connection.of("words")).put("said", "s-4 one", 9)
    assert log.engine.check("session_index") == [
        "view 'session_index', table 'rows': the row of session 's-3' of tenant 'default' is missing"
    ]
    assert log.engine.check("words") == ["view 'words', table 'said': a row differs in value"]
    assert log.engine.check("session_index", "other") == [
        "view 'session_index', table 'rows': a row of another tenant is missing"
    ]
    before = _keys(log)
    log.engine.rebuild()
    assert words(log) == expected
    assert [log.engine.check(status.name) for status in log.engine.status()] == [[], [], []]
    assert len(_keys(log)) == len(before)
    assert _keys(log, "build") == []


def _keys(log: Log, word: str = "") -> list[bytes]:
    keys: list[bytes] = log.database.read("KEYS", f"*{word}*")
    return keys


class Stop(Exception):
    """What a progress callback raises to interrupt."""


def test_an_interrupted_rebuild_goes_on(log: Log, other: Callable[..., Log], monkeypatch: pytest.MonkeyPatch) -> None:
    """The next rebuild, of any process, gives no event again; what is erased meanwhile does not come back."""
    monkeypatch.setattr(building, "PAGE", 10)
    filled(log).engine.add(Words())
    assert log.engine.catch_up()

    def stop(now: RebuildProgress) -> None:
        if now.position >= 30:
            raise Stop

    with pytest.raises(Stop):
        log.engine.rebuild("words", stop)
    log.delete("s-2")
    second = other()
    given: list[RecordedEvent] = []

    class Counting(Words):
        def apply(self, events: Sequence[RecordedEvent], records: Records) -> None:
            given.extend(events)
            super().apply(events, records)

    second.engine.add(Counting())
    refused: list[str] = []

    def rebuild_too(_: RebuildProgress) -> None:
        with pytest.raises(StoreError, match="'words' is being rebuilt") as caught:
            log.engine.rebuild("words")
        refused.append(str(caught.value))
        assert log.views.discard_builds() == ["words"]

    second.engine.rebuild("words", rebuild_too)
    assert len(given) == 31
    assert refused
    assert not any(key.startswith("s-2 ") for key, _ in words(second))
    assert second.engine.check("words") == []
    with pytest.raises(Stop):
        log.engine.rebuild("words", stop)
    assert log.views.discard_builds() == []
    assert _keys(log, "build") == []


def test_a_page_that_was_written_in_part_is_begun_anew(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where views are built, pages are written in steps: of one that was cut off nothing is believed."""
    filled(log).with_views()
    assert log.engine.catch_up()
    written = RedisViews._run  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - where it is cut off
    monkeypatch.setattr("turnlog.adapters.redis.views.STEP", 20)
    steps: list[int] = []

    def cut(views: RedisViews, *arguments: Any) -> None:
        steps.append(1)
        if len(steps) == 6:
            raise Stop
        written(views, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(RedisViews, "_run", cut)
        with pytest.raises(Stop):
            log.engine.rebuild("session_index")
    log.engine.rebuild("session_index")
    assert log.engine.check("session_index") == []
    assert log.views.counts("default").sessions == 20
    assert _keys(log, "build") == []
    assert len({key.split(b":")[2] for key in _keys(log, ":session_index.")}) == 1, "parts of it are left"


def test_a_poisonous_event_parks_its_session_alone(log: Log) -> None:
    """What it had written is undone, the others go on, and a retry gives what never failed."""
    view = Words()
    view.poison = "two"
    log.engine.add(view)
    log.append("bad", STARTED, said("one"), said("two"))
    log.append("good", STARTED, said("one"))
    assert log.engine.catch_up()
    assert words(log) == [("bad one", 1), ("good one", 1)]
    assert [(one.session_id, one.version) for one in log.engine.parked("words")] == [("bad", 3)]
    view.poison = None
    assert log.engine.retry("words")
    assert words(log) == [("bad one", 1), ("bad two", 1), ("good one", 1)]
    assert log.engine.parked("words") == ()


def test_who_lost_his_turn_writes_nothing(log: Log, other: Callable[..., Log]) -> None:
    """A writer that was believed dead, and whose turn another has taken, is refused as a whole."""
    filled(log, 2).with_views()
    second = other().with_views()
    losing = pytest.raises(StoreUnavailable, match="its turn at the views was over")
    with losing, log.views.write() as connection:
        log.views.record(connection, log.views.checkpoints(connection)["session_index"]._replace(position=5))
        log.database.write("DEL", b"turnlog:{views}:lease")
        assert second.engine.catch_up()
    assert log.engine.checkpoint("session_index") == 6
    assert log.engine.check("session_index") == []


def test_who_lost_his_bench_says_so(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else took it over just before the swap: that fails by name, and what answers goes on answering."""
    filled(log.with_views())
    assert log.engine.catch_up()

    def taken_over(built: RedisViews, name: str) -> None:
        with log.views.write() as home:
            built.leave(home, name)

    monkeypatch.setattr(log.views, "lay_out", taken_over)
    with pytest.raises(StoreUnavailable, match="its turn at the views was over"):
        log.engine.rebuild("session_index")
    monkeypatch.undo()
    assert len(log.views.select_sessions(ALL, limit=99)) == 20
    log.engine.rebuild("session_index")
    assert len(log.views.select_sessions(ALL, limit=99)) == 20
    assert log.engine.check("session_index") == []


@pytest.mark.parametrize("differ", [True, False])
def test_a_check_that_lost_its_bench_finds_no_difference(
    log: Log, other: Callable[..., Log], redis: Redis, differ: bool
) -> None:
    """It was believed dead, and what it had built dropped: it says neither that views differ nor that they do not."""
    view = filled(log).with_views().views.register(SessionIndex())
    second = other().with_views()
    assert not differ or log.engine.catch_up()
    with log.views.workshop(view, keep=False) as workshop, log.views.read() as home:
        (turn,) = workshop.turns
        redis.execute("CLIENT", "KILL", "ID", turn.token.rpartition(b":")[2])
        assert second.views.discard_builds() == []
        with pytest.raises(StoreUnavailable, match="its turn at the views was over"):
            next(log.views.differences(home, workshop, "session_index", None))


def test_a_check_renews_its_turn_as_it_reads(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each row, if it is time."""
    assert filled(log).with_views().engine.catch_up()
    asked: list[bool] = []

    def renew(_: lease.Turn, *, at_once: bool = False) -> None:
        asked.append(at_once)

    monkeypatch.setattr(lease.Turn, "renew", renew)
    assert log.engine.check("session_index") == []
    assert asked.count(False) > len(log.views.select_sessions(ALL, limit=99)) == 20


def test_who_lost_his_bench_leaves_it_to_the_next(log: Log, other: Callable[..., Log], redis: Redis) -> None:
    """What another builds there by then is not his to clear away."""
    view = filled(log).with_views().views.register(SessionIndex())
    second = other().with_views()
    with ExitStack() as held:
        with log.views.workshop(view, keep=True) as lost:
            (turn,) = lost.turns
            redis.execute("CLIENT", "KILL", "ID", turn.token.rpartition(b":")[2])
            taken = held.enter_context(second.views.workshop(view, keep=True))
        with taken.read() as building:
            assert "session_index" in taken.checkpoints(building)


def test_nobody_waits_for_the_dead(log: Log, monkeypatch: pytest.MonkeyPatch, redis_url: str, redis: Redis) -> None:
    """A turn whose holder's connection is gone is taken over at once; one that is held is not, and not waited for."""
    monkeypatch.setattr(lease, "LIFE_S", 600.0)
    log.with_views().append("s", STARTED)
    server = Server(redis_url)
    with lease.Lease(server, b"turnlog:{views}:lease").held(0) as turn:
        assert turn is not None
        assert not log.engine.catch_up()
        assert [row[0] for row in log.recorder.select_log(limit=9)] == [1]
        log.append("s", said("one"))
        redis.execute("CLIENT", "KILL", "ID", turn.token.rpartition(b":")[2])  # as the system does for the killed
        assert log.engine.catch_up(wait=True)
    server.close()
    assert log.row("s").summary.message_count == 1


def test_a_projection_is_kept_to_its_own(log: Log) -> None:
    """Tables are its own whatever they are called, values are JSON, and names are checked."""
    log.with_views()
    log.engine.add(Words())
    with log.views.write() as connection:
        records = Records(connection.of("words"))
        for key in ("b", "a", "aü", "a\U0001f600", "a\uffee"):
            records.put("rows", key, {"key": key})
        assert [key for key, _ in records.range("rows", prefix="a")] == ["a", "aü", "a\uffee", "a\U0001f600"]
        assert [key for key, _ in records.range("rows", after="aü", reverse=True, limit=2)] == ["b", "a\U0001f600"]
        for name in ("tables", "a:b", ""):
            with pytest.raises(InvalidInput):
                records.put(name, "key", 1)
    assert log.views.select_sessions(ALL, limit=9) == []
    with log.views.read() as connection:
        assert Records(connection.of("words")).get("rows", "b") == {"key": "b"}


def test_views_that_cannot_forget_hold_until_they_are_rebuilt(log: Log, other: Callable[..., Log]) -> None:
    """They are named, also where another program deletes; the others have forgotten with the erasure itself."""

    class Unforgetting(Words):
        forget: Any = None

    log.with_views()
    log.engine.add(Unforgetting())
    for session_id in ("a", "b"):
        log.append(session_id, STARTED, said("one"))
    assert log.engine.catch_up()
    with log.views.erasing() as connection:
        assert log.views.forget(connection, "default", "a") == ["words"]
    log.delete("a")
    assert log.views.select_session("default", "a") is None
    assert log.views.select_messages("default", "alice", limit=9)[0].session_id == "b"
    assert log.engine.catch_up()
    assert log.engine.holding() == ["words"]
    log.engine.purge()
    assert words(log) == [("b one", 1)]
    with other().views.erasing() as connection:
        assert other().views.forget(connection, "default", "b") == ["message_index", "session_index", "words"]


def test_a_newer_revision_is_built_by_itself(log: Log, other: Callable[..., Log]) -> None:
    """Adding it is enough."""
    filled(log, 3).with_views()
    assert log.engine.catch_up()

    class Newer(MessageIndex):
        revision = 2

    newer = other()
    newer.engine.add(Newer())
    assert [status.revision for status in newer.engine.status() if status.name == "message_index"] == [2]
    assert newer.engine.check("message_index") == []
