"""`chat()` and `Client`: find the provider, check the options, and give the stream that will do the rest."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbridge import providers
from llmbridge._forking import keep_lock_free
from llmbridge._pipeline import Pipeline
from llmbridge._version import __version__
from llmbridge.errors import ConfigError, UnknownProvider
from llmbridge.messages import ChatRequest, Messages
from llmbridge.options import OPTION_NAMES, CallOptions, Timeout, TimeoutLike, checked_base_url
from llmbridge.provider import Provider
from llmbridge.retry import Retry, RetryLike
from llmbridge.secret import SHORTEST_SECRET, MaskedStr, Secret, discreet
from llmbridge.stream import ChatStream

if TYPE_CHECKING:
    import requests

    from llmbridge._transport import HTTPRequest, Transport
    from llmbridge.provider import AsyncGeneratorProvider

__all__ = ["MODEL_VARIABLE", "Client", "chat", "class_stream", "resolve_model"]

MODEL_VARIABLE = "LLMBRIDGE_MODEL"
"""The environment variable that names the model where a caller names none."""

_TRANSPORTS = 32  # ways to travel whose connections are kept
_USER_AGENT = f"llmbridge/{__version__}"


class Client:
    """A model with defaults, and connections that are kept for the next call. Safe to share between threads.

    Args:
        model: "provider:model", or only a provider's name if it has a default model. If missing, LLMBRIDGE_MODEL.
        api_key: If missing, taken from the provider's environment variable.
        base_url: Where the provider's paths are appended to, instead of its own host.
        proxy: URL of a proxy; None for what the environment says, False for none at all.
        timeout: Seconds for a whole call, or a `Timeout`.
        retries: How often a call that failed before its first piece is tried again, or a `Retry`.
        headers: Added to the provider's and winning over them; None as a value takes one away.
        session: Your own `requests.Session`; its adapters, auth, headers and CA count. It is not closed here.
        verify: True, False, or the path of a CA file or folder.
        system: A system message put in front of every conversation.
        **params: Parameters of the service, sent as given.

    Raises:
        ConfigError: The model or an option cannot be used; nothing was sent.

    Example:
        >>> with Client("demo", timeout=30) as client:
        ...     print(client.chat("Hello").complete().finish_reason)
        stop
    """

    @discreet
    def __init__(
        self,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        proxy: str | bool | None = None,
        timeout: TimeoutLike = None,
        retries: RetryLike = None,
        headers: Mapping[str, str | None] | None = None,
        session: requests.Session | None = None,
        verify: bool | str | None = None,
        system: str | None = None,
        **params: Any,
    ) -> None:
        self._model = model
        given = locals()
        self._options = CallOptions.checked({name: given[name] for name in OPTION_NAMES})
        self._system = system
        self._params = params
        self._transports: dict[Any, Transport] = {}
        self._lock: threading.Lock
        keep_lock_free(self)
        if model is not None:
            resolve_model(model, self._options.base_url is not None)

    def __repr__(self) -> str:
        return f"<Client {self._model or 'without a model'}>"

    @discreet
    def chat(
        self,
        messages: Messages,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        proxy: str | bool | None = None,
        timeout: TimeoutLike = None,
        retries: RetryLike = None,
        headers: Mapping[str, str | None] | None = None,
        session: requests.Session | None = None,
        verify: bool | str | None = None,
        system: str | None = None,
        **params: Any,
    ) -> ChatStream:
        """The answer to the messages. Nothing is sent before its first piece is asked for.

        Args:
            messages: A str is one user message; otherwise a list of `{"role", "content"}`.
            model: As for `Client`, and so are all other arguments; given here, they hold for this call.

        Raises:
            ConfigError: The model, the messages or an option cannot be used; nothing was sent.

        Example:
            >>> Client("demo").chat("Hello", timeout=30).complete().model
            'demo'
        """
        given = locals()
        asked = CallOptions.checked({name: given[name] for name in OPTION_NAMES if given[name] is not None})
        options = asked.over(self._options)
        provider, name = resolve_model(model or self._model, options.base_url is not None)
        if provider.offline_since and options.base_url is None:
            raise ConfigError(
                f"{provider.name} has been offline since {provider.offline_since}: give base_url= to use another host "
                "that speaks its format",
                provider=provider.name,
            )
        request = ChatRequest.checked(
            name, messages, {**self._params, **params}, self._system if system is None else system
        )
        return self._stream(provider, request, options)

    def _stream(self, provider: type[Provider], request: ChatRequest, options: CallOptions) -> ChatStream:
        if options.base_url is not None and provider.path and options.base_url.endswith(provider.path):
            raise ConfigError(f"base_url ends with {provider.path}, which is appended to it: leave it out")
        if options.base_url is None and not provider.direct and not provider.resolve_base_url():
            raise ConfigError(
                f"{provider.name} needs a base_url=, like http://127.0.0.1:8080/v1", provider=provider.name
            )
        key = provider.find_key(options.api_key, options.base_url is not None)
        proxy: str | bool | None = False if provider.direct and options.base_url is None else options.proxy
        pipeline = Pipeline(
            provider,
            request.model,
            lambda: _http_request(provider, request, options, key),
            lambda: self._transport(options.session, proxy, True if options.verify is None else options.verify),
            options.timeout or Timeout(),
            options.retries or Retry(),
        )
        return ChatStream(pipeline, provider.name, request.model)

    def _transport(self, session: requests.Session | None, proxy: str | bool | None, verify: bool | str) -> Transport:
        """Calls that travel in the same way share their connections."""
        from llmbridge._transport import Transport

        if session is not None:
            return Transport(session, proxy, verify)
        with self._lock:
            transport = self._transports.get((proxy, verify))
            if transport is None:
                if len(self._transports) >= _TRANSPORTS:
                    self._transports.pop(next(iter(self._transports))).close()
                transport = self._transports[proxy, verify] = Transport(None, proxy, verify)
            return transport

    def close(self) -> None:
        """Closes the kept connections. The client may be used again."""
        with self._lock:
            transports = list(self._transports.values())
            self._transports.clear()
        for transport in transports:
            transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_shared = Client()


@discreet
def chat(
    messages: Messages,
    model: str | None = None,
    *,
    api_key: str | Secret | None = None,
    base_url: str | None = None,
    proxy: str | bool | None = None,
    timeout: TimeoutLike = None,
    retries: RetryLike = None,
    headers: Mapping[str, str | None] | None = None,
    session: requests.Session | None = None,
    verify: bool | str | None = None,
    system: str | None = None,
    **params: Any,
) -> ChatStream:
    """The answer of a model, as a stream of text.

    Args:
        messages: A str is one user message; otherwise a list of `{"role", "content"}`.
        model: "provider:model", e.g. "openai:gpt-5-mini", or "demo", which needs no key and no network. If missing,
            the environment variable LLMBRIDGE_MODEL.
        **params: Parameters of the service, sent as given. All other arguments are those of `Client`.

    Returns:
        A `ChatStream`: iterate over it, or call `.complete()`; in async code use `async for`, or `await` it.

    Raises:
        ConfigError: The model, the messages or an option cannot be used; nothing was sent.

    Example:
        >>> for piece in chat("Hello", model="demo"):
        ...     assert piece
    """
    given = locals()
    return _shared.chat(messages, model, system=system, **{name: given[name] for name in OPTION_NAMES}, **params)


def class_stream(
    provider: type[AsyncGeneratorProvider], model: str, messages: Messages, kwargs: Mapping[str, Any]
) -> ChatStream:
    """The answer of a provider used as a class: what is no option of the transport is a parameter of the service."""
    if not issubclass(provider, Provider):
        raise ConfigError(f"{provider.__name__} is no llmbridge.Provider: it has no encode() and decode()")
    options = CallOptions.checked({name: kwargs[name] for name in OPTION_NAMES if name in kwargs})
    params = {name: value for name, value in kwargs.items() if name not in OPTION_NAMES}
    request = ChatRequest.checked(model, messages, params)
    return _shared._stream(provider, request, options)


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
        try:
            return _with_model(providers.find(prefix), name)
        except UnknownProvider:
            if not has_base_url:  # a local model's own name may hold a colon: llama3:8b
                raise
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


def _http_request(
    provider: type[Provider], request: ChatRequest, options: CallOptions, key: Secret | None
) -> HTTPRequest:
    from llmbridge._transport import HTTPRequest, passwords_of

    base_url = options.base_url or checked_base_url(provider.resolve_base_url())
    encoded = provider.encode(request)
    # Identity: a compressing proxy would hold the pieces back until its buffer is full.
    headers: dict[str, str | None] = {
        "User-Agent": _USER_AGENT,
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    secrets = [*passwords_of(base_url)]
    _override(headers, provider.headers)
    _override(headers, encoded.headers)
    if key is not None:
        secrets.append(key.reveal())
        _override(headers, {name: MaskedStr(value) for name, value in provider.auth_headers(key.reveal()).items()})
    if options.headers:
        masked = [value for value in options.headers.values() if isinstance(value, MaskedStr)]
        secrets += [word for value in masked for word in value.split()]
        _override(headers, options.headers)
    kept = {name: value for name, value in headers.items() if value is not None}
    return HTTPRequest(
        base_url + encoded.path, kept, encoded.body, tuple(word for word in secrets if len(word) >= SHORTEST_SECRET)
    )


def _override(headers: dict[str, str | None], others: Mapping[str, str | None]) -> None:
    """Header names are the same in any case; the later one's spelling stays."""
    for name, value in others.items():
        for known in [known for known in headers if known.lower() == name.lower()]:
            del headers[known]
        headers[name] = value
