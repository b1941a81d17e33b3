"""All measurements, one after the other."""

from __future__ import annotations

from benchmarks import connections, cpu_per_piece, import_time, memory, warm_call
from benchmarks.harness import main

if __name__ == "__main__":
    main(__doc__, cpu_per_piece.measure, import_time.measure, warm_call.measure, connections.measure, memory.measure)
