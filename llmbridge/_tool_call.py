"""A model's call of a tool, and how its arguments are read. Events and messages both hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from llmbridge._json import json_copy, mended_json
from llmbridge._text import mended, short_repr
from llmbridge.errors import InvalidRequest

__all__ = ["ToolCall", "read_call"]

_TOO_DEEP = "the arguments are nested too deeply"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's call of a tool.

    Args:
        id: Identifies the call in the answer to it; made up if the service gives none.
        name: The tool's name.
        arguments: Empty if they could not be read; `problem` says why.
        text: The arguments as the model wrote them.
        problem: Why the arguments cannot be used: invalid JSON, not an object, or cut off. None if they can.
        signature: The service's proof of the reasoning behind the call, to be sent back with it.
        kind: "function"; "custom" for a tool whose input is plain text, in `text` and as `arguments["input"]`; or the
            service's own name for another request to the caller, like "mcp_approval_request".
        raw: The service's own object, if it holds more than the fields.

    Example:
        >>> ToolCall("call_1", "get_weather", {"city": "Oslo"}).arguments["city"]
        'Oslo'
    """

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    text: str = field(default="", repr=False)
    problem: str | None = None
    signature: str | None = field(default=None, repr=False)
    kind: str = field(default="function", repr=False)
    raw: Mapping[str, Any] | None = field(default=None, repr=False)

    __repr__ = short_repr

    def to_part(self) -> dict[str, Any]:
        """The call as a part of a message."""
        part = {"type": "tool_call", "id": self.id, "name": self.name, "arguments": self.written}
        own = {"signature": self.signature, "raw": self.raw and dict(self.raw)}
        kind = {} if self.kind == "function" else {"kind": self.kind}
        return {**part, **kind, **{name: value for name, value in own.items() if value}}

    @property
    def written(self) -> str:
        """The arguments as the model wrote them if that is a JSON object, as services require."""
        if self.kind == "custom":
            return self.text or str(self.arguments.get("input", ""))
        try:
            if self.problem is None and isinstance(json.loads(self.text), dict):
                return self.text
        except (ValueError, RecursionError):
            pass  # cut off, or with raw control characters: the readable part is sent
        return json.dumps(dict(self.arguments), ensure_ascii=False)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_call

        return of_call(self)


def read_call(
    id: str,
    name: str,
    text: str,
    signature: str | None = None,
    cut: bool = False,
    kind: str = "function",
    raw: Mapping[str, Any] | None = None,
) -> ToolCall:
    """A call whose arguments are the JSON object in `text`, or whose `problem` says why they are not.

    Example:
        >>> read_call("c1", "add", '{"a": 1').problem
        'the arguments are not valid JSON'
    """
    arguments: dict[str, Any] = {}
    problem = None if name or kind != "function" else "the call has no tool name"
    text = mended(text)
    if kind != "function":
        return _read_other(ToolCall(id, name, {}, text, None, signature, kind, raw), cut)
    if text.strip():
        try:
            arguments = _arguments(text)
        except InvalidRequest as error:
            problem = error.message
        except ValueError:
            problem = "the answer was cut off inside the arguments" if cut else "the arguments are not valid JSON"
        except RecursionError:
            problem = _TOO_DEEP
    elif cut:
        problem = problem or "the answer was cut off before the arguments"
    return ToolCall(id, name, arguments, text if text.strip() else "{}", problem, signature, kind, raw)


def _read_other(call: ToolCall, cut: bool) -> ToolCall:
    """A call whose input is plain text, or in the service's own format."""
    arguments: dict[str, Any] = {"input": call.text}
    if call.kind != "custom":
        with suppress(InvalidRequest, ValueError, RecursionError):  # otherwise it is text
            arguments = _arguments(call.text or "{}")
    return replace(call, arguments=arguments, problem="the answer was cut off inside the input" if cut else None)


def _arguments(text: str) -> dict[str, Any]:
    """Parses the arguments.

    Raises:
        InvalidRequest: They are not an object, or hold something that cannot be sent back.
        ValueError: They are not valid JSON.
    """
    value = json.loads(text, strict=False)
    if isinstance(value, str):  # some services put the JSON text into a JSON string
        value = _unwrapped(value)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("the arguments are not a JSON object")
    arguments: dict[str, Any] = json_copy(mended_json(value), "the input")
    return arguments


def _unwrapped(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return text
