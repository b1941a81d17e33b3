"""Faults below HTTP: connections, names, TLS, proxies, and the moment of sending."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

from llmbridge.testing import LLMServer, Reply

from .fault import Fault, sends
from .listener import Listener, read_head
from .selfsigned import self_signed_context
from .wire import WHOLE, WHOLE_EVENTS, head

__all__ = ["NETWORK"]

_TOO_LARGE = json.dumps({"error": {"message": "the request is too large", "type": "invalid_request_error"}}).encode()
_ELSEWHERE = "http://elsewhere.invalid/v1/chat/completions"


@contextlib.contextmanager
def _refused() -> Iterator[str]:
    with socket.socket() as held:  # bound, so that no other program gets the port, but not listening
        held.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1"


@contextlib.contextmanager
def _unknown_name() -> Iterator[str]:
    yield "http://no-such-host.invalid/v1"  # RFC 6761, 6.4: names under .invalid do not exist


@contextlib.contextmanager
def _self_signed() -> Iterator[str]:
    with LLMServer(Reply("You trusted me"), ssl_context=self_signed_context()) as server:
        yield server.base_url("openai")


@contextlib.contextmanager
def _no_tls() -> Iterator[str]:
    def answer(sock: socket.socket) -> None:
        sock.recv(65536)
        sock.sendall(head("Content-Length: 0", "Connection: close", status="400 Bad Request", kind=None))
        _wait_for_end(sock)

    with Listener(answer) as listener:
        yield f"https://127.0.0.1:{listener.port}/v1"


@contextlib.contextmanager
def _never_reads() -> Iterator[str]:
    with Listener(small_buffers=True) as listener:
        yield listener.root + "/v1"


@contextlib.contextmanager
def _early() -> Iterator[str]:
    def answer(sock: socket.socket) -> None:
        read_head(sock)
        length = f"Content-Length: {len(_TOO_LARGE)}"
        sock.sendall(head(length, status="413 Content Too Large", kind="application/json") + _TOO_LARGE)
        sock.shutdown(socket.SHUT_WR)
        _wait_for_end(sock)

    with Listener(answer, small_buffers=True) as listener:
        yield listener.root + "/v1"


@contextlib.contextmanager
def _redirect() -> Iterator[str]:
    with LLMServer(Reply("You followed me")) as other:
        target = other.base_url("openai") + "/chat/completions"
        with LLMServer(_redirection(target)) as server:
            yield server.base_url("openai")


def _redirection(target: str) -> Reply:
    return Reply(status=307, headers={"Location": target})


def _wait_for_end(sock: socket.socket) -> None:
    # Closing a socket with unread input resets it, which may destroy the answer in transit.
    while sock.recv(65536):
        continue


NETWORK = (
    Fault("refused", "Nobody listens on the port.", "P13", "ConnectFailed", served=_refused),
    Fault("unknown-name", "The host's name does not exist.", "P13", "ConnectFailed", served=_unknown_name),
    Fault(
        "self-signed-certificate", "TLS with a certificate that is not trusted.", "P22", "ConnectFailed",
        served=_self_signed,
    ),
    Fault(
        "no-tls", "A base URL with https://, and a server that speaks plain HTTP.", "P22", "ConnectFailed",
        served=_no_tls,
    ),
    Fault(
        "never-reads", "The server accepts the connection, but reads nothing.", "P12", "ClockExpired",
        served=_never_reads,
    ),
    Fault(
        "early-response", "The answer (413) comes before the request's body is read.", "P13", "BadRequest",
        served=_early,
    ),
    Fault(
        "redirect", "Status 307 to another server, which would answer.", "P20", "StatusError",
        scripted=lambda: _redirection(_ELSEWHERE), served=_redirect,
    ),
    Fault(
        "wait-a-day", "Status 429 with a wait of one day.", "P13", "RateLimited",
        scripted=lambda: Reply(status=429, headers={"Retry-After": "86400"}),
    ),
    sends(
        "http-1.0", "An HTTP/1.0 answer, ended by closing the connection.", "P3", "",
        head().replace(b"HTTP/1.1", b"HTTP/1.0") + WHOLE_EVENTS, text=WHOLE,
    ),
)  # fmt: skip
