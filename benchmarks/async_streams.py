"""Many async streams at once: CPU and wall beside asyncio's peers, memory, and what cancelled streams leave.

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
from dataclasses import replace
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


async def start_and_cancel(
    pieces: Streams, streams: int, at_once: int, longest: float, settle: float
) -> dict[str, Any]:
    """So many streams, each cancelled at a moment of its own between its start and after its end.

    What is left is counted after a pause of `settle` seconds and one more stream: anyio ends worker threads that have
    been idle for ten seconds, but only when the next one is asked for.
    """
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

    await read(pieces, [0, 0])
    before = held()
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one() for _ in range(streams)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await asyncio.sleep(settle)
    await read(pieces, [0, 0])
    gc.collect()
    await asyncio.sleep(settle / 10)
    after = held()
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
    opened: list[Any] = []  # all of them: some clients complain when they are dropped
    jobs: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
        "run": run, "read_slowly": read_slowly, "start_and_cancel": start_and_cancel,
    }  # fmt: skip
    for line in sys.stdin:
        job, *arguments = json.loads(line)
        reply: dict[str, Any] = {}
        if job == "open":
            try:
                opened.append(CONTENDERS[name](*arguments))
            except ModuleNotFoundError as error:
                reply = {"absent": str(error)}
        else:
            reply = loop.run_until_complete(jobs[job](opened[-1], *arguments))
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
    """Any number of streams at their pace, from one thread: `/paced/{events}/{microseconds}/v1/chat/completions`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._due: list[tuple[float, int, Connection]] = []
        self._number = 0

    def serve(self) -> None:
        """Serve until standard input ends."""
        print(self._listener.getsockname()[1], flush=True)
        while True:
            wait = max(0.0, self._due[0][0] - time.perf_counter()) if self._due else None
            for key, mask in self._selector.select(wait):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is sys.stdin:
                    return  # it has ended: the parent is gone
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

    def _close(self, connection: Connection) -> None:
        if connection.sock.fileno() >= 0:
            self._selector.unregister(connection.sock)
            connection.sock.close()

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


def interleave(names: list[str], url: str, events: int, sizes: Sizes, streams: int = 1) -> Rounds:
    """Like `harness.interleave`, for jobs of so many streams at once; anything that llmbridge lacks voids the run.

    A peer that fails is noted as absent: some cannot carry a thousand streams.
    """
    result = Rounds()
    wanted = [events * streams, len(expected_text(events)) * streams]
    for _ in range(sizes.processes):
        with ExitStack() as stack:
            workers = [stack.enter_context(Worker(name)) for name in names if name not in result.absent]
            for worker in workers:
                if absent := worker.job("open", url).get("absent"):
                    result.absent[worker.name] = absent
                else:
                    worker.job("run", 1)
            for number in range(sizes.rounds):
                for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:
                    if worker.name not in result.absent:
                        _take(result, worker, wanted, streams)
    for name in result.absent:
        result.samples.pop(name, None)
    return result


def _take(result: Rounds, worker: Worker, wanted: list[int], streams: int) -> None:
    got = worker.job("run", streams)
    if [got["pieces"], got["chars"]] == wanted and not got["errors"]:
        result.samples.setdefault(worker.name, []).append(Sample(got["cpu"], got["wall"]))
        PEAKS[worker.name] = max(PEAKS.get(worker.name, 0), got["peak"])
        return
    said = f"{wanted[0] - got['pieces']} of {wanted[0]} pieces missing, {got['errors']}"
    if worker.name == OURS:
        raise WrongText(f"{OURS}: {said}")
    result.absent[worker.name] = said


PEAKS: dict[str, int] = {}


def wall(rounds: Rounds, name: str) -> float:
    """Median wall seconds of a contender."""
    return statistics.median(sample.wall for sample in rounds.samples[name])


def limit(says: str, measured: float, most: float, unit: str = "") -> Target:
    """The target that what was measured is at most so much."""
    return Target(f"{says} <= {most:g}{unit}", f"{measured:.2f}{unit}", measured <= most)


def choose(options: Options) -> list[str]:
    """The contenders that the command line wants; `floor` stands for asyncio's too."""
    return [
        name
        for name in CONTENDERS
        if not options.only or name in options.only or (name == FLOOR and "floor" in options.only)
    ]


