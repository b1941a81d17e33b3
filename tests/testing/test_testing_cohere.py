"""The testing server as Cohere: named events, plans, flat errors, embeddings by type."""

from __future__ import annotations

import json
from typing import Any

import requests

from llmbridge.testing import LLMServer, Reply

MESSAGES: list[Any] = [{"role": "user", "content": "Hi there"}]
SOON = 30.0


def ask(server: LLMServer, reply: Reply, **options: Any) -> requests.Response:
    """The whole answer to one request."""
    server.script(reply)
    body = {"model": "m", "messages": MESSAGES, **options}
    return requests.post(server.base_url("cohere") + "/v2/chat", json=body, timeout=SOON)


def stream(server: LLMServer, reply: Reply) -> list[dict[str, Any]]:
    """The data of every event, after checking that its name is its type."""
    found = []
    for block in ask(server, reply, stream=True).content.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_stream_is_blocks_of_deltas(server: LLMServer) -> None:
    """Thinking and text are blocks; the end has reason and counts."""
    _, *between, last = stream(server, Reply(["a", "b"], reasoning="hm"))
    kinds = [(event["type"], event["index"]) for event in between]
    begin, fill, end = "content-start", "content-delta", "content-end"
    assert kinds == [(begin, 0), (fill, 0), (end, 0), (begin, 1), (fill, 1), (fill, 1), (end, 1)]
    assert between[1]["delta"]["message"]["content"] == {"type": "thinking", "thinking": "hm"}
    assert last["delta"]["finish_reason"] == "COMPLETE"
    assert last["delta"]["usage"]["tokens"] == {"input_tokens": 2, "output_tokens": 2}


def test_an_answer_that_is_not_streamed_is_one_document(server: LLMServer) -> None:
    """Content is in blocks; reasoning before calls is their plan."""
    document = ask(server, Reply(["a", "b"], finish_reason="length", usage={"tokens": {}})).json()
    assert document["message"] == {"role": "assistant", "content": [{"type": "text", "text": "ab"}]}
    assert (document["finish_reason"], document["usage"]) == ("MAX_TOKENS", {"tokens": {}})
    document = ask(server, Reply(reasoning="hm", tool_calls=[{"name": "f", "id": "c1"}], usage=False)).json()
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert document["message"] == {"role": "assistant", "tool_plan": "hm", "tool_calls": [call]}
    assert (document["finish_reason"], "usage" in document) == ("TOOL_CALL", False)


def test_errors(server: LLMServer) -> None:
    """Flat with a status, a reason of the last event in a stream."""
    answer = ask(server, Reply("No", status=429))
    assert (answer.status_code, answer.json()) == (429, {"id": answer.headers["X-Request-Id"], "message": "No"})
    assert stream(server, Reply("x", error="broken"))[-1]["delta"] == {"finish_reason": "ERROR", "error": "broken"}
    assert stream(server, Reply("x", finish_reason=None))[-1]["type"] == "content-end"
    assert ask(server, Reply("x"), model=None).json()["message"] == "model is required"
    assert ask(server, Reply("x"), messages=[]).status_code == 400
    assert requests.get(server.base_url("cohere") + "/v2/chat", timeout=SOON).json()["message"]


def test_embeddings_and_models(server: LLMServer) -> None:
    """Vectors by type, and Cohere's own list."""
    base = server.base_url("cohere")
    body = {"model": "m", "texts": ["a b", "c"], "input_type": "search_query", "output_dimension": 3}
    made = requests.post(f"{base}/v2/embed", json=body, timeout=SOON).json()
    assert [len(vector) for vector in made["embeddings"]["float"]] == [3, 3]
    assert made["meta"]["billed_units"] == {"input_tokens": 3}
    assert requests.post(f"{base}/v2/embed", json={"model": "m", "texts": ["a"]}, timeout=SOON).status_code == 400
    assert requests.post(f"{base}/v2/embed", json={"model": "m"}, timeout=SOON).status_code == 400
    server.script(Reply(models=["a"]))
    assert requests.get(f"{base}/v1/models?page_size=5", timeout=SOON).json()["models"][0]["name"] == "a"
