"""The documents of a log in MongoDB: one for each commit of a stream, numbered without gaps in the order of commits.

    {_id: 42,                     its number; 0 is the log's beginning, of no stream
     position: 97, erasures: 0,   of its last event, or of the last before; how many commits erased so far
     stream: "default/s", first: 3, last: 4, commit: <an id of its own>,
     events: [{version: 3, topic: "MessageAdded.v1", state: <bytes>}, …],
     keys: [{name: "message:m-1", version: 3, fingerprint: <bytes>, seal: <bytes>}],
     snapshot: {version: 4, revision: 1, hash: <bytes>, state: <bytes>, seal: <bytes>}}

What it has not is left out. An append of much is split into several documents, committed by one transaction or, on a
standalone server, by a plan: then they have a field ``open`` until all of it is done (plans.py).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from turnlog.adapters.library import Row
from turnlog.domain.chain import row_seal
from turnlog.domain.errors import InvalidInput
from turnlog.domain.mapper import LogRow, StreamRow
from turnlog.domain.recorder import Batch, KeyRow

Document: TypeAlias = dict[str, Any]

MOST_EVENTS = 256
"""Events of a document: who wants one of them reads them all."""
MOST_BYTES = 1 << 20
"""What a document of several events holds."""
LARGEST_BYTES = (16 << 20) - (64 << 10)
"""A document takes 16 MiB, names and numbers included."""
BEGINNING: Document = {"_id": 0, "position": 0, "erasures": 0}


def of_batches(batches: Sequence[Batch]) -> list[Document]:
    """Return the documents of an append, without what their places give them; a batch of nothing has none.

    Raises:
        InvalidInput: an event is larger than a document can be.
    """
    made: list[Document] = []
    for batch in batches:
        its = of_rows((batch.stream, *row) for row in batch.rows)
        if batch.keys or batch.snapshot is not None:
            its = its or [{"stream": batch.stream}]
        if batch.keys:
            its[0]["keys"] = [_key(batch.stream, key) for key in batch.keys]
        if batch.snapshot is not None and _size(its[-1]) + len(batch.snapshot.state) < LARGEST_BYTES:
            fields = dict(zip(batch.snapshot._fields, batch.snapshot, strict=True))
            its[-1]["snapshot"] = {**fields, "seal": row_seal(batch.stream, *batch.snapshot)}
        made += its
    return made


def of_rows(rows: Iterable[Row]) -> list[Document]:
    """Return the documents of rows, in their order: each has versions of one stream without gaps."""
    made: list[Document] = []
    held = 0
    for stream, version, topic, state in rows:
        if len(state) > LARGEST_BYTES:
            raise InvalidInput("event", f"it takes {len(state)} bytes; a document of MongoDB's holds {LARGEST_BYTES}")
        last: Document | None = made[-1] if made else None
        held += len(state)
        if last is None or not _follows(last, stream, version) or held > MOST_BYTES:
            last = {"stream": stream, "first": version, "last": version, "events": []}
            made.append(last)
            held = len(state)
        last["last"] = version
        last["events"].append({"version": version, "topic": topic, "state": state})
    return made


def placed(documents: Sequence[Document], after: Document, *, erasing: bool = False) -> list[Document]:
    """Return documents with the places that follow the document ``after``."""
    made: list[Document] = []
    for document in documents:
        after = {
            "_id": after["_id"] + 1,
            "position": after["position"] + len(document.get("events", ())),
            "erasures": after["erasures"] + (1 if erasing and not made else 0),
            **document,
        }
        made.append(after)
    return made


def positions(batches: Sequence[Batch], last: int) -> list[int]:
    """Return the position of the last row of each batch, 0 where it has none; ``last`` is that of the last row."""
    left = last - sum(len(batch.rows) for batch in batches)
    found: list[int] = []
    for batch in batches:
        left += len(batch.rows)
        found.append(left if batch.rows else 0)
    return found


def stream_rows(document: Document) -> Iterator[StreamRow]:
    """Yield a document's events as (position, version, topic, state)."""
    events = document.get("events", ())
    for position, event in enumerate(events, document["position"] - len(events) + 1):
        yield position, event["version"], event["topic"], event["state"]


def log_rows(document: Document) -> Iterator[LogRow]:
    """Yield a document's events as (position, stream, version, topic, state)."""
    stream = document.get("stream", "")
    for position, version, topic, state in stream_rows(document):
        yield position, stream, version, topic, state


def key_name(kind: str, key: str) -> str:
    """Return how a document names a key."""
    return f"{kind}:{key}"


def key_fields(key: Document) -> tuple[str, str, int, bytes, bytes]:
    """Return (kind, key, version, fingerprint, seal) of a key in a document."""
    kind, _, name = key["name"].partition(":")
    return kind, name, key["version"], key["fingerprint"], key["seal"]


def snapshot_fields(document: Document | None) -> tuple[int, int, bytes, bytes, bytes] | None:
    """Return (version, revision, hash, state, seal) of a document's snapshot, if there is one."""
    found = (document or {}).get("snapshot")
    return None if found is None else tuple(found[field] for field in ("version", "revision", "hash", "state", "seal"))


def _key(stream: str, key: KeyRow) -> Document:
    name = key_name(key.kind, key.key)
    return {"name": name, "version": key.version, "fingerprint": key.fingerprint, "seal": row_seal(stream, *key)}


def _follows(last: Document, stream: str, version: int) -> bool:
    return last["stream"] == stream and version == last["last"] + 1 and len(last["events"]) < MOST_EVENTS


def _size(document: Document) -> int:
    return sum(len(event["state"]) for event in document.get("events", ()))
