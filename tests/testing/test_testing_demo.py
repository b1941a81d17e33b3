"""The demo without a model: tools, structured output, reasoning, embeddings; always the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, demo

WEATHER = {
    "name": "get_weather",
    "description": "The current weather in a city",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1, "maximum": 5},
            "unit": {"enum": ["celsius", "fahrenheit"]},
            "hourly": {"type": "boolean"},
        },
        "required": ["city", "days", "unit"],
    },
}
ADD = {
    "name": "add",
    "parameters": {
        "type": "object",
        "properties": {"numbers": {"type": "array", "items": {"type": "number"}, "minItems": 2}},
        "required": ["numbers"],
    },
}
TOOLS = [{"type": "function", "function": function} for function in (ADD, WEATHER)]
SOON = 30.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[LLMServer]:
    """A demo server without pauses, closed after the test."""
    monkeypatch.setattr(demo, "_server", None)
    monkeypatch.setattr(demo, "_PACE", 0.0)
    with demo.demo_server() as running:
        yield running


def ask(server: LLMServer, prompt: str, *more: dict[str, Any], **options: Any) -> dict[str, Any]:
    """The message of an answer."""
    body = {"messages": [{"role": "user", "content": prompt}, *more], **options}
    answer = requests.post(server.base_url("openai") + "/chat/completions", json=body, timeout=SOON)
    message: dict[str, Any] = answer.json()["choices"][0]["message"]
    return message


def called(message: dict[str, Any]) -> tuple[str, Any]:
    """Name and arguments of the only call in a message."""
    (call,) = message["tool_calls"]
    return call["function"]["name"], json.loads(call["function"]["arguments"])


@pytest.mark.parametrize(
    ("prompt", "name", "arguments"),
    [
        ("What is the weather in New York?", "get_weather", {"city": "New York", "days": 1, "unit": "celsius"}),
        ("The WEATHER, please: 'zürich', 3 days", "get_weather", {"city": "zürich", "days": 3, "unit": "celsius"}),
        ("Will the city be sunny in 99 days", "get_weather", {"city": "demo", "days": 5, "unit": "celsius"}),
        ("Use get_weather!", "get_weather", {"city": "demo", "days": 1, "unit": "celsius"}),
        ("Please add 2 and 3.5", "add", {"numbers": [2, 3.5]}),
    ],
)
def test_a_prompt_about_a_tool_calls_it(server: LLMServer, prompt: str, name: str, arguments: Any) -> None:
    """A word of its name or description is enough; the arguments come from the prompt and match the schema."""
    assert called(ask(server, prompt, tools=TOOLS)) == (name, arguments)


def test_other_prompts_call_nothing(server: LLMServer) -> None:
    """Short words, parts of words, and a request without a choice get text."""
    for prompt in ("Hello in there", "additional madness"):
        assert "no model is at work" in ask(server, prompt, tools=TOOLS)["content"]
    assert "no model" in ask(server, "weather", tools=TOOLS, tool_choice="none")["content"]


def test_a_call_can_be_required(server: LLMServer) -> None:
    """Any tool, or one by name."""
    assert called(ask(server, "Hello", tools=TOOLS, tool_choice="required"))[0] == "add"
    named = {"type": "function", "function": {"name": "get_weather"}}
    assert called(ask(server, "Hello", tools=TOOLS, tool_choice=named))[0] == "get_weather"


def test_results_of_tools_are_quoted(server: LLMServer) -> None:
    """No further call follows."""
    call = ask(server, "The weather in Rome?", tools=TOOLS)
    result = {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "22 °C and sunny"}
    answer = ask(server, "The weather in Rome?", call, result, tools=TOOLS)
    assert answer["content"] == "The demo asked a tool, and the tool said: 22 °C and sunny"


def test_structured_output_fits_its_schema(server: LLMServer) -> None:
    """JSON made from the prompt; after a tool, from its result; without a schema a small object."""
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": WEATHER["parameters"]}}
    first = json.loads(ask(server, "Is it nice in Oslo?", response_format=wanted)["content"])
    assert first == {"city": "Oslo", "days": 1, "unit": "celsius"}
    call = ask(server, "The weather in Rome?", tools=TOOLS)
    result = {"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "In Rome for 2 days"}
    last = ask(server, "The weather?", call, result, tools=TOOLS, response_format=wanted)
    assert json.loads(last["content"]) == {"city": "Rome", "days": 2, "unit": "celsius"}
    small = json.loads(ask(server, "Hi", response_format={"type": "json_object"})["content"])
    assert small == {"demo": True, "prompt": "Hi"}


def test_reasoning_comes_if_requested(server: LLMServer) -> None:
    """One short sentence, or none."""
    assert ask(server, "Hi", reasoning_effort="low")["reasoning_content"].count(".") == 1
    assert "reasoning_content" not in ask(server, "Hi", reasoning_effort="none")
    assert "reasoning_content" not in ask(server, "Hi")


def test_embeddings_and_models(server: LLMServer) -> None:
    """There are vectors, and one model: the demo."""
    base = server.base_url("openai")
    made = requests.post(f"{base}/embeddings", json={"model": "demo", "input": ["a", "b"]}, timeout=SOON).json()
    assert [len(one["embedding"]) for one in made["data"]] == [8, 8]
    assert [one["id"] for one in requests.get(f"{base}/models", timeout=SOON).json()["data"]] == ["demo"]


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        (
            "/v1/messages",
            {
                "model": "m",
                "max_tokens": 9,
                "messages": [{"role": "user", "content": "The weather in Rome?"}],
                "tools": [{"name": "get_weather", "input_schema": WEATHER["parameters"]}],
            },
            ("content", 0, "input"),
        ),
        (
            "/v1beta/models/m:generateContent",
            {
                "contents": [{"parts": [{"text": "The weather in Rome?"}]}],
                "tools": [{"functionDeclarations": [WEATHER]}],
            },
            ("candidates", 0, "content", "parts", 0, "functionCall", "args"),
        ),
        (
            "/api/chat",
            {
                "model": "m",
                "stream": False,
                "messages": [{"role": "user", "content": "The weather in Rome?"}],
                "tools": TOOLS,
            },
            ("message", "tool_calls", 0, "function", "arguments"),
        ),
    ],
)
def test_it_is_the_same_in_every_dialect(server: LLMServer, path: str, body: Any, place: tuple[Any, ...]) -> None:
    """The demo's server speaks all dialects."""
    value = requests.post(
        server.root + path, json=body, headers={"anthropic-version": "2023-06-01"}, timeout=SOON
    ).json()
    for key in place:
        value = value[key]
    assert value == {"city": "Rome", "days": 1, "unit": "celsius"}
