"""Many simultaneous async streams: CPU and wall time compared with asyncio's peers, memory, and cancelled streams.

The paced streams come from `benchmarks.async_server`; single streams from `benchmarks.server`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from benchmarks.async_contenders import AIOHTTP, CONTENDERS, FLOOR
from benchmarks.contenders import OPENAI, OURS
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
from benchmarks.server import expected_text, mean_event_bytes

PER_SECOND = 50
INTERVAL = 1_000_000 // PER_SECOND


class Paced(Child):
    """`PacedServer` in its process."""

    def __init__(self) -> None:
        super().__init__("benchmarks.async_server")
        self.root = f"http://127.0.0.1:{int(self.read())}"

    def __enter__(self) -> Paced:
        return self

    def base_url(self, mode: str, events: int, microseconds: int) -> str:
        """The base URL for answers with this many events and this much time between two of them."""
        return f"{self.root}/{mode}/{events}/{microseconds}/v1"

    def connections(self) -> int:
        """How many TCP connections were accepted so far."""
        return int(self.ask("connections"))


class Worker(Child):
    """The process of one contender."""

    def __init__(self, name: str) -> None:
        super().__init__("benchmarks.async_worker", name)
        self.name = name

    def __enter__(self) -> Worker:
        return self

    def job(self, *job: object) -> dict[str, Any]:
        """Send one job, return its answer."""
        reply: dict[str, Any] = json.loads(self.ask(json.dumps(job)))
        return reply


def interleave(names: list[str], url: str, events: int, sizes: Sizes, streams: int = 1, interval: float = 0) -> Rounds:
    """Like `harness.interleave`, for jobs of several streams at once; missing text voids the run for llmbridge.

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
                        _take(result, worker, wanted, streams, interval)
    for name in result.absent:
        result.samples.pop(name, None)
    return result


def _take(result: Rounds, worker: Worker, wanted: list[int], streams: int, interval: float) -> None:
    got = worker.job("run", streams, 1, interval)
    if [got["pieces"], got["chars"]] == wanted and not got["errors"]:
        result.samples.setdefault(worker.name, []).append(Sample(got["cpu"], got["wall"]))
        LATE.setdefault(worker.name, []).append(got["late"])
        PEAKS[worker.name] = max(PEAKS.get(worker.name, 0), got["peak"])
        return
    said = f"{wanted[0] - got['pieces']} of {wanted[0]} pieces missing, {got['errors']}"
    if worker.name == OURS:
        raise WrongText(f"{OURS}: {said}")
    result.absent[worker.name] = said


PEAKS: dict[str, int] = {}
LATE: dict[str, list[float]] = {}  # seconds, within which 99 of 100 pieces came after they were due


def wall(rounds: Rounds, name: str) -> float:
    """Median wall seconds of a contender."""
    return statistics.median(sample.wall for sample in rounds.samples[name])


def limit(says: str, measured: float, most: float, unit: str = "") -> Target:
    """The target that a measured value does not exceed a limit."""
    return Target(f"{says} <= {most:g}{unit}", f"{measured:.2f}{unit}", measured <= most)


def choose(options: Options) -> list[str]:
    """The contenders wanted on the command line; `floor` stands for asyncio's as well."""
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
            LATE.clear()
            events = int(PER_SECOND * seconds)
            sizes = replace(options.sizes, processes=min(processes, options.sizes.processes), rounds=1)
            rounds = interleave(
                names, server.base_url("paced", events, INTERVAL), events, sizes, streams, INTERVAL / 1e6
            )
            rows = microseconds(rounds, names, AIOHTTP, events * streams)
            for row in rows:
                kept = row[0] in rounds.samples
                row[-1] = f"{wall(rounds, row[0]) / seconds:.2f}" if kept else ""
                row.append(f"{statistics.median(LATE[row[0]]) * 1e3:.0f} ms" if kept else "")
                row.append(f"{PEAKS[row[0]] / 1e6:.0f} MB" if kept else "")
            targets = []
            if streams < 1000:
                targets += at_most(rounds, OURS, AIOHTTP, 1.15) + at_most(rounds, OURS, OPENAI, 0.5)
                targets.append(limit(f"{OURS}, p99 late", statistics.median(LATE[OURS]) * 1e3, 60, " ms"))
                targets.append(limit(f"{OURS}, wall by pace", wall(rounds, OURS) / seconds, 1.1))
            else:
                targets.append(limit(f"{OURS}, peak memory", PEAKS[OURS] / 1e6, 200, " MB"))
                if AIOHTTP in rounds.samples:
                    ratio = wall(rounds, OURS) / wall(rounds, AIOHTTP)
                    targets.append(limit(f"{OURS}, wall by {AIOHTTP}'s", ratio, 2))
            columns = ("contender", "CPU us/piece", "lowest", f"x {AIOHTTP}", "wall / pace", "p99 late", "peak memory")
            yield Table(f"{streams} streams x {PER_SECOND} pieces/s over {seconds:g} s", columns, rows, targets)


def one_stream(options: Options) -> Iterator[Table]:
    """CPU per piece of one stream, at full speed and at the speed of a model."""
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
    """A reader ten times slower than the server: clients that read ahead grow by the unread part."""
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
                # The reader's pauses make the whole ten times as long as reading alone.
                got = worker.job("read_slowly", quick * 9 * 50, 50)
            if got["pieces"] != events:
                raise WrongText(f"{name}: {got['pieces']} of {events} pieces")
            rows.append([name, f"{got['grown'] / 1e6:.2f} MB", f"{got['wall']:.1f} s"])
            if name == OURS:
                targets.append(limit(f"{OURS}, growth", got["grown"] / 1e6, 8, " MB"))
    title = f"Memory: a reader ten times slower than the server, {options.sizes.megabytes} MB"
    yield Table(title, ("contender", "growth of the peak", "wall"), rows, targets)


def cancelled(options: Options) -> Iterator[Table]:
    """What is left of streams that were cancelled at random moments."""
    streams = {FULL.events: 10_000, QUICK.events: 2_000}.get(options.sizes.events, 50)
    rows, targets = [], []
    with Paced() as server:
        for name in choose(options):
            with Worker(name) as worker:
                if absent := worker.job("open", server.base_url("paced", 10, 2000)).get("absent"):
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
    """All tables."""
    for part in (at_their_pace, one_stream, slow_reader, cancelled):
        yield from part(options)


if __name__ == "__main__":
    main(__doc__, measure)
