"""Plans a call: the models it may go to, the request for each, and what may follow."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from llmbridge import providers
from llmbridge._call.pipeline import Pipeline
from llmbridge._call.route import Route, chat_route
from llmbridge.errors import ConfigError, LLMBridgeError, UnknownProvider, without_frames
from llmbridge.messages import ChatRequest, Message, checked_messages
from llmbridge.options import (
    CHAT_NAMES,
    TRANSPORT_NAMES,
    ChatOptions,
    Timeout,
    TotalClock,
    TransportOptions,
    is_sensitive,
    refuse_misspelt,
    refuse_of_client,
)
from llmbridge.providers import MODEL_VARIABLE, SWAPPED, resolve_model
from llmbridge.secret import discreet
from llmbridge.stream import ChatStream

if TYPE_CHECKING:
    import requests

    from llmbridge._call.question import DocumentCall, EmbeddingsCall
    from llmbridge.client import Client
    from llmbridge.messages import Messages
    from llmbridge.provider import Provider

__all__ = ["Plan", "checked_models", "has_credentials", "plan_embeddings", "plan_models"]

_SCHEMA_RETRIES = 1
_TURNS = 10
_TIMEOUT = Timeout()


class _Target(NamedTuple):
    """A model of a provider, and the options and parameters for it."""

    provider: type[Provider]
    model: str
    chat: ChatOptions
    asked: dict[str, Any]
    options: TransportOptions


class Plan:
    """A chat as the caller wants it, to be made once or several times with different messages.

    Args:
        client: Supplies defaults, connections and limits.
        model: One, or several to be tried in order; None for the environment's.
        transport: The transport options of the call.
        chat: The chat options of the call.
        first: Whether the caller's current line runs it, so that warnings point there.
        free: Whether the model may answer now, whatever `tool_choice` made it call before.
    """

    def __init__(
        self,
        client: Client,
        model: str | Sequence[str | Client] | None,
        transport: TransportOptions,
        chat: ChatOptions,
        first: bool = True,
        free: bool = False,
    ) -> None:
        self._client = client
        self._model = model
        self._transport = transport
        self._chat = chat
        self._with_defaults = chat.over(client.chat_options)
        self._first = first
        self._free = free
        self._targets: dict[tuple[int, str | None], _Target] = {}  # by id: a caller's own class may not be hashable
        self._timeout = transport.timeout or client.transport_options.timeout or _TIMEOUT

    def stream(self, messages: Messages) -> ChatStream:
        """The answer to the messages, as the caller passed them."""
        retries = _SCHEMA_RETRIES if self._with_defaults.schema_retries is None else self._with_defaults.schema_retries
        try:
            return self._stream(checked_messages(messages), retries, TotalClock(self._timeout.total))
        except UnknownProvider as error:
            swapped = isinstance(messages, str) and providers.look_up(messages.partition(":")[0]) is not None
            if swapped and SWAPPED not in error.message:
                raise UnknownProvider(f"{error.message}; {SWAPPED}") from None
            raise

    def _stream(self, turns: Sequence[Message], retries: int, clock: TotalClock) -> ChatStream:
        chat = self._with_defaults
        pipeline, request = self._pipeline(turns, clock)
        correctable = retries > 0 and request.schema is not None
        again = partial(self._ask_again, turns, retries - 1, clock) if correctable else None
        logprobs = chat.wants_logprobs
        if not chat.run_tools:
            return ChatStream(pipeline, request.schema, again, logprobs, request.tools, idle=chat.run_tools is None)
        from llmbridge._tools.loop import ToolLoop

        # The tool that must be called has been called by then: forcing it again would never end.
        further = self._further(free=True)
        loop = ToolLoop(
            pipeline,
            lambda more: further._pipeline([*turns, *more], clock)[0],
            request.tools,
            chat.max_turns or _TURNS,
            clock,
        )
        return ChatStream(loop, request.schema, again, logprobs, request.tools)

    def _ask_again(
        self, turns: Sequence[Message], retries: int, clock: TotalClock, said: Sequence[Message]
    ) -> ChatStream:
        return self._further()._stream([*turns, *said], retries, clock)

    def _further(self, free: bool = False) -> Plan:
        """The plan of the requests that follow the first."""
        return Plan(self._client, self._model, self._transport, self._chat, first=False, free=free)

    @discreet
    def _pipeline(self, turns: Sequence[Message], total: TotalClock) -> tuple[Pipeline, ChatRequest]:
        """The call to the first model that accepts it, with the others as fallbacks; and the request for that model."""
        limiter = self._client.connections.limiter
        if self._model is None or isinstance(self._model, str):
            route, request = self._route(self._client, self._model, turns)
            return Pipeline([route], self._timeout, limiter, total=total), request
        routes, refused = [], []
        for model in self._model:
            client, name = (self._client, model) if isinstance(model, str) else (model, model.default_model)
            try:
                routes.append(self._route(client, name, turns))
            except LLMBridgeError as error:
                refused.append(without_frames(error))
        if not routes:
            raise _all_refused(refused)
        return Pipeline([route for route, _ in routes], self._timeout, limiter, refused, total=total), routes[0][1]

    def _target(self, client: Client, model: str | None) -> _Target:
        """What is the same for all messages."""
        found = self._targets.get((id(client), model))
        if found is None:
            provider, name = resolve_model(model, _has_base_url(client, self._transport))
            chat = self._with_defaults if client is self._client else self._chat.over(client.chat_options)
            asked = chat.asked
            if self._free:
                asked.pop("tool_choice", None)
            found = _Target(provider, name, chat, asked, client.options_for(provider, self._transport))
            self._targets[id(client), model] = found
        return found

    def _route(self, client: Client, model: str | None, turns: Sequence[Message]) -> tuple[Route, ChatRequest]:
        """The route to a model, with the defaults of the client that names it."""
        provider, name, chat, asked, options = self._target(client, model)
        unsupported = chat.unsupported
        if unsupported == "warn" and not self._first:
            unsupported = "drop"
        one = self._model is None or isinstance(self._model, str)
        breaker = None if one else client.connections.breaker_of(f"{provider.name}:{name}")
        try:
            route, request = chat_route(
                provider,
                ChatRequest.of_turns(name, turns, asked, chat.system),
                options,
                client.connections,
                unsupported=unsupported,
                extra=chat.extra,
                breaker=breaker,
            )
        except LLMBridgeError as error:
            error.provider, error.model = error.provider or provider.name, error.model or name
            raise
        if client is not self._client:
            route.limiter = client.connections.limiter
        return route, request


def _all_refused(errors: Sequence[LLMBridgeError]) -> LLMBridgeError:
    """The error when all of several models reject the request before it is sent."""
    if len({(type(error), error.message) for error in errors}) == 1:
        return errors[0]
    causes = "; ".join(f"{error.provider}:{error.model}: {error.message}" for error in errors)
    kind = type(errors[0]) if len(set(map(type, errors))) == 1 else ConfigError
    return kind(f"none of the {len(errors)} models accepts the request: {causes}")


def plan_embeddings(
    client: Client,
    texts: str | Iterable[str],
    model: str | None,
    transport: TransportOptions,
    params: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> EmbeddingsCall:
    """The embeddings of some texts, not requested yet; the arguments are those of `Client.embed`.

    Raises:
        ConfigError: The model, a text or a parameter cannot be used; nothing was sent.
    """
    from llmbridge._call.question import EmbeddingsCall

    refuse_of_client(params)
    refuse_misspelt(params, providers.names_taken)
    _refuse_of_chats("embed", params)
    named = client.default_model if model is None else model
    if named is None and client.several:
        raise ConfigError("this client has several models: say with model= which one makes the embeddings")
    provider, name = resolve_model(named, _has_base_url(client, transport))
    options = client.options_for(provider, transport)
    given = provider.with_settings({**client.settings_for(provider), **params}, options.base_url is not None)
    return EmbeddingsCall(client.connections, provider, name, options, texts, given, extra)


def plan_models(
    client: Client, name: str | None, transport: TransportOptions, settings: Mapping[str, Any]
) -> DocumentCall[list[str]]:
    """The request for a provider's models, not sent yet; the arguments are those of `Client.models`.

    Raises:
        ConfigError: The provider is unknown, cannot list models, or a setting is unknown; nothing was sent.
    """
    from llmbridge._call.question import DocumentCall

    if name is None:
        name = _own_provider(client, transport)
    if not isinstance(name, str):
        raise ConfigError(f"provider must be a name like 'openai', not {type(name).__name__}")
    provider = providers.find(name)
    if not provider.models_path:
        raise ConfigError(f"{name} cannot list its models", provider=name)
    _refuse_of_chats("models", settings)
    given = {key: value for key, value in settings.items() if key not in CHAT_NAMES}
    if unknown := sorted(given.keys() - provider.settings):
        known = (*TRANSPORT_NAMES, *sorted(provider.settings))
        guess = providers.did_you_mean(unknown[0], known)
        raise ConfigError(f"models() has no option {unknown[0]}{guess}: for {name} it takes {', '.join(known)}")
    options = client.options_for(provider, transport)
    asked = provider.with_settings({**client.settings_for(provider), **given}, options.base_url is not None)
    encoded = provider.encode_models({key: value for key, value in asked.items() if value is not None})
    return DocumentCall(
        client.connections, provider, "", lambda _: encoded, options, provider.decode_models, method="GET"
    )


def _refuse_of_chats(asked: str, params: Mapping[str, Any]) -> None:
    for name in CHAT_NAMES:
        if params.get(name) is not None:
            raise ConfigError(f"{name} is for chats only: {asked}() does not take it")


def _own_provider(client: Client, transport: TransportOptions) -> str:
    """The provider to use when the call names none.

    Raises:
        ConfigError: There is none, or several.
    """
    if client.several:
        raise ConfigError("this client has several models: say with provider= whose models are to be listed")
    if client.default_model is None and not os.environ.get(MODEL_VARIABLE, ""):
        raise ConfigError(f"no provider given: pass provider=, like 'openai', or set {MODEL_VARIABLE}")
    return resolve_model(client.default_model, _has_base_url(client, transport))[0].name


def _has_base_url(client: Client, transport: TransportOptions) -> bool:
    return transport.base_url is not None or client.transport_options.base_url is not None


def checked_models(models: Any, options: TransportOptions, kind: type[Client]) -> tuple[str | Client, ...]:
    """The checked models of a list, to be tried in order.

    Args:
        models: As the caller passed them.
        options: Of the client or the call that tries them.
        kind: The class of clients.

    Raises:
        ConfigError: One of them is not a model, or the options hold what belongs to one service only.
    """
    if isinstance(models, kind):
        models = (models,)
    if isinstance(models, (bytes, Mapping)) or not isinstance(models, Iterable):
        raise ConfigError("model must be a str like 'openai:gpt-5.4-mini', or a list of them")
    found = tuple(models)
    if not found:
        raise ConfigError("the list of models is empty")
    secret = any(value is not None and is_sensitive(name) for name, value in (options.headers or {}).items())
    if options.api_key is not None or options.base_url is not None or secret:
        raise ConfigError(
            "api_key, base_url and headers that hold a secret belong to one service: for several models, pass a Client "
            "for each instead of its name, as in Client([Client('openai:gpt-5.4-mini', api_key=...), 'ollama:llama3'])"
        )
    services: set[tuple[type[Provider], str | None]] = set()
    for model in found:
        if not isinstance(model, kind):
            services.add((resolve_model(model)[0], None))
        elif model.several:
            raise ConfigError("a Client in a list of models must have one model: add its models to the list instead")
        else:
            base_url = model.transport_options.base_url
            services.add((resolve_model(model.default_model, base_url is not None)[0], base_url))
    if len(services) > 1 and has_credentials(options.session):
        raise ConfigError(
            "the session holds credentials (auth, or a header like Authorization), which belong to one service: for "
            "models of several services, pass a Client for each, as in Client([Client('openai:gpt-5.4-mini', "
            "session=...), 'ollama:llama3'])"
        )
    return found


def has_credentials(session: requests.Session | None) -> bool:
    """Whether a caller's session adds credentials to each request, which only one service should see."""
    if session is None:
        return False
    params = session.params if isinstance(session.params, Mapping) else {}
    named = {**params, **session.headers}
    return (
        session.auth is not None
        or any(value is not None and is_sensitive(str(name)) for name, value in named.items())
        or any(not cookie.domain for cookie in session.cookies)
    )
