"""The items of an answer: messages, thoughts, the caller's calls, server tools, and others.

Source: OpenAI API reference, responses, "Create a model response"; the types of openai-python.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from llmbridge._text import shortened
from llmbridge.errors import ProtocolError
from llmbridge.events import Citation, EndOfPart, Item, MediaDelta, Other, ServerTool
from llmbridge.provider import parsed_json
from llmbridge.providers._values import mapping, string

__all__ = [
    "INPUTS",
    "call_input",
    "call_kind",
    "call_name",
    "call_raw",
    "cited",
    "end_of_message",
    "kept",
    "message_parts",
    "part_text",
    "read_text",
    "server_tool",
    "thought_texts",
    "tool_items",
    "unknown_keys",
    "whole_text",
]

INPUTS: Mapping[str, str] = {"function": "arguments", "custom": "input"}
"""The field with a tool's input, for the two common kinds of calls."""

_HEAD = frozenset(("type", "id", "call_id", "name", "status"))
_RESULTS = ("result", "results", "output", "outputs", "tools", "error")
_MESSAGE = frozenset(("type", "id", "role", "status", "content"))
_PART = frozenset(("type", "text", "refusal", "logprobs"))
_READ = frozenset(("annotations", "phase"))  # read here, and sent back
_TEXT_PARTS: Mapping[str, str] = {"output_text": "text", "text": "text", "refusal": "refusal"}
_PLACED = ("url_citation", "container_file_citation")
_CITATIONS = (*_PLACED, "file_citation", "file_path")
# Items that are answered or found by their id: it is sent back even if the service stores nothing.
_NAMED = ("mcp_approval_request", "image_generation_call")


def read_text(value: Any, where: str) -> str:
    """A text, also if a gateway wraps it into an object.

    Raises:
        ProtocolError: It has another form. The message names the place.

    Example:
        >>> read_text("Hi", "a delta"), read_text({"text": "Hi"}, "a delta"), read_text(None, "a delta")
        ('Hi', 'Hi', '')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        inner = next((value[name] for name in ("text", "value", "content") if isinstance(value.get(name), str)), None)
        if inner is not None or not value:
            return inner or ""
    if value in (None, [], False):
        return ""
    raise ProtocolError(f"cannot read the text of {where}: {shortened(repr(value), 200)}")


def message_parts(item: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The parts of a message's content."""
    content = item.get("content")
    if isinstance(content, str):
        return [{"type": "output_text", "text": content}] if content else []
    return [mapping(part) for part in ([content] if isinstance(content, Mapping) else _list(content))]


def part_text(part: Mapping[str, Any]) -> str | None:
    """The text of a part of a message; None if it is of another kind."""
    kind = part.get("type") or "output_text"
    field = _TEXT_PARTS.get(kind) if isinstance(kind, str) else None
    return None if field is None else read_text(part.get(field), f"a part of type {kind}")


def whole_text(parts: list[Mapping[str, Any]]) -> str:
    """The text of a message, refusals included."""
    return "".join(part_text(part) or "" for part in parts)


def thought_texts(item: Mapping[str, Any]) -> tuple[str, str]:
    """The summary of a thought, and the thought itself."""
    return "\n\n".join(_texts(item.get("summary"))), "".join(_texts(item.get("content")))


def _texts(parts: Any) -> list[str]:
    if isinstance(parts, str):
        return [parts]
    return [text for part in _list(parts) if (text := string(mapping(part).get("text")))]


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def kept(item: Mapping[str, Any], stored: bool) -> dict[str, Any]:
    """An item as it is sent back: without its id if the service stores nothing and so would not find it.

    Example:
        >>> kept({"type": "web_search_call", "id": "ws_1"}, stored=False)
        {'type': 'web_search_call'}
    """
    if stored or item.get("encrypted_content") or item.get("type") in _NAMED:
        return dict(item)
    return {name: value for name, value in item.items() if name != "id"}


def end_of_message(item: Mapping[str, Any], parts: list[Mapping[str, Any]], stored: bool) -> EndOfPart:
    """The end of a message, its text left empty; if there are several texts, they mark where each one ends."""
    plain = [part for part in parts if part_text(part) is not None]
    needed = len(plain) < len(parts) or any(_says_more(item, _MESSAGE) or _says_more(part, _PART) for part in parts)
    if not (needed or item.get("id") or item.get("phase")):
        return EndOfPart()
    if len(plain) == 1:
        parts = [{**part, _TEXT_PARTS[part.get("type") or "output_text"]: ""} if part is plain[0] else part
                 for part in parts]  # fmt: skip
    raw = kept({**item, "content": [dict(part) for part in parts]}, stored)
    return EndOfPart(raw, needed or bool(item.get("phase")))


def _says_more(fields: Mapping[str, Any], plain: frozenset[str]) -> bool:
    return any(value not in (None, "", [], {}) for name, value in fields.items() if name not in plain)


