"""Anthropic's dialect: requests, answers, and recordings of servers that speak it."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import (
    AuthError,
    BadRequest,
    Client,
    ContextLengthExceeded,
    Finish,
    InvalidRequest,
    LLMBridgeError,
    MissingKey,
    NotFound,
    Overloaded,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    Reasoning,
    ServerError,
    StreamError,
    StreamTruncated,
    Usage,
)
from llmbridge._call.assembly import Assembly
from llmbridge._call.framing import Record
from llmbridge.events import END, Citation, End, EndOfPart, Item, Other, ServerTool, ToolCall, ToolCallDelta
from llmbridge.messages import ChatRequest
from llmbridge.parts import Audio, Document, Image
from llmbridge.providers.anthropic import Anthropic
from llmbridge.schema import Schema
from llmbridge.secret import MASK, Secret
from llmbridge.testing import CLOSE, LLMServer, Reply

DATA = Path(__file__).parent.parent / "data" / "transcripts"
PNG = b"\x89PNG\r\n\x1a\nrest"
PDF = b"%PDF-1.7 rest"
PNG_64, PDF_64 = base64.b64encode(PNG).decode(), base64.b64encode(PDF).decode()
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CALLED = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}]
SHOWN = {"type": "adaptive", "display": "summarized"}
LOOSE = {"title": "city", "type": "object", "additionalProperties": {"type": "integer"}}
SEARCH = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}}
USED = {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}}


def request(messages: Any = "Hi", model: str = "claude-x", **params: Any) -> ChatRequest:
    """A request."""
    return ChatRequest.checked(model, messages, params)


def body(messages: Any = "Hi", **params: Any) -> dict[str, Any]:
    """The body of a request."""
    return dict(Anthropic.encode(request(messages, **params)).body)


def items(data: Any, event: str = "message") -> list[Any]:
    """The items of an event; data that is not a str is sent as JSON."""
    return list(Anthropic.decode(Record(data if isinstance(data, str) else json.dumps(data), event)))


def tool(name: str = "weather", **more: Any) -> dict[str, Any]:
    """A tool in OpenAI's form."""
    return {"type": "function", "function": {"name": name, "description": "Tells it.", "parameters": CITY, **more}}


def schema(**more: Any) -> dict[str, Any]:
    """A schema that is already strict."""
    return {"title": "city", **CITY, **more}


class TestParameters:
    """Parameters in the body."""

    def test_the_least_that_is_sent(self) -> None:
        """One user message is a str; the service requires a limit, and a stream is requested."""
        encoded = Anthropic.encode(request())
        assert encoded.path == "/v1/messages"
        assert encoded.headers == {}
        assert encoded.body == {
            "model": "claude-x",
            "max_tokens": 4096,
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
        }

    # Name: the parameters, and their changes to the body.
    PARAMS: ClassVar[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
        "sampling": ({"temperature": 0.5, "top_p": 0.9, "top_k": 5}, {"temperature": 0.5, "top_p": 0.9, "top_k": 5}),
        "a limit": ({"max_tokens": 64}, {"max_tokens": 64}),
        "no limit": ({"max_tokens": None}, {}),
        "a limit in OpenAI's newer word": ({"max_completion_tokens": 64}, {"max_tokens": 64}),
        "its own limit wins": ({"max_completion_tokens": 64, "max_tokens": 32}, {"max_tokens": 32}),
        "no stream": ({"stream": False}, {"stream": False}),
        "a stop": ({"stop": "END"}, {"stop_sequences": ["END"]}),
        "stops": ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        "no stop": ({"stop": None}, {}),
        "its own word wins": ({"stop": "a", "stop_sequences": ["b"]}, {"stop_sequences": ["b"]}),
        "a user": ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        "a user beside metadata": ({"user": "u1", "metadata": {"k": 1}}, {"metadata": {"user_id": "u1", "k": 1}}),
        "its own user wins": ({"user": "u1", "metadata": {"user_id": "u2"}}, {"metadata": {"user_id": "u2"}}),
        "an unknown one": ({"service_tier": "auto", "wibble": [1]}, {"service_tier": "auto", "wibble": [1]}),
        "parallel calls without tools": ({"parallel_tool_calls": False}, {}),
        "no thinking": ({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}),
        "a budget of nothing": ({"reasoning_effort": 0}, {"thinking": {"type": "disabled"}}),
        "no effort named": ({"reasoning_effort": None}, {}),
        "minimal": (
            {"reasoning_effort": "minimal"},
            {"thinking": SHOWN, "output_config": {"effort": "low"}, "max_tokens": 16384},
        ),
        "max": (
            {"reasoning_effort": "max", "max_tokens": 9},
            {"thinking": SHOWN, "output_config": {"effort": "max"}, "max_tokens": 9},
        ),
        "a budget": (
            {"reasoning_effort": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 6096},
        ),
        "a budget that fits": (
            {"reasoning_effort": 2000, "max_tokens": 2001},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 2001},
        ),
        "a budget that does not fit": (
            {"reasoning_effort": 2000, "max_tokens": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 2000}, "max_tokens": 4000},
        ),
        "its own thinking": (
            {"thinking": {"type": "enabled", "budget_tokens": 3000}},
            {"thinking": {"type": "enabled", "budget_tokens": 3000}, "max_tokens": 7096},
        ),
        "its own thinking goes out as given": (
            {"thinking": {"type": "enabled", "budget_tokens": 3000}, "max_tokens": 5, "reasoning_effort": 2000},
            {"thinking": {"type": "enabled", "budget_tokens": 3000}, "max_tokens": 5},
        ),
        "its own effort wins": (
            {"reasoning_effort": "low", "output_config": {"effort": "high"}},
            {"thinking": SHOWN, "output_config": {"effort": "high"}, "max_tokens": 16384},
        ),
        "text": ({"response_format": {"type": "text"}}, {}),
        "a schema in OpenAI's form": (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}}},
            {"output_config": {"format": {"type": "json_schema", "schema": CITY}}},
        ),
        "effort and schema": (
            {
                "reasoning_effort": "high",
                "max_tokens": 99,
                "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": CITY}},
            },
            {
                "thinking": SHOWN,
                "max_tokens": 99,
                "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": CITY}},
            },
        ),
    }

    @pytest.mark.parametrize("name", PARAMS)
    def test_a_parameter_goes_to_its_place(self, name: str) -> None:
        """The rest of the body stays the same."""
        params, changed = self.PARAMS[name]
        assert body(**params) == {**body(), **changed}

    def test_json_mode_is_a_sentence_in_the_prompt(self) -> None:
        """The dialect has no JSON mode without a schema."""
        sent = body([{"role": "system", "content": "Be brief."}, *TURN], response_format={"type": "json_object"})
        assert sent["system"][0] == {"type": "text", "text": "Be brief."}
        assert "JSON object" in sent["system"][1]["text"]
        assert "output_config" not in sent

    @pytest.mark.parametrize(
        ("params", "says"),
        [
            ({"reasoning_effort": "huge"}, "minimal, low, medium, high, xhigh, max"),
            ({"reasoning_effort": True}, "reasoning_effort must be"),
            ({"reasoning_effort": 1023}, "1024 or more"),
            ({"reasoning_effort": -1}, "1024 or more"),
            ({"response_format": {"type": "grammar"}}, "response_format must be"),
            ({"response_format": {"type": "json_schema"}}, "response_format must be"),
            ({"response_format": "json"}, "response_format must be"),
            ({"api_version": "new"}, "a date like '2023-06-01'"),
            ({"api_version": 2023}, "a date like"),
            ({"api_version": "2023-06-01\n"}, "a date like"),
            ({"beta": 1}, "beta must be"),
            ({"beta": ["a", 1]}, "beta must be"),
            ({"beta": "a b"}, "a name in beta is not valid"),
            ({"beta": "a\r\nx: y"}, "a name in beta is not valid"),
            ({"beta": "a,"}, "a name in beta is not valid"),
            ({"system": 7}, "system must be"),
        ],
    )
    def test_what_cannot_be_meant_is_refused(self, params: dict[str, Any], says: str) -> None:
        """An error at the call says what to write instead."""
        with pytest.raises(InvalidRequest, match=says):
            body(**params)

    @pytest.mark.parametrize(
        ("params", "headers"),
        [
            ({"api_version": "2026-10-21"}, {"anthropic-version": "2026-10-21"}),
            ({"beta": "a"}, {"anthropic-beta": "a"}),
            ({"beta": "a, b"}, {"anthropic-beta": "a,b"}),
            ({"beta": ["a", "b"]}, {"anthropic-beta": "a,b"}),
            ({"beta": [], "api_version": None}, {}),
        ],
    )
    def test_settings_are_headers(self, params: dict[str, Any], headers: dict[str, str]) -> None:
        """They are not in the body, and the request is not changed."""
        asked = request(**params)
        before = copy.deepcopy(asked)
        encoded = Anthropic.encode(asked)
        assert encoded.headers == headers
        assert encoded.body == body()
        assert asked == before
        assert Anthropic.headers == {"anthropic-version": "2023-06-01"}

    REFUSALS: ClassVar[dict[str, tuple[dict[str, Any], set[str]]]] = {
        "what is known": ({"max_tokens": 5, "temperature": 1, "top_p": 1, "wibble": 1}, set()),
        "OpenAI's alone": (
            {"seed": 1, "n": 2, "logprobs": True, "top_logprobs": 2, "logit_bias": {}, "top_p": 0.5},
            {"seed", "n", "logprobs", "top_logprobs", "logit_bias"},
        ),
        "penalties": ({"presence_penalty": 1, "frequency_penalty": 1}, {"presence_penalty", "frequency_penalty"}),
        "another name": ({"max_completion_tokens": 5}, set()),
        "a budget of the newest model": ({"reasoning_effort": 2000}, {"reasoning_effort"}),
        "a budget of nothing": ({"reasoning_effort": 0}, set()),
        "a budget beside its own thinking": ({"reasoning_effort": 2000, "thinking": {"type": "adaptive"}}, set()),
        "too hot": ({"temperature": 1.5}, {"temperature"}),
        "sampling in the new version": (
            {"temperature": 1, "top_p": 1, "top_k": 1, "stop": "x", "api_version": "2026-10-21"},
            {"temperature", "top_p", "top_k"},
        ),
        "a version of a wrong type": ({"temperature": 1, "api_version": 3}, set()),
    }

    # Model, parameters, and those of them that the service rejects.
    SAMPLING: ClassVar[list[tuple[str, dict[str, Any], set[str]]]] = [
        ("claude-opus-4-20250514", {"temperature": 0, "top_p": 0.9, "top_k": 5}, set()),
        ("claude-3-5-haiku-latest", {"temperature": 0, "top_p": 0.9}, set()),
        ("claude-opus-4-1-20250805", {"temperature": 0, "top_p": 0.9}, {"top_p"}),
        ("claude-sonnet-4-5", {"temperature": 0, "top_p": None}, set()),
        ("claude-sonnet-4-6", {"top_p": 0.9, "top_k": 5}, set()),
        ("claude-sonnet-4-6", {"temperature": 1, "top_p": 1}, {"top_p"}),
        ("claude-opus-4-7", {"temperature": 0.5}, {"temperature"}),
        ("claude-opus-4-7", {"temperature": 1}, set()),
        ("claude-opus-4-7", {"temperature": 1, "top_p": 0.99}, {"top_p"}),
        ("claude-opus-4-8", {"top_p": 0.95, "top_k": 1}, {"top_p", "top_k"}),
        ("claude-fable-5", {"top_p": 0.99}, set()),
        ("claude-sonnet-5-5", {"temperature": 0, "top_p": 0.9, "top_k": 5}, {"temperature", "top_p", "top_k"}),
        ("claude-sonnet-5-5", {"temperature": "hot"}, {"temperature"}),
        ("claude-opus-latest", {"temperature": 0, "top_p": 0.9, "top_k": 5}, set()),
        ("qwen3-8b", {"temperature": 0, "top_p": 0.9, "top_k": 5}, set()),
        ("claude-sonnet-4-6", {"temperature": 0.5, "reasoning_effort": "low"}, {"temperature"}),
        ("claude-sonnet-4-6", {"temperature": 0.5, "reasoning_effort": "none"}, set()),
        ("claude-sonnet-4-6", {"temperature": 1, "reasoning_effort": "low"}, set()),
        ("claude-3-7-sonnet", {"top_p": 0.95, "top_k": 5, "reasoning_effort": "low"}, {"top_k"}),
        ("claude-3-7-sonnet", {"top_p": 0.9, "thinking": {"type": "enabled", "budget_tokens": 1024}}, {"top_p"}),
    ]

    @pytest.mark.parametrize(("model", "params", "refused"), SAMPLING)
    def test_sampling_is_refused_as_the_model_does(self, model: str, params: dict[str, Any], refused: set[str]) -> None:
        """It depends on the model's version, and on thinking."""
        found = Anthropic.refusals(request(model=model, **params))
        assert set(found) == refused
        assert all(advice.strip() for advice in found.values())

    @pytest.mark.parametrize("name", REFUSALS)
    def test_what_the_service_refuses_is_known_before(self, name: str) -> None:
        """Each with what to do instead."""
        params, refused = self.REFUSALS[name]
        found = Anthropic.refusals(request(**params))
        assert set(found) == refused
        assert all(advice.strip() for advice in found.values())


