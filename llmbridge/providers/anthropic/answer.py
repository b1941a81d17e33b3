"""What the answers in Anthropic's dialect mean: events of a stream, whole messages, lists of models.

Source: Anthropic API reference, streaming: a count that `message_delta` leaves out is still that of `message_start`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge._call.framing import SSE, Record
from llmbridge.errors import ProtocolError
from llmbridge.events import END, End, Finish, FinishReason, Item, Reasoning, ToolCallDelta, Usage
from llmbridge.provider import frame_json, parsed_json, scan_json
from llmbridge.providers._values import count, is_report, mapping
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge._call.framing import Frame

__all__ = ["MessageEvents", "decode_event", "decode_message", "decode_models"]

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")

_MARK = '_tool_use"'  # server_tool_use, mcp_tool_use; a call for the caller is plain "tool_use"
_MARK_BYTES = _MARK.encode()
_PIECE = "content_block_delta"
_START, _LAST = "message_start", "message_delta"
_START_BYTES, _LAST_BYTES = _START.encode(), _LAST.encode()


def decode_event(frame: Frame) -> Iterable[Item | End]:
    """What one event of a message stream says.

    Raises:
        ServiceError: It reports an error.
        ProtocolError: It is no JSON object.
    """
    end = -1
    try:
        # The usual event, found out fast: a piece of text.
        event, end = scan_json(frame.data, 0)
        delta = event["delta"]
        text = delta["text"]
        if (
            text.__class__ is str
            and text
            and delta["type"] == "text_delta"
            and event["type"] == "content_block_delta"
            and end == len(frame.data)
        ):
            return (text,)
    except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
        pass  # it is not the usual one
    return _decode_any(event, frame.event) if end == len(frame.data) else _decode_frame(frame)


def _decode_frame(frame: Frame) -> Iterator[Item | End]:
    """What any event says. Its type stands in its data; the event's name only repeats it, and may be missing."""
    if frame.data.startswith("[DONE]"):  # from servers that speak OpenAI's dialect too
        yield END
        return
    if not frame.data.strip() and frame.event != "error":
        return  # a heartbeat
    try:
        event = parsed_json(frame.data)
    except ProtocolError:
        if frame.event == "error":
            raise error_in_stream(frame.data) from None
        raise
    yield from _decode_any(event, frame.event)


def _decode_any(event: Any, name: str) -> Iterator[Item | End]:
    if name == "error" or (isinstance(event, Mapping) and (event.get("error") or event.get("type") == "error")):
        raise error_in_stream(event)
    if not isinstance(event, Mapping):
        raise ProtocolError(f"an event of the stream is no JSON object, but {type(event).__name__}")
    yield from _decode_typed(event, event.get("type") or name)


def _decode_typed(event: Mapping[str, Any], kind: Any) -> Iterator[Item | End]:
    index = count(event.get("index"))
    if kind == "content_block_delta":
        yield from _decode_delta(mapping(event.get("delta")), index)
    elif kind == "content_block_start":
        yield from _decode_block(mapping(event.get("content_block")), index)
    elif kind == "message_start":
        yield from _decode_usage(mapping(event.get("message")).get("usage"))
    elif kind == "message_delta":
        yield from _decode_usage(event.get("usage"))
        yield from _decode_finish(mapping(event.get("delta")).get("stop_reason"))
    elif kind == "message_stop":
        yield END
    elif kind == "message" and "type" not in event and is_report(event):
        raise error_in_stream(dict(event))


def _decode_delta(delta: Mapping[str, Any], index: int | None) -> Iterator[Item]:
    kind = delta.get("type")
    if kind == "text_delta":
        yield from _texts(delta.get("text"))
    elif kind == "thinking_delta":
        yield from map(Reasoning, _texts(delta.get("thinking")))
    elif kind == "signature_delta":
        for signature in _texts(delta.get("signature")):
            yield Reasoning("", signature=signature)
    elif kind == "input_json_delta":
        for piece in _texts(delta.get("partial_json")):
            yield ToolCallDelta(index, arguments=piece)


def _decode_block(block: Mapping[str, Any], index: int | None, whole: bool = False) -> Iterator[Item]:
    """What a block says where it begins, or in a whole message; other kinds, as of the service's own tools, nothing."""
    kind = block.get("type")
    if kind == "text":
        yield from _texts(block.get("text"))
    elif kind == "thinking":
        text, signature = "".join(_texts(block.get("thinking"))), "".join(_texts(block.get("signature")))
        if text or signature:
            yield Reasoning(text, signature=signature or None)
    elif kind == "redacted_thinking":
        for data in _texts(block.get("data")):
            yield Reasoning("", redacted=data)
    elif kind == "tool_use":
        id, name = "".join(_texts(block.get("id"))), "".join(_texts(block.get("name")))
        # A stream begins a call with an empty input, and whatever comes in deltas would stand behind it.
        given = block.get("input")
        arguments = _dumped(given) if given else "{}" if whole else ""
        yield ToolCallDelta(index, id or None, name or None, arguments, whole=whole)


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        raise ProtocolError("the input of a tool call is nested too deeply") from None


