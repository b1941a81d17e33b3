"""The testing server as Ollama: JSON lines, whole tool calls, and errors that are a text."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, Reply

MESSAGES: list[Any] = [{"role": "user", "content": "Hi there"}]
SOON = 30.0


def ask(server: LLMServer, reply: Reply, **options: Any) -> requests.Response:
    """The whole answer to one request."""
    server.script(reply)
    body = {"model": "m", "messages": MESSAGES, **options}
    return requests.post(server.base_url("ollama") + "/api/chat", json=body, timeout=SOON)


def lines(server: LLMServer, reply: Reply, **options: Any) -> list[dict[str, Any]]:
    """The lines of a streamed answer."""
    answer = ask(server, reply, **options)
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert answer.headers["Transfer-Encoding"] == "chunked"
    assert answer.content.endswith(b"}\n")
    return [json.loads(line) for line in answer.content.splitlines()]


def test_it_streams_by_default(server: LLMServer) -> None:
    """Thinking, text and whole calls are lines; the last one says done, with reason and counts."""
    reply = Reply(
        ["a", "b"], reasoning="hm", tool_calls=[{"name": "f", "arguments": {"x": 1}}, {"name": "g", "id": "c"}]
    )
    *before, last = lines(server, reply)
    assert [line["message"] for line in before] == [
        {"role": "assistant", "content": "", "thinking": "hm"},
        {"role": "assistant", "content": "a"},
        {"role": "assistant", "content": "b"},
        *(
            {"role": "assistant", "content": "", "tool_calls": [call]}
            for call in [
                {"function": {"index": 0, "name": "f", "arguments": {"x": 1}}},
                {"id": "c", "function": {"index": 1, "name": "g", "arguments": {}}},
            ]
        ),
    ]
    assert not any(line["done"] for line in before)
    assert (last["done"], last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == (True, "stop", 2, 4)
    assert {"model", "created_at", "total_duration", "eval_duration"} <= set(last)


def test_an_answer_that_is_not_streamed_is_one_document(server: LLMServer) -> None:
    """Everything is in one message."""
    reply = Reply(["a", "b"], reasoning=["h", "m"], tool_calls=[{"name": "f"}], logprobs=[{"token": "a"}])
    answer = ask(server, reply, stream=False)
    assert answer.headers["Content-Type"] == "application/json"
    document = answer.json()
    call = {"function": {"index": 0, "name": "f", "arguments": {}}}
    message = {"role": "assistant", "content": "ab", "thinking": "hm", "tool_calls": [call]}
    assert (document["message"], document["done"], document["logprobs"]) == (message, True, [{"token": "a"}])


def test_arguments_that_are_not_json_are_sent_unchanged(server: LLMServer) -> None:
    """Text instead of an object imitates a broken server."""
    line, _ = lines(server, Reply(tool_calls=[{"name": "f", "arguments": '{"x": '}]))
    assert line["message"]["tool_calls"][0]["function"]["arguments"] == '{"x": '


@pytest.mark.parametrize(("chosen", "sent"), [("length", "length"), ("tool_calls", "stop"), ("unload", "unload")])
def test_finish_reasons_are_translated(server: LLMServer, chosen: str, sent: str) -> None:
    """Ollama knows stop and length; other words stay."""
    assert lines(server, Reply("x", finish_reason=chosen))[-1]["done_reason"] == sent


def test_the_end_and_the_usage_can_be_left_out(server: LLMServer) -> None:
    """Without a finish there is no line with done; usage is sent as given, or not at all."""
    for reply in (Reply("x", finish_reason=None), Reply("x", end_mark=False)):
        assert [line["done"] for line in lines(server, reply)] == [False]
    assert lines(server, Reply("x", usage={"eval_count": 7}))[-1]["eval_count"] == 7
    assert "total_duration" not in lines(server, Reply("x", usage=False))[-1]


def test_without_messages_a_model_is_only_loaded(server: LLMServer) -> None:
    """An empty conversation gets an empty answer."""
    (line,) = lines(server, Reply("never sent"), messages=[])
    assert (line["message"]["content"], line["done_reason"]) == ("", "load")


def test_log_probabilities_go_with_the_pieces(server: LLMServer) -> None:
    """Item by item."""
    given = [{"token": "a"}, {"token": "b"}, {"token": "c"}]
    assert [line.get("logprobs") for line in lines(server, Reply(["a", "b"], logprobs=given))] == [
        given[:1],
        given[1:],
        None,
    ]


def test_errors_are_a_text(server: LLMServer) -> None:
    """With a status, and as the last line of a stream."""
    answer = ask(server, Reply("No", status=404, headers={"Retry-After": "1"}))
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (404, {"error": "No"}, "1")
    assert lines(server, Reply("x", error="broken"))[-1] == {"error": "broken"}
    assert ask(server, Reply("x", error="broken"), stream=False).json() == {"error": "broken"}


def test_embeddings_and_lists(server: LLMServer) -> None:
    """Vectors for one text or several, the models, the version."""
    url = server.base_url("ollama") + "/api/embed"
    one = requests.post(url, json={"model": "m", "input": "a b"}, timeout=SOON).json()
    assert (len(one["embeddings"]), len(one["embeddings"][0]), one["prompt_eval_count"]) == (1, 8, 2)
    two = requests.post(url, json={"model": "m", "input": ["a b", "c"], "dimensions": 3}, timeout=SOON).json()
    assert [len(vector) for vector in two["embeddings"]] == [3, 3]
    assert requests.post(url, json={"model": "m", "input": 5}, timeout=SOON).json() == {"error": "invalid input type"}
    server.script(Reply(models=["a", "b:7b"]))
    listed = requests.get(server.root + "/api/tags", timeout=SOON).json()
    assert [model["name"] for model in listed["models"]] == ["a", "b:7b"]
    assert requests.get(server.root + "/api/version", timeout=SOON).json()["version"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ""}, "model is required"),
        ({"stream": "yes"}, "cannot unmarshal string into Go struct field ChatRequest.stream of type bool"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "unmarshal array into Go struct field"),
        ({"messages": [{"role": "user", "images": ["data:image/png;base64,AA=="]}]}, "illegal base64"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}]}, "of type object"),
        ({"tools": [{"function": "f"}]}, "ChatRequest.tools.function"),
        ({"think": "very"}, "invalid think value"),
        ({"format": "xml"}, "invalid format"),
    ],
)
def test_bad_requests_are_refused(server: LLMServer, changes: dict[str, Any], message: str) -> None:
    """They get 400, in Ollama's words."""
    answer = ask(server, Reply("never sent"), **changes)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


def test_a_conversation_with_tools_is_read(server: LLMServer) -> None:
    """Tools' results are turns, and the request's tools are found."""
    call = {"function": {"name": "f", "arguments": {}}}
    messages = [*MESSAGES, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "sunny"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert ask(server, Reply("x"), messages=messages, tools=tools).ok
    received = server.requests[0]
    assert [(turn.role, turn.text) for turn in received.turns][1:] == [("assistant", ""), ("tool", "sunny")]
    assert (received.tools[0].name, received.user_text, received.model) == ("f", "Hi there", "m")
