"""Rebuilding views: beside the one that answers, resumable, one at a time, swapped in one transaction."""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.projections.log import STARTED, Log, Words, execute, filled, said, words
from turnlog.domain import events as e
from turnlog.domain.errors import CorruptLog, InvalidInput, StoreError
from turnlog.domain.values import RebuildProgress, RecordedEvent
from turnlog.projections import building


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build in pages of ten events, so that few make many."""
    monkeypatch.setattr(building, "PAGE", 10)


class Counting(Words):
    """``Words`` that counts how many events it was given."""

    def __init__(self) -> None:
        self.given = 0

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Count."""
        self.given += len(events)
        super().apply(events, connection)


class Stop(Exception):
    """What a progress callback raises to interrupt."""


def stop_at(position: int) -> Callable[[RebuildProgress], None]:
    """Return a progress callback that interrupts once a rebuild has come to a position."""

    def progress(now: RebuildProgress) -> None:
        if now.position >= position:
            raise Stop

    return progress


def test_a_rebuilt_view_is_what_a_fresh_fold_gives(log: Log) -> None:
    """Wrong rows are gone, missing ones are there, and the view stands at the log's head."""
    filled(log).with_views()
    log.engine.add(Words())
    assert log.engine.catch_up()
    expected = words(log)
    log.query("UPDATE words SET said = 9")
    log.query("DELETE FROM turnlog_session_index WHERE session_id = 's-3'")
    log.engine.rebuild()
    assert words(log) == expected
    assert [log.engine.check(status.name) for status in log.engine.status()] == [[], [], []]
    assert {status.lag for status in log.engine.status()} == {0}


def test_progress_is_told(log: Log) -> None:
    """From the beginning to the head, with the events that were applied."""
    filled(log).with_views()
    told: list[RebuildProgress] = []
    log.engine.rebuild("session_index", told.append)
    assert [(one.position, one.events) for one in told] == [(n, n) for n in range(0, 61, 10)]
    assert {(one.view, one.target) for one in told} == {("session_index", 60)}


def test_an_interrupted_rebuild_goes_on(kept_log: Log, other: Callable[..., Log]) -> None:
    """What a progress callback raises stops it; the next rebuild, of any process, gives no event again."""
    filled(kept_log).engine.add(Words())
    assert kept_log.engine.catch_up()
    with pytest.raises(Stop):
        kept_log.engine.rebuild("words", stop_at(30))
    second, view = other(), Counting()
    second.engine.add(view)
    second.engine.rebuild("words")
    assert view.given == 30
    assert second.engine.check("words") == []


@pytest.mark.parametrize("kept_log", ["file"], indirect=True)
def test_what_was_built_of_another_revision_or_log_is_not_used(kept_log: Log, other: Callable[..., Log]) -> None:
    """A scratch database of an older revision, or one whose last event the log does not have, is begun anew."""
    filled(kept_log).engine.add(Words())
    with pytest.raises(Stop):
        kept_log.engine.rebuild("words", stop_at(30))
    with kept_log.database.beside("rebuild-words").write() as connection:
        connection.execute("UPDATE turnlog_views SET mark = x'00'")
    view = Counting()
    second = other()
    second.engine.add(view)
    second.engine.rebuild("words")
    assert view.given == 60
    with pytest.raises(Stop):
        second.engine.rebuild("words", stop_at(30))
    newer = Counting()
    newer.revision = 2
    other().engine.add(newer)
    assert newer.given == 60


def test_a_damaged_scratch_database_is_begun_anew(file_log: Log) -> None:
    """It can be made again, so it is."""
    filled(file_log).with_views()
    Path(f"{file_log.path}-rebuild-session_index").write_bytes(b"nonsense" * 4096)
    file_log.engine.rebuild("session_index")
    assert file_log.engine.check("session_index") == []


def test_two_rebuilders_at_once(log: Log) -> None:
    """The second is refused, naming the view; the first is not disturbed."""
    filled(log).with_views()
    refused: list[str] = []

    def rebuild_too(_: RebuildProgress) -> None:
        with pytest.raises(StoreError, match="'session_index' is being rebuilt") as caught:
            log.engine.rebuild("session_index")
        refused.append(str(caught.value))

    log.engine.rebuild("session_index", rebuild_too)
    assert len(refused) == 7
    assert log.engine.check("session_index") == []


