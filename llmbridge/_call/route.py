"""The route of a call: a model of a provider, its request, and the state that a client's calls share."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from llmbridge._locks import keep_lock_free, monotonic
from llmbridge._version import __version__
from llmbridge.errors import (
    BadRequest,
    Cancelled,
    ConfigError,
    ContentFiltered,
    InvalidRequest,
    LLMBridgeError,
    ServiceError,
    UnsupportedParameter,
)
from llmbridge.messages import ChatRequest, with_own_proofs
from llmbridge.options import TransportOptions, Unsupported, checked_base_url, warn_caller
from llmbridge.retry import Retry
from llmbridge.secret import KeyFunction, MaskedStr, masked

if TYPE_CHECKING:
    import requests

    from llmbridge._transport import Call, HTTPRequest, Transport
    from llmbridge.limits import Limiter, Limits
    from llmbridge.provider import Encoded, Provider
    from llmbridge.secret import Key, Secret

__all__ = ["SHARED", "TRAVELLERS", "Breaker", "Connections", "Route", "chat_route"]

COOL_DOWN = 30.0
"""Seconds for which a failed model is skipped, unless its service says how long."""

_LONGEST = 600.0
_TRANSPORTS = 32  # transports whose connections are kept
_BREAKERS = 256  # models with fallbacks whose last failures are remembered
_TRAVELLERS = 64  # pickled clients whose limits and cool-downs are kept
_USER_AGENT = f"llmbridge/{__version__}"
_NEVER = float("-inf")
_RETRY = Retry()


class Breaker:
    """Remembers that a model failed, so that the next calls skip it. Shared between threads.

    Closed, it lets all calls pass. A failure opens it for a cool-down; then one call is let through as a trial, which
    closes it or opens it again. A trial that never reports (its process was forked, say) is followed by another one
    after a further cool-down.

    Nothing in here waits for the lock: a garbage collection may end another call, which then calls back into here.

    Args:
        clock: Seconds; another one for tests.

    Example:
        >>> breaker = Breaker(clock=lambda: 0.0)
        >>> breaker.admits()
        True
        >>> breaker.failed(LLMBridgeError("down"))
        >>> breaker.admits()
        False
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._open_until: float | None = None
        self._trial_until = _NEVER
        self._trial: object = None
        self._lock: threading.Lock
        keep_lock_free(self)

    def admits(self, call: object = None) -> bool:
        """Whether a call may try. One that is let through must report the outcome: succeeded, failed or gave_up.

        Args:
            call: Anything that identifies it; pass it to `failed` and `gave_up`.
        """
        open_until = self._open_until
        if open_until is None:
            return True
        if self._lock.locked():
            return False  # another call is about to become the trial
        with self._lock:  # no `acquire` before a `try`: a Ctrl-C between the two would leave it locked forever
            now = self._clock()
            if now < max(open_until, self._trial_until):
                return False
            self._trial, self._trial_until = call, now + COOL_DOWN
            return True

    def succeeded(self) -> None:
        """The model has answered."""
        self._open_until = None
        self._trial_until = _NEVER

    def failed(self, error: LLMBridgeError, call: object = None) -> None:
        """The model failed. An error of the request itself says nothing about the model."""
        if not _counts(error):
            self.gave_up(call)
            return
        wait = error.retry_after if isinstance(error, ServiceError) else None
        until = self._clock() + min(COOL_DOWN if wait is None else wait, _LONGEST)
        self._open_until = max(self._open_until or _NEVER, until)
        self._trial_until = _NEVER

    def gave_up(self, call: object = None) -> None:
        """The call ended without an outcome. Only the call that is the trial gives it up."""
        if self._trial is call:
            self._trial_until = _NEVER


def _counts(error: LLMBridgeError) -> bool:
    return not isinstance(error, (BadRequest, ContentFiltered, ConfigError, Cancelled))


_UNUSED = Breaker()


