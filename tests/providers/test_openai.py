"""OpenAI's dialect and what the servers that speak it do differently, as tables of what they send."""

from __future__ import annotations

import copy
import json
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmbridge import (
    AuthError,
    BadRequest,
    ContextLengthExceeded,
    Finish,
    LLMBridgeError,
    Overloaded,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    Reasoning,
    ServerError,
    ServiceError,
    StreamError,
    Usage,
)
from llmbridge._framing import SSE, DataLines, Record
from llmbridge.events import END, Logprobs, OtherChoice, Refusal, Text, ToolCallDelta
from llmbridge.messages import ChatRequest
from llmbridge.providers._completions_answer import _decode_frame
from llmbridge.providers.openai import OpenAI, OpenAICompatible, decode_completion

USED = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
COUNTED = Usage(11, 7, 18)


def items(data: Any, event: str = "message") -> list[Any]:
    """What an event says; data that is no str is sent as JSON."""
    return list(OpenAI.decode(Record(data if isinstance(data, str) else json.dumps(data), event)))


CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    """One chunk with one choice."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


# Name: what the event holds, and what it says.
CHUNKS: dict[str, tuple[Any, list[Any]]] = {
    "text": (chunk({"content": "Hi"}), ["Hi"]),
    "text with everything around it": (
        chunk({"content": "ü"}, id="x", object="chat.completion.chunk", model="m", usage=None, obfuscation="abc"),
        ["ü"],
    ),
    "role and text": (chunk({"role": "assistant", "content": "Hi"}), ["Hi"]),
    "role alone": (chunk({"role": "assistant"}), []),
    "role and an empty text": (chunk({"role": "assistant", "content": ""}), []),
    "role and null": (chunk({"role": "assistant", "content": None}), []),
    "an empty delta": (chunk({}), []),
    "a null delta": (chunk(None), []),
    "no delta": ({"choices": [{"index": 0}]}, []),
    "no choices": ({"choices": []}, []),
    "null choices": ({"choices": None}, []),
    "choices left out": ({"id": "x"}, []),
    "an empty object": ({}, []),
    "choices of a wrong type": ({"choices": {"0": 1}}, []),
    "a choice of a wrong type": ({"choices": [None, "x", 7]}, []),
    "a delta of a wrong type": (chunk("Hi"), []),
    "content of a wrong type": (chunk({"content": 7}), []),
    "Azure's first chunk": ({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}, []),
    "no index": ({"choices": [{"delta": {"content": "Hi"}}]}, ["Hi"]),
    "a null index": ({"choices": [{"index": None, "delta": {"content": "Hi"}}]}, ["Hi"]),
    "another choice": ({"choices": [{"index": 1, "delta": {"content": "no"}}]}, [OtherChoice(1, Text("no"))]),
    "two choices": (
        {"choices": [{"index": 1, "delta": {"content": "no"}}, {"index": 0, "delta": {"content": "Hi"}}]},
        [OtherChoice(1, Text("no")), "Hi"],
    ),
    "another choice's end": (
        {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]},
        [OtherChoice(1, Finish("length", "length"))],
    ),
    "text and end in one": (chunk({"content": "Hi"}, "stop"), ["Hi", Finish("stop", "stop")]),
    "logprobs": (
        {"choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": {"content": [{"token": "Hi"}]}}]},
        ["Hi", Logprobs(({"token": "Hi"},))],
    ),
    "progress of the prompt": (chunk({"role": "assistant", "content": None}, prompt_progress={"total": 22}), []),
    "half of a surrogate pair": ('{"choices":[{"delta":{"content":"\\ud83d"}}]}', ["\ud83d"]),
    "a raw control character": ('{"choices":[{"delta":{"content":"a\tb\x01"}}]}', ["a\tb\x01"]),
    "white space around": ('  {"choices":[{"delta":{"content":"Hi"}}]} \n', ["Hi"]),
    "a tool call": (
        chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}),
        [ToolCallDelta(0, "c", "f")],
    ),
    "a tool call beside text": (
        chunk({"content": "Hi", "tool_calls": [{"index": 0, "function": {}}]}),
        ["Hi"],
    ),
    "an old function call": (
        chunk({"function_call": {"name": "f", "arguments": "{}"}}),
        [ToolCallDelta(0, None, "f", "{}")],
    ),
    "a refusal": (chunk({"refusal": "I cannot."}), [Refusal("I cannot.")]),
    "a null refusal": (chunk({"content": "Hi", "refusal": None}), ["Hi"]),
    # Mistral
    "a list of parts": (
        chunk(
            {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": ""}, {"type": "text", "text": "b"}]}
        ),
        ["a", "b"],
    ),
    "a list with thinking": (
        chunk(
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}, {"type": "text", "text": "m"}]},
                    {"type": "reference", "reference_ids": [1]},
                    {"type": "text", "text": "a"},
                    "b",
                    None,
                ]
            }
        ),
        [Reasoning("hmm"), "a", "b"],
    ),
    "an empty list": (chunk({"content": []}), []),
    # Reasoning
    "reasoning_content": (chunk({"reasoning_content": "hm"}), [Reasoning("hm")]),
    "reasoning": (chunk({"reasoning": "hm"}), [Reasoning("hm")]),
    "reasoning as an object with text": (chunk({"reasoning": {"text": "hm"}}), [Reasoning("hm")]),
    "reasoning as an object with content": (chunk({"reasoning": {"content": "hm"}}), [Reasoning("hm")]),
    "reasoning_text": (chunk({"reasoning_text": "hm"}), [Reasoning("hm")]),
    "thinking": (chunk({"thinking": "hm"}), [Reasoning("hm")]),
    "reasoning_details": (
        chunk({"reasoning_details": [{"type": "reasoning.text", "text": "h"}, {"text": "m"}, {"data": "x"}]}),
        [Reasoning("hm")],
    ),
    "two fields with the same reasoning": (
        chunk({"reasoning": "hm", "reasoning_content": "hm", "reasoning_details": [{"text": "hm"}]}),
        [Reasoning("hm")],
    ),
    "the first that is not empty": (chunk({"reasoning_content": "", "reasoning": "hm"}), [Reasoning("hm")]),
    "null reasoning": (chunk({"content": "Hi", "reasoning_content": None, "reasoning": None}), ["Hi"]),
    "empty reasoning": (chunk({"content": "Hi", "reasoning": ""}), ["Hi"]),
    "reasoning beside text": (chunk({"content": "Hi", "reasoning": "hm"}), [Reasoning("hm"), "Hi"]),
    "reasoning of a wrong type": (chunk({"content": "Hi", "reasoning": 7}), ["Hi"]),
    # Usage
    "usage in a chunk of its own": ({"choices": [], "usage": USED}, [COUNTED]),
    "usage beside an empty delta": (chunk({}, usage=USED), [COUNTED]),
    "usage on the finish chunk": (chunk({}, "stop", usage=USED), [Finish("stop", "stop"), COUNTED]),
    "usage beside text": (chunk({"content": "Hi"}, usage=USED), ["Hi", COUNTED]),
    "usage of Groq": (chunk({}, "stop", x_groq={"id": "r", "usage": USED}), [Finish("stop", "stop"), COUNTED]),
    "usage of Groq beside text": (chunk({"content": "Hi"}, x_groq={"id": "r", "usage": USED}), ["Hi", COUNTED]),
    "Groq without usage": (chunk({"content": "Hi"}, x_groq={"id": "r"}), ["Hi"]),
    "no usage": (chunk({}, usage=None), []),
    "empty usage": (chunk({}, usage={}), []),
    "usage of a wrong type": (chunk({"content": "Hi"}, usage="many"), ["Hi"]),
    "usage with details": (
        {
            "choices": [],
            "usage": {
                **USED,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 3, "accepted_prediction_tokens": 0},
            },
        },
        [Usage(11, 7, 18, 4, 2, 3)],
    ),
    "usage with null details": (
        {"choices": [], "usage": {**USED, "prompt_tokens_details": None, "completion_tokens_details": None}},
        [COUNTED],
    ),
    "usage of DeepSeek": (
        {"choices": [], "usage": {**USED, "prompt_cache_hit_tokens": 8, "prompt_cache_miss_tokens": 3}},
        [Usage(11, 7, 18, 8)],
    ),
    "usage without a total": ({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 0}}, [Usage(2, 0, 2)]),
    "usage with odd numbers": (
        {"choices": [], "usage": {"prompt_tokens": "11", "completion_tokens": -1, "total_tokens": True}},
        [Usage()],
    ),
    # Finish reasons
    "stop": (chunk({}, "stop"), [Finish("stop", "stop")]),
    "length": (chunk({}, "length"), [Finish("length", "length")]),
    "model_length": (chunk({}, "model_length"), [Finish("length", "model_length")]),
    "tool_calls": (chunk({}, "tool_calls"), [Finish("tool_calls", "tool_calls")]),
    "function_call": (chunk({}, "function_call"), [Finish("tool_calls", "function_call")]),
    "content_filter": (chunk({}, "content_filter"), [Finish("content_filter", "content_filter")]),
    "error": (chunk({}, "error"), [Finish("error", "error")]),
    "an unknown reason": (chunk({}, "insufficient_system_resource"), [Finish("other", "insufficient_system_resource")]),
    "an empty reason": (chunk({"content": "Hi"}, ""), ["Hi"]),
    "a reason of a wrong type": (chunk({"content": "Hi"}, 7), ["Hi"]),
    "a finish chunk without a delta": ({"choices": [{"index": 0, "finish_reason": "stop"}]}, [Finish("stop", "stop")]),
    # The end mark
    "the end mark": ("[DONE]", [END]),
    "the end mark with more": ("[DONE] bye", [END]),
    "the end mark with a CR left": ("[DONE]\r", [END]),
    # No error
    "a null error": (chunk({"content": "Hi"}, error=None), ["Hi"]),
    "an empty error": (chunk({"content": "Hi"}, error={}), ["Hi"]),
}

# Name: what the event holds, its name, the text before the error, the error's class, status and code.
ERRORS: dict[str, tuple[Any, str, list[Any], type[LLMBridgeError], int | None, str | None]] = {
    "an object": (
        {"error": {"message": "boom", "type": "server_error", "code": None}},
        "message",
        [],
        ServerError,
        None,
        "server_error",
    ),
    "an object, event error": (
        {"error": {"message": "boom", "code": "rate_limit_exceeded"}},
        "error",
        [],
        RateLimited,
        None,
        "rate_limit_exceeded",
    ),
    "no quota": (
        {"error": {"message": "boom", "type": "insufficient_quota"}},
        "message",
        [],
        QuotaExceeded,
        None,
        "insufficient_quota",
    ),
    "a string": ({"error": "boom"}, "message", [], StreamError, None, None),
    "a bare string": ('"boom"', "message", [], StreamError, None, None),
    "a list": ({"error": ["boom"]}, "message", [], StreamError, None, None),
    "a bare list": ([{"error": {"code": 503, "message": "boom"}}], "message", [], Overloaded, 503, "503"),
    "event error with a string": ('"boom"', "error", [], StreamError, None, None),
    "event error with a message alone": ({"message": "boom"}, "error", [], StreamError, None, None),
    "event error of a gateway": (
        {"type": "error", "error": {"type": "overloaded_error", "message": "boom"}},
        "error",
        [],
        Overloaded,
        None,
        "overloaded_error",
    ),
    "llama-server": (
        {"error": {"code": 500, "message": "boom", "type": "server_error"}},
        "message",
        [],
        ServerError,
        500,
        "server_error",
    ),
    "vLLM": (
        {"object": "error", "message": "boom", "type": "BadRequestError", "param": None, "code": 400},
        "message",
        [],
        BadRequest,
        400,
        "BadRequestError",
    ),
    "vLLM, event error": ({"code": 500, "details": "boom"}, "error", [], ServerError, 500, "500"),
    "OpenRouter": (
        chunk({"content": ""}, "error", error={"code": 502, "message": "boom", "metadata": {"provider_name": "x"}}),
        "message",
        [Finish("error", "error")],
        ServerError,
        502,
        "502",
    ),
    "OpenRouter with text": (
        chunk({"content": "Hi"}, "error", error={"code": 429, "message": "boom"}),
        "message",
        ["Hi", Finish("error", "error")],
        RateLimited,
        429,
        "429",
    ),
    "a gateway's string code": (
        {"error": {"message": "boom", "type": "None", "param": "None", "code": "500"}},
        "message",
        [],
        ServerError,
        500,
        "None",
    ),
    "a context that overflows": (
        {"error": {"code": 500, "message": "boom: Context size has been exceeded.", "type": "server_error"}},
        "message",
        [],
        ContextLengthExceeded,
        500,
        "server_error",
    ),
    "a wrong key": ({"error": {"message": "boom", "code": 401}}, "message", [], AuthError, 401, "401"),
}

NO_JSON = ["Hello", "{", '{"choices": [', "<html>", "{'a': 1}", "{} trailing", "data: {}", "\x00", "[" * 100_000]


class TestDecode:
    """What an event says."""

    @pytest.mark.parametrize("case", CHUNKS)
    def test_a_chunk_says(self, case: str) -> None:
        """Each shape gives its items, in order, and no others."""
        data, expected = CHUNKS[case]
        assert items(data) == expected

    @pytest.mark.parametrize("case", ERRORS)
    def test_an_error_is_raised_behind_the_text(self, case: str) -> None:
        """P9: with the class that its code or type says, and the service's words."""
        data, event, before, kind, status, code = ERRORS[case]
        frame = Record(data if isinstance(data, str) else json.dumps(data), event)
        got: list[Any] = []
        with pytest.raises(ServiceError) as caught:
            got.extend(OpenAI.decode(frame))
        assert type(caught.value) is kind
        assert (caught.value.status, caught.value.code) == (status, code)
        assert "boom" in caught.value.message
        assert got == before

    @pytest.mark.parametrize("data", NO_JSON, ids=range(len(NO_JSON)))
    def test_what_is_no_json_is_a_protocol_error(self, data: str) -> None:
        """P10: with a short excerpt, and no error of json or of recursion."""
        with pytest.raises(ProtocolError) as caught:
            items(data)
        assert len(caught.value.message) < 200

    @pytest.mark.parametrize("data", ["7", "null", "true", "1.5", "[]"])
    def test_json_that_is_no_object_is_a_protocol_error(self, data: str) -> None:
        """It says neither text nor error."""
        with pytest.raises(ProtocolError):
            items(data)

    def test_decoding_is_pure(self) -> None:
        """The same frame says the same again, and is not changed."""
        for data, _ in CHUNKS.values():
            frame = Record(data if isinstance(data, str) else json.dumps(data))
            before = frame.data
            assert list(OpenAI.decode(frame)) == list(OpenAI.decode(frame))
            assert frame.data == before

    def test_usage_keeps_the_services_own_object(self) -> None:
        """For what only this service counts."""
        (usage,) = items({"choices": [], "usage": {**USED, "queue_time": 0.5}})
        assert usage.raw == {**USED, "queue_time": 0.5}

    @given(
        delta=st.just({"content": "a"})
        | st.dictionaries(
            st.sampled_from(["content", "role", "reasoning", "refusal", "tool_calls"]),
            st.none() | st.sampled_from(["", "a", "ü", [], [{"type": "text", "text": "b"}], 7, {}]),
            max_size=3,
        )
        | st.none(),
        choice=st.fixed_dictionaries(
            {}, optional={"index": st.sampled_from([0, 1, None]), "finish_reason": st.sampled_from([None, "", "stop"])}
        ),
        more=st.fixed_dictionaries(
            {},
            optional={
                "usage": st.sampled_from([None, {}, USED]),
                "error": st.sampled_from([None, "", {}, "x", {"code": 500}]),
                "id": st.just("x"),
                "x_groq": st.sampled_from([{"id": "r"}, {"usage": USED}]),
            },
        ),
        event=st.sampled_from(["message", "error"]),
        after=st.sampled_from(["", " ", "\n", "x"]),
    )
    @settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def test_the_short_way_says_what_the_long_way_says(
        self, delta: Any, choice: dict[str, Any], more: dict[str, Any], event: str, after: str
    ) -> None:
        """Plain text events are decoded fast, and never otherwise than all others."""
        frame = Record(json.dumps({"choices": [{"delta": delta, **choice}], **more}) + after, event)

        def said(decode: Any) -> tuple[list[Any], type[Exception] | None]:
            got: list[Any] = []
            try:
                got.extend(decode(frame))
            except LLMBridgeError as error:
                return got, type(error)
            return got, None

        assert said(OpenAI.decode) == said(_decode_frame)


