"""From old schemas of an event to the newest, one step at a time.

A registry is a value: the newest topic of every event with its class, and for each older topic the step to the next.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from turnlog.domain.errors import UnknownEvent
from turnlog.domain.events import TOPICS

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


class Registry(msgspec.Struct, frozen=True):
    """Which topics are known: ``newest`` decode straight into a class, ``older`` name their successor and the step."""

    newest: Mapping[str, type[Any]]
    older: Mapping[str, tuple[str, Upcaster]] = {}

    def with_schema(self, old: str, new: str, event: type[Any], upcast: Upcaster) -> "Registry":
        """Return a registry in which ``new`` has replaced ``old``, whose stored bodies go through ``upcast``."""
        newest = {topic: cls for topic, cls in self.newest.items() if topic != old}
        return Registry(newest={**newest, new: event}, older={**self.older, old: (new, upcast)})

    def topic_of(self, event: object) -> str:
        """Return the topic under which ``event`` is stored now."""
        return self.topics[type(event)]

    @property
    def topics(self) -> dict[type[Any], str]:
        """Class → topic, for the newest schemas."""
        return {cls: topic for topic, cls in self.newest.items()}

    def upcast(self, topic: str, body: dict[str, Any]) -> tuple[type[Any], dict[str, Any]]:
        """Carry a stored body forward until its newest schema; return the class and the body for it.

        Raises:
            UnknownEvent: the topic is in neither table.
        """
        while topic in self.older:
            topic, step = self.older[topic]
            body = step(body)
        if topic not in self.newest:
            raise UnknownEvent(f"unknown event {topic!r}: a newer turnlog wrote it; upgrade to read it")
        return self.newest[topic], body


REGISTRY = Registry(newest=TOPICS)
