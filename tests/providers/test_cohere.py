"""Cohere's dialect: requests, events and recordings, as tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
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
    LLMBridgeError,
    MissingKey,
    ProtocolError,
    RateLimited,
    Reasoning,
    ServiceError,
    StreamTruncated,
    Usage,
)
from llmbridge._call.framing import Record
from llmbridge.events import END, Citation, Logprobs, Other, ToolCallDelta
from llmbridge.messages import ChatRequest
from llmbridge.parts import Audio, Document, Image
from llmbridge.providers.cohere import Cohere
from llmbridge.testing import CLOSE, LLMServer, Reply

DATA = Path(__file__).parent.parent / "data" / "transcripts" / "aimock"
SCHEMA = {"title": "city", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "Of a city", "parameters": SCHEMA}}
OTHER = {"type": "function", "function": {"name": "other", "parameters": SCHEMA}}


def body(messages: Any = "Hi", **params: Any) -> dict[str, Any]:
    """The body of a request."""
    return dict(Cohere.encode(ChatRequest.checked("m", messages, params)).body)


def turns(*given: dict[str, Any]) -> Any:
    """The messages in the body."""
    return body(list(given))["messages"]


class TestParameters:
    """The place of each parameter."""

    def test_a_plain_request(self) -> None:
        """Model, messages, and a stream."""
        encoded = Cohere.encode(ChatRequest.checked("m", "Hi", {}))
        assert encoded.path == "/v2/chat"
        assert encoded.body == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}

    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            ({"temperature": 0, "max_tokens": 5, "seed": 1, "logprobs": True, "safety_mode": "STRICT"},) * 2,
            ({"presence_penalty": 0.5, "frequency_penalty": 0.5, "documents": ["a"], "wibble": [1]},) * 2,
            ({"top_p": 0.5, "top_k": 3}, {"p": 0.5, "k": 3}),
            ({"top_p": 0.5, "p": 0.6}, {"p": 0.6}),
            ({"p": 0.6, "top_p": 0.5}, {"p": 0.6}),
            ({"top_p": None}, {}),
            ({"max_completion_tokens": 5}, {"max_tokens": 5}),
            ({"stop": "a"}, {"stop_sequences": ["a"]}),
            ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
            ({"stop": "a", "stop_sequences": ["b"]}, {"stop_sequences": ["b"]}),
            ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
            ({"reasoning_effort": "high"}, {"thinking": {"type": "enabled"}}),
            ({"reasoning_effort": 100}, {"thinking": {"type": "enabled", "token_budget": 100}}),
            ({"reasoning_effort": 0}, {"thinking": {"type": "disabled"}}),
            ({"reasoning_effort": None}, {}),
            ({"response_format": {"type": "json_object", "json_schema": SCHEMA}},) * 2,
            ({"response_format": {"type": "text"}},) * 2,
            (
                {"response_format": {"type": "json_schema", "json_schema": {"name": "c", "schema": SCHEMA}}},
                {"response_format": {"type": "json_object", "json_schema": SCHEMA}},
            ),
            ({"stream": False},) * 2,
        ],
    )
    def test_parameters(self, params: dict[str, Any], expected: dict[str, Any]) -> None:
        """They get Cohere's names; its own names win, and unknown ones are sent unchanged."""
        sent = body(**params)
        assert sent == {"model": "m", "messages": sent["messages"], "stream": True, **expected}

    @pytest.mark.parametrize("effort", ["bogus", "", True, False, -1, 1.5, ["low"]])
    def test_an_effort_that_means_nothing_is_refused(self, effort: Any) -> None:
        """The error lists the values."""
        with pytest.raises(InvalidRequest, match=r"reasoning_effort must be one of none, .*max, or a number of tokens"):
            body(reasoning_effort=effort)

    def test_what_is_refused(self) -> None:
        """What Cohere does not support, unless it has the default value."""
        many = {"n": 2, "logit_bias": {}, "top_logprobs": 1, "user": "u", "metadata": {}, "parallel_tool_calls": False}
        assert set(Cohere.refusals(ChatRequest.checked("m", "Hi", many))) == set(many)
        few = {"n": 1, "parallel_tool_calls": True, "seed": 1}
        assert Cohere.refusals(ChatRequest.checked("m", "Hi", few)) == {}


