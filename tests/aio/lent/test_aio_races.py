"""What is promised of others who write meanwhile, promised by `turnlog.aio`."""

from tests.lent.test_races import *

del test_an_order_held_for_too_long  # opens a store of its own
del test_applications_that_race  # slow, and no different
