"""OpenAI's Responses: the answer as items in named events, each of which begins, fills and ends.

Source:
    OpenAI API reference, responses, streaming events.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply

from .base import (
    STREAM,
    Answer,
    Refused,
    count,
    cut,
    document,
    dump,
    invalid,
    json_object,
    logprob_shares,
    missing,
    model_of,
    signature,
    sse,
)

__all__ = ["responses"]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ROLES = ("developer", "system", "user", "assistant")


def responses(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../responses."""
    request = json_object(received)
    _check_request(request)
    if request.get("stream"):
        return Answer(reply.status, STREAM, list(_events(reply, request, answer_id)), streamed=True)
    if reply.error is not None:
        failed = {**_response(reply, request, answer_id, "failed"), "error": _error(reply)}
        return document(reply, failed)
    return document(reply, _finished(reply, request, answer_id))


@dataclass(frozen=True)
class _Item:
    """An item of the output: as it begins, the events that fill it, and as it is in the end."""

    begun: dict[str, Any]
    events: list[dict[str, Any]]
    done: dict[str, Any]


def _events(reply: Reply, request: dict[str, Any], answer_id: str) -> Iterator[bytes]:
    number = -1

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return sse(reply, dump({"type": kind, "sequence_number": number, **fields}), kind)

    begun = _response(reply, request, answer_id, "in_progress")
    yield event("response.created", response=begun)
    yield event("response.in_progress", response=begun)
    for index, item in enumerate(_items(reply, answer_id)):
        yield event("response.output_item.added", output_index=index, item=item.begun)
        for fields in item.events:
            place = {"item_id": item.begun["id"], "output_index": index}
            yield event(f"response.{fields['type']}", **place, **{key: fields[key] for key in fields if key != "type"})
        yield event("response.output_item.done", output_index=index, item=item.done)
    if reply.error is not None:
        yield event("error", **_error(reply))
    elif reply.finish is not None and reply.end_mark is not False:
        whole = _finished(reply, request, answer_id)
        yield event(f"response.{whole['status']}", response=whole)


def _error(reply: Reply) -> dict[str, Any]:
    given = reply.error if isinstance(reply.error, dict) else {"message": reply.error}
    return {
        "code": given.get("code") or given.get("type") or "server_error",
        "message": given.get("message"),
        "param": None,
    }