TURN = [{"role": "user", "content": "Hi"}]


class TestThinking:
    """How much a model thinks, by its version."""

    BUDGET: ClassVar[dict[str, dict[str, Any]]] = {
        "claude-3-7-sonnet-latest": {"low": {"type": "enabled", "budget_tokens": 2048}},
        "claude-sonnet-4-5": {"minimal": {"type": "enabled", "budget_tokens": 1024}},
        "claude-haiku-4-5-20251001": {"medium": {"type": "enabled", "budget_tokens": 8192}},
        "claude-opus-4-20250514": {"high": {"type": "enabled", "budget_tokens": 16384}},
        "anthropic.claude-opus-4-5-20251101-v1:0": {"xhigh": {"type": "enabled", "budget_tokens": 24576}},
        "claude-opus-4-1@20250805": {"max": {"type": "enabled", "budget_tokens": 24576}},
    }

    @pytest.mark.parametrize("model", BUDGET)
    def test_an_older_model_gets_a_budget(self, model: str) -> None:
        """It supports no efforts; the answer gets room beside the thinking."""
        ((effort, thinking),) = self.BUDGET[model].items()
        got = body(model=model, reasoning_effort=effort)
        assert got["thinking"] == thinking
        assert got["max_tokens"] == thinking["budget_tokens"] + 4096
        assert "output_config" not in got
        assert body(model=model, reasoning_effort=effort, max_tokens=100)["max_tokens"] > thinking["budget_tokens"]

    @pytest.mark.parametrize(
        ("model", "effort", "thinking", "sent"),
        [
            ("claude-opus-4-6", "low", {"type": "adaptive"}, "low"),
            ("claude-4.6-sonnet", "xhigh", {"type": "adaptive"}, "high"),
            ("claude-opus-4-7", "xhigh", SHOWN, "xhigh"),
            ("claude-sonnet-5", "minimal", SHOWN, "low"),
            ("claude-opus-10-20300101", "max", SHOWN, "max"),
            ("claude-mythos-preview", "medium", SHOWN, "medium"),
            ("gateway-4-5", "high", {"type": "adaptive"}, "high"),
        ],
    )
    def test_a_newer_model_gets_an_effort(self, model: str, effort: str, thinking: dict[str, Any], sent: str) -> None:
        """So does an unknown one; since 4.7 thinking must be turned on as well."""
        got = body(model=model, reasoning_effort=effort)
        assert (got["thinking"], got["output_config"]) == (thinking, {"effort": sent})

    @pytest.mark.parametrize(
        ("model", "effort", "refused"),
        [
            ("claude-sonnet-4-5", 2000, False),
            ("claude-opus-4-6", 2000, False),
            ("gateway", 2000, False),
            ("claude-opus-4-7", 2000, True),
            ("claude-sonnet-5", 2000, True),
            ("claude-opus-4-7", "none", False),
            ("claude-fable-5-1", "none", True),
            ("claude-fable-5-1", 0, True),
            ("claude-mythos-preview", "none", True),
            ("claude-mythos-preview", "low", False),
            ("claude-opus-5", "none", False),
            ("claude-opus-5-5", "none", True),
            ("anthropic/claude-opus-5.5", 0, True),
            ("claude-opus-5-5", "low", False),
            ("claude-sonnet-5-5", "none", False),
            ("claude-haiku-5-5", "none", False),
            ("claude-opus-latest", "none", False),
        ],
    )
    def test_what_a_model_refuses_is_known_before(self, model: str, effort: Any, refused: bool) -> None:
        """A budget since 4.7, and turning off thinking where it is always on."""
        found = Anthropic.refusals(request(model=model, reasoning_effort=effort))
        assert set(found) == ({"reasoning_effort"} if refused else set())

    @pytest.mark.parametrize("effort", ["none", 0])
    @pytest.mark.parametrize(
        ("model", "kind"),
        [("claude-sonnet-5", "disabled"), ("claude-sonnet-5-5", "between_tools"), ("claude-haiku-5-5", "disabled")],
    )
    def test_thinking_is_turned_off_as_the_model_wants_it(self, model: str, kind: str, effort: Any) -> None:
        """Sonnet 5.5 rejects what its predecessor takes."""
        got = body(model=model, reasoning_effort=effort)
        assert got["thinking"] == {"type": kind}
        assert "output_config" not in got

    def test_a_refused_budget_is_an_error_before_sending(self) -> None:
        """The parameter can be left out."""
        with LLMServer() as server:
            client = Client("anthropic:claude-opus-4-7", base_url=server.root, api_key="sk-ant-test", retries=0)
            with client, pytest.raises(InvalidRequest, match=r"take a word like 'low', not a number of tokens"):
                client.chat("Hi", reasoning_effort=2000)
            server.script(Reply("Hi"))
            client.chat("Hi", reasoning_effort=2000, unsupported="drop").complete()
            assert "thinking" not in server.requests[0].json


