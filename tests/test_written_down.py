"""Messages in the form in which the services' own packages write down an answer."""

from __future__ import annotations

from typing import Any

import pytest

from llmbridge import InvalidRequest, providers
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
    """What is empty is not sent, and reasoning goes where the service wants it, or nowhere."""
    assert sent(name, *HISTORY) == expected


def test_anthropic_takes_it() -> None:
    """It refuses keys that it does not know, and reasoning that it has not signed."""
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
    """Reasoning once, in front; what says something stays."""
    (message,) = checked_messages([{"role": "assistant", **given}])
    if isinstance(message.content, list):
        assert [part if isinstance(part, str) else part["text"] for part in message.content] == content
    else:
        assert message.content == content
    assert message.extra == extra


def test_keys_without_a_value_are_left_out_of_all_messages() -> None:
    """Not only of answers."""
    (message,) = checked_messages([{"role": "user", "content": "a", "name": None, "reasoning": "r"}])
    assert message.to_dict() == {"role": "user", "content": "a", "reasoning": "r"}


def test_an_answer_with_nothing_in_it() -> None:
    """Is said to be one, with its place."""
    with pytest.raises(InvalidRequest, match=r"messages\[0\]: content is None"):
        checked_messages([{"role": "assistant", "content": None, **EMPTY}])