def _response(reply: Reply, request: dict[str, Any], answer_id: str, status: str) -> dict[str, Any]:
    asked = {"tools": request.get("tools") or [], "tool_choice": request.get("tool_choice") or "auto"}
    usual = {"parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0, "metadata": {}, "instructions": None}
    head = {"id": f"resp_{answer_id}", "object": "response", "created_at": int(time.time())}
    head["model"] = model_of(reply, request)
    return {**head, "status": status, "error": None, "incomplete_details": None, "output": [], **usual, **asked}


def _finished(reply: Reply, request: dict[str, Any], answer_id: str) -> dict[str, Any]:
    reason = _INCOMPLETE.get(reply.finish or "")
    whole = _response(reply, request, answer_id, "incomplete" if reason else "completed")
    whole["incomplete_details"] = {"reason": reason} if reason else None
    whole["output"] = [item.done for item in _items(reply, answer_id)]
    return whole if reply.usage is False else {**whole, "usage": _usage(reply, request)}


def _usage(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    if isinstance(reply.usage, dict):
        return reply.usage
    tokens = count(reply, request)
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }


def _items(reply: Reply, answer_id: str) -> list[_Item]:
    items = [_reasoning(reply, f"rs_{answer_id}")] if reply.reasoning_pieces else []
    if reply.pieces or reply.refusal is not None or not (items or reply.calls):
        items.append(_message(reply, f"msg_{answer_id}"))
    for index, call in enumerate(reply.calls):
        head = {
            "type": "function_call",
            "id": f"fc_{answer_id}_{index}",
            "call_id": call.id or f"call_{answer_id}_{index}",
            "name": call.name,
        }
        kind = "function_call_arguments"
        events = [{"type": f"{kind}.delta", "delta": piece} for piece in cut(call.text)]
        events.append({"type": f"{kind}.done", "arguments": call.text})
        begun = {**head, "arguments": "", "status": "in_progress"}
        items.append(_Item(begun, events, {**head, "arguments": call.text, "status": "completed"}))
    return items


def _reasoning(reply: Reply, item_id: str) -> _Item:
    head = {"type": "reasoning", "id": item_id}
    text = "".join(reply.reasoning_pieces)
    summary = {"type": "summary_text", "text": text}
    at = {"summary_index": 0}
    events = [
        {"type": "reasoning_summary_part.added", **at, "part": {"type": "summary_text", "text": ""}},
        *({"type": "reasoning_summary_text.delta", **at, "delta": piece} for piece in reply.reasoning_pieces),
        {"type": "reasoning_summary_text.done", **at, "text": text},
        {"type": "reasoning_summary_part.done", **at, "part": summary},
    ]
    done = {**head, "summary": [summary], "encrypted_content": signature(reply)}
    return _Item({**head, "summary": []}, events, done)


def _message(reply: Reply, item_id: str) -> _Item:
    head = {"type": "message", "id": item_id, "role": "assistant"}
    probabilities = reply.logprobs or []
    parts = []
    if reply.pieces or reply.refusal is None:
        text = {"type": "output_text", "text": "".join(reply.pieces), "annotations": []}
        parts.append((text, "output_text", list(reply.pieces), {"logprobs": probabilities}))
    if reply.refusal is not None:
        parts.append(({"type": "refusal", "refusal": reply.refusal}, "refusal", cut(reply.refusal), {}))
    events: list[dict[str, Any]] = []
    for index, (part, kind, pieces, more) in enumerate(parts):
        name = "refusal" if kind == "refusal" else "text"
        at = {"content_index": index}
        events.append({"type": "content_part.added", **at, "part": {**part, name: ""}})
        shares = logprob_shares(reply)
        events += (
            {"type": f"{kind}.delta", **at, "delta": piece, **({"logprobs": next(shares)} if more else {})}
            for piece in pieces
        )
        events.append({"type": f"{kind}.done", **at, name: part[name], **more})
        events.append({"type": "content_part.done", **at, "part": {**part, **more}})
    content = [{**part, **more} for part, _, _, more in parts]
    return _Item(
        {**head, "status": "in_progress", "content": []}, events, {**head, "status": "completed", "content": content}
    )


# -- what a request must look like, and the words in which the service says that it does not ---------------------------


def _check_request(request: dict[str, Any]) -> None:
    """Refuses a request without model or input, or with items, tools or a format of a wrong shape."""
    if not isinstance(request.get("model"), str):
        raise missing("model")
    given = request.get("input")
    if not given or not isinstance(given, (str, list)):
        raise missing("input")
    if request.get("stream") is not None and not isinstance(request["stream"], bool):
        raise invalid("stream", "a boolean")
    calls: set[str] = set()
    for index, item in enumerate(given if isinstance(given, list) else []):
        _check_item(item, f"input[{index}]", calls, known=request.get("previous_response_id") is None)
    tools = request.get("tools") or []
    for index, tool in enumerate(tools if isinstance(tools, list) else [tools]):
        _check_tool(tool, f"tools[{index}]")
    text = request.get("text")
    _check_format(text.get("format") if isinstance(text, dict) else None)


def _check_item(item: Any, where: str, calls: set[str], *, known: bool) -> None:
    if not isinstance(item, dict):
        raise invalid(where, "an object")
    kind = item.get("type", "message")
    if kind == "message" and item.get("role") not in _ROLES:
        names = ", ".join(f"'{role}'" for role in _ROLES)
        message = f"Invalid value: {item.get('role')!r}. Supported values are: {names}."
        raise Refused(400, message, "invalid_value", param=f"{where}.role")
    if kind == "message" and not isinstance(item.get("content"), (str, list)):
        raise missing(f"{where}.content")
    if kind in ("function_call", "function_call_output") and not isinstance(item.get("call_id"), str):
        raise missing(f"{where}.call_id")
    if kind == "function_call":
        for name in ("name", "arguments"):
            if not isinstance(item.get(name), str):
                raise missing(f"{where}.{name}")
        calls.add(item["call_id"])
    if kind == "function_call_output" and known and item["call_id"] not in calls:
        raise Refused(
            400, f"No tool call found for function call output with call_id {item['call_id']}.", param="input"
        )


def _check_tool(tool: Any, where: str) -> None:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        raise missing(f"{where}.type")
    if tool["type"] == "function" and not isinstance(tool.get("name"), str):
        raise missing(f"{where}.name")


def _check_format(wanted: Any) -> None:
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return
    if not isinstance(wanted.get("name"), str):
        raise missing("text.format.name")
    if not isinstance(wanted.get("schema"), dict):
        raise missing("text.format.schema")
