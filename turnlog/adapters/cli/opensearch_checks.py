"""What ``doctor --to`` looks at on OpenSearch: the cluster, the indices that follow the store, and how far they are.

Nothing is made or changed there. What a user may not look at is said.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from turnlog.adapters.cli import findings as shared
from turnlog.adapters.cli.findings import Finding, unless
from turnlog.adapters.opensearch.client import Address, Client
from turnlog.adapters.opensearch.generations import Generations, Held
from turnlog.domain.errors import StoreError
from turnlog.domain.recorder import Recorder
from turnlog.domain.values import ViewStatus
from turnlog.projections.applying import mark

OLDEST = (2, 0)
LONGEST_REFRESH_S = 60.0
FULL_PERCENT = 85
"""Of a node's disk: from there on OpenSearch gives it no more shards (its low watermark, if nobody has moved that)."""
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_BLOCKS = ("read_only", "read_only_allow_delete", "write", "metadata")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
Settings = Mapping[str, Mapping[str, str]]
"""By index, its settings under their full names."""


def findings(generations: Generations, recorder: Recorder) -> Iterator[Finding]:
    """Yield what there is to say of what follows a log."""
    client = generations.client
    about = client.ask("GET", "/").body
    yield version(about)
    yield secrecy(client.address)
    held = generations.current()
    yield from _cluster(client, generations, held)
    yield from _disks(client)
    yield from _views(generations, held, recorder)


def version(about: Mapping[str, Any]) -> Finding:
    """Judge what answers."""
    told = about.get("version", {})
    number, name = str(told.get("number", "?")), str(told.get("distribution", "elasticsearch"))
    parts = tuple(int(part) if part.isdigit() else 0 for part in number.split(".")[:2])
    worse = Finding(
        "warning",
        "OpenSearch",
        f"{name} {number}",
        f"opensearch {OLDEST[0]}.{OLDEST[1]} or later",
        "turnlog is tested with 2.19",
        "Upgrade the cluster",
    )
    return unless(name == "opensearch" and parts >= OLDEST, worse)


def secrecy(address: Address) -> Finding:
    """Judge whether messages, and the password, can be read on their way."""
    local = all(host in _LOCAL for host, _ in address.hosts)
    found = "TLS" if address.secure else ("none: on this machine only" if local else "none")
    why = "messages and the password cross the network in clear text"
    do = "Use opensearch+https:// (ca_certs= names the authority)"
    return unless(address.secure or local, Finding("warning", "encryption", found, "TLS", why, do))


def health(told: Mapping[str, Any]) -> Finding:
    """Judge whether every shard has a place."""
    status, nodes = str(told["status"]), int(told["number_of_data_nodes"])
    words = (
        f"{status}; {nodes} {'node' if nodes == 1 else 'nodes'} with data, {told['unassigned_shards']} shards without"
    )
    if status == "red":
        why = "of some shards there is no copy: searches are incomplete, and following waits"
        return Finding("bad", "health", words, "green", why, "See GET /_cluster/allocation/explain, or rebuild")
    why = "copies of some shards have no place: one node less, and searches are incomplete"
    return unless(
        status == "green", Finding("warning", "health", words, "green", why, "See GET /_cluster/allocation/explain")
    )


def replicas(settings: Settings, nodes: int) -> Finding:
    """Judge whether the indices outlive a node."""
    fewest = min(int(one.get("index.number_of_replicas", "1")) for one in settings.values())
    found = f"{fewest} on {nodes} {'node' if nodes == 1 else 'nodes'} with data"
    why = "a node that is lost takes the indices with it; the log has everything, but they have to be rebuilt"
    worse = Finding(
        "warning", "replicas", found, "at least 1", why, "Set index.number_of_replicas, or auto_expand_replicas"
    )
    return unless(nodes == 1 or fewest > 0, worse)


def refreshing(settings: Settings) -> Finding:
    """Judge how soon a search sees what was written."""
    longest = max((one.get("index.refresh_interval", "1s") for one in settings.values()), key=_seconds)
    why = "searches see what was followed only then, or after catch_up()"
    found = "never" if _seconds(longest) == float("inf") else f"every {longest}"
    worse = Finding(
        "warning", "refresh", found, f"at most {LONGEST_REFRESH_S:g} s", why, "Set index.refresh_interval to 1s"
    )
    return unless(_seconds(longest) <= LONGEST_REFRESH_S, worse)


