"""P31 and P32: a caller who stops waiting for a piece loses nothing, and waiting holds no thread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from loopback import DONE, FINISH, Listener, chunk, event, head, read_head
from modes import Async, Mode

from llmbridge import Cancelled, ChatStream, Client, Limits, Timeout, _aio, tool
from llmbridge._aio import threads
from llmbridge._call import pipeline
from llmbridge._transport import Transport
from llmbridge._transport.connections import RETURNS_ANY
from llmbridge.testing import HOLD, LLMServer, Reply

PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
PIECES = ["a", "b", "c"]


class Interrupted(Exception):
    """Raised by a signal handler."""


class Gate(Listener):
    """A server that sends each part of its answer on demand."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts
        self.go = threading.Semaphore(0)
        super().__init__(self._answer)

    def _answer(self, sock: socket.socket) -> None:
        read_head(sock)
        for part in self.parts:
            assert self.go.acquire(timeout=20)
            sock.sendall(part)

    def client(self, **options: Any) -> Client:
        """A client of it."""
        base_url = f"http://127.0.0.1:{self.port}/v1"
        return Client("openai:m", base_url=base_url, api_key="sk-test", retries=0, timeout=20, **options)


PARTS = (
    head("Transfer-Encoding: chunked")[:30],
    head("Transfer-Encoding: chunked")[30:],
    chunk(event(text="a")),
    chunk(event(text="b"))[:9],
    chunk(event(text="b"))[9:],
    chunk(event(text="c") + FINISH + DONE) + b"0\r\n\r\n",
)


@contextlib.contextmanager
def handler() -> Iterator[None]:
    """Signals raise."""

    def interrupt(*_: Any) -> None:
        raise Interrupted

    try:
        before = signal.signal(signal.SIGUSR1, interrupt)
    except ValueError:
        pytest.skip("signals are for the main thread")
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


async def pieces_by_heartbeat(pieces: Any, gate: Gate, seconds: float = 0.05) -> list[str]:
    """The pieces of a relay that waits for so long at a time, and lets the server go on whenever nothing came."""
    got: list[str] = []
    while True:
        with anyio.move_on_after(seconds):
            try:
                got.append(await anext(pieces))
            except StopAsyncIteration:
                return got
            continue
        gate.go.release()


