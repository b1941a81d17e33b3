"""`client.map` beside what else one would use for many rows: its cost, its width, and what survives.

    python -m benchmarks.many                        # all parts, about half an hour
    python -m benchmarks.many --quick                # smaller sizes, some minutes, rougher figures
    python -m benchmarks.many --only cost --rows 1000000

Parts:

    cpu       64 requests at once: CPU and rows a second, beside requests, aiohttp and other packages
    wide      1,024 at once: CPU, threads and connections
    cost      rows that are answered at once: what map adds to one, fresh and resumed, and its memory
    refused   services that refuse what is too much: rows lost, requests refused, rows a second
    killed    SIGKILL at random moments, with a journal: what is lost, wrong, or paid twice
    stopped   Ctrl-C with 256 requests under way

Each line has a process of its own, and the service has another one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.harness import ROOT, Child, Table, Target, environment, versions
from benchmarks.many_worker import AIOHTTP, AWAITED, CONTENDERS, COST_WIDTH, MAP, REQUESTS, STREAMED
from benchmarks.refusals import SERVICES

WIDTH, SECONDS = 64, 0.2
WIDE, WIDE_SECONDS = 1024, 1.0
OF_PEERS = {"AsyncOpenAI": 0.5, "langchain batch": 0.45, "inspect_ai": 0.25, "litellm batch_completion": 0.17}
COSTS = {"bare threads": "threads", "map": "map", "map, with keys": "keys", "map, with a journal": "journal"}
RESUMED = "map, resumed"
LARGEST_SHARE = {"places": 0.05, "some": 0.06}
VICTIM_WIDTH, STOPPED_WIDTH = 32, 256


@dataclass(frozen=True)
class Amounts:
    """How much to measure."""

    rounds: int
    rows: int
    wide_rows: int
    cost_rows: int
    refused_rows: int
    killed_rows: int
    kills: int
    stops: int


FULL = Amounts(3, 2_000, 4_096, 100_000, 600, 5_000, 200, 3)
QUICK = Amounts(1, 400, 1_024, 20_000, 200, 300, 5, 1)
SMOKE = Amounts(1, 64, 64, 500, 40, 60, 2, 1)


class Service(Child):
    """The process that answers."""

    def __init__(self, seconds: float, *faults: str) -> None:
        super().__init__("benchmarks.many_worker", "serve", str(seconds), *faults)
        self.base_url = f"http://127.0.0.1:{int(self.read())}/v1"

    def __enter__(self) -> Service:
        return self

    def counts(self) -> dict[str, int]:
        """What it has done; without faults, since the last time."""
        found: dict[str, int] = json.loads(self.ask("counts"))
        return found


def _worker(*arguments: object) -> dict[str, Any]:
    with Child("benchmarks.many_worker", *map(str, arguments)) as worker:
        found: dict[str, Any] = json.loads(worker.read())
    return found


def _asked(names: list[str], width: int, seconds: float, rows: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """What the contenders needed, round by round, each in turn."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with Service(seconds) as service:
        for _ in range(rounds):
            for name in names:
                service.counts()
                one = _worker("ask", name, service.base_url, width, rows)
                found[name].append({**one, **service.counts()})
    return found


def _middle(rounds: list[dict[str, Any]], figure: str) -> float:
    return statistics.median(one[figure] for one in rounds)


def _ratio(found: dict[str, list[dict[str, Any]]], name: str, base: str, figure: str = "cpu") -> float | None:
    if any("absent" in one for one in found[name] + found[base]):
        return None
    return statistics.median(own[figure] / other[figure] for own, other in zip(found[name], found[base], strict=True))


