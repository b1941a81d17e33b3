"""Hands an answer out to one loop: as text, as events or as growing objects, a `View` for each.

`for` and `async for` make the same steps: `View.advance()` blocks, `View.poll()` is for an event loop. The items come
from a `Source`, repaired already (`assembly`). `Notes` remember those that were handed out: what has arrived and nobody
has asked for is not in there.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from itertools import chain
from opcode import opmap
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from llmbridge._call.notes import Notes
from llmbridge._locks import monotonic
from llmbridge._text import TextSoFar
from llmbridge.errors import Cancelled, InvalidRequest, LLMBridgeError, Pending, without_frames
from llmbridge.events import (
    EndOfPart,
    Event,
    Item,
    Media,
    NextCall,
    Refusal,
    Text,
    ToolResult,
)
from llmbridge.options import warn_caller
from llmbridge.secret import callers_frames_only

if TYPE_CHECKING:
    from types import FrameType

    from llmbridge._call.pipeline import Pipeline, Wait

__all__ = [
    "EventView", "ObjectView", "RawView", "Reading", "Source", "TextView", "View", "finished", "mind_event_loop",
    "refuse_awaited_loop",
]  # fmt: skip

_SHORT = 1024  # characters, up to which each look is cheap
Piece = TypeVar("Piece")
Whole = TypeVar("Whole")
Soon = Callable[[Callable[[], object]], object]  # has a function called by the event loop, from any thread
Waits = TypeVar("Waits")  # what a step may return beside items


class Source(Protocol):
    """Where items come from: a call (`Pipeline`), or several in a row (`_tools.loop.ToolLoop`)."""

    started: float | None
    ended: float | None

    @property
    def current(self) -> Pipeline: ...
    @property
    def cancelled(self) -> bool: ...
    def advance(self) -> list[Item] | None: ...
    def hop(self) -> list[Item] | Wait | None: ...
    def poll(self) -> list[Item] | Wait | None: ...
    def leave(self, give_up: Callable[[], object], soon: Soon) -> None: ...
    def come_back(self) -> None: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...
    def listen(self, notes: Notes) -> None:
        """Learns where it can look up what was handed out."""

    def keep_raw(self) -> None:
        """Gives the service's own events as well from now on."""


class Reading:
    """The one reading of an answer. No stream, only its loop holds the generators: leaving it closes the connection.

    Attributes:
        source: Where the items come from.
        done: It was read to its end.
        failed: It ended with an error.
        text: The text that was handed out, of all turns.
        noted: What else was.
        first_piece_at: `time.monotonic()` when the first piece had come.
        idle: The tools that are functions which nobody runs, where a call of them would go unseen.
    """

    def __init__(self, source: Source, keep_logprobs: bool = True) -> None:
        self.source = source
        self._claimed = threading.Lock()
        self.done = False
        self.failed = False
        self.text = TextSoFar()
        self.noted = Notes(self.text, source, keep_logprobs)
        source.listen(self.noted)
        self.first_piece_at: float | None = None
        self.idle: frozenset[str] = frozenset()

    @property
    def taken(self) -> bool:
        """Somebody reads it, or has."""
        return self._claimed.locked()

    @property
    def over(self) -> bool:
        """Nothing more will be handed out: it was read to its end, has failed, was left or was cancelled."""
        return self.done or self.failed or self.source.cancelled or self.source.ended is not None

    def claim(self) -> None:
        """Whoever comes first reads.

        Raises:
            InvalidRequest: Somebody came before.
        """
        if not self._claimed.acquire(blocking=False):
            if self.done:
                says = "has been read already, to its end: what came is in .text, and complete() gives the whole answer"
            elif self.over:
                says = "has been left before its end, or has failed: what came is in .text, and chat() asks again"
            else:
                says = "is being read elsewhere, by another loop, thread or task: an answer comes once"
            raise InvalidRequest(f"this stream {says}")

    def look_at(self, items: list[Item] | None) -> None:
        """Takes notice of what has come and is about to be handed out."""
        self.text.fold()
        if items is None:
            self.done = True
        elif self.first_piece_at is None and any(isinstance(item, (str, Refusal, Media)) for item in items):
            self.first_piece_at = monotonic()


def finished(steps: Generator[Iterable[Any], None, Whole]) -> Whole:
    """What a generator returns that has answers read, one after the other.

    Args:
        steps: It gives an answer; when that has been read, it goes on, or gets the error that came in its place.
    """
    failure = Pending()
    while True:
        try:
            answer = next(steps) if failure.error is None else steps.throw(failure.taken())
        except StopIteration as end:
            whole: Whole = end.value
            return whole
        try:
            for _ in answer:
                continue
        except LLMBridgeError as error:
            failure.error = without_frames(error)


