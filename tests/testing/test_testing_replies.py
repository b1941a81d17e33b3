"""How a Reply is sent: transfer codings, pauses and every scripted fault; and which ones are refused."""

from __future__ import annotations

import json
import socket
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import requests

from llmbridge.testing import CLOSE, HOLD, RESET, LLMServer, Reply
from llmbridge.testing.wire import steps

OPENAI = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
SOON = 30.0


def ask(server: LLMServer, reply: Reply) -> requests.Response:
    """The whole answer to one request, read by an ordinary client."""
    server.script(reply)
    return requests.post(server.base_url("openai") + "/chat/completions", json=OPENAI, timeout=SOON)


def events(answer: requests.Response) -> list[Any]:
    """The JSON of each event, and the text of the end mark."""
    answer.encoding = "utf-8"
    assert answer.text.endswith("\n\n") or not answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n")[:-1]]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def ask_raw(server: LLMServer, reply: Reply, end: str, enough: Callable[[bytes], bool]) -> bytes:
    """All bytes of an answer that ends as expected: `closed`, `reset`, or `silent` once there is `enough`."""
    server.script(reply)
    request = json.dumps(OPENAI).encode()
    got, ended = b"", "silent"
    with socket.create_connection(("127.0.0.1", int(server.root.rpartition(":")[2])), timeout=SOON) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(request), request))
        try:
            while ended == "silent":
                sock.settimeout(0.03 if end == "silent" and enough(got) else SOON)
                data = sock.recv(65536)
                got += data
                ended = ended if data else "closed"
        except ConnectionResetError:
            ended = "reset"
        except TimeoutError:
            assert enough(got), f"nothing more came after {got!r}"
    assert ended == end
    return got


def ask_parts(server: LLMServer, reply: Reply, end: str, size: int | None = None) -> tuple[bytes, bytes]:
    """Head, and body as on the wire, up to `size` bytes or its regular end."""

    def enough(got: bytes) -> bool:
        head, _, body = got.partition(b"\r\n\r\n")
        if size is not None:
            return b"\r\n\r\n" in got and len(body_bytes(head, body)) >= size
        return got.endswith(b"\r\n0\r\n\r\n" if b"chunked" in head else b"data: [DONE]\n\n")

    head, _, body = ask_raw(server, reply, end, enough).partition(b"\r\n\r\n")
    return head, body


def body_bytes(head: bytes, body: bytes) -> bytes:
    """The body so far, without chunked coding, even if incomplete."""
    if b"Transfer-Encoding: chunked" not in head:
        return body
    whole = b""
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line, 16)
        whole, body = whole + body[:size], body[size + 2 :]
    return whole


def dechunked(body: bytes) -> list[bytes]:
    """The HTTP chunks of a complete chunked body."""
    chunks = []
    while True:
        size, _, body = body.partition(b"\r\n")
        chunk, body = body[: int(size, 16)], body[int(size, 16) :]
        assert body.startswith(b"\r\n")
        body = body[2:]
        if not chunk:
            assert body == b""
            return chunks
        chunks.append(chunk)


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(server: LLMServer, status: int) -> None:
    """204 and 304 have neither body nor framing, and the connection stays usable."""
    answer = ask(server, Reply("ignored", status=status))
    assert (answer.status_code, answer.content) == (status, b"")
    assert not {"Content-Length", "Transfer-Encoding"} & set(answer.headers)


def test_head_requests_get_a_head(server: LLMServer) -> None:
    """HEAD is answered without a body."""
    with requests.Session() as session:
        assert session.head(server.root + "/x", timeout=SOON).status_code == 404
        assert session.get(server.root + "/v1/models", timeout=SOON).ok
    assert server.connections == 1


def test_given_headers_replace_the_server_s_own(server: LLMServer) -> None:
    """A header of the same name, in any letter case, replaces the usual one; pairs may repeat a name."""
    headers = [("content-TYPE", "a/b"), ("Set-Cookie", "1"), ("Set-Cookie", "2"), ("connection", "close")]
    head, _ = ask_parts(server, Reply("x", headers=headers), "closed")
    lines = head.decode().split("\r\n")
    assert lines[-4:] == ["content-TYPE: a/b", "Set-Cookie: 1", "Set-Cookie: 2", "connection: close"]
    assert not any(line.startswith(("Content-Type", "Connection")) for line in lines)


