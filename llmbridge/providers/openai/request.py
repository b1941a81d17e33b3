"""Requests in OpenAI's Chat Completions: messages, tools, structured output.

Source: OpenAI API reference, chat completions, "Create chat completion".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbridge._json import remembered
from llmbridge.messages import Message
from llmbridge.providers._values import own_form

if TYPE_CHECKING:
    from llmbridge.schema import Schema
    from llmbridge.tools import Tool, ToolChoice

__all__ = [
    "described",
    "encode_choice",
    "encode_format",
    "encode_message",
    "encode_schema_tool",
    "encode_tool",
    "with_instruction",
]

_NOT_SENT = ("by", "raw", "signature")  # fields of a call


def encode_message(
    message: Message, reasoning_field: str | None = "", proofs: str = "", own_images: bool = True
) -> dict[str, Any]:
    """A message in OpenAI's form.

    Args:
        message: Its form is almost OpenAI's own.
        reasoning_field: The field for the reasoning of earlier turns; "" to leave it out, None for the field it came
            in.
        proofs: The list for reasoning with its signatures, used instead of that field; "" if there is none.
        own_images: Whether the service's own images are sent back.
    """
    if message.content.__class__ is str and not message.extra:
        return {"role": message.role, "content": message.content}
    content = message.content
    thoughts: list[Any] = []
    fields: dict[str, Any] = {}
    if isinstance(content, list):
        thoughts = [part for part in content if not isinstance(part, str) and part["type"] == "reasoning"]
        if message.role == "assistant":
            content, fields = _answered(content, own_images)
        content = _content(content, bool(thoughts))
    extra = {name: value for name, value in message.extra.items() if name != "is_error"}
    if message.role == "tool":
        extra.pop("name", None)
    if message.tool_calls:
        extra["tool_calls"] = [_call(call) for call in extra["tool_calls"]]
    if content is None and not extra and not fields:
        content = ""  # cut off while reasoning: only turns with calls may lack content
    back = _reasoning(thoughts, reasoning_field, proofs, given=proofs in extra)
    return {"role": message.role, "content": content, **back, **fields, **extra}


def _answered(content: list[Any], own_images: bool) -> tuple[list[Any], dict[str, Any]]:
    """The parts of an assistant's turn that are content, and the fields for the others."""
    parts: list[Any] = []
    fields: dict[str, Any] = {}
    for part in content:
        kind = "text" if isinstance(part, str) else part["type"]
        if kind in ("image_url", "input_audio", "file"):
            from llmbridge.providers.openai.extras import write_media

            if text := write_media(part, fields, parts, own_images):
                parts.append({"type": "text", "text": text})
        elif kind == "opaque" and "type" not in part["raw"]:
            for name, value in part["raw"].items():
                fields[name] = [*fields.get(name, []), *value] if isinstance(value, list) else value
        elif kind not in ("reasoning", "tool_call"):
            parts.append(part)
    return parts, fields


def _reasoning(thoughts: list[Any], field: str | None, proofs: str, given: bool) -> dict[str, Any]:
    """The field with earlier reasoning: the entries with signatures if there are any, or its text."""
    if given:  # the caller passes them in the service's form
        return {}
    if thoughts and proofs:
        from llmbridge.providers.openai.reasoning import write_entries

        if entries := write_entries(thoughts, proofs):
            return {proofs: entries}
    text = "".join(str(part.get("text") or "") for part in thoughts)
    if text and field is None:
        field = next((part["field"] for part in thoughts if part.get("field")), "")
    return {field: text} if text and field else {}