class Connections:
    """The state that a client's calls share. Belongs to one process; safe to share between its threads.

    Args:
        limits: The client's own rate limits; None for no limits.

    Attributes:
        transports: Those with kept connections, by proxy and verify.
        breakers: By model.
        limiter: Applies the limits; None without limits.
        name: Identifies them in pickles; None before the first one. See `TRAVELLERS`.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.name: str | None = None
        self.transports: dict[Any, Transport] = {}
        self.breakers: dict[str, Breaker] = {}
        self._lock: threading.Lock
        keep_lock_free(self)
        self.limiter: Limiter | None = None
        if limits is not None:
            from llmbridge.limits import Limiter

            self.limiter = Limiter(limits)

    def transport(self, session: requests.Session | None, proxy: str | bool | None, verify: bool | str) -> Transport:
        """The transport for these settings; calls with the same ones share their connections."""
        if isinstance(proxy, str):
            proxy = MaskedStr(proxy)  # or showing this object would show the keys of its dict
        if session is None and (kept := self.transports.get((proxy, verify))) is not None:
            return kept
        from llmbridge._transport import Transport

        made = Transport(session, proxy, verify)
        if session is not None:
            return made
        with self._lock:
            if len(self.transports) >= _TRANSPORTS:
                self.transports.pop(next(iter(self.transports))).close()
            return self.transports.setdefault((proxy, verify), made)

    def breaker_of(self, model: str) -> Breaker:
        """The breaker that remembers how a model did lately."""
        with self._lock:
            breaker = self.breakers.get(model)
            if breaker is None:
                if len(self.breakers) >= _BREAKERS:
                    del self.breakers[next(iter(self.breakers))]
                breaker = self.breakers[model] = Breaker()
            return breaker

    def close(self) -> None:
        """Closes the kept connections. New ones are made when they are needed."""
        with self._lock:
            transports = list(self.transports.values())
            self.transports.clear()
        for transport in transports:
            transport.close()


SHARED = Connections()
"""The state of the module's functions, and of providers that are used as classes."""


class _Travellers:
    """The shared state of clients that were unpickled from the same client."""

    def __init__(self) -> None:
        self._alive: WeakValueDictionary[str, Connections] = WeakValueDictionary()
        self._memories: OrderedDict[str, tuple[Limiter | None, dict[str, Breaker]]] = OrderedDict()
        self._lock: threading.Lock
        keep_lock_free(self)

    def name_of(self, connections: Connections) -> str:
        """The name of this state in pickles."""
        with self._lock:
            if connections.name is None:
                connections.name = os.urandom(16).hex()
                self._alive[connections.name] = connections
            self._remember(connections.name, connections)
            return connections.name

    def named(self, name: str, limits: Limits | None) -> Connections:
        """The state of that name in this process.

        A worker often drops a client before it unpickles the next: limits and cool-downs are kept longer than that.
        Connections are not, since they would stay open.
        """
        made = Connections(limits)
        with self._lock:
            found = self._alive.get(name)
            if found is None:
                found, made.name = made, name
                self._alive[name] = made
                made.limiter, made.breakers = self._memories.get(name, (made.limiter, made.breakers))
            self._remember(name, found)
            return found

    def _remember(self, name: str, connections: Connections) -> None:
        self._memories[name] = connections.limiter, connections.breakers
        self._memories.move_to_end(name)
        if len(self._memories) > _TRAVELLERS:
            self._memories.popitem(last=False)


TRAVELLERS = _Travellers()


class Route:
    """One model of one provider.

    Args:
        provider: Receives the request, and decodes the answer.
        model: The model's name; "" if there is none.
        encode: Makes path and body from the model's name at the time of sending.
        options: The transport options.
        connections: Keeps the connections.
        method: POST or GET.
        even_offline: Whether a service that has shut down may be tried.
        read: Takes the one JSON document that is the answer; None for a chat, whose answer the provider decodes.
        answer_tool: The tool whose arguments are the answer's text, if there is one.
        breaker: Remembers failures, if there are several models to choose from.

    Attributes:
        retry: When to try again.
        limiter: Of its own client, if that has limits; it replaces the one of the call.
        key_changes: Whether the key comes from a function, so that each attempt needs a new request.

    Raises:
        ConfigError: There is no base URL, or the key is missing.
    """

    __slots__ = (
        "_asked", "_connections", "_encode", "_key", "_method", "_options", "answer_tool", "breaker", "key_changes",
        "limiter", "model", "provider", "read", "retry",
    )  # fmt: skip

    def __init__(
        self,
        provider: type[Provider],
        model: str,
        encode: Callable[[str], Encoded],
        options: TransportOptions,
        connections: Connections,
        *,
        method: str = "POST",
        even_offline: bool = False,
        read: Callable[[Any], object] | None = None,
        answer_tool: str | None = None,
        breaker: Breaker | None = None,
    ) -> None:
        self.provider = provider
        self.model = model
        self.read = read
        self.answer_tool = answer_tool
        self.breaker = breaker or _UNUSED
        self.retry = options.retries or _RETRY
        self.limiter: Limiter | None = None
        self._asked = model
        self._encode = encode
        self._options = options
        self._connections = connections
        self._method = method
        self._key = usable_key(provider, options, even_offline)
        self.key_changes = isinstance(self._key, KeyFunction)

    @property
    def may_block(self) -> bool:
        """Whether `request` may take a while."""
        return self.key_changes or (self._options.base_url is None and self.provider.searches())

    def request(self, call: Call) -> HTTPRequest:
        """The request as it is now. May block, within the limits of the call."""
        provider, options, base_url, key = self.provider, self._options, self._options.base_url, self._key
        if base_url is None:
            base_url, self.model = provider.locate_during(call, self._asked)
            base_url = checked_base_url(base_url)
            key = key or provider.key_at(base_url)
        encoded = self._encode(self.model)
        if options.base_url is None and encoded.base_url:
            base_url = encoded.base_url
        return http_request(provider, encoded, options, _auth(provider, key, call), base_url, self._method)

    def transport(self) -> Transport:
        """What sends it."""
        options = self._options
        proxy: str | bool | None = False if self.provider.direct and options.base_url is None else options.proxy
        verify = True if options.verify is None else options.verify
        return self._connections.transport(options.session, proxy, verify)

    def key_from(self) -> str:
        """Where the key came from, for an error; "" if there is none."""
        return _origin(self.provider, self._key, self._options)


