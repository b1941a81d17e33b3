"""docs/promises.md is true: each promise has a section, each named test exists, each figure is that of the code."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
SECTIONS = {
    found[1]: found[2] for found in re.finditer(r"^### (P\d+) [^\n]+\n(.+?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
PROMISES = [f"P{number}" for number in range(1, len(SECTIONS) + 1)]
FIGURES = re.findall(r"^\| [^|]+ \| ([\d.]+)(?: (s|KiB|MiB))? \| `([\w.]+)` \|$", PAGE, re.MULTILINE)
UNITS = {"": 1, "s": 1, "KiB": 1024, "MiB": 1024 * 1024}


class _Test(NamedTuple):
    """A test as its source shows it; one in a class is called `Class::test`."""

    module: str
    name: str
    arguments: frozenset[str]
    slow: bool


@cache
def _tests() -> list[_Test]:
    """All tests of the files that the page names, or that have tests of promises."""
    found: list[_Test] = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        if f"`{path.stem}" not in PAGE and not re.search(r"def test_p\d", text):
            continue
        nodes = ast.parse(text).body
        whole = any(isinstance(node, ast.Assign) and "pytest.mark.slow" in ast.unparse(node) for node in nodes)
        inside = [(node, one) for node in nodes if isinstance(node, ast.ClassDef) for one in node.body]
        for owner, node in [*((None, node) for node in nodes), *inside]:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_"):
                marks = [*node.decorator_list, *(owner.decorator_list if owner else ())]
                slow = whole or any(ast.unparse(mark) == "pytest.mark.slow" for mark in marks)
                taken = frozenset(argument.arg for argument in node.args.args)
                found.append(_Test(path.stem, f"{owner.name}::{node.name}" if owner else node.name, taken, slow))
    return found


def _exists(module: str, test: str) -> bool:
    return any((module, test) == (one.module, one.name) for one in _tests())


def _numbers(test: str) -> set[str]:
    """The promise numbers in the test's name."""
    name = test.rpartition("::")[2]
    bears = re.match(r"test_((?:p\d+_)+)", name)
    return {f"P{int(number)}" for number in re.findall(r"\d+", bears[1])} if bears else set()


def _value(name: str) -> Any:
    """The value of a dotted name below `llmbridge`; of a dataclass's field, the default."""
    module: Any = importlib.import_module("llmbridge")
    value: Any = module
    for part in name.split("."):
        if dataclasses.is_dataclass(value):
            (field,) = (field for field in dataclasses.fields(value) if field.name == part)
            value = field.default
            continue
        try:
            module = value = importlib.import_module(f"{module.__name__}.{part}")
        except ModuleNotFoundError:
            value = getattr(value, part)
    return value


def test_every_promise_has_a_section_in_order() -> None:
    """From P1 on without a gap, each once."""
    assert list(SECTIONS) == PROMISES
    assert re.findall(r"^### (P\d+) ", PAGE, re.MULTILINE) == PROMISES


@pytest.mark.parametrize("promise", PROMISES)
def test_the_tests_of_a_promise_exist_and_bear_its_number(promise: str) -> None:
    """Each named test can be found, and `-k pN_` runs it."""
    named = re.findall(r"`(test_\w+)::([\w:]+)`", SECTIONS[promise])
    assert named
    for module, test in named:
        assert _exists(module, test), f"{module}::{test} does not exist"
        assert promise in _numbers(test), f"{module}::{test} bears another number"


@pytest.mark.parametrize("promise", PROMISES)
def test_a_promise_is_proved_for_every_kind_of_user(promise: str) -> None:
    """At least one of its tests runs in sync, asyncio and trio; cancelling tasks exists only in event loops."""
    wanted = "loop" if promise == "P15" else "mode"
    assert any(promise in _numbers(test.name) and wanted in test.arguments for test in _tests())


@pytest.mark.parametrize("promise", PROMISES)
def test_the_quick_run_has_a_test_of_each_promise(promise: str) -> None:
    """Of the others, it has a few cases each, see conftest.py."""
    assert any(promise in _numbers(test.name) and not test.slow for test in _tests())


def test_what_the_page_names_elsewhere_exists() -> None:
    """All tests that the page names outside of the sections exist."""
    for module, test in re.findall(r"`(test_\w+)::([\w:]+)`", PAGE):
        assert _exists(module, test)
    for module in re.findall(r"`(test_\w+)`", PAGE):
        assert any(module == test.module for test in _tests())


@pytest.mark.parametrize(("number", "unit", "name"), FIGURES, ids=[name for _, _, name in FIGURES])
def test_a_figure_is_the_codes(number: str, unit: str, name: str) -> None:
    """The table of figures matches the code."""
    assert _value(name) == float(number) * UNITS[unit]


def test_the_table_of_figures_was_read_whole() -> None:
    """Every row of it is a figure that is compared."""
    table = PAGE.partition("\n## Figures\n")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")]
    assert len(rows) - 2 == len(FIGURES) >= 20


@pytest.mark.parametrize("promise", PROMISES)
def test_a_figure_of_a_section_is_one_of_the_table(promise: str) -> None:
    """Sections and table agree; how soon an end is seen is the promise's own figure, in P14 and P15."""
    table = {(float(number), unit) for number, unit, _ in FIGURES}
    own = {"P14": {(2.0, "s")}, "P15": {(1.5, "s")}}.get(promise, set())
    text = SECTIONS[promise].partition("\n- ")[0]
    for number, unit in re.findall(r"\b([\d.]*\d)\s(s|KiB|MiB|threads|characters)\b", text):
        known = (float(number), unit if unit in UNITS else "")
        assert known in table | own, f"{number} {unit} is not in the table"


def test_what_is_not_promised_is_said() -> None:
    """The section is there, and covers each kind of promise."""
    text = PAGE.partition("\n## Not promised\n")[2]
    for word in (
        "locals",
        "memory",
        "plain function",
        "SOCKS",
        "POST",
        "Tokens are estimated",
        "atexit",
        "run_forever",
    ):
        assert word in text


@pytest.mark.slow
def test_every_mutation_applies_and_every_promise_has_one() -> None:
    """Each mutation of `python -m benchmarks.mutations` applies in exactly one place, and gives valid Python."""
    command = [sys.executable, "-m", "benchmarks.mutations", "--list"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert [line for line in run.stdout.splitlines() if "DOES NOT APPLY" in line] == []
    assert run.returncode == 0, run.stderr
    assert {line.partition(":")[0] for line in run.stdout.splitlines()} == set(PROMISES)
