"""From type hints and docstrings to a JSON schema."""

from __future__ import annotations

import collections
import enum
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from llmbridge._schemas.check import JSON, parts, rebuilt, resolve, type_of, types_of
from llmbridge._schemas.hints import (
    ARRAYS,
    MISSING,
    SCALARS,
    Field,
    Hint,
    class_fields,
    is_pydantic_1,
    is_pydantic_model,
    type_name,
    unwrapped,
)
from llmbridge._schemas.jsonable import as_json
from llmbridge._text import shown
from llmbridge.errors import InvalidRequest

__all__ = ["identifier", "json_schema", "object_schema", "pydantic_schema", "read_docstring", "type_adapter"]

_HELP = (
    "use str, int, float, bool, a list, a dict, Literal, an Enum, a date or time, a dataclass, a TypedDict, "
    "a NamedTuple or a pydantic model"
)
_REF = "#/$defs/"


def json_schema(type_hint: Any) -> JSON:
    """The JSON schema (draft 2020-12) of a Python type.

    Objects have `"additionalProperties": false`, fields with defaults are not required, and classes that are used
    twice or contain themselves go into `$defs`. pydantic models supply their own schema.

    Args:
        type_hint: str, int, float, bool, None, Any, Union, Optional, Literal, Enum, list, tuple, set, dict and their
            abstract kin, dataclasses, TypedDict, NamedTuple, datetime, date, time, UUID, Decimal, Path, pydantic's
            models and types, and all of them within each other. `Annotated[X, "..."]` adds a description.

    Raises:
        InvalidRequest: A type has no JSON form; the message says where.

    Example:
        >>> json_schema(dict[str, float])
        {'type': 'object', 'additionalProperties': {'type': 'number'}}
        >>> json_schema(typing.Optional[typing.Literal["a", "b"]])
        {'anyOf': [{'type': 'string', 'enum': ['a', 'b']}, {'type': 'null'}]}
    """
    builder = _Builder()
    return _tidied(builder.schema(type_hint, type_name(type_hint)), builder.defs)


def object_schema(fields: Sequence[Field], described: Mapping[str, str], where: str) -> JSON:
    """The schema of an object with these fields, described by a docstring: the parameters of a function."""
    builder = _Builder()
    return _tidied(builder.object(fields, described, where), builder.defs)


