"""Looking into the indices of a test, past the library."""

import json
import re
import urllib.request
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import turnlog
from tests.servers import OpenSearch
from turnlog.adapters.connect import follower
from turnlog.adapters.inside import decider_of
from turnlog.adapters.opensearch.documents import message_of


class Indices:
    """Those of one prefix on the test run's server."""

    def __init__(self, server: OpenSearch) -> None:
        self.server = server
        self.prefix = server.new_prefix()

    def follow(self, store: turnlog.ConversationStore, **options: Any) -> turnlog.Followed:
        """Have them follow a store."""
        return turnlog.follow(store, self.server.url, prefix=self.prefix, **options)

    @contextmanager
    def late_page(self, store: turnlog.ConversationStore) -> Generator[None, None, None]:
        """Have a follower read all of the log before the block, and send what it made of that after it."""
        decider = decider_of(store)
        found = follower(self.server.url, decider.recorder, {"prefix": self.prefix})
        with found.views.write() as bulk:
            found.view.apply_rows(decider.recorder.select_log(limit=1_000), decider.codec, bulk)
            found.views.release(bulk, found.view.name, "")
            yield
        found.asked.close()

    def put(self, path: str, body: Any) -> None:
        """Change something on the server."""
        self.ask(path, body, method="PUT")

    def ask(self, path: str, body: Any = None, method: str | None = None) -> Any:
        """Ask the server."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        address = f"http://{self.server.url.partition('://')[2]}/{path}"
        request = urllib.request.Request(address, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - as above
            return json.load(answer)

    def generations(self) -> list[int]:
        """Return the numbers of the generations of which there is any index."""
        names = self.ask(f"{self.prefix}-*/_alias")
        return sorted({int(found[1]) for name in names if (found := re.search(r"-(\d{6})$", name))})

    def documents(self, kind: str) -> list[dict[str, Any]]:
        """Return the documents of a kind, through the alias."""
        return [hit["_source"] for hit in self._hits(f"{self.prefix}-{kind}")]

    def versions(self) -> dict[str, int]:
        """Return the id of every document with the number of its last change."""
        hits = self._hits(f"{self.prefix}-*")
        return {hit["_id"]: hit["_seq_no"] for hit in hits}

    def everything(self) -> str:
        """Return all that all generations hold, as text."""
        return json.dumps([hit["_source"] for hit in self._hits(f"{self.prefix}-*")], ensure_ascii=False)

    def assert_same(self, store: turnlog.ConversationStore, followed: turnlog.Followed) -> None:
        """Every session's summary, and every visible message, is what the store has."""
        self.ask(f"{self.prefix}-*/_refresh")
        sessions = {one.session_id: one for one in all_sessions(store)}
        assert {one.session_id: one for one in all_sessions(followed)} == sessions
        said: dict[str, list[tuple[int, int, turnlog.Message]]] = {}
        for one in self.documents("messages"):
            assert one.get("user_id") == sessions[one["session_id"]].user_id
            said.setdefault(one["session_id"], []).append((one["version"], one["item"], message_of(one)))
        for session_id in sessions:
            expected = sorted(store.get(session_id).history(), key=lambda message: message.version)
            found = [message for _, _, message in sorted(said.get(session_id, []), key=lambda one: one[:2])]
            assert found == expected, session_id
        assert followed.counts() == (len(sessions), sum(map(len, said.values())))
        assert not said.keys() - sessions.keys()

    def _hits(self, pattern: str) -> Iterator[dict[str, Any]]:
        self.ask(f"{pattern}/_refresh")
        page = {"size": 10_000, "seq_no_primary_term": True, "sort": ["_id"]}
        while hits := self.ask(f"{pattern}/_search", page)["hits"]["hits"]:
            yield from hits
            page["search_after"] = hits[-1]["sort"]


def all_sessions(source: turnlog.ConversationStore | turnlog.Followed) -> Iterator[turnlog.SessionSummary]:
    """Yield every session, in pages."""
    cursor = None
    while True:
        page = source.sessions(limit=500, cursor=cursor)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return
