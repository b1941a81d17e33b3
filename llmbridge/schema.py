"""The schema of an answer: a JSON schema from a Python type, and the checked value from the answer's text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, overload

from llmbridge._json import json_copy
from llmbridge._schemas.build import identifier, json_schema, pydantic_schema
from llmbridge._schemas.check import JSON, check, check_form, check_references, rebuilt, resolve
from llmbridge._schemas.conversion import Conversion
from llmbridge._schemas.hints import is_pydantic_model, type_name
from llmbridge._schemas.partial_json import partial_json
from llmbridge._schemas.subsets import modern, strict_form
from llmbridge.errors import InvalidOutput, InvalidRequest, Partial, without_frames

if TYPE_CHECKING:
    from typing import Protocol, TypeAlias, Union, _SpecialForm

    from typing_extensions import TypeForm, TypeVar

    Value = TypeVar("Value", default=Any)
    Parsed = TypeVar("Parsed", default=Any)
    Member = TypeVar("Member", covariant=True)

    class _UnionOf(Protocol[Member]):
        """`City | Country`: mypy takes it for its first class too, unless the parameter's type says Any."""

        @property
        def __args__(self) -> tuple[Member, ...]: ...

    SchemaLike: TypeAlias = Union[type[Value], _UnionOf[Value], _SpecialForm, Mapping[str, Any], "Schema[Value]"]
else:
    from typing import TypeVar  # it knows defaults from Python 3.13 on

    Value = TypeVar("Value")  # of what is parsed: the class that the schema was made of, or anything at all

__all__ = ["Schema", "json_schema", "partial_json"]

_FENCE = re.compile(r"```[ \t]*(?:json[0-9a-z]*)?[ \t]*\r?\n(.*?)```", re.DOTALL | re.IGNORECASE)
_SHOWN = 10  # problems in a message
_NO_NAME = "answer"
_ANNOTATIONS = frozenset(
    ("$anchor", "$comment", "$id", "$schema", "default", "deprecated", "description", "examples", "readOnly", "title")
)
_KEYWORDS = frozenset(
    """
    $defs $dynamicRef $ref additionalProperties allOf anyOf const contains definitions dependentRequired
    dependentSchemas else enum exclusiveMaximum exclusiveMinimum format if items maxItems maxLength maxProperties
    maximum minItems minLength minProperties minimum multipleOf not oneOf pattern patternProperties prefixItems
    properties propertyNames required then type unevaluatedItems unevaluatedProperties uniqueItems
    """.split()  # noqa: SIM905 - a table of words
)
_TOO_DEEP = "(root): is nested too deeply"


