"""`async for` over the blocking core, on asyncio and trio. See `threads` for its worker threads.

What may block (a name lookup, a connect, TLS, sending, an error's body) runs in a worker thread, which goes back as
soon as the request is sent. Waiting is the event loop's: for a place in the queue of the client's limits, for the time
of a retry, for the headers and the body of an answer until the socket is readable. Then the same step that the sync
loop makes takes what has arrived, which cannot block. So neither a queue nor a stalled stream holds a thread, a busy
one pays for no thread switch, and a slow consumer slows the server, because nobody reads ahead.

Answers without a socket of their own (mocks, caches, TLS within TLS) take a worker thread for every step.

Tools, and functions that give a key, run in the event loop if they are async, for a worker thread that waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anyio import (
    Event,
    Semaphore,
    move_on_after,
    wait_readable,
)
from anyio.lowlevel import RunVar, checkpoint

from llmbridge._aio.threads import Coroutines, Hop, Loop, cancellation, in_thread, running_loop
from llmbridge._call.pipeline import Wait
from llmbridge._locks import monotonic
from llmbridge.errors import LLMBridgeError, Pending, without_frames
from llmbridge.secret import discreet

if TYPE_CHECKING:
    from llmbridge._call.pipeline import Pipeline
    from llmbridge._call.reading import Source, View
    from llmbridge.stream import ChatStream

__all__ = ["AsyncResult", "finished", "text_of"]

T = TypeVar("T")
Piece = TypeVar("Piece")

_BURST = 8  # calls that begin between two turns of others
_BURST_SECONDS = 0.001
_begun: RunVar[_Beginnings] = RunVar("llmbridge_beginnings")


class _Beginnings:
    """The first steps of an event loop's calls: where many come at once, others have their turn in between."""

    def __init__(self) -> None:
        self._door = Semaphore(_BURST)
        self._begun = 0  # in the present turn
        self._last = 0.0
        loop = running_loop()
        self._soon: Callable[[Callable[[], object]], object] = Loop().soon if loop is None else loop.call_soon

    @classmethod
    def here(cls) -> _Beginnings:
        """Those of the running event loop."""
        try:
            return _begun.get()
        except LookupError:
            _begun.set(made := cls())
            return made

    async def turn(self) -> None:
        """Comes back when the next call may begin."""
        now, last = monotonic(), self._last
        self._last = now
        if now - last >= _BURST_SECONDS:
            return  # to ask the event loop costs more
        if not self._begun:
            self._soon(self._turn_is_over)
        self._begun += 1
        if self._begun > _BURST:
            async with self._door:
                await _turn()
                self._last = monotonic()

    def _turn_is_over(self) -> None:
        self._begun = 0


async def _turn() -> None:
    """anyio's `checkpoint`, without its search for the event loop's kind: others have their turn, and may cancel."""
    if running_loop() is None:
        await checkpoint()
    else:
        await asyncio.sleep(0)


async def _rested(call: Pipeline) -> None:
    """Waits for `Wait.REST`."""
    event, loop = Event(), Loop()
    call.when_woken(lambda: loop.soon(event.set))
    try:
        with move_on_after(call.rest):
            await event.wait()
    finally:
        call.when_woken(None)


async def finished(steps: Generator[AsyncIterable[Any], None, T], in_threads: bool = False) -> T:
    """What a generator returns that has answers read, one after the other: `_call.reading.finished` for async code.

    Args:
        steps: It gives an answer; when that has been read, it goes on, or gets the error that came in its place.
        in_threads: What it does behind an answer may take a while.
    """
    failure = Pending()
    begun = False

    @discreet
    def step() -> tuple[AsyncIterable[Any] | None, T | None]:
        try:
            return (next(steps) if failure.error is None else steps.throw(failure.taken())), None
        except StopIteration as end:
            return None, end.value

    while True:
        answer, result = await in_thread(step, lambda: None) if in_threads and begun else step()
        if answer is None:
            return result  # type: ignore[return-value]
        begun = True
        try:
            async for _ in answer:
                pass
        except LLMBridgeError as error:
            failure.error = without_frames(error)


async def text_of(stream: ChatStream) -> str:
    """The whole text of an answer."""
    return (await stream).text


