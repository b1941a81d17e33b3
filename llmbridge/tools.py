"""Tools for models: Python functions and described tools, in one form."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, overload

from llmbridge._json import json_copy
from llmbridge._text import short_repr, shown
from llmbridge._tools.choice import ToolChoice, tool_choice
from llmbridge.errors import InvalidOutput, InvalidRequest
from llmbridge.options import warn_caller

if TYPE_CHECKING:
    from typing import Concatenate

    from typing_extensions import ParamSpec, TypeVar

    P = ParamSpec("P", default=...)
    R = TypeVar("R", default=Any)
    Rest = ParamSpec("Rest")
    Given = ParamSpec("Given", default=...)
    Gives = TypeVar("Gives", default=Any)
else:
    from typing import ParamSpec, TypeVar  # with defaults since Python 3.13

    P = ParamSpec("P")
    R = TypeVar("R")

__all__ = ["Tool", "ToolChoice", "checked_tools", "tool", "tool_choice"]

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_SCHEMAS = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema", "parameters_json_schema")
_DECLARATIONS = ("functionDeclarations", "function_declarations")
_CAPITALS = frozenset(("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"))
_SHOWN = 10  # problems in a message


@dataclass(frozen=True, slots=True)
class Tool(Generic[P, R]):
    """A tool that a model may call; made with `Tool.of` or the decorator `tool`.

    Args:
        name: `[a-zA-Z0-9_-]`, 1 to 64 characters.
        description: What it does and when to use it.
        parameters: The JSON schema of its arguments, an object.
        function: Called with the arguments; None if the caller answers the calls.
        strict: Whether the service enforces the schema; None leaves it to the service.
        raw: A service's own tool (`{"type": "web_search"}`), sent as given.

    Raises:
        InvalidRequest: The name or the schema cannot be sent.

    Example:
        >>> def weather(city: str, days: int = 1) -> str:
        ...     '''The weather forecast.
        ...
        ...     Args:
        ...         city: Name of the city.
        ...     '''
        ...     return f"{city}: sun for {days} days"
        >>> forecast = Tool.of(weather)
        >>> forecast.description, forecast.parameters["properties"]["city"]
        ('The weather forecast.', {'type': 'string', 'description': 'Name of the city.'})
        >>> forecast.run({"city": "Oslo", "days": 3})
        'Oslo: sun for 3 days'
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    function: Callable[..., Any] | None = None
    strict: bool | None = None
    raw: Mapping[str, Any] | None = None
    _signature: Any = field(default=None, repr=False, compare=False)

    __repr__ = short_repr

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", _checked_parameters(self.parameters, self.name))
        if self.raw is not None:
            object.__setattr__(self, "raw", json_copy(self.raw, "tool"))
            return
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidRequest(
                f"{self.name!r:.80} is not a valid tool name: services accept 1 to 64 of a-z, A-Z, 0-9, _ and -; "
                "set another one with tool(name=...)"
            )
        if not isinstance(self.description, str):
            raise InvalidRequest(f"tool {self.name}: its description must be a str")
        if self.function is not None and not callable(self.function):
            raise InvalidRequest(f"tool {self.name}: its function is not callable")

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _reduced(self)

    def __copy__(self) -> Tool:
        return self  # immutable

    def __deepcopy__(self, memo: dict[int, Any]) -> Tool:
        return self

    @overload
    @classmethod
    def of(cls, source: Tool[Given, Gives] | Callable[Given, Gives]) -> Tool[Given, Gives]: ...
    @overload
    @classmethod
    def of(cls, source: Any) -> Tool: ...
    @classmethod
    def of(cls, source: Any) -> Tool:
        """The tool for a function, class or description.

        Args:
            source: A function, method, `functools.partial` or other callable, sync or async; a pydantic model, a
                dataclass or a TypedDict, whose fields are the arguments; a mapping in the format of OpenAI, Anthropic,
                Gemini or MCP; a service's own tool (`{"type": "web_search"}`), sent as given; or a Tool.

        Raises:
            InvalidRequest: It is none of these, or its name or a parameter cannot be described to a model.

        Example:
            >>> Tool.of({"name": "now", "description": "The time.", "input_schema": {"type": "object"}}).name
            'now'
            >>> Tool.of({"type": "web_search"}).raw
            {'type': 'web_search'}
        """
        made = _made(source)
        if made._signature is not None and made._signature.unbound:
            raise InvalidRequest(
                f"{made.name} is a method without its object: give `object.{made.name}`, not `Class.{made.name}`"
            )
        return made

    @property
    def is_async(self) -> bool:
        """Whether `run` returns an awaitable."""
        import functools
        import inspect

        function = self.function
        while isinstance(function, functools.partial):
            function = function.func
        if function is None:
            return False
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Converts a model's arguments to the Python values of the function's hints.

        Arguments that the model left out are missing, and null may mean left out as well. A tool with a schema of its
        own gets them as parsed JSON that fits the schema.

        Raises:
            InvalidOutput: They do not fit. `.problems` has one line for each, written for the model to read.

        Example:
            >>> from datetime import date
            >>> def days_until(day: date) -> int: ...
            >>> Tool.of(days_until).bind({"day": "2026-12-24"})
            {'day': datetime.date(2026, 12, 24)}
        """
        value = self._converted(arguments)
        if isinstance(value, dict):
            return value
        cls = type(value)
        names = getattr(cls, "model_fields", None) or getattr(cls, "_fields", None) or vars(value)
        return {name: getattr(value, name) for name in names}

    def run(self, arguments: Mapping[str, Any]) -> Any:
        """Calls the function with a model's arguments; returns a coroutine if it is async.

        Raises:
            InvalidRequest: The tool has no function.
            InvalidOutput: The arguments do not fit; nothing was called.
            Exception: Any error of the function.
        """
        if self.function is None:
            raise InvalidRequest(f"tool {self.name} has no function: answer its calls yourself, or set Tool.function")
        value = self._converted(arguments)
        if self._signature is None:
            return self.function(**value)
        return value if self._signature.cls is not None else self._signature.call(self.function, value)

    @staticmethod
    def result_text(value: Any) -> str:
        """A result as text for the model: a str unchanged, anything else as JSON if possible.

        Example:
            >>> Tool.result_text({"rain": False, "at": None}), Tool.result_text("dry"), Tool.result_text(None)
            ('{"rain": false, "at": null}', 'dry', 'null')
        """
        from llmbridge._schemas.jsonable import result_text

        return result_text(value)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Calls the function as if it were not a tool."""
        if self.function is None:
            raise InvalidRequest(f"tool {self.name} has no function to call")
        result: R = self.function(*args, **kwargs)
        return result

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Tool[P, R]: ...
    @overload
    def __get__(
        self: Tool[Concatenate[Any, Rest], R], instance: object, owner: type | None = None
    ) -> Tool[Rest, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Tool[Any, Any]:
        """Binds a decorated method to its object."""
        if instance is None or self._signature is None or not self._signature.unbound or self.function is None:
            return self
        bound = self.function.__get__(instance, owner)
        return replace(self, function=bound, _signature=replace(self._signature, unbound=False))

    def _converted(self, arguments: Mapping[str, Any]) -> Any:
        """The arguments by name; for a class, its instance."""
        given = dict(arguments) if isinstance(arguments, Mapping) else arguments
        try:
            if self._signature is not None:
                value, problems = self._signature.convert(given)
            else:
                from llmbridge._schemas.check import check

                checked = check(given, self.parameters)
                value, problems = checked.value, checked.problems
        except RecursionError:
            value, problems = None, ["(root): is nested too deeply"]
        if problems:
            more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
            shown = "; ".join(problems[:_SHOWN])
            raise InvalidOutput(f"the arguments of {self.name} do not fit: {shown}{more}", problems=problems)
        return value


@overload
def tool(function: Callable[P, R], /) -> Tool[P, R]: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, strict: bool | None = None
) -> Callable[[Callable[P, R]], Tool[P, R]]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
) -> Any:
    """Makes a function a tool that can still be called; a decorator with or without arguments.

    Args:
        function: The function, or a method of a class (pass `tools=[object.method]` then).
        name: Replaces the function's own.
        description: Replaces its docstring's first paragraph.
        strict: True makes the service enforce the schema; optional parameters may then be null.

    Raises:
        InvalidRequest: See `Tool.of`; or strict=True and a parameter cannot be expressed in strict mode.

    Example:
        >>> @tool(name="add")
        ... def plus(a: int, b: int) -> int:
        ...     '''Adds two numbers.'''
        ...     return a + b
        >>> plus(1, 2), plus.name, plus.run({"a": 3, "b": 4})
        (3, 'add', 7)
    """

    def decorate(function: Callable[..., Any]) -> Tool:
        if not callable(function):
            raise InvalidRequest(
                f"@tool decorates functions, not {type(function).__name__}: put it below the other decorators"
            )
        return _from_callable(function, name, description, strict)

    return decorate if function is None else decorate(function)


