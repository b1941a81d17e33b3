"""P13: what is repeated, how often, and after how long; and what never is."""

from __future__ import annotations

import email.utils
import json
import socket
import struct
import threading
import time
from typing import Any

import pytest
from loopback import Listener, Proxy, event, free_port, head, read_head

from llmbridge import (
    Client,
    ClockExpired,
    ConnectFailed,
    LLMBridgeError,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    Retry,
    ServerError,
    ServiceError,
    StatusError,
    StreamError,
    StreamTruncated,
    Timeout,
)
from llmbridge._transport import body as transport_body
from llmbridge.testing import CLOSE, LLMServer, Reply

QUICK = Retry(2, backoff=0.01, max_backoff=0.02)


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
def test_p13_passing_statuses_are_repeated(server: LLMServer, client: Client, status: int) -> None:
    """Two failures that may pass are hidden from the caller."""
    server.script(Reply(status=status), Reply(status=status), Reply("ok"))
    assert client.chat("x", retries=QUICK).complete().text == "ok"
    assert len(server.requests) == 3
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 418, 422, 302, 307])
def test_p13_final_statuses_are_not(server: LLMServer, client: Client, status: int) -> None:
    """What waiting does not mend is raised at once."""
    server.default = Reply(status=status, headers={"Location": "http://example.org"} if status < 400 else None)
    with pytest.raises(ServiceError):
        list(client.chat("x", retries=QUICK))
    assert len(server.requests) == 1


@pytest.mark.parametrize("attempts", [0, 1, 2, 4])
def test_p13_repetitions_are_counted(server: LLMServer, client: Client, attempts: int) -> None:
    """After the last repetition the error itself is raised."""
    server.default = Reply(status=503)
    with pytest.raises(Overloaded):
        list(client.chat("x", retries=Retry(attempts, backoff=0.01)))
    assert len(server.requests) == attempts + 1


def test_p13_two_repetitions_are_the_default(server: LLMServer) -> None:
    """Who says nothing gets two."""
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
    """A status that may pass is final if its code says so: no credit, too long a prompt, a wrong key."""
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
    """`x-should-retry` decides where it is sent."""
    server.default = Reply(status=status, headers={"X-Should-Retry": asked})
    with pytest.raises(ServiceError):
        list(client.chat("x", retries=QUICK))
    assert len(server.requests) == requests


def waited(server: LLMServer, client: Client, headers: dict[str, str], retry: Retry) -> float:
    """Seconds between a failure with these headers and the repetition."""
    server.script(Reply(status=429, headers=headers), Reply("ok"))
    started = time.monotonic()
    assert client.chat("x", retries=retry).complete().text == "ok"
    return time.monotonic() - started


SLOW = Retry(1, backoff=30, max_backoff=30)


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
    """Milliseconds win over seconds, and both over the caller's backoff."""
    assert 0.28 < waited(server, client, headers, SLOW) < 4


def test_p13_the_wait_may_be_a_date(server: LLMServer, client: Client) -> None:
    """A date is waited for, one in the past not at all."""
    past = email.utils.formatdate(time.time() - 100, usegmt=True)
    assert waited(server, client, {"Retry-After": past}, SLOW) < 3
    soon = email.utils.formatdate(time.time() + 2, usegmt=True)
    assert 0.5 < waited(server, client, {"Retry-After": soon}, SLOW) < 5


@pytest.mark.parametrize("value", ["soon", "-3", "nan", "inf", "", "Mon, 99 Foo 2026", "1 2"])
def test_p13_garbage_falls_back_to_the_backoff(server: LLMServer, client: Client, value: str) -> None:
    """A wish that nobody understands is as good as none."""
    retry = Retry(1, backoff=0.3)
    assert 0.2 < waited(server, client, {"Retry-After": value}, retry) < 3


def test_p13_too_long_a_wait_is_not_begun(server: LLMServer, client: Client) -> None:
    """A service that asks for more than the caller allows is an error now, with the time that it asked for."""
    server.default = Reply(status=429, headers={"Retry-After": "121"})
    with pytest.raises(RateLimited) as caught:
        list(client.chat("x", retries=2))
    assert caught.value.retry_after == 121
    assert len(server.requests) == 1


