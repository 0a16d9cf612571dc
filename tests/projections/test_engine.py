"""Registering views and catching up: checkpoints, locks, what is refused."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.projections.log import STARTED, Log, Words, at, execute, said, words
from turnlog.adapters.memory import MemoryRecorder
from turnlog.domain import events as e
from turnlog.domain.errors import CorruptLog, InvalidInput, StoreError, StoreUnavailable
from turnlog.domain.values import RecordedEvent
from turnlog.projections.engine import Engine
from turnlog.projections.session_index import SessionFilter, SessionIndex

ALL = SessionFilter("default")


def test_catching_up_reads_every_write(log: Log) -> None:
    """After catching up, every view has what was appended before, and says so."""
    log.with_views()
    log.engine.add(Words())
    assert log.engine.catch_up()
    for n in range(3):
        last = log.append(f"s-{n}", STARTED, said("hello"))
        assert log.engine.checkpoint("words") < last
        assert log.engine.catch_up()
        assert log.engine.checkpoint("words") == last
    assert words(log) == [("s-0", "hello", 1), ("s-1", "hello", 1), ("s-2", "hello", 1)]
    assert len(log.views.select_sessions(ALL, limit=9)) == 3
    assert {status.lag for status in log.engine.status()} == {0}


def test_only_the_views_named_are_caught_up(log: Log) -> None:
    """The others stay where they are; an unknown name is refused."""
    log.with_views().append("s", STARTED)
    assert log.engine.catch_up(names=["session_index"])
    assert {status.name: status.lag for status in log.engine.status()} == {"session_index": 0, "message_index": 1}
    with pytest.raises(InvalidInput, match=r"^view: there is no view 'nothing'"):
        log.engine.catch_up(names=["nothing"])


def test_many_pages(log: Log) -> None:
    """A view far behind is brought up page by page; what an application counts it counts once."""
    log.with_views()
    log.engine.add(Words())
    log.append("s", STARTED, *[said("hello")] * 1200)
    assert log.engine.catch_up()
    assert words(log) == [("s", "hello", 1200)]
    assert log.row("s").summary.message_count == 1200
    assert len(log.messages("s")) == 1200


def test_so_many_pages_at_most(log: Log) -> None:
    """Who has little time brings a view a part of the way, and is told that it is not there."""
    log.with_views().views.page = 5
    log.append("s", STARTED, *[said("hello")] * 19)
    assert not log.engine.catch_up(pages=2)
    assert {status.name: status.lag for status in log.engine.status()} == {"session_index": 10, "message_index": 10}
    assert log.engine.catch_up(pages=2)
    assert len(log.messages("s")) == 19


def test_a_page_applied_again_changes_nothing(log: Log) -> None:
    """With an old checkpoint put in its place, a view keyed by session ends with the same rows."""
    log.with_views()
    edit = e.MessageEdited(message_id="1", content="x")
    log.append("s", STARTED, said("1"), said("2"), edit, e.MessageRemoved(message_id="2"), said("3"))
    assert log.engine.catch_up()
    before = (log.row("s"), log.messages("s"))
    log.query("UPDATE turnlog_views SET position = 2")
    assert log.engine.catch_up()
    assert (log.row("s"), log.messages("s")) == before
    assert {status.parked for status in log.engine.status()} == {0}
    assert log.engine.check("session_index") + log.engine.check("message_index") == []


def test_nobody_is_waited_for(kept_log: Log, other: Callable[..., Log]) -> None:
    """While somebody else writes, catching up gives up at once; ``tail`` names what is then missing."""
    kept_log.with_views().append("a", STARTED)
    assert kept_log.engine.catch_up()
    kept_log.append("b", STARTED)
    kept_log.append("c", STARTED, said("1"))
    kept_log.append("b", said("2"))
    assert kept_log.engine.tail("session_index", 4) == ["default/b", "default/c"]
    assert kept_log.engine.tail("session_index", 3) is None
    with other().views.write():
        assert not kept_log.engine.catch_up()
        assert kept_log.engine.checkpoint("session_index") == 1
    assert kept_log.engine.catch_up()
    assert kept_log.engine.tail("session_index", 4) == []


def test_several_handles_share_the_views(kept_log: Log, other: Callable[..., Log]) -> None:
    """A second process finds the views there, and what one applies the other does not apply again."""
    kept_log.with_views()
    kept_log.engine.add(Words())
    second = other().with_views()
    second.engine.add(Words())
    kept_log.append("s", STARTED, said("hello"))
    assert second.engine.catch_up(wait=True)
    assert kept_log.engine.catch_up()
    assert words(kept_log) == [("s", "hello", 1)]


def test_a_read_only_store_only_looks(kept_log: Log, other: Callable[..., Log]) -> None:
    """Nothing is created or written; what is level is level, what is behind stays behind."""
    kept_log.append("s", STARTED)
    empty = other(read_only=True).with_views()
    assert not empty.engine.catch_up()
    assert empty.engine.tail("session_index", 9) is None
    assert empty.engine.status() == ()
    kept_log.with_views().engine.catch_up()
    reader = other(read_only=True).with_views()
    assert reader.engine.catch_up()
    assert reader.row("s").summary.version == 1
    assert reader.engine.check("session_index") == []
    kept_log.append("s", said("1"))
    assert not reader.engine.catch_up()
    assert reader.engine.tail("session_index", 9) == ["default/s"]


class Named(Words):
    """``Words`` by any name and revision."""

    def __init__(self, name: Any = "words", revision: Any = 1) -> None:
        self.name = name
        self.revision = revision


@pytest.mark.parametrize("name", ["", "a b", "1a", "x" * 64, "a-b", None, 7])
def test_names_that_are_refused(log: Log, name: object) -> None:
    """A projection's name is an identifier."""
    with pytest.raises(InvalidInput, match=r"^projection: expected a name"):
        log.engine.add(Named(name))


