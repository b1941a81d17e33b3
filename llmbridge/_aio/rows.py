"""`async for` over many rows: the threads of a run do the work, the event loop only waits for what they hand out."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from anyio import Event
from anyio.lowlevel import checkpoint

from llmbridge._aio.threads import Coroutines, Loop, cancellation
from llmbridge._locks import monotonic
from llmbridge._transport.call import unwatch, watch

__all__ = ["AsyncRows", "InLoop", "Source"]

_LEFT_SECONDS = 1.0
_TURN_SECONDS = 0.001

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Source(Protocol[T_co]):
    """What hands out rows, one after the other; see `many.run.Run`."""

    def start(self) -> None:
        """Begins."""

    def next_now(self) -> T_co | None:
        """The next one; None at the end, and Empty where there is none yet."""

    def listen(self, listener: Any) -> bool:
        """Has a function called when there is one; False if there is one already."""

    def cancel(self) -> None:
        """Ends it, without waiting."""


class _Left:
    """Ends a run whose step was cancelled, if no other follows: a traceback may hold a reader that is gone."""

    def __init__(self, source: Source[Any]) -> None:
        self._source = source
        self.deadline = monotonic() + _LEFT_SECONDS

    def expire(self, now: float) -> None:
        """See `Expiring`."""
        if self.deadline <= now:
            unwatch(self)
            self._source.cancel()


class AsyncRows(AsyncIterator[T], Generic[T]):
    """The rows of a run. A step that is cancelled loses none; if no other follows within a second, the run ends."""

    def __init__(self, source: Source[T]) -> None:
        self._source = source
        self._begun = False
        self._turn_at = 0.0  # when other tasks have their next turn
        self._left: _Left | None = None

    async def __anext__(self) -> T:
        if self._left is not None:
            unwatch(self._left)
            self._left = None
        if not self._begun:
            self._begun = True
            self._source.start()
        try:
            if monotonic() >= self._turn_at:
                await checkpoint()
                self._turn_at = monotonic() + _TURN_SECONDS
            while True:
                try:
                    row = self._source.next_now()
                except Empty:
                    await self._arrival()
                    self._turn_at = monotonic() + _TURN_SECONDS
                    continue
                if row is None:
                    raise StopAsyncIteration
                return row
        except cancellation():
            self._left = _Left(self._source)
            watch(self._left)
            raise

    async def _arrival(self) -> None:
        event, loop = Event(), Loop()
        try:
            if self._source.listen(lambda: loop.soon(event.set)):
                await event.wait()
        finally:
            self._source.listen(None)

    async def aclose(self) -> None:
        """Ends the run, as dropping the iterator does."""
        self._source.cancel()

    def __del__(self) -> None:
        self._source.cancel()


class InLoop(Iterator[Any]):
    """The items of an async iterable for a thread that reads them: each is waited for in the event loop.

    Args:
        items: Made and read in the running event loop.
    """

    def __init__(self, items: AsyncIterable[Any]) -> None:
        self._items = aiter(items)
        self._coroutines = Coroutines()
        self._found: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
        self._cancel: Any = None
        self._stopped = False

    def __iter__(self) -> InLoop:
        return self

    def __next__(self) -> Any:
        if self._stopped:
            raise StopIteration
        self._cancel = self._coroutines.start([self._read])
        if self._stopped:
            self._cancel()
        item, error = self._found.get()
        if error is not None:
            raise error
        return item

    async def _read(self) -> None:
        try:
            self._found.put((await anext(self._items), None))
        except StopAsyncIteration:
            self._found.put((None, StopIteration()))
        except BaseException as error:
            self._found.put((None, error))
            raise

    def stop(self) -> None:
        """Lets the thread go that waits for an item, from any thread."""
        self._stopped = True
        self._found.put((None, StopIteration()))
        if self._cancel is not None:
            self._cancel()
