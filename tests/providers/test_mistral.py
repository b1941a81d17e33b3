"""Mistral's dialect: where it differs from OpenAI's, as tables."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import (
    AuthError,
    BadRequest,
    Client,
    Finish,
    InvalidRequest,
    MissingKey,
    ProtocolError,
    RateLimited,
    Reasoning,
    ServiceError,
    StreamTruncated,
    Usage,
    chat,
)
from llmbridge._call.framing import Record
from llmbridge.events import END, Citation, Other, ToolCallDelta
from llmbridge.messages import ChatRequest
from llmbridge.parts import Audio, Document, Image
from llmbridge.providers.mistral import Mistral
from llmbridge.testing import LLMServer, Reply

SCHEMA = {"title": "city", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city", "parameters": SCHEMA}}
USED = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
COUNTED = Usage(11, 7, 18)


def body(messages: Any = "Hi", **params: Any) -> dict[str, Any]:
    """The body of a request."""
    return dict(Mistral.encode(ChatRequest.checked("m", messages, params)).body)


class TestEncode:
    """Requests."""

    def test_a_plain_request(self) -> None:
        """OpenAI's form, without asking for usage, which the service rejects."""
        encoded = Mistral.encode(ChatRequest.checked("m", "Hi", {}))
        assert encoded.path == "/chat/completions"
        assert encoded.body == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}

    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            ({"seed": 1}, {"random_seed": 1}),
            ({"seed": 1, "random_seed": 2}, {"random_seed": 2}),
            ({"max_tokens": 5},) * 2,
            ({"max_completion_tokens": 5}, {"max_tokens": 5}),
            ({"max_completion_tokens": 5, "max_tokens": 6}, {"max_tokens": 6}),
            ({"temperature": 0.5, "top_p": 0.1, "stop": ["a"], "n": 2, "parallel_tool_calls": False},) * 2,
            ({"presence_penalty": 1, "frequency_penalty": 1, "metadata": {"a": "b"}},) * 2,
            ({"prompt_mode": "reasoning", "safe_prompt": True, "reasoning_effort": "high", "prompt_cache_key": "k"},)
            * 2,
            ({"response_format": {"type": "json_object"}, "wibble": [1], "stream": False},) * 2,
        ],
    )
    def test_parameters(self, params: dict[str, Any], expected: dict[str, Any]) -> None:
        """They get Mistral's names; its own names win, and unknown ones are sent unchanged."""
        sent = body(**params)
        assert sent == {"model": "m", "messages": sent["messages"], "stream": True, **expected}

    @pytest.mark.parametrize(
        ("params", "names"),
        [
            ({"logprobs": True, "top_logprobs": 2, "logit_bias": {}, "user": "u"}, None),
            ({"top_k": 1, "stream_options": {}, "store": True, "service_tier": "x", "verbosity": "low"}, None),
            ({"reasoning_effort": 1024, "modalities": ["text"]}, None),
            ({"reasoning_effort": "none", "seed": 1, "prompt_mode": None, "max_completion_tokens": 1}, set()),
        ],
    )
    def test_what_the_service_refuses(self, params: dict[str, Any], names: set[str] | None) -> None:
        """Before sending, each with advice."""
        found = Mistral.refusals(ChatRequest.checked("m", "Hi", params))
        assert set(found) == (set(params) if names is None else names)
        assert all(advice.startswith("Mistral ") for advice in found.values())

    @pytest.mark.parametrize(
        ("choice", "sent"),
        [
            ("auto", "auto"),
            ("none", "none"),
            ("required", "any"),
            ("weather", {"type": "function", "function": {"name": "weather"}}),
        ],
    )
    def test_tool_choice(self, choice: str, sent: Any) -> None:
        """Mistral's `any` is `required` elsewhere."""
        made = body(tools=[TOOL], tool_choice=choice)
        assert made["tool_choice"] == sent
        assert made["tools"] == [TOOL]

    def test_tools_without_a_choice(self) -> None:
        """The service decides."""
        assert "tool_choice" not in body(tools=[TOOL])

    def test_structured_output(self) -> None:
        """A response format, JSON mode or a tool, by schema_mode."""
        assert body(schema=SCHEMA)["response_format"]["json_schema"]["name"] == "city"
        sent = body(schema=SCHEMA, schema_mode="json")
        assert sent["response_format"] == {"type": "json_object"}
        assert '"name"' in sent["messages"][0]["content"]
        sent = body(schema=SCHEMA, schema_mode="tool")
        assert sent["tool_choice"] == {"type": "function", "function": {"name": "city"}}
        assert Mistral.answer_tool(ChatRequest.checked("m", "Hi", {"schema": SCHEMA, "schema_mode": "tool"})) == "city"


