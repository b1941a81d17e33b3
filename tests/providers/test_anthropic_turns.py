"""A turn in Anthropic's dialect: its events, and sending it back unchanged."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from modes import Mode

from llmbridge import (
    Client,
    Completion,
    Finish,
    LLMBridgeError,
    Message,
    ProtocolError,
    Reasoning,
    StreamTruncated,
    TurnsExceeded,
)
from llmbridge.events import Citation, Media, NextCall, Other, ServerTool, Text, ToolCall
from llmbridge.messages import ChatRequest, Opaque, with_own_proofs
from llmbridge.providers.anthropic import Anthropic
from llmbridge.testing import LLMServer, Reply

Block = dict[str, Any]
ASKED: dict[str, Any] = {"role": "user", "content": "Bridges of Oslo?"}
EVERY_MODE = pytest.mark.parametrize("mode", ["sync", "asyncio", "trio"], indirect=True)


def thinking(text: str, proof: str, **more: Any) -> Block:
    """A thought."""
    return {"type": "thinking", "thinking": text, "signature": proof, **more}


def said(text: str, **more: Any) -> Block:
    """A text."""
    return {"type": "text", "text": text, **more}


def called(id: str, city: str, **more: Any) -> Block:
    """A call of a caller's tool."""
    return {"type": "tool_use", "id": id, "name": "weather", "input": {"city": city}, **more}


SEARCH: Block = {"type": "server_tool_use", "id": "srv_1", "name": "web_search", "input": {"query": "bridges, Grüße"}}
FOUND: Block = {
    "type": "web_search_tool_result",
    "tool_use_id": "srv_1",
    "content": [{"type": "web_search_result", "url": "https://example.org/1", "encrypted_content": "RU5D"}],
}
PAGE: Block = {
    "type": "web_search_result_location",
    "url": "https://example.org/1",
    "title": "Bridges",
    "encrypted_index": "SU5E",
    "cited_text": "There are many.",
}
PLACES: dict[str, tuple[Block, Citation]] = {
    "characters": (
        {
            "type": "char_location",
            "cited_text": "It is red.",
            "document_index": 0,
            "document_title": "The Gate",
            "start_char_index": 0,
            "end_char_index": 10,
        },
        Citation(document="0", title="The Gate", quote="It is red."),
    ),
    "pages": (
        {
            "type": "page_location",
            "cited_text": "It is red.",
            "document_index": 1,
            "document_title": None,
            "start_page_number": 5,
            "end_page_number": 6,
        },
        Citation(document="1", quote="It is red."),
    ),
    "blocks": (
        {
            "type": "content_block_location",
            "cited_text": "Red",
            "document_index": 2,
            "file_id": "file_1",
            "start_block_index": 0,
            "end_block_index": 1,
        },
        Citation(document="file_1", quote="Red"),
    ),
    "a page of the web": (PAGE, Citation("https://example.org/1", title="Bridges", quote="There are many.")),
    "a result of the caller's own search": (
        {
            "type": "search_result_location",
            "source": "https://example.org/2",
            "title": "Docs",
            "cited_text": "Press it.",
            "search_result_index": 0,
            "start_block_index": 0,
            "end_block_index": 0,
        },
        Citation("https://example.org/2", title="Docs", quote="Press it."),
    ),
    "a result of no address": (
        {"type": "search_result_location", "source": "manual-7", "title": None, "cited_text": "Press it."},
        Citation(document="manual-7", quote="Press it."),
    ),
    "a new kind": ({"type": "dream_location", "cited_text": "Hm", "depth": 3}, Citation(quote="Hm")),
}


def block_events(block: Block, index: int) -> list[Block]:
    """The events for a block, each text in two pieces."""
    begun, pieces = copy.deepcopy(block), []
    if block["type"] == "text":
        begun["text"] = ""
        if "citations" in block:
            begun["citations"] = []
            pieces += [{"type": "citations_delta", "citation": citation} for citation in block["citations"]]
        pieces += [{"type": "text_delta", "text": text} for text in halves(block["text"])]
    elif block["type"] == "thinking":
        begun["thinking"] = begun["signature"] = ""
        pieces += [{"type": "thinking_delta", "thinking": text} for text in halves(block["thinking"])]
        pieces.append({"type": "signature_delta", "signature": block["signature"]})
    elif "input" in block:
        begun["input"] = {}
        written = json.dumps(block["input"])
        pieces += [{"type": "input_json_delta", "partial_json": text} for text in ("", *halves(written))]
    return [
        {"type": "content_block_start", "index": index, "content_block": begun},
        *({"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces),
        {"type": "content_block_stop", "index": index},
    ]


def halves(text: str) -> Iterator[str]:
    """The text in two pieces, unless it is empty."""
    middle = len(text) // 2
    yield from filter(None, (text[:middle], text[middle:]))


def turn_events(*blocks: Block, reason: str | None = "end_turn") -> list[Block]:
    """The events of a turn; without a reason it is cut off."""
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude-x-1"}
    events: list[Block] = [
        {"type": "message_start", "message": {**message, "usage": {"input_tokens": 10, "output_tokens": 1}}},
        {"type": "ping"},
    ]
    for index, block in enumerate(blocks):
        events += block_events(block, index)
    if reason is None:
        return events
    delta = {"stop_reason": reason, "stop_sequence": None}
    return [
        *events,
        {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 5}},
        {"type": "message_stop"},
    ]


def reply(events: list[Block]) -> Reply:
    """The events as the body of an answer."""
    return Reply(body="".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events))


