"""What catching up and rebuilding must not cost: importing SQLAlchemy takes longer than most of the rest."""

import subprocess
import sys
from pathlib import Path

import pytest

import turnlog

PROGRAM = """
import sys
import turnlog

with turnlog.open(sys.argv[1]) as store:
    store.get("s").add_message("user", "1")
    store.catch_up()
    assert "sqlalchemy" not in sys.modules, "catching up"
    store.rebuild()
    assert "sqlalchemy" not in sys.modules, "rebuilding"
    assert store.sessions().items
    assert "sqlalchemy" in sys.modules, "a query is made with it"
"""


@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])  # MariaDB's connections are lent by SQLAlchemy
def test_all_but_queries_imports_no_sqlalchemy(backend: str, request: pytest.FixtureRequest) -> None:
    """In a store that exists, SQLAlchemy is imported by the first query on a view."""
    url: str = request.getfixturevalue(f"{backend}_url")
    with turnlog.open(url) as store:
        store.session("s")
        store.catch_up()
    command = [sys.executable, "-c", PROGRAM, url]
    run = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
