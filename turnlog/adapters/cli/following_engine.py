"""``project --to``: a search engine that follows the store, as a service that is stopped by Ctrl-C or SIGTERM."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import typer

import turnlog
from turnlog.adapters.cli.output import print_json, say
from turnlog.adapters.cli.stopping import stopping
from turnlog.domain.errors import InvalidInput
from turnlog.domain.values import RebuildProgress

WAIT_S = 0.25
"""How long one wait lasts before it is looked whether to stop."""


def follow(
    db: turnlog.ConversationStore, url: str, options: dict[str, Any], reports: "Reports", *, rebuild: bool, once: bool
) -> None:
    """Have the search engine at ``url`` follow a store until a signal comes or, ``once``, up to its end."""
    with _following(db, url, options) as followed, stopping() as caught:
        stop = _Stop(caught)

        def tell(progress: RebuildProgress) -> None:
            reports.tell(turnlog.Lag(position=progress.position, head=max(progress.target, progress.position)))
            if caught:
                raise _Stopped

        try:
            if rebuild:
                followed.rebuild(tell)
            if once:
                followed.catch_up(tell)
            else:
                followed.run(stop, reports.tell)
        except _Stopped:
            pass
        reports.end(followed.status())


@contextmanager
def _following(
    db: turnlog.ConversationStore, url: str, options: dict[str, Any]
) -> Generator[turnlog.Followed, None, None]:
    """Open what follows the store.

    Raises:
        typer.BadParameter: it is not understood.
    """
    try:
        followed = turnlog.follow(db, url, **options)
    except InvalidInput as error:
        raise typer.BadParameter(str(error)) from error
    with followed:
        yield followed


class _Stop:
    """A flag that a signal raises. Not an ``Event``: its lock could be held where the signal arrives."""

    def __init__(self, caught: list[int]) -> None:
        self._caught = caught

    def is_set(self) -> bool:
        """Return whether a signal has come."""
        return bool(self._caught)

    def wait(self, timeout: float) -> None:
        """Wait for one."""
        deadline = monotonic() + timeout
        while not self._caught and (left_s := deadline - monotonic()) > 0:
            sleep(min(left_s, WAIT_S))


class Reports:
    """Says how far a follower is: regularly, and when it gets into trouble or out of it."""

    def __init__(self, every_s: float, *, as_json: bool) -> None:
        self._every_s = every_s
        self._as_json = as_json
        self._reported = monotonic()
        self._trouble: str | None = None

    def tell(self, lag: turnlog.Lag) -> None:
        """Report if it is time to."""
        if lag.trouble != self._trouble or monotonic() - self._reported >= self._every_s:
            self._report(lag.position, lag.head, lag.behind, lag.trouble)

    def end(self, status: turnlog.ViewStatus) -> None:
        """Report where it has come to."""
        parked = f"{status.parked} sessions are parked" if status.parked else None
        self._report(status.position, status.position + status.lag, status.lag, parked)

    def _report(self, position: int, head: int, lag: int, trouble: str | None) -> None:
        self._reported, self._trouble = monotonic(), trouble
        if self._as_json:
            print_json({"view": "conversations", "position": position, "head": head, "lag": lag, "trouble": trouble})
            sys.stdout.flush()
        else:
            words = f"conversations: at {position:,} of {head:,}, {lag:,} behind"
            say(words if trouble is None else f"{words}; {trouble}")


class _Stopped(BaseException):
    """Interrupts catching up, or a rebuild, between two pages."""
