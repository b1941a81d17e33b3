"""Valid values made from a JSON schema and the words of a prompt; always the same for the same two."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["Hints", "value"]

_QUOTED = re.compile(r"[\"“«„]([^\"“”«»„]+)[\"”»“]|(?<!\w)'([^']+)'(?!\w)")
_WORD = re.compile(r"\w[\w'\u2019-]*")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_SENTENCE = re.compile(r"(?:\A|[.!?:]\s|\n)\W*\Z")
_DEEP = 12
_FORMATS = {
    "date": "2024-01-02",
    "date-time": "2024-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "duration": "PT1H",
    "email": "demo@example.com",
    "uri": "https://example.com/demo",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "127.0.0.1",
    "hostname": "example.com",
}


class Hints:
    """The words and numbers of a prompt, handed out in order: quoted text first, then names, then "demo".

    Example:
        >>> hints = Hints("Is 7 the number of hills in New Rome?")
        >>> hints.text(), hints.text(), hints.number(), hints.number()
        ('New Rome', 'demo', 7.0, 1.0)
    """

    def __init__(self, prompt: str) -> None:
        quoted = [first or second for first, second in _QUOTED.findall(prompt)]
        self._texts = [*quoted, *_names(prompt)]
        self._numbers = [float(number) for number in _NUMBER.findall(prompt)]

    def text(self) -> str:
        """The next text."""
        return self._texts.pop(0) if self._texts else "demo"

    def number(self) -> float:
        """The next number."""
        return self._numbers.pop(0) if self._numbers else 1.0


def _names(prompt: str) -> list[str]:
    """Capitalized words, neighbours joined; not at the start of a sentence, where every word is capitalized."""
    names: list[str] = []
    end = -1
    for found in _WORD.finditer(prompt):
        word, start = found[0], found.start()
        if not word[0].isupper() or word == "I" or _SENTENCE.search(prompt[:start]):
            continue
        if names and prompt[end:start] == " ":
            names[-1] += f" {word}"
        else:
            names.append(word)
        end = found.end()
    return names


def value(schema: Any, hints: Hints) -> Any:
    """A value that matches a schema: required properties only, the first of every choice, one item per list.

    Args:
        schema: A JSON schema with its `$defs`; Gemini's type names in capitals work as well. The keywords `pattern`,
            `not` and `uniqueItems` are ignored.
        hints: The source of the values.

    Example:
        >>> schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
        >>> value(schema, Hints("In Rome?"))
        {'city': 'Rome'}
    """
    return _Maker(schema, hints).value(schema, 0)


class _Maker:
    def __init__(self, root: Any, hints: Hints) -> None:
        self._root = root
        self._hints = hints

    def value(self, schema: Any, depth: int) -> Any:
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][0]
        kind = _kind(schema)
        if kind == "object":
            return self._object(schema, depth)
        if kind == "array":
            return self._array(schema, depth)
        if kind in ("integer", "number"):
            return _number(schema, kind, self._hints.number())
        if kind == "boolean":
            return True
        return None if kind == "null" else self._text(schema)

    def _resolved(self, schema: Any, depth: int) -> Mapping[str, Any]:
        """The schema with references followed, the first choice taken and `allOf` merged."""
        for _ in range(_DEEP):
            if not isinstance(schema, Mapping):
                return {}
            if isinstance(schema.get("$ref"), str):
                schema = {**_without(schema, "$ref"), **self._target(schema["$ref"])}
            elif choices := schema.get("anyOf") or schema.get("oneOf"):
                schema = {**_without(schema, "anyOf", "oneOf"), **self._choice(choices, depth)}
            elif schema.get("allOf"):
                schema = self._joined(schema)
            else:
                return schema
        return {}

    def _target(self, reference: str) -> Mapping[str, Any]:
        found: Any = self._root
        for key in reference.removeprefix("#").strip("/").split("/"):
            key = key.replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, Mapping) and key else found
        return found if isinstance(found, Mapping) else {}

    def _choice(self, choices: Any, depth: int) -> Mapping[str, Any]:
        """The first choice that is not null; deep inside a recursive schema, null if possible."""
        fitting = [one for one in choices if isinstance(one, Mapping)] or [{}]
        nulls = [one for one in fitting if one.get("type") == "null"]
        others = [one for one in fitting if one not in nulls]
        first, second = (nulls, others) if depth >= _DEEP else (others, nulls)
        return [*first, *second][0]

    def _joined(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        joined = _without(schema, "allOf")
        for one in schema["allOf"]:
            part = self._resolved(one, 0)
            properties = {**joined.get("properties", {}), **part.get("properties", {})}
            required = [*joined.get("required", []), *part.get("required", [])]
            joined = {**joined, **part}
            if properties:
                joined |= {"properties": properties, "required": required}
        return joined

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        if depth > 4 * _DEEP:
            return {}
        return {name: self.value(properties.get(name, {}), depth + 1) for name in schema.get("required") or []}

    def _array(self, schema: Mapping[str, Any], depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        size = max(0 if depth >= _DEEP else 1, least if isinstance(least, int) else 0)
        most = schema.get("maxItems")
        first = schema.get("prefixItems") or []
        size = max(len(first), min(size, most) if isinstance(most, int) else size)
        schemas = [first[at] if at < len(first) else schema.get("items", {}) for at in range(size)]
        return [self.value(one, depth + 1) for one in schemas]

    def _text(self, schema: Mapping[str, Any]) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text = self._hints.text()
        if isinstance(schema.get("minLength"), int) and len(text) < schema["minLength"]:
            text = text.ljust(schema["minLength"], "x")
        return text[: schema["maxLength"]] if isinstance(schema.get("maxLength"), int) else text


def _without(schema: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: one for name, one in schema.items() if name not in names}


def _kind(schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    if isinstance(kinds, list):
        kinds = next((kind for kind in kinds if kind != "null"), "null")
    if isinstance(kinds, str):
        return kinds.lower()
    return "object" if "properties" in schema else "array" if "items" in schema else "string"


def _number(schema: Mapping[str, Any], kind: str, wanted: float) -> int | float:
    step = schema.get("multipleOf") or (1 if kind == "integer" else 0)
    low, high = schema.get("minimum"), schema.get("maximum")
    inner = step or 0.5
    if isinstance(above := schema.get("exclusiveMinimum"), (int, float)) and not isinstance(above, bool):
        low = above + inner if low is None else max(low, above + inner)
    if isinstance(below := schema.get("exclusiveMaximum"), (int, float)) and not isinstance(below, bool):
        high = below - inner if high is None else min(high, below - inner)
    wanted = wanted if high is None else min(wanted, high)
    wanted = wanted if low is None else max(wanted, low)
    if step:
        wanted = step * (wanted // step)
        wanted = wanted + step if low is not None and wanted < low else wanted
    return int(wanted) if wanted == int(wanted) else wanted
