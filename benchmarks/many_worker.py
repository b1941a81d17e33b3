"""The processes of `benchmarks.many`: the service, those who ask it for many rows, and rows without a service.

    python -m benchmarks.many_worker serve SECONDS [FAULTS]        answers "row 7" with "answer to row 7"
    python -m benchmarks.many_worker ask NAME URL WIDTH ROWS       a contender
    python -m benchmarks.many_worker cost KIND ROWS JOURNAL        rows that are answered at once
    python -m benchmarks.many_worker victim URL WIDTH ROWS JOURNAL    prints rows until it is killed

Each contender is written as its users would write it. Modules are imported with `import_module`, as peers may not be
installed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from queue import SimpleQueue
from typing import Any

from benchmarks.async_server import allow_many_sockets
from benchmarks.refusals import response
from benchmarks.worker import peak_bytes

MODEL = "bench"
TOKENS = 14  # of an answer, about: a piece for each character
HEADERS = {"Authorization": "Bearer x"}
WARM_UP = 2_000  # rows without a service

Ask = Callable[[list[str], int], list[str]]
"""What answers rows, so many at once."""


# -- the service ------------------------------------------------------------------------------------------------------


def serve(seconds: float, faults: bool) -> None:
    """Prints its port, and its counts for each line of its input.

    Args:
        seconds: That an answer takes; with faults, at the most.
        faults: Refuses one request in twenty, and breaks off one answer in fifty.
    """
    counts: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    chance = random.Random(7)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        counts["connections"] += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                body = json.loads(await reader.readexactly(int(length)))
                counts["requests"] += 1
                draw = chance.random() if faults else 1.0
                if draw < 0.05:
                    writer.write(response(b"429 Too Many Requests", b"{}", b"Retry-After: 0.02"))
                    continue
                await asyncio.sleep(seconds * (chance.random() if faults else 1.0))
                row = _text(body)
                answer = _streamed(row) if body.get("stream") else _whole(row)
                if draw < 0.07:
                    writer.write(answer[: len(answer) // 2])
                    break
                answered[row] += 1
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(take, "127.0.0.1", 0, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            twice = answered.total() - len(answered)
            print(json.dumps({**counts, "answered": answered.total(), "twice": twice}), flush=True)
            if not faults:
                counts.clear()

    asyncio.run(main())


def _text(body: Any) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _whole(row: str) -> bytes:
    message = {"role": "assistant", "content": f"answer to {row}"}
    answer = {
        "id": "a", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [
            {"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": 9 + TOKENS},
    }  # fmt: skip
    return response(b"200 OK", json.dumps(answer).encode(), b"Content-Type: application/json")


def _streamed(row: str) -> bytes:
    pieces = f"answer to {row}"
    events: list[dict[str, Any]] = [
        {"index": 0, "delta": {"content": piece}, "finish_reason": None} for piece in pieces
    ]  # fmt: skip
    events[-1]["finish_reason"] = "stop"
    same = {"id": "a", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    lines = [f"data: {json.dumps({**same, 'choices': [event]})}\n\n" for event in events]
    return response(b"200 OK", ("".join(lines) + "data: [DONE]\n\n").encode(), b"Content-Type: text/event-stream")


# -- the contenders ---------------------------------------------------------------------------------------------------


def _body(row: str) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": row}]}


def requests_threads(base_url: str) -> Ask:
    """A `requests.Session` for each thread."""
    requests = import_module("requests")
    own = threading.local()

    def one(row: str) -> str:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        response = own.session.post(f"{base_url}/chat/completions", json=_body(row), headers=HEADERS)
        response.raise_for_status()
        return str(response.json()["choices"][0]["message"]["content"])

    pools: dict[int, ThreadPoolExecutor] = {}

    def ask(rows: list[str], width: int) -> list[str]:
        pool = pools.get(width) or pools.setdefault(width, ThreadPoolExecutor(width))
        return list(pool.map(one, rows))

    return ask


def _in_loop(make: Callable[[], Callable[[str], Any]]) -> Ask:
    """As many tasks as are wanted at once, in one event loop."""
    loop = asyncio.new_event_loop()

    async def all_of(rows: list[str], width: int) -> list[str]:
        nonlocal one
        one = one or make()
        answers: dict[int, str] = {}
        left = iter(enumerate(rows))

        async def work() -> None:
            for number, row in left:
                answers[number] = await one(row)

        await asyncio.gather(*(work() for _ in range(width)))
        return [answers[number] for number in range(len(rows))]

    one: Any = None
    return lambda rows, width: loop.run_until_complete(all_of(rows, width))


def aiohttp_tasks(base_url: str) -> Ask:
    """A kept session of aiohttp."""
    aiohttp = import_module("aiohttp")

    def make() -> Callable[[str], Any]:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

        async def one(row: str) -> str:
            async with session.post(f"{base_url}/chat/completions", json=_body(row), headers=HEADERS) as response:
                response.raise_for_status()
                return str((await response.json())["choices"][0]["message"]["content"])

        return one

    return _in_loop(make)


def openai_tasks(base_url: str) -> Ask:
    """The `openai` SDK's async client."""
    openai = import_module("openai")

    def make() -> Callable[[str], Any]:
        client = openai.AsyncOpenAI(base_url=base_url, api_key="x")

        async def one(row: str) -> str:
            answer = await client.chat.completions.create(**_body(row))
            return str(answer.choices[0].message.content)

        return one

    return _in_loop(make)