class TestStructure:
    """Tools and structured output."""

    @pytest.mark.parametrize(
        ("choice", "sent", "names"),
        [
            (None, None, ["weather", "other"]),
            ("auto", None, ["weather", "other"]),
            ("none", "NONE", ["weather", "other"]),
            ("required", "REQUIRED", ["weather", "other"]),
            ("other", "REQUIRED", ["other"]),
        ],
    )
    def test_tools(self, choice: str | None, sent: str | None, names: list[str]) -> None:
        """A tool that must be called is the only one sent, as Cohere's tool_choice cannot name one."""
        made = body(tools=[WEATHER, OTHER], tool_choice=choice)
        assert made.get("tool_choice") == sent
        assert [tool["function"]["name"] for tool in made["tools"]] == names
        assert made["tools"][-1] == OTHER
        assert "strict_tools" not in made

    def test_strict_tools(self) -> None:
        """Cohere has one setting for all tools."""
        strict = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}}
        made = body(tools=[strict])
        assert made["strict_tools"] is True
        assert "strict" not in made["tools"][0]["function"]
        assert body(tools=[strict], strict_tools=False)["strict_tools"] is False

    def test_a_schema(self) -> None:
        """As a response format."""
        form = body(schema=SCHEMA)["response_format"]
        assert form["type"] == "json_object"
        assert form["json_schema"]["properties"] == SCHEMA["properties"]
        assert Cohere.answer_tool(ChatRequest.checked("m", "Hi", {"schema": SCHEMA})) is None

    def test_a_schema_beside_tools(self) -> None:
        """A response format is not allowed there, so the answer becomes a tool."""
        params = {"schema": SCHEMA, "tools": [WEATHER]}
        made = body(**params)
        assert [tool["function"]["name"] for tool in made["tools"]] == ["weather", "city"]
        assert made["tool_choice"] == "REQUIRED"
        assert "response_format" not in made
        assert Cohere.answer_tool(ChatRequest.checked("m", "Hi", params)) == "city"

    def test_a_schema_in_the_prompt(self) -> None:
        """JSON mode, with the schema in the prompt."""
        made = body(schema=SCHEMA, schema_mode="json")
        assert made["response_format"] == {"type": "json_object"}
        assert made["messages"][0]["role"] == "system"


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"name": "Oslo"}'}}
PNG = Image(b"\x89PNG\r\n\x1a\n")


