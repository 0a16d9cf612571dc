"""Trials on PostgreSQL: rows written at once, not in the transaction that the process may not live to end."""

from turnlog.adapters.postgresql.connection import run
from turnlog.adapters.postgresql.pool import Pool
from turnlog.projections.view_store import Trial

_QUICK = "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))"
"""The commit does not wait for the disk: a trial must outlive a process, but not a power failure."""


class Trials:
    """The trials of one place, in a table given as SQL text; none are kept without it."""

    def __init__(self, pool: Pool, table: str | None) -> None:
        self._pool = pool
        self._table = table

    def read(self, name: str) -> Trial | None:
        """Return the open trial."""
        if self._table is None:
            return None
        rows = self._pool.rows(f'SELECT "position", "last", "tries" FROM {self._table} WHERE "view" = %s', (name,))
        return Trial(*rows[0]) if rows else None

    def begin(self, name: str, trial: Trial) -> None:
        """Note a trial."""
        self._note(
            f"{_QUICK} INSERT INTO {self._table} SELECT %s, %s, %s, %s FROM quick"
            ' ON CONFLICT ("view") DO UPDATE'
            ' SET "position" = excluded."position", "last" = excluded."last", "tries" = excluded."tries"',
            (name, *trial),
        )

    def end(self, name: str) -> None:
        """Take the note back."""
        self._note(f'{_QUICK} DELETE FROM {self._table} USING quick WHERE "view" = %s', (name,))

    def _note(self, statement: str, parameters: tuple[object, ...]) -> None:
        if self._table is not None:
            with self._pool.translating(), self._pool.autocommit() as connection:
                run(connection, statement, parameters)
