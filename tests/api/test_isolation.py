"""Isolation: through ``for_user`` another's sessions do not exist; tenants never meet."""

import io
from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import pytest

import turnlog
from scripts import derive_aio
from tests.adapters.exports import exported
from turnlog import ConversationStore, InvalidInput, NotOwner, SessionGone, SessionNotFound
from turnlog.adapters.migration.migrate import migrate
from turnlog.adapters.transfer.conversations import import_files
from turnlog.adapters.transfer.copying import copy_log
from turnlog.adapters.transfer.restore import restore_log
from turnlog.ids import new_id
from turnlog.tables import AgentTables, Elsewhere

Use: TypeAlias = Callable[[ConversationStore], object]


@pytest.fixture
def shared(store: ConversationStore) -> ConversationStore:
    """A store with sessions of alice, of bob, and of nobody."""
    store.session("of-alice", user_id="alice", agent="waiter").add_message("user", "secret of alice")
    store.session("of-bob", user_id="bob", agent="waiter").add_message("user", "secret of bob")
    store.session("of-nobody").add_message("user", "of nobody")
    store.session("gone", user_id="bob").delete()
    return store


@pytest.fixture
def alice(shared: ConversationStore) -> ConversationStore:
    """The store as alice sees it."""
    return shared.for_user("alice")


