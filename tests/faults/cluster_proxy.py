"""Proxies before all nodes of a Redis Cluster, which are one: what is armed falls at whichever node is next."""

from types import TracebackType
from typing import Self

from tests.faults.proxy import Cut, Proxy
from tests.servers import HOST, RedisCluster


class ClusterProxy:
    """A proxy before each node; where nodes tell of each other, clients are told of the proxies."""

    def __init__(self, cluster: RedisCluster, *, late_s: float = 0.05, seed: int = 0) -> None:
        self.nodes: list[NodeProxy] = []
        for node in cluster.nodes:
            self.nodes.append(NodeProxy(self, node.port, late_s=late_s, seed=seed))
        self._ports = {
            form % (HOST.encode(), node.port): form % (HOST.encode(), proxy.port)
            for node, proxy in zip(cluster.nodes, self.nodes, strict=True)
            for form in (b"%s\r\n:%d\r\n", b"%s:%d\r\n")
        }
        """As ``CLUSTER SLOTS`` tells them, and as ``MOVED`` and ``ASK`` do."""

    @property
    def cuts(self) -> int:
        """How many cuts have fallen."""
        return self.nodes[0].cuts

    def arm(self, *cuts: Cut) -> None:
        """Have these happen, one after the other, instead of what was armed before."""
        self.nodes[0].arm(*cuts)

    def due(self, chunk: bytes) -> Cut | None:
        """Return the armed cut if this chunk of a client's brings it."""
        return Proxy.due(self.nodes[0], chunk)

    def told(self, chunk: bytes) -> bytes:
        """Return what a client gets of what a node says."""
        for theirs, ours in self._ports.items() if HOST.encode() in chunk else ():
            chunk = chunk.replace(theirs, ours)
        return chunk

    def url(self, prefix: str) -> str:
        """Return the URL of a store with this prefix."""
        nodes = ",".join(f"{HOST}:{proxy.port}" for proxy in self.nodes)
        return f"redis+cluster://{nodes}/?prefix={prefix}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for proxy in self.nodes:
            proxy.close()


class NodeProxy(Proxy):
    """The proxy before one node."""

    def __init__(self, whole: ClusterProxy, target: int, *, late_s: float, seed: int) -> None:
        self._whole = whole
        super().__init__(target, late_s=late_s, seed=seed)

    def due(self, chunk: bytes) -> Cut | None:
        """See ``ClusterProxy``."""
        return self._whole.due(chunk)

    def told(self, chunk: bytes) -> bytes:
        """See ``ClusterProxy``."""
        return self._whole.told(chunk)
