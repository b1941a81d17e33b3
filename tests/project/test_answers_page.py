"""Plays every cell of the table in docs/answers.md, which says what each service returns."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbridge import Client, Completion
from llmbridge.testing import LLMServer, Reply

PAGE = Path(__file__).parents[2] / "docs" / "answers.md"
PIXEL = "iVBORw0KGgo="
MODELS = {
    "chat": "openrouter:m",
    "responses": "openai-responses:gpt-5.4-mini",
    "anthropic": "anthropic:claude-sonnet-5",
    "gemini": "gemini:gemini-3.5-flash",
    "mistral": "mistral:m",
    "ollama": "ollama:m",
    "cohere": "cohere:m",
}
SOURCE = "https://example.org/bridge"


def events(*parts: Any) -> bytes:
    """A stream of server-sent events."""
    return b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts)


def chat(*deltas: Any, finish: str = "stop", **top: Any) -> bytes:
    """An answer in OpenAI's Chat Completions."""
    head = {"id": "id-1", "model": "served-1", "object": "chat.completion.chunk", "system_fingerprint": "fp", **top}
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]}
    return events(*chunks, end) + b"data: [DONE]\n\n"


def responses(*items: Any, **more: Any) -> bytes:
    """An answer in the Responses API."""
    head = {"id": "id-1", "model": "served-1", "service_tier": "default"}
    done = [
        {"type": "response.output_item.done", "output_index": place, "item": item} for place, item in enumerate(items)
    ]
    last = {"type": "response.completed", "response": {**head, "status": "completed", "output": list(items), **more}}
    return events(
        {"type": "response.created", "response": {**head, "status": "in_progress", "output": []}}, *done, last
    )


