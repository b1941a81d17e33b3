"""P1 to P25 once more, in sync, asyncio and trio: the promises that other modules prove in only one of them."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gzip
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from conftest import KEY
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import DONE, FINISH, Listener, Proxy, chunk, event, free_port, head, read_head
from modes import Mode, Outcome

from llmbridge import (
    Cancelled,
    Client,
    ClockExpired,
    ConfigError,
    ConnectFailed,
    LLMBridgeError,
    MissingKey,
    Overloaded,
    ProtocolError,
    RateLimited,
    Retry,
    ServiceError,
    StatusError,
    StreamError,
    StreamTruncated,
    Timeout,
    Vitalentum,
)
from llmbridge._call.framing import SSE
from llmbridge.service_errors import BODY_LIMIT
from llmbridge.testing import CLOSE, HOLD, RESET, LLMServer, Reply

PIECES = ["Hé", "✅\u2028\u0085", "😀"]
STALLED = Reply(raw=[head(), event("a"), HOLD])
END = FINISH + DONE
HEADS = {
    "chunked": head("Transfer-Encoding: chunked"),
    "length": head("Content-Length: 99999"),
    "close": head("Connection: close"),
    "http10": head().replace(b"HTTP/1.1", b"HTTP/1.0"),
    "gzip": head("Transfer-Encoding: chunked", "Content-Encoding: gzip"),
}


# -- framing and text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_p1_any_reads_give_the_same_pieces(server: LLMServer, client: Client, mode: Mode, end: bytes) -> None:
    """Byte order mark, comments, unknown fields, invalid UTF-8 in a comment, and reads of any size."""
    body = b"\xef\xbb\xbf: c\n\nid: 7\nwibble: x\n" + b"".join(map(event, PIECES)) + b": bad \xff\xfe\n\n" + END
    for size in (1, 2, 3, 7, None):
        server.script(Reply(body=body.replace(b"\n", end), split=size, content_type="text/plain; charset=latin-1"))
        assert mode.read(client.chat("x")).pieces == PIECES, size


LINES = st.lists(st.sampled_from(["data: ", "event: ", ": ", "id: ", "wibble: "]), min_size=1, max_size=4)
TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\n"), max_size=8)
EVENTS = st.lists(
    LINES.flatmap(lambda names: st.tuples(*(TEXT.map(lambda text, name=name: name + text) for name in names)))
)


@settings(max_examples=60)
@given(EVENTS, st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1, max_size=5), st.lists(st.integers(1, 9)))
def test_p1_any_cut_of_any_events_gives_the_same_frames(
    events: list[tuple[str, ...]], ends: list[str], sizes: list[int]
) -> None:
    """Event names and text of several lines included, with any line ends and splits."""
    lines = [line for one in events for line in (*one, "")]
    # A CR before a separate LF would make the two one line end.
    mixed = ends if "\r" not in ends or "\n" not in ends else ["\r\n"]
    stream = "".join(line + mixed[at % len(mixed)] for at, line in enumerate(lines)).encode()
    cut, rest = [], stream
    for size in sizes:
        cut, rest = [*cut, rest[:size]], rest[size:]
    plain = "".join(line + "\n" for line in lines).encode()
    expected = [(frame.event, frame.data) for frame in SSE().feed(plain)]
    one = SSE()
    frames = [frame for data in (*cut, *(bytes([byte]) for byte in rest)) for frame in one.feed(data)]
    assert [(frame.event, frame.data) for frame in frames] == expected


@pytest.mark.slow
def test_p2_what_is_too_large_is_a_typed_error(server: LLMServer, client: Client, mode: Mode) -> None:
    """An event that expands past the limit, and an error's body that exceeds its own."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = (
        squeeze.compress(b"data: ") + b"".join(squeeze.compress(b"a" * (1 << 20)) for _ in range(70)) + squeeze.flush()
    )
    server.script(Reply(body=bomb, headers={"Content-Encoding": "gzip"}), Reply("x" * 4_000_000, status=400))
    assert type(mode.read(client.chat("x")).error) is ProtocolError
    error = mode.read(client.chat("x")).error
    assert isinstance(error, ServiceError)
    assert len(error.body) <= BODY_LIMIT
    assert BODY_LIMIT == 64 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("transfer", HEADS)
