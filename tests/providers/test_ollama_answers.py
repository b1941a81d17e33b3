"""Whole answers of Ollama: images, repeating lines, forms of imitations, and unknown things."""

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
from llmbridge.events import Media, Other, Reasoning, ToolCall
from llmbridge.messages import ChatRequest, Opaque, with_own_proofs
from llmbridge.providers.ollama import Ollama
from llmbridge.testing import LLMServer, Reply


def line(message: Any = None, **more: Any) -> dict[str, Any]:
    """A line of an answer."""
    message = {"role": "assistant", "content": message} if isinstance(message, str) else message
    return {"model": "m", "created_at": "2026-11-21T02:09:14Z", "message": message, "done": False, **more}


def last(message: Any = "", **more: Any) -> dict[str, Any]:
    """The last line."""
    return line(message, done=True, done_reason="stop", prompt_eval_count=3, eval_count=2) | more


def called(*calls: Any, content: str = "") -> dict[str, Any]:
    """A message with calls."""
    return {"role": "assistant", "content": content, "tool_calls": list(calls)}


def call(arguments: Any = None, **more: Any) -> dict[str, Any]:
    """A call."""
    return {"function": {"name": "f", "arguments": {"a": 1} if arguments is None else arguments}, **more}


def reply(*lines: Any) -> Reply:
    """An answer of these lines."""
    return Reply(body="".join(json.dumps(one) + "\n" for one in lines), content_type="application/x-ndjson")


@pytest.fixture
def asked(server: LLMServer) -> Iterator[Client]:
    """A client for Ollama's dialect, without retries."""
    with Client("ollama:m", base_url=server.root, retries=0, proxy=False, timeout=20) as made:
        yield made


def sent_back(message: Any) -> dict[str, Any]:
    """The turn in the next request."""
    request = ChatRequest.checked("m", [message], {})
    encoded = Ollama.encode(ChatRequest("m", with_own_proofs(request.messages, "ollama")))
    (turn,) = encoded.body["messages"]
    return dict(turn)


class TestOnce:
    """Nothing is repeated."""

    @pytest.mark.parametrize(
        ("lines", "text"),
        [
            ([line("The bridge "), line("is red."), last("The bridge is red.")], "The bridge is red."),
            ([line("The bridge "), line("is red."), last("The bridge is red. Yes.")], "The bridge is red. Yes."),
            ([line("1"), last("1")], "11"),
            ([line("1"), line("1"), last()], "11"),
            ([line("a"), line("b"), last("a")], "aba"),
            ([line("<think>Hm.</think>The "), line("bridge."), last("<think>Hm.</think>The bridge.")], "The bridge."),
        ],
    )
    def test_text(self, mode: Mode, lines: list[Any], text: str, server: LLMServer, asked: Client) -> None:
        """Of a last line with the whole message, only what is new; two equal pieces are two."""
        server.script(reply(*lines))
        answer = mode.complete(asked.chat("Hi"))
        assert (answer.text, answer.finish_reason) == (text, "stop")
        assert answer.usage is not None
        assert answer.usage.total_tokens == 5

    @pytest.mark.parametrize(
        ("lines", "count"),
        [
            ([line(called(call())), last(called(call()))], 1),
            ([line("So: "), line(called(call())), last(called(call(), content="So: "))], 1),
            ([line(called(call(id="c1"))), line(called(call(id="c1"))), last()], 1),
            ([line(called(call(id="c1"))), last(called(call(id="c2")))], 2),
            ([line(called(call(), call())), last()], 2),
            ([line(called(call())), line(called(call())), last()], 2),
            ([line(called(call())), last(called(call({"a": 2})))], 2),
        ],
    )
    def test_calls(self, mode: Mode, lines: list[Any], count: int, server: LLMServer, asked: Client) -> None:
        """The last line may repeat the calls before it; two equal calls are two."""
        server.script(reply(*lines))
        answer = mode.complete(asked.chat("Hi"))
        assert len(answer.tool_calls) == count
        assert answer.finish_reason == "tool_calls"


