"""The process of one contender with many simultaneous calls: one job per line of standard input, in one event loop.

    python -m benchmarks.many_calls_worker NAME [PATH]    the package in that directory instead of this tree's

["open", base_url]                      create the contender's client  -> {} or {"absent": why}
["many", calls, at_once, look]          this many async calls at once, or under a semaphore, beside a task that ticks
["cancel", after]                       one call, cancelled after this many seconds
["open_blocking", base_url]             the blocking contender of that name
["threads", calls, threads]             this many blocking calls, from this many threads
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import contenders
from benchmarks.async_contenders import MANY, Streams
from benchmarks.async_server import allow_many_sockets
from benchmarks.worker import peak_bytes

TICK = 0.005
SETTLED = 1.0  # seconds after the last first piece


class Crowd:
    """Many simultaneous calls, and the measurements of a task beside them."""

    def __init__(self, calls: int, look: float | None) -> None:
        self.calls = calls
        self.look = look
        self.start = time.perf_counter()
        self.firsts: list[float] = []
        self.chars = self.ended = 0
        self.errors: dict[str, int] = {}
        self.longest = self.longest_cpu = 0.0
        self.most = self.later = threading.active_count()
        self.in_flight = 0

    async def read(self, pieces: Streams) -> None:
        """Read the answer of one call to its end."""
        size = 0
        try:
            async for piece in pieces():
                if not size:
                    self.firsts.append(time.perf_counter() - self.start)
                size += len(piece)
        except Exception as error:  # noqa: BLE001 - counted
            name = type(error).__name__
            self.errors[name] = self.errors.get(name, 0) + 1
        self.chars += size
        self.ended += 1

    async def tick(self) -> None:
        """Measure delays by waking every 5 ms. Count threads, once more after `look` seconds.

        The CPU time between two turns is this process's share of a delay; the machine causes the rest.
        """
        last, last_cpu = time.perf_counter(), time.process_time()
        looked = False
        while True:
            await asyncio.sleep(TICK)
            now, cpu = time.perf_counter(), time.process_time()
            self.longest, last = max(self.longest, now - last - TICK), now
            self.longest_cpu, last_cpu = max(self.longest_cpu, cpu - last_cpu), cpu
            self.most = max(self.most, threads := threading.active_count())
            if self.look is None and len(self.firsts) == self.calls:
                self.look = max(self.firsts) + SETTLED
            if not looked and self.look is not None and now - self.start > self.look:
                looked, self.later, self.in_flight = True, threads, self.calls - self.ended


async def many(pieces: Streams, calls: int, at_once: int, look: float | None = None) -> dict[str, Any]:
    """Make this many calls at once.

    Args:
        at_once: The size of the semaphore; 0 for no semaphore.
        look: Seconds after which threads are counted again; None for a second after the last first piece.
    """
    turn = asyncio.Semaphore(at_once or calls)
    gc.collect()
    crowd = Crowd(calls, look)

    async def one() -> None:
        async with turn:
            await crowd.read(pieces)

    ticking = asyncio.ensure_future(crowd.tick())
    await asyncio.sleep(2 * TICK)
    cpu = time.process_time()
    crowd.start = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(calls)))
    wall, cpu = time.perf_counter() - crowd.start, time.process_time() - cpu
    await asyncio.sleep(2 * TICK)
    ticking.cancel()
    cuts = statistics.quantiles(crowd.firsts, n=100) if len(crowd.firsts) > 1 else [0.0] * 99
    return {
        "cpu": cpu, "wall": wall, "chars": crowd.chars, "errors": crowd.errors, "peak": peak_bytes(),
        "longest": crowd.longest, "longest_cpu": crowd.longest_cpu, "p50": cuts[49], "p99": cuts[98],
        "most": crowd.most, "later": crowd.later, "in_flight": crowd.in_flight, "look": crowd.look,
    }  # fmt: skip


async def cancel(pieces: Streams, after: float) -> dict[str, Any]:
    """The time from cancelling a task until it has ended."""
    task = asyncio.ensure_future(Crowd(1, None).read(pieces))
    due = time.perf_counter() + after
    await asyncio.sleep(after)
    late = task.done()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return {"took": time.perf_counter() - due, "late": late}


def in_threads(pieces: contenders.Pieces, calls: int, threads: int) -> dict[str, Any]:
    """Make this many blocking calls."""
    errors: dict[str, int] = {}

    def one(_: int) -> int:
        try:
            return sum(map(len, pieces()))
        except Exception as error:  # noqa: BLE001 - counted
            errors[type(error).__name__] = errors.get(type(error).__name__, 0) + 1
            return 0

    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        chars = sum(pool.map(one, range(calls)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu": cpu, "wall": wall, "chars": chars, "errors": errors, "peak": peak_bytes()}


def work(name: str) -> None:
    """Answer jobs until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other output must not get between the answers
    loop = asyncio.new_event_loop()
    opened: list[Any] = []  # kept: some clients complain when they are dropped
    makers: dict[str, dict[str, Callable[[str], Any]]] = {"open": MANY, "open_blocking": contenders.CONTENDERS}
    for line in sys.stdin:
        job, *arguments = json.loads(line)
        reply: dict[str, Any] = {}
        if job in makers:
            try:
                opened.append(makers[job][name](*arguments))
            except ModuleNotFoundError as error:
                reply = {"absent": str(error)}
        elif job == "threads":
            reply = in_threads(opened[-1], *arguments)
        else:
            reply = loop.run_until_complete({"many": many, "cancel": cancel}[job](opened[-1], *arguments))
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    allow_many_sockets()
    sys.path[:0] = sys.argv[2:]
    work(sys.argv[1])
