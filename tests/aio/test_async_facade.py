"""The parts of `async for`, `await` and `AsyncResult`: the protocol, threads, event loops, back-pressure, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import socket
import ssl
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import pytest
import requests
import responses
from loopback import DONE, FINISH, Listener, chunk, event, head, read_head
from modes import LOOPS, Async

from llmbridge import (
    ChatStream,
    Client,
    ClockExpired,
    ConfigError,
    LLMBridgeError,
    StreamTruncated,
    Text,
    Timeout,
    Vitalentum,
    _transport,
)
from llmbridge._aio import threads
from llmbridge._transport import Transport
from llmbridge.testing import HOLD, LLMServer, Reply

PIECES = ["a", "b", "c"]
STALLED = Reply(PIECES, stall=900)


def result_of(server: LLMServer, **options: Any) -> Any:
    """The result of the original interface for the server's next answer."""
    options = {"base_url": server.base_url("vitalentum"), "retries": 0, "timeout": 10, **options}
    return Vitalentum.create_async_generator("m", "Hi", **options)


class TestGenerator:
    """`AsyncResult` is an async generator, as in the original providers."""

    def test_it_is_one_by_its_type(self, server: LLMServer) -> None:
        """It passes `isinstance`, and has all methods of a generator."""
        result = result_of(server)
        assert isinstance(result, AsyncGenerator)
        assert result.__aiter__() is result
        assert server.connections == 0

    def test_awaiting_it_gives_itself(self, server: LLMServer, loop: Async) -> None:
        """Both ways of using it work."""
        server.script(Reply(PIECES), Reply(PIECES))

        async def main() -> None:
            result = result_of(server)
            assert await result is result
            assert server.connections == 0
            assert [piece async for piece in result] == PIECES
            assert [piece async for piece in result_of(server)] == PIECES

        loop.run(main)

    def test_anext_and_asend_give_the_next_piece(self, server: LLMServer, loop: Async) -> None:
        """A value sent into it is ignored."""
        server.script(Reply(PIECES))

        async def main() -> None:
            result = result_of(server)
            assert await result.__anext__() == "a"
            with pytest.raises(TypeError):
                await result.asend("x")
            assert await result.asend(None) == "b"
            assert await anext(result) == "c"
            for _ in range(2):
                with pytest.raises(StopAsyncIteration):
                    await anext(result)
                with pytest.raises(StopAsyncIteration):
                    await result.asend(None)

        loop.run(main)

    @pytest.mark.parametrize("started", [False, True])
    @pytest.mark.parametrize("thrown", [(ValueError("mine"),), (ValueError, "mine"), (ValueError, ValueError("mine"))])
    def test_athrow_raises_and_closes(
        self, server: LLMServer, loop: Async, started: bool, thrown: tuple[Any, ...]
    ) -> None:
        """An exception thrown in comes out, in any form that a generator accepts, and the answer is over."""
        server.default = STALLED

        async def main() -> None:
            result = result_of(server)
            if started:
                assert await anext(result) == "a"
            with pytest.raises(ValueError, match=r"^mine$"):
                await result.athrow(*thrown)
            with pytest.raises(StopAsyncIteration):
                await anext(result)

        loop.run(main)
        assert all(received.gone.wait(30) for received in server.requests)
        assert len(server.requests) == started

    def test_athrow_takes_a_bare_class(self, server: LLMServer, loop: Async) -> None:
        """An exception class alone is raised without a message."""

        async def main() -> None:
            with pytest.raises(GeneratorExit):
                await result_of(server).athrow(GeneratorExit)

        loop.run(main)

    def test_aclose_ends_it_and_may_be_repeated(self, server: LLMServer, loop: Async) -> None:
        """Before the first step nothing is sent, and later the connection is closed."""
        server.default = STALLED

        async def main() -> None:
            unused = result_of(server)
            await unused.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(unused)
            assert server.connections == 0
            result = result_of(server)
            assert await anext(result) == "a"
            for _ in range(3):
                await result.aclose()
            with pytest.raises(StopAsyncIteration):
                await anext(result)

        loop.run(main)
        assert server.requests[0].gone.wait(30)

    def test_aclosing_works(self, server: LLMServer, loop: Async) -> None:
        """The standard library's `aclosing` works."""
        server.default = STALLED

        async def main() -> None:
            async with contextlib.aclosing(result_of(server)) as result:
                async for _ in result:
                    break

        loop.run(main)
        assert server.requests[0].gone.wait(30)

    def test_an_error_ends_it(self, server: LLMServer, loop: Async) -> None:
        """After its error a generator is over."""
        server.script(Reply(PIECES, cut=900), Reply(status=401))

        async def main() -> None:
            for kind in (StreamTruncated, LLMBridgeError):
                result = result_of(server)
                with pytest.raises(kind):
                    await _all(result)
                with pytest.raises(StopAsyncIteration):
                    await anext(result)

        loop.run(main)

    def test_create_async_gives_the_whole_text(self, server: LLMServer, loop: Async) -> None:
        """Nothing is sent before it is awaited."""
        server.script(Reply(PIECES))

        async def main() -> str:
            text = Vitalentum.create_async("m", "Hi", base_url=server.base_url("vitalentum"))
            assert server.connections == 0
            return await text

        assert loop.run(main) == "abc"

    def test_two_tasks_on_one_stream_are_an_error(self, server: LLMServer, loop: Async) -> None:
        """The second task gets an error; the first one goes on undisturbed."""
        go = threading.Event()

        def serve(sock: socket.socket) -> None:
            read_head(sock)
            sock.sendall(head("Connection: close"))
            assert go.wait(30)
            sock.sendall(b"".join(map(event, PIECES)) + FINISH + DONE)

        with Listener(serve) as listener, _client(listener) as client:
            result = client.chat("x").__aiter__()
            errors: list[BaseException] = []

            async def second() -> None:
                await _until(lambda: listener.accepted == 1)
                try:
                    await anext(result)
                except RuntimeError as error:
                    errors.append(error)
                go.set()

            async def main() -> list[str]:
                return (await _together(loop, lambda: _all(result), second))[0]

            assert loop.run(main) == PIECES
        assert len(errors) == 1
        assert "another task" in str(errors[0])

    @pytest.mark.parametrize("reply", [STALLED, Reply(header_delay=5)], ids=["stalled", "no headers"])
    def test_aclose_from_another_task_frees_the_reader(self, server: LLMServer, loop: Async, reply: Reply) -> None:
        """The waiting task comes back, with an error or the end, and the connection is closed."""
        server.script(reply)
        result = result_of(server)
        got: list[str] = []

        async def reader() -> None:
            with contextlib.suppress(LLMBridgeError):
                async for piece in result:
                    got.append(piece)

        async def closer() -> None:
            await _until(lambda: bool(server.requests) and (reply is not STALLED or bool(got)))
            await result.aclose()
            await result.aclose()

        loop.run(lambda: _together(loop, reader, closer))
        assert server.requests[0].gone.wait(30)