class _Watch(Generic[T]):
    """Has asyncio watch an answer's socket from one wait to the next: to begin anew each time costs more than a piece.

    The loop makes the step itself when something arrives: what stayed unread would wake it again and again.

    Args:
        source: The answer, which waits for its socket.
        poll: Makes a step of it.

    Raises:
        NotImplementedError: The loop cannot do that, as Windows' proactor loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, source: Source, poll: Callable[[], T]) -> None:
        self._loop = loop
        self._source = source
        self._call = source.current
        self._poll = poll
        self._pid = os.getpid()
        self._waiter: asyncio.Future[None] | None = None
        self._done: list[T] = []
        self._failed: list[BaseException] = []  # in a list for the reason that `Hop` gives
        self._descriptor = self._call.watch()
        self._open = self._descriptor is not None  # or it was given up meanwhile
        if self._descriptor is not None:
            try:
                loop.add_reader(self._descriptor, self._arrived)
            except BaseException:
                self._call.unwatched()
                raise

    def holds(self) -> bool:
        """Whether the socket is still the answer's; if not, it ends. To be called behind each step."""
        if self._open and not (self._call.watched and self._call is self._source.current):
            self.end()
        return self._open

    def must_wait(self) -> bool:
        """Whether there is nothing to be had but by `outcome`, as far as that is known at once."""
        return bool(self._done or self._failed) or (self.is_here and self._call.must_wait())

    @property
    def is_here(self) -> bool:
        """Whether it goes on, in the running event loop."""
        return self._open and self._loop is running_loop()

    async def outcome(self) -> T:
        """What the step brings that is made when something has arrived."""
        if self._open and not (self._done or self._failed):
            waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        if self._failed:
            raise self._failed.pop()
        return self._done.pop() if self._done else self._poll()

    def _arrived(self) -> None:
        waiter = self._waiter
        if waiter is None or waiter.done():  # the reader is slower than the answer, or has been cancelled
            self.end()
            if self._call.cancelled:
                self._call.close()
            return
        try:
            outcome = self._poll()
        except BaseException as error:
            self._failed.append(error)
            waiter.set_result(None)
            self.holds()
            if not isinstance(error, Exception):
                raise
            return
        if not self.holds() or outcome is not Wait.SOCKET:  # else, what has come means nothing to anybody
            self._done.append(outcome)
            waiter.set_result(None)

    def end(self) -> None:
        """Turns away from the socket. May be repeated; by the loop's own thread only."""
        if self._open:
            self._open = False
            if self._pid == os.getpid():  # a forked child would put an end to the parent's watch
                self._loop.remove_reader(self._descriptor)  # type: ignore[arg-type]
            self._call.unwatched()

    def end_anywhere(self, then: Callable[[], None]) -> None:
        """Like `end`, from any thread and from a garbage collection.

        Args:
            then: Called once it has ended.
        """

        def both() -> None:
            self.end()
            then()

        elsewhere = self._loop.is_running() and running_loop() is not self._loop and self._pid == os.getpid()
        if self._open and elsewhere:
            self._call.cancel()
            with contextlib.suppress(RuntimeError):  # it was closed meanwhile
                self._loop.call_soon_threadsafe(both)
                return
        both()


