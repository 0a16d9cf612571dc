"""Every error turnlog raises, as one tree.

    TurnlogError
    ├── InvalidInput (ValueError)      the caller's value is wrong; names the field
    ├── SessionNotFound (KeyError)     no such session, or not visible to this user
    ├── RuleViolation                  the session's rules forbid it now
    │   ├── SessionClosed
    │   ├── SessionGone
    │   ├── NotOwner
    │   └── IdempotencyConflict
    └── StoreError                     the storage could not do it
        ├── ConcurrencyConflict
        ├── StoreUnavailable
        ├── OutcomeUnknown
        ├── UnknownEvent
        └── CorruptLog

Driver errors are translated into this tree in one place per adapter; the driver's error stays the ``__cause__``.
"""


class TurnlogError(Exception):
    """Any error of turnlog."""


class InvalidInput(TurnlogError, ValueError):
    """A value is not acceptable; the message names the field and what was expected."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(f"{field}: {expected}")
        self.field = field
        self.expected = expected

    def __reduce__(self) -> tuple[type["InvalidInput"], tuple[str, str]]:
        return type(self), (self.field, self.expected)


class SessionNotFound(TurnlogError, KeyError):
    """There is no such session (or, through ``for_user``, none of this user's)."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"no session {session_id!r}")
        self.session_id = session_id

    def __str__(self) -> str:
        return f"no session {self.session_id!r}"

    def __reduce__(self) -> tuple[type["SessionNotFound"], tuple[str]]:
        return type(self), (self.session_id,)


class RuleViolation(TurnlogError):
    """The session's present state forbids this command."""


class SessionClosed(RuleViolation):
    """The session is completed, abandoned, failed, expired or archived; ``reopen()`` it first."""


class SessionGone(RuleViolation):
    """The session was deleted; its id is never used again."""


class NotOwner(RuleViolation):
    """The session belongs to another user."""


class IdempotencyConflict(RuleViolation):
    """This ``message_id`` or ``command_id`` was already used for something else in this session."""


class StoreError(TurnlogError):
    """The storage could not do what was asked."""


class ConcurrencyConflict(StoreError):
    """Other writers kept winning until the deadline, or the session is not at ``expected_version``."""


class StoreUnavailable(StoreError):
    """The storage did not answer in time, is full, read-only, closed or cannot be reached. Nothing was written."""


class OutcomeUnknown(StoreError):
    """The connection died during commit and it could not be found out whether the write happened, or what it led to.

    Said again with the same ``message_id`` or ``command_id`` it is written once in any case. Without one, look: it is
    there once or, for as long as the server may still be at it, not yet.
    """


class UnknownEvent(StoreError):
    """The log holds an event this version of turnlog does not know; a newer version wrote it."""


class CorruptLog(StoreError):
    """Stored bytes are damaged; the message names the place."""
