"""`async for` over the blocking core, on asyncio and trio. See `threads` for its worker threads.

Steps that may block (a name lookup, connecting, TLS, sending, reading an error's body) run in a worker thread, which is
free again as soon as the request is sent. The event loop does the waiting: for a place in the queue of the client's
limits, before a retry, and for the headers and body of an answer until the socket is readable. Then the same step as in
the sync loop reads the data that has arrived, which cannot block. So neither a queue nor a stalled stream holds a
thread, a busy stream needs no thread switches, and a slow consumer slows the server, because nothing is read ahead.

Answers without a socket of their own (mocks, caches, TLS within TLS) need a worker thread for every step.

Async tools and async key functions run in the event loop, while a worker thread waits for them.
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
from weakref import WeakKeyDictionary, ref

from anyio import (
    Event,
    Semaphore,
    move_on_after,
    wait_readable,
)
from anyio.lowlevel import checkpoint

from llmbridge._aio.threads import Coroutines, Hop, Loop, cancellation, in_thread, running_loop
from llmbridge._call.pipeline import Wait
from llmbridge._locks import monotonic
from llmbridge.errors import LLMBridgeError, Pending, without_frames
from llmbridge.secret import discreet

if TYPE_CHECKING:
    from llmbridge._call.reading import Source, View
    from llmbridge.stream import ChatStream

__all__ = ["AsyncResult", "finished", "text_of"]

T = TypeVar("T")
Piece = TypeVar("Piece")

_BURST = 8  # calls that start between two turns of other tasks
_BURST_SECONDS = 0.001
_LOOK_SECONDS = 1.0
_pacing: WeakKeyDictionary[object, _StartPacing] = WeakKeyDictionary()


class _StartPacing:
    """Paces the first steps of an event loop's calls: if many start at once, other tasks get turns in between."""

    def __init__(self) -> None:
        self._door = Semaphore(_BURST)
        self._begun = 0  # in the current turn
        self._last = 0.0

    @classmethod
    def here(cls) -> _StartPacing:
        """That of the running event loop."""
        loop = running_loop() or Loop().itself
        pacing = _pacing.get(loop)
        if pacing is None:
            pacing = _pacing[loop] = cls()
        return pacing

    async def turn(self) -> None:
        """Returns when the next call may start."""
        now, last = monotonic(), self._last
        self._last = now
        if now - last >= _BURST_SECONDS:
            return  # not a burst: skip the calls to the event loop, which cost more
        if not self._begun:
            loop = running_loop()
            (Loop().soon if loop is None else loop.call_soon)(self._turn_is_over)
        self._begun += 1
        if self._begun > _BURST:
            async with self._door:
                await _turn()
                self._last = monotonic()

    def _turn_is_over(self) -> None:
        self._begun = 0


async def _turn() -> None:
    """Lets other tasks run, and can be cancelled: anyio's `checkpoint` without detecting the kind of event loop."""
    if running_loop() is None:
        await checkpoint()
    else:
        await asyncio.sleep(0)


