"""Whole answers of Cohere: sources, complete calls, forms of imitations, and unknown things."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modes import Mode

from llmbridge import Client, Message
from llmbridge.errors import LLMBridgeError, ProtocolError
from llmbridge.events import Citation, Media, Other, Reasoning, ToolCall
from llmbridge.messages import ChatRequest, Opaque, with_own_proofs
from llmbridge.providers.cohere import Cohere
from llmbridge.testing import LLMServer, Reply


def event(kind: str, delta: Any = None, index: Any = 0, **more: Any) -> dict[str, Any]:
    """An event of the stream."""
    return {"type": kind, "index": index, "delta": delta, **more}


def text(content: Any, index: Any = 0) -> dict[str, Any]:
    """A piece of content."""
    content = {"text": content} if isinstance(content, str) else content
    return event("content-delta", {"message": {"content": content}}, index)


def tool(kind: str, index: int, **call: Any) -> dict[str, Any]:
    """A piece of a call."""
    return event(f"tool-call-{kind}", {"message": {"tool_calls": call}} if call else None, index)


def cited(citation: Any) -> dict[str, Any]:
    """A source."""
    return event("citation-start", {"message": {"citations": citation}})


USAGE = {"tokens": {"input_tokens": 3, "output_tokens": 2}}
START: dict[str, Any] = {"type": "message-start", "id": "m1", "delta": {"message": {"role": "assistant"}}}
END: dict[str, Any] = {"type": "message-end", "delta": {"finish_reason": "COMPLETE", "usage": USAGE}}
SNIPPET = "The bridge is 2737 m long."
DOCUMENT = {"type": "document", "id": "doc:0", "document": {"url": "https://a.b/c", "title": "C", "snippet": SNIPPET}}
TOOL = {"type": "tool", "id": "look:0", "tool_output": {"title": "Look"}}


def reply(*events: Any) -> Reply:
    """An answer of these events."""
    body = "".join(f"event: {one.get('type', 'message')}\ndata: {json.dumps(one)}\n\n" for one in events)
    return Reply(body=body, content_type="text/event-stream")


@pytest.fixture
def asked(server: LLMServer) -> Iterator[Client]:
    """A client for Cohere's dialect, without retries."""
    with Client("cohere:m", base_url=server.root, api_key="k-1234567", retries=0, proxy=False, timeout=20) as made:
        yield made


def sent_back(message: Any) -> dict[str, Any]:
    """The turn in the next request."""
    request = ChatRequest.checked("m", [message], {})
    (turn,) = Cohere.encode(ChatRequest("m", with_own_proofs(request.messages, "cohere"))).body["messages"]
    return dict(turn)


class TestSources:
    """The answer's sources."""

    def test_each_source_with_its_place(self, mode: Mode, server: LLMServer, asked: Client) -> None:
        """Documents and tools' results; repeated ones are yielded once."""
        citation = {"start": 6, "end": 12, "text": "2737 m", "sources": [DOCUMENT, TOOL], "type": "TEXT_CONTENT"}
        again = cited(citation)
        server.script(reply(START, text("It is "), text("2737 m."), again, event("citation-end"), again, END))
        answer = mode.complete(asked.chat("How long?"))
        assert answer.citations == (
            Citation("https://a.b/c", "doc:0", "C", SNIPPET, 6, 12),
            Citation(None, "look:0", "Look", None, 6, 12),
        )
        assert answer.text[6:12] == "2737 m"
        assert answer.citations[0].raw == {**citation, "sources": [DOCUMENT]}
        assert (answer.response_id, answer.text) == ("m1", "It is 2737 m.")

    @pytest.mark.parametrize("kind", ["PLAN", "THINKING_CONTENT"])
    def test_a_place_elsewhere_is_none_in_the_answer(self, kind: str, server: LLMServer, asked: Client) -> None:
        """Its place stays in the raw object."""
        citation = {"start": 0, "end": 2, "sources": [TOOL], "type": kind}
        server.script(reply(START, text("Hi"), cited([citation]), END))
        (found,) = asked.chat("Hi").complete().citations
        assert (found.start, found.end, found.raw["end"]) == (None, None, 2)

    def test_those_of_a_document(self, server: LLMServer, asked: Client) -> None:
        """In an answer that is not streamed, and in a citation without a source."""
        message = {
            "role": "assistant",
            "content": [{"type": "text", "text": "It is 2737 m."}],
            "citations": [{"start": 6, "end": 12, "sources": [DOCUMENT]}, {"start": 0, "end": 2, "text": "It"}],
        }
        whole = {"id": "x", "message": message, "finish_reason": "COMPLETE", "usage": USAGE}
        server.script(Reply(body=json.dumps(whole), content_type="application/json"))
        answer = asked.chat("Hi").complete()
        assert [(one.url, one.start) for one in answer.citations] == [("https://a.b/c", 6), (None, 0)]
        assert (answer.text, answer.response_id) == ("It is 2737 m.", "x")


