"""P26 to P28: nothing that arrives is lost, nothing is repeated, and a turn goes back as it came."""

from __future__ import annotations

import json
from typing import Any

import pytest
from modes import Mode

from llmbridge import (
    Citation,
    Client,
    Completion,
    Message,
    Other,
    RawEvent,
    Reasoning,
    Retry,
    StreamError,
    Text,
    ToolCall,
    ToolCallDelta,
)
from llmbridge.testing import LLMServer, Reply

KEY = "sk-test-key"


def sse(*events: Any) -> Reply:
    """A stream of these events; OpenAI's end mark as a str."""
    told = (event if isinstance(event, str) else json.dumps(event) for event in events)
    return Reply(body="".join(f"data: {event}\n\n" for event in told).encode())


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of OpenAI's dialect."""
    return {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def summary(**message: Any) -> dict[str, Any]:
    """The answer once more, as some services send it after their chunks."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    return {"id": "c1", "object": "chat.completion", "model": "m-1", "choices": [choice]}


def asking(server: LLMServer, model: str, **options: Any) -> Client:
    """A client of the server, in the model's dialect."""
    provider = model.partition(":")[0]
    base_url = server.base_url("openai" if provider == "openrouter" else provider)
    return Client(model, base_url=base_url, api_key=KEY, proxy=False, **{"retries": 0, **options})


class Paid:
    """A tool that counts how often it runs."""

    def __init__(self) -> None:
        self.times = 0

    def pay(self, euros: int) -> str:
        """Pays."""
        self.times += euros
        return "paid"


# Of each dialect: a turn of two thoughts, two calls and an unknown object; and their form in the next request.
THOUGHT = {"type": "thinking", "thinking": "North.", "signature": "c2lnMQ=="}
AGAIN = {"type": "thinking", "thinking": "South.", "signature": "c2lnMg=="}
SOURCE = {"type": "web_search_result", "url": "https://example.org", "title": "T", "encrypted_content": "RU5D"}
BLOCKS = [
    THOUGHT,
    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "ü", "n": 2.5}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [SOURCE]},
    AGAIN,
    {"type": "text", "text": "And "},
    {"type": "tool_use", "id": "t2", "name": "weather", "input": {"city": "Rome"}},
]
PARTS = [
    {"text": "North.", "thought": True, "thoughtSignature": "c2lnMQ=="},
    {"functionCall": {"id": "t1", "name": "weather", "args": {"city": "Oslo"}}, "thoughtSignature": "c2lnMg=="},
    {"executableCode": {"language": "PYTHON", "code": "print('ü')", "id": "x1"}},
    {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "ü", "id": "x1"}},
    {"text": "South.", "thought": True, "thoughtSignature": "c2lnMw=="},
    {"functionCall": {"id": "t2", "name": "weather", "args": {"city": "Rome"}}},
]
ITEMS = [
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "RU4x"},
    {"type": "function_call", "id": "fc_1", "call_id": "t1", "name": "weather", "arguments": '{"city": "Oslo"}'},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "ü"}},
    {"type": "reasoning", "id": "rs_2", "summary": [], "encrypted_content": "RU4y"},
    {"type": "function_call", "id": "fc_2", "call_id": "t2", "name": "weather", "arguments": '{"city": "Rome"}'},
]


def anthropic() -> Reply:
    """The blocks in events."""
    events: list[Any] = [{"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 1}}}]
    for index, block in enumerate(BLOCKS):
        events.append({"type": "content_block_start", "index": index, "content_block": {**block}})
        events.append({"type": "content_block_stop", "index": index})
    end = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 2}}
    return sse(*events, end, {"type": "message_stop"})


def gemini() -> Reply:
    """The parts in events, one each."""
    candidates = [{"index": 0, "content": {"role": "model", "parts": [part]}} for part in PARTS]
    candidates[-1]["finishReason"] = "STOP"
    return sse(*({"candidates": [candidate]} for candidate in candidates))


def responses() -> Reply:
    """The items, each when it is done."""
    done = [
        {"type": "response.output_item.done", "output_index": place, "item": item} for place, item in enumerate(ITEMS)
    ]
    return sse(*done, {"type": "response.completed", "response": {"id": "r", "status": "completed", "output": ITEMS}})