class _Builder:
    """Builds one document; `defs` collects the named schemas, `names` maps types to them."""

    def __init__(self) -> None:
        self.defs: dict[str, JSON] = {}
        self.names: dict[Any, str] = {}

    def schema(self, hint: Any, where: str) -> JSON:
        """The schema of the hint, including references into `defs`."""
        found = unwrapped(hint)
        schema = self._BY_KIND[found.kind](self, found, where)
        for keyword, limit in found.constraints.items():
            if schema.get("type") == "array" and keyword.endswith("Length"):
                keyword = keyword.replace("Length", "Items")
            if schema.get("format") != "decimal":  # a number in a string, which bounds do not apply to
                schema[keyword] = limit
        if found.description:
            schema["description"] = found.description
        return schema

    def object(self, fields: Sequence[Field], described: Mapping[str, str], where: str) -> JSON:
        """An object with exactly these properties."""
        properties = {}
        for item in fields:
            schema = self.schema(item.hint, f"{where}.{item.name}")
            if description := item.description or described.get(item.name):
                schema["description"] = description
            if item.default is not MISSING and (default := _default(item.default)) is not MISSING:
                schema["default"] = default
            properties[item.name] = schema
        required = [item.name for item in fields if item.required]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}

    def _anything(self, found: Hint, where: str) -> JSON:
        return {}

    def _union(self, found: Hint, where: str) -> JSON:
        return _any_of([self.schema(arg, where) for arg in found.args])

    def _literal(self, found: Hint, where: str) -> JSON:
        return _enumeration(found, where)

    def _enum(self, found: Hint, where: str) -> JSON:
        return self._named(found.bare, lambda: {**_enumeration(found, where), **_described(found.bare)[0]})

    def _scalar(self, found: Hint, where: str) -> JSON:
        return dict(SCALARS[found.origin].schema)

    def _alias(self, found: Hint, where: str) -> JSON:
        return self._named(found.bare, lambda: self.schema(found.aliased, where))

    def _fields(self, found: Hint, where: str) -> JSON:
        hint, fields = found.bare, class_fields(found.bare) or []
        summary, described = _described(found.origin)
        return self._named(hint, lambda: {**summary, **self.object(fields, described, type_name(hint))})

    def _unknown(self, found: Hint, where: str) -> JSON:
        if isinstance(found.bare, (str, dict, list, set)):
            raise InvalidRequest(f"{where}: {shown(found.bare)} is not a type: {_HELP}")
        raise InvalidRequest(f"{where}: the type {type_name(found.bare)} has no JSON form: {_HELP}")

    def _array(self, found: Hint, where: str) -> JSON:
        schema: JSON = {"type": "array", "items": self.schema(found.args[0] if found.args else Any, f"{where}[]")}
        if ARRAYS.get(found.origin) in (set, frozenset):
            schema["uniqueItems"] = True
        return schema

    def _tuple(self, found: Hint, where: str) -> JSON:
        if not found.args or found.args[-1] is ...:
            return self._array(found, where)
        items = [self.schema(arg, f"{where}[{i}]") for i, arg in enumerate(found.args) if arg != ()]
        # More services support `items` than `prefixItems`.
        same = items and all(item == items[0] for item in items)
        kind: JSON = {"items": items[0]} if same else {"prefixItems": items}
        return {"type": "array", **kind, "minItems": len(items), "maxItems": len(items)}

    def _mapping(self, found: Hint, where: str) -> JSON:
        if not found.args:
            return {"type": "object", "additionalProperties": True}
        key, item = found.args
        names = self.schema(key, f"{where} (its keys)")
        if names and names.get("type") not in ("string", "integer") and "$ref" not in names:
            raise InvalidRequest(f"{where}: the keys of JSON objects are strings, not {type_name(key)}")
        schema: JSON = {"type": "object", "additionalProperties": self.schema(item, f"{where}[...]") or True}
        if "enum" in names or "$ref" in names:
            schema["propertyNames"] = names
        elif names.get("type") == "integer":
            schema["propertyNames"] = {"pattern": "^-?[0-9]+$"}
        return schema

    def _named(self, hint: Any, make: Callable[[], JSON]) -> JSON:
        # An alias may contain unhashable arguments: Box[Annotated[int, Field(ge=1)]].
        key = hint if typing.get_origin(hint) is None else repr(hint)
        if key not in self.names:
            self.names[key] = self._reserved(identifier(type_name(hint)))
            self.defs[self.names[key]] = make()
        return {"$ref": _REF + self.names[key]}

    def _reserved(self, wanted: str) -> str:
        """A free name, put into `defs` at once, since the schema being made may refer to itself."""
        wanted = wanted or "Type"  # no character was allowed
        name, number = wanted, 1
        while name in self.defs:
            number += 1
            name = f"{wanted}_{number}"
        self.defs[name] = {}
        return name

    def _pydantic(self, found: Hint, where: str) -> JSON:
        cls = found.bare
        if cls in self.names:
            return {"$ref": _REF + self.names[cls]}
        own = pydantic_schema(cls)
        inner = own.pop("$defs", {})
        # A model that contains itself is only a reference to itself: its name is there already.
        moved = {} if set(own) == {"$ref"} else {"": self._reserved(identifier(type_name(cls)))}
        moved |= {_REF + name: self._reserved(name) for name in inner}

        def renamed(schema: JSON) -> JSON:
            if schema.get("$ref") in moved:
                schema["$ref"] = _REF + moved[schema["$ref"]]
            return schema

        for name, schema in inner.items():
            self.defs[moved[_REF + name]] = rebuilt(schema, renamed)
        self.names[cls] = moved[""] if "" in moved else moved[own["$ref"]]
        if "" in moved:
            self.defs[moved[""]] = rebuilt(own, renamed)
        return {"$ref": _REF + self.names[cls]}

    _BY_KIND: ClassVar[dict[str, Callable[[Any, Hint, str], JSON]]] = {
        "alias": _alias, "anything": _anything, "array": _array, "enum": _enum, "fields": _fields, "literal": _literal,
        "mapping": _mapping, "pydantic": _pydantic, "scalar": _scalar, "tuple": _tuple, "union": _union,
        "unknown": _unknown,
    }  # fmt: skip


