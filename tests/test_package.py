"""What a user installs: a source archive, a wheel built from it, and an environment that holds nothing else."""

import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINKS = ("domain", "projections", "adapters")


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program; its output becomes the failure's message."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """Build one archive in isolation, as `pip install` would, and return it."""
    run(sys.executable, "-m", "build", f"--{kind}", "--outdir", out, source, cwd=out)
    (archive,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return archive


def first_example() -> str:
    """Return the README's first Python block."""
    found = re.search(
        r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found, "README.md has no Python example"
    return found[1]


def sources() -> set[str]:
    """Return the names of the package's files in this repository."""
    files = (path for path in (ROOT / "turnlog").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(ROOT).as_posix() for path in files}


@pytest.mark.slow
def test_the_example_runs_from_a_wheel_built_from_the_source_archive(tmp_path: Path) -> None:
    """The way from sdist to wheel to a fresh environment ends with the README's first example running there."""
    run("tar", "xzf", build("sdist", ROOT, tmp_path), cwd=tmp_path)
    (unpacked,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert not [link for link in LINKS if (unpacked / link).exists()]

    wheel = build("wheel", unpacked, tmp_path)
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if ".dist-info/" not in name} == sources()
    assert "turnlog/py.typed" in names

    venv.create(tmp_path / "fresh", with_pip=True)
    python = tmp_path / "fresh" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    run(python, "-W", "error", "-c", first_example(), cwd=tmp_path)
    assert run(tmp_path / "fresh" / "bin" / "turnlog", "--help", cwd=tmp_path)
