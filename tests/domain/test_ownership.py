"""Starting a session, and whose it is."""

import pytest

from turnlog.domain import commands as c
from turnlog.domain import events as e
from turnlog.domain.errors import NotOwner
from turnlog.domain.session import initial
from turnlog.domain.values import SessionState
from turnlog.testing.scenario import at, given, started, state_of


def test_starting_stores_all_it_was_given() -> None:
    """Every initial value is in the first event, and in the state after it."""
    command = c.StartSession(
        user_id="alice",
        agent="bot",
        data={"a": 1},
        context={"b": 2},
        metadata={"c": 3},
        continued_from="s-9",
    )
    after = (
        given()
        .when(command)
        .then(
            e.SessionStarted(
                user_id="alice",
                agent="bot",
                data={"a": 1},
                context={"b": 2},
                metadata={"c": 3},
                continued_from="s-9",
            )
        )
    )
    assert after == SessionState(
        id="s-1",
        tenant="default",
        user_id="alice",
        agent="bot",
        data={"a": 1},
        context={"b": 2},
        metadata={"c": 3},
        continued_from="s-9",
        created_at=at(1),
        updated_at=at(1),
        version=1,
    )


def test_a_fork_knows_where_it_was_taken_from() -> None:
    """The point of the fork is a field of the first event, and of the state."""
    point = e.ForkPoint(session_id="s-0", version=7)
    assert given(e.SessionStarted(forked_from=point)).state.forked_from == point


def test_a_session_may_start_with_nothing() -> None:
    """Nobody's session, active and empty."""
    after = given().when(c.StartSession()).then(e.SessionStarted())
    assert after == SessionState(id="s-1", tenant="default", created_at=at(1), updated_at=at(1), version=1)


def test_what_was_never_started_is_version_0() -> None:
    """The empty stream has a state too, without times."""
    state = initial("default", "s-1")
    assert (state.version, state.created_at, state.updated_at, state.deleted) == (0, None, None, False)


@pytest.mark.parametrize("user_id", [None, "alice"])
def test_starting_an_existing_session_ignores_the_initial_values(user_id: str | None) -> None:
    """Get or create: for its owner, or for somebody who does not say who he is, it is there already."""
    command = c.StartSession(user_id=user_id, agent="other", data={"a": 9}, metadata={"b": 9}, continued_from="s-3")
    started().when(command).nothing()


def test_another_user_is_refused_without_being_told_whose_it_is() -> None:
    """NotOwner names the session and not its owner."""
    outcome = started().when(c.StartSession(user_id="bob"))
    outcome.refused(NotOwner, "'s-1'")
    assert "alice" not in str(outcome.error)


def test_an_ownerless_session_belongs_to_the_first_who_names_himself() -> None:
    """He becomes the owner by an event of its own; the next one is refused."""
    nobodys = given(e.SessionStarted())
    after = nobodys.when(c.StartSession(user_id="alice", data={"a": 1})).then(e.OwnerAssigned(user_id="alice"))
    assert (after.user_id, after.data) == ("alice", {})
    given(e.SessionStarted(), e.OwnerAssigned(user_id="alice")).when(c.StartSession(user_id="bob")).refused(NotOwner)
    nobodys.when(c.StartSession()).nothing()


def test_assigning_the_owner_again_is_no_event() -> None:
    """The owner stays the owner; another one takes over, and can then be the one who asks."""
    started().when(c.AssignOwner("alice")).nothing()
    assert started().when(c.AssignOwner("bob")).then(e.OwnerAssigned(user_id="bob")).user_id == "bob"
    started(e.OwnerAssigned(user_id="bob")).when(c.StartSession(user_id="bob")).nothing()
    started(e.OwnerAssigned(user_id="bob")).when(c.StartSession(user_id="alice")).refused(NotOwner)


def test_deleting_closes_for_ever_and_says_when() -> None:
    """The tombstone is the last event; the time it was recorded is the session's last."""
    after = started().when(c.DeleteSession()).then(e.SessionDeleted())
    assert (after.deleted, after.updated_at, after.version) == (True, at(2), 2)


def test_events_whose_content_is_gone_keep_their_place_and_time() -> None:
    """Erased events count as versions and tell nothing else."""
    after = state_of(e.Erased("SessionStarted.v1"), e.Erased("MessageAdded.v1"), e.Erased("DataCollected.v1"))
    assert after == SessionState(id="s-1", tenant="default", updated_at=at(3), version=3)


def test_no_erased_event_undoes_a_deletion() -> None:
    """A tombstone is final, whatever a damaged log may hold after it."""
    assert state_of(e.Erased("SessionStarted.v1"), e.SessionDeleted(), e.Erased("MessageAdded.v1")).deleted
