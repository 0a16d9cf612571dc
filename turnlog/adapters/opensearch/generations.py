"""Generations of the indices: made, found, swapped by their aliases, removed; and the checkpoint that each has.

The aliases say which generation answers. They move in one request, which the server does whole or not at all, and only
if the generation that is to be replaced is still the one that answers.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec

from turnlog.adapters.opensearch.client import Client
from turnlog.adapters.opensearch.layout import CHECKPOINT_ID, KINDS, Layout, Names
from turnlog.domain.errors import InvalidInput, StoreError
from turnlog.domain.typed import converter
from turnlog.projections.view_store import Parked

ABANDONED = timedelta(days=1)
"""After so long without progress a rebuild counts as given up."""
GONE = ("invalid_index_name_exception", "index_not_found_exception")
"""How the reason begins why something cannot be written to a generation that was removed; see layout.py."""
_OK, _BAD_REQUEST, _NOT_FOUND, _CONFLICT = 200, 400, 404, 409


class State(msgspec.Struct, frozen=True):
    """The checkpoint's document: what the view is, how far it is, and what is parked in it."""

    name: str
    revision: int
    language: str
    position: int = 0
    mark: bytes = b""
    parked: tuple[Parked, ...] = ()
    written_at: datetime = datetime.min.replace(tzinfo=UTC)

    def parking(self, parked: Parked) -> "State":
        """Return it with a session parked."""
        return msgspec.structs.replace(self, parked=(*self.releasing(parked.stream).parked, parked))

    def releasing(self, stream: str) -> "State":
        """Return it with a session no longer parked."""
        left = tuple(one for one in self.parked if one.stream != stream)
        return self if left == self.parked else msgspec.structs.replace(self, parked=left)


_state_of = converter(State)


class Held(NamedTuple):
    """A generation's checkpoint as it was read; the two numbers tell whether it is still the same."""

    generation: int
    state: State
    seq_no: int
    primary_term: int


class Generations:
    """All generations of one set of names."""

    def __init__(self, client: Client, names: Names, layout: Layout) -> None:
        self.client = client
        self.names = names
        self.layout = layout

    def current(self) -> Held | None:
        """Return the generation that answers, if there is one."""
        found = self._found()
        current = max((number for number, answers in found.items() if answers), default=None)
        return None if current is None else self.load(current)

    def beside(self) -> list[Held]:
        """Return those that are being built, or were and nobody went on."""
        found = self._found()
        current = max((number for number, answers in found.items() if answers), default=0)
        held = (self.load(number) for number in found if number > current)
        return [one for one in held if one is not None]

    def load(self, generation: int) -> Held | None:
        """Read the checkpoint of a generation."""
        index = self.names.index_of("checkpoint", generation)
        said = self.client.ask("GET", f"/{index}/_doc/{CHECKPOINT_ID}", accept=(_NOT_FOUND,))
        if said.status == _NOT_FOUND:
            return None
        body = said.body
        return Held(generation, _state_of(body["_source"]), body["_seq_no"], body["_primary_term"])

    def save(self, held: Held, state: State) -> bool:
        """Write a checkpoint in the place of the one that was read; return False if there is another by now."""
        path = f"/{self.names.writing('checkpoint', held.generation)}/_doc/{CHECKPOINT_ID}"
        said = self.client.ask(
            "PUT",
            path,
            _now(state),
            accept=(_BAD_REQUEST, _NOT_FOUND, _CONFLICT),
            if_seq_no=held.seq_no,
            if_primary_term=held.primary_term,
        )
        if said.status == _BAD_REQUEST and not said.reason.startswith(GONE):
            raise StoreError(self.client.words(said.reason))
        return said.status == _OK

    def create(self, generation: int, state: State, *, answering: bool) -> Held:
        """Make a generation, empty, or what is missing of it; with its aliases, if it is to answer at once.

        Raises:
            InvalidInput: an index of that name is not ours, or there is no such language.
        """
        for kind in KINDS:
            self._create(kind, generation, answering=answering)
        path = f"/{self.names.writing('checkpoint', generation)}/_create/{CHECKPOINT_ID}"
        self.client.ask("PUT", path, _now(state), accept=(_CONFLICT,))
        held = self.load(generation)
        if held is None:
            raise StoreError(self.client.words(f"generation {generation} was removed while it was made"))
        return held

    def swap(self, old: int, new: int) -> None:
        """Have ``new`` answer in the place of ``old``.

        Raises:
            StoreError: another generation answers by now.
        """
        actions: list[dict[str, Any]] = []
        for kind in KINDS:
            alias = getattr(self.names, kind)
            gone = {"index": self.names.index_of(kind, old), "alias": alias, "must_exist": True}
            actions += [{"remove": gone}, {"add": {"index": self.names.index_of(kind, new), "alias": alias}}]
        if self.client.ask("POST", "/_aliases", {"actions": actions}, accept=(_NOT_FOUND,)).status == _NOT_FOUND:
            raise StoreError(self.client.words("another rebuild has finished meanwhile"))

    def remove(self, generation: int) -> None:
        """Delete a generation's indices, what there is of them."""
        names = ",".join(self.names.index_of(kind, generation) for kind in KINDS)
        self.client.ask("DELETE", f"/{names}", ignore_unavailable=True)

    def remove_replaced(self) -> None:
        """Delete the generations before the one that answers."""
        found = self._found()
        current = max((number for number, answers in found.items() if answers), default=0)
        for number in found:
            if number < current:
                self.remove(number)

    def remove_abandoned(self) -> None:
        """Delete what somebody has begun to build and given up."""
        for held in self.beside():
            if datetime.now(UTC) - held.state.written_at > ABANDONED:
                self.remove(held.generation)

    def refresh(self, generation: int | None = None) -> None:
        """Have searches see what was written, in the generation that answers or in another."""
        kinds = KINDS[:2]
        at = [
            getattr(self.names, kind) if generation is None else self.names.index_of(kind, generation) for kind in kinds
        ]
        self.client.ask("POST", f"/{','.join(at)}/_refresh")

    def merge(self) -> None:
        """Have the indices let go of what was deleted."""
        self.client.ask("POST", f"/{self.names.sessions},{self.names.messages}/_forcemerge", only_expunge_deletes=True)

    def _found(self) -> dict[int, bool]:
        """Return the numbers of all generations, and whether they answer."""
        alias = self.names.checkpoint
        said: dict[str, Any] = self.client.ask("GET", f"/{alias}-*/_alias").body
        numbers = ((re.fullmatch(rf"{re.escape(alias)}-(\d{{6,}})", index), about) for index, about in said.items())
        return {int(one[1]): alias in about["aliases"] for one, about in numbers if one is not None}

    def _create(self, kind: str, generation: int, *, answering: bool) -> None:
        aliases: dict[str, Any] = {self.names.writing(kind, generation): {}}
        if answering:
            aliases[getattr(self.names, kind)] = {}
        body = {**self.layout.body(kind), "aliases": aliases}
        said = self.client.ask("PUT", f"/{self.names.index_of(kind, generation)}", body, accept=(_BAD_REQUEST,))
        if said.status == _OK or "resource_already_exists" in said.reason:
            return
        if "analyzer" in said.reason:
            raise InvalidInput("language", f"the cluster has no analyser {self.layout.language!r}")
        raise InvalidInput("names", self.client.words(said.reason))


def _now(state: State) -> State:
    return msgspec.structs.replace(state, written_at=datetime.now(UTC))
