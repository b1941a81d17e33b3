"""How an answer is handed out, piece by piece, and what has been handed out so far."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from llmbridge._call.notes import Notes
from llmbridge._text import TextSoFar
from llmbridge.errors import InvalidRequest, LLMBridgeError, without_frames
from llmbridge.events import Event, Item, Refusal, Text, ToolResult

if TYPE_CHECKING:
    from llmbridge._call.pipeline import Wait

__all__ = ["EventSteps", "ObjectSteps", "Reading", "Source", "Steps", "TextSteps"]

_SHORT = 1024  # characters, up to which each look is cheap
Piece = TypeVar("Piece")


class Source(Protocol):
    """Where items come from: a call (`Pipeline`), or several in a row (`_tools.loop.ToolLoop`)."""

    started: float | None
    ended: float | None

    @property
    def readable(self) -> int | None: ...
    @property
    def left(self) -> float: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def request_id(self) -> str | None: ...
    @property
    def provider(self) -> str: ...
    @property
    def model(self) -> str: ...
    def advance(self) -> list[Item] | None: ...
    def poll(self) -> list[Item] | Wait | None: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...
    def abandon(self) -> None: ...


class Reading:
    """The one reading of an answer. No stream, only its loop holds the generators: leaving it closes the connection.

    Attributes:
        pipeline: Where the items come from.
        done: It was read to its end.
        text: The text that was handed out, of all turns.
        noted: What else was.
        first_piece_at: `time.monotonic()` when the first piece had come.
    """

    def __init__(self, pipeline: Source, keep_logprobs: bool = True) -> None:
        self.pipeline = pipeline
        self._claimed = threading.Lock()
        self.done = False
        self.text = TextSoFar()
        self.noted = Notes(self.text, pipeline, keep_logprobs)
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

    def pieces(self) -> Generator[str, None, None]:
        """The pieces of the text. Blocks. Claims at its first step: `str.join` hides what a mere `iter()` raises."""
        self.claim()
        add = self.text.add
        try:
            while (items := self._advance()) is not None:
                for item in items:
                    if item.__class__ is str:
                        add(item)
                        yield item
                    else:
                        self.noted.note(item)
                        if isinstance(item, Refusal):
                            yield item.text
        finally:
            self.pipeline.close()

    def events(self) -> Generator[Event, None, None]:
        """Everything. Blocks."""
        self.claim()
        try:
            while (items := self._advance()) is not None:
                for item in items:
                    self.noted.note(item)
                    yield Text(item) if isinstance(item, str) else item
        finally:
            self.pipeline.close()

    def objects(self, partial: Callable[[str], Any]) -> Generator[Any, None, None]:
        """What the text so far says as a growing object, whenever that has changed. Blocks."""
        self.claim()
        growing = _Growing(partial, self.noted)
        try:
            while True:
                try:
                    items = self._advance()
                except LLMBridgeError:
                    yield from growing.rest()
                    raise
                if items is None:
                    yield from growing.rest()
                    return
                yield from growing.after(items)
        finally:
            self.pipeline.close()

    def _advance(self) -> list[Item] | None:
        """One blocking step. The error that ends the reading carries what was handed out before."""
        try:
            items = self.pipeline.advance()
        except LLMBridgeError as error:
            error.partial = self.noted.partial()
            raise
        self.look_at(items)
        return items

    def look_at(self, items: list[Item] | None) -> None:
        """Takes notice of what has come and is about to be handed out."""
        self.text.fold()
        if items is None:
            self.done = True
        elif self.first_piece_at is None and any(isinstance(item, (str, Refusal)) for item in items):
            self.first_piece_at = monotonic()


class Steps(ABC, Generic[Piece]):
    """The steps of a stream that is read asynchronously: each returns the pieces that one read brought.

    Args:
        reading: Claimed at the first step.
    """

    handed_out: Callable[[Piece], None]
    """To be told of each piece that is the reader's now."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._pipeline: Source | None = None

    @abstractmethod
    def _pieces(self, items: list[Item]) -> list[Piece]:
        """What of the items is handed out."""

    def poll(self) -> list[Piece] | Wait | None:
        """A step that does not block; says what to wait for where it would have to."""
        return self._step(self._claimed().poll)

    def advance(self) -> list[Piece] | Wait | None:
        """A step that blocks, for a worker thread."""
        return self._step(self._claimed().advance)

    def readable(self) -> int:
        """The file descriptor to wait for."""
        descriptor = self._claimed().readable
        assert descriptor is not None
        return descriptor

    def left(self) -> float:
        """Seconds until the total limit."""
        return self._claimed().left

    def cancel(self) -> None:
        """Ends the call: whoever waits for it gets Cancelled, and closes the connection."""
        self._reading.pipeline.cancel()

    def abandon(self) -> None:
        """Ends the call and closes its connection: nobody waits for it any more."""
        if self._pipeline is not None:
            self._pipeline.abandon()

    def _claimed(self) -> Source:
        if self._pipeline is None:
            self._reading.claim()
            self._pipeline = self._reading.pipeline
        return self._pipeline

    def _step(self, step: Callable[[], list[Item] | Wait | None]) -> list[Piece] | Wait | None:
        try:
            outcome = step()
        except LLMBridgeError as error:
            error.partial = self._reading.noted.partial()
            raise
        if outcome is not None and not isinstance(outcome, list):
            return outcome
        self._reading.look_at(outcome)
        return None if outcome is None else self._pieces(outcome)