class TestOnce:
    """Nothing is repeated."""

    def test_a_last_event_that_repeats_everything(self, server: LLMServer, asked: Client) -> None:
        """From gateways; only what is new in it is yielded."""
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        message = {"content": [{"type": "text", "text": "The bridge is red."}], "tool_calls": [call]}
        last = {**END, "delta": {**END["delta"], "message": message}}
        pieces = [text("The bridge "), tool("start", 0, **call), tool("end", 0)]
        server.script(reply(START, *pieces, tool("start", 0, **call), tool("end", 0), last))
        answer = asked.chat("Hi").complete()
        assert (answer.text, len(answer.tool_calls), answer.finish_reason) == ("The bridge is red.", 1, "tool_calls")

    @pytest.mark.parametrize("place", ["message", "content", "text"])
    def test_a_piece_without_a_delta(self, place: str, server: LLMServer, asked: Client) -> None:
        """Its fields are read beside it."""
        said = {"message": {"content": {"text": "Hi"}}, "content": {"text": "Hi"}, "text": "Hi"}[place]
        server.script(reply(START, {"type": "content-delta", "index": 0, place: said}, END))
        assert asked.chat("Hi").complete().text == "Hi"

    def test_a_message_that_is_text(self, server: LLMServer, asked: Client) -> None:
        """Beside a finish reason, it is not an error report."""
        server.script(Reply(body=json.dumps({"message": "Hi", "finish_reason": "COMPLETE"}), content_type="text/json"))
        assert asked.chat("Hi").complete().text == "Hi"

    def test_an_unknown_field_of_a_call(self, server: LLMServer, asked: Client) -> None:
        """It is sent back with the call."""
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}, "colour": ["red"]}
        server.script(reply(START, tool("start", 0, **call), tool("end", 0), END))
        assert sent_back(asked.chat("Hi").complete().message)["tool_calls"] == [call]


