"""What the blocking API promises about what is refused at the edge, promised by `turnlog.aio`."""

from tests.api.test_edges import *
