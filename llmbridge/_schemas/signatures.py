"""The description of a Python function for a model, and the conversion of a model's arguments for it."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any

from llmbridge._schemas.build import json_schema, object_schema, read_docstring
from llmbridge._schemas.check import JSON
from llmbridge._schemas.conversion import Conversion
from llmbridge._schemas.hints import MISSING, Field, class_fields, is_pydantic, resolved, type_name, type_parameters
from llmbridge.errors import InvalidRequest

__all__ = ["Signature", "read_class", "read_function"]

_Parameter = inspect.Parameter

if sys.version_info >= (3, 14):  # hints are evaluated when they are read: unknown names remain references
    from annotationlib import Format, get_annotations

    _signature = functools.partial(inspect.signature, annotation_format=Format.FORWARDREF)
    _annotations = functools.partial(get_annotations, format=Format.FORWARDREF)
else:
    _signature = inspect.signature

    def _annotations(body: Any) -> Mapping[str, Any]:
        return getattr(body, "__annotations__", {})


@dataclasses.dataclass(frozen=True, slots=True)
class Signature:
    """A tool's signature in Python.

    Args:
        name: The function's own name.
        description: The first paragraph of its docstring.
        parameters: The JSON schema of its arguments.
        fields: Its parameters.
        positional: The positional-only ones.
        cls: The class to instantiate with the arguments, if the tool is a class.
        unbound: It is a method without its object.
    """

    name: str
    description: str
    parameters: JSON
    fields: tuple[Field, ...] = ()
    positional: tuple[str, ...] = ()
    cls: Any = None
    unbound: bool = False

    def convert(self, arguments: Any) -> tuple[Any, list[str]]:
        """The arguments by name (for a class: its instance), and their problems."""
        conversion = Conversion()
        if self.cls is not None:
            return conversion.convert(arguments, self.cls), conversion.problems
        return conversion.fields(arguments, self.fields, ""), conversion.problems

    def call(self, function: Callable[..., Any], arguments: dict[str, Any]) -> Any:
        """Calls the function with converted arguments."""
        named, positional = dict(arguments), []
        for item in self.fields:
            if item.name in self.positional:
                positional.append(named.pop(item.name, item.default))
        return function(*positional, **named)


def read_class(cls: Any) -> Signature:
    """The signature of a class whose instances are the arguments: a pydantic model, dataclass, TypedDict, NamedTuple.

    Raises:
        InvalidRequest: It is another class.
    """
    if not is_pydantic(cls) and class_fields(cls) is None:
        raise InvalidRequest(f"{type_name(cls)} has no typed fields: use a function, a dataclass or a pydantic model")
    schema = json_schema(cls)
    if schema.get("type") != "object":
        raise InvalidRequest(f"{type_name(cls)} is not an object in JSON: tools take objects")
    return Signature(type_name(cls), str(schema.pop("description", "")), schema, cls=cls)


def read_function(function: Callable[..., Any]) -> Signature:
    """The signature of a function, method, `functools.partial` or other callable object.

    Raises:
        InvalidRequest: A parameter cannot be described to a model; the message says which and why.
    """
    plain = function
    while isinstance(plain, functools.partial):
        plain = plain.func
    if not (inspect.isroutine(plain) or inspect.isfunction(plain)):
        cls = type(plain)
        name, body, doc = cls.__name__, cls.__call__, cls.__doc__ or cls.__call__.__doc__
    else:
        name, body, doc = getattr(plain, "__name__", ""), plain, plain.__doc__
    if inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body):
        raise InvalidRequest(f"{name} is a generator: tools return their result at once; return a list")
    summary, described = read_docstring(doc)
    parameters = _parameters(function, name)
    unbound = bool(parameters) and parameters[0].name in ("self", "cls") and inspect.isfunction(plain)
    if unbound:
        parameters = parameters[1:]
    hints = _hints(body, parameters, name)
    fields = tuple(_field(item, hints, name) for item in parameters)
    positional = tuple(item.name for item in parameters if item.kind is _Parameter.POSITIONAL_ONLY)
    try:
        schema = object_schema(fields, described, name)
    except InvalidRequest as error:
        raise InvalidRequest(f"{error.message}; set arguments that no model can pass with functools.partial") from None
    return Signature(name, summary, schema, fields, positional, unbound=unbound)


def _parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """The parameters for the model: without those that a partial sets, and without *args and **kwargs."""
    try:
        signature = _signature(function)
    except (TypeError, ValueError) as error:
        raise InvalidRequest(f"{name or function!r} has no readable parameters: wrap it in a function") from error
    fixed = function.keywords if isinstance(function, functools.partial) else {}
    return [
        item
        for item in signature.parameters.values()
        if item.name not in fixed and item.kind not in (_Parameter.VAR_POSITIONAL, _Parameter.VAR_KEYWORD)
    ]


def _hints(body: Any, parameters: list[inspect.Parameter], name: str) -> dict[str, Any]:
    wanted = {item.name for item in parameters}
    annotations = {key: hint for key, hint in _annotations(body).items() if key in wanted}
    inner = inspect.unwrap(body)
    return resolved(annotations, getattr(inner, "__globals__", {}), name, type_parameters(inner))


def _field(item: inspect.Parameter, hints: Mapping[str, Any], function: str) -> Field:
    default = MISSING if item.default is _Parameter.empty else item.default
    if hasattr(default, "get_default") and hasattr(default, "is_required"):
        raise InvalidRequest(
            f"{function}.{item.name}: Python would pass pydantic's Field itself as the default: "
            f"write `{item.name}: Annotated[..., Field(...)]`, and the default after it"
        )
    return Field(item.name, hints.get(item.name, Any), default is MISSING, default)
