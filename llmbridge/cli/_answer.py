"""An answer in the terminal: its text as it comes, the reasoning beside it, and tool calls in between."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TextIO

from llmbridge._text import shortened
from llmbridge.cli._output import HARMLESS, Misused, end_line, tell, to_stderr, write, write_json
from llmbridge.errors import LLMBridgeError, TurnsExceeded

if TYPE_CHECKING:
    from llmbridge import ChatStream, Completion, Conversation
    from llmbridge.cli._kept import Kept
    from llmbridge.cli._markdown import MarkdownText
    from llmbridge.events import ToolCall, ToolResult, Usage
    from llmbridge.tools import Tool

__all__ = ["answer_text", "show_answer", "take_back_unanswered", "tools_of", "usage_text"]

_DIM, _NOT_DIM = "\x1b[2m", "\x1b[0m"
_TURNS = 10
_LONGEST_RESULT = 200
_NOT_ALLOWED = "The user did not allow this call."
_FENCE = re.compile(r"([ \t]*)(`{3,}|~{3,})[^`]*")
_TERMINAL = "CONIN$" if os.name == "nt" else "/dev/tty"


def tools_of(options: argparse.Namespace, functions: Sequence[Any]) -> dict[str, Tool]:
    """The tools by name, after checking that the user can be asked before they run.

    Raises:
        Misused: There is no terminal to ask on, and no `--yes`.
    """
    if not functions:
        return {}
    from llmbridge.tools import checked_tools

    if not options.yes:
        try:
            _terminal().close()
        except OSError:
            raise Misused("-T asks before each call, but there is no terminal to ask on: add --yes") from None
    return {tool.name: tool for tool in checked_tools(functions)}


def show_answer(
    talk: Conversation[Any],
    question: Any,
    options: argparse.Namespace,
    tools: dict[str, Tool],
    kept: Kept,
) -> None:
    """Asks, shows the answer, and continues while the model calls tools.

    Args:
        talk: The conversation.
        question: As `Conversation.ask` takes it.
        options: The command's: the answer's form, and what to show beside it.
        tools: By name, from `tools_of`.
        kept: The file of the conversation, written as it grows.

    Raises:
        LLMBridgeError: The service or the network failed, or the tool calls did not end.
    """
    usage: Usage | None = None
    turns = options.max_turns or _TURNS
    for _ in range(turns):
        stream = talk.ask(question)
        kept.note(talk)
        try:
            with stream:
                completion = _read(stream, options)
        finally:
            kept.note(talk, over=True)
        usage = stream.usage if usage is None else usage.plus(stream.usage)
        if stream.finish_reason == "pause":
            question = None
        elif tools and _runnable(stream.tool_calls):
            question = _results(stream.tool_calls, tools, options.yes)
        else:
            _finish(stream, completion, usage, options)
            return
    raise TurnsExceeded(f"the model still calls tools after {turns} turns: allow more with -o max_turns N")


def take_back_unanswered(talk: Conversation[Any]) -> None:
    """Removes a question without any answer, so that the next question replaces it."""
    if talk.messages and talk.messages[-1].role == "user":
        talk.undo()


def _read(stream: ChatStream[Any], options: argparse.Namespace) -> Completion[Any] | None:
    """Shows the text as it comes; an answer in another form is read completely first."""
    if not (options.json or options.extract or options.schema is not None):
        (_write_events if options.reasoning else _write_pieces)(stream, answer_text(options.plain))
        return None
    completion = stream.complete()
    if options.reasoning and not options.json and completion.reasoning:
        thoughts = _Thoughts()
        thoughts.write(completion.reasoning)
        thoughts.close()
    return completion


def _finish(
    stream: ChatStream[Any], completion: Completion[Any] | None, usage: Usage | None, options: argparse.Namespace
) -> None:
    if completion is not None and options.json:
        write_json(_as_dict(completion, usage, options))
    elif completion is not None and options.schema is not None:
        write_json(completion.parsed)
    elif completion is not None:
        _write_code(completion.text)
    if not options.json and (shortfall := _shortfall(stream)):
        tell(shortfall)
    if options.usage:
        tell(f"{stream.provider}:{stream.model}: {usage_text(usage)}")


def _shortfall(stream: ChatStream[Any]) -> str:
    """What the reader could not see in the text: that the answer is cut off or empty; "" if it is neither."""
    if stream.finish_reason == "length":
        return 'the answer was cut off at the token limit (finish_reason "length"); -o max_tokens N allows more'
    if stream.finish_reason == "content_filter":
        return "the service's content policy cut the answer off"
    if not stream.text:
        return f"the answer is empty (finish_reason: {stream.finish_reason or 'none'})"
    return ""


def _write_pieces(stream: ChatStream[Any], text: _Text | MarkdownText) -> None:
    with text as shown:
        for piece in stream:
            shown.write(piece)


def _write_events(stream: ChatStream[Any], text: _Text | MarkdownText) -> None:
    """The same, with the reasoning."""
    from llmbridge.events import Reasoning, Refusal, Text

    thoughts = _Thoughts()
    with text as shown, contextlib.closing(thoughts):
        for event in stream.events():
            if isinstance(event, Reasoning):
                shown.settle()
                thoughts.write(event.text)
            elif isinstance(event, (Text, Refusal)):
                thoughts.close()
                shown.write(event.text)


def answer_text(plain: bool = False) -> _Text | MarkdownText:
    """Shows an answer: as Markdown on a terminal if rich is installed, or else unchanged."""
    if plain or os.environ.get("TERM") == "dumb":
        return _Text()
    try:
        if os.isatty(sys.stdout.fileno()):
            from llmbridge.cli._markdown import MarkdownText

            return MarkdownText()
    except (ImportError, io.UnsupportedOperation):  # without the extra `cli`; a stand-in for standard output
        pass
    return _Text()


class _Text:
    """The answer's text on standard output, with one line end after it."""

    def __init__(self) -> None:
        self._clean = HARMLESS if sys.stdout.isatty() else {}
        self._open = False

    def write(self, piece: str) -> None:
        write(piece.translate(self._clean) if self._clean else piece)
        self._open = not piece.endswith("\n")

    def settle(self) -> None:
        """Does nothing: text is never redrawn."""

    def __enter__(self) -> _Text:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._open and error is None:
            write("\n")
        elif self._open and isinstance(error, LLMBridgeError):  # the error must not continue the answer's last line
            end_line(sys.stdout)


