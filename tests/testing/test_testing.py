"""The loopback server: its life, its connections, and what it records of its clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from llmbridge.testing import CLOSE, HOLD, RESET, LLMServer, Received, Reply

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Grüße"}], "stream": True}
BODY = json.dumps(CHAT).encode()
REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
SOON = 30.0


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = {thread for thread in threading.enumerate() if thread.name.startswith("llmbridge-testing")} - before
    assert not left


def connect(server: LLMServer) -> socket.socket:
    """A raw connection to the server."""
    return socket.create_connection(("127.0.0.1", int(server.root.rpartition(":")[2])), timeout=SOON)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the server closes."""
    return b"".join(iter(lambda: sock.recv(65536), b""))


def read_until(sock: socket.socket, mark: bytes) -> bytes:
    """Everything up to the read that contains `mark`."""
    got = b""
    while mark not in got:
        data = sock.recv(65536)
        assert data, f"the server closed before {mark!r}: {got!r}"
        got += data
    return got


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether the condition becomes true soon."""
    end = time.monotonic() + SOON
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.005)
    return False


def test_requests_are_kept_as_they_were_sent(server: LLMServer) -> None:
    """Method, path with query, the headers' order and case, and the body's bytes are unchanged."""
    with connect(server) as sock:
        sock.sendall(
            b"POST /v1/chat/completions?a=1&b HTTP/1.1\r\nhOST: x\r\nX-b: 1\r\nX-A:  two words \r\nX-b: 3\r\n"
            b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
        )
        (received,) = server.wait_for_requests(1)
        assert (received.method, received.path, received.connection) == ("POST", "/v1/chat/completions?a=1&b", 1)
        assert received.headers[:4] == [("hOST", "x"), ("X-b", "1"), ("X-A", "two words"), ("X-b", "3")]
        assert (received.header("host"), received.header("x-B"), received.header("none")) == ("x", "1", None)
        assert (received.body, received.json) == (BODY, CHAT)


def test_a_chunked_request_body_is_put_together(server: LLMServer) -> None:
    """A body in HTTP chunks, with an extension and a trailer, is joined."""
    with connect(server) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")
        sock.sendall(b"5;x=y\r\n" + BODY[:5] + b"\r\n%x\r\n" % len(BODY[5:]) + BODY[5:] + b"\r\n")
        sock.sendall(b"0\r\nTrailer: 1\r\n\r\n")
        assert b"HTTP/1.1 200 OK" in read_all(sock)
    assert server.requests[0].json == CHAT


def test_a_client_that_expects_100_gets_it(server: LLMServer) -> None:
    """A client that waits before sending its body gets a 100 Continue."""
    with connect(server) as sock:
        head, body = REQUEST[: -len(BODY)], BODY
        sock.sendall(head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"))
        assert read_until(sock, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(body)
        assert read_all(sock).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("target", ["http://api.example/v1/chat/completions", "/deep/er/v1/chat/completions?x=/y"])
def test_the_format_is_found_by_the_end_of_the_path(server: LLMServer, target: str) -> None:
    """A prefix, a query, or a full URL as for proxies, does not change the endpoint."""
    with connect(server) as sock:
        sock.sendall(REQUEST.replace(b"/v1/chat/completions", target.encode()))
        assert b"chat.completion.chunk" in read_until(sock, b"[DONE]")
    assert server.requests[0].path == target


@pytest.mark.parametrize(
    "junk",
    [
        b"hello\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : b\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"x" * 1_100_000,
    ],
)
def test_bytes_that_are_not_http_get_a_400_and_do_not_count(server: LLMServer, junk: bytes) -> None:
    """They are rejected, the connection is closed, and the script keeps its answers."""
    with connect(server) as sock:
        sock.sendall(junk)
        assert read_all(sock).startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert server.requests == []


def test_answers_come_in_the_order_of_the_script_and_then_the_default(server: LLMServer) -> None:
    """Each request takes the next scripted answer (also a function), then the default."""
    server.default = Reply("default")
    server.script(Reply("one"), lambda received: Reply(received.header("X-Name") or ""))
    server.script(Reply("three", status=503))
    answers = [requests.post(f"{server.root}/api/chat", json=CHAT, headers={"X-Name": "two"}) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 503, 200, 200]
    for answer, text in zip(answers, ["one", "two", "three", "default", "default"], strict=True):
        assert f'"{text}"' in answer.text


def test_without_a_script_the_answer_names_itself_and_repeats_the_prompt(server: LLMServer) -> None:
    """An unscripted server says that it is a test, and repeats the prompt."""
    text = requests.post(f"{server.base_url('openai')}/chat/completions", json={**CHAT, "stream": False}).json()
    assert text["choices"][0]["message"]["content"].startswith("This is a test answer from llmbridge.testing")
    assert text["choices"][0]["message"]["content"].endswith("Grüße")


def test_a_function_that_fails_is_reported_to_the_client(server: LLMServer) -> None:
    """An answer function that raises, or returns something else, gives a 500 that says so."""

    def fails(received: Received) -> Reply:
        raise RuntimeError("broken in the test")

    server.script(fails, lambda received: "text")  # type: ignore[arg-type,return-value]
    first, second = (requests.post(f"{server.root}/api/chat", json=CHAT) for _ in range(2))
    assert (first.status_code, second.status_code) == (500, 500)
    assert "RuntimeError: broken in the test" in first.text
    assert "str, not Reply" in second.text


@pytest.mark.parametrize("wrong", ["text", 5, None])
def test_an_invalid_answer_is_refused_when_it_is_scripted(server: LLMServer, wrong: object) -> None:
    """The mistake shows where it is made, not in a later request."""
    with pytest.raises(TypeError, match="an answer must be a Reply or a function"):
        server.script(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="an answer must be a Reply or a function"):
        server.default = wrong  # type: ignore[assignment]


def test_base_urls() -> None:
    """Every known format has its base URL; an unknown one is refused with the list of the known ones."""
    with LLMServer() as server:
        assert server.root.startswith("http://127.0.0.1:")
        assert server.base_url("openai") == server.root + "/v1"
        assert server.base_url("vitalentum") == server.base_url("codelinkava") == server.root
        with pytest.raises(ValueError, match="openai, vitalentum, codelinkava"):
            server.base_url("telepathy")


def test_waiting_for_requests_that_do_not_come_says_what_came(server: LLMServer) -> None:
    """The error of a wait that fails lists the requests that came."""
    with pytest.raises(TimeoutError, match=r"expected 1 requests within 0\.01 s; came: none"):
        server.wait_for_requests(1, timeout=0.01)
    requests.get(f"{server.root}/v1/models")
    assert server.wait_for_requests(1)[0].method == "GET"
    with pytest.raises(TimeoutError, match=r"came: GET /v1/models"):
        server.wait_for_requests(2, timeout=0.01)


@pytest.mark.parametrize("transfer", ["chunked", "length"])
def test_a_connection_carries_many_answers(server: LLMServer, transfer: str) -> None:
    """Chunked and length-delimited answers leave the connection open, as the counters show."""
    server.default = Reply(["a", "b"], transfer=transfer)  # type: ignore[arg-type]
    with requests.Session() as session:
        for _ in range(5):
            assert "[DONE]" in session.post(f"{server.base_url('openai')}/chat/completions", json=CHAT).text
        assert (server.connections, server.open_connections) == (1, 1)
        assert [received.connection for received in server.requests] == [1] * 5
        assert not server.requests[-1].gone.is_set()
    assert server.requests[0].gone.wait(SOON)
    assert server.open_connections == 0


def test_requests_sent_ahead_are_answered_in_order(server: LLMServer) -> None:
    """A client that sends two requests at once gets both answers, even if the second came during a pause."""
    server.script(Reply("first", first_delay=0.05), Reply("second", headers={"Connection": "close"}))
    with connect(server) as sock:
        sock.sendall(b"\r\n" + REQUEST + REQUEST)
        got = read_all(sock)
    assert got.index(b'"first"') < got.index(b'"second"')


@pytest.mark.parametrize("reply", [Reply("x", transfer="close"), Reply("x", transfer="http10"), Reply("x")])
@pytest.mark.parametrize("request_line", [b"HTTP/1.1\r\nConnection: Close", b"HTTP/1.0"])
def test_a_client_that_wants_the_connection_closed_gets_it(
    server: LLMServer, reply: Reply, request_line: bytes
) -> None:
    """`Connection: close` and HTTP/1.0 are obeyed, without chunked coding for an HTTP/1.0 client."""
    server.default = reply
    with connect(server) as sock:
        sock.sendall(REQUEST.replace(b"HTTP/1.1", request_line))
        got = read_all(sock)
        assert b"Connection: close\r\n" in got
        assert (b"Transfer-Encoding" in got) == (reply.transfer is None and request_line != b"HTTP/1.0")
        assert eventually(lambda: server.open_connections == 0)
        assert not server.requests[0].gone.is_set()
    assert server.requests[0].gone.wait(SOON)


@pytest.mark.slow
@pytest.mark.parametrize(
    "reply",
    [
        Reply("x", header_delay=60),
        Reply("x", first_delay=60),
        Reply("x", delay=60),
        Reply("x", stall=0),
        Reply("x", stall=10),
        Reply("x", keep_open=True),
        Reply("x"),
        Reply(raw=[HOLD]),
        Reply(raw=[60.0, CLOSE]),
        Reply(body=b"x" * 50_000_000),
    ],
    ids=["headers", "first", "between", "stall0", "stall", "keep_open", "after", "hold", "sleep", "unread"],
)
@pytest.mark.parametrize("how", ["fin", "rst", "half"])
def test_the_server_sees_the_client_leave_whatever_it_is_doing(server: LLMServer, reply: Reply, how: str) -> None:
    """While it sleeps, stalls or waits, a FIN, RST or half-close sets `gone` at once."""
    server.default = reply
    with connect(server) as sock:
        sock.sendall(REQUEST)
        (received,) = server.wait_for_requests(1)
        assert not received.gone.wait(0.02)
        assert server.open_connections == 1
        if how == "half":
            sock.shutdown(socket.SHUT_WR)
            assert received.gone.wait(SOON)
        if how == "rst":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert received.gone.wait(SOON)
    assert eventually(lambda: server.open_connections == 0)


@pytest.mark.parametrize("how", [socket.SHUT_WR, None])
def test_a_client_may_vanish_at_any_moment(server: LLMServer, how: int | None) -> None:
    """Clients that leave after any number of bytes, with or without RST, leave only a closed connection."""
    for sent in range(0, len(REQUEST) + 1, 7):
        with connect(server) as sock:
            sock.sendall(REQUEST[:sent])
            if how is None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            else:
                with contextlib.suppress(OSError):
                    sock.shutdown(how)
    assert eventually(lambda: server.open_connections == 0)
    assert requests.get(f"{server.root}/v1/models").status_code == 200


def test_closing_ends_everything_that_sleeps_stalls_or_waits() -> None:
    """close() does not wait for pauses, stalls, idle or half-sent requests, and may be repeated."""
    server = LLMServer()
    server.script(Reply("x", header_delay=60), Reply("x", stall=0), Reply(raw=[HOLD]), Reply(body=b"x" * 50_000_000))
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(connect(server)) for _ in range(7)]
        for sock in socks[:5]:
            sock.sendall(REQUEST)
        socks[5].sendall(REQUEST[:20])
        server.wait_for_requests(5)
        began = time.monotonic()
        server.close()
        server.close()
        assert time.monotonic() - began < SOON
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        for sock in socks:
            with contextlib.suppress(ConnectionResetError):
                read_all(sock)
    assert not any(received.gone.is_set() for received in server.requests)
    assert "closed" in repr(server)


@pytest.mark.slow
def test_closing_does_not_wait_for_an_answer_function_that_hangs() -> None:
    """close() waits a second for a function that never returns, and no longer."""
    release, entered = threading.Event(), threading.Event()

    def hangs(received: Received) -> Reply:
        entered.set()
        release.wait(120)
        return Reply("late")

    with LLMServer(hangs) as server, connect(server) as sock:
        sock.sendall(REQUEST)
        assert entered.wait(SOON)
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < SOON
        release.set()
        assert eventually(lambda: not any(t.name == "llmbridge-testing" for t in threading.enumerate()))


@pytest.mark.slow
def test_a_thousand_connections_at_once() -> None:
    """A thousand clients are connected and answered at the same time."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2500:
        pytest.skip("too few descriptors allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2500), hard))
    try:
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(socket.socket()) for _ in range(1000)]
            server = stack.enter_context(LLMServer(Reply(["a", "b"], delay=0.2)))
            for sock in socks:
                sock.settimeout(30)
                sock.connect(("127.0.0.1", int(server.root.rpartition(":")[2])))
                sock.sendall(REQUEST)
            server.wait_for_requests(1000, timeout=30)
            assert server.open_connections == 1000
            assert all(b'"b"' in read_until(sock, b"\r\n0\r\n\r\n") for sock in socks)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_server_can_listen_on_a_given_port_and_keep_no_requests() -> None:
    """A taken port is an OSError; with record=False no requests are recorded."""
    with LLMServer(Reply("x"), record=False) as server:
        port = int(server.root.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            LLMServer(port=port)
        assert requests.post(f"{server.root}/api/chat", json=CHAT).ok
        assert server.requests == []
    with LLMServer(port=port) as server:
        assert server.root == f"http://127.0.0.1:{port}"


def test_tls() -> None:
    """With a server-side context it speaks TLS: whole answers, resets, stalls, and clients that leave."""
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    inside, outside = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert("127.0.0.1").configure_cert(inside)
    authority.configure_trust(outside)
    with LLMServer(ssl_context=inside) as server:
        host, port = server.root.removeprefix("https://").split(":")
        server.script(Reply("Hello", headers={"Connection": "close"}), Reply(raw=[RESET]), Reply("x", stall=10))
        client = http.client.HTTPSConnection(host, int(port), context=outside, timeout=SOON)
        client.request("POST", "/v1/chat/completions", BODY)
        assert b"[DONE]" in client.getresponse().read()
        client.request("POST", "/v1/chat/completions", BODY)
        with pytest.raises(ConnectionError):
            client.getresponse()
        client.close()
        client.request("POST", "/v1/chat/completions", BODY)
        response = client.getresponse()
        assert response.read1(10) == b'data: {"id'
        response.close()
        client.close()
        assert server.requests[2].gone.wait(SOON)
        with connect(server) as sock:  # closes without a handshake
            sock.sendall(b"no TLS\r\n\r\n")
        with connect(server), connect(server):  # never begins one
            server.close()


def test_the_standard_library_is_enough() -> None:
    """Importing the package loads none of llmbridge's dependencies, so it does not share their faults."""
    code = "import sys, llmbridge.testing; print({'requests', 'urllib3', 'sseclient', 'anyio'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")
