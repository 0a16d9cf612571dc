"""Proving the log: heads to keep elsewhere, and checking everything that is stored."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias, cast

import msgspec

from turnlog.domain.envelope import header_of
from turnlog.domain.errors import InvalidInput, SessionNotFound, StoreError, StoreUnavailable
from turnlog.domain.events import HistoryReplaced, MessageAdded
from turnlog.domain.mapper import Codec, Fact, StreamRow, text_hash
from turnlog.domain.recorder import KeyRow, Recorder, SnapshotRow
from turnlog.domain.session import FOLD_REVISION, fold, initial
from turnlog.domain.typed import decoder
from turnlog.domain.values import Failure, Head, SessionState, VerificationReport
from turnlog.domain.verification import StreamCheck

Heads: TypeAlias = str | Path | Iterable[Head]
"""Heads kept from before: themselves, or a file of them, one JSON object a line."""
Found: TypeAlias = tuple[int, str] | None
"""A version, and what is wrong there."""
_PAGE = 1_000
_BELOW_ALL = -(1 << 62)
"""Below every version that a row may claim to have."""


class Prover:
    """Checks the streams of one tenant."""

    def __init__(self, recorder: Recorder, codec: Codec, tenant: str) -> None:
        self._recorder = recorder
        self._codec = codec
        self._tenant = tenant
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
            StoreUnavailable: the storage fails, which says nothing of what is stored.
        """
        kept = _by_session(() if heads is None else read_heads(heads))
        failures = [Failure(session_id=None, version=None, reason=reason) for reason in others]
        sessions = events = 0
        names = self._names() if session_id is None else iter((self._prefix + session_id,))
        try:
            for stream in names:
                of_session = kept.pop(self._session_id(stream), ())
                check = self._check(stream, of_session)
                if check.failure is not None:  # unless somebody deleted the session while it was read
                    check = self._check(stream, of_session)
                sessions += bool(check.version)
                events += check.version
                failures += [check.failure] if check.failure else []
        except StoreUnavailable:
            raise
        except StoreError as error:
            failures.append(Failure(session_id=None, version=None, reason=str(error)))
        if session_id is None:
            failures += [_missing(of_session[-1]) for of_session in kept.values()]
        elif not (sessions or failures):
            raise SessionNotFound(session_id)
        return VerificationReport(ok=not failures, sessions=sessions, events=events, failures=tuple(failures))

    def _names(self) -> Iterator[str]:
        """Iterate the names of the tenant's streams, also the one that no session can have."""
        if self._recorder.select_stream(self._prefix, after=_BELOW_ALL, limit=1):
            yield self._prefix
        yield from (stream for stream in self.streams() if stream != self._prefix)

    def _check(self, stream: str, heads: Sequence[Head]) -> StreamCheck:
        """Check a stream and what is stored besides it.

        Keys and snapshot are read first: what is written meanwhile makes neither of them newer than the stream.
        """
        session_id = self._session_id(stream)
        snapshot = self._recorder.select_snapshot(stream)
        refold = _Refold(initial(self._tenant, session_id), snapshot)
        watch = {refold.upto, *(head.version for head in heads)}
        check = StreamCheck(stream, session_id, watch, refold.upto)
        try:
            keys = self._recorder.select_all_keys(stream)
            after = _BELOW_ALL
            while rows := self._recorder.select_stream(stream, after=after, limit=_PAGE):
                check.feed(rows, self._codec.event)
                if check.failure is not None:
                    break
                refold.feed(check)
                after = check.version
            check.finish()
            check.require(lambda: None if check.session_id else (1, "no session has an empty id"))
            check.require(partial(_compare, heads, check))
            if check.deleted:
                check.require(partial(self._left_behind, stream, check.version))
            else:
                check.require(partial(self._check_keys, stream, check.version, keys))
                check.require(partial(refold.compare, check))
        except StoreUnavailable:
            raise
        except StoreError as error:
            check.failure = Failure(session_id=check.session_id, version=check.version + 1, reason=str(error))
        return check

    def _left_behind(self, stream: str, newest: int) -> Found:
        """Find what a deletion must have destroyed; looked for after it was read that the session is deleted."""
        if self._recorder.select_all_keys(stream):
            return newest, "the session was deleted, but a key of it is still there"
        if self._recorder.select_snapshot(stream) is not None:
            return newest, "the session was deleted, but its snapshot is still there"
        return None

    def _check_keys(self, stream: str, newest: int, keys: Sequence[KeyRow]) -> Found:
        for start in range(0, len(keys), _PAGE):
            some = keys[start : start + _PAGE]
            wanted = [(stream, row.version) for row in some if row.kind == "message" and 1 <= row.version <= newest]
            there = self._recorder.select_versions(wanted)
            for row in some:
                at = there.get((stream, row.version))
                if not 1 <= row.version <= newest or not self._leads_to_its_message(row, at):
                    return row.version, f"the key {row.kind} {row.key!r} does not lead to its event"
        return None

    def _leads_to_its_message(self, row: KeyRow, at: StreamRow | None) -> bool:
        if row.kind != "message":
            return True
        # Nothing is there where the index of the file is damaged.
        return at is not None and _brings(self._codec.event(at[2], at[3]), row.key)

    def _session_id(self, stream: str) -> str:
        return stream[len(self._prefix) :]


