"""What a request to Ollama must look like, with the words in which the server says that it does not.

Source:
    Ollama's server reads requests into Go structs, so that wrong types are the errors of Go's JSON decoder.
"""

from __future__ import annotations

from typing import Any

from llmbridge.testing.asked import embedding_inputs

from .base import Refused

__all__ = ["check", "check_embed"]

_GO = {str: "string", bool: "bool", list: "array", dict: "object", int: "number", float: "number"}
_LEVELS = ("low", "medium", "high", "max")


def check(request: dict[str, Any]) -> None:
    """Refuses a chat request without a model, or with messages, tools or settings of a wrong shape."""
    _typed(request, "model", str, "ChatRequest.model")
    _typed(request, "stream", bool, "ChatRequest.stream")
    _typed(request, "messages", list, "ChatRequest.messages")
    _typed(request, "tools", list, "ChatRequest.tools")
    _typed(request, "options", dict, "ChatRequest.options")
    if not request.get("model"):
        raise Refused(400, "model is required")
    for message in request.get("messages") or []:
        _check_message(message)
    for tool in request.get("tools") or []:
        _check_tool(tool)
    think = request.get("think")
    if isinstance(think, str) and think not in _LEVELS:
        raise Refused(400, f'invalid think value: "{think}" (must be "high", "medium", "low", "max", true, or false)')
    wanted = request.get("format")
    if not (wanted is None or wanted in ("", "json") or isinstance(wanted, dict)):
        raise Refused(400, f'invalid format: {wanted!r}; expected "json" or a valid JSON Schema object')


def check_embed(request: dict[str, Any]) -> None:
    """Refuses a request for embeddings without a model, or with an input that is no text."""
    if not isinstance(request.get("model"), str) or not request["model"]:
        raise Refused(400, "model is required")
    given = request.get("input")
    texts = given if isinstance(given, list) else [given]
    if not all(isinstance(text, str) for text in texts) or not embedding_inputs(request):
        raise Refused(400, "invalid input type")


def _typed(fields: Any, name: str, kind: type, field: str) -> None:
    if not isinstance(fields, dict):
        raise _mismatch(fields, field.rpartition(".")[0] or field, "object")
    value = fields.get(name)
    if value is not None and not isinstance(value, kind):
        raise _mismatch(value, field, _GO[kind])


def _mismatch(value: Any, field: str, wanted: str) -> Refused:
    given = _GO.get(type(value), "null")
    return Refused(400, f"json: cannot unmarshal {given} into Go struct field {field} of type {wanted}")


def _check_message(message: Any) -> None:
    for name in ("role", "content", "thinking", "tool_name", "tool_call_id"):
        _typed(message, name, str, f"ChatRequest.messages.{name}")
    for name in ("images", "tool_calls"):
        _typed(message, name, list, f"ChatRequest.messages.{name}")
    for image in message.get("images") or []:
        if not isinstance(image, str) or image.startswith(("data:", "http:", "https:")):
            raise Refused(400, "illegal base64 data at input byte 4")
    for call in message.get("tool_calls") or []:
        _typed(call, "function", dict, "ChatRequest.messages.tool_calls.function")
        _typed(call.get("function") or {}, "name", str, "ChatRequest.messages.tool_calls.function.name")
        _typed(call.get("function") or {}, "arguments", dict, "ChatRequest.messages.tool_calls.function.arguments")


def _check_tool(tool: Any) -> None:
    _typed(tool, "function", dict, "ChatRequest.tools.function")
    function = tool.get("function") or {}
    _typed(function, "name", str, "ChatRequest.tools.function.name")
    _typed(function, "parameters", dict, "ChatRequest.tools.function.parameters")
