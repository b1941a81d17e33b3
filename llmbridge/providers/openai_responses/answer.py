"""What the answers of the Responses API say, in events or as one document.

Source: OpenAI API reference, responses, "Streaming events"; the streams of OpenAI, transformers, llama.cpp and vLLM.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import ProtocolError
from llmbridge.events import END, End, Finish, Item, Logprobs, Reasoning, Refusal, ToolCallDelta, Usage
from llmbridge.provider import parsed_json, scan_json
from llmbridge.providers._values import count, is_report, mapping, string
from llmbridge.providers.openai_responses.events import ENDS, LastEvent
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge._framing import Frame

__all__ = ["decode_event", "decode_response"]

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
    if isinstance(frame, LastEvent):
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
        if item.get("type") == "function_call":  # one that came before does not get here: see `events`
            yield _call(item, _index(event.get("output_index")), whole=True)
    elif kind == "response.reasoning_summary_part.added":
        if event.get("summary_index"):
            yield Reasoning("\n\n")
    elif kind in ENDS:
        response = mapping(event.get("response"))
        yield from _items(response.get("output"))  # what came before is not there any more: see `events`
        yield from _end(response, kind.partition(".")[2])


def decode_response(document: Any) -> Iterator[Item | End]:
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
