"""The public names, their documentation, and what importing them costs."""

import inspect
import subprocess
import sys
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, cast

import pytest

import turnlog

ROOT = Path(__file__).resolve().parent.parent
CLASSES = [name for name in turnlog.__all__ if inspect.isclass(getattr(turnlog, name))]

USE_AN_EXISTING_STORE = """
import sys
import turnlog

with turnlog.open(sys.argv[1]) as store:
    session = store.session("s", user_id="alice")
    assert not session.created
    session.add_message("user", "again")
    assert [message.content for message in session.history()] == ["once", "again"]
print(*sorted({"sqlalchemy", "psycopg", "typer", "rich", "redis", "opensearchpy", "turnlog.cache"} & set(sys.modules)))
"""


def test_the_exported_names_are_the_public_ones() -> None:
    """`__all__` is sorted and names everything public that the package holds; of its modules, `events`."""
    public = {name for name, value in vars(turnlog).items() if name[0] != "_" and not isinstance(value, ModuleType)}
    assert turnlog.__all__ == sorted(public | {"events"})


@pytest.mark.parametrize("name", turnlog.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    """Each class and function has a docstring of its own."""
    value = getattr(turnlog, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        assert (vars(value) if inspect.isclass(value) else {"__doc__": value.__doc__}).get("__doc__")


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_is_documented(name: str) -> None:
    """Each public method and property of a public class has a docstring."""
    members = cast("dict[str, Any]", vars(getattr(turnlog, name)))
    asked = [key for key, value in members.items() if key[0] != "_" and isinstance(value, FunctionType | property)]
    assert [key for key in asked if not members[key].__doc__] == []


def test_an_existing_store_is_used_without_the_slow_imports(sqlite_url: str) -> None:
    """Opening an existing SQLite store, reading and appending load no SQLAlchemy, psycopg, typer or rich."""
    with turnlog.open(sqlite_url) as store:
        store.session("s", user_id="alice").add_message("user", "once")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE_AN_EXISTING_STORE, sqlite_url],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == []
