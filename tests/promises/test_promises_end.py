"""P6 to P9: how an answer ends, and which errors there are instead."""

from __future__ import annotations

import gzip
import json
import time

import pytest
from loopback import DONE, FINISH, chunk, event, head

from llmbridge import (
    AuthError,
    Client,
    ContextLengthExceeded,
    LLMBridgeError,
    Overloaded,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    ServerError,
    ServiceError,
    StreamError,
    StreamTruncated,
    Vitalentum,
)
from llmbridge.testing import CLOSE, HOLD, RESET, LLMServer, Reply

TEXTS = ["При", "вет", "!"]
EVENTS = [event(text) for text in TEXTS]


def read(client: Client) -> tuple[list[str], LLMBridgeError | None]:
    """The pieces of one answer, and the error after them."""
    pieces, ended = [], None
    try:
        for piece in client.chat("x"):
            pieces.append(piece)
    except LLMBridgeError as error:
        ended = error
    assert ended is None or ended.partial == "".join(pieces)
    return pieces, ended


def framed(transfer: str, body: bytes) -> tuple[bytes, bytes]:
    """Head and coded body of an answer."""
    if transfer == "chunked":
        parts = [chunk(body[at : at + 40]) for at in range(0, len(body), 40)]
        return head("Transfer-Encoding: chunked"), b"".join(parts) + b"0\r\n\r\n"
    if transfer == "length":
        return head(f"Content-Length: {len(body)}"), body
    return head("Connection: close"), body


@pytest.mark.parametrize("transfer", ["chunked", "length", "close"])
@pytest.mark.quick(1)
def test_p06_a_cut_anywhere_before_the_end_mark_is_an_error_after_the_text(
    server: LLMServer, client: Client, transfer: str
) -> None:
    """An answer cut after any of its bytes is whole, or StreamTruncated after all pieces that had come."""
    opening, body = framed(transfer, b"".join(EVENTS) + FINISH + DONE)
    whole = opening + body
    # From the closing brace of the finish reason on, the answer is complete even if the rest is missing.
    enough = whole.index(b"}", whole.index(b"stop")) + 3 if transfer != "chunked" else whole.index(b"[DONE]") + 8
    texts = [whole.index(text.encode()) if text.encode() in whole else 0 for text in TEXTS]
    for at in [*range(0, len(whole), 3), len(whole)]:
        server.script(Reply(raw=[whole[:at], CLOSE]))
        pieces, error = read(client)
        assert pieces == TEXTS[: len(pieces)], at
        if at >= enough:
            assert (pieces, error) == (TEXTS, None), at
        elif transfer == "close" and len(opening) <= at < len(opening) + 7:
            assert type(error) in (StreamTruncated, ProtocolError), at  # it may have been the whole of an empty body
        elif at < whole.index(b"stop"):
            assert type(error) is StreamTruncated, at
            if at <= texts[0]:
                assert not pieces, at


@pytest.mark.parametrize("transfer", ["chunked", "length", "close"])
@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_p06_all_text_that_arrived_comes_before_the_error(
    server: LLMServer, client: Client, transfer: str, end: object
) -> None:
    """Pieces of complete events are handed out, even if they came in the same read as the end."""
    opening, body = framed(transfer, b"".join(EVENTS) * 3)
    at = len(body) - 12
    pause = [0.05] if end is RESET else []  # a reset may overtake what was sent before
    server.script(Reply(raw=[opening + body[:at], *pause, end]))  # type: ignore[list-item]
    pieces, error = read(client)
    assert pieces[:8] == (TEXTS * 3)[:8]
    assert type(error) is StreamTruncated


@pytest.mark.parametrize("transfer", ["chunked", "length", "close", "http10"])
def test_p06_a_clean_end_without_an_end_mark_is_too_short(server: LLMServer, client: Client, transfer: str) -> None:
    """A body with a valid HTTP end, but without the dialect's end mark, is a truncated answer."""
    server.script(Reply(["a", "b"], end_mark=False, finish_reason=None, transfer=transfer))  # type: ignore[arg-type]
    pieces, error = read(client)
    assert pieces == ["a", "b"]
    assert type(error) is StreamTruncated