PNG = Image(b"\x89PNG\r\n\x1a\n")


class TestMessages:
    """Messages in the body."""

    def test_an_image_in_the_answer_of_a_tool_stays_there(self) -> None:
        """The service accepts it there, unlike others with the dialect."""
        call = {"id": "abcdefghi", "type": "function", "function": {"name": "look", "arguments": "{}"}}
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
        turns = [
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": [{"type": "text", "text": "See:"}, image]},
        ]
        answer = Mistral.encode(ChatRequest.checked("m", turns, {})).body["messages"][-1]
        assert answer["role"] == "tool"
        assert answer["content"][1] == image

    def test_their_order_is_one_that_the_service_takes(self, server: LLMServer) -> None:
        """Instructions first, an answer after tools' results, and no empty answer."""
        call = {"id": "abcdefghi", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        conversation = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": ""},
            {"role": "assistant", "content": "Hello."},
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "abcdefghi", "content": "sun"},
            {"role": "user", "content": "Never mind."},
        ]
        chat(conversation, "mistral:m", base_url=server.base_url("mistral"), api_key="k", proxy=False).complete()
        sent = server.requests[0].json["messages"]
        assert [(turn["role"], turn["content"]) for turn in sent] == [
            ("system", "Be brief."),
            ("user", "Hi"),
            ("assistant", "Hello."),
            ("user", "Weather?"),
            ("assistant", None),
            ("tool", "sun"),
            ("assistant", "Understood."),
            ("user", "Never mind."),
        ]

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            ({"role": "developer", "content": "Be brief."}, {"role": "system", "content": "Be brief."}),
            ({"role": "user", "content": "Hi", "name": "Ann"}, {"role": "user", "content": "Hi"}),
            (
                {"role": "user", "content": ["Look", PNG]},
                {"role": "user", "content": [{"type": "text", "text": "Look"}, PNG.to_part()]},
            ),
            (
                {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
            ),
            (
                {"role": "user", "content": [Audio(b"ID3")]},
                {"role": "user", "content": [{"type": "input_audio", "input_audio": "SUQz"}]},
            ),
            (
                {"role": "user", "content": [{"type": "input_audio", "input_audio": "https://a.b/c.mp3"}]},
                {"role": "user", "content": [{"type": "input_audio", "input_audio": "https://a.b/c.mp3"}]},
            ),
            (
                {"role": "user", "content": [Document(b"%PDF-", "a.pdf")]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "document_url",
                            "document_url": "data:application/pdf;base64,JVBERi0=",
                            "document_name": "a.pdf",
                        }
                    ],
                },
            ),
            (
                {"role": "user", "content": [{"type": "file", "file": {"file_data": "https://a.b/c.pdf"}}]},
                {"role": "user", "content": [{"type": "document_url", "document_url": "https://a.b/c.pdf"}]},
            ),
            (
                {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
                {"role": "user", "content": [{"type": "file", "file_id": "f"}]},
            ),
            (
                {"role": "user", "content": [{"type": "file", "file_id": "f"}, {"type": "reference", "x": 1}]},
                {"role": "user", "content": [{"type": "file", "file_id": "f"}, {"type": "reference", "x": 1}]},
            ),
            (
                {
                    "role": "assistant",
                    "content": [{"type": "reasoning", "text": "Hm", "signature": "s"}, "Yes"],
                    "prefix": True,
                },
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}], "signature": "s"},
                        {"type": "text", "text": "Yes"},
                    ],
                    "prefix": True,
                },
            ),
            (
                {"role": "assistant", "content": [{"type": "reasoning", "text": "", "redacted": "x"}]},
                {"role": "assistant", "content": ""},
            ),
        ],
    )
    def test_a_turn(self, given: dict[str, Any], sent: dict[str, Any]) -> None:
        """Each part in Mistral's form; a name only where the service accepts one."""
        assert body([given])["messages"] == [sent]

    def test_calls_and_their_results(self) -> None:
        """Foreign ids are replaced in both by the same nine letters and digits."""
        arguments = '{"name": "Oslo"}'
        turns = [
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}},
                    {"id": "D681PevKs", "type": "function", "function": {"name": "weather", "arguments": {}}},
                    {"type": "function", "function": {"name": "weather", "arguments": "{}"}},
                ],
            },
            {"role": "tool", "content": "Rain", "tool_call_id": "call_1", "name": "weather", "is_error": True},
            {"role": "tool", "content": "Snow", "tool_call_id": "D681PevKs"},
        ]
        called, rain, snow = body(turns)["messages"]
        first, second, third = called["tool_calls"]
        assert re.fullmatch("[a-zA-Z0-9]{9}", first["id"])
        assert first["function"] == {"name": "weather", "arguments": arguments}
        assert (second["id"], second["function"]["arguments"]) == ("D681PevKs", "{}")
        assert "id" not in third
        assert rain == {"role": "tool", "content": "Rain", "tool_call_id": first["id"], "name": "weather"}
        assert snow == {"role": "tool", "content": "Snow", "tool_call_id": "D681PevKs"}

    @given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=8, unique=True))
    def test_ids_stay_apart(self, ids: list[str]) -> None:
        """Different ids stay different, the same way in every request."""
        calls = [{"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id in ids]
        turns = [{"role": "assistant", "content": None, "tool_calls": calls}]
        made = [call["id"] for call in body(turns)["messages"][0]["tool_calls"]]
        assert all(re.fullmatch("[a-zA-Z0-9]{9}", id) for id in made)
        assert len(set(made)) == len(ids)
        assert made == [call["id"] for call in body(turns)["messages"][0]["tool_calls"]]

    def test_a_broken_part_is_refused(self) -> None:
        """At the call."""
        with pytest.raises(InvalidRequest, match="input_audio needs 'data'"):
            body([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"format": "wav"}}]}])


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    """An event of the stream."""
    return {"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


CALL = {"id": "D681PevKs", "function": {"name": "weather", "arguments": '{"name": "Oslo"}'}, "index": 0}
THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}

