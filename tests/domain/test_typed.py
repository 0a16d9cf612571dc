"""Typed decoders: several threads, and forks, while one is being made."""

import ast
import builtins
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from tests.faults.processes import alone
from turnlog.domain import typed

TURNLOG = Path(typed.__file__).parent.parent
STORED = b'{"inner":{"deep":{"n":1}}}'
LONG_S = 60.0
SHORT_S = 0.2

_begun, _goes_on = threading.Event(), threading.Event()


def slow_int() -> type[int]:
    """Be an annotation that takes the first who reads it a while."""
    if not _begun.is_set():
        _begun.set()
        _goes_on.wait(LONG_S)
    return int


class Deep(msgspec.Struct):
    """What is looked at while ``Inner`` is half known."""

    n: int


Deep.__annotations__["n"] = "slow_int()"  # evaluated by msgspec


class Inner(msgspec.Struct):
    """In both of the following."""

    deep: Deep


class First(msgspec.Struct):
    """What one thread makes a decoder of."""

    inner: Inner


class Second(msgspec.Struct):
    """What another makes one of meanwhile."""

    inner: Inner


def decode(kind: type[First] | type[Second]) -> int:
    """Make a decoder and use it."""
    return typed.decoder(kind)(STORED).inner.deep.n


def decode_at_once() -> list[int]:
    """Have one thread make a decoder while another is in the middle of it."""
    got: list[int] = []

    def begin(kind: type[First] | type[Second]) -> threading.Thread:
        thread = threading.Thread(target=lambda: got.append(decode(kind)))
        thread.start()
        return thread

    first = begin(First)
    assert _begun.wait(LONG_S)
    second = begin(Second)
    second.join(SHORT_S)
    _goes_on.set()
    first.join(LONG_S)
    second.join(LONG_S)
    return got


def decode_in_a_child() -> int:
    """Fork while a thread is in the middle of making a decoder; the child makes one of the same."""
    thread = threading.Thread(target=decode, args=(First,))
    thread.start()
    assert _begun.wait(LONG_S)
    threading.Timer(SHORT_S, _goes_on.set).start()
    child = os.fork()
    if child == 0:
        os._exit(decode(Second))
    thread.join(LONG_S)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(("work", "expected"), [(decode_at_once, [1, 1]), (decode_in_a_child, 1)])
def test_one_at_a_time(work: Callable[[], object], expected: object) -> None:
    """Nobody meets what msgspec knows of a class before all of it is there: that ends the process."""
    assert alone(work) == expected


def test_decoded_and_converted() -> None:
    """Both ways lead to the same."""
    assert alone(both_ways)


def both_ways() -> bool:
    """Compare them."""
    _begun.set()
    return typed.converter(First)(msgspec.json.decode(STORED)) == typed.decoder(First)(STORED)


def typed_elsewhere(tree: ast.AST) -> Iterator[int]:
    """Find the lines that decode into a class, or make a decoder, without ``turnlog.domain.typed``."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        kinds = [keyword.value for keyword in node.keywords if keyword.arg == "type"]
        named = {name.id for kind in kinds for name in ast.walk(kind) if isinstance(name, ast.Name)}
        if node.func.attr in ("Decoder", "convert") or (node.func.attr == "decode" and named - set(dir(builtins))):
            yield node.lineno


def test_nowhere_else() -> None:
    """All of turnlog makes its decoders there."""
    files = set(TURNLOG.rglob("*.py")) - {TURNLOG / "domain/typed.py"}
    assert len(files) > 100
    found = [f"{file}:{line}" for file in files for line in typed_elsewhere(ast.parse(file.read_text("utf-8")))]
    assert not found


def test_what_is_looked_for_is_found() -> None:
    """The search above finds each way, and lets pass what holds no class."""
    lines = [
        "m.json.Decoder(A)",
        "m.convert(b, A)",
        "m.json.decode(b, type=list[A])",
        "m.json.decode(b, type=list[int])",
    ]
    assert list(typed_elsewhere(ast.parse("\n".join(lines)))) == [1, 2, 3]
