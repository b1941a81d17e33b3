"""Cohere's second API: named events that start, fill and end each block, and flat errors.

Source:
    Cohere API reference, chat (v2), streaming, embed (v2), models, errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmbridge.testing.asked import embedding_inputs
from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply
from llmbridge.testing.turn import Thought, Words

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
    function_call,
    identity_of,
    json_object,
    model_names,
    sse,
    vectors,
)
from .openai import check_request

__all__ = ["DIALECT", "chat", "embed", "models"]

_FINISHES = {
    "stop": "COMPLETE",
    "length": "MAX_TOKENS",
    "tool_calls": "TOOL_CALL",
    "content_filter": "ERROR_TOXIC",
}


def error(failure: Failure) -> Any:
    """An error document; a scripted mapping is added to it."""
    message = failure.given if isinstance(failure.given, str) else failure.message
    return {"id": failure.request_id, "message": message, **(failure.given if isinstance(failure.given, dict) else {})}


DIALECT = Dialect("cohere", error)


def chat(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../v2/chat."""
    request = json_object(received)
    if not isinstance(request.get("model"), str):
        raise Refused(400, "model is required")
    check_request(request)
    if request.get("stream"):
        return Answer(reply.status, STREAM, list(_events(reply, request, answer_id)), streamed=True)
    if reply.error is not None:
        return document(reply, error(Failure(500, "", given=reply.error, request_id=answer_id)))
    named = identity_of(reply, f"msg_{answer_id}")
    return document(reply, {**named, "message": _message(reply, answer_id), **_ending(reply, request)})


def embed(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../v2/embed."""
    request = json_object(received)
    texts = embedding_inputs(request)
    if not isinstance(request.get("model"), str) or not texts:
        raise Refused(400, "invalid request: model and texts are required")
    if not isinstance(request.get("input_type"), str):
        raise Refused(400, "invalid request: valid input_type must be provided with the provided model")
    tokens = sum(len(text.split()) for text in texts)
    counted = reply.usage if isinstance(reply.usage, dict) else {"input_tokens": tokens}
    meta = {"api_version": {"version": "2"}, **({} if reply.usage is False else {"billed_units": counted})}
    found = vectors(reply, request, request.get("output_dimension"))
    answer = {"id": answer_id, "texts": texts, "embeddings": {"float": found}, "meta": meta}
    return document(reply, {**answer, "response_type": "embeddings_by_type"})


def models(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET /cohere/v1/models."""
    listed = [{"name": name, "endpoints": ["chat", "embed"], "context_length": 128000} for name in model_names(reply)]
    return document(reply, {"models": listed})


def _events(reply: Reply, request: dict[str, Any], answer_id: str) -> Iterator[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return sse(reply, dump({**fields, "type": kind}), kind)

    def said(kind: str, index: int, **message: Any) -> bytes:
        return event(kind, index=index, delta={"message": message})

    empty = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    yield event("message-start", **identity_of(reply, f"msg_{answer_id}"), delta={"message": empty})
    plan, blocks = _blocks(reply)
    yield from (event("tool-plan-delta", delta={"message": {"tool_plan": piece}}) for piece in plan)
    for index, (name, pieces) in enumerate(blocks):
        yield said("content-start", index, content={"type": name})
        yield from (said("content-delta", index, content={"type": name, name: piece}) for piece in pieces)
        yield event("content-end", index=index)
    yield from (event(str(part.get("type")), **_without_type(part)) for part in reply.turn if isinstance(part, dict))
    for index, call in enumerate(_calls(reply, answer_id)):
        text = call["function"]["arguments"]
        begun = {**call, "function": {**call["function"], "arguments": ""}}
        yield said("tool-call-start", index, tool_calls=begun)
        yield from (said("tool-call-delta", index, tool_calls={"function": {"arguments": part}}) for part in cut(text))
        yield event("tool-call-end", index=index)
    if reply.error is not None:
        yield event("message-end", id=f"msg_{answer_id}", delta={"finish_reason": "ERROR", "error": reply.error})
    elif reply.finish is not None and reply.end_mark is not False:
        yield event("message-end", delta=_ending(reply, request))


def _blocks(reply: Reply) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The plan (reasoning before tool calls), and the blocks of content."""
    blocks = []
    for part in reply.turn:
        if isinstance(part, Words) and not (reply.calls and isinstance(part, Thought)):
            blocks.append(("thinking" if isinstance(part, Thought) else "text", list(part.pieces)))
    if reply.refusal and blocks and blocks[-1][0] == "text":
        blocks[-1][1].append(reply.refusal)
    elif reply.refusal:
        blocks.append(("text", [reply.refusal]))
    return list(reply.reasoning_pieces) if reply.calls else [], blocks


def _without_type(event: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name != "type"}


def _message(reply: Reply, answer_id: str) -> dict[str, Any]:
    plan, blocks = _blocks(reply)
    message: dict[str, Any] = {"role": "assistant"}
    if blocks:
        message["content"] = [{"type": name, name: "".join(pieces)} for name, pieces in blocks]
    if plan:
        message["tool_plan"] = "".join(plan)
    if reply.calls:
        message["tool_calls"] = _calls(reply, answer_id)
    cited = [_citation(part) for part in reply.turn if isinstance(part, dict) and part.get("type") == "citation-start"]
    return {**message, "citations": cited} if cited else message


def _citation(event: dict[str, Any]) -> Any:
    """The citation in its event."""
    delta = event.get("delta")
    message = delta.get("message") if isinstance(delta, dict) else None
    return message.get("citations") if isinstance(message, dict) else None


def _calls(reply: Reply, answer_id: str) -> list[dict[str, Any]]:
    return [function_call(call, f"{call.name}_{answer_id}_{index}") for index, call in enumerate(reply.calls)]


def _ending(reply: Reply, request: dict[str, Any]) -> dict[str, Any]:
    reason = {"finish_reason": _FINISHES.get(reply.finish or "", reply.finish)}
    if reply.usage is False:
        return reason
    if isinstance(reply.usage, dict):
        return {**reason, "usage": reply.usage}
    tokens = count(reply, request)
    counted = {"input_tokens": tokens.input, "output_tokens": tokens.output}
    return {**reason, "usage": {"billed_units": counted, "tokens": counted}}
