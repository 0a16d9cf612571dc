"""Data checked by an application's pydantic model: what JSON would change, models inside models, and what is none."""

import sys
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import (
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    computed_field,
    field_serializer,
    model_validator,
)

from tests.api import test_data_model
from tests.api.test_data_model import Seat, Strict, Table, Ticket, Validated
from turnlog import ConversationStore, InvalidInput

url = test_data_model.url


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
