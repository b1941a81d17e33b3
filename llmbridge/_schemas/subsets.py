"""Rewrites schemas for services that accept only a part of JSON schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llmbridge._schemas.check import (
    JSON,
    LISTED,
    NAMED,
    NUMBERS,
    SINGLE,
    SIZES,
    check_references,
    parts,
    rebuilt,
    resolve,
    types_of,
)
from llmbridge.errors import InvalidRequest

__all__ = [
    "as_openai_takes",
    "holds_itself",
    "modern",
    "object_form",
    "strict_form",
    "tool_form",
    "with_lone_references",
    "without_bounds",
    "without_lookaround",
    "without_patterns",
]

_LOOKS = re.compile(r"\(\?<?[=!]")
_BOUNDS = (*NUMBERS, *SIZES, "pattern", "uniqueItems", "minProperties", "maxProperties")
# The keywords that strict mode accepts. Others that only restrict a value are checked in the answer.
_KEPT = {
    "$defs", "$ref", "additionalProperties", "anyOf", "const", "description", "enum", "items", "maxItems", "minItems",
    "pattern", "properties", "required", "title", "type", *NUMBERS,
}  # fmt: skip
_FORMATS = {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"}
# Keywords that shape a value and have no equivalent there; additionalItems is ignored beside one schema for all items.
_IMPOSSIBLE = {*NAMED, *LISTED, *SINGLE} - _KEPT - {"additionalItems"}
_BRANCHES = ("if", "then", "else")
# Keywords that make alternatives of an object: services reject most of them at the top of a tool's schema.
_CASES = ("anyOf", "oneOf", "enum", "const", "not", *_BRANCHES)
_TOP = (*_CASES, "allOf", "$ref")
_WORDS = {
    *NAMED, *LISTED, *SINGLE, *_BOUNDS, "additionalItems", "description", "enum", "format", "required", "title", "type",
}  # fmt: skip


def modern(schema: Mapping[str, Any]) -> JSON:
    """The schema in draft 2020-12, which services validate against: older keywords are translated.

    A keyword that is null is left out, as are `$schema` and `$id`.

    Source: Anthropic's "JSON schema is invalid. It must match JSON Schema draft 2020-12"; Mistral's "Invalid tool
    schema ... is not valid under any of the given schemas" (pdf-reader-mcp#63), and its grammar's failure at `$schema`
    and `$id` (litellm#13389); OpenAI's "None is not of type".

    Example:
        >>> modern({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "title": None})
        {'type': 'integer', 'exclusiveMinimum': 0}
        >>> modern({"type": "array", "items": [{"type": "string"}], "additionalItems": False})
        {'type': 'array', 'prefixItems': [{'type': 'string'}], 'items': False}
    """

    def translated(part: JSON) -> JSON:
        part = {key: value for key, value in part.items() if value is not None or key not in _WORDS}
        for bound, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            if isinstance(part.get(bound), bool) and part.pop(bound) and limit in part:
                part[bound] = part.pop(limit)
        if isinstance(part.get("items"), list):
            first, rest = part.pop("items"), part.pop("additionalItems", None)
            part.update({"prefixItems": first} if first else {}, **({} if rest is None else {"items": rest}))
        return {key: value for key, value in part.items() if key not in ("$schema", "$id")}

    made: JSON = rebuilt(schema, translated)
    return made


def without_bounds(schema: Mapping[str, Any]) -> JSON:
    """Moves bounds into the descriptions, for services that reject the keywords.

    Source: Anthropic, Structured outputs, JSON schema limitations. Only a minItems of 0 or 1 is supported there.

    Example:
        >>> without_bounds({"type": "integer", "minimum": 1, "description": "How many."})
        {'type': 'integer', 'description': 'How many. (minimum: 1)'}
    """

    return _described_instead(
        schema, lambda part, key: key in _BOUNDS and not (key == "minItems" and part[key] in (0, 1))
    )


def without_patterns(schema: Mapping[str, Any]) -> JSON:
    """Moves patterns into the descriptions, for servers that make a grammar of the schema.

    Source: llama.cpp's json-schema-to-grammar, also used by LM Studio and Ollama: it fails at patterns that its
    grammars cannot express, such as one for a part of the text.
    """
    return _described_instead(schema, lambda part, key: key == "pattern")


def without_lookaround(schema: Mapping[str, Any]) -> JSON:
    """Moves patterns with lookaround, or that Python cannot read, into the descriptions.

    Source: OpenAI's "regex lookaround is not supported", and "is not a 'regex'" for what Python's `re` rejects, also in
    the keys of `patternProperties` (clodex#197). pydantic writes such patterns for a Decimal.

    Example:
        >>> without_lookaround({"type": "string", "pattern": "^(?!-)"})
        {'type': 'string', 'description': '(pattern: ^(?!-))'}
    """

    def is_refused(part: JSON, key: str) -> bool:
        given = part[key] if key in ("pattern", "patternProperties") else ()
        return any(map(_looks_around, [given] if isinstance(given, str) else given))

    return _described_instead(schema, is_refused)


def _looks_around(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return True
    return bool(_LOOKS.search(pattern))


def as_openai_takes(schema: Mapping[str, Any]) -> JSON:
    """The schema without rejected patterns, and with `items` in each array.

    Source: OpenAI's "array schema missing items", even beside `prefixItems`; Groq's "'required' present but
    'properties' is missing". If a grammar is made of the schema, `items` must not come beside `prefixItems`:
    llama.cpp then ignores the order. It also takes `{}` for an object, not for anything.

    Example:
        >>> as_openai_takes({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}]})["items"]
        {'anyOf': [{'type': 'integer'}, {'type': 'string'}]}
        >>> as_openai_takes({"type": ["array", "null"]})
        {'type': ['array', 'null'], 'items': {}}
    """
    made: JSON = rebuilt(with_items(without_lookaround(schema)), _with_properties)
    return made


def with_items(schema: Mapping[str, Any]) -> JSON:
    """The schema with `items` in each array, which OpenAI and Gemini demand; see `as_openai_takes`."""

    def complete(part: JSON) -> JSON:
        kinds, first = part.get("type"), part.get("prefixItems")
        if "items" in part or not (first or kinds == "array" or (isinstance(kinds, list) and "array" in kinds)):
            return part
        return {**part, "items": {"anyOf": first} if first else {}}

    made: JSON = rebuilt(schema, complete)
    return made


def _with_properties(part: JSON) -> JSON:
    return {**part, "properties": {}} if part.get("required") and "properties" not in part else part


def _described_instead(schema: Mapping[str, Any], is_refused: Callable[[JSON, str], bool]) -> JSON:
    """The schema with some keywords moved into the descriptions."""

    def changed(part: JSON) -> JSON:
        refused = {key: value for key, value in part.items() if is_refused(part, key)}
        if not refused:
            return part
        words = f"({', '.join(f'{key}: {_word(value)}' for key, value in refused.items())})"
        return _described({key: value for key, value in part.items() if key not in refused}, words)

    made: JSON = rebuilt(schema, changed)
    return made


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _described(schema: JSON, words: str) -> JSON:
    said = schema.get("description")
    return {**schema, "description": f"{said} {words}" if isinstance(said, str) and said else words}


# -- one object at the top ---------------------------------------------------------------------------------------------


def tool_form(name: str, description: str, parameters: Mapping[str, Any]) -> tuple[dict[str, str], JSON]:
    """A tool for a service: its description, if there is one, and its schema as a single object.

    Services reject alternatives at the top of the schema: these are moved into the description, and their properties
    into the schema. A reference at the top is resolved, and the parts of `allOf` are merged.

    Args:
        name: The tool's, for the error.
        description: The tool's own; may be "".
        parameters: The tool's schema, of an object.

    Raises:
        InvalidRequest: A reference cannot be resolved, or too many refer to alternatives.

    Source: Anthropic's "input_schema does not support oneOf, allOf, or anyOf at the top level"; OpenAI's "schema must
    have type 'object' and not have 'oneOf'/'anyOf'/'allOf'/'enum'/'not' at the top level"; llama.cpp reads nothing else
    beside `anyOf` when it makes a grammar.

    Example:
        >>> needed = [{"required": ["id"]}, {"required": ["name"], "properties": {"name": {}}}]
        >>> tool, schema = tool_form("find", "Finds.", {"type": "object", "properties": {"id": {}}, "anyOf": needed})
        >>> tool["description"]
        'Finds. (anyOf: [{"required": ["id"]}, {"required": ["name"], "properties": {"name": {}}}])'
        >>> schema
        {'type': 'object', 'properties': {'id': {}, 'name': {}}}
    """
    check_references(parameters, f"tool {name}: parameters")
    try:
        schema, words = _one_object(parameters)
    except InvalidRequest as error:
        raise InvalidRequest(f"tool {name}: parameters: {error.message}") from None
    text = f"{description} {words}".strip()
    return ({"description": text} if text else {}), schema


def object_form(schema: Mapping[str, Any]) -> JSON:
    """The schema of a single object, as for `tool_form`; what it cannot express is moved into its own description."""
    made, words = _one_object(schema)
    return _described(made, words) if words else made


def _one_object(schema: Mapping[str, Any]) -> tuple[JSON, str]:
    """The schema without the keywords that services reject at its top, and these as text."""
    if not any(key in schema for key in _TOP):
        return dict(schema), ""
    made, cases = _Flattening(schema).flat(schema, ())
    words = ", ".join(f"{key}: {_word(value)}" for key, value in cases)
    made = {**made, "type": "object", "properties": made.get("properties") or {}}
    return _Targets(schema).in_place(made, ()), f"({words})" if words else ""


class _Flattening:
    """Merges a schema into a single object.

    Args:
        document: The whole schema.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._known: dict[str, tuple[JSON, list[tuple[str, Any]]]] = {}  # by reference

    def flat(self, schema: Any, above: tuple[str, ...]) -> tuple[JSON, list[tuple[str, Any]]]:
        """The schema as one object, and the alternatives that it cannot express.

        Args:
            schema: A part of the document.
            above: The references that led to it.
        """
        if not isinstance(schema, Mapping):
            return {}, []
        made = {key: value for key, value in schema.items() if key not in _TOP}
        cases = [(key, schema[key]) for key in _CASES if key in schema]
        parts = [self.flat(part, above) for part in schema.get("allOf") or ()]
        ref = schema.get("$ref")
        if isinstance(ref, str) and ref not in above:
            if ref not in self._known:
                self._known[ref] = self.flat(resolve(ref, self._document), (*above, ref))
            parts.append(self._known[ref])
        for other, more in parts:
            made, cases = _both(made, other), cases + [case for case in more if case not in cases]
        for key in ("anyOf", "oneOf"):
            options = [self.flat(option, above)[0] for option in schema.get(key) or ()]
            made = _either(made, [option for option in options if "object" in (option.get("type") or "object")])
        branches = [{**self.flat(schema[key], above)[0], "required": []} for key in _BRANCHES[1:] if key in schema]
        return _either(made, [*branches, {}] if branches else []), cases


