"""P13: which failures are retried, how often, and after how long; and which never are."""

from __future__ import annotations

import contextlib
import email.utils
import gc
import json
import socket
import ssl
import struct
import threading
import time
import weakref
from typing import Any

import pytest
import requests
from conftest import KEY
from loopback import Listener, Proxy, event, free_port, head, read_head
from modes import MODES, Async, Mode

from llmbridge import (
    AuthError,
    BadRequest,
    Cancelled,
    ChatStream,
    Client,
    ClockExpired,
    ConnectFailed,
    LLMBridgeError,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    Retry,
    RetryAttempt,
    ServerError,
    ServiceError,
    StatusError,
    StreamError,
    StreamTruncated,
    Timeout,
    Usage,
)
from llmbridge._transport import body as transport_body
from llmbridge._transport import connections
from llmbridge._transport.call import Call
from llmbridge._transport.failures import Failure, mapped
from llmbridge.testing import CLOSE, LLMServer, Reply

QUICK = Retry(2, backoff=0.01, max_backoff=0.02)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_p13_passing_statuses_are_repeated(server: LLMServer, client: Client, status: int) -> None:
    """Two passing failures are hidden from the caller."""
    server.script(Reply(status=status), Reply(status=status), Reply("ok"))
    assert client.chat("x", retries=QUICK).complete().text == "ok"
    assert len(server.requests) == 3
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 418, 422, 302, 307])
def test_p13_final_statuses_are_not(server: LLMServer, client: Client, status: int) -> None:
    """Final statuses are raised at once."""
    server.default = Reply(status=status, headers={"Location": "http://example.org"} if status < 400 else None)
    with pytest.raises(ServiceError):
        list(client.chat("x", retries=QUICK))
    assert len(server.requests) == 1


@pytest.mark.parametrize("attempts", [0, 1, 2, 4])
def test_p13_repetitions_are_counted(server: LLMServer, client: Client, attempts: int) -> None:
    """After the last retry the error itself is raised."""
    server.default = Reply(status=503)
    with pytest.raises(Overloaded):
        list(client.chat("x", retries=Retry(attempts, backoff=0.01)))
    assert len(server.requests) == attempts + 1


def test_p13_two_repetitions_are_the_default(server: LLMServer) -> None:
    """The default is two retries."""
    server.default = Reply(status=500, headers={"retry-after-ms": "1"})
    with Client("openai:m", base_url=server.base_url("openai")) as client, pytest.raises(ServerError):
        list(client.chat("x"))
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, {"code": "insufficient_quota", "message": "m"}),
        (429, {"type": "insufficient_quota", "message": "m"}),
        (503, {"code": "billing_hard_limit_reached", "message": "m"}),
        (500, {"code": "context_length_exceeded", "message": "m"}),
        (500, {"code": "invalid_api_key", "message": "m"}),
    ],
)
def test_p13_a_code_that_is_final_is_not_repeated(
    server: LLMServer, client: Client, status: int, error: dict[str, Any]
) -> None:
    """A retryable status is final if its code says so: no credit, too long a prompt, a wrong key."""
    server.default = Reply(status=status, error=error, headers={"Retry-After": "0"})
    with pytest.raises(StatusError) as caught:
        list(client.chat("x", retries=QUICK))
    assert len(server.requests) == 1
    assert not caught.value.retryable
    if "quota" in json.dumps(error):
        assert type(caught.value) is QuotaExceeded


@pytest.mark.parametrize(("asked", "status", "requests"), [("true", 400, 3), ("false", 500, 1), ("FALSE", 429, 1)])
def test_p13_the_servers_own_word_wins(
    server: LLMServer, client: Client, asked: str, status: int, requests: int
) -> None:
    """`x-should-retry` decides if it is sent."""
    server.default = Reply(status=status, headers={"X-Should-Retry": asked})
    with pytest.raises(ServiceError):
        list(client.chat("x", retries=QUICK))
    assert len(server.requests) == requests


def waited(server: LLMServer, client: Client, headers: dict[str, str], retry: Retry) -> float:
    """Seconds between a failure with these headers and the retry."""
    server.script(Reply(status=429, headers=headers), Reply("ok"))
    started = time.monotonic()
    assert client.chat("x", retries=retry).complete().text == "ok"
    return time.monotonic() - started


SLOW = Retry(1, backoff=30, max_backoff=30)


