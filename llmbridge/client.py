"""`Client`: finds the provider, checks the options, and gives the stream that will do the rest."""

from __future__ import annotations

import threading
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from llmbridge._forking import keep_lock_free
from llmbridge._plan import Plan, checked_models, has_credentials, settled
from llmbridge._route import Breaker
from llmbridge.messages import Messages, SchemaMode
from llmbridge.options import OPTION_NAMES, CallOptions, TimeoutLike, Unsupported, is_sensitive, without_secrets
from llmbridge.provider import Provider
from llmbridge.providers import MODEL_VARIABLE, resolve_model
from llmbridge.retry import RetryLike
from llmbridge.secret import MaskedStr, Secret, discreet
from llmbridge.stream import ChatStream

if TYPE_CHECKING:
    import requests

    from llmbridge._parsed import Parsed
    from llmbridge._transport import Transport
    from llmbridge.embeddings import Embeddings
    from llmbridge.limits import Limiter, Limits

__all__ = ["ASKED", "MODEL_VARIABLE", "Client", "resolve_model"]

_TRANSPORTS = 32  # ways to travel whose connections are kept
_BREAKERS = 256  # models of lists whose last failures are remembered
ASKED = ("tools", "tool_choice", "schema", "schema_mode")
"""The arguments of `chat` that are neither options of how a request travels nor parameters of a service."""


