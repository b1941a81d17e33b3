"""The server behind the demo: deterministic answers without a model, over real HTTP.

A prompt that shares a word with the name or description of a tool gets a call of that tool, a tool's result gets an
answer that quotes it, and a JSON schema gets a matching value; reasoning is sent if requested. Everything else gets one
fixed text.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import threading
from typing import Any

from . import asked, made_up
from .dialects import words
from .received import Received
from .reply import Reply
from .server import LLMServer

__all__ = ["demo_server"]

_PACE = 0.025
_QUOTED = 60
_RESULT = 1000
_TEXT = (
    "This is the llmbridge demo: no model is at work here, and nothing left this computer. "
    "Your message began “{}”. These words come one by one over a real HTTP connection, as a model's would — "
    "naïve, but quick. Name a model, such as openai:gpt-5.4-mini, for a real answer. ✓"
)
_STOP_WORDS = frozenset(
    (
        "about", "does", "from", "give", "gives", "have", "into", "that", "their", "them", "then",
        "this", "what", "when", "which", "will", "with", "your",
    )
)  # fmt: skip

_lock = threading.Lock()
_server: LLMServer | None = None


def demo_server() -> LLMServer:
    """This process's demo server, started on first use; a forked child starts its own.

    It records no requests, and ends with the process.
    """
    global _server
    with _lock:
        if _server is None:
            _server = LLMServer(_answer, record=False)
            atexit.register(_server.close)
        return _server


def _answer(received: Received) -> Reply:
    request, prompt = received.fields, " ".join(received.user_text.split())
    reasoning = "The demo thinks one thought and then answers." if asked.reasoning_asked(request) else None
    options: dict[str, Any] = {"reasoning": reasoning, "usage": True, "delay": _PACE, "models": ["demo"]}
    results = _results(received)
    tool = None if results else _tool(received, prompt)
    if tool is not None:
        arguments = made_up.value(tool.parameters, made_up.Hints(prompt))
        call = {"name": tool.name, "arguments": arguments if isinstance(arguments, dict) else {}}
        return Reply(tool_calls=[call], **options)
    schema = asked.schema(request)
    if schema is not None:
        made = made_up.value(schema, made_up.Hints(results or prompt))
        return Reply(words(json.dumps(made, ensure_ascii=False)), **options)
    if asked.json_asked(request):
        made = {"demo": True, "prompt": _shortened(results or prompt, _QUOTED)}
        return Reply(words(json.dumps(made, ensure_ascii=False)), **options)
    if results:
        return Reply(words(f"The demo asked a tool, and the tool said: {_shortened(results, _RESULT)}"), **options)
    return Reply(words(_TEXT.format(_shortened(prompt, _QUOTED))), **options)


def _results(received: Received) -> str:
    """The results of tools, if the conversation ends with them."""
    last: list[str] = []
    for turn in reversed(received.turns):
        if turn.role != "tool":
            break
        last.insert(0, turn.text or "(nothing)")
    return " / ".join(last)


def _shortened(text: str, most: int) -> str:
    text = " ".join(text.split()).encode("utf-8", "replace").decode()
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def _tool(received: Received, prompt: str) -> asked.Tool | None:
    """The tool that must be called, or the first one that shares a word with the prompt."""
    tools, choice = received.tools, asked.tool_choice(received.fields)
    if not tools or choice == "none" or not received.turns:
        return None
    if choice.startswith("name:"):
        return next((tool for tool in tools if tool.name == choice.removeprefix("name:")), None)
    said = set(_words(prompt))
    fitting = (tool for tool in tools if _named(tool, prompt) or said & set(_topics(tool)))
    return next(fitting, tools[0] if choice == "required" else None)


def _named(tool: asked.Tool, prompt: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(tool.name)}(?!\w)", prompt, re.IGNORECASE) is not None


def _words(text: str) -> list[str]:
    """The words of a text in lower case, also those inside names like get_weather or getWeather."""
    return re.findall(r"[^\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())


def _topics(tool: asked.Tool) -> list[str]:
    return [word for word in _words(f"{tool.name} {tool.description}") if len(word) > 3 and word not in _STOP_WORDS]


def _forget() -> None:
    # A forked child lacks the parent's threads, and its copy of the lock may be taken.
    global _lock, _server
    _lock = threading.Lock()
    _server = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