class TestMessages:
    """Messages in the body."""

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            ({"role": "developer", "content": "Be brief."}, {"role": "system", "content": "Be brief."}),
            ({"role": "user", "content": ["a", "b"]}, {"role": "user", "content": "ab"}),
            ({"role": "user", "content": "a", "name": "Ann"}, {"role": "user", "content": "a"}),
            ({"role": "assistant", "content": "a", "name": "Bot"}, {"role": "assistant", "content": "a"}),
            (
                {"role": "user", "content": ["Look", PNG, Image("https://a.b/c.png", "low")]},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look"},
                        PNG.to_part(),
                        {"type": "image_url", "image_url": {"url": "https://a.b/c.png", "detail": "low"}},
                    ],
                },
            ),
            (
                {"role": "user", "content": [{"type": "document", "document": {"data": "x"}}]},
                {"role": "user", "content": [{"type": "document", "document": {"data": "x"}}]},
            ),
            (
                {"role": "assistant", "content": [{"type": "reasoning", "text": "Hm"}, "Yes"]},
                {"role": "assistant", "content": "Yes"},
            ),
            (
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "assistant", "tool_calls": [CALL]},
            ),
            (
                {"role": "assistant", "content": [{"type": "reasoning", "text": "Hm"}], "tool_calls": [CALL]},
                {"role": "assistant", "tool_calls": [CALL], "tool_plan": "Hm"},
            ),
            (
                {"role": "assistant", "content": "So:", "tool_calls": [CALL], "tool_plan": "Own"},
                {"role": "assistant", "content": "So:", "tool_calls": [CALL], "tool_plan": "Own"},
            ),
            (
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": "ü"}}}],
                },
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": "ü"}'}}
                    ],
                },
            ),
            (
                {"role": "tool", "content": "Rain", "tool_call_id": "c1", "name": "weather", "is_error": True},
                {"role": "tool", "content": "Rain", "tool_call_id": "c1"},
            ),
        ],
    )
    def test_a_turn(self, given: dict[str, Any], sent: dict[str, Any]) -> None:
        """Text as a str, images beside it, calls with the plan before them."""
        assert turns(given) == [sent]

    @pytest.mark.parametrize(
        ("part", "says"),
        [
            (Audio(b"ID3"), "messages[0]: content[1]: Cohere does not accept audio"),
            ({"type": "input_audio"}, "messages[0]: content[1]: "),
            (Document(b"%PDF-"), "messages[0]: content[1]: Cohere accepts documents only as text"),
        ],
    )
    def test_parts_that_have_no_place(self, part: Any, says: str) -> None:
        """An error at the call names them, and says what to do."""
        with pytest.raises(InvalidRequest) as caught:
            turns({"role": "user", "content": ["x", part]})
        assert says in str(caught.value)


def event(kind: str, delta: Any = None, **more: Any) -> dict[str, Any]:
    """An event of the stream."""
    return {"type": kind, "delta": delta, **more}


def content(**fields: Any) -> dict[str, Any]:
    """The delta of an event with content."""
    return {"message": {"content": fields}}


def called(index: int = 0, **fields: Any) -> dict[str, Any]:
    """An event that starts or continues a call."""
    return event("tool-call-delta", {"message": {"tool_calls": fields}}, index=index)


USAGE = {"billed_units": {"input_tokens": 5, "output_tokens": 7}, "tokens": {"input_tokens": 11.0, "output_tokens": 7}}
COUNTED = Usage(11, 7, 18)


def end(reason: Any, **more: Any) -> dict[str, Any]:
    """The last event."""
    return event("message-end", {"finish_reason": reason, **more})


