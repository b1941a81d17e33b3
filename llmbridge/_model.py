"""What a model string stands for: a provider, and the model's own name."""

from __future__ import annotations

import os

from llmbridge import providers
from llmbridge.errors import ConfigError, UnknownProvider
from llmbridge.provider import Provider

__all__ = ["MODEL_VARIABLE", "resolve_model"]

MODEL_VARIABLE = "LLMBRIDGE_MODEL"
"""The environment variable that names the model where a caller names none."""


def resolve_model(model: str | None, has_base_url: bool = False) -> tuple[type[Provider], str]:
    """The provider and the model's own name that a model string stands for.

    Args:
        model: "provider:model", "provider/model" or a provider's name; None for LLMBRIDGE_MODEL.
        has_base_url: Whatever is no "provider:model" is then a model of an OpenAI-compatible server.

    Raises:
        ConfigError: No model is named; the message lists what is possible.
        UnknownProvider: Nobody knows the provider.

    Example:
        >>> resolve_model("openai:gpt-5-mini")
        (<class 'llmbridge.providers.openai.OpenAI'>, 'gpt-5-mini')
    """
    model = (model if model is not None else os.environ.get(MODEL_VARIABLE, "")) or None
    if model is None:
        raise ConfigError(
            f"no model is named: pass model=, or set {MODEL_VARIABLE}, to one of "
            f"{', '.join(_possible_models())}; 'demo' needs no key and no network"
        )
    if not isinstance(model, str) or not model.strip():
        raise ConfigError("model must be a str like 'openai:gpt-5-mini'")
    model = model.strip()
    prefix, separator, name = model.partition(":")
    if separator and "/" not in prefix:
        if (provider := providers.look_up(prefix)) is not None:
            return _with_model(provider, name)
        if not has_base_url:  # there a local model's own name may hold a colon: llama3:8b
            providers.find(prefix)
    if has_base_url:  # there a slash is a part of the model's own name: openai/gpt-oss-20b
        return providers.find("openai-compatible"), model
    prefix, _, name = model.partition("/")
    if (provider := providers.look_up(prefix)) is not None:
        return _with_model(provider, name)
    raise UnknownProvider(
        f"{model[:60]!r} names no provider: write 'provider:model' with one of {', '.join(sorted(providers.known()))}, "
        "or give base_url= for an OpenAI-compatible server"
    )


def _with_model(provider: type[Provider], name: str) -> tuple[type[Provider], str]:
    name = name.strip() or provider.default_model or ""
    if not name:
        raise ConfigError(f"{provider.name} needs a model's name: write '{provider.name}:model'")
    return provider, name


def _possible_models() -> list[str]:
    return [
        f"'{name}:{provider.default_model or '<model>'}'" if name != "demo" else "'demo'"
        for name, provider in sorted(providers.known().items())
        if provider.working
    ]
