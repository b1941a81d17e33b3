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


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_the_benchmark_of_many_rows_runs() -> None:
    """All of its parts; no answer is wrong, and no row lost."""
    command = [sys.executable, "-m", "benchmarks.many", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for table in (
        "64 rows, 64 at once, answered after 0.2 s",
        "64 rows, 64 at once, answered after 1 s",
        "500 rows that are answered at once, 64 wide",
        "40 rows by map at services that refuse",
        "60 rows, 32 at once, SIGKILL",
        "Ctrl-C, 256 at once",
    ):
        assert f"\n{table}" in done.stdout
    for target in ("window: no row lost: 0", "no row lost, wrong or seen before it was written: 0"):
        assert f"target {target}  met" in done.stdout
