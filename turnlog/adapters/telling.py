"""How a row of a view is named where two generations differ: without what stands in it."""

from typing import Any


def place_of(table: str, values: dict[str, Any], session: tuple[str, str]) -> str:
    """Name a row by its session if it has one, and by the numbers of its key."""
    tenant, session_id = (values.pop(column, None) for column in session)
    numbers = ", ".join(f"{column} {value}" for column, value in values.items() if isinstance(value, int))
    words = f"the row of session {session_id!r} of tenant {tenant!r}" if session_id is not None else "a row"
    return f"table {table!r}: {words}" + (f" ({numbers})" if numbers else "")
