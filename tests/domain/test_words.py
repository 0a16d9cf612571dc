"""What a word is, and what matches: the same for every backend."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from turnlog.domain.words import EVERY, LONGEST_WORD, MOST_TERMS, MOST_WANTED, Query, terms_of, text_of, words

_texts = st.text(st.sampled_from("aBß éÉ\u0301東京ไทย👩\u200d1½ﬁ\0'\"*_-㎏\u00adİ"), max_size=12) | st.text(max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A table for Two, please!", ["a", "table", "for", "two", "please"]),
        ('don\'t say "user_id" -- or 3.14*', ["don", "t", "say", "user", "id", "or", "3", "14"]),
        ("STRASSE Straße", ["strasse", "strasse"]),
        ("cafe\u0301 CAFÉ ﬁne ½ ㎏", ["café", "café", "fine", "1", "2", "kg"]),
        ("co\u00adoperate\ufeff a\0b", ["cooperate", "a", "b"]),
        ("pizza🍕🍕 ❤\ufe0f 👩\u200d🚀", ["pizza", "🍕", "🍕", "❤", "👩", "🚀"]),
        ("iPhoneを東京で", ["iphone", "を東京で"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("x" * 1000, ["x" * LONGEST_WORD]),
        ("...\n'", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    """Words are runs of letters, digits and marks in one form; a symbol is one by itself."""
    assert words(text) == expected


@pytest.mark.parametrize(
    ("query", "content", "matches"),
    [
        ("TABLE two", "Two at one table", True),
        ("table three", "Two at one table", False),
        ("tab", "table", False),
        ("京都", "東京都庁", True),
        ("京都", "東京の都", False),
        ("京", "東京", True),
        ("ไทย", "ประเทศไทยสวย", True),
        ("hi", [{"type": "text", "text": "Hi"}, {"type": "image", "url": "there"}], True),
        ("there", [{"type": "text", "text": "Hi"}, {"type": "image", "url": "there"}], False),
        ("sunny", [{"type": "tool_result", "content": [{"type": "text", "text": "sunny"}]}, "plain"], True),
        ("plain", [{"type": "tool_result", "content": "sunny"}, "plain"], True),
        ("a", None, False),
        ("", "a", False),
        ("y" * 500, "y" * 501, True),
    ],
)
def test_matches(query: str, content: Any, matches: bool) -> None:
    """Every word must occur, whole; in scripts without blanks, inside of a run."""
    assert Query.of(query).matches(content) is matches


@given(text=_texts, more=_texts, query=_texts)
def test_an_index_loses_nothing(text: str, more: str, query: str) -> None:
    """Whatever matches has all terms of the query."""
    wanted = Query.of(query)
    for content in (text, [text, {"text": more}], f"{more} {query} {text}"):
        if wanted.matches(content):
            assert terms_of(content).issuperset(wanted.terms)


@given(text=_texts)
@example(text="a\xad\u0301")
def test_words_are_in_their_final_form(text: str) -> None:
    """The words of the words are the same; every text finds itself; no word has what an index would take apart."""
    found = words(text)
    assert words(" ".join(found)) == found
    assert Query.of(text).matches(text) is bool(found)
    assert all(word.isascii() is word.isalnum() or not word.isascii() for word in found)
    assert not any(char.isspace() or char in "\0'\"\\*" for word in found for char in word)


def test_bounds() -> None:
    """Of a query a few terms are looked for; what has very many words may match anything, and is compared itself."""
    many = " ".join(f"w{i}" for i in range(MOST_TERMS + 1))
    assert terms_of(many) == {EVERY}
    assert len(Query.of(many).terms) == MOST_WANTED
    assert Query.of(many).matches(many)
    assert text_of([{"text": "a"}, 1, None, {"text": 2}, "b"]) == "a\nb"