def _shown(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _at_most(says: str, measured: float | None, limit: float) -> list[Target]:
    return [] if measured is None else [Target(f"{says} <= {limit:g}", f"{measured:.2f}", measured <= limit)]


def cpu(amounts: Amounts) -> Table:
    """CPU a row, 64 at once."""
    found = _asked(list(CONTENDERS), WIDTH, SECONDS, amounts.rows, amounts.rounds)
    lines, targets, ideal = [], [], WIDTH / SECONDS
    for name, rounds in found.items():
        if "absent" in rounds[0]:
            lines.append([name, "absent", "", "", "", "", ""])
            continue
        each = _middle(rounds, "cpu") / amounts.rows * 1e3
        speed = amounts.rows / _middle(rounds, "wall")
        lines.append([
            name, f"{each:.2f}", _shown(_ratio(found, name, REQUESTS)), _shown(_ratio(found, name, AIOHTTP)),
            f"{speed:.0f}", f"{speed / ideal:.2f}", str(max(one["wrong"] for one in rounds)),
        ])  # fmt: skip
    targets += _at_most("map: CPU x requests", _ratio(found, MAP, REQUESTS), 1.25)
    for peer, limit in OF_PEERS.items():
        targets += _at_most(f"map: CPU x {peer}", _ratio(found, MAP, peer), limit)
    speed_of = 1 / (_ratio(found, MAP, REQUESTS, "wall") or 1)
    targets.append(Target("map: rows/s >= 0.9 x requests", f"{speed_of:.2f}", speed_of >= 0.9))
    return Table(
        f"{amounts.rows} rows, {WIDTH} at once, answered after {SECONDS:g} s",
        ["", "CPU ms a row", "x requests", "x aiohttp", "rows/s", "of ideal", "wrong"], lines, targets,
        [f"ideal: {ideal:.0f} rows/s"],
    )  # fmt: skip


def wide(amounts: Amounts) -> Table:
    """CPU a row, threads and connections, 1,024 at once."""
    width = min(WIDE, amounts.wide_rows)
    names = [AIOHTTP, MAP, STREAMED, AWAITED, "AsyncOpenAI"]
    found = _asked(names, width, WIDE_SECONDS, amounts.wide_rows, amounts.rounds)
    lines = []
    for name, rounds in found.items():
        if "absent" in rounds[0]:
            lines.append([name, "absent", *[""] * 7])
            continue
        speed = amounts.wide_rows / _middle(rounds, "wall")
        lines.append([
            name, f"{_middle(rounds, 'cpu') / amounts.wide_rows * 1e3:.2f}", _shown(_ratio(found, name, AIOHTTP)),
            f"{_middle(rounds, 'threads'):.0f}", f"{_middle(rounds, 'connections'):.0f}",
            f"{_middle(rounds, 'requests'):.0f}", f"{_middle(rounds, 'peak') / 1e6:.0f}", f"{speed:.0f}",
            str(max(one["wrong"] for one in rounds)),
        ])  # fmt: skip
    targets = []
    for name in (MAP, AWAITED):
        targets += _at_most(f"{name}: CPU x aiohttp", _ratio(found, name, AIOHTTP), 3)
        targets += _at_most(f"{name}: threads", _middle(found[name], "threads"), 64)
        targets += _at_most(f"{name}: connections / width", _middle(found[name], "connections") / width, 1.1)
    columns = ["", "CPU ms a row", "x aiohttp", "threads", "connections", "requests", "peak MB", "rows/s", "wrong"]
    title = f"{amounts.wide_rows} rows, {width} at once, answered after {WIDE_SECONDS:g} s"
    return Table(title, columns, lines, targets, ["connections and requests include a warm-up of twice the width"])


def cost(amounts: Amounts) -> Table:
    """What a row costs without a service."""
    lines, targets, rows = [], [], amounts.cost_rows
    with tempfile.TemporaryDirectory() as folder:
        journal = os.path.join(folder, "journal")
        for name in (*COSTS, RESUMED):
            found = _worker("cost", COSTS.get(name, "journal"), rows, journal)
            lines.append([name, f"{found['wall']:.0f}", f"{found['cpu']:.0f}", f"{found['grown']:.1f}"])
            if name in ("map, with a journal", RESUMED):
                targets += _at_most(f"{name}: MB more", found["grown"], 50)
                figure, limit = ("wall", 100) if name != RESUMED else ("cpu", 15)
                targets += _at_most(f"{name}: us {figure}", found[figure], limit)
        size = os.path.getsize(journal) / rows
    title = f"{rows} rows that are answered at once, {COST_WIDTH} wide"
    notes = [f"the journal has {size:.0f} bytes a row", "bare threads have no order, window, retries and journal"]
    return Table(title, ["", "us a row", "us CPU", "MB more"], lines, targets, notes)


def refused(amounts: Amounts) -> Table:
    """How the width that adapts does."""
    lines, targets, rows = [], [], amounts.refused_rows
    for kind, says in SERVICES.items():
        speeds = {}
        for width in ("", "128"):
            with Child("benchmarks.refusals", "--serve", kind) as server:
                base_url = f"http://127.0.0.1:{int(server.read())}/v1"
                found = _worker("meet", base_url, rows, width)
                share = int(server.ask("refused")) / found["sent"]
            speeds[width] = rows / found["seconds"]
            line = [f"{says}, {width or 'adapts'}", str(found["lost"]), f"{share:.0%}", f"{speeds[width]:.0f}"]
            lines.append(line)
            if not width:
                targets.append(Target(f"{kind}: no row lost", str(found["lost"]), not found["lost"]))
                targets += _at_most(f"{kind}: share refused", share, LARGEST_SHARE.get(kind, 0.15))
        of_best = speeds[""] / max(speeds.values())
        targets.append(Target(f"{kind}: rows/s >= 0.9 x the best", f"{of_best:.2f}", of_best >= 0.9))
    title = f"{rows} rows by map at services that refuse, as wide as it adapts and 128 wide"
    return Table(title, ["", "rows lost", "refused", "rows/s"], lines, targets)


def killed(amounts: Amounts) -> Table:
    """Ends it at random moments, and goes on from the journal."""
    rows, chance, kills, wrong, unwritten = amounts.killed_rows, random.Random(7), 0, 0, 0
    with Service(0.02, "faults") as service, tempfile.TemporaryDirectory() as folder:
        journal = os.path.join(folder, "journal")
        command = [
            sys.executable, "-m", "benchmarks.many_worker", "victim", service.base_url, str(VICTIM_WIDTH), str(rows),
            journal,
        ]  # fmt: skip
        each = 200 * rows // max(1, amounts.kills)  # bytes of the journal between two kills, about
        while True:
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()) as child:
                end = _size(journal) + chance.randrange(each // 4, each * 3 // 2)
                while child.poll() is None and not (kills < amounts.kills and _size(journal) > end):
                    time.sleep(0.001)
                child.kill()
                assert child.stdout is not None
                said = [line.split() for line in child.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
            wrong += sum(right != "1" for _, right in said)
            written = {json.loads(line).get("index") for line in _lines(journal)}
            unwritten += len({int(index) for index, _ in said} - written)
            if child.returncode == 0:
                break
            kills += 1
            if chance.random() < 0.3:
                os.truncate(journal, max(0, _size(journal) - chance.randrange(300)))
        lost = rows - len({index for index, _ in said})
        twice = service.counts()["twice"]
    lines = [[str(number) for number in (kills, lost, wrong, unwritten, twice)]]
    targets = [
        Target("no row lost, wrong or seen before it was written", str(lost + wrong + unwritten), not lost + wrong),
        *_at_most("paid twice / (kills x width)", twice / max(1, kills * VICTIM_WIDTH), 1),
    ]
    title = f"{rows} rows, {VICTIM_WIDTH} at once, SIGKILL at random, some of the tail cut off in 3 of 10"
    return Table(title, ["kills", "lost", "wrong", "not written", "paid twice"], lines, targets)


def _size(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _lines(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def stopped(amounts: Amounts) -> Table:
    """Ctrl-C."""
    lines = []
    for _ in range(amounts.stops):
        with Service(1.0) as service, tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.many_worker", "victim", service.base_url]
            command += [str(STOPPED_WIDTH), str(10**9), os.path.join(folder, "journal")]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT, env=environment()
            ) as child:
                assert child.stdout is not None
                child.stdout.readline()
                began = time.monotonic()
                child.send_signal(signal.SIGINT)
                child.communicate(timeout=60)
                seconds = time.monotonic() - began
            service.counts()
            time.sleep(1)
            lines.append([f"{seconds:.2f}", str(service.counts().get("requests", 0))])
    worst = max(float(line[0]) for line in lines)
    after = sum(int(line[1]) for line in lines)
    targets = [*_at_most("seconds", worst, 1), Target("no request afterwards", str(after), not after)]
    return Table(f"Ctrl-C, {STOPPED_WIDTH} at once", ["seconds to the end", "requests afterwards"], lines, targets)


PARTS: dict[str, Callable[[Amounts], Table]] = {
    "cpu": cpu, "wide": wide, "cost": cost, "refused": refused, "killed": killed, "stopped": stopped,
}  # fmt: skip


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", const=QUICK, dest="amounts")
    size.add_argument("--smoke", action="store_const", const=SMOKE, dest="amounts", help="only to see that it runs")
    parser.add_argument("--only", default=",".join(PARTS), metavar="PARTS", help="comma-separated")
    parser.add_argument("--rows", type=int, help=f"of the part cost (default: {FULL.cost_rows})")
    options = parser.parse_args()
    amounts = options.amounts or FULL
    if options.rows:
        amounts = Amounts(**{**vars(amounts), "cost_rows": options.rows})
    print(versions())
    for part in options.only.split(","):
        print(f"\n{PARTS[part](amounts)}", end="", flush=True)


if __name__ == "__main__":
    main()
