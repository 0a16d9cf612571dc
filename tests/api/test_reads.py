"""How often the log is read: a page is read at once, not message by message."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

import pytest

import turnlog
from turnlog import ConversationStore
from turnlog.adapters.memory import MemoryRecorder
from turnlog.testing import Faults, faulty

READS = ("select_keys", "select_all_keys", "select_snapshot", "select_stream", "select_versions", "select_log")
"""What each takes a server a round trip; the position is asked for besides."""


Counted: TypeAlias = tuple[ConversationStore, Callable[[], dict[str, int]]]


@pytest.fixture
def counted() -> Iterator[Counted]:
    """A store with messages of alice's in three sessions, brought up to date, and the reads since asked for last."""
    faults = Faults()
    with turnlog.open(faulty("memory://", faults)) as store:
        for name in ("s-1", "s-2", "s-3"):
            session = store.session(name, user_id="alice")
            session.set_history([{"role": "user", "content": f"table {n} of {name}"} for n in range(4)])
            for n in range(8):
                session.add_message("user", f"table for {n}", message_id=f"m-{n}")
            session.edit_message("m-6", "table for six")
            session.add_message("assistant", "one moment", command_id="k")
        assert len(store.search("table", limit=99).items) == 36
        store.messages(user_id="alice")

        def reads() -> dict[str, int]:
            found = {name: faults.calls[name] for name in READS if faults.calls[name]}
            faults.calls.clear()
            return found

        reads()
        yield store, reads


def test_a_page_of_messages_takes_one_read(
    counted: Counted,
) -> None:
    """Of three sessions, edited and replaced ones among them: the page is what their histories say."""
    store, reads = counted
    page = store.messages(user_id="alice", limit=20)
    assert reads() == {"select_versions": 1}
    newest_first = [message for n in (3, 2, 1) for message in store.get(f"s-{n}").history()[::-1]]
    assert page.items == newest_first[:20]
    reads()
    rest = store.messages(user_id="alice", limit=20, cursor=page.next_cursor)
    assert reads() == {"select_versions": 1}
    assert [*page.items, *rest.items] == newest_first
    assert store.messages(user_id="bob", limit=20).items == []


def test_a_page_of_hits_takes_one_read(counted: Counted) -> None:
    """Where all candidates match; the next page goes on."""
    store, reads = counted
    page = store.search("table", limit=20)
    assert reads() == {"select_versions": 1}
    assert len(page.items) == 20
    assert store.search("six").items[0].message.content == "table for six"


def test_a_repetition_reads_its_event_once(counted: Counted) -> None:
    """Besides the key, and whether the session has gone on."""
    store, reads = counted
    first = store.get("s-1").add_message("assistant", "one moment", command_id="k")
    session = store.get("s-1")
    reads()
    assert session.add_message("assistant", "one moment", command_id="k") == first
    assert reads() == {"select_keys": 1, "select_stream": 2}


def test_verifying_reads_what_keys_lead_to_at_once(
    counted: Counted,
) -> None:
    """Of eight messages with ids of their own, and a command."""
    store, reads = counted
    assert store.verify("s-1").ok
    assert reads()["select_versions"] == 1


@pytest.mark.parametrize("at", [0, 1], ids=["before", "halfway"])
def test_what_is_erased_while_a_page_is_read_is_left_out(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the first wording of a message was read before, and its edit only after: the rest is answered."""
    select = MemoryRecorder.select_versions
    with turnlog.open("memory://") as store:
        gone = store.session("gone", user_id="alice")
        gone.add_message("user", "first", message_id="m-1")
        gone.edit_message("m-1", "edited")
        store.session("other", user_id="alice").add_message("user", "there")
        assert len(store.messages(user_id="alice").items) == 2

        def meanwhile(recorder: MemoryRecorder, wanted: Sequence[tuple[str, int]]) -> dict[Any, Any]:
            monkeypatch.undo()
            asked = iter(wanted)
            found = select(recorder, list(islice(asked, 2 * at)))
            gone.delete()
            return found | select(recorder, list(asked))

        monkeypatch.setattr(MemoryRecorder, "select_versions", meanwhile)
        assert [message.content for message in store.messages(user_id="alice").items] == ["there"]
