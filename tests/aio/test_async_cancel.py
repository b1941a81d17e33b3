"""P14 to P16 for async code: cancelling, closing and leaving, in every phase of a call, without leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from loopback import Listener, chunk, event, head, read_head
from modes import LOOPS, Async

from llmbridge import BadRequest, Cancelled, ChatStream, Client, LLMBridgeError, Timeout
from llmbridge._aio import threads
from llmbridge._call import pipeline
from llmbridge._transport import Exchange
from llmbridge._transport import call as transport_call
from llmbridge.providers.openai import OpenAI
from llmbridge.testing import HOLD, LLMServer, Reply

ROOT = Path(__file__).resolve().parents[2]
PIECES = ["a", "b", "c"]
STALLED = Reply(PIECES, stall=900)
FREE = 10.0  # seconds within which a cancelled caller is free, on the slowest machine (0.1 is the aim)


@dataclass
class Phase:
    """A call that is stuck somewhere.

    Args:
        client: Whose next stream gets stuck.
        reached: Whether it is there.
        gone: Whether the server has seen it leave, as far as there is a server.
    """

    client: Client
    reached: Callable[[], bool]
    gone: Callable[[], bool] = lambda: True


def _client(base_url: str, **options: Any) -> Client:
    options = {"api_key": "sk-test", "retries": 0, "timeout": Timeout(connect=30, first_content=30, idle=30), **options}
    return Client("openai:m", base_url=base_url, **options)


@contextlib.contextmanager
def connecting(_: pytest.FixtureRequest) -> Iterator[Phase]:
    """The server's queue is full, so connecting waits."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(64):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        base_url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        yield Phase(stack.enter_context(_client(base_url)), lambda: _busy_threads() > 0)


@contextlib.contextmanager
def looking_up(_: pytest.FixtureRequest) -> Iterator[Phase]:
    """A name lookup hangs, and cannot be interrupted."""
    asked, answer = threading.Event(), threading.Event()

    def hang(*_: Any, **__: Any) -> list[Any]:
        asked.set()
        answer.wait(20)
        return []

    with pytest.MonkeyPatch.context() as patch, _client("http://slow.test/v1") as client:
        patch.setattr(socket, "getaddrinfo", hang)
        try:
            yield Phase(client, asked.is_set)
        finally:
            answer.set()


@contextlib.contextmanager
def shaking_hands(_: pytest.FixtureRequest) -> Iterator[Phase]:
    """A TLS server that stays silent."""
    gone, begun = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        while sock.recv(65536):
            begun.set()
        gone.set()

    with Listener(serve) as listener, _client(f"https://127.0.0.1:{listener.port}/v1") as client:
        yield Phase(client, begun.is_set, lambda: gone.wait(30))


@contextlib.contextmanager
def busy(_: pytest.FixtureRequest) -> Iterator[Phase]:
    """An endless stream whose reader never waits."""
    gone, begun = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(head("Transfer-Encoding: chunked"))
        data = chunk(event("x")) * 200
        try:
            while True:
                sock.sendall(data)
                begun.set()
        except OSError:
            gone.set()

    with Listener(serve) as listener, _client(f"http://127.0.0.1:{listener.port}/v1") as client:
        yield Phase(client, begun.is_set, lambda: gone.wait(30))


def answered(reply: Reply, tls: bool = False, **options: Any) -> Callable[[pytest.FixtureRequest], Any]:
    """The server has the request, and answers only so much."""

    @contextlib.contextmanager
    def phase(request: pytest.FixtureRequest) -> Iterator[Phase]:
        server: LLMServer = request.getfixturevalue("tls_server" if tls else "server")
        verify = request.getfixturevalue("ca_file") if tls else True
        server.default = reply
        with _client(server.base_url("openai"), verify=verify, **options) as client:
            yield Phase(client, lambda: bool(server.requests), lambda: server.requests[0].gone.wait(30))

    return phase


