"""Mistral's chat completions: OpenAI's form with its own contents, calls, usage and errors.

Source:
    Mistral API reference and the models of its Python client: content as a list of chunks beside thinking, whole tool
    calls, usage always in the last chunk, unknown fields rejected with 422.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply
from llmbridge.testing.turn import Thought, Words

from . import openai
from .base import (
    STREAM,
    Answer,
    Dialect,
    Failure,
    Refused,
    document,
    dump,
    function_call,
    identity_of,
    json_object,
    model_names,
    model_of,
    sse,
)

__all__ = ["DIALECT", "chat", "embeddings", "models"]

_CODES = {400: "3000", 401: "1900", 404: "1500", 429: "1300"}
_KINDS = {
    400: "invalid_request_error",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    422: "invalid_request_error",
    429: "rate_limited",
}
_BAD_ORDER = {("tool", "user"), ("tool", "system"), ("assistant", "system")}
_UNKNOWN = ("seed", "stream_options", "max_completion_tokens", "logit_bias", "user")


def error(failure: Failure) -> Any:
    """An error document: flat, or with 422 a list of problems; a scripted mapping is added to it."""
    if failure.status == 422 and failure.given is None:
        kind = failure.code or "value_error"
        loc = ["body", *(failure.param or "").split(".")] if failure.param else ["body"]
        return {"detail": [{"type": kind, "loc": loc, "msg": failure.message, "input": None}]}
    usual = "internal_server_error" if failure.status >= 500 else "invalid_request_error"
    given = failure.given if isinstance(failure.given, dict) else {}
    message = failure.given if isinstance(failure.given, str) else failure.message
    kind = _KINDS.get(failure.status, usual)
    flat = {"object": "error", "message": message, "type": kind, "param": None, "code": _CODES.get(failure.status)}
    return {**flat, **given}


DIALECT = Dialect("mistral", error)


def chat(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST /mistral/v1/chat/completions."""
    request = json_object(received)
    _check(request)
    if request.get("stream"):
        return Answer(reply.status, STREAM, list(_events(reply, request, answer_id)), streamed=True)
    if reply.error is not None:
        return document(reply, error(Failure(500, "", given=reply.error)))
    message = {"role": "assistant", "content": _content(reply), "tool_calls": _calls(reply, answer_id) or None}
    choices = [_choice(0, "message", message, reply.finish)]
    choices += [
        _choice(index, "message", {"role": "assistant", "content": text, "tool_calls": None}, "stop")
        for index, text in enumerate(reply.choices, 1)
    ]
    whole = {**_identity(reply, request, answer_id, "chat.completion"), "choices": choices}
    return document(reply, whole if reply.usage is False else {**whole, "usage": _usage(reply, request)})


def embeddings(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST /mistral/v1/embeddings: OpenAI's, with an id, and another name for the dimensions."""
    request = json_object(received)
    asked = {**request, "dimensions": request.get("output_dimension")}
    made = openai.embeddings(reply, received.with_json(asked), answer_id)
    return document(reply, {"id": answer_id, **json.loads(made.events[0])})


def models(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET /mistral/v1/models."""
    able = {"completion_chat": True, "function_calling": True, "vision": False, "fine_tuning": False}
    listed = [
        {
            "id": name,
            "object": "model",
            "created": 1700000000,
            "owned_by": "llmbridge",
            "capabilities": able,
            "name": name,
            "type": "base",
        }
        for name in model_names(reply)
    ]
    return document(reply, {"object": "list", "data": listed})


def _check(request: dict[str, Any]) -> None:
    for name in ("model", "messages"):
        if request.get(name) is None:
            raise Refused(422, "Field required", "missing", param=name)
    for name in _UNKNOWN:
        if name in request:
            raise Refused(422, "Extra inputs are not permitted", "extra_forbidden", param=name)
    try:
        openai.check_request(request)
    except Refused as exc:
        raise Refused(exc.status, str(exc)) from exc
    roles = [message["role"] for message in request["messages"]]
    for before, role in pairwise(roles):
        if (before, role) in _BAD_ORDER:
            raise Refused(400, f"Unexpected role '{role}' after role '{before}'")


def _events(reply: Reply, request: dict[str, Any], answer_id: str) -> Iterator[bytes]:
    head = _identity(reply, request, answer_id, "chat.completion.chunk")

    def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, used: Any = None) -> bytes:
        more = {} if used is None else {"usage": used}
        return sse(reply, dump({**head, "choices": [_choice(index, "delta", delta, finish)], **more}))

    yield chunk({"role": "assistant", "content": ""})
    for part in reply.turn:
        if isinstance(part, dict):
            yield chunk({"content": [part]})
        elif isinstance(part, Words):
            thinks = isinstance(part, Thought)
            yield from (
                chunk({"content": [_thinking(part, piece)] if thinks else _spoken(reply, piece)})
                for piece in part.pieces
            )
    yield from (chunk({"content": reply.refusal}) for _ in range(1) if reply.refusal)
    for index, text in enumerate(reply.choices, 1):
        yield chunk({"role": "assistant", "content": text}, "stop", index)
    if reply.error is not None:
        yield sse(reply, dump(error(Failure(500, "", given=reply.error))))
    else:
        calls = _calls(reply, answer_id)
        last = {"content": "", **({"tool_calls": calls} if calls else {})}
        # Usage and finish are in the same chunk.
        used = None if reply.usage is False or reply.finish is None else _usage(reply, request)
        if calls or reply.finish is not None:
            yield chunk(last, reply.finish, used=used)
    if reply.end_mark if reply.end_mark is not None else reply.error is None:
        yield sse(reply, b"[DONE]")


def _identity(reply: Reply, request: dict[str, Any], answer_id: str, kind: str) -> dict[str, Any]:
    model = model_of(reply, request)
    return identity_of(reply, f"cmpl-{answer_id}", object=kind, created=int(time.time()), model=model)


def _choice(index: int, kind: str, said: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": index, kind: said, "finish_reason": finish}


def _usage(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    counted = openai.usage(reply, request)
    return counted if isinstance(reply.usage, dict) else {**counted, "completion_tokens_details": None}


def _thinking(thought: Words, text: str) -> dict[str, Any]:
    signature = getattr(thought, "signature", None)
    signed = {"signature": signature} if signature is not None else {}
    return {"type": "thinking", "thinking": [{"type": "text", "text": text}], "closed": True, **signed}


def _spoken(reply: Reply, text: str) -> Any:
    """Text is a list of chunks as well in an answer with thinking."""
    return [{"type": "text", "text": text}] if _has_chunks(reply) else text


def _has_chunks(reply: Reply) -> bool:
    return any(isinstance(part, (dict, Thought)) for part in reply.turn)


def _content(reply: Reply) -> Any:
    if not _has_chunks(reply):
        return "".join([*reply.pieces, reply.refusal or ""])
    chunks: list[dict[str, Any]] = []
    for part in (*reply.turn, *([Words((reply.refusal,))] if reply.refusal else [])):
        if isinstance(part, dict):
            chunks.append(part)
        elif isinstance(part, Thought):
            chunks.append(_thinking(part, part.text))
        elif isinstance(part, Words):
            chunks.append({"type": "text", "text": part.text})
    return chunks


def _calls(reply: Reply, answer_id: str) -> list[dict[str, Any]]:
    return [
        {**function_call(call, hashlib.sha256(f"{answer_id} {index}".encode()).hexdigest()[:9]), "index": index}
        for index, call in enumerate(reply.calls)
    ]
