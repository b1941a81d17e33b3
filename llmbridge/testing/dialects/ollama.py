"""Ollama's own API: lines of JSON, the last of which says `done`.

Source:
    Ollama's API documentation and the types of its server: chat, embed, tags, version, and its errors.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from typing import Any

from llmbridge.testing.asked import embedding_inputs
from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply

from . import ollama_request
from .base import (
    NDJSON,
    Answer,
    Dialect,
    Failure,
    count,
    document,
    dump,
    json_object,
    logprob_shares,
    model_names,
    vectors,
)

__all__ = ["DIALECT", "chat", "embed", "tags", "version"]

_DATE = "2024-01-01T00:00:00Z"
_FINISHES = {"tool_calls": "stop", "content_filter": "stop"}
_LOAD, _PER_TOKEN = 1_000_000, 10_000_000  # nanoseconds


def error(failure: Failure) -> Any:
    """An error document: a text and nothing else, unless something else was scripted."""
    return {"error": failure.given or failure.message}


DIALECT = Dialect("ollama", error, "")


def chat(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST /api/chat of a client that names a model; it streams unless it is told not to."""
    request = json_object(received)
    ollama_request.check(request)
    # Without messages a model is only loaded, or unloaded: there is nothing to answer.
    last = reply if request.get("messages") else Reply(finish_reason="load", usage=False)
    if request.get("stream") is not False:
        return Answer(reply.status, NDJSON, [dump(line) + b"\n" for line in _lines(last, request)], streamed=True)
    if reply.error is not None:
        return document(reply, error(Failure(500, "", given=reply.error)))
    whole = {**_head(last, request), "message": _message(last)}
    return document(reply, {**whole, **_logprobs(last.logprobs), **_ending(last, request)})


def embed(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST /api/embed."""
    request = json_object(received)
    ollama_request.check_embed(request)
    found = vectors(reply, request, request.get("dimensions"))
    tokens = sum(len(text.split()) for text in embedding_inputs(request))
    counts = {"total_duration": _LOAD, "load_duration": _LOAD, "prompt_eval_count": tokens}
    return document(reply, {"model": _model(reply, request), "embeddings": found, **_usage(reply, counts)})


def tags(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET /api/tags."""
    details = {"parent_model": "", "format": "gguf", "family": "test", "families": ["test"]}
    sizes = {"parameter_size": "0B", "quantization_level": "F32"}
    listed = [
        {
            "name": name,
            "model": name,
            "modified_at": _DATE,
            "size": 0,
            "digest": hashlib.sha256(name.encode()).hexdigest(),
            "details": {**details, **sizes},
        }
        for name in model_names(reply)
    ]
    return document(reply, {"models": listed})


def version(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET /api/version."""
    return document(reply, {"version": "0.0.0"})


def _model(reply: Reply, request: dict[str, Any]) -> Any:
    return reply.model or request["model"]


def _head(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    now = dt.datetime.now(dt.timezone.utc).isoformat().replace("+00:00", "Z")
    return {"model": _model(reply, request), "created_at": now}


def _lines(reply: Reply, request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    head = _head(reply, request)
    shares = logprob_shares(reply)
    for message in _messages(reply):
        more = _logprobs(next(shares, None)) if message.get("content") else {}
        yield {**head, "message": {"role": "assistant", **message}, "done": False, **more}
    if reply.error is not None:
        yield error(Failure(500, "", given=reply.error))
        ended = bool(reply.end_mark)
    else:
        ended = reply.end_mark is not False and reply.finish is not None
    if ended:
        yield {**head, "message": {"role": "assistant", "content": ""}, **_ending(reply, request)}


def _messages(reply: Reply) -> Iterator[dict[str, Any]]:
    yield from ({"content": "", "thinking": piece} for piece in reply.reasoning_pieces)
    yield from ({"content": piece} for piece in (*reply.pieces, *([reply.refusal] if reply.refusal else [])))
    yield from ({"content": "", "tool_calls": [call]} for call in _calls(reply))


def _message(reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join([*reply.pieces, reply.refusal or ""])}
    if reply.reasoning_pieces:
        message["thinking"] = "".join(reply.reasoning_pieces)
    if reply.calls:
        message["tool_calls"] = _calls(reply)
    return message


def _calls(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            **({"id": call.id} if call.id else {}),
            "function": {"index": index, "name": call.name, "arguments": call.value},
        }
        for index, call in enumerate(reply.calls)
    ]


def _logprobs(given: Any) -> dict[str, Any]:
    return {"logprobs": given} if given else {}


def _ending(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    reason = _FINISHES.get(reply.finish or "", reply.finish)
    tokens = count(reply, request)
    counts = {"prompt_eval_count": tokens.input, "eval_count": tokens.output}
    # The service leaves zeros out.
    known = {name: value for name, value in counts.items() if value}
    spent = {
        "total_duration": _LOAD + _PER_TOKEN * (tokens.input + tokens.output),
        "load_duration": _LOAD,
        **({"prompt_eval_duration": _PER_TOKEN * tokens.input} if tokens.input else {}),
        **({"eval_duration": _PER_TOKEN * tokens.output} if tokens.output else {}),
    }
    return {"done": True, **({"done_reason": reason} if reason else {}), **_usage(reply, {**spent, **known})}


def _usage(reply: Reply, made: dict[str, Any]) -> dict[str, Any]:
    if isinstance(reply.usage, dict):
        return reply.usage
    return {} if reply.usage is False else made
