"""The independent verifier: what is right passes, every damage is found and named, and nothing of turnlog is needed."""

import gzip
import subprocess
import sys
import tracemalloc
from base64 import b64encode
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from scripts.verify_log import main
from tests.log_damages import DAMAGES, FORGERIES, drop, log_of
from tests.sealed_log import Log, head, lines, said, sample
from turnlog.domain.events import SessionStarted

SCRIPT = Path(__file__).parents[1] / "scripts" / "verify_log.py"

Run = Callable[..., tuple[int, str]]
"""Export, heads or none → exit code, what was printed."""


@pytest.fixture
def verify(tmp_path: Path) -> Run:
    """Run the verifier's ``main``."""

    def run(export: bytes, heads: bytes | None = None) -> tuple[int, str]:
        (tmp_path / "log.jsonl").write_bytes(export)
        (tmp_path / "heads.jsonl").write_bytes(heads or b"")
        options = [] if heads is None else ["--heads", str(tmp_path / "heads.jsonl")]
        with redirect_stdout(StringIO()) as out:
            code = main([str(tmp_path / "log.jsonl"), *options])
        return code, out.getvalue()

    return run


# --- what is right ----------------------------------------------------------------------------------------------------


def test_a_sound_export_with_its_heads_is_accepted(verify: Run) -> None:
    """Interleaved streams, turns of several events, an erased stream and heads kept from it verify."""
    log = sample()
    assert verify(log.export(), log.heads()) == (0, "ok: 3 sessions, 14 events, 3 heads; 0 sessions have none\n")


def test_heads_from_before_an_erasure_and_of_earlier_versions_hold(verify: Run) -> None:
    """Erasing changes no hash, and a head need not be the last event's."""
    log = sample()
    code, out = verify(log.export(), lines([head(row) for row in log.rows]))
    assert (code, out) == (0, "ok: 3 sessions, 14 events, 14 heads; 0 sessions have none\n")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_heads_may_be_compressed_end_in_blank_lines_and_leave_sessions_out(
    verify: Run, compress: Callable[[bytes], bytes]
) -> None:
    """It is said how many were compared, and how many sessions none of them names."""
    log = sample()
    heads = compress(lines([head(log.row("s1", 5))]) + b"\n  \n")
    assert verify(log.export(), heads) == (0, "ok: 3 sessions, 14 events, 1 heads; 2 sessions have none\n")


def test_an_export_without_any_event_is_accepted(verify: Run) -> None:
    """An empty log is sound."""
    assert verify(Log().export()) == (0, "ok: 0 sessions, 0 events\n")


