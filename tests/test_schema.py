"""JSON schemas from Python types, and checked Python values from a model's text."""

# A docstring becomes part of a schema, and users write Optional, in the tests as elsewhere.
# ruff: noqa: D101, UP045

from __future__ import annotations

import collections
import contextlib
import datetime as dt
import decimal
import enum
import json
import pathlib
import re
import subprocess
import sys
import typing
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, make_dataclass
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypedDict, TypeVar, Union

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import NotRequired, Required

from llmbridge import InvalidRequest
from llmbridge._schemas.check import check_form
from llmbridge._schemas.subsets import (
    as_openai_takes,
    holds_itself,
    with_lone_references,
    without_bounds,
    without_lookaround,
    without_patterns,
)
from llmbridge.errors import InvalidOutput
from llmbridge.schema import Schema, json_schema
from llmbridge.tools import Tool


def shown(value: object) -> str:
    """A value as the name of a test: without its address, which differs in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


KEYWORDS = (
    "$defs", "$ref", "a", "additionalProperties", "allOf", "anyOf", "const", "enum", "exclusiveMinimum", "format",
    "items", "maxItems", "maxLength", "minimum", "minLength", "not", "oneOf", "pattern", "patternProperties",
    "prefixItems", "properties", "propertyNames", "required", "type",
)  # fmt: skip

T = TypeVar("T")
UserId = NewType("UserId", int)


class Color(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Place(enum.Enum):
    HOME = (1, 2)
    WORK = (3, 4)


@dataclass
class Address:
    """An address.

    Args:
        street: With the number.
    """

    street: str
    color: Color = Color.RED


@dataclass
class Person:
    name: str
    home: Address
    age: Optional[int] = None
    tags: list[str] = field(default_factory=list, metadata={"description": "Free words."})
    born: Annotated[dt.date, "Day of birth."] = dt.date(2000, 1, 1)


@dataclass
class Node:
    value: int
    children: list[Node] = field(default_factory=list)


@dataclass
class Left:
    right: Optional[Right] = None


@dataclass
class Right:
    left: Optional[Left] = None


@dataclass
class Box(Generic[T]):
    item: T
    more: list[T] = field(default_factory=list)


class Movie(TypedDict):
    title: str
    year: NotRequired[int]


class Draft(TypedDict, total=False):
    title: Required[str]
    year: int


class Point(NamedTuple):
    x: float
    y: float = 0.0


@dataclass
class Positive:
    number: int

    def __post_init__(self) -> None:
        if self.number <= 0:
            raise ValueError("number must be positive")


@dataclass
class Cat:
    kind: Literal["cat"]
    lives: int


@dataclass
class Dog:
    kind: Literal["dog"]
    name: str


class Limits:
    """Limits as annotated-types and pydantic's Field write them."""

    description = "A share."
    ge = 0
    le = 1


def parse(hint: Any, value: Any) -> Any:
    """The value after its way through JSON."""
    schema = Schema.of(hint)
    return schema.parse(json.dumps({"value": value} if schema.wrapped else value))


def problems(hint: Any, value: Any) -> tuple[str, ...]:
    """The problems of a value."""
    with pytest.raises(InvalidOutput) as caught:
        parse(hint, value)
    return caught.value.problems


