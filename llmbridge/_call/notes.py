"""Remembers what was handed out of an answer: for the attributes of a stream, for its completion, and for an error.

It begins where `reading` has handed an item to the loop: what has arrived and was not asked for is not in here.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmbridge._text import TextSoFar
from llmbridge.events import (
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
    from llmbridge._call.reading import Source

__all__ = ["Notes"]


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
        from llmbridge._tools.values import result_message

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
