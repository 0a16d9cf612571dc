"""The state machine: what it does to a store by the public API, and what must hold after each step.

Two stores look at the same storage (on memory they are one), and every session has three handles, each knowing only what
it read last: so one always writes behind another's back. Commands of handles: here; turns: turns.py; questions: asking.py.
"""

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import turnlog
from tests.machine import commands
from tests.machine.book import Book
from tests.machine.commands import Said
from tests.machine.plainly import plain, same
from tests.machine.talk import Refused, Talk
from turnlog import ConversationStore, Head, InvalidInput, Receipt, Session, SessionGone, TurnlogError

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)
MOST_SESSIONS = 8

ids = st.sampled_from(commands.IDS)
which = st.integers(0, 2)
_owners = st.none() | st.sampled_from(commands.USERS)
_values = st.fixed_dictionaries(
    {},
    optional={
        "agent": st.sampled_from(commands.AGENTS),
        "data": commands.objects,
        "context": commands.objects,
        "metadata": commands.objects,
    },
)
_made_ids = ("message_id", "call_id", "run_id")


class Told(RuleBasedStateMachine):
    """What every part of the machine shares: the stores, the model, and holding the one against the other."""

    backend: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="turnlog-machine-"))
        self.url = "memory://" if self.backend == "memory" else f"sqlite:///{self.folder}/sessions.db"
        self.clock = START
        self.made = 0
        self.stores = [self.opened()]
        self.stores.append(self.stores[0] if self.backend == "memory" else self.opened())
        self.book = Book()
        self.handles: dict[tuple[str, int], Session] = {}
        self.receipts: dict[tuple[str, str, str], Receipt] = {}
        self.heads: list[Head] = []
        self.touched: set[str] = set()

    def opened(self) -> ConversationStore:
        """Open the storage once more."""
        return turnlog.open(self.url, durability="normal", clock=lambda: self.clock, new_id=self.new_id)

    def new_id(self) -> str:
        """Make ids that are told apart and come again in every run."""
        self.made += 1
        return f"id-{self.made:06}"

    @property
    def store(self) -> ConversationStore:
        return self.stores[0]

    def handle(self, session_id: str, number: int) -> Session:
        """Return one of three handles, the last of them on the other store; it knows what it last read."""
        key = session_id, number
        if key not in self.handles:
            self.handles[key] = self.stores[number == 2].get(session_id)
        return self.handles[key]

    def talk(self, session_id: str) -> Talk:
        """Return the model of a session."""
        return self.book.talks[session_id]

    def both(self, real: Callable[[], T], model: Callable[[T | None], object]) -> T | None:
        """Do it to the store and to the model: both do it, or both refuse it with the same error."""
        result, error, refused = None, None, None
        try:
            result = real()
        except TurnlogError as raised:
            error = raised
        try:
            model(result)
        except Refused as raised:
            refused = raised.kind
        assert (None if error is None else type(error)) is refused, (error, refused)
        return result

    def known(self, session_id: str) -> bool:
        """Return whether there is such a session, deleted or not."""
        return session_id in self.book.talks

    def alive(self, session_id: str) -> bool:
        """Return whether there is such a session, not deleted."""
        return self.known(session_id) and not self.talk(session_id).state["deleted"]

    def agrees(self, session: Session) -> None:
        """Require of a handle that it knows what the model knows."""
        talk = self.talk(session.id)
        assert same(plain(session.state), talk.state), (plain(session.state), talk.state)
        assert session.version == talk.version

    def fits(self, receipt: Receipt, before: int, session: Session) -> None:
        """Require of a receipt that it says what was written since version ``before``."""
        talk = self.talk(session.id)
        (last,) = session.events(last=1)
        assert (receipt.version, receipt.hash, receipt.position) == (talk.version, last.hash, last.position)
        written = list(session.events(after=before))
        assert list(receipt.event_ids) == [event.event_id for event in written]
        assert receipt.recorded_at == talk.times[-1]
        assert [event.turn for event in written] == [(i, len(written)) for i in range(1, len(written) + 1)]

    def repeats(self, session_id: str, kind: str, key: str | None, receipt: Receipt) -> bool:
        """Return whether this id was used before; then the receipt must be the first one. Else keep it as that."""
        if key is None:
            return False
        place = session_id, kind, key
        first = self.receipts.setdefault(place, receipt)
        assert receipt == first
        return receipt is not first

    def teardown(self) -> None:
        try:
            if self.stores:
                self.store.catch_up()
                report = self.store.verify(heads=self.heads)
                assert report.ok, report.failures
                assert (report.sessions, report.events) == (len(self.book.talks), self.book.events())
        finally:
            for store in self.stores:
                store.close()
            shutil.rmtree(self.folder)


