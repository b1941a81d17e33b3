"""`ChatStream`: one answer, as one object for `for`, `with`, `async for`, `async with` and `await`."""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn, SupportsIndex, TypeVar

from llmbridge._call.reading import (
    EventView,
    Loop,
    ObjectView,
    RawView,
    Reading,
    Source,
    TextView,
    View,
    finished,
    refuse_awaited_loop,
)
from llmbridge._locks import monotonic
from llmbridge.errors import InvalidOutput, InvalidRequest, LLMBridgeError, Partial, without_frames
from llmbridge.events import (
    Citation,
    Event,
    Media,
    RawEvent,
    ServerTool,
    ToolCall,
    ToolResult,
    Usage,
)
from llmbridge.messages import Message, Parsed, result_message

if TYPE_CHECKING:
    from types import TracebackType

    from llmbridge._aio import AsyncResult
    from llmbridge._call.notes import Notes
    from llmbridge.completion import Completion
    from llmbridge.events import FinishReason
    from llmbridge.rate_limits import RateLimits
    from llmbridge.schema import Schema
    from llmbridge.tools import Tool

__all__ = ["ChatStream", "EventStream", "ObjectStream"]

Heard = TypeVar("Heard")

_NOT_CALLED = "The call was not made: an answer was expected."


class ChatStream(Generic[Parsed]):
    """One live answer. Nothing is sent until you read the first piece.

    Loop over it for the pieces of the text, over `.events()` for everything, or call `.complete()`; in async code use
    `async for`, or `await` it for the `Completion`. It can be read once. Leaving the loop early (`break`, an exception)
    closes the connection. `.text` and the other attributes always hold what came so far.

    Raises, while iterating:
        LLMBridgeError: See `llmbridge.errors`; its `.partial` holds the text so far.

    Example:
        >>> from llmbridge import chat
        >>> stream = chat("Hello", model="demo")
        >>> "".join(stream) == stream.text
        True
        >>> stream.finish_reason
        'stop'
    """

    def __init__(
        self,
        source: Source,
        schema: Schema | None = None,
        ask_again: Callable[[Sequence[Message]], ChatStream[Parsed]] | None = None,
        keep_logprobs: bool = True,
        tools: Sequence[Tool] = (),
        idle: bool = False,
    ) -> None:
        self._source = source
        self._reading = Reading(source, keep_logprobs)
        if idle and tools:
            self._reading.idle = frozenset(tool.name for tool in tools if tool.function is not None)
        self._completing = threading.RLock()  # reentrant: a signal handler may need it, too
        self._first_failure: InvalidOutput | None = None  # why the answer was retried
        self._second_failure: LLMBridgeError | None = None
        self._schema = schema
        self._tools = tools
        self._ask_again = ask_again
        self._again: ChatStream[Parsed] | None = None
        self._correction: tuple[Message, ...] = ()
        self._cancelled = False
        self._loop: Loop[str] | None = None

    @property
    def provider(self) -> str:
        """The name of the provider that answers; with several, the one that is being tried."""
        return self._source.current.provider

    @property
    def model(self) -> str:
        """The name of the model that answers, without the provider's."""
        return self._source.current.model

    def __repr__(self) -> str:
        return f"<ChatStream {self.provider}:{self.model} {self._state}, {self._reading.text.length} characters>"

    @property
    def _state(self) -> str:
        if self._source.ended is not None:
            return "finished" if self._reading.done else "closed"
        return "open" if self._reading.taken else "not started"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a ChatStream is live and cannot be pickled or copied: use the Completion from complete()")

    if not TYPE_CHECKING:  # so that type checkers report unknown names

        def __getattr__(self, name: str) -> Any:
            from llmbridge.completion import no_attribute

            of_answers = ("choices", "content", "delta", "message", "output", "output_text")
            raise no_attribute(self, name, "the answer's text is .complete().text" if name in of_answers else "")

    # -- reading -----------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[str]:
        if self._loop is not None and self._loop.running:
            return TextView(self._reading).loop()  # raises: the other reader shall not lose the rest
        # The caller alone holds the generator: leaving the loop closes the connection, even if the stream lives on.
        loop, self._loop = self._loop or TextView(self._reading).loop(), None
        return loop

    def __next__(self) -> str:
        if self._loop is None:
            self._loop = TextView(self._reading).loop()
        try:
            return next(self._loop)
        except ValueError as error:
            if error.__traceback__ and error.__traceback__.tb_next:
                raise  # raised inside: it is not Python's "generator already executing"
        return next(TextView(self._reading).loop())

    def events(self) -> EventStream[Event]:
        """All events of the stream, in order: Text, Reasoning, ToolCallDelta, ToolCall, Finish, Usage ...

        For `for` and `async for`. `llmbridge.events` lists all of them.

        Raises:
            InvalidRequest: While iterating, if the stream was already read.

        Example:
            >>> from llmbridge import chat
            >>> [type(event).__name__ for event in chat("Hello", model="demo").events()][-2:]
            ['Finish', 'Usage']
        """
        return EventStream(self._reading, EventView)

    def raw_events(self) -> EventStream[RawEvent | Event]:
        """Like `events`, with the service's own event, a `RawEvent`, before the events made from it.

        Raises:
            InvalidRequest: While iterating, if the stream was already read.

        Example:
            >>> from llmbridge import chat
            >>> next(iter(chat("Hello", model="demo").raw_events())).json["object"]
            'chat.completion.chunk'
        """
        return EventStream(self._reading, RawView)

    def objects(self) -> ObjectStream:
        """The object defined by `schema` as it grows: plain dicts and lists, each time more of it has come.

        For `for` and `async for`. They are not checked against the schema; `.parsed` is, afterwards. Each one is parsed
        from the whole text so far. A long text is parsed each time it has grown by a sixteenth, and at its end.

        Raises:
            InvalidRequest: No schema was given; while iterating, if the stream was already read.
        """
        if self._schema is None:
            raise InvalidRequest("objects() needs a schema: chat(..., schema=...)")
        return ObjectStream(self._reading, self._schema)

    def complete(self) -> Completion[Parsed]:
        """The whole answer; reads the rest of the stream first. May be called again.

        If an answer that did not match the schema was retried, the Completion is the second answer, with the usage,
        turns and time of both; the stream's own attributes stay those of the first.

        Raises:
            InvalidRequest: The rest cannot be read: its loop was left early, or it is being read elsewhere.
            InvalidOutput: The answer does not match the schema, after the retries.
            LLMBridgeError: The answer was cut off; `.partial` holds what came. After a retry, `.partial` is the first
                answer, or holds it in `.turns`, and `__cause__` says what was wrong with it.

        Example:
            >>> from llmbridge import chat
            >>> chat("Hello", model="demo").complete().finish_reason
            'stop'
        """
        self._reading.idle = frozenset()  # no warning about calls: they are in the Completion
        if not self._reading.done:
            for _ in self:
                continue
        with self._completing:
            return finished(self._steps())

    def acomplete(self) -> Coroutine[Any, Any, Completion[Parsed]]:
        """`complete` as a coroutine, where one is needed; elsewhere, just `await` the stream.

        For `asyncio.run`, `create_task`, a TaskGroup, trio's `start_soon`.

        Raises:
            LLMBridgeError: As for `complete`, when awaited.

        Example:
            >>> import asyncio
            >>> from llmbridge import chat
            >>> asyncio.run(chat("Hello", model="demo").acomplete()).finish_reason
            'stop'
        """
        from llmbridge._aio import finished

        return finished(self._steps(), in_threads=self._schema is not None)

    def _steps(self) -> Generator[ChatStream[Parsed], None, Completion[Parsed]]:
        """The steps of `complete`, see `_call.reading.finished`: reads the answer, and its retry if there is one."""
        self._reading.idle = frozenset()
        if not self._reading.done:
            yield self
        if self._again is None:
            try:
                return self._completion(self.parsed)
            except InvalidOutput as error:
                if self._ask_again is None or self._cancelled or self._reading.noted.broken_off:
                    raise
                self._again = self._schema_retry(self._ask_again, error)
        if self._cancelled:
            self._again.cancel()
        return self._with_both((yield from self._retried(self._again)))

    def _schema_retry(
        self, ask_again: Callable[[Sequence[Message]], ChatStream[Parsed]], error: InvalidOutput
    ) -> ChatStream[Parsed]:
        """The call that tells the model what is wrong with its answer."""
        assert self._schema is not None
        notes = self._reading.noted
        self._first_failure = without_frames(copy(error))
        # Services require a result for each call before anything else.
        results = [result_message(ToolResult(call, _NOT_CALLED, failed=True)) for call in notes.tool_calls]
        self._correction = (*results, Message("user", self._schema.correction(error)))
        try:
            return ask_again([*notes.all_turns(), *self._correction])
        except LLMBridgeError as failure:
            self._keep_first(failure)
            raise

    def _retried(self, again: ChatStream[Parsed]) -> Generator[ChatStream[Parsed], None, Completion[Parsed]]:
        """The retry's answer, even if several callers or threads ask for it."""
        if self._second_failure is not None:
            raise copy(self._second_failure)
        try:
            return (yield from again._steps())
        except LLMBridgeError as error:
            self._keep_first(error)
            # A copy: the error itself will hold the frame, which holds this stream.
            self._second_failure = without_frames(copy(error))
            raise

    def _keep_first(self, error: LLMBridgeError) -> None:
        """Adds the first answer, and what was wrong with it, to the error of the retry."""
        first, second = self._first_failure, error.partial
        assert first is not None
        if second or second.message is not None or second.turns:
            notes = self._reading.noted
            error.partial = copy(second)
            error.partial.turns = (*notes.all_turns(), *self._correction, *second.turns)
            error.partial.usage = notes.usage.plus(second.usage) if notes.usage and second.usage else second.usage
        else:
            error.partial = first.partial
        last: LLMBridgeError = error
        while isinstance(last.__cause__, LLMBridgeError):
            last = last.__cause__
        last.__context__, last.__cause__ = last.__cause__, first

    def _with_both(self, second: Completion[Parsed]) -> Completion[Parsed]:
        """The completion of the retry, with the usage and turns of both answers."""
        notes = self._reading.noted
        usage = second.usage if notes.usage is None else notes.usage.plus(second.usage)
        turns = (*notes.all_turns(), *self._correction, *second.turns)
        before = self._since_start(self._again._source.started if self._again is not None else None) or 0.0
        return replace(
            second,
            usage=usage,
            turns=turns,
            first_piece_seconds=self.first_piece_seconds,
            total_seconds=None if second.total_seconds is None else before + second.total_seconds,
        )

    def _completion(self, parsed: Parsed) -> Completion[Parsed]:
        from llmbridge.completion import Completion, choices_of

        notes = self._reading.noted
        message, choices = notes.message(), choices_of(notes)
        first, call = choices[0], self._source.current
        return Completion(
            text=first.text,
            reasoning=first.reasoning,
            finish_reason=first.finish_reason,
            raw_finish_reason=first.raw_finish_reason,
            usage=notes.usage,
            tool_calls=first.tool_calls,
            refusal=first.refusal,
            parsed=parsed,
            choices=choices,
            logprobs=first.logprobs,
            message=message,
            turns=(*notes.turns, message),
            citations=tuple(notes.citations),
            media=tuple(notes.media),
            server_tools=tuple(notes.server_tools),
            response_id=call.head.id,
            served_model=call.head.model,
            extra=call.head.extra,
            model=call.model,
            provider=call.provider,
            headers=dict(call.headers),
            request_id=call.request_id,
            first_piece_seconds=self.first_piece_seconds,
            total_seconds=self.total_seconds,
        )

    # -- in a notebook: llmbridge.notebook ---------------------------------------------------------------------

    def show(self) -> Completion[Parsed]:
        """Shows the answer live in a notebook cell, as Markdown, and returns the whole answer.

        A stream on the last line of a cell does so by itself. Outside of notebooks, the text is printed.

        Raises:
            LLMBridgeError: As for `complete`; the text that came stays in the cell.

        Example:
            >>> from llmbridge import chat
            >>> chat("Hello", model="demo").show().finish_reason
            This is the llmbridge demo: ...
            'stop'
        """
        from llmbridge.notebook.live import show

        return show(self)

    async def show_async(self) -> Completion[Parsed]:
        """`show` for async code: other tasks go on meanwhile, so several answers can be shown side by side.

        Raises:
            LLMBridgeError: As for `complete`.
        """
        from llmbridge.notebook.live import show_async

        return await show_async(self)

    def _ipython_display_(self) -> None:
        from llmbridge.notebook.live import display

        display(self)

    def _display_(self) -> object:  # what marimo asks for
        return self if self._state == "open" else self.show()

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_stream

        return of_stream(self)

    # -- so far ------------------------------------------------------------------------------------------------

    @property
    def _so_far(self) -> Notes:
        """What was handed out.

        Raises:
            InvalidRequest: Nothing has been read yet.
        """
        if not (self._reading.taken or self._reading.over):
            raise InvalidRequest(
                "this answer has not been read yet, so it is empty: loop over the stream first, or call complete() "
                "(in async code: async for, or await)"
            )
        return self._reading.noted

    @property
    def text(self) -> str:
        """The text so far.

        Raises:
            InvalidRequest: Nothing has been read yet (the same holds for the attributes below).
        """
        return str(self._so_far.text)

    @property
    def partial(self) -> Partial:
        """What came so far, as an error's `.partial` has it: text, reasoning, calls, usage, message. At first empty."""
        return self._reading.noted.partial()

    @property
    def reasoning(self) -> str:
        """The reasoning so far, if the service shows it."""
        return self._so_far.reasoning

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The complete tool calls so far."""
        return tuple(self._so_far.tool_calls)

    @property
    def citations(self) -> tuple[Citation, ...]:
        """The sources named so far."""
        return tuple(self._so_far.citations)

    @property
    def media(self) -> tuple[Media, ...]:
        """Images, sound and files so far."""
        return tuple(self._so_far.media)

    @property
    def server_tools(self) -> tuple[ServerTool, ...]:
        """Calls of the service's own tools so far, with their results."""
        return tuple(self._so_far.server_tools)

    @property
    def response_id(self) -> str | None:
        """The service's ID of the answer; None before the first piece, or if it gives none."""
        return self._source.current.head.id

    @property
    def served_model(self) -> str | None:
        """The model that answers, according to the service; None before the first piece, or if it does not say."""
        return self._source.current.head.model

    @property
    def extra(self) -> Mapping[str, Any]:
        """Other fields at the top of the answer: `system_fingerprint`, `service_tier`, `created` ..."""
        return self._source.current.head.extra

    @property
    def usage(self) -> Usage | None:
        """The tokens counted by the service; None until it has sent them."""
        return self._so_far.usage

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer ended; None before, or if the service does not say."""
        finish = self._so_far.finish
        return finish.reason if finish else None

    @property
    def parsed(self) -> Parsed:
        """The value parsed from the whole text by `schema`; None without a schema, or beside tool calls.

        Raises:
            InvalidOutput: The text does not match; `.problems` says where, `.partial` holds the text.
            InvalidRequest: The answer has not been read to its end.
        """
        notes = self._so_far
        if self._schema is None:
            return None  # type: ignore[return-value]  # Parsed is unbound then
        if not self._reading.done:
            raise InvalidRequest(
                "parsed is available at the end of the answer: call complete(), or read the stream first"
            )
        from llmbridge._call.parsed import parsed_answer

        value: Parsed = parsed_answer(self._schema, notes, self._tools, self.provider, self.model)
        return value

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the service's rate limits still allow, from the response headers; None if they do not say."""
        from llmbridge.rate_limits import RateLimits

        return RateLimits.of(self.headers)

    @property
    def headers(self) -> Mapping[str, str]:
        """The response headers, names in lower case; empty before the first piece."""
        return self._source.current.headers

    @property
    def request_id(self) -> str | None:
        """The service's ID of the request, to quote to its support."""
        return self._source.current.request_id

    @property
    def first_piece_seconds(self) -> float | None:
        """Seconds from the start of the call to the first piece."""
        return self._since_start(self._reading.first_piece_at)

    @property
    def total_seconds(self) -> float | None:
        """Seconds from the start of the call to its end, or to now."""
        return self._since_start(self._source.ended or monotonic())

    def _since_start(self, moment: float | None) -> float | None:
        return None if moment is None or self._source.started is None else moment - self._source.started

    # -- ending ------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ends the call at once, from any thread; a thread blocked in it gets `Cancelled`. May be repeated."""
        self._cancelled = True
        self._source.cancel()
        if self._again is not None:
            self._again.cancel()

    def close(self) -> None:
        """Ends the call and closes its connection, from any thread. May be repeated; does nothing after the end."""
        self._cancelled = True
        self._source.close()
        if self._again is not None:
            self._again.close()

    def __enter__(self) -> ChatStream[Parsed]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def aclose(self) -> None:
        """`close` under the name that `contextlib.aclosing` calls."""
        self.close()

    # -- async: the same steps, see _aio --------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[str]:
        return self._async_pieces()

    def _async_pieces(self) -> AsyncResult[str]:
        from llmbridge._aio import AsyncResult

        return AsyncResult(TextView(self._reading))

    def __await__(self) -> Generator[Any, Any, Completion[Parsed]]:
        refuse_awaited_loop(sys._getframe(1))
        return self.acomplete().__await__()

    async def __aenter__(self) -> ChatStream[Parsed]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class EventStream(Generic[Heard]):
    """The events of an answer, for `for` and `async for`; can be read once."""

    def __init__(self, reading: Reading, view: type[View[Any]]) -> None:
        self._reading = reading
        self._view = view

    def __iter__(self) -> Iterator[Heard]:
        return self._view(self._reading).loop()

    def __aiter__(self) -> AsyncIterator[Heard]:
        from llmbridge._aio import AsyncResult

        return AsyncResult(self._view(self._reading))


class ObjectStream:
    """The growing object of a structured answer, for `for` and `async for`; can be read once."""

    def __init__(self, reading: Reading, schema: Schema) -> None:
        self._reading = reading
        self._schema = schema

    def __iter__(self) -> Iterator[Any]:
        return ObjectView(self._reading, self._schema.partial).loop()

    def __aiter__(self) -> AsyncIterator[Any]:
        from llmbridge._aio import AsyncResult

        return AsyncResult(ObjectView(self._reading, self._schema.partial))
