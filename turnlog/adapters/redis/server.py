"""One Redis server (6.2 or newer; 7.0 is tested) under a log: reading, running scripts that write, and its names.

What is only read is asked a second time where the connection broke. What writes is not: whoever wrote finds out.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from redis.exceptions import NoScriptError

from turnlog.adapters.redis.keys import Keys, chosen_prefix
from turnlog.adapters.redis.scripts import Script
from turnlog.adapters.redis.wire import Command, Cut, Unsent, Wire, parsed, raised, talk, translating
from turnlog.domain.errors import StoreUnavailable

T = TypeVar("T")


class Server:
    """A server, by URL.

    Args:
        durability: what was asked for; what is kept is up to the server, see durability.py.
        timeout_s: how long an answer, or a free connection, is waited for.
        size: the most connections at one time, besides those that wait for news or hold a lease.
        prefix: how all keys of the log begin, if the URL does not say it (``?prefix=``); by default ``turnlog:``.

    Raises:
        InvalidInput: the URL or the prefix is not understood.
    """

    def __init__(
        self,
        url: str,
        *,
        durability: str = "full",
        timeout_s: float = 30.0,
        size: int = 10,
        read_only: bool = False,
        prefix: object = None,
    ) -> None:
        options = parsed(url)
        self.keys = Keys(chosen_prefix(options.pop("prefix", None), prefix))
        self.wire = Wire(options, timeout_s=timeout_s, size=size)
        self.name = self.wire.name
        self.durability = durability
        self.timeout_s = timeout_s
        self.read_only = read_only

    def __repr__(self) -> str:
        return f"<Server {self.name}>"

    def close(self) -> None:
        """Close every connection."""
        self.wire.close()

    def require_writable(self) -> None:
        """Refuse to write where the store is read-only."""
        if self.read_only:
            raise StoreUnavailable(f"{self.name} is open read-only")

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, *command: bytes | str | int) -> Any:
        """Return the answer to a command that only reads.

        Raises:
            StoreUnavailable, CorruptLog.
        """
        return self.read_all((command,))[0]

    def read_all(self, commands: Sequence[Command]) -> list[Any]:
        """Return the answers to commands that only read, sent together."""
        with translating(self.name):
            return [raised(answer) for answer in _twice(lambda: self.wire.several(commands))]

    def read_script(self, script: Script, keys: Sequence[bytes], arguments: Command) -> Any:
        """Return what a script gives that only reads."""
        with translating(self.name):
            return _twice(lambda: self.run(script, keys, arguments))

    # --- writing ------------------------------------------------------------------------------------------------------

    def write(self, *command: bytes | str | int) -> Any:
        """Return the answer to a command that may be sent twice, where the connection broke, with no harm."""
        self.require_writable()
        return self.read(*command)

    def run(self, script: Script, keys: Sequence[bytes], arguments: Command) -> Any:
        """Run a script and return what it gives.

        Raises:
            Cut: it may have been executed, or not. Unsent: it was not. redis.ResponseError: the server refused it.
        """
        rest: Command = (len(keys), *keys, *arguments)
        try:
            return self.wire.one((b"EVALSHA", script.sha, *rest))
        except NoScriptError:
            return self.wire.one((b"EVAL", script.text, *rest))

    def nodes(self, *, replicas: bool = False) -> "list[Server]":  # noqa: ARG002 - a cluster has some
        """Return what has settings of its own: this server."""
        return [self]

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, command: Command) -> Any:
        """Return the answer to a command that blocks, on a connection beside the pool's."""
        with translating(self.name), self.wire.lasting() as connection:
            return raised(talk(connection, (command,))[0])

    def lasting(self, key: bytes) -> AbstractContextManager[Any]:  # noqa: ARG002 - a cluster's looks who has it
        """Lend a connection beside the pool's for as long as it takes, to where ``key`` is."""
        return self.wire.lasting()


def _twice(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except (Cut, Unsent):
        return ask()
