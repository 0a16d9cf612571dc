"""The example of docs/adapters.md passes the whole kit: contracts, the library's cases, the state machine."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from eventsourcing.tests import persistence as shipped
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

import turnlog
from tests.kit.file_library import FileProcessRecorder
from tests.kit.files import FileRecorder, opened
from tests.machine.test_machine import FEWER, QUICK
from turnlog import Backend, ConversationStore, CorruptLog
from turnlog.adapters.sqlite.private import with_views
from turnlog.domain.recorder import Recorder
from turnlog.testing.contracts import LockedContract, RecorderContract, TwoTenantsContract, ViewsContract
from turnlog.testing.contracts.library import InDirectory, TextIds, UuidIds
from turnlog.testing.contracts.rows import S, batch, grow, key, tombstone, write
from turnlog.testing.machine import StoreMachine

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = 2_000
"""Bytes of a segment, so that a test fills several."""


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """An empty one."""
    made = FileRecorder(tmp_path / "log", durability="normal", segment_bytes=SMALL)
    yield made
    made.close()


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    """What a store makes of it: with views of its own in memory."""
    completed = with_views(Backend(FileRecorder(tmp_path / "log", durability="normal")))
    yield completed
    completed.recorder.close()
    completed.views.close()


class TestRecorder(RecorderContract, LockedContract, TwoTenantsContract):
    out_of_reach = ("freed",)

    def test_several_see_the_same(self, recorder: Recorder, tmp_path: Path) -> None:
        """What one has written another reads, whichever segment it is in, and each goes on where the other ended."""
        other = FileRecorder(tmp_path / "log", durability="full", segment_bytes=SMALL)
        for n in range(1, 8):
            rows = grow((recorder, other)[n % 2], S, 3)
            assert other.select_stream(S) == recorder.select_stream(S) == rows
        assert len(list((tmp_path / "log").glob("*.log"))) > 2

    def test_a_torn_line_is_cut_off(self, recorder: Recorder, tmp_path: Path) -> None:
        """Wherever a line breaks off, nobody reads any of it, and the next writer takes its place."""
        rows = grow(recorder, S, 2)
        (segment,) = (tmp_path / "log").glob("*.log")
        whole = segment.read_bytes()
        for size in range(0, len(whole), 97):
            segment.write_bytes(whole + whole[:size])
            assert recorder.select_stream(S) == rows
            assert FileRecorder(tmp_path / "log").select_stream(S) == rows
            assert segment.read_bytes() == whole
        assert len(grow(recorder, S, 1)) == 3

    def test_any_flipped_bit_is_found(self, recorder: Recorder, tmp_path: Path) -> None:
        """A line that ends and does not match its checksum is corrupt, and its place is told."""
        write(recorder, batch(S, 2, keys=[key("k", 2)]))
        (segment,) = (tmp_path / "log").glob("*.log")
        whole = segment.read_bytes()
        for place in range(0, len(whole) - 1, 53):
            segment.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            assert "byte 0" in recorder.check()[0]
            with pytest.raises(CorruptLog, match=r"00000001\.log"):
                FileRecorder(tmp_path / "log")
        segment.write_bytes(whole)
        assert recorder.check() == []

    def test_what_is_erased_is_in_no_file(self, recorder: Recorder, tmp_path: Path) -> None:
        """Not after the erasure; nor, if the process died before the files were wiped, after the next one came."""
        write(recorder, batch(S, 2, keys=[key("k", 2)], words="a secret"))
        (segment,) = (tmp_path / "log").glob("*.log")
        before = segment.read_bytes()
        write(recorder, tombstone(S, recorder.select_stream(S)))
        after = segment.read_bytes()
        state = recorder.select_stream(S)[1][3]
        segment.write_bytes(before + after[len(before) :])
        assert FileRecorder(tmp_path / "log").select_stream(S)[1][3] == state
        assert segment.read_bytes() == after
        assert b"null" in state


class TestViews(ViewsContract):
    pass


class Recorders(InDirectory):
    ids = "uuid"

    def create_recorder(self) -> Any:
        n = len(list(self.directory.iterdir()))
        return FileProcessRecorder(self.directory / str(n), originator_id_type=self.ids, durability="normal")


class TestApplicationRecorder(UuidIds, Recorders, shipped.ApplicationRecorderTestCase[FileProcessRecorder]):
    def test_insert_subscribe(self) -> None:
        """The optional case: following."""
        self.optional_test_insert_subscribe()


class TestProcessRecorder(TextIds, Recorders, shipped.ProcessRecorderTestCase):
    pass


class TestTrackingRecorder(Recorders, shipped.TrackingRecorderTestCase):
    pass


class TestNonInterleaving(UuidIds, Recorders, shipped.NonInterleavingNotificationIDsBaseCase):
    pass


class OnFiles(StoreMachine):
    def new_url(self) -> str:
        return f"files://{self.folder}/log"

    def opened(self, **options: Any) -> ConversationStore:
        options.pop("read_only", None)
        backend = opened(self.url, durability="normal", options=options)
        return turnlog.open(backend, clock=lambda: self.clock, new_id=self.new_id, **options)


def test_the_store_and_the_model_agree() -> None:
    """On files as everywhere, with several stores on one folder."""
    run_state_machine_as_test(OnFiles, settings=settings(QUICK, max_examples=QUICK.max_examples // FEWER))


FORKING = """
import os
import sys
import threading
import turnlog
from tests.kit.files import FileRecorder
store = turnlog.open(turnlog.Backend(FileRecorder(sys.argv[1], durability="normal")))
session = store.session("s")
ended = threading.Event()
def speak():
    while not ended.is_set():
        session.add_message("user", "parent")