HIDDEN: Mapping[str, Use] = {
    "get": lambda store: store.get("of-bob"),
    "session": lambda store: store.session("of-bob"),
    "session by name": lambda store: store.session("of-bob", user_id="alice"),
    "get one of nobody": lambda store: store.get("of-nobody"),
    "session for bob": lambda store: store.session("new", user_id="bob"),
    "sessions of bob": lambda store: store.sessions(user_id="bob"),
    "messages of bob": lambda store: store.messages(user_id="bob"),
    "active session of bob": lambda store: store.active_session("bob"),
    "erase bob": lambda store: store.erase_user("bob"),
    "as bob": lambda store: store.for_user("bob"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_anothers_is_not_found_as_if_it_did_not_exist(alice: ConversationStore, name: str) -> None:
    """Whatever names another user or his session is told that there is none; nothing is written."""
    position = alice.position
    with pytest.raises(SessionNotFound) as raised:
        HIDDEN[name](alice)
    assert "secret" not in str(raised.value)
    assert alice.position == position


def test_what_is_unknown_and_what_is_anothers_look_the_same(alice: ConversationStore) -> None:
    """The refusals differ in nothing but the id that was asked for."""
    told: list[tuple[type[BaseException], str]] = []
    for session_id in ("of-bob", "unknown"):
        with pytest.raises(SessionNotFound) as raised:
            alice.get(session_id)
        told.append((raised.type, str(raised.value).replace(session_id, "…")))
        assert not alice.exists(session_id)
    assert told[0] == told[1]


def test_lists_show_only_ones_own(alice: ConversationStore) -> None:
    """Sessions, messages, the active session and events are those of the user."""
    assert [summary.session_id for summary in alice.sessions().items] == ["of-alice"]
    assert [summary.session_id for summary in alice.sessions(agent="waiter").items] == ["of-alice"]
    assert [message.content for message in alice.messages().items] == ["secret of alice"]
    active = alice.active_session()
    assert active is not None
    assert active.id == "of-alice"
    assert {event.session_id for event in alice.events()} == {"of-alice"}
    assert [event.version for event in alice.events(types=["MessageAdded"])] == [2]
    assert len(list(alice.events(limit=1))) == 1


def test_a_subscription_shows_only_ones_own(shared: ConversationStore, alice: ConversationStore) -> None:
    """Events of others pass by unseen."""
    with alice.subscribe() as subscription:
        shared.get("of-bob").collect(n=1)
        shared.get("of-alice").collect(n=1)
        event = next(subscription)
        assert (event.session_id, event.version) == ("of-alice", 3)


EVERYTHING: Mapping[str, Use] = {
    "active_session": lambda store: store.active_session(),
    "catch_up": lambda store: store.catch_up(),
    "clear": lambda store: store.clear(),
    "events": lambda store: list(store.events()),
    "exists": lambda store: store.exists("of-bob"),
    "for_user": lambda store: store.for_user("bob"),
    "get": lambda store: store.get("of-bob").state,
    "heads": lambda store: list(store.heads()),
    "messages": lambda store: store.messages(),
    "on_committed": lambda store: store.on_committed(print),
    "ping": lambda store: store.ping(),
    "position": lambda store: store.position,
    "rebuild": lambda store: store.rebuild(),
    "scrub": lambda store: store.scrub(),
    "search": lambda store: store.search("secret"),
    "session": lambda store: store.session("of-bob").state,
    "sessions": lambda store: store.sessions(),
    "stats": lambda store: store.stats(),
    "subscribe": lambda store: store.subscribe(after=0).ready(100),
    "tenant": lambda store: store.tenant,
    "users": lambda store: store.users(),
    "verify": lambda store: store.verify("of-bob"),
    "add_projection": lambda store: store.add_projection(AgentTables()),
    "erase_user": lambda store: store.erase_user("alice"),
    "close": lambda store: store.close(),
    "export_log": exported,
    "export_log of one": lambda store: exported(store, "of-bob"),
    "copy_log": lambda store: copy_log(store, store),
    "restore_log": lambda store: restore_log(store, io.BytesIO(b"")),
    "import_files": lambda store: import_files(store, []),
    "migrate": lambda store: migrate(store, "redis://nowhere"),
    "follow": lambda store: turnlog.follow(store, "opensearch://nowhere"),
    "Elsewhere": lambda store: Elsewhere(store, "sqlite:///nowhere.db"),
    "using": lambda store: store.using(None),
}
"""Every public method of a store, and what else is done with one; lent transactions have tests of their own."""
REFUSED = frozenset({
    *("add_projection", "catch_up", "clear", "heads", "on_committed", "rebuild", "scrub", "stats", "users", "verify"),
    *("export_log", "export_log of one", "copy_log", "restore_log", "import_files", "migrate", "follow"),
    *("Elsewhere", "using"),
})  # fmt: skip


def test_nothing_gives_out_what_is_anothers(alice: ConversationStore) -> None:
    """Whatever is asked of one user's store, by whatever name, is answered of his own, or refused; nothing leaks."""
    public = {name for name in vars(ConversationStore) if name[0] != "_"} - derive_aio.NOT_PUBLIC
    assert public <= EVERYTHING.keys()
    refused: set[str] = set()
    for name, use in EVERYTHING.items():
        try:
            answer = repr(use(alice))
        except InvalidInput as error:
            refused.add(name)
            answer = repr(error)
        except SessionNotFound as error:
            answer = repr(error).replace("of-bob", "…").replace("of user bob", "…")  # what was asked for
        assert "bob" not in answer, name
    assert refused == REFUSED


def test_a_session_created_through_it_is_the_users(shared: ConversationStore, alice: ConversationStore) -> None:
    """Naming oneself is not needed; forks and successors are the user's too."""
    session = alice.session("new")
    assert (session.created, session.user_id) == (True, "alice")
    assert session.fork("fork").user_id == "alice"
    assert session.reset().user_id == "alice"
    assert shared.get("fork").user_id == "alice"
    assert alice.exists("fork")


def test_an_ownerless_session_can_be_taken(alice: ConversationStore) -> None:
    """It is nobody's until somebody names himself: asking to get or create it does."""
    assert not alice.exists("of-nobody")
    session = alice.session("of-nobody")
    assert (session.created, session.user_id) == (False, "alice")
    assert alice.get("of-nobody").history()[0].content == "of nobody"


def test_a_session_given_away_is_seen_no_more(shared: ConversationStore, alice: ConversationStore) -> None:
    """The owner it has now counts, in lists as in getting."""
    alice.get("of-alice").assign_owner("bob")
    assert (alice.sessions().items, alice.messages().items) == ([], [])
    assert alice.active_session() is None
    with pytest.raises(SessionNotFound):
        alice.get("of-alice")
    bob = shared.for_user("bob")
    assert {summary.session_id for summary in bob.sessions().items} == {"of-alice", "of-bob"}
    assert len(bob.messages().items) == 2


def test_a_deleted_session_does_not_tell_whose_it_was(alice: ConversationStore) -> None:
    """It cannot be got or made again, by anybody."""
    uses: list[Use] = [lambda store: store.get("gone"), lambda store: store.session("gone")]
    for use in uses:
        with pytest.raises((SessionGone, SessionNotFound)) as raised:
            use(alice)
        assert "bob" not in str(raised.value)


def test_erasing_oneself(shared: ConversationStore, alice: ConversationStore) -> None:
    """A user may erase himself, and reaches only his own."""
    assert alice.erase_user("alice").sessions == 1
    assert shared.exists("of-bob")
    assert alice.sessions().items == []


def test_the_whole_store_refuses_to_give_anothers_session_away(shared: ConversationStore) -> None:
    """Without ``for_user`` the session exists, but is another's."""
    with pytest.raises(NotOwner):
        shared.session("of-bob", user_id="alice")


# --- tenants ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def tenants(sqlite_url: str) -> Iterator[list[ConversationStore]]:
    """Three tenants of one file, of names that begin alike."""
    stores = [turnlog.open(sqlite_url, tenant=name, durability="normal") for name in ("a", "a!", "ab")]
    yield stores
    for store in stores:
        store.close()


def test_tenants_never_meet(tenants: list[ConversationStore]) -> None:
    """The same ids are other sessions for every tenant; nothing of one is seen by another."""
    for store in tenants:
        session = store.session("x/y", user_id="alice", agent="waiter")
        session.add_message("user", f"of {store.tenant}", message_id="m-1", command_id="k-1")
        session.enter_route("booking")
    tenants[1].session("second", user_id="alice")
    for store, n in zip(tenants, (1, 2, 1), strict=True):
        assert len(store.sessions().items) == len(store.sessions(user_id="alice").items) == n
        assert [message.content for message in store.messages(user_id="alice").items] == [f"of {store.tenant}"]
        assert [event.tenant for event in store.events()] == [store.tenant] * (2 + n)
        assert [user.sessions for user in store.users().items] == [n]
        assert (store.stats().sessions, store.stats().messages) == (n, 1)
        assert len(list(store.heads())) == n
        report = store.verify()
        assert (report.ok, report.sessions) == (True, n)
        assert store.get("x/y").state.tenant == store.tenant


def test_erasing_reaches_one_tenant(tenants: list[ConversationStore]) -> None:
    """A user of the same name at another tenant is another user."""
    for store in tenants:
        store.session("s-1", user_id="alice").add_message("user", "hi")
    assert tenants[0].erase_user("alice").sessions == 1
    tenants[1].get("s-1").delete()
    assert [store.exists("s-1") for store in tenants] == [False, False, True]
    assert tenants[2].get("s-1").history()[0].content == "hi"
    assert tenants[2].messages(user_id="alice").items != []
    assert all(store.verify().ok for store in tenants)


def test_a_subscription_is_of_one_tenant(tenants: list[ConversationStore]) -> None:
    """Other tenants' events pass by unseen."""
    with tenants[0].subscribe() as subscription:
        tenants[1].session("s-1")
        tenants[0].session("s-2")
        assert next(subscription).session_id == "s-2"


def test_a_slash_in_a_session_id_does_not_reach_another_tenant(tenants: list[ConversationStore]) -> None:
    """A stream's name is split at its first slash, and a tenant's name has none."""
    tenants[0].session("b/c")
    assert not tenants[2].exists("c")
    assert not tenants[2].exists("/c")
    assert [summary.session_id for summary in tenants[0].sessions().items] == ["b/c"]


def test_losing_a_race_looks_the_same_too(url: str) -> None:
    """A session that becomes another's in the last moment is not found, as if it did not exist."""
    waiting: list[Callable[[], object]] = []

    def made() -> str:
        if waiting:
            waiting.pop()()
        return new_id()

    with turnlog.open(url, new_id=made) as store:
        waiting.append(lambda: store.session("s-1", user_id="bob"))
        with pytest.raises(SessionNotFound):
            store.for_user("alice").session("s-1")
        assert store.get("s-1").user_id == "bob"


def test_leaving_what_a_user_sees_leaves_the_store_open(shared: ConversationStore) -> None:
    """A with statement over one user's view closes nothing."""
    with shared.for_user("alice") as alice:
        assert alice.exists("of-alice")
    assert shared.exists("of-alice")
