"""The storage layout as data: names of indices and aliases, their mappings and settings, ids of documents.

A generation is three indices: sessions, messages, and the checkpoint with what is parked. Whoever searches goes through
the aliases, which all move at once when a rebuilt generation takes the place of the old one. Whoever writes goes
through an alias of the generation's own. It has a capital letter: an index of that name cannot be made, so a late write
to a generation that is gone does not make one by accident.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from turnlog.domain.errors import InvalidInput

KINDS = ("sessions", "messages", "checkpoint")
PREFIX = "turnlog"
CHECKPOINT_ID = "checkpoint"
REMEMBER_DELETED = "1h"
"""For so long a document that was deleted refuses an older version: a writer that was paused longer could revive it."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}", re.ASCII)
_EXPECTED_NAME = "expected at most 100 small letters, digits, '.', '_' and '-', a letter or digit first"


class Names(NamedTuple):
    """The aliases to search through."""

    sessions: str
    messages: str
    checkpoint: str

    @classmethod
    def chosen(cls, prefix: object, names: object) -> "Names":
        """Return the names made with ``prefix``, those in ``names`` replaced.

        Raises:
            InvalidInput: one cannot be a name, or two are the same.
        """
        if not isinstance(names, Mapping | None):
            raise InvalidInput("names", f"expected a dict of names for {', '.join(KINDS)}")
        given = dict(cast("Mapping[object, object]", names or {}))
        if unknown := [str(key) for key in given if key not in KINDS]:
            raise InvalidInput("names", f"there is no {unknown[0]!r:.50}; expected {', '.join(KINDS)}")
        start = _name("prefix", prefix)
        made = cls(*(_name("names", given.get(kind, f"{start}-{kind}")) for kind in KINDS))
        if len(set(made)) < len(KINDS):
            raise InvalidInput("names", "expected them to differ")
        return made

    def index_of(self, kind: str, generation: int) -> str:
        """Return the index that holds a kind of documents in a generation."""
        return f"{getattr(self, kind)}-{generation:06d}"

    def writing(self, kind: str, generation: int) -> str:
        """Return the alias through which it is written."""
        return f"{self.index_of(kind, generation)}-W"


def _name(field: str, value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise InvalidInput(field, _EXPECTED_NAME)
    return value


class Layout(NamedTuple):
    """What a new generation is made with. ``replicas``: ``None`` for one, as soon as there is a second node."""

    language: str = "standard"
    shards: int = 1
    replicas: int | None = None

    def body(self, kind: str) -> dict[str, Any]:
        """Return the settings and mappings of an index."""
        settings: dict[str, Any] = {"number_of_shards": 1 if kind == "checkpoint" else self.shards}
        settings["gc_deletes"] = REMEMBER_DELETED
        if self.replicas is None:
            settings["auto_expand_replicas"] = "0-1"
        else:
            settings["number_of_replicas"] = self.replicas
        return {"settings": {"index": settings}, "mappings": _MAPPINGS[kind](self.language)}


_KEYWORD = {"type": "keyword"}
_DATE = {"type": "date", "format": "strict_date_optional_time"}
_STORED = {"type": "object", "enabled": False}
"""What is given back as it is, and neither searched nor counted."""
_LONG = {"type": "long"}


def _strict(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"dynamic": "strict", "properties": dict(properties)}


def _sessions(_language: str) -> dict[str, Any]:
    return _strict(
        {
            **dict.fromkeys(("tenant", "session_id", "user_id", "agent", "status", "route", "step"), _KEYWORD),
            **dict.fromkeys(("created_at", "updated_at", "last_message_at", "completed_at"), _DATE),
            **dict.fromkeys(("message_count", "version", "created_position", "updated_position"), _LONG),
            "steps": {"type": "nested", **_strict(dict.fromkeys(("route", "step", "fate"), _KEYWORD))},
            "folded": _STORED,
        }
    )


def _messages(language: str) -> dict[str, Any]:
    ids = ("stream", "tenant", "session_id", "user_id", "agent", "message_id", "role", "route", "step")
    return _strict(
        {
            **dict.fromkeys(ids, _KEYWORD),
            "content": {"type": "text", "analyzer": language, "index_options": "offsets"},
            "occurred_at": _DATE,
            **dict.fromkeys(("occurred_us", "version", "position", "item"), _LONG),
            "waited_s": {"type": "double"},
            "message": _STORED,
        }
    )


def _checkpoint(_language: str) -> dict[str, Any]:
    return {"enabled": False}


_MAPPINGS = {"sessions": _sessions, "messages": _messages, "checkpoint": _checkpoint}


def stream_id(stream: str) -> str:
    """Return the id of a session's document: names can be longer than ids may be."""
    return base64.urlsafe_b64encode(hashlib.sha256(stream.encode()).digest()[:18]).decode()


def message_id(stream: str, version: int, item: int) -> str:
    """Return the id of the document of the ``item``-th visible message that the event at ``version`` brought."""
    return f"{stream_id(stream)}.{version}.{item}"
