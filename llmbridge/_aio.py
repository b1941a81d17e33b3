"""`async for` over the blocking core, on asyncio and trio. The only importer of anyio.

Whatever may block (a name lookup, a connect, TLS, waiting for headers, retries, an error's body) runs in a worker
thread. Once an answer streams, its thread goes back: the event loop itself waits until the socket is readable, and the
same step that the sync loop makes takes what has arrived, which cannot block then. So a stalled stream holds no thread,
a busy one pays for no thread switch, and a slow consumer slows the server, because nobody reads ahead.

Answers without a socket of their own (mocks, caches, TLS within TLS) take a worker thread for every step.

Tools, and functions that give a key, run in the event loop if they are async, for a worker thread that waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextvars import Context, ContextVar, copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anyio import (
    CancelScope,
    CapacityLimiter,
    Event,
    WouldBlock,
    get_cancelled_exc_class,
    move_on_after,
    wait_readable,
)
from anyio.lowlevel import RunVar, checkpoint
from anyio.to_thread import run_sync

from llmbridge._call.pipeline import Wait
from llmbridge._tools.runs import this_thread
from llmbridge.errors import ConfigError, LLMBridgeError

if TYPE_CHECKING:
    from llmbridge._call.reading import View
    from llmbridge._tools.runs import Job
    from llmbridge.completion import Completion
    from llmbridge.messages import Parsed
    from llmbridge.stream import ChatStream

__all__ = ["AsyncResult", "answered", "complete", "in_thread", "set_thread_limit", "text_of"]

T = TypeVar("T")
Piece = TypeVar("Piece")

_THREADS = 2048  # anyio's own limit is 40 for a whole event loop: slow services would starve everything else
_THREADS_BEYOND = 16  # for calls whose time ran out while all were taken: each is done at once
_limiter: RunVar[CapacityLimiter] = RunVar("llmbridge_limiter")
_limiter_beyond: RunVar[CapacityLimiter] = RunVar("llmbridge_limiter_beyond")
_in_tool: ContextVar[bool] = ContextVar("llmbridge_in_tool", default=False)


_threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _end_threads() -> None:
    """Lets the interpreter end: a worker of anyio waits until the root task says that it is done.

    Nobody tells it where the loop stops with that task, as nest_asyncio's do, or was stopped or closed before.
    """
    for thread in list(_threads):
        if (stop := getattr(thread, "stop", None)) is not None:  # trio's are daemons
            with contextlib.suppress(queue.Full):  # somebody else has told it
                stop()


with contextlib.suppress(AttributeError, RuntimeError):  # atexit comes too late: it runs once all threads have ended
    threading._register_atexit(_end_threads)  # type: ignore[attr-defined]


def _thread_limit() -> CapacityLimiter:
    return _limit_of(_limiter, _THREADS)


def _limit_of(variable: RunVar[CapacityLimiter], threads: int) -> CapacityLimiter:
    try:
        return variable.get()
    except LookupError:
        limiter = CapacityLimiter(threads)
        variable.set(limiter)
        return limiter


def set_thread_limit(threads: int) -> None:
    """How many worker threads llmbridge may use at once in the running event loop; 2048 if never called.

    Args:
        threads: At least 1. Calls beyond it wait for their turn before they connect, within their total limit.

    Raises:
        ConfigError: It is no such number, or no event loop is running.

    Example:
        >>> import asyncio
        >>> async def main():
        ...     set_thread_limit(100)
        >>> asyncio.run(main())
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise ConfigError(f"the thread limit must be a whole number from 1, not {threads!r}")
    try:
        _thread_limit().total_tokens = threads
    except RuntimeError:
        raise ConfigError("set_thread_limit() is for one event loop: call it inside, in a coroutine") from None