class TestMessages:
    """Messages in the body."""

    # Name: messages, and the turns.
    TURNS: ClassVar[dict[str, tuple[list[Any], list[Any]]]] = {
        "names": (
            [
                {"role": "system", "content": "S", "name": "Sys"},
                {"role": "user", "content": "Hi", "name": "Ann"},
                {"role": "assistant", "content": "Hello", "name": "Bot"},
            ],
            [*TURN, {"role": "assistant", "content": "Hello"}],
        ),
        "two of the user": (
            [*TURN, {"role": "user", "content": "there"}],
            [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "there"}]}],
        ),
        "parts": (
            [{"role": "user", "content": ["a", {"type": "input_text", "text": "b"}]}],
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        ),
        "a text with more to it": (
            [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}],
            [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}],
        ),
        "texts that hold nothing": (
            [*TURN, {"role": "assistant", "content": ""}, {"role": "user", "content": ["", " ", "b"]}],
            [{"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "b"}]}],
        ),
        "back and forth": (
            [*TURN, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Bye"}],
            [*TURN, {"role": "assistant", "content": "Yes?"}, {"role": "user", "content": "Bye"}],
        ),
        "a beginning of the answer": (
            [*TURN, {"role": "assistant", "content": "{"}],
            [*TURN, {"role": "assistant", "content": "{"}],
        ),
        "the dialect's own parts": (
            [{"role": "user", "content": [{"type": "search_result", "source": "x"}]}],
            [{"role": "user", "content": [{"type": "search_result", "source": "x"}]}],
        ),
        "a call and its answer": (
            [
                *TURN,
                {"role": "assistant", "content": "Let me see.", "tool_calls": CALLED},
                {"role": "tool", "content": "4 C", "tool_call_id": "c1", "name": "weather"},
            ],
            [
                *TURN,
                {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}, USED]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "4 C"}]},
            ],
        ),
        "ids that the service would refuse": (
            [
                *TURN,
                {"role": "assistant", "content": None, "tool_calls": [{**CALLED[0], "id": "functions.weather:0"}]},
                {"role": "tool", "content": "4 C", "tool_call_id": "functions.weather:0"},
            ],
            [
                *TURN,
                {"role": "assistant", "content": [{**USED, "id": "c8cf447133ca3362a9892ed9be8da15a"}]},
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "c8cf447133ca3362a9892ed9be8da15a",
                            "content": "4 C",
                        }
                    ],
                },
            ],
        ),
        "a call alone": (
            [*TURN, {"role": "assistant", "content": None, "tool_calls": CALLED, "refusal": None}],
            [*TURN, {"role": "assistant", "content": [USED]}],
        ),
        "answers come first, and together": (
            [
                {"role": "user", "content": "And?"},
                {"role": "tool", "content": "x", "tool_call_id": "c1", "is_error": True},
                {"role": "tool", "content": "", "tool_call_id": "c2", "cache_control": {"type": "ephemeral"}},
                *TURN,
            ],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "tool_result", "tool_use_id": "c1", "content": "x", "is_error": True},
                        {"type": "tool_result", "tool_use_id": "c2", "cache_control": {"type": "ephemeral"}},
                        {"type": "text", "text": "And?"},
                        {"type": "text", "text": "Hi"},
                    ],
                }
            ],
        ),
        "an answer with an image": (
            [{"role": "tool", "content": ["see", Image(PNG)], "tool_call_id": "c1"}],
            [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "tool_result",
                            "tool_use_id": "c1",
                            "content": [
                                {"type": "text", "text": "see"},
                                {
                                    "type": "image",
                                    "source": {"type": "base64", "media_type": "image/png", "data": PNG_64},
                                },
                            ],
                        }
                    ],
                }
            ],
        ),
        "arguments that are not JSON": (
            [
                *TURN,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": '{"city'}}],
                },
            ],
            [*TURN, {"role": "assistant", "content": [{**USED, "input": {}}]}],
        ),
        "reasoning goes back as it came": (
            [
                *TURN,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "reasoning", "text": "Hm.", "signature": "s1"},
                        {"type": "reasoning", "redacted": "xyz"},
                        {"type": "reasoning", "text": "", "signature": "s2"},
                        "Let me see.",
                    ],
                    "tool_calls": CALLED,
                },
            ],
            [
                *TURN,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "Hm.", "signature": "s1"},
                        {"type": "redacted_thinking", "data": "xyz"},
                        {"type": "thinking", "thinking": "", "signature": "s2"},
                        {"type": "text", "text": "Let me see."},
                        USED,
                    ],
                },
            ],
        ),
        "reasoning without a proof is left out": (
            [*TURN, {"role": "assistant", "content": [{"type": "reasoning", "text": "Hm."}, "Yes?"]}],
            [*TURN, {"role": "assistant", "content": "Yes?"}],
        ),
        "reasoning behind a text stays there": (
            [*TURN, {"role": "assistant", "content": ["a", {"type": "reasoning", "text": "b", "signature": "s"}]}],
            [
                *TURN,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "text", "text": "a"},
                        {"type": "thinking", "thinking": "b", "signature": "s"},
                    ],
                },
            ],
        ),
        "reasoning between texts stays there": (
            [
                *TURN,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "1", "signature": "s"},
                        "a",
                        {"type": "reasoning", "redacted": "2"},
                    ],
                },
            ],
            [
                *TURN,
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "1", "signature": "s"},
                        {"type": "text", "text": "a"},
                        {"type": "redacted_thinking", "data": "2"},
                    ],
                },
            ],
        ),
    }

    @pytest.mark.parametrize("name", TURNS)
    def test_a_conversation_is_turns_of_blocks(self, name: str) -> None:
        """Roles alternate, tools' results come first, thinking before everything."""
        messages, turns = self.TURNS[name]
        assert body(messages)["messages"] == turns

    # Name: messages and parameters, and the system prompt.
    SYSTEMS: ClassVar[dict[str, tuple[list[Any], dict[str, Any], Any]]] = {
        "one": ([{"role": "system", "content": "a"}, *TURN], {}, "a"),
        "in order": (
            [{"role": "system", "content": "a"}, *TURN, {"role": "developer", "content": ["b", "c"]}],
            {},
            [{"type": "text", "text": text} for text in "abc"],
        ),
        "with more to it": (
            [
                {"role": "system", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
                *TURN,
            ],
            {},
            [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
        ),
        "its own, first": (
            [{"role": "system", "content": "b"}, *TURN],
            {"system": "a"},
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        ),
        "its own blocks": (
            TURN,
            {"system": [{"type": "text", "text": "a", "x": 1}]},
            [{"type": "text", "text": "a", "x": 1}],
        ),
        "empty": ([{"role": "system", "content": ""}, *TURN], {"system": ""}, None),
    }

    @pytest.mark.parametrize("name", SYSTEMS)
    def test_instructions_are_the_system_prompt(self, name: str) -> None:
        """They are not turns, as the dialect has no role for them."""
        messages, params, system = self.SYSTEMS[name]
        sent = body(messages, **params)
        assert sent.get("system") == system
        assert sent["messages"] == TURN

    @pytest.mark.parametrize(
        ("part", "block"),
        [
            (
                Image(PNG),
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG_64}},
            ),
            (
                {"type": "image_url", "image_url": "https://example.com/a.bmp"},
                {"type": "image", "source": {"type": "url", "url": "https://example.com/a.bmp"}},
            ),
            (
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,AAAA"}, "cache_control": {"a": 1}},
                {
                    "type": "image",
                    "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAA"},
                    "cache_control": {"a": 1},
                },
            ),
            (
                Document(PDF, "a.pdf"),
                {
                    "type": "document",
                    "source": {"type": "base64", "media_type": "application/pdf", "data": PDF_64},
                    "title": "a.pdf",
                },
            ),
            (
                Document("https://example.com/a.pdf"),
                {
                    "type": "document",
                    "source": {"type": "url", "url": "https://example.com/a.pdf"},
                    "title": "a.pdf",
                },
            ),
            (
                Document("Grüße".encode(), "a.md", "text/markdown"),
                {
                    "type": "document",
                    "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
                    "title": "a.md",
                },
            ),
        ],
        ids=["png", "url", "jpg", "pdf", "pdf-url", "text"],
    )
    def test_media_is_translated(self, part: Any, block: dict[str, Any]) -> None:
        """Images and documents, by value and by URL."""
        sent = body([{"role": "user", "content": ["Look:", part]}])
        assert sent["messages"][0]["content"] == [{"type": "text", "text": "Look:"}, block]

    @pytest.mark.parametrize(
        ("messages", "says"),
        [
            (
                [{"role": "user", "content": [Audio(b"ID3xxx")]}],
                r"messages\[0\]: content\[0\]: Anthropic does not accept audio",
            ),
            ([*TURN, {"role": "user", "content": [Image(b"x", media_type="image/bmp")]}], r"messages\[1\].*image/bmp"),
            ([{"role": "user", "content": [Document(b"x", "a", "application/zip")]}], "PDF and plain text, not appl"),
            ([{"role": "user", "content": [Document(b"\xff", "a", "text/plain")]}], "is not valid UTF-8"),
            ([{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}], "'type': 'file'"),
            ([{"role": "user", "content": ["x", {"type": "image_url"}]}], r"messages\[0\]: content\[1\]: .*image_url"),
            ([{"role": "user", "content": ""}], r"messages\[0\]: the message is empty"),
            ([{"role": "system", "content": "Hi"}], "at least one user message"),
            ([{"role": "system", "content": [Image(PNG)]}, *TURN], "only text in instructions"),
            ([{"role": "tool", "content": "4"}], "needs 'tool_call_id'"),
            ([{"role": "tool", "content": "4", "tool_call_id": 1}], "needs 'tool_call_id'"),
            (
                [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}],
                "the call of 'f' has no id",
            ),
            ([{"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]}], r"messages\[0\]: a tool call"),
        ],
    )
    def test_what_has_no_counterpart_is_refused(self, messages: Any, says: str) -> None:
        """The error names the message."""
        with pytest.raises(InvalidRequest, match=says):
            body(messages)

    def test_citations_of_the_user_are_refused_by_the_new_version(self) -> None:
        """Empty ones are dropped, and the older version accepts them."""
        cited = {"type": "text", "text": "x", "citations": [{"type": "char_location"}]}
        turn = [*TURN, {"role": "user", "content": [cited]}]
        with pytest.raises(InvalidRequest, match=r"messages\[1\]: this version .* rejects citations"):
            body(turn, api_version="2026-10-21")
        assert body(turn)["messages"][0]["content"][1] == cited
        empty = [{"role": "user", "content": [{**cited, "citations": []}]}]
        assert body(empty, api_version="2026-10-21")["messages"][0]["content"] == [{**cited, "citations": []}]
        answer = [*TURN, {"role": "assistant", "content": [cited]}]
        assert body(answer, api_version="2026-10-21")["messages"][1]["content"] == [cited]

    def test_the_new_version_takes_no_document_of_the_assistant(self) -> None:
        """The older one accepts it."""
        document = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "x"}}
        messages = [*TURN, {"role": "assistant", "content": [document]}]
        assert body(messages)["messages"][1]["content"] == [document]
        with pytest.raises(InvalidRequest, match=r"messages\[1\].*rejects documents"):
            body(messages, api_version="2026-10-21")


