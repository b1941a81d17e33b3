"""Signatures of reasoning go back to the service that gave them, and to no other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmbridge import Client, Completion, Message
from llmbridge.messages import with_own_proofs
from llmbridge.testing import LLMServer, Reply

SIGNED = Reply("Four.", reasoning="Two and two.", signature="c2lnbmVk", tool_calls=[{"name": "f", "arguments": {}}])


def asked_again(server: LLMServer, first: str, second: str) -> tuple[Completion, Any]:
    """An answer of one provider, and the request in which another one gets it back."""
    tool = {"name": "f", "description": "F.", "parameters": {"type": "object", "properties": {}}}
    server.script(SIGNED, Reply("Ok."))
    with Client(api_key="sk-test-key", proxy=False, retries=0, tools=[tool]) as client:
        answer = client.chat("2+2?", f"{first}:m", base_url=server.base_url(first)).complete()
        result = {"role": "tool", "tool_call_id": answer.tool_calls[0].id, "name": "f", "content": "4"}
        client.chat(
            [{"role": "user", "content": "2+2?"}, answer, result], f"{second}:m", base_url=server.base_url(second)
        ).complete()
    return answer, server.requests[-1].json


@pytest.mark.parametrize("provider", ["anthropic", "gemini"])
def test_a_signature_goes_back_to_its_service(server: LLMServer, provider: str) -> None:
    """Unchanged, and without llmbridge's mark of the service."""
    answer, sent = asked_again(server, provider, provider)
    assert "c2lnbmVk" in json.dumps(sent)
    assert '"by"' not in json.dumps(sent)
    assert provider in json.dumps(answer.message.to_dict())


@pytest.mark.parametrize("pair", [("anthropic", "gemini"), ("gemini", "anthropic"), ("anthropic", "openai")])
def test_a_signature_goes_to_no_other_service(server: LLMServer, pair: tuple[str, str]) -> None:
    """It could not verify it, and some reject the whole request for it."""
    _, sent = asked_again(server, *pair)
    assert "c2lnbmVk" not in json.dumps(sent)
    assert '"by"' not in json.dumps(sent)
    assert "Four." in json.dumps(sent)


def test_redacted_reasoning_of_another_service_is_left_out() -> None:
    """It is unreadable there."""
    message = Message("assistant", [{"type": "reasoning", "redacted": "x", "by": "anthropic"}, "Hi"])
    assert with_own_proofs([message], "gemini")[0].content == ["Hi"]
    assert with_own_proofs([message], "anthropic")[0].content == [{"type": "reasoning", "redacted": "x"}, "Hi"]


def test_a_signature_without_a_mark_is_the_callers_business() -> None:
    """A caller who writes messages by hand knows the service."""
    message = Message("assistant", [{"type": "reasoning", "text": "Hm.", "signature": "s"}, "Hi"])
    assert with_own_proofs([message], "gemini") == (message,)


def test_what_only_one_service_understands_goes_to_no_other() -> None:
    """Its own objects, whole parts and those beside a text, and the kinds of its calls."""
    call = {"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}, "by": "openai", "raw": {"x": 1}}
    message = Message(
        "assistant",
        [
            {"type": "opaque", "raw": {"type": "search"}, "by": "openai"},
            {"type": "text", "text": "Hi", "raw": {"text": "", "annotations": [1]}, "by": "openai"},
            {"type": "reasoning", "text": "Hm.", "raw": {"id": "r"}, "by": "openai"},
        ],
        {"tool_calls": [call]},
    )
    (own,) = with_own_proofs([message], "openai")
    assert [part.get("raw") for part in own.parts] == [
        {"type": "search"}, {"text": "", "annotations": [1]}, {"id": "r"}, {"x": 1}
    ]  # fmt: skip
    assert "by" not in json.dumps(own.to_dict())
    (other,) = with_own_proofs([message], "gemini")
    assert other.content == [{"type": "text", "text": "Hi"}, {"type": "reasoning", "text": "Hm."}]
    assert other.extra["tool_calls"] == [
        {"id": "c", "type": "function", "function": {"name": "shell", "arguments": '{"input": "ls"}'}}
    ]


@pytest.mark.parametrize("raw", [{}, {"raw": {"x": 1}}], ids=["plain", "raw"])
def test_a_call_of_another_kind_becomes_a_function_call_elsewhere(raw: dict[str, Any]) -> None:
    """Its own service gets it unchanged, without llmbridge's mark of the service."""
    call = {"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}, **raw}
    message = Message("assistant", None, {"tool_calls": [{**call, "by": "openai"}]})
    assert with_own_proofs([message], "openai")[0].extra["tool_calls"] == [call]
    assert with_own_proofs([message], "cohere")[0].extra["tool_calls"][0]["type"] == "function"


def test_a_turn_of_nothing_but_that_says_nothing_elsewhere() -> None:
    """The turn is empty there."""
    message = Message("assistant", [{"type": "opaque", "raw": {"a": 1}, "by": "anthropic"}])
    assert with_own_proofs([message], "gemini") == (Message("assistant", ""),)