def turn(*blocks: Block, reason: str | None = "end_turn") -> Reply:
    """A whole turn."""
    return reply(turn_events(*blocks, reason=reason))


def document(*blocks: Block, reason: str = "end_turn") -> Reply:
    """The turn as one document."""
    usage = {"input_tokens": 10, "output_tokens": 5}
    fields = {"id": "msg_1", "type": "message", "model": "claude-x-1", "content": list(blocks), "stop_reason": reason}
    return Reply(body=json.dumps({**fields, "usage": usage}), content_type="application/json")


@pytest.fixture
def client(server: LLMServer) -> Iterator[Client]:
    """A client for the dialect."""
    base_url = server.base_url("anthropic")
    with Client("anthropic:claude-opus-4-6", base_url=base_url, api_key="sk-ant-1", retries=0, timeout=20) as made:
        yield made


def sent_back(client: Client, server: LLMServer, answer: Completion) -> Any:
    """The turn in the next request."""
    server.script(turn(said("ok")))
    client.chat([ASKED, answer, {"role": "user", "content": "And?"}]).complete()
    return server.requests[-1].json["messages"][1]["content"]


def weather(city: str) -> str:
    """The weather in a city."""
    return f"Sun in {city}"


# Name: the blocks of a turn.
TURNS: dict[str, list[Block]] = {
    "two thoughts and two calls": [
        thinking("North.", "c2ln1"), called("t1", "Oslo"), thinking("South.", "c2ln2"), called("t2", "Rome")
    ],
    "a text between two calls": [called("t1", "Oslo"), said("And"), called("t2", "Rome")],
    "two texts": [said("One. "), said("Two.")],
    "a thought between two texts": [said("One. "), thinking("Hm", "s"), said("Two.")],
    "thoughts that are not shown": [
        thinking("", "s1"), {"type": "redacted_thinking", "data": "eHl6"}, thinking("", "s2"), called("t1", "Oslo")
    ],
    "a search": [said("Let me look. "), SEARCH, FOUND, said("There are many.", citations=[PAGE]), said(" Really.")],
    "a search, a thought, and a call": [thinking("Hm", "s"), SEARCH, FOUND, thinking("So", "s2"), called("t1", "Oslo")],
    "a failed search": [
        SEARCH,
        {**FOUND, "content": {"type": "web_search_tool_result_error", "error_code": "max_uses_exceeded"}},
        said("No luck."),
    ],
    "code": [
        {"type": "server_tool_use", "id": "srv_2", "name": "bash_code_execution", "input": {"command": "ls"}},
        {
            "type": "bash_code_execution_tool_result",
            "tool_use_id": "srv_2",
            "content": {"type": "bash_code_execution_result", "stdout": "a\n", "return_code": 0, "content": []},
        },
        {"type": "container_upload", "file_id": "file_1"},
    ],
    "a server's tool": [
        {"type": "mcp_tool_use", "id": "mcp_1", "name": "echo", "server_name": "mine", "input": {"x": [1, 2.5, None]}},
        {"type": "mcp_tool_result", "tool_use_id": "mcp_1", "is_error": False, "content": [said("hi")]},
    ],
    "a tool without input": [{"type": "server_tool_use", "id": "srv_3", "name": "now", "input": {}}],
    "a call that says who calls": [
        called("t1", "Oslo", caller={"type": "code_execution_20250825", "tool_id": "srv_1"}), called("t2", "Rome")
    ],
    "keys of known blocks": [
        thinking("Hm", "s", depth=3),
        {"type": "redacted_thinking", "data": "eHl6", "depth": 4},
        said("Hi", smell="rose"),
        called("t1", "Oslo", cache={"type": "x"}),
    ],
    "blocks of unknown kinds": [
        {"type": "hologram", "text": "not an answer", "depth": [3, {"a": None}]},
        said("Hi"),
        {"type": "compaction", "content": "So far ..."},
    ],
    "citations of every kind": [said("Red.", citations=[place for place, _ in PLACES.values()]), said("Yes.")],
    "a citation without a text": [said("One."), said("", citations=[PAGE]), said("Two.")],
}  # fmt: skip


