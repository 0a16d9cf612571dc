"""A server that crashes, or ends connections, under processes that write: what was acknowledged is there, and whole."""

import random
from collections.abc import Callable
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from time import sleep
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pymongo
import pymysql
import pytest
import redis

import turnlog
from tests.faults.conftest import Server
from tests.faults.processes import Victim
from tests.faults.test_killed_writers import Writer, check, is_done
from turnlog.domain.errors import StoreError

pytestmark = pytest.mark.slow
WRITERS = 3
ROUNDS = 3
EACH_S = 0.5


def write_through(report: Connection, url: str, seed: int) -> None:
    """Write on, whatever the store says."""
    with turnlog.open(url, timeout_s=10.0) as store:
        Writer(report, store, seed, StoreError).write_on()


def crash(server: Server, _: str) -> None:
    """End the server in the midst of it, and start it again."""
    server.crash()
    server.start()


def end_connections(_: Server, url: str) -> None:
    """End every connection, again and again."""
    _ENDING[url.partition("://")[0]](url)


def _end_postgresql(url: str) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for _ in range(10):
            connection.execute(end)
            sleep(EACH_S / 10)


def _end_mariadb(url: str) -> None:
    parts = urlsplit(url)
    with closing(
        pymysql.connect(host=parts.hostname, port=parts.port or 0, user="root", autocommit=True)
    ) as connection:
        cursor = connection.cursor()
        for _ in range(10):
            cursor.execute(
                "SELECT id FROM information_schema.processlist WHERE id <> connection_id() AND db IS NOT NULL"
            )
            for (number,) in cursor.fetchall():
                with suppress(pymysql.err.OperationalError):  # it has gone by itself
                    cursor.execute(f"KILL {number}")
            sleep(EACH_S / 10)


def _end_redis(url: str) -> None:
    driver: Any = redis.Redis
    with driver.from_url(url) as client:
        for _ in range(10):
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            sleep(EACH_S / 10)


def _end_mongodb(url: str) -> None:
    with pymongo.MongoClient[dict[str, Any]](url) as client:
        for _ in range(10):
            ours = {"appName": {"$regex": "^turnlog "}, "opid": {"$exists": True}}
            running = client.admin.aggregate([{"$currentOp": {}}, {"$match": ours}])
            for one in list(running):
                client.admin.command("killOp", op=one["opid"])
            sleep(EACH_S / 10)


_ENDING: dict[str, Callable[[str], None]] = {
    "postgresql": _end_postgresql,
    "mariadb": _end_mariadb,
    "redis": _end_redis,
    "mongodb": _end_mongodb,
}


@pytest.mark.parametrize("disturb", [crash, end_connections])
def test_acknowledged_is_there(durable: tuple[Server, str], disturb: Callable[[Server, str], None]) -> None:
    """Every acknowledged event is there, every turn is whole, verify is green; a retry writes nothing twice."""
    server, url = durable
    dice = random.Random(3)  # noqa: S311 - no secret
    victims = [Victim(write_through, url, seed) for seed in range(WRITERS)]
    reports: list[Any] = [victim.first() for victim in victims]
    for _ in range(ROUNDS):
        for victim in victims:
            reports += victim.reports(dice.uniform(0, EACH_S) / WRITERS)
        disturb(server, url)
        for victim in victims:
            reports += until_it_writes_again(victim)
    for victim in victims:
        reports += victim.kill()
    check(url, reports)


def until_it_writes_again(victim: Victim) -> list[Any]:
    """Return what it reports, up to something acknowledged that it can only report now."""
    return [*victim.reports(0.1), *victim.reports_until(is_done)]
