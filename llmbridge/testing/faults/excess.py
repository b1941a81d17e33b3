"""Faults of time and size: answers that are late, slow or endless, or too large for a client to hold.

Large bodies are one block of a megabyte, sent repeatedly: the server does not hold them either.
"""

from __future__ import annotations

from llmbridge.testing import CLOSE, HOLD, Reply
from llmbridge.testing.reply import Step

from .fault import Fault, sends
from .wire import BEGUN, BEGUN_EVENTS, MEGABYTE, for_ever, gzip_bomb, head

__all__ = ["FLOODS", "SLOW"]

_SLOW_FIELDS = [step for number in range(80) for step in (b"X-Slow-%d: y\r\n" % number, 0.05)]
_OPENING = b'data: {"choices":[{"index":0,"delta":{"content":"'
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_EARLY_HINT = b"HTTP/1.1 102 Processing\r\nX-Wait: y\r\n\r\n"


def _late(name: str, summary: str, *steps: Step) -> Fault:
    """Nothing of the answer comes in time."""
    return sends(name, summary, "P12", "ClockExpired", *steps)


def _stalled(name: str, summary: str, *steps: Step) -> Fault:
    """Nothing more comes after two pieces."""
    return sends(name, summary, "P12", "ClockExpired", head(), BEGUN_EVENTS, *steps, text=BEGUN)


SLOW = (
    _late("silence", "The request is read, but never answered.", HOLD),
    _late("slow-headers", "A header line every 50 ms.", b"HTTP/1.1 200 OK\r\n", *_SLOW_FIELDS, HOLD),
    _late(
        "drip-headers", "The headers come a byte at a time.",
        b"HTTP/1.1 200 OK\r\nX-Slow: ", *for_ever(b"y"),
    ),
    _late(
        "stall-before-first-byte", "The headers come at once, the body never.",
        head("Transfer-Encoding: chunked"), HOLD,
    ),
    _stalled("stall-in-mid-stream", "Silence after two pieces; the connection stays open.", HOLD),
    _stalled("drip", "After two pieces an event comes a byte at a time, without end.", _OPENING, *for_ever(b"a")),
    _stalled("comments-for-ever", "After two pieces only comments, without end.", *for_ever(b": keep-alive\n\n")),
    _stalled("pings-for-ever", "After two pieces only events without content, without end.", *for_ever(_PING)),
    _late("1xx-for-ever", "Informational answers (102) without end, before the real one.", *for_ever(_EARLY_HINT)),
    _late(
        # llmbridge gives up such a body after 5 s, and raises ServerError if the total timeout allows as much.
        "error-body-drips", "Status 500, whose body comes a byte at a time without end.",
        head(status="500 Oh no", kind="text/plain"), *for_ever(b"x"),
    ),
)  # fmt: skip


def _endless_headers() -> Reply:
    block = b"".join(b"X-Flood-%04d: %s\r\n" % (number, b"y" * 50) for number in range(1000))
    return Reply(raw=[b"HTTP/1.1 200 OK\r\n", *[block] * 4000, HOLD])


def _long_header() -> Reply:
    return Reply(raw=[b"HTTP/1.1 200 OK\r\nX-Long: ", *[b"y" * MEGABYTE] * 10, b"\r\n\r\n", CLOSE])


def _giant_line() -> Reply:
    return Reply(raw=[head(), BEGUN_EVENTS, _OPENING, *[b"A" * MEGABYTE] * 400, b'"}}]}\n\n', CLOSE])


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
        "headers-for-ever", "Header lines at full speed, without end.", "P2", "ProtocolError",
        scripted=_endless_headers,
    ),
    Fault("header-line-10mb", "A header line of 10 MB.", "P2", "ProtocolError", scripted=_long_header),
    Fault(
        "giant-line", "After two pieces one event of 400 MB.", "P2", "ProtocolError", BEGUN,
        heavy=True, scripted=_giant_line,
    ),
    Fault(
        "gzip-bomb", "A compressed stream of 300 kB, whose third event has 300 MB.", "P2", "ProtocolError", BEGUN,
        heavy=True, scripted=_bomb,
    ),
    Fault(
        "error-body-250mb", "Status 500 with a body of 250 MB.", "P2", "ServerError",
        heavy=True, scripted=_error_body,
    ),
    Fault(
        "deep-nesting", "After two pieces an event of 100,000 nested JSON arrays.", "P10", "ProtocolError", BEGUN,
        scripted=_nested,
    ),
)  # fmt: skip
