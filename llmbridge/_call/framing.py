"""Bytes to frames, without I/O: feed it what arrived, split anywhere, and get every frame that is complete by now.

A frame is one raw record of a stream before its meaning is known: `.data` and `.event` as text. There are three
framings: server-sent events (through sseclient-py), the line framing of the first chat services (`data: {...}` counts
at its line end, no blank line needed) and NDJSON.

sseclient-py knows the event format, but does not defend against hostile streams. The code in front of it strips the
byte order mark, turns CR and CRLF into LF (sseclient-py misses a blank line in a mixture of them), repairs invalid
UTF-8, caps the size of an event, passes on whole events only (sseclient-py copies small reads again and again), and
tracks whether the last event was complete. `_MissingLines` repairs streams of servers that do not keep to the format.

Source: WHATWG HTML, 9.2.6 "Interpreting an event stream".
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from sseclient import SSEClient

from llmbridge._json import is_json
from llmbridge.errors import ProtocolError

if TYPE_CHECKING:
    from llmbridge.provider import Frame

__all__ = ["EVENT_LIMIT", "NDJSON", "SSE", "DataLines", "Framing", "Record"]

EVENT_LIMIT = 64 * 1024 * 1024
"""The most bytes that one event may have."""

_BOM = b"\xef\xbb\xbf"
# sseclient-py copies an event once per line, which takes quadratic time: an event of more lines is parsed here, unless
# everything that came is too little to matter.
_MANY_LINES = 64
_LITTLE = 80 * 1024
_LONE_CR = re.compile(rb"\r(?!\n)")
# Finds streams that are not proper events: a line of JSON without a field, an `error:`, or a line right below one that
# may end a JSON document. All bytes are searched: the line feed in front makes that fast.
_ODD = re.compile(rb"\n[^\n](?:(?<=[{\[])|(?<=e)rror:|(?<=[}\] \t]\n.))")
_ODD_START = (b"{", b"[", b"error:")
_ODD_SIZE = 8  # the most bytes of a match, counting the one before the line feed
_DATA_OR_ERROR = (b"data:", b"{", b"error: {", b"error:{")
_REPORTS = re.compile(r'\[\s*\{\s*"error"')
_ALONE = re.compile(rb"\n[{\[]\n")
_BARE = re.compile(rb"\{|\[\s*(?:\{|$)|\[DONE\]")
_JSON_TOKEN = re.compile(rb'\\.|["{}\[\]]', re.DOTALL)


class Record:
    """A frame of a framing without event names."""

    __slots__ = ("data", "event")

    def __init__(self, data: str, event: str = "message") -> None:
        self.data = data
        self.event = event

    def __repr__(self) -> str:
        return f"Record({self.data!r}, {self.event!r})"


class _Tail:
    """The beginning of a record that is not complete yet.

    Args:
        limit: The most bytes of one record; more is a ProtocolError.
    """

    terminator: bytes

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tail: list[bytes] = []
        self._tail_size = 0
        self._at_line_end = False

    def _cut(self, data: bytes) -> bytes:
        """Returns what `data` completes, and keeps the rest in pieces, so that a long record costs linear time."""
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
            raise ProtocolError(_too_long(self._limit))


class Framing(_Tail, ABC):
    """The common steps: normalize line ends, cut off whole records at the last terminator, keep the rest for later.

    Args:
        limit: The most bytes of one record; more is a ProtocolError.
    """

    begins_with_json = False
    """Whether a brace at the very beginning is the first record, and not a document instead of a stream."""

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        super().__init__(limit)
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
        """The frames of a last record that lacks its terminator; only its content shows whether it is whole."""
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
        """Ends a line at its CR, since waiting for a possible LF would hold the event back."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        if not _LONE_CR.search(data):
            return data.replace(b"\r", b"")  # searching for one byte is much faster than for two
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


