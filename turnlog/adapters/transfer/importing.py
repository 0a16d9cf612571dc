"""Storing conversations: a few at a time in one commit, each whole with its session, or not at all.

Each carries a ``command_id`` made from its content: storing it again, or twice at once, adds nothing. An id that is
taken by anything else is refused.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

from turnlog.adapters.inside import committed, decider_of
from turnlog.adapters.transfer import neutral
from turnlog.decider import Plan
from turnlog.domain.errors import ConcurrencyConflict, InvalidInput, RuleViolation
from turnlog.domain.mapper import text_hash
from turnlog.domain.recorder import Batch, Reader
from turnlog.domain.values import Receipt
from turnlog.inputs import identifier
from turnlog.saying import Said
from turnlog.store import ConversationStore

CONVERSATIONS = 50
EVENTS = 1_000
"""A commit takes no more than this many of each, but one conversation at least: others want to write, too."""


class Planned(Protocol):
    """A session that is to be stored whole: what to say for that, under a key made of its content."""

    @property
    def session_id(self) -> str:
        """The session's id."""
        ...

    @property
    def said(self) -> list[Said]:
        """The commands, the one that creates the session first."""
        ...

    @property
    def key(self) -> tuple[str, bytes]:
        """The ``command_id``, and 16 bytes of the content's hash."""
        ...

    def refusal(self, error: Exception) -> str:
        """Say why the rules forbid it."""
        ...


P = TypeVar("P", bound=Planned)


class PlannedImport(NamedTuple):
    """A conversation, its line, and what to say to store it."""

    conversation: neutral.Conversation
    line: int
    session_id: str
    said: list[Said]
    key: tuple[str, bytes]

    def refusal(self, error: Exception) -> str:
        """Say why the rules forbid it, and at which event."""
        return neutral.refusal_of(self.conversation, error)


class Outcome(NamedTuple):
    """The version that a conversation ends at, and whether it is new."""

    version: int
    new: bool


def planned_import(conversation: neutral.Conversation, new_id: Callable[[], str], line: int) -> PlannedImport:
    """Check a conversation and say what it stands for.

    Raises:
        InvalidInput: a value is not acceptable; the message names it.
    """
    session_id = identifier("conversation_id", conversation.conversation_id)
    start = neutral.start_of(conversation)
    said = [Said(start, start, expected_version=0)]
    for event in neutral.said_in(conversation, new_id):
        said += event
    digest = neutral.content_hash(conversation)
    return PlannedImport(conversation, line, session_id, said, (f"import:{digest.hex()}", digest[:16]))


class Group(Generic[P]):
    """Gathers conversations of different sessions, and writes them in one commit.

    Args:
        dry: nothing is written; what would come of it is told all the same.
    """

    def __init__(self, store: ConversationStore, *, dry: bool = False) -> None:
        self._store = store
        self._dry = dry
        self._decider = decider_of(store)
        self._planned: dict[str, P] = {}
        self._events = 0

    @property
    def is_full(self) -> bool:
        """Whether it is time to write."""
        return len(self._planned) >= CONVERSATIONS or self._events >= EVENTS

    def new_id(self) -> str:
        """Return an id for a message that has none."""
        return self._decider.new_id()

    def has(self, session_id: str) -> bool:
        """Return whether a conversation of this session waits: a second one must see it written."""
        return session_id in self._planned

    def add(self, planned: P) -> None:
        """Gather one more."""
        self._planned[planned.session_id] = planned
        self._events += len(planned.said)

    def write(self) -> Iterator[tuple[P, Outcome | str]]:
        """Write what was gathered; yield each with its outcome, or in words why it was refused.

        Raises:
            StoreError: the storage failed; nothing of it was written.
        """
        planned, self._planned, self._events = [*self._planned.values()], {}, 0
        decided = [self._decide(one, self._decider.recorder if self._dry else None) for one in planned]

        def again(reader: Reader) -> Sequence[Batch]:
            decided[:] = [self._decide(one, reader) for one in planned]
            return _batches(decided)

        batches = [] if self._dry else _batches(decided)
        positions = iter(self._decider.append(batches, again) if batches else ())
        for one, plan in zip(planned, decided, strict=True):
            if isinstance(plan, str):
                yield one, plan
            elif plan.writes and self._dry:
                yield one, Outcome(plan.loaded.state.version, new=True)
            elif plan.writes:
                committed(self._store, self._receipt(plan, next(positions)))
                yield one, Outcome(plan.loaded.state.version, new=True)
            else:
                yield one, Outcome(plan.earlier[-1].version, new=False)

    def _decide(self, one: P, reader: Reader | None) -> Plan | str:
        """Decide as for a session that is not there; or, with ``reader``, on what is."""
        decider = self._decider
        loaded = decider.nothing(one.session_id) if reader is None else decider.load(one.session_id, None, reader)
        try:
            return decider.plan(reader or decider.recorder, loaded, one.said, one.key)
        except ConcurrencyConflict:
            how = "was deleted" if loaded.state.deleted else "is there already, and is not this conversation"
            return f"session {one.session_id!r} {how}"
        except (InvalidInput, RuleViolation) as error:
            return one.refusal(error)

    def _receipt(self, plan: Plan, position: int) -> Receipt:
        state = plan.loaded.state
        return Receipt(
            session_id=state.id,
            version=state.version,
            position=position,
            event_ids=plan.event_ids,
            recorded_at=state.updated_at,
            durability=self._decider.recorder.durability,
            hash=text_hash(plan.loaded.hash),
        )


def _batches(decided: Sequence[Plan | str]) -> list[Batch]:
    return [plan.batch for plan in decided if isinstance(plan, Plan) and plan.writes]
