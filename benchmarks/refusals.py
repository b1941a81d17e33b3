"""Rows lost at a service that rejects requests above its rate limit, and how long the others take.

    python -m benchmarks.refusals
    python -m benchmarks.refusals --rows 200 --only llmbridge

The service answers after 50 ms and allows 60 requests a second, counted in one of several ways, or rejects one row in
twenty, once; or it answers after 300 ms, and 24 requests at once. A rejection is a 429 with `Retry-After: 1`. 128
threads, or as many tasks, request 600 rows, one at a time, with six retries. Each run has a new process and a new
service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.harness import Child, Table, Target, versions

RATE, RETRIES, WORKERS, ROWS = 60, 6, 128, 600
LATENCY = 0.05
PLACES, PLACES_LATENCY = 24, 0.3

SERVICES = {
    "window": "60 in each second by the clock",
    "sliding": "60 in any second",
    "bucket": "a bucket of 60 that fills with 60 a second",
    "small-bucket": "a bucket of 6 that fills with 60 a second",
    "places": "24 at once, of 300 ms each",
    "some": "one row in twenty, once",
}
CONTENDERS = ("llmbridge", "llmbridge paced", "llmbridge 64 at once", "openai")
WAYS = ("threads", "asyncio")


# -- the service ------------------------------------------------------------------------------------------------------


def _passes(kind: str) -> Callable[[str], bool]:
    """A function that tells whether a request for a row is allowed now."""
    begun: deque[float] = deque(maxlen=RATE)
    seen: set[str] = set()
    size = 6.0 if kind == "small-bucket" else float(RATE)
    bucket = [size, 0.0]

    def window(_: str) -> bool:
        now = time.monotonic()
        free = len(begun) < RATE or int(begun[0]) != int(now)
        return free and not begun.append(now)

    def sliding(_: str) -> bool:
        now = time.monotonic()
        free = len(begun) < RATE or begun[0] <= now - 1
        return free and not begun.append(now)

    def from_bucket(_: str) -> bool:
        now = time.monotonic()
        bucket[:] = min(size, bucket[0] + RATE * (now - bucket[1])), now
        passes = bucket[0] >= 1
        bucket[0] -= passes
        return passes

    def some(row: str) -> bool:
        refused = int(row) % 20 == 7 and row not in seen
        seen.add(row)
        return not refused

    return {"window": window, "sliding": sliding, "some": some}.get(kind, from_bucket)


def serve(kind: str) -> None:
    """The service's process: prints its port, and the number of its rejections for each line of its input."""
    passes = _passes(kind)
    refused = under_way = 0
    latency = PLACES_LATENCY if kind == "places" else LATENCY
    piece = json.dumps({"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]})
    answer = response(b"200 OK", f"data: {piece}\n\ndata: [DONE]\n\n".encode(), b"Content-Type: text/event-stream")
    refusal = response(b"429 Too Many Requests", b'{"error": {"message": "slow down"}}', b"Retry-After: 1")

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused, under_way
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                body = json.loads(await reader.readexactly(int(length)))
                let_through = under_way < PLACES if kind == "places" else passes(body["messages"][0]["content"])
                refused += not let_through
                if let_through:
                    under_way += 1
                    await asyncio.sleep(latency)
                    under_way -= 1
                writer.write(answer if let_through else refusal)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(take, "127.0.0.1", 0, backlog=512)
        print(server.sockets[0].getsockname()[1], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(refused, flush=True)

    asyncio.run(main())


def response(status: bytes, body: bytes, *headers: bytes) -> bytes:
    """An HTTP response as it is sent."""
    return b"\r\n".join((b"HTTP/1.1 " + status, *headers, b"Content-Length: %d" % len(body), b"", body))


# -- the contenders ---------------------------------------------------------------------------------------------------


def ask(contender: str, way: str, base_url: str, rows: int) -> None:
    """A contender's process: requests all rows, and prints how many were lost, and the seconds."""
    one = (_openai if contender == "openai" else _llmbridge)(contender, way, base_url)
    left = iter(range(rows))
    lost = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal lost
        while True:
            with lock:
                row = next(left, None)
            if row is None:
                return
            got = one(str(row))
            with lock:
                lost += not got

    async def task() -> None:
        nonlocal lost
        for row in left:
            lost += not await one(str(row))

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(WORKERS)))

    began = time.monotonic()
    if way == "asyncio":
        asyncio.run(tasks())
    else:
        threads = [threading.Thread(target=work) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(json.dumps({"lost": lost, "seconds": time.monotonic() - began}), flush=True)


def _llmbridge(contender: str, way: str, base_url: str) -> Callable[[str], Any]:
    from llmbridge import Client, Limits, RateLimited, Retry

    limits = {
        "llmbridge paced": Limits(requests_per_minute=60 * RATE),
        "llmbridge 64 at once": Limits(concurrency=64),
    }.get(contender)
    client = Client("openai:m", base_url=base_url, api_key="none", retries=Retry(RETRIES), limits=limits)

    def one(row: str) -> bool:
        try:
            return bool(client.chat(row).complete().text)
        except RateLimited:
            return False

    async def one_async(row: str) -> bool:
        try:
            return bool((await client.chat(row)).text)
        except RateLimited:
            return False

    return one_async if way == "asyncio" else one


def _openai(_: str, way: str, base_url: str) -> Callable[[str], Any]:
    from openai import AsyncOpenAI, OpenAI, RateLimitError

    options: dict[str, Any] = {"base_url": base_url, "api_key": "none", "max_retries": RETRIES}
    client = None if way == "asyncio" else OpenAI(**options)
    async_client = AsyncOpenAI(**options) if way == "asyncio" else None

    def asked(row: str) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "user", "content": row}], "stream": True}

    def one(row: str) -> bool:
        assert client is not None
        try:
            return any(chunk.choices for chunk in client.chat.completions.create(**asked(row)))
        except RateLimitError:
            return False

    async def one_async(row: str) -> bool:
        assert async_client is not None
        try:
            chunks = [chunk async for chunk in await async_client.chat.completions.create(**asked(row))]
        except RateLimitError:
            return False
        return bool(chunks)

    return one_async if way == "asyncio" else one


