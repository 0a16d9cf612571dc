"""What a turn holds until it is committed: what was said, what was decided on it so far, and the ids it gave out."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from msgspec.structs import replace

from turnlog.decider import Decider, Loaded
from turnlog.domain import commands as c
from turnlog.domain import events as e
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
from turnlog.domain.events import Erased, Event
from turnlog.domain.session import decide, evolve
from turnlog.domain.values import Receipt
from turnlog.lookup import Stretch, look_up
from turnlog.projections.history import Occurrence
from turnlog.saying import KeyOfMessage, Said

_CAUSES: dict[type[Any], type[Any]] = {
    e.MessageAdded: c.AddMessage,
    e.HistoryCompacted: c.CompactHistory,
    e.ToolCalled: c.CallTool,
    e.RunStarted: c.StartRun,
}
"""Events that hold an id made for the command that causes them."""
_TOLD = frozenset({*_CAUSES, e.MessageRemoved})
"""Events of which the caller learned an id."""


class Handle(Protocol):
    """What a draft asks of the handle it was begun on."""

    decider: Decider
    loaded: Loaded

    def write(
        self,
        loaded: Loaded,
        said: Sequence[Said],
        decided: Sequence[tuple[Event, Said]] = (),
        turn_key: tuple[str, bytes] | None = None,
    ) -> Receipt:
        """Commit it."""
        ...


class Mark(NamedTuple):
    """Where a draft stood: how much was told, said, and given out."""

    told: int
    said: int
    made: int
    repeated: int


class _Given(NamedTuple):
    """What was said under an id in this turn: the command's fingerprint, its receipt, and which of the said it was."""

    print: bytes
    receipt: Receipt
    place: int


