"""Answers scripted part by part: in order, with signatures, and with the service's own objects."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from llmbridge import Client, Reasoning, ToolCall
from llmbridge.testing import LLMServer, Reply

SOON = 30.0
ASKED: dict[str, dict[str, Any]] = {
    "openai": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    "openai-responses": {"model": "m", "input": "Hi"},
    "anthropic": {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "Hi"}]},
    "gemini": {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    "ollama": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    "mistral": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    "cohere": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
}
PATHS = {
    "openai": "/chat/completions",
    "openai-responses": "/responses",
    "anthropic": "/v1/messages",
    "gemini": "/v1beta/models/m:generateContent",
    "ollama": "/api/chat",
    "mistral": "/chat/completions",
    "cohere": "/v2/chat",
}
TURN = [
    Reasoning("First.", "c2lnMQ=="),
    ToolCall("c1", "weather", {"city": "Oslo"}, signature="c2ln"),
    "Then ",
    Reasoning("Second.", "c2lnMg=="),
    ToolCall("c2", "weather", {"city": "Rome"}),
]


def ask(server: LLMServer, dialect: str, reply: Reply, *, stream: bool = False) -> requests.Response:
    """The answer of a dialect."""
    server.script(reply)
    path, body = PATHS[dialect], ASKED[dialect]
    if dialect == "gemini":
        path = path.replace(":generateContent", ":streamGenerateContent?alt=sse") if stream else path
    else:
        body = {**body, "stream": stream}
    headers = {"anthropic-version": "2023-06-01"} if dialect == "anthropic" else {}
    answer = requests.post(server.base_url(dialect) + path, json=body, headers=headers, timeout=SOON)
    assert answer.ok, answer.text
    return answer


def whole(server: LLMServer, dialect: str, *parts: Any, **options: Any) -> dict[str, Any]:
    """The document made of the parts."""
    made: dict[str, Any] = ask(server, dialect, Reply(parts=parts, **options)).json()
    return made


def events(server: LLMServer, dialect: str, *parts: Any, **options: Any) -> Iterator[dict[str, Any]]:
    """The JSON of each event in the stream made of the parts."""
    text = ask(server, dialect, Reply(parts=parts, **options), stream=True).content.decode()
    for line in text.splitlines():
        line = line.removeprefix("data: ")
        if line.startswith("{"):
            yield json.loads(line)


class TestOrder:
    """Two thoughts and two calls, like models that think between calls."""

    def test_anthropic(self, server: LLMServer) -> None:
        """Blocks, each thought with its own signature; the same in a stream."""
        blocks = whole(server, "anthropic", *TURN)["content"]
        assert blocks == [
            {"type": "thinking", "thinking": "First.", "signature": "c2lnMQ=="},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
            {"type": "text", "text": "Then "},
            {"type": "thinking", "thinking": "Second.", "signature": "c2lnMg=="},
            {"type": "tool_use", "id": "c2", "name": "weather", "input": {"city": "Rome"}},
        ]
        told = list(events(server, "anthropic", *TURN))
        starts = [one["content_block"]["type"] for one in told if one["type"] == "content_block_start"]
        assert starts == [block["type"] for block in blocks]
        signed = [one["delta"]["signature"] for one in told if one.get("delta", {}).get("type") == "signature_delta"]
        assert signed == ["c2lnMQ==", "c2lnMg=="]
        assert told[-2]["delta"]["stop_reason"] == "tool_use"

    def test_responses(self, server: LLMServer) -> None:
        """Items; a signature may name its item."""
        turn = [Reasoning("A.", "rs_1:enc"), *TURN[1:3], Reasoning("", "rs_2:more"), TURN[4]]
        output = whole(server, "openai-responses", *turn)["output"]
        assert [item["type"] for item in output] == [
            *["reasoning", "function_call", "message", "reasoning", "function_call"]
        ]
        assert (output[0]["id"], output[0]["encrypted_content"]) == ("rs_1", "enc")
        assert (output[3]["id"], output[3]["summary"], output[3]["encrypted_content"]) == ("rs_2", [], "more")
        assert len({item["id"] for item in output}) == 5
        told = list(events(server, "openai-responses", *turn))
        done = [one["item"] for one in told if one["type"] == "response.output_item.done"]
        assert [item["type"] for item in done] == [item["type"] for item in output]
        assert [item["type"] for item in told[-1]["response"]["output"]] == [item["type"] for item in output]

    def test_gemini(self, server: LLMServer) -> None:
        """Parts, each with its own signature."""
        (candidate,) = whole(server, "gemini", *TURN, Reasoning("", redacted="cmVk"))["candidates"]
        assert candidate["content"]["parts"] == [
            {"text": "First.", "thought": True, "thoughtSignature": "c2lnMQ=="},
            {
                "functionCall": {"id": "c1", "name": "weather", "args": {"city": "Oslo"}},
                "thoughtSignature": "c2ln",
            },
            {"text": "Then "},
            {"text": "Second.", "thought": True, "thoughtSignature": "c2lnMg=="},
            {"functionCall": {"id": "c2", "name": "weather", "args": {"city": "Rome"}}},
            {"text": "", "thoughtSignature": "cmVk"},
        ]
        told = [one["candidates"][0]["content"]["parts"] for one in events(server, "gemini", *TURN)]
        assert [part for parts in told for part in parts] == candidate["content"]["parts"][:-1]

    @pytest.mark.parametrize("dialect", ["openai", "ollama", "mistral", "cohere"])
    def test_where_there_are_fields(self, server: LLMServer, dialect: str) -> None:
        """Everything arrives, in the dialect's fields."""
        with Client(f"{dialect}:m", base_url=server.base_url(dialect), api_key="k", retries=0) as client:
            for stream in (True, False):
                server.script(Reply(parts=TURN))
                options = {} if stream or dialect == "openai" else {"stream": False}
                answer = client.chat("Hi", **options).complete()
                assert (answer.text, answer.reasoning) == ("Then ", "First.Second.")
                assert [call.arguments for call in answer.tool_calls] == [{"city": "Oslo"}, {"city": "Rome"}]
                assert answer.finish_reason == "tool_calls"

    def test_proofs_in_chat_completions(self, server: LLMServer) -> None:
        """In OpenRouter's field, beside the text."""
        details = [
            {"type": "reasoning.text", "text": "First.", "index": 0, "signature": "c2lnMQ=="},
            {"type": "reasoning.encrypted", "data": "cmVk", "index": 1},
        ]
        message = whole(server, "openai", TURN[0], Reasoning("", redacted="cmVk"))["choices"][0]["message"]
        assert (message["reasoning_content"], message["reasoning_details"]) == ("First.", details)
        assert "reasoning_details" not in whole(server, "openai", Reasoning("Hm."))["choices"][0]["message"]
        with Client("openrouter:m", base_url=server.base_url("openai"), api_key="k", retries=0) as client:
            server.script(Reply(parts=[TURN[0], "x"]), Reply("y"))
            said = client.chat("Hi").complete()
            client.chat([{"role": "user", "content": "Hi"}, said]).complete()
        assert server.requests[-1].json["messages"][1]["reasoning_details"][0]["signature"] == "c2lnMQ=="

    def test_texts_come_in_pieces(self, server: LLMServer) -> None:
        """A list is sent as one event per item."""
        told = [one["choices"][0]["delta"] for one in events(server, "openai", ["Hel", "lo"], "!")]
        assert [delta["content"] for delta in told if delta.get("content")] == ["Hel", "lo", "!"]


