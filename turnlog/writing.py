"""The writing side of a session handle: one command at a time, or a turn of them committed together."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self

from msgspec.structs import replace

from turnlog import inputs
from turnlog.decider import Decider, Loaded, Said
from turnlog.domain.commands import LOOKING_UP, NOTHING, Command, fingerprint
from turnlog.domain.errors import (
    ConcurrencyConflict,
    CorruptLog,
    IdempotencyConflict,
    InvalidInput,
    RuleViolation,
    SessionNotFound,
    TurnlogError,
)
from turnlog.domain.events import Event
from turnlog.domain.session import decide, evolve
from turnlog.domain.values import Receipt, SessionState
from turnlog.projections.history import Occurrence

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
        made: str | None = None,
        bare: Command | None = None,
    ) -> Receipt:
        """Write ``command``, or add it to the open turn.

        ``message_id`` is the caller's own, if he gave one. ``made`` names the field that holds an id made for the
        command, or ``bare`` is the command without such ids: by that a repetition is known.
        """
        turn = self._turn_to_join()
        if not options and message_id is None and (turn is None or turn.plain):
            said = Said(command, command)
            return self.write((said,), self._decided(said)) if turn is None else turn.draft.say(said)
        if bare is None:
            bare = command if made is None else replace(command, **{made: ""})
        said = self._said(command, inputs.options(options), message_id, bare)
        return self.write((said,)) if turn is None else turn.say(said)

    def _decided(self, said: Said) -> Sequence[tuple[Event, Said]]:
        """Decide at once what needs no look-up; anything but events is left to the decider."""
        if type(said.command) in LOOKING_UP:
            return ()
        try:
            return [(event, said) for event in decide(self.loaded.state, said.command)]
        except (RuleViolation, SessionNotFound):
            return ()

    def write(
        self,
        said: Sequence[Said],
        decided: Sequence[tuple[Event, Said]] = (),
        turn_key: tuple[str, bytes] | None = None,
    ) -> Receipt:
        """Commit ``said``, of which ``decided`` may hold what follows on the state that is known."""
        plan, receipt = self.decider.write(self.loaded, said, decided=decided, turn_key=turn_key)
        self.loaded = plan.loaded
        if plan.writes:
            self._committed(receipt)
        return receipt

    def _said(self, command: Command, options: inputs.WriteOptions, message_id: str | None, bare: Command) -> Said:
        keys: list[tuple[str, str, bytes]] = []
        command_id = options.get("command_id")
        if message_id is not None or command_id is not None:
            print_ = fingerprint((bare,))
            keys = [
                (kind, key, print_)
                for kind, key in (("message", message_id), ("command", command_id))
                if key is not None
            ]
        return Said(
            command=command,
            bare=bare,
            occurred_at=options.get("occurred_at"),
            actor=options.get("actor"),
            correlation_id=options.get("correlation_id"),
            causation_id=options.get("causation_id"),
            keys=tuple(keys),
            expected_version=options.get("expected_version"),
        )

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


class Draft:
    """What a turn holds until it is committed: what was said, and what was decided on it so far."""

    def __init__(self, writer: SessionWriter, command_id: str | None) -> None:
        self._writer = writer
        self._command_id = command_id
        self._base = writer.loaded
        self._told: list[Command] = []
        self._said: list[Said] = []
        self._keys: dict[tuple[str, str], bytes] = {}
        self._decided: list[tuple[Event, Said]] = []
        self._done_before = command_id is not None and self._find_done(command_id)
        self.pending: list[Occurrence] = []
        self.state = self._base.state
        self.receipt: Receipt | None = None

    def say(self, said: Said) -> Receipt:
        """Add a command; it is decided now, and again should somebody else write before the end.

        What it may be refused for is looked at in the order of ``Decider.plan``: repetition, version, rules.
        """
        self._told.append(said.bare)
        if self._done_before:
            return Receipt(session_id=self.state.id)
        try:
            return self._add(said)
        except (RuleViolation, InvalidInput, SessionNotFound, ConcurrencyConflict, CorruptLog):
            if not self._renew():
                raise
            return self._add(said)

    def _add(self, said: Said) -> Receipt:
        nothing_yet = Receipt(session_id=self.state.id)
        if self._is_said(said):
            return nothing_yet
        earlier = self._earlier(said)
        if earlier is None:
            self._decide(said)
        self._said.append(said)
        self._keys.update(_keys(said))
        return earlier or nothing_yet

    def commit(self) -> None:
        """Write all of it as one append."""
        key = None
        if self._command_id is not None:
            key = (self._command_id, fingerprint(tuple(self._told)))
        plain = key is None and self._base is self._writer.loaded and all(_plain(said) for said in self._said)
        self.receipt = self._writer.write(self._said, self._decided if plain else (), key)

    def mark(self) -> tuple[int, int]:
        """Return where the draft stands, for ``back_to``."""
        return len(self._told), len(self._said)

    def back_to(self, mark: tuple[int, int]) -> None:
        """Drop what was said after ``mark``; the rest is decided again, it may stand on a newer state by now."""
        del self._told[mark[0] :], self._said[mark[1] :]
        self._keys = {key: print_ for said in self._said for key, print_ in _keys(said)}
        self._decide_all()

    def _find_done(self, command_id: str) -> bool:
        """Tell whether the turn's ``command_id`` was used before: then nothing is decided, only compared at the end."""
        decider = self._writer.decider
        return bool(decider.recorder.select_keys(decider.stream(self._base.state.id), (("command", command_id),)))

    def _is_said(self, said: Said) -> bool:
        """Tell whether this was said in this turn already, under the same id."""
        for kind, key, print_ in said.keys:
            used = self._keys.get((kind, key))
            if used is not None and used != print_:
                raise IdempotencyConflict(f"{kind}_id {key!r} was already used in this turn")
            if used is not None:
                return True
        return False

    def _earlier(self, said: Said) -> Receipt | None:
        return self._writer.decider.earlier_receipt(self.state.id, said.keys) if said.keys else None

    def _decide(self, said: Said) -> None:
        decider = self._writer.decider
        if said.expected_version is not None:
            decider.require_version(self._base, said.expected_version)
        found = NOTHING
        if type(said.command) in LOOKING_UP and not self.state.deleted:
            stream, version = decider.stream(self.state.id), self._base.state.version
            found = decider.look_up(decider.recorder, stream, version, said.command, self.pending)
        now = decider.now(self.state)
        for event in decide(self.state, said.command, found):
            self.state = evolve(self.state, event, now)
            self._decided.append((event, said))
            self.pending.append(Occurrence(self.state.version, event, now, said.occurred_at or now))

    def _renew(self) -> bool:
        """Decide everything said so far on the newest state; tell whether that is another one."""
        writer = self._writer
        newest = writer.decider.load(self.state.id, self._base)
        if newest.state.version == self._base.state.version:
            return False
        base, self._base = self._base, newest
        try:
            self._decide_all()
        except TurnlogError:
            self._base = base
            self._decide_all()
            raise
        writer.loaded = newest
        return True

    def _decide_all(self) -> None:
        self.state, self.pending, self._decided = self._base.state, [], []
        for said in self._said:
            if self._earlier(said) is None:
                self._decide(said)


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


def _keys(said: Said) -> list[tuple[tuple[str, str], bytes]]:
    return [((kind, key), print_) for kind, key, print_ in said.keys]


def _plain(said: Said) -> bool:
    return not said.keys and said.expected_version is None


def told(callbacks: Sequence[Callable[[Receipt], object]], receipt: Receipt) -> None:
    """Tell every callback of a receipt; what one raises is logged and changes nothing."""
    for callback in callbacks:
        try:
            callback(receipt)
        except Exception:  # noqa: BLE001 - whatever it is, it is not the writer's
            _log.exception("an on_committed callback failed; the write stands")
