"""The testing server as OpenAI, beyond text: tools, refusals, choices, log probabilities, embeddings, Azure."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, Reply

MESSAGES: list[Any] = [{"role": "user", "content": "Hi there"}]
CALLED = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
SOON = 30.0


def ask(server: LLMServer, reply: Reply, path: str = "/v1/chat/completions", **options: Any) -> requests.Response:
    """The whole answer to one request."""
    server.script(reply)
    return requests.post(server.root + path, json={"model": "m", "messages": MESSAGES, **options}, timeout=SOON)


def choices(server: LLMServer, reply: Reply) -> list[dict[str, Any]]:
    """The choices of all chunks in a streamed answer, which have one each."""
    events = ask(server, reply, stream=True).content.decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    found = [json.loads(event.removeprefix("data: "))["choices"] for event in events[:-2]]
    return [choice for (choice,) in found]


def test_calls_are_streamed_in_pieces(server: LLMServer) -> None:
    """A call's first delta has id and name, the others pieces of the arguments; the finish says tool_calls."""
    calls = [{"name": "f", "arguments": {"long": "Grüße"}, "id": "c1"}, {"name": "g", "arguments": "{broken"}]
    first, *between, last = choices(server, Reply(tool_calls=calls))
    assert first["delta"] == {"role": "assistant", "content": None}
    deltas = [choice["delta"]["tool_calls"][0] for choice in between]
    begun = [delta for delta in deltas if "id" in delta]
    assert begun[0] == {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}
    assert (begun[1]["index"], begun[1]["function"]["name"], bool(begun[1]["id"])) == (1, "g", True)
    for index, text in enumerate(['{"long":"Grüße"}', "{broken"]):
        pieces = [delta["function"]["arguments"] for delta in deltas if delta["index"] == index]
        assert "".join(pieces) == text
        assert len(pieces) > 1
    assert (last["delta"], last["finish_reason"]) == ({}, "tool_calls")


def test_calls_that_are_not_streamed_are_whole(server: LLMServer) -> None:
    """The message holds them beside its content; a chosen finish reason stays."""
    reply = Reply(tool_calls=[{"name": "f", "arguments": {"x": 1}}], finish_reason="stop")
    choice = ask(server, reply).json()["choices"][0]
    assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x":1}'}
    assert (choice["message"]["content"], choice["finish_reason"]) == (None, "stop")


def test_refusals_have_their_own_field(server: LLMServer) -> None:
    """Streamed and whole."""
    assert "".join(choice["delta"].get("refusal", "") for choice in choices(server, Reply(refusal="I will not."))) == (
        "I will not."
    )
    message = ask(server, Reply(refusal="No.")).json()["choices"][0]["message"]
    assert (message["content"], message["refusal"]) == (None, "No.")


def test_choices_are_interleaved(server: LLMServer) -> None:
    """Each has its own role, text and finish."""
    found = choices(server, Reply(["a", "b"], choices=["c", "d"]))
    assert [choice["index"] for choice in found] == [0, 1, 2, 0, 1, 2, 0, 0, 1, 2]
    texts = ["".join(one["delta"].get("content", "") for one in found if one["index"] == index) for index in range(3)]
    assert texts == ["ab", "c", "d"]
    whole = ask(server, Reply("a", choices=["c"])).json()["choices"]
    assert [(one["index"], one["message"]["content"], one["finish_reason"]) for one in whole] == [
        (0, "a", "stop"),
        (1, "c", "stop"),
    ]


def test_log_probabilities_go_with_the_pieces(server: LLMServer) -> None:
    """One item per piece, the rest with the last piece; all together in an answer that is not streamed."""
    given = [{"token": "a"}, {"token": "b"}, {"token": "c"}]
    reply = Reply(["a", "b"], logprobs=given)
    sent = [choice["logprobs"] for choice in choices(server, reply)]
    assert sent == [None, {"content": given[:1], "refusal": None}, {"content": given[1:], "refusal": None}, None]
    assert ask(server, reply).json()["choices"][0]["logprobs"]["content"] == given


