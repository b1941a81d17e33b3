"""What the answers of OpenAI's Chat Completions say, in events or whole, with what other services do differently.

Source: OpenAI API reference, chat completions; the streams of llama.cpp, vLLM, transformers, LiteLLM, OpenRouter, Groq,
DeepSeek, xAI, Mistral, Ollama and llama-cpp-python.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import ProtocolError
from llmbridge.events import (
    END,
    End,
    Item,
    Logprobs,
    OtherChoice,
    Reasoning,
    Refusal,
    ToolCallDelta,
    Usage,
)
from llmbridge.provider import parsed_json, scan_json
from llmbridge.providers._values import count, finish_of, is_report, mapping
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge._call.framing import Frame

__all__ = ["decode_chunk", "decode_completion", "decode_embeddings", "decode_models"]

_NESTED = 4  # lists and objects that reasoning is wrapped in, at the most
_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")


def decode_chunk(frame: Frame, proofs: str = "") -> Iterable[Item | End]:
    """What one event of a chat completions stream says.

    Args:
        frame: The event.
        proofs: Where the service puts reasoning with its proofs; see `reasoning`.

    Raises:
        ServiceError: It reports an error, in any of the shapes in use.
        ProtocolError: It is no JSON object.
    """
    end = -1
    try:
        # The usual event, found out fast: one choice, and nothing in it but a piece of text.
        chunk, end = scan_json(frame.data, 0)
        (choice,) = chunk["choices"]
        content = choice["delta"]["content"]
        if (
            content.__class__ is str
            and content
            and len(choice["delta"]) == 1
            and not (choice.get("finish_reason") or choice.get("index") or choice.get("logprobs"))
            and not (chunk.get("usage") or chunk.get("x_groq"))
            and "error" not in chunk
            and frame.event != "error"
            and end == len(frame.data)
        ):
            return (content,)
    except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
        pass  # it is not the usual one
    return _decode_any(chunk, frame.event, "delta", proofs) if end == len(frame.data) else _decode_frame(frame, proofs)


def _decode_frame(frame: Frame, proofs: str = "") -> Iterator[Item | End]:
    """What any event says."""
    if frame.data.startswith("[DONE]"):
        yield END
        return
    if not frame.data.strip() and frame.event != "error":
        return  # a heartbeat
    try:
        chunk = parsed_json(frame.data)
    except ProtocolError:
        if frame.event == "error":
            raise error_in_stream(frame.data) from None
        yield from _separate_lines(frame.data, proofs)
    else:
        yield from _decode_any(chunk, frame.event, "delta", proofs)


def _separate_lines(data: str, proofs: str) -> Iterator[Item | End]:
    """The items of an event that is several: the blank lines between them had been forgotten."""
    for line in data.split("\n"):
        yield from (END,) if line.startswith("[DONE]") else _decode_any(parsed_json(line), "message", "delta", proofs)


def _decode_any(chunk: Any, event: str, field: str, proofs: str) -> Iterator[Item | End]:
    if event == "error" or not isinstance(chunk, Mapping):
        if event == "error" or (isinstance(chunk, list) and chunk) or isinstance(chunk, str):
            raise error_in_stream(chunk)
        raise ProtocolError(f"an event of the stream is no JSON object, but {type(chunk).__name__}")
    choices = chunk.get("choices")
    choices = list(map(mapping, choices)) if isinstance(choices, list) else []
    for place, choice in enumerate(choices):
        # A gateway that cannot stream sends an answer whole, in an event that says so.
        whole = chunk.get("object") == "chat.completion" and "delta" not in choice
        yield from _decode_choice(choice, "message" if whole else field, proofs, place)
    for usage in (chunk.get("usage"), mapping(chunk.get("x_groq")).get("usage"), *_usages(choices)):
        if isinstance(usage, Mapping) and usage:
            yield _usage(usage)
            break
    if chunk.get("error") or chunk.get("object") == "error" or ("choices" not in chunk and is_report(chunk)):
        raise error_in_stream(dict(chunk))


def _usages(choices: list[Mapping[str, Any]]) -> Iterator[Any]:
    """Moonshot counts the tokens beside the reason to finish."""
    return (choice.get("usage") for choice in choices)


def _decode_choice(choice: Mapping[str, Any], field: str, proofs: str, place: int) -> Iterator[Item]:
    """What a choice says. The first one is the answer; services may leave the index out."""
    index = choice.get("index")
    if index is None and field == "message":
        index = place
    if not index:
        yield from _said(choice, field, proofs)
    elif index.__class__ is int and index > 0:
        for item in _said(choice, field, proofs):
            yield OtherChoice.of(index, item)


def _said(choice: Mapping[str, Any], field: str, proofs: str) -> Iterator[Item]:
    """In a stream only the delta counts: some services repeat the whole message beside the last one."""
    delta = mapping(choice.get(field))
    if proofs and delta.get(proofs):
        yield from _proven(delta, proofs, whole=field == "message")
    elif reasoning := _reasoning(delta):
        yield Reasoning(reasoning)
    yield from _content(delta.get("content"))
    if isinstance(refusal := delta.get("refusal"), str) and refusal:
        yield Refusal(refusal)
    yield from _content(choice.get("text"))  # the older endpoint for plain completions
    yield from _calls(delta, whole=field == "message")
    logprobs = mapping(choice.get("logprobs")).get("content")
    if isinstance(logprobs, list) and logprobs:
        yield Logprobs(tuple(logprobs))
    yield from finish_of(choice.get("finish_reason"), {})


def _calls(delta: Mapping[str, Any], whole: bool) -> Iterator[ToolCallDelta]:
    calls = delta.get("tool_calls")
    if isinstance(calls, list) and calls:
        pieces = [_call(mapping(call), position if whole else None) for position, call in enumerate(calls)]
    else:  # the older form, which some services repeat beside the newer one
        pieces = [_call({"function": delta.get("function_call")}, 0)]
    yield from (piece for piece in pieces if piece.id or piece.name or piece.arguments)


def _call(call: Mapping[str, Any], position: int | None) -> ToolCallDelta:
    function = mapping(call.get("function"))
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = _json_text(arguments)
    index = call.get("index") if position is None else position
    return ToolCallDelta(
        index=index if isinstance(index, int) else None,
        id=_str(call.get("id")),
        name=_str(function.get("name")),
        arguments=arguments or "",
    )


def _json_text(arguments: Any) -> str:
    try:
        return json.dumps(arguments)
    except RecursionError:
        raise ProtocolError("the arguments of a tool call are nested too deeply") from None


def decode_completion(document: Any, proofs: str = "") -> Iterator[Item | End]:
    """What a whole chat completion says; arguments and errors as for `decode_chunk`."""
    document = document[0] if isinstance(document, list) and len(document) == 1 else document
    fields = mapping(document)
    if not fields.get("error") and not isinstance(fields.get("choices"), list):
        if fields.get("detail") or fields.get("object") == "error" or fields.get("message"):
            raise error_in_stream(document)
        raise ProtocolError("the service answered with JSON that is no chat completion: check the base_url")
    yield from _decode_any(document, "message", "message", proofs)
    yield END


def decode_models(document: Any) -> list[str]:
    """The names in a list of models.

    Raises:
        ServiceError: The document reports an error.
        ProtocolError: It is no list of models.
    """
    entries = document if isinstance(document, list) else mapping(document).get("data")
    if not isinstance(entries, list):
        if mapping(document).get("error"):
            raise error_in_stream(document)
        raise ProtocolError("the service answered with JSON that is no list of models: check the base_url")
    return [name for entry in entries if isinstance(name := mapping(entry).get("id"), str)]


def decode_embeddings(document: Any) -> tuple[list[list[float]], Usage | None]:
    """The vectors in an answer, sorted by their index, and the tokens; errors as for `decode_models`."""
    fields = mapping(document)
    entries = fields.get("data")
    if fields.get("error") or not isinstance(entries, list):
        if fields.get("error") or fields.get("detail") or fields.get("message"):
            raise error_in_stream(document)
        raise ProtocolError("the service answered with JSON that holds no embeddings: check the base_url")
    numbered = [(index if isinstance(index := mapping(entry).get("index"), int) else place, mapping(entry))
                for place, entry in enumerate(entries)]  # fmt: skip
    vectors = [_vector(entry.get("embedding")) for _, entry in sorted(numbered, key=lambda pair: pair[0])]
    usage = fields.get("usage")
    return vectors, _usage(usage) if isinstance(usage, Mapping) and usage else None


def _vector(value: Any) -> list[float]:
    if isinstance(value, str):
        import base64
        from array import array

        try:
            numbers = array("f", base64.b64decode(value, validate=True))
        except ValueError:
            raise ProtocolError("an embedding is no base64 of 32-bit numbers") from None
        return numbers.tolist()
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]  # llama.cpp without /v1
    if not isinstance(value, list) or not all(isinstance(number, (int, float)) for number in value):
        raise ProtocolError("an embedding is no list of numbers")
    return [float(number) for number in value]


def _content(content: Any) -> Iterator[str | Reasoning]:
    """Text, or Mistral's list of parts, in which reasoning stands beside text."""
    if isinstance(content, str):
        if content:
            yield content
    elif isinstance(content, list):
        for part in content:
            yield from _part(part)


