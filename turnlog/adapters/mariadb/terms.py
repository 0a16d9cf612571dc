"""Terms of messages on MariaDB and MySQL: 16 hexadecimal digits for each, under a FULLTEXT index.

That index leaves out words that are short or frequent in English, by the server's settings, and takes others apart by
its character set. Digits of a hash it keeps as they are: no match is lost, and what has the same hash is told apart
when it is compared with the message.
"""

from collections.abc import Collection

from turnlog.adapters.names import Names
from turnlog.adapters.search_tables import SCOPE_SIZE, hashed, user_term
from turnlog.domain.words import EVERY
from turnlog.projections.message_search import SearchFilter

_EVERY = hashed(EVERY)


class MariaDBTerms:
    """See ``search_tables.Terms``."""

    assigning = f"concat(%s, substr({{}}, {SCOPE_SIZE + 1}))"

    beside = None

    def __init__(self, names: Names) -> None:
        """Take no names: there is no table but that of the rows."""

    def kept(self, tenant: str, user_id: str | None, terms: Collection[str]) -> str:
        """Return the terms, that which tells whose they are first."""
        return " ".join((user_term(tenant, user_id), *sorted(map(hashed, terms))))

    def wanted(self, where: SearchFilter) -> str:
        """Return what is asked in boolean mode."""
        theirs = "" if where.user_id is None else f"+{user_term(where.tenant, where.user_id)} "
        return f"{theirs}+((+{' +'.join(map(hashed, where.terms))}) {_EVERY})"
