"""`llmbridge completion`: completion of words by Tab in the shell, with argcomplete (the extra `cli`)."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

from llmbridge.cli._input import add_debug
from llmbridge.cli._output import Misused, write

__all__ = ["OWN_OPTIONS", "add", "complete", "completed_by", "model_names", "provider_names"]

OWN_OPTIONS = ("-h", "--help", "--version")  # of llmbridge itself
_SHELLS = ("bash", "zsh", "fish")
_COMPINIT = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }\n"  # a new ~/.zshrc lacks it


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    command = commands.add_parser(
        "completion",
        allow_abbrev=False,
        help="set up completion by Tab in your shell",
        description="Prints what your shell needs to complete commands, options, providers and conversations by Tab.",
        epilog='bash: add eval "$(llmbridge completion bash)" to ~/.bashrc; zsh: eval "$(llmbridge completion zsh)" '
        "at the end of ~/.zshrc; fish: add llmbridge completion fish | source to ~/.config/fish/config.fish. Needs: "
        "pip install 'llmbridge[cli]'",
    )
    command.add_argument("shell", choices=_SHELLS, help="bash, zsh or fish")
    add_debug(command)
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError:
        raise Misused("completion needs argcomplete: pip install 'llmbridge[cli]'") from None
    zsh = options.shell == "zsh"
    first, rest = shellcode(["llmbridge"], shell="bash" if zsh else options.shell).split("\n", 1)
    write(f"{first}\n{_COMPINIT if zsh else ''}{rest}\n")


def complete(parser: argparse.ArgumentParser, commands: Collection[str]) -> None:
    """Answers a shell's request for completions, and ends the process."""
    try:
        import argcomplete
    except ImportError:
        return
    line = os.environ.get("COMP_LINE", "")
    begun = re.match(r"(\s*\S+\s+)(-\S*|\S+\s)", line)
    if begun and begun[2].strip() not in (*commands, *OWN_OPTIONS):  # without a command, it is `chat`
        os.environ["COMP_LINE"] = f"{begun[1]}chat {line[begun.end(1) :]}"
        os.environ["COMP_POINT"] = str(int(os.environ["COMP_POINT"]) + len("chat "))
    argcomplete.autocomplete(parser, always_complete_options="long")


def completed_by(action: argparse.Action, names: Callable[[], Iterable[str]]) -> None:
    """Sets the possible values of an argument."""
    setattr(action, "completer", lambda **_: names())  # noqa: B010 - argcomplete's own attribute


def provider_names() -> list[str]:
    """The known providers."""
    from llmbridge.providers import known

    return sorted(known())


def model_names() -> list[str]:
    """The starts of a model's name."""
    from llmbridge.providers import known

    return sorted(name if provider.direct else f"{name}:" for name, provider in known().items())