def langchain_batch(base_url: str) -> Ask:
    """`ChatOpenAI.batch` of langchain-openai."""
    model = import_module("langchain_openai").ChatOpenAI(model=MODEL, base_url=base_url, api_key="x")

    def ask(rows: list[str], width: int) -> list[str]:
        return [str(answer.content) for answer in model.batch(rows, {"max_concurrency": width})]

    return ask


def litellm_batch(base_url: str) -> Ask:
    """`litellm.batch_completion`."""
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    litellm = import_module("litellm")
    litellm.suppress_debug_info = True
    logging.disable()

    def ask(rows: list[str], width: int) -> list[str]:
        messages = [_body(row)["messages"] for row in rows]
        answers = litellm.batch_completion(
            model=f"openai/{MODEL}", messages=messages, max_workers=width, api_base=base_url, api_key="x"
        )
        return [str(answer.choices[0].message.content) for answer in answers]

    return ask


def inspect_eval(base_url: str) -> Ask:
    """A task of inspect_ai without a scorer."""
    inspect_ai = import_module("inspect_ai")
    sample, generate = import_module("inspect_ai.dataset").Sample, import_module("inspect_ai.solver").generate
    os.environ["OPENAI_API_KEY"] = "x"

    def ask(rows: list[str], width: int) -> list[str]:
        task = inspect_ai.Task(dataset=[sample(input=row) for row in rows], solver=generate())
        with tempfile.TemporaryDirectory() as folder:
            [log] = inspect_ai.eval(
                task, model=f"openai/{MODEL}", model_base_url=base_url, model_args={"responses_api": False},
                max_connections=width, max_samples=width, log_dir=folder, display="none",
            )  # fmt: skip
            return [answered.output.completion for answered in log.samples]  # read from the folder

    return ask


def _client(base_url: str) -> Any:
    return import_module("llmbridge").Client(f"openai:{MODEL}", base_url=base_url, api_key="x")


def mapped(base_url: str, **options: Any) -> Ask:
    """`client.map`, with whole answers once they have proved quick."""
    client = _client(base_url)
    return lambda rows, width: [row.text for row in client.map(rows, concurrency=width, **options)]


def mapped_streamed(base_url: str) -> Ask:
    """The same, always streamed."""
    return mapped(base_url, extra={"stream": True})


def mapped_async(base_url: str) -> Ask:
    """The same with `async for`."""
    client = _client(base_url)

    async def all_of(rows: list[str], width: int) -> list[str]:
        return [row.text async for row in client.map(rows, concurrency=width)]

    loop = asyncio.new_event_loop()
    return lambda rows, width: loop.run_until_complete(all_of(rows, width))


REQUESTS, AIOHTTP, MAP, STREAMED, AWAITED = "requests", "aiohttp", "map", "map, streamed", "map, async for"
CONTENDERS: dict[str, Callable[[str], Ask]] = {
    REQUESTS: requests_threads,
    AIOHTTP: aiohttp_tasks,
    MAP: mapped,
    STREAMED: mapped_streamed,
    AWAITED: mapped_async,
    "AsyncOpenAI": openai_tasks,
    "langchain batch": langchain_batch,
    "litellm batch_completion": litellm_batch,
    "inspect_ai": inspect_eval,
}


_OPENED: list[Ask] = []


def ask(name: str, base_url: str, width: int, rows: int) -> dict[str, Any]:
    """CPU and wall seconds of a contender, its most threads and bytes, and how many answers were wrong."""
    try:
        answers_of = CONTENDERS[name](base_url)
        _OPENED.append(answers_of)  # some clients complain when they are dropped
    except ModuleNotFoundError as error:
        return {"absent": str(error)}
    threads, over = 0, threading.Event()

    def count() -> None:
        nonlocal threads
        while not over.wait(0.05):
            threads = max(threads, threading.active_count() - 1)

    answers_of([f"row {number}" for number in range(2 * width)], width)
    asked = [f"row {number}" for number in range(rows)]
    threading.Thread(target=count, daemon=True).start()
    wall, cpu = time.monotonic(), time.process_time()
    answers = answers_of(asked, width)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    over.set()
    wrong = sum(answer != f"answer to {row}" for row, answer in itertools.zip_longest(asked, answers))
    return {"cpu": cpu, "wall": wall, "threads": threads, "wrong": wrong, "peak": peak_bytes()}


