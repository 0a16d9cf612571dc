"""What a view is written through on MongoDB: collections by the names that the view gives them.

An application's projection is given a ``ViewConnection``::

    def create(self, connection):
        connection.create("words", [IndexModel([("session_id", 1), ("word", 1)], unique=True)])

    def apply(self, events, connection):
        words = connection.collection("words")
        words.update_one({"session_id": …, "word": …}, {"$inc": {"said": 1}}, upsert=True)

What it writes is part of the transaction that sets the view's checkpoint; it need not, and cannot, name a session. In
``forget``, which may be part of an erasing transaction, writes have no results: they are done when it has returned.
While the view is built anew its collections have other names, which only this knows.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from pymongo import IndexModel
from pymongo.results import BulkWriteResult, DeleteResult, InsertManyResult, InsertOneResult, UpdateResult

from turnlog.adapters.mongodb import layout
from turnlog.adapters.mongodb.client import Client, Documents, Session
from turnlog.adapters.mongodb.documents import Document
from turnlog.domain.errors import InvalidInput

Filter: TypeAlias = Mapping[str, Any]
_Write: TypeAlias = Callable[[Session | None], Any]


class ViewConnection:
    """Collections of one place, in a transaction (``session``) or outside of any.

    Args:
        prefix: how the names of that place's collections begin.
    """

    def __init__(self, client: Client, prefix: str = "", session: Session | None = None) -> None:
        self._client = client
        self._prefix = prefix
        self.session = session
        self.created: list[str] = []
        """Names of collections that were created through here, as the view calls them."""
        self.written: list[_Write] | None = None
        """What was written in this transaction, to be written again if a later part is undone; else not kept."""
        self.held = 0
        """How often the views were written, this time included, if they are."""
        self._put_off: list[_Write] | None = None

    def create(self, name: str, indexes: Sequence[IndexModel] = ()) -> None:
        """Create an empty collection with these indexes. That is at once, and no part of a transaction.

        Raises:
            InvalidInput: the name is none, or begins with ``system.``.
        """
        if not name or "$" in name or "\0" in name or name.startswith((".", "system.")):
            raise InvalidInput("collection", f"expected a name of a collection, got {name!r:.100}")
        layout.create(self._client, self._prefix + name, indexes)
        self.created.append(name)

    def collection(self, name: str) -> "ViewCollection":
        """Return the collection that the view calls by this name."""
        return ViewCollection(self, self._client.collection(self._prefix + name))

    def write(self, do: _Write) -> Any:
        """Write, and keep how."""
        if self._put_off is not None:
            self._put_off.append(do)
            return None
        done = do(self.session)
        if self.written is not None:
            self.written.append(do)
        return done

    @contextmanager
    def at_the_end(self) -> Generator[None, None, None]:
        """Write what is written inside when that is over, and nothing of it if it raises; it has no results then."""
        put_off: list[_Write] = []
        self._put_off = put_off
        try:
            yield
        finally:
            self._put_off = None
        for do in put_off:
            self.write(do)

    def write_again(self, n: int) -> None:
        """Repeat the first ``n`` writes of this transaction, the rest of which was undone."""
        written = (self.written or [])[:n]
        for do in written:
            do(self.session)
        self.written = written


class ViewCollection:
    """One collection, read and written in the transaction of its connection; arguments are those of pymongo's."""

    def __init__(self, connection: ViewConnection, collection: Documents) -> None:
        self._connection = connection
        self._collection = collection

    def find(self, filter: Filter | None = None, *args: Any, **options: Any) -> Any:  # noqa: A002 - pymongo's name
        """Return a cursor."""
        return self._collection.find(filter, *args, session=self._connection.session, **options)

    def find_one(self, filter: Filter | None = None, *args: Any, **options: Any) -> Document | None:  # noqa: A002 - as above
        """Return a document."""
        return self._collection.find_one(filter, *args, session=self._connection.session, **options)

    def aggregate(self, pipeline: Sequence[Filter], **options: Any) -> Any:
        """Return a cursor over what a pipeline, which must not write, gives."""
        return self._collection.aggregate(pipeline, session=self._connection.session, **options)

    def count_documents(self, filter: Filter, **options: Any) -> int:  # noqa: A002 - as above
        """Count documents."""
        return self._collection.count_documents(filter, session=self._connection.session, **options)

    def insert_one(self, document: Document) -> InsertOneResult:
        """Insert a document."""
        done: InsertOneResult = self._write(lambda session: self._collection.insert_one(document, session=session))
        return done

    def insert_many(self, documents: Sequence[Document]) -> InsertManyResult:
        """Insert documents."""
        done: InsertManyResult = self._write(lambda session: self._collection.insert_many(documents, session=session))
        return done

    def update_one(self, filter: Filter, update: Any, **options: Any) -> UpdateResult:  # noqa: A002 - as above
        """Change a document."""
        done: UpdateResult = self._write(
            lambda session: self._collection.update_one(filter, update, session=session, **options)
        )
        return done

    def update_many(self, filter: Filter, update: Any, **options: Any) -> UpdateResult:  # noqa: A002 - as above
        """Change documents."""
        done: UpdateResult = self._write(
            lambda session: self._collection.update_many(filter, update, session=session, **options)
        )
        return done

    def replace_one(self, filter: Filter, replacement: Document, **options: Any) -> UpdateResult:  # noqa: A002 - as above
        """Put a document in the place of another."""
        done: UpdateResult = self._write(
            lambda session: self._collection.replace_one(filter, replacement, session=session, **options)
        )
        return done

    def delete_one(self, filter: Filter) -> DeleteResult:  # noqa: A002 - as above
        """Delete a document."""
        done: DeleteResult = self._write(lambda session: self._collection.delete_one(filter, session=session))
        return done

    def delete_many(self, filter: Filter) -> DeleteResult:  # noqa: A002 - as above
        """Delete documents."""
        done: DeleteResult = self._write(lambda session: self._collection.delete_many(filter, session=session))
        return done

    def bulk_write(self, requests: Sequence[Any], **options: Any) -> BulkWriteResult:
        """Write several things."""
        done: BulkWriteResult = self._write(
            lambda session: self._collection.bulk_write(requests, session=session, **options)
        )
        return done

    def _write(self, do: _Write) -> Any:
        return self._connection.write(do)
