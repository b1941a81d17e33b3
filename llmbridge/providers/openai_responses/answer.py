"""What the answers of the Responses API say, in events or as one document.

Source: OpenAI API reference, responses, "Streaming events"; the streams of OpenAI, transformers, llama.cpp and vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge._call.framing import SSE, Record
from llmbridge.errors import ProtocolError
from llmbridge.events import END, End, Finish, Item, Logprobs, Reasoning, Refusal, ToolCallDelta, Usage
from llmbridge.provider import frame_json, parsed_json, scan_json
from llmbridge.providers._values import count, is_report, mapping, string
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge._call.framing import Frame

__all__ = ["ResponseEvents", "decode_event", "decode_response"]

_PIECES: Mapping[str, type[str] | type[Refusal] | type[Reasoning]] = {
    "response.output_text.delta": str,
    "response.refusal.delta": Refusal,
    "response.reasoning_text.delta": Reasoning,
    "response.reasoning_summary_text.delta": Reasoning,
    "response.reasoning.delta": Reasoning,
    "response.reasoning_summary.delta": Reasoning,
}
_BROKEN_OFF: Mapping[str, Finish] = {
    "max_output_tokens": Finish("length", "max_output_tokens"),
    "max_tokens": Finish("length", "max_tokens"),
    "content_filter": Finish("content_filter", "content_filter"),
}

# The last event of a stream is one of these; it holds the whole response.
_ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_CALL = "function_call"
_OUTPUT = '"output"'
_SIGNATURE = "encrypted_content"
_NEWS = (_CALL, _OUTPUT, _SIGNATURE)
_NEWS_BYTES = tuple(mark.encode() for mark in _NEWS)
_REASONING = b"response.reasoning"
_TEXT_PIECE = "response.output_text.delta"
_TEXT_MARKS = (_TEXT_PIECE.encode(), b"response.refusal.delta")
_UNNAMED = ""  # stands for whatever call it may be


def decode_event(frame: Frame) -> Iterable[Item | End]:
    """What one event of a stream says.

    Raises:
        ServiceError: It reports an error.
        ProtocolError: It is no JSON object.
    """
    end = -1
    try:
        # The usual event, found out fast: a piece of text.
        event, end = scan_json(frame.data, 0)
        if event["type"] == "response.output_text.delta" and not event.get("logprobs") and end == len(frame.data):
            text = event["delta"]
            if text.__class__ is str and text and "error" not in event:
                return (text,)
    except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
        pass  # it is not the usual one
    if end == len(frame.data) and frame.event != "error":
        return _decode_any(event)
    return _decode_frame(frame)


def _decode_frame(frame: Frame) -> Iterator[Item | End]:
    """What any event says."""
    if isinstance(frame, _LastEvent):
        yield from _decode_any(frame.value)
        return
    if frame.data.startswith("[DONE]"):
        yield END  # of gateways; the service ends with a last event
        return
    if not frame.data.strip() and frame.event != "error":
        return
    if frame.event == "error":
        raise error_in_stream(_report(frame.data))
    yield from _decode_any(parsed_json(frame.data))


def _decode_any(event: Any) -> Iterator[Item | End]:
    if not isinstance(event, Mapping):
        if isinstance(event, (list, str)) and event:
            raise error_in_stream(event)
        raise ProtocolError(f"an event of the stream is no JSON object, but {type(event).__name__}")
    kind = event.get("type")
    if kind == "error" or (event.get("error") and not event.get("response")):
        raise error_in_stream(_report(event))
    if isinstance(kind, str):
        yield from _decode_kind(kind, event)
    elif is_report(event):
        raise error_in_stream(dict(event))


def _decode_kind(kind: str, event: Mapping[str, Any]) -> Iterator[Item | End]:
    delta = string(event.get("delta"))
    if kind in _PIECES:
        if delta:
            yield _PIECES[kind](delta)
        yield from _logprobs(event.get("logprobs"))
    elif kind == "response.function_call_arguments.delta":
        if delta:
            yield ToolCallDelta(_index(event.get("output_index")), None, None, delta)
    elif kind == "response.output_item.added":
        item = mapping(event.get("item"))
        if item.get("type") == "function_call":
            yield _call(item, _index(event.get("output_index")))
    elif kind == "response.output_item.done":
        item = mapping(event.get("item"))
        yield from _encrypted(item)
        if item.get("type") == "function_call":  # one that came before does not get here: see `ResponseEvents`
            yield _call(item, _index(event.get("output_index")), whole=True)
    elif kind == "response.reasoning_summary_part.added":
        if event.get("summary_index"):
            yield Reasoning("\n\n")
    elif kind in _ENDS:
        response = mapping(event.get("response"))
        yield from _items(response.get("output"))  # what came before is not there any more: see `ResponseEvents`
        yield from _end(response, kind.partition(".")[2])


def decode_response(document: Any) -> Iterable[Item | End]:
    """What a whole answer says; errors as for `decode_event`."""
    fields = mapping(document)
    output = fields.get("output")
    if not isinstance(output, list):
        if any(fields.get(name) for name in ("error", "detail", "message")) or (
            isinstance(document, list) and document
        ):
            raise error_in_stream(document)
        raise ProtocolError("the service answered with JSON that is no response: check the base_url")
    yield from _items(output)
    yield from _end(fields, string(fields.get("status")))


def _items(output: Any) -> Iterator[Item]:
    for place, item in enumerate(output if isinstance(output, list) else ()):
        yield from _whole_item(mapping(item), place)


def _whole_item(item: Mapping[str, Any], place: int) -> Iterator[Item]:
    kind = item.get("type")
    if kind == "reasoning":
        text = "\n\n".join(_texts(item.get("summary"))) or "".join(_texts(item.get("content")))
        if text:
            yield Reasoning(text)
        yield from _encrypted(item)
    elif kind == "function_call":
        yield _call(item, place, whole=True)
    elif kind == "message":
        content = item.get("content")
        for part in map(mapping, content if isinstance(content, list) else ()):
            if refusal := string(part.get("refusal")):
                yield Refusal(refusal)
            elif text := string(part.get("text")):
                yield text
                yield from _logprobs(part.get("logprobs"))


def _end(response: Mapping[str, Any], status: str) -> Iterator[Item | End]:
    """The last event, or the end of a document: tokens, and why it ends."""
    usage = response.get("usage")
    if isinstance(usage, Mapping) and usage:
        yield _usage(usage)
    if status == "failed" or response.get("error"):
        raise error_in_stream(_report(response.get("error") or {"message": "the response failed, no reason given"}))
    if status == "incomplete":
        reason = string(mapping(response.get("incomplete_details")).get("reason")) or status
        yield _BROKEN_OFF.get(reason) or Finish("other", reason)
    elif status == "cancelled":
        yield Finish("error", status)
    else:
        yield Finish("stop" if status in ("completed", "") else "other", status)
    yield END


def _report(event: Any) -> Any:
    """The report in an error event, without the event's type: it would be taken for the error's."""
    if isinstance(event, str):
        try:
            event = parsed_json(event)
        except ProtocolError:
            return event
    if isinstance(event, Mapping) and not event.get("error"):
        return {"error": {name: value for name, value in event.items() if name != "type" or value != "error"}}
    return dict(event) if isinstance(event, Mapping) else event


def _call(item: Mapping[str, Any], index: int | None, whole: bool = False) -> ToolCallDelta:
    """A call that begins: some services give its arguments here, the others in pieces afterwards."""
    return ToolCallDelta(
        index,
        string(item.get("call_id")) or string(item.get("id")) or None,
        string(item.get("name")),
        string(item.get("arguments")),
        whole=whole,
    )


def _encrypted(item: Mapping[str, Any]) -> Iterator[Reasoning]:
    """Reasoning that can be sent back; the service wants it together with the name that it gave it."""
    encrypted = string(item.get("encrypted_content"))
    if item.get("type") == "reasoning" and encrypted:
        yield Reasoning("", f"{string(item.get('id'))}:{encrypted}")


def _logprobs(entries: Any) -> Iterator[Logprobs]:
    if isinstance(entries, list) and entries:
        yield Logprobs(tuple(entries))


def _texts(parts: Any) -> list[str]:
    return [text for part in (parts if isinstance(parts, list) else ()) if (text := string(mapping(part).get("text")))]


def _usage(usage: Mapping[str, Any]) -> Usage:
    read, written = mapping(usage.get("input_tokens_details")), mapping(usage.get("output_tokens_details"))
    return Usage(
        count(usage.get("input_tokens")),
        count(usage.get("output_tokens")),
        count(usage.get("total_tokens")),
        count(read.get("cached_tokens")),
        count(read.get("cache_write_tokens")),
        count(written.get("reasoning_tokens")),
        dict(usage),
    )


def _index(value: Any) -> int | None:
    return value if value.__class__ is int else None


class _LastEvent(Record):
    """The last event, with nothing but news in it: `value` is its JSON, `data` is empty."""

    __slots__ = ("value",)

    def __init__(self, value: dict[str, Any]) -> None:
        super().__init__("")
        self.value = value


class ResponseEvents(SSE):
    r"""Server-sent events, without the end of a call whose arguments have come already, and without the items in the
    last event that have been told before it.

    Most services write everything in pieces and repeat it when it is over, some send a call, or all, only then; an
    event by itself does not show which.

    Example:
        >>> item = b'"output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}'
        >>> piece = b'data: {"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}\n\n'
        >>> done = b'data: {"type":"response.output_item.done",' + item + b'}\n\n'
        >>> len(ResponseEvents().feed(piece + done)), len(ResponseEvents().feed(done))
        (1, 1)
    """

    _begun: frozenset[int | str] = frozenset()
    _written: frozenset[int | str] = frozenset()
    _ended: frozenset[int | str] = frozenset()
    _has_text = False
    _has_reasoning = False
    _has_signature = False

    def _frames(self, whole: bytes) -> list[Frame]:
        frames = super()._frames(whole)
        if self._has_text and len(frames) == 1 and frames[0].event == _TEXT_PIECE:
            return frames  # the usual event
        if not self._has_text:
            self._has_text = any(mark in whole for mark in _TEXT_MARKS)
        if not self._has_reasoning:
            self._has_reasoning = _REASONING in whole
        if any(mark in whole for mark in _NEWS_BYTES):
            return [kept for frame in frames if (kept := self._without_repetitions(frame)) is not None]
        return frames

    def _without_repetitions(self, frame: Frame) -> Frame | None:
        if not any(mark in frame.data for mark in _NEWS):
            return frame
        try:
            event = frame_json(frame)
        except ProtocolError:
            return frame  # decode() says so
        kind, item, response = event.get("type"), event.get("item"), event.get("response")
        if kind == "response.function_call_arguments.delta":
            self._written |= _names(event.get("output_index"), event.get("item_id")) or {_UNNAMED}
        elif kind in _ENDS and isinstance(response, dict) and isinstance(response.get("output"), list):
            output = [new for place, item in enumerate(response["output"]) if (new := self._news(place, item))]
            return _LastEvent({**event, "response": {**response, "output": output}})
        elif isinstance(item, dict) and item.get("type") == _CALL:
            return None if self._is_known(kind, item, event.get("output_index")) else frame
        elif isinstance(item, dict) and kind == "response.output_item.done" and item.get(_SIGNATURE):
            self._has_signature = True
        return frame

    def _is_known(self, kind: Any, item: dict[str, Any], place: Any) -> bool:
        """Whether all of a call in an event of its own has been told; if not, it has been now."""
        names = _names(place, item.get("id"), item.get("call_id"))
        if kind == "response.output_item.added":
            self._begun |= names
            if item.get("arguments"):
                self._written |= names
        if kind != "response.output_item.done":
            return False
        known = self._written if item.get("arguments") else self._written | self._begun
        self._ended |= names or {_UNNAMED}
        return _UNNAMED in known or bool(names & known)

    def _news(self, place: int, item: Any) -> dict[str, Any] | None:
        """What an item of the whole response says that no event before has said."""
        if not isinstance(item, dict):
            return None
        kind = item.get("type")
        if kind == "message":
            return None if self._has_text else item
        if kind == _CALL:
            names, told = _names(place, item.get("id"), item.get("call_id")), self._written | self._ended
            if _UNNAMED in told or names & told:
                return None
            # If another call was told, but none by these names, the service names its calls anew at the end.
            return item if not (self._begun | told) or (names & self._begun and item.get("arguments")) else None
        if kind == "reasoning":
            known = ("summary", "content") * self._has_reasoning + (_SIGNATURE,) * self._has_signature
            return {name: value for name, value in item.items() if name not in known}
        return None


def _names(*values: Any) -> frozenset[int | str]:
    """What tells a call from the others of its answer: its place and its ids, as far as they are given."""
    return frozenset(value for value in values if value.__class__ is int or (isinstance(value, str) and value))