# Name: an event, and its items.
CHUNKS: dict[str, tuple[Any, list[Any]]] = {
    "text": (chunk({"content": "Hi"}), ["Hi"]),
    "text and the end": (
        chunk({"content": "!"}, "stop", usage=USED),
        ["!", Finish("stop", "stop"), COUNTED],
    ),
    "a list of text": (chunk({"content": [{"type": "text", "text": "Hi"}]}), ["Hi"]),
    "thinking": (chunk({"content": [THINKING]}), [Reasoning("Hm")]),
    "thinking with its proof": (
        chunk({"content": [{**THINKING, "signature": "s"}]}),
        [Reasoning("Hm", signature="s")],
    ),
    "thinking and text": (
        chunk({"content": [THINKING, {"type": "text", "text": "Hi"}]}),
        [Reasoning("Hm"), "Hi"],
    ),
    "a reference": (
        chunk({"content": [{"type": "reference", "reference_ids": [1, "b"]}, "!"]}),
        [
            Citation(document="1"),
            Citation(document="b"),
            Other("reference", {"type": "reference", "reference_ids": [1, "b"]}, in_turn=True),
            "!",
        ],
    ),
    "the model's limit": (chunk({"content": ""}, "model_length"), [Finish("length", "model_length")]),
    "the limit": (chunk({"content": ""}, "length"), [Finish("length", "length")]),
    "an error": (chunk({"content": ""}, "error"), [Finish("error", "error")]),
    "a call": (
        chunk({"content": "", "tool_calls": [CALL]}, "tool_calls"),
        [
            ToolCallDelta(0, "D681PevKs", "weather", '{"name": "Oslo"}'),
            Finish("tool_calls", "tool_calls"),
        ],
    ),
    "a call with an object": (
        chunk({"tool_calls": [{"id": "null", "function": {"name": "weather", "arguments": {"name": "Oslo"}}}]}),
        [ToolCallDelta(None, "null", "weather", '{"name": "Oslo"}')],
    ),
}


