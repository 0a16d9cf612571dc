"""What importers, followers and the doctor need of an open store and applications do not: no part of its API."""

from turnlog.domain.values import Receipt, ViewStatus
from turnlog.store import ConversationStore, decider_of

__all__ = ["committed", "decider_of", "views_of"]


def views_of(store: ConversationStore) -> tuple[ViewStatus, ...]:
    """Return how the views stand, none of them brought forward for it."""
    return store._engine.status()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - see above


def committed(store: ConversationStore, receipt: Receipt) -> None:
    """Let the store know of a write that did not come through one of its sessions."""
    store._committed(receipt)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - see above
