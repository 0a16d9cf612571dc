"""What the blocking API promises about following the log, promised by `turnlog.aio`."""

from tests.api.test_following import *

del test_on_committed_is_told_of_every_commit  # its callback would wait for the loop that it is called on
