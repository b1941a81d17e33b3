"""Gemini's Developer API: whole responses as events, parts, and Google's error document.

Source:
    Gemini API reference, generateContent, embeddings, models; google.rpc.Code for the words of the errors, and
    google.rpc.RetryInfo.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from llmbridge.testing.asked import camel, camel_keys
from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply
from llmbridge.testing.turn import Call, Part, Thought

from .base import (
    DEFAULT_MODEL,
    JSON,
    STREAM,
    Answer,
    Dialect,
    Failure,
    Refused,
    count,
    document,
    dump,
    json_object,
    model_names,
    signature,
    sse,
    vectors,
)
from .schemas import bare_arrays, places

__all__ = ["DIALECT", "METHOD", "call", "models"]

METHOD = re.compile(r"/(?:models|tunedModels)/([^/:]+):(\w+)")
"""The end of the path: the model and the method."""

_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_FINISHES = {"stop": "STOP", "length": "MAX_TOKENS", "tool_calls": "STOP", "content_filter": "SAFETY"}
_ROLES = ("user", "model", "function")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_DATA = {
    "text": str,
    "inlineData": dict,
    "fileData": dict,
    "functionCall": dict,
    "functionResponse": dict,
    "executableCode": dict,
    "codeExecutionResult": dict,
    "toolCall": dict,
    "toolResponse": dict,
}
_BESIDES = {"thought", "thoughtSignature", "videoMetadata", "mediaResolution", "partMetadata"}


def error(failure: Failure) -> Any:
    """An error document; a scripted mapping is its inner object, a str the message of one."""
    if isinstance(failure.given, dict):
        return {"error": failure.given}
    usual = "INTERNAL" if failure.status >= 500 else "INVALID_ARGUMENT"
    inner: dict[str, Any] = {
        "code": failure.status,
        "message": failure.given or failure.message,
        "status": _STATUSES.get(failure.status, usual),
    }
    if failure.retry_after is not None and failure.retry_after.replace(".", "", 1).isdigit():
        retry = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{failure.retry_after}s"}
        inner["details"] = [retry]
    return {"error": inner}


DIALECT = Dialect("gemini", error, "")


def call(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../models/{model}:{method}."""
    found = METHOD.search(received.route)
    model, method = (found[1], found[2]) if found else (DEFAULT_MODEL, "")
    if method not in _METHODS:
        raise Refused(404, f"Method {method!r} is not found for this model.")
    return _METHODS[method](reply, received, answer_id, model)


def models(reply: Reply, received: Received, answer_id: str) -> Answer:
    """GET /{version}/models."""
    methods = ["generateContent", "streamGenerateContent", "countTokens", "embedContent"]
    listed = [
        {
            "name": f"models/{name}",
            "version": "001",
            "displayName": name,
            "inputTokenLimit": 1048576,
            "outputTokenLimit": 65536,
            "supportedGenerationMethods": methods,
        }
        for name in model_names(reply)
    ]
    return document(reply, {"models": listed})


def _generate(reply: Reply, received: Received, answer_id: str, model: str) -> Answer:
    request = json_object(received)
    _check_request(request)
    if reply.error is not None:
        return document(reply, error(Failure(500, "", given=reply.error)))
    parts = _merged([part for step in _steps(reply) for part in step])
    return document(reply, {**_content(reply, parts), **_tail(reply, request, answer_id, model)})


def _stream(reply: Reply, received: Received, answer_id: str, model: str) -> Answer:
    request = json_object(received)
    _check_request(request)
    chunks = _chunks(reply, request, answer_id, model)
    if "alt=sse" in received.path.partition("?")[2].split("&"):
        events = [sse(reply, dump(chunk)) for chunk in chunks]
        return Answer(reply.status, STREAM, [*events, *_raw_error(reply)], streamed=True)
    if reply.error is not None:
        chunks.append(error(Failure(500, "", given=reply.error)))
    array = [(b",\r\n" if index else b"[") + dump(chunk) for index, chunk in enumerate(chunks)]
    return Answer(reply.status, JSON, [*array, b"]"], streamed=True)


def _embed_one(reply: Reply, received: Received, answer_id: str, model: str) -> Answer:
    request = json_object(received)
    _check_embedding(request)
    found = vectors(reply, request, _dimensions(request))
    values = found[0] if found else []
    return document(reply, {"embedding": {"values": values}, **_embedding_usage(reply)})


