"""The answers of Anthropic's dialect: stream events, whole messages, lists of models.

Source: Anthropic API reference, streaming: counts missing from `message_delta` are still those of `message_start`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import ProtocolError
from llmbridge.events import END, End, Finish, FinishReason, Item, Other, Reasoning, Summary, ToolCallDelta, Usage
from llmbridge.provider import parsed_json, scan_json
from llmbridge.providers._values import count, finish_of, is_report, mapping, string
from llmbridge.providers.anthropic.blocks import PIECES, Block, block_of, items_of, piece_items
from llmbridge.service_errors import error_in_stream

if TYPE_CHECKING:
    from llmbridge.provider import Frame

__all__ = ["Events", "decode_event", "decode_message", "decode_models"]

_FINISH: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "pause_turn": "pause",
    "refusal": "content_filter",
}
_INPUT = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_PIECE = "content_block_delta"
_MOST_OPEN = 64  # blocks; no service interleaves more than two
# Known events, with the keys that are read. The rest of a message_start becomes the answer's head.
_EVENTS = {
    "message_start": frozenset(("type", "message")),
    "content_block_start": frozenset(("type", "index", "content_block")),
    _PIECE: frozenset(("type", "index", "delta")),
    "content_block_stop": frozenset(("type", "index")),
    "message_delta": frozenset(("type", "delta", "usage", "stop_reason")),
    "message_stop": frozenset(("type",)),
}


class Events:
    """Reads the events of one answer. Most depend on the block, or the counts, before them.

    Example:
        >>> from llmbridge._call.framing import Record
        >>> piece = '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}'
        >>> list(Events().read(Record(piece)))
        ['Hi']
    """

    __slots__ = ("_blocks", "_content", "_counted", "_names", "_plain")

    def __init__(self) -> None:
        self._blocks: dict[int | None, Block] = {}
        self._plain = True  # no open block needs special treatment of its pieces
        self._names: dict[str, str] = {}
        self._counted: dict[str, Any] = {}
        self._content: Any = None

    def read(self, frame: Frame) -> Iterable[Item | End]:
        """The content of one event.

        Raises:
            ServiceError: It reports an error.
            ProtocolError: It is not a JSON object, or has something else in place of a text.
        """
        end = -1
        try:
            # The common events, recognized quickly: a piece of text, of reasoning, or of a call.
            event, end = scan_json(frame.data, 0)
            delta = event["delta"]
            kind = delta["type"]
            if (
                len(event) == 3
                and len(delta) == 2
                and event["type"] == "content_block_delta"
                and end == len(frame.data)
                and self._plain
            ):
                if kind == "text_delta":
                    piece = delta["text"]
                    if piece.__class__ is str and piece:
                        return (piece,)
                elif (piece := delta[PIECES[kind]]).__class__ is str and piece:
                    if kind == "thinking_delta":
                        return (Reasoning(piece),)
                    if kind == "input_json_delta":
                        return (ToolCallDelta(_index(event["index"]), arguments=piece),)
        except (StopIteration, RecursionError, ValueError, TypeError, LookupError, AttributeError):
            pass  # not the common case: fall through to the full decoder
        return self._any(event, frame.event) if end == len(frame.data) else self._frame(frame)

    def _frame(self, frame: Frame) -> Iterator[Item | End]:
        """The content of any event. Its type is in its data; the event's name repeats it, and may be missing."""
        if frame.data.startswith("[DONE]"):  # from servers that also speak OpenAI's dialect
            yield from self._end_blocks()
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
        yield from self._any(event, frame.event)

    def _any(self, event: Any, name: str) -> Iterator[Item | End]:
        if name == "error" or (isinstance(event, Mapping) and (event.get("error") or event.get("type") == "error")):
            raise error_in_stream(event)
        if not isinstance(event, Mapping):
            raise ProtocolError(f"expected a JSON object in a stream event, got {type(event).__name__}")
        kind = string(event.get("type")) or name
        if kind == "message" and "type" not in event:  # it has no name either
            if is_report(event):
                raise error_in_stream(dict(event))
            kind = _PIECE if "delta" in event and "index" in event else kind
        yield from self._typed(event, kind)

    def _typed(self, event: Mapping[str, Any], kind: str) -> Iterator[Item | End]:
        index = _index(event.get("index"))
        if kind in _EVENTS and not event.keys() <= _EVENTS[kind] and _says_more(event, _EVENTS[kind]):
            yield Other(kind, dict(event))
        if kind == _PIECE:
            yield from self._piece(event.get("delta"), index)
        elif kind == "content_block_start":
            yield from self._begin(event.get("content_block"), index)
        elif kind == "content_block_stop":
            yield from self._end(index)
        elif kind == "message_start":
            yield from self._start(mapping(event.get("message")))
        elif kind == "message_delta":
            yield from self._last(event)
        elif kind == "message_stop":
            yield from self._end_blocks()
            yield END
        elif event.get("type") == "message" and "content" in event:
            yield Summary(item for item in decode_message(event) if not isinstance(item, End))
        elif kind != "ping" and event:
            yield Other(kind, dict(event))

    def _start(self, message: Mapping[str, Any]) -> Iterator[Item]:
        self._content = message.get("content") or None
        usage = message.get("usage")
        self._counted = _known(usage)
        yield from _decode_usage(usage)

    def _begin(self, value: Any, index: int | None) -> Iterator[Item]:
        """A block begins. This ends a complete block whose end is missing."""
        over = [known for known, block in self._blocks.items() if known == index or not block.is_waiting]
        over += list(self._blocks)[: max(0, len(self._blocks) - _MOST_OPEN)]
        for known in over:
            yield from self._end(known)
        block = block_of(value, index, self._names)
        if block is not None:
            self._blocks[index] = block
            self._plain = self._plain and block.plain
            yield from block.begin()

    def _piece(self, delta: Any, index: int | None) -> Iterator[Item]:
        if not isinstance(delta, Mapping):
            delta = {"type": "text_delta", "text": delta}
        kind = string(delta.get("type"))
        if not kind:
            kind = next((kind for kind, field in PIECES.items() if field in delta), "")
            delta = {**delta, "type": kind}
        block = self._blocks.get(index)
        yield from piece_items(delta, index) if block is None else block.add(delta)
        if (kind not in PIECES or len(delta) > 2) and _says_more(delta, ("type", PIECES.get(kind))):
            yield Other(kind, dict(delta))

    def _end(self, index: int | None) -> Iterator[Item]:
        block = self._blocks.pop(index, None)
        self._plain = all(block.plain for block in self._blocks.values())
        if block is not None:
            yield from block.end()

    def _end_blocks(self) -> Iterator[Item]:
        """The turn is over: ends open blocks, and an answer that the first event held whole."""
        for index in tuple(self._blocks):
            yield from self._end(index)
        if self._content is not None:
            yield Summary(items_of(self._content))
            self._content = None

    def _last(self, event: Mapping[str, Any]) -> Iterator[Item]:
        """The final counts: those of the start, updated by the last event."""
        delta, usage = mapping(event.get("delta")), event.get("usage")
        if _says_more(delta, ("stop_reason",)):
            yield Other("message_delta", dict(event))
        if self._counted and (again := _known(usage)):
            usage = {**self._counted, **again}
        yield from _decode_usage(usage)
        for finish in _decode_finish({"stop_reason": event.get("stop_reason"), **delta}):
            yield from self._end_blocks()
            yield finish


