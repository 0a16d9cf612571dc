"""All that can be asked of the indices, in one object: the port ``ConversationIndex``."""

from turnlog.adapters.opensearch import analytics
from turnlog.adapters.opensearch.generations import Generations
from turnlog.adapters.opensearch.searching import Searching
from turnlog.domain.analytics import DayCount, FoundMessage, ResponseTimes, SessionCount, StepOutcome
from turnlog.domain.values import Page, SessionSummary
from turnlog.projections.conversation_index import MessagesWanted, Order, SessionsWanted


class OpenSearchIndex:
    """Answers through the aliases. Safe to share between threads."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._searching = Searching(generations.client, generations.names)

    def refresh(self) -> None:
        """Have answers show all that was written."""
        self._generations.refresh()

    def find(
        self, text: str, wanted: MessagesWanted, *, order: Order, limit: int, cursor: str | None
    ) -> Page[FoundMessage]:
        """Return a page of the messages that match."""
        return self._searching.find(text, wanted, order=order, limit=limit, cursor=cursor)

    def sessions(self, wanted: SessionsWanted, *, limit: int, cursor: str | None) -> Page[SessionSummary]:
        """Return a page of sessions, newest update first."""
        return self._searching.sessions(wanted, limit=limit, cursor=cursor)

    def counts(self, tenant: str) -> tuple[int, int]:
        """Count sessions and visible messages."""
        count = self._searching.count
        return count("sessions", SessionsWanted(tenant)), count("messages", MessagesWanted(tenant))

    def messages_per_day(self, wanted: MessagesWanted, time_zone: str) -> list[DayCount]:
        """Return the days that have visible messages, in order."""
        return analytics.messages_per_day(self._searching, wanted, time_zone)

    def sessions_by_status(self, wanted: SessionsWanted) -> list[SessionCount]:
        """Return how many sessions there are of each status and route, the most first."""
        return analytics.sessions_by_status(self._searching, wanted)

    def step_outcomes(self, wanted: SessionsWanted, route: str | None) -> list[StepOutcome]:
        """Return what became of the sessions on each step (of one route), the most visited first."""
        return analytics.step_outcomes(self._searching, wanted, route)

    def response_times(self, wanted: MessagesWanted) -> ResponseTimes:
        """Return how long users waited for those of the messages that are answers."""
        return analytics.response_times(self._searching, wanted)

    def close(self) -> None:
        """Close the connections."""
        self._generations.client.close()
