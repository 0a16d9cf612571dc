"""Resetting: a session's successor starts and the session is archived, in one append."""

from collections.abc import Sequence
from uuid import NAMESPACE_OID, uuid5

from turnlog.decider import Decider, Loaded, Plan, Said, said_with
from turnlog.domain import commands as c
from turnlog.domain.recorder import Batch, Reader
from turnlog.domain.values import Message, Receipt
from turnlog.inputs import WriteOptions


def reset(
    decider: Decider, session_id: str, options: WriteOptions, *, preserve_history: bool
) -> tuple[str, Receipt | None]:
    """Return the successor's id, and the archived session's receipt; ``None`` where it was done before.

    The same ``command_id`` gives the same successor.

    Raises:
        IdempotencyConflict: the ``command_id`` was used for something else.
    """
    command_id = options.get("command_id")
    successor = decider.new_id() if command_id is None else _derived_id(decider.stream(session_id), command_id)
    command = c.SetStatus("archived", "reset, its history kept" if preserve_history else "reset")
    archive = said_with(command, options)
    known: Loaded | None = None
    while True:
        known = decider.load(session_id, known)
        if archive.keys and decider.earlier_receipt(session_id, archive.keys) is not None:
            return successor, None
        old = decider.plan(decider.recorder, known, (archive,))
        new = _successor(decider, known, successor, options, preserve_history=preserve_history)
        try:
            position = decider.recorder.append((), _Unless(known, old, new))[0]
        except _Moved:
            continue
        if old.batch.rows:
            return successor, decider.receipt(old, position)
        return successor, decider.receipt_at(session_id, known.state.version, nothing=True)


class _Moved(Exception):
    """The session went on while its reset was decided."""


class _Unless:
    """Gives what to append, under the lock, unless the session went on since it was decided."""

    def __init__(self, known: Loaded, old: Plan, new: Plan) -> None:
        self._known = known
        self._old = old
        self._new = new

    def __call__(self, reader: Reader) -> Sequence[Batch]:
        if reader.select_stream(self._old.batch.stream, after=self._known.state.version, limit=1):
            raise _Moved
        return self._old.batch, self._new.batch


def _successor(decider: Decider, old: Loaded, successor: str, options: WriteOptions, *, preserve_history: bool) -> Plan:
    state = old.state
    audit: WriteOptions = {**options, "command_id": None, "expected_version": None}
    start = c.StartSession(user_id=state.user_id, agent=state.agent, continued_from=state.id)
    said = [said_with(start, audit)]
    if preserve_history:
        messages = decider.messages(decider.recorder, decider.stream(state.id), state.version)
        said += [_repeated(message, audit) for message in list(messages)[::-1]]
    return decider.plan(decider.recorder, decider.nothing(successor), said)


def _repeated(message: Message, options: WriteOptions) -> Said:
    """Return a message said again in another session: same id, and it still occurred when it did."""
    command = c.AddMessage(
        message.message_id,
        message.role,
        message.content,
        message.name,
        message.tool_calls,
        message.tool_call_id,
        message.metadata,
    )
    return said_with(command, {**options, "occurred_at": message.occurred_at})


def _derived_id(stream: str, command_id: str) -> str:
    return str(uuid5(NAMESPACE_OID, f"turnlog reset {stream} {command_id}"))
