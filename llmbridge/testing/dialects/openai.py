"""OpenAI's chat completions, embeddings and list of models, with Azure's URLs for the same.

Source:
    OpenAI API reference; `system_fingerprint` and other fields that may be absent are left out. The first chunk of an
    Azure deployment has no choices, only the results of the content filter on the prompt.
"""

from __future__ import annotations

import base64
import re
import struct
import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply

from . import openai_request
from .base import (
    STREAM,
    Answer,
    Dialect,
    Failure,
    count,
    cut,
    document,
    dump,
    json_object,
    logprob_shares,
    model_names,
    sse,
    vectors,
)

__all__ = ["DIALECT", "chat", "embeddings", "events", "models", "usage"]

_ERROR_KINDS = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("not_found_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")


def error(failure: Failure) -> Any:
    """An error document."""
    fallback = "server_error" if failure.status >= 500 else "invalid_request_error"
    kind, usual_code = _ERROR_KINDS.get(failure.status, (fallback, None))
    code = failure.code or usual_code
    made = {"message": failure.message, "type": kind, "param": failure.param, "code": code}
    return {"error": failure.given or made}


DIALECT = Dialect("openai", error)


def chat(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../chat/completions."""
    request = json_object(received)
    openai_request.check(request)
    deployment = _DEPLOYMENT.search(received.route)
    request = {"model": deployment[1], **request} if deployment else request
    if not request.get("stream"):
        return document(reply, _completion(reply, request, answer_id))
    asked = bool((request.get("stream_options") or {}).get("include_usage"))
    begin = [_prompt_filter(reply)] if deployment else []
    return Answer(reply.status, STREAM, [*begin, *events(reply, request, answer_id, asked)], streamed=True)


def models(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET .../models."""
    created = 1700000000
    listed = [
        {"id": name, "object": "model", "created": created, "owned_by": "llmbridge"} for name in model_names(reply)
    ]
    return document(reply, {"object": "list", "data": listed})


def embeddings(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../embeddings, as lists of numbers or as base64 of little-endian 32-bit floats."""
    request = json_object(received)
    texts = openai_request.check_embeddings(request)
    found = vectors(reply, request, request.get("dimensions"))
    packed = request.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
        for index, vector in enumerate(found)
    ]
    tokens = sum(len(text.split()) for text in texts)
    made_up = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": reply.model or request.get("model")}
    given = reply.usage if isinstance(reply.usage, dict) else made_up
    return document(reply, answer if reply.usage is False else {**answer, "usage": given})


def events(reply: Reply, request: dict[str, Any], answer_id: str, usage_asked: bool) -> Iterator[bytes]:
    """The events of a stream, its end mark included."""
    sent = reply.usage if reply.usage is not None else usage_asked
    head = dump({**_identity(reply, request, answer_id, "chat.completion.chunk"), "choices": []})[:-2]
    # OpenAI names usage in every chunk once it is asked for.
    tail = b',"usage":null}' if usage_asked and sent is not False else b"}"

    def chunk(choice: dict[str, Any]) -> bytes:
        whole = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": None, **choice}
        return sse(reply, head + dump(whole) + b"]" + tail)

    yield from map(chunk, _choices(reply, answer_id))
    if reply.error is not None:
        yield sse(reply, dump({"error": reply.error}))
    else:
        if reply.finish is not None:
            yield from (chunk({"index": index, "finish_reason": reason}) for index, reason in _finishes(reply))
        if sent is not False:
            yield sse(reply, head + b'],"usage":' + dump(usage(reply, request)) + b"}")
    if reply.end_mark if reply.end_mark is not None else reply.error is None:
        yield sse(reply, b"[DONE]")


def usage(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    """The scripted usage, or the counts."""
    if isinstance(reply.usage, dict):
        return reply.usage
    tokens = count(reply, request)
    made = {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
    }
    return {**made, "completion_tokens_details": {"reasoning_tokens": tokens.reasoning}} if tokens.reasoning else made


def _choices(reply: Reply, answer_id: str) -> Iterator[dict[str, Any]]:
    """What the chunks say before the end; further choices come in between the pieces of the first."""
    others = [iter([_role(text), {"content": text}]) for text in reply.choices]
    first = _first_choice(reply, answer_id)
    for round_ in zip_longest(first, *others):
        for index, delta in enumerate(round_):
            if delta is not None and index == 0:
                yield delta
            elif delta is not None:
                yield {"index": index, "delta": delta}


def _role(content: str | None) -> dict[str, Any]:
    return {"role": "assistant", "content": content if content is None else ""}


def _first_choice(reply: Reply, answer_id: str) -> Iterator[dict[str, Any]]:
    silent = (reply.calls or reply.refusal) and not reply.pieces and not reply.reasoning_pieces
    yield {"delta": _role(None if silent else "")}
    yield from ({"delta": {"reasoning_content": piece}} for piece in reply.reasoning_pieces)
    shares = logprob_shares(reply)
    for piece in reply.pieces:
        share = next(shares)
        yield {"delta": {"content": piece}, **({"logprobs": {"content": share, "refusal": None}} if share else {})}
    if reply.refusal is not None:
        yield from ({"delta": {"refusal": piece}} for piece in cut(reply.refusal))
    for index, call in enumerate(reply.calls):
        begun = {"name": call.name, "arguments": ""}
        yield _call_delta(index, {"id": call.id or _call_id(answer_id, index), "type": "function", "function": begun})
        yield from (_call_delta(index, {"function": {"arguments": piece}}) for piece in cut(call.text))


def _call_delta(index: int, part: dict[str, Any]) -> dict[str, Any]:
    return {"delta": {"tool_calls": [{"index": index, **part}]}}


def _call_id(answer_id: str, index: int) -> str:
    return f"call_{answer_id}_{index}"


def _finishes(reply: Reply) -> list[tuple[int, str | None]]:
    return [(0, reply.finish), *((index, "stop") for index, _ in enumerate(reply.choices, 1))]


def _completion(reply: Reply, request: dict[str, Any], answer_id: str) -> dict[str, Any]:
    if reply.error is not None:
        return {"error": reply.error}
    finishes = dict(_finishes(reply))
    messages = [_message(reply, answer_id)]
    messages += [{"role": "assistant", "content": text, "refusal": None} for text in reply.choices]
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": finishes[index]}
        for index, message in enumerate(messages)
    ]
    if reply.logprobs is not None:
        choices[0]["logprobs"] = {"content": reply.logprobs, "refusal": None}
    whole = {**_identity(reply, request, answer_id, "chat.completion"), "choices": choices}
    return whole if reply.usage is False else {**whole, "usage": usage(reply, request)}


def _message(reply: Reply, answer_id: str) -> dict[str, Any]:
    content = "".join(reply.pieces)
    silent = (reply.calls or reply.refusal is not None) and not content
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if silent else content,
        "refusal": reply.refusal,
    }
    if reply.reasoning_pieces:
        message["reasoning_content"] = "".join(reply.reasoning_pieces)
    if reply.calls:
        message["tool_calls"] = [
            {
                "id": call.id or _call_id(answer_id, index),
                "type": "function",
                "function": {"name": call.name, "arguments": call.text},
            }
            for index, call in enumerate(reply.calls)
        ]
    return message


def _identity(reply: Reply, request: dict[str, Any], answer_id: str, kind: str) -> dict[str, Any]:
    model = reply.model or request.get("model") or model_names(reply)[0]
    return {"id": f"chatcmpl-{answer_id}", "object": kind, "created": int(time.time()), "model": model}


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _prompt_filter(reply: Reply) -> bytes:
    verdict = {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    empty = {"id": "", "object": "", "created": 0, "model": ""}
    return sse(reply, dump({"choices": [], **empty, "prompt_filter_results": [verdict]}))