@pytest.mark.parametrize("revision", [0, -1, "1", None, True, 1.0])
def test_revisions_that_are_refused(log: Log, revision: object) -> None:
    """A revision is a whole number from 1 on."""
    with pytest.raises(InvalidInput, match=r"^projection: expected a revision"):
        log.engine.add(Named(revision=revision))


def test_what_is_no_projection_is_refused(log: Log) -> None:
    """A projection has ``create`` and ``apply``."""

    class Nothing:
        name = "nothing"
        revision = 1

    with pytest.raises(InvalidInput, match=r"^projection: expected a method 'create'"):
        log.engine.add(Nothing())


def test_two_projections_cannot_have_one_name(log: Log) -> None:
    """Another class of the same name is refused; the same one again is the same one."""
    log.engine.add(Words())
    log.engine.add(Words())
    with pytest.raises(InvalidInput, match=r"^projection: another one is called 'words'"):
        log.engine.add(Named())


@pytest.mark.parametrize("taken", ["words", "words_by_session", "WORDS"])
def test_tables_of_others_are_left_alone(log: Log, taken: str) -> None:
    """A projection that wants a table which is there already, and not its own, is refused; the table is untouched."""
    if log.is_mariadb and taken != "words":
        pytest.skip("on MariaDB that is another name: case counts, and an index is its table's own")
    log.query(f"CREATE TABLE {taken} (mine INTEGER)")
    with pytest.raises(InvalidInput, match=r"^projection: its (table|index) 'words\w*' is there already"):
        log.engine.add(Words())
    assert log.query(f"SELECT * FROM {taken}") == []
    assert log.engine.status() == ()


def test_a_table_of_the_log_is_no_projections(kept_log: Log) -> None:
    """Also with a rebuild in view: the log cannot be replaced."""

    class Thief(Named):
        def create(self, connection: Any) -> None:
            execute(connection, "CREATE TABLE IF NOT EXISTS turnlog_events (mine INTEGER)")

    kept_log.append("s", STARTED)
    with pytest.raises(InvalidInput, match="turnlog_events"):
        kept_log.engine.add(Thief("thief"))
    assert kept_log.recorder.position() == 1


def test_an_older_program_does_not_touch_a_newer_view(kept_log: Log, other: Callable[..., Log]) -> None:
    """A view stored in a newer revision is refused, when it is added and when it was replaced meanwhile."""
    kept_log.engine.add(Words())
    newer = other()
    newer.engine.add(second := Words2())
    assert newer.engine.status()[0].revision == second.revision
    kept_log.append("s", STARTED)
    with pytest.raises(StoreError, match=r"'words' is stored in revision 2, this program knows 1"):
        kept_log.engine.catch_up()
    with pytest.raises(StoreError, match="a newer program made it"):
        other().engine.add(Words())


