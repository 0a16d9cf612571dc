"""What the blocking API promises about forks and resets, promised inside an application's transaction."""

from tests.api.test_forks import *

del test_reset_is_one_append  # looks at the log in order
del test_erasing_the_source_leaves_the_fork  # deletes, as the next two
del test_a_taken_id_is_refused
del test_a_reset_whose_successor_was_deleted_stays_done
del test_a_fork_belongs_to_whoever_owns_the_source  # erases a user
del test_a_long_session_is_forked_whole  # verifies all of the log, as the next
del test_a_fork_is_a_copy_that_goes_its_own_way
del test_a_fork_that_races_an_erasure_does_not_outlive_it  # opens a store of its own, as the next four
del test_of_two_racing_resets_with_one_id_one_is_done
del test_nothing_said_in_the_last_moment_is_lost_by_a_reset
del test_an_owner_who_comes_in_the_last_moment_owns_the_fork
del test_two_resets_at_once_under_one_id_are_one
