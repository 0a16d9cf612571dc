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


def test_each_bug_is_found_and_none_where_there_is_none() -> None:
    """By the test that is for it, and most of the others say nothing; the healthy recorder and views pass all of it.

    It is one test because it is one run of pytest, which several processes would otherwise each make.
    """
    noted = Outcomes()
    pytest.main([str(PLANTED), "--import-mode=importlib", *QUIETLY, *APART, *WITHOUT], plugins=[noted])
    for suite, least in (("TestLog", 30), ("TestViews", 20), ("TestProcesses", 4)):
        assert noted.failed[suite] == set()
        assert len(noted.passed[suite]) >= least
    found = {bug: noted.failed[f"Test{bug.__name__}"] for bug in BUGS}
    assert [bug.__name__ for bug, name in BUGS.items() if name not in found[bug]] == []
    silent = {bug: noted.passed[f"Test{bug.__name__}"] - found[bug] for bug in BUGS}
    assert [bug.__name__ for bug in BUGS if len(found[bug]) > len(silent[bug])] == []
