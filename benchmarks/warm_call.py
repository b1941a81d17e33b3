"""CPU of one short finished call on a client that has called before, beside a plain `requests.post`."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contenders import CALLING, FLOOR, OPENAI, OURS, POST, SESSION
from benchmarks.harness import Options, Server, Table, at_most, interleave, main, microseconds

COLUMNS = ("contender", "CPU us/call", "lowest", f"x {POST}", "wall us/call")
PIECES = 8


def measure(options: Options) -> Iterator[Table]:
    """One table: an answer of so many pieces that arrives in one packet."""
    sizes = options.sizes
    names = options.choose(CALLING)
    with Server() as server:
        rounds = interleave(names, server.base_url("whole", PIECES), PIECES, sizes, sizes.calls)
    rows = microseconds(rounds, names, POST, sizes.calls)
    notes = [
        f"{OURS} by {base}: {ratio:.2f}"
        for base in (SESSION, FLOOR, OPENAI)
        if (ratio := rounds.ratio(OURS, base)) is not None
    ]
    yield Table(f"Warm call: an answer of {PIECES} pieces", COLUMNS, rows, at_most(rounds, OURS, POST, 1.0), notes)


if __name__ == "__main__":
    main(__doc__, measure)