def pydantic_schema(cls: Any) -> JSON:
    """pydantic's own schema, with closed objects, like all schemas here."""
    if is_pydantic_1(cls):
        schema = cls.schema(ref_template=_REF + "{model}")
        schema = {"$defs" if key == "definitions" else key: part for key, part in schema.items()}
    else:
        schema = cls.model_json_schema() if is_pydantic_model(cls) else type_adapter(cls).json_schema()

    def closed(schema: JSON) -> JSON:
        schema.pop("discriminator", None)  # from OpenAPI; its references would not be renamed with the rest
        if "properties" in schema and schema.get("type") == "object":
            schema.setdefault("additionalProperties", False)
        return schema

    result: JSON = rebuilt(schema, closed)
    return result


def type_adapter(cls: Any) -> Any:
    """pydantic's TypeAdapter for a type that is not a model; called only with types from pydantic."""
    from importlib import import_module

    return import_module("pydantic").TypeAdapter(cls)


def identifier(text: str) -> str:
    """A name that services accept, from any text: [a-zA-Z0-9_-], at most 64."""
    words = "".join(char if char.isascii() and (char.isalnum() or char in "_-") else " " for char in text).split()
    return "_".join(words)[:64]


def _described(cls: Any) -> tuple[JSON, dict[str, str]]:
    """The descriptions in its docstring: of the class, in its schema, and of its fields."""
    doc = cls.__doc__ or ""
    summary, fields = read_docstring(doc)
    by_python = doc.startswith(f"{cls.__name__}(") or doc in ("An enumeration.", enum.Enum.__doc__)
    return {"description": summary} if summary and not by_python else {}, fields


def _default(value: Any) -> Any:
    """A default as JSON, or MISSING if it has no JSON form."""
    try:
        return as_json(value)
    except (TypeError, ValueError, RecursionError):
        return MISSING


def _any_of(schemas: list[JSON]) -> JSON:
    options: list[JSON] = []
    for schema in schemas:
        for option in schema["anyOf"] if set(schema) == {"anyOf"} else [schema]:
            if option not in options:
                options.append(option)
    if {} in options:
        return {}
    return options[0] if len(options) == 1 else {"anyOf": options}


def _enumeration(found: Hint, where: str) -> JSON:
    values = [value for value, _ in found.table.values()]
    for value in values:
        if not type_of(value):
            raise InvalidRequest(f"{where}: {value!r} has no JSON form: use str, int, bool or None there")
    return {"type": types_of(values), "enum": values}


# -- $defs and references ---------------------------------------------------------------------------------------------


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(ref := schema.get("$ref"), str) and ref.startswith(_REF):
            yield ref.removeprefix(_REF)
        for _, inner in parts(schema):
            yield from _references(inner)


def _tidied(root: JSON, defs: dict[str, JSON]) -> JSON:
    """The document with schemas that are used once moved there, and an object instead of a reference at its root."""
    uses = collections.Counter(name for schema in (root, *defs.values()) for name in _references(schema))

    def inlined(schema: JSON) -> JSON:
        name = str(schema.get("$ref")).removeprefix(_REF)
        if (
            "$ref" in schema and name in defs and uses[name] == 1
        ):  # so it is not in a cycle: a cycle has a second reference leading into it
            siblings = {key: value for key, value in schema.items() if key != "$ref"}
            return {**rebuilt(defs[name], inlined), **siblings}
        return schema

    document: JSON = rebuilt(root, inlined)
    while "$ref" in document:
        target = resolve(document.pop("$ref"), {"$defs": defs})
        document = {**rebuilt(target, inlined), **document}
    left: dict[str, JSON] = {}
    waiting = list(_references(document))
    while waiting:
        name = waiting.pop(0)
        if name not in left:
            left[name] = rebuilt(defs[name], inlined)
            waiting += _references(left[name])
    return {**document, "$defs": left} if left else document


# -- docstrings --------------------------------------------------------------------------------------------------------