class TestJsonSchema:
    """The schema of a type hint."""

    @pytest.mark.parametrize(
        ("hint", "schema"),
        [
            (str, {"type": "string"}),
            (int, {"type": "integer"}),
            (float, {"type": "number"}),
            (bool, {"type": "boolean"}),
            (None, {"type": "null"}),
            (type(None), {"type": "null"}),
            (Any, {}),
            (object, {}),
            (dt.datetime, {"type": "string", "format": "date-time"}),
            (dt.date, {"type": "string", "format": "date"}),
            (dt.time, {"type": "string", "format": "time"}),
            (uuid.UUID, {"type": "string", "format": "uuid"}),
            (decimal.Decimal, {"type": "string", "format": "decimal"}),
            (pathlib.Path, {"type": "string", "format": "path"}),
            (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
            (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}),
            (Union[int, str, None], {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
            (Union[int, Any], {}),
            (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
            (Literal[1, "a", None], {"type": ["integer", "string", "null"], "enum": [1, "a", None]}),
            (Literal[Color.RED], {"type": "string", "enum": ["red"]}),
            (Color, {"type": "string", "enum": ["red", "blue"], "description": "A colour."}),
            (Level, {"type": "integer", "enum": [1, 2]}),
            (Place, {"type": "string", "enum": ["HOME", "WORK"]}),
            (list, {"type": "array", "items": {}}),
            (list[int], {"type": "array", "items": {"type": "integer"}}),
            (typing.List[int], {"type": "array", "items": {"type": "integer"}}),  # noqa: UP006 - users write it
            (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
            (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
            (frozenset[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
            (tuple, {"type": "array", "items": {}}),
            (tuple[int, ...], {"type": "array", "items": {"type": "integer"}}),
            (tuple[float, float], {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
            (
                tuple[int, str],
                {
                    "type": "array",
                    "prefixItems": [{"type": "integer"}, {"type": "string"}],
                    "minItems": 2,
                    "maxItems": 2,
                },
            ),
            (dict, {"type": "object", "additionalProperties": True}),
            (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
            (Mapping[str, Any], {"type": "object", "additionalProperties": True}),
            (UserId, {"type": "integer"}),
            (T, {}),
            (Annotated[int, "A count."], {"type": "integer", "description": "A count."}),
            (Annotated[float, Limits()], {"type": "number", "minimum": 0, "maximum": 1, "description": "A share."}),
        ],
        ids=shown,
    )
    def test_a_type_has_its_schema(self, hint: Any, schema: dict[str, Any]) -> None:
        """Each kind of hint, in the form that most services support."""
        assert json_schema(hint) == schema

    def test_a_dataclass_says_all_it_knows(self) -> None:
        """Defaults, descriptions from three places, nested classes, no other properties."""
        assert json_schema(Person) == {
            "type": "object",
            "properties": {
                "name": {"type": "string"},
                "home": {
                    "type": "object",
                    "description": "An address.",
                    "properties": {
                        "street": {"type": "string", "description": "With the number."},
                        "color": {
                            "type": "string",
                            "enum": ["red", "blue"],
                            "description": "A colour.",
                            "default": "red",
                        },
                    },
                    "required": ["street"],
                    "additionalProperties": False,
                },
                "age": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                "tags": {"type": "array", "items": {"type": "string"}, "description": "Free words."},
                "born": {
                    "type": "string",
                    "format": "date",
                    "description": "Day of birth.",
                    "default": "2000-01-01",
                },
            },
            "required": ["name", "home"],
            "additionalProperties": False,
        }

    @pytest.mark.parametrize(("hint", "required"), [(Movie, ["title"]), (Draft, ["title"]), (Point, ["x"])])
    def test_what_has_to_be_there_is_required(self, hint: Any, required: list[str]) -> None:
        """TypedDict with its marks, even with postponed annotations; NamedTuple with its defaults."""
        schema = json_schema(hint)
        assert schema["required"] == required
        assert schema["additionalProperties"] is False
        assert len(schema["properties"]) == 2

    def test_a_class_that_holds_itself_is_a_reference(self) -> None:
        """The root stays an object, because services want one there."""
        schema = json_schema(Node)
        assert schema["type"] == "object"
        assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
        assert schema["$defs"]["Node"]["properties"] == schema["properties"]

    def test_classes_that_hold_each_other_end(self) -> None:
        """A cycle of two classes."""
        schema = json_schema(Left)
        assert "$ref" not in schema
        text = json.dumps(schema)
        assert all(f'"{name}": {{' in text for name in schema["$defs"])

    def test_a_class_used_twice_goes_into_defs(self) -> None:
        """Another class of the same name gets another one."""
        other = make_dataclass("Address", [("zip", int)])
        pair = make_dataclass("Pair", [("a", Address), ("b", Address), ("c", other), ("d", list[other])])  # type: ignore[valid-type]
        schema = json_schema(pair)
        assert list(schema["$defs"]) == ["Address", "Address_2"]
        assert schema["properties"]["b"] == {"$ref": "#/$defs/Address"}
        assert schema["properties"]["d"]["items"] == {"$ref": "#/$defs/Address_2"}

    def test_a_generic_class_takes_its_arguments(self) -> None:
        """Box[int] and Box[str] differ."""
        assert json_schema(Box[int])["properties"]["more"] == {"type": "array", "items": {"type": "integer"}}
        assert json_schema(Box[str])["properties"]["item"] == {"type": "string"}

    def test_limits_of_a_list_count_its_items(self) -> None:
        """The same annotation limits the characters of a str and the items of a list."""
        limit = type("MinLen", (), {"min_length": 2})()
        assert json_schema(Annotated[list[int], limit])["minItems"] == 2
        assert json_schema(Annotated[str, limit])["minLength"] == 2
        assert problems(Annotated[list[int], limit], [1]) == ("value: must have at least 2 items, has 1",)

    def test_what_annotated_holds_need_not_be_hashable(self) -> None:
        """In a list, a dict or a generic class, whose aliases become unhashable."""
        limit: Any = type("Ge", (), {"ge": 1, "__hash__": None})()
        for hint in (list[Annotated[int, limit]], dict[str, Annotated[int, limit]]):
            assert '"minimum": 1' in json.dumps(json_schema(hint))
        hint = Box[Annotated[int, limit]]  # type: ignore[type-var]
        assert json_schema(hint)["properties"]["item"]["minimum"] == 1
        assert problems(hint, {"item": 0}) == ("item: must be at least 1",)
        assert problems(list[Annotated[int, limit]], [0]) == ("value[0]: must be at least 1",)

    def test_keys_of_a_dict_may_be_what_text_can_say(self) -> None:
        """Enums and integers, but not floats."""
        assert json_schema(dict[Color, int])["propertyNames"]["enum"] == ["red", "blue"]
        assert json_schema(dict[int, str])["propertyNames"] == {"pattern": "^-?[0-9]+$"}
        with pytest.raises(InvalidRequest, match="the keys of JSON objects are strings, not float"):
            json_schema(dict[float, int])

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement is of Python 3.12")
    def test_a_type_statement_may_refer_to_itself(self) -> None:
        """`type Tree = list[Tree] | int`."""
        names: dict[str, Any] = {}
        exec("type Tree = list[Tree] | int", names)
        assert json_schema(names["Tree"])["anyOf"][0]["items"] == {"$ref": "#/$defs/Tree"}
        assert parse(names["Tree"], [1, [2, []]]) == [1, [2, []]]
        assert problems(names["Tree"], [1, ["2"]])

    @pytest.mark.parametrize(
        ("hint", "message"),
        [
            (bytes, "bytes: the type bytes has no JSON form: use str"),
            (complex, "the type complex has no JSON form"),
            (list[complex], r"list\[complex\]\[\]: the type complex"),
            (dict[str, type], r"dict\[str, type\]\[...\]: the type type"),
            ("Node", "'Node' is not a type"),
            (Literal[b"x"], "b'x' has no JSON form"),
            (make_dataclass("Thread", [("lock", complex)]), "Thread.lock: the type complex"),
        ],
    )
    def test_a_type_without_a_form_is_named_with_its_place(self, hint: Any, message: str) -> None:
        """The error names the place, and what to use instead."""
        with pytest.raises(InvalidRequest, match=message):
            json_schema(hint)

    def test_an_unknown_name_is_an_error(self) -> None:
        """A class inside a function cannot be found by its name."""

        @dataclass
        class Inner:
            value: int

        @dataclass
        class Outer:
            inner: Inner

        with pytest.raises(InvalidRequest, match="Outer: its type hints use 'Inner', which is not defined at the top"):
            json_schema(Outer)

    def test_what_a_constructor_does_not_take_is_left_out(self) -> None:
        """`init=False` is left out, an InitVar is not."""

        def total(self: Any, scale: int) -> None:
            self.total = scale * sum(self.items)

        fields: list[Any] = [
            ("items", list[int]),
            ("scale", InitVar[int], 1),
            ("total", int, field(init=False)),
            ("known", typing.ClassVar[int], 3),
        ]
        cls = make_dataclass("Total", fields, namespace={"__post_init__": total})
        assert list(json_schema(cls)["properties"]) == ["items", "scale"]
        assert Schema.of(cls).parse('{"items": [1, 2], "scale": 10}').total == 30


class TestValues:
    """The value of JSON."""

    @pytest.mark.parametrize(
        ("hint", "given", "value"),
        [
            (int, 2.0, 2),
            (float, 2, 2.0),
            (Union[float, int], 2, 2),
            (Optional[int], None, None),
            (Union[int, str], "2", "2"),
            (Union[dt.date, str], "2026-01-31", dt.date(2026, 1, 31)),
            (Union[dt.date, str], "soon", "soon"),
            (Literal[1, True], True, True),
            (Literal[Color.RED], "red", Color.RED),
            (Color, "blue", Color.BLUE),
            (Level, 2, Level.HIGH),
            (Place, "WORK", Place.WORK),
            (Level, 2.0, Level.HIGH),
            (list[int], [1, 2], [1, 2]),
            (Sequence[int], [1, 2], [1, 2]),
            (set[int], [1, 2, 1], {1, 2}),
            (frozenset[int], [1], frozenset({1})),
            (tuple[int, ...], [1, 2], (1, 2)),
            (tuple[int, str], [1, "a"], (1, "a")),
            (collections.deque[int], [1], collections.deque([1])),
            (dict[str, Color], {"a": "red"}, {"a": Color.RED}),
            (collections.OrderedDict[str, int], {"a": 1}, collections.OrderedDict(a=1)),
            (collections.defaultdict[str, int], {"a": 1}, collections.defaultdict(None, {"a": 1})),
            (dict[int, str], {"1": "a"}, {1: "a"}),
            (dict[Color, int], {"red": 1}, {Color.RED: 1}),
            (dt.datetime, "2026-01-31T12:00:00Z", dt.datetime(2026, 1, 31, 12, tzinfo=dt.timezone.utc)),
            (dt.datetime, "2026-01-31T12:00:00.5+00:00", dt.datetime(2026, 1, 31, 12, 0, 0, 500000, dt.timezone.utc)),
            (dt.datetime, "2026-01-31T12:00:00.123456789", dt.datetime(2026, 1, 31, 12, 0, 0, 123456)),
            (dt.time, "12:30:00", dt.time(12, 30)),
            (uuid.UUID, "12345678123456781234567812345678", uuid.UUID("12345678-1234-5678-1234-567812345678")),
            (decimal.Decimal, "0.10", decimal.Decimal("0.10")),
            (decimal.Decimal, 0.1, decimal.Decimal("0.1")),
            (pathlib.Path, "a/b", pathlib.Path("a/b")),
            (Movie, {"title": "M"}, {"title": "M"}),
            (Point, {"x": 1}, Point(1.0, 0.0)),
            (Box[Color], {"item": "red", "more": ["blue"]}, Box(Color.RED, [Color.BLUE])),
            (Union[Cat, Dog], {"kind": "dog", "name": "Rex"}, Dog("dog", "Rex")),
            (Node, {"value": 1, "children": [{"value": 2}]}, Node(1, [Node(2)])),
            (Any, {"a": [1]}, {"a": [1]}),
            (UserId, 3, 3),
        ],
        ids=shown,
    )
    def test_json_becomes_what_the_hint_says(self, hint: Any, given: Any, value: Any) -> None:
        """With its type, since == does not distinguish 2 and 2.0."""
        got = parse(hint, given)
        assert got == value
        assert type(got) is type(value)

    def test_nested_dataclasses_become_instances(self) -> None:
        """With enums, dates and defaults."""
        given = {"name": "Ada", "home": {"street": "Main 1", "color": "blue"}, "born": "1815-12-10"}
        assert parse(Person, given) == Person("Ada", Address("Main 1", Color.BLUE), born=dt.date(1815, 12, 10))

    @pytest.mark.parametrize(
        ("hint", "given", "wrong"),
        [
            (int, "5", 'value: expected an integer, got the string "5"'),
            (int, True, "value: expected an integer, got the boolean true"),
            (int, 1.5, "value: expected an integer, got the number 1.5"),
            (float, "1.5", 'value: expected a number, got the string "1.5"'),
            (str, 5, "value: expected a string, got the number 5"),
            (str, None, "value: expected a string, got null"),
            (bool, 1, "value: expected true or false, got the number 1"),
            (Optional[int], "x", 'value: expected an integer or null, got the string "x"'),
            (Color, "green", 'value: must be "red" or "blue", got the string "green"'),
            (Literal[1], True, "value: must be 1, got the boolean true"),
            (dt.date, "yesterday", 'value: expected a date like 2026-01-31, got the string "yesterday"'),
            (decimal.Decimal, "NaN", "value: expected a decimal number"),
            (decimal.Decimal, "much", "value: expected a decimal number"),
            (uuid.UUID, "1", "value: expected a UUID"),
            (list[int], "a", 'value: expected an array, got the string "a"'),
            (list[int], [1, "a"], 'value[1]: expected an integer, got the string "a"'),
            (tuple[int, str], [1], "value: must have 2 items, has 1"),
            (set[Any], [[1]], "value: cannot hold an array in a set"),
            (dict[str, int], {"a b": "c"}, "['a b']: expected an integer"),
            (dict[int, str], {"x": "a"}, "x: expected an integer"),
            (dict[str, int], [], "(root): expected an object, got an array"),
            (float, 10**400, "value: expected a number"),
            (Movie, {"title": 1}, "title: expected a string"),
            (Movie, {}, "title: is missing"),
            (Movie, {"title": "M", "jear": 1}, 'jear: is unknown; known are "title" or "year"'),
            (Person, {"name": "A", "home": {"street": 1}}, "home.street: expected a string, got the number 1"),
            (Person, {"name": "A", "home": []}, "home: expected an object, got an array"),
            (Positive, {"number": -1}, "(root): number must be positive"),
            (list[Positive], [{"number": -1}], "value[0]: number must be positive"),
            (Annotated[float, Limits()], 2, "value: must be at most 1"),
            (Union[Cat, Dog], {"kind": "cat", "lives": "9"}, 'value.lives: expected an integer, got the string "9"'),
        ],
        ids=shown,
    )
    def test_a_misfit_is_reported_with_its_place(self, hint: Any, given: Any, wrong: str) -> None:
        """In words that help a model; types are not silently converted."""
        assert problems(hint, given)[0].startswith(wrong)

    def test_all_problems_are_reported_at_once(self) -> None:
        """So that one retry can correct them all."""
        assert len(problems(Person, {"home": {"street": 1, "color": "x"}, "age": "old", "born": 3})) == 5

    def test_the_message_stays_short(self) -> None:
        """Ten problems in the message, all in the attribute."""
        with pytest.raises(InvalidOutput, match=r"and 40 more$") as caught:
            parse(list[int], ["x"] * 50)
        assert len(caught.value.problems) == 50

    def test_null_means_left_out(self) -> None:
        """Strict mode has no other way; a meaningful null stays."""
        given = {"name": "Ada", "home": {"street": "S", "color": None}, "age": None, "tags": None, "born": None}
        assert parse(Person, given) == Person("Ada", Address("S"))
        assert parse(Movie, {"title": "M", "year": None}) == {"title": "M"}
        assert problems(Person, {"name": None, "home": {"street": "S"}}) == ("name: expected a string, got null",)

    def test_bounds_hold_for_a_decimal_in_a_string(self) -> None:
        """JSON schema has no keyword for that."""
        price = Annotated[decimal.Decimal, Limits()]
        assert json_schema(price) == {"type": "string", "format": "decimal", "description": "A share."}
        assert Schema.of(price).parse('{"value": "0.50"}') == decimal.Decimal("0.50")
        assert problems(price, "-1") == ("value: must be at least 0",)
        assert problems(price, -1) == ("value: must be at least 0",)
        assert "decimal number" in problems(price, "x")[0]


class TestMappings:
    """A JSON schema instead of a type."""

    @pytest.mark.parametrize(
        ("schema", "good", "bad"),
        [
            ({"type": "string"}, "a", 1),
            ({"type": ["string", "null"]}, None, 1),
            ({"type": "integer"}, 1.0, 1.5),
            ({"type": "number"}, 1, True),
            ({"type": "boolean"}, False, 0),
            ({"enum": [1, "a"]}, 1.0, True),
            ({"const": {"a": [1]}}, {"a": [1]}, {"a": [True]}),
            ({"minimum": 1, "maximum": 2}, 1, 3),
            ({"exclusiveMinimum": 1}, 1.1, 1),
            ({"exclusiveMaximum": 1}, 0, 1),
            ({"minLength": 2}, "😀😀", "😀"),
            ({"maxLength": 1}, "😀", "ab"),
            ({"pattern": "^a"}, "ab", "ba"),
            ({"pattern": r"\p{L}"}, "not checked", None),
            ({"type": "array", "minItems": 1}, [1], []),
            ({"type": "array", "maxItems": 1}, [1], [1, 2]),
            ({"type": "array", "items": {"type": "string"}}, ["a"], ["a", 1]),
            ({"type": "array", "prefixItems": [{"type": "string"}], "items": False}, ["a"], ["a", 1]),
            ({"type": "array", "items": [{"type": "string"}], "additionalItems": False}, ["a"], ["a", 1]),
            ({"type": "object", "required": ["a"]}, {"a": 1}, {}),
            ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": "x", "b": 1}, {"a": 1}),
            ({"type": "object", "properties": {"a": {}}, "additionalProperties": False}, {"a": 1}, {"b": 1}),
            ({"type": "object", "additionalProperties": {"type": "string"}}, {"a": "x"}, {"a": 1}),
            (
                {"type": "object", "patternProperties": {"^x": {"type": "string"}}, "additionalProperties": False},
                {"xa": "x"},
                {"xa": 1},
            ),
            ({"type": "object", "propertyNames": {"maxLength": 1}}, {"a": 1}, {"ab": 1}),
            ({"anyOf": [{"type": "string"}, {"minimum": 3}]}, 3, 2),
            ({"oneOf": [{"type": "integer"}, {"minimum": 3}]}, 2, 3),
            ({"oneOf": [{"type": "integer"}, {"type": "null"}]}, None, "a"),
            ({"type": "something"}, 1, None),
            ({"allOf": [{"type": "integer"}, {"minimum": 3}]}, 3, 2),
            ({"not": {"type": "integer"}}, "a", 1),
            ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}}, "a", 1),
            ({"$ref": "#/definitions/a", "definitions": {"a": {"type": "string"}}}, "a", 1),
            ({"type": "array", "items": {"$ref": "#"}}, [[], [[]]], [[1]]),
            ({"nonsense": True}, 1, None),
        ],
        ids=shown,
    )
    def test_each_keyword_restricts_what_it_should(self, schema: dict[str, Any], good: Any, bad: Any) -> None:
        """One value that fits and one that does not; None as the bad one if nothing is rejected."""
        assert parse(schema, good) == good
        if bad is not None:
            assert problems(schema, bad)

    def test_the_caller_s_schema_is_copied_and_sent_as_it_is(self) -> None:
        """Later changes do not reach it, and its own keywords stay."""
        given = {"type": "object", "properties": {"a": {"type": "string", "x-own": 1}}, "title": "My answer!"}
        schema = Schema.of(given)
        given["properties"] = {}
        assert schema.json_schema["properties"] == {"a": {"type": "string", "x-own": 1}}
        assert schema.name == "My_answer"

    def test_null_for_an_optional_property_is_left_out(self) -> None:
        """Also inside lists and alternatives, unless null is a valid value."""
        inner = {"type": "object", "properties": {"b": {"type": "string"}, "c": {"type": ["string", "null"]}}}
        schema = {"type": "object", "properties": {"a": {"type": "array", "items": {"anyOf": [inner]}}}}
        assert parse(schema, {"a": [{"b": None, "c": None}]}) == {"a": [{"c": None}]}
        assert parse(schema, {"a": None}) == {}
        assert problems({**schema, "required": ["a"]}, {"a": None}) == ("a: expected an array, got null",)

    def test_null_stays_where_only_a_form_that_does_not_fit_leaves_it_out(self) -> None:
        """A null left out by one alternative is a value of the other."""
        text = {"properties": {"a": {"type": "string"}, "b": {"const": 1}}}
        null = {"properties": {"a": {"type": "null"}}}
        assert parse({"type": "object", "anyOf": [text, null]}, {"a": None, "b": 2}) == {"a": None, "b": 2}
        assert parse({"type": "object", "anyOf": [text, null]}, {"a": None, "b": 1}) == {"b": 1}

    def test_a_response_format_of_openai_is_taken(self) -> None:
        """With its name and description."""
        form = {
            "type": "json_schema",
            "json_schema": {"name": "city", "description": "A city.", "strict": True, "schema": {"type": "object"}},
        }
        schema = Schema.of(form)
        assert (schema.name, schema.description, schema.json_schema) == ("city", "A city.", {"type": "object"})

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({}, "schema is empty"),
            ({"$ref": "#/$defs/x"}, 'schema: "\\$ref": "#/\\$defs/x" does not exist'),
            ({"$ref": "https://example.org/x"}, "does not exist"),
            ({"$ref": "#"}, "only refers to itself"),
            ({"type": "object", "properties": {"a": {"$ref": "a"}}}, "does not exist"),
            ({"const": float("nan")}, "JSON has neither NaN"),
            ({"enum": [object()]}, "which JSON cannot hold"),
            (None, "schema must be a type .* not None"),
            ("Person", "schema must be a type .* not 'Person'"),
            (3, "schema must be a type"),
            (Address("x"), "schema is an instance of Address: give the class itself"),
        ],
    )
    def test_an_invalid_schema_is_rejected(self, given: Any, message: str) -> None:
        """Before anything is sent, with the right form."""
        with pytest.raises(InvalidRequest, match=message):
            Schema.of(given)


class TestForm:
    """An invalid schema is rejected before anything is sent, not noticed with the answer."""

    @pytest.mark.parametrize(
        ("schema", "problem"),
        [
            (
                {"properties": {"a": {"type": "string", "required": True}}},
                'schema.properties.a: "required" must be a list of names, not True',
            ),
            ({"type": "object", "properties": ["a"]}, "schema: \"properties\" must be an object of schemas, not ['a']"),
            ({"properties": {"a": "string"}}, "schema.properties.a must be a JSON schema, not 'string'"),
            ({"items": [{"minLength": "3"}]}, "schema.items[0]: \"minLength\" must be a number, not '3'"),
            ({"anyOf": {"type": "string"}}, 'schema: "anyOf" must be a list of schemas'),
            ({"not": {"allOf": [1]}}, "schema.not.allOf[0] must be a JSON schema, not 1"),
            ({"type": 5}, 'schema: "type" must be the name of a type, or a list of them, not 5'),
            ({"enum": "a"}, 'schema: "enum" must be a list of values'),
            ({"$ref": None}, 'schema: "$ref" must be a str, not None'),
            ({"$ref": "#/$defs", "$defs": {"type": {}}}, 'schema."$ref": "#/$defs": "type" must be'),
            ({"maximum": [1]}, 'schema: "maximum" must be a number, not [1]'),
        ],
        ids=shown,
    )
    def test_a_keyword_of_the_wrong_kind_is_named(self, schema: dict[str, Any], problem: str) -> None:
        """The error names the place; in a tool's parameters too."""
        with pytest.raises(InvalidRequest) as caught:
            Schema.of(schema)
        assert caught.value.message.startswith(problem)
        with pytest.raises(InvalidRequest):
            Tool("t", parameters={"properties": {"inner": schema}, "$defs": schema.get("$defs", {})})

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "object", "required": None, "enum": None, "properties": None, "items": None, "format": None},
            {"properties": {"a": True}, "minimum": 0, "exclusiveMinimum": True, "wibble": object},
            {"items": {}, "prefixItems": [False], "minItems": 1.0, "type": ["array", "null"]},
        ],
    )
    def test_what_others_write_is_taken(self, schema: dict[str, Any]) -> None:
        """Keywords that are null, and those of other drafts."""
        check_form(schema, "schema")

    @given(
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(-2, 3), st.sampled_from(["", "a", "object", "#", "#/a"])),
            lambda inner: st.one_of(
                st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(KEYWORDS), inner, max_size=3)
            ),
            max_leaves=12,
        ).filter(lambda value: isinstance(value, dict))
    )
    def test_any_mapping_is_refused_or_a_schema(self, given: dict[str, Any]) -> None:
        """No other error comes, now or when the answer is read."""
        with contextlib.suppress(InvalidRequest, InvalidOutput):
            schema = Schema.of(given)
            schema.strict_schema()
            for text in ('{"a": {"a": 1}, "value": ["a"]}', '{"value": "a"}', '{"value": 1}'):
                with contextlib.suppress(InvalidOutput):
                    schema.parse(text)


