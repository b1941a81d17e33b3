"""The Responses API: requests, events and recordings, as tables."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import (
    Client,
    Finish,
    LLMBridgeError,
    ProtocolError,
    RateLimited,
    Reasoning,
    ServerError,
    StreamError,
    StreamTruncated,
    Usage,
    providers,
)
from llmbridge._call.framing import Record
from llmbridge.errors import InvalidRequest
from llmbridge.events import (
    END,
    Citation,
    End,
    EndOfPart,
    Logprobs,
    MediaDelta,
    Other,
    Refusal,
    ServerTool,
    Summary,
    ToolCallDelta,
)
from llmbridge.messages import ChatRequest
from llmbridge.parts import Audio, Document, Image
from llmbridge.providers.openai_responses import OpenAIResponses
from llmbridge.providers.openai_responses.answer import ResponseDecoder
from llmbridge.testing import CLOSE, LLMServer, Reply
from llmbridge.tools import Tool

DATA = Path(__file__).parent.parent / "data" / "transcripts"
PNG = b"\x89PNG\r\n\x1a\n"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "The weather.", SCHEMA)


@dataclass
class City:
    """A value that an answer may have to match."""

    name: str


def sent(messages: Any = "Hi", **params: Any) -> Any:
    """The body for the messages."""
    return OpenAIResponses.encode(ChatRequest.checked("gpt-5-mini", messages, params)).body


def turn(role: str, content: Any) -> dict[str, Any]:
    """A message among the items."""
    return {"type": "message", "role": role, "content": content}


def call(id: str, arguments: Any = '{"city": "Oslo"}') -> dict[str, Any]:
    """A call in an assistant's message."""
    return {"id": id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


class TestItems:
    """The conversation."""

    def test_a_plain_question(self) -> None:
        """The input is one message."""
        assert sent() == {"model": "gpt-5-mini", "input": [turn("user", "Hi")], "stream": True}

    def test_what_the_system_says_first_is_the_instructions(self) -> None:
        """Later system messages stay in their place."""
        turns = [("system", "A"), ("developer", "B"), ("user", "x"), ("system", "C"), ("user", "y")]
        body = sent([{"role": role, "content": text} for role, text in turns])
        assert body["instructions"] == "A\n\nB"
        assert body["input"] == [turn("user", "x"), turn("system", "C"), turn("user", "y")]

    def test_own_instructions_leave_the_messages_alone(self) -> None:
        """They are the caller's."""
        body = sent([{"role": "system", "content": "A"}, {"role": "user", "content": "x"}], instructions="mine")
        assert body["instructions"] == "mine"
        assert body["input"] == [turn("system", "A"), turn("user", "x")]

    def test_instructions_alone_are_messages(self) -> None:
        """The service needs some input."""
        body = sent([{"role": "system", "content": "A"}])
        assert body["input"] == [turn("system", "A")]
        assert "instructions" not in body

    @pytest.mark.parametrize(
        ("part", "item"),
        [
            ("x", {"type": "input_text", "text": "x"}),
            ({"type": "text", "text": "x"}, {"type": "input_text", "text": "x"}),
            (
                Image(PNG, detail="low"),
                {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
            ),
            (Image("https://x.y/a.png"), {"type": "input_image", "image_url": "https://x.y/a.png"}),
            (
                Document(b"%PDF-1", "a.pdf"),
                {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0x"},
            ),
            (Document("https://x.y/a.pdf"), {"type": "input_file", "file_url": "https://x.y/a.pdf"}),
            ({"type": "file", "file": {"file_id": "file-1"}}, {"type": "input_file", "file_id": "file-1"}),
            (Audio(b"ID3x"), {"type": "input_audio", "input_audio": {"data": "SUQzeA==", "format": "mp3"}}),
            ({"type": "input_image", "file_id": "f"}, {"type": "input_image", "file_id": "f"}),
        ],
    )
    def test_a_part_is_translated(self, part: Any, item: dict[str, Any]) -> None:
        """Unknown parts are sent unchanged."""
        assert sent([{"role": "user", "content": [part]}])["input"] == [turn("user", [item])]

    def test_an_image_that_cannot_be_read_is_named(self) -> None:
        """The message and its part; names of speakers are left out."""
        spoken = {"role": "user", "content": "x", "name": "Ann"}
        assert sent([spoken])["input"] == [turn("user", "x")]
        broken = ["x", {"type": "image_url"}]
        for told in ({"role": "user", "content": broken}, {"role": "tool", "tool_call_id": "c", "content": broken}):
            with pytest.raises(InvalidRequest, match=r"messages\[1\]: content\[1\]: an image_url part needs"):
                sent([spoken, told])

    def test_calls_and_results(self) -> None:
        """They are separate items, after the model's text."""
        body = sent(
            [
                {"role": "user", "content": "x"},
                {"role": "assistant", "content": "Wait.", "tool_calls": [call("c1"), call("c2", {})]},
                {"role": "tool", "tool_call_id": "c1", "name": "weather", "content": "sun"},
                {"role": "tool", "tool_call_id": "c2", "content": [Image(PNG)], "is_error": True},
            ]
        )
        assert body["input"][1:] == [
            turn("assistant", "Wait."),
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Oslo"}'},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "sun"},
            {
                "type": "function_call_output",
                "call_id": "c2",
                "output": [{"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}],
            },
        ]

    def test_ids_that_are_too_long(self) -> None:
        """Those longer than 64 characters are replaced in the call and its result."""
        long, fits = "x" * 65, "x" * 64
        calls = [call(long), call(fits)]
        results = [{"role": "tool", "tool_call_id": id, "content": "sun"} for id in (long, fits)]
        items = sent([{"role": "assistant", "content": None, "tool_calls": calls}, *results])["input"]
        assert [item["call_id"] for item in items] == [items[0]["call_id"], fits] * 2
        assert len(items[0]["call_id"]) <= 64

    def test_calls_alone_have_no_message(self) -> None:
        """The service would reject an empty one."""
        body = sent([{"role": "assistant", "content": None, "tool_calls": [call("c1")]}])
        assert [item["type"] for item in body["input"]] == ["function_call"]

    def test_a_result_without_its_call_is_refused(self) -> None:
        """The error names it."""
        with pytest.raises(InvalidRequest, match=r"messages\[0\].*tool_call_id"):
            sent([{"role": "tool", "content": "x"}])

    @pytest.mark.parametrize(
        ("parts", "items"),
        [
            (
                [{"type": "reasoning", "text": "hm", "signature": "rs_1:ENC"}, {"type": "text", "text": "a"}],
                [
                    {
                        "type": "reasoning",
                        "id": "rs_1",
                        "summary": [{"type": "summary_text", "text": "hm"}],
                        "encrypted_content": "ENC",
                    },
                    turn("assistant", "a"),
                ],
            ),
            (
                [{"type": "reasoning", "text": "", "signature": ":ENC"}],
                [{"type": "reasoning", "summary": [], "encrypted_content": "ENC"}],
            ),
            (
                [
                    {"type": "reasoning", "text": "", "signature": ":ENC1"},
                    "a",
                    {"type": "reasoning", "text": "", "signature": ":ENC2"},
                    "b",
                ],
                [
                    {"type": "reasoning", "summary": [], "encrypted_content": "ENC1"},
                    turn("assistant", "a"),
                    {"type": "reasoning", "summary": [], "encrypted_content": "ENC2"},
                    turn("assistant", "b"),
                ],
            ),
            ([{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "a"}], [turn("assistant", "a")]),
            ([{"type": "reasoning", "text": "hm", "signature": "EqQB"}, "a"], [turn("assistant", "a")]),
            ([{"type": "reasoning", "redacted": "R"}, "a", "b"], [turn("assistant", "ab")]),
            (
                ["a", {"type": "refusal", "refusal": "No."}],
                [turn("assistant", [{"type": "output_text", "text": "a"}, {"type": "refusal", "refusal": "No."}])],
            ),
        ],
    )
    def test_reasoning_goes_back_if_the_service_encrypted_it(self, parts: list[Any], items: list[Any]) -> None:
        """Other services' signatures are not sent."""
        assert sent([{"role": "assistant", "content": parts}])["input"] == items


# Name: parameters, and what they add to the body.
PARAMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "max_tokens": ({"max_tokens": 9}, {"max_output_tokens": 9}),
    "max_completion_tokens": ({"max_completion_tokens": 9}, {"max_output_tokens": 9}),
    "own name wins": ({"max_tokens": 9, "max_output_tokens": 5}, {"max_output_tokens": 5}),
    "temperature": ({"temperature": 0.5, "top_p": 1}, {"temperature": 0.5, "top_p": 1}),
    "effort": ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
    "effort and summary": (
        {"reasoning_effort": "low", "reasoning": {"summary": "auto"}},
        {"reasoning": {"effort": "low", "summary": "auto"}},
    ),
    "own effort wins": (
        {"reasoning_effort": "low", "reasoning": {"effort": "high"}},
        {"reasoning": {"effort": "high"}},
    ),
    "effort None": ({"reasoning_effort": None}, {}),
    "json": ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
    "json_schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}}},
    ),
    "json_schema in the service's own form": (
        {"response_format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}},
    ),
    "verbosity": (
        {"verbosity": "low", "text": {"format": {"type": "text"}}},
        {"text": {"verbosity": "low", "format": {"type": "text"}}},
    ),
    "logprobs": (
        {"logprobs": True, "top_logprobs": 2, "include": ["x"]},
        {"top_logprobs": 2, "include": ["x", "message.output_text.logprobs"]},
    ),
    "no logprobs": ({"logprobs": False}, {}),
    "others": (
        {
            "store": False,
            "previous_response_id": "r",
            "parallel_tool_calls": False,
            "metadata": {"a": "b"},
            "user": "u",
        },
        {
            "store": False,
            "previous_response_id": "r",
            "parallel_tool_calls": False,
            "metadata": {"a": "b"},
            "user": "u",
        },
    ),
    "no stream": ({"stream": False}, {"stream": False}),
}


class TestParameters:
    """All parameters."""

    @pytest.mark.parametrize("name", PARAMS)
    def test_parameters_are_in_the_services_places(self, name: str) -> None:
        """Under the service's name."""
        params, added = PARAMS[name]
        assert sent(**params) == {**sent(), **added}

    @pytest.mark.parametrize(
        "params",
        [
            {"reasoning_effort": "low", "reasoning": 7},
            {"text": 7},
            {"logprobs": True, "include": "x"},
            {"response_format": "json"},
            {"response_format": {}},
        ],
    )
    def test_a_wrong_value_is_refused(self, params: dict[str, Any]) -> None:
        """Before sending."""
        with pytest.raises(InvalidRequest):
            sent(**params)

    def test_what_the_service_refuses_is_named(self) -> None:
        """With advice; an effort must be a word."""
        names = ["stop", "n", "seed", "presence_penalty", "frequency_penalty", "logit_bias", "top_k"]
        params = {**dict.fromkeys(names, 2), "reasoning_effort": 1024}
        assert set(OpenAIResponses.refusals(ChatRequest.checked("m", "Hi", params))) == {*names, "reasoning_effort"}
        assert not OpenAIResponses.refusals(ChatRequest.checked("m", "Hi", {"reasoning_effort": "low"}))

    @pytest.mark.parametrize(
        ("model", "params", "refused"),
        [
            ("gpt-5-mini", {"temperature": 0, "top_p": 0.5, "logprobs": True}, {"temperature", "top_p", "logprobs"}),
            ("gpt-5-mini", {"temperature": 1, "top_p": 1}, set()),
            ("o3", {"top_logprobs": 2, "max_tokens": 5}, {"top_logprobs"}),
            ("gpt-5.2", {"temperature": 0}, set()),
            ("gpt-5.2", {"temperature": 0, "reasoning_effort": "low"}, {"temperature"}),
            ("gpt-4.1", {"temperature": 0, "top_p": 0.5, "logprobs": True}, set()),
            ("qwen3-8b", {"temperature": 0}, set()),
        ],
    )
    def test_what_a_model_refuses_is_known(self, model: str, params: dict[str, Any], refused: set[str]) -> None:
        """As in the older dialect."""
        assert set(OpenAIResponses.refusals(ChatRequest.checked(model, "Hi", params))) == refused


FUNCTION = {"type": "function", "name": "weather", "description": "The weather.", "parameters": WEATHER.parameters}


class TestTools:
    """Tools in the body, and the answer's form."""

    def test_a_function_is_flat_and_says_whether_it_is_strict(self) -> None:
        """The service's default differs from that of its older dialect."""
        tools = [WEATHER, Tool("now", strict=True), {"type": "web_search"}]
        first, second, third = sent(tools=tools)["tools"]
        assert first == {**FUNCTION, "strict": False}
        assert (second["name"], second["strict"], "description" in second) == ("now", True, False)
        assert third == {"type": "web_search"}

    @pytest.mark.parametrize(
        ("choice", "value"),
        [
            ("auto", "auto"),
            ("none", "none"),
            ("required", "required"),
            ("weather", {"type": "function", "name": "weather"}),
            ({"type": "allowed_tools", "mode": "auto", "tools": []},) * 2,
        ],
    )
    def test_the_choice(self, choice: Any, value: Any) -> None:
        """A mapping may be the service's own."""
        assert sent(tools=[WEATHER], tool_choice=choice)["tool_choice"] == value

    def test_a_schema(self) -> None:
        """Strict if possible, beside other settings of the text."""
        body = sent(schema=City, text={"verbosity": "low"})
        assert body["text"]["verbosity"] == "low"
        form = body["text"]["format"]
        assert (form["type"], form["name"], form["strict"]) == ("json_schema", "City", True)
        assert form["schema"]["properties"] == {"name": {"type": "string"}}

    def test_patterns_with_lookaround_go_into_descriptions(self) -> None:
        """In tools and schemas."""
        looks = {"title": "City", "type": "object", "properties": {"a": {"type": "string", "pattern": "(?!x)"}}}
        told = {"a": {"type": "string", "description": "(pattern: (?!x))"}}
        tools = sent(schema=looks, schema_mode="tool", tools=[{"name": "f", "parameters": looks}])["tools"]
        assert [tool["parameters"]["properties"] for tool in tools] == [told, told]
        form = sent(schema={**looks, "additionalProperties": True})["text"]["format"]
        assert form["schema"]["properties"] == told

    def test_a_schema_as_a_tool(self) -> None:
        """A forced function, whose arguments are the answer; other tools can still be called."""
        request = ChatRequest.checked("m", "Hi", {"schema": City, "schema_mode": "tool"})
        body: Any = OpenAIResponses.encode(request).body
        assert body["tool_choice"] == {"type": "function", "name": "City"}
        assert [tool["name"] for tool in body["tools"]] == ["City"]
        assert OpenAIResponses.answer_tool(request) == "City"
        body = sent(schema=City, schema_mode="tool", tools=[WEATHER])
        assert body["tool_choice"] == "required"
        assert [tool["name"] for tool in body["tools"]] == ["weather", "City"]

    def test_a_schema_as_json(self) -> None:
        """The word JSON must be in a message."""
        body = sent([{"role": "system", "content": "A"}, {"role": "user", "content": "x"}], schema=City,
                    schema_mode="json")  # fmt: skip
        assert body["text"] == {"format": {"type": "json_object"}}
        assert body["instructions"] == "A"
        assert body["input"][0]["role"] == "system"
        assert "JSON" in body["input"][0]["content"]
        assert '"name"' in body["input"][0]["content"]

    def test_only_a_schema_as_a_tool_has_an_answer_tool(self) -> None:
        """Otherwise the text is the answer."""
        assert OpenAIResponses.answer_tool(ChatRequest.checked("m", "Hi", {"schema": City})) is None


def items(data: Any, event: str = "message") -> list[Any]:
    """The items of an event; data that is not a str is sent as JSON."""
    return list(OpenAIResponses.decode(Record(data if isinstance(data, str) else json.dumps(data), event)))


def event(kind: str, **more: Any) -> dict[str, Any]:
    """An event of the service's."""
    return {"type": f"response.{kind}", **more}


USAGE = {
    "input_tokens": 11,
    "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 2},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 18,
}
COUNTED = Usage(11, 7, 18, 3, 2, 5)
CALL = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": ""}
WHOLE = {**CALL, "arguments": '{"a":1}'}
LIMIT = {"incomplete_details": {"reason": "max_output_tokens"}, "usage": USAGE}

# Name: the event, and its items.
EVENTS: dict[str, tuple[Any, list[Any]]] = {
    "text": (event("output_text.delta", delta="Hi", item_id="m", output_index=0, content_index=0), ["Hi"]),
    "text with empty logprobs": (event("output_text.delta", delta="Hi", logprobs=[]), ["Hi"]),
    "text with logprobs": (event("output_text.delta", delta="Hi", logprobs=[{"token": "Hi"}]),
                           ["Hi", Logprobs(({"token": "Hi"},))]),
    "empty text": (event("output_text.delta", delta=""), []),
    "text in an object": (event("output_text.delta", delta={"text": "Hi"}), ["Hi"]),
    "the whole text alone": (event("output_text.done", text="Hi"), ["Hi"]),
    "a whole refusal alone": (event("refusal.done", refusal="No."), [Refusal("No.")]),
    "a whole part alone": (event("content_part.done", part={"type": "output_text", "text": "Hi"}), ["Hi"]),
    "a whole thought alone": (event("reasoning_summary_text.done", text="hm"), [Reasoning("hm")]),
    "a refusal": (event("refusal.delta", delta="No."), [Refusal("No.")]),
    "reasoning": (event("reasoning_text.delta", delta="hm"), [Reasoning("hm")]),
    "a summary": (event("reasoning_summary_text.delta", delta="hm"), [Reasoning("hm")]),
    "the first part of a summary": (event("reasoning_summary_part.added", summary_index=0), []),
    "another part of a summary": (event("reasoning_summary_part.added", summary_index=1), [Reasoning("\n\n")]),
    "encrypted reasoning": (
        event("output_item.done", item={"type": "reasoning", "id": "rs_1", "encrypted_content": "ENC", "summary": []}),
        [Reasoning("", raw={"type": "reasoning", "id": "rs_1", "encrypted_content": "ENC", "summary": []})],
    ),
    "reasoning that is not encrypted": (
        event("output_item.done", item={"type": "reasoning", "id": "rs_1"}),
        [Reasoning("", raw={"type": "reasoning", "id": "rs_1"})],
    ),
    "a call begins": (event("output_item.added", output_index=2, item=CALL), [ToolCallDelta(2, "c1", "f")]),
    "a call with its arguments": (
        event("output_item.added", output_index=2, item={**CALL, "arguments": "{}"}),
        [ToolCallDelta(2, "c1", "f", "{}")],
    ),
    "a call of llama.cpp": (
        event("output_item.added", item={"type": "function_call", "call_id": "fc_1", "name": "f", "arguments": ""}),
        [ToolCallDelta(None, "fc_1", "f")],
    ),
    "arguments": (event("function_call_arguments.delta", output_index=2, item_id="fc_1", delta="{"),
                  [ToolCallDelta(2, None, None, "{")]),
    "arguments without an index": (event("function_call_arguments.delta", item_id="fc_1", delta="{"),
                                   [ToolCallDelta(None, None, None, "{")]),
    "whole arguments": (event("function_call_arguments.done", output_index=2, arguments="{}"), []),
    "a call ends": (event("output_item.done", output_index=2, item={**CALL, "arguments": "{}"}),
                    [ToolCallDelta(2, "c1", "f", "{}", whole=True)]),
    "a message begins": (event("output_item.added", output_index=0, item={"type": "message"}), []),
    "the service's own tool": (event("web_search_call.searching", output_index=0), []),
    "it begins": (event("created", response={"status": "in_progress", "output": []}), []),
    "it ends": (event("completed", response={"status": "completed", "usage": USAGE}),
                [COUNTED, Finish("stop", "completed"), END]),
    "it ends without tokens": (event("completed", response={"usage": None}), [Finish("stop", "completed"), END]),
    "it ends at the limit": (event("incomplete", response=LIMIT),
                             [COUNTED, Finish("length", "max_output_tokens"), END]),
    "it ends at the filter": (event("incomplete", response={"incomplete_details": {"reason": "content_filter"}}),
                              [Finish("content_filter", "content_filter"), END]),
    "it ends for a new reason": (event("incomplete", response={"incomplete_details": {"reason": "x"}}),
                                 [Finish("other", "x"), END]),
    "it ends for no reason": (event("incomplete", response={}), [Finish("other", "incomplete"), END]),
    "it was cancelled": (event("cancelled", response={}), [Finish("error", "cancelled"), END]),
    "a heartbeat": ({"type": "ping"}, []),
    "an event without a type": ({}, []),
    "a type of a wrong type": ({"type": 7}, [Other("type", {"type": 7})]),
    "nothing": ("", []),
    "a gateway's end mark": ("[DONE]", [END]),
}  # fmt: skip

DOCUMENT: dict[str, Any] = {
    "object": "response",
    "status": "completed",
    "error": None,
    "output": [
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "ENC",
         "summary": [{"type": "summary_text", "text": "a"}, {"type": "summary_text", "text": "b"}]},
        {"type": "message", "content": [{"type": "output_text", "text": "Hi", "logprobs": [{"token": "Hi"}]},
                                        {"type": "refusal", "refusal": "No."}]},
        {**CALL, "arguments": "{}"},
        {"type": "web_search_call"},
    ],
    "usage": USAGE,
}  # fmt: skip


class TestEvents:
    """The content of an event."""

    @pytest.mark.parametrize("name", EVENTS)
    def test_an_event(self, name: str) -> None:
        """With the fast decoder or the full one."""
        data, expected = EVENTS[name]
        assert items(data) == expected

    @pytest.mark.parametrize("name", [name for name, (data, _) in EVENTS.items() if isinstance(data, dict)])
    def test_the_fast_way_says_the_same_as_the_slow_one(self, name: str) -> None:
        """It only saves time."""
        usual, frame = Record(json.dumps(EVENTS["text"][0])), Record(json.dumps(EVENTS[name][0]))
        decode, slow = ResponseDecoder().decode, ResponseDecoder()
        assert list(decode(usual)) == list(slow._read_frame(usual))
        assert list(decode(frame)) == list(slow._read_frame(frame))

    def test_text_is_found_out_fast(self) -> None:
        """Without a generator, once the keys of a piece are known."""
        decode, usual = ResponseDecoder().decode, Record(json.dumps(EVENTS["text"][0]))
        assert [list(decode(usual)), list(decode(usual))] == [["Hi"], ["Hi"]]
        assert isinstance(decode(usual), tuple)

    @pytest.mark.parametrize(
        ("data", "name", "error"),
        [
            (event("failed", response={"error": {"code": "server_error", "message": "x"}}), "message", ServerError),
            (event("failed", response={"error": {"code": "rate_limit_exceeded"}}), "message", RateLimited),
            (event("failed", response={}), "message", LLMBridgeError),
            ({"type": "error", "code": "server_error", "message": "x", "param": None}, "message", ServerError),
            ({"type": "error", "code": "server_error", "message": "x", "param": None}, "error", ServerError),
            ({"type": "error", "error": {"type": "server_error", "message": "x"}}, "error", ServerError),
            ({"error": {"message": "x", "code": 500}}, "message", ServerError),
            ("Bad gateway", "error", LLMBridgeError),
            ("{broken", "message", ProtocolError),
            ("7", "message", ProtocolError),
            ("[1]", "message", LLMBridgeError),
            (event("output_text.delta", delta=7), "message", ProtocolError),
            (event("output_item.done", item={"type": "message", "content": [{"text": [1]}]}), "message", ProtocolError),
        ],
    )
    def test_an_error(self, data: Any, name: str, error: type[LLMBridgeError]) -> None:
        """It has the class that it names."""
        with pytest.raises(error):
            items(data, name)

    def test_a_failure_counts_its_tokens(self) -> None:
        """They come before the error."""
        found: list[Any] = []
        failed = event("failed", response={"error": {"code": "server_error", "message": "boom"}, "usage": USAGE})
        with pytest.raises(ServerError, match="boom"):
            found.extend(OpenAIResponses.decode(Record(json.dumps(failed))))
        assert found == [COUNTED]

    def test_a_document(self) -> None:
        """A whole answer gives the same items as its stream."""
        said = [item for item in OpenAIResponses.decode_document(DOCUMENT) if not isinstance(item, EndOfPart)]
        assert said == [
            *(Reasoning("a\n\nb"), Reasoning("", raw=DOCUMENT["output"][0]), "Hi", Logprobs(({"token": "Hi"},))),
            *(Refusal("No."), ToolCallDelta(2, "c1", "f", "{}", whole=True, raw=CALL)),
            *(ServerTool("", "web_search", raw={"type": "web_search_call"}), COUNTED, Finish("stop", "completed"), END),
        ]

    @pytest.mark.parametrize(
        ("change", "end"),
        [
            ({"status": "incomplete", **LIMIT}, Finish("length", "max_output_tokens")),
            ({"status": "halted"}, Finish("other", "halted")),
            ({"status": "incomplete", "incomplete_details": {"reason": "null"}}, Finish("other", "incomplete")),
            ({"status": "cancelled"}, Finish("error", "cancelled")),
            ({"status": None}, Finish("stop", "")),
        ],
    )
    def test_the_end_of_a_document(self, change: dict[str, Any], end: Finish) -> None:
        """It depends on the status."""
        assert list(OpenAIResponses.decode_document({**DOCUMENT, **change}))[-2:] == [end, END]

    @pytest.mark.parametrize(
        ("document", "error"),
        [
            ({**DOCUMENT, "status": "failed", "error": {"code": "server_error", "message": "x"}}, ServerError),
            ({"error": {"message": "x", "code": 500}}, ServerError),
            ({"detail": "Not Found"}, LLMBridgeError),
            ([{"error": "x"}], LLMBridgeError),
            ({"choices": []}, ProtocolError),
            ([], ProtocolError),
            (7, ProtocolError),
        ],
    )
    def test_another_document_is_an_error(self, document: Any, error: type[LLMBridgeError]) -> None:
        """Never a KeyError."""
        with pytest.raises(error):
            list(OpenAIResponses.decode_document(document))


NAMES = (
    "type delta item id call_id name arguments output output_index response status usage input_tokens content text "
    "refusal summary encrypted_content incomplete_details reason error message code input_tokens_details logprobs"
).split()
KINDS = sorted({data["type"] for data, _ in EVENTS.values() if isinstance(data, dict) and "type" in data}, key=str)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.sampled_from(["", "\ud83d", "failed", "reasoning", *KINDS]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip
VOCABULARY = (
    *(str, Refusal, Reasoning, Usage, Finish, End, ToolCallDelta, Logprobs),
    *(Citation, EndOfPart, MediaDelta, Other, ServerTool, Summary),
)


def check(found: Iterable[Any]) -> None:
    """Checks that every item is a known one."""
    for item in found:
        assert isinstance(item, VOCABULARY)
        assert item != ""


@pytest.mark.slow
@given(value=ANY_JSON, kind=st.sampled_from(KINDS))
def test_any_json_is_items_or_an_error_of_the_tree(value: Any, kind: Any) -> None:
    """P10, in the dialect's own words."""
    data = {**value, "type": kind} if isinstance(value, dict) else value
    with contextlib.suppress(LLMBridgeError):
        check(OpenAIResponses.decode(Record(json.dumps(data))))
    with contextlib.suppress(LLMBridgeError):
        check(OpenAIResponses.decode_document(value))
    with contextlib.suppress(LLMBridgeError):
        check(OpenAIResponses.decode_document({"output": value, "status": kind}))


def ask(client: Client, server: LLMServer, **params: Any) -> Any:
    """A call with a scripted answer."""
    return client.chat(
        "Hello", "openai-responses:m", base_url=server.root, api_key="sk-1234567", proxy=False, timeout=20, **params
    )


ENGINE = "Hello from a real engine: Grüße, 世界 🌍 bye."
NOTHING = Usage(0, 0, 0)


def used(prompt: int, answer: int) -> Usage:
    """Tokens with all details, as transformers counts them."""
    return Usage(prompt, answer, prompt + answer, 0, 0, 0)


# Name: text, reason, tokens, reasoning, calls.
ANSWERS: dict[str, tuple[str, str, Usage, str, list[tuple[str, str, Any]]]] = {
    "aimock/responses_nostream": ("Counted answer.", "stop", Usage(11, 7, 18), "", []),
    "aimock/responses_reasoning": ("The answer is 4.", "stop", NOTHING, "Two and two make four.", []),
    "aimock/responses_text": ("Hello from a real server. Grüße, 世界 🌍!", "stop", NOTHING, "", []),
    "aimock/responses_tool": (
        *("", "tool_calls", NOTHING, ""),
        [("call_peer_0", "get_weather", {"city": "San Francisco", "unit": "fahrenheit"})],
    ),
    "transformers/responses_nostream": (ENGINE, "stop", used(22, 13), "", []),
    "transformers/responses_reasoning": (
        *("\n\nThe answer is 4.", "stop", used(30, 9), "\nTwo and two make four.\n", []),
    ),
    "transformers/responses_text": (ENGINE, "stop", used(22, 13), "", []),
    "transformers/responses_tool": (
        *("", "tool_calls", used(311, 7), ""),
        [("5cb0e446-8a0f-4efa-bd8e-b820843f29e9_tool_call_0", "get_weather", {"city": "Zürich"})],
    ),
}
FAILURES: dict[str, tuple[type[LLMBridgeError], str]] = {
    "aimock/responses_err429": (RateLimited, "Rate limit exceeded"),
}


class TestOverTheWire:
    """The whole way, with a loopback server."""

    def test_it_is_found_by_its_name(self) -> None:
        """Although its module has another name."""
        assert providers.find("openai-responses") is OpenAIResponses

    def test_every_recording_is_here(self) -> None:
        """Every recording is checked."""
        found = {f"{path.parent.name}/{path.stem}" for path in DATA.glob("*/responses_*.txt")}
        assert found == {*ANSWERS, *FAILURES}

    @pytest.mark.parametrize("split", [None, 1])
    @pytest.mark.parametrize("name", ANSWERS)
    def test_a_recorded_answer(self, server: LLMServer, name: str, split: int | None) -> None:
        """Whole and byte by byte."""
        text, reason, usage, reasoning, calls = ANSWERS[name]
        server.script(Reply(raw=[(DATA / f"{name}.txt").read_bytes()], split=split))
        with Client(retries=0) as client:
            answer = ask(client, server).complete()
        assert (answer.text, answer.finish_reason, answer.raw_finish_reason) == (text, reason, "completed")
        assert (answer.usage, answer.reasoning) == (usage, reasoning)
        assert [(call.id, call.name, dict(call.arguments)) for call in answer.tool_calls] == calls

    @pytest.mark.parametrize("split", [None, 1])
    @pytest.mark.parametrize("name", FAILURES)
    def test_a_recorded_error(self, server: LLMServer, name: str, split: int | None) -> None:
        """Whole and byte by byte."""
        error, says = FAILURES[name]
        server.script(Reply(raw=[(DATA / f"{name}.txt").read_bytes()], split=split))
        with Client(retries=0) as client, pytest.raises(error, match=says) as caught:
            ask(client, server).complete()
        assert type(caught.value) is error

    @pytest.mark.parametrize("name", ["aimock/responses_text", "transformers/responses_text"])
    def test_a_recording_without_its_last_event_is_truncated(self, server: LLMServer, name: str) -> None:
        """There is no other end mark."""
        raw = (DATA / f"{name}.txt").read_bytes()
        server.script(Reply(raw=[raw[: raw.rindex(b"data: ")], CLOSE]))
        with Client(retries=0) as client, pytest.raises(StreamTruncated) as caught:
            ask(client, server).complete()
        assert caught.value.partial == ANSWERS[name][0]

    # Name: the events after the start of an answer, as kind and fields, and the arguments of the calls.
    ENDS: ClassVar[dict[str, tuple[list[tuple[str, dict[str, Any]]], list[dict[str, Any]]]]] = {
        "only its end": ([("output_item.done", {"output_index": 0, "item": WHOLE})], [{"a": 1}]),
        "only its end, without an index": ([("output_item.done", {"item": WHOLE})], [{"a": 1}]),
        "its beginning and its end": (
            [
                ("output_item.added", {"output_index": 0, "item": {**WHOLE, "arguments": ""}}),
                ("output_item.done", {"output_index": 0, "item": WHOLE}),
            ],
            [{"a": 1}],
        ),
        "a beginning with arguments": (
            [
                ("output_item.added", {"output_index": 0, "item": WHOLE}),
                ("output_item.done", {"output_index": 0, "item": {**WHOLE, "call_id": "c2"}}),
            ],
            [{"a": 1}],
        ),
        "pieces, and an end of another id": (
            [
                ("output_item.added", {"output_index": 0, "item": {**WHOLE, "arguments": ""}}),
                ("function_call_arguments.delta", {"output_index": 0, "delta": '{"a":1}'}),
                ("output_item.done", {"output_index": 0, "item": {**WHOLE, "call_id": "c2"}}),
            ],
            [{"a": 1}],
        ),
        "pieces of nobody": (
            [
                ("output_item.added", {"item": {**WHOLE, "arguments": ""}}),
                ("function_call_arguments.delta", {"delta": '{"a":1}'}),
                ("output_item.done", {"item": WHOLE}),
            ],
            [{"a": 1}],
        ),
        "no arguments": (
            [
                ("output_item.added", {"output_index": 0, "item": {**WHOLE, "arguments": ""}}),
                ("output_item.done", {"output_index": 0, "item": {**WHOLE, "arguments": ""}}),
            ],
            [{}],
        ),
        "two calls": (
            [
                ("output_item.added", {"output_index": 0, "item": {**WHOLE, "arguments": ""}}),
                ("function_call_arguments.delta", {"output_index": 0, "item_id": "fc", "delta": '{"a":2}'}),
                ("output_item.done", {"output_index": 0, "item": WHOLE}),
                ("output_item.done", {"output_index": 1, "item": {**WHOLE, "call_id": "c2", "id": "fc_2"}}),
            ],
            [{"a": 2}, {"a": 1}],
        ),
    }

    @pytest.mark.parametrize("split", [None, 1])
    @pytest.mark.parametrize("name", ENDS)
    def test_a_call_counts_once_in_every_form(self, server: LLMServer, name: str, split: int | None) -> None:
        """In pieces, at its end, or both."""
        told, expected = self.ENDS[name]
        events = [*(event(kind, **fields) for kind, fields in told), event("completed", response={})]
        body = "".join(f"data: {json.dumps(item)}\n\n" for item in events)
        server.script(Reply(body=body, content_type="text/event-stream", split=split))
        with Client(retries=0) as client:
            answer = ask(client, server).complete()
        assert [dict(call.arguments) for call in answer.tool_calls] == expected
        assert answer.finish_reason == "tool_calls"

    # Name: the events before the last one, and the whole answer: text, reasoning, signatures, calls.
    LASTS: ClassVar[dict[str, tuple[list[dict[str, Any]], tuple[str, str, list[str], list[Any]]]]] = {
        "nothing": ([], ("Hi", "hm", ["rs_1:ENC"], [{"a": 1}])),
        "the text": (
            [event("output_text.delta", delta="Hello")],
            ("Hello", "hm", ["rs_1:ENC"], [{"a": 1}]),
        ),
        "the refusal": ([event("refusal.delta", delta="No.")], ("No.", "hm", ["rs_1:ENC"], [{"a": 1}])),
        "the reasoning": (
            [event("reasoning_summary_text.delta", delta="so")],
            ("Hi", "so", ["rs_1:ENC"], [{"a": 1}]),
        ),
        "the signature": (
            [event("output_item.done", item={"type": "reasoning", "id": "rs_0", "encrypted_content": "OLD"})],
            ("Hi", "hm", ["rs_0:OLD"], [{"a": 1}]),
        ),
        "the call's end": (
            [event("output_item.done", output_index=2, item={**WHOLE, "arguments": '{"a":2}'})],
            ("Hi", "hm", ["rs_1:ENC"], [{"a": 2}]),
        ),
        "the call in pieces": (
            [
                event("output_item.added", output_index=2, item=CALL),
                event("function_call_arguments.delta", output_index=2, delta='{"a":2}'),
            ],
            ("Hi", "hm", ["rs_1:ENC"], [{"a": 2}]),
        ),
        "the call in pieces of nobody": (
            [event("function_call_arguments.delta", delta='{"a":2}')],
            ("Hi", "hm", ["rs_1:ENC"], [{"a": 2}]),
        ),
        "the call's beginning": (
            [event("output_item.added", output_index=2, item=CALL)],
            ("Hi", "hm", ["rs_1:ENC"], [{"a": 1}]),
        ),
        "the call by other names": (
            [event("output_item.done", item={**WHOLE, "id": "x", "call_id": "y", "arguments": '{"a":2}'})],
            ("Hi", "hm", ["rs_1:ENC"], [{"a": 2}]),
        ),
    }

    @pytest.mark.parametrize("split", [None, 1])
    @pytest.mark.parametrize("name", LASTS)
    def test_the_last_event_adds_what_is_missing(self, server: LLMServer, name: str, split: int | None) -> None:
        """Nothing is lost if a service sends everything at the end, and nothing is doubled."""
        told, expected = self.LASTS[name]
        output = [
            {
                "type": "reasoning",
                "id": "rs_1",
                "encrypted_content": "ENC",
                "summary": [{"type": "summary_text", "text": "hm"}],
            },
            {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
            WHOLE,
        ]
        events = [*told, event("completed", response={"status": "completed", "output": output})]
        body = "".join(f"data: {json.dumps(item)}\n\n" for item in events)
        server.script(Reply(body=body, content_type="text/event-stream", split=split))
        with Client(retries=0) as client:
            answer = ask(client, server).complete()
        parts = answer.message.content
        proofs = [part["raw"] for part in parts if part["type"] == "reasoning" and part.get("raw")]
        signatures = [f"{item['id']}:{item['encrypted_content']}" for item in proofs]
        calls = [call.arguments for call in answer.tool_calls]
        assert (answer.text, answer.reasoning, signatures, calls) == expected

    @pytest.mark.parametrize("escaped", [False, True])
    def test_p18_a_key_in_the_last_event_is_masked(self, server: LLMServer, escaped: bool) -> None:
        """Also if its JSON has escapes in the key."""
        key = "sk-1234567"
        failed = {"output": [], "error": {"code": "invalid", "message": f"bad key {key}"}}
        body = f"data: {json.dumps(event('failed', response=failed))}\n\n"
        body = body.replace(key, key.replace("-", "\\u002d")) if escaped else body
        server.script(Reply(body=body, content_type="text/event-stream"))
        with Client(retries=0) as client, pytest.raises(StreamError) as caught:
            ask(client, server).complete()
        assert "bad key ***" in str(caught.value)
        assert key not in repr(vars(caught.value))

    def test_an_answer_by_a_tool_is_not_repeated(self, server: LLMServer) -> None:
        """Its arguments are the text."""
        item = {**WHOLE, "name": "answer", "arguments": ""}
        events = [
            event("output_item.added", output_index=0, item=item),
            event("function_call_arguments.delta", output_index=0, delta='{"a":1}'),
            event("output_item.done", output_index=0, item={**item, "arguments": '{"a":1}'}),
            event("completed", response={}),
        ]
        body = "".join(f"data: {json.dumps(item)}\n\n" for item in events)
        server.script(Reply(body=body, content_type="text/event-stream"))
        form = {"title": "answer", "type": "object", "properties": {"a": {"type": "integer"}}}
        with Client(retries=0) as client:
            assert ask(client, server, schema=form, schema_mode="tool").complete().parsed == {"a": 1}

    def test_calls_without_indexes_are_told_apart(self, server: LLMServer) -> None:
        """llama.cpp sends them one after the other."""
        events: list[dict[str, Any]] = []
        for n in range(2):
            item = {"type": "function_call", "call_id": f"fc_{n}", "name": "f", "arguments": ""}
            events.append(event("output_item.added", item=item))
            events += [
                event("function_call_arguments.delta", item_id=f"fc_{n}", delta=delta) for delta in ('{"n":', f"{n}}}")
            ]
            events.append(event("output_item.done", item={**item, "arguments": f'{{"n":{n}}}'}))
        events.append(event("completed", response={"status": "completed"}))
        body = "".join(f"event: {item['type']}\ndata: {json.dumps(item)}\n\n" for item in events)
        server.script(Reply(body=body, content_type="text/event-stream"))
        with Client(retries=0) as client:
            answer = ask(client, server).complete()
        assert [(call.id, call.arguments) for call in answer.tool_calls] == [("fc_0", {"n": 0}), ("fc_1", {"n": 1})]
        assert answer.finish_reason == "tool_calls"

    def test_encrypted_reasoning_comes_back_as_it_was(self, server: LLMServer) -> None:
        """From an answer into the next request."""
        server.script(Reply(body=json.dumps(DOCUMENT), content_type="application/json"))
        with Client(retries=0) as client:
            message = ask(client, server, include=["reasoning.encrypted_content"]).complete().message
        (reasoning,) = (item for item in sent([message])["input"] if item["type"] == "reasoning")
        assert reasoning == DOCUMENT["output"][0]

    def test_what_is_sent(self, server: LLMServer) -> None:
        """Path, key and body on the server."""
        server.script(Reply(raw=[(DATA / "aimock/responses_text.txt").read_bytes()]))
        with Client(retries=0) as client:
            ask(client, server, max_tokens=5).complete()
        (received,) = server.requests
        assert received.path == "/responses"
        assert received.header("authorization") == "Bearer sk-1234567"
        assert received.json == {**sent("Hello", max_tokens=5), "model": "m"}


def test_the_models_are_those_of_openai() -> None:
    """The same list."""
    assert OpenAIResponses.decode_models({"data": [{"id": "gpt-5-mini"}]}) == ["gpt-5-mini"]
