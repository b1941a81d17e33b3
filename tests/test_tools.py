"""Tools from Python functions and from descriptions, their arguments, results and choice."""

# A docstring becomes part of a schema: some of these classes and functions have none on purpose.
# ruff: noqa: D101, D102, D103

from __future__ import annotations

import asyncio
import collections
import contextlib
import datetime as dt
import decimal
import enum
import functools
import json
import pickle
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypedDict, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import InvalidRequest
from llmbridge._schemas.build import read_docstring
from llmbridge.errors import InvalidOutput
from llmbridge.tools import Tool, ToolChoice, checked_tools, tool, tool_choice


def shown(value: object) -> str:
    """A value as the name of a test: without its address, which differs in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


POSTPONED = "from __future__ import annotations\n"


def run_code(code: str) -> dict[str, Any]:
    """The definitions of the code, without the postponed annotations of this file."""
    names: dict[str, Any] = {"dataclass": dataclass, "__name__": __name__}
    exec(compile(code, "<code>", "exec", dont_inherit=True), names)
    return names


if TYPE_CHECKING:
    from fractions import Fraction


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


@dataclass
class Place:
    """A place on Earth."""

    city: str
    country: str = "NO"


class Filter(TypedDict, total=False):
    since: dt.date


class Size(NamedTuple):
    width: int
    height: int


def weather(place: Place, unit: Unit = Unit.C, days: Annotated[int, "How many days."] = 1) -> str:
    """The weather forecast
    for a place.

    More that a model need not know.

    Args:
        place: Where.
        unit: Of the temperature.

    Returns:
        Text.
    """
    return f"{place.city} {unit.name} {days}"


async def later(text: str) -> str:
    """Says it later."""
    await asyncio.sleep(0)
    return text


def positional(a: int, b: int = 2, /, c: int = 3, *, d: int = 4) -> tuple[int, ...]:
    """All kinds of parameters."""
    return a, b, c, d


def bare(query, *args, limit=5, **kwargs):  # type: ignore[no-untyped-def]
    return query, args, limit, kwargs


class Shop:
    """A shop."""

    def __init__(self) -> None:
        self.sold: list[str] = []

    def sell(self, item: str) -> int:
        """Sells an item."""
        self.sold.append(item)
        return len(self.sold)

    @tool
    def count(self) -> int:
        """How many were sold."""
        return len(self.sold)

    @tool(name="refund", strict=True)
    async def give_back(self, item: str, reason: str | None = None) -> bool:
        """Takes an item back."""
        self.sold.remove(item)
        return True

    @classmethod
    def opening(cls, day: dt.date) -> str:
        """When it opens."""
        return f"{cls.__name__} {day.isoformat()}"

    @staticmethod
    def tax(price: decimal.Decimal) -> decimal.Decimal:
        """The tax in a price."""
        return price / 5

    def __call__(self, wish: str) -> str:
        return wish.upper()


class TestFunctions:
    """Functions as tools."""

    def test_a_function_becomes_a_tool(self) -> None:
        """Name, first paragraph, hints, defaults, descriptions."""
        made = Tool.of(weather)
        assert (made.name, made.description) == ("weather", "The weather forecast for a place.")
        assert made.parameters == {
            "type": "object",
            "properties": {
                "place": {
                    "type": "object",
                    "description": "Where.",
                    "properties": {"city": {"type": "string"}, "country": {"type": "string", "default": "NO"}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
                "unit": {
                    "type": "string",
                    "enum": ["celsius", "fahrenheit"],
                    "description": "Of the temperature.",
                    "default": "celsius",
                },
                "days": {"type": "integer", "description": "How many days.", "default": 1},
            },
            "required": ["place"],
            "additionalProperties": False,
        }
        assert made.function is weather
        assert (made.strict, made.raw, made.is_async) == (None, None, False)

    def test_a_parameter_without_a_hint_takes_anything(self) -> None:
        """*args and **kwargs are left out, since they describe nothing."""
        with pytest.warns(RuntimeWarning, match="cannot know"):
            made = Tool.of(bare)
        assert made.description == ""
        assert made.parameters["properties"] == {"query": {}, "limit": {"default": 5}}
        assert made.parameters["required"] == ["query"]
        assert made.run({"query": [1, None]}) == ([1, None], (), 5, {})

    def test_no_parameters_at_all(self) -> None:
        """An object without properties, as services want it."""
        assert Tool.of(Shop().count).parameters == {
            "type": "object",
            "properties": {},
            "required": [],
            "additionalProperties": False,
        }

    @pytest.mark.parametrize(
        ("source", "name", "description", "properties"),
        [
            (Shop().sell, "sell", "Sells an item.", ["item"]),
            (Shop.opening, "opening", "When it opens.", ["day"]),
            (Shop.tax, "tax", "The tax in a price.", ["price"]),
            (Shop(), "Shop", "A shop.", ["wish"]),
            (
                functools.partial(weather, unit=Unit.F),
                "weather",
                "The weather forecast for a place.",
                ["place", "days"],
            ),
            (functools.partial(positional, 1), "positional", "All kinds of parameters.", ["b", "c", "d"]),
            (later, "later", "Says it later.", ["text"]),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_whatever_can_be_called_becomes_a_tool(
        self, source: Any, name: str, description: str, properties: list[str]
    ) -> None:
        """Methods, class methods, static methods, objects, partials (without the fixed arguments), async ones."""
        made = Tool.of(source)
        assert (made.name, made.description, list(made.parameters["properties"])) == (name, description, properties)

    def test_a_wrapped_function_keeps_what_it_says(self) -> None:
        """functools.wraps carries signature, hints and docstring through a decorator."""

        @functools.wraps(weather)
        def wrapper(*args: Any, **kwargs: Any) -> str:
            return "wrapped " + weather(*args, **kwargs)

        assert Tool.of(wrapper).parameters == Tool.of(weather).parameters
        assert Tool.of(wrapper).run({"place": {"city": "Oslo"}}) == "wrapped Oslo C 1"

    def test_the_return_hint_may_be_unknown(self) -> None:
        """It is not needed, and is often only imported for type checkers."""

        def half(number: int) -> Fraction:
            raise NotImplementedError

        assert list(Tool.of(half).parameters["properties"]) == ["number"]

    def test_a_class_is_a_tool_with_its_fields(self) -> None:
        """A dataclass, TypedDict or NamedTuple: running it returns the instance."""
        made = Tool.of(Place)
        assert (made.name, made.description) == ("Place", "A place on Earth.")
        assert made.parameters["required"] == ["city"]
        assert made.run({"city": "Oslo"}) == Place("Oslo")
        assert made.bind({"city": "Oslo"}) == {"city": "Oslo", "country": "NO"}
        assert Tool.of(Filter).run({"since": "2026-01-31"}) == {"since": dt.date(2026, 1, 31)}
        assert Tool.of(Filter).bind({}) == {}
        assert Tool.of(Size).bind({"width": 1, "height": 2}) == {"width": 1, "height": 2}

    def test_a_pydantic_model_is_a_tool_with_its_fields(self) -> None:
        """As a tool by itself and as a parameter."""
        pydantic = pytest.importorskip("pydantic")
        order = pydantic.create_model("Order", __doc__="An order.", item=(str, ...), count=(int, 1))
        made = Tool.of(order)
        assert (made.name, made.description) == ("Order", "An order.")
        assert made.run({"item": "x", "count": None}) == order(item="x")
        assert made.bind({"item": "x"}) == {"item": "x", "count": 1}
        with pytest.raises(InvalidRequest, match="is not an object in JSON: tools take objects"):
            Tool.of(pydantic.RootModel[list[str]])

        def buy(wanted: Any, limit: Any = 3) -> Any:
            return wanted

        buy.__annotations__ = {"wanted": order, "limit": Annotated[int, pydantic.Field(ge=1, description="Most.")]}
        made = Tool.of(buy)
        assert made.parameters["properties"]["limit"] == {
            "type": "integer",
            "minimum": 1,
            "description": "Most.",
            "default": 3,
        }
        assert made.run({"wanted": {"item": "y", "count": 2}}) == order(item="y", count=2)
        assert Tool.result_text([made.run({"wanted": {"item": "y"}})]) == '[{"item": "y", "count": 1}]'
        with pytest.raises(InvalidOutput, match="Input should be a valid integer"):
            made.bind({"wanted": {"item": "y", "count": "many"}})

        def wrong(limit: int = pydantic.Field(3, ge=1)) -> None: ...

        with pytest.raises(InvalidRequest, match=r"wrong.limit: .* write `limit: Annotated\[..., Field\(...\)\]`"):
            Tool.of(wrong)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            (lambda x: x, r"'<lambda>' is not a valid tool name: .* tool\(name=...\)"),
            (Shop.sell, "sell is a method without its object: give `object.sell`"),
            (Shop.count, "count is a method without its object"),
            (Shop, "Shop has no typed fields"),
            (Unit, "Unit has no typed fields"),
            (max, "has no readable parameters"),
            (3, "3 is not a tool: pass a function"),
            ("weather", "'weather' is not a tool"),
            ({"description": "x"}, "a tool without 'name'"),
            ({"name": "a b"}, "'a b' is not a valid tool name"),
            ({"name": "x" * 65}, "1 to 64"),
            ({"name": "x", "parameters": []}, "tool x: its parameters must be a JSON schema, not list"),
            ({"name": "x", "parameters": {"type": "string"}}, "must be \"object\", not 'string'"),
            ({"name": "x", "parameters": {"const": object()}}, r"tool x: parameters\['const'\] is of type object"),
            ({"name": "x", "description": 3}, "tool x: its description must be a str"),
        ],
        ids=shown,
    )
    def test_what_cannot_be_a_tool_is_refused(self, source: Any, message: str) -> None:
        """The error has the tool's name and what to do."""
        with pytest.raises(InvalidRequest, match=message):
            Tool.of(source)

    def test_a_parameter_that_no_model_can_give_is_named(self) -> None:
        """The error has the way out; a parameter fixed by a partial is fine."""

        def query(connection: Callable[..., Any], sql: str) -> Any:
            return connection(sql)

        with pytest.raises(InvalidRequest, match=r"query.connection: the type Callable.* functools.partial"):
            Tool.of(query)
        assert Tool.of(functools.partial(query, connection=len)).run({"sql": "select"}) == 6

    def test_a_type_parameter_of_the_function_itself_is_known(self) -> None:
        """`def first[Item: int](items: list[Item])` has them, even with postponed annotations."""

        def first(items: list[Item]) -> Item:  # type: ignore[name-defined]  # noqa: F821
            return items[0]

        first.__type_params__ = (TypeVar("Item", bound=int),)  # type: ignore[attr-defined,unused-ignore]
        assert Tool.of(first).parameters["properties"]["items"] == {"type": "array", "items": {"type": "integer"}}
        assert Tool.of(first).run({"items": [3]}) == 3

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="has no such syntax")
    @pytest.mark.parametrize("postponed", ["", POSTPONED])
    def test_type_parameters_in_brackets(self, postponed: str) -> None:
        """Of functions and of classes."""
        code = "@dataclass\nclass Box[T]:\n    item: T\ndef first[T: int](box: Box[T]) -> T: ...\n"
        box = Tool.of(run_code(postponed + code)["first"]).parameters["properties"]["box"]
        assert box["properties"] == {"item": {"type": "integer"}}

    def test_a_hint_that_is_not_known_is_named(self) -> None:
        """A type that is only imported for type checkers."""

        def double(number: Fraction) -> None: ...

        with pytest.raises(InvalidRequest, match="double: its type hints use 'Fraction'"):
            Tool.of(double)

    @pytest.mark.parametrize("postponed", [POSTPONED, *([""] if sys.version_info >= (3, 14) else [])])
    def test_only_hints_of_parameters_must_be_known(self, postponed: str) -> None:
        """A type only imported for type checkers may be returned, or fixed; otherwise the error names it."""
        code = "def halve(number: int, by: Fraction = 2) -> Fraction:\n    return number // by\n"
        halve = run_code(postponed + code)["halve"]
        assert Tool.of(functools.partial(halve, by=3)).run({"number": 6}) == 2
        with pytest.raises(InvalidRequest, match="halve: its type hints use 'Fraction'"):
            Tool.of(halve)

    def test_an_invalid_hint_is_named(self) -> None:
        """Python notices it only when the hint is read."""

        def broken(number: Any) -> None: ...

        broken.__annotations__["number"] = "list["
        with pytest.raises(InvalidRequest, match="broken: its type hints cannot be read"):
            Tool.of(broken)

    def test_a_generator_is_refused(self) -> None:
        """A tool returns its result at once."""

        def numbers() -> Any:
            yield 1

        async def later_numbers() -> Any:
            yield 1

        for function in (numbers, later_numbers):
            with pytest.raises(InvalidRequest, match="is a generator"):
                Tool.of(function)

    def test_a_default_that_json_lacks_is_left_out(self) -> None:
        """It is still used when the model leaves the argument out."""

        def wait(until: Any = asyncio, share: float = float("nan"), sizes: Any = {1}) -> Any:  # noqa: B006
            return until

        assert Tool.of(wait).parameters["properties"] == {
            "until": {},
            "share": {"type": "number"},
            "sizes": {"default": [1]},
        }
        assert Tool.of(wait).run({}) is asyncio