# Name: an event, and its items.
EVENTS: dict[str, tuple[Any, list[Any]]] = {
    "the start": (event("message-start", {"message": {"role": "assistant", "content": []}}, id="x"), []),
    "the start of content": (event("content-start", content(type="text", text=""), index=0), []),
    "text": (event("content-delta", content(text="Hi"), index=0), ["Hi"]),
    "text with its type": (event("content-delta", content(type="text", text="世界"), index=0), ["世界"]),
    "an empty text": (event("content-delta", content(text="")), []),
    "text in the start": (event("content-start", content(type="text", text="Hi")), ["Hi"]),
    "thinking": (event("content-delta", content(thinking="Hm")), [Reasoning("Hm")]),
    "thinking and text": (event("content-delta", content(thinking="Hm", text="Hi")), [Reasoning("Hm"), "Hi"]),
    "log-probabilities": (
        event("content-delta", content(text="Hi"), logprobs={"text": "Hi", "logprobs": [-0.1]}),
        ["Hi", Logprobs(({"text": "Hi", "logprobs": [-0.1]},))],
    ),
    "the end of content": (event("content-end", index=0), []),
    "a plan": (event("tool-plan-delta", {"message": {"tool_plan": "I will"}}), [Reasoning("I will")]),
    "the start of a call": (
        event(
            "tool-call-start",
            {"message": {"tool_calls": {"id": "c1", "function": {"name": "add", "arguments": ""}}}},
            index=1,
        ),
        [ToolCallDelta(1, "c1", "add", "")],
    ),
    "a piece of a call": (called(0, function={"arguments": '{"a"'}), [ToolCallDelta(0, None, None, '{"a"')]),
    "the end of a call": (event("tool-call-end", index=0), [ToolCallDelta(0, whole=True)]),
    "a citation": (event("citation-start", {"message": {"citations": {"text": "Hi"}}}, index=0), [Citation()]),
    "the end": (end("COMPLETE", usage=USAGE), [COUNTED, Finish("stop", "COMPLETE"), END]),
    "the end at a stop sequence": (end("STOP_SEQUENCE"), [Finish("stop", "STOP_SEQUENCE"), END]),
    "the end by the limit": (end("MAX_TOKENS"), [Finish("length", "MAX_TOKENS"), END]),
    "the end for calls": (end("TOOL_CALL"), [Finish("tool_calls", "TOOL_CALL"), END]),
    "the end in an error": (end("ERROR"), [Finish("error", "ERROR"), END]),
    "the end by time": (end("TIMEOUT"), [Finish("error", "TIMEOUT"), END]),
    "an end that is new": (end("SURPRISE"), [Finish("other", "SURPRISE"), END]),
    "an end without a reason": (event("message-end"), [END]),
    "billed tokens alone": (
        end("COMPLETE", usage={"billed_units": {"input_tokens": 5, "output_tokens": 7}}),
        [Usage(5, 7, 12), Finish("stop", "COMPLETE"), END],
    ),
    "cached tokens": (
        end("COMPLETE", usage={**USAGE, "cached_tokens": 3}),
        [Usage(11, 7, 18, cached_input_tokens=3), Finish("stop", "COMPLETE"), END],
    ),
    "counts that are none": (
        end("COMPLETE", usage={"tokens": {"input_tokens": "5", "output_tokens": -1}}),
        [Finish("stop", "COMPLETE"), END],
    ),
    "something new": (event("surprise", {"a": 1}), [Other("surprise", event("surprise", {"a": 1}))]),
}


