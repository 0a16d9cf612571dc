"""Moved to turnlog/testing/contracts."""

from turnlog.testing.contracts.library import InDirectory, TextIds, UuidIds

__all__ = ["InDirectory", "TextIds", "UuidIds"]
