"""Finds repetitions: of a summary that follows the pieces of an answer, only what is new is handed out.

Some services repeat everything at the end, or send there what a gateway could not send in pieces. This module also
makes the error of an answer that ended with one, and cleans a service's own objects before they are kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from llmbridge._text import mended
from llmbridge.errors import LLMBridgeError, ProtocolError
from llmbridge.events import (
    Citation,
    CitationInBytes,
    EndOfPart,
    Finish,
    Item,
    Logprobs,
    Media,
    OtherChoice,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)

__all__ = ["failed_answer", "news_of", "of_choice", "placed", "repeats", "storable"]

T = TypeVar("T")
_DEEPEST = 150  # less than the depth that a message can hold


def news_of(summary: Sequence[Item], told: Sequence[Item]) -> list[Item]:
    """The items of a summary that are new. Two equal calls count as two, if both were handed out before.

    Example:
        >>> news_of(["The bridge is red.", Reasoning("Hm.")], ["The bridge "])
        ['is red.', Reasoning(text='Hm.')]
    """
    said, text = _text_of(told), _text_of(summary)
    known = len(said) if text.startswith(said) else len(text)  # characters that were handed out
    fresh = not said  # the whole text is new, and so is its end
    thought = any(isinstance(item, Reasoning) and item.text for item in told)
    calls = [item for item in told if isinstance(item, ToolCall)]
    others = [_nameless(item) for item in told if not isinstance(item, (str, Refusal, Reasoning, ToolCall))]
    news: list[Item] = []
    for item in summary:
        if isinstance(item, (str, Refusal)):
            new, known = str(item)[known:], max(0, known - len(str(item)))
            if fresh := bool(new):
                news.append(Refusal(new) if isinstance(item, Refusal) else new)
        elif isinstance(item, Reasoning):
            news += _new_proof(item, told) if thought or not item.text else [item]
        elif isinstance(item, EndOfPart):
            news += [item] if fresh else []
        elif isinstance(item, ToolCall):
            if (same := _same_call(item, calls)) is None:
                news.append(item)
            else:
                calls.remove(same)
        elif isinstance(item, Logprobs):
            if not said:
                news.append(item)
        elif isinstance(item, Media) and item.data is not None:
            news += _new_media(item, told)
        elif not isinstance(item, ToolCallDelta) and (
            isinstance(item, (Usage, Finish)) or _nameless(item) not in others
        ):
            news.append(item)
    return news


def _nameless(item: Item) -> Item:
    """A medium without its id, which may only be a running number."""
    return replace(item, id=None) if isinstance(item, Media) else item


def _new_media(item: Media, told: Sequence[Item]) -> list[Item]:
    """What a medium adds to its pieces."""
    pieces = [other for other in told if isinstance(other, Media) and other.kind == item.kind]
    data, words = b"".join(piece.data or b"" for piece in pieces), "".join(piece.transcript for piece in pieces)
    new = replace(
        item,
        data=b"" if item.data and item.data in data else item.data,
        transcript="" if item.transcript in words else item.transcript,
    )
    return [new] if new.data or new.transcript else []


def repeats(summary: Sequence[Item], told: Sequence[Item]) -> bool:
    """Whether a possible summary begins with all text before it, and is not just an equal piece.

    Example:
        >>> repeats(["1"], ["1"]), repeats(["1", Finish("stop")], ["1"]), repeats(["The bridge"], ["The "])
        (False, True, True)
    """
    text, known = _text_of(summary).strip(), _text_of(told).strip()
    ends = any(isinstance(item, Finish) for item in summary)
    if text and known:
        return text.startswith(known) and (ends or len(text) > len(known))
    return ends


def placed(cited: CitationInBytes, told: Sequence[Item]) -> Citation:
    """The citation with its place counted in characters; without a place if the text has no such place.

    Example:
        >>> placed(CitationInBytes(Citation("https://a.b", start=3, end=5)), ["Ü: so"])
        Citation(url='https://a.b', document=None, title=None, quote=None, start=2, end=4)
    """
    text, start, end = _text_of(told), cited.citation.start or 0, cited.citation.end
    encoded = text.encode()
    found = end is not None and start < end <= len(encoded)
    if found and len(encoded) != len(text):
        start, end = (len(encoded[:place].decode("utf-8", "ignore")) for place in (start, end))
    if cited.words and not (found and text[start:end] == cited.words):
        start = text.find(cited.words)  # some services count from the beginning of a part
        end, found = start + len(cited.words), start >= 0 and text.find(cited.words, start + 1) < 0
    return replace(cited.citation, start=start if found else None, end=end if found else None)


def _text_of(items: Sequence[Item]) -> str:
    return "".join(str(item) for item in items if isinstance(item, (str, Refusal)))


def _new_proof(item: Reasoning, told: Sequence[Item]) -> list[Item]:
    """What a repeated thought adds beside its text."""
    proof = replace(item, text="")
    known = any(isinstance(other, Reasoning) and replace(other, text="") == proof for other in told)
    return [] if known or proof == Reasoning("") else [proof]


def _same_call(call: ToolCall, told: Sequence[ToolCall]) -> ToolCall | None:
    """The call that was handed out before; some services give it another id at the end."""
    by_id = next((other for other in told if other.id == call.id), None)
    return by_id or next(
        (other for other in told if (other.name, other.arguments) == (call.name, call.arguments)), None
    )


def of_choice(index: int, items: Sequence[Item]) -> list[Item]:
    """What another choice has said."""
    events = (item.event for item in items if isinstance(item, OtherChoice) and item.index == index)
    return [event.text if isinstance(event, Text) else event for event in events]


def failed_answer(finish: Finish) -> LLMBridgeError:
    """The error for an answer whose finish reports one."""
    from llmbridge.service_errors import error_in_stream

    report = {"message": finish.message or f"the answer ended with {finish.raw!r}", "code": finish.raw}
    error = error_in_stream({"error": report})
    error.retryable = error.retryable or finish.again
    return error


def storable(item: T) -> T:
    """An item, or a service's own object, made fit to be stored and sent: valid UTF-8, finite numbers.


    Raises:
        ProtocolError: It is nested too deeply.

    Example:
        >>> storable({"a": [float("nan")]})
        {'a': [None]}
    """
    if hasattr(item, "__dataclass_fields__"):
        changed = {}
        for field in fields(item):  # type: ignore[arg-type]
            value = getattr(item, field.name)
            if value.__class__ in (str, dict, list) and (kept := _stored(value, 0)) is not value:
                changed[field.name] = kept
        return replace(item, **changed) if changed else item  # type: ignore[type-var]
    kept_item: T = _stored(item, 0)
    return kept_item


def _stored(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth > _DEEPEST:
        raise ProtocolError("the service sent JSON that is nested too deeply")
    if isinstance(value, list):
        return [_stored(inner, depth + 1) for inner in value]
    if isinstance(value, dict):
        return {mended(key): _stored(inner, depth + 1) for key, inner in value.items()}
    return value
