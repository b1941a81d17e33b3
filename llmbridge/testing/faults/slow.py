"""Faults of time: what comes too late, too slowly, or never."""

from __future__ import annotations

from llmbridge.testing import HOLD, Reply

from .fault import Fault
from .wire import BEGUN, BEGUN_EVENTS, for_ever, head

__all__ = ["SLOW"]

_FIELDS = [b"X-Slow-%d: y\r\n" % number for number in range(80)]


def _slow_headers() -> Reply:
    return Reply(raw=[b"HTTP/1.1 200 OK\r\n", *(step for field in _FIELDS for step in (field, 0.05)), HOLD])


def _drip() -> Reply:
    opening = b'data: {"choices":[{"index":0,"delta":{"content":"'
    return Reply(raw=[head(), BEGUN_EVENTS, opening, *for_ever(b"a")])


def _after_beginning(data: bytes) -> Reply:
    return Reply(raw=[head(), BEGUN_EVENTS, *for_ever(data)])


SLOW = (
    Fault(
        "silence",
        "The request is read, and nothing is ever answered.",
        "P12",
        "ClockExpired",
        scripted=lambda: Reply(raw=[HOLD]),
    ),
    Fault("slow-headers", "A header line every 50 ms.", "P12", "ClockExpired", scripted=_slow_headers),
    Fault(
        "drip-headers",
        "The headers come a byte at a time.",
        "P12",
        "ClockExpired",
        scripted=lambda: Reply(raw=[b"HTTP/1.1 200 OK\r\nX-Slow: ", *for_ever(b"y")]),
    ),
    Fault(
        "stall-before-first-byte",
        "The headers come at once, the body never.",
        "P12",
        "ClockExpired",
        scripted=lambda: Reply(raw=[head("Transfer-Encoding: chunked"), HOLD]),
    ),
    Fault(
        "stall-in-mid-stream",
        "After two pieces nothing more comes, and the connection stays open.",
        "P12",
        "ClockExpired",
        BEGUN,
        scripted=lambda: Reply(raw=[head(), BEGUN_EVENTS, HOLD]),
    ),
    Fault(
        "drip",
        "After two pieces an event comes a byte at a time, without end.",
        "P12",
        "ClockExpired",
        BEGUN,
        scripted=_drip,
    ),
    Fault(
        "comments-for-ever",
        "After two pieces nothing comes but comments.",
        "P12",
        "ClockExpired",
        BEGUN,
        scripted=lambda: _after_beginning(b": keep-alive\n\n"),
    ),
    Fault(
        "pings-for-ever",
        "After two pieces nothing comes but events without content.",
        "P12",
        "ClockExpired",
        BEGUN,
        scripted=lambda: _after_beginning(b'event: ping\ndata: {"type":"ping"}\n\n'),
    ),
    Fault(
        "1xx-for-ever",
        "Informational answers (102) without end, before the real one.",
        "P12",
        "ClockExpired",
        scripted=lambda: Reply(raw=for_ever(b"HTTP/1.1 102 Processing\r\nX-Wait: y\r\n\r\n")),
    ),
    Fault(
        "error-body-drips",
        # llmbridge gives such a body up after 5 s, and raises ServerError where the total limit allows so much.
        "Status 500, whose body comes a byte at a time without end.",
        "P12",
        "ClockExpired",
        scripted=lambda: Reply(raw=[head(status="500 Oh no", kind="text/plain"), *for_ever(b"x")]),
    ),
)
