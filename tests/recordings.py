"""Answers recorded from real servers, and their content, read by eye: one table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbridge import (
    AuthError,
    BadRequest,
    ContextLengthExceeded,
    LLMBridgeError,
    NotFound,
    Overloaded,
    ProtocolError,
    RateLimited,
    ServerError,
    StreamTruncated,
    Usage,
)
from llmbridge.testing import CLOSE

__all__ = ["ALL", "Answer", "Failure", "Listing", "names", "provider_of", "recorded", "steps"]

DATA = Path(__file__).parent / "data" / "transcripts"
BROKEN_OFF = "connection closed by peer before the response was complete"

_PROVIDERS = {
    "chat": "openai",
    "completions": "openai-compatible",
    "azure": "azure",
    "openrouter": "openrouter",
    "anthropic": "anthropic",
    "bedrock": "anthropic",
    "gemini": "gemini",
    "vertex": "gemini",
    "ollama": "ollama",
    "responses": "openai-responses",
    "cohere": "cohere",
}

Calls = tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True)
class Answer:
    """The content of a recorded answer; the service's own word for the end is `finish` unless `raw` is set."""

    text: str
    finish: str = "stop"
    usage: Usage | None = None
    reasoning: str = ""
    raw: str = ""
    calls: Calls = ()
    logprobs: int = 0


@dataclass(frozen=True)
class Failure:
    """The content of a recorded error."""

    error: type[LLMBridgeError]
    status: int | None = None
    code: str | None = None
    says: str = ""
    partial: str = ""
    retry_after: float | None = None
    retryable: bool = False


@dataclass(frozen=True)
class Listing:
    """The content of a recorded list of models."""

    models: tuple[str, ...]


def used(
    prompt: int,
    answer: int,
    total: int,
    cached: int | None = None,
    reasoning: int | None = None,
    written: int | None = None,
) -> Usage:
    """The recorded token counts."""
    return Usage(
        input_tokens=prompt,
        output_tokens=answer,
        total_tokens=total,
        cached_input_tokens=cached,
        reasoning_tokens=reasoning,
        cache_write_tokens=written,
    )


SAN_FRANCISCO: Calls = (("get_weather", {"city": "San Francisco", "unit": "fahrenheit"}),)
ZURICH: Calls = (("get_weather", {"city": "Zürich"}),)
TWO_CALLS: Calls = (("get_weather", {"city": "Zürich", "unit": "c"}), ("get_time", {}))
BERN: Calls = (("get_weather", {"city": "Bern"}), ("get_time", {}))
NOTHING_COUNTED = used(0, 0, 0)
MODELS = ("gpt-4", "gpt-4o", "claude-3-5-sonnet-20241022", "gemini-2.0-flash", "text-embedding-3-small")
REAL_SERVER = "Hello from a real server. Grüße, 世界 🌍!"
HELLO = "Hello from a real engine: Grüße, 世界 🌍 bye."
TOO_LONG = Failure(
    ContextLengthExceeded,
    400,
    "exceed_context_size_error",
    "request (6020 tokens) exceeds the available context size (2048 tokens), try increasing it",
)
WRONG_KEY = Failure(AuthError, 401, "authentication_error", "Invalid API Key")
FIVE_HUNDRED = Failure(ServerError, 500, None, "Internal Server Error", retryable=True)