_KEYS_OF = {"sk-ant-": "anthropic", "sk-or-": "openrouter", "AIza": "gemini", "gsk_": "groq", "xai-": "xai"}


def _origin(provider: type[Provider], key: Key | None, options: TransportOptions) -> str:
    """Where a key came from, and whose it looks like if not this service's; never the key itself."""
    if key is None:
        return ""
    if isinstance(key, KeyFunction):
        return "the function given as api_key"
    variables = () if options.api_key is not None else provider.key_env
    found = next((name for name in variables if os.environ.get(name, "").strip()), "")
    origin = "api_key=" if options.api_key is not None else found or "the keys file"
    like = next((name for start, name in _KEYS_OF.items() if key.reveal().startswith(start)), "")
    return f"{origin}, and looks like one of {like}" if like and like not in provider.name else origin


def chat_route(
    provider: type[Provider],
    request: ChatRequest,
    options: TransportOptions,
    connections: Connections,
    *,
    unsupported: Unsupported | None = None,
    extra: Mapping[str, Any] | None = None,
    even_offline: bool = False,
    breaker: Breaker | None = None,
) -> tuple[Route, ChatRequest]:
    """The route of a chat to a model, and the request as it will be sent.

    Args:
        provider: Receives the request.
        request: The chat.
        options: The transport options.
        connections: Keeps the connections.
        unsupported: What happens to a parameter that the service is known to reject.
        extra: Added to the body unchanged.
        even_offline, breaker: As for `Route`.

    Raises:
        ConfigError: The request or an option cannot be used; nothing was sent.
    """
    messages = with_own_proofs(request.messages, provider.name)
    if messages is not request.messages:
        request = replace(request, messages=messages)
    request = _supported(provider, request, unsupported or "error")
    params = provider.with_settings(request.params, options.base_url is not None)
    if params is not request.params:
        request = replace(request, params=params)
    route = Route(
        provider,
        request.model,
        partial(_encoded_for, _encoded(provider, request, extra), provider, request, extra),
        options,
        connections,
        even_offline=even_offline,
        answer_tool=provider.answer_tool(request),
        breaker=breaker,
    )
    return route, request


def _encoded_for(
    encoded: Encoded, provider: type[Provider], request: ChatRequest, extra: Mapping[str, Any] | None, model: str
) -> Encoded:
    """What was encoded, unless it goes to another model now."""
    return encoded if model == request.model else _encoded(provider, replace(request, model=model), extra)


def _encoded(provider: type[Provider], request: ChatRequest, extra: Mapping[str, Any] | None) -> Encoded:
    encoded = provider.encode(request).with_extra(extra)
    if request.params.get("stream") is False:
        encoded.headers = {"Accept": "application/json", **encoded.headers}
    return encoded


