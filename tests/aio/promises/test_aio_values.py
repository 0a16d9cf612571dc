"""What the blocking API promises about values, promised by `turnlog.aio`."""

from tests.api.test_values import *
