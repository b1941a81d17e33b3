"""CPU per text piece of a stream: one event per HTTP chunk, many per chunk, and one per millisecond."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contenders import FLOOR, OPENAI, OURS, STREAMING
from benchmarks.harness import Options, Server, Table, at_least, at_most, interleave, main, microseconds
from benchmarks.server import EVENTS_PER_CHUNK

COLUMNS = ("contender", "CPU us/piece", "lowest", "x floor", "wall us/piece")
INTERVAL = 1000


def measure(options: Options) -> Iterator[Table]:
    """One table for each way in which the events arrive."""
    sizes = options.sizes
    names = options.choose(STREAMING)
    with Server() as server:
        for mode, title, limit in (
            ("one", "one event per HTTP chunk, each its own send, full speed", 2.0),
            ("coalesced", f"{EVENTS_PER_CHUNK} events per HTTP chunk, full speed", 1.6),
        ):
            rounds = interleave(names, server.base_url(mode, sizes.events), sizes.events, sizes)
            rows = microseconds(rounds, names, FLOOR, sizes.events)
            targets = at_most(rounds, OURS, FLOOR, limit) + at_least(rounds, OPENAI, OURS, 15)
            yield Table(f"CPU per piece: {title}", COLUMNS, rows, targets)
        rounds = interleave(names, server.base_url("paced", sizes.paced_events, INTERVAL), sizes.paced_events, sizes)
        rows = microseconds(rounds, names, FLOOR, sizes.paced_events)
        yield Table(f"CPU per piece: one event every {INTERVAL} us", COLUMNS, rows)


if __name__ == "__main__":
    main(__doc__, measure)
