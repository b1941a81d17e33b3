"""Many simultaneous calls beside other tasks: waits, threads, connections, CPU and memory, compared with the peers."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.async_contenders import AIOHTTP, AT_ONCE, AWAITED, HTTPX, QUEUED
from benchmarks.async_streams import Paced
from benchmarks.contenders import OPENAI, OURS, PLAIN
from benchmarks.harness import (
    FULL,
    QUICK,
    SMOKE,
    Child,
    Options,
    Rounds,
    Sample,
    Server,
    Sizes,
    Table,
    Target,
    WrongText,
    main,
    shown,
)
from benchmarks.server import expected_text

BEFORE = "before"
PEERS = (HTTPX, AIOHTTP, OPENAI)
Reply = dict[str, Any]


@dataclass(frozen=True)
class Amounts:
    """How much to measure: `width` calls are in flight at once, with `interval` microseconds between two pieces."""

    rounds: int
    megabytes: int
    zipped_megabytes: int
    queued: int
    width: int
    interval: int


AMOUNTS: Mapping[Sizes, Amounts] = {
    FULL: Amounts(3, megabytes=16, zipped_megabytes=64, queued=3000, width=1024, interval=500_000),
    QUICK: Amounts(1, megabytes=2, zipped_megabytes=8, queued=200, width=100, interval=150_000),
    SMOKE: Amounts(1, megabytes=1, zipped_megabytes=1, queued=20, width=8, interval=20_000),
}
PIECES = 8
ANSWER_MICROSECONDS = 20_000  # the server's time for a queued call
BLOCKING_THREADS = 64
WAVES = 4


class Worker(Child):
    """The process of one contender; `path` is the folder of another version of the package."""

    def __init__(self, name: str, path: str = "") -> None:
        super().__init__("benchmarks.many_calls_worker", name, *filter(None, (path,)))

    def __enter__(self) -> Worker:
        return self

    def job(self, *job: object) -> Reply:
        """Send one job, return its answer."""
        reply: Reply = json.loads(self.ask(json.dumps(job)))
        return reply


@dataclass
class Outcomes:
    """The results of each contender by round."""

    replies: dict[str, list[Reply]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def take(self, label: str, reply: Reply, chars: int) -> bool:
        """Keep one round's result. Missing text voids the run for llmbridge, and drops a peer."""
        if reply["chars"] == chars and not reply["errors"]:
            self.replies.setdefault(label, []).append(reply)
            return True
        said = f"{chars - reply['chars']} of {chars} characters missing, {reply['errors']}"
        if label.startswith(OURS):
            raise WrongText(f"{label}: {said}")
        self.absent[label] = said
        self.replies.pop(label, None)
        return False

    def of(self, label: str, key: str) -> list[float]:
        """A figure of this contender by round."""
        return [reply[key] for reply in self.replies[label]]

    @property
    def rounds(self) -> Rounds:
        """The results as rounds of CPU and wall time, for ratios."""
        samples = {
            label: [Sample(reply["cpu"], reply["wall"]) for reply in replies] for label, replies in self.replies.items()
        }
        return Rounds(samples, self.absent)

    def rows(self, labels: Mapping[str, object], *cells: Callable[[str], str]) -> list[list[str]]:
        """Table rows."""
        return [
            [label, *(cell(label) for cell in cells)]
            if label in self.replies
            else [label, f"absent: {self.absent[label]}", *[""] * (len(cells) - 1)]
            for label in labels
        ]


@dataclass(frozen=True)
class Figure:
    """A cell: the median over the rounds, and the lowest value if they differ."""

    outcomes: Outcomes
    key: str
    scale: float = 1.0
    digits: int = 0
    less: float = 0.0

    def __call__(self, label: str) -> str:
        """The figure as printed."""
        figures = [(figure - self.less) * self.scale for figure in self.outcomes.of(label, self.key)]
        middle, least = (f"{value:.{self.digits}f}" for value in (median(figures), min(figures)))
        return middle if middle == least else f"{middle} ({least})"

    def at_most(self, label: str, says: str, most: float, unit: str = "") -> Target:
        """The target that the median does not exceed a limit."""
        measured = (median(self.outcomes.of(label, self.key)) - self.less) * self.scale
        return Target(f"{label}, {says} <= {most:g}{unit}", f"{measured:.{self.digits}f}{unit}", measured <= most)


def choose(options: Options, against: str, *own: str, peers: tuple[str, ...] = PEERS) -> dict[str, tuple[str, ...]]:
    """The labels of the contenders, with the arguments of their processes."""
    found: dict[str, tuple[str, ...]] = {}
    if options.choose((OURS,)):
        found = {name: (name,) for name in own}
        if against:
            found |= {name.replace(OURS, BEFORE): (name, against) for name in own}
    return found | {name: (name,) for name in options.choose(peers)}