class Client:
    """A model with defaults, and connections that are kept for the next call. Safe to share between threads.

    Args:
        model: "provider:model", or only a provider's name if it has a default model. If missing, LLMBRIDGE_MODEL.
            A list of them, or of Clients, is tried in order: the next one when one has failed before its first piece.
            One that failed is left out for a while, or for as long as its service asks.
        api_key: If missing, taken from the provider's environment variable, then from the keys file.
        base_url: Where the provider's paths are appended to, instead of its own host.
        proxy: URL of a proxy; None for what the environment says, False for none at all.
        timeout: Seconds for a whole call, or a `Timeout`.
        retries: How often a call that failed before its first piece is tried again, or a `Retry`.
        headers: Added to the provider's and winning over them; None as a value takes one away.
        session: Your own `requests.Session`; its adapters, auth, headers and CA count. It is not closed here.
        verify: True, False, or the path of a CA file or folder.
        unsupported: What happens to a parameter that the service is known to refuse: "error" (before anything is
            sent), "warn" (an `UnsupportedParameter` warning, and it is left out) or "drop".
        system: A system message put in front of every conversation; "" takes that of a client away.
        limits: How fast this client may ask, see `Limits`.
        pickle_key: Whether a pickle of the client holds its `api_key`, secret headers and the passwords in URLs.
            Without them, the process that unpickles the client finds the key as if none had been given.
        **params: Parameters of the service, sent as given; and what `chat` takes by name. None leaves a parameter to
            the service, also where a client has another default.

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
        model: str | Sequence[str | Client] | None = None,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        proxy: str | bool | None = None,
        timeout: TimeoutLike = None,
        retries: RetryLike = None,
        headers: Mapping[str, str | None] | None = None,
        session: requests.Session | None = None,
        verify: bool | str | None = None,
        unsupported: Unsupported | None = None,
        run_tools: bool | None = None,
        max_turns: int | None = None,
        reask: int | None = None,
        system: str | None = None,
        limits: Limits | None = None,
        pickle_key: bool = False,
        **params: Any,
    ) -> None:
        given = locals()
        self._options = CallOptions.checked({name: given[name] for name in OPTION_NAMES})
        one = model is None or isinstance(model, str)
        self._model = model if one else checked_models(model, self._options)
        if isinstance(model, str):
            resolve_model(model, self._options.base_url is not None)
        self._system = system
        self._params = settled(params)
        self._limits = limits
        self._pickle_key = pickle_key
        self._set_up()

    def _set_up(self) -> None:
        """What belongs to this process."""
        self._transports: dict[Any, Transport] = {}
        self._breakers: dict[str, Breaker] = {}
        self._lock: threading.Lock
        keep_lock_free(self)
        self.limiter: Limiter | None = None
        if self._limits is not None:
            from llmbridge.limits import Limiter

            self.limiter = Limiter(self._limits)

    def __repr__(self) -> str:
        return f"<Client {self._model or 'without a model'}>"

    def __getstate__(self) -> dict[str, Any]:
        if self._options.session is not None:
            raise TypeError("a Client with a session of your own cannot be pickled: make it where it is used")
        key = self._options.api_key
        options = {**vars(self._options), "api_key": None}
        return {
            "model": self._model,
            "options": options if self._pickle_key else without_secrets(options),
            "key": key.reveal() if key is not None and self._pickle_key else None,
            "system": self._system,
            "params": self._params,
            "limits": self._limits,
            "pickle_key": self._pickle_key,
        }

    def __copy__(self) -> Client:
        # Within a process nothing has to be left out, as it has for a pickle.
        again = object.__new__(type(self))
        for name in ("_model", "_options", "_system", "_params", "_limits", "_pickle_key"):
            setattr(again, name, getattr(self, name))
        again._set_up()
        return again

    def __deepcopy__(self, memo: dict[int, Any]) -> Client:
        return self.__copy__()

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._model = state["model"]
        key = None if state["key"] is None else Secret(state["key"])
        self._options = CallOptions(**{**state["options"], "api_key": key})
        self._system, self._params = state["system"], state["params"]
        self._limits, self._pickle_key = state["limits"], state["pickle_key"]
        self._set_up()

    @overload
    def chat(
        self,
        messages: Messages,
        model: str | Sequence[str | Client] | None = None,
        *,
        schema: type[Parsed],
        **options: Any,
    ) -> ChatStream[Parsed]: ...

    @overload
    def chat(
        self,
        messages: Messages,
        model: str | Sequence[str | Client] | None = None,
        *,
        tools: Iterable[Any] | None = None,
        tool_choice: Any = None,
        run_tools: bool | None = None,
        max_turns: int | None = None,
        schema: Any = None,
        schema_mode: SchemaMode | None = None,
        reask: int | None = None,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        proxy: str | bool | None = None,
        timeout: TimeoutLike = None,
        retries: RetryLike = None,
        headers: Mapping[str, str | None] | None = None,
        session: requests.Session | None = None,
        verify: bool | str | None = None,
        unsupported: Unsupported | None = None,
        system: str | None = None,
        **params: Any,
    ) -> ChatStream: ...

    @discreet
    def chat(
        self,
        messages: Messages,
        model: str | Sequence[str | Client] | None = None,
        *,
        tools: Iterable[Any] | None = None,
        tool_choice: Any = None,
        run_tools: bool | None = None,
        max_turns: int | None = None,
        schema: Any = None,
        schema_mode: SchemaMode | None = None,
        reask: int | None = None,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        proxy: str | bool | None = None,
        timeout: TimeoutLike = None,
        retries: RetryLike = None,
        headers: Mapping[str, str | None] | None = None,
        session: requests.Session | None = None,
        verify: bool | str | None = None,
        unsupported: Unsupported | None = None,
        system: str | None = None,
        **params: Any,
    ) -> ChatStream[Any]:
        """The answer to the messages. Nothing is sent before its first piece is asked for.

        Args:
            messages: A str is one user message; otherwise a list of `{"role", "content"}`, `Message`, `Completion`
                and `ToolResult`.
            model: As for `Client`, and so are all arguments that are not named here; given here, they hold for this
                call.
            tools: What the model may call: Python functions, `Tool`s, or mappings in a service's own form.
            tool_choice: "auto", "none", "required", or the name of a tool.
            run_tools: Whether the tools that are functions are called, and their results sent back, until the model
                answers. Every call and result is an event of the stream.
            max_turns: How many answers of the model `run_tools` allows; 10 if missing.
            schema: What the answer has to fit: a dataclass, TypedDict, pydantic model or a JSON schema. The value is
                in `.parsed`. False takes that of the client away.
            schema_mode: How the service is held to it: "native", "tool" or "json"; the service's best if missing.
            reask: How often `complete()` and `await` ask again for an answer that does not fit; once if missing.

        Raises:
            ConfigError: The model, the messages or an option cannot be used; nothing was sent.

        Example:
            >>> Client("demo").chat("Hello", timeout=30).complete().model
            'demo'
        """
        given = locals()
        asked = CallOptions.checked({name: given[name] for name in OPTION_NAMES if given[name] is not None})
        extra = {name: given[name] for name in ASKED if given[name] is not None}
        return Plan(self, model, {**params, **extra}, asked, system).stream(messages)

    @overload
    def run(
        self,
        messages: Messages,
        model: str | Sequence[str | Client] | None = None,
        *,
        schema: type[Parsed],
        **options: Any,
    ) -> ChatStream[Parsed]: ...

    @overload
    def run(
        self, messages: Messages, model: str | Sequence[str | Client] | None = None, **options: Any
    ) -> ChatStream: ...

    @discreet
    def run(
        self, messages: Messages, model: str | Sequence[str | Client] | None = None, **options: Any
    ) -> ChatStream[Any]:
        """`chat` with `run_tools=True`: calls the tools and goes on until the answer is there.

        Example:
            >>> def add(a: int, b: int) -> int:
            ...     return a + b
            >>> len(Client("demo").run("Please add 2 and 3.", tools=[add]).complete().turns)
            3
        """
        return self.chat(messages, model, **{"run_tools": True, **options})

    @discreet
    def embed(self, texts: str | Iterable[str], model: str | None = None, **options: Any) -> Embeddings:
        """The embeddings of texts; see `llmbridge.embed`."""
        from llmbridge.embeddings import embed_with

        return embed_with(self, texts, model, options)

    @discreet
    def models(self, provider: str | None = None, **options: Any) -> list[str]:
        """The models that the service offers now; see `llmbridge.models`."""
        from llmbridge._listing import models_with

        return models_with(self, provider, options)

    @discreet
    def aembed(
        self, texts: str | Iterable[str], model: str | None = None, **options: Any
    ) -> Coroutine[Any, Any, Embeddings]:
        """`embed` for async code: await it."""
        from llmbridge.embeddings import aembed_with

        return aembed_with(self, texts, model, options)

    @discreet
    def amodels(self, provider: str | None = None, **options: Any) -> Coroutine[Any, Any, list[str]]:
        """`models` for async code: await it."""
        from llmbridge._listing import amodels_with

        return amodels_with(self, provider, options)

    @property
    def options(self) -> CallOptions:
        """The defaults of how a request travels."""
        return self._options

    def options_for(self, provider: type[Provider], asked: CallOptions) -> CallOptions:
        """How a request to a provider travels: as the call says, and else by this client's defaults.

        A key that was given for one service is not sent to another: where the call names another provider than the
        client's own, and so goes to another host, key and secret headers of the client stay behind, and so does a
        session that holds credentials.
        """
        own = self._own_provider
        elsewhere = self._options.base_url is None or asked.base_url is not None
        if own is None or own is provider or not elsewhere:
            return asked.over(self._options)
        headers = {name: value for name, value in (self._options.headers or {}).items() if not is_sensitive(name)}
        session = None if has_credentials(self._options.session) else self._options.session
        return asked.over(replace(self._options, api_key=None, headers=headers or None, session=session))

    @property
    def _own_provider(self) -> type[Provider] | None:
        """The provider of the client's own model, or of all of them; None if it has none, or several."""
        if self._model is None:
            return None
        names = [self._model] if isinstance(self._model, str) else [m for m in self._model if isinstance(m, str)]
        found = {resolve_model(name, self._options.base_url is not None)[0] for name in names}
        return found.pop() if len(found) == 1 else None

    @property
    def default_model(self) -> str | None:
        """The model where none is named; None if there is none, or several."""
        return self._model if isinstance(self._model, str) else None

    @property
    def several(self) -> bool:
        """Whether it has several models, tried in order."""
        return isinstance(self._model, tuple)

    def breaker_of(self, model: str) -> Breaker:
        """The memory of how a model did lately."""
        with self._lock:
            breaker = self._breakers.get(model)
            if breaker is None:
                if len(self._breakers) >= _BREAKERS:
                    del self._breakers[next(iter(self._breakers))]
                breaker = self._breakers[model] = Breaker()
            return breaker

    def transport(self, session: requests.Session | None, proxy: str | bool | None, verify: bool | str) -> Transport:
        """Calls that travel in the same way share their connections."""
        from llmbridge._transport import Transport

        if session is not None:
            return Transport(session, proxy, verify)
        if isinstance(proxy, str):
            proxy = MaskedStr(proxy)  # whoever shows this object shows the keys of its dict
        with self._lock:
            transport = self._transports.get((proxy, verify))
            if transport is None:
                if len(self._transports) >= _TRANSPORTS:
                    self._transports.pop(next(iter(self._transports))).close()
                transport = self._transports[proxy, verify] = Transport(None, proxy, verify)
            return transport

    def settings_for(self, provider: type[Provider]) -> dict[str, Any]:
        """The defaults among this client's parameters that are settings of a provider, whatever it is asked for."""
        return {name: self._params[name] for name in provider.settings if self._params.get(name) is not None}

    def close(self) -> None:
        """Closes the kept connections. The client may be used again."""
        with self._lock:
            transports = list(self._transports.values())
            self._transports.clear()
        for transport in transports:
            transport.close()

    async def aclose(self) -> None:
        """`close` for async code: the event loop goes on meanwhile."""
        from llmbridge._aio import in_thread

        await in_thread(self.close, self.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
