"""Hands an answer out to one loop: as text, as events or as growing objects, a `View` for each.

`for` and `async for` make the same steps: `View.advance()` blocks, `View.poll()` is for an event loop. The items come
from a `Source`, repaired already (`assembly`). `Notes` remembers those that were handed out, for the attributes of the
stream, its completion, and an error: what has arrived and was not asked for is not in there.
"""

from __future__ import annotations

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from llmbridge._text import TextSoFar
from llmbridge.errors import InvalidRequest, LLMBridgeError, Pending, without_frames
from llmbridge.events import (
    Event,
    Finish,
    Item,
    Logprobs,
    OtherChoice,
    Partial,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbridge.messages import Message

if TYPE_CHECKING:
    from llmbridge._call.pipeline import Pipeline, Wait

__all__ = ["EventView", "Notes", "ObjectView", "Reading", "Source", "TextView", "View"]

_SHORT = 1024  # characters, up to which each look is cheap
Piece = TypeVar("Piece")
Waits = TypeVar("Waits")  # what a step may return beside items


class Source(Protocol):
    """Where items come from: a call (`Pipeline`), or several in a row (`_tools.loop.ToolLoop`)."""

    started: float | None
    ended: float | None

    @property
    def current(self) -> Pipeline: ...
    def advance(self) -> list[Item] | None: ...
    def poll(self) -> list[Item] | Wait | None: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class Reading:
    """The one reading of an answer. No stream, only its loop holds the generators: leaving it closes the connection.

    Attributes:
        source: Where the items come from.
        done: It was read to its end.
        text: The text that was handed out, of all turns.
        noted: What else was.
        first_piece_at: `time.monotonic()` when the first piece had come.
    """

    def __init__(self, source: Source, keep_logprobs: bool = True) -> None:
        self.source = source
        self._claimed = threading.Lock()
        self.done = False
        self.text = TextSoFar()
        self.noted = Notes(self.text, source, keep_logprobs)
        self.first_piece_at: float | None = None

    @property
    def taken(self) -> bool:
        """Somebody reads it, or has."""
        return self._claimed.locked()

    def claim(self) -> None:
        """Whoever comes first reads.

        Raises:
            InvalidRequest: Somebody came before.
        """
        if not self._claimed.acquire(blocking=False):
            raise InvalidRequest(
                "this stream has been read already, somebody reads it, or its loop was left early: an answer comes "
                "once, what was handed out of it is in .text"
            )

    def look_at(self, items: list[Item] | None) -> None:
        """Takes notice of what has come and is about to be handed out."""
        self.text.fold()
        if items is None:
            self.done = True
        elif self.first_piece_at is None and any(isinstance(item, (str, Refusal)) for item in items):
            self.first_piece_at = monotonic()


class View(ABC, Generic[Piece]):
    """What a loop gets of an answer, whether it is a `for` or an `async for`. The first step claims the reading.

    Args:
        reading: Of the answer.
    """

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self.source = reading.source
        self._claimed = False
        self._failure = Pending()

    @abstractmethod
    def take(self, items: list[Item]) -> Iterable[Piece]:
        """Notes the items as they are reached, and gives the pieces that are handed out."""

    def rest(self) -> list[Piece]:
        """What is still to be handed out before the end, or before an error."""
        return []

    def loop(self) -> Generator[Piece, None, None]:
        """The pieces, for `for`. Claims at its first step: `str.join` hides what a mere `iter()` raises."""
        try:
            while (pieces := self.advance()) is not None:
                yield from pieces
        finally:
            if self._claimed:
                self.source.close()

    def advance(self) -> Iterable[Piece] | None:
        """The pieces of the next read; None at the end. Blocks."""
        return self._step(self.source.advance)

    def poll(self) -> Iterable[Piece] | Wait | None:
        """Like `advance`, without ever blocking: says what to wait for where it would have to."""
        return self._step(self.source.poll)

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
            rest = self.rest()
            if not rest:
                raise
            self._failure.error = without_frames(error)
            return rest
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


class EventView(View[Event]):
    """All events."""

    def take(self, items: list[Item]) -> Iterable[Event]:
        """See View."""
        for item in items:
            self._reading.noted.note(item)
            yield Text(item) if isinstance(item, str) else item


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


class Notes:
    """What was handed out so far. Where tools are run, a turn ends with the first result.

    Args:
        text: The text of all turns; whoever hands out plain text adds to it directly.
        source: Says who gives the answer; proofs of reasoning mean something to that service alone.
        keep_logprobs: Whether somebody has asked for them: a service may send more of them than text unasked.

    Attributes:
        turns: The messages of the turns that are over, results of tools included.
        tool_calls: Of the last turn.
        refusal: The pieces of the words of refusal, of the last turn.
        logprobs: All entries of the last turn, if they are kept.
        finish: The last Finish; None again while tools are run.
        usage: Of all turns together.
    """

    def __init__(self, text: TextSoFar, source: Source | None = None, keep_logprobs: bool = True) -> None:
        self._keep_logprobs = keep_logprobs
        self.text = text
        self.source = source
        self.reasoning = TextSoFar()
        self.turns: list[Message] = []
        self.tool_calls: list[ToolCall] = []
        self.refusal: list[str] = []
        self.logprobs: list[Any] = []
        self.finish: Finish | None = None
        self._usage: Usage | None = None
        self._earlier_usage: Usage | None = None
        self._blocks: list[tuple[int, Reasoning]] = []  # with the places where they stand in the text
        self._thought = TextSoFar()
        self._thinking = False
        self._thought_at = 0
        self._turn_at = 0
        self._others: dict[int, Notes] = {}

    @property
    def usage(self) -> Usage | None:
        """The tokens of all turns."""
        return self._usage if self._earlier_usage is None else self._earlier_usage.plus(self._usage)

    @property
    def turn_text(self) -> str:
        """The text of the last turn."""
        return str(self.text)[self._turn_at :]

    @property
    def others(self) -> dict[int, Notes]:
        """The notes of the choices beside the first, by index."""
        return dict(sorted(self._others.items()))

    def note(self, item: Item | Text) -> None:
        """Keeps what is handed out."""
        if isinstance(item, (str, Text)):
            self.text.add(str(item))
        elif isinstance(item, Reasoning):
            self._note_reasoning(item)
        elif isinstance(item, Usage):
            self._usage = item
        elif isinstance(item, Finish):
            self.finish = item
        elif isinstance(item, ToolCall):
            self.tool_calls.append(item)
        elif isinstance(item, ToolResult):
            self._note_result(item)
        elif isinstance(item, Refusal):
            self.refusal.append(item.text)
            self.text.add(item.text)
        elif isinstance(item, Logprobs):
            if self._keep_logprobs:
                self.logprobs += item.raw
        elif isinstance(item, OtherChoice):
            self._note_other(item)

    def _note_other(self, item: OtherChoice) -> None:
        other = self._others.get(item.index)
        if other is None:
            other = self._others[item.index] = Notes(TextSoFar(), keep_logprobs=self._keep_logprobs)
        other.note(item.event)
        other.text.fold()

    def _note_reasoning(self, item: Reasoning) -> None:
        self.reasoning.add(item.text)
        self.reasoning.fold()
        place = self.text.length
        if item.text:
            if place != self._thought_at:  # text came in between
                self._end_block()
            self._thought.add(item.text)
            self._thought.fold()
            self._thinking = True
        if not self._thinking or item.text:
            self._thought_at = place
        if item.signature:  # of the thoughts that wait for one, however late it comes
            self._end_block(item.signature)
        if item.redacted:
            self._end_block()
            self._blocks.append((place, Reasoning("", None, item.redacted)))

    def _end_block(self, signature: str | None = None) -> None:
        text = str(self._thought)
        self._thought, self._thinking = TextSoFar(), False
        if text or signature:
            self._blocks.append((self._thought_at, Reasoning(text, signature)))

    def _note_result(self, result: ToolResult) -> None:
        if self.tool_calls or not self.turns:
            self.turns.append(self.message())
            self._earlier_usage = self.usage
            self._usage = None
            self.tool_calls = []
            self.refusal = []
            self.logprobs = []
            self.finish = None
            self._blocks = []
            self._others = {}
            self._turn_at = self.text.length
        from llmbridge.messages import result_message

        self.turns.append(result_message(result))

    def message(self) -> Message:
        """The last turn as a message, with everything that a service may want back, in the order in which it came.

        Calls alone have lost their place among the rest: they follow it.
        """
        self._end_block()
        text = self.turn_text
        by = {"by": self.source.current.provider} if self.source is not None else {}
        extra = {"tool_calls": [_as_given(call, by) for call in self.tool_calls]} if self.tool_calls else {}
        if self._blocks:
            return Message("assistant", self._parts(text, by), extra)
        return Message("assistant", text or (None if extra else ""), extra)

    def _parts(self, text: str, by: dict[str, str]) -> list[dict[str, Any]]:
        """Text and reasoning, each in its place: proofs of reasoning hold for that place only."""
        parts: list[dict[str, Any]] = []
        said = 0
        for at, block in [*self._blocks, (self._turn_at + len(text), None)]:
            if piece := text[said : at - self._turn_at]:
                parts.append({"type": "text", "text": piece})
                said = at - self._turn_at
            if block is not None:
                parts.append(_as_part(block, by))
        return parts

    def all_turns(self) -> list[Message]:
        """The messages of all turns, for another question; without the last one where it says nothing."""
        last = self.message()
        return [*self.turns, last] if last.content or last.extra else [*self.turns]

    @property
    def broken_off(self) -> bool:
        """Whether the answer is no try at what was asked: it was refused, filtered, or cut off."""
        return bool(self.refusal) or (self.finish is not None and self.finish.reason in ("length", "content_filter"))

    def partial(self) -> Partial:
        """What came before an error."""
        partial = Partial(str(self.text))
        partial.reasoning = str(self.reasoning)
        partial.tool_calls = tuple(self.tool_calls)
        partial.usage = self.usage
        partial.turns = tuple(self.turns)
        return partial


def _as_part(block: Reasoning, by: dict[str, str]) -> dict[str, Any]:
    if block.redacted:
        return {"type": "reasoning", "redacted": block.redacted, **by}
    signed = {"signature": block.signature, **by} if block.signature else {}
    return {"type": "reasoning", "text": block.text, **signed}


def _as_given(call: ToolCall, by: dict[str, str]) -> dict[str, Any]:
    signed = {"signature": call.signature, **by} if call.signature else {}
    function = {"name": call.name, "arguments": _sendable(call)}
    return {"id": call.id, "type": "function", "function": function, **signed}


def _sendable(call: ToolCall) -> str:
    """The arguments as the model wrote them where that is a JSON object, which services insist on."""
    try:
        if isinstance(json.loads(call.text), dict) and call.problem is None:
            return call.text
    except (ValueError, RecursionError):
        pass  # cut off, or with raw control characters: what could be read of it is sent
    return json.dumps(dict(call.arguments), ensure_ascii=False)
