"""How a call will be carried out: which models it may go to, and what each of them is sent."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmbridge._http_request import http_request
from llmbridge._pipeline import Pipeline, TotalClock
from llmbridge._route import Breaker, Route, located
from llmbridge.errors import (
    ConfigError,
    InvalidRequest,
    LLMBridgeError,
    UnsupportedParameter,
    without_frames,
)
from llmbridge.messages import ChatRequest, Message, Messages, checked_messages, with_own_proofs
from llmbridge.options import OPTION_NAMES, CallOptions, Timeout, checked_base_url, is_sensitive
from llmbridge.provider import Provider
from llmbridge.providers import resolve_model
from llmbridge.retry import Retry
from llmbridge.stream import ChatStream

if TYPE_CHECKING:
    import requests

    from llmbridge._transport import Call, HTTPRequest
    from llmbridge.client import Client
    from llmbridge.provider import AsyncGeneratorProvider
    from llmbridge.secret import Secret

__all__ = [
    "Plan",
    "caller_level",
    "checked_models",
    "class_stream",
    "has_credentials",
    "refuse_of_client",
    "route_to",
    "settled",
    "usable_key",
]

_FREE = {"tool_choice": None}
_OF_CLIENT = ("limits", "pickle_key")
_NO_SETTINGS = ("tools", "schema")
_REASKS = 1
_TURNS = 10


class Plan:
    """A call as the caller wants it, to be made once or several times with different messages.

    Args:
        client: Its defaults, connections and limits count.
        model: As the caller gave it; None for the client's.
        params: Of the call, with tools and schema.
        options: Of the call.
        system: Of the call; None for the client's.
        first: Whether the caller waits for it in the line that asks, where warnings belong.
    """

    def __init__(
        self,
        client: Client,
        model: Any,
        params: Mapping[str, Any],
        options: CallOptions,
        system: str | None,
        first: bool = True,
    ) -> None:
        refuse_of_client(params)
        self._first = first
        self._client = client
        self._model = client._model if model is None else model
        self._params = settled(params)
        self._options = options
        self._system = system
        self._all_options = options.over(client.options)

    def stream(self, messages: Messages, reasks: int | None = None, total: TotalClock | None = None) -> ChatStream:
        """The answer to the messages.

        Args:
            messages: As the caller gave them.
            reasks: How often it may be asked for again; None for what the caller said.
            total: The clock of the chat that this answer is a part of; None if it begins one.
        """
        turns = checked_messages(messages)
        clock = total or TotalClock((self._all_options.timeout or Timeout()).total)
        pipeline, request = self._pipeline(turns, clock)
        asked = asks_for_logprobs({**self._client._params, **self._params})
        if reasks is None:
            reasks = _REASKS if self._all_options.reask is None else self._all_options.reask

        def ask_again(said: Sequence[Message]) -> ChatStream:
            return self._further(self._params).stream([*turns, *said], reasks - 1, clock)

        if not self._all_options.run_tools:
            return ChatStream(pipeline, request.schema, ask_again if reasks > 0 else None, asked)
        from llmbridge._tool_loop import ToolLoop

        limit = self._all_options.max_turns or _TURNS
        # A tool that must be called has been called then: the model would never come to an answer.
        further = self._further({**self._params, **_FREE})
        loop = ToolLoop(
            pipeline, lambda more: further._pipeline([*turns, *more], clock)[0], request.tools, limit, clock
        )
        return ChatStream(loop, request.schema, ask_again if reasks > 0 else None, asked)

    def _further(self, params: Mapping[str, Any]) -> Plan:
        """The plan of the requests that follow the first, whatever the caller's lists hold by then."""
        return Plan(self._client, self._model, params, self._options, self._system, first=False)

    def _pipeline(self, turns: Sequence[Message], total: TotalClock) -> tuple[Pipeline, ChatRequest]:
        """The call to the first model that takes it, the others behind; and the request as that first one gets it."""
        timeout = self._all_options.timeout or Timeout()
        limiter = self._client.limiter
        if self._model is None or isinstance(self._model, str):
            route, request = self._route(self._client, self._model, turns)
            return Pipeline([route], timeout, limiter, total=total), request
        routes, refused = [], []
        for model in checked_models(self._model, self._all_options):
            client, name = (self._client, model) if isinstance(model, str) else (model, model.default_model)
            try:
                routes.append(self._route(client, name, turns))
            except LLMBridgeError as error:
                refused.append(without_frames(error))
        if not routes:
            raise _all_refused(refused)
        return Pipeline([route for route, _ in routes], timeout, limiter, refused, total=total), routes[0][1]

    def _route(self, client: Client, model: Any, turns: Sequence[Message]) -> tuple[Route, ChatRequest]:
        has_base_url = self._options.base_url is not None or client.options.base_url is not None
        provider, name = resolve_model(model, has_base_url)
        options = client.options_for(provider, self._options)
        if options.unsupported == "warn" and not self._first:
            options = replace(options, unsupported="drop")
        try:
            system = client._system if self._system is None else self._system
            request = ChatRequest.checked(name, turns, {**client._params, **self._params}, system)
            one = self._model is None or isinstance(self._model, str)
            breaker = Breaker() if one else client.breaker_of(f"{provider.name}:{name}")
            route, request = route_to(client, provider, request, options, breaker)
        except LLMBridgeError as error:
            error.provider, error.model = error.provider or provider.name, error.model or name
            raise
        if client is not self._client:
            route.limiter = client.limiter
        return route, request


