"""What Gemini's answers say, in events, as one document, or as a list of what would have been events.

Source: Gemini API reference, GenerateContentResponse; google-genai; the streams of the service and of what imitates it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from llmbridge.errors import ContentFiltered, ProtocolError
from llmbridge.events import (
    END,
    End,
    Finish,
    FinishReason,
    Item,
    Logprobs,
    OtherChoice,
    Reasoning,
    ToolCallDelta,
    Usage,
)
from llmbridge.provider import parsed_json, scan_json
from llmbridge.providers._values import count, floats, is_report, mapping, string
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge._call.framing import Frame

__all__ = ["decode_answer", "decode_event", "decode_models", "decode_vectors"]

_FINISH: dict[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "FUNCTION_CALL": "tool_calls",  # of imitations; the service says STOP
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MALFORMED_FUNCTION_CALL": "error",
    "MALFORMED_RESPONSE": "error",
    "UNEXPECTED_TOOL_CALL": "error",
    "TOO_MANY_TOOL_CALLS": "error",
    "MISSING_THOUGHT_SIGNATURE": "error",
}


def decode_event(frame: Frame) -> Iterable[Item | End]:
    """What one event of a stream says.

    Raises:
        ServiceError: It reports an error.
        ContentFiltered: The prompt is refused.
        ProtocolError: It is no JSON object.
    """
    end = -1
    try:
        # The usual event, found out fast: one candidate, and nothing in it but a piece of text.
        chunk, end = scan_json(frame.data, 0)
        (candidate,) = chunk["candidates"]
        (part,) = candidate["content"]["parts"]
        text = part["text"]
        if (
            text.__class__ is str
            and text
            and len(part) == 1
            and not (candidate.get("finishReason") or candidate.get("index") or candidate.get("logprobsResult"))
            and "error" not in chunk
            and "promptFeedback" not in chunk
            and frame.event != "error"
            and end == len(frame.data)
        ):
            usage = chunk.get("usageMetadata")
            return (text, _usage(usage)) if usage else (text,)
    except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
        pass  # it is not the usual one
    if end == len(frame.data) and frame.event != "error":
        return _decode_any(chunk)
    return _decode_frame(frame)


def _decode_frame(frame: Frame) -> Iterator[Item | End]:
    """What any event says."""
    if frame.event == "error":
        raise error_in_stream(frame.data)
    if frame.data.startswith("[DONE]"):
        yield END  # of gateways; the service has no end mark
    elif frame.data.strip():
        yield from _decode_any(parsed_json(frame.data))


def decode_answer(document: Any) -> Iterable[Item | End]:
    """What a whole answer says; errors as for `decode_event`."""
    chunks = document if isinstance(document, list) else [document]
    known = ("candidates", "promptFeedback", "error", "usageMetadata")
    if not any(name in mapping(chunk) for chunk in chunks for name in known):
        _refuse(document, "is no answer of Gemini's")
    for chunk in chunks:
        yield from _decode_any(chunk)
    yield END


def _decode_any(chunk: Any) -> Iterator[Item]:
    if isinstance(chunk, list) and chunk and all(isinstance(inner, Mapping) for inner in chunk):
        for inner in chunk:
            yield from _decode_any(inner)
        return
    if not isinstance(chunk, Mapping):
        raise ProtocolError(f"an event of the stream is no JSON object, but {type(chunk).__name__}")
    candidates = chunk.get("candidates")
    for candidate in candidates if isinstance(candidates, list) else ():
        yield from _decode_candidate(mapping(candidate))
    usage = chunk.get("usageMetadata")
    if isinstance(usage, Mapping) and usage:
        yield _usage(usage)
    if chunk.get("error") or (candidates is None and is_report(chunk)):
        raise error_in_stream(dict(chunk))
    reason = mapping(chunk.get("promptFeedback")).get("blockReason")
    if isinstance(reason, str) and reason:
        raise _blocked(reason, chunk)


def _blocked(reason: str, chunk: Mapping[str, Any]) -> ContentFiltered:
    words = mapping(chunk.get("promptFeedback")).get("blockReasonMessage")
    return ContentFiltered(
        f"the service refuses the prompt: {words if isinstance(words, str) and words else reason} "
        "(word it differently, or set safetySettings)",
        code=reason,
        body=_dumped(chunk),
    )


def _decode_candidate(candidate: Mapping[str, Any]) -> Iterator[Item]:
    """What a candidate says. The first one, whose index may be left out, is the answer."""
    index = candidate.get("index")
    if not index:
        yield from _said(candidate)
    elif isinstance(index, int) and index > 0:
        for item in _said(candidate):
            yield OtherChoice.of(index, item)


def _said(candidate: Mapping[str, Any]) -> Iterator[Item]:
    parts = mapping(candidate.get("content")).get("parts")
    for part in parts if isinstance(parts, list) else ():
        yield from _part(mapping(part))
    yield from _logprobs(mapping(candidate.get("logprobsResult")))
    raw = candidate.get("finishReason")
    if isinstance(raw, str) and raw and raw != "FINISH_REASON_UNSPECIFIED":
        yield Finish(_FINISH.get(raw) or ("content_filter" if raw.startswith("IMAGE_") else "other"), raw)


def _part(part: Mapping[str, Any]) -> Iterator[str | Reasoning | ToolCallDelta]:
    """Text, a thought, or a call, with the service's signature; code that it ran and images it made are left out."""
    text, signature = string(part.get("text")), string(part.get("thoughtSignature")) or None
    call = part.get("functionCall")
    if isinstance(call, Mapping):
        if call:  # an empty one only says that nothing more comes
            yield _call(call, signature)
    elif part.get("thought"):
        if text or signature:
            yield Reasoning(text, signature)
    else:
        if text:
            yield text
        if signature:  # a signature would be taken for that of the thoughts before it
            yield Reasoning("", redacted=signature)