class SSE(Framing):
    r"""Server-sent events: an event ends with a blank line; without one it is incomplete.

    Accepts three deviations of real servers. JSON without a field name before it, over any number of lines, is a frame.
    So is `error: {...}`, which is an event of that name. And if the blank lines between events are missing, a `data:`
    line with a whole JSON document is an event as soon as more data follows it.

    Example:
        >>> framing = SSE()
        >>> framing.feed(b": hi\n\ndata: Hel"), [frame.data for frame in framing.feed(b"lo\n\n")]
        ([], ['Hello'])
        >>> [frame.data for frame in framing.feed(b'data: {}\n{\n "error": "no"\n}\n\ndata: [1]\ndata: [2]\n')]
        ['{}', '{\n "error": "no"\n}', '[1]', '[2]']

    Source:
        Gemini: an error in mid-stream is an indented JSON document without `data:` (google-genai collects the lines
        that lack it until the braces balance). llama.cpp's server: errors were `error: {...}` until 2025.
    """

    terminator = b"\n\n"
    _missing: _MissingLines | None = None

    def finish(self) -> list[Frame]:
        """The last event, if it lacks its blank line."""
        if self._missing is not None:
            self._tail.append(self._missing.rest())
            self._missing = None
        return super().finish()

    def _cut(self, data: bytes) -> bytes:
        if self._missing is None:
            if not self._tail and data.endswith(b"\n\n"):
                if not _ODD.search(data) and not data.startswith(_ODD_START):
                    return data  # the common case
            elif not self._is_odd(data):
                return super()._cut(data)
            data = b"".join((*self._tail, data))
            self._tail, self._tail_size = [], 0
            self._missing = _MissingLines(self._limit)
        data = self._missing.added(data)
        if (left := self._missing.left_over()) is not None:
            data += left
            self._missing = None
        return super()._cut(data) if data else b""

    def _is_odd(self, data: bytes) -> bool:
        """Whether something may be missing in the bytes so far."""
        if not self._tail:
            return _ODD.search(data) is not None or data.startswith(_ODD_START)
        before = self._tail[-1][-_ODD_SIZE:]
        if len(before) < _ODD_SIZE:
            before = b"".join((b"\n", *(piece[-_ODD_SIZE:] for piece in self._tail[-_ODD_SIZE:])))[-_ODD_SIZE:]
        return _ODD.search(before + data) is not None

    def _frames(self, whole: bytes) -> list[Frame]:
        if len(whole) > _LITTLE and any(event.count(b"\n") > _MANY_LINES for event in whole.split(b"\n\n")):
            return list(_events_of_any_length(whole))
        return list(_QuietClient((whole,)).events())


class DataLines(Framing):
    r"""The line framing of Vitalentum and CodeLinkAva: each line that begins with `data:` is a frame.

    So is an error on one line without `data:`.

    Example:
        >>> [frame.data for frame in DataLines().feed(b"data: 1\ndata:2\nid: 3\n\ndata: 4")]
        ['1', '2']

    Source:
        Both services put an OpenAI chunk on every `data: ` line, not always with a blank line between.
    """

    terminator = b"\n"

    def _frames(self, whole: bytes) -> list[Frame]:
        return [
            Record(line[6 if line.startswith(b"data: ") else 5 :].decode())
            if line.startswith(b"data:")
            else Record(line.removeprefix(b"error:").strip().decode(), "error")
            for line in whole.split(b"\n")
            if line.startswith(_DATA_OR_ERROR)
        ]


class NDJSON(Framing):
    r"""One JSON document per line, empty lines ignored; over several lines, if the first one is only a bracket.

    Example:
        >>> [frame.data for frame in NDJSON().feed(b'{"a": 1}\n\n{"a": 2}\n{\n "a": 3\n}\n')]
        ['{"a": 1}', '{"a": 2}', '{\n "a": 3\n}']
    """

    terminator = b"\n"
    begins_with_json = True
    _document: _OpenJSON | None = None

    def finish(self) -> list[Frame]:
        """The last document, if it lacks its line end or is incomplete."""
        frames = super().finish()
        if self._document is not None:
            frames.append(Record(self._document.text))
            self._document = None
        return frames

    def _frames(self, whole: bytes) -> list[Frame]:
        if self._document is None and not _ALONE.search(whole) and not whole.startswith((b"{\n", b"[\n")):
            return [Record(line.decode()) for line in whole.split(b"\n") if line.strip()]
        return [frame for line in whole[:-1].split(b"\n") for frame in self._with_line(line)]

    def _with_line(self, line: bytes) -> list[Frame]:
        if self._document is None and line not in (b"{", b"["):
            return [Record(line.decode())] if line.strip() else []
        if self._document is None:
            self._document = _OpenJSON()
        self._document.add(line)
        if self._document.size > self._limit:
            raise ProtocolError(_too_long(self._limit))
        if not self._document.is_balanced:
            return []
        record, self._document = Record(self._document.text), None
        return [record]


