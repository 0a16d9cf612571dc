"""What every part of the state machine shares: stores, handles, the model, and holding the one against the other.

Two stores look at the same storage and a third that is read-only (in memory they are one), and every session has three
handles, each knowing only what it read last: so one always writes behind another's back. The read-only store cannot
bring the views up to date, so it must answer by what the log has beyond them. Next: saying.py, turns.py, asking.py.
"""

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

import turnlog
from turnlog import ConversationStore, Head, Receipt, Session, SessionSummary, TurnlogError
from turnlog.testing.machine.book import Book
from turnlog.testing.machine.commands import Said
from turnlog.testing.machine.plainly import plain, same
from turnlog.testing.machine.talk import Refused, Talk

T = TypeVar("T")
START = datetime(2026, 1, 1, tzinfo=UTC)

places = st.integers(0, 7)
"""Which of the sessions there are, see ``Told.picked``."""
handles = st.integers(0, 2)
"""Which handle of a session; the last is on the other store."""


class Told(RuleBasedStateMachine):
    """A store beside a model of it."""

    is_shared: ClassVar[bool] = True
    """Whether a storage can be opened several times; what lives in one handle cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="turnlog-machine-"))
        self.url = self.new_url()
        self.clock = START
        self.made = 0
        self.stores = [self.opened()]
        self.stores.append(self.opened() if self.is_shared else self.stores[0])
        self.stores.append(self.opened(read_only=True) if self.is_shared else self.stores[0])
        self.book = Book()
        self.handles: dict[tuple[str, int], Session] = {}
        self.keyed: dict[str, list[Said]] = {}
        self.successors: dict[str, tuple[str, bool]] = {}
        self.receipts: dict[tuple[str, str, str], Receipt] = {}
        self.heads: list[Head] = []
        self.touched: set[str] = set()

    def new_url(self) -> str:
        """Return the URL of a storage with nothing in it; ``self.folder`` is an empty folder, removed at the end."""
        raise NotImplementedError

    def drop(self) -> None:
        """Remove the storage, where it is not in ``self.folder``; every store on it is closed."""

    def opened(self, **options: Any) -> ConversationStore:
        """Open the storage once more; ``read_only`` may be among the options."""
        return turnlog.open(self.url, durability="normal", clock=lambda: self.clock, new_id=self.new_id, **options)

    def new_id(self) -> str:
        """Make ids that are told apart and come again in every run."""
        self.made += 1
        return f"id-{self.made:06}"

    def pass_time(self, seconds: int) -> None:
        """Move the clock of all stores, forth or back."""
        self.clock += timedelta(seconds=seconds)

    @property
    def store(self) -> ConversationStore:
        return self.stores[0]

    def handle(self, session_id: str, number: int) -> Session:
        """Return one of three handles; it knows what it last read."""
        key = session_id, number
        if key not in self.handles:
            self.handles[key] = self.stores[number == 2].get(session_id)
        return self.handles[key]

    def picked(self, place: int, number: int = 0) -> tuple[Session, Talk]:
        """Return a handle and the model of one of the sessions that are not deleted."""
        living = self.book.living()
        talk = living[place % len(living)]
        return self.handle(talk.state["id"], number), talk

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

    def refuses(self, kind: type[TurnlogError], real: Callable[[], object]) -> None:
        """Require that this is refused."""

        def model(_: object) -> None:
            raise Refused(kind)

        self.both(real, model)

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
        first = self.receipts.setdefault((session_id, kind, key), receipt)
        assert receipt == first
        return receipt is not first

    def teardown(self) -> None:
        try:
            self.store.catch_up()
            report = self.store.verify(heads=self.heads)
            assert report.ok, report.failures
            assert (report.sessions, report.events) == (len(self.book.talks), self.book.events())
        finally:
            for store in self.stores:
                store.close()
            shutil.rmtree(self.folder)
            self.drop()


def made_by(result: object) -> str | None:
    """Return the id that the store made for a command."""
    ids = [getattr(result, name) for name in ("message_id", "call_id", "run_id") if isinstance(result, Receipt)]
    return next((made for made in ids if made is not None), None)


def told(messages: list[Any], expected: list[Any]) -> None:
    """Require these messages of the model."""
    wanted = [{name: value for name, value in message.items() if name != "place"} for message in expected]
    assert same(plain(messages), wanted), (plain(messages), wanted)


def summarised(found: list[SessionSummary], states: list[dict[str, Any]]) -> None:
    """Require these sessions of the model, in this order."""
    wanted = [
        {name: state["id" if name == "session_id" else name] for name in SessionSummary.__struct_fields__}
        for state in states
    ]
    assert same(plain(found), wanted), (plain(found), wanted)
