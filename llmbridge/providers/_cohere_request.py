"""How a request is worded for Cohere's Chat API, version 2.

Source: Cohere API reference, chat (v2); its guides to tool use, structured outputs, images and reasoning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidRequest
from llmbridge.events import ToolCall
from llmbridge.messages import ChatRequest, Message
from llmbridge.providers._values import as_text, media_of

if TYPE_CHECKING:
    from llmbridge.messages import SchemaMode
    from llmbridge.tools import Tool

__all__ = ["encode_body", "schema_mode"]

_TEXTS = ("text", "input_text", "output_text")
_USUAL = ("n", "parallel_tool_calls")  # what gets here asks for no more than the service does anyway
_DROPPED = ("tool_calls", "is_error", "name")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_ADVICE = {
    "audio": "Cohere takes no sound: transcribe it and send the text",
    "document": "Cohere takes documents as text alone: pass it as documents=[...], or send images of the pages",
}


def encode_body(request: ChatRequest) -> dict[str, Any]:
    """The body of a request for an answer.

    Raises:
        InvalidRequest: Something in it has no place there; says what, and what to do.
    """
    body: dict[str, Any] = {
        "model": request.model,
        "messages": [_message(message, f"messages[{i}]") for i, message in enumerate(request.messages)],
        "stream": True,
    }
    if any(message.role == "tool" and isinstance(message.content, list) for message in request.messages):
        from llmbridge.providers.openai.rules import moved_media  # Cohere takes images from users only, too

        body["messages"] = moved_media(body["messages"])
    if request.tools or request.schema is not None:
        _add_structure(request, body)
    for name, value in request.params.items():
        if name in _USUAL:
            continue
        place, translate = _TRANSLATED.get(name, (name, _as_given))
        if place == name or (value is not None and place not in request.params):  # Cohere's own spelling wins
            body[place] = translate(value)
    return body


def schema_mode(request: ChatRequest) -> SchemaMode:
    """How structured output is asked for; a response format cannot stand beside tools."""
    return request.schema_mode or ("tool" if request.tools else "native")


def _format(value: Any) -> Any:
    inner = value.get("json_schema") if isinstance(value, Mapping) else None
    if isinstance(inner, Mapping) and value.get("type") == "json_schema" and isinstance(inner.get("schema"), Mapping):
        return {"type": "json_object", "json_schema": inner["schema"]}
    return value


def _thinking(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return {"type": "enabled", "token_budget": value} if value else {"type": "disabled"}
    if not isinstance(value, str) or value not in _EFFORTS:
        raise InvalidRequest(
            f"reasoning_effort must be one of {', '.join(_EFFORTS)}, or a number of tokens, not {str(value)[:40]!r}"
        )
    return {"type": "disabled" if value == "none" else "enabled"}


def _as_given(value: Any) -> Any:
    return value


def _list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


# Of each name of llmbridge's: Cohere's own, and how its value is translated.
_TRANSLATED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "max_completion_tokens": ("max_tokens", _as_given),
    "top_p": ("p", _as_given),
    "top_k": ("k", _as_given),
    "stop": ("stop_sequences", _list),
    "reasoning_effort": ("thinking", _thinking),
    "response_format": ("response_format", _format),
}


def _message(message: Message, where: str) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str) and not message.extra:
        return {"role": role, "content": message.content}
    # Cohere knows no name of who speaks, and the text says what went wrong.
    extra = {name: value for name, value in message.extra.items() if name not in _DROPPED}
    made: dict[str, Any] = {"role": role}
    content = _content(message, where)
    if message.calls:
        made["tool_calls"] = [_call(call) for call in message.calls]
        thoughts = (str(part.get("text") or "") for part in message.parts if part["type"] == "reasoning")
        if plan := "".join(thoughts):
            made["tool_plan"] = plan
    if content or not message.calls:
        made["content"] = content
    return {**made, **extra}


def _content(message: Message, where: str) -> Any:
    """Text alone as text, since older models take nothing else; reasoning is not sent back as content."""
    parts = [(i, as_text(part)) for i, part in enumerate(message.parts) if part["type"] != "reasoning"]
    if all(part["type"] in _TEXTS and isinstance(part.get("text"), str) for _, part in parts):
        return "".join(part["text"] for _, part in parts)
    return [_part(part, f"{where}: content[{i}]") for i, part in parts]


def _part(part: dict[str, Any], where: str) -> dict[str, Any]:
    if part["type"] in _TEXTS:
        return {**part, "type": "text"}
    media = media_of(part, where)
    if media is None:
        return part
    if media.kind != "image":
        raise InvalidRequest(f"{where}: {_ADVICE[media.kind]}")
    detail = {"detail": media.detail} if media.detail else {}
    return {"type": "image_url", "image_url": {"url": media.data_url, **detail}}


def _call(call: ToolCall) -> dict[str, Any]:
    arguments = call.text if call.text and call.problem is None else json.dumps(call.arguments, ensure_ascii=False)
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def _add_structure(request: ChatRequest, body: dict[str, Any]) -> None:
    """Adds the tools and the schema. A tool that must be called is the only one that the model gets to see."""
    from llmbridge.providers.openai.request import encode_schema_tool, with_instruction

    choice = request.tool_choice
    tools = list(request.tools)
    if choice is not None and choice.mode == "tool" and choice.raw is None:
        tools = [tool for tool in tools if tool.name == choice.name]
    sent = [_tool(tool) for tool in tools]
    if choice is not None and choice.raw is not None:
        body["tool_choice"] = choice.raw
    elif choice is not None and choice.mode != "auto":
        body["tool_choice"] = "NONE" if choice.mode == "none" else "REQUIRED"
    if request.schema is not None:
        mode = schema_mode(request)
        if mode == "tool":
            sent.append(encode_schema_tool(request.schema))
            body["tool_choice"] = "REQUIRED"
        elif mode == "json":
            body["messages"] = with_instruction(body["messages"], request.schema)
            body["response_format"] = {"type": "json_object"}
        else:
            body["response_format"] = {"type": "json_object", "json_schema": request.schema.json_schema}
    if sent:
        body["tools"] = sent
    if any(tool.strict for tool in tools):
        body["strict_tools"] = True


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.raw is not None:
        return dict(tool.raw)
    described = {"description": tool.description} if tool.description else {}
    return {"type": "function", "function": {"name": tool.name, **described, "parameters": tool.parameters}}
