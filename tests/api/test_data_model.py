"""Data checked by an application's pydantic model."""

import sys
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    ValidationInfo,
    computed_field,
    field_serializer,
    field_validator,
    model_validator,
)

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


class Loose(BaseModel):
    any: Any = None
    table: dict[str, Any] = {}
    numbers: list[float] = []


class Left(BaseModel):
    note: str = Field("", exclude=True)
    price: float = 0.0
    day: date | None = None
    key: SecretStr = SecretStr("")

    @field_serializer("price")
    def rounded(self, value: float) -> float:
        """Round to cents."""
        return round(value, 2)

    @field_serializer("day")
    def german(self, value: date) -> str:
        """Write what pydantic does not read."""
        return value.strftime("%d.%m.%Y")


class Thing:
    """Something without a JSON form."""


class Arbitrary(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    thing: Thing | None = None


def nested(levels: int) -> list[object]:
    """Return lists in lists."""
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


def cyclic() -> list[object]:
    """Return a list that holds itself."""
    value: list[object] = []
    value.append(value)
    return value


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("model", "given", "field"),
    [
        (Loose, {"any": NAN}, "any"),
        (Loose, {"any": INFINITE}, "any"),
        (Loose, {"any": {"x": [1, NAN]}}, "any.x[1]"),
        (Loose, {"table": {"x": -INFINITE}}, "table.x"),
        (Loose, {"numbers": [1.0, NAN]}, "numbers[1]"),
        (Loose, {"any": {1}}, "any"),
        (Loose, {"any": [(1,)]}, "any[0]"),
        (Loose, {"any": b"x"}, "any"),
        (Loose, {"any": {1: "x"}}, "any"),
        (Loose, {"table": {"x": date(2026, 5, 1)}}, "table.x"),
        (Loose, {"any": Thing()}, "any"),
        (Loose, {"any": cyclic()}, "any"),
        (Loose, {"any": nested(3_000)}, "any"),
        (Loose, {"any": nested(64)}, "any" + 64 * "[0]"),
        (Loose, {"any": 10 ** (sys.get_int_max_str_digits() + 1)}, "any"),
        (Strict, {"day": "2026-05-01"}, "day"),
        (Strict, {"raw": b"\xff"}, "raw"),
        (Validated, {"end": 3}, "end"),
        (Validated, {"end": 1, "start": 2}, "end"),
        (Validated, {"name": "x", "code": "b"}, "code"),
        (Validated, {"code": "b", "name": "x"}, "code"),
        (Validated, {"name": "x", "tags": "a,b"}, "tags"),
        (Validated, {"greeting": "x"}, "greeting"),
        (Arbitrary, {"thing": Thing()}, "thing"),
        (Left, {"note": "x"}, "note"),
        (Left, {"price": 1.234}, "price"),
        (Left, {"day": date(2026, 5, 13)}, "day"),
        (Left, {"key": "hunter2"}, "key"),
        (Ticket, {"partySize": 2, "party_size": 3}, "party_size"),
        (Ticket, {"theSeat": {"rowNumber": "x"}}, "seat.rowNumber"),
    ],
)
def test_what_json_would_change_is_refused_by_name(
    store: ConversationStore, model: type[BaseModel], given: dict[str, object], field: str
) -> None:
    """Nothing is lost, falsified or stored past reading, and no error is any other than ``InvalidInput``."""
    session = store.session("s-1", data_model=model)
    with pytest.raises(InvalidInput) as raised:
        session.collect(given)
    assert raised.value.field == f"values.{field}"
    assert "hunter2" not in str(raised.value)
    assert (session.version, session.data) == (1, {})


class Ignoring(Table):
    model_config = ConfigDict(extra="ignore")


class Allowing(Table):
    model_config = ConfigDict(extra="allow")


class Tables(RootModel[dict[str, Table]]):
    pass


