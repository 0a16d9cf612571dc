"""Searching: what ``store.search`` promises on every store of views, whether that keeps an index of words or not."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import turnlog
from turnlog.domain.mapper import Codec
from turnlog.domain.words import Query
from turnlog.projections.backend import Backend
from turnlog.projections.engine import Engine
from turnlog.projections.message_search import MessageSearch, SearchFilter
from turnlog.testing.clock import Clock


class SearchContract:
    """What a search finds. The inheriting class's module gives the fixture ``backend``: an empty log with views."""

    @pytest.fixture
    def talked(self, backend: Backend) -> turnlog.ConversationStore:
        """A store on ``backend``: alice asks, is answered a minute later on a route; then bob asks, years before."""
        clock = Clock()
        store = turnlog.open(backend, clock=clock)
        alice, bob = store.session("a", user_id="alice"), store.session("b", user_id="bob")
        alice.add_message("user", "A table for two, please", message_id="asked")
        alice.enter_route("booking")
        clock.advance(60)
        alice.add_message("assistant", [{"type": "text", "text": "The TABLE is yours"}], message_id="told")
        clock.advance(60)
        bob.add_message("user", "table, 東京タワーで", message_id="bob's", occurred_at=datetime(2020, 1, 1, tzinfo=UTC))
        return store

    def test_what_is_found(self, talked: turnlog.ConversationStore) -> None:
        """Messages that have all the words come newest first, narrowed by user, role, route and when they occurred."""
        asked_at = talked.get("a").history()[0].occurred_at
        minute = timedelta(minutes=1)
        filters: list[tuple[dict[str, Any], list[str]]] = [
            ({}, ["bob's", "told", "asked"]),
            ({"user_id": "alice"}, ["told", "asked"]),
            ({"user_id": "Alice"}, []),
            ({"role": "user"}, ["bob's", "asked"]),
            ({"route": "booking"}, ["told"]),
            ({"since": asked_at + minute}, ["told"]),
            ({"until": asked_at + minute}, ["bob's", "asked"]),
            ({"user_id": "alice", "role": "user", "since": asked_at, "until": asked_at + minute}, ["asked"]),
        ]
        for wanted, expected in filters:
            assert _found(talked, "table", **wanted) == expected, wanted
        for text, expected in {"two PLEASE": ["asked"], "tabl": [], "京タ": ["bob's"], "table yours two": []}.items():
            assert _found(talked, text) == expected, text

    def test_tenants_are_searched_apart(self, talked: turnlog.ConversationStore, backend: Backend) -> None:
        """Equal sessions and messages of two tenants are two."""
        other = turnlog.open(backend, tenant="other")
        assert _found(other, "table") == []
        other.session("a", user_id="alice").add_message("user", "their table", message_id="theirs")
        assert _found(other, "table") == ["theirs"]
        assert _found(talked, "table", user_id="alice") == ["told", "asked"]

    def test_what_is_gone_is_not_found(self, talked: turnlog.ConversationStore) -> None:
        """Edits count at once; what was removed or deleted is nowhere, and is still there in a fork made before."""
        assert _found(talked, "table for two") == ["asked"]
        alice = talked.get("a")
        alice.edit_message("asked", "A bench for two")
        assert (_found(talked, "table"), _found(talked, "bench")) == (["bob's", "told"], ["asked"])
        fork = alice.fork("f")
        alice.remove_message("told")
        assert [hit.session_id for hit in talked.search("table").items] == ["f", "b"]
        alice.delete()
        assert [hit.session_id for hit in talked.search("two").items] == ["f"]
        talked.erase_user("alice")
        assert (_found(talked, "two"), _found(talked, "table")) == ([], ["bob's"])
        assert not talked.exists(fork.id)

    def test_pages_stay_while_others_write(self, talked: turnlog.ConversationStore) -> None:
        """A cursor goes on where its page ended, whatever is said, edited or removed meanwhile; nothing comes twice."""
        session = talked.session("s")
        session.add_messages([{"role": "user", "content": f"word {n}", "message_id": f"m{n}"} for n in range(6)])
        page = talked.search("word", limit=2)
        seen = [hit.message.message_id for hit in page.items]
        while page.next_cursor is not None:
            session.add_message("user", "a newer word")
            session.edit_message("m5", f"the word {len(seen)}")
            if len(seen) == 2:
                session.remove_message("m3")
                session.remove_message("m4")
            page = talked.search("word", limit=2, cursor=page.next_cursor)
            seen += [hit.message.message_id for hit in page.items]
        assert seen == ["m5", "m4", "m2", "m1", "m0"]

    def test_an_index_finds_all(self, talked: turnlog.ConversationStore, backend: Backend) -> None:
        """Where an index of words is kept, no message that is wanted is left out, and it is what a fold makes of it."""
        if not backend.views.searches:
            return
        engine = Engine(backend.recorder, backend.views, Codec())
        engine.add(MessageSearch())
        talked.get("a").assign_owner("carol")
        assert engine.catch_up()
        for user_id, expected in ((None, ["bob's", "told", "asked"]), ("carol", ["told", "asked"]), ("alice", [])):
            where = SearchFilter("default", Query.of("table").terms, user_id=user_id)
            rows = backend.views.select_found(where, limit=9)
            assert [row.message_id for row in rows] == expected
            assert [(row.position, row.item) for row in rows] == sorted(
                ((row.position, row.item) for row in rows), reverse=True
            )
            for n, row in enumerate(rows):
                assert backend.views.select_found(where, before=(row.position, row.item), limit=9) == rows[n + 1 :]
        left = backend.views.select_found(SearchFilter("default", Query.of("table").terms, without=("a",)), limit=9)
        assert [row.session_id for row in left] == ["b"]
        engine.rebuild("message_search")
        assert engine.check("message_search") == []


def _found(store: turnlog.ConversationStore, text: str, **wanted: Any) -> list[str]:
    return [hit.message.message_id for hit in store.search(text, **wanted).items]
