"""One append on its way to a server: written, asked anew where others were first, sent again where it was cut off.

Where the connection breaks, the very same rows are sent again: they can be there only once, so either that writes them,
or they are found to be there.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from random import uniform
from time import monotonic, sleep
from typing import Protocol

from turnlog.domain.envelope import erase
from turnlog.domain.errors import ConcurrencyConflict, OutcomeUnknown, StoreUnavailable
from turnlog.domain.mapper import StreamRow
from turnlog.domain.recorder import Again, Batch, KeyRow, Reader

LONGEST_PAUSE_S = 0.05


class Taken(Exception):
    """A version or a key is taken; nothing was written."""


class Undone(Exception):
    """The server has undone it, by no fault of its own (a deadlock): it is worth another try."""


class Lost(Exception):
    """The connection broke, and it is not known whether what was to be committed was."""


class Broken(Exception):
    """The connection broke inside a transaction: nothing of that was written."""


class Log(Protocol):
    """What an append needs of its backend."""

    @property
    def name(self) -> str:
        """What messages call it."""
        ...

    def translating(self) -> AbstractContextManager[None]:
        """Turn the driver's errors into turnlog's."""
        ...

    def write(self, batches: Sequence[Batch]) -> list[int]:
        """Commit ``batches`` and return their positions.

        Raises:
            Taken, Undone, Lost, Broken.
        """
        ...

    def queues(self, batches: Sequence[Batch]) -> bool:
        """Return whether these are not simply written, but asked for from the start: their streams are contended."""
        ...

    def ask(self, again: Again, before: Sequence[Batch], losses: int) -> list[int]:
        """Commit what ``again`` returns; ``losses``: how many races were lost so far.

        ``before`` is what did not fit or, where nothing was lost yet, what is to be written if it does.

        Raises:
            Taken, Undone, Lost, Broken.
        """
        ...

    def select_stream(self, stream: str, *, after: int = 0, upto: int | None = None) -> list[StreamRow]:
        """Return events of one stream, see ``Reader``."""
        ...

    def select_keys(self, stream: str, keys: Sequence[tuple[str, str]]) -> list[KeyRow]:
        """Return those of the keys that were used, see ``Reader``."""
        ...


def appended(
    log: Log, batches: Sequence[Batch], again: Again, *, timeout_s: float, doubtful: bool = False
) -> list[int]:
    """Commit ``batches``, see ``Recorder.append``: tried until it is committed, refused, or the time is over.

    ``doubtful``: they were sent before, on a connection that broke.
    """
    attempt = _Attempt(log, batches, again, doubtful=doubtful)
    deadline = monotonic() + timeout_s
    try:
        with log.translating():
            while (positions := attempt.once()) is None:
                if monotonic() > deadline:
                    raise attempt.given_up()
                attempt.pause()
    except (StoreUnavailable, ConcurrencyConflict) as error:
        if attempt.doubtful:
            raise OutcomeUnknown(f"the connection broke during a commit, and then: {error}") from error
        raise
    return positions


class _Attempt:
    def __init__(self, log: Log, batches: Sequence[Batch], again: Again, *, doubtful: bool) -> None:
        self._log = log
        self._again = again
        self._batches = batches
        self._fits = bool(batches) and (doubtful or not log.queues(batches))
        self._losses = self._tries = 0
        self._error: BaseException | None = None
        self._broke = False
        self.doubtful = doubtful
        """Whether the rows may be there although nobody said so."""

    def once(self) -> list[int] | None:
        """Try; return the positions, or ``None`` where it is worth another try."""
        self._tries += 1
        self._broke = False
        try:
            if self._fits:
                return self._log.write(self._batches)
            return self._log.ask(self._decide, self._batches, self._losses)
        except Taken as error:
            return self._taken(error)
        except (Undone, Broken) as error:
            self._error, self._broke = error.__cause__, isinstance(error, Broken)
        except Lost as error:
            self.doubtful = self._fits = self._broke = True
            self._error = error.__cause__
        return None

    def _taken(self, error: Taken) -> list[int] | None:
        """Return the positions if it was this append that took them, before; else have it decided anew."""
        if self.doubtful:
            try:
                positions = self._found()
            except StoreUnavailable as unavailable:
                self._error = unavailable
                return None
            if positions is not None:
                return positions
        self.doubtful = self._fits = False
        self._losses += 1
        self._error = error.__cause__
        return None

    def _decide(self, reader: Reader) -> Sequence[Batch]:
        self._batches = self._again(reader)
        return self._batches

    def pause(self) -> None:
        """Wait a little, by chance, so that those who race do not meet again."""
        if not self._losses:  # else it holds what it raced for
            sleep(uniform(0, min(0.001 * 2**self._tries, LONGEST_PAUSE_S)))  # noqa: S311 - not a secret

    def given_up(self) -> Exception:
        """Return what to raise when the time is over."""
        if self._losses and not self._broke:
            return ConcurrencyConflict(f"other writers were first {self._losses} times")
        return StoreUnavailable(f"{self._log.name}: gave up after {self._tries} tries: {self._error}")

    def _found(self) -> list[int] | None:
        """Return the positions of the batches if they are there already: it was this append that wrote them."""
        positions = [self._position(batch) for batch in self._batches]
        return None if None in positions else [position or 0 for position in positions]

    def _position(self, batch: Batch) -> int | None:
        stream, rows = batch.stream, batch.rows
        if rows:
            there = self._log.select_stream(stream, after=rows[0][0] - 1, upto=rows[-1][0])
            same = [(*row[:2], erase(row[2])) for row in rows] if batch.erase else list(rows)
            return there[-1][0] if [row[1:] for row in there] == same else None
        keys = self._log.select_keys(stream, [(key.kind, key.key) for key in batch.keys])
        return 0 if keys == list(batch.keys) else None
