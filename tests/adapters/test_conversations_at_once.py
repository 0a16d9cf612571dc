"""Importing conversations in processes that are killed, or that run at once."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import turnlog
from tests.adapters.commands import DEADLINE_S, ROOT, wait_for
from tests.adapters.talks import Json, Write, data, said, talk
from turnlog.adapters.transfer.conversations import import_files


def start_import(url: str, *paths: Path) -> subprocess.Popen[str]:
    """Start ``turnlog import --json`` as a process."""
    command = [sys.executable, "-W", "error", "-m", "turnlog", "import", "--json", "--store", url, *map(str, paths)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def long_talks(n: int) -> list[Json]:
    """Return conversations of 41 events each, with what they lead to."""
    return [
        talk(
            *(said(f"{i}.{k}") for k in range(40)),
            data(number=i),
            conversation_id=f"c{i}",
            user_id=f"u{i % 7}",
            final_state={"data": {"number": i}, "message_count": 40, "status": "open"},
        )
        for i in range(n)
    ]


def feed(pipe: Path, lines: bytes, over: threading.Event) -> None:
    """Write lines to whoever reads a pipe, and have him wait for more."""
    with suppress(BrokenPipeError), pipe.open("wb") as writing:
        writing.write(lines)
        writing.flush()
        over.wait()


def test_an_import_that_was_killed_leaves_whole_conversations_and_is_finished_by_the_next(
    sqlite_url: str, write: Write, tmp_path: Path
) -> None:
    """After kill -9 in the middle every session that is there is whole; importing again adds the rest."""
    n = 1_500
    path, pipe, over = write(*long_talks(n)), tmp_path / "pipe", threading.Event()
    os.mkfifo(pipe)
    all_but_one = b"".join(path.read_bytes().splitlines(keepends=True)[:-1])
    feeding = threading.Thread(target=feed, args=(pipe, all_but_one, over), daemon=True)
    feeding.start()
    with turnlog.open(sqlite_url) as store:
        with start_import(sqlite_url, pipe) as process:
            wait_for(lambda: store.position > 42 * 20)
            process.send_signal(signal.SIGKILL)
        over.set()
        feeding.join(DEADLINE_S)
        assert process.returncode == -signal.SIGKILL
        there = list(store.heads())
        assert 20 < len(there) < n
        assert {head.version for head in there} == {42}
        assert store.verify().ok
        report = import_files(store, [path], check=True)
        assert (report.already_there, report.imported, report.checked) == (len(there), n - len(there), n)
        assert report.ok
        assert store.stats().events == 42 * n


def test_two_imports_at_once_store_everything_once(sqlite_url: str, write: Write) -> None:
    """Two processes import the same file at the same time: each conversation is imported by one of them."""
    n = 300
    path = write(*long_talks(n))
    processes = [start_import(sqlite_url, path) for _ in range(2)]
    outputs = [process.communicate(timeout=DEADLINE_S) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    reports = [json.loads(out)["conversations"] for out, _ in outputs]
    assert sum(report["imported"] for report in reports) == n
    assert all(report["conversations"] == n for report in reports)
    with turnlog.open(sqlite_url) as store:
        assert store.stats().events == 42 * n
        assert store.verify().ok
