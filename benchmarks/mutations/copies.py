"""A copy of the repository in a temporary folder, its tests by promise, and their verdicts on a change."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.mutations.mutation import DoesNotApply, Mutation
from benchmarks.mutations.watch import LOG

__all__ = ["Copy", "Verdict", "copied", "tests_by_promise"]

_LEFT_OUT = shutil.ignore_patterns(
    ".git", "__pycache__", ".*_cache", ".hypothesis", ".tox", ".venv", "venv", "build", "dist", "*.egg-info"
)
_QUICK = "test_promises_gaps.py"  # one short test per promise, run first
_NUMBERS = re.compile(r"test_((?:p\d+_)+)")
_TEST_SECONDS = 60
_PASSED, _FAILED = 0, 1


@dataclass(frozen=True)
class Verdict:
    """The result of a mutation.

    Args:
        caught: Whether a test of its promise fails with it, and passes without it.
        says: That test, or what went wrong.
        seconds: The time it took.
    """

    caught: bool
    says: str
    seconds: float = 0.0


def tests_by_promise(root: Path) -> dict[str, dict[Path, list[str]]]:
    """For each promise the test modules, with the names of their tests for it."""
    found: dict[str, dict[Path, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted((root / "tests").rglob("test_*.py"), key=lambda path: (path.name != _QUICK, path)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (numbers := _NUMBERS.match(node.name)):
                for number in re.findall(r"\d+", numbers[1]):
                    found[f"P{int(number)}"][path.relative_to(root)].append(node.name)
    return found


def copied(source: Path, folder: Path) -> Copy:
    """A copy of the repository, after checking that its tests import the copied package."""
    shutil.copytree(source, folder / "copy", ignore=_LEFT_OUT)
    copy = Copy(folder / "copy")
    imported = copy.imported()
    if not imported.is_relative_to(copy.root):
        raise RuntimeError(f"tests of the copy would import {imported}: another llmbridge comes first on the path")
    return copy


class Copy:
    """A copy of the repository that may be broken.

    Args:
        root: Its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._log = self.root.parent / "log"
        self._changes = 0

    def imported(self) -> Path:
        """The folder from which the copy's processes import llmbridge."""
        command = [sys.executable, "-c", "import llmbridge; print(llmbridge.__file__)"]
        run = subprocess.run(
            command, cwd=self.root, env=self._environment(), capture_output=True, text=True, check=True
        )
        return Path(run.stdout.strip()).resolve()

    def meet(self, mutation: Mutation, seconds: float) -> Verdict:
        """Whether a test of the mutation's promise catches it.

        Args:
            mutation: Applied during the run.
            seconds: Limit after which the run is killed; a test that hangs until then has caught it.
        """
        started = time.monotonic()
        try:
            path, changed = mutation.applied(self.root)
        except DoesNotApply as error:
            return Verdict(False, f"DID NOT APPLY: {error}")
        modules = tests_by_promise(self.root)[mutation.promise]
        names = {name for tests in modules.values() for name in tests}
        original = path.read_text(encoding="utf-8")
        self._write(path, changed)
        try:
            verdict = self._run([*map(str, modules), "-k", " or ".join(sorted(names))], seconds)
        finally:
            self._write(path, original)
        if verdict.caught:
            again = self._run([verdict.says], seconds)
            if again.caught:
                verdict = Verdict(False, f"{verdict.says} FAILS WITHOUT THE CHANGE, too")
        return Verdict(verdict.caught, verdict.says, time.monotonic() - started)

    def _write(self, path: Path, text: str) -> None:
        path.write_text(text, encoding="utf-8")
        self._changes += 1  # byte code counts as current if time (in seconds) and size are equal
        stamp = time.time() + 10 * self._changes
        os.utime(path, (stamp, stamp))

    def _run(self, selected: Sequence[str], seconds: float) -> Verdict:
        """pytest's verdict on the selected tests."""
        self._log.unlink(missing_ok=True)
        plugins = ["-p", "no:cacheprovider", "-p", "no:randomly", "-p", "benchmarks.mutations.watch"]
        command = [sys.executable, "-m", "pytest", "-x", "-q", f"--timeout={_TEST_SECONDS}", *plugins, *selected]
        run = subprocess.Popen(
            command,
            cwd=self.root,
            env={**self._environment(), LOG: str(self._log)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = run.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            return Verdict(True, self._last("began") or "nothing")
        finally:
            if run.poll() is None:  # too late, or Ctrl-C
                _end(run)
        if run.returncode == _PASSED:
            return Verdict(False, "ESCAPED")
        if run.returncode == _FAILED and (test := self._last("failed")):
            return Verdict(True, test)
        last = output.strip().rpartition("\n")[2]
        return Verdict(False, f"COULD NOT BE TESTED: pytest ended with {run.returncode}: {last[:200]}")

    def _last(self, kind: str) -> str | None:
        lines = self._log.read_text(encoding="utf-8").splitlines() if self._log.exists() else []
        texts = [line.partition(" ")[2] for line in lines if line.startswith(f"{kind} ")]
        return texts[-1] if texts else None

    def _environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON"))}
        return {**kept, "PYTHONPATH": str(self.root)}


def _end(run: subprocess.Popen[str]) -> None:
    """Ends a run and the processes that its tests have started."""
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(run.pid, signal.SIGKILL)
        else:
            run.kill()
    run.communicate()
