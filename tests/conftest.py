"""What holds for every test; the fixtures with servers come from `shared.testing.plugin`."""

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

# No deadline, since a busy machine is no fault; the same examples on every run of CI.
settings.register_profile("glam", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("glam")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape what UTF-8 cannot carry: a report with a lone surrogate ends a parallel run."""
    report = yield
    report.sections = [
        (title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections
    ]
    return report
