"""Many streams at once in one event loop: CPU and wall beside asyncio's peers, memory, and what cancelled streams leave.

The server is this module's own, in a process of its own: one thread and a selector, because a thread per connection
cannot pace 1,000 streams. `benchmarks.server` serves what is a single stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import heapq
import json
import os
import random
import re
import resource
import selectors
import socket
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from benchmarks.contenders import HEADERS, MODEL, OPENAI, OURS, REQUEST, dechunk
from benchmarks.harness import (
    FULL,
    QUICK,
    Child,
    Options,
    Rounds,
    Sample,
    Server,
    Sizes,
    Table,
    Target,
    WrongText,
    at_least,
    at_most,
    main,
    microseconds,
    shown,
)
from benchmarks.server import _writes, expected_text, mean_event_bytes
from benchmarks.worker import peak_bytes

PER_SECOND = 50
INTERVAL = 1_000_000 // PER_SECOND
FLOOR = "asyncio floor"
AIOHTTP = "aiohttp"

Streams = Callable[[], AsyncIterator[str]]


# -- the contenders ----------------------------------------------------------------------------------------------


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


def llmbridge(base_url: str) -> Streams:
    """This package, through its public names only."""
    client = import_module("llmbridge").Client(f"openai:{MODEL}", base_url=base_url, api_key="x")

    def pieces() -> AsyncIterator[str]:
        stream: AsyncIterator[str] = aiter(client.chat("hi"))
        return stream

    return pieces


CONTENDERS = {FLOOR: asyncio_floor, OURS: llmbridge, AIOHTTP: aiohttp, OPENAI: openai_sdk}


# -- a contender's process ---------------------------------------------------------------------------------------


async def read(pieces: Streams, count: list[int]) -> None:
    """One stream to its end; counts pieces and characters."""
    async for piece in pieces():
        count[0] += 1
        count[1] += len(piece)


async def run(pieces: Streams, streams: int, calls: int = 1) -> dict[str, Any]:
    """CPU and wall seconds of so many streams at once, `calls` times; errors are counted by their class."""
    count = [0, 0]
    errors: dict[str, int] = {}
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        for outcome in await asyncio.gather(*(read(pieces, count) for _ in range(streams)), return_exceptions=True):
            if outcome is not None:
                errors[type(outcome).__name__] = errors.get(type(outcome).__name__, 0) + 1
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"pieces": count[0], "chars": count[1], "errors": errors, "cpu": cpu, "wall": wall, "peak": peak_bytes()}


async def read_slowly(pieces: Streams, pause: float, every: int) -> dict[str, Any]:
    """One stream by a reader that rests for `pause` seconds after every so many pieces."""
    before, start, count = peak_bytes(), time.perf_counter(), 0
    async for _ in pieces():
        count += 1
        if count % every == 0:
            await asyncio.sleep(pause)
    return {"pieces": count, "grown": peak_bytes() - before, "wall": time.perf_counter() - start}


async def start_and_cancel(pieces: Streams, streams: int, at_once: int, longest: float) -> dict[str, Any]:
    """So many streams, each cancelled at a moment of its own between its start and after its end."""
    moments = random.Random(3)
    turn = asyncio.Semaphore(at_once)
    outcomes: dict[str, int] = {}

    async def one() -> None:
        async with turn:
            task = asyncio.ensure_future(read(pieces, [0, 0]))
            await asyncio.sleep(moments.random() ** 2 * longest)
            task.cancel()
            result = (await asyncio.gather(task, return_exceptions=True))[0]
            name = "finished" if result is None else type(result).__name__
            outcomes[name] = outcomes.get(name, 0) + 1

    before = held()
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(streams)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    end = time.perf_counter() + 12  # anyio's idle worker threads end after ten seconds, at the next use
    gc.collect()
    while (after := held()) != before and time.perf_counter() < end:
        await asyncio.sleep(0.1)
    return {"outcomes": outcomes, "before": before, "after": after, "cpu": cpu, "wall": wall, "peak": peak_bytes()}


def held() -> dict[str, int]:
    """What a process holds: threads, sockets and other file descriptors, tasks."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return {
        "threads": threading.active_count(),
        "sockets": sum(link.startswith("socket:") for link in links),
        "fds": len(links),
        "tasks": len(asyncio.all_tasks()),
    }


def work(name: str) -> None:
    """Answer jobs, one line of JSON each, until standard input ends; all in one event loop."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a contender prints must not come between the answers
    loop = asyncio.new_event_loop()
    pieces: Any = None
    jobs: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
        "run": run, "read_slowly": read_slowly, "start_and_cancel": start_and_cancel,
    }  # fmt: skip
    for line in sys.stdin:
        job, *arguments = json.loads(line)
        reply: dict[str, Any] = {}
        if job == "open":
            try:
                pieces = CONTENDERS[name](*arguments)
            except ModuleNotFoundError as error:
                reply = {"absent": str(error)}
        else:
            reply = loop.run_until_complete(jobs[job](pieces, *arguments))
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


# -- the server's process ----------------------------------------------------------------------------------------


class Connection:
    """A client's connection: what it asked for, and what is still to be sent."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.writes: list[bytes] = []
        self.next = 0
        self.interval = 0.0
        self.due = 0.0
        self.unsent = b""


