"""The two things a provider is: the ancestors' interface, and the recipe by which llmbridge carries it out.

`AsyncGeneratorProvider` is how a provider is used as a class. `Provider` is how one is written: some data, and two pure
functions: `encode` makes the body of a request, `decode` says what a frame of the answer means. Everything that is the
same for all of them (the network, framing, time limits, retries, `async for`) stands elsewhere, once.
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
    from llmbridge._call.framing import Framing
    from llmbridge._transport import Call
    from llmbridge.stream import ChatStream

__all__ = ["AsyncGeneratorProvider", "Encoded", "Frame", "Provider", "frame_json", "parsed_json", "scan_json"]

_USUAL: Mapping[str, tuple[Any, ...]] = {"n": (None, 1), "parallel_tool_calls": (None, True)}  # what all services do


class AsyncGeneratorProvider:
    """The interface of a provider that is used as a class, without an instance.

    Attributes:
        url: The service's home page.
        working: Whether the service answers these days.
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
        """The answer, as a blocking generator of its pieces, or joined with `stream=False`.

        Args:
            model: The model's name.
            messages: A str, or a list of `{"role", "content"}`.
            stream: Only how the answer is handed out: what is sent is the same.
            **kwargs: `api_key`, `base_url`, `proxy`, `timeout`, `retries`, `headers`, `session` and `verify` say how
                the request travels; all others are parameters of the service, sent in the body.

        Raises:
            LLMBridgeError: See `llmbridge.errors`. Bad input is refused at the call, everything else while iterating.

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
        """The pieces of the answer for `async for`; awaiting the result gives the result itself.

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
            LLMBridgeError: As for `create_completion`; all but bad input when it is awaited.

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
    """What a provider makes of a request.

    Args:
        body: Sent as JSON.
        path: Appended to the base URL.
        headers: Those of this request alone, beside the provider's own.
        base_url: Where it goes if the caller gives no base URL; "" for the provider's own.
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
        """The same with more fields in its body, which win."""
        return Encoded({**self.body, **extra}, self.path, self.headers, self.base_url) if extra else self


class Provider(AsyncGeneratorProvider):
    """The recipe. A provider is a subclass with some data and two pure functions, `encode` and `decode`.

    Attributes:
        name: What stands before the colon in `chat(model="name:model")`.
        base_url: Where the service lives; paths are appended. Empty if a caller must give it.
        path: The path of its chat endpoint.
        key_env: Environment variables that may hold the API key, in order.
        base_url_example: What a base URL looks like, for the error that asks for one.
        base_url_env: The environment variable that may hold another base URL; "" for none.
        key_name: Under which provider's name its key is kept in the keys file; "" for its own.
        needs_key: Whether the service at `base_url` refuses to work without a key.
        default_model: The model if the caller names none; None if it must be named.
        headers: Sent with every request; a caller's own win.
        note: One line on the provider's state, for people.
        offline_since: When the service went away for good, or "".
        start_command: What starts a server of one's own; "" for a service.
        direct: Whether no proxy of the environment may stand between, as for a server inside the process.
        done_needs_finish: Whether an end mark without a reason to finish is to be doubted when the body was cut short.
        supports: What beside messages and parameters its `encode` takes: "tools", "schema".
        refused: Parameters that the service is known to refuse, each with what to do instead. See `refusals`.
        think_tags: Whether its models may write their reasoning between `<think>` tags at the start of the answer.
        models_path: The path that lists the service's models, asked with GET; "" if there is none.
        settings: Parameters that say how the service is asked (the version of its API), not what; those of a client
            count for embeddings and the list of models as well.
        settings_env: Environment variables that hold those settings that nobody gives, by setting.
        embeddings_batch: How many texts one request for embeddings may hold; 0 if the service makes none.

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
        """The body and path for a request. Pure: no clock, no environment, no network."""
        raise NotImplementedError(f"{cls.__name__} lacks encode()")

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[Item | End]:
        """What a frame of the stream says, in order: a str is a piece of the answer, `END` the dialect's end mark.

        Raises:
            ServiceError: The frame reports an error; see `llmbridge.service_errors.error_in_stream`.
            ProtocolError: The frame is not what the dialect promises.
        """
        raise NotImplementedError(f"{cls.__name__} lacks decode()")

    @classmethod
    def decoder(cls) -> Callable[[Frame], Iterable[Item | End]]:
        """What reads the events of one answer; `decode` unless an event means something only by those before it."""
        return cls.decode

    @classmethod
    def decode_document(cls, document: Any) -> Iterable[Item | End]:
        """What a whole JSON answer says, sent where a stream was asked for; errors as for `decode`."""
        raise ProtocolError("the service answered with one JSON document instead of a stream")

    @classmethod
    def refusals(cls, request: ChatRequest) -> Mapping[str, str]:
        """The parameters of a request that the service is known to refuse, each with what to do instead. Pure.

        `tool_choice` may be among them. `n=1` and `parallel_tool_calls=True` are not: they ask for nothing special.
        """
        given = request.params
        return {
            name: advice
            for name, advice in cls.refused.items()
            if name in given and given[name] not in _USUAL.get(name, ())
        }

    @classmethod
    def answer_tool(cls, request: ChatRequest) -> str | None:
        """The tool that `encode` invents so that the model writes its structured answer as arguments; None if none."""
        return None

    @classmethod
    def encode_models(cls, settings: Mapping[str, Any]) -> Encoded:
        """The path and headers that ask for the list of models. Pure.

        Args:
            settings: Of those that `settings` names.
        """
        return Encoded({}, cls.models_path)

    @classmethod
    def decode_models(cls, document: Any) -> list[str]:
        """The names of the models that the answer from `models_path` lists.

        Raises:
            ProtocolError: It is no list of models.
        """
        raise ProtocolError(f"{cls.name} lists no models")

    @classmethod
    def encode_embeddings(cls, model: str, texts: Sequence[str], params: Mapping[str, Any]) -> Encoded:
        """The body and path that ask for the embeddings of the texts. Pure.

        Args:
            model: The model's name.
            texts: At least one, at most `embeddings_batch`.
            params: `dimensions` is translated, all others sent as given.
        """
        raise NotImplementedError(f"{cls.__name__} makes no embeddings")

    @classmethod
    def decode_embeddings(cls, document: Any) -> tuple[list[list[float]], Usage | None]:
        """The vectors in an answer, in the order of the texts, and the tokens that were counted.

        Raises:
            ServiceError: The document reports an error.
            ProtocolError: It holds no embeddings.
        """
        raise NotImplementedError(f"{cls.__name__} makes no embeddings")

    @classmethod
    def with_settings(cls, params: Mapping[str, Any], elsewhere: bool) -> Mapping[str, Any]:
        """The parameters of a request, with the settings that the environment holds where the caller gives none.

        Args:
            params: As the caller gave them.
            elsewhere: Whether the caller gave a base URL.

        Raises:
            ConfigError: One is missing that the service needs.
        """
        if not cls.settings_env:
            return params
        held = {name: os.environ.get(variable, "").strip() for name, variable in cls.settings_env.items()}
        return {**{name: value for name, value in held.items() if value}, **params}

    @classmethod
    def locate(cls, model: str) -> tuple[str, str]:
        """The base URL and the model's name at the time of sending, where the caller gives no base URL. May block."""
        return cls.resolve_base_url(), model

    @classmethod
    def locate_during(cls, call: Call, model: str) -> tuple[str, str]:
        """`locate` within a call. Override it if the search may take long, so that it stops when the call ends."""
        return cls.locate(model)

    @classmethod
    def searches(cls) -> bool:
        """Whether `locate` is not the plain one, and may take a while."""
        plain = Provider.locate.__func__, Provider.locate_during.__func__  # type: ignore[attr-defined]
        return (cls.locate.__func__, cls.locate_during.__func__) != plain  # type: ignore[attr-defined]

    @classmethod
    def path_below(cls, base_url: str, path: str) -> str:
        """What is appended to the base URL, where that decides about the path.

        Args:
            base_url: Without a slash at its end.
            path: As it was encoded.
        """
        return path

    @classmethod
    def framing(cls) -> Framing:
        """How the answer's bytes become frames; server-sent events unless a provider says otherwise."""
        from llmbridge._call.framing import SSE

        return SSE()

    @classmethod
    def auth_headers(cls, key: str) -> dict[str, str]:
        """The headers that carry the API key."""
        return {"Authorization": f"Bearer {key}"}

    @classmethod
    def token_headers(cls, key: str) -> dict[str, str]:
        """The headers that carry what a function given as `api_key` returned, where a token is not sent like a key."""
        return cls.auth_headers(key)

    @classmethod
    def address_variables(cls) -> tuple[str, ...]:
        """The environment variables that may say where the service is."""
        return (cls.base_url_env,) if cls.base_url_env else ()

    @classmethod
    def resolve_base_url(cls) -> str:
        """The base URL where the caller gives none: the environment's, or the service's own.

        Raises:
            ConfigError: The environment's is no base URL; the message names the variable.
        """
        given = os.environ.get(cls.base_url_env, "").strip() if cls.base_url_env else ""
        return checked_base_url(given, f"the environment variable {cls.base_url_env}") if given else cls.base_url

    @classmethod
    def key_at(cls, base_url: str) -> Key | None:
        """The key for the server that `locate` has found, where `find_key` gives none."""
        return None

    @classmethod
    def find_key(cls, api_key: Secret | None, elsewhere: bool) -> Key | None:
        """The API key: the argument, the first of `key_env` that is set, or the one in the keys file.

        Args:
            api_key: The caller's; a function of the caller's is asked without a look in here.
            elsewhere: Whether the caller gave a base URL: a server of one's own may need no key.

        Raises:
            MissingKey: There is none and the service needs one.
            ConfigError: It cannot be a key; it is not quoted. Or the keys file cannot be used, which is only worth a
                warning where no key is needed.
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
                f"or type: llmbridge keys set {cls.key_name or cls.name}",
                provider=cls.name,
            )
        return None


def frame_json(frame: Frame) -> dict[str, Any]:
    """The JSON object that a frame holds.

    Raises:
        ProtocolError: It holds none.
    """
    value = parsed_json(frame.data)
    if not isinstance(value, dict):
        raise ProtocolError(f"an event of the stream is no JSON object, but {type(value).__name__}")
    return value


def _stream(
    provider: type[AsyncGeneratorProvider], model: str, messages: Messages, kwargs: Mapping[str, Any]
) -> ChatStream:
    """The answer of a provider used as a class: what is no option of the transport is a parameter of the service."""
    from llmbridge._call.pipeline import Pipeline
    from llmbridge._call.route import SHARED, chat_route
    from llmbridge.stream import ChatStream

    if not issubclass(provider, Provider):
        raise ConfigError(f"{provider.__name__} is no llmbridge.Provider: it has no encode() and decode()")
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
