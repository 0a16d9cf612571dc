"""Searching and counting what OpenSearch has followed."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

import turnlog
from tests.adapters.opensearch_indices import Indices
from tests.servers import OpenSearch

DAY = datetime(2025, 3, 1, 22, 0, tzinfo=UTC)


def talk(store: turnlog.ConversationStore) -> None:
    """Have some talk about tables."""
    one = store.session("one", user_id="alice", agent="concierge")
    one.add_message("user", "A table for two at the river, please", occurred_at=DAY)
    one.enter_route("booking")
    one.enter_step("size")
    seconds = timedelta(seconds=4)
    one.add_message("assistant", "Which river? There are tables by two rivers", occurred_at=DAY + seconds)
    one.enter_step("time")
    one.complete()
    two = store.session("two", user_id="bob")
    two.enter_route("booking")
    two.enter_step("size")
    later = DAY + timedelta(hours=3)
    two.add_message("user", "我想吃烤鸭", occurred_at=later)
    two.add_message("user", [{"type": "text", "text": "a table, or a river"}], occurred_at=later)
    two.add_message("assistant", None, tool_calls=[{"id": "c", "name": "find"}], occurred_at=later)
    two.add_message("assistant", "Duck it is", occurred_at=later + timedelta(seconds=10))
    three = store.session("three", user_id="bob")
    three.enter_route("booking")
    three.enter_step("size")
    three.enter_step("time")
    three.abandon()
    four = store.session("four")
    four.enter_route("booking")
    four.enter_step("size")
    four.exit_route()


@pytest.fixture(scope="module")
def talked(
    opensearch: OpenSearch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[turnlog.ConversationStore, turnlog.Followed]]:
    """A store with that talk and what follows it, level; tests change neither."""
    indices = Indices(opensearch)
    with turnlog.open(f"sqlite:///{tmp_path_factory.mktemp('talked')}/sessions.db") as store:
        talk(store)
        with indices.follow(store) as followed:
            followed.catch_up()
            yield store, followed
    opensearch.drop(indices.prefix)


@pytest.fixture
def asked(talked: tuple[turnlog.ConversationStore, turnlog.Followed]) -> turnlog.Followed:
    """What is asked and not changed."""
    return talked[1]


@pytest.fixture
def store(sqlite_url: str) -> Iterator[turnlog.ConversationStore]:
    """A store with that talk, for tests that change it."""
    with turnlog.open(sqlite_url) as opened:
        talk(opened)
        yield opened


@pytest.fixture
def followed(store: turnlog.ConversationStore, indices: Indices) -> Iterator[turnlog.Followed]:
    """What follows it, level."""
    with indices.follow(store) as opened:
        opened.catch_up()
        yield opened


def found(page: turnlog.Page[turnlog.FoundMessage]) -> list[tuple[str, int]]:
    """Return session and version of what was found."""
    return [(one.session_id, one.message.version) for one in page.items]


def test_words_phrases_and_operators(asked: turnlog.Followed) -> None:
    """All words must occur, in any order; phrases, alternatives, exclusions and beginnings are understood."""
    assert found(asked.search("river TABLE", order="newest")) == [("two", 5), ("one", 2)]
    assert found(asked.search('"table for two"')) == [("one", 2)]
    assert found(asked.search("duck | rivers", order="newest")) == [("two", 7), ("one", 5)]
    assert found(asked.search("river -please", order="newest")) == [("two", 5), ("one", 5)]
    assert found(asked.search("tab*", role="assistant")) == [("one", 5)]
    assert found(asked.search("烤鸭")) == [("two", 4)]
    assert found(asked.search("lake")) == []


def test_no_text_is_an_error(asked: turnlog.Followed) -> None:
    """Whatever users type is searched for, not obeyed."""
    typed = ["", "   ", '"', "a\x00b", "((((", "*:*", '{"match_all":{}}', "~9999999999", "a/b\\", "-", "🙂" * 500]
    assert [found(asked.search(text)) for text in typed] == [[]] * len(typed)


def test_a_hit_is_the_message(talked: tuple[turnlog.ConversationStore, turnlog.Followed]) -> None:
    """It holds the message to the last field, whose it is, and where the words are in it."""
    store, followed = talked
    (hit,) = followed.search("please table").items
    assert hit.message == store.get("one").history()[0]
    assert (hit.session_id, hit.user_id, hit.agent, hit.position) == ("one", "alice", "concierge", 2)
    assert hit.score is not None
    (snippet,) = hit.snippets
    assert snippet.text == hit.message.content
    assert [snippet.text[start:end] for start, end in snippet.spans] == ["table", "please"]
    (parts,) = followed.search("river", user_id="bob").items
    assert parts.message.content == [{"type": "text", "text": "a table, or a river"}]


def test_filters(asked: turnlog.Followed) -> None:
    """User, session, agent, role, route and time narrow a search; all given must hold."""
    assert found(asked.search("river", user_id="bob")) == [("two", 5)]
    assert found(asked.search("river", session_id="one", role="user")) == [("one", 2)]
    assert found(asked.search("river", agent="concierge", route="booking")) == [("one", 5)]
    assert found(asked.search("river", until=DAY)) == []
    assert found(asked.search("river", until=DAY + timedelta(microseconds=1))) == [("one", 2)]
    assert found(asked.search("river", since=DAY + timedelta(hours=3))) == [("two", 5)]
    assert found(asked.search("river", user_id="nobody")) == []
    naive = DAY.replace(tzinfo=None)
    refused: list[dict[str, Any]] = [
        {"role": "king"},
        {"order": "best"},
        {"limit": 0},
        {"cursor": "x"},
        {"since": naive},
    ]
    for wrong in refused:
        with pytest.raises(turnlog.InvalidInput):
            asked.search("river", **wrong)


def test_pages(store: turnlog.ConversationStore, followed: turnlog.Followed) -> None:
    """Cursors lead through all that is found, each once, in the order of one large page; elsewhere they are none."""
    many = store.session("many")
    many.add_messages([{"role": "user", "content": f"common {'common ' * (i % 3)}"} for i in range(25)])
    many.set_history([{"role": "user", "content": "common again"}] * 5)
    many.add_messages([{"role": "user", "content": f"common {'common ' * (i % 3)}"} for i in range(20)])
    followed.catch_up()
    for order in ("relevance", "newest"):
        whole = [one.message for one in followed.search("common", order=order, limit=100).items]
        assert len(whole) == 25
        pages: list[turnlog.Message] = []
        cursor = None
        while True:
            page = followed.search("common", order=order, limit=7, cursor=cursor)
            pages += [one.message for one in page.items]
            if (cursor := page.next_cursor) is None:
                break
            with pytest.raises(turnlog.InvalidInput, match="cursor"):
                followed.sessions(cursor=cursor)
        assert pages == whole


def test_the_language_decides_what_a_word_is(store: turnlog.ConversationStore, indices: Indices) -> None:
    """In English a plural is found by its singular; a new language needs no new prefix: the indices are rebuilt."""
    with indices.follow(store) as followed:
        followed.catch_up()
        assert found(followed.search("rivers", role="user")) == []
    with indices.follow(store, language="english") as followed:
        assert found(followed.search("rivers", role="user", order="newest")) == [("two", 5), ("one", 2)]
    with indices.follow(store) as followed:  # not given: as it is
        assert followed.status().lag == 0
    assert indices.generations() == [2]


def test_a_long_text_is_found_at_its_end(store: turnlog.ConversationStore, followed: turnlog.Followed) -> None:
    """Beyond what snippets are made of, words are found all the same."""
    store.session("long").add_message("user", "word " * 300_000 + "needle")
    followed.catch_up()
    (hit,) = followed.search("needle").items
    assert hit.session_id == "long"


def test_messages_per_day(asked: turnlog.Followed) -> None:
    """Days are those of the time zone asked for; roles are counted apart, and filters hold."""
    assert [(one.day, one.messages, one.roles) for one in asked.messages_per_day()] == [
        (date(2025, 3, 1), 2, {"user": 1, "assistant": 1}),
        (date(2025, 3, 2), 4, {"user": 2, "assistant": 2}),
    ]
    assert [one.day for one in asked.messages_per_day(time_zone="Europe/Berlin", user_id="alice")] == [date(2025, 3, 1)]
    assert [(one.day, one.messages) for one in asked.messages_per_day(time_zone="Asia/Tokyo")] == [
        (date(2025, 3, 2), 6)
    ]
    with pytest.raises(turnlog.InvalidInput, match="time_zone"):
        asked.messages_per_day(time_zone="Nowhere/Here")


def test_sessions_by_status(asked: turnlog.Followed) -> None:
    """Each status and route, none too."""
    assert {(one.status, one.route): one.sessions for one in asked.sessions_by_status()} == {
        ("completed", "booking"): 1,
        ("active", "booking"): 1,
        ("abandoned", "booking"): 1,
        ("active", None): 1,
    }
    assert [one.status for one in asked.sessions_by_status(user_id="alice")] == ["completed"]
    assert [one.session_id for one in asked.sessions(status="active", route="booking").items] == ["two"]


def test_where_sessions_drop_off(followed: turnlog.Followed, store: turnlog.ConversationStore) -> None:
    """Of each step it is told how many went on, completed, left, wait, or were closed on it, till they reopen."""
    size, time = followed.step_outcomes("booking")
    assert size == turnlog.StepOutcome(route="booking", step="size", went_on=2, waiting=1, left=1)
    assert time == turnlog.StepOutcome(route="booking", step="time", completed=1, dropped=1)
    assert (size.sessions, size.drop_off, time.drop_off) == (4, 0.25, 0.5)
    assert followed.step_outcomes("elsewhere") == []
    store.get("three").reopen()
    followed.catch_up()
    assert followed.step_outcomes("booking")[1].waiting == 1
    assert followed.step_outcomes(user_id="alice")[0].sessions == 1


def test_response_times(followed: turnlog.Followed, store: turnlog.ConversationStore) -> None:
    """From a user's first unanswered message to an answer that says something; edits change nothing of it."""
    times = followed.response_times()
    assert (times.answers, times.mean_s, times.max_s) == (2, 7.0, 10.0)
    assert followed.response_times(user_id="alice").p50_s == 4.0
    nobody = followed.response_times(user_id="nobody")
    assert (nobody.answers, nobody.mean_s, nobody.p99_s, nobody.max_s) == (0, None, None, None)
    one = store.get("one")
    one.edit_message(one.history()[1].message_id, "By which river?")
    followed.catch_up()
    assert followed.response_times(user_id="alice").answers == 1
