"""Searching messages, on every backend, beyond what turnlog/testing/contracts/searching.py asks."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest

import turnlog
from tests.lent.applications import application
from turnlog import ConversationStore, InvalidInput, SessionNotFound


def found(store: ConversationStore, text: str, **wanted: Any) -> list[str]:
    """Return the ids of the messages found, on all pages."""
    page = store.search(text, **wanted)
    ids = [hit.message.message_id for hit in page.items]
    while page.next_cursor is not None:
        page = store.search(text, **wanted, cursor=page.next_cursor)
        ids += [hit.message.message_id for hit in page.items]
    return ids


def test_newest_first_in_pages(store: ConversationStore) -> None:
    """What is said and read at once is found, newest first, page after page, with whose it is."""
    for n in range(7):
        session = store.session(f"s{n % 3}", user_id="alice" if n % 3 else None)
        session.add_message("user", f"Pizza number {n}, please", message_id=f"m{n}")
    assert found(store, "PIZZA", limit=2) == [f"m{n}" for n in range(6, -1, -1)]
    (hit,) = store.search("number 5").items
    assert (hit.session_id, hit.user_id, hit.message) == ("s2", "alice", store.get("s2").message("m5"))
    assert found(store, "number 5 3") == []


def test_only_what_is_visible(store: ConversationStore) -> None:
    """Edited messages are found by their new text; removed, cleared, compacted and replaced ones not at all."""
    session = store.session("s")
    for name in ("apple", "berry", "cherry", "date"):
        session.add_message("user", name, message_id=name)
    assert found(store, "apple") == ["apple"]
    session.edit_message("apple", "apricot")
    assert (found(store, "apple"), found(store, "apricot")) == ([], ["apple"])
    session.remove_message("berry")
    assert found(store, "berry") == []
    session.compact_history("about fruit", keep_last=1)
    assert (found(store, "apricot"), found(store, "cherry"), found(store, "date")) == ([], [], ["date"])
    assert len(found(store, "fruit", role="system")) == 1
    session.set_history([{"message_id": f"n{i}", "role": "user", "content": f"nut {i}"} for i in range(3)])
    assert (found(store, "date"), found(store, "nut", limit=1)) == ([], ["n2", "n1", "n0"])
    session.edit_message("n1", [{"type": "text", "text": "date"}])
    assert (found(store, "date"), found(store, "nut")) == (["n1"], ["n2", "n0"])
    session.clear_history()
    assert found(store, "nut") == []


def test_whose_it_is(store: ConversationStore, url: str) -> None:
    """Another tenant's and another user's messages are never found; an assigned session's are its owner's."""
    store.session("a", user_id="alice").add_message("user", "private", message_id="a")
    store.session("b").add_message("user", "private", message_id="b")
    alice = store.for_user("alice")
    assert found(alice, "private") == ["a"]
    assert found(store.for_user("bob"), "private") == []
    with pytest.raises(SessionNotFound):
        alice.search("private", user_id="bob")
    store.get("b").assign_owner("bob")
    assert found(store.for_user("bob"), "private") == ["b"]
    assert found(store, "private", user_id="alice") == ["a"]
    if url != "memory://":
        with turnlog.open(url, tenant="other") as other:
            assert found(other, "private") == []
            other.session("a", user_id="alice").add_message("user", "private", message_id="theirs")
            assert found(other, "private") == ["theirs"]
        assert found(store, "private") == ["b", "a"]


TEXTS = {
    "plain": "It's 100% \"quoted\" AND OR NOT near* (a:b) - don't; DROP TABLE x",
    "accents": "Crème brûlée für Straße",
    "nul": "before\0after",
    "emoji": "ship it 🚀👩‍👩‍👧 ❤️",
    "han": "我想预订一张两人桌",
    "kana": "東京タワーで待ち合わせ",
    "thai": "ขอโต๊ะสำหรับสองคน",
    "arabic": "طاولة لشخصين من فضلك",
    "hindi": "दो लोगों के लिए मेज",
    "short": "I a 1 the of is to",
    "long": "x" * 3000 + " end",
    "scope": "u0 t1 user tenant ' '' \\ & | ! <-> :*",
}


@pytest.mark.parametrize("query", ["'", '"', "*", "()", " ", "\0", "--"])
def test_a_query_without_words_is_refused(store: ConversationStore, query: str) -> None:
    """Punctuation alone asks for nothing."""
    with pytest.raises(InvalidInput):
        store.search(query)


def test_whatever_is_said_is_found(store: ConversationStore) -> None:
    """Stop words, short and long words, quotes and operators, scripts without blanks: nothing is lost or special."""
    session = store.session("s")
    for name, text in TEXTS.items():
        session.add_message("user", text, message_id=name)
    session.add_message("user", [{"type": "text", "text": "in parts"}, {"type": "image", "url": "nowhere"}])
    queries = {text: name for name, text in TEXTS.items()}
    queries |= {"the": "short", "a 1 i": "short", "AND": "plain", '"NOT near*"': "plain", "it's": "plain"}
    queries |= {"crème": "accents", "STRASSE": "accents", "after": "nul", "🚀": "emoji", "❤": "emoji", "两人": "han"}
    queries |= {
        "京": "kana",
        "タワー": "kana",
        "สองคน": "thai",
        "لشخصين": "arabic",
        "लोगों": "hindi",
        "x" * 2000: "long",
    }
    for query, name in queries.items():
        assert found(store, query) == [name], query
    assert len(found(store, "in parts")) == 1
    for query in ("nowhere", "tha", "dropp", "京東", "brulee", "afte", "人两"):
        assert found(store, query) == [], query


def talked(store: ConversationStore) -> None:
    """Say the texts in several sessions, some of them another user's, with edits and removals."""
    for n, (name, text) in enumerate(TEXTS.items()):
        session = store.session(f"s{n % 4}", user_id=f"u{n % 2}")
        session.add_message("user", text, message_id=name)
        session.add_message("assistant", f"You said {text}")
    store.get("s1").edit_message("accents", "reworded")
    store.get("s2").remove_message("nul")


