"""The same history on two backends gives the same answers: receipts, refusals, states, histories, lists."""

import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import turnlog
from tests.servers import Server
from turnlog import ConversationStore, Message, Receipt, Session, TurnlogError
from turnlog.testing.machine import commands
from turnlog.testing.machine.commands import Said
from turnlog.testing.machine.plainly import exact, is_dict, is_sequence, plain

_turns = st.lists(
    st.tuples(st.sampled_from(commands.IDS), st.lists(commands.said, min_size=1, max_size=4)), max_size=12
)
_DIFFERENT = ("hash", "durability", "size_bytes")
"""What differs from store to store: hashes, for their salt, and what a storage says of itself."""


@pytest.fixture(scope="module", params=["postgresql", "mariadb", "redis", "mongodb"])
def server(request: pytest.FixtureRequest) -> Server:
    """A server of each kind."""
    started: Server = request.getfixturevalue(request.param)
    return started


@given(turns=_turns)
@settings(max_examples=20)
def test_two_backends_give_the_same_answers(turns: list[tuple[str, list[Said]]]) -> None:
    """With the same clock and the same ids, everything a caller sees is the same in memory and on SQLite."""
    with tempfile.TemporaryDirectory(prefix="turnlog-answers-") as folder:
        assert answers("memory://", turns) == answers(f"sqlite:///{folder}/sessions.db", turns)


@given(turns=_turns)
@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_a_server_gives_the_same_answers(server: Server, turns: list[tuple[str, list[Said]]]) -> None:
    """Those too: one writer gets positions without gaps there as well."""
    url = server.new_place()
    assert answers("memory://", turns) == answers(url, turns)
    server.drop_place(url)


def answers(url: str, turns: list[tuple[str, list[Said]]]) -> list[str]:
    """Say all of it to a new store, and return all it answers."""
    clock, made = [datetime(2026, 1, 1, tzinfo=UTC)], iter(range(1_000_000))
    found: list[Any] = []
    with turnlog.open(url, durability="normal", clock=lambda: clock[0], new_id=lambda: f"id-{next(made):06}") as store:
        for n, (session_id, said) in enumerate(turns):
            clock[0] += timedelta(seconds=n % 3 - 1)
            there = store.exists(session_id)
            session = store.session(session_id, user_id=None if there else commands.USERS[n % 2])
            found += _answers(session, said)
            found += [session.state, session.history(), session.history(last=2), session.runs()]
        found += _seen(store)
        found += [store.session(session_id).fork(f"fork of {session_id}").state for session_id, _ in turns[:1]]
        found += [store.session(session_id).delete().version for session_id, _ in turns[:1]]
        found += _seen(store)
    return [exact(_same(plain(one))) for one in found]


def _seen(store: ConversationStore) -> list[Any]:
    """Return what queries say."""
    events = [[event.position, event.session_id, event.version, event.topic, event.event] for event in store.events()]
    lists = [store.sessions().items, store.sessions(status="active", limit=2).items, store.users().items]
    messages = [store.messages(user_id=user).items for user in commands.USERS]
    return [events, lists, messages, store.stats(), [head.version for head in store.heads()], store.verify()]


def _answers(session: Session, said: list[Said]) -> list[Any]:
    """Say it, an even number of commands as one turn, and return what is answered."""
    if len(said) % 2 == 0:
        return [_answer(lambda: _turn(session, said))]
    return [_single(session, one) for one in said]


def _single(session: Session, said: Said) -> Any:
    return _answer(lambda: commands.expecting(said, session.version).to(session))


def _turn(session: Session, said: list[Said]) -> Receipt:
    with session.turn() as turn:
        for one in said:
            one._replace(kwargs={k: v for k, v in one.kwargs.items() if k != "expected_version"}).to(session)
    return turn.receipt


def _answer(use: Callable[[], Receipt | Message | None]) -> Any:
    """Return what it gives, or the words of its refusal."""
    try:
        return use()
    except TurnlogError as error:
        return [type(error).__name__, str(error)]


def _same(value: Any) -> Any:
    """Return what must be the same."""
    if is_dict(value):
        return {key: _same(item) for key, item in value.items() if key not in _DIFFERENT}
    return [_same(item) for item in value] if is_sequence(value) else value
