"""OpenAI's chat completions, embeddings and list of models, with Azure's URLs for the same.

Vitalentum and CodeLinkAva always stream, in chunks of the same format.

Source:
    OpenAI API reference; optional fields like `system_fingerprint` are left out. The first chunk of an Azure
    deployment has no choices, only the content filter's results for the prompt.
"""

from __future__ import annotations

import base64
import re
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from llmbridge.testing.asked import embedding_inputs, turns
from llmbridge.testing.received import Received
from llmbridge.testing.reply import Reply
from llmbridge.testing.turn import Call, Part, Thought, Words

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
    invalid,
    json_object,
    logprob_shares,
    missing,
    model_names,
    sse,
    vectors,
)
from .schemas import bare_arrays, old_words, patterns, top_words

__all__ = [
    "DIALECT",
    "chat",
    "check_request",
    "check_schema",
    "codelinkava",
    "embeddings",
    "models",
    "usage",
    "vitalentum",
]

_ERROR_KINDS = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    404: ("not_found_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)/")
_ROLES = ("developer", "system", "user", "assistant", "tool", "function")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_FORMATS = ("text", "json_object", "json_schema")


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
    check_request(request)
    deployment = _DEPLOYMENT.search(received.route)
    request = {"model": deployment[1], **request} if deployment else request
    if not request.get("stream"):
        return document(reply, {**_completion(reply, request, answer_id), **(_prompt_filter() if deployment else {})})
    asked = bool((request.get("stream_options") or {}).get("include_usage"))
    empty = {"id": "", "object": "", "created": 0, "model": "", "choices": []}
    begin = [sse(reply, dump({**empty, **_prompt_filter()}))] if deployment else []
    return Answer(reply.status, STREAM, [*begin, *_events(reply, request, answer_id, asked)], streamed=True)


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
    texts = _check_embeddings(request)
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


