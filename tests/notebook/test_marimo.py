"""The same objects in marimo: exported from a program of its own, as marimo writes logs into its user's folder."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from test_markdown import PIECES, Found

pytest.importorskip("marimo")

BOOK = '''
import marimo
app = marimo.App()

@app.cell
def _():
    from llmbridge import chat, conversation
    return chat, conversation

@app.cell
def _(chat):
    chat("The last line costs $5 and <b>more</b>", model="demo")
    return

@app.cell
def _(chat):
    answer = chat("Shown", model="demo").show()
    answer.usage
    return (answer,)

@app.cell
async def _(chat):
    await chat("Awaited", model="demo", reasoning_effort="low").show_async()
    return

@app.cell
def _(conversation):
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    talk = conversation(model="demo", tools=[add], run_tools=True)
    talk.ask("Please add 2 and 3.").complete()
    talk
    return

if __name__ == "__main__":
    app.run()
'''
RENDER = """
import json, sys
import marimo
from llmbridge.notebook.markdown import literal
json.dump([marimo.md(literal(text)).text for text in json.load(sys.stdin)], sys.stdout)
"""


def run(folder: Path, *command: str, given: str = "") -> str:
    """What a program prints whose user's folder is this one."""
    places = ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME")
    env = {**os.environ, **dict.fromkeys(places, str(folder)), "MARIMO_SKIP_UPDATE_CHECK": "1"}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env=env, input=given, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_answers_and_conversations_show_themselves(tmp_path: Path) -> None:
    """In a cell's last line, by show() and show_async(), and as objects."""
    (tmp_path / "book.py").write_text(BOOK, encoding="utf-8")
    run(tmp_path, "-m", "marimo", "export", "ipynb", "book.py", "-o", "book.ipynb", "--include-outputs")
    book = json.loads((tmp_path / "book.ipynb").read_text(encoding="utf-8"))
    outputs = ["".join(str(output) for output in cell["outputs"]) for cell in book["cells"] if "outputs" in cell]
    first, shown, awaited, talk = outputs[1:]
    assert "costs &#36;5" in first.replace("<span>&#36;</span>", "&#36;")
    assert "&lt;b" in first
    assert "<b>more" not in first
    assert "together" in shown
    assert "Reasoning, " in awaited
    assert "demo:demo · " in first
    assert "add" in talk
    assert "1 question" in talk


@pytest.mark.slow
def test_marimo_finds_nothing_to_run(tmp_path: Path) -> None:
    """Its own Markdown has blocks that make tags with attributes, and more."""
    texts = ["".join(random.choices(PIECES, k=random.randint(1, 14))) for _ in range(500)]
    for text, page in zip(texts, json.loads(run(tmp_path, "-c", RENDER, given=json.dumps(texts))), strict=True):
        found = Found()
        found.feed(page)
        assert found.acted_on == [], text
