"""What the blocking API promises about turns, promised inside an application's transaction."""

from tests.api.test_turns import *

del test_a_turn_is_one_append  # counts by `on_committed`
del test_an_empty_turn_writes_nothing  # looks at the log's position
del test_nothing_of_a_turn_is_lost_where_deciding_again_fails  # so does this
del test_a_turn_that_says_nothing_on_a_deleted_session_is_refused  # deletes