def codelinkava(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../api/chat from a client that names no model, like CodeLinkAva's."""
    request = json_object(received)
    _check_messages(request)
    return Answer(reply.status, STREAM, list(_events(reply, request, answer_id, False)), streamed=True)


def vitalentum(reply: Reply, received: Received, answer_id: str) -> Answer:
    """POST .../api/converse-edge."""
    request = json_object(received)
    if not isinstance(request.get("conversation"), str) or not turns(request):
        raise Refused(400, "'conversation' must be the JSON text of an object with a non-empty 'history'")
    return Answer(reply.status, STREAM, list(_events(reply, request, answer_id, False)), streamed=True)


def _events(reply: Reply, request: dict[str, Any], answer_id: str, usage_asked: bool) -> Iterator[bytes]:
    """The events of a stream, its end mark included."""
    sent = reply.usage if reply.usage is not None else usage_asked
    head = dump({**_identity(reply, request, answer_id, "chat.completion.chunk"), "choices": []})[:-2]
    # Once usage is requested, every chunk of OpenAI names it.
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
    """The chunks before the end; further choices come between the pieces of the first."""
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
    shares = logprob_shares(reply)
    calls, thoughts = enumerate(_calls(reply, answer_id)), enumerate(_thoughts(reply))
    for part in reply.turn:
        if isinstance(part, Thought):
            index, thought = next(thoughts)
            yield from ({"delta": delta} for delta in _thought_deltas(thought, index))
        elif isinstance(part, Words):
            for piece in part.pieces:
                told = {"logprobs": {"content": share, "refusal": None}} if (share := next(shares)) else {}
                yield {"delta": {"content": piece}, **told}
        elif _is_call(part):
            yield from _call_deltas(*next(calls))
        else:
            yield {"delta": part}
    if reply.refusal is not None:
        yield from ({"delta": {"refusal": piece}} for piece in cut(reply.refusal))


def _thought_deltas(thought: Thought, index: int) -> Iterator[dict[str, Any]]:
    """Reasoning; with its signature, if it has one, in the list that OpenRouter sends beside the text."""
    if thought.redacted is not None:
        yield {"reasoning_details": [{"type": "reasoning.encrypted", "data": thought.redacted, "index": index}]}
        return
    pieces = thought.pieces or ("",) * bool(thought.signature)
    for place, piece in enumerate(pieces, 1):
        delta: dict[str, Any] = {"reasoning_content": piece}
        if thought.signature:
            proof = {"signature": thought.signature} if place == len(pieces) else {}
            delta["reasoning_details"] = [{"type": "reasoning.text", "text": piece, "index": index, **proof}]
        yield delta


def _thoughts(reply: Reply) -> Iterator[Thought]:
    """The thoughts one by one; a Reply's `signature` is not used here."""
    found = (part for part in reply.turn if isinstance(part, Thought))
    return (thought if reply.parts is not None else replace(thought, signature=None) for thought in found)


def _is_call(part: Part) -> bool:
    """Whether it is a call, also one scripted in OpenAI's form."""
    return isinstance(part, Call) or (isinstance(part, dict) and part.get("type") in ("function", "custom"))


def _call_deltas(index: int, call: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A call, its text in pieces."""
    kind = str(call["type"])
    given = call.get(kind)
    inner: dict[str, Any] = given if isinstance(given, dict) else {}
    field = "input" if kind == "custom" else "arguments"
    parts = [{**call, kind: {**inner, field: ""}}, *({kind: {field: piece}} for piece in cut(inner.get(field) or ""))]
    yield from ({"delta": {"tool_calls": [{"index": index, **part}]}} for part in parts)


def _calls(reply: Reply, answer_id: str) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for part in reply.turn:
        if isinstance(part, Call):
            calls.append(function_call(part, f"call_{answer_id}_{len(calls)}"))
        elif isinstance(part, dict) and _is_call(part):
            calls.append(part)
    return calls


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
    for index, thought in enumerate(_thoughts(reply)):
        for delta in _thought_deltas(replace(thought, pieces=(thought.text,) if thought.text else ()), index):
            _add(message, delta)
    for part in reply.turn:
        if isinstance(part, dict) and not _is_call(part):
            _add(message, part)
    if calls := _calls(reply, answer_id):
        message["tool_calls"] = calls
    return message


def _add(message: dict[str, Any], delta: dict[str, Any]) -> None:
    """Adds a delta to the whole: texts, lists and mappings grow."""
    for name, value in delta.items():
        known = message.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            _add(known, value)
        elif (isinstance(known, str) and isinstance(value, str)) or (
            isinstance(known, list) and isinstance(value, list)
        ):
            message[name] = known + value  # type: ignore[operator]  # both of one type
        else:
            message[name] = dict(value) if isinstance(value, dict) else value


def _identity(reply: Reply, request: dict[str, Any], answer_id: str, kind: str) -> dict[str, Any]:
    model = reply.model or request.get("model") or model_names(reply)[0]
    return identity_of(reply, f"chatcmpl-{answer_id}", object=kind, created=int(time.time()), model=model)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _prompt_filter() -> dict[str, Any]:
    """What Azure says about the prompt: beside a whole answer, or in an event before the others."""
    verdict = {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
    return {"prompt_filter_results": [verdict]}


# -- the form of a request, and the service's errors for a wrong one --------------------------------------------------


def check_request(request: dict[str, Any]) -> None:
    """Refuses a chat request without messages, or with wrong messages, tools or formats."""
    _check_messages(request)
    stream, options = request.get("stream"), request.get("stream_options")
    if stream is not None and not isinstance(stream, bool):
        raise Refused(400, "Invalid type for 'stream': expected a boolean.", "invalid_type", param="stream")
    if options is not None and not (stream and isinstance(options, dict)):
        message = "The 'stream_options' parameter is only allowed when 'stream' is enabled."
        raise Refused(400, message, param="stream_options")
    _check_roles(request["messages"])
    _check_results(request["messages"])
    for index, tool in enumerate(_list(request, "tools")):
        _check_tool(tool, f"tools[{index}]")
    _check_format(request.get("response_format"))


def _check_messages(request: dict[str, Any]) -> None:
    """Refuses a request without messages, and messages without a role."""
    messages = request.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "Invalid 'messages': expected a non-empty array", "invalid_type", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise missing(f"messages[{index}].role")


def _check_embeddings(request: dict[str, Any]) -> list[str]:
    """The texts of an embeddings request; at least one, and none of them empty."""
    if not isinstance(request.get("model"), str):
        raise missing("model")
    if request.get("input") is None:
        raise missing("input")
    texts = embedding_inputs(request)
    if not texts or not all(texts):
        raise Refused(400, "'$.input' is invalid: expected non-empty strings or token arrays.", param="input")
    if request.get("encoding_format", "float") not in ("float", "base64"):
        raise Refused(400, "Invalid value for 'encoding_format'.", "invalid_value", param="encoding_format")
    return texts


def _list(request: dict[str, Any], name: str) -> list[Any]:
    value = request.get(name)
    if value is not None and (not isinstance(value, list) or not value):
        raise invalid(name, "a non-empty array")
    return value or []


def _check_roles(messages: list[dict[str, Any]]) -> None:
    for index, message in enumerate(messages):
        if message["role"] not in _ROLES:
            known = ", ".join(f"'{role}'" for role in _ROLES)
            text = f"Invalid value: '{message['role']}'. Supported values are: {known}."
            raise Refused(400, text, "invalid_value", param=f"messages[{index}].role")


def _check_results(messages: list[dict[str, Any]]) -> None:
    """Every call must be answered by a tool message before anything else, and tool messages need a call."""
    waiting: set[str] = set()
    for index, message in enumerate(messages):
        param = f"messages[{index}]"
        if message["role"] == "tool":
            call_id = message.get("tool_call_id")
            if not isinstance(call_id, str):
                raise missing(f"{param}.tool_call_id")
            if call_id not in waiting:
                text = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
                raise Refused(400, f"Invalid parameter: {text}", param=f"{param}.role")
            waiting.remove(call_id)
            continue
        _refuse_unanswered(waiting, param)
        if message["role"] == "assistant":
            waiting = _call_ids(message, param)
    _refuse_unanswered(waiting, f"messages[{len(messages)}]")


def _refuse_unanswered(waiting: set[str], param: str) -> None:
    if waiting:
        text = "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
        ids = ", ".join(sorted(waiting))
        raise Refused(400, f"{text}'tool_call_id'. These had no response: {ids}", param=f"{param}.role")


def _call_ids(message: dict[str, Any], param: str) -> set[str]:
    calls = message.get("tool_calls")
    if calls is None:
        return set()
    if not isinstance(calls, list) or not calls:
        raise invalid(f"{param}.tool_calls", "a non-empty array")
    found = set()
    for number, call in enumerate(calls):
        where = f"{param}.tool_calls[{number}]"
        kind = "custom" if isinstance(call, dict) and call.get("type") == "custom" else "function"
        inner = call.get(kind) if isinstance(call, dict) else None
        if not isinstance(inner, dict) or not isinstance(call.get("id"), str) or call.get("type") != kind:
            raise invalid(where, f"an object with id, type '{kind}' and {kind}")
        for name in ("name", "input" if kind == "custom" else "arguments"):
            if not isinstance(inner.get(name), str):
                raise invalid(f"{where}.{kind}.{name}", "a string")
        found.add(call["id"])
    return found


def _check_tool(tool: Any, where: str) -> None:
    if not isinstance(tool, dict) or not isinstance(tool.get("type"), str):
        raise missing(f"{where}.type")
    if tool["type"] != "function":
        return
    function = tool.get("function")
    if not isinstance(function, dict):
        raise missing(f"{where}.function")
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        text = f"Invalid '{where}.function.name': expected a string that matches '^[a-zA-Z0-9_-]{{1,64}}$'."
        raise Refused(400, text, "invalid_value", param=f"{where}.function.name")
    check_schema(parameters, f"function '{name}'", f"{where}.function.parameters")


def check_schema(schema: Any, what: str, param: str) -> None:
    """Refuses a schema that is not an object's, or has something the service does not accept.

    Args:
        schema: None for none.
        what: What it is the schema of, in words.
        param: Its place in the request.
    """
    if schema is None:
        return
    if not (isinstance(schema, dict) and schema.get("type", "object") == "object"):
        problem = "schema must be a JSON schema of type 'object'."
    elif top_words(schema, ("oneOf", "anyOf", "allOf", "enum", "not")):
        words = "'oneOf'/'anyOf'/'allOf'/'enum'/'not'"
        problem = f"schema must have type 'object' and not have {words} at the top level."
    elif arrays := bare_arrays(schema):
        problem = f"In context={arrays[0]!r}, array schema missing items."
    elif found := patterns(schema):
        problem = f"In context={found[0][0]!r}, '{found[0][1]}' is not a 'regex': regex lookaround is not supported."
    elif old := old_words(schema):
        problem = f"In context={old[0]!r}, a keyword is not of the type that draft 2020-12 demands."
    else:
        return
    code = "invalid_function_parameters" if what.startswith("function") else None
    raise Refused(400, f"Invalid schema for {what}: {problem}", code, param=param)


def _check_format(wanted: Any) -> None:
    if wanted is None:
        return
    if not isinstance(wanted, dict) or wanted.get("type") not in _FORMATS:
        known = ", ".join(f"'{name}'" for name in _FORMATS)
        raise Refused(400, f"Invalid value for 'response_format.type': expected {known}.", param="response_format.type")
    if wanted["type"] == "json_schema":
        inner = wanted.get("json_schema")
        if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
            raise missing("response_format.json_schema.name")
        if not isinstance(inner.get("schema"), dict):
            raise missing("response_format.json_schema.schema")
        check_schema(inner["schema"], f"response_format '{inner['name']}'", "response_format")
