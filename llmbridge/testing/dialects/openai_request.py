"""What a request in OpenAI's format must look like, with the words in which the service says that it does not."""

from __future__ import annotations

import re
from typing import Any

from llmbridge.testing.asked import embedding_inputs

from .base import Refused

__all__ = ["check", "check_embeddings", "check_messages"]

_ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FORMATS = ("text", "json_object", "json_schema")


def check(request: dict[str, Any]) -> None:
    """Refuses a chat request without messages, or with messages, tools or formats of a wrong shape."""
    check_messages(request)
    stream, options = request.get("stream"), request.get("stream_options")
    if stream is not None and not isinstance(stream, bool):
        raise Refused(400, "Invalid type for 'stream': expected a boolean.", "invalid_type", param="stream")
    if options is not None and not (stream and isinstance(options, dict)):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise Refused(400, message, param="stream_options")
    _check_roles(request["messages"])
    _check_results(request["messages"])
    for index, tool in enumerate(_list(request, "tools")):
        _check_tool(tool, f"tools[{index}]")
    _check_format(request.get("response_format"))


def check_messages(request: dict[str, Any]) -> None:
    """Refuses a request without any messages, and messages without a role."""
    messages = request.get("messages")
    if messages is None:
        raise _missing("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "Invalid 'messages': expected a non-empty array", "invalid_type", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _missing(f"messages[{index}].role")


def check_embeddings(request: dict[str, Any]) -> list[str]:
    """The texts of a request for embeddings, which must be there and must not be empty."""
    if not isinstance(request.get("model"), str):
        raise _missing("model")
    if request.get("input") is None:
        raise _missing("input")
    texts = embedding_inputs(request)
    if not texts or not all(texts):
        raise Refused(400, "'$.input' is invalid: expected non-empty strings or token arrays.", param="input")
    if request.get("encoding_format", "float") not in ("float", "base64"):
        raise Refused(400, "Invalid value for 'encoding_format'.", "invalid_value", param="encoding_format")
    return texts


def _missing(param: str) -> Refused:
    return Refused(400, f"Missing required parameter: '{param}'", "missing_required_parameter", param=param)


def _invalid(param: str, expected: str) -> Refused:
    return Refused(400, f"Invalid type for '{param}': expected {expected}.", "invalid_type", param=param)


def _list(request: dict[str, Any], name: str) -> list[Any]:
    value = request.get(name)
    if value is not None and (not isinstance(value, list) or not value):
        raise _invalid(name, "a non-empty array")
    return value or []


def _check_roles(messages: list[dict[str, Any]]) -> None:
    for index, message in enumerate(messages):
        if message["role"] not in _ROLES:
            known = ", ".join(f"'{role}'" for role in _ROLES)
            text = f"Invalid value: '{message['role']}'. Supported values are: {known}."
            raise Refused(400, text, "invalid_value", param=f"messages[{index}].role")


def _check_results(messages: list[dict[str, Any]]) -> None:
    """Every call must be answered by a tool message before anything else is said, and nothing else may be."""
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        param = f"messages[{index}]"
        if message["role"] == "tool":
            call_id = message.get("tool_call_id")
            if not isinstance(call_id, str):
                raise _missing(f"{param}.tool_call_id")
            if call_id not in waiting:
                text = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                raise Refused(400, f"Invalid parameter: {text}", param=f"{param}.role")
            waiting.remove(call_id)
            continue
        _refuse_unanswered(waiting, param)
        if message["role"] == "assistant":
            waiting = _call_ids(message, param)
    _refuse_unanswered(waiting, f"messages[{len(messages)}]")


def _refuse_unanswered(waiting: set[str], param: str) -> None:
    if waiting:
        text = "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
        ids = ", ".join(sorted(waiting))
        raise Refused(400, f"{text}'tool_call_id'. These had no response: {ids}", param=f"{param}.role")


def _call_ids(message: dict[str, Any], param: str) -> set[str]:
    calls = message.get("tool_calls")
    if calls is None:
        return set()
    if not isinstance(calls, list) or not calls:
        raise _invalid(f"{param}.tool_calls", "a non-empty array")
    found = set()
    for number, call in enumerate(calls):
        where = f"{param}.tool_calls[{number}]"
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(call.get("id"), str) or call.get("type") != "function":
            raise _invalid(where, "an object with id, type 'function' and function")
        for name in ("name", "arguments"):
            if not isinstance(function.get(name), str):
                raise _invalid(f"{where}.function.{name}", "a string")
        found.add(call["id"])
    return found


def _check_tool(tool: Any, where: str) -> None:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        raise _missing(f"{where}.type")
    if tool["type"] != "function":
        return
    function = tool.get("function")
    if not isinstance(function, dict):
        raise _missing(f"{where}.function")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        text = f"Invalid '{where}.function.name': expected a string that matches '^[a-zA-Z0-9_-]{{1,64}}$'."
        raise Refused(400, text, "invalid_value", param=f"{where}.function.name")
    if parameters is not None and not (isinstance(parameters, dict) and parameters.get("type", "object") == "object"):
        text = f"Invalid schema for function '{name}': schema must be a JSON schema of type 'object'."
        raise Refused(400, text, "invalid_function_parameters", param=f"{where}.function.parameters")


def _check_format(wanted: Any) -> None:
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") not in _FORMATS:
        known = ", ".join(f"'{name}'" for name in _FORMATS)
        raise Refused(400, f"Invalid value for 'response_format.type': expected {known}.", param="response_format.type")
    if wanted["type"] == "json_schema":
        inner = wanted.get("json_schema")
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise _missing("response_format.json_schema.name")
        if not isinstance(inner.get("schema"), dict):
            raise _missing("response_format.json_schema.schema")
