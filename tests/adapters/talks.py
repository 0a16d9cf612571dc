"""Conversations in the neutral form, for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Write = Callable[..., Path]
"""Writes conversations (or lines as they are) to a file, one a line; ``name=`` names it."""


def said(content: Any, role: str = "user", **more: Any) -> Json:
    """One message event of the neutral form."""
    return {"type": "message", "role": role, "content": content, **more}


def talk(*events: Json, conversation_id: str = "c1", **more: Any) -> Json:
    """One conversation of the neutral form."""
    return {"conversation_id": conversation_id, "events": list(events), **more}


def call(id_: str, name: str = "find", **arguments: Any) -> Json:
    """One tool_call event."""
    return {"type": "tool_call", "id": id_, "name": name, "arguments": arguments}


def result(id_: str, content: Any, name: str = "find") -> Json:
    """One tool_result event."""
    return {"type": "tool_result", "id": id_, "name": name, "content": content}


def data(**values: Any) -> Json:
    """One data event."""
    return {"type": "data", "values": values}