@pytest.mark.parametrize("transfer", ["chunked", "length", "close", "http10"])
def test_every_transfer_shows_the_end_in_its_own_way(server: LLMServer, transfer: Any) -> None:
    """Chunks, a length, or the end of the connection delimit the same body."""
    end = "silent" if transfer in ("chunked", "length") else "closed"
    head, body = ask_parts(server, Reply(["a", "b"], transfer=transfer), end)
    assert head.startswith(b"HTTP/1.0 200 OK" if transfer == "http10" else b"HTTP/1.1 200 OK")
    assert (b"Transfer-Encoding: chunked" in head) == (transfer == "chunked")
    assert (b"Content-Length: %d" % len(body) in head) == (transfer == "length")
    whole = b"".join(dechunked(body)) if transfer == "chunked" else body
    assert whole.startswith(b'data: {"id"')
    assert whole.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(("per_chunk", "chunks"), [(1, 5), (2, 3), (3, 2), (99, 1)])
def test_events_can_share_an_http_chunk(server: LLMServer, per_chunk: int, chunks: int) -> None:
    """per_chunk is the number of events in an HTTP chunk."""
    _, body = ask_parts(server, Reply(["a", "b"], per_chunk=per_chunk), "silent")
    assert len(dechunked(body)) == chunks


@pytest.mark.parametrize("split", [1, 2, 3, 7, 1000])
def test_any_split_writes_the_same_bytes(server: LLMServer, split: int) -> None:
    """For any size of write, the same bytes arrive."""
    answer = ask(server, Reply(["Grüße", "世界"], split=split, gzip=split == 3))
    assert [event["choices"][0]["delta"].get("content") for event in events(answer)[:-1]] == ["", "Grüße", "世界", None]
    played = steps(Reply("x", split=split, delay=1), server.requests[0], serial=1)
    assert max(len(step) for step in played if isinstance(step, bytes)) <= split
    assert played.count(1) == 3


@pytest.mark.parametrize("transfer", ["chunked", "length", "close"])
def test_gzip_is_flushed_after_every_event(server: LLMServer, transfer: Any) -> None:
    """A compressed stream that pauses after its first event has delivered the whole event."""
    answer = ask(server, Reply(["a", "b"], gzip=True, transfer=transfer))
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(events(answer)) == 5

    def unpacked(got: bytes) -> bytes:
        head, _, body = got.partition(b"\r\n\r\n")
        return zlib.decompressobj(wbits=31).decompress(body_bytes(head, body))

    reply = Reply(["a", "b"], gzip=True, transfer=transfer, delay=60)
    got = ask_raw(server, reply, "silent", lambda got: unpacked(got).endswith(b"}\n\n"))
    assert unpacked(got).count(b"data: ") == 1


def test_pauses_are_kept(server: LLMServer) -> None:
    """The delays before headers, before the body and between the chunks add up."""
    began = time.monotonic()
    ask(server, Reply(["a"], header_delay=0.05, first_delay=0.05, delay=0.05))
    assert time.monotonic() - began >= 0.05 * 5


@pytest.mark.slow
@pytest.mark.parametrize("transfer", ["chunked", "length", "close"])
@pytest.mark.parametrize("size", [0, 1, 30, 200, 205, 10_000])
@pytest.mark.parametrize("way", ["cut", "reset", "stall"])
def test_a_body_can_end_after_any_number_of_bytes(server: LLMServer, transfer: Any, size: int, way: str) -> None:
    """cut closes, reset resets, stall goes silent, after exactly that many bytes of the body."""
    pieces = ["a", "b"]
    whole = ask(server, Reply(pieces)).content
    options: dict[str, Any] = {"stall": size} if way == "stall" else {"cut": size, "reset": way == "reset"}
    expected = min(size, len(whole))
    end = {"cut": "closed", "reset": "reset", "stall": "silent"}[way]
    head, body = ask_parts(server, Reply(pieces, transfer=transfer, **options), end, expected)
    assert not (transfer == "chunked" and body.endswith(b"\r\n0\r\n\r\n"))
    if way != "reset":  # a reset may overtake data
        assert len(body_bytes(head, body)) == expected
        assert (b"Content-Length: %d" % len(whole) in head) == (transfer == "length")


def test_a_cut_inside_a_chunk_leaves_it_unfinished(server: LLMServer) -> None:
    """The chunk announces its full size but is shorter, as when a server dies."""
    _, body = ask_parts(server, Reply(body=b"0123456789", cut=4), "closed")
    assert body == b"a\r\n0123"
    _, body = ask_parts(server, Reply(body=b"0123456789", cut=10), "closed")
    assert body == b"a\r\n0123456789\r\n"


@pytest.mark.parametrize("transfer", ["chunked", "length", "close"])
def test_keep_open_sends_everything_but_the_end(server: LLMServer, transfer: Any) -> None:
    """The end mark is sent, the end of the body is not, and the connection stays open."""
    reply = Reply(body=b"data: [DONE]\n\n", transfer=transfer, keep_open=True)
    head, body = ask_parts(server, reply, "silent", 14)
    assert body == (b"e\r\ndata: [DONE]\n\n\r\n" if transfer == "chunked" else b"data: [DONE]\n\n")
    assert (b"Content-Length: 15" in head) == (transfer == "length")