class TestDocstrings:
    """Descriptions in common styles."""

    @pytest.mark.parametrize(
        "text",
        [
            "Adds.\n\nArgs:\n    a: First\n        number.\n    b (int, optional): Second: exact.\n\nReturns:\n    X",
            "Adds.\n\n    Parameters:\n        a: First number.\n        b: Second: exact.\n",
            "Adds.\n\n:param a: First\n    number.\n:param int b: Second: exact.\n:returns: c: Sum.\n:rtype: int",
            "Adds.\n@param a: First number.\n@param b: Second: exact.\n@return: Sum.",
            "Adds.\n\nParameters\n---\na : int\n    First\n    number.\nb\n    Second: exact.\n\nReturns\n---\nX",
            "Adds.\n\nArguments:\n    a (Callable[[int], str]): First number.\n\n    b: Second: exact.\n",
        ],
        ids=["google", "indented", "rest", "epydoc", "numpy", "nested types"],
    )
    def test_every_style_gives_the_same(self, text: str) -> None:
        """The first paragraph and one description each; the return value is not a parameter."""
        assert read_docstring(text) == ("Adds.", {"a": "First number.", "b": "Second: exact."})

    @pytest.mark.parametrize(
        ("text", "summary"),
        [
            (None, ""),
            ("", ""),
            ("   \n", ""),
            ("One\nline.", "One line."),
            ("\n    One.\n\n    Two.", "One."),
            ("Args:\n    a: b", ""),
            ("Warning: hot.", "Warning: hot."),
            ("Example", "Example"),
        ],
    )
    def test_the_summary_is_the_first_paragraph(self, text: str | None, summary: str) -> None:
        """In one line, without sections."""
        assert read_docstring(text)[0] == summary

    def test_several_names_of_one_entry(self) -> None:
        """As numpy writes them."""
        text = "X.\n\nParameters\n----------\na, b : int\n    Numbers.\n*args\n    More."
        assert read_docstring(text)[1] == {"a": "Numbers.", "b": "Numbers.", "args": "More."}

    @given(st.text(alphabet="Args:-\n abParmets()*@,", max_size=80))
    def test_no_docstring_makes_it_fail(self, text: str) -> None:
        """Any docstring is accepted."""
        summary, described = read_docstring(text)
        assert isinstance(summary, str)
        assert all(isinstance(item, str) for item in described.values())