def test_an_unknown_view_is_refused(log: Log) -> None:
    """Naming those there are."""
    with pytest.raises(InvalidInput, match=r"no view 'words'; known: session_index, message_index"):
        log.with_views().engine.rebuild("words")


class Words2(Words):
    """``Words``, changed: another table."""

    revision = 2

    def create(self, connection: Any) -> None:
        """Create the tables."""
        super().create(connection)
        execute(connection, "CREATE TABLE words2 (note TEXT)")


def test_a_new_revision_is_built_by_itself(kept_log: Log, other: Callable[..., Log]) -> None:
    """Adding it is enough; what the old one had created is gone."""
    filled(kept_log).engine.add(Words2())
    assert kept_log.engine.catch_up()

    class Words3(Words):
        revision = 3

    newer = other()
    newer.engine.add(Words3())
    assert [(status.revision, status.lag) for status in newer.engine.status()] == [(3, 0)]
    with pytest.raises(CorruptLog):
        newer.query("SELECT * FROM words2")
    assert newer.engine.check("words") == []


def test_while_somebody_builds_the_new_revision_the_old_one_answers(kept_log: Log, other: Callable[..., Log]) -> None:
    """A second process that wants the same revision goes on with the old one, and takes over if the first gives up."""
    filled(kept_log).engine.add(Words())
    assert kept_log.engine.catch_up()
    first, second = other(), other()
    expected = words(kept_log)
    with first.views.workshop(first.views.register(Words2()), keep=True) as workshop:
        assert workshop is not None
        second.engine.add(Words2())
        assert [status.revision for status in second.engine.status()] == [1]
        assert words(second) == expected
        assert not second.engine.catch_up()
        assert second.engine.tail("words", 100) is None
        kept_log.append("s-99", STARTED, said("one"))
        assert kept_log.engine.catch_up()
        assert len(words(second)) == len(expected) + 1
    assert second.engine.catch_up()
    assert [status.revision for status in second.engine.status()] == [2]


def test_what_is_erased_during_a_rebuild_does_not_come_back(log: Log) -> None:
    """A session whose events were applied in the new generation before it was erased has no row in it."""
    filled(log).with_views()
    log.engine.add(Words())
    assert log.engine.catch_up()

    def erase_one(now: RebuildProgress) -> None:
        if now.position == 30:
            log.delete({"session_index": "s-1", "message_index": "s-2", "words": "s-3"}[now.view])

    log.engine.rebuild(progress=erase_one)
    for session_id in ("s-1", "s-2", "s-3"):
        assert log.views.select_session("default", session_id) is None
        assert log.messages(session_id) == []
        assert session_id not in {row[0] for row in words(log)}
    assert log.engine.catch_up()
    assert [log.engine.check(status.name) for status in log.engine.status()] == [[], [], []]


def test_what_was_parked_and_then_erased_is_not_parked(log: Log) -> None:
    """The record of a parking that a rebuild made, of a session erased since, does not come with the new rows."""
    view = Words()
    view.poison = "two"
    filled(log).engine.add(view)
    assert log.engine.catch_up()

    def erase_one(now: RebuildProgress) -> None:
        if now.position == 30:
            log.delete("s-3")

    log.engine.rebuild(progress=erase_one)
    assert len(log.engine.parked("words")) == 19
    assert "s-3" not in {parked.session_id for parked in log.engine.parked("words")}
    assert "s-3" not in {row[0] for row in words(log)}


@pytest.mark.parametrize("kept_log", ["file"], indirect=True)
def test_unfinished_builds_can_be_discarded(kept_log: Log, other: Callable[..., Log]) -> None:
    """What an interrupted rebuild left is deleted; one that is running is named instead."""
    filled(kept_log).with_views()
    with pytest.raises(Stop):
        kept_log.engine.rebuild("session_index", stop_at(30))
    assert kept_log.path is not None
    scratch = Path(f"{kept_log.path}-rebuild-session_index")
    assert scratch.exists()
    pending: list[list[str]] = []
    kept_log.engine.rebuild("message_index", lambda _: pending.append(other().views.discard_builds()))
    assert pending[0] == ["message_index"]
    assert not scratch.exists()
    assert kept_log.views.discard_builds() == []
    assert [file.name for file in kept_log.path.parent.glob("*rebuild*") if file.suffix != ".claim"] == []


