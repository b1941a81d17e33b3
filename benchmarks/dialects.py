"""CPU per text piece in every dialect, compared with a raw socket that reads the same bytes, and with other
versions."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.contenders import OURS
from benchmarks.dialect_events import DIALECTS
from benchmarks.dialect_processes import FLOOR
from benchmarks.harness import Child, Options, Rounds, Sizes, Table, Target, Worker, main, shown
from benchmarks.server import EVENTS_PER_CHUNK

BEFORE = "before"
MOST_BY_FLOOR = 2.5
MOST_BY_BEFORE = 1.1
COLUMNS = ("dialect", "floor us/piece", f"{OURS} us/piece", "lowest", "x floor")
WAYS: Mapping[str, int] = {"one event per HTTP chunk": 1, f"{EVENTS_PER_CHUNK} events per HTTP chunk": EVENTS_PER_CHUNK}


class DialectServer(Child):
    """The server of `benchmarks.dialect_processes` in its process."""

    def __init__(self) -> None:
        super().__init__("benchmarks.dialect_processes", "serve")
        self.root = f"http://127.0.0.1:{int(self.read())}"

    def __enter__(self) -> DialectServer:
        return self


class DialectWorker(Worker):
    """The process of one contender; its jobs are those of `benchmarks.worker`."""

    def __init__(self, name: str, *arguments: str) -> None:
        Child.__init__(self, "benchmarks.dialect_processes", "work", *arguments)
        self.name = name

    def __enter__(self) -> DialectWorker:
        return self


def measure(options: Options, dialects: Sequence[str] = (), against: str = "") -> Iterator[Table]:
    """A table for each way in which the events arrive, a row per dialect."""
    sizes = options.sizes
    if not options.choose((OURS,)):
        return
    with DialectServer() as server:
        for title, step in WAYS.items():
            rows: list[list[str]] = []
            targets: list[Target] = []
            for name in dialects or DIALECTS:
                rounds = interleave(name, f"{server.root}/{name}/{step}/{sizes.events}", sizes, against)
                floor, ours = ([seconds / sizes.events * 1e6 for seconds in rounds.cpu(who)] for who in (FLOOR, OURS))
                ratio = rounds.ratio(OURS, FLOOR)
                row = [name, f"{median(floor):.2f}", f"{median(ours):.2f}", f"{min(ours):.2f}", shown(ratio)]
                if ratio is not None:
                    targets.append(Target(f"{name} <= {MOST_BY_FLOOR} x floor", shown(ratio), ratio <= MOST_BY_FLOOR))
                if against:
                    ratio = rounds.ratio(OURS, BEFORE)
                    row.append(shown(ratio))
                    if ratio is not None and name == "openai":
                        says = f"{name} <= {MOST_BY_BEFORE} x {BEFORE}"
                        targets.append(Target(says, shown(ratio), ratio <= MOST_BY_BEFORE))
                rows.append(row)
            columns = (*COLUMNS, f"x {BEFORE}") if against else COLUMNS
            yield Table(f"CPU per piece by dialect: {title}", columns, rows, targets)


def interleave(dialect: str, base_url: str, sizes: Sizes, against: str = "") -> Rounds:
    """The contenders of one dialect in turn, each in several processes; see `harness.interleave`."""
    contenders: dict[str, tuple[str, ...]] = {FLOOR: (dialect, FLOOR), OURS: (dialect, OURS)}
    module = Path(against) / "llmbridge/providers" / dialect.replace("-", "_")
    if against and (module.is_dir() or module.with_suffix(".py").exists()):
        contenders[BEFORE] = (dialect, OURS, against)
    result = Rounds()
    for _ in range(sizes.processes):
        with ExitStack() as stack:
            workers = []
            for name, arguments in contenders.items():
                worker = stack.enter_context(DialectWorker(name, *arguments))
                worker.job(open=base_url)
                worker.check(sizes.events)
                worker.run(sizes.events)
                workers.append(worker)
            for number in range(sizes.rounds):
                for worker in workers[number % len(workers) :] + workers[: number % len(workers)]:
                    result.samples.setdefault(worker.name, []).append(worker.run(sizes.events))
    return result


def _arguments() -> tuple[list[str], str, list[str]]:
    """The options for this script only, and the remaining arguments."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--dialects", default="")
    parser.add_argument("--against", default="")
    own, rest = parser.parse_known_args()
    names = list(filter(None, own.dialects.split(",")))
    if unknown := [name for name in names if name not in DIALECTS]:
        parser.error(f"unknown dialect: {', '.join(unknown)}; known: {', '.join(DIALECTS)}")
    return names, own.against and str(Path(own.against).resolve()), rest


if __name__ == "__main__":
    chosen, checkout, sys.argv[1:] = _arguments()
    main(
        f"{__doc__} Also --dialects NAMES, comma-separated, and --against PATH, a checkout of another version.",
        partial(measure, dialects=chosen, against=checkout),
    )
