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
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NoReturn

from llmbridge._version import __version__
from llmbridge.cli import _ask, _check, _completion, _kept, _keys, _map
from llmbridge.cli._output import INTERRUPTED, MISUSED, OK, Misused, end_line, prepare_stdout, report, spoken, tell

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
            _completion.complete(parser, commands)
        if not words:
            parser.print_help(sys.stderr)
            return MISUSED
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


class _Help(argparse.HelpFormatter):
    """Help with an option and its value on one line, so that more fits on a screen."""

    def __init__(self, prog: str, **settings: Any) -> None:
        super().__init__(prog, **{"max_help_position": 30, **settings})
        self._action_max_length = len("    conversations")  # whose indentation older versions forget

    if sys.version_info < (3, 13):  # later ones do so

        def _format_action_invocation(self, action: argparse.Action) -> str:
            if not action.option_strings or action.nargs == 0:
                return super()._format_action_invocation(action)
            value = self._format_args(action, self._get_default_metavar_for_optional(action))
            return f"{', '.join(action.option_strings)} {value}"


class _Parser(argparse.ArgumentParser):
    """Reports errors in one line, like the rest of the command; a prompt may continue after options."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": _Help, **settings})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        found, rest = super().parse_known_args(args, namespace)
        if hasattr(found, "prompt"):
            words = [word for word in rest if word == "-" or not word.startswith("-")]
            found.prompt = [*found.prompt, *words]
            rest = [word for word in rest if word not in words]
        if unknown := next((word.partition("=")[0] for word in rest if word.startswith("-")), None):
            parameter = hasattr(found, "option") and unknown.startswith("--")
            hint = f"; a parameter is written -o {unknown[2:]} VALUE" if parameter else ""
            if close := _alike(unknown, self._option_string_actions):
                hint = f": did you mean {close}?"
            self.error(f"unknown option {unknown}{hint}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        message = _TAKES.sub(r"\1 takes ", message)
        message = _LIKE_A_KEY.sub("***", _VALUE.sub(r"\1***", message))
        raise Misused(f"{message} (see {self.prog} --help)")


def _with_command(words: list[str], commands: Collection[str]) -> list[str]:
    """The words with their command first: `llmbridge "hi"` is `llmbridge chat "hi"`.

    Raises:
        Misused: The first word looks like a misspelled command.
    """
    if not words or words[0] in (*commands, *_completion.OWN_OPTIONS):
        return words
    if close := _alike(words[0], commands):
        raise Misused(
            f"{words[0]!r} is not a command: did you mean {close!r}? (For a prompt, write llmbridge chat first.)"
        )
    return ["chat", *words]


def _alike(word: str, known: Iterable[str]) -> str:
    """The known word that this one is a misspelling of; "" if there is none."""
    from difflib import get_close_matches

    # The first letter is usually right: `what` is not meant as `chat`.
    first = word.strip("-")[:1]
    same = [other for other in known if other.strip("-")[:1] == first]
    return next(iter(get_close_matches(word, same, n=1, cutoff=0.7)), "")


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
