"""What a stream can say: small frozen values, in the order in which they arrive.

A plain `for` loop over a stream sees only the text; `ChatStream.events()` gives all of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union

__all__ = ["END", "End", "Event", "Finish", "FinishReason", "Item", "Reasoning", "Text", "Usage"]

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
class Reasoning:
    """A piece of the model's reasoning, which is not part of the answer.

    Args:
        text: Never empty, always encodable as UTF-8.
    """

    text: str

    def __str__(self) -> str:
        return self.text


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


class End:
    """A dialect's end mark: nothing of the answer comes after it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"


END = End()

Event = Union[Text, Reasoning, Usage, Finish]

Item = Union[str, Reasoning, Usage, Finish]
"""What a provider's `decode` gives: a plain str is a piece of the answer."""
