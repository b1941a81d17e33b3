"""The child process of one contender: one job per line of standard input, answered with one line of JSON.

{"open": base_url}     create the contender's client            -> {} or {"absent": why}
{"check": true}        one call, to compare its text            -> {"pieces", "chars", "digest"}
{"run": calls}         this many calls, timed                   -> {"pieces", "chars", "cpu", "wall"}
{"peak": true}         the highest resident size so far         -> {"peak"} in bytes
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.contenders import CONTENDERS, Pieces


def check(pieces: Pieces) -> dict[str, Any]:
    """Count, length and digest of one call's text."""
    texts = list(pieces())
    text = "".join(texts)
    return {"pieces": len(texts), "chars": len(text), "digest": hashlib.sha256(text.encode()).hexdigest()}


def run(pieces: Pieces, calls: int) -> dict[str, Any]:
    """CPU seconds (user and system, all threads of this process) and wall seconds of this many calls."""
    count = chars = 0
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        for piece in pieces():
            count += 1
            chars += len(piece)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"pieces": count, "chars": chars, "cpu": cpu, "wall": wall}


def peak_bytes() -> int:
    """The highest resident size of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not ru_maxrss: Linux passes it on through exec, so a large parent would hide this process's growth.
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if found:
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Answer jobs until standard input ends."""
    # Output of a contender must not get between the answers.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contender = CONTENDERS[sys.argv[1]]
    pieces: Pieces | None = None
    for line in sys.stdin:
        job = json.loads(line)
        reply: dict[str, Any] = {}
        if "open" in job:
            try:
                pieces = contender(job["open"])
            except ModuleNotFoundError as error:
                reply = {"absent": str(error)}
        elif "peak" in job:
            reply = {"peak": peak_bytes()}
        elif pieces is None:
            raise SystemExit(f"{sys.argv[1]}: a job came before its client was created")
        else:
            reply = check(pieces) if "check" in job else run(pieces, job["run"])
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