class TestOwnObjects:
    """Mappings are the service's own objects: what it sends in pieces is sent in pieces."""

    @pytest.mark.parametrize(
        "block",
        [
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "bridges of Oslo"}},
            {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"encrypted_content": "RU5D"}]},
            {"type": "mcp_tool_use", "id": "m1", "name": "f", "server_name": "s", "input": {}},
            {"type": "redacted_thinking", "data": "cmVk"},
            {"type": "something_new", "value": [1]},
            {"type": "text", "text": "Red. ", "citations": [{"type": "char_location", "cited_text": "red"}]},
            {"type": "thinking", "thinking": "Hm, yes, maybe.", "signature": "s"},
        ],
        ids=lambda block: block["type"],
    )
    def test_anthropic_s_blocks(self, server: LLMServer, block: dict[str, Any]) -> None:
        """The events of the stream make up the block again."""
        assert whole(server, "anthropic", "a", block)["content"][1] == block
        made: dict[str, Any] = {}
        pieces = ""
        for one in events(server, "anthropic", "a", block, finish_reason="pause"):
            if one.get("index") != 1:
                continue
            made = dict(one.get("content_block", made))
            delta = one.get("delta", {})
            for name in ("text", "thinking", "signature"):
                made[name] = made.get(name, "") + delta[name] if name in delta else made.get(name)
            pieces += delta.get("partial_json", "")
            if "citation" in delta:
                made["citations"].append(delta["citation"])
        made = {name: value for name, value in made.items() if value is not None}
        assert {**made, **({"input": json.loads(pieces)} if pieces else {})} == block

    def test_a_pause(self, server: LLMServer) -> None:
        """The finish reason is the service's own word."""
        for finish in ("pause", "pause_turn"):
            assert whole(server, "anthropic", "a", finish_reason=finish)["stop_reason"] == "pause_turn"

    @pytest.mark.parametrize(
        ("item", "field"),
        [
            ({"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "x"}}, ""),
            ({"type": "image_generation_call", "id": "ig_1", "result": "aGVsbG8="}, ""),
            ({"type": "mcp_approval_request", "id": "mcpr_1", "name": "f", "arguments": "{}", "server_label": "s"}, ""),
            (
                {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "shell", "input": "echo hello"},
                "input",
            ),
            ({"type": "code_interpreter_call", "id": "ci_1", "code": "print(1 + 1)", "outputs": None}, "code"),
            ({"type": "mcp_call", "id": "mcp_1", "name": "f", "arguments": '{"a": 1}', "output": "2"}, "arguments"),
        ],
        ids=lambda value: value["type"] if isinstance(value, dict) else value,
    )
    def test_items_of_responses(self, server: LLMServer, item: dict[str, Any], field: str) -> None:
        """An item is started, filled and finished."""
        assert whole(server, "openai-responses", item)["output"] == [item]
        told = list(events(server, "openai-responses", item))
        kinds = [one["type"] for one in told]
        assert (kinds[2], kinds[-2]) == ("response.output_item.added", "response.output_item.done")
        assert told[-2]["item"] == item
        deltas = "".join(one["delta"] for one in told if one["type"].endswith(".delta"))
        assert deltas == (item[field] if field else "")
        assert told[2]["item"].get(field, "") == ""

    def test_a_message_with_annotations(self, server: LLMServer) -> None:
        """Annotations come one by one after the text."""
        cited = {"type": "url_citation", "url": "https://example.org", "start_index": 0, "end_index": 3}
        text = {"type": "output_text", "text": "Red bridges are red.", "annotations": [cited]}
        item = {"type": "message", "id": "msg_9", "role": "assistant", "content": [text]}
        told = list(events(server, "openai-responses", item))
        assert "".join(one["delta"] for one in told if one["type"] == "response.output_text.delta") == text["text"]
        (added,) = [one for one in told if one["type"] == "response.output_text.annotation.added"]
        assert (added["annotation"], added["item_id"]) == (cited, "msg_9")
        assert told[-1]["response"]["output"] == [item]

    def test_gemini_s_parts_and_fields_beside_them(self, server: LLMServer) -> None:
        """Code, images, and the sources of an answer."""
        parts = [{"executableCode": {"code": "1"}}, {"inline_data": {"mime_type": "image/png", "data": "aGk="}}]
        grounding = {"groundingMetadata": {"webSearchQueries": ["x"]}}
        (candidate,) = whole(server, "gemini", "a", *parts, grounding)["candidates"]
        assert candidate["content"]["parts"] == [{"text": "a"}, *parts]
        assert (candidate["groundingMetadata"], candidate["finishReason"]) == ({"webSearchQueries": ["x"]}, "STOP")
        last = list(events(server, "gemini", "a", *parts, grounding))[-1]["candidates"][0]
        assert last == {**grounding, "finishReason": "STOP", "index": 0}

    def test_calls_and_deltas_of_chat_completions(self, server: LLMServer) -> None:
        """A custom call in pieces, sound with growing data and transcript, images, annotations."""
        custom = {"id": "call_7", "type": "custom", "custom": {"name": "shell", "input": "echo hello"}}
        sound = [{"audio": {"id": "a1", "transcript": "Re"}}, {"audio": {"data": "aGk=", "transcript": "d."}}]
        image = {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]}
        (choice,) = whole(server, "openai", custom, *sound, image, image)["choices"]
        assert choice["message"]["tool_calls"] == [custom]
        assert choice["message"]["audio"] == {"id": "a1", "transcript": "Red.", "data": "aGk="}
        assert choice["message"]["images"] == image["images"] * 2
        assert choice["finish_reason"] == "tool_calls"
        deltas = [one["choices"][0]["delta"] for one in events(server, "openai", custom, *sound, ToolCall("c", "f"))]
        calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
        assert "".join(call["custom"]["input"] for call in calls if "custom" in call) == "echo hello"
        assert {call["index"] for call in calls} == {0, 1}
        assert [delta for delta in deltas if "audio" in delta] == sound

    def test_the_others(self, server: LLMServer) -> None:
        """Chunks of the content, events, fields of a message."""
        chunk = {"type": "reference", "reference_ids": [1]}
        message = whole(server, "mistral", "a", chunk)["choices"][0]["message"]
        assert message["content"] == [{"type": "text", "text": "a"}, chunk]
        assert [chunk] in [one["choices"][0]["delta"]["content"] for one in events(server, "mistral", chunk)]
        citation = {"text": "a", "sources": []}
        event = {"type": "citation-start", "index": 0, "delta": {"message": {"citations": citation}}}
        assert whole(server, "cohere", "a", event)["message"]["citations"] == [citation]
        assert event in list(events(server, "cohere", "a", event))
        assert whole(server, "ollama", "a", {"images": ["aGk="]})["message"]["images"] == ["aGk="]
        assert {"role": "assistant", "content": "", "images": ["aGk="]} in [
            one["message"] for one in events(server, "ollama", {"images": ["aGk="]})
        ]

    def test_the_raw_object_of_an_event_is_sent(self, server: LLMServer) -> None:
        """For an event of any class."""

        @dataclass
        class Seen:
            name: str
            arguments: Mapping[str, Any]
            raw: Mapping[str, Any] | None

        block = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {}}
        assert whole(server, "anthropic", Seen("web_search", {}, block))["content"] == [block]


