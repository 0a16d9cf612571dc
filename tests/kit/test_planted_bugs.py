"""The kit finds bugs: each that was planted, one by one, by the test that is for it; and none where there is none."""

import os
from collections import defaultdict
from pathlib import Path

import pytest

from tests.kit.planted import BUGS

PLANTED = Path(__file__).with_name("planted.py")
QUIETLY = ["-q", "--tb=no", "--no-header", "--no-summary", "-W", "error", "-k", "not 2500"]  # which take long
APART = ["-c", os.devnull, "--rootdir", str(PLANTED.parent), "--confcutdir", str(PLANTED.parent)]
WITHOUT = [f"-pno:{plugin}" for plugin in ("cacheprovider", "faulthandler", "randomly", "xdist")]


class Outcomes:
    """Notes what fails; a plugin of the pytest that runs the kit on what was planted."""

    def __init__(self) -> None:
        self.passed: defaultdict[str, set[str]] = defaultdict(set)
        self.failed: defaultdict[str, set[str]] = defaultdict(set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test's outcome by its class; fixtures that fail count as well."""
        _, suite, name = report.nodeid.split("::", 2)
        if report.failed:
            self.failed[suite].add(name.partition("[")[0])
        elif report.when == "call":
            self.passed[suite].add(name.partition("[")[0])


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    """What the kit says of every planted bug."""
    noted = Outcomes()
    pytest.main([str(PLANTED), "--import-mode=importlib", *QUIETLY, *APART, *WITHOUT], plugins=[noted])
    return noted


def test_none_is_found_where_there_is_none(outcomes: Outcomes) -> None:
    """The healthy recorder and views pass all of it."""
    for suite in ("TestLog", "TestViews", "TestProcesses"):
        assert outcomes.failed[suite] == set()
    assert len(outcomes.passed["TestLog"]) > 30
    assert len(outcomes.passed["TestViews"]) > 15


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_each_is_found(outcomes: Outcomes, bug: type) -> None:
    """By the test that is for it, and most of the others say nothing: what is wrong is told apart from what is not."""
    failed = outcomes.failed[f"Test{bug.__name__}"]
    passed = outcomes.passed[f"Test{bug.__name__}"] - failed
    assert BUGS[bug] in failed
    assert len(failed) <= len(passed)
