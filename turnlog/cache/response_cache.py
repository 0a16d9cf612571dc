"""What an application holds, blocking; aio.py is the same for tasks, with the same entries and flights.

``get_or_call``: read → join whoever is making that answer in this process, or make it (making.py): claim → call → keep.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Self

from turnlog.cache.aio import AsyncResponseCache
from turnlog.cache.answers import Answers, Asked, Default
from turnlog.cache.counting import CacheStats
from turnlog.cache.entries import Answer
from turnlog.cache.flights import Lead
from turnlog.cache.keys import Scope
from turnlog.cache.making import done, making
from turnlog.domain.events import Json


class ResponseCache:
    """Answers of language models, by the requests they answer. Threads and tasks may share it; so may processes.

    Nothing that goes wrong with the storage is raised by ``get``, ``put`` and ``get_or_call``: it is a miss. What
    deletes raises ``StoreError``. Arguments that are not understood are ``InvalidInput``.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers

    def get_or_call(
        self,
        request: Mapping[str, Json],
        call: Callable[[dict[str, Json]], Json],
        *,
        scope: Scope = (),
        ttl_s: float | Default | None = Default.TTL,
    ) -> Json:
        """Return the stored answer to a request, or what ``call(request)`` returns, and store that.

        Of all who ask at the same time one calls; the others wait for his answer. An exception of the call reaches all
        who wait in this process, and is not stored; those in other processes call themselves, one after the other.

        Args:
            request: everything that determines the answer, as JSON: model, messages, temperature, limits, tools, ….
            call: calls the model; it is given a copy of the request, the one that the key was made of. What it returns
                is returned in any case, and stored if it is JSON and not too large.
            scope: whom the answer is for, from the widest name to the narrowest; others do not get it.
            ttl_s: how long to keep it, in seconds; None: for ever.

        Raises:
            InvalidInput: the request is not JSON, the scope not made of ids.
            RuntimeError: waiting would never end: inside the call that makes this answer, or on its event loop.
        """
        asked = self._answers.asked(request, scope, ttl_s)
        stored = self._answers.read(asked.key)
        if stored is not None:
            return stored.value
        flights = self._answers.flights
        while True:
            flight, lead = flights.join(asked.key.digest)
            if lead is not None:
                return self._made(lead, asked, partial(call, asked.request)).value
            try:
                outcome = flight.wait()
            except BaseException:
                flights.leave(flight)
                raise
            if outcome is not None:
                return self._answers.shared(outcome)

    def get(self, request: Mapping[str, Json], *, scope: Scope = (), default: Json = None) -> Json:
        """Return the stored answer to a request, or ``default``."""
        return self._answers.get(self._answers.asked(request, scope).key, default)

    def put(
        self,
        request: Mapping[str, Json],
        answer: Json,
        *,
        scope: Scope = (),
        ttl_s: float | Default | None = Default.TTL,
    ) -> bool:
        """Store an answer in place of the one that is there; return whether it is stored."""
        asked = self._answers.asked(request, scope, ttl_s)
        return self._answers.guarded.write(asked.key, answer, asked.ttl_s)

    def delete(self, request: Mapping[str, Json], *, scope: Scope = ()) -> bool:
        """Delete the answer to a request; return whether there was one. One that is being made will not be stored.

        Raises:
            StoreError: the storage could not do it.
        """
        return self._answers.storage.delete(self._answers.asked(request, scope).key)

    def forget(self, scope: Scope) -> int:
        """Delete all answers of a scope and of those below it, and return how many: ``("acme",)`` is all of Acme.

        What is being made for it will not be stored.

        Raises:
            StoreError: the storage could not do it; some may be left.
        """
        return self._answers.forget(scope)

    def clear(self) -> int:
        """Delete all answers, of everybody, and return how many.

        Raises:
            StoreError: the storage could not do it; some may be left.
        """
        return self._answers.storage.clear()

    def purge_expired(self) -> int:
        """Delete what has expired, which is no longer given to anybody, and return how many answers that were.

        Writing does so now and then; Redis does it by itself.

        Raises:
            StoreError: the storage could not do it.
        """
        return self._answers.storage.purge()

    def stats(self) -> CacheStats:
        """Return what this handle has done in this process, for threads and tasks together."""
        return self._answers.guarded.counts.read()

    @property
    def aio(self) -> AsyncResponseCache:
        """The same cache, awaitable: threads and tasks wait for each other's calls."""
        return AsyncResponseCache(self._answers)

    def close(self) -> None:
        """Let go of the storage. Calls that are under way end as they would; their answers are not stored."""
        self._answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._answers.storage.name}>"

    def _made(self, lead: Lead, asked: Asked, call: Callable[[], Json]) -> Answer:
        with lead:
            answer = done(making(self._answers.guarded, asked.key, asked.ttl_s), call)
            lead.land(answer)
        return answer
