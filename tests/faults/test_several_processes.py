"""Several processes, and several threads, on one store: nobody is turned away and nothing is lost."""

import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import turnlog
from tests.faults.processes import Victim, alone, together
from turnlog import events as e
from turnlog.domain.errors import ConcurrencyConflict, IdempotencyConflict, StoreUnavailable

N = 5
"""Processes at once."""
EACH = 20
"""Writes of each."""
LONG_S = 60.0
"""How long a test waits for what must happen."""


@pytest.fixture
def url(shared_url: str) -> str:
    """A store that does not exist yet."""
    return shared_url


@pytest.fixture
def store(url: str) -> Iterator[turnlog.ConversationStore]:
    """The store, open in this process too."""
    with turnlog.open(url, durability="normal") as opened:
        yield opened


def append(url: str, who: int, session_id: str) -> int:
    """Add messages and turns to a session; return how many events that was."""
    with turnlog.open(url, durability="normal") as store:
        session = store.session(session_id)
        for i in range(EACH):
            if i % 4 == 3:
                with session.turn():
                    session.add_message("user", f"{who}: {i}")
                    session.collect({f"of {who}": i})
            else:
                session.add_message("user", f"{who}: {i}")
    return EACH + EACH // 4


def test_all_to_one_session(url: str, store: turnlog.ConversationStore) -> None:
    """Processes that append to one session lose nothing, each keeps its order, and versions are dense."""
    counts = together(append, *((url, who, "shared") for who in range(N)))
    session = store.get("shared")
    assert session.version == 1 + sum(counts)
    assert [event.version for event in session.events()] == list(range(1, session.version + 1))
    said = [str(message.content) for message in session.history()]
    for who in range(N):
        assert [words for words in said if words.startswith(f"{who}:")] == [f"{who}: {i}" for i in range(EACH)]
    assert session.data == {f"of {who}": EACH - 1 for who in range(N)}
    assert store.verify().ok


def test_each_to_its_own_session(url: str, store: turnlog.ConversationStore) -> None:
    """Processes that append to sessions of their own lose nothing, and no two events have one position."""
    counts = together(append, *((url, who, f"s-{who}") for who in range(N)))
    positions = [event.position for event in store.events()]
    assert len(positions) == N + sum(counts)
    assert positions == sorted(set(positions))
    if url.startswith("sqlite"):
        assert positions[-1] == len(positions)
    assert [store.get(f"s-{who}").version for who in range(N)] == [1 + count for count in counts]
    assert {summary.message_count for summary in store.sessions().items} == {EACH}
    assert store.verify().ok


def append_and_query(url: str, who: int) -> list[int]:
    """Write and list by turns; return how many of its own sessions each list had."""
    seen: list[int] = []
    with turnlog.open(url, durability="normal") as store:
        for i in range(10):
            store.session(f"{who}/{i}", user_id=f"user {who}").add_message("user", "hello")
            seen.append(len(store.sessions(user_id=f"user {who}").items))
    return seen


def test_everybody_reads_his_own_writes(url: str, store: turnlog.ConversationStore) -> None:
    """A process finds what it has just written in the index, whoever else is bringing the views up to date."""
    assert together(append_and_query, *((url, who) for who in range(4))) == [list(range(1, 11))] * 4
    assert len(store.sessions(limit=100).items) == 40
    assert store.verify().ok


def ask(url: str) -> tuple[list[str], int]:
    """Return the sessions, the newest first, and how many messages there are."""
    with turnlog.open(url) as store:
        return [summary.session_id for summary in store.sessions(limit=100).items], store.stats().messages


def test_several_catch_up_at_once(url: str, store: turnlog.ConversationStore) -> None:
    """Readers that find the views far behind bring them forward at once, and each is answered in full."""
    for i in range(50):
        store.session(f"s-{i}", history=[{"role": "user", "content": "hello"}] * 20)
    answers = together(ask, *((url,) for _ in range(N)))
    assert answers == [([f"s-{i}" for i in reversed(range(50))], 1_000)] * N
    assert store.verify().ok


def create(url: str, who: int) -> bool:
    """Get or create; return whether this process has created it, and is its owner."""
    with turnlog.open(url) as store:
        session = store.session("wanted", agent=f"agent {who}")
        session.add_message("user", f"from {who}")
        assert session.created == (session.agent == f"agent {who}")
        return session.created


def test_one_creates(url: str, store: turnlog.ConversationStore) -> None:
    """Of processes that get or create one session, exactly one creates it and the others load it."""
    created = together(create, *((url, who) for who in range(N)))
    assert Counter(created) == {True: 1, False: N - 1}
    session = store.get("wanted")
    assert session.version == 1 + N
    assert [event.version for event in session.events() if isinstance(event.event, e.SessionStarted)] == [1]


def create_store(url: str, who: int) -> None:
    """Open a store that may not be there, and write to it."""
    with turnlog.open(url, durability="normal") as store:
        store.session(f"s-{who}").add_message("user", "first")


