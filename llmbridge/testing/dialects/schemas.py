"""What services reject in the schemas of tools and answers, and where it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["BOUNDS", "PROPERTY", "bare_arrays", "old_words", "patterns", "places", "top_words"]

PROPERTY = re.compile(r"[a-zA-Z0-9_.-]{1,64}")
"""The names that Anthropic accepts for a property at the top of a tool's schema."""
BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "maxItems",
    "pattern", "uniqueItems",
)  # fmt: skip
"""The keywords that Anthropic rejects in strict schemas."""

_NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_LOOKS = re.compile(r"\(\?<?[=!]")
_KNOWN = {*_NAMED, *_LISTED, *_SINGLE, *BOUNDS, "type", "required", "enum", "description", "title", "minItems"}

Place = tuple[str, ...]


def places(schema: Any, at: Place = ()) -> Iterator[tuple[Place, Mapping[str, Any]]]:
    """Every schema in a schema, itself first, each with the path to it."""
    if not isinstance(schema, Mapping):
        return
    yield at, schema
    for key, value in schema.items():
        if key in _NAMED and isinstance(value, Mapping):
            for name, part in value.items():
                yield from places(part, (*at, key, name))
        elif key in _LISTED and isinstance(value, list):
            for number, part in enumerate(value):
                yield from places(part, (*at, key, str(number)))
        elif key in _SINGLE:
            yield from places(value, (*at, key))


def top_words(schema: Mapping[str, Any], refused: tuple[str, ...]) -> list[str]:
    """Which of the keywords are at the top."""
    return [key for key in refused if key in schema]


def bare_arrays(schema: Any) -> list[Place]:
    """The places of arrays without items."""
    return [at for at, part in places(schema) if "array" in _kinds(part) and "items" not in part]


def patterns(schema: Any) -> list[tuple[Place, str]]:
    """The places of patterns with lookaround or that Python cannot read, and the patterns."""
    found = [(at, text) for at, part in places(schema) for text in _patterns(part)]
    return [(at, text) for at, text in found if _LOOKS.search(text) or not _is_regex(text)]


def old_words(schema: Any) -> list[Place]:
    """The places that break the rules of draft 2020-12."""
    return [
        at
        for at, part in places(schema)
        if any(isinstance(part.get(name), bool) for name in ("exclusiveMinimum", "exclusiveMaximum"))
        or isinstance(part.get("items"), list)
        or any(value is None and key in _KNOWN for key, value in part.items())
        or isinstance(part.get("required"), bool)
    ]


def _kinds(part: Mapping[str, Any]) -> list[Any]:
    """The types of a schema; Gemini's may be in capitals."""
    kinds = part.get("type")
    return [str(kind).lower() for kind in (kinds if isinstance(kinds, list) else [kinds])]


def _patterns(part: Mapping[str, Any]) -> list[str]:
    keys = part.get("patternProperties")
    found = [part.get("pattern"), *(keys if isinstance(keys, Mapping) else ())]
    return [text for text in found if isinstance(text, str)]


def _is_regex(text: str) -> bool:
    try:
        re.compile(text)
    except re.error:
        return False
    return True
