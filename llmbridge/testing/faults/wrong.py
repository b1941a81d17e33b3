"""Faults of content: wrong answers, and some that only look wrong."""

from __future__ import annotations

import json

from llmbridge.testing import CLOSE, HOLD, Received, Reply

from .fault import Fault, Script, sends
from .wire import BEGUN, BEGUN_EVENTS, REST_EVENTS, WHOLE, WHOLE_EVENTS, chunk, event, head, zipped

__all__ = ["WRONG"]

_CHUNKED = head("Transfer-Encoding: chunked")
_TWO = b"".join(_CHUNKED + chunk(one) + b"0\r\n\r\n" for one in (WHOLE_EVENTS, event("a stranger's answer")))
_PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
_JSON = "application/json"
_KEY_HEADERS = ("Authorization", "x-api-key", "api-key", "x-goog-api-key")


def _key(received: Received) -> str:
    """The key in a request, in any of its headers."""
    sent = next((value for name in _KEY_HEADERS if (value := received.header(name))), "no key was sent")
    return sent.removeprefix("Bearer ")


def _echo_in_body(received: Received) -> Reply:
    key = _key(received)
    return Reply(status=401, error={"message": f"Incorrect API key provided: {key}", "code": key})


def _echo_in_headers(received: Received) -> Reply:
    key = _key(received)
    return Reply("no", status=500, reason=key, headers={"X-Request-Id": key, "Retry-After": key})


def _echo_in_stream(received: Received) -> Reply:
    key = _key(received)
    report = json.dumps({"error": {"message": f"bad key {key}", "type": key}}).encode()
    return Reply(raw=[head() + BEGUN_EVENTS + b"data: " + report + b"\n\n", CLOSE])


def _error(name: str, summary: str, promise: str, error: str, *sent: bytes, text: str = "") -> Fault:
    return sends(name, summary, promise, error, b"".join(sent), text=text)


def _harmless(name: str, summary: str, promise: str, *sent: bytes, text: str = WHOLE) -> Fault:
    return sends(name, summary, promise, "", b"".join(sent), text=text)


def _reply(name: str, summary: str, promise: str, error: str, script: Script, text: str = "") -> Fault:
    return Fault(name, summary, promise, error, text, scripted=lambda: script)


_BODIES = (
    _error(
        "html", "Status 200 with an HTML page.", "P8", "ProtocolError",
        head(kind="text/html"), b"<!doctype html><title>Sign in</title>",
    ),
    _error(
        "html-labelled-stream", "An HTML page that is labelled as an event stream.", "P8", "ProtocolError",
        head(), b"<!doctype html><title>Sign in</title>",
    ),
    _error(
        "json-error-200", "Status 200 with a JSON error instead of the stream.", "P8", "ServerError",
        head(kind=_JSON), b'{"error":{"message":"no worker left","type":"server_error"}}',
    ),
    _error("empty-200", "Status 200 with an empty body.", "P8", "ProtocolError", head()),
    _error("status-204", "Status 204: success, and no content.", "P8", "ProtocolError", head(status="204 No Content")),
    _error(
        "no-events", "Status 200 with a stream of comments only.", "P8", "ProtocolError",
        head(), b": welcome\n\n" * 3,
    ),
    _error("image", "Status 200 with a picture.", "P8", "ProtocolError", head(kind="image/png"), _PNG),
    _harmless("stream-as-plain-text", "A stream labelled text/plain.", "P8", head(kind="text/plain"), WHOLE_EVENTS),
    _harmless("stream-as-json", "A stream labelled application/json.", "P8", head(kind=_JSON), WHOLE_EVENTS),
    _harmless("stream-without-type", "A stream without a Content-Type.", "P8", head(kind=None), WHOLE_EVENTS),
    _harmless(
        "stream-as-latin-1", "A stream labelled with another charset than its own.", "P1",
        head(kind="text/event-stream; charset=iso-8859-1"), WHOLE_EVENTS,
    ),
)  # fmt: skip