class _Thoughts:
    """Reasoning on standard error, dimmed on a terminal with colours."""

    def __init__(self) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._clean = HARMLESS if terminal else {}
        self._dim = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._open = self._line_open = False

    def write(self, text: str) -> None:
        if not text:
            return
        if not self._open and self._dim:
            to_stderr(_DIM)
        to_stderr(text.translate(self._clean) if self._clean else text)
        self._open, self._line_open = True, not text.endswith("\n")

    def close(self) -> None:
        """Ends a block of reasoning, so that the answer starts on a new line."""
        if self._open:
            to_stderr((_NOT_DIM if self._dim else "") + ("\n" if self._line_open else ""))
        self._open = False


# -- code blocks ------------------------------------------------------------------------------------------------------


def _write_code(text: str) -> None:
    code = _last_block(text)
    if code is None:
        to_stderr((text.translate(HARMLESS) if sys.stderr and sys.stderr.isatty() else text).rstrip("\n") + "\n")
        raise LLMBridgeError("the answer has no code block")
    with _Text() as shown:
        shown.write(code)


def _last_block(text: str) -> str | None:
    """The last fenced code block in Markdown, without fence and indentation; None if there is none.

    Example:
        >>> _last_block("First:\\n```\\na\\n```\\nthen:\\n  ~~~sh\\n  b\\n  ~~~")
        'b\\n'
    """
    found: list[str] | None = None
    fence, indent = "", ""
    for line in text.split("\n"):
        match = _FENCE.fullmatch(line.rstrip())
        if not fence and match:
            (indent, fence), found = match.groups(), []
        elif fence and match and match[2].startswith(fence) and match[2] == line.strip():
            fence = ""
        elif fence and found is not None:
            found.append(line.removeprefix(indent))
    return None if found is None else "".join(f"{line}\n" for line in found)


# -- tools ------------------------------------------------------------------------------------------------------------


def _runnable(calls: Sequence[ToolCall]) -> bool:
    return bool(calls) and all(call.kind in ("function", "custom") for call in calls)


def _results(calls: Sequence[ToolCall], tools: dict[str, Tool], yes: bool) -> list[ToolResult]:
    """Shows the calls, runs the allowed ones, and returns the results in order."""
    from llmbridge._tools.runs import ToolRuns
    from llmbridge.events import ToolResult

    allowed = [call for call in calls if _is_allowed(call, yes or call.name not in tools)]
    runs, given = ToolRuns(allowed, tools), []
    while some := runs.results():
        given += some
    by_call = dict(zip([call.id for call in allowed], given, strict=True))
    results = [by_call.get(call.id) or ToolResult(call, _NOT_ALLOWED, failed=True) for call in calls]
    for result in results:
        tell(f"{result.call.name} -> {shortened(result.text, _LONGEST_RESULT)}")
    return results


def _is_allowed(call: ToolCall, unasked: bool) -> bool:
    arguments = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    tell(f"the model calls {call.name}({arguments})")
    if unasked:
        return True
    to_stderr("Run it? [y/N] ")
    with _terminal() as terminal:
        answer = terminal.readline()
    if not answer:  # Ctrl-D
        to_stderr("\n")
    return answer.strip().lower() in ("y", "yes")


def _terminal() -> TextIO:
    """The terminal to ask on, even if the question was piped in."""
    return open(_TERMINAL, encoding=sys.getdefaultencoding(), errors="replace")


# -- facts ------------------------------------------------------------------------------------------------------------


def _as_dict(completion: Completion[Any], usage: Usage | None, options: argparse.Namespace) -> dict[str, Any]:
    answer = {
        "text": completion.text,
        "model": completion.model,
        "provider": completion.provider,
        "usage": _counts(usage),
        "finish_reason": completion.finish_reason,
        "seconds": round(completion.total_seconds or 0.0, 3),
    }
    if options.reasoning:
        answer["reasoning"] = completion.reasoning
    if options.schema is not None:
        answer["parsed"] = completion.parsed
    if options.extract:
        answer["code"] = _last_block(completion.text)
    return answer


def _counts(usage: Usage | None) -> dict[str, int] | None:
    if usage is None:
        return None
    counts = {field.name: getattr(usage, field.name) for field in fields(usage) if field.name != "raw"}
    return {name: count for name, count in counts.items() if count is not None}


def usage_text(usage: Usage | None) -> str:
    """The tokens as text."""
    counts = _counts(usage)
    return ", ".join(f"{name} {count}" for name, count in counts.items()) if counts else "the service reported no usage"
