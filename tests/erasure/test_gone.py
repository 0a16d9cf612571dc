"""An erased session is gone: for every call, in every handle, in every view, for ever. Forks go their own ways."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import turnlog
from tests.erasure.planting import ForgettingNotes, Notes, Words, converse, refusals, remains
from turnlog import ConversationStore, Session, SessionGone
from turnlog.domain.events import Erased, SessionDeleted
from turnlog.domain.values import RecordedEvent
from turnlog.testing.faults import Faults, faulty

Reopen = Callable[[], ConversationStore]
MAY_HOLD = "view notes, which may hold it until it is rebuilt"


def require_gone(calls: list[Any]) -> None:
    """Require that every call is refused."""
    for call in calls:
        with pytest.raises(SessionGone):
            call()


def test_every_call_is_refused_in_every_handle(store: ConversationStore, reopen: Reopen) -> None:
    """In the one that deleted, in one that knows nothing of it yet, in another store's, and once asked again."""
    mine = store.session("s", user_id="alice")
    mine.add_message("user", "hello", message_id="m")
    other, elsewhere = store.get("s"), reopen().get("s")
    mine.delete(command_id="c")
    for handle in (mine, other, elsewhere, mine):
        require_gone(refusals(handle))


def test_a_turn_that_was_begun_before_is_refused_too(store: ConversationStore) -> None:
    """What it reads and says, and its commit: nothing is taken for empty, or for damage."""
    calls: list[Callable[[Session], object]] = [
        lambda handle: handle.history(),
        lambda handle: handle.message("m"),
        lambda handle: handle.runs(),
        lambda handle: handle.routes(),
        lambda handle: handle.pop_message(),
        lambda handle: handle.edit_message("m", "again"),
        lambda handle: handle.add_message("user", "again"),
    ]
    for call in calls:
        handle = store.session(history=[{"role": "user", "content": "hello", "message_id": "m"}])
        with pytest.raises(SessionGone):
            _meanwhile_deleted(store, handle, call)


def _meanwhile_deleted(store: ConversationStore, handle: Session, call: Callable[[Session], object]) -> None:
    with handle.turn():
        store.get(handle.id).delete()
        call(handle)


def test_an_idempotent_repeat_is_refused_too(store: ConversationStore) -> None:
    """The keys were erased with the rest; nobody gets an old receipt, not even for the deletion."""
    session = store.session("s")
    session.add_message("user", "hello", message_id="m", command_id="c")
    session.delete(command_id="d")
    require_gone(
        [
            lambda: session.add_message("user", "hello", message_id="m", command_id="c"),
            lambda: session.delete(command_id="d"),
        ]
    )


def test_no_store_gives_it_back(store: ConversationStore, reopen: Reopen) -> None:
    """Neither ``get`` nor get-or-create, with whatever owner; it does not exist, and its id is not used again."""
    store.session("s", user_id="alice").delete()
    living = store.session("living")
    for opened in (store, reopen()):
        require_gone(
            [
                lambda opened=opened: opened.get("s"),
                lambda opened=opened: opened.session("s"),
                lambda opened=opened: opened.session("s", user_id="alice"),
                lambda opened=opened: opened.session("s", history=[{"role": "user", "content": "hello"}]),
            ]
        )
        assert not opened.exists("s")
    with pytest.raises(turnlog.InvalidInput, match="session_id"):
        living.fork("s")


def test_no_view_shows_it(store: ConversationStore, reopen: Reopen) -> None:
    """At once, in every query and count, and after a rebuild."""
    words, others = Words("alice"), Words("bob")
    for name in ("a", "b"):
        converse(store, name, words)
    converse(store, "c", others)
    store.catch_up()
    store.get("a").delete()
    store.erase_user(words.user)
    for opened in (store, reopen(), store):
        assert opened.sessions(user_id=words.user).items == []
        assert opened.messages(user_id=words.user).items == []
        assert opened.active_session(words.user) is None
        assert [summary.session_id for summary in opened.sessions().items] == ["c"]
        assert [user.user_id for user in opened.users().items] == [others.user]
        stats = opened.stats()
        assert (stats.sessions, stats.users, stats.events) == (1, 1, store.get("c").version)
        store.rebuild()