def test_p06_a_cut_gzip_body_is_too_short(server: LLMServer, client: Client) -> None:
    """A gzip body that ends in its middle is a truncated answer, even if the connection ended well."""
    whole = gzip.compress(b"".join(EVENTS) * 50 + FINISH + DONE)
    for at in (5, 15, len(whole) // 2, len(whole) - 30):
        server.script(Reply(raw=[head(f"Content-Length: {at}", "Content-Encoding: gzip"), whole[:at]]))
        pieces, error = read(client)
        assert type(error) is StreamTruncated, at
        assert pieces == (TEXTS * 50)[: len(pieces)]


@pytest.mark.parametrize("at", [1, 5, 12, 17, 30, -1, -2, -3])
def test_p06_an_end_inside_the_headers_is_too_short(server: LLMServer, client: Client, at: int) -> None:
    """Half a status line or half of the headers is StreamTruncated, not an empty answer."""
    server.script(Reply(raw=[head("X-Some: thing")[:at], CLOSE]))
    pieces, error = read(client)
    assert not pieces
    assert type(error) is StreamTruncated


@pytest.mark.parametrize("times", [1, 2, 3])
def test_p06_a_transfer_coding_may_be_told_again(server: LLMServer, client: Client, times: int) -> None:
    """A proxy that repeats the server's header has not chunked the body once more."""
    data = event("ok") + DONE
    lines = ["Transfer-Encoding: chunked"] * times
    server.default = Reply(raw=[head(*lines), b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data)])
    assert list(client.chat("x")) == ["ok"]


@pytest.mark.parametrize("coding", ["none", "None", "utf-8", "identity"])
def test_p06_a_coding_that_is_none_is_no_compression(server: LLMServer, client: Client, coding: str) -> None:
    """Programs send "none" to keep a web server in front of them from compressing, and so from buffering."""
    server.default = Reply(raw=[head("Connection: close", f"Content-Encoding: {coding}"), event("ok"), DONE, CLOSE])
    assert list(client.chat("x")) == ["ok"]


def test_p06_a_done_without_a_reason_in_a_body_cut_short_is_doubted(server: LLMServer, client: Client) -> None:
    """A server that is interrupted may write [DONE] without a finish reason, and leave the HTTP body open."""
    server.script(Reply(raw=[head("Transfer-Encoding: chunked"), chunk(event("a") + DONE), CLOSE]))
    pieces, error = read(client)
    assert pieces == ["a"]
    assert type(error) is StreamTruncated


def test_p06_a_reason_to_finish_is_an_end_mark(server: LLMServer, client: Client) -> None:
    """Some servers never send [DONE]."""
    server.script(Reply(["a"], end_mark=False))
    assert client.chat("x").complete().finish_reason == "stop"


@pytest.mark.parametrize("transfer", ["chunked", "length", "close"])
def test_p07_the_end_mark_ends_the_stream_at_once(server: LLMServer, client: Client, transfer: str) -> None:
    """A server that keeps the connection open after [DONE] does not delay the caller, and loses the connection."""
    server.script(Reply(["a"], keep_open=True, transfer=transfer))  # type: ignore[arg-type]
    started = time.monotonic()
    assert list(client.chat("x")) == ["a"]
    assert time.monotonic() - started < 15
    assert server.requests[0].gone.wait(30)


def drip(opening: bytes, ending: bytes) -> Reply:
    """A whole answer, and after it half a minute of meaningless bytes."""
    data = event("a") + FINISH + DONE
    return Reply(raw=[opening + data if b"chunked" not in opening else opening + chunk(data), *[ending, 0.02] * 1500])


@pytest.mark.parametrize(
    ("opening", "ending"),
    [
        (head("Connection: close"), b": ping\n\n"),
        (head("Connection: close"), b"\n"),
        (head("Transfer-Encoding: chunked"), chunk(b"\n")),
        (head("Transfer-Encoding: chunked") + b"", b"0"),
    ],
    ids=["comments", "line ends", "chunks", "a size without end"],
)
def test_p07_what_drips_behind_the_end_mark_keeps_nobody(
    server: LLMServer, client: Client, opening: bytes, ending: bytes
) -> None:
    """Comments, empty or broken chunks after [DONE] cost the connection, not the caller's time."""
    server.script(drip(opening, ending))
    started = time.monotonic()
    assert list(client.chat("x")) == ["a"]
    assert time.monotonic() - started < 15


