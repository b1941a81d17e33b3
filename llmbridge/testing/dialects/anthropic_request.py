"""What a request to Anthropic's Messages must look like, with the words in which the service says that it does not."""

from __future__ import annotations

import re
from typing import Any

from .base import Refused

__all__ = ["check"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SAMPLING = ("temperature", "top_p", "top_k")
_SINCE_NO_SAMPLING = "2026-10-21"
_LEAST_BUDGET = 1024
_BLOCKS = {
    "text": ("text", str),
    "image": ("source", dict),
    "document": ("source", dict),
    "tool_use": ("input", dict),
    "tool_result": ("tool_use_id", str),
    "thinking": ("signature", str),
    "redacted_thinking": ("data", str),
}


def check(request: dict[str, Any], version: str | None, *, max_tokens: bool = True) -> None:
    """Refuses a request that lacks what is required, or that has messages, tools or settings of a wrong shape.

    Args:
        request: the body.
        version: the `anthropic-version` header.
        max_tokens: whether the endpoint requires that field.
    """
    if version is None:
        raise Refused(400, "anthropic-version: header is required")
    _require(request, "model", str)
    if max_tokens:
        _require(request, "max_tokens", int)
        if request["max_tokens"] < 1:
            raise Refused(400, "max_tokens: Input should be greater than or equal to 1")
    _require(request, "messages", list)
    if not request["messages"]:
        raise Refused(400, "messages: at least one message is required")
    _check_settings(request, version)
    _check_messages(request["messages"])
    if request.get("tools") is not None:
        _require(request, "tools", list)
        for index, tool in enumerate(request["tools"]):
            _check_tool(tool, f"tools.{index}")


def _require(fields: dict[str, Any], name: str, kind: type, where: str = "") -> None:
    if name not in fields:
        raise Refused(400, f"{where}{name}: Field required")
    value = fields[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Refused(400, f"{where}{name}: Input should be a valid {_WORDS[kind]}")


_WORDS = {str: "string", int: "integer", list: "list", dict: "dictionary"}


def _check_settings(request: dict[str, Any], version: str) -> None:
    if request.get("stream") is not None and not isinstance(request["stream"], bool):
        raise Refused(400, "stream: Input should be a valid boolean")
    refused = [name for name in _SAMPLING if name in request]
    if refused and version >= _SINCE_NO_SAMPLING:
        raise Refused(400, f"{refused[0]}: not supported on anthropic-version {version}")
    temperature = request.get("temperature")
    if temperature is not None and not (isinstance(temperature, (int, float)) and 0 <= temperature <= 1):
        raise Refused(400, "temperature: range: 0..1")
    thinking = request.get("thinking")
    if isinstance(thinking, dict) and thinking.get("type") == "enabled":
        _require(thinking, "budget_tokens", int, "thinking.enabled.")
        if thinking["budget_tokens"] < _LEAST_BUDGET:
            raise Refused(400, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        most = request.get("max_tokens")
        if isinstance(most, int) and thinking["budget_tokens"] >= most:
            raise Refused(400, "`max_tokens` must be greater than `thinking.budget_tokens`")


def _check_messages(messages: list[Any]) -> None:
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict):
            raise Refused(400, f"{where}: Input should be a valid dictionary")
        _require(message, "role", str, f"{where}.")
        if message["role"] not in ("user", "assistant"):
            text = f'Unexpected role "{message["role"]}". Allowed roles are "user" or "assistant"; '
            raise Refused(400, f"messages: {text}instructions go into the top-level `system` parameter.")
        blocks = _blocks(message, where, last=index == len(messages) - 1)
        waiting = _check_results(blocks, waiting, where)
    if waiting:
        raise _unanswered(waiting, f"messages.{len(messages) - 1}")


def _blocks(message: dict[str, Any], where: str, *, last: bool) -> list[dict[str, Any]]:
    content = message.get("content")
    if content is None:
        raise Refused(400, f"{where}.content: Field required")
    if not isinstance(content, (str, list)):
        raise Refused(400, f"{where}.content: Input should be a valid string or list")
    if not content and not (last and message["role"] == "assistant"):
        text = "all messages must have non-empty content except for the optional final assistant message"
        raise Refused(400, f"{where}: {text}")
    blocks = content if isinstance(content, list) else []
    for number, block in enumerate(blocks):
        _check_block(block, f"{where}.content.{number}")
    return blocks


def _check_block(block: Any, where: str) -> None:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or kind not in _BLOCKS:
        known = ", ".join(f"'{name}'" for name in _BLOCKS)
        raise Refused(400, f"{where}: Input tag {kind!r} does not match any of the expected tags: {known}")
    name, wanted = _BLOCKS[kind]
    _require(block, name, wanted, f"{where}.{kind}.")
    if kind == "text" and not block["text"]:
        raise Refused(400, f"{where}: text content blocks must be non-empty")
    if kind == "tool_use":
        _require(block, "id", str, f"{where}.{kind}.")
        _require(block, "name", str, f"{where}.{kind}.")
    if name == "source":
        _check_source(block["source"], f"{where}.{kind}.source")


def _check_source(source: dict[str, Any], where: str) -> None:
    needed = {"base64": ("media_type", "data"), "url": ("url",), "text": ("data",), "file": ("file_id",)}
    kind = source.get("type")
    if kind not in (*needed, "content"):
        raise Refused(400, f"{where}: Input tag {kind!r} does not match any of the expected tags")
    for name in needed.get(kind, ()):
        _require(source, name, str, f"{where}.{source['type']}.")


def _check_results(blocks: list[dict[str, Any]], waiting: set[str], where: str) -> set[str]:
    """The calls that this message leaves open, once it has answered all of the message before."""
    results = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
    if strangers := results - waiting:
        text = f"unexpected `tool_use_id` found in `tool_result` blocks: {', '.join(sorted(strangers))}."
        raise Refused(400, f"{where}: {text} Each must have a `tool_use` block in the previous message.")
    if unanswered := waiting - results:
        raise _unanswered(unanswered, where)
    return {block["id"] for block in blocks if block["type"] == "tool_use"}


def _unanswered(waiting: set[str], where: str) -> Refused:
    text = f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(sorted(waiting))}."
    return Refused(400, f"{where}: {text}")


def _check_tool(tool: Any, where: str) -> None:
    if not isinstance(tool, dict):
        raise Refused(400, f"{where}: Input should be a valid dictionary")
    if tool.get("type", "custom") != "custom":
        return
    _require(tool, "name", str, f"{where}.custom.")
    if not _NAME.fullmatch(tool["name"]):
        raise Refused(400, f"{where}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    _require(tool, "input_schema", dict, f"{where}.custom.")
    if tool["input_schema"].get("type") != "object":
        raise Refused(400, f"{where}.custom.input_schema.type: Field required, and it must be 'object'")