class TestHeartbeats:
    """P31: a step that was left, by a timeout or a signal, is not the end of the answer."""

    @pytest.mark.quick(1)
    def test_p31_what_was_left_never_looks_like_the_end(self, mode: Mode) -> None:
        """In async code the next step continues; in sync code it raises with an explanation."""
        with Gate(*PARTS) as gate, gate.client() as client:
            stream = client.chat("x")
            if isinstance(mode, Async):
                assert mode.run(lambda: pieces_by_heartbeat(stream.__aiter__(), gate)) == PIECES
                return
            for _ in PARTS[:3]:
                gate.go.release()
            pieces = iter(stream)
            assert next(pieces) == "a"
            kick = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
            with handler():
                kick.start()
                with pytest.raises(Interrupted):
                    next(pieces)
            with pytest.raises(Cancelled) as caught:
                next(pieces)
            assert caught.value.partial == "a"
            assert list(pieces) == []
            gate.parts = ()
            gate.go.release(3)

    @pytest.mark.parametrize("way", [ChatStream.__next__, lambda stream: next(stream.events())], ids=["next", "events"])
    def test_p31_every_way_of_a_plain_loop_says_so(self, way: Callable[[Any], Any]) -> None:
        """`next(stream)` is one that may be called again by hand."""
        with Gate(*PARTS) as gate, gate.client() as client, handler():
            for _ in PARTS[:3]:
                gate.go.release()
            stream = client.chat("x")
            pieces: Any = stream if way is ChatStream.__next__ else iter(stream.events())
            next(pieces)
            kick = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
            kick.start()
            with pytest.raises(Interrupted):
                next(pieces)
            with pytest.raises(Cancelled):
                next(pieces)
            gate.go.release(3)

    @pytest.mark.parametrize("view", ["pieces", "events", "raw_events"])
    @pytest.mark.quick(2)
    def test_p31_in_every_phase(self, loop: Async, view: str) -> None:
        """Before the connection, the headers, the first piece, and within a chunk: each piece comes once."""
        with Gate(*PARTS) as gate, gate.client() as client:
            stream = client.chat("x")
            source = stream if view == "pieces" else getattr(stream, view)()
            got = loop.run(lambda: pieces_by_heartbeat(source.__aiter__(), gate))
            texts = [piece if view == "pieces" else getattr(piece, "text", "") for piece in got]
            assert [text for text in texts if text] == PIECES
            assert stream.text == "abc"
            assert gate.accepted == 1

    @pytest.mark.quick(1)
    def test_p31_who_has_come_back_may_wait(self, loop: Async, monkeypatch: pytest.MonkeyPatch) -> None:
        """A later wait may be longer than the grace period of the abandoned call."""
        monkeypatch.setattr(pipeline, "_LEFT_SECONDS", 0.2)
        with Gate(*PARTS) as gate, gate.client() as client:

            async def main() -> list[str]:
                pieces = client.chat("x").__aiter__()
                with anyio.move_on_after(0.1):
                    await anext(pieces)
                kick = threading.Timer(0.6, gate.go.release, (len(PARTS),))
                kick.start()
                return [piece async for piece in pieces]

            assert loop.run(main) == PIECES

    @pytest.mark.slow
    def test_p31_given_up_behind_a_step_of_a_thread(self, loop: Async, monkeypatch: pytest.MonkeyPatch) -> None:
        """A late caller gets Cancelled, whatever the thread was waiting for."""
        monkeypatch.setattr(pipeline, "_LEFT_SECONDS", 0.5)
        send = Transport.send

        def slow(*args: Any) -> Any:
            time.sleep(0.2)
            return send(*args)

        monkeypatch.setattr(Transport, "send", slow)
        with Gate(b"") as gate, gate.client() as client:

            async def main() -> None:
                pieces = client.chat("x").__aiter__()
                with anyio.move_on_after(0.05):
                    await anext(pieces)
                await anyio.sleep(1.2)
                with pytest.raises(Cancelled):
                    await anext(pieces)

            loop.run(main)
            gate.go.release()

    def test_p31_the_next_event_loop_hears_the_step_of_a_thread(
        self, server: LLMServer, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The loop that began the step has been closed meanwhile, and one looks for that at once."""
        monkeypatch.setattr(_aio, "_LOOK_SECONDS", 0.0)
        server.script(Reply(PIECES))
        go, send = threading.Event(), Transport.send

        def slow(*args: Any) -> Any:
            assert go.wait(20)
            return send(*args)

        monkeypatch.setattr(Transport, "send", slow)
        pieces = client.chat("x").__aiter__()

        async def begin() -> None:
            with anyio.move_on_after(0.05):
                await anext(pieces)

        async def go_on() -> list[str]:
            step = asyncio.ensure_future(anext(pieces))
            await asyncio.sleep(0)
            go.set()
            return [await step, *[piece async for piece in pieces]]

        asyncio.run(begin())
        assert asyncio.run(go_on()) == PIECES

    def test_p14_a_loop_is_closed_with_its_tasks(self, server: LLMServer, client: Client) -> None:
        """Abandoned calls are collected without an event loop, and silently."""
        server.script(Reply(PIECES, stall=900))
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # asyncio's own word on tasks that were left pending

        async def begin() -> list[str]:
            return [piece async for piece in client.chat("x")]

        task = loop.create_task(begin())
        loop.run_until_complete(_until(lambda: bool(server.requests)))
        loop.close()
        del task, loop
        gc.collect()
        assert server.requests[0].gone.wait(10)

    def test_p14_a_loop_is_closed_before_the_step_of_a_thread_is_heard(self, server: LLMServer, client: Client) -> None:
        """The request was sent, and nobody waits for its headers any more."""
        server.script(Reply(PIECES, stall=900))
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)

        async def begin() -> list[str]:
            return [piece async for piece in client.chat("x")]

        async def hold_up() -> None:
            while not any(thread.name.startswith("AnyIO") for thread in threading.enumerate()):  # noqa: ASYNC110
                await asyncio.sleep(0)
            server.wait_for_requests(1, timeout=20)
            time.sleep(0.2)  # noqa: ASYNC251 - meanwhile the thread reports to a loop that will not listen

        task = loop.create_task(begin())
        loop.run_until_complete(hold_up())
        loop.close()
        del task, loop
        gc.collect()
        assert server.requests[0].gone.wait(10)

    def test_p14_a_loop_is_closed_with_tasks_in_the_queue_of_the_limits(self, server: LLMServer) -> None:
        """The next one in the queue gets its turn, in whichever loop or thread it is."""
        server.script(Reply(PIECES, stall=900), Reply("next"))
        limits = Limits(concurrency=1)
        with Client("openai:m", base_url=server.base_url("openai"), limits=limits) as client:
            loop = asyncio.new_event_loop()
            loop.set_exception_handler(lambda *_: None)

            async def begin() -> list[str]:
                return [piece async for piece in client.chat("x")]

            tasks = [loop.create_task(begin()) for _ in range(3)]
            limiter = client.connections.limiter
            assert limiter is not None
            loop.run_until_complete(_until(lambda: bool(server.requests) and limiter.waiting == 2))
            loop.close()
            del tasks, loop
            gc.collect()
            assert client.chat("y", timeout=20).complete().text == "next"

    def test_p31_a_wait_too_short_for_any_step(self, server: LLMServer, client: Client, loop: Async) -> None:
        """Heartbeats may be shorter than a turn of the event loop: the call goes on."""
        server.script(Reply(PIECES))

        async def main() -> list[str]:
            pieces, got = client.chat("x").__aiter__(), list[str]()
            for _ in range(2000):
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    try:
                        got.append(await anext(pieces))
                    except StopAsyncIteration:
                        return got
                await anyio.sleep(0.01)
            return got

        assert loop.run(main) == PIECES

    @pytest.mark.quick(1)
    def test_p31_who_takes_what_was_there_is_back(self, loop: Async, monkeypatch: pytest.MonkeyPatch) -> None:
        """The abandoned step had read pieces already: the caller may take its time with them."""
        monkeypatch.setattr(pipeline, "_LEFT_SECONDS", 0.2)
        sent = [f"{number} " for number in range(10_000)]
        body = b"".join(chunk(event(text=piece)) for piece in sent) + chunk(FINISH + DONE) + b"0\r\n\r\n"
        with Gate(head("Transfer-Encoding: chunked") + body) as gate, gate.client() as client:
            gate.go.release()

            async def main() -> list[str]:
                pieces = client.chat("x").__aiter__()
                got = [await anext(pieces)]
                came = [True]
                while came[-2:] != [False, True]:  # left, and there it was
                    before = len(got)
                    with anyio.CancelScope() as scope:
                        scope.cancel()
                        got.append(await anext(pieces))
                    came.append(len(got) > before)
                await anyio.sleep(0.6)
                return got + [piece async for piece in pieces]

            assert loop.run(main) == sent

    def test_p31_while_it_waits_for_its_turn(self, server: LLMServer, loop: Async) -> None:
        """In the queue of the client's limits it gives up its place, and takes another one later."""
        server.default = Reply(PIECES)
        with Client(
            "openai:m", base_url=server.base_url("openai"), api_key="sk-test", limits=Limits(concurrency=1), timeout=20
        ) as client:

            async def main() -> list[str]:
                first = client.chat("x").__aiter__()
                await anext(first)
                second, third = client.chat("y").__aiter__(), client.chat("z").__aiter__()
                with anyio.move_on_after(0.05):
                    await anext(second)
                await first.aclose()  # type: ignore[attr-defined]
                got = [piece async for piece in third]  # not held up by the one that is left
                return got + [piece async for piece in second]

            assert loop.run(main) == PIECES * 2

    @pytest.mark.quick(1)
    def test_p31_it_keeps_its_place_in_the_queue(self, server: LLMServer, loop: Async) -> None:
        """A caller who returns in time keeps its place, however often."""
        server.default = Reply(PIECES)
        with Client(
            "openai:m", base_url=server.base_url("openai"), api_key="sk-test", limits=Limits(concurrency=1), timeout=20
        ) as client:

            async def main() -> None:
                first = client.chat("first").__aiter__()
                await anext(first)
                second = client.chat("second").__aiter__()
                with anyio.move_on_after(0.05):
                    await anext(second)
                async with anyio.create_task_group() as group:
                    for _ in range(5):
                        group.start_soon(_all, client.chat("later"))
                        with anyio.move_on_after(0.05):
                            await anext(second)
                    group.start_soon(first.aclose)  # type: ignore[attr-defined]
                    assert [piece async for piece in second] == PIECES

            loop.run(main)
        asked = [request.json["messages"][0]["content"] for request in server.requests]
        assert asked == ["first", "second", *["later"] * 5]

    @pytest.mark.quick(1)
    def test_p31_before_a_retry(self, server: LLMServer, loop: Async) -> None:
        """The wait goes on meanwhile."""
        server.script(Reply("no", status=503, headers={"Retry-After": "1"}), Reply(PIECES))
        with Client("openai:m", base_url=server.base_url("openai"), api_key="sk-test", retries=1, timeout=20) as client:

            async def main() -> list[str]:
                pieces = client.chat("x").__aiter__()
                for _ in range(2):
                    with anyio.move_on_after(0.3):
                        await anext(pieces)
                return [piece async for piece in pieces]

            assert loop.run(main) == PIECES
        assert len(server.requests) == 2

    def test_p31_while_a_tool_runs(self, server: LLMServer, client: Client, loop: Async) -> None:
        """A function in its thread goes on, and is called once; an async one belongs to the task: `Cancelled`."""
        go, calls = threading.Event(), []

        @tool
        def slow() -> str:
            """Waits."""
            calls.append("slow")
            assert go.wait(20)
            return "done"

        @tool
        async def wait() -> str:
            """Waits forever."""
            calls.append("wait")
            await anyio.sleep(60)
            return ""

        async def main(function: Any) -> list[str]:
            pieces = client.chat("x", tools=[function], run_tools=True).__aiter__()
            with anyio.move_on_after(20) as scope:
                async with anyio.create_task_group() as group:

                    async def end() -> None:
                        await _until(lambda: bool(calls))
                        scope.cancel()

                    group.start_soon(end)
                    await anext(pieces)
            go.set()
            return [piece async for piece in pieces]

        for function, expected in ((slow, PIECES), (wait, None)):
            server.script(Reply(tool_calls=[{"name": function.name, "arguments": {}}]), Reply(PIECES))
            calls.clear()
            if expected is not None:
                assert loop.run(lambda function=function: main(function)) == expected
            else:
                with pytest.raises(Cancelled):
                    loop.run(lambda function=function: main(function))
            assert calls == [function.name]

    def test_p31_a_loop_that_was_left_is_closed_at_once(
        self, server: LLMServer, client: Client, loop: Async, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An iterator held only by `async for` cannot be continued, even if the exception's frames are kept."""
        monkeypatch.setattr(pipeline, "_LEFT_SECONDS", 600.0)
        server.script(Reply(PIECES, stall=900))
        kept: list[BaseException] = []

        async def main() -> bool:
            with anyio.CancelScope() as scope:
                try:
                    async for piece in client.chat("x"):
                        if piece == PIECES[-1]:
                            scope.deadline = anyio.current_time() + 0.1
                except BaseException as error:
                    kept.append(error)
                    raise
            return await anyio.to_thread.run_sync(server.requests[0].gone.wait, 30)

        assert loop.run(main)


class TestThreads:
    """P32: threads are for blocking work, and waiting needs none."""

    def test_p32_calls_in_a_queue_all_come_to_an_end(self, server: LLMServer, mode: Mode) -> None:
        """Even if few may run at once."""
        server.default = Reply(PIECES)
        with Client(
            "openai:m", base_url=server.base_url("openai"), api_key="sk-test", limits=Limits(concurrency=2), timeout=60
        ) as client:
            assert mode.at_once([client.chat("x") for _ in range(40)]) == [PIECES] * 40

    @pytest.mark.parametrize("how", ["for", "await", "embed"])
    @pytest.mark.quick(1)
    def test_p32_a_queue_holds_no_thread(self, server: LLMServer, loop: Async, how: str) -> None:
        """Three hundred behind two."""
        server.default = Reply(PIECES, embeddings=[[1.0]])
        most = [0]
        with Client(
            "openai:m", base_url=server.base_url("openai"), api_key="sk-test", limits=Limits(concurrency=2), timeout=60
        ) as client:

            async def one() -> None:
                await _read(client, how)
                most[0] = max(most[0], threads._Threads.here().taken)

            loop.run(lambda: _all_of([one] * 300))
        assert most[0] <= 16  # two that send, and those that look through embeddings

    @pytest.mark.parametrize("how", ["for", "await", "embed"])
    @pytest.mark.parametrize("where", ["headers", "first content", "first content after a 1xx answer", "retry"])
    @pytest.mark.quick(1)
    def test_p32_waiting_for_a_service_holds_no_thread(
        self, server: LLMServer, loop: Async, how: str, where: str
    ) -> None:
        """For its headers, its first piece, or its `retry_after`."""
        if where == "headers" and not RETURNS_ANY:
            pytest.skip("urllib3 1.26 waits for the headers by itself")
        server.default = {
            "headers": Reply(PIECES, header_delay=60),
            "first content": Reply(PIECES, first_delay=60),
            "first content after a 1xx answer": Reply(raw=[PROCESSING, head("Transfer-Encoding: chunked"), HOLD]),
            "retry": Reply("no", status=503, headers={"Retry-After": "60"}),
        }[where]
        with Client("openai:m", base_url=server.base_url("openai"), api_key="sk-test", timeout=120) as client:

            async def main() -> None:
                async with anyio.create_task_group() as group:
                    for _ in range(50):
                        group.start_soon(_read, client, how)
                    await _until(lambda: len(server.requests) == 50 and not threads._Threads.here().taken)
                    group.cancel_scope.cancel()

            loop.run(main)

    @pytest.mark.quick(1)
    def test_p32_many_that_begin_at_once_need_few_threads(
        self, server: LLMServer, client: Client, loop: Async, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Starting a thread for each would stop the event loop."""
        server.default = Reply(PIECES)
        most, send = [0], Transport.send

        def slow(*args: Any) -> Any:
            if len(args) == 3:  # not the answer to one that was sent
                time.sleep(0.02)
            return send(*args)

        async def one() -> None:
            await _read(client, "for")
            most[0] = max(most[0], threads._Threads.here().taken)

        monkeypatch.setattr(Transport, "send", slow)
        monkeypatch.setattr(threads, "_GROWTH_SECONDS", 20)
        loop.run(lambda: _all_of([one] * 200))
        assert most[0] <= 32

    def test_p32_few_start_between_two_turns(
        self, server: LLMServer, client: Client, loop: Async, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However fast the machine: other tasks are not held up by many calls that start at once."""
        monkeypatch.setattr(_aio, "_BURST_SECONDS", float("inf"))
        calls = [client.chat("x") for _ in range(40)]

        async def main() -> list[int]:
            started: list[int] = []
            async with anyio.create_task_group() as tasks:
                for call in calls:
                    tasks.start_soon(_all, call)
                for _ in range(3):
                    await anyio.lowlevel.checkpoint()
                    started.append(sum(call._reading.source.started is not None for call in calls))
            return started

        assert 0 < max(loop.run(main)) <= 3 * _aio._BURST

    @pytest.mark.quick(1)
    def test_p32_calls_that_hang_hold_up_no_others(
        self, server: LLMServer, loop: Async, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """If all threads are stuck, in name lookups say, more are started soon."""
        answer, plain = threading.Event(), socket.getaddrinfo

        def lookup(host: str, *args: Any, **kwargs: Any) -> Any:
            if host == "slow.test":
                answer.wait(20)
                raise socket.gaierror(socket.EAI_NONAME, "unknown")
            return plain(host, *args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", lookup)
        server.default = Reply(PIECES)
        options: Any = {"api_key": "sk-test", "retries": 0, "timeout": Timeout(total=60, connect=60)}
        with (
            Client("openai:m", base_url="http://slow.test/v1", **options) as stuck,
            Client("openai:m", base_url=server.base_url("openai"), **options) as client,
        ):

            async def main() -> str:
                async with anyio.create_task_group() as group:
                    for _ in range(100):
                        group.start_soon(_read, stuck, "for")
                    await _until(lambda: threads._Threads.here().taken >= threads._AT_ONCE)
                    text = (await client.chat("x")).text
                    answer.set()
                    group.cancel_scope.cancel()
                return text

            assert loop.run(main) == "abc"


async def _all(stream: Any) -> None:
    async for _ in stream:
        pass


async def _read(client: Client, how: str) -> None:
    if how == "for":
        await _all(client.chat("x"))
    elif how == "await":
        await client.chat("x")
    else:
        await client.aembed("x")


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await anyio.sleep(0.01)
    raise AssertionError("it did not come to pass within 20 s")


async def _all_of(steps: list[Callable[[], Any]]) -> None:
    async with anyio.create_task_group() as group:
        for step in steps:
            group.start_soon(step)
