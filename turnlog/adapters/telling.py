"""How a row of a view is named where two generations differ: without what stands in it."""

from typing import Any, NamedTuple


class Place(NamedTuple):
    """How to name a row: the columns of its tenant and session, and the tenant to whom it is told (``None``: all)."""

    tenant_column: str
    session_column: str
    tenant: str | None

    def words(self, table: str, values: dict[str, Any]) -> str:
        """Name a row by its session if it has one, and by the numbers of its key; another tenant's by neither."""
        tenant, session_id = values.pop(self.tenant_column, None), values.pop(self.session_column, None)
        if self.tenant is not None and self.tenant != tenant:
            return f"table {table!r}: a row" + (" of another tenant" if tenant is not None else "")
        numbers = ", ".join(f"{column} {value}" for column, value in values.items() if isinstance(value, int))
        words = f"the row of session {session_id!r} of tenant {tenant!r}" if session_id is not None else "a row"
        return f"table {table!r}: {words}" + (f" ({numbers})" if numbers else "")
