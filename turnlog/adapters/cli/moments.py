"""Versions, times and durations as they are typed."""

import re
from datetime import UTC, datetime, timedelta

import typer

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DIGITS = 18
"""Of the largest version that can be asked for."""
_DURATION = re.compile(r"([0-9]{1,9})([smhdw])")


def moment_of(option: str, text: str | None) -> int | datetime | None:
    """Return a version (``12``) or a time (``2026-01-31T12:00:00Z``).

    Raises:
        typer.BadParameter: it is neither, or a time without offset.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        return time_of(option, text)
    if len(text) > _DIGITS:
        raise typer.BadParameter(f"{option}: no version has {len(text)} digits")
    return int(text)


def past_of(option: str, text: str | None, now: datetime | None = None) -> datetime | None:
    """Return a time, given as one or as how long ago it was (``7d``, ``12h``, ``30m``, ``45s``, ``2w``).

    Raises:
        typer.BadParameter: it is neither.
    """
    if text is None:
        return None
    duration = _DURATION.fullmatch(text)
    if duration is None:
        return time_of(option, text)
    try:
        return (now or datetime.now(UTC)) - timedelta(seconds=int(duration[1]) * _UNITS[duration[2]])
    except OverflowError as error:
        raise typer.BadParameter(f"{option}: {text!r} is too long ago") from error


def time_of(option: str, text: str) -> datetime:
    """Return an aware time.

    Raises:
        typer.BadParameter: it is not ISO 8601, or has no offset.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{option}: {text!r:.100} is no time in ISO 8601, as 2026-01-31T12:00:00Z") from error
    if time.tzinfo is None:
        raise typer.BadParameter(f"{option}: {text!r} has no offset; add one, as {time.isoformat()}Z or …+01:00")
    return time