@pytest.mark.parametrize("dialect", list(PATHS))
def test_an_identity(server: LLMServer, dialect: str) -> None:
    """The id, the model, and other fields at the top of the answer: whole and streamed."""
    reply: dict[str, Any] = {"id": "answer-7", "model": "m-2026", "extra": {"system_fingerprint": "fp_1"}}
    made = whole(server, dialect, "a", **reply)
    told = list(events(server, dialect, "a", **reply))
    first = {"anthropic": lambda one: one["message"], "openai-responses": lambda one: one["response"]}
    for top in (made, first.get(dialect, lambda one: one)(told[0])):
        assert top["system_fingerprint"] == "fp_1"
        if dialect != "ollama":
            assert top.get("id", top.get("responseId")) == "answer-7"
        if dialect != "cohere":
            assert top.get("model", top.get("modelVersion")) == "m-2026"


def test_invalid_parts() -> None:
    """They are refused at once; so are contradictions."""
    for part in (5, None, [5], object()):
        with pytest.raises(TypeError, match="part"):
            Reply(parts=[part])
    with pytest.raises(TypeError, match="parts must be a list"):
        Reply(parts="abc")
    for other in ({"content": "x"}, {"reasoning": "x"}, {"tool_calls": [{"name": "f"}]}):
        with pytest.raises(ValueError, match="parts replace"):
            Reply(parts=["a"], **other)
    with pytest.raises(UnicodeEncodeError):
        Reply(parts=["\ud800"])


def test_a_reply_can_be_copied(server: LLMServer) -> None:
    """It can be sent many times; later changes to its arguments do not matter."""
    block = {"type": "new", "value": [1]}
    reply = Reply(parts=iter([*TURN, block]))
    block["value"] = [2]
    again = dataclasses.replace(reply, finish_reason="stop")
    assert again.turn == reply.turn
    assert reply.turn[-1] == {"type": "new", "value": [1]}
    assert (again.finish, reply.finish) == ("stop", "tool_calls")