def _both(one: JSON, other: JSON) -> JSON:
    """The schema of objects that fit both."""
    mine, theirs = one.get("properties") or {}, other.get("properties") or {}
    properties = {
        name: {"allOf": [mine[name], part]} if mine.get(name, part) != part else part for name, part in theirs.items()
    }
    required = list(dict.fromkeys([*(one.get("required") or ()), *(other.get("required") or ())]))
    rest = {key: value for key, value in other.items() if key not in ("$defs", "definitions")}
    made = {**rest, **one, "properties": {**mine, **properties}}
    return {**made, "required": required} if required else made


def _either(one: JSON, options: list[JSON]) -> JSON:
    """The schema of objects that fit it and may fit any of the options, with the properties of all."""
    if not options:
        return one
    mine: JSON = dict(one.get("properties") or {})
    found: dict[str, list[Any]] = {}
    for option in options if one.get("additionalProperties") is not False else ():
        for name, part in (option.get("properties") or {}).items():
            if name not in mine and part not in found.setdefault(name, []):
                found[name].append(part)
    made = {**one, "properties": {**mine, **{name: _any_of(parts) for name, parts in found.items()}}}
    common = [name for name in options[0].get("required") or () if all(name in _required(part) for part in options)]
    if required := list(dict.fromkeys([*_required(one), *common])):
        made["required"] = required
    if all(option.get("additionalProperties") is False for option in options):
        made.setdefault("additionalProperties", False)
    return made