class TestDescriptions:
    """Tools that were described elsewhere."""

    SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}  # noqa: RUF012 - never changed

    @pytest.mark.parametrize(
        "source",
        [
            {"type": "function", "function": {"name": "f", "description": "F.", "parameters": SCHEMA}},
            {"type": "function", "name": "f", "description": "F.", "parameters": SCHEMA},
            {"name": "f", "description": "F.", "parameters": SCHEMA},
            {"name": "f", "description": "F.", "input_schema": SCHEMA},
            {"type": "custom", "name": "f", "description": "F.", "input_schema": SCHEMA},
            {"name": "f", "description": "F.", "parametersJsonSchema": SCHEMA},
            {"name": "f", "title": "F", "description": "F.", "inputSchema": SCHEMA, "annotations": {}},
            type("McpTool", (), {"name": "f", "description": "F.", "inputSchema": SCHEMA})(),
        ],
        ids=["openai", "responses", "bare", "anthropic", "custom", "gemini", "mcp", "mcp object"],
    )
    def test_every_service_s_form_gives_the_same(self, source: Any) -> None:
        """Every format becomes the same tool."""
        assert Tool.of(source) == Tool("f", "F.", self.SCHEMA)

    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ({"type": "web_search"}, "web_search"),
            ({"type": "web_search_20250305", "name": "web_search", "max_uses": 3}, "web_search"),
            ({"googleSearch": {}}, "googleSearch"),
            ({"name": "f", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}}, "f"),
            ({"type": "custom", "name": "sql", "format": {"type": "grammar"}}, "sql"),
        ],
        ids=shown,
    )
    def test_a_service_s_own_tool_is_sent_as_it_is(self, source: dict[str, Any], name: str) -> None:
        """Including one with fields of a single service."""
        made = Tool.of(source)
        assert (made.name, made.raw) == (name, source)

    def test_strict_and_missing_parameters(self) -> None:
        """`strict` is kept; missing parameters mean none."""
        made = Tool.of({"type": "function", "function": {"name": "f", "strict": True}})
        assert (made.strict, made.parameters) == (True, {"type": "object", "properties": {}})

    def test_a_tool_keeps_a_copy(self) -> None:
        """Later changes of the caller's mapping do not reach it, and the tool itself does not change."""
        schema: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}
        made = Tool("f", parameters=schema)
        schema["properties"].clear()
        assert made.parameters == self.SCHEMA
        with pytest.raises(FrozenInstanceError):
            made.name = "g"  # type: ignore[misc]

    def test_a_function_may_have_a_schema_of_its_own(self) -> None:
        """Its arguments are checked against that, and passed as parsed JSON."""
        made = Tool("f", parameters=self.SCHEMA, function=lambda **arguments: arguments)
        assert made.run({"a": 1, "b": [2]}) == {"a": 1, "b": [2]}
        assert made.run({"a": None}) == {}
        with pytest.raises(
            InvalidOutput, match="the arguments of f do not fit: a: expected an integer, got the string"
        ):
            made.run({"a": "1"})

    def test_a_function_that_cannot_be_called_is_refused(self) -> None:
        """At once, not when the model calls it."""
        with pytest.raises(InvalidRequest, match="tool f: its function is not callable"):
            Tool("f", function=3)  # type: ignore[arg-type]


