"""The `llmbridge` command: an answer in the terminal, piece by piece.

Exit codes:

====  =====================================================================================================
0     the answer was given whole, or nobody wanted the rest of it (`llmbridge chat "..." | head -1`)
1     the service or the way to it failed; what had arrived before stays on standard output
2     the command or its setup is wrong (an option, a key, a model's name, a base URL); nothing was sent
130   Ctrl-C
====  =====================================================================================================

Standard output carries the answer and nothing else. All about it, errors included, is on standard error: one line that
begins with `llmbridge: `, or, with `--json`, one JSON object `{"error": {...}}` as the last line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any, NoReturn

from llmbridge._version import __version__
from llmbridge.errors import ConfigError, LLMBridgeError

if TYPE_CHECKING:
    from llmbridge import ChatStream, Completion
    from llmbridge.provider import Provider

__all__ = ["main"]

OK, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130

DEMO = "demo"

# What a terminal would take as a command (colours, window titles, the clipboard) is shown as a picture of itself
# (U+2400 and on): the text comes from a stranger. Tab and line feed are text.
_HARMLESS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n"} | {0x7F: 0x2421}
_HARMLESS |= dict.fromkeys(range(0x80, 0xA0), 0xFFFD)

_ERROR_FIELDS = ("provider", "model", "status", "code", "clock", "retry_after", "request_id", "partial")


class _Misused(Exception):
    """The command line or its input is wrong; the message is for the one who typed it."""


class _OutputLost(Exception):
    """Standard output takes no more: its reader has left, or the disk is full. A name of its own keeps it apart from
    the failures of the network, which are OSErrors too."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(f"cannot write the answer: {cause.strerror or cause}")
        self.wanted = not isinstance(cause, BrokenPipeError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit code; see the module's docstring.

    Args:
        argv: The words after `llmbridge`; None takes the process's own.

    Returns:
        0, 1, 2 or 130. Only `--help` and `--version` leave by SystemExit, as argparse has it.

    Example:
        >>> main(["chat", "--model", "nobody:nothing", "Hello"])
        2
    """
    words = sys.argv[1:] if argv is None else list(argv)
    as_json, debug = "--json" in words, "--debug" in words
    try:
        options = _parser().parse_args(words)
        _prepare_stdout()
        with _log_on_stderr() if debug else contextlib.nullcontext():
            options.run(options)
    except KeyboardInterrupt:
        _end_line(sys.stderr if as_json else sys.stdout)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - whoever types a command gets a sentence, never a traceback
        if debug:
            traceback.print_exc()
        return _report(error, as_json)
    return OK


def _chat(options: argparse.Namespace) -> None:
    from llmbridge import chat

    prompt = _prompt(options.prompt)
    with chat(prompt, _model(options), **_call_options(options)) as stream:
        if options.json:
            _write(_as_json(_answer(stream.complete())) + "\n")
        else:
            _write_pieces(stream)
        if options.usage:
            _tell(_usage_line(stream))


def _write_pieces(stream: ChatStream) -> None:
    clean = _HARMLESS if sys.stdout.isatty() else {}
    open_line = False
    try:
        for piece in stream:
            _write(piece.translate(clean) if clean else piece)
            open_line = not piece.endswith("\n")
    except LLMBridgeError:
        if open_line:
            _end_line(sys.stdout)  # the error's line must not continue the last line of the answer
        raise
    if open_line:
        _write("\n")


def _write(text: str) -> None:
    """Puts text on standard output at once."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _forget_stdout()
        raise _OutputLost(error) from error


def _models(options: argparse.Namespace) -> None:
    _write_table(
        (DEMO if name == DEMO else f"{name}:{provider.default_model or 'MODEL'}", _state(provider))
        for name, provider in _known()
    )


def _providers(options: argparse.Namespace) -> None:
    _write_table((name, _state(provider), provider.base_url or "", provider.note) for name, provider in _known())


def _known() -> list[tuple[str, type[Provider]]]:
    from llmbridge.providers import known

    return sorted(known().items())


def _state(provider: type[Provider]) -> str:
    """Whether a call would work right now, as far as can be told without a call."""
    if not provider.working:
        return "offline"
    if not provider.base_url and provider.name != DEMO:
        return "needs --base-url"
    if not provider.needs_key or any(os.environ.get(name) for name in provider.key_env):
        return "ready"
    return f"needs {' or '.join(provider.key_env) or 'a key'}"


def _write_table(rows: Iterable[tuple[str, ...]]) -> None:
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        _write("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() + "\n")


def _prompt(words: list[str]) -> str:
    """The prompt from the command line, or from standard input if there is none or a single dash."""
    if words and words != ["-"]:
        return " ".join(words)
    if sys.stdin is None or (not words and sys.stdin.isatty()):
        raise _Misused('no prompt: write llmbridge chat "Hello", or send it to standard input')
    try:
        prompt = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Misused(f"the prompt on standard input is not UTF-8 (byte {error.start})") from None
    if not prompt.strip():
        raise _Misused("the prompt on standard input is empty")
    return prompt.rstrip("\r\n")


def _model(options: argparse.Namespace) -> str:
    from llmbridge.client import MODEL_VARIABLE

    model: str | None = options.model or os.environ.get(MODEL_VARIABLE)
    if model:
        return model
    if options.base_url:
        raise _Misused(f"--base-url needs a model: add -m NAME, or set {MODEL_VARIABLE}")
    _tell(f"no model is set, so this is the demo; choose one with -m or {MODEL_VARIABLE} (see llmbridge models)")
    return DEMO


def _call_options(options: argparse.Namespace) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in ("system", "base_url", "proxy", "timeout")}
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("proxy", "").lower() == "none":
        given["proxy"] = False
    return given


def _answer(completion: Completion) -> dict[str, Any]:
    return {
        "text": completion.text,
        "model": completion.model,
        "provider": completion.provider,
        "usage": _usage(completion),
        "finish_reason": completion.finish_reason,
        "seconds": round(completion.total_seconds or 0.0, 3),
    }


def _as_json(value: dict[str, Any]) -> str:
    readable = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return json.dumps(value, ensure_ascii=not readable)


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


def _tell(line: str) -> None:
    _to_stderr(f"llmbridge: {' '.join(line.split()).translate(_HARMLESS)}")


def _to_stderr(line: str) -> None:
    """Says something beside the answer. Who closed standard error wants to hear nothing, and the exit code stays."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        print(line, file=sys.stderr, flush=True)


def _report(error: Exception, as_json: bool) -> int:
    if isinstance(error, _OutputLost) and not error.wanted:
        return OK
    told = isinstance(error, (LLMBridgeError, _Misused, _OutputLost))
    message = str(error) if told else f"unexpected {type(error).__name__}: {error} (--debug shows where)"
    if as_json:
        about = {name: value for name in _ERROR_FIELDS if (value := getattr(error, name, None)) is not None}
        kind = type(error).__name__.lstrip("_")
        _to_stderr(_as_json({"error": {"type": kind, "message": message, **about}}))
    else:
        _tell(message)
    return MISUSED if isinstance(error, (ConfigError, _Misused)) else FAILED


def _end_line(stream: Any) -> None:
    try:
        stream.write("\n")
        stream.flush()
    except (OSError, ValueError):
        _forget_stdout()


def _forget_stdout() -> None:
    """Nothing more reaches a standard output that is gone: the interpreter flushes it at exit and would complain."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _prepare_stdout() -> None:
    if sys.stdout is None:
        raise _Misused("standard output is closed: there is no place for the answer")
    if hasattr(sys.stdout, "reconfigure"):
        # A terminal that knows only ASCII or Latin-1 shows `?` for the rest, instead of an error in mid-answer.
        sys.stdout.reconfigure(errors="replace")


@contextlib.contextmanager
def _log_on_stderr() -> Iterator[None]:
    logger = logging.getLogger("llmbridge")
    handler, level = logging.StreamHandler(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error of the command."""

    def error(self, message: str) -> NoReturn:
        raise _Misused(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="llmbridge", allow_abbrev=False, description="Chat models from the command line.")
    parser.add_argument("--version", action="version", version=f"llmbridge {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_chat(commands)
    for name, run, text in (
        ("models", _models, "what -m takes, and whether it would work now"),
        ("providers", _providers, "the services that are known, and the state of each"),
    ):
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        _add_debug(command)
        command.set_defaults(run=run)
    return parser


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
    command.add_argument("--base-url", metavar="URL", help="another address of the service")
    command.add_argument("--proxy", metavar="URL", help="a proxy; none means no proxy, not even from the environment")
    command.add_argument("--timeout", metavar="SECONDS", type=float, help="limit of the whole call")
    command.add_argument(
        "--json", action="store_true", help="one JSON object at the end; an error is one on standard error"
    )
    command.add_argument("--usage", action="store_true", help="tokens used, on standard error")
    _add_debug(command)
    command.set_defaults(run=_chat)


def _add_debug(command: argparse.ArgumentParser) -> None:
    command.add_argument("--debug", action="store_true", help="log on standard error, and show where an error arose")
