"""The testing server as Anthropic: blocks in named events, and everything that a Reply can hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, Reply

HEADERS = {"anthropic-version": "2023-06-01", "x-api-key": "k"}
ASKED: dict[str, Any] = {"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": "Hi there"}]}
TOOL = {"name": "f", "input_schema": {"type": "object"}}
USE = {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "f", "input": {}}]}
RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}]}
SOON = 30.0


def ask(server: LLMServer, reply: Reply, **options: Any) -> requests.Response:
    """The whole answer to one request."""
    server.script(reply)
    url = server.base_url("anthropic") + "/v1/messages"
    return requests.post(url, json={**ASKED, **options}, headers=HEADERS, timeout=SOON)


def events(answer: requests.Response) -> list[dict[str, Any]]:
    """The data of every event, after checking that its name is its type."""
    found = []
    for block in answer.content.decode().split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def stream(server: LLMServer, reply: Reply, **options: Any) -> list[dict[str, Any]]:
    """The events of a streamed answer."""
    answer = ask(server, reply, stream=True, **options)
    assert answer.headers["Content-Type"] == "text/event-stream"
    return events(answer)


def test_a_stream_is_blocks_of_deltas(server: LLMServer) -> None:
    """Thinking with its signature, text and tool use are separate blocks, in order, between start and stop."""
    reply = Reply(["a", "b"], reasoning="hm", tool_calls=[{"name": "f", "arguments": {"long": "argument"}, "id": "t1"}])
    first, *between, last, stop = stream(server, reply)
    assert first["message"]["content"] == []
    assert first["message"]["usage"] == {"input_tokens": 2, "output_tokens": 1}
    kinds = [(event["type"].removeprefix("content_block_"), event["index"]) for event in between]
    assert kinds == [
        *[("start", 0), ("delta", 0), ("delta", 0), ("stop", 0)],
        *[("start", 1), ("delta", 1), ("delta", 1), ("stop", 1)],
        *[("start", 2), ("delta", 2), ("delta", 2), ("delta", 2), ("stop", 2)],
    ]
    assert between[2]["delta"] == {"type": "signature_delta", "signature": "bGxtYnJpZGdlLnRlc3Rpbmc="}
    assert between[8]["content_block"] == {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
    arguments = "".join(event["delta"]["partial_json"] for event in between[9:12])
    assert json.loads(arguments) == {"long": "argument"}
    assert last["delta"]["stop_reason"] == "tool_use"
    assert last["usage"] == {"output_tokens": 3}
    assert stop == {"type": "message_stop"}


def test_an_answer_that_is_not_streamed_has_whole_blocks(server: LLMServer) -> None:
    """The same Reply as one message, with arguments as an object."""
    reply = Reply(["a", "b"], reasoning="hm", signature="s", tool_calls=[{"name": "f", "arguments": {"x": 1}}])
    message = ask(server, reply).json()
    thinking, text, use = message["content"]
    assert thinking == {"type": "thinking", "thinking": "hm", "signature": "s"}
    assert text == {"type": "text", "text": "ab"}
    assert (use["name"], use["input"]) == ("f", {"x": 1})
    assert use["id"].startswith("toolu_")
    assert (message["type"], message["stop_reason"]) == ("message", "tool_use")


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("x"), "end_turn"),
        (Reply("x", finish_reason="length"), "max_tokens"),
        (Reply("x", finish_reason="pause_turn"), "pause_turn"),
        (Reply("x", finish_reason="content_filter"), "refusal"),
        (Reply(tool_calls=[{"name": "f"}], finish_reason="stop"), "end_turn"),
        (Reply(refusal="No."), "refusal"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_finish_reasons_are_translated(server: LLMServer, reply: Reply, reason: str) -> None:
    """OpenAI's words become Anthropic's, Anthropic's stay, and a chosen one wins over that of tool calls."""
    assert ask(server, reply).json()["stop_reason"] == reason
    assert stream(server, reply)[-2]["delta"]["stop_reason"] == reason


def test_usage_can_be_given_or_withheld(server: LLMServer) -> None:
    """A mapping is split over start and end like the service's; False sends none."""
    given = {"input_tokens": 1, "cache_read_input_tokens": 2, "output_tokens": 3}
    first, *_, last, _ = stream(server, Reply("x", usage=given))
    assert first["message"]["usage"] == {**given, "output_tokens": 1}
    assert last["usage"] == {"output_tokens": 3}
    assert ask(server, Reply("x", usage=given)).json()["usage"] == given
    assert "usage" not in ask(server, Reply("x", usage=False)).text
    assert "usage" not in ask(server, Reply("x", usage=False), stream=True).text


