"""`Client`: takes every option of a call by name, finds the provider, and returns the stream that does the rest."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, TypeVar

from llmbridge._call.plan import Plan, checked_models, has_credentials, plan_embeddings, plan_models
from llmbridge._call.reading import finished
from llmbridge._call.route import TRAVELLERS, Connections
from llmbridge.messages import Messages, SchemaMode
from llmbridge.options import (
    UNSET,
    ChatOptions,
    KeyLike,
    ReasoningEffort,
    TimeoutLike,
    TransportOptions,
    Unsupported,
    given,
    is_sensitive,
    without_secrets,
)
from llmbridge.providers import MODEL_VARIABLE, names_taken, resolve_model
from llmbridge.retry import RetryLike
from llmbridge.secret import KeyFunction, Secret, discreet
from llmbridge.stream import ChatStream

if TYPE_CHECKING:
    import os

    import requests
    from typing_extensions import Self

    from llmbridge._call.question import Embeddings
    from llmbridge.conversations import Conversation
    from llmbridge.limits import Limits
    from llmbridge.many import ExecutorLike, Inputs, JournalLike, Key, Order, ProgressLike, Rows, Template
    from llmbridge.messages import Parsed
    from llmbridge.provider import Provider
    from llmbridge.schema import SchemaLike
    from llmbridge.tools import ToolChoice

__all__ = ["MODEL_VARIABLE", "Client", "resolve_model"]

_INTERNAL = {"chat_options", "connections", "options_for", "settings_for", "several", "transport_options"}

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Question(Protocol[T_co]):
    """A checked call. Nothing is sent before the first of its steps, see `_call.reading.finished`."""

    def steps(self) -> Generator[Any, None, T_co]: ...


def _answered(ask: Callable[P, _Question[T]]) -> Callable[P, T]:
    """Turns a method that only checks its arguments and returns the question into a blocking one."""

    @functools.wraps(ask)
    def wait(*args: P.args, **kwargs: P.kwargs) -> T:
        return finished(ask(*args, **kwargs).steps())

    return _shown_as(discreet(wait), ask.__name__, "{}")


def _awaitable(wait: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same method for async code. Wrong arguments raise at the call, not at the `await`."""
    ask: Callable[P, _Question[T]] = inspect.unwrap(wait)

    @functools.wraps(ask)
    def start(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T]:
        from llmbridge._aio import finished

        return finished(ask(*args, **kwargs).steps(), in_threads=True)

    return _shown_as(discreet(start), f"a{ask.__name__}", "Coroutine[Any, Any, {}]")


def _running(chat: Callable[P, T]) -> Callable[P, T]:
    """Like `chat` with `run_tools=True`: calls your tools and sends back the results until the model answers.

    Example:
        >>> def add(a: int, b: int) -> int:
        ...     return a + b
        >>> len(Client("demo").run("Please add 2 and 3.", tools=[add]).complete().turns)
        3
    """

    @functools.wraps(chat)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        kwargs.setdefault("run_tools", True)
        client: Any = args[0]  # a subclass may override chat
        answer: T = client.chat(*args[1:], **kwargs)
        return answer

    run.__doc__ = _running.__doc__
    return _shown_as(discreet(run), "run", "ChatStream[Parsed]")


def _conversing(
    chat: Callable[Concatenate[Client, Messages, P], ChatStream[Parsed]],
) -> Callable[Concatenate[Client, P], Conversation[Parsed]]:
    """A `Conversation`: sends each question together with everything said before.

    Takes the same options as `chat`, and uses them for every question.

    Example:
        >>> talk = Client("demo").conversation(system="Be brief.")
        >>> answers = [talk.ask("What is a bridge?").complete(), talk.ask("And a tunnel?").complete()]
        >>> len(talk.messages)
        4
    """

    @functools.wraps(chat)
    def conversation(*args: Any, **kwargs: Any) -> Any:
        from llmbridge.conversations import Conversation

        return Conversation(*args, **kwargs)

    conversation.__doc__ = _conversing.__doc__
    return _shown_as(discreet(conversation), "conversation", "Conversation[Parsed]", without="messages")


