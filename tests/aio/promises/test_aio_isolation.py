"""What the blocking API promises about users kept apart, promised by `turnlog.aio`."""

from tests.api.test_isolation import *