@pytest.mark.slow
@pytest.mark.parametrize(
    "headers",
    [
        {"retry-after-ms": "300"},
        {"Retry-After": "0.3"},
        {"retry-after-ms": "300", "Retry-After": "60"},
        {"retry-after-ms": "soon", "Retry-After": "0.3"},
    ],
)
def test_p13_the_wait_that_is_asked_for(server: LLMServer, client: Client, headers: dict[str, str]) -> None:
    """Milliseconds override seconds, and both override the caller's backoff."""
    assert 0.28 < waited(server, client, headers, SLOW) < 4


@pytest.mark.slow
def test_p13_the_wait_may_be_a_date(server: LLMServer, client: Client) -> None:
    """A date is waited for, a past one not at all."""
    past = email.utils.formatdate(time.time() - 100, usegmt=True)
    assert waited(server, client, {"Retry-After": past}, SLOW) < 3
    soon = email.utils.formatdate(time.time() + 2, usegmt=True)
    assert 0.5 < waited(server, client, {"Retry-After": soon}, SLOW) < 5


@pytest.mark.slow
@pytest.mark.parametrize("value", ["soon", "-3", "nan", "inf", "", "Mon, 99 Foo 2026", "1 2"])
def test_p13_garbage_falls_back_to_the_backoff(server: LLMServer, client: Client, value: str) -> None:
    """An unreadable Retry-After is ignored."""
    retry = Retry(1, backoff=0.3)
    assert 0.2 < waited(server, client, {"Retry-After": value}, retry) < 3


def test_p13_too_long_a_wait_is_not_begun(server: LLMServer, client: Client) -> None:
    """A longer wait than the caller allows is an error at once, with the service's time."""
    server.default = Reply(status=429, headers={"Retry-After": "121"})
    with pytest.raises(RateLimited) as caught:
        list(client.chat("x", retries=2))
    assert caught.value.retry_after == 121
    assert len(server.requests) == 1


def test_p13_backoff_doubles_up_to_its_limit_and_is_jittered() -> None:
    """Waits grow from retry to retry, never exceed the limit, and differ."""
    retry = Retry(10, backoff=1, max_backoff=5)
    waits = [[retry.wait(attempt, None) or 0 for _ in range(50)] for attempt in range(5)]
    for wanted, got in zip((1, 2, 4, 5, 5), waits, strict=True):
        assert all(wanted * 0.75 <= wait <= wanted for wait in got)
        assert len(set(got)) > 1
    assert retry.wait(10, None) is None


def test_p13_a_refused_connection_is_repeated() -> None:
    """A server that comes up a moment later is reached."""
    port = free_port()
    started = threading.Event()

    def come_up() -> None:
        time.sleep(0.2)
        with LLMServer(Reply("ok"), port=port):
            started.set()
            done.wait(10)

    done = threading.Event()
    thread = threading.Thread(target=come_up)
    thread.start()
    retry = Retry(60, backoff=0.05, max_backoff=0.1)
    try:
        with Client("openai:m", base_url=f"http://127.0.0.1:{port}/v1", retries=retry) as client:
            assert client.chat("x").complete().text == "ok"
    finally:
        done.set()
        thread.join()
    assert started.is_set()


