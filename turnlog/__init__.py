"""An event-sourced conversation store for people who build agents and chat back-ends.

store = turnlog.open("sqlite:///sessions.db")
session = store.session("user-alice", user_id="alice")
session.add_message("user", "A table for two, please")
"""

from turnlog.domain import events
from turnlog.domain.analytics import DayCount, FoundMessage, ResponseTimes, SessionCount, Snippet, StepOutcome
from turnlog.domain.errors import (
    ConcurrencyConflict,
    CorruptLog,
    IdempotencyConflict,
    InvalidInput,
    NotOwner,
    OutcomeUnknown,
    RuleViolation,
    SessionClosed,
    SessionGone,
    SessionNotFound,
    StoreError,
    StoreUnavailable,
    TurnlogError,
    UnknownEvent,
)
from turnlog.domain.values import (
    Change,
    Diff,
    Erasure,
    ErasureReport,
    Failure,
    Head,
    Message,
    Page,
    RebuildProgress,
    Receipt,
    RecordedEvent,
    RouteVisit,
    Run,
    SearchHit,
    SessionState,
    SessionSummary,
    Stats,
    Step,
    StepVisit,
    Transition,
    UserSummary,
    VerificationReport,
    ViewStatus,
)
from turnlog.followed import Followed, Lag, follow
from turnlog.projections.backend import Backend
from turnlog.session import Session
from turnlog.store import ConversationStore, open  # noqa: A004 - as in gzip.open
from turnlog.subscription import Subscription
from turnlog.writing import Turn

__all__ = [
    "Backend",
    "Change",
    "ConcurrencyConflict",
    "ConversationStore",
    "CorruptLog",
    "DayCount",
    "Diff",
    "Erasure",
    "ErasureReport",
    "Failure",
    "Followed",
    "FoundMessage",
    "Head",
    "IdempotencyConflict",
    "InvalidInput",
    "Lag",
    "Message",
    "NotOwner",
    "OutcomeUnknown",
    "Page",
    "RebuildProgress",
    "Receipt",
    "RecordedEvent",
    "ResponseTimes",
    "RouteVisit",
    "RuleViolation",
    "Run",
    "SearchHit",
    "Session",
    "SessionClosed",
    "SessionCount",
    "SessionGone",
    "SessionNotFound",
    "SessionState",
    "SessionSummary",
    "Snippet",
    "Stats",
    "Step",
    "StepOutcome",
    "StepVisit",
    "StoreError",
    "StoreUnavailable",
    "Subscription",
    "Transition",
    "Turn",
    "TurnlogError",
    "UnknownEvent",
    "UserSummary",
    "VerificationReport",
    "ViewStatus",
    "events",
    "follow",
    "open",
]
