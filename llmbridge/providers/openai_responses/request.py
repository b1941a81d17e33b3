"""Requests to the Responses API: the conversation as items, and functions without a wrapper.

Source: OpenAI API reference, responses, "Create a model response"; the types of openai-python.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidRequest
from llmbridge.messages import Message, call_of
from llmbridge.providers._values import TEXTS, call_id, mapping, media_of, own_form, string
from llmbridge.providers.openai_responses.items import INPUTS, kept, message_parts, part_text, whole_text

if TYPE_CHECKING:
    from llmbridge.events import ToolCall
    from llmbridge.schema import Schema
    from llmbridge.tools import Tool, ToolChoice

__all__ = ["encode_choice", "encode_items", "encode_params", "encode_schema", "encode_schema_tool", "encode_tool"]

_CALL_ID = re.compile(r".{1,64}", re.DOTALL)
_RENAMED = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
_LOGPROBS = "message.output_text.logprobs"
_MEDIA = ("image_url", "input_audio", "file")
_APPROVED = ("true", "yes", "y", "ok", "okay", "approve", "approved")
_OF_ANSWERS = ("tool_call_id", "name", "kind", "is_error")


def encode_items(
    messages: tuple[Message, ...], own_instructions: bool, stored: bool = True
) -> tuple[str | None, list[dict[str, Any]]]:
    """The instructions, and the items of the conversation.

    Args:
        messages: System messages at the start become the instructions.
        own_instructions: Whether the caller passes `instructions`: then system messages stay messages.
        stored: Whether the service stores answers; if not, whatever it would look up is left out.

    Raises:
        InvalidRequest: The API does not support a part of a message. The message says which.
    """
    instructions: list[str] = []
    items: list[dict[str, Any]] = []
    calls: dict[str, ToolCall] = {}
    for number, message in enumerate(messages):
        if message.role in ("system", "developer") and not (items or own_instructions):
            instructions.append(message.text)
        elif message.role == "assistant":
            items += _assistant_items(message, stored)
            calls.update((call.id, call) for call in message.tool_calls)
        elif message.role == "tool":
            items.append(_call_output(message, calls, f"messages[{number}]"))
        else:
            items.append({"type": "message", "role": message.role, "content": _content(message, f"messages[{number}]")})
    if not (items or own_instructions):  # the service needs some input
        return encode_items(messages, True, stored)
    return "\n\n".join(instructions) or None, items


def _assistant_items(message: Message, stored: bool) -> list[dict[str, Any]]:
    """A turn as items, in the order of its parts: reasoning belongs to the item after it."""
    items: list[dict[str, Any]] = []
    texts: list[dict[str, Any]] = []
    for part in message.parts:
        if (text := _said_in(part)) is not None:
            texts += text
        elif made := _item(part, stored):
            items += [*_said(texts), made]
            texts = []
    return items + _said(texts)


def _said_in(part: dict[str, Any]) -> list[dict[str, Any]] | None:
    """A part's contribution to the model's message; None if it is an item of its own."""
    kind, raw = part["type"], mapping(part.get("raw"))
    if kind in _MEDIA and raw.get("type") != "image_generation_call":
        transcript = string(part.get("transcript"))  # only text is accepted there
        return [{"type": "output_text", "text": transcript}] if transcript else []
    if kind in TEXTS and raw.get("type") != "message":
        more = part if kind == "output_text" else {}
        return [{**more, "type": "output_text", "text": part.get("text")}]
    return [part] if kind == "refusal" else None


def _item(part: dict[str, Any], stored: bool) -> dict[str, Any] | None:
    """The item for a part of a turn; None if the service does not accept it."""
    kind, raw = part["type"], mapping(part.get("raw"))
    if kind == "tool_call":
        return kept(_call(call_of(part)), stored)
    if kind == "reasoning":
        item = raw or _reasoning(part)
        return kept(item, stored) if item and (stored or item.get("encrypted_content")) else None
    if kind in TEXTS:
        return kept(_message(raw, string(part.get("text"))), stored)
    if kind in _MEDIA:
        data = string(mapping(part.get("image_url")).get("url")).partition(",")[2]
        return kept({**raw, "result": data}, stored)
    return kept(own_form(part), stored)


def _call(call: ToolCall) -> dict[str, Any]:
    """A call as an item, with the service's extra fields."""
    raw = dict(call.raw or {})
    if call.kind in INPUTS:
        kind = "function_call" if call.kind == "function" else "custom_tool_call"
        written = call.text if call.kind == "function" else call.written
        return {"type": kind, **raw, "call_id": _call_id(call.id), "name": call.name, INPUTS[call.kind]: written}
    return raw or {"type": call.kind, "id": call.id, "name": call.name, "arguments": call.written}


