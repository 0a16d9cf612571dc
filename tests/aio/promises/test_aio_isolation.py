"""What the blocking API promises about users kept apart, promised by `turnlog.aio`."""

from tests.api.test_isolation import *

del test_nothing_gives_out_what_is_anothers  # it asks functions that take a blocking store, too
