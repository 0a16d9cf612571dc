"""The state machine's turns: committed, abandoned, nested, repeated, and with somebody else writing in between."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from turnlog import Message, Receipt, Session, Turn, TurnlogError
from turnlog.testing.machine import commands
from turnlog.testing.machine.commands import Said
from turnlog.testing.machine.plainly import plain, same
from turnlog.testing.machine.saying import Saying
from turnlog.testing.machine.talk import Talk
from turnlog.testing.machine.told import handles, made_by, places

_several = st.lists(commands.bare, max_size=4)
_some = st.lists(commands.bare, min_size=1, max_size=4)
_ends = st.sampled_from(["commit", "commit", "abandon", "abandon the inner one"])


class Abandoned(Exception):
    """Raised inside a turn, to end it."""


class Turning(Saying):
    """Turns of several commands."""

    @precondition(lambda self: self.book.living())
    @rule(place=places, number=handles, first=_several, inner=_several, last=_several, end=_ends, behind=_several)
    def turn(
        self,
        *,
        place: int,
        number: int,
        first: list[Said],
        inner: list[Said],
        last: list[Said],
        end: str,
        behind: list[Said],
    ) -> None:
        session, talk = self.picked(place, number)
        other = self.handle(session.id, (number + 1) % 3)
        spoken = Spoken(self, session)

        def speak() -> Turn:
            with session.turn() as turn:
                spoken.all_of(first)
                spoken.meanwhile(other, behind)
                spoken.nested(inner, abandon=end == "abandon the inner one")
                spoken.all_of(last)
                if end == "abandon":
                    raise Abandoned
            return turn

        before = talk.version
        try:
            turn = self.both(speak, lambda _: spoken.committed())
        except Abandoned:
            assert session.refresh().version == talk.version
        else:
            if turn is not None:
                self.fits(turn.receipt, before + spoken.behind, session)
                self.agrees(session)
        self.touched.add(session.id)

    @precondition(lambda self: self.book.living())
    @rule(
        place=places,
        number=handles,
        said=_some,
        command_id=st.none() | st.sampled_from(["t1", "k1"]),
        offset=st.sampled_from([None, None, 0, -1]),
    )
    def turn_with_options(
        self, *, place: int, number: int, said: list[Said], command_id: str | None, offset: int | None
    ) -> None:
        session, talk = self.picked(place, number)
        expected = None if offset is None else max(0, talk.version + offset)
        done: list[tuple[Said, str | None]] = []

        def speak() -> Turn:
            with session.turn(command_id=command_id, expected_version=expected) as turn:
                done.extend(done_by(one, one.to(session)) for one in said)
            return turn

        def model(_: object) -> None:
            if talk.repeats(command_id, parts_of(said)):
                return
            copied = talk.copy()
            for one, made in [*done, *((one, None) for one in said[len(done) :])]:
                copied.say(one, self.clock, made, expected=expected in (None, talk.version))
            if command_id is not None:
                copied.used(command_id, parts_of(said))
            talk.become(copied)

        before = talk.version
        turn = self.both(speak, model)
        if turn is not None and not self.repeats(session.id, "command", command_id, turn.receipt):
            self.fits(turn.receipt, before, session)
        self.touched.add(session.id)


class Spoken:
    """What is said inside a turn: each is done or refused at once, and the model follows where nobody else wrote."""

    def __init__(self, machine: Saying, session: Session) -> None:
        self.machine = machine
        self.session = session
        self.talk = machine.talk(session.id)
        self.fresh = session.version == self.talk.version
        self.seen: Talk = self.talk.copy()
        self.done: list[tuple[Said, str | None]] = []
        self.behind = 0

    def all_of(self, said: list[Said]) -> None:
        """Say these, one after the other."""
        for one in said:
            if self.fresh:
                self._followed(one)
            else:
                self._tried(one)

    def meanwhile(self, other: Session, said: list[Said]) -> None:
        """Let another handle write, in the midst of the turn."""
        before = self.talk.version
        for one in said:
            self._behind(other, one)
        self.behind = self.talk.version - before
        self.fresh = self.fresh and not self.behind

    def nested(self, said: list[Said], *, abandon: bool) -> None:
        """Say these in a turn of their own, inside."""
        done, seen = len(self.done), self.seen.copy()
        try:
            with self.session.turn():
                self.all_of(said)
                if abandon:
                    raise Abandoned
        except Abandoned:
            del self.done[done:]
            self.seen = seen
            self._sees()

    def committed(self) -> None:
        """Have the model do all of it, or nothing."""
        copied = self.talk.copy()
        for one, made in self.done:
            copied.say(one, self.machine.clock, made)
        self.talk.become(copied)

    def _behind(self, other: Session, one: Said) -> None:
        machine = self.machine
        machine.both(lambda: one.to(other), lambda result: self.talk.say(one, machine.clock, made_by(result)))

    def _tried(self, one: Said) -> None:
        try:
            result = one.to(self.session)
        except TurnlogError:
            return
        self.done.append(done_by(one, result))

    def _followed(self, one: Said) -> None:
        clock, last, before = self.machine.clock, self.seen.messages[-1:], self.seen.version
        result = self.machine.both(
            lambda: one.to(self.session), lambda result: self.seen.say(one, clock, made_by(result))
        )
        if isinstance(result, Receipt) or one.name == "pop_message":
            self.done.append(done_by(one, result))
        if one.name == "pop_message" and self.seen.version > before:
            assert isinstance(result, Message)
            assert [result.message_id] == [message["message_id"] for message in last]
        self._sees()

    def _sees(self) -> None:
        """Require that the handle's reads show what was said so far."""
        if self.fresh:
            assert same(plain(self.session.state), self.seen.state)
            history = [message.message_id for message in self.session.history()]
            assert history == [message["message_id"] for message in self.seen.messages]


def done_by(one: Said, result: Receipt | Message | None) -> tuple[Said, str | None]:
    """Return what was done, with the id that was made for it: a pop takes the message it returned, and no other."""
    if one.name != "pop_message":
        return one, made_by(result)
    if result is None:
        return Said("set_metadata", ({},), {}), None
    assert isinstance(result, Message)
    return Said("remove_message", (result.message_id,), {}), None


def parts_of(said: list[Said]) -> list[Said]:
    """Return the single commands of these."""
    parts: list[Said] = []
    for one in said:
        several = one.name == "add_messages"
        parts += [Said("add_message", (), message) for message in one.args[0]] if several else [one]
    return parts
