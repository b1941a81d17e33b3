"""A real Jupyter kernel: what an answer costs that shows itself, and how long the stop button takes.

Run with: python -m benchmarks.notebook (needs the extra `notebook`). The figures inform people; the tests in
tests/notebook look at the same things without a clock.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from llmbridge.testing import LLMServer, Reply

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "notebook"))

_TARGETS = {"messages": 60, "MB": 0.4, "CPU": 1.3, "idle": 1.0}
_PIECES = 2000
_WAYS = {
    "show": "answer = client.chat('x').show()",
    "show_async": "answer = await client.chat('x').show_async()",
    "print": "for piece in client.chat('x'): print(piece, end='', flush=True)",
}
_FORMS = {
    "for": "for piece in client.chat('x'): print(piece, end='')",
    "complete": "client.chat('x').complete()",
    "await": "await client.chat('x')",
    "async for": "async for piece in client.chat('x'): print(piece, end='')",
    "show": "client.chat('x').show()",
    "show_async": "await client.chat('x').show_async()",
    "the last line": "client.chat('x')",
    "%%chat": "%%chat -o base_url={url!r} -o api_key='k-0123456789' -m openai:m\nHi",
    "gather of 20": "await asyncio.gather(*(client.chat('x') for _ in range(20)))",
    "a pool of 8": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool: list(pool.map(lambda n: client.chat(str(n)).complete(), range(40)))"
    ),
}
_REPLIES = {
    "silent": Reply("never", header_delay=600),
    "stalled": Reply(["one ", "two ", *["three "] * 5000], delay=0.01, stall=2000),
}


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20, help="interrupts of each form, half of them of a silent model")
    parser.add_argument("--delays", default="0.001,0.002,0.007", help="seconds between two pieces")
    options = parser.parse_args()
    from kernels import Kernel  # type: ignore[import-not-found,unused-ignore]

    kernel = Kernel()
    try:
        with LLMServer() as server:
            url = server.base_url("openai")
            client = f"client = Client('openai:m', base_url={url!r}, api_key='k-0123456789', retries=0)"
            kernel.run(f"import asyncio, time\nfrom llmbridge import Client\n%load_ext llmbridge\n{client}")
            for delay in options.delays.split(","):
                _print_costs(kernel, server, float(delay))
            _print_interrupts(kernel, server, options.times, url)
    finally:
        kernel.close()


def _print_costs(kernel: Any, server: LLMServer, delay: float) -> None:
    print(f"\n{_PIECES} pieces, one every {delay * 1000:g} ms\n")
    print("| way | seconds | messages | MB | CPU s | x print | |\n|---|--:|--:|--:|--:|--:|---|")
    server.default = Reply([f"word{number:04} " for number in range(_PIECES)], delay=delay)
    rows: dict[str, tuple[float, int, float, float]] = {}
    for way, code in _WAYS.items():
        cell = kernel.run(f"began = time.time(), time.process_time()\n{code}")
        wall, cpu = map(float, kernel.value("time.time() - began[0], time.process_time() - began[1]").split())
        rows[way] = wall, len(cell.messages), cell.size / 1e6, cpu
    for way, (wall, messages, size, cpu) in rows.items():
        ratio = cpu / rows["print"][3]
        met = messages <= _TARGETS["messages"] and size <= _TARGETS["MB"] and ratio <= _TARGETS["CPU"]
        verdict = "" if way == "print" else "met" if met else "MISSED"
        print(f"| {way} | {wall:.1f} | {messages} | {size:.2f} | {cpu:.2f} | {ratio:.2f} | {verdict} |")


def _print_interrupts(kernel: Any, server: LLMServer, times: int, url: str) -> None:
    print(f"\nThe stop button at {times} random moments of each form: seconds until the kernel is idle\n")
    print("| form | median | worst | calls gone at the service | |\n|---|--:|--:|--:|---|")
    for form, code in _FORMS.items():
        waits: list[float] = []
        asked = gone = 0
        for number in range(times):
            server.default = list(_REPLIES.values())[number % 2]
            before, begun, delay = len(server.requests), 0.0, random.uniform(0.0, 1.5)

            def come(_: Any, before: int = before, delay: float = delay) -> bool:
                nonlocal begun
                if len(server.requests) > before and not begun:
                    begun = time.monotonic()
                return bool(begun) and time.monotonic() - begun > delay

            cell = kernel.run(code.format(url=url), interrupt_when=come)
            waits.append(cell.idle_seconds or 0.0)
            calls = server.requests[before:]
            asked += len(calls)
            gone += sum(call.gone.wait(1) for call in calls)
            server.default = Reply("fine")
            assert kernel.value("client.chat('x').complete()") == "fine"
        worst = max(waits)
        verdict = "met" if worst <= _TARGETS["idle"] and gone == asked else "MISSED"
        print(f"| {form} | {statistics.median(waits):.2f} | {worst:.2f} | {gone} of {asked} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
