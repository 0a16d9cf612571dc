"""What is promised of the connection that an application lends, promised by `turnlog.aio` of one for asyncio.

Those promises that tests/aio/test_using.py does not check, and that are not the server's alone to keep.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.aio.facade import Loop, opened
from tests.lent import test_postgresql as blocking

test_isolation_that_cannot_try_again_is_refused = blocking.test_isolation_that_cannot_try_again_is_refused
test_in_autocommit_mode_a_transaction_is_needed = blocking.test_in_autocommit_mode_a_transaction_is_needed
test_a_transaction_that_has_failed = blocking.test_a_transaction_that_has_failed
test_what_is_refused_inside = blocking.test_what_is_refused_inside
test_as_a_user_sees_it = blocking.test_as_a_user_sees_it
test_text_in_another_encoding_is_refused = blocking.test_text_in_another_encoding_is_refused
test_repeated_conflicts_with_prepared_statements = blocking.test_repeated_conflicts_with_prepared_statements


@pytest.fixture
def store(postgresql_url: str, loop: Loop) -> Iterator[Any]:
    """A store with a session ``s``."""
    with opened(loop, postgresql_url) as made:
        made.session("s")
        yield made
