"""The state machine's questions: the past, windows of history, lists over all sessions; and what holds after each step."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from tests.machine import commands
from tests.machine.machine import START, ids, which
from tests.machine.plainly import differences, fitting, plain, same, window
from tests.machine.turns import Turning
from turnlog import InvalidInput, Message, Page, SessionSummary
from turnlog.domain.values import STATUSES

_times = st.integers(-10, 400).map(lambda minutes: START + timedelta(minutes=minutes))
_wanted = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from(commands.USERS),
        "agent": st.sampled_from(commands.AGENTS),
        "status": st.sampled_from(sorted(STATUSES)) | st.just("active"),
        "route": st.sampled_from(commands.ROUTES),
        "older_than": _times,
        "newer_than": _times,
    },
)


class Asking(Turning):
    """Everything that only reads."""

    @precondition(lambda self: self.book.living())
    @rule(session_id=ids, number=which, back=st.integers(0, 12))
    def look_back(self, session_id: str, number: int, back: int) -> None:
        if not self.alive(session_id):
            return
        session, talk = self.handle(session_id, number), self.talk(session_id)
        version = max(0, talk.version - back)
        then, now = talk.past[version], talk.past[talk.version]
        assert same(plain(session.at(version)), then["state"])
        told(session.history(at=version), then["messages"])
        assert same(plain(session.routes(at=version)), then["state"]["route_history"])
        assert same(plain(session.steps(at=version)), then["steps"])
        assert same(plain(session.runs(at=version)), then["runs"])
        diff = session.diff(version, talk.version)
        assert {change.path: change.kind for change in diff.changes} == differences(then["state"], now["state"])

    @precondition(lambda self: self.book.living())
    @rule(session_id=ids, number=which, time=_times)
    def look_at_a_time(self, session_id: str, number: int, time: Any) -> None:
        if not self.alive(session_id):
            return
        session, talk = self.handle(session_id, number), self.talk(session_id)
        then = talk.past[talk.version_at(time)]
        assert same(plain(session.at(time=time)), then["state"])
        told(session.history(at=time), then["messages"])

    @precondition(lambda self: self.book.living())
    @rule(session_id=ids, number=which)
    def replay(self, session_id: str, number: int) -> None:
        if not self.alive(session_id):
            return
        session, talk = self.handle(session_id, number), self.talk(session_id)
        steps = list(session.replay())
        assert [step.event.version for step in steps] == list(range(1, talk.version + 1))
        for n, step in enumerate(steps, 1):
            assert same(plain(step.before), talk.past[n - 1]["state"])
            assert same(plain(step.after), talk.past[n]["state"])
            assert step.event.recorded_at == talk.times[n]

    @precondition(lambda self: self.book.living())
    @rule(session_id=ids, number=which, last=st.integers(0, 5), exact=st.booleans(), data=st.data())
    def look_through_a_window(
        self, session_id: str, number: int, last: int, exact: bool, data: st.DataObject
    ) -> None:
        if not self.alive(session_id):
            return
        session, messages = self.handle(session_id, number), self.talk(session_id).messages
        told(session.history(last=last, exact=exact), messages[len(messages) - min(last, len(messages)) :])if exact else (
            told(session.history(last=last), window(messages, last))
        )
        told(session.history(max_tokens=last, count=lambda _: 1), fitting(messages, last))
        if messages:
            place = data.draw(st.integers(0, len(messages) - 1))
            before = messages[place]["message_id"]
            told(session.history(before=before, last=last), window(messages[:place], last))
            told([session.message(before)], [messages[place]])
        self.both(lambda: session.history(before="nowhere"), lambda _: _refuse())

    @rule(number=st.integers(0, 1), wanted=_wanted, limit=st.integers(1, 4))
    def list_sessions(self, number: int, wanted: dict[str, Any], limit: int) -> None:
        found: list[SessionSummary] = []
        cursor = None
        while True:
            page: Page[SessionSummary] = self.stores[number].sessions(**wanted, limit=limit, cursor=cursor)
            assert len(page.items) <= limit
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        summarised(found, self.book.sessions(**wanted))

    @rule(number=st.integers(0, 1), user_id=st.sampled_from(commands.USERS), limit=st.integers(1, 4))
    def list_messages(self, number: int, user_id: str, limit: int) -> None:
        found: list[Message] = []
        cursor = None
        while True:
            page = self.stores[number].messages(user_id=user_id, limit=limit, cursor=cursor)
            assert len(page.items) <= limit
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                break
        told(found, self.book.messages(user_id))

    @rule(number=st.integers(0, 1), user_id=st.sampled_from(commands.USERS))
    def ask_for_a_user(self, number: int, user_id: str) -> None:
        store = self.stores[number]
        active = store.active_session(user_id)
        assert (None if active is None else active.id) == self.book.active(user_id)
        summarised(store.for_user(user_id).sessions().items, self.book.sessions(user_id=user_id))
        theirs = {state["id"] for state in self.book.sessions(user_id=user_id)}
        assert {session_id for session_id in self.book.talks if store.for_user(user_id).exists(session_id)} == theirs

    @rule(number=st.integers(0, 1))
    def count(self, number: int) -> None:
        store, living = self.stores[number], self.book.living()
        users = {user.user_id: (user.sessions, user.messages) for user in store.users().items}
        assert users == self.book.users()
        stats = store.stats()
        assert (stats.sessions, stats.users) == (len(living), len(self.book.users()))
        assert stats.messages == sum(talk.state["message_count"] for talk in living)
        assert stats.position == store.position

    @rule(number=st.integers(0, 1))
    def read_the_log(self, number: int) -> None:
        events = list(self.stores[number].events())
        assert [event.position for event in events] == sorted({event.position for event in events})
        assert len(events) == self.book.events()

    @invariant()
    def what_was_touched_is_as_the_model_says(self) -> None:
        for session_id in self.touched:
            if self.alive(session_id):
                session, talk = self.store.get(session_id), self.talk(session_id)
                self.agrees(session)
                told(session.history(), talk.messages)
                everything = [message.message_id for message in session.history(include_removed=True)]
                assert everything == talk.now["ever"]
        self.touched.clear()

    @invariant()
    def the_list_of_sessions_is_as_the_model_says(self) -> None:
        summarised(self.stores[1].sessions(limit=100).items, self.book.sessions())


def told(messages: list[Any], expected: list[Any]) -> None:
    """Require these messages."""
    wanted = [{name: value for name, value in message.items() if name != "place"} for message in expected]
    found = plain(messages)
    assert same(found, wanted), (found, wanted)


def summarised(found: list[SessionSummary], states: list[dict[str, Any]]) -> None:
    """Require these sessions, in this order."""
    wanted = [
        {name: state["id" if name == "session_id" else name] for name in SessionSummary.__struct_fields__}
        for state in states
    ]
    assert same(plain(found), wanted), (plain(found), wanted)


def _refuse() -> None:
    from tests.machine.talk import Refused

    raise Refused(InvalidInput)