class TestDecode:
    """The content of an event."""

    @pytest.mark.parametrize("name", EVENTS)
    def test_an_event(self, name: str) -> None:
        """The items, in order, whatever the event's name is; its type is in the data."""
        data, expected = EVENTS[name]
        for text in (json.dumps(data), f" {json.dumps(data, ensure_ascii=False)} "):
            assert list(Cohere.decode(Record(text, data["type"]))) == expected
            assert list(Cohere.decode(Record(text))) == expected

    @pytest.mark.parametrize("text", ["", " ", "[DONE]"])
    def test_what_says_nothing(self, text: str) -> None:
        """A heartbeat, and the end mark that gateways add."""
        assert list(Cohere.decode(Record(text))) == []

    @pytest.mark.parametrize(
        ("data", "name", "error", "says"),
        [
            ({"message": "internal server error"}, "message", ServiceError, "internal server error"),
            ({"message": "boom"}, "error", ServiceError, "boom"),
            ({"error": {"message": "boom", "code": 429}}, "message", RateLimited, "boom"),
            (end("ERROR", error="generation failed"), "message", ServiceError, "generation failed"),
            ([], "message", ProtocolError, "JSON object in .*, got list"),
            (None, "message", ProtocolError, "JSON object in .*, got NoneType"),
        ],
    )
    def test_errors(self, data: Any, name: str, error: type[LLMBridgeError], says: str) -> None:
        """An error in the stream, and anything but Cohere's events."""
        with pytest.raises(error, match=says):
            list(Cohere.decode(Record(json.dumps(data), name)))

    def test_a_document(self) -> None:
        """The same as a whole answer."""
        document = {
            "id": "x",
            "finish_reason": "TOOL_CALL",
            "message": {
                "role": "assistant",
                "tool_plan": "I will",
                "content": [{"type": "thinking", "thinking": "Hm"}, {"type": "text", "text": "Hi"}],
                "tool_calls": [CALL, {"id": "c2", "function": {"name": "other", "arguments": "{}"}}],
            },
            "usage": USAGE,
            "logprobs": [{"text": "Hi"}],
        }
        assert list(Cohere.decode_document(document)) == [
            Reasoning("I will"),
            Reasoning("Hm"),
            "Hi",
            ToolCallDelta(0, "c1", "weather", '{"name": "Oslo"}'),
            ToolCallDelta(1, "c2", "other", "{}"),
            Logprobs(({"text": "Hi"},)),
            COUNTED,
            Finish("tool_calls", "TOOL_CALL"),
            END,
        ]
        assert list(Cohere.decode_document({"message": {"content": "Hi"}})) == ["Hi", END]

    @pytest.mark.parametrize(
        ("document", "error"),
        [
            ({"message": "invalid api token"}, ServiceError),
            ({"error": "boom"}, ServiceError),
            ({"status": "ok"}, ProtocolError),
            ([], ProtocolError),
            (None, ProtocolError),
        ],
    )
    def test_no_answer(self, document: Any, error: type[LLMBridgeError]) -> None:
        """An error document, and anything but Cohere's."""
        with pytest.raises(error):
            list(Cohere.decode_document(document))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.sampled_from(["", "COMPLETE", "Hi"]),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(
                        "message content text thinking tool_plan tool_calls function name arguments id index error "
                        "usage tokens billed_units input_tokens output_tokens finish_reason logprobs".split()
                    ),
                    inner,
                    max_size=5,
                )
            ),
            max_leaves=12,
        ),
        st.sampled_from(["content-start", "content-delta", "tool-plan-delta", "tool-call-delta", "message-end", "x"]),
    )
    def test_any_event_is_items_or_an_error_of_the_tree(self, value: Any, kind: str) -> None:
        """No KeyError, no TypeError, no empty piece."""
        decoders: list[Callable[[], Iterable[Any]]] = [
            lambda: Cohere.decode(Record(json.dumps({"type": kind, "delta": value, "index": 0}))),
            lambda: Cohere.decode(Record(json.dumps(value))),
            lambda: Cohere.decode_document(value),
        ]
        for decode in decoders:
            try:
                found = list(decode())
            except LLMBridgeError:
                continue
            assert all(item != "" for item in found)


class TestModelsAndEmbeddings:
    """The other two endpoints."""

    def test_models(self) -> None:
        """All on one page."""
        assert Cohere.models_path == "/v1/models?page_size=1000"
        assert Cohere.decode_models({"models": [{"name": "command-a-03-2025"}, {"name": 5}, None]}) == [
            "command-a-03-2025"
        ]
        with pytest.raises(ProtocolError, match="not a list"):
            Cohere.decode_models({})

    def test_what_asks_for_embeddings(self) -> None:
        """For documents, as numbers, unless the caller says otherwise."""
        encoded = Cohere.encode_embeddings("m", ["a"], {"dimensions": 256, "input_type": "search_query"})
        assert encoded.path == "/v2/embed"
        assert encoded.body == {
            "model": "m",
            "texts": ["a"],
            "input_type": "search_query",
            "embedding_types": ["float"],
            "output_dimension": 256,
        }

    def test_embeddings(self) -> None:
        """The vectors, and the billed tokens."""
        document = {
            "embeddings": {"float": [[1, 0.5], [2, 3]]}, "meta": {"billed_units": {"input_tokens": 4}},
        }  # fmt: skip
        assert Cohere.decode_embeddings(document) == ([[1, 0.5], [2, 3]], Usage(4))
        assert Cohere.decode_embeddings({"embeddings": [[1]]}) == ([[1]], None)

    @pytest.mark.parametrize(
        ("document", "error"),
        [
            ({"message": "texts must not be empty"}, ServiceError),
            ({"embeddings": {"base64": ["AAAA"]}}, ProtocolError),
            ({"embeddings": {}}, ProtocolError),
            ({}, ProtocolError),
            (None, ProtocolError),
        ],
    )
    def test_no_embeddings(self, document: Any, error: type[LLMBridgeError]) -> None:
        """A document without embeddings."""
        with pytest.raises(error):
            Cohere.decode_embeddings(document)


