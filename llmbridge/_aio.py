"""`async for` over the blocking core, on asyncio and trio. The only importer of anyio.

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
import queue
import sys
import threading
import weakref
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextvars import Context, ContextVar, copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anyio import (
    CancelScope,
    CapacityLimiter,
    Event,
    Lock,
    Semaphore,
    get_cancelled_exc_class,
    move_on_after,
    wait_readable,
)
from anyio.lowlevel import RunVar, checkpoint
from anyio.to_thread import run_sync

from llmbridge._call.pipeline import Wait
from llmbridge._locks import monotonic
from llmbridge._tools.runs import this_thread
from llmbridge.errors import ConfigError, LLMBridgeError, Pending, without_frames
from llmbridge.secret import discreet

if TYPE_CHECKING:
    from llmbridge._call.pipeline import Pipeline
    from llmbridge._call.reading import Source, View
    from llmbridge._tools.runs import Job
    from llmbridge.stream import ChatStream

__all__ = ["AsyncResult", "finished", "in_thread", "set_thread_limit", "text_of"]

T = TypeVar("T")
Piece = TypeVar("Piece")

_THREADS = 2048  # anyio's own limit is 40 for a whole event loop: slow services would starve everything else
_AT_ONCE = 32  # threads that begin without delay: to start a thousand makes the event loop stand still
_GROWTH_SECONDS = 0.01  # for which nothing must have become free before there are more
_THREADS_BEYOND = 16  # for calls whose time ran out while all were taken: each is done at once
_BURST = 8  # calls that begin between two turns of others
_BURST_SECONDS = 0.001
_threads: RunVar[_Threads] = RunVar("llmbridge_threads")
_begun: RunVar[_Beginnings] = RunVar("llmbridge_beginnings")
_in_tool: ContextVar[bool] = ContextVar("llmbridge_in_tool", default=False)


_workers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _end_threads() -> None:
    """Lets the interpreter end: a worker of anyio waits until the root task says that it is done.

    Nobody tells it where the loop stops with that task, as nest_asyncio's do, or was stopped or closed before.
    """
    for thread in list(_workers):
        if (stop := getattr(thread, "stop", None)) is not None:  # trio's are daemons
            with contextlib.suppress(queue.Full):  # somebody else has told it
                stop()


with contextlib.suppress(AttributeError, RuntimeError):  # atexit comes too late: it runs once all threads have ended
    threading._register_atexit(_end_threads)  # type: ignore[attr-defined]


class _Threads:
    """The places for worker threads of one event loop."""

    def __init__(self) -> None:
        self._limit = _THREADS
        self._beyond = CapacityLimiter(_THREADS_BEYOND)
        self._places = CapacityLimiter(_AT_ONCE)
        self._door = Lock()

    @classmethod
    def here(cls) -> _Threads:
        """Those of the running event loop."""
        try:
            return _threads.get()
        except LookupError:
            _threads.set(made := cls())
            return made

    @property
    def limit(self) -> int:
        """How many threads there may be at the most."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._places.total_tokens = min(limit, _AT_ONCE)

    @property
    def taken(self) -> int:
        """How many are at work."""
        return self._places.borrowed_tokens

    @contextlib.asynccontextmanager
    async def place(self, left: float) -> AsyncIterator[CapacityLimiter]:
        """What a thread runs under, once there is room; after so many seconds, nevertheless.

        Args:
            left: Seconds. Who waits longer has to find out by itself that there is no time left.
        """
        owner = object()
        taken = not self._door.locked() and self._places.available_tokens > 0
        if taken:
            self._places.acquire_on_behalf_of_nowait(owner)
        else:
            with move_on_after(max(0.0, left)):
                await self._take(owner)
                taken = True
        try:
            yield CapacityLimiter(1) if taken else self._beyond
        finally:
            if taken:
                self._places.release_on_behalf_of(owner)
                if not self.taken:
                    self._places.total_tokens = min(_AT_ONCE, self.limit)

    async def _take(self, owner: object) -> None:
        async with self._door:  # one after the other, so that one alone finds out whether there should be more
            while True:
                with move_on_after(_GROWTH_SECONDS):
                    await self._places.acquire_on_behalf_of(owner)
                    return
                places = self._places.total_tokens
                self._places.total_tokens = min(self.limit, places + places // 8 + 1)


class _Beginnings:
    """The first steps of an event loop's calls: where many come at once, others have their turn in between."""

    def __init__(self) -> None:
        self._door = Semaphore(_BURST)
        self._last = 0.0

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
        if now - last < _BURST_SECONDS:
            async with self._door:
                await _turn()
                self._last = monotonic()


def set_thread_limit(threads: int) -> None:
    """How many worker threads llmbridge may use at once in the running event loop; 2048 if never called.

    They are needed to connect and to send, and for tools that are no coroutines; not while an answer is waited for.

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
        _Threads.here().limit = threads
    except RuntimeError:
        raise ConfigError("set_thread_limit() is for one event loop: call it inside, in a coroutine") from None


class _Loop:
    """The running event loop, as other threads can speak to it."""

    def __init__(self) -> None:
        self._asyncio = _running_loop()
        self._trio: Any = None if self.on_asyncio else _trio().current_trio_token()

    @property
    def on_asyncio(self) -> bool:
        """Or else on trio."""
        return self._asyncio is not None

    def run(self, steps: Callable[[], Coroutine[Any, Any, None]]) -> object:
        """Begins a task that is nobody's. Only within the loop; what is returned is to be kept until the task ends."""
        if self._asyncio is not None:
            return self._asyncio.create_task(steps())
        return _trio().spawn_system_task(steps, context=copy_context())

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        """Has it make a call. From any thread, and from a garbage collection."""
        with contextlib.suppress(RuntimeError):  # the event loop has ended, and all tasks with it
            if self._asyncio is not None:
                self._asyncio.call_soon_threadsafe(call, *args)
            else:
                self._trio.run_sync_soon(call, *args)


class _Coroutines:
    """What a worker thread has the event loop run for it (`_tools.runs.Loop`): as if the task that waits ran it.

    Args:
        here: Made in the event loop, by the task that will wait.
    """

    def __init__(self) -> None:
        self._loop = _Loop()
        self._running: set[Event] = set()

    def start(self, jobs: Sequence[Job]) -> Callable[[], None]:
        """See Loop."""
        begun = [_Coroutine(job, self._running) for job in jobs]
        context = copy_context()
        context.run(_in_tool.set, True)
        for one in begun:
            begin = one.begin_asyncio if self._loop.on_asyncio else one.begin_trio
            self._loop.soon(begin, context.copy())

        def cancel() -> None:
            for one in begun:
                one.cancelled = True
                self._loop.soon(one.cancel)

        return cancel

    @property
    def at_work(self) -> bool:
        """Whether some run."""
        return bool(self._running)

    async def ended(self) -> None:
        """Waits for those that run, after they were cancelled: what they clean up is theirs to do first."""
        if self._running:
            with CancelScope(shield=True):
                for event in list(self._running):
                    await event.wait()


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
        except _cancellation():
            raise
        except BaseException:  # noqa: BLE001, S110 - the job has told it to the thread, which raises it
            pass
        finally:
            self._running.discard(event)
            event.set()


def _trio() -> Any:
    import trio

    return trio.lowlevel


class _Hop(Generic[T]):
    """One blocking step, made once, in a worker thread. Who waits for it may be cancelled, and wait again.

    Args:
        step: May run coroutines in this event loop, by `_tools.runs.this_thread`, if `coroutines` is given.
        coroutines: Keeps them, also from step to step.
        left: Seconds for which it may wait for a thread, where all are taken. Then the step is made nevertheless, and
            has to find out by itself that there is no time left.
    """

    def __init__(
        self,
        step: Callable[[], T],
        coroutines: _Coroutines | None = None,
        left: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._steps = [step]
        self._coroutines = coroutines
        self._left = left
        # Both pass by the event loop's own frames, which would keep an error, and with it all that the call holds.
        self._done: list[T] = []
        self._failed: list[BaseException] = []
        self._over: Callable[[], None] | None = None
        self._begun = False
        self._task: object = None  # that makes the step, once the one that began it was cancelled
        self.wanted = True

    async def outcome(self) -> T:
        """What the step gives."""
        if self._steps and not self._begun:
            self._begun = True
            await self._in_place()
        while not (self._done or self._failed):  # somebody was cancelled, while the step goes on
            event, loop = Event(), _Loop()
            self._over = partial(loop.soon, event.set)
            if self._steps and self._task is None:
                self._task = loop.run(self._in_own_task)
            if not (self._done or self._failed):
                await event.wait()
        if self._failed:
            raise self._failed.pop()
        return self._done.pop()

    async def _in_place(self) -> None:
        # A thread waits for what runs within a tool: if both had to share the places, they might wait for ever.
        inside = contextlib.nullcontext(CapacityLimiter(1)) if _in_tool.get() else None
        async with inside or _Threads.here().place(self._left()) as place:
            await run_sync(self._run, abandon_on_cancel=True, limiter=place)

    async def _in_own_task(self) -> None:
        """Whoever comes and goes faster than the loop gets round would never see the step begin."""
        try:
            await self._in_place()
        except Exception as error:  # noqa: BLE001 - raised by `outcome`
            self._failed.append(error)
        finally:
            self._task = None
            if self._over is not None:
                self._over()

    def _run(self) -> None:
        try:
            step = self._steps.pop()
        except IndexError:
            return  # an earlier thread makes it
        this_thread.loop = self._coroutines
        _workers.add(threading.current_thread())
        try:
            self._done.append(step())
        except BaseException as error:  # noqa: BLE001 - raised by `outcome`
            if self.wanted:
                self._failed.append(error)
        finally:
            this_thread.loop = None
            if self._over is not None:
                self._over()


async def in_thread(
    step: Callable[[], T],
    cancel: Callable[[], None],
    coroutines: _Coroutines | None = None,
    left: Callable[[], float] = lambda: float("inf"),
) -> T:
    """What a blocking step gives, made in a worker thread; the arguments are those of `_Hop`.

    Args:
        step, coroutines, left: As for `_Hop`.
        cancel: Wakes the step when the task is cancelled.
    """
    hop = _Hop(step, coroutines, left)
    try:
        return await hop.outcome()
    except BaseException as error:  # also the task's cancellation, Ctrl-C, the end of the loop
        if not isinstance(error, LLMBridgeError):  # after one, the step is over, and has closed what was its own
            hop.wanted = False
            cancel()  # wakes the thread, if it still runs, which closes the connection
        if coroutines is not None and not isinstance(error, GeneratorExit):
            await coroutines.ended()
        raise


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


async def _turn() -> None:
    """anyio's `checkpoint`, without its search for the event loop's kind: others have their turn, and may cancel."""
    if _running_loop() is None:
        await checkpoint()
    else:
        await asyncio.sleep(0)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None  # trio


def _cancellation() -> type[BaseException]:
    """What cancels a task; also where its event loop is closed, and the task is garbage with all that it holds."""
    try:
        return get_cancelled_exc_class()
    except RuntimeError:
        return asyncio.CancelledError


def _arrive(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)


async def _rested(call: Pipeline) -> None:
    """Waits for `Wait.REST`."""
    event, loop = Event(), _Loop()
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
        self._hop: _Hop[Iterable[Piece] | Wait | None] | None = None
        self._coroutines: _Coroutines | None = None

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
            if isinstance(error, _cancellation()):
                self._left = True
                self._view.leave(_Loop().soon)
                self._ready = _of_one_who_is_back(self._ready, self._view.source)
                del self
                raise error.with_traceback(None)  # noqa: B904 - it is the same one
            self._over = True
            self._view.abandon()
            raise

    async def _step(self) -> None:
        """Makes the next read, and keeps what it brings. Gives other tasks their turn, and can be cancelled."""
        view, source = self._view, self._view.source
        if source.started is None:
            await _Beginnings.here().turn()
        outcome = view.poll() if self._hop is None else Wait.THREAD
        turn = isinstance(outcome, Wait)
        while isinstance(outcome, Wait):
            if outcome is Wait.THREAD:
                outcome = await self._hopped()
                continue
            if outcome is Wait.SOCKET:
                if (descriptor := source.current.readable) is not None:  # or it was given up behind the thread's step
                    await _readable(descriptor)
            elif outcome is Wait.REST:
                await _rested(source.current)
            else:
                await _turn()
            outcome = view.poll()
        if outcome is None:
            self._over = True
        else:
            self._ready = iter(outcome)
        if not turn:
            await _turn()

    async def _hopped(self) -> Iterable[Piece] | Wait | None:
        """What a step brings in a worker thread. If the task is cancelled meanwhile, the next one gets that."""
        coroutines = self._coroutines = self._coroutines or _Coroutines()
        if self._hop is None:
            self._hop = _Hop(self._view.hop, coroutines, partial(_left, self._view.source))
        try:
            outcome = await self._hop.outcome()
        except _cancellation():
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
            self._view.abandon()
            if self._coroutines is not None:
                await self._coroutines.ended()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._view.abandon()


def _of_one_who_is_back(pieces: Iterator[Piece], source: Source) -> Iterator[Piece]:
    for piece in pieces:
        source.come_back()
        yield piece


def _left(source: Source) -> float:
    return source.current.left


async def _itself(result: AsyncResult[Piece]) -> AsyncResult[Piece]:
    return result
