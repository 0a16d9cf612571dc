"""Resetting: a session's successor starts and the session is archived, in one append."""

from collections.abc import Sequence
from uuid import NAMESPACE_OID, uuid5

from msgspec.structs import replace

from turnlog.decider import Decider, Loaded, Plan
from turnlog.domain import commands as c
from turnlog.domain.errors import IdempotencyConflict
from turnlog.domain.recorder import FINGERPRINT_BYTES, Batch, KeyRow, Reader
from turnlog.domain.values import Message, Receipt
from turnlog.inputs import WriteOptions
from turnlog.lookup import Stretch
from turnlog.saying import Said, said_with
from turnlog.session import added


def reset(
    decider: Decider, session_id: str, options: WriteOptions, *, preserve_history: bool
) -> tuple[str, Receipt | None]:
    """Return the successor's id, and the archived session's receipt; ``None`` where it was done before.

    The same ``command_id`` gives the same successor.

    Raises:
        IdempotencyConflict: the ``command_id`` was used for something else.
    """
    command_id = options.get("command_id")
    command = c.SetStatus("archived", "reset, its history kept" if preserve_history else "reset")
    archive = said_with(command, options, bare=c.StartSession(agent=command.reason, continued_from=session_id))
    known: Loaded | None = None
    while True:
        successor = decider.new_id() if command_id is None else _derived_id(decider.stream(session_id), command_id)
        known = decider.load(session_id, known)
        if archive.keys and decider.receipts(session_id).under(archive.keys) is not None:
            return successor, None
        old = decider.plan(decider.recorder, known, (archive,))
        if old.earlier:
            continue
        new = _successor(decider, known, successor, options, preserve_history=preserve_history)
        try:
            position = decider.append((), _Unless(known, old, new))[0]
        except _Moved:
            continue
        if old.batch.rows:
            return successor, decider.receipt(old, position)
        return successor, decider.receipts(session_id).at(known.state.version, nothing=True)


class _Moved(Exception):
    """The session went on while its reset was decided."""


class _Unless:
    """Gives what to append, under the lock, unless the session went on, or was reset, since it was decided."""

    def __init__(self, known: Loaded, old: Plan, new: Plan) -> None:
        self._known = known
        self._old = old
        self._new = new

    def __call__(self, reader: Reader) -> Sequence[Batch]:
        old, new = self._old.batch, self._new.batch
        keys = [(row.kind, row.key) for row in old.keys]
        if reader.select_stream(old.stream, after=self._known.state.version, limit=1) or (
            keys and reader.select_keys(old.stream, keys)
        ):
            raise _Moved
        if reader.select_stream(new.stream, limit=1):
            raise IdempotencyConflict(f"there is (or was) a session {self._new.loaded.state.id!r} already")
        return old, new


def _successor(decider: Decider, old: Loaded, successor: str, options: WriteOptions, *, preserve_history: bool) -> Plan:
    state, stream = old.state, decider.stream(old.state.id)
    audit: WriteOptions = {**options, "command_id": None, "expected_version": None}
    start = c.StartSession(user_id=state.user_id, agent=state.agent, continued_from=state.id)
    said = [said_with(start, audit)]
    if preserve_history:
        keys = {row.key: row for row in decider.recorder.select_all_keys(stream) if row.kind == "message"}
        messages = Stretch(decider.codec, decider.recorder, stream, state.version).messages()
        said += [_repeated(message, keys.get(message.message_id), audit) for message in list(messages)[::-1]]
    return decider.plan(decider.recorder, decider.nothing(successor), said)


def _repeated(message: Message, key: KeyRow | None, options: WriteOptions) -> Said:
    """Return a message said again in another session: same id and key, and it still occurred when it did."""
    said = said_with(added(message), {**options, "occurred_at": message.occurred_at})
    return said if key is None else replace(said, keys=(("message", key.key, key.fingerprint[:FINGERPRINT_BYTES]),))


def _derived_id(stream: str, command_id: str) -> str:
    return str(uuid5(NAMESPACE_OID, f"turnlog reset {stream} {command_id}"))
