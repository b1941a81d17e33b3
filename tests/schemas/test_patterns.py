"""Searching for patterns in a bounded number of steps, with the same results as `re`."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from llmbridge._schemas import patterns
from llmbridge._schemas.check import check
from llmbridge._schemas.patterns import Patterns, TooCostly

ATOMS = [
    "a",
    "b",
    "c",
    ".",
    "[ab]",
    "[^a]",
    r"\w",
    r"\d",
    r"\s",
    r"\b",
    r"\B",
    "^",
    "$",
    r"\Z",
    "(a)",
    "(?!)",
    "(?<=a)",
    "(?<!b)",
]
REPEATS = ["*", "+", "?", "{2}", "{1,2}", "{0,3}", "{2,}", "*?", "+?", "??"]


def made_up(chance: random.Random, depth: int) -> str:
    """Any pattern."""
    kind = chance.random()
    if not depth or kind < 0.3:
        return chance.choice(ATOMS)
    inner = made_up(chance, depth - 1)
    if kind < 0.55:
        return inner + made_up(chance, depth - 1)
    if kind < 0.7:
        return f"(?:{inner}|{made_up(chance, depth - 1)})"
    if kind < 0.92:
        return f"(?:{inner}){chance.choice(REPEATS)}"
    return f"({chance.choice(['?=', '?!'])}{inner})"


@pytest.fixture
def _all_ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Turns off `re`, even for patterns with few ways."""
    monkeypatch.setattr(patterns, "_FEW", -1.0)
    return iter(())


@pytest.mark.usefixtures("_all_ways")
def test_p40_a_search_is_that_of_re() -> None:
    """Any pattern and text gives the result of `re`."""
    chance = random.Random(20260717)
    for _ in range(3_000):
        pattern = chance.choice(["", "", "(?i)", "(?s)", "(?m)"]) + made_up(chance, 4)
        text = "".join(chance.choice("abcA 1\n") for _ in range(chance.randrange(8)))
        assert Patterns().found(pattern, text) == (re.search(pattern, text) is not None), (pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^(a+)+$", "a" * 5_000, True),
        ("^(a+)+$", "a" * 5_000 + "!", False),
        ("^[a-z0-9]+(?:-[a-z0-9]+)*$", "ab-" * 2_000 + "x", True),
        (r"^(?=.*[A-Z])(?=.*\d).{8,}$", "a1B" * 30, True),
        (r"^([\w.]+)@([\w.]+)\.(\w+)$", "a." * 500 + "@", False),
        ("(x+x+)+y", "x" * 2_000, False),
        ("^((((a*)*)*)*)*$", "a" * 1_000 + "b", False),
        ("(a|aa)+$", "a" * 2_000 + "b", False),
    ],
)
def test_p40_patterns_that_take_ages_elsewhere(pattern: str, text: str, found: bool) -> None:
    """Patterns that take `re` very long are searched as quickly as others."""
    assert Patterns().found(pattern, text) is found


@pytest.mark.parametrize("part", ["a?", "a|", "^|a", ""])
@pytest.mark.parametrize("text", ["", "ab", "ab" * 500])
def test_p40_nothing_is_not_repeated_so_often(monkeypatch: pytest.MonkeyPatch, part: str, text: str) -> None:
    """Empty repetitions are skipped; `re` would do each, and keep it in memory."""
    monkeypatch.setattr(patterns, "re", SimpleNamespace(compile=re.compile, error=re.error))
    assert Patterns().found(f"(?:{part}){{4000000000}}", text) is True


@pytest.mark.parametrize("pattern", [r"(a+)+\1$", "(?:a[ab]?){900}c"])
@pytest.mark.quick(1)
def test_p40_a_search_that_takes_too_long_is_given_up(pattern: str) -> None:
    """A backreference is given up as well; the answer with that text does not fit."""
    text = "a" * 100_000 + "!"
    with pytest.raises(TooCostly):
        Patterns().found(pattern, text)
    assert check([text], {"items": {"pattern": pattern}}).problems == [f"[0]: is too long to check against {pattern}"]


@pytest.mark.slow
def test_p40_all_searches_of_an_answer_have_one_end() -> None:
    """Many long texts take no longer than one."""
    problems = check(["a" * 20_000 + "!"] * 500, {"items": {"pattern": "^(a+)+$"}}).problems
    assert 0 < sum("must match" in problem for problem in problems) < 400
    assert sum("is too long" in problem for problem in problems) > 100


def test_a_pattern_of_another_dialect_is_left_to_the_service() -> None:
    """Python cannot read the pattern, so the service decides."""
    assert Patterns().found(r"\p{L}+", "x") is None
    assert check("x", {"pattern": r"\p{L}+"}).problems == []