class TestAsItCame:
    """A turn is sent back unchanged."""

    @EVERY_MODE
    @pytest.mark.parametrize("name", TURNS)
    def test_a_turn_goes_back_equal(self, server: LLMServer, client: Client, mode: Mode, name: str) -> None:
        """Every block is in its place, with its signature and all its keys, streamed or not."""
        blocks = TURNS[name]
        for given in (turn(*blocks), document(*blocks)):
            server.script(given)
            answer = mode.complete(client.chat([ASKED]))
            assert sent_back(client, server, answer) == blocks
            assert answer.text == "".join(block["text"] for block in blocks if block["type"] == "text")

    @pytest.mark.parametrize("name", TURNS)
    def test_a_turn_survives_json(self, server: LLMServer, client: Client, name: str) -> None:
        """Saved as a mapping in a file."""
        server.script(turn(*TURNS[name]))
        kept = json.loads(json.dumps(client.chat([ASKED]).complete().message.to_dict()))
        encoded = Anthropic.encode(
            ChatRequest("m", with_own_proofs([Message("user", "x"), Message.from_dict(kept)], "anthropic"))
        )
        assert encoded.body["messages"][1]["content"] == TURNS[name]

    @pytest.mark.parametrize("at", range(7))
    def test_what_no_message_could_hold_is_made_such(self, server: LLMServer, client: Client, at: int) -> None:
        """Lone surrogates and NaN in a block are replaced; deep nesting is an error."""

        def block(value: Any) -> Block:
            return [
                thinking("Hm", "s", own=value), said("Hi", own=value), said("Hi", citations=[{**PAGE, "own": value}]),
                called("t1", "Oslo", own=value), {**SEARCH, "input": {"own": value}}, {**FOUND, "content": value},
                {"type": "hologram", "own": value},
            ][at]  # fmt: skip

        for made in (turn, document):
            server.script(made(block(["\ud83d", float("nan"), 1])))
            assert sent_back(client, server, client.chat([ASKED]).complete()) == [
                block(["\N{REPLACEMENT CHARACTER}", None, 1])
            ]
            nest: Any = []
            for _ in range(180):
                nest = [nest]
            server.script(made(block(nest)))
            with pytest.raises(ProtocolError, match="too deeply"):
                client.chat([ASKED]).complete()

    def test_a_plain_answer_is_a_plain_message(self, server: LLMServer, client: Client) -> None:
        """It has only its text, even if the service sends empty citations."""
        for block in (said("Hi"), said("Hi", citations=None), said("Hi", citations=[])):
            first, *more = turn_events(said("Hi"))
            begins = {"type": "content_block_start", "index": 0, "content_block": {**block, "text": ""}}
            for sent in (document(block), reply([first, begins, *more[2:]])):
                server.script(sent)
                assert client.chat([ASKED]).complete().message == Message("assistant", "Hi")

    def test_what_only_the_service_understands_goes_to_no_other(self) -> None:
        """Another service gets the text and the calls."""
        parts: list[Any] = [
            {
                "type": "reasoning",
                "text": "Hm",
                "signature": "s",
                "raw": {"type": "thinking", "depth": 3},
                "by": "gemini",
            },
            {"type": "opaque", "raw": SEARCH, "by": "gemini"},
            {"type": "text", "text": "Hi", "raw": said("", citations=[PAGE]), "by": "gemini"},
        ]
        turns = with_own_proofs([Message("user", "x"), Message("assistant", parts)], "anthropic")
        assert Anthropic.encode(ChatRequest("m", turns)).body["messages"][1]["content"] == "Hi"

    def test_a_caller_may_write_a_turn(self) -> None:
        """From events, from the service's objects, and from its blocks."""
        parts = [
            Reasoning("Hm", "s"),
            ToolCall("t1", "weather", {"city": "Oslo"}),
            "and",
            Opaque(SEARCH, "anthropic"),
            FOUND,
            called("t2", "Rome"),
        ]
        turns = with_own_proofs([Message("user", "x"), Message("assistant", parts)], "anthropic")
        assert Anthropic.encode(ChatRequest("m", turns)).body["messages"][1]["content"] == [
            thinking("Hm", "s"), called("t1", "Oslo"), said("and"), SEARCH, FOUND, called("t2", "Rome"),
        ]  # fmt: skip

    def test_an_object_of_another_service_is_not_taken_for_a_block(self) -> None:
        """Events do not name their service: a caller may put one of OpenAI's into a message."""
        parts = [
            Reasoning("Hm", "s", None, {"type": "reasoning", "id": "rs_1"}),
            ToolCall("t1", "weather", {"city": "Oslo"}, raw={"type": "function_call", "status": "completed"}),
        ]
        turns = [Message("user", "x"), Message("assistant", parts)]
        content = Anthropic.encode(ChatRequest("m", tuple(turns))).body["messages"][1]["content"]
        assert content == [thinking("Hm", "s"), called("t1", "Oslo")]

    def test_media_of_an_answer_go_as_their_words(self) -> None:
        """The service accepts none in the model's turn: speech is sent as text, images are left out."""
        parts = [
            "See:",
            Media("image", "image/png", b"\x89PNG"),
            Media("audio", "audio/wav", b"RIFF", transcript="Hello."),
            Media("document", "application/zip", b"PK"),
            Media("video", "video/mp4", url="https://example.org/a.mp4"),
        ]
        turns = (Message("user", "x"), Message("assistant", parts))
        content = Anthropic.encode(ChatRequest("m", turns)).body["messages"][1]["content"]
        assert content == [said("See:"), said("Hello.")]

    def test_an_object_without_a_type_is_sent_as_given(self) -> None:
        """The caller is responsible for it."""
        turns = with_own_proofs(
            [Message("user", "x"), Message("assistant", [Opaque({"a": 1}, "anthropic")])], "anthropic"
        )
        assert Anthropic.encode(ChatRequest("m", turns)).body["messages"][1]["content"] == [{"a": 1}]


