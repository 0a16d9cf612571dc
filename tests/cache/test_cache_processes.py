"""Of the processes that share a cache and want the same answer, one calls the model."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cache.conftest import DEADLINE_S, opened
from tests.cache.test_answers import eventually

ROOT = Path(__file__).resolve().parents[2]
SHORT_S, LONG_S = 1.0, 60.0
"""Leases of who is killed, and of who must not lose his, which is longer than a busy machine lets a process wait."""
PROGRAM = """
import sys, time
from pathlib import Path
import turnlog.cache

url, lease_s, folder, name = sys.argv[1:]

def model(request):
    with Path(folder, "asked").open("a") as asked:
        asked.write(name)
    while not Path(folder, "go").exists():
        time.sleep(0.002)
    return name

with turnlog.cache.open(url, lease_s=float(lease_s), timeout_s=60.0) as cache:
    print(cache.get_or_call({"n": 1}, model), flush=True)
"""


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
def test_one_process_calls_and_when_it_dies_another(
    backend: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A leads and is killed; B, which waited, calls after A's lease; C waits for B as long as B takes."""
    url: str = request.getfixturevalue(f"{backend}_url")
    asked = tmp_path / "asked"
    asked.touch()

    def start(name: str, lease_s: float) -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", PROGRAM, url, str(lease_s), str(tmp_path), name]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    with start("A", SHORT_S) as a, ThreadPoolExecutor(1) as pool, opened(url, lease_s=LONG_S) as cache:
        assert eventually(lambda: asked.read_text() == "A")
        with start("B", LONG_S) as b:
            a.send_signal(signal.SIGKILL)
            assert eventually(lambda: asked.read_text() == "AB")
            c = pool.submit(cache.get_or_call, {"n": 1}, lambda _: "C")
            (tmp_path / "go").touch()
            assert b.communicate(timeout=DEADLINE_S)[0] == "B\n"
        assert c.result(DEADLINE_S) == "B"
    assert asked.read_text() == "AB"
