"""The view store: one view, ``conversations``, in generations of indices. What each call is to do says view_store.py.

There is no lock here, and nobody is kept out: see writing.py for why two at once do no harm.
"""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from turnlog.adapters.opensearch.folding import Conversations
from turnlog.adapters.opensearch.generations import Generations, Held, State
from turnlog.adapters.opensearch.writing import Bulk, settled
from turnlog.domain.errors import InvalidInput, OutcomeUnknown, StoreUnavailable
from turnlog.domain.recorder import Recorder
from turnlog.projections.view_store import Checkpoint, Parked, Projection, RowProjection, StoredView, Trial, View

PAGE = 2_000


class OpenSearchViews:
    """Where the view is kept.

    Args:
        generation: the one that is written to and read; 0: the one that answers, whichever that is.
    """

    read_only = False
    page = PAGE

    def __init__(self, generations: Generations, recorder: Recorder, generation: int = 0) -> None:
        self.generations = generations
        self._recorder = recorder
        self.generation = generation

    def register(self, view: View) -> Projection | RowProjection:
        """Return the view: there is but this one."""
        if isinstance(view, Conversations):
            return view
        raise InvalidInput("projection", "OpenSearch keeps none but the built-in view")

    # --- transactions -------------------------------------------------------------------------------------------------

    @contextmanager
    def read(self) -> Generator[Bulk, None, None]:
        """Lend the checkpoint as it is now."""
        yield self._bulk()

    @contextmanager
    def write(self, *, wait: bool = True) -> Generator[Bulk, None, None]:
        """Lend what gathers a page, and send that at the end. There is nobody to wait for."""
        del wait
        bulk = self._bulk()
        yield bulk
        bulk.commit()

    def attempt(self, connection: Bulk) -> AbstractContextManager[None]:
        """Do nothing: the view adds a page whole, or raises before it has added anything."""
        del connection
        return nullcontext()

    def is_failure(self, error: Exception) -> bool:
        """Return whether the cluster or the log could not be reached."""
        return isinstance(error, StoreUnavailable | OutcomeUnknown)

    def _bulk(self) -> Bulk:
        here = self.generations
        held = here.load(self.generation) if self.generation else here.current()
        return Bulk(here, held, self._recorder)

    # --- the checkpoint -----------------------------------------------------------------------------------------------

    def checkpoints(self, connection: Bulk) -> dict[str, Checkpoint]:
        """Return the view's checkpoint."""
        state = connection.state
        return {} if state is None else {state.name: Checkpoint(state.name, state.revision, state.position, state.mark)}

    def record(self, connection: Bulk, checkpoint: Checkpoint) -> None:
        """Move the checkpoint on."""
        _, revision, position, mark = checkpoint
        connection.change(lambda state: settled(state, position, mark, revision))

    def parked(self, connection: Bulk, name: str) -> list[Parked]:
        """Return what is parked."""
        del name
        return [] if connection.state is None else list(connection.state.parked)

    def park(self, connection: Bulk, parked: Parked) -> None:
        """Park a session."""
        connection.change(lambda state: state.parking(parked))

    def release(self, connection: Bulk, name: str, stream: str) -> None:
        """Forget that a session is parked."""
        del name
        connection.change(lambda state: state.releasing(stream))

    def begin(self, connection: Bulk, name: str, position: int) -> None:
        """Do nothing: the view forgets what is erased."""

    def hold(self, connection: Bulk, name: str, position: int) -> None:
        """Do nothing: see ``begin``."""

    def holding(self, connection: Bulk) -> list[str]:
        """Return none: see ``begin``."""
        del connection
        return []

    def merge(self, connection: Bulk) -> None:
        """Have the indices let go of what was deleted."""
        del connection
        self.generations.merge()

    # --- generations --------------------------------------------------------------------------------------------------

    def install(self, connection: Bulk, view: StoredView) -> None:
        """Make the first generation, or find that somebody just has."""
        self.generations.create(1, self._empty(view), answering=True)
        connection.held = self.generations.current()

    @contextmanager
    def workshop(self, view: StoredView, *, keep: bool) -> Generator["OpenSearchViews | None", None, None]:
        """Lend the next generation. Whoever else is building it builds the same: the first to be done swaps."""
        if not keep:
            raise InvalidInput("check", "is not for OpenSearch; rebuild the view")
        here = self.generations
        current = here.current()
        number = 1 + (0 if current is None else current.generation)
        wanted = self._empty(view)
        for held in here.beside():
            if held.generation != number or not _same(held, wanted):
                here.remove(held.generation)
        here.create(number, wanted, answering=False)
        yield OpenSearchViews(here, self._recorder, number)

    def restart(self, view: StoredView) -> None:
        """Make this generation anew."""
        self.generations.remove(self.generation)
        self.generations.create(self.generation, self._empty(view), answering=False)

    def lay_out(self, built: "OpenSearchViews", name: str) -> None:
        """Have searches see what was built."""
        del name
        self.generations.refresh(built.generation)

    @contextmanager
    def adopting(
        self, connection: Bulk, built: "OpenSearchViews", name: str
    ) -> Generator[tuple["OpenSearchViews", Bulk], None, None]:
        """Lend the generation that was built, to bring it level, and then have it answer."""
        del name
        old, new = connection.held, built.generation
        with built.write() as bulk:
            yield built, bulk
        self.generations.refresh(new)
        if old is None:
            raise StoreUnavailable(self.generations.client.words("there is no generation to replace any more"))
        self.generations.swap(old.generation, new)
        connection.held = None

    def clear_away(self, name: str) -> None:
        """Delete the generations that were replaced."""
        del name
        self.generations.remove_replaced()

    def differences(self, connection: Bulk, built: "OpenSearchViews", name: str, tenant: str | None) -> Iterator[str]:
        """Never called: ``workshop`` lends nothing to compare with."""
        raise NotImplementedError

    def is_as_wanted(self) -> bool:
        """Return whether the generation that answers was made for the language that is wanted now."""
        current = self.generations.current()
        return current is None or current.state.language == self.generations.layout.language

    def remove_abandoned(self) -> None:
        """Delete what was begun to be rebuilt long ago."""
        self.generations.remove_abandoned()

    def discard_builds(self) -> list[str]:
        """Delete what was begun to be rebuilt and is not finished; return the names of the views."""
        built = self.generations.beside()
        for held in built:
            self.generations.remove(held.generation)
        return [held.state.name for held in built]

    def _empty(self, view: StoredView) -> State:
        return State(view.name, view.revision, self.generations.layout.language)

    # --- trials: for applications' projections, of which there are none -----------------------------------------------

    def trial(self, name: str) -> Trial | None:
        """Return none."""
        del name
        return None

    def begin_trial(self, name: str, trial: Trial) -> None:
        """Do nothing."""

    def end_trial(self, name: str) -> None:
        """Do nothing."""


def _same(held: Held, wanted: State) -> bool:
    """Return whether a generation that is being built is of the same kind."""
    built = held.state
    return (built.name, built.revision, built.language) == (wanted.name, wanted.revision, wanted.language)