def checked_tools(tools: Any) -> tuple[Tool, ...]:
    """The caller's tools, normalized.

    Raises:
        InvalidRequest: One of them is not a tool, or two have the same name; the message says which.

    Example:
        >>> [item.name for item in checked_tools([Tool("now"), {"type": "web_search"}])]
        ['now', 'web_search']
    """
    if isinstance(tools, (str, bytes, Mapping, Tool, type)) or not isinstance(tools, Iterable):
        raise InvalidRequest(
            f"tools must be a list of functions or tools, not {type(tools).__name__}: put it into a list"
        )
    found: dict[str, int] = {}
    checked: list[Tool] = []
    for i, source in enumerate(tools):
        try:
            made = [Tool.of(item) for item in _expanded(source)]
        except InvalidRequest as error:
            raise InvalidRequest(f"tools[{i}]: {error.message}") from None
        for item in made:
            if item.raw is None and item.name in found:
                raise InvalidRequest(
                    f"tools[{i}]: tools[{found[item.name]}] is called {item.name!r} too: rename one with tool(name=...)"
                )
            if item.raw is None:
                found[item.name] = i
        checked += made
    return tuple(checked)


def _expanded(source: Any) -> list[Any]:
    """Splits Gemini's format, in which one tool may hold several functions."""
    if isinstance(source, Mapping) and len(source) == 1:
        for key in _DECLARATIONS:
            if isinstance(source.get(key), (list, tuple)):
                return [_with_small_types(item) for item in source[key]]
    return [source]


