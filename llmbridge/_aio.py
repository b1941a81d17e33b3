"""`async for` over the blocking core: each step that may block runs in a worker thread. The only importer of anyio.

A step hands over all that one network read brought, so that a thread is asked once per read and not once per piece.
When the waiting task is cancelled, the call is cancelled first: its thread wakes at once and goes back to the pool.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CapacityLimiter, get_cancelled_exc_class
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync

if TYPE_CHECKING:
    from llmbridge.stream import ChatStream, Completion

__all__ = ["AsyncResult", "complete"]

T = TypeVar("T")

_THREADS = 2048  # anyio's own limit is 40 for a whole event loop: stalled streams would starve everything else
_limiter: RunVar[CapacityLimiter] = RunVar("llmbridge_limiter")


def _thread_limit() -> CapacityLimiter:
    try:
        return _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(_THREADS)
        _limiter.set(limiter)
        return limiter


async def _in_thread(stream: ChatStream, step: Callable[[], T]) -> T:
    try:
        return await run_sync(step, abandon_on_cancel=True, limiter=_thread_limit())
    except get_cancelled_exc_class():
        stream.cancel()  # wakes the thread, which closes the connection
        raise


async def complete(stream: ChatStream) -> Completion:
    """The whole answer, in one hop to a worker thread."""
    return await _in_thread(stream, stream.complete)


class AsyncResult(AsyncGenerator[str, None]):
    """The pieces of an answer, for `async for`. Awaiting it gives itself.

    Both ways of use work::

        async for piece in Provider.create_async_generator(...): ...
        pieces = await Provider.create_async_generator(...)
    """

    def __init__(self, stream: ChatStream) -> None:
        self._stream = stream
        self._steps = stream._steps()
        self._ready: deque[str] = deque()
        self._over = False

    def __await__(self) -> Generator[Any, Any, AsyncResult]:
        return _itself(self).__await__()

    def __aiter__(self) -> AsyncResult:
        return self

    async def __anext__(self) -> str:
        while not self._ready:
            if self._over:
                raise StopAsyncIteration
            try:
                pieces = await _in_thread(self._stream, self._steps)
            except BaseException:
                self._over = True
                raise
            if pieces is None:
                self._over = True
            else:
                self._ready.extend(pieces)
        piece = self._ready.popleft()
        self._stream._parts.append(piece)
        return piece

    async def asend(self, value: None) -> str:
        """The next piece; there is nothing that could be sent."""
        if value is not None:
            raise TypeError("an answer takes no values: asend(None) only")
        return await self.__anext__()

    async def athrow(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> str:
        """Ends the answer, and raises what was thrown."""
        await self.aclose()
        error = value if isinstance(value, BaseException) else kind() if isinstance(kind, type) else kind
        raise error.with_traceback(traceback) if traceback else error

    async def aclose(self) -> None:
        """Ends the answer and closes its connection. May be repeated, and called from another task."""
        self._over = True
        self._ready.clear()
        self._stream.close()

    def __del__(self) -> None:
        if not sys.is_finalizing():
            self._stream.close()


async def _itself(result: AsyncResult) -> AsyncResult:
    return result
