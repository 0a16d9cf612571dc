"""Views: what every store of views promises of the built-in ones, see turnlog/projections/view_store.py.

Reading and writing them goes through the engine, as in a store; what queries give is compared with what was written.
"""

import threading
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from turnlog.domain import events as e
from turnlog.domain.errors import StoreError
from turnlog.domain.mapper import Codec
from turnlog.domain.values import RebuildProgress
from turnlog.projections.backend import Backend
from turnlog.projections.engine import Engine
from turnlog.projections.message_index import MessageIndex
from turnlog.projections.session_index import SessionFilter, SessionIndex
from turnlog.projections.view_store import Parked, Trial
from turnlog.testing.contracts.rows import Patience, record
from turnlog.testing.contracts.searching import SearchContract
from turnlog.testing.scenario import at

ALICE, BOB = e.SessionStarted(user_id="alice", agent="waiter"), e.SessionStarted(user_id="bob")
S, T, U = "default/s", "default/t", "default/u"
DEFAULT = SessionFilter("default")
FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["s", "u", "t"]),
    ({"user_id": "alice"}, ["s", "u"]),
    ({"user_id": "Alice"}, []),
    ({"agent": "waiter", "status": "active"}, ["s"]),
    ({"status": "completed"}, ["u"]),
    ({"route": "booking"}, ["s"]),
    ({"older_than": at(4)}, ["t"]),
    ({"newer_than": at(2)}, ["s", "u"]),
    ({"without": ("s", "t")}, ["u"]),
    ({"user_id": "bob", "route": "booking"}, []),
]
"""Of the sessions in ``ViewsContract.filled``: what is wanted, and what is found."""


def said(message_id: str) -> e.MessageAdded:
    """Return a message."""
    return e.MessageAdded(message_id=message_id, role="user", content=f"content of {message_id}")


class Stop(Exception):
    """Raised to interrupt."""


