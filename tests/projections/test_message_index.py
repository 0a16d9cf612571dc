"""The message index: its rows against a model of what is visible, and its query."""

from hypothesis import given
from hypothesis import strategies as st

from tests.projections.histories import History, histories
from tests.projections.log import STARTED, Log, at, said
from tests.projections.test_session_index import interleaved
from turnlog.domain import events as e
from turnlog.projections.applying import Applier
from turnlog.projections.message_index import MessageIndex


@given(several=st.tuples(histories("s-0"), histories("s-1")), limit=st.integers(1, 40))
def test_rows_are_the_visible_messages(several: tuple[History, ...], limit: int) -> None:
    """For every history, cut into pages anywhere, rows are the visible messages in order, under the present owner."""
    log = Log()
    view = log.views.register(MessageIndex())
    log.engine.add(MessageIndex())
    interleaved(log, list(several))
    applier = Applier(log.recorder, log.codec, lambda: at(0))
    while log.engine.checkpoint("message_index") < log.recorder.position():
        applier.advance(log.views, view, limit=limit)
    for history in several:
        assert log.messages(history.state.id) == [shown.row() for shown in history.visible]
    for user_id in ("a", "b", "c"):
        theirs = sum(len(history.visible) for history in several if history.state.user_id == user_id)
        assert len(log.views.select_messages("default", user_id, limit=1000)) == theirs
    log.close()


def test_pages_newest_first(log: Log) -> None:
    """A user's messages of all sessions come by position and item; a page's last row leads to the next page."""
    log.with_views()
    log.append("a", STARTED, said("1"))
    log.append("b", STARTED, said("2"))
    replaced = tuple(e.ReplacementMessage(message_id=name, role="user", content="") for name in ("3", "4", "5"))
    log.append("c", STARTED, e.HistoryReplaced(messages=replaced))
    log.append("d", e.SessionStarted(user_id="bob"), said("6"))
    log.append("a", said("7"))
    assert log.engine.catch_up()
    rows = log.views.select_messages("default", "alice", limit=3)
    assert [row.message_id for row in rows] == ["7", "5", "4"]
    last = rows[-1]
    rest = log.views.select_messages("default", "alice", before=(last.position, last.item), limit=9)
    assert [row.message_id for row in rest] == ["3", "2", "1"]
    without = log.views.select_messages("default", "alice", limit=9, without_sessions=["a", "c"])
    assert [row.message_id for row in without] == ["2"]
    assert log.views.select_messages("other", "alice", limit=9) == []


def test_messages_follow_their_owner(log: Log) -> None:
    """A session that is assigned takes its messages along, those said before and after."""
    log.with_views()
    log.append("s", e.SessionStarted(), said("1"))
    assert log.engine.catch_up()
    log.append("s", e.OwnerAssigned(user_id="alice"), said("2"))
    assert log.engine.catch_up()
    assert [row.message_id for row in log.views.select_messages("default", "alice", limit=9)] == ["2", "1"]


def test_the_latest_wording_is_found(log: Log) -> None:
    """A row tells which event holds the content now, and which brought the message."""
    log.with_views()
    log.append("s", STARTED, said("1"), said("2"), e.MessageEdited(message_id="1", content="better"))
    assert log.engine.catch_up()
    second, first = log.views.select_messages("default", "alice", limit=9)
    assert (first.version, first.content_version, first.position) == (2, 4, 2)
    assert (second.version, second.content_version) == (3, 3)