def _message(raw: Mapping[str, Any], text: str) -> dict[str, Any]:
    """A message in the service's own form, with its current text."""
    parts = message_parts(raw)
    places = [place for place, part in enumerate(parts) if part_text(part) is not None]
    if text != whole_text(parts):
        first = places[0] if places else len(parts)
        begun = parts[first] if places else {"type": "output_text"}
        whole = {**begun, "refusal" if begun.get("type") == "refusal" else "text": text}
        rest = [part for place, part in enumerate(parts) if place > first and place not in places]
        parts = [*parts[:first], whole, *rest]
    return {**raw, "content": [dict(part) for part in parts]}


def _said(texts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A message made of parts of an answer, unless they are empty."""
    plain = all(part.keys() == {"type", "text"} and isinstance(part["text"], str) for part in texts)
    content = "".join(part["text"] for part in texts) if plain else texts
    return [{"type": "message", "role": "assistant", "content": content}] if content else []


def _reasoning(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """Reasoning as an item: the service's own, or encrypted by the service (marked by "id:content")."""
    if "summary" in part or "encrypted_content" in part:
        return dict(part)
    identity, colon, encrypted = str(part.get("signature") or "").partition(":")
    if not (colon and encrypted):
        return None
    summary = [{"type": "summary_text", "text": part["text"]}] if part.get("text") else []
    named = {"id": identity} if identity else {}
    return {"type": "reasoning", **named, "summary": summary, "encrypted_content": encrypted}


def _call_output(message: Message, calls: Mapping[str, ToolCall], where: str) -> dict[str, Any]:
    """The result of a call, in the form for its kind of call."""
    id = str(message.extra.get("tool_call_id") or "")
    if not id:
        raise InvalidRequest(f"{where} is a tool result: name the call in 'tool_call_id'")
    call = calls.get(id)
    kind = str(message.extra.get("kind") or "function") if call is None else call.kind
    content: Any = _content(message, where)
    if kind.endswith("approval_request"):
        return _approval(message, kind, id)
    caller = {"caller": call.raw["caller"]} if call is not None and call.raw and call.raw.get("caller") else {}
    if kind in INPUTS:
        answers = "function_call_output" if kind == "function" else "custom_tool_call_output"
        return {"type": answers, "call_id": _call_id(id), "output": content, **caller}
    if isinstance(content, list) and len(content) == 1 and content[0].get("type") not in TEXTS:
        content = content[0]  # a screenshot
    more = {name: value for name, value in message.extra.items() if name not in _OF_ANSWERS}
    return {"type": f"{kind}_output", "call_id": id, "output": content, **caller, **more}


def _approval(message: Message, kind: str, id: str) -> dict[str, Any]:
    """Whether a tool may be run, from the caller's words."""
    text = message.text.strip()
    approve = text.lower().rstrip(".!") in _APPROVED and not message.extra.get("is_error")
    reason = {"reason": text} if text and not approve else {}
    answers = f"{kind.removesuffix('_request')}_response"
    return {"type": answers, "approval_request_id": id, "approve": approve, **reason}


def _call_id(given: str) -> str:
    """An ID that is short enough; those of other services may be longer."""
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
    """A part of a message; unknown types are sent unchanged."""
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
    """A tool that the model may call. By default, this service treats every function as strict."""
    from llmbridge.providers.openai.request import described

    if tool.raw is not None:
        has_schema = tool.raw.get("type") == "function" and "parameters" in tool.raw
        made = described(tool.name, tool.description, tool.parameters) if has_schema else {}
        return {**tool.raw, **made}
    made = described(tool.name, tool.description, tool.parameters)
    return {"type": "function", "name": tool.name, **made, "strict": bool(tool.strict)}


def encode_choice(choice: ToolChoice) -> Any:
    """Whether the model may, must or must not call a tool."""
    if choice.raw is not None:
        return dict(choice.raw)
    return {"type": "function", "name": choice.name} if choice.mode == "tool" else choice.mode


def encode_schema(schema: Schema) -> dict[str, Any]:
    """The text format for a schema."""
    from llmbridge.providers.openai.request import encode_format

    return {"type": "json_schema", **encode_format(schema)["json_schema"]}


def encode_schema_tool(schema: Schema) -> dict[str, Any]:
    """The tool whose arguments are the structured answer."""
    from llmbridge.providers.openai import request as completions

    return {"type": "function", **completions.encode_schema_tool(schema)["function"], "strict": False}


def encode_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in the service's places; a value under its own name wins.

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
    """OpenAI's older form of JSON mode, in which the schema has one more wrapper."""
    if not isinstance(form, Mapping) or not isinstance(form.get("type"), str):
        raise InvalidRequest("response_format must be a mapping like {'type': 'json_object'}")
    inner = form.get("json_schema")
    return {"type": form["type"], **inner} if isinstance(inner, Mapping) else dict(form)
