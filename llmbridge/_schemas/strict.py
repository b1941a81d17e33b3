"""The subset of JSON schema that OpenAI's strict mode takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbridge._schemas.subsets import without_lookaround
from llmbridge._schemas.walk import JSON, rebuilt, resolve

__all__ = ["strict_form"]

# What restricts or describes a value and may stay. Of the rest, what only restricts is left to the check of the answer.
_KEPT = {
    "$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "exclusiveMaximum",
    "exclusiveMinimum", "items", "maxItems", "maximum", "minItems", "minimum", "multipleOf", "pattern", "properties",
    "required", "title", "type",
}  # fmt: skip
_FORMATS = {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}
# What gives a value its form, and has no counterpart there.
_IMPOSSIBLE = {
    "allOf", "contains", "definitions", "dependentSchemas", "else", "if", "not", "patternProperties", "prefixItems",
    "propertyNames", "then", "unevaluatedItems", "unevaluatedProperties",
}  # fmt: skip


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
    if (_IMPOSSIBLE | {"oneOf"}) & schema.keys():
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
    if (isinstance(kinds, list) and "object" in kinds) or ("array" in (kinds or ()) and not _items_known(kept)):
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
    kinds = {bool: "boolean", str: "string", int: "integer", float: "number", type(None): "null"}
    found = list(dict.fromkeys(kinds.get(type(value), "") for value in values or ()))
    if not found or "" in found:
        raise _ImpossibleError
    return {"type": found[0] if len(found) == 1 else found, **schema}


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


def _items_known(schema: JSON) -> bool:
    return isinstance(schema.get("items"), dict)


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