def test_p13_backoff_doubles_up_to_its_limit_and_is_jittered() -> None:
    """Waits grow from repetition to repetition, are never longer than the limit, and never all the same."""
    retry = Retry(10, backoff=1, max_backoff=5)
    waits = [[retry.wait(attempt, None) or 0 for _ in range(50)] for attempt in range(5)]
    for wanted, got in zip((1, 2, 4, 5, 5), waits, strict=True):
        assert all(wanted * 0.75 <= wait <= wanted for wait in got)
        assert len(set(got)) > 1
    assert retry.wait(10, None) is None


def test_p13_a_refused_connection_is_repeated() -> None:
    """A server that comes up a moment later is found."""
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
    """Two repetitions are three lookups of the name."""
    asked = []

    def unknown(host: str, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Client("openai:m", base_url="http://nowhere.test", retries=QUICK) as client, pytest.raises(ConnectFailed):
        list(client.chat("x"))
    assert asked == ["nowhere.test"] * 3


def test_p13_a_certificate_that_is_not_trusted_is_final(tls_server: LLMServer) -> None:
    """What waiting does not mend is not tried again, though it is a failure to connect."""
    with (
        Client("openai:m", base_url=tls_server.base_url("openai"), retries=QUICK) as client,
        pytest.raises(ConnectFailed),
    ):
        list(client.chat("x"))
    assert tls_server.connections == 1


def test_p13_a_proxy_on_a_port_like_407_is_no_password_question(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused proxy is repeated, whatever digits stand in the addresses."""
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
    """407 on CONNECT is not repeated."""
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
    """Text that was handed out is never said twice."""
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
    """A request that was received, and not refused, is sent once: it may cost money."""
    server.script(reply)
    with pytest.raises(LLMBridgeError):
        list(client.chat("x", retries=QUICK, timeout=Timeout(first_content=0.3)))
    assert len(server.requests) == 1


class Stale:
    """Serves one request per connection, then closes it in the moment in which the next request arrives.

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


def test_p13_a_kept_connection_that_went_stale_is_replaced_once() -> None:
    """A server that drops a kept connection when it is used again is asked once more, on a new one, without retries."""
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


def test_p13_an_answer_that_had_begun_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kept connection that is reset right behind the headers of an answer did not go stale: that is the error."""
    asked: list[bytes] = []
    begun, was_reset = threading.Event(), threading.Event()
    data = event("ok", finish_reason="stop")
    read_ahead = transport_body._read_ahead

    def late(*args: Any) -> bytes:
        if len(asked) == 2:
            begun.set()
            assert was_reset.wait(10)
            time.sleep(0.02)
        return read_ahead(*args)

    def serve(sock: socket.socket) -> None:
        while received := read_head(sock):
            asked.append(received)
            if len(asked) == 2:
                sock.sendall(head("Transfer-Encoding: chunked"))
                assert begun.wait(10)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()
                was_reset.set()
                return
            sock.sendall(head(f"Content-Length: {len(data)}") + data)

    monkeypatch.setattr(transport_body, "_read_ahead", late)
    with Listener(serve) as listener, Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}") as client:
        assert client.chat("x", retries=0).complete().text == "ok"
        with pytest.raises(StreamTruncated):
            list(client.chat("x", retries=0))
    assert len(asked) == 2


def test_p13_a_late_name_lookup_of_an_earlier_attempt_harms_nothing(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup that ends after its attempt was given up does not wake the next one, which waits for its own."""
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
    """A kept connection that the server has closed meanwhile costs nobody an error."""
    data = event("ok", finish_reason="stop")
    server.default = Reply(raw=[head(f"Content-Length: {len(data)}") + data, CLOSE])
    for _ in range(5):
        assert client.chat("x", retries=0).complete().text == "ok"
        time.sleep(0.02)
    assert len(server.requests) == 5