ERROR = [head("Content-Length: 1000", status="500 Oops", kind="text/plain"), b"half of it", HOLD]
PHASES: dict[str, Callable[[pytest.FixtureRequest], Any]] = {
    "connect": connecting,
    "lookup": looking_up,
    "handshake": shaking_hands,
    "headers": answered(Reply(header_delay=30)),
    "headers over TLS": answered(Reply(header_delay=30), tls=True),
    "first content": answered(Reply(PIECES, first_delay=30)),
    "stalled": answered(STALLED),
    "stalled over TLS": answered(STALLED, tls=True),
    "trickling": answered(Reply(["x"] * 5000, delay=0.005)),
    "trickling over TLS": answered(Reply(["x"] * 5000, delay=0.005), tls=True),
    "busy": busy,
    "the body of an error": answered(Reply(raw=ERROR)),
    "a wait before the next attempt": answered(
        Reply("later", status=429, headers={"Retry-After": "20", "Connection": "close"}), retries=3
    ),
}


@pytest.fixture(params=PHASES)
def phase(request: pytest.FixtureRequest) -> Iterator[Phase]:
    """The phase in which a call is stuck."""
    with PHASES[request.param](request) as made:
        yield made


# -- ways of reading, and ways of cancelling ---------------------------------------------------------------------


async def pieces(stream: ChatStream, held: list[Any]) -> None:
    """A loop over an iterator that outlives the loop, so that no garbage collection helps."""
    held.append(stream.__aiter__())
    async for _ in held[-1]:
        pass


async def events(stream: ChatStream, held: list[Any]) -> None:
    """The same over events."""
    held.append(stream.events().__aiter__())
    async for _ in held[-1]:
        pass


async def whole(stream: ChatStream, held: list[Any]) -> None:
    """The whole answer."""
    held.append(stream)
    await stream


async def by_task(read: Callable[[], Any], reached: Callable[[], bool]) -> float:
    """`task.cancel()`."""
    task = asyncio.ensure_future(read())
    await _until(reached)
    start = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    return time.monotonic() - start


async def by_timeout(read: Callable[[], Any], reached: Callable[[], bool]) -> float:
    """`asyncio.timeout()`, new in 3.11."""
    if sys.version_info < (3, 11):
        pytest.skip("asyncio.timeout is new in Python 3.11")
    moments: list[float] = []
    limit = asyncio.timeout(None)

    async def when_reached() -> None:
        await _until(reached)
        moments.append(time.monotonic())
        limit.reschedule(asyncio.get_running_loop().time())

    task = asyncio.ensure_future(when_reached())
    with pytest.raises(TimeoutError):
        async with limit:
            await read()
    await task
    return time.monotonic() - moments[0]


async def by_anyio(read: Callable[[], Any], reached: Callable[[], bool]) -> float:
    """`anyio.move_on_after()`, on both loops; on trio it is trio's own scope."""
    from anyio import create_task_group, current_time, move_on_after

    moments: list[float] = []
    with move_on_after(None) as scope:

        async def when_reached() -> None:
            await _until(reached)
            moments.append(time.monotonic())
            scope.deadline = current_time()

        async with create_task_group() as group:
            group.start_soon(when_reached)
            await read()
    assert scope.cancel_called
    return time.monotonic() - moments[0]


async def by_trio(read: Callable[[], Any], reached: Callable[[], bool]) -> float:
    """`trio.CancelScope.cancel()`."""
    import trio

    moments: list[float] = []
    with trio.move_on_after(60) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await _until(reached)
            moments.append(time.monotonic())
            scope.cancel()
    assert scope.cancelled_caught
    return time.monotonic() - moments[0]


READS = {"for": pieces, "events": events, "await": whole}
WAYS: dict[str, tuple[str, Callable[..., Any]]] = {
    "task": ("asyncio", by_task),
    "timeout": ("asyncio", by_timeout),
    "anyio on asyncio": ("asyncio", by_anyio),
    "anyio on trio": ("trio", by_anyio),
    "trio": ("trio", by_trio),
}


