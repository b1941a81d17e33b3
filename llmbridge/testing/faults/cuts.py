"""Faults of the end: answers that are cut short, in every way a connection can end."""

from __future__ import annotations

from typing import Any

from llmbridge.testing import CLOSE, RESET

from .fault import Fault, sends
from .wire import BEGUN, BEGUN_EVENTS, DONE, REST_EVENTS, WHOLE, WHOLE_EVENTS, chunk, event, head, zipped

__all__ = ["CUTS"]

_CHUNKED = head("Transfer-Encoding: chunked")
_NEXT = event("wor")
# A reset may destroy bytes sent right before it, so give them time to arrive.
_ARRIVAL = 0.1


def _cut(name: str, summary: str, *sent: bytes, text: str = BEGUN, end: Any = CLOSE) -> Fault:
    """A stream that is cut after these bytes."""
    arrival = [_ARRIVAL] if end is RESET and sent else []
    return sends(name, summary, "P6", "StreamTruncated", b"".join(sent), *arrival, end, text=text)


def _cut_gzip() -> bytes:
    whole = zipped([BEGUN_EVENTS, REST_EVENTS])
    return whole[: len(zipped([BEGUN_EVENTS])) - 8]  # without the ten bytes of the trailer, with a bit of the next part


CUTS = (
    _cut("no-last-chunk", "A whole chunk, then the end of the connection.", _CHUNKED, chunk(BEGUN_EVENTS)),
    _cut(
        "cut-in-chunk", "The connection ends in the middle of an HTTP chunk.",
        _CHUNKED, chunk(BEGUN_EVENTS), chunk(_NEXT)[:20],
    ),
    _cut("cut-in-chunk-size", "The connection ends in a chunk's size line.", _CHUNKED, chunk(BEGUN_EVENTS), b"2"),
    _cut(
        "short-content-length", "The body has fewer bytes than its Content-Length says.",
        head(f"Content-Length: {len(WHOLE_EVENTS)}"), BEGUN_EVENTS,
    ),
    _cut("cut-gzip", "A compressed body ends in the middle.", head("Content-Encoding: gzip"), _cut_gzip()),
    _cut(
        "close-before-end-mark", "The connection is closed before the answer's end; nothing else says how long it is.",
        head(), BEGUN_EVENTS,
    ),
    _cut(
        "clean-end-without-mark", "The body ends correctly in HTTP, but the answer's end mark is missing.",
        _CHUNKED, chunk(BEGUN_EVENTS), b"0\r\n\r\n",
    ),
    _cut("cut-in-event", "The body ends inside an event's JSON.", head(), BEGUN_EVENTS, _NEXT[:40]),
    _cut(
        "cut-in-character", "The body ends inside a character.", head(), BEGUN_EVENTS, event("✓").partition(b"\x9c")[0]
    ),
    _cut("eof-in-headers", "The connection ends inside the headers.", head()[:-8], text=""),
    _cut("eof-in-status-line", "The connection ends inside the status line.", b"HTTP/1.1 20", text=""),
    _cut("close-before-headers", "The request is read, then the connection is closed.", text=""),
    _cut("reset-before-headers", "The request is read, then the connection is reset.", text="", end=RESET),
    _cut("reset-in-headers", "The connection is reset inside the headers.", head()[:-8], text="", end=RESET),
    _cut("reset-in-mid-stream", "After two pieces the connection is reset.", head(), BEGUN_EVENTS, end=RESET),
    sends(
        "end-mark-without-last-chunk", "The answer is whole, only the chunk that ends the body is missing.", "P7",
        "", _CHUNKED + chunk(WHOLE_EVENTS), text=WHOLE,
    ),
    sends(
        "no-blank-line-at-the-end", "The answer is whole, only the line end of its end mark is missing.", "P6",
        "", head() + WHOLE_EVENTS.removesuffix(DONE) + DONE.rstrip(), text=WHOLE,
    ),
)  # fmt: skip
