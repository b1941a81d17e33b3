"""The content of answers: endpoint formats, error documents, and the rejection of bad requests."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, Reply

MESSAGES = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": [{"type": "text", "text": "Grüße"}]}]
OPENAI = {"model": "m", "messages": MESSAGES, "stream": True}
WITH_USAGE = {**OPENAI, "stream_options": {"include_usage": True}}
VITALENTUM = {"conversation": json.dumps({"history": [{"speaker": "human", "text": "Привет"}]}), "temperature": 0.7}
SOON = 30.0


def ask(server: LLMServer, reply: Reply, body: Any = OPENAI, path: str = "/v1/chat/completions") -> requests.Response:
    """The whole answer to one request, read by an ordinary client."""
    server.script(reply)
    return requests.post(server.root + path, json=body, timeout=SOON)


def events(answer: requests.Response) -> list[Any]:
    """The JSON of each event, and the text of the end mark."""
    answer.encoding = "utf-8"
    assert answer.text.endswith("\n\n") or not answer.text
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n")[:-1]]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def deltas(answer: requests.Response) -> list[dict[str, Any]]:
    """The deltas of all chunks that have one."""
    return [event["choices"][0]["delta"] for event in events(answer)[:-1] if event.get("choices")]


def test_an_openai_stream_has_the_shape_of_real_ones(server: LLMServer) -> None:
    """Role, content, finish and end mark come as events with the same keys and headers as recorded servers."""
    answer = ask(server, Reply(["Grüße, ", "", "世界 🌍"]))
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.headers["X-Request-Id"]
    *chunks, mark = events(answer)
    assert mark == "[DONE]"
    assert list(chunks[0]) == ["id", "object", "created", "model", "choices"]
    assert {(chunk["object"], chunk["model"]) for chunk in chunks} == {("chat.completion.chunk", "m")}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert [chunk["choices"][0] for chunk in chunks] == [
        {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        for delta, finish in [
            ({"role": "assistant", "content": ""}, None),
            ({"content": "Grüße, "}, None),
            ({"content": ""}, None),
            ({"content": "世界 🌍"}, None),
            ({}, "stop"),
        ]
    ]


def test_an_answer_that_is_not_streamed_is_one_document(server: LLMServer) -> None:
    """Without `stream`, the Reply is a chat.completion with a Content-Length and usage."""
    answer = ask(server, Reply(["Hel", "lo"], reasoning="hm", model="other"), {"messages": MESSAGES})
    assert answer.headers["Content-Type"] == "application/json"
    assert int(answer.headers["Content-Length"]) == len(answer.content)
    document = answer.json()
    assert (document["object"], document["model"]) == ("chat.completion", "other")
    message = {"role": "assistant", "content": "Hello", "refusal": None, "reasoning_content": "hm"}
    assert document["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert document["usage"]["completion_tokens_details"] == {"reasoning_tokens": 1}


@pytest.mark.parametrize("path", ["/api/chat", "/prefix/api/chat"])
def test_codelinkava_answers_in_openai_chunks(server: LLMServer, path: str) -> None:
    """CodeLinkAva's endpoint always streams."""
    answer = ask(server, Reply(["При", "вет"]), {"messages": MESSAGES, "temperature": 0.6}, path)
    assert deltas(answer) == [{"role": "assistant", "content": ""}, {"content": "При"}, {"content": "вет"}, {}]


def test_vitalentum_answers_in_openai_chunks(server: LLMServer) -> None:
    """Vitalentum's endpoint accepts its own form of request, and repeats the last human text by default."""
    answer = requests.post(server.base_url("vitalentum") + "/api/converse-edge", json=VITALENTUM, timeout=SOON)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert "".join(delta.get("content", "") for delta in deltas(answer)).endswith("Привет")


def test_events_can_be_single_lines(server: LLMServer) -> None:
    """lines=True leaves out the blank lines, as Vitalentum and CodeLinkAva do."""
    answer = ask(server, Reply(["a", "b"], lines=True), VITALENTUM, "/api/converse-edge")
    lines = answer.content.split(b"\n")
    assert len(lines) == 6
    assert lines.pop() == b""
    assert all(line.startswith(b"data: ") for line in lines)
    assert lines[-1] == b"data: [DONE]"


def test_models_are_listed(server: LLMServer) -> None:
    """GET .../models gives a list in OpenAI's shape."""
    listed = requests.get(server.base_url("openai") + "/models", timeout=SOON).json()
    assert listed["object"] == "list"
    assert listed["data"][0]["id"] == "test-model"


def test_usage_is_sent_if_requested(server: LLMServer) -> None:
    """With include_usage, a chunk without choices carries it before the end mark; the other chunks have null."""
    *chunks, usage, mark = events(ask(server, Reply("two words"), WITH_USAGE))
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    assert mark == "[DONE]"


@pytest.mark.parametrize("given", [{"prompt_tokens": 7, "odd": None}, True, False, None])
def test_usage_can_be_given_forced_or_withheld(server: LLMServer, given: Any) -> None:
    """A dict is sent unchanged, True sends a count, False none; None follows the request."""
    for body, asked in [(OPENAI, False), (WITH_USAGE, True)]:
        sent = [
            event["usage"] for event in events(ask(server, Reply("x", usage=given), body))[:-1] if event.get("usage")
        ]
        counted = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
        expected = given if isinstance(given, dict) else counted if given or (asked and given is None) else None
        assert sent == ([expected] if expected else [])


def test_reasoning_comes_before_the_content(server: LLMServer) -> None:
    """Reasoning is sent as reasoning_content, piece by piece."""
    sent = deltas(ask(server, Reply("four", reasoning=["two ", "and two"])))
    assert sent[1:4] == [{"reasoning_content": "two "}, {"reasoning_content": "and two"}, {"content": "four"}]


