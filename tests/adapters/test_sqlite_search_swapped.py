"""Searching on SQLite while the index that is searched is replaced: that fails at an instant that cannot be planned.

So the same error is brought about by hand: the index's own tables are away when a connection meets it.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from turnlog.adapters.sqlite.database import Database
from turnlog.adapters.sqlite.swapping import across_swaps
from turnlog.domain.errors import StoreUnavailable

Search = Callable[[str], list[tuple[str]]]


@pytest.fixture
def search(tmp_path: Path) -> Iterator[Search]:
    """Searches an index that is not whole the first time."""
    path = str(tmp_path / "t.db")
    with closing(Database(path)) as database, closing(sqlite3.connect(path)) as swapping:
        with database.write() as connection:
            connection.execute("CREATE VIRTUAL TABLE words USING fts5(terms)")
            connection.execute("INSERT INTO words VALUES ('table')")
        swapping.execute("ALTER TABLE words_config RENAME TO away")

        def searching(words: str) -> list[tuple[str]]:
            try:
                with database.read() as connection:
                    return connection.execute("SELECT terms FROM words WHERE words MATCH ?", (words,)).fetchall()
            finally:
                if swapping.execute("SELECT 1 FROM sqlite_master WHERE name = 'away'").fetchone():
                    swapping.execute("ALTER TABLE away RENAME TO words_config")

        yield searching


def test_it_fails(search: Search) -> None:
    """What ``across_swaps`` is for."""
    with pytest.raises(StoreUnavailable, match="vtable constructor failed"):
        search("table")


def test_it_is_done_again(search: Search) -> None:
    """Then it finds what there is."""
    assert across_swaps(search)("table") == [("table",)]


def test_other_errors_are_told(search: Search) -> None:
    """They are raised as they are."""
    with pytest.raises(StoreUnavailable, match="unterminated string"):
        across_swaps(search)('"')
