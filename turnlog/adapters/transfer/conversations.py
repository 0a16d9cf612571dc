"""Importing conversations in turnlog's neutral form (docs/import-format.md; neutral.py decodes them).

A conversation is stored whole, its session with it, or not at all (importing.py), so an import that was killed leaves
whole conversations only.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from time import perf_counter

import msgspec

from turnlog.adapters.transfer import neutral
from turnlog.adapters.transfer.comparing import Mismatch, compare
from turnlog.adapters.transfer.importing import Group, Outcome, PlannedImport, planned_import
from turnlog.adapters.transfer.lines import Lines, open_lines
from turnlog.domain.errors import InvalidInput
from turnlog.store import ConversationStore

NAMED = 1_000
"""How many refused lines a report names; it counts them all."""


_PRETTY = (b"{", b"[")
"""The first line of a file that was printed for people; no line of it is a conversation."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A line of which nothing was written; ``line`` is 0 where the file itself could not be read."""

    file: str
    line: int
    reason: str


class ImportProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Given to ``import_files(progress=…)``; sizes are of the file as it lies there, ``None`` for a pipe."""

    file: str
    conversations: int
    read_bytes: int
    size_bytes: int | None


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was read and what came of it.

    ``conversations`` are those ``imported`` and those ``already_there``; their ``events`` and ``messages``.
    ``checked`` conversations were compared with what their lines say of the outcome. ``refused`` counts lines of which
    nothing was written; ``refusals`` names the first of them.
    """

    files: int = 0
    conversations: int = 0
    imported: int = 0
    already_there: int = 0
    events: int = 0
    messages: int = 0
    seconds: float = 0.0
    checked: int = 0
    mismatches: tuple[Mismatch, ...] = ()
    refused: int = 0
    refusals: tuple[Refusal, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether every line was good and nothing differed."""
        return not self.refused and not self.mismatches


Progress = Callable[[ImportProgress], None]


def import_files(
    store: ConversationStore,
    paths: Iterable[str | Path | Lines],
    *,
    check: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Import files of conversations, one a line, plain or gzip; ``-`` is standard input.

    A bad line is named in the report and changes nothing; the others are imported. With ``check`` every conversation is
    folded from the store and compared with the ``final_state`` and ``checkpoint`` of its line.

    Raises:
        StoreError: the storage failed; what was imported before stays.
    """
    importing = _Importing(store, check=check, progress=progress)
    for path in paths:
        importing.read(path)
    return importing.report()


class _Importing:
    """Imports line by line, and keeps the account of it."""

    def __init__(self, store: ConversationStore, *, check: bool, progress: Progress | None) -> None:
        self._store = store
        self._check = check
        self._progress = progress
        self._began = perf_counter()
        self._files = self._imported = self._already_there = self._events = self._messages = self._checked = 0
        self._mismatches: list[Mismatch] = []
        self._refusals: list[Refusal] = []
        self._refused = 0
        self._group: Group[PlannedImport] = Group(store)

    def report(self) -> ImportReport:
        """Return the account so far."""
        return ImportReport(
            files=self._files,
            conversations=self._imported + self._already_there,
            imported=self._imported,
            already_there=self._already_there,
            events=self._events,
            messages=self._messages,
            seconds=perf_counter() - self._began,
            checked=self._checked,
            mismatches=tuple(self._mismatches),
            refused=self._refused,
            refusals=tuple(self._refusals),
        )

    def read(self, path: str | Path | Lines) -> None:
        """Import one file."""
        self._files += 1
        if isinstance(path, Lines):
            self._read_lines(path)
            return
        try:
            with open_lines(path) as lines:
                self._read_lines(lines)
        except OSError as error:
            self._refuse(str(path), 0, error.strerror or str(error))

    def _read_lines(self, lines: Lines) -> None:
        number = 0
        live = lines.progress_bytes()[1] is None  # what comes through a pipe is stored as it comes
        try:
            for i, (number, line) in enumerate(lines):
                if not i and line in _PRETTY:
                    raise InvalidInput(lines.name, "one conversation per line is expected: this file has it on several")
                self._take(lines, number, line)
                if live or self._group.is_full:
                    self._flush(lines)
        except InvalidInput as error:
            self._refuse(lines.name, number, error.expected)
        self._flush(lines)

    def _take(self, lines: Lines, number: int, line: bytes) -> None:
        try:
            planned = planned_import(neutral.conversation_of(line), self._group.new_id, number)
        except InvalidInput as error:
            self._refuse(lines.name, number, error.expected if error.field == neutral.LINE else str(error))
            return
        if self._group.has(planned.session_id):
            self._flush(lines)
        self._group.add(planned)

    def _flush(self, lines: Lines) -> None:
        """Write what was gathered, then account for it."""
        for planned, outcome in self._group.write():
            if isinstance(outcome, str):
                self._refuse(lines.name, planned.line, outcome)
            else:
                self._count(lines.name, planned, outcome)
        if self._progress is not None:
            read, size = lines.progress_bytes()
            done = self._imported + self._already_there
            self._progress(ImportProgress(file=lines.name, conversations=done, read_bytes=read, size_bytes=size))

    def _count(self, file: str, planned: PlannedImport, outcome: Outcome) -> None:
        conversation = planned.conversation
        self._imported += outcome.new
        self._already_there += not outcome.new
        self._events += len(conversation.events)
        self._messages += sum(isinstance(event, neutral.MessageEvent) for event in conversation.events)
        if self._check and (conversation.final_state is not None or conversation.checkpoint is not None):
            self._checked += 1
            self._mismatches += compare(self._store, conversation, outcome.version, file, planned.line)

    def _refuse(self, file: str, line: int, reason: str) -> None:
        self._refused += 1
        if len(self._refusals) < NAMED:
            self._refusals.append(Refusal(file=file, line=line, reason=reason))