def test_p13_connections_are_tried_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two retries are three lookups of the name."""
    asked = []

    def unknown(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Client("openai:m", base_url="http://nowhere.test", retries=QUICK) as client, pytest.raises(ConnectFailed):
        list(client.chat("x"))
    assert asked == ["nowhere.test"] * 3


def test_p13_a_certificate_that_is_not_trusted_is_final(tls_server: LLMServer) -> None:
    """A permanent failure to connect is not retried."""
    with (
        Client("openai:m", base_url=tls_server.base_url("openai"), retries=QUICK) as client,
        pytest.raises(ConnectFailed),
    ):
        list(client.chat("x"))
    assert tls_server.connections == 1


@pytest.mark.parametrize("begun", [b"", b"HTTP/1.1 200 OK\r\nContent-"])
def test_p13_a_record_of_tls_that_is_broken_behind_the_request_is_not_repeated(
    mode: Mode, begun: bytes, tls_context: Any, ca_file: str
) -> None:
    """The service has the request by then, so this is not a failure to connect, although TLS fails."""

    def serve(sock: socket.socket) -> None:
        raw = sock.dup()
        with tls_context.wrap_socket(sock, server_side=True) as tls, raw:
            read_head(tls)
            tls.sendall(begun)
            raw.sendall(b"\x17\x03\x03\x00\x20" + b"?" * 32)
            raw.recv(100)

    with (
        Listener(serve) as listener,
        Client(
            "openai:m", base_url=f"https://127.0.0.1:{listener.port}", verify=ca_file, retries=QUICK, timeout=20
        ) as client,
    ):
        error = mode.read(client.chat("x")).error
        assert type(error) is StreamTruncated
        assert "TLS" in error.message
        assert listener.accepted == 1


@pytest.mark.parametrize("coding", ["br", "zstd"])
def test_p13_a_status_counts_though_its_body_is_compressed_unasked(
    server: LLMServer, client: Client, mode: Mode, coding: str
) -> None:
    """Only the retryable status counts, not the page after it."""
    page = b"\x8b\x03\x80\xff\x00"
    failed = head(f"Content-Encoding: {coding}", f"Content-Length: {len(page)}", status="503 Unavailable")
    server.script(Reply(raw=[failed, page]), Reply("ok"), Reply(raw=[failed.replace(b"503", b"401"), page]))
    assert mode.complete(client.chat("x", retries=QUICK)).text == "ok"
    error = mode.read(client.chat("x", retries=QUICK)).error
    assert isinstance(error, AuthError)
    assert error.body == ""
    assert len(server.requests) == 3


def test_p13_a_handshake_of_tls_that_fails_is_repeated() -> None:
    """Nothing has been sent before it."""

    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"\x15\x03\x03\x00\x02\x02\x50")  # an alert: internal error

    with (
        Listener(serve) as listener,
        Client("openai:m", base_url=f"https://127.0.0.1:{listener.port}", retries=QUICK, timeout=20) as client,
    ):
        with pytest.raises(ConnectFailed, match="TLS"):
            list(client.chat("x"))
        assert listener.accepted == 3


def test_p13_a_proxy_on_a_port_like_407_is_no_password_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused proxy is retried, whatever digits its address has."""
    for port in range(40700, 40800):
        with socket.socket() as held:
            try:
                held.bind(("127.0.0.1", port))
            except OSError:
                continue
            with (
                Client("openai:m", base_url="http://127.0.0.1:9", retries=0) as client,
                pytest.raises(ConnectFailed) as caught,
            ):
                list(client.chat("x", proxy=f"http://127.0.0.1:{port}"))
            assert caught.value.retryable
            assert "credentials" not in str(caught.value)
            return
    pytest.skip("no such port is free")


def test_p13_a_proxy_that_asks_for_credentials_is_final() -> None:
    """407 on CONNECT is not retried."""
    with Proxy("user:password") as proxy, Client("openai:m", base_url="https://127.0.0.1:9", retries=QUICK) as client:
        with pytest.raises(LLMBridgeError, match="credentials"):
            list(client.chat("x", proxy=f"http://127.0.0.1:{proxy.port}"))
        assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply(["a"], error={"message": "m", "type": "overloaded_error", "code": 503}), Overloaded),
        (Reply(["a"], error={"message": "m"}), StreamError),
        (Reply(["a"], end_mark=False, finish_reason=None), StreamTruncated),
        (Reply(["a"], stall=700), ClockExpired),
    ],
)
def test_p13_nothing_is_repeated_after_the_first_piece(
    server: LLMServer, client: Client, reply: Reply, kind: type[LLMBridgeError]
) -> None:
    """Text that was handed out is never repeated."""
    server.script(reply)
    stream = client.chat("x", retries=QUICK, timeout=Timeout(idle=0.2))
    assert next(stream) == "a"
    with pytest.raises(kind):
        list(stream)
    assert stream.text == "a"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [
        Reply(raw=[CLOSE]),
        Reply(raw=[b"HTTP/1.1 200 OK\r\nX:", CLOSE]),
        Reply(raw=[head("Content-Length: 50"), CLOSE]),
        Reply("x", header_delay=20),
        Reply(body="<html>"),
    ],
)
def test_p13_what_the_server_may_have_worked_on_is_not_repeated(
    server: LLMServer, client: Client, reply: Reply
) -> None:
    """A request that was received, and not rejected, is sent once: it may cost money."""
    server.script(reply)
    with pytest.raises(LLMBridgeError):
        list(client.chat("x", retries=QUICK, timeout=Timeout(first_content=0.3)))
    server.wait_for_requests(1, 20)
    assert len(server.requests) == 1


