"""What docs/coming-from/llm-terminals.md shows is what a terminal shows, and its tasks are those of llm.md."""

from __future__ import annotations

import re
import shutil

import pytest
from scripts import DOCS, script

terminals = script("terminals")


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("tmux") and shutil.which("bash")), reason="needs tmux and bash")
def test_the_page_shows_what_a_terminal_shows() -> None:
    """Make it again with `python docs/terminals.py`; without llm, its screens are not compared."""
    pytest.importorskip("rich")
    page = terminals.PAGE.read_text(encoding="utf-8")
    if shutil.which("llm"):
        assert page == terminals.page()
    else:
        assert re.sub(r"\nllm:\n\n```text\n.*?\n```\n", "", page, flags=re.DOTALL) == terminals.page(["llmbridge"])


def test_no_screen_is_too_wide() -> None:
    """Every line of a screen fits, and no llmbridge command fills more than the screen."""
    page = terminals.PAGE.read_text(encoding="utf-8")
    screens = re.findall(r"\n(\w+):\n\n```text\n(.*?)\n```\n", page, re.DOTALL)
    assert len(screens) == 2 * len(terminals.TASKS)
    assert max(len(line) for _, screen in screens for line in screen.splitlines()) <= terminals.COLUMNS
    assert not [screen for program, screen in screens if program == "llmbridge" and "scrolled away" in screen]


def test_the_tasks_are_those_of_the_other_page() -> None:
    """Both have the same rows, in the same order."""
    told = (DOCS / "coming-from" / "llm.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([^|]+) \|", told.partition("## On the command line")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert rows[1:] == [task.name for task in terminals.TASKS]
