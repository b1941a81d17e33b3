"""A short request over a kept connection is sent in the event loop itself; all others use a worker thread."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import anyio
import pytest
import requests
from conftest import KEY
from loopback import Listener, head, read_head
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from llmbridge import Client, StreamTruncated
from llmbridge._transport import Transport
from llmbridge._transport.connections import RETURNS_ANY
from llmbridge.testing import LLMServer

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not RETURNS_ANY, reason="urllib3 1.26 waits for headers itself"),
]


@pytest.fixture
def client(server: LLMServer) -> Iterator[Client]:
    """A client without retries."""
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0) as client:
        yield client


@pytest.fixture
def senders(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that sent a request, in order."""
    found: list[str] = []
    plain = Transport.send

    def noted(self: Transport, call: Any, request: Any, begun: Any = None) -> Any:
        answer = plain(self, call, request, begun)
        if begun is None:
            found.append("loop" if threading.current_thread() is threading.main_thread() else "thread")
        return answer

    monkeypatch.setattr(Transport, "send", noted)
    return found


async def test_a_kept_connection_needs_no_thread(server: LLMServer, client: Client, senders: list[str]) -> None:
    """The first call connects in a thread; later ones need none."""
    for _ in range(4):
        assert (await client.chat("hi")).text
    assert senders == ["thread", "loop", "loop", "loop"]
    assert server.connections == 1
    assert server.requests[-1].header("Authorization") == f"Bearer {KEY}"


async def test_tls_needs_no_thread_either(tls_client: Client, senders: list[str]) -> None:
    """TLS needs no thread after its handshake."""
    for _ in range(2):
        assert (await tls_client.chat("hi")).text
    assert senders == ["thread", "loop"]


@pytest.mark.parametrize("question", ["x" * 5000, ["x" * 3000] * 2])
async def test_a_long_request_takes_a_thread(client: Client, senders: list[str], question: Any) -> None:
    """Encoding its JSON takes a while."""
    await client.chat("hi")
    messages = question if isinstance(question, str) else [{"role": "user", "content": part} for part in question]
    assert (await client.chat(messages)).text
    assert senders == ["thread", "thread"]


async def test_a_connection_that_the_server_has_closed_is_made_anew_in_a_thread(
    server: LLMServer, client: Client, senders: list[str]
) -> None:
    """Connecting may block."""
    await client.chat("hi")
    server_side = server.connections
    kept = _idle_of(client)
    kept.sock.shutdown(socket.SHUT_RDWR)
    assert (await client.chat("again")).text
    assert senders == ["thread", "thread"]
    assert (server.connections, len(server.requests)) == (server_side + 1, 2)


