"""The worker threads of an event loop: their number, blocking steps in them, and coroutines that they have it run.

Only this module and `_aio` itself import anyio.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anyio import CancelScope, CapacityLimiter, Event, Lock, get_cancelled_exc_class, move_on_after
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync

from llmbridge._tools.runs import this_thread
from llmbridge.errors import ConfigError, LLMBridgeError

if TYPE_CHECKING:
    from llmbridge._tools.runs import Job

__all__ = ["Coroutines", "Hop", "Loop", "cancellation", "in_thread", "running_loop", "set_thread_limit"]

T = TypeVar("T")


_THREADS = 2048  # anyio's default is 40 per event loop: slow services would starve everything else
_AT_ONCE = 32  # threads that start without delay: starting a thousand would freeze the event loop
_GROWTH_SECONDS = 0.01  # without a free thread, before more are started
_THREADS_BEYOND = 16  # for calls that timed out while all were busy: they end at once
_threads: RunVar[_Threads] = RunVar("llmbridge_threads")
_in_tool: ContextVar[bool] = ContextVar("llmbridge_in_tool", default=False)


_workers: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def _end_threads() -> None:
    """Lets the interpreter exit: anyio's workers run until their event loop's root task reports its end.

    That report never comes if the loop stops together with the task, as under nest_asyncio, or was stopped or closed.
    """
    for thread in list(_workers):
        if (stop := getattr(thread, "stop", None)) is not None:  # trio's threads are daemons
            with contextlib.suppress(queue.Full):  # it is stopping already
                stop()


with contextlib.suppress(AttributeError, RuntimeError):  # atexit is too late: it waits for all threads
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
        """The places of the running event loop."""
        try:
            return _threads.get()
        except LookupError:
            _threads.set(made := cls())
            return made

    @property
    def limit(self) -> int:
        """The maximum number of threads."""
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        self._limit = limit
        self._places.total_tokens = min(limit, _AT_ONCE)

    @property
    def taken(self) -> int:
        """How many are busy."""
        return self._places.borrowed_tokens

    @contextlib.asynccontextmanager
    async def place(self, left: float) -> AsyncIterator[CapacityLimiter]:
        """A limiter to run a thread under, once there is room, or after so many seconds without any.

        Args:
            left: Seconds until the call's timeout. A step that starts after them finds out by itself that it expired.
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
        async with self._door:  # one at a time, so that only one decides whether to add threads
            while True:
                with move_on_after(_GROWTH_SECONDS):
                    await self._places.acquire_on_behalf_of(owner)
                    return
                places = self._places.total_tokens
                self._places.total_tokens = min(self.limit, places + places // 8 + 1)


def set_thread_limit(threads: int) -> None:
    """Limits how many worker threads llmbridge uses at once in the running event loop (default: 2048).

    Threads connect, send, and run sync tools; none is needed while an answer is awaited.

    Args:
        threads: At least 1. Further calls wait for a thread before they connect, within their total timeout.

    Raises:
        ConfigError: `threads` is not a whole number from 1, or no event loop is running.

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
        raise ConfigError(
            "set_thread_limit() applies to the running event loop, and there is none: call it in a coroutine"
        ) from None


class Loop:
    """A handle to the running event loop, for use by other threads."""

    def __init__(self) -> None:
        self._asyncio = running_loop()
        self._trio: Any = None if self.on_asyncio else _trio().current_trio_token()

    @property
    def on_asyncio(self) -> bool:
        """Whether it is asyncio's; else it is trio's."""
        return self._asyncio is not None

    @property
    def itself(self) -> object:
        """The event loop, or trio's token: always the same object, unlike anyio's token."""
        return self._asyncio or self._trio

    def run(self, steps: Callable[[], Coroutine[Any, Any, None]]) -> object:
        """Starts a background task. Call it within the loop, and keep the returned object until the task ends."""
        if self._asyncio is not None:
            return self._asyncio.create_task(steps())
        return _trio().spawn_system_task(steps, context=copy_context())

    def soon(self, call: Callable[..., object], *args: Any) -> None:
        """Schedules a call in the loop. Safe from any thread and from a garbage collection."""
        with contextlib.suppress(RuntimeError):  # the event loop has ended, with all its tasks
            if self._asyncio is not None:
                self._asyncio.call_soon_threadsafe(call, *args)
            else:
                self._trio.run_sync_soon(call, *args)


class Coroutines:
    """Coroutines that a worker thread has the event loop run (`_tools.runs.Loop`), as if the waiting task ran them.

    Create it in the event loop, in the task that will wait for the thread.
    """

    def __init__(self) -> None:
        self._loop = Loop()
        self._running: set[Event] = set()

    def start(self, jobs: Sequence[Job]) -> Callable[[], None]:
        """See `_tools.runs.Loop`."""
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
        """Whether any of them is running."""
        return bool(self._running)

    async def ended(self) -> None:
        """Waits until those that were cancelled have cleaned up and ended."""
        if self._running:
            with CancelScope(shield=True):
                for event in list(self._running):
                    await event.wait()


class _Coroutine:
    """One coroutine. Call its `begin_asyncio`, `begin_trio` and `cancel` in the event loop."""

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
        if stop is not None:  # once: on asyncio, a second cancel would interrupt its cleanup
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
        except cancellation():
            raise
        except BaseException:  # noqa: BLE001, S110 - the job passes it to the thread, which raises it
            pass
        finally:
            self._running.discard(event)
            event.set()


def _trio() -> Any:
    import trio

    return trio.lowlevel


class Hop(Generic[T]):
    """One blocking step, run once in a worker thread. A task that waits for it may be cancelled, and wait again.

    Args:
        step: Can run coroutines in this event loop with `_tools.runs.this_thread`, if `coroutines` is given.
        coroutines: Runs them, and may be shared by several steps.
        left: Returns the seconds that it may wait for a thread if all are busy. After them the step runs anyway, and
            finds out by itself that the call's time is over.
    """

    def __init__(
        self,
        step: Callable[[], T],
        coroutines: Coroutines | None = None,
        left: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._steps = [step]
        self._coroutines = coroutines
        self._left = left
        # In lists: passing through the event loop's frames would keep an error alive, and with it the whole call.
        self._done: list[T] = []
        self._failed: list[BaseException] = []
        self._over: Callable[[], None] | None = None
        self._begun = False
        self._task: object = None  # runs the step, if the task that started it was cancelled
        self.wanted = True

    async def outcome(self) -> T:
        """The result of the step."""
        if self._steps and not self._begun:
            self._begun = True
            await self._in_place()
        while not (self._done or self._failed):  # a waiting task was cancelled, but the step goes on
            event, loop = Event(), Loop()
            self._over = partial(loop.soon, event.set)
            if self._steps and self._task is None:
                self._task = loop.run(self._in_own_task)
            if not (self._done or self._failed):
                await event.wait()
        if self._failed:
            raise self._failed.pop()
        return self._done.pop()

    async def _in_place(self) -> None:
        # A tool's thread waits for the calls made inside it: if they shared the places, all might wait for ever.
        inside = contextlib.nullcontext(CapacityLimiter(1)) if _in_tool.get() else None
        async with inside or _Threads.here().place(self._left()) as place:
            await run_sync(self._run, abandon_on_cancel=True, limiter=place)

    async def _in_own_task(self) -> None:
        """Runs the step for a task that is cancelled again and again, too fast for the step to start."""
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
            return  # an earlier thread runs it
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
    coroutines: Coroutines | None = None,
    left: Callable[[], float] = lambda: float("inf"),
) -> T:
    """Runs a blocking step in a worker thread, and returns its result.

    Args:
        step, coroutines, left: As for `Hop`.
        cancel: Wakes the step when the task is cancelled.
    """
    hop = Hop(step, coroutines, left)
    try:
        return await hop.outcome()
    except BaseException as error:  # including cancellation, Ctrl-C, the end of the loop
        if not isinstance(error, LLMBridgeError):  # such an error came from the step, which has closed its connection
            hop.wanted = False
            cancel()  # wakes the thread if it still runs; it closes the connection
        if coroutines is not None and not isinstance(error, GeneratorExit):
            await coroutines.ended()
        raise


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop of this thread if asyncio runs it; None on trio, and without one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def cancellation() -> type[BaseException]:
    """The exception that cancels a task; also for a task that is garbage collected after its event loop closed."""
    try:
        return get_cancelled_exc_class()
    except RuntimeError:
        return asyncio.CancelledError