class TestTheEnd:
    """The turn that the model is to continue has no white space at its end, as the service rejects it."""

    @pytest.mark.parametrize(
        ("content", "sent"),
        [
            ("It is: ", "It is:"),
            (" It is\n\t\u00a0\n", " It is"),
            ([{"type": "text", "text": "It is: "}], "It is:"),
            (
                [{"type": "text", "text": "It "}, {"type": "text", "text": "is: "}],
                [{"type": "text", "text": "It "}, {"type": "text", "text": "is:"}],
            ),
            ([{"type": "text", "text": "It is: "}, {"type": "text", "text": " \n"}], "It is:"),
            (
                [{"type": "text", "text": "a ", "cache_control": {"type": "ephemeral"}}],
                [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}],
            ),
            (
                [{"type": "reasoning", "text": "Hm. ", "signature": "s"}, {"type": "text", "text": "It "}],
                [{"type": "thinking", "thinking": "Hm. ", "signature": "s"}, {"type": "text", "text": "It"}],
            ),
            (
                [{"type": "text", "text": "It "}, {"type": "reasoning", "text": "Hm. ", "signature": "s"}],
                [{"type": "text", "text": "It "}, {"type": "thinking", "thinking": "Hm. ", "signature": "s"}],
            ),
        ],
    )
    def test_it_is_stripped(self, content: Any, sent: Any) -> None:
        """At the end of the last text, if that is the last block."""
        turns = body([{"role": "user", "content": "Is it? "}, {"role": "assistant", "content": content}])["messages"]
        assert turns == [{"role": "user", "content": "Is it? "}, {"role": "assistant", "content": sent}]

    def test_white_space_alone_is_left_out(self) -> None:
        """Nor between a user's messages."""
        turns = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": " \n"}]
        assert body(turns)["messages"] == turns[:1]

    def test_earlier_turns_stay(self) -> None:
        """The service accepts white space there."""
        turns = [
            {"role": "user", "content": "a "},
            {"role": "assistant", "content": "b "},
            {"role": "user", "content": "c "},
        ]
        assert body(turns)["messages"] == turns

    def test_an_answer_that_was_cut_off_can_be_gone_on_from(self, server: LLMServer) -> None:
        """With a Completion as the last message."""
        server.script(Reply(["It ", "is "], finish_reason="length", reasoning="Hm. "), Reply("red."))
        with Client("anthropic:m", base_url=server.base_url("anthropic"), api_key="k", retries=0) as client:
            said = client.chat("Is it red?").complete()
            assert client.chat([{"role": "user", "content": "Is it red?"}, said]).complete().text == "red."
        last = server.requests[1].json["messages"][-1]["content"]
        assert [block.get("thinking", block.get("text")) for block in last] == ["Hm. ", "It is"]


