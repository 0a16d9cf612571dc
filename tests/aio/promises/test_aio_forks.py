"""What the blocking API promises about forks and resets, promised by `turnlog.aio`."""

from tests.api.test_forks import *