@pytest.mark.parametrize("compress", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("by_name", [True, False], ids=["file", "stdin"])
def test_it_runs_without_turnlog_on_the_standard_library_alone(
    tmp_path: Path, compress: Callable[[bytes], bytes], *, by_name: bool
) -> None:
    """It runs where neither the repository nor any installed package can be imported, on a file and on a pipe."""
    path = tmp_path / "log"
    path.write_bytes(compress(sample().export()))
    program = "import sys, runpy; sys.argv = sys.argv[1:]; assert not any('site-packages' in p for p in sys.path)\n"
    program += "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    program += "finally: assert not {'turnlog', 'msgspec'} & sys.modules.keys()"
    command = [sys.executable, "-I", "-S", "-c", program, str(SCRIPT), str(path) if by_name else "-"]
    done = subprocess.run(command, input=path.read_bytes(), capture_output=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"ok: 3 sessions, 14 events\n", b"")


def test_memory_does_not_grow_with_the_events_of_a_session(tmp_path: Path) -> None:
    """A session of ten times the events is verified in the same memory."""

    def peak(events: int) -> int:
        log = Log()
        log.turn("s1", SessionStarted(), *([said("x" * 500)] * events))
        path = tmp_path / str(events)
        path.write_bytes(log.export())
        del log
        tracemalloc.start()
        try:
            with redirect_stdout(StringIO()):
                assert main([str(path)]) == 0
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(1)  # what the first run only leaves in caches
    assert peak(1_000) < peak(100) + 100_000


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_is_found_and_named(verify: Run, name: str) -> None:
    """Whatever is changed in a log, the first bad event of the session is named, and the exit code is 1."""
    damage, words = DAMAGES[name]
    log = sample()
    damage(log)
    code, out = verify(log.export())
    assert (code, words in out, out.splitlines()[-1][:7]) == (1, True, "FAILED:"), out


def test_every_failing_session_is_named_once(verify: Run) -> None:
    """Damage in several sessions, and several times in one, gives one line per session and the count."""
    log = sample()
    for session, version in (("s1", 2), ("s1", 4), ("s2", 2), ("gone", 3)):
        log.row(session, version).state += b" "
    code, out = verify(log.export())
    places = [line.partition(":")[0] for line in out.splitlines()]
    expected = ['session "s1", version 2', 'session "s2", version 2', 'session "gone", version 3', "FAILED"]
    assert (code, places) == (1, expected)
    assert out.splitlines()[-1] == "FAILED: 3 failures in 3 sessions, 14 events"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bit", range(8))
def test_every_flipped_bit_of_a_stored_event_is_found(verify: Run, version: int, bit: int) -> None:
    """No bit of a stored event can flip unnoticed: the event is named, or its line where that is no text any more."""
    log = Log()
    log.turn("s", SessionStarted(user_id="a"))
    log.turn("s", said("é"))
    row = log.row("s", version)
    sound = row.state
    for i in range(len(sound)):
        row.state = sound[:i] + bytes([sound[i] ^ 1 << bit]) + sound[i + 1 :]
        code, out = verify(log.export())
        place = f'session "s", version {version}: ' if is_utf8(row.state) else f"line {version + 1}: "
        assert (code, place in out) == (1, True), (i, row.state)


def is_utf8(data: bytes) -> bool:
    """Return whether the bytes are text."""
    try:
        return bool(data.decode())
    except UnicodeDecodeError:
        return False


# --- logs that were forged with right hashes --------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORGERIES)
def test_a_stream_that_breaks_a_rule_is_refused_although_its_hashes_match(verify: Run, name: str) -> None:
    """The rules of a whole stream are checked, not only hashes."""
    log, words = FORGERIES[name]
    code, out = verify(log.export())
    assert (code, f'session "s1", {words}' in out) == (1, True), out


# --- heads ------------------------------------------------------------------------------------------------------------


def test_heads_find_a_shorter_stream(verify: Run) -> None:
    """A tail cut off at the end of a turn is sound in itself; the head tells."""
    log = sample()
    heads = log.heads()
    drop("s1", 5)(log)
    log.keys.clear()
    assert verify(log.export()) == (0, "ok: 3 sessions, 13 events\n")
    code, out = verify(log.export(), heads)
    assert (code, out.splitlines()[0]) == (
        1,
        'session "s1", version 5: a head of this version was kept, but the session ends at version 4',
    )


def test_heads_find_a_missing_session(verify: Run) -> None:
    """A whole stream gone is sound in itself; the head tells."""
    log = sample()
    heads = log.heads()
    drop("s1", 1, 2, 3, 4, 5)(log)
    log.keys.clear()
    assert verify(log.export()) == (0, "ok: 2 sessions, 9 events\n")
    code, out = verify(log.export(), heads)
    assert (code, out.splitlines()[0]) == (
        1,
        'session "s1", version 5: a head of this version was kept, but the session is missing',
    )


def test_heads_find_a_stream_that_was_recomputed(verify: Run) -> None:
    """A changed event with everything after it recomputed is sound in itself; the head tells."""
    kept = log_of(SessionStarted(), said("I owe you 100"), said("ok"), said("later"))
    log = log_of(SessionStarted(), said("I owe you 1"), said("ok"), said("later"))
    assert verify(log.export())[0] == 0
    code, out = verify(log.export(), lines([head(kept.row("s1", 3))]))
    assert (code, out.splitlines()[0]) == (
        1,
        'session "s1", version 3: the head that was kept has another hash: this event or one before it was changed',
    )


def test_a_head_of_the_same_version_and_another_hash_is_not_lost_among_right_ones(verify: Run) -> None:
    """Of two heads of one version, one must be wrong."""
    log = sample()
    other = {**head(log.row("s1", 5)), "hash": b64encode(bytes(32)).decode()}
    assert verify(log.export(), log.heads() + lines([other]))[0] == 1


# --- files that are cut, or no export ---------------------------------------------------------------------------------


def test_a_cut_file_is_noticed_wherever_it_is_cut(verify: Run) -> None:
    """No prefix of an export passes for one."""
    export = sample().export()
    ends = [i + 1 for i in range(len(export) - 1) if export[i] == ord("\n")]
    for length in (*ends, *range(ends[0], len(export) - 1, 37)):
        code, out = verify(export[:length])
        assert (code, "the file: it is cut" in out) == (1, True), length
    assert verify(export[: ends[0] - 1])[0] == 1
    assert verify(export[: ends[0] // 2])[0] == 2


def test_a_cut_or_damaged_gzip_file_is_noticed(verify: Run) -> None:
    """Cut compression is a cut file; damaged compression never passes."""
    whole = gzip.compress(sample().export())
    code, out = verify(whole[: len(whole) - 20])
    assert (code, "the file: it is cut" in out, "compressed" in out) == (1, True, True)
    for i in range(200, len(whole), 97):
        assert verify(whole[:i] + bytes([whole[i] ^ 16]) + whole[i + 1 :])[0] in {1, 2}


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"",
            b"{",
            b"[]",
            b'"event"',
            b"{}",
            b'{"event":7}',
            b'{"event":{}}',
            b'{"key":{}}',
            b"\xff",
            b'{"other":{}}',
        ),
        b'{"event":{"position":true,"stream":"default/s","version":1,"topic":"","state":""}}',
        b'{"event":{"position":1,"stream":"default/s","version":1,"topic":"","state":""},"key":{}}',
        b'{"key":{"stream":"default/s1","kind":"message","key":"","version":1,"fingerprint":"","more":0}}',
        b'[["event",{}]]',
        b"[" * 100_000,
    ],
    ids=lambda line: line[:20].decode(errors="replace"),
)
def test_a_malformed_line_is_named_by_its_number(verify: Run, line: bytes) -> None:
    """A line that is none of an export is reported with its number; the others are checked all the same."""
    first, rest = sample().export().split(b"\n", 1)
    code, out = verify(first + b"\n" + line + b"\n" + rest)
    assert (code, out.startswith("line 2: ")) == (1, True), out
    assert "session" not in out.splitlines()[0]