class TestOverFraming:
    """Events of several lines, and lines that are several events."""

    def test_a_document_over_several_data_lines(self) -> None:
        """Pretty-printed JSON in one event is one chunk."""
        lines = json.dumps(chunk({"content": "Hi"}), indent=1).split("\n")
        stream = "".join(f"data: {line}\n" for line in lines) + "\n"
        assert [item for frame in SSE().feed(stream.encode()) for item in OpenAI.decode(frame)] == ["Hi"]

    def test_events_without_blank_lines_between_them(self) -> None:
        """P4: the dialect's own reader takes each line for a chunk then, the end mark too."""
        lines = [json.dumps(chunk({"content": text})) for text in ("a", "b")]
        stream = "".join(f"data: {line}\n" for line in [*lines, "[DONE]"]) + "\n"
        for framing in (SSE(), DataLines()):
            assert [item for frame in framing.feed(stream.encode()) for item in OpenAI.decode(frame)] == ["a", "b", END]

    def test_unicode_line_separators_in_the_text(self) -> None:
        """P1: raw in the JSON, as several servers send them."""
        stream = "data: " + json.dumps(chunk({"content": "a\u2028b\u0085c"}), ensure_ascii=False) + "\n\n"
        assert [item for frame in SSE().feed(stream.encode()) for item in OpenAI.decode(frame)] == ["a\u2028b\u0085c"]