class TestCancel:
    """P14, P15: a cancelled caller is free at once, and the server sees it."""

    @pytest.mark.slow
    @pytest.mark.parametrize("read", ["for", "await"])
    @pytest.mark.parametrize("way", ["task", "trio"])
    def test_p15_in_every_phase(self, phase: Phase, way: str, read: str) -> None:
        """In every phase the caller is freed, no thread stays blocked, and the socket is closed."""
        _check_cancel(phase, way, READS[read])

    @pytest.mark.parametrize("read", READS)
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.parametrize("place", ["headers", "stalled"])
    @pytest.mark.quick(2)
    def test_p15_in_every_way(self, request: pytest.FixtureRequest, place: str, way: str, read: str) -> None:
        """Tasks, timeouts and scopes of all three libraries."""
        with PHASES[place](request) as phase:
            _check_cancel(phase, way, READS[read])

    def test_what_came_before_is_kept(self, server: LLMServer, client: Client, loop: Async) -> None:
        """The text so far is in the stream, and the client serves the next call."""
        server.script(STALLED, Reply(PIECES))
        stream = client.chat("x")
        got: list[str] = []

        async def main() -> None:
            from anyio import create_task_group

            async with create_task_group() as group:
                group.start_soon(_collect, stream, got)
                await _until(lambda: len(got) >= 2)
                group.cancel_scope.cancel()
            assert [piece async for piece in client.chat("x")] == PIECES

        loop.run(main)
        assert stream.text == "".join(got)
        assert server.requests[0].gone.wait(30)

    def test_before_the_first_step(self, server: LLMServer, client: Client, loop: Async) -> None:
        """In a scope that is already cancelled, nothing waits for an answer."""
        server.default = Reply(header_delay=10)

        async def main() -> None:
            from anyio import CancelScope

            for read in READS.values():
                with CancelScope() as scope:
                    scope.cancel()
                    await read(client.chat("x"), [])
                assert scope.cancelled_caught

        start = time.monotonic()
        loop.run(main)
        assert time.monotonic() - start < FREE
        assert all(received.gone.wait(30) for received in server.requests)

    @pytest.mark.quick(1)
    def test_over_and_over(
        self, server: LLMServer, client: Client, loop: Async, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A cancelled stream stays over: a further step raises, and never hangs."""
        monkeypatch.setattr(pipeline, "_LEFT_SECONDS", 0.1)
        server.script(STALLED)
        result = client.chat("x").__aiter__()

        async def main() -> None:
            from anyio import move_on_after

            assert await anext(result) == "a"
            with move_on_after(0.05):
                async for _ in result:
                    pass
            await _until(server.requests[0].gone.is_set)
            with pytest.raises(Cancelled):
                await anext(result)
            with pytest.raises(StopAsyncIteration):
                await anext(result)

        loop.run(main)

    def test_a_coroutine_that_is_closed(self, server: LLMServer, client: Client) -> None:
        """Dropping `await stream` in its middle leaves no blocked thread behind."""
        server.script(Reply(header_delay=30))

        async def main() -> None:
            from anyio.lowlevel import checkpoint

            step = whole(client.chat("x"), [])
            while step.send(None) is None:  # a mere turn of the loop; what it waits for then is its thread
                await checkpoint()
            await _until(lambda: bool(server.requests))
            step.close()
            await _until(lambda: _busy_threads() == 0)

        asyncio.run(main())
        assert server.requests[0].gone.wait(30)

    @pytest.mark.parametrize("read", ["for", "events"])
    @pytest.mark.quick(1)
    def test_p14_while_a_worker_decodes(
        self, server: LLMServer, client: Client, loop: Async, read: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A call that is cancelled while its thread decodes ends when the thread is done."""
        server.script(STALLED)
        begun, go = threading.Event(), threading.Event()
        decode = OpenAI.decode
        before = set(transport_call._watchdog._calls)
        held: list[Any] = []  # so that no garbage collection helps

        def slow(frame: Any) -> Any:
            begun.set()
            assert go.wait(30)
            return decode(frame)

        async def main() -> None:
            from anyio import create_task_group

            async with create_task_group() as group:
                group.start_soon(READS[read], client.chat("x"), held)
                await _until(begun.is_set)
                group.cancel_scope.cancel()
            go.set()
            await _until(lambda: _busy_threads() == 0)

        monkeypatch.setattr(OpenAI, "decode", slow)
        monkeypatch.setattr(Exchange, "readable", None)  # as of an answer without a socket: a worker takes every step
        monkeypatch.setattr(pipeline, "_LEFT_SECONDS", 0.1)
        loop.run(main)
        _eventually(lambda: transport_call._watchdog._calls <= before)
        assert server.requests[0].gone.wait(30)

    def test_p14_closed_by_a_thread_at_the_worst_moment(
        self, server: LLMServer, client: Client, loop: Async, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`close()` from another thread, just before the loop uses the socket, ends the reader with Cancelled."""
        server.script(STALLED)
        stream = client.chat("x")
        set_blocking = Exchange.set_blocking
        closed: list[bool] = []

        def late(self: Exchange, blocking: bool) -> None:
            if not blocking and not closed:
                closer = threading.Thread(target=stream.close)
                closer.start()
                closer.join(30)
                closed.append(not closer.is_alive())
            set_blocking(self, blocking)

        monkeypatch.setattr(Exchange, "set_blocking", late)
        assert isinstance(loop.read(stream).error, Cancelled)
        assert closed == [True]
        assert server.requests[0].gone.wait(30)


class TestScopes:
    """No cancel scope or task group is open between steps."""

    def test_p15_each_piece_from_another_task(self, server: LLMServer, client: Client, loop: Async) -> None:
        """Short-lived tasks take turns on one stream."""
        server.script(Reply(PIECES, delay=0.01))
        result = client.chat("x").__aiter__()
        got: list[str] = []

        async def one() -> None:
            got.append(await anext(result))

        async def main() -> None:
            from anyio import create_task_group

            for _ in PIECES:
                async with create_task_group() as group:
                    group.start_soon(one)
            with pytest.raises(StopAsyncIteration):
                await anext(result)

        loop.run(main)
        assert got == PIECES

    def test_p15_begun_in_a_scope_that_is_left(self, server: LLMServer, client: Client, loop: Async) -> None:
        """A scope is entered, a piece read, the scope left: open inner scopes would break this."""
        server.script(STALLED)

        async def main() -> None:
            from anyio import CancelScope, create_task_group

            result = client.chat("x").__aiter__()
            with CancelScope():
                async with create_task_group():
                    assert await anext(result) == "a"
            with CancelScope() as other:
                assert await anext(result) == "b"
                other.cancel()
            async with create_task_group() as group:
                group.start_soon(result.aclose)  # type: ignore[attr-defined]

        loop.run(main)
        assert server.requests[0].gone.wait(30)

    def test_p15_a_loop_in_a_task_group(self, server: LLMServer, client: Client, loop: Async) -> None:
        """`async for` starts tasks in a group around it, and another task closes the stream."""
        server.script(STALLED)
        started: list[str] = []

        async def main() -> None:
            from anyio import create_task_group

            result = client.chat("x").__aiter__()

            async def note(piece: str) -> None:
                started.append(piece)

            async def close() -> None:
                await _until(lambda: len(started) >= 2)
                await result.aclose()  # type: ignore[attr-defined]

            async with create_task_group() as group:
                group.start_soon(close)
                with contextlib.suppress(LLMBridgeError):
                    async for piece in result:
                        group.start_soon(note, piece)

        loop.run(main)
        assert sorted(started)[:2] == PIECES[:2]
        assert server.requests[0].gone.wait(30)

    def test_in_an_async_generator_of_ones_own(self, server: LLMServer, client: Client, loop: Async) -> None:
        """Wrapped as in a web framework, and left in the middle: the loop's shutdown closes it."""
        server.script(STALLED)

        async def wrapped() -> Any:
            async for piece in client.chat("x"):
                yield f"data: {piece}\n\n"

        async def main() -> None:
            generator = wrapped()
            assert await anext(generator) == "data: a\n\n"
            await generator.aclose()

        loop.run(main)
        assert server.requests[0].gone.wait(30)


def test_aclosing_closes_the_stream(server: LLMServer, client: Client, loop: Async) -> None:
    """As with async generators."""
    server.script(STALLED)
    stream = client.chat("x")

    async def main() -> None:
        async with contextlib.aclosing(stream):
            async for _ in stream.events():
                await stream.aclose()
                break

    loop.run(main)
    assert server.requests[0].gone.wait(30)


class TestGarbage:
    """Unreferenced streams are closed."""

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["pieces", "events"])
    def test_p14_an_abandoned_iterator(self, server: LLMServer, client: Client, loop: Async, way: str) -> None:
        """The connection closes although the stream itself lives on."""
        server.script(STALLED)
        stream = client.chat("x")

        async def main() -> None:
            result = (stream if way == "pieces" else stream.events()).__aiter__()
            await anext(result)
            del result
            gc.collect()
            await _until(server.requests[0].gone.is_set)

        loop.run(main)
        assert server.requests[0].gone.wait(30)

    @pytest.mark.quick(1)
    def test_p14_an_abandoned_cycle(self, server: LLMServer, client: Client, loop: Async) -> None:
        """Also in a cycle that only the collector can find."""
        server.script(STALLED)

        async def main() -> None:
            cycle: list[Any] = [client.chat("x").__aiter__()]
            await anext(cycle[0])
            cycle.append(cycle)
            del cycle
            gc.collect()
            await _until(server.requests[0].gone.is_set)

        loop.run(main)

    @pytest.mark.quick(1)
    def test_p14_after_the_loop_is_over(self, server: LLMServer, client: Client, loop: Async) -> None:
        """An iterator that outlives its event loop can be closed without one."""
        server.script(STALLED)
        results: list[Any] = [client.chat("x").__aiter__()]

        async def main() -> None:
            await anext(results[0])

        loop.run(main)
        assert not server.requests[0].gone.is_set()
        results.clear()
        gc.collect()
        assert server.requests[0].gone.wait(30)

    @pytest.mark.slow
    @pytest.mark.parametrize("way", ["await", "pieces", "cancelled"])
    def test_what_failed_leaves_no_cycle(self, server: LLMServer, client: Client, loop: Async, way: str) -> None:
        """The call and everything it holds are freed without a garbage collection."""
        server.script(STALLED if way == "cancelled" else Reply(status=400))

        async def failed() -> weakref.ref[Any]:
            stream = client.chat("x")
            with anyio.move_on_after(0.3 if way == "cancelled" else 10), contextlib.suppress(BadRequest):
                if way == "pieces":
                    await anext(stream.__aiter__())
                else:
                    await stream
            return weakref.ref(stream)

        async def main() -> None:
            gone = await failed()
            await _until(lambda: gone() is None)

        gc.collect()
        gc.disable()
        try:
            loop.run(main)
        finally:
            gc.enable()

    def test_what_was_never_awaited_says_nothing(self, server: LLMServer, client: Client) -> None:
        """A stream, an iterator or a step that is never awaited: no warning, no request."""
        stream = client.chat("x")
        result = stream.__aiter__()
        stream.events().__aiter__()
        del stream, result
        gc.collect()
        assert server.connections == 0


# asyncio's debug mode warns of steps that take long, as all do on a busy machine; its errors are still shown.
PATIENT = "import logging\nlogging.getLogger('asyncio').setLevel(logging.ERROR)\n"
PROGRAM = """
import asyncio, gc, signal, sys, threading
from llmbridge import Client, LLMBridgeError
client = Client("openai:m", base_url=sys.argv[1], api_key="sk-test", retries=0, timeout=60)
kept = []

async def read():
    kept.append(client.chat("x").__aiter__())
    async for piece in kept[0]:
        pass

async def whole():
    await client.chat("x")

async def sleep():
    if "trio" in sys.modules:
        import trio
        await trio.sleep(0.01)
    else:
        await asyncio.sleep(0.01)

async def reached():
    while not told:
        await sleep()

told = []
threading.Thread(target=lambda: told.append(sys.stdin.readline()), daemon=True).start()
"""

ENDINGS = {
    "asyncio.run ends with a task reading": """
        async def main():
            task = asyncio.ensure_future(read())
            await reached()
        asyncio.run(main())
        """,
    "asyncio.run ends with a task that awaits": """
        async def main():
            task = asyncio.ensure_future(whole())
            await reached()
        asyncio.run(main())
        """,
    "an iterator is kept to the end": """
        async def main():
            kept.append(client.chat("x").__aiter__())
            task = asyncio.ensure_future(kept[0].__anext__())
            await reached()
            if not task.done():
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        asyncio.run(main())
        """,
    "an exception ends the program's task": """
        async def main():
            task = asyncio.ensure_future(read())
            await reached()
            raise KeyError
        try:
            asyncio.run(main())
        except KeyError:
            pass
        """,
    "sys.exit in a task": """
        async def main():
            task = asyncio.ensure_future(read())
            await reached()
            sys.exit(0)
        asyncio.run(main())
        """,
    "a loop of one's own": """
        async def main():
            task = asyncio.ensure_future(read())
            await reached()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        loop = asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
    "trio's nursery is cancelled": """
        import trio
        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await reached()
                nursery.cancel_scope.cancel()
        trio.run(main)
        """,
}

INTERRUPTED = {
    "asyncio": "async def main():\n    {read}\nrun = lambda: asyncio.run(main())\n",
    "trio": "import trio\nasync def main():\n    {read}\nrun = lambda: trio.run(main)\n",
}


class TestPrograms:
    """Whole programs, with every warning an error: they end at once, and print nothing on standard error."""

    @pytest.mark.slow
    @pytest.mark.parametrize("reply", [STALLED, Reply(header_delay=30)], ids=["stalled", "no headers"])
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_p15_it_exits_at_once(self, server: LLMServer, ending: str, reply: Reply) -> None:
        """A pending stream does not delay the exit."""
        if "trio" in ending:
            pytest.importorskip("trio")
        server.script(reply)
        with _program(server, PROGRAM + textwrap.dedent(ENDINGS[ending])) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            server.wait_for_requests(1)
            if reply is STALLED:
                time.sleep(0.05)
            start = time.monotonic()
            process.stdin.write("go\n")
            process.stdin.flush()
            _, errors = process.communicate(timeout=10)
            assert errors == ""
            assert process.returncode == 0
            assert time.monotonic() - start < 8  # most of it is the interpreter's own exit
        assert server.requests[0].gone.wait(30)

    @pytest.mark.slow
    @pytest.mark.parametrize("reply", [STALLED, Reply(header_delay=30)], ids=["stalled", "no headers"])
    @pytest.mark.parametrize("read", ["async for _ in client.chat('x'): pass", "await client.chat('x')"])
    @pytest.mark.parametrize("name", INTERRUPTED)
    @pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C of one process alone needs POSIX signals")
    def test_p14_control_c(self, server: LLMServer, name: str, read: str, reply: Reply) -> None:
        """KeyboardInterrupt comes out of `run()` at once, and the server sees the client leave."""
        if name == "trio":
            pytest.importorskip("trio")
        server.script(reply)
        program = (
            "import asyncio, sys\nfrom llmbridge import Client\n"
            "client = Client('openai:m', base_url=sys.argv[1], api_key='sk-test', retries=0, timeout=60)\n"
            + INTERRUPTED[name].format(read=read)
            + "try:\n    run()\n"
            + "except KeyboardInterrupt:\n    print('interrupted', flush=True)\n    sys.stdin.readline()\n"
        )
        with _program(server, program) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            server.wait_for_requests(1)
            time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "interrupted\n"
            left = server.requests[0].gone.wait(30)
            output, errors = process.communicate("go\n", timeout=10)
            assert (output, errors, process.returncode) == ("", "", 0)
            assert left


class TestMany:
    """P14: hundreds of streams, ended at any moment, leave nothing behind."""

    @pytest.mark.slow
    def test_p14_started_and_cancelled_at_random(self, server: LLMServer, client: Client, loop: Async) -> None:
        """300 streams, ended at any moment and in every way: threads, descriptors and tasks are freed."""
        server.default = Reply(PIECES * 3, delay=0.002)
        server.script(*[STALLED, Reply(header_delay=5), Reply(PIECES), Reply("no", status=503)] * 30)
        chance = random.Random(7)
        reads = list(READS.values())
        held: list[Any] = []  # all of them, so that no garbage collection helps

        async def one(read: Callable[..., Any], wait: float) -> None:
            from anyio import move_on_after

            with move_on_after(wait), contextlib.suppress(LLMBridgeError):
                await read(client.chat("x"), held)

        async def main() -> list[Any]:
            from anyio import create_task_group

            for _ in range(3):
                async with create_task_group() as group:
                    for _ in range(100):
                        group.start_soon(one, chance.choice(reads), chance.random() ** 2 * 0.1)
            await _until(lambda: _busy_threads() == 0)
            return [task for task in _tasks() if "one" in repr(task)]

        assert loop.run(main) == []
        client.close()
        _eventually(lambda: server.open_connections == 0)  # threads and descriptors: see conftest.py

    @pytest.mark.slow
    def test_p17_after_all_that_the_client_still_works(self, server: LLMServer, client: Client, loop: Async) -> None:
        """Cancelled calls spoil no connection for later ones."""
        server.default = lambda received: Reply([received.json["messages"][0]["content"], "!"], delay=0.001)
        chance = random.Random(8)
        answers: dict[str, str] = {}

        async def one(name: str, wait: float) -> None:
            from anyio import move_on_after

            with move_on_after(wait):
                answers[name] = str(await client.chat(name))

        async def main() -> None:
            from anyio import create_task_group

            async with create_task_group() as group:
                for number in range(150):
                    group.start_soon(one, f"question {number}", chance.choice([0.0, 0.005, 0.02, 20.0]))

        loop.run(main)
        assert answers
        assert all(answer == f"{name}!" for name, answer in answers.items())


def _check_cancel(phase: Phase, way: str, read: Callable[..., Any]) -> None:
    name, cancel = WAYS[way]
    if name == "trio":
        pytest.importorskip("trio")
    held: list[Any] = []

    async def main() -> float:
        free_after: float = await cancel(lambda: read(phase.client.chat("x"), held), phase.reached)
        await _until(lambda: _busy_threads() == 0)
        return free_after

    assert LOOPS[name].run(main) < FREE
    assert phase.gone()


def _busy_threads() -> int:
    """Worker threads that llmbridge has in use in this event loop; abandoned ones count until they are done."""
    return threads._Threads.here().taken


def _tasks() -> list[Any]:
    from anyio import get_running_tasks

    return get_running_tasks()


async def _collect(stream: ChatStream, into: list[str]) -> None:
    async for piece in stream:
        into.append(piece)


async def _until(condition: Callable[[], bool]) -> None:
    from anyio import sleep

    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it did not come to pass within 20 s"
        await sleep(0.005)


def _eventually(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@contextlib.contextmanager
def _program(server: LLMServer, code: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", PATIENT + code, server.base_url("openai")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