class TestChecked:
    """The list of tools."""

    def test_a_list_may_mix_them(self) -> None:
        """Functions, mappings, Tools, and Gemini's format with several functions."""
        several = {"functionDeclarations": [{"name": "a"}, {"name": "b"}]}
        names = [item.name for item in checked_tools([weather, {"type": "web_search"}, Tool("now"), several])]
        assert names == ["weather", "web_search", "now", "a", "b"]
        assert checked_tools([]) == ()

    def test_types_in_capitals_as_gemini_writes_them(self) -> None:
        """Types are translated at every depth; names and values in capitals stay."""
        parameters = {
            "type": "OBJECT",
            "properties": {
                "type": {"type": "STRING", "enum": ["OBJECT", "STRING"]},
                "OBJECT": {"type": "ARRAY", "items": {"type": "NUMBER"}},
                "either": {"anyOf": [{"type": "INTEGER"}, {"type": "NULL"}], "description": "type: OBJECT"},
                "odd": True,
            },
            "required": ["OBJECT"],
        }
        declared = {"name": "f", "parameters": parameters}
        for key in ("functionDeclarations", "function_declarations"):
            (made,) = checked_tools([{key: [declared]}])
            assert made.parameters == {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "enum": ["OBJECT", "STRING"]},
                    "OBJECT": {"type": "array", "items": {"type": "number"}},
                    "either": {"anyOf": [{"type": "integer"}, {"type": "null"}], "description": "type: OBJECT"},
                    "odd": True,
                },
                "required": ["OBJECT"],
            }
        assert parameters["type"] == "OBJECT"
        with pytest.raises(InvalidRequest, match="not 'string'"):
            checked_tools([{"functionDeclarations": [{"name": "f", "parameters": {"type": "STRING"}}]}])
        with pytest.raises(InvalidRequest, match=r"tools\[0\]: 3 is not a tool"):
            checked_tools([{"functionDeclarations": [3]}])

    @pytest.mark.parametrize(
        ("tools", "message"),
        [
            ([weather, Tool("weather")], r"tools\[1\]: tools\[0\] is called 'weather' too: rename one"),
            ([weather, 3], r"tools\[1\]: 3 is not a tool"),
            ([weather, lambda: 1], r"tools\[1\]: '<lambda>' is not a valid tool name"),
            (weather, "tools must be a list of functions or tools, not function: put it into a list"),
            ({"name": "x"}, "not dict: put it into a list"),
            (Place, "not type: put it into a list"),
            (3, "not int"),
        ],
        ids=shown,
    )
    def test_the_error_says_which(self, tools: Any, message: str) -> None:
        """By its place in the list."""
        with pytest.raises(InvalidRequest, match=message):
            checked_tools(tools)

    def test_a_service_s_own_tools_may_share_a_name(self) -> None:
        """Two MCP servers are two tools of one type."""
        servers = [{"type": "mcp", "server_label": label} for label in "ab"]
        assert len(checked_tools(servers)) == 2
        assert len(checked_tools([Tool("web_search"), {"type": "web_search"}])) == 2


