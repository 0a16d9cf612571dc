"""What the blocking API promises about the rules, promised by `turnlog.aio`."""

from tests.api.test_rules import *

del test_taking_away_nothing_changes_nothing  # calls the blocking class
