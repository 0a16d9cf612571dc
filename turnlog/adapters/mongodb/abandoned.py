"""Transactions whose process was killed: the server keeps them, and what they hold, for a minute.

Who is kept waiting looks for such of this machine, which a client's name tells, and ends them. Those of other machines
are left to the server.
"""

import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from bson import Binary
from pymongo import MongoClient
from pymongo.errors import PyMongoError

_NAMED = re.compile(r"turnlog (\S+) (\d+)")
_IDLE: Sequence[Mapping[str, Any]] = [
    {"$currentOp": {"idleSessions": True, "allUsers": False}},
    {"$match": {"type": "idleSession", "transaction": {"$exists": True}}},
]


def application_name() -> str:
    """Return what this process's client calls itself."""
    return f"turnlog {socket.gethostname()[:80]} {os.getpid()}"


def end_abandoned(client: "MongoClient[dict[str, Any]]") -> int:
    """End transactions of processes that are no more, as far as that can be told; return how many."""
    ended = 0
    with suppress(PyMongoError):  # it is not allowed, or the server is away: then they end by themselves
        for one in list(client.admin.aggregate(_IDLE)):
            named = _NAMED.fullmatch(str(one.get("appName", "")))
            if named is not None and not lives(named[1], int(named[2])):
                held = one["lsid"]["id"]
                client.admin.command(
                    "killSessions", [{"id": Binary.from_uuid(held) if isinstance(held, UUID) else held}]
                )
                ended += 1
    return ended


def lives(host: str, pid: int) -> bool:
    """Return whether a process may still be there; of another machine that is not known."""
    if host != socket.gethostname()[:80]:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
