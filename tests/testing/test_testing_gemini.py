"""The testing server as Gemini: whole responses as events or as an array, parts, and Google's errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, Reply

CONTENTS = [{"role": "user", "parts": [{"text": "Hi there"}]}]
CALL = {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]}
ANSWER = {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"result": "sunny"}}}]}
SOON = 30.0


def post(server: LLMServer, method: str, body: Any, version: str = "v1beta") -> requests.Response:
    """The answer to any method of a model."""
    url = f"{server.base_url('gemini')}/{version}/models/g-1.5:{method}"
    return requests.post(url, json=body, headers={"x-goog-api-key": "k"}, timeout=SOON)


def ask(server: LLMServer, reply: Reply, **options: Any) -> Any:
    """The document of an answer that is not streamed."""
    server.script(reply)
    return post(server, "generateContent", {"contents": CONTENTS, **options}).json()


def stream(server: LLMServer, reply: Reply, **options: Any) -> list[dict[str, Any]]:
    """The events of a streamed answer."""
    server.script(reply)
    answer = post(server, "streamGenerateContent?alt=sse", {"contents": CONTENTS, **options}, "v1")
    assert answer.headers["Content-Type"] == "text/event-stream"
    blocks = answer.content.decode().split("\n\n")
    assert blocks.pop() == ""
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def parts(response: dict[str, Any]) -> Any:
    """The parts of the first candidate."""
    return response["candidates"][0]["content"]["parts"]


def test_a_stream_is_whole_responses_without_an_end_mark(server: LLMServer) -> None:
    """Every piece is a response, thoughts are marked, the last one has the finish; usage grows."""
    first, second, last = stream(server, Reply(["a", "b c"], reasoning="hm"))
    assert [parts(one)[0]["text"] for one in (first, second, last)] == ["hm", "a", "b c"]
    assert (parts(first)[0]["thought"], "thought" in parts(second)[0]) == (True, False)
    assert parts(last)[0]["thoughtSignature"]
    assert [one["candidates"][0].get("finishReason") for one in (first, second, last)] == [None, None, "STOP"]
    assert second["usageMetadata"] == {"promptTokenCount": 2, "totalTokenCount": 2}
    counts = {"promptTokenCount": 2, "candidatesTokenCount": 2, "totalTokenCount": 5, "thoughtsTokenCount": 1}
    assert last["usageMetadata"] == counts
    assert (last["modelVersion"], last["responseId"]) == ("g-1.5", first["responseId"])


def test_without_sse_a_stream_is_an_array(server: LLMServer) -> None:
    """The same responses are the elements of one JSON array, sent one by one."""
    server.script(Reply(["a", "b"]), Reply(["a"], error="broken"))
    answer = post(server, "streamGenerateContent", {"contents": CONTENTS})
    assert (answer.headers["Content-Type"], answer.headers["Transfer-Encoding"]) == ("application/json", "chunked")
    assert [parts(one)[0]["text"] for one in answer.json()] == ["a", "b"]
    assert post(server, "streamGenerateContent", {"contents": CONTENTS}).json()[1]["error"]["message"] == "broken"


def test_an_answer_that_is_not_streamed_joins_the_texts(server: LLMServer) -> None:
    """Thoughts and texts are one part each; calls follow, the first one signed."""
    calls = [{"name": "f", "arguments": {"x": 1}, "id": "c1"}, {"name": "g"}]
    document = ask(server, Reply(["a", "b"], reasoning=["h", "m"], signature="c2ln", tool_calls=calls))
    assert parts(document) == [
        {"text": "hm", "thought": True},
        {"text": "ab"},
        {"functionCall": {"id": "c1", "name": "f", "args": {"x": 1}}, "thoughtSignature": "c2ln"},
        {"functionCall": {"name": "g", "args": {}}},
    ]
    assert document["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Reply("x", finish_reason="length"), "MAX_TOKENS"),
        (Reply("x", finish_reason="content_filter"), "SAFETY"),
        (Reply("x", finish_reason="RECITATION"), "RECITATION"),
        (Reply("x", finish_reason=None), None),
        (Reply("x", refusal="No."), "SAFETY"),
    ],
)
def test_finish_reasons_are_translated(server: LLMServer, reply: Reply, reason: str | None) -> None:
    """OpenAI's words become Gemini's, Gemini's stay, None leaves it out."""
    assert ask(server, reply)["candidates"][0].get("finishReason") == reason
    assert stream(server, reply)[-1]["candidates"][0].get("finishReason") == reason


def test_a_refusal_without_words_blocks_the_prompt(server: LLMServer) -> None:
    """There is feedback, but no candidates."""
    document = ask(server, Reply(refusal="No."))
    assert "candidates" not in document
    assert document["promptFeedback"]["blockReasonMessage"] == "No."
    assert [document["promptFeedback"]] == [one["promptFeedback"] for one in stream(server, Reply(refusal="No."))]


def test_several_candidates_and_log_probabilities(server: LLMServer) -> None:
    """Further choices are further candidates."""
    document = ask(server, Reply("a", choices=["b"], logprobs=[{"token": "a"}]))
    assert [one["content"]["parts"][0]["text"] for one in document["candidates"]] == ["a", "b"]
    assert [one["index"] for one in document["candidates"]] == [0, 1]
    assert document["candidates"][0]["logprobsResult"] == {"chosenCandidates": [{"token": "a"}]}


