"""What the blocking API promises about windows of the history, promised by `turnlog.aio`."""

from tests.api.test_windows import *

del test_a_replay_of_a_session_deleted_meanwhile_is_gone  # calls the blocking class