@pytest.mark.parametrize(
    ("raw", "expected", "end"),
    [
        (b"HTTP/1.1 200 OK\r\nX: 1", b"HTTP/1.1 200 OK\r\nX: 1", "silent"),
        ([b"HTTP/1.1 2", 0.01, b"00 OK", CLOSE, b"never"], b"HTTP/1.1 200 OK", "closed"),
        ([b"HTTP/1.1 200 OK", 0, HOLD], b"HTTP/1.1 200 OK", "silent"),
        ([0.01, RESET], b"", "reset"),
        ([CLOSE], b"", "closed"),
        ([], b"", "silent"),
    ],
)
@pytest.mark.parametrize("split", [None, 1])
def test_raw_is_played_step_by_step(server: LLMServer, raw: Any, expected: bytes, end: str, split: int | None) -> None:
    """raw writes, sleeps, closes, resets and holds; nothing is added."""
    assert ask_raw(server, Reply(raw=raw, split=split), end, lambda got: len(got) >= len(expected)) == expected


def test_a_raw_answer_without_an_end_keeps_the_connection(server: LLMServer) -> None:
    """After the last step the next request on the connection is read."""
    server.default = Reply(raw=iter([b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"ok"]))
    with requests.Session() as session:
        assert [session.get(server.root, timeout=SOON).text for _ in range(3)] == ["ok"] * 3
        assert server.connections == 1
        assert session.get(server.root, timeout=SOON, headers={"Connection": "close"}).text == "ok"
    assert server.wait_for_requests(4)[3].gone.wait(SOON)


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (TypeError, {"content": [b"x"]}),
        (TypeError, {"content": 5}),
        (ValueError, {"content": "\ud800"}),
        (ValueError, {"reasoning": ["\ud800"]}),
        (TypeError, {"usage": 5}),
        (TypeError, {"usage": {"x": {1}}}),
        (TypeError, {"finish_reason": 1}),
        (TypeError, {"status": "200"}),
        (TypeError, {"status": True}),
        (ValueError, {"status": 100}),
        (ValueError, {"status": 1000}),
        (ValueError, {"reason": "a\r\nb"}),
        (TypeError, {"headers": [["a", "b"]]}),
        (ValueError, {"headers": [("a", "b", "c")]}),
        (TypeError, {"headers": {"a": 1}}),
        (ValueError, {"headers": {"a": "b\n"}}),
        (ValueError, {"headers": {"a": "é€"}}),
        (TypeError, {"body": ["x"]}),
        (TypeError, {"error": 5}),
        (TypeError, {"end_mark": 1}),
        (TypeError, {"gzip": "yes"}),
        (ValueError, {"transfer": "carrier pigeon"}),
        (ValueError, {"delay": -1}),
        (ValueError, {"delay": float("nan")}),
        (ValueError, {"first_delay": float("inf")}),
        (TypeError, {"header_delay": "1"}),
        (ValueError, {"split": 0}),
        (TypeError, {"split": 1.5}),
        (ValueError, {"per_chunk": 0}),
        (TypeError, {"per_chunk": None}),
        (ValueError, {"cut": -1}),
        (TypeError, {"cut": True}),
        (ValueError, {"reset": True}),
        (ValueError, {"cut": 1, "stall": 1}),
        (ValueError, {"stall": 1, "keep_open": True}),
        (TypeError, {"raw": "text"}),
        (TypeError, {"raw": [b"x", None]}),
        (TypeError, {"raw": [True]}),
        (ValueError, {"raw": [-1.0]}),
        (ValueError, {"raw": b"x", "status": 500}),
        (ValueError, {"raw": b"x", "content": "x"}),
        (ValueError, {"raw": b"x", "headers": {"a": "b"}}),
    ],
    ids=repr,
)
def test_bad_arguments_are_refused_at_construction(error: type[Exception], options: dict[str, Any]) -> None:
    """An invalid Reply fails where it is created, not in the server's thread."""
    with pytest.raises(error):
        Reply(**options)


def test_one_reply_can_be_sent_many_times(server: LLMServer) -> None:
    """Iterators and lists are copied once, so later changes to them do not matter."""
    texts = ["a"]
    reply = Reply(iter(texts), reasoning=texts, usage=(usage := {"prompt_tokens": 1}))
    texts.append("b")
    usage["prompt_tokens"] = 2
    first, second = (events(ask(server, reply)) for _ in range(2))
    assert [event["choices"][0]["delta"] for event in first[1:3]] == [{"reasoning_content": "a"}, {"content": "a"}]
    assert first[-2]["usage"] == {"prompt_tokens": 1}
    assert len(first) == len(second)