class TextSteps(Steps[str]):
    """The pieces of the answer's text."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading)
        self.handed_out = reading.text.add

    def _pieces(self, items: list[Item]) -> list[str]:
        pieces = [item for item in items if isinstance(item, str)]
        if len(pieces) < len(items):
            pieces = []
            ahead = 0
            for item in items:
                if isinstance(item, (str, Refusal)):
                    piece = item if isinstance(item, str) else item.text
                    pieces.append(piece)  # becomes a part of the text when it is handed out
                    ahead += len(piece)
                    if isinstance(item, Refusal):
                        self._reading.noted.refusal.append(piece)
                else:
                    self._reading.noted.note(item, ahead)
        return pieces


class EventSteps(Steps[Event]):
    """All events."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading)
        note = reading.noted.note  # no method of this object's: that would be a cycle
        self.handed_out = lambda piece: note(piece.text if isinstance(piece, Text) else piece)

    def _pieces(self, items: list[Item]) -> list[Event]:
        return [Text(item) if isinstance(item, str) else item for item in items]


class ObjectSteps(Steps[Any]):
    """The growing object that the text so far is.

    Args:
        reading: Claimed at the first step.
        partial: Makes it of the text.
    """

    def __init__(self, reading: Reading, partial: Callable[[str], Any]) -> None:
        super().__init__(reading)
        self._growing = _Growing(partial, reading.noted)
        self._failure: LLMBridgeError | None = None
        self.handed_out = _ignore

    def _pieces(self, items: list[Item]) -> list[Any]:
        return self._growing.after(items)

    def _step(self, step: Callable[[], list[Item] | Wait | None]) -> list[Any] | Wait | None:
        self._raise_failure()
        try:
            pieces = super()._step(step)
        except LLMBridgeError as error:
            rest = self._growing.rest()
            if not rest:
                raise
            self._failure = without_frames(error)
            return rest
        return (self._growing.rest() or None) if pieces is None else pieces

    def _raise_failure(self) -> None:
        """Raises the error that came behind what was returned before. No frame keeps it, or it would keep the frame."""
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure


class _Growing:
    """The object that a growing text says, made anew so seldom that all of it costs time in proportion to the text.

    Args:
        partial: Makes it of the text.
        noted: Where the text is kept.
    """

    def __init__(self, partial: Callable[[str], Any], noted: Notes) -> None:
        self._partial = partial
        self._noted = noted
        self._last: Any = None
        self._length = 0
        self._looked_at = 0

    def after(self, items: list[Item]) -> list[Any]:
        """Notes the items; the object, if they have changed it and it is time to look."""
        for item in items:
            self._noted.note(item)
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
            value = self._partial(self._noted.turn_text)
            if value is None or value == self._last:
                return []
        except RecursionError:  # nested so deeply that nobody could use it; the check at the end says so
            return []
        self._last = value
        return [value]


def _ignore(piece: object) -> None:
    """What is handed out has been noted before."""
