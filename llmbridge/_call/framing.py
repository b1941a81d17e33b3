"""Bytes to frames, pure: feed it what arrived, in any cut, and get every frame that is complete by now.

A frame is one raw record of a stream before its meaning is known: `.data` and `.event` as text. There are four
framings: server-sent events (through sseclient-py), the same with bare JSON between the events, the line framing of the
first chat services (`data: {...}` counts at its line end, no blank line needed) and NDJSON.

sseclient-py knows the event format, and nothing of hostile streams. What stands in front of it here strips the byte
order mark, turns CR and CRLF into LF (it does not see a blank line in a mixture of them), repairs bytes that are not
UTF-8, caps the size of an event, hands it whole events only (it copies again and again what arrives in small reads),
and knows whether the last event was complete.

Source: WHATWG HTML, 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from sseclient import SSEClient

from llmbridge.errors import ProtocolError

__all__ = ["EVENT_LIMIT", "NDJSON", "SSE", "DataLines", "Frame", "Framing", "Record", "SSEWithJSON"]

EVENT_LIMIT = 64 * 1024 * 1024
"""Bytes that one event may have at the most."""

_BOM = b"\xef\xbb\xbf"
# sseclient-py copies an event once per line, which takes quadratic time: an event of more lines is parsed here, unless
# all that came is so little that it does not matter.
_MANY_LINES = 64
_LITTLE = 80 * 1024
_LONE_CR = re.compile(rb"\r(?!\n)")
_JSON_LINE = re.compile(rb"\n[{\[]")  # to be searched for: twice as fast as `in` for each of the two
_JSON_TOKEN = re.compile(rb'\\.|["{}\[\]]', re.DOTALL)


class Frame(Protocol):
    """One record of a stream: its text, and its event name ("message" where it has none)."""

    data: str
    event: str


class Record:
    """A frame of a framing that has no event names."""

    __slots__ = ("data", "event")

    def __init__(self, data: str, event: str = "message") -> None:
        self.data = data
        self.event = event

    def __repr__(self) -> str:
        return f"Record({self.data!r}, {self.event!r})"


class Framing(ABC):
    """The recipe: normalized line ends, whole records cut off at the last terminator, the rest kept for later.

    Args:
        limit: Bytes that one record may have; more is a ProtocolError.
    """

    terminator: bytes
    begins_with_json = False
    """Whether a brace at the very beginning is the first record, and not a document in place of a stream."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self._limit = limit
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._at_line_end = False
        self._after_cr = False
        self._head: bytes | None = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, in order.

        Raises:
            ProtocolError: A record grows past the limit.
        """
        if self._head is not None:
            data = self._without_bom(data)
        if self._after_cr or b"\r" in data:
            data = self._without_cr(data)
        if not data:
            return []
        whole = self._cut(data)
        return self._frames(_repaired(whole)) if whole else []

    def finish(self) -> list[Frame]:
        """The frames of a last record that lacks its terminator; whether it is whole, its content must show."""
        if self._head:
            self._tail.append(self._head)
        rest = b"".join(self._tail)
        self._tail, self._head = [], None
        return self._frames(_repaired(rest) + self.terminator) if rest else []

    @abstractmethod
    def _frames(self, whole: bytes) -> list[Frame]:
        """The frames in some whole records."""

    def _without_bom(self, data: bytes) -> bytes:
        head = (self._head or b"") + data
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head[len(_BOM) :] if head.startswith(_BOM) else head

    def _without_cr(self, data: bytes) -> bytes:
        """A CR ends its line at once, since waiting for a possible LF would hold the event back."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        if not _LONE_CR.search(data):
            return data.replace(b"\r", b"")  # a single byte is found much faster than two
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _cut(self, data: bytes) -> bytes:
        """What is complete with `data`; the rest is kept in pieces, so that a long record costs linear time."""
        end = data.rfind(self.terminator)
        if end >= 0:
            end += len(self.terminator)
        elif self._at_line_end and self._tail and data[:1] == b"\n":
            end = 1
        else:
            self._keep(data)
            return b""
        self._tail.append(data[:end])
        whole = self._tail[0] if len(self._tail) == 1 else b"".join(self._tail)
        self._tail, self._tail_size = [], 0
        if end < len(data):
            self._keep(data[end:])
        return whole

    def _keep(self, data: bytes) -> None:
        self._tail.append(data)
        self._tail_size += len(data)
        self._at_line_end = data.endswith(b"\n")
        if self._tail_size > self._limit:
            raise ProtocolError(f"an event of the stream is longer than {self._limit} bytes: the server is not sane")


class SSE(Framing):
    r"""Server-sent events: an event ends with a blank line, or is not one.

    Example:
        >>> framing = SSE()
        >>> framing.feed(b": hi\n\ndata: Hel"), [frame.data for frame in framing.feed(b"lo\n\n")]
        ([], ['Hello'])
    """

    terminator = b"\n\n"

    def _frames(self, whole: bytes) -> list[Frame]:
        if len(whole) > _LITTLE and any(event.count(b"\n") > _MANY_LINES for event in whole.split(b"\n\n")):
            return list(_events_of_any_length(whole))
        return list(_QuietClient((whole,)).events())


