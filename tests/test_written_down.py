"""Messages in the format in which the services' own packages store an answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from llmbridge import Image, InvalidRequest, Message, ToolCall, ToolResult, providers
from llmbridge.messages import ChatRequest, checked_messages

EMPTY: dict[str, Any] = {"refusal": None, "annotations": [], "audio": None, "function_call": None, "tool_calls": None}
CALL = {"id": "c12345678", "type": "function", "function": {"name": "f", "arguments": "{}"}}
HISTORY: list[dict[str, Any]] = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "a", **EMPTY, "reasoning_content": "r"},
    {"role": "user", "content": "go"},
]


def sent(model: str, *turns: dict[str, Any]) -> Any:
    """The assistant's turn as a service gets it."""
    provider = providers.look_up(model)
    assert provider is not None
    body = provider.encode(ChatRequest.checked("m", list(turns), {})).body
    return next(turn for turn in body["messages"] if turn["role"] == "assistant")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai", {"role": "assistant", "content": "a"}),
        ("groq", {"role": "assistant", "content": "a"}),
        ("deepseek", {"role": "assistant", "content": "a", "reasoning_content": "r"}),
        ("openai-compatible", {"role": "assistant", "content": "a", "reasoning_content": "r"}),
        ("openrouter", {"role": "assistant", "content": "a", "reasoning": "r"}),
        (
            "mistral",
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "r"}]},
                    {"type": "text", "text": "a"},
                ],
            },
        ),
        ("ollama", {"role": "assistant", "content": "a", "thinking": "r"}),
    ],
)
def test_an_answer_of_another_service(name: str, expected: dict[str, Any]) -> None:
    """Empty fields are left out, and reasoning goes where the service wants it, or nowhere."""
    assert sent(name, *HISTORY) == expected


def test_anthropic_takes_it() -> None:
    """It rejects unknown keys, and reasoning that it has not signed."""
    turn = sent("anthropic", *HISTORY)
    assert set(turn) == {"role", "content"}
    assert "annotations" not in str(turn)


@pytest.mark.parametrize(
    ("given", "content", "extra"),
    [
        ({"content": "a", "reasoning": "r", "reasoning_content": "r"}, ["r", "a"], {}),
        ({"content": None, "reasoning": "r", "tool_calls": [CALL]}, ["r"], {"tool_calls": [CALL]}),
        ({"content": [{"type": "reasoning", "text": "x"}, "a"], "reasoning": "r"}, ["x", "a"], {}),
        ({"content": "a", "reasoning": "", "reasoning_content": ""}, "a", {}),
        ({"content": "a", "reasoning": {"text": "r"}, "name": "n"}, "a", {"reasoning": {"text": "r"}, "name": "n"}),
        ({"content": None, "refusal": "No."}, "No.", {}),
        ({"content": "a", "refusal": "No.", "x": []}, "a", {"refusal": "No.", "x": []}),
    ],
)
def test_what_becomes_of_it(given: dict[str, Any], content: Any, extra: dict[str, Any]) -> None:
    """Reasoning once, at the beginning; fields with content stay."""
    (message,) = checked_messages([{"role": "assistant", **given}])
    if isinstance(message.content, list):
        assert [part if isinstance(part, str) else part["text"] for part in message.content] == content
    else:
        assert message.content == content
    assert message.extra == extra


@pytest.mark.parametrize("write", [dataclasses.asdict, Message.to_dict], ids=["asdict", "to_dict"])
def test_a_conversation_kept_as_json(write: Callable[[Message], dict[str, Any]]) -> None:
    """The conversation is the same, in any package's format."""
    call = ToolCall("c1", "add", {"a": 1}, '{"a": 1}')
    turns = checked_messages(
        [
            Message("user", ["What is on this?", {"type": "image_url", "image_url": {"url": "https://e.com/a.png"}}]),
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            ToolResult(call, "it broke", failed=True),
        ]
    )
    kept = json.loads(json.dumps([write(turn) for turn in turns]))
    assert checked_messages(kept) == turns


def test_a_tools_result_is_a_message_too() -> None:
    """The stored result is the one that went to the model."""
    result = ToolResult(ToolCall("c1", "look"), "a picture", value=Image("https://e.com/a.png"))
    assert checked_messages([result]) == (result.message,)
    assert result.message.to_dict()["content"][0]["type"] == "image_url"


def test_keys_without_a_value_are_left_out_of_all_messages() -> None:
    """Not only of answers."""
    (message,) = checked_messages([{"role": "user", "content": "a", "name": None, "reasoning": "r"}])
    assert message.to_dict() == {"role": "user", "content": "a", "reasoning": "r"}


def test_an_answer_with_nothing_in_it() -> None:
    """The error says so, with its place."""
    with pytest.raises(InvalidRequest, match=r"messages\[0\]: content is None"):
        checked_messages([{"role": "assistant", "content": None, **EMPTY}])