def test_p3_a_piece_comes_while_the_server_holds_the_rest(
    server: LLMServer, client: Client, mode: Mode, transfer: str
) -> None:
    """The first piece is there, though nothing comes after its event."""
    data = event("first")
    if transfer == "gzip":
        squeeze = zlib.compressobj(wbits=31)
        data = squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    data = chunk(data) if transfer in ("chunked", "gzip") else data
    server.script(Reply(raw=[HEADS[transfer], 0.05, data, HOLD]))
    got: list[str] = []
    started = time.monotonic()
    mode.each(client.chat("x", timeout=10), lambda piece: not got.append(piece))
    assert got == ["first"]
    assert time.monotonic() - started < 5, "it came with the end of the call only"
    assert server.requests[0].gone.wait(30)


def test_p4_the_ancestors_lines_are_understood(server: LLMServer, client: Client, mode: Mode) -> None:
    """No blank lines, with and without the space, and anything after [DONE], in both framings."""
    lines = event("a")[:-1] + event("b")[:-1].replace(b"data: ", b"data:")
    for mark in (b"data: [DONE]\n", b"data:[DONE] and more\n"):
        server.script(Reply(body=lines + mark), Reply(body=lines + b"\n" + FINISH + mark + b"\n"))
        assert mode.read(mode.of_class(Vitalentum, base_url=server.root)).pieces == ["a", "b"]
        assert mode.read(client.chat("x")).pieces == ["a", "b"]


def test_p4_any_form_of_the_end_mark_ends_event_streams(server: LLMServer, client: Client, mode: Mode) -> None:
    """Also without a finish reason, and without a blank line before it."""
    for mark in (b"data: [DONE]\n\n", b"data:[DONE]\n\n", b"data: [DONE] bye\n\n"):
        for body in (event("a") + mark, event("a")[:-1] + mark):
            server.script(Reply(raw=[head(f"Content-Length: {len(body)}") + body]))
            outcome = mode.read(client.chat("x"))
            assert (outcome.pieces, outcome.error) == (["a"], None), body


def test_p5_pieces_are_the_answers_text(server: LLMServer, client: Client, mode: Mode) -> None:
    """No empty piece, no reasoning, no other choice, no repr of a list, no half of a character."""
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"content": None},
        {"reasoning_content": "hmm"},
        {"content": [{"type": "text", "text": "a"}]},
        {"content": "b\ud83d"},
        {"content": "\ude00"},
        {"content": "\ud83d"},
    ]
    events = [b'data: {"choices":[{"index":1,"delta":{"content":"other"}}]}\n\n']
    events += [b"data: %s\n\n" % json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() for delta in deltas]
    server.script(Reply(body=b"".join(events) + END))
    pieces = mode.read(client.chat("x")).pieces
    assert all(type(piece) is str and piece.encode() for piece in pieces)
    assert "".join(pieces) == "ab😀\ufffd"


# -- the end of a stream ----------------------------------------------------------------------------------------------


