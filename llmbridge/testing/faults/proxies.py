"""Proxies for tests: HTTP and SOCKS5, with or without credentials; they record their requests."""

from __future__ import annotations

import base64
import contextlib
import selectors
import socket
import struct
import threading
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import quote, urlsplit

from .listener import Listener, read_head

__all__ = ["HTTPProxy", "Passed", "SocksProxy"]

_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Passed:
    """One request that reached a proxy, allowed or not.

    Attributes:
        method: `CONNECT` for a tunnel, `SOCKS5`, or the method of a plain request.
        target: Its destination, as "host:port".
        credentials: The client's, as "user:password"; None without any.
        head: The request's first line and headers; "" for SOCKS.
    """

    method: str
    target: str
    credentials: str | None = None
    head: str = ""


class _Proxy(Listener):
    scheme = ""

    def __init__(
        self,
        user: str | None = None,
        password: str | None = None,
        *,
        target: tuple[str, int] | None = None,
        refuse: bool = False,
        hang: bool = False,
    ) -> None:
        if (user is None) != (password is None):
            raise ValueError("user and password belong together: pass both or neither")
        self._credentials = None if user is None else f"{user}:{password}"
        self._user = None if user is None else f"{quote(user, safe='')}:{quote(password or '', safe='')}@"
        self._target = target
        self._refuse = refuse
        self._hang = hang
        self._noted: list[Passed] = []
        self._noting = threading.Lock()
        super().__init__(self._pass_on)

    @property
    def url(self) -> str:
        """The proxy's URL, with its credentials."""
        return f"{self.scheme}://{self._user or ''}127.0.0.1:{self.port}"

    @property
    def bare_url(self) -> str:
        """The proxy's URL without credentials."""
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def seen(self) -> list[Passed]:
        """Every request so far, in order."""
        with self._noting:
            return list(self._noted)

    def _note(self, passed: Passed) -> None:
        with self._noting:
            self._noted.append(passed)

    def _allows(self, credentials: str | None) -> bool:
        return not self._refuse and self._credentials in (None, credentials)

    def _onward(self, host: str, port: int) -> socket.socket:
        return socket.create_connection(self._target or (host, port), _CONNECT_SECONDS)

    def _pass_on(self, sock: socket.socket) -> None:
        raise NotImplementedError


class HTTPProxy(_Proxy):
    """An HTTP proxy: tunnels CONNECT, forwards other requests, and records both.

    Args:
        user, password: The required credentials; none are required without them.
        target: Host and port to which everything is sent, whatever the client requests; names need not exist then.
        refuse: Answer 407 to everyone, even with the right credentials.
        hang: Read the request, but never answer.

    Raises:
        ValueError: Only one of user and password is given.

    Example:
        >>> from llmbridge import Client
        >>> from llmbridge.testing import LLMServer, Reply
        >>> with LLMServer(Reply("Hello")) as server, HTTPProxy("me", "secret") as proxy:
        ...     with Client("openai:m", base_url=server.base_url("openai"), proxy=proxy.url) as client:
        ...         client.chat("Hi").complete().text
        ...     proxy.seen[0].method, proxy.seen[0].credentials
        'Hello'
        ('POST', 'me:secret')
    """

    scheme = "http"

    def _pass_on(self, sock: socket.socket) -> None:
        received = read_head(sock)
        if not received:
            return
        opening, _, rest = received.partition(b"\r\n")
        method, where, version = opening.decode("latin-1").split(" ", 2)
        parts = urlsplit(f"//{where}" if method == "CONNECT" else where)
        host, port = parts.hostname or "", parts.port or 80
        shown = received.partition(b"\r\n\r\n")[0].decode("latin-1")
        credentials = _basic_credentials(shown)
        self._note(Passed(method, f"{host}:{port}", credentials, shown))
        if self._hang:
            _swallow(sock)
        if not self._allows(credentials):
            sock.sendall(
                b"HTTP/1.1 407 Proxy Authentication Required\r\n"
                b'Proxy-Authenticate: Basic realm="test"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
            )
            sock.shutdown(socket.SHUT_WR)
            _swallow(sock)
        try:
            onward = self._onward(host, port)
        except OSError:
            sock.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        with onward:
            if method == "CONNECT":
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                onward.sendall(f"{method} {path} {version}\r\n".encode("latin-1") + _without_credentials(rest))
            _relay(sock, onward)


