"""`scripts/run`, the main job, without its set-up: a conversation held and continued, or the user's own files."""

import re
import subprocess
import sys
from pathlib import Path

import turnlog
from tests.adapters.commands import DEADLINE_S, ROOT, TALK, Done


def main_job(folder: Path, *arguments: object) -> Done:
    """Run it in a folder, until its end."""
    command = [sys.executable, str(ROOT / "scripts" / "conversation.py"), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def test_the_main_job_ends_with_a_verdict_and_how_to_go_on(tmp_path: Path) -> None:
    """On a store that stays, beside the same user's other sessions; the last lines say where `turnlog` is."""
    with turnlog.open(f"sqlite:///{tmp_path}/s.db") as store:
        store.session("other", user_id="alice").add_message("user", "Hello?")
    done = main_job(tmp_path, "--store", "sqlite:///s.db")
    assert (done.code, "✗" in done.out) == (0, False), done
    verdict, *_ = [line for line in done.out.splitlines() if "✓ Everything" in line]
    end = done.out.partition(verdict)[2]
    assert f"{Path(sys.executable).with_name('turnlog')} sessions --store sqlite:///s.db" in end
    with turnlog.open(f"sqlite:///{tmp_path}/s.db") as store:
        assert store.get("other").version == 2
        assert {session.status for session in store.sessions().items} == {"active", "completed"}


def test_the_main_job_goes_on_with_a_conversation_of_the_files(tmp_path: Path) -> None:
    """Whatever is newer in the store, and again; a bad line does not keep it from the others, but from exit code 0."""
    (tmp_path / "good").write_text(TALK % 1, encoding="utf-8")
    (tmp_path / "bad").write_text(TALK % 1 + TALK % 2 + "{bad\n", encoding="utf-8")
    with turnlog.open(f"sqlite:///{tmp_path}/s.db") as store:
        for file, code, original in (("good", 0, "c1"), ("bad", 1, "c2"), ("bad", 1, "c2")):
            store.session().add_message("user", "newer")
            done = main_job(tmp_path, "--store", "sqlite:///s.db", file)
            assert done.code == code, done
            (fork, source), *_ = re.findall(r"session (\S+) goes on from (\S+) at version 2", done.out)
            assert source == original
            assert f"$ turnlog replay {fork}\n" in done.out
            assert ("bad, line 3" in done.err) == bool(code)
            assert "all is well" in done.out
        assert len(store.sessions().items) == 3 + 2 + 3


def test_the_main_job_says_that_files_hold_no_conversation(tmp_path: Path) -> None:
    """An empty file is exit code 1 and no audit of something else; a file that is not there is exit code 2."""
    (tmp_path / "empty").touch()
    with turnlog.open(f"sqlite:///{tmp_path}/s.db") as store:
        store.session("other")
        done = main_job(tmp_path, "--store", "sqlite:///s.db", "empty")
        assert (done.code, "replay" in done.out) == (1, False)
        assert "✗ there was no conversation in these files" in done.out
        assert len(store.sessions().items) == 1
    assert main_job(tmp_path, "absent").code == 2