class TestDecodeDocument:
    """P8: a whole JSON answer where a stream was asked for."""

    WHOLE: ClassVar[dict[str, Any]] = {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": None}, "finish_reason": "stop"}
        ],
        "usage": USED,
    }

    def test_a_completion_is_given_as_text(self) -> None:
        """With finish reason, usage, and an end."""
        assert list(decode_completion(self.WHOLE)) == ["Hi", Finish("stop", "stop"), COUNTED, END]

    def test_a_completion_in_a_list_is_taken(self) -> None:
        """Some gateways wrap it."""
        assert list(decode_completion([self.WHOLE])) == ["Hi", Finish("stop", "stop"), COUNTED, END]

    def test_reasoning_stands_before_the_text(self) -> None:
        """In the same fields as in a stream."""
        whole = copy.deepcopy(self.WHOLE)
        whole["choices"][0]["message"]["reasoning_content"] = "hm"
        assert list(decode_completion(whole))[:2] == [Reasoning("hm"), "Hi"]

    def test_tool_calls_have_no_text(self) -> None:
        """Null or empty content is none."""
        for content in (None, ""):
            whole = {"choices": [{"message": {"content": content, "tool_calls": [{}]}, "finish_reason": "tool_calls"}]}
            assert list(decode_completion(whole)) == [Finish("tool_calls", "tool_calls"), END]

    def test_the_first_choice_is_the_answer(self) -> None:
        """As in a stream."""
        whole = {"choices": [{"index": i, "message": {"content": str(i)}} for i in range(3)]}
        assert list(decode_completion(whole)) == ["0", *(OtherChoice(i, Text(str(i))) for i in (1, 2)), END]

    @pytest.mark.parametrize(
        ("document", "kind"),
        [
            ({"error": {"message": "boom", "code": "invalid_api_key"}}, AuthError),
            ({"error": "boom"}, StreamError),
            ([{"error": {"message": "boom", "code": 429}}], RateLimited),
            ({"object": "error", "message": "boom", "code": 400}, BadRequest),
            ({"detail": "boom"}, StreamError),
            ({"detail": [{"loc": ["body"], "msg": "boom"}]}, StreamError),
            ({"message": "boom"}, StreamError),
        ],
    )
    def test_an_error_document_is_raised(self, document: Any, kind: type[ServiceError]) -> None:
        """Under a status of success, as gateways send it."""
        with pytest.raises(ServiceError, match="boom") as caught:
            list(decode_completion(document))
        assert type(caught.value) is kind

    @pytest.mark.parametrize("document", [{}, [], None, 7, "Hi", True, {"choices": None}, {"text": "Hi"}, [1, 2], [[]]])
    def test_any_other_document_is_a_protocol_error(self, document: Any) -> None:
        """It is no chat completion, and the message says where to look."""
        with pytest.raises(ProtocolError, match="base_url"):
            list(decode_completion(document))