class Stale:
    """Serves one request per connection, then closes it at the moment when the next request arrives.

    Args:
        fresh: How many requests are answered before none is any more.
    """

    def __init__(self, fresh: int = 100) -> None:
        self.requests: list[int] = []
        self._fresh = fresh
        self._connections = 0

    def __call__(self, sock: socket.socket) -> None:
        """Serves one connection."""
        self._connections += 1
        number = self._connections
        data = event("ok", finish_reason="stop")
        for turn in range(2):
            received = read_head(sock)
            if not received:
                return
            head_, _, body = received.partition(b"\r\n\r\n")
            length = int(head_.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            while len(body) < length:
                body += sock.recv(65536)
            self.requests.append(number)
            if turn or number > self._fresh:
                return
            sock.sendall(head(f"Content-Length: {len(data)}") + data)


@pytest.mark.parametrize(
    ("cause", "broken"),
    [
        (ConnectionResetError(104, "reset"), True),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), True),
        (ssl.SSLZeroReturnError(6, "TLS/SSL connection has been closed"), True),
        (ssl.SSLError(1, "bad record mac"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_p13_what_a_stale_connection_fails_with(cause: OSError, broken: bool) -> None:
    """TLS may find it closed while writing; other errors of TLS do not mean that."""
    error = requests.exceptions.SSLError(cause)
    error.__cause__ = cause
    assert Failure(error, Call(Timeout()), "localhost").broken is broken


def test_p13_the_systems_own_limit_for_connecting_is_no_clock() -> None:
    """The system's timeout has a number; a SOCKS library's timeout without one is the connect timeout."""
    late = mapped(TimeoutError("timed out"), "localhost", connecting=True)
    assert isinstance(late, ClockExpired)
    assert late.clock == "connect"
    assert type(mapped(TimeoutError(110, "Connection timed out"), "localhost", connecting=True)) is ConnectFailed


def test_p13_a_kept_connection_that_went_stale_is_replaced_once() -> None:
    """A kept connection that the server drops at its next use is replaced once, without counting as a retry."""
    serve = Stale()
    with Listener(serve) as listener, Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}") as client:
        for _ in range(3):
            assert client.chat("x", retries=0).complete().text == "ok"
    assert serve.requests == [1, 1, 2, 2, 3]


def test_p13_a_stale_connection_is_replaced_no_second_time() -> None:
    """If the new connection breaks as well, that is the error."""
    serve = Stale(fresh=1)
    with Listener(serve) as listener, Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}") as client:
        assert client.chat("x", retries=0).complete().text == "ok"
        with pytest.raises(StreamTruncated):
            list(client.chat("x", retries=0))
    assert serve.requests == [1, 1, 2]


def test_p13_a_stale_connection_is_replaced_by_a_new_one(monkeypatch: pytest.MonkeyPatch, mode: Mode) -> None:
    """Other kept connections may be stale too: a restarted server has dropped them all."""
    put = connections._Idle.put

    def taken_by_another_thread(idle: Any, item: Any, *args: Any, **kwargs: Any) -> None:
        if item is not None:  # urllib3 puts None in the place of the one that broke, and would find that next
            put(idle, item, *args, **kwargs)

    monkeypatch.setattr(connections._Idle, "put", taken_by_another_thread)
    together = threading.Barrier(4)
    stale = Stale()

    def serve(sock: socket.socket) -> None:
        if listener.accepted <= 4:
            together.wait(10)
        stale(sock)

    with Listener(serve) as listener, Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}") as client:
        assert mode.at_once([client.chat("x", retries=0) for _ in range(4)]) == [["ok"]] * 4
        assert listener.accepted == 4
        assert mode.complete(client.chat("x", retries=0)).text == "ok"
        assert listener.accepted == 5


