"""Faults of size: what is more than a client should hold.

Large bodies are one block of a megabyte, sent again and again: the server does not hold them either.
"""

from __future__ import annotations

from llmbridge.testing import CLOSE, HOLD, Reply

from .fault import Fault
from .wire import BEGUN, BEGUN_EVENTS, MEGABYTE, gzip_bomb, head

__all__ = ["FLOODS"]


def _endless_headers() -> Reply:
    block = b"".join(b"X-Flood-%04d: %s\r\n" % (number, b"y" * 50) for number in range(1000))
    return Reply(raw=[b"HTTP/1.1 200 OK\r\n", *[block] * 4000, HOLD])


def _long_header() -> Reply:
    return Reply(raw=[b"HTTP/1.1 200 OK\r\nX-Long: ", *[b"y" * MEGABYTE] * 10, b"\r\n\r\n", CLOSE])


def _giant_line() -> Reply:
    opening = b'data: {"choices":[{"index":0,"delta":{"content":"'
    return Reply(raw=[head(), BEGUN_EVENTS, opening, *[b"A" * MEGABYTE] * 400, b'"}}]}\n\n', CLOSE])


def _error_body() -> Reply:
    size = 250 * MEGABYTE
    opening = head(f"Content-Length: {size}", status="500 Oh no", kind="text/plain")
    return Reply(raw=[opening, *[b"x" * MEGABYTE] * 250, CLOSE])


def _bomb() -> Reply:
    packed = gzip_bomb()
    return Reply(raw=[head("Content-Encoding: gzip", f"Content-Length: {len(packed)}") + packed])


def _nested() -> Reply:
    deep = b"data: " + b"[" * 100_000 + b"]" * 100_000 + b"\n\n"
    return Reply(raw=[head(), BEGUN_EVENTS + deep, CLOSE])


FLOODS = (
    Fault(
        "headers-for-ever", "Header lines at full speed, without end.", "P2", "ProtocolError", scripted=_endless_headers
    ),
    Fault("header-line-10mb", "A header line of 10 MB.", "P2", "ProtocolError", scripted=_long_header),
    Fault(
        "giant-line",
        "After two pieces one event of 400 MB.",
        "P2",
        "ProtocolError",
        BEGUN,
        heavy=True,
        scripted=_giant_line,
    ),
    Fault(
        "gzip-bomb",
        "A compressed stream of 300 kB, whose third event has 300 MB.",
        "P2",
        "ProtocolError",
        BEGUN,
        heavy=True,
        scripted=_bomb,
    ),
    Fault(
        "error-body-250mb",
        "Status 500 with a body of 250 MB.",
        "P2",
        "ServerError",
        heavy=True,
        scripted=_error_body,
    ),
    Fault(
        "deep-nesting",
        "After two pieces an event of 100,000 nested JSON arrays.",
        "P10",
        "ProtocolError",
        BEGUN,
        scripted=_nested,
    ),
)
