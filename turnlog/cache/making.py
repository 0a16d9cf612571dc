"""How an answer is made: one implementation for threads and tasks, as steps that the one does and the other awaits."""

from collections.abc import Awaitable, Callable, Generator
from enum import Enum
from functools import partial
from os import urandom
from time import sleep
from typing import Any, NamedTuple, TypeAlias

from turnlog.cache.entries import Answer
from turnlog.cache.guarded import Guarded
from turnlog.cache.keys import Key
from turnlog.cache.storage import Claim, Lease
from turnlog.domain.events import Json

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.01, 0.25


class Ask(NamedTuple):
    """Ask the storage; what it says is sent back."""

    question: Callable[[], Any]


class Pause(NamedTuple):
    """Let some time pass."""

    seconds: float


class Call(Enum):
    """Call the model; its answer is sent back."""

    MODEL = "model"


Step: TypeAlias = Ask | Pause | Call
Steps: TypeAlias = Generator[Step, Any, Answer]


def making(cache: Guarded, key: Key, ttl_s: float | None) -> Steps:
    """Make an answer, or be given one that another process has made meanwhile.

    Where the storage cannot say that nobody else is at it, the model is called all the same, and nothing is stored.
    """
    lease = Lease(key, urandom(16).hex())
    pause_s = _FIRST_PAUSE_S
    waited = False
    try:
        while (claimed := (yield Ask(partial(cache.claim, lease)))) is Claim.BUSY:
            waited = True
            yield Pause(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        if isinstance(claimed, Answer):
            cache.counts.add("waits" if waited else "hits")
            return claimed
        cache.counts.add("misses")
        value: Json = yield Call.MODEL
        payload = cache.encoded(value)
        if claimed is Claim.HELD:
            last = partial(cache.release, lease) if payload is None else partial(cache.keep, lease, payload, ttl_s)
            yield Ask(last)
        return Answer(value, payload)
    except GeneratorExit:  # nobody is there to take the last step: the lease ends by itself
        raise
    except BaseException:
        yield Ask(partial(cache.release, lease))
        raise


def done(steps: Steps, call: Callable[[], Json]) -> Answer:
    """Take the steps in this thread."""
    try:
        step = next(steps)
        while True:
            try:
                result = _taken(step, call)
            except BaseException as error:  # noqa: BLE001 - it is raised again where the steps stand
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        return _answer(stop)


def _taken(step: Step, call: Callable[[], Json]) -> Any:
    match step:
        case Ask(question):
            return question()
        case Pause(seconds):
            return sleep(seconds)
        case Call.MODEL:
            return call()


async def awaited(
    steps: Steps,
    call: Callable[[], Awaitable[Json]],
    ask: Callable[[Callable[[], Any]], Awaitable[Any]],
    pause: Callable[[float], Awaitable[None]],
) -> Answer:
    """Take the steps in this task."""
    try:
        step = next(steps)
        while True:
            try:
                match step:
                    case Ask(question):
                        result = await ask(question)
                    case Pause(seconds):
                        result = None
                        await pause(seconds)
                    case Call.MODEL:
                        result = await call()
            except BaseException as error:  # noqa: BLE001 - as above
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as stop:
        return _answer(stop)


def _answer(stop: StopIteration) -> Answer:
    answer = stop.value
    assert isinstance(answer, Answer)  # noqa: S101 - what the steps return
    return answer