class TestSchema:
    """The Schema object."""

    @pytest.mark.parametrize(
        ("hint", "name"),
        [
            (Person, "Person"),
            (Box[int], "Box_int"),
            (list[Person], "list_Person"),
            (Literal["a b", "c"], "Literal_a_b_c"),
            (make_dataclass("Straße", []), "Stra_e"),
            (make_dataclass("Ж", []), "answer"),
            (make_dataclass("x" * 100, []), "x" * 64),
            ({"type": "object"}, "answer"),
        ],
    )
    def test_the_name_is_one_that_services_take(self, hint: Any, name: str) -> None:
        """Letters, digits, _ and -, at most 64."""
        assert Schema.of(hint).name == name

    @pytest.mark.parametrize("hint", [list[int], Literal["a"], int, Optional[int], Union[Cat, Dog], Color])
    def test_the_root_is_an_object_always(self, hint: Any) -> None:
        """Other types are wrapped."""
        schema = Schema.of(hint)
        assert schema.wrapped
        assert schema.json_schema["type"] == "object"
        assert schema.json_schema["required"] == ["value"]

    def test_an_object_is_not_wrapped(self) -> None:
        """Nor a new Schema."""
        schema = Schema.of(Person)
        assert not schema.wrapped
        assert Schema.of(schema) is schema
        assert not Schema.of({"properties": {"a": {}}}).wrapped
        assert not Schema.of({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}).wrapped

    def test_a_wrapped_value_may_come_bare(self) -> None:
        """Some models leave out the object around it."""
        assert Schema.of(list[int]).parse("[1]") == [1]
        assert Schema.of(Union[Cat, Dog]).parse('{"kind": "cat", "lives": 9}') == Cat("cat", 9)
        assert Schema.of(Union[Cat, Node]).parse('{"value": 1, "children": []}') == Node(1)

    def test_the_instruction_holds_the_schema(self) -> None:
        """For services without structured output."""
        schema = Schema.of(Movie)
        assert json.loads(schema.instruction().partition("\n")[2]) == schema.json_schema

    def test_the_correction_tells_what_was_wrong(self) -> None:
        """For the retry."""
        with pytest.raises(InvalidOutput) as caught:
            Schema.of(Movie).parse('{"year": "x"}')
        text = Schema.of(Movie).correction(caught.value)
        assert all(f"\n- {problem}\n" in text for problem in caught.value.problems)
        assert text.endswith(Schema.of(Movie).instruction())

    @pytest.mark.parametrize(
        "text",
        [
            '{"title": "M"}',
            '\ufeff {"title": "M"}\n',
            '```json\n{"title": "M"}\n```',
            '```\n{"title": "M"}\n```',
            'Here it is:\n```JSON\n{"title": "M"}\n```\nAnything else?',
            'Sure! {"title": "M"} Anything else?',
            'A {set} or {"so": it is {"title": "M"}',
            'First {"title": "M"}, I repeat: {"title": "M"}',
        ],
    )
    def test_one_object_is_found_in_what_is_around_it(self, text: str) -> None:
        """Fences, prose, braces in prose."""
        assert Schema.of(Movie).parse(text) == {"title": "M"}

    def test_a_fence_inside_a_text_is_part_of_it(self) -> None:
        """A model that writes Markdown into a property."""
        answer = {"title": "Run:\n```python\nx = {}\n```\n"}
        assert Schema.of(Movie).parse(f"```json\n{json.dumps(answer)}\n```") == answer

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("", "the answer is empty; expected a JSON object"),
            ("I cannot help with that.", "expected a JSON object, got prose"),
            ('{"title": "M', "(it seems to be cut off)"),
            ('{"title": "M"', "(it seems to be cut off)"),
            ('{"title": {"title": "M"} oops', "invalid JSON"),
            ('{"title": NaN}', "NaN is not valid JSON"),
            ('{"title": "M"} or {"title": "N"}', "expected one JSON object, got 2 different ones"),
            ("[1]", "expected an object, got an array"),
            ('"M"', 'expected an object, got the string "M"'),
            ('{"title": ' + "[" * 100_000, ""),
            ('{"title": ' + "9" * 5000 + "}", ""),
            ("{" * 100_000, ""),
        ],
        ids=lambda text: text[:30],
    )
    def test_an_answer_without_a_value_is_an_error_with_its_text(self, text: str, problem: str) -> None:
        """Never half a value, and the text is kept."""
        with pytest.raises(InvalidOutput) as caught:
            Schema.of(Movie).parse(text)
        assert problem in caught.value.problems[0]
        assert caught.value.partial == text
        assert str(caught.value).startswith("the answer does not fit Movie: ")

    def test_a_value_that_is_nested_too_deeply_is_an_error(self) -> None:
        """Not a RecursionError, with a recursive type and a recursive schema."""
        value: dict[str, Any] = {"value": 1}
        for _ in range(2000):
            value = {"value": 1, "children": [value]}
        for hint in (Node, {"properties": {"children": {"items": {"$ref": "#"}}}}):
            with pytest.raises(InvalidOutput, match="nested too deeply"):
                Schema.of(hint).convert(value)

    def test_line_breaks_in_a_text_are_taken(self) -> None:
        """Models write them raw, though JSON requires an escape."""
        assert Schema.of(Movie).parse('{"title": "two\nlines"}') == {"title": "two\nlines"}

    def test_the_value_so_far(self) -> None:
        """Plain values while the answer is arriving, None before."""
        schema = Schema.of(Person)
        assert schema.partial("") is None
        assert schema.partial("```json\n") is None
        assert schema.partial('```json\n{"name": "A') == {"name": "A"}
        assert schema.partial('{"name": "Ada", "home": {"str') == {"name": "Ada", "home": {}}
        assert schema.partial('I think of {name}: {"name": "A') == {"name": "A"}
        assert schema.partial("I think of {") is None
        assert schema.partial("{") == {}
        listed = Schema.of(list[str])
        assert listed.partial("{") is None
        assert listed.partial('I think of {two}: {"value": ["a", "b') == ["a", "b"]
        assert listed.partial('{"value": ["a", "b') == ["a", "b"]
        assert listed.partial('["a", "b') == ["a", "b"]

    @given(st.text(alphabet='{}[]"title:, \\`jsonM1\n', max_size=40))
    def test_any_text_is_a_value_or_the_documented_error(self, text: str) -> None:
        """For any text of a model."""
        schema = Schema.of(Movie)
        schema.partial(text)
        try:
            value = schema.parse(text)
        except InvalidOutput as error:
            value = {"title": error.problems[0]}
        assert isinstance(value["title"], str)

    def test_importing_it_does_not_import_pydantic(self) -> None:
        """Nor does the package need it."""
        code = "import sys, llmbridge.schema; assert 'pydantic' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


