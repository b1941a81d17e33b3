"""Type hints and classes in the few forms that building a schema and converting a value need."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import functools
import re
import sys
import types
import typing
from collections import abc
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from llmbridge.errors import InvalidRequest

__all__ = [
    "ARRAYS", "MISSING", "SCALARS", "Field", "Hint", "class_fields", "hints_of", "is_pydantic", "is_pydantic_1",
    "is_pydantic_model", "resolved", "table_entry", "type_name", "type_parameters", "unwrapped",
]  # fmt: skip


class _Missing:
    """No value; dataclasses' own MISSING cannot be a default of a dataclass."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = _Missing()

_WRAPPERS = ("Required", "NotRequired", "ReadOnly", "Final", "ClassVar")
# Constraints of annotated-types and pydantic's Field, and the equivalent keywords of JSON schema.
_CONSTRAINTS = {
    "ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum", "multiple_of": "multipleOf",
    "min_length": "minLength", "max_length": "maxLength", "pattern": "pattern",
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """One property of a class or one parameter of a function.

    Args:
        name: Its name in Python and in JSON.
        hint: Its type hint, unresolved wrappers included.
        required: Whether there must be a value.
        default: The value if there is none; MISSING if it is made by a factory.
        description: From the field itself.
    """

    name: str
    hint: Any
    required: bool
    default: Any = MISSING
    description: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Hint:
    """A type hint without its wrappers.

    Args:
        bare: The type itself.
        description: From `Annotated`.
        constraints: Keywords of JSON schema that `Annotated` sets (`{"minimum": 1}`).
        marks: Names of the wrappers that were there ("NotRequired", "ClassVar").
    """

    bare: Any
    description: str = ""
    constraints: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    marks: tuple[str, ...] = ()

    @property
    def origin(self) -> Any:
        """The class or form before its brackets."""
        return typing.get_origin(self.bare) or self.bare

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments in its brackets."""
        return typing.get_args(self.bare)

    @property
    def kind(self) -> str:
        """The form that decides how its schema is built and its values are converted.

        One of those in `_KINDS`, or "pydantic", "alias", "fields" (a dataclass, TypedDict or NamedTuple), "enum", or
        "unknown".
        """
        bare, origin = self.bare, self.origin
        if isinstance(bare, (str, dict, list, set)):
            return "unknown"
        if origin in _KINDS:
            return _KINDS[origin]
        if is_pydantic(bare):
            return "pydantic"
        if hasattr(origin, "__value__"):  # `type Name = ...`
            return "alias"
        if class_fields(bare) is not None:
            return "fields"
        return "enum" if isinstance(bare, enum.EnumMeta) else "unknown"

    @property
    def aliased(self) -> Any:
        """The target of an alias, with its arguments filled in."""
        return self.origin.__value__[self.args] if self.args else self.origin.__value__

    @property
    def table(self) -> dict[str, tuple[Any, Any]]:
        """The values of a Literal or an enum: each one's JSON form and itself, for `table_entry`.

        Members of an enum whose values have no JSON form (tuples, objects) go by their names.
        """
        if self.args:
            said = [item.value if isinstance(item, enum.Enum) else item for item in self.args]
            return {_key(value): (value, item) for value, item in zip(said, self.args, strict=True)}
        plain = all(isinstance(item.value, (str, int, float, bool, types.NoneType)) for item in self.bare)
        values = [(item.value if plain else item.name, item) for item in self.bare]
        return {_key(value): (value, item) for value, item in values}


def unwrapped(hint: Any) -> Hint:
    """The hint without Annotated, Required, Final, NewType, InitVar and type variables.

    Example:
        >>> from typing import Annotated
        >>> unwrapped(Annotated[int, "Age in years"]).description
        'Age in years'
    """
    description, constraints, marks = "", dict[str, Any](), list[str]()
    while True:
        origin = typing.get_origin(hint)
        mark = getattr(origin, "_name", None) or getattr(hint, "_name", None)
        if origin is typing.Annotated:
            said, limits = _metadata(hint.__metadata__)
            description, constraints = description or said, {**limits, **constraints}
            hint = hint.__origin__
        elif mark in _WRAPPERS and (origin is not None or mark in ("Final", "ClassVar")):
            marks.append(mark)
            hint = typing.get_args(hint)[0] if typing.get_args(hint) else Any
        elif isinstance(hint, dataclasses.InitVar):
            hint = hint.type
        elif isinstance(hint, typing.TypeVar):
            hint = hint.__bound__ or (typing.Union[hint.__constraints__] if hint.__constraints__ else Any)
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        else:
            return Hint(hint, description, constraints, tuple(marks))


def _metadata(items: tuple[Any, ...]) -> tuple[str, dict[str, Any]]:
    description, constraints = "", dict[str, Any]()
    for item in items:
        if isinstance(item, str):
            description = description or item
            continue
        for name in ("description", "documentation"):
            if isinstance(text := getattr(item, name, None), str):
                description = description or text
        for part in (item, *(getattr(item, "metadata", None) or ())):
            for name, keyword in _CONSTRAINTS.items():
                if isinstance(limit := getattr(part, name, None), (int, float, str)):
                    constraints[keyword] = limit
    return description, constraints


def type_name(hint: Any) -> str:
    """The hint as one would write it.

    Example:
        >>> type_name(list[int]), type_name(None), type_name(typing.Optional[int])
        ('list[int]', 'None', 'int | None')
    """
    hint = unwrapped(hint).bare
    if hint in (None, types.NoneType):
        return "None"
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, args))
    if origin is typing.Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin is not None and args:
        return f"{type_name(origin)}[{', '.join('...' if arg is ... else type_name(arg) for arg in args)}]"
    return getattr(hint, "__name__", None) or re.sub(r"\b(?:typing|builtins|__main__)\.", "", repr(hint))


# -- classes ----------------------------------------------------------------------------------------------------------


def is_pydantic_model(hint: Any) -> bool:
    """Whether it is a pydantic model, detected without importing pydantic."""
    return _can(hint, "model_json_schema", "model_validate_json") or is_pydantic_1(hint)


def is_pydantic_1(hint: Any) -> bool:
    """Whether it is a model of pydantic 1, or of `pydantic.v1` in pydantic 2, whose methods have other names."""
    return not hasattr(hint, "model_json_schema") and _can(hint, "schema", "parse_raw", "__get_validators__")


def _can(hint: Any, *names: str) -> bool:
    return isinstance(hint, type) and all(callable(getattr(hint, name, None)) for name in names)


def is_pydantic(hint: Any) -> bool:
    """Whether pydantic handles the type: a model, a pydantic dataclass, or a type like `EmailStr`."""
    marks = ("__pydantic_validator__", "__get_pydantic_core_schema__")
    return is_pydantic_model(hint) or (isinstance(hint, type) and any(hasattr(hint, mark) for mark in marks))


def class_fields(hint: Any) -> list[Field] | None:
    """The fields of a dataclass, TypedDict or NamedTuple (or of a generic one with its arguments); None for others.

    Raises:
        InvalidRequest: A hint uses an unknown name.
    """
    cls = typing.get_origin(hint) or hint
    fields = _own_fields(cls) if isinstance(cls, type) else None
    if fields is None:
        return None
    arguments = dict(zip(getattr(cls, "__parameters__", ()), typing.get_args(hint), strict=False))
    return (
        [dataclasses.replace(item, hint=_with_arguments(item.hint, arguments)) for item in fields]
        if arguments
        else fields
    )


@functools.lru_cache(maxsize=256)  # resolving hints is the slowest part, and a list may hold thousands
def _own_fields(cls: Any) -> list[Field] | None:
    if dataclasses.is_dataclass(cls):
        return _dataclass_fields(cls)
    if issubclass(cls, dict) and hasattr(cls, "__total__") and hasattr(cls, "__required_keys__"):
        return _typed_dict_fields(cls)
    if issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return _named_tuple_fields(cls)
    return None


def _dataclass_fields(cls: Any) -> list[Field]:
    hints = hints_of(cls)
    found = []
    for item in cls.__dataclass_fields__.values():  # `fields()` omits InitVars
        if not item.init or "ClassVar" in unwrapped(hints[item.name]).marks:
            continue
        default = MISSING if item.default is dataclasses.MISSING else item.default
        required = default is MISSING and item.default_factory is dataclasses.MISSING
        found.append(Field(item.name, hints[item.name], required, default, item.metadata.get("description") or ""))
    return found


def _typed_dict_fields(cls: Any) -> list[Field]:
    found = []
    for name, hint in hints_of(cls).items():
        marks = unwrapped(hint).marks
        # With postponed annotations the class itself does not see these marks.
        required = "Required" in marks or (name in cls.__required_keys__ and "NotRequired" not in marks)
        found.append(Field(name, hint, required))
    return found


def _named_tuple_fields(cls: Any) -> list[Field]:
    hints, defaults = hints_of(cls), cls._field_defaults
    return [
        Field(name, hints.get(name, Any), name not in defaults, defaults.get(name, MISSING)) for name in cls._fields
    ]


def _with_arguments(hint: Any, arguments: Mapping[Any, Any]) -> Any:
    if isinstance(hint, typing.TypeVar):
        return arguments.get(hint, hint)
    parameters = getattr(hint, "__parameters__", ())
    if not parameters or typing.get_origin(hint) is None:
        return hint
    return hint[tuple(arguments.get(parameter, parameter) for parameter in parameters)]


# -- names in hints ---------------------------------------------------------------------------------------------------


def hints_of(cls: type) -> dict[str, Any]:
    """The resolved type hints of a class.

    Raises:
        InvalidRequest: A hint uses a name that is unknown where the class was defined.
    """
    namespace = dict(vars(sys.modules.get(cls.__module__, types)))
    return _read(cls, None, namespace, {cls.__name__: cls, **type_parameters(cls)}, cls.__name__)


def type_parameters(owner: Any) -> dict[str, Any]:
    """The type parameters of `class Box[T]` and `def first[T](...)`, by name: modules do not contain these names."""
    return {item.__name__: item for item in getattr(owner, "__type_params__", ())}


def resolved(
    annotations: Mapping[str, Any], namespace: dict[str, Any], owner: str, known: Mapping[str, Any]
) -> dict[str, Any]:
    """A function's annotations with the names in them looked up, first in `known`.

    Raises:
        InvalidRequest: One uses an unknown name.
    """
    carrier = types.SimpleNamespace(__annotations__=dict(annotations))
    return _read(carrier, namespace, namespace, dict(known), owner)


def _read(
    carrier: Any, globalns: dict[str, Any] | None, namespace: dict[str, Any], known: dict[str, Any], owner: str
) -> dict[str, Any]:
    try:
        hints = typing.get_type_hints(carrier, globalns, known, include_extras=True)
        return {name: _resolved(hint, namespace, known) for name, hint in hints.items()}
    except NameError as error:
        raise InvalidRequest(
            f"{owner}: its type hints use {error.name!r}, which is not defined at the top of its module: "
            "define or import it there (not inside a function, and not under TYPE_CHECKING)"
        ) from None
    except (TypeError, SyntaxError, AttributeError) as error:
        raise InvalidRequest(f"{owner}: its type hints cannot be read: {error}") from error


def _resolved(hint: Any, namespace: dict[str, Any], known: dict[str, Any]) -> Any:
    """Also resolves the str in `list["Node"]`, which Python 3.10 leaves."""
    if isinstance(hint, str):
        carrier = types.SimpleNamespace(__annotations__={"hint": hint})
        return typing.get_type_hints(carrier, namespace, known, include_extras=True)["hint"]
    if isinstance(hint, types.GenericAlias):
        return hint.__origin__[tuple(_resolved(arg, namespace, known) for arg in hint.__args__)]  # type: ignore[index]
    return hint


# -- values -----------------------------------------------------------------------------------------------------------


def _key(value: Any) -> str:
    """The key for looking up a value in a table: in JSON, True differs from 1, while 1.0 does not."""
    if isinstance(value, str):
        return f"str {str.__str__(value)}"
    if isinstance(value, float) and value.is_integer():
        return repr(int(value))
    return repr(int(value)) if isinstance(value, int) and not isinstance(value, bool) else repr(value)


def table_entry(table: Mapping[str, tuple[Any, Any]], value: Any) -> Any:
    """The member for a JSON value, or MISSING."""
    if not isinstance(value, (str, int, float, types.NoneType)):
        return MISSING
    return table.get(_key(value), (None, MISSING))[1]


# -- plain types -------------------------------------------------------------------------------------------------------


_FRACTION = re.compile(r"(:[0-9]{2})[.,]([0-9]+)")


@dataclasses.dataclass(frozen=True, slots=True)
class Scalar:
    """A plain type.

    Args:
        schema: Its JSON schema.
        wanted: Its name in a message to the model.
        convert: Returns its value; raises TypeError for another type of JSON value, ValueError for an invalid one.
    """

    schema: Mapping[str, Any]
    wanted: str
    convert: Callable[[Any], Any]


def _exactly(cls: type, read: Callable[[Any], Any] = lambda value: value) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if type(value) is not cls:
            raise TypeError
        return read(value)

    return convert


def _integer(value: Any) -> int:
    if type(value) is int or (type(value) is float and value.is_integer()):  # JSON has only one kind of number
        return int(value)
    raise TypeError


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(error) from None


def _decimal(value: Any) -> Decimal:
    if type(value) not in (str, int, float):
        raise TypeError
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        raise ValueError(value) from None
    if not number.is_finite():
        raise ValueError(value)
    return number


def _iso(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Also reads a Z and any number of fractional digits, which Python 3.10 does not."""

    def convert(text: str) -> Any:
        text = text.strip()
        if text[-1:] in ("Z", "z"):
            text = f"{text[:-1]}+00:00"
        return read(_FRACTION.sub(lambda match: f"{match[1]}.{match[2][:6]:0<6}", text))

    return convert


def _text(form: str) -> dict[str, str]:
    return {"type": "string", "format": form}


_MOMENT = Scalar(
    _text("date-time"), "a date and time like 2026-01-31T12:00:00Z", _exactly(str, _iso(dt.datetime.fromisoformat))
)
_NULL = Scalar({"type": "null"}, "null", _exactly(types.NoneType))
_PATH = Scalar(_text("path"), "a path as a string", _exactly(str, Path))

SCALARS: dict[Any, Scalar] = {
    str: Scalar({"type": "string"}, "a string", _exactly(str)),
    bool: Scalar({"type": "boolean"}, "true or false", _exactly(bool)),
    int: Scalar({"type": "integer"}, "an integer", _integer),
    float: Scalar({"type": "number"}, "a number", _number),
    None: _NULL,
    types.NoneType: _NULL,
    dt.datetime: _MOMENT,
    dt.date: Scalar(_text("date"), "a date like 2026-01-31", _exactly(str, dt.date.fromisoformat)),
    dt.time: Scalar(_text("time"), "a time like 12:00:00", _exactly(str, _iso(dt.time.fromisoformat))),
    UUID: Scalar(_text("uuid"), "a UUID", _exactly(str, UUID)),
    Decimal: Scalar(_text("decimal"), 'a decimal number as a string like "12.50"', _decimal),
    Path: _PATH,
    PurePath: _PATH,
}
ARRAYS: dict[Any, Callable[[list[Any]], Any]] = {
    list: list, abc.Sequence: list, abc.MutableSequence: list, abc.Iterable: list, abc.Collection: list,
    set: set, abc.Set: set, abc.MutableSet: set, frozenset: frozenset, collections.deque: collections.deque,
}  # fmt: skip
_MAPPINGS = (dict, abc.Mapping, abc.MutableMapping, collections.OrderedDict, collections.defaultdict)
_KINDS: dict[Any, str] = {
    **dict.fromkeys((Any, object), "anything"),
    **dict.fromkeys((typing.Union, types.UnionType), "union"),
    typing.Literal: "literal",
    **dict.fromkeys(SCALARS, "scalar"),
    **dict.fromkeys(ARRAYS, "array"),
    tuple: "tuple",
    **dict.fromkeys(_MAPPINGS, "mapping"),
}
