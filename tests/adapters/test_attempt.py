"""One append on its way to a server that fails at every step of it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from turnlog.adapters.attempt import Lost, Taken, appended
from turnlog.testing.contracts.rows import batch


class Failing:
    """A log that loses the answer to the append, and then that to the question whether it is there."""

    name = "failing"

    def __init__(self) -> None:
        self.batches = (batch("default/s", 1),)
        self._writes: list[Exception] = [Taken(), Taken(), Lost()]
        self._reads: list[Exception] = [Lost()]

    def translating(self) -> AbstractContextManager[None]:
        """Nothing."""
        return nullcontext()

    def queues(self, _: object) -> bool:
        """No."""
        return False

    def write(self, _: object) -> list[int]:
        """Fail."""
        raise self._writes.pop()

    def select_stream(self, _: str, **__: int) -> list[Any]:
        """Fail once, then find the append."""
        if self._reads:
            raise self._reads.pop()
        return [(7, *row) for row in self.batches[0].rows]


def test_a_question_that_is_lost_is_asked_again() -> None:
    """Where it cannot be found out whether an append is there, because that was cut off too, it is tried again."""
    log: Any = Failing()
    assert appended(log, log.batches, lambda _: [], timeout_s=60, doubtful=False) == [7]
