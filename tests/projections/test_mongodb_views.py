"""Views in MongoDB: a choice of what the tests of all backends promise, and what is MongoDB's own."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.projections import test_engine, test_forgetting, test_parking
from tests.projections.log import STARTED, Log, Words, filled, words
from turnlog.adapters.mongodb.view_connection import ViewConnection
from turnlog.domain.errors import CorruptLog, InvalidInput
from turnlog.projections.session_index import SessionFilter

ALL = SessionFilter(tenant="default")
known = test_forgetting.known
view = test_parking.view
poisoned = test_parking.poisoned

test_newer = test_engine.test_an_older_program_does_not_touch_a_newer_view
test_gone = test_forgetting.test_rows_are_gone_with_the_erasure
test_none_pending = test_forgetting.test_views_that_forget_are_not_pending
test_fails_to_forget = test_forgetting.test_a_projection_that_fails_to_forget_does_not_stop_the_erasure
test_held = test_forgetting.test_a_view_that_read_of_an_erasure_and_did_not_forget_is_named_until_it_is_rebuilt
test_parked = test_parking.test_only_the_affected_session_is_parked
test_mended = test_parking.test_a_new_revision_tries_again
test_still_parked = test_parking.test_a_rebuild_keeps_what_still_cannot_be_applied
test_retried = test_parking.test_a_retry_that_goes_through_leaves_what_no_failure_would_have_left
test_unreadable = test_parking.test_events_that_cannot_be_read_park_their_session
test_deadly = test_parking.test_an_event_that_ends_the_process_is_parked_after_a_few


@pytest.fixture
def log(mongodb_url: str) -> Iterator[Log]:
    """An empty log."""
    opened = Log(mongodb_url)
    yield opened
    opened.close()


@pytest.fixture
def kept_log(log: Log) -> Log:
    """The same."""
    return log


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


def test_collections_of_others_are_left_alone(log: Log) -> None:
    """A projection that wants a collection which is there already, and not its own, is refused; it is untouched."""
    log.database.collection("words").insert_one({"mine": 1})
    with pytest.raises(InvalidInput, match=r"its collection 'words' is there already"):
        log.engine.add(Words())
    assert log.database.collection("words").count_documents({}) == 1
    assert log.engine.status() == ()


def test_a_missing_collection_is_damage(log: Log) -> None:
    """A view whose collection is gone is damage, not an empty list."""
    log.with_views().append("s", STARTED)
    log.database.database.drop_collection("turnlog_session_index")
    with pytest.raises(CorruptLog, match="doesn't exist"):
        log.views.select_sessions(ALL, limit=1)


class Words2(Words):
    """``Words`` of another revision, which has one more collection."""

    revision = 2

    def create(self, connection: Any) -> None:
        """Create both."""
        super().create(connection)
        connection.create("words2")


class Words3(Words):
    """``Words`` of a third, which has that no more."""

    revision = 3


def test_a_new_revision_takes_the_place_of_the_old_one(log: Log, other: Callable[..., Log]) -> None:
    """While somebody else builds it, the old one answers; what an older one had created is gone in the end."""
    filled(log, 3).engine.add(Words())
    assert log.engine.catch_up()
    expected = words(log)
    first, second = other(), other()
    with first.views.workshop(first.views.register(Words2()), keep=True) as workshop:
        assert workshop is not None
        second.engine.add(Words2())
        assert not second.engine.catch_up()
        assert words(second) == expected
    assert second.engine.catch_up()
    assert "words2" in log.database.database.list_collection_names()
    third = other()
    third.engine.add(Words3())
    assert words(third) == expected
    assert "words2" not in log.database.database.list_collection_names()


def test_differences_are_told(log: Log) -> None:
    """What was changed behind the store's back is found, and named without what it says; a rebuild mends it."""
    filled(log.with_views(), 5)
    log.engine.add(Words())
    assert log.engine.catch_up()
    assert [log.engine.check(name) for name in ("session_index", "message_index", "words")] == [[], [], []]
    log.database.collection("turnlog_session_index").update_one({"session_id": "s-3"}, {"$set": {"agent": "x"}})
    log.database.collection("turnlog_message_index").delete_one({"session_id": "s-2"})
    log.database.collection("words").update_one({"session_id": "s-1"}, {"$set": {"said": 9}})
    (session,) = log.engine.check("session_index")
    assert "the row of session 's-3'" in session
    (message,) = log.engine.check("message_index")
    assert "the row of session 's-2'" in message
    assert len(log.engine.check("words")) == 2
    log.engine.rebuild()
    assert [log.engine.check(name) for name in ("session_index", "message_index", "words")] == [[], [], []]
    left = [name for name in log.database.database.list_collection_names() if ".build." in name or ".check." in name]
    assert left == []


def test_a_swap_that_was_interrupted_is_ended(
    log: Log, other: Callable[..., Log], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes views next goes on with what a process that died had planned, wherever it was."""
    filled(log, 3).engine.add(Words())
    assert log.engine.catch_up()
    expected = words(log)
    for step in ("_rename", "_settle"):
        log.database.collection("words").update_one({"session_id": "s-1"}, {"$set": {"said": 9}})
        swaps: Any = log.views._swaps  # noqa: SLF001 - the only way to die there
        with monkeypatch.context() as patched:
            patched.setattr(swaps, step, _die)
            with pytest.raises(KeyboardInterrupt):
                log.engine.rebuild("words")
        later = other()
        later.engine.add(Words())
        with later.views.write():
            pass
        assert words(later) == expected
        assert later.engine.check("words") == []
        assert later.engine.catch_up()


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_was_tried_is_undone_and_the_rest_written_again(log: Log) -> None:
    """A part of a transaction that raises leaves nothing, and what was written before it stays."""
    log.engine.add(Words())
    with log.views.write() as connection:
        connection.collection("words").insert_one({"session_id": "a", "word": "kept", "said": 1})
        with pytest.raises(ValueError, match="no"):
            _try_in_vain(log, connection)
        connection.collection("words").insert_one({"session_id": "b", "word": "later", "said": 1})
    assert words(log) == [("a", "kept", 1), ("b", "later", 1)]


def _try_in_vain(log: Log, connection: ViewConnection) -> None:
    with log.views.attempt(connection):
        connection.collection("words").delete_many({})
        raise ValueError("no")


def test_names_of_collections(log: Log) -> None:
    """A projection cannot create what MongoDB keeps for itself."""
    for name in ("", "system.x", "a$b", "a\0"):
        with pytest.raises(InvalidInput, match="collection"):
            ViewConnection(log.database).create(name)
