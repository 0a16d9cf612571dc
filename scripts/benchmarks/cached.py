"""The cache of answers: what a hit costs, against what the least careful cache would do."""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import turnlog.cache
from scripts.benchmarks import raw
from scripts.benchmarks.measuring import Figure, Setting, compared, side_by_side, timed
from scripts.benchmarks.stores import TEXT, url_of

_MESSAGES = 20


def hits(setting: Setting) -> list[Figure]:
    """A hit, for a request of 20 messages of 200 characters. Raw: sorted json.dumps, SHA-256, a look-up, json.loads.

    The look-up is a SELECT for SQLite, a dict's for memory. The note says what making the key takes of it.
    """
    n = setting.pick(2_000, 50)
    request: dict[str, Any] = {
        "model": "m-1",
        "messages": [{"role": ("user", "assistant")[i % 2], "content": f"{i} {TEXT}"} for i in range(_MESSAGES)],
        "temperature": 0.2,
    }
    answer = {"role": "assistant", "content": TEXT}
    path = setting.folder / "raw.db"
    connection = raw.connect(path)
    connection.execute("CREATE TABLE answers (digest BLOB PRIMARY KEY, answer TEXT)")
    connection.execute("INSERT INTO answers VALUES (?, ?)", (_digest(request), json.dumps(answer)))
    known = {_digest(request): json.dumps(answer)}

    def selected(digest: bytes) -> str:
        found: tuple[str] = connection.execute("SELECT answer FROM answers WHERE digest = ?", (digest,)).fetchone()
        return found[0]

    def compare(backend: str, url: str, look_up: Callable[[bytes], str]) -> Figure:
        with turnlog.cache.open(url) as cache:
            cache.put(request, answer)
            pair = side_by_side(
                setting.pick(9, 1),
                lambda: timed(n, lambda: [cache.get(request) for _ in range(n)]),
                lambda: timed(n, lambda: [json.loads(look_up(_digest(request))) for _ in range(n)]),
            )
        what, against = f"a hit in the cache of answers, {backend}", "sorted json.dumps, SHA-256, look-up, json.loads"
        return compared("cache", what, pair, against=against, note=f"the key: {keyed * 1e6:.0f} µs")

    keyed = timed(n, lambda: [turnlog.cache.key(request) for _ in range(n)])
    figures = [
        compare("memory", "memory://", known.__getitem__),
        compare("SQLite", url_of(setting.folder / "cache.db"), selected),
    ]
    connection.close()
    return figures


def _digest(request: dict[str, Any]) -> bytes:
    return sha256(json.dumps(request, sort_keys=True).encode()).digest()
