"""What the blocking API promises about finding sessions, promised by `turnlog.aio`."""

from tests.api.test_getting import *
