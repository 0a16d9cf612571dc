"""``doctor``: what the storage under a store really does, as far as it can be told from here."""

import platform
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

import turnlog
from turnlog.adapters.cli import sqlite_checks
from turnlog.adapters.cli.findings import Finding, views
from turnlog.adapters.cli.guard import BAD, DEFAULT_TENANT, JsonOption, StoreOption, TenantOption, opened, version
from turnlog.adapters.cli.output import print_json, print_table
from turnlog.adapters.cli.there import path_of
from turnlog.adapters.connect import follower
from turnlog.adapters.inside import decider_of, views_of
from turnlog.adapters.names import Names
from turnlog.adapters.sqlite.database import Database
from turnlog.domain.errors import InvalidInput


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What ``doctor --json`` prints; ``ok`` unless a finding is ``bad``."""

    ok: bool
    findings: tuple[Finding, ...]


def doctor(
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="URL", help="Examine the OpenSearch that follows it, instead.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="NAME", help="Of the indices there; turnlog, if not given.")
    ] = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Examine the storage: versions and their hazards, durability really reached, locks, disk; exit 1 if bad."""
    if prefix is not None and to is None:
        raise typer.BadParameter("--prefix is for --to opensearch://…")
    found = (_version(), *(() if to else _not_writable(store)))
    if len(found) == 1:
        with opened(store, tenant) as db:
            scheme = (store or "").partition(":")[0].partition("+")[0]
            found = (*found, *(findings(db, scheme) if to is None else _of_follower(db, to, prefix)))
    diagnosis = Diagnosis(ok=all(finding.level != "bad" for finding in found), findings=found)
    if as_json:
        print_json(diagnosis)
    else:
        print_table(("", "WHAT", "FOUND"), ((finding.level, finding.name, finding.words) for finding in found))
    if not diagnosis.ok:
        raise typer.Exit(BAD)


def _version() -> Finding:
    return Finding("ok", "turnlog", f"{version()} on Python {platform.python_version()}")


def _not_writable(url: str | None) -> Iterator[Finding]:
    """Yield what keeps the store from being opened at all."""
    path = path_of(url) if url else None
    if path is not None and Path(path).exists():
        yield from sqlite_checks.not_writable(Path(path))


def findings(db: turnlog.ConversationStore, scheme: str) -> Iterator[Finding]:
    """Yield what there is to say of an open store."""
    recorder: Any = decider_of(db).recorder
    match scheme:
        case "sqlite":
            yield from _of_sqlite(recorder)
        case "postgresql" | "postgres":
            from turnlog.adapters.cli import postgresql_checks

            yield from postgresql_checks.findings(recorder, Names())
        case "mariadb" | "mysql":
            from turnlog.adapters.cli import mariadb_checks

            yield from mariadb_checks.findings(recorder, Names())
        case "mongodb":
            from turnlog.adapters.cli import mongodb_checks

            yield from mongodb_checks.findings(recorder)
        case "redis" | "rediss":
            from turnlog.adapters.cli import redis_checks

            yield from redis_checks.findings(recorder)
        case _:
            yield Finding("warning", "durability", "none: what is in memory ends with the process")
            return
    yield from views(views_of(db))


def _of_follower(db: turnlog.ConversationStore, url: str, prefix: str | None) -> tuple[Finding, ...]:
    """Return what there is to say of what follows a store.

    Raises:
        typer.BadParameter: the URL or the prefix is not understood.
    """
    recorder = decider_of(db).recorder
    try:
        found = follower(url, recorder, {} if prefix is None else {"prefix": prefix})
    except InvalidInput as error:
        raise typer.BadParameter(str(error)) from error
    from turnlog.adapters.cli import opensearch_checks

    with closing(found.asked):
        return tuple(opensearch_checks.findings(found.views.generations, recorder))


def _of_sqlite(recorder: Any) -> Iterator[Finding]:
    database: Database = recorder.database
    with database.write() as connection:
        synchronous = int(connection.execute("PRAGMA synchronous").fetchone()[0])
    with database.read() as connection:
        yield from sqlite_checks.findings(str(database.path), connection, synchronous, recorder.durability)
