"""Normalizes whether a model may, must or must not call a tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from llmbridge._json import json_copy
from llmbridge._text import shown
from llmbridge.errors import InvalidRequest

if TYPE_CHECKING:
    from llmbridge.tools import Tool

__all__ = ["ToolChoice", "tool_choice"]


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Whether the model may, must or must not call a tool.

    Args:
        mode: "auto" (it may), "none", "required" (it must call some tool) or "tool" (it must call `name`).
        name: The tool's name.
        raw: A service's own choice, sent as given; `mode` is ignored then.
    """

    mode: Literal["auto", "none", "required", "tool"]
    name: str | None = None
    raw: Mapping[str, Any] | None = None


def tool_choice(value: Any, tools: Sequence[Tool]) -> ToolChoice:
    """The choice in normalized form.

    Args:
        value: "auto", "none", "required" (or "any"), a tool's name, one of the functions or Tools, or a mapping as
            OpenAI or Anthropic write it; any other mapping is sent as given. None is "auto".
        tools: The tools to choose from.

    Raises:
        InvalidRequest: Unknown tool; the message lists the known ones.

    Example:
        >>> from llmbridge.tools import Tool
        >>> tool_choice("any", [Tool("now")])
        ToolChoice(mode='required', name=None, raw=None)
        >>> tool_choice({"type": "tool", "name": "now"}, [Tool("now")]).name
        'now'
    """
    if isinstance(value, ToolChoice):
        return value
    if isinstance(value, Mapping):
        word = _word_of_mapping(value)
        if word is None:
            return ToolChoice("auto", raw=json_copy(value, "tool_choice"))
        value = word
    elif value is None or value in ("auto", "none"):
        return ToolChoice("none" if value == "none" else "auto")
    if isinstance(value, str):
        if value in ("auto", "none"):
            return ToolChoice("none" if value == "none" else "auto")
        if value in ("required", "any"):
            if not tools:
                raise InvalidRequest(f"tool_choice is {value!r}, but there are no tools: pass tools=[...]")
            return ToolChoice("required")
        return ToolChoice("tool", _known(value, [item.name for item in tools], tools))
    if callable(value):
        names = [item.name for item in tools if value in (item, item.function)]
        return ToolChoice("tool", names[0] if names else _known(getattr(value, "__name__", repr(value)), [], tools))
    raise InvalidRequest(
        f"tool_choice must be 'auto', 'none', 'required', a tool's name or function, or a mapping, not {shown(value)}"
    )


def _word_of_mapping(value: Mapping[str, Any]) -> str | None:
    """The equivalent of OpenAI's or Anthropic's mapping; None if there is none."""
    kind, function = value.get("type"), value.get("function")
    if kind == "function" and isinstance(function, Mapping) and isinstance(function.get("name"), str):
        return str(function["name"])
    if kind in ("tool", "function") and isinstance(value.get("name"), str) and set(value) == {"type", "name"}:
        return str(value["name"])
    if kind in ("auto", "any", "none") and set(value) == {"type"}:
        return str(kind)
    return None


def _known(name: str, names: Sequence[str], tools: Sequence[Tool]) -> str:
    if name in names:
        return name
    listed = ", ".join(item.name for item in tools)
    raise InvalidRequest(
        f"tool_choice: unknown tool {name!r}; " + (f"available: {listed}" if listed else "pass tools=[...]")
    )