def test_all_create_the_store(url: str) -> None:
    """Processes that open a store that does not exist create it once, with every table."""
    together(create_store, *((url, who) for who in range(N)))
    with turnlog.open(url, durability="normal") as store:  # as it was written: `full` sees what lasts
        assert {summary.session_id for summary in store.sessions().items} == {f"s-{who}" for who in range(N)}
        assert store.verify().ok


def say_again(url: str, times: int) -> set[tuple[int | None, tuple[str, ...]]]:
    """Say the same thing several times; return the receipts."""
    receipts: set[tuple[int | None, tuple[str, ...]]] = set()
    with turnlog.open(url, durability="normal") as store:
        session = store.session("s")
        for _ in range(times):
            receipt = session.add_message("user", "pay once", message_id="payment")
            receipts.add((receipt.version, receipt.event_ids))
            with session.turn(command_id="turn") as turn:
                session.add_message("assistant", "done")
                session.collect(paid=True)
            receipts.add((turn.receipt.version, turn.receipt.event_ids))
    return receipts


def test_said_again_by_several(url: str, store: turnlog.ConversationStore) -> None:
    """The same message and the same turn from several processes are in the log once; all get the same two receipts."""
    receipts = together(say_again, *((url, 5) for _ in range(N)))
    assert [message.content for message in store.get("s").history()] == ["pay once", "done"] or [
        message.content for message in store.get("s").history()
    ] == ["done", "pay once"]
    versions = {version for each in receipts for version, _ in each}
    assert len(versions) == 2
    assert store.get("s").version == 4
    with pytest.raises(IdempotencyConflict):
        store.get("s").add_message("user", "pay twice", message_id="payment")


def expect(url: str, version: int) -> bool:
    """Write only if the session is at a version; return whether it was."""
    with turnlog.open(url, durability="normal") as store:
        try:
            store.get("s").add_message("user", "first!", expected_version=version)
        except ConcurrencyConflict:
            return False
        return True


def test_one_meets_the_expected_version(url: str, store: turnlog.ConversationStore) -> None:
    """Of processes that expect the same version, exactly one writes; the others are told of the conflict."""
    session = store.session("s")
    assert Counter(together(expect, *((url, session.version) for _ in range(N)))) == {True: 1, False: N - 1}
    assert session.refresh().version == 2


def assign(url: str, who: int) -> bool:
    """Claim an ownerless session; return whether that worked."""
    with turnlog.open(url, durability="normal") as store:
        try:
            store.session("s", user_id=f"user {who}")
        except turnlog.NotOwner:
            return False
        return True


def test_one_becomes_the_owner(url: str, store: turnlog.ConversationStore) -> None:
    """An ownerless session is assigned to exactly one of those who name themselves at once."""
    store.session("s")
    owned = together(assign, *((url, who) for who in range(N)))
    assert Counter(owned) == {True: 1, False: N - 1}
    assert store.get("s").user_id == f"user {owned.index(True)}"


def fork_inside(url: str) -> list[int]:
    """Fork with an open store; parent and children write through it, and through the handle they share."""
    with turnlog.open(url, durability="normal") as store:
        session = store.session("s")
        session.add_message("user", "before")
        assert len(store.sessions().items) == 1
        children: list[int] = []
        for n in range(3):
            child = os.fork()
            if child == 0:
                session.add_message("user", f"child {n}")
                assert store.session("s").version >= 3
                store.close()
                os._exit(0)
            session.add_message("user", f"parent {n}")
            children.append(child)
        ended = [os.waitpid(child, 0)[1] for child in children]
        session.add_message("user", "after")
        assert store.verify().ok
        return ended


def test_a_forked_child_writes(url: str, store: turnlog.ConversationStore) -> None:
    """Children of a process with an open store write without harming the parent, who goes on."""
    assert alone(fork_inside, url) == [0, 0, 0]
    said = [message.content for message in store.get("s").history()]
    assert sorted(map(str, said)) == sorted(
        ["before", "after", *(f"child {n}" for n in range(3)), *(f"parent {n}" for n in range(3))]
    )
    assert store.verify().ok


def test_threads_share_one_handle(store: turnlog.ConversationStore) -> None:
    """Threads that write and read through one store and one handle lose nothing."""
    session = store.session("s", user_id="u")
    errors: list[BaseException] = []

    def work(who: int) -> None:
        try:
            for i in range(20):
                with session.turn():
                    session.add_message("user", f"{who}: {i}")
                    session.collect({str(who): i})
                assert store.sessions(user_id="u").items[0].message_count > i
                assert len(session.history()) > i
        except BaseException as error:  # noqa: BLE001 - told below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(who,)) for who in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG_S)
    assert errors == []
    said = [str(message.content) for message in session.refresh().history()]
    for who in range(6):
        assert [words for words in said if words.startswith(f"{who}:")] == [f"{who}: {i}" for i in range(20)]
    assert session.data == {str(who): 19 for who in range(6)}
    assert session.version == 1 + 6 * 20 * 2
    assert store.verify().ok