def _required(schema: JSON) -> Iterable[str]:
    return schema.get("required") or ()


def _any_of(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else {"anyOf": parts}


class _Targets:
    """The targets of references to parts that were removed from the top of a schema.

    Args:
        document: The original schema.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._left = 1000  # targets may contain others: a few lines could grow into an endless request

    def in_place(self, schema: Any, above: tuple[str, ...]) -> Any:
        """The schema with the references replaced by their targets; a circular one ends.

        Raises:
            InvalidRequest: There are too many.
        """

        def followed(part: JSON) -> Any:
            ref = part.get("$ref")
            if not isinstance(ref, str) or ref[2:].partition("/")[0] not in _TOP:
                return part
            rest = {key: value for key, value in part.items() if key != "$ref"}
            if ref in above:
                return rest
            self._left -= 1
            if self._left < 0:
                raise InvalidRequest(f'"$ref": "{ref}" and others refer to alternatives: put their targets in "$defs"')
            target = self.in_place(resolve(ref, self._document), (*above, ref))
            return {**target, **rest} if isinstance(target, Mapping) else target

        return rebuilt(schema, followed)


def holds_itself(document: Mapping[str, Any]) -> bool:
    """Whether the schema is recursive, so that values may be of any depth.

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
                pass  # unresolved: the service will report it
            harmless.add(ref)
        return any(leads_back(inner, above) for _, inner in parts(part))

    return leads_back(document, ())


def with_lone_references(schema: Mapping[str, Any]) -> JSON:
    """The schema with references alone: Gemini rejects a description or a default beside one.

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
    """The subset cannot express this schema."""


def strict_form(schema: Mapping[str, Any]) -> JSON | None:
    """The schema in OpenAI's strict subset, or None if that is impossible.

    Every property becomes required; optional ones may be null instead. Objects are closed. `default`, string lengths
    and other keywords that are rejected there are left out: they are checked when the answer is read. Objects with free
    keys, values of any type, tuples of mixed types and most combinations are impossible.

    Example:
        >>> strict_form({"type": "object", "properties": {"a": {"type": "string"}}})
        {'type': 'object', 'properties': {'a': {'anyOf': [{'type': 'string'}, {'type': 'null'}]}},
         'additionalProperties': False, 'required': ['a']}
    """
    try:
        strict: JSON = rebuilt(without_lookaround(schema), lambda part: _strict(part, schema))
    except _ImpossibleError:
        return None
    return strict if strict.get("type") == "object" and not any(key in strict for key in _TOP) else None


def _strict(schema: JSON, document: Mapping[str, Any]) -> JSON:
    parts: list[Any] = schema.get("allOf") or []
    if len(parts) == 1 and isinstance(parts[0], dict):
        schema = {**schema, **parts[0]}  # the only way to describe a reference before draft 2020
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
    """A reference must be alone there; its description needs a schema around it."""
    try:
        resolve(schema["$ref"], document)
    except LookupError:
        raise _ImpossibleError from None
    defs = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
    if len(schema) == 1:
        return {**schema, **defs}
    return {"anyOf": [{"$ref": schema.pop("$ref")}], **schema, **defs}


def _typed(schema: JSON) -> JSON:
    """Adds the type that its values or properties imply."""
    if "properties" in schema:
        return {"type": "object", **schema}
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not values or any(isinstance(value, (dict, list)) for value in values):
        raise _ImpossibleError
    return {"type": types_of(values), **schema}


def _closed(schema: JSON) -> JSON:
    properties = schema.get("properties")
    # Free keys cannot be expressed; an object without any property is an empty one only if it was closed.
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