class TestStrict:
    """OpenAI's strict subset."""

    def test_what_is_strict_stays(self) -> None:
        """All properties required, all objects closed."""
        assert Schema.of(Cat).strict
        assert Schema.of(Cat).strict_schema() == Schema.of(Cat).json_schema
        assert Schema.of(list[Cat]).strict

    def test_optional_properties_become_required_and_nullable(self) -> None:
        """Their defaults are removed, since they are rejected there."""
        schema = Schema.of(Person)
        assert not schema.strict
        strict = schema.strict_schema()
        assert strict is not None
        assert strict["required"] == ["name", "home", "age", "tags", "born"]
        assert strict["properties"]["age"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}
        assert strict["properties"]["tags"] == {
            "anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}],
            "description": "Free words.",
        }
        assert strict["properties"]["home"]["required"] == ["street", "color"]
        assert "default" not in json.dumps(strict)

    def test_what_it_refuses_is_left_to_the_check_of_the_answer(self) -> None:
        """String lengths and unknown formats and keywords are left out; oneOf becomes anyOf."""
        given = {
            "type": "object",
            "properties": {
                "a": {"type": "string", "minLength": 2, "format": "path", "x-own": 1},
                "b": {"oneOf": [{"type": "string", "format": "date"}, {"enum": ["x", None]}]},
                "c": {"allOf": [{"$ref": "#/$defs/c"}], "description": "C."},
                "d": {"properties": {}},
            },
            "required": ["a", "b", "c", "d"],
            "$defs": {"c": {"type": "integer", "minimum": 1}},
        }
        assert Schema.of(given).strict_schema() == {
            "type": "object",
            "properties": {
                "a": {"type": "string"},
                "b": {
                    "anyOf": [{"type": "string", "format": "date"}, {"type": ["string", "null"], "enum": ["x", None]}]
                },
                "c": {"anyOf": [{"$ref": "#/$defs/c"}], "description": "C."},
                "d": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
            },
            "required": ["a", "b", "c", "d"],
            "additionalProperties": False,
            "$defs": {"c": {"type": "integer", "minimum": 1}},
        }

    @pytest.mark.parametrize(
        "hint",
        [
            dict[str, int],
            make_dataclass("A", [("x", Any)]),
            make_dataclass("A", [("x", dict)]),
            make_dataclass("A", [("x", tuple[int, str])]),
            make_dataclass("A", [("x", list)]),
            {"type": "object"},
            {"type": "object", "properties": {"a": True}},
            {"type": "object", "properties": {}, "additionalProperties": True},
            {"type": "object", "properties": {"a": {"type": ["object", "null"]}}},
            {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
            {"type": "object", "properties": {"a": {"allOf": [{"type": "string"}, {"minLength": 1}]}}},
            {"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}]},
        ],
    )
    def test_what_cannot_be_said_there_is_none(self, hint: Any) -> None:
        """Free keys, values of any type, mixed tuples, combinations."""
        assert Schema.of(hint).strict_schema() is None
        assert not Schema.of(hint).strict

    def test_recursion_can_be_said_there(self) -> None:
        """References into $defs are part of the subset."""
        strict = Schema.of(Node).strict_schema()
        assert strict is not None
        assert strict["$defs"]["Node"]["required"] == ["value", "children"]


class TestSubsets:
    """Keywords that single services reject are expressed in another way."""

    def test_bounds_move_into_descriptions(self) -> None:
        """Anywhere in the schema; a property may have the same name."""
        given = {
            "type": "object",
            "properties": {
                "maximum": {"type": "integer", "minimum": 0, "maximum": 9, "description": "The most."},
                "words": {"type": "array", "items": {"type": "string", "pattern": "^a"}, "minItems": 1},
                "two": {"type": "array", "items": {"$ref": "#/$defs/n"}, "minItems": 2, "maxItems": 2},
            },
            "$defs": {"n": {"type": "number", "exclusiveMinimum": 0, "title": "N"}},
        }
        before = json.dumps(given)
        assert without_bounds(given) == {
            "type": "object",
            "properties": {
                "maximum": {"type": "integer", "description": "The most. (minimum: 0, maximum: 9)"},
                "words": {
                    "type": "array",
                    "items": {"type": "string", "description": "(pattern: ^a)"},
                    "minItems": 1,
                },
                "two": {"type": "array", "items": {"$ref": "#/$defs/n"}, "description": "(minItems: 2, maxItems: 2)"},
            },
            "$defs": {"n": {"type": "number", "title": "N", "description": "(exclusiveMinimum: 0)"}},
        }
        assert json.dumps(given) == before

    def test_patterns_move_into_descriptions(self) -> None:
        """All of them, or only lookarounds."""
        plain, looks = {"type": "string", "pattern": "^a(?:b)(?P<c>d)$"}, {"type": "string", "pattern": "^(?<!a)b"}
        given = {"properties": {"a": plain, "b": looks, "pattern": {"type": "integer", "minimum": 1}}}
        told = {"type": "string", "description": "(pattern: ^(?<!a)b)"}
        assert without_lookaround(given) == {"properties": {**given["properties"], "b": told}}
        assert without_patterns(given)["properties"] == {
            "a": {"type": "string", "description": "(pattern: ^a(?:b)(?P<c>d)$)"},
            "b": told,
            "pattern": {"type": "integer", "minimum": 1},
        }

    def test_a_tuple_of_mixed_types_says_what_its_items_may_be(self) -> None:
        """OpenAI demands `items`; existing ones are unchanged."""
        given = json_schema(make_dataclass("Pair", [("x", tuple[int, str]), ("y", tuple[()])]))
        made = as_openai_takes(given)["properties"]
        assert made["x"] == {
            **given["properties"]["x"],
            "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        }
        assert made["y"] == given["properties"]["y"]
        closed = {"prefixItems": [{"type": "string"}], "items": False}
        assert as_openai_takes(closed) == closed

    def test_no_strict_schema_has_a_pattern_that_looks_around(self) -> None:
        """OpenAI would reject the whole request; the answer is checked all the same."""
        given = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(?=b)"}}, "required": ["a"]}
        strict = Schema.of(given).strict_schema()
        assert strict is not None
        assert strict["properties"]["a"] == {"type": "string", "description": "(pattern: ^(?=b))"}
        assert problems(given, {"a": "c"}) == ('a: must match ^(?=b), got the string "c"',)

    def test_what_holds_itself_is_known(self) -> None:
        """Directly, through others, or as a whole; a schema that is only used twice is not recursive."""
        twice = {"properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/$defs/A"}}, "$defs": {"A": {}}}
        assert holds_itself(json_schema(Node))
        assert holds_itself({"properties": {"a": {"items": {"$ref": "#/properties/a"}}}})
        assert not holds_itself(twice)
        assert not holds_itself({"properties": {"a": {"$ref": "#/nowhere"}}})
        ladder = {
            f"D{i}": {"items": {"$ref": f"#/$defs/D{i + 1}"}, "not": {"$ref": f"#/$defs/D{i + 1}"}} for i in range(60)
        }
        assert not holds_itself({"$ref": "#/$defs/D0", "$defs": {**ladder, "D60": {}}})

    def test_references_are_alone(self) -> None:
        """Keywords beside one move to a schema around it."""
        described = {"$ref": "#/$defs/A", "description": "Which."}
        given = {"properties": {"a": described, "b": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "string"}}}
        assert with_lone_references(given) == {
            "properties": {
                "a": {"anyOf": [{"$ref": "#/$defs/A"}], "description": "Which."},
                "b": {"$ref": "#/$defs/A"},
            },
            "$defs": {"A": {"type": "string"}},
        }