class PacedServer:
    """Any number of streams at their pace, from one thread: `/paced/{events}/{microseconds}/v1/chat/completions`.

    On standard input it answers `open` with the number of open connections.
    """

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._due: list[tuple[float, int, Connection]] = []
        self._number = 0
        self._open = 0

    def serve(self) -> None:
        """Serve until standard input ends."""
        print(self._listener.getsockname()[1], flush=True)
        while True:
            wait = max(0.0, self._due[0][0] - time.perf_counter()) if self._due else None
            for key, mask in self._selector.select(wait):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is sys.stdin:
                    if not sys.stdin.readline():
                        return
                    print(self._open, flush=True)
                elif mask & selectors.EVENT_READ:
                    self._receive(key.data)
                else:
                    self._send(key.data, b"")
            now = time.perf_counter()
            while self._due and self._due[0][0] <= now:
                self._step(heapq.heappop(self._due)[2])

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._selector.register(sock, selectors.EVENT_READ, Connection(sock))
                self._open += 1

    def _close(self, connection: Connection) -> None:
        if connection.sock.fileno() >= 0:
            self._selector.unregister(connection.sock)
            connection.sock.close()
            self._open -= 1

    def _receive(self, connection: Connection) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.received += data
        head, end, rest = connection.received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not end or len(rest) < int(length[1] if length else 0):
            return
        connection.received = b""
        _, mode, events, microseconds, *_ = head.split(b" ", 2)[1].decode().split("/")
        connection.writes, connection.next = _writes(mode, int(events)), 0
        connection.interval, connection.due = int(microseconds) / 1e6, time.perf_counter()
        self._schedule(connection)

    def _schedule(self, connection: Connection) -> None:
        self._number += 1
        heapq.heappush(self._due, (connection.due, self._number, connection))

    def _step(self, connection: Connection) -> None:
        """The next send. The head, and what ends the stream, wait for nothing."""
        self._send(connection, connection.writes[connection.next])
        connection.next += 1
        connection.due += connection.interval
        if connection.next < len(connection.writes) and connection.sock.fileno() >= 0:
            self._schedule(connection)

    def _send(self, connection: Connection, data: bytes) -> None:
        data = connection.unsent + data
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(connection)
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if sent < len(data) else 0)
        if bool(connection.unsent) != (sent < len(data)):
            self._selector.modify(connection.sock, events, connection)
        connection.unsent = data[sent:]


# -- what is measured --------------------------------------------------------------------------------------------


class Paced(Child):
    """`PacedServer` in its process."""

    def __init__(self) -> None:
        super().__init__("benchmarks.async_streams", "serve")
        self.root = f"http://127.0.0.1:{int(self.read())}"

    def __enter__(self) -> Paced:
        return self

    def base_url(self, events: int, microseconds: int) -> str:
        """Under it every request is answered with so many events, and so much time between two of them."""
        return f"{self.root}/paced/{events}/{microseconds}/v1"

    def open(self) -> int:
        """How many connections are open now."""
        return int(self.ask("open"))


class Worker(Child):
    """The process of one contender."""

    def __init__(self, name: str) -> None:
        super().__init__("benchmarks.async_streams", "work", name)
        self.name = name

    def __enter__(self) -> Worker:
        return self

    def job(self, *job: object) -> dict[str, Any]:
        """Send one job, return its answer."""
        reply: dict[str, Any] = json.loads(self.ask(json.dumps(job)))
        return reply


def interleave(names: list[str], url: str, events: int, processes: int, rounds: int, streams: int = 1) -> Rounds:
    """Like `harness.interleave`, for jobs of so many streams at once; a wrong text from llmbridge voids the run.

    A peer that fails is noted as absent: some cannot carry a thousand streams.
    """
    result = Rounds()
    wanted = [events * streams, len(expected_text(events)) * streams]
    for _ in range(processes):
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(name)) for name in names if name not in result.absent]
            for number in range(-1, rounds):  # the first is to warm up
                for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:
                    if worker.name in result.absent:
                        continue
                    if number < 0:
                        absent = worker.job("open", url).get("absent")
                        if absent:
                            result.absent[worker.name] = absent
                            continue
                    got = worker.job("run", streams if number >= 0 else 1)
                    if number < 0:
                        continue
                    if [got["pieces"], got["chars"]] != wanted or got["errors"]:
                        said = f"{wanted[0] - got['pieces']} of {wanted[0]} pieces missing, {got['errors']}"
                        if worker.name == OURS:
                            raise WrongText(f"{OURS}: {said}")
                        result.absent[worker.name] = said
                        continue
                    sample = Sample(got["cpu"], got["wall"])
                    result.samples.setdefault(worker.name, []).append(sample)
                    print(worker.name, streams, sample, f"{got['peak'] / 1e6:.0f} MB", file=sys.stderr)
    return result


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        PacedServer().serve()
    elif sys.argv[1:2] == ["work"]:
        work(sys.argv[2])