def test_what_memory_is_building_is_named() -> None:
    """There is nothing to delete then, but it is told."""
    log = filled(Log()).with_views()
    pending: list[list[str]] = []
    log.engine.rebuild("session_index", lambda _: pending.append(log.views.discard_builds()))
    assert pending[0] == ["session_index"]
    assert log.views.discard_builds() == []
    log.close()


class Elaborate(Words):
    """A read model with everything that SQLite has."""

    def create(self, connection: Any) -> None:
        """Create the tables."""
        super().create(connection)
        connection.execute(
            "CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT, size AS (length(text)))"
        )
        connection.execute("CREATE VIRTUAL TABLE search USING fts5 (session_id UNINDEXED, text)")
        connection.execute("CREATE TABLE plain (session_id TEXT, text TEXT)")
        connection.execute("CREATE TABLE keyed (session_id TEXT PRIMARY KEY, text TEXT) WITHOUT ROWID")
        connection.execute("CREATE VIEW loud AS SELECT session_id, upper(text) AS text FROM plain")
        connection.execute(
            "CREATE TRIGGER noted AFTER INSERT ON plain BEGIN INSERT INTO notes (text) VALUES (new.text); END"
        )
        connection.execute("CREATE INDEX notes_by_text ON notes (text) WHERE text IS NOT NULL")

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Note what is said."""
        for recorded in events:
            if isinstance(recorded.event, e.MessageAdded):
                row = (recorded.session_id, recorded.event.content)
                connection.execute("INSERT INTO search (session_id, text) VALUES (?, ?)", row)
                connection.execute("INSERT INTO plain VALUES (?, ?)", row)
                connection.execute("INSERT OR REPLACE INTO keyed VALUES (?, ?)", row)
                if recorded.version == 3:
                    connection.execute("DELETE FROM plain WHERE text LIKE '%one'")
                    connection.execute("DELETE FROM notes WHERE text LIKE '%two'")


class Searching(Words):
    """Full-text search that keeps no text of its own, and a table that is called as if it were inside one."""

    def create(self, connection: Any) -> None:
        """Create the tables."""
        super().create(connection)
        connection.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, session_id TEXT, text TEXT)")
        connection.execute("CREATE VIRTUAL TABLE docs USING fts5 (text, content='')")
        connection.execute("CREATE VIRTUAL TABLE docs_of_old USING fts4 (text, content='')")
        connection.execute("CREATE VIRTUAL TABLE docs_some USING fts5 (text, content='texts', content_rowid='id')")
        connection.execute("CREATE TABLE docs_extra (revision INTEGER)")

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Index what is said, in ``docs_some`` every second text only."""
        for recorded in events:
            if isinstance(recorded.event, e.MessageAdded):
                id_, text = recorded.position, recorded.event.content
                connection.execute("INSERT INTO texts VALUES (?, ?, ?)", (id_, recorded.session_id, text))
                for table in ("docs", "docs_of_old", "docs_some")[: 3 - id_ % 2]:
                    connection.execute(f"INSERT INTO {table} (rowid, text) VALUES (?, ?)", (id_, text))
                connection.execute("INSERT INTO docs_extra VALUES (?)", (self.revision,))

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Forget the session's texts in ``docs``."""
        assert tenant
        of_session = "FROM texts WHERE session_id = ?"
        connection.execute(
            f"INSERT INTO docs (docs, rowid, text) SELECT 'delete', id, text {of_session}", (session_id,)
        )
        connection.execute(f"DELETE {of_session}", (session_id,))


