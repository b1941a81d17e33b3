"""`llmbridge chat` and `llmbridge embed`: ask a model and print what it answers."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from llmbridge.cli._input import add_debug, add_way, argument_text, call_options, stdin_text
from llmbridge.cli._output import HARMLESS, Misused, as_json, end_line, tell, to_stderr, write
from llmbridge.errors import LLMBridgeError

if TYPE_CHECKING:
    from llmbridge import ChatStream, Completion

__all__ = ["add"]

_DEMO = "demo"
_DIM, _NOT_DIM = "\x1b[2m", "\x1b[0m"


def add(commands: Any) -> None:
    """Adds the commands to the parser."""
    _add_chat(commands)
    _add_embed(commands)


def _add_chat(commands: Any) -> None:
    command = commands.add_parser(
        "chat",
        allow_abbrev=False,
        help="ask a model and print its answer as it arrives",
        description="Ask a model and print its answer as it arrives.",
        epilog="Exit codes: 0 answered; 1 the service or the network failed; 2 the command or its setup is wrong; "
        "130 Ctrl-C. The answer is on standard output, everything else on standard error.",
    )
    command.add_argument("prompt", nargs="*", help="the prompt; without one, or with -, it is read from standard input")
    command.add_argument("-m", "--model", metavar="PROVIDER:MODEL", help="default: LLMBRIDGE_MODEL, else the demo")
    command.add_argument("--system", metavar="TEXT", help="a system message in front of the prompt")
    command.add_argument(
        "--image", metavar="PATH_OR_URL", action="append", default=[], help="an image beside the prompt; repeatable"
    )
    command.add_argument(
        "--schema", metavar="FILE", help="a JSON schema: the answer is checked against it, and printed as JSON"
    )
    add_way(command)
    command.add_argument(
        "--json", action="store_true", help="one JSON object at the end; an error is one on standard error"
    )
    command.add_argument("--reasoning", action="store_true", help="what the model thinks, on standard error")
    command.add_argument("--usage", action="store_true", help="tokens used, on standard error")
    add_debug(command)
    command.set_defaults(run=_chat)


def _add_embed(commands: Any) -> None:
    command = commands.add_parser(
        "embed",
        allow_abbrev=False,
        help="turn texts into vectors, a JSON line for each",
        description='Turns texts into vectors: a line {"text": ..., "vector": [...]} for each, in their order.',
    )
    command.add_argument("texts", nargs="*", metavar="TEXT", help="without one, or with -, each line of standard input")
    command.add_argument("-m", "--model", metavar="PROVIDER:MODEL", required=True, help="a model that makes embeddings")
    add_way(command)
    command.add_argument("--json", action="store_true", help="one JSON array instead of lines")
    add_debug(command)
    command.set_defaults(run=_embed)


def _chat(options: argparse.Namespace) -> None:
    from llmbridge import chat

    given = call_options(options, "base_url", "proxy", "timeout")
    if options.system is not None:
        given["system"] = argument_text(options.system, "system message")
    if options.schema is not None:
        given["schema"] = _schema(options.schema)
    with chat(_messages(options), _model(options), **given) as stream:
        if options.json:
            write(as_json(_answer(stream.complete(), options)) + "\n")
        elif options.schema is not None:
            _write_parsed(stream, options.reasoning)
        elif options.reasoning:
            _write_events(stream)
        else:
            _write_pieces(stream)
        if not options.json and (shortfall := _shortfall(stream)):
            tell(shortfall)
        if options.usage:
            tell(_usage_line(stream))


def _shortfall(stream: ChatStream) -> str:
    """What a reader could not tell from an answer that came to its end: that there is less of it than was asked for."""
    if stream.finish_reason == "length":
        return "the model was stopped at the longest answer that it may give: there would have been more"
    if stream.finish_reason == "content_filter":
        return "the service's content policy broke the answer off"
    if not stream.text:
        return f"the answer is empty (finish_reason: {stream.finish_reason or 'none'})"
    return ""


def _write_pieces(stream: ChatStream) -> None:
    shown = _Answer()
    try:
        for piece in stream:
            shown.write(piece)
    except LLMBridgeError:
        shown.break_off()
        raise
    shown.end()


def _write_events(stream: ChatStream) -> None:
    """The same, with the reasoning beside it."""
    from llmbridge.events import Reasoning, Refusal, Text

    shown, thoughts = _Answer(), _Thoughts()
    try:
        for event in stream.events():
            if isinstance(event, Reasoning):
                thoughts.write(event.text)
            elif isinstance(event, (Text, Refusal)):
                thoughts.end()
                shown.write(event.text)
    except LLMBridgeError:
        shown.break_off()
        raise
    finally:
        thoughts.end()
    shown.end()


def _write_parsed(stream: ChatStream, reasoning: bool) -> None:
    """An answer with a schema is checked before any of it is shown."""
    answer = stream.complete()
    if reasoning and answer.reasoning:
        thoughts = _Thoughts()
        thoughts.write(answer.reasoning)
        thoughts.end()
    write(as_json(answer.parsed) + "\n")


class _Answer:
    """The answer's text on standard output, whose last line is ended once."""

    def __init__(self) -> None:
        self._clean = HARMLESS if sys.stdout.isatty() else {}
        self._open = False

    def write(self, piece: str) -> None:
        write(piece.translate(self._clean) if self._clean else piece)
        self._open = not piece.endswith("\n")

    def end(self) -> None:
        if self._open:
            write("\n")

    def break_off(self) -> None:
        """The error's line must not continue the last line of the answer."""
        if self._open:
            end_line(sys.stdout)


