"""Destroying what a session's documents hold; that can be repeated."""

from collections.abc import Iterator
from typing import Any

from pymongo import UpdateOne

from turnlog.adapters.mongodb.client import Documents, Session
from turnlog.adapters.mongodb.documents import Document
from turnlog.domain.envelope import erase

_PAGE = 500
"""Documents that are read and changed at a time."""


def erase_stream(events: Documents, stream: str, session: Session | None) -> None:
    """Destroy the content of every event of a stream, with its keys and snapshots."""
    for page in _pages(events.find({"stream": stream}, {"events.state": 1}, session=session, batch_size=_PAGE)):
        events.bulk_write([_erased(document) for document in page], ordered=False, session=session)


def _erased(document: Document) -> UpdateOne:
    states = {f"events.{n}.state": erase(event["state"]) for n, event in enumerate(document.get("events", ()))}
    change: Document = {"$unset": {"keys": "", "snapshot": ""}}
    if states:
        change["$set"] = states
    return UpdateOne({"_id": document["_id"]}, change)


def _pages(found: Any) -> Iterator[list[Document]]:
    page: list[Document] = []
    for document in found:
        page.append(document)
        if len(page) == _PAGE:
            yield page
            page = []
    if page:
        yield page