class Draft:
    """One turn's commands. Each is decided when it is said, and again should somebody else write before the end.

    With a ``command_id`` that was used before, nothing is decided: the ids are given out that were given out the first
    time, and what was said is compared at the end.
    """

    def __init__(self, handle: Handle, command_id: str | None) -> None:
        self._handle = handle
        self._command_id = command_id
        self._base = handle.loaded
        self._told: list[Command] = []
        self._said: list[Said] = []
        self._made: list[str] = []
        self._decided: list[tuple[Event, Said]] = []
        self._first = None if command_id is None else self._first_time(command_id)
        self._repeated = 0
        self.pending: list[Occurrence] = []
        self.state = self._base.state
        self.receipt: Receipt | None = None
        self._nothing_yet = Receipt(session_id=self.state.id)
        self._given: dict[tuple[str, str], _Given] = {}
        if command_id is not None:
            self._given["command", command_id] = _Given(b"", self._nothing_yet, -1)

    def say(self, said: Said) -> Receipt:
        """Add a command.

        What it may be refused for is looked at in the order of ``Decider.plan``: repetition, version, rules.
        """
        self._told.append(said.bare)
        if self._first is not None:
            return self._repeat(said, self._first)
        try:
            return self._add(said)
        except (RuleViolation, InvalidInput, SessionNotFound, ConcurrencyConflict, CorruptLog):
            if not self._renew():
                raise
            return self._add(said)

    def commit(self) -> None:
        """Write all of it as one append."""
        key = None
        if self._command_id is not None:
            key = (self._command_id, fingerprint(tuple(self._told), self._made))
        plain = key is None and not any(said.keys or said.introduces for said in self._said)
        plain = plain and all(said.expected_version is None for said in self._said)
        self.receipt = self._handle.write(self._base, self._said, self._decided if plain else (), key)

    def mark(self) -> Mark:
        """Return where the draft stands, for ``back_to``."""
        return Mark(len(self._told), len(self._said), len(self._made), self._repeated)

    def back_to(self, mark: Mark) -> None:
        """Drop what was said after ``mark``; the rest is decided again, it may stand on a newer state by now."""
        del self._told[mark.told :], self._said[mark.said :], self._made[mark.made :]
        self._repeated = mark.repeated
        self._given = {key: given for key, given in self._given.items() if given.place < mark.said}
        self._decide_all()

    # --- the first time -----------------------------------------------------------------------------------------------

    def _add(self, said: Said) -> Receipt:
        again = self._said_before(said)
        if again is not None:
            return again
        receipt, n = self._earlier(said), len(self._decided)
        if receipt is None:
            self._decide(said)
            receipt = self._giving(said, "" if said.made is None else said.made[1])
        place = len(self._said)
        self._given.update({(kind, key): _Given(print_, receipt, place) for kind, key, print_ in said.keys})
        if said.introduces and len(self._decided) > n:
            self._introduce(said.introduces, place)
        self._said.append(said)
        return receipt

    def _introduce(self, messages: Sequence[KeyOfMessage], place: int) -> None:
        """Note ids under which messages are said from now on, unless they were used before."""
        decider = self._handle.decider
        used = decider.used_messages(decider.recorder, decider.stream(self.state.id), messages)
        for message_id, print_ in messages:
            if message_id not in used:
                receipt = replace(self._nothing_yet, message_id=message_id)
                self._given.setdefault(("message", message_id), _Given(print_, receipt, place))

    def _said_before(self, said: Said) -> Receipt | None:
        """Return the receipt, if this was said in this turn already, under the same id."""
        for kind, key, print_ in said.keys:
            given = self._given.get((kind, key))
            if given is not None and given.print != print_:
                raise IdempotencyConflict(f"{kind}_id {key!r} was already used in this turn")
            if given is not None:
                return given.receipt
        return None

    def _giving(self, said: Said, id_: str) -> Receipt:
        """Return the receipt of what is only said, with the id that it gives out (empty: a pop that took nothing)."""
        if said.made is None:
            return self._nothing_yet
        if id_:
            self._made.append(id_)
        return replace(self._nothing_yet, **{said.made[0]: id_})

    def _earlier(self, said: Said) -> Receipt | None:
        return self._handle.decider.receipts(self.state.id).under(said.keys) if said.keys else None

    def _decide(self, said: Said) -> None:
        decider = self._handle.decider
        if said.expected_version is not None:
            decider.require_version(self._base, said.expected_version)
        found = NOTHING
        if type(said.command) in LOOKING_UP and not self.state.deleted:
            stream, version = decider.stream(self.state.id), self._base.state.version
            found = look_up(said.command, Stretch(decider.codec, decider.recorder, stream, version, self.pending))
        now = decider.now(self.state)
        for event in decide(self.state, said.command, found):
            self.state = evolve(self.state, event, now)
            self._decided.append((event, said))
            self.pending.append(Occurrence(self.state.version, event, now, said.occurred_at or now))

    def _renew(self) -> bool:
        """Decide everything said so far on the newest state; tell whether that is another one."""
        handle = self._handle
        newest = handle.decider.load(self.state.id, self._base)
        if newest.hash == self._base.hash:
            return False
        base, self._base = self._base, newest
        try:
            self._decide_all()
        except TurnlogError:
            self._base = base
            self._decide_all()
            raise
        handle.loaded = newest
        return True

    def _decide_all(self) -> None:
        self.state, self.pending, self._decided = self._base.state, [], []
        for said in self._said:
            if self._earlier(said) is None:
                self._decide(said)

    # --- and again ----------------------------------------------------------------------------------------------------

    def _first_time(self, command_id: str) -> list[Event | Erased] | None:
        """Return the events of the turn that used this ``command_id`` before; ``None`` if there was none."""
        return self._handle.decider.receipts(self._base.state.id).events_under(command_id)

    def _repeat(self, said: Said, first: Sequence[Event | Erased]) -> Receipt:
        """Find the event that this caused the first time, and give out the id that is in it.

        Those events come in the order of their commands, so it is the next of them or none.
        """
        place = next((i for i in range(self._repeated, len(first)) if type(first[i]) in _TOLD), None)
        caused = None if place is None else first[place]
        if place is None or caused is None or not _caused(said.bare, caused):
            return self._giving(said, "" if isinstance(said.bare, c.PopMessage) or said.made is None else said.made[1])
        self._repeated = place + 1
        return self._giving(said, "" if said.made is None else getattr(caused, said.made[0]))


def _caused(bare: Command, event: Event | Erased) -> bool:
    """Return whether a command, but for the id made for it, may have caused this event."""
    match bare, event:
        case c.PopMessage(), e.MessageRemoved():
            return True
        case c.RemoveMessage(message_id), e.MessageRemoved(removed):
            return message_id == removed
        case _:
            return type(bare) is _CAUSES.get(type(event)) and all(_agrees(bare, event))


def _agrees(bare: Command, event: Event | Erased) -> Iterator[bool]:
    """Yield, for every field of the command that is given and that the event has too, whether they are equal."""
    for name in bare.__struct_fields__:
        value = getattr(bare, name)
        if value != "" and name in event.__struct_fields__:  # what is empty was made
            yield value == getattr(event, name)
