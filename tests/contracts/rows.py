"""Moved to turnlog/testing/contracts."""

from turnlog.testing.contracts.rows import batch, grow, key, not_again, tombstone, write

__all__ = ["batch", "grow", "key", "not_again", "tombstone", "write"]
