"""Sessions of confused-ai in Redis: a hash with lists (two layouts), or one JSON string a session.

Keys are found by SCAN, so a server in use is not blocked; what expires while it is read is not there.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from turnlog.adapters.migration import confused
from turnlog.adapters.migration.session import Found, Note, Unreadable
from turnlog.adapters.migration.values import Account, UnreadableValueError, an_object, moment
from turnlog.domain.errors import InvalidInput, StoreUnavailable


class Layout(NamedTuple):
    """Where a store keeps sessions: the prefix of their keys, and of their lists."""

    sessions: str
    messages: str | None = None
    runs: str | None = None


STORE = Layout("ca:session:", "ca:session:messages:", "ca:session:runs:")
STRINGS = Layout("confused-ai:session:")
ADAPTER = Layout("ca:sess:", "ca:sess:msgs:")
LAYOUTS = (STORE, STRINGS, ADAPTER)


@contextmanager
def open_redis(url: str) -> Generator[Any, None, None]:
    """Open the server that a URL names.

    Raises:
        InvalidInput: redis-py is not installed, or the URL is none.
        StoreUnavailable: it cannot be reached; no password is in the message.
    """
    try:
        import redis
    except ImportError as error:
        raise InvalidInput("source", "reading Redis needs redis-py: pip install 'turnlog[redis]'") from error
    connecting: Any = redis.Redis  # its types leave from_url half unknown
    try:
        client = connecting.from_url(url, decode_responses=True, encoding_errors="surrogateescape")
    except ValueError as error:
        raise InvalidInput("source", "expected redis://user:password@host:port/number") from error
    try:
        yield client
    except redis.RedisError as error:
        raise StoreUnavailable(f"redis at {urlsplit(url).hostname}: {error}") from error
    finally:
        client.close()


def sessions_in(client: Any, prefix: str | None = None) -> Iterator[Found]:
    """Yield the sessions of every layout that is there, the oldest first; then lists that are of no session.

    ``prefix`` is that of the sessions' keys, if it is none of those by default.
    """
    layouts = LAYOUTS if prefix is None else (_chosen(client, prefix),)
    for layout in layouts:
        keys = _keys(client, layout)
        for _, key in sorted((_created(client, key), key) for key in keys):
            found = _session(client, layout, key)
            if found is not None:
                yield found
        yield from _astray(client, layout, keys)


def _chosen(client: Any, prefix: str) -> Layout:
    for key in client.scan_iter(match=f"{_literal(prefix)}*", count=1_000):
        if client.type(key) == "string":
            return Layout(prefix)
    return Layout(prefix, f"{prefix}msgs:")


def _keys(client: Any, layout: Layout) -> set[str]:
    wanted = "hash" if layout.messages else "string"
    found = client.scan_iter(match=f"{_literal(layout.sessions)}*", count=1_000, _type=wanted)
    return set(found)


def _created(client: Any, key: str) -> str:
    """Return something to sort by: when the session was created, as ISO text."""
    try:
        given = client.hget(key, "createdAt") if client.type(key) == "hash" else _decoded(client, key).get("createdAt")
        at = moment(given)
    except UnreadableValueError:
        return ""
    return "" if at is None else at.isoformat()


def _session(client: Any, layout: Layout, key: str) -> Found | None:
    session_id = key.removeprefix(layout.sessions)
    account = Account(session_id)
    if layout.messages is None:
        try:
            fields = _decoded(client, key, account)
        except UnreadableValueError as error:
            return Unreadable(note=Note(what="session", id=session_id, session_id=session_id, reason=str(error)))
        given = {"id": session_id, **fields}
        return confused.from_hash(given, fields.get("messages") or [], [], account) if fields else None
    fields = client.hgetall(key)
    if not fields:
        return None  # it has just expired
    try:
        messages = _list(client, f"{layout.messages}{session_id}", "message", account)
        runs = _list(client, f"{layout.runs}{session_id}", "run", account) if layout.runs else []
    except UnreadableValueError as error:
        return Unreadable(note=Note(what="session", id=session_id, session_id=session_id, reason=str(error)))
    return confused.from_hash({"id": session_id, **fields}, messages, runs, account)


def _list(client: Any, key: str, what: str, account: Account) -> list[Any]:
    return [an_object(f"{what} {i}", item, account) for i, item in enumerate(client.lrange(key, 0, -1))]


def _decoded(client: Any, key: str, account: Account | None = None) -> dict[str, Any]:
    return an_object("the session", client.get(key), account)


def _astray(client: Any, layout: Layout, keys: set[str]) -> Iterator[Found]:
    for prefix, what in ((layout.messages, "messages"), (layout.runs, "runs")):
        if prefix is None:
            continue
        for key in sorted(client.scan_iter(match=f"{_literal(prefix)}*", count=1_000, _type="list")):
            session_id = key.removeprefix(prefix)
            if f"{layout.sessions}{session_id}" not in keys:
                reason = "there is no such session: it has expired, or never was there"
                yield Unreadable(note=Note(what=what, id=key, session_id=session_id, reason=reason), whole=False)


def _literal(prefix: str) -> str:
    """Return a prefix as it stands in a pattern."""
    return "".join(f"\\{char}" if char in "*?[]\\" else char for char in prefix)
