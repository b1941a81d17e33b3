"""The id, the model and other metadata of an answer, in all dialects."""

from __future__ import annotations

import json
from typing import Any

import pytest

import llmbridge._call.head as head_module
from llmbridge._call.framing import Record
from llmbridge._call.head import Head

FORMS: dict[str, tuple[list[Any], tuple[Any, Any, Any]]] = {
    "chat": (
        [
            {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m-2", "choices": []},
            {"id": "c1", "choices": [{}], "system_fingerprint": "fp", "usage": {"total_tokens": 3}},
        ],
        ("c1", "m-2", {"created": 1, "system_fingerprint": "fp"}),
    ),
    "azure's first": (
        [{"id": "", "model": "", "choices": [], "prompt_filter_results": [1]}, {"id": "c1", "model": "m"}],
        ("c1", "m", {"prompt_filter_results": [1]}),
    ),
    "anthropic": (
        [
            {"type": "message_start", "message": {"id": "msg_1", "type": "message", "model": "claude", "content": []}},
            {"type": "message_stop"},
        ],
        ("msg_1", "claude", {}),
    ),
    "responses": (
        [
            {"type": "response.created", "response": {"id": "r1", "model": "g", "status": "in_progress"}},
            {
                "type": "response.completed",
                "response": {"id": "r1", "model": "g", "status": "completed", "store": True},
            },
        ],
        ("r1", "g", {"status": "completed", "store": True}),
    ),
    "gemini": ([{"candidates": [], "modelVersion": "gem", "responseId": "x"}], ("x", "gem", {})),
    "gemini as a list": ([[{"candidates": [], "modelVersion": "gem", "responseId": "x"}]], ("x", "gem", {})),
    "ollama": (
        [{"model": "llama", "created_at": "now", "message": {"role": "assistant"}, "done": True, "total_duration": 5}],
        (None, "llama", {"created_at": "now", "total_duration": 5}),
    ),
    "cohere": ([{"type": "message-start", "id": "co"}, {"type": "message-end", "delta": {}}], ("co", None, {})),
    "nothing": ([{"type": "ping"}], (None, None, {})),
    "no object": (["x", 5], (None, None, {})),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_first_and_the_last_event_have_the_metadata(name: str) -> None:
    """Each dialect has its own fields; empty ones are ignored."""
    events, expected = FORMS[name]
    head = Head()
    for event in events:
        head.take([Record(json.dumps(event))])
    assert (head.id, head.model, head.extra) == expected


@pytest.mark.parametrize("name", FORMS)
def test_the_json_of_a_document_is_not_parsed_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document that the decoder has parsed says the same as one that is parsed for its metadata."""
    event = FORMS[name][0][0]
    frame, parsed, known = Record(json.dumps(event)), Head(), Head()
    parsed.take([frame])
    expected = (parsed.id, parsed.model, parsed.extra)
    known.take([frame])
    known.take_parsed(frame, event)
    monkeypatch.delattr(head_module, "parsed_json")
    assert (known.id, known.model, known.extra) == expected


def test_half_a_character_in_a_document_is_mended() -> None:
    """Texts beside the answer are valid UTF-8; other documents than the first one are ignored."""
    frame, head = Record(r'{"id": "a\ud83d", "x": ["\ud83d"]}'), Head()
    head.take([frame])
    head.take_parsed(frame, json.loads(frame.data))
    head.take_parsed(Record("{}"), {"id": "b"})
    assert (head.id, head.extra) == ("a\N{REPLACEMENT CHARACTER}", {"x": ["\N{REPLACEMENT CHARACTER}"]})


def test_an_end_mark_is_not_an_event() -> None:
    """An end mark is not an event, alone or after another one."""
    for reads in ([["1", "2", "[DONE]"]], [["1"], ["2"], ["[DONE]"]]):
        head = Head()
        for read in reads:
            head.take([Record(json.dumps({"id": data}) if data != "[DONE]" else data) for data in read])
        assert head.id == "2"


def test_it_is_known_while_the_answer_comes() -> None:
    """The metadata is available while the answer comes, and is not cached too early."""
    head = Head()
    assert (head.id, head.extra) == (None, {})
    head.take([Record('{"id": "a"}')])
    assert head.id == "a"
    head.take([Record('{"tier": 1}')])
    assert (head.id, head.extra) == ("a", {"tier": 1})


def test_invalid_json_is_ignored() -> None:
    """Invalid JSON is left to the decoder."""
    head = Head()
    head.take([Record("{")])
    assert (head.id, head.model, head.extra) == (None, None, {})
