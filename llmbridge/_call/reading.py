"""Hands an answer out to one loop: as text, as events or as growing objects, each with a `View` of its own.

`for` and `async for` make the same steps: `View.advance()` blocks, `View.poll()` is for an event loop. The items come
from a `Source`, repaired already (`assembly`). `Notes` record the items that were handed out, not those that have
arrived and are still unread.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from itertools import chain
from opcode import opmap
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

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

_SHORT = 1024  # characters, up to which parsing after each read is cheap
Piece = TypeVar("Piece")
Whole = TypeVar("Whole")
Soon = Callable[[Callable[[], object]], object]  # schedules a call in the event loop, from any thread
Waits = TypeVar("Waits")  # what a step may return beside items


class Source(Protocol):
    """Where items come from: a call (`Pipeline`), or several in a row (`_tools.loop.ToolLoop`).

    Attributes:
        started, ended: `time.monotonic()` of the first step and of the end; None before.
    """

    started: float | None
    ended: float | None

    @property
    def current(self) -> Pipeline:
        """The current call, which knows the provider, the headers and the request id."""

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` or `close` was called."""

    def advance(self) -> list[Item] | None:
        """The items of the next read; None at the end. Blocks."""

    def hop(self) -> list[Item] | Wait | None:
        """`advance` in a worker thread of an event loop: returns early where the loop itself can wait."""

    def poll(self) -> list[Item] | Wait | None:
        """Like `advance`, but never blocks: returns what to wait for instead."""

    def leave(self, give_up: Callable[[], object], soon: Soon) -> None:
        """Notes that nobody waits for the next step; calls `give_up` if nobody comes back within a second."""

    def come_back(self) -> None:
        """Notes that somebody waits for the next step again."""

    def cancel(self) -> None:
        """Ends everything, from any thread; an `advance` that blocks raises Cancelled at once."""

    def close(self) -> None:
        """Like `cancel`, and closes the connection unless a reader or an event loop still uses it."""

    def abandon(self) -> None:
        """Like `close`, after the event loop has stopped watching the socket."""

    def listen(self, notes: Notes) -> None:
        """Sets the notes in which it can look up what was handed out."""

    def keep_raw(self) -> None:
        """Yields the service's own events as well from now on."""


class Reading:
    """The one reading of an answer. Only the loop holds its generators, so that leaving it closes the connection.

    Attributes:
        source: Where the items come from.
        done: Whether it was read to its end.
        failed: Whether it ended with an error.
        text: The text that was handed out, of all turns.
        noted: The other items that were handed out.
        first_piece_at: `time.monotonic()` when the first piece came.
        idle: The names of function tools that are not run, so that a text loop would not show their calls.
        begun: Called with each reading, and each run of `map`, that begins in a Jupyter kernel; see
            `notebook.interrupts`.
    """

    begun: ClassVar[Callable[[Any], object] | None] = None

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
        """Whether the answer is being read, or was."""
        return self._claimed.locked()

    @property
    def over(self) -> bool:
        """Whether nothing more will be handed out: it was read to its end, failed, was left or was cancelled."""
        return self.done or self.failed or self.source.cancelled or self.source.ended is not None

    def claim(self) -> None:
        """Reserves the answer for one reader.

        Raises:
            InvalidRequest: It is reserved already.
        """
        if not self._claimed.acquire(blocking=False):
            if self.done:
                says = "has already been read to its end: its text is in .text, and complete() returns the whole answer"
            elif self.over:
                says = "was left before its end, or failed: the text so far is in .text; call chat() for another answer"
            else:
                says = "is being read elsewhere, by another loop, thread or task: an answer can be read only once"
            raise InvalidRequest(f"this stream {says}")
        if Reading.begun is not None:
            Reading.begun(self)

    def observe(self, items: list[Item] | None) -> None:
        """Notes the end, or the time of the first piece, before items are handed out."""
        self.text.fold()
        if items is None:
            self.done = True
        elif self.first_piece_at is None and any(isinstance(item, (str, Refusal, Media)) for item in items):
            self.first_piece_at = monotonic()


if "ipykernel" in sys.modules:  # so that the stop button ends calls
    from llmbridge.notebook.interrupts import install

    Reading.begun = install()


