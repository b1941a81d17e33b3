"""Ollama's own dialect: requests, lines and recordings, as tables."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import (
    AuthError,
    Client,
    ConfigError,
    Finish,
    InvalidRequest,
    LLMBridgeError,
    MissingKey,
    NotFound,
    ProtocolError,
    RateLimited,
    Reasoning,
    ServerError,
    ServiceError,
    StreamTruncated,
    Tool,
    UnsupportedParameter,
    Usage,
)
from llmbridge._call.framing import NDJSON, Record
from llmbridge.events import END, Logprobs, Other, ToolCallDelta
from llmbridge.messages import ChatRequest
from llmbridge.parts import Audio, Document, Image
from llmbridge.providers.ollama import Ollama, _Reader, host_url
from llmbridge.secret import Secret
from llmbridge.testing import CLOSE, LLMServer, Reply

DATA = Path(__file__).parent.parent / "data" / "transcripts"
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "weather", "description": "Of a city", "parameters": WEATHER}}


@pytest.fixture(autouse=True)
def _no_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the developer's Ollama."""
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    monkeypatch.delenv("OLLAMA_API_KEY", raising=False)


def body(messages: Any = "Hi", **params: Any) -> dict[str, Any]:
    """The body of a request."""
    return dict(Ollama.encode(ChatRequest.checked("m", messages, params)).body)