def test_p13_an_answer_that_had_begun_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept connection that is reset right after the headers of an answer is not stale: that is the error."""
    asked: list[bytes] = []
    begun, was_reset = threading.Event(), threading.Event()
    data = event("ok", finish_reason="stop")
    read_ahead = transport_body.WireBody._read_ahead

    def late(*args: Any) -> bytes:
        if len(asked) == 2:
            begun.set()
            assert was_reset.wait(30)
            time.sleep(0.02)
        return read_ahead(*args)

    def serve(sock: socket.socket) -> None:
        while received := read_head(sock):
            asked.append(received)
            if len(asked) == 2:
                sock.sendall(head("Transfer-Encoding: chunked"))
                assert begun.wait(30)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                was_reset.set()
                return
            sock.sendall(head(f"Content-Length: {len(data)}") + data)

    monkeypatch.setattr(transport_body.WireBody, "_read_ahead", late)
    with Listener(serve) as listener, Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}") as client:
        assert client.chat("x", retries=0).complete().text == "ok"
        with pytest.raises(StreamTruncated):
            list(client.chat("x", retries=0))
    assert len(asked) == 2


@pytest.mark.parametrize("begun", [b"HTTP/1.1 20", head()[:-9], b"HTTP/1.1 102 Processing\r\n\r\n"])
@pytest.mark.parametrize("reset", [False, True])
def test_p13_an_answer_whose_headers_had_begun_is_not_asked_for_again(mode: Mode, begun: bytes, reset: bool) -> None:
    """Nor is one that ends inside the headers, over a kept connection: the service has got the request."""
    asked: list[bytes] = []
    data = event("ok", finish_reason="stop")

    def serve(sock: socket.socket) -> None:
        while received := read_head(sock):
            asked.append(received)
            if len(asked) == 2:
                sock.sendall(begun)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))
                return
            sock.sendall(head(f"Content-Length: {len(data)}") + data)

    with Listener(serve) as listener, Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}") as client:
        assert mode.complete(client.chat("x", retries=0)).text == "ok"
        with pytest.raises(StreamTruncated, match="in the middle of the answer's headers"):
            mode.complete(client.chat("x", retries=0))
    assert len(asked) == 2


@pytest.mark.parametrize("kept", [False, True])
def test_p13_an_early_answer_over_tls_is_the_answer(mode: Mode, tls_context: Any, ca_file: str, kept: bool) -> None:
    """A server that rejects a request and closes the connection while it is sent, as many do, is not asked again."""
    asked: list[bytes] = []
    data = event("ok", finish_reason="stop")

    def serve(raw: socket.socket) -> None:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # closing would discard an answer that still waits
        with tls_context.wrap_socket(raw, server_side=True) as sock:
            while received := read_head(sock):
                asked.append(received)
                if len(asked) > kept:
                    sock.sendall(head("Content-Length: 0", status="413 Content Too Large"))
                    return
                sock.sendall(head(f"Content-Length: {len(data)}") + data)

    with Listener(serve) as listener:
        base_url = f"https://127.0.0.1:{listener.port}"
        with Client("openai:m", base_url=base_url, retries=0, verify=ca_file) as client:
            if kept:
                assert mode.complete(client.chat("x")).text == "ok"
            with pytest.raises(BadRequest):
                mode.complete(client.chat("x" * 10_000_000))
    assert len(asked) == 1 + kept


def test_p13_a_late_name_lookup_of_an_earlier_attempt_harms_nothing(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup that ends after its attempt does not wake the next one, which waits for its own."""
    real = socket.getaddrinfo
    lookups: list[threading.Thread] = []
    second = threading.Event()

    def lookup(_: str, *rest: Any, **more: Any) -> Any:
        lookups.append(threading.current_thread())
        if len(lookups) == 1:
            assert second.wait(20)
        elif len(lookups) == 2:
            second.set()
            lookups[0].join(20)
            time.sleep(0.05)
        return real("127.0.0.1", *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    base_url = server.base_url("openai").replace("127.0.0.1", "some.test")
    retries = Retry(5, backoff=0.01, max_backoff=0.01)  # of which one is needed, unless the machine is very busy
    with Client("openai:m", base_url=base_url, timeout=Timeout(connect=0.4), retries=retries) as client:
        assert client.chat("x").complete().text
    assert len(lookups) >= 2


def test_p13_a_connection_closed_while_idle_is_noticed(server: LLMServer, client: Client) -> None:
    """A kept connection that the server closes meanwhile causes no error."""
    data = event("ok", finish_reason="stop")
    server.default = Reply(raw=[head(f"Content-Length: {len(data)}") + data, CLOSE])
    for _ in range(5):
        assert client.chat("x", retries=0).complete().text == "ok"
        time.sleep(0.02)
    assert len(server.requests) == 5


# -- the policy object, wherever a call runs ---------------------------------------------------------------------


OVERLOADED = {"message": "busy", "type": "overloaded_error", "code": 503}


def test_p13_the_callers_statuses_take_the_place_of_the_rule(server: LLMServer, client: Client, mode: Mode) -> None:
    """The caller's statuses are retried, and the rule's other ones are not."""
    policy = Retry(2, backoff=0.01, statuses=[418])
    server.script(Reply(status=418), Reply(status=418), Reply("ok"))
    assert mode.complete(client.chat("x", retries=policy)).text == "ok"
    server.script(Reply(status=500))
    assert type(mode.read(client.chat("x", retries=policy)).error) is ServerError
    assert len(server.requests) == 4


def test_p13_no_status_of_the_caller_makes_an_empty_account_worth_a_retry(server: LLMServer, client: Client) -> None:
    """Permanent failures are not retried with any statuses; failed connections are, even without any."""
    server.script(Reply(status=429, error={"code": "insufficient_quota", "message": "m"}))
    assert type(MODES["sync"].read(client.chat("x", retries=Retry(2, statuses=[429]))).error) is QuotaExceeded
    assert len(server.requests) == 1
    seen: list[RetryAttempt] = []
    policy = Retry(2, backoff=0.01, statuses=[429], on_retry=seen.append)
    with Client("openai:m", base_url=f"http://127.0.0.1:{free_port()}", retries=policy) as nobody:
        assert type(MODES["sync"].read(nobody.chat("x")).error) is ConnectFailed
    assert len(seen) == 2


def test_p13_each_wait_is_announced_in_the_thread_that_waits(server: LLMServer, client: Client, mode: Mode) -> None:
    """`on_retry` is called before each wait; the event loop's own thread never waits."""
    seen: list[tuple[int, float, type, int, bool]] = []

    def note(attempt: RetryAttempt) -> None:
        here = threading.current_thread() is threading.main_thread()
        seen.append((attempt.number, attempt.wait, type(attempt.error), len(server.requests), here))
        assert attempt.error.provider == "openai"
        assert attempt.error.__traceback__ is None

    server.script(Reply(status=429), Reply(error=OVERLOADED, first_delay=0.05), Reply(status=503), Reply("ok"))
    policy = Retry(3, backoff=0.01, jitter=0, on_retry=note)
    assert mode.read(client.chat("x", retries=policy)).pieces == ["ok"]
    here = not isinstance(mode, Async)
    assert seen == [
        (1, 0.01, RateLimited, 1, here),
        (2, 0.02, Overloaded, 2, here),
        (3, 0.04, Overloaded, 3, here),
    ]


def test_p13_jitter_shortens_the_backoff_and_nothing_else(server: LLMServer, client: Client) -> None:
    """With jitter 1 the waits differ and stay below the backoff; the service's waits are never shortened."""
    seen: list[RetryAttempt] = []
    policy = Retry(9, backoff=0.01, max_backoff=0.01, jitter=1, on_retry=seen.append)
    server.script(*[Reply(status=503)] * 8, Reply(status=503, headers={"retry-after-ms": "15"}), Reply("ok"))
    assert client.chat("x", retries=policy).complete().text == "ok"
    waits = [attempt.wait for attempt in seen]
    assert waits[8] >= 0.015
    assert len(set(waits)) == 9
    assert all(wait <= 0.01 for wait in waits[:8])


@pytest.mark.slow
@pytest.mark.parametrize("in_stream", [False, True])
def test_p13_what_on_retry_raises_ends_the_call(server: LLMServer, client: Client, mode: Mode, in_stream: bool) -> None:
    """The caller's own exception comes out unchanged; nothing more is sent, nor left open."""

    def stop(_: RetryAttempt) -> None:
        raise LookupError("enough")

    server.script(Reply(error=OVERLOADED, keep_open=True) if in_stream else Reply(status=503))
    stream = client.chat("x", retries=Retry(2, backoff=0.01, on_retry=stop))
    with pytest.raises(LookupError, match="enough") as caught:
        mode.read(stream)
    assert caught.value.__context__ is None
    assert len(server.requests) == 1
    assert not in_stream or server.requests[0].gone.wait(30)
    assert "closed" in repr(stream)


def test_p13_a_call_that_is_cancelled_in_on_retry_does_not_wait(server: LLMServer, client: Client, mode: Mode) -> None:
    """`cancel()` and `close()` in the callback end the call without the wait."""
    server.default = Reply(status=503)
    for end in ("cancel", "close"):
        streams: list[ChatStream] = []
        policy = Retry(2, backoff=60, on_retry=lambda _, end=end, streams=streams: getattr(streams[0], end)())
        streams.append(client.chat("x", retries=policy))
        assert type(mode.read(streams[0]).error) is Cancelled
    assert len(server.requests) == 2


def _info(delay: str) -> dict[str, Any]:
    retry_info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay}
    return {"error": {"code": 429, "message": "slow", "status": "RESOURCE_EXHAUSTED", "details": [retry_info]}}