def at_their_pace(options: Options) -> Iterator[Table]:
    """200 and 1,000 streams of 50 pieces per second."""
    smoke = options.sizes.events < QUICK.events
    names = choose(options)
    with Paced() as server:
        for streams, seconds, processes in ((10, 0.2, 1),) if smoke else ((200, 5, 3), (1000, 5, 2)):
            PEAKS.clear()
            events = int(PER_SECOND * seconds)
            sizes = replace(options.sizes, processes=min(processes, options.sizes.processes), rounds=1)
            rounds = interleave(names, server.base_url(events, INTERVAL), events, sizes, streams)
            rows = microseconds(rounds, names, AIOHTTP, events * streams)
            for row in rows:
                kept = row[0] in rounds.samples
                row[-1] = f"{wall(rounds, row[0]) / seconds:.2f}" if kept else ""
                row.append(f"{PEAKS[row[0]] / 1e6:.0f} MB" if kept else "")
            targets = []
            if streams < 1000:
                targets += at_most(rounds, OURS, AIOHTTP, 1.5) + at_most(rounds, OURS, OPENAI, 0.5)
                targets.append(limit(f"{OURS}, wall by pace", wall(rounds, OURS) / seconds, 1.1))
            else:
                targets.append(limit(f"{OURS}, peak memory", PEAKS[OURS] / 1e6, 200, " MB"))
                if AIOHTTP in rounds.samples:
                    ratio = wall(rounds, OURS) / wall(rounds, AIOHTTP)
                    targets.append(limit(f"{OURS}, wall by {AIOHTTP}'s", ratio, 2))
            columns = ("contender", "CPU us/piece", "lowest", f"x {AIOHTTP}", "wall / pace", "peak memory")
            yield Table(f"{streams} streams x {PER_SECOND} pieces/s over {seconds:g} s", columns, rows, targets)


def one_stream(options: Options) -> Iterator[Table]:
    """CPU per piece of one stream, at full speed and at a model's pace."""
    sizes, names = options.sizes, choose(options)
    columns = ("contender", "CPU us/piece", "lowest", f"x {FLOOR}", "wall us/piece")
    with Server() as server:
        for mode, title in (("one", "one event per HTTP chunk"), ("coalesced", "50 events per HTTP chunk")):
            rounds = interleave(names, server.base_url(mode, sizes.events), sizes.events, sizes)
            rows = microseconds(rounds, names, FLOOR, sizes.events)
            targets = at_most(rounds, OURS, FLOOR, 2.0) + at_least(rounds, OPENAI, OURS, 15)
            yield Table(f"One async stream at full speed, {title}", columns, rows, targets)
        rounds = interleave(names, server.base_url("paced", sizes.paced_events, 1000), sizes.paced_events, sizes)
        rows = microseconds(rounds, names, FLOOR, sizes.paced_events)
        targets = at_most(rounds, OURS, FLOOR, 1.5)
        yield Table("One async stream, one event every 1000 us", columns, rows, targets)


def slow_reader(options: Options) -> Iterator[Table]:
    """A reader ten times slower than the server: who reads ahead grows by what waits for the reader."""
    events = round(options.sizes.megabytes * 1e6 / mean_event_bytes("bulky"))
    rows, targets = [], []
    with Server() as server:
        for name in choose(options):
            with Worker(name) as worker:
                if absent := worker.job("open", server.base_url("bulky", 2000)).get("absent"):
                    rows.append([name, f"absent: {absent}", ""])
                    continue
                worker.job("run", 1)
                quick = worker.job("run", 1)["wall"] / 2000
                worker.job("open", server.base_url("bulky", events))
                # The reader's own rest makes the whole ten times as long as reading alone takes.
                got = worker.job("read_slowly", quick * 9 * 50, 50)
            if got["pieces"] != events:
                raise WrongText(f"{name}: {got['pieces']} of {events} pieces")
            rows.append([name, f"{got['grown'] / 1e6:.2f} MB", f"{got['wall']:.1f} s"])
            if name == OURS:
                targets.append(limit(f"{OURS}, growth", got["grown"] / 1e6, 8, " MB"))
    title = f"Memory: a reader ten times slower than the server, {options.sizes.megabytes} MB"
    yield Table(title, ("contender", "growth of the peak", "wall"), rows, targets)


def cancelled(options: Options) -> Iterator[Table]:
    """What is left of streams that were started and cancelled at random moments."""
    streams = {FULL.events: 10_000, QUICK.events: 2_000}.get(options.sizes.events, 50)
    rows, targets = [], []
    with Paced() as server:
        for name in choose(options):
            with Worker(name) as worker:
                if absent := worker.job("open", server.base_url(10, 2000)).get("absent"):
                    rows.append([name, f"absent: {absent}", "", "", ""])
                    continue
                got = worker.job("start_and_cancel", streams, 100, 0.25, 0.1 if streams < 100 else 11)
            left = {what: got["after"][what] - got["before"][what] for what in got["before"]}
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(got["outcomes"].items()))
            cpu = f"{got['cpu'] / streams * 1e6:.0f}"
            shown_left = " ".join(f"{what} {count:+d}" for what, count in left.items())
            rows.append([name, cpu, f"{got['wall']:.1f} s", shown_left, outcomes])
            if name == OURS:
                met = not left["threads"] and not left["tasks"] and left["fds"] == left["sockets"] <= 64
                targets.append(Target(f"{OURS}: nothing left but idle connections", shown_left, met))
    columns = ("contender", "CPU us/stream", "wall", "left", "outcomes")
    yield Table(f"{streams} streams started and cancelled at random moments", columns, rows, targets)


def measure(options: Options) -> Iterator[Table]:
    """All of them."""
    for part in (at_their_pace, one_stream, slow_reader, cancelled):
        yield from part(options)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a thousand sockets are more than some systems grant
    if sys.argv[1:2] == ["serve"]:
        PacedServer().serve()
    elif sys.argv[1:2] == ["work"]:
        work(sys.argv[2])
    else:
        main(__doc__, measure)