threading.Thread(target=speak, daemon=True).start()
for n in range(20):
    child = os.fork()
    if not child:
        store.get("s").add_message("user", f"child {n}")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
ended.set()
"""


def test_forked_children_go_on(tmp_path: Path) -> None:
    """A child that was forked while a thread of its parent was writing writes too, and both lose nothing."""
    command = [sys.executable, "-c", FORKING, str(tmp_path)]  # without -W error: newer Pythons warn of forks in threads
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, check=True, timeout=120)
    with turnlog.open(Backend(FileRecorder(tmp_path))) as store:
        assert store.verify().ok
        contents = [message.content for message in store.get("s").history()]
    assert [content for content in contents if content != "parent"] == [f"child {n}" for n in range(20)]


FILLING = """
import resource
import sys
import turnlog
from tests.kit.files import FileRecorder
with turnlog.open(turnlog.Backend(FileRecorder(sys.argv[1]))) as store:
    session = store.session("s")
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, resource.RLIM_INFINITY))
    told = []
    try:
        while True:
            told.append(session.add_message("user", "x" * 1_000).version)
    except turnlog.StoreUnavailable as error:
        assert "File too large" in str(error)
    assert session.refresh().version == told[-1] == store.verify().events
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert session.add_message("user", "again").version == told[-1] + 1
"""


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """Where a line does not fit, nothing of it is left; when there is room again, all goes on."""
    command = [sys.executable, "-W", "error", "-c", FILLING, str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, check=True, timeout=120)


WRITER = """
import sys
import turnlog
from tests.kit.files import FileRecorder
with turnlog.open(turnlog.Backend(FileRecorder(sys.argv[1], segment_bytes=20_000))) as store:
    session = store.session("s")
    for n in range(int(sys.argv[2])):
        print(session.add_message("user", f"{sys.argv[3]} {n}").version, flush=True)
"""


def _writer(folder: Path, n: int, name: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-W", "error", "-c", WRITER, str(folder), str(n), name]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": "."}, stdout=subprocess.PIPE, text=True)


def test_several_processes(tmp_path: Path) -> None:
    """Of processes that write to one session none loses a message, one that is killed loses none it was told of."""
    writers = [_writer(tmp_path, 20, str(n)) for n in range(2)]
    killed = _writer(tmp_path, 100_000, "killed")
    assert killed.stdout is not None
    told = [int(killed.stdout.readline()) for _ in range(5)]
    killed.send_signal(signal.SIGKILL)
    told += [int(line) for line in killed.communicate()[0].splitlines()]
    for writer in writers:
        out, _ = writer.communicate(timeout=60)
        assert writer.returncode == 0
        told += [int(line) for line in out.splitlines()]
    with turnlog.open(Backend(FileRecorder(tmp_path))) as store:
        assert store.verify().ok
        contents = {message.version: message.content for message in store.get("s").history()}
    assert len(set(told)) == len(told)
    assert set(told) <= set(contents)
    for name in ("0", "1"):
        assert [content for content in contents.values() if str(content).startswith(f"{name} ")] == [
            f"{name} {n}" for n in range(20)
        ]


@pytest.mark.parametrize("name", ["files", "file_library"])
def test_the_page_shows_all_of_it(name: str) -> None:
    """docs/adapters.md shows this example whole and in order, as it is tested here."""
    page = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
    _, _, code = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8").partition('"""\n\n')
    for part in re.split(r"\n\n\n(?=\S)", re.sub(r"from tests.*\n", "", code).strip()):
        _, found, page = page.partition(part)
        assert found, part
