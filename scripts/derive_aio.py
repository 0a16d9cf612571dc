#!/usr/bin/env python3
"""Write turnlog/aio/surface.py and followed.py: names, signatures and docstrings of what is blocking, awaitable.

Run it after changing those (`.venv/bin/python scripts/derive_aio.py`); tests/aio/test_surface.py fails until then. What
a signature cannot tell stands in the tables below: which calls do no I/O, where the words differ, unusual bodies.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill, indent
from types import MappingProxyType

ROOT = Path(__file__).resolve().parent.parent
SURFACE = ROOT / "turnlog" / "aio" / "surface.py"
FOLLOWED = ROOT / "turnlog" / "aio" / "followed.py"

NO_IO = frozenset({"for_user", "on_committed", "data_as"})
"""Methods that do no I/O: they are not awaited."""
IO_PROPERTIES = frozenset({"position"})
"""Properties that read the store: they are awaited."""
NOT_PUBLIC = frozenset({"delete_session", "fork_session", "reset_session"})
"""What sessions ask of their store (session.Home)."""
WORDS: Mapping[str, Sequence[tuple[str, str]]] = MappingProxyType(
    {
        "ConversationStore": (
            (
                "Made by ``turnlog.open``; a context manager; safe to share between threads.",
                "Made by ``turnlog.aio.open``; an asynchronous context manager; for one loop.",
            ),
        ),
        "Followed": (
            (
                "Made by ``turnlog.follow``; a context manager; safe to share between threads.",
                "Made by ``turnlog.aio.follow``; an asynchronous context manager; for one loop.",
            ),
        ),
        "follow": (
            (
                "follow a store, making its indices if they are not there; the store stays the record.",
                "follow a store, which stays the record; ``await`` it, or ``async with``.",
            ),
        ),
        "run": (("until ``stop`` is set; wait", "until stopped or cancelled; wait"),),
        "add_projection": (("by writers.", "by writers, in their threads."),),
        "on_committed": (("nothing.", "nothing.\n\nIt is called on the event loop, and may be a coroutine function."),),
        "open": (
            ("Open a conversation store,", "Open a conversation store (``await`` it, or ``async with``),"),
            (
                "    options:",
                "    max_threads: as many calls are made at the same time, each in a thread.\n    options:",
            ),
        ),
        "using": (
            ("in the same thread too", "in the same task too"),
            ("On\nMariaDB, and with ``ordering", "With ``ordering"),
            (
                "Keep it short.",
                "Keep it short.\n\nA call has the connection to itself: others who use it wait, and are waited for.",
            ),
            (
                "psycopg.Connection`` to this store's database, or a ``pymysql.Connection`` to its server,\n        in",
                "psycopg.AsyncConnection`` to this store's database, in",
            ),
            (" On MariaDB the session has to be set to that: it is not by default.", ""),
            ("or the store is on neither.", "or the store is not on PostgreSQL."),
        ),
        "turn": (
            ("``with session", "``async with session"),
            ("one thread.", "the task that opened it and those started inside."),
        ),
    }
)
"""By name: words of the blocking docstring, and those that stand for them here."""
ABOUT: Mapping[str, str] = MappingProxyType(
    {
        "Session": """
Calls on one handle are made one after the other, whichever tasks make them. A call that has begun is finished even
if its task is cancelled, so that the handle knows what was written.
""",
        "ConversationStore": """
A call that has begun is finished even if its task is cancelled; long ones (``rebuild``, ``catch_up`` and
``add_projection``) are interrupted at their next page then.
""",
        "Followed": """
It has threads of its own. A call that has begun is finished even if its task is cancelled; long ones (``run``,
``rebuild`` and ``catch_up``) are interrupted at their next page then.
""",
    }
)
"""What the docstrings of the classes say more."""
HEADS: Mapping[str, str] = MappingProxyType(
    {
        "Session": '''
def __init__(self, threads: Threads, blocking: session.Session) -> None:
    self._threads = threads
    self._blocking = blocking
    self._lock = asyncio.Lock()
    self.created = blocking.created
    """Whether the call that gave this handle created the session."""

def __repr__(self) -> str:
    return f"<aio.{repr(self._blocking)[1:]}"

async def _run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    async with self._lock:
        return await self._threads.finish(call, *args, **kwargs)
''',
        "ConversationStore": """
def __init__(self, threads: Threads, blocking: store.ConversationStore, news: News | None = None) -> None:
    self._threads = threads
    self._blocking = blocking
    self._is_part = news is not None  # what a user sees of another store
    self._news = news or News(blocking)

async def __aenter__(self) -> Self:
    return self

async def __aexit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    await to_the_end(self.close())

def __repr__(self) -> str:
    return f"<aio.{repr(self._blocking)[1:]}"

async def _run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return await self._threads.finish(call, *args, **kwargs)
""",
        "Followed": """
def __init__(self, threads: Threads, blocking: followed.Followed) -> None:
    self._threads = threads
    self._blocking = blocking

async def __aenter__(self) -> Self:
    return self

async def __aexit__(
    self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
) -> None:
    await to_the_end(self.close())

