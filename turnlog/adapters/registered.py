"""The views that a program has registered with a store of views, each with its place there."""

from collections.abc import Mapping
from typing import Any, TypeAlias, cast

from turnlog.adapters.names import Names
from turnlog.adapters.search_tables import SearchTable, TermsOf
from turnlog.adapters.view_tables import MessageTable, RowsOf, SessionTable
from turnlog.adapters.wording import Wording
from turnlog.domain.errors import InvalidInput
from turnlog.projections.applying import Applied, try_to_forget
from turnlog.projections.message_index import MessageIndex
from turnlog.projections.message_search import MessageSearch
from turnlog.projections.session_index import SessionIndex
from turnlog.projections.view_store import View, ViewStore

BuiltIn: TypeAlias = SessionTable | MessageTable | SearchTable
BUILT_IN = (SessionTable, MessageTable, SearchTable)


class Registered:
    """Registered views by name; built-in ones are kept in tables of a database."""

    def __init__(self, names: Names, wording: Wording, rows_of: RowsOf, terms_of: TermsOf) -> None:
        self.views: dict[str, Applied] = {}
        self._parts = names, wording, rows_of
        self._terms_of = terms_of

    def register(self, view: View) -> Applied:
        """Know a view, and give it its place: see ``ViewStore``."""
        match view:
            case SessionIndex():
                stored: Applied = SessionTable(view, *self._parts)
            case MessageIndex():
                stored = MessageTable(view, *self._parts)
            case MessageSearch():
                stored = SearchTable(view, *self._parts, self._terms_of)
            case _:
                stored = application_view(view)
        self.views[stored.name] = stored
        return stored

    def forget(self, store: ViewStore, connection: Any, stream: str) -> list[str]:
        """Delete what the views stored there hold of a session; return those that still hold it."""
        return forget_in(self.views, store, connection, stream)


def application_view(view: View) -> Applied:
    """Return an application's projection as it is.

    Raises:
        InvalidInput: it is none.
    """
    for method in ("create", "apply"):
        if not callable(getattr(view, method, None)):
            raise InvalidInput("projection", f"expected a method {method!r}")
    return cast("Applied", view)


def forget_in(views: Mapping[str, Applied], store: ViewStore, connection: Any, stream: str) -> list[str]:
    """Delete what the views stored there hold of a session; return those that still hold it.

    They cannot forget, are stored in another revision than this program's, or are not among ``views``.
    """
    holding: list[str] = []
    for at in store.checkpoints(connection).values():
        view = views.get(at.name)
        same = view is not None and view.revision == at.revision
        if not same or not try_to_forget(store, view, connection, stream):
            holding.append(at.name)
    return holding
