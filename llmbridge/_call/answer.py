"""One HTTP answer, from bytes to items: detects the kind of body, frames it, decodes the frames, checks how it ends.

`assembly` repairs the decoded items; `reading` hands them out to the loop, and remembers them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llmbridge._call.assembly import Assembly
from llmbridge._call.framing import SSE, Record
from llmbridge._call.head import Head
from llmbridge._json import is_json, parsed_json
from llmbridge._locks import monotonic
from llmbridge._text import mended
from llmbridge.errors import (
    Cancelled,
    LLMBridgeError,
    ProtocolError,
    StreamTruncated,
    TransportError,
    place_of,
    without_frames,
)
from llmbridge.events import END, End, EndOfPart, Finish, Item, Logprobs, Other, RawEvent, Usage
from llmbridge.secret import scrub

if TYPE_CHECKING:
    from llmbridge._call.framing import Framing
    from llmbridge._transport import Exchange
    from llmbridge.provider import Frame, Provider

__all__ = ["Answer", "is_piece"]

_DOCUMENT_LIMIT = 64 * 1024 * 1024
_AWS = "application/vnd.amazon.eventstream"
_NO_STREAMS = ("text/plain", "application/json")
_HEAVY = 64 * 1024  # a document up to this many bytes is read without another thread
_SLICE = 8 * 1024  # bytes that are decoded in one go while an event loop waits
_SLICES_SECONDS = 0.005  # after which the loop gets its turn
_FIRST = 16  # frames that are enough to tell the dialect of a stream
_BOM = b"\xef\xbb\xbf"
_WHITE = b" \t\r\n"
_Decode = Callable[["Frame"], "Iterable[Item | End]"]
_MISREAD = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Answer:
    """The items of one answer.

    Args:
        exchange: Gives the bytes.
        provider: Decodes them.
        answer_tool: The tool whose arguments are the answer's text, if there is one.
        read: Takes the one JSON document that is the answer; None for a chat, whose answer the provider decodes.
        head: Keeps the first and the last event.
        told: Returns what was handed out of this turn; a summary is compared with it.
        raw: Whether the service's own events are handed out as well.

    Attributes:
        waiting: The last read would have blocked.
        pending: What the last read left for the next one.
        ended: There is nothing more to read.
        end_mark: The dialect's end mark has come.
    """

    def __init__(
        self,
        exchange: Exchange,
        provider: type[Provider],
        answer_tool: str | None = None,
        read: Callable[[Any], object] | None = None,
        head: Head | None = None,
        told: Callable[[], Sequence[Item]] = tuple,
        raw: bool = False,
    ) -> None:
        self._event_head = head or Head()
        self._raw = raw
        self._decoder: _Decode | None = None
        self._exchange = exchange
        self._provider = provider
        self._read = read
        self._framing: Framing | None = None
        self.pending = b""
        self._head = b""
        self._document: list[bytes] | None = None
        self._document_size = 0
        self._frames_seen = False
        self._unread: list[Frame] | None = None if read else []  # the first frames, until one of them yields something
        self._assembly = Assembly(provider.think_tags, answer_tool, told)
        self._closed = False
        self.waiting = False
        self.ended = False
        self.end_mark = False

    @property
    def finish(self) -> Finish | None:
        """The last Finish."""
        return self._assembly.finish

    @property
    def heavy(self) -> bool:
        """Whether it is one large document, which takes a while to parse."""
        return self._document_size > _HEAVY

    def read(self, bounded: bool = False) -> tuple[list[Item], LLMBridgeError | None]:
        """The items of one network read, and the error that followed them, if any.

        Args:
            bounded: Decode only as much as takes a few milliseconds.
        """
        items: list[Item] = []
        try:
            data, self.pending = self.pending or self._exchange.read(), b""
            self.waiting = data is None and not self._exchange.paused
            if data is not None:
                if bounded and len(data) > _SLICE:
                    self._take_slices(data, items)
                else:
                    self._take_bytes(data, items)
                if self._unread is not None:
                    self._check_read(self._unread, items)
        except (TransportError, Cancelled) as error:
            cut = self._cut(error, items)
            if cut is not None:
                self._close(items, cut=True)
            return items, cut and without_frames(cut)
        except LLMBridgeError as error:
            self._close(items, cut=True)
            return items, without_frames(error if _says_something(items) else self._named(error))
        return items, None

    def _take_slices(self, data: bytes, items: list[Item]) -> None:
        """Decodes slices until the time is up; each ends at an event, if possible."""
        end, begin = monotonic() + _SLICES_SECONDS, 0
        while begin < len(data) and not self.ended and monotonic() < end:
            event_end = data.rfind(b"\n\n", begin, begin + _SLICE)
            slice_end = begin + _SLICE if event_end < 0 else event_end + 2
            self._take_bytes(data[begin:slice_end], items)
            begin = slice_end
        self.pending = b"" if self.ended else data[begin:]

    def _take_bytes(self, data: bytes, items: list[Item]) -> None:
        at_end = not data
        if self._framing is None and self._document is None:
            data = self._begin(data)
        if self._document is not None:
            self._take_part(data, items)
        elif at_end:
            self._end_of_body(items)
        elif self._framing is not None:
            self._take_frames(self._framing.feed(data), items)

    def _take_frames(self, frames: list[Frame], items: list[Item]) -> None:
        if self._unread is not None:
            self._unread += frames[: _FIRST - len(self._unread)]
        self._decode(frames, items)

    def last_items(self) -> list[Item] | None:
        """The items that were held back for a continuation that never came."""
        rest: list[Item] = []
        self._close(rest)
        return rest or None

    def _close(self, items: list[Item], cut: bool = False) -> None:
        if not self._closed:
            self._closed = True
            self._assembly.close(items, cut)

    def _begin(self, data: bytes) -> bytes:
        """Detects the kind of answer from its first bytes; returns the bytes to decode now."""
        head = (self._head + data).lstrip(_WHITE)
        start = b"" if _BOM.startswith(head) else head.removeprefix(_BOM).lstrip(_WHITE)[:1]
        self._head = head if start else head[: len(_BOM)]
        kind = self._content_type
        if self._exchange.status == 204 or (not data and not start):
            raise ProtocolError(f"the service returned an empty response (status {self._exchange.status})")
        if start == b"<" or (kind == "text/html" and start):
            raise ProtocolError("the service returned an HTML page instead of an answer: check the base_url")
        if kind == _AWS:
            raise ProtocolError("AWS binary event streams are not supported")
        if not start:
            return b""
        framing = SSE() if self._read else self._provider.framing()
        if start in (b"{", b"[") and not framing.begins_with_json:
            self._document = []
        else:
            self._framing = framing
        self._head = b""
        return head

    @property
    def _content_type(self) -> str:
        return self._exchange.headers.get("content-type", "").partition(";")[0].strip().lower()

    def _take_part(self, data: bytes, items: list[Item]) -> None:
        """Takes a part of a JSON document that came instead of a stream; it is decoded at its end."""
        assert self._document is not None
        self._document.append(data)
        self._document_size += len(data)
        if self._document_size > _DOCUMENT_LIMIT:
            raise ProtocolError(f"the answer is one JSON document of more than {_DOCUMENT_LIMIT} bytes")
        if not data:
            self._end_document(items)

    def _end_document(self, items: list[Item]) -> None:
        """Decodes the document at its end: as one, or as several events that lack their field names."""
        text = self._document_text()
        try:
            self._decode([Record(text)], items, self._decode_document)
        except ProtocolError:
            if self._read or is_json(text):
                raise
            self._take_as_stream(text, items)
            if not _says_something(items):
                raise
            if not self.ended:
                self._end_of_body(items)
        self.ended = True

    def _take_as_stream(self, text: str, items: list[Item]) -> None:
        self._document, self._framing = None, self._provider.framing()
        self._take_frames(self._framing.feed(text.encode()), items)

    def _document_text(self) -> str:
        return b"".join(self._document or ()).decode("utf-8-sig", "replace").strip()

    def _decode_document(self, document: Frame) -> Iterable[Item | End]:
        value = parsed_json(document.data)
        if self._read is None:
            from llmbridge._call.shapes import foreign_document

            if (foreign := foreign_document(value, self._provider)) is not None:
                raise foreign
            self._event_head.take_parsed(document, value)
            return self._provider.decode_document(value)
        self._read(value)
        return (END,)

    def _only_errors(self, document: Frame) -> Iterable[Item | End]:
        for _ in self._decode_document(document):
            continue
        return ()

    def _refuse_stream(self, frame: Frame) -> Iterable[Item | End]:
        raise ProtocolError("the service returned a stream instead of one JSON document: check the base_url")

    def _decode(self, frames: list[Frame], items: list[Item], decode: _Decode | None = None) -> None:
        decode = self._decode_event(frames, decode)
        assembly, add = self._assembly, items.append
        for frame in frames:
            self._frames_seen = True
            try:
                for item in decode(frame):
                    if item.__class__ is str and item.isascii() and item and assembly.plain:
                        add(item)
                    elif isinstance(item, End):
                        self.end_mark = self.ended = True
                    elif item.__class__ is Usage and _cannot_halve(frame):
                        assembly.take_usage(item, items)
                    elif item.__class__ is Logprobs and _cannot_halve(frame):
                        add(item)
                    else:
                        assembly.take(item, items)
            except LLMBridgeError as error:
                raise self._masked(frame, decode, error) from None
            except _MISREAD as error:
                raise self._misread(error) from None
            if assembly.failure is not None:
                raise assembly.failure
            if self.ended:
                break

    def _decode_event(self, frames: list[Frame], decode: _Decode | None) -> _Decode:
        """The function that decodes the frames: the same for the whole answer, since it may keep state."""
        if frames:
            self._event_head.take(frames)
        if decode is None:
            if self._decoder is None:
                self._decoder = self._refuse_stream if self._read else _reader_of(self._provider)
            decode = self._decoder
        return _with_raw(decode) if self._raw else decode

    def _misread(self, error: Exception) -> ProtocolError:
        """The error for a provider that failed on data it did not expect: says where, but quotes nothing.

        Neither the error nor its frames are kept, since they hold what was received.
        """
        what = f"{type(error).__name__}{place_of(error)}"
        return ProtocolError(f"the provider {self._provider.name} cannot read what the service sent: {what}")

    def _masked(self, frame: Frame, decode: _Decode, error: LLMBridgeError) -> LLMBridgeError:
        """The error that the frame would have caused if it did not repeat the caller's secrets."""
        text = scrub(frame.data, self._exchange.secrets)
        if text == frame.data:
            return error
        try:
            for _ in decode(Record(text, frame.event)):
                continue
        except LLMBridgeError as masked:
            return masked
        except _MISREAD:
            return error
        return error

    def _end_of_body(self, items: list[Item]) -> None:
        """Decodes an unterminated last event if it is whole; without an end mark, the answer is truncated.

        Raises:
            StreamTruncated, ProtocolError: It is too short, or was never a stream.
        """
        last_is_whole = self._decode_last(items)
        if self.ended:
            return
        self.ended = True
        if self.finish is not None:
            return
        if not self._frames_seen and last_is_whole:
            if self._content_type in _NO_STREAMS:
                raise ProtocolError(f"the service returned {self._content_type} instead of a stream")
            raise ProtocolError(
                "the service returned a stream without a single event "
                "(some servers do so when the prompt is longer than the context)"
            )
        unread = self._unread if last_is_whole and not _says_something(items) else None
        if unread and (nothing := self._nothing_in(unread, over=False)) is not None:
            raise nothing
        id = self._event_head.id  # lets the caller fetch an answer that was made in the background
        named = f" (its id is {scrub(id, self._exchange.secrets)})" if id else ""
        raise StreamTruncated(f"the stream ended before the answer was complete{named}: its end mark is missing")

    def _check_read(self, frames: list[Frame], items: list[Item]) -> None:
        """Raises if the answer ended without saying anything. An empty answer is valid: it has a finish reason.

        Args:
            frames: The first ones, which yielded nothing before.
            items: Decoded now; what was held back is added to them if the answer is over.

        Raises:
            ProtocolError: The answer holds nothing.
        """
        if self.ended:
            self._close(items)
        if _says_something(items):
            self._unread = None
        elif items or self.ended:
            nothing = self._nothing_in(frames, over=not items)  # counted tokens mean that there is an answer
            if nothing is None:
                self._unread = None
            elif self.ended:
                raise nothing

    def _nothing_in(self, frames: list[Frame], over: bool) -> ProtocolError | None:
        from llmbridge._call.shapes import nothing_read

        return nothing_read(frames, self._provider, over=over)

    def _cut(self, error: LLMBridgeError, items: list[Item]) -> LLMBridgeError | None:
        """The answer was cut off: returns the error, unless what had come until then is complete."""
        try:
            self._decode_last(items)
        except LLMBridgeError as reported:
            return reported
        too_short = isinstance(error, StreamTruncated)
        complete = self.end_mark or (too_short and self.finish is not None)
        self.ended = complete or too_short
        return None if complete else error if _says_something(items) else self._named(error)

    def _named(self, error: LLMBridgeError) -> LLMBridgeError:
        """The error; a more precise one if everything was in a dialect that the provider does not read."""
        if not self._unread or not isinstance(error, (ProtocolError, StreamTruncated)):
            return error
        from llmbridge._call.shapes import foreign_stream

        return foreign_stream(self._unread, self._provider) or error

    def _decode_last(self, items: list[Item]) -> bool:
        """Decodes an event that lacks only its end; False if it lacks more."""
        try:
            if self._document is not None and not self._read:
                text = self._document_text()
                if is_json(text):
                    self._decode([Record(text)], items, self._only_errors)
                else:
                    self._take_as_stream(text, items)
            if self._framing is not None:
                self._take_frames(self._framing.finish(), items)
        except ProtocolError:
            return False
        return True


def _reader_of(provider: type[Provider]) -> _Decode:
    """The function that reads one answer: `decoder`, or a `decode` with which a subclass overrides it."""
    for cls in provider.__mro__:
        if "decoder" in vars(cls):
            break
        if "decode" in vars(cls):
            return provider.decode
    return provider.decoder()


def _with_raw(decode: _Decode) -> _Decode:
    def both(frame: Frame) -> Iterator[Item | End]:
        yield RawEvent(mended(frame.data), frame.event)
        yield from decode(frame)

    return both


def is_piece(item: Item) -> bool:
    """Whether an item is a part of the answer itself; token counts are not."""
    if isinstance(item, (Usage, RawEvent, EndOfPart)):
        return False
    return not isinstance(item, Other) or item.in_turn


def _says_something(items: list[Item]) -> bool:
    return any(map(is_piece, items))


def _cannot_halve(frame: Frame) -> bool:
    """Whether a frame cannot split a surrogate pair: halves come as escapes, in text that is kept."""
    return bool(frame.data) and "\\u" not in frame.data
