"""Terms of messages on MariaDB and MySQL: 16 hexadecimal digits for each, under a FULLTEXT index.

That index leaves out words that are short or frequent in English, by the server's settings, and takes others apart by
its character set. Digits of a hash it keeps as they are: no match is lost, and what has the same hash is told apart
when it is compared with the message. For every word it is asked it reads all places of that word, so it is not asked
those that are likely to be in most messages, if there are others: rows that it found are looked through for them.
"""

from collections.abc import Collection

from turnlog.adapters.names import Names
from turnlog.adapters.search_tables import SCOPE_SIZE, hashed, user_term
from turnlog.domain.words import EVERY
from turnlog.projections.message_search import SearchFilter

FEW_LETTERS = 4
"""A word of less is likely to be frequent."""
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

    def wanted(self, where: SearchFilter) -> dict[str, object]:
        """Return what is asked in boolean mode, and a pattern of all terms, which are kept in this order."""
        theirs = "" if where.user_id is None else f"+{user_term(where.tenant, where.user_id)} "
        rare = [term for term in where.terms if not _is_frequent(term)] or where.terms
        return {
            "terms": f"{theirs}+((+{' +'.join(map(hashed, rare))}) {_EVERY})",
            "pattern": f"%{'%'.join(sorted(map(hashed, where.terms)))}%",
            "every": f"%{_EVERY}%",
        }


def _is_frequent(term: str) -> bool:
    return len(term) < FEW_LETTERS and term.isascii() and term.isalpha()
