"""The providers: from the modules of this package, from entry points of other packages, and from `register`.

`resolve_model` finds the provider of a model string. To add a dialect, add a module or a folder here; to add a service
that speaks OpenAI's dialect, add a row in `compatible`. There is no list to edit. A module named like its provider, or
like the first word of that name (`openai-compatible` is in `openai`), is found without importing the others; rows are
found the same way.

`python -m llmbridge.providers` prints the table of docs/providers/README.md.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from llmbridge.errors import ConfigError, UnknownProvider
from llmbridge.provider import Provider

__all__ = [
    "ENTRY_POINTS",
    "MODEL_VARIABLE",
    "SWAPPED",
    "did_you_mean",
    "find",
    "known",
    "look_up",
    "names_taken",
    "register",
    "resolve_model",
]

ENTRY_POINTS = "llmbridge.providers"
"""The entry point group that other packages use for their Provider classes."""

MODEL_VARIABLE = "LLMBRIDGE_MODEL"
"""The environment variable with the default model."""

SWAPPED = "are the arguments the wrong way round? It is chat(messages, model)"
"""Added to the error if a model looks like a message, or a message like a model."""

_LISTED = "all providers: llmbridge providers"
_MAKERS = {
    "openai": ("gpt-", "chatgpt", "o1", "o3", "o4-"),
    "anthropic": ("claude",),
    "gemini": ("gemini-",),
    "mistral": ("mistral-", "ministral", "magistral", "codestral", "devstral"),
    "cohere": ("command-",),
    "deepseek": ("deepseek-",),
    "xai": ("grok-",),
}

P = TypeVar("P", bound=type[Provider])

_registered: dict[str, type[Provider]] = {}
_of_entry_points: dict[str, type[Provider]] | None = None
_broken: dict[str, str] = {}


def register(provider: P) -> P:
    """Registers a provider under its name, replacing any other of that name. Also works as a class decorator.

    Args:
        provider: A subclass of `Provider` with a `name`.

    Raises:
        ConfigError: It is not such a class, or its name is not usable in "name:model".

    Example:
        >>> from llmbridge.providers.compatible import compatible
        >>> register(compatible("acme", base_url="https://api.acme.example/v1")).name
        'acme'
    """
    if not (isinstance(provider, type) and issubclass(provider, Provider)):
        raise ConfigError("register() needs a subclass of llmbridge.Provider")
    if not provider.name or set(provider.name) & set(":/ \t\n"):
        raise ConfigError(f"{provider.__name__}.name must be set, without a colon, slash or white space")
    _registered[provider.name] = provider
    return provider


def find(name: str) -> type[Provider]:
    """The provider of that name.

    Raises:
        UnknownProvider: There is none; the message lists the known ones.
        ConfigError: The package that offers it is broken.

    Example:
        >>> find("openai").__name__
        'OpenAI'
    """
    provider = look_up(name)
    if provider is not None:
        return provider
    raise UnknownProvider(
        f"unknown provider {name[:40]!r}{did_you_mean(name, known())}: known are {', '.join(sorted(known()))}"
    )


def did_you_mean(name: str, among: Iterable[str]) -> str:
    """The end of a message about an unknown name: a suggestion, if a known one is close to it."""
    from difflib import get_close_matches

    close = get_close_matches(name, among, 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def look_up(name: str) -> type[Provider] | None:
    """The provider of that name, or None; entry points are checked last.

    Raises:
        ConfigError: The package that offers it is broken.
    """
    provider = _registered.get(name) or _of_own_module(name) or _entry_points().get(name)
    if provider is None and name in _broken:
        raise ConfigError(_broken[name])
    return provider


def known() -> dict[str, type[Provider]]:
    """All providers by name; registered ones first, then those of this package, then those of entry points.

    An entry point that cannot be loaded is skipped with a warning; `find` raises the error.
    """
    found = dict(_entry_points())
    for module in _module_names():
        found.update(_in_module(module))
    return {**found, **_registered}


def names_taken() -> set[str]:
    """The parameters that providers name as their own, or refuse."""
    return {name for provider in known().values() for name in (*provider.settings, *provider.refused)}


def resolve_model(model: str | None, has_base_url: bool = False) -> tuple[type[Provider], str]:
    """The provider and the model's own name in a model string.

    Args:
        model: "provider:model", "provider/model" or a provider's name; None for LLMBRIDGE_MODEL.
        has_base_url: If True, anything that is not "provider:model" is a model of an OpenAI-compatible server.

    Raises:
        ConfigError: No model is given; the message says how to give one.
        UnknownProvider: There is no such provider.

    Example:
        >>> resolve_model("openai:gpt-5.4-mini")
        (<class 'llmbridge.providers.openai.OpenAI'>, 'gpt-5.4-mini')
    """
    model = (model if model is not None else os.environ.get(MODEL_VARIABLE, "")) or None
    if model is None:
        raise ConfigError(
            f"no model given: pass model=, like 'openai:gpt-5.4-mini' or 'demo' (which needs no key or network), "
            f"or set {MODEL_VARIABLE}; {_LISTED}"
        )
    if not isinstance(model, str) or not model.strip():
        swapped = f"; {SWAPPED}" if isinstance(model, Mapping) or hasattr(model, "role") else ""
        raise ConfigError(f"model must be a str like 'openai:gpt-5.4-mini'{swapped}")
    model = model.strip()
    prefix, separator, name = model.partition(":")
    if separator and "/" not in prefix:
        if (provider := look_up(prefix)) is not None:
            return _with_model(provider, name)
        if not has_base_url:  # with one, a local model's name may hold a colon: llama3:8b
            raise UnknownProvider(
                f"unknown provider {prefix[:40]!r}{did_you_mean(prefix, known())}; {_LISTED}, or give base_url= "
                "for an OpenAI-compatible server"
            )
    if has_base_url:  # a slash is part of the model's name: openai/gpt-oss-20b
        return find("openai-compatible"), model
    prefix, _, name = model.partition("/")
    if (provider := look_up(prefix)) is not None:
        return _with_model(provider, name)
    meant = next((name for name, start in _MAKERS.items() if model.lower().startswith(start)), "")
    if meant:
        says = f"did you mean '{meant}:{model[:60]}'?"
    elif near := did_you_mean(model, known()):
        says = f"write 'provider:model'{near}"
    else:
        says = "write 'provider:model', or give base_url= for an OpenAI-compatible server"
    then = SWAPPED if any(map(str.isspace, model)) else _LISTED
    then = f" {then.capitalize()}" if says.endswith("?") and then is _LISTED else f"; {then}"
    raise UnknownProvider(f"{model[:60]!r} names no provider: {says}{then}")


def _with_model(provider: type[Provider], name: str) -> tuple[type[Provider], str]:
    name = name.strip() or provider.default_model or ""
    if not name:
        raise ConfigError(f"{provider.name} has no default model: write '{provider.name}:MODEL'")
    return provider, name


@lru_cache
def _of_own_module(name: str) -> type[Provider] | None:
    """The provider in the module or row of that name, without importing others."""
    if (provider := _if_there(name.replace("-", "_"), name)) is not None:
        return provider
    return _in_module("compatible").get(name) or _if_there(name.partition("-")[0], name)


def _if_there(module: str, name: str) -> type[Provider] | None:
    """The provider in a module of this package, if the module exists."""
    if not module.isidentifier() or module.startswith("_"):
        return None
    try:
        return _in_module(module).get(name)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{module}":
            raise
        return None


@lru_cache
def _module_names() -> tuple[str, ...]:
    import pkgutil

    return tuple(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


@lru_cache
def _in_module(module: str) -> dict[str, type[Provider]]:
    full_name = f"{__name__}.{module}"
    return {
        value.name: value
        for value in vars(importlib.import_module(full_name)).values()
        if isinstance(value, type)
        and issubclass(value, Provider)
        and value.__module__ == full_name
        and "name" in vars(value)
    }


def _entry_points() -> dict[str, type[Provider]]:
    """The providers of other packages. One that cannot be loaded must not break the others."""
    global _of_entry_points
    if _of_entry_points is None:
        from importlib.metadata import entry_points  # slower than all of llmbridge: imported only if needed

        loaded = {}
        for entry in entry_points(group=ENTRY_POINTS):
            try:
                provider = entry.load()
            except Exception as error:  # noqa: BLE001 - an error in one package must not affect the others
                _broken[entry.name] = f"the entry point {entry.name!r} = {entry.value!r} cannot be loaded: {error}"
                continue
            if isinstance(provider, type) and issubclass(provider, Provider):
                loaded[provider.name or entry.name] = provider
            else:
                _broken[entry.name] = f"the entry point {entry.name!r} = {entry.value!r} is not an llmbridge.Provider"
        _of_entry_points = loaded
        for problem in _broken.values():
            warnings.warn(f"llmbridge skips a provider: {problem}", RuntimeWarning, stacklevel=2)
    return _of_entry_points


def __getattr__(name: str) -> Any:
    """Provider classes by their class name: `from llmbridge.providers import Vitalentum`."""
    if name[:1].isupper():
        for module in _module_names():
            for provider in _in_module(module).values():
                if provider.__name__ == name:
                    return provider
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