# -- the table --------------------------------------------------------------------------------------------------------


def measure(service: str, contender: str, way: str, rows: int) -> tuple[int, int, float] | None:
    """Rows lost, requests rejected and seconds of one run; None if the contender is not installed."""
    with Child("benchmarks.refusals", "--serve", service) as server:
        base_url = f"http://127.0.0.1:{int(server.read())}/v1"
        with Child("benchmarks.refusals", "--ask", contender, way, base_url, "--rows", str(rows)) as worker:
            try:
                found = json.loads(worker.read())
            except RuntimeError:
                return None
        return found["lost"], int(server.ask("refused")), found["seconds"]


def tables(services: Iterable[str], contenders: Iterable[str], rows: int) -> Iterable[Table]:
    """One table per service."""
    for service in services:
        lines, targets = [], []
        for contender in contenders:
            for way in WAYS:
                found = measure(service, contender, way, rows)
                name = f"{contender}, {way}"
                if found is None:
                    lines.append([name, "absent", "", ""])
                    continue
                lost, refused, seconds = found
                lines.append([name, str(lost), str(refused), f"{seconds:.1f}"])
                if contender.startswith("llmbridge"):
                    targets.append(Target(f"{name}: no row lost", str(lost), not lost))
        title = f"{rows} rows, {WORKERS} at once; the service allows {SERVICES[service]}"
        if service == "some":
            title = f"{rows} rows, {WORKERS} at once; the service rejects {SERVICES[service]}"
        yield Table(title, ["", "rows lost", "refused", "seconds"], lines, targets)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--services", default="", metavar="NAMES", help=f"comma-separated, of: {', '.join(SERVICES)}")
    parser.add_argument("--only", default="", metavar="NAMES", help=f"comma-separated, of: {', '.join(CONTENDERS)}")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.serve)
    elif asked.ask:
        ask(*asked.ask, asked.rows)
    else:
        print(versions(), flush=True)
        services = asked.services.split(",") if asked.services else SERVICES
        contenders = asked.only.split(",") if asked.only else CONTENDERS
        for table in tables(services, contenders, asked.rows):
            print(f"\n{table}", end="", flush=True)


if __name__ == "__main__":
    main()