@pytest.mark.parametrize(
    ("provider", "reply"),
    [
        ("gemini", Reply(body=json.dumps(_info("0.03s")), status=429)),
        ("gemini", Reply(body=json.dumps(_info("0.030000000s")), status=503)),
        ("openai", Reply("Rate limit reached. Please try again in 30ms.", status=429)),
        ("openai", Reply("Please retry after 0.03 seconds.", status=429)),
        ("anthropic", Reply("slow down", status=529, headers={"retry-after": "0.03"})),
        ("openai", Reply("x", status=429, headers={"llm_provider-retry-after": "0.03"})),
        ("openai", Reply("x", status=429, headers={"llm_provider-retry-after-ms": "30"})),
        (
            "openai",
            Reply("x", status=429, headers={"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "30ms"}),
        ),
        ("openai", Reply(error={"message": "Please try again in 30ms.", "code": "rate_limit_exceeded"})),
    ],
)
def test_p13_the_wait_that_is_asked_for_wherever_it_hides(server: LLMServer, provider: str, reply: Reply) -> None:
    """Details, words, headers of a gateway or of the limits, errors in the stream: each wait is found."""
    seen: list[float] = []
    policy = Retry(1, backoff=30, on_retry=lambda attempt: seen.append(round(attempt.wait, 6)))
    server.script(reply, Reply("ok"))
    with Client(f"{provider}:m", base_url=server.base_url(provider), api_key=KEY, retries=policy) as client:
        assert client.chat("x").complete().text == "ok"
    assert 0.03 <= seen[0] <= 0.0375


# -- errors inside the stream ------------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_p13_an_error_in_the_stream_before_the_first_piece_is_repeated(
    server: LLMServer, mode: Mode, provider: str
) -> None:
    """A service that reports overload after its 200 gets a retry; a Usage alone is not a piece."""
    usage = {"prompt_tokens": 77, "completion_tokens": 1} if provider == "openai" else {"input_tokens": 77}
    broken = Reply(error=OVERLOADED, usage=usage, first_delay=0.02)
    server.script(broken, broken, Reply(["o", "k"], usage=True))
    with Client(f"{provider}:m", base_url=server.base_url(provider), api_key=KEY, retries=QUICK) as client:
        stream = client.chat("x")
        events: list[Any] = []
        mode.each(stream.events(), events.append)
    assert stream.text == "ok"
    assert len(server.requests) == 3
    assert 77 not in [event.input_tokens for event in events if isinstance(event, Usage)]
    assert stream.usage is not None
    assert stream.usage.input_tokens != 77


def test_p13_usage_that_came_apart_from_its_error_is_not_handed_out() -> None:
    """Tokens counted in a read before the error are dropped: only the final answer is seen."""
    asked: list[bytes] = []
    counted = b'data: {"choices": [], "usage": {"prompt_tokens": 77, "completion_tokens": 0}}\n\n'

    def serve(sock: socket.socket) -> None:
        while received := read_head(sock):
            asked.append(received)
            if len(asked) == 2:
                data = event("ok", finish_reason="stop")
                sock.sendall(head(f"Content-Length: {len(data)}") + data)
                continue
            sock.sendall(head("Connection: close") + counted)
            time.sleep(0.05)
            sock.sendall(b'data: {"error": {"message": "busy", "code": "overloaded"}}\n\n')
            return

    with (
        Listener(serve) as listener,
        Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}", retries=QUICK) as client,
    ):
        completion = client.chat("x").complete()
    assert (completion.text, completion.usage) == ("ok", None)
    assert len(asked) == 2


