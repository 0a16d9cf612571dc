"""Sessions that live for a time: every write gives it anew, and when it is over they end as a whole.

On one server and on a cluster.
"""

from collections.abc import Callable, Iterator
from time import monotonic, sleep

import pytest

import turnlog
from tests.adapters.redis.conftest import part_of
from turnlog.domain.errors import InvalidInput
from turnlog.domain.events import SessionDeleted, SessionStarted

TTL_S = 600.0
Later = Callable[[str], None]


@pytest.fixture(params=["redis_url", "cluster_url"])
def url(request: pytest.FixtureRequest) -> str:
    """A store that does not exist yet."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def store(url: str) -> Iterator[turnlog.ConversationStore]:
    """A store whose sessions live for ten minutes."""
    with turnlog.open(url, ttl_s=TTL_S) as opened:
        yield opened


@pytest.fixture
def expire(store: turnlog.ConversationStore) -> Later:
    """Let a session's time be over, as if it had not been written to for ten minutes."""

    def over(session_id: str) -> None:
        log = part_of(store, session_id)
        assert log.server.write("ZADD", log.keys.deadlines, "XX", "CH", 1, f"default/{session_id}") == 1

    return over


def test_every_write_gives_time_anew(store: turnlog.ConversationStore, url: str) -> None:
    """Whatever is written, and by whatever program: one that knows of no time to live keeps the session's."""
    log = part_of(store, "s")

    def now_s_and_deadline() -> tuple[int, float]:
        told, deadline = log.server.read_all((("TIME",), ("ZSCORE", log.keys.deadlines, "default/s")))
        return int(told[0]), float(deadline) / 1000

    session = store.session("s", user_id="alice")
    writes: list[Callable[[], object]] = [
        lambda: session.add_message("user", "1"),
        lambda: session.set_context({"a": 1}),
        lambda: session.enter_route("r"),
    ]
    with turnlog.open(url) as other:
        writes.append(lambda: other.get("s").collect(b=2))
        for write in writes:
            log.server.write("ZADD", log.keys.deadlines, 1000 * (now_s_and_deadline()[0] + 120), "default/s")
            write()
            now_s, deadline_s = now_s_and_deadline()
            assert deadline_s - now_s == pytest.approx(TTL_S, abs=60)


def test_a_session_ends_as_a_whole(store: turnlog.ConversationStore, expire: Later) -> None:
    """Log, keys, snapshot, view rows and index entries go together; what is left says only that it was deleted."""
    for session_id in ("gone", "stays"):
        session = store.session(session_id, user_id="alice", agent="a")
        session.enter_route("r")
        for first in range(0, 120, 40):
            said = range(first, first + 40)
            session.add_messages([{"role": "user", "content": f"{n}", "message_id": f"m-{n}"} for n in said])
    assert len(store.sessions().items) == 2
    expire("gone")
    assert not store.exists("gone")
    with pytest.raises(turnlog.SessionNotFound):
        store.get("gone")
    assert [one.session_id for one in store.sessions(user_id="alice").items] == ["stays"]
    assert {message.content for message in store.messages(user_id="alice", limit=500).items} == {
        f"{n}" for n in range(120)
    }
    assert (store.stats().sessions, store.stats().messages) == (1, 120)
    (active,) = [store.active_session("alice")]
    assert active is not None
    assert active.id == "stays"
    server = part_of(store, "gone").server
    keys = [key for node in server.nodes() for key in node.read("KEYS", f"{server.keys.prefix}*")]
    assert len(keys) > 20
    assert [key for key in keys if b"gone" in key] == []
    for key in keys:
        kind = server.read("TYPE", key)
        if kind == b"zset":
            assert not any(b"gone" in member for member in server.read("ZRANGE", key, 0, -1)), key
        elif kind == b"hash":
            assert not any(b"gone" in part for part in server.read("HGETALL", key)), key
    expire("stays")
    assert store.verify().ok, "the last event that views have read is gone"


def test_followers_are_told(store: turnlog.ConversationStore, expire: Later) -> None:
    """Who follows the log finds, instead of what he had not read yet, that the session was deleted."""
    before = store.subscribe(after=0)
    store.session("s").add_message("user", "read")
    store.session("t")
    assert [next(before).session_id for _ in range(3)] == ["s", "s", "t"]
    store.get("s").add_message("user", "never read")
    expire("s")
    position = store.position
    told = next(before)
    assert (told.position, told.session_id, told.version, told.event) == (position, "s", 4, SessionDeleted())
    assert [(event.session_id, type(event.event)) for event in store.events()] == [
        ("t", SessionStarted),
        ("s", SessionDeleted),
    ]
    before.close()


def test_an_id_can_be_used_again(store: turnlog.ConversationStore, expire: Later, url: str) -> None:
    """A new session begins at version 1, also where a handle of the old one still writes; that finds no session."""
    old = store.session("s")
    old.add_message("user", "old", message_id="m")
    expire("s")
    with pytest.raises(turnlog.SessionNotFound):
        old.add_message("user", "late")
    fresh = store.session("s")
    assert fresh.created
    fresh.add_message("user", "new", message_id="m")
    assert (old.version, fresh.version) == (2, 2)
    old.add_message("user", "to the new one")  # not upon what it knew of the old one
    fresh.refresh()
    fresh.remove_message(fresh.history(last=1)[0].message_id)
    assert [message.content for message in fresh.history()] == ["new"]
    assert store.sessions().items[0].message_count == 1
    with turnlog.open(url, read_only=True) as reader:
        expire("s")
        assert not reader.exists("s")
    assert store.verify().ok
    assert store.stats().sessions == 0


def test_time_passes(url: str) -> None:
    """The server's clock decides."""
    with turnlog.open(url, ttl_s=0.2) as store:
        store.session("s")
        deadline = monotonic() + 60
        while store.exists("s"):
            assert monotonic() < deadline
            sleep(0.01)


@pytest.mark.parametrize("ttl_s", [0, -1, "1", float("inf")])
def test_a_time_that_is_none_is_refused(redis_url: str, ttl_s: object) -> None:
    """Naming the option."""
    with pytest.raises(InvalidInput, match="ttl_s"):
        turnlog.open(redis_url, ttl_s=ttl_s)