class TestThreads:
    """Worker threads: few hops, an own limit, the caller's context."""

    @pytest.fixture
    def hops(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """Grows by one with every step that uses a worker thread."""
        taken: list[Any] = []
        run_sync = threads.run_sync

        async def counted(step: Any, **options: Any) -> Any:
            taken.append(step)
            return await run_sync(step, **options)

        monkeypatch.setattr(threads, "run_sync", counted)
        return taken

    def test_a_whole_answer_takes_a_hop_or_two(
        self, server: LLMServer, client: Client, loop: Async, hops: list[Any]
    ) -> None:
        """`await stream` uses a worker thread to begin, and perhaps to end, however many pieces come."""
        server.script(Reply(["x"] * 200))
        assert loop.complete(client.chat("x")).text == "x" * 200
        assert 1 <= len(hops) <= 2

    def test_pieces_take_none(self, server: LLMServer, client: Client, loop: Async, hops: list[Any]) -> None:
        """`async for` uses threads to begin, and perhaps to end, but not for pieces."""
        server.script(Reply(["x"] * 200, delay=0.001))
        assert loop.read(client.chat("x")).pieces == ["x"] * 200
        assert 1 <= len(hops) <= 3

    @pytest.mark.slow
    def test_what_follows_the_end_mark_does_not_block_the_loop(
        self, server: LLMServer, client: Client, loop: Async, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Other tasks run while a stream waits for the end of a body that the server does not end."""
        monkeypatch.setattr(_transport, "_DRAIN_SECONDS", 0.5)
        answer = chunk(b"".join(map(event, PIECES)) + FINISH)
        server.script(Reply(raw=[head("Transfer-Encoding: chunked"), answer, 0.05, chunk(DONE), HOLD]))
        ticks: list[int] = []

        async def main() -> None:
            from anyio import create_task_group, sleep

            async def tick() -> None:
                while True:
                    await sleep(0.01)
                    ticks.append(1)

            async with create_task_group() as group:
                group.start_soon(tick)
                async for piece in client.chat("x"):
                    if piece == PIECES[-1]:
                        ticks.clear()
                group.cancel_scope.cancel()

        loop.run(main)
        assert len(ticks) >= 15  # some 5 come before the end mark, and 50 after it

    def test_stalled_streams_hold_no_thread(self, server: LLMServer, client: Client) -> None:
        """While nothing comes, only the event loop waits: 60 readers, without a busy worker."""
        server.default = STALLED
        begun: set[int] = set()

        async def reader(number: int) -> None:
            async for _ in client.chat("x"):
                begun.add(number)

        async def main() -> None:
            tasks = [asyncio.ensure_future(reader(number)) for number in range(60)]
            await _until(lambda: len(begun) == 60 and threads._Threads.here().taken == 0)
            assert not any(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run(main())

    @pytest.mark.parametrize("reply", [STALLED, Reply(header_delay=10)], ids=["stalled", "no headers"])
    @pytest.mark.quick(1)
    def test_p16_sixty_stalled_streams_do_not_starve_the_next(
        self, server: LLMServer, client: Client, loop: Async, reply: Reply
    ) -> None:
        """60 streams wait for nothing; the 61st, its whole answer, and the app's own threads go on."""
        server.script(*[reply] * 60)
        server.default = Reply(PIECES)
        streams = [client.chat("x") for _ in range(60)]

        async def stuck(stream: ChatStream) -> None:
            with contextlib.suppress(LLMBridgeError):
                async for _ in stream:
                    pass

        async def next_one() -> None:
            from anyio import fail_after, to_thread

            try:
                with fail_after(5):
                    await _until(lambda: len(server.requests) == 60)
                    assert [piece async for piece in client.chat("x")] == PIECES
                    assert str(await client.chat("x")) == "abc"
                    assert await to_thread.run_sync(lambda: "done") == "done"
            finally:
                for stream in streams:
                    stream.cancel()

        loop.run(lambda: _together(loop, next_one, *(lambda s=stream: stuck(s) for stream in streams)))
        assert all(received.gone.wait(30) for received in server.requests[:60])

    def test_a_limit_makes_calls_wait_for_their_turn(
        self, server: LLMServer, client: Client, loop: Async, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """With one thread, requests are sent one after the other; their answers are awaited together."""
        server.default = Reply(PIECES, header_delay=0.01)
        sending, most = 0, []
        send = Transport.send

        def counted(*args: Any) -> Any:
            nonlocal sending
            if len(args) > 3:  # the answer to one that was sent
                return send(*args)
            sending += 1
            most.append(sending)
            time.sleep(0.01)
            try:
                return send(*args)
            finally:
                sending -= 1

        async def main() -> list[Any]:
            threads.set_thread_limit(1)
            return await _together(loop, *[lambda: _text(client.chat("x"))] * 8)

        monkeypatch.setattr(Transport, "send", counted)
        assert loop.run(main) == ["abc"] * 8
        assert max(most) == 1

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "ask",
        [
            lambda client, options: _all(client.chat("x", **options)),
            lambda client, options: _all(client.chat("x", **options).events()),
            lambda client, options: _text(client.chat("x", **options)),
            lambda client, _: client.aembed("x"),
            lambda client, _: client.amodels(),
        ],
        ids=["pieces", "events", "await", "embeddings", "models"],
    )
    @pytest.mark.parametrize("options", [{}, {"run_tools": True, "tools": [len]}], ids=["chat", "tools"])
    def test_p12_the_total_runs_while_a_call_waits_for_its_turn(
        self, loop: Async, ask: Callable[[Client, dict[str, Any]], Awaitable[Any]], options: dict[str, Any]
    ) -> None:
        """Calls that a stalled service holds up each end at their own timeout, not one after the other."""
        total, calls = 0.5, 12

        async def main(client: Client) -> tuple[list[float], int]:
            from anyio import current_time, fail_after

            threads.set_thread_limit(1)

            async def seconds() -> float:
                began = current_time()
                with pytest.raises(ClockExpired) as caught:
                    await ask(client, options)
                assert caught.value.clock == "total"
                return current_time() - began

            with fail_after(20):
                took = await _together(loop, *[seconds] * calls)
            return took, threads._Threads.here().taken

        with (
            Listener() as silent,
            Client("openai:m", base_url=f"http://127.0.0.1:{silent.port}", timeout=total, retries=0) as client,
        ):
            took, borrowed = loop.run(lambda: main(client))
        assert max(took) < total * calls / 2
        assert borrowed == 0

    def test_calls_whose_time_is_over_need_few_threads(self, loop: Async) -> None:
        """Thousands of calls may time out at the same moment."""
        running, most = 0, 0
        counting = threading.Lock()

        def step() -> None:
            nonlocal running, most
            with counting:
                running += 1
                most = max(most, running)
            time.sleep(0.02)
            with counting:
                running -= 1

        async def main() -> None:
            threads.set_thread_limit(1)
            await _together(loop, *[lambda: threads.in_thread(step, lambda: None, left=lambda: 0.0)] * 60)

        loop.run(main)
        assert most <= 1 + threads._THREADS_BEYOND

    def test_the_limit_is_of_one_event_loop(self, server: LLMServer, client: Client, loop: Async) -> None:
        """The next loop starts with the default."""

        async def main(limit: int | None) -> float:
            if limit is not None:
                threads.set_thread_limit(limit)
            return threads._Threads.here().limit

        assert loop.run(lambda: main(3)) == 3
        assert loop.run(lambda: main(None)) >= 1000

    @pytest.mark.parametrize("limit", [0, -1, "many", 1.5, None])
    def test_an_invalid_limit_is_rejected(self, loop: Async, limit: Any) -> None:
        """Zero would make every later stream wait forever."""

        async def main() -> None:
            with pytest.raises((ValueError, TypeError)):
                threads.set_thread_limit(limit)

        loop.run(main)

    def test_a_limit_outside_of_an_event_loop_is_refused(self) -> None:
        """It would have no loop; the error says where to set it."""
        with pytest.raises(ConfigError, match="event loop"):
            threads.set_thread_limit(10)

    def test_context_variables_reach_the_callers_own_code(self, server: LLMServer, client: Client, loop: Async) -> None:
        """An auth of the caller's session runs in a worker thread, and sees the task's context."""
        tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant", default="nobody")
        seen = []

        class Auth(requests.auth.AuthBase):
            def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
                seen.append((tenant.get(), threading.current_thread() is threading.main_thread()))
                return request

        async def main() -> None:
            with requests.Session() as session:
                session.auth = Auth()
                tenant.set("one")
                assert await _all(client.chat("x", session=session)) == PIECES
                tenant.set("two")
                assert str(await client.chat("x", session=session)) == "abc"

        server.default = Reply(PIECES)
        loop.run(main)
        assert seen == [("one", False), ("two", False)]

    def test_a_stream_that_is_all_there_lets_others_run(self, loop: Async) -> None:
        """Available data is read in portions, with turns for other tasks in between."""
        events, sent, turns = 300, threading.Event(), [0]

        def serve(sock: socket.socket) -> None:
            read_head(sock)
            sock.sendall(head("Connection: close") + event("first"))
            sock.sendall(event("x" * 1000) * events + FINISH + DONE)
            sent.set()

        async def reader(client: Client) -> list[int]:
            seen = []
            async for _ in client.chat("x"):
                assert sent.wait(30)  # blocks the event loop until everything is there
                seen.append(turns[0])
            turns[0] = -1
            return seen

        async def other() -> None:
            from anyio.lowlevel import checkpoint

            while turns[0] >= 0:
                turns[0] += 1
                await checkpoint()

        with Listener(serve) as listener, _client(listener) as client:
            seen, _ = loop.run(lambda: _together(loop, lambda: reader(client), other))
        assert len(seen) == events + 1
        assert max(map(seen.count, seen)) < events  # a read brings some 60 of them, or 180 since Python 3.14


class TestLoops:
    """Any number of event loops."""

    def test_one_after_the_other(self, server: LLMServer, client: Client) -> None:
        """asyncio, trio, asyncio...: the same client, the same connection."""
        server.default = Reply(PIECES)
        for name in [*LOOPS] * 3:
            if name == "trio":
                pytest.importorskip("trio")
            assert LOOPS[name].read(client.chat("x")).pieces == PIECES
            assert LOOPS[name].complete(client.chat("x")).text == "abc"
        assert server.connections == 1

    def test_a_kept_connection_blocks_again(self, server: LLMServer, client: Client, loop: Async) -> None:
        """As a script needs it that uses the connection afterwards: for sending, for the headers, and for the body."""
        server.script(Reply(PIECES, end_mark=False))
        assert loop.read(client.chat("x")).pieces == PIECES
        server.script(Reply(PIECES, header_delay=0.2, first_delay=0.1, delay=0.05))
        assert "".join(client.chat("x" * 10_000_000)) == "".join(PIECES)
        assert server.connections == 1

    def test_one_that_has_ended_is_not_kept(self, server: LLMServer, client: Client) -> None:
        """A program that runs one loop after the other does not collect them, unless anyio itself does."""
        server.default = Reply(PIECES)
        ended = weakref.WeakSet[asyncio.AbstractEventLoop]()

        async def bare() -> None:
            ended.add(asyncio.get_running_loop())
            await anyio.to_thread.run_sync(int)

        async def main() -> None:
            ended.add(asyncio.get_running_loop())
            assert await _all(client.chat("x")) == PIECES

        def are_gone() -> bool:
            end = time.monotonic() + 5
            while ended and time.monotonic() < end:  # anyio's threads end a little later
                time.sleep(0.01)
                gc.collect()
            return not ended

        asyncio.run(bare())
        if not are_gone():
            pytest.skip("this anyio keeps the event loops of its threads")
        for _ in range(2):
            asyncio.run(main())
        assert are_gone()

    def test_several_in_several_threads(self, server: LLMServer, client: Client) -> None:
        """Loops of both kinds side by side share one client without mixing."""
        pytest.importorskip("trio")
        server.default = lambda received: Reply([received.json["messages"][0]["content"], "!"])
        found: dict[int, Any] = {}

        def work(number: int) -> None:
            mode = LOOPS["trio" if number % 2 else "asyncio"]
            found[number] = mode.at_once([client.chat(f"{number}.{turn}") for turn in range(5)])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert found == {number: [[f"{number}.{turn}", "!"] for turn in range(5)] for number in range(6)}

    def test_a_stream_is_begun_in_one_loop_and_closed_in_the_next(self, server: LLMServer, client: Client) -> None:
        """A stream does not depend on the loop in which it was begun."""
        server.script(STALLED)
        result = client.chat("x").__aiter__()
        assert asyncio.run(_first(result)) == "a"
        asyncio.run(result.aclose())  # type: ignore[attr-defined]
        assert server.requests[0].gone.wait(30)

    def test_a_stream_is_read_on_in_the_next_loop(self, server: LLMServer, client: Client) -> None:
        """Not recommended, but it works."""
        server.script(Reply(PIECES, per_chunk=1, delay=0.05))
        result = client.chat("x").__aiter__()
        assert asyncio.run(_first(result)) == "a"
        assert asyncio.run(_all(result)) == ["b", "c"]

    @pytest.mark.parametrize("debug", [False, True])
    def test_asyncios_debug_mode_finds_nothing(
        self, server: LLMServer, client: Client, debug: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nothing is logged: no slow callback, no call from the wrong thread."""
        server.default = Reply(PIECES, delay=0.01)
        assert asyncio.run(_all(client.chat("x")), debug=debug) == PIECES
        assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []

    @pytest.mark.slow
    def test_a_thousand_tasks_on_one_client(self, client: Client, server: LLMServer) -> None:
        """P17: every task gets its own answer, though many share a connection one after the other."""
        server.default = lambda received: Reply([received.json["messages"][0]["content"], "!"])
        names = [f"question {number}" for number in range(300)]
        assert LOOPS["asyncio"].at_once([client.chat(name) for name in names]) == [[name, "!"] for name in names]


class TestMocks:
    """Answers without a socket."""

    def test_responses_in_both_ways(self, loop: Async) -> None:
        """`responses` patches the adapter, also for calls in worker threads."""
        body = b"".join(map(event, PIECES)) + FINISH + DONE
        with responses.RequestsMock() as mock:
            mock.post("http://mock.test/v1/chat/completions", body=body, content_type="text/event-stream")
            mock.post("http://mock.test/v1/chat/completions", body=body, content_type="text/event-stream")
            mock.post("http://mock.test/v1/chat/completions", json={"error": {"message": "no"}}, status=401)
            client = Client("openai:m", base_url="http://mock.test/v1", api_key="sk-test", retries=0)
            assert loop.complete(client.chat("x")).text == "abc"
            assert loop.read(client.chat("x").events()).pieces[:3] == [Text("a"), Text("b"), Text("c")]
            assert loop.read(client.chat("x")).error is not None

    def test_an_adapter_of_ones_own(self, loop: Async) -> None:
        """A session may answer from anywhere; a generator behind `raw` is read as it comes."""

        class Canned(requests.adapters.BaseAdapter):
            def send(self, request: Any, **_: Any) -> requests.Response:
                from io import BytesIO

                response = requests.Response()
                response.status_code, response.request, response.url = 200, request, request.url
                response.headers["Content-Type"] = "text/event-stream"
                response.raw = BytesIO(b"".join(map(event, PIECES)) + FINISH + DONE)
                return response

            def close(self) -> None:
                pass

        with requests.Session() as session:
            session.mount("http://", Canned())
            client = Client("openai:m", base_url="http://any.test/v1", api_key="sk-test", session=session, retries=0)
            assert loop.read(client.chat("x")).pieces == PIECES


class TestBackPressure:
    """Nothing is read ahead."""

    @pytest.mark.slow
    def test_p16_a_slow_reader_stops_the_server(self, loop: Async) -> None:
        """While the loop's body rests, the server's sends stop; afterwards the rest arrives."""
        text = "x" * 65_536
        events, sent, stands, rests = 600, [0], threading.Event(), threading.Event()

        def serve(sock: socket.socket) -> None:
            read_head(sock)
            sock.sendall(head("Transfer-Encoding: chunked"))
            data = chunk(event(text))
            sock.settimeout(0.3)
            for _ in range(events):
                left = memoryview(data)
                while left:
                    try:
                        left = left[sock.send(left) :]
                    except TimeoutError:
                        stands.set()
                        assert rests.wait(30)
                sent[0] += 1
            sock.sendall(chunk(FINISH + DONE) + b"0\r\n\r\n")

        async def main(client: Client) -> tuple[int, int]:
            from anyio import to_thread

            count = sent_then = 0
            async for piece in client.chat("x"):
                count += 1
                assert piece == text
                if count == 1:
                    assert await to_thread.run_sync(stands.wait, 10)
                    sent_then = sent[0]
                    rests.set()
            return sent_then, count

        with Listener(serve) as listener, _client(listener) as client:
            sent_then, count = loop.run(lambda: main(client))
        assert sent_then < events * 0.8  # about what the system's own buffers of both sockets hold
        assert count == events


class TestTLS:
    """TLS hides arrived data from the event loop: it buffers records, and parts of them."""

    @pytest.fixture
    def wire(self, tls_context: ssl.SSLContext) -> Iterator[_TLSListener]:
        """A TLS server that sends any bytes on demand."""
        with _TLSListener(tls_context) as listener:
            yield listener

    def test_several_records_in_one_packet(self, wire: _TLSListener, ca_file: str, loop: Async) -> None:
        """Everything in one packet is handed out at once, though the socket is not readable any more."""

        def answer(wire: _Wire) -> None:
            wire.send(head("Connection: close"))
            wire.flush()
            for _ in range(3):
                for text in PIECES:
                    wire.send(event(text))
                wire.flush()
                assert wire.go.acquire(timeout=5)
            wire.send(FINISH, DONE)
            wire.flush()

        wire.answer = answer
        got: list[str] = []

        def body(piece: str) -> None:
            got.append(piece)
            if len(got) % 3 == 0:  # the server waits until all three have been handed out
                wire.go.release()

        with wire.client(ca_file) as client:
            loop.each(client.chat("x"), body)
        assert got == PIECES * 3

    @pytest.mark.parametrize("size", [1, 100])
    def test_records_that_trickle(self, wire: _TLSListener, ca_file: str, loop: Async, size: int) -> None:
        """Parts of records make the socket readable, but yield nothing yet."""

        def answer(wire: _Wire) -> None:
            wire.send(head("Connection: close"), *map(event, PIECES), FINISH, DONE)
            wire.flush(size)

        wire.answer = answer
        with wire.client(ca_file) as client:
            assert loop.read(client.chat("x")).pieces == PIECES

    def test_records_larger_than_a_read(self, wire: _TLSListener, ca_file: str, loop: Async) -> None:
        """200 KB in one event, over many full records."""
        text = "y" * 200_000

        def answer(wire: _Wire) -> None:
            wire.send(head("Connection: close"), event(text), event("z"), FINISH, DONE)
            wire.flush()

        wire.answer = answer
        with wire.client(ca_file) as client:
            assert loop.read(client.chat("x")).pieces == [text, "z"]

    def test_half_a_record_and_then_nothing(self, wire: _TLSListener, ca_file: str, loop: Async) -> None:
        """The idle timeout runs while a record is incomplete, without keeping the event loop busy."""

        def answer(wire: _Wire) -> None:
            wire.send(head("Connection: close"), event("a"))
            wire.flush()
            wire.send(event("b"))
            wire.flush_some(30)
            wire.sock.settimeout(5)
            with contextlib.suppress(OSError):
                wire.sock.recv(1)

        wire.answer = answer
        with wire.client(ca_file) as client:
            outcome = loop.read(client.chat("x", timeout=Timeout(idle=0.2)))
        assert outcome.pieces == ["a"]
        assert isinstance(outcome.error, ClockExpired)
        assert outcome.error.clock == "idle"

    def test_an_ordinary_server(self, tls_server: LLMServer, tls_client: Client, loop: Async) -> None:
        """Streams over TLS keep their connection too."""
        tls_server.default = Reply(PIECES)
        assert loop.in_turn([tls_client.chat("x") for _ in range(5)]) == [PIECES] * 5
        assert loop.complete(tls_client.chat("x")).text == "abc"
        assert tls_server.connections == 1


class _Wire:
    """One TLS connection on the server's side: records are made first and sent afterwards."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, go: threading.Semaphore) -> None:
        self.sock = sock
        self.go = go
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)
        self._until(self._tls.do_handshake)
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._until(lambda: self._tls.read(65536))

    def _until(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                result = step()
            except ssl.SSLWantReadError:
                self.flush()
                data = self.sock.recv(65536)
                if not data:
                    raise ConnectionResetError from None
                self._in.write(data)
            else:
                self.flush()
                return result

    def send(self, *parts: bytes) -> None:
        """Makes one record of each part, or several of a long one."""
        for part in parts:
            for at in range(0, len(part), 16_384):
                self._tls.write(part[at : at + 16_384])

    def flush(self, size: int | None = None) -> None:
        """Sends the records, at once or in packets of so many bytes."""
        while data := self._out.read() if size is None else self._out.read(size):
            self.sock.sendall(data)

    def flush_some(self, size: int) -> None:
        """Sends so many bytes, and drops the rest."""
        self.sock.sendall(self._out.read(size))
        self._out.read()


class _TLSListener(Listener):
    """A TLS server that answers each connection with `answer`."""

    answer: Callable[[_Wire], None]

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.go = threading.Semaphore(0)
        super().__init__(self._speak)

    def _speak(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer(_Wire(sock, self._context, self.go))

    def client(self, ca_file: str) -> Client:
        """A client that trusts it."""
        base_url = f"https://127.0.0.1:{self.port}/v1"
        return Client("openai:m", base_url=base_url, api_key="sk-test", verify=ca_file, retries=0, timeout=10)


def _client(listener: Listener) -> Client:
    return Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}/v1", api_key="sk-test", retries=0, timeout=20)


async def _all(source: Any) -> list[Any]:
    return [piece async for piece in source]


async def _first(source: Any) -> Any:
    return await anext(source)


async def _text(stream: ChatStream) -> str:
    return str(await stream)


async def _until(condition: Callable[[], bool]) -> None:
    from anyio import sleep

    for _ in range(2000):
        if condition():
            return
        await sleep(0.005)
    raise AssertionError("it did not come to pass within 10 s")


async def _together(loop: Async, *steps: Callable[[], Any]) -> list[Any]:
    """Runs coroutine functions at the same time; their results in order."""
    from anyio import create_task_group

    results: list[Any] = [None] * len(steps)

    async def into(index: int) -> None:
        results[index] = await steps[index]()

    async with create_task_group() as group:
        for index in range(len(steps)):
            group.start_soon(into, index)
    return results