async def finished(steps: Generator[AsyncIterable[Any], None, T], in_threads: bool = False) -> T:
    """Reads the answers that a generator yields, and returns its result: `_call.reading.finished` for async code.

    Args:
        steps: Yields an answer, and is resumed once that has been read; if it failed, its error is thrown in.
        in_threads: Whether the generator may take a while between answers, and so runs in a worker thread there.
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
    """Keeps asyncio watching an answer's socket between waits: registering it each time costs more than a piece.

    The loop's callback reads arriving data itself: unread data would wake the loop again and again.

    Args:
        loop: The running event loop.
        source: The answer, which waits for its socket.
        poll: Reads what has arrived.

    Raises:
        NotImplementedError: The loop cannot watch sockets, like the proactor loop of Windows.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, source: Source, poll: Callable[[], T]) -> None:
        self._loop = loop
        self._source = source
        self._call = source.current
        self._poll = poll
        self._pid = os.getpid()
        self._waiter: asyncio.Future[None] | None = None
        self._done: list[T] = []
        self._failed: list[BaseException] = []  # in a list: see `Hop`
        self._descriptor = self._call.watch()
        self._open = self._descriptor is not None  # False: it was given up meanwhile
        if self._descriptor is not None:
            try:
                loop.add_reader(self._descriptor, self._arrived)
            except BaseException:
                self._call.unwatched()
                raise

    def holds(self) -> bool:
        """Whether the socket still belongs to the answer; if not, stops watching. Call it after each step."""
        if self._open and not (self._call.watched and self._call is self._source.current):
            self.end()
        return self._open

    def must_wait(self) -> bool:
        """Whether the next step needs `outcome`, as far as is known without a system call."""
        return bool(self._done or self._failed) or (self.is_here and self._call.must_wait())

    @property
    def is_here(self) -> bool:
        """Whether the running event loop is watching."""
        return self._open and self._loop is running_loop()

    async def outcome(self) -> T:
        """Waits until something arrives, and returns the result of the step that reads it."""
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
        if waiter is None or waiter.done():  # the reader is slow, or was cancelled
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
        if not self.holds() or outcome is not Wait.SOCKET:  # else nothing usable has come: keep waiting
            self._done.append(outcome)
            waiter.set_result(None)

    def end(self) -> None:
        """Stops watching the socket. May be repeated; call it in the event loop's thread only."""
        if self._open:
            self._open = False
            if self._pid == os.getpid():  # a forked child would end the parent's watch, too
                self._loop.remove_reader(self._descriptor)  # type: ignore[arg-type]
            self._call.unwatched()

    def end_anywhere(self, then: Callable[[], None]) -> None:
        """Like `end`, but safe from any thread and from a garbage collection.

        Args:
            then: Called once watching has ended.
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


class _Orphaned:
    """Ends an answer whose event loop was closed in the middle of a wait of anyio, which keeps the task for ever.

    Args:
        result: Waits, and is not kept.

    Attributes:
        loop: In which it waits; None on trio, which ends its tasks.
    """

    def __init__(self, result: AsyncResult[Any]) -> None:
        self._result = ref(result)
        self._begun = False
        self.loop = running_loop()
        self.deadline = float("inf")

    def expire(self, now: float) -> None:
        """See `Expiring`."""
        if self.deadline > now:
            return
        self.deadline = now + _LOOK_SECONDS
        result = self._result()
        if result is None or (self.loop is not None and self.loop.is_closed()):
            self.over()
            if result is not None:
                result._view.abandon()

    def begin(self) -> None:
        """Looks from now on, once a second. Only here, since what looks is loaded with the first request."""
        from llmbridge._transport.call import watch

        if self.loop is not None:
            self._begun = True
            self.deadline = monotonic() + _LOOK_SECONDS
            watch(self)

    def over(self) -> None:
        """Looks no more."""
        if self._begun:
            from llmbridge._transport.call import unwatch

            unwatch(self)


class AsyncResult(AsyncGenerator[Piece, None], Generic[Piece]):
    """The pieces of an answer, for `async for`. Awaiting it returns the same object, so both of these work::

        async for piece in Provider.create_async_generator(...): ...
        pieces = await Provider.create_async_generator(...)

    The request is sent when the first piece is requested. Between two pieces, no task group or cancel scope is open.

    A cancelled step, as by a timeout, loses nothing: the next one continues. If none comes within a second, the call is
    given up, and a later step raises `Cancelled`. So does one after a step that was cancelled during an async tool.
    """

    def __init__(self, view: View[Piece]) -> None:
        self._view = view
        self._ready: Iterator[Piece] = iter(())  # the pieces of one read
        self._over = False
        self._running = False
        self._left = False  # a task was cancelled while it waited
        self._watch: _Watch[Iterable[Piece] | Wait | None] | None = None
        self._hop: Hop[Iterable[Piece] | Wait | None] | None = None
        self._coroutines: Coroutines | None = None
        self._orphaned: _Orphaned | None = None

    def __await__(self) -> Generator[Any, Any, AsyncResult[Piece]]:
        return _itself(self).__await__()

    def __aiter__(self) -> AsyncResult[Piece]:
        return self

    async def __anext__(self) -> Piece:
        for piece in self._ready:
            return piece
        step = self._next_read()
        del self  # or the traceback of a cancelled task would keep the answer alive
        return await step

    async def _next_read(self) -> Piece:
        """Reads until there is a piece, and returns it.

        Raises:
            StopAsyncIteration: The answer has ended.
        """
        if self._running:
            raise RuntimeError("another task is already waiting for this stream's next piece")
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
        except BaseException as error:
            self._running = False
            if isinstance(error, cancellation()):
                self._left = True
                self._stop_watching()
                self._view.leave(Loop().soon)
                self._ready = _coming_back(self._ready, self._view.source)
                del self
                raise error.with_traceback(None)  # noqa: B904 - the same error
            self._over = True
            self._stop_watching()
            self._view.abandon()
            raise
        self._running = False
        self._stop_watching()
        raise StopAsyncIteration

    async def _step(self) -> None:
        """Makes the next read, and keeps its pieces. Lets other tasks run, and can be cancelled."""
        source, watch = self._view.source, self._watch
        if source.started is None:
            await _StartPacing.here().turn()
        outcome: Iterable[Piece] | Wait | None
        if watch is not None and watch.must_wait():
            outcome, turn = await watch.outcome(), True
        else:
            outcome = self._polled() if self._hop is None else Wait.THREAD
            turn = isinstance(outcome, Wait)
        while isinstance(outcome, Wait):
            if outcome is Wait.THREAD:
                self._stop_watching()
                outcome = await self._hopped()
            elif outcome is Wait.SOCKET:
                outcome = await self._arrival()
            else:
                if outcome is Wait.REST:
                    await self._rest()
                else:
                    await _turn()
                outcome = self._polled()
        if outcome is None:
            self._over = True
            return
        self._ready = iter(outcome)
        if not turn:
            await _turn()

    def _polled(self) -> Iterable[Piece] | Wait | None:
        """The result of a step that does not block."""
        outcome = self._view.poll()
        if self._watch is not None:
            self._watch.holds()
        return outcome

    async def _arrival(self) -> Iterable[Piece] | Wait | None:
        """The result of a step after something has arrived."""
        if self._watch is not None and self._watch.is_here:
            return await self._watch.outcome()
        self._stop_watching()  # it may belong to another event loop
        source, loop = self._view.source, running_loop()
        if loop is not None:
            try:
                self._watch = _Watch(loop, source, self._view.poll)
            except NotImplementedError:
                pass  # wait as on trio; an error of the step itself is the caller's
            else:
                return await self._watch.outcome()
        call = source.current
        if (descriptor := call.watch()) is not None:  # None: it was given up meanwhile
            try:
                await wait_readable(descriptor)
            finally:
                call.unwatched()
        return self._view.poll()

    async def _rest(self) -> None:
        """Waits for `Wait.REST`."""
        event, loop, call = Event(), Loop(), self._view.source.current
        call.when_woken(lambda: loop.soon(event.set))
        orphaned = _Orphaned(self)
        orphaned.begin()
        try:
            with move_on_after(call.rest):
                await event.wait()
        finally:
            call.when_woken(None)
            orphaned.over()

    def _stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.end()

    async def _hopped(self) -> Iterable[Piece] | Wait | None:
        """The result of a step in a worker thread. If the task is cancelled meanwhile, the next step gets it."""
        coroutines = self._coroutines = self._coroutines or Coroutines()
        if self._hop is None:
            self._orphaned = _Orphaned(self)
            step = partial(_then, self._view.hop, self._orphaned.begin)
            self._hop = Hop(step, coroutines, partial(_seconds_left, self._view.source))
        elif self._orphaned is not None:
            self._orphaned.loop = running_loop()  # it may be another one than before
        try:
            outcome = await self._hop.outcome()
        except cancellation():
            if coroutines.at_work:  # they belong to this task, which must not end before them
                self._view.source.cancel()
                await coroutines.ended()
            raise
        except BaseException:
            self._hop_is_over()
            raise
        self._hop_is_over()
        return outcome

    def _hop_is_over(self) -> None:
        self._hop = None
        if self._orphaned is not None:
            self._orphaned.over()
            self._orphaned = None

    async def asend(self, value: None) -> Piece:
        """The next piece; only None can be sent."""
        if value is not None:
            raise TypeError("nothing can be sent into an answer: call asend(None) or anext()")
        return await self.__anext__()

    async def athrow(
        self, kind: Any, value: BaseException | object = None, traceback: TracebackType | None = None
    ) -> Piece:
        """Ends the answer, and raises the given exception."""
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
            self._view.source.cancel()  # the waiting task closes the connection
        else:
            self._stop_watching()
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


def _coming_back(pieces: Iterator[Piece], source: Source) -> Iterator[Piece]:
    for piece in pieces:
        source.come_back()
        yield piece


def _then(step: Callable[[], T], end: Callable[[], object]) -> T:
    outcome = step()
    end()
    return outcome


def _seconds_left(source: Source) -> float:
    return source.current.left


async def _itself(result: AsyncResult[Piece]) -> AsyncResult[Piece]:
    return result
