"""What the blocking API promises about idempotency, promised inside an application's transaction."""

from tests.api.test_idempotency import *

del test_idempotent_after_many_events  # slow, and no different
del test_an_id_used_for_something_else_is_a_conflict  # looks at the log's position