class Saying(Told):
    """Commands, and the life of sessions and stores."""

    @rule(seconds=st.sampled_from([-5, 1, 60, 3600]))
    def time_passes(self, seconds: int) -> None:
        self.clock += timedelta(seconds=seconds)

    @rule(session_id=ids, number=st.integers(0, 1), user_id=_owners, values=_values, history=st.booleans())
    def get_or_create(
        self, session_id: str, number: int, user_id: str | None, values: dict[str, Any], history: bool
    ) -> None:
        said = [{"message_id": "first", "role": "system", "content": "be kind"}] if history else []
        created: list[bool] = []
        session = self.both(
            lambda: self.stores[number].session(session_id, user_id=user_id, history=said, **values),
            lambda _: created.append(self.book.session(session_id, self.clock, {"user_id": user_id, **values}, said)),
        )
        if session is not None:
            assert session.created is created[0]
            self.agrees(session)
        self.touched.add(session_id)

    @precondition(lambda self: self.book.talks)
    @rule(session_id=ids, number=which, said=commands.said)
    def say(self, session_id: str, number: int, said: Said) -> None:
        if not self.known(session_id) or ((session_id, number) not in self.handles and not self.alive(session_id)):
            return
        session, talk = self.handle(session_id, number), self.talk(session_id)
        said = commands.expecting(said, talk.version)
        before, last = talk.version, talk.messages[-1:]
        result = self.both(
            lambda: said.to(session),
            lambda result: talk.say(said, self.clock, made_by(result)),
        )
        self.touched.add(session_id)
        if isinstance(result, Receipt):
            used = [("command", said.kwargs.get("command_id")), ("message", said.kwargs.get("message_id"))]
            if not any([self.repeats(session_id, kind, key, result) for kind, key in used]):
                self.fits(result, before, session)
            self.agrees(session)
        elif talk.version > before:
            assert said.name == "pop_message"
            assert [result.message_id] == [message["message_id"] for message in last]

    @precondition(lambda self: self.book.talks)
    @rule(session_id=ids, number=which, n=st.integers(40, 130))
    def say_much(self, session_id: str, number: int, n: int) -> None:
        if not self.alive(session_id) or self.talk(session_id).state["status"] not in ("active", "paused"):
            return
        session, talk = self.handle(session_id, number), self.talk(session_id)
        said = [Said("collect", ({"n": i},), {}) for i in range(talk.version, talk.version + n)]
        with session.turn() as turn:
            for one in said:
                one.to(session)
        before = talk.version
        for one in said:
            talk.say(one, self.clock)
        self.fits(turn.receipt, before, session)
        self.touched.add(session_id)

    @precondition(lambda self: self.book.living())
    @rule(session_id=ids, number=which, new_id=st.none() | ids, back=st.integers(0, 6))
    def fork(self, session_id: str, number: int, new_id: str | None, back: int) -> None:
        if not self.alive(session_id) or len(self.book.talks) >= MOST_SESSIONS:
            return
        version = max(0, self.talk(session_id).version - back)

        def model(made: Session | None) -> None:
            if version == 0 or (new_id is not None and self.known(new_id)):
                raise Refused(InvalidInput)
            assert made is not None
            self.book.fork(session_id, made.id, version, self.clock)

        session = self.handle(session_id, number)
        fork = self.both(lambda: session.fork(new_id, at=version if back else None), model)
        if fork is not None:
            self.agrees(fork)
            self.touched.add(fork.id)
            copies = zip(session.events(), fork.events(), strict=False)
            assert all(copy.causation_id == origin.event_id for origin, copy in copies)

    @precondition(lambda self: self.book.living())
    @rule(session_id=ids, number=which, preserve=st.booleans(), command_id=st.none() | st.just("reset"))
    def reset(self, session_id: str, number: int, preserve: bool, command_id: str | None) -> None:
        if not self.alive(session_id) or len(self.book.talks) >= MOST_SESSIONS:
            return
        new = self.handle(session_id, number).reset(preserve_history=preserve, command_id=command_id)
        if not self.known(new.id):
            self.book.reset(session_id, new.id, self.clock, preserve_history=preserve)
        else:
            assert command_id is not None
        self.touched |= {session_id, new.id}

    @precondition(lambda self: len(self.book.living()) > 1)
    @rule(session_id=ids, number=which)
    def delete(self, session_id: str, number: int) -> None:
        if not self.alive(session_id):
            return
        receipt = self.handle(session_id, number).delete()
        self.talk(session_id).delete(self.clock)
        assert receipt.version == self.talk(session_id).version
        assert receipt.erasure is not None

    @precondition(lambda self: len(self.book.living()) > 3)
    @rule(user_id=st.sampled_from(commands.USERS))
    def erase_user(self, user_id: str) -> None:
        report = self.store.erase_user(user_id)
        assert (report.sessions, report.events, report.forks) == self.book.erase_user(user_id, self.clock)

    @rule(number=which, session_id=ids)
    def refresh(self, session_id: str, number: int) -> None:
        if self.alive(session_id):
            self.agrees(self.handle(session_id, number).refresh())
        elif (session_id, number) in self.handles:
            self.both(lambda: self.handles[session_id, number].refresh(), lambda _: _gone())

    @rule(number=st.integers(0, 1))
    def reopen(self, number: int) -> None:
        if self.backend == "memory":
            return
        self.stores[number].close()
        self.stores[number] = self.opened()
        self.handles = {key: handle for key, handle in self.handles.items() if (key[1] == 2) != number}

    @rule(number=st.integers(0, 1))
    def catch_up(self, number: int) -> None:
        self.stores[number].catch_up()

    @rule(view=st.sampled_from([None, "session_index", "message_index"]))
    def rebuild(self, view: str | None) -> None:
        self.store.rebuild(view)

    @rule(vacuum=st.booleans())
    def scrub(self, vacuum: bool) -> None:
        self.store.scrub(vacuum=vacuum)

    @rule()
    def keep_heads(self) -> None:
        self.heads += self.store.heads()


def _gone() -> None:
    raise Refused(SessionGone)


def made_by(result: object) -> str | None:
    """Return the id that the store made for it."""
    ids = [getattr(result, name) for name in _made_ids if isinstance(result, Receipt)]
    return next((made for made in ids if made is not None), None)


