"""A Redis Cluster under a log: commands go to the node that has the slot of their key, and wait while one takes over.

It is asked like one server (server.py). A node that cannot be reached, or says that another has the slot now, is asked
no more until the nodes have told anew who has what; a failover takes some seconds, which reads and scripts wait for.
While a slot moves, a key that has moved is asked for where it is. Scripts need several keys, which Redis executes on
neither node as long as they are apart: they wait until the slot has moved.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from time import monotonic, sleep
from typing import Any, TypeVar

import redis
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, NoScriptError, ReadOnlyError, TryAgainError

from turnlog.adapters.redis.keys import Keys, chosen_prefix
from turnlog.adapters.redis.scripts import Script
from turnlog.adapters.redis.wire import Command, Cut, Unsent, Wire, parsed, raised, talk, translating
from turnlog.domain.errors import InvalidInput, OutcomeUnknown, StoreUnavailable

T = TypeVar("T")
Address = tuple[str, int]
PAUSE_S = 0.05
_ELSEWHERE = (MovedError, ClusterDownError, TryAgainError, ReadOnlyError)
"""What a node says that has not executed anything."""


class Cluster:
    """The nodes of a cluster, found by those that ``url`` names (``redis+cluster://host:port,host:port``).

    The arguments are those of ``Server``. With ``durability="full"`` what is written has to be confirmed by a replica.

    Raises:
        InvalidInput: the URL or the prefix is not understood. StoreUnavailable: no node can be reached.
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
        self._options, seeds = _parts(url)
        self.keys = Keys(chosen_prefix(self._options.pop("prefix", None), prefix))
        self.name = f"redis cluster of {seeds[0][0]}:{seeds[0][1]}"
        self.durability = durability
        self.timeout_s = timeout_s
        self.read_only = read_only
        self._size = size
        self._wires: dict[Address, Wire] = {}
        self._seeds = seeds
        self._slots: list[tuple[int, int, Address]] = []
        self._replicas: set[Address] = set()
        self._closed = False
        try:
            self._refresh()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Cluster {self.name}>"

    def close(self) -> None:
        """Close every connection."""
        self._closed = True
        for wire in list(self._wires.values()):
            wire.close()

    def require_writable(self) -> None:
        """Refuse to write where the store is read-only."""
        if self.read_only:
            raise StoreUnavailable(f"{self.name} is open read-only")

    # --- see server.py ------------------------------------------------------------------------------------------------

    def read(self, *command: bytes | str | int) -> Any:
        """See ``Server``: the first argument is a key."""
        return self.read_all((command,))[0]

    def read_all(self, commands: Sequence[Command]) -> list[Any]:
        """See ``Server``: the first argument of each, if there is one, is a key; one packet goes to each node."""
        return self._patiently(lambda: self._several(commands))

    def read_script(self, script: Script, keys: Sequence[bytes], arguments: Command) -> Any:
        """See ``Server``."""
        return self._patiently(lambda: self._run(script, keys, arguments, replicas=0))

    def write(self, *command: bytes | str | int) -> Any:
        """See ``Server``."""
        self.require_writable()
        return self.read(*command)

    def run(self, script: Script, keys: Sequence[bytes], arguments: Command) -> Any:
        """See ``Server``.

        Raises:
            OutcomeUnknown: it was executed, and no replica has confirmed it in time, which ``full`` asks for.
        """
        replicas = int(self.durability == "full")
        return self._until(lambda: self._run(script, keys, arguments, replicas=replicas), _ELSEWHERE)

    def wait(self, command: Command) -> Any:
        """See ``Server``: the key is the last but one."""
        with translating(self.name), self.lasting(_bytes(command[-2])) as connection:
            return raised(talk(connection, (command,))[0])

    @contextmanager
    def lasting(self, key: bytes) -> Generator[Any, None, None]:
        """See ``Server``: to the node that has the key, which is waited for."""
        with ExitStack() as lent:
            yield self._until(lambda: self._reached(key, lent), (*_ELSEWHERE, AskError, Cut, Unsent))

    def _reached(self, key: bytes, lent: ExitStack) -> Any:
        with ExitStack() as trying:
            connection = trying.enter_context(self._wire(key).lasting())
            raised(talk(connection, (("EXISTS", key),))[0])
            lent.enter_context(trying.pop_all())
            return connection

    def nodes(self, *, replicas: bool = False) -> "list[Node]":
        """Return every master, each with settings of its own; with ``replicas`` those, too, that can be reached."""
        with translating(self.name):
            self._refresh()
        found = [Node(self._wires[address], self) for address in sorted({address for _, _, address in self._slots})]
        for address in sorted(self._replicas) if replicas else ():
            with suppress(Cut, Unsent):
                self._connected(address).one(("PING",))
                found.append(Node(self._wires[address], self, is_replica=True))
        return found

    # --- routing ------------------------------------------------------------------------------------------------------

    def _patiently(self, ask: Callable[[], T]) -> T:
        with translating(self.name):
            return self._until(ask, (*_ELSEWHERE, Cut, Unsent))

    def _until(self, ask: Callable[[], T], again: tuple[type[Exception], ...]) -> T:
        """Ask, and again for as long as somebody is taking over."""
        deadline = monotonic() + self.timeout_s
        while True:
            try:
                return ask()
            except again:
                if monotonic() > deadline:
                    raise
                sleep(PAUSE_S)
                self._refresh(deadline)

    def _several(self, commands: Sequence[Command]) -> list[Any]:
        routed: dict[Wire, list[int]] = {}
        for at, command in enumerate(commands):
            keyed = command if len(command) > 1 else commands[-1]  # without a key: wherever the last of them goes
            routed.setdefault(self._wire(_bytes(keyed[1])), []).append(at)
        answers: list[Any] = [None] * len(commands)
        for wire, places in routed.items():
            for at, answer in zip(places, wire.several([commands[at] for at in places]), strict=True):
                answers[at] = raised(self._asked(answer, (commands[at],))[0])
        return answers

    def _asked(self, answer: Any, commands: Sequence[Command]) -> list[Any]:
        """Return the answers where the first says that the key has moved to another node, though its slot has not."""
        if not isinstance(answer, AskError):
            return [answer]
        told: Any = answer
        return self._connected(told.node_addr).several((("ASKING",), *commands))[1:]

    def _run(self, script: Script, keys: Sequence[bytes], arguments: Command, *, replicas: int) -> Any:
        wire, rest = self._wire(keys[0]), (len(keys), *keys, *arguments)
        confirming = (("WAIT", replicas, round(1000 * self.timeout_s / 2)),) if replicas else ()
        for commands in (((b"EVALSHA", script.sha, *rest), *confirming), ((b"EVAL", script.text, *rest), *confirming)):
            answer, *confirmed = wire.several(commands)
            answer, *confirmed = self._asked(answer, commands) if isinstance(answer, AskError) else (answer, *confirmed)
            if not isinstance(answer, NoScriptError):
                break
        found = raised(answer)
        if confirming and isinstance(found, bytes) and found.startswith((b"taken", b"settled")):
            # perhaps it was this writer, on a connection that broke: it is confirmed only now
            confirmed = wire.several(((b"SET", keys[0] + b":confirmed", 1), *confirming))[1:]
        if confirmed and raised(confirmed[0]) < replicas:
            raise OutcomeUnknown(f"{self.name}: it was written, but no replica has confirmed it")
        return found

    def _wire(self, key: bytes) -> Wire:
        slot = key_slot(key)
        for first, last, address in self._slots:
            if first <= slot <= last:
                return self._wires[address]
        raise Unsent(f"no node has slot {slot}")

    def _refresh(self, deadline: float = 0.0) -> None:
        """Ask the nodes who has which slots.

        Raises:
            StoreUnavailable: none of them answers.
        """
        error: Exception | None = None
        while not self._closed:
            for address in (*self._wires, *self._seeds):
                try:
                    self._slots = self._told_by(address)
                except (Cut, Unsent, redis.RedisError, InvalidInput) as refused:
                    error = refused
                else:
                    return
            if monotonic() > deadline:
                break
            sleep(PAUSE_S)
        raise StoreUnavailable(f"{self.name}: {error or 'the store is closed'}") from error

    def _told_by(self, address: Address) -> list[tuple[int, int, Address]]:
        slots: list[tuple[int, int, Address]] = []
        replicas: set[Address] = set()
        for first, last, *nodes in self._connected(address).one(("CLUSTER", "SLOTS")):
            there, *copies = ((host.decode() or address[0], port) for host, port, *_ in nodes)
            self._connected(there)
            slots.append((first, last, there))
            replicas.update(copies)
        if not slots:
            raise Unsent("it is no node of a cluster that has slots")
        self._replicas = replicas
        return slots

    def _connected(self, address: Address) -> Wire:
        if address not in self._wires:
            host, port = address
            options = {**self._options, "host": host, "port": port}
            self._wires[address] = Wire(options, timeout_s=self.timeout_s, size=self._size)
        return self._wires[address]


class Node:
    """One node of a cluster, to be asked for what it is set to."""

    def __init__(self, wire: Wire, cluster: Cluster, *, is_replica: bool = False) -> None:
        self._wire = wire
        self.is_replica = is_replica
        self.name = wire.name
        self.timeout_s = cluster.timeout_s

    def read(self, *command: bytes | str | int) -> Any:
        """Return the answer to a command that only reads."""
        with translating(self.name):
            return self._wire.one(command)


def _bytes(key: bytes | str | int) -> bytes:
    return key if isinstance(key, bytes) else str(key).encode()


def _parts(url: str) -> tuple[dict[str, Any], list[Address]]:
    """Return what the URL of a cluster says: options of all connections, and some nodes."""
    scheme, _, rest = url.partition("://")
    before, slash, after = rest.partition("/")
    user, at, hosts = before.rpartition("@")
    found = [parsed(f"{scheme.replace('+cluster', '')}://{user}{at}{host}{slash}{after}") for host in hosts.split(",")]
    if any(one.get("db", 0) for one in found):
        raise InvalidInput("url", "expected no number of a database: a cluster has one")
    seeds = [(one.get("host", "localhost"), one.get("port", 6379)) for one in found]
    return {name: value for name, value in found[0].items() if name not in ("host", "port", "db")}, seeds
