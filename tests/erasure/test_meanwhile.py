"""A session that is erased while another call is reading it."""

from typing import Any, cast

import pytest

import turnlog
from turnlog import SessionGone
from turnlog.index import Index
from turnlog.store import decider_of
from turnlog.testing import Faults, faulty

READS = ("select_stream", "select_snapshot")


@pytest.mark.parametrize("before", [(name, n) for name in READS for n in range(1, 4)])
def test_a_search_that_reads_it(sqlite_url: str, before: tuple[str, int]) -> None:
    """Before whichever of its reads that happens, nothing is found, or all of it, and nobody calls the log corrupt."""

    def erase(_: float) -> None:
        with turnlog.open(sqlite_url) as other:
            other.erase_user("alice")

    faults = Faults(sleep=erase)
    with turnlog.open(faulty(sqlite_url, faults)) as store:
        session = store.session("s", user_id="alice")
        for n in range(5):
            session.add_message("user", f"{n}", message_id=f"m-{n}")
        session.edit_message("m-1", "one")
        reader = Index(decider_of(store), cast("Any", None), cast("Any", None), 1.0)
        faults.delay(before[0], 1.0, at=before[1])
        found = [message.content for _, message in reader.live_messages("s").messages]
        assert found in ([], ["4", "3", "2", "one", "0"])
        erase(0)
        assert reader.live_messages("s").messages == []


def test_another_erases_the_only_session(sqlite_url: str) -> None:
    """To erase a user finds nothing left to do, and says so; to delete that session is refused."""

    def erase(_: float) -> None:
        with turnlog.open(sqlite_url) as other:
            other.erase_user("alice")

    faults = Faults(sleep=erase)
    with turnlog.open(faulty(sqlite_url, faults)) as store:
        store.session("first", user_id="alice")
        faults.delay("append", 1.0)
        report = store.erase_user("alice")
        assert (report.sessions, report.events) == (0, 0)
        second = store.session("second", user_id="alice")
        faults.delay("append", 1.0)
        with pytest.raises(SessionGone, match="'second' was deleted"):
            second.delete()


@pytest.mark.parametrize("others", [["first"], []], ids=["another", "none"])
def test_the_active_session_is_deleted(sqlite_url: str, others: list[str]) -> None:
    """Between being looked up and being read: then it is another one that is active, or none."""

    def delete(_: float) -> None:
        with turnlog.open(sqlite_url) as other:
            other.get("second").delete()

    faults = Faults(sleep=delete)
    with turnlog.open(faulty(sqlite_url, faults)) as store:
        for session_id in (*others, "second"):
            store.session(session_id, user_id="alice")
        faults.delay("select_snapshot", 1.0)
        active = store.active_session("alice")
        assert (active and active.id) == (others[0] if others else None)
