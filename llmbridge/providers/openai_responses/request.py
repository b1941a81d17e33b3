"""How a request is worded for the Responses API: the conversation as items, and functions without a wrapping.

Source: OpenAI API reference, responses, "Create a model response"; the types of openai-python.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidRequest
from llmbridge.messages import Message, call_of
from llmbridge.providers._values import TEXTS, call_id, media_of, own_form

if TYPE_CHECKING:
    from llmbridge.events import ToolCall
    from llmbridge.schema import Schema
    from llmbridge.tools import Tool, ToolChoice

__all__ = ["encode_choice", "encode_items", "encode_params", "encode_schema", "encode_schema_tool", "encode_tool"]

_CALL_ID = re.compile(r".{1,64}", re.DOTALL)
_RENAMED = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
_LOGPROBS = "message.output_text.logprobs"


def encode_items(messages: tuple[Message, ...], own_instructions: bool) -> tuple[str | None, list[dict[str, Any]]]:
    """The instructions, and the items of the conversation.

    Args:
        messages: What stands at their beginning for the system becomes the instructions.
        own_instructions: The caller gives the instructions as a parameter: then the messages stay messages.

    Raises:
        InvalidRequest: Something in a message has no counterpart; says which.
    """
    instructions: list[str] = []
    items: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        if message.role in ("system", "developer") and not (items or own_instructions):
            instructions.append(message.text)
        elif message.role == "assistant":
            items += _assistant_items(message)
        elif message.role == "tool":
            items.append(_call_output(message, f"messages[{number}]"))
        else:
            items.append({"type": "message", "role": message.role, "content": _content(message, f"messages[{number}]")})
    if not (items or own_instructions):  # the service wants something to answer
        return encode_items(messages, True)
    return "\n\n".join(instructions) or None, items


def _assistant_items(message: Message) -> list[dict[str, Any]]:
    """A turn as items, in the order of its parts: reasoning belongs to what stands behind it."""
    items: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for part in message.parts:
        if part["type"] == "reasoning":
            if thought := _reasoning(part):
                items += [*_said(texts), *thought]
                texts = []
        elif part["type"] in ("tool_call", "opaque"):
            items += [*_said(texts), own_form(part) if part["type"] == "opaque" else _function_call(call_of(part))]
            texts = []
        elif part["type"] in TEXTS:
            texts.append({"type": "output_text", "text": part.get("text")})
        else:
            texts.append(part)
    return items + _said(texts)


def _function_call(call: ToolCall) -> dict[str, Any]:
    return {"type": "function_call", "call_id": _call_id(call.id), "name": call.name, "arguments": call.text}


def _said(texts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The message that parts of an answer make, if there is anything in them."""
    plain = all(part["type"] == "output_text" and isinstance(part["text"], str) for part in texts)
    content = "".join(part["text"] for part in texts) if plain else texts
    return [{"type": "message", "role": "assistant", "content": content}] if content else []


