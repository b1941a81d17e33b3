"""The bytes that the faults are made of: events of OpenAI's chat format, heads of answers, HTTP chunks, a gzip bomb.

Every answer in the catalogue has the same text, so that tests can tell how much arrived: `BEGUN` is the text of the
first events, `WHOLE` that of a good answer.
"""

from __future__ import annotations

import functools
import json
import struct
import zlib
from collections.abc import Iterable

from llmbridge.testing import HOLD
from llmbridge.testing.reply import Step

__all__ = [
    "BEGUN",
    "BEGUN_EVENTS",
    "DONE",
    "MEGABYTE",
    "REST_EVENTS",
    "WHOLE",
    "WHOLE_EVENTS",
    "chunk",
    "event",
    "for_ever",
    "gzip_bomb",
    "head",
    "zipped",
]

MEGABYTE = 1 << 20

_BEGINNING = ("Hel", "lo, ")
_REST = ("wor", "ld ✓")
BEGUN = "".join(_BEGINNING)
WHOLE = BEGUN + "".join(_REST)

_FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"


def event(text: str) -> bytes:
    r"""One event with a piece of text.

    Example:
        >>> event("Hi")
        b'data: {"choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
    """
    document = {"choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


BEGUN_EVENTS = b"".join(map(event, _BEGINNING))
REST_EVENTS = b"".join(map(event, _REST)) + _FINISH + DONE
WHOLE_EVENTS = BEGUN_EVENTS + REST_EVENTS


def head(*lines: str, status: str = "200 OK", kind: str | None = "text/event-stream") -> bytes:
    r"""Status line and headers. Without a Content-Length or a transfer coding in `lines`, the body ends by closing.

    Example:
        >>> head("Content-Length: 0", status="204 No Content", kind=None)
        b'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n'
    """
    kinds = [] if kind is None else [f"Content-Type: {kind}"]
    return "\r\n".join([f"HTTP/1.1 {status}", *kinds, *lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    r"""One HTTP chunk.

    Example:
        >>> chunk(b"Hello")
        b'5\r\nHello\r\n'
    """
    return b"%x\r\n%s\r\n" % (len(data), data)


def for_ever(data: bytes, pause: float = 0.02) -> list[Step]:
    """The bytes repeated for minutes, and then silence."""
    again: list[Step] = [data, pause]
    return [*again * 12_000, HOLD]


def zipped(parts: Iterable[bytes]) -> bytes:
    """One gzip member, flushed after each part, so that each part can be unpacked as it arrives."""
    squeeze = zlib.compressobj(wbits=31)
    packed = [squeeze.compress(part) + squeeze.flush(zlib.Z_SYNC_FLUSH) for part in parts]
    return b"".join([*packed, squeeze.flush()])


@functools.lru_cache(maxsize=1)
def gzip_bomb() -> bytes:
    """300 kB of gzip that unpack to an event of 300 MB, after the events of `BEGUN`."""
    block = b"A" * MEGABYTE
    parts = [BEGUN_EVENTS, b'data: {"choices":[{"index":0,"delta":{"content":"', *[block] * 300, b'"}}]}\n\n', DONE]
    # Data after a full flush does not depend on data before it, so the block is compressed only once.
    packed = {part: _flushed(part) for part in set(parts)}
    checksum = functools.reduce(lambda sofar, part: zlib.crc32(part, sofar), parts, 0)
    trailer = struct.pack("<II", checksum, sum(map(len, parts)) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08" + bytes(6) + b"\xff" + b"".join(packed[part] for part in parts) + b"\x03\x00" + trailer


def _flushed(part: bytes) -> bytes:
    squeeze = zlib.compressobj(9, wbits=-15)
    return squeeze.compress(part) + squeeze.flush(zlib.Z_FULL_FLUSH)
