"""What Redis keeps: levels of durability that are promised or refused, crashes, erased bytes, what `doctor` says."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest

import turnlog
from tests.servers import Redis, redis_server_or_skip
from turnlog.adapters.cli import redis_checks
from turnlog.adapters.cli.findings import Finding
from turnlog.adapters.inside import decider_of
from turnlog.domain.errors import InvalidInput, StoreUnavailable

FORGETFUL = {"appendonly": "no", "maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Redis]:
    """A server as caches are set up."""
    with Redis(redis_server_or_skip(), FORGETFUL) as server:
        yield server


def test_a_server_that_cannot_keep_full_is_refused(forgetful: Redis) -> None:
    """The settings are named; ``normal`` is given, and receipts say it."""
    with pytest.raises(InvalidInput, match="cannot keep 'full': appendonly no, maxmemory-policy allkeys-lru"):
        turnlog.open(forgetful.url)
    with turnlog.open(forgetful.url, durability="normal") as store:
        assert store.session("s").add_message("user", "1").durability == "normal"


def test_everysec_is_not_full(redis: Redis, redis_url: str) -> None:
    """A second of what was acknowledged may be lost; a setting that was changed is found at the next open."""
    with turnlog.open(redis_url) as store:
        assert store.session("s").add_message("user", "1").durability == "full"
    redis.execute("CONFIG", "SET", "appendfsync", "everysec")
    try:
        with pytest.raises(InvalidInput, match="appendfsync everysec"):
            turnlog.open(redis_url)
    finally:
        redis.execute("CONFIG", "SET", "appendfsync", "always")


def test_a_server_that_does_not_tell_its_settings(redis: Redis, redis_url: str) -> None:
    """``full`` is refused, saying why, and the password is in no message; ``normal`` works."""
    redis.execute("ACL", "SETUSER", "guest", "on", ">secret-word", "~*", "&*", "+@all", "-config")
    url = redis_url.replace("redis://", "redis://guest:secret-word@")
    with pytest.raises(InvalidInput, match="CONFIG GET is forbidden") as caught:
        turnlog.open(url)
    assert "secret-word" not in repr(caught.value)
    with turnlog.open(url, durability="normal") as store:
        store.session("s").add_message("user", "1")
        found = {finding.name: finding for finding in redis_checks.findings(_recorder(store))}
        assert found["settings"].level == "warning"
    redis.execute("ACL", "DELUSER", "guest")


def test_doctor_names_what_loses_events(forgetful: Redis, redis_url: str) -> None:
    """Each setting with what it loses and what to do; where all is well it says so."""
    with turnlog.open(forgetful.url, durability="normal") as store:
        found = {finding.name: finding for finding in redis_checks.findings(_recorder(store))}
        bad = {name for name, finding in found.items() if finding.level == "bad"}
        assert bad == {"appendonly", "appendfsync", "maxmemory-policy"}
        assert all(finding.do and finding.why for finding in found.values() if finding.level == "bad")
    with turnlog.open(redis_url) as store:
        store.session("s")
        levels = _levels(store)
        levels.pop("one durable commit")  # files in memory are synced faster than any disk
        assert set(levels.values()) == {"ok"}


def _levels(store: turnlog.ConversationStore) -> dict[str, str]:
    found: list[Finding] = list(redis_checks.findings(_recorder(store)))
    return {finding.name: finding.level for finding in found}


def _recorder(store: turnlog.ConversationStore) -> redis_checks.Log:
    found: Any = decider_of(store).recorder
    recorder: redis_checks.Log = found
    return recorder


def test_what_was_acknowledged_outlives_the_server() -> None:
    """Killed while it is written to and started again, it has everything that ``full`` acknowledged, in whole turns."""
    with Redis(redis_server_or_skip()) as server:
        acknowledged: list[int] = []
        writing = turnlog.open(server.url)
        session = writing.session("s")

        def write() -> None:
            for n in range(100_000):
                try:
                    session.add_messages([{"role": "user", "content": f"{n}"}] * 2)
                except (StoreUnavailable, turnlog.OutcomeUnknown):
                    return
                acknowledged.append(n)

        writer = threading.Thread(target=write)
        writer.start()
        while writer.is_alive() and len(acknowledged) < 200:
            writer.join(0.01)
        server.crash()
        writing.close()  # the writer would wait for the server
        writer.join()
        server.start()
        with turnlog.open(server.url) as store:
            said = [message.content for message in store.get("s").history()]
            assert store.verify().ok
        turns = len(said) // 2
        assert turns in (len(acknowledged), len(acknowledged) + 1)
        assert said == [f"{n}" for n in range(turns) for _ in range(2)]


def test_erased_bytes_are_in_no_file_after_scrub() -> None:
    """Neither in the keys nor in what the server has written."""
    with Redis(redis_server_or_skip()) as server, turnlog.open(server.url) as store:
        session = store.session("planted-id", user_id="planted-user", data={"planted": "planted-data"})
        session.add_message("user", "planted-word", message_id="planted-message")
        assert store.messages(user_id="planted-user").items
        assert _planted(server)
        report = session.delete()
        assert report.erasure is not None
        assert any("append-only file" in place for place in report.erasure.pending)
        pending = store.scrub()
        assert not any("until it is rewritten" in place for place in pending.pending)
        assert _planted(server) <= {b"planted-id"}


def _planted(server: Redis) -> set[bytes]:
    words = (b"planted-id", b"planted-user", b"planted-data", b"planted-word", b"planted-message")
    written = b"".join(path.read_bytes() for path in server.files.rglob("*") if path.is_file())
    return {word for word in words if word in written}
