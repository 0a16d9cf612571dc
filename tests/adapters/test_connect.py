"""From a URL and options to a backend."""

from pathlib import Path
from typing import Any

import pytest

import turnlog
from turnlog.adapters.connect import sqlite_path
from turnlog.domain.errors import InvalidInput


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///a.db", "a.db"),
        ("sqlite:///../a/b.db", "../a/b.db"),
        ("sqlite:////tmp/a#b.db", "/tmp/a#b.db"),  # noqa: S108 - not opened
        ("sqlite:///50%25 of it;&ü.db", "50%25 of it;&ü.db"),
        ("sqlite+pysqlite:////a//b.db", "/a/b.db"),
    ],
)
def test_a_path_is_taken_as_it_is(url: str, path: str) -> None:
    """What comes after three slashes names the file, to the letter."""
    assert sqlite_path(url) == path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///a.db?timeout_s=3&x=y", "expected no '?' in it; give timeout_s, x as keywords of open()"),
        ("sqlite:///a?.db", "expected no '?' in it; give options as keywords of open()"),
        ("sqlite:///a\nb.db", "expected no control characters in it"),
        ("sqlite:///a\0b.db", "expected no control characters in it"),
        ("sqlite:///", "expected sqlite:///path/to/file.db (for memory: memory://)"),
        ("sqlite://", "expected sqlite:///path/to/file.db (for memory: memory://)"),
        ("sqlite:////", "expected sqlite:///path/to/file.db (for memory: memory://)"),
        ("sqlite://a.db", "expected sqlite:///path/to/file.db (for memory: memory://)"),
        ("sqlite:///:memory:", "expected sqlite:///path/to/file.db (for memory: memory://)"),
    ],
)
def test_what_is_no_path_is_refused(url: str, expected: str) -> None:
    """The message says what to write instead; nothing is cut off, and nothing else is opened."""
    with pytest.raises(InvalidInput) as caught:
        turnlog.open(url)
    assert (caught.value.field, caught.value.expected) == ("url", expected)


def test_the_file_that_was_named_is_opened(tmp_path: Path) -> None:
    """A number sign is a character like any other, not the end of the path."""
    with turnlog.open(f"sqlite:///{tmp_path}/a#b.db") as store:
        store.session("s")
        assert {file.name.partition("-")[0] for file in tmp_path.iterdir()} == {"a#b.db", "a#b.db.lock"}


def test_memory_takes_the_options_of_a_file() -> None:
    """What is said for every store may be said for one in memory, as long as it holds there."""
    with turnlog.open("memory://", read_only=False, timeout_s=3, names={"session_index": "talks"}) as store:
        store.session("s", user_id="u")
        assert len(store.sessions().items) == 1
    with pytest.raises(InvalidInput, match="read_only"):
        turnlog.open("memory://", read_only=True)
    wrong: dict[str, Any] = {"read_only": 1, "timeout_s": -1, "names": {"nonsense": "x"}}
    for option, value in wrong.items():
        with pytest.raises(InvalidInput):
            turnlog.open("memory://", **{option: value})
