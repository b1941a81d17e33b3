"""Schemas as single services take them, where these refuse what JSON schema allows."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from llmbridge._schemas.check import JSON, LISTED, NAMED, NUMBERS, SINGLE, SIZES, parts, rebuilt, resolve, types_of

__all__ = [
    "as_openai_takes",
    "holds_itself",
    "strict_form",
    "with_lone_references",
    "without_bounds",
    "without_lookaround",
    "without_patterns",
]

_LOOKS = re.compile(r"\(\?<?[=!]")
_BOUNDS = (*NUMBERS, *SIZES, "pattern", "uniqueItems", "minProperties", "maxProperties")
# What strict mode takes. Of the rest, what only restricts a value is left to the check of the answer.
_KEPT = {
    "$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "items", "maxItems", "minItems",
    "pattern", "properties", "required", "title", "type", *NUMBERS,
}  # fmt: skip
_FORMATS = {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}
# What gives a value its form, and has no counterpart there; additionalItems says nothing beside one schema for all.
_IMPOSSIBLE = {*NAMED, *LISTED, *SINGLE} - _KEPT - {"additionalItems"}


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
        return any(leads_back(inner, above) for _, inner in parts(part))

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


# -- OpenAI's strict mode ----------------------------------------------------------------------------------------------


class _ImpossibleError(Exception):
    """This schema cannot be said in the subset."""


def strict_form(schema: Mapping[str, Any]) -> JSON | None:
    """The schema as strict mode takes it, or None where that is impossible.

    Every property becomes required; those that were not may be null instead. Objects are closed. `default`, string
    lengths and other keywords that are refused there are left out: they are checked when the answer is read.
    Impossible are objects with free keys, values of any type, tuples of mixed types and most combinations.

    Example:
        >>> strict_form({"type": "object", "properties": {"a": {"type": "string"}}})
        {'type': 'object', 'properties': {'a': {'anyOf': [{'type': 'string'}, {'type': 'null'}]}},
         'additionalProperties': False, 'required': ['a']}
    """
    try:
        strict: JSON = rebuilt(without_lookaround(schema), lambda part: _strict(part, schema))
    except _ImpossibleError:
        return None
    return strict if strict.get("type") == "object" and "anyOf" not in strict else None


def _strict(schema: JSON, document: Mapping[str, Any]) -> JSON:
    parts: list[Any] = schema.get("allOf") or []
    if len(parts) == 1 and isinstance(parts[0], dict):
        schema = {**schema, **parts[0]}  # drafts before 2020 had no other way to describe a reference
        del schema["allOf"]
    if "oneOf" in schema and "anyOf" not in schema:
        schema["anyOf"] = schema.pop("oneOf")
    if _IMPOSSIBLE & schema.keys():
        raise _ImpossibleError
    kept = {key: value for key, value in schema.items() if key in _KEPT or (key == "format" and value in _FORMATS)}
    if "$ref" in kept:
        return _reference(kept, document)
    kinds = kept.get("type")
    if "anyOf" not in kept and not kinds:
        kept = _typed(kept)
        kinds = kept["type"]
    if kinds == "object" or "properties" in kept:
        return _closed(kept)
    if isinstance(kinds, list) and "object" in kinds:
        raise _ImpossibleError
    if "array" in (kinds or ()) and not isinstance(kept.get("items"), dict):
        raise _ImpossibleError
    return kept


def _reference(schema: JSON, document: Mapping[str, Any]) -> JSON:
    """A reference stands alone there; a description of it needs a schema around it."""
    try:
        resolve(schema["$ref"], document)
    except LookupError:
        raise _ImpossibleError from None
    defs = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    if len(schema) == 1:
        return {**schema, **defs}
    return {"anyOf": [{"$ref": schema.pop("$ref")}], **schema, **defs}


def _typed(schema: JSON) -> JSON:
    """With the type that its values or properties have."""
    if "properties" in schema:
        return {"type": "object", **schema}
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not values or any(isinstance(value, (dict, list)) for value in values):
        raise _ImpossibleError
    return {"type": types_of(values), **schema}


def _closed(schema: JSON) -> JSON:
    properties = schema.get("properties")
    # Free keys cannot be said; an object without any property is an empty one only if it was closed.
    rest = schema.get("additionalProperties")
    if rest not in (None, False) or (properties is None and rest is None):
        raise _ImpossibleError
    required = schema.get("required") or []
    properties = {name: part if name in required else _nullable(part) for name, part in (properties or {}).items()}
    if any(not isinstance(part, dict) for part in properties.values()):
        raise _ImpossibleError
    return {**schema, "properties": properties, "additionalProperties": False, "required": list(properties)}


def _nullable(schema: Any) -> Any:
    if not isinstance(schema, dict) or _allows_null(schema):
        return schema
    outside = {key: schema[key] for key in ("title", "description") if key in schema}
    inside = {key: value for key, value in schema.items() if key not in outside}
    options = inside["anyOf"] if set(inside) == {"anyOf"} else [inside]
    return {"anyOf": [*options, {"type": "null"}], **outside}


def _allows_null(schema: JSON) -> bool:
    kinds = schema.get("type")
    if "enum" in schema:
        return None in schema["enum"]
    if kinds == "null" or (isinstance(kinds, list) and "null" in kinds):
        return True
    return any(_allows_null(option) for option in schema.get("anyOf", ()) if isinstance(option, dict))