# -- without a service ------------------------------------------------------------------------------------------------


def cost(kind: str, rows: int, journal: str) -> dict[str, float]:
    """Microseconds a row, wall and CPU, and the megabytes by which the process grew."""
    from llmbridge import Client, Completion, Message, Usage
    from llmbridge.many import asking

    usage = Usage(5, 5)

    def answered(text: str) -> Completion:
        return Completion(text, finish_reason="stop", usage=usage, message=Message("assistant", text))

    def at_once(self: Any, rows: Any) -> Iterator[Any]:
        return asking.Answered([answered(rows[0].content[0].text)], usage)
        yield

    asking.Chats.steps = at_once  # type: ignore[method-assign]
    client = Client("openai:m", api_key="none")
    given: dict[str, dict[str, Any]] = {"keys": {"key": lambda item: item}, "journal": {"journal": journal}}

    def items(count: int) -> Iterator[str]:
        return (f"row {number}" for number in range(count))

    def loop(count: int) -> Iterable[Any]:
        if kind == "threads":
            return _bare(items(count), answered)
        return client.map(items(count), concurrency=COST_WIDTH, **given.get(kind, {}))

    for _ in client.map(items(WARM_UP), concurrency=COST_WIDTH):
        pass
    before, most, began, cpu = _resident(), 0.0, time.monotonic(), time.process_time()
    for number, _ in enumerate(loop(rows)):
        if not number % 5_000:
            most = max(most, _resident() - before)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    return {"wall": 1e6 * seconds / rows, "cpu": 1e6 * cpu / rows, "grown": most}


COST_WIDTH = 64


def _resident() -> float:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _bare(items: Iterator[str], answered: Callable[[str], Any]) -> Iterator[Any]:
    """As many threads as `map` has, between two queues, without order, retries and window."""
    asked: SimpleQueue[str | None] = SimpleQueue()
    answers: SimpleQueue[Any] = SimpleQueue()

    def work() -> None:
        while (item := asked.get()) is not None:
            answers.put(answered(item))

    threads = [threading.Thread(target=work) for _ in range(COST_WIDTH)]
    for thread in threads:
        thread.start()
    under_way = 0
    for item in items:
        asked.put(item)
        under_way += 1
        if under_way >= 4 * COST_WIDTH:
            yield answers.get()
            under_way -= 1
    for _ in range(under_way):
        yield answers.get()
    for _ in threads:
        asked.put(None)


def meet(base_url: str, rows: int, width: str) -> dict[str, Any]:
    """Maps rows at a service that refuses: how many were lost, how many requests were sent, and the seconds."""
    began = time.monotonic()
    mapped = _client(base_url).map(map(str, range(rows)), concurrency=int(width) if width else None)
    lost = sum(not row.ok for row in mapped)
    return {"lost": lost, "sent": mapped.totals.requests, "seconds": time.monotonic() - began}


def victim(base_url: str, width: int, rows: int, journal: str) -> None:
    """Prints each row and whether its answer is its own."""
    from llmbridge import Client, Retry

    client = Client(f"openai:{MODEL}", base_url=base_url, api_key="x", retries=Retry(backoff=0.01))
    asked = (f"row {number}" for number in range(rows))
    for row in client.map(asked, concurrency=width, journal=journal or None, attempts=9):
        print(row.index, int(row.ok and row.text == f"answer to {row.input}"), flush=True)


def main(role: str, *arguments: str) -> None:
    """The process of a role."""
    if role == "serve":
        serve(float(arguments[0]), bool(arguments[1:]))
    elif role == "victim":
        victim(arguments[0], int(arguments[1]), int(arguments[2]), arguments[3])
    elif role == "ask":
        replies = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)  # other output must not get between
        print(json.dumps(ask(arguments[0], arguments[1], *map(int, arguments[2:]))), file=replies, flush=True)
        os._exit(0)  # some contenders have threads that do not end
    else:
        found = cost(arguments[0], int(arguments[1]), arguments[2]) if role == "cost" else meet(
            arguments[0], int(arguments[1]), arguments[2]
        )  # fmt: skip
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    allow_many_sockets()
    main(*sys.argv[1:])
