"""From a URL to a backend. The only place that names every adapter; each is imported when it is asked for."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from unicodedata import category
from urllib.parse import parse_qsl

from turnlog import inputs
from turnlog.domain.errors import InvalidInput
from turnlog.domain.recorder import Recorder
from turnlog.projections.backend import Backend
from turnlog.projections.conversation_index import Followable

DURABILITIES = ("full", "normal")
LONGEST_TIMEOUT_S = 3600
NO_LOG = (
    "OpenSearch cannot be the log: it has no transaction over several documents. Keep the log elsewhere and have it "
    "followed: turnlog.follow(store, 'opensearch://…'), or turnlog project --to opensearch://… as a service"
)
SCHEMES = (
    "memory://, sqlite:///path, postgresql://host/database, mariadb://host/database, redis://host,"
    " mongodb://host/database"
)
ENTRY_POINTS = "turnlog.backends"
"""The group in which an installed package names, by URL scheme, the function that opens its backend."""
ORDERINGS = ("auto", "strict")
LONGEST_TTL_S = 100 * 366 * 86400
POOL_SIZE = 10
LARGEST_POOL = 10_000
MOST_PARTITIONS = 256
MOST_SHARDS = 1024


def connect(url: str | Backend, *, durability: str, engine: object, options: dict[str, Any]) -> Backend:
    """Open the backend that ``url`` names, or is. ``options`` are taken out as they are used.

    Raises:
        InvalidInput: the URL, the durability or an option is not understood.
        StoreError: the storage cannot be opened, is damaged, or was made by a newer turnlog.
    """
    if durability not in DURABILITIES:
        raise InvalidInput("durability", f"expected one of {', '.join(DURABILITIES)}, got {durability!r:.100}")
    if isinstance(url, Backend):
        if engine is not None:
            raise InvalidInput("engine", "expected none: a backend brings its own connections")
        return _completed(url, options)
    url = inputs.text("url", url)
    scheme = url.partition("://")[0].partition("+")[0]
    if engine is not None and scheme not in _WITH_ENGINE:
        raise InvalidInput("engine", f"{scheme} has no connection pool; it is for server databases")
    match scheme:
        case "memory":
            if url != "memory://":
                raise InvalidInput("url", "expected memory:// and nothing after it")
            backend = _memory(options)
        case "sqlite":
            backend = _sqlite(url, durability, options)
        case "opensearch":
            raise InvalidInput("url", NO_LOG)
        case "redis" | "rediss":
            backend = _redis(url, durability, options)
        case _ if scheme in _WITH_ENGINE:
            backend = _WITH_ENGINE[scheme](url, durability, engine, options)
        case _:
            backend = _installed(url, scheme, durability, options)
    return backend


def _installed(url: str, scheme: str, durability: str, options: dict[str, Any]) -> Backend:
    """Have the package open it that says of itself that it knows such URLs."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=ENTRY_POINTS, name=scheme):
        try:
            opening = entry.load()
        except (ImportError, AttributeError) as error:
            raise InvalidInput(
                "url", f"what opens {scheme}:// cannot be imported from {entry.value}: {error}"
            ) from error
        backend: Backend = opening(url, durability=durability, options=options)
        return _completed(backend._replace(name=scheme), options)
    known = f", got the scheme {scheme!r}" if scheme.isalnum() and scheme.isascii() else ""
    raise InvalidInput("url", f"expected one of {SCHEMES}{known[:60]}")


def _completed(backend: Backend, options: dict[str, Any]) -> Backend:
    from turnlog.adapters.names import Names
    from turnlog.adapters.sqlite.private import with_views

    try:
        names = options.pop("names", None) if backend.views is None else None
        return with_views(backend, Names.chosen(names))
    except BaseException:
        backend.recorder.close()
        raise


def _memory(options: dict[str, Any]) -> Backend:
    from turnlog.adapters.memory import MemoryRecorder
    from turnlog.adapters.names import Names
    from turnlog.adapters.sqlite.private import private_views

    if inputs.flag("read_only", options.pop("read_only", False)):
        raise InvalidInput("read_only", "expected False: what is in memory begins empty")
    inputs.seconds("timeout_s", options.pop("timeout_s", 30.0), most=LONGEST_TIMEOUT_S)  # there is nobody to wait for
    views = private_views(Names.chosen(options.pop("names", None)))
    return Backend(MemoryRecorder(views), views)


def _sqlite(url: str, durability: str, options: dict[str, Any]) -> Backend:
    from turnlog.adapters.names import Names
    from turnlog.adapters.sqlite import SQLiteRecorder
    from turnlog.adapters.sqlite.database import Database
    from turnlog.adapters.sqlite.views import SQLiteViews

    path = sqlite_path(url)
    names = Names.chosen(options.pop("names", None))
    database = Database(
        path,
        durability=durability,
        timeout_s=inputs.seconds("timeout_s", options.pop("timeout_s", 30.0), most=LONGEST_TIMEOUT_S),
        read_only=inputs.flag("read_only", options.pop("read_only", False)),
    )
    try:
        views = SQLiteViews(database, names)
        recorder = SQLiteRecorder(database, names, views)
        recorder.prepare()
    except BaseException:
        database.close()
        raise
    return Backend(recorder, views, is_level=views.is_level)


