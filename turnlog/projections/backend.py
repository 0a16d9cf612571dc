"""What a store is opened on: a log and, where the same storage keeps them, its views."""

from collections.abc import Callable
from typing import Any, NamedTuple

from turnlog.domain.recorder import Recorder


class Backend(NamedTuple):
    """A log and its views, for ``turnlog.open``: one's own, or what an installed package opens for its URLs.

    See docs/adapters.md.
    """

    recorder: Recorder
    views: Any = None
    """A store of views that the log's erasures reach; ``None``: they are kept in memory, and forget what is erased."""
    using: "Callable[[object], Backend] | None" = None
    """Return the same inside the transaction of an application's connection, where the backend can do that."""
    name: str = "own"
    """What telemetry calls it."""
