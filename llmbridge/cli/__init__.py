"""The `llmbridge` command: chat with models in the terminal, and set up keys and models for it.

Exit codes:

====  =====================================================================================================
0     the answer came to its end, or its reader left early (`llmbridge chat "..." | head -1`)
1     the service or the network failed; what had arrived before stays on standard output
2     the command or its setup is wrong (an option, a key, a model's name, a base URL); nothing was sent
3     some rows of `llmbridge map` failed
130   Ctrl-C
====  =====================================================================================================

Standard output holds only the answer. Everything else, errors included, goes to standard error: one line that starts
with `llmbridge: `, or, with `--json`, one JSON object `{"error": {...}}` as the last line.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NoReturn

from llmbridge._version import __version__
from llmbridge.cli import _ask, _check, _completion, _kept, _keys, _map
from llmbridge.cli._output import INTERRUPTED, OK, Misused, end_line, prepare_stdout, report, spoken, tell

__all__ = ["main"]

_COMPLETING = "_ARGCOMPLETE"  # set by a shell that asks for completions

# Messages quote nothing that may be a key: neither an option's value nor a word that starts like one.
_TAKES = re.compile(r"^argument (?:-\w/)?(--[\w-]+)(?:/-\w)?: takes ")
_VALUE = re.compile(r"(--?[\w-]+=)\S+")
_LIKE_A_KEY = re.compile(r"\b(?:sk|gsk|xai|pplx|hf|AIza)[-_]?[\w-]{8,}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code; see the module's docstring.

    Args:
        argv: The words after `llmbridge`; None for those of the process.

    Returns:
        0, 1, 2, 3 or 130. `--help` and `--version` raise SystemExit, as in argparse.

    Example:
        >>> main(["chat", "--model", "nobody:nothing", "Hello"])
        2
    """
    words = sys.argv[1:] if argv is None else list(argv)
    as_json, debug = "--json" in words, "--debug" in words
    try:
        parser, commands = _parser()
        if _COMPLETING in os.environ:
            _completion.complete(parser)
        options = parser.parse_args(_with_command(words, commands))
        prepare_stdout()
        with _log_on_stderr() if debug else contextlib.nullcontext(), warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: tell(spoken(str(message)))
            code = options.run(options)
    except KeyboardInterrupt:
        end_line(sys.stderr if as_json else sys.stdout)
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - users get a sentence, never a traceback
        if debug:
            traceback.print_exc()
        return report(error, as_json)
    return code or OK


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
    """Reports errors in one line, like the rest of the command; a prompt may continue after options."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        if not hasattr(found, "prompt"):
            return found, rest
        words = [word for word in rest if word == "-" or not word.startswith("-")]
        found.prompt = [*found.prompt, *words]
        return found, [word for word in rest if word not in words]

    def error(self, message: str) -> NoReturn:
        message = _TAKES.sub(r"\1 takes ", message)
        message = _LIKE_A_KEY.sub("***", _VALUE.sub(r"\1***", message))
        raise Misused(f"{message} (see {self.prog} --help)")


def _with_command(words: list[str], commands: Collection[str]) -> list[str]:
    """The words with their command first: `llmbridge "hi"` is `llmbridge chat "hi"`.

    Raises:
        Misused: The first word looks like a misspelled command.
    """
    if not words or words[0] in (*commands, "-h", "--help", "--version"):
        return words
    from difflib import get_close_matches

    # A mistyped command usually has the right first letter: `what` is not meant as `chat`.
    alike = [command for command in commands if command[0] == words[0][:1]]
    if close := get_close_matches(words[0], alike, n=1, cutoff=0.7):
        raise Misused(
            f"{words[0]!r} is not a command: did you mean {close[0]!r}? (For a prompt, write llmbridge chat first.)"
        )
    return ["chat", *words]


def _parser() -> tuple[argparse.ArgumentParser, Collection[str]]:
    """The parser, and the names of the commands."""
    parser = _Parser(
        prog="llmbridge",
        allow_abbrev=False,
        description="Chat with models from the command line.",
        epilog='llmbridge "hi" is short for llmbridge chat "hi".',
    )
    parser.add_argument("--version", action="version", version=f"llmbridge {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in (_ask, _map, _kept, _check, _keys, _completion):
        module.add(commands)
    return parser, commands.choices