TURNS: dict[str, tuple[Reply, list[dict[str, Any]]]] = {
    "anthropic:claude-sonnet-4-5": (anthropic(), BLOCKS),
    "gemini:gemini-2.5-flash": (gemini(), PARTS),
    "openai-responses:gpt-5": (responses(), ITEMS),
}


def sent_back(server: LLMServer) -> list[dict[str, Any]]:
    """The parts of the model's turn in the second request."""
    body = server.requests[1].json
    if "contents" in body:
        parts: list[dict[str, Any]] = body["contents"][1]["parts"]
        return parts
    if "input" in body:
        return list(body["input"][1 : 1 + len(ITEMS)])
    blocks: list[dict[str, Any]] = body["messages"][1]["content"]
    return blocks


@pytest.mark.parametrize("model", TURNS)
def test_p28_a_turn_with_tools_goes_back_as_it_came(server: LLMServer, mode: Mode, model: str) -> None:
    """Thoughts between calls, signatures, and unknown objects: everything is in its place, and equal."""

    def weather(city: str) -> str:
        """Of a city."""
        return f"Sun in {city}"

    turn, parts = TURNS[model]
    server.script(turn, Reply("Sun."))
    with asking(server, model) as client:
        answer = mode.complete(client.chat("Weather?", tools=[weather], run_tools=True))
    assert answer.text.endswith("Sun.")
    assert sent_back(server) == parts


@pytest.mark.parametrize("model", TURNS)
def test_p28_two_thoughts_and_two_calls_keep_their_order(server: LLMServer, mode: Mode, model: str) -> None:
    """The loopback server checks the request as the services do."""

    def weather(city: str) -> str:
        """Of a city."""
        return f"Sun in {city}"

    proofs = [f"rs_{n}:c2ln{n}A==" if "responses" in model else f"c2ln{n}A==" for n in (1, 2)]
    turn: list[Any] = []
    for text, proof, city in zip(("North.", "South."), proofs, ("Oslo", "Rome"), strict=True):
        turn += [Reasoning(text, proof), ToolCall(f"t-{city}", "weather", {"city": city})]
    server.script(Reply(parts=turn), Reply("Sun."))
    with asking(server, model) as client:
        assert mode.complete(client.chat("Weather?", tools=[weather], run_tools=True)).text == "Sun."
    sent = json.dumps(server.requests[1].json)
    places = [sent.index(mark) for mark in ("c2ln1A==", "Oslo", "c2ln2A==", "Rome")]
    assert places == sorted(places)


@pytest.mark.parametrize("model", TURNS)
def test_p28_a_turn_that_was_written_down_goes_back_as_it_came(server: LLMServer, model: str) -> None:
    """Saved and loaded as JSON."""
    turn, parts = TURNS[model]
    server.script(turn, Reply("Sun."))
    with asking(server, model) as client:
        answer = client.chat("Weather?").complete()
        saved = Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))
        results = [{"role": "tool", "tool_call_id": call.id, "content": "Sun"} for call in answer.tool_calls]
        client.chat([Message("user", "Weather?"), saved, *results]).complete()
    assert sent_back(server) == parts


def test_p28_thoughts_without_proofs_keep_their_places(server: LLMServer, mode: Mode) -> None:
    """Even if only a call separates them."""
    parts = [{name: value for name, value in part.items() if name != "thoughtSignature"} for part in PARTS]
    server.script(sse({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]}))
    with asking(server, "gemini:gemini-2.5-flash") as client:
        answer = mode.complete(client.chat("Weather?"))
    assert [part["type"] for part in answer.message.parts] == [
        "reasoning", "tool_call", "opaque", "opaque", "reasoning", "tool_call"
    ]  # fmt: skip
    assert [part["text"] for part in answer.message.parts if part["type"] == "reasoning"] == ["North.", "South."]


