"""asyncio watches an answer's socket from one wait to the next: nothing is lost, and nothing stays watched."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import queue
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from loopback import DONE, FINISH, Listener, chunk, event, head, read_head

from llmbridge import Cancelled, ChatStream, Client, ProtocolError
from llmbridge._aio import _Watch
from llmbridge.events import Usage

HEAD = head("Transfer-Encoding: chunked")
A, B = (chunk(event(text=text)) for text in "ab")
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":0,"total_tokens":1}}\n\n'
NOTHING = chunk(USAGE + DONE) + b"0\r\n\r\n"
END = chunk(event(text="c") + FINISH + DONE) + b"0\r\n\r\n"


class Server(Listener):
    """Answers every request with parts that a test sends on demand."""

    def __init__(self) -> None:
        self.parts: queue.Queue[bytes | None] = queue.Queue()
        super().__init__(self._answer)

    def _answer(self, sock: socket.socket) -> None:
        with contextlib.suppress(ConnectionError):
            read_head(sock)
            while (part := self.parts.get(timeout=30)) is not None:
                sock.sendall(part)
                if part in (END, NOTHING):
                    read_head(sock)


@dataclass
class Case:
    """An answer whose first piece has come, after a wait for it."""

    server: Server
    stream: ChatStream
    pieces: AsyncIterator[str] | None = None
    descriptor: int = -1
    got: list[str] = field(default_factory=list)

    async def begin(self) -> None:
        """Reads the first piece, after waiting for it."""
        self.pieces = self.stream.__aiter__()
        step = asyncio.ensure_future(self.pieces.__anext__())
        self.server.parts.put(HEAD)
        await until(lambda: self.watched)
        self.server.parts.put(A)
        self.got.append(await step)
        assert self.watched
        self.descriptor = self.stream._reading.source.current.readable or -1

    @property
    def watched(self) -> bool:
        """Whether the event loop watches its socket."""
        return self.stream._reading.source.current.watched

    @property
    def over(self) -> bool:
        """Whether the call has ended and freed everything."""
        return self.stream._reading.source.ended is not None

    async def step(self) -> None:
        """Reads the next piece."""
        assert self.pieces is not None
        self.got.append(await self.pieces.__anext__())

    async def waiting(self) -> asyncio.Task[None]:
        """Starts the next step, and returns it once it waits."""
        step = asyncio.ensure_future(self.step())
        await asyncio.sleep(0)
        await until(lambda: self.watched)
        return step


@pytest.fixture
def case() -> Iterator[Case]:
    """A case that has not begun."""
    with Server() as server:
        base_url = f"http://127.0.0.1:{server.port}/v1"
        with Client("openai:m", base_url=base_url, api_key="sk-test", retries=0, timeout=60) as client:
            yield (made := Case(server, client.chat("x")))
        made.pieces = None  # the test still holds the case
        server.parts.put(None)


async def until(condition: Callable[[], bool]) -> None:
    """Waits until the condition is true."""
    for _ in range(20_000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the condition never became true")


async def at_the_end(case: Case) -> None:
    """The answer is read to its end."""
    case.server.parts.put(END)
    await case.step()
    with pytest.raises(StopAsyncIteration):
        await case.step()


async def by_an_error(case: Case) -> None:
    """The server breaks the protocol."""
    case.server.parts.put(b"no size\r\n")
    with pytest.raises(ProtocolError):
        await case.step()


async def by_aclose(case: Case) -> None:
    """The iterator is closed."""
    await case.pieces.aclose()  # type: ignore[union-attr]


async def by_break(case: Case) -> None:
    """The iterator is dropped."""
    case.pieces = None


async def by_a_thread(case: Case) -> None:
    """Another thread cancels; the next step raises."""
    await asyncio.to_thread(case.stream.cancel)
    with pytest.raises(Cancelled):
        await case.step()


async def by_a_thread_alone(case: Case) -> None:
    """Another thread cancels, and no further step follows."""
    await asyncio.to_thread(case.stream.cancel)
    await until(lambda: case.over)


async def by_closing_elsewhere(case: Case) -> None:
    """Another thread closes the stream."""
    await asyncio.to_thread(case.stream.close)
    await until(lambda: case.over)


async def by_a_collection_elsewhere(case: Case) -> None:
    """The garbage collector drops the iterator, in another thread."""
    cycle: list[Any] = [case.pieces]
    cycle.append(cycle)
    case.pieces = None
    del cycle
    await asyncio.to_thread(gc.collect)
    await until(lambda: case.over)


async def by_cancelling(case: Case) -> None:
    """The task is cancelled while it waits."""
    step = await case.waiting()
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step


ENDINGS = (
    at_the_end, by_an_error, by_aclose, by_break, by_a_thread, by_a_thread_alone,
    by_closing_elsewhere, by_a_collection_elsewhere, by_cancelling,
)  # fmt: skip


@pytest.mark.parametrize("end", ENDINGS)
def test_p14_nothing_stays_watched(case: Case, end: Callable[[Case], Awaitable[None]]) -> None:
    """A socket left watched would hide the next one that reuses its file descriptor."""

    async def main() -> None:
        await case.begin()
        await end(case)
        assert not case.watched
        assert not asyncio.get_running_loop().remove_reader(case.descriptor)
        assert case.over is (end is not by_cancelling)

    asyncio.run(main())


def test_p14_nothing_stays_watched_after_an_event_that_came_with_the_end(case: Case) -> None:
    """The connection may serve other calls by then."""

    async def main() -> None:
        events = case.stream.events().__aiter__()
        step = asyncio.ensure_future(events.__anext__())
        case.server.parts.put(HEAD)
        await until(lambda: case.watched)
        descriptor = case.stream._reading.source.current.readable
        case.server.parts.put(NOTHING)
        assert isinstance(await step, Usage)
        assert not case.over
        assert not asyncio.get_running_loop().remove_reader(descriptor)
        assert [event async for event in events] == []

    asyncio.run(main())


def test_p14_a_slow_reader_does_not_keep_the_loop_busy(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that arrives between two steps must not wake the event loop again and again."""
    woken = []
    arrived = _Watch._arrived
    monkeypatch.setattr(_Watch, "_arrived", lambda watch: (woken.append(1), arrived(watch)))

    async def main() -> None:
        await case.begin()
        woken.clear()
        case.server.parts.put(B)
        await until(lambda: bool(woken))
        for _ in range(100):
            await asyncio.sleep(0.001)
        assert len(woken) == 1
        await case.step()
        case.server.parts.put(END)
        await case.step()
        assert case.got == ["a", "b", "c"]

    asyncio.run(main())