def test_p13_counted_tokens_of_an_empty_answer_are_handed_out(server: LLMServer, client: Client, mode: Mode) -> None:
    """Held-back items come at the end even without a piece."""
    server.script(Reply(finish_reason=None, usage={"prompt_tokens": 7, "completion_tokens": 0}))
    assert mode.read(stream := client.chat("x", stream_options={"include_usage": True})).error is None
    assert stream.usage is not None
    assert stream.usage.input_tokens == 7


def test_p13_an_error_in_the_stream_after_a_piece_is_never_repeated(
    server: LLMServer, client: Client, mode: Mode
) -> None:
    """Also if only a piece of reasoning was handed out."""
    for reply in (Reply(["a"], error=OVERLOADED), Reply(reasoning=["a"], error=OVERLOADED)):
        server.script(reply)
        before = len(server.requests)
        stream = client.chat("x", retries=QUICK)
        events: list[Any] = []
        with pytest.raises(Overloaded):
            mode.each(stream.events(), events.append)
        assert len(server.requests) == before + 1
        assert stream.text + stream.reasoning == "a"


def test_p13_errors_in_the_stream_count_as_the_others_do(server: LLMServer, client: Client, mode: Mode) -> None:
    """Statuses and errors in the stream share one count of retries."""
    server.default = Reply(status=500)
    server.script(Reply(error=OVERLOADED), Reply(status=503), Reply(error=OVERLOADED))
    assert type(mode.read(client.chat("x", retries=QUICK)).error) is Overloaded
    assert len(server.requests) == 3


