"""The parts of a scripted answer: texts, thoughts, calls, and the service's own objects, in order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Union

__all__ = ["Call", "Part", "Thought", "Words", "asks_caller", "checked_calls", "checked_part", "pieces_of"]

_CALL_KEYS = {"name", "arguments", "id"}
_ASKING = ("custom", "custom_tool_call", "function", "function_call", "tool_use")
_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class Call:
    """One tool call.

    Attributes:
        name: The tool's name.
        text: The arguments as JSON text, or the scripted text.
        id: None lets the dialect make one up.
        signature: Its signature, in dialects that sign calls.

    Example:
        >>> Call("add", '{"a": 1}').value, Call("add", '{"a": ').value
        ({'a': 1}, '{"a": ')
    """

    name: str
    text: str = "{}"
    id: str | None = None
    signature: str | None = None

    @property
    def value(self) -> Any:
        """The arguments for dialects without text: the parsed JSON, or the text if it is not JSON."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return self.text

    def as_mapping(self) -> dict[str, Any]:
        """The call in the form that Reply accepts."""
        return {"name": self.name, "arguments": self.text, "id": self.id}


@dataclass(frozen=True)
class Words:
    """A text of the answer, one item per event."""

    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


@dataclass(frozen=True)
class Thought(Words):
    """A piece of reasoning with its own signature.

    Attributes:
        signature: Its signature; None for a fixed one.
        redacted: Encrypted reasoning, or None.
    """

    signature: str | None = None
    redacted: str | None = None


Part = Union[Words, Call, dict[str, Any]]


def checked_part(given: Any) -> Part:
    """A scripted part in its normal form.

    Raises:
        TypeError: It is not a valid item of `Reply.parts`.
        ValueError: A text is not valid UTF-8.

    Example:
        >>> checked_part(["Hel", "lo"]), checked_part({"type": "compaction"})
        (Words(pieces=('Hel', 'lo')), {'type': 'compaction'})
    """
    if isinstance(given, (Words, Call)):  # from dataclasses.replace of a Reply
        return given
    raw = given if isinstance(given, Mapping) else getattr(given, "raw", None)
    if isinstance(raw, Mapping):
        copied: dict[str, Any] = json.loads(json.dumps(dict(raw)))
        return copied
    if isinstance(given, (str, list, tuple)):
        return Words(_encodable(pieces_of(given)))
    if hasattr(given, "name") and hasattr(given, "arguments"):
        call = _checked_call({"name": given.name, "arguments": given.arguments, "id": given.id or None})
        return Call(call.name, getattr(given, "text", "") or call.text, call.id, getattr(given, "signature", None))
    if hasattr(given, "text") and hasattr(given, "redacted"):
        return Thought(_encodable(pieces_of(given.text)), given.signature, given.redacted)
    raise TypeError(f"a part must be a text, a Reasoning, a ToolCall or a mapping, not {type(given).__name__}")


def asks_caller(part: Part) -> bool:
    """Whether it is a call that the caller must answer, in any form."""
    return isinstance(part, Call) or (isinstance(part, dict) and part.get("type") in _ASKING)


def checked_calls(calls: Iterable[Mapping[str, Any]]) -> tuple[Call, ...]:
    """The calls passed as mappings."""
    if isinstance(calls, (str, Mapping)):
        raise TypeError(f"tool_calls must be a list of mappings, not {type(calls).__name__}")
    return tuple(_checked_call(call) for call in calls)


def pieces_of(text: str | Iterable[str] | None) -> tuple[str, ...]:
    """A text as the pieces to send; a str is one piece, unless it is empty."""
    if isinstance(text, str):
        return (text,) if text else ()
    return tuple(text or ())


def _encodable(pieces: tuple[Any, ...]) -> tuple[str, ...]:
    for piece in pieces:
        if not isinstance(piece, str):
            raise TypeError(f"a piece of a part must be str, not {type(piece).__name__}")
        piece.encode()  # raises ValueError for lone surrogates
    return pieces


def _checked_call(call: Mapping[str, Any]) -> Call:
    if not isinstance(call, Mapping):
        raise TypeError(f"a tool call must be a mapping of name, arguments and id, not {type(call).__name__}")
    if unknown := set(call) - _CALL_KEYS:
        raise ValueError(f"a tool call has only name, arguments and id, not {', '.join(map(repr, sorted(unknown)))}")
    name, arguments, call_id = call.get("name"), call.get("arguments", {}), call.get("id")
    if not isinstance(name, str) or not isinstance(call_id, (str, type(None))):
        raise TypeError("the name of a tool call must be str, its id str or None")
    if not isinstance(arguments, (str, Mapping)):
        raise TypeError(f"the arguments of a tool call must be a mapping or str, not {type(arguments).__name__}")
    text = arguments if isinstance(arguments, str) else _encoder.encode(dict(arguments))
    for part in (name, text, call_id or ""):
        part.encode()  # raises ValueError for lone surrogates
    return Call(name, text, call_id)
