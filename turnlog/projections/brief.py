"""Decoding of events with only the fields that a fold needs: what is not named is skipped, not built."""

from collections.abc import Mapping
from typing import Any

import msgspec

from turnlog.domain.events import TOPICS
from turnlog.domain.mapper import Codec
from turnlog.domain.upcasting import Registry

DELETED = "SessionDeleted."
"""How the topic of a stream's last event begins, whatever its schema."""


class Other(msgspec.Struct, frozen=True, gc=False):
    """An event of which only the place and time matter."""


class Abridged:
    """Makes, of a codec, one that decodes into the smaller classes of ``classes`` (by the class of the event)."""

    def __init__(self, classes: Mapping[type[Any], type[Any]]) -> None:
        self._classes: dict[type[Any], type[Any]] = {**dict.fromkeys(TOPICS.values(), Other), **classes}
        self._made: tuple[Codec, Codec] | None = None

    def of(self, codec: Codec) -> Codec:
        """Return the abridged codec; that of the last codec asked for is kept."""
        made = self._made
        if made is None or made[0] is not codec:
            known = codec.registry
            newest = {topic: self._classes.get(cls, cls) for topic, cls in known.newest.items()}
            made = self._made = (codec, Codec(Registry(newest=newest, older=known.older)))
        return made[1]