class _Coroutines:
    """What a worker thread has the event loop run for it (`_tools.runs.Loop`): as if the task that waits ran it.

    Args:
        here: Made in the event loop, by the task that will wait.
    """

    def __init__(self) -> None:
        self._loop = _running_loop()
        self._token: Any = None if self._loop else _trio().current_trio_token()
        self._running: set[Event] = set()

    def start(self, jobs: Sequence[Job]) -> Callable[[], None]:
        """See Loop."""
        begun = [_Coroutine(job, self._running) for job in jobs]
        context = copy_context()
        context.run(_in_tool.set, True)
        for one in begun:
            begin = one.begin_asyncio if self._loop else one.begin_trio
            self._soon(begin, context.copy())

        def cancel() -> None:
            for one in begun:
                one.cancelled = True
                self._soon(one.cancel)

        return cancel

    async def ended(self) -> None:
        """Waits for those that run, after they were cancelled: what they clean up is theirs to do first."""
        if self._running:
            with CancelScope(shield=True):
                for event in list(self._running):
                    await event.wait()

    def _soon(self, call: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and all tasks with it
            if self._loop is not None:
                self._loop.call_soon_threadsafe(call, *args)
            else:
                self._token.run_sync_soon(call, *args)


class _Coroutine:
    """One of them. `begin` and `cancel` are called in the event loop."""

    def __init__(self, job: Job, running: set[Event]) -> None:
        self._job = job
        self._running = running
        self._stop: Callable[[], object] | None = None
        self.cancelled = False

    def begin_asyncio(self, context: Context) -> None:
        if not self.cancelled:
            task = context.run(asyncio.get_running_loop().create_task, self._run())
            self._stop = task.cancel

    def begin_trio(self, context: Context) -> None:
        if not self.cancelled:
            _trio().spawn_system_task(self._run_in_scope, context=context)

    def cancel(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:  # once: on asyncio, a second time would interrupt what it cleans up
            stop()

    async def _run_in_scope(self) -> None:
        with CancelScope() as scope:
            self._stop = scope.cancel
            if self.cancelled:
                scope.cancel()
            await self._run()

    async def _run(self) -> None:
        event = Event()
        self._running.add(event)
        try:
            await self._job()
        except get_cancelled_exc_class():
            raise
        except BaseException:  # noqa: BLE001, S110 - the job has told it to the thread, which raises it
            pass
        finally:
            self._running.discard(event)
            event.set()


def _trio() -> Any:
    import trio

    return trio.lowlevel


async def in_thread(
    step: Callable[[], T],
    cancel: Callable[[], None],
    coroutines: _Coroutines | None = None,
    left: Callable[[], float] = lambda: float("inf"),
) -> T:
    """What a blocking step gives, made in a worker thread.

    Args:
        step: May run coroutines in this event loop, by `_tools.runs.this_thread`, if `coroutines` is given.
        cancel: Wakes it when the task is cancelled.
        coroutines: Keeps them, also from step to step.
        left: Seconds for which it may wait for a thread, where all are taken. Then the step is made nevertheless, and
            has to find out by itself that there is no time left.
    """
    # Both pass by the event loop's own frames, which would keep an error, and with it everything that the call holds.
    done: list[T] = []
    failed: list[BaseException] = []
    awaited = True

    def step_here() -> None:
        this_thread.loop = coroutines
        _threads.add(threading.current_thread())
        try:
            done.append(step())
        except BaseException as error:  # noqa: BLE001 - raised below
            if awaited:
                failed.append(error)
        finally:
            this_thread.loop = None

    # A thread waits for what runs within a tool: if both had to share the limit, they might wait for ever.
    limiter = CapacityLimiter(1) if _in_tool.get() else _thread_limit()
    try:
        async with _turn(limiter, left) as limiter:
            await run_sync(step_here, abandon_on_cancel=True, limiter=limiter)
        if failed:
            raise failed.pop()
        return done.pop()
    except BaseException as error:  # also the task's cancellation, Ctrl-C, the end of the loop
        if not isinstance(error, LLMBridgeError):  # after one, the step is over, and has closed what was its own
            awaited = False
            cancel()  # wakes the thread, if it still runs, which closes the connection
        if coroutines is not None and not isinstance(error, GeneratorExit):
            await coroutines.ended()
        raise


@contextlib.asynccontextmanager
async def _turn(limiter: CapacityLimiter, left: Callable[[], float]) -> AsyncIterator[CapacityLimiter]:
    """What a thread runs under: a place within the limit, once there is one; after so many seconds, one beyond it."""
    place, taken = object(), True
    try:
        limiter.acquire_on_behalf_of_nowait(place)
    except WouldBlock:
        taken = False
        with move_on_after(max(0.0, left())):
            await limiter.acquire_on_behalf_of(place)
            taken = True
    try:
        yield CapacityLimiter(1) if taken else _limit_of(_limiter_beyond, _THREADS_BEYOND)
    finally:
        if taken:
            limiter.release_on_behalf_of(place)


async def _readable(descriptor: int) -> None:
    """Waits until there is something to read.

    Done directly where asyncio is the event loop: that is half of what a piece of a slow stream costs otherwise.
    """
    loop = _running_loop()
    if loop is None:
        await wait_readable(descriptor)
        return
    arrived = loop.create_future()
    try:
        loop.add_reader(descriptor, _arrive, arrived)
    except NotImplementedError:  # Windows' proactor loop
        await wait_readable(descriptor)
        return
    try:
        await arrived
    finally:
        loop.remove_reader(descriptor)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None  # trio


def _arrive(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)


async def complete(stream: ChatStream[Parsed]) -> Completion[Parsed]:
    """The whole answer, in one hop to a worker thread."""
    return await in_thread(stream.complete, stream.close, _Coroutines(), lambda: stream._source.current.left)


async def answered(result: Callable[[], T], cancel: Callable[[], None], left: Callable[[], float]) -> T:
    """What a blocking call gives, in one hop to a worker thread; the arguments are those of `in_thread`."""
    return await in_thread(result, cancel, _Coroutines(), left)


async def text_of(stream: ChatStream) -> str:
    """The whole text of an answer."""
    return (await stream).text


class AsyncResult(AsyncGenerator[Piece, None], Generic[Piece]):
    """The pieces of an answer, for `async for`. Awaiting it gives itself, so that both ways of use work::

        async for piece in Provider.create_async_generator(...): ...
        pieces = await Provider.create_async_generator(...)

    Nothing is sent before the first piece is asked for. No task group and no cancel scope is open between two pieces.
    """

    def __init__(self, view: View[Piece]) -> None:
        self._view = view
        self._ready: Iterator[Piece] = iter(())  # of one read
        self._over = False
        self._running = False
        self._coroutines: _Coroutines | None = None

    def __await__(self) -> Generator[Any, Any, AsyncResult[Piece]]:
        return _itself(self).__await__()

    def __aiter__(self) -> AsyncResult[Piece]:
        return self

    async def __anext__(self) -> Piece:
        for piece in self._ready:
            return piece
        return await self._next_read()

    async def _next_read(self) -> Piece:
        """The first piece of the next read that brings one.

        Raises:
            StopAsyncIteration: There will be none.
        """
        if self._running:
            raise RuntimeError("another task is waiting for this stream's next piece already")
        self._running = True
        try:
            while not self._over:
                pieces = await self._step()
                if pieces is None:
                    break
                self._ready = iter(pieces)
                for piece in self._ready:
                    return piece
            raise StopAsyncIteration
        except BaseException:
            self._over = True
            self._view.abandon()
            raise
        finally:
            self._running = False

    async def _step(self) -> Iterable[Piece] | None:
        """What the next read brings. Each step gives other tasks their turn, and can be cancelled."""
        view, source = self._view, self._view.source
        outcome = view.poll()
        if outcome is not None and not isinstance(outcome, Wait):
            await checkpoint()
        while outcome is Wait.SOCKET or outcome is Wait.TURN:
            if outcome is Wait.TURN:
                await checkpoint()
            else:
                descriptor = source.current.readable
                assert descriptor is not None
                await _readable(descriptor)
            outcome = view.poll()
        if outcome is Wait.THREAD:
            self._coroutines = self._coroutines or _Coroutines()
            outcome = await in_thread(view.advance, source.cancel, self._coroutines, lambda: source.current.left)
        return None if isinstance(outcome, Wait) else outcome

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
            self._view.abandon()
            if self._coroutines is not None:
                await self._coroutines.ended()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._view.abandon()


async def _itself(result: AsyncResult[Piece]) -> AsyncResult[Piece]:
    return result