def _reasoning(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Reasoning as an item; only what the service itself has encrypted, which "id:content" shows."""
    identity, colon, encrypted = str(part.get("signature") or "").partition(":")
    if not (colon and encrypted):
        return []
    summary = [{"type": "summary_text", "text": part["text"]}] if part.get("text") else []
    named = {"id": identity} if identity else {}
    return [{"type": "reasoning", **named, "summary": summary, "encrypted_content": encrypted}]


def _call_output(message: Message, where: str) -> dict[str, Any]:
    id = message.extra.get("tool_call_id")
    if not id:
        raise InvalidRequest(f"{where} answers a tool call: say which one with 'tool_call_id'")
    return {"type": "function_call_output", "call_id": _call_id(str(id)), "output": _content(message, where)}


def _call_id(given: str) -> str:
    """Ids of other services may be longer than this one takes."""
    return call_id(given, _CALL_ID, 32) if given else given


def _content(message: Message, where: str) -> str | list[dict[str, Any]]:
    if isinstance(message.content, str):
        return message.content
    return [
        _part(part, f"{where}: content[{place}]")
        for place, part in enumerate(message.parts)
        if part["type"] != "reasoning"
    ]


def _part(part: dict[str, Any], where: str) -> dict[str, Any]:
    """A part of a message; what llmbridge does not know is taken for the service's own."""
    kind = part["type"]
    if kind in TEXTS:
        return {"type": "input_text", "text": part.get("text")}
    if kind == "file" and isinstance(file := part.get("file"), Mapping) and "file_id" in file:
        return {"type": "input_file", "file_id": file["file_id"]}
    media = media_of(part, where)
    if media is None or media.kind == "audio":
        return part
    if media.kind == "image":
        detail = {"detail": media.detail} if media.detail else {}
        return {"type": "input_image", "image_url": media.data_url, **detail}
    if media.url:
        return {"type": "input_file", "file_url": media.url}
    return {"type": "input_file", "filename": media.filename or "document.pdf", "file_data": media.data_url}


def encode_tool(tool: Tool) -> dict[str, Any]:
    """A tool that the model may call. Unless told otherwise, this service takes every function for a strict one."""
    from llmbridge.providers.openai.request import described

    if tool.raw is not None:
        has_schema = tool.raw.get("type") == "function" and "parameters" in tool.raw
        made = described(tool.name, tool.description, tool.parameters) if has_schema else {}
        return {**tool.raw, **made}
    made = described(tool.name, tool.description, tool.parameters)
    return {"type": "function", "name": tool.name, **made, "strict": bool(tool.strict)}


def encode_choice(choice: ToolChoice) -> Any:
    """Whether the model may, must, or must not call a tool."""
    if choice.raw is not None:
        return dict(choice.raw)
    return {"type": "function", "name": choice.name} if choice.mode == "tool" else choice.mode


def encode_schema(schema: Schema) -> dict[str, Any]:
    """The format that makes the service hold the model to a schema."""
    from llmbridge.providers.openai.request import encode_format

    return {"type": "json_schema", **encode_format(schema)["json_schema"]}


def encode_schema_tool(schema: Schema) -> dict[str, Any]:
    """The tool whose arguments are the structured answer."""
    from llmbridge.providers.openai import request as completions

    return {"type": "function", **completions.encode_schema_tool(schema)["function"], "strict": False}


def encode_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters where this service has them; one given by its own name wins.

    Raises:
        InvalidRequest: A value cannot be translated.
    """
    body = {name: value for name, value in params.items() if name not in _TRANSLATED}
    for name in _RENAMED.keys() & params.keys():
        body.setdefault(_RENAMED[name], params[name])
    if params.get("reasoning_effort") is not None:
        body["reasoning"] = {"effort": params["reasoning_effort"], **_given(params, "reasoning")}
    text: dict[str, Any] = {"verbosity": params["verbosity"]} if params.get("verbosity") else {}
    if params.get("response_format") is not None:
        text["format"] = _format(params["response_format"])
    if text or "text" in params:
        body["text"] = {**text, **_given(params, "text")}
    if params.get("logprobs"):
        include = params.get("include") or []
        if not isinstance(include, list):
            raise InvalidRequest("include must be a list")
        body["include"] = [*include, _LOGPROBS]
    return body


_TRANSLATED = {*_RENAMED, "n", "reasoning_effort", "response_format", "verbosity", "logprobs"}


def _given(params: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = params.get(name)
    if value is not None and not isinstance(value, Mapping):
        raise InvalidRequest(f"{name} must be a mapping")
    return value or {}


def _format(form: Any) -> dict[str, Any]:
    """OpenAI's older way to ask for JSON, in which the schema is wrapped once more."""
    if not isinstance(form, Mapping) or not isinstance(form.get("type"), str):
        raise InvalidRequest("response_format must be a mapping like {'type': 'json_object'}")
    inner = form.get("json_schema")
    return {"type": form["type"], **inner} if isinstance(inner, Mapping) else dict(form)