class _MissingLines(_Tail):
    """Adds the lines that a server left out of an event stream: blank ones between events, `data:` before JSON.

    Correct data and event names stay unchanged; all other lines, which mean nothing, are dropped.
    """

    terminator = b"\n"

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._document: _OpenJSON | None = None  # the data of the open event
        self._bare = False  # whether that data comes without `data:`
        self._name = b""  # a line after whole data: it may name that event, or begin the next one
        self._separate = False  # whether whole data is an event although no blank line follows

    def added(self, data: bytes) -> bytes:
        """The lines that `data` completes, repaired."""
        whole = self._cut(data)
        return b"".join(map(self._line, whole[:-1].split(b"\n"))) if whole else b""

    def left_over(self) -> bytes | None:
        """The incomplete last line, if what follows can be read without knowing what came before it."""
        if self._separate or self._document:
            return None
        begun = b"".join(self._tail)
        return None if begun.startswith(_ODD_START) else begun

    def rest(self) -> bytes:
        """A last line without its end, repaired."""
        return self._line(b"".join(self._tail)) if self._tail else b""

    def _line(self, line: bytes) -> bytes:
        field, _, value = line.partition(b":")
        if self._bare and field not in (b"data", b"event", b"error"):
            return self._data(b"data: ", line)
        before = self._ended() if self._bare else b""  # truncated, as its content shows
        if not line:
            name, self._document, self._name = self._name, None, b""
            return name + b"\n"
        if _BARE.match(line) or (field == b"error" and value.strip() not in (b"", b"null")):
            before += self._ended() + (b"event: error\n" if field == b"error" else b"")
            self._bare = True
            return before + self._data(b"data: ", value.strip() if field == b"error" else line)
        whole = self._document is not None and self._document.is_whole
        if field == b"event":
            if not whole:
                return before + line + b"\n"
            self._name = line + b"\n"
        elif field == b"data":
            if whole and value.strip():
                self._separate = True
                before += self._ended()
            return before + self._data(line[: len(line) - len(value)], value)
        return before

    def _data(self, field: bytes, value: bytes) -> bytes:
        """A line of data, and the end of its event if that is certain."""
        if self._document is None:
            if not value.strip():
                return field + value + b"\n"
            self._document = _OpenJSON()
        self._document.add(value)
        line = field + value + b"\n"
        if self._bare and self._document.is_balanced:
            name = b"event: error\n" if _REPORTS.match(self._document.text) else b""
            return line + name + self._ended()
        return line + (self._ended() if self._separate and self._document.is_whole else b"")

    def _ended(self) -> bytes:
        """Ends the open event, and begins the next one."""
        if self._document is None:
            return b""
        name, self._document, self._bare, self._name = self._name, None, False, b""
        return b"\n" + name


class _OpenJSON:
    """The beginning of a JSON document, tracking where it ends; or other text."""

    __slots__ = ("_depth", "_in_text", "_lines", "_whole", "size")

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self.size = 0
        self._depth = 0
        self._in_text = False
        self._whole: bool | None = None  # cached: a complete value cannot become another one

    @property
    def text(self) -> str:
        """The text so far."""
        return b"\n".join(self._lines).decode(errors="replace").strip()

    @property
    def is_balanced(self) -> bool:
        """Whether all brackets are closed; also true for text that is not a JSON object or list."""
        return (self._depth <= 0 and not self._in_text) or self._lines[0].lstrip()[:1] not in (b"{", b"[")

    @property
    def is_whole(self) -> bool:
        """Whether it is a complete JSON object or list; the end mark counts as one."""
        if self._whole is None and self.is_balanced:
            text = self.text
            self._whole = text == "[DONE]" or (text[:1] in ("{", "[") and is_json(text))
        return bool(self._whole)

    def add(self, line: bytes) -> None:
        """Appends a line."""
        self._lines.append(line)
        self.size += len(line) + 1
        for token in _JSON_TOKEN.findall(line):
            if token == b'"':
                self._in_text = not self._in_text
            elif not self._in_text and len(token) == 1:
                self._depth += 1 if token in b"{[" else -1


def _too_long(limit: int) -> str:
    return f"a stream event exceeds the limit of {limit} bytes"


class _Silent:
    """Replaces sseclient-py's logger, which logs parts of unknown lines: they may hold a prompt or a key."""

    def debug(self, *args: Any) -> None:
        """Nothing."""


class _QuietClient(SSEClient):
    """Skips SSEClient's constructor, which looks up a logger each time. Sets the fields of 1.8 and 1.9."""

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
    """Parses one event of very many lines in one pass."""
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
    """`data` as valid UTF-8: wrong bytes become U+FFFD, as the standard requires."""
    if data.isascii():
        return data
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").encode("utf-8")
    return data