def settled(params: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that may be used again: what their owner does with them afterwards does not reach them.

    Tools are read once, as they may come out of an iterator. What cannot be copied is refused when it is to be sent.

    Example:
        >>> settled({"tools": iter([print]), "stop": "END"})
        {'tools': (<built-in function print>,), 'stop': 'END'}
    """
    kept = dict(params)
    for name, value in params.items():
        if name == "tools":
            if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping, type)):
                kept[name] = tuple(value)
        elif isinstance(value, (list, dict)):
            with contextlib.suppress(Exception):
                kept[name] = deepcopy(value)
    return kept


def refuse_of_client(params: Mapping[str, Any]) -> None:
    """Refuses among a call's parameters what only a client can have.

    Raises:
        ConfigError: There is such a thing.
    """
    for name in _OF_CLIENT:
        if name in params:
            raise ConfigError(f"{name} belongs to a client, not to a single call: Client(..., {name}=...)")


def checked_models(models: Any, options: CallOptions) -> tuple[str | Client, ...]:
    """Several models to be tried in order, once it is sure that each of them is one.

    Raises:
        ConfigError: One of them is none, or they are given what belongs to one service only.
    """
    from llmbridge.client import Client

    if isinstance(models, (bytes, Mapping)) or not isinstance(models, Iterable):
        raise ConfigError("model must be a str like 'openai:gpt-5-mini', or a list of them")
    found = tuple(models)
    if not found:
        raise ConfigError("the list of models is empty")
    secret = any(value is not None and is_sensitive(name) for name, value in (options.headers or {}).items())
    if options.api_key is not None or options.base_url is not None or secret:
        raise ConfigError(
            "api_key, base_url and headers that hold a secret belong to one service: for several models, pass a Client "
            "for each instead of its name, as in Client([Client('openai:gpt-5-mini', api_key=...), 'ollama:llama3'])"
        )
    services: set[tuple[type[Provider], str | None]] = set()
    for model in found:
        if not isinstance(model, Client):
            services.add((resolve_model(model)[0], None))
        elif model.several:
            raise ConfigError("a Client in a list of models must have one model: put those of its own list there")
        else:
            base_url = model.options.base_url
            services.add((resolve_model(model.default_model, base_url is not None)[0], base_url))
    if len(services) > 1 and has_credentials(options.session):
        raise ConfigError(
            "the session holds credentials (auth, or a header like Authorization), which belong to one service: for "
            "models of several services, pass a Client for each, as in Client([Client('openai:gpt-5-mini', "
            "session=...), 'ollama:llama3'])"
        )
    return found


def has_credentials(session: requests.Session | None) -> bool:
    """Whether a caller's session adds something to each request that only one service should see."""
    if session is None:
        return False
    params = session.params if isinstance(session.params, Mapping) else {}
    named = {**params, **session.headers}
    return (
        session.auth is not None
        or any(value is not None and is_sensitive(str(name)) for name, value in named.items())
        or any(not cookie.domain for cookie in session.cookies)
    )


def _all_refused(errors: Sequence[LLMBridgeError]) -> LLMBridgeError:
    """The error where no model of several can be asked at all."""
    if len({(type(error), error.message) for error in errors}) == 1:
        return errors[0]
    causes = "; ".join(f"{error.provider}:{error.model}: {error.message}" for error in errors)
    kind = type(errors[0]) if len(set(map(type, errors))) == 1 else ConfigError
    return kind(f"none of the {len(errors)} models can be asked: {causes}")


def class_stream(
    provider: type[AsyncGeneratorProvider], model: str, messages: Messages, kwargs: Mapping[str, Any]
) -> ChatStream:
    """The answer of a provider used as a class: what is no option of the transport is a parameter of the service."""
    from llmbridge._shared import shared_client

    if not issubclass(provider, Provider):
        raise ConfigError(f"{provider.__name__} is no llmbridge.Provider: it has no encode() and decode()")
    options = CallOptions.checked({name: kwargs[name] for name in OPTION_NAMES if name in kwargs})
    params = {name: value for name, value in kwargs.items() if name not in OPTION_NAMES}
    refuse_of_client(params)
    request = ChatRequest.checked(model, messages, params)
    route, request = route_to(shared_client(), provider, request, options, Breaker(), even_offline=True)
    pipeline = Pipeline([route], options.timeout or Timeout())
    return ChatStream(pipeline, request.schema, keep_logprobs=asks_for_logprobs(params))


def asks_for_logprobs(params: Mapping[str, Any]) -> bool:
    """Whether a parameter wants the tokens' probabilities: services send them unasked too, and they are bulky.

    Example:
        >>> asks_for_logprobs({"top_logprobs": 3}), asks_for_logprobs({"generationConfig": {"responseLogprobs": True}})
        (True, True)
        >>> asks_for_logprobs({"temperature": 0, "logprobs": False})
        False
    """
    for name, value in params.items():
        if value is None or value is False or name in _NO_SETTINGS:
            continue
        words = [name, *(value if isinstance(value, (Mapping, list, tuple)) else ())]
        if any(isinstance(word, str) and "logprobs" in word.lower() for word in words):
            return True
    return False


def route_to(
    client: Client,
    provider: type[Provider],
    request: ChatRequest,
    options: CallOptions,
    breaker: Breaker,
    even_offline: bool = False,
) -> tuple[Route, ChatRequest]:
    """The way to one model, and the request as it will be sent.

    Args:
        client: Keeps the connections.
        provider: The one to ask.
        request: What is asked.
        options: How it travels.
        breaker: The model's memory.
        even_offline: Whether a service that is gone may be tried.

    Raises:
        ConfigError: The request or an option cannot be used; nothing was sent.
    """
    key = usable_key(provider, options, even_offline)
    request = replace(request, messages=with_own_proofs(request.messages, provider.name))
    request = _supported(provider, request, options.unsupported or "error")
    encoded = provider.encode(request)

    def prepare(route: Route, call: Call) -> HTTPRequest:
        if options.base_url is not None:
            return http_request(provider, encoded, options, key, options.base_url)
        base_url, model = located(provider, request.model, call)
        route.model = model
        found = encoded if model == request.model else provider.encode(replace(request, model=model))
        return http_request(provider, found, options, key, checked_base_url(base_url))

    proxy: str | bool | None = False if provider.direct and options.base_url is None else options.proxy
    verify = True if options.verify is None else options.verify
    route = Route(
        provider,
        request.model,
        prepare,
        lambda: client.transport(options.session, proxy, verify),
        options.retries or Retry(),
        provider.answer_tool(request),
        breaker,
    )
    return route, request


def usable_key(provider: type[Provider], options: CallOptions, even_offline: bool = False) -> Secret | None:
    """The key to send, once it is sure that there is somewhere to send it.

    Raises:
        ConfigError: The service is gone, has no base URL, or needs a key that is missing.
    """
    if options.base_url is not None and provider.path and options.base_url.endswith(provider.path):
        raise ConfigError(f"base_url ends with {provider.path}, which is appended to it: leave it out")
    if provider.offline_since and options.base_url is None and not even_offline:
        raise ConfigError(
            f"{provider.name} has been offline since {provider.offline_since}: give base_url= to use another host "
            "that speaks its format",
            provider=provider.name,
        )
    if options.base_url is None and not provider.direct and not provider.resolve_base_url():
        variable = f", or set {provider.base_url_env}" if provider.base_url_env else ""
        raise ConfigError(
            f"{provider.name} needs a base_url=, like {provider.base_url_example}{variable}", provider=provider.name
        )
    return provider.find_key(options.api_key, options.base_url is not None)


def _supported(provider: type[Provider], request: ChatRequest, unsupported: str) -> ChatRequest:
    """The request without what the service is known to refuse.

    Raises:
        InvalidRequest: It holds something of that kind, and the caller wants to know.
    """
    for name in ("tools", "schema"):
        if getattr(request, name) and name not in provider.supports:
            raise InvalidRequest(f"{provider.name} knows no {name}", provider=provider.name, model=request.model)
    refused = provider.refusals(request)
    if not refused:
        return request
    reasons = "; ".join(f"{name}: {advice}" for name, advice in refused.items())
    message = f"{provider.name} refuses {', '.join(refused)} ({reasons})"
    if unsupported == "error":
        raise InvalidRequest(
            f"{message}; unsupported='drop' leaves it out", provider=provider.name, model=request.model
        )
    if unsupported == "warn":
        warnings.warn(f"{message}: left out", UnsupportedParameter, stacklevel=caller_level())
    kept = {name: value for name, value in request.params.items() if name not in refused}
    return replace(request, params=kept, tool_choice=None if "tool_choice" in refused else request.tool_choice)


def caller_level() -> int:
    """For a warning: how far up the stack the first frame is that is not llmbridge's own."""
    import sys

    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "llmbridge":
        level, frame = level + 1, frame.f_back
    return level