def anthropic(*blocks: Any, stop: str = "end_turn") -> bytes:
    """An answer of Anthropic's: a block as it starts, followed by its deltas."""
    told = [{"type": "message_start", "message": {"id": "id-1", "model": "served-1", "usage": {"input_tokens": 1}}}]
    for index, (block, *deltas) in enumerate(blocks):
        told.append({"type": "content_block_start", "index": index, "content_block": block})
        told += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        told.append({"type": "content_block_stop", "index": index})
    told += [{"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 2}}]
    return events(*told, {"type": "message_stop"})


def gemini(*parts: Any, finish: str = "STOP", **candidate: Any) -> bytes:
    """An answer of Gemini's."""
    end = {"index": 0, "content": {"role": "model", "parts": list(parts)}, "finishReason": finish, **candidate}
    return events({"candidates": [end], "responseId": "id-1", "modelVersion": "served-1", "createTime": "now"})


def ollama(**message: Any) -> bytes:
    """An answer of Ollama's."""
    line = {"model": "served-1", "created_at": "now", "message": {"role": "assistant", "content": "", **message}}
    return (
        json.dumps({**line, "done": False}).encode()
        + b"\n"
        + json.dumps({**line, "message": {}, "done": True}).encode()
    )


def cohere(*told: Any, finish: str = "COMPLETE") -> bytes:
    """An answer of Cohere's."""
    usage = {"tokens": {"input_tokens": 1, "output_tokens": 2}}
    end = {"type": "message-end", "delta": {"finish_reason": finish, "usage": usage}}
    return events({"type": "message-start", "id": "id-1", "delta": {"message": {}}}, *told, end)


def message(**content: Any) -> dict[str, Any]:
    """A message item of the Responses API."""
    part = {"type": "output_text", "text": "Hi", "annotations": [], **content}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


TEXT = {"type": "text", "text": ""}
HI = {"type": "text_delta", "text": "Hi"}
PLAIN: dict[str, bytes] = {
    "chat": chat({"content": "Hi"}),
    "responses": responses(message()),
    "anthropic": anthropic((TEXT, HI)),
    "gemini": gemini({"text": "Hi"}),
    "mistral": chat({"content": "Hi"}),
    "ollama": ollama(content="Hi"),
    "cohere": cohere({"type": "content-delta", "delta": {"message": {"content": {"text": "Hi"}}}}),
}
CALL = {"name": "f", "arguments": '{"x": 1}'}
CITED = {"type": "url_citation", "url": SOURCE, "title": "T", "start_index": 0, "end_index": 2}
LOCATION = {
    "type": "web_search_result_location",
    "url": SOURCE,
    "title": "T",
    "cited_text": "q",
    "encrypted_index": "e",
}
GROUNDED = {"groundingChunks": [{"web": {"uri": SOURCE, "title": "T"}}]}
SOURCES = [{"type": "document", "id": "d", "document": {"url": SOURCE}}]
NAMED = {
    "type": "citation-start",
    "index": 0,
    "delta": {"message": {"citations": {"start": 0, "end": 2, "text": "Hi", "sources": SOURCES}}},
}
SEARCH = {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "q"}}

# Row of the table: for each dialect, answers that hold it, and where it is found.
ROWS: dict[str, tuple[Callable[[Completion], Any], dict[str, bytes]]] = {
    "`.text`": (lambda answer: answer.text == "Hi", PLAIN),
    "`.reasoning`": (
        lambda answer: answer.reasoning == "Hm.",
        {
            "chat": chat({"reasoning": "Hm."}, {"content": "Hi"}),
            "responses": responses(
                {"type": "reasoning", "id": "rs", "summary": [{"type": "summary_text", "text": "Hm."}]}, message()
            ),
            "anthropic": anthropic(
                ({"type": "thinking", "thinking": ""}, {"type": "thinking_delta", "thinking": "Hm."}), (TEXT, HI)
            ),
            "gemini": gemini({"text": "Hm.", "thought": True}, {"text": "Hi"}),
            "mistral": chat({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]}),
            "ollama": ollama(thinking="Hm.", content="Hi"),
            "cohere": cohere({"type": "content-delta", "delta": {"message": {"content": {"thinking": "Hm."}}}}),
        },
    ),
    "`.tool_calls`": (
        lambda answer: [(call.name, call.arguments) for call in answer.tool_calls] == [("f", {"x": 1})],
        {
            "chat": chat({"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": CALL}]}),
            "responses": responses({"type": "function_call", "id": "fc", "call_id": "c", **CALL}),
            "anthropic": anthropic(
                (
                    {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                    {"type": "input_json_delta", "partial_json": '{"x": 1}'},
                ),
                stop="tool_use",
            ),
            "gemini": gemini({"functionCall": {"name": "f", "args": {"x": 1}}}),
            "mistral": chat({"tool_calls": [{"id": "c", "function": CALL}]}, finish="tool_calls"),
            "ollama": ollama(tool_calls=[{"function": {"name": "f", "arguments": {"x": 1}}}]),
            "cohere": cohere(
                {
                    "type": "tool-call-start",
                    "index": 0,
                    "delta": {"message": {"tool_calls": {"id": "c", "function": CALL}}},
                },
                {"type": "tool-call-end", "index": 0},
                finish="TOOL_CALL",
            ),
        },
    ),
    "calls of other kinds": (
        lambda answer: [(call.kind, call.text) for call in answer.tool_calls] == [("custom", "ls")],
        {
            "chat": chat(
                {"tool_calls": [{"index": 0, "id": "c", "type": "custom", "custom": {"name": "f", "input": "ls"}}]}
            ),
            "responses": responses(
                {"type": "custom_tool_call", "id": "ct", "call_id": "c", "name": "f", "input": "ls"}
            ),
        },
    ),
    "`.citations`": (
        lambda answer: [cited.url or cited.document for cited in answer.citations] in ([SOURCE], ["1"]),
        {
            "chat": chat({"content": "Hi"}, {"annotations": [{"type": "url_citation", "url_citation": CITED}]}),
            "responses": responses(message(annotations=[CITED])),
            "anthropic": anthropic((TEXT, {"type": "citations_delta", "citation": LOCATION}, HI)),
            "gemini": gemini({"text": "Hi"}, groundingMetadata=GROUNDED),
            "mistral": chat(
                {
                    "content": [
                        {"type": "reference", "reference_ids": [1], "url": SOURCE, "title": "T"},
                        {"type": "text", "text": "Hi"},
                    ]
                }
            ),
            "cohere": cohere({"type": "content-delta", "delta": {"message": {"content": {"text": "Hi"}}}}, NAMED),
        },
    ),
    "images in `.media`": (
        lambda answer: [(m.kind, m.mime, m.data[:4]) for m in answer.media] == [("image", "image/png", b"\x89PNG")],
        {
            "chat": chat({"images": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]}),
            "responses": responses(
                {"type": "image_generation_call", "id": "ig", "status": "completed", "result": PIXEL}
            ),
            "gemini": gemini({"inlineData": {"mimeType": "image/png", "data": PIXEL}}),
        },
    ),
    "sound in `.media`": (
        lambda answer: [(m.kind, m.data) for m in answer.media] == [("audio", b"sound")],
        {
            "chat": chat({"audio": {"id": "a", "data": "c291"}}, {"audio": {"data": "bmQ=", "transcript": "Hi"}}),
            "gemini": gemini({"inlineData": {"mimeType": "audio/wav", "data": "c291bmQ="}}),
        },
    ),
    "`.server_tools`": (
        lambda answer: len(answer.server_tools) == 1 and answer.server_tools[0].raw,
        {
            "responses": responses(SEARCH, message()),
            "anthropic": anthropic(
                ({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},),
                ({"type": "web_search_tool_result", "tool_use_id": "s", "content": []},),
                (TEXT, HI),
            ),
            "gemini": gemini(
                {"executableCode": {"language": "PYTHON", "code": "1"}}, {"codeExecutionResult": {"output": "1"}}
            ),
        },
    ),
    '`finish_reason` "pause"': (
        lambda answer: answer.finish_reason == "pause",
        {"anthropic": anthropic((TEXT, HI), stop="pause_turn")},
    ),
    "`.refusal`": (
        lambda answer: answer.refusal == "No.",
        {
            "chat": chat({"refusal": "No."}),
            "responses": responses({**message(), "content": [{"type": "refusal", "refusal": "No."}]}),
        },
    ),
    "`.response_id`": (
        lambda answer: answer.response_id == "id-1",
        {name: body for name, body in PLAIN.items() if name != "ollama"},
    ),
    "`.served_model`": (
        lambda answer: answer.served_model == "served-1",
        {name: body for name, body in PLAIN.items() if name != "cohere"},
    ),
    "`.extra`": (
        lambda answer: answer.extra,
        {name: body for name, body in PLAIN.items() if name not in ("anthropic", "cohere")},
    ),
}


