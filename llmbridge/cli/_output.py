"""The command's output: the answer on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

from llmbridge._text import shortened
from llmbridge.errors import ConfigError, LLMBridgeError

__all__ = [
    "FAILED",
    "HARMLESS",
    "INTERRUPTED",
    "MISUSED",
    "OK",
    "Misused",
    "as_json",
    "end_line",
    "one_line",
    "prepare_stdout",
    "report",
    "spoken",
    "tell",
    "to_stderr",
    "write",
    "write_json",
    "write_table",
]

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

# Characters that a terminal obeys (colours, window titles, the clipboard) are replaced by their pictures (U+2400 and
# on), since the text is not trusted. Tab and line feed are text.
HARMLESS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
HARMLESS |= dict.fromkeys(
    (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000)), 0xFFFD
)
_OF_A_LINE = HARMLESS | dict.fromkeys((0x61C, 0x200E, 0x200F), 0xFFFD)  # legitimate inside a text

_OBEYED = r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"  # not escaped by JSON

_ARGUMENTS = re.compile(r"(?<![\w-])(base_url|api_key|proxy(?==)|prompt(?==)|max_turns|max_tokens)\b=?(?!\w)")
_EXTRA = re.compile(r"extra=\{'(\w+)': \.\.\.\}")
_OPTIONS = {"base_url": "--base-url", "api_key": "--key", "proxy": "--proxy ", "prompt": "--prompt "}

_LONGEST = 600
_NARROWEST = 24  # minimal width of a table's last column
_ERROR_FIELDS = ("provider", "model", "status", "code", "clock", "retry_after", "request_id", "partial", "problems")


class Misused(Exception):
    """The command line or its input is wrong; the message is for the user."""


class OutputLost(Exception):
    """Standard output cannot be written: its reader has left, or the disk is full. Network failures are OSErrors too,
    so this has a class of its own."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"cannot write the answer: {cause.strerror or cause}")
        self.wanted = not isinstance(cause, BrokenPipeError)


def write(text: str) -> None:
    """Writes text to standard output at once."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _forget_stdout()
        raise OutputLost(error) from error


def write_table(rows: Iterable[tuple[str, ...]]) -> None:
    """Writes a table to standard output, its last column wrapped. Text of services is made harmless for the
    terminal."""
    cells = [tuple(one_line(cell) for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)][:-1]
    begin = sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size().columns - begin, _NARROWEST)
    for *row, last in cells:
        line = "".join(cell.ljust(width + 2) for cell, width in zip(row, widths, strict=True))
        write((line + f"\n{' ' * begin}".join(textwrap.wrap(last, room, break_on_hyphens=False))).rstrip() + "\n")


def one_line(text: str) -> str:
    """The text on one line, without characters that a terminal obeys."""
    return " ".join(text.split()).translate(_OF_A_LINE)


def as_json(value: Any, indent: int | None = None) -> str:
    """The value, on one line without an indent, in characters that the output can show and no terminal obeys."""
    readable = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    text = json.dumps(value, ensure_ascii=not readable, indent=indent)
    return re.sub(_OBEYED, lambda found: f"\\u{ord(found[0]):04x}", text)


def write_json(value: Any) -> None:
    """Writes the value to standard output on one line; on a terminal where it does not fit into one, indented."""
    line = as_json(value)
    if sys.stdout.isatty() and len(line) > shutil.get_terminal_size().columns:
        line = as_json(value, indent=2)
    write(line + "\n")


def spoken(text: str) -> str:
    """The library's message, with the command's options instead of its arguments.

    Example:
        >>> spoken("check the base_url"), spoken("raise max_turns")
        ('check the --base-url', 'raise -o max_turns')
    """
    text = _EXTRA.sub(r"""-o extra '{"\1": ...}'""", text)
    return _ARGUMENTS.sub(lambda found: _OPTIONS.get(found[1]) or f"-o {found[1]}", text)


def tell(line: str) -> None:
    """Writes a line to standard error, broken between words on a terminal."""
    line = f"llmbridge: {one_line(line)}"
    if sys.stderr is not None and sys.stderr.isatty():
        room = shutil.get_terminal_size().columns
        line = "\n".join(textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False))
    to_stderr(line + "\n")


def to_stderr(text: str) -> None:
    """Writes text to standard error; if that is closed, does nothing."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)
        sys.stderr.flush()


def report(error: Exception, json_wanted: bool) -> int:
    """Reports an error, and returns its exit code."""
    if isinstance(error, OutputLost) and not error.wanted:
        return OK
    told = isinstance(error, (LLMBridgeError, Misused, OutputLost))
    message = (
        spoken(str(error))
        if told
        else f"unexpected {type(error).__name__}: {shortened(str(error), _LONGEST)} (--debug shows where)"
    )
    if json_wanted:
        about = {name: value for name in _ERROR_FIELDS if (value := getattr(error, name, None)) is not None}
        to_stderr(as_json({"error": {"type": type(error).__name__, "message": message, **about}}) + "\n")
    else:
        tell(message)
    return MISUSED if isinstance(error, (ConfigError, Misused)) else FAILED


def end_line(stream: Any) -> None:
    """Ends an unfinished line, if possible."""
    try:
        stream.write("\n")
        stream.flush()
    except (OSError, ValueError):
        _forget_stdout()


def _forget_stdout() -> None:
    """Detaches a standard output that is gone: the interpreter would complain when flushing it at exit."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def prepare_stdout() -> None:
    """Checks that there is a standard output, and makes sure that it accepts every character."""
    if sys.stdout is None:
        raise Misused("standard output is closed: the answer cannot be printed")
    if hasattr(sys.stdout, "reconfigure"):
        # A terminal limited to ASCII or Latin-1 shows `?` for the rest.
        sys.stdout.reconfigure(errors="replace")
