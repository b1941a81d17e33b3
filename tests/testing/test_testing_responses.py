"""The testing server as OpenAI's Responses: items in named events, and everything that a Reply can hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, Reply

SOON = 30.0


def ask(server: LLMServer, reply: Reply, **options: Any) -> requests.Response:
    """The whole answer to one request."""
    server.script(reply)
    url = server.base_url("openai-responses") + "/responses"
    return requests.post(url, json={"model": "m", "input": "Hi there", **options}, timeout=SOON)


def stream(server: LLMServer, reply: Reply) -> list[dict[str, Any]]:
    """The data of every event, after checking its name and number."""
    found = []
    for block in ask(server, reply, stream=True).content.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def test_every_item_begins_fills_and_ends(server: LLMServer) -> None:
    """Reasoning, message and calls come in order; the last event repeats them, like an answer that is not streamed."""
    reply = Reply(["a", "b"], reasoning="hm", tool_calls=[{"name": "f", "arguments": {"long": "argument"}, "id": "c1"}])
    events = stream(server, reply)
    texts = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert texts == ["a", "b"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["reasoning", "message", "function_call"]
    pieces = [event["delta"] for event in events if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(pieces) == done[2]["arguments"] == '{"long":"argument"}'
    assert len(pieces) > 1
    last = events[-1]["response"]
    assert (last["status"], last["output"]) == ("completed", done)
    usage = last["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (2, 3, 5)
    assert usage["output_tokens_details"] == {"reasoning_tokens": 1}
    whole = ask(server, reply).json()
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call"]
    assert whole["usage"] == usage


@pytest.mark.parametrize(
    ("finish", "status", "reason"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
def test_finish_reasons_are_statuses(server: LLMServer, finish: str, status: str, reason: str | None) -> None:
    """They decide the name of the last event."""
    reply = Reply("x", finish_reason=finish, usage={"input_tokens": 7})
    last = stream(server, reply)[-1]
    assert last["type"] == f"response.{status}"
    for response in (last["response"], ask(server, reply).json()):
        assert (response["status"], (response["incomplete_details"] or {}).get("reason")) == (status, reason)
        assert response["usage"] == {"input_tokens": 7}


def test_the_end_can_be_left_out(server: LLMServer) -> None:
    """There is no other end mark."""
    for reply in (Reply("x", finish_reason=None), Reply("x", end_mark=False)):
        assert stream(server, reply)[-1]["type"] == "response.output_item.done"


def test_refusals_and_log_probabilities(server: LLMServer) -> None:
    """They are parts of the message."""
    (message,) = ask(server, Reply(refusal="No.")).json()["output"]
    assert message["content"] == [{"type": "refusal", "refusal": "No."}]
    events = stream(server, Reply(refusal="No."))
    assert "".join(event["delta"] for event in events if event["type"] == "response.refusal.delta") == "No."
    (message,) = ask(server, Reply("x", logprobs=[{"token": "x"}])).json()["output"]
    assert message["content"][0]["logprobs"] == [{"token": "x"}]
    events = stream(server, Reply(["a", "b"], logprobs=[{"token": "a"}, {"token": "b"}, {"token": "end"}]))
    told = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert told == [[{"token": "a"}], [{"token": "b"}, {"token": "end"}]]


def test_errors(server: LLMServer) -> None:
    """OpenAI's document with a status, an event in a stream, or a failed response."""
    assert ask(server, Reply("No", status=429)).json()["error"]["code"] == "rate_limit_exceeded"
    last = stream(server, Reply("x", error={"message": "broken", "code": "server_error"}))[-1]
    assert (last["type"], last["code"], last["message"]) == ("error", "server_error", "broken")
    failed = ask(server, Reply("x", error="broken")).json()
    assert (failed["status"], failed["error"]["message"]) == ("failed", "broken")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "'model'"),
        ({"input": []}, "'input'"),
        ({"stream": 1}, "'stream'"),
        ({"input": [{"role": "robot", "content": "x"}]}, "'robot'"),
        ({"input": [{"role": "user"}]}, "input[0].content"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "No tool call found"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input[0].arguments"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name"),
    ],
)
def test_bad_requests_are_refused(server: LLMServer, changes: dict[str, Any], message: str) -> None:
    """They get 400, with the wrong part of the request."""
    answer = ask(server, Reply("never sent"), **changes)
    assert (answer.status_code, message in answer.json()["error"]["message"]) == (400, True)


def test_a_conversation_with_tools_is_read(server: LLMServer) -> None:
    """Items become turns, and flat tools are found."""
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi there"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "sunny"},
    ]
    tools = [{"type": "function", "name": "f", "parameters": {"type": "object"}}]
    assert ask(server, Reply("x"), input=items, tools=tools, instructions="Be brief").ok
    received = server.requests[0]
    assert [turn.role for turn in received.turns] == ["system", "user", "assistant", "tool"]
    assert (received.user_text, received.turns[-1].text, received.tools[0].name) == ("Hi there", "sunny", "f")
