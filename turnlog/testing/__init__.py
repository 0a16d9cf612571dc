"""For tests of agents, and of one's own adapters: install ``turnlog[testing]``. turnlog itself never imports it.

- Agents: ``Clock`` moves when told to; ``given_session`` … ``when`` … ``then`` says what an agent is to write;
  ``Faults`` and ``faulty`` make a store fail, be slow, repeat itself or die. See docs/testing.md.
- Rules: ``scenario`` has given/when/then for ``decide`` and ``evolve``; ``strategies`` draws JSON, events, and whole
  conversations that are valid.
- Adapters: ``contracts`` are classes of tests to inherit, ``machine`` is a Hypothesis state machine over the public
  API. See docs/adapters.md.
"""

import pytest

pytest.register_assert_rewrite(  # before they are imported: a failing contract shows what it compared
    "turnlog.testing.contracts",
    "turnlog.testing.machine",
    "turnlog.testing.scenario",
    "turnlog.testing.sessions",
)

from turnlog.testing.clock import Clock  # noqa: E402 - see above
from turnlog.testing.faults import Crashed, Faults, FaultyRecorder, faulty  # noqa: E402 - as above
from turnlog.testing.sessions import given_session, like  # noqa: E402 - as above

__all__ = ["Clock", "Crashed", "Faults", "FaultyRecorder", "faulty", "given_session", "like"]
