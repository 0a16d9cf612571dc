"""The import of real conversations, where they are there."""

import os
import sys
from contextlib import closing
from functools import partial
from itertools import count, groupby
from pathlib import Path

import turnlog
from scripts.benchmarks import raw
from scripts.benchmarks.measuring import Figure, Setting, compared, rate, side_by_side
from scripts.benchmarks.stores import url_of
from turnlog.adapters.conversations import import_files

_ROOT = Path(__file__).resolve().parent.parent.parent
_DATA = Path(os.environ.get("TURNLOG_DATA") or _ROOT.parent / "shared" / "data")


def imported(setting: Setting) -> list[Figure]:
    """Importing real conversation files (``TURNLOG_DATA``). Raw: inserting the same rows, a transaction a conversation.

    turnlog's side reads and decompresses the files, decodes and checks the lines, decides, seals, and catches up views.
    """
    found = sorted(_DATA.glob("*.jsonl.gz"), key=lambda file: file.stat().st_size)
    files = setting.pick(found, found[:1])
    if not files:
        print(f"import: LEFT OUT, there are no conversations in {_DATA}", file=sys.stderr)
        return []
    fresh = (setting.folder / f"{i}.db" for i in count())
    streams = _imported_streams(next(fresh), files)
    events = sum(len(rows) for rows in streams)
    pair = side_by_side(
        setting.pick(3, 1),
        lambda: rate(events, partial(_import, next(fresh), files)),
        lambda: rate(events, partial(_insert, next(fresh), streams)),
    )
    what = f"import {len(streams):,} conversations, {events:,} events"
    return [compared("import", what, pair, against="inserting the same rows", unit="events/s")]


def _import(path: Path, files: list[Path]) -> None:
    with turnlog.open(url_of(path)) as store:
        report = import_files(store, files)
    if not report.ok:
        raise RuntimeError(f"the import refused {report.refused} lines")


def _imported_streams(path: Path, files: list[Path]) -> list[list[raw.Row]]:
    _import(path, files)
    with closing(raw.connect(path)) as connection:
        rows: list[raw.Row] = connection.execute(
            "SELECT originator_id, originator_version, topic, state FROM turnlog_events ORDER BY position"
        ).fetchall()
    return [list(group) for _, group in groupby(rows, key=lambda row: row[0])]


def _insert(path: Path, streams: list[list[raw.Row]]) -> None:
    with raw.Log(path, "full", []) as log:
        for rows in streams:
            raw.append_group(log.connection, rows)
