"""Following a log: past events first, then new ones as they come, for ``eventsourcing``'s ``subscribe`` and turnlog's.

There is no thread and no queue: the consumer pulls pages at its own speed, so a slow one costs no memory.
"""

import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol

from eventsourcing.persistence import ApplicationRecorder, Notification, Subscription

from turnlog.adapters import process_fork

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


class News:
    """Wakes the threads of this process that wait for events when one of it has appended.

    Args:
        poll_s: how often they look for those of other processes.
        first_s: the pause after the first look, if shorter: it doubles from look to look.
    """

    def __init__(self, poll_s: float, first_s: float | None = None) -> None:
        self._poll_s = poll_s
        self._first_s = poll_s if first_s is None else first_s
        self._renew()
        process_fork.watch(self)

    def _renew(self) -> None:
        self._appended = threading.Condition()
        self._appends = 0
        self.awaited = 0
        """How many threads are waiting."""

    def wait(self, is_there: Callable[[], bool], timeout_s: float) -> bool:
        """Wait until ``is_there``; it is asked after every append here, and now and then for those elsewhere."""
        deadline = monotonic() + timeout_s
        pause_s = self._first_s
        self._count(1)
        try:
            while True:
                appends = self._appends
                if is_there():  # outside the lock: appending threads need that, and asking takes a read
                    return True
                left_s = deadline - monotonic()
                if left_s <= 0:
                    return False
                with self._appended:
                    if appends == self._appends:
                        self._appended.wait(min(left_s, pause_s))
                pause_s = min(2 * pause_s, self._poll_s)
        finally:
            self._count(-1)

    def tell(self) -> None:
        """Wake them."""
        with self._appended:
            self._appends += 1
            self._appended.notify_all()

    def _count(self, n: int) -> None:
        with self._appended:
            self.awaited += n

    def before_fork(self) -> None:
        """See ``Forking``."""

    def after_fork(self, *, child: bool) -> None:
        """Renew the lock in the child, where the thread that may have held it does not exist; see ``Forking``."""
        if child:
            self._renew()
