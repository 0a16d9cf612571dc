"""What the blocking API promises about handles, promised by `turnlog.aio`."""

from tests.api.test_handles import *

del test_what_one_thread_decided_does_not_stand_on_what_another_wrote  # the calls on one handle wait for each other
