"""Where a JSON schema holds other schemas, and where its references lead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["JSON", "LISTED", "NAMED", "SINGLE", "children", "rebuilt", "resolve"]

JSON = dict[str, Any]

NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = (
    "items", "additionalProperties", "additionalItems", "not", "if", "then", "else", "contains", "propertyNames",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip


def rebuilt(schema: Any, change: Callable[[JSON], Any]) -> Any:
    """A copy of the schema with every schema in it changed, the innermost first.

    Args:
        schema: A JSON schema; what is no mapping (True, False) is returned as it is.
        change: Gets a copy whose inner schemas were changed already.
    """
    if not isinstance(schema, Mapping):
        return schema
    copy = dict(schema)
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            copy[key] = {name: rebuilt(item, change) for name, item in value.items()}
        elif isinstance(value, list) and key in (*LISTED, "items"):
            copy[key] = [rebuilt(item, change) for item in value]
        elif key in SINGLE:
            copy[key] = rebuilt(value, change)
    return change(copy)


def children(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The schemas directly in this one."""
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, list) and key in (*LISTED, "items"):
            yield from value
        elif key in SINGLE and isinstance(value, Mapping):
            yield value


def resolve(ref: str, root: Any) -> Any:
    """The schema that a reference within the document names.

    Raises:
        LookupError: It leads nowhere, or out of the document.
    """
    if not ref.startswith("#"):
        raise LookupError(ref)
    found = root
    for step in ref[1:].split("/")[1:]:
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and step.isascii() and step.isdigit() and int(step) < len(found):
            found = found[int(step)]
        elif isinstance(found, Mapping) and step in found:
            found = found[step]
        else:
            raise LookupError(ref)
    return found