def test_p07_trailers_without_end_keep_nobody(server: LLMServer, client: Client) -> None:
    """Endless trailers after a complete answer are not waited for."""
    opening = head("Transfer-Encoding: chunked") + chunk(event("a") + FINISH + DONE) + b"0\r\n"
    server.script(Reply(raw=[opening, *[b"X: y\r\n", 0.02] * 1500]))
    started = time.monotonic()
    assert list(client.chat("x")) == ["a"]
    assert time.monotonic() - started < 15


def test_p07_compressed_nothing_without_end_keeps_nobody(server: LLMServer, client: Client) -> None:
    """Compressed blocks without content after a complete answer are not waited for."""
    import zlib

    squeeze = zlib.compressobj(wbits=31)
    data = squeeze.compress(event("a") + FINISH + DONE) + squeeze.flush(zlib.Z_FULL_FLUSH)
    opening = head("Connection: close", "Content-Encoding: gzip")
    server.script(Reply(raw=[opening + data, *[b"\x00\x00\x00\xff\xff", 0.02] * 1500]))
    started = time.monotonic()
    assert list(client.chat("x")) == ["a"]
    assert time.monotonic() - started < 15


def test_p07_a_flood_behind_the_end_mark_is_not_read(server: LLMServer, client: Client) -> None:
    """Data after [DONE] is read up to a small budget only, and is not part of the answer."""
    flood = [event("more") * 20_000] * 20
    server.script(Reply(raw=[head("Connection: close"), event("a") + FINISH + DONE, *flood, CLOSE]))
    started = time.monotonic()
    assert list(client.chat("x")) == ["a"]
    assert time.monotonic() - started < 15
    assert server.requests[0].gone.wait(30)


def test_p07_an_end_that_comes_a_moment_later_saves_the_connection(server: LLMServer, client: Client) -> None:
    """The last bytes of the body are awaited for a few milliseconds, so that the connection can be reused."""
    data = event("a") + FINISH + DONE
    server.script(*[Reply(raw=[head("Transfer-Encoding: chunked") + chunk(data), 0.01, b"0\r\n\r\n"])] * 5)
    for _ in range(5):
        assert list(client.chat("x")) == ["a"]
    assert server.connections == 1