class _Thoughts:
    """Reasoning on standard error, dimmed where that is a terminal that shows colours."""

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

    def end(self) -> None:
        """Ends a block of it, so that the answer begins on a line of its own."""
        if self._open:
            to_stderr((_NOT_DIM if self._dim else "") + ("\n" if self._line_open else ""))
        self._open = False


def _messages(options: argparse.Namespace) -> Any:
    prompt = _prompt(options.prompt)
    if not options.image:
        return prompt
    from llmbridge.parts import Image

    return [{"role": "user", "content": [{"type": "text", "text": prompt}, *map(Image, options.image)]}]


def _prompt(words: list[str]) -> str:
    """The prompt from the command line, or from standard input if there is none or a single dash."""
    if words and words != ["-"]:
        return argument_text(" ".join(words), "prompt")
    advice = 'write llmbridge chat "Hello", or send it to standard input'
    return stdin_text("prompt", advice, asked=bool(words)).rstrip("\r\n")


def _schema(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8-sig") as file:
            schema = json.load(file)
    except OSError as error:
        raise Misused(f"--schema: cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise Misused(f"--schema: {path} is no JSON: {error}") from None
    if not isinstance(schema, dict):
        raise Misused(f"--schema: {path} must hold a JSON object, like {json.dumps({'type': 'object'})}")
    return schema


def _model(options: argparse.Namespace) -> str:
    from llmbridge.client import MODEL_VARIABLE

    model: str | None = options.model or os.environ.get(MODEL_VARIABLE)
    if model:
        return model
    if options.base_url:
        raise Misused(f"--base-url needs a model: add -m NAME, or set {MODEL_VARIABLE}")
    tell(f"no model is set, so this is the demo; choose one with -m or {MODEL_VARIABLE} (see llmbridge models)")
    return _DEMO


def _answer(completion: Completion, options: argparse.Namespace) -> dict[str, Any]:
    answer = {
        "text": completion.text,
        "model": completion.model,
        "provider": completion.provider,
        "usage": _usage(completion),
        "finish_reason": completion.finish_reason,
        "seconds": round(completion.total_seconds or 0.0, 3),
    }
    if options.reasoning:
        answer["reasoning"] = completion.reasoning
    if options.schema is not None:
        answer["parsed"] = completion.parsed
    return answer


def _usage(answer: ChatStream | Completion) -> dict[str, int] | None:
    usage = answer.usage
    if usage is None:
        return None
    counts = {field.name: getattr(usage, field.name) for field in fields(usage) if field.name != "raw"}
    return {name: count for name, count in counts.items() if count is not None}


def _usage_line(stream: ChatStream) -> str:
    usage = _usage(stream)
    counts = ", ".join(f"{name} {count}" for name, count in usage.items()) if usage else "the service reported no usage"
    return f"{stream.provider}:{stream.model}: {counts}"


def _embed(options: argparse.Namespace) -> None:
    from llmbridge import embed

    texts = _texts(options.texts)
    given = call_options(options, "base_url", "proxy", "timeout")
    vectors = embed(texts, model=options.model, **given).vectors
    rows = [
        {"text": text, "vector": [float(number) for number in vector]}
        for text, vector in zip(texts, vectors, strict=True)
    ]
    if options.json:
        write(as_json(rows) + "\n")
        return
    for row in rows:
        write(as_json(row) + "\n")


def _texts(words: list[str]) -> list[str]:
    if words and words != ["-"]:
        return [argument_text(word, "text") for word in words]
    content = stdin_text("text", 'write llmbridge embed "Some text" -m PROVIDER:MODEL', asked=bool(words))
    return [line for line in content.splitlines() if line.strip()]