def _brings(event: object, message_id: str) -> bool:
    match event:
        case MessageAdded(found):
            return found == message_id
        case HistoryReplaced(messages):
            return any(message.message_id == message_id for message in messages)
        case _:
            return False


class _Refold:
    """Folds a stream as far as its snapshot goes, to see whether that is what its events say."""

    def __init__(self, state: SessionState, snapshot: SnapshotRow | None) -> None:
        self._snapshot = None if snapshot is None or snapshot.revision != FOLD_REVISION else snapshot
        self.upto = 0 if self._snapshot is None else self._snapshot.version
        self._state = state

    def feed(self, check: StreamCheck) -> None:
        """Fold the events that were just checked."""
        if check.facts:
            self._state = fold(self._state, cast("list[Fact]", check.facts))

    def compare(self, check: StreamCheck) -> Found:
        """Find a snapshot that says something else; one that is not of the event there is used by nobody."""
        kept = self._snapshot
        if kept is None or check.watched.get(kept.version) != kept.hash:
            return None
        try:
            same = _sorted(_decode_state(kept.state)) == _sorted(self._state)
        except msgspec.MsgspecError:
            same = False
        return None if same else (kept.version, "the snapshot of this version is not what the events up to here say")


_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_state = decoder(SessionState)
_decode_head = decoder(Head)


def read_heads(heads: Heads) -> Iterator[Head]:
    """Iterate heads, from a file where a path is given, compressed with gzip or not.

    Raises:
        InvalidInput: the file cannot be read, or a line is not a head.
    """
    if not isinstance(heads, (str, Path)):
        yield from heads
        return
    try:
        data = Path(heads).read_bytes()
    except OSError as error:
        raise InvalidInput("heads", f"cannot read {str(heads)!r}: {error.strerror}") from error
    for number, line in enumerate(_unpacked(heads, data).splitlines(), 1):
        try:
            yield _decode_head(line)
        except msgspec.MsgspecError as error:
            raise InvalidInput("heads", f"line {number} of {str(heads)!r} is not a head: {error}") from error


def _unpacked(heads: str | Path, data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    import gzip  # with zlib: for such a file only
    import zlib

    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidInput("heads", f"cannot unpack {str(heads)!r}: {error}") from error


def _by_session(heads: Iterable[Head]) -> dict[str, Sequence[Head]]:
    """Return each session's heads, in the order of their versions."""
    kept: dict[str, list[Head]] = {}
    for head in heads:
        kept.setdefault(head.session_id, []).append(head)
    return {session_id: sorted(found, key=lambda head: head.version) for session_id, found in kept.items()}


def _compare(heads: Sequence[Head], check: StreamCheck) -> Found:
    for head in heads:
        if check.version < head.version:
            return (
                check.version + 1,
                f"the log ends at version {check.version}, but a head was kept at version {head.version}",
            )
        if text_hash(check.watched.get(head.version, b"")) != head.hash:
            return head.version, "the hash is not the one that was kept: the events up to here were rewritten"
    return None


def _missing(head: Head) -> Failure:
    reason = f"the session is missing, but a head was kept at version {head.version}"
    return Failure(session_id=head.session_id, version=1, reason=reason)
