"""Every endpoint answers or rejects any request, and never breaks."""

from __future__ import annotations

import copy
import json
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge.testing import Received, Reply
from llmbridge.testing.dialects import answer
from llmbridge.testing.made_up import Hints, value

FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}}
OPENAI: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "image_url", "image_url": {"url": "u"}}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "sunny"},
    ],
    "stream": True,
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
    "reasoning_effort": "low",
}
ANTHROPIC: dict[str, Any] = {
    "model": "m",
    "max_tokens": 2000,
    "system": [{"type": "text", "text": "Be brief"}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Hi"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "", "signature": "s"},
                {"type": "tool_use", "id": "c", "name": "f", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "sunny"}]},
    ],
    "temperature": 0.5,
    "thinking": {"type": "enabled", "budget_tokens": 1024},
    "output_config": {"format": {"type": "json_schema", "schema": {}}},
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "any"},
}
GEMINI: dict[str, Any] = {
    "contents": [
        {"role": "user", "parts": [{"text": "Hi"}, {"inlineData": {"mimeType": "image/png", "data": "AA"}}]},
        {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}, "thoughtSignature": "s"}]},
        {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "sunny"}}}]},
    ],
    "systemInstruction": {"parts": [{"text": "Be brief"}]},
    "generationConfig": {"responseJsonSchema": {}, "thinkingConfig": {"includeThoughts": True}},
    "tools": [{"functionDeclarations": [FUNCTION]}],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
}
OLLAMA: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "user", "content": "Hi", "images": ["AA"]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "sunny", "tool_name": "f"},
    ],
    "tools": [{"type": "function", "function": FUNCTION}],
    "format": {},
    "options": {"seed": 1},
    "think": "low",
}
MISTRAL = {name: value for name, value in OPENAI.items() if name != "stream"}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": "Be brief",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": {}}},
    "reasoning": {"effort": "low"},
    "stream": True,
}
COHERE = {**OPENAI, "tool_choice": "REQUIRED", "response_format": {"type": "json_object", "json_schema": {}}}
EMBED: dict[str, Any] = {"model": "m", "input": ["a", [1, 2]], "dimensions": 3, "encoding_format": "base64"}
PART: dict[str, Any] = {"model": "models/m", "content": {"parts": [{"text": "a"}]}, "outputDimensionality": 3}
HISTORY = json.dumps({"history": [{"speaker": "human", "text": "Hi"}]})
ENDPOINTS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", OPENAI),
    ("/openai/deployments/d/chat/completions", OPENAI),
    ("/mistral/v1/chat/completions", MISTRAL),
    ("/v1/responses", RESPONSES),
    ("/v1/responses", {"model": "m", "input": "Hi"}),
    ("/cohere/v2/chat", COHERE),
    ("/v2/chat", MISTRAL),
    ("/v2/embed", {"model": "m", "texts": ["a", "b"], "input_type": "x", "output_dimension": 3}),
    ("/v1/messages", ANTHROPIC),
    ("/v1/messages/count_tokens", ANTHROPIC),
    ("/v1beta/models/m:generateContent", GEMINI),
    ("/v1beta/models/m:streamGenerateContent?alt=sse", GEMINI),
    ("/v1beta/models/m:embedContent", PART),
    ("/v1beta/models/m:batchEmbedContents", {"requests": [PART, PART]}),
    ("/api/chat", OLLAMA),
    ("/api/chat", {"messages": OPENAI["messages"]}),
    ("/api/embed", {"model": "m", "input": ["a", "b"], "dimensions": 3}),
    ("/api/converse-edge", {"conversation": HISTORY}),
    ("/v1/embeddings", EMBED),
    ("/mistral/v1/embeddings", {**EMBED, "output_dimension": 3}),
]
ODD: list[Any] = [None, True, 0, -1.5, "", "x", "\ud800", [], [None], ["x"], [[]], [{}], {}, {"type": []}, {"x": {}}]
FULL = Reply(
    ["a", "b"], reasoning="hm", refusal="no", tool_calls=[{"name": "f"}], choices=["c"], logprobs=[{}], usage=True
)