def opened(outcomes: Outcomes, label: str, worker: Worker, url: str, blocking: bool = False) -> bool:
    """Make a contender create its client; False if it cannot."""
    if label in outcomes.absent:
        return False
    if absent := worker.job("open_blocking" if blocking else "open", url).get("absent"):
        outcomes.absent[label] = absent
        return False
    return True


def beside_comments(options: Options, against: str) -> Iterator[Table]:
    """The effect of a stream of only comments on other tasks, and on its own cancellation."""
    amounts, chars = AMOUNTS[options.sizes], len(expected_text(1))
    labels = choose(options, against, OURS)
    with Server() as server:
        for mode, megabytes in (("comments", amounts.megabytes), ("zipped", amounts.zipped_megabytes)):
            outcomes, url = Outcomes(), server.base_url(mode, megabytes)
            prepare(url)
            for _ in range(amounts.rounds):
                for label, arguments in labels.items():
                    with Worker(*arguments) as worker:
                        if not opened(outcomes, label, worker, url):
                            continue
                        worker.job("many", 1, 0, None)
                        reply = worker.job("many", 1, 0, None)
                        if outcomes.take(label, reply, chars):
                            reply |= worker.job("cancel", reply["wall"] * 0.4)
            longest, took = Figure(outcomes, "longest", 1e3), Figure(outcomes, "took", 1e3)
            busy, cpu = Figure(outcomes, "longest_cpu", 1e3), Figure(outcomes, "cpu", 1e3)
            rows = outcomes.rows(labels, longest, busy, took, cpu, by_cpu(outcomes))
            targets = []
            if OURS in outcomes.replies:
                targets.append(longest.at_most(OURS, "longest wait of another task", 50, " ms"))
                targets.append(took.at_most(OURS, "until a cancelled call has ended", 100, " ms"))
            columns = ("contender", "others wait ms", "CPU of it", "cancel takes ms", "CPU ms", f"CPU x {OURS}")
            title = f"A stream of {megabytes} MB of comments{', gzipped' if mode == 'zipped' else ''}"
            yield Table(title, columns, rows, targets)


def prepare(base_url: str) -> None:
    """Read an answer once: the server creates it at the first request."""
    _, _, host, path = base_url.split("/", 3)
    connection = http.client.HTTPConnection(host)
    connection.request("POST", f"/{path}/chat/completions", b"{}")
    connection.getresponse().read()
    connection.close()


def by_cpu(outcomes: Outcomes, base: str = OURS) -> Callable[[str], str]:
    """The cell with the CPU divided by that of `base`."""
    rounds = outcomes.rounds
    return lambda label: shown(rounds.ratio(label, base))


def in_a_queue(options: Options, against: str) -> Iterator[Table]:
    """Thousands of calls, a few at a time, with the client's limits or with a semaphore."""
    amounts = AMOUNTS[options.sizes]
    calls, outcomes = amounts.queued, Outcomes()
    labels = choose(options, against, QUEUED)
    with Paced() as server:
        url = server.base_url("whole", PIECES, ANSWER_MICROSECONDS)
        for _ in range(amounts.rounds):
            for label, arguments in labels.items():
                with Worker(*arguments) as worker:
                    if opened(outcomes, label, worker, url):
                        worker.job("many", 1, 0, None)
                        reply = worker.job("many", calls, 0 if arguments[0] == QUEUED else AT_ONCE, None)
                        outcomes.take(label, reply, len(expected_text(PIECES)) * calls)
    most = Figure(outcomes, "most")
    rows = outcomes.rows(
        labels, Figure(outcomes, "wall", digits=2), Figure(outcomes, "cpu", 1e3 / calls, 2), by_cpu(outcomes, QUEUED),
        most, Figure(outcomes, "longest", 1e3), Figure(outcomes, "longest_cpu", 1e3), Figure(outcomes, "peak", 1e-6),
    )  # fmt: skip
    targets = [most.at_most(QUEUED, "most threads", 40)] if QUEUED in outcomes.replies else []
    columns = (
        "contender", "seconds", "CPU ms/call", f"CPU x {OURS}", "most threads", "others wait ms", "CPU of it",
        "peak MB",
    )  # fmt: skip
    yield Table(f"{calls} calls, {AT_ONCE} at once", columns, rows, targets)