def test_lines_where_none_may_stand_and_wrong_counts_are_noticed(verify: Run) -> None:
    """Events stand before keys, nothing follows the last line, and what that counts must be there."""
    export = sample().export()
    *before, key, end = export.splitlines(keepends=True)
    assert "line 18: it is no event, key or end, or stands" in verify(b"".join([*before, key, before[-2], end]))[1]
    assert "line 19: " in verify(export + b'{"end":{"events":14,"keys":2}}\n')[1]
    assert "it says [15, 2] events and keys, but there are [14, 2]" in verify(export.replace(b": 14,", b": 15,"))[1]


@pytest.mark.parametrize(
    ("kind", "fingerprint", "good"),
    [
        ("message", b64encode(bytes(range(16))), True),
        ("command", b64encode(bytes(range(16)) + b"\0"), True),
        ("banana", b64encode(bytes(16)), False),
        ("message", b"!!", False),
        ("message", b"", False),
        ("message", b64encode(bytes(15)), False),
        ("message", b64encode(bytes(16) + b"\1"), False),
        ("message", b64encode(bytes(18)), False),
        ("message", b64encode(bytes(16)).replace(b"A==", b"B=="), False),
    ],
)
def test_the_form_of_a_key_is_checked(verify: Run, kind: str, fingerprint: bytes, *, good: bool) -> None:
    """A key is of a message or a command; its fingerprint is base64 of 16 bytes, and a zero byte may follow them."""
    log = Log()
    log.turn("s", SessionStarted())
    fields = {"stream": "default/s", "kind": kind, "key": "k", "version": 1, "fingerprint": fingerprint.decode()}
    export = log.export().replace(b'"keys": 0', b'"keys": 1')
    *before, end = export.splitlines(keepends=True)
    code, out = verify(b"".join([*before, lines([{"key": fields}]), end]))
    assert (code, out.startswith("line 3: a key is of") is not good) == (0 if good else 1, True), out


def test_who_closes_the_pipe_gets_no_error_and_the_exit_code(tmp_path: Path) -> None:
    """`verify_log.py BAD | head -1` shows one line, nothing on stderr, and still exits 1."""
    log = Log()
    for i in range(50):
        log.turn(f"s{i}", SessionStarted())
        log.row(f"s{i}", 1).state += b" "
    (tmp_path / "bad").write_bytes(log.export())
    command = [sys.executable, str(SCRIPT), str(tmp_path / "bad")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert (running.stderr.read(), running.wait(60)) == (b"", 1)


FORMAT_2 = Log().export().replace(b'"format": 1', b'"format": 2')


@pytest.mark.parametrize("content", [b"", b"\n", b"{}\n", b"PK\x03\x04", FORMAT_2])
def test_what_is_no_export_is_refused(verify: Run, capsys: pytest.CaptureFixture[str], content: bytes) -> None:
    """Another file, or a format that is not known, exits 2 and says so."""
    assert verify(content) == (2, "")
    assert capsys.readouterr().err.startswith("verify_log.py: cannot verify ")


def test_unreadable_files_exit_2(verify: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file, a file of heads that holds something else, and wrong options exit 2."""
    assert main([str(tmp_path / "none")]) == 2
    assert verify(sample().export(), b"{}\n") == (2, "")
    assert "line 1 of the heads" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([])
