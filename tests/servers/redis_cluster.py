"""A private Redis Cluster: three masters and a replica of each, formed by telling the nodes of each other."""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import redis
from redis.exceptions import MovedError

from tests.servers.redis import DURABLE, Redis
from tests.servers.starting import HOST, READY_S, Private

QUICK_MS, PATIENT_MS = 1_500, 30_000
"""A node that says nothing for so long is dead; on a busy machine one may stand still for seconds."""
_CLUSTER = {
    "cluster-enabled": "yes",
    "cluster-config-file": "nodes.conf",
    "cluster-node-timeout": str(QUICK_MS),
    "cluster-replica-validity-factor": "0",
    "repl-diskless-sync-delay": "0",
    "repl-ping-replica-period": "1",  # a replica is told of only when it has heard something
    "min-replicas-to-write": "1",  # who is alone takes nothing that nobody else would know of
    "databases": "1",
    **DURABLE,
}
_SLOTS = ((0, 5460), (5461, 10922), (10923, 16383))


class RedisCluster(Private):
    """Six servers; ``nodes[:3]`` begin as masters, ``nodes[3:]`` as their replicas, in the same order."""

    def __init__(self, binary: Path, settings: Mapping[str, str] | None = None) -> None:
        self.nodes: list[Redis] = []
        try:
            for _ in range(6):
                self.nodes.append(Redis(binary, {**_CLUSTER, **(settings or {})}, bus=True))
            self._form()
        except BaseException:
            self.stop()
            raise
        self._prefixes = 0

    @property
    def url(self) -> str:
        """The URL, which names all nodes."""
        return f"redis+cluster://{','.join(f'{HOST}:{node.port}' for node in self.nodes)}/"

    def new_place(self) -> str:
        """Return a URL under whose prefix there is nothing."""
        self._prefixes += 1
        return f"{self.url}?prefix=t{self._prefixes}:"

    def drop_place(self, url: str) -> None:
        """Delete what is under a prefix."""
        begins = url.partition("prefix=")[2]
        for node in self.nodes:
            if self._tells(node, b"role:master", "INFO", "replication"):  # a replica may not have heard yet
                for key in node.execute("KEYS", f"{begins}*"):
                    node.execute("UNLINK", key)

    def master_of(self, key: bytes) -> Redis:
        """Return the node that has a key."""
        for node in self.nodes:
            try:
                node.execute("GET", key)
            except MovedError as moved:
                return next(each for each in self.nodes if each.port == moved.port)
            except redis.RedisError:
                continue
            return node
        raise RuntimeError("no node has it")

    def wait(self) -> None:
        """Wait until every slot is served, each master has a replica with its data, and every node knows of all."""
        for node in self.nodes:
            _until(partial(self._tells, node, b"cluster_state:ok", "CLUSTER", "INFO"))
            _until(partial(self._is_copied, node))
            _until(partial(self._tells_of_all, node))

    @contextmanager
    def deadly(self) -> Generator[None, None, None]:
        """Have a node that dies in this block be replaced soon; by its end all are alive."""
        self._be_patient(QUICK_MS)
        yield
        self.wait()
        self._be_patient(PATIENT_MS)

    def stop(self) -> None:
        """End all of it and delete its files."""
        for node in self.nodes:
            node.stop()

    def _form(self) -> None:
        first = self.nodes[0]
        for number, (node, slots) in enumerate(zip(self.nodes[:3], _SLOTS, strict=True), 1):
            node.execute("CLUSTER", "ADDSLOTSRANGE", *slots)
            node.execute("CLUSTER", "SET-CONFIG-EPOCH", number)
        for node in self.nodes[1:]:
            node.execute("CLUSTER", "MEET", HOST, first.port, first.port + 1000)
        ids = [node.execute("CLUSTER", "MYID") for node in self.nodes[:3]]
        for node, id_ in zip(self.nodes[3:], ids, strict=True):
            _until(partial(self._tells, node, b"OK", "CLUSTER", "REPLICATE", id_))
        self.wait()
        self._be_patient(PATIENT_MS)

    def _be_patient(self, ms: int) -> None:
        for node in self.nodes:
            node.execute("CONFIG", "SET", "cluster-node-timeout", ms)

    def _is_copied(self, node: Redis) -> bool:
        told = self._told(node, "INFO", "replication")
        return b"master_link_status:up" in told or (b"role:master" in told and b"state=online" in told)

    def _tells_of_all(self, node: Redis) -> bool:
        """Return whether a node tells of every replica."""
        slots = self._told(node, "CLUSTER", "SLOTS")
        return all(str(each.port).encode() in slots for each in self.nodes)

    def _tells(self, node: Redis, words: bytes, *command: Any) -> bool:
        return words in self._told(node, *command)

    @staticmethod
    def _told(node: Redis, *command: Any) -> bytes:
        try:
            answer = node.execute(*command)
        except redis.RedisError:
            return b""
        return answer if isinstance(answer, bytes) else str(answer).encode()


def _until(is_so: Callable[[], bool]) -> None:
    deadline = monotonic() + READY_S
    while not is_so():
        if monotonic() > deadline:
            raise RuntimeError("the cluster did not come to be")
        sleep(0.02)
