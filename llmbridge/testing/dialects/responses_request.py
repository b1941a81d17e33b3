"""What a request to OpenAI's Responses must look like, with the words in which the service says that it does not."""

from __future__ import annotations

from typing import Any

from .base import Refused

__all__ = ["check"]

_ROLES = ("developer", "system", "user", "assistant")


def check(request: dict[str, Any]) -> None:
    """Refuses a request without model or input, or with items, tools or a format of a wrong shape."""
    if not isinstance(request.get("model"), str):
        raise _missing("model")
    given = request.get("input")
    if not given or not isinstance(given, (str, list)):
        raise _missing("input")
    if request.get("stream") is not None and not isinstance(request["stream"], bool):
        raise _invalid("stream", "a boolean")
    calls: set[str] = set()
    for index, item in enumerate(given if isinstance(given, list) else []):
        _check_item(item, f"input[{index}]", calls, known=request.get("previous_response_id") is None)
    tools = request.get("tools") or []
    for index, tool in enumerate(tools if isinstance(tools, list) else [tools]):
        _check_tool(tool, f"tools[{index}]")
    text = request.get("text")
    _check_format(text.get("format") if isinstance(text, dict) else None)


def _missing(param: str) -> Refused:
    return Refused(400, f"Missing required parameter: '{param}'.", "missing_required_parameter", param=param)


def _invalid(param: str, expected: str) -> Refused:
    return Refused(400, f"Invalid type for '{param}': expected {expected}.", "invalid_type", param=param)


def _check_item(item: Any, where: str, calls: set[str], *, known: bool) -> None:
    if not isinstance(item, dict):
        raise _invalid(where, "an object")
    kind = item.get("type", "message")
    if kind == "message" and item.get("role") not in _ROLES:
        names = ", ".join(f"'{role}'" for role in _ROLES)
        message = f"Invalid value: {item.get('role')!r}. Supported values are: {names}."
        raise Refused(400, message, "invalid_value", param=f"{where}.role")
    if kind == "message" and not isinstance(item.get("content"), (str, list)):
        raise _missing(f"{where}.content")
    if kind in ("function_call", "function_call_output") and not isinstance(item.get("call_id"), str):
        raise _missing(f"{where}.call_id")
    if kind == "function_call":
        for name in ("name", "arguments"):
            if not isinstance(item.get(name), str):
                raise _missing(f"{where}.{name}")
        calls.add(item["call_id"])
    if kind == "function_call_output" and known and item["call_id"] not in calls:
        raise Refused(
            400, f"No tool call found for function call output with call_id {item['call_id']}.", param="input"
        )


def _check_tool(tool: Any, where: str) -> None:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        raise _missing(f"{where}.type")
    if tool["type"] == "function" and not isinstance(tool.get("name"), str):
        raise _missing(f"{where}.name")


def _check_format(wanted: Any) -> None:
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return
    if not isinstance(wanted.get("name"), str):
        raise _missing("text.format.name")
    if not isinstance(wanted.get("schema"), dict):
        raise _missing("text.format.schema")