class SocksProxy(_Proxy):
    """A SOCKS5 proxy for TCP connections, which also resolves names (`socks5h`).

    Args:
        user, password: The required credentials; none are required without them.
        target: Host and port to which everything is sent, whatever the client requests; names need not exist then.
        refuse: Deny everyone, even with the right credentials.
        hang: Accept the connection, but never answer.

    Raises:
        ValueError: Only one of user and password is given.

    Source:
        RFC 1928 (SOCKS5), RFC 1929 (user and password).
    """

    scheme = "socks5h"

    def _pass_on(self, sock: socket.socket) -> None:
        if self._hang:
            _swallow(sock)
        version, count = _exactly(sock, 2)
        methods = _exactly(sock, count)
        wanted = 2 if self._credentials is not None else 0
        if version != 5 or wanted not in methods or (self._refuse and wanted == 0):
            sock.sendall(b"\x05\xff")
            return
        sock.sendall(bytes([5, wanted]))
        credentials = self._asked(sock) if wanted else None
        if wanted and not self._allows(credentials):
            self._note(Passed("SOCKS5", "", credentials))
            sock.sendall(b"\x01\x01")
            return
        if wanted:
            sock.sendall(b"\x01\x00")
        host, port = _address(sock)
        self._note(Passed("SOCKS5", f"{host}:{port}", credentials))
        try:
            onward = self._onward(host, port)
        except OSError:
            sock.sendall(b"\x05\x04\x00\x01" + bytes(6))  # host unreachable
            return
        with onward:
            sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
            _relay(sock, onward)

    @staticmethod
    def _asked(sock: socket.socket) -> str:
        user = _exactly(sock, _exactly(sock, 2)[1])
        password = _exactly(sock, _exactly(sock, 1)[0])
        return f"{user.decode('utf-8', 'replace')}:{password.decode('utf-8', 'replace')}"


def _address(sock: socket.socket) -> tuple[str, int]:
    kind = _exactly(sock, 4)[3]
    if kind == 3:
        host = _exactly(sock, _exactly(sock, 1)[0]).decode("idna")
    else:
        family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
        host = socket.inet_ntop(family, _exactly(sock, size))
    port: int = struct.unpack("!H", _exactly(sock, 2))[0]
    return host, port


def _exactly(sock: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count:
        data = sock.recv(count - len(received))
        if not data:
            raise ConnectionResetError("the client left")
        received += data
    return received


def _basic_credentials(head: str) -> str | None:
    for line in head.split("\r\n")[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "proxy-authorization":
            with contextlib.suppress(ValueError):  # not Basic credentials, so they are wrong
                return base64.b64decode(value.strip().removeprefix("Basic "), validate=True).decode()
    return None


def _without_credentials(headers: bytes) -> bytes:
    lines = headers.split(b"\r\n")
    end = lines.index(b"")
    kept = [line for line in lines[:end] if not line.lower().startswith(b"proxy-")]
    return b"\r\n".join([*kept, *lines[end:]])


def _swallow(sock: socket.socket) -> NoReturn:
    """Reads and discards until the client leaves."""
    while sock.recv(65536):
        continue
    raise ConnectionResetError("the client left")


def _relay(one: socket.socket, other: socket.socket) -> None:
    """Copies in both directions until either side ends."""
    one.settimeout(None)
    other.settimeout(None)
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                source, sink = (one, other) if key.data is other else (other, one)
                data = source.recv(65536)
                if not data:
                    return
                sink.sendall(data)