class TestDecode:
    """Answers."""

    @pytest.mark.parametrize("name", CHUNKS)
    def test_an_event(self, name: str) -> None:
        """The items, in order."""
        data, expected = CHUNKS[name]
        assert list(Mistral.decode(Record(json.dumps(data)))) == expected

    def test_the_end_mark(self) -> None:
        """OpenAI's."""
        assert list(Mistral.decode(Record("[DONE]"))) == [END]

    def test_a_document(self) -> None:
        """The same as a whole answer."""
        message = {"role": "assistant", "content": [THINKING, {"type": "text", "text": "Hi"}], "tool_calls": None}
        document = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": USED}
        assert list(Mistral.decode_document(document)) == [
            Reasoning("Hm"), "Hi", Finish("stop", "stop"), COUNTED, END,
        ]  # fmt: skip

    def test_embeddings(self) -> None:
        """Like OpenAI's, with another name for the dimensions."""
        encoded = Mistral.encode_embeddings("mistral-embed", ["a"], {"dimensions": 64, "output_dtype": "float"})
        assert encoded.path == "/embeddings"
        assert encoded.body == {
            "model": "mistral-embed", "input": ["a"], "output_dimension": 64, "output_dtype": "float",
        }  # fmt: skip
        document = {"data": [{"index": 1, "embedding": [2]}, {"index": 0, "embedding": [1]}], "usage": USED}
        assert Mistral.decode_embeddings(document) == ([[1], [2]], COUNTED)
        with pytest.raises(ProtocolError):
            Mistral.decode_embeddings({})

    def test_models(self) -> None:
        """Like OpenAI's."""
        assert Mistral.models_path == "/models"
        assert Mistral.decode_models({"object": "list", "data": [{"id": "mistral-small-latest"}]}) == [
            "mistral-small-latest"
        ]


def test_it_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """MISTRAL_API_KEY, sent as a Bearer token."""
    monkeypatch.delenv("MISTRAL_API_KEY", raising=False)
    with pytest.raises(MissingKey, match="MISTRAL_API_KEY"):
        Mistral.find_key(None, False)
    monkeypatch.setenv("MISTRAL_API_KEY", "k")
    key = Mistral.find_key(None, False)
    assert key is not None
    assert key.reveal() == "k"
    assert Mistral.auth_headers("k") == {"Authorization": "Bearer k"}
    assert Mistral.resolve_base_url() == "https://api.mistral.ai/v1"


def events(*data: Any) -> bytes:
    """A stream of these events, and the end mark."""
    texts = [one if isinstance(one, str) else json.dumps(one) for one in (*data, "[DONE]")]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def ask(client: Client, server: LLMServer, **params: Any) -> Any:
    """A call with a scripted answer."""
    at = server.base_url("openai")
    return client.chat("Hi", "mistral:m", base_url=at, api_key="k", proxy=False, timeout=20, **params).complete()