async def _run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    return await self._threads.finish(call, *args, **kwargs)
""",
    }
)
BODIES: Mapping[str, str] = MappingProxyType(
    {
        "refresh": "await self._run(self._blocking.refresh)\nreturn self",
        "turn": """
checked = inputs.options(options)
return Turn(self._threads, self._lock, lambda: self._blocking.turn(**checked))
""",
        "for_user": "return ConversationStore(self._threads, self._blocking.for_user(user_id), self._news)",
        "using": """
lender = store.lender_of(self._blocking, connection)
threads = self._threads.lending(lender.lent)
bound = await threads.finish(lambda: self._blocking.using(lender.connection))
return ConversationStore(threads, bound, self._news)
""",
        "on_committed": """
if callable(callback):
    callback = self._threads.telling(callback)
self._blocking.on_committed(callback)
""",
        "subscribe": """
blocking = self._blocking.subscribe(after=after or 0, types=types)
start = self._threads.begin(lambda: self._blocking.position) if after is None else None
return Subscription(self._threads, self._news, blocking, start)
""",
        "close": """
if not self._is_part:
    await self._threads.close(self._blocking.close)
    self._news.close()
""",
        "Followed.close": "await self._threads.close(self._blocking.close)",
        "run": "await self._threads.until(self._blocking.run, stop, told)",
        "follow": """
blocking = store._blocking  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what it is made of

async def opened() -> Followed:
    threads = Threads(MAX_THREADS)
    call = partial(followed.follow, blocking, url, **options)
    return Followed(threads, await threads.finish_or_undo(call, undo=followed.Followed.close))

return Opening(opened)
""",
        "open": """
async def opened() -> ConversationStore:
    threads = Threads(max_threads)
    call = partial(store.open, CALL)
    return ConversationStore(threads, await threads.finish_or_undo(call, undo=store.ConversationStore.close))

return Opening(opened)
""",
    }
)
"""Bodies that do not follow from the signature."""
OWN = frozenset({"Session", "ConversationStore", "Followed", "Subscription", "Turn"})
IMPORTS = '''"""The session and the store, awaitable. Made by scripts/derive_aio.py from the blocking ones."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from types import TracebackType
from typing import ParamSpec, Self, TYPE_CHECKING, TypeVar

from turnlog import inputs, session, store
from turnlog.aio.iterating import Items
from turnlog.aio.subscription import News, Subscription
from turnlog.aio.threads import MAX_THREADS, Opening, Threads, to_the_end
from turnlog.aio.turn import Turn
FOUND

if TYPE_CHECKING:
    from pydantic import BaseModel

P = ParamSpec("P")
T = TypeVar("T")
'''


FOLLOWING = '''"""What follows a store, awaitable. Made by scripts/derive_aio.py from the blocking one."""

from functools import partial
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from turnlog import followed
from turnlog.aio.surface import ConversationStore
from turnlog.aio.threads import MAX_THREADS, Opening, Threads, to_the_end
from turnlog.followed import Lag, Stop
FOUND