class TestEvents:
    """The events of a turn."""

    @pytest.mark.parametrize("place", PLACES)
    def test_a_citation_is_an_event_when_it_comes(self, server: LLMServer, client: Client, place: str) -> None:
        """With the service's own object; repeated ones are yielded once."""
        raw, citation = PLACES[place]
        server.script(turn(said("It is.", citations=[raw, raw])), document(said("It is.", citations=[raw])))
        for _ in range(2):
            events = list(client.chat([ASKED]).events())
            (found,) = [event for event in events if isinstance(event, Citation)]
            assert (found, found.raw) == (citation, raw)

    def test_a_citation_comes_with_its_text(self, server: LLMServer, client: Client) -> None:
        """Not at the end of the block; it is in the completion as well."""
        server.script(turn(said("Red.", citations=[PAGE])))
        stream = client.chat([ASKED])
        kinds = [type(event) for event in stream.events()]
        assert kinds.index(Citation) < kinds.index(Text)
        assert [citation.url for citation in stream.complete().citations] == ["https://example.org/1"]

    def test_a_tool_of_the_service_is_shown_twice(self, server: LLMServer, client: Client) -> None:
        """With its whole input when called, and with its result."""
        server.script(turn(SEARCH, FOUND, said("Many.")))
        stream = client.chat([ASKED])
        call, result = [event for event in stream.events() if isinstance(event, ServerTool)]
        assert call == ServerTool("srv_1", "web_search", {"query": "bridges, Grüße"}, raw=SEARCH)
        assert result == ServerTool("srv_1", "web_search", result=FOUND["content"], raw=FOUND)
        (tool,) = stream.complete().server_tools
        assert (tool.name, tool.arguments, tool.result) == ("web_search", SEARCH["input"], FOUND["content"])

    def test_a_result_has_the_name_of_its_call(self, server: LLMServer, client: Client) -> None:
        """Its block may not say it; without the call the type is used."""
        call, result = TURNS["a server's tool"]
        server.script(turn(call, result), turn(FOUND))
        names = [event.name for event in client.chat([ASKED]).events() if isinstance(event, ServerTool)]
        assert names == ["echo", "echo"]
        assert [event.name for event in client.chat([ASKED]).events() if isinstance(event, ServerTool)] == [
            "web_search"
        ]

    def test_an_input_that_broke_off_is_shown_and_not_sent(self, server: LLMServer, client: Client) -> None:
        """The service would reject half an input."""
        events = turn_events(said("Hm."), reason="max_tokens")
        cut = block_events(SEARCH, 1)[:3]
        server.script(reply([*events[:-2], *cut, *events[-2:]]))
        stream = client.chat([ASKED])
        (other,) = [event for event in stream.events() if isinstance(event, Other)]
        assert (other.kind, other.in_turn) == ("server_tool_use", False)
        assert other.raw["input"] == next(halves(json.dumps(SEARCH["input"])))
        assert sent_back(client, server, stream.complete()) == "Hm."

    def test_a_call_is_handed_out_at_its_end(self, server: LLMServer, client: Client) -> None:
        """Not only at the end of the answer."""
        server.script(turn(called("t1", "Oslo"), thinking("Hm", "s"), called("t2", "Rome"), reason="tool_use"))
        kinds = [type(event) for event in client.chat([ASKED]).events()]
        assert kinds.index(ToolCall) < kinds.index(Reasoning)

    def test_the_service_says_why_it_refuses(self, server: LLMServer, client: Client) -> None:
        """Beside its reason."""
        details = {"type": "refusal", "category": "bio", "explanation": "Not that."}
        events = turn_events(said("I"))
        events[-2]["delta"] = {"stop_reason": "refusal", "stop_details": details}
        server.script(reply(events))
        seen = list(client.chat([ASKED]).events())
        assert [event.message for event in seen if isinstance(event, Finish)] == ["Not that."]
        assert [event.raw["delta"]["stop_details"] for event in seen if isinstance(event, Other)] == [details]

    def test_who_answered(self, server: LLMServer, client: Client) -> None:
        """The id, the model and other fields of the first event, and of the last but one."""
        events = turn_events(said("Hi"))
        events[0]["message"]["service"] = "east"
        events[-2]["delta"]["container"] = {"id": "cntr_1"}
        events[-2]["context_management"] = {"applied_edits": [1]}
        server.script(reply(events), document(said("Hi")))
        answer = client.chat([ASKED]).complete()
        assert (answer.response_id, answer.served_model) == ("msg_1", "claude-x-1")
        assert answer.extra == {
            "service": "east",
            "container": {"id": "cntr_1"},
            "context_management": {"applied_edits": [1]},
        }
        answer = client.chat([ASKED]).complete()
        assert (answer.response_id, answer.served_model, answer.extra) == ("msg_1", "claude-x-1", {})

    def test_raw_events_are_all_events(self, server: LLMServer, client: Client) -> None:
        """Nothing is left out or changed."""
        events = turn_events(SEARCH, FOUND, said("Many.", citations=[PAGE]))
        server.script(reply(events))
        seen = [event.json for event in client.chat([ASKED]).raw_events() if hasattr(event, "json")]
        assert seen == events


