"""What `client.map` adds to a row, what it keeps in memory, and how it gets on with services that refuse.

    python -m benchmarks.many_rows
    python -m benchmarks.many_rows --rows 1000000     # the first table with more rows

In the first table nothing is sent: each row is answered at once, so that all that is measured is the way from the
input through the threads to the loop. Bare threads take rows from one queue and put answers into another. In the second
one, the services are those of `benchmarks.refusals`. Each line has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any

from benchmarks.harness import Child, Table, Target, versions
from benchmarks.refusals import SERVICES

WIDTH, ROWS, REFUSED_ROWS = 64, 100_000, 600
WARM_UP = 2_000
MICROSECONDS, MEGABYTES = 100.0, 50.0
RUNS = {
    "bare threads": "threads",
    "map": "map",
    "map, with keys": "keys",
    "map, with a journal": "journal",
    "map, resumed": "journal",
}


def _resident() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def run(kind: str, rows: int, journal: str) -> None:
    """The process of a line: prints microseconds a row, wall and CPU, and the megabytes by which it grew."""
    from llmbridge import Client, Completion, Message, Usage
    from llmbridge.many import asking

    usage = Usage(5, 5)

    def answered(text: str) -> Completion:
        return Completion(text, finish_reason="stop", usage=usage, message=Message("assistant", text))

    def ask(self: Any, rows: Any, begun: Any) -> asking.Answered:
        return asking.Answered([answered(rows[0].content[0].text)], usage)

    asking.Chats.ask = ask  # type: ignore[method-assign]
    client = Client("openai:m", api_key="none")
    options: dict[str, Any] = {
        "map": {},
        "keys": {"key": lambda item: item},
        "journal": {"journal": journal},
    }.get(kind, {})

    def items(count: int) -> Iterator[str]:
        return (f"row {number}" for number in range(count))

    def loop(count: int) -> Iterable[Any]:
        if kind == "threads":
            return _bare(items(count), answered)
        return client.map(items(count), concurrency=WIDTH, **options)

    for _ in client.map(items(WARM_UP), concurrency=WIDTH):
        pass
    before, most, began, cpu = _resident(), 0.0, time.monotonic(), time.process_time()
    for number, _ in enumerate(loop(rows)):
        if not number % 5_000:
            most = max(most, _resident() - before)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    print(json.dumps({"wall": 1e6 * seconds / rows, "cpu": 1e6 * cpu / rows, "grown": most}), flush=True)


def _bare(items: Iterator[str], answered: Callable[[str], Any]) -> Iterator[Any]:
    """As many threads as `map` has, between two queues, without order, retries and window."""
    asked: SimpleQueue[str | None] = SimpleQueue()
    answers: SimpleQueue[Any] = SimpleQueue()

    def work() -> None:
        while (item := asked.get()) is not None:
            answers.put(answered(item))

    threads = [threading.Thread(target=work) for _ in range(WIDTH)]
    for thread in threads:
        thread.start()
    under_way = 0
    for item in items:
        asked.put(item)
        under_way += 1
        if under_way >= 4 * WIDTH:
            yield answers.get()
            under_way -= 1
    for _ in range(under_way):
        yield answers.get()
    for _ in threads:
        asked.put(None)


def meet(base_url: str, rows: int) -> None:
    """The process that maps rows at a service that refuses: prints how many were lost, and the seconds."""
    from llmbridge import Client

    client = Client("openai:m", base_url=base_url, api_key="none")
    began = time.monotonic()
    mapped = client.map(map(str, range(rows)))
    lost = sum(not row.ok for row in mapped)
    sent = mapped.totals.requests
    print(json.dumps({"lost": lost, "sent": sent, "seconds": time.monotonic() - began}), flush=True)


def costs(rows: int) -> Table:
    """What a row costs without a service."""
    lines, targets = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, kind in RUNS.items():
            with Child(
                "benchmarks.many_rows", "--run", kind, os.path.join(folder, "journal"), "--rows", str(rows)
            ) as one:
                found = json.loads(one.read())
            lines.append([name, f"{found['wall']:.0f}", f"{found['cpu']:.0f}", f"{found['grown']:.1f}"])
            if kind != "threads":
                targets.append(
                    Target(f"{name}: MB <= {MEGABYTES:.0f}", f"{found['grown']:.1f}", found["grown"] <= MEGABYTES)
                )
            if name == "map, with a journal":
                wall = found["wall"]
                targets.append(Target(f"{name}: us <= {MICROSECONDS:.0f}", f"{wall:.0f}", wall <= MICROSECONDS))
    title = f"{rows} rows that are answered at once, {WIDTH} wide"
    return Table(title, ["", "us a row", "us CPU", "MB more"], lines, targets)


def refusals(rows: int) -> Table:
    """How the width that adapts does."""
    lines, targets = [], []
    for service, says in SERVICES.items():
        with Child("benchmarks.refusals", "--serve", service) as server:
            base_url = f"http://127.0.0.1:{int(server.read())}/v1"
            with Child("benchmarks.many_rows", "--meet", base_url, "--rows", str(rows)) as worker:
                found = json.loads(worker.read())
            share = int(server.ask("refused")) / found["sent"]
        lines.append([says, str(found["lost"]), f"{share:.0%}", f"{rows / found['seconds']:.0f}"])
        targets.append(Target(f"{service}: no row lost", str(found["lost"]), not found["lost"]))
    return Table(f"{rows} rows by map, as wide as it goes", ["", "rows lost", "refused", "rows/s"], lines, targets)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help=f"of the first table (default: {ROWS})")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--meet", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run[0], options.rows, options.run[1])
    elif options.meet:
        meet(options.meet, options.rows)
    else:
        print(versions(), end="\n\n")
        print(costs(options.rows))
        print(refusals(REFUSED_ROWS))


if __name__ == "__main__":
    main()
