"""OpenAI's Chat Completions, the dialect that most services and local servers speak, with what they do differently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmbridge.errors import ProtocolError
from llmbridge.events import END, End, Finish, FinishReason, Item, Reasoning, Usage
from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded, Provider, parsed_json, scan_json
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge._framing import Frame

__all__ = ["ChatCompletions", "OpenAI", "OpenAICompatible", "decode_chunk", "decode_completion"]

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "error": "error",
}
_NESTED = 4  # lists and objects that reasoning is wrapped in, at the most
_REASONING = ("reasoning_content", "reasoning", "reasoning_text", "thinking", "reasoning_details")


class ChatCompletions(Provider):
    """What all have in common whose answers are chat completions, in chunks or whole."""

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[Item | End]:
        return decode_chunk(frame)

    @classmethod
    def decode_document(cls, document: Any) -> Iterable[Item | End]:
        return decode_completion(document)


class OpenAI(ChatCompletions):
    """OpenAI's own service.

    Example:
        >>> OpenAI.encode(ChatRequest.checked("gpt-5-mini", "Hi", {"seed": 1})).body["seed"]
        1

    Source:
        OpenAI API reference, chat completions: `data: {...}` events, `data: [DONE]` at the end, usage in an event of
        its own if `stream_options.include_usage` asks for it.
    """

    name = "openai"
    url = "https://platform.openai.com"
    base_url = "https://api.openai.com/v1"
    path = "/chat/completions"
    supports_gpt_35_turbo = True
    key_env: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    base_url_env = "OPENAI_BASE_URL"
    needs_key = True
    note = "set OPENAI_API_KEY; base_url= for any server that speaks the same dialect"
    done_needs_finish = True

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        body = {
            "model": request.model,
            "messages": [message.to_dict() for message in request.messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **request.params,
        }
        if not body["stream"] or body["stream_options"] is None:
            del body["stream_options"]  # the service refuses it without a stream
        return Encoded(body, cls.path)


class OpenAICompatible(OpenAI):
    """Any server that speaks OpenAI's dialect: give its `base_url`, and an `api_key` if it wants one."""

    name = "openai-compatible"
    supports_gpt_35_turbo = False
    url = ""
    base_url = ""
    key_env = ()
    base_url_env = ""
    needs_key = False
    note = "any server that speaks OpenAI's dialect: give base_url="


def decode_chunk(frame: Frame) -> Iterable[Item | End]:
    """What one event of a chat completions stream says.

    Raises:
        ServiceError: It reports an error, in any of the shapes in use.
        ProtocolError: It is no JSON object.
    """
    try:
        # The usual event, found out fast: one choice, and nothing in it but a piece of text.
        chunk, end = scan_json(frame.data, 0)
        (choice,) = chunk["choices"]
        content = choice["delta"]["content"]
        if (
            content.__class__ is str
            and content
            and len(choice["delta"]) == 1
            and not (choice.get("finish_reason") or choice.get("index") or chunk.get("usage") or chunk.get("x_groq"))
            and "error" not in chunk
            and frame.event != "error"
            and end == len(frame.data)
        ):
            return (content,)
    except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
        pass  # it is not the usual one
    return _decode_frame(frame)


def _decode_frame(frame: Frame) -> Iterator[Item | End]:
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
        yield from _separate_lines(frame.data)
    else:
        yield from _decode_any(chunk, frame.event)


def _separate_lines(data: str) -> Iterator[Item | End]:
    """The items of an event that is several: the blank lines between them had been forgotten."""
    for line in data.split("\n"):
        yield from (END,) if line.startswith("[DONE]") else _decode_any(parsed_json(line), "message")


def _decode_any(chunk: Any, event: str, field: str = "delta") -> Iterator[Item | End]:
    if event == "error" or not isinstance(chunk, Mapping):
        if event == "error" or (isinstance(chunk, list) and chunk) or isinstance(chunk, str):
            raise error_in_stream(chunk)
        raise ProtocolError(f"an event of the stream is no JSON object, but {type(chunk).__name__}")
    yield from _decode_choices(chunk, field)
    usage = chunk.get("usage") or _mapping(chunk.get("x_groq")).get("usage")
    if isinstance(usage, Mapping) and usage:
        yield _usage(usage)
    if chunk.get("error") or chunk.get("object") == "error":
        raise error_in_stream(dict(chunk))


def _decode_choices(chunk: Mapping[str, Any], field: str) -> Iterator[Item]:
    """What choice 0 says: services may leave its index out, send others between, or send none at all.

    In a stream only the delta counts: some services repeat the whole message beside the last one.
    """
    choices = chunk.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        choice = _mapping(choice)
        if choice.get("index"):
            continue
        delta = _mapping(choice.get(field))
        if reasoning := _reasoning(delta):
            yield Reasoning(reasoning)
        yield from _content(delta.get("content"))
        yield from _content(delta.get("refusal"))
        raw = choice.get("finish_reason")
        if isinstance(raw, str) and raw:
            yield Finish(_FINISH.get(raw, "other"), raw)


def decode_completion(document: Any) -> Iterator[Item | End]:
    """What a whole chat completion says; errors as for `decode_chunk`."""
    document = document[0] if isinstance(document, list) and len(document) == 1 else document
    fields = _mapping(document)
    if not fields.get("error") and not isinstance(fields.get("choices"), list):
        if fields.get("detail") or fields.get("object") == "error" or fields.get("message"):
            raise error_in_stream(document)
        raise ProtocolError("the service answered with JSON that is no chat completion: check the base_url")
    yield from _decode_any(document, "message", "message")
    yield END


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
        if text := _joined(part.get("thinking")):
            yield Reasoning(text)
    elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
        yield from _content(part["text"])


def _reasoning(delta: Mapping[str, Any]) -> str:
    """The first field that holds any: a service that sends two sends the same text twice."""
    return next((text for field in _REASONING if (text := _joined(delta.get(field)))), "")


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
    prompt, answer = _mapping(usage.get("prompt_tokens_details")), _mapping(usage.get("completion_tokens_details"))
    return Usage(
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        total_tokens=_count(usage.get("total_tokens")),
        cached_input_tokens=_count(prompt.get("cached_tokens", usage.get("prompt_cache_hit_tokens"))),
        cache_write_tokens=_count(prompt.get("cache_write_tokens")),
        reasoning_tokens=_count(answer.get("reasoning_tokens")),
        raw=dict(usage),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
