"""The virtual environment that the peers have for themselves: ``.venv-peers``, made when it is first needed."""

import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
_FOLDER = _ROOT / ".venv-peers"
_PINS = Path(__file__).with_name("requirements.txt")
_INSTALL_S = 1_200


def python() -> Path | None:
    """Return the interpreter that has the peers installed as pinned; None, and say why, where that could not be done.

    It is made anew whenever the pins change. That takes a few minutes and the network.
    """
    own, stamp = _FOLDER / "bin" / "python", _FOLDER / "stamp"
    pins = f"{_PINS.read_text(encoding='utf-8')}{sys.version} {_FOLDER}"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == pins and own.exists():
        return own
    print("peers: installing them into .venv-peers; this takes a few minutes", file=sys.stderr, flush=True)
    shutil.rmtree(_FOLDER, ignore_errors=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", _FOLDER], check=True, capture_output=True, text=True)
        pip: list[str | Path] = [
            own,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--requirement",
            _PINS,
        ]
        subprocess.run(pip, check=True, capture_output=True, text=True, timeout=_INSTALL_S)
    except (subprocess.SubprocessError, OSError) as error:
        said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1]
        print(f"peers: NOT MEASURED, they could not be installed: {said}", file=sys.stderr)
        return None
    stamp.write_text(pins, encoding="utf-8")
    return own
