"""Counting over sessions and messages: the server counts, and what it says becomes values."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from turnlog.adapters.opensearch.searching import Json, Searching
from turnlog.domain.analytics import DayCount, ResponseTimes, SessionCount, StepOutcome
from turnlog.domain.errors import InvalidInput, StoreError, StoreUnavailable
from turnlog.projections.conversation_index import MessagesWanted, SessionsWanted

BUCKETS = 1_000
"""Asked for at a time, where the server gives them by pages."""
_ROLES = 10
_PERCENTS = (50, 90, 99)


def messages_per_day(index: Searching, wanted: MessagesWanted, time_zone: str) -> list[DayCount]:
    """Return the days that have visible messages, in order.

    Raises:
        InvalidInput: there is no such time zone.
    """
    days = {"field": "occurred_at", "calendar_interval": "day", "min_doc_count": 1, "time_zone": time_zone}
    roles = {"roles": {"terms": {"field": "role", "size": _ROLES}}}
    try:
        counted = index.aggregate("messages", wanted, {"days": {"date_histogram": days, "aggs": roles}})
    except StoreUnavailable:
        raise
    except StoreError as error:
        raise InvalidInput("time_zone", f"expected a time zone, as Europe/Berlin, got {time_zone!r:.50}") from error
    return [
        DayCount(
            day=datetime.fromisoformat(bucket["key_as_string"]).date(),
            messages=bucket["doc_count"],
            roles={role["key"]: role["doc_count"] for role in bucket["roles"]["buckets"]},
        )
        for bucket in counted["days"]["buckets"]
    ]


def sessions_by_status(index: Searching, wanted: SessionsWanted) -> list[SessionCount]:
    """Return how many sessions there are of each status and route, the most first."""
    counted = [
        SessionCount(status=key["status"], route=key["route"], sessions=bucket["doc_count"])
        for key, bucket in _composite(index, wanted, ("status", "route"))
    ]
    return sorted(counted, key=lambda one: (-one.sessions, one.status, one.route or ""))


def step_outcomes(index: Searching, wanted: SessionsWanted, route: str | None) -> list[StepOutcome]:
    """Return what became of the sessions on each step (of one route, if given), the most visited first."""
    found: dict[tuple[str | None, str], StepOutcome] = {}
    for key, bucket in _composite(index, wanted, ("route", "step", "fate"), nested="steps"):
        if route in (None, key["route"]):
            at = (key["route"], key["step"])
            outcome = found.get(at) or StepOutcome(route=key["route"], step=key["step"])
            found[at] = replace(outcome, **{key["fate"]: bucket["doc_count"]})
    return sorted(found.values(), key=lambda one: (-one.sessions, one.route or "", one.step))


def response_times(index: Searching, wanted: MessagesWanted) -> ResponseTimes:
    """Return how long users waited for those of the messages that are answers."""
    field = {"field": "waited_s"}
    asked: Json = {"stats": {"stats": field}, "percentiles": {"percentiles": {**field, "percents": _PERCENTS}}}
    said = index.aggregate("messages", wanted, asked)
    stats, percentiles = said["stats"], said["percentiles"]["values"]
    return ResponseTimes(
        answers=stats["count"],
        mean_s=stats["avg"],
        p50_s=percentiles["50.0"],
        p90_s=percentiles["90.0"],
        p99_s=percentiles["99.0"],
        max_s=stats["max"],
    )


def _composite(
    index: Searching, wanted: SessionsWanted, fields: tuple[str, ...], *, nested: str | None = None
) -> Iterator[tuple[dict[str, Any], Json]]:
    """Yield every combination of the fields' values with its bucket, however many there are."""
    start = f"{nested}." if nested else ""
    sources = [{name: {"terms": {"field": f"{start}{name}", "missing_bucket": True}}} for name in fields]
    after: Json = {}
    while True:
        pages: Json = {"pages": {"composite": {"size": BUCKETS, "sources": sources, **after}}}
        asked: Json = {"inside": {"nested": {"path": nested}, "aggs": pages}} if nested else pages
        said = index.aggregate("sessions", wanted, asked)
        page = (said["inside"] if nested else said)["pages"]
        for bucket in page["buckets"]:
            yield bucket["key"], bucket
        if "after_key" not in page:
            return
        after = {"after": page["after_key"]}
