"""Data checked by an application's pydantic model."""

from datetime import date
from enum import StrEnum
from typing import Annotated

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from turnlog import ConversationStore, InvalidInput, Session


class Kind(StrEnum):
    INSIDE = "inside"
    OUTSIDE = "outside"


class Table(BaseModel):
    number: int
    kind: Kind = Kind.INSIDE


class Booking(BaseModel):
    party_size: Annotated[int, Field(ge=1, le=20)]
    day: date
    name: str = "guest"
    table: Table | None = None

    @field_validator("name")
    @classmethod
    def no_digits(cls, value: str) -> str:
        """Refuse digits."""
        if any(char.isdigit() for char in value):
            raise ValueError("a name has no digits")
        return value.title()


@pytest.fixture
def booking(store: ConversationStore) -> Session:
    """A session whose data is a booking."""
    return store.session("s-1", data_model=Booking)


def test_each_given_field_is_checked_alone_and_stored_as_json(store: ConversationStore, booking: Session) -> None:
    """Fields come one by one; what is stored is their JSON form, and data stays a dict."""
    booking.collect(day=date(2026, 5, 1))
    booking.collect(party_size="4", table=Table(number=7, kind=Kind.OUTSIDE))
    assert booking.data == {"day": "2026-05-01", "party_size": 4, "table": {"number": 7, "kind": "outside"}}
    assert store.get("s-1").data == booking.data


def test_missing_names_the_required_fields_that_are_lacking(booking: Session) -> None:
    """In the model's order; fields with a default are not missing."""
    assert booking.missing == ("party_size", "day")
    booking.collect(day="2026-05-01")
    assert booking.missing == ("party_size",)
    with pytest.raises(InvalidInput, match="party_size"):
        booking.data_as()
    booking.collect(party_size=2)
    assert booking.missing == ()
    assert booking.data_as() == Booking(party_size=2, day=date(2026, 5, 1))
    booking.discard("day")
    assert booking.missing == ("day",)


def test_a_turn_is_seen_by_the_model(booking: Session) -> None:
    """Inside a turn what was collected counts."""
    with booking.turn():
        booking.collect(party_size=2, day="2026-05-01")
        assert booking.missing == ()
        assert isinstance(booking.data_as(), Booking)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"party_size": 0}, "values.party_size"),
        ({"party_size": "many"}, "values.party_size"),
        ({"day": "someday"}, "values.day"),
        ({"table": {"number": "x"}}, "values.table.number"),
        ({"colour": "red"}, "values.colour"),
        ({"name": "x\ud800"}, "values.name"),
        ({"name": "R2D2"}, "values.name"),
        ({"party_size": None}, "values.party_size"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_by_name(booking: Session, given: dict[str, object], field: str) -> None:
    """A wrong value, an unknown field, and what the model's own validators refuse; nothing of it is written."""
    with pytest.raises(InvalidInput) as raised:
        booking.collect({"day": "2026-05-01", **given})
    assert raised.value.field == field
    assert (booking.version, booking.data) == (1, {})


def test_initial_data_is_checked_too(store: ConversationStore) -> None:
    """A session does not begin with data that does not fit, and JSON forms are made of what does."""
    with pytest.raises(InvalidInput, match=r"data\.party_size"):
        store.session("s-1", data={"party_size": 99}, data_model=Booking)
    assert not store.exists("s-1")
    session = store.session("s-1", data={"day": date(2026, 5, 1)}, data_model=Booking)
    assert session.data == {"day": "2026-05-01"}


def test_a_model_is_of_the_handle(store: ConversationStore, booking: Session) -> None:
    """Another handle may have another model, or none: then any JSON is taken."""
    store.get("s-1").collect(colour="red")
    assert booking.refresh().data == {"colour": "red"}
    assert store.get("s-1", data_model=Booking).missing == ("party_size", "day")


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    party_size: int = Field(alias="partySize")


def test_fields_go_by_their_names(store: ConversationStore) -> None:
    """Data is kept under the fields' names, whatever aliases the model has for other uses."""
    session = store.session("s-1", data_model=Aliased)
    session.collect(party_size=3)
    assert (session.data, session.missing) == ({"party_size": 3}, ())
    assert getattr(session.data_as(), "party_size", None) == 3


def test_nothing_of_a_secret_value_is_in_the_refusal(booking: Session) -> None:
    """The refusal names the field and what was expected, not what was given."""
    with pytest.raises(InvalidInput) as raised:
        booking.collect(party_size="hunter2")
    assert "hunter2" not in str(raised.value)
