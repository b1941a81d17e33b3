"""Requests in Anthropic's dialect: parameters, tools and structured output.

The messages are translated by `content`.

Source: Anthropic API reference, "Create a Message"; the migration guide to version 2026-10-21.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbridge._json import remembered
from llmbridge.errors import InvalidRequest
from llmbridge.messages import ChatRequest
from llmbridge.providers.anthropic.content import encode_messages, text_block
from llmbridge.providers.anthropic.thinking import (
    NO_SAMPLING,
    VERSION,
    encode_effort,
    encode_limit,
    may_think,
    never_forced,
    thinks,
)

if TYPE_CHECKING:
    from llmbridge.messages import SchemaMode
    from llmbridge.tools import Tool, ToolChoice

__all__ = ["encode_body", "encode_headers", "schema_mode"]

_CHOICES = {"auto": "auto", "required": "any", "none": "none"}
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_FEATURE = re.compile(r"[!-+\--~]+")  # an item of a list in a header: no white space or comma
_PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
_JSON_ONLY = "Answer with one JSON object and nothing else: no text around it, no code fence."


def encode_headers(params: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """The requested API version, and the headers made of the settings, which are removed from the parameters.

    Args:
        params: Changed; the rest is for the body.

    Raises:
        InvalidRequest: A setting is not valid.

    Example:
        >>> encode_headers({"beta": ["a", "b"]})
        ('2023-06-01', {'anthropic-beta': 'a,b'})
    """
    headers: dict[str, str] = {}
    version, beta = params.pop("api_version", None), params.pop("beta", None)
    if version is not None:
        if not isinstance(version, str) or not _DATE.fullmatch(version):
            raise InvalidRequest(f"api_version must be a date like {VERSION!r}, not {str(version)[:40]!r}")
        headers["anthropic-version"] = version
    features = beta.split(",") if isinstance(beta, str) else beta or []
    if not isinstance(features, list) or not all(isinstance(feature, str) for feature in features):
        raise InvalidRequest("beta must be the name of a beta feature, or a list of names")
    if names := [feature.strip() for feature in features]:
        if not all(_FEATURE.fullmatch(name) for name in names):
            raise InvalidRequest("a name in beta is not valid: use letters, digits and dashes")
        headers["anthropic-beta"] = ",".join(names)
    return version or VERSION, headers


def encode_body(request: ChatRequest, params: dict[str, Any], version: str, answer_tool: str | None) -> dict[str, Any]:
    """The body of a request.

    Args:
        request: The request.
        params: The request's parameters without the settings; changed.
        version: The API version.
        answer_tool: The tool added for the structured answer, or None.

    Raises:
        InvalidRequest: Anthropic does not support a part of the request.
    """
    system = _own_system(params)
    instructions, turns = encode_messages(request.messages, version >= NO_SAMPLING)
    system += instructions
    _rename(params)
    output = _output_config(request, params, system)
    max_tokens = encode_limit(params, encode_effort(request.model, params, output))
    if output:
        _merge(params, "output_config", output)
    body: dict[str, Any] = {"model": request.model, "max_tokens": max_tokens, "messages": turns, "stream": True}
    if system:
        body["system"] = system[0]["text"] if len(system) == 1 and _is_plain(system[0]) else system
    parallel = params.pop("parallel_tool_calls", None)
    if request.tools or request.tool_choice is not None or answer_tool is not None:
        _add_tools(body, request, parallel is False, answer_tool)
    body.update(params)
    return body


def _own_system(params: dict[str, Any]) -> list[dict[str, Any]]:
    """The blocks of a `system` parameter in the dialect's own form."""
    own = params.pop("system", None)
    if own is None or isinstance(own, str):
        return [text_block(own)] if own else []
    if isinstance(own, list) and all(isinstance(block, dict) for block in own):
        return list(own)
    raise InvalidRequest("system must be a str, or a list of text blocks")


def _is_plain(block: Mapping[str, Any]) -> bool:
    return set(block) == {"type", "text"}


def _rename(params: dict[str, Any]) -> None:
    """Renames parameters that the dialect calls otherwise; a value under its own name wins."""
    stop, user = params.pop("stop", None), params.pop("user", None)
    if stop is not None:
        params.setdefault("stop_sequences", [stop] if isinstance(stop, str) else stop)
    if user is not None:
        _merge(params, "metadata", {"user_id": user})


def _merge(params: dict[str, Any], name: str, fields: Mapping[str, Any]) -> None:
    """Adds fields to a parameter; fields given in the dialect's own form win."""
    own = params.get(name)
    if own is None or isinstance(own, Mapping):
        params[name] = {**fields, **(own or {})}


# -- structured output ------------------------------------------------------------------------------------------------


def schema_mode(request: ChatRequest) -> SchemaMode:
    """How structured output is requested.

    A schema that is not strict, or is recursive, is rejected as a format. A tool accepts any schema, but cannot be
    forced while the model thinks, and on some models never.
    """
    if request.schema_mode is not None or request.schema is None:
        return request.schema_mode or "native"
    if _form(request.schema.json_schema)[1]:
        return "native"
    return "json" if may_think(request) or never_forced(request.model) else "tool"


