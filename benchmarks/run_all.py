"""Runs all measurements, one after the other."""

from __future__ import annotations

from benchmarks import connections, cpu_per_piece, dialects, import_time, many_calls, memory, warm_call
from benchmarks.harness import main

MEASURES = (cpu_per_piece, dialects, import_time, warm_call, connections, memory, many_calls)

if __name__ == "__main__":
    main(__doc__, *(module.measure for module in MEASURES))
