"""A TCP proxy that cuts connections where a test wants it. It knows no protocol: it may look for bytes, that is all.

One thread a direction and connection. What is to happen next is armed by the test.
"""

import random
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from typing import NamedTuple, Self
from urllib.parse import urlsplit, urlunsplit

from turnlog.adapters.redis.scripts import APPEND

_CHUNK = 1 << 16
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST instead of FIN, and what was not sent yet is thrown away."""


class When(Enum):
    """Where a cut falls in a request and its answer."""

    BEFORE = "the request is not forwarded"
    WITH = "the request is forwarded, and cut off at once: the server may or may not come to read it"
    AFTER = "the server has answered, and the answer is not forwarded"
    WITHIN = "a part of the answer is forwarded"


class How(Enum):
    """How a cut shows."""

    RESET = "both ends are reset"
    CLOSED = "both ends are closed"
    SILENT = "both ends stay open, and nothing gets through any more, in either direction"
    LATE = "nothing is cut: whatever it would be comes a little late"


COMMIT = rb"COMMIT(?!TED| AND)|commitTransaction|" + APPEND.sha
"""As it is sent to an SQL server, by itself, or to MongoDB; or the one script by which Redis appends."""


class Cut(NamedTuple):
    """A cut of the connection whose client next sends a chunk that matches ``pattern``, after ``skip`` such chunks.

    One that ``lasts`` falls again and again, until something else is armed.
    """

    when: When
    how: How
    pattern: bytes = b""
    skip: int = 0
    lasts: bool = False


class Proxy:
    """Forwards from ``port``, a free one, to ``target`` on this machine.

    Args:
        late_s: for how long ``How.LATE`` holds bytes back.
    """

    def __init__(self, target: int, *, late_s: float = 0.05, seed: int = 0) -> None:
        self.late_s = late_s
        self.dice = random.Random(seed)  # noqa: S311 - no secret
        self.cuts = 0
        """How many cuts have fallen."""
        self._target = target
        self._lock = threading.Lock()
        self._armed: list[Cut] = []
        self._silent = False
        self._links: set[_Link] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def url(self, url: str) -> str:
        """Return a server's URL as one that leads through here."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}"))

    def arm(self, *cuts: Cut) -> None:
        """Have these happen, one after the other, instead of what was armed before."""
        with self._lock:
            self._armed = list(cuts)

    def silence(self) -> None:
        """From now on nothing gets through on any connection, nor on new ones, which are accepted all the same."""
        self._silent = True
        for link in self._all():
            link.silent = True

    def reset(self) -> None:
        """Reset every connection; new ones get through again."""
        self._silent = False
        for link in self._all():
            link.end(How.RESET)

    def due(self, chunk: bytes) -> Cut | None:
        """Return the armed cut if this chunk of a client's brings it."""
        with self._lock:
            if not self._armed or not re.search(self._armed[0].pattern, chunk):
                return None
            cut = self._armed[0]
            if cut.skip:
                self._armed[0] = cut._replace(skip=cut.skip - 1)
                return None
            self.cuts += 1
            return cut if cut.lasts else self._armed.pop(0)

    def told(self, chunk: bytes) -> bytes:
        """Return what a client gets of what the server says."""
        return chunk

    def forget(self, link: "_Link") -> None:
        """Take note that a connection is over."""
        with self._lock:
            self._links.discard(link)

    def close(self) -> None:
        """End everything."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._all():
            link.end(How.CLOSED)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _all(self) -> "list[_Link]":
        with self._lock:
            return list(self._links)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()  # the server is not there
                continue
            link = _Link(self, client, server)
            link.silent = self._silent
            with self._lock:
                self._links.add(link)
            link.start()


class _Link:
    """One connection."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.silent = False
        self._proxy = proxy
        self._client, self._server = client, server
        self._cut: Cut | None = None
        self._over = threading.Event()
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def start(self) -> None:
        """Forward, both ways."""
        for ways in ((self._client, self._from_client), (self._server, self._from_server)):
            threading.Thread(target=self._pump, args=ways, name="proxy", daemon=True).start()

    def end(self, how: How) -> None:
        """Cut both ends, in this way."""
        if how is How.SILENT:
            self.silent = True
            return
        self._over.set()
        for end in (self._client, self._server):
            with suppress(OSError):
                if how is How.RESET:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.shutdown(socket.SHUT_RD)  # wakes who reads it; the pump closes it
        self._close()

    def _close(self) -> None:
        for end in (self._client, self._server):
            end.close()
        self._proxy.forget(self)

    def _pump(self, source: socket.socket, forward: Callable[[bytes], None]) -> None:
        with suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if not self.silent:
                    forward(chunk)
        if not self._over.is_set() and not self.silent:
            self.end(How.CLOSED)
        elif self.silent and source is self._client:
            self.silent = False
            self.end(How.CLOSED)  # the client has given up; the server hears of it

    def _from_client(self, chunk: bytes) -> None:
        cut = self._proxy.due(chunk)
        if cut is None:
            self._server.sendall(chunk)
        elif cut.how is How.LATE:
            self._late(cut, When.BEFORE)
            self._cut = cut
            self._server.sendall(chunk)
        elif cut.when is When.BEFORE:
            self.end(cut.how)
        elif cut.when is When.WITH:
            self._server.sendall(chunk)
            self.end(cut.how)
        else:
            self._cut = cut
            self._server.sendall(chunk)

    def _from_server(self, chunk: bytes) -> None:
        chunk = self._proxy.told(chunk)
        cut, self._cut = self._cut, None
        if cut is None:
            self._client.sendall(chunk)
        elif cut.how is How.LATE:
            self._late(cut, When.AFTER)
            self._client.sendall(chunk)
        else:
            if cut.when is When.WITHIN:
                self._client.sendall(chunk[: self._proxy.dice.randrange(len(chunk))])
            self.end(cut.how)

    def _late(self, cut: Cut, when: When) -> None:
        if (cut.when is When.BEFORE) == (when is When.BEFORE):
            self._over.wait(self._proxy.late_s)
