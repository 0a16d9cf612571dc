"""A projection for `turnlog project` to import."""

from collections.abc import Sequence
from typing import Any

from turnlog import RecordedEvent


class Counted:
    """The positions of all events."""

    name = "counted"
    revision = 1

    def create(self, connection: Any) -> None:
        """Create the table."""
        connection.execute("CREATE TABLE counted (position INTEGER)")

    def apply(self, events: Sequence[RecordedEvent], connection: Any) -> None:
        """Note them."""
        connection.executemany("INSERT INTO counted VALUES (?)", [(event.position,) for event in events])