def test_p31_what_came_in_the_moment_of_a_cancel_comes_next(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled just as its step has read a piece leaves the piece to the next step."""
    steps: list[asyncio.Task[None]] = []
    arrived = _Watch._arrived

    def arrive_and_cancel(watch: Any) -> None:
        arrived(watch)
        for step in steps:
            step.cancel()

    monkeypatch.setattr(_Watch, "_arrived", arrive_and_cancel)

    async def main() -> None:
        await case.begin()
        steps.append(await case.waiting())
        case.server.parts.put(B)
        with pytest.raises(asyncio.CancelledError):
            await steps[0]
        steps.clear()
        case.server.parts.put(END)
        while True:
            try:
                await case.step()
            except StopAsyncIteration:
                break
        assert case.got == ["a", "b", "c"]

    asyncio.run(main())


def test_p31_an_error_that_came_in_the_moment_of_a_cancel_comes_next(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same holds for an error that the step met."""
    steps: list[asyncio.Task[None]] = []
    arrived = _Watch._arrived
    monkeypatch.setattr(_Watch, "_arrived", lambda watch: (arrived(watch), [step.cancel() for step in steps]))

    async def main() -> None:
        await case.begin()
        steps.append(await case.waiting())
        case.server.parts.put(b"no size\r\n")
        with pytest.raises(asyncio.CancelledError):
            await steps[0]
        with pytest.raises(ProtocolError) as caught:
            await case.step()
        assert caught.value.partial == "a"

    asyncio.run(main())


def test_p31_no_error_of_a_step_is_taken_for_one_of_the_loop(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that cannot watch sockets raises the same class: swallowed, the answer would seem to have ended."""

    def unfinished(*_: Any, **__: Any) -> None:
        raise NotImplementedError("a provider's own")

    async def main() -> None:
        stream = case.stream.__aiter__()
        step = asyncio.ensure_future(stream.__anext__())
        case.server.parts.put(HEAD)  # before urllib3 2, a thread waits for it
        await until(lambda: case.watched)
        monkeypatch.setattr("llmbridge._call.answer.Answer.read", unfinished)
        case.server.parts.put(A)
        with pytest.raises(NotImplementedError, match="a provider's own"):
            await step

    asyncio.run(main())


def test_p31_the_next_event_loop_goes_on(case: Case) -> None:
    """A new event loop reads on, though the first one still watched the socket."""
    asyncio.run(case.begin())

    async def main() -> None:
        case.server.parts.put(B)
        await case.step()
        case.server.parts.put(END)
        await case.step()
        assert case.got == ["a", "b", "c"]

    asyncio.run(main())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_p31_a_forked_child_does_not_end_the_parents_watch(case: Case) -> None:
    """Parent and child share the system's list of watched sockets."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(case.begin())
    child = os.fork()
    if not child:
        case.pieces = None
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    case.server.parts.put(END)
    loop.run_until_complete(asyncio.wait_for(case.step(), 30))
    loop.close()
    assert case.got == ["a", "c"]


def test_p15_ctrl_c_while_the_loop_reads(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the event loop's callback ends the program and the call."""
    loop = asyncio.new_event_loop()
    loop.run_until_complete(case.begin())
    step = loop.run_until_complete(case.waiting())

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("llmbridge._call.answer.Answer.read", interrupted)
        case.server.parts.put(B)
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(asyncio.wait([step]))
    assert case.over
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(step)
    loop.close()
    assert not case.watched
