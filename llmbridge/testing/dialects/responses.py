"""OpenAI's Responses: the answer as items in named events; each item starts, fills and ends.

Source:
    OpenAI API reference, responses, streaming events.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply
from llmbridge.testing.turn import Thought, Words

from .base import (
    STREAM,
    Answer,
    Refused,
    count,
    cut,
    document,
    dump,
    identity_of,
    invalid,
    json_object,
    logprob_shares,
    missing,
    model_of,
    proof,
    sse,
)
from .openai import check_schema

__all__ = ["responses"]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ROLES = ("developer", "system", "user", "assistant")
_CALLS = ("function_call", "function_call_output", "custom_tool_call", "custom_tool_call_output")


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
    """An item of the output: its start, the events that fill it, and its final state."""

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
            place = {"item_id": item.begun.get("id"), "output_index": index}
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
    head = identity_of(reply, f"resp_{answer_id}", object="response", created_at=int(time.time()))
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
    """The items of the output. A refusal belongs to the last message, or is a message."""
    items: list[_Item] = []
    numbers: Counter[str] = Counter()
    shares = logprob_shares(reply)
    texts = [part for part in reply.turn if type(part) is Words]
    for part in reply.turn:
        if isinstance(part, dict):
            items.append(_own_item(part))
            continue
        kind = "rs" if isinstance(part, Thought) else "msg" if isinstance(part, Words) else "fc"
        suffix = f"_{numbers[kind]}" if kind == "fc" or numbers[kind] else ""
        item_id = f"{kind}_{answer_id}{suffix}"
        numbers[kind] += 1
        if isinstance(part, Thought):
            items.append(_reasoning(part, item_id))
        elif isinstance(part, Words):
            refusal = reply.refusal if part is texts[-1] else None
            items.append(_message(part.pieces, refusal, shares, item_id))
        else:
            call_id = part.id or f"call_{answer_id}_{numbers[kind] - 1}"
            head = {"type": "function_call", "id": item_id, "call_id": call_id, "name": part.name}
            items.append(_filled({**head, "arguments": part.text, "status": "completed"}))
    if not texts and (reply.refusal is not None or not items):
        at = next((place for place, item in enumerate(items) if item.done["type"] == "function_call"), len(items))
        items.insert(at, _message((), reply.refusal, shares, f"msg_{answer_id}"))
    return items


def _reasoning(thought: Thought, item_id: str) -> _Item:
    """A thought, whose signature may hold the item's ID: "id:content", as llmbridge writes it."""
    named, colon, content = proof(thought).partition(":")
    head = {"type": "reasoning", "id": named if colon and named else item_id}
    encrypted = thought.redacted if thought.redacted is not None else content if colon else named
    if not thought.pieces:
        return _Item({**head, "summary": []}, [], {**head, "summary": [], "encrypted_content": encrypted})
    summary = {"type": "summary_text", "text": thought.text}
    at = {"summary_index": 0}
    events = [
        {"type": "reasoning_summary_part.added", **at, "part": {"type": "summary_text", "text": ""}},
        *({"type": "reasoning_summary_text.delta", **at, "delta": piece} for piece in thought.pieces),
        {"type": "reasoning_summary_text.done", **at, "text": thought.text},
        {"type": "reasoning_summary_part.done", **at, "part": summary},
    ]
    return _Item({**head, "summary": []}, events, {**head, "summary": [summary], "encrypted_content": encrypted})


def _message(pieces: tuple[str, ...], refusal: str | None, shares: Iterator[list[Any]], item_id: str) -> _Item:
    content: list[dict[str, Any]] = []
    events: list[dict[str, Any]] = []
    if pieces or refusal is None:
        told = [next(shares) for _ in pieces]
        text = {
            "type": "output_text",
            "text": "".join(pieces),
            "annotations": [],
            "logprobs": [*chain.from_iterable(told)],
        }
        content.append(text)
        events += _text_events(text, pieces, told, 0)
    if refusal is not None:
        part, at = {"type": "refusal", "refusal": refusal}, {"content_index": len(content)}
        content.append(part)
        events.append({"type": "content_part.added", **at, "part": {**part, "refusal": ""}})
        events += ({"type": "refusal.delta", **at, "delta": piece} for piece in cut(refusal))
        events.append({"type": "refusal.done", **at, "refusal": refusal})
        events.append({"type": "content_part.done", **at, "part": part})
    head = {"type": "message", "id": item_id, "role": "assistant"}
    begun = {**head, "status": "in_progress", "content": []}
    return _Item(begun, events, {**head, "status": "completed", "content": content})


