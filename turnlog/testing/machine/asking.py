"""The state machine, whole: what it asks (the past, windows, lists over all sessions), and what always holds."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from turnlog import InvalidInput, Page
from turnlog.domain.values import STATUSES
from turnlog.testing.machine import commands
from turnlog.testing.machine.plainly import differences, fitting, plain, same, window
from turnlog.testing.machine.told import START, handles, places, summarised, told
from turnlog.testing.machine.turns import Turning

T = TypeVar("T")
_asked = st.sampled_from(["HELLO", "two, table", "👩", "hi", "nothing", "for for"])
_narrowed = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from(commands.USERS),
        "role": st.sampled_from(["user", "system", "tool"]),
        "route": st.sampled_from(commands.ROUTES),
    },
)
_stores = st.integers(0, 2)
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


class StoreMachine(Turning):
    """The store against a model of plain dicts and lists: whatever is said, both answer the same.

    A subclass says where: ``new_url``, perhaps ``opened`` and ``drop``. To run it, give its ``TestCase`` a name in a
    module of tests, or call Hypothesis's ``run_state_machine_as_test``.
    """

    @precondition(lambda self: self.book.living())
    @rule(place=places, number=handles, back=st.integers(0, 12))
    def look_back(self, place: int, number: int, back: int) -> None:
        session, talk = self.picked(place, number)
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
    @rule(place=places, number=handles, time=_times)
    def look_at_a_time(self, place: int, number: int, time: datetime) -> None:
        session, talk = self.picked(place, number)
        then = talk.past[talk.version_at(time)]
        assert same(plain(session.at(time=time)), then["state"])
        told(session.history(at=time), then["messages"])

    @precondition(lambda self: self.book.living())
    @rule(place=places, number=handles)
    def replay(self, place: int, number: int) -> None:
        session, talk = self.picked(place, number)
        n = 0
        for n, step in enumerate(session.replay(), 1):
            assert (step.event.version, step.event.recorded_at) == (n, talk.times[n])
            assert same(plain(step.before), talk.past[n - 1]["state"])
            assert same(plain(step.after), talk.past[n]["state"])
        assert n == talk.version

    @precondition(lambda self: self.book.living())
    @rule(place=places, number=handles, last=st.integers(0, 5), before=places)
    def look_through_a_window(self, place: int, number: int, last: int, before: int) -> None:
        session, talk = self.picked(place, number)
        messages = talk.messages
        told(session.history(last=last), window(messages, last))
        told(session.history(last=last, exact=True), messages[max(0, len(messages) - last) :])
        told(session.history(max_tokens=last, count=lambda _: 1), fitting(messages, last))
        if messages:
            before %= len(messages)
            message_id = messages[before]["message_id"]
            told(session.history(before=message_id, last=last), window(messages[:before], last))
            told([session.message(message_id)], [messages[before]])
        self.refuses(InvalidInput, lambda: session.history(before="nowhere"))

    @rule(number=_stores, wanted=_wanted, limit=st.integers(1, 4))
    def list_sessions(self, number: int, wanted: dict[str, Any], limit: int) -> None:
        store = self.stores[number]
        found = _paged(limit, lambda cursor: store.sessions(**wanted, limit=limit, cursor=cursor))
        summarised(found, self.book.sessions(**wanted))

    @rule(number=_stores, user_id=st.sampled_from(commands.USERS), limit=st.integers(1, 4))
    def list_messages(self, number: int, user_id: str, limit: int) -> None:
        store = self.stores[number]
        found = _paged(limit, lambda cursor: store.messages(user_id=user_id, limit=limit, cursor=cursor))
        told(found, self.book.messages(user_id))

    @rule(number=_stores, text=_asked, wanted=_narrowed, limit=st.integers(1, 4))
    def search(self, number: int, text: str, wanted: dict[str, Any], limit: int) -> None:
        store = self.stores[number]
        found = _paged(limit, lambda cursor: store.search(text, **wanted, limit=limit, cursor=cursor))
        told([hit.message for hit in found], self.book.search(text, **wanted))

    @rule(number=_stores, user_id=st.sampled_from(commands.USERS))
    def ask_for_a_user(self, number: int, user_id: str) -> None:
        store = self.stores[number]
        active = store.active_session(user_id)
        assert (None if active is None else active.id) == self.book.active(user_id)
        summarised(store.for_user(user_id).sessions().items, self.book.sessions(user_id=user_id))
        theirs = {state["id"] for state in self.book.sessions(user_id=user_id)}
        assert {session_id for session_id in self.book.talks if store.for_user(user_id).exists(session_id)} == theirs

    @rule(number=_stores)
    def count(self, number: int) -> None:
        store, living = self.stores[number], self.book.living()
        users = {user.user_id: (user.sessions, user.messages) for user in store.users().items}
        assert users == self.book.users()
        stats = store.stats()
        assert (stats.sessions, stats.users) == (len(living), len(self.book.users()))
        assert stats.messages == sum(talk.state["message_count"] for talk in living)
        assert stats.position == store.position

    @rule(number=_stores)
    def read_the_log(self, number: int) -> None:
        events = list(self.stores[number].events())
        assert [event.position for event in events] == sorted({event.position for event in events})
        assert len(events) == self.book.events()

    @invariant()
    def what_was_touched_is_as_the_model_says(self) -> None:
        for session_id in self.touched:
            talk = self.book.talks.get(session_id)
            if talk is not None and not talk.state["deleted"]:
                session = self.store.get(session_id)
                self.agrees(session)
                told(session.history(), talk.messages)
                ever = [message.message_id for message in session.history(include_removed=True)]
                assert ever == talk.now["ever"]
        self.touched.clear()

    @invariant()
    def the_list_of_sessions_is_as_the_model_says(self) -> None:
        summarised(self.stores[2].sessions(limit=100).items, self.book.sessions())


def _paged(limit: int, read: Callable[[str | None], Page[T]]) -> list[T]:
    """Read all pages."""
    page = read(None)
    found = list(page.items)
    while page.next_cursor is not None:
        assert len(page.items) == limit
        page = read(page.next_cursor)
        found += page.items
    assert len(page.items) <= limit
    return found