def table() -> dict[str, list[bool]]:
    """The rows of the page's first table, a truth value per dialect."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1 : len(ROWS) + 1]]
    return {row[0]: [cell == "yes" for cell in row[1:]] for row in rows}


def test_the_table_is_that_of_the_cases() -> None:
    """The table and the cases have the same rows and cells."""
    assert table() == {row: [dialect in bodies for dialect in MODELS] for row, (_, bodies) in ROWS.items()}


@pytest.mark.parametrize(("row", "dialect"), [(row, name) for row, (_, bodies) in ROWS.items() for name in bodies])
def test_each_cell_is_true(server: LLMServer, row: str, dialect: str) -> None:
    """An answer that holds it returns it."""
    look, bodies = ROWS[row]
    ndjson = {"content_type": "application/x-ndjson"} if dialect == "ollama" else {}
    server.script(Reply(body=bodies[dialect], **ndjson))
    model = MODELS[dialect]
    where = server.base_url("openai" if dialect == "chat" else model.partition(":")[0])
    with Client(model, base_url=where, api_key="sk-test-key", proxy=False, retries=0) as client:
        answer = client.chat("x").complete()
    assert look(answer), answer


def test_the_page_names_the_attributes_that_there_are() -> None:
    """The page names attributes that the whole answer has."""
    names = {match[1] for row in ROWS if (match := re.fullmatch(r"`\.(\w+)`", row))}
    assert names <= set(Completion.__dataclass_fields__)
