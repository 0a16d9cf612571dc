"""Finding messages and sessions: questions in the server's language, and answers as values."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from turnlog.adapters.opensearch.client import Client
from turnlog.adapters.opensearch.documents import message_of, summary_of
from turnlog.adapters.opensearch.layout import Names
from turnlog.domain.analytics import FoundMessage, Snippet
from turnlog.domain.errors import InvalidInput, StoreUnavailable
from turnlog.domain.values import Page, SessionSummary
from turnlog.projections.conversation_index import MessagesWanted, Order, SessionsWanted
from turnlog.projections.session_index import microseconds

Json: TypeAlias = dict[str, Any]
BEGIN, END = "\ufdd0", "\ufdd1"
"""Around what matched, in a snippet: code points that Unicode keeps free for such uses."""
MOST_ANALYSED = 1_000_000
"""Of a longer text only so many characters are looked through for snippets: the server's own limit."""
_NEWEST: Sequence[Json] = ({"position": "desc"}, {"item": "desc"})
_SYNTAX = "AND|OR|NOT|PHRASE|PREFIX|PRECEDENCE|WHITESPACE|ESCAPE"


class Searching:
    """What can be asked of the indices. A search sees what was there at the last refresh."""

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._names = names

    def find(
        self, text: str, wanted: MessagesWanted, *, order: Order, limit: int, cursor: str | None
    ) -> Page[FoundMessage]:
        """Return a page of the messages that match."""
        by_score = order == "relevance"
        matching = {"query": text, "fields": ["content"], "default_operator": "and", "flags": _SYNTAX}
        query = {"must": [{"simple_query_string": matching}], "filter": _clauses(wanted)}
        asked: Json = {
            "query": {"bool": query},
            "sort": [{"_score": "desc"}, *_NEWEST] if by_score else [*_NEWEST],
            "highlight": {
                "pre_tags": [BEGIN],
                "post_tags": [END],
                "max_analyzer_offset": MOST_ANALYSED - 1,
                "fields": {"content": {"number_of_fragments": 3, "fragment_size": 160}},
            },
        }
        hits, more = self._page(self._names.messages, asked, order, limit, cursor)
        return Page(items=[_found(hit) for hit in hits], next_cursor=more)

    def sessions(self, wanted: SessionsWanted, *, limit: int, cursor: str | None) -> Page[SessionSummary]:
        """Return a page of sessions, newest update first."""
        asked = {"query": {"bool": {"filter": _clauses(wanted)}}, "sort": [{"updated_position": "desc"}]}
        hits, more = self._page(self._names.sessions, asked, "sessions", limit, cursor)
        return Page(items=[summary_of(hit["_source"]) for hit in hits], next_cursor=more)

    def count(self, kind: Literal["sessions", "messages"], wanted: MessagesWanted | SessionsWanted) -> int:
        """Count documents."""
        path = f"/{getattr(self._names, kind)}/_count"
        counted: int = self._client.ask("POST", path, {"query": {"bool": {"filter": _clauses(wanted)}}}).body["count"]
        return counted

    def aggregate(
        self,
        kind: Literal["sessions", "messages"],
        wanted: MessagesWanted | SessionsWanted,
        aggregations: Json,
        also: Sequence[Json] = (),
    ) -> Json:
        """Return what the server has counted over all documents that are wanted."""
        query = {"bool": {"filter": [*_clauses(wanted), *also]}}
        asked = {"size": 0, "query": query, "aggs": aggregations}
        counted: Json = self._search(getattr(self._names, kind), asked)["aggregations"]
        return counted

    def _page(
        self, index: str, asked: Json, order: str, limit: int, cursor: str | None
    ) -> tuple[list[Json], str | None]:
        after = {} if cursor is None else {"search_after": _after(cursor, order, len(asked["sort"]))}
        hits = self._search(index, {**asked, **after, "size": limit + 1})["hits"]["hits"]
        return hits[:limit], _cursor(order, hits[limit - 1]["sort"]) if len(hits) > limit else None

    def _search(self, index: str, asked: Json) -> Any:
        """Search; an answer of some shards only is none.

        Raises:
            StoreUnavailable: not every shard answered.
        """
        found = self._client.ask("POST", f"/{index}/_search", asked, allow_partial_search_results=False).body
        if found["timed_out"] or found["_shards"]["failed"]:
            raise StoreUnavailable(self._client.words("some shards did not answer"))
        return found


def _clauses(wanted: MessagesWanted | SessionsWanted) -> list[Json]:
    """Return a filter as the clauses of a query."""
    given = {name: value for name, value in wanted._asdict().items() if value is not None}
    bounds = {"gte": given.pop("since", None), "lt": given.pop("until", None)}
    span = {name: microseconds(at) for name, at in bounds.items() if at is not None}
    terms: list[Json] = [{"term": {name: value}} for name, value in given.items()]
    return [*terms, {"range": {"occurred_us": span}}] if span else terms


def _found(hit: Mapping[str, Any]) -> FoundMessage:
    source = hit["_source"]
    return FoundMessage(
        message=message_of(source),
        session_id=source["session_id"],
        user_id=source.get("user_id"),
        agent=source.get("agent"),
        position=source["position"],
        score=hit["_score"],
        snippets=tuple(_snippet(marked) for marked in hit.get("highlight", {}).get("content", ())),
    )


def _snippet(marked: str) -> Snippet:
    """Take the marks out of a text, and tell where they were."""
    spans: list[tuple[int, int]] = []
    text = ""
    for part in _parts(marked):
        inside, mark, after = part.partition(END)
        if mark:
            spans.append((len(text), len(text) + len(inside)))
        text += inside + after
    return Snippet(text=text, spans=tuple(spans))


def _parts(marked: str) -> Iterator[str]:
    return iter(marked.split(BEGIN))


def _cursor(order: str, values: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([order, *values])).decode().rstrip("=")


def _after(cursor: str, order: str, places: int) -> Sequence[float]:
    """Read a cursor.

    Raises:
        InvalidInput: it is none, or of another search.
    """
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        of, *values = msgspec.json.decode(base64.urlsafe_b64decode(padded), type=list[str | int | float])
    except ValueError as error:
        raise InvalidInput("cursor", "expected a next_cursor that this query gave") from error
    numbers = [value for value in values if not isinstance(value, str)]
    if of != order or len(numbers) != places:
        raise InvalidInput("cursor", "expected a next_cursor that this query gave")
    return numbers
