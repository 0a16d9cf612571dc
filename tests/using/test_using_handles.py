"""What the blocking API promises about handles, promised inside an application's transaction."""

from tests.api.test_handles import *

del test_threads_share_a_handle  # verifies all of the log
del test_ids_of_the_applications_own_making  # opens a store of its own, as the next
del test_stores_of_several_threads_write_at_once
del test_gone_comes_before_any_other_refusal  # deletes
