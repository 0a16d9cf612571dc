"""Moved to turnlog/testing/contracts."""

from turnlog.testing.contracts import LockedContract, RecorderContract, TwoTenantsContract, UnlockedContract

__all__ = ["LockedContract", "RecorderContract", "TwoTenantsContract", "UnlockedContract"]