class Words2(Words):
    """``Words``, changed."""

    revision = 2


def test_a_view_ahead_of_the_log_is_refused(kept_log: Log) -> None:
    """A log that was restored from an older copy than its views is not silently believed."""
    kept_log.with_views().append("s", STARTED)
    kept_log.query("UPDATE turnlog_views SET position = 7")
    with pytest.raises(StoreError, match=r"up to 7, but the log ends at 1.*rebuild the view"):
        kept_log.engine.catch_up()
    kept_log.engine.rebuild()
    assert kept_log.engine.catch_up()
    assert kept_log.row("s").summary.version == 1


@pytest.mark.parametrize(
    "statements",
    [
        ["COMMIT"],
        ["ROLLBACK"],
        ["COMMIT", "BEGIN"],
        ["INSERT OR ROLLBACK INTO words SELECT * FROM words LIMIT 1"],
        ["COMMIT", "INSERT INTO words VALUES (NULL, NULL, NULL)"],
    ],
)
def test_a_projection_must_not_end_the_transaction(log: Log, statements: list[str]) -> None:
    """That would part rows and checkpoint: it is refused, however it is done, and no session is blamed for it."""

    class Ending(Named):
        def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
            super().apply(events, connection)
            for statement in statements:
                execute(connection, statement)

    if log.url is not None and "INSERT OR ROLLBACK" in statements[0]:
        pytest.skip("only SQLite has such a statement")
    log.engine.add(Ending())
    log.append("a", STARTED, said("1"))
    log.append("b", STARTED, said("1"))
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="must not commit or roll back"):
            log.engine.catch_up()
        assert log.engine.parked("words") == ()
        assert log.engine.checkpoint("words") == 0


def test_damaged_views_say_so(kept_log: Log) -> None:
    """A view whose table is gone is damage, not an empty list."""
    kept_log.with_views().append("s", STARTED)
    kept_log.query("DROP TABLE turnlog_session_index")
    with pytest.raises(CorruptLog, match="no such table|does(n't| not) exist"):
        kept_log.views.select_sessions(ALL, limit=1)


def test_clearing_empties_every_view() -> None:
    """As ``store.clear()`` in memory needs it."""
    log = Log().with_views()
    log.engine.add(Words())
    log.append("s", STARTED, said("1"))
    assert log.engine.catch_up()
    assert isinstance(log.recorder, MemoryRecorder)
    log.recorder.clear()
    log.views.clear()
    assert words(log) == []
    assert log.views.select_sessions(ALL, limit=1) == []
    log.append("t", STARTED, said("2"))
    assert log.engine.catch_up()
    assert words(log) == [("t", "2", 1)]
    log.close()


def test_events_come_as_they_were_recorded(log: Log) -> None:
    """A projection is given each event with its place, its time and its content, erased ones by their topic."""
    seen: list[RecordedEvent] = []

    class Seeing(Named):
        def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
            super().apply(events, connection)
            seen.extend(events)

    log.append("s", STARTED, said("1"))
    log.append("gone", STARTED)
    log.delete("gone")
    log.engine.add(Seeing("seeing"))
    assert log.engine.catch_up()
    assert [(event.session_id, event.version, event.position) for event in seen] == [
        ("s", 1, 1),
        ("s", 2, 2),
        ("gone", 1, 3),
        ("gone", 2, 4),
    ]
    assert seen[1].event == said("1")
    assert seen[1].recorded_at == at(2)
    assert seen[2].event == e.Erased("SessionStarted.v1")


def test_a_newer_subclass_of_a_built_in_view_is_rebuilt(log: Log) -> None:
    """The built-in views are projections like any other: a new revision rebuilds them."""

    class Newer(SessionIndex):
        revision = 2

    log.with_views().append("s", STARTED)
    engine = Engine(log.recorder, log.views, log.codec)
    engine.add(Newer())
    assert {status.name: status.revision for status in engine.status()}["session_index"] == 2
    assert log.row("s").summary.version == 1
