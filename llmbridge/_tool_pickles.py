"""How a tool is pickled: by the name of its function, as functions are."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FunctionType
from typing import Any

from llmbridge.tools import Tool

__all__ = ["reduce_tool"]


def reduce_tool(tool: Tool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """What `pickle` is to keep of a tool.

    Raises:
        TypeError: Nobody could find its function again.
    """
    function = tool.function
    made = (tool.name, tool.description, tool.parameters)
    if not isinstance(function, FunctionType):  # of a method, a class and all else, pickle knows how to find them
        if tool._signature is None:
            return Tool, (*made, function, tool.strict, tool.raw)
        return _remade, (function, *made, tool.strict)
    place = (function.__module__, function.__qualname__)
    found = _found(*place)
    if found is tool:
        return _found, place
    if found is not function and not (isinstance(found, Tool) and found.function is function):
        raise TypeError(
            f"the tool {tool.name} cannot be pickled: its function {function.__qualname__} is not found by that name "
            f"in {function.__module__}: define it at the top of a module"
        )
    if tool._signature is None:
        return Tool, (*made, function, tool.strict, tool.raw)
    return _remade, (place, *made, tool.strict)


def _found(module: str, name: str) -> Any:
    """What stands under a name in a module; None if nothing does."""
    if module not in sys.modules:
        __import__(module)
    place: Any = sys.modules[module]
    for part in name.split("."):
        place = getattr(place, part, None)
    return place


def _remade(source: Any, name: str, description: str, parameters: Mapping[str, Any], strict: bool | None) -> Tool:
    """A tool of the function, or of what stands in its place by now, as it was described."""
    found = _found(*source) if isinstance(source, tuple) else source
    made = Tool.of(found.function if isinstance(found, Tool) else found)
    return replace(made, name=name, description=description, parameters=parameters, strict=strict)
