"""`llmbridge keys`: the keys file, filled and emptied without any key being shown."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from llmbridge.cli._completion import completed_by, provider_names
from llmbridge.cli._input import add_debug, known_provider
from llmbridge.cli._output import Misused, as_json, tell, write, write_table
from llmbridge.cli._setup import key_variable
from llmbridge.errors import UnknownProvider
from llmbridge.secret import Secret

__all__ = ["add"]

_LONGEST_INPUT = 64 * 1024


class _Discreet(argparse.ArgumentParser):
    """A parser whose errors quote nothing: what stands in the wrong place may be a key."""

    def error(self, message: str) -> NoReturn:
        missing = message.startswith("the following arguments are required")
        problem = "a word is missing" if missing else "that is no command of llmbridge keys"
        raise Misused(f"{problem} (see {self.prog} --help)")


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    text = "keep API keys in a file of your own, instead of environment variables"
    command = commands.add_parser(
        "keys",
        allow_abbrev=False,
        help=text,
        description=f"{text.capitalize()}. A key is never shown, and never read from the command line.",
    )
    command.__class__ = _Discreet
    actions = command.add_subparsers(metavar="ACTION", required=True, parser_class=_Discreet)
    keep = _action(actions, "set", _set, "keep a key; it is asked for, or read from standard input")
    completed_by(keep.add_argument("provider", metavar="PROVIDER", help="whose key it is, e.g. openai"), provider_names)
    keep.add_argument("unwanted", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    listing = _action(actions, "list", _list, "whose keys there are, and where each comes from")
    listing.add_argument("--json", action="store_true", help="one JSON array")
    removal = _action(actions, "remove", _remove, "forget a key")
    removal.add_argument("provider", metavar="PROVIDER", help="whose key")
    _action(actions, "path", _path, "where the file is")


def _action(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
    )
    add_debug(action)
    action.set_defaults(run=run)
    return action


def _set(options: argparse.Namespace) -> None:
    from llmbridge.keys import keys_path, set_key, stored_names

    # `--debug` behind the provider ends up among the rest as well.
    if [word for word in options.unwanted if word != "--debug"]:
        raise Misused(
            "a key is never read from the command line, where other users of this machine can see it. Nothing was "
            "kept. If it was a key, your shell's history now may hold it: delete it there, or make a new key; then "
            "type only llmbridge keys set and the provider's name"
        )
    provider = known_provider(options.provider)
    if provider.direct:
        servers = getattr(provider, "servers", ())
        hint = f": keep that of the server, one of {', '.join(servers)}" if servers else ""
        raise Misused(f"{provider.name} has no key of its own{hint}")
    name = provider.key_name or provider.name
    stored_names()  # a file that cannot be used is told before the key is typed
    set_key(name, _asked_key(name))
    tell(f"the key of {name} is kept in {keys_path()}")
    if variable := key_variable(provider):
        tell(f"but {variable} is set, and comes first")


def _asked_key(name: str) -> Secret:
    """The key, typed without an echo, or piped in."""
    if sys.stdin is None:
        raise Misused("standard input is closed: there is no key to read")
    if sys.stdin.isatty():
        from getpass import getpass

        try:
            given = getpass(f"Key of {name} (it is not shown): ")
        except EOFError:
            given = ""
    else:
        content = sys.stdin.buffer.read(_LONGEST_INPUT)
        try:
            given = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Misused("what came on standard input is no text, so it is no key") from None
    if not given.strip():
        raise Misused("no key was given: nothing is changed")
    return Secret(given, "the key")


def _list(options: argparse.Namespace) -> None:
    rows = _sources()
    if options.json:
        write(as_json([{"provider": name, **source} for name, source in rows]) + "\n")
        return
    if not rows:
        tell("there are no keys: type llmbridge keys set PROVIDER (see llmbridge providers)")
    write_table((name, *_told(source)) for name, source in rows)


def _sources() -> list[tuple[str, dict[str, Any]]]:
    """Where the key of each provider that has one comes from; the first place counts."""
    from llmbridge.keys import keys_path, stored_names
    from llmbridge.providers import known

    providers, kept = known(), stored_names()
    rows = []
    for name in sorted({*providers, *kept}):
        variable = key_variable(providers[name]) if name in providers else None
        source = {
            "variable": variable,
            "file": keys_path() if name in kept else None,
            "known": name in providers,
        }
        if variable or name in kept:
            rows.append((name, source))
    return rows


def _told(source: dict[str, Any]) -> tuple[str, str]:
    if source["variable"]:
        return f"environment variable {source['variable']}", "the file's is not used" if source["file"] else ""
    return f"file {source['file']}", "" if source["known"] else "no provider of that name is known"


def _remove(options: argparse.Namespace) -> None:
    from llmbridge.keys import keys_path, remove_key, stored_names

    name: str = options.provider
    if name not in stored_names():  # the key of a provider that was uninstalled can be removed too
        provider = known_provider(name)
        name = provider.key_name or provider.name
    if not remove_key(name):
        raise Misused(f"no key of {name} is kept in {keys_path()}")
    tell(f"the key of {name} is no longer kept in {keys_path()}")
    _warn_of_variable(name)


def _warn_of_variable(name: str) -> None:
    try:
        variable = key_variable(known_provider(name))
    except UnknownProvider:
        return
    if variable:
        tell(f"but {variable} is set, and still used")


def _path(options: argparse.Namespace) -> None:
    from llmbridge.keys import keys_path

    write(keys_path() + "\n")
