"""Detects the dialect of an answer (the API style of its JSON), for the error when a service speaks another one.

Whether a provider reads a dialect is not declared anywhere: it is tried, with the sample of that dialect.

Source: the API references of the services; the samples are the smallest answers that they show.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from llmbridge._call.framing import Record
from llmbridge.errors import LLMBridgeError, ProtocolError

if TYPE_CHECKING:
    from llmbridge.provider import Frame, Provider

__all__ = ["foreign_document", "foreign_stream", "knows_stream", "nothing_read"]

_FIELD = re.compile(r"(data|event) ?: ?(.*)", re.DOTALL)


@dataclass(frozen=True)
class Dialect:
    """How to recognize a dialect.

    Args:
        title: Its common name.
        provider: The name of the provider that reads it.
        marks: The values of fields that only this dialect has: a pattern of the text, or their type.
        event: A piece of text in a stream.
        document: A whole answer.
    """

    title: str
    provider: str
    marks: Mapping[str, re.Pattern[str] | type]
    event: Mapping[str, Any]
    document: Mapping[str, Any]

    def made(self, value: Mapping[str, Any]) -> bool:
        """Whether a JSON object is in this dialect."""
        for name, mark in self.marks.items():
            given = value.get(name)
            if given is None:
                continue
            if isinstance(mark, type) and isinstance(given, mark):
                return True
            if isinstance(mark, re.Pattern) and isinstance(given, str) and mark.fullmatch(given):
                return True
        return False


_TEXT = {"type": "text", "text": "x"}
_GEMINI = {"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}]}
_DIALECTS = (
    Dialect(
        "OpenAI's Responses API",
        "openai-responses",
        {"type": re.compile(r"response\..+"), "object": re.compile("response")},
        {"type": "response.output_text.delta", "delta": "x"},
        {"object": "response", "output": [{"type": "message", "content": [{"type": "output_text", "text": "x"}]}]},
    ),
    Dialect(
        "Anthropic's Messages",
        "anthropic",
        {"type": re.compile("message|message_(start|delta|stop)|content_block_(start|delta|stop)")},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "message", "role": "assistant", "content": [_TEXT], "stop_reason": "end_turn"},
    ),
    Dialect(
        "OpenAI's Chat Completions",
        "openai",
        {"choices": list, "object": re.compile(r"chat\.completion(\.chunk)?")},
        {"choices": [{"index": 0, "delta": {"content": "x"}}]},
        {"choices": [{"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}]},
    ),
    Dialect("Gemini's API", "gemini", {"candidates": list, "promptFeedback": dict}, _GEMINI, _GEMINI),
    Dialect(
        "Ollama's own API",
        "ollama",
        {"done": bool},
        {"message": {"role": "assistant", "content": "x"}, "done": False},
        {"message": {"role": "assistant", "content": "x"}, "done": True, "done_reason": "stop"},
    ),
    Dialect(
        "Cohere's Chat API",
        "cohere",
        {"type": re.compile("(message|content|tool-plan|tool-call|citation)-(start|delta|end)"), "message": dict},
        {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "x"}}}},
        {"message": {"role": "assistant", "content": [_TEXT]}, "finish_reason": "COMPLETE"},
    ),
)
"""In the order in which they are tried: the last ones have the weakest marks."""
_known: WeakKeyDictionary[type[Provider], list[Dialect]] = WeakKeyDictionary()


def foreign_document(value: Any, provider: type[Provider]) -> ProtocolError | None:
    """The error for a JSON document in a dialect that the provider does not read; None for all others.

    Example:
        >>> from llmbridge.providers.openai import OpenAI
        >>> print(foreign_document({"type": "message", "content": []}, OpenAI).message)
        the answer looks like Anthropic's Messages: use anthropic:MODEL or check the base_url
    """
    first = value[0] if isinstance(value, list) and value else value
    if not isinstance(first, dict) or first.get("error"):
        return None
    dialect = _dialect_of(first)
    return None if dialect is None or dialect in _read_by(provider) else _foreign(dialect)


def foreign_stream(frames: Iterable[Frame], provider: type[Provider]) -> ProtocolError | None:
    """The error for frames in a dialect, or a framing, that the provider does not read; None for all others."""
    frames = list(frames)
    found = [dialect for value in map(_value, frames) if (dialect := _dialect_of(value)) is not None]
    own = _read_by(provider) if found else []
    named = _foreign(found[0]) if found and not any(dialect in own for dialect in found) else None
    if named is None and any(_FIELD.match(frame.data) or frame.data.startswith(":") for frame in frames):
        return ProtocolError("the service returned server-sent events instead of JSON lines: check the base_url")
    return named


def knows_stream(frames: Iterable[Frame], provider: type[Provider]) -> bool:
    """Whether any of the frames is in the provider's dialect."""
    own = _read_by(provider)
    return any(_dialect_of(_value(frame)) in own for frame in frames)


def nothing_read(frames: Iterable[Frame], provider: type[Provider], *, over: bool) -> ProtocolError | None:
    """The error for an answer that yielded nothing; None for an unknown kind.

    Args:
        frames: The first frames of the stream; none for a document.
        provider: The one that read nothing.
        over: Whether the answer has ended. If not, None is returned if it began in the provider's dialect.
    """
    frames = list(frames)
    if (foreign := foreign_stream(frames, provider)) is not None:
        return foreign
    if not _read_by(provider):
        return None
    said = [frame.data for frame in frames if frame.data.strip()]
    if said and all(data.startswith("[DONE]") for data in said):
        return ProtocolError("the service returned only the end mark of a stream")
    if frames and not knows_stream(frames, provider):
        return ProtocolError("the service returned events that hold no answer: check the base_url")
    return ProtocolError("the service returned nothing: no text, and no finish reason") if over else None


def _foreign(dialect: Dialect) -> ProtocolError:
    return ProtocolError(f"the answer looks like {dialect.title}: use {dialect.provider}:MODEL or check the base_url")


def _dialect_of(value: Mapping[str, Any]) -> Dialect | None:
    for dialect in _DIALECTS:
        if dialect.made(value):
            return dialect
    return None


def _read_by(provider: type[Provider]) -> list[Dialect]:
    """The dialects in whose sample a provider finds the text; document samples count if it cannot read streams."""
    if (known := _known.get(provider)) is None:
        known = [dialect for dialect in _DIALECTS if _finds_text(provider.decode, _sample(dialect.event))]
        known = known or [one for one in _DIALECTS if _finds_text(provider.decode_document, one.document)]
        _known[provider] = known
    return known


def _sample(event: Mapping[str, Any]) -> Frame:
    return Record(json.dumps(event), event.get("type", "message"))


def _finds_text(decode: Callable[[Any], Iterable[object]], sample: Any) -> bool:
    try:
        return "x" in list(decode(sample))
    except (LLMBridgeError, AttributeError, LookupError, RuntimeError, TypeError, ValueError):
        return False


def _value(frame: Frame) -> Mapping[str, Any]:
    """The JSON object in a frame, also after a field name that the framing does not know."""
    field = _FIELD.match(frame.data)
    if field and field[1] == "event":
        return {"type": field[2].strip()}
    try:
        value = json.loads(field[2] if field else frame.data)
    except (ValueError, RecursionError):
        value = None
    first = value[0] if isinstance(value, list) and value else value
    return first if isinstance(first, Mapping) else {}