def received(path: str, body: Any) -> Received:
    """A request as the server would have read it."""
    headers = [("anthropic-version", "2023-06-01")]
    return Received("POST", path, headers, json.dumps(body).encode(), 1, threading.Event())


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path to every value in a JSON value."""
    keys: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, inner in keys for place in places(inner, (*path, key)))]


def replaced(value: Any, path: tuple[Any, ...], odd: Any) -> Any:
    """A copy with another value at one place."""
    if not path:
        return odd
    changed = copy.deepcopy(value)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = odd
    return changed


def look(request: Received) -> None:
    """Reads everything that a Received offers of its body."""
    assert isinstance(request.user_text + (request.model or ""), str)
    assert isinstance([*request.turns, *request.tools], list)


@pytest.mark.parametrize(("path", "body"), ENDPOINTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_full_request_is_answered(path: str, body: dict[str, Any]) -> None:
    """With everything that a Reply can hold."""
    if path.startswith("/v1/embeddings"):
        body = {**body, "input": ["a", "b"]}
    request = received(path, body)
    look(request)
    said = answer(FULL, request, "1")
    assert (said.status, bool(b"".join(said.events))) == (200, True)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "body"), ENDPOINTS, ids=lambda value: value if isinstance(value, str) else "")
def test_a_request_with_anything_wrong_is_answered_or_refused(path: str, body: dict[str, Any]) -> None:
    """Each value of a good request is replaced by odd ones: no endpoint breaks, nor does reading the request."""
    for place in places(body):
        for odd in ODD:
            request = received(path, replaced(body, place, odd))
            look(request)
            assert answer(FULL, request, "1").status in (200, 400, 404, 422)


SCALARS = st.one_of(
    st.just({"type": "string"}),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more},
        st.integers(0, 9),
        st.integers(0, 9),
    ),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-9, 9),
        st.integers(0, 9),
    ),
    st.builds(lambda low: {"type": "number", "exclusiveMinimum": low}, st.integers(-9, 9)),
    st.just({"type": "boolean"}),
    st.just({"enum": ["a", 1, None]}),
    st.just({"const": {"x": 1}}),
    st.just({"type": ["null", "integer"]}),
)
SCHEMAS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.builds(lambda one, two: {"anyOf": [one, two]}, inner, inner),
        st.builds(
            lambda one, two: {"type": "object", "properties": {"a": one, "b": two}, "required": ["a", "b"]},
            inner,
            inner,
        ),
        st.builds(lambda one: {"$defs": {"d": one}, "allOf": [one]}, inner),
    ),
    max_leaves=6,
)


def fits(made: Any, schema: dict[str, Any]) -> bool:
    """Whether a value matches one of the schemas above."""
    if "anyOf" in schema:
        return any(fits(made, one) for one in schema["anyOf"])
    if "allOf" in schema:
        return all(fits(made, one) for one in schema["allOf"])
    if "const" in schema or "enum" in schema:
        return made in schema.get("enum", [schema.get("const")])
    kind = schema["type"]
    if kind == "object":
        return all(fits(made[name], schema["properties"][name]) for name in schema["required"])
    if kind == "array":
        return len(made) >= max(1, schema["minItems"]) and all(fits(one, schema["items"]) for one in made)
    if kind == "string":
        return schema.get("minLength", 0) <= len(made) <= schema.get("maxLength", 99)
    if kind == "boolean":
        return made is True
    if isinstance(kind, list):
        return isinstance(made, int)
    in_range = schema.get("minimum", made) <= made <= schema.get("maximum", made)
    return in_range and made > schema.get("exclusiveMinimum", made - 1) and (kind == "number" or isinstance(made, int))


@given(schema=SCHEMAS, prompt=st.sampled_from(["", "In New Rome and 'two words': 7, -3.5 and 1000"]))
def test_made_up_values_fit_their_schema(schema: dict[str, Any], prompt: str) -> None:
    """For any prompt, and always the same for the same one."""
    made = value(schema, Hints(prompt))
    assert fits(made, schema)
    assert made == value(schema, Hints(prompt))


def test_a_schema_may_contain_itself() -> None:
    """A recursive reference ends as soon as possible."""
    children = {"type": "array", "items": {"$ref": "#/$defs/node"}}
    other = {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
    properties = {"name": {"type": "string"}, "children": children, "other": other}
    node = {"type": "object", "properties": properties, "required": ["name", "other"]}
    made = value({"$defs": {"node": node}, "$ref": "#/$defs/node"}, Hints("In Rome"))
    assert made["name"] == "Rome"
    node["required"] = ["name", "children"]
    deep = value({"$defs": {"node": node}, "$ref": "#/$defs/node"}, Hints(""))
    while deep["children"]:
        deep = deep["children"][0]
    assert value({"$ref": "#/$defs/none"}, Hints("")) == "demo"
    assert value({"type": "OBJECT", "properties": {"x": {"type": "STRING"}}, "required": ["x"]}, Hints("")) == {
        "x": "demo"
    }