def finished(steps: Generator[Iterable[Any], None, Whole]) -> Whole:
    """Reads the answers that a generator yields, one after the other, and returns its result.

    Args:
        steps: Yields an answer, and is resumed once that has been read; if it failed, its error is thrown in.
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
    """A generator followed by another one, which runs even if an exception has ended the first.

    Args:
        first, then: The two generators.
    """

    _first: Generator[Piece, None, None]

    def __new__(cls, first: Generator[Piece, None, None], then: Generator[Piece, None, None]) -> Loop[Piece]:
        made = super().__new__(cls, first, then)
        made._first = first
        return made

    @property
    def running(self) -> bool:
        """Whether a step of it is running."""
        return bool(self._first.gi_running)  # type: ignore[attr-defined]

    def send(self, value: None) -> Piece:
        """The next piece; only None can be sent."""
        return next(self)

    def throw(self, *error: Any) -> Piece:
        """Ends the answer by raising an error where it is read."""
        return self._first.throw(*error)

    def close(self) -> None:
        """Ends the answer and closes its connection."""
        self._first.close()


class View(ABC, Generic[Piece]):
    """The pieces of an answer for a `for` or `async for` loop. Its first step reserves the answer.

    Args:
        reading: The reading of the answer.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.source = reading.source
        self._claimed = False
        self._broken = False
        self._failure = Pending()

    @abstractmethod
    def take(self, items: list[Item]) -> Iterable[Piece]:
        """Yields the pieces of the items, and notes each item as it is handed out."""

    def rest(self) -> list[Piece]:
        """The pieces to hand out before the end, or before an error."""
        return []

    def loop(self) -> Loop[Piece]:
        """The pieces, for `for`. Reserves at its first step: `str.join` hides errors that `iter()` raises."""
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
            if self._claimed and not self._reading.done:
                self.source.close()

    def _behind(self) -> Generator[Piece, None, None]:
        """Raises if an exception from outside has broken the pieces off, which would look like their end."""
        if self._broken:
            error = Cancelled("an exception from outside, such as a signal handler's, has broken off this answer")
            error.partial = self._reading.noted.partial()
            raise error
        yield from ()

    def advance(self) -> Iterable[Piece] | None:
        """The pieces of the next read; None at the end. Blocks."""
        return self._step(self.source.advance)

    def poll(self) -> Iterable[Piece] | Wait | None:
        """Like `advance`, but never blocks: returns what to wait for instead."""
        return self._step(self.source.poll)

    def hop(self) -> Iterable[Piece] | Wait | None:
        """`advance` in a worker thread of an event loop: returns early where the loop itself can wait."""
        return self._step(self.source.hop)

    def leave(self, soon: Soon) -> None:
        """Notes that nobody waits for the next step any more, until `source.come_back` is called."""
        if self._claimed:
            self.source.leave(self.abandon, soon)

    def abandon(self) -> None:
        """Ends the call and closes its connection: nobody waits for it any more."""
        if self._claimed and not self._reading.done:
            self.source.abandon()

    def _step(self, step: Callable[[], list[Item] | Waits | None]) -> Iterable[Piece] | Waits | None:
        """The pieces of a step of the source, or what it returns instead of items.

        Raises:
            InvalidRequest: The answer is reserved for another reader.
            LLMBridgeError: The answer has failed; `.partial` holds everything that was handed out.
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
        self._reading.observe(items)
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
        """Nothing. Warns if the model has only called tools that are not run, which a loop over text does not show."""
        reading = self._reading
        called = sorted(reading.idle.intersection(call.name for call in reading.noted.tool_calls))
        if reading.done and called and not reading.noted.turn_text.strip():
            reading.idle = frozenset()
            warn_caller(
                f"the model called {', '.join(called)}, which was not run: pass run_tools=True, or answer the calls in "
                ".tool_calls yourself (run_tools=False turns this warning off)",
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
    """All events, each one of the service before those that were made from it."""

    def _step(self, step: Callable[[], list[Item] | Waits | None]) -> Iterable[Event] | Waits | None:
        if not self._claimed:
            self.source.keep_raw()
        return super()._step(step)


class ObjectView(View[Any]):
    """The object in a growing text, parsed again only so often that the total time stays linear in its length.

    Args:
        reading: The reading of the answer.
        partial: Parses the text so far.
    """

    def __init__(self, reading: Reading, partial: Callable[[str], Any]) -> None:
        super().__init__(reading)
        self._partial = partial
        self._last: Any = None
        self._length = 0
        self._parsed = 0

    def take(self, items: list[Item]) -> list[Any]:
        """Notes the items; returns the object, if it has changed and is due to be parsed."""
        for item in items:
            self._reading.noted.note(item)
            if isinstance(item, str):
                self._length += len(item)
            elif isinstance(item, Refusal):
                self._length += len(item.text)
            elif isinstance(item, ToolResult):  # another turn begins, with its own text
                self._length = self._parsed = 0
        grown = self._length - self._parsed
        return self.rest() if self._length <= _SHORT or grown * 16 >= self._parsed else []

    def rest(self) -> list[Any]:
        """The object, if it has changed since it was last parsed."""
        if self._length == self._parsed:
            return []
        self._parsed = self._length
        try:
            value = self._partial(self._reading.noted.turn_text)
            if value is None or value == self._last:
                return []
        except RecursionError:  # nested too deeply to be used: the validation at the end reports it
            return []
        self._last = value
        return [value]


# -- sync reading where an event loop runs ----------------------------------------------------------------------------

_NOTEBOOKS = ("IPython", "ipykernel", "marimo")  # their coroutines run cells, where blocking holds up no other task
_BETWEEN = frozenset(opmap[name] for name in ("CACHE", "EXTENDED_ARG", "NOP") if name in opmap)
_AWAITING = _BETWEEN.union(
    opmap[name]
    for name in (
        "CLEANUP_THROW", "END_SEND", "GET_AWAITABLE", "JUMP_BACKWARD_NO_INTERRUPT", "LOAD_COMMON_CONSTANT",
        "LOAD_CONST", "PUSH_NULL", "RESUME", "SEND", "YIELD_FROM", "YIELD_VALUE",
        # Those of a comprehension, from 3.15 on.
        "BUILD_LIST", "BUILD_MAP", "BUILD_SET", "LOAD_FAST_AND_CLEAR", "SWAP",
    )
    if name in opmap
)  # fmt: skip


def _event_loop_runs() -> bool:
    """Whether one runs in this thread; imports nothing: without its package loaded, none does."""
    running = getattr(sys.modules.get("_asyncio"), "_get_running_loop", None)
    in_trio = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)
    return (running is not None and running() is not None) or (in_trio is not None and in_trio())


def mind_event_loop() -> None:
    """`_look_at_caller`, where an event loop runs."""
    if _event_loop_runs():
        _look_at_caller()


def _look_at_caller() -> None:
    """Warns if a coroutine is about to block its event loop.

    Raises:
        InvalidRequest: It is about to await the result, or loop over it with `async for`, which would fail after the
            answer was paid for.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "llmbridge":
        frame = frame.f_back
    if frame is not None and _next_is(frame, _BETWEEN, "GET_AWAITABLE", "GET_AITER"):
        raise InvalidRequest(
            "this call blocks, and its result cannot be awaited: write `await chat(...)` without .complete(), or use "
            "acomplete(), aembed() and amodels()"
        )
    while frame is not None and not frame.f_code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):
        frame = frame.f_back
    # Code outside a function is a notebook's cell, or typed at a prompt.
    if frame is None or frame.f_code.co_name[0] == "<":
        return
    if str(frame.f_globals.get("__name__", "")).partition(".")[0] not in _NOTEBOOKS:
        warn_caller(
            "this call blocks the event loop, and with it all other tasks: in a coroutine, write `await chat(...)`, "
            "`async for`, `await aembed(...)` or `await amodels(...)`",
            RuntimeWarning,
        )


def refuse_awaited_loop(frame: FrameType) -> None:
    """Rejects `async for piece in await chat(...)`, which would fail after the answer was paid for.

    Args:
        frame: The frame of the code that awaits.

    Raises:
        InvalidRequest: The code does so.
    """
    if _next_is(frame, _AWAITING, "GET_AITER"):
        raise InvalidRequest(
            "`await` returns the whole answer, which `async for` cannot loop over: write "
            "`async for piece in chat(...)`, without await"
        )


def _next_is(frame: FrameType, passing: frozenset[int], *operations: str) -> bool:
    """Whether one of these operations comes next in the code of a frame.

    Args:
        frame: The frame, which is at a call.
        passing: Opcodes that may come in between.
        operations: Names of opcodes.
    """
    code = frame.f_code.co_code
    following = next((code[at] for at in range(frame.f_lasti + 2, len(code), 2) if code[at] not in passing), None)
    return any(opmap.get(name, -1) == following for name in operations)
