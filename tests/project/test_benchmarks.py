"""The benchmarks run; their figures are judged by people, not by tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(0)  # a slow machine takes its time
def test_every_benchmark_runs() -> None:
    """All of them run to the end with tiny sizes, and every contender gets the text that was sent."""
    command = [sys.executable, "-m", "benchmarks.run_all", "--smoke", "--only", "floor,requests+sseclient,llmbridge"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for table in (
        "CPU per piece: one event per HTTP chunk",
        "Import",
        "Warm call",
        "TCP connections",
        "Memory",
        "A stream of 1 MB of comments\n",
        "A stream of 1 MB of comments, gzipped",
        "20 calls, 16 at once",
        "8 calls of 8 pieces, started at once",
        "4 waves of 8 tasks",
        "4 waves of 8 threads",
    ):
        assert f"\n{table}" in done.stdout
    assert "absent: " not in done.stdout
