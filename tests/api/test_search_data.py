"""Searching real conversations, in Chinese and other languages, against a plain scan of all their messages."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import turnlog
from turnlog import ConversationStore, Message
from turnlog.adapters.transfer.conversations import import_files
from turnlog.domain.words import Query, text_of, words

SEARCHES = 40
FILES = ("crosswoz_val.jsonl.gz", "oasst_trees_dev.jsonl.gz")


def everything(store: ConversationStore) -> Iterator[tuple[tuple[int, int], str, Message]]:
    """Yield every visible message with its session and its place: the newest event of all comes last."""
    positions = {(event.session_id, event.version): event.position for event in store.events()}
    cursor = None
    while True:
        page = store.sessions(limit=1_000, cursor=cursor)
        for session_id in (summary.session_id for summary in page.items):
            for item, message in enumerate(store.get(session_id).history()):
                yield (positions[session_id, message.version], item), session_id, message
        cursor = page.next_cursor
        if cursor is None:
            return


def asked(random: Random, text: str) -> str:
    """Return a query that a message's text may answer: words of it in any order, or a piece, cut anywhere."""
    there = words(text)
    if random.random() < 0.5:
        return " ".join(random.sample(there, min(len(there), random.randint(1, 3))))
    start = random.randrange(len(text))
    return text[start : start + random.randint(2, 30)]


def test_searches_find_what_a_scan_finds(sqlite_url: str, data_dir: Path) -> None:
    """Every search gives the messages that match, in their order, and no others."""
    random = Random(7)  # noqa: S311 - it chooses queries
    with turnlog.open(sqlite_url, durability="normal") as store:
        import_files(store, [data_dir / name for name in FILES])
        newest_first = sorted(everything(store), key=lambda one: one[0], reverse=True)
        said = [(session_id, message, text_of(message.content)) for _, session_id, message in newest_first]
        texts = [text for _, _, text in said if words(text)]
        found = 0
        for text in random.sample(texts, SEARCHES):
            query = asked(random, text)
            wanted = Query.of(query)
            if wanted.words:
                hits = [(hit.session_id, hit.message) for hit in store.search(query, limit=200).items]
                assert hits == [(s, m) for s, m, t in said if wanted.matches(t)][:200], query
                found += len(hits)
        assert found > SEARCHES
