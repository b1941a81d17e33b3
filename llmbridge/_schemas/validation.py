"""Whether a JSON value fits a JSON schema."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from llmbridge._schemas.walk import resolve

__all__ = ["Checked", "check", "closest", "joined", "kind_of", "listed", "quoted"]

_KINDS = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}


def check(value: Any, schema: Any) -> Checked:
    """What does not fit, and the value without the nulls that stand for what was left out.

    Covers type, enum, const, properties, patternProperties, required, additionalProperties, propertyNames, items,
    prefixItems, minItems, maxItems, anyOf, oneOf, allOf, not, minimum, maximum, exclusiveMinimum, exclusiveMaximum,
    minLength, maxLength, pattern (as far as Python's `re` reads it) and `$ref` within the document. Other keywords do
    not restrict anything. A null for a property that is not required and may not be null counts as left out: services
    that want every property write it so.

    Args:
        value: What `json.loads` gives.
        schema: The whole document.

    Example:
        >>> check({"age": "7"}, {"properties": {"age": {"type": "integer"}}}).problems
        ['age: expected an integer, got the string "7"']
        >>> check([1, -2], {"items": {"minimum": 0}}).problems
        ['[1]: must be at least 0']
    """
    checked = Checked(schema)
    checked.check(value, schema, "")
    checked.value = _without(value, {(id(owner), key) for owner, key in checked.dropped}) if checked.dropped else value
    return checked


def kind_of(value: Any) -> str:
    """What a JSON value is called in a message."""
    return _KINDS.get(type(value), "a number")


def quoted(value: Any) -> str:
    """A value in a message: what it is and how it begins."""
    import json

    if value is None:
        return "null"
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, (dict, list)) else ""
    shown = text if len(text) <= 40 else f"{text[:37]}..."
    return f"{kind_of(value).replace('an ', 'the ', 1).replace('a ', 'the ', 1)} {shown}" if shown else kind_of(value)


class Checked:
    """One check of one value.

    Attributes:
        problems: "path: what is wrong", in the order of the schema.
        dropped: Where the nulls stand that count as left out.
        value: The value without them.
    """

    def __init__(self, document: Any) -> None:
        self.document = document
        self.value: Any = None
        self.problems: list[str] = []
        self.dropped: list[tuple[dict[str, Any], str]] = []

    def check(self, value: Any, schema: Any, path: str) -> None:
        """Adds what is wrong with the value."""
        if schema is False:
            self._wrong(path, "must not be there")
        if not isinstance(schema, Mapping):
            return
        if isinstance(ref := schema.get("$ref"), str):
            try:
                self.check(value, resolve(ref, self.document), path)
            except LookupError:
                self._wrong(path, f"its schema refers to {ref}, which is not there")
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
        if kinds and not any(_IS.get(kind, _anything)(value) for kind in kinds):
            names = " or ".join(_NAMES.get(kind, str(kind)) for kind in kinds)
            self._wrong(path, f"expected {names}, got {quoted(value)}")
            return False
        allowed = [schema["const"]] if "const" in schema else schema.get("enum")
        if isinstance(allowed, list) and not any(_same(value, item) for item in allowed):
            self._wrong(path, f"must be {listed(allowed)}, got {quoted(value)}")
            return False
        return True

    def _fits(self, value: Any, schema: Any, path: str) -> list[str]:
        """The problems with it, which are not counted yet."""
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
            self._wrong(path, "has a form that is excluded")

    def _check_object(self, value: dict[str, Any], schema: Mapping[str, Any], path: str) -> None:
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        for key in required:
            if key not in value:
                self._wrong(joined(path, key), "is missing")
        patterns = [(_compiled(text), part) for text, part in (schema.get("patternProperties") or {}).items()]
        rest = schema.get("additionalProperties", True)
        for key, item in value.items():
            where, parts = joined(path, key), [part for found, part in patterns if found and found.search(key)]
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

    def _check_array(self, value: list[Any], schema: Mapping[str, Any], path: str) -> None:
        first, rest = schema.get("prefixItems") or [], schema.get("items", True)
        if isinstance(rest, list):  # as drafts before 2020 wrote it
            first, rest = rest, schema.get("additionalItems", True)
        for i, item in enumerate(value):
            self.check(item, first[i] if i < len(first) else rest, f"{path}[{i}]")
        self._check_size(len(value), schema, ("minItems", "maxItems", "items"), path)

    def _check_string(self, value: str, schema: Mapping[str, Any], path: str) -> None:
        self._check_size(len(value), schema, ("minLength", "maxLength", "characters"), path)
        pattern = schema.get("pattern")
        if isinstance(pattern, str) and (compiled := _compiled(pattern)) and not compiled.search(value):
            self._wrong(path, f"must match {pattern}, got {quoted(value)}")

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


def _without(value: Any, dropped: set[tuple[int, str]]) -> Any:
    if isinstance(value, dict):
        return {key: _without(item, dropped) for key, item in value.items() if (id(value), key) not in dropped}
    return [_without(item, dropped) for item in value] if isinstance(value, list) else value


def _anything(value: Any) -> bool:
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


_IS: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": _is_number,
    "integer": lambda value: _is_number(value) and value == value // 1,
}
_NAMES = {"number": "a number", "integer": "an integer", **{text.split()[-1]: text for text in _KINDS.values()}}
_LIMITS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (lambda value, limit: value >= limit, "at least"),
    "maximum": (lambda value, limit: value <= limit, "at most"),
    "exclusiveMinimum": (lambda value, limit: value > limit, "greater than"),
    "exclusiveMaximum": (lambda value, limit: value < limit, "less than"),
}


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is no 1, while 1.0 is."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def closest(tried: list[list[str]]) -> list[str]:
    """The problems of the option that comes closest: the deepest first problem, then the fewest problems.

    Where several are as close, they are told in one line.
    """

    def distance(problems: list[str]) -> tuple[int, int]:
        return -max(len(problem.partition(": ")[0]) for problem in problems), len(problems)

    best = min(map(distance, tried))
    closest = [problems for problems in tried if distance(problems) == best]
    if len(closest) == 1 or best[1] > 1:
        return closest[0]
    path = closest[0][0].partition(": ")[0]
    told = [problems[0].partition(": ")[2] for problems in closest]
    if all(text.startswith("expected ") and ", got " in text for text in told):
        got = told[0].partition(", got ")[2]
        wanted = dict.fromkeys(text.partition(", got ")[0].removeprefix("expected ") for text in told)
        return [f"{path}: expected {' or '.join(wanted)}, got {got}"]
    return [f"{path}: {', or '.join(dict.fromkeys(told))}"]


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern)
    except re.error:  # the pattern is of another dialect, which the service may read
        return None


def listed(values: list[Any]) -> str:
    import json

    words = [json.dumps(value, ensure_ascii=False) for value in values]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else ""


def joined(path: str, key: str) -> str:
    key = key if key.isidentifier() else f"[{key!r}]"
    return key if not path else f"{path}{key}" if key.startswith("[") else f"{path}.{key}"