def _content(parts: list[Any], had_reasoning: bool) -> Any:
    """The parts in OpenAI's form; as one text if only text is left without the reasoning."""
    if had_reasoning and all(isinstance(part, str) or set(part) == {"type", "text"} for part in parts):
        return "".join(part if isinstance(part, str) else part["text"] for part in parts) or None
    return [{"type": "text", "text": part} if isinstance(part, str) else _part(part) for part in parts] or None


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a message, without fields that only answers have."""
    if part["type"] in ("text", "opaque"):
        return own_form(part)
    return {name: value for name, value in part.items() if name not in ("by", "raw", "transcript")}


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call in the service's own form, with the service's extra fields."""
    raw = call.get("raw") or {}
    kept = {"type": "function", **raw, **{name: value for name, value in call.items() if name not in _NOT_SENT}}
    form = "custom" if kept["type"] == "custom" else "function"
    if kept["type"] != form and form not in raw:
        return dict(raw) or kept
    called = {**(raw.get(form) or {}), **kept[form]}
    if form == "function" and not isinstance(called.get("arguments"), str):
        called["arguments"] = json.dumps(called.get("arguments") or {}, ensure_ascii=False)
    return {**kept, form: called}


def _taken(schema: Mapping[str, Any], grammar: bool) -> dict[str, Any]:
    """A schema in the form that is sent."""
    from llmbridge._schemas.subsets import as_openai_takes, without_patterns

    return without_patterns(schema) if grammar else as_openai_takes(schema)


@remembered
def described(name: str, description: str, parameters: Mapping[str, Any], grammar: bool = False) -> dict[str, Any]:
    """The description and parameters of a function, in the form that is sent.

    Args:
        name: The tool's, for an error.
        description: May be "".
        parameters: The tool's own schema.
        grammar: As for `encode_tool`.

    Raises:
        InvalidRequest: The service does not accept the schema.
    """
    from llmbridge._schemas.subsets import tool_form

    described_tool, schema = tool_form(name, description, parameters)
    return {**described_tool, "parameters": _taken(schema, grammar)}


def encode_tool(tool: Tool, grammar: bool = False) -> dict[str, Any]:
    """A tool that the model may call.

    Args:
        tool: The tool.
        grammar: Whether the server turns schemas into a grammar, which fails at patterns: they go into descriptions.
    """
    made = described(tool.name, tool.description, tool.parameters, grammar)
    if tool.raw is not None:
        inner = tool.raw.get("function")
        if not isinstance(inner, Mapping) or "parameters" not in inner:
            return dict(tool.raw)
        return {**tool.raw, "function": {**inner, **made}}
    function: dict[str, Any] = {"name": tool.name, **made}
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def encode_choice(choice: ToolChoice) -> Any:
    """Whether the model may, must or must not call a tool."""
    if choice.raw is not None:
        return dict(choice.raw)
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def encode_format(schema: Schema, bounds: bool = True, grammar: bool = False) -> dict[str, Any]:
    """The response format for a schema; strict if the schema allows it.

    Args:
        schema: What the answer must match.
        bounds: Whether the service accepts `minimum`, `maxItems` and the like; if not, they go into descriptions.
        grammar: As for `encode_tool`.
    """
    sent, strict = _form(schema.json_schema, bounds, grammar)
    form: dict[str, Any] = {"name": schema.name, "schema": sent}
    if strict:
        form["strict"] = True
    if schema.description:
        form["description"] = schema.description
    return {"type": "json_schema", "json_schema": form}


@remembered
def _form(document: Mapping[str, Any], bounds: bool, grammar: bool) -> list[Any]:
    """A schema as it is sent, and whether it is strict."""
    from llmbridge._schemas.subsets import object_form, strict_form, without_bounds

    strict = strict_form(document)
    sent = _taken(object_form(document) if strict is None else strict, grammar)
    return [sent if bounds else without_bounds(sent), strict is not None]


def encode_schema_tool(schema: Schema, grammar: bool = False) -> dict[str, Any]:
    """The tool whose arguments are the structured answer."""
    description = schema.description or "Give the answer by calling this."
    made = described(schema.name, description, schema.json_schema, grammar)
    return {"type": "function", "function": {"name": schema.name, **made}}


def with_instruction(messages: list[dict[str, Any]], schema: Schema) -> list[dict[str, Any]]:
    """The messages, with the schema in the system message, for services that only have a JSON mode."""
    text = schema.instruction()
    if messages and messages[0]["role"] in ("system", "developer") and isinstance(messages[0]["content"], str):
        first = messages[0]
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]