def test_embeddings_come_as_numbers_or_base64(server: LLMServer) -> None:
    """Both are the same vectors, which depend only on the text; scripted ones are sent unchanged."""
    url = server.base_url("openai") + "/embeddings"
    body = {"model": "m", "input": ["a", "b", "a", "c d"]}
    plain = requests.post(url, json=body, timeout=SOON).json()
    packed = requests.post(url, json={**body, "encoding_format": "base64"}, timeout=SOON).json()
    for index, (one, other) in enumerate(zip(plain["data"], packed["data"], strict=True)):
        assert one["index"] == other["index"] == index
        assert struct.unpack("<8f", base64.b64decode(other["embedding"])) == pytest.approx(one["embedding"], abs=1e-6)
        assert sum(value**2 for value in one["embedding"]) == pytest.approx(1)
    vectors = [one["embedding"] for one in plain["data"]]
    assert vectors[0] == vectors[2] != vectors[1]
    assert plain["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    server.script(Reply(embeddings=[[1, 2]], usage={"total_tokens": 9}))
    scripted = requests.post(url, json={"model": "m", "input": [1, 2, 3], "dimensions": 4}, timeout=SOON).json()
    assert ([one["embedding"] for one in scripted["data"]], scripted["usage"]) == ([[1, 2]], {"total_tokens": 9})
    longer = requests.post(url, json={"model": "m", "input": [[1, 2], [3]], "dimensions": 20}, timeout=SOON).json()
    assert [len(one["embedding"]) for one in longer["data"]] == [20, 20]


@pytest.mark.parametrize("given", [None, "", [], ["a", ""]])
def test_nothing_to_embed_is_refused(server: LLMServer, given: Any) -> None:
    """Empty texts are rejected, as by the service."""
    answer = requests.post(server.root + "/v1/embeddings", json={"model": "m", "input": given}, timeout=SOON)
    assert (answer.status_code, "input" in answer.json()["error"]["message"]) == (400, True)


def test_models_can_be_named(server: LLMServer) -> None:
    """In order."""
    server.script(Reply(models=("b", "a")), Reply(models=[]))
    url = server.base_url("openai") + "/models"
    assert [one["id"] for one in requests.get(url, timeout=SOON).json()["data"]] == ["b", "a"]
    assert requests.get(url, timeout=SOON).json()["data"] == []


def test_azure_names_the_model_in_the_path(server: LLMServer) -> None:
    """The stream starts with a chunk without choices; the model is the deployment unless the body names one."""
    path = "/openai/deployments/dep-1/chat/completions?api-version=2024-10-21"
    url = server.base_url("azure") + path
    body = requests.post(url, json={"messages": MESSAGES, "stream": True}, timeout=SOON).content.decode()
    first, second = (json.loads(event.removeprefix("data: ")) for event in body.split("\n\n")[:2])
    assert (first["choices"], bool(first["prompt_filter_results"])) == ([], True)
    assert (second["model"], server.requests[0].model) == ("dep-1", "dep-1")
    assert requests.post(url, json={"messages": MESSAGES}, timeout=SOON).json()["model"] == "dep-1"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"messages": [{"role": "robot", "content": "x"}]}, "Invalid value: 'robot'"),
        ({"messages": [RESULT]}, "must be a response to a preceding message"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"messages": [*MESSAGES, CALLED]}, "These had no response: c1"),
        ({"messages": [*MESSAGES, CALLED, *MESSAGES]}, "These had no response: c1"),
        ({"messages": [{**CALLED, "tool_calls": [{"id": "c1"}]}]}, "messages[0].tool_calls[0]"),
        ({"messages": [{**CALLED, "tool_calls": []}]}, "messages[0].tool_calls"),
        ({"tools": []}, "'tools'"),
        ({"tools": [{"name": "f"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]},
            "Invalid schema",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.name"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "json_schema.schema"),
    ],
)
def test_bad_requests_are_refused(server: LLMServer, changes: dict[str, Any], message: str) -> None:
    """They get 400, with the wrong part of the request."""
    answer = ask(server, Reply("never sent"), **changes)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_a_conversation_with_tools_is_read(server: LLMServer) -> None:
    """Tools' results are turns, and the request's tools are found."""
    assert ask(server, Reply("x"), messages=[*MESSAGES, CALLED, RESULT], tools=[TOOL]).ok
    received = server.requests[0]
    assert [(turn.role, turn.text) for turn in received.turns][1:] == [("assistant", ""), ("tool", "sunny")]
    assert (received.user_text, received.model) == ("Hi there", "m")
    assert (received.tools[0].name, received.tools[0].description) == ("f", "d")


@pytest.mark.parametrize(
    ("error", "options"),
    [
        (TypeError, {"tool_calls": "f"}),
        (TypeError, {"tool_calls": {"name": "f"}}),
        (TypeError, {"tool_calls": ["f"]}),
        (TypeError, {"tool_calls": [{"arguments": {}}]}),
        (TypeError, {"tool_calls": [{"name": "f", "arguments": [1]}]}),
        (TypeError, {"tool_calls": [{"name": "f", "arguments": {"x": {1}}}]}),
        (TypeError, {"tool_calls": [{"name": "f", "id": 1}]}),
        (ValueError, {"tool_calls": [{"name": "f", "args": {}}]}),
        (ValueError, {"tool_calls": [{"name": "\ud800"}]}),
        (TypeError, {"refusal": 1}),
        (TypeError, {"signature": b"x"}),
        (TypeError, {"choices": "b"}),
        (TypeError, {"choices": [1]}),
        (TypeError, {"models": "a"}),
        (TypeError, {"logprobs": "x"}),
        (TypeError, {"embeddings": [["x"]]}),
        (ValueError, {"raw": b"x", "tool_calls": [{"name": "f"}]}),
    ],
    ids=repr,
)
def test_bad_arguments_are_refused_at_construction(error: type[Exception], options: dict[str, Any]) -> None:
    """An invalid Reply fails where it is created, not in the server's thread."""
    with pytest.raises(error):
        Reply(**options)
