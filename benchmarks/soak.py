"""Thousands of calls with random faults: nothing may grow, and every answer must be whole or a typed error.

    python -m benchmarks.soak --calls 5000
    python -m benchmarks.soak --calls 100000 --seed 7

Threads and the tasks of an event loop share one client, in turn. The server is a process of its own. Each call's fault
is drawn at random and named in its prompt, so that its right outcome is known. One call in ten is left early. The exit
code is 1 if memory, descriptors or threads grow, if a call exceeds its total timeout by more than half a second, or if
an outcome differs from the catalogue of faults.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import random
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Child, Table, versions
from benchmarks.worker import peak_bytes
from llmbridge import ChatStream, Client, LLMBridgeError
from llmbridge.testing import LLMServer, Received, Reply
from llmbridge.testing.faults import FAULTS, Fault

GOOD = "good"
GOOD_TEXT = "".join(f"word {number} " for number in range(20))
PLAYED = {name: fault for name, fault in FAULTS.items() if fault.scripted and not fault.heavy and name != "wait-a-day"}
ROUNDS = 10
THREADS, TASKS = 16, 50
TOTAL, HANGING_TOTAL = 60.0, 0.4
MEMORY_LIMIT = 10e6
ENDING = 2.0  # seconds


def serve() -> None:
    """The server's process: prints its port, and answers as each prompt says until its input ends."""

    def answer(received: Received) -> Reply:
        name = received.json["messages"][0]["content"].split()[-1]
        script = PLAYED[name].reply() if name in PLAYED else Reply([f"word {number} " for number in range(20)])
        return script if isinstance(script, Reply) else script(received)

    with LLMServer(answer, record=False) as server:
        print(server.root.rpartition(":")[2], flush=True)
        for _ in sys.stdin:
            continue


@dataclass
class Soak:
    """The calls of a run, and their wrong outcomes."""

    client: Client
    random: random.Random
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    latest: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def drawn(self, count: int) -> list[tuple[str, bool]]:
        """This many calls: the name of each one's fault, and whether it is left early."""
        names = list(PLAYED)
        return [
            (GOOD if self.random.random() < 0.4 else self.random.choice(names), self.random.random() < 0.1)
            for _ in range(count)
        ]

    def stream(self, name: str, number: int) -> ChatStream:
        """One call."""
        fault = PLAYED.get(name)
        total = HANGING_TOTAL if fault is not None and fault.hangs else TOTAL
        return self.client.chat(f"call {number} meets {name}", timeout=total)

    def note(self, name: str, left: bool, text: str, error: LLMBridgeError | None, seconds: float) -> None:
        """Compares an outcome with the expected one."""
        fault = PLAYED.get(name)
        problem = _problem(fault, left, text, error)
        late = seconds - (HANGING_TOTAL if fault is not None and fault.hangs else TOTAL)
        with self._lock:
            self.outcomes["left early" if left and error is None else type(error).__name__ if error else "whole"] += 1
            self.latest = max(self.latest, late)
            if problem:
                self.wrong.append(f"{name}: {problem}")

    def by_threads(self, calls: list[tuple[str, bool]]) -> None:
        """All calls, from a pool of threads."""

        def work(number: int, name: str, leave: bool) -> None:
            pieces: list[str] = []
            error, left, started = None, False, time.monotonic()
            try:
                with self.stream(name, number) as stream:
                    for piece in stream:
                        pieces.append(piece)
                        if leave:
                            left = True
                            break
            except LLMBridgeError as caught:
                error = caught
            self.note(name, left, "".join(pieces), error, time.monotonic() - started)

        with ThreadPoolExecutor(THREADS) as pool:
            for done in [pool.submit(work, number, *call) for number, call in enumerate(calls)]:
                done.result()

    async def by_tasks(self, calls: list[tuple[str, bool]]) -> None:
        """All calls, from tasks of an event loop; calls left early are cancelled."""
        room = asyncio.Semaphore(TASKS)

        async def read(number: int, name: str, pieces: list[str]) -> None:
            async for piece in self.stream(name, number):
                pieces.append(piece)

        async def work(number: int, name: str, leave: bool) -> None:
            pieces: list[str] = []
            error, left = None, False
            async with room:
                started = time.monotonic()
                try:
                    limit = random.Random(number).random() * 0.05 if leave else None
                    await asyncio.wait_for(read(number, name, pieces), limit)
                except LLMBridgeError as caught:
                    error = caught
                except asyncio.TimeoutError:
                    left = True
                self.note(name, left, "".join(pieces), error, time.monotonic() - started)

        await asyncio.gather(*(work(number, *call) for number, call in enumerate(calls)))


