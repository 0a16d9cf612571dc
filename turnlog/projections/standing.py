"""Doing again what a storage has undone for another one's sake, until it stands.

Whatever writes views as one transaction is done under this: a page, a new view, parked sessions, a rebuild, a check.
"""

from collections.abc import Callable
from functools import wraps
from random import uniform
from time import sleep
from typing import ParamSpec, TypeVar

from turnlog.projections.view_store import WriteUndone

_TIMES = 20
_LONGEST_PAUSE_S = 0.05
Given = ParamSpec("Given")
Made = TypeVar("Made")


def until_it_stands(do: Callable[Given, Made]) -> Callable[Given, Made]:
    """Have ``do`` done again where it was undone, a few times if need be."""

    @wraps(do)
    def standing(*args: Given.args, **kwargs: Given.kwargs) -> Made:
        for n in range(_TIMES):
            try:
                return do(*args, **kwargs)
            except WriteUndone:
                sleep(uniform(0, min(0.001 * 2**n, _LONGEST_PAUSE_S)))  # noqa: S311 - not a secret
        return do(*args, **kwargs)

    return standing
