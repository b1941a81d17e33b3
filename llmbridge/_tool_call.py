"""A call that a model makes of a tool, and how its arguments are read. Events and messages both hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llmbridge._json import json_copy, mended_json
from llmbridge._text import mended
from llmbridge.errors import InvalidRequest

__all__ = ["ToolCall", "read_call"]

_TOO_DEEP = "the arguments are nested too deeply"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that the model asks for.

    Args:
        id: Names the call in the answer to it; made up where the service gives none.
        name: The tool's name.
        arguments: Empty where they could not be read; `problem` says so.
        text: The arguments as the model wrote them.
        problem: Why the arguments cannot be used: they are no JSON object, or were cut off. None if all is well.
        signature: The service's proof of the reasoning behind the call, to be sent back with it.

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


def read_call(id: str, name: str, text: str, signature: str | None = None, cut: bool = False) -> ToolCall:
    """A call whose arguments are the JSON object in `text`, or that says why they are not.

    Example:
        >>> read_call("c1", "add", '{"a": 1').problem
        'the arguments are no JSON'
    """
    arguments: dict[str, Any] = {}
    problem = None if name else "the call names no tool"
    text = mended(text)
    if text.strip():
        try:
            arguments = _arguments(text)
        except InvalidRequest as error:
            problem = error.message
        except ValueError:
            problem = "the answer broke off inside the arguments" if cut else "the arguments are no JSON"
        except RecursionError:
            problem = _TOO_DEEP
    elif cut:
        problem = problem or "the answer broke off before the arguments"
    return ToolCall(id, name, arguments, text if text.strip() else "{}", problem, signature)


def _arguments(text: str) -> dict[str, Any]:
    """What the arguments say, as JSON can carry it.

    Raises:
        InvalidRequest: They are no object, or hold what cannot be sent back.
        ValueError: They are no JSON.
    """
    value = json.loads(text, strict=False)
    if isinstance(value, str):  # some services wrap the JSON text into a JSON string
        value = _unwrapped(value)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidRequest("the arguments are no JSON object")
    arguments: dict[str, Any] = json_copy(mended_json(value), "the input")
    return arguments


def _unwrapped(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return text