class Loop(chain[Piece], Generator[Piece, None, None]):
    """A generator, and another one behind it, which is asked for more even if the first was ended by an exception.

    Args:
        first, then: Both.
    """

    _first: Generator[Piece, None, None]

    def __new__(cls, first: Generator[Piece, None, None], then: Generator[Piece, None, None]) -> Loop[Piece]:
        made = super().__new__(cls, first, then)
        made._first = first
        return made

    @property
    def running(self) -> bool:
        """Whether somebody is in the middle of it."""
        return bool(self._first.gi_running)  # type: ignore[attr-defined]

    def send(self, value: None) -> Piece:
        """The next piece; there is nothing that could be sent."""
        return next(self)

    def throw(self, *error: Any) -> Piece:
        """Raises an error where the answer is read, which ends it."""
        return self._first.throw(*error)

    def close(self) -> None:
        """Ends the answer and closes its connection."""
        self._first.close()


class View(ABC, Generic[Piece]):
    """What a loop gets of an answer, whether it is a `for` or an `async for`. The first step claims the reading.

    Args:
        reading: Of the answer.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.source = reading.source
        self._claimed = False
        self._broken = False
        self._failure = Pending()

    @abstractmethod
    def take(self, items: list[Item]) -> Iterable[Piece]:
        """Notes the items as they are reached, and gives the pieces that are handed out."""

    def rest(self) -> list[Piece]:
        """What is still to be handed out before the end, or before an error."""
        return []

    def loop(self) -> Loop[Piece]:
        """The pieces, for `for`. Claims at its first step: `str.join` hides what a mere `iter()` raises."""
        return Loop(self._pieces(), self._behind())

    def _pieces(self) -> Generator[Piece, None, None]:
        if not self._reading.taken and _event_loop_runs():
            _look_at_caller()
        try:
            while (pieces := self.advance()) is not None:
                yield from pieces
        except (LLMBridgeError, GeneratorExit):
            raise
        except BaseException:
            self._broken = True
            raise
        finally:
            if self._claimed:
                self.source.close()

    def _behind(self) -> Generator[Piece, None, None]:
        """Where an exception from elsewhere has broken the pieces off: else that would look like their end."""
        if self._broken:
            error = Cancelled("an exception from outside, of a signal handler say, has broken this answer off")
            error.partial = self._reading.noted.partial()
            raise error
        yield from ()

    def advance(self) -> Iterable[Piece] | None:
        """The pieces of the next read; None at the end. Blocks."""
        return self._step(self.source.advance)

    def poll(self) -> Iterable[Piece] | Wait | None:
        """Like `advance`, without ever blocking: says what to wait for where it would have to."""
        return self._step(self.source.poll)

    def hop(self) -> Iterable[Piece] | Wait | None:
        """`advance` in a worker thread of an event loop: returns where the loop can wait better."""
        return self._step(self.source.hop)

    def leave(self, soon: Soon) -> None:
        """Nobody waits for the next step any more, though somebody may come back, and says so by `source.come_back`."""
        if self._claimed:
            self.source.leave(self.abandon, soon)

    def abandon(self) -> None:
        """Ends the call and closes its connection: nobody waits for it any more."""
        if self._claimed:
            self.source.abandon()

    def _step(self, step: Callable[[], list[Item] | Waits | None]) -> Iterable[Piece] | Waits | None:
        """The pieces that a step of the source brings, or what it returns in place of items.

        Raises:
            InvalidRequest: Somebody else reads, or has read.
            LLMBridgeError: The answer ends with it; it carries what was handed out, the rest included.
        """
        if not self._claimed:
            self._reading.claim()
            self._claimed = True
        if self._failure.error is not None:
            raise self._failure.taken()
        try:
            items = step()
        except LLMBridgeError as error:
            error.partial = self._reading.noted.partial()
            self._reading.failed = True
            rest = self.rest()
            if not rest:
                raise
            self._failure.error = without_frames(error)
            return rest
        except BaseException as error:
            callers_frames_only(error)
            raise error  # noqa: TRY201 - as in `discreet`
        if items is not None and not isinstance(items, list):
            return items
        self._reading.look_at(items)
        return self.take(items) if items is not None else (self.rest() or None)


class TextView(View[str]):
    """The pieces of the answer's text."""

    def take(self, items: list[Item]) -> Iterable[str]:
        """See View."""
        add = self._reading.text.add
        for item in items:
            if item.__class__ is str:
                add(item)
                yield item
            else:
                self._reading.noted.note(item)
                if isinstance(item, Refusal):
                    yield item.text

    def rest(self) -> list[str]:
        """Nothing; who reads text alone, and gets none, is told here of calls in vain."""
        reading = self._reading
        called = sorted(reading.idle.intersection(call.name for call in reading.noted.tool_calls))
        if reading.done and called and not reading.noted.turn_text.strip():
            reading.idle = frozenset()
            warn_caller(
                f"the model has called {', '.join(called)}, and nobody runs it: pass run_tools=True, or answer the "
                "calls in .tool_calls yourself (run_tools=False says that you do)",
                RuntimeWarning,
            )
        return []


class EventView(View[Event]):
    """All events."""

    def take(self, items: list[Item]) -> Iterable[Event]:
        """See View."""
        for item in items:
            self._reading.noted.note(item)
            if isinstance(item, str):
                yield Text(item)
            elif not isinstance(item, (EndOfPart, NextCall)):
                yield item  # type: ignore[misc]  # the assembly lets no other kind of item pass