def follow(url: str, expected: int) -> list[tuple[int, str, int]]:
    """Subscribe from the beginning; return the first ``expected`` events."""
    found: list[tuple[int, str, int]] = []
    with turnlog.open(url) as store, store.subscribe(after=0) as events:
        for event in events:
            found.append((event.position, event.session_id, event.version))
            if len(found) == expected:
                events.close()
    return found


def test_following_across_processes(url: str, store: turnlog.ConversationStore) -> None:
    """A subscriber sees every event of other processes once, in order, and ends when it is closed."""
    expected = 1 + 3 * (EACH + EACH // 4)
    results = together(
        _either, *((follow, url, expected), (follow, url, expected), *((append, url, who, "s") for who in range(3)))
    )
    whole = [(event.position, event.session_id, event.version) for event in store.events()]
    assert results[:2] == [whole, whole]
    assert len(whole) == expected


def _either(work: object, *arguments: object) -> object:
    assert callable(work)
    return work(*arguments)


@pytest.mark.parametrize("closing_what", ["subscription", "store"])
def test_a_subscription_ends(url: str, closing_what: str) -> None:
    """Closing the subscription, or the store, from another thread ends it; nothing is raised."""
    with turnlog.open(url, durability="normal") as store:
        store.session("s").add_message("user", "hello")
        events = store.subscribe(after=0)
        found: list[int] = []
        errors: list[BaseException] = []
        two = threading.Event()

        def read() -> None:
            try:
                for event in events:
                    found.append(event.version)
                    if event.version == 2:
                        two.set()
            except BaseException as error:  # noqa: BLE001 - told below
                errors.append(error)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        assert two.wait(LONG_S)
        (store if closing_what == "store" else events).close()
        thread.join(LONG_S)
        assert not thread.is_alive()
        assert (found, errors) == ([1, 2], [])


def test_a_long_reader_blocks_nobody(sqlite_url: str, tmp_path: Path) -> None:
    """While another program reads for long, all write, read, list and rebuild; it goes on seeing its moment."""
    with (
        turnlog.open(sqlite_url, durability="normal") as store,
        closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as reader,
    ):
        session = store.session("s", user_id="u")
        reader.execute("BEGIN")
        count = "SELECT count(*) FROM turnlog_events"
        assert reader.execute(count).fetchone() == (1,)
        alone(append, sqlite_url, 1, "s")
        session.add_message("user", "hello")
        assert store.sessions().items[0].message_count == EACH + 1
        store.rebuild()
        assert store.verify().ok
        assert reader.execute(count).fetchone() == (1,)


def test_a_foreign_writer(sqlite_url: str, tmp_path: Path) -> None:
    """A program that holds the database longer than the timeout makes writes fail as unavailable; reads go on."""
    with turnlog.open(sqlite_url, timeout_s=0.2) as store:
        session = store.session("s", user_id="u")
        session.add_message("user", "before")
        with closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as foreign:
            foreign.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailable, match="another program held the database"):
                session.add_message("user", "refused")
            with pytest.raises(StoreUnavailable):
                session.add_messages([{"role": "user", "content": words} for words in ("refused", "too")])
            with pytest.raises(StoreUnavailable):
                session.add_message("user", "refused", message_id="m")
            assert len(session.history()) == 1
            assert store.sessions().items[0].message_count == 1
            assert len(store.messages(user_id="u").items) == 1
            foreign.execute("ROLLBACK")
        session.add_message("user", "after", message_id="m")
        assert [message.content for message in session.history()] == ["before", "after"]
        assert session.version == 3
        assert store.verify().ok


def hold_the_lock(report: object, path: str) -> None:
    """Take the writers' lock and keep it."""
    from turnlog.adapters.sqlite.database import Database

    with Database(path).alone():
        getattr(report, "send")("held")  # noqa: B009 - a Connection
        threading.Event().wait()


def test_a_query_waits_for_no_writer(sqlite_url: str, tmp_path: Path) -> None:
    """While another process holds the writers' lock, a process that has never written answers all queries."""
    with turnlog.open(sqlite_url, durability="normal") as store:
        session = store.session("s", user_id="u")
        session.add_message("user", "hello")
        holder = Victim(hold_the_lock, f"{tmp_path}/sessions.db")
        assert holder.first() == "held"
        assert alone(_answers, sqlite_url) == (2, 1, 1, ["hello"])
        holder.kill()
        session.add_message("user", "after the holder was killed")
        assert len(session.history()) == 2


def _answers(url: str) -> tuple[int, int, int, list[object]]:
    with turnlog.open(url) as store:
        return (
            store.get("s").version,
            len(store.sessions().items),
            len(store.messages(user_id="u").items),
            [message.content for message in store.get("s").history()],
        )
