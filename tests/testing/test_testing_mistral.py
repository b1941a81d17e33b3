"""The testing server as Mistral: OpenAI's endpoints with contents, calls, usage and errors of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, Reply

MESSAGES: list[Any] = [{"role": "user", "content": "Hi there"}]
THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}
SOON = 30.0


def ask(server: LLMServer, reply: Reply, **options: Any) -> requests.Response:
    """The whole answer to one request."""
    server.script(reply)
    body = {"model": "m", "messages": MESSAGES, **options}
    return requests.post(server.base_url("mistral") + "/chat/completions", json=body, timeout=SOON)


def stream(server: LLMServer, reply: Reply) -> list[Any]:
    """The events of a streamed answer."""
    texts = [event.removeprefix("data: ") for event in ask(server, reply, stream=True).content.decode().split("\n\n")]
    assert texts.pop() == ""
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def test_a_stream_has_whole_calls_and_its_usage_in_the_last_chunk(server: LLMServer) -> None:
    """Usage is always sent, together with the finish."""
    *chunks, last, mark = stream(
        server, Reply(["a", "b"], tool_calls=[{"name": "f", "arguments": {"long": "argument"}}])
    )
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks] == ["", "a", "b"]
    assert not any("usage" in chunk for chunk in chunks)
    (call,) = last["choices"][0]["delta"]["tool_calls"]
    assert (call["function"], len(call["id"])) == ({"name": "f", "arguments": '{"long":"argument"}'}, 9)
    assert (last["choices"][0]["finish_reason"], last["usage"]["prompt_tokens"]) == ("tool_calls", 2)
    assert mark == "[DONE]"


def test_content_is_a_list_beside_thinking(server: LLMServer) -> None:
    """Streamed and whole."""
    chunks = stream(server, Reply("a", reasoning="hm"))
    spoken = {"type": "text", "text": "a"}
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:3]] == [[THOUGHT], [spoken]]
    document = ask(server, Reply("a", reasoning="hm", choices=["b"])).json()
    assert [choice["message"]["content"] for choice in document["choices"]] == [[THOUGHT, spoken], "b"]
    assert ask(server, Reply("a")).json()["choices"][0]["message"]["content"] == "a"


def test_errors_are_flat(server: LLMServer) -> None:
    """Type and code are beside the message; 422 is a list of problems; so is an error in a stream."""
    answer = ask(server, Reply("No", status=429))
    flat = {"object": "error", "message": "No", "type": "rate_limited", "param": None, "code": "1300"}
    assert (answer.status_code, answer.json()) == (429, flat)
    assert stream(server, Reply("x", error="broken"))[-1]["message"] == "broken"
    assert ask(server, Reply("x", error={"code": "9"})).json()["code"] == "9"


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"model": None}, 422, "Field required"),
        ({"seed": 1}, 422, "Extra inputs are not permitted"),
        ({"stream_options": {"include_usage": True}}, 422, "Extra inputs are not permitted"),
        ({"messages": []}, 400, "non-empty array"),
        ({"messages": [{"role": "robot", "content": "x"}]}, 400, "robot"),
        (
            {"messages": [{"role": role, "content": "x"} for role in ("user", "assistant", "system", "user")]},
            400,
            "Unexpected role 'system' after role 'assistant'",
        ),
    ],
)
def test_bad_requests_are_refused(server: LLMServer, changes: dict[str, Any], status: int, message: str) -> None:
    """Fields that Mistral does not know get 422, with their place."""
    answer = ask(server, Reply("never sent"), **changes)
    assert (answer.status_code, message in answer.text) == (status, True)
    if status == 422:
        assert answer.json()["detail"][0]["loc"] == ["body", next(iter(changes))]


def test_embeddings_and_models(server: LLMServer) -> None:
    """The dimensions have their own name; unknown paths are not found, in Mistral's form."""
    base = server.base_url("mistral")
    body = {"model": "m", "input": ["a", "b"], "output_dimension": 3}
    made = requests.post(f"{base}/embeddings", json=body, timeout=SOON).json()
    assert [len(one["embedding"]) for one in made["data"]] == [3, 3]
    assert "id" in made
    server.script(Reply(models=["a"]))
    listed = requests.get(f"{base}/models", timeout=SOON).json()
    assert [(model["id"], model["capabilities"]["completion_chat"]) for model in listed["data"]] == [("a", True)]
    assert requests.get(f"{base}/chat/completions", timeout=SOON).json()["object"] == "error"
    assert requests.post(f"{base}/embeddings", json={}, timeout=SOON).status_code == 400
