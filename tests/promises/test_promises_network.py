"""P29: a proxy never causes a second request, and its errors say what it did."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import requests
from conftest import KEY
from loopback import free_port, port_of
from modes import Mode

from llmbridge import BadRequest, Client, ConnectFailed, LLMBridgeError, Retry, StreamTruncated
from llmbridge._transport.body import WireBody
from llmbridge._transport.connections import RETURNS_ANY
from llmbridge._transport.later import Later
from llmbridge.testing import LLMServer, Reply
from llmbridge.testing.faults import (
    SELF_SIGNED_CERTIFICATE,
    HTTPProxy,
    Listener,
    SocksProxy,
    read_head,
    self_signed_context,
)

QUICK = Retry(2, backoff=0.01)
USER, PASSWORD = "me", "pw-canary-0123456789"


class TLSProxy(HTTPProxy):
    """An HTTP proxy that is reached over TLS."""

    scheme = "https"

    @property
    def url(self) -> str:
        """With its name: urllib3 1.26.5 cannot verify an address there."""
        return super().url.replace("127.0.0.1", "localhost")

    def _pass_on(self, sock: socket.socket) -> None:
        with self_signed_context().wrap_socket(sock, server_side=True) as wrapped:
            super()._pass_on(wrapped)


PROXIES = {"none": None, "http": HTTPProxy, "tls": TLSProxy, "socks": SocksProxy}


@pytest.fixture
def ca(tmp_path: Path) -> str:
    """The file to trust the self-signed certificate by."""
    path = tmp_path / "ca.pem"
    path.write_text(SELF_SIGNED_CERTIFICATE, encoding="ascii")
    return str(path)


class Taker(Listener):
    """A service that reads each request whole and does not answer it.

    Attributes:
        taken: The first lines of the requests.
    """

    def __init__(self, tls: bool, ends: Callable[[socket.socket], object] = lambda _: None) -> None:
        self.taken: list[bytes] = []
        self._tls = tls
        self._ends = ends
        super().__init__(self._take)

    def _take(self, sock: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            if self._tls:
                sock = stack.enter_context(self_signed_context().wrap_socket(sock, server_side=True))
            top, _, body = read_head(sock).partition(b"\r\n\r\n")
            if not top:
                return
            self.taken.append(top.partition(b"\r\n")[0])
            length = next(int(line[15:]) for line in top.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            while len(body) < length:
                body += sock.recv(65536)
            self._ends(sock)


def reset(sock: socket.socket) -> None:
    """Lets the connection be reset when it is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def half_a_header(sock: socket.socket) -> None:
    """Begins to answer."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Ty")


@contextlib.contextmanager
def running(kind: str, **options: Any) -> Iterator[Any]:
    """A proxy of that kind, or None."""
    if kind == "socks":
        pytest.importorskip("socks")
    made = PROXIES[kind]
    with contextlib.nullcontext() if made is None else made(**options) as proxy:
        yield proxy


def failure(mode: Mode, **options: Any) -> LLMBridgeError:
    """The error of a call that gets no answer."""
    with Client("openai:m", api_key=KEY, **{"retries": 0, "timeout": 20, **options}) as client:
        error = mode.read(client.chat("x")).error
    assert error is not None
    return error


# -- proxies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", PROXIES)
@pytest.mark.parametrize("ends", [lambda _: None, reset, half_a_header], ids=["close", "reset", "half"])
def test_p29_a_request_that_was_taken_is_never_sent_again(
    mode: Mode, kind: str, scheme: str, ends: Callable[[socket.socket], object], ca: str
) -> None:
    """With any proxy: the service may have processed it."""
    with Taker(scheme == "https", ends) as service, running(kind) as proxy:
        error = failure(
            mode,
            base_url=f"{scheme}://127.0.0.1:{service.port}/v1",
            proxy=proxy.url if proxy else False,
            retries=QUICK,
            verify=ca,
        )
        assert type(error) is StreamTruncated, error
        assert not error.retryable
        assert len(service.taken) == 1


class Wrapping(requests.adapters.BaseAdapter):
    """An adapter whose connections are hidden."""

    def __init__(self) -> None:
        super().__init__()
        self._inner = requests.adapters.HTTPAdapter()

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """As in requests."""
        return self._inner.send(*args, **kwargs)

    def close(self) -> None:
        """As in requests."""
        self._inner.close()


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("adapter", [requests.adapters.HTTPAdapter, Wrapping])
def test_p29_nor_over_a_session_of_the_caller(
    mode: Mode, scheme: str, adapter: Any, ca: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if its connections report nothing."""
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 0)  # what a caller's own connections print is his
    with Taker(scheme == "https") as service, HTTPProxy() as proxy, requests.Session() as session:
        session.mount(f"{scheme}://", adapter())
        base_url = f"{scheme}://127.0.0.1:{service.port}/v1"
        error = failure(mode, base_url=base_url, proxy=proxy.url, retries=QUICK, session=session, verify=ca)
        assert type(error) is StreamTruncated
        assert len(service.taken) == 1


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("kind", ["http", "tls", "socks"])
def test_p29_a_proxy_that_is_not_there_is_named_and_tried_again(
    mode: Mode, kind: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request has reached anything."""
    if kind == "socks":
        pytest.importorskip("socks")
    port = free_port()
    url = f"{ {'http': 'http', 'tls': 'https', 'socks': 'socks5h'}[kind] }://127.0.0.1:{port}"
    monkeypatch.setenv(f"{scheme}_proxy", url)
    error = failure(mode, base_url=f"{scheme}://api.invalid/v1")
    assert type(error) is ConnectFailed
    assert error.retryable
    assert f"proxy 127.0.0.1:{port} (from {scheme}_proxy): Connection refused" in error.message


@pytest.mark.parametrize(("status", "final"), [(502, False), (503, False), (403, False), (501, True), (405, True)])
def test_p29_a_proxy_that_opens_no_tunnel_is_tried_again_unless_it_never_will(
    mode: Mode, status: int, final: bool
) -> None:
    """The error has its status, and the proxy got the expected number of requests."""

    def refuse(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(f"HTTP/1.1 {status} {PASSWORD}\r\n\r\n".encode())

    with Listener(refuse) as proxy:
        error = failure(mode, base_url="https://api.invalid", proxy=proxy.root, retries=QUICK)
        assert type(error) is ConnectFailed
        assert error.message.endswith(f"through the HTTP proxy 127.0.0.1:{proxy.port}, which answered {status}")
        assert proxy.accepted == (1 if final else 3)


@pytest.mark.parametrize("session", ["own", "foreign"])
def test_p29_a_407_is_one_error_for_tunnels_and_plain_requests(mode: Mode, session: str) -> None:
    """Final, with the same hint, and without the rejected password."""
    messages = []
    for scheme in ("http", "https"):
        with HTTPProxy(USER, PASSWORD) as proxy, requests.Session() as own:
            options: dict[str, Any] = {"session": own} if session == "foreign" else {}
            wrong = proxy.url.replace(PASSWORD, PASSWORD[::-1])
            error = failure(mode, base_url=f"{scheme}://api.invalid/v1", proxy=wrong, retries=QUICK, **options)
            assert type(error) is ConnectFailed
            assert not error.retryable
            assert len(proxy.seen) == 1
            assert PASSWORD[::-1] not in str(error)
            messages.append(error.message.replace(str(proxy.port), "PORT"))
    assert messages[0] == messages[1]
    assert "the HTTP proxy 127.0.0.1:PORT: it wants credentials" in messages[0]


def test_p29_wrong_credentials_for_socks_are_final(mode: Mode) -> None:
    """The proxy and its reason are named; it is not retried."""
    pytest.importorskip("socks")
    with SocksProxy(USER, PASSWORD) as proxy:
        wrong = proxy.url.replace(PASSWORD, PASSWORD[::-1])
        for url, reason in ((wrong, "SOCKS5 authentication failed"), (proxy.bare_url, "All offered SOCKS5")):
            before = proxy.accepted
            error = failure(mode, base_url="http://api.invalid/v1", proxy=url, retries=QUICK)
            assert type(error) is ConnectFailed
            assert not error.retryable
            assert f"the SOCKS proxy 127.0.0.1:{proxy.port}: {reason}" in error.message
            assert proxy.accepted == before + 1
            assert PASSWORD[::-1] not in str(error)


def test_p29_a_reason_of_socks_is_said(mode: Mode) -> None:
    """The proxy may reach the service later."""
    pytest.importorskip("socks")
    with SocksProxy(target=("127.0.0.1", free_port())) as proxy:
        error = failure(mode, base_url="http://api.invalid/v1", proxy=proxy.url)
    assert type(error) is ConnectFailed
    assert error.retryable
    assert f"the SOCKS proxy 127.0.0.1:{proxy.port}: 0x04: Host unreachable" in error.message


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.quick(2)
def test_p29_a_proxy_that_speaks_tls_is_verified(mode: Mode, scheme: str, ca: str) -> None:
    """The request is sent if the proxy is trusted, and not a byte if it is not."""
    context = self_signed_context() if scheme == "https" else None
    with LLMServer(Reply(["a"]), ssl_context=context) as server, TLSProxy() as proxy:
        options: dict[str, Any] = {"base_url": f"{scheme}://127.0.0.1:{port_of(server)}/v1", "proxy": proxy.url}
        with Client("openai:m", api_key=KEY, verify=ca, retries=0, timeout=20, **options) as client:
            assert mode.read(client.chat("x")).pieces == ["a"]
        error = failure(mode, retries=QUICK, **options)
        assert type(error) is ConnectFailed
        assert not error.retryable
        assert f"the certificate of the HTTP proxy localhost:{proxy.port} is not trusted" in error.message
        assert len(server.requests) == 1


@pytest.mark.skipif(not RETURNS_ANY, reason="urllib3 1.26 waits for headers itself")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_p29_tls_within_tls_is_waited_for_by_a_thread(ca: str, monkeypatch: pytest.MonkeyPatch, backend: str) -> None:
    """It has no socket that a loop can watch: a read that does not block would be repeated without end."""
    whole: list[bool | None] = []
    reads: list[None] = []
    arrived, read = Later.arrived, WireBody.read

    def late(later: Later) -> bool | None:
        assert select.select([later.readable], [], [], 20)[0]
        whole.append(arrived(later))
        return whole[-1]

    def counted(body: WireBody) -> bytes:
        reads.append(None)
        return read(body)

    monkeypatch.setattr(Later, "arrived", late)
    monkeypatch.setattr(WireBody, "read", counted)
    reply = Reply(["a", "b", "c"], first_delay=0.2, delay=0.2)
    with LLMServer(reply, ssl_context=self_signed_context()) as server, TLSProxy() as proxy:
        options: dict[str, Any] = {"base_url": f"https://127.0.0.1:{port_of(server)}/v1", "proxy": proxy.url}
        with Client("openai:m", api_key=KEY, verify=ca, retries=0, timeout=20, **options) as client:

            async def ask() -> str:
                return (await client.chat("x")).text

            assert anyio.run(ask, backend=backend) == "abc"
    assert whole[-1] is True
    assert len(reads) < 20


def test_p29_a_501_is_not_sent_again(mode: Mode, server: LLMServer) -> None:
    """The service does not support the request, and will not later."""
    server.default = Reply("no", status=501)
    assert "501" in failure(mode, base_url=server.base_url("openai"), retries=QUICK).message
    assert len(server.requests) == 1


CAUSES = [
    ({"detail": [{"loc": ["body", "n"], "message": "too big", "type": "x"}]}, "body.n: too big"),
    ({"detail": [{"loc": ["a"], "message": "b"}, {"loc": ["c", 0], "message": "d"}]}, "a: b; c.0: d"),
    ({"detail": {"loc": ["body", "n"], "message": "too big"}}, "body.n: too big"),
    ({"error": {"message": "No connected db.", "type": "no_db_connection"}}, "check the API key"),
]


@pytest.mark.parametrize(("report", "said"), CAUSES)
def test_p29_the_cause_that_a_gateway_names_is_said(
    mode: Mode, server: LLMServer, report: dict[str, Any], said: str
) -> None:
    """The wrong field, for g4f's reports; the key, if LiteLLM reports a missing database."""
    server.script(Reply(status=400, body=json.dumps(report)))
    error = failure(mode, base_url=server.base_url("openai"))
    assert type(error) is BadRequest
    assert said in error.message
