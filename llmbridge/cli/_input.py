"""What the commands have in common on the way in: standard input, options of a call, names of providers."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from llmbridge.cli._output import Misused
from llmbridge.errors import UnknownProvider

if TYPE_CHECKING:
    from llmbridge.provider import Provider

__all__ = ["add_debug", "add_way", "argument_text", "call_options", "known_provider", "stdin_text"]


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
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Misused(f"the {what} on standard input is not UTF-8 (byte {error.start})") from None
    if not text.strip():
        raise Misused(f"the {what} on standard input is empty")
    return text


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


def add_way(command: argparse.ArgumentParser, *, default_timeout: float | None = None) -> None:
    """Adds the options that say how a request travels."""
    command.add_argument("--base-url", metavar="URL", help="another address of the service")
    command.add_argument("--proxy", metavar="URL", help="a proxy; none means no proxy, not even from the environment")
    text = (
        "limit of the whole call" if default_timeout is None else f"limit of each call (default: {default_timeout:g})"
    )
    command.add_argument("--timeout", metavar="SECONDS", type=float, default=default_timeout, help=text)


def add_debug(command: argparse.ArgumentParser) -> None:
    """Adds `--debug`."""
    command.add_argument("--debug", action="store_true", help="log on standard error, and show where an error arose")