# -- the total timeout -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", [Reply(status=503), Reply(error=OVERLOADED)])
def test_p13_a_wait_that_the_total_leaves_no_time_for_is_not_begun(
    server: LLMServer, client: Client, mode: Mode, reply: Reply
) -> None:
    """The error comes at once, with the failure as its cause, and without a call of `on_retry`."""
    seen: list[RetryAttempt] = []
    server.default = reply
    stream = client.chat("x", timeout=30, retries=Retry(3, backoff=60, max_backoff=60, on_retry=seen.append))
    started = time.monotonic()
    error = mode.read(stream).error
    assert time.monotonic() - started < 20
    assert isinstance(error, ClockExpired)
    assert error.clock == "total"
    assert "leaves no time to wait" in error.message
    assert type(error.__cause__) is Overloaded
    assert error.__cause__.message in error.message
    assert (len(server.requests), seen) == (1, [])


@pytest.mark.slow
def test_p13_the_total_covers_all_attempts(server: LLMServer, client: Client, mode: Mode) -> None:
    """Attempts that each take a while end with the timeout, not with their number."""
    server.default = Reply(status=503, header_delay=0.1)
    started = time.monotonic()
    error = mode.read(client.chat("x", timeout=0.5, retries=Retry(1000, backoff=0.001))).error
    assert 0.3 < time.monotonic() - started < 20
    assert isinstance(error, ClockExpired)
    assert error.clock == "total"
    assert 2 <= len(server.requests) <= 6


def test_p13_a_stale_connection_is_replaced_for_free_everywhere(mode: Mode) -> None:
    """Also in an event loop, and it does not count as a retry: `on_retry` is not called."""
    serve = Stale()
    seen: list[RetryAttempt] = []
    policy = Retry(0, on_retry=seen.append)
    with (
        Listener(serve) as listener,
        Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}", retries=policy) as client,
    ):
        assert mode.in_turn([client.chat("x") for _ in range(3)]) == [["ok"]] * 3
    assert serve.requests == [1, 1, 2, 2, 3]
    assert seen == []


def test_p13_a_request_id_is_that_of_its_own_attempt(server: LLMServer, client: Client) -> None:
    """An attempt without an answer does not have the id of the one before."""
    server.script(Reply(status=503, headers={"x-request-id": "r-1"}, transfer="close"), Reply(raw=[CLOSE]))
    stream = client.chat("x", retries=QUICK)
    with pytest.raises(StreamTruncated) as caught:
        list(stream)
    assert caught.value.request_id is None
    assert (stream.request_id, stream.headers) == (None, {})


def stop_it(_: RetryAttempt) -> None:
    """An `on_retry` that ends the call."""
    raise LookupError("enough")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("replies", "retry"),
    [
        ([Reply(status=503), Reply("ok")], QUICK),
        ([Reply(status=503), Reply(status=401)], QUICK),
        ([Reply(error=OVERLOADED), Reply(error=OVERLOADED), Reply(status=503)], QUICK),
        ([Reply(status=503)], Retry(1, backoff=60, max_backoff=60)),
        ([Reply(status=503)], Retry(1, on_retry=stop_it)),
        ([Reply(status=503), Reply("text", error=OVERLOADED)], QUICK),
    ],
)
def test_p14_a_call_that_was_repeated_needs_no_garbage_collector(
    server: LLMServer, client: Client, replies: list[Reply], retry: Retry
) -> None:
    """Neither the call nor its errors form a cycle: they are freed with their last name."""
    server.script(*replies)
    gc.collect()
    gc.disable()
    try:
        stream = client.chat("x", retries=retry, timeout=20)
        left = weakref.ref(stream._source)
        with contextlib.suppress(LLMBridgeError, LookupError):
            list(stream)
        del stream
        assert left() is None
    finally:
        gc.enable()
