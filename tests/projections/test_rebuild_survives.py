"""Rebuilds killed at every statement and at any moment, and rebuilds beside writers and readers."""

import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.projections.log import Log, Words, filled, words
from tests.projections.views_beside import rebuild_when_free
from turnlog.projections import building
from turnlog.projections.session_index import SessionFilter

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build in pages of ten events, so that few make many."""
    monkeypatch.setattr(building, "PAGE", 10)


@contextmanager
def running(program: str, *args: object) -> Generator["subprocess.Popen[str]", None, None]:
    """Run a program until the block ends."""
    command = [sys.executable, "-c", program, *map(str, args)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


APPENDING = """
import sys
from tests.projections.log import STARTED, Log, said

log = Log(sys.argv[1])
n = 0
while n < 20_000:
    log.append(f"busy-{n % 7}", *([] if n >= 7 else [STARTED]), said(str(n)))
    n += 1
    if n == 7:
        print("appending", flush=True)
"""


def test_rebuilding_beside_writers_and_readers(kept_log: Log, other: Callable[..., Log]) -> None:
    """Reads never find the view empty, and no session ever goes back in version."""
    filled(kept_log).with_views()
    assert kept_log.engine.catch_up()
    done, wrong = Event(), list[str]()
    looks = 0

    def read() -> None:
        nonlocal looks
        reader, newest = other().with_views(), 0
        while not done.is_set():
            reader.engine.catch_up(wait=False)
            rows = reader.views.select_sessions(SessionFilter("default"), limit=100)
            version = next((row.summary.version for row in rows if row.summary.session_id == "busy-0"), 0)
            if len(rows) < 20:
                wrong.append(f"{len(rows)} sessions")
            if version < newest:
                wrong.append(f"from version {newest} back to {version}")
            newest = version
            looks += 1

    thread = Thread(target=read)
    with running(APPENDING, kept_log.place) as appender:
        assert appender.stdout is not None
        assert appender.stdout.readline() == "appending\n"
        thread.start()
        try:
            rebuilds = 0
            while rebuilds < 5 or looks < 50:
                kept_log.engine.rebuild("session_index")
                rebuilds += 1
        finally:
            done.set()
            thread.join()
    assert wrong == []
    assert kept_log.engine.catch_up(wait=True)
    assert kept_log.engine.check("session_index") == []


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_a_rebuild_killed_at_any_statement(tmp_path: Path, step: int) -> None:
    """The views are whole after each death, and the next rebuild goes through; see crash.py."""
    command = [sys.executable, "-m", "tests.projections.crash", str(tmp_path / "log.db"), str(step)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert int(run.stdout) > 250 // step


REBUILDING = """
import sys
from tests.projections.crash import opened
from tests.projections.views_beside import rebuild_when_free
from turnlog.projections import building

building.PAGE = 10
log = opened(sys.argv[1])
print("rebuilding", flush=True)
while True:
    rebuild_when_free(log.engine.rebuild)
    print("done", flush=True)
"""


def test_a_rebuild_killed_at_any_moment(kept_log: Log) -> None:
    """However far it had come, the views that answer are whole."""
    filled(kept_log).with_views()
    view = Words()
    view.poison = "poison"
    kept_log.engine.add(view)
    assert kept_log.engine.catch_up()
    for moment in range(8):
        with running(REBUILDING, kept_log.place) as rebuilder:
            assert rebuilder.stdout is not None
            assert rebuilder.stdout.readline() == "rebuilding\n"
            Event().wait(0.01 * moment)  # the moment of death, not a synchronisation
            rebuilder.send_signal(signal.SIGKILL)
        for status in kept_log.engine.status():
            assert kept_log.engine.check(status.name) == []
    rebuild_when_free(kept_log.engine.rebuild)
    assert len(words(kept_log)) == 40
