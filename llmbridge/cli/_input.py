"""What the commands have in common on the way in: standard input, options of a call, names of providers."""

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

_PATIENCE = 10.0  # seconds of silence on standard input, after which the command says what it waits for


def stdin_text(what: str, advice: str, asked: bool) -> str:
    """What standard input holds.

    Args:
        what: What is read, for the errors.
        advice: What to do where there is nothing to read from.
        asked: Whether the caller named standard input, so that a terminal is read as well.

    Raises:
        Misused: It is a terminal that nobody asked to read, or closed, empty, or no UTF-8.
    """
    if sys.stdin is None or (not asked and sys.stdin.isatty()):
        raise Misused(f"no {what}: {advice}")
    _say_what_is_waited_for()
    try:
        text = _decoded(sys.stdin.buffer.read(), what)
    except OSError as error:
        raise Misused(f"no {what}: standard input cannot be read ({error.strerror or error}): {advice}") from None
    if not text.strip():
        raise Misused(f"the {what} on standard input is empty")
    return text


def piped_text(what: str) -> str:
    """What was piped in or redirected from a file; "" where that is nothing, as on a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
            return ""
        _say_what_is_waited_for()
    except io.UnsupportedOperation:
        pass  # a stand-in that a notebook or a test runner has put there
    try:
        content = sys.stdin.buffer.read()
    except OSError:  # so do stand-ins answer that hold nothing
        return ""
    return _decoded(content, what)


def _decoded(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Misused(f"the {what} on standard input is not UTF-8 (byte {error.start})") from None


def _say_what_is_waited_for() -> None:
    """A pipe that nobody writes to or closes looks like a command that hangs."""
    if os.name == "nt":  # select() takes sockets only
        return
    import select

    try:
        silent = not select.select([sys.stdin], [], [], _PATIENCE)[0]
    except (OSError, ValueError):  # not a file of the system
        return
    if silent and not sys.stdin.isatty():
        tell("waiting for standard input to end; if nothing is piped in, write < /dev/null")


def argument_text(word: str, what: str) -> str:
    """A word of the command line as the text that was typed.

    Where the locale is not that of the terminal (`LC_ALL=C`), Python keeps bytes that it cannot read as halves of
    surrogate pairs.

    Args:
        word: As Python gives it.
        what: What it is, for the error.

    Raises:
        Misused: It is no UTF-8.

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
        UnknownProvider: There is none; names that look like it are given. The name itself is not: it may be a key.
    """
    from llmbridge.providers import known

    providers = known()
    if name in providers:
        return providers[name]
    from difflib import get_close_matches

    close = get_close_matches(name.partition(":")[0].strip().lower(), providers, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    raise UnknownProvider(f"no provider of that name is known{hint} (see llmbridge providers)")


def call_options(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    """The options of that name that were given, as `chat` takes them."""
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    if given.get("proxy", "").lower() == "none":
        given["proxy"] = False
    return given


def client_options(options: argparse.Namespace) -> dict[str, Any]:
    """What `Client` takes of the options that `add_client` adds."""
    given = call_options(options, "base_url", "proxy", "timeout", "retries", "limits")
    if options.key is not None:
        given["api_key"] = argument_text(options.key, "key")
    return given


def add_client(command: argparse.ArgumentParser) -> None:
    """Adds the options that say how requests travel, with whose key, and how fast."""
    add_way(command)
    command.add_argument(
        "--key", metavar="KEY", help="the API key; others on this machine can see it: prefer llmbridge keys set"
    )
    command.add_argument(
        "--retries", metavar="N", type=whole_number, help="how often a call that failed early is repeated (default: 2)"
    )
    command.add_argument(
        "--limits",
        metavar="LIMITS",
        type=_limits,
        help="requests a minute, like 20; or any of requests_per_minute=20,tokens_per_minute=9000,concurrency=2",
    )


def add_way(command: argparse.ArgumentParser, *, default_timeout: float | None = None) -> None:
    """Adds the options that say how a request travels."""
    command.add_argument("--base-url", metavar="URL", help="another address of the service")
    command.add_argument("--proxy", metavar="URL", help="a proxy; none means no proxy, not even from the environment")
    text = "limit of each answer" if default_timeout is None else f"limit of each call (default: {default_timeout:g})"
    command.add_argument("--timeout", metavar="SECONDS", type=_seconds, default=default_timeout, help=text)


def add_debug(command: argparse.ArgumentParser) -> None:
    """Adds `--debug`."""
    command.add_argument("--debug", action="store_true", help="log on standard error, and show where an error arose")


def whole_number(word: str) -> int:
    """The number that a word says.

    Raises:
        ArgumentTypeError: It is not a whole number from 0.
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
        raise argparse.ArgumentTypeError(f"takes requests a minute, like 20, or NAME=NUMBER with {', '.join(known)}")
    try:
        return Limits(**{name: int(number) for name, _, number in pairs})
    except ConfigError as error:
        raise argparse.ArgumentTypeError(f"takes numbers that fit together: {error}") from None
