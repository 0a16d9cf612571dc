"""The contract of views that ``turnlog.testing`` ships, on every store of views that turnlog has."""

from collections.abc import Iterator

import pytest

from turnlog import Backend
from turnlog.adapters.connect import connect
from turnlog.testing.contracts import ViewsContract


@pytest.fixture
def backend(url: str) -> Iterator[Backend]:
    """An empty log and its views, as a store has them."""
    opened = connect(url, durability="normal", engine=None, options={})
    yield opened
    opened.recorder.close()
    opened.views.close()


class TestViews(ViewsContract):
    pass
