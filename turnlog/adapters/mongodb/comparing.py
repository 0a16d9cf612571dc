"""Comparing two generations of a view's collection, document by document."""

from collections.abc import Iterator
from typing import Any, cast

from bson import ObjectId

from turnlog.adapters.differing import Renew, differing, renewing
from turnlog.adapters.mongodb.view_connection import ViewConnection
from turnlog.adapters.telling import Place

_KEY = ("stream", "ordinal")


def differences(
    ours: ViewConnection,
    theirs: ViewConnection,
    name: str,
    place: Place,
    renew: Renew,
    *,
    in_order: bool,
) -> Iterator[str]:
    """Say in words in which documents they differ, without what stands in them; ``renew`` is called now and then.

    ``in_order``: their ids are those of sessions and messages, in whose order they are read. Others, whose ids may be
    made anew in each generation, are told apart by all else that they hold, and sorted in memory.
    """
    place_columns = (place.tenant_column, place.session_column)
    columns = (*_KEY, *place_columns, "what it holds") if in_order else ("words", *place_columns)
    rows = _in_order if in_order else _sorted
    width = len(columns) - 1 if in_order else len(columns)
    built = renewing(rows(theirs, name, place), renew)
    yield from differing(place, name, columns, width, rows(ours, name, place), built)


def _in_order(connection: ViewConnection, name: str, place: Place) -> Iterator[tuple[Any, ...]]:
    for one in connection.collection(name).find({}, sort=[("_id", 1)]):
        key: Any = one["_id"]
        stream, ordinal = (key, None) if isinstance(key, str) else (key["stream"], key["ordinal"])
        yield stream, ordinal, one.get(place.tenant_column), one.get(place.session_column), _words(one)


def _sorted(connection: ViewConnection, name: str, place: Place) -> Iterator[tuple[Any, ...]]:
    found = (
        (_words(one), one.get(place.tenant_column), one.get(place.session_column))
        for one in connection.collection(name).find({})
    )
    yield from sorted(found, key=str)


def _words(value: Any) -> str:
    """Return the same text for equal documents, whatever the order of their fields and the ids that were made."""
    if isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        fields = sorted((k, _words(v)) for k, v in items if k != "_id" or not isinstance(v, ObjectId))
        return repr(fields)
    return repr(value)
