"""Terms of messages on PostgreSQL: a ``tsvector`` of just these lexemes, which no parser has seen, under a GIN index.

Whose a message is, and where it stands, its planner looks for in indexes of their own, or filters by, as it sees fit.
"""

from collections.abc import Collection

from turnlog.adapters.names import Names
from turnlog.domain.words import EVERY
from turnlog.projections.message_search import SearchFilter

MOST_BYTES = 500_000
"""A tsvector holds a megabyte at most."""


class PostgreSQLTerms:
    """See ``search_tables.Terms``."""

    assigning = ""

    beside = None

    def __init__(self, names: Names) -> None:
        """Take no names: there is no table but that of the rows."""

    def kept(self, tenant: str, user_id: str | None, terms: Collection[str]) -> str:  # noqa: ARG002 - the port's
        """Return the terms as lexemes."""
        written = _lexemes(terms, " ")
        return written if len(written.encode()) <= MOST_BYTES else _lexemes((EVERY,), " ")

    def wanted(self, where: SearchFilter) -> dict[str, object]:
        """Return a ``tsquery``."""
        return {"terms": f"{_lexemes(where.terms, ' & ')} | '{EVERY}'"}


def _lexemes(terms: Collection[str], between: str) -> str:
    """Return lexemes as text; no term has a quote or a backslash."""
    return between.join(f"'{term}'" for term in terms)
