"""The prose of the package, its tests and its documents is plain English, without habits of translated sentences."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
BE = "is|are|was|were|be|been|being"


class Habit(NamedTuple):
    """A wording to avoid.

    Attributes:
        pattern: Finds it in words that are separated by single spaces.
        instead: Better words.
        bad, good: A sentence with it, and a similar one that is fine.
    """

    pattern: str
    instead: str
    bad: str
    good: str


HABITS = {
    "is no": Habit(
        rf"(?<![Tt]here )\b({BE}) no (?!longer|more|less|later|matter|different|worse|good|\w+er than)",
        "'is not a', or a verb: does not support, lacks, cannot",
        "an event is no object",
        "there is no key, it is no longer than that",
    ),
    "asking": Habit(
        r"\b(an?|the|one|another|each|first|second|third|next|last) asking\b|\b[Aa]skings\b|\b[Aa]sking (again|once)\b",
        "request, retry, call",
        "a second asking fails",
        "without asking the service",
    ),
    "whoever": Habit(r"\b[Ww]hom?ever\b", "a noun: the caller, a thread", "it wakes whoever waits", "whenever"),
    "told": Habit(
        rf"\b({BE}) (never |not |only )?told\b(?! apart| from)",
        "an active verb: the error names, it gets",
        "the model is told",
        "cannot be told apart",
    ),
    "stands": Habit(
        r"\bstands? (at|beside|behind|there|under|before|above|below|alone|in quotes)\b",
        "is, comes, belongs",
        "what stands there wins",
        "None stands for the default",
    ),
    "looked at": Habit(
        rf"\b({BE}) (never |not |only )?looked at\b", "read, checked, used", "it is not looked at", "it is looked up"
    ),
    "all that": Habit(
        rf"\b[Aa]ll that ({BE}|has|have|had|came|comes|can|may|it|they|he|a|the|what|belongs|holds|follows)\b",
        "everything that, or a noun",
        "all that came before",
        "all that matters",
    ),
    "who": Habit(
        r'("""|[.;:] )Who (?![^.?"]*\?)', "a subject: a caller who", "Sent. Who waits gets it.", "Sent. Who gets it?"
    ),
    "clock": Habit(r"\b(total|idle|connect|first_content) clocks?\b", "timeout", "the total clock", "its clock"),
}


@cache
def _pages() -> list[tuple[Path, list[int], str]]:
    """Of each file, the line numbers of its words, and the words on one line."""
    found = []
    prose = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")]
    code = [path for folder in ("llmbridge", "tests") for path in (ROOT / folder).rglob("*.py")]
    for path in sorted({*prose, *code} - {Path(__file__).resolve()}):
        lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        words = [(word, number) for number, line in lines for word in line.split() if word != "#"]
        found.append((path.relative_to(ROOT), [number for _, number in words], " ".join(word for word, _ in words)))
    return found


@pytest.mark.parametrize("name", HABITS)
def test_the_prose_is_plain(name: str) -> None:
    """No file has the habit; the failure lists each place with its file and line."""
    places = [
        f"{path}:{lines[text.count(' ', 0, match.start() + 1)]}: {text[max(0, match.start() - 30) : match.end() + 30]}"
        for path, lines, text in _pages()
        for match in re.finditer(HABITS[name].pattern, text)
    ]
    assert not places, f"write {HABITS[name].instead}:\n" + "\n".join(places)


@pytest.mark.parametrize("name", HABITS)
def test_a_habit_is_recognized(name: str) -> None:
    """Each pattern finds its bad example, and not its good one."""
    habit = HABITS[name]
    assert re.search(habit.pattern, habit.bad)
    assert not re.search(habit.pattern, habit.good)
