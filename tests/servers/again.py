"""Places where stores have been, emptied for the next test: making and dropping tables takes longer than most tests do.

A place is given again only if nothing but what every new store makes is there; it then holds what that one held.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import turnlog
from tests.servers.starting import Server

Contents: TypeAlias = Mapping[str, Sequence[Any]]
"""Rows by table, or documents by collection."""
TIMES = 50
"""How often a place is given: what was deleted lies about in it."""


class Ground(Server, Protocol):
    """What is asked of a server besides."""

    def shape(self, url: str) -> object:
        """Return what is in a place, but for rows, so that two can be compared."""
        ...

    def contents(self, url: str) -> Contents:
        """Return the rows of every table."""
        ...

    def fill(self, url: str, contents: Contents) -> None:
        """Have tables hold these rows alone, and the log begin at its first position."""
        ...


class Again:
    """The places of one server."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._free: list[str] = []
        self._given: dict[str, int] = {}
        self._plain: object = None
        self._new: Contents = {}

    def take(self) -> str:
        """Return a place whose tables are there and hold nothing."""
        if not self._free:
            self._free.append(self._made())
        url = self._free.pop()
        self._given[url] = self._given.get(url, 0) + 1
        return url

    def give_back(self, url: str) -> None:
        """Keep a place for the next, or drop it."""
        if self._given[url] < TIMES and self._ground.shape(url) == self._plain:
            self._ground.fill(url, self._new)
            self._free.append(url)
        else:
            self._ground.drop_place(url)

    def _made(self) -> str:
        url = self._ground.new_place()
        turnlog.open(url).close()
        if self._plain is None:
            self._plain = self._ground.shape(url)
            self._new = self._ground.contents(url)
        return url
