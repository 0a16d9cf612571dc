"""Searching messages: by an index of their words where the store of views keeps one, else by reading them all.

The index finds what may match; what does is decided by one rule (domain/words.py) on the message as the log has it. So
every backend gives the same answers, newest first: an order by relevance would be each database's own, change with
every message that is added, and leave a cursor nothing to go on from.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile
from typing import NamedTuple

from turnlog.domain.values import Message, Page, SearchHit
from turnlog.domain.words import Query
from turnlog.index import Index, Place, next_cursor, read_cursor
from turnlog.projections.engine import Engine
from turnlog.projections.message_search import FoundRow, MessageSearch, SearchFilter
from turnlog.projections.queries import Queries
from turnlog.projections.session_index import SessionFilter
from turnlog.projections.watching import watched

_VIEW = MessageSearch.name
_MORE = 20
"""Candidates to ask for besides those needed: not all of them match."""


class _Found(NamedTuple):
    place: Place
    hit: SearchHit


class Searcher:
    """Searches the messages of one tenant."""

    def __init__(self, index: Index, engine: Engine, views: Queries) -> None:
        self._index = index
        self._engine = engine
        self._views = views
        self.watch = index.watch

    @watched("query", query="search")
    def search(
        self, query: Query, where: SearchFilter, limit: int, cursor: str | None, consistency: str
    ) -> Page[SearchHit]:
        """Return a page of messages that match, newest first."""
        before = None if cursor is None else read_cursor(cursor, Place)
        ask = self._by_terms if self._is_indexed() else self._by_reading
        found = ask(query, where, limit + 1, before, consistency)
        more = next_cursor(found, limit, lambda one: one.place)
        return Page(items=[one.hit for one in found[:limit]], next_cursor=more)

    def _is_indexed(self) -> bool:
        """Return whether there is an index; the first to ask has it built, if it can be."""
        if not self._views.searches:
            return False
        if not self._engine.stands(_VIEW):
            self._index.try_level(_VIEW)
        return self._engine.stands(_VIEW)

    def _by_terms(
        self, query: Query, where: SearchFilter, limit: int, before: Place | None, consistency: str
    ) -> list[_Found]:
        behind = self._index.behind(_VIEW, consistency)
        live = (one for session_id in behind for one in self._live(session_id, query, where, before))
        pages = self._candidates(where._replace(without=tuple(behind)), before, limit + _MORE)
        compared = (one for rows in pages for one in self._compared(rows, query, where))
        return _newest((*live, *islice(compared, limit)), limit)

    def _candidates(self, where: SearchFilter, before: Place | None, page: int) -> Iterator[Sequence[FoundRow]]:
        """Yield pages of what may match, newest first."""
        while True:
            rows = self._views.select_found(where, before=before, limit=page)
            yield rows
            if len(rows) < page:
                return
            before = (rows[-1].position, rows[-1].item)

    def _compared(self, rows: Sequence[FoundRow], query: Query, where: SearchFilter) -> Iterator[_Found]:
        for row, message in zip(rows, self._index.contents(rows), strict=True):
            if message is not None and _matches(message, query, where):
                hit = SearchHit(session_id=row.session_id, user_id=row.user_id, message=message)
                yield _Found((row.position, row.item), hit)

    def _by_reading(
        self, query: Query, where: SearchFilter, limit: int, before: Place | None, consistency: str
    ) -> list[_Found]:
        """Read session after session, the last updated first, until what is left is older than what was found.

        Who is written to meanwhile comes to stand at the beginning, where the walk has been: it is read in the end.
        """
        behind = self._index.behind("session_index", consistency)
        live = {one.place: one for session_id in behind for one in self._live(session_id, query, where, before)}
        found = _newest(live.values(), limit)
        sessions = SessionFilter(where.tenant, user_id=where.user_id, without=tuple(behind))
        began: int | None = None
        for row in self._index.rows(sessions):
            began = began or row.updated_position
            if len(found) == limit and row.updated_position < found[-1].place[0]:
                return found
            found = _newest((*found, *self._live(row.summary.session_id, query, where, before)), limit)
        moved = takewhile(lambda row: row.updated_position > (began or 0), self._index.rows(sessions))
        again = {one.place: one for row in moved for one in self._live(row.summary.session_id, query, where, before)}
        return _newest(({one.place: one for one in found} | again).values(), limit)

    def _live(self, session_id: str, query: Query, where: SearchFilter, before: Place | None) -> Iterator[_Found]:
        """Yield what is found in a session as the log has it."""
        live = self._index.live_messages(session_id)
        if where.user_id in (None, live.user_id):
            for place, message in live.messages:
                if (before is None or place < before) and _matches(message, query, where):
                    yield _Found(place, SearchHit(session_id=session_id, user_id=live.user_id, message=message))


def _newest(found: Iterable[_Found], limit: int) -> list[_Found]:
    return sorted(found, key=lambda one: one.place, reverse=True)[:limit]


def _matches(message: Message, query: Query, where: SearchFilter) -> bool:
    return (
        where.role in (None, message.role)
        and where.route in (None, message.route)
        and (where.since is None or message.occurred_at >= where.since)
        and (where.until is None or message.occurred_at < where.until)
        and query.matches(message.content)
    )
