"""What a store is opened on: a log and, where the same storage keeps them, its views."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias

from turnlog.domain.recorder import Recorder

IsLevel: TypeAlias = Callable[[str, int], bool]


class Lender(Protocol):
    """Has an application's connection for asyncio, and lends it to one call at a time, which is made in a thread."""

    @property
    def connection(self) -> object:
        """What ``Backend.using`` takes, while it is lent."""
        ...

    def lent(self) -> AbstractAsyncContextManager[None]:
        """Keep everybody else from the connection; to be entered on its event loop.

        Raises:
            StoreUnavailable: others did not let go of it in time.
        """
        ...


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
    is_level: IsLevel | None = None
    """Return whether a view (its name, its revision) has applied all that can be seen of the log, by a single look.

    Without it that is found out by asking for the checkpoints, ``visible`` and ``position`` one after the other.
    """
    lender: Callable[[object], Lender] | None = None
    """Return who lends an application's connection for asyncio to ``using``, where the driver has such connections."""