ALL: dict[str, Answer | Failure | Listing] = {
    "aimock/chat_bad_json": Failure(BadRequest, 400, "invalid_json", "Malformed JSON: Expected property name or '}'"),
    "aimock/chat_disconnect": Failure(StreamTruncated, partial="This stream will"),
    "aimock/chat_err400": Failure(BadRequest, 400, "invalid_value", "Invalid parameter: temperature"),
    "aimock/chat_err401": Failure(AuthError, 401, "invalid_api_key", "Incorrect API key provided"),
    "aimock/chat_err404": Failure(NotFound, 404, "model_not_found", "The model does not exist"),
    "aimock/chat_err429": Failure(
        RateLimited, 429, "rate_limit_exceeded", "Rate limit exceeded", retry_after=1.0, retryable=True
    ),
    "aimock/chat_err500": Failure(ServerError, 500, "server_error", "The server had an error", retryable=True),
    "aimock/chat_err503": Failure(Overloaded, 503, "overloaded_error", "Overloaded", retryable=True),
    "aimock/chat_filter": Answer("I can", "content_filter"),
    "aimock/chat_json": Answer('{"ok":true,"items":[1,2]}'),
    "aimock/chat_late": Answer("The first token was three seconds late."),
    "aimock/chat_length": Answer("This was cut by the limit", "length"),
    "aimock/chat_no_fixture": Failure(
        Overloaded, 503, "no_fixture_match", "Strict mode: no fixture matched", retryable=True
    ),
    "aimock/chat_no_messages": Failure(
        BadRequest, 400, "invalid_request_error", "Missing required parameter: 'messages'"
    ),
    "aimock/chat_nostream": Answer("Counted answer.", usage=used(11, 7, 18)),
    "aimock/chat_reasoning": Answer("The answer is 4.", reasoning="Two and two make four."),
    "aimock/chat_slow": Answer("This one drips out slowly, token after token."),
    "aimock/chat_text": Answer("Hello from a real server. Grüße, 世界 🌍!"),
    "aimock/chat_tool": Answer("", "tool_calls", calls=SAN_FRANCISCO),
    "aimock/chat_tool_nostream": Answer("", "tool_calls", used(3, 14, 17), calls=SAN_FRANCISCO),
    "aimock/chat_toolfirst": Answer("Looking it up.", "tool_calls", calls=ZURICH),
    "aimock/chat_truncate": Failure(StreamTruncated, partial="This str"),
    "aimock/chat_twotools": Answer("", "tool_calls", calls=TWO_CALLS),
    "aimock/chat_usage": Answer("Counted answer.", usage=used(11, 7, 18)),
    "llama_server/chat_bad_json": Failure(
        ServerError, 500, "server_error", "parse error at line 1, column 3", retryable=True
    ),
    "llama_server/chat_bad_key": WRONG_KEY,
    "llama_server/chat_bad_model": Answer(HELLO),
    "llama_server/chat_bad_param": Failure(BadRequest, 400, "invalid_request_error", "Field 'temperature'"),
    "llama_server/chat_bad_schema": Failure(BadRequest, 400, "invalid_request_error", "but got: wibble"),
    "llama_server/chat_json": Answer('{"ok": true, "n": [1, 2]}'),
    "llama_server/chat_length": Answer("tick tock " * 6, "length"),
    "llama_server/chat_logprobs": Answer("Hello from a", "length", logprobs=3),
    "llama_server/chat_no_key": WRONG_KEY,
    "llama_server/chat_no_messages": Failure(BadRequest, 400, "invalid_request_error", "'messages' is required"),
    "llama_server/chat_nostream": Answer(HELLO, usage=used(22, 13, 35, cached=21)),
    "llama_server/chat_progress": Answer(HELLO),
    "llama_server/chat_reasoning": Answer("The answer is 4.", reasoning="Two and two make four.\n"),
    "llama_server/chat_schema": Answer('{"ok": true}'),
    "llama_server/chat_stop": Answer("Hello from a"),
    "llama_server/chat_text": Answer(HELLO),
    "llama_server/chat_too_long": TOO_LONG,
    "llama_server/chat_too_long_nostream": TOO_LONG,
    "llama_server/chat_tool": Answer("", "tool_calls", calls=ZURICH),
    "llama_server/chat_tool_nostream": Answer("", "tool_calls", used(311, 7, 318, cached=218), calls=ZURICH),
    "llama_server/chat_twotools": Answer("", "tool_calls", used(449, 13, 462, cached=218), calls=BERN),
    "llama_server/chat_unknown_param": Answer("Hello from a", "length"),
    "llama_server/chat_usage": Answer(HELLO, usage=used(22, 13, 35, cached=21)),
    "transformers/chat_bad_json": Failure(BadRequest, 422, None, "body.1: JSON decode error"),
    "transformers/chat_bad_model": Failure(BadRequest, 400, None, "requested 'no-such-model'."),
    "transformers/chat_bad_param": FIVE_HUNDRED,
    "transformers/chat_json": Answer('{"ok": true, "n": [1, 2]}', usage=used(29, 5, 34)),
    "transformers/chat_length": Answer("tick tock " * 6, "length", used(29, 12, 41)),
    "transformers/chat_no_messages": FIVE_HUNDRED,
    "transformers/chat_nostream": Answer(HELLO, usage=used(22, 13, 35)),
    "transformers/chat_reasoning": Answer(
        "\n\nThe answer is 4.", usage=used(30, 9, 39), reasoning="\nTwo and two make four.\n"
    ),
    "transformers/chat_stop": Answer("Hello from a real", usage=used(22, 4, 26)),
    "transformers/chat_text": Answer(HELLO, usage=used(22, 13, 35)),
    "transformers/chat_tool": Answer("", "tool_calls", used(311, 7, 318), calls=ZURICH),
    "transformers/chat_tool_choice": Answer("", "tool_calls", used(311, 7, 318), calls=ZURICH),
    "transformers/chat_tool_nostream": Answer("", "tool_calls", used(311, 7, 318), calls=ZURICH),
    "transformers/chat_twotools": Answer("", "tool_calls", used(449, 13, 462), calls=BERN),
    "transformers/chat_unknown_param": Failure(BadRequest, 422, None, "Unexpected fields in the request: {'wibble'}"),
    "transformers/chat_usage": Answer(HELLO, usage=used(22, 13, 35)),
    # Anthropic
    "aimock/anthropic_err400": Failure(BadRequest, 400, "invalid_request_error", "Invalid parameter: temperature"),
    "aimock/anthropic_err401": Failure(AuthError, 401, "authentication_error", "Incorrect API key provided"),
    "aimock/anthropic_err404": Failure(NotFound, 404, "invalid_request_error", "The model does not exist"),
    "aimock/anthropic_err429": Failure(
        RateLimited, 429, "rate_limit_error", "Rate limit exceeded", retry_after=1.0, retryable=True
    ),
    "aimock/anthropic_err500": Failure(ServerError, 500, "server_error", "The server had an error", retryable=True),
    "aimock/anthropic_err503": Failure(Overloaded, 503, "overloaded_error", "Overloaded", retryable=True),
    "aimock/anthropic_length": Answer("This was cut by the limit", "length", NOTHING_COUNTED, raw="max_tokens"),
    "aimock/anthropic_nostream": Answer("Counted answer.", usage=used(11, 7, 18), raw="end_turn"),
    "aimock/anthropic_text": Answer(REAL_SERVER, usage=NOTHING_COUNTED, raw="end_turn"),
    "aimock/anthropic_thinking": Answer(
        "The answer is 4.", usage=NOTHING_COUNTED, reasoning="Two and two make four.", raw="end_turn"
    ),
    "aimock/anthropic_tool": Answer("", "tool_calls", NOTHING_COUNTED, raw="tool_use", calls=SAN_FRANCISCO),
    "aimock/anthropic_truncate": Failure(StreamTruncated),
    "aimock/anthropic_twotools": Answer("", "tool_calls", NOTHING_COUNTED, raw="tool_use", calls=TWO_CALLS),
    "aimock/anthropic_usage": Answer("Counted answer.", usage=used(11, 7, 18), raw="end_turn"),
    "llama_server/anthropic_bad_key": WRONG_KEY,
    "llama_server/anthropic_no_messages": Failure(
        ServerError, 500, "server_error", "'messages' is required", retryable=True
    ),
    "llama_server/anthropic_nostream": Answer(HELLO, usage=used(22, 13, 35, cached=21), raw="end_turn"),
    "llama_server/anthropic_text": Answer(HELLO, usage=used(22, 13, 35, cached=21), raw="end_turn"),
    "llama_server/anthropic_too_long": TOO_LONG,
    "llama_server/anthropic_tool": Answer(
        "", "tool_calls", used(311, 7, 318, cached=310), raw="tool_use", calls=ZURICH
    ),
    # AWS's own framing, which is binary
    "aimock/bedrock_converse_stream": Failure(ProtocolError, says="AWS binary event streams"),
    "aimock/bedrock_invoke_stream": Failure(ProtocolError, says="AWS binary event streams"),
    # Azure and OpenRouter
    "aimock/azure_err429": Failure(
        RateLimited, 429, "rate_limit_exceeded", "Rate limit exceeded", retry_after=1.0, retryable=True
    ),
    "aimock/azure_text": Answer(REAL_SERVER, usage=used(3, 10, 13)),
    "aimock/openrouter_comment": Answer("After a comment.", usage=used(3, 4, 7)),
    "aimock/openrouter_err429": Failure(
        RateLimited, 429, "429", "Rate limit exceeded", retry_after=1.0, retryable=True
    ),
    "aimock/openrouter_text": Answer("Counted answer.", usage=used(11, 7, 18)),
    # Cohere
    "aimock/cohere_text": Answer(REAL_SERVER, usage=NOTHING_COUNTED, raw="COMPLETE"),
    "aimock/cohere_tool": Answer(
        "",
        "tool_calls",
        NOTHING_COUNTED,
        reasoning="I will use the requested tool.",
        raw="TOOL_CALL",
        calls=SAN_FRANCISCO,
    ),
    # Gemini
    "aimock/gemini_array": Answer(REAL_SERVER, usage=NOTHING_COUNTED, raw="STOP"),
    "aimock/gemini_err400": Failure(BadRequest, 400, "invalid_request_error", "Invalid parameter: temperature"),
    "aimock/gemini_err401": Failure(AuthError, 401, "authentication_error", "Incorrect API key provided"),
    "aimock/gemini_err404": Failure(NotFound, 404, "invalid_request_error", "The model does not exist"),
    "aimock/gemini_err429": Failure(
        RateLimited, 429, "rate_limit_error", "Rate limit exceeded", retry_after=1.0, retryable=True
    ),
    "aimock/gemini_err503": Failure(Overloaded, 503, "overloaded_error", "Overloaded", retryable=True),
    "aimock/gemini_filter": Answer("I can", "content_filter", NOTHING_COUNTED, raw="SAFETY"),
    "aimock/gemini_length": Answer("This was cut by the limit", "length", NOTHING_COUNTED, raw="MAX_TOKENS"),
    "aimock/gemini_nostream": Answer("Counted answer.", usage=used(11, 7, 18), raw="STOP"),
    "aimock/gemini_text": Answer(REAL_SERVER, usage=NOTHING_COUNTED, raw="STOP"),
    "aimock/gemini_thinking": Answer(
        "The answer is 4.", usage=NOTHING_COUNTED, reasoning="Two and two make four.", raw="STOP"
    ),
    "aimock/gemini_tool": Answer("", "tool_calls", NOTHING_COUNTED, raw="FUNCTION_CALL", calls=SAN_FRANCISCO),
    "aimock/gemini_truncate": Failure(StreamTruncated, partial="This stream will"),
    "aimock/gemini_twotools": Answer("", "tool_calls", NOTHING_COUNTED, raw="FUNCTION_CALL", calls=TWO_CALLS),
    "aimock/gemini_usage": Answer("Counted answer.", usage=used(11, 7, 18), raw="STOP"),
    "aimock/vertex_text": Answer(REAL_SERVER, usage=NOTHING_COUNTED, raw="STOP"),
    # Ollama
    "aimock/ollama_chat": Answer(REAL_SERVER, usage=NOTHING_COUNTED),
    "aimock/ollama_err404": Failure(NotFound, 404, "model_not_found", "The model does not exist"),
    "aimock/ollama_err429": Failure(
        RateLimited, 429, "rate_limit_exceeded", "Rate limit exceeded", retry_after=1.0, retryable=True
    ),
    "aimock/ollama_err500": Failure(ServerError, 500, "server_error", "The server had an error", retryable=True),
    "aimock/ollama_generate": Answer(REAL_SERVER, usage=NOTHING_COUNTED),
    "aimock/ollama_nostream": Answer("Counted answer.", usage=NOTHING_COUNTED),
    "aimock/ollama_thinking": Answer("The answer is 4.", usage=NOTHING_COUNTED, reasoning="Two and two make four."),
    "aimock/ollama_tool": Answer("", "tool_calls", NOTHING_COUNTED, raw="stop", calls=SAN_FRANCISCO),
    "aimock/ollama_truncate": Failure(StreamTruncated, partial="This stream will"),
    "aimock/ollama_usage": Answer("Counted answer.", usage=NOTHING_COUNTED),
    "llama_server/ollama_chat": Failure(NotFound, 404, "not_found_error", "File Not Found"),
    # OpenAI's Responses
    "aimock/responses_err429": Failure(
        RateLimited, 429, "rate_limit_exceeded", "Rate limit exceeded", retry_after=1.0, retryable=True
    ),
    "aimock/responses_nostream": Answer("Counted answer.", usage=used(11, 7, 18), raw="completed"),
    "aimock/responses_reasoning": Answer(
        "The answer is 4.", usage=NOTHING_COUNTED, reasoning="Two and two make four.", raw="completed"
    ),
    "aimock/responses_text": Answer(REAL_SERVER, usage=NOTHING_COUNTED, raw="completed"),
    "aimock/responses_tool": Answer("", "tool_calls", NOTHING_COUNTED, raw="completed", calls=SAN_FRANCISCO),
    "transformers/responses_nostream": Answer(HELLO, usage=used(22, 13, 35, 0, 0, 0), raw="completed"),
    "transformers/responses_reasoning": Answer(
        "\n\nThe answer is 4.",
        usage=used(30, 9, 39, 0, 0, 0),
        reasoning="\nTwo and two make four.\n",
        raw="completed",
    ),
    "transformers/responses_text": Answer(HELLO, usage=used(22, 13, 35, 0, 0, 0), raw="completed"),
    "transformers/responses_tool": Answer("", "tool_calls", used(311, 7, 318, 0, 0, 0), raw="completed", calls=ZURICH),
    # the older endpoint for plain completions
    "llama_server/completions_text": Answer(HELLO, usage=used(1, 13, 14, cached=0)),
    "transformers/completions_text": Answer(HELLO, usage=used(1, 13, 14)),
    # lists of models, and other pages
    "aimock/models": Listing(MODELS),
    "aimock/ollama_tags": Listing(MODELS),
    "llama_server/models": Listing(("tiny-script",)),
    "transformers/models": Listing(()),
    "llama_server/health": Failure(ProtocolError, says="not a list of models"),
    "llama_server/props": Failure(ProtocolError, says="not a list of models"),
    "llama_server/not_found": Failure(NotFound, 404, "not_found_error", "File Not Found"),
    "llama_server/ollama_tags": Failure(NotFound, 404, "not_found_error", "File Not Found"),
    "transformers/not_found": Failure(NotFound, 404, None, "Not Found"),
}


def names(*kinds: type, provider: str | None = None) -> list[str]:
    """The recordings of these kinds, perhaps only those of one provider."""
    return [
        name
        for name, expected in ALL.items()
        if isinstance(expected, kinds) and (provider is None or provider_of(name) == provider)
    ]


def provider_of(name: str) -> str | None:
    """The provider that reads a recording; None if it is not an answer of a chat endpoint."""
    kind = name.partition("/")[2].partition("_")
    return None if name.endswith("/ollama_tags") else _PROVIDERS.get(kind[0])


def recorded(name: str) -> bytes:
    """Everything that the real server sent, with status line and headers."""
    return (DATA / f"{name}.txt").read_bytes()


def steps(name: str) -> list[Any]:
    """The recorded bytes, and how the connection ended."""
    raw, end = recorded(name), json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["end"]
    assert end in ("complete", BROKEN_OFF)
    closes = end == BROKEN_OFF or b"\r\nconnection: close\r\n" in raw.partition(b"\r\n\r\n")[0].lower() + b"\r\n"
    return [raw, CLOSE] if closes else [raw]