def _embed_many(reply: Reply, received: Received, answer_id: str, model: str) -> Answer:
    request = json_object(received)
    _check_embeddings(request)
    found = vectors(reply, request, _dimensions(request["requests"][0]))
    return document(reply, {"embeddings": [{"values": values} for values in found], **_embedding_usage(reply)})


def _count(reply: Reply, received: Received, answer_id: str, model: str) -> Answer:
    request = json_object(received)
    _check_request(request)
    return document(reply, {"totalTokens": count(reply, request).input})


_METHODS = {
    "generateContent": _generate,
    "streamGenerateContent": _stream,
    "embedContent": _embed_one,
    "batchEmbedContents": _embed_many,
    "countTokens": _count,
}


def _embedding_usage(reply: Reply) -> dict[str, Any]:
    return {"usageMetadata": reply.usage} if isinstance(reply.usage, dict) else {}


def _raw_error(reply: Reply) -> Iterator[bytes]:
    """An error inside a stream is not an event: the service writes the bare document, line by line."""
    if reply.error is not None:
        whole = dump(error(Failure(500, "", given=reply.error)))
        yield (
            re.sub(rb'^\{"error":|\}$', lambda found: b'{\n  "error": ' if found[0] != b"}" else b"\n}", whole) + b"\n"
        )


def _chunks(reply: Reply, request: dict[str, Any], answer_id: str, model: str) -> list[dict[str, Any]]:
    """One response per piece; the last one has the finish reason, unless an error follows."""
    steps = list(_steps(reply)) or [[{"text": ""}]]
    tail = _tail(reply, request, answer_id, model)
    if reply.error is not None:
        named = {name: value for name, value in tail.items() if name != "usageMetadata"}
        return [{"candidates": [_candidate(0, step, None)], **named} for step in steps if step != [{"text": ""}]]
    begun = {**tail, **_usage_so_far(reply, tail)}
    chunks = [{"candidates": [_candidate(0, step, None)], **begun} for step in steps[:-1]]
    return [*chunks, {**_content(reply, steps[-1]), **tail}]


def _usage_so_far(reply: Reply, tail: dict[str, Any]) -> dict[str, Any]:
    """The counts in every chunk; before the last one, only the prompt's is certain."""
    if reply.usage is False:
        return {}
    prompt = tail["usageMetadata"].get("promptTokenCount", 0)
    return {"usageMetadata": {"promptTokenCount": prompt, "totalTokenCount": prompt}}


def _steps(reply: Reply) -> Iterator[list[dict[str, Any]]]:
    """The parts of every event: thoughts, texts, and all calls together."""
    if reply.parts is not None:
        yield from (step for part in reply.turn for step in _part_steps(part))
        return
    signed = signature(reply)
    mark = {"thoughtSignature": signed} if signed else {}
    yield from ([{"text": piece, "thought": True}] for piece in reply.reasoning_pieces)
    last = len(reply.pieces) - 1
    for index, piece in enumerate(reply.pieces):
        yield [{"text": piece, **(mark if index == last and not reply.calls else {})}]
    if reply.calls:
        # The service signs only the first of several parallel calls.
        yield [
            {**_call_part(one), **more}
            for one, more in zip(reply.calls, [mark, *[{}] * len(reply.calls)], strict=False)
        ]


def _part_steps(part: Part) -> Iterator[list[dict[str, Any]]]:
    """The events for one scripted part of a turn, each with its own signature."""
    if isinstance(part, dict):
        yield [part]
    elif isinstance(part, Call):
        yield [{**_call_part(part), **({"thoughtSignature": part.signature} if part.signature else {})}]
    elif isinstance(part, Thought):
        signed = part.redacted or part.signature
        thought = {} if part.redacted else {"thought": True}
        pieces = part.pieces or ("",)
        yield from ([{"text": piece, **thought}] for piece in pieces[:-1])
        yield [{"text": pieces[-1], **thought, **({"thoughtSignature": signed} if signed else {})}]
    else:
        yield from ([{"text": piece}] for piece in part.pieces)


def _call_part(call: Call) -> dict[str, Any]:
    named = {"id": call.id} if call.id else {}
    return {"functionCall": {**named, "name": call.name, "args": call.value}}


