"""Several handles of one session: nobody's writes are lost, and only what the rules then forbid is refused."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest

import turnlog
from turnlog import ConcurrencyConflict, ConversationStore, Receipt, Session, SessionClosed, SessionGone
from turnlog.writing import SessionWriter


def test_interleaved_writes_never_lose(store: ConversationStore, session: Session) -> None:
    """Each handle writes on what the other did, though it has not read it."""
    other = store.get("s-1")
    for n in range(10):
        session.add_message("user", f"a{n}")
        other.add_message("assistant", f"b{n}")
        session.collect({f"a{n}": n})
        other.collect({f"b{n}": n})
    assert [message.content for message in session.history()] == [f"{who}{n}" for n in range(10) for who in "ab"]
    assert len(store.get("s-1").data) == 20
    assert session.refresh().state == other.refresh().state


def test_a_handle_knows_what_it_last_read_or_wrote(store: ConversationStore, session: Session) -> None:
    """Properties stand still until the handle reads or writes; history and the past always read."""
    other = store.get("s-1")
    other.collect(n=1)
    other.add_message("user", "hi")
    assert (session.version, session.data) == (1, {})
    assert len(session.history()) == 1
    assert session.refresh() is session
    assert (session.version, session.data) == (3, {"n": 1})
    other.collect(n=2)
    session.enter_route("booking")
    assert (session.version, session.data) == (5, {"n": 2})


def test_what_another_made_superfluous_changes_nothing(store: ConversationStore, session: Session) -> None:
    """A command decided on old knowledge is decided again on the newest."""
    other = store.get("s-1")
    other.collect(n=1)
    receipt = session.collect(n=1)
    assert (receipt.event_ids, receipt.version, session.version) == ((), 2, 2)
    other.complete()
    with pytest.raises(SessionClosed):
        session.collect(n=2)
    other.reopen()
    assert session.collect(n=2).version == 5


def test_expected_version_refuses_instead_of_deciding_again(store: ConversationStore, session: Session) -> None:
    """A writer that must have seen everything is refused if it has not; one that has is not."""
    other = store.get("s-1")
    other.collect(n=1)
    for expected in (0, 1, 3):
        with pytest.raises(ConcurrencyConflict, match=f"at version 2, expected_version was {expected}"):
            session.collect(m=1, expected_version=expected)
    with pytest.raises(ConcurrencyConflict):
        session.collect(n=1, expected_version=1)
    assert session.collect(m=1, expected_version=2).version == 3


def test_what_handles_return_are_copies(session: Session) -> None:
    """Changing what was returned changes nothing, neither in the handle nor in the store."""
    session.collect(n=[1], deep={"a": {"b": []}})
    session.set_context({"c": [1]})
    session.add_message("user", [{"text": "hi"}], metadata={"m": [1]})
    state, data = session.state, session.data
    for values in (data, state.data, state.context):
        values["more"] = 1
    state.data["n"].append(2)
    data["deep"]["a"]["b"].append(2)
    state.context["c"].append(2)
    message = session.history()[0]
    message.content[0]["text"] = "ho"
    past = session.at(2)
    past.data["n"].append(3)
    expected: dict[str, object] = {"n": [1], "deep": {"a": {"b": []}}}
    assert (session.data, session.at(2).data, session.state.context) == (expected, expected, {"c": [1]})
    assert session.history()[0].content == [{"text": "hi"}]
    assert session.refresh().data == expected


def test_what_was_given_is_copied(session: Session) -> None:
    """Changing what was given afterwards changes nothing that was said."""
    values, parts, metadata, arguments = {"n": [1]}, [{"text": "hi"}], {"m": [1]}, {"x": [1]}
    with session.turn():
        session.collect(values)
        session.add_message("user", parts, metadata=metadata)
        session.call_tool("find", arguments)
        values["n"].append(2)
        parts[0]["text"] = "ho"
        metadata["m"].append(2)
        arguments["x"].append(2)
    message = session.history()[0]
    assert (session.data, message.content, message.metadata) == ({"n": [1]}, [{"text": "hi"}], {"m": [1]})
    (event,) = session.events(last=1)
    assert getattr(event.event, "arguments", None) == {"x": [1]}


def test_threads_share_a_handle(store: ConversationStore, session: Session) -> None:
    """Writes of threads on one handle are all there, versions dense."""
    barrier = threading.Barrier(4)

    def write(who: int) -> None:
        barrier.wait(30)
        for n in range(25):
            session.add_message("user", f"{who}-{n}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    said = [str(message.content) for message in session.history()]
    assert sorted(said) == sorted(f"{who}-{n}" for who in range(4) for n in range(25))
    for who in range(4):
        assert [one for one in said if one.startswith(f"{who}-")] == [f"{who}-{n}" for n in range(25)]
    assert [event.version for event in session.events()] == list(range(1, 102))
    assert store.verify().ok


def test_stores_of_several_threads_write_at_once(reopen: Callable[[], ConversationStore]) -> None:
    """Turns of racing writers are each whole; every receipt names its own events."""
    reopen().session("s-1")

    def write(who: int) -> list[tuple[int | None, int]]:
        session = reopen().get("s-1")
        receipts: list[tuple[int | None, int]] = []
        for n in range(15):
            with session.turn() as turn:
                session.add_message("user", f"{who}-{n}")
                session.collect({f"{who}": n})
            receipts.append((turn.receipt.version, len(turn.receipt.event_ids)))
        return receipts

    with ThreadPoolExecutor(4) as pool:
        receipts = [receipt for written in pool.map(write, range(4)) for receipt in written]
    assert sorted(receipts) == [(version, 2) for version in range(3, 122, 2)]
    session = reopen().get("s-1")
    assert session.data == {f"{who}": 14 for who in range(4)}
    assert all(event.turn == (1 + event.version % 2, 2) for event in session.events(after=1))


def test_ids_of_the_applications_own_making(url: str) -> None:
    """``new_id`` makes the ids of sessions, events, messages, calls and runs."""
    made: list[str] = []

    def new_id() -> str:
        made.append(f"id-{len(made)}")
        return made[-1]

    with turnlog.open(url, new_id=new_id) as store:
        session = store.session()
        ids = [session.id, session.add_message("user", "hi").message_id, session.start_run().run_id]
        ids += [session.call_tool("find", {}).call_id, *(event.event_id for event in session.events())]
        assert set(ids) <= set(made)
        assert len(set(ids)) == len(ids)


def test_gone_comes_before_any_other_refusal(store: ConversationStore, session: Session) -> None:
    """A deleted session says so whatever else is wrong with the command: the version it expects, what it names."""
    other = store.get("s-1")
    session.delete()
    uses: list[Callable[[Session], object]] = [
        lambda s: s.collect(n=1, expected_version=1),
        lambda s: s.collect(n=1, expected_version=7),
        lambda s: s.edit_message("nowhere", "hi", expected_version=7),
        lambda s: s.delete(expected_version=7),
        lambda s: s.reset(expected_version=7),
        lambda s: s.reset(command_id="k-1"),
    ]
    for handle in (session, other):
        for use in uses:
            with pytest.raises(SessionGone):
                use(handle)


@pytest.mark.parametrize("in_turn", [False, True])
def test_what_one_thread_decided_does_not_stand_on_what_another_wrote(
    session: Session, monkeypatch: pytest.MonkeyPatch, *, in_turn: bool
) -> None:
    """Between deciding and writing, another thread closes the session by the same handle: the message is refused."""
    write = SessionWriter.write
    closing: list[bool] = [True]

    def meanwhile_closed(self: SessionWriter, *args: Any, **kwargs: Any) -> Receipt:
        if closing:
            closing.clear()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(session.complete).result(30)
        return write(self, *args, **kwargs)

    monkeypatch.setattr(SessionWriter, "write", meanwhile_closed)
    with pytest.raises(SessionClosed), session.turn() if in_turn else nullcontext():
        session.add_message("user", "hi")
    assert [event.topic for event in session.events()] == ["SessionStarted.v1", "StatusChanged.v1"]
