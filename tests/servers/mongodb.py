"""A private MongoDB server: a replica set of one member or of several, or a standalone server."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pymongo
from pymongo.errors import PyMongoError

from tests.servers.again import Contents
from tests.servers.starting import HOST, READY_S, Private, Running, free_port, missing

_SETTINGS = (
    "--nounixsocket",
    "--oplogSize=64",
    "--wiredTigerCacheSizeGB=0.25",
    "--wiredTigerEngineConfigString=log=(file_max=10MB,prealloc=false)",  # 11 MB instead of 302
    "--setParameter=diagnosticDataCollectionEnabled=false",
    "--setParameter=minSnapshotHistoryWindowInSeconds=30",  # so long, not 300, files of dropped collections stay
    "--setParameter=shutdownTimeoutMillisForSignaledShutdown=100",
)
_CHEAP = Path("/dev/shm")  # noqa: S108 - a directory of its own is made in it
"""Files there cost no sync, which tests of function need not wait for."""


def mongod_or_skip() -> Path:
    """Return MongoDB's server; without it skip the test, loudly (in CI: fail it)."""
    found = shutil.which("mongod")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    installed = cache / "turnlog-servers/mongodb/fiftyone/db/bin/mongod"  # by scripts/servers
    if found is None and not installed.exists():
        missing("MongoDB", f"{installed.parent} or on PATH", "scripts/servers")
    return Path(found or installed)


class MongoDB(Private):
    """Members of one replica set, on ports of this machine; ``url`` names no database.

    Args:
        members: how many; 0: one server that is of no replica set.
        cheap: keep the files in memory: it does not survive the machine, and costs no sync.
    """

    def __init__(self, binary: Path, *, members: int = 1, cheap: bool = True) -> None:
        self._binary = binary
        self._set = members > 0
        base = str(_CHEAP) if cheap and os.access(_CHEAP, os.W_OK) else tempfile.gettempdir()
        self._directory = Path(tempfile.mkdtemp(prefix="turnlog-mongo-", dir=base))
        self.ports = [free_port() for _ in range(max(members, 1))]
        self._processes: dict[int, Running] = {}
        self._databases = 0
        self._client: pymongo.MongoClient[dict[str, Any]] | None = None
        self._is_initiated = False
        for port in self.ports:
            (self._directory / str(port)).mkdir()
            self.start(port)
        if self._set:
            self._initiate()

    @property
    def port(self) -> int:
        """The first member's port."""
        return self.ports[0]

    @property
    def url(self) -> str:
        """The URL of the server, or of all members."""
        hosts = ",".join(f"{HOST}:{port}" for port in self.ports)
        option = "directConnection=true" if len(self.ports) == 1 else "replicaSet=turnlog"
        return f"mongodb://{hosts}/?{option}"

    def connect(self, port: int | None = None) -> "pymongo.MongoClient[dict[str, Any]]":
        """Connect to one member directly, whatever it is."""
        return pymongo.MongoClient(HOST, port or self.port, directConnection=True)

    @property
    def _all(self) -> "pymongo.MongoClient[dict[str, Any]]":
        """One connection for whatever is done often: to the primary, wherever it is."""
        if self._client is None:
            self._client = pymongo.MongoClient(self.url)
        return self._client

    def new_place(self) -> str:
        """Return the URL of a database that does not exist yet."""
        self._databases += 1
        before, slash, after = self.url.rpartition("/")
        return f"{before}{slash}t{os.getpid()}_{self._databases}{after}"

    def drop_place(self, url: str) -> None:
        """Delete a database."""
        self._all.drop_database(_database_of(url))

    def shape(self, url: str) -> object:
        """Return what is in a database, see ``Again``: its collections and their indexes."""
        database = self._all[_database_of(url)]
        return {name: database[name].index_information() for name in database.list_collection_names()}

    def contents(self, url: str) -> Contents:
        """Return the documents of every collection."""
        database = self._all[_database_of(url)]
        return {name: list(database[name].find()) for name in database.list_collection_names()}

    def fill(self, url: str, contents: Contents) -> None:
        """Have collections hold these documents alone."""
        database = self._all[_database_of(url)]
        for name, documents in contents.items():
            database[name].delete_many({})
            if documents:
                database[name].insert_many(documents)

    def primary(self) -> int:
        """Wait for a member that can be written, and return its port."""
        deadline = monotonic() + READY_S
        while monotonic() < deadline:
            for port in self.ports:
                if self._said(port).get("isWritablePrimary"):
                    return port
            sleep(0.02)
        raise RuntimeError("the replica set has no primary")

    def start(self, port: int | None = None) -> None:
        """Start a member (again, on the same port); one that is alone is primary then."""
        port = port or self.port
        here = self._directory / str(port)
        options = [*_SETTINGS, *(["--replSet=turnlog"] if self._set else [])]
        command = [str(self._binary), f"--dbpath={here}", f"--bind_ip={HOST}", f"--port={port}", *options]
        self._processes[port] = Running("MongoDB", command, here / "log")
        self._processes[port].wait(lambda: self._said(port))
        if self._is_initiated and len(self.ports) == 1:
            self.primary()

    def crash(self, port: int | None = None) -> None:
        """End a member at once, without writing anything more."""
        self._processes[port or self.port].end()

    def stop(self) -> None:
        """End it and delete its files."""
        if self._client is not None:
            self._client.close()
        for process in self._processes.values():
            process.end()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _initiate(self) -> None:
        members: Sequence[dict[str, Any]] = [{"_id": n, "host": f"{HOST}:{port}"} for n, port in enumerate(self.ports)]
        settings = {"electionTimeoutMillis": 1500, "heartbeatIntervalMillis": 200}
        with self.connect() as client:
            client.admin.command("replSetInitiate", {"_id": "turnlog", "members": members, "settings": settings})
        self._is_initiated = True
        self.primary()

    def _said(self, port: int) -> dict[str, Any]:
        """Return what a member says of itself; nothing where it does not answer."""
        try:
            with pymongo.MongoClient[dict[str, Any]](
                HOST, port, directConnection=True, serverSelectionTimeoutMS=500
            ) as client:
                return client.admin.command("hello")
        except PyMongoError:
            return {}


def _database_of(url: str) -> str:
    return url.rpartition("/")[2].partition("?")[0]