class TestArguments:
    """The conversion of a model's arguments."""

    def test_arguments_become_what_the_hints_say(self) -> None:
        """Dataclasses and enums; a left-out argument stays out."""
        made = Tool.of(weather)
        assert made.bind({"place": {"city": "Oslo"}, "unit": "fahrenheit"}) == {"place": Place("Oslo"), "unit": Unit.F}
        assert made.run({"place": {"city": "Oslo"}, "days": 3}) == "Oslo C 3"

    def test_null_means_left_out_if_null_is_not_a_value(self) -> None:
        """Models write it so, and have to in strict mode."""
        assert Tool.of(weather).bind({"place": {"city": "Oslo"}, "unit": None, "days": None}) == {
            "place": Place("Oslo")
        }

    def test_problems_are_written_for_the_model(self) -> None:
        """All of them, with their places."""
        with pytest.raises(InvalidOutput) as caught:
            Tool.of(weather).run({"place": {"city": 3}, "unit": "kelvin", "day": 1})
        assert caught.value.problems == (
            "place.city: expected a string, got the number 3",
            'unit: must be "celsius" or "fahrenheit", got the string "kelvin"',
            'day: is unknown; known are "place", "unit" or "days"',
        )
        assert caught.value.message.startswith("the arguments of weather do not fit: place.city: expected")

    @pytest.mark.parametrize("arguments", [None, [], "x", 3])
    def test_arguments_that_are_not_an_object_are_a_problem(self, arguments: Any) -> None:
        """Instead of failing somewhere inside."""
        for made in (Tool.of(weather), Tool.of(Place), Tool("f")):
            with pytest.raises(InvalidOutput, match="expected an object"):
                made.bind(arguments)

    @pytest.mark.parametrize(
        ("arguments", "result"),
        [
            ({"a": 1}, (1, 2, 3, 4)),
            ({"a": 1, "b": 5, "d": 6}, (1, 5, 3, 6)),
            ({"d": 9, "c": 8, "b": 7, "a": 6}, (6, 7, 8, 9)),
        ],
    )
    def test_positional_parameters_get_theirs(self, arguments: dict[str, Any], result: tuple[int, ...]) -> None:
        """In any order of the model's arguments."""
        assert Tool.of(positional).run(arguments) == result

    def test_the_function_s_own_error_comes_out(self) -> None:
        """The arguments are not to blame."""

        def fail(text: str) -> None:
            raise KeyError(text)

        with pytest.raises(KeyError, match="x"):
            Tool.of(fail).run({"text": "x"})

    def test_an_async_function_gives_something_to_await(self) -> None:
        """Also behind a partial and in an object."""

        class Caller:
            async def __call__(self, text: str) -> str:
                return text

        assert Tool.of(later).is_async
        assert Tool.of(functools.partial(later, text="x")).is_async
        assert Tool.of(Caller()).is_async
        assert not Tool.of(Shop()).is_async
        assert not Tool("f").is_async
        assert asyncio.run(Tool.of(later).run({"text": "hi"})) == "hi"

    def test_a_tool_without_a_function_cannot_run(self) -> None:
        """Its arguments can still be checked."""
        made = Tool("f", parameters={"type": "object", "required": ["a"]})
        assert made.bind({"a": 1}) == {"a": 1}
        with pytest.raises(InvalidOutput, match="a: is missing"):
            made.bind({})
        with pytest.raises(InvalidRequest, match="tool f has no function"):
            made.run({"a": 1})
        dangling = Tool("f", parameters={"properties": {"a": {"$ref": "#/$defs/a"}}})
        with pytest.raises(InvalidOutput, match=r"a: its schema refers to #/[$]defs/a, which does not exist"):
            dangling.bind({"a": 1})
        with pytest.raises(InvalidRequest, match="tool f has no function"):
            made()

    def test_arguments_that_are_nested_too_deeply_are_a_problem(self) -> None:
        """Instead of a RecursionError."""
        value: list[Any] = []
        for _ in range(5000):
            value = [value]
        nested = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {}}}
        nested["$defs"]["a"] = {"items": {"$ref": "#/$defs/a"}}  # type: ignore[index]
        with pytest.raises(InvalidOutput, match="nested too deeply"):
            Tool("f", parameters=nested).bind({"a": value})

    def test_the_model_s_arguments_are_not_changed(self) -> None:
        """They go back to the service unchanged."""
        arguments = {"a": None, "b": {"c": None}}
        schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"properties": {"c": False}}}}
        assert Tool("f", parameters=schema).bind(arguments) == {"b": {}}
        assert arguments == {"a": None, "b": {"c": None}}


