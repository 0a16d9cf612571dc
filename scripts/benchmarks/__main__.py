"""Run benchmarks: ``./scripts/bench [NAME…] [--quick] [--json FILE] [--record]``.

What each measures, and against what, is said in the docstring of its function; ``--list`` shows them all.
"""

import argparse
import inspect
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import msgspec
from rich.console import Console

from scripts.benchmarks import (
    aio,
    appending,
    cached,
    conversations,
    postgresql,
    processes,
    reading,
    redis,
    report,
    storage,
    views,
    writers,
)
from scripts.benchmarks.host import host
from scripts.benchmarks.measuring import Figure, Setting
from scripts.benchmarks.peers import rows
from scripts.benchmarks.report import Report

BENCHMARKS: Mapping[str, Callable[[Setting], list[Figure]]] = MappingProxyType(
    {
        "append": appending.append,
        "turn": appending.turn,
        "late": appending.late,
        "open": appending.opened,
        "written": storage.written,
        "last": reading.last,
        "newest": reading.newest,
        "history": reading.history,
        "replay": reading.replay,
        "rebuild": views.rebuild,
        "sessions": views.sessions,
        "processes": processes.processes,
        "start": processes.start,
        "asyncio": aio.concurrent,
        "import": conversations.imported,
        "blob": storage.blob,
        "cache": cached.hits,
        "threads": writers.threads,
        "peers": rows.peers,
        "pg-append": postgresql.append,
        "pg-writers": writers.writers,
        "pg-latency": writers.latency,
        "pg-read": postgresql.read,
        "pg-views": postgresql.views,
        "pg-asyncio": postgresql.concurrent,
        "redis": redis.append,
        "redis-cluster": redis.cluster,
    }
)


def main() -> int:
    """Run what is asked for, show it, write it down. The exit code is 1 if a target was missed."""
    asked = _arguments()
    if asked.list:
        for name, benchmark in BENCHMARKS.items():
            print(f"{name}: {inspect.getdoc(benchmark)}\n")
        return 0
    done = _run(asked.names or list(BENCHMARKS), quick=asked.quick, folder=asked.folder)
    report.show(done, Console())
    if asked.json:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(done), indent=2) + b"\n")
    if asked.record:
        report.record(done)
    return 1 if any(figure.met is False for figure in done.figures) and not asked.quick else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure turnlog against the plain driver.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)}; all if none is named"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it works, measures nothing")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--record", action="store_true", help="write docs/benchmarks.json and the table beside it")
    parser.add_argument(
        "--folder", type=Path, help="a folder on the disk to measure; without, that for temporary files"
    )
    parser.add_argument("--list", action="store_true", help="say what each benchmark measures")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(BENCHMARKS):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; known: {', '.join(BENCHMARKS)}")
    if asked.record and (asked.quick or asked.names):
        parser.error("--record is for a whole run in full size: one table, measured in one go")
    return asked


def _run(names: list[str], *, quick: bool, folder: Path | None) -> Report:
    """Run benchmarks one after the other, each in a folder of its own."""
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="turnlog-bench-") as scratch:
        about = host(Path(scratch))
        for name in names:
            print(f"{name} …", file=sys.stderr, flush=True)
            own = Path(scratch) / name
            own.mkdir()
            done = BENCHMARKS[name](Setting(own, quick))
            for figure in done:
                print(f"    {report.line(figure)}", file=sys.stderr, flush=True)
            figures += done
            shutil.rmtree(own)
    return Report(quick=quick, host=about, figures=tuple(figures))


if __name__ == "__main__":
    sys.exit(main())
