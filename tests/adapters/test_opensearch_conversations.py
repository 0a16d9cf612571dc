"""All real conversations, imported into SQLite and followed into OpenSearch."""

import re
from collections import Counter
from pathlib import Path

import pytest

import turnlog
from tests.adapters.opensearch_indices import Indices, all_sessions
from turnlog.adapters.transfer.conversations import import_files
from turnlog.domain.words import text_of

WORDS = ("restaurant", "doctor", "flight", "tomorrow", "cheapest", "reservation", "wedding", "烤鸭")


@pytest.mark.slow
def test_all_real_conversations_are_followed(sqlite_url: str, indices: Indices, data_dir: Path) -> None:
    """Equal counts and states: every summary, every message, what is found of some words, and what is counted."""
    with turnlog.open(sqlite_url) as store, indices.follow(store) as followed:
        assert import_files(store, sorted(data_dir.glob("*.jsonl.gz"))).ok
        followed.catch_up()
        assert (followed.status().lag, followed.status().parked) == (0, 0)
        indices.assert_same(store, followed)
        assert followed.counts() == (store.stats().sessions, store.stats().messages)
        summaries = list(all_sessions(store))
        by_status = {(one.status, one.route): one.sessions for one in followed.sessions_by_status()}
        assert by_status == Counter((one.status, one.current_route) for one in summaries)
        assert sum(day.messages for day in followed.messages_per_day()) == store.stats().messages
        said = [
            (one.session_id, message.message_id, text_of(message.content).lower())
            for one in summaries
            for message in store.get(one.session_id).history()
        ]
        for word in WORDS:
            expected = {(session_id, id_) for session_id, id_, text in said if _occurs(word, text)}
            assert found(followed, f'"{word}"') == expected, word


def found(followed: turnlog.Followed, text: str) -> set[tuple[str, str]]:
    """Return session and message id of all that is found."""
    every: set[tuple[str, str]] = set()
    cursor = None
    while True:
        page = followed.search(text, order="newest", limit=1_000, cursor=cursor)
        every |= {(one.session_id, one.message.message_id) for one in page.items}
        if (cursor := page.next_cursor) is None:
            return every


def _occurs(word: str, text: str) -> bool:
    """Return whether it is one of the words of a text, which Unicode (UAX 29) does not end at a "." in "so.What"."""
    return word in text if not word.isascii() else word in re.findall(r"\w+(?:[.:'\u2019]\w+)*", text)