def _postgresql(url: str, durability: str, engine: object, options: dict[str, Any]) -> Backend:
    from turnlog.adapters.names import Names, identifier
    from turnlog.adapters.postgresql import PostgreSQLRecorder
    from turnlog.adapters.postgresql.bound import Using
    from turnlog.adapters.postgresql.lender import Lender
    from turnlog.adapters.postgresql.pool import Pool
    from turnlog.adapters.postgresql.views import PostgreSQLViews

    names = Names.chosen(options.pop("names", None))
    ordering = options.pop("ordering", "auto")
    if ordering not in ORDERINGS:
        raise InvalidInput("ordering", f"expected one of {', '.join(ORDERINGS)}, got {ordering!r:.100}")
    partitions = inputs.optional(_partitions, "partitions", options.pop("partitions", None))
    pool = Pool(
        url,
        engine=engine,
        schema=inputs.optional(identifier, "schema", options.pop("schema", None)),
        durability=durability,
        timeout_s=inputs.seconds("timeout_s", options.pop("timeout_s", 30.0), most=LONGEST_TIMEOUT_S),
        size=inputs.number("pool_size", options.pop("pool_size", POOL_SIZE), least=1, most=LARGEST_POOL),
        read_only=inputs.flag("read_only", options.pop("read_only", False)),
    )
    try:
        views = PostgreSQLViews(pool, names)
        recorder = PostgreSQLRecorder(pool, names, views, ordering=ordering, partitions=partitions)
        recorder.prepare()
    except BaseException:
        pool.close()
        raise
    using = Using(recorder, views)

    def inside(connection: object) -> Backend:
        return Backend(*using(connection))

    lender = partial(Lender, timeout_s=pool.timeout_s)
    return Backend(recorder, views, inside, is_level=views.is_level, lender=lender)


def _mariadb(url: str, durability: str, engine: object, options: dict[str, Any]) -> Backend:
    from turnlog.adapters.mariadb import MariaDBRecorder
    from turnlog.adapters.mariadb.bound import Using
    from turnlog.adapters.mariadb.pool import Pool
    from turnlog.adapters.mariadb.views import MariaDBViews
    from turnlog.adapters.names import Names

    names = Names.chosen(options.pop("names", None))
    pool = Pool(
        url,
        engine=engine,
        durability=durability,
        timeout_s=inputs.seconds("timeout_s", options.pop("timeout_s", 30.0), most=LONGEST_TIMEOUT_S),
        size=inputs.number("pool_size", options.pop("pool_size", POOL_SIZE), least=1, most=LARGEST_POOL),
        read_only=inputs.flag("read_only", options.pop("read_only", False)),
    )
    try:
        views = MariaDBViews(pool, names)
        recorder = MariaDBRecorder(pool, names, views)
        recorder.prepare()
    except BaseException:
        pool.close()
        raise
    using = Using(recorder, views)

    def inside(connection: object) -> Backend:
        return Backend(*using(connection))

    return Backend(recorder, views, inside, is_level=views.is_level)


def follower(url: str, recorder: Recorder, options: dict[str, Any]) -> Followable:
    """Open what is to follow a log. ``options`` are taken out as they are used.

    Raises:
        InvalidInput: the URL or an option is not understood.
        StoreUnavailable: it cannot be reached.
    """
    url = inputs.text("url", url)
    if url.partition("://")[0].partition("+")[0] != "opensearch":
        raise InvalidInput("url", "expected opensearch://host:9200: nothing else follows a store by itself")
    return _opensearch(url, recorder, options)


def _opensearch(url: str, recorder: Recorder, options: dict[str, Any]) -> Followable:
    from turnlog.adapters.opensearch.client import Client
    from turnlog.adapters.opensearch.folding import Conversations
    from turnlog.adapters.opensearch.generations import Generations
    from turnlog.adapters.opensearch.index import OpenSearchIndex
    from turnlog.adapters.opensearch.layout import PREFIX, Layout, Names
    from turnlog.adapters.opensearch.views import OpenSearchViews

    names = Names.chosen(options.pop("prefix", PREFIX), options.pop("names", None))
    language = inputs.optional(inputs.identifier, "language", options.pop("language", None))
    shards = inputs.number("shards", options.pop("shards", 1), least=1, most=MOST_SHARDS)
    replicas = inputs.optional(_replicas, "replicas", options.pop("replicas", None))
    timeout_s = inputs.seconds("timeout_s", options.pop("timeout_s", 30.0), most=LONGEST_TIMEOUT_S)
    ca_certs = inputs.optional(inputs.text, "ca_certs", options.pop("ca_certs", None))
    verify = inputs.flag("verify", options.pop("verify", True))
    if options:
        raise InvalidInput(next(iter(options)), "is not an option of OpenSearch's")
    client = Client(url, timeout_s=timeout_s, ca_certs=ca_certs, verify=verify)
    try:
        generations = Generations(client, names, Layout("standard", shards, replicas))
        current = generations.current()
        generations.layout = Layout(
            language or ("standard" if current is None else current.state.language), shards, replicas
        )
    except BaseException:
        client.close()
        raise
    return Followable(OpenSearchViews(generations, recorder), Conversations(recorder), OpenSearchIndex(generations))