PLAIN: dict[str, Any] = {
    "a message that is text": [line(), last("Hi") | {"message": "Hi"}],
    "a list of parts": [last({"role": "assistant", "content": [{"type": "text", "text": "H"}, "i"]})],
    "a part": [last({"role": "assistant", "content": {"type": "text", "text": "Hi"}})],
    "the other endpoint": [{"response": "Hi", "done": False}, {"response": "", "done": True, "done_reason": "stop"}],
    "done as text": [line("Hi"), line("", done="true", done_reason="stop")],
}


class TestShapes:
    """Forms of imitations."""

    @pytest.mark.parametrize("name", PLAIN)
    def test_a_plain_meaning_is_read(self, mode: Mode, name: str, server: LLMServer, asked: Client) -> None:
        """However it is wrapped."""
        server.script(reply(*PLAIN[name]))
        answer = mode.complete(asked.chat("Hi"))
        assert (answer.text, answer.finish_reason) == ("Hi", "stop")

    @pytest.mark.parametrize("content", [7, {"a": 1}, [1], {"text": 7}])
    def test_what_cannot_be_read_is_an_error(self, content: Any, server: LLMServer, asked: Client) -> None:
        """It is quoted, and the text so far is kept."""
        server.script(reply(line("Hi"), line({"role": "assistant", "content": content}), last()))
        with pytest.raises(ProtocolError, match="form") as caught:
            asked.chat("Hi").complete()
        assert caught.value.partial == "Hi"

    @pytest.mark.parametrize(
        ("calls", "arguments"),
        [
            ([call('{"a": 1}')], {"a": 1}),
            ([{"function": {"name": "f", "arguments": None}}], {}),
            (call(), {"a": 1}),
            ([{"name": "f", "arguments": {"a": 1}}], {"a": 1}),
        ],
    )
    def test_calls(self, calls: Any, arguments: Any, server: LLMServer, asked: Client) -> None:
        """Arguments as text or missing, one call instead of a list, a call without a wrapper."""
        server.script(reply(line({"role": "assistant", "content": "", "tool_calls": calls}), last()))
        (made,) = asked.chat("Hi").complete().tool_calls
        assert (made.name, made.arguments, made.problem) == ("f", arguments, None)

    def test_a_call_of_nothing_is_an_error(self, server: LLMServer, asked: Client) -> None:
        """It must not look like an answer without calls."""
        server.script(reply(line(called({"function": {"arguments": {"a": 1}}})), last()))
        with pytest.raises(ProtocolError, match="form"):
            asked.chat("Hi").complete()

    @pytest.mark.parametrize(
        ("word", "reason"),
        [("end_turn", "stop"), ("MAX_TOKENS", "length"), ("tool_use", "stop"), ("null", "stop"), (None, "stop"),
         ("content_filter", "content_filter"), ("load", "other")],
    )  # fmt: skip
    def test_reasons(self, word: Any, reason: str, server: LLMServer, asked: Client) -> None:
        """Those of other dialects, and empty words: old servers send no reason."""
        server.script(reply(line("Hi"), last(done_reason=word)))
        found = asked.chat("Hi").complete().finish_reason
        assert found == ("tool_calls" if word == "tool_use" else reason)

    def test_an_answer_that_failed(self, mode: Mode, server: LLMServer, asked: Client) -> None:
        """It is an error with the text so far."""
        server.script(reply(line("Hi"), last(done_reason="error")))
        outcome = mode.read(asked.chat("Hi"))
        assert outcome.pieces == ["Hi"]
        assert isinstance(outcome.error, LLMBridgeError)


