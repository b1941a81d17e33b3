"""OpenAI's dialect, and the differences of servers that speak it, as tables."""

from __future__ import annotations

import copy
import json
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import (
    AuthError,
    BadRequest,
    Citation,
    ContextLengthExceeded,
    Finish,
    InvalidRequest,
    LLMBridgeError,
    Media,
    Overloaded,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    Reasoning,
    ServerError,
    ServiceError,
    StreamError,
    Usage,
    providers,
)
from llmbridge._call.assembly import Assembly
from llmbridge._call.framing import SSE, DataLines, Record
from llmbridge.events import END, Logprobs, Other, OtherChoice, Refusal, Text, ToolCall, ToolCallDelta
from llmbridge.messages import ChatRequest
from llmbridge.providers.openai import OpenAI, OpenAICompatible, decode_completion
from llmbridge.providers.openai.answer import _decode_frame

USED = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
COUNTED = Usage(11, 7, 18)


def items(data: Any, event: str = "message") -> list[Any]:
    """The items of an event; data that is not a str is sent as JSON."""
    return list(OpenAI.decode(Record(data if isinstance(data, str) else json.dumps(data), event)))


PIECE = {"index": 0, "function": {"arguments": "a"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def chunk(delta: Any = None, finish: Any = None, **more: Any) -> dict[str, Any]:
    """A chunk with one choice."""
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}


# Name: the event, and its items.
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
    "a choice that is null": ({"choices": [None]}, []),
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
    "usage of DeepSeek, with a null": (
        {
            "choices": [],
            "usage": {**USED, "prompt_cache_hit_tokens": 8, "prompt_tokens_details": {"cached_tokens": None}},
        },
        [Usage(11, 7, 18, 8)],
    ),
    "usage with two counts": (
        {"choices": [], "usage": {**USED, "prompt_cache_hit_tokens": 8, "prompt_tokens_details": {"cached_tokens": 0}}},
        [Usage(11, 7, 18, 0)],
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
    "an unknown reason": (chunk({}, "new"), [Finish("other", "new")]),
    "a reason that is a failure": (
        chunk({}, "insufficient_system_resource"),
        [Finish("error", "insufficient_system_resource")],
    ),
    "an empty reason": (chunk({"content": "Hi"}, ""), ["Hi"]),
    "a reason of a wrong type": (chunk({"content": "Hi"}, 7), ["Hi"]),
    "a finish chunk without a delta": ({"choices": [{"index": 0, "finish_reason": "stop"}]}, [Finish("stop", "stop")]),
    # Places of usage, and answers that are not streams
    "tokens in a choice": (
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "usage": USED}]},
        [Finish("stop", "stop"), COUNTED],
    ),
    "tokens in a choice too": (
        {"choices": [{"index": 0, "delta": {}, "usage": {"prompt_tokens": 1}}], "usage": USED},
        [COUNTED],
    ),
    "a whole answer beside its last piece": (
        {"object": "chat.completion", "choices": [{"index": 0, "message": {"content": "Hi"}, "delta": {}}]},
        [],
    ),
    # The end mark
    "the end mark": ("[DONE]", [END]),
    "the end mark with more": ("[DONE] bye", [END]),
    "the end mark with a CR left": ("[DONE]\r", [END]),
    # Not errors
    "a null error": (chunk({"content": "Hi"}, error=None), ["Hi"]),
    "words beside choices": (
        chunk({"content": "Hi"}, message="cached", detail="none"),
        ["Hi", Other("message", {"message": "cached"}), Other("detail", {"detail": "none"})],
    ),
    "a usual piece beside what nobody knows": (
        {"choices": [{"index": 0, "delta": {"content": "Hi"}, "colour": "red"}], "news": [1]},
        ["Hi", Other("colour", {"colour": "red"}), Other("news", {"news": [1]})],
    ),
    "a usual piece beside its sources": (
        {"choices": [{"index": 0, "delta": {"content": "Hi"}}], "citations": ["https://a.example"]},
        ["Hi", Citation("https://a.example")],
    ),
    "sources without choices": ({"id": "c", "citations": ["https://a.example"]}, [Citation("https://a.example")]),
    "a page that a tool has found": (
        chunk({"content": [{"type": "tool_reference", "tool": "web_search", "url": "https://a.example"}]}),
        [
            Citation("https://a.example"),
            Other("tool_reference", {"type": "tool_reference", "tool": "web_search", "url": "https://a.example"}, True),
        ],
    ),
    "images by their addresses in other forms": (
        chunk(
            {
                "content": [
                    {"type": "output_image", "image_url": "https://a.example/b.png"},
                    {"type": "image", "source": {"type": "url", "url": "https://a.example/c.png"}},
                ]
            }
        ),
        [Media("image", url="https://a.example/b.png"), Media("image", url="https://a.example/c.png")],
    ),
    "text in a delta": (chunk({"text": "Hi"}), ["Hi"]),
    "an image of its own": (
        chunk({"image": {"url": "https://a.example/b.png"}}),
        [Media("image", url="https://a.example/b.png")],
    ),
    "words beside no choice": ({"choices": [], "message": "cached"}, [Other("message", {"message": "cached"})]),
    "words of another kind": (
        {"type": "status", "message": "the model is being loaded"},
        [Other("status", {"type": "status", "message": "the model is being loaded"})],
    ),
    "an empty error": (chunk({"content": "Hi"}, error={}), ["Hi"]),
}

