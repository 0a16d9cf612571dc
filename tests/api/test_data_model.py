"""Data checked by an application's pydantic model."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

import pytest
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from tests.conftest import place
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


@pytest.fixture(params=["memory", "sqlite"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """A store in memory and in a file: what a model says has been heard before anything is stored."""
    yield from place(request, request.param)


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


def missing(session: Session) -> tuple[str, ...]:
    """Return the required fields that are lacking by now."""
    return session.missing


def test_missing_names_the_required_fields_that_are_lacking(booking: Session) -> None:
    """In the model's order; fields with a default are not missing."""
    assert missing(booking) == ("party_size", "day")
    booking.collect(day="2026-05-01")
    assert missing(booking) == ("party_size",)
    with pytest.raises(InvalidInput, match="party_size"):
        booking.data_as()
    booking.collect(party_size=2)
    assert missing(booking) == ()
    assert booking.data_as() == Booking(party_size=2, day=date(2026, 5, 1))
    booking.discard("day")
    assert missing(booking) == ("day",)


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
    assert session.data_as() == Aliased.model_validate({"partySize": 3})


def test_nothing_of_a_secret_value_is_in_the_refusal(booking: Session) -> None:
    """The refusal names the field and what was expected, not what was given."""
    with pytest.raises(InvalidInput) as raised:
        booking.collect(party_size="hunter2")
    assert "hunter2" not in str(raised.value)


class Seat(BaseModel):
    row_number: int = Field(alias="rowNumber")
    neighbours: "list[Seat]" = []


class Ticket(BaseModel):
    party_size: int = Field(alias="partySize")
    price: Decimal = Field(Decimal(0), validation_alias=AliasChoices("cost", "price_eur"))
    seat: Seat | None = Field(None, alias="theSeat")


@pytest.mark.parametrize(
    "given",
    [
        {"party_size": 2, "price": "9.50", "seat": {"row_number": 1, "neighbours": [{"row_number": 2}]}},
        {"partySize": 2, "cost": "9.50", "theSeat": {"rowNumber": 1, "neighbours": [{"row_number": 2}]}},
        {"partySize": 2, "price_eur": "9.50", "seat": {"row_number": 1, "neighbours": [{"rowNumber": 2}]}},
    ],
)
def test_aliases_are_taken_and_names_are_kept(store: ConversationStore, given: dict[str, object]) -> None:
    """Fields and nested fields are given by name or alias, kept by name, and read as the model."""
    session = store.session("s-1", data_model=Ticket)
    session.collect(given)
    seat: dict[str, object] = {"row_number": 1, "neighbours": [{"row_number": 2, "neighbours": []}]}
    assert session.data == {"party_size": 2, "price": "9.50", "seat": seat}
    assert session.missing == ()
    assert session.data_as() == Ticket.model_validate(
        {"partySize": 2, "cost": "9.50", "theSeat": {"rowNumber": 1, "neighbours": [{"rowNumber": 2}]}}
    )


class Crossed(BaseModel):
    first: str = Field(alias="second")
    second: str = Field(alias="third")


def test_a_name_goes_before_another_fields_alias(store: ConversationStore) -> None:
    """Where one field's alias is another's name, the name wins, at collecting and at reading."""
    session = store.session("s-1", data_model=Crossed)
    session.collect(second="b")
    assert session.data == {"second": "b"}
    session.collect(first="a")
    assert session.data_as() == Crossed.model_validate({"second": "a", "third": "b"})


class Validated(BaseModel):
    model_config = ConfigDict(str_strip_whitespace=True)

    number: int = 0
    name: str = ""
    start: int = 0
    end: int = 0
    code: str = ""
    tags: list[str] = []
    greeting: str = ""

    @field_validator("number", mode="before")
    @classmethod
    def words(cls, value: object) -> object:
        """Take a word for a number."""
        return 2 if value == "two" else value

    @field_validator("end")
    @classmethod
    def after_start(cls, value: int, info: ValidationInfo) -> int:
        """Refuse an end before the start."""
        if value < info.data["start"]:
            raise ValueError("ends before it starts")
        return value

    @field_validator("code")
    @classmethod
    def known(cls, value: str) -> str:
        """Raise ``KeyError`` for a code that is not known."""
        return {"a": "a"}[value]

    @field_validator("tags", mode="before")
    @classmethod
    def split(cls, value: str) -> list[str]:
        """Take text only: the list that is stored cannot be read back."""
        return value.split(",")

    @field_validator("greeting")
    @classmethod
    def greet(cls, value: str) -> str:
        """Say hello once more each time."""
        return f"hello {value}"


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    day: date
    seats: set[int] = set()
    raw: bytes = b""


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)

    a: int
    b: int = Field(2, frozen=True)