_HEADINGS = "Args|Arguments|Parameters|Params|Attributes|Other Parameters|Keyword Args|Keyword Arguments"
_OTHERS = (
    "Returns?|Yields?|Raises|Examples?|Notes?|Warnings?|Warns|See Also|References|Todo|Usage|Source|Methods|Receives"
)
_GOOGLE = re.compile(rf"(?:{_HEADINGS}):\s*$")
_SECTION = re.compile(rf"(?:{_HEADINGS}|{_OTHERS}):?\s*$")
_NUMPY = re.compile(rf"(?:{_HEADINGS})\s*$")
_RULE = re.compile(r"-{3,}\s*$")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:(?:\s+(.*)|$)")
_NUMPY_ENTRY = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_FIELD = re.compile(r"[:@](?:param|parameter|arg|argument|key|keyword|attribute)\s+(?:[^:]*?\s)?\**(\w+)\s*:(.*)")
_ANY_FIELD = re.compile(r"[:@]\w+[^:]*:")


def read_docstring(docstring: str | None) -> tuple[str, dict[str, str]]:
    """The first paragraph, and the descriptions of parameters in Google, reST or NumPy style.

    Example:
        >>> read_docstring('''The weather now.
        ...
        ... Args:
        ...     city: Name of the city,
        ...         in English.
        ... ''')
        ('The weather now.', {'city': 'Name of the city, in English.'})
        >>> read_docstring("Adds.\\n\\n:param int a: the first\\n:returns: the sum")
        ('Adds.', {'a': 'the first'})
    """
    if not docstring:
        return "", {}
    lines = inspect.cleandoc(docstring).splitlines()
    return _summary(lines), {**dict(_numpy(lines)), **dict(_google(lines)), **dict(_fields(lines))}


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def _summary(lines: list[str]) -> str:
    paragraph: list[str] = []
    for i, line in enumerate(lines):
        ruled = i + 1 < len(lines) and _RULE.match(lines[i + 1])
        headed = _SECTION.match(line) and (ruled or line.rstrip().endswith(":"))
        if not line.strip() or headed or _ANY_FIELD.match(line):
            break
        paragraph.append(line)
    return _joined(paragraph)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _google(lines: list[str]) -> Iterator[tuple[str, str]]:
    for i, line in enumerate(lines):
        if not _GOOGLE.match(line.lstrip()):
            continue
        body = _indented_block(lines[i + 1 :], _indent(line))
        entry_indent = min((_indent(item) for item in body if item.strip()), default=0)
        for first, rest in _entries(body, entry_indent):
            if match := _ENTRY.match(first):
                yield match[1], _joined([match[2] or "", *rest])


def _numpy(lines: list[str]) -> Iterator[tuple[str, str]]:
    for i in range(len(lines) - 1):
        if not (_NUMPY.match(lines[i]) and _RULE.match(lines[i + 1])):
            continue
        body = []
        for j, line in enumerate(lines[i + 2 :], i + 2):
            if j + 1 < len(lines) and _RULE.match(lines[j + 1]):
                break
            body.append(line)
        for first, rest in _entries(body, 0):
            if match := _NUMPY_ENTRY.match(first):
                for name in match[1].split(","):
                    yield name.strip().lstrip("*"), _joined(rest)


def _fields(lines: list[str]) -> Iterator[tuple[str, str]]:
    for i, line in enumerate(lines):
        match = _FIELD.match(line.lstrip())
        if not match:
            continue
        rest: list[str] = []
        for following in lines[i + 1 :]:
            if not following.strip() or _ANY_FIELD.match(following.lstrip()):
                break
            rest.append(following)
        yield match[1], _joined([match[2], *rest])


def _indented_block(lines: list[str], indent: int) -> list[str]:
    block = []
    for line in lines:
        if line.strip() and _indent(line) <= indent:
            break
        block.append(line)
    return block


def _entries(lines: list[str], indent: int) -> Iterator[tuple[str, list[str]]]:
    """Each line at that indentation, with the further indented lines below it."""
    first, rest = "", list[str]()
    for line in lines:
        if line.strip() and _indent(line) == indent:
            if first:
                yield first, rest
            first, rest = line.strip(), []
        else:
            rest.append(line)
    if first:
        yield first, rest