def begun(block: Block, *pieces: Block, index: int = 0) -> list[Block]:
    """The events of a block with this start and these pieces."""
    return [
        {"type": "content_block_start", "index": index, "content_block": block},
        *({"type": "content_block_delta", "index": index, "delta": piece} for piece in pieces),
        {"type": "content_block_stop", "index": index},
    ]


def texts(*pieces: str) -> list[Block]:
    """Pieces of text."""
    return [{"type": "text_delta", "text": piece} for piece in pieces]


# Name: the start of a block, its pieces, and its text.
BEGUN: dict[str, tuple[str, list[str], str]] = {
    "said again": ("Hello, you", ["Hello, you"], "Hello, you"),
    "said again in pieces": ("Hello, you", ["Hel", "lo, ", "you"], "Hello, you"),
    "said again, and gone on with": ("Hello", ["Hel", "lo, ", "you"], "Hello, you"),
    "said again, and gone on with after that": ("Hello", ["Hello", " Hello"], "Hello Hello"),
    "gone on with": ("Hello", [", you"], "Hello, you"),
    "gone on with by what begins alike": ("Hello", ["He", "brew"], "HelloHebrew"),
    "ended inside": ("Hello", ["He"], "HelloHe"),
    "a digit twice": ("1", ["1"], "11"),
    "a word twice": ("ha", ["ha", "ha"], "hahaha"),
    "two equal pieces": ("", ["1", "1"], "11"),
    "two equal long pieces": ("", ["Hello ", "Hello "], "Hello Hello "),
    "alone": ("Hello, you", [], "Hello, you"),
}


class TestOnce:
    """The start of a block is not repeated."""

    @pytest.mark.parametrize("name", BEGUN)
    def test_a_text_that_begins_is_said_once(self, server: LLMServer, client: Client, name: str) -> None:
        """If its pieces repeat it, continue it, or both; a short piece is never a repetition."""
        first, pieces, text = BEGUN[name]
        events = turn_events()
        server.script(reply([*events[:2], *begun(said(first), *texts(*pieces)), *events[2:]]))
        answer = client.chat([ASKED]).complete()
        assert (answer.text, answer.message.content) == (text, text)

    @pytest.mark.parametrize("name", BEGUN)
    def test_a_thought_that_begins_is_said_once(self, server: LLMServer, client: Client, name: str) -> None:
        """The same holds for its signature."""
        first, pieces, text = BEGUN[name]
        more = [{"type": "thinking_delta", "thinking": piece} for piece in pieces]
        events = turn_events()
        for given, later in (("s", "s"), ("s", ""), ("", "s")):
            proof = [{"type": "signature_delta", "signature": later}]
            server.script(reply([*events[:2], *begun(thinking(first, given), *more, *proof), *events[2:]]))
            assert sent_back(client, server, client.chat([ASKED]).complete()) == [thinking(text, "s")]

    @pytest.mark.parametrize(
        "pieces",
        [[], [""], ["{}"], ['{"city": "Oslo"}'], ['{"city"', ': "Oslo"}'], ['{"city":"Oslo"}']],
        ids=repr,
    )
    def test_an_input_that_begins_is_said_once(self, server: LLMServer, client: Client, pieces: list[str]) -> None:
        """In a tool call, a server tool's call, and a call that is the answer."""
        more = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        events = turn_events(reason="tool_use")
        server.script(reply([*events[:2], *begun(called("t1", "Oslo"), *more), *events[2:]]))
        (call,) = client.chat([ASKED]).complete().tool_calls
        assert (call.arguments, call.problem) == ({"city": "Oslo"}, None)
        own = {**SEARCH, "input": {"city": "Oslo"}}
        server.script(reply([*events[:2], *begun(own, *more), *events[2:]]))
        assert sent_back(client, server, client.chat([ASKED]).complete()) == [own]
        schema = {"title": "weather", "type": "object", "properties": {"city": {"type": "string"}}}
        server.script(reply([*events[:2], *begun(called("t1", "Oslo"), *more), *events[2:]]))
        answer = client.chat([ASKED], schema=schema, schema_mode="tool").complete()
        assert answer.parsed == {"city": "Oslo"}

    def test_two_equal_calls_are_two(self, server: LLMServer, client: Client) -> None:
        """They have different ids."""
        server.script(turn(called("t1", "Oslo"), called("t2", "Oslo"), reason="tool_use"))
        assert [call.id for call in client.chat([ASKED]).complete().tool_calls] == ["t1", "t2"]

    @pytest.mark.parametrize("name", TURNS)
    def test_a_whole_message_behind_its_pieces_says_nothing_new(
        self, server: LLMServer, client: Client, name: str
    ) -> None:
        """Gateways send it as the last event, or with the first one."""
        blocks = TURNS[name]
        events = turn_events(*blocks)
        whole = {**events[0]["message"], "content": blocks, "stop_reason": "end_turn"}
        for told in (
            [*events[:-1], whole, events[-1]],
            [{"type": "message_start", "message": whole}, *events[1:]],
            [whole],
            [{"type": "message_start", "message": whole}, *turn_events()[-2:]],
        ):
            server.script(reply(told))
            answer = client.chat([ASKED]).complete()
            assert answer.text == "".join(block["text"] for block in blocks if block["type"] == "text")
            assert sent_back(client, server, answer) == blocks