def usable_key(provider: type[Provider], options: TransportOptions, even_offline: bool = False) -> Key | None:
    """The key to use, once it is certain that there is somewhere to send it.

    Raises:
        ConfigError: The service has shut down, has no base URL, or needs a key that is missing.
    """
    if options.base_url is not None and provider.path and options.base_url.endswith(provider.path):
        raise ConfigError(f"base_url ends with {provider.path}, which llmbridge appends itself: leave it out")
    if provider.offline_since and options.base_url is None and not even_offline:
        raise ConfigError(
            f"{provider.name} has been offline since {provider.offline_since}: give base_url= to use another host "
            "that speaks its format",
            provider=provider.name,
        )
    if options.base_url is None and not provider.direct and not provider.resolve_base_url():
        variables = " or ".join(provider.address_variables())
        variable = f", or set {variables}" if variables else ""
        raise ConfigError(
            f"{provider.name} needs a base_url=, like {provider.base_url_example}{variable}", provider=provider.name
        )
    if isinstance(options.api_key, KeyFunction):
        return options.api_key
    return provider.find_key(options.api_key, options.base_url is not None)


def _supported(provider: type[Provider], request: ChatRequest, unsupported: str) -> ChatRequest:
    """The request without the parameters that the service is known to reject.

    Raises:
        InvalidRequest: It holds such a parameter, and the caller wants an error.
    """
    for name in ("tools", "schema"):
        if getattr(request, name) and name not in provider.supports:
            message = f"{provider.name} does not support {name}"
            raise InvalidRequest(message, provider=provider.name, model=request.model)
    refused = provider.refusals(request)
    if not refused:
        return request
    reasons = "; ".join(f"{name}: {advice}" for name, advice in refused.items())
    message = f"{provider.name} rejects {', '.join(refused)} ({reasons})"
    if unsupported == "error":
        raise InvalidRequest(
            f"{message}; unsupported='drop' leaves it out", provider=provider.name, model=request.model
        )
    if unsupported == "warn":
        warn_caller(f"{message}: left out", UnsupportedParameter)
    kept = {name: value for name, value in request.params.items() if name not in refused}
    return replace(request, params=kept, tool_choice=None if "tool_choice" in refused else request.tool_choice)


@dataclass(frozen=True, slots=True)
class _Auth:
    """The key of one request, and the headers that carry it."""

    key: Secret
    headers: Mapping[str, str]


def _auth(provider: type[Provider], key: Key | None, call: Call) -> _Auth | None:
    """The current key; calls a function for it, within the limits of the call."""
    headers_of = provider.auth_headers
    if isinstance(key, KeyFunction):
        from llmbridge._call.fresh_key import fresh_key

        key, headers_of = fresh_key(key, call), provider.token_headers
    if key is None:
        return None
    try:
        return _Auth(key, {name: MaskedStr(value) for name, value in headers_of(key.reveal()).items()})
    except BaseException as error:
        from llmbridge._tools.runs import drop_frames

        drop_frames(error, f"{provider.__name__}.{headers_of.__name__}()")  # the provider's frames hold the key as well
        raise error  # noqa: TRY201 - as in `discreet`


def http_request(
    provider: type[Provider],
    encoded: Encoded,
    options: TransportOptions,
    auth: _Auth | None,
    base_url: str,
    method: str = "POST",
) -> HTTPRequest:
    """The request with all its headers.

    Args:
        provider: Adds its headers.
        encoded: Path, body and headers of this request.
        options: The caller's headers override all others.
        auth: None for no key.
        base_url: The path is appended to it.
        method: POST, or GET for a request without a body.
    """
    from llmbridge._transport import HTTPRequest, passwords_of

    # Identity: a compressing proxy would hold the pieces back until its buffer is full.
    usual = {
        "User-Agent": _USER_AGENT,
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Content-Type": "application/json",
    }
    secrets = [*passwords_of(base_url)]
    given: list[Mapping[str, str | None]] = [usual, provider.headers, encoded.headers]
    if auth is not None:
        secrets.append(auth.key.reveal())
        given.append(auth.headers)
    if options.headers:
        sensitive = [value for value in options.headers.values() if isinstance(value, MaskedStr)]
        secrets += [word for value in sensitive for word in value.reveal().split()]
        given.append(options.headers)
    if method == "GET":
        given.append({"Content-Type": None})
    # Names are the same in any case: the last value counts, in its spelling.
    headers = {name.lower(): (name, value) for some in given for name, value in some.items()}
    return HTTPRequest(
        base_url + provider.path_below(base_url, encoded.path),
        {name: value for name, value in headers.values() if value is not None},
        encoded.body,
        masked(secrets),
        method,
        base_url,
    )
