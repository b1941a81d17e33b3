"""`async for` over the blocking core, on asyncio and trio. The only importer of anyio.

Whatever may block (a name lookup, a connect, TLS, waiting for headers, retries, an error's body) runs in a worker
thread. Once an answer streams, its thread goes back: the event loop itself waits until the socket is readable, and the
same step that the sync loop makes takes what has arrived, which cannot block then. So a stalled stream holds no thread,
a busy one pays for no thread switch, and a slow consumer slows the server, because nobody reads ahead.

Answers without a socket of their own (mocks, caches, TLS within TLS) take a worker thread for every step.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from anyio import CapacityLimiter, wait_readable
from anyio.lowlevel import RunVar, checkpoint
from anyio.to_thread import run_sync

from llmbridge._pipeline import Wait
from llmbridge.errors import ConfigError, LLMBridgeError

if TYPE_CHECKING:
    from llmbridge._reading import Steps
    from llmbridge.stream import ChatStream, Completion

__all__ = ["AsyncResult", "complete", "set_thread_limit", "text_of"]

T = TypeVar("T")
Piece = TypeVar("Piece")

_THREADS = 2048  # anyio's own limit is 40 for a whole event loop: slow services would starve everything else
_limiter: RunVar[CapacityLimiter] = RunVar("llmbridge_limiter")


def _thread_limit() -> CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(_THREADS)
        _limiter.set(limiter)
        return limiter


def set_thread_limit(threads: int) -> None:
    """How many worker threads llmbridge may use at once in the running event loop; 2048 if never called.

    Args:
        threads: At least 1. Calls beyond it wait for their turn before they connect.

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


async def _in_thread(step: Callable[[], T], cancel: Callable[[], None]) -> T:
    try:
        return await run_sync(step, abandon_on_cancel=True, limiter=_thread_limit())
    except LLMBridgeError:
        raise  # the step is over, and has closed what was its own
    except BaseException:  # the task's cancellation, Ctrl-C, the end of the loop
        cancel()  # wakes the thread, if it still runs, which closes the connection
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


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None  # trio


def _arrive(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)


async def complete(stream: ChatStream) -> Completion:
    """The whole answer, in one hop to a worker thread."""
    return await _in_thread(stream.complete, stream.close)


async def text_of(stream: ChatStream) -> str:
    """The whole text of an answer."""
    return (await stream).text


class AsyncResult(AsyncGenerator[Piece, None], Generic[Piece]):
    """The pieces of an answer, for `async for`. Awaiting it gives itself, so that both ways of use work::

        async for piece in Provider.create_async_generator(...): ...
        pieces = await Provider.create_async_generator(...)

    Nothing is sent before the first piece is asked for. No task group and no cancel scope is open between two pieces.
    """

    def __init__(self, steps: Steps[Piece]) -> None:
        self._steps = steps
        self._keep = steps.handed_out
        self._ready: list[Piece] = []  # in reverse: the next one is the last
        self._over = False
        self._running = False

    def __await__(self) -> Generator[Any, Any, AsyncResult[Piece]]:
        return _itself(self).__await__()

    def __aiter__(self) -> AsyncResult[Piece]:
        return self

    async def __anext__(self) -> Piece:
        if not self._ready:
            await self._fill()
        piece = self._ready.pop()
        self._keep(piece)
        return piece

    async def _fill(self) -> None:
        """Waits until there is a piece.

        Raises:
            StopAsyncIteration: There will be none.
        """
        if self._running:
            raise RuntimeError("another task is waiting for this stream's next piece already")
        self._running = True
        try:
            while not self._ready:
                if self._over:
                    raise StopAsyncIteration
                pieces = await self._step()
                if pieces is None:
                    self._over = True
                else:
                    self._ready = pieces[::-1]
        except BaseException:
            self._over = True
            self._steps.abandon()
            raise
        finally:
            self._running = False

    async def _step(self) -> list[Piece] | None:
        """What the next read brings. Each step gives other tasks their turn, and can be cancelled."""
        steps = self._steps
        outcome = steps.poll()
        if isinstance(outcome, list):
            await checkpoint()
        while outcome is Wait.SOCKET:
            await _readable(steps.readable())
            outcome = steps.poll()
        if outcome is Wait.THREAD:
            outcome = await _in_thread(steps.advance, steps.cancel)
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
        self._ready.clear()
        if self._running:
            self._steps.cancel()  # the task that waits closes what it waits for
        else:
            self._steps.abandon()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._steps.abandon()


async def _itself(result: AsyncResult[Piece]) -> AsyncResult[Piece]:
    return result
