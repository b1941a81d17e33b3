"""`llmbridge keys`: fills and empties the keys file without ever showing a key."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from llmbridge.cli._completion import completed_by, provider_names
from llmbridge.cli._input import add_debug, known_provider
from llmbridge.cli._output import Misused, as_json, tell, to_stderr, write, write_table
from llmbridge.cli._setup import key_variable
from llmbridge.errors import UnknownProvider
from llmbridge.secret import Secret

__all__ = ["add"]

_LONGEST_INPUT = 64 * 1024


class _Discreet(argparse.ArgumentParser):
    """A parser whose errors quote nothing, since a misplaced word may be a key."""

    def error(self, message: str) -> NoReturn:
        _, missing, names = message.partition("the following arguments are required: ")
        problem = (
            f"{self.prog.partition(' ')[2]} needs {names.partition(',')[0]}"
            if missing
            else "unknown command or option of llmbridge keys"
        )
        raise Misused(f"{problem} (see {self.prog} --help)")


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    text = "keep API keys in a file that only you can read"
    command = commands.add_parser(
        "keys",
        allow_abbrev=False,
        help=text,
        description=f"{text[0].upper()}{text[1:]}. Keys are never shown, and never read from the command line.",
    )
    command.__class__ = _Discreet
    actions = command.add_subparsers(metavar="set|list|remove|path", required=True, parser_class=_Discreet)
    keep = _action(actions, "set", _set, "save a key; type it when asked, or pipe it in")
    completed_by(keep.add_argument("provider", metavar="PROVIDER", help="the provider, like openai"), provider_names)
    keep.add_argument("unwanted", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    listing = _action(actions, "list", _list, "list the providers with a key, and where each key comes from")
    listing.add_argument("--json", action="store_true", help="print one JSON array")
    removal = _action(actions, "remove", _remove, "forget a key")
    removal.add_argument("provider", metavar="PROVIDER", help="whose key")
    _action(actions, "path", _path, "print the path of the file")


def _action(actions: Any, name: str, run: Any, text: str) -> argparse.ArgumentParser:
    action: argparse.ArgumentParser = actions.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
    )
    add_debug(action)
    action.set_defaults(run=run)
    return action


def _set(options: argparse.Namespace) -> None:
    from llmbridge.keys import keys_path, set_key, stored_names

    # `--debug` after the provider is among the rest as well.
    if [word for word in options.unwanted if word != "--debug"]:
        raise Misused(
            "keys are never read from the command line, where other users of this computer can see them. Nothing was "
            "saved. If it was a key, it may now be in your shell's history: delete it there, or make a new key. Then "
            "run llmbridge keys set with only the provider's name"
        )
    provider = known_provider(options.provider)
    if provider.direct:
        servers = getattr(provider, "servers", ())
        hint = f": save the server's, one of {', '.join(servers)}" if servers else ""
        raise Misused(f"{provider.name} has no key of its own{hint}")
    name = provider.key_name or provider.name
    stored_names()  # reports a bad file before the key is typed
    set_key(name, _asked_key(name))
    tell(f"the key of {name} is saved in {keys_path()}")
    if variable := key_variable(provider):
        tell(f"but {variable} is set and takes precedence")


def _asked_key(name: str) -> Secret:
    """The key, typed without echo or piped in."""
    if sys.stdin is None:
        raise Misused("standard input is closed: there is no key to read")
    if sys.stdin.isatty():
        from getpass import getpass

        try:
            given = getpass(f"Key of {name} (not shown): ")
        except EOFError:
            to_stderr("\n")
            given = ""
    else:
        content = sys.stdin.buffer.read(_LONGEST_INPUT)
        try:
            given = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise Misused("standard input is not text, so it cannot be a key") from None
    if not given.strip():
        raise Misused("no key was given: nothing was changed")
    return Secret(given, "the key")


def _list(options: argparse.Namespace) -> None:
    rows = _sources()
    if options.json:
        write(as_json([{"provider": name, **source} for name, source in rows]) + "\n")
        return
    if not rows:
        tell("there are no keys: run llmbridge keys set PROVIDER (see llmbridge providers)")
    write_table((name, *_described(source)) for name, source in rows)


def _sources() -> list[tuple[str, dict[str, Any]]]:
    """Where each provider's key comes from; the first place wins."""
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


def _described(source: dict[str, Any]) -> tuple[str, str]:
    if source["variable"]:
        return f"environment variable {source['variable']}", "overrides the file" if source["file"] else ""
    return f"file {source['file']}", "" if source["known"] else "unknown provider"


def _remove(options: argparse.Namespace) -> None:
    from llmbridge.keys import keys_path, remove_key, stored_names

    name: str = options.provider
    if name not in stored_names():  # also for providers that were uninstalled
        provider = known_provider(name)
        name = provider.key_name or provider.name
    if not remove_key(name):
        raise Misused(f"there is no key of {name} in {keys_path()}")
    tell(f"the key of {name} was removed from {keys_path()}")
    _warn_of_variable(name)


def _warn_of_variable(name: str) -> None:
    try:
        variable = key_variable(known_provider(name))
    except UnknownProvider:
        return
    if variable:
        tell(f"but {variable} is set and still used")


def _path(options: argparse.Namespace) -> None:
    from llmbridge.keys import keys_path

    write(keys_path() + "\n")
