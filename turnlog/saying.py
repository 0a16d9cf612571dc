"""What is said to a session, before anything is decided: a command, with what its caller said about it."""

from datetime import datetime
from typing import TypeAlias

import msgspec

from turnlog.domain.commands import Command, fingerprint
from turnlog.inputs import WriteOptions
from turnlog.receipts import Key

KeyOfMessage: TypeAlias = tuple[str, bytes]
"""A ``message_id``, and the fingerprint of the command that would add this message."""


class Said(msgspec.Struct, frozen=True):
    """A command on its way into the log, with what the caller said about it.

    ``keys`` are (kind, key, fingerprint): the ids under which it is written at most once. ``bare`` is the command
    without ids made for it, by which a repetition is known; ``made`` is the one that the caller learns, with the
    receipt's field for it. ``introduces`` are ids of messages that the command brings though it is not made at most
    once for them. ``first`` is said only to a session that begins with it.
    """

    command: Command
    bare: Command
    occurred_at: datetime | None = None
    actor: str | None = None
    correlation_id: str | None = None
    causation_id: str | None = None
    keys: tuple[Key, ...] = ()
    expected_version: int | None = None
    made: tuple[str, str] | None = None
    introduces: tuple[KeyOfMessage, ...] = ()
    first: bool = False


def said_with(
    command: Command, options: WriteOptions, *, bare: Command | None = None, message_id: str | None = None
) -> Said:
    """Return a command with what the keywords of a write say about it, and the ``message_id`` its caller gave it."""
    command_id = options.get("command_id")
    given = [(kind, key) for kind, key in (("message", message_id), ("command", command_id)) if key is not None]
    print_ = fingerprint((bare or command,)) if given else b""
    return Said(
        command=command,
        bare=bare or command,
        occurred_at=options.get("occurred_at"),
        actor=options.get("actor"),
        correlation_id=options.get("correlation_id"),
        causation_id=options.get("causation_id"),
        keys=tuple((kind, key, print_) for kind, key in given),
        expected_version=options.get("expected_version"),
    )
