"""Schemas as single services take them, where these refuse what JSON schema allows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from llmbridge._schemas.walk import JSON, children, rebuilt, resolve

__all__ = [
    "as_openai_takes",
    "holds_itself",
    "with_lone_references",
    "without_bounds",
    "without_lookaround",
    "without_patterns",
]

_LOOKS = re.compile(r"\(\?<?[=!]")
_BOUNDS = (
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern",
    "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties",
)  # fmt: skip


def without_bounds(schema: Mapping[str, Any]) -> JSON:
    """The schema whose bounds are told in its descriptions, for services that refuse the keywords.

    Source: Anthropic, Structured outputs, JSON schema limitations. A minItems of 0 or 1 is the only bound known there.

    Example:
        >>> without_bounds({"type": "integer", "minimum": 1, "description": "How many."})
        {'type': 'integer', 'description': 'How many. (minimum: 1)'}
    """

    return _told(schema, lambda part, key: key in _BOUNDS and not (key == "minItems" and part[key] in (0, 1)))


def without_patterns(schema: Mapping[str, Any]) -> JSON:
    """The schema whose patterns are told in its descriptions, for servers that make a grammar of it.

    Source: llama.cpp's json-schema-to-grammar, which LM Studio and Ollama have too: it fails at what its grammars
    cannot say, such as a pattern for a part of the text.
    """
    return _told(schema, lambda part, key: key == "pattern")


def without_lookaround(schema: Mapping[str, Any]) -> JSON:
    """The schema whose patterns that look ahead or back are told in its descriptions.

    Source: OpenAI's "regex lookaround is not supported". pydantic writes such patterns for a Decimal.

    Example:
        >>> without_lookaround({"type": "string", "pattern": "^(?!-)"})
        {'type': 'string', 'description': '(pattern: ^(?!-))'}
    """
    return _told(
        schema, lambda part, key: key == "pattern" and isinstance(part[key], str) and bool(_LOOKS.search(part[key]))
    )


def as_openai_takes(schema: Mapping[str, Any]) -> JSON:
    """The schema without patterns that look around, its tuples with a word on what may be in them.

    Source: OpenAI's "array schema missing items", whatever stands in `prefixItems`. Where a grammar is made of the
    schema, `items` must not stand beside it: llama.cpp then reads nothing else, and forgets the order.

    Example:
        >>> as_openai_takes({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]})["items"]
        {'anyOf': [{'type': 'integer'}, {'type': 'string'}]}
    """

    def with_items(part: JSON) -> JSON:
        first = part.get("prefixItems")
        return {**part, "items": {"anyOf": first}} if first and "items" not in part else part

    made: JSON = rebuilt(without_lookaround(schema), with_items)
    return made


def _told(schema: Mapping[str, Any], is_refused: Callable[[JSON, str], bool]) -> JSON:
    """The schema with some keywords moved into the descriptions."""

    def told(part: JSON) -> JSON:
        refused = {key: value for key, value in part.items() if is_refused(part, key)}
        if not refused:
            return part
        words = f"({', '.join(f'{key}: {value}' for key, value in refused.items())})"
        said = part.get("description")
        kept = {key: value for key, value in part.items() if key not in refused}
        return {**kept, "description": f"{said} {words}" if isinstance(said, str) and said else words}

    made: JSON = rebuilt(schema, told)
    return made


def holds_itself(document: Mapping[str, Any]) -> bool:
    """Whether a reference in the schema leads back to itself, so that values may be of any depth.

    Example:
        >>> holds_itself({"properties": {"next": {"$ref": "#"}}})
        True
    """
    harmless: set[str] = set()

    def leads_back(part: Any, above: tuple[str, ...]) -> bool:
        if not isinstance(part, Mapping):
            return False
        ref = part.get("$ref")
        if isinstance(ref, str) and ref not in harmless:
            if ref in above:
                return True
            try:
                if leads_back(resolve(ref, document), (*above, ref)):
                    return True
            except LookupError:
                pass  # it leads nowhere: the service will say so
            harmless.add(ref)
        return any(leads_back(child, above) for child in children(part))

    return leads_back(document, ())


def with_lone_references(schema: Mapping[str, Any]) -> JSON:
    """The schema in which nothing stands beside a reference: Gemini refuses a description or a default there.

    Source: the service's "can only contain properties starting with '$' when $ref is present".

    Example:
        >>> with_lone_references({"$ref": "#/$defs/City", "description": "Where."})
        {'anyOf': [{'$ref': '#/$defs/City'}], 'description': 'Where.'}
    """

    def alone(part: JSON) -> JSON:
        if "$ref" not in part or "anyOf" in part or all(key.startswith("$") for key in part):
            return part
        rest = {key: value for key, value in part.items() if key != "$ref"}
        return {"anyOf": [{"$ref": part["$ref"]}], **rest}

    made: JSON = rebuilt(schema, alone)
    return made