class TestEncode:
    """What is sent."""

    @staticmethod
    def body(**params: Any) -> dict[str, Any]:
        """The body for a short request."""
        request = ChatRequest.checked("gpt-5-mini", [{"role": "user", "content": "Hi", "name": "a"}], params)
        return dict(OpenAI.encode(request).body)

    def test_the_body_of_a_plain_request(self) -> None:
        """A stream, with usage asked for."""
        assert self.body() == {
            "model": "gpt-5-mini",
            "messages": [{"role": "user", "content": "Hi", "name": "a"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def test_the_path_is_the_documented_one(self) -> None:
        """Appended to a base that ends in /v1."""
        assert OpenAI.encode(ChatRequest.checked("m", "Hi", {})).path == "/chat/completions"
        assert OpenAI.base_url == "https://api.openai.com/v1"

    def test_parameters_are_sent_as_given(self) -> None:
        """Known or not, nested or null."""
        body = self.body(temperature=0.1, seed=7, stop=["a"], wibble={"x": None}, user=None)
        assert {name: body[name] for name in ("temperature", "seed", "stop", "wibble", "user")} == {
            "temperature": 0.1,
            "seed": 7,
            "stop": ["a"],
            "wibble": {"x": None},
            "user": None,
        }

    def test_parameters_win(self) -> None:
        """Also over what the provider sets itself."""
        assert self.body(stream_options={"include_usage": False})["stream_options"] == {"include_usage": False}
        assert self.body(model="other")["model"] == "other"

    @pytest.mark.parametrize("params", [{"stream": False}, {"stream_options": None}, {"stream": None}])
    def test_stream_options_go_only_with_a_stream(self, params: dict[str, Any]) -> None:
        """The service refuses them without; None takes them out for servers that do not know them."""
        assert "stream_options" not in self.body(**params)

    def test_roles_are_sent_as_given(self) -> None:
        """All five of them, tool results and calls included."""
        turns = [
            {"role": "developer", "content": "a"},
            {"role": "system", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "c"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "d", "tool_call_id": "1"},
        ]
        assert OpenAI.encode(ChatRequest.checked("m", turns, {})).body["messages"] == turns

    def test_the_key_travels_as_a_bearer(self) -> None:
        """In a header, never in the body."""
        assert OpenAI.auth_headers("sk-1") == {"Authorization": "Bearer sk-1"}

    def test_compatible_servers_get_the_same(self) -> None:
        """Only where the request goes to, and the key, are another matter."""
        request = ChatRequest.checked("m", "Hi", {"seed": 1})
        assert OpenAICompatible.encode(request).body == OpenAI.encode(request).body
        assert (OpenAICompatible.base_url, OpenAICompatible.needs_key, OpenAICompatible.key_env) == ("", False, ())