class Room(BaseModel):
    table: Table | None = None
    tables: Sequence[Table] = []
    named: Tables | None = None
    ignoring: Ignoring | None = None
    allowing: Allowing | None = None
    seat: Seat | None = None


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"table": {"number": 1, "colour": "red"}}, "table.colour"),
        ({"tables": [{"number": 1}, {"number": 2, "colour": "red"}]}, "tables[1].colour"),
        ({"named": {"x": {"number": 1, "colour": "red"}}}, "named.x.colour"),
        ({"seat": {"rowNumber": 1, "neighbours": [{"rowNumber": 1, "colour": "red"}]}}, "seat.neighbours[0].colour"),
        ({"allowing": {"number": 1, "colour": {"red"}}}, "allowing.colour"),
    ],
)
def test_a_nested_field_that_is_not_known_is_refused(
    store: ConversationStore, given: dict[str, object], field: str
) -> None:
    """What a nested model would drop without a word is named."""
    session = store.session("s-1", data_model=Room)
    with pytest.raises(InvalidInput) as raised:
        session.collect(given)
    assert raised.value.field == f"values.{field}"


def test_a_nested_model_says_itself_what_is_extra(store: ConversationStore) -> None:
    """With ``extra`` set, a nested model keeps or drops as it says."""
    given = {"number": 1, "colour": "red"}
    session = store.session("s-1", data_model=Room)
    session.collect(ignoring=given, allowing=given, named={"x": {"number": 1}})
    table = {"number": 1, "kind": "inside"}
    assert session.data == {"ignoring": table, "allowing": {**table, "colour": "red"}, "named": {"x": table}}
    assert isinstance(session.data_as(), Room)


class Unfinished(BaseModel):
    later: "Nowhere"  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


@pytest.mark.parametrize("model", [Unfinished, RootModel[int], RootModel[Table], BaseModel, int])
def test_what_is_no_model_with_fields_is_refused(store: ConversationStore, model: type[BaseModel]) -> None:
    """A model that pydantic cannot build, one without fields by name, and what is no model."""
    with pytest.raises(InvalidInput) as raised:
        store.session("s-1", data_model=model)
    assert raised.value.field == "data_model"
    assert not store.exists("s-1")


def test_a_type_that_pydantic_does_not_know_does_not_hinder_other_fields(store: ConversationStore) -> None:
    """A model with arbitrary types can be given; only such a value cannot be stored."""
    session = store.session("s-1", data={"thing": None}, data_model=Arbitrary)
    assert session.data_as() == Arbitrary(thing=None)


class Area(BaseModel):
    model_config = ConfigDict(extra="forbid")

    kind: Literal["area"]
    width: int

    @computed_field  # type: ignore[prop-decorator]
    @property
    def square(self) -> int:
        """The area, which is none of the fields."""
        return self.width**2


class Spot(BaseModel):
    kind: Literal["spot"]
    x: int = Field(validation_alias=AliasPath("at", "x"))
    note: str = ""

    @model_validator(mode="before")
    @classmethod
    def remark(cls, data: dict[str, object]) -> dict[str, object]:
        """Take ``remark`` for ``note``."""
        return {"note" if key == "remark" else key: value for key, value in data.items()}


class Place(BaseModel):
    model_config = ConfigDict(defer_build=True)

    area: Area | None = None
    spot: Spot | None = None
    either: Annotated[Area | Spot, Field(discriminator="kind")] | None = None


def test_nested_models_read_and_write_themselves(store: ConversationStore) -> None:
    """Keys that a nested model's validators or aliases use are not unknown, computed fields are not stored."""
    session = store.session("s-1", data_model=Place)
    spot = {"kind": "spot", "at": {"x": 1}, "remark": "here"}
    session.collect(area={"kind": "area", "width": 2}, spot=spot, either=spot)
    kept = {"kind": "spot", "x": 1, "note": "here"}
    assert session.data == {"area": {"kind": "area", "width": 2}, "spot": kept, "either": kept}
    assert session.data_as() == Place.model_validate(
        {"area": {"kind": "area", "width": 2}, "spot": spot, "either": spot}
    )


def test_a_tag_that_is_not_known_is_not_quoted(store: ConversationStore) -> None:
    """The refusal names the tags that are expected."""
    session = store.session("s-1", data_model=Place)
    with pytest.raises(InvalidInput, match=r"values\.either: expected 'kind' .*'area', 'spot'") as raised:
        session.collect(either={"kind": "hunter2"})
    assert "hunter2" not in str(raised.value)
