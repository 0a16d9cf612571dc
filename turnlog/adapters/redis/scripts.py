"""The scripts that the server runs, each in a file beside this one, where its keys and arguments are said."""

from hashlib import sha1
from pathlib import Path
from typing import NamedTuple


class Script(NamedTuple):
    """A script, and the name that Redis gives it."""

    text: bytes
    sha: bytes


def _script(name: str) -> Script:
    beside = Path(__file__).parent
    text = b"\n".join((beside / f"{part}.lua").read_bytes() for part in ("prelude", name))
    return Script(text, sha1(text, usedforsecurity=False).hexdigest().encode())


APPEND, ORDER, HOLD, SWEEP, OVERDUE = map(_script, ("append", "order", "hold", "sweep", "overdue"))
WRITE, RANGE, QUERY, RELEASE = map(_script, ("write", "range", "query", "release"))
DECIDE, FREE = map(_script, ("decide", "free"))
