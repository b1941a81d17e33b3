"""What all measurements share: sizes, child processes, interleaved rounds, medians, targets and the printed table."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.contenders import CONTENDERS, DISTRIBUTIONS
from benchmarks.server import expected_text

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Sizes:
    """How much to measure: `processes` per contender in turn, each with `rounds` timed rounds."""

    processes: int
    rounds: int
    events: int
    paced_events: int
    calls: int
    streams: int
    megabytes: int
    imports: int


FULL = Sizes(
    processes=5, rounds=2, events=20_000, paced_events=1_000, calls=200, streams=100, megabytes=200, imports=15
)
QUICK = Sizes(processes=3, rounds=1, events=5_000, paced_events=300, calls=50, streams=100, megabytes=20, imports=5)
SMOKE = Sizes(processes=1, rounds=1, events=120, paced_events=20, calls=2, streams=3, megabytes=1, imports=1)


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    sizes: Sizes
    only: tuple[str, ...]

    def choose(self, names: Iterable[str]) -> list[str]:
        """The wanted ones of the contenders `names`, in order."""
        return [name for name in names if not self.only or name in self.only]


@dataclass(frozen=True)
class Target:
    """A figure that llmbridge aims at, the measured value, and whether it is good enough."""

    says: str
    measured: str
    met: bool


@dataclass(frozen=True)
class Table:
    """One printed result."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    targets: Sequence[Target] = ()
    notes: Sequence[str] = ()

    def __str__(self) -> str:
        lines = [self.columns, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        shown = [self.title, "-" * len(self.title)]
        for line in lines:
            first, *rest = (cell.rjust(width) for cell, width in zip(line, widths, strict=True))
            shown.append("  ".join([first.strip().ljust(widths[0]), *rest]).rstrip())
        shown += [f"  target {t.says}: {t.measured}  {'met' if t.met else 'MISSED'}" for t in self.targets]
        shown += [f"  {note}" for note in self.notes]
        return "\n".join(shown) + "\n"


class WrongText(Exception):
    """A contender did not get the text that the server sent, so its time is meaningless."""


class Child:
    """A child process that answers a line on its standard input with a line on its standard output."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment(),
        )
        self._name = " ".join(arguments)

    def read(self) -> str:
        """The next line printed by the child."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with exit code {self._process.wait()}")
        return line

    def ask(self, question: str) -> str:
        """Send one line, return the line that answers it."""
        assert self._process.stdin is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return self.read()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def environment() -> dict[str, str]:
    """The environment of all children: this process's without proxies."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


class Server(Child):
    """The process of `benchmarks.server`."""

    def __init__(self) -> None:
        super().__init__("benchmarks.server")
        self.root = f"http://127.0.0.1:{int(self.read())}"

    def __enter__(self) -> Server:
        return self

    def base_url(self, mode: str, *numbers: int) -> str:
        """The base URL for answers in this mode."""
        return "/".join([self.root, mode, *map(str, numbers), "v1"])

    def connections(self) -> int:
        """How many TCP connections have carried a request so far."""
        return int(self.ask("connections"))


class Worker(Child):
    """The process of one contender."""

    def __init__(self, name: str) -> None:
        super().__init__("benchmarks.worker", name)
        self.name = name

    def __enter__(self) -> Worker:
        return self

    def job(self, **job: object) -> dict[str, Any]:
        """Send one job, return its answer."""
        reply: dict[str, Any] = json.loads(self.ask(json.dumps(job)))
        return reply

    def check(self, events: int) -> None:
        """Make one call and compare its text and number of pieces with what the server sent."""
        text = expected_text(events)
        wanted = {"pieces": events, "chars": len(text), "digest": hashlib.sha256(text.encode()).hexdigest()}
        got = self.job(check=True)
        if got != wanted:
            raise WrongText(f"{self.name}: expected {wanted}, got {got}")

    def run(self, events: int, calls: int = 1) -> Sample:
        """Make this many calls; WrongText if a piece or character is missing."""
        got = self.job(run=calls)
        wanted = (events * calls, len(expected_text(events)) * calls)
        if (got["pieces"], got["chars"]) != wanted:
            raise WrongText(f"{self.name}: expected {wanted} pieces and characters, got {got}")
        return Sample(cpu=got["cpu"], wall=got["wall"])


@dataclass(frozen=True)
class Sample:
    """CPU and wall seconds of one job."""

    cpu: float
    wall: float


@dataclass
class Rounds:
    """The samples of some contenders in the same interleaved rounds; the nth samples of all belong together."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def cpu(self, name: str) -> list[float]:
        """CPU seconds of this contender by round."""
        return [sample.cpu for sample in self.samples[name]]

    def ratio(self, name: str, base: str) -> float | None:
        """Median over the rounds of this contender's CPU divided by that of `base`; None unless both were measured."""
        if name not in self.samples or base not in self.samples:
            return None
        return statistics.median(own / other for own, other in zip(self.cpu(name), self.cpu(base), strict=True))


