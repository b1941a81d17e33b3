"""`ChatStream`: one answer, as one object for `for`, `with`, `async for`, `async with` and `await`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llmbridge.errors import InvalidRequest, LLMBridgeError
from llmbridge.events import Event, Finish, FinishReason, Item, Reasoning, Text, Usage

if TYPE_CHECKING:
    from types import TracebackType

    from llmbridge._aio import AsyncResult
    from llmbridge._pipeline import Pipeline, Wait

__all__ = ["ChatStream", "Completion", "EventStream", "Steps"]

Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole answer. `str()` of it is its text.

    Args:
        text: The answer.
        reasoning: What the model thought before, if the service shows it.
        finish_reason: stop, length, tool_calls, content_filter, error or other; None if the service gave none.
        raw_finish_reason: The service's own word for it.
        usage: Counted tokens, or None if the service did not say.
        model: The model that was asked.
        provider: The provider's name.
        headers: Of the answer, names in lower case.
        request_id: The service's name for the request.
        first_piece_seconds: From the start of the call to its first piece; None if there was none.
        total_seconds: From the start of the call to its end.
    """

    text: str
    reasoning: str = ""
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    usage: Usage | None = None
    model: str = ""
    provider: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    request_id: str | None = None
    first_piece_seconds: float | None = None
    total_seconds: float | None = None

    def __str__(self) -> str:
        return self.text


