"""Draws docs/picture.svg, the terminal in README.md: `python docs/picture.py` runs its commands and shows the output.

The script is there from the start; the answers appear word by word, at the demo's pace. Without animations the picture
shows the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from html import escape
from pathlib import Path

PICTURE = Path(__file__).with_name("picture.svg")

SCRIPT = """\
from llmbridge import chat

for piece in chat("Write a haiku about bridges", model="demo"):
    print(piece, end="", flush=True)
"""
QUESTION = "Describe the Golden Gate, which is 2737 m long."
FIELDS = "name, length_in_metres float"

COLUMNS = 86
ADVANCE, LINE, GAP, EDGE, BAR = 8.43, 21, 9, 18, 30  # pixels
TYPED, PACE, REST = 0.03, 0.025, 0.7  # seconds for a character that is typed, for a word of an answer, between commands

STYLE = """\
text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;fill:#e6edf3;white-space:pre}
.d{fill:#9da7b3}.g{fill:#7ee787}
@media(prefers-reduced-motion:no-preference){.a{fill:transparent;animation:w 1ms forwards}
.g.a{animation-name:g}.d.a{animation-name:d}}
@keyframes w{to{fill:#e6edf3}}@keyframes g{to{fill:#7ee787}}@keyframes d{to{fill:#9da7b3}}"""


def said(*arguments: str, folder: str) -> str:
    """What Python prints."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LLMBRIDGE_")}
    run = subprocess.run(  # noqa: S603 - the commands are those below
        [sys.executable, *arguments],
        cwd=folder,
        env={**kept, "LLMBRIDGE_KEEP": "0", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=True,
    )
    return run.stdout.rstrip("\n")


class Terminal:
    """Lines of SVG, and the second at which the next thing appears."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bottom = BAR
        self.clock = 0.0

    def show(self, text: str, kind: str = "") -> None:
        """A text that is there at once."""
        for line in text.splitlines():
            self._line(self._span(line, kind))

    def type(self, command: str, at_once: bool = False) -> None:
        """A command, a few keys at a time."""
        self.bottom += GAP if self.lines else 0
        keys = len(command) if at_once else 4
        spans = [self._span("$ ", "g")]
        for start in range(0, len(command), keys):
            spans.append(self._span(command[start : start + keys]))
            self.clock += 0 if at_once else keys * TYPED
        self._line("".join(spans))
        self.clock += 0 if at_once else REST / 2

    def stream(self, text: str) -> None:
        """An answer, word by word, in lines that fit."""
        spans, width = [], 0
        for word in text.replace(" ", "\0 ").split("\0"):
            if width + len(word) > COLUMNS:
                self._line("".join(spans))
                spans, width, word = [], 0, word.lstrip()
            spans.append(self._span(word))
            width += len(word)
            self.clock += PACE
        self._line("".join(spans))
        self.clock += REST

    def _line(self, spans: str) -> None:
        self.bottom += LINE
        self.lines.append(f'<text x="{EDGE}" y="{self.bottom}">{spans}</text>')

    def _span(self, text: str, kind: str = "") -> str:
        if not self.clock:
            return f'<tspan class="{kind}">{escape(text, quote=False)}</tspan>' if kind else escape(text, quote=False)
        name = f"{kind} a".strip()
        return f'<tspan class="{name}" style="animation-delay:{self.clock:.2f}s">{escape(text, quote=False)}</tspan>'

    def svg(self, title: str) -> str:
        """The whole picture."""
        width = round(2 * EDGE + COLUMNS * ADVANCE)
        height = self.bottom + EDGE
        dots = "".join(f'<circle cx="{18 + 18 * n}" cy="17" r="5.5" fill="#3d444d"/>' for n in range(3))
        body = "\n".join(self.lines)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-labelledby="t">\n<title id="t">{escape(title)}</title>\n<style>{STYLE}</style>\n'
            f'<rect width="{width}" height="{height}" rx="8" fill="#0d1117"/>\n{dots}\n{body}\n</svg>\n'
        )


def picture() -> str:
    """The terminal as SVG, from a run of its commands."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "haiku.py").write_text(SCRIPT, encoding="utf-8")
        haiku = said("haiku.py", folder=folder)
        bridge = said("-m", "llmbridge", "-m", "demo", "--schema", FIELDS, QUESTION, folder=folder)
    terminal = Terminal()
    terminal.type("cat haiku.py", at_once=True)
    terminal.show(SCRIPT.replace("\n\n", "\n \n"), "d")
    terminal.clock = REST
    terminal.type("python haiku.py")
    terminal.stream(haiku)
    terminal.type(f"llmbridge -m demo --schema '{FIELDS}' \\")
    terminal.show(f'    "{QUESTION}"')
    terminal.clock += REST / 2
    terminal.stream(bridge)
    return terminal.svg("A terminal: a for-loop streams an answer of the demo, and the command line gives one as JSON")


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8", newline="\n")
