"""What ``doctor`` finds, one fact at a time."""

from typing import Literal

import msgspec


class Finding(msgspec.Struct, frozen=True):
    """``ok``; a ``warning``: it works, but not as one may think; or ``bad``: what is promised does not hold."""

    level: Literal["ok", "warning", "bad"]
    name: str
    found: str


def judged(name: str, found: str, *, good: bool) -> Finding:
    """Return a finding that is ``ok`` or ``bad``."""
    return Finding("ok" if good else "bad", name, found)
