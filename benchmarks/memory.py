"""The growth of a client's peak resident size over one very long stream, after shorter ones to warm up."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contenders import OURS, STREAMING
from benchmarks.harness import Options, Server, Table, Target, Worker, main
from benchmarks.server import expected_text, mean_event_bytes

WARM_UP = 5_000
LIMIT = 2.0
STREAMS = {"small events": "coalesced", "bulky events": "bulky"}


def measure(options: Options) -> Iterator[Table]:
    """One table with a row per contender; a stream of small events and one of large events with as much text each."""
    rows = [[name] for name in options.choose(STREAMING)]
    targets = []
    notes = []
    with Server() as server:
        for title, mode in STREAMS.items():
            events = round(options.sizes.megabytes * 1e6 / mean_event_bytes(mode))
            text = len(expected_text(events).encode()) / 1e6
            notes.append(f"{title}: {events} of {mean_event_bytes(mode):.0f} bytes, their text {text:.1f} MB as UTF-8")
            for row in rows:
                grown = _growth(server, row[0], mode, events)
                row.append(grown if isinstance(grown, str) else f"{grown:.2f} MB")
                if row[0] == OURS and isinstance(grown, float):
                    beyond = grown - text
                    targets.append(
                        Target(f"{OURS}, {title}: < {LIMIT:g} MB beyond the text", f"{beyond:.2f} MB", beyond < LIMIT)
                    )
    if targets:
        notes.append(f"{OURS} keeps the text, for `.text` and the errors' `.partial`; the others keep nothing")
    title = f"Memory: growth of the peak over a stream of {options.sizes.megabytes} MB"
    yield Table(title, ("contender", *STREAMS), rows, targets, notes)


def _growth(server: Server, name: str, mode: str, events: int) -> float | str:
    with Worker(name) as worker:
        warm_up = min(WARM_UP, events)
        if absent := worker.job(open=server.base_url(mode, warm_up)).get("absent"):
            return f"absent: {absent}"
        worker.run(warm_up, 3)
        worker.job(open=server.base_url(mode, events))
        before = int(worker.job(peak=True)["peak"])
        worker.run(events)
        return (int(worker.job(peak=True)["peak"]) - before) / 1e6


if __name__ == "__main__":
    main(__doc__, measure)