class AsyncResult(AsyncGenerator[Piece, None], Generic[Piece]):
    """The pieces of an answer, for `async for`. Awaiting it gives itself, so that both ways of use work::

        async for piece in Provider.create_async_generator(...): ...
        pieces = await Provider.create_async_generator(...)

    Nothing is sent before the first piece is asked for. No task group and no cancel scope is open between two pieces.

    A step that is cancelled, by a timeout say, loses nothing: the next one goes on. If none comes within a second, the
    answer is given up, and a later step raises `Cancelled`; so it does where the step has waited for an async tool.
    """

    def __init__(self, view: View[Piece]) -> None:
        self._view = view
        self._ready: Iterator[Piece] = iter(())  # of one read
        self._over = False
        self._running = False
        self._left = False  # by a task that was cancelled while it waited
        self._watch: _Watch[Iterable[Piece] | Wait | None] | None = None
        self._hop: Hop[Iterable[Piece] | Wait | None] | None = None
        self._coroutines: Coroutines | None = None

    def __await__(self) -> Generator[Any, Any, AsyncResult[Piece]]:
        return _itself(self).__await__()

    def __aiter__(self) -> AsyncResult[Piece]:
        return self

    async def __anext__(self) -> Piece:
        for piece in self._ready:
            return piece
        step = self._next_read()
        del self  # the traceback of a cancelled task shall not keep what nobody else holds
        return await step

    async def _next_read(self) -> Piece:
        """The first piece of the next read that brings one.

        Raises:
            StopAsyncIteration: There will be none.
        """
        if self._running:
            raise RuntimeError("another task is waiting for this stream's next piece already")
        self._running = True
        if self._left:
            self._left = False
            self._view.source.come_back()
        try:
            while not self._over:
                await self._step()
                for piece in self._ready:
                    self._running = False
                    return piece
            raise StopAsyncIteration
        except BaseException as error:
            self._running = False
            if isinstance(error, cancellation()):
                self._left = True
                self._turn_away()
                self._view.leave(Loop().soon)
                self._ready = _of_one_who_is_back(self._ready, self._view.source)
                del self
                raise error.with_traceback(None)  # noqa: B904 - it is the same one
            self._over = True
            self._turn_away()
            self._view.abandon()
            raise

    async def _step(self) -> None:
        """Makes the next read, and keeps what it brings. Gives other tasks their turn, and can be cancelled."""
        source, watch = self._view.source, self._watch
        if source.started is None:
            await _Beginnings.here().turn()
        outcome: Iterable[Piece] | Wait | None
        if watch is not None and watch.must_wait():
            outcome, turn = await watch.outcome(), True
        else:
            outcome = self._polled() if self._hop is None else Wait.THREAD
            turn = isinstance(outcome, Wait)
        while isinstance(outcome, Wait):
            if outcome is Wait.THREAD:
                self._turn_away()
                outcome = await self._hopped()
            elif outcome is Wait.SOCKET:
                outcome = await self._arrival()
            else:
                if outcome is Wait.REST:
                    await _rested(source.current)
                else:
                    await _turn()
                outcome = self._polled()
        if outcome is None:
            self._over = True
        else:
            self._ready = iter(outcome)
        if not turn:
            await _turn()

    def _polled(self) -> Iterable[Piece] | Wait | None:
        """What a step brings that does not block."""
        outcome = self._view.poll()
        if self._watch is not None:
            self._watch.holds()
        return outcome

    async def _arrival(self) -> Iterable[Piece] | Wait | None:
        """What a step brings once something has arrived."""
        if self._watch is not None and self._watch.is_here:
            return await self._watch.outcome()
        self._turn_away()  # in another event loop
        source, loop = self._view.source, running_loop()
        if loop is not None:
            with contextlib.suppress(NotImplementedError):
                self._watch = _Watch(loop, source, self._view.poll)
                return await self._watch.outcome()
        call = source.current
        if (descriptor := call.watch()) is not None:  # or it was given up meanwhile
            try:
                await wait_readable(descriptor)
            finally:
                call.unwatched()
        return self._view.poll()

    def _turn_away(self) -> None:
        if self._watch is not None:
            self._watch.end()

    async def _hopped(self) -> Iterable[Piece] | Wait | None:
        """What a step brings in a worker thread. If the task is cancelled meanwhile, the next one gets that."""
        coroutines = self._coroutines = self._coroutines or Coroutines()
        if self._hop is None:
            self._hop = Hop(self._view.hop, coroutines, partial(_left, self._view.source))
        try:
            outcome = await self._hop.outcome()
        except cancellation():
            if coroutines.at_work:  # they belong to this task, which must not go before them
                self._view.source.cancel()
                await coroutines.ended()
            raise
        except BaseException:
            self._hop = None
            raise
        self._hop = None
        return outcome

    async def asend(self, value: None) -> Piece:
        """The next piece; there is nothing that could be sent."""
        if value is not None:
            raise TypeError("an answer takes no values: asend(None) only")
        return await self.__anext__()

    async def athrow(
        self, kind: Any, value: BaseException | object = None, traceback: TracebackType | None = None
    ) -> Piece:
        """Ends the answer, and raises what was thrown."""
        await self.aclose()
        if isinstance(kind, type) and not isinstance(value, BaseException):
            value = kind() if value is None else kind(value)
        error = value if isinstance(value, BaseException) else kind
        raise error.with_traceback(traceback) if traceback is not None else error

    async def aclose(self) -> None:
        """Ends the answer and closes its connection. May be repeated, and called from another task."""
        self._over = True
        self._ready = iter(())
        if self._running:
            self._view.source.cancel()  # the task that waits closes what it waits for
        else:
            self._turn_away()
            self._view.abandon()
            if self._coroutines is not None:
                await self._coroutines.ended()

    def __del__(self) -> None:
        if sys.is_finalizing():
            return
        if self._watch is None:
            self._view.abandon()
        else:
            self._watch.end_anywhere(self._view.abandon)


def _of_one_who_is_back(pieces: Iterator[Piece], source: Source) -> Iterator[Piece]:
    for piece in pieces:
        source.come_back()
        yield piece


def _left(source: Source) -> float:
    return source.current.left


async def _itself(result: AsyncResult[Piece]) -> AsyncResult[Piece]:
    return result
