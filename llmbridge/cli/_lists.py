"""`llmbridge models` and `llmbridge providers`: what there is, and whether it would work."""

from __future__ import annotations

import argparse
from typing import Any

from llmbridge.cli._input import add_debug, add_way, call_options, known_provider
from llmbridge.cli._output import Misused, as_json, one_line, tell, write, write_table
from llmbridge.cli._setup import Setup, setups

__all__ = ["add"]


def add(commands: Any) -> None:
    """Adds the commands to the parser."""
    text = "what -m takes, and whether it would work now; of a provider, the models that it offers"
    command = commands.add_parser("models", help=text, description=f"Says {text}.", allow_abbrev=False)
    command.add_argument("provider", nargs="?", metavar="PROVIDER", help="ask this provider for its models")
    add_way(command, default_timeout=30)
    command.add_argument("--json", action="store_true", help="one JSON array")
    add_debug(command)
    command.set_defaults(run=_models)
    text = "the services that are known, and the state of each"
    command = commands.add_parser("providers", help=text, description=f"Lists {text}.", allow_abbrev=False)
    add_debug(command)
    command.set_defaults(run=_providers)


def _models(options: argparse.Namespace) -> None:
    if options.provider is not None:
        _live_models(options)
    elif options.base_url is not None:
        raise Misused("--base-url needs a provider: llmbridge models openai-compatible --base-url URL")
    elif options.json:
        write(as_json([{"model": _model_of(setup), "state": _state(setup)} for setup in setups()]) + "\n")
    else:
        write_table((_model_of(setup), _state(setup)) for setup in setups())


def _live_models(options: argparse.Namespace) -> None:
    from llmbridge import models

    name = known_provider(options.provider).name
    found = [f"{name}:{model}" for model in models(name, **call_options(options, "base_url", "proxy", "timeout"))]
    if options.json:
        write(as_json(found) + "\n")
        return
    for model in found:
        write(one_line(model) + "\n")
    if not found:
        tell(f"{name} offers no models")


def _providers(options: argparse.Namespace) -> None:
    write_table((setup.provider.name, _state(setup), setup.address, setup.provider.note) for setup in setups())


def _model_of(setup: Setup) -> str:
    provider = setup.provider
    return provider.name if provider.direct else f"{provider.name}:{provider.default_model or 'MODEL'}"


def _state(setup: Setup) -> str:
    if setup.state == "no key":
        return f"needs {' or '.join(setup.provider.key_env) or 'a key'}"
    if setup.state == "bad address":
        return setup.hint
    return "needs --base-url" if setup.state == "no address" else setup.state
