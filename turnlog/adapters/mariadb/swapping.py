"""Swaps of generations on MariaDB: tables renamed from where they were built, whole or not at all.

One ``RENAME TABLE`` takes all tables of the old generation out and those of the new one in, in one step also beside
readers and in a crash. But it cannot be part of the transaction that sets the view's checkpoint: it ends the one before
it, and is none. So what is about to be done is written down before, as a record of a view whose name begins with a
blank, and taken back after. Whoever gets the catch-up lock next finds the record of a process that died in between, and
looks where the tables are: still where they were built, and nothing has happened; else the record becomes the view's.

Until then queries find newer rows under an older checkpoint. That is harmless: the built-in views are keyed by session,
and a session with events above the checkpoint is folded live, whatever its row says; nobody applies anything to them,
for that takes the lock. Tables that are created where the log is, without a move, are written down as well: of those
that a dead process has left, nothing is of use.
"""

import json
from collections.abc import Sequence
from time import monotonic
from typing import NamedTuple

import pymysql

from turnlog.adapters.bookkeeping import Bookkeeping
from turnlog.adapters.mariadb import generations
from turnlog.adapters.mariadb.connection import Connection, number, quoted, run
from turnlog.adapters.mariadb.pool import LOCK_WAIT, Pool
from turnlog.adapters.mariadb.rows import MARIADB
from turnlog.adapters.names import Names
from turnlog.domain.errors import StoreUnavailable
from turnlog.projections.view_store import Checkpoint, Parked

PATIENCE_S = 1
"""So long a swap waits for readers at a time: behind it, new readers wait as well. No server knows less."""


class Plan(NamedTuple):
    """What is about to be done: these tables come from a database to the log's, or are created there (``None``)."""

    built: str | None
    tables: Sequence[str]


class Swaps:
    """Swaps between the log's database and others; the caller has the catch-up lock, and a transaction."""

    def __init__(self, pool: Pool, names: Names) -> None:
        self._pool = pool
        self._home = pool.schema
        self._views, self._parked = pool.table(names.views), pool.table(names.parked)
        self._books = Bookkeeping(names, MARIADB, pool.table)

    def plan(self, connection: Connection, at: Checkpoint, plan: Plan, parked: Sequence[Parked] = ()) -> None:
        """Write down, and commit, what is about to be done; ``at`` is the checkpoint that the view then has."""
        run(connection, "START TRANSACTION")
        run(connection, f"INSERT INTO {self._views} VALUES %s", ((_planned(at.name), *at[1:], json.dumps(plan)),))
        for record in parked:
            self._books.park(connection, record._replace(view=_planned(at.name)))
        run(connection, "COMMIT")

    def perform(self, connection: Connection, name: str, plan: Plan, old: Sequence[str] = (), gone: str = "") -> None:
        """Move the new tables in, and the ``old`` ones out to the database ``gone``; then the record is the view's.

        Raises:
            StoreUnavailable: a transaction that reads the old tables does not end. Nothing was moved then.
        """
        pairs = [(_full(self._home, table), _full(gone, table)) for table in old]
        pairs += [(_full(str(plan.built), table), _full(self._home, table)) for table in plan.tables]
        statement = f"RENAME TABLE {', '.join(f'{here} TO {there}' for here, there in pairs)}"
        if pairs:
            self._rename(connection, statement)
        run(connection, "START TRANSACTION")
        self.settle(connection, name, plan)

    def settle(self, connection: Connection, name: str, plan: Plan) -> None:
        """Make the record of what was done the view's, with what was parked as it was built."""
        for table, column in ((self._views, "name"), (self._parked, "view")):
            run(connection, f"DELETE FROM {table} WHERE `{column}` = %s", (name,))
            run(connection, f"UPDATE {table} SET `{column}` = %s WHERE `{column}` = %s", (name, _planned(name)))
        run(connection, f"UPDATE {self._views} SET `tables` = %s WHERE `name` = %s", (json.dumps(plan.tables), name))

    def mend(self, connection: Connection) -> None:
        """End what others did not live to end."""
        rows = run(connection, f"SELECT `name`, `tables` FROM {self._views} WHERE `name` < '!'").fetchall()
        for planned, kept in rows:
            plan = Plan(*json.loads(kept))
            if plan.built is None:
                generations.drop(connection, self._home, plan.tables)
                self._cancel(connection, planned)
            elif generations.present(connection, plan.built, plan.tables):
                self._cancel(connection, planned)
            else:
                self.settle(connection, planned[1:], plan)
        if rows:
            run(connection, "COMMIT AND CHAIN")

    def _cancel(self, connection: Connection, planned: str) -> None:
        for table, column in ((self._views, "name"), (self._parked, "view")):
            run(connection, f"DELETE FROM {table} WHERE `{column}` = %s", (planned,))

    def _rename(self, connection: Connection, statement: str) -> None:
        ((before,),) = run(connection, "SELECT @@lock_wait_timeout").fetchall()
        run(connection, "SET lock_wait_timeout = %s", (PATIENCE_S,))
        deadline = monotonic() + self._pool.timeout_s
        try:
            while not _done(connection, statement):
                if monotonic() > deadline:
                    words = "a transaction that reads the view did not end: it cannot be replaced"
                    raise StoreUnavailable(f"{self._pool.name}: {words}")
        finally:
            if connection.open:
                run(connection, "SET lock_wait_timeout = %s", (before,))


def _done(connection: Connection, statement: str) -> bool:
    """Execute a statement; return whether it got the locks it takes."""
    try:
        run(connection, statement)
    except pymysql.Error as error:
        if number(error) != LOCK_WAIT:
            raise
        return False
    return True


def is_planned(name: str) -> bool:
    """Return whether a record is one of what is about to be done."""
    return name.startswith(" ")


def _planned(name: str) -> str:
    return f" {name}"


def _full(schema: str, table: str) -> str:
    return f"{quoted(schema)}.{quoted(table)}"
