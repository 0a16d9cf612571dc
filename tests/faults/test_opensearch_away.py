"""OpenSearch follows through faults: killed followers, cut connections, a cluster that is away and comes back."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest

import turnlog
from tests import servers
from tests.adapters.commands import ROOT, wait_for
from tests.adapters.opensearch_indices import Indices
from tests.faults.conftest import patiently
from tests.faults.processes import DEADLINE_S
from tests.faults.proxy import Cut, How, Proxy, When
from turnlog.adapters.opensearch.views import OpenSearchViews

DIE = """
import os, sys
import turnlog
from turnlog.adapters.opensearch import generations, views, writing

store, url, prefix, place, after = sys.argv[1:]
views.OpenSearchViews.page = 20
writing.BATCH = 7
cls, name = {"bulk": (generations.Client, "bulk"), "save": (generations.Generations, "save")}[place]
once, left = getattr(cls, name), int(after)

def dying(*arguments):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    return once(*arguments)

setattr(cls, name, dying)
with turnlog.open(store) as opened, turnlog.follow(opened, url, prefix=prefix) as followed:
    followed.catch_up()
"""


@pytest.fixture
def indices(opensearch: servers.OpenSearch) -> Iterator[Indices]:
    """Indices of this test's own."""
    made = Indices(opensearch)
    yield made
    opensearch.drop(made.prefix)


@pytest.fixture
def store(sqlite_url: str) -> Iterator[turnlog.ConversationStore]:
    """A store with ten sessions of some hundred events."""
    with turnlog.open(sqlite_url) as opened:
        for i in range(10):
            session = opened.session(f"s{i}")
            session.add_messages([{"role": "user", "content": f"{n}"} for n in range(9)])
            session.compact_history("shorter", keep_last=i % 4)
            session.assign_owner("alice")
            session.enter_route("booking")
            session.add_message("assistant", "more", message_id="m")
            session.edit_message("m", "other")
        opened.get("s3").delete()
        yield opened


@pytest.mark.parametrize(("place", "after"), [("bulk", 5), ("save", 3)])
def test_a_follower_that_is_killed_leaves_nothing_wrong(
    store: turnlog.ConversationStore, sqlite_url: str, indices: Indices, place: str, after: int
) -> None:
    """Between two requests of a page, and before its checkpoint: the next one goes on, and nothing is missing."""
    command = [sys.executable, "-c", DIE, sqlite_url, indices.server.url, indices.prefix, place, str(after)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    with indices.follow(store) as followed:
        assert followed.status().position < store.position
        followed.catch_up()
        indices.assert_same(store, followed)


@pytest.fixture
def proxy(opensearch: servers.OpenSearch) -> Iterator[Proxy]:
    """A way to the server that can be cut."""
    made = Proxy(opensearch.port)
    yield made
    made.close()


@pytest.mark.parametrize("when", [When.BEFORE, When.AFTER, When.WITHIN])
@pytest.mark.parametrize("pattern", [b"POST /_bulk", b"PUT [^ ]*checkpoint"])
def test_a_cut_connection_is_caught_up(
    store: turnlog.ConversationStore,
    indices: Indices,
    proxy: Proxy,
    when: When,
    pattern: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever a request is cut, it is sent again, or the page is applied again, to the same effect."""
    monkeypatch.setattr(OpenSearchViews, "page", 30)
    url = proxy.url(indices.server.url)
    stop = threading.Event()
    with turnlog.follow(store, url, prefix=indices.prefix) as followed:
        proxy.arm(Cut(when, How.RESET, pattern), Cut(when, How.CLOSED, pattern, skip=1))

        def told(lag: turnlog.Lag) -> None:
            if lag.position == store.position and not lag.trouble:
                stop.set()

        followed.run(stop, told)
        assert proxy.cuts == 2
        indices.assert_same(store, followed)


def test_a_cluster_that_is_away_is_caught_up_with(
    store: turnlog.ConversationStore, indices: Indices, opensearch: servers.OpenSearch
) -> None:
    """While it is away the follower says why it does not get on, and how far it is behind; then it goes on."""
    proxy = Proxy(opensearch.port)
    stop = threading.Event()
    heard: list[turnlog.Lag] = []
    following = partial(turnlog.follow, store, proxy.url(indices.server.url), prefix=indices.prefix, timeout_s=2)
    with patiently(following) as followed:
        follower = threading.Thread(target=followed.run, args=(stop, heard.append))
        follower.start()
        wait_for(lambda: any(lag.position == store.position for lag in heard))
        proxy.silence()
        store.session("meanwhile").add_message("user", "hi")
        wait_for(lambda: heard[-1].trouble is not None and heard[-1].behind == 2)
        with pytest.raises(turnlog.StoreUnavailable):
            followed.search("hi")
        assert store.session("meanwhile").history()[0].content == "hi"
        proxy.reset()
        wait_for(lambda: heard[-1].trouble is None)
        stop.set()
        follower.join()
        patiently(partial(indices.assert_same, store, followed))
    proxy.close()


def test_two_followers_at_once(store: turnlog.ConversationStore, sqlite_url: str, indices: Indices) -> None:
    """Two threads and another process follow while somebody writes: all of it is there, once."""
    stop = threading.Event()
    with indices.follow(store) as one, indices.follow(store) as other:
        threads = [threading.Thread(target=each.run, args=(stop,)) for each in (one, other)]
        for thread in threads:
            thread.start()
        command = [sys.executable, "-c", DIE, sqlite_url, indices.server.url, indices.prefix, "save", "1000"]
        with subprocess.Popen(command, cwd=ROOT) as process:
            for n in range(60):
                session = store.session(f"s{n % 3}")
                session.add_message("user", f"more {n}", message_id=f"n{n}")
                session.edit_message(f"n{n}", f"most {n}")
                if n % 20 == 0:
                    one.rebuild()
            assert process.wait(DEADLINE_S) == 0
        head = store.position
        wait_for(lambda: one.status().position == head)
        stop.set()
        for thread in threads:
            thread.join()
        one.catch_up()
        indices.assert_same(store, one)