class TestCalls:
    """Tool calls."""

    def test_a_call_is_yielded_when_it_is_whole(self, mode: Mode, server: LLMServer, asked: Client) -> None:
        """Not only at the end of the answer."""
        events = [
            START,
            event("tool-plan-delta", {"message": {"tool_plan": "I look."}}),
            tool("start", 0, id="c1", function={"name": "f", "arguments": ""}),
            tool("delta", 0, function={"arguments": '{"a": 1}'}),
            tool("end", 0),
            tool("start", 1, id="c2", function={"name": "f", "arguments": '{"a": 1}'}),
            tool("end", 1),
            text("So."),
            END,
        ]
        server.script(reply(*events))
        told = mode.read(asked.chat("Hi").events()).pieces
        names = [type(one).__name__ for one in told]
        assert names.index("ToolCall") < names.index("Text")
        assert [one.id for one in told if isinstance(one, ToolCall)] == ["c1", "c2"]
        assert told[0] == Reasoning("I look.")

    def test_arguments_as_an_object(self, server: LLMServer, asked: Client) -> None:
        """From imitations."""
        made = {"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}
        server.script(reply(START, tool("start", 0, **made), tool("end", 0), END))
        (call,) = asked.chat("Hi").complete().tool_calls
        assert (call.arguments, call.problem) == ({"a": 1}, None)


PLAIN: dict[str, list[Any]] = {
    "content that is text": [event("content-delta", {"message": {"content": "Hi"}}), END],
    "a list of contents": [event("content-delta", {"message": {"content": [{"type": "text", "text": "Hi"}]}}), END],
    "a message that is text": [event("content-delta", {"message": "Hi"}), END],
    "a delta that is text": [event("content-delta", "Hi"), END],
    "a text in the delta": [event("content-delta", {"text": "Hi"}), END],
    "an index as text": [text("Hi", "0"), END],
    "a type that is only the event's name": [{**text("Hi"), "type": None}, END],
}


class TestShapes:
    """Forms of imitations."""

    @pytest.mark.parametrize("name", PLAIN)
    def test_a_plain_meaning_is_read(self, mode: Mode, name: str, server: LLMServer, asked: Client) -> None:
        """However it is wrapped."""
        body = "".join(
            f"event: {one['type'] or 'content-delta'}\ndata: {json.dumps({k: v for k, v in one.items() if v})}\n\n"
            for one in PLAIN[name]
        )
        server.script(Reply(body=body, content_type="text/event-stream"))
        answer = mode.complete(asked.chat("Hi"))
        assert (answer.text, answer.finish_reason) == ("Hi", "stop")

    @pytest.mark.parametrize("content", [7, {"text": 7}, {"thinking": ["a"]}, [7]])
    def test_what_cannot_be_read_is_an_error(self, content: Any, server: LLMServer, asked: Client) -> None:
        """It is quoted, and the text so far is kept."""
        server.script(reply(START, text("Hi"), text(content), END))
        with pytest.raises(ProtocolError, match="form") as caught:
            asked.chat("Hi").complete()
        assert caught.value.partial == "Hi"

    @pytest.mark.parametrize(
        ("word", "reason"),
        [("stop", "stop"), ("length", "length"), ("complete", "stop"), ("SAFETY", "content_filter"), ("new", "other")],
    )
    def test_reasons(self, word: str, reason: str, server: LLMServer, asked: Client) -> None:
        """Finish reasons of other dialects."""
        server.script(reply(START, text("Hi"), {"type": "message-end", "delta": {"finish_reason": word}}))
        answer = asked.chat("Hi").complete()
        assert (answer.finish_reason, answer.raw_finish_reason) == (reason, word)

    @pytest.mark.parametrize("word", ["ERROR", "TIMEOUT", "cancelled"])
    def test_an_answer_that_failed(self, mode: Mode, word: str, server: LLMServer, asked: Client) -> None:
        """It is an error with the text so far."""
        server.script(reply(START, text("Hi"), {"type": "message-end", "delta": {"finish_reason": word}}))
        outcome = mode.read(asked.chat("Hi"))
        assert outcome.pieces == ["Hi"]
        assert isinstance(outcome.error, LLMBridgeError)


class TestTurn:
    """A turn is sent back unchanged."""

    def test_contents_of_unknown_types(self, mode: Mode, server: LLMServer, asked: Client) -> None:
        """They are joined from their pieces, and stay between the texts."""
        begun = {"type": "wibble", "words": "", "list": [1], "text": "in"}
        events = [
            START,
            text("a"),
            event("content-end"),
            event("content-start", {"message": {"content": begun}}, 1),
            text({"words": "He", "list": [2]}, 1),
            text({"words": "llo", "text": "side"}, 1),
            text("side", 1),
            event("content-end", None, 1),
            text("b", 2),
            END,
        ]
        server.script(reply(*events))
        answer = mode.complete(asked.chat("Hi"))
        whole = {"type": "wibble", "words": "Hello", "list": [1, 2], "text": "insideside"}
        assert answer.text == "ab"
        parts = [{"type": "text", "text": "a"}, whole, {"type": "text", "text": "b"}]
        assert sent_back(answer) == {"role": "assistant", "content": parts}
        assert sent_back(Message.from_dict(json.loads(json.dumps(answer.message.to_dict()))))["content"] == parts

    def test_what_a_caller_writes(self) -> None:
        """In any order; of media in the model's turn, only the transcript is sent."""
        spoken = Media("audio", "audio/wav", b"..", transcript="aloud")
        image = Media("image", "image/png", b"..")
        parts = ["a", ToolCall("c", "f", {"a": 1}), Reasoning("Hm."), spoken, image, Opaque({"x": 1}, "gemini"), "b"]
        assert sent_back(Message("assistant", parts)) == {
            "role": "assistant",
            "content": "aaloudb",
            "tool_plan": "Hm.",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}],
        }


@given(
    level=st.sampled_from(["event", "content", "event field", "delta field", "message field", "content field"]),
    place=st.integers(1, 3),
    new=st.integers(1, 9) | st.text("a\U0001f30d", min_size=1) | st.lists(st.integers(), min_size=1, max_size=3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_unknown_things_are_found(level: str, place: int, new: Any, server: LLMServer, asked: Client) -> None:
    """At every level they are events; content of the turn is sent back unchanged, in its place."""
    events: list[Any] = [START, text("a"), text("b"), text("c"), END]
    changed = events[place] = json.loads(json.dumps(events[place]))
    if level == "event":
        events.insert(place, event("wibble-start", new))
    elif level == "content":
        events.insert(place, event("content-start", {"message": {"content": {"type": "wibble", "new": new}}}, 7))
        events.insert(place + 1, event("content-end", None, 7))
    else:
        delta = changed["delta"]
        at = {"event": changed, "delta": delta, "message": delta["message"], "content": delta["message"]["content"]}
        at[level.split()[0]]["wibble"] = new
    server.script(reply(*events), reply(*events))
    told = list(asked.chat("Hi").events())
    answer = asked.chat("Hi").complete()
    assert answer.text == "abc"
    if level == "content":
        own = {"type": "wibble", "new": new}
        assert Other("wibble", own, in_turn=True) in told
        around = [{"type": "text", "text": said} for said in ("abc"[: place - 1], "abc"[place - 1 :]) if said]
        around.insert(min(place - 1, 1), own)
        assert sent_back(answer)["content"] == around
    elif level == "event":
        assert Other("wibble-start", event("wibble-start", new)) in told
    else:
        assert Other("wibble", {"wibble": new}) in told
        assert sent_back(answer)["content"] == "abc"