def _decode_finish(raw: Any) -> Iterator[Finish]:
    for word in _texts(raw):
        yield Finish(_FINISH.get(word, "other"), word)


def _decode_usage(usage: Any) -> Iterator[Usage]:
    """The counts of the start, of which the end's replace those that it repeats.

    `input_tokens` alone leaves out what was written to a cache or read from one.
    """
    if not isinstance(usage, Mapping) or not usage:
        return
    fresh, written, cached = (count(usage.get(name)) for name in _INPUT)
    yield Usage(
        input_tokens=None if fresh is None else fresh + (written or 0) + (cached or 0),
        output_tokens=count(usage.get("output_tokens")),
        cached_input_tokens=cached,
        cache_write_tokens=written,
        reasoning_tokens=count(mapping(usage.get("output_tokens_details")).get("thinking_tokens")),
        raw=dict(usage),
    )


def decode_message(document: Any) -> Iterable[Item | End]:
    """What a whole message says, sent where a stream was asked for or not; errors as for `decode_event`."""
    document = document[0] if isinstance(document, list) and len(document) == 1 else document
    fields = mapping(document)
    content = fields.get("content")
    if fields.get("error") or fields.get("type") == "error":
        raise error_in_stream(document)
    if not isinstance(content, list):
        if fields.get("detail") or fields.get("message"):
            raise error_in_stream(document)
        raise ProtocolError("the service answered with JSON that is no message of Anthropic's: check the base_url")
    for index, block in enumerate(content):
        yield from _decode_block(mapping(block), index, whole=True)
    yield from _decode_usage(fields.get("usage"))
    yield from _decode_finish(fields.get("stop_reason"))
    yield END


def decode_models(document: Any) -> list[str]:
    """The names in a list of models.

    Raises:
        ServiceError: The document reports an error.
        ProtocolError: It is no list of models.
    """
    fields = mapping(document)
    if fields.get("error"):
        raise error_in_stream(document)
    models = fields.get("data")
    if not isinstance(models, list):
        raise ProtocolError("the service answered with JSON that is no list of models: check the base_url")
    return [name for model in models for name in _texts(mapping(model).get("id"))]


def _texts(value: Any) -> tuple[str, ...]:
    """The value, if it is a text that is not empty."""
    return (value,) if isinstance(value, str) and value else ()


class MessageEvents(SSE):
    r"""Server-sent events, without the pieces of input in blocks that began as a call which is not for the caller.

    A piece of input looks the same in all of them, and only the event that began its block says whose tool it is for.

    The counts at the end get those of the start that they do not repeat: the prompt is the sum of three of them.

    Example:
        >>> begin = b'data: {"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use"}}\n\n'
        >>> piece = b'data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta"}}\n\n'
        >>> len(MessageEvents().feed(begin + piece + piece)), len(MessageEvents().feed(piece))
        (1, 1)
    """

    _foreign: frozenset[int] = frozenset()
    _counted: dict[str, Any] | None = None

    def _frames(self, whole: bytes) -> list[Frame]:
        frames = super()._frames(whole)
        if len(frames) == 1 and frames[0].event == _PIECE and not self._foreign:
            return frames  # the usual event
        if (_LAST_BYTES if self._counted else _START_BYTES) in whole:
            frames = [self._with_counts(frame) for frame in frames]
        if self._foreign or _MARK_BYTES in whole:
            return [frame for frame in frames if not self._is_foreign(frame)]
        return frames

    def _with_counts(self, frame: Frame) -> Frame:
        """The frame; the last one with tokens, with those that only the first one told."""
        if _START not in frame.data and _LAST not in frame.data:
            return frame
        try:
            event = frame_json(frame)
            kind = event.get("type") or frame.event
            if kind == _START:
                self._counted = _known(event["message"]["usage"])
            elif kind == _LAST and self._counted and (usage := _known(event["usage"])):
                return Record(json.dumps({**event, "usage": {**self._counted, **usage}}), frame.event)
        except (ProtocolError, AttributeError, LookupError, TypeError, RecursionError):
            pass  # there are no counts in it; decode() says what else is wrong
        return frame

    def _is_foreign(self, frame: Frame) -> bool:
        if _MARK not in frame.data and "input_json_delta" not in frame.data:
            return False
        try:
            event = frame_json(frame)
        except ProtocolError:
            return False  # decode() says so
        if not isinstance(index := event.get("index"), int):
            return False
        block, delta = event.get("content_block"), event.get("delta")
        if isinstance(block, dict) and str(block.get("type")).endswith("_tool_use"):
            self._foreign |= {index}
        return isinstance(delta, dict) and delta.get("type") == "input_json_delta" and index in self._foreign


def _known(usage: Any) -> dict[str, Any]:
    """The counts that are told; null tells nothing."""
    return {name: count for name, count in usage.items() if count is not None}
