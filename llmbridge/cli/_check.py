"""`llmbridge models`, `llmbridge providers` and `llmbridge check`: what there is, what is set up, and what works."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from llmbridge._text import shortened
from llmbridge.cli._completion import completed_by, provider_names
from llmbridge.cli._input import add_debug, add_way, call_options, known_provider
from llmbridge.cli._output import FAILED, OK, Misused, as_json, one_line, spoken, tell, write, write_table
from llmbridge.cli._setup import Setup, setups
from llmbridge.errors import ConnectFailed, LLMBridgeError

__all__ = ["add"]

_SHOWN_MODELS = 3
_LONGEST_MODEL = 40
_LONGEST_REASON = 160
_BRIEF, _BRIEF_FROM = ("not running", "no key", "no address", "offline"), 2  # so many share a line
_ORDER = ("works", "fails", "not running", "unchecked", "bad address", "no key", "no address", "offline")


@dataclass(slots=True)
class _Row:
    """A provider and what its check found."""

    setup: Setup
    state: str
    reason: str = ""
    seconds: float | None = None
    models: list[str] = field(default_factory=list)
    error: LLMBridgeError | None = None

    @property
    def counts(self) -> bool:
        """Whether its success means anything: the demo always works, and `local` is one of the other servers."""
        return not self.setup.provider.direct

    @property
    def one_of_servers(self) -> bool:
        """Whether it is the first of several local servers that answers."""
        return bool(getattr(self.setup.provider, "servers", ()))

    @property
    def remark(self) -> str:
        """Why it does not count."""
        return "the first local server that answers" if self.one_of_servers else "always; does not count"


def add(commands: Any) -> None:
    """Adds the commands to the parser."""
    _add_lists(commands)
    command = commands.add_parser(
        "check",
        allow_abbrev=False,
        help="try each provider with a key and each local server",
        description="Tries each provider with a key and each local server: what works, how fast, which models.",
        epilog="Exit codes: 0 one of them works, or the named one does; 1 none works; 2 the command is wrong.",
    )
    completed_by(
        command.add_argument("provider", nargs="?", metavar="PROVIDER", help="try only this one"), provider_names
    )
    add_way(command, default_timeout=3)
    command.add_argument("--json", action="store_true", help="print one JSON object, with all models")
    add_debug(command)
    command.set_defaults(run=_check)


def _check(options: argparse.Namespace) -> int:
    from llmbridge.options import TransportOptions

    way = {**call_options(options, "base_url", "proxy", "timeout"), "retries": 0}
    TransportOptions.checked(**way)  # an option's error must not look like a service's
    rows = [_untried(setup) for setup in _asked_for(options)]
    _try_all([row for row in rows if row.state == "ready"], way)
    rows.sort(key=lambda row: (_ORDER.index(row.state), not row.counts, row.setup.provider.name))
    one = options.provider is not None or options.base_url is not None
    works = any(row.state == "works" and (one or row.counts) for row in rows)
    if options.json:
        write(as_json({"works": works, "providers": [_as_dict(row) for row in rows]}) + "\n")
    else:
        write_table(_lines(rows, one))
        if not works and not one:
            tell("no provider works: set a key (llmbridge keys set PROVIDER), or start a local server such as Ollama")
    return OK if works else FAILED


def _asked_for(options: argparse.Namespace) -> list[Setup]:
    if options.provider is None and options.base_url is None:
        return setups()
    provider = known_provider("openai-compatible" if options.provider is None else options.provider)
    if options.base_url is not None:
        return [Setup(provider, "ready")]
    return [setup for setup in setups() if setup.provider is provider]


def _untried(setup: Setup) -> _Row:
    if setup.state == "ready" and not setup.provider.models_path:
        return _Row(setup, "unchecked", "it lists no models: try llmbridge chat")
    return _Row(setup, setup.state, setup.hint)


def _try_all(rows: Sequence[_Row], way: dict[str, Any]) -> None:
    """Tries all at the same time, since most of the time is spent waiting for those that do not answer.

    The threads are daemons, so that Ctrl-C does not wait for them.
    """
    import llmbridge._transport  # noqa: F401 - once, before any timeout starts
    from llmbridge import models

    def thread_of(row: _Row) -> threading.Thread:
        name = row.setup.provider.name
        return threading.Thread(target=_try, args=(models, row, way), name=f"llmbridge-check-{name}", daemon=True)

    threads = [thread_of(row) for row in rows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _try(models: Callable[..., list[str]], row: _Row, way: dict[str, Any]) -> None:
    started = time.monotonic()
    try:
        row.models = models(row.setup.provider.name, **way)
        row.state, row.seconds = "works", time.monotonic() - started
    except LLMBridgeError as error:
        row.error = error
        silent = isinstance(error, ConnectFailed) and "base_url" not in way
        host = row.setup.host if row.setup.local else ""
        row.state = "not running" if silent and (host or row.one_of_servers) else "fails"
        row.reason = f"no server on {host}" if silent and host else str(error)
    except Exception as error:  # noqa: BLE001 - an error in one package must not affect the others
        row.state, row.reason = "fails", f"unexpected {type(error).__name__}"


def _lines(rows: Sequence[_Row], one: bool) -> Iterator[tuple[str, str, str, str]]:
    """A line for each provider; many in the same state, of which little is to be said, share one."""
    for state, same in groupby(rows, lambda row: row.state):
        group = list(same)
        if state in _BRIEF and len(group) >= _BRIEF_FROM:
            yield f"{len(group)} others", state, "", ", ".join(row.setup.provider.name for row in group)
        else:
            yield from (_cells(row, one) for row in group)


def _cells(row: _Row, one: bool) -> tuple[str, str, str, str]:
    seconds = "" if row.seconds is None else f"{row.seconds:.2f} s"
    reason = spoken(row.reason) if one else shortened(spoken(row.reason).partition(", or run: ")[0], _LONGEST_REASON)
    text = _models(row) if row.state == "works" else reason
    if row.state == "works" and not row.counts and not one:
        text += f" ({row.remark})"
    return row.setup.provider.name, row.state, seconds, text


def _models(row: _Row) -> str:
    names = [shortened(name, _LONGEST_MODEL) for name in row.models]
    shown = ", ".join(names[:_SHOWN_MODELS]) + (", ..." if len(names) > _SHOWN_MODELS else "")
    count = f"{len(names)} model{'' if len(names) == 1 else 's'}"
    return f"{count}: {shown}" if names else "no models"


def _as_dict(row: _Row) -> dict[str, Any]:
    answer: dict[str, Any] = {"name": row.setup.provider.name, "state": row.state, "counts": row.counts}
    if row.state == "works":
        return {**answer, "seconds": round(row.seconds or 0.0, 3), "models": row.models}
    if row.error is not None:
        return {**answer, "error": {"type": type(row.error).__name__, "message": str(row.error)}}
    return {**answer, "reason": row.reason}


def _add_lists(commands: Any) -> None:
    text = "the models for -m, or those of a provider"
    command = commands.add_parser("models", help=f"list {text}", description=f"Lists {text}.", allow_abbrev=False)
    provider = command.add_argument("provider", nargs="?", metavar="PROVIDER", help="ask this provider for its models")
    completed_by(provider, provider_names)
    add_way(command, default_timeout=30)
    command.add_argument("--json", action="store_true", help="print one JSON array")
    add_debug(command)
    command.set_defaults(run=_list_models)
    text = "all known services, with setup and address"
    command = commands.add_parser("providers", help=f"list {text}", description=f"Lists {text}.", allow_abbrev=False)
    add_debug(command)
    command.set_defaults(run=_providers)


def _list_models(options: argparse.Namespace) -> None:
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
        write(one_line(shortened(model, _LONGEST_REASON)) + "\n")
    if not found:
        tell(f"{name} offers no models")


def _providers(_: argparse.Namespace) -> None:
    write_table((setup.provider.name, _about(setup)) for setup in setups())


def _about(setup: Setup) -> str:
    """Whether it is set up, its address, and its note without the variables for the key."""
    clauses = spoken(setup.provider.note).split("; ")
    notes = [clause for clause in clauses if clause and not _names_keys(clause, setup.provider.key_env)]
    return " - ".join(part for part in (_state(setup), setup.address, "; ".join(notes)) if part)


def _names_keys(clause: str, variables: Sequence[str]) -> bool:
    """Whether a clause only names the variables for the key, which the state does already."""
    return clause.startswith("set ") and set(clause.removeprefix("set ").split(" or ")) <= set(variables)


def _model_of(setup: Setup) -> str:
    provider = setup.provider
    return provider.name if provider.direct else f"{provider.name}:{provider.default_model or 'MODEL'}"


def _state(setup: Setup) -> str:
    if setup.state == "no key":
        return f"needs {' or '.join(setup.provider.key_env) or 'a key'}"
    if setup.state == "bad address":
        return setup.hint
    return "needs --base-url" if setup.state == "no address" else setup.state
