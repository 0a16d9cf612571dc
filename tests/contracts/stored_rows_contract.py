"""Moved to turnlog/testing/contracts."""

from turnlog.testing.contracts import Damage, StoredRowsContract

__all__ = ["Damage", "StoredRowsContract"]
