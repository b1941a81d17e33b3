"""Renders an answer as Markdown while it comes, with rich (the extra `cli`).

Finished blocks are printed once. Only the last block is redrawn in place.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions
from rich.live import Live
from rich.markdown import Markdown
from rich.segment import Segment

from llmbridge.cli._output import HARMLESS, write

__all__ = ["MarkdownText"]

_PAUSE = 0.08  # seconds between two drawings

# Nothing of an answer may disappear: tags are shown as text, and addresses of links are listed at the end.
_parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")


class MarkdownText:
    """Shows the pieces of an answer as Markdown."""

    def __init__(self) -> None:
        self._console = Console(file=_Output(), force_terminal=True, highlight=False)  # type: ignore[arg-type, unused-ignore]
        self._live: Live | None = None
        self._text = ""  # not printed for good yet
        self._printed = False
        self._drawn = 0.0

    def __enter__(self) -> MarkdownText:
        return self

    def __exit__(self, *_: object) -> None:
        self.settle()

    def write(self, piece: str) -> None:
        """Shows a piece."""
        self._text += piece.translate(HARMLESS)
        if time.monotonic() - self._drawn >= _PAUSE:
            self._draw()
            self._drawn = time.monotonic()

    def settle(self) -> None:
        """Prints everything so far for good."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._print(self._text)
        self._text = ""

    def _draw(self) -> None:
        begins = [token.map[0] for token in _parser.parse(self._text) if token.level == 0 and token.map]
        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        if begins and begins[-1]:
            lines = self._text.split("\n")
            self._print("\n".join(lines[: begins[-1]]))
            self._text = "\n".join(lines[begins[-1] :])
        self._live.update(_Blocks(self._text, self._printed, in_place=True), refresh=True)

    def _print(self, text: str) -> None:
        if text.strip():
            self._console.print(_Blocks(text, self._printed), end="")
            self._printed = True


class _Blocks:
    """Markdown as lines, after an empty one unless it comes first.

    Args:
        text: The Markdown.
        apart: Whether something is above it.
        in_place: Whether it is redrawn in place: then only its end is shown if the terminal is too small.
    """

    def __init__(self, text: str, apart: bool, in_place: bool = False) -> None:
        self._text = text
        self._apart = apart
        self._in_place = in_place

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        room = options.update(width=max(options.max_width - len("^C"), 1))  # the ^C of Ctrl-C must not start a line
        lines = [_trimmed(line) for line in console.render_lines(_rendered(self._text), room, pad=False)]
        while lines and not lines[0]:
            del lines[0]
        while lines and not lines[-1]:
            del lines[-1]
        if lines and self._apart:
            lines.insert(0, [])
        for line in lines[-(console.height - 1) :] if self._in_place else lines:
            yield from line
            yield Segment.line()


def _trimmed(line: list[Segment]) -> list[Segment]:
    """A line without trailing blanks."""
    end = len(line)
    while end and not line[end - 1].text.strip():
        end -= 1
    return [*line[: end - 1], Segment(line[end - 1].text.rstrip(), line[end - 1].style)] if end else []


class _Output:
    """Standard output as rich writes to it."""

    def __init__(self) -> None:
        self.encoding = sys.stdout.encoding

    def write(self, text: str) -> None:
        """Writes text at once."""
        write(text)

    def flush(self) -> None:
        """Does nothing, as `write` flushes."""


def _rendered(text: str) -> Markdown:
    """The text rendered by rich, keeping line breaks: verses and addresses need them."""
    found = Markdown("", code_theme="ansi_dark", hyperlinks=False)
    found.parsed = _parser.parse(text)
    for token in found.parsed:
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
    return found