def _with_small_types(declaration: Any) -> Any:
    """A function declaration of Gemini's, whose types may be in capitals."""
    if not isinstance(declaration, Mapping):
        return declaration
    own = {key: _json_schema(declaration[key]) for key in ("parameters",) if key in declaration}
    return {**declaration, **own}


def _json_schema(schema: Any) -> Any:
    """A schema of Gemini's as JSON schema: its types may be in capitals."""
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    kind = made.get("type")
    if isinstance(kind, str) and kind in _CAPITALS:
        made["type"] = kind.lower()
    for key, inner in schema.items():
        if key in ("properties", "$defs", "defs") and isinstance(inner, Mapping):
            made[key] = {name: _json_schema(field) for name, field in inner.items()}
        elif key in ("items", "additionalProperties"):
            made[key] = _json_schema(inner)
        elif key in ("anyOf", "prefixItems") and isinstance(inner, (list, tuple)):
            made[key] = [_json_schema(option) for option in inner]
    return made


def _made(source: Any) -> Tool:
    if isinstance(source, Tool):
        return source
    if isinstance(source, Mapping):
        return _from_mapping(source)
    schema = getattr(source, "inputSchema", None)
    if isinstance(schema, Mapping) and not callable(source):  # a tool of the mcp package
        return Tool(source.name, getattr(source, "description", None) or "", schema)
    if callable(source):
        return _from_callable(source)
    raise InvalidRequest(
        f"{shown(source)} is not a tool: pass a function, a pydantic model or a mapping with 'name' and 'parameters'"
    )


