"""Ollama's own API: JSON lines; the last one says `done`.

Source:
    Ollama's API documentation and the types of its server: chat, embed, tags, version, and its errors. The server
    parses requests into Go structs, so wrong types give the errors of Go's JSON decoder.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from typing import Any

from llmbridge.testing.asked import embedding_inputs
from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply
from llmbridge.testing.turn import Call, Thought, Words

from .base import (
    NDJSON,
    Answer,
    Dialect,
    Failure,
    Refused,
    count,
    document,
    dump,
    json_object,
    logprob_shares,
    model_names,
    vectors,
)

__all__ = ["DIALECT", "chat", "embed", "running", "show", "tags", "version"]

_DATE = "2024-01-01T00:00:00Z"
_FINISHES = {"tool_calls": "stop", "content_filter": "stop"}
_LOAD, _PER_TOKEN = 1_000_000, 10_000_000  # nanoseconds
_GO = {str: "string", bool: "bool", list: "array", dict: "object", int: "number", float: "number"}
_DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "test",
    "families": ["test"],
    "parameter_size": "0B",
    "quantization_level": "F32",
}
_LEVELS = ("low", "medium", "high", "max")


def error(failure: Failure) -> Any:
    """An error document: only a text, unless something else was scripted."""
    return {"error": failure.given or failure.message}


DIALECT = Dialect("ollama", error, "")


def chat(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST /api/chat with a model; streams by default."""
    request = json_object(received)
    _check_request(request)
    # Without messages, the model is only loaded or unloaded.
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
    _check_embed(request)
    found = vectors(reply, request, request.get("dimensions"))
    tokens = sum(len(text.split()) for text in embedding_inputs(request))
    counts = {"total_duration": _LOAD, "load_duration": _LOAD, "prompt_eval_count": tokens}
    return document(reply, {"model": _model(reply, request), "embeddings": found, **_usage(reply, counts)})


def tags(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET /api/tags."""
    return document(reply, {"models": _listed(reply)})


def _listed(reply: Reply) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "model": name,
            "modified_at": _DATE,
            "size": 0,
            "digest": hashlib.sha256(name.encode()).hexdigest(),
            "details": _DETAILS,
        }
        for name in model_names(reply)
    ]


def show(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST /api/show: what a model is and can do."""
    request = json_object(received)
    if not (request.get("model") or request.get("name")):
        raise Refused(400, "model is required")
    told = {
        "license": "",
        "modelfile": "",
        "parameters": "",
        "template": "{{ .Prompt }}",
        "details": _DETAILS,
        "model_info": {"general.architecture": "test", "general.parameter_count": 0, "test.context_length": 131072},
        "capabilities": ["completion", "tools", "vision", "thinking", "embedding"],
        "modified_at": _DATE,
    }
    return document(reply, {**told, **(reply.extra or {})})


def running(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET /api/ps: the models that are loaded."""
    more = {"expires_at": _DATE, "size_vram": 0, "context_length": 4096}
    return document(reply, {"models": [{**entry, **more} for entry in _listed(reply)]})


def version(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET /api/version."""
    return document(reply, {"version": "0.0.0"})


def _model(reply: Reply, request: dict[str, Any]) -> Any:
    return reply.model or request["model"]


def _head(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    now = dt.datetime.now(dt.timezone.utc).isoformat().replace("+00:00", "Z")
    return {"model": _model(reply, request), "created_at": now, **(reply.extra or {})}


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
    calls = iter(_calls(reply))
    for part in (*reply.turn, *([Words((reply.refusal,))] if reply.refusal else [])):
        if isinstance(part, Call):
            yield {"content": "", "tool_calls": [next(calls)]}
        elif isinstance(part, dict):
            yield {"content": "", **part}
        else:
            thinks = isinstance(part, Thought)
            yield from ({"content": "", "thinking": piece} if thinks else {"content": piece} for piece in part.pieces)


def _message(reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join([*reply.pieces, reply.refusal or ""])}
    if reply.reasoning_pieces:
        message["thinking"] = "".join(reply.reasoning_pieces)
    if reply.calls:
        message["tool_calls"] = _calls(reply)
    for part in reply.turn:
        message |= part if isinstance(part, dict) else {}
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
    # The service leaves out zeros.
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


# -- the form of a request, and the service's errors for a wrong one --------------------------------------------------


def _check_request(request: dict[str, Any]) -> None:
    """Refuses a chat request without a model, or with wrong messages, tools or settings."""
    _typed(request, "model", str, "ChatRequest.model")
    _typed(request, "stream", bool, "ChatRequest.stream")
    _typed(request, "messages", list, "ChatRequest.messages")
    _typed(request, "tools", list, "ChatRequest.tools")
    _typed(request, "options", dict, "ChatRequest.options")
    if not request.get("model"):
        raise Refused(400, "model is required")
    for message in request.get("messages") or []:
        _check_message(message)
    for tool in request.get("tools") or []:
        _check_tool(tool)
    think = request.get("think")
    if isinstance(think, str) and think not in _LEVELS:
        raise Refused(400, f'invalid think value: "{think}" (must be "high", "medium", "low", "max", true, or false)')
    wanted = request.get("format")
    if not (wanted is None or wanted in ("", "json") or isinstance(wanted, dict)):
        raise Refused(400, f'invalid format: {wanted!r}; expected "json" or a valid JSON Schema object')


def _check_embed(request: dict[str, Any]) -> None:
    """Refuses an embeddings request without a model, or whose input is not text."""
    if not isinstance(request.get("model"), str) or not request["model"]:
        raise Refused(400, "model is required")
    given = request.get("input")
    texts = given if isinstance(given, list) else [given]
    if not all(isinstance(text, str) for text in texts) or not embedding_inputs(request):
        raise Refused(400, "invalid input type")


def _typed(fields: Any, name: str, kind: type, field: str) -> None:
    if not isinstance(fields, dict):
        raise _mismatch(fields, field.rpartition(".")[0] or field, "object")
    value = fields.get(name)
    if value is not None and not isinstance(value, kind):
        raise _mismatch(value, field, _GO[kind])


def _mismatch(value: Any, field: str, wanted: str) -> Refused:
    given = _GO.get(type(value), "null")
    return Refused(400, f"json: cannot unmarshal {given} into Go struct field {field} of type {wanted}")


def _check_message(message: Any) -> None:
    for name in ("role", "content", "thinking", "tool_name", "tool_call_id"):
        _typed(message, name, str, f"ChatRequest.messages.{name}")
    for name in ("images", "tool_calls"):
        _typed(message, name, list, f"ChatRequest.messages.{name}")
    for image in message.get("images") or []:
        if not isinstance(image, str) or image.startswith(("data:", "http:", "https:")):
            raise Refused(400, "illegal base64 data at input byte 4")
    for call in message.get("tool_calls") or []:
        _typed(call, "function", dict, "ChatRequest.messages.tool_calls.function")
        _typed(call.get("function") or {}, "name", str, "ChatRequest.messages.tool_calls.function.name")
        _typed(call.get("function") or {}, "arguments", dict, "ChatRequest.messages.tool_calls.function.arguments")


def _check_tool(tool: Any) -> None:
    _typed(tool, "function", dict, "ChatRequest.tools.function")
    function = tool.get("function") or {}
    _typed(function, "name", str, "ChatRequest.tools.function.name")
    _typed(function, "parameters", dict, "ChatRequest.tools.function.parameters")