def test_it_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """COHERE_API_KEY, or the variable of Cohere's own client."""
    for name in ("COHERE_API_KEY", "CO_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(MissingKey, match="COHERE_API_KEY or CO_API_KEY"):
        Cohere.find_key(None, False)
    monkeypatch.setenv("CO_API_KEY", "k")
    assert Cohere.find_key(None, False) is not None


def ask(client: Client, server: LLMServer, **params: Any) -> Any:
    """A call with a scripted answer."""
    return client.chat("Hi", "cohere:m", base_url=server.root, api_key="k", proxy=False, timeout=20, **params)


@pytest.mark.parametrize("split", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", ["text", "tool"])
def test_recordings(server: LLMServer, name: str, split: int | None) -> None:
    """The recorded bytes give the recorded answer, however they arrive."""
    server.script(Reply(raw=[(DATA / f"cohere_{name}.txt").read_bytes()], split=split))
    with Client(retries=0) as client:
        answer = ask(client, server).complete()
    assert answer.usage == Usage(0, 0, 0)
    if name == "text":
        assert (answer.text, answer.reasoning) == ("Hello from a real server. Grüße, 世界 🌍!", "")
        assert (answer.finish_reason, answer.raw_finish_reason) == ("stop", "COMPLETE")
        return
    assert (answer.text, answer.reasoning) == ("", "I will use the requested tool.")
    assert (answer.finish_reason, answer.raw_finish_reason) == ("tool_calls", "TOOL_CALL")
    (call,) = answer.tool_calls
    assert (call.id, call.name) == ("call_peer_0", "get_weather")
    assert call.arguments == {"city": "San Francisco", "unit": "fahrenheit"}


@pytest.mark.parametrize("name", ["text", "tool"])
def test_a_recording_cut_anywhere_is_truncated(server: LLMServer, name: str) -> None:
    """A cut before its end is an error, after all text so far."""
    raw = (DATA / f"cohere_{name}.txt").read_bytes()
    cuts = range(raw.index(b"\r\n\r\n") + 10, raw.index(b"message-end"), 97)
    server.script(*(Reply(raw=[raw[:cut], CLOSE]) for cut in cuts))
    with Client(retries=0) as client:
        for _ in cuts:
            with pytest.raises(StreamTruncated) as caught:
                ask(client, server).complete()
            assert "Hello from a real server. Grüße, 世界 🌍!".startswith(caught.value.partial)


def test_what_is_encoded_is_what_is_sent(server: LLMServer) -> None:
    """With the key in the header."""
    server.script(Reply(raw=[(DATA / "cohere_text.txt").read_bytes()]))
    with Client(retries=0) as client:
        ask(client, server, top_p=0.5, tools=[WEATHER]).complete()
    (received,) = server.requests
    assert (received.method, received.path) == ("POST", "/v2/chat")
    assert received.json == body(top_p=0.5, tools=[WEATHER])
    assert received.header("authorization") == "Bearer k"


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "invalid request: all elements in history must have a message", BadRequest),
        (401, "invalid api token", AuthError),
        (422, "unknown field: parameter 'wibble' is not a valid field", BadRequest),
        (429, "You are using a Trial key, which is limited to 20 API calls / minute", RateLimited),
    ],
)
def test_errors(server: LLMServer, status: int, message: str, expected: type[ServiceError]) -> None:
    """Cohere's plain form gives the classes of the statuses."""
    server.script(Reply(body=json.dumps({"id": "x", "message": message}), status=status))
    with Client(retries=0) as client, pytest.raises(expected) as caught:
        ask(client, server).complete()
    assert message in str(caught.value)