class TestResults:
    """A function's result as text for the model."""

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("as it is", "as it is"),
            ("", ""),
            (None, "null"),
            (True, "true"),
            (3, "3"),
            (0.5, "0.5"),
            (float("inf"), '"inf"'),
            ({"a": [1, None], 2: "ä"}, '{"a": [1, null], "2": "ä"}'),
            ({None: 1, True: 2, Unit.C: 3, (1, 2): 4}, '{"null": 1, "true": 2, "celsius": 3, "(1, 2)": 4}'),
            ([Place("Oslo")], '[{"city": "Oslo", "country": "NO"}]'),
            (Size(1, 2), '{"width": 1, "height": 2}'),
            ((1, 2), "[1, 2]"),
            ({3}, "[3]"),
            (Unit.C, '"celsius"'),
            (dt.datetime(2026, 1, 31, 12), '"2026-01-31T12:00:00"'),
            ({"on": dt.date(2026, 1, 31)}, '{"on": "2026-01-31"}'),
            (decimal.Decimal("1.50"), '"1.50"'),
            (uuid.UUID(int=0), '"00000000-0000-0000-0000-000000000000"'),
            (Path("a/b"), '"a/b"'),
            (b"x", "\"b'x'\""),
            (Place, "\"<class 'test_tools.Place'>\""),
            (collections.deque([1, Unit.C]), '[1, "celsius"]'),
            ({"a": dt.date(2026, 1, 31)}.values(), '["2026-01-31"]'),
            (range(2), "[0, 1]"),
            (type("Attrs", (), {"__attrs_attrs__": [SimpleNamespace(name="a")], "a": Path("x")})(), '{"a": "x"}'),
            (type("Struct", (), {"__struct_fields__": ("a",), "a": (1,)})(), '{"a": [1]}'),
        ],
        ids=shown,
    )
    def test_a_value_has_its_text(self, value: Any, text: str) -> None:
        """A str unchanged, JSON if possible, otherwise str()."""
        assert Tool.result_text(value).replace("tests.test_tools", "test_tools") == text

    def test_rows_of_a_database_become_mappings(self) -> None:
        """sqlite3's rows by name."""
        sqlite3 = pytest.importorskip("sqlite3")
        with contextlib.closing(sqlite3.connect(":memory:")) as database:
            database.row_factory = sqlite3.Row
            rows = database.execute("SELECT 'Oslo' AS city, 3 AS days").fetchall()
        assert Tool.result_text(rows) == '[{"city": "Oslo", "days": 3}]'

    def test_an_array_becomes_a_list(self) -> None:
        """numpy's arrays and numbers convert themselves to lists."""
        array = type("Array", (), {"tolist": lambda self: [[1.0, 2.0]]})()
        assert Tool.result_text({"data": array}) == '{"data": [[1.0, 2.0]]}'

    def test_a_value_that_contains_itself_has_some_text(self) -> None:
        """Python's own text for it."""
        value: list[Any] = [1]
        value.append(value)
        assert Tool.result_text(value) == "[1, [...]]"

    @given(
        st.recursive(
            st.one_of(
                st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
            ),
            lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
            max_leaves=8,
        ).filter(lambda value: not isinstance(value, str))
    )
    def test_what_json_has_comes_through_unchanged(self, value: Any) -> None:
        """Parsing the text gives the value."""
        assert json.loads(Tool.result_text(value)) == value

    def test_what_is_made_one_by_one_is_a_list(self) -> None:
        """The name of an iterator is useless to a model."""
        assert Tool.result_text(str(number) for number in range(2)) == '["0", "1"]'
        assert Tool.result_text({"sums": map(sum, [(1, 2)])}) == '{"sums": [3]}'


