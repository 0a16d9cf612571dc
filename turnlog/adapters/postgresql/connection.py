"""One connection to PostgreSQL: statements, the end of a transaction, what a URL says."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

import psycopg
from psycopg import conninfo, errors, pq
from psycopg.rows import tuple_row

from turnlog.adapters.attempt import Lost
from turnlog.adapters.postgresql.patience import PatientConnection
from turnlog.domain.errors import InvalidInput

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]
STALLED_S = 60.0
"""The server ends a transaction of ours that sends nothing for so long: open, it holds back every reader's head."""
_COMMITS = {"full": "on", "normal": "local"}
HUNG_UP = (errors.AdminShutdown, errors.CrashShutdown, errors.IdleSessionTimeout)
"""What the server says last on a connection."""


CONFIRM = (
    "SELECT pg_logical_emit_message(true, 'turnlog', '') WHERE current_setting('synchronous_standby_names') <> ''"
    " AND current_setting('synchronous_commit') NOT IN ('off', 'local')"
)
"""Its commit waits for a standby where an append's does, so that what was committed before is there as well."""


def run(
    connection: Connection,
    statement: str,
    parameters: Sequence[object] | Mapping[str, object] = (),
    *,
    prepare: bool = True,
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Execute one statement, its results in binary form. ``prepare=False`` for what is sent once."""
    text: Any = statement  # no LiteralString: names in it are checked identifiers; values are parameters
    return connection.execute(text, parameters or None, prepare=prepare, binary=True)


def configure(connection: Connection, *, durability: str, timeout_s: float, read_only: bool) -> int:
    """Set what every connection of turnlog's own has; a stronger ``synchronous_commit`` of the server's stays.

    Returns the number of the server's process, which is not what a pooler in between gives itself out as.
    """
    wanted = {
        "jit": "off",
        "lock_timeout": str(int(timeout_s * 1000)),
        "idle_in_transaction_session_timeout": str(int(max(timeout_s, STALLED_S) * 1000)),
        "default_transaction_read_only": "on" if read_only else "off",
    }
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in wanted.items())
    weaker = "('off', 'local')" if durability == "full" else "('off', 'on', 'remote_write', 'remote_apply')"
    commits = f"set_config('synchronous_commit', '{_COMMITS[durability]}', false)"
    ((pid, *_),) = run(connection, f"SELECT pg_backend_pid(), {settings}", prepare=False).fetchall()
    run(connection, f"SELECT {commits} WHERE current_setting('synchronous_commit') IN {weaker}", prepare=False)
    return int(pid)


def gave_up_waiting(notice: errors.Diagnostic) -> bool:
    """Return whether a server says that somebody cancelled a commit's wait for a standby: it is committed here only.

    The words depend on the server's language; the function that says them does not.
    """
    return notice.source_function == "SyncRepWaitForLSN"


def commit(connection: Connection) -> None:
    """Commit.

    Raises:
        Lost: the connection broke meanwhile. psycopg.Error: it was not committed.
    """
    try:
        done = connection.execute("COMMIT").statusmessage
    except psycopg.OperationalError as error:
        if is_broken(connection, error):
            raise Lost from error
        raise
    if done != "COMMIT":
        raise psycopg.InternalError("the transaction had failed and was rolled back")


def is_broken(connection: Connection, error: psycopg.OperationalError) -> bool:
    """Return whether it was the connection that failed, and not the server that refused; it is closed then.

    The driver does not always do that: not where it finds the socket hung up before it has read anything from it.
    """
    if says_broken(error):
        connection.close()
    return connection.closed


def says_broken(error: psycopg.OperationalError) -> bool:
    """Return whether an error says that a connection broke: it is not the server's, or it is the last one."""
    return error.sqlstate is None or isinstance(error, HUNG_UP)


def undo(connection: Connection) -> None:
    """Roll back; a connection that cannot even do that is closed, never trusted again."""
    if connection.closed or connection.pgconn.transaction_status == pq.TransactionStatus.IDLE:
        return
    try:
        connection.execute("ROLLBACK")
    except psycopg.Error:
        with suppress(psycopg.Error):
            connection.close()


def connected(target: str, options: Any) -> PatientConnection:
    """Connect, in autocommit mode."""
    given: dict[str, Any] = {**options, "autocommit": True, "row_factory": tuple_row}
    return PatientConnection.connect(target, **given)


def made_ours(connection: Connection) -> Callable[[Connection], None]:
    """Have an application's connection behave as ours; return what gives it back as it was."""
    before = connection.autocommit, connection.row_factory, connection.cursor_factory
    if before == (True, tuple_row, psycopg.Cursor):
        return _as_it_is
    connection.autocommit, connection.row_factory = True, tuple_row
    connection.cursor_factory = psycopg.Cursor

    def restore(lent: Connection) -> None:
        lent.autocommit, lent.row_factory, lent.cursor_factory = before

    return restore


def _as_it_is(_: Connection) -> None:
    pass


def parsed(url: str) -> dict[str, str]:
    """Return the parts of a URL (its driver's name, as SQLAlchemy's URLs have one, left out)."""
    scheme, colon, rest = url.partition("://")
    try:
        found: Any = conninfo.conninfo_to_dict(f"{scheme.partition('+')[0]}{colon}{rest}")
    except psycopg.Error:
        raise InvalidInput("url", "expected postgresql://user:password@host:port/database") from None
    return {name: str(value) for name, value in found.items()}