class SSEWithJSON(SSE):
    r"""Server-sent events, and between them JSON that stands there bare, over any number of lines: a frame as well.

    Example:
        >>> [frame.data for frame in SSEWithJSON().feed(b'data: 1\n\n{\n "error": {}\n}\n\n')]
        ['1', '{\n "error": {}\n}']

    Source:
        Gemini: an error in mid-stream is an indented JSON document without `data:` (google-genai collects the lines
        that lack it until the braces balance).
    """

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        super().__init__(limit)
        self._json: _OpenJSON | None = None

    def finish(self) -> list[Frame]:
        frames = super().finish()
        if self._json is not None:
            frames.append(self._closed())
        return frames

    def _frames(self, whole: bytes) -> list[Frame]:
        if self._json is None and not (_JSON_LINE.search(whole) or whole[:1] in (b"{", b"[")):
            return super()._frames(whole)
        frames: list[Frame] = []
        events: list[bytes] = []
        for line in whole[:-1].split(b"\n"):
            if self._json is not None and line.startswith(b"data:"):
                frames.append(self._closed())  # it breaks off, which its content shows
            if self._json is None and line[:1] in (b"{", b"["):
                frames += self._frames_of(events)
                self._json = _OpenJSON(self._limit)
            if self._json is None:
                events.append(line)
            elif self._json.ends_with(line):
                frames.append(self._closed())
        return frames + self._frames_of(events)

    def _frames_of(self, lines: list[bytes]) -> list[Frame]:
        """The events in some lines, which are used up then."""
        whole = b"\n".join(lines)
        lines.clear()
        return super()._frames(whole + self.terminator) if whole else []

    def _closed(self) -> Frame:
        """The open document as far as it came; none is open then."""
        assert self._json is not None
        record, self._json = Record(self._json.text), None
        return record


class DataLines(Framing):
    r"""The line framing of Vitalentum and CodeLinkAva: each line that begins with `data:` is a frame of its own.

    Example:
        >>> [frame.data for frame in DataLines().feed(b"data: 1\ndata:2\nid: 3\n\ndata: 4")]
        ['1', '2']

    Source:
        Both services put an OpenAI chunk on every `data: ` line; the blank line between is not always there.
    """

    terminator = b"\n"

    def _frames(self, whole: bytes) -> list[Frame]:
        return [
            Record(line[6 if line.startswith(b"data: ") else 5 :].decode())
            for line in whole.split(b"\n")
            if line.startswith(b"data:")
        ]


class NDJSON(Framing):
    r"""One JSON document a line, empty lines ignored.

    Example:
        >>> [frame.data for frame in NDJSON().feed(b'{"a": 1}\n\n{"a": 2}\n')]
        ['{"a": 1}', '{"a": 2}']
    """

    terminator = b"\n"
    begins_with_json = True

    def _frames(self, whole: bytes) -> list[Frame]:
        return [Record(line.decode()) for line in whole.split(b"\n") if line.strip()]


class _OpenJSON:
    """A JSON document that has begun, with what tells where it ends."""

    __slots__ = ("_depth", "_in_text", "_limit", "_lines", "_size")

    def __init__(self, limit: int) -> None:
        self._lines: list[bytes] = []
        self._limit = limit
        self._size = 0
        self._depth = 0
        self._in_text = False

    @property
    def text(self) -> str:
        """What came of it."""
        return b"\n".join(self._lines).decode().strip()

    def ends_with(self, line: bytes) -> bool:
        """Takes a line, and says whether it is the last one.

        Raises:
            ProtocolError: The document grows past the limit.
        """
        self._lines.append(line)
        self._size += len(line) + 1
        if self._size > self._limit:
            raise ProtocolError(f"a document in the stream is longer than {self._limit} bytes: the server is not sane")
        for token in _JSON_TOKEN.findall(line):
            if token == b'"':
                self._in_text = not self._in_text
            elif not self._in_text and len(token) == 1:
                self._depth += 1 if token in b"{[" else -1
        return self._depth <= 0 and not self._in_text


class _Silent:
    """A logger's place taken: sseclient-py logs parts of unknown lines, which may be parts of a prompt or a key."""

    def debug(self, *args: Any) -> None:
        """Nothing."""


class _QuietClient(SSEClient):
    """Made without its constructor, which looks a logger up each time. The fields are those of 1.8 and 1.9."""

    _logger = _Silent()
    _char_enc = "utf-8"

    def __init__(self, event_source: Iterable[bytes]) -> None:
        self._event_source = event_source


def _events_of_any_length(whole: bytes) -> Iterator[Frame]:
    """The events of `whole`; those of a usual number of lines go to sseclient-py, neighbours together."""
    usual: list[bytes] = []
    for event in whole.split(b"\n\n"):
        if event.count(b"\n") <= _MANY_LINES:
            usual.append(event)
            continue
        yield from _QuietClient(_terminated(usual)).events()
        usual = []
        yield from _long_event(event)
    yield from _QuietClient(_terminated(usual)).events()


def _terminated(events: list[bytes]) -> tuple[bytes, ...]:
    return (b"\n\n".join(events) + b"\n\n",) if events else ()


def _long_event(event: bytes) -> Iterator[Frame]:
    """One event of very many lines, in one pass over them."""
    data: list[str] = []
    name = ""
    for line in event.decode().split("\n"):
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    if data:
        yield Record("\n".join(data), name or "message")


def _repaired(data: bytes) -> bytes:
    """`data` as valid UTF-8: a wrong byte becomes U+FFFD, as the standard wants, wherever it stands."""
    if data.isascii():
        return data
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").encode("utf-8")
    return data