class TestPydantic:
    """pydantic's models if it is installed, imitations if not."""

    def test_a_model_is_known_by_what_it_can_do(self) -> None:
        """Its own schema and its own validation are used."""

        class Model:
            @staticmethod
            def model_json_schema() -> dict[str, Any]:
                return {"type": "object", "properties": {"a": {"type": "integer"}}}

            @staticmethod
            def model_validate_json(text: str) -> Any:
                if json.loads(text) == {"a": 1}:
                    return "validated"
                raise ValueError("a must be 1")

        schema = Schema.of(Model)
        assert schema.json_schema["additionalProperties"] is False
        assert schema.parse('{"a": 1}') == "validated"
        assert schema.parse('{"a": 1.0}') == "validated"
        with pytest.raises(InvalidOutput) as caught:
            schema.parse('{"a": 2}')
        assert caught.value.problems == ("(root): a must be 1",)

    def test_a_model_gives_instances_and_its_own_problems(self) -> None:
        """With aliases, dates, nested models and nulls for left-out fields."""
        pydantic = pytest.importorskip("pydantic")

        class Inner(pydantic.BaseModel):  # type: ignore[misc, name-defined]
            number: int = pydantic.Field(1, ge=1)

        model = pydantic.create_model(
            "Outer", __doc__="An outer one.", inner=(list[Inner], ...), when=(dt.date, ...), size=(int, 3)
        )
        schema = Schema.of(model)
        assert (schema.name, schema.description) == ("Outer", "An outer one.")
        assert schema.json_schema["$defs"]["Inner"]["additionalProperties"] is False
        value = schema.parse('{"inner": [{"number": null}], "when": "2026-01-31", "size": null}')
        assert isinstance(value, model)
        assert value.model_dump() == {"inner": [{"number": 1}], "when": dt.date(2026, 1, 31), "size": 3}
        with pytest.raises(InvalidOutput) as caught:
            schema.parse('{"inner": [{"number": 0}], "when": "x"}')
        assert [problem.partition(":")[0] for problem in caught.value.problems] == ["inner[0].number", "when"]

    def test_a_model_works_within_other_types(self) -> None:
        """In a dataclass, a list or a union; its definitions move to the one document."""
        pydantic = pytest.importorskip("pydantic")
        leaf = pydantic.create_model("Leaf", size=(int, ...))
        tree = pydantic.create_model("Tree", leaf=(leaf, ...), other=(leaf, ...))
        pair = make_dataclass("Pair", [("tree", tree), ("leaf", Optional[leaf], None), ("last", Optional[leaf], None)])
        schema = Schema.of(pair)
        text = json.dumps(schema.json_schema)
        assert all(f"#/$defs/{name}" in text for name in schema.json_schema["$defs"])
        given = {"tree": {"leaf": {"size": 1}, "other": {"size": 2}}}
        assert schema.parse(json.dumps(given)).tree.other.size == 2
        assert problems(pair, {"tree": {"leaf": {"size": "x"}, "other": {}}})[0].startswith("tree.leaf.size: ")

    def test_models_that_hold_themselves_and_pydantic_s_own_types(self) -> None:
        """A recursive model has an object at its root; a pydantic dataclass and a root model work too."""
        pydantic = pytest.importorskip("pydantic")
        names: dict[str, Any] = {"BaseModel": pydantic.BaseModel, "__name__": __name__}
        exec("class Knot(BaseModel):\n    size: int\n    inner: 'Knot | None' = None\nKnot.model_rebuild()", names)
        schema = Schema.of(names["Knot"])
        assert schema.json_schema["type"] == "object"
        assert list(schema.json_schema["$defs"]) == ["Knot"]
        assert schema.parse('{"size": 1, "inner": {"size": 2}}').inner.size == 2
        words = Schema.of(pydantic.RootModel[list[str]])
        assert words.wrapped
        assert words.parse('{"value": ["a"]}').root == ["a"]
        checked = pydantic.dataclasses.dataclass(type("Checked", (), {"__annotations__": {"size": int}}))
        assert Schema.of(checked).parse('{"size": 3}').size == 3
        assert problems(checked, {"size": "x"})

    @pytest.mark.skipif(sys.version_info >= (3, 14), reason="pydantic.v1 does not go there")
    def test_models_of_pydantic_1(self) -> None:
        """Their methods have other names: nested, with references, and as a whole that is not an object."""
        v1 = pytest.importorskip("pydantic.v1")
        leaf: Any = v1.create_model("Leaf", size=(int, v1.Field(..., gt=0)))
        tree = v1.create_model("Tree", leaf=(leaf, ...), leaves=(list[leaf], []))
        schema = Schema.of(tree)
        assert schema.json_schema["properties"]["leaf"] == {"$ref": "#/$defs/Leaf"}
        assert schema.json_schema["$defs"]["Leaf"]["additionalProperties"] is False
        value = schema.parse('{"leaf": {"size": 1}, "leaves": null}')
        assert (value.leaf, value.leaves) == (leaf(size=1), [])
        assert problems(tree, {"leaf": {"size": 0}}) == ("leaf.size: ensure this value is greater than 0",)
        assert problems(tree, {"leaves": []}) == ("leaf: field required",)
        pair = make_dataclass("Pair", [("one", tree), ("other", Optional[leaf], None)])
        assert Schema.of(pair).parse('{"one": {"leaf": {"size": 2}}}').one.leaf.size == 2
        words = v1.create_model("Words", __root__=(list[str], ...))
        assert Schema.of(words).parse('{"value": ["a"]}').__root__ == ["a"]
        assert problems(words, [{}]) == ("value[0]: str type expected",)
        assert Tool.result_text([value]) == '[{"leaf": {"size": 1}, "leaves": []}]'