def test_the_end_of_a_stream_can_be_left_out(server: LLMServer) -> None:
    """Without finish there is no message_delta, without end mark no message_stop."""
    kinds = [event["type"] for event in stream(server, Reply("x", finish_reason=None, end_mark=False))]
    assert kinds[-1] == "content_block_stop"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (529, "overloaded_error"),
    ],
)
def test_errors_have_the_service_s_shape(server: LLMServer, status: int, kind: str) -> None:
    """The document has type, message and the id that is also in the header."""
    answer = ask(server, Reply("No", status=status, headers={"Retry-After": "1"}))
    assert (answer.status_code, answer.headers["Retry-After"]) == (status, "1")
    assert "X-Request-Id" not in answer.headers
    error = {"type": kind, "message": "No"}
    assert answer.json() == {"type": "error", "error": error, "request_id": answer.headers["request-id"]}


@pytest.mark.parametrize(
    ("given", "inner"),
    [
        ("broken", {"type": "api_error", "message": "broken"}),
        ({"type": "overloaded_error", "message": "Busy"}, {"type": "overloaded_error", "message": "Busy"}),
    ],
)
def test_an_error_inside_a_stream_is_an_event(server: LLMServer, given: Any, inner: Any) -> None:
    """It leaves the block open, and nothing follows."""
    *_, before, last = stream(server, Reply("x", error=given))
    assert before["type"] == "content_block_delta"
    assert (last["type"], last["error"]) == ("error", inner)
    assert ask(server, Reply("x", error=given)).json()["error"] == inner


def test_models_and_tokens(server: LLMServer) -> None:
    """The list of models is Anthropic's for clients with its version header; tokens are counted without max_tokens."""
    server.script(Reply(models=["a", "b"]))
    listed = requests.get(server.root + "/v1/models", headers=HEADERS, timeout=SOON).json()
    assert ([model["id"] for model in listed["data"]], listed["first_id"], listed["has_more"]) == (
        ["a", "b"],
        "a",
        False,
    )
    body = {"model": "m", "messages": ASKED["messages"], "system": "Be brief"}
    url = server.root + "/v1/messages/count_tokens"
    assert requests.post(url, json=body, headers=HEADERS, timeout=SOON).json() == {"input_tokens": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"model": 5}, "model: Input should be a valid string"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}]}, 'Unexpected role "system"'),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty content"),
        ({"messages": [{"role": "user"}]}, "messages.0.content: Field required"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "Input tag 'image_url'"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "x"}}]}]}, "Input tag 'x'"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}, "must be non-empty"),
        ({"messages": [*ASKED["messages"], USE]}, "without `tool_result` blocks"),
        ({"messages": [RESULT]}, "unexpected `tool_use_id`"),
        ({"tools": [{"name": "f", "input_schema": {}}]}, "input_schema.type"),
        ({"tools": [{"name": "not a name", "input_schema": {"type": "object"}}]}, "should match pattern"),
        ({"temperature": 1.5}, "temperature"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, "1024"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "`max_tokens` must be greater"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_bad_requests_are_refused(server: LLMServer, changes: dict[str, Any], message: str) -> None:
    """They get 400, in Anthropic's words."""
    answer = ask(server, Reply("never sent"), **changes)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert message in answer.json()["error"]["message"]


def test_the_version_is_required_and_decides_about_sampling(server: LLMServer) -> None:
    """A missing version is rejected, and since 2026-10-21 so is any temperature."""
    url = server.root + "/v1/messages"
    assert "anthropic-version" in requests.post(url, json=ASKED, timeout=SOON).json()["error"]["message"]
    newer = {"anthropic-version": "2026-10-21"}
    answer = requests.post(url, json={**ASKED, "temperature": 1}, headers=newer, timeout=SOON)
    assert (answer.status_code, "temperature" in answer.text) == (400, True)


def test_a_conversation_with_tools_is_read(server: LLMServer) -> None:
    """Tools' results are separate turns, and the request's tools are found."""
    messages = [*ASKED["messages"], USE, RESULT]
    assert ask(server, Reply("x"), messages=messages, tools=[TOOL], system="Be brief").ok
    received = server.requests[0]
    assert [turn.role for turn in received.turns] == ["system", "user", "assistant", "tool"]
    assert (received.turns[-1].text, received.user_text, received.model) == ("sunny", "Hi there", "m")
    assert received.tools[0].name == "f"


def test_on_vertex_the_model_is_in_the_path_and_the_version_in_the_body(server: LLMServer) -> None:
    """The method decides whether the answer is a stream."""
    own = {"anthropic_version": "vertex-2023-10-16", "max_tokens": 9, "messages": ASKED["messages"]}
    url = server.base_url("vertex-anthropic") + "/v1/projects/p/locations/l/publishers/anthropic/models/c@1:{}"
    streamed = requests.post(url.format("streamRawPredict"), json=own, timeout=SOON)
    assert events(streamed)[0]["message"]["model"] == "c@1"
    assert requests.post(url.format("rawPredict"), json=own, timeout=SOON).json()["type"] == "message"
    for wrong, said in (
        ({**own, "anthropic_version": None}, "anthropic_version: Field required"),
        ({**own, "model": "c"}, "model: Extra inputs are not permitted"),
    ):
        refused = requests.post(url.format("rawPredict"), json=wrong, timeout=SOON)
        assert (refused.status_code, refused.json()["error"]["message"]) == (400, said)