_EVENTS = (
    _error(
        "error-in-stream", "After two pieces an event that reports an error.", "P9", "RateLimited",
        head(), BEGUN_EVENTS, b'data: {"error":{"message":"slow down","type":"rate_limit_error"}}\n\n',
        text=BEGUN,
    ),
    _error(
        "error-event", "After two pieces an event named `error`, whose data is plain text.", "P9", "StreamError",
        head(), BEGUN_EVENTS, b"event: error\ndata: out of memory\n\n", text=BEGUN,
    ),
    _error(
        "broken-json-event", "After two pieces an event whose JSON is broken off.", "P10", "ProtocolError",
        head(), BEGUN_EVENTS, event("wor")[:40] + b"\n\n", REST_EVENTS, text=BEGUN,
    ),
    _harmless(
        "nul-bytes", "NUL bytes in the middle of a text: they are a part of it.", "P10",
        head(), WHOLE_EVENTS.replace(b"wor", b"w\0\0r"), text=WHOLE.replace("wor", "w\0\0r"),
    ),
    _harmless(
        "nul-bytes-between-events", "NUL bytes on a line of their own, between events.", "P1",
        head(), BEGUN_EVENTS, b"\0\0\0\0\n\n", REST_EVENTS,
    ),
    _harmless(
        "bad-utf-8", "A byte in a text that is not UTF-8: it becomes U+FFFD.", "P5",
        head(), WHOLE_EVENTS.replace(b"wor", b"w\xffr"), text=WHOLE.replace("wor", "w\ufffdr"),
    ),
    _harmless(
        "data-after-end-mark", "More events after the end mark.", "P7",
        head(), WHOLE_EVENTS, event(" and more"), b"data: {broken\n\n",
    ),
    sends(
        "open-after-end-mark", "The answer ends with its mark, and the connection stays open.", "P7", "",
        _CHUNKED + chunk(WHOLE_EVENTS), HOLD, text=WHOLE,
    ),
)  # fmt: skip

_CODINGS = (
    _error(
        "chunk-longer-than-it-says", "After two pieces a chunk longer than its announced size.", "P6",
        "ProtocolError", _CHUNKED, chunk(BEGUN_EVENTS), b"5\r\n" + event("wor") + b"\r\n", text=BEGUN,
    ),
    _error(
        "no-chunk-size", "After two pieces text instead of a chunk's size.", "P6", "ProtocolError",
        _CHUNKED, chunk(BEGUN_EVENTS), b"five\r\n" + event("wor"), text=BEGUN,
    ),
    _error(
        "broken-gzip", "A body labelled gzip that is not gzip.", "P6", "ProtocolError",
        head("Content-Encoding: gzip"), WHOLE_EVENTS,
    ),
    _error(
        "unknown-compression", "A body in a compression that was not requested.", "P8", "ProtocolError",
        head("Content-Encoding: x-unknown"), zipped([WHOLE_EVENTS]),
    ),
    Fault(
        "two-responses", "A second answer follows the first one without a request.", "P17", text=WHOLE,
        scripted=lambda: Reply(raw=_TWO),
    ),
    _error("not-http", "The server does not speak HTTP.", "P10", "ProtocolError", b"SSH-2.0-OpenSSH_9.2\r\n"),
)  # fmt: skip

_KEYS = (
    _reply("key-echoed-in-body", "Status 401 with the key in message and code.", "P18", "AuthError", _echo_in_body),
    _reply("key-echoed-in-headers", "Status 500 with the key in its headers.", "P18", "ServerError", _echo_in_headers),
    _reply(
        "key-echoed-in-stream", "After two pieces an error with the key in it.", "P18", "StreamError",
        _echo_in_stream, BEGUN,
    ),
)  # fmt: skip

WRONG = (*_BODIES, *_EVENTS, *_CODINGS, *_KEYS)