class Fallback(BaseModel):
    start: int | None = None
    end: int
    length: int = Field(default_factory=lambda data: data["start"] + 1)

    @model_validator(mode="before")
    @classmethod
    def named(cls, data: dict[str, object]) -> dict[str, object]:
        """Need a field that may not be there."""
        return {**data, "start": data["start"]}

    @model_validator(mode="after")
    def in_order(self) -> "Fallback":
        """Compare fields that may not be there."""
        if self.start is not None and self.start > self.end:
            raise ValueError("ends before it starts")
        return self


class Choice(BaseModel):
    when: date | str = ""
    days: list[date | str] = []


class Written(BaseModel):
    day: date | None = None
    key: SecretStr = SecretStr("")

    @field_serializer("day")
    def week(self, value: date) -> str:
        """Write it the way of this model."""
        return value.strftime("%Y-%m-%dT00:00:00")

    @field_serializer("key", when_used="json")
    def reveal(self, value: SecretStr) -> str:
        """Write what is secret."""
        return value.get_secret_value()


@pytest.mark.parametrize(
    ("model", "given", "data"),
    [
        (Validated, {"number": "two"}, {"number": 2}),
        (Validated, {"name": "  Ada "}, {"name": "Ada"}),
        (Validated, {"end": 3, "start": 2}, {"end": 3, "start": 2}),
        (Strict, {"day": date(2026, 5, 1)}, {"day": "2026-05-01"}),
        (
            Strict,
            {"day": date(2026, 5, 1), "seats": {7}, "raw": b"x"},
            {"day": "2026-05-01", "seats": [7], "raw": "x"},
        ),
        (Frozen, {"a": 1, "b": 3}, {"a": 1, "b": 3}),
        (Fallback, {"start": 1, "end": 2, "length": 1}, {"start": 1, "end": 2, "length": 1}),
        (Choice, {"when": "2026-05-01"}, {"when": "2026-05-01"}),
        (Choice, {"when": "tomorrow"}, {"when": "tomorrow"}),
        (Choice, {"days": ["2026-05-01", date(2026, 5, 2)]}, {"days": ["2026-05-01", "2026-05-02"]}),
        (Written, {"day": date(2026, 5, 1)}, {"day": "2026-05-01T00:00:00"}),
        (Written, {"key": "hunter2"}, {"key": "hunter2"}),
    ],
)
def test_what_the_model_says_of_a_field_holds(
    store: ConversationStore, model: type[BaseModel], given: dict[str, object], data: dict[str, object]
) -> None:
    """Validators of every mode, configuration and serializers; the data can be read as the model, and given again."""
    session = store.session("s-1", data_model=model)
    session.collect(given)
    assert session.data == data
    assert session.data_as().model_dump(mode="json", include=set(data), warnings=False) == data
    assert session.collect(given).event_ids == ()


def test_what_the_model_says_of_the_whole_waits_for_the_whole(store: ConversationStore) -> None:
    """A field is collected alone, whatever the model's validators and defaults would raise; ``data_as`` tells."""
    session = store.session("s-1", data_model=Fallback)
    session.collect(end=1)
    assert (session.data, session.missing) == ({"end": 1}, ())
    with pytest.raises(InvalidInput, match=r"data: .*KeyError"):
        session.data_as()
    session.collect(start=2)
    with pytest.raises(InvalidInput, match="ends before it starts"):
        session.data_as()
    session.collect(end=3)
    assert session.data_as() == Fallback.model_validate({"start": 2, "end": 3, "length": 3})
