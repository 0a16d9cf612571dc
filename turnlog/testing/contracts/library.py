"""What the test cases that ``eventsourcing`` ships need to run on a backend: recorders of its classes, in a directory.

A backend's test module inherits from the shipped cases and one of these.
"""

import tempfile
from pathlib import Path
from unittest import TestCase, TestResult
from uuid import UUID, uuid4


class InDirectory(TestCase):
    """Gives each test a directory of its own."""

    directory: Path

    def run(self, result: TestResult | None = None) -> TestResult | None:
        """Run the test with its directory."""
        with tempfile.TemporaryDirectory() as directory:
            self.directory = Path(directory)
            return super().run(result)


class UuidIds:
    """Originators are named by uuids."""

    ids = "uuid"

    def new_originator_id(self) -> UUID | str:
        """Return a new id."""
        return uuid4()


class TextIds:
    """Originators are named by text."""

    ids = "text"

    def new_originator_id(self) -> UUID | str:
        """Return a new id."""
        return f"conversation/{uuid4()}"
