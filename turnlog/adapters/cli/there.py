"""Whether the store that a command names is there: only what fills one makes it, and none is made by looking."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import typer

from turnlog.adapters.connect import sqlite_path
from turnlog.adapters.names import Names


def require_there(url: str, *, create: bool) -> None:
    """Keep a mistyped name from making a store, and a command from making one of a file that is none.

    Raises:
        typer.BadParameter: there is no such file, or it is no turnlog store. With ``create`` neither a missing nor an
            empty one is refused, but a database that holds other tables is.
    """
    path = path_of(url)
    if path is None:
        return
    if not Path(path).exists():
        if create:
            return
        raise typer.BadParameter(f"there is no store {path!r} (`turnlog import` and `turnlog copy` make one)")
    tables = _tables(path)
    if tables is None or Names().events in tables or (create and not tables):
        return
    made = "; turnlog.open() in Python makes one of it" if create else ""
    raise typer.BadParameter(f"{path!r} is no turnlog store{made}")


def is_there(url: str) -> bool:
    """Return whether there is anything at a URL; a server is taken to be there."""
    path = path_of(url)
    return path is None or Path(path).exists()


def path_of(url: str) -> str | None:
    """Return the file that a URL names, if it is one of SQLite."""
    return sqlite_path(url) if url.startswith("sqlite") else None


def _tables(path: str) -> set[str] | None:
    """Return the names of a database's tables; ``None`` if it cannot be read: opening it says why.

    A write-ahead log is read only where there is one: that leaves files beside the database.
    """
    try:
        found = _read(path, "immutable=1")
        if Names().events not in found and Path(f"{path}-wal").exists():
            found = _read(path, "mode=ro")
    except sqlite3.Error:
        return None
    return found


def _read(path: str, mode: str) -> set[str]:
    with closing(sqlite3.connect(f"file:{quote(path)}?{mode}", uri=True)) as connection:
        return {str(row[0]) for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
