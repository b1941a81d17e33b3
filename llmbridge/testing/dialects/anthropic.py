"""Anthropic's Messages: content blocks in named events, errors and lists.

Source:
    Anthropic API reference, messages, streaming, errors, models, token counting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply
from llmbridge.testing.turn import Call, Thought, Words

from .base import (
    STREAM,
    Answer,
    Dialect,
    Failure,
    Refused,
    count,
    cut,
    document,
    dump,
    identity_of,
    json_object,
    model_names,
    model_of,
    proof,
    sse,
)
from .schemas import BOUNDS, PROPERTY, old_words, places, top_words

__all__ = ["DIALECT", "count_tokens", "messages", "models", "on_vertex"]

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
_STOPS = {
    "pause": "pause_turn",
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_SAMPLING = ("temperature", "top_p", "top_k")
_SINCE_NO_SAMPLING = "2026-10-21"
_VERTEX = "2023-06-01"  # the API version there
_LEAST_BUDGET = 1024
_BLOCK_FIELDS: dict[str, tuple[tuple[str, type], ...]] = {
    "text": (("text", str),),
    "image": (("source", dict),),
    "document": (("source", dict),),
    "search_result": (("source", str), ("title", str), ("content", list)),
    "container_upload": (("file_id", str),),
    "compaction": (),
    "tool_use": (("id", str), ("name", str), ("input", dict)),
    "tool_result": (("tool_use_id", str),),
    "server_tool_use": (("id", str), ("name", str), ("input", dict)),
    "mcp_tool_use": (("id", str), ("name", str), ("server_name", str), ("input", dict)),
    "thinking": (("signature", str),),
    "redacted_thinking": (("data", str),),
}
_RESULT: tuple[tuple[str, type], ...] = (("tool_use_id", str),)
"""The types of results of server tools, such as `web_search_tool_result`."""
_WORDS = {str: "string", int: "integer", list: "list", dict: "dictionary"}


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
    return _answered(reply, json_object(received), received.header("anthropic-version"), answer_id)


def on_vertex(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../models/{model}:streamRawPredict, on Vertex AI: the model is in the path, the version in the body."""
    request = json_object(received)
    if request.pop("anthropic_version", None) != "vertex-2023-10-16":
        raise Refused(400, "anthropic_version: Field required")
    if "model" in request:
        raise Refused(400, "model: Extra inputs are not permitted")
    streams = received.route.endswith(":streamRawPredict")
    return _answered(reply, {**request, "model": received.model, "stream": streams}, _VERTEX, answer_id)


def _answered(reply: Reply, request: dict[str, Any], version: str | None, answer_id: str) -> Answer:
    _check_request(request, version)
    if request.get("stream"):
        return Answer(reply.status, STREAM, list(_events(reply, request, answer_id)), streamed=True)
    if reply.error is not None:
        return document(reply, error(Failure(500, "", given=reply.error, request_id=f"req-{answer_id}")))
    return document(reply, _message(reply, request, answer_id))


def count_tokens(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../v1/messages/count_tokens; a scripted usage sets its `input_tokens`."""
    request = json_object(received)
    _check_request(request, received.header("anthropic-version"), max_tokens=False)
    given = reply.usage.get("input_tokens") if isinstance(reply.usage, dict) else None
    return document(reply, {"input_tokens": count(reply, request).input if given is None else given})


def models(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET .../v1/models with the header `anthropic-version`."""
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
        # An error may come at any time: the current block stays open.
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
    model = model_of(reply, request)
    return identity_of(reply, f"msg_{answer_id}", type="message", role="assistant", model=model)


def _ending(reply: Reply) -> dict[str, Any]:
    refused = reply.refusal is not None and not reply.finish_chosen
    reason = "refusal" if refused else _STOPS.get(reply.finish or "", reply.finish)
    ending: dict[str, Any] = {"stop_reason": reason, "stop_sequence": None}
    if reply.refusal is not None:
        ending["stop_details"] = {"type": "refusal", "category": None, "explanation": reply.refusal}
    return ending


@dataclass(frozen=True)
class _Block:
    """A content block: its start in a stream, the deltas that fill it, and its final state."""

    start: dict[str, Any]
    deltas: list[dict[str, Any]]
    whole: dict[str, Any]


def _blocks(reply: Reply, answer_id: str) -> list[_Block]:
    blocks = []
    calls = 0
    for part in reply.turn:
        if isinstance(part, Thought):
            blocks.append(_thinking(part))
        elif isinstance(part, Words):
            blocks.append(_text({"type": "text", "text": part.text}, part.pieces))
        elif isinstance(part, Call):
            use = {"type": "tool_use", "id": part.id or f"toolu_{answer_id}_{calls}", "name": part.name}
            blocks.append(_use({**use, "input": part.value}, part.text))
            calls += 1
        else:
            blocks.append(_own_block(part))
    return blocks


def _thinking(thought: Thought) -> _Block:
    if thought.redacted is not None:
        whole = {"type": "redacted_thinking", "data": thought.redacted}
        return _Block(whole, [], whole)
    deltas = [{"type": "thinking_delta", "thinking": piece} for piece in thought.pieces]
    deltas.append({"type": "signature_delta", "signature": proof(thought)})
    start = {"type": "thinking", "thinking": "", "signature": ""}
    return _Block(start, deltas, {**start, "thinking": thought.text, "signature": proof(thought)})


def _text(whole: dict[str, Any], pieces: tuple[str, ...]) -> _Block:
    """A text, followed by its citations one by one."""
    cited = whole.get("citations")
    deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": piece} for piece in pieces]
    deltas += [{"type": "citations_delta", "citation": one} for one in cited or ()]
    return _Block({**whole, "text": "", **({"citations": []} if cited else {})}, deltas, whole)


def _use(whole: dict[str, Any], text: str) -> _Block:
    deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in cut(text)]
    return _Block({**whole, "input": {}}, deltas, whole)


