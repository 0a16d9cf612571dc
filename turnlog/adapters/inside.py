"""What the importers and the doctor need of an open store and applications do not."""

from turnlog.decider import Decider
from turnlog.domain.values import Receipt, ViewStatus
from turnlog.store import ConversationStore


def decider_of(store: ConversationStore) -> Decider:
    """Return what writes to the store; its recorder and codec too."""
    return store._decider  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def views_of(store: ConversationStore) -> tuple[ViewStatus, ...]:
    """Return how the views stand, none of them brought forward for it."""
    return store._engine.status()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]


def committed(store: ConversationStore, receipt: Receipt) -> None:
    """Let the store know of a write that did not come through one of its sessions."""
    store._committed(receipt)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
