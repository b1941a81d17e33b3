"""The server behind the demo: deterministic answers without a model, over real HTTP."""

from __future__ import annotations

import atexit
import os
import threading

from .dialects import last_user_text, words
from .received import Received
from .reply import Reply
from .server import LLMServer

__all__ = ["demo_server"]

_PACE = 0.025
_QUOTED = 60

_lock = threading.Lock()
_server: LLMServer | None = None


def demo_server() -> LLMServer:
    """The process's own demo server, started on first use; a forked child gets another one.

    It keeps no requests, and ends with the process.
    """
    global _server
    with _lock:
        if _server is None:
            _server = LLMServer(_answer, record=False)
            atexit.register(_server.close)
        return _server


def _answer(received: Received) -> Reply:
    prompt = " ".join(last_user_text(received).split())
    quoted = prompt if len(prompt) <= _QUOTED else prompt[: _QUOTED - 1].rstrip() + "…"
    text = (
        "This is the llmbridge demo: no model is at work here, and nothing left this computer. "
        f"Your message began “{quoted}”. These words come one by one over a real HTTP connection, as a model's would — "
        "naïve, but quick. Name a model, such as openai:gpt-5-mini, for a real answer. ✓"
    )
    return Reply(words(text), usage=True, delay=_PACE)


def _forget() -> None:
    # The parent's threads do not exist in a forked child, and its lock may have been taken at that moment.
    global _lock, _server
    _lock = threading.Lock()
    _server = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