def _call(call: Mapping[str, Any], signature: str | None) -> ToolCallDelta:
    """A call, which always comes whole. Its id may be missing."""
    name, arguments = string(call.get("name")), call.get("args")
    if not name:
        raise ProtocolError("a function call of the answer names no function")
    text = arguments if isinstance(arguments, str) else _dumped({} if arguments is None else arguments)
    return ToolCallDelta(None, string(call.get("id")) or None, name, text, signature, whole=True)


def _logprobs(result: Mapping[str, Any]) -> Iterator[Logprobs]:
    """The chosen tokens, each with the likeliest ones in its place."""
    chosen, top = result.get("chosenCandidates"), result.get("topCandidates")
    if not isinstance(chosen, list) or not chosen:
        return
    others = top if isinstance(top, list) else []
    yield Logprobs(
        tuple(
            {**mapping(token), "topCandidates": mapping(others[place]).get("candidates") or []}
            if place < len(others)
            else token
            for place, token in enumerate(chosen)
        )
    )


def _usage(usage: Mapping[str, Any]) -> Usage:
    """The service leaves zeros out; thoughts stand beside the answer's tokens, and are paid for as these are."""
    get = usage.get
    prompt, of_tools = count(get("promptTokenCount")), count(get("toolUsePromptTokenCount"))
    answer, thoughts = count(get("candidatesTokenCount")), count(get("thoughtsTokenCount"))
    return Usage(
        of_tools if prompt is None else prompt + (of_tools or 0),
        thoughts if answer is None else answer + (thoughts or 0),
        count(get("totalTokenCount")),
        count(get("cachedContentTokenCount")),
        None,
        thoughts,
        usage,
    )


def decode_models(document: Any) -> list[str]:
    """The names in a list of models, without the "models/" before them.

    Raises:
        ServiceError: The document reports an error.
        ProtocolError: It is no list of models.
    """
    entries = mapping(document).get("models")
    if not isinstance(entries, list):
        _refuse(document, "is no list of models")
    return [name.removeprefix("models/") for entry in entries if isinstance(name := mapping(entry).get("name"), str)]


def decode_vectors(document: Any) -> tuple[list[list[float]], Usage | None]:
    """The vectors in an answer, and the tokens; errors as for `decode_models`."""
    entries = mapping(document).get("embeddings")
    if not isinstance(entries, list):
        _refuse(document, "holds no embeddings")
    vectors = []
    for entry in entries:
        values = floats(mapping(entry).get("values"))
        if values is None:
            raise ProtocolError("an embedding is no list of numbers")
        vectors.append(values)
    usage = mapping(document).get("usageMetadata")
    return vectors, _usage(usage) if isinstance(usage, Mapping) and usage else None


def _refuse(document: Any, what: str) -> NoReturn:
    report = document[0] if isinstance(document, list) and document else document
    if any(mapping(report).get(name) for name in ("error", "message", "detail")):
        raise error_in_stream(report)
    raise ProtocolError(f"the service answered with JSON that {what}: check the base_url")


def _dumped(value: Any) -> str:
    """JSON text that UTF-8 can carry: halves of surrogate pairs stay escaped."""
    try:
        text = json.dumps(value, ensure_ascii=False)
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    except (RecursionError, ValueError):
        raise ProtocolError("the service sent JSON that is nested too deeply") from None
    return text
