"""The import of real conversations, where they are there."""

import os
import sys
from contextlib import closing
from functools import partial
from itertools import count
from pathlib import Path

import turnlog
from scripts.benchmarks import raw
from scripts.benchmarks.measuring import Figure, Setting, compared, rate, side_by_side
from scripts.benchmarks.stores import url_of
from turnlog.adapters.transfer.conversations import import_files

_ROOT = Path(__file__).resolve().parent.parent.parent
_DATA = Path(os.environ.get("TURNLOG_DATA") or _ROOT.parent / "shared" / "data")
_TOGETHER = 1_000


def imported(setting: Setting) -> list[Figure]:
    """Importing real conversation files (``TURNLOG_DATA``). Raw: inserting the same rows, 1,000 in a transaction.

    turnlog's side reads and decompresses the files, decodes and checks the lines, decides, seals, and catches up views.
    """
    found = sorted(_DATA.glob("*.jsonl.gz"), key=lambda file: file.stat().st_size)
    files = setting.pick(found, found[:1])
    if not files:
        print(f"import: LEFT OUT, there are no conversations in {_DATA}", file=sys.stderr)
        return []
    fresh = (setting.folder / f"{i}.db" for i in count())
    rows = _imported_rows(next(fresh), files)
    events, conversations = len(rows), len({row[0] for row in rows})
    pair = side_by_side(
        setting.pick(3, 1),
        lambda: rate(events, partial(_import, next(fresh), files)),
        lambda: rate(events, partial(_insert, next(fresh), rows)),
    )
    what = f"import {conversations:,} conversations, {events:,} events"
    return [compared("import", what, pair, against="inserting the same rows", unit="events/s")]


def _import(path: Path, files: list[Path]) -> None:
    with turnlog.open(url_of(path)) as store:
        report = import_files(store, files)
    if not report.ok:
        raise RuntimeError(f"the import refused {report.refused} lines")


def _imported_rows(path: Path, files: list[Path]) -> list[raw.Row]:
    _import(path, files)
    with closing(raw.connect(path)) as connection:
        return connection.execute(
            "SELECT originator_id, originator_version, topic, state FROM turnlog_events ORDER BY position"
        ).fetchall()


def _insert(path: Path, rows: list[raw.Row]) -> None:
    with raw.Log(path, "full", []) as log:
        for i in range(0, len(rows), _TOGETHER):
            raw.append_group(log.connection, rows[i : i + _TOGETHER])
