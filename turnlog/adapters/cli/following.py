"""``tail`` and ``project``: what goes on until it is stopped, by Ctrl-C or SIGTERM, and then ends well."""

import importlib
import os
import select
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Annotated, Any

import msgspec
import typer

import turnlog
from turnlog.adapters.cli.following_engine import Reports, follow
from turnlog.adapters.cli.guard import DEFAULT_TENANT, JsonOption, StoreOption, TenantOption, opened
from turnlog.adapters.cli.output import print_json, print_line, say, text_of
from turnlog.adapters.cli.stopping import stopping
from turnlog.adapters.elsewhere import Elsewhere
from turnlog.domain.errors import InvalidInput
from turnlog.domain.events import Erased
from turnlog.domain.values import RebuildProgress, RecordedEvent

PAGE = 500
WAIT_S = 0.25
"""How long one wait lasts before it is looked whether to stop."""


def tail(
    *,
    after: Annotated[
        int | None, typer.Option("--after", min=0, metavar="POSITION", help="Begin after it; 0: at the beginning.")
    ] = None,
    types: Annotated[
        list[str] | None, typer.Option("--types", metavar="TYPE", help="Only events of this type; may be repeated.")
    ] = None,
    session: Annotated[str | None, typer.Option("--session", help="Only this session's.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="End after so many.")] = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Follow the store: print each event as it is written, from now on. With --json one event is one line."""
    wanted = [name for given in types or () for name in given.split(",")] or None
    with opened(store, tenant) as db, stopping() as stop, db.subscribe(after=after, types=wanted) as subscription:
        left = limit
        while not stop and left != 0 and not _nobody_reads():
            found = [event for event in subscription.ready(PAGE) if session in (None, event.session_id)][:left]
            for event in found:
                _print_event(event, as_json=as_json)
            if found:
                sys.stdout.flush()
                left = None if left is None else left - len(found)
            else:
                subscription.wait(WAIT_S)


def _print_event(event: RecordedEvent, *, as_json: bool) -> None:
    if as_json:
        print_json(event)
        return
    erased = isinstance(event.event, Erased)
    fields = {} if erased else msgspec.structs.asdict(event.event)
    content = {name: value for name, value in fields.items() if value not in (None, {}, ())}
    name = event.topic.partition(".")[0]
    about = (f"{event.position:>6}", text_of(event.occurred_at), event.session_id, f"v{event.version}", name)
    words = "erased" if erased else " ".join(f"{name}={text_of(value)}" for name, value in content.items())
    print_line("  ".join((*about, words.replace("\n", "\\n"))).rstrip())


def project(
    *,
    projections: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODULE:CLASS]…", help="Projections to keep up to date, as shop.views:Orders."),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="URL", help="Keep them in this database; without any, have OpenSearch follow."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option("--prefix", metavar="NAME", help="Of the indices there; turnlog, if not given.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", metavar="NAME", help="Of the messages there, as german, cjk.")
    ] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build the indices there anew first.")] = False,
    every: Annotated[
        float, typer.Option("--every", min=0.1, metavar="SECONDS", help="How often to report how far they are.")
    ] = 10.0,
    once: Annotated[bool, typer.Option("--once", help="Catch up with what is there, and end.")] = False,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Keep projections, or OpenSearch (--to), up to date with the store until stopped; start again to go on."""
    if to is None and not projections:
        raise typer.BadParameter("expected MODULE:CLASS of some projections, or --to URL")
    if to is not None and not projections:
        options = {"prefix": prefix, "language": language}
        given = {name: value for name, value in options.items() if value is not None}
        with opened(store, tenant) as db:
            follow(db, to, given, Reports(every, as_json=as_json), rebuild=rebuild, once=once)
        return
    if prefix is not None or language is not None or rebuild:
        raise typer.BadParameter("--prefix, --language and --rebuild are for --to opensearch://…")
    if to is not None and to.startswith("opensearch"):
        raise typer.BadParameter("OpenSearch keeps no projections of yours: name none, or a database in --to")
    made = [_projection(name) for name in projections or ()]
    with opened(store, tenant) as db, stopping() as stop, _place(db, to) as place:
        service = _Service(db, [getattr(one, "name", "") for one in made], stop, every, as_json=as_json)
        try:
            for one in made:
                place.add_projection(one, service.tell)
            service.run(place.catch_up, once=once)
        except _Stopped:
            pass
        service.report()


@contextmanager
def _place(
    db: turnlog.ConversationStore, url: str | None
) -> Generator[turnlog.ConversationStore | Elsewhere, None, None]:
    """Open where the projections are kept: the store itself, if nothing else is named.

    Raises:
        typer.BadParameter: it is not understood.
    """
    if url is None:
        yield db
        return
    try:
        place = Elsewhere(db, url)
    except InvalidInput as error:
        raise typer.BadParameter(str(error)) from error
    with place:
        yield place


class _Stopped(BaseException):
    """Interrupts a view that is being caught up or rebuilt, between two pages; no projection takes it for its own."""


class _Service:
    """Catches up whenever there is news."""

    def __init__(
        self, db: turnlog.ConversationStore, names: Sequence[str], stop: list[int], every_s: float, *, as_json: bool
    ) -> None:
        self._db = db
        self._stop = stop
        self._every_s = every_s
        self._as_json = as_json
        self._reported = monotonic()
        self._reached = dict.fromkeys(names, 0)

    def run(self, catch_up: Callable[[Callable[[RebuildProgress], object]], None], *, once: bool) -> None:
        """Go on until stopped, or, ``once``, until everything there is applied."""
        with self._db.subscribe() as news:
            while not self._stop:
                head = self._db.position
                catch_up(self.tell)
                self._reached = dict.fromkeys(self._reached, head)
                if once:
                    return
                news.position = head
                while not self._stop and not news.wait(WAIT_S):
                    self._report_if_due()

    def tell(self, progress: RebuildProgress) -> None:
        """Note how far a view is; stop between two pages where that is wanted."""
        if progress.view in self._reached:
            self._reached[progress.view] = progress.position
        self._report_if_due()
        if self._stop:
            raise _Stopped

    def report(self) -> None:
        """Say how far each view is, and how far behind the log."""
        self._reported = monotonic()
        head = self._db.position
        for name, position in self._reached.items():
            lag = max(head - position, 0)
            if self._as_json:
                print_json({"view": name, "position": position, "head": head, "lag": lag})
            else:
                say(f"{name}: at {position:,} of {head:,}, {lag:,} behind")
        sys.stdout.flush()

    def _report_if_due(self) -> None:
        if monotonic() - self._reported >= self._every_s:
            self.report()


def _projection(name: str) -> Any:
    """Import and make a projection.

    Raises:
        typer.BadParameter: there is no such thing.
    """
    module, _, path = name.partition(":")
    if not module or not path:
        raise typer.BadParameter(f"expected MODULE:CLASS, got {name!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # a program installed as a script does not look into the current folder
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        return found() if isinstance(found, type) else found
    except (ImportError, AttributeError, TypeError) as error:
        raise typer.BadParameter(f"{name}: {error}") from error


def _nobody_reads() -> bool:
    """Return whether stdout is a pipe that was closed at the other end."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    closed = any(event & (select.POLLERR | select.POLLNVAL) for _, event in poll.poll(0))
    return closed and not os.isatty(sys.stdout.fileno())
