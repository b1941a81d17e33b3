"""The body of a response as it arrives: one network read at a time, however many HTTP chunks it holds.

urllib3 stops at every chunk, and servers send one event per chunk: a busy stream would cost one pass through all layers
per event. Here one read of the socket takes everything that has arrived, and removes the transfer coding at once. A
clean end is distinguished from a truncated body.

Source: RFC 9112, 6 and 7.1 (message body length, chunked coding).
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import socket
import ssl
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from urllib3.response import HTTPResponse

from llmbridge._locks import monotonic
from llmbridge.errors import ProtocolError, StreamTruncated, without_frames

__all__ = ["WOULD_BLOCK", "Body", "Chunked", "Inflated", "SoftBody", "WireBody"]

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
"""Raised by a socket that does not block."""

READ_SIZE = 64 * 1024
_INFLATED_SIZE = 256 * 1024  # bytes decompressed in one go: a few bytes may expand to a great many
_UNPACKING_SECONDS = 0.005  # decompressing without output may go on for so long before others get their turn
_SIZE_LINE_LIMIT = 4096
_SIZES_KEPT = 4096
_TOO_LONG = "a chunk of the body is longer than it says"
_TRAILERS_LIMIT = 64 * 1024
_HEX = re.compile(rb"[0-9A-Fa-f]{1,16}")


class Body(Protocol):
    """The rest of a response."""

    @property
    def reusable(self) -> bool:
        """True once the end was read and nothing came after it, so that the connection can be reused."""

    @property
    def short(self) -> bool:
        """True once the body has ended before the length that the headers promised."""

    def read(self) -> bytes | None:
        """The next bytes as soon as there are some; b"" at the clean end; None if decompressing takes long: call again.

        Raises:
            StreamTruncated: The connection ended before the body did.
            ProtocolError: The body's coding is broken.
            WOULD_BLOCK: Nothing is there yet, and the socket does not block.
        """


class Chunked:
    r"""Removes the chunked coding; the data may be split anywhere.

    Example:
        >>> coding = Chunked()
        >>> coding.feed(b"5\r\nHello\r\n3\r"), coding.feed(b"\n wo\r\n0\r\n\r\n"), coding.done
        (b'Hello', b' wo', True)
    """

    def __init__(self) -> None:
        self.done = False
        self.excess = b""
        self.failure: ProtocolError | None = None
        self._pending = b""
        self._left = 0  # bytes of the open chunk still to come, including its line end
        self._in_trailers = False
        self._trailers = 0

    def feed(self, data: bytes) -> bytes:
        """The payload in `data`.

        Raises:
            ProtocolError: The coding is broken. If payload came before that, it is returned first, and the error waits
                in `failure`.
        """
        if self.failure is not None:
            raise self.failure
        payload: list[bytes] = []
        try:
            self._take(data, payload)
        except ProtocolError as error:
            if not payload:
                raise
            self.failure = without_frames(error)
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _take(self, data: bytes, payload: list[bytes]) -> None:
        if self._pending:
            data, self._pending = self._pending + data, b""
        position, size = 0, len(data)
        while position < size and not self.done:
            if self._left:
                position = self._chunk(data, position, payload)
                continue
            line_end = data.find(b"\n", position)
            if line_end < 0:
                self._pending = data[position:]
                if self._in_trailers:
                    self._count_trailers(size - position - 2)
                    self._pending = self._pending[:2]  # enough to recognize the empty line that ends them
                elif len(self._pending) > _SIZE_LINE_LIMIT:
                    raise ProtocolError("the chunked body holds a size line that never ends")
                break
            line = data[position:line_end]
            position = line_end + 1
            if self._in_trailers:
                self.done = line in (b"", b"\r")
                self._count_trailers(len(line))
                continue
            if (length := _sizes.get(line)) is None:
                length = _size(line)
            end = position + length
            if length and data[end : end + 2] == b"\r\n":  # the common case: the whole chunk is there
                payload.append(data[position:end])
                position = end + 2
            elif length:
                self._left = length + 2
            else:
                self._in_trailers = True
        if self.done:
            self.excess = data[position:]

    def _count_trailers(self, size: int) -> None:
        self._trailers += max(size, 1)
        if self._trailers > _TRAILERS_LIMIT:
            raise ProtocolError("the chunked body holds trailers that never end")

    @property
    def has_all_payload(self) -> bool:
        """Whether only trailers may follow."""
        return self._in_trailers

    def _chunk(self, data: bytes, position: int, payload: list[bytes]) -> int:
        """Takes the available part of the open chunk; returns where it ends."""
        end = position + self._left
        if end <= len(data):
            if not b"\r\n".endswith(data[max(position, end - 2) : end]):
                raise ProtocolError(_TOO_LONG)
            if self._left > 2:
                payload.append(data[position : end - 2])
            self._left = 0
            return end
        taken = min(len(data), end - 2)
        if not b"\r".startswith(data[end - 2 : end - 1] if end - 2 >= position else b""):
            raise ProtocolError(_TOO_LONG)
        if taken > position:
            payload.append(data[position:taken])
        self._left -= len(data) - position
        return len(data)


_sizes: dict[bytes, int] = {}  # a cache: the events of a stream have few different lengths


def _size(line: bytes) -> int:
    """The length in a chunk's first line. `int()` alone would accept signs, spaces and underscores too."""
    digits = line.partition(b";")[0].strip()
    if not _HEX.fullmatch(digits):
        raise ProtocolError("the chunked body is broken: a chunk size is missing")
    if len(_sizes) < _SIZES_KEPT and len(line) < 16:
        _sizes[line] = int(digits, 16)
    return int(digits, 16)