class ChatStream:
    """One answer, live. Nothing is sent before the first piece is asked for.

    Iterate over it for the pieces of the text, over `.events()` for everything, or call `.complete()`; in async code
    use `async for`, or `await` it for the `Completion`. It is read once. Leaving the loop early (`break`, an exception)
    closes the connection. What was handed out so far is always in `.text` and the attributes beside it.

    Raises, while iterating:
        LLMBridgeError: See `llmbridge.errors`; its `.partial` is the text handed out before.

    Example:
        >>> from llmbridge import chat
        >>> stream = chat("Hello", model="demo")
        >>> "".join(stream) == stream.text
        True
        >>> stream.finish_reason
        'stop'
    """

    def __init__(self, pipeline: Pipeline, provider: str, model: str) -> None:
        self._pipeline = pipeline
        self._generator: Generator[str, None, None] | None = None
        self._taken = False
        self._done = False
        self._parts: list[str] = []
        self._reasoning: list[str] = []
        self._finish: Finish | None = None
        self._first_piece_at: float | None = None
        self.provider = provider
        self.model = model
        self.usage: Usage | None = None

    def __repr__(self) -> str:
        state = "finished" if self._done else "open" if self._taken else "not started"
        return f"<ChatStream {self.provider}:{self.model} {state}, {len(self.text)} characters>"

    # -- reading -----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        # The loop alone holds the generator: leaving it closes the connection, though the stream lives on.
        generator, self._generator = self._generator, None
        return generator or self._pieces(self._claim())

    def __next__(self) -> str:
        if self._generator is None:
            self._generator = self._pieces(self._claim())
        return next(self._generator)

    def events(self) -> EventStream:
        """Everything that the stream says, in order: Text, Reasoning, Usage, Finish; for `for` and `async for`."""
        return EventStream(self)

    def complete(self) -> Completion:
        """The whole answer; reads what has not been read yet.

        Raises:
            LLMBridgeError: The answer did not come to its end; `.partial` holds what came.
        """
        if not self._done:
            generator, self._generator = self._generator, None
            for _ in generator or self._pieces(self._claim()):
                pass
        return self._completion()

    def _claim(self) -> Pipeline:
        if self._taken:
            raise InvalidRequest("this stream has been read already: an answer comes once, its text is in .text")
        self._taken = True
        return self._pipeline

    def _pieces(self, pipeline: Pipeline) -> Generator[str, None, None]:
        add = self._parts.append
        try:
            while (items := self._advance(pipeline)) is not None:
                for item in items:
                    if item.__class__ is str:
                        add(item)
                        yield item
                    else:
                        self._note(item)
        finally:
            pipeline.close()

    def _events(self, pipeline: Pipeline) -> Generator[Event, None, None]:
        try:
            while (items := self._advance(pipeline)) is not None:
                for item in items:
                    self._note(item)
                    yield Text(item) if isinstance(item, str) else item
        finally:
            pipeline.close()

    def _advance(self, pipeline: Pipeline) -> list[Item] | None:
        """One blocking step. The error that ends the stream carries the text that was handed out before."""
        try:
            items = pipeline.advance()
        except LLMBridgeError as error:
            error.partial = self.text
            raise
        self._look_at(items)
        return items

    def _look_at(self, items: list[Item] | None) -> None:
        if items is None:
            self._done = True
        elif self._first_piece_at is None and any(isinstance(item, str) for item in items):
            self._first_piece_at = monotonic()

    def _note(self, item: Item) -> None:
        """Keeps what was handed out."""
        if isinstance(item, str):
            self._parts.append(item)
        elif isinstance(item, Reasoning):
            self._reasoning.append(item.text)
        elif isinstance(item, Usage):
            self.usage = item
        else:
            self._finish = item

    def _completion(self) -> Completion:
        return Completion(
            text=self.text,
            reasoning=self.reasoning,
            finish_reason=self.finish_reason,
            raw_finish_reason=self._finish.raw if self._finish else None,
            usage=self.usage,
            model=self.model,
            provider=self.provider,
            headers=dict(self.headers),
            request_id=self.request_id,
            first_piece_seconds=self.first_piece_seconds,
            total_seconds=self.total_seconds,
        )

    # -- what is known so far ----------------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The text handed out so far."""
        return "".join(self._parts)

    @property
    def reasoning(self) -> str:
        """The reasoning that came so far, if the service shows it."""
        return "".join(self._reasoning)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None before, and if the service does not say."""
        return self._finish.reason if self._finish else None

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, names in lower case; empty before the first piece."""
        return self._pipeline.headers

    @property
    def request_id(self) -> str | None:
        """The service's name for the request, to quote to its support."""
        return self._pipeline.request_id

    @property
    def first_piece_seconds(self) -> float | None:
        """Seconds from the start of the call to the first piece."""
        return self._since_start(self._first_piece_at)

    @property
    def total_seconds(self) -> float | None:
        """Seconds from the start of the call to its end, or to now."""
        return self._since_start(self._pipeline.ended or monotonic())

    def _since_start(self, moment: float | None) -> float | None:
        started = self._pipeline.started
        return None if moment is None or started is None else moment - started

    # -- ending ------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ends the call at once, from any thread; who is blocked in it gets `Cancelled`. May be repeated."""
        self._pipeline.cancel()

    def close(self) -> None:
        """Ends the call and closes its connection, from any thread. May be repeated; after the end it does nothing."""
        self._pipeline.close()

    def __enter__(self) -> ChatStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- async: the same, in worker threads --------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[str]:
        return self._async_pieces()

    def _async_pieces(self) -> AsyncResult[str]:
        from llmbridge._aio import AsyncResult

        return AsyncResult(TextSteps(self))

    def __await__(self) -> Generator[Any, Any, Completion]:
        from llmbridge._aio import complete

        return complete(self).__await__()

    async def __aenter__(self) -> ChatStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class EventStream:
    """The events of an answer, for `for` and `async for`; read once."""

    def __init__(self, stream: ChatStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[Event]:
        return self._stream._events(self._stream._claim())

    def __aiter__(self) -> AsyncIterator[Event]:
        from llmbridge._aio import AsyncResult

        return AsyncResult(EventSteps(self._stream))


class Steps(ABC, Generic[Piece]):
    """The steps of a stream that is read asynchronously: each returns the pieces that one read brought.

    Args:
        stream: Claimed at the first step.
    """

    def __init__(self, stream: ChatStream) -> None:
        self._stream = stream
        self._pipeline: Pipeline | None = None

    @abstractmethod
    def handed_out(self, piece: Piece) -> None:
        """This piece is the reader's now."""

    @abstractmethod
    def _pieces(self, items: list[Item]) -> list[Piece]:
        """What of the items is handed out."""

    def poll(self) -> list[Piece] | Wait | None:
        """A step that does not block; says what to wait for where it would have to."""
        return self._step(self._claimed().poll)

    def advance(self) -> list[Piece] | Wait | None:
        """A step that blocks, for a worker thread."""
        return self._step(self._claimed().advance_in_thread)

    def readable(self) -> int:
        """The file descriptor to wait for."""
        descriptor = self._claimed().readable
        assert descriptor is not None
        return descriptor

    def cancel(self) -> None:
        """Ends the call: whoever waits for it gets Cancelled, and closes the connection."""
        self._stream.cancel()

    def abandon(self) -> None:
        """Ends the call and closes its connection: nobody waits for it any more."""
        if self._pipeline is not None:
            self._pipeline.abandon()

    def _claimed(self) -> Pipeline:
        if self._pipeline is None:
            self._pipeline = self._stream._claim()
        return self._pipeline

    def _step(self, step: Callable[[], list[Item] | Wait | None]) -> list[Piece] | Wait | None:
        try:
            outcome = step()
        except LLMBridgeError as error:
            error.partial = self._stream.text
            raise
        if outcome is not None and not isinstance(outcome, list):
            return outcome
        self._stream._look_at(outcome)
        return None if outcome is None else self._pieces(outcome)


class TextSteps(Steps[str]):
    """The pieces of the answer's text."""

    def handed_out(self, piece: str) -> None:
        self._stream._parts.append(piece)

    def _pieces(self, items: list[Item]) -> list[str]:
        pieces = [item for item in items if isinstance(item, str)]
        if len(pieces) < len(items):
            for item in items:
                if not isinstance(item, str):
                    self._stream._note(item)
        return pieces


class EventSteps(Steps[Event]):
    """All events."""

    def handed_out(self, piece: Event) -> None:
        self._stream._note(piece.text if isinstance(piece, Text) else piece)

    def _pieces(self, items: list[Item]) -> list[Event]:
        return [Text(item) if isinstance(item, str) else item for item in items]
