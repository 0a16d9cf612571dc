"""What catching up must not cost: importing SQLAlchemy takes longer than everything else."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.projections.log import STARTED, Log

PROGRAM = """
import sys
from tests.projections.log import Log, said

log = Log(sys.argv[1]).with_views()
log.append("s", said("1"))
assert log.engine.catch_up()
assert "sqlalchemy" not in sys.modules, "catching up"
log.row("s")
assert "sqlalchemy" in sys.modules, "a query is made with it"
"""


# MariaDB's connections are lent by SQLAlchemy
@pytest.mark.parametrize("kept_log", ["file", "postgresql"], indirect=True)
def test_opening_appending_and_catching_up_import_no_sqlalchemy(kept_log: Log) -> None:
    """In a store that exists, SQLAlchemy is imported by the first query on a view."""
    kept_log.with_views().append("s", STARTED)
    command = [sys.executable, "-c", PROGRAM, str(kept_log.place)]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
