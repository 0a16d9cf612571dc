"""The writing side of a session handle: one command at a time, or a turn of them committed together."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from msgspec.structs import replace

from turnlog import inputs
from turnlog.decider import Decider, Loaded
from turnlog.domain.commands import LOOKING_UP, Command
from turnlog.domain.errors import InvalidInput, RuleViolation, SessionNotFound
from turnlog.domain.events import Event
from turnlog.domain.session import decide
from turnlog.domain.values import Receipt, SessionState
from turnlog.drafting import Draft
from turnlog.projections.history import Occurrence
from turnlog.saying import KeyOfMessage, Said, said_with

Committed = Callable[[Receipt], None]
HELD: ContextVar[tuple["Turn", ...]] = ContextVar("turnlog.held", default=())
"""The turns that belong to a context (an asyncio task and those it starts) and not to a thread; the innermost last."""
_log = logging.getLogger("turnlog")


class SessionWriter:
    """What one handle knows of its session, and how it writes to it.

    A turn belongs to the thread that opened it, or to the context that holds it (``HELD``).
    """

    def __init__(self, decider: Decider, loaded: Loaded, committed: Committed) -> None:
        self.decider = decider
        self.loaded = loaded
        self._committed = committed
        self._turns: dict[int, Turn] = {}

    @property
    def turn(self) -> "Turn | None":
        """The turn that this thread, or this context, has open on this handle."""
        turn = self._turns.get(threading.get_ident()) if self._turns else None
        if turn is not None:
            return turn
        return next((held for held in reversed(HELD.get()) if held.is_open and held.is_of(self)), None)

    @turn.setter
    def turn(self, turn: "Turn | None") -> None:
        if turn is None or turn in HELD.get():
            self._turns.pop(threading.get_ident(), None)
        else:
            self._turns[threading.get_ident()] = turn

    @property
    def current(self) -> SessionState:
        """The state as this thread sees it: inside a turn, with what was said in it."""
        turn = self.turn
        return self.loaded.state if turn is None else turn.draft.state

    @property
    def pending(self) -> Sequence[Occurrence]:
        """What was said in the open turn and is not committed yet."""
        turn = self.turn
        return () if turn is None else turn.draft.pending

    def say(
        self,
        command: Command,
        options: Mapping[str, Any],
        *,
        message_id: str | None = None,
        made: tuple[str, str] | None = None,
        bare: Command | None = None,
        introduces: Sequence[KeyOfMessage] = (),
    ) -> Receipt:
        """Write ``command``, or add it to the open turn.

        ``message_id`` is the caller's own, if he gave one. ``made`` is the field of the receipt, and the id, that was
        made for the command; ``bare`` is the command without: by that a repetition is known. ``introduces``: see
        ``Said``.
        """
        turn = self._turn_to_join()
        if not options and message_id is None and not introduces and (turn is None or turn.plain):
            said = Said(command, command)
            if turn is not None:
                return turn.draft.say(said)
            loaded = self.loaded  # once: another thread may move it on, and what is decided must fit what it stands on
            return self.write(loaded, (said,), _decided(loaded, said))
        if bare is None:
            bare = command if made is None else replace(command, **{made[0]: ""})
        said = said_with(command, inputs.options(options), bare=bare, message_id=message_id)
        said = replace(said, made=made, introduces=tuple(introduces))
        return self.write(self.loaded, (said,)) if turn is None else turn.say(said)

    def write(
        self,
        loaded: Loaded,
        said: Sequence[Said],
        decided: Sequence[tuple[Event, Said]] = (),
        turn_key: tuple[str, bytes] | None = None,
    ) -> Receipt:
        """Commit ``said``, of which ``decided`` may hold what follows on ``loaded``."""
        plan, receipt = self.decider.write(loaded, said, decided=decided, turn_key=turn_key)
        if plan.loaded.state.version >= self.loaded.state.version or self.loaded is loaded:  # rolled back, it is lower
            self.loaded = plan.loaded
        if plan.writes:
            self._committed(receipt)
        return receipt

    def open_turn(self, options: Mapping[str, Any]) -> "Turn":
        """Return a new turn, or one that joins the turn this thread has open."""
        checked = inputs.options(options)
        outer = self._turn_to_join()
        if outer is not None and "command_id" in checked:
            raise InvalidInput("command_id", "a turn inside a turn joins it; give it to the outer one")
        return Turn(self, checked, outer)

    def _turn_to_join(self) -> "Turn | None":
        """Return the open turn; what was meant for one that was dropped meanwhile is not written without it.

        Raises:
            InvalidInput: this context was made inside a turn that was dropped.
        """
        turn = self.turn
        if turn is None and any(held.was_dropped and held.is_of(self) for held in HELD.get()):
            raise InvalidInput("turn", "the turn in which this task was started was dropped")
        return turn


class Turn:
    """Everything said between entering and leaving is committed as one append, or not at all.

    On an exception nothing is written; of a turn inside a turn, what was said in the inner one is dropped.
    """

    def __init__(self, writer: SessionWriter, options: inputs.WriteOptions, outer: "Turn | None") -> None:
        self._writer = writer
        self._options = options
        self._outer = outer
        self.draft: Draft = Draft(writer, options.get("command_id")) if outer is None else outer.draft
        """What is said; shared by the turns that joined."""
        self._is_begun = False
        self._is_dropped = False
        self._mark = self.draft.mark()

    @property
    def is_open(self) -> bool:
        """Whether what is said now is part of it."""
        return self._is_begun and (self._outer is None or self._outer.is_open)

    @property
    def was_dropped(self) -> bool:
        """Whether what is said now would have been part of it, and is not: it was dropped, or the outer one is over."""
        return self._is_dropped or (self._is_begun and not self.is_open)

    def is_of(self, writer: SessionWriter) -> bool:
        """Return whether this is a turn of that handle."""
        return self._writer is writer

    @property
    def plain(self) -> bool:
        """Whether no keyword holds for what is said in it."""
        return not self._options and (self._outer is None or self._outer.plain)

    @property
    def receipt(self) -> Receipt:
        """The receipt of the whole turn.

        Raises:
            InvalidInput: the turn is not over yet, or was not committed.
        """
        if self.draft.receipt is None:
            raise InvalidInput("receipt", "the turn is not committed (yet)")
        return self.draft.receipt

    def begin(self) -> None:
        """Open it. Whose it is, is said elsewhere: by ``with`` the thread's, by ``HELD`` a context's."""
        if self.draft.receipt is not None:
            raise InvalidInput("turn", "is over; open another with session.turn()")
        if self._is_begun:
            raise InvalidInput("turn", "is open already; open another with session.turn()")
        self._mark = self.draft.mark()
        self._is_begun = True

    def end(self, *, drop: bool) -> None:
        """Close it, and write what was said, unless it joined another, or ``drop`` that."""
        self._is_begun, self._is_dropped = False, True  # should the commit fail
        if drop:
            self.draft.back_to(self._mark)
        elif self._outer is None:
            self.draft.commit()
        self._is_dropped = drop

    def __enter__(self) -> Self:
        self.begin()
        self._writer.turn = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.turn = self._outer
        self.end(drop=kind is not None)

    def say(self, said: Said) -> Receipt:
        """Add a command, with the keywords of this turn and of those around it."""
        missing = {
            name: value for name, value in self._options.items() if name != "command_id" and getattr(said, name) is None
        }
        said = replace(said, **missing) if missing else said
        return self.draft.say(said) if self._outer is None else self._outer.say(said)


def _decided(loaded: Loaded, said: Said) -> Sequence[tuple[Event, Said]]:
    """Decide at once what needs no look-up; anything but events is left to the decider."""
    if type(said.command) in LOOKING_UP:
        return ()
    try:
        return [(event, said) for event in decide(loaded.state, said.command)]
    except (RuleViolation, SessionNotFound):
        return ()


def told(callbacks: Sequence[Callable[[Receipt], object]], receipt: Receipt) -> None:
    """Tell every callback of a receipt; what one raises is logged and changes nothing."""
    for callback in callbacks:
        try:
            callback(receipt)
        except Exception:  # noqa: BLE001 - whatever it is, it is not the writer's
            _log.exception("an on_committed callback failed; the write stands")
