"""Runs the tools of one turn: functions in threads, coroutines in an event loop, all at the same time."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextvars import Context, copy_context
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from llmbridge._text import mended, shortened
from llmbridge.errors import InvalidOutput, harmless
from llmbridge.events import ToolCall, ToolResult

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType

    from llmbridge.options import TotalClock
    from llmbridge.tools import Tool

__all__ = ["Job", "Loop", "OwnLoop", "ToolRuns", "drop_frames", "this_thread"]

_T = TypeVar("_T")
_log = logging.getLogger("llmbridge")
_RUNNERS = (__name__, "llmbridge.tools", "llmbridge._schemas.signatures")  # their frames come above a tool's own
_NOTE = "Raised in {} (most recent call last):"
_LONGEST = 2000  # characters of an error that the model gets
_PULSE = 0.5  # seconds
_MOST_THREADS = 32

Job = Callable[[], Coroutine[Any, Any, None]]


class Loop(Protocol):
    """An event loop that runs coroutines for a thread that waits for them."""

    def start(self, jobs: Sequence[Job]) -> Callable[[], None]:
        """Begins all jobs; returns a function that cancels them, from any thread."""


class _ThisThread(threading.local):
    """State of the reading thread.

    Attributes:
        loop: The event loop that waits for this thread's step; None in sync use.
    """

    loop: Loop | None = None


this_thread = _ThisThread()


class ToolRuns:
    """The calls of one turn, begun by the first `results()`.

    A single function runs in the thread that reads, where Ctrl-C reaches it, and thread-bound objects can be used.
    Several run in daemon threads, at most 32, since the model decides how many calls there are. A single function that
    an event loop waits for also gets a thread, so that the wait can be cancelled. No locks are taken here: `cancel()`
    may be called by a garbage collection.

    Args:
        calls: The model's calls.
        tools: By name.
        total: Ends the wait; None for no limit.
    """

    def __init__(self, calls: Sequence[ToolCall], tools: Mapping[str, Tool], total: TotalClock | None = None) -> None:
        self._total = total
        self._calls = calls
        self._tools = tools
        self._outcomes: SimpleQueue[tuple[int, ToolResult | BaseException] | None] = SimpleQueue()
        self._ready: dict[int, ToolResult] = {}
        self._given = 0
        self._begun = False
        self._cancelled = False
        self._loop: Loop | None = None
        self._cancels: list[Callable[[], None]] = []

    def results(self) -> list[ToolResult]:
        """The next results in the order of the calls, as soon as there is one; [] after the last, and after `cancel()`.
        A function that runs alone is not cancelled. Blocks.

        Raises:
            BaseException: Raised by a tool, if it is not an Exception (KeyboardInterrupt, SystemExit).
            ClockExpired: The total timeout expired; a single function in the reading thread must end by itself before.
        """
        if not self._begun:
            self._begun = True
            self._begin()
        found: list[ToolResult] = []
        while not found and self._given < len(self._calls):
            outcome = self._next_outcome()
            if outcome is None or self._cancelled:
                return []
            index, result = outcome
            if isinstance(result, BaseException):
                self.cancel()
                raise result
            self._ready[index] = result
            while self._given in self._ready:
                found.append(self._ready.pop(self._given))
                self._given += 1
        return found

    def _next_outcome(self) -> tuple[int, ToolResult | BaseException] | None:
        # Ctrl-C cannot interrupt a wait that begins just after it, nor any wait on Windows: so waits are short.
        while not self._cancelled:
            left = _PULSE if self._total is None else self._total.check(", and its tools were still running then")
            with contextlib.suppress(Empty):
                return self._outcomes.get(timeout=min(_PULSE, left))
        return None

    def cancel(self) -> None:
        """Ends the wait, and the coroutines, from any thread. May be repeated."""
        self._cancelled = True
        self._outcomes.put(None)
        for cancel in list(self._cancels):
            cancel()

    def _begin(self) -> None:
        self._loop = this_thread.loop
        functions: list[tuple[int, ToolCall, Tool]] = []
        jobs: list[tuple[int, ToolCall, Job]] = []
        for index, call in enumerate(self._calls):
            tool = self._tools.get(call.name)
            if tool is None or call.problem is not None:
                self._outcomes.put((index, _impossible(call, self._tools)))
            elif tool.is_async:
                jobs.append((index, call, self._job(index, call, tool.run)))
            else:
                functions.append((index, call, tool))
        if jobs:
            self._start(jobs)
        if len(functions) == 1 and not jobs and self._loop is None:
            self._call(*functions[0])
            return
        if functions:
            self._begin_threads(functions)

    def _begin_threads(self, functions: Sequence[tuple[int, ToolCall, Tool]]) -> None:
        waiting: SimpleQueue[tuple[Context, int, ToolCall, Tool]] = SimpleQueue()
        for index, call, tool in functions:
            waiting.put((copy_context(), index, call, tool))
        for begun in range(min(len(functions), _MOST_THREADS)):
            try:
                threading.Thread(target=self._work, args=(waiting,), name="llmbridge-tool", daemon=True).start()
            except RuntimeError as error:  # the system allows no (more) threads
                for _, index, call, _ in [] if begun else _all_of(waiting):
                    self._outcomes.put((index, _failure(call, error)))
                return

    def _work(self, waiting: SimpleQueue[tuple[Context, int, ToolCall, Tool]]) -> None:
        """Runs functions until there are no more, in the current thread."""
        for context, index, call, tool in _all_of(waiting):
            if self._cancelled:
                return
            threading.current_thread().name = f"llmbridge-tool-{call.name}"
            context.run(self._call, index, call, tool)

    def _start(self, jobs: Sequence[tuple[int, ToolCall, Job]]) -> None:
        try:
            cancel = (self._loop or OwnLoop()).start([job for _, _, job in jobs])
        except RuntimeError as error:  # the system allows no thread
            for index, call, _ in jobs:
                self._outcomes.put((index, _failure(call, error)))
            return
        self._cancels.append(cancel)
        if self._cancelled:
            cancel()

    def _call(self, index: int, call: ToolCall, tool: Tool) -> None:
        """Runs a function in the current thread."""
        try:
            value = tool.run(call.arguments)
            if isinstance(value, Awaitable):  # only the result shows that a function returns a coroutine
                self._start([(index, call, self._job(index, call, lambda _: value))])
                return
            result = _success(call, value)
        except Exception as error:  # noqa: BLE001 - the model reads whatever a tool raises
            self._outcomes.put((index, _failure(call, error)))
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that reads
            self._outcomes.put((index, error))
        else:
            self._outcomes.put((index, result))

    def _job(self, index: int, call: ToolCall, run: Callable[[Mapping[str, Any]], Awaitable[Any]]) -> Job:
        """The coroutine function of an async tool. It re-raises BaseExceptions: they may be meant for the loop."""

        async def job() -> None:
            try:
                result = _success(call, await run(call.arguments))
            except Exception as error:  # noqa: BLE001 - as in _call
                self._outcomes.put((index, _failure(call, error)))
            except BaseException as error:
                self._outcomes.put((index, error))
                raise
            else:
                self._outcomes.put((index, result))

        return job


class OwnLoop:
    """A new event loop in a thread of its own, for the coroutines of a call that is read synchronously."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False

    def start(self, jobs: Sequence[Job]) -> Callable[[], None]:
        """See Loop."""
        threading.Thread(target=copy_context().run, args=(self._run, jobs), name="llmbridge-tools", daemon=True).start()
        return self._cancel

    def _run(self, jobs: Sequence[Job]) -> None:
        import asyncio

        # Exceptions here were already passed to the thread that reads.
        with contextlib.suppress(KeyboardInterrupt, SystemExit, asyncio.CancelledError):
            asyncio.run(self._all(jobs))

    async def _all(self, jobs: Sequence[Job]) -> None:
        import asyncio

        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        if not self._cancelled:
            await asyncio.gather(*(job() for job in jobs), return_exceptions=True)

    def _cancel(self) -> None:
        self._cancelled = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: everything has ended
                self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:  # once: a second cancel would interrupt the cleanup of the coroutines
            task.cancel()