QUERIES = ("the", "said", "reworded", "crème", "after", "京", "said two")


def test_without_full_text_search(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python whose SQLite has none reads the messages, with the same answers, and leaves the others' index alone."""
    with turnlog.open(sqlite_url) as store:
        talked(store)
        expected = [[found(store, query, limit=3, **wanted) for query in QUERIES] for wanted in ({}, {"user_id": "u1"})]
        assert all(expected[0][:3])
        monkeypatch.setattr("turnlog.adapters.sqlite.views.has_fts5", lambda: False)
        with turnlog.open(sqlite_url) as plain:
            read = [[found(plain, query, limit=3, **wanted) for query in QUERIES] for wanted in ({}, {"user_id": "u1"})]
            assert read == expected
            erasure = plain.get("s0").delete().erasure
            assert erasure is not None
            assert any("message_search" in words for words in erasure.pending)
        store.catch_up()
        assert "plain" not in found(store, "don't")
        assert store.verify().ok


@pytest.mark.parametrize("url", ["sqlite", "postgresql", "mariadb"], indirect=True)
def test_a_store_that_may_only_be_read(store: ConversationStore, url: str) -> None:
    """Before anybody has searched, messages are read; then its index is used, with what it lacks from the log."""
    talked(store)
    with turnlog.open(url, read_only=True) as reading:
        before = [found(reading, query) for query in QUERIES]
        assert [view.name for view in reading.stats().views] == ["message_index", "session_index"]
        assert [found(store, query) for query in QUERIES] == before
        store.session("s0").add_message("user", "two have said", message_id="new")
        assert found(reading, "two said") == ["new", *before[-1]]
        assert "message_search" in [view.name for view in reading.stats().views]


def test_while_somebody_else_writes(sqlite_url: str) -> None:
    """A search waits for no lock: what the view lacks is read from the log."""
    with turnlog.open(sqlite_url) as store, closing(sqlite3.connect(sqlite_url[10:], isolation_level=None)) as other:
        talked(store)
        before = found(store, "said")
        store.session("s0").add_message("user", "I said so", message_id="new")
        store.session("s1").edit_message("accents", "said so")
        other.execute("BEGIN IMMEDIATE")
        assert found(store, "said", limit=2)[0] == "new"
        assert sorted(found(store, "said")) == sorted([*before, "new", "accents"])
        assert found(store, "said", consistency="eventual") == before


@pytest.mark.parametrize("url", ["postgresql", "mariadb"], indirect=True)
def test_inside_an_applications_transaction(store: ConversationStore, url: str) -> None:
    """What was written there, and is not committed, is found there only; also where nobody has searched before."""
    talked(store)
    app = application(url)
    bound = store.using(app.connection)
    for _ in range(2):
        bound.session("s0").add_message("user", "nobody knows", message_id="new")
        assert (found(bound, "nobody"), found(bound, "reworded")) == (["new"], ["accents"])
        assert found(store, "nobody") == []
        app.connection.rollback()
        assert found(bound, "nobody") == []
    app.close()