def _problem(fault: Fault | None, left: bool, text: str, error: LLMBridgeError | None) -> str:
    """What is wrong with an outcome; "" if it is right."""
    wanted = GOOD_TEXT if fault is None else fault.text
    kind = "" if fault is None else fault.error
    if left:
        return "" if wanted.startswith(text) else f"left after {text!r}"
    if (type(error).__name__ if error else "") != kind:
        return f"{error!r} instead of {kind or 'the text'}"
    if text != wanted:
        return f"{text!r} instead of {wanted!r}"
    return "" if error is None or error.partial == text else f".partial is {error.partial!r}, but {text!r} was read"


@dataclass(frozen=True)
class Held:
    """The resources of a process."""

    memory: int
    descriptors: int
    threads: int


def held() -> Held:
    """This process's resources, after threads that were about to end have ended."""
    gc.collect()
    threads = _threads()
    return Held(_resident(), _descriptors(), threads)


def _threads() -> int:
    """The threads without the watchdog. The workers of an event loop end soon after it."""
    end = time.monotonic() + ENDING
    while True:
        count = sum(thread.name != "llmbridge-watchdog" for thread in threading.enumerate())
        if count == 1 or time.monotonic() > end:
            return count
        time.sleep(0.005)


def _resident() -> int:
    status = Path("/proc/self/status")
    found = re.search(r"VmRSS:\s*(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else peak_bytes()


def _descriptors() -> int:
    folder = "/proc/self/fd" if os.path.exists("/proc/self/fd") else "/dev/fd"
    return len(os.listdir(folder))


@contextlib.contextmanager
def soaking(seed: int) -> Iterator[Soak]:
    """A run with its server and client."""
    with Child("benchmarks.soak", "--serve") as server:
        base_url = f"http://127.0.0.1:{int(server.read())}/v1"
        with Client("openai:m", base_url=base_url, api_key="sk-test", retries=0) as client:
            yield Soak(client, random.Random(seed))


def rounds(run: Soak, calls: int) -> Iterator[tuple[int, Held]]:
    """The calls, half of each round by threads and half by tasks; the resources after it, without kept connections."""
    size = max(2, calls // ROUNDS)
    for number in range(ROUNDS):
        run.by_threads(run.drawn(size // 2))
        asyncio.run(run.by_tasks(run.drawn(size - size // 2)))
        run.client.close()
        yield (number + 1) * size, held()


def main() -> int:
    """The exit code: 1 if something grew or was wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--grace", type=float, default=0.5, help="seconds by which a call may exceed its total timeout")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    print(f"{versions()}\nseed {options.seed}", flush=True)
    started = time.monotonic()
    with soaking(options.seed) as run:
        kept = dict(rounds(run, options.calls))
    rows = [
        [str(calls), f"{now.memory / 1e6:.1f} MB", str(now.descriptors), str(now.threads)]
        for calls, now in kept.items()
    ]
    print(f"\n{Table('Resources after this many calls', ('calls', 'memory', 'descriptors', 'threads'), rows)}")
    shown = [[kind, str(count)] for kind, count in run.outcomes.most_common()]
    print(Table(f"Outcomes, in {time.monotonic() - started:.0f} s", ("outcome", "calls"), shown))
    problems = _verdict(list(kept.values()), run, options.grace)
    print("\n".join(problems) or f"nothing grew; no call exceeded its timeout by more than {max(0, run.latest):.2f} s")
    return 1 if problems else 0


def _verdict(kept: list[Held], run: Soak, grace: float) -> list[str]:
    # The first rounds warm up memory pools, modules and buffers.
    warm, last = kept[len(kept) // 3], kept[-1]
    problems = [f"WRONG {count} x {what}" for what, count in Counter(run.wrong).most_common(20)]
    if last.memory - warm.memory > MEMORY_LIMIT:
        problems.append(f"GREW memory by {(last.memory - warm.memory) / 1e6:.1f} MB")
    if last.descriptors > warm.descriptors:
        problems.append(f"GREW descriptors by {last.descriptors - warm.descriptors}")
    if last.threads > warm.threads:
        problems.append(f"GREW threads by {last.threads - warm.threads}")
    if run.latest > grace:
        problems.append(f"LATE a call exceeded its total timeout by {run.latest:.2f} s")
    return problems


if __name__ == "__main__":
    raise SystemExit(main())
