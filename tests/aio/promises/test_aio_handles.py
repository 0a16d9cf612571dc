"""What the blocking API promises about handles, promised by `turnlog.aio`."""

from tests.api.test_handles import *
