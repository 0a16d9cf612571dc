"""What others' Redis stores got wrong (SEEDS.md), each as a promise of this one."""

import threading
from collections.abc import Iterator

import pytest

import turnlog
from tests.servers import Redis
from turnlog.adapters.redis.server import Server


@pytest.fixture
def store(redis_url: str) -> Iterator[turnlog.ConversationStore]:
    """An empty store that has one connection."""
    with turnlog.open(redis_url, pool_size=1) as opened:
        yield opened


def test_twenty_appends_on_one_connection_keep_twenty(store: turnlog.ConversationStore) -> None:
    """At once, by twenty threads with a handle each; and so do twenty that create the session at once."""
    start = threading.Barrier(20)
    created: list[bool] = []

    def say(n: int) -> None:
        start.wait()
        session = store.session("s", user_id="alice")
        created.append(session.created)
        session.add_message("user", f"{n}")

    threads = [threading.Thread(target=say, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(created) == 1
    assert {message.content for message in store.get("s").history()} == {f"{n}" for n in range(20)}
    assert store.get("s").state.message_count == 20
    assert store.sessions().items[0].message_count == 20


def test_the_last_messages_do_not_read_the_rest(store: turnlog.ConversationStore, redis_url: str) -> None:
    """Of a long session as few bytes are sent as of a short one; and so with a message written much later."""
    server = Server(redis_url)

    def sent() -> int:
        lines = server.read("INFO", "stats").decode().splitlines()
        return int(next(line for line in lines if line.startswith("total_net_output_bytes:")).split(":")[1])

    def took(session: turnlog.Session) -> tuple[int, int]:
        before = sent()
        assert [message.content for message in session.history(last=2)] == ["x" * 1000] * 2
        between = sent()
        session.add_message("user", "x" * 1000)
        return between - before, sent() - between

    short, long = store.session("short"), store.session("long")
    short.add_messages([{"role": "user", "content": "x" * 1000}] * 20)
    for _ in range(9):  # not ten: the message that is measured would be the 1,024th event, which brings the views along
        long.add_messages([{"role": "user", "content": "x" * 1000}] * 100)
    few, many = took(short), took(long)
    assert many[0] < 1.5 * few[0]
    assert many[1] < 1.5 * few[1]
    server.close()


def test_lists_never_look_through_all_keys(store: turnlog.ConversationStore, redis: Redis) -> None:
    """No KEYS and no SCAN, whatever is listed, deleted, rebuilt or verified."""
    before = redis.execute("INFO", "commandstats")
    for n in range(3):
        store.session(f"s-{n}", user_id="alice").add_message("user", "hello")
    assert len(store.sessions(user_id="alice").items) == 3
    assert len(store.messages(user_id="alice").items) == 3
    assert store.search("hello").items
    store.get("s-0").delete()
    store.rebuild()
    assert store.verify().ok
    store.erase_user("alice")
    store.scrub()
    after = redis.execute("INFO", "commandstats")
    for command in (b"cmdstat_keys:", b"cmdstat_scan:"):
        assert _line(before, command) == _line(after, command)


def _line(told: bytes, command: bytes) -> bytes:
    return next((line for line in told.splitlines() if line.startswith(command)), b"")


def test_deleting_leaves_no_entry_of_the_user(store: turnlog.ConversationStore, redis_url: str) -> None:
    """Whatever a user's sessions had in indexes goes with the last of them."""
    for n in range(150):
        store.session(f"s-{n}", user_id="alice").add_message("user", "hello")
    assert store.stats().users == 1
    assert store.erase_user("alice").sessions == 150
    assert (store.stats().users, store.stats().sessions) == (0, 0)
    server = Server(redis_url)
    views = [key for key in server.read("KEYS", "*{views}*") if server.read("TYPE", key) == b"zset"]
    assert not any(b"alice" in member for key in views for member in server.read("ZRANGE", key, 0, -1))
    server.close()


def test_the_active_session_is_the_newest_created(store: turnlog.ConversationStore) -> None:
    """Not the oldest, and not whichever comes first; leaving a route is kept."""
    for n in range(5):
        store.session(f"s-{n}", user_id="alice").enter_route("booking")
    store.get("s-4").complete()
    store.get("s-1").exit_route()
    active = store.active_session("alice")
    assert active is not None
    assert active.id == "s-3"
    assert store.get("s-1").state.current_route is None
    assert [one.session_id for one in store.sessions(route="booking").items] == ["s-4", "s-3", "s-2", "s-0"]