@dataclass(frozen=True, slots=True)
class Schema(Generic[Value]):
    """The schema of an answer; made with `Schema.of`.

    Args:
        name: Its name for services: `[a-zA-Z0-9_-]`, 1 to 64 characters.
        json_schema: The JSON schema, whose root is an object.
        description: What it is for; may be "".
        wrapped: Whether the value is the property "value" of that object, because its own type is not an object.
        type_hint: The Python type of the value; None for a JSON schema, whose values are dicts and lists.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class City:
        ...     name: str
        ...     inhabitants: int = 0
        >>> schema = Schema.of(City)
        >>> schema.json_schema["required"]
        ['name']
        >>> schema.parse('{"name": "Paris", "inhabitants": 2100000}')
        City(name='Paris', inhabitants=2100000)
        >>> schema.partial('{"name": "Par')
        {'name': 'Par'}
    """

    name: str
    json_schema: JSON
    description: str = ""
    wrapped: bool = False
    type_hint: Any = field(default=None, repr=False)

    @overload
    @classmethod
    def of(cls, schema: type[Parsed] | Schema[Parsed]) -> Schema[Parsed]: ...
    @overload
    @classmethod
    def of(cls, schema: TypeForm[Parsed]) -> Schema[Parsed]: ...
    @overload
    @classmethod
    def of(cls, schema: Mapping[str, Any] | _SpecialForm) -> Schema: ...
    @classmethod
    def of(cls, schema: Any) -> Schema[Any]:
        """The schema of a Python type or a JSON schema.

        Args:
            schema: A dataclass, TypedDict, NamedTuple, pydantic model or any other type that `json_schema` accepts
                (`list[City]`, `Literal["yes", "no"]`); a JSON schema; OpenAI's response format
                (`{"type": "json_schema", ...}`); or a Schema.

        Raises:
            InvalidRequest: It is something else, or a type or reference in it cannot be used.

        Example:
            >>> Schema.of({"title": "city", "type": "object", "properties": {"name": {"type": "string"}}}).name
            'city'
            >>> Schema.of(list[int]).parse('{"value": [1, 2]}')
            [1, 2]
        """
        if isinstance(schema, Schema):
            return schema
        if isinstance(schema, Mapping):
            return _of_mapping(schema)
        _refuse_values(schema)
        name = identifier(type_name(schema)) or _NO_NAME
        document = pydantic_schema(schema) if is_pydantic_model(schema) else json_schema(schema)
        if "$ref" in document:  # a recursive model
            document = json_schema(schema)
        document, wrapped = _with_object_root(document)
        return cls(name, document, str(document.get("description", "")), wrapped, schema)

    @property
    def strict(self) -> bool:
        """Whether the schema already is in OpenAI's strict subset: all properties required, all objects closed."""
        return self.strict_schema() == self.json_schema

    def strict_schema(self) -> JSON | None:
        """The schema in OpenAI's strict subset, or None if that is impossible.

        Optional properties become required and may be null; `parse` reads such a null as left out.
        """
        return strict_form(self.json_schema)

    def instruction(self) -> str:
        """The instruction to answer in this form, for services without structured output."""
        schema = json.dumps(self.json_schema, ensure_ascii=False)
        return f"Answer with one JSON object that fits the following JSON schema, and with nothing else.\n{schema}"

    def parse(self, text: str) -> Value:
        """The checked value of an answer.

        A dataclass or NamedTuple becomes an instance, a TypedDict a dict, a pydantic model is validated by pydantic, a
        JSON schema gives dicts and lists. A fence around the JSON, or prose around one object, is skipped. For the
        keywords that are checked, see `llmbridge._schemas.check.check`.

        Args:
            text: The whole answer.

        Raises:
            InvalidOutput: The text holds no JSON, several objects, or one that does not fit; `.problems` has one line
                for each wrong place, written for a model to correct it.
        """
        try:
            return self.convert(self._json(text))
        except InvalidOutput as error:
            error.partial = Partial(text)
            raise

    def convert(self, value: Any) -> Value:
        """The checked value of parsed JSON (the arguments of a tool call).

        Raises:
            InvalidOutput: It does not fit.
        """
        if self.wrapped and not (isinstance(value, dict) and set(value) == {"value"}):
            value = {"value": value}  # some models leave out the object around it
        try:
            result, problems = self._checked(value)
        except RecursionError:
            result, problems = None, [_TOO_DEEP]
        if problems:
            raise self._invalid(problems)
        converted: Value = result
        return converted

    def _checked(self, value: Any) -> tuple[Any, list[str]]:
        if self.type_hint is None:
            checked = check(value, self.json_schema)
            result = checked.value
            return (result.get("value") if self.wrapped else result), checked.problems
        conversion = Conversion()
        if self.wrapped:
            return conversion.convert(value["value"], self.type_hint, "value"), conversion.problems
        return conversion.convert(value, self.type_hint), conversion.problems

    def partial(self, text: str) -> Any:
        """The value so far of an answer that is still arriving: plain dicts and lists, unchecked.

        Returns:
            The value; None before it begins.
        """
        # A brace that does not begin an object may be part of prose before it.
        brace = r"\{(?=\s*[\"}])|\A\{(?=\s*\Z)"
        start = re.search(rf"\[|{brace}" if self.wrapped else brace, text)
        value = partial_json(text[start.start() :]) if start else None
        if self.wrapped and isinstance(value, dict) and (not value or "value" in value):
            return value.get("value")
        return value

    def correction(self, error: InvalidOutput) -> str:
        """The message that asks a model to correct an answer that does not fit."""
        problems = "\n".join(f"- {problem}" for problem in error.problems[:20]) or f"- {error.message}"
        return f"That answer does not fit the schema:\n{problems}\n\n{self.instruction()}"

    def _invalid(self, problems: list[str], text: str = "") -> InvalidOutput:
        shown = "; ".join(problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        name = "the schema" if self.name == _NO_NAME else self.name
        return InvalidOutput(f"the answer does not fit {name}: {shown}{more}", problems=problems, partial=text)

    def _json(self, text: str) -> Any:
        try:
            return self._found(text)
        except RecursionError:
            raise self._invalid([_TOO_DEEP]) from None

    def _found(self, text: str) -> Any:
        try:
            return _loads(text)
        except ValueError as error:
            first = without_frames(error)  # its frame would hold the text
        fenced = [match[1] for match in _FENCE.finditer(text)]
        for within in [fenced[0]] if len(fenced) == 1 else []:
            try:
                return _loads(within)
            except ValueError:
                continue  # a quotation in prose, or broken JSON: the rest decides
        found, broken = _objects(text)
        if len(found) == 1 and not broken:
            return found[0]
        if found and not broken:
            raise self._invalid([f"(root): expected one JSON object, got {len(found)} different ones"])
        raise self._invalid([_described(text, broken or first)])


def _of_mapping(mapping: Mapping[str, Any]) -> Schema:
    given = json_copy(mapping, "schema")
    if given.get("type") == "json_schema" and isinstance(given.get("json_schema"), dict):
        given = given["json_schema"]
    name, description = given.get("title"), given.get("description")
    if isinstance(given.get("schema"), dict):
        name, description = given.get("name", name), description or given["schema"].get("description")
        given = given["schema"]
    if not given:
        raise InvalidRequest('schema is empty: give a JSON schema such as {"type": "object", "properties": {...}}')
    if not _KEYWORDS.intersection(given) and (unknown := _fields(given)):
        raise InvalidRequest(
            f"schema: {unknown[0]!r} is not a keyword of JSON schema: did you mean "
            f'{{"type": "object", "properties": {{{json.dumps(unknown[0])}: ...}}}}? A dataclass works as well'
        )
    check_form(given, "schema")
    given = modern(given)
    check_references(given, "schema")
    document, wrapped = _with_object_root(given)
    name = identifier(name) if isinstance(name, str) else ""
    return Schema(name or _NO_NAME, document, description if isinstance(description, str) else "", wrapped)


def _fields(given: Mapping[str, Any]) -> list[str]:
    """The keys that look like field names with their types, rather than keywords of JSON schema."""
    return [name for name, value in given.items() if name not in _ANNOTATIONS and isinstance(value, (str, dict, list))]


def _refuse_values(schema: Any) -> None:
    if schema is None or isinstance(schema, (str, bytes, int, float, list, tuple, set)):
        raise InvalidRequest(
            "schema must be a type (a dataclass, TypedDict, pydantic model, list[...]) or a JSON schema, "
            f"not {repr(schema)[:60]}"
        )
    kind = type(schema)
    if hasattr(kind, "__dataclass_fields__") or is_pydantic_model(kind):
        raise InvalidRequest(f"schema is an instance of {kind.__name__}: give the class itself")


def _with_object_root(document: JSON) -> tuple[JSON, bool]:
    """The schema with an object at its root, as services demand, and whether that was added."""
    if set(document) - {"$defs", "definitions", "title", "description"} == {"$ref"}:
        target = resolve(document["$ref"], document)
        if isinstance(target, dict) and document["$ref"] != "#":
            rest = {key: value for key, value in document.items() if key != "$ref"}
            document = {**target, **rest}
    if document.get("type") == "object":
        return document, False
    if "type" not in document and "properties" in document:
        return {"type": "object", **document}, False
    outside = {key: document[key] for key in ("$defs", "definitions") if key in document}
    inner = {key: value for key, value in document.items() if key not in outside}

    def moved(part: JSON) -> JSON:
        ref = part.get("$ref")
        if isinstance(ref, str) and not ref.startswith(("#/$defs/", "#/definitions/")):
            part["$ref"] = f"#/properties/value{ref[1:]}"
        return part

    root = {"type": "object", "properties": {"value": inner}, "required": ["value"], "additionalProperties": False}
    return rebuilt({**root, **outside}, moved), True


# -- JSON in text -----------------------------------------------------------------------------------------------------


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not valid JSON")


# Models write raw line breaks into strings.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant)
_loads: Callable[[str], Any] = lambda text: _DECODER.decode(text.strip("\ufeff \t\r\n"))  # noqa: E731 - one place


def _objects(text: str) -> tuple[list[Any], ValueError | None]:
    """The different JSON objects in prose, and why the text after them could not be read."""
    found: list[Any] = []
    position = text.find("{")
    while position >= 0:
        try:
            value, end = _DECODER.raw_decode(text, position)
            if value not in found:
                found.append(value)
        except json.JSONDecodeError as error:
            if error.pos >= len(text) or error.msg.startswith("Unterminated"):
                return found, without_frames(error)
            end = max(error.pos, position + 1)  # braces of prose; not earlier: skips objects inside a broken one
        except ValueError as error:
            return found, without_frames(error)
        position = text.find("{", end)
    return found, None


def _described(text: str, error: ValueError) -> str:
    if not text.strip():
        return "(root): the answer is empty; expected a JSON object"
    if "{" not in text and "[" not in text:
        return "(root): expected a JSON object, got prose"
    if isinstance(error, json.JSONDecodeError):
        cut = " (it seems to be cut off)" if error.pos >= len(text.rstrip()) or "Unterminated" in error.msg else ""
        return f"(root): invalid JSON: {error.msg} at line {error.lineno} column {error.colno}{cut}"
    return f"(root): invalid JSON: {error}"
