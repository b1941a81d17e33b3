"""Reasoning with signatures from services that put entries of other services into OpenAI's dialect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llmbridge import Client, Reasoning
from llmbridge.messages import ChatRequest
from llmbridge.providers import look_up
from llmbridge.providers.openai.reasoning import read_entries, write_entries
from llmbridge.testing import LLMServer, Reply

CLAUDE = {"format": "anthropic-claude-v1", "index": 0}
OPENAI = {"format": "openai-responses-v1", "index": 0}
GEMINI = {"format": "google-gemini-v1", "index": 0}
CALL = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": "{}"}}

Entries = list[dict[str, Any]]

# Name: row, the entries of each delta, and the entries to be sent back.
STREAMS: dict[str, tuple[str, list[Entries], Entries]] = {
    "a signature behind its text": (
        "openrouter",
        [
            [{"type": "reasoning.text", "text": "Let", **CLAUDE}],
            [{"type": "reasoning.text", "text": " me", **CLAUDE}],
            [{"type": "reasoning.text", "signature": "S1", **CLAUDE}],
            [{"type": "reasoning.text", "text": "Two", **CLAUDE, "index": 1}],
            [{"type": "reasoning.text", "text": "", "signature": "S2", **CLAUDE, "index": 1}],
        ],
        [
            {"type": "reasoning.text", "text": "Let me", "signature": "S1", **CLAUDE},
            {"type": "reasoning.text", "text": "Two", "signature": "S2", **CLAUDE, "index": 1},
        ],
    ),
    "a summary, then what is encrypted": (
        "openrouter",
        [
            [{"type": "reasoning.summary", "summary": "I ", **OPENAI}],
            [{"type": "reasoning.summary", "summary": "see", **OPENAI}],
            [{"type": "reasoning.encrypted", "data": "E", "id": "rs_1", **OPENAI}],
        ],
        [
            {"type": "reasoning.summary", "summary": "I see", "format": "openai-responses-v1"},
            {"type": "reasoning.encrypted", "data": "E", "id": "rs_1", **OPENAI},
        ],
    ),
    "what belongs to a call": (
        "openrouter",
        [
            [{"type": "reasoning.text", "text": "Hm", **GEMINI}],
            [{"type": "reasoning.encrypted", "data": "E", "id": "c1", **GEMINI}],
        ],
        [
            {"type": "reasoning.text", "text": "Hm", "format": "google-gemini-v1"},
            {"type": "reasoning.encrypted", "data": "E", "id": "c1", **GEMINI},
        ],
    ),
    "two entries in one delta": (
        "openrouter",
        [
            [
                {"type": "reasoning.text", "text": "a", **GEMINI},
                {"type": "reasoning.text", "text": "b", "signature": "S", **GEMINI, "index": 1},
            ],
        ],
        [
            {"type": "reasoning.text", "text": "a", **GEMINI},
            {"type": "reasoning.text", "text": "b", "signature": "S", **GEMINI, "index": 1},
        ],
    ),
    "LiteLLM": (
        "litellm",
        [
            [{"type": "thinking", "thinking": "Let", "signature": None}],
            [{"type": "thinking", "thinking": " me", "signature": ""}],
            [{"type": "thinking", "thinking": "", "signature": "S"}],
            [{"type": "redacted_thinking", "data": "R"}],
        ],
        [{"type": "thinking", "thinking": "Let me", "signature": "S"}, {"type": "redacted_thinking", "data": "R"}],
    ),
}


def text_of(entry: dict[str, Any]) -> str:
    """The readable text of an entry."""
    return str(entry.get("text") or entry.get("summary") or entry.get("thinking") or "")


def streamed(field: str, deltas: list[Entries], also: str) -> Reply:
    """A stream with the entries, their text in a second field, as the services send it, and a call after them."""
    said: list[dict[str, Any]] = [
        {field: entries, **({also: text} if (text := "".join(map(text_of, entries))) else {})} for entries in deltas
    ]
    chunks = [{"choices": [{"index": 0, "delta": delta}]} for delta in [*said, {"tool_calls": [CALL]}]]
    chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    return Reply(body="".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n")


def f() -> str:
    """Does nothing."""
    return "done"


@pytest.mark.parametrize("whole", [False, True], ids=["in pieces", "whole"])
@pytest.mark.parametrize("case", STREAMS)
def test_the_entries_go_back(case: str, whole: bool, server: LLMServer) -> None:
    """Each one whole, unchanged and in order, with the calls after them; their text is yielded once."""
    row, deltas, expected = STREAMS[case]
    provider: Any = look_up(row)
    field, also = provider.reasoning_proofs, "reasoning" if row == "openrouter" else "reasoning_content"
    text = "".join(map(text_of, expected))
    if whole:
        message = {"role": "assistant", "content": None, field: expected, also: text, "tool_calls": [CALL]}
        first = Reply(body=json.dumps({"choices": [{"message": message, "finish_reason": "tool_calls"}]}),
                      content_type="application/json")  # fmt: skip
    else:
        first = streamed(field, deltas, also)
    server.script(first, Reply("OK"))
    with Client(f"{row}:m", base_url=server.base_url("openai"), api_key="k-012345", proxy=False) as client:
        done = client.run("Hi", tools=[f]).complete()
    assert done.reasoning == text
    turn = server.requests[1].json["messages"][1]
    assert turn[field] == expected
    assert {"reasoning", "reasoning_content"}.isdisjoint(turn)
    assert turn["tool_calls"][0]["id"] == "c1"


@pytest.mark.parametrize(("row", "field"), [("openrouter", "reasoning"), ("litellm", None)])
def test_text_without_a_proof(row: str, field: str | None) -> None:
    """It is not an entry: it is sent where the service accepts plain text, if anywhere."""
    provider: Any = look_up(row)
    turn = {"role": "assistant", "content": [{"type": "reasoning", "text": "Hm"}, "4"]}
    (sent,) = provider.encode(ChatRequest.checked("m", [turn], {})).body["messages"]
    assert sent == {"role": "assistant", "content": "4", **({field: "Hm"} if field else {})}


def test_entries_that_the_caller_gives() -> None:
    """In a message in the service's form: they are sent unchanged, without their text beside them."""
    provider: Any = look_up("openrouter")
    details = [{"type": "reasoning.text", "text": "Hm", "signature": "S", **CLAUDE}]
    turn = {"role": "assistant", "content": "4", "reasoning": "Hm", "reasoning_details": details}
    (sent,) = provider.encode(ChatRequest.checked("m", [turn], {})).body["messages"]
    assert sent == {"role": "assistant", "content": "4", "reasoning_details": details}


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (
            "reasoning_details",
            [
                {"type": "reasoning.text", "signature": "{no JSON", "text": "a"},
                {"type": "reasoning.encrypted", "data": "R"},
            ],
        ),
        (
            "thinking_blocks",
            [
                {"type": "thinking", "signature": "{no JSON", "thinking": "a"},
                {"type": "redacted_thinking", "data": "R"},
            ],
        ),
    ],
)
def test_proofs_of_another_making(field: str, expected: Entries) -> None:
    """Messages written by hand hold plain ones."""
    parts = [
        {"type": "reasoning", "text": "a", "signature": "{no JSON"},
        {"type": "reasoning", "redacted": "R"},
        {"type": "reasoning", "text": ""},
    ]
    assert write_entries(parts, field) == expected


@pytest.mark.parametrize("entries", [None, "x", [], [None, 7, "x"], [{"type": "reasoning.text", "text": None}], {}])
def test_nothing_is_said(entries: Any) -> None:
    """By anything but a list of entries, and by entries without text."""
    assert list(read_entries(entries, whole=True)) == []


def test_an_unknown_entry_is_kept() -> None:
    """The service may want it back."""
    entry = {"type": "reasoning.server_tool_call", "id": "x"}
    (piece,) = read_entries([entry], whole=False)
    assert isinstance(piece, Reasoning)
    assert write_entries([{"type": "reasoning", "redacted": piece.redacted}], "reasoning_details") == [entry]


def test_other_rows_read_text_alone(server: LLMServer) -> None:
    """Nothing is sent back that their service does not know."""
    server.script(streamed(*("reasoning_details", STREAMS["a signature behind its text"][1]), "reasoning"), Reply("OK"))
    with Client("groq:m", base_url=server.base_url("openai"), api_key="k-012345", proxy=False) as client:
        assert client.run("Hi", tools=[f]).complete().reasoning == "Let meTwo"
    assert {"reasoning", "reasoning_details"}.isdisjoint(server.requests[1].json["messages"][1])
