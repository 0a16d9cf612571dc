"""The ports between projections, the engine that runs them, and the storage their views are kept in.

An application's own read model is a ``Projection``. A backend implements ``ViewStore``; connections are the backend's
own (``sqlite3.Connection`` in memory and on SQLite), the engine only passes them through.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from turnlog.domain.errors import StoreUnavailable
from turnlog.domain.mapper import Codec, LogRow
from turnlog.domain.values import RecordedEvent

if TYPE_CHECKING:
    from typing_extensions import TypeIs


class WriteUndone(StoreUnavailable):
    """The storage undid a transaction for another one's sake; nothing is wrong, and it can be done again."""


class View(Protocol):
    """What every projection says of itself."""

    @property
    def name(self) -> str:
        """What it is called in the store: letters, digits and ``_``."""
        ...

    @property
    def revision(self) -> int:
        """1, 2, …: raised with every change to what it makes of events; its view is then rebuilt."""
        ...


class StoredView(View, Protocol):
    """A view that has a place to be stored in."""

    def create(self, connection: Any) -> None:
        """Create the view's tables, empty; called once a generation, inside a transaction."""
        ...


class Projection(StoredView, Protocol):
    """An application's read model: every event of the log, in order, each exactly once.

    Two attributes are optional: ``key = "session"`` says that a row depends on one session only;
    ``forget(tenant, session_id, connection)`` deletes what the view holds of a session that is being erased. Without it
    the view is taken to hold what it was given (nothing is deleted by guessing at its tables) until it is rebuilt.
    """

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Write what ``events`` mean; what it writes is committed with the checkpoint, never without."""
        ...


class RowProjection(StoredView, Protocol):
    """A projection that decodes for itself, and only what it needs: the faster of the two."""

    def apply_rows(self, rows: Sequence[LogRow], codec: Codec, connection: Any) -> None:
        """As ``Projection.apply``, with the log's rows."""
        ...


def by_rows(view: StoredView) -> "TypeIs[RowProjection]":
    """Return whether the view decodes for itself."""
    # not by a runtime-checkable protocol: that took a fifth of all catching up
    return hasattr(view, "apply_rows")


class Checkpoint(NamedTuple):
    """What a view has applied: all events up to ``position``. ``mark`` tells the event there from any other."""

    name: str
    revision: int
    position: int = 0
    mark: bytes = b""


class Parked(NamedTuple):
    """A session whose event at ``version`` a view could not apply; its later events wait, other sessions go on.

    ``error`` is the exception's type and message; ``attempts`` counts the tries.
    """

    view: str
    stream: str
    version: int
    position: int
    error: str
    attempts: int
    parked_at: datetime

    @property
    def tenant(self) -> str:
        """The session's tenant."""
        return self.stream.partition("/")[0]

    @property
    def session_id(self) -> str:
        """The session's id."""
        return self.stream.partition("/")[2]


class Trial(NamedTuple):
    """Events an application's projection is being given: from ``position`` on, for the ``tries``-th time in a row.

    ``last`` is the position up to which they are given one by one, since all at once ended a process.
    """

    position: int
    last: int
    tries: int


class ViewStore(Protocol):
    """Where views are kept, each with its checkpoint and its parked sessions."""

    read_only: bool
    page: int
    """Events that a transaction of catching up applies."""

    def register(self, view: View) -> Projection | RowProjection:
        """Know ``view`` from now on, to make it forget what is erased; return it with its place in this store.

        Raises:
            InvalidInput: it is neither a built-in view nor has ``create`` and ``apply``.
        """
        ...

    def read(self) -> AbstractContextManager[Any]:
        """Lend a connection to read with. What several statements read may be of several moments."""
        ...

    def write(self, *, wait: bool = True) -> AbstractContextManager[Any]:
        """Lend a connection in a transaction beside which nobody else can write views or erase; some append.

        It is committed at the end, or undone if that raises. Without ``wait`` it lends ``None`` where somebody else
        is writing.
        """
        ...

    def attempt(self, connection: Any) -> AbstractContextManager[None]:
        """Undo what is done inside if it raises; the transaction goes on."""
        ...

    def is_failure(self, error: Exception) -> bool:
        """Return whether ``error`` is the storage's and not the event's: such an event is not to blame."""
        ...

    def checkpoints(self, connection: Any) -> dict[str, Checkpoint]:
        """Return every view's checkpoint, also of views that this program does not know."""
        ...

    def record(self, connection: Any, checkpoint: Checkpoint) -> None:
        """Set the checkpoint of a view that was installed."""
        ...

    def parked(self, connection: Any, name: str) -> list[Parked]:
        """Return the sessions parked in a view."""
        ...

    def park(self, connection: Any, parked: Parked) -> None:
        """Park a session, or count another attempt."""
        ...

    def release(self, connection: Any, name: str, stream: str) -> None:
        """Forget that a session is parked."""
        ...

    def begin(self, connection: Any, name: str, position: int) -> None:
        """Note of a view that has read nothing that the log ends here: what is erased by now it will never hold."""
        ...

    def hold(self, connection: Any, name: str, position: int) -> None:
        """Note that a view has come past the end of a session, at ``position``, without forgetting it."""
        ...

    def holding(self, connection: Any) -> list[str]:
        """Return the views that may hold something of a deleted session though they have read that it was deleted."""
        ...

    def merge(self, connection: Any) -> None:
        """Have search indexes, of all views, let go of words that were deleted."""
        ...

    def install(self, connection: Any, view: StoredView) -> None:
        """Create a view, empty, at position 0.

        Raises:
            InvalidInput: what it wants to create is there already and is not its own.
        """
        ...

    def workshop(self, view: StoredView, *, keep: bool) -> AbstractContextManager["ViewStore | None"]:
        """Lend a store of its own in which to build ``view`` beside the one that answers, with the view installed.

        With ``keep`` it outlives an interruption, and is lent again to whoever builds the same revision; ``None`` is
        lent where somebody else is building. Without, it is private and gone at the end.
        """
        ...

    def restart(self, view: StoredView) -> None:
        """Empty this workshop: what it holds is of no use."""
        ...

    def lay_out(self, built: "ViewStore", name: str) -> None:
        """Copy what was built in a workshop beside the view here, letting writers in between, where that can be done.

        What is laid out is personal data like the workshop's: it is dropped with that, if nobody adopts it.
        """
        ...

    def adopting(
        self, connection: Any, built: "ViewStore", name: str
    ) -> AbstractContextManager[tuple["ViewStore", Any]]:
        """Put the view that was built, and laid out, in the place of the one here, its checkpoint and all.

        Inside, the store and the connection are lent on which to bring it level: it is seen, all at once, after that.
        """
        ...

    def clear_away(self, name: str) -> None:
        """Drop what was replaced, letting writers in between."""
        ...

    def differences(self, connection: Any, built: "ViewStore", name: str, tenant: str | None) -> Iterator[str]:
        """Say in words where the view here is not the one that was built, naming sessions (of ``tenant``, if given)."""
        ...

    def trial(self, name: str) -> "Trial | None":
        """Return the trial that was begun and not ended: the process that began it did not live to end it."""
        ...

    def begin_trial(self, name: str, trial: "Trial") -> None:
        """Note that events are about to be tried; the note outlives the process, if the views do."""
        ...

    def end_trial(self, name: str) -> None:
        """Take the note back."""
        ...