UNKNOWN: Block = {"type": "hologram", "depth": [3, {"a": "ü"}], "text": "not an answer"}
RECORDED = [
    thinking("North.", "c2ln1"),
    said("Let me look. "),
    SEARCH,
    FOUND,
    said("There are many.", citations=[PAGE]),
    called("t1", "Oslo"),
    called("t2", "Rome"),
]


class TestUnknown:
    """Anything unknown is an event, and is sent back if it belongs to the turn."""

    def both(self, client: Client, server: LLMServer, events: list[Block]) -> tuple[list[Any], Any]:
        """The events, and the turn that is sent back."""
        server.script(reply(events))
        stream = client.chat([ASKED])
        return list(stream.events()), sent_back(client, server, stream.complete())

    def test_an_event(self, server: LLMServer, client: Client) -> None:
        """At every position."""
        events = turn_events(*RECORDED, reason="tool_use")
        for at in range(len(events)):
            seen, back = self.both(client, server, [*events[:at], UNKNOWN, *events[at:]])
            assert [event for event in seen if isinstance(event, Other)] == [Other("hologram", UNKNOWN)], at
            assert back == RECORDED

    def test_a_block(self, server: LLMServer, client: Client) -> None:
        """Pieces of known and unknown kinds are joined by their names."""
        pieces = [
            {"type": "smell_delta", "smell": "ro"},
            {"type": "smell_delta", "smell": "se", "strength": 3},
            {"type": "text_delta", "text": "!"},
            {"type": "input_json_delta", "partial_json": '{"a": '},
            {"type": "input_json_delta", "partial_json": "1}"},
            {"type": "citations_delta", "citation": PAGE},
            {"type": "list_delta", "depth": [4]},
        ]
        whole = {
            **UNKNOWN, "text": "not an answer!", "smell": "rose", "strength": 3, "input": {"a": 1},
            "citations": [PAGE], "depth": [3, {"a": "ü"}, 4],
        }  # fmt: skip
        for at in range(len(RECORDED) + 1):
            events = turn_events(*RECORDED[:at], reason=None)
            events += begun(UNKNOWN, *pieces, index=at)
            for index, block in enumerate(RECORDED[at:], at + 1):
                events += block_events(block, index)
            seen, back = self.both(client, server, [*events, *turn_events(reason="tool_use")[-2:]])
            assert back == [*RECORDED[:at], whole, *RECORDED[at:]], at
            others = [event for event in seen if isinstance(event, Other)]
            assert others[-1] == Other("hologram", whole, in_turn=True)
            assert [other.raw for other in others[:-1]] == [pieces[0], pieces[1], pieces[6]]
            assert "answer" not in "".join(event.text for event in seen if isinstance(event, Text))

    def test_a_piece_of_a_known_block(self, server: LLMServer, client: Client) -> None:
        """At every position in each."""
        events = turn_events(*RECORDED, reason="tool_use")
        tried = 0
        for at, event in enumerate(events):
            if event["type"] not in ("content_block_delta", "content_block_stop"):
                continue
            tried += 1
            delta = {"type": "smell_delta", "smell": {"rose": 1}}
            piece = {"type": "content_block_delta", "index": event["index"], "delta": delta}
            seen, back = self.both(client, server, [*events[:at], piece, *events[at:]])
            assert [event for event in seen if isinstance(event, Other)] == [Other("smell_delta", delta)], at
            plain = [block for block in back if "smell" not in block]
            assert plain == [block for place, block in enumerate(RECORDED) if place != event["index"] or block in back]
        assert tried > 20

    def test_a_key_of_a_block(self, server: LLMServer, client: Client) -> None:
        """In each of them."""
        for at, block in enumerate(RECORDED):
            blocks = [*RECORDED[:at], {**block, "smell": {"rose": [1]}}, *RECORDED[at + 1 :]]
            assert self.both(client, server, turn_events(*blocks, reason="tool_use"))[1] == blocks

    def test_a_key_of_an_event_or_a_piece(self, server: LLMServer, client: Client) -> None:
        """In each of them except the first, whose keys are the answer's head."""
        events = turn_events(*RECORDED, reason="tool_use")
        for at, event in enumerate(events):
            if event["type"] == "ping":
                continue
            changed = [({**event, "smell": "rose"}, {**event, "smell": "rose"})]
            if "delta" in event:
                delta = {**event["delta"], "smell": "rose"}
                whole = {**event, "delta": delta}
                changed.append((whole, delta if event["type"] == "content_block_delta" else whole))
            for given, shown in changed:
                seen, back = self.both(client, server, [*events[:at], given, *events[at + 1 :]])
                assert [other.raw for other in seen if isinstance(other, Other)] == [shown]
                assert back == RECORDED


