"""Following a log: past events first, then new ones as they come, for ``eventsourcing``'s ``subscribe`` and turnlog's.

There is no thread and no queue: the consumer pulls pages at its own speed, so a slow one costs no memory.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from eventsourcing.persistence import ApplicationRecorder, Notification, Subscription

PAGE = 500
WAIT_S = 0.5
"""How long one wait lasts before the follower looks whether it was stopped."""


class Waiting(Protocol):
    """What a follower needs of a recorder besides the library's contract."""

    def wait_for_news(self, after: int, timeout_s: float) -> bool:
        """Wait for an event above ``after``; return whether there is one."""
        ...


class Follow(Subscription[Any]):
    """An iterator of notifications that blocks at the log's head and ends when stopped."""

    def __init__(self, recorder: Any, gt: int | None = None, topics: Sequence[str] = ()) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._source: ApplicationRecorder = recorder
        self._waiting: Waiting = recorder
        self._after = gt or 0
        self._page: list[Notification] = []

    def __next__(self) -> Notification:
        while not self._has_been_stopped:
            if self._page:
                return self._page.pop()
            self._pull()
        raise StopIteration

    def _pull(self) -> None:
        head = self._source.max_notification_id() or 0
        page = self._source.select_notifications(
            self._after, PAGE, topics=self._topics, inclusive_of_start=False, stop=head
        )
        self._page = list(reversed(page))
        if page:
            self._after = page[-1].id
        else:
            self._after = max(self._after, head)
            self._waiting.wait_for_news(self._after, WAIT_S)
