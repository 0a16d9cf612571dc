"""Transactions that nobody will end: the server keeps them, and what they hold, for a minute.

They are of a process that was killed, or were left behind by a connection that broke, with the word that would have
ended them. Who is kept waiting looks for such and ends them: those of processes of this machine that are no more, which
a client's name tells, and those that this client has left itself. Others are left to the server.
"""

import os
import re
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any
from uuid import UUID

import pymongo
from bson import Binary
from pymongo import MongoClient
from pymongo.client_session import ClientSession
from pymongo.errors import PyMongoError

LOOK_S = 0.5
"""So often, at most, it is looked for them."""
LOOKING_S = 2.0
"""For so long, at most."""
_NAMED = re.compile(r"turnlog (\S+) (\d+)")
_OPEN: Sequence[Mapping[str, Any]] = [
    {"$currentOp": {"idleSessions": True, "allUsers": False}},
    {"$match": {"transaction": {"$exists": True}}},
]


class Abandoned:
    """Ends what was abandoned, as far as one client can tell.

    A session whose transaction was begun and not committed is taken to have left it: the driver does not say whether
    its word to abort has arrived.
    """

    def __init__(self) -> None:
        self.is_due = False
        """Whether a connection broke since it was last looked: then something is likely to be there."""
        self._left: set[bytes] = set()
        self._look = 0.0

    def begun(self, session: ClientSession) -> None:
        """Take note of a transaction; the server ends an older one of the same session by itself."""
        self._left.discard(_key(session.session_id["id"]))

    def left(self, session: ClientSession) -> None:
        """Take note of one that may be open still."""
        self._left.add(_key(session.session_id["id"]))

    def end(self, client: "MongoClient[dict[str, Any]]") -> int:
        """End what there is; return how many transactions that were."""
        self._look = monotonic() + LOOK_S
        left = frozenset(self._left)
        ended = 0
        with suppress(PyMongoError), pymongo.timeout(LOOKING_S):  # not allowed, or away: then they end by themselves
            for one in list(client.admin.aggregate(_OPEN)):
                key = _key(one["lsid"]["id"])
                if (key in left and key in self._left) or _is_of_the_dead(one):
                    client.admin.command("killSessions", [{"id": Binary(key, 4)}])
                    ended += 1
            self._left -= left
            self.is_due = False
        return ended

    def end_now_and_then(self, client: "MongoClient[dict[str, Any]]") -> int:
        """As ``end``, if that was not done just now."""
        return 0 if monotonic() < self._look else self.end(client)


def application_name() -> str:
    """Return what this process's client calls itself."""
    return f"turnlog {socket.gethostname()[:80]} {os.getpid()}"


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


def _is_of_the_dead(one: Mapping[str, Any]) -> bool:
    named = _NAMED.fullmatch(str(one.get("appName", "")))
    return named is not None and not lives(named[1], int(named[2]))


def _key(session_id: "Binary | UUID") -> bytes:
    return session_id.bytes if isinstance(session_id, UUID) else bytes(session_id)