class RawView(EventView):
    """All events, the service's own before those that are made of it."""

    def _step(self, step: Callable[[], list[Item] | Waits | None]) -> Iterable[Event] | Waits | None:
        if not self._claimed:
            self.source.keep_raw()
        return super()._step(step)


class ObjectView(View[Any]):
    """The object that a growing text says, made anew so seldom that all of it costs time in proportion to the text.

    Args:
        reading: Of the answer.
        partial: Makes the object of the text.
    """

    def __init__(self, reading: Reading, partial: Callable[[str], Any]) -> None:
        super().__init__(reading)
        self._partial = partial
        self._last: Any = None
        self._length = 0
        self._looked_at = 0

    def take(self, items: list[Item]) -> list[Any]:
        """Notes the items; the object, if they have changed it and it is time to look."""
        for item in items:
            self._reading.noted.note(item)
            if isinstance(item, str):
                self._length += len(item)
            elif isinstance(item, Refusal):
                self._length += len(item.text)
            elif isinstance(item, ToolResult):  # another turn, with a text of its own
                self._length = self._looked_at = 0
        grown = self._length - self._looked_at
        return self.rest() if self._length <= _SHORT or grown * 16 >= self._looked_at else []

    def rest(self) -> list[Any]:
        """The object, if anything has changed it since the last look."""
        if self._length == self._looked_at:
            return []
        self._looked_at = self._length
        try:
            value = self._partial(self._reading.noted.turn_text)
            if value is None or value == self._last:
                return []
        except RecursionError:  # nested so deeply that nobody could use it; the check at the end says so
            return []
        self._last = value
        return [value]


# -- sync reading where an event loop runs ----------------------------------------------------------------------------

_NOTEBOOKS = ("IPython", "ipykernel", "marimo")  # whose coroutines run cells, where nobody else waits
_BETWEEN = frozenset(opmap[name] for name in ("CACHE", "EXTENDED_ARG", "NOP") if name in opmap)
_AWAITING = _BETWEEN.union(
    opmap[name]
    for name in (
        "CLEANUP_THROW", "END_SEND", "GET_AWAITABLE", "JUMP_BACKWARD_NO_INTERRUPT", "LOAD_COMMON_CONSTANT",
        "LOAD_CONST", "PUSH_NULL", "RESUME", "SEND", "YIELD_FROM", "YIELD_VALUE",
        # Of a comprehension, from 3.15 on.
        "BUILD_LIST", "BUILD_MAP", "BUILD_SET", "LOAD_FAST_AND_CLEAR", "SWAP",
    )
    if name in opmap
)  # fmt: skip


def _event_loop_runs() -> bool:
    """Whether one runs in this thread; of a package that nobody has loaded, none does."""
    running = getattr(sys.modules.get("_asyncio"), "_get_running_loop", None)
    in_trio = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    return (running is not None and running() is not None) or (in_trio is not None and in_trio())


def mind_event_loop() -> None:
    """`_look_at_caller`, where an event loop runs."""
    if _event_loop_runs():
        _look_at_caller()


def _look_at_caller() -> None:
    """Warns that a coroutine is about to block its event loop.

    Raises:
        InvalidRequest: It awaits what comes back, or loops over it by `async for`, which would fail once it is paid.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "llmbridge":
        frame = frame.f_back
    if frame is not None and _goes_on_with(frame, _BETWEEN, "GET_AWAITABLE", "GET_AITER"):
        raise InvalidRequest(
            "this call blocks, and there is nothing to await in what it returns: write `await chat(...)` without "
            ".complete(), or use acomplete(), aembed() and amodels()"
        )
    while frame is not None and not frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
        frame = frame.f_back
    # Code that is no function is a cell's, or typed in.
    if frame is None or frame.f_code.co_name[0] == "<":
        return
    if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _NOTEBOOKS:
        warn_caller(
            "this call blocks the event loop, and with it all other tasks: in a coroutine, write `await chat(...)`, "
            "`async for`, `await aembed(...)` or `await amodels(...)`",
            RuntimeWarning,
        )


def refuse_awaited_loop(frame: FrameType) -> None:
    """Refuses `async for piece in await chat(...)`, which would fail once the answer was paid for.

    Args:
        frame: Of the code that awaits.

    Raises:
        InvalidRequest: It does so.
    """
    if _goes_on_with(frame, _AWAITING, "GET_AITER"):
        raise InvalidRequest(
            "`await` gives the whole answer, over which `async for` cannot loop: write `async for piece in chat(...)`, "
            "without await"
        )


def _goes_on_with(frame: FrameType, passing: frozenset[int], *operations: str) -> bool:
    """Whether the code of a frame does one of these things next.

    Args:
        frame: It is at a call.
        passing: What may stand between.
        operations: By the names that Python has for them.
    """
    code = frame.f_code.co_code
    following = next((code[at] for at in range(frame.f_lasti + 2, len(code), 2) if code[at] not in passing), None)
    return any(opmap.get(name, -1) == following for name in operations)
