"""A provider's two sides: the class interface of g4f, and the recipe that a new provider fills in.

`AsyncGeneratorProvider` is how a provider is used as a class. `Provider` is how one is written: some data and two pure
functions. `encode` makes the body of a request, `decode` reads a frame of the answer. Everything that all providers
share (network, framing, timeouts, retries, `async for`) is written once, elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, overload

from llmbridge._json import parsed_json, scan_json
from llmbridge.errors import ConfigError, MissingKey, ProtocolError
from llmbridge.events import End, Item, Usage
from llmbridge.messages import ChatRequest, Messages
from llmbridge.options import (
    CHAT_NAMES,
    OPTION_NAMES,
    TRANSPORT_NAMES,
    ChatOptions,
    Timeout,
    TransportOptions,
    checked_base_url,
)
from llmbridge.secret import Key, Secret, discreet

if TYPE_CHECKING:
    from llmbridge._aio import AsyncResult
    from llmbridge._call.framing import NDJSON, SSE, Framing
    from llmbridge._transport import Call
    from llmbridge.stream import ChatStream

__all__ = [
    "NDJSON", "SSE", "AsyncGeneratorProvider", "Encoded", "Frame", "Provider", "frame_json", "parsed_json", "scan_json",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Only what decodes an answer needs the framings."""
    if name not in ("NDJSON", "SSE"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llmbridge._call import framing

    return getattr(framing, name)


_READS = frozenset({"decode", "decoder", "framing", "decode_document"})
_USUAL: Mapping[str, tuple[Any, ...]] = {"n": (None, 1), "parallel_tool_calls": (None, True)}  # the services' defaults


class AsyncGeneratorProvider:
    """The interface of a provider used as a class, without an instance.

    Attributes:
        url: The service's home page.
        working: Whether the service is online.
        supports_gpt_35_turbo: Whether it offers that model.
    """

    url: ClassVar[str] = ""
    working: ClassVar[bool] = False
    supports_gpt_35_turbo: ClassVar[bool] = False

    @overload
    @classmethod
    def create_completion(
        cls, model: str, messages: Messages, stream: Literal[True] = True, **kwargs: Any
    ) -> Iterator[str]: ...
    @overload
    @classmethod
    def create_completion(cls, model: str, messages: Messages, stream: Literal[False], **kwargs: Any) -> str: ...
    @overload
    @classmethod
    def create_completion(cls, model: str, messages: Messages, stream: bool, **kwargs: Any) -> Iterator[str] | str: ...
    @classmethod
    @discreet
    def create_completion(
        cls, model: str, messages: Messages, stream: bool = True, **kwargs: Any
    ) -> Iterator[str] | str:
        """The answer, as a blocking generator of its pieces, or one str with `stream=False`.

        Args:
            model: The model's name.
            messages: A str, or a list of `{"role", "content"}`.
            stream: How the answer is handed out; the request is the same.
            **kwargs: `api_key`, `base_url`, `proxy`, `timeout`, `retries`, `headers`, `session` and `verify` are
                options of the transport; all others are parameters of the service, sent in the body.

        Raises:
            LLMBridgeError: See `llmbridge.errors`. Bad input raises at the call, everything else while iterating.

        Example:
            >>> from llmbridge.providers.demo import Demo
            >>> "demo" in "".join(Demo.create_completion("demo", "Hello"))
            True
        """
        answer = _stream(cls, model, messages, kwargs)
        return iter(answer) if stream else answer.complete().text

    @classmethod
    @discreet
    def create_async_generator(
        cls, model: str, messages: Messages, proxy: str | None = None, **kwargs: Any
    ) -> AsyncResult[str]:
        """The pieces of the answer for `async for`. You may also await the result, which returns itself.

        Args:
            model: The model's name.
            messages: A str, or a list of `{"role", "content"}`.
            proxy: URL of a proxy; it is not sent to the service.
            **kwargs: As for `create_completion`.

        Raises:
            LLMBridgeError: As for `create_completion`.

        Example:
            >>> import asyncio
            >>> from llmbridge.providers.demo import Demo
            >>> async def main():
            ...     return [piece async for piece in Demo.create_async_generator("demo", "Hello")]
            >>> "demo" in "".join(asyncio.run(main()))
            True
        """
        return _stream(cls, model, messages, {"proxy": proxy, **kwargs})._async_pieces()

    @classmethod
    @discreet
    def create_async(cls, model: str, messages: Messages, **kwargs: Any) -> Coroutine[Any, Any, str]:
        """Await it for the whole text of the answer.

        Args:
            model: The model's name.
            messages: A str, or a list of `{"role", "content"}`.
            **kwargs: As for `create_completion`.

        Raises:
            LLMBridgeError: As for `create_completion`. Bad input raises at the call, everything else when awaited.

        Example:
            >>> import asyncio
            >>> from llmbridge.providers.demo import Demo
            >>> "demo" in asyncio.run(Demo.create_async("demo", "Hello"))
            True
        """
        from llmbridge._aio import text_of

        return text_of(_stream(cls, model, messages, kwargs))


class Frame(Protocol):
    """One record of a stream: its text, and its event name ("message" where it has none)."""

    data: str
    event: str


class Encoded:
    """A request as a provider encodes it.

    Args:
        body: Sent as JSON.
        path: Appended to the base URL.
        headers: For this request only, in addition to the provider's own.
        base_url: Where to send it if the caller gives no base URL; "" for the provider's own.
    """

    __slots__ = ("base_url", "body", "headers", "path")

    def __init__(
        self, body: Mapping[str, Any], path: str, headers: Mapping[str, str] | None = None, base_url: str = ""
    ) -> None:
        self.body = body
        self.path = path
        self.headers = headers or {}
        self.base_url = base_url

    def with_extra(self, extra: Mapping[str, Any] | None) -> Encoded:
        """A copy with more fields in its body, which override it."""
        return Encoded({**self.body, **extra}, self.path, self.headers, self.base_url) if extra else self


class Provider(AsyncGeneratorProvider):
    """The recipe: a provider is a subclass with some data and two pure functions, `encode` and `decode`.

    Attributes:
        name: The part before the colon in `chat(model="name:model")`.
        base_url: The service's address; paths are appended. Empty if callers must give it.
        path: The path of its chat endpoint.
        key_env: Environment variables that may hold the API key, in order.
        base_url_example: An example, for the error about a missing base URL.
        base_url_env: The environment variable that may hold another base URL; "" for none.
        key_name: The provider whose key in the keys file is used; "" for its own.
        needs_key: Whether the service at `base_url` requires a key.
        default_model: The model if the caller names none; None if it must be named.
        headers: Sent with every request; a caller's headers override them.
        note: One line on the provider's state, for users.
        offline_since: The date on which the service shut down, or "".
        start_command: The command that starts a server of your own; "" for a service.
        direct: Whether to ignore the environment's proxies, as for a server inside the process.
        done_needs_finish: Whether to distrust an end mark without a finish reason if the body was cut short.
        supports: What its `encode` takes besides messages and parameters: "tools", "schema".
        refused: Parameters that the service is known to reject, each with what to do instead. See `refusals`.
        think_tags: Whether its models may write reasoning between `<think>` tags at the start of the answer.
        models_path: The path of the list of models (GET); "" if there is none.
        settings: Parameters that configure access to the service, like its API version. A client's settings are used
            for embeddings and the list of models as well.
        settings_env: The environment variable of each setting, used if the caller gives none.
        embeddings_batch: How many texts one embeddings request may hold; 0 if the service offers no embeddings.

    Example:
        >>> from llmbridge.providers.openai import OpenAI
        >>> class MyGateway(OpenAI):
        ...     name = "mygateway"
        ...     base_url = "https://llm.example.com/v1"
        ...     key_env = ("MYGATEWAY_KEY",)
        >>> from llmbridge import register
        >>> register(MyGateway) is MyGateway
        True
    """

    working: ClassVar[bool] = True
    name: ClassVar[str] = ""
    base_url: ClassVar[str] = ""
    path: ClassVar[str] = ""
    key_env: ClassVar[tuple[str, ...]] = ()
    base_url_example: ClassVar[str] = "http://127.0.0.1:8080/v1"
    base_url_env: ClassVar[str] = ""
    key_name: ClassVar[str] = ""
    needs_key: ClassVar[bool] = False
    default_model: ClassVar[str | None] = None
    headers: ClassVar[Mapping[str, str]] = {}
    note: ClassVar[str] = ""
    offline_since: ClassVar[str] = ""
    start_command: ClassVar[str] = ""
    direct: ClassVar[bool] = False
    done_needs_finish: ClassVar[bool] = False
    supports: ClassVar[frozenset[str]] = frozenset()
    refused: ClassVar[Mapping[str, str]] = {}
    think_tags: ClassVar[bool] = False
    models_path: ClassVar[str] = ""
    settings: ClassVar[frozenset[str]] = frozenset()
    settings_env: ClassVar[Mapping[str, str]] = {}
    embeddings_batch: ClassVar[int] = 0

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        """The body and path of a request. Pure: no time, no environment, no network."""
        raise NotImplementedError(f"{cls.__name__} lacks encode()")

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[Item | End]:
        """The content of a frame, in order: a str is a piece of the answer, `END` the dialect's end mark.

        Raises:
            ServiceError: The frame reports an error; see `llmbridge.service_errors.error_in_stream`.
            ProtocolError: The frame breaks the dialect's rules.
        """
        raise NotImplementedError(f"{cls.__name__} lacks decode()")

    @classmethod
    def decoder(cls) -> Callable[[Frame], Iterable[Item | End]]:
        """The function that reads the events of one answer: `decode`, unless events depend on earlier ones."""
        return cls.decode

    @classmethod
    def decode_document(cls, document: Any) -> Iterable[Item | End]:
        """The content of a whole JSON answer, sent instead of a stream; errors as for `decode`."""
        raise ProtocolError("the service answered with one JSON document instead of a stream")

    @classmethod
    def answers_whole(cls) -> bool:
        """Whether it takes `stream=False` for a whole answer: its `decode_document` reads what its `decode` does.

        A subclass that overrides only the reading of streams may find in them what a document does not hold there.
        """
        for kind in cls.__mro__:
            if reads := _READS & vars(kind).keys():
                return kind is not Provider and "decode_document" in reads
        return False

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        """The request's parameters that the service is known to reject, each with what to do instead. Pure.

        May include `tool_choice`, but not `n=1` and `parallel_tool_calls=True`, which are the default anyway.
        """
        given = request.params
        return {
            name: advice
            for name, advice in cls.refused.items()
            if name in given and given[name] not in _USUAL.get(name, ())
        }

    @classmethod
    def answer_tool(cls, request: ChatRequest) -> str | None:
        """The tool that `encode` adds so that the model writes its structured answer as arguments; None if none."""
        return None

    @classmethod
    def encode_models(cls, settings: Mapping[str, Any]) -> Encoded:
        """The path and headers of a request for the list of models. Pure.

        Args:
            settings: Those that `settings` names.
        """
        return Encoded({}, cls.models_path)

    @classmethod
    def decode_models(cls, document: Any) -> list[str]:
        """The model names in the answer from `models_path`.

        Raises:
            ProtocolError: It is not a list of models.
        """
        raise ProtocolError(f"{cls.name} lists no models")

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        """The body and path of an embeddings request. Pure.

        Args:
            model: The model's name.
            texts: At least one, at most `embeddings_batch`.
            params: `dimensions` is translated, all others sent unchanged.
        """
        raise NotImplementedError(f"{cls.__name__} offers no embeddings")

    @classmethod
    def decode_embeddings(cls, document: Any) -> tuple[list[list[float]], Usage | None]:
        """The vectors in an answer, in the order of the texts, and the counted tokens.

        Raises:
            ServiceError: The document reports an error.
            ProtocolError: It has no embeddings.
        """
        raise NotImplementedError(f"{cls.__name__} offers no embeddings")

    @classmethod
    def with_settings(cls, params: Mapping[str, Any], elsewhere: bool) -> Mapping[str, Any]:
        """The parameters of a request, completed by settings from the environment.

        Args:
            params: As the caller gave them.
            elsewhere: Whether the caller gave a base URL.

        Raises:
            ConfigError: A setting that the service needs is missing.
        """
        if not cls.settings_env:
            return params
        held = {name: os.environ.get(variable, "").strip() for name, variable in cls.settings_env.items()}
        return {**{name: value for name, value in held.items() if value}, **params}

    @classmethod
    def locate(cls, model: str) -> tuple[str, str]:
        """The base URL and the model's name when sending, if the caller gives no base URL. May block."""
        return cls.resolve_base_url(), model

    @classmethod
    def locate_during(cls, call: Call, model: str) -> tuple[str, str]:
        """`locate` within a call. Override it if the search takes long, so that it stops when the call ends."""
        return cls.locate(model)

    @classmethod
    def searches(cls) -> bool:
        """Whether `locate` is overridden, and may take a while."""
        plain = Provider.locate.__func__, Provider.locate_during.__func__  # type: ignore[attr-defined]
        return (cls.locate.__func__, cls.locate_during.__func__) != plain  # type: ignore[attr-defined]

    @classmethod
    def path_below(cls, base_url: str, path: str) -> str:
        """The path appended to the base URL, if it depends on the base URL.

        Args:
            base_url: Without a slash at its end.
            path: From `encode`.
        """
        return path

    @classmethod
    def framing(cls) -> Framing:
        """How the answer's bytes become frames: `SSE()` by default, or `NDJSON()`, both of this module."""
        from llmbridge._call.framing import SSE

        return SSE()

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        """The headers that carry the API key."""
        return {"Authorization": f"Bearer {key}"}

    @classmethod
    def token_headers(cls, key: str) -> dict[str, str]:
        """The headers that carry a token from a function given as `api_key`, if they differ from a key's."""
        return cls.auth_headers(key)

    @classmethod
    def address_variables(cls) -> tuple[str, ...]:
        """The environment variables that may hold the service's address."""
        return (cls.base_url_env,) if cls.base_url_env else ()

    @classmethod
    def resolve_base_url(cls) -> str:
        """The base URL if the caller gives none: from the environment, or the service's own.

        Raises:
            ConfigError: The environment's is not a valid base URL; the message names the variable.
        """
        given = os.environ.get(cls.base_url_env, "").strip() if cls.base_url_env else ""
        return checked_base_url(given, f"the environment variable {cls.base_url_env}") if given else cls.base_url

    @classmethod
    def key_at(cls, base_url: str) -> Key | None:
        """The key for the server that `locate` found, if `find_key` has none."""
        return None

    @classmethod
    def find_key(cls, api_key: Secret | None, elsewhere: bool) -> Key | None:
        """The API key: the argument, the first of `key_env` that is set, or from the keys file.

        Args:
            api_key: The caller's. (A function is called elsewhere.)
            elsewhere: Whether the caller gave a base URL: a server of your own may need no key.

        Raises:
            MissingKey: There is none, and the service needs one.
            ConfigError: It cannot be a key (it is not quoted), or the keys file is not usable; where no key is
                needed, the latter is only a warning.
        """
        if api_key is not None:
            return api_key
        for variable in cls.key_env:
            if value := os.environ.get(variable, "").strip():
                return Secret(value, variable)
        needed = cls.needs_key and not elsewhere
        if not cls.direct:
            from llmbridge.keys import key_if_usable, stored_key

            if (stored := (stored_key if needed else key_if_usable)(cls.key_name or cls.name)) is not None:
                return stored
        if needed:
            variables = " or ".join(cls.key_env)
            raise MissingKey(
                f"{cls.name} needs an API key: set the environment variable {variables}, pass api_key=, "
                f"or run: llmbridge keys set {cls.key_name or cls.name}",
                provider=cls.name,
            )
        return None


def frame_json(frame: Frame) -> dict[str, Any]:
    """The JSON object in a frame.

    Raises:
        ProtocolError: It holds something else.
    """
    value = parsed_json(frame.data)
    if not isinstance(value, dict):
        raise ProtocolError(f"expected a JSON object in a stream event, got {type(value).__name__}")
    return value


def _stream(
    provider: type[AsyncGeneratorProvider], model: str, messages: Messages, kwargs: Mapping[str, Any]
) -> ChatStream:
    """The answer of a provider used as a class: keywords that are not transport options are parameters of the
    service."""
    from llmbridge._call.pipeline import Pipeline
    from llmbridge._call.route import SHARED, chat_route
    from llmbridge.stream import ChatStream

    if not issubclass(provider, Provider):
        raise ConfigError(f"{provider.__name__} is not an llmbridge.Provider subclass (it needs encode() and decode())")
    options = TransportOptions.checked(**{name: kwargs[name] for name in TRANSPORT_NAMES if name in kwargs})
    params = {name: value for name, value in kwargs.items() if name not in OPTION_NAMES}
    taken = {*provider.settings, *provider.refused}
    chat = ChatOptions.checked(params, lambda: taken, **{name: kwargs[name] for name in CHAT_NAMES if name in kwargs})
    request = ChatRequest.checked(model, messages, chat.params)
    route, request = chat_route(
        provider, request, options, SHARED, unsupported=chat.unsupported, extra=chat.extra, even_offline=True
    )
    pipeline = Pipeline([route], options.timeout or Timeout())
    return ChatStream(pipeline, request.schema, keep_logprobs=chat.wants_logprobs, tools=request.tools, idle=True)
