"""The contenders for async streams, each written as its users would write it; see `benchmarks.contenders`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from benchmarks.contenders import HEADERS, MODEL, OPENAI, OURS, REQUEST, dechunk

FLOOR = "asyncio floor"
AIOHTTP = "aiohttp"
HTTPX = "httpx-sse"
AWAITED = f"{OURS}, awaited"
QUEUED = f"{OURS}, queued"
AT_ONCE = 16  # requests of `QUEUED`

Streams = Callable[[], AsyncIterator[str]]


def asyncio_floor(base_url: str) -> Streams:
    """asyncio's own streams and the standard library, without checks."""
    parts = urlsplit(base_url)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    body = json.dumps(REQUEST).encode()
    request = (
        f"POST {parts.path}/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer x\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )

    async def pieces() -> AsyncIterator[str]:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        wire = events = b""
        while True:
            received = await reader.read(65536)
            if not received:
                raise ConnectionResetError("the server closed the connection")
            data, wire, ended = dechunk(wire + received)
            frames = (events + data).split(b"\n\n")
            events = frames.pop()
            for frame in frames:
                if frame.startswith(b"data: ") and frame != b"data: [DONE]":
                    choices = json.loads(frame[6:])["choices"]
                    if choices and (text := choices[0]["delta"].get("content")):
                        yield text
            if ended:
                idle.append((reader, writer))
                return

    return pieces


def aiohttp(base_url: str) -> Streams:
    """`aiohttp` on a kept session, its lines read one by one, as its users parse server-sent events."""
    module = import_module("aiohttp")
    session: Any = None

    async def pieces() -> AsyncIterator[str]:
        nonlocal session
        if session is None:
            session = module.ClientSession(connector=module.TCPConnector(limit=0))
        url = f"{base_url}/chat/completions"
        async with session.post(url, json=REQUEST, headers=HEADERS) as response:
            response.raise_for_status()
            async for line in response.content:
                if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                    choices = json.loads(line[6:])["choices"]
                    if choices and (text := choices[0]["delta"].get("content")):
                        yield text

    return pieces


def openai_sdk(base_url: str) -> Streams:
    """The `openai` SDK's async client, streaming."""
    client = import_module("openai").AsyncOpenAI(base_url=base_url, api_key="x", max_retries=0)

    async def pieces() -> AsyncIterator[str]:
        async for chunk in await client.chat.completions.create(**REQUEST):
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield text

    return pieces


def httpx_sse(base_url: str) -> Streams:
    """`httpx` with `httpx-sse` on a kept client with as many connections as needed."""
    httpx = import_module("httpx")
    client = httpx.AsyncClient(limits=httpx.Limits(max_connections=None), timeout=None)
    connect_sse = import_module("httpx_sse").aconnect_sse

    async def pieces() -> AsyncIterator[str]:
        url = f"{base_url}/chat/completions"
        async with connect_sse(client, "POST", url, json=REQUEST, headers=HEADERS) as source:
            source.response.raise_for_status()
            async for event in source.aiter_sse():
                if event.data != "[DONE]":
                    choices = json.loads(event.data)["choices"]
                    if choices and (text := choices[0]["delta"].get("content")):
                        yield text

    return pieces


def llmbridge(base_url: str, **options: Any) -> Streams:
    """This package, using only its public names."""
    client = import_module("llmbridge").Client(f"openai:{MODEL}", base_url=base_url, api_key="x", **options)

    def pieces() -> AsyncIterator[str]:
        stream: AsyncIterator[str] = aiter(client.chat("hi"))
        return stream

    return pieces


def awaited(base_url: str) -> Streams:
    """This package: `await` for the whole answer."""
    client = import_module("llmbridge").Client(f"openai:{MODEL}", base_url=base_url, api_key="x")

    async def pieces() -> AsyncIterator[str]:
        yield (await client.chat("hi")).text

    return pieces


def queued(base_url: str) -> Streams:
    """This package, with `Limits`."""
    return llmbridge(base_url, limits=import_module("llmbridge").Limits(concurrency=AT_ONCE))


CONTENDERS = {FLOOR: asyncio_floor, OURS: llmbridge, AIOHTTP: aiohttp, OPENAI: openai_sdk}
MANY = {OURS: llmbridge, AWAITED: awaited, QUEUED: queued, HTTPX: httpx_sse, AIOHTTP: aiohttp, OPENAI: openai_sdk}
