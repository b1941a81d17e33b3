"""llmbridge: chat models over plain HTTP, for scripts, async apps and notebooks alike.

>>> from llmbridge import chat
>>> for piece in chat("Hello", model="demo"):       # live text; "openai:gpt-5-mini" and others in place of "demo"
...     assert piece
>>> answer = chat("Hello", model="demo").complete()  # or the whole answer
>>> answer.finish_reason, answer.usage is not None
('stop', True)

In async code the same object works with `async for`, and `await chat(...)` gives the whole answer. A `Client` holds
defaults and connections, a provider class can be used by itself (`Vitalentum.create_completion(...)`), and every error
is an `LLMBridgeError`. Importing this package imports nothing else: names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmbridge._version import __version__

if TYPE_CHECKING:
    from llmbridge._aio import set_thread_limit
    from llmbridge.client import Client, chat
    from llmbridge.errors import (
        AuthError,
        BadRequest,
        Cancelled,
        ClockExpired,
        ConfigError,
        ConnectFailed,
        ContextLengthExceeded,
        InvalidRequest,
        LLMBridgeError,
        MissingKey,
        NotFound,
        Overloaded,
        PermissionDenied,
        ProtocolError,
        QuotaExceeded,
        RateLimited,
        ServerError,
        ServiceError,
        StatusError,
        StreamError,
        StreamTruncated,
        TransportError,
        UnknownProvider,
    )
    from llmbridge.events import Finish, Reasoning, Text, Usage
    from llmbridge.messages import Message
    from llmbridge.options import Timeout
    from llmbridge.provider import AsyncGeneratorProvider, Provider
    from llmbridge.providers import register
    from llmbridge.providers.codelinkava import CodeLinkAva
    from llmbridge.providers.vitalentum import Vitalentum
    from llmbridge.retry import Retry
    from llmbridge.stream import ChatStream, Completion

__all__ = [
    "AsyncGeneratorProvider",
    "AuthError",
    "BadRequest",
    "Cancelled",
    "ChatStream",
    "Client",
    "ClockExpired",
    "CodeLinkAva",
    "Completion",
    "ConfigError",
    "ConnectFailed",
    "ContextLengthExceeded",
    "Finish",
    "InvalidRequest",
    "LLMBridgeError",
    "Message",
    "MissingKey",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "ProtocolError",
    "Provider",
    "QuotaExceeded",
    "RateLimited",
    "Reasoning",
    "Retry",
    "ServerError",
    "ServiceError",
    "StatusError",
    "StreamError",
    "StreamTruncated",
    "Text",
    "Timeout",
    "TransportError",
    "UnknownProvider",
    "Usage",
    "Vitalentum",
    "__version__",
    "chat",
    "register",
    "set_thread_limit",
]

_MODULES = {
    "_aio": ("set_thread_limit",),
    "client": ("Client", "chat"),
    "events": ("Finish", "Reasoning", "Text", "Usage"),
    "messages": ("Message",),
    "options": ("Timeout",),
    "provider": ("AsyncGeneratorProvider", "Provider"),
    "providers": ("register",),
    "providers.codelinkava": ("CodeLinkAva",),
    "providers.vitalentum": ("Vitalentum",),
    "retry": ("Retry",),
    "stream": ("ChatStream", "Completion"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULE_OF.get(name, 'errors')}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