@pytest.mark.parametrize("split", [None, 1], ids=["whole", "byte by byte"])
def test_a_reasoning_answer_with_calls(server: LLMServer, split: int | None) -> None:
    """Thinking, text, two whole calls of which one has no id, usage in the last event."""
    calls = [CALL, {"id": "null", "function": {"name": "weather", "arguments": {"name": "Ålesund"}}, "index": 1}]
    answer = events(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": [THINKING]}),
        chunk({"content": "So: "}),
        chunk({"content": "", "tool_calls": calls}, "tool_calls", usage=USED),
    )
    server.script(Reply(body=answer, split=split))
    with Client(retries=0) as client:
        done = ask(client, server, tools=[TOOL], tool_choice="required")
    assert (done.text, done.reasoning, done.finish_reason, done.usage) == ("So: ", "Hm", "tool_calls", COUNTED)
    assert [call.arguments["name"] for call in done.tool_calls] == ["Oslo", "Ålesund"]
    assert done.tool_calls[0].id == "D681PevKs"
    assert re.fullmatch("[a-zA-Z0-9]{9}", done.tool_calls[1].id)
    (received,) = server.requests
    assert received.json == body(tools=[TOOL], tool_choice="required")
    assert received.header("authorization") == "Bearer k"


def test_the_testing_server_speaks_it(server: LLMServer) -> None:
    """Signed thinking that is sent back, calls, structured output, models and embeddings."""
    server.script(
        Reply("So: ", reasoning="Hm", tool_calls=[{"name": "weather", "arguments": {"name": "Oslo"}, "id": "call_1"}]),
        Reply('{"name": "Oslo"}'),
    )
    with Client(retries=0) as client:
        where: dict[str, Any] = {"base_url": server.base_url("mistral"), "api_key": "k", "proxy": False}
        first = client.chat("Hi", "mistral:m", tools=[TOOL], **where).complete()
        assert (first.text, first.reasoning, first.finish_reason) == ("So: ", "Hm", "tool_calls")
        (made,) = first.tool_calls
        result = {"role": "tool", "content": "Rain", "tool_call_id": made.id, "name": "weather"}
        second = client.chat([first, result], "mistral:m", schema=SCHEMA, **where).complete()
        assert second.parsed == {"name": "Oslo"}
        assert client.models("mistral", **where) == ["test-model"]
        assert len(client.embed(["a", "b"], "mistral:m", **where)) == 2
    said_before, answered = server.requests[1].json["messages"]
    assert said_before["content"][0]["thinking"] == [{"type": "text", "text": "Hm"}]
    assert said_before["content"][1] == {"type": "text", "text": "So: "}
    assert said_before["tool_calls"][0]["id"] == answered["tool_call_id"]
    assert re.fullmatch("[a-zA-Z0-9]{9}", answered["tool_call_id"])


def test_a_stream_without_its_end_is_truncated(server: LLMServer) -> None:
    """After all text so far."""
    answer = events(chunk({"content": "Hel"})).replace(b"data: [DONE]\n\n", b"")
    server.script(Reply(body=answer))
    with Client(retries=0) as client, pytest.raises(StreamTruncated) as caught:
        ask(client, server)
    assert caught.value.partial == "Hel"


@pytest.mark.parametrize(
    ("status", "error", "expected", "says"),
    [
        (401, {"detail": "Unauthorized"}, AuthError, "Unauthorized"),
        (
            422,
            {"detail": [{"type": "extra_forbidden", "loc": ["body", "user"], "msg": "Extra inputs are not permitted"}]},
            BadRequest,
            "body.user: Extra inputs are not permitted",
        ),
        (
            400,
            {
                "object": "error",
                "message": "Tool call id was x but must be a-z, A-Z, 0-9, with a length of 9.",
                "type": "invalid_function_call",
                "param": None,
                "code": "3280",
            },
            BadRequest,
            "must be a-z, A-Z, 0-9",
        ),
        (
            429,
            {
                "object": "error",
                "message": "Rate limit exceeded",
                "type": "rate_limited",
                "param": None,
                "code": "1300",
            },
            RateLimited,
            "Rate limit exceeded",
        ),
    ],
)
def test_errors(server: LLMServer, status: int, error: Any, expected: type[ServiceError], says: str) -> None:
    """The service's forms give the right classes."""
    server.script(Reply(body=json.dumps(error), status=status))
    with Client(retries=0) as client, pytest.raises(expected) as caught:
        ask(client, server)
    assert says in str(caught.value)
    assert (caught.value.provider, caught.value.status) == ("mistral", status)
