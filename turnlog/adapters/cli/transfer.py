"""``import`` and ``export``: conversations in, the log out and in again."""

import gzip
import os
import sys
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import msgspec
import typer

import turnlog
from turnlog.adapters.cli.guard import BAD, DEFAULT_TENANT, JsonOption, StoreOption, TenantOption, opened
from turnlog.adapters.cli.output import Bar, json_of, print_json, print_line, progress_bar, say
from turnlog.adapters.transfer.conversations import ImportProgress, ImportReport, import_files
from turnlog.adapters.transfer.export import export_log
from turnlog.adapters.transfer.lines import STANDARD_INPUT, Lines, open_lines
from turnlog.adapters.transfer.restore import RestoreProgress, RestoreReport, restore_log
from turnlog.domain.errors import CorruptLog, InvalidInput

SHOWN = 20
"""How many refused lines and mismatches are printed for people; --json has them."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one file that is a log export: a report, or why nothing of it was restored."""

    file: str
    report: RestoreReport | None = None
    error: str | None = None

    @property
    def ok(self) -> bool:
        """Whether all of it is in the store now."""
        return self.report is not None and not self.report.refused


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What ``import --json`` prints."""

    ok: bool
    conversations: ImportReport
    restored: tuple[Restored, ...]


def import_(
    *,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Line-JSON, plain or gzip; - is stdin.")],
    check: Annotated[
        bool, typer.Option("--check", help="Fold every conversation and compare with what its line says.")
    ] = False,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Import conversations (docs/import-format.md), or the log that `turnlog export` wrote; again adds nothing."""
    for file in files:
        if file != STANDARD_INPUT and (not Path(file).exists() or Path(file).is_dir()):
            raise typer.BadParameter(f"there is no file {file!r}")
    with opened(store, tenant, create=True) as db, progress_bar("importing") as bar, ExitStack() as pipes:
        sources, restored = _restore_exports(db, files, bar, pipes)
        conversations = import_files(db, sources, check=check, progress=lambda progress: _show_import(bar, progress))
    ok = conversations.ok and all(one.ok for one in restored)
    if as_json:
        print_json(Imported(ok=ok, conversations=conversations, restored=tuple(restored)))
    else:
        _print_restored(restored)
        if sources:
            _print_conversations(conversations, check=check)
    if not ok:
        raise typer.Exit(BAD)


def _restore_exports(
    db: turnlog.ConversationStore, files: Iterable[str], bar: Bar, pipes: ExitStack
) -> tuple[list[str | Lines], list[Restored]]:
    """Restore those files that are log exports; return the others, still to be read from their beginning.

    A pipe cannot be opened twice: it stays open in ``pipes``.
    """
    others: list[str | Lines] = []
    restored: list[Restored] = []
    for file in files:
        with ExitStack() as stack:
            lines = stack.enter_context(open_lines(file))
            if lines.is_export():
                restored.append(_restore(db, lines, bar))
            elif Path(file).is_file():
                others.append(file)
            else:
                others.append(lines)
                pipes.push(stack.pop_all())
    return others, restored


def _restore(db: turnlog.ConversationStore, lines: Lines, bar: Bar) -> Restored:
    def show(progress: RestoreProgress) -> None:
        words = "restored" if progress.total else "checked"
        done = progress.restored if progress.total else progress.checked
        bar.update(done, progress.total, f"{lines.name}: {done:,} events {words}")

    try:
        return Restored(file=lines.name, report=restore_log(db, lines, progress=show))
    except (InvalidInput, CorruptLog) as error:
        return Restored(file=lines.name, error=str(error))


def _show_import(bar: Bar, progress: ImportProgress) -> None:
    bar.update(progress.read_bytes, progress.size_bytes, f"{progress.file}: {progress.conversations:,} conversations")


def _print_restored(restored: Iterable[Restored]) -> None:
    for one in restored:
        if one.report is None:
            say(f"error: {one.error}")
            continue
        done = one.report
        print_line(
            f"{one.file}: restored {done.restored:,} of {done.events:,} events in {done.sessions:,} sessions, "
            f"{done.already_there:,} were there already; {done.seconds:.1f} s"
        )
        for failure in done.refused:
            say(f"error: session {failure.session_id!r}, version {failure.version}: {failure.reason}; left as it is")


def _print_conversations(report: ImportReport, *, check: bool) -> None:
    for refusal in report.refusals[:SHOWN]:
        line = f", line {refusal.line}" if refusal.line else ""
        say(f"error: {refusal.file}{line}: {refusal.reason}")
    _say_rest(report.refused, "lines were refused")
    for mismatch in report.mismatches[:SHOWN]:
        print_line(
            f"{mismatch.file}, line {mismatch.line}, conversation {mismatch.conversation_id}: {mismatch.what} is "
            f"{json_of(mismatch.found)}, expected {json_of(mismatch.expected)}"
        )
    _say_rest(len(report.mismatches), "things differ")
    print_line(
        f"{report.conversations:,} conversations from {report.files:,} files: {report.imported:,} imported, "
        f"{report.already_there:,} there already, {report.refused:,} lines refused"
    )
    print_line(
        f"{report.events:,} events, {report.messages:,} messages in {report.seconds:.1f} s: "
        f"{report.events / max(report.seconds, 1e-6):,.0f} events/s"
    )
    if check:
        print_line(f"checked {report.checked:,} conversations: {len(report.mismatches):,} mismatches")


def _say_rest(count: int, what: str) -> None:
    if count > SHOWN:
        say(f"error: in all {count:,} {what}; --json names them")


def export(
    *,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Where to; - is stdout, .gz compresses.")] = "-",
    session: Annotated[str | None, typer.Option("--session", metavar="SESSION", help="Only this session.")] = None,
    store: StoreOption = None,
    tenant: TenantOption = DEFAULT_TENANT,
    as_json: JsonOption = False,
) -> None:
    """Write the log as line-JSON that `turnlog import` makes the same log of again. --json prints the counts."""
    if as_json and file == STANDARD_INPUT:
        raise typer.BadParameter("--json needs a FILE: stdout carries the export itself")
    with opened(store, tenant) as db, _destination(file) as out, progress_bar("exporting") as bar:
        report = export_log(db, out, session_id=session, progress=lambda done, total: bar.update(done, total, ""))
    if as_json:
        print_json(report)
        return
    where = "" if file == STANDARD_INPUT else f" to {file}"
    say(f"exported {report.events:,} events of {report.sessions:,} sessions and {report.keys:,} keys{where}")


@contextmanager
def _destination(file: str) -> Generator[BinaryIO, None, None]:
    """Open where an export goes to."""
    path = Path(file)
    if file == STANDARD_INPUT:
        yield sys.stdout.buffer
    elif path.exists() and not path.is_file():  # a pipe or a device is written to, not replaced
        with path.open("wb") as out:
            yield out
    else:
        with _whole_file(path) as out:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", fileobj=out, mode="wb", mtime=0) as packed:
                    yield cast("BinaryIO", packed)
            else:
                yield out


@contextmanager
def _whole_file(path: Path) -> Generator[BinaryIO, None, None]:
    """Open a file that appears under its name only when it is whole and on the disk."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with unfinished.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        _remove(unfinished)
        if error.filename != str(unfinished):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # the name that was asked for
    except BaseException:
        _remove(unfinished)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
