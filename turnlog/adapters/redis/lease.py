"""A turn that one program has at a time: a key that expires, and a token in it.

What is written under a lease is written by a script that looks for the token first. So who lost his turn (he took too
long, or somebody believed him dead) writes nothing. A holder whose connection is gone is known to be dead, and need not
be waited for: the lease names that connection.
"""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

import redis

from turnlog.adapters.between_threads import Mutex
from turnlog.adapters.redis.cluster import Cluster
from turnlog.adapters.redis.scripts import RELEASE
from turnlog.adapters.redis.server import Server
from turnlog.adapters.redis.wire import Cut, Unsent, raised, talk, translating
from turnlog.domain.errors import StoreUnavailable

LIFE_S = 10.0
"""A turn lasts so long after its connection was last used."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.001, 0.02


class Turn:
    """A lease that is held."""

    def __init__(self, server: Server | Cluster, key: bytes, token: bytes) -> None:
        self.token = token
        self._server = server
        self.key = key
        self._renewed = monotonic()

    def renew(self, *, at_once: bool = False) -> None:
        """Make it last; without ``at_once`` only where it has not been used for a while.

        Raises:
            StoreUnavailable: it is somebody else's by now.
        """
        if not at_once and monotonic() - self._renewed < LIFE_S / 4:
            return
        arguments = (self.token, self.token, round(LIFE_S * 1000))
        if not self._server.read_script(RELEASE, (self.key,), arguments):
            raise lost(self._server)
        self._renewed = monotonic()


class Lease:
    """One kind of turn; the threads of a process wait for each other without asking the server."""

    def __init__(self, server: Server | Cluster, key: bytes) -> None:
        self._server = server
        self._key = key
        self._mutex = Mutex()

    @contextmanager
    def held(self, timeout_s: float) -> Generator[Turn | None, None, None]:
        """Hold it, or lend ``None`` if within ``timeout_s`` it was not to be had."""
        deadline = monotonic() + timeout_s
        with self._mutex.held(timeout_s) as ours:
            if not ours:
                yield None
                return
            with self._taken(deadline) as turn:
                yield turn

    @contextmanager
    def _taken(self, deadline: float) -> Generator[Turn | None, None, None]:
        with translating(self._server.name):
            lasting = self._server.lasting(self._key)
            connection = lasting.__enter__()
        try:
            with translating(self._server.name):
                token = self._take(connection, deadline)
            if token is None:
                yield None
                return
            try:
                yield Turn(self._server, self._key, token)
            finally:
                with suppress(Cut, Unsent, redis.RedisError, StoreUnavailable):  # then it expires
                    self._server.read_script(RELEASE, (self._key,), (token, ""))
        finally:
            lasting.__exit__(None, None, None)

    def _take(self, connection: Any, deadline: float) -> bytes | None:
        id_ = raised(talk(connection, (("CLIENT", "ID"),))[0])
        token = f"{uuid4().hex}:{id_}".encode()
        pause_s = FIRST_PAUSE_S
        while True:
            commands = (("SET", self._key, token, "NX", "PX", round(LIFE_S * 1000)), ("GET", self._key))
            got, holder = (raised(answer) for answer in talk(connection, commands))
            if got is not None:
                return token
            if holder is not None and self._is_dead(connection, holder):
                arguments = (holder, token, round(LIFE_S * 1000))
                if self._server.read_script(RELEASE, (self._key,), arguments):
                    return token
            if monotonic() >= deadline:
                return None
            sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _is_dead(self, connection: Any, holder: bytes) -> bool:
        """Return whether the connection of who holds it is closed; where that may not be asked, it will expire."""
        id_ = holder.rpartition(b":")[2]
        answer = talk(connection, (("CLIENT", "LIST", "ID", id_),))[0]
        return not isinstance(answer, Exception) and not answer.strip()


def lost(server: Server | Cluster) -> StoreUnavailable:
    """Return what to raise where a turn was lost."""
    why = f"it took longer than {LIFE_S:g} s, or its connection broke"
    return StoreUnavailable(f"{server.name}: its turn at the views was over: {why}")
