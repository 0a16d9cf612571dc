"""What the blocking API promises about idempotency, promised by `turnlog.aio`."""

from tests.api.test_idempotency import *

del test_idempotent_after_many_events  # slow, and no different
del test_an_inner_turn_has_no_command_id_of_its_own  # it is refused on entering, see test_turns.py