def test_usage_can_be_given_or_withheld(server: LLMServer) -> None:
    """A mapping is sent unchanged; False sends none."""
    assert ask(server, Reply("x", usage={"promptTokenCount": 7}))["usageMetadata"] == {"promptTokenCount": 7}
    assert "usageMetadata" not in ask(server, Reply("x", usage=False))
    assert not any("usageMetadata" in one for one in stream(server, Reply(["x", "y"], usage=False)))


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (400, "INVALID_ARGUMENT"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_errors_have_google_s_shape(server: LLMServer, status: int, word: str) -> None:
    """Code, message and status."""
    server.script(Reply("No", status=status))
    answer = post(server, "generateContent", {"contents": CONTENTS})
    assert answer.status_code == status
    assert answer.json() == {"error": {"code": status, "message": "No", "status": word}}


def test_retry_after_is_also_a_detail(server: LLMServer) -> None:
    """The wait is where this service puts it."""
    server.script(Reply(status=429, headers={"Retry-After": "1.5"}))
    details = post(server, "generateContent", {"contents": CONTENTS}).json()["error"]["details"]
    assert details == [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "1.5s"}]


@pytest.mark.parametrize(
    ("given", "inner"),
    [
        ("broken", {"code": 500, "message": "broken", "status": "INTERNAL"}),
        ({"code": 503, "message": "}{", "details": [{}]}, {"code": 503, "message": "}{", "details": [{}]}),
    ],
)
def test_an_error_inside_a_stream_is_not_an_event(server: LLMServer, given: Any, inner: Any) -> None:
    """The document follows the events on lines of its own, without `data:`."""
    server.script(Reply("x", error=given))
    body = post(server, "streamGenerateContent?alt=sse", {"contents": CONTENTS}).content.decode()
    event, _, rest = body.partition("\n\n")
    assert "finishReason" not in event
    assert rest.count("\n") > 1
    assert not any(line.startswith("data:") for line in rest.splitlines())
    assert json.loads(rest) == {"error": inner}


def test_embeddings(server: LLMServer) -> None:
    """One vector per request, of the requested length; equal texts have equal vectors."""
    content = {"parts": [{"text": "a"}]}
    assert len(post(server, "embedContent", {"content": content}).json()["embedding"]["values"]) == 8
    one = {"model": "models/g", "content": content, "outputDimensionality": 3}
    answer = post(
        server, "batchEmbedContents", {"requests": [one, {**one, "content": {"parts": [{"text": "b"}]}}, one]}
    )
    first, second, third = [each["values"] for each in answer.json()["embeddings"]]
    assert first == third != second
    assert sum(value**2 for value in first) == pytest.approx(1)
    server.script(Reply(embeddings=[[1, 2.5]]))
    assert post(server, "embedContent", {"content": content}).json()["embedding"]["values"] == [1, 2.5]


@pytest.mark.parametrize("path", ["/v1beta/models", "/v1/models?pageSize=5"])
def test_models_are_listed(server: LLMServer, path: str) -> None:
    """The list is Gemini's for clients with its key."""
    server.script(Reply(models=["a"]))
    listed = requests.get(server.root + path, headers={"x-goog-api-key": "k"}, timeout=SOON).json()
    assert listed["models"][0]["name"] == "models/a"


def test_tokens_are_counted_and_unknown_methods_are_not_found(server: LLMServer) -> None:
    """countTokens counts words; unknown methods get 404 in Google's form."""
    assert post(server, "countTokens", {"contents": CONTENTS}).json() == {"totalTokens": 2}
    assert post(server, "predict", {}).json()["error"]["status"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "contents is not specified"),
        ({"contents": []}, "contents is not specified"),
        ({"contents": [{"role": "assistant", "parts": [{"text": "x"}]}]}, "valid role: user, model"),
        ({"contents": [{"parts": []}]}, "must not be empty"),
        ({"contents": [{"parts": [{"type": "text"}]}]}, 'Unknown name "type"'),
        ({"contents": [{"parts": [{"thought": True}]}]}, "oneof field 'data'"),
        ({"contents": [{"parts": [{"functionCall": {}}]}]}, "Name cannot be empty"),
        ({"contents": [{"parts": [{"inlineData": {"data": "x"}}]}]}, "mimeType and data are required"),
        ({"contents": [*CONTENTS, ANSWER]}, "number of function response parts"),
        ({"contents": [*CONTENTS, CALL, *CONTENTS]}, "number of function response parts"),
        ({"contents": CONTENTS, "tools": [{"functionDeclarations": [{"name": "a b"}]}]}, "Invalid function name"),
        ({"contents": CONTENTS, "tools": [{"functionDeclarations": []}]}, "tool_type"),
        ({"contents": CONTENTS, "systemInstruction": {"parts": []}}, "system_instruction.parts"),
    ],
)
def test_bad_requests_are_refused(server: LLMServer, body: Any, message: str) -> None:
    """They get 400, in Google's words."""
    error = post(server, "generateContent", body).json()["error"]
    assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    assert message in error["message"]


def test_a_conversation_with_tools_is_read(server: LLMServer) -> None:
    """Tools' results are separate turns, the request's tools are found, and the model is in the path."""
    tools = [{"functionDeclarations": [{"name": "f", "description": "d", "parametersJsonSchema": {"type": "object"}}]}]
    system = {"parts": [{"text": "Be brief"}]}
    assert "candidates" in ask(
        server, Reply("x"), contents=[*CONTENTS, CALL, ANSWER], tools=tools, systemInstruction=system
    )
    received = server.requests[0]
    assert [turn.role for turn in received.turns] == ["system", "user", "model", "tool"]
    assert (received.turns[-1].text, received.user_text, received.model) == ("sunny", "Hi there", "g-1.5")
    assert (received.tools[0].name, received.tools[0].parameters) == ("f", {"type": "object"})
