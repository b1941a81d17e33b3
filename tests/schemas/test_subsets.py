"""Schemas for single services: rejected keywords are reworded or described, and checked here, with the same meaning."""

from __future__ import annotations

from typing import Any

import pytest

from llmbridge import InvalidOutput, InvalidRequest, tool
from llmbridge._schemas.check import check
from llmbridge._schemas.subsets import as_openai_takes, modern, object_form, tool_form
from llmbridge.schema import Schema
from llmbridge.tools import Tool

TITLE = {"type": "string"}


def form(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of one object."""
    return tool_form("f", "", Tool("f", "", schema).parameters)[1]


class TestModern:
    """Older drafts, translated into the current one."""

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
            ({"maximum": 1, "exclusiveMaximum": True}, {"exclusiveMaximum": 1}),
            ({"minimum": 1, "exclusiveMinimum": False}, {"minimum": 1}),
            ({"exclusiveMaximum": True}, {}),
            ({"items": [{"type": "string"}]}, {"prefixItems": [{"type": "string"}]}),
            ({"items": [TITLE], "additionalItems": {}}, {"prefixItems": [TITLE], "items": {}}),
            ({"items": []}, {}),
            ({"description": None, "items": None, "enum": None, "type": None}, {}),
            ({"const": None, "default": None}, {"const": None, "default": None}),
            ({"$schema": "http://json-schema.org/draft-07/schema#", "$id": "x", "title": "T"}, {"title": "T"}),
        ],
    )
    def test_a_keyword(self, old: dict[str, Any], new: dict[str, Any]) -> None:
        """A keyword is translated anywhere in the schema."""
        assert modern(old) == new
        nested = {"properties": {"a": {"anyOf": [{"items": old}]}}, "$defs": {"b": old}}
        assert modern(nested) == {"properties": {"a": {"anyOf": [{"items": new}]}}, "$defs": {"b": new}}

    def test_tools_and_answers_are_checked_by_it(self) -> None:
        """A former exclusive bound is still exclusive."""
        old = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "exclusiveMinimum": True}}}
        with pytest.raises(InvalidOutput, match="n: must be greater than 0"):
            Tool("f", "", old).bind({"n": 0})
        with pytest.raises(InvalidOutput, match="n: must be greater than 0"):
            Schema.of(old).parse('{"n": 0}')

    def test_names_of_properties_and_values_stay(self) -> None:
        """Names of properties and values are not keywords."""
        given = {"properties": {"$id": {"type": "string"}, "items": {"const": {"items": None}}}}
        assert modern(given) == given


class TestOneObject:
    """The top of a tool's schema."""

    @pytest.mark.parametrize("key", ["anyOf", "oneOf"])
    def test_alternatives_are_described_and_their_properties_kept(self, key: str) -> None:
        """They go into the description; only what all of them require is required."""
        first = {"properties": {"a": {"type": "string"}, "kind": {"const": "x"}}, "required": ["kind", "a"]}
        second = {"properties": {"b": {"type": "integer"}, "kind": {"const": "y"}}, "required": ["kind"]}
        given = {"type": "object", "properties": {"title": TITLE}, "required": ["title"], key: [first, second]}
        told, made = tool_form("f", "Does it.", given)
        assert told["description"].startswith(f'Does it. ({key}: [{{"properties": {{"a"')
        assert made == {
            "type": "object",
            "properties": {
                "title": TITLE,
                "a": {"type": "string"},
                "kind": {"anyOf": [{"const": "x"}, {"const": "y"}]},
                "b": {"type": "integer"},
            },
            "required": ["title", "kind"],
        }

    def test_closed_alternatives_make_a_closed_object(self) -> None:
        """A closed object gets no property from an alternative, since it would reject it."""
        one = {"properties": {"a": {}}, "additionalProperties": False}
        assert form({"anyOf": [one, {**one, "properties": {"b": {}}}, {"type": "null"}]}) == {
            "type": "object", "properties": {"a": {}, "b": {}}, "additionalProperties": False,
        }  # fmt: skip
        closed = {"properties": {"a": {}}, "additionalProperties": False, "anyOf": [{"properties": {"b": {}}}]}
        assert form(closed)["properties"] == {"a": {}}

    def test_all_of_them_are_put_together(self) -> None:
        """One object can express `allOf`, so nothing goes into the description."""
        part = {"properties": {"a": {"maxLength": 3}, "b": {}}, "required": ["b"]}
        given = {"properties": {"a": TITLE}, "required": ["a"], "allOf": [part, {"title": "T"}]}
        assert tool_form("f", "", Tool("f", "", given).parameters) == (
            {},
            {
                "type": "object",
                "title": "T",
                "properties": {"a": {"allOf": [TITLE, {"maxLength": 3}]}, "b": {}},
                "required": ["a", "b"],
            },
        )

    def test_a_reference_is_followed(self) -> None:
        """Recursive references and alternatives behind references are followed too."""
        node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "anyOf": [{"required": ["next"]}]}
        told, made = tool_form("f", "", Tool("f", "", {"$ref": "#/$defs/Node", "$defs": {"Node": node}}).parameters)
        assert told == {"description": '(anyOf: [{"required": ["next"]}])'}
        assert made["properties"] == {"next": {"$ref": "#/$defs/Node"}}
        assert made["$defs"] == {"Node": node}
        assert "$ref" not in made

    def test_references_to_what_is_gone_get_its_content(self) -> None:
        """zod writes such references into unions; a circular one ends."""
        first = {"properties": {"a": TITLE, "c": {"$ref": "#/anyOf/0/properties/c"}}}
        second = {"properties": {"b": {"$ref": "#/anyOf/0/properties/a", "description": "B."}}}
        with pytest.raises(InvalidRequest, match="only refers to itself"):
            form({"anyOf": [first, second]})
        first["properties"]["c"] = {"items": {"$ref": "#/anyOf/0/properties/c"}}
        made = form({"anyOf": [first, second]})
        assert made["properties"] == {"a": TITLE, "b": {**TITLE, "description": "B."}, "c": {"items": {"items": {}}}}

    def test_many_references_end(self) -> None:
        """A few references could grow into a schema of any size."""
        chain: dict[str, Any] = {"n30": {"type": "object"}}
        for number in range(30):
            ref = {"$ref": f"#/$defs/n{number + 1}"}
            chain[f"n{number}"] = {"allOf": [ref, ref], "anyOf": [ref, {"required": [f"a{number}"]}]}
        assert len(form({"$ref": "#/$defs/n0", "$defs": chain})["$defs"]) == 31
        names = {f"n{number}": {"$ref": f"#/anyOf/0/properties/n{number + 1}"} for number in range(30)}
        double = {name: {"properties": {"a": ref, "b": ref}} for name, ref in names.items()}
        with pytest.raises(InvalidRequest, match=r'put their targets in "\$defs"'):
            form({"anyOf": [{"properties": {**double, "n30": {}}}, {}]})

    @pytest.mark.parametrize(
        "case",
        [
            {"not": {"required": ["a"]}},
            {"enum": [{"a": 1}]},
            {"const": {"a": 1}},
            {"if": {"required": ["a"]}, "then": {"required": ["b"], "properties": {"b": {}}}},
        ],
        ids=str,
    )
    def test_alternatives_beyond_one_object_are_described(self, case: dict[str, Any]) -> None:
        """The properties of `then` are included."""
        told, made = tool_form("f", "D.", {"type": "object", "properties": {"a": {}}, **case})
        assert all(f"{key}: " in told["description"] for key in case)
        assert not made.keys() & case.keys()
        assert made["properties"].keys() == ({"a", "b"} if "then" in case else {"a"})
        assert "required" not in made

    def test_a_schema_of_an_answer_tells_it_itself(self) -> None:
        """It goes into the schema's own description."""
        given = {"type": "object", "description": "A note.", "anyOf": [{"required": ["a"]}, {}]}
        assert object_form(given) == {
            "type": "object",
            "properties": {},
            "description": 'A note. (anyOf: [{"required": ["a"]}, {}])',
        }
        plain = {"type": "object", "additionalProperties": TITLE}
        assert object_form(plain) == plain

    def test_a_reference_that_leads_nowhere_is_refused(self) -> None:
        """Every service rejects it; the message names the tool and the keyword."""
        given = {"properties": {"a": {"items": {"$ref": "#/components/schemas/Pet"}}}}
        with pytest.raises(
            InvalidRequest, match=r'tool f: parameters: "\$ref": "#/components/schemas/Pet" does not exist'
        ):
            form(given)

    def test_another_type_is_refused(self) -> None:
        """Another type is rejected, unless it may also be an object."""
        assert form({"type": ["object", "null"]}) == {"type": "object", "properties": {}}
        with pytest.raises(InvalidRequest, match='tool f: the "type" of its parameters must be "object"'):
            Tool("f", "", {"type": "array"})

    def test_it_is_checked_before_the_tool_runs(self) -> None:
        """The original schema is checked as a whole."""
        ran: list[Any] = []
        given = {"properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
        made = Tool("f", "", given, lambda **values: ran.append(values))
        with pytest.raises(InvalidOutput, match="a: is missing"):
            made.run({})
        made.run({"b": 1})
        assert ran == [{"b": 1}]

    def test_functions_are_left_as_they_are(self) -> None:
        """Ordinary schemas are unchanged."""

        @tool
        def add(a: int, b: int = 0) -> int:
            """Adds."""
            return a + b

        assert tool_form(add.name, add.description, add.parameters) == ({"description": "Adds."}, add.parameters)


class TestArrays:
    """OpenAI demands `items` in arrays."""

    @pytest.mark.parametrize("kind", ["array", ["array", "null"], ["null", "array"]])
    def test_an_array_without_items(self, kind: Any) -> None:
        """Arrays at any depth get `items`."""
        bare, whole = {"type": kind}, {"type": kind, "items": {}}
        for wrapped in (
            lambda part: {"properties": {"a": part}},
            lambda part: {"properties": {"a": {"type": "array", "items": part}}},
            lambda part: {"anyOf": [part]},
            lambda part: {"additionalProperties": part, "$defs": {"a": part}},
        ):
            assert as_openai_takes(wrapped(bare)) == wrapped(whole)

    def test_other_types_have_none(self) -> None:
        """Existing `items` stay."""
        for schema in ({"type": "object"}, {"type": "array", "items": False}, {"items": {}}, {}):
            assert as_openai_takes(schema) == schema

    def test_required_names_are_properties(self) -> None:
        """Groq demands `properties`, even if empty."""
        assert as_openai_takes({"anyOf": [{"required": ["a"]}]}) == {
            "anyOf": [{"required": ["a"], "properties": {}}]
        }  # fmt: skip

    @pytest.mark.parametrize("pattern", [r"^\p{L}+$", "(?<!a)b", "(", "(?=x)"])
    def test_rejected_patterns_move_into_descriptions(self, pattern: str) -> None:
        """Keys with such patterns are described too."""
        assert as_openai_takes({"pattern": pattern}) == {"description": f"(pattern: {pattern})"}
        made = as_openai_takes({"patternProperties": {pattern: {"type": "string"}}})
        assert made.keys() == {"description"}
        good = {"patternProperties": {"^x": {"pattern": "^a+$"}}}
        assert as_openai_takes(good) == good


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"uniqueItems": True}, [1, True, "1"], [1, 1.0]),
        ({"contains": {"const": 1}}, [0, 1], [0]),
        ({"contains": {"const": 1}, "minContains": 0}, [], None),
        ({"multipleOf": 0.1}, 0.3, 0.35),
        ({"multipleOf": 3}, 10**400 * 3, float("inf")),
        ({"minProperties": 1, "maxProperties": 1}, {"a": 1}, {"a": 1, "b": 2}),
        ({"dependentRequired": {"a": ["b"]}}, {"b": 1}, {"a": 1}),
        ({"dependentSchemas": {"a": {"required": ["b"]}}}, {"a": 1, "b": 2}, {"a": 1}),
        ({"if": {"required": ["a"]}, "then": {"required": ["b"]}}, {"a": 1, "b": 1}, {"a": 1}),
        ({"if": {"required": ["a"]}, "else": {"required": ["b"]}}, {"a": 1}, {}),
        ({"then": False, "else": False}, {}, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_moved_keywords_are_checked(schema: dict[str, Any], good: Any, bad: Any) -> None:
    """One value that fits and one that does not; None if nothing is rejected."""
    assert check(good, schema).problems == []
    if bad is not None:
        assert check(bad, schema).problems