def _shown_as(method: Callable[P, T], name: str, returns: str, without: str = "") -> Callable[P, T]:
    """Makes `help()` show the wrapper with the wrapped method's arguments, and its own name and return type."""
    signature = inspect.signature(method)
    result = str(signature.return_annotation).removeprefix("_Question[").removesuffix("]")
    method.__name__, method.__qualname__ = name, f"Client.{name}"
    taken = [parameter for parameter in signature.parameters.values() if parameter.name != without]
    shown = signature.replace(parameters=taken, return_annotation=returns.format(result))
    setattr(method, "__signature__", shown)  # noqa: B010
    return method


class Client:
    """A model with default options and kept connections. Safe to share between threads.

    Args:
        model: "provider:model", or just the provider if it has a default model; LLMBRIDGE_MODEL if missing. A Client
            brings its own settings. A list is tried in order: if one fails before its first piece, the next one
            answers. A model that failed is skipped for a while, or for as long as its service says.
        limits: How many requests and tokens this client may use, see `Limits`.
        pickle_key: Whether pickling keeps `api_key`, secret headers and passwords in URLs. Otherwise the process that
            unpickles the client looks up the key itself (environment, keys file). A key function is always pickled; if
            it cannot be, neither can the client.
        **params: Every other argument of `Client.chat`, as a default for each call.

    Raises:
        ConfigError: The model or an option is not usable. Nothing was sent.

    Example:
        >>> with Client("demo", timeout=30) as client:
        ...     print(client.chat("Hello").complete().finish_reason)
        stop
    """

    @discreet
    def __init__(
        self,
        model: str | Client | Sequence[str | Client] | None = None,
        *,
        api_key: KeyLike = None,
        base_url: str | None = None,
        proxy: str | bool | None = None,
        timeout: TimeoutLike = None,
        retries: RetryLike = None,
        headers: Mapping[str, str | None] | None = None,
        session: requests.Session | None = None,
        verify: bool | str | os.PathLike[str] | None = None,
        tools: Iterable[Any] | None = None,
        tool_choice: str | Mapping[str, Any] | Callable[..., Any] | ToolChoice | None = None,
        run_tools: bool | None = None,
        max_turns: int | None = None,
        schema: Any = None,
        schema_mode: SchemaMode | None = None,
        schema_retries: int | None = None,
        extra: Mapping[str, Any] | None = None,
        system: str | None = None,
        unsupported: Unsupported | None = None,
        limits: Limits | None = None,
        pickle_key: bool = False,
        max_tokens: int | None = UNSET,
        temperature: float | None = UNSET,
        top_p: float | None = UNSET,
        top_k: int | None = UNSET,
        stop: str | Sequence[str] | None = UNSET,
        seed: int | None = UNSET,
        presence_penalty: float | None = UNSET,
        frequency_penalty: float | None = UNSET,
        reasoning_effort: ReasoningEffort | None = UNSET,
        n: int | None = UNSET,
        logprobs: bool | None = UNSET,
        top_logprobs: int | None = UNSET,
        parallel_tool_calls: bool | None = UNSET,
        **params: Any,
    ) -> None:
        self.transport_options = TransportOptions.checked(
            api_key=api_key, base_url=base_url, proxy=proxy, timeout=timeout, retries=retries, headers=headers,
            session=session, verify=verify,
        )  # fmt: skip
        self.chat_options = ChatOptions.checked(
            given(
                params, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, stop=stop, seed=seed,
                presence_penalty=presence_penalty, frequency_penalty=frequency_penalty,
                reasoning_effort=reasoning_effort, n=n, logprobs=logprobs, top_logprobs=top_logprobs,
                parallel_tool_calls=parallel_tool_calls,
            ),
            names_taken,
            tools=tools, tool_choice=tool_choice, run_tools=run_tools, max_turns=max_turns, schema=schema,
            schema_mode=schema_mode, schema_retries=schema_retries, extra=extra, system=system, unsupported=unsupported,
        )  # fmt: skip
        several = model is not None and not isinstance(model, str)
        self._model: Any = checked_models(model, self.transport_options, Client) if several else model
        if isinstance(model, str):
            resolve_model(model, self.transport_options.base_url is not None)
        self._limits = limits
        self._pickle_key = pickle_key
        self.connections = Connections(limits)

    def __repr__(self) -> str:
        model = getattr(self, "_model", None)  # missing if __init__ failed
        return f"<Client {model or 'without a model'}>"

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self)} - _INTERNAL)

    def __getstate__(self) -> dict[str, Any]:
        if self.transport_options.session is not None:
            raise TypeError("a Client with a session of your own cannot be pickled: create it in each process")
        key = self.transport_options.api_key
        function = key if isinstance(key, KeyFunction) else None  # pickled as it is, if it can be
        transport = {**vars(self.transport_options), "api_key": function}
        return {
            **vars(self),
            "transport_options": transport if self._pickle_key else without_secrets(transport),
            "key": key.reveal() if isinstance(key, Secret) and self._pickle_key else None,
            "connections": TRAVELLERS.name_of(self.connections),
        }

    @discreet
    def __setstate__(self, state: Mapping[str, Any]) -> None:
        fields = dict(state)
        transport, key = fields["transport_options"], fields.pop("key")
        key = transport["api_key"] if key is None else Secret(key)
        fields["transport_options"] = TransportOptions(**{**transport, "api_key": key})
        fields["connections"] = TRAVELLERS.named(fields["connections"], fields["_limits"])
        vars(self).update(fields)

    def __copy__(self) -> Self:
        again = object.__new__(type(self))
        vars(again).update(vars(self))  # unlike pickling, copying keeps secrets
        again.connections = Connections(self._limits)
        return again

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self.__copy__()

    @discreet
    def chat(
        self,
        messages: Messages,
        model: str | Client | Sequence[str | Client] | None = None,
        *,
        api_key: KeyLike = None,
        base_url: str | None = None,
        proxy: str | bool | None = None,
        timeout: TimeoutLike = None,
        retries: RetryLike = None,
        headers: Mapping[str, str | None] | None = None,
        session: requests.Session | None = None,
        verify: bool | str | os.PathLike[str] | None = None,
        tools: Iterable[Any] | None = None,
        tool_choice: str | Mapping[str, Any] | Callable[..., Any] | ToolChoice | None = None,
        run_tools: bool | None = None,
        max_turns: int | None = None,
        schema: SchemaLike[Parsed] | bool | None = None,
        schema_mode: SchemaMode | None = None,
        schema_retries: int | None = None,
        extra: Mapping[str, Any] | None = None,
        system: str | None = None,
        unsupported: Unsupported | None = None,
        max_tokens: int | None = UNSET,
        temperature: float | None = UNSET,
        top_p: float | None = UNSET,
        top_k: int | None = UNSET,
        stop: str | Sequence[str] | None = UNSET,
        seed: int | None = UNSET,
        presence_penalty: float | None = UNSET,
        frequency_penalty: float | None = UNSET,
        reasoning_effort: ReasoningEffort | None = UNSET,
        n: int | None = UNSET,
        logprobs: bool | None = UNSET,
        top_logprobs: int | None = UNSET,
        parallel_tool_calls: bool | None = UNSET,
        **params: Any,
    ) -> ChatStream[Parsed]:
        """A model's answer, as a stream of text. Nothing is sent until you read the first piece.

        Args:
            messages: One user message as a str, or a list of `{"role", "content"}`, `Message`, `Completion` and
                `ToolResult`.
            model: "provider:model" like "openai:gpt-5.4-mini", or "demo", which needs no key or network; see `Client`
                for lists. If missing, the client's model or the environment variable LLMBRIDGE_MODEL.
            api_key: If missing, taken from the provider's environment variable, then from the keys file. A function
                without arguments, sync or async, is called for the key before each request, and once more if the key is
                refused. It runs in a worker thread; an async one runs in the event loop that awaits the answer.
            base_url: Replaces the provider's own; its paths are appended.
            proxy: URL of a proxy; None to use the environment's, False to use none.
            timeout: Seconds for the whole call, or a `Timeout`.
            retries: How often to retry a call that failed before its first piece, or a `Retry`.
            headers: Added to the provider's, and override them; None as a value removes a header.
            session: Your own `requests.Session`, with its adapters, auth, headers and CA. It is not closed.
            verify: True, False, or the path of a CA file or folder. True uses the CA bundle named by
                REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, SSL_CERT_FILE or SSL_CERT_DIR (the first that is set), or else
                certifi's.
            tools: What the model may call: Python functions, `Tool` objects, or mappings in the service's own format.
            tool_choice: "auto", "none", "required", or the name of a tool.
            run_tools: Whether to call tools that are functions and send back the results until the model answers. Every
                call and result is an event of the stream.
            max_turns: How many answers of the model `run_tools` allows; 10 if missing.
            schema: What the answer must match: a dataclass, TypedDict, pydantic model or JSON schema. The value is in
                `.parsed`. False turns off the client's schema.
            schema_mode: How the service is made to follow it: "native", "tool" or "json"; the service's best if
                missing.
            schema_retries: How often `complete()` and `await` retry an answer that does not match the schema; once if
                missing.
            extra: Added to the request's body unchecked and untranslated; overrides what is there.
            system: A system message put before the conversation; "" turns off the client's.
            unsupported: What to do with a parameter that the service is known to reject: "error" (before sending),
                "warn" (leave it out, with an `UnsupportedParameter` warning) or "drop".
            max_tokens: The longest answer, in tokens.
            temperature: Randomness of the answer; 0 always takes the likeliest token.
            top_p: Sample only from the likeliest tokens that together have this probability, from 0 to 1.
            top_k: Sample only from this many of the likeliest tokens.
            stop: A text, or several, at which the answer ends.
            seed: The same seed gives the same answer, as far as the service can.
            presence_penalty: Discourages words that have occurred, from -2 to 2.
            frequency_penalty: Discourages words that have occurred often, from -2 to 2.
            reasoning_effort: How long the model thinks before it answers: "none", "minimal", "low", "medium", "high",
                "xhigh" or "max", or another word that the service knows.
            n: How many answers; all of them are in `Completion.choices`.
            logprobs: Whether to return the tokens' log probabilities.
            top_logprobs: For how many alternatives of each token.
            parallel_tool_calls: Whether the model may make several calls at once.
            **params: Any other parameter is passed straight to the service, unless its name looks like a misspelling of
                one of these. None leaves a parameter to the service, even if the client has a default.

        Returns:
            A `ChatStream`: loop over it, or call `.complete()`; in async code use `async for`, or `await` it.

        Raises:
            ConfigError: The model, the messages or an option is not usable. Nothing was sent.

        Example:
            >>> from llmbridge import chat
            >>> for piece in chat("Hello", model="demo"):
            ...     assert piece
            >>> Client("demo").chat("Hello", timeout=30).complete().model
            'demo'
        """
        transport = TransportOptions.checked(
            api_key=api_key, base_url=base_url, proxy=proxy, timeout=timeout, retries=retries, headers=headers,
            session=session, verify=verify,
        )  # fmt: skip
        options = ChatOptions.checked(
            given(
                params, max_tokens=max_tokens, temperature=temperature, top_p=top_p, top_k=top_k, stop=stop, seed=seed,
                presence_penalty=presence_penalty, frequency_penalty=frequency_penalty,
                reasoning_effort=reasoning_effort, n=n, logprobs=logprobs, top_logprobs=top_logprobs,
                parallel_tool_calls=parallel_tool_calls,
            ),
            names_taken,
            tools=tools, tool_choice=tool_choice, run_tools=run_tools, max_turns=max_turns, schema=schema,
            schema_mode=schema_mode, schema_retries=schema_retries, extra=extra, system=system, unsupported=unsupported,
        )  # fmt: skip
        return self._plan(model, transport, options).stream(messages)

    def _plan(self, model: Any, transport: TransportOptions, options: ChatOptions) -> Plan:
        """A chat with checked options, for any messages; `model` as for `chat`.

        Raises:
            ConfigError: The model cannot be used.
        """
        named = self._model if model is None else model
        if named is not None and not isinstance(named, str):
            named = checked_models(named, transport.over(self.transport_options), Client)
        return Plan(self, named, transport, options)

    def map(
        self,
        prompts: Inputs,
        model: str | Client | Sequence[str | Client] | None = None,
        *,
        prompt: Template = None,
        key: Key = None,
        order: Order = "input",
        concurrency: int | None = None,
        window: int | None = None,
        journal: JournalLike = None,
        attempts: int = 4,
        max_errors: float | None = None,
        progress: ProgressLike = None,
        embed: bool = False,
        executor: ExecutorLike = None,
        schema: SchemaLike[Parsed] | bool | None = None,
        **options: Any,
    ) -> Rows[Parsed]:
        """A `Row` for each item of an input, asked side by side: see docs/many.md.

        Args:
            prompts: Any iterable, of any length; in async code an async one too. It is read as rows are taken.
            model, schema, options: As for `chat`, but for `retries`; with `embed`, those of `embed`.
            prompt: What to send for an item: a template like "{title}: {text}", or a function. None sends the item.
            key: The column that names a row, or a function. No two rows may have the same one.
            order: "input", or "done" for rows as they are finished.
            concurrency: How many requests are under way. None adapts to what the service takes, within `limits`.
            window: How many rows are read ahead of those taken; four for each request if missing.
            journal: The path of a file that keeps all outcomes: the same call with the same file goes on from there.
            attempts: How often a row is tried. Refusals (429, 503) are waited for, and do not count.
            max_errors: How many rows, or which share of them, may fail before the run ends with the last one's error.
            progress: True for a line on standard error, or a function that gets the `Totals` now and then.
            embed: Whether embeddings are wanted in place of answers.
            executor: Whose workers send the rows: a `concurrent.futures.Executor`, a `distributed.Client`, or "ray".

        Raises:
            ConfigError: An argument cannot be used; nothing was sent.

        Example:
            >>> rows = Client("demo").map([{"city": "Paris"}], prompt="Is {city} large?")
            >>> [row.input["city"] for row in rows if row.ok]
            ['Paris']
        """
        from llmbridge.many import Rows

        return Rows(
            self, prompts, prompt=prompt, key=key, order=order, concurrency=concurrency, window=window,
            journal=journal, attempts=attempts, max_errors=max_errors, progress=progress, embed=embed,
            executor=executor, options={**options, "model": model, "schema": schema},
        )  # fmt: skip

    run = _running(chat)
    conversation = _conversing(chat)  # type: ignore[arg-type]  # mypy wants `messages` to be positional-only

    @_answered
    def embed(
        self,
        texts: str | Iterable[str],
        model: str | None = None,
        *,
        api_key: KeyLike = None,
        base_url: str | None = None,
        proxy: str | bool | None = None,
        timeout: TimeoutLike = None,
        retries: RetryLike = None,
        headers: Mapping[str, str | None] | None = None,
        session: requests.Session | None = None,
        verify: bool | str | os.PathLike[str] | None = None,
        extra: Mapping[str, Any] | None = None,
        dimensions: int | None = UNSET,
        **params: Any,
    ) -> _Question[Embeddings]:
        """One vector per text, in order.

        Args:
            texts: Any number of texts, sent in as many requests as the service's limits require, one after the other. A
                str is one text. An empty list sends no request.
            model: "provider:model". If missing, the client's model or the environment variable LLMBRIDGE_MODEL.
            api_key, base_url, proxy, timeout, retries, headers, session, verify: As for `chat`. `Timeout.total` covers
                all requests together; retries count for each request.
            dimensions: The length of the vectors, if the model lets you choose.
            extra: As for `chat`.
            **params: As for `chat`.

        Returns:
            `Embeddings`, a list of vectors. `aembed` does the same in async code.

        Raises:
            ConfigError: The model, a text or an option is not usable. Nothing was sent.
            LLMBridgeError: The service failed, or did not return one vector per text.

        Example:
            >>> from llmbridge import aembed, embed
            >>> vectors = embed(["one", "two"], model="demo")
            >>> len(vectors), len(vectors[0]) == len(vectors[1])
            (2, True)
            >>> import asyncio
            >>> len(asyncio.run(aembed("one", model="demo")))
            1
        """
        transport = TransportOptions.checked(
            api_key=api_key, base_url=base_url, proxy=proxy, timeout=timeout, retries=retries, headers=headers,
            session=session, verify=verify,
        )  # fmt: skip
        return plan_embeddings(self, texts, model, transport, given(params, dimensions=dimensions), extra)

    aembed = _awaitable(embed)

    @_answered
    def models(
        self,
        provider: str | None = None,
        *,
        api_key: KeyLike = None,
        base_url: str | None = None,
        proxy: str | bool | None = None,
        timeout: TimeoutLike = None,
        retries: RetryLike = None,
        headers: Mapping[str, str | None] | None = None,
        session: requests.Session | None = None,
        verify: bool | str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> _Question[list[str]]:
        """The names of the models that a service offers now.

        Args:
            provider: Its name. If missing, the provider of the client's model or of LLMBRIDGE_MODEL.
            api_key, base_url, proxy, timeout, retries, headers, session, verify: As for `chat`.
            **settings: The provider's settings, like `api_version`.

        Returns:
            Their names. `amodels` does the same in async code.

        Raises:
            ConfigError: The provider is unknown or lists no models, or an option is not usable. Nothing was sent.
            LLMBridgeError: The service failed.

        Example:
            >>> from llmbridge import amodels, models
            >>> models("demo")
            ['demo']
            >>> import asyncio
            >>> asyncio.run(amodels("demo"))
            ['demo']
        """
        transport = TransportOptions.checked(
            api_key=api_key, base_url=base_url, proxy=proxy, timeout=timeout, retries=retries, headers=headers,
            session=session, verify=verify,
        )  # fmt: skip
        return plan_models(self, provider, transport, settings)

    amodels = _awaitable(models)

    def options_for(self, provider: type[Provider], asked: TransportOptions) -> TransportOptions:
        """The transport options of a request to a provider: those of the call, then this client's defaults.

        A key given for one service is never sent to another: if the call names a provider other than the client's own,
        and so another host, the client's key, secret headers and a session with credentials are not used.
        """
        elsewhere = self.transport_options.base_url is None or asked.base_url is not None
        if not elsewhere or (own := self._own_provider) is None or own is provider:
            return asked.over(self.transport_options)
        headers = {
            name: value for name, value in (self.transport_options.headers or {}).items() if not is_sensitive(name)
        }
        session = None if has_credentials(self.transport_options.session) else self.transport_options.session
        return asked.over(replace(self.transport_options, api_key=None, headers=headers or None, session=session))

    @property
    def _own_provider(self) -> type[Provider] | None:
        """The provider of the client's own model, or of all of them; None without one, or with several."""
        if self._model is None:
            return None
        names = [self._model] if isinstance(self._model, str) else [m for m in self._model if isinstance(m, str)]
        found = {resolve_model(name, self.transport_options.base_url is not None)[0] for name in names}
        return found.pop() if len(found) == 1 else None

    @property
    def default_model(self) -> str | None:
        """The model used if a call names none; None without one, or with several."""
        return self._model if isinstance(self._model, str) else None

    @property
    def several(self) -> bool:
        """Whether the client has several models, tried in order."""
        return isinstance(self._model, tuple)

    def settings_for(self, provider: type[Provider]) -> dict[str, Any]:
        """Those of this client's parameters that are settings of a provider, for every kind of request."""
        params = self.chat_options.params
        return {name: params[name] for name in provider.settings if params.get(name) is not None}

    @discreet
    def close(self) -> None:
        """Closes the kept connections. The client may be used again."""
        self.connections.close()

    async def aclose(self) -> None:
        """Like `close`, without blocking the event loop."""
        from llmbridge._aio.threads import in_thread

        await in_thread(self.close, self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
