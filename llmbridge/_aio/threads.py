"""The worker threads of an event loop: how many there are, a blocking step in one, and what it has the loop run.

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


_THREADS = 2048  # anyio's own limit is 40 for a whole event loop: slow services would starve everything else
_AT_ONCE = 32  # threads that begin without delay: to start a thousand makes the event loop stand still
_GROWTH_SECONDS = 0.01  # for which nothing must have become free before there are more
_THREADS_BEYOND = 16  # for calls whose time ran out while all were taken: each is done at once
_threads: RunVar[_Threads] = RunVar("llmbridge_threads")
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


class Loop:
    """The running event loop, as other threads can speak to it."""

    def __init__(self) -> None:
        self._asyncio = running_loop()
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


class Coroutines:
    """What a worker thread has the event loop run for it (`_tools.runs.Loop`): as if the task that waits ran it.

    Args:
        here: Made in the event loop, by the task that will wait.
    """

    def __init__(self) -> None:
        self._loop = Loop()
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
        except cancellation():
            raise
        except BaseException:  # noqa: BLE001, S110 - the job has told it to the thread, which raises it
            pass
        finally:
            self._running.discard(event)
            event.set()


def _trio() -> Any:
    import trio

    return trio.lowlevel


class Hop(Generic[T]):
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
        coroutines: Coroutines | None = None,
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
    coroutines: Coroutines | None = None,
    left: Callable[[], float] = lambda: float("inf"),
) -> T:
    """What a blocking step gives, made in a worker thread; the arguments are those of `Hop`.

    Args:
        step, coroutines, left: As for `Hop`.
        cancel: Wakes the step when the task is cancelled.
    """
    hop = Hop(step, coroutines, left)
    try:
        return await hop.outcome()
    except BaseException as error:  # also the task's cancellation, Ctrl-C, the end of the loop
        if not isinstance(error, LLMBridgeError):  # after one, the step is over, and has closed what was its own
            hop.wanted = False
            cancel()  # wakes the thread, if it still runs, which closes the connection
        if coroutines is not None and not isinstance(error, GeneratorExit):
            await coroutines.ended()
        raise


def running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None  # trio


def cancellation() -> type[BaseException]:
    """What cancels a task; also where its event loop is closed, and the task is garbage with all that it holds."""
    try:
        return get_cancelled_exc_class()
    except RuntimeError:
        return asyncio.CancelledError
