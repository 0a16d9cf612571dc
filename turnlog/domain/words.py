"""Words: what a search looks for, and in what. One rule for every backend, whatever its database takes for a word.

Text is first brought into one form: Unicode's NFKC, case folded, invisible characters left out. A word is then the
longest run of letters, digits and marks; a symbol such as an emoji is a word by itself; blanks, punctuation and control
characters only separate. No stemming, no stop words: they are those of one language. In scripts written without blanks
(Chinese, Japanese, Thai, …) a run of characters is one word, which is found anywhere inside such a run.

A message is found if every word of the query occurs in its text, in whatever order. A database keeps of each message
the *terms* (words, and of a run without blanks each character and each pair) and finds by them what may match; what
does match is decided here.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple, cast
from unicodedata import category, normalize

from turnlog.domain.events import Json

LONGEST_WORD = 100
"""So many characters of a word count, in the text and in the query."""
MOST_TERMS = 10_000
"""A message with more has only the term ``EVERY``: it may match whatever is looked for."""
MOST_WANTED = 16
"""So many terms of a query are looked for in an index, the longest; the rest is left to ``Query.matches``."""
EVERY = "zzanywordzz"
"""The term that every query looks for besides its own; letters only, so that no index takes it apart."""
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_BLANKLESS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u1b00-\u1b7f\u2e80-\u2fdf\u3005-\u3007"
    "\u3021-\u3029\u3038-\u303b\u3040-\u30ff\u3100-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\ua000-\ua4cf\ua980-\ua9ff\uaa60-\uaadf\uf900-\ufaff\U0001b000-\U0001b16f\U00020000-\U0003ffff"
)
"""Thai, Lao, Burmese, Khmer, Tai scripts, Balinese, Javanese, Han, kana, bopomofo, Yi."""


class Query(NamedTuple):
    """What is looked for: words, each once, in the order they were given."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> "Query":
        """Return the query that a text asks; one without a word matches nothing."""
        return cls(tuple(dict.fromkeys(words(text))))

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that a message has which matches, unless it has the term ``EVERY``."""
        found = dict.fromkeys(term for word in self.words for term in _wanted(word))
        return tuple(sorted(found, key=len, reverse=True)[:MOST_WANTED])

    def matches(self, content: Json) -> bool:
        """Return whether every word occurs in the text of a message's content."""
        said = frozenset(words(text_of(content)))
        return bool(self.words) and all(_occurs(word, said) for word in self.words)

    def touches(self, text: str) -> bool:
        """Return whether some word occurs in a text."""
        said = frozenset(words(text))
        return any(_occurs(word, said) for word in self.words)


def text_of(content: Json) -> str:
    """Return the text of a message's content: of a list, its texts and those of its parts, a line each."""
    return content if isinstance(content, str) else "\n".join(_texts(content))


def terms_of(content: Json) -> frozenset[str]:
    """Return the terms under which an index keeps a message."""
    found = frozenset(words(text_of(content)))
    runs = [word for word in found if not word.isascii() and _is_blankless(word)]
    if runs:
        found = found.difference(runs).union(*((*run, *_pairs(run)) for run in runs))
    return found if len(found) <= MOST_TERMS else frozenset((EVERY,))


def words(text: str) -> list[str]:
    """Return the words of a text, in order."""
    if text.isascii():
        return _cut(_ASCII_WORD.findall(text.lower()))
    folded = normalize("NFKC", normalize("NFKC", text).casefold().translate(_SEPARATED))
    if _blankless().search(folded) is None:
        return _cut(folded.split())
    parts = (part for run in folded.split() for part in _parts().findall(run))
    return [part if _is_blankless(part) else part[:LONGEST_WORD] for part in parts]


def _cut(found: list[str]) -> list[str]:
    if max(map(len, found), default=0) <= LONGEST_WORD:
        return found
    return [word[:LONGEST_WORD] for word in found]


class _Separated(dict[int, str | int]):
    """What becomes of a character, found out when it is first met."""

    def __missing__(self, code: int) -> str | int:
        kind = category(chr(code))
        becomes: str | int = " "
        if kind == "Cf" or 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF or code == 0x034F:  # noqa: PLR2004 - variation selectors, a joiner
            becomes = ""
        elif kind[0] in "LMN":
            becomes = code
        elif kind == "So":
            becomes = f" {chr(code)} "
        self[code] = becomes
        return becomes


_SEPARATED = _Separated()


def _texts(content: Json) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for part in cast("Any", content):
            yield from _texts(part)
    elif isinstance(content, dict):
        fields = cast("Any", content)
        if isinstance(text := fields.get("text"), str):
            yield text
        if isinstance(inner := fields.get("content"), (str, list)):
            yield from _texts(inner)


def _is_blankless(word: str) -> bool:
    return _blankless().match(word) is not None


@cache
def _blankless() -> re.Pattern[str]:
    """Return what finds one such character; compiled when it is first asked for: with ``_parts`` that takes 10 ms."""
    return re.compile(f"[{_BLANKLESS}]")


@cache
def _parts() -> re.Pattern[str]:
    return re.compile(f"[{_BLANKLESS}]+|[^{_BLANKLESS}]+")


def _wanted(word: str) -> Iterable[str]:
    return _pairs(word) if len(word) > 1 and _is_blankless(word) else (word,)


def _pairs(word: str) -> list[str]:
    return [word[i : i + 2] for i in range(len(word) - 1)]


def _occurs(word: str, said: Collection[str]) -> bool:
    return word in said or (_is_blankless(word) and any(word in other for other in said if _is_blankless(other)))