# Name: the event, its name, the text before the error, the error's class, status and code.
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
    "FastAPI": ({"detail": "boom"}, "message", [], StreamError, None, None),
    "a message alone": ({"message": "boom"}, "message", [], StreamError, None, None),
    "a code and a message": ({"code": 500, "message": "boom"}, "message", [], ServerError, 500, "500"),
    "a type and a message": (
        {"type": "rate_limit_error", "message": "boom"},
        "message",
        [],
        RateLimited,
        None,
        "rate_limit_error",
    ),
    "a wrong key": ({"error": {"message": "boom", "code": 401}}, "message", [], AuthError, 401, "401"),
}

NO_JSON = ["Hello", "{", '{"choices": [', "<html>", "{'a': 1}", "{} trailing", "data: {}", "\x00", "[" * 100_000]


class TestDecode:
    """The content of an event."""

    @pytest.mark.parametrize("case", CHUNKS)
    def test_a_chunk_says(self, case: str) -> None:
        """Each form gives its items, in order, and nothing else."""
        data, expected = CHUNKS[case]
        assert items(data) == expected

    @pytest.mark.parametrize("case", ERRORS)
    def test_an_error_is_raised_behind_the_text(self, case: str) -> None:
        """P9: with the class for its code or type, and the service's words."""
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
    def test_invalid_json_is_a_protocol_error(self, data: str) -> None:
        """P10: with a short excerpt; no json.JSONDecodeError or RecursionError."""
        with pytest.raises(ProtocolError) as caught:
            items(data)
        assert len(caught.value.message) < 200

    @pytest.mark.parametrize("data", ["7", "null", "true", "1.5", "[]"])
    def test_json_that_is_not_an_object_is_a_protocol_error(self, data: str) -> None:
        """It holds neither text nor error."""
        with pytest.raises(ProtocolError):
            items(data)

    def test_decoding_is_pure(self) -> None:
        """The same frame gives the same items again, and is not changed."""
        for data, _ in CHUNKS.values():
            frame = Record(data if isinstance(data, str) else json.dumps(data))
            before = frame.data
            assert list(OpenAI.decode(frame)) == list(OpenAI.decode(frame))
            assert frame.data == before

    def test_usage_keeps_the_services_own_object(self) -> None:
        """For counts that only this service has."""
        (usage,) = items({"choices": [], "usage": {**USED, "queue_time": 0.5}})
        assert usage.raw == {**USED, "queue_time": 0.5}

    @pytest.mark.slow
    @given(
        delta=st.just({"content": "a"})
        | st.dictionaries(
            st.sampled_from(["content", "role", "reasoning", "reasoning_content", "refusal", "tool_calls"]),
            st.none()
            | st.sampled_from(["", "a", "ü", [], [{"type": "text", "text": "b"}], 7, {}])
            | st.sampled_from([[PIECE], [PIECE, PIECE], [{**PIECE, "id": "c"}], [{**PIECE, "type": "custom"}]]),
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
    def test_the_short_way_says_what_the_long_way_says(
        self, delta: Any, choice: dict[str, Any], more: dict[str, Any], event: str, after: str
    ) -> None:
        """Plain text events are decoded faster, but not differently."""
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
        """P4: each line is a chunk then, and so is the end mark."""
        lines = [json.dumps(chunk({"content": text})) for text in ("a", "b")]
        stream = "".join(f"data: {line}\n" for line in [*lines, "[DONE]"]) + "\n"
        for framing in (SSE(), DataLines()):
            assert [item for frame in framing.feed(stream.encode()) for item in OpenAI.decode(frame)] == ["a", "b", END]

    def test_unicode_line_separators_in_the_text(self) -> None:
        """P1: raw in the JSON, as several servers send them."""
        stream = "data: " + json.dumps(chunk({"content": "a\u2028b\u0085c"}), ensure_ascii=False) + "\n\n"
        assert [item for frame in SSE().feed(stream.encode()) for item in OpenAI.decode(frame)] == ["a\u2028b\u0085c"]


class TestDecodeDocument:
    """P8: a whole JSON answer instead of a stream."""

    WHOLE: ClassVar[dict[str, Any]] = {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hi", "refusal": None}, "finish_reason": "stop"}
        ],
        "usage": USED,
    }

    def test_a_completion_is_given_as_text(self) -> None:
        """With finish reason, usage and an end."""
        assert list(decode_completion(self.WHOLE)) == ["Hi", Finish("stop", "stop"), COUNTED, END]

    def test_a_completion_in_a_list_is_taken(self) -> None:
        """Some gateways wrap it."""
        assert list(decode_completion([self.WHOLE])) == ["Hi", Finish("stop", "stop"), COUNTED, END]

    def test_reasoning_comes_before_the_text(self) -> None:
        """In the same fields as in a stream."""
        whole = copy.deepcopy(self.WHOLE)
        whole["choices"][0]["message"]["reasoning_content"] = "hm"
        assert list(decode_completion(whole))[:2] == [Reasoning("hm"), "Hi"]

    def test_tool_calls_have_no_text(self) -> None:
        """Null or empty content gives no piece."""
        for content in (None, ""):
            whole = {"choices": [{"message": {"content": content, "tool_calls": [{}]}, "finish_reason": "tool_calls"}]}
            assert list(decode_completion(whole)) == [Finish("tool_calls", "tool_calls"), END]

    def test_the_first_choice_is_the_answer(self) -> None:
        """As in a stream."""
        whole = {"choices": [{"index": i, "message": {"content": str(i)}} for i in range(3)]}
        assert list(decode_completion(whole)) == ["0", *(OtherChoice(i, Text(str(i))) for i in (1, 2)), END]

    def test_choices_without_an_index_are_told_apart_by_their_place(self) -> None:
        """They are separate answers."""
        whole = {"choices": [{"message": {"content": str(i)}} for i in range(2)]}
        assert list(decode_completion(whole)) == ["0", OtherChoice(1, Text("1")), END]

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
        """With a status of success, as gateways send it."""
        with pytest.raises(ServiceError, match="boom") as caught:
            list(decode_completion(document))
        assert type(caught.value) is kind

    @pytest.mark.parametrize("document", [{}, [], None, 7, "Hi", True, {"choices": None}, {"text": "Hi"}, [1, 2], [[]]])
    def test_any_other_document_is_a_protocol_error(self, document: Any) -> None:
        """The message says that it is not a chat completion, and what to check."""
        with pytest.raises(ProtocolError, match="base_url"):
            list(decode_completion(document))


class TestEncode:
    """Requests."""

    @staticmethod
    def body(**params: Any) -> dict[str, Any]:
        """The body of a short request."""
        request = ChatRequest.checked("gpt-5-mini", [{"role": "user", "content": "Hi", "name": "a"}], params)
        return dict(OpenAI.encode(request).body)

    def test_the_body_of_a_plain_request(self) -> None:
        """A stream, with usage."""
        assert self.body() == {
            "model": "gpt-5-mini",
            "messages": [{"role": "user", "content": "Hi", "name": "a"}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    def test_the_path_is_the_documented_one(self) -> None:
        """It is appended to a base URL that ends in /v1."""
        assert OpenAI.encode(ChatRequest.checked("m", "Hi", {})).path == "/chat/completions"
        assert OpenAI.base_url == "https://api.openai.com/v1"

    def test_parameters_are_sent_as_given(self) -> None:
        """Known or not, nested or not; None counts as not given."""
        body = self.body(temperature=0.1, seed=7, stop=["a"], wibble={"x": None}, user=None)
        assert {name: body[name] for name in body if name not in ("model", "messages", "stream", "stream_options")} == {
            "temperature": 0.1,
            "seed": 7,
            "stop": ["a"],
            "wibble": {"x": None},
        }

    def test_parameters_win(self) -> None:
        """Even over those set by the provider."""
        assert self.body(stream_options={"include_usage": False})["stream_options"] == {"include_usage": False}
        assert self.body(model="other")["model"] == "other"

    @pytest.mark.parametrize("params", [{"stream": False}, {"stream_options": {}}, {"stream_options": False}])
    def test_stream_options_go_only_with_a_stream(self, params: dict[str, Any]) -> None:
        """The service rejects them otherwise; empty ones are left out, for servers that do not know them."""
        assert "stream_options" not in self.body(**params)

    def test_roles_are_sent_as_given(self) -> None:
        """All five, tool results and calls included."""
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
        """Only address and key differ."""
        request = ChatRequest.checked("m", "Hi", {"seed": 1})
        assert OpenAICompatible.encode(request).body == OpenAI.encode(request).body
        assert (OpenAICompatible.base_url, OpenAICompatible.needs_key) == ("", False)


def piece(arguments: Any = None, name: str | None = None, **more: Any) -> dict[str, Any]:
    """An entry in a delta's tool_calls, without fields that are None."""
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"function": function, **more}


# Name: the deltas of a stream, and its calls.
CALLS: dict[str, tuple[list[dict[str, Any]], list[tuple[str, Any]]]] = {
    "OpenAI": (
        [
            {"role": "assistant", "content": None},
            {"tool_calls": [piece("", "f", index=0, id="a", type="function")]},
            {"tool_calls": [piece('{"x"', index=0)]},
            {"tool_calls": [piece(": 1}", index=0)]},
            {"tool_calls": [piece("", "g", index=1, id="b", type="function")]},
            {"tool_calls": [piece("{}", index=1)]},
            {},
        ],
        [("f", {"x": 1}), ("g", {})],
    ),
    "llama-cpp-python: all with each piece, and the older form beside": (
        [
            {"tool_calls": [piece(part, "f", index=0, id="a")], "function_call": {"name": "f", "arguments": part}}
            for part in ("", '{"x": "a', "\n\x01", '"}')
        ],
        [("f", {"x": "a\n\x01"})],
    ),
    "two entries with one index in a chunk": (
        [
            {"tool_calls": [piece("", "f", index=0, id="a"), piece('{"x"', index=0)]},
            {"tool_calls": [piece(": 1}", index=0)]},
        ],
        [("f", {"x": 1})],
    ),
    "two calls in a chunk": (
        [{"tool_calls": [piece("{}", "f", index=0, id="a"), piece("{}", "g", index=1, id="b")]}],
        [("f", {}), ("g", {})],
    ),
    "no index": (
        [{"tool_calls": [piece("", "f", id="a")]}, {"tool_calls": [piece('{"x": ')]}, {"tool_calls": [piece("1}")]}],
        [("f", {"x": 1})],
    ),
    "Gemini's imitation: no index, whole calls": (
        [{"tool_calls": [piece("{}", "f", id="a")]}, {"tool_calls": [piece("{}", "f", id="b")]}],
        [("f", {}), ("f", {})],
    ),
    "the same index, a new id": (
        [{"tool_calls": [piece("{}", "f", index=0, id="a")]}, {"tool_calls": [piece("{}", "g", index=0, id="b")]}],
        [("f", {}), ("g", {})],
    ),
    "Mistral: an object, and the id null": (
        [{"tool_calls": [piece({"x": ["ü"]}, "f", id="null", index=0), piece({}, "g", id="null", index=1)]}],
        [("f", {"x": ["ü"]}), ("g", {})],
    ),
    "JSON in a JSON string": ([{"tool_calls": [piece('"{\\"x\\": 1}"', "f", index=0, id="a")]}], [("f", {"x": 1})]),
    "no arguments": ([{"tool_calls": [piece(None, "f", index=0, id="a")]}], [("f", {})]),
    "the older form": (
        [{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": '{"x": 1}'}}],
        [("f", {"x": 1})],
    ),
    "the older form beside an empty list": ([{"tool_calls": [], "function_call": {"name": "f"}}], [("f", {})]),
    "halves of a pair": (
        [{"tool_calls": [piece('{"x": "\ud83c', "f", index=0, id="a")]}, {"tool_calls": [piece('\udf0d"}', index=0)]}],
        [("f", {"x": "🌍"})],
    ),
    "nothing": (
        [{"tool_calls": None, "function_call": None}, {"tool_calls": [{}, None]}, {"function_call": {}}],
        [],
    ),
}


class TestCalls:
    """Streamed calls in every style of the services."""

    @staticmethod
    def told(chunks: list[dict[str, Any]]) -> list[Any]:
        """The joined content of the chunks."""
        assembly, found = Assembly(), []  # type: ignore[var-annotated]
        for event in chunks:
            for item in items(event):
                assembly.take(item, found)
        assembly.close(found)
        return found

    @pytest.mark.parametrize("case", CALLS)
    def test_calls_come_whole(self, case: str) -> None:
        """With arguments, an id, and the finish reason tool_calls, whatever the service's is."""
        deltas, expected = CALLS[case]
        found = self.told([*map(chunk, deltas), chunk({}, "stop")])
        calls = [item for item in found if isinstance(item, ToolCall)]
        assert [(call.name, call.arguments) for call in calls] == expected
        assert all(call.id not in ("", "null") and call.problem is None for call in calls)
        # A call without arguments ends with the stream: some servers send a reason in every chunk.
        assert [item for item in found if isinstance(item, Finish)] == [
            Finish("tool_calls" if expected else "stop", "stop")
        ]
        for item in found:
            if isinstance(item, ToolCallDelta):
                item.arguments.encode()

    def test_two_choices_mixed(self) -> None:
        """Each has its own calls."""
        delta = {"tool_calls": [piece('{"x"', "f", index=0, id="a")]}
        rest = {"tool_calls": [piece(": 1}", index=0)]}
        chunks = [{"choices": [{"index": i, "delta": what}]} for what in (delta, rest) for i in (0, 1)]
        found = self.told([*chunks, {"choices": [{"index": i, "delta": {}, "finish_reason": "stop"} for i in (0, 1)]}])
        call = ToolCall("a", "f", {"x": 1}, '{"x": 1}')
        finish = Finish("tool_calls", "stop")
        assert found[4:] == [call, finish, OtherChoice(1, call), OtherChoice(1, finish)]

    @pytest.mark.parametrize("form", ["tool_calls", "function_call"])
    def test_a_document_with_calls(self, form: str) -> None:
        """Two calls without index are two."""
        calls = [piece('{"x": 1}', "f", id="a"), piece({}, "f", id="b")]
        message = (
            {"content": None, "tool_calls": calls} if form == "tool_calls" else {"function_call": calls[0]["function"]}
        )
        assembly, found = Assembly(), []  # type: ignore[var-annotated]
        for item in decode_completion({"choices": [{"message": message, "finish_reason": form}]}):
            if item is not END:
                assembly.take(item, found)  # type: ignore[arg-type]
        got = [item.arguments for item in found if isinstance(item, ToolCall)]
        assert got == ([{"x": 1}, {}] if form == "tool_calls" else [{"x": 1}])
        assert found[-1] == Finish("tool_calls", form)


SCHEMA = {"title": "City", "type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
TOOL = {"name": "f", "description": "Does.", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}
THOUGHT = {"type": "reasoning", "text": "hm", "signature": "s"}


class TestEncodeMessages:
    """Messages in the body."""

    @staticmethod
    def sent(turn: dict[str, Any], provider: Any = OpenAI) -> dict[str, Any]:
        """A message as it is sent."""
        (message,) = provider.encode(ChatRequest.checked("m", [turn], {})).body["messages"]
        return dict(message)

    def test_parts(self) -> None:
        """Text as a part, anything else unchanged."""
        image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}
        assert self.sent({"role": "user", "content": ["see", image]})["content"] == [
            {"type": "text", "text": "see"},
            image,
        ]

    def test_reasoning_is_left_out(self) -> None:
        """OpenAI accepts none; what remains is text."""
        turn = {"role": "assistant", "content": [THOUGHT, {"type": "text", "text": "4"}]}
        assert self.sent(turn) == {"role": "assistant", "content": "4"}

    def test_reasoning_alone(self) -> None:
        """A turn without calls needs content."""
        assert self.sent({"role": "assistant", "content": [THOUGHT]}) == {"role": "assistant", "content": ""}
        turn = {"role": "assistant", "content": [THOUGHT], "tool_calls": [CALL]}
        assert self.sent(turn) == {"role": "assistant", "content": None, "tool_calls": [CALL]}

    @pytest.mark.parametrize("name", ["deepseek", "moonshot"])
    def test_reasoning_goes_where_the_service_wants_it(self, name: str) -> None:
        """DeepSeek rejects turns with calls without it."""
        provider: Any = providers.look_up(name)
        if provider is None:
            pytest.skip(f"no provider {name}")
        turn = {"role": "assistant", "content": [THOUGHT, "4"], "tool_calls": [CALL]}
        assert self.sent(turn, provider)[provider.reasoning_field] == "hm"

    def test_a_call_is_sent_without_what_others_sign(self) -> None:
        """Arguments as text, with a type."""
        call = {"id": "c", "function": {"name": "f", "arguments": {"x": "ü"}}, "signature": "s"}
        (sent,) = self.sent({"role": "assistant", "content": None, "tool_calls": [call]})["tool_calls"]
        assert sent == {"type": "function", "id": "c", "function": {"name": "f", "arguments": '{"x": "ü"}'}}

    def test_a_result_is_sent_without_what_others_want(self) -> None:
        """Without the tool's name and the failure mark."""
        turn = {"role": "tool", "content": "1", "tool_call_id": "c", "name": "f", "is_error": True}
        assert self.sent(turn) == {"role": "tool", "content": "1", "tool_call_id": "c"}

    def test_a_developer_is_the_system_elsewhere(self) -> None:
        """For services without the role "developer"."""
        turn = {"role": "developer", "content": "x"}
        assert self.sent(turn)["role"] == "developer"
        assert self.sent(turn, OpenAICompatible)["role"] == "system"


class TestEncodeStructure:
    """Tools and structured output."""

    @staticmethod
    def body(messages: Any = "Hi", **params: Any) -> dict[str, Any]:
        """The body of a request."""
        return dict(OpenAI.encode(ChatRequest.checked("m", messages, params)).body)

    def test_tools(self) -> None:
        """In OpenAI's form; a service's own are unchanged."""
        body = self.body(tools=[TOOL, {**TOOL, "name": "g", "strict": True}, {"type": "web_search"}])
        assert body["tools"] == [
            {"type": "function", "function": TOOL},
            {"type": "function", "function": {**TOOL, "name": "g", "strict": True}},
            {"type": "web_search"},
        ]
        assert "tool_choice" not in body

    @pytest.mark.parametrize(
        ("choice", "sent"),
        [
            ("auto", "auto"),
            ("none", "none"),
            ("any", "required"),
            ("f", {"type": "function", "function": {"name": "f"}}),
            ({"type": "allowed_tools"}, {"type": "allowed_tools"}),
        ],
    )
    def test_tool_choice(self, choice: Any, sent: Any) -> None:
        """In OpenAI's words."""
        assert self.body(tools=[TOOL], tool_choice=choice)["tool_choice"] == sent

    def test_a_schema_by_itself(self) -> None:
        """Strict if possible."""
        form = self.body(schema=SCHEMA)["response_format"]
        assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == (
            "json_schema",
            "City",
            True,
        )
        assert form["json_schema"]["schema"]["additionalProperties"] is False
        loose = self.body(schema={"title": "Any", "type": "object"})["response_format"]["json_schema"]
        assert "strict" not in loose

    def test_patterns_with_lookaround_go_into_descriptions(self) -> None:
        """In tools and schemas, strict or not: the service rejects them."""
        looks = {"title": "City", "type": "object", "properties": {"a": {"type": "string", "pattern": "(?!x)"}}}
        told = {"a": {"type": "string", "description": "(pattern: (?!x))"}}
        loose = {**looks, "additionalProperties": True}
        body = self.body(schema=loose, tools=[{"name": "f", "parameters": looks}])
        assert body["tools"][0]["function"]["parameters"]["properties"] == told
        assert body["response_format"]["json_schema"]["schema"]["properties"] == told
        body = self.body(schema=looks, schema_mode="tool")
        assert body["tools"][0]["function"]["parameters"]["properties"] == told
        assert "pattern" not in self.body(schema=looks)["response_format"]["json_schema"]["schema"]["properties"]["a"]

    def test_a_schema_as_a_tool(self) -> None:
        """It must be called."""
        body = self.body(schema=SCHEMA, schema_mode="tool")
        assert [tool["function"]["name"] for tool in body["tools"]] == ["City"]
        assert body["tool_choice"] == {"type": "function", "function": {"name": "City"}}
        assert OpenAI.answer_tool(ChatRequest.checked("m", "Hi", {"schema": SCHEMA, "schema_mode": "tool"})) == "City"
        assert OpenAI.answer_tool(ChatRequest.checked("m", "Hi", {"schema": SCHEMA})) is None

    def test_a_schema_as_a_tool_beside_others(self) -> None:
        """Any call is required, so that the model can use other tools first."""
        body = self.body(schema=SCHEMA, schema_mode="tool", tools=[TOOL])
        assert [tool["function"]["name"] for tool in body["tools"]] == ["f", "City"]
        assert body["tool_choice"] == "required"
        assert self.body(schema=SCHEMA, schema_mode="tool", tools=[TOOL], tool_choice="auto")["tool_choice"] == "auto"

    def test_a_schema_called_as_a_tool_is_refused(self) -> None:
        """The answer could not be told from a call."""
        with pytest.raises(InvalidRequest, match="City"):
            self.body(schema=SCHEMA, schema_mode="tool", tools=[{**TOOL, "name": "City"}])

    def test_a_schema_in_words(self) -> None:
        """For services that only have a JSON mode; added to the existing instructions."""
        body = self.body(
            [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
            schema=SCHEMA,
            schema_mode="json",
        )
        assert body["response_format"] == {"type": "json_object"}
        assert body["messages"][0]["content"].startswith("Be brief.\n\n")
        assert "JSON" in body["messages"][0]["content"]
        alone = self.body(schema=SCHEMA, schema_mode="json")["messages"]
        assert [turn["role"] for turn in alone] == ["system", "user"]

    def test_parameters_by_their_newer_names(self) -> None:
        """A value under the service's own name wins."""
        assert self.body(max_tokens=7)["max_completion_tokens"] == 7
        assert "max_tokens" not in self.body(max_tokens=7)
        assert self.body(max_tokens=7, max_completion_tokens=8)["max_completion_tokens"] == 8
        body = OpenAICompatible.encode(ChatRequest.checked("m", "Hi", {"max_tokens": 7})).body
        assert body["max_tokens"] == 7

    @pytest.mark.parametrize(
        ("model", "params", "refused"),
        [
            ("gpt-5", {"top_k": 1}, {"top_k"}),
            ("o3-mini", {"stop": "x"}, {"stop"}),
            ("gpt-4.1", {"stop": "x"}, set()),
            ("gpt-5", {"reasoning_effort": 1024}, {"reasoning_effort"}),
            ("gpt-5", {"reasoning_effort": "low"}, set()),
        ],
    )
    def test_what_the_service_refuses_is_known(self, model: str, params: dict[str, Any], refused: set[str]) -> None:
        """With what to do instead."""
        found = OpenAI.refusals(ChatRequest.checked(model, "Hi", params))
        assert set(found) == refused
        assert all(found.values())
