"""What the answers in Anthropic's dialect mean: events of a stream, whole messages, lists of models.

Source: Anthropic API reference, streaming: a count that `message_delta` leaves out is still that of `message_start`.
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
_MOST_OPEN = 64  # blocks; no service sends the pieces of more than two at a time
# The events that are known, with the keys of each that are read. What else a message_start says is the answer's head.
_EVENTS = {
    "message_start": frozenset(("type", "message")),
    "content_block_start": frozenset(("type", "index", "content_block")),
    _PIECE: frozenset(("type", "index", "delta")),
    "content_block_stop": frozenset(("type", "index")),
    "message_delta": frozenset(("type", "delta", "usage", "stop_reason")),
    "message_stop": frozenset(("type",)),
}


class Events:
    """Reads the events of one answer: most mean something only by the block, or the counts, that came before.

    Example:
        >>> from llmbridge._call.framing import Record
        >>> piece = '{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}}'
        >>> list(Events().read(Record(piece)))
        ['Hi']
    """

    __slots__ = ("_blocks", "_content", "_counted", "_names", "_plain")

    def __init__(self) -> None:
        self._blocks: dict[int | None, Block] = {}
        self._plain = True  # no open block has a use of its own for its pieces
        self._names: dict[str, str] = {}
        self._counted: dict[str, Any] = {}
        self._content: Any = None

    def read(self, frame: Frame) -> Iterable[Item | End]:
        """What one event says.

        Raises:
            ServiceError: It reports an error.
            ProtocolError: It is no JSON object, or has something else in the place of a text.
        """
        end = -1
        try:
            # The usual events, found out fast: a piece of text, of reasoning, or of a call.
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
            pass  # it is not the usual one
        return self._any(event, frame.event) if end == len(frame.data) else self._frame(frame)

    def _frame(self, frame: Frame) -> Iterator[Item | End]:
        """What any event says. Its type stands in its data; the event's name only repeats it, and may be missing."""
        if frame.data.startswith("[DONE]"):  # from servers that speak OpenAI's dialect too
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
            raise ProtocolError(f"an event of the stream is no JSON object, but {type(event).__name__}")
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
        """A block begins. What is whole by now, and lacks its end, is over then."""
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
        """The turn is over, for blocks that nothing has ended, and for an answer that the first event held whole."""
        for index in tuple(self._blocks):
            yield from self._end(index)
        if self._content is not None:
            yield Summary(items_of(self._content))
            self._content = None

    def _last(self, event: Mapping[str, Any]) -> Iterator[Item]:
        """The counts of the end are those of the start, but for the ones that it gives again."""
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
    """What one event says by itself; errors as for `Events.read`."""
    return Events().read(frame)


def _says_more(fields: Mapping[str, Any], known: Container[Any]) -> bool:
    """Whether there are fields that are not known; null says nothing."""
    return any(value is not None and name not in known for name, value in fields.items())


def _index(value: Any) -> int | None:
    """The number of a block; some gateways write it as a text."""
    return count(int(value) if isinstance(value, str) and value.isdecimal() and value.isascii() else value)


def _known(usage: Any) -> dict[str, Any]:
    """The counts that are told; null tells nothing."""
    return {name: value for name, value in mapping(usage).items() if value is not None}


def _decode_finish(fields: Mapping[str, Any]) -> Iterator[Finish]:
    details = mapping(fields.get("stop_details"))
    yield from finish_of(fields.get("stop_reason"), _FINISH, string(details.get("explanation")))


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
    """What a whole message says, sent where a stream was asked for or not; errors as for `Events.read`."""
    document = document[0] if isinstance(document, list) and len(document) == 1 else document
    fields = mapping(document)
    content = fields.get("content")
    if fields.get("error") or fields.get("type") == "error":
        raise error_in_stream(document)
    if content is None and not (fields.get("type") == "message" and fields.get("stop_reason")):
        if fields.get("detail") or fields.get("message"):
            raise error_in_stream(document)
        raise ProtocolError("the service answered with JSON that is no message of Anthropic's: check the base_url")
    yield from items_of(content)
    yield from _decode_usage(fields.get("usage"))
    yield from _decode_finish(fields)
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
    return [name for model in models if (name := string(mapping(model).get("id")))]
