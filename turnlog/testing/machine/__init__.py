"""A Hypothesis state machine over the public API, for any storage. Read told.py first."""

from turnlog.testing.machine.asking import StoreMachine

__all__ = ["StoreMachine"]
