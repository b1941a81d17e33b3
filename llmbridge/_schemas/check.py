"""Validates a JSON value against a JSON schema, and a schema against the standard."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llmbridge._schemas.patterns import Patterns, TooCostly
from llmbridge._text import shortened, shown
from llmbridge.errors import InvalidRequest

__all__ = [
    "JSON", "LISTED", "NAMED", "NUMBERS", "SINGLE", "SIZES", "Checked", "check", "check_form", "check_references",
    "closest", "joined",
    "kind_of", "listed", "parts", "quoted", "rebuilt", "resolve", "type_of", "types_of",
]  # fmt: skip

JSON = dict[str, Any]

NAMED = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
LISTED = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLE = (
    "items", "additionalProperties", "additionalItems", "not", "if", "then", "else", "contains", "propertyNames",
    "unevaluatedItems", "unevaluatedProperties",
)  # fmt: skip
NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
SIZES = ("minLength", "maxLength", "minItems", "maxItems")

# The type of each keyword's value by the standard, and its name in a message.
_FORMS: dict[str, tuple[tuple[type, ...], str]] = {
    **dict.fromkeys(NAMED, ((Mapping,), "an object of schemas")),
    **dict.fromkeys(LISTED, ((list,), "a list of schemas")),
    **dict.fromkeys(SINGLE, ((Mapping, bool), "a schema")),
    **dict.fromkeys(NUMBERS, ((int, float), "a number")),  # a bool too, as draft 4 wrote exclusiveMinimum
    **dict.fromkeys(SIZES, ((int, float), "a number")),
    **dict.fromkeys(("$ref", "format", "pattern"), ((str,), "a str")),
    "items": ((Mapping, bool, list), "a schema"),
    "type": ((str, list), "the name of a type, or a list of them"),
    "required": ((list,), "a list of names"),
    "dependentRequired": ((Mapping,), "an object of lists of names"),
    **dict.fromkeys(("minProperties", "maxProperties"), ((int, float), "a number")),
    "enum": ((list,), "a list of values"),
}
_TYPES = {
    dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null",
}  # fmt: skip
_NAMES = {
    "object": "an object", "array": "an array", "string": "a string", "boolean": "a boolean", "integer": "an integer",
    "number": "a number", "null": "null",
}  # fmt: skip
_LIMITS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda value, limit: value >= limit, "at least"),
    "maximum": (lambda value, limit: value <= limit, "at most"),
    "exclusiveMinimum": (lambda value, limit: value > limit, "greater than"),
    "exclusiveMaximum": (lambda value, limit: value < limit, "less than"),
}


def check(value: Any, schema: Any, path: str = "") -> Checked:
    """The problems of a value, and the value without nulls that mean "left out".

    Covers type, enum, const, properties, patternProperties, required, additionalProperties, propertyNames, items,
    prefixItems, contains, minItems, maxItems, uniqueItems, minProperties, maxProperties, dependentRequired,
    dependentSchemas, anyOf, oneOf, allOf, not, if, then, else, minimum, maximum, exclusiveMinimum, exclusiveMaximum,
    multipleOf, minLength, maxLength, pattern (as far as Python's `re` reads it) and `$ref` within the document. Other
    keywords are ignored. A null for a property that is not required and may not be null counts as left out, since
    some services demand every property.

    Args:
        value: As parsed by `json.loads`.
        schema: The whole document.
        path: The place of the value in another one, for problems.

    Example:
        >>> check({"age": "7"}, {"properties": {"age": {"type": "integer"}}}).problems
        ['age: expected an integer, got the string "7"']
        >>> check([1, -2], {"items": {"minimum": 0}}).problems
        ['[1]: must be at least 0']
    """
    checked = Checked(schema)
    checked.check(value, schema, path)
    checked.value = _without(value, {(id(owner), key) for owner, key in checked.dropped}) if checked.dropped else value
    return checked


def type_of(value: Any) -> str:
    """The name of its type in JSON schema; "" for types outside JSON."""
    return next((name for cls, name in _TYPES.items() if isinstance(value, cls)), "")


def types_of(values: Iterable[Any]) -> str | list[str]:
    """The `type` for a schema of these values: one name, or a list of names."""
    kinds = list(dict.fromkeys(map(type_of, values)))
    return kinds[0] if len(kinds) == 1 else kinds


def kind_of(value: Any) -> str:
    """The name of a JSON value in a message."""
    kind = type_of(value)
    return _NAMES["number" if kind in ("integer", "") else kind]


def quoted(value: Any) -> str:
    """A value in a message: its type and its beginning."""
    kind = kind_of(value)
    if value is None or isinstance(value, (dict, list)):
        return kind
    return f"the {kind.partition(' ')[2]} {shortened(json.dumps(value, ensure_ascii=False), 40)}"


class Checked:
    """One check of one value.

    Attributes:
        problems: "path: what is wrong", in the order of the schema.
        dropped: Where the nulls are that count as left out.
        value: The value without them.
    """

    def __init__(self, document: Any) -> None:
        self.document = document
        self.value: Any = None
        self.problems: list[str] = []
        self.dropped: list[tuple[dict[str, Any], str]] = []
        self._patterns = Patterns()
        self._slow: list[str] = []

    @property
    def slow(self) -> list[str]:
        """The problems with patterns that might have taken `re` a very long time."""
        return [problem for problem in self.problems if problem in self._slow]

    def check(self, value: Any, schema: Any, path: str) -> None:
        """Adds the problems of the value."""
        if schema is False:
            self._wrong(path, "is not allowed here")
        if not isinstance(schema, Mapping):
            return
        if isinstance(ref := schema.get("$ref"), str):
            try:
                self.check(value, resolve(ref, self.document), path)
            except LookupError:
                self._wrong(path, f"its schema refers to {ref}, which does not exist")
        if not self._check_kind(value, schema, path):
            return
        self._check_combinations(value, schema, path)
        if isinstance(value, dict):
            self._check_object(value, schema, path)
        elif isinstance(value, list):
            self._check_array(value, schema, path)
        elif isinstance(value, str):
            self._check_string(value, schema, path)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            self._check_number(value, schema, path)

    def _wrong(self, path: str, problem: str) -> None:
        self.problems.append(f"{path or '(root)'}: {problem}")

    def _check_kind(self, value: Any, schema: Mapping[str, Any], path: str) -> bool:
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if kinds and not any(_is(value, kind) for kind in kinds):
            names = " or ".join(_NAMES.get(kind, str(kind)) for kind in kinds)
            self._wrong(path, f"expected {names}, got {quoted(value)}")
            return False
        allowed = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(allowed, list) and not any(_same(value, item) for item in allowed):
            self._wrong(path, f"must be {listed(allowed)}, got {quoted(value)}")
            return False
        return True

    def _fits(self, value: Any, schema: Any, path: str) -> list[str]:
        """The problems of an option, without adding them."""
        problems, dropped = len(self.problems), len(self.dropped)
        self.check(value, schema, path)
        found = self.problems[problems:]
        del self.problems[problems:]
        if found:
            del self.dropped[dropped:]
        return found

    def _check_combinations(self, value: Any, schema: Mapping[str, Any], path: str) -> None:
        for part in schema.get("allOf") or ():
            self.check(value, part, path)
        if options := schema.get("anyOf"):
            tried = []
            for option in options:
                tried.append(self._fits(value, option, path))
                if not tried[-1]:
                    break
            else:
                self.problems += closest(tried)
        if options := schema.get("oneOf"):
            tried = [self._fits(value, option, path) for option in options]
            if (fitting := tried.count([])) > 1:
                self._wrong(path, f"must fit exactly one of {len(options)} forms, but fits {fitting}")
            elif not fitting:
                self.problems += closest(tried)
        if "not" in schema and not self._fits(value, schema["not"], path):
            self._wrong(path, "has an excluded form")
        if "if" in schema:
            branch = "else" if self._fits(value, schema["if"], path) else "then"
            self.check(value, schema.get(branch, True), path)

    def _check_object(self, value: dict[str, Any], schema: Mapping[str, Any], path: str) -> None:
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        for key in required:
            if key not in value:
                self._wrong(joined(path, key), "is missing")
        self._check_dependents(value, schema, path)
        self._check_size(len(value), schema, ("minProperties", "maxProperties", "properties"), path)
        patterns = (schema.get("patternProperties") or {}).items()
        rest = schema.get("additionalProperties", True)
        for key, item in value.items():
            where = joined(path, key)
            parts = [part for text, part in patterns if self._matches(text, key, where)]
            if key in properties:
                parts.append(properties[key])
            if problems := self._fits(key, schema.get("propertyNames", True), where):
                self.problems += problems
            if not parts and rest is False:
                self._wrong(where, f"is unknown; known are {listed(list(properties)) or 'none'}")
                continue
            for part in parts or [rest]:
                problems = self._fits(item, part, where)
                if problems and item is None and key in properties and key not in required:
                    self.dropped.append((value, key))
                else:
                    self.problems += problems

    def _check_dependents(self, value: dict[str, Any], schema: Mapping[str, Any], path: str) -> None:
        for key, names in (schema.get("dependentRequired") or {}).items():
            for name in names if key in value and isinstance(names, list) else ():
                if name not in value:
                    self._wrong(joined(path, name), f"is missing, which {key} needs")
        for key, part in (schema.get("dependentSchemas") or {}).items():
            if key in value:
                self.check(value, part, path)

    def _check_array(self, value: list[Any], schema: Mapping[str, Any], path: str) -> None:
        first, rest = schema.get("prefixItems") or [], schema.get("items", True)
        if isinstance(rest, list):  # drafts before 2020
            first, rest = rest, schema.get("additionalItems", True)
        for i, item in enumerate(value):
            self.check(item, first[i] if i < len(first) else rest, f"{path}[{i}]")
        self._check_size(len(value), schema, ("minItems", "maxItems", "items"), path)
        if (
            "contains" in schema
            and schema.get("minContains") != 0
            and all(self._fits(item, schema["contains"], path) for item in value)
        ):
            self._wrong(path, "lacks a required item (see contains)")
        if schema.get("uniqueItems") is True and any(
            _same(item, other) for i, item in enumerate(value) for other in value[:i]
        ):
            self._wrong(path, "must not have two equal items")

    def _check_string(self, value: str, schema: Mapping[str, Any], path: str) -> None:
        self._check_size(len(value), schema, ("minLength", "maxLength", "characters"), path)
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and self._matches(pattern, value, path) is False:
            self._wrong(path, f"must match {pattern}, got {quoted(value)}")
            if self._patterns.slow:
                self._slow.append(self.problems[-1])

    def _matches(self, pattern: str, text: str, path: str) -> bool | None:
        try:
            return self._patterns.found(pattern, text)
        except TooCostly:
            self._wrong(path, f"is too long to check against {pattern}")
            self._slow.append(self.problems[-1])
            return None

    def _check_size(self, size: int, schema: Mapping[str, Any], words: tuple[str, str, str], path: str) -> None:
        low, high = schema.get(words[0]), schema.get(words[1])
        if low is not None and size < low:
            self._wrong(path, f"must have at least {low} {words[2]}, has {size}")
        if high is not None and size > high:
            self._wrong(path, f"must have at most {high} {words[2]}, has {size}")

    def _check_number(self, value: float, schema: Mapping[str, Any], path: str) -> None:
        for keyword, (fits, words) in _LIMITS.items():
            limit = schema.get(keyword)
            if isinstance(limit, (int, float)) and not isinstance(limit, bool) and not fits(value, limit):
                self._wrong(path, f"must be {words} {limit}")
        step = schema.get("multipleOf")
        if isinstance(step, (int, float)) and step > 0 and not _is_multiple(value, step):
            self._wrong(path, f"must be a multiple of {step}")


def _without(value: Any, dropped: set[tuple[int, str]]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, dropped) for key, item in value.items() if (id(value), key) not in dropped}
    return [_without(item, dropped) for item in value] if isinstance(value, list) else value


def _is(value: Any, kind: str) -> bool:
    found = type_of(value)
    if kind == "integer" and found == "number":
        return bool(value == value // 1)
    return kind == found or (kind == "number" and found == "integer") or kind not in _NAMES


def _is_multiple(value: float, step: float) -> bool:
    """Compares decimals: 0.3 is a multiple of 0.1, though not in binary."""
    from fractions import Fraction

    if isinstance(value, float) and not math.isfinite(value):
        return False
    exact = [Fraction(number) if isinstance(number, int) else Fraction(str(number)) for number in (value, step)]
    return exact[0] % exact[1] == 0


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true differs from 1, while 1.0 does not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def closest(tried: list[list[str]]) -> list[str]:
    """The problems of the option that comes closest: the deepest first problem, then the fewest problems.

    Options that are equally close share one line.
    """

    def distance(problems: list[str]) -> tuple[int, int]:
        return -max(len(problem.partition(": ")[0]) for problem in problems), len(problems)

    best = min(map(distance, tried))
    closest = [problems for problems in tried if distance(problems) == best]
    if len(closest) == 1 or best[1] > 1:
        return closest[0]
    path = closest[0][0].partition(": ")[0]
    texts = [problems[0].partition(": ")[2] for problems in closest]
    if all(text.startswith("expected ") and ", got " in text for text in texts):
        got = texts[0].partition(", got ")[2]
        wanted = dict.fromkeys(text.partition(", got ")[0].removeprefix("expected ") for text in texts)
        return [f"{path}: expected {' or '.join(wanted)}, got {got}"]
    return [f"{path}: {', or '.join(dict.fromkeys(texts))}"]


def listed(values: list[Any]) -> str:
    """The values in a message: `"a", "b" or "c"`; "" without any."""
    words = [json.dumps(value, ensure_ascii=False) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else ""


def joined(path: str, key: str) -> str:
    """The path of a property: `a.b`, or `a['b c']` for other names."""
    key = key if key.isidentifier() else f"[{key!r}]"
    return key if not path else f"{path}{key}" if key.startswith("[") else f"{path}.{key}"


# -- schemas within a schema, and references --------------------------------------------------------------------------


def rebuilt(schema: Any, change: Callable[[JSON], Any]) -> Any:
    """A copy of the schema with every schema in it changed, the innermost first.

    Args:
        schema: A JSON schema; True and False are returned unchanged.
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


def parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas directly in this one, each with its path."""
    for keyword, value in schema.items():
        if keyword in NAMED and isinstance(value, Mapping):
            yield from ((f"{keyword}.{name}", part) for name, part in value.items())
        elif isinstance(value, list) and keyword in (*LISTED, "items"):
            yield from ((f"{keyword}[{i}]", part) for i, part in enumerate(value))
        elif keyword in SINGLE and value is not None:
            yield keyword, value


def resolve(ref: str, root: Any) -> Any:
    """The schema that a reference within the document points to.

    Raises:
        LookupError: There is no such place, or it is outside of the document.
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


# -- the form of a schema ----------------------------------------------------------------------------------------------


def check_form(schema: Any, where: str) -> None:
    """Rejects a schema whose keywords do not follow the standard.

    Keywords that llmbridge does not check are left to the service, as is a keyword that is null.

    Args:
        schema: The whole document.
        where: Its name in the message.

    Raises:
        InvalidRequest: A keyword's value has the wrong type; the message says which, and where.

    Example:
        >>> check_form({"properties": {"city": {"type": "string", "required": True}}}, "parameters")
        Traceback (most recent call last):
        ...
        llmbridge.errors.InvalidRequest: parameters.properties.city: "required" must be a list of names, not True
    """
    seen: set[str] = set()
    waiting: list[tuple[Any, str]] = [(schema, where)]
    while waiting:
        part, place = waiting.pop()
        if isinstance(part, bool):
            continue
        if not isinstance(part, Mapping):
            raise InvalidRequest(f"{place} must be a JSON schema, not {shown(part)}")
        _check_keywords(part, place)
        waiting += [(inner, f"{place}.{step}") for step, inner in parts(part)]
        ref = part.get("$ref")
        if isinstance(ref, str) and ref not in seen:
            seen.add(ref)
            with contextlib.suppress(LookupError):  # an unresolved reference is not checked
                waiting.append((resolve(ref, schema), f'{place}."$ref": "{ref}"'))


def _check_keywords(part: Mapping[str, Any], place: str) -> None:
    for keyword, value in part.items():
        if keyword not in _FORMS or (value is None and keyword != "$ref"):
            continue
        classes, wanted = _FORMS[keyword]
        fits = isinstance(value, classes) and not (keyword in SIZES and isinstance(value, bool))
        if keyword in ("type", "required") and isinstance(value, list):
            fits = all(isinstance(item, str) for item in value)
        if not fits:
            raise InvalidRequest(f'{place}: "{keyword}" must be {wanted}, not {shown(value)}')


def check_references(document: Mapping[str, Any], where: str) -> None:
    """Rejects a schema with an unresolved reference, which services reject too.

    Args:
        document: The whole schema.
        where: Its name in the message.

    Raises:
        InvalidRequest: There is one; the message says which.
    """
    waiting: list[Any] = [document]
    while waiting:
        part = waiting.pop()
        if not isinstance(part, Mapping):
            continue
        waiting += (inner for _, inner in parts(part))
        seen = set()
        while isinstance(part, Mapping) and isinstance(ref := part.get("$ref"), str):
            try:
                part = resolve(ref, document)
            except LookupError:
                raise InvalidRequest(f'{where}: "$ref": "{ref}" does not exist in it: use "#/$defs/NAME"') from None
            if ref in seen:
                raise InvalidRequest(f'{where}: "$ref": "{ref}" only refers to itself')
            seen.add(ref)
