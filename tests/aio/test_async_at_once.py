"""A short request over a kept connection is sent in the event loop itself; all others use a worker thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from conftest import KEY

from llmbridge import Client
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


async def test_what_replaces_requests_is_called_in_a_thread(
    client: Client, senders: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replacement may block."""
    await client.chat("hi")
    plain = requests.adapters.HTTPAdapter.send

    def traced(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, **kwargs)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", traced)
    assert (await client.chat("again")).text
    assert senders == ["thread", "thread"]


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