P = ParamSpec("P")
T = TypeVar("T")
'''


def main() -> int:
    """Write the files."""
    SURFACE.write_text(derived(), encoding="utf-8")
    FOLLOWED.write_text(derived_followed(), encoding="utf-8")
    return 0


def derived() -> str:
    """Return what surface.py has to be."""
    sources = [_source("session"), _source("store")]
    nodes = {getattr(node, "name", ""): node for source in sources for node in source.body}
    parts = [_class(nodes[name]) for name in ("Session", "ConversationStore")]
    return _written(IMPORTS, sources, [*parts, _open(nodes["open"])])


def derived_followed() -> str:
    """Return what followed.py has to be."""
    source = _source("followed")
    nodes = {getattr(node, "name", ""): node for node in source.body}
    return _written(FOLLOWING, [source], [_follow(nodes["follow"]), _class(nodes["Followed"])])


def _source(name: str) -> ast.Module:
    return ast.parse((ROOT / "turnlog" / f"{name}.py").read_text(encoding="utf-8"))


def _written(imports: str, sources: Sequence[ast.Module], parts: Sequence[str]) -> str:
    body = "\n\n".join(parts)
    found = "\n".join(_imports(sources, set(re.findall(r"\w+", body))))
    return _formatted(imports.replace("FOUND", found) + body)


def _class(node: ast.AST) -> str:
    assert isinstance(node, ast.ClassDef)  # noqa: S101 - what it is, is known
    members = (item for item in node.body if isinstance(item, ast.FunctionDef) and item.name[0] != "_")
    parts = [
        _docstring(node, ABOUT[node.name]),
        HEADS[node.name],
        *(_member(item, node.name) for item in members if item.name not in NOT_PUBLIC),
    ]
    return f"class {node.name}:\n" + indent("\n".join(parts), "    ")


def _member(node: ast.FunctionDef, of: str) -> str:
    if node.decorator_list:
        return "@property\n" + _property(node)
    returns = "None" if node.returns is None else ast.unparse(node.returns).strip("'")
    given = _arguments(f"self._blocking.{node.name}", node.args)
    unusual = BODIES.get(f"{of}.{node.name}") or BODIES.get(node.name)
    if unusual is not None:
        body = unusual.strip()
    elif returns.startswith("Iterator["):
        body = f"return Items(self._run, {f'partial({given})' if ', ' in given else given})"
    elif node.name in NO_IO:
        body = f"return self._blocking.{node.name}()"
    else:
        body = _awaiting(node, returns)
    prefix = "async " if "await " in body else ""
    returns = returns.replace("Iterator[", "AsyncIterator[")
    return f"{prefix}def {node.name}({ast.unparse(node.args)}) -> {_quoted(returns)}:\n" + _block(node, body)


def _property(node: ast.FunctionDef) -> str:
    assert node.returns is not None  # noqa: S101 - everything is annotated
    head = f"def {node.name}(self) -> {ast.unparse(node.returns)}:\n"
    if node.name in IO_PROPERTIES:
        return "async " + head + _block(node, f"return await self._run(lambda: self._blocking.{node.name})")
    return head + _block(node, f"return self._blocking.{node.name}")


def _awaiting(node: ast.FunctionDef, returns: str) -> str:
    """Return the body of a method that is awaited."""
    names = [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
    if "progress" in names:
        before = "".join(f", {name}" for name in names[1:-1])
        blocking = f"partial(self._blocking.{node.name}{before})" if before else f"self._blocking.{node.name}"
        return f"await self._threads.stoppable({blocking}, progress)"
    call = f"await self._run({_arguments(f'self._blocking.{node.name}', node.args)})"
    match returns:
        case "Session":
            return f"return Session(self._threads, {call})"
        case "Session | None":
            return f"found = {call}\nreturn None if found is None else Session(self._threads, found)"
        case "None":
            return call
        case _:
            return f"return {call}"


def _open(node: ast.AST) -> str:
    assert isinstance(node, ast.FunctionDef)  # noqa: S101 - what it is, is known
    given = _arguments("store.open", node.args)
    body = BODIES["open"].strip().replace("store.open, CALL", given)
    arguments = ast.unparse(node.args).replace("**options", "max_threads: int=MAX_THREADS, **options")
    why = "noqa: A001 - as turnlog.open"
    return f"def open(  # {why}\n{arguments}\n) -> Opening[ConversationStore]:\n" + _block(node, body)


def _follow(node: ast.AST) -> str:
    assert isinstance(node, ast.FunctionDef)  # noqa: S101 - what it is, is known
    head = f'def follow({ast.unparse(node.args)}) -> Opening["Followed"]:\n'
    return head + _block(node, BODIES["follow"].strip())


def _arguments(function: str, arguments: ast.arguments) -> str:
    """Return a function and what it is to be called with, as one list."""
    given = [function, *(one.arg for one in (*arguments.posonlyargs, *arguments.args) if one.arg != "self")]
    if arguments.vararg is not None:
        given.append(f"*{arguments.vararg.arg}")
    given += [f"{one.arg}={one.arg}" for one in arguments.kwonlyargs]
    if arguments.kwarg is not None:
        given.append(f"**{arguments.kwarg.arg}")
    return ", ".join(given)


def _block(node: ast.FunctionDef, body: str) -> str:
    return indent(f"{_docstring(node)}\n{body}\n", "    ")


def _docstring(node: ast.FunctionDef | ast.ClassDef, more: str = "") -> str:
    text = ast.get_docstring(node) or ""
    for old, new in WORDS.get(node.name, ()):
        if text.count(old) != 1:
            raise ValueError(f"{node.name}: its docstring does not say {old!r} any more")
        text = "\n\n".join(_wrapped(part, part.replace(old, new)) for part in text.split("\n\n"))
    text = f"{text}\n{more}" if more else text
    return f'"""{text}"""' if "\n" not in text else f'"""{text.rstrip()}\n"""'


def _wrapped(old: str, new: str) -> str:
    """Break the lines of a paragraph anew, if it is one and was changed."""
    first, *rest = new.split("\n\n")
    if old == new or "\n    " in new:
        return new
    return "\n\n".join(fill(part, 112, break_on_hyphens=False) for part in (first, *rest))


def _quoted(annotation: str) -> str:
    """Quote what is defined further down, or only for type checkers."""
    return f'"{annotation}"' if annotation in OWN | {"BaseModel"} else annotation


def _imports(sources: Sequence[ast.Module], names: set[str]) -> Iterator[str]:
    """Give the imports of the blocking modules that are needed for these names."""
    for source in sources:
        for node in source.body:
            match node:
                case ast.ImportFrom(module=module):
                    for alias in node.names:
                        if alias.name in names - OWN:
                            yield f"from {module} import {alias.name}"
                case ast.AnnAssign(target=ast.Name(id=name)) if name in names:
                    yield f"from turnlog.session import {name}"
                case _:
                    pass


def _formatted(text: str) -> str:
    for arguments in (["check", "--select", "I,F401,UP037", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(SURFACE), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return text


if __name__ == "__main__":
    sys.exit(main())
