"""The log on a Redis Cluster: our contract, racing and dying writers, views, and a master that dies."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import turnlog
from tests.adapters.redis.conftest import log_of
from tests.servers import RedisCluster
from turnlog.adapters.cli import redis_checks
from turnlog.adapters.connect import connect
from turnlog.adapters.inside import decider_of
from turnlog.adapters.redis.partitions import PartitionedLog
from turnlog.adapters.redis.recorder import RedisRecorder
from turnlog.domain.errors import InvalidInput, StoreUnavailable
from turnlog.projections.backend import Backend
from turnlog.testing.contracts import RecorderContract, TwoTenantsContract, UnlockedContract
from turnlog.testing.contracts.rows import batch, grow
from turnlog.testing.contracts.views import ViewsContract


@pytest.fixture
def url(redis_cluster: RedisCluster) -> str:
    """A store on the cluster that does not exist yet."""
    return redis_cluster.new_place()


@pytest.fixture
def backend(url: str) -> Iterator[Backend]:
    """An empty log with views."""
    opened = connect(url, durability="normal", engine=None, options={"timeout_s": 20.0})
    yield opened
    opened.recorder.close()


@pytest.fixture
def recorder(backend: Backend) -> RedisRecorder:
    """The log."""
    assert isinstance(backend.recorder, RedisRecorder)
    return backend.recorder


class TestViews(ViewsContract):
    """Our contract."""


class TestRecorder(RecorderContract, UnlockedContract, TwoTenantsContract):
    """Our contracts; what they promise of several sessions holds for those of one partition."""

    out_of_reach = ("old append-only file", "snapshots", "backups")

    def test_what_again_returns_may_not_fit_either(self, recorder: Any) -> None:
        """It is asked for until the time is over, which is therefore short here."""
        recorder.appends.timeout_s = 0.5
        super().test_what_again_returns_may_not_fit_either(recorder)


def test_what_a_dead_writer_left_gets_its_position(recorder: RedisRecorder, url: str) -> None:
    """Written in its partition and not yet ordered, or ordered and not yet noted there: whoever reads next ends it."""
    log = recorder.log
    assert isinstance(log, PartitionedLog)
    grow(recorder, "default/a", 2)
    part = log.of("default/b")
    part.append(_batches("default/b", 3))  # and then it died
    other = connect(url, durability="normal", engine=None, options={}).recorder
    assert [row[0] for row in other.select_stream("default/b")] == [3, 4, 5]
    assert [row[:3] for row in other.select_log(after=2, limit=9)] == [
        (3, "default/b", 1),
        (4, "default/b", 2),
        (5, "default/b", 3),
    ]
    log.server.write("DEL", part.keys.head + b":places")
    assert [row[0] for row in other.select_stream("default/b")] == [3, 4, 5]
    assert (other.position(), other.visible(limit=9), other.check()) == (5, [], [])
    other.close()


def _batches(stream: str, n: int) -> Any:
    return (batch(stream, n),)


def test_conversations_on_a_cluster(url: str) -> None:
    """All of a store works: sessions in several partitions, lists, forks, resets, deletion, verification."""
    with turnlog.open(url, ttl_s=600) as store, turnlog.open(url) as other:
        for n in range(12):
            session = store.session(f"s-{n}", user_id=f"u-{n % 2}")
            session.add_messages([{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": "ok"}])
        assert store.session("s-0").add_message("user", "x").durability == "full"
        assert len(other.sessions(user_id="u-1").items) == 6
        assert other.messages(user_id="u-0", limit=1).items[0].content == "x"
        fork, new = store.get("s-1").fork("fork"), store.get("s-2").reset()
        assert [message.content for message in fork.history()] == ["1", "ok"]
        assert (new.state.continued_from, other.get("s-2").status) == ("s-2", "archived")
        store.get("s-3").delete()
        report = store.erase_user("u-0")
        assert report.sessions == 7
        assert {one.session_id for one in other.sessions(limit=99).items} == {
            "s-1",
            "s-5",
            "s-7",
            "s-9",
            "s-11",
            "fork",
        }
        assert store.verify().ok
        assert store.position == len(list(other.events()))
        partitions = {log_of(store).part(f"default/s-{n}") for n in range(12)}
        assert len(partitions) > 1
        recorder: Any = decider_of(store).recorder  # one of Redis
        found = list(redis_checks.findings(recorder))
        assert {finding.level for finding in found if "commit" not in finding.name} == {"ok"}
        assert sum("appendfsync" in finding.name for finding in found) == 3
    with pytest.raises(InvalidInput, match="partitions"):
        turnlog.open(url, partitions=3)


def test_racing_writers_keep_everything(url: str) -> None:
    """Twenty at a time, on one session and on several: every message once, and readers are never overtaken."""
    with turnlog.open(url, durability="normal") as store:
        store.session("shared")
        seen: list[int] = []
        done = threading.Event()

        def read() -> None:
            after = 0
            while not done.is_set() or after < store.position:
                for event in store.events(after=after):
                    seen.append(event.position)
                    after = event.position

        def write(n: int) -> None:
            store.get("shared").add_message("user", f"shared {n}")
            store.session(f"own-{n}").add_message("user", f"own {n}")

        reader = threading.Thread(target=read)
        writers = [threading.Thread(target=write, args=(n,)) for n in range(20)]
        for thread in (reader, *writers):
            thread.start()
        for thread in writers:
            thread.join()
        done.set()
        reader.join()
        assert {message.content for message in store.get("shared").history()} == {f"shared {n}" for n in range(20)}
        assert seen == sorted(set(seen))
        assert len(seen) == store.position == 1 + 20 + 40
        assert store.verify().ok


@pytest.mark.slow
@pytest.mark.parametrize("which", ["a session's", "the order's"])
def test_a_master_dies(redis_cluster: RedisCluster, which: str) -> None:
    """Killed while it is written to, and back as a replica: what was acknowledged is there, in order, and once."""
    redis_cluster.wait()
    url = redis_cluster.new_place()
    acknowledged: list[str] = []
    stop = threading.Event()

    def write(store: turnlog.ConversationStore, writer: int) -> None:
        session = store.session(f"s-{writer}")
        n = 0
        while not stop.is_set():
            text = f"{writer} {n}"
            try:
                session.add_message("user", text, message_id=text)
            except (StoreUnavailable, turnlog.OutcomeUnknown):
                continue
            acknowledged.append(text)
            n += 1

    with turnlog.open(url, timeout_s=20.0) as store:
        writers = [threading.Thread(target=write, args=(store, n)) for n in range(3)]
        for writer in writers:
            writer.start()
        while len(acknowledged) < 50:
            stop.wait(0.01)
        log = log_of(store)
        victim = redis_cluster.master_of(log.of("default/s-0").keys.head if which == "a session's" else log.keys.head)
        with redis_cluster.deadly():
            victim.crash()
            before = len(acknowledged)
            stop.wait(4.0)
            victim.start()
        while not stop.is_set() and (len(acknowledged) < before + 50 or _least(acknowledged) < 20):
            stop.wait(0.01)
        stop.set()
        for writer in writers:
            writer.join()
        assert store.verify().ok
    with turnlog.open(url) as store:
        for n in range(3):
            said = [str(message.content) for message in store.get(f"s-{n}").history()]
            mine = [text for text in acknowledged if text.startswith(f"{n} ")]
            assert set(mine) <= set(said)
            assert said == [f"{n} {i}" for i in range(len(said))]
        positions = [event.position for event in store.events()]
        assert positions == sorted(set(positions))
        assert len(positions) == sum(session.version for session in store.sessions().items)
        assert store.verify().ok


def _least(acknowledged: list[str]) -> int:
    return min(sum(text.startswith(f"{n} ") for text in acknowledged) for n in range(3))


def test_every_node_has_to_keep_full(redis_cluster: RedisCluster, url: str) -> None:
    """One that does not, be it a replica, is named; with ``normal`` it is taken as it is."""
    redis_cluster.wait()
    for node in redis_cluster.nodes:
        node.execute("CONFIG", "SET", "appendfsync", "everysec")
        try:
            with pytest.raises(InvalidInput, match=rf":{node.port} cannot keep 'full': appendfsync everysec"):
                turnlog.open(url)
            turnlog.open(url, durability="normal").close()
        finally:
            node.execute("CONFIG", "SET", "appendfsync", "always")
    turnlog.open(url).close()