def test_events_of_it_have_no_content(store: ConversationStore) -> None:
    """Place, time and type stay; what was said and by whom does not, nor who deleted."""
    session = converse(store, "s", Words("alice"))
    before = list(session.events())
    session.delete(actor="clerk")
    *after, tombstone = store.events()
    assert [event.hash for event in after] == [event.hash for event in before]
    assert [event.recorded_at for event in after] == [event.recorded_at for event in before]
    assert all(event.event == Erased(event.topic) for event in after)
    assert tombstone.event == SessionDeleted()
    assert not any(event.actor or event.correlation_id or event.causation_id for event in (*after, tombstone))


def test_a_projection_of_the_application_forgets_within_the_erasure(tmp_path: Path) -> None:
    """With ``forget`` its rows go in the same transaction, and nothing is pending but the storage."""
    words = Words("alice")
    with turnlog.open(f"sqlite:///{tmp_path}/sessions.db") as store:
        store.add_projection(ForgettingNotes())
        session = converse(store, "s", words)
        store.catch_up()
        erasure = session.delete().erasure
        assert erasure is not None
        assert not any("view" in pending for pending in erasure.pending)
        assert store.scrub().complete
        assert remains(tmp_path, words) == []


class RawNotes(Notes):
    """Notes that stay as they were noted."""

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Note down."""
        super().apply([event for event in events if not isinstance(event.event, SessionDeleted)], connection)


class FailingNotes(RawNotes):
    """Notes with a mistake where they should be forgotten."""

    def forget(self, tenant: str, session_id: str, connection: Any) -> None:
        """Fail."""
        raise ValueError(f"cannot forget {session_id} of {tenant} in {connection}")


@pytest.mark.parametrize("notes", [RawNotes(), FailingNotes()], ids=["cannot", "fails to"])
@pytest.mark.parametrize("backend", ["memory://", "sqlite:///{}/sessions.db"])
def test_a_projection_that_does_not_forget_is_named_until_the_scrub(tmp_path: Path, backend: str, notes: Notes) -> None:
    """The erasure is not called complete; the scrub builds the view anew, from a log in which nothing of it is left."""
    words = Words("alice")
    with turnlog.open(backend.format(tmp_path)) as store:
        store.add_projection(notes)
        session = converse(store, "s", words)
        store.session("t", user_id="bob").add_message("user", "stays")
        store.catch_up()
        erasure = session.delete().erasure
        assert erasure is not None
        assert [pending for pending in erasure.pending if "view" in pending] == [MAY_HOLD]
        assert store.scrub().complete
        assert remains(tmp_path, words) == []
        assert len(store.messages(user_id="bob").items) == 1


def test_a_projection_that_cannot_forget_is_named_until_it_is_rebuilt(tmp_path: Path) -> None:
    """Another program's view may hold the words: receipt and scrub say so, until that program has built it anew."""
    words, url = Words("alice"), f"sqlite:///{tmp_path}/sessions.db"
    named = "view notes, which has not read that far"
    with turnlog.open(url) as theirs, turnlog.open(url) as store:
        theirs.add_projection(Notes())
        session = converse(store, "s", words)
        theirs.catch_up()
        erasure = session.delete().erasure
        assert erasure is not None
        assert named in erasure.pending
        assert store.scrub().pending == (named,)
        assert remains(tmp_path, words) != []
        theirs.catch_up()
        assert store.scrub().pending == (MAY_HOLD,)
        assert theirs.scrub().complete
        assert store.scrub().complete
        assert remains(tmp_path, words) == []


