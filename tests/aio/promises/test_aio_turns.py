"""What the blocking API promises about turns, promised by `turnlog.aio`."""

from tests.api.test_turns import *

del test_what_is_an_append_of_its_own_is_refused_inside  # calls the blocking class