def decode_event(frame: Frame) -> Iterable[Item | End]:
    """The content of one event, without the ones before; errors as for `Events.read`."""
    return Events().read(frame)


def _says_more(fields: Mapping[str, Any], known: Container[Any]) -> bool:
    """Whether there are unknown fields other than null."""
    return any(value is not None and name not in known for name, value in fields.items())


def _index(value: Any) -> int | None:
    """The number of a block; some gateways write it as a str."""
    return count(int(value) if isinstance(value, str) and value.isdecimal() and value.isascii() else value)


def _known(usage: Any) -> dict[str, Any]:
    """The counts that are not null."""
    return {name: value for name, value in mapping(usage).items() if value is not None}


def _decode_finish(fields: Mapping[str, Any]) -> Iterator[Finish]:
    details = mapping(fields.get("stop_details"))
    yield from finish_of(fields.get("stop_reason"), _FINISH, string(details.get("explanation")))


def _decode_usage(usage: Any) -> Iterator[Usage]:
    """The counts at the start; the end repeats and replaces some.

    `input_tokens` does not include tokens written to or read from a cache.
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
    """The content of a whole message; errors as for `Events.read`."""
    document = document[0] if isinstance(document, list) and len(document) == 1 else document
    fields = mapping(document)
    content = fields.get("content")
    if fields.get("error") or fields.get("type") == "error":
        raise error_in_stream(document)
    if content is None and not (fields.get("type") == "message" and fields.get("stop_reason")):
        if fields.get("detail") or fields.get("message"):
            raise error_in_stream(document)
        raise ProtocolError("the service's JSON is not a message in Anthropic's form: check the base_url")
    yield from items_of(content)
    yield from _decode_usage(fields.get("usage"))
    yield from _decode_finish(fields)
    yield END


def decode_models(document: Any) -> list[str]:
    """The model names in a list of models.

    Raises:
        ServiceError: The document reports an error.
        ProtocolError: It is not a list of models.
    """
    fields = mapping(document)
    if fields.get("error"):
        raise error_in_stream(document)
    models = fields.get("data")
    if not isinstance(models, list):
        raise ProtocolError("the service's JSON is not a list of models: check the base_url")
    return [name for model in models if (name := string(mapping(model).get("id")))]
