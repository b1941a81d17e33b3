"""The process of one contender with async streams: one job per line of standard input, all in one event loop.

["open", base_url]                                            create the contender's client  -> {} or {"absent": why}
["run", streams, calls=1]                                     this many streams at once, timed
["read_slowly", pause, every]                                 one stream with a slow reader
["start_and_cancel", streams, at_once, longest, settle]       what cancelled streams leave behind
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.async_contenders import CONTENDERS, Streams
from benchmarks.async_server import allow_many_sockets
from benchmarks.worker import peak_bytes


async def read(pieces: Streams, count: list[int], interval: float = 0, late: list[float] | None = None) -> None:
    """One stream to its end; counts pieces and characters.

    Args:
        interval: Seconds between two pieces of the server; 0 if it does not pace them.
        late: Gets how much later each piece came than the earliest one of its stream would have it.
    """
    offsets = []
    async for piece in pieces():
        count[0] += 1
        count[1] += len(piece)
        if interval:
            offsets.append(time.perf_counter() - interval * len(offsets))
    if late is not None and offsets:
        on_time = min(offsets)
        late += [offset - on_time for offset in offsets]


async def run(pieces: Streams, streams: int, calls: int = 1, interval: float = 0) -> dict[str, Any]:
    """CPU and wall seconds of so many streams at once, `calls` times; errors are counted by their class."""
    count = [0, 0]
    late: list[float] = []
    errors: dict[str, int] = {}
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        reads = (read(pieces, count, interval, late) for _ in range(streams))
        for outcome in await asyncio.gather(*reads, return_exceptions=True):
            if outcome is not None:
                errors[type(outcome).__name__] = errors.get(type(outcome).__name__, 0) + 1
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "pieces": count[0], "chars": count[1], "errors": errors, "cpu": cpu, "wall": wall, "peak": peak_bytes(),
        "late": sorted(late)[len(late) * 99 // 100] if late else 0.0,
    }  # fmt: skip


async def read_slowly(pieces: Streams, pause: float, every: int) -> dict[str, Any]:
    """One stream whose reader rests for `pause` seconds after every `every` pieces."""
    before, start, count = peak_bytes(), time.perf_counter(), 0
    async for _ in pieces():
        count += 1
        if count % every == 0:
            await asyncio.sleep(pause)
    return {"pieces": count, "grown": peak_bytes() - before, "wall": time.perf_counter() - start}


async def start_and_cancel(
    pieces: Streams, streams: int, at_once: int, longest: float, settle: float
) -> dict[str, Any]:
    """This many streams, each cancelled at a random moment between its start and after its end.

    What is left is counted after a pause of `settle` seconds and one more stream: anyio ends worker threads that were
    idle for ten seconds, but only when it starts the next one.
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
    """A process's resources: threads, sockets and other file descriptors, tasks."""
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
    os.dup2(2, 1)  # other output must not get between the answers
    loop = asyncio.new_event_loop()
    opened: list[Any] = []  # kept: some clients complain when they are dropped
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


if __name__ == "__main__":
    allow_many_sockets()
    work(sys.argv[1])
