"""The models that a service offers right now."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge import providers
from llmbridge._document import DocumentCall
from llmbridge.errors import ConfigError
from llmbridge.options import OPTION_NAMES, CallOptions
from llmbridge.providers import MODEL_VARIABLE, resolve_model
from llmbridge.secret import discreet

if TYPE_CHECKING:
    from llmbridge.client import Client

__all__ = ["amodels", "amodels_with", "models", "models_with", "question"]

_OF_CHATS = ("unsupported", "run_tools", "max_turns", "reask")  # a client has them, and they mean nothing here


@discreet
def models(provider: str | None = None, **options: Any) -> list[str]:
    """The names of the models that a service offers right now.

    Args:
        provider: Its name. If missing, that of the model in LLMBRIDGE_MODEL.
        **options: `api_key`, `base_url`, `timeout` and the others that `Client` takes about how a request travels; and
            the provider's settings, like `api_version`.

    Raises:
        ConfigError: The provider is unknown, lists no models, or an option cannot be used; nothing was sent.
        LLMBridgeError: The service did not answer.

    Example:
        >>> models("demo")
        ['demo']
    """
    from llmbridge._shared import shared_client

    return models_with(shared_client(), provider, options)


@discreet
def amodels(provider: str | None = None, **options: Any) -> Coroutine[Any, Any, list[str]]:
    """`models` for async code: await it. Bad arguments are refused at the call.

    Example:
        >>> import asyncio
        >>> asyncio.run(amodels("demo"))
        ['demo']
    """
    from llmbridge._shared import shared_client

    return amodels_with(shared_client(), provider, options)


def amodels_with(client: Client, provider: str | None, options: Mapping[str, Any]) -> Coroutine[Any, Any, list[str]]:
    """`amodels` with the defaults of a client."""
    from llmbridge._aio import in_thread

    call = question(client, provider, options)
    return in_thread(call.result, call.cancel, left=call.left)


def models_with(client: Client, provider: str | None, options: Mapping[str, Any]) -> list[str]:
    """`models` with the defaults of a client."""
    found: list[str] = question(client, provider, options).result()
    return found


def question(client: Client, name: str | None, options: Mapping[str, Any]) -> DocumentCall:
    """The question for the names, which is not asked yet."""
    asked = CallOptions.checked({key: value for key, value in options.items() if key in OPTION_NAMES})
    if name is None:
        has_base_url = asked.base_url is not None or client.options.base_url is not None
        name = _own_provider(client, has_base_url)
    if not isinstance(name, str):
        raise ConfigError(f"provider must be a name like 'openai', not {type(name).__name__}")
    provider = providers.find(name)
    if not provider.models_path:
        raise ConfigError(f"{name} has no list of models to ask for", provider=name)
    given = {key: value for key, value in options.items() if key not in OPTION_NAMES}
    if unknown := sorted(given.keys() - provider.settings):
        known = (*(name for name in OPTION_NAMES if name not in _OF_CHATS), *sorted(provider.settings))
        raise ConfigError(f"models() knows no {unknown[0]}: for {name} it takes {', '.join(known)}")
    settings = {**client.settings_for(provider), **given}
    encoded = provider.encode_models({key: value for key, value in settings.items() if value is not None})
    travel = client.options_for(provider, asked)
    return DocumentCall(client, provider, "", lambda _: encoded, travel, "GET", provider.decode_models)


def _own_provider(client: Client, has_base_url: bool) -> str:
    """The name of the provider where none is named.

    Raises:
        ConfigError: There is none, or several.
    """
    if client.several:
        raise ConfigError("this client has several models: say with provider= whose models are to be listed")
    if client.default_model is None and not os.environ.get(MODEL_VARIABLE, ""):
        raise ConfigError(f"no provider is named: pass provider=, like 'openai', or set {MODEL_VARIABLE}")
    return resolve_model(client.default_model, has_base_url)[0].name
