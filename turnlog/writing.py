"""The writing side of a session handle: one command at a time, or a turn of them committed together."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from msgspec.structs import replace

from turnlog import inputs
from turnlog.decider import Decider, Loaded, Said
from turnlog.domain.commands import LOOKING_UP, NOTHING, Command, fingerprint
from turnlog.domain.errors import IdempotencyConflict, InvalidInput, RuleViolation, SessionNotFound
from turnlog.domain.events import Event
from turnlog.domain.session import decide, evolve
from turnlog.domain.values import Receipt, SessionState
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

    @property
    def current(self) -> SessionState:
        """The state as this thread sees it: inside a turn, with what was said in it."""
        turn = self.turn
        return self.loaded.state if turn is None else turn.state

    @property
    def pending(self) -> Sequence[Occurrence]:
        """What was said in the open turn and is not committed yet."""
        turn = self.turn
        return () if turn is None else turn.pending

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
        turn = self.turn
        if not options and message_id is None and turn is None:
            said = Said(command, command)
            return self._write((said,), self._decided(said))
        if bare is None:
            bare = command if made is None else replace(command, **{made: ""})
        said = self._said(command, inputs.options(options), message_id, bare)
        return self._write((said,)) if turn is None else turn.say(said)

    def write_turn(self, turn: "Turn") -> Receipt:
        """Commit what was said in a turn."""
        return self._write(turn.said, turn.decided, turn.key)

    def _decided(self, said: Said) -> Sequence[tuple[Event, Said]]:
        """Decide at once what needs no look-up; anything but events is left to the decider."""
        if type(said.command) in LOOKING_UP:
            return ()
        try:
            return [(event, said) for event in decide(self.loaded.state, said.command)]
        except (RuleViolation, SessionNotFound):
            return ()

    def _write(
        self,
        said: Sequence[Said],
        decided: Sequence[tuple[Event, Said]] = (),
        turn_key: tuple[str, bytes] | None = None,
    ) -> Receipt:
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
        return Turn(self, inputs.options(options), self.turn)

    def enter(self, turn: "Turn") -> None:
        """Note that this thread has ``turn`` open."""
        self._turns[threading.get_ident()] = turn

    def leave(self) -> None:
        """Note that this thread's turn is over."""
        self._turns.pop(threading.get_ident(), None)