def _text_events(
    text: dict[str, Any], pieces: Iterable[str], told: Iterable[list[Any]], index: int
) -> Iterator[dict[str, Any]]:
    """A text, its log probabilities with the pieces, then its annotations one by one."""
    at = {"content_index": index}
    begun = {key: value for key, value in text.items() if key != "logprobs"}
    yield {"type": "content_part.added", **at, "part": {**begun, "text": "", "annotations": []}}
    for piece, logprobs in zip(pieces, told, strict=False):
        yield {"type": "output_text.delta", **at, "delta": piece, "logprobs": logprobs}
    for number, annotation in enumerate(text.get("annotations") or ()):
        yield {"type": "output_text.annotation.added", **at, "annotation_index": number, "annotation": annotation}
    yield {"type": "output_text.done", **at, "text": text["text"], "logprobs": text.get("logprobs") or []}
    yield {"type": "content_part.done", **at, "part": text}


# For each kind of item: the field that is sent in pieces, and its events.
_IN_PIECES = {
    "function_call": ("arguments", "function_call_arguments"),
    "mcp_call": ("arguments", "mcp_call_arguments"),
    "custom_tool_call": ("input", "custom_tool_call_input"),
    "code_interpreter_call": ("code", "code_interpreter_call_code"),
}


def _filled(item: dict[str, Any]) -> _Item:
    """An item with one text that is sent in pieces."""
    field, event = _IN_PIECES[item["type"]]
    events = [{"type": f"{event}.delta", "delta": piece} for piece in cut(item[field])]
    events.append({"type": f"{event}.done", field: item[field]})
    return _Item({**item, field: "", "status": "in_progress"}, events, item)


def _own_item(item: dict[str, Any]) -> _Item:
    """A scripted item: what the service sends in pieces is sent in pieces."""
    field, _ = _IN_PIECES.get(str(item.get("type")), ("", ""))
    if isinstance(item.get(field), str):
        return _filled(item)
    content = item.get("content")
    if item.get("type") != "message" or not isinstance(content, list):
        return _Item(item, [], item)
    events: list[dict[str, Any]] = []
    for index, part in enumerate(content):
        if isinstance(part, dict) and part.get("type") == "output_text" and isinstance(part.get("text"), str):
            events += _text_events(part, cut(part["text"]), repeat([]), index)
    return _Item({**item, "content": []}, events, item)


# -- the form of a request, and the service's errors for a wrong one --------------------------------------------------


def _check_request(request: dict[str, Any]) -> None:
    """Refuses a request without model or input, or with wrong items, tools or formats."""
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
    if kind in _CALLS and not isinstance(item.get("call_id"), str):
        raise missing(f"{where}.call_id")
    if kind in ("function_call", "custom_tool_call"):
        for name in ("name", "arguments" if kind == "function_call" else "input"):
            if not isinstance(item.get(name), str):
                raise missing(f"{where}.{name}")
        calls.add(item["call_id"])
    if kind in ("function_call_output", "custom_tool_call_output") and known and item["call_id"] not in calls:
        raise Refused(
            400, f"No tool call found for function call output with call_id {item['call_id']}.", param="input"
        )


def _check_tool(tool: Any, where: str) -> None:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        raise missing(f"{where}.type")
    if tool["type"] != "function":
        return
    if not isinstance(tool.get("name"), str):
        raise missing(f"{where}.name")
    check_schema(tool.get("parameters"), f"function '{tool['name']}'", f"{where}.parameters")


def _check_format(wanted: Any) -> None:
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return
    if not isinstance(wanted.get("name"), str):
        raise missing("text.format.name")
    if not isinstance(wanted.get("schema"), dict):
        raise missing("text.format.schema")
    check_schema(wanted["schema"], f"response_format '{wanted['name']}'", "text.format.schema")
