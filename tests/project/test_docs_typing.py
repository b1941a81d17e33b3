"""docs/typing.md: mypy and pyright, in their strict modes, find nothing wrong with its examples."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "typing.md").read_text(encoding="utf-8")
CHECKERS = {"mypy": ["mypy", "--strict", "--cache-dir", os.devnull, "."], "pyright": ["pyright"]}


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    """A folder with the examples, and with pyright's strict mode switched on."""
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)):
        (tmp_path / f"example_{number}.py").write_text(code, encoding="utf-8")
    strict = {"typeCheckingMode": "strict", "extraPaths": [str(ROOT)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(strict), encoding="utf-8")
    return tmp_path


def _run(checker: str, folder: Path) -> str:
    pytest.importorskip(checker)
    command = [sys.executable, "-m", *CHECKERS[checker]]
    environment = {**os.environ, "MYPYPATH": str(ROOT)}
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    return run.stdout + run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_the_examples_are_right(checked: Path, checker: str) -> None:
    """As they stand."""
    said = _run(checker, checked)
    assert re.search(r"^Success: no issues found in \d+ source files|^0 errors, 0 warnings", said, re.MULTILINE), said


@pytest.mark.slow
@pytest.mark.parametrize("checker", CHECKERS)
def test_the_mistakes_that_the_examples_name_are_found(checked: Path, checker: str) -> None:
    """A misspelt field, a word that the schema does not have, a wrong argument, an event that is left out."""
    mistakes = {
        "parsed.name.upper()": "parsed.mayor.upper()",
        'mood == "good"': 'mood == "fine"',
        'kitchen.order("soup", plates=2)': "kitchen.order(2)",
        "        case Other() | OtherChoice():\n            pass\n": "",
    }
    wrong = set()
    for path in checked.glob("*.py"):
        code = path.read_text(encoding="utf-8")
        for right, mistaken in mistakes.items():
            if right in code:
                wrong.add(path.name)
                path.write_text(code.replace(right, mistaken), encoding="utf-8")
    assert len(wrong) == len(mistakes)
    found = re.findall(r"(example_\d+\.py):\d+(?::\d+)?(?:: | - )error", _run(checker, checked))
    assert set(found) == wrong