def _replicas(field: str, value: object) -> int:
    return inputs.number(field, value, least=0, most=MOST_SHARDS)


def _redis(url: str, durability: str, options: dict[str, Any]) -> Backend:
    from turnlog.adapters.redis.cluster import Cluster
    from turnlog.adapters.redis.log import Log
    from turnlog.adapters.redis.partitions import PartitionedLog
    from turnlog.adapters.redis.recorder import RedisRecorder
    from turnlog.adapters.redis.server import Server
    from turnlog.adapters.redis.views import RedisViews

    given: dict[str, Any] = {
        "durability": durability,
        "timeout_s": inputs.seconds("timeout_s", options.pop("timeout_s", 30.0), most=LONGEST_TIMEOUT_S),
        "size": inputs.number("pool_size", options.pop("pool_size", POOL_SIZE), least=1, most=LARGEST_POOL),
        "read_only": inputs.flag("read_only", options.pop("read_only", False)),
        "prefix": options.pop("prefix", None),
    }
    ttl_s = options.pop("ttl_s", None)
    if ttl_s is not None:
        ttl_s = inputs.seconds("ttl_s", ttl_s, most=LONGEST_TTL_S)
    if url.partition("://")[0].endswith("+cluster"):
        partitions = inputs.optional(_partitions, "partitions", options.pop("partitions", None))
        cluster = Cluster(url, **given)
        views = RedisViews(cluster)
        recorder = RedisRecorder(PartitionedLog(cluster, ttl_s=ttl_s, partitions=partitions), views)
    else:
        server = Server(url, **given)
        views = RedisViews(server)
        recorder = RedisRecorder(Log(server, server.keys, ttl_s=ttl_s), views)
    try:
        recorder.prepare()
    except BaseException:
        recorder.close()
        raise
    return Backend(recorder, views)


def _mongodb(url: str, durability: str, engine: object, options: dict[str, Any]) -> Backend:
    from turnlog.adapters.mongodb.client import Client
    from turnlog.adapters.mongodb.recorder import MongoDBRecorder
    from turnlog.adapters.mongodb.views import MongoDBViews
    from turnlog.adapters.names import Names
    from turnlog.adapters.sqlite.private import with_views

    names = Names.chosen(options.pop("names", None))
    client = Client(
        url,
        engine=engine,
        database=inputs.optional(inputs.text, "database", options.pop("database", None)),
        durability=durability,
        timeout_s=inputs.seconds("timeout_s", options.pop("timeout_s", 30.0), most=LONGEST_TIMEOUT_S),
        size=inputs.number("pool_size", options.pop("pool_size", POOL_SIZE), least=1, most=LARGEST_POOL),
        read_only=inputs.flag("read_only", options.pop("read_only", False)),
    )
    try:
        views = MongoDBViews(client, names) if client.server.replicated else None
        recorder = MongoDBRecorder(client, names, views)
        recorder.prepare()
        return with_views(Backend(recorder, views), names)
    except BaseException:
        client.close()
        raise


_WITH_ENGINE: Mapping[str, Callable[[str, str, object, dict[str, Any]], Backend]] = {
    "mariadb": _mariadb,
    "mongodb": _mongodb,
    "mysql": _mariadb,
    "postgres": _postgresql,
    "postgresql": _postgresql,
}
"""The backends that take an application's connection pool, by URL scheme."""


def _partitions(field: str, value: object) -> int:
    return inputs.number(field, value, least=1, most=MOST_PARTITIONS)


def sqlite_path(url: str) -> str:
    """Return the file that an SQLite URL names (``sqlite:///relative`` or ``sqlite:////absolute``)."""
    _, _, rest = url.partition("://")
    path, mark, query = rest.removeprefix("/").partition("?")
    if mark:
        names = ", ".join(name for name, _ in parse_qsl(query)) or "options"
        raise InvalidInput("url", f"expected no '?' in it; give {names} as keywords of open()")
    if any(category(char) == "Cc" for char in path):
        raise InvalidInput("url", "expected no control characters in it")
    if not rest.startswith("/") or path in ("", "/", ":memory:"):
        raise InvalidInput("url", "expected sqlite:///path/to/file.db (for memory: memory://)")
    return str(Path(path))