def _from_callable(
    source: Callable[..., Any], name: str | None = None, description: str | None = None, strict: bool | None = None
) -> Tool:
    from llmbridge._schemas.signatures import read_class, read_function

    signature = read_class(source) if isinstance(source, type) else read_function(source)
    parameters = signature.parameters
    if strict:
        from llmbridge._schemas.subsets import strict_form

        strict_parameters = strict_form(parameters)
        if strict_parameters is None:
            raise InvalidRequest(
                f"tool {name or signature.name}: strict mode cannot express a parameter without a type, a dict with "
                "free keys or a tuple of mixed types: give it a precise type, or leave strict out"
            )
        parameters = strict_parameters
    said = signature.description if description is None else description
    made = Tool(signature.name if name is None else name, said, parameters, source, strict, _signature=signature)
    if not said and signature.fields and all(item.hint is Any for item in signature.fields):
        warn_caller(
            f"the model cannot know what the tool {made.name} does, or what it takes: give its function type hints and "
            "a docstring, or describe it with tool(description=...)",
            RuntimeWarning,
        )
    return made


def _from_mapping(mapping: Mapping[str, Any]) -> Tool:
    kind, inner = mapping.get("type"), mapping
    if kind == "function" and isinstance(mapping.get("function"), Mapping):
        inner = mapping["function"]
    elif kind not in (None, "function", "custom") or (kind == "custom" and "input_schema" not in mapping):
        return Tool(str(mapping.get("name") or kind), raw=mapping)
    if "name" not in inner:
        if len(mapping) == 1 and isinstance(next(iter(mapping.values())), Mapping):
            return Tool(str(next(iter(mapping))), raw=mapping)  # Gemini's own tools: {"googleSearch": {}}
        raise InvalidRequest("a tool without 'name': write {'name': ..., 'description': ..., 'parameters': {...}}")
    schema: Any = next((inner[key] for key in _SCHEMAS if inner.get(key) is not None), {})
    description, strict = inner.get("description") or "", inner.get("strict")
    # Fields of a single service (Anthropic's cache_control) are passed on; MCP's own fields are for its clients.
    foreign = set(inner) | set(mapping) if "inputSchema" not in inner else set()
    raw = mapping if foreign - {"type", "function", "name", "description", "strict", *_SCHEMAS} else None
    return Tool(inner["name"], description, schema, strict=strict, raw=raw)


def _checked_parameters(parameters: Any, name: str) -> dict[str, Any]:
    if not isinstance(parameters, Mapping):
        raise InvalidRequest(f"tool {name}: its parameters must be a JSON schema, not {type(parameters).__name__}")
    from llmbridge._schemas.check import check_form
    from llmbridge._schemas.subsets import modern

    where = f"tool {name}: parameters"
    copied: dict[str, Any] = json_copy(parameters, where)
    check_form(copied, where)
    copied = modern(copied)
    kinds = copied.pop("type", "object")
    if kinds != "object" and not (isinstance(kinds, list) and "object" in kinds):
        raise InvalidRequest(f'tool {name}: the "type" of its parameters must be "object", not {kinds!r}')
    return {"properties": {}, **copied, "type": "object"}


def _reduced(tool: Tool) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The pickled form of a tool: the name of its function, as pickle does for functions.

    Raises:
        TypeError: The function cannot be found by its name.
    """
    function = tool.function
    made = (tool.name, tool.description, tool.parameters)
    if not isinstance(function, FunctionType):  # pickle handles methods, classes and the rest
        if tool._signature is None:
            return Tool, (*made, function, tool.strict, tool.raw)
        return _remade, (function, *made, tool.strict)
    place = (function.__module__, function.__qualname__)
    found = _found(*place)
    if found is tool:
        return _found, place
    if found is not function and not (isinstance(found, Tool) and found.function is function):
        raise TypeError(
            f"the tool {tool.name} cannot be pickled: its function {function.__qualname__} is not found by that name "
            f"in {function.__module__}: define it at the top of a module"
        )
    if tool._signature is None:
        return Tool, (*made, function, tool.strict, tool.raw)
    return _remade, (place, *made, tool.strict)


def _found(module: str, name: str) -> Any:
    """The object of that name in a module; None if there is none."""
    if module not in sys.modules:
        __import__(module)
    place: Any = sys.modules[module]
    for part in name.split("."):
        place = getattr(place, part, None)
    return place


def _remade(source: Any, name: str, description: str, parameters: Mapping[str, Any], strict: bool | None) -> Tool:
    """Remakes a tool with its description, from the function that now has its name."""
    found = _found(*source) if isinstance(source, tuple) else source
    made = Tool.of(found.function if isinstance(found, Tool) else found)
    return replace(made, name=name, description=description, parameters=parameters, strict=strict)