class TestOverlaps:
    """Streams in another order than the service's."""

    def test_blocks_without_an_end(self, server: LLMServer, client: Client) -> None:
        """Some gateways leave it out: a complete block ends when the next one starts."""
        events = [event for event in turn_events(*RECORDED, reason="tool_use") if event["type"] != "content_block_stop"]
        server.script(reply(events))
        answer = client.chat([ASKED]).complete()
        assert [call.arguments["city"] for call in answer.tool_calls] == ["Oslo", "Rome"]
        back = sent_back(client, server, answer)
        assert [block["type"] for block in back if block["type"] != "text"] == [
            block["type"] for block in RECORDED if block["type"] != "text"
        ]
        assert [block for block in back if block["type"] in ("server_tool_use", "web_search_tool_result")] == [
            SEARCH,
            FOUND,
        ]

    def test_blocks_that_all_have_one_number(self, server: LLMServer, client: Client) -> None:
        """As a str, or without a number: each start is a new block."""
        for number in (0, "0", None):
            events = turn_events(*RECORDED, reason="tool_use")
            for event in events:
                if "index" in event:
                    event["index"] = number
            server.script(reply(events))
            assert sent_back(client, server, client.chat([ASKED]).complete()) == RECORDED

    def test_calls_whose_pieces_come_in_turns(self, server: LLMServer, client: Client) -> None:
        """Each piece belongs to its call."""
        one, two = block_events(called("t1", "Oslo"), 0), block_events(called("t2", "Rome"), 1)
        events = turn_events(reason="tool_use")
        mixed = [event for pair in zip(one, two, strict=True) for event in pair]
        server.script(reply([*events[:2], *mixed, *events[2:]]))
        calls = client.chat([ASKED]).complete().tool_calls
        assert [(call.id, call.arguments["city"]) for call in calls] == [("t1", "Oslo"), ("t2", "Rome")]

    def test_a_stream_that_breaks_off_keeps_what_came(self, server: LLMServer, client: Client) -> None:
        """Complete blocks, in order; half a search is not part of the turn."""
        events = [*turn_events(thinking("Hm", "s"), FOUND, said("One. "), called("t1", "Oslo"), reason=None)]
        server.script(reply([*events, *block_events(SEARCH, 4)[:3]]))
        with pytest.raises(StreamTruncated) as caught:
            client.chat([ASKED]).complete()
        partial = caught.value.partial
        assert partial.message is not None
        assert [part["type"] for part in partial.message.parts] == ["reasoning", "opaque", "text", "tool_call"]
        assert [tool.result for tool in partial.server_tools] == [FOUND["content"]]


LOOK = said("Let me look. ")