def test_the_end_of_a_stream_can_be_left_out(server: LLMServer) -> None:
    """With finish_reason=None and end_mark=False, the stream lacks its end, but HTTP is correct."""
    assert deltas(ask(server, Reply("x", finish_reason=None)))[-1] == {"content": "x"}
    assert events(ask(server, Reply("x", finish_reason="length", end_mark=False)))[-1]["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "length",
    }


@pytest.mark.parametrize("error", ["overloaded", {"message": "too much", "code": "rate_limit_exceeded"}])
def test_an_error_inside_the_stream_ends_it(server: LLMServer, error: Any) -> None:
    """The error follows the content, without finish event; the end mark is sent only if requested."""
    *before, last = events(ask(server, Reply("x", error=error)))
    assert (len(before), last) == (2, {"error": error})
    assert events(ask(server, Reply("x", error=error, end_mark=True)))[-2:] == [{"error": error}, "[DONE]"]
    assert ask(server, Reply("x", error=error), {"messages": MESSAGES}).json() == {"error": error}


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, "invalid_request_error", None),
        (401, "authentication_error", "invalid_api_key"),
        (429, "rate_limit_error", "rate_limit_exceeded"),
        (500, "server_error", None),
        (529, "server_error", None),
    ],
)
def test_statuses_from_400_on_are_error_documents(server: LLMServer, status: int, kind: str, code: str | None) -> None:
    """Every path answers with the status, the given headers, and the text in OpenAI's error document."""
    answer = ask(server, Reply("Slow down", status=status, headers={"Retry-After": "1"}, reason="No"), path="/any")
    assert (answer.status_code, answer.reason, answer.headers["Retry-After"]) == (status, "No", "1")
    assert answer.json() == {"error": {"message": "Slow down", "type": kind, "param": None, "code": code}}
    assert ask(server, Reply(status=status, error={"code": "x"})).json() == {"error": {"code": "x"}}


def test_a_redirect_is_only_a_head(server: LLMServer) -> None:
    """Statuses from 300 to 399 have the given headers and an empty body, for every request."""
    server.script(Reply("ignored", status=307, headers={"Location": "/elsewhere"}))
    answer = requests.post(server.root + "/any", json=OPENAI, timeout=SOON, allow_redirects=False)
    assert (answer.status_code, answer.headers["Location"], answer.content) == (307, "/elsewhere", b"")


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/chat/completions", b"{not json", 400, "Malformed JSON"),
        ("/v1/chat/completions", b"\xff", 400, "Malformed JSON"),
        ("/v1/chat/completions", b"[" * 100_000, 400, "Malformed JSON"),
        ("/v1/chat/completions", b"[]", 400, "must be a JSON object"),
        ("/v1/chat/completions", b"{}", 400, "Missing required parameter: 'messages'"),
        ("/v1/chat/completions", b'{"messages": []}', 400, "non-empty array"),
        ("/v1/chat/completions", b'{"messages": [{"content": "x"}]}', 400, "'messages[0].role'"),
        ("/v1/chat/completions", b'{"messages": [{"role": "user"}], "stream": "yes"}', 400, "'stream'"),
        ("/v1/chat/completions", b'{"messages": [{"role": "user"}], "stream_options": {}}', 400, "'stream_options'"),
        ("/api/chat", b'{"conversation": "{}"}', 400, "Missing required parameter: 'messages'"),
        ("/api/converse-edge", b'{"messages": [{"role": "user", "content": "x"}]}', 400, "'conversation'"),
        ("/api/converse-edge", b'{"conversation": "{not json"}', 400, "'conversation'"),
        ("/api/converse-edge", b'{"conversation": "[1]"}', 400, "'conversation'"),
        ("/api/converse-edge", b'{"conversation": {"history": []}}', 400, "'conversation'"),
        ("/v1/embeddings", b"{}", 400, "Missing required parameter: 'model'"),
        ("/v1/audio/speech", b"{}", 404, "Unknown request URL: POST /v1/audio/speech"),
    ],
)
def test_bad_requests_are_refused(server: LLMServer, path: str, body: bytes, status: int, message: str) -> None:
    """A request that the endpoint cannot serve gets an error document in OpenAI's form."""
    server.default = Reply("never sent")
    answer = requests.post(server.root + path, body, timeout=SOON)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "content", [None, 5, ["x", {"type": "image_url"}], [{"text": 5}], "\ud800", {"a": 1}], ids=repr
)
def test_odd_contents_do_not_disturb_the_server(server: LLMServer, content: Any) -> None:
    """An unscripted server leaves out what it cannot repeat."""
    body = json.dumps({"model": "\ud800", "conversation": 3, "messages": [{"role": "user", "content": content}]})
    answer = requests.post(server.base_url("openai") + "/chat/completions", body, timeout=SOON)
    assert "You wrote:" in answer.json()["choices"][0]["message"]["content"]


def test_a_body_is_sent_verbatim(server: LLMServer) -> None:
    """Bytes or str, with any content type, on any path; chunked for a stream, with a length otherwise."""
    streamed = ask(server, Reply(body=b"data: \xff\n\n"), path="/any")
    assert (streamed.content, streamed.headers["Content-Type"]) == (b"data: \xff\n\n", "text/event-stream")
    assert streamed.headers["Transfer-Encoding"] == "chunked"
    page = ask(server, Reply(body="<p>Grüße", content_type="text/html", status=502, transfer="length"))
    assert (page.status_code, page.content) == (502, "<p>Grüße".encode())
    assert (page.headers["Content-Type"], page.headers["Content-Length"]) == ("text/html", "10")
    assert ask(server, Reply(body=b"")).content == b""
    assert "Content-Type" not in ask(server, Reply(body=b"x", content_type="")).headers
