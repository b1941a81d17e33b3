"""`chat()`, on the client that all functions of the package share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from llmbridge.client import ASKED, Client
from llmbridge.messages import Messages, SchemaMode
from llmbridge.options import OPTION_NAMES, TimeoutLike, Unsupported
from llmbridge.retry import RetryLike
from llmbridge.secret import Secret, discreet
from llmbridge.stream import ChatStream

if TYPE_CHECKING:
    import requests

    from llmbridge.messages import Parsed

__all__ = ["chat", "shared_client"]

_shared = Client()


@overload
def chat(
    messages: Messages, model: str | Sequence[str | Client] | None = None, *, schema: type[Parsed], **options: Any
) -> ChatStream[Parsed]: ...


@overload
def chat(
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
    """The answer of a model, as a stream of text.

    Args:
        messages: A str is one user message; otherwise a list of `{"role", "content"}`.
        model: "provider:model", e.g. "openai:gpt-5-mini", or "demo", which needs no key and no network. If missing,
            the environment variable LLMBRIDGE_MODEL.
        **params: Parameters of the service: those that llmbridge names for all services (`max_tokens`, `temperature`,
            `stop`, `seed`, `reasoning_effort` ...) are translated, all others sent as given. All other arguments are
            those of `Client` and `Client.chat`.

    Returns:
        A `ChatStream`: iterate over it, or call `.complete()`; in async code use `async for`, or `await` it.

    Raises:
        ConfigError: The model, the messages or an option cannot be used; nothing was sent.

    Example:
        >>> for piece in chat("Hello", model="demo"):
        ...     assert piece
    """
    given = locals()
    named = {name: given[name] for name in (*OPTION_NAMES, *ASKED)}
    return _shared.chat(messages, model, system=system, **named, **params)


def shared_client() -> Client:
    """The client of the module's functions."""
    return _shared
