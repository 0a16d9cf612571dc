"""The search view: created late, the same however it came to be, gone with what is erased."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.projections.histories import History, histories
from tests.projections.log import STARTED, Log, at, said
from tests.projections.test_session_index import interleaved
from turnlog.domain import events as e
from turnlog.domain.words import EVERY, MOST_TERMS, Query
from turnlog.projections.applying import Applier
from turnlog.projections.message_search import MessageSearch, SearchFilter

VIEW = "message_search"


def found(log: Log, text: str, **wanted: Any) -> list[tuple[str, int, int, int]]:
    """Return the rows found, oldest first, as ``Log.messages`` gives those of the message index."""
    rows = log.views.select_found(SearchFilter("default", Query.of(text).terms, **wanted), limit=100)
    return [(row.message_id, row.version, row.item, row.content_version) for row in reversed(rows)]


def ids(log: Log, text: str) -> list[str]:
    """Return the ids of the messages found, oldest first."""
    return [row[0] for row in found(log, text)]


@given(several=st.tuples(histories("s-0"), histories("s-1")), limit=st.integers(1, 40))
def test_rows_are_the_visible_messages(several: tuple[History, History], limit: int) -> None:
    """For every history, cut into pages anywhere, the visible messages with a word are found by it, and no others."""
    log = Log()
    view = log.views.register(MessageSearch())
    log.engine.add(MessageSearch())
    interleaved(log, list(several))
    applier = Applier(log.recorder, log.codec, lambda: at(0))
    while log.engine.checkpoint(VIEW) < log.recorder.position():
        applier.advance(log.views, view, limit=limit)
    for history, other in (several, several[::-1]):
        rows = sorted(shown.row() for shown in history.visible if shown.content == "hello")
        owner = history.state.user_id
        assert sorted(found(log, "hello", without=[other.state.id])) == rows
        assert sorted(found(log, "hello", without=[other.state.id], user_id=owner or "nobody")) == (
            rows if owner else []
        )
    log.close()


@pytest.fixture
def late(log: Log) -> Log:
    """A log whose search view is not there yet."""
    log.with_views().engine.add(MessageSearch(), late=True)
    log.append("a", STARTED, said("1"), said("2"))
    log.append("b", STARTED, said("3"), e.MessageEdited(message_id="3", content="reworded"))
    return log


def test_it_is_created_when_it_is_first_named(late: Log) -> None:
    """Until then it is passed over; from then on it is one of all, and right."""
    assert late.engine.catch_up()
    assert [status.name for status in late.engine.status()] == ["message_index", "session_index"]
    assert not late.engine.stands(VIEW)
    assert late.engine.catch_up(names=(VIEW,))
    assert late.engine.stands(VIEW)
    late.append("a", said("4"))
    assert late.engine.catch_up()
    assert (ids(late, "content"), ids(late, "CONTENT of 4"), ids(late, "reworded")) == (["1", "2", "4"], ["4"], ["3"])
    assert late.engine.check(VIEW) == []


def test_rebuilt_twice_it_finds_the_same(late: Log) -> None:
    """A rebuild makes it, where there was none too; what comes after is found, what goes is not."""
    for n in (5, 6):
        late.engine.rebuild(VIEW)
        late.append("a", said(str(n)))
        assert late.engine.catch_up()
        assert ids(late, "content") == ["1", "2", *map(str, range(5, n + 1))]
    late.append("a", e.MessageRemoved(message_id="1"), e.HistoryCompacted(message_id="c", summary="all of it", kept=1))
    late.delete("b")
    assert late.engine.catch_up()
    assert (ids(late, "content"), ids(late, "reworded"), ids(late, "all of")) == (["6"], [], ["c"])
    assert late.engine.check(VIEW) == []


def test_erased_by_who_never_searched(kept_log: Log, other: Callable[..., Log]) -> None:
    """A process that knows the view and never used it forgets in it what it erases, at once."""
    kept_log.with_views().engine.add(MessageSearch())
    kept_log.append("a", STARTED, said("1"))
    kept_log.append("b", STARTED, said("2"))
    assert kept_log.engine.catch_up()
    second = other().with_views()
    second.engine.add(MessageSearch(), late=True)
    second.delete("a")
    assert ids(kept_log, "content") == ["2"]
    rows = "SELECT message_id FROM turnlog_message_search"
    assert kept_log.query(rows) == [("2",)]


def test_very_many_words(log: Log) -> None:
    """A message with more words than an index is to hold is a candidate for every search."""
    log.with_views().engine.add(MessageSearch())
    words = " ".join(f"w{n}" for n in range(MOST_TERMS + 1))
    log.append("a", STARTED, said("1"), e.MessageAdded(message_id="2", role="tool", content=words))
    assert log.engine.catch_up()
    assert ids(log, "w77") == ["2"]
    assert ids(log, EVERY) == ["2"]
