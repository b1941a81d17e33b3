"""A pytest plugin for the runs of changed copies: it reports failures, and that the copy is what is tested."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import llmbridge

LOG = "MUTATIONS_LOG"
"""The environment variable with the file to write to."""


def _note(kind: str, text: str) -> None:
    with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
        log.write(f"{kind} {text}\n")


def pytest_configure(config: pytest.Config) -> None:
    """Ends the run if the tests would import another llmbridge."""
    imported = Path(llmbridge.__file__).resolve()
    if not imported.is_relative_to(config.rootpath.resolve()):
        pytest.exit(f"{imported} is imported instead of the changed copy", returncode=4)
    _note("package", str(imported))


def pytest_runtest_logstart(nodeid: str) -> None:
    """Notes the running test, in case it never ends."""
    _note("began", nodeid)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Notes a test that failed or left something behind."""
    if report.failed:
        _note("failed", report.nodeid)