class WireBody:
    """The body of a real http.client response, read from its socket.

    Args:
        response: With its headers read, but not its body.
        sock: Its socket; without it, its file is read, and always blocks.
    """

    def __init__(self, response: http.client.HTTPResponse, sock: socket.socket | None = None) -> None:
        self._receive: Callable[[int], bytes] = response.fp.read1 if sock is None else sock.recv
        self._broken: Exception | None = None  # the error after what was read last
        self._head = b"" if sock is None else self._read_ahead(response, sock)
        self._chunked = Chunked() if response.chunked else None
        self._left: int | None = None if response.chunked else response.length
        self._done = self._left == 0
        self.reusable = self._done and not self._head and self._broken is None
        self.short = False
        self.emptied = False  # the last read got less than it asked for: the socket was empty

    def _read_ahead(self, response: http.client.HTTPResponse, sock: socket.socket) -> bytes:
        """The bytes that came together with the headers, and are in the response's buffer now.

        `read1()` without a size empties the buffer, whatever its size is: 8 KiB before Python 3.14, 128 KiB since. What
        stayed in it would be lost, as everything else is read from the socket.
        """
        blocks = sock.gettimeout() != 0  # a system call less, each of which lets other threads run in between
        if blocks:
            sock.settimeout(0)
        try:
            return response.fp.read1() or b""
        except WOULD_BLOCK:
            return b""
        except OSError as error:  # of a connection that was closed behind the answer, which may be whole
            self._broken = without_frames(error)
            return b""
        finally:
            if blocks:
                sock.settimeout(None)

    def read(self) -> bytes:
        """See `Body`."""
        while not self._done:
            if self._broken is not None:
                raise self._broken
            data, self._head = self._head or self._receive(READ_SIZE), b""
            payload = self._decoded(data) if data else self._ended()
            self.emptied = len(data) < READ_SIZE and not self._done and self._broken is None
            if payload:
                return payload
        return b""

    def _decoded(self, data: bytes) -> bytes:
        if self._chunked is not None:
            payload = self._chunked.feed(data)
            self._done = self._chunked.done
            self._broken = self._chunked.failure
            self.reusable = self._done and not self._chunked.excess
            return payload
        if self._left is None:
            return data
        payload = data[: self._left]
        self._left -= len(payload)
        self._done = self._left == 0
        self.reusable = self._done and len(payload) == len(data)
        return payload

    def _ended(self) -> bytes:
        self.short = bool(self._left)
        if self._left or (self._chunked is not None and not self._chunked.has_all_payload):
            raise StreamTruncated("the connection ended in the middle of the answer")
        self._done = True
        return b""


