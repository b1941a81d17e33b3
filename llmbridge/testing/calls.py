"""A scripted tool call, checked, in the two forms in which dialects send its arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Call", "checked_calls"]

_encoder = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_KEYS = {"name", "arguments", "id"}


@dataclass(frozen=True)
class Call:
    """One tool call.

    Attributes:
        name: the tool.
        text: the arguments as JSON text, or as the text that was scripted in place of it.
        id: None lets the dialect make one up.

    Example:
        >>> Call("add", '{"a": 1}').value, Call("add", '{"a": ').value
        ({'a': 1}, '{"a": ')
    """

    name: str
    text: str = "{}"
    id: str | None = None

    @property
    def value(self) -> Any:
        """The arguments as dialects without text send them: the parsed JSON, or the text if it is none."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return self.text

    def as_mapping(self) -> dict[str, Any]:
        """The call as it could have been given to a Reply."""
        return {"name": self.name, "arguments": self.text, "id": self.id}


def checked_calls(calls: Iterable[Mapping[str, Any]]) -> tuple[Call, ...]:
    """The calls of a Reply; TypeError or ValueError says what is wrong with one."""
    if isinstance(calls, (str, Mapping)):
        raise TypeError(f"tool_calls must be a list of mappings, not {type(calls).__name__}")
    return tuple(_checked(call) for call in calls)


def _checked(call: Mapping[str, Any]) -> Call:
    if not isinstance(call, Mapping):
        raise TypeError(f"a tool call is a mapping of name, arguments and id, not {type(call).__name__}")
    if unknown := set(call) - _KEYS:
        raise ValueError(f"a tool call has name, arguments and id, not {', '.join(map(repr, sorted(unknown)))}")
    name, arguments, call_id = call.get("name"), call.get("arguments", {}), call.get("id")
    if not isinstance(name, str) or not isinstance(call_id, (str, type(None))):
        raise TypeError("the name of a tool call must be str, its id str or None")
    if not isinstance(arguments, (str, Mapping)):
        raise TypeError(f"the arguments of a tool call must be a mapping or str, not {type(arguments).__name__}")
    text = arguments if isinstance(arguments, str) else _encoder.encode(dict(arguments))
    for part in (name, text, call_id or ""):
        part.encode()  # refuses lone surrogates, with a ValueError
    return Call(name, text, call_id)
