"""CPU of one short call on a client that has made calls before, compared with requests, httpx and aiohttp.

The answer is one piece in one packet, so only the cost per call is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

from benchmarks import async_streams
from benchmarks.async_contenders import AIOHTTP
from benchmarks.async_contenders import CONTENDERS as ASYNC
from benchmarks.contenders import CALLING, FLOOR, HTTPX, OPENAI, OURS, POST, SESSION, STREAM
from benchmarks.harness import (
    Options,
    Rounds,
    Sample,
    Server,
    Table,
    Worker,
    WrongText,
    at_most,
    interleave,
    main,
    microseconds,
)
from benchmarks.server import expected_text

COLUMNS = ("contender", "CPU us/call", "lowest", "ratio", "wall us/call")
SYNC = f"{OURS}, sync"
PIECES = 1


def measure(options: Options) -> Iterator[Table]:
    """Calls one after the other, in a `for` loop and in an event loop."""
    yield looped(options)
    yield awaited(options)


def looped(options: Options) -> Table:
    """llmbridge, `requests.Session.post` with and without `stream=True`, and its peers."""
    sizes = options.sizes
    names = options.choose(CALLING)
    with Server() as server:
        rounds = interleave(names, server.base_url("whole", PIECES), PIECES, sizes, sizes.calls)
    rows = microseconds(rounds, names, SESSION, sizes.calls)
    targets = (
        at_most(rounds, OURS, POST, 1.0) + at_most(rounds, OURS, SESSION, 0.75) + at_most(rounds, OURS, HTTPX, 1.0)
    )
    notes = [
        f"{OURS} by {base}: {ratio:.2f}"
        for base in (STREAM, FLOOR, OPENAI)
        if (ratio := rounds.ratio(OURS, base)) is not None
    ]
    return Table(f"Warm call: an answer of {PIECES} piece (ratio to {SESSION})", COLUMNS, rows, targets, notes)


def awaited(options: Options) -> Table:
    """llmbridge in an event loop and in a `for` loop, and asyncio's peers."""
    sizes, rounds = options.sizes, Rounds()
    names = [name for name in ASYNC if not options.only or name in options.only]
    with Server() as server:
        url = server.base_url("whole", PIECES)
        for _ in range(sizes.processes):
            with ExitStack() as stack:
                plain = stack.enter_context(Worker(OURS))
                plain.job(open=url)
                plain.run(PIECES, sizes.calls)
                workers = [stack.enter_context(async_streams.Worker(name)) for name in names]
                for worker in [*workers]:
                    if absent := worker.job("open", url).get("absent"):
                        rounds.absent[worker.name] = absent
                        workers.remove(worker)
                    else:
                        worker.job("run", 1, sizes.calls)
                for _ in range(sizes.rounds):
                    rounds.samples.setdefault(SYNC, []).append(plain.run(PIECES, sizes.calls))
                    for worker in workers:
                        rounds.samples.setdefault(worker.name, []).append(_sample(worker, sizes.calls))
    rows = microseconds(rounds, [SYNC, *names], SYNC, sizes.calls)
    targets = at_most(rounds, OURS, SYNC, 1.5)
    notes = [f"{OURS} by {AIOHTTP}: {ratio:.2f}"] if (ratio := rounds.ratio(OURS, AIOHTTP)) is not None else []
    return Table(f"Warm async call: an answer of {PIECES} piece (ratio to {SYNC})", COLUMNS, rows, targets, notes)


def _sample(worker: async_streams.Worker, calls: int) -> Sample:
    got = worker.job("run", 1, calls)
    wanted = PIECES * calls, len(expected_text(PIECES)) * calls
    if (got["pieces"], got["chars"]) != wanted:
        raise WrongText(f"{worker.name}: expected {wanted} pieces and characters, got {got}")
    return Sample(cpu=got["cpu"], wall=got["wall"])


if __name__ == "__main__":
    main(__doc__, measure)
