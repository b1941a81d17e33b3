"""The models that a service offers right now."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge import providers
from llmbridge._document import DocumentCall
from llmbridge._model import resolve_model
from llmbridge.errors import ConfigError
from llmbridge.options import OPTION_NAMES, CallOptions
from llmbridge.provider import Encoded
from llmbridge.secret import discreet

if TYPE_CHECKING:
    from llmbridge.client import Client

__all__ = ["amodels", "models", "models_with"]


@discreet
def models(provider: str | None = None, **options: Any) -> list[str]:
    """The names of the models that a service offers right now.

    Args:
        provider: Its name. If missing, that of the model in LLMBRIDGE_MODEL.
        **options: `api_key`, `base_url`, `timeout` and the others that `Client` takes about how a request travels.

    Raises:
        ConfigError: The provider is unknown, lists no models, or an option cannot be used; nothing was sent.
        LLMBridgeError: The service did not answer.

    Example:
        >>> models("demo")
        ['demo']
    """
    from llmbridge.client import shared_client

    return models_with(shared_client(), provider, options)


@discreet
def amodels(provider: str | None = None, **options: Any) -> Coroutine[Any, Any, list[str]]:
    """`models` for async code: await it. Bad arguments are refused at the call.

    Example:
        >>> import asyncio
        >>> asyncio.run(amodels("demo"))
        ['demo']
    """
    from llmbridge._aio import in_thread
    from llmbridge.client import shared_client

    call = _call(shared_client(), provider, options)
    return in_thread(call.result, call.cancel)


def models_with(client: Client, provider: str | None, options: Mapping[str, Any]) -> list[str]:
    """`models` with the defaults of a client."""
    found: list[str] = _call(client, provider, options).result()
    return found


def _call(client: Client, name: str | None, options: Mapping[str, Any]) -> DocumentCall:
    if unknown := sorted(set(options) - set(OPTION_NAMES)):
        raise ConfigError(f"models() knows no {unknown[0]}: it takes {', '.join(OPTION_NAMES)}")
    asked = CallOptions.checked(options)
    if name is None:
        has_base_url = asked.base_url is not None or client.options.base_url is not None
        name = resolve_model(client.default_model, has_base_url)[0].name
    if not isinstance(name, str):
        raise ConfigError(f"provider must be a name like 'openai', not {type(name).__name__}")
    provider = providers.find(name)
    if not provider.models_path:
        raise ConfigError(f"{name} has no list of models to ask for", provider=name)
    path, travel = provider.models_path, client.options_for(provider, asked)
    return DocumentCall(client, provider, "", lambda _: Encoded({}, path), travel, "GET", provider.decode_models)
