"""A log export (export.py) back into a store, as the same log: ids, times, versions, hashes, keys.

The file is read twice. The first reading checks every line, every chain and the end, before anything is written; the
second appends whole turns in the file's order. So a restore that was stopped has left a prefix of whole turns, and goes
on when it is started again: what is already there with the same hashes is passed over.
"""

from collections.abc import Callable
from time import perf_counter
from typing import BinaryIO

import msgspec

from turnlog.adapters.inside import decider_of
from turnlog.adapters.transfer.exported import ExportReading, check_export, turns
from turnlog.adapters.transfer.foreign import ForeignRows, groups
from turnlog.adapters.transfer.lines import Lines
from turnlog.domain.values import Failure
from turnlog.store import ConversationStore


class RestoreProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Given to ``restore_log(progress=…)``; ``total`` events are known once all have been checked."""

    checked: int
    restored: int
    total: int | None


class RestoreReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the file holds, and of it what was restored now or already there; ``refused`` differs from what is there."""

    sessions: int
    events: int
    keys: int
    restored: int
    already_there: int
    refused: tuple[Failure, ...]
    seconds: float


Progress = Callable[[RestoreProgress], None]


def restore_log(store: ConversationStore, file: BinaryIO | Lines, *, progress: Progress | None = None) -> RestoreReport:
    """Make the log in ``file`` (plain or gzip) part of the store.

    Sessions that are there already and differ are left alone and named in the report; those erased here stay erased.

    Raises:
        InvalidInput: the file is no export, is cut, damaged, of another tenant or a newer format; nothing is written.
        CorruptLog: a session in it does not verify; the message names the first bad event, and nothing is written.
    """
    began = perf_counter()
    given = file if isinstance(file, Lines) else Lines(file, str(getattr(file, "name", "the export")))
    tell = progress or _silent

    def tell_checked(events: int) -> None:
        tell(RestoreProgress(checked=events, restored=0, total=None))

    with given.rewindable() as lines:
        checked = check_export(ExportReading(lines, store.tenant), decider_of(store).codec, tell_checked)
        lines.rewind()
        foreign = ForeignRows(decider_of(store).recorder)
        restored = already_there = 0
        for group in groups(turns(ExportReading(lines, store.tenant))):
            written = foreign.add(group)
            restored += written.events
            already_there += written.already_there
            tell(RestoreProgress(checked=checked.events, restored=restored, total=checked.events))
    store.catch_up()
    return RestoreReport(
        sessions=checked.sessions,
        events=checked.events,
        keys=checked.keys,
        restored=restored,
        already_there=already_there,
        refused=tuple(foreign.refused.values()),
        seconds=perf_counter() - began,
    )


def _silent(_: RestoreProgress) -> None:
    return
