"""``turnlog migrate``: sessions of another system into a store, with ids and times, and an account of the rest.

    the source  → a session of that system (falai.py, confused.py, openai_agents.py; found by sql.py and redis.py)
                → what turnlog makes of it (planning.py) → stored whole, or not at all (transfer/importing.py)

A session whose row cannot be read is not imported, and named: it is never taken for an empty one. The source is only
read. Migrating again adds nothing; a session that went on there since is named, and left as it is here.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from time import perf_counter

import msgspec

from turnlog.adapters.migration.planning import PlannedMigration, planned_migration
from turnlog.adapters.migration.session import Found, Note, OldSession
from turnlog.adapters.transfer.importing import Group
from turnlog.domain.errors import InvalidInput
from turnlog.store import ConversationStore

NAMED = 1_000
"""How many of what is lost, changed or refused a report names; it counts them all."""
KINDS = ("falai", "confused-ai", "openai-agents")
SOURCES = "sqlite:///path, postgresql://host/database, mariadb://host/database, redis://host"


class MigrationProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Given to ``migrate(progress=…)``."""

    sessions: int


class MigrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found and what came of it.

    ``sessions`` are those ``imported`` (or that would be, in a dry run), those ``already_there`` and those refused.
    ``refused`` counts sessions of which nothing was written, ``lost`` things that are not carried over, by what they
    are; ``changed`` things that are carried over otherwise than they stood there. ``notes_…`` name the first of each.
    """

    source: str
    dry_run: bool
    sessions: int
    imported: int
    already_there: int
    messages: int
    refused: int
    lost: dict[str, int]
    changed: dict[str, int]
    notes_refused: tuple[Note, ...]
    notes_lost: tuple[Note, ...]
    notes_changed: tuple[Note, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether everything is there."""
        return not self.refused and not self.lost


Progress = Callable[[MigrationProgress], None]


def migrate(
    store: ConversationStore,
    source: str,
    *,
    kind: str | None = None,
    table: str | None = None,
    prefix: str | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> MigrationReport:
    """Import the sessions of another system.

    Args:
        store: where to.
        source: a URL of SQLite, PostgreSQL, MariaDB or Redis.
        kind: ``falai``, ``confused-ai`` or ``openai-agents``; if not given it is told by the tables' columns.
        table: the sessions' table, where a database holds several that could be meant.
        prefix: of the sessions' keys in Redis, where it is not the system's own.
        dry_run: write nothing, and report what would come of it.
        progress: told of the sessions read so far.

    Raises:
        InvalidInput: the source is not understood, or holds no sessions of a known system.
        StoreError: the source cannot be read, or the storage failed; what was imported before stays.
    """
    migrating = _Migrating(store, dry_run=dry_run, progress=progress)
    with _opened(source, kind, table, prefix) as (found_kind, sessions):
        for found in sessions:
            migrating.take(found)
        migrating.flush()
    return migrating.report(found_kind)


@contextmanager
def _opened(
    source: str, kind: str | None, table: str | None, prefix: str | None
) -> Generator[tuple[str, Iterator[Found]], None, None]:
    if kind is not None and kind not in KINDS:
        raise InvalidInput("kind", f"expected one of {', '.join(KINDS)}, got {kind!r:.100}")
    match source.partition("://")[0].partition("+")[0]:
        case "sqlite" | "postgresql" | "postgres" | "mariadb" | "mysql":
            from turnlog.adapters.migration.database import open_database
            from turnlog.adapters.migration.sql import layout_of

            with open_database(source) as db:
                layout = layout_of(db, kind, table)
                yield layout.kind, layout.read(db, layout.table)
        case "redis" | "rediss":
            from turnlog.adapters.migration.redis import open_redis, sessions_in

            if kind not in (None, "confused-ai"):
                raise InvalidInput("kind", f"expected confused-ai for Redis, got {kind!r:.100}")
            with open_redis(source) as client:
                yield "confused-ai", sessions_in(client, prefix)
        case _:
            raise InvalidInput("source", f"expected one of {SOURCES}")


class _Migrating:
    """Imports session by session, and keeps the account of it."""

    def __init__(self, store: ConversationStore, *, dry_run: bool, progress: Progress | None) -> None:
        self._dry_run = dry_run
        self._progress = progress
        self._began = perf_counter()
        self._group: Group[PlannedMigration] = Group(store, dry=dry_run)
        self._sessions = self._imported = self._already_there = self._messages = 0
        self._refused = _Notes()
        self._lost = _Notes()
        self._changed = _Notes()

    def take(self, found: Found) -> None:
        """Import what was found, or note why not."""
        if not isinstance(found, OldSession):
            self._sessions += found.whole
            (self._refused if found.whole else self._lost).add(found.note)
            return
        self._sessions += 1
        try:
            planned = planned_migration(found, self._group.new_id)
        except InvalidInput as error:
            self._refuse(found.session_id, str(error))
            return
        if self._group.has(planned.session_id):
            self.flush()
        self._group.add(planned)
        if self._group.is_full:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered, then account for it."""
        for planned, outcome in self._group.write():
            if isinstance(outcome, str):
                self._refuse(planned.session_id, outcome)
                continue
            self._imported += outcome.new
            self._already_there += not outcome.new
            self._messages += len(planned.session.messages) if outcome.new else 0
            for note in planned.session.lost:
                self._lost.add(note)
            for note in (*planned.session.changed, *planned.changed):
                self._changed.add(note)
        if self._progress is not None:
            self._progress(MigrationProgress(sessions=self._sessions))

    def report(self, source: str) -> MigrationReport:
        """Return the account."""
        return MigrationReport(
            source=source,
            dry_run=self._dry_run,
            sessions=self._sessions,
            imported=self._imported,
            already_there=self._already_there,
            messages=self._messages,
            refused=sum(self._refused.counts.values()),
            lost=self._lost.counts,
            changed=self._changed.counts,
            notes_refused=tuple(self._refused.named),
            notes_lost=tuple(self._lost.named),
            notes_changed=tuple(self._changed.named),
            seconds=perf_counter() - self._began,
        )

    def _refuse(self, session_id: str, reason: str) -> None:
        self._refused.add(Note(what="session", id=session_id, session_id=session_id, reason=reason))


class _Notes:
    """Counts notes by what they are of, and keeps the first."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.named: list[Note] = []

    def add(self, note: Note) -> None:
        """Add one."""
        self.counts[note.what] = self.counts.get(note.what, 0) + 1
        if len(self.named) < NAMED:
            self.named.append(note)
