"""The notebooks of examples/ run from top to bottom, and are committed without outputs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbconvert")
pytest.importorskip("ipykernel")

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "notebooks"
BOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def convert(to: str, book: Path, folder: Path, *options: str) -> str:
    """The text that nbconvert makes of a notebook."""
    places = ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")
    done = subprocess.run(
        [sys.executable, "-m", "nbconvert", "--to", to, "--stdout", *options, str(book)],
        env={**os.environ, **dict.fromkeys(places, str(folder))},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", BOOKS)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    """Without a key and a network; each answer is shown once, and as HTML, too."""
    source = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert not [cell for cell in source["cells"] if cell.get("outputs")]
    executed = convert("notebook", FOLDER / f"{name}.ipynb", tmp_path, "--execute")
    outputs: list[dict[str, Any]] = [
        output for cell in json.loads(executed)["cells"] for output in cell.get("outputs", ())
    ]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    types = {kind for output in outputs for kind in output.get("data", {})}
    assert types <= {"text/plain", "text/markdown"}
    made = tmp_path / "made.ipynb"
    made.write_text(executed, encoding="utf-8")
    page = convert("html", made, tmp_path)
    answers = [text for text in map(str, outputs) if " · stop</small>" in text]
    assert page.count(" · stop</small>") == len(answers) > 0


def test_the_notebooks_are_these() -> None:
    """A new notebook is tested as well."""
    assert BOOKS == ["comparing_models", "conversation", "first_steps", "many_prompts", "tools_and_schema"]