class ViewsContract(SearchContract, Patience):
    """What views promise. The inheriting class's module gives the fixture ``backend``: an empty log with views."""

    @pytest.fixture
    def engine(self, backend: Backend) -> Engine:
        """The built-in views, kept up to date in ``backend``."""
        return _engine(backend)

    @pytest.fixture
    def filled(self, backend: Backend, engine: Engine) -> Backend:
        """Three sessions: s and u are alice's, t is bob's, u is completed, s was written to last."""
        log = backend.recorder
        record(log, S, ALICE, said("s1"), e.RouteEntered(route="booking"))
        record(log, T, BOB, said("t1"))
        record(log, U, ALICE, said("u1"), said("u2"), e.StatusChanged(status="completed"))
        record(log, S, said("s2"))
        assert engine.catch_up()
        return backend

    # --- catching up --------------------------------------------------------------------------------------------------

    def test_catching_up_reads_every_write(self, backend: Backend, engine: Engine) -> None:
        """After catching up a view has what was appended before, and its checkpoint says so."""
        assert engine.catch_up()
        for n in range(3):
            last = record(backend.recorder, f"default/{n}", ALICE, said("hello"))
            assert engine.checkpoint("session_index") < last
            assert engine.catch_up()
            assert engine.checkpoint("session_index") == engine.checkpoint("message_index") == last
        assert _sessions(backend, DEFAULT) == ["2", "1", "0"]

    def test_many_pages(self, backend: Backend, engine: Engine) -> None:
        """A view far behind is brought up page by page."""
        n = 2 * backend.views.page + 7
        record(backend.recorder, S, ALICE, *(said(f"m{i}") for i in range(n)))
        assert engine.catch_up()
        assert backend.views.select_session("default", "s").summary.message_count == n
        assert len(backend.views.select_messages("default", "alice", limit=n + 1)) == n

    def test_a_page_applied_again_changes_nothing(self, filled: Backend, engine: Engine) -> None:
        """With an old checkpoint put in its place, the rows stay what they are."""
        before = _everything(filled)
        with filled.views.write() as connection:
            for checkpoint in filled.views.checkpoints(connection).values():
                filled.views.record(connection, checkpoint._replace(position=2))
        assert engine.checkpoint("session_index") == 2
        assert engine.catch_up()
        assert _everything(filled) == before

    def test_rows_and_checkpoint_are_one(self, filled: Backend, engine: Engine) -> None:
        """A transaction that fails leaves neither; one that is half undone leaves what was done around that."""
        views = filled.views
        with suppress(Stop), views.write() as connection:
            views.record(connection, views.checkpoints(connection)["session_index"]._replace(position=1))
            raise Stop
        with views.write() as connection:
            at_first = views.checkpoints(connection)
            with suppress(Stop), views.attempt(connection):
                views.record(connection, at_first["session_index"]._replace(position=1))
                raise Stop
            views.record(connection, at_first["message_index"]._replace(position=3))
        assert engine.checkpoint("session_index") == at_first["session_index"].position
        assert engine.checkpoint("message_index") == 3

    def test_nobody_is_waited_for(self, filled: Backend) -> None:
        """While somebody writes views, another who does not want to wait is lent nothing."""
        views = filled.views
        lent: list[object] = []

        def look() -> None:
            with views.write(wait=False) as connection:
                lent.append(connection)

        with views.write():
            other = threading.Thread(target=look, daemon=True)
            other.start()
            other.join(self.patience_s)
            assert lent == [None]
        look()
        assert lent[1] is not None

    # --- queries ------------------------------------------------------------------------------------------------------

    def test_sessions(self, filled: Backend) -> None:
        """Sessions come newest update first, by any of the filters, also several of them together."""
        for wanted, expected in FILTERS:
            where = DEFAULT._replace(**wanted)
            assert _sessions(filled, where) == expected, wanted
            newest = filled.views.select_sessions(where, limit=1)
            assert [row.summary.session_id for row in newest] == expected[:1], wanted
            if newest:
                older = filled.views.select_sessions(where, before=newest[0].updated_position, limit=9)
                assert [row.summary.session_id for row in older] == expected[1:], wanted

    def test_a_sessions_row(self, filled: Backend) -> None:
        """A row has all of the session's summary, and the positions of its first and last event."""
        row = filled.views.select_session("default", "s")
        assert (row.created_position, row.updated_position) == (1, 10)
        summary = row.summary
        assert (summary.session_id, summary.user_id, summary.agent, summary.status) == (
            "s",
            "alice",
            "waiter",
            "active",
        )
        assert (summary.current_route, summary.message_count, summary.version) == ("booking", 2, 4)
        assert (summary.created_at, summary.updated_at, summary.last_message_at) == (at(1), at(4), at(4))
        assert summary.completed_at is None
        assert filled.views.select_session("default", "u").summary.completed_at == at(4)
        assert filled.views.select_session("default", "S") is None
        assert filled.views.select_session("other", "s") is None

    def test_the_active_session(self, filled: Backend, engine: Engine) -> None:
        """The newest created of a user's active sessions, whichever was written to last."""
        views = filled.views
        assert views.select_active("default", "alice").summary.session_id == "s"
        record(filled.recorder, "default/v", ALICE)
        record(filled.recorder, S, said("s3"))
        assert engine.catch_up()
        assert views.select_active("default", "alice").summary.session_id == "v"
        assert views.select_active("default", "carol") is None

    def test_messages(self, filled: Backend, engine: Engine) -> None:
        """A user's visible messages come newest first: without removed ones, edited ones at their place."""
        log, views = filled.recorder, filled.views
        record(log, S, e.MessageEdited(message_id="s1", content="x"), e.MessageRemoved(message_id="s2"))
        assert engine.catch_up()
        rows = views.select_messages("default", "alice", limit=9)
        assert [(row.session_id, row.message_id) for row in rows] == [("u", "u2"), ("u", "u1"), ("s", "s1")]
        assert [(row.version, row.content_version) for row in rows] == [(3, 3), (2, 2), (2, 5)]
        assert [row.position for row in rows] == sorted((row.position for row in rows), reverse=True)
        older = views.select_messages("default", "alice", before=(rows[0].position, rows[0].item), limit=1)
        assert older == rows[1:2]
        assert views.select_messages("default", "alice", limit=9, without_sessions=("u",)) == rows[2:]
        assert views.select_messages("default", "ALICE", limit=9) == []

    def test_a_history_that_was_replaced(self, filled: Backend, engine: Engine) -> None:
        """Messages that one event brought are told apart by their places in it; what they replaced is gone."""
        new = tuple(e.ReplacementMessage(message_id=f"n{i}", role="user", content="x") for i in range(3))
        record(filled.recorder, S, e.HistoryReplaced(messages=new))
        compacted = e.HistoryCompacted(message_id="sum", summary="x", kept=1)
        record(filled.recorder, U, compacted)
        assert engine.catch_up()
        rows = filled.views.select_messages("default", "alice", limit=9)
        assert {row.message_id for row in rows} == {"n0", "n1", "n2", "sum", "u2"}
        replaced = [row for row in rows if row.session_id == "s"]
        assert [(row.message_id, row.item) for row in replaced] == [("n2", 2), ("n1", 1), ("n0", 0)]
        older = filled.views.select_messages("default", "alice", before=(replaced[0].position, 2), limit=9)
        assert [row.message_id for row in older if row.session_id == "s"] == ["n1", "n0"]
        record(filled.recorder, S, e.HistoryCleared())
        assert engine.catch_up()
        left = filled.views.select_messages("default", "alice", limit=9)
        assert {row.session_id for row in left} == {"u"}

    def test_users_and_counts(self, filled: Backend, engine: Engine) -> None:
        """Owners come in order of their ids' bytes, in pages; counts are of living sessions."""
        for n, user_id in enumerate(("Zoë", "\U0001f600", "ü", "Alice")):
            record(filled.recorder, f"default/{n}", e.SessionStarted(user_id=user_id))
        record(filled.recorder, "default/nobody", e.SessionStarted(user_id=None))
        assert engine.catch_up()
        users = filled.views.select_users("default", limit=9)
        assert [user.user_id for user in users] == ["Alice", "Zoë", "alice", "bob", "ü", "\U0001f600"]
        assert (users[2].sessions, users[2].messages, users[2].updated_at) == (2, 4, at(4))
        assert filled.views.select_users("default", after="alice", limit=2) == users[3:5]
        counts = filled.views.counts("default")
        assert (counts.sessions, counts.events, counts.messages, counts.users) == (8, 15, 5, 6)
        assert counts.statuses == {"active": 7, "completed": 1}

    def test_tenants_are_apart(self, filled: Backend, engine: Engine) -> None:
        """Equal session and user ids of two tenants are two."""
        before = _everything(filled)
        record(filled.recorder, "other/s", ALICE, said("o1"))
        assert engine.catch_up()
        assert _everything(filled) == before
        assert _sessions(filled, SessionFilter("other")) == ["s"]
        assert [row.message_id for row in filled.views.select_messages("other", "alice", limit=9)] == ["o1"]
        assert filled.views.counts("other").sessions == 1

    def test_any_text_comes_back(self, filled: Backend, engine: Engine) -> None:
        """Ids are exact: case, accents, wildcards and characters beyond the BMP tell them apart."""
        ids = ["%", "_", "é", "e\u0301", "É", "\U0001f600", "a'\"\\", " ", "x" * 255]
        for session_id in ids:
            record(filled.recorder, f"default/{session_id}", e.SessionStarted(user_id=session_id), said(session_id))
        assert engine.catch_up()
        for session_id in ids:
            assert _sessions(filled, DEFAULT._replace(user_id=session_id)) == [session_id]
            rows = filled.views.select_messages("default", session_id, limit=9)
            assert [(row.session_id, row.message_id) for row in rows] == [(session_id, session_id)]

    # --- erasing ------------------------------------------------------------------------------------------------------

    def test_what_is_erased_is_forgotten_at_once(self, filled: Backend, engine: Engine) -> None:
        """After an erasure, before any catching up, no view holds anything of that session; of the others, all."""
        views = filled.views
        with views.write() as connection:
            views.park(connection, Parked("session_index", S, 9, 99, "no", 1, datetime(2026, 1, 1, tzinfo=UTC)))
        kept = views.select_messages("default", "bob", limit=9)
        record(filled.recorder, S, e.SessionDeleted(), erase=True)
        assert views.select_session("default", "s") is None
        assert {row.session_id for row in views.select_messages("default", "alice", limit=9)} == {"u"}
        assert engine.parked("session_index") == ()
        assert engine.catch_up()
        assert _sessions(filled, DEFAULT) == ["u", "t"]
        assert views.select_messages("default", "bob", limit=9) == kept
        assert views.counts("default").sessions == 2

    def test_what_was_erased_elsewhere_is_forgotten_by_its_tombstone(self, filled: Backend, engine: Engine) -> None:
        """A view that comes to the end of a session has nothing of it, whoever erased it."""
        record(filled.recorder, S, e.SessionDeleted())
        assert engine.catch_up()
        assert _sessions(filled, DEFAULT) == ["u", "t"]
        assert {row.session_id for row in filled.views.select_messages("default", "alice", limit=9)} == {"u"}

    def test_what_may_still_hold_something_is_known(self, filled: Backend, engine: Engine) -> None:
        """A view that passed the end of a session without forgetting it is named, unless it never read of it."""
        views = filled.views
        assert engine.holding() == []
        with views.write() as connection:
            views.begin(connection, "session_index", 10)
            views.hold(connection, "session_index", 9)
            views.hold(connection, "message_index", 9)
        assert engine.holding() == ["message_index"]
        assert engine.parked("message_index") == ()

    # --- parking, and events that end a process -----------------------------------------------------------------------

    def test_parked_sessions(self, filled: Backend, engine: Engine) -> None:
        """A session is parked once in a view, with its error; parked again it counts; released it is gone."""
        views = filled.views
        first = Parked("session_index", S, 2, 2, "ValueError: no \U0001f600", 1, datetime(2026, 1, 1, 1, tzinfo=UTC))
        other = first._replace(stream=T, position=1)
        with views.write() as connection:
            views.park(connection, first)
            views.park(connection, other)
            views.park(connection, first._replace(attempts=2))
        assert engine.parked("session_index") == (other, first._replace(attempts=2))
        assert engine.parked("message_index") == ()
        with views.write() as connection:
            views.release(connection, "session_index", S)
        assert engine.parked("session_index") == (other,)

    def test_trials(self, filled: Backend) -> None:
        """A trial that was begun is known until it is ended (or never, where views do not outlive the process)."""
        views = filled.views
        views.begin_trial("session_index", Trial(3, 7, 1))
        assert views.trial("session_index") in (Trial(3, 7, 1), None)
        assert views.trial("message_index") is None
        views.end_trial("session_index")
        views.end_trial("session_index")
        assert views.trial("session_index") is None

    # --- building anew ------------------------------------------------------------------------------------------------

    def test_rebuilding_gives_the_same(self, filled: Backend, engine: Engine) -> None:
        """A rebuilt view equals the one that was folded step by step, and an independent fold finds no difference."""
        record(filled.recorder, T, e.SessionDeleted(), erase=True)
        assert engine.catch_up()
        before = _everything(filled)
        engine.rebuild()
        assert _everything(filled) == before
        assert engine.check("session_index") + engine.check("message_index") == []
        assert engine.checkpoint("session_index") == filled.recorder.position()

    def test_a_rebuild_can_be_interrupted(self, filled: Backend, engine: Engine) -> None:
        """Until the new generation is there the old one answers; the next rebuild goes through."""
        before = _everything(filled)
        seen: list[list[str]] = []

        def interrupt(_: RebuildProgress) -> None:
            seen.append(_sessions(filled, DEFAULT))
            raise Stop

        with pytest.raises(Stop):
            engine.rebuild("session_index", progress=interrupt)
        assert seen == [["s", "u", "t"]]
        assert _everything(filled) == before
        record(filled.recorder, S, said("s3"))
        engine.rebuild("session_index")
        assert filled.views.select_session("default", "s").summary.message_count == 3
        assert filled.views.discard_builds() == []

    def test_a_rebuild_can_die_when_its_view_answers(
        self, filled: Backend, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What it had not cleared away yet, others may build upon, or drop; the view that answers they leave alone."""
        before = _everything(filled)

        def interrupt(_: object) -> None:
            raise Stop

        with monkeypatch.context() as dying, suppress(Stop):
            dying.setattr(filled.views, "clear_away", interrupt)
            engine.rebuild("session_index")
        assert _everything(filled) == before
        with suppress(Stop):
            engine.rebuild("session_index", progress=interrupt)
        assert _everything(filled) == before
        engine.rebuild("session_index")
        assert _everything(filled) == before
        assert filled.views.discard_builds() == []
        assert _everything(filled) == before

    def test_a_difference_is_found(self, filled: Backend, engine: Engine) -> None:
        """A view that says it has come further than its rows have is found out, by the session's name."""
        views = filled.views
        with views.read() as connection:
            before = views.checkpoints(connection)["session_index"]
        record(filled.recorder, S, said("s3"))
        assert engine.catch_up(names=["message_index"])
        with views.read() as connection:
            ahead = views.checkpoints(connection)["message_index"]
        with views.write() as connection:
            views.record(connection, ahead._replace(name="session_index"))
        assert any("s" in words for words in engine.check("session_index"))
        with views.write() as connection:
            views.record(connection, before)
        assert engine.catch_up()
        assert engine.check("session_index") == []

    def test_a_newer_revision_is_rebuilt(self, filled: Backend) -> None:
        """A view of an older revision is built anew when a newer program comes; an older program is refused then."""
        before = _everything(filled)
        newer = Engine(filled.recorder, filled.views, Codec())
        newer.add(NewerIndex())
        assert {one.name: one.revision for one in newer.status()}["session_index"] == NewerIndex.revision
        assert _everything(filled) == before
        with pytest.raises(StoreError, match="a newer program made it"):
            _engine(filled)
        newer.rebuild("session_index")

    def test_closing(self, filled: Backend) -> None:
        """Closed views refuse; closing twice does nothing."""
        with ExitStack() as closing:
            closing.callback(filled.views.close)
            filled.views.close()
        with pytest.raises(StoreError):
            filled.views.select_session("default", "s")


class NewerIndex(SessionIndex):
    """The session index of a newer program."""

    revision = SessionIndex.revision + 1


def _engine(backend: Backend) -> Engine:
    engine = Engine(backend.recorder, backend.views, Codec())
    for view in (SessionIndex(), MessageIndex()):
        engine.add(view)
    return engine


def _sessions(backend: Backend, where: SessionFilter) -> list[str]:
    return [row.summary.session_id for row in backend.views.select_sessions(where, limit=99)]


def _everything(backend: Backend) -> tuple[object, ...]:
    views = backend.views
    return (
        views.select_sessions(DEFAULT, limit=99),
        [views.select_messages("default", user_id, limit=99) for user_id in ("alice", "bob")],
        views.select_users("default", limit=99),
        views.counts("default"),
    )