def _output_config(request: ChatRequest, params: dict[str, Any], system: list[dict[str, Any]]) -> dict[str, Any]:
    """The requested form of the answer; JSON without a schema is only a sentence added to `system`."""
    schema = request.schema
    if schema is None:
        return _response_format(params.pop("response_format", None), system)
    mode = schema_mode(request)
    if mode == "json":
        system.append(text_block(schema.instruction()))
    if mode != "native":
        return {}
    return _json_schema(_form(schema.json_schema)[0])


@remembered
def _form(document: Mapping[str, Any]) -> list[Any]:
    """A schema as a format, and whether the service takes it as one."""
    from llmbridge._schemas.subsets import holds_itself, object_form, strict_form, without_bounds

    strict = strict_form(document)
    form = object_form(document) if strict is None else without_bounds(strict)
    return [form, strict is not None and not holds_itself(document)]


def _response_format(form: Any, system: list[dict[str, Any]]) -> dict[str, Any]:
    """OpenAI's `response_format`."""
    kind = form.get("type") if isinstance(form, Mapping) else None
    if form is None or kind == "text":
        return {}
    if kind == "json_object":
        system.append(text_block(_JSON_ONLY))
        return {}
    inner = form.get("json_schema") if kind == "json_schema" else None
    schema = inner.get("schema") if isinstance(inner, Mapping) else None
    if not isinstance(schema, Mapping):
        raise InvalidRequest(
            "response_format must be {'type': 'text'}, {'type': 'json_object'} or "
            "{'type': 'json_schema', 'json_schema': {'name': ..., 'schema': {...}}}"
        )
    return _json_schema(schema)


def _json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"format": {"type": "json_schema", "schema": dict(schema)}}


# -- tools ------------------------------------------------------------------------------------------------------------


def _add_tools(body: dict[str, Any], request: ChatRequest, one_by_one: bool, answer_tool: str | None) -> None:
    tools = [_encode_tool(tool) for tool in request.tools]
    choice = None if request.tool_choice is None else _encode_choice(request.tool_choice)
    if answer_tool is not None and request.schema is not None:
        if any(tool.name == answer_tool for tool in request.tools):
            raise InvalidRequest(f"the schema and a tool are both called {answer_tool!r}: rename one of them")
        # With other tools beside it, the model may call those first, so any tool call is required.
        if choice is None and never_forced(request.model):
            raise InvalidRequest(
                "schema_mode='tool': this model cannot be forced to call a tool: leave schema_mode out"
            )
        if choice is None and thinks(request.params):
            raise InvalidRequest(
                "schema_mode='tool': Anthropic cannot force a tool while the model thinks: leave schema_mode out, or "
                "reasoning_effort"
            )
        choice = choice or ({"type": "any"} if tools else {"type": "tool", "name": answer_tool})
        description = request.schema.description or "Give the answer by calling this."
        tools.append({"name": answer_tool, **_described(answer_tool, description, request.schema.json_schema)})
    if one_by_one and tools:
        choice = choice or {"type": "auto"}
        if choice.get("type") != "none":
            choice = {"disable_parallel_tool_use": True, **choice}
    if tools:
        body["tools"] = tools
    if choice is not None:
        body["tool_choice"] = choice


def _encode_tool(tool: Tool) -> dict[str, Any]:
    if tool.raw is not None:
        if "input_schema" not in tool.raw:
            return dict(tool.raw)
        return {**tool.raw, **_described(tool.name, tool.description, tool.parameters)}
    from llmbridge._schemas.subsets import holds_itself, without_bounds

    if tool.strict and holds_itself(tool.parameters):
        raise InvalidRequest(
            f"the tool {tool.name!r} is strict, but its parameters are recursive, which Anthropic rejects: "
            "leave strict out"
        )
    encoded = {"name": tool.name, **_described(tool.name, tool.description, tool.parameters)}
    if tool.strict:
        encoded["input_schema"] = without_bounds(encoded["input_schema"])
    if tool.strict is not None:
        encoded["strict"] = tool.strict
    return encoded


@remembered
def _described(name: str, description: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A tool's description and schema.

    Raises:
        InvalidRequest: The service rejects a property's name. It checks only those at the top.
    """
    from llmbridge._schemas.subsets import tool_form

    described, schema = tool_form(name, description, parameters)
    for key in schema.get("properties") or ():
        if not _PROPERTY.fullmatch(key):
            raise InvalidRequest(
                f"tool {name}: Anthropic rejects the property {key!r:.80}: a name has 1 to 64 characters of a-z, A-Z, "
                "0-9, _, . and -"
            )
    return {**described, "input_schema": schema}


def _encode_choice(choice: ToolChoice) -> dict[str, Any]:
    if choice.raw is not None:
        return dict(choice.raw)
    if choice.mode == "tool":
        return {"type": "tool", "name": choice.name}
    return {"type": _CHOICES[choice.mode]}
