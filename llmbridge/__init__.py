"""llmbridge: chat models over plain HTTP, for scripts, async apps and notebooks alike.

>>> from llmbridge import chat
>>> for piece in chat("Hello", model="demo"):       # live text; or "openai:gpt-5.4-mini" etc.
...     assert piece
>>> answer = chat("Hello", model="demo").complete()  # or the whole answer
>>> answer.finish_reason, answer.usage is not None
('stop', True)

In async code the same object works with `async for`, and `await chat(...)` gives the whole answer. A `Client` holds
default options and connections, a provider class also works on its own (`Vitalentum.create_completion(...)`), and every
error is an `LLMBridgeError`. Importing this package loads no other module: names are loaded on first use.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmbridge._version import __version__

# fmt: off
if TYPE_CHECKING:
    from llmbridge._aio.threads import set_thread_limit
    from llmbridge._api import aembed, amodels, chat, conversation, embed, models
    from llmbridge._api import map as map  # not for `import *`, which would hide Python's own
    from llmbridge.client import Client
    from llmbridge.completion import Choice, Completion
    from llmbridge.conversations import Conversation
    from llmbridge.embeddings import Embeddings
    from llmbridge.errors import (
        AllFailed,
        AuthError,
        BadRequest,
        Cancelled,
        ClockExpired,
        ConfigError,
        ConnectFailed,
        ContentFiltered,
        ContextLengthExceeded,
        InvalidOutput,
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
        TurnsExceeded,
        UnknownProvider,
        UnsupportedParameter,
        WorkerLost,
    )
    from llmbridge.events import (
        Citation,
        Finish,
        Logprobs,
        Media,
        Other,
        OtherChoice,
        Partial,
        RawEvent,
        Reasoning,
        Refusal,
        ServerTool,
        Text,
        ToolCall,
        ToolCallDelta,
        ToolResult,
        Usage,
    )
    from llmbridge.limits import Limits
    from llmbridge.messages import Message, Opaque
    from llmbridge.options import Timeout
    from llmbridge.parts import Audio, Document, Image
    from llmbridge.provider import AsyncGeneratorProvider, Provider
    from llmbridge.providers import register
    from llmbridge.providers.codelinkava import CodeLinkAva
    from llmbridge.providers.compatible import compatible
    from llmbridge.providers.vitalentum import Vitalentum
    from llmbridge.rate_limits import RateLimits
    from llmbridge.retry import Retry, RetryAttempt
    from llmbridge.secret import Secret
    from llmbridge.stream import ChatStream
    from llmbridge.tools import Tool, tool

__all__ = [
    "AllFailed", "AsyncGeneratorProvider", "Audio", "AuthError", "BadRequest", "Cancelled", "ChatStream", "Choice",
    "Citation", "Client", "ClockExpired", "CodeLinkAva", "Completion", "ConfigError", "ConnectFailed",
    "ContentFiltered", "ContextLengthExceeded", "Conversation", "Document", "Embeddings", "Finish", "Image",
    "InvalidOutput", "InvalidRequest", "LLMBridgeError", "Limits", "Logprobs", "Media", "Message", "MissingKey",
    "NotFound", "Opaque", "Other", "OtherChoice", "Overloaded", "Partial", "PermissionDenied", "ProtocolError",
    "Provider", "QuotaExceeded", "RateLimited", "RateLimits", "RawEvent", "Reasoning", "Refusal", "Retry",
    "RetryAttempt", "Secret", "ServerError", "ServerTool", "ServiceError", "StatusError", "StreamError",
    "StreamTruncated", "Text", "Timeout", "Tool", "ToolCall", "ToolCallDelta", "ToolResult", "TransportError",
    "TurnsExceeded", "UnknownProvider", "UnsupportedParameter", "Usage", "Vitalentum", "WorkerLost", "__version__",
    "aembed", "amodels", "chat", "compatible", "conversation", "embed", "models", "register", "set_thread_limit",
    "tool",
]
# fmt: on

_MODULES = {
    "_aio.threads": "set_thread_limit",
    "_api": "aembed amodels chat conversation embed map models",
    "client": "Client",
    "completion": "Choice Completion",
    "conversations": "Conversation",
    "embeddings": "Embeddings",
    "errors": (
        "AllFailed AuthError BadRequest Cancelled ClockExpired ConfigError ConnectFailed ContentFiltered "
        "ContextLengthExceeded InvalidOutput InvalidRequest LLMBridgeError MissingKey NotFound Overloaded "
        "PermissionDenied ProtocolError QuotaExceeded RateLimited ServerError ServiceError StatusError "
        "StreamError StreamTruncated TransportError TurnsExceeded UnknownProvider UnsupportedParameter "
        "WorkerLost"
    ),
    "events": (
        "Citation Finish Logprobs Media Other OtherChoice Partial RawEvent Reasoning Refusal ServerTool Text ToolCall "
        "ToolCallDelta ToolResult Usage"
    ),
    "limits": "Limits",
    "messages": "Message Opaque",
    "options": "Timeout",
    "parts": "Audio Document Image",
    "provider": "AsyncGeneratorProvider Provider",
    "providers": "register",
    "providers.codelinkava": "CodeLinkAva",
    "providers.compatible": "compatible",
    "providers.vitalentum": "Vitalentum",
    "rate_limits": "RateLimits",
    "retry": "Retry RetryAttempt",
    "secret": "Secret",
    "stream": "ChatStream",
    "tools": "Tool tool",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}


# Registered here, since the first thing that another thread imports may be what they call.
def _before_fork() -> None:
    from llmbridge._locks import wait_for_imports

    wait_for_imports()


def _after_fork() -> None:
    from llmbridge._locks import imports_may_go_on

    imports_may_go_on()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULE_OF[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def load_ipython_extension(shell: Any) -> None:
    """What `%load_ext llmbridge` calls: %chat, %%chat and %chat_new."""
    from llmbridge.notebook.magics import load

    load(shell)


def __dir__() -> list[str]:
    return sorted(__all__)
