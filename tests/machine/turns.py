"""The state machine's turns: committed, abandoned, nested, repeated, and with somebody else writing in between."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.machine import commands
from tests.machine.commands import Said
from tests.machine.machine import Saying, ids, made_by, which
from tests.machine.plainly import plain, same
from tests.machine.talk import Refused, Talk
from turnlog import ConcurrencyConflict, Receipt, Session, Turn, TurnlogError

_several = st.lists(commands.bare, max_size=4)
_ends = st.sampled_from(["commit", "commit", "abandon", "abandon the inner one"])


class Abandoned(Exception):
    """Raised inside a turn, to end it."""


class Turning(Saying):
    """Turns of several commands."""

    @precondition(lambda self: self.book.living())
    @rule(session_id=ids, number=which, first=_several, inner=_several, last=_several, end=_ends, meanwhile=_several)
    def turn(
        self,
        session_id: str,
        number: int,
        first: list[Said],
        inner: list[Said],
        last: list[Said],
        end: str,
        meanwhile: list[Said],
    ) -> None:
        if not self.alive(session_id):
            return
        session = self.handle(session_id, number)
        spoken = Spoken(self, session)

        def speak() -> Turn:
            with session.turn() as turn:
                spoken.all_of(first)
                self._behind(session_id, number, meanwhile, spoken)
                spoken.nested(inner, abandon=end == "abandon the inner one")
                spoken.all_of(last)
                if end == "abandon":
                    raise Abandoned
            return turn

        before = self.talk(session_id).version
        try:
            turn = self.both(speak, lambda _: spoken.committed())
        except Abandoned:
            assert session.refresh().version == self.talk(session_id).version
        else:
            if turn is not None:
                self.fits(turn.receipt, before + spoken.behind, session)
                self.agrees(session)
        self.touched.add(session_id)

    @precondition(lambda self: self.book.living())
    @rule(
        session_id=ids,
        number=which,
        said=_several,
        command_id=st.none() | st.sampled_from(["t1", "k1"]),
        offset=st.sampled_from([None, None, 0, -1]),
    )
    def turn_with_options(
        self, session_id: str, number: int, said: list[Said], command_id: str | None, offset: int | None
    ) -> None:
        if not self.alive(session_id) or not said:
            return
        session, talk = self.handle(session_id, number), self.talk(session_id)
        expected = None if offset is None else max(0, talk.version + offset)
        made: list[str | None] = []

        def speak() -> Turn:
            made.clear()
            with session.turn(command_id=command_id, expected_version=expected) as turn:
                made.extend(made_by(one.to(session)) for one in said)
            return turn

        def model(_: object) -> None:
            if talk.repeats(command_id, parts_of(said)):
                return
            copied = talk.copy()
            for one, id_ in zip(said, made or [None] * len(said), strict=True):
                copied.say(one, self.clock, id_)
            if expected not in (None, talk.version):
                raise Refused(ConcurrencyConflict)
            if command_id is not None:
                copied.used(command_id, parts_of(said))
            talk.become(copied)

        before = talk.version
        turn = self.both(speak, model)
        if turn is not None and not self.repeats(session_id, "command", command_id, turn.receipt):
            self.fits(turn.receipt, before, session)
        self.touched.add(session_id)

    def _behind(self, session_id: str, number: int, said: list[Said], spoken: "Spoken") -> None:
        """Let another handle write, in the midst of the turn."""
        other, talk = self.handle(session_id, (number + 1) % 3), self.talk(session_id)
        before = talk.version
        for one in said:
            self.both(lambda one=one: one.to(other), lambda result, one=one: talk.say(one, self.clock, made_by(result)))
        spoken.behind = talk.version - before


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
            if self.fresh and not self.behind:
                self._followed(one)
            else:
                self._tried(one)

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

    def _tried(self, one: Said) -> None:
        try:
            result = one.to(self.session)
        except TurnlogError:
            return
        self.done.append((one, made_by(result)))

    def _followed(self, one: Said) -> None:
        last = [plain(message)["message_id"] for message in self.session.history()[-1:]]
        clock = self.machine.clock
        before = self.seen.version
        result: Any = self.machine.both(
            lambda: one.to(self.session), lambda result: self.seen.say(one, clock, made_by(result))
        )
        if isinstance(result, Receipt):
            self.done.append((one, made_by(result)))
        elif one.name == "pop_message" and self.seen.version > before:
            self.done.append((one, None))
            assert [result.message_id] == last
        self._sees()

    def _sees(self) -> None:
        """Require that the handle's reads show what was said so far."""
        if self.fresh and not self.behind:
            assert same(plain(self.session.state), self.seen.state)
            history = [message.message_id for message in self.session.history()]
            assert history == [message["message_id"] for message in self.seen.messages]


def parts_of(said: list[Said]) -> list[Said]:
    """Return the single commands of these."""
    parts: list[Said] = []
    for one in said:
        several = one.name == "add_messages"
        parts += [Said("add_message", (), message) for message in one.args[0]] if several else [one]
    return parts