def in_flight(options: Options, against: str) -> Iterator[Table]:
    """All at once: the effect on other tasks, the waiting threads, and the CPU compared with blocking calls."""
    amounts = AMOUNTS[options.sizes]
    calls, outcomes = amounts.width, Outcomes()
    chars = len(expected_text(PIECES)) * calls
    labels = choose(options, against, OURS, AWAITED)
    blocking = f"{OURS}, {BLOCKING_THREADS} threads"
    with Paced() as server:
        url = server.base_url("paced", PIECES, amounts.interval)
        for _ in range(amounts.rounds):
            look: dict[str, float] = {}
            for label, arguments in labels.items():
                with Worker(*arguments) as worker:
                    if not opened(outcomes, label, worker, url):
                        continue
                    worker.job("many", 1, 0, None)
                    streamed = label.removesuffix(AWAITED.removeprefix(OURS))
                    reply = worker.job("many", calls, 0, look.get(streamed))
                    outcomes.take(label, reply, chars)
                    look[label] = reply["look"]
            if OURS in labels:
                outcomes.take(blocking, in_blocking_threads(url, calls), chars)
    pace = 2 * amounts.interval / 1e6  # until the first text
    later, longest = Figure(outcomes, "later"), Figure(outcomes, "longest", 1e3)
    firsts = (Figure(outcomes, key, 1e3, less=pace) for key in ("p50", "p99"))
    busy = Figure(outcomes, "longest_cpu", 1e3)
    rows = outcomes.rows(
        dict.fromkeys((*labels, *((blocking,) if OURS in labels else ()))), longest, busy, *firsts,
        Figure(outcomes, "most"), later, Figure(outcomes, "in_flight"), Figure(outcomes, "cpu", 1e3 / calls, 2),
        by_cpu(outcomes, blocking), Figure(outcomes, "peak", 1e-6),
    )  # fmt: skip
    for row in rows:
        if row[0] == blocking:
            row[1:8] = ["-"] * 7
        elif row[0].endswith(", awaited"):
            row[3:5] = ["-"] * 2
    targets = []
    for label in (OURS, AWAITED):
        if label in outcomes.replies:
            ratio = outcomes.rounds.ratio(label, blocking) or 0.0
            targets += [
                longest.at_most(label, "longest wait of another task", 250, " ms"),
                later.at_most(label, "threads a second later", 64),
                Target(f"{label}, CPU <= 1.3 x {blocking}", shown(ratio), ratio <= 1.3),
            ]
    columns = (
        "contender", "others wait ms", "CPU of it", "1st piece p50 ms", "p99 ms", "most threads", "a second later",
        "in flight then", "CPU ms/call", "x blocking", "peak MB",
    )  # fmt: skip
    notes = [f"p50 and p99: beyond the server's own {pace:g} s; a second later: after the last first piece"]
    yield Table(f"{calls} calls of {PIECES} pieces, started at once", columns, rows, targets, notes)


def in_blocking_threads(url: str, calls: int) -> Reply:
    """The cost of this many calls, two per thread; more would only take longer."""
    made = 2 * BLOCKING_THREADS
    with Worker(OURS) as worker:
        worker.job("open_blocking", url)
        worker.job("threads", 1, 1)
        reply = worker.job("threads", made, BLOCKING_THREADS)
    unknown = dict.fromkeys(("longest", "longest_cpu", "p50", "p99", "most", "later", "in_flight"), 0)
    return {**unknown, **reply, "cpu": reply["cpu"] * calls / made, "chars": reply["chars"] * calls // made}


def in_waves(options: Options, against: str) -> Iterator[Table]:
    """The same number of calls, repeated after the previous ones have ended: which clients keep the connections?"""
    amounts = AMOUNTS[options.sizes]
    width, chars = amounts.width, len(expected_text(PIECES)) * amounts.width
    interval = amounts.interval // 2
    for way, blocking, peers in (("tasks", False, PEERS), ("threads", True, (PLAIN, OPENAI))):
        outcomes = Outcomes()
        labels = choose(options, against, OURS, peers=peers)
        for label, arguments in labels.items():
            with Paced() as server, Worker(*arguments) as worker:
                if opened(outcomes, label, worker, server.base_url("paced", PIECES, interval), blocking):
                    waves = [
                        worker.job("threads", width, width) if blocking else worker.job("many", width, 0, None)
                        for _ in range(WAVES)
                    ]
                    kept = [outcomes.take(label, wave, chars) for wave in waves]
                    if all(kept):
                        total = {key: sum(wave[key] for wave in waves) for key in ("cpu", "wall")}
                        outcomes.replies[label] = [{**total, "made": server.connections()}]
        made = Figure(outcomes, "made")
        rows = outcomes.rows(
            labels, made, Figure(outcomes, "made", 1 / width, 2), Figure(outcomes, "wall", digits=2),
            Figure(outcomes, "cpu", 1e3 / width / WAVES, 2), by_cpu(outcomes),
        )  # fmt: skip
        targets = [made.at_most(OURS, "connections", 1.1 * width)] if OURS in outcomes.replies else []
        columns = ("contender", "connections", "by width", "seconds", "CPU ms/call", f"CPU x {OURS}")
        yield Table(f"{WAVES} waves of {width} {way}", columns, rows, targets)


def measure(options: Options, against: str = "") -> Iterator[Table]:
    """All tables."""
    for part in (beside_comments, in_a_queue, in_flight, in_waves):
        yield from part(options, against)


def _arguments() -> tuple[str, list[str]]:
    """The options for this script only, and the remaining arguments."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--against", default="")
    own, rest = parser.parse_known_args()
    return own.against and str(Path(own.against).resolve()), rest


if __name__ == "__main__":
    checkout, sys.argv[1:] = _arguments()
    main(f"{__doc__} Also --against PATH, a checkout of another version.", partial(measure, against=checkout))
