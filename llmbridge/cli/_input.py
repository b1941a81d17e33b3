"""Input that the commands share: standard input, options of a call, names of providers."""

from __future__ import annotations

import argparse
import io
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

from llmbridge.cli._output import Misused, tell
from llmbridge.errors import ConfigError, UnknownProvider

if TYPE_CHECKING:
    from llmbridge.provider import Provider

__all__ = [
    "add_client",
    "add_debug",
    "add_way",
    "argument_text",
    "call_options",
    "client_options",
    "known_provider",
    "piped_text",
    "stdin_text",
    "whole_number",
]

_PATIENCE = 10.0  # seconds without input before the command says what it waits for


def stdin_text(what: str, advice: str, asked: bool) -> str:
    """The text on standard input.

    Args:
        what: What is read, for the errors.
        advice: What to do if there is no input.
        asked: Whether the caller named standard input, so that a terminal is read as well.

    Raises:
        Misused: It is a terminal that was not asked for, or closed, empty, or not UTF-8.
    """
    if sys.stdin is None or (not asked and sys.stdin.isatty()):
        raise Misused(f"no {what}: {advice}")
    _say_what_is_waited_for()
    try:
        text = _decoded(sys.stdin.buffer.read(), what)
    except OSError as error:
        raise Misused(f"no {what}: cannot read standard input ({error.strerror or error}): {advice}") from None
    if not text.strip():
        raise Misused(f"the {what} on standard input is empty")
    return text


def piped_text(what: str) -> str:
    """The text piped in or redirected from a file; "" if there is none, as on a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
            return ""
        _say_what_is_waited_for()
    except io.UnsupportedOperation:
        pass  # replaced by a notebook or a test runner
    try:
        content = sys.stdin.buffer.read()
    except OSError:  # raised by such replacements without input
        return ""
    return _decoded(content, what)


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Misused(f"the {what} on standard input is not UTF-8 (byte {error.start})") from None


def _say_what_is_waited_for() -> None:
    """Explains the wait if a pipe stays open and empty, since the command would seem to hang."""
    if os.name == "nt":  # select() takes only sockets
        return
    import select

    try:
        silent = not select.select([sys.stdin], [], [], _PATIENCE)[0]
    except (OSError, ValueError):  # not a real file
        return
    if silent and not sys.stdin.isatty():
        tell("waiting for standard input to end; if nothing is piped in, write < /dev/null")


def argument_text(word: str, what: str) -> str:
    """A word of the command line as the text that was typed.

    If the locale differs from the terminal's (`LC_ALL=C`), Python keeps unreadable bytes as lone surrogates.

    Args:
        word: As Python gives it.
        what: What it is, for the error.

    Raises:
        Misused: It is not UTF-8.

    Example:
        >>> argument_text("caf\\udcc3\\udca9", "prompt")
        'café'
    """
    try:
        word.encode()
    except UnicodeError:
        try:
            return os.fsencode(word).decode()
        except UnicodeError:
            raise Misused(f"the {what} is not UTF-8") from None
    return word


def known_provider(name: str) -> type[Provider]:
    """The provider of that name.

    Raises:
        UnknownProvider: There is none; similar names are suggested. The name is not quoted: it may be a key.
    """
    from llmbridge.providers import known

    providers = known()
    if name in providers:
        return providers[name]
    from difflib import get_close_matches

    close = get_close_matches(name.partition(":")[0].strip().lower(), providers, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise UnknownProvider(f"unknown provider{hint} (see llmbridge providers)")


def call_options(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The given options of those names, as `chat` takes them."""
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if given.get("proxy", "").lower() == "none":
        given["proxy"] = False
    return given


def client_options(options: argparse.Namespace) -> dict[str, Any]:
    """The options from `add_client` as arguments of `Client`."""
    given = call_options(options, "base_url", "proxy", "timeout", "retries", "limits")
    if options.key is not None:
        given["api_key"] = argument_text(options.key, "key")
    return given


def add_client(command: argparse.ArgumentParser) -> None:
    """Adds the options for requests, keys and limits."""
    add_way(command)
    command.add_argument(
        "--key",
        metavar="KEY",
        help="the API key; other users can see it: better use llmbridge keys set",
    )
    command.add_argument(
        "--retries", metavar="N", type=whole_number, help="how often to retry a call that failed early (default: 2)"
    )
    command.add_argument(
        "--limits",
        metavar="LIMITS",
        type=_limits,
        help="requests per minute, like 20; or tokens_per_minute=9000,concurrency=2",
    )


def add_way(command: argparse.ArgumentParser, *, default_timeout: float | None = None) -> None:
    """Adds the options for requests."""
    command.add_argument("--base-url", metavar="URL", help="another address of the service")
    command.add_argument("--proxy", metavar="URL", help="a proxy; none uses no proxy, not even the environment's")
    each = "answer" if default_timeout is None else f"call (default: {default_timeout:g})"
    command.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=default_timeout, help=f"time limit of each {each}"
    )


def add_debug(command: argparse.ArgumentParser) -> None:
    """Adds `--debug`."""
    command.add_argument("--debug", action="store_true", help="log to standard error, and show tracebacks")


def whole_number(word: str) -> int:
    """The number in a word.

    Raises:
        ArgumentTypeError: It is not a whole number, 0 or more.
    """
    if not (word.isascii() and word.isdigit()):
        raise argparse.ArgumentTypeError("takes a whole number, like 3")
    return int(word)


def _seconds(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise argparse.ArgumentTypeError("takes seconds, like 30") from None


def _limits(word: str) -> Any:
    from llmbridge.limits import Limits

    if word.isascii() and word.isdigit():
        word = f"requests_per_minute={word}"
    pairs = [pair.partition("=") for pair in word.replace(" ", "").replace("-", "_").split(",") if pair]
    known = Limits.__dataclass_fields__
    if not pairs or any(name not in known or not (n.isascii() and n.isdigit()) for name, _, n in pairs):
        raise argparse.ArgumentTypeError(f"takes requests per minute, like 20, or NAME=NUMBER with {', '.join(known)}")
    try:
        return Limits(**{name: int(number) for name, _, number in pairs})
    except ConfigError as error:
        raise argparse.ArgumentTypeError(f"takes valid numbers: {error}") from None
