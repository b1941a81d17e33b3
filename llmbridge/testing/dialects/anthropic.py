"""Anthropic's Messages: content blocks in named events, and the shapes of its errors and lists.

Source:
    Anthropic API reference, messages, streaming, errors, models, token counting.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply

from . import anthropic_request
from .base import (
    DEFAULT_MODEL,
    STREAM,
    Answer,
    Dialect,
    Failure,
    count,
    cut,
    document,
    dump,
    json_object,
    model_names,
    signature,
    sse,
)

__all__ = ["DIALECT", "count_tokens", "messages", "models"]

_KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def error(failure: Failure) -> Any:
    """An error document; a scripted mapping is its inner object, a str the message of one."""
    usual = "api_error" if failure.status >= 500 else "invalid_request_error"
    inner = failure.given
    if not isinstance(inner, dict):
        inner = {"type": _KINDS.get(failure.status, usual), "message": inner or failure.message}
    return {"type": "error", "error": inner, "request_id": failure.request_id or None}


DIALECT = Dialect("anthropic", error, "request-id")


def messages(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../v1/messages."""
    request = json_object(received)
    anthropic_request.check(request, received.header("anthropic-version"))
    if request.get("stream"):
        return Answer(reply.status, STREAM, list(_events(reply, request, answer_id)), streamed=True)
    if reply.error is not None:
        return document(reply, error(Failure(500, "", given=reply.error, request_id=f"req-{answer_id}")))
    return document(reply, _message(reply, request, answer_id))


def count_tokens(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../v1/messages/count_tokens; a scripted usage decides with its `input_tokens`."""
    request = json_object(received)
    anthropic_request.check(request, received.header("anthropic-version"), max_tokens=False)
    given = reply.usage.get("input_tokens") if isinstance(reply.usage, dict) else None
    return document(reply, {"input_tokens": count(reply, request).input if given is None else given})


def models(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET .../v1/models of a client that says which `anthropic-version` it speaks."""
    names = model_names(reply)
    data = [
        {"type": "model", "id": name, "display_name": name, "created_at": "2024-01-01T00:00:00Z", "lifecycle": "active"}
        for name in names
    ]
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return document(reply, {"data": data, "has_more": False, **ends})


def _message(reply: Reply, request: dict[str, Any], answer_id: str) -> dict[str, Any]:
    blocks = [block.whole for block in _blocks(reply, answer_id)]
    message = {**_opening(reply, request, answer_id), "content": blocks, **_ending(reply)}
    return message if reply.usage is False else {**message, "usage": _usage(reply, request)}


def _events(reply: Reply, request: dict[str, Any], answer_id: str) -> Iterator[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return sse(reply, dump({"type": kind, **fields}), kind)

    usage = None if reply.usage is False else _usage(reply, request)
    start = {**_opening(reply, request, answer_id), "content": [], "stop_reason": None, "stop_sequence": None}
    yield event("message_start", message=start if usage is None else {**start, "usage": _first_usage(usage)})
    blocks = _blocks(reply, answer_id)
    for index, block in enumerate(blocks):
        yield event("content_block_start", index=index, content_block=block.start)
        yield from (event("content_block_delta", index=index, delta=delta) for delta in block.deltas)
        # An error comes in the middle of things: the block that was being sent stays open.
        if reply.error is None or block is not blocks[-1]:
            yield event("content_block_stop", index=index)
    if reply.error is not None:
        failure = Failure(500, "", given=reply.error, request_id=f"req-{answer_id}")
        yield sse(reply, dump(error(failure)), "error")
    elif reply.finish is not None:
        last = {} if usage is None else {"usage": _last_usage(usage)}
        yield event("message_delta", delta=_ending(reply), **last)
    if reply.end_mark if reply.end_mark is not None else reply.error is None:
        yield event("message_stop")


def _opening(reply: Reply, request: dict[str, Any], answer_id: str) -> dict[str, Any]:
    model = reply.model or request.get("model") or DEFAULT_MODEL
    return {"id": f"msg_{answer_id}", "type": "message", "role": "assistant", "model": model}


def _ending(reply: Reply) -> dict[str, Any]:
    refused = reply.refusal is not None and not reply.finish_chosen
    reason = "refusal" if refused else _STOPS.get(reply.finish or "", reply.finish)
    ending: dict[str, Any] = {"stop_reason": reason, "stop_sequence": None}
    if reply.refusal is not None:
        ending["stop_details"] = {"type": "refusal", "category": None, "explanation": reply.refusal}
    return ending


@dataclass(frozen=True)
class _Block:
    """A content block: as it starts in a stream, the deltas that fill it, and as it is whole."""

    start: dict[str, Any]
    deltas: list[dict[str, Any]]
    whole: dict[str, Any]


def _blocks(reply: Reply, answer_id: str) -> list[_Block]:
    blocks = []
    if reply.reasoning_pieces:
        signed = signature(reply) or ""
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in reply.reasoning_pieces]
        deltas.append({"type": "signature_delta", "signature": signed})
        start = {"type": "thinking", "thinking": "", "signature": ""}
        whole = {"type": "thinking", "thinking": "".join(reply.reasoning_pieces), "signature": signed}
        blocks.append(_Block(start, deltas, whole))
    if reply.pieces:
        deltas = [{"type": "text_delta", "text": piece} for piece in reply.pieces]
        blocks.append(_Block({"type": "text", "text": ""}, deltas, {"type": "text", "text": "".join(reply.pieces)}))
    for index, call in enumerate(reply.calls):
        use = {"type": "tool_use", "id": call.id or f"toolu_{answer_id}_{index}", "name": call.name}
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut(call.text)]
        blocks.append(_Block({**use, "input": {}}, deltas, {**use, "input": call.value}))
    return blocks


def _usage(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    if isinstance(reply.usage, dict):
        return reply.usage
    tokens = count(reply, request)
    return {"input_tokens": tokens.input, "output_tokens": tokens.output}


def _first_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """What is known when the answer begins: the input, and the one token that begins it."""
    known = {name: value for name, value in usage.items() if not name.startswith("output")}
    return {**known, "output_tokens": 1} if "output_tokens" in usage else known


def _last_usage(usage: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if name.startswith("output")}
