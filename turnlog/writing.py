"""The writing side of a session handle: one command at a time, or a turn of them committed together."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from msgspec.structs import replace

from turnlog import inputs
from turnlog.decider import Decider, KeyOfMessage, Loaded, Said, said_with
from turnlog.domain.commands import LOOKING_UP, Command
from turnlog.domain.errors import InvalidInput, RuleViolation, SessionNotFound
from turnlog.domain.events import Event
from turnlog.domain.session import decide
from turnlog.domain.values import Receipt, SessionState
from turnlog.drafting import Draft
from turnlog.projections.history import Occurrence

Committed = Callable[[Receipt], None]
_log = logging.getLogger("turnlog")


class SessionWriter:
    """What one handle knows of its session, and how it writes to it. A turn belongs to the thread that opened it."""

    def __init__(self, decider: Decider, loaded: Loaded, committed: Committed) -> None:
        self.decider = decider
        self.loaded = loaded
        self._committed = committed
        self._turns: dict[int, Turn] = {}

    @property
    def turn(self) -> "Turn | None":
        """The turn that this thread has open on this handle."""
        return self._turns.get(threading.get_ident()) if self._turns else None

    @turn.setter
    def turn(self, turn: "Turn | None") -> None:
        if turn is None:
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
        turn = self.turn
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
        if plan.loaded.state.version >= self.loaded.state.version:
            self.loaded = plan.loaded
        if plan.writes:
            self._committed(receipt)
        return receipt

    def open_turn(self, options: Mapping[str, Any]) -> "Turn":
        """Return a new turn, or one that joins the turn this thread has open."""
        checked = inputs.options(options)
        if self.turn is not None and "command_id" in checked:
            raise InvalidInput("command_id", "a turn inside a turn joins it; give it to the outer one")
        return Turn(self, checked, self.turn)


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
        self._mark = self.draft.mark()
        self._open = False

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

    def __enter__(self) -> Self:
        if self.draft.receipt is not None:
            raise InvalidInput("turn", "is over; open another with session.turn()")
        if self._open:
            raise InvalidInput("turn", "is open already; open another with session.turn()")
        self._open = True
        self._mark = self.draft.mark()
        self._writer.turn = self
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._writer.turn = self._outer
        if kind is not None:
            self.draft.back_to(self._mark)
        elif self._outer is None:
            self.draft.commit()

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
