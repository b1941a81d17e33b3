"""The contenders of the measurements, each written as its users would write it, all doing the same work.

A contender is a function of a base URL that creates its client once and returns a callable. Each call of that is one
finished request, and yields its text pieces, one per text event, skipping empty ones. Modules are imported inside, so
that a process loads only what its contender needs, and with `import_module`, as peers may not be installed.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

Pieces = Callable[[], Iterable[str]]

MODEL = "bench"
MESSAGES = [{"role": "user", "content": "hi"}]
REQUEST: dict[str, Any] = {
    "model": MODEL,
    "messages": MESSAGES,
    "stream": True,
    "stream_options": {"include_usage": True},
}
HEADERS = {"Authorization": "Bearer x", "Accept": "text/event-stream"}


def floor(base_url: str) -> Pieces:
    """A raw socket and the standard library: the cost of the work itself in plain Python, without checks."""
    parts = urlsplit(base_url)
    connection = socket.create_connection((parts.hostname, parts.port or 80))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def receive() -> bytes:
        data = connection.recv(65536)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data

    def pieces() -> Iterator[str]:
        body = json.dumps(REQUEST).encode()
        connection.sendall(
            f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer x\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        wire = receive()
        while b"\r\n\r\n" not in wire:
            wire += receive()
        head, _, wire = wire.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or b"Transfer-Encoding: chunked" not in head:
            raise ValueError(f"expected a chunked answer, got {head!r}")
        events = b""
        while True:
            data, wire, ended = dechunk(wire)
            frames = (events + data).split(b"\n\n")
            events = frames.pop()
            for frame in frames:
                if frame.startswith(b"data: ") and frame != b"data: [DONE]":
                    choices = json.loads(frame[6:])["choices"]
                    text = choices[0]["delta"].get("content") if choices else None
                    if text:
                        yield text
            if ended:
                return
            wire += receive()

    return pieces


def dechunk(wire: bytes) -> tuple[bytes, bytes, bool]:
    """The data of the complete HTTP chunks in `wire`, the remaining bytes, and whether the last chunk was among
    them."""
    data: list[bytes] = []
    start = 0
    while (end := wire.find(b"\r\n", start)) >= 0:
        size = int(wire[start:end], 16)
        stop = end + 2 + size
        if len(wire) < stop + 2:
            break
        if size == 0:
            return b"".join(data), wire[stop + 2 :], True
        data.append(wire[end + 2 : stop])
        start = stop + 2
    return b"".join(data), wire[start:], False


def requests_sseclient(base_url: str) -> Pieces:
    """`requests` with `sseclient-py` on a kept session, as in their documentation."""
    session = import_module("requests").Session()
    sse_client = import_module("sseclient").SSEClient

    def pieces() -> Iterator[str]:
        with session.post(f"{base_url}/chat/completions", json=REQUEST, headers=HEADERS, stream=True) as response:
            response.raise_for_status()
            for event in sse_client(response).events():
                if event.data == "[DONE]":
                    break
                choices = json.loads(event.data)["choices"]
                text = choices[0]["delta"].get("content") if choices else None
                if text:
                    yield text

    return pieces


def httpx_sse(base_url: str) -> Pieces:
    """`httpx` with `httpx-sse` on a kept client."""
    client = import_module("httpx").Client()
    connect_sse = import_module("httpx_sse").connect_sse

    def pieces() -> Iterator[str]:
        url = f"{base_url}/chat/completions"
        with connect_sse(client, "POST", url, json=REQUEST, headers=HEADERS) as source:
            source.response.raise_for_status()
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    break
                choices = json.loads(event.data)["choices"]
                text = choices[0]["delta"].get("content") if choices else None
                if text:
                    yield text

    return pieces


def openai_sdk(base_url: str) -> Pieces:
    """The `openai` SDK's blocking client, streaming."""
    client = import_module("openai").OpenAI(base_url=base_url, api_key="x", max_retries=0)

    def pieces() -> Iterator[str]:
        for chunk in client.chat.completions.create(**REQUEST):
            text = chunk.choices[0].delta.content if chunk.choices else None
            if text:
                yield text

    return pieces


def llmbridge(base_url: str) -> Pieces:
    """This package, using only its public names."""
    client = import_module("llmbridge").Client(f"openai:{MODEL}", base_url=base_url, api_key="x")

    def pieces() -> Iterable[str]:
        stream: Iterable[str] = client.chat("hi")
        return stream

    return pieces


def requests_post(base_url: str) -> Pieces:
    """A plain `requests.post`: the whole answer first, then its pieces; every call opens a connection."""
    return _whole_answer(import_module("requests").post, base_url)


def session_post(base_url: str) -> Pieces:
    """The same with a kept `requests.Session`."""
    return _whole_answer(import_module("requests").Session().post, base_url)


def session_stream(base_url: str) -> Pieces:
    """A kept `requests.Session` with `stream=True`, reading lines as they come: llmbridge's work without llmbridge."""
    session = import_module("requests").Session()

    def pieces() -> Iterator[str]:
        url = f"{base_url}/chat/completions"
        with session.post(url, json=REQUEST, headers=HEADERS, stream=True) as response:
            response.raise_for_status()
            yield from _texts(response.iter_lines(chunk_size=None))

    return pieces


def httpx_stream(base_url: str) -> Pieces:
    """The same with a kept `httpx.Client`."""
    client = import_module("httpx").Client()

    def pieces() -> Iterator[str]:
        url = f"{base_url}/chat/completions"
        with client.stream("POST", url, json=REQUEST, headers=HEADERS) as response:
            response.raise_for_status()
            yield from _texts(line.encode() for line in response.iter_lines())

    return pieces


def _texts(lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            choices = json.loads(line[6:])["choices"]
            text = choices[0]["delta"].get("content") if choices else None
            if text:
                yield text


def _whole_answer(post: Callable[..., Any], base_url: str) -> Pieces:
    def pieces() -> Iterator[str]:
        response = post(f"{base_url}/chat/completions", json=REQUEST, headers=HEADERS)
        response.raise_for_status()
        for frame in response.content.split(b"\n\n"):
            if frame.startswith(b"data: ") and frame != b"data: [DONE]":
                choices = json.loads(frame[6:])["choices"]
                text = choices[0]["delta"].get("content") if choices else None
                if text:
                    yield text

    return pieces


FLOOR = "floor"
OURS = "llmbridge"
PLAIN = "requests+sseclient"
OPENAI = "openai"
POST = "requests.post"
SESSION = "session.post"
STREAM = "session.post+stream"
HTTPX = "httpx"

CONTENDERS: dict[str, Callable[[str], Pieces]] = {
    FLOOR: floor,
    OURS: llmbridge,
    PLAIN: requests_sseclient,
    "httpx-sse": httpx_sse,
    OPENAI: openai_sdk,
    POST: requests_post,
    SESSION: session_post,
    STREAM: session_stream,
    HTTPX: httpx_stream,
}
STREAMING = (FLOOR, OURS, PLAIN, "httpx-sse", OPENAI)
CALLING = (POST, SESSION, STREAM, HTTPX, FLOOR, OURS, PLAIN, "httpx-sse", OPENAI)
DISTRIBUTIONS = ("llmbridge", "requests", "urllib3", "sseclient-py", "httpx", "httpx-sse", "openai")