def blocks(settings: Settings) -> Iterator[Finding]:
    """Judge whether the indices can be written to; a disk that is full makes them read-only."""
    blocked = [
        f"{index} ({block})"
        for index, one in sorted(settings.items())
        for block in _BLOCKS
        if one.get(f"index.blocks.{block}") == "true"
    ]
    why = "following waits; a cluster sets read_only_allow_delete where a disk is over its flood stage"
    do = "Make room, then set the index.blocks to null"
    found = ", ".join(blocked) or "all can be written to"
    yield unless(not blocked, Finding("bad", "indices", found, "all can be written to", why, do))


def lag(status: ViewStatus) -> Iterator[Finding]:
    """Judge how far it is."""
    (found,) = shared.views((status,))
    do = "Have it followed: turnlog project --to; turnlog.follow(…).parked() says what is parked" if found.do else ""
    yield Finding(found.level, found.name, found.found, found.expected, "searches do not show it" if do else "", do)


def _cluster(client: Client, generations: Generations, held: Held | None) -> Iterator[Finding]:
    names = generations.names
    path = "" if held is None else f"/{names.sessions},{names.messages},{names.checkpoint}"
    try:
        told = client.ask("GET", f"/_cluster/health{path}").body
        yield health(told)
        if held is not None:
            settings = _settings(client, path)
            yield replicas(settings, int(told["number_of_data_nodes"]))
            yield refreshing(settings)
            yield from blocks(settings)
    except StoreError as error:
        yield Finding("warning", "cluster", f"cannot be looked at: {error}")


def _settings(client: Client, path: str) -> Settings:
    said: Mapping[str, Any] = client.ask("GET", f"{path}/_settings", flat_settings=True).body
    return {index: one["settings"] for index, one in said.items()}


def _disks(client: Client) -> Iterator[Finding]:
    try:
        rows = client.ask("GET", "/_cat/allocation", format="json").body
    except StoreError as error:
        yield Finding("warning", "disks", f"cannot be looked at: {error}")
        return
    used = [(int(row["disk.percent"]), str(row["node"])) for row in rows if row.get("disk.percent")]
    if used:
        percent, node = max(used)
        why = "from 95 % on its indices become read-only, and following waits"
        worse = Finding("warning", "disks", f"{node} is {percent} % full", f"below {FULL_PERCENT} %", why, "Make room")
        yield unless(percent < FULL_PERCENT, worse)


def _views(generations: Generations, held: Held | None, recorder: Recorder) -> Iterator[Finding]:
    if held is None:
        why = f"there are no indices named {generations.names.sessions} and so on"
        yield Finding("warning", "view conversations", "not there", why=why, do="turnlog project --to makes them")
        return
    state = held.state
    rows = recorder.select_log(after=state.position - 1, upto=state.position, limit=1) if state.position else []
    if state.position and (not rows or mark(rows[0]) != state.mark):
        why = f"position {state.position} is another event here"
        yield Finding("bad", f"view {state.name}", "it has followed another log", why=why, do="Choose another prefix")
        return
    behind = recorder.position() - state.position
    yield from lag(
        ViewStatus(
            name=state.name,
            revision=state.revision,
            position=state.position,
            lag=max(behind, 0),
            parked=len(state.parked),
        )
    )
    for built in generations.beside():
        state = built.state
        words = f"generation {built.generation}, at position {state.position} since {state.written_at:%Y-%m-%d %H:%M}"
        why = "it may hold what has been erased since; who rebuilds goes on with it, and after a day it is deleted"
        yield Finding("warning", "unfinished rebuild", words, why=why, do="turnlog project --to … --rebuild")


def _seconds(interval: str) -> float:
    """Return an interval as the server writes it, in seconds; one that is never over is infinite."""
    number = interval.rstrip("abcdefghijklmnopqrstuvwxyz")
    value = float(number) if number else 0.0
    return float("inf") if value < 0 else value * _UNITS_S.get(interval[len(number) :], 1.0)
