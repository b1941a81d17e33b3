"""Repeats the model's turn while it asks for tools, running them in between; reads like a single answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from llmbridge._call.notes import Notes
from llmbridge._call.pipeline import Wait
from llmbridge._locks import monotonic
from llmbridge._text import TextSoFar
from llmbridge._tools.runs import ToolRuns
from llmbridge.errors import Cancelled, ClockExpired, LLMBridgeError, TurnsExceeded
from llmbridge.events import NextCall
from llmbridge.options import TotalClock

if TYPE_CHECKING:
    from llmbridge._call.pipeline import Pipeline
    from llmbridge._call.reading import Soon
    from llmbridge.events import Item, ToolCall, ToolResult
    from llmbridge.messages import Message
    from llmbridge.tools import Tool

__all__ = ["ToolLoop"]

E = TypeVar("E", bound=LLMBridgeError)


class ToolLoop:
    """A `Source` that continues after an answer that calls tools, until an answer calls none.

    The loop ends with a turn that makes no calls, was cut off, calls a tool without a function, or asks for something
    else (an approval), which is left to the caller. Results of tools are lists of their own, never mixed with a turn's
    items.

    Args:
        pipeline: The first call.
        ask: Makes the next one, with these messages after the caller's.
        tools: The tools of the request.
        limit: The most answers of the model.
        total: The total timeout of the whole chat; None for no limit.

    Attributes:
        current: The current turn's call.
        started, ended: `time.monotonic()` of the first step and of the end.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        ask: Callable[[list[Message]], Pipeline],
        tools: Sequence[Tool],
        limit: int,
        total: TotalClock | None = None,
    ) -> None:
        self._total = total or TotalClock(None)
        self.current = pipeline
        self._ask = ask
        self._tools = {tool.name: tool for tool in tools}
        self._limit = limit
        self._turn = 1
        self._notes = Notes(TextSoFar(), pipeline, keep_logprobs=False)
        self._raw = False
        pipeline.listen(self._notes)
        self._runs: ToolRuns | None = None
        self._paused = False
        self._cancelled = False
        self._over = False
        self._whole = False
        self.started: float | None = None
        self.ended: float | None = None

    def listen(self, notes: Notes) -> None:
        """See `Source`; the loop keeps its own notes."""

    @property
    def cancelled(self) -> bool:
        """See `Pipeline.cancelled`."""
        return self._cancelled

    def keep_raw(self) -> None:
        """See `Source`."""
        self._raw = True
        self.current.keep_raw()

    def advance(self) -> list[Item] | None:
        """The next items: the model's, or tool results; None at the end. Blocks.

        Raises:
            TurnsExceeded: The model still calls tools at the limit.
            LLMBridgeError: As for `Pipeline.advance`.
        """
        items = self._step(hops=False)
        assert not isinstance(items, Wait)
        return items

    def hop(self) -> list[Item] | Wait | None:
        """`advance` in a worker thread of an event loop, see `Pipeline.hop`; runs the tools.

        Raises:
            LLMBridgeError: As for `advance`.
        """
        return self._step(hops=True)

    def poll(self) -> list[Item] | Wait | None:
        """Like `advance`, but never blocks: returns what to wait for instead.

        Raises:
            LLMBridgeError: As for `advance`.
        """
        if self._over:
            return self.advance()
        if self.started is None:
            self.started = monotonic()
        if self._runs is not None:
            return Wait.THREAD
        try:
            outcome = self.current.poll()
            if outcome is None:
                return Wait.THREAD if self._continues() else None
        except BaseException:
            self.close()
            raise
        if isinstance(outcome, list):
            self._note(outcome)
        return outcome

    def leave(self, give_up: Callable[[], object], soon: Soon) -> None:
        """See `Pipeline.leave`. Does not end running tools: no connection waits for them."""
        self.current.leave(give_up, soon)

    def come_back(self) -> None:
        """See `Pipeline.come_back`."""
        self.current.come_back()

    def cancel(self) -> None:
        """Ends everything, from any thread; an `advance()` that blocks raises Cancelled at once.

        A function that runs alone in the reading thread is not interrupted: its result is dropped.
        """
        self._cancelled = True
        if (runs := self._runs) is not None:
            runs.cancel()
        self.current.cancel()

    def close(self) -> None:
        """Like `cancel`, and closes the connection here if no other thread is reading from it or waiting for it."""
        self.cancel()
        self.current.close()
        self._end()

    def abandon(self) -> None:
        """Like `close`, from the task itself that waited for the socket."""
        self.cancel()
        self.current.abandon()
        self._end()

    def _end(self) -> None:
        self._over = True
        if self.ended is None:
            self.ended = monotonic()

    def _step(self, hops: bool) -> list[Item] | Wait | None:
        if self.started is None:
            self.started = monotonic()
        if self._over:
            if self._cancelled and not self._whole:
                raise self._cancellation()
            return None
        try:
            return self._advance(hops)
        except BaseException:
            self.close()
            raise

    def _advance(self, hops: bool) -> list[Item] | Wait | None:
        while True:
            if self._runs is not None:
                results: list[Item] = [*self._results(self._runs)]
                self._raise_if_cancelled()
                if results:
                    self._note(results)
                    return results
                self._begin_turn(self._notes.turns)
            elif self._paused:
                self._begin_turn([*self._notes.turns, self._notes.message()])
                self._note([NextCall()])
                return [NextCall()]
            items = self.current.hop() if hops else self.current.advance()
            if items is not None:
                if isinstance(items, list):
                    self._note(items)
                return items
            if not self._continues():
                return None

    def _results(self, runs: ToolRuns) -> list[ToolResult]:
        try:
            return runs.results()
        except ClockExpired as error:
            self._named(error)
            raise

    def _note(self, items: list[Item]) -> None:
        for item in items:
            self._notes.note(item)
        self._notes.text.fold()

    def _begin_turn(self, turns: list[Message]) -> None:
        """Makes the next call, which sends the results, or a paused turn back."""
        self._notes.finish = None
        self._turn += 1
        self._notes.source = self.current = self._ask(turns)
        self.current.listen(self._notes)
        if self._raw:
            self.current.keep_raw()
        self._runs, self._paused = None, False
        self._raise_if_cancelled()  # cancel() may have reached only the pipeline before

    def _continues(self) -> bool:
        """Whether another call follows the one that ended: to continue after a pause, or once tools have run.

        Raises:
            TurnsExceeded: It would, but this was the last turn.
        """
        self._paused = self._notes.finish is not None and self._notes.finish.reason == "pause"
        if not (self._paused or self._wants_tools()):
            self._whole = True
            self._end()
            return False
        if self._turn >= self._limit:
            raise self._named(TurnsExceeded(self._exceeded()))
        if self._paused:
            return True
        self._runs = ToolRuns(tuple(self._notes.tool_calls), self._tools, self._total)
        self._raise_if_cancelled()
        return True

    def _exceeded(self) -> str:
        times = "1 turn" if self._limit == 1 else f"{self._limit} turns"
        if self._paused:
            return f"after {times} the service still pauses before the end: raise max_turns"
        wanted = ", ".join(dict.fromkeys(call.name for call in self._notes.tool_calls))
        return (
            f"after {times} the model still wants to call {wanted}: raise max_turns, or see in events() why "
            "the results do not help it"
        )

    def _wants_tools(self) -> bool:
        notes = self._notes
        if not notes.tool_calls or (notes.finish is not None and notes.finish.reason != "tool_calls"):
            return False
        runnable = any(tool.function is not None for tool in self._tools.values())
        return runnable and all(map(self._is_runnable, notes.tool_calls))

    def _is_runnable(self, call: ToolCall) -> bool:
        """Whether the call need not go to the caller; an unknown function is answered with an error."""
        tool = self._tools.get(call.name)
        if tool is None:
            return call.kind == "function"
        return tool.function is not None and call.kind in ("function", "custom")

    def _raise_if_cancelled(self) -> None:
        if self._cancelled:
            raise self._cancellation()

    def _cancellation(self) -> Cancelled:
        return self._named(Cancelled("the call was cancelled"))

    def _named(self, error: E) -> E:
        """The error, with provider and model filled in."""
        call = self.current
        error.provider, error.model, error.request_id = call.provider, call.model, call.request_id
        return error