@pytest.mark.parametrize("model", TURNS)
@pytest.mark.parametrize("other", [*TURNS, "openai:gpt-4o", "ollama:m", "mistral:m", "cohere:m", "vitalentum:m"])
def test_p28_another_service_gets_what_it_takes(server: LLMServer, model: str, other: str) -> None:
    """Signatures and unknown objects of the first service are left out; the calls stay."""
    if other == model:
        pytest.skip("the same service")
    server.script(TURNS[model][0], Reply("Sun."))
    with asking(server, model) as client:
        answer = client.chat("Weather?").complete()
    results = [{"role": "tool", "tool_call_id": c.id, "name": c.name, "content": "Sun"} for c in answer.tool_calls]
    with asking(server, other) as client:
        client.chat([Message("user", "Weather?"), answer, *results]).complete()
    sent = json.dumps(server.requests[1].json)
    for foreign in ("srvtoolu", "executableCode", "ws_1", "c2lnM", "RU4", "RU5", "rs_1", '"by"', '"raw"', "opaque"):
        assert foreign not in sent
    assert other.startswith("vitalentum") or "Oslo" in sent


NOBODY_KNOWS: dict[str, tuple[list[Any], dict[str, Any]]] = {
    "anthropic:claude-sonnet-4-5": (
        [
            {"type": "content_block_start", "index": 0, "content_block": {"type": "unheard_of", "x": [1, "ü"]}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            {"type": "message_stop"},
        ],
        {"type": "unheard_of", "x": [1, "ü"]},
    ),
    "gemini:gemini-2.5-flash": (
        [{"candidates": [{"content": {"parts": [{"unheardOf": {"x": [1, "ü"]}}]}, "finishReason": "STOP"}]}],
        {"unheardOf": {"x": [1, "ü"]}},
    ),
    "openai-responses:gpt-5": (
        [
            {"type": "response.output_item.done", "output_index": 0, "item": {"type": "unheard_of", "x": [1, "ü"]}},
            {"type": "response.completed", "response": {"id": "r", "status": "completed"}},
        ],
        {"type": "unheard_of", "x": [1, "ü"]},
    ),
    "openrouter:m": ([chunk(content=[{"type": "unheard_of", "x": [1, "ü"]}]), chunk("stop"), "[DONE]"],
                     {"type": "unheard_of", "x": [1, "ü"]}),
}  # fmt: skip


@pytest.mark.parametrize("model", NOBODY_KNOWS)
def test_p26_what_nobody_knows_is_an_event(server: LLMServer, mode: Mode, model: str) -> None:
    """With the service's own object, which is a part of the turn."""
    events, raw = NOBODY_KNOWS[model]
    server.script(sse(*events), sse(*events))
    with asking(server, model) as client:
        told = mode.read(client.chat("Weather?").events()).pieces
        answer = mode.complete(client.chat("Weather?"))
    assert [event.raw for event in told if isinstance(event, Other) and event.in_turn] == [raw]
    assert [part["raw"] for part in answer.message.parts if part["type"] == "opaque"] == [raw]


def test_p26_what_came_before_an_error_is_in_its_partial(server: LLMServer, mode: Mode) -> None:
    """Everything, not only the text."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    cited = {"type": "url_citation", "url_citation": {"url": "https://example.org"}}
    server.script(
        sse(
            chunk(reasoning="Hm."), chunk(content="The "), chunk(images=[image]), chunk(annotations=[cited]),
            chunk(content="bridge"), {"error": {"message": "no more", "code": "x"}},
        )
    )  # fmt: skip
    with asking(server, "openrouter:m") as client:
        outcome = mode.read(client.chat("Weather?"))
    assert outcome.pieces == ["The ", "bridge"]
    assert outcome.error is not None
    partial = outcome.error.partial
    assert (partial, partial.reasoning, [c.url for c in partial.citations]) == (
        "The bridge",
        "Hm.",
        ["https://example.org"],
    )
    assert [medium.mime for medium in partial.media] == ["image/png"]
    assert partial.message is not None
    assert [part["type"] for part in partial.message.parts] == ["reasoning", "text", "image_url", "text"]


def test_p26_who_answered_is_known(server: LLMServer, mode: Mode) -> None:
    """From the first and the last event."""
    last = {**chunk("stop"), "system_fingerprint": "fp"}
    server.script(sse(chunk(content="Hi"), last))
    with asking(server, "openrouter:alias") as client:
        answer = mode.complete(client.chat("x"))
    assert (answer.response_id, answer.served_model, answer.model) == ("c1", "m-1", "alias")
    assert answer.extra == {"system_fingerprint": "fp"}


def test_p26_the_services_own_events_can_be_had(server: LLMServer, mode: Mode) -> None:
    """Each raw event comes before its own items."""
    events = [chunk(content="Hi"), chunk("stop", unheard_of=1)]
    server.script(sse(*events, "[DONE]"))
    with asking(server, "openrouter:m") as client:
        told = mode.read(client.chat("x").raw_events()).pieces
    assert [event.json for event in told if isinstance(event, RawEvent)] == [*events, None]
    assert told[1] == Text("Hi")


@pytest.mark.parametrize("word", ["error", "abort", "Cancelled"])
def test_p26_an_end_that_is_an_error_is_raised(server: LLMServer, mode: Mode, word: str) -> None:
    """With the text before it; without any, it is a failed attempt."""
    server.script(sse(chunk(content="The "), chunk(word)))
    with asking(server, "openrouter:m") as client:
        outcome = mode.read(client.chat("x"))
        assert isinstance(outcome.error, StreamError)
        assert (outcome.pieces, outcome.error.partial) == (["The "], "The ")
        server.script(sse(chunk(role="assistant"), chunk(word)), Reply("Now."))
        assert mode.complete(client.chat("x", retries=Retry(1, backoff=0.01))).text == "Now."


@pytest.mark.parametrize("word", ["null", "None", ""])
def test_p26_a_word_for_nothing_is_no_end(server: LLMServer, mode: Mode, word: str) -> None:
    """An answer that breaks off after it is truncated."""
    server.script(sse(chunk(word, content="The "), chunk(word, content="bridge")))
    with asking(server, "openrouter:m") as client:
        outcome = mode.read(client.chat("x"))
    assert type(outcome.error).__name__ == "StreamTruncated"
    assert outcome.pieces == ["The ", "bridge"]


def test_p27_a_tool_runs_once(server: LLMServer, mode: Mode) -> None:
    """However often the service repeats its call."""
    pay = {"name": "pay", "arguments": '{"euros": 5}'}
    call = {"index": 0, "id": "c1", "type": "function", "function": pay}
    server.script(
        sse(
            chunk(tool_calls=[call]),
            chunk(tool_calls=[call]),
            chunk("tool_calls"),
            summary(tool_calls=[call]),
            "[DONE]",
        ),
        Reply("Done."),
    )
    paid = Paid()
    with asking(server, "openrouter:m") as client:
        assert mode.complete(client.chat("Pay", tools=[paid.pay], run_tools=True)).text == "Done."
    assert paid.times == 5


@pytest.mark.parametrize(
    ("ids", "again", "times"),
    [(["c1"], ["other"], 1), (["c1", "c2"], ["c1", "c2"], 2), (["c1", "c2"], ["x", "y"], 2), (["c1"], ["c1", "c2"], 2)],
    ids=["renamed", "two equal calls", "two equal calls renamed", "one of two"],
)
def test_p27_a_summary_tells_the_calls_that_nobody_has_told(
    server: LLMServer, mode: Mode, ids: list[str], again: list[str], times: int
) -> None:
    """Compared by id, or by arguments; two equal calls are two."""

    def called(names: list[str]) -> list[Any]:
        pay = {"name": "pay", "arguments": '{"euros": 1}'}
        return [{"index": i, "id": id, "type": "function", "function": pay} for i, id in enumerate(names)]

    chunks = chunk(tool_calls=called(ids)), chunk("tool_calls")
    server.script(sse(*chunks, summary(tool_calls=called(again)), "[DONE]"), Reply("Done."))
    paid = Paid()
    with asking(server, "openrouter:m") as client:
        mode.complete(client.chat("Pay", tools=[paid.pay], run_tools=True))
    assert paid.times == times


def test_p27_a_whole_call_that_comes_again_runs_once(server: LLMServer, mode: Mode) -> None:
    """By the same id, from a service whose calls come whole."""
    call = {"functionCall": {"id": "c1", "name": "pay", "args": {"euros": 1}}}
    candidates = [{"index": 0, "content": {"parts": [call]}}] * 2
    told = sse(*({"candidates": [each]} for each in [*candidates, {"finishReason": "STOP"}]))
    server.script(told, Reply("Done."), told)
    paid = Paid()
    with asking(server, "gemini:gemini-2.5-flash") as client:
        mode.complete(client.chat("Pay", tools=[paid.pay], run_tools=True))
        events = mode.read(client.chat("Pay").events()).pieces
    assert paid.times == 1
    assert [type(event) for event in events if isinstance(event, (ToolCallDelta, ToolCall))] == [
        ToolCallDelta,
        ToolCall,
    ]


def test_p27_a_source_is_told_once(server: LLMServer, mode: Mode) -> None:
    """Some services send all of them with every piece."""
    top = {"citations": ["https://example.org/a", "https://example.org/b"]}
    server.script(sse(*({**chunk(content=text), **top} for text in "abc"), {**chunk("stop"), **top}, "[DONE]"))
    with asking(server, "openrouter:m") as client:
        events = mode.read(client.chat("x").events()).pieces
    assert [event.url for event in events if isinstance(event, Citation)] == top["citations"]


def test_p27_a_text_is_told_once(server: LLMServer, mode: Mode) -> None:
    """A summary adds only what the pieces lack."""
    chunks = chunk(content="1"), chunk(content="1"), chunk("stop")
    server.script(sse(*chunks, summary(content="11"), "[DONE]"), sse(*chunks, summary(content="112"), "[DONE]"))
    with asking(server, "openrouter:m") as client:
        assert mode.read(client.chat("x")).pieces == ["1", "1"]
        assert mode.read(client.chat("x")).pieces == ["1", "1", "2"]


def test_p27_reasoning_is_told_once(server: LLMServer, mode: Mode) -> None:
    """In a field and between tags."""
    server.script(
        sse(chunk(reasoning="Hm.", content="<think>Hm."), chunk(content="</think>Red."), chunk("stop"), "[DONE]")
    )
    with asking(server, "openrouter:m") as client:
        answer = mode.complete(client.chat("x"))
    assert (answer.reasoning, answer.text) == ("Hm.", "Red.")


def test_p28_a_paused_turn_goes_on(server: LLMServer, mode: Mode) -> None:
    """By itself with `run_tools`, otherwise with another call; it is one turn, with the tokens of both."""

    def told(text: str, stop: str) -> Reply:
        return sse(
            {"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 10, "output_tokens": 1}}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": {"stop_reason": stop}, "usage": {"output_tokens": 5}},
            {"type": "message_stop"},
        )

    server.script(*[told("Let me look. ", "pause_turn"), told("There are many.", "end_turn")] * 2)
    search = [{"type": "web_search_20250305", "name": "web_search"}]
    with asking(server, "anthropic:claude-sonnet-4-5") as client:
        whole = mode.complete(client.chat("Bridges?", tools=search, run_tools=True))
        first = mode.complete(client.chat("Bridges?", tools=search))
        second = mode.complete(client.chat([Message("user", "Bridges?"), first], tools=search))
    assert (whole.text, whole.finish_reason) == ("Let me look. There are many.", "stop")
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (20, 10)
    assert (first.finish_reason, second.text) == ("pause", "There are many.")
    assert server.requests[1].json["messages"] == server.requests[3].json["messages"]


def test_p28_a_completion_is_its_message(server: LLMServer) -> None:
    """Messages written by hand keep their order as well."""
    server.script(Reply("Ok."))
    turn = Message("assistant", [Reasoning("Hm.", "c2ln"), ToolCall("t1", "f", {}), "And", ToolCall("t2", "f", {})])
    with asking(server, "anthropic:claude-sonnet-4-5") as client:
        answer: Completion = client.chat(
            [
                Message("user", "x"),
                turn,
                *({"role": "tool", "tool_call_id": call.id, "content": "1"} for call in turn.tool_calls),
            ]
        ).complete()
    assert answer.text == "Ok."
    blocks = server.requests[0].json["messages"][1]["content"]
    assert [block["type"] for block in blocks] == ["thinking", "tool_use", "text", "tool_use"]
