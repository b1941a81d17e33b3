"""Errors in a cell, in a few lines: the user's own code, the message, the text so far. `%tb` shows the traceback."""

from __future__ import annotations

import linecache
import os
import re
import sys
import sysconfig
import traceback
from types import CodeType, TracebackType
from typing import TYPE_CHECKING, Any

from llmbridge._text import shortened

if TYPE_CHECKING:
    from llmbridge.errors import LLMBridgeError

__all__ = ["brief", "of_error", "without_frame"]

_RED, _GREEN, _GREY, _PLAIN = "\x1b[91m", "\x1b[32m", "\x1b[90m", "\x1b[0m"
_COLOUR = re.compile(r"\x1b\[\d+m")
_MOST_OF_TEXT = 500  # characters
_MOST_FRAMES = 4
_OTHERS = (
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)


def of_error(error: LLMBridgeError) -> list[str]:
    """The lines that IPython shows for an error of llmbridge."""
    others = [f"- {type(one).__name__}: {one.message}" for one in getattr(error, "errors", ())]
    return brief(error, [error.message, *others], error.partial)


def brief(error: BaseException, message: list[str], said: str = "") -> list[str]:
    """The lines for an error that is being handled; its whole traceback if it is shown later, as by `%tb`.

    Args:
        error: The error.
        message: Its message, in lines.
        said: The text of the answer so far.
    """
    get_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    shell = get_ipython() if get_ipython is not None else None
    if sys.exc_info()[1] is not error:
        if shell is None:
            return traceback.format_exception(type(error), error, error.__traceback__)
        whole: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, error.__traceback__)
        return whole
    lines = _frames(error, shell)
    lines.append(f"{_RED}{type(error).__name__}{_PLAIN}: {message[0]}")
    lines += message[1:]
    if said and not getattr(error, "_llmbridge_on_screen", False):
        cut = said if len(said) <= _MOST_OF_TEXT else f"... {said[-_MOST_OF_TEXT:]}"
        lines += [f"{_GREY}the text so far ({len(said):,} characters):{_PLAIN}", cut]
    lines.append(f"{_GREY}(%tb shows the whole traceback){_PLAIN}")
    plain = str(getattr(shell, "colors", "")).lower() == "nocolor"
    return [_COLOUR.sub("", line) for line in lines] if plain else lines


def without_frame(trace: TracebackType | None, code: CodeType) -> TracebackType | None:
    """A traceback without the frames of one function."""
    if trace is None:
        return None
    rest = without_frame(trace.tb_next, code)
    if trace.tb_frame.f_code is code:
        return rest
    return TracebackType(rest, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)


def _frames(error: BaseException, shell: Any) -> list[str]:
    """The lines of the user's own code that led to an error."""
    found = []
    for frame, number in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        cell = _cell(shell, file)
        if cell or not (file.startswith(_OTHERS) or file.startswith("<")):
            place = cell or os.path.basename(file)
            line = shortened(linecache.getline(file, number).strip(), 100)
            if not line.startswith("get_ipython().run_"):  # which a magic becomes
                found.append(f"{_GREEN}{place}, line {number}{_PLAIN}: {line}")
    return found[-_MOST_FRAMES:]


def _cell(shell: Any, file: str) -> str:
    """The name of the cell that a file stands for; "" if it is another file."""
    named = getattr(getattr(shell, "compile", None), "format_code_name", None)
    if named is not None:
        return " ".join(named(file) or ())
    return "Cell" if file.startswith("<ipython-input-") else ""  # IPython before 8