def test_p6_what_has_no_end_mark_is_too_short(server: LLMServer, client: Client, mode: Mode) -> None:
    """A clean end, a short body, a cut chunk, a cut gzip body and a reset: the text first, then the error."""
    body = event("a") + event("b")
    zipped = gzip.compress(body * 500 + END)
    for reply, least in (
        (Reply(["a", "b"], end_mark=False, finish_reason=None), 2),
        (Reply(raw=[head("Content-Length: 9999") + body + b"data: ", CLOSE]), 2),
        (Reply(raw=[head("Content-Length: 9999"), body[:-2], CLOSE]), 2),
        (Reply(raw=[HEADS["chunked"] + chunk(body) + b"40\r\ndata", CLOSE]), 2),
        (Reply(raw=[HEADS["chunked"] + chunk(body), 0.05, RESET]), 2),
        (
            Reply(
                raw=[head(f"Content-Length: {len(zipped) // 2}", "Content-Encoding: gzip"), zipped[: len(zipped) // 2]]
            ),
            0,
        ),
        (Reply(raw=[head("X-Some: thing")[:30], CLOSE]), 0),
    ):
        server.script(reply)
        outcome = mode.read(client.chat("x"))
        assert type(outcome.error) is StreamTruncated, reply
        assert outcome.pieces == (["a", "b"] * 500)[: len(outcome.pieces)]
        assert len(outcome.pieces) >= least
        assert outcome.error.partial == "".join(outcome.pieces)


@pytest.mark.slow
@pytest.mark.parametrize("transfer", HEADS)
def test_p7_the_end_mark_ends_the_loop(server: LLMServer, client: Client, mode: Mode, transfer: str) -> None:
    """The loop ends though the server keeps the connection open or sends more, long before the total timeout."""
    data = event("a") + END
    if transfer == "gzip":
        squeeze = zlib.compressobj(wbits=31)
        data = squeeze.compress(data) + squeeze.flush(zlib.Z_SYNC_FLUSH)
    data = HEADS[transfer] + (chunk(data) if transfer in ("chunked", "gzip") else data)
    server.script(Reply(raw=[data, HOLD]), Reply(raw=[data + event("more") * 9, *[b": ping\n\n", 0.02] * 500]))
    for request in (0, 1):
        started = time.monotonic()
        outcome = mode.read(client.chat("x", timeout=10))
        assert (outcome.pieces, outcome.error) == (["a"], None)
        assert time.monotonic() - started < 5
        assert server.requests[request].gone.wait(30)


def test_p8_what_is_no_stream_is_a_typed_error(server: LLMServer, client: Client, mode: Mode) -> None:
    """HTML, an empty body, no events, a JSON error; but a whole JSON completion is text."""
    error = Reply(body='{"error": {"message": "no"}}', content_type="application/json")
    for reply, kind, says in (
        (Reply(body="<!doctype html><title>Sign in</title>", content_type="text/html"), ProtocolError, "HTML"),
        (Reply(status=204), ProtocolError, "204"),
        (Reply(body=""), ProtocolError, "empty"),
        (Reply(body=": hello\n\n"), ProtocolError, "event"),
        (error, StreamError, "no"),
    ):
        server.script(reply)
        outcome = mode.read(client.chat("x"))
        assert not outcome.pieces
        assert type(outcome.error) is kind
        assert says in str(outcome.error)
    whole = {"choices": [{"message": {"content": "Hé"}, "finish_reason": "stop"}]}
    server.script(Reply(body=json.dumps(whole), content_type="application/json"))
    assert mode.read(client.chat("x")).pieces == ["Hé"]


def test_p9_an_error_in_the_stream_comes_after_the_text(server: LLMServer, client: Client, mode: Mode) -> None:
    """Objects, text, lists and `event: error`, in one read with the text before them."""
    for data, kind in (
        (b'data: {"error": {"message": "why", "type": "rate_limit_error"}}\n\n', RateLimited),
        (b'event: error\ndata: {"message": "why", "type": "overloaded_error"}\n\n', Overloaded),
        (b'data: {"error": "why"}\n\n', StreamError),
        (b'data: [{"error": {"message": "why"}}]\n\n', StreamError),
    ):
        server.script(Reply(raw=[head(), event("a") + event("b") + data, HOLD]))
        outcome = mode.read(client.chat("x"))
        assert (outcome.pieces, type(outcome.error)) == (["a", "b"], kind)
        assert "why" in str(outcome.error)
        assert outcome.error is not None
        assert outcome.error.partial == "ab"


# -- errors -----------------------------------------------------------------------------------------------------------


def test_p10_only_errors_of_the_tree(server: LLMServer, client: Client, mode: Mode) -> None:
    """Invalid HTTP or JSON, deep nesting, a reset, a broken coding: `Mode.read` lets nothing else through."""
    for reply in (
        Reply(raw=[b"SSH-2.0-OpenSSH\r\n", CLOSE]),
        Reply(raw=[b"HTTP/1.1 abc\r\n\r\n", CLOSE]),
        Reply(raw=[RESET]),
        Reply(raw=[HEADS["chunked"] + b"zz\r\n", CLOSE]),
        Reply(raw=[HEADS["chunked"] + chunk(event("a")), 0.02, RESET]),
        Reply(body=b"nonsense", headers={"Content-Encoding": "gzip"}),
        Reply(body="data: {no json\n\n"),
        Reply(body=b"data: " + b"[" * 100_000 + b"\n\n"),
        Reply(body=b'data: {"choices": [{"delta": 5}, 7], "usage": "x"}\n\n'),
        Reply(body=b"[" * 100_000, status=500),
        Reply(status=429, headers={"Retry-After": "\x80 soon"}),
    ):
        server.script(reply)
        error = mode.read(client.chat("x")).error
        assert isinstance(error, LLMBridgeError), reply
        assert len(str(error)) > 10


def test_p10_bad_arguments_are_refused_at_the_call(server: LLMServer, mode: Mode) -> None:
    """The class that an app uses rejects before its first step."""
    for options in ({"timeout": 0}, {"retries": -1}, {"temperature": float("nan")}, {"headers": {"a b": "c"}}):
        with pytest.raises(ConfigError) as caught:
            mode.of_class(Vitalentum, base_url=server.root, **options)
        assert isinstance(caught.value, ValueError)
    assert server.connections == 0


def test_p11_errors_pickle_and_copy_whole(server: LLMServer, client: Client, mode: Mode) -> None:
    """An error of a call with everything in it, and one without a call."""
    server.script(Reply(["a", "b"], error={"message": "why", "code": 429}, headers={"X-Request-Id": "r-1"}))
    refused = mode.read(client.chat("x", base_url=f"http://127.0.0.1:{free_port()}/v1")).error
    for error in (mode.read(client.chat("x")).error, refused):
        assert isinstance(error, LLMBridgeError)
        for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
        link: BaseException | None = error
        while link is not None:
            assert not {"request", "response", "pool", "reason"} & vars(link).keys()
            link = link.__cause__ or link.__context__
    assert (type(refused), refused and refused.request_id) == (ConnectFailed, None)


# -- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clock", "reply", "pieces"),
    [
        ("first_content", Reply(header_delay=9), []),
        ("first_content", Reply(raw=[head(), *[b": ping\n\n", 0.02] * 500]), []),
        ("idle", Reply(raw=[head(), event("a"), HOLD]), ["a"]),
        ("idle", Reply(raw=[head(), event("a"), *[b": ping\n\n", 0.02] * 500]), ["a"]),
        ("total", Reply(raw=[head(), *[event("a"), 0.02] * 500]), None),
        ("total", Reply("no", status=503, headers={"Retry-After": "9"}), []),
    ],
    ids=["no headers", "pings only", "stalled", "pings", "lively", "waits"],
)
def test_p12_each_clock_by_its_name(
    server: LLMServer, client: Client, mode: Mode, clock: Any, reply: Reply, pieces: list[str] | None
) -> None:
    """The error names the expired timeout, and holds the text that had come."""
    server.default = reply
    started = time.monotonic()
    outcome = mode.read(client.chat("x", timeout=Timeout(**{"total": 10, clock: 0.3}), retries=2))
    assert time.monotonic() - started < 5
    assert isinstance(outcome.error, ClockExpired), outcome.error
    assert outcome.error.clock == clock
    assert outcome.error.partial == "".join(outcome.pieces)
    assert set(outcome.pieces) <= {"a"}
    if pieces is not None:
        assert outcome.pieces == pieces


@pytest.mark.quick(1)
def test_p12_the_connect_clock(mode: Mode) -> None:
    """A handshake without an answer ends with the connect timeout."""
    with Listener() as listener, Client("openai:m", base_url=f"https://127.0.0.1:{listener.port}/v1") as client:
        error = mode.read(client.chat("x", timeout=Timeout(connect=0.2, total=10), retries=0)).error
    assert isinstance(error, ClockExpired)
    assert error.clock == "connect"


@pytest.mark.quick(1)
def test_p12_an_errors_body_gets_little_time(
    server: LLMServer, client: Client, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status is enough: a stalled body does not use up the call's own timeouts."""
    monkeypatch.setattr("llmbridge._call.attempts._ERROR_BODY_SECONDS", 0.2)
    server.script(Reply(raw=[head(status="403 No"), b"the reason", HOLD]))
    started = time.monotonic()
    error = mode.read(client.chat("x", timeout=10)).error
    assert time.monotonic() - started < 5
    assert type(error).__name__ == "PermissionDenied"
    assert "the reason" in str(error)


def test_p13_before_the_first_piece_and_never_after(server: LLMServer, client: Client, mode: Mode) -> None:
    """Two retries by default; a truncated answer, and an account without credit, are not retried."""
    passing = [Reply("no", status=status, headers={"Retry-After-Ms": "1"}) for status in (408, 425, 409, 429, 500)]
    server.script(passing[0], passing[1], Reply("ok"), *passing[2:])
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, timeout=20) as patient:
        assert mode.read(patient.chat("x")).pieces == ["ok"]
        assert type(mode.read(patient.chat("x")).error).__name__ == "ServerError"
        assert len(server.requests) == 6
        for reply in (
            Reply(["a", "b"], end_mark=False, finish_reason=None),
            Reply(["a"], error={"message": "busy", "type": "overloaded_error"}),
            Reply(body='{"error": {"code": "insufficient_quota"}}', status=429),
        ):
            before = len(server.requests)
            server.script(reply)
            assert mode.read(patient.chat("x", retries=Retry(3, backoff=0.01))).error is not None
            assert len(server.requests) == before + 1


# -- life of a stream -------------------------------------------------------------------------------------------------


def test_p14_the_server_sees_every_way_to_leave(server: LLMServer, client: Client, mode: Mode) -> None:
    """break, an exception, `with`, and cancel or close from another thread while the loop waits."""

    def leave(way: Callable[[], None], requests: int) -> None:
        server.wait_for_requests(requests, 10)
        time.sleep(0.05)
        way()

    server.default = STALLED
    mode.each(client.chat("x"), lambda _: True)
    with pytest.raises(ZeroDivisionError):
        mode.each(client.chat("x"), lambda _: 1 / 0)
    mode.each_within(client.chat("x"), lambda _: True)
    for way in ("cancel", "close"):
        stream = client.chat("x")
        leaver = threading.Thread(target=leave, args=(getattr(stream, way), len(server.requests) + 1))
        leaver.start()
        assert isinstance(mode.read(stream).error, Cancelled)
        leaver.join()
        stream.close()
        stream.close()
    assert [request.gone.wait(30) for request in server.requests] == [True] * 5


def test_p14_no_task_is_left(server: LLMServer, client: Client) -> None:
    """After a whole answer, one that was left and one that was awaited, the loop's only task is its first."""
    server.script(Reply(PIECES), STALLED, Reply(PIECES))

    async def main() -> int:
        assert [piece async for piece in client.chat("x")] == PIECES
        async for _ in client.chat("x"):
            break
        await client.chat("x")
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1


@pytest.mark.slow
def test_p16_a_slow_loop_slows_the_server(mode: Mode) -> None:
    """While the loop's body rests, the server's sends stop; the rest arrives afterwards."""
    text, count, sent, stands = "x" * 65_536, 400, [0], threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(HEADS["chunked"])
        sock.settimeout(0.2)
        for _ in range(count):
            left = memoryview(chunk(event(text)))
            while left:
                try:
                    left = left[sock.send(left) :]
                except TimeoutError:
                    stands.set()
            sent[0] += 1
        sock.sendall(chunk(END) + b"0\r\n\r\n")

    seen: list[int] = []

    def body(piece: str) -> None:
        if len(seen) == 20:  # not the first one: before that the call is being opened
            stands.clear()
            assert stands.wait(30)
        seen.append(sent[0])
        assert piece == text

    with Listener(serve) as listener, Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}/v1") as client:
        mode.each(client.chat("x"), body)
    assert seen[20] < count * 0.8
    assert len(seen) == count