def interleave(names: Sequence[str], base_url: str, events: int, sizes: Sizes, calls: int = 1) -> Rounds:
    """Measure all contenders in turn, repeatedly, so that other load on the machine affects all of them alike.

    Processes are recreated as well: one may be slower than another for all of its life, depending on its memory layout.
    """
    result = Rounds()
    for _ in range(sizes.processes):
        with ExitStack() as stack:
            workers = []
            for name in names:
                worker = stack.enter_context(Worker(name))
                if absent := worker.job(open=base_url).get("absent"):
                    result.absent[name] = absent
                else:
                    worker.check(events)
                    worker.run(events, calls)
                    workers.append(worker)
            for number in range(sizes.rounds):
                for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:
                    result.samples.setdefault(worker.name, []).append(worker.run(events, calls))
    return result


def microseconds(rounds: Rounds, names: Iterable[str], base: str, per: int) -> list[list[str]]:
    """Table rows: contender, median and lowest CPU in microseconds per unit, median ratio to `base`, wall per unit."""
    rows = []
    for name in names:
        if name in rounds.absent:
            rows.append([name, f"absent: {rounds.absent[name]}", "", "", ""])
            continue
        cpu = [seconds / per * 1e6 for seconds in rounds.cpu(name)]
        wall = statistics.median(sample.wall for sample in rounds.samples[name]) / per * 1e6
        rows.append(
            [name, f"{statistics.median(cpu):.2f}", f"{min(cpu):.2f}", shown(rounds.ratio(name, base)), f"{wall:.1f}"]
        )
    return rows


def shown(ratio: float | None) -> str:
    """A ratio for printing."""
    return "-" if ratio is None else f"{ratio:.2f}"


def at_most(rounds: Rounds, name: str, base: str, limit: float) -> list[Target]:
    """The target that `name` needs at most `limit` times the CPU of `base`, if both were measured."""
    ratio = rounds.ratio(name, base)
    if ratio is None:
        return []
    return [Target(f"{name} <= {limit:g} x {base}", shown(ratio), ratio <= limit)]


def at_least(rounds: Rounds, name: str, base: str, limit: float) -> list[Target]:
    """The target that `name` needs at least `limit` times the CPU of `base`, if both were measured."""
    ratio = rounds.ratio(name, base)
    if ratio is None:
        return []
    return [Target(f"{name} >= {limit:g} x {base}", shown(ratio), ratio >= limit)]


def versions() -> str:
    """One line with the versions and the machine."""
    packages = ", ".join(f"{name} {_version(name)}" for name in DISTRIBUTIONS)
    return f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs, {packages}"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "this tree" if (ROOT / distribution).is_dir() else "absent"


def parse(description: str | None, arguments: Sequence[str] | None = None) -> Options:
    """The options that all scripts share."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick", action="store_const", const=QUICK, dest="sizes", help="one or two minutes, less exact figures"
    )
    size.add_argument(
        "--smoke", action="store_const", const=SMOKE, dest="sizes", help="some seconds, only to see that it runs"
    )
    parser.add_argument("--only", default="", metavar="NAMES", help=f"comma-separated, of: {', '.join(CONTENDERS)}")
    parsed = parser.parse_args(arguments)
    only = tuple(filter(None, parsed.only.split(",")))
    if unknown := [name for name in only if name not in CONTENDERS]:
        parser.error(f"unknown contender: {', '.join(unknown)}; known: {', '.join(CONTENDERS)}")
    return Options(sizes=parsed.sizes or FULL, only=only)


def main(description: str | None, *measures: Callable[[Options], Iterable[Table]]) -> None:
    """Run the measurements and print their tables as they come."""
    options = parse(description)
    print(versions(), flush=True)
    if options.sizes is SMOKE:
        print("smoke run: it shows that everything works; its figures are meaningless", flush=True)
    try:
        for measure in measures:
            for table in measure(options):
                print(f"\n{table}", end="", flush=True)
    except WrongText as error:
        raise SystemExit(f"the run is not valid: {error}") from error
