"""`ChatStream`: one answer, as one object for `for`, `with`, `async for`, `async with` and `await`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any

from llmbridge._reading import EventSteps, Reading, TextSteps
from llmbridge.events import Event, FinishReason, Usage

if TYPE_CHECKING:
    from types import TracebackType

    from llmbridge._aio import AsyncResult
    from llmbridge._pipeline import Pipeline

__all__ = ["ChatStream", "Completion", "EventStream"]


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
        self._reading = Reading(pipeline)
        self._generator: Generator[str, None, None] | None = None
        self.provider = provider
        self.model = model

    def __repr__(self) -> str:
        state = "open" if self._reading.taken else "not started"
        if self._pipeline.ended is not None:
            state = "finished" if self._reading.done else "closed"
        return f"<ChatStream {self.provider}:{self.model} {state}, {len(self.text)} characters>"

    # -- reading -----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        # The loop alone holds the generator: leaving it closes the connection, though the stream lives on.
        generator, self._generator = self._generator or self._pieces(), None
        return generator

    def __next__(self) -> str:
        if self._generator is None:
            self._generator = self._pieces()
        return next(self._generator)

    def _pieces(self) -> Generator[str, None, None]:
        self._reading.claim()
        return self._reading.pieces()

    def events(self) -> EventStream:
        """Everything that the stream says, in order: Text, Reasoning, Usage, Finish; for `for` and `async for`.

        Raises:
            InvalidRequest: While iterating, if the stream has been read already.

        Example:
            >>> from llmbridge import chat
            >>> [type(event).__name__ for event in chat("Hello", model="demo").events()][-2:]
            ['Finish', 'Usage']
        """
        return EventStream(self._reading)

    def complete(self) -> Completion:
        """The whole answer; reads what has not been read yet.

        Raises:
            InvalidRequest: Its loop was left early, so that the rest cannot be read any more.
            LLMBridgeError: The answer did not come to its end; `.partial` holds what came.

        Example:
            >>> from llmbridge import chat
            >>> chat("Hello", model="demo").complete().finish_reason
            'stop'
        """
        if not self._reading.done:
            for _ in self:
                continue
        return self._completion()

    def _completion(self) -> Completion:
        return Completion(
            text=self.text,
            reasoning=self.reasoning,
            finish_reason=self.finish_reason,
            raw_finish_reason=self._reading.finish.raw if self._reading.finish else None,
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
        return str(self._reading.text)

    @property
    def reasoning(self) -> str:
        """The reasoning that came so far, if the service shows it."""
        return str(self._reading.reasoning)

    @property
    def usage(self) -> Usage | None:
        """The tokens that the service counted, once it has said so."""
        return self._reading.usage

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None before, and if the service does not say."""
        return self._reading.finish.reason if self._reading.finish else None

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
        return self._since_start(self._reading.first_piece_at)

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

    # -- async: the same steps, see _aio --------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[str]:
        return self._async_pieces()

    def _async_pieces(self) -> AsyncResult[str]:
        from llmbridge._aio import AsyncResult

        return AsyncResult(TextSteps(self._reading))

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

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    def __iter__(self) -> Iterator[Event]:
        self._reading.claim()
        return self._reading.events()

    def __aiter__(self) -> AsyncIterator[Event]:
        from llmbridge._aio import AsyncResult

        return AsyncResult(EventSteps(self._reading))
