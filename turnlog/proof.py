"""Proving the log: heads to keep elsewhere, and checking everything that is stored."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from turnlog.domain.envelope import header_of
from turnlog.domain.errors import InvalidInput, SessionNotFound, StoreError
from turnlog.domain.events import MessageAdded
from turnlog.domain.mapper import Codec, text_hash
from turnlog.domain.recorder import KeyRow, Recorder
from turnlog.domain.values import Failure, Head, VerificationReport
from turnlog.domain.verification import StreamCheck

Heads: TypeAlias = str | Path | Iterable[Head]
"""Heads kept from before: themselves, or a file of them, one JSON object a line."""
_PAGE = 1_000


class Prover:
    """Checks the streams of one tenant."""

    def __init__(self, recorder: Recorder, codec: Codec, tenant: str) -> None:
        self._recorder = recorder
        self._codec = codec
        self._prefix = f"{tenant}/"

    def streams(self) -> Iterator[str]:
        """Iterate the names of the tenant's streams, in order of their bytes."""
        after = ""
        while names := self._recorder.streams(prefix=self._prefix, after=after, limit=_PAGE):
            yield from names
            after = names[-1]

    def heads(self) -> Iterator[Head]:
        """Iterate the heads of all sessions, deleted ones too."""
        for stream in self.streams():
            for _, version, _, state in self._recorder.select_stream(stream, desc=True, limit=1):
                yield Head(session_id=self._session_id(stream), version=version, hash=text_hash(header_of(state).hash))

    def verify(self, session_id: str | None, heads: Heads | None, others: Iterable[str]) -> VerificationReport:
        """Check one session, or all of them, against ``heads``; ``others`` are failures found elsewhere.

        Raises:
            SessionNotFound: there is no such session.
        """
        kept = {} if heads is None else {head.session_id: head for head in read_heads(heads)}
        failures = [Failure(session_id=None, version=None, reason=reason) for reason in others]
        sessions = events = 0
        names = self.streams() if session_id is None else iter((self._prefix + session_id,))
        try:
            for stream in names:
                check = self._check(stream, kept.pop(self._session_id(stream), None))
                sessions += bool(check.version)
                events += check.version
                failures += [check.failure] if check.failure else []
        except StoreError as error:
            failures.append(Failure(session_id=None, version=None, reason=str(error)))
        if session_id is None:
            failures += [_missing(head) for head in kept.values()]
        elif not (sessions or failures):
            raise SessionNotFound(session_id)
        return VerificationReport(ok=not failures, sessions=sessions, events=events, failures=tuple(failures))

    def _check(self, stream: str, head: Head | None) -> StreamCheck:
        session_id = self._session_id(stream)
        check = StreamCheck(stream, session_id, watch=head.version if head else 0)
        try:
            while rows := self._recorder.select_stream(stream, after=check.version, limit=_PAGE):
                before = check.version
                check.feed(rows, self._codec.event)
                if check.failure or len(rows) < _PAGE or check.version == before:
                    break
            check.finish()
            if check.failure is None and head is not None:
                check.failure = _compare(head, check)
            if check.failure is None:
                check.failure = self._check_keys(stream, session_id, check.version)
        except StoreError as error:
            check.failure = Failure(session_id=session_id, version=check.version + 1, reason=str(error))
        return check

    def _check_keys(self, stream: str, session_id: str, newest: int) -> Failure | None:
        for row in self._recorder.select_all_keys(stream):
            if not 1 <= row.version <= newest or not self._leads_to_its_message(stream, row):
                reason = f"the key {row.kind} {row.key!r} does not lead to its event"
                return Failure(session_id=session_id, version=row.version, reason=reason)
        return None

    def _leads_to_its_message(self, stream: str, row: KeyRow) -> bool:
        if row.kind != "message":
            return True
        events = (
            self._codec.event(topic, state)
            for _, _, topic, state in self._recorder.select_stream(stream, after=row.version - 1, upto=row.version)
        )  # none, where the index of the file is damaged
        return any(isinstance(event, MessageAdded) and event.message_id == row.key for event in events)

    def _session_id(self, stream: str) -> str:
        return stream[len(self._prefix) :]


def read_heads(heads: Heads) -> Iterator[Head]:
    """Iterate heads, from a file where a path is given.

    Raises:
        InvalidInput: the file cannot be read, or a line is not a head.
    """
    if not isinstance(heads, (str, Path)):
        yield from heads
        return
    try:
        lines = Path(heads).read_bytes().splitlines()
    except OSError as error:
        raise InvalidInput("heads", f"cannot read {str(heads)!r}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        try:
            yield msgspec.json.decode(line, type=Head)
        except msgspec.MsgspecError as error:
            raise InvalidInput("heads", f"line {number} of {str(heads)!r} is not a head: {error}") from error


def _compare(head: Head, check: StreamCheck) -> Failure | None:
    if check.version < head.version:
        reason = f"the log ends at version {check.version}, but a head was kept at version {head.version}"
        return Failure(session_id=head.session_id, version=check.version + 1, reason=reason)
    if check.watched is None or text_hash(check.watched) != head.hash:
        reason = "the hash is not the one that was kept: the events up to here were rewritten"
        return Failure(session_id=head.session_id, version=head.version, reason=reason)
    return None


def _missing(head: Head) -> Failure:
    reason = f"the session is missing, but a head was kept at version {head.version}"
    return Failure(session_id=head.session_id, version=1, reason=reason)
