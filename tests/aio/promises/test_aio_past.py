"""What the blocking API promises about the past, promised by `turnlog.aio`."""

from tests.api.test_past import *
