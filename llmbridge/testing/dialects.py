"""What an endpoint says, before anything is decided about how it is sent.

Two dialects exist so far, and both answer in chunks of OpenAI's chat format: the OpenAI one itself (any path that ends
in `/chat/completions`, and `/models`), and the one of the two ancestors, which always streams.
"""

from __future__ import annotations

import http
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .received import Received
from .reply import Reply

__all__ = ["DEFAULT_MODEL", "JSON", "STREAM", "Answer", "answer", "last_user_text", "words"]

STREAM = "text/event-stream"
JSON = "application/json"
DEFAULT_MODEL = "test-model"

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_ERROR_KINDS = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("not_found_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}


@dataclass(frozen=True)
class Answer:
    """A status, the type of the body ("" for none), and the body as the events or the one document it consists of."""

    status: int
    content_type: str
    events: list[bytes]


class Refused(Exception):
    """The request is not one that the endpoint serves; the answer is an error document."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def answer(reply: Reply, received: Received, answer_id: str) -> Answer:
    """The answer to a request as the asked endpoint would word it.

    Args:
        reply: what to say; its `raw` and everything about the transport are not looked at.
        received: the request, which decides about the format.
        answer_id: what tells this answer from others; it becomes part of the `id` of its chunks.
    """
    if isinstance(reply.body, bytes):
        return Answer(reply.status, STREAM if reply.status < 400 else JSON, [reply.body])
    if reply.status == 204 or 300 <= reply.status < 400:
        return Answer(reply.status, "", [])
    if reply.status >= 400:
        error = reply.error or _error(reply.status, "".join(reply.pieces) or phrase(reply.status))
        return Answer(reply.status, JSON, [_dump({"error": error})])
    try:
        return _ENDPOINTS[_endpoint(received)](reply, received, answer_id)
    except Refused as exc:
        return Answer(exc.status, JSON, [_dump({"error": _error(exc.status, str(exc), exc.code)})])


def phrase(status: int) -> str:
    """The usual words for an HTTP status, "" if it has none."""
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return ""


def words(text: str) -> list[str]:
    """The text cut into words, each with the space in front of it; joined, they are the text again."""
    return re.findall(r"\s*\S+(?:\s+\Z)?|\s+\Z", text)


def last_user_text(received: Received) -> str:
    """What the user said last in a request of any dialect; "" where nothing can be found."""
    try:
        turns = _turns(received.json)
    except (ValueError, RecursionError):
        return ""
    texts = [text for role, text in turns if role in ("user", "human")]
    # JSON may smuggle in lone surrogates, which an answer could not carry.
    return texts[-1].encode("utf-8", "replace").decode() if texts else ""


def _endpoint(received: Received) -> tuple[str, str]:
    for method, ending in _ENDPOINTS:
        if received.method == method and received.route.endswith(ending):
            return method, ending
    raise Refused(404, f"Unknown request URL: {received.method} {received.route}", "unknown_url")


def _openai(reply: Reply, received: Received, answer_id: str) -> Answer:
    request = _json_object(received)
    _refuse_messages(request)
    stream, options = request.get("stream"), request.get("stream_options")
    if stream is not None and not isinstance(stream, bool):
        raise Refused(400, "Invalid type for 'stream': expected a boolean.", "invalid_type")
    if options is not None and not (stream and isinstance(options, dict)):
        raise Refused(400, "The 'stream_options' parameter is only allowed when 'stream' is enabled.")
    if not stream:
        return Answer(reply.status, JSON, [_completion(reply, request, answer_id)])
    asked = bool((options or {}).get("include_usage"))
    return Answer(reply.status, STREAM, list(_events(reply, request, answer_id, asked)))


def _codelinkava(reply: Reply, received: Received, answer_id: str) -> Answer:
    request = _json_object(received)
    _refuse_messages(request)
    return Answer(reply.status, STREAM, list(_events(reply, request, answer_id, False)))


def _vitalentum(reply: Reply, received: Received, answer_id: str) -> Answer:
    request = _json_object(received)
    if not isinstance(request.get("conversation"), str) or not _turns(request):
        raise Refused(400, "'conversation' must be the JSON text of an object with a non-empty 'history'")
    return Answer(reply.status, STREAM, list(_events(reply, request, answer_id, False)))


def _models(reply: Reply, received: Received, answer_id: str) -> Answer:
    model = {"id": reply.model or DEFAULT_MODEL, "object": "model", "created": 1700000000, "owned_by": "llmbridge"}
    return Answer(reply.status, JSON, [_dump({"object": "list", "data": [model]})])


_ENDPOINTS: dict[tuple[str, str], Callable[[Reply, Received, str], Answer]] = {
    ("POST", "/chat/completions"): _openai,
    ("POST", "/api/converse-edge"): _vitalentum,
    ("POST", "/api/chat"): _codelinkava,
    ("GET", "/models"): _models,
}


def _json_object(received: Received) -> dict[str, Any]:
    try:
        request = received.json
    except (ValueError, RecursionError) as exc:
        raise Refused(400, f"Malformed JSON: {exc}", "invalid_json") from exc
    if not isinstance(request, dict):
        raise Refused(400, "The request body must be a JSON object")
    return request


def _refuse_messages(request: dict[str, Any]) -> None:
    messages = request.get("messages")
    if messages is None:
        raise Refused(400, "Missing required parameter: 'messages'", "missing_required_parameter")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "Invalid 'messages': expected a non-empty array", "invalid_type")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise Refused(400, f"Missing required parameter: 'messages[{index}].role'", "missing_required_parameter")


def _turns(request: Any) -> list[tuple[str, str]]:
    """(role, text) of every message; none where the request has no such shape."""
    try:
        if isinstance(request.get("conversation"), str):
            history = json.loads(request["conversation"])["history"]
            return [(str(turn["speaker"]), _text(turn["text"])) for turn in history]
        return [(str(message["role"]), _text(message.get("content"))) for message in request["messages"]]
    except (AttributeError, LookupError, TypeError, ValueError, RecursionError):
        return []


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def _events(reply: Reply, request: dict[str, Any], answer_id: str, usage_asked: bool) -> Iterator[bytes]:
    end = b"\n" if reply.lines else b"\n\n"
    usage = reply.usage if reply.usage is not None else usage_asked
    head = _dump({**_identity(reply, request, answer_id, "chat.completion.chunk"), "choices": []})[:-2]
    # OpenAI names usage in every chunk once it is asked for.
    tail = b',"usage":null}' if usage_asked and usage is not False else b"}"

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return b"data: " + head + _dump(choice) + b"]" + tail + end

    yield chunk({"role": "assistant", "content": ""})
    for piece in reply.reasoning_pieces:
        yield chunk({"reasoning_content": piece})
    for piece in reply.pieces:
        yield chunk({"content": piece})
    if reply.error is not None:
        yield b"data: " + _dump({"error": reply.error}) + end
    else:
        if reply.finish_reason is not None:
            yield chunk({}, reply.finish_reason)
        if usage is not False:
            yield b"data: " + head + b'],"usage":' + _dump(_usage(reply, request)) + b"}" + end
    if reply.end_mark if reply.end_mark is not None else reply.error is None:
        yield b"data: [DONE]" + end


def _completion(reply: Reply, request: dict[str, Any], answer_id: str) -> bytes:
    if reply.error is not None:
        return _dump({"error": reply.error})
    message: dict[str, Any] = {"role": "assistant", "content": "".join(reply.pieces), "refusal": None}
    if reply.reasoning_pieces:
        message["reasoning_content"] = "".join(reply.reasoning_pieces)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
    document = {**_identity(reply, request, answer_id, "chat.completion"), "choices": [choice]}
    if reply.usage is not False:
        document["usage"] = _usage(reply, request)
    return _dump(document)


def _identity(reply: Reply, request: dict[str, Any], answer_id: str, kind: str) -> dict[str, Any]:
    model = reply.model or request.get("model") or DEFAULT_MODEL
    return {"id": f"chatcmpl-{answer_id}", "object": kind, "created": int(time.time()), "model": model}


def _usage(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    if isinstance(reply.usage, dict):
        return reply.usage
    prompt = sum(len(text.split()) for _, text in _turns(request))
    reasoning = len("".join(reply.reasoning_pieces).split())
    completion = len("".join(reply.pieces).split()) + reasoning
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return {**usage, "completion_tokens_details": {"reasoning_tokens": reasoning}} if reasoning else usage


def _error(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    fallback = "server_error" if status >= 500 else "invalid_request_error"
    kind, usual_code = _ERROR_KINDS.get(status, (fallback, None))
    return {"message": message, "type": kind, "param": None, "code": code or usual_code}


def _dump(value: Any) -> bytes:
    return _encoder.encode(value).encode("utf-8", "replace")