@pytest.mark.slow
def test_p17_calls_at_once_do_not_mix_and_keep_no_cookies(server: LLMServer, client: Client, mode: Mode) -> None:
    """200 questions of different lengths over one client, each with its own answer; no cookie comes back."""

    def echo(received: Any) -> Reply:
        question = received.json["messages"][0]["content"]
        return Reply([question, received.header("X-Number")], headers={"Set-Cookie": "session=1; Path=/"})

    server.default = echo
    questions = [f"{number} " * (number + 1) for number in range(200)]
    streams = [client.chat(one, headers={"X-Number": str(len(one))}) for one in questions]
    assert mode.at_once(streams) == [[one, str(len(one))] for one in questions]
    assert mode.read(client.chat("x", headers={"X-Number": "last"})).pieces == ["x", "last"]
    assert not any(request.header("Cookie") for request in server.requests)


_FORKS = """
import os, sys
from llmbridge import Client
client = Client("openai:m", base_url=sys.argv[1], retries=0, timeout=20)
assert client.chat("x").complete().text
child = os.fork()
if not child:
    assert client.chat("x").complete().text
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert client.chat("x").complete().text
client.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no os.fork here")
def test_p17_a_child_does_not_use_its_parents_connection(server: LLMServer) -> None:
    """A connection kept before the fork is used only by the parent; the child makes one of its own."""
    command = [sys.executable, "-W", "ignore", "-c", _FORKS, server.base_url("openai")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (run.returncode, run.stderr) == (0, "")
    assert [request.connection for request in server.requests] == [1, 2, 1]


# -- security ---------------------------------------------------------------------------------------------------------


def test_p19_keys_are_stripped_or_refused_unquoted(
    server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an argument and from the environment; a header as well."""
    options = {"base_url": server.base_url("openai"), "retries": 0}
    monkeypatch.setenv("OPENAI_API_KEY", f"\t{KEY} \n")
    for key in ({"api_key": f" {KEY}\r\n"}, {}):
        with Client("openai:m", **options, **key) as client:
            assert mode.read(client.chat("x", headers={"X-A": " b "})).error is None
    assert [request.header("Authorization") for request in server.requests] == [f"Bearer {KEY}"] * 2
    assert server.requests[0].header("X-A") == "b"
    for bad in ("\n", "\r", "\0", "é", "\x7f"):
        for bad_one in ({"api_key": f"{KEY}{bad}b"}, {"headers": {"X-Api-Key": f"{KEY}{bad}b"}}):
            with pytest.raises(ConfigError) as caught:
                mode.of_class(Vitalentum, base_url=server.root, **bad_one)
            assert KEY not in str(caught.value)
    assert len(server.requests) == 2