def unknown_keys(fields: Mapping[str, Any], known: frozenset[str] | None = None) -> Iterator[Other]:
    """The unknown keys of an event, or of a message part if `known` is None."""
    names = _PART | _MESSAGE | _READ if known is None else known
    for name, value in fields.items():
        if name not in names and value not in (None, "", [], {}):
            yield Other(name, {name: value})


def cited(annotation: Mapping[str, Any], before: int) -> Item:
    """The citation in an annotation.

    Args:
        annotation: The service's own object.
        before: Number of the answer's characters before the annotated text.
    """
    kind = string(annotation.get("type"))
    if kind not in _CITATIONS:
        return Other(kind, annotation)
    start, end = annotation.get("start_index"), annotation.get("end_index")
    return Citation(
        url=string(annotation.get("url")) or None,
        document=string(annotation.get("file_id")) or None,
        title=string(annotation.get("title")) or string(annotation.get("filename")) or None,
        quote=string(annotation.get("quote")) or None,
        start=before + start if kind in _PLACED and start.__class__ is int else None,
        end=before + end if kind in _PLACED and end.__class__ is int else None,
        raw=annotation,
    )


def call_kind(item: Mapping[str, Any]) -> str | None:
    """The kind of a call that the caller must answer; None for any other item.

    Example:
        >>> call_kind({"type": "custom_tool_call"}), call_kind({"type": "web_search_call", "id": "ws_1"})
        ('custom', None)
        >>> call_kind({"type": "computer_call", "call_id": "c1", "action": {"type": "screenshot"}})
        'computer_call'
    """
    kind = string(item.get("type"))
    if kind in ("function_call", "custom_tool_call"):
        return kind.partition("_")[0]
    return kind if kind.endswith("_request") or (kind.endswith("_call") and _waits(item)) else None


def _waits(item: Mapping[str, Any]) -> bool:
    """Whether the call is unanswered: a server tool's call has no call id, has a result, or names its server."""
    elsewhere = mapping(item.get("environment")).get("type") not in (None, "local")
    done = any(item.get(name) for name in _RESULTS) or item.get("execution") == "server"
    return bool(string(item.get("call_id"))) and not (elsewhere or done)


def call_name(item: Mapping[str, Any]) -> str:
    """The called tool; the service's own tools are named by their kind."""
    kind = string(item.get("type"))
    if kind in ("function_call", "custom_tool_call") or string(item.get("name")):
        return string(item.get("name"))
    return kind.removesuffix("_call").removesuffix("_request")


def call_input(item: Mapping[str, Any]) -> str:
    """The tool's input as text."""
    kind = call_kind(item) or ""
    given = item.get(INPUTS.get(kind, "arguments"))
    if given is None and kind not in INPUTS:
        given = {name: value for name, value in item.items() if name not in _HEAD}
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False) if given else ""


def call_raw(item: Mapping[str, Any], beside_thoughts: bool, stored: bool) -> dict[str, Any] | None:
    """The item of a call, if it holds more than the call, with its input filled in again.

    Args:
        item: The call's item.
        beside_thoughts: Whether thoughts in the turn are sent back by ID: items after them need their own.
        stored: Whether the service stores the answer.
    """
    kind = call_kind(item) or ""
    field = INPUTS.get(kind)
    if field is None:
        return kept(item, stored)
    if kind == "function" and not (beside_thoughts or _says_more(item, _HEAD | {field})):
        return None  # other services do not understand other kinds
    return kept({**item, field: ""}, stored)


def tool_items(item: Mapping[str, Any], raw: Mapping[str, Any], written: str = "") -> Iterator[Item]:
    """The items of anything but a message, a thought or a caller's call.

    Args:
        item: Its final state.
        raw: The form in which it is sent back.
        written: The tool's input, as far as it came in pieces.
    """
    kind = string(item.get("type"))
    if kind == "image_generation_call" and (result := string(item.get("result"))):
        form = string(item.get("output_format"))
        mime = f"image/{'svg+xml' if form == 'svg' else form}" if form else ""
        shown = {name: value for name, value in raw.items() if name != "result"}
        yield MediaDelta("image", mime, result, id=string(item.get("id")) or None, raw=shown)
    elif kind.endswith("_call") or kind == "mcp_list_tools":
        yield server_tool(item, raw, written)
    else:
        yield Other(kind, raw, in_turn=bool(kind))


def server_tool(item: Mapping[str, Any], raw: Mapping[str, Any], written: str = "") -> ServerTool:
    """The call of a server tool; see `tool_items`."""
    given = {name: value for name, value in item.items() if name not in (*_HEAD, *_RESULTS)}
    if written and not given.get("code") and not given.get("arguments"):
        given["arguments" if item.get("type") == "mcp_call" else "code"] = written
    arguments = given.get("action") or given.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = parsed_json(arguments)
        except ProtocolError:
            arguments = None  # stays in `raw`, unparsed
    if not isinstance(arguments, Mapping):
        arguments = given
    results = (item[name] for name in _RESULTS if item.get(name) is not None)
    result = next(results, arguments.get("sources"))
    id = string(item.get("id")) or string(item.get("call_id"))
    return ServerTool(id, call_name(item), dict(arguments), result, raw)