NO_STREAMS = {
    "html": Reply(body="<!doctype html><title>Sign in</title>", content_type="text/html"),
    "html without a type": Reply(body="\n<html>", content_type=""),
    "204": Reply(status=204),
    "empty": Reply(body=""),
    "empty chunked": Reply(raw=head("Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "white space": Reply(body="\n\n \n"),
    "comments": Reply(body=": hello\n\n: you\n\n"),
    "a number": Reply(body="data: 5\n\n"),
    "no json": Reply(body="data: {no json\n\n"),
    "plain text": Reply(body="Service moved", content_type="text/plain"),
    "json of another kind": Reply(body='{"hello": "world"}', content_type="application/json"),
    "broken json": Reply(body='{"choices": [', content_type="application/json"),
    "unknown compression": Reply("x", headers={"Content-Encoding": "br"}),
    "broken compression": Reply(body=b"no gzip at all", headers={"Content-Encoding": "gzip"}),
    "unknown transfer coding": Reply(raw=[head("Transfer-Encoding: gzip, chunked"), b"5\r\nhello\r\n", HOLD]),
    "broken chunks": Reply(raw=head("Transfer-Encoding: chunked") + b"zz\r\nhello\r\n"),
    "no http": Reply(raw=[b"SSH-2.0-OpenSSH_9.6\r\n", CLOSE]),
    "http 2": Reply(raw=[b"HTTP/2.0 200 OK\r\n\r\n", CLOSE]),
}


@pytest.mark.parametrize("name", NO_STREAMS)
def test_p08_what_is_no_stream_is_a_typed_error(server: LLMServer, client: Client, name: str) -> None:
    """A success status without a stream of events is a ProtocolError with a helpful message."""
    server.script(NO_STREAMS[name])
    pieces, error = read(client)
    assert not pieces
    assert type(error) is ProtocolError
    assert len(str(error)) > 20
    assert ("HTML" in str(error)) == ("html" in name)


@pytest.mark.parametrize(
    ("kind", "says"), [("text/plain", "returned text/plain"), ("text/event-stream", "without a single event")]
)
def test_p08_plain_text_is_told_from_a_stream_without_events(
    server: LLMServer, client: Client, kind: str, says: str
) -> None:
    """Only a stream without events may mean that the prompt is too long."""
    server.script(Reply(body="upstream connect error", content_type=kind))
    assert says in str(read(client)[1])


@pytest.mark.parametrize("body", ['{"error": "no"}', '{"error": {"message": "no"}}', '[{"error": {"message": "no"}}]'])
def test_p08_a_json_error_under_a_success_status_is_an_error(server: LLMServer, client: Client, body: str) -> None:
    """An error document with status 200 is reported in the service's words."""
    server.script(Reply(body=body, content_type="application/json"))
    pieces, error = read(client)
    assert not pieces
    assert isinstance(error, ServiceError)
    assert "no" in str(error)


def test_p08_a_whole_completion_is_given_as_text(server: LLMServer, client: Client) -> None:
    """A server may ignore `stream` and send a whole completion."""
    message = {"role": "assistant", "content": "Привет"}
    document = {"choices": [{"message": message, "finish_reason": "length"}], "usage": {"prompt_tokens": 3}}
    server.script(Reply(body=json.dumps(document), content_type="application/json"))
    answer = client.chat("x").complete()
    assert (answer.text, answer.finish_reason) == ("Привет", "length")
    assert answer.usage is not None
    assert answer.usage.input_tokens == 3


@pytest.mark.parametrize(
    ("report", "kind"),
    [
        ({"message": "slow down", "type": "rate_limit_error"}, RateLimited),
        ({"message": "busy", "type": "overloaded_error"}, Overloaded),
        ({"message": "bad key", "code": "invalid_api_key"}, AuthError),
        ({"message": "no money", "code": "insufficient_quota"}, QuotaExceeded),
        ({"message": "too long", "code": "context_length_exceeded"}, ContextLengthExceeded),
        ({"message": "oh", "code": 500}, ServerError),
        ({"message": "oh", "code": "500"}, ServerError),
        ({"message": "something else"}, StreamError),
        ("just words", StreamError),
    ],
)
def test_p09_an_error_in_the_stream_has_its_class_and_comes_after_the_text(
    server: LLMServer, client: Client, report: object, kind: type[LLMBridgeError]
) -> None:
    """An error event raises the class of its code or type, after the text before it."""
    server.script(Reply(["a", "b"], error=report))  # type: ignore[arg-type]
    pieces, error = read(client)
    assert pieces == ["a", "b"]
    assert type(error) is kind
    assert (report if isinstance(report, str) else report["message"]) in str(error)  # type: ignore[index]


@pytest.mark.parametrize(
    "events",
    [
        b'data: [{"error": {"message": "the reason"}}]\n\n',
        b'data: {"error": ["the reason"]}\n\n',
        b'event: error\ndata: {"message": "the reason"}\n\n',
        b'event: error\ndata: {"code": 500, "details": "the reason"}\n\n',
        b'event: error\ndata: "the reason"\n\n',
        b"event: error\ndata: the reason\n\n",
        b'data: {"object": "error", "message": "the reason", "code": 500}\n\n',
        b'data: {"choices":[{"delta":{},"finish_reason":"error"}],"error":{"code":502,"message":"the reason"}}\n\n',
        b'data: "the reason"\n\n',
    ],
)
def test_p09_every_shape_of_an_error_is_understood(server: LLMServer, client: Client, events: bytes) -> None:
    """Objects, text, lists, `event: error` and an error beside choices raise in the service's words, after the text."""
    server.script(Reply(body=event("a") + events + DONE))
    pieces, error = read(client)
    assert pieces == ["a"]
    assert isinstance(error, ServiceError)
    assert "the reason" in str(error)


def test_p09_an_error_of_the_ancestors_is_understood(server: LLMServer) -> None:
    """The line framing reports errors in the same way."""
    server.script(Reply(["a"], error={"message": "the reason", "type": "server_error"}))
    pieces = Vitalentum.create_completion("m", "x", base_url=server.root)
    assert next(iter(pieces)) == "a"
    with pytest.raises(ServerError, match="the reason"):
        list(pieces)


def test_p09_text_and_error_in_one_read_keep_their_order(server: LLMServer, client: Client) -> None:
    """Pieces that arrive together with the error are handed out before it."""
    server.script(Reply(raw=[head(), event("a") + event("b") + b'data: {"error": "no"}\n\n', HOLD]))
    pieces, error = read(client)
    assert pieces == ["a", "b"]
    assert type(error) is StreamError