@pytest.mark.parametrize("sent", [None, 0, 10])
async def test_a_socket_without_room_leaves_the_request_to_a_thread(
    server: LLMServer, client: Client, senders: list[str], sent: int | None
) -> None:
    """The server gets the whole of one request, over another connection."""
    await client.chat("hi")
    kept = _idle_of(client)
    kept.sock = _Full(kept.sock, sent)
    assert (await client.chat("again")).text
    assert senders == ["thread", "thread"]
    assert [request.json["messages"][0]["content"] for request in server.requests] == ["hi", "again"]


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (requests.Session, "send"),
        (requests.adapters.HTTPAdapter, "send"),
        (HTTPConnectionPool, "urlopen"),
        (HTTPConnectionPool, "_make_request"),
        (HTTPConnection, "request"),
        (HTTPConnection, "getresponse"),
        (http.client.HTTPConnection, "send"),
    ],
)
async def test_p44_what_replaces_requests_or_urllib3_is_called_in_a_thread(
    client: Client, senders: list[str], monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    """A replacement may block, and wants to see every request."""
    await client.chat("hi")
    plain, seen = getattr(owner, method), []

    def traced(*args: Any, **kwargs: Any) -> Any:
        seen.append(threading.current_thread())
        return plain(*args, **kwargs)

    monkeypatch.setattr(owner, method, traced)
    assert (await client.chat("again")).text
    assert (senders, len(seen)) == (["thread", "thread"], 1)
    assert threading.main_thread() not in seen


@pytest.mark.parametrize("method", ["putrequest", "putheader"])
async def test_p44_what_a_tracer_adds_to_each_request_is_sent(
    server: LLMServer, client: Client, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Some add a header of their own in http.client, another one to each request."""
    plain, numbers = getattr(http.client.HTTPConnection, method), iter(range(10))
    add = http.client.HTTPConnection.putheader

    def traced(self: http.client.HTTPConnection, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        if method == "putrequest" or args[0] == "Accept":
            add(self, "Trace", str(next(numbers)))

    with monkeypatch.context() as patch:
        patch.setattr(http.client.HTTPConnection, method, traced)
        for _ in range(3):
            await client.chat("hi")
            await anyio.to_thread.run_sync(lambda: client.chat("hi").complete())
    await client.chat("hi")
    sent = [[value for name, value in request.headers if name == "Trace"] for request in server.requests]
    assert sent == [*([str(number)] for number in range(6)), []]


async def test_p44_a_replacement_that_fails_ends_the_call(
    server: LLMServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mock may break the connection as soon as the headers have come: that is not a stale connection."""
    await client.chat("hi")
    broken = Mock(side_effect=ConnectionResetError)
    with monkeypatch.context() as patch, anyio.fail_after(30):
        patch.setattr(http.client.HTTPConnection, "getresponse", broken)
        with pytest.raises(StreamTruncated):
            await client.chat("hi")
    assert broken.call_count == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("path", ["/v1", "/%C3%BC/a%2Fb/~x;y=1", "//v1", "/a/%2e%2e/v1"])
@pytest.mark.parametrize("lines", [[], ["X-A: 1", "x-a: 2", "Folded: a", " b"], ["Connection: close"]])
@pytest.mark.parametrize(
    "headers",
    [{"X-Own": "1"}, {"User-Agent": None, "Host": "x.test", "accept-encoding": None, "Authorization": None}],
)
async def test_the_bytes_and_headers_are_those_of_requests_and_urllib3(
    senders: list[str], path: str, lines: list[str], headers: dict[str, Any]
) -> None:
    """What is sent over a kept connection, and the headers that are read from its answer."""
    received: list[bytes] = []
    body = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()

    def serve(sock: socket.socket) -> None:
        kept = len(received) + 1
        while asked := read_head(sock):
            while len(asked.partition(b"\r\n\r\n")[2]) < int(asked.lower().split(b"content-length: ")[1].split()[0]):
                asked += sock.recv(4096)
            received.append(asked)
            more = lines if len(received) > kept else []  # the first answer leaves the connection open
            sock.sendall(head(f"Content-Length: {len(body)}", *more, kind="application/json") + body)

    with Listener(serve) as service:
        base_url = service.root.replace("//", "//user:word@") + path
        options = {"base_url": base_url, "api_key": KEY, "headers": headers}
        with Client("openai:m", retries=0, **options) as alone:  # type: ignore[arg-type]
            usual = [await anyio.to_thread.run_sync(lambda: alone.chat("hi").complete()) for _ in range(3)]
        with Client("openai:m", retries=0, **options) as client:  # type: ignore[arg-type]
            in_loop = [await client.chat("hi") for _ in range(3)]
        count = len({*received})
        with requests.Session() as session:
            for _ in range(2):
                plain = await anyio.to_thread.run_sync(lambda: session.post(service.root, json={}, timeout=20).headers)
    assert senders == ["thread"] * 4 + ["loop"] * 2 or "Connection: close" in lines or "%2e" in path
    assert count == 1
    assert [one.text for one in in_loop + usual] == ["hi"] * 6
    assert in_loop[1].headers == usual[1].headers == {name.lower(): " ".join(plain[name].split()) for name in plain}


class _Full:
    """A socket that accepts so many bytes; None for one that would block."""

    def __init__(self, sock: socket.socket, takes: int | None) -> None:
        self._sock = sock
        self._takes = takes

    def send(self, data: bytes) -> int:
        """Sends a part."""
        if self._takes is None:
            raise BlockingIOError
        return self._sock.send(data[: self._takes]) if self._takes else 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _idle_of(client: Client) -> Any:
    """The kept connection."""
    (transport,) = client.connections.transports.values()
    assert isinstance(transport, Transport)
    (pool,) = transport._session().get_adapter("http://")._pools.values()
    return pool.pool._kept[-1]
