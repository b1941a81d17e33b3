"""What a stream can say: small frozen values, in the order in which they arrive.

A plain `for` loop over a stream sees only the text; `ChatStream.events()` gives all of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Union

from llmbridge._tool_call import ToolCall
from llmbridge.errors import Partial

if TYPE_CHECKING:
    from llmbridge.messages import Message

__all__ = [
    "END",
    "End",
    "Event",
    "Finish",
    "FinishReason",
    "Item",
    "Logprobs",
    "OtherChoice",
    "Partial",
    "Reasoning",
    "Refusal",
    "Text",
    "ToolCall",
    "ToolCallDelta",
    "ToolResult",
    "Usage",
]

_MOST_KEYS = 64  # of a service's own object, where several are put together

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "error", "other"]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer.

    Args:
        text: Never empty, always encodable as UTF-8.

    Example:
        >>> Text("Hel")
        Text(text='Hel')
    """

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Refusal:
    """A piece of the words with which the model refuses to answer; they stand in the place of the answer's text.

    Args:
        text: Never empty, always encodable as UTF-8.
    """

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the model's reasoning, which is not part of the answer.

    Args:
        text: Always encodable as UTF-8; empty only beside a signature or redacted reasoning.
        signature: The service's proof of the reasoning before it, to be sent back with it; ends a block.
        redacted: Reasoning that the service shows only encrypted; a block of its own.
    """

    text: str
    signature: str | None = field(default=None, repr=False)
    redacted: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call that the model is still writing. `ToolCall` follows when it is whole.

    Args:
        index: Which of the calls of this answer it belongs to; None if the service does not say.
        id: The call's name; None or "" if the service does not say.
        name: The tool's name; services send it once, or with every piece.
        arguments: A piece of the JSON text of the arguments.
        signature: The service's proof of the reasoning behind the call, to be sent back with it.
        whole: Nothing more of this call comes.
    """

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: str | None = None
    whole: bool = False


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave, as it goes back to the model.

    Args:
        call: The call that it answers.
        text: What the model gets to read.
        failed: The tool raised an error, or could not be called; the text says so.
        value: What the function returned, or the exception that it raised.
    """

    call: ToolCall
    text: str
    failed: bool = False
    value: Any = field(default=None, repr=False, compare=False)

    @property
    def message(self) -> Message:
        """The result as a message of the conversation; `.message.to_dict()` is what JSON can keep.

        Example:
            >>> ToolResult(ToolCall("c1", "add"), "5").message.to_dict()
            {'role': 'tool', 'content': '5', 'tool_call_id': 'c1', 'name': 'add'}
        """
        from llmbridge.messages import result_message

        return result_message(self)


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log-probabilities of the tokens of a piece of text.

    Args:
        raw: The service's own entries, one for each token.
    """

    raw: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that the service counted; None for what it did not say. Never estimated.

    Args:
        input_tokens: The whole prompt, cached tokens included.
        output_tokens: The whole answer, reasoning included.
        total_tokens: Their sum, as the service gave it or from the two.
        cached_input_tokens: The part of the prompt that was read from a cache.
        cache_write_tokens: The part of the prompt that was written to a cache.
        reasoning_tokens: The part of the answer that was reasoning.
        raw: The service's own object.

    Example:
        >>> Usage(input_tokens=11, output_tokens=7).total_tokens
        18
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.total_tokens is None and self.input_tokens is not None and self.output_tokens is not None:
            object.__setattr__(self, "total_tokens", self.input_tokens + self.output_tokens)

    def merged(self, newer: Usage) -> Usage:
        """The newer counts, and these where they say nothing: some services send the two halves apart.

        Args:
            newer: What the service said later about the same call.

        Example:
            >>> Usage(input_tokens=10, output_tokens=1).merged(Usage(output_tokens=5)).total_tokens
            15
        """
        said = _counts_of(newer)
        counts = [known if now is None else now for known, now in zip(_counts_of(self), said, strict=True)]
        if tuple(counts) == said and self.raw.keys() <= newer.raw.keys():
            return newer  # some services count with every piece
        return self._together(newer, counts, newer.total_tokens)

    def plus(self, other: Usage | None) -> Usage:
        """The tokens of two calls together; what neither has counted stays unknown.

        Args:
            other: Of the other call; None adds nothing.

        Example:
            >>> Usage(1, 2).plus(Usage(10, 20)).total_tokens
            33
        """
        if other is None:
            return self
        pairs = zip(_counts_of(self), _counts_of(other), strict=True)
        sums = [None if a is b is None else (a or 0) + (b or 0) for a, b in pairs]
        return self._together(other, sums, None if self.total_tokens is None else other.total_tokens)

    def _together(self, newer: Usage, counts: list[int | None], total: int | None) -> Usage:
        """The counts and the raw objects of both; without a total of its own it is the sum of the other two."""
        usage = dict(zip(_COUNTS, counts, strict=True))
        if total is None and usage["input_tokens"] is not None and usage["output_tokens"] is not None:
            usage["total_tokens"] = None
        kept = [key for key in self.raw if key not in newer.raw][: max(0, _MOST_KEYS - len(newer.raw))]
        return Usage(**usage, raw={**{key: self.raw[key] for key in kept}, **newer.raw} if kept else newer.raw)


_COUNTS = tuple(count.name for count in fields(Usage) if count.name != "raw")
_counts_of = attrgetter(*_COUNTS)


@dataclass(frozen=True, slots=True)
class Finish:
    """Why the answer ended.

    Args:
        reason: In one vocabulary for all services; "other" for what it does not cover.
        raw: The service's own word.

    Example:
        >>> Finish("length", raw="MAX_TOKENS").reason
        'length'
    """

    reason: FinishReason
    raw: str = ""


@dataclass(frozen=True, slots=True)
class OtherChoice:
    """What a choice beside the first says, where several were asked for.

    Args:
        index: Of the choice, from 1.
        event: What it says.
    """

    index: int
    event: Event


class End:
    """A dialect's end mark: nothing of the answer comes after it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"


END = End()

Event = Union[
    Text, Refusal, Reasoning, ToolCallDelta, ToolCall, ToolResult, Logprobs, Usage, Finish, OtherChoice
]  # fmt: skip

Item = Union[str, Refusal, Reasoning, ToolCallDelta, ToolCall, ToolResult, Logprobs, Usage, Finish, OtherChoice]
"""What a provider's `decode` gives: a plain str is a piece of the answer. Of tool calls it gives only the deltas."""
