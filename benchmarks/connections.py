"""How many TCP connections a client opens for many complete streams, one after the other."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contenders import FLOOR, OURS, POST, SESSION, STREAMING
from benchmarks.harness import Options, Server, Table, Target, Worker, main

PIECES = 20
FRAMINGS = {"chunked, one event per chunk": "one", "chunked, one chunk": "whole", "Content-Length": "length"}


def measure(options: Options) -> Iterator[Table]:
    """One table: a row per contender, a column per framing."""
    streams = options.sizes.streams
    rows = []
    targets = []
    with Server() as server:
        for name in options.choose((*STREAMING, POST, SESSION)):
            row = [name]
            for framing, mode in FRAMINGS.items():
                opened = "-" if (name, mode) == (FLOOR, "length") else _opened(server, name, mode, streams)
                row.append(opened)
                if name == OURS:
                    targets.append(Target(f"{OURS}, {framing}: 1", opened, opened == "1"))
            rows.append(row)
    notes = [f"{FLOOR} reads only chunked answers"] if FLOOR in options.choose(STREAMING) else []
    yield Table(f"TCP connections of {streams} finished streams", ("contender", *FRAMINGS), rows, targets, notes)


def _opened(server: Server, name: str, mode: str, streams: int) -> str:
    before = server.connections()
    with Worker(name) as worker:
        if absent := worker.job(open=server.base_url(mode, PIECES)).get("absent"):
            return f"absent: {absent}"
        worker.run(PIECES, streams)
    return str(server.connections() - before)


if __name__ == "__main__":
    main(__doc__, measure)
