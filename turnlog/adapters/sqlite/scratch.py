"""The files of scratch databases, in which views are built: ``…-rebuild-<view>`` and ``…-check-<view>-<once>``."""

import re
from pathlib import Path
from uuid import uuid4

from turnlog.adapters.sqlite.database import Database

_NAME = re.compile(r"(rebuild-\w+|check-\w+-[0-9a-f]{32})(?=[.-]|$)", re.ASCII)
"""How they go on after the database's own name and a dash."""


def name_of(view: str, *, once: bool) -> str:
    """Return the name of the scratch database in which a view is built: to stay, or to be used ``once``."""
    return f"check-{view}-{uuid4().hex}" if once else f"rebuild-{view}"


def left_beside(path: str) -> list[str]:
    """Return the names of scratch databases of which there are files, in use or not."""
    return sorted({found[1] for rest in _beside(path, "-*") if (found := _NAME.match(rest[1:]))})


def discard(place: Database, name: str) -> None:
    """Delete a scratch database with the files beside it; its claim is held, and stays unless it is used once only."""
    if place.path is None:
        return
    scratch = f"{place.path}-{name}"
    for suffix in ("", "-wal", "-shm", ".lock"):
        Path(f"{scratch}{suffix}").unlink(missing_ok=True)
    for rest in _beside(scratch, ".trial-*"):
        Path(scratch + rest).unlink(missing_ok=True)
    if name.startswith("check-"):
        Path(f"{scratch}.claim").unlink(missing_ok=True)


def _beside(path: str, pattern: str) -> list[str]:
    """Return how the names of files go on that begin with ``path``."""
    start = Path(path)
    from glob import escape  # with fnmatch: for builds only

    return [file.name[len(start.name) :] for file in start.parent.glob(escape(start.name) + pattern)]