class TestTools:
    """Tools and schemas."""

    @pytest.mark.parametrize("name", ["filter[id]", "$top", "größe", "a b", "x" * 65, ""])
    def test_names_of_properties_that_are_refused(self, name: str) -> None:
        """Before sending; deeper in the schema the service does not check names."""
        parameters = {"type": "object", "properties": {name: {"type": "string"}}}
        with pytest.raises(InvalidRequest, match=r"tool weather: Anthropic rejects the property"):
            body(tools=[{"name": "weather", "parameters": parameters}])
        with pytest.raises(InvalidRequest, match="tool weather"):
            body(tools=[{"name": "weather", "parameters": {"anyOf": [parameters, {}]}}])
        deeper = {"type": "object", "properties": {"a": parameters}}
        (sent,) = body(tools=[{"name": "weather", "parameters": deeper}])["tools"]
        assert sent["input_schema"] == deeper

    def test_what_else_a_tool_holds_stays(self) -> None:
        """Only its schema is changed."""
        given = {
            "name": "f",
            "description": "D.",
            "input_schema": {"type": "object", "anyOf": [{"required": ["a"]}, {}]},
            "cache_control": {"type": "ephemeral"},
        }
        (sent,) = body(tools=[given])["tools"]
        assert sent == {
            **given,
            "description": 'D. (anyOf: [{"required": ["a"]}, {}])',
            "input_schema": {"type": "object", "properties": {}},
        }

    WEATHER: ClassVar[dict[str, Any]] = {"name": "weather", "description": "Tells it.", "input_schema": CITY}
    OWN: ClassVar[dict[str, Any]] = {"type": "auto", "wibble": 1}
    CHOICES: ClassVar[list[tuple[Any, Any]]] = [
        (None, None),
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ("weather", {"type": "tool", "name": "weather"}),
        (OWN, OWN),
    ]

    @pytest.mark.parametrize(("chosen", "sent"), CHOICES)
    def test_a_choice_has_the_dialects_name(self, chosen: Any, sent: Any) -> None:
        """A choice in the dialect's own form is sent unchanged."""
        got = body(tools=[tool()], tool_choice=chosen)
        assert got["tools"] == [self.WEATHER]
        assert got.get("tool_choice") == sent

    @pytest.mark.parametrize(("chosen", "sent"), CHOICES)
    def test_calls_one_by_one(self, chosen: Any, sent: Any) -> None:
        """The choice says so, unless no call is allowed."""
        got = body(tools=[tool()], tool_choice=chosen, parallel_tool_calls=False)
        wanted = sent or {"type": "auto"}
        more = {} if wanted["type"] == "none" else {"disable_parallel_tool_use": True}
        assert got["tool_choice"] == {**wanted, **more}
        assert "parallel_tool_calls" not in got

    def test_calls_side_by_side_are_what_the_service_does_anyway(self) -> None:
        """Nothing is sent for the default."""
        assert body(tools=[tool()], parallel_tool_calls=True) == {**body(), "tools": [self.WEATHER]}

    def test_tools_in_their_variants(self) -> None:
        """Without a description, strict, and the service's own."""
        own = {"type": "web_search_20250305", "name": "web_search"}
        assert body(tools=[tool(description=""), tool("b", strict=True), own])["tools"] == [
            {"name": "weather", "input_schema": CITY},
            {**self.WEATHER, "name": "b", "strict": True},
            own,
        ]

    def test_bounds_of_strict_schemas_are_in_descriptions(self) -> None:
        """A strict schema has them in its descriptions; elsewhere they are sent unchanged."""
        age = {"type": "integer", "minimum": 0}
        bounded = {"type": "object", "properties": {"age": age}, "required": ["age"], "additionalProperties": False}
        told = {**bounded, "properties": {"age": {"type": "integer", "description": "(minimum: 0)"}}}
        form = body(schema={"title": "city", **bounded})["output_config"]["format"]
        assert form["schema"] == {"title": "city", **told}
        for strict, sent in ((True, told), (False, bounded), (None, bounded)):
            (given,) = body(tools=[tool(parameters=bounded, strict=strict)])["tools"]
            assert given["input_schema"] == sent
        assert body(schema={"title": "city", **bounded}, schema_mode="tool")["tools"][0]["input_schema"][
            "properties"
        ] == {"age": age}

    TREE: ClassVar[dict[str, Any]] = {
        "title": "tree",
        "type": "object",
        "properties": {"twigs": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["twigs"],
        "additionalProperties": False,
    }

    def test_a_strict_tool_whose_parameters_hold_themselves_is_refused(self) -> None:
        """Without strict it is accepted."""
        with pytest.raises(InvalidRequest, match="leave strict out"):
            body(tools=[tool(parameters=self.TREE, strict=True)])
        assert body(tools=[tool(parameters=self.TREE)])["tools"][0]["input_schema"] == self.TREE

    def test_a_schema_that_holds_itself_is_a_tool(self) -> None:
        """It has a strict form, but the service rejects it."""
        tree = self.TREE
        assert Schema.of(tree).strict
        asked: dict[str, Any] = {"model": "claude-sonnet-4-5", "schema": tree}
        assert body(**asked) == body(**asked, schema_mode="tool")
        asked["reasoning_effort"] = "low"
        assert body(**asked) == body(**asked, schema_mode="json")

    @pytest.mark.parametrize("mode", [None, "native"])
    def test_a_schema_is_the_format_of_the_output(self, mode: Any) -> None:
        """In its strict form, beside an effort."""
        got = body(schema=schema(), schema_mode=mode, reasoning_effort="low")
        form = got["output_config"]["format"]
        assert got["output_config"] == {"effort": "low", "format": form}
        assert form["type"] == "json_schema"
        assert form["schema"] == Schema.of(schema()).strict_schema()
        assert form["schema"]["additionalProperties"] is False
        assert not {"tools", "tool_choice", "system"} & set(got)

    def test_a_schema_as_a_tool(self) -> None:
        """The model has to call it."""
        got = body(schema=schema(), schema_mode="tool")
        assert Anthropic.answer_tool(request(schema=schema(), schema_mode="tool")) == "city"
        (invented,) = got["tools"]
        assert got["tool_choice"] == {"type": "tool", "name": "city"}
        assert (invented["name"], invented["input_schema"]) == ("city", Schema.of(schema()).json_schema)
        assert invented["description"]
        assert "output_config" not in got

    @pytest.mark.parametrize(
        ("model", "params"),
        [
            ("claude-sonnet-4-5", {}),
            ("claude-opus-4-8", {}),
            ("gateway", {}),
            ("claude-sonnet-5", {"reasoning_effort": "none"}),
            ("claude-sonnet-5", {"thinking": {"type": "disabled"}, "reasoning_effort": "high"}),
        ],
    )
    def test_a_schema_that_cannot_be_strict_is_a_tool(self, model: str, params: dict[str, Any]) -> None:
        """The service would reject it as a format, but schema_mode can force that."""
        params = {"model": model, "schema": LOOSE, **params}
        assert Anthropic.answer_tool(request(**params)) == "city"
        assert body(**params) == body(**params, schema_mode="tool")
        assert body(**params)["tool_choice"] == {"type": "tool", "name": "city"}
        assert body(**params, schema_mode="native")["output_config"]["format"]["schema"] == LOOSE

    @pytest.mark.parametrize(
        ("model", "params"),
        [
            ("claude-sonnet-4-5", {"reasoning_effort": "high"}),
            ("claude-sonnet-4-5", {"reasoning_effort": 2000}),
            ("claude-sonnet-4-5", {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
            ("claude-opus-4-6", {"reasoning_effort": "low"}),
            ("gateway", {"reasoning_effort": "low"}),
            ("claude-sonnet-5", {}),
            ("claude-fable-5", {}),
            ("claude-fable-5", {"reasoning_effort": "none"}),
            ("claude-sonnet-5-5", {"reasoning_effort": "none"}),
        ],
    )
    def test_no_tool_is_forced_on_a_model_that_thinks(self, model: str, params: dict[str, Any]) -> None:
        """A schema without a strict form goes into the prompt, as thinking excludes a forced tool."""
        params = {"model": model, "schema": LOOSE, **params}
        assert Anthropic.answer_tool(request(**params)) is None
        got = body(**params)
        assert got == body(**params, schema_mode="json")
        assert not {"tools", "tool_choice"} & set(got)
        assert "format" not in got.get("output_config", {})

    def test_a_schema_as_a_tool_is_refused_beside_thinking(self) -> None:
        """Unless the call is optional."""
        params: dict[str, Any] = {"schema": schema(), "schema_mode": "tool", "reasoning_effort": "high"}
        with pytest.raises(InvalidRequest, match="cannot force a tool while the model thinks"):
            body(**params)
        assert body(**params, tools=[tool()], tool_choice="auto")["tool_choice"] == {"type": "auto"}
        assert body(**{**params, "reasoning_effort": "none"})["tool_choice"] == {"type": "tool", "name": "city"}

    @pytest.mark.parametrize("chosen", [None, *(choice for choice, _ in CHOICES), {"type": "any", "wibble": 1}])
    def test_a_tool_that_must_be_called_is_refused_beside_thinking(self, chosen: Any) -> None:
        """Like a parameter, it can be left out."""
        forced = chosen in ("required", "weather", {"type": "any", "wibble": 1})
        for params in ({"reasoning_effort": "low"}, {"thinking": {"type": "adaptive"}}):
            found = Anthropic.refusals(request(tools=[tool()], tool_choice=chosen, **params))
            assert set(found) == ({"tool_choice"} if forced else set())
        for params in ({}, {"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}):
            assert not Anthropic.refusals(request(tools=[tool()], tool_choice=chosen, **params))

    @pytest.mark.parametrize(
        ("model", "refused"),
        [
            ("claude-opus-5-5", True),
            ("claude-sonnet-5-5", True),
            ("claude-fable-5-1", True),
            ("claude-mythos-5-1", True),
            ("claude-opus-5", False),
            ("claude-sonnet-5", False),
            ("claude-haiku-5-5", False),
            ("claude-opus-latest", False),
        ],
    )
    def test_some_models_can_never_be_forced(self, model: str, refused: bool) -> None:
        """Not even while they do not think."""
        for params in ({}, {"thinking": {"type": "between_tools"}}):
            found = Anthropic.refusals(request(model=model, tools=[tool()], tool_choice="weather", **params))
            assert ("tool_choice" in found) is (refused or bool(params))
        assert not Anthropic.refusals(request(model=model, tools=[tool()], tool_choice="auto"))
        fields: dict[str, Any] = {"model": model, "schema": schema(), "schema_mode": "tool"}
        if refused:
            with pytest.raises(InvalidRequest, match="cannot be forced to call a tool: leave schema_mode out"):
                body(**fields)
        else:
            assert body(**fields)["tool_choice"] == {"type": "tool", "name": "city"}

    def test_a_schema_as_a_tool_beside_others(self) -> None:
        """Other tools may be called first, so any tool is required; a caller's own choice wins."""
        fields: dict[str, Any] = {"schema": schema(), "schema_mode": "tool", "tools": [tool()]}
        got = body(**fields)
        assert got["tool_choice"] == {"type": "any"}
        assert [each["name"] for each in got["tools"]] == ["weather", "city"]
        assert body(**fields, tool_choice="auto")["tool_choice"] == {"type": "auto"}

    def test_a_schema_in_words(self) -> None:
        """After the caller's own instructions."""
        got = body([{"role": "system", "content": "Be brief."}, *TURN], schema=schema(), schema_mode="json")
        words = Schema.of(schema()).instruction()
        assert [block["text"] for block in got["system"]] == ["Be brief.", words]
        assert not {"output_config", "tools"} & set(got)

    def test_only_a_schema_as_a_tool_adds_an_answer_tool(self) -> None:
        """Other modes have none."""
        assert Anthropic.answer_tool(request()) is None
        for mode in ("native", "json", None):
            assert Anthropic.answer_tool(request(schema=schema(), schema_mode=mode)) is None

    def test_two_tools_of_one_name_are_refused(self) -> None:
        """Their calls could not be told apart."""
        with pytest.raises(InvalidRequest, match="both called 'city'"):
            body(schema=schema(), schema_mode="tool", tools=[tool("city")])

    def test_two_schemas_are_refused(self) -> None:
        """Neither wins silently."""
        with pytest.raises(InvalidRequest, match="pass only one of them"):
            body(schema=schema(), response_format={"type": "json_object"})


def delta(kind: str, index: Any = 0, **fields: Any) -> dict[str, Any]:
    """An event with a piece of a block."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": kind, **fields}}


def start(kind: str, index: Any = 0, **fields: Any) -> dict[str, Any]:
    """An event that starts a block."""
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **fields}}


def stopped(reason: Any, **usage: Any) -> dict[str, Any]:
    """The last event but one."""
    return {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}


# Name: the event, and its items.
EVENTS: dict[str, tuple[Any, list[Any]]] = {
    "text": (delta("text_delta", text="Hi"), ["Hi"]),
    "text of a later block": (delta("text_delta", 3, text="ü"), ["ü"]),
    "an empty text": (delta("text_delta", text=""), []),
    "a number in the place of a text": (delta("text_delta", text=7), ["7"]),
    "a text in an object": (delta("text_delta", text={"text": "Hi"}), ["Hi"]),
    "a text in pieces": (delta("text_delta", text=["H", {"type": "text", "text": "i"}, None]), ["Hi"]),
    "a text whose index is a text": (delta("text_delta", "0", text="Hi"), ["Hi"]),
    "a text with more to it": (
        delta("text_delta", text="Hi", smell="rose"),
        ["Hi", Other("text_delta", {"type": "text_delta", "text": "Hi", "smell": "rose"})],
    ),
    "a text with nothing more to it": (delta("text_delta", text="Hi", smell=None), ["Hi"]),
    "a piece without a kind": ({"type": "content_block_delta", "index": 0, "delta": {"text": "Hi"}}, ["Hi"]),
    "a text with a space behind the event": (json.dumps(delta("text_delta", text="Hi")) + " ", ["Hi"]),
    "thinking": (delta("thinking_delta", thinking="Hm"), [Reasoning("Hm")]),
    "thinking of a text that is none": (delta("thinking_delta", text="Hm"), []),
    "a proof": (delta("signature_delta", signature="s1"), [Reasoning("", signature="s1")]),
    "an empty proof": (delta("signature_delta", signature=""), []),
    "a piece of a call": (delta("input_json_delta", 2, partial_json='{"a'), [ToolCallDelta(2, arguments='{"a')]),
    "an empty piece of a call": (delta("input_json_delta", 2, partial_json=""), []),
    "a call of no index": (delta("input_json_delta", None, partial_json="{"), [ToolCallDelta(None, arguments="{")]),
    "a piece of a call whose index is a text": (
        delta("input_json_delta", "2", partial_json="{"),
        [ToolCallDelta(2, arguments="{")],
    ),
    "a citation": (delta("citations_delta", citation={"cited_text": "x"}), [Citation(quote="x")]),
    "a citation that is none": (
        delta("citations_delta", citation="x"),
        [Other("citation", {"citation": "x"})],
    ),
    "an unknown delta": (
        delta("smell_delta", text="x"),
        [Other("smell_delta", {"type": "smell_delta", "text": "x"})],
    ),
    "a delta that is a text": ({"type": "content_block_delta", "index": 0, "delta": "x"}, ["x"]),
    "no delta": ({"type": "content_block_delta", "index": 0}, []),
    "a key of an event": (
        {"type": "content_block_stop", "index": 0, "smell": "rose"},
        [Other("content_block_stop", {"type": "content_block_stop", "index": 0, "smell": "rose"})],
    ),
    "a key that says nothing": ({"type": "content_block_stop", "index": 0, "smell": None}, []),
    "the beginning of a text": (start("text", text=""), []),
    "a text at once": (start("text", text="Hi"), ["Hi"]),
    "the beginning of thinking": (start("thinking", thinking="", signature=""), []),
    "thinking at once": (start("thinking", thinking="Hm", signature="s"), [Reasoning("Hm")]),
    "hidden thinking": (start("redacted_thinking", data="xyz"), [Reasoning("", redacted="xyz")]),
    "the beginning of a call": (start("tool_use", 1, id="c1", name="f", input={}), [ToolCallDelta(1, "c1", "f")]),
    "a call without input": (start("tool_use", 1, id="c1", name="f"), [ToolCallDelta(1, "c1", "f")]),
    "a call at once": (
        start("tool_use", 1, id="c1", name="f", input={"a": "ü"}),
        [ToolCallDelta(1, "c1", "f", '{"a": "ü"}')],
    ),
    "a call of the service's own tool": (start("server_tool_use", 1, id="c1", name="web_search", input={}), []),
    "a result of it": (start("web_search_tool_result", 1, tool_use_id="c1", content=[]), []),
    "an unknown block": (start("hologram", text="x"), []),
    "the end of a block": ({"type": "content_block_stop", "index": 0}, []),
    "a ping": ({"type": "ping"}, []),
    "an unknown event": (
        {"type": "wibble", "delta": {"text": "x"}},
        [Other("wibble", {"type": "wibble", "delta": {"text": "x"}})],
    ),
    "no type": ({"delta": {"text": "x"}}, [Other("message", {"delta": {"text": "x"}})]),
    "no type, but the meaning is plain": ({"index": 0, "delta": {"text": "x"}}, ["x"]),
    "an empty object": ({}, []),
    "nothing": ("", []),
    "the beginning": (
        {"type": "message_start", "message": {"content": [], "usage": {"input_tokens": 11, "output_tokens": 1}}},
        [Usage(11, 1, 12)],
    ),
    "the beginning with caches": (
        {
            "type": "message_start",
            "message": {
                "usage": {
                    "input_tokens": 1,
                    "cache_creation_input_tokens": 20,
                    "cache_read_input_tokens": 300,
                    "output_tokens": 2,
                }
            },
        },
        [Usage(321, 2, 323, 300, 20)],
    ),
    "the beginning without counts": ({"type": "message_start", "message": {"usage": {}}}, []),
    "a beginning of a wrong type": ({"type": "message_start", "message": [1]}, []),
    "the reason": (stopped("end_turn"), [Finish("stop", "end_turn")]),
    "the reason and the count": (
        stopped("end_turn", output_tokens=7),
        [Usage(output_tokens=7), Finish("stop", "end_turn")],
    ),
    "all counts": (
        stopped(None, input_tokens=1, cache_read_input_tokens=2, output_tokens=9)
        | {
            "usage": {
                "input_tokens": 1,
                "cache_read_input_tokens": 2,
                "cache_creation_input_tokens": None,
                "output_tokens": 9,
                "output_tokens_details": {"thinking_tokens": 5},
            }
        },
        [Usage(3, 9, 12, 2, None, 5)],
    ),
    "counts that are none": (stopped(None, output_tokens=-1, input_tokens=True), [Usage()]),
    "no reason yet": (stopped(None), []),
    "a stop sequence": (stopped("stop_sequence"), [Finish("stop", "stop_sequence")]),
    "the stop sequence": (
        {"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"}},
        [
            Other(
                "message_delta",
                {"type": "message_delta", "delta": {"stop_reason": "stop_sequence", "stop_sequence": "END"}},
            ),
            Finish("stop", "stop_sequence"),
        ],
    ),
    "a reason beside the delta": ({"type": "message_delta", "stop_reason": "end_turn"}, [Finish("stop", "end_turn")]),
    "the limit": (stopped("max_tokens"), [Finish("length", "max_tokens")]),
    "the context": (
        stopped("model_context_window_exceeded"),
        [Finish("length", "model_context_window_exceeded")],
    ),
    "calls": (stopped("tool_use"), [Finish("tool_calls", "tool_use")]),
    "a pause": (stopped("pause_turn"), [Finish("pause", "pause_turn")]),
    "a word for nothing": (stopped("null"), []),
    "the limit in another dialect's word": (stopped("length"), [Finish("length", "length")]),
    "a filter in another dialect's word": (stopped("SAFETY"), [Finish("content_filter", "SAFETY")]),
    "a failure": (stopped("error"), [Finish("error", "error")]),
    "a refusal": (stopped("refusal"), [Finish("content_filter", "refusal")]),
    "a new reason": (stopped("boredom"), [Finish("other", "boredom")]),
    "a reason of a wrong type": (stopped(["end_turn"]), []),
    "the end": ({"type": "message_stop"}, [END]),
    "another dialect's end": ("[DONE]", [END]),
}


WORDS = (
    "type index delta content_block message usage error stop_reason text thinking signature data input id name "
    "partial_json content content_block_delta content_block_start message_start message_delta tool_use text_delta "
    "input_json_delta thinking_delta input_tokens output_tokens output_tokens_details"
).split()
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 5) | st.sampled_from([*WORDS, ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5),
    max_leaves=15,
)


class TestDecode:
    """Events and documents."""

    @pytest.mark.parametrize("name", EVENTS)
    def test_an_event_says_what_it_says(self, name: str) -> None:
        """With its name, and without one, as some servers send it."""
        data, said = EVENTS[name]
        kind = data["type"] if isinstance(data, dict) and "type" in data else "message"
        assert items(data, kind) == said
        assert items(data) == said

    def test_an_event_without_a_type_has_its_name(self) -> None:
        """Some gateways leave it out of the data."""
        assert items({"index": 0, "delta": {"type": "text_delta", "text": "Hi"}}, "content_block_delta") == ["Hi"]
        assert items({}, "message_stop") == [END]

    # Name: the event, its name, and its error.
    ERRORS: ClassVar[dict[str, tuple[Any, str, type[LLMBridgeError], str]]] = {
        "overloaded": (
            {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "error",
            Overloaded,
            "Overloaded",
        ),
        "too many requests": ({"type": "error", "error": {"type": "rate_limit_error"}}, "message", RateLimited, ""),
        "no money": ({"type": "error", "error": {"type": "billing_error"}}, "error", QuotaExceeded, ""),
        "no type": ({"error": {"message": "boom"}}, "message", StreamError, "boom"),
        "an event's name alone": ({"message": "boom"}, "error", StreamError, "boom"),
        "FastAPI's report": ({"detail": "boom"}, "message", StreamError, "boom"),
        "a text": ("it broke", "error", StreamError, "it broke"),
        "nothing": ("", "error", StreamError, ""),
        "no JSON": ("{", "message", ProtocolError, "invalid JSON"),
        "two in one": ('{"type": "ping"} {"type": "ping"}', "message", ProtocolError, "invalid JSON"),
        "a list": ([1], "message", ProtocolError, "JSON object in a stream event"),
        "null": ("null", "message", ProtocolError, "JSON object in a stream event"),
    }

    @pytest.mark.parametrize("name", ERRORS)
    def test_an_error_in_the_stream_has_its_class(self, name: str) -> None:
        """The class for its type."""
        data, event, kind, says = self.ERRORS[name]
        with pytest.raises(kind) as caught:
            items(data, event)
        assert type(caught.value) is kind
        assert says in str(caught.value)

    def test_a_whole_message(self) -> None:
        """All kinds of blocks, then usage, finish reason and end."""
        cited = {"type": "char_location", "cited_text": "x"}
        document = {
            "type": "message",
            "content": [
                {"type": "thinking", "thinking": "Hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "text", "text": "Hi", "citations": [cited]},
                SEARCH,
                {"type": "hologram", "depth": 3},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
                None,
            ],
            "stop_reason": "tool_use",
            "usage": {"input_tokens": 11, "output_tokens": 7},
        }
        said = [
            Reasoning("Hm"),
            Reasoning("", signature="s"),
            Reasoning("", redacted="xyz"),
            "Hi",
            Citation(quote="x"),
            ServerTool("s1", "web_search", {"query": "x"}, raw=SEARCH),
            Other("hologram", {"type": "hologram", "depth": 3}, in_turn=True),
            ToolCallDelta(5, "c1", "f", '{"a": 1}'),
            ToolCallDelta(5, whole=True),
            ToolCallDelta(6, "c2", "g"),
            ToolCallDelta(6, whole=True),
            Usage(11, 7, 18),
            Finish("tool_calls", "tool_use"),
            END,
        ]
        for sent in (document, [document]):
            got = list(Anthropic.decode_document(sent))
            (end,) = [item for item in got if isinstance(item, EndOfPart)]
            assert end.raw == {"type": "text", "text": "", "citations": [cited]}
            assert [item for item in got if item is not end] == said

    @pytest.mark.parametrize(
        "content",
        [
            "Hi",
            {"type": "text", "text": "Hi"},
            ["Hi"],
            ["H", "i"],
            [{"text": "Hi"}],
            [{"type": "output_text", "text": "Hi"}],
        ],
    )
    def test_a_content_whose_meaning_is_plain_is_read(self, content: Any) -> None:
        """Gateways send a text or a single block."""
        got = list(Anthropic.decode_document({"type": "message", "content": content, "stop_reason": "end_turn"}))
        assert "".join(item for item in got if isinstance(item, str)) == "Hi"
        assert got[-2:] == [Finish("stop", "end_turn"), END]

    @pytest.mark.parametrize("content", [True, [{"smell": "rose"}], [{"type": "text", "text": {"smell": "rose"}}]])
    def test_an_unreadable_content_is_an_error(self, content: Any) -> None:
        """It is quoted: a finished answer must not look empty."""
        with pytest.raises(ProtocolError, match=r"True|rose"):
            list(Anthropic.decode_document({"type": "message", "content": content, "stop_reason": "end_turn"}))

    @pytest.mark.parametrize(
        ("document", "kind"),
        [
            ({"type": "error", "error": {"type": "not_found_error", "message": "model: x"}}, NotFound),
            ({"error": {"message": "boom", "code": 500}}, ServerError),
            ({"detail": "boom"}, StreamError),
            ({"message": "boom"}, StreamError),
            ({"choices": []}, ProtocolError),
            ("Hi", ProtocolError),
            ([], ProtocolError),
        ],
    )
    def test_a_document_that_is_not_a_message(self, document: Any, kind: type[LLMBridgeError]) -> None:
        """The service's error, or advice to check the base URL."""
        with pytest.raises(kind) as caught:
            list(Anthropic.decode_document(document))
        assert type(caught.value) is kind

    def test_input_nested_too_deeply_is_an_error_of_the_tree(self) -> None:
        """For every recursion limit of Python."""
        nest: Any = {}
        for _ in range(100_000):
            nest = {"a": nest}
        with pytest.raises(ProtocolError, match="nested too deeply"):
            list(Anthropic.decode_document({"content": [{"type": "tool_use", "input": nest}]}))

    def test_models_are_listed_by_name(self) -> None:
        """In the form of the service and of llama.cpp's server."""
        document = {"data": [{"type": "model", "id": "claude-a"}, {"id": "b"}, {"id": ""}, 7], "has_more": False}
        assert Anthropic.decode_models(document) == ["claude-a", "b"]
        with pytest.raises(AuthError):
            Anthropic.decode_models({"type": "error", "error": {"type": "authentication_error", "message": "No."}})
        with pytest.raises(ProtocolError, match="not a list of models"):
            Anthropic.decode_models(["claude-a"])

    def test_the_input_of_server_tools_is_not_a_call(self) -> None:
        """Only the block's first event tells whose call it is."""
        events = [
            start("text", 0, text=""),
            delta("text_delta", 0, text='a "server_tool_use" is coming'),
            start("server_tool_use", 1, id="s1", name="web_search", input={}),
            delta("input_json_delta", 1, partial_json='{"query": "input_json_delta"}'),
            delta("text_delta", 0, text=", one mentions input_json_delta"),
            {"type": "content_block_stop", "index": 1},
            start("mcp_tool_use", 2, id="m1", name="x", input={}),
            delta("input_json_delta", 2, partial_json="{}"),
            start("tool_use", 3, id="c1", name="f", input={}),
            delta("input_json_delta", 3, partial_json='{"a": 1}'),
            stopped("tool_use", server_tool_use={"web_search_requests": 1}, output_tokens=3),
            {"type": "message_stop"},
        ]
        stream = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
        for size in (1, 7, 100, len(stream)):
            got = read(stream[at : at + size] for at in range(0, len(stream), size))
            assert "".join(item for item in got if isinstance(item, str)) == (
                'a "server_tool_use" is coming, one mentions input_json_delta'
            )
            assert [item for item in got if isinstance(item, ToolCall)] == [ToolCall("c1", "f", {"a": 1}, '{"a": 1}')]
            assert Finish("tool_calls", "tool_use") in got

    @pytest.mark.parametrize(
        "told_again",
        [
            {},
            {"input_tokens": 10},
            {"input_tokens": 10, "cache_read_input_tokens": None},
            {"cache_read_input_tokens": 100, "input_tokens": None},
            {"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 5},
        ],
        ids=str,
    )
    def test_a_count_that_the_end_leaves_out_is_that_of_the_start(self, told_again: dict[str, Any]) -> None:
        """The prompt is the sum of three counts, each of which may be repeated."""
        first = {"input_tokens": 10, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 5}
        events = [
            {"type": "message_start", "message": {"usage": {**first, "output_tokens": 1}}},
            delta("text_delta", 0, text="of message_start and message_delta"),
            stopped("end_turn", **told_again, output_tokens=7),
            {"type": "message_stop"},
        ]
        stream = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
        for size in (1, 7, len(stream)):
            got = read(stream[at : at + size] for at in range(0, len(stream), size))
            assert [item for item in got if isinstance(item, Usage)][-1] == Usage(115, 7, 122, 100, 5)

    def test_every_event_reaches_decode(self) -> None:
        """The framing drops nothing."""
        framing = Anthropic.framing()
        frames = framing.feed(b'data: {"server_tool_use"\n\ndata: ["x_tool_use"]\n\ndata: {"index": "_tool_use"}\n\n')
        assert len(frames) == 3

    @given(value=ANY, event=st.sampled_from(WORDS))
    def test_any_json_is_items_or_an_error_of_the_tree(self, value: Any, event: str) -> None:
        """Streamed and whole; no item is empty."""
        record = Record(json.dumps(value), event)
        for decode, source in ((Anthropic.decode, record), (Anthropic.decode_document, value)):
            try:
                said = list(decode(source))
            except LLMBridgeError:
                continue
            assert "" not in said
            assert Reasoning("") not in said


def read(body_parts: Iterable[bytes]) -> list[Item | End]:
    """The result of the core for the bytes of a stream."""
    framing, decode, assembly = Anthropic.framing(), Anthropic.decoder(), Assembly()
    got: list[Any] = []
    for part in body_parts:
        for frame in framing.feed(part):
            for item in decode(frame):
                if isinstance(item, End):
                    got.append(item)
                else:
                    assembly.take(item, got)
    assembly.close(got)
    return got


class TestKeys:
    """Where the key comes from, and its header."""

    @pytest.fixture(autouse=True)
    def _no_keys(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", "/dev/null")

    def sent(self, api_key: str | None = None) -> dict[str, str]:
        """The headers with the key."""
        key = Anthropic.find_key(None if api_key is None else Secret(api_key), False)
        assert key is not None
        assert MASK in repr(key)
        return Anthropic.auth_headers(key.reveal())

    def test_a_key_has_a_header_of_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From the argument or the variable."""
        assert self.sent("sk-ant-1") == {"x-api-key": "sk-ant-1"}
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-2")
        assert self.sent() == {"x-api-key": "sk-ant-2"}

    def test_a_token_is_a_bearer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Any value of the token variable; an OAuth token from any source."""
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", " tok-1 ")
        assert self.sent() == {"Authorization": "Bearer tok-1"}
        assert self.sent("sk-ant-oat01-x") == {"Authorization": "Bearer sk-ant-oat01-x"}
        assert self.sent("sk-ant-3") == {"x-api-key": "sk-ant-3"}

    def test_the_key_comes_before_the_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """If both are set."""
        monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "tok-1")
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-2")
        assert self.sent() == {"x-api-key": "sk-ant-2"}

    def test_without_a_key_both_variables_are_named(self) -> None:
        """A server of your own may need none."""
        with pytest.raises(MissingKey, match="ANTHROPIC_API_KEY or ANTHROPIC_AUTH_TOKEN"):
            Anthropic.find_key(None, False)
        assert Anthropic.find_key(None, True) is None

    def test_the_base_url_may_come_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Like in the service's own SDK."""
        assert Anthropic.resolve_base_url() == "https://api.anthropic.com"
        monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
        assert Anthropic.resolve_base_url() == "http://127.0.0.1:1"


NOTHING = Usage(0, 0, 0)


@dataclass(frozen=True)
class Recorded:
    """The content of a recording, read by eye."""

    text: str = ""
    finish: str = "end_turn"
    usage: Usage | None = NOTHING
    reasoning: str = ""
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = ()
    error: type[LLMBridgeError] | None = None
    says: str = ""


HELLO = "Hello from a real engine: Grüße, 世界 🌍 bye."
RECORDINGS: dict[str, Recorded] = {
    "aimock/anthropic_err400": Recorded(error=BadRequest, says="Invalid parameter: temperature"),
    "aimock/anthropic_err401": Recorded(error=AuthError, says="Incorrect API key provided"),
    "aimock/anthropic_err404": Recorded(error=NotFound, says="The model does not exist"),
    "aimock/anthropic_err429": Recorded(error=RateLimited, says="Rate limit exceeded (it asks to wait 1 s)"),
    "aimock/anthropic_err500": Recorded(error=ServerError, says="The server had an error"),
    "aimock/anthropic_err503": Recorded(error=Overloaded, says="Overloaded"),
    "aimock/anthropic_length": Recorded("This was cut by the limit", "max_tokens"),
    "aimock/anthropic_nostream": Recorded("Counted answer.", usage=Usage(11, 7, 18)),
    "aimock/anthropic_text": Recorded("Hello from a real server. Grüße, 世界 🌍!"),
    "aimock/anthropic_thinking": Recorded("The answer is 4.", reasoning="Two and two make four."),
    "aimock/anthropic_tool": Recorded(
        finish="tool_use", calls=(("call_peer_0", "get_weather", {"city": "San Francisco", "unit": "fahrenheit"}),)
    ),
    "aimock/anthropic_truncate": Recorded(error=StreamTruncated, says="end"),
    "aimock/anthropic_twotools": Recorded(
        finish="tool_use",
        calls=(
            ("call_peer_1", "get_weather", {"city": "Zürich", "unit": "c"}),
            ("call_peer_2", "get_time", {}),
        ),
    ),
    "aimock/anthropic_usage": Recorded("Counted answer.", usage=Usage(11, 7, 18)),
    "llama_server/anthropic_bad_key": Recorded(error=AuthError, says="Invalid API Key"),
    "llama_server/anthropic_no_messages": Recorded(error=ServerError, says="'messages' is required"),
    "llama_server/anthropic_nostream": Recorded(HELLO, usage=Usage(22, 13, 35, 21)),
    "llama_server/anthropic_text": Recorded(HELLO, usage=Usage(22, 13, 35, 21)),
    "llama_server/anthropic_too_long": Recorded(
        error=ContextLengthExceeded, says="request (6020 tokens) exceeds the available context size (2048 tokens)"
    ),
    "llama_server/anthropic_tool": Recorded(
        finish="tool_use",
        usage=Usage(311, 7, 318, 310),
        calls=(("CvOGPbXqPrkFUrypz6ez0Mti2DxcYQZh", "get_weather", {"city": "Zürich"}),),
    ),
}


class TestRecordings:
    """Answers recorded from real servers."""

    @pytest.fixture
    def server(self) -> Iterator[LLMServer]:
        """A new loopback server."""
        with LLMServer() as running:
            yield running

    def test_none_is_left_out(self) -> None:
        """A new recording needs a row in the table."""
        found = {f"{path.parent.name}/{path.stem}" for path in DATA.glob("*/anthropic_*.txt")}
        assert found == set(RECORDINGS)

    @pytest.mark.parametrize("split", [None, 1])
    @pytest.mark.parametrize("name", RECORDINGS)
    def test_a_recording_replays(self, server: LLMServer, name: str, split: int | None) -> None:
        """Whole and byte by byte: the recorded answer or error."""
        expected = RECORDINGS[name]
        server.script(Reply(raw=[(DATA / f"{name}.txt").read_bytes(), CLOSE], split=split))
        with Client("anthropic:m", base_url=server.root, api_key="sk-ant-1", retries=0, timeout=20) as client:
            stream = client.chat("Hi", proxy=False)
            if expected.error is not None:
                with pytest.raises(expected.error) as caught:
                    stream.complete()
                assert type(caught.value) is expected.error
                assert expected.says in str(caught.value)
                return
            got = stream.complete()
        assert (got.text, got.reasoning, got.raw_finish_reason) == (expected.text, expected.reasoning, expected.finish)
        assert got.usage == expected.usage
        assert tuple((call.id, call.name, call.arguments) for call in got.tool_calls) == expected.calls
        assert all(call.problem is None for call in got.tool_calls)

    def test_thinking_goes_back_with_its_proof(self, server: LLMServer) -> None:
        """An answer in the next call's messages is sent unchanged."""
        raw = (DATA / "aimock/anthropic_thinking.txt").read_bytes()
        server.script(Reply(raw=[raw, CLOSE]), Reply(raw=[raw, CLOSE]))
        with Client("anthropic:m", base_url=server.root, api_key="sk-ant-1", retries=0, timeout=20) as client:
            first = client.chat("Hi", proxy=False).complete()
            client.chat([*TURN, first, *TURN], proxy=False).complete()
        assert server.requests[1].json["messages"][1] == {
            "role": "assistant",
            "content": [
                {
                    "type": "thinking",
                    "thinking": "Two and two make four.",
                    "signature": "aimock-placeholder-signature",
                },
                {"type": "text", "text": "The answer is 4."},
            ],
        }

    def test_blocks_may_overlap(self) -> None:
        """llama.cpp's server starts the text before the thinking ends, and sends the signature last."""
        events = [
            start("thinking", 0, thinking="", signature=""),
            delta("thinking_delta", 0, thinking="Hm."),
            start("text", 1, text=""),
            delta("text_delta", 1, text="Hi"),
            {"type": "content_block_stop", "index": 1},
            delta("signature_delta", 0, signature="s"),
            {"type": "content_block_stop", "index": 0},
            stopped("end_turn"),
            {"type": "message_stop"},
        ]
        got = read(f"data: {json.dumps(event)}\n\n".encode() for event in events)
        got = [item for item in got if not isinstance(item, EndOfPart)]
        assert got == [Reasoning("Hm."), "Hi", Reasoning("", signature="s"), Finish("stop", "end_turn"), END]

    def test_the_request_that_a_call_sends(self, server: LLMServer) -> None:
        """Path, headers and body have the service's form."""
        server.script(Reply(raw=[(DATA / "aimock/anthropic_text.txt").read_bytes(), CLOSE]))
        with Client("anthropic:claude-x", base_url=server.root, api_key="sk-ant-1", retries=0, timeout=20) as client:
            client.chat("Hi", proxy=False, beta="b-1", max_tokens=5).complete()
        (received,) = server.requests
        assert (received.method, received.path) == ("POST", "/v1/messages")
        assert received.header("x-api-key") == "sk-ant-1"
        assert received.header("authorization") is None
        assert received.header("anthropic-version") == "2023-06-01"
        assert received.header("anthropic-beta") == "b-1"
        assert received.json == {"model": "claude-x", "max_tokens": 5, "messages": TURN, "stream": True}

    def test_a_structured_answer_may_come_as_a_call(self, server: LLMServer) -> None:
        """The arguments of the added tool are the text; the call itself is hidden."""
        events = [
            start("tool_use", 0, id="c1", name="city", input={}),
            delta("input_json_delta", 0, partial_json='{"city": '),
            delta("input_json_delta", 0, partial_json='"Oslo"}'),
            stopped("tool_use", output_tokens=3),
            {"type": "message_stop"},
        ]
        stream = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        server.script(Reply(body=stream))
        with Client("anthropic:m", base_url=server.root, api_key="sk-ant-1", retries=0, timeout=20) as client:
            answer = client.chat("Hi", proxy=False, schema=schema(), schema_mode="tool").complete()
        assert (answer.text, answer.parsed) == ('{"city": "Oslo"}', {"city": "Oslo"})
        assert (answer.tool_calls, answer.finish_reason, answer.raw_finish_reason) == ((), "stop", "tool_use")

    def test_what_is_refused_is_refused_at_the_call(self, server: LLMServer) -> None:
        """Nothing is sent, unless the caller has it left out."""
        server.script(Reply("x"))
        with Client("anthropic:m", base_url=server.root, api_key="sk-ant-1", retries=0, timeout=20) as client:
            with pytest.raises(InvalidRequest, match="seed"):
                client.chat("Hi", proxy=False, seed=1).complete()
            assert server.requests == []
            assert client.chat("Hi", proxy=False, seed=1, unsupported="drop").complete().text == "x"
        assert "seed" not in server.requests[0].json