class TestParameters:
    """The place of each parameter."""

    def test_a_plain_request(self) -> None:
        """Model, messages, and a stream."""
        encoded = Ollama.encode(ChatRequest.checked("llama3.2", "Hi", {}))
        assert encoded.path == "/api/chat"
        assert encoded.body == {
            "model": "llama3.2",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
        }

    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            ({"max_tokens": 5}, {"num_predict": 5}),
            ({"max_completion_tokens": 5}, {"num_predict": 5}),
            ({"max_tokens": 5, "num_predict": 6}, {"num_predict": 6}),
            ({"num_predict": 6, "max_tokens": 5}, {"num_predict": 6}),
            ({"temperature": 0, "top_p": 0.5, "top_k": 3}, {"temperature": 0, "top_p": 0.5, "top_k": 3}),
            ({"stop": "end"}, {"stop": ["end"]}),
            ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
            ({"seed": 1, "presence_penalty": 1, "frequency_penalty": 2},) * 2,
            ({"num_ctx": 8192, "min_p": 0.1, "num_gpu": 0, "repeat_penalty": 1.1, "mirostat": 2},) * 2,
            ({"options": {"num_ctx": 1, "stop": "x"}}, {"num_ctx": 1, "stop": ["x"]}),
            ({"options": {"num_predict": 7}, "max_tokens": 5, "seed": 2}, {"num_predict": 7, "seed": 2}),
            ({"temperature": 1, "options": {"temperature": 0}}, {"temperature": 0}),
            ({"options": {}}, None),
            ({"options": None, "max_tokens": None}, None),
        ],
    )
    def test_options(self, params: dict[str, Any], expected: Any) -> None:
        """Model options are in `options`, under Ollama's names; Ollama's own spelling wins."""
        sent = body(**params)
        assert sent.get("options") == expected
        assert set(sent) <= {"model", "messages", "stream", "options"}

    @pytest.mark.parametrize(
        ("params", "expected"),
        [
            ({"reasoning_effort": "none"}, {"think": False}),
            ({"reasoning_effort": "minimal"}, {"think": "low"}),
            ({"reasoning_effort": "low"}, {"think": "low"}),
            ({"reasoning_effort": "medium"}, {"think": "medium"}),
            ({"reasoning_effort": "high"}, {"think": "high"}),
            ({"reasoning_effort": "xhigh"}, {"think": "max"}),
            ({"reasoning_effort": "max"}, {"think": "max"}),
            ({"reasoning_effort": "odd"}, {"think": "odd"}),
            ({"reasoning_effort": True}, {"think": True}),
            ({"reasoning_effort": "low", "think": True}, {"think": True}),
            ({"think": False, "reasoning_effort": "low"}, {"think": False}),
            ({"think": "high"}, {"think": "high"}),
            ({"reasoning_effort": None}, {}),
            ({"response_format": {"type": "json_object"}}, {"format": "json"}),
            ({"response_format": {"type": "text"}}, {}),
            (
                {"response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}},
                {"format": WEATHER},
            ),
            ({"response_format": {"type": "json_object"}, "format": WEATHER}, {"format": WEATHER}),
            ({"format": "json"}, {"format": "json"}),
            ({"keep_alive": -1, "truncate": False, "logprobs": True, "top_logprobs": 2},) * 2,
            ({"wibble": [1], "stream": False},) * 2,
        ],
    )
    def test_beside_the_options(self, params: dict[str, Any], expected: dict[str, Any]) -> None:
        """All others are beside them; unknown ones are sent unchanged."""
        sent = body(**params)
        assert "options" not in sent
        assert {**sent, "model": "m"} == {"model": "m", "messages": sent["messages"], "stream": True, **expected}

    @pytest.mark.parametrize(
        ("params", "says"),
        [
            ({"response_format": {"type": "grammar"}}, "pass Ollama's own form as format="),
            ({"response_format": {"type": "json_schema"}}, "response_format must be"),
            ({"response_format": "json"}, "response_format must be"),
            ({"options": 5}, "options must be a mapping, like {'num_ctx': 8192}"),
        ],
    )
    def test_what_cannot_be_translated(self, params: dict[str, Any], says: str) -> None:
        """An error at the call says what to do instead."""
        with pytest.raises(InvalidRequest) as caught:
            body(**params)
        assert says in str(caught.value)

    @pytest.mark.parametrize(
        ("params", "names"),
        [
            ({"n": 2, "user": "u", "metadata": {}, "logit_bias": {}}, {"n", "user", "metadata", "logit_bias"}),
            ({"parallel_tool_calls": False}, {"parallel_tool_calls"}),
            ({"reasoning_effort": 1024}, {"reasoning_effort"}),
            ({"reasoning_effort": True}, set()),
            ({"n": 1, "parallel_tool_calls": True}, set()),
            ({"temperature": 1, "wibble": 1}, set()),
        ],
    )
    def test_what_ollama_does_not_know(self, params: dict[str, Any], names: set[str]) -> None:
        """Ollama would ignore it silently, so it is refused unless it is the default."""
        assert set(Ollama.refusals(ChatRequest.checked("m", "Hi", params))) == names


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
CALLED = {"id": "c1", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
PNG = b"\x89PNG\r\n\x1a\n"
PNG_64 = "iVBORw0KGgo="


class TestMessages:
    """Messages in the body."""

    @pytest.mark.parametrize(
        ("given", "sent"),
        [
            ([{"role": "developer", "content": "Be brief."}], [{"role": "system", "content": "Be brief."}]),
            ([{"role": "user", "content": ["a", {"type": "text", "text": "b"}]}], [{"role": "user", "content": "ab"}]),
            (
                [{"role": "user", "content": ["Look: ", Image(PNG), Image(PNG)]}],
                [{"role": "user", "content": "Look: ", "images": [PNG_64, PNG_64]}],
            ),
            (
                [{"role": "assistant", "content": [{"type": "reasoning", "text": "Hm.", "signature": "s"}, "Yes."]}],
                [{"role": "assistant", "content": "Yes.", "thinking": "Hm."}],
            ),
            (
                [{"role": "assistant", "content": [{"type": "reasoning", "text": "", "redacted": "x"}, "Yes."]}],
                [{"role": "assistant", "content": "Yes."}],
            ),
            (
                [{"role": "assistant", "content": None, "tool_calls": [CALL]}],
                [{"role": "assistant", "content": "", "tool_calls": [CALLED]}],
            ),
            (
                [
                    {"role": "assistant", "content": "Well.", "tool_calls": [CALL]},
                    {"role": "tool", "content": "Rain", "tool_call_id": "c1"},
                ],
                [
                    {"role": "assistant", "content": "Well.", "tool_calls": [CALLED]},
                    {"role": "tool", "content": "Rain", "tool_call_id": "c1", "tool_name": "weather"},
                ],
            ),
            (
                [{"role": "tool", "content": "No", "tool_call_id": "c9", "name": "snow", "is_error": True}],
                [{"role": "tool", "content": "No", "tool_call_id": "c9", "tool_name": "snow"}],
            ),
            (
                [{"role": "tool", "content": "No", "tool_name": "snow"}],
                [{"role": "tool", "content": "No", "tool_name": "snow"}],
            ),
            (
                [{"role": "user", "content": "Hi", "images": [PNG_64], "name": "Ann"}],
                [{"role": "user", "content": "Hi", "images": [PNG_64]}],
            ),
        ],
    )
    def test_turns(self, given: list[Any], sent: list[dict[str, Any]]) -> None:
        """Text, images, thinking and calls have their own fields; arguments are objects."""
        assert body(given)["messages"] == sent

    def test_broken_arguments_of_a_call_are_an_empty_object(self) -> None:
        """Ollama requires an object there."""
        call = {"function": {"name": "weather", "arguments": '{"city": '}}
        (message,) = body([{"role": "assistant", "content": None, "tool_calls": [call]}])["messages"]
        assert message["tool_calls"] == [{"function": {"name": "weather", "arguments": {}}}]

    @pytest.mark.parametrize(
        ("part", "says"),
        [
            (Image("https://example.com/cat.png"), "pass the image's bytes or a path"),
            (Audio(b"ID3"), "transcribe it and send the text"),
            (Document(b"%PDF-"), "send their text, or images of their pages"),
            ({"type": "video", "video": {}}, "not a part of type 'video'"),
            ({"type": "file", "file": {"file_id": "f"}}, "not a part of type 'file'"),
            ({"type": "image_url"}, "an image_url part needs"),
        ],
    )
    def test_parts_that_have_no_place(self, part: Any, says: str) -> None:
        """An error at the call names them, and says what to do."""
        with pytest.raises(InvalidRequest) as caught:
            body([{"role": "user", "content": "Hi"}, {"role": "user", "content": ["Look: ", part]}])
        assert says in str(caught.value)
        assert "messages[1]: content[1]: " in str(caught.value)

    def test_the_request_is_left_alone(self) -> None:
        """It may be sent again, elsewhere."""
        asked = ChatRequest.checked("m", [{"role": "assistant", "content": None, "tool_calls": [CALL]}], {"stop": "x"})
        before = copy.deepcopy(asked)
        Ollama.encode(asked)
        assert asked == before


class TestStructure:
    """Tools and structured output."""

    def test_tools(self) -> None:
        """OpenAI's form."""
        assert body(tools=[TOOL])["tools"] == [TOOL]
        assert body(tools=[TOOL], tool_choice="auto")["tools"] == [TOOL]
        assert "tool_choice" not in body(tools=[TOOL], tool_choice="auto")

    def test_no_tools_are_sent_where_none_may_be_called(self) -> None:
        """Ollama has no tool_choice."""
        sent = body(tools=[TOOL], tool_choice="none")
        assert "tools" not in sent
        assert "tool_choice" not in sent

    @pytest.mark.parametrize("choice", ["required", "weather", {"type": "any"}])
    def test_no_tool_can_be_demanded(self, choice: Any) -> None:
        """The error says what to do; like any parameter, it can be left out."""
        with LLMServer() as server, Client("ollama:m", base_url=server.root, retries=0) as client:
            with pytest.raises(InvalidRequest, match=r"tool_choice: .* use 'auto' or 'none'"):
                client.chat("Hi", tools=[TOOL], tool_choice=choice)
            with pytest.warns(UnsupportedParameter, match="tool_choice"):
                client.chat("Hi", tools=[TOOL], tool_choice=choice, unsupported="warn").complete()
            client.chat("Hi", tools=[TOOL], tool_choice=choice, unsupported="drop").complete()
            assert [sent.json["tools"] for sent in server.requests] == [[TOOL], [TOOL]]

    @pytest.mark.parametrize("choice", [None, "auto", "none"])
    def test_what_ollama_does_anyway_is_not_refused(self, choice: Any) -> None:
        """Nor is "none", as no tools are sent then."""
        assert Ollama.refusals(ChatRequest.checked("m", "Hi", {"tools": [TOOL], "tool_choice": choice})) == {}

    @pytest.mark.parametrize("mode", [None, "json"])
    def test_a_schema_beside_tools_goes_into_the_prompt(self, mode: Any) -> None:
        """A format would keep the model from calling them."""
        sent = body(schema=WEATHER, schema_mode=mode, tools=[TOOL])
        assert "format" not in sent
        assert sent["tools"] == [TOOL]
        assert '"city"' in sent["messages"][0]["content"]

    def test_a_schema_is_the_format_where_no_tool_may_be_called(self) -> None:
        """And if the caller insists."""
        asked: dict[str, Any] = {"schema": WEATHER, "tools": [TOOL]}
        form = body(schema=WEATHER)["format"]
        assert body(**asked, tool_choice="none")["format"] == form
        assert body(**asked, schema_mode="native")["format"] == form
        assert len(body(**asked, schema_mode="native")["messages"]) == 1

    def test_a_schema_is_the_format(self) -> None:
        """Ollama enforces it."""
        sent = body(schema=WEATHER)
        assert sent["format"]["properties"] == WEATHER["properties"]
        assert len(sent["messages"]) == 1
        assert body(schema=WEATHER, schema_mode="native")["format"] == sent["format"]
        assert Ollama.answer_tool(ChatRequest.checked("m", "Hi", {"schema": WEATHER})) is None

    def test_a_pattern_goes_into_the_description(self) -> None:
        """Ollama's grammars support few of them, and the request fails at the others."""
        plate = {"title": "plate", "type": "object", "properties": {"plate": {"type": "string", "pattern": "[0-9]"}}}
        sent = body(schema=plate)
        told = {"plate": {"type": "string", "description": "(pattern: [0-9])"}}
        assert sent["format"]["properties"] == told
        tool = Tool("register", "Registers a car.", plate)
        assert body(tools=[tool])["tools"][0]["function"]["parameters"]["properties"] == told

    def test_a_schema_in_the_prompt(self) -> None:
        """JSON mode, with the schema in the prompt."""
        sent = body(schema=WEATHER, schema_mode="json")
        assert sent["format"] == "json"
        assert sent["messages"][0]["role"] == "system"
        assert '"city"' in sent["messages"][0]["content"]

    def test_a_schema_cannot_be_a_tool(self) -> None:
        """Ollama cannot be made to call one."""
        with pytest.raises(InvalidRequest, match="use 'native' or 'json'"):
            body(schema=WEATHER, schema_mode="tool")


def line(message: Any = None, **more: Any) -> dict[str, Any]:
    """A line of a stream."""
    return {"model": "m", "created_at": "2026-11-21T02:09:14.867123456Z", "message": message, "done": False, **more}


def said(text: Any, **more: Any) -> dict[str, Any]:
    """The assistant's message in a line."""
    return {"role": "assistant", "content": text, **more}


def call(name: Any = "add", arguments: Any = None, **more: Any) -> dict[str, Any]:
    """A tool call."""
    return {"function": {"name": name, "arguments": arguments, **more.pop("function", {})}, **more}


DONE = {"done": True, "done_reason": "stop", "prompt_eval_count": 11, "eval_count": 7, "total_duration": 5}
COUNTED = Usage(11, 7, 18)

# Name: a line, and its items.
LINES: dict[str, tuple[Any, list[Any]]] = {
    "text": (line(said("Hi")), ["Hi"]),
    "text in other letters": (line(said("世界 🌍")), ["世界 🌍"]),
    "an empty text": (line(said("")), []),
    "no text": (line({"role": "assistant"}), []),
    "null": (line(said(None)), []),
    "text without a role": (line({"content": "Hi"}), ["Hi"]),
    "text beside other fields": (line(said("Hi", thinking="", images=None)), ["Hi"]),
    "thinking": (line(said("", thinking="Hm")), [Reasoning("Hm")]),
    "thinking and text": (line(said("Hi", thinking="Hm")), [Reasoning("Hm"), "Hi"]),
    "thinking as others call it": (line(said("", reasoning_content="Hm")), [Reasoning("Hm")]),
    "thinking twice": (line(said("", thinking="Hm", reasoning="Hm")), [Reasoning("Hm")]),
    "thinking and text without a role": (line({"content": "Hi", "thinking": "Hm"}), [Reasoning("Hm"), "Hi"]),
    "the older endpoint": ({"response": "Hi", "done": False}, ["Hi"]),
    "the older endpoint thinks": ({"response": "", "thinking": "Hm", "done": False}, [Reasoning("Hm")]),
    "a call": (
        line(said("", tool_calls=[call("add", {"a": 1})])),
        [ToolCallDelta(None, None, "add", '{"a": 1}', whole=True)],
    ),
    "a call with an id": (
        line(said("", tool_calls=[call("add", {}, id="c1", function={"index": 0})])),
        [ToolCallDelta(None, "c1", "add", "{}", whole=True)],
    ),
    "two calls": (
        line(said("So: ", tool_calls=[call("a", {}, function={"index": 0}), call("b", {}, function={"index": 1})])),
        ["So: ", ToolCallDelta(None, None, "a", "{}", whole=True), ToolCallDelta(None, None, "b", "{}", whole=True)],
    ),
    "arguments as text": (
        line(said("", tool_calls=[call("add", '{"a": 1}')])),
        [ToolCallDelta(None, None, "add", '{"a": 1}', whole=True)],
    ),
    "no arguments": (line(said("", tool_calls=[call()])), [ToolCallDelta(None, None, "add", "{}", whole=True)]),
    "a call of nothing": (line(said("", tool_calls=[call(None), call(""), {}, 5, None])), []),
    "calls that are none": (line(said("", tool_calls={})), []),
    "log-probabilities": (
        line(said("Hi"), logprobs=[{"token": "Hi", "logprob": -0.1}]),
        ["Hi", Logprobs(({"token": "Hi", "logprob": -0.1},))],
    ),
    "the end": (line(said(""), **DONE), [COUNTED, Finish("stop", "stop"), END]),
    "the end with text": (line(said("!"), **DONE), ["!", COUNTED, Finish("stop", "stop"), END]),
    "the end by the limit": (
        line(said(""), **{**DONE, "done_reason": "length"}),
        [COUNTED, Finish("length", "length"), END],
    ),
    "the end of a loading": (
        line(said(""), done=True, done_reason="load"),
        [Finish("other", "load"), END],
    ),
    "the end without a reason": (line(said(""), done=True), [Finish("stop", ""), END]),
    "the end with a prompt from the cache": (
        line(said(""), done=True, done_reason="stop", eval_count=7),
        [Usage(None, 7), Finish("stop", "stop"), END],
    ),
    "counts that are none": (
        line(said(""), done=True, done_reason="stop", eval_count="7", prompt_eval_count=-1),
        [Finish("stop", "stop"), END],
    ),
    "something new": (line(None, surprise={"a": 1}), [Other("surprise", {"surprise": {"a": 1}})]),
    "something new in the message": (line(said("", wibble=1)), [Other("wibble", {"wibble": 1}, in_turn=True)]),
    "an empty object": ({}, []),
}


class TestDecode:
    """The content of a line."""

    @pytest.mark.parametrize("name", LINES)
    def test_a_line(self, name: str) -> None:
        """The items, in order; the fast decoder and the full one agree."""
        data, expected = LINES[name]
        for text in (json.dumps(data), json.dumps(data, ensure_ascii=False), f" {json.dumps(data)} "):
            assert list(Ollama.decode(Record(text))) == expected
        assert list(_Reader().line(data)) == expected

    def test_usage_keeps_what_the_service_said(self) -> None:
        """Durations are in `raw`, in nanoseconds, unchanged."""
        usage = next(item for item in Ollama.decode(Record(json.dumps(line(**DONE)))) if isinstance(item, Usage))
        assert usage.raw == {"prompt_eval_count": 11, "eval_count": 7, "total_duration": 5}

    @pytest.mark.parametrize(
        ("data", "error", "says"),
        [
            ({"error": "model runner has unexpectedly stopped"}, ServiceError, "unexpectedly stopped"),
            ({"error": {"message": "boom", "type": "server_error"}}, ServerError, "boom"),
            ({"error": "unauthorized", "code": 401}, AuthError, "unauthorized"),
            (["x"], ProtocolError, "JSON object in .*, got list"),
            ("x", ProtocolError, "JSON object in .*, got str"),
            (None, ProtocolError, "JSON object in .*, got NoneType"),
        ],
    )
    def test_errors(self, data: Any, error: type[LLMBridgeError], says: str) -> None:
        """An error in the stream, and anything but Ollama's lines."""
        with pytest.raises(error, match=says):
            list(Ollama.decode(Record(json.dumps(data))))

    def test_text_comes_before_the_error_beside_it(self) -> None:
        """Nothing that arrived is lost."""
        came: list[Any] = []
        with pytest.raises(ServiceError, match="boom"):
            came.extend(Ollama.decode(Record(json.dumps(line(said("Hi"), error="boom")))))
        assert came == ["Hi"]

    def test_no_json(self) -> None:
        """A line that is not JSON."""
        with pytest.raises(ProtocolError, match="invalid JSON"):
            list(Ollama.decode(Record("data: {}")))

    def test_arguments_that_no_encoder_takes(self) -> None:
        """JSON may be nested more deeply than can be written again; either way there is no crash."""
        nest = "[" * 950 + "]" * 950
        text = json.dumps(line(said("", tool_calls=[call("add", "NEST")]))).replace('"NEST"', nest)
        try:
            (delta,) = Ollama.decode(Record(text))
        except ProtocolError:
            return
        assert isinstance(delta, ToolCallDelta)
        assert delta.arguments == nest

    def test_a_document(self) -> None:
        """The same as a whole answer."""
        document = line(said("Hi", thinking="Hm"), **DONE)
        assert list(Ollama.decode_document(document))[:5] == [
            Reasoning("Hm"), "Hi", COUNTED, Finish("stop", "stop"), END,
        ]  # fmt: skip
        with pytest.raises(ServiceError, match="boom"):
            list(Ollama.decode_document({"error": "boom"}))
        with pytest.raises(ProtocolError, match="check the base_url"):
            list(Ollama.decode_document({"status": "ok"}))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers(-1, 9) | st.sampled_from(["", "stop", "{", "\ud800"]),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(
                    st.sampled_from(
                        "message content thinking tool_calls function name arguments id done done_reason error "
                        "response logprobs eval_count prompt_eval_count".split()
                    ),
                    inner,
                    max_size=5,
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_line_is_items_or_an_error_of_the_tree(self, value: Any) -> None:
        """No KeyError, no TypeError, no empty piece; the assembler accepts every call."""
        decoders: list[Callable[[], Iterable[Any]]] = [
            lambda: Ollama.decode(Record(json.dumps(value))),
            lambda: Ollama.decode_document(value),
        ]
        for decode in decoders:
            try:
                found = list(decode())
            except LLMBridgeError:
                continue
            for item in found:
                assert item != ""
                assert not isinstance(item, ToolCallDelta) or (item.name and isinstance(item.arguments, str))


class TestHost:
    """Ollama's address."""

    @pytest.mark.parametrize(
        ("host", "url"),
        [
            ("", "http://127.0.0.1:11434"),
            ("  ", "http://127.0.0.1:11434"),
            ("1.2.3.4", "http://1.2.3.4:11434"),
            ("1.2.3.4:56", "http://1.2.3.4:56"),
            (":56", "http://127.0.0.1:56"),
            ("gpu.example.com", "http://gpu.example.com:11434"),
            ("gpu.example.com/", "http://gpu.example.com:11434"),
            ("gpu.example.com/a/b/", "http://gpu.example.com:11434/a/b"),
            ("gpu.example.com:56/a", "http://gpu.example.com:56/a"),
            ("http://gpu.example.com", "http://gpu.example.com"),
            ("http://gpu.example.com:56", "http://gpu.example.com:56"),
            ("https://gpu.example.com", "https://gpu.example.com"),
            ("https://gpu.example.com/a", "https://gpu.example.com/a"),
            ("HTTPS://ollama.com/", "https://ollama.com"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("http://0.0.0.0:56", "http://127.0.0.1:56"),
            ("[::1]", "http://[::1]:11434"),
            ("[::1]:56", "http://[::1]:56"),
            ("::1", "http://[::1]:11434"),
            ("::", "http://[::1]:11434"),
            ("http://[fe80::1]:56/a", "http://[fe80::1]:56/a"),
            ('"1.2.3.4:56"', "http://1.2.3.4:56"),
            (" 1.2.3.4 ", "http://1.2.3.4:11434"),
            ("user:word@gpu.example.com", "http://user:word@gpu.example.com:11434"),
        ],
    )
    def test_hosts(self, host: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """By the rules of Ollama's own programs."""
        assert host_url(host) == url
        monkeypatch.setenv("OLLAMA_HOST", host)
        assert Ollama.resolve_base_url() == url

    @pytest.mark.parametrize(
        "host", ["ftp://x", "a b", "1.2.3.4:word", "1.2.3.4:99999", "http://[::1", "unix:///run/x", "host?secret"]
    )
    def test_no_hosts(self, host: str) -> None:
        """The error names the variable and does not quote it: it may contain a password."""
        with pytest.raises(ConfigError, match="OLLAMA_HOST must be a host like") as caught:
            host_url(host)
        assert host not in str(caught.value)

    def test_the_host_is_used(self, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without base_url= and without a key."""
        monkeypatch.setenv("OLLAMA_HOST", server.root.removeprefix("http://"))
        server.script(Reply(body=json.dumps(line(said("Hi"), **DONE)), content_type="application/x-ndjson"))
        with Client(retries=0) as client:
            assert client.chat("Hi", "ollama:m", proxy=False).complete().text == "Hi"
        (received,) = server.requests
        assert received.path == "/api/chat"
        assert received.header("authorization") is None

    def test_the_cloud_needs_a_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Your own server does not; a given key is sent anywhere."""
        assert Ollama.find_key(None, False) is None
        monkeypatch.setenv("OLLAMA_HOST", "https://ollama.com")
        with pytest.raises(MissingKey, match="OLLAMA_API_KEY"):
            Ollama.find_key(None, False)
        assert Ollama.find_key(None, True) is None
        key = Secret("k", "api_key")
        assert Ollama.find_key(key, False) is key
        monkeypatch.setenv("OLLAMA_API_KEY", "k")
        assert Ollama.find_key(None, False) is not None
        assert Ollama.auth_headers("k") == {"Authorization": "Bearer k"}


class TestModelsAndEmbeddings:
    """The other two endpoints."""

    def test_models(self) -> None:
        """The names in a recorded list."""
        document = json.loads(
            (DATA / "aimock" / "ollama_tags.txt").read_bytes().partition(b"\r\n\r\n28c\r\n")[2].split(b"\r\n")[0]
        )
        assert Ollama.models_path == "/api/tags"
        assert Ollama.decode_models(document) == [
            "gpt-4", "gpt-4o", "claude-3-5-sonnet-20241022", "gemini-2.0-flash", "text-embedding-3-small",
        ]  # fmt: skip
        assert Ollama.decode_models({"models": [{"model": "a"}, {"name": 5}, None, {}]}) == ["a"]

    @pytest.mark.parametrize("document", [None, [], {}, {"models": {}}, "x"])
    def test_no_models(self, document: Any) -> None:
        """A document that is not such a list."""
        with pytest.raises(ProtocolError, match="not a list"):
            Ollama.decode_models(document)

    def test_what_asks_for_embeddings(self) -> None:
        """Options are separate here as well."""
        encoded = Ollama.encode_embeddings("m", ["a", "b"], {"dimensions": 64, "num_ctx": 8, "truncate": False})
        assert encoded.path == "/api/embed"
        assert encoded.body == {
            "model": "m", "input": ["a", "b"], "dimensions": 64, "truncate": False, "options": {"num_ctx": 8},
        }  # fmt: skip
        assert Ollama.encode_embeddings("m", ["a"], {}).body == {"model": "m", "input": ["a"]}

    def test_embeddings(self) -> None:
        """The vectors, in the order of the texts, and the tokens."""
        vectors, usage = Ollama.decode_embeddings({"embeddings": [[1, 0.5], [2.0, -3]], "prompt_eval_count": 4})
        assert vectors == [[1, 0.5], [2.0, -3]]
        assert usage == Usage(4)
        assert Ollama.decode_embeddings({"embeddings": []}) == ([], None)

    @pytest.mark.parametrize(
        "document", [None, [], {}, {"embeddings": [["x"]]}, {"embeddings": [[]]}, {"embeddings": [1]}]
    )
    def test_no_embeddings(self, document: Any) -> None:
        """A document without embeddings."""
        with pytest.raises(ProtocolError, match="no embeddings"):
            Ollama.decode_embeddings(document)

    def test_an_error_in_place_of_embeddings(self) -> None:
        """It is raised with its class."""
        with pytest.raises(ServiceError, match="does not support embeddings"):
            Ollama.decode_embeddings({"error": "this model does not support embeddings"})


def steps(name: str) -> list[Any]:
    """The recording, and how its connection ended."""
    raw = (DATA / f"{name}.txt").read_bytes()
    end = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["end"]
    return [raw] if end == "complete" else [raw, CLOSE]


ZERO = Usage(0, 0, 0)
CUT = "This stream will"
# Name: the text, the reasoning, and how it ended.
RECORDED: dict[str, tuple[str, str, Any]] = {
    "aimock/ollama_chat": ("Hello from a real server. Grüße, 世界 🌍!", "", "stop"),
    "aimock/ollama_generate": ("Hello from a real server. Grüße, 世界 🌍!", "", "stop"),
    "aimock/ollama_nostream": ("Counted answer.", "", "stop"),
    "aimock/ollama_usage": ("Counted answer.", "", "stop"),
    "aimock/ollama_thinking": ("The answer is 4.", "Two and two make four.", "stop"),
    "aimock/ollama_tool": ("", "", "tool_calls"),
    "aimock/ollama_truncate": (CUT, "", StreamTruncated),
    "aimock/ollama_err404": ("", "", NotFound),
    "aimock/ollama_err429": ("", "", RateLimited),
    "aimock/ollama_err500": ("", "", ServerError),
    "llama_server/ollama_chat": ("", "", NotFound),  # it does not speak this dialect
}


@pytest.mark.parametrize("split", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", RECORDED)
def test_recordings(server: LLMServer, name: str, split: int | None) -> None:
    """The recorded bytes give the recorded answer or error, however they arrive."""
    text, reasoning, end = RECORDED[name]
    server.script(Reply(raw=steps(name), split=split))
    with Client(retries=0) as client:
        stream = client.chat("Hello", "ollama:llama3.2", base_url=server.root, proxy=False, timeout=20)
        if not isinstance(end, str):
            with pytest.raises(end) as caught:
                stream.complete()
            assert caught.value.partial == text
            assert caught.value.provider == "ollama"
            return
        answer = stream.complete()
    assert (answer.text, answer.reasoning, answer.finish_reason) == (text, reasoning, end)
    assert answer.usage == ZERO
    if name == "aimock/ollama_tool":
        (made,) = answer.tool_calls
        assert (made.name, made.arguments) == ("get_weather", {"city": "San Francisco", "unit": "fahrenheit"})


def test_every_recording_is_in_the_table() -> None:
    """Except lists of models, which are not chat answers."""
    found = {f"{path.parent.name}/{path.stem}" for path in DATA.glob("*/ollama_*.txt")}
    assert {name for name in found if not name.endswith("_tags")} == set(RECORDED)


@pytest.mark.parametrize("name", ["aimock/ollama_chat", "aimock/ollama_thinking"])
def test_a_recording_cut_anywhere_is_truncated(server: LLMServer, name: str) -> None:
    """Before the last line is complete it is an error, after all text so far."""
    raw = (DATA / f"{name}.txt").read_bytes()
    cuts = range(raw.index(b"\r\n\r\n") + 10, raw.index(b'"done":true'), 61)
    server.script(*(Reply(raw=[raw[:cut], CLOSE]) for cut in cuts))
    with Client(retries=0) as client:
        for _ in cuts:
            with pytest.raises(StreamTruncated) as caught:
                client.chat("Hello", "ollama:m", base_url=server.root, proxy=False).complete()
            assert RECORDED[name][0].startswith(caught.value.partial)


def lines(*data: Any) -> Iterator[bytes]:
    """Lines as they are sent."""
    return (json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in data)


def test_a_call_with_tools(server: LLMServer) -> None:
    """Two calls, both with index 0 and without id, are two calls; the body is what `encode` made."""
    answer = b"".join(
        lines(
            line(said("", tool_calls=[call("weather", {"city": "Oslo"}, function={"index": 0})])),
            line(said("", tool_calls=[call("weather", {"city": "Ålesund"}, function={"index": 0})])),
            line(said(""), **DONE),
        )
    )
    server.script(Reply(body=answer, content_type="application/x-ndjson", split=3))
    with Client(retries=0) as client:
        done = client.chat("Hi", "ollama:m", base_url=server.root, proxy=False, tools=[TOOL], num_ctx=64).complete()
    assert [made.arguments["city"] for made in done.tool_calls] == ["Oslo", "Ålesund"]
    assert len({made.id for made in done.tool_calls}) == 2
    assert (done.finish_reason, done.usage) == ("tool_calls", COUNTED)
    (received,) = server.requests
    assert received.json == body(tools=[TOOL], num_ctx=64)
    assert received.header("accept") == "application/x-ndjson"


def test_an_error_after_text(server: LLMServer) -> None:
    """With status 200, like Ollama; the text before it is kept."""
    answer = b"".join(lines(line(said("Hel")), {"error": "an error was encountered while running the model"}))
    server.script(Reply(body=answer, content_type="application/x-ndjson"))
    with Client(retries=0) as client, pytest.raises(ServiceError, match="while running the model") as caught:
        client.chat("Hi", "ollama:m", base_url=server.root, proxy=False).complete()
    assert caught.value.partial == "Hel"


@pytest.mark.parametrize(
    ("status", "error", "expected"),
    [
        (400, '"bird" does not support tools', "BadRequest"),
        (401, "unauthorized", "AuthError"),
        (404, 'model "bird" not found, try pulling it first', "NotFound"),
        (503, "server busy, please try again. maximum pending requests exceeded", "Overloaded"),
    ],
)
def test_errors_before_the_answer(server: LLMServer, status: int, error: str, expected: str) -> None:
    """The error's class and message, from Ollama's plain form."""
    server.script(Reply(body=json.dumps({"error": error}), status=status))
    with Client(retries=0) as client, pytest.raises(ServiceError) as caught:
        client.chat("Hi", "ollama:bird", base_url=server.root, proxy=False).complete()
    assert type(caught.value).__name__ == expected
    assert error in str(caught.value)


def test_the_testing_server_speaks_it(server: LLMServer) -> None:
    """Thinking, text, calls that are sent back with their results, structured output, models and embeddings."""
    server.script(
        Reply("So: ", reasoning="Hm", tool_calls=[{"name": "weather", "arguments": {"city": "Oslo"}}]),
        Reply('{"city": "Oslo"}'),
    )
    with Client(retries=0) as client:
        where: dict[str, Any] = {"base_url": server.root, "proxy": False}
        first = client.chat("Hi", "ollama:m", tools=[TOOL], **where).complete()
        assert (first.text, first.reasoning, first.finish_reason) == ("So: ", "Hm", "tool_calls")
        (made,) = first.tool_calls
        result = {"role": "tool", "content": "Rain", "tool_call_id": made.id}
        second = client.chat([first, result], "ollama:m", schema=WEATHER, **where).complete()
        assert second.parsed == {"city": "Oslo"}
        assert client.models("ollama", **where) == ["test-model"]
        assert len(client.embed(["a", "b"], "ollama:m", **where)) == 2
    said_before, answered = server.requests[1].json["messages"]
    assert (said_before["thinking"], said_before["content"]) == ("Hm", "So: ")
    assert said_before["tool_calls"][0]["function"] == {"name": "weather", "arguments": {"city": "Oslo"}}
    assert answered == {"role": "tool", "content": "Rain", "tool_call_id": made.id, "tool_name": "weather"}


def test_the_framing_is_lines() -> None:
    """A new one for each answer."""
    assert isinstance(Ollama.framing(), NDJSON)
    assert Ollama.framing() is not Ollama.framing()