class TestPause:
    """The service wants the turn back unchanged, to continue it."""

    TOOLS = ({"type": "web_search_20250305", "name": "web_search"},)

    @EVERY_MODE
    def test_a_paused_turn_goes_on(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """All of its answers are one, and each request contains everything before it."""
        again = {**SEARCH, "id": "srv_2"}
        server.script(
            turn(thinking("Hm", "s"), LOOK, SEARCH, reason="pause_turn"),
            turn(FOUND, said("One. "), again, reason="pause_turn"),
            turn({**FOUND, "tool_use_id": "srv_2"}, said("Two.", citations=[PAGE])),
        )
        answer = mode.complete(client.chat([ASKED], tools=self.TOOLS, run_tools=True))
        assert (answer.text, answer.finish_reason) == ("Let me look. One. Two.", "stop")
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (30, 15)
        first, second, third = [request.json["messages"] for request in server.requests]
        assert first == [ASKED]
        paused = [thinking("Hm", "s"), LOOK, SEARCH]
        assert second == [ASKED, {"role": "assistant", "content": paused}]
        assert third == [ASKED, {"role": "assistant", "content": [*paused, FOUND, said("One. "), again]}]
        assert len(answer.turns) == 1
        assert [tool.result is not None for tool in answer.server_tools] == [True, True]
        assert sent_back(client, server, answer) == [
            *paused, FOUND, said("One. "), again, {**FOUND, "tool_use_id": "srv_2"}, said("Two.", citations=[PAGE])
        ]  # fmt: skip

    @EVERY_MODE
    def test_its_pieces_and_events_are_those_of_one_answer(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """In order, with each part's finish reason."""
        for _ in range(2):
            server.script(turn(LOOK, SEARCH, reason="pause_turn"), turn(FOUND, said("Many.")))
        pieces = mode.read(client.chat([ASKED], tools=self.TOOLS, run_tools=True)).pieces
        assert "".join(pieces) == "Let me look. Many."
        events = mode.read(client.chat([ASKED], tools=self.TOOLS, run_tools=True).events()).pieces
        assert [event.reason for event in events if isinstance(event, Finish)] == ["pause", "stop"]
        assert not any(isinstance(event, NextCall) for event in events)

    @EVERY_MODE
    def test_a_pause_before_and_after_a_call(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A turn is one with its pause; the turn after the result is another."""
        server.script(
            turn(LOOK, SEARCH, reason="pause_turn"),
            turn(FOUND, thinking("Hm", "s"), called("t1", "Oslo"), reason="tool_use"),
            turn({**SEARCH, "id": "srv_2"}, reason="pause_turn"),
            turn({**FOUND, "tool_use_id": "srv_2"}, said("Sun.")),
        )
        answer = mode.complete(client.chat([ASKED], tools=[weather, *self.TOOLS], run_tools=True))
        assert (answer.text, len(answer.turns)) == ("Sun.", 3)
        assert answer.usage is not None
        assert answer.usage.output_tokens == 20
        calling = {"role": "assistant", "content": [LOOK, SEARCH, FOUND, thinking("Hm", "s"), called("t1", "Oslo")]}
        result = {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "Sun in Oslo"}],
        }
        assert server.requests[2].json["messages"] == [ASKED, calling, result]
        assert server.requests[3].json["messages"] == [
            ASKED, calling, result, {"role": "assistant", "content": [{**SEARCH, "id": "srv_2"}]}
        ]  # fmt: skip

    @EVERY_MODE
    def test_an_answer_behind_a_pause_may_come_whole(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """As the last event of its stream, or alone: it does not repeat what came before the pause."""
        rest = [thinking("Again.", "2"), FOUND, said("Many.")]
        events = turn_events(*rest)
        whole = {**events[0]["message"], "content": rest, "stop_reason": "end_turn"}
        for told in ([whole], [*events[:-1], whole, events[-1]]):
            server.script(turn(thinking("Hm", "1"), LOOK, SEARCH, reason="pause_turn"), reply(told))
            answer = mode.complete(client.chat([ASKED], tools=self.TOOLS, run_tools=True))
            assert answer.text == "Let me look. Many."
            assert sent_back(client, server, answer) == [thinking("Hm", "1"), LOOK, SEARCH, *rest]

    @EVERY_MODE
    def test_pauses_are_counted(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A service that never finishes is stopped at the limit, with the text so far."""
        server.default = turn(LOOK, SEARCH, reason="pause_turn")
        stream = client.chat([ASKED], tools=self.TOOLS, run_tools=True, max_turns=3)
        outcome = mode.read(stream)
        assert isinstance(outcome.error, TurnsExceeded)
        assert "pauses" in str(outcome.error)
        assert len(server.requests) == 3
        assert str(outcome.error.partial) == LOOK["text"] * 3
        assert outcome.error.partial.usage is not None
        assert outcome.error.partial.usage.output_tokens == 15
        assert outcome.error.partial.message is not None
        assert len(outcome.error.partial.message.parts) == 6

    @EVERY_MODE
    def test_an_error_behind_a_pause_keeps_what_came(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The message can be sent again, and is continued."""
        server.script(turn(LOOK, SEARCH, reason="pause_turn"), turn(FOUND, said("One. "), reason=None))
        outcome = mode.read(client.chat([ASKED], tools=self.TOOLS, run_tools=True))
        assert isinstance(outcome.error, LLMBridgeError)
        partial = outcome.error.partial
        assert (str(partial), partial.usage and partial.usage.output_tokens) == ("Let me look. One. ", 6)
        server.script(turn(said("ok")))
        client.chat([ASKED, partial.message, {"role": "user", "content": "And?"}]).complete()
        assert server.requests[-1].json["messages"][1]["content"] == [LOOK, SEARCH, FOUND, said("One. ")]

    @EVERY_MODE
    def test_without_run_tools_one_more_question_goes_on(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The reason is visible, and the turn is last, unchanged."""
        server.script(turn(LOOK, SEARCH, reason="pause_turn"), turn(FOUND, said("Many.")))
        paused = mode.complete(client.chat([ASKED], tools=self.TOOLS))
        assert (paused.finish_reason, paused.raw_finish_reason) == ("pause", "pause_turn")
        rest = mode.complete(client.chat([ASKED, paused], tools=self.TOOLS))
        assert server.requests[1].json["messages"] == [ASKED, {"role": "assistant", "content": [LOOK, SEARCH]}]
        server.script(turn(said("ok")))
        mode.complete(client.chat([ASKED, paused, rest, {"role": "user", "content": "And?"}]))
        assert server.requests[2].json["messages"][1]["content"] == [LOOK, SEARCH, FOUND, said("Many.")]


@EVERY_MODE
def test_run_tools_sends_a_turn_in_its_order(server: LLMServer, client: Client, mode: Mode) -> None:
    """Two thoughts and two calls in each of two turns, with their signatures."""
    turns = [
        [thinking("North.", "1"), called("t1", "Oslo"), thinking("South.", "2"), said("And"), called("t2", "Rome")],
        [thinking("East.", "3"), called("t3", "Riga"), thinking("West.", "4"), called("t4", "Cork")],
    ]
    server.script(*(turn(*blocks, reason="tool_use") for blocks in turns), turn(said("Sun.")))
    answer = mode.complete(client.chat([ASKED], tools=[weather], run_tools=True, reasoning_effort="high"))
    assert answer.text == "Sun."
    results = [
        [{"type": "tool_result", "tool_use_id": block["id"], "content": f"Sun in {block['input']['city']}"}
         for block in blocks if block["type"] == "tool_use"]
        for blocks in turns
    ]  # fmt: skip
    assert [request.json["messages"] for request in server.requests[1:]] == [
        [ASKED, {"role": "assistant", "content": turns[0]}, {"role": "user", "content": results[0]}],
        [
            ASKED, {"role": "assistant", "content": turns[0]}, {"role": "user", "content": results[0]},
            {"role": "assistant", "content": turns[1]}, {"role": "user", "content": results[1]},
        ],
    ]  # fmt: skip
