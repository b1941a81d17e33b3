"""The testing server compared with recorded servers: the same request and words give answers of the same form."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import requests

from llmbridge.testing import LLMServer, Reply

DATA = Path(__file__).parent.parent / "data" / "transcripts"
SOON = 30.0
HELLO = ["Hello fr", "om a rea", "l server", ". Grüße,", " 世界 🌍!"]
WEATHER = {"name": "get_weather", "arguments": {"city": "San Francisco", "unit": "fahrenheit"}, "id": "call_peer_0"}
TIME = {"name": "get_time", "arguments": {}, "id": "call_peer_2"}
ZURICH = {"name": "get_weather", "arguments": {"city": "Zürich", "unit": "c"}, "id": "call_peer_1"}
LIMIT = Reply("Rate limit exceeded", status=429, headers={"Retry-After": "1"})
NOTHING = {"prompt_eval_count": 0, "eval_count": 0, "prompt_eval_duration": 0, "eval_duration": 0}
NO_TIME = {"total_duration": 0, "load_duration": 0, **NOTHING}

SAME: dict[str, Reply] = {
    "aimock/chat_text": Reply(HELLO),
    "aimock/chat_tool": Reply(tool_calls=[WEATHER]),
    "aimock/chat_twotools": Reply(tool_calls=[ZURICH, TIME]),
    "aimock/chat_tool_nostream": Reply(tool_calls=[WEATHER]),
    "aimock/chat_err429": LIMIT,
    "aimock/azure_err429": LIMIT,
    "aimock/anthropic_text": Reply(HELLO),
    "aimock/anthropic_length": Reply(["This was", " cut by ", "the limi", "t"], finish_reason="length"),
    "aimock/anthropic_tool": Reply(tool_calls=[WEATHER]),
    "aimock/anthropic_twotools": Reply(tool_calls=[ZURICH, TIME]),
    "aimock/anthropic_thinking": Reply(
        ["The answ", "er is 4."],
        reasoning=["Two and ", "two make", " four."],
        signature="aimock-placeholder-signature",
    ),
    "aimock/anthropic_nostream": Reply("Counted answer."),
    "aimock/anthropic_err400": Reply("Invalid parameter: temperature", status=400),
    "aimock/anthropic_err401": Reply("Incorrect API key provided", status=401),
    "aimock/anthropic_err429": LIMIT,
    "llama_server/anthropic_text": Reply(
        ["Hello", " from", " a", " real", " engine:", " Grüße", ", 世界 ", "🌍", " bye."],
    ),
    "llama_server/anthropic_nostream": Reply(
        "Hello from a real engine: Grüße, 世界 🌍 bye.",
    ),
    "aimock/gemini_text": Reply(HELLO),
    "aimock/gemini_length": Reply(["This was", " cut by ", "the limi", "t"], finish_reason="length"),
    "aimock/gemini_filter": Reply("I can", finish_reason="content_filter"),
    "aimock/gemini_tool": Reply(tool_calls=[WEATHER], finish_reason="FUNCTION_CALL"),
    "aimock/gemini_twotools": Reply(tool_calls=[ZURICH, TIME], finish_reason="FUNCTION_CALL"),
    "aimock/gemini_thinking": Reply(["The answ", "er is 4."], reasoning=["Two and ", "two make", " four."]),
    "aimock/gemini_nostream": Reply("Counted answer."),
    "aimock/ollama_chat": Reply(HELLO, usage=NO_TIME),
    "aimock/ollama_nostream": Reply("Counted answer.", usage=NO_TIME),
    "aimock/ollama_tool": Reply(tool_calls=[{**WEATHER, "id": None}], usage=NO_TIME),
}
SAME |= {
    "aimock/responses_text": Reply(HELLO),
    "aimock/responses_tool": Reply(tool_calls=[WEATHER]),
    "aimock/responses_reasoning": Reply(["The answ", "er is 4."], reasoning=["Two and ", "two make", " four."]),
    "aimock/responses_nostream": Reply("Counted answer."),
    "aimock/responses_err429": LIMIT,
    "aimock/cohere_text": Reply(HELLO),
    "aimock/cohere_tool": Reply(reasoning="I will use the requested tool.", tool_calls=[WEATHER]),
}
# What differs between two answers to the same request, and what only one of the servers counts.
VARYING = {"id", "created", "created_at", "usage", "usageMetadata", "request_id"}
VARYING |= {"responseId", "modelVersion", "thoughtSignature"}
# Fields of the real Responses that the recorded server did not send.
VARYING |= {"item_id", "sequence_number", "logprobs", "encrypted_content", "tools", "tool_choice", "metadata"}
VARYING |= {"parallel_tool_calls", "temperature", "top_p"}


def bare(value: Any) -> Any:
    """The JSON without varying fields, nulls, and the index that Ollama's recorded calls lack."""
    if isinstance(value, list):
        return [bare(one) for one in value]
    if not isinstance(value, dict):
        return value
    known = {name: bare(one) for name, one in value.items() if one is not None and name not in VARYING}
    return {name: one for name, one in known.items() if not (name == "index" and "arguments" in known)}


def dechunked(body: bytes) -> bytes:
    """A recorded chunked body without its chunks."""
    whole = b""
    while body:
        line, _, body = body.partition(b"\r\n")
        size = int(line, 16)
        whole, body = whole + body[:size], body[size + 2 :]
    return whole


def events(body: bytes) -> list[Any]:
    """Every event, line or document, prefixed by the event's name if it has one."""
    found: list[Any] = []
    for line in filter(None, re.split(r"\n+", body.decode())):
        field, _, rest = line.partition(": ")
        if field == "event" or rest == "[DONE]":
            found.append(rest)
        else:
            found.append(bare(json.loads(rest if field == "data" else line)))
    return found


@pytest.mark.parametrize("name", SAME)
def test_an_answer_has_the_shape_of_the_recorded_one(server: LLMServer, name: str) -> None:
    """Events, fields, values and status equal those that a recorded server sent for the same words."""
    request = json.loads((DATA / f"{name}.json").read_text("utf-8"))["request"]
    head, _, body = (DATA / f"{name}.txt").read_bytes().partition(b"\r\n\r\n")
    recorded = events(dechunked(body) if b"Transfer-Encoding: chunked" in head else body)
    server.script(SAME[name])
    answer = requests.post(
        server.root + request["path"], json=request["body"], headers=request["headers"], timeout=SOON
    )
    assert f"HTTP/1.1 {answer.status_code} {answer.reason}" == head.partition(b"\r\n")[0].decode()
    assert answer.headers["Content-Type"] in head.decode()
    assert events(answer.content) == recorded
