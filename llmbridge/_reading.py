"""How an answer is handed out, piece by piece, and what has been handed out so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

from llmbridge._text import TextSoFar
from llmbridge.errors import InvalidRequest, LLMBridgeError
from llmbridge.events import Event, Finish, Item, Reasoning, Text, Usage

if TYPE_CHECKING:
    from llmbridge._pipeline import Pipeline, Wait

__all__ = ["EventSteps", "Reading", "Steps", "TextSteps"]

Piece = TypeVar("Piece")


class Reading:
    """The one reading of an answer. No stream, only its loop holds the generators: leaving it closes the connection.

    Attributes:
        pipeline: Where the items come from.
        taken: Somebody reads it, or has.
        done: It was read to its end.
        text, reasoning, usage, finish: What was handed out.
        first_piece_at: `time.monotonic()` when the first piece had come.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.taken = False
        self.done = False
        self.text = TextSoFar()
        self.reasoning = TextSoFar()
        self.usage: Usage | None = None
        self.finish: Finish | None = None
        self.first_piece_at: float | None = None

    def claim(self) -> None:
        """Whoever comes first reads.

        Raises:
            InvalidRequest: Somebody came before.
        """
        if self.taken:
            raise InvalidRequest(
                "this stream has been read already, or its loop was left early: an answer comes once, "
                "what was handed out of it is in .text"
            )
        self.taken = True

    def pieces(self) -> Generator[str, None, None]:
        """The pieces of the text. Blocks."""
        add = self.text.add
        try:
            while (items := self._advance()) is not None:
                for item in items:
                    if item.__class__ is str:
                        add(item)
                        yield item
                    else:
                        self.note(item)
        finally:
            self.pipeline.close()

    def events(self) -> Generator[Event, None, None]:
        """Everything. Blocks."""
        try:
            while (items := self._advance()) is not None:
                for item in items:
                    self.note(item)
                    yield Text(item) if isinstance(item, str) else item
        finally:
            self.pipeline.close()

    def _advance(self) -> list[Item] | None:
        """One blocking step. The error that ends the reading carries the text that was handed out before."""
        try:
            items = self.pipeline.advance()
        except LLMBridgeError as error:
            error.partial = str(self.text)
            raise
        self.look_at(items)
        return items

    def look_at(self, items: list[Item] | None) -> None:
        """Takes notice of what has come and is about to be handed out."""
        self.text.fold()
        self.reasoning.fold()
        if items is None:
            self.done = True
        elif self.first_piece_at is None and any(isinstance(item, str) for item in items):
            self.first_piece_at = monotonic()

    def note(self, item: Item) -> None:
        """Keeps what is handed out."""
        if isinstance(item, str):
            self.text.add(item)
        elif isinstance(item, Reasoning):
            self.reasoning.add(item.text)
        elif isinstance(item, Usage):
            self.usage = item
        else:
            self.finish = item


class Steps(ABC, Generic[Piece]):
    """The steps of a stream that is read asynchronously: each returns the pieces that one read brought.

    Args:
        reading: Claimed at the first step.
    """

    handed_out: Callable[[Piece], None]
    """To be told of each piece that is the reader's now."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._pipeline: Pipeline | None = None

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

    def cancel(self) -> None:
        """Ends the call: whoever waits for it gets Cancelled, and closes the connection."""
        self._reading.pipeline.cancel()

    def abandon(self) -> None:
        """Ends the call and closes its connection: nobody waits for it any more."""
        if self._pipeline is not None:
            self._pipeline.abandon()

    def _claimed(self) -> Pipeline:
        if self._pipeline is None:
            self._reading.claim()
            self._pipeline = self._reading.pipeline
        return self._pipeline

    def _step(self, step: Callable[[], list[Item] | Wait | None]) -> list[Piece] | Wait | None:
        try:
            outcome = step()
        except LLMBridgeError as error:
            error.partial = str(self._reading.text)
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
            for item in items:
                if not isinstance(item, str):
                    self._reading.note(item)
        return pieces


class EventSteps(Steps[Event]):
    """All events."""

    def __init__(self, reading: Reading) -> None:
        super().__init__(reading)
        note = reading.note  # no method of this object's: that would be a cycle
        self.handed_out = lambda piece: note(piece.text if isinstance(piece, Text) else piece)

    def _pieces(self, items: list[Item]) -> list[Event]:
        return [Text(item) if isinstance(item, str) else item for item in items]