class Turn:
    """Everything said between entering and leaving is committed as one append, or not at all.

    ``receipt`` is there after the end. On an exception nothing is written (of a turn inside a turn: what was said in
    the inner one is dropped).
    """

    def __init__(self, writer: SessionWriter, options: inputs.WriteOptions, outer: "Turn | None") -> None:
        self._writer = writer
        self._outer = outer
        self._options = options
        self._receipt: Receipt | None = None
        self._base = writer.loaded
        self.said: list[Said] = []
        self._pending: list[Occurrence] = []
        self._decided: list[tuple[Event, Said]] = []
        self._state = self._base.state
        self._mark = (0, 0, self._state)
        self._done_before = False

    @property
    def state(self) -> SessionState:
        """The state with what was said so far."""
        return self._state if self._outer is None else self._outer.state

    @property
    def pending(self) -> Sequence[Occurrence]:
        """The events of what was said so far."""
        return self._pending if self._outer is None else self._outer.pending

    @property
    def receipt(self) -> Receipt:
        """The receipt of the whole turn.

        Raises:
            InvalidInput: the turn is not over yet, or was not committed.
        """
        turn = self._outermost
        if turn._receipt is None:
            raise InvalidInput("receipt", "the turn is not committed (yet)")
        return turn._receipt

    @property
    def decided(self) -> Sequence[tuple[Event, Said]]:
        """What was decided on the writer's state, where that can be committed as it is: no keys, nobody else wrote."""
        plain = self.key is None and self._base is self._writer.loaded and all(_plain(said) for said in self.said)
        return self._decided if plain else ()

    @property
    def _outermost(self) -> "Turn":
        return self if self._outer is None else self._outer._outermost

    @property
    def key(self) -> tuple[str, bytes] | None:
        """The turn's own ``command_id`` with the fingerprint of all that was said."""
        command_id = self._options.get("command_id")
        return None if command_id is None else (command_id, fingerprint(tuple(said.bare for said in self.said)))

    def __enter__(self) -> "Turn":
        if self._outer is None:
            self._base = self._writer.loaded
            self._state = self._base.state
            self._done_before = self._find_done()
            self._writer.enter(self)
        else:
            self._mark = self._outer.mark()
            self._writer.enter(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._outer is not None:
            self._writer.enter(self._outer)
            if kind is not None:
                self._outer.back_to(self._mark)
            return
        self._writer.leave()
        if kind is None:
            self._receipt = self._writer.write_turn(self)

    def say(self, said: Said) -> Receipt:
        """Add a command to the turn; it is decided now, and again should somebody else write before the end."""
        if self._outer is not None:
            return self._outer.say(self._with_options(said))
        said = self._with_options(said)
        if self._done_before:
            self.said.append(said)
            return Receipt(session_id=self.state.id)
        repeated = self._repeated(said)
        if repeated is not None:
            return repeated
        try:
            self._decide(said)
        except (RuleViolation, InvalidInput, SessionNotFound):
            if not self._renew():
                raise
            self._decide(said)
        self.said.append(said)
        return Receipt(session_id=self.state.id)

    def _find_done(self) -> bool:
        """Tell whether this turn's ``command_id`` was used before: then nothing is decided, only compared at the end."""
        command_id = self._options.get("command_id")
        if command_id is None:
            return False
        decider = self._writer.decider
        return bool(decider.recorder.select_keys(decider.stream(self.state.id), (("command", command_id),)))

    def _with_options(self, said: Said) -> Said:
        options = {name: value for name, value in self._options.items() if name != "command_id"}
        missing = {name: value for name, value in options.items() if getattr(said, name) is None}
        return replace(said, **missing) if missing else said

    def _repeated(self, said: Said) -> Receipt | None:
        for key in said.keys:
            for other in self.said:
                for used in other.keys:
                    if used[:2] == key[:2]:
                        if used != key:
                            raise IdempotencyConflict(f"{key[0]}_id {key[1]!r} was already used in this turn")
                        return Receipt(session_id=self.state.id)
        decider = self._writer.decider
        return decider.earlier_receipt(self.state.id, said.keys) if said.keys else None

    def _decide(self, said: Said) -> None:
        decider = self._writer.decider
        found = NOTHING
        version = self._base.state.version
        if type(said.command) in LOOKING_UP:
            stream = decider.stream(self.state.id)
            found = decider.look_up(decider.recorder, stream, version, said.command, self.pending)
        now = decider.now(self.state)
        for event in decide(self.state, said.command, found):
            self._state = evolve(self.state, event, now)
            self._decided.append((event, said))
            self._pending.append(Occurrence(self.state.version, event, now, said.occurred_at or now))

    def _renew(self) -> bool:
        """Decide everything said so far on the newest state; tell whether that is another one."""
        writer = self._writer
        newest = writer.decider.load(self.state.id, self._base)
        if newest.state.version == self._base.state.version:
            return False
        writer.loaded = self._base = newest
        self._state, self._pending, self._decided = newest.state, [], []
        for said in self.said:
            self._decide(said)
        return True

    def mark(self) -> tuple[int, int, SessionState]:
        """Return where the turn stands, for ``back_to``."""
        turn = self._outermost
        return len(turn.said), len(turn._pending), turn._state

    def back_to(self, mark: tuple[int, int, SessionState]) -> None:
        """Drop what was said after ``mark``."""
        turn = self._outermost
        del turn.said[mark[0] :], turn._pending[mark[1] :], turn._decided[mark[1] :]
        turn._state = mark[2]


def _plain(said: Said) -> bool:
    return not said.keys and said.expected_version is None


def told(callbacks: Sequence[Callable[[Receipt], object]], receipt: Receipt) -> None:
    """Tell every callback of a receipt; what one raises is logged and changes nothing."""
    for callback in callbacks:
        try:
            callback(receipt)
        except Exception:
            _log.exception("an on_committed callback failed; the write stands")