class TestTurn:
    """A turn is sent back unchanged, each kind of part in its field."""

    def test_fields(self, mode: Mode, server: LLMServer, asked: Client) -> None:
        """Thinking, text, images, calls, and unknown fields."""
        thought = {"role": "assistant", "content": "", "thinking": "Hm."}
        image = {"role": "assistant", "content": "", "images": ["iVBORw0KGgo=", "data:image/jpeg;base64,/9j/"]}
        made = call(id="c1") | {"weight": 1}
        server.script(
            reply(line(thought), line("So: "), line(image | {"wibble": {"a": 1}}), line(called(made)), last())
        )
        answer = mode.complete(asked.chat("Hi"))
        assert [(one.mime, one.data) for one in answer.media] == [
            ("image/png", b"\x89PNG\r\n\x1a\n"),
            ("image/jpeg", b"\xff\xd8\xff"),
        ]
        sent = {
            "role": "assistant",
            "content": "So: ",
            "thinking": "Hm.",
            "images": ["iVBORw0KGgo=", "/9j/"],
            "wibble": {"a": 1},
            "tool_calls": [made],
        }
        assert sent_back(answer) == sent
        assert sent_back(Message.from_dict(json.loads(json.dumps(answer.message.to_dict())))) == sent

    def test_what_a_caller_writes(self) -> None:
        """In any order; of media that Ollama does not accept, only the transcript is sent."""
        spoken = Media("audio", "audio/wav", b"..", transcript="aloud")
        linked = Media("image", url="https://example.org/a.png")
        parts = ["a", ToolCall("c", "f", {"a": 1}), Reasoning("Hm."), Opaque({"x": 1}, "ollama"), spoken, linked, "b"]
        assert sent_back(Message("assistant", parts)) == {
            "role": "assistant",
            "content": "aaloudb",
            "thinking": "Hm.",
            "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}],
            "x": 1,
        }

    def test_what_another_service_gave(self) -> None:
        """Its own parts are left out."""
        assert sent_back(Message("assistant", ["a", Opaque({"x": 1}, "gemini")])) == {
            "role": "assistant",
            "content": "a",
        }

    def test_the_head(self, server: LLMServer, asked: Client) -> None:
        """The model and the durations."""
        server.script(reply(line("Hi"), last(total_duration=5)))
        answer = asked.chat("Hi").complete()
        assert (answer.served_model, answer.extra["total_duration"]) == ("m", 5)


@given(
    level=st.sampled_from(["line", "field of a line", "field of a message", "field of a call"]),
    place=st.integers(0, 2),
    new=st.integers(1, 9) | st.text("a\U0001f30d", min_size=1) | st.lists(st.integers(), min_size=1, max_size=3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_unknown_things_are_found(level: str, place: int, new: Any, server: LLMServer, asked: Client) -> None:
    """At every level they are events; those of the turn are sent back."""
    lines: list[Any] = [line("a"), line(called(call(id="c"))), last()]
    if level == "line":
        lines.insert(place, {"wibble": new})
    elif level == "field of a line":
        lines[place]["wibble"] = new
    elif level == "field of a message":
        lines[place]["message"]["wibble"] = new
    else:
        lines[1]["message"]["tool_calls"][0]["wibble"] = new
    server.script(reply(*lines), reply(*lines))
    events = list(asked.chat("Hi").events())
    if level == "field of a call":
        assert [one.raw for one in events if isinstance(one, ToolCall)] == [{"wibble": new}]
    else:
        assert Other("wibble", {"wibble": new}, in_turn=level == "field of a message") in events
    turn = sent_back(asked.chat("Hi").complete())
    assert turn.get("wibble") == (new if level == "field of a message" else None)
    assert turn["tool_calls"][0].get("wibble") == (new if level == "field of a call" else None)


def test_an_unknown_field_in_the_function_of_a_call(server: LLMServer, asked: Client) -> None:
    """It is sent back in its place."""
    made = {"function": {"name": "f", "arguments": {"a": 1}, "colour": "red"}}
    server.script(reply(line(called(made)), last()))
    (back,) = sent_back(asked.chat("Hi").complete().message)["tool_calls"]
    assert back["function"] == made["function"]


def test_an_image_by_its_address_and_a_delta(server: LLMServer, asked: Client) -> None:
    """As imitations may send them."""
    picture = line({"content": "", "images": ["https://a.example/b.png"]})
    piece = {"delta": {"content": "Hi"}, "done": False}
    server.script(reply(picture, piece, last()))
    answer = asked.chat("Hi").complete()
    assert (answer.text, [one.url for one in answer.media]) == ("Hi", ["https://a.example/b.png"])