def found(log: Log, word: str) -> list[list[Any]]:
    """Return the numbers of the texts that each full-text table finds a word in."""
    tables = ("docs", "docs_of_old", "docs_some")
    return [[row[0] for row in log.query(f"SELECT rowid FROM {t} WHERE {t} MATCH ?", word)] for t in tables]


@pytest.fixture(params=[sqlite3.sqlite_version_info, (3, 36, 0)], ids=["this SQLite", "one that tells less"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let SQLite seem to be of another version."""
    monkeypatch.setattr(sqlite3, "sqlite_version_info", request.param)


@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("log", ["memory", "file"], indirect=True)
def test_full_text_search_without_a_text_of_its_own_is_swapped(log: Log) -> None:
    """Contentless tables, and those whose content is elsewhere, find after a rebuild what they found before."""
    log.engine.add(Searching())
    filled(log, 5)
    assert log.engine.catch_up()
    before = found(log, "two")
    assert [len(numbers) for numbers in before] == [5, 5, 2]
    log.engine.rebuild()
    assert found(log, "two") == before
    log.append("s-9", STARTED, said("two"))
    assert log.engine.catch_up()
    assert [len(numbers) for numbers in found(log, "two")[:2]] == [6, 6]
    assert log.engine.check("words") == []
    log.query("INSERT INTO docs (rowid, text) VALUES (99, 'more')")
    (difference,) = log.engine.check("words")
    assert "table 'docs_docsize': a row (id 99)" in difference


@pytest.mark.usefixtures("version")
@pytest.mark.parametrize("kept_log", ["file"], indirect=True)
def test_a_table_called_like_an_inner_one_is_rebuilt(kept_log: Log, other: Callable[..., Log]) -> None:
    """Its rows are those of the new revision, as everything else's."""
    filled(kept_log, 2).engine.add(Searching())
    assert kept_log.engine.catch_up()

    class Searching2(Searching):
        revision = 2

    newer = other()
    newer.engine.add(Searching2())
    assert newer.query("SELECT DISTINCT revision FROM docs_extra") == [(2,)]
    assert newer.query("SELECT count(*) FROM docs_extra") == [(4,)]
    assert newer.engine.check("words") == []


@pytest.mark.parametrize("log", ["memory", "file"], indirect=True)
def test_words_that_were_forgotten_during_a_rebuild_are_not_in_the_index(log: Log) -> None:
    """Full-text search keeps the words of deleted rows until its parts are merged: they do not come along."""
    log.engine.add(Searching())
    filled(log, 5).append("gone", STARTED, said("unspeakable"))
    log.append("later", STARTED, *[said("one")] * 10)
    assert log.engine.catch_up()

    def erase_one(now: RebuildProgress) -> None:
        if now.position == 20 and log.recorder.position() == 28:
            log.delete("gone")

    log.engine.rebuild(progress=erase_one)
    assert found(log, "unspeakable")[0] == []
    assert not any(b"unspeak" in block for (block,) in log.query("SELECT block FROM docs_data"))


@pytest.mark.parametrize("log", ["memory", "file"], indirect=True)
def test_everything_that_a_projection_creates_is_swapped(log: Log) -> None:
    """Tables with and without rowids, generated columns, full-text search, triggers, indexes, views: all work after."""
    log.engine.add(Elaborate())
    filled(log, 5)
    assert log.engine.catch_up()
    schema = log.query("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
    contents = {table: log.query(f"SELECT rowid, * FROM {table}") for table in ("notes", "plain", "search")}
    contents["keyed"] = log.query("SELECT * FROM keyed")
    log.engine.rebuild()
    now = log.query("SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name")
    assert now == schema
    for table in ("notes", "plain", "search"):
        assert log.query(f"SELECT rowid, * FROM {table}") == contents[table]
    assert log.query("SELECT * FROM keyed") == contents["keyed"]
    assert len(log.query("SELECT rowid FROM search WHERE search MATCH 'one'")) == 5
    assert log.query("SELECT text FROM loud LIMIT 1") == [("CONTENT OF TWO",)]
    log.append("s-9", STARTED, said("three"))
    assert log.engine.catch_up()
    ((newest,),) = log.query("SELECT max(id) FROM notes")
    assert newest == 11
    assert log.engine.check("words") == []
