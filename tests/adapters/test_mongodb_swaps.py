"""Reading a collection of MongoDB's while another is put in its place."""

from collections.abc import Iterator

import pytest
from pymongo.errors import OperationFailure

from turnlog.adapters.mongodb.client import Client, Documents
from turnlog.adapters.mongodb.documents import Document
from turnlog.adapters.mongodb.swapping import across_swaps

N = 300


class Reading:
    """Reads a collection in parts, and puts another in its place after the first part, if there is one left."""

    def __init__(self, client: Client) -> None:
        self.collection = client.collection("answering")
        self._others: list[Documents] = [client.collection("built")]
        for n, collection in enumerate((self.collection, *self._others)):
            collection.insert_many([{"_id": i, "generation": n} for i in range(N)])

    def __call__(self) -> list[Document]:
        """Read."""
        cursor = self.collection.find({}, sort=[("_id", 1)], batch_size=2)
        first = next(cursor)
        while self._others:
            self._others.pop().rename(self.collection.name, dropTarget=True)
        return [first, *cursor]


@pytest.fixture
def reading(mongodb_url: str) -> Iterator[Reading]:
    """A read of a generation that is replaced under it."""
    with Client(mongodb_url) as client:
        yield Reading(client)


def test_the_server_ends_what_reads_the_old_one(reading: Reading) -> None:
    """A query does not outlive its collection: what ``across_swaps`` is for."""
    with pytest.raises(OperationFailure, match="dropped") as raised:
        reading()
    assert raised.value.code == 175


def test_it_is_read_again(reading: Reading) -> None:
    """What is returned is the new generation, whole, and nothing of the old one."""
    assert across_swaps(reading) == [{"_id": i, "generation": 1} for i in range(N)]


def test_other_errors_are_told(reading: Reading) -> None:
    """Only that error is a reason to read again."""
    with pytest.raises(OperationFailure, match=r"unknown operator|\$no"):
        across_swaps(lambda: list(reading.collection.find({"$no": 1})))