class TestDecorator:
    """`@tool`."""

    def test_a_decorated_function_is_a_tool_that_can_be_called(self) -> None:
        """With and without arguments."""

        @tool
        def plain(a: int) -> int:
            """Plain."""
            return a + 1

        @tool(name="other", description="Said otherwise.")
        def named(a: int) -> int:
            """Plain."""
            return a + 1

        assert (plain.name, plain.description, plain(1), plain(a=2)) == ("plain", "Plain.", 2, 3)
        assert (named.name, named.description, named(1)) == ("other", "Said otherwise.", 2)
        assert Tool.of(plain) is plain

    def test_a_lambda_needs_a_name(self) -> None:
        """And a description, which it cannot have by itself."""
        made = tool(name="double", description="Twice.")(lambda number: number * 2)
        assert made.run({"number": 2}) == 4

    def test_a_method_is_the_tool_of_its_object(self) -> None:
        """Two objects have two tools; the class's own cannot be sent."""
        one, other = Shop(), Shop()
        one.sell("book")
        assert [one.count(), other.count()] == [1, 0]
        assert [made.run({}) for made in checked_tools([one.count])] == [1]
        assert one.give_back.name == "refund"
        assert one.give_back.is_async
        assert asyncio.run(one.give_back.run({"item": "book", "reason": None})) is True
        assert one.sold == []
        with pytest.raises(InvalidRequest, match=r"tools\[0\]: count is a method without its object"):
            checked_tools([Shop.count])

    def test_strict_puts_the_schema_into_the_strict_form(self) -> None:
        """Optional parameters become required and nullable, and null is read as left out."""

        @tool(strict=True)
        def search(query: str, limit: int = 5) -> int:
            return limit

        assert search.strict is True
        assert search.parameters["required"] == ["query", "limit"]
        assert search.parameters["properties"]["limit"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
        assert search.run({"query": "x", "limit": None}) == 5

    def test_strict_is_refused_where_it_is_impossible(self) -> None:
        """A parameter without a type cannot be expressed there."""
        with pytest.raises(InvalidRequest, match="tool bare: strict mode cannot express"):
            tool(strict=True)(bare)

    def test_it_decorates_functions_only(self) -> None:
        """The error for the wrong order of decorators."""
        with pytest.raises(InvalidRequest, match="@tool decorates functions, not property"):
            tool(property(lambda self: 1))  # type: ignore[arg-type]

    def test_a_tool_pickles_with_its_function(self) -> None:
        """For other processes."""
        copy = pickle.loads(pickle.dumps(Tool.of(weather)))
        assert copy == Tool.of(weather)
        assert copy.run({"place": {"city": "Oslo"}}) == "Oslo C 1"


class TestChoice:
    """`tool_choice`."""

    @pytest.mark.parametrize(
        ("value", "choice"),
        [
            (None, ToolChoice("auto")),
            ("auto", ToolChoice("auto")),
            ("none", ToolChoice("none")),
            ("required", ToolChoice("required")),
            ("any", ToolChoice("required")),
            ("weather", ToolChoice("tool", "weather")),
            (weather, ToolChoice("tool", "weather")),
            (Tool("now"), ToolChoice("tool", "now")),
            ({"type": "function", "function": {"name": "now"}}, ToolChoice("tool", "now")),
            ({"type": "tool", "name": "now"}, ToolChoice("tool", "now")),
            ({"type": "function", "name": "now"}, ToolChoice("tool", "now")),
            ({"type": "any"}, ToolChoice("required")),
            ({"type": "auto"}, ToolChoice("auto")),
            ({"type": "none"}, ToolChoice("none")),
            (ToolChoice("none"), ToolChoice("none")),
        ],
        ids=shown,
    )
    def test_every_way_to_say_it_has_one_form(self, value: Any, choice: ToolChoice) -> None:
        """Words, names, functions and two services' mappings."""
        assert tool_choice(value, checked_tools([weather, Tool("now")])) == choice

    @pytest.mark.parametrize(
        "value",
        [
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}},
            {"type": "tool", "name": "now", "disable_parallel_tool_use": True},
            {"type": "auto", "disable_parallel_tool_use": True},
        ],
        ids=shown,
    )
    def test_what_only_a_mapping_can_say_is_sent_as_given(self, value: dict[str, Any]) -> None:
        """A service's own choices."""
        assert tool_choice(value, [Tool("now")]).raw == value

    @pytest.mark.parametrize(
        ("value", "tools", "message"),
        [
            ("nope", [Tool("a"), Tool("b")], "unknown tool 'nope'; available: a, b"),
            (weather, [Tool("a")], "unknown tool 'weather'; available: a"),
            ({"type": "tool", "name": "nope"}, [Tool("a")], "unknown tool 'nope'"),
            ("nope", [], r"unknown tool 'nope'; pass tools=\[...\]"),
            ("required", [], r"tool_choice is 'required', but there are no tools"),
            (3, [Tool("a")], "tool_choice must be 'auto', 'none', 'required'"),
            (["a"], [Tool("a")], "tool_choice must be"),
        ],
        ids=shown,
    )
    def test_an_unknown_choice_is_rejected(self, value: Any, tools: list[Tool], message: str) -> None:
        """The error lists the available tools."""
        with pytest.raises(InvalidRequest, match=message):
            tool_choice(value, tools)


def test_importing_it_costs_nothing() -> None:
    """Reading hints, and its imports, wait for the first function."""
    code = (
        "import sys, llmbridge.messages; before = set(sys.modules); "
        "import llmbridge.tools; print(*set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert set(run.stdout.split()) == {"llmbridge.tools", "llmbridge._tools", "llmbridge._tools.choice"}
