"""What is promised inside an application's transaction, promised by `turnlog.aio`."""

from tests.lent.test_together import *

del test_it_takes_a_server  # opens a store of its own
