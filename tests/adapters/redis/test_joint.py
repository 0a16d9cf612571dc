"""Appends to several partitions of a cluster: killed at every step, they are whole or not at all, and then finished."""

import os
import signal
from collections.abc import Sequence
from itertools import count
from typing import Any
from uuid import NAMESPACE_OID, uuid5
from zlib import crc32

import pytest

import turnlog
from tests.adapters.redis.conftest import log_of
from tests.faults.processes import PROCESSES
from turnlog.adapters.redis import joint
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.partitions import PARTITIONS
from turnlog.adapters.redis.scripts import APPEND, DECIDE, Script
from turnlog.domain.errors import SessionGone

SESSIONS = 4
STEPS = {"reset": 1 + 2 + 1 + 2, "erase": 1 + 3 + 1 + 3}
"""Scripts of one such append: it is begun, parts are reserved, it is decided, parts are written."""


def names(of: str) -> list[str]:
    """Return ids of sessions in exactly three partitions."""
    found: list[str] = []
    for n in count():
        session_id = f"{of}-{n}"
        parts = {crc32(f"default/{one}".encode()) % PARTITIONS for one in (*found, session_id)}
        if len(parts) == min(len(found) + 1, SESSIONS - 1):
            found.append(session_id)
        if len(found) == SESSIONS:
            return found
    raise AssertionError


def command(of: str) -> tuple[str, str]:
    """Return the id of a command by which a session is reset to one in another partition, and the id of that."""
    for n in count():
        successor = str(uuid5(NAMESPACE_OID, f"turnlog reset default/{of} {n}"))
        if len({crc32(f"default/{one}".encode()) % PARTITIONS for one in (of, successor)}) == 2:
            return str(n), successor
    raise AssertionError


def prepare(store: turnlog.ConversationStore, what: str, of: str) -> None:
    """Make what is to be reset or erased."""
    for session_id in (of,) if what == "reset" else names(of):
        store.session(session_id, user_id=of).add_message("user", "x")


def do(store: turnlog.ConversationStore, what: str, of: str) -> None:
    """Do it."""
    if what == "reset":
        store.get(of).reset(command_id=command(of)[0])
    else:
        store.erase_user(of)


def die_at(url: str, what: str, of: str, step: int) -> None:
    """Do it, and die before so many of its scripts."""
    run, done = Cluster._run, count()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - where it dies

    def dying(cluster: Cluster, script: Script, *arguments: Any, **more: Any) -> object:
        if script in (APPEND, DECIDE) and next(done) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(cluster, script, *arguments, **more)

    with turnlog.open(url, durability="normal") as store:
        pytest.MonkeyPatch().setattr(Cluster, "_run", dying)  # until the process dies
        do(store, what, of)


def killed(*arguments: object) -> bool:
    """Run ``die_at`` in a process; return whether it died."""
    process = PROCESSES.Process(target=die_at, args=arguments, daemon=True)
    process.start()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def is_gone(store: turnlog.ConversationStore, session_id: str) -> bool:
    """Return whether a session was deleted."""
    try:
        store.get(session_id)
    except SessionGone:
        return True
    return False


def looked_at(store: turnlog.ConversationStore, what: str, of: str) -> bool:
    """Return whether it was done; it was not done in part."""
    if what == "reset":
        done = {store.get(of).status == "archived", store.exists(command(of)[1])}
    else:
        done = {is_gone(store, session_id) for session_id in names(of)}
    assert len(done) == 1, "half of it was done"
    return done.pop()


@pytest.mark.parametrize(("what", "steps"), [("reset", range(7)), ("erase", (4, 5, 7, 8))])
def test_killed_at_any_step(cluster_url: str, what: str, steps: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is decided it is done, by whoever opens the store next; until then not at all. It can be said again."""
    monkeypatch.setattr(joint, "OPEN_MS", 0)
    with turnlog.open(cluster_url, durability="normal") as store:
        for step in steps:
            of = f"{what} {step}"
            prepare(store, what, of)
            assert killed(cluster_url, what, of, step) == (step < STEPS[what])
            with turnlog.open(cluster_url, durability="normal") as other:
                assert looked_at(other, what, of) == (step > STEPS[what] // 2)
                do(other, what, of)
                assert looked_at(other, what, of)
        assert store.verify().ok
        assert log_of(store).server.read("HGETALL", log_of(store).joint.key) == []


def test_who_comes_to_it_finishes_it(cluster_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was there before need not be opened anew: the next to write to such a session does it first."""
    monkeypatch.setattr(joint, "OPEN_MS", 0)
    with turnlog.open(cluster_url, durability="normal") as store:
        for step, done in ((1, False), (STEPS["erase"] - 1, True)):
            of = f"left {step}"
            prepare(store, "erase", of)
            assert killed(cluster_url, "erase", of, step)
            left = [one for one in names(of) if not is_gone(store, one)]
            for one in left:
                if done:
                    with pytest.raises(SessionGone):
                        store.get(one).add_message("user", "y")
                else:
                    store.get(one).add_message("user", "y")
            assert left
            assert looked_at(store, "erase", of) == done
        assert store.verify().ok
