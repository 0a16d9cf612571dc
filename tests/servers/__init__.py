"""Private database servers for tests: on 127.0.0.1, in a directory of their own, ended with the test run.

A server's first files are made once and copied then, which takes a fifth of a second. Root is dropped: the servers
refuse it. Ports lie below those that the kernel gives to clients. Where there are no server binaries, tests are
skipped and the run's last lines say so; in CI that is a failure.
"""

from tests.servers.mariadb import MariaDB, mariadbd_or_skip
from tests.servers.mongodb import MongoDB, mongod_or_skip
from tests.servers.opensearch import OpenSearch, opensearch_or_skip
from tests.servers.postgresql import PostgreSQL, binaries_or_skip, postgresql_binaries
from tests.servers.redis import Redis, redis_server_or_skip
from tests.servers.redis_cluster import RedisCluster
from tests.servers.starting import HOST, UNTESTED, Server, hostile

__all__ = [
    "HOST",
    "UNTESTED",
    "MariaDB",
    "MongoDB",
    "OpenSearch",
    "PostgreSQL",
    "Redis",
    "RedisCluster",
    "Server",
    "binaries_or_skip",
    "hostile",
    "mariadbd_or_skip",
    "mongod_or_skip",
    "opensearch_or_skip",
    "postgresql_binaries",
    "redis_server_or_skip",
]