def test_the_record_of_a_parking_goes_with_the_erasure(tmp_path: Path) -> None:
    """Its error quotes what was said; it is deleted at once, whoever erases, not when the view comes along."""
    words, url = Words("alice"), f"sqlite:///{tmp_path}/sessions.db"
    with turnlog.open(url) as theirs, turnlog.open(url) as store:
        theirs.add_projection(Notes(poison=".returned."))
        session = converse(store, "s", words)
        theirs.catch_up()
        session.delete()
        with closing(sqlite3.connect(tmp_path / "sessions.db")) as connection:
            assert connection.execute("SELECT error FROM turnlog_parked").fetchall() == []
            assert connection.execute("SELECT count(*) FROM notes").fetchone() != (0,)


def test_a_view_that_is_behind_for_another_reason_is_not_named(tmp_path: Path) -> None:
    """Having read the erasure is enough; what was said since is nobody's secret."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    with turnlog.open(url) as theirs, turnlog.open(url) as store:
        theirs.add_projection(ForgettingNotes())
        store.session("s").delete()
        theirs.catch_up()
        store.session("t").add_message("user", "hello")
        assert store.scrub().complete


def test_erasing_a_user_reaches_the_forks(store: ConversationStore, reopen: Reopen) -> None:
    """The forks of his sessions that are his, and forks of these; the report counts them."""
    session = store.session("s", user_id="alice")
    session.add_message("user", "hello")
    session.fork("f").fork("g")
    other = reopen()
    report = other.erase_user("alice")
    assert (report.sessions, report.forks) == (3, 2)
    for name in "sfg":
        require_gone([lambda name=name: other.get(name)])
    assert all(isinstance(event.event, Erased) for event in store.events() if event.topic != "SessionDeleted.v1")


@pytest.mark.parametrize("how", ["delete", "erase_user"])
def test_a_fork_of_another_owner_stays(store: ConversationStore, how: str) -> None:
    """Erasing the source, or its owner, leaves the fork that somebody else was given."""
    session = store.session("s", user_id="alice")
    session.add_message("user", "hello", message_id="m")
    fork = session.fork("f")
    fork.assign_owner("bob")
    if how == "delete":
        session.delete()
    else:
        assert store.erase_user("alice").sessions == 1
    assert [message.content for message in fork.refresh().history()] == ["hello"]
    assert [summary.session_id for summary in store.sessions(user_id="bob").items] == ["f"]
    assert store.verify().ok


def test_erasing_the_fork_leaves_the_source(store: ConversationStore) -> None:
    """Each holds its own copy."""
    session = store.session("s", user_id="alice")
    session.add_message("user", "hello", message_id="m")
    session.fork("f").delete()
    assert [message.content for message in session.history()] == ["hello"]
    assert session.add_message("user", "hello", message_id="m").version == session.version
    assert store.verify().ok


def test_one_user_may_erase_himself_and_nobody_else(store: ConversationStore) -> None:
    """Through ``for_user``; another tenant's user of the same name is another."""
    store.session("a", user_id="alice")
    store.session("b", user_id="bob")
    with pytest.raises(turnlog.SessionNotFound):
        store.for_user("alice").erase_user("bob")
    assert store.for_user("alice").erase_user("alice").sessions == 1
    assert [summary.session_id for summary in store.sessions().items] == ["b"]


def test_tenants_are_erased_apart(tmp_path: Path) -> None:
    """The same names in another tenant are somebody else's."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    with turnlog.open(url, tenant="one") as one, turnlog.open(url, tenant="two") as two:
        for store in (one, two):
            store.session("s", user_id="alice").add_message("user", "hello")
        assert one.erase_user("alice").sessions == 1
        assert [message.content for message in two.get("s").history()] == ["hello"]
        assert len(two.messages(user_id="alice").items) == 1
        assert two.verify().ok


def test_a_key_alone_does_not_outlive_an_erasure(url: str) -> None:
    """A command that changes nothing leaves its key only; a session that is erased just before has none afterwards."""
    faults = Faults(sleep=lambda _: session.delete())
    with turnlog.open(faulty(url, faults)) as store:
        session, other = store.session("s", data={"party_size": 2}), store.get("s")
        faults.delay("append", 1.0)
        with pytest.raises(SessionGone):
            other.collect(party_size=2, command_id="c")
        assert store.verify().ok
