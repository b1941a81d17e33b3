"""Bytes for the wire, and what sits between client and server: events, bare listeners, a small proxy."""

from __future__ import annotations

import base64
import contextlib
import json
import random
import selectors
import socket
from typing import Any
from urllib.parse import urlsplit

from llmbridge.testing import LLMServer
from llmbridge.testing.faults import Listener, read_head

__all__ = [
    "DONE",
    "FINISH",
    "Listener",
    "Proxy",
    "chunk",
    "event",
    "free_port",
    "head",
    "port_of",
    "read_head",
]

DONE = b"data: [DONE]\n\n"
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'


def event(text: str, **more: Any) -> bytes:
    """One event of OpenAI's stream with a piece of text."""
    choice = {"index": 0, "delta": {"content": text}, **more}
    return b"data: " + json.dumps({"choices": [choice]}, ensure_ascii=False).encode() + b"\n\n"


def head(*lines: str, status: str = "200 OK", kind: str = "text/event-stream") -> bytes:
    """Status line and headers of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {kind}", *lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


_ports = random.SystemRandom()  # the global one is seeded, the same in every process


def free_port() -> int:
    """A port of 127.0.0.1 that is not used, and that the system does not give to later servers."""
    while True:
        port = _ports.randrange(10_000, 30_000)  # below the ephemeral ports
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


class Proxy(Listener):
    """An HTTP proxy that tunnels (CONNECT) and forwards.

    Args:
        credentials: The required "user:password", or None.
        target: Host and port to which every request is sent, whatever it names.

    Attributes:
        seen: The head of each request, as text.
    """

    def __init__(self, credentials: str | None = None, target: tuple[str, int] | None = None) -> None:
        self.seen: list[str] = []
        self._credentials = credentials
        self._target = target
        super().__init__(self._pass_on)

    @property
    def url(self) -> str:
        """Its address, with the credentials."""
        return f"http://{self._credentials + '@' if self._credentials else ''}127.0.0.1:{self.port}"

    def _pass_on(self, sock: socket.socket) -> None:
        received = read_head(sock)
        if not received:
            return
        first, _, rest = received.partition(b"\r\n")
        self.seen.append(received.partition(b"\r\n\r\n")[0].decode("latin-1"))
        if self._credentials is not None:
            wanted = base64.b64encode(self._credentials.encode()).decode()
            if f"Proxy-Authorization: Basic {wanted}" not in self.seen[-1]:
                sock.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                return
        method, where, version = first.decode("latin-1").split(" ")
        parts = urlsplit(f"//{where}" if method == "CONNECT" else where)
        address = self._target or (str(parts.hostname), parts.port or 80)
        with socket.create_connection(address, 5) as onward:
            if method == "CONNECT":
                sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                onward.sendall(f"{method} {parts.path or '/'} {version}\r\n".encode("latin-1") + rest)
            _relay(sock, onward)


def _relay(one: socket.socket, other: socket.socket) -> None:
    with selectors.SelectSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                if not data:
                    return
                key.data.sendall(data)


def port_of(server: LLMServer) -> int:
    """The server's port."""
    return int(server.root.rpartition(":")[2])