def _own_block(block: dict[str, Any]) -> _Block:
    """A scripted block: what the service sends in pieces is sent in pieces."""
    kind = block.get("type")
    if kind == "text" and isinstance(block.get("text"), str):
        return _text(block, tuple(cut(block["text"])))
    if kind == "thinking" and isinstance(block.get("thinking"), str):
        return _thinking(Thought(tuple(cut(block["thinking"])), block.get("signature")))
    if isinstance(block.get("input"), dict):
        return _use(block, dump(block["input"]).decode())
    return _Block(block, [], block)


def _usage(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    if isinstance(reply.usage, dict):
        return reply.usage
    tokens = count(reply, request)
    return {"input_tokens": tokens.input, "output_tokens": tokens.output}


def _first_usage(usage: dict[str, Any]) -> dict[str, Any]:
    """The counts at the start of the answer: the input, and one output token."""
    known = {name: value for name, value in usage.items() if not name.startswith("output")}
    return {**known, "output_tokens": 1} if "output_tokens" in usage else known


def _last_usage(usage: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in usage.items() if name.startswith("output")}


# -- the form of a request, and the service's errors for a wrong one --------------------------------------------------


def _check_request(request: dict[str, Any], version: str | None, *, max_tokens: bool = True) -> None:
    """Refuses a request that lacks a required field, or has wrong messages, tools or settings.

    Args:
        request: The body.
        version: The `anthropic-version` header.
        max_tokens: Whether the endpoint requires that field.
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
    config = request.get("output_config")
    form = config.get("format") if isinstance(config, dict) else None
    if isinstance(form, dict) and form.get("type") == "json_schema":
        _require(form, "schema", dict, "output_config.format.")
        _check_bounds(form["schema"], "output_config.format.schema")
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
        blocks = _checked_blocks(message, where, last=index == len(messages) - 1)
        waiting = _check_results(blocks, waiting, where)
    if waiting:
        raise _unanswered(waiting, f"messages.{len(messages) - 1}")
    if messages[-1]["role"] == "assistant" and _last_text(messages[-1]["content"])[-1:].isspace():
        raise Refused(400, "messages: final assistant content cannot end with trailing whitespace")


def _last_text(content: Any) -> str:
    """The text at the end of a turn; "" if it ends with something else."""
    last = content[-1] if isinstance(content, list) and content else content
    text = last.get("text") if isinstance(last, dict) and last.get("type") == "text" else last
    return text if isinstance(text, str) else ""


def _checked_blocks(message: dict[str, Any], where: str, *, last: bool) -> list[dict[str, Any]]:
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
    needed = _BLOCK_FIELDS.get(kind) if isinstance(kind, str) else None
    if needed is None and not str(kind).endswith("_tool_result"):
        known = ", ".join(f"'{name}'" for name in _BLOCK_FIELDS)
        raise Refused(400, f"{where}: Input tag {kind!r} does not match any of the expected tags: {known}")
    for name, wanted in _RESULT if needed is None else needed:
        _require(block, name, wanted, f"{where}.{kind}.")
    if kind == "text" and not block["text"]:
        raise Refused(400, f"{where}: text content blocks must be non-empty")
    if kind in ("image", "document"):
        _check_source(block["source"], f"{where}.{kind}.source")


def _check_source(source: dict[str, Any], where: str) -> None:
    needed = {"base64": ("media_type", "data"), "url": ("url",), "text": ("data",), "file": ("file_id",)}
    kind = source.get("type")
    if kind not in (*needed, "content"):
        raise Refused(400, f"{where}: Input tag {kind!r} does not match any of the expected tags")
    for name in needed.get(kind, ()):
        _require(source, name, str, f"{where}.{source['type']}.")


def _check_results(blocks: list[dict[str, Any]], waiting: set[str], where: str) -> set[str]:
    """The calls of this message, after checking that it answers all calls of the last one."""
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
    _check_schema(tool["input_schema"], f"{where}.custom.input_schema")
    if tool.get("strict"):
        _check_bounds(tool["input_schema"], f"{where}.custom")


def _check_schema(schema: dict[str, Any], where: str) -> None:
    if top_words(schema, ("oneOf", "allOf", "anyOf")):
        raise Refused(400, f"{where}: input_schema does not support oneOf, allOf, or anyOf at the top level")
    if old_words(schema):
        text = (
            "JSON schema is invalid. It must match JSON Schema draft 2020-12 (https://json-schema.org/draft/2020-12)."
        )
        raise Refused(400, f"{where}: {text}")
    names = schema.get("properties")
    if isinstance(names, dict) and not all(map(PROPERTY.fullmatch, names)):
        raise Refused(400, f"{where}.properties: Property keys should match pattern '^{PROPERTY.pattern}$'")


def _check_bounds(schema: dict[str, Any], where: str) -> None:
    """A strict schema accepts hardly any bounds."""
    for _, part in places(schema):
        for name in top_words(part, BOUNDS):
            kind = part.get("type")
            raise Refused(400, f"{where}: For '{kind}' type, property '{name}' is not supported")