def _all_of(waiting: SimpleQueue[_T]) -> Iterator[_T]:
    """The waiting items, until there are none; others may take from the queue as well."""
    while True:
        try:
            yield waiting.get_nowait()
        except Empty:
            return


def _success(call: ToolCall, value: Any) -> ToolResult:
    from llmbridge.messages import text_of

    return ToolResult(call, text_of(value), value=value)


def _impossible(call: ToolCall, tools: Mapping[str, Tool]) -> ToolResult:
    """The answer to a call that cannot be made."""
    if call.name not in tools:
        problem = f"unknown tool {call.name!r}; available: {', '.join(map(repr, tools))}"
    else:
        problem = f"{call.problem}: write one JSON object"
    return _failure(call, InvalidOutput(problem, problems=[problem]))


def _failure(call: ToolCall, error: Exception) -> ToolResult:
    """The model's view of an error: its class and message, no traceback."""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001 - str() of the error failed
        said = ""
    kind = type(error).__name__
    # Problems with the arguments are already worded for the model.
    text = said if isinstance(error, InvalidOutput) and said else f"{kind}: {said}" if said else kind
    _log.debug("the tool %s failed: %s", harmless(call.name, 200), kind)
    drop_frames(error, "a tool")
    return ToolResult(call, mended(shortened(text, _LONGEST)), True, error)


def drop_frames(error: BaseException, what: str) -> None:
    """Replaces the frames of an error of the caller's function with a note that says where it failed.

    The frames lead to those above them, which hold everything of the call, including this result. Attributes are set
    with BaseException's own methods, since an exception that is a frozen dataclass rejects them.
    """
    lines = _own_lines(error.__traceback__)
    if lines:
        with contextlib.suppress(AttributeError, TypeError):  # an exception without settable attributes
            head = _NOTE.format(what)
            note = f"{head}\n{''.join(lines).rstrip()}"
            others = [text for text in getattr(error, "__notes__", ()) if not str(text).startswith(head)]
            BaseException.__setattr__(error, "__notes__", [*others, note])  # Python 3.10 has no add_note
    seen: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = [error]
    while waiting:
        found = waiting.pop()
        if found is None or id(found) in seen:
            continue
        seen[id(found)] = found
        BaseException.with_traceback(found, None)
        waiting += (found.__context__, found.__cause__)


def _own_lines(traceback: TracebackType | None) -> list[str]:
    """The frames below llmbridge's own, as text.

    An exception that two threads raise at a time has the frames of both, mixed, so ours may come again.
    """
    from traceback import StackSummary, extract_tb, walk_tb

    while traceback is not None and str(traceback.tb_frame.f_globals.get("__name__")).startswith("llmbridge."):
        traceback = traceback.tb_next
    modules = [frame.f_globals.get("__name__") for frame, _ in walk_tb(traceback)]
    lines = extract_tb(traceback, limit=len(modules))  # overrides sys.tracebacklimit

    kept = [line for module, line in zip(modules, lines, strict=True) if module not in _RUNNERS]
    return StackSummary.from_list(kept).format()
