"""Log exports as tests handle them: as bytes, as lines."""

import io
import json
from typing import Any, BinaryIO

import turnlog
from turnlog.adapters.transfer.export import export_log

Store = turnlog.ConversationStore
Json = dict[str, Any]


def exported(store: Store, session_id: str | None = None) -> bytes:
    """Return the export of a store."""
    out = io.BytesIO()
    export_log(store, out, session_id=session_id)
    return out.getvalue()


def lines_of(export: bytes) -> list[Json]:
    """Return the lines of an export."""
    return [json.loads(line) for line in export.splitlines()]


def without_positions(export: bytes) -> list[Json]:
    """Return the lines of an export without their positions, which a restore gives anew."""
    lines = lines_of(export)
    for line in lines:
        (line.get("event") or line).pop("position", None)
    return lines


def packed(lines: list[Json]) -> BinaryIO:
    """Return lines as a file."""
    return io.BytesIO(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))


def fill(store: Store) -> None:
    """Hold a few conversations: turns, keys, a fork, sessions by turns, awkward text, one session erased."""
    one = store.session("one", user_id="alice", metadata={"channel": "web"})
    two = store.session("two/with a slash", user_id="bob")
    one.add_message("user", 'Größe 🙂 \x00 "quoted" \\ \u2028', message_id="m-1")
    with two.turn(command_id="t-1", actor="agent"):
        two.enter_route("booking")
        two.collect(n=1, x=1.5, big=10**30)
        two.add_message("assistant", None, tool_calls=[{"id": "c", "name": "find"}])
    one.collect({"a": [1, {"b": None}]}, command_id="d-1")
    store.session("gone").add_message("user", "secret", message_id="m-2")
    one.fork("three")
    store.get("gone").delete()
    two.complete()