def _is_part(given: dict[str, Any]) -> bool:
    """Whether it is part of the content, or beside it, like `groundingMetadata`."""
    return not {camel(name) for name in given}.isdisjoint({*_DATA, *_BESIDES})


def _merged(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The parts with neighbouring texts of one kind joined, as in an answer that is not streamed."""
    merged: list[dict[str, Any]] = []
    for part in parts:
        before = merged[-1] if merged else {}
        signed = "thoughtSignature" in before
        if "text" in part and "text" in before and not signed and part.get("thought") == before.get("thought"):
            merged[-1] = {**before, **part, "text": before["text"] + part["text"]}
        else:
            merged.append(part)
    return merged or [{"text": ""}]


def _content(reply: Reply, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The final candidates; none if the prompt was refused."""
    refused = reply.refusal is not None and not reply.finish_chosen
    if refused and not reply.pieces and not reply.calls:
        return {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": reply.refusal}}
    finish = "SAFETY" if refused else _FINISHES.get(reply.finish or "", reply.finish)
    first = _candidate(0, parts, finish)
    if reply.refusal is not None:
        first["finishMessage"] = reply.refusal
    if reply.logprobs is not None:
        first["logprobsResult"] = {"chosenCandidates": reply.logprobs}
    others = [_candidate(index, [{"text": text}], "STOP") for index, text in enumerate(reply.choices, 1)]
    return {"candidates": [first, *others]}


def _candidate(index: int, parts: list[dict[str, Any]], finish: str | None) -> dict[str, Any]:
    ended: dict[str, Any] = {} if finish is None else {"finishReason": finish}
    for beside in parts:
        ended |= {} if _is_part(beside) else beside
    said = {"content": {"parts": found, "role": "model"}} if (found := list(filter(_is_part, parts))) else {}
    return {**said, **ended, "index": index}


def _tail(reply: Reply, request: dict[str, Any], answer_id: str, model: str) -> dict[str, Any]:
    named = {"modelVersion": reply.model or model, "responseId": reply.id or answer_id, **(reply.extra or {})}
    if reply.usage is False:
        return named
    if isinstance(reply.usage, dict):
        return {"usageMetadata": reply.usage, **named}
    tokens = count(reply, request)
    spoken = {"promptTokenCount": tokens.input, "candidatesTokenCount": tokens.output - tokens.reasoning}
    total = {"totalTokenCount": tokens.input + tokens.output}
    thought = {"thoughtsTokenCount": tokens.reasoning} if tokens.reasoning else {}
    return {"usageMetadata": {**spoken, **total, **thought}, **named}


# -- the form of a request, and the service's errors for a wrong one --------------------------------------------------


def _check_request(request: dict[str, Any]) -> None:
    """Refuses a request without contents, or with wrong contents or tools."""
    request = camel_keys(request)
    contents = request.get("contents")
    if not isinstance(contents, list) or not contents:
        raise Refused(400, "* GenerateContentRequest.contents: contents is not specified\n")
    for index, content in enumerate(contents):
        _check_content(content, f"contents[{index}]")
    if request.get("systemInstruction") is not None:
        _check_content(request["systemInstruction"], "system_instruction", roles=(*_ROLES, "system"))
    _check_results(contents)
    config = request.get("generationConfig")
    if isinstance(config, dict):
        _check_schema(camel_keys(config).get("responseJsonSchema"), "generation_config.response_json_schema")
    tools = request.get("tools") or []
    for index, tool in enumerate(tools if isinstance(tools, list) else [tools]):
        _check_tool(tool, f"tools[{index}]")


def _check_embedding(request: dict[str, Any]) -> None:
    """Refuses a request for one embedding without content."""
    if not isinstance(request.get("content"), dict):
        raise Refused(400, "* EmbedContentRequest.content: contents is not specified\n")
    _check_content(request["content"], "content")


def _check_embeddings(request: dict[str, Any]) -> None:
    """Refuses a request for several embeddings that is empty or has a wrong one."""
    requests = request.get("requests")
    if not isinstance(requests, list) or not requests:
        raise Refused(400, "* BatchEmbedContentsRequest.requests: at least one request is required\n")
    for index, one in enumerate(requests):
        if not isinstance(one, dict) or not isinstance(one.get("model"), str):
            raise Refused(400, f"* BatchEmbedContentsRequest.requests[{index}].model: model is not specified\n")
        _check_embedding(one)


def _dimensions(request: dict[str, Any]) -> Any:
    """The requested length of an embedding, from the newer field or the older one."""
    config = request.get("embedContentConfig")
    inner = config.get("outputDimensionality") if isinstance(config, dict) else None
    return request.get("outputDimensionality") if inner is None else inner


def _check_content(content: Any, where: str, roles: tuple[str, ...] = _ROLES) -> None:
    if not isinstance(content, dict):
        raise Refused(400, f"Invalid value at '{where}' (type.googleapis.com/google.ai.generativelanguage.Content)")
    if content.get("role", "user") not in roles:
        raise Refused(400, "Please use a valid role: user, model.")
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts:
        raise Refused(400, f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.\n")
    for index, part in enumerate(parts):
        _check_part(part, f"{where}.parts[{index}]")


def _check_part(part: Any, where: str) -> None:
    if not isinstance(part, dict):
        raise Refused(400, f"Invalid value at '{where}' (type.googleapis.com/google.ai.generativelanguage.Part)")
    part = camel_keys(part)
    for name in part:
        if name not in _DATA and name not in _BESIDES:
            text = f"Invalid JSON payload received. Unknown name \"{name}\" at '{where}': Cannot find field."
            raise Refused(400, text)
    given = [name for name in _DATA if name in part]
    if len(given) != 1 or not isinstance(part[given[0]], _DATA[given[0]]):
        raise Refused(400, f"* GenerateContentRequest.{where}.data: required oneof field 'data' must have one field\n")
    kind = given[0]
    if kind in ("functionCall", "functionResponse") and not isinstance(part[kind].get("name"), str):
        raise Refused(400, f"* GenerateContentRequest.{where}.{kind}.name: Name cannot be empty.\n")
    if kind == "functionResponse" and not isinstance(part[kind].get("response"), dict):
        raise Refused(400, f"Invalid value at '{where}.function_response.response' (google.protobuf.Struct)")
    if kind == "inlineData" and not all(isinstance(part[kind].get(name), str) for name in ("mimeType", "data")):
        raise Refused(400, f"* GenerateContentRequest.{where}.inline_data: mimeType and data are required\n")


def _check_results(contents: list[dict[str, Any]]) -> None:
    """Calls are answered by as many responses in the next turn, and responses need calls."""
    waiting = 0
    for content in contents:
        answered = sum("functionResponse" in camel_keys(part) for part in content["parts"])
        if answered != waiting:
            text = "Please ensure that the number of function response parts is equal to the number of function "
            raise Refused(400, f"{text}call parts of the function call turn.")
        waiting = sum("functionCall" in camel_keys(part) for part in content["parts"])


def _check_tool(tool: Any, where: str) -> None:
    tool = camel_keys(tool) if isinstance(tool, dict) else tool
    declared = tool.get("functionDeclarations") if isinstance(tool, dict) else None
    if declared is None and isinstance(tool, dict) and tool:
        return  # a tool of the service's own, such as its search
    if not isinstance(declared, list) or not declared:
        raise Refused(400, f"* GenerateContentRequest.{where}.tool_type: required one_of 'tool_type' must have one\n")
    for index, one in enumerate(declared):
        name = one.get("name") if isinstance(one, dict) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            at = f"GenerateContentRequest.{where}.function_declarations[{index}].name"
            raise Refused(400, f"* {at}: Invalid function name. Must start with a letter or an underscore.\n")
        for field in ("parameters", "parametersJsonSchema"):
            _check_schema(camel_keys(one).get(field), f"{where}.function_declarations[{index}].parameters")


def _check_schema(schema: Any, where: str) -> None:
    """Refuses an array without items, and keywords beside a reference."""
    for at in bare_arrays(schema):
        place = "".join(f"[{step}]" if before == "properties" else f".{step}" for before, step in pairwise(("", *at)))
        raise Refused(400, f"* GenerateContentRequest.{where}{place}.items: missing field.\n")
    for _, part in places(schema):
        if "$ref" in part and not all(key.startswith("$") for key in part):
            text = "can only contain properties starting with '$' when $ref is present"
            raise Refused(400, f"* GenerateContentRequest.{where}: schema {text}.\n")