def test_p20_redirects_are_errors(server: LLMServer, client: Client, mode: Mode) -> None:
    """The other host is named, and sees no connection; a redirect on the same host is not followed either."""
    with LLMServer(Reply("You followed me")) as other:
        for status in (301, 302, 303, 307, 308):
            server.script(Reply("x", status=status, headers={"Location": f"{other.root}/v1/chat/completions"}))
            outcome = mode.read(client.chat("x"))
            assert not outcome.pieces
            assert type(outcome.error) is StatusError
            assert other.root.partition("//")[2] in str(outcome.error)
        assert other.connections == 0
    server.script(Reply("x", status=307, headers={"Location": "/v1/chat/completions"}))
    assert type(mode.read(client.chat("x")).error) is StatusError
    assert len(server.requests) == 6


def test_p21_netrc_and_proxies_of_the_environment(
    server: LLMServer, client: Client, mode: Mode, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """netrc replaces no key; the proxy is used, NO_PROXY and proxy=False are obeyed, a dead proxy is an error."""
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password pw\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        assert mode.read(client.chat("x")).error is None
        assert len(proxy.seen) == 1
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert mode.read(client.chat("x")).error is None
        monkeypatch.delenv("no_proxy")
        assert mode.read(client.chat("x", proxy=False)).error is None
        assert len(proxy.seen) == 1
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    assert type(mode.read(client.chat("x")).error) is ConnectFailed
    monkeypatch.setenv("http_proxy", "nonsense://127.0.0.1")
    assert type(mode.read(client.chat("x")).error) is ConfigError
    assert [request.header("Authorization") for request in server.requests] == [f"Bearer {KEY}"] * 3


def test_p21_socks_is_an_extra(client: Client, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error names the package to install."""
    import requests.adapters

    def missing(*args: Any, **kwargs: Any) -> Any:
        raise requests.exceptions.InvalidSchema("Missing dependencies for SOCKS support.")

    monkeypatch.setattr(requests.adapters, "SOCKSProxyManager", missing)
    error = mode.read(client.chat("x", proxy=f"socks5h://127.0.0.1:{free_port()}")).error
    assert type(error) is ConfigError
    assert "llmbridge[socks]" in str(error)


def test_p22_tls_is_verified_and_never_stays_off(tls_server: LLMServer, ca_file: str, mode: Mode) -> None:
    """An untrusted certificate is rejected, a CA of `verify=` is trusted, and False holds for its own call."""
    with Client("openai:m", base_url=tls_server.base_url("openai"), retries=0) as client, warnings.catch_warnings():
        warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
        for verify, trusted in ((None, False), (False, True), (None, False), (ca_file, True), (True, False)):
            error = mode.read(client.chat("x", verify=verify)).error
            assert (error is None) == trusted
            assert trusted or type(error) is ConnectFailed
    assert len(tls_server.requests) == 2


def test_p23_what_json_cannot_hold_is_refused(server: LLMServer, client: Client, mode: Mode) -> None:
    """Invalid input is rejected at the call of the class; requests are strict JSON in UTF-8."""
    for value in (float("nan"), float("inf"), "\ud800", {"\ud800": 1}, {1, 2}, 10**5000):
        with pytest.raises(ConfigError):
            mode.of_class(Vitalentum, base_url=server.root, some=value)
    assert server.connections == 0
    text = 'Привет \u2028\0 "\\/" 😀'
    assert mode.read(client.chat(text)).error is None
    body = json.loads(server.requests[0].body.decode("utf-8"), parse_constant=_refuse)
    assert body["messages"][0]["content"] == text


def _refuse(word: str) -> None:
    raise ValueError(word)


@contextlib.contextmanager
def _talkative(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    caplog.set_level(logging.DEBUG)
    yield lambda: "\n".join(f"{record.name} {record.getMessage()}" for record in caplog.records)


def test_p24_logs_hold_sizes_and_times_only(
    server: LLMServer, client: Client, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    """With DEBUG on for all, of a good answer, a retried one and an error: no prompt, no answer, no key."""
    answer = event("the-answer") + b"the-line\n\n" + END
    refusal = Reply("the-reason", status=503, headers={"Retry-After": "0"})
    server.script(Reply(body=answer), refusal, Reply(body=answer), Reply("the-reason", status=400))
    with _talkative(caplog) as log:
        for error in (False, False, True):
            assert (mode.read(client.chat("the-prompt", retries=1)).error is not None) == error
        lines = log()
    assert "llmbridge openai answered 200 after" in lines
    assert "the-" not in lines
    assert KEY not in lines


def test_p18_a_missing_key_is_not_looked_for_elsewhere(mode: Mode) -> None:
    """The error names the variable; a key of another provider is not sent instead."""
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        mode.read(Client("openai:m").chat("x"))


@pytest.mark.parametrize("size", [1, 8 * 1024, 64 * 1024, 128 * 1024, 1024 * 1024])
@pytest.mark.parametrize("transfer", ["chunked", "length", "close"])
def test_p25_what_comes_with_the_headers_is_whole(
    server: LLMServer, client: Client, mode: Mode, transfer: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer of 240 kB that arrives in one go, read through buffers of any size."""
    pieces = [f"{number:05d} " for number in range(2_000)]
    events = [event(piece, padding="x" * 60) for piece in pieces]
    body = b"".join(map(chunk, [*events, END])) + chunk(b"") if transfer == "chunked" else b"".join(events) + END
    assert len(body) > 240_000
    heads = {**HEADS, "length": head(f"Content-Length: {len(body)}")}
    server.script(Reply(raw=[heads[transfer] + body, CLOSE]))
    makefile = socket.socket.makefile

    def buffered(sock: socket.socket, mode: str = "r", *args: Any, **more: Any) -> Any:
        if mode != "rb":
            return makefile(sock, mode, *args, **more)
        time.sleep(0.05)  # all of it has arrived by then, most likely: only so does a large buffer hold a lot
        return makefile(sock, mode, buffering=size)

    monkeypatch.setattr(socket.socket, "makefile", buffered)
    assert mode.read(client.chat("x", timeout=20)) == Outcome(pieces, None)


def test_p25_a_length_that_was_not_fulfilled_is_an_error(server: LLMServer, client: Client, mode: Mode) -> None:
    """One missing byte of the promised length is enough, also in a document, and after the end mark."""
    whole = b'{"choices":[{"index":0,"message":{"content":"a"},"finish_reason":"stop"}]}'
    for body, pieces in ((event("a") + event("b"), ["a", "b"]), (event("a") + END, ["a"]), (whole, [])):
        for missing in (1, 70_000):
            server.script(Reply(raw=[head(f"Content-Length: {len(body) + missing}") + body, CLOSE]))
            outcome = mode.read(client.chat("x"))
            assert (outcome.pieces, type(outcome.error)) == (pieces, StreamTruncated)