class Inflated:
    """Decompresses a gzip or deflate body, a bounded amount at a time.

    Args:
        body: The coded body.
        coding: "gzip" or "deflate".

    Attributes:
        rest: Read, but not decompressed yet.
    """

    def __init__(self, body: Body, coding: str) -> None:
        self._body = body
        self._gzip = coding != "deflate"
        self._inflate: Any = None
        self.rest = b""
        self._members = 0
        self._broken = False

    @property
    def reusable(self) -> bool:
        """See `Body`."""
        return self._body.reusable

    @property
    def short(self) -> bool:
        """See `Body`."""
        return self._body.short

    def read(self) -> bytes | None:
        """See `Body`."""
        pause_at = monotonic() + _UNPACKING_SECONDS
        while not self._broken:
            data = self.rest or self._body.read()
            if not data:
                if self._inflate is not None and not self._inflate.eof:
                    raise StreamTruncated("the compressed answer ended in the middle")
                return b""
            if plain := self._plain(data):
                return plain
            if monotonic() >= pause_at:
                return None
        raise ProtocolError("the answer's compression is broken")

    def _plain(self, data: bytes) -> bytes:
        if self._inflate is None or self._inflate.eof:
            if self._members and not (self._gzip and data.startswith(b"\x1f")):
                self.rest = b""  # padding after the last member
                return b""
            self._inflate = zlib.decompressobj(self._window_bits(data))
            self._members += 1
        before = self._inflate.copy()  # takes less than 2 us
        try:
            plain: bytes = self._inflate.decompress(data, _INFLATED_SIZE)
        except zlib.error:
            self._broken = True
            return _whole_part(before, data)
        self.rest = self._inflate.unconsumed_tail or self._inflate.unused_data
        return plain

    def _window_bits(self, data: bytes) -> int:
        if self._gzip:
            return 16 + zlib.MAX_WBITS
        # "deflate" is zlib's format by the standard, and raw deflate from some servers: the first byte shows which.
        return zlib.MAX_WBITS if data[0] & 0x0F == 8 else -zlib.MAX_WBITS


def _whole_part(inflate: Any, data: bytes) -> bytes:
    """The text before the broken place: zlib raises an error alone, without the text that it had decompressed."""
    plain = []
    with contextlib.suppress(zlib.error):
        for place in range(len(data)):
            plain.append(inflate.decompress(data[place : place + 1], _INFLATED_SIZE))
    return b"".join(plain)


class SoftBody:
    """The body of a response without an http.client connection: of a mock, a cache, another adapter.

    Args:
        raw: The response's raw file.
        chunks: Iterates over its content byte by byte, for a file that cannot be read otherwise.
        length: How many bytes the headers promise, if known.
    """

    def __init__(self, raw: Any, chunks: Callable[[], Any], length: int | None = None) -> None:
        self.reusable = self.short = False
        self._left = length
        read1: Any = getattr(raw, "read1", None)
        self._read: Callable[[], bytes]
        if read1 is None:
            self._read = functools.partial(next, chunks(), b"")
        elif isinstance(raw, HTTPResponse):
            self._read = functools.partial(read1, READ_SIZE, decode_content=True)
        else:
            self._read = functools.partial(read1, READ_SIZE)

    def read(self) -> bytes:
        """See `Body`."""
        data = self._read()
        if self._left is not None:
            self._left = max(self._left - len(data), 0)
        if not data and self._left:
            self.short = True
            raise StreamTruncated("the answer ended before the length that its headers gave")
        self.reusable = not data
        return data