def _part(part: Any) -> Iterator[str | Reasoning]:
    if isinstance(part, str):
        yield from _content(part)
    elif isinstance(part, Mapping) and part.get("type") == "thinking":
        text, signature = _joined(part.get("thinking")), _str(part.get("signature"))
        if text or signature:
            yield Reasoning(text, signature)
    elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
        yield from _content(part["text"])


def _reasoning(delta: Mapping[str, Any]) -> str:
    """The first field that holds any: a service that sends two sends the same text twice."""
    return next((text for field in _REASONING if (text := _joined(delta.get(field)))), "")


def _proven(delta: Mapping[str, Any], proofs: str, whole: bool) -> Iterator[Reasoning]:
    """Reasoning with its proofs; its text from another field only if it does not stand beside them."""
    from llmbridge.providers.openai.reasoning import read_entries

    pieces = list(read_entries(delta[proofs], whole))
    if not any(piece.text for piece in pieces) and (text := _reasoning(delta)):
        yield Reasoning(text)
    yield from pieces


def _joined(value: Any, depth: int = 0) -> str:
    if isinstance(value, str):
        return value
    if depth < _NESTED:
        if isinstance(value, Mapping):
            return _joined(value.get("text") or value.get("content"), depth + 1)
        if isinstance(value, list):
            return "".join(_joined(item, depth + 1) for item in value)
    return ""


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt, answer = mapping(usage.get("prompt_tokens_details")), mapping(usage.get("completion_tokens_details"))
    cached, reasoned = count(prompt.get("cached_tokens")), count(answer.get("reasoning_tokens"))
    read, written, total = (count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    if reasoned and read is not None and written is not None and total == read + written + reasoned:
        written += reasoned  # xAI counts the reasoning beside the answer, not as a part of it (vercel/ai#12425)
    return Usage(
        input_tokens=read,
        output_tokens=written,
        total_tokens=total,
        cached_input_tokens=count(usage.get("prompt_cache_hit_tokens")) if cached is None else cached,
        cache_write_tokens=count(prompt.get("cache_write_tokens")),
        reasoning_tokens=reasoned,
        raw=dict(usage),
    )


def _str(value: Any) -> str | None:
    return value if isinstance(value, str) else None
