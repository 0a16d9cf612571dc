"""What tests of the views on a server share: a log with every view, what they show of a session, and waiting."""

from collections.abc import Callable
from threading import Event
from time import monotonic
from typing import Any

from tests.projections.log import Log, Words, words
from turnlog.domain.errors import StoreError

DEADLINE_S = 60.0
"""How long a test waits for what must happen."""


def known(log: Log) -> Log:
    """Add every view to a log."""
    log.with_views()
    log.engine.add(Words())
    return log


def shown(log: Log, session_id: str) -> list[Any]:
    """Return what the views have of a session."""
    counted = [row for row in words(log) if row[0] == session_id]
    row = log.views.select_session("default", session_id)
    return [*([] if row is None else [row]), *log.messages(session_id), *counted]


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    deadline = monotonic() + DEADLINE_S
    while not condition():
        assert monotonic() < deadline
        Event().wait(0.005)


def rebuild_when_free(rebuild: Callable[[], object]) -> None:
    """Rebuild when nobody else is; a server notices a little later that who was rebuilding before has died."""

    def is_rebuilt() -> bool:
        try:
            rebuild()
        except StoreError as error:
            if "is being rebuilt" not in str(error):
                raise
            return False
        return True

    until(is_rebuilt)
