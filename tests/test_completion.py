"""A whole answer: its fields, how it is shown, copied and pickled, and how it goes back into the next call."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from dataclasses import replace
from typing import Any

import pytest
from modes import Mode

from llmbridge import Client, InvalidRequest, LLMBridgeError, Provider, providers
from llmbridge._call.notes import Notes
from llmbridge._text import TextSoFar
from llmbridge.completion import Choice, Completion, choices_of
from llmbridge.events import (
    Citation,
    Finish,
    Logprobs,
    Media,
    OtherChoice,
    Reasoning,
    Refusal,
    ServerTool,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Usage,
)
from llmbridge.messages import ChatRequest, Message, checked_messages
from llmbridge.testing import LLMServer, Reply

TALKING = [
    provider for provider in providers.known().values() if "tools" in provider.supports and provider.name != "demo"
]
CALL = ToolCall("call00001", "get_weather", {"city": "Zürich"}, '{"city": "Zürich"}')
MODEL = {"gemini": "gemini-3-pro"}
EVENTS: list[Any] = [
    Text("Hi"),
    Refusal("No."),
    Reasoning("Hm", "s", "r"),
    ToolCallDelta(0, "a", "f", "{}"),
    CALL,
    ToolResult(CALL, "rain", value=1),
    Logprobs(({"token": "Hi"},)),
    Usage(1, 2, raw={"a": 1}),
    Finish("stop", "stop"),
    OtherChoice(1, Text("Hi")),
    Choice(0, "Hi"),
]


def of(*items: Any, **fields: Any) -> Completion:
    """The completion of these items."""
    notes = Notes(TextSoFar())
    for item in items:
        notes.note(item)
    choices = choices_of(notes)
    shared = {field.name: getattr(choices[0], field.name) for field in dataclasses.fields(Choice)}
    del shared["index"]
    return Completion(**shared, choices=choices, message=notes.message(), usage=notes.usage, **fields)


def chunk(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    """An event of the stream."""
    return {"choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


class TestFields:
    """The fields."""

    def test_its_text_is_its_str(self) -> None:
        """For `print`."""
        assert str(of("Hel", "lo")) == "Hello"

    def test_choices(self, client: Client, server: LLMServer) -> None:
        """Several answers to one request, interleaved on the wire."""
        call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
        chunks = [
            chunk(0, {"role": "assistant", "content": "He"}),
            chunk(1, {"role": "assistant", "content": "\ud83c"}),
            chunk(0, {"content": "llo"}),
            chunk(1, {"content": "\udf0d", "reasoning": "hm"}),
            chunk(2, {"tool_calls": [call]}),
            chunk(1, {}, "length"),
            chunk(2, {}, "stop"),
            chunk(0, {}, "stop"),
        ]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in chunks) + "data: [DONE]\n\n"
        server.script(Reply(body=body, content_type="text/event-stream"))
        done = client.chat("Hi", n=3).complete()
        assert done.text == "Hello"
        assert [choice.index for choice in done.choices] == [0, 1, 2]
        assert [choice.text for choice in done.choices] == ["Hello", "🌍", ""]
        assert [choice.finish_reason for choice in done.choices] == ["stop", "length", "tool_calls"]
        assert done.choices[1].reasoning == "hm"
        assert [call.name for call in done.choices[2].tool_calls] == ["f"]
        assert (done.tool_calls, done.reasoning) == ((), "")

    def test_the_first_choice_is_the_answer(self) -> None:
        """Also if it is the only one."""
        done = of("Hi", Reasoning("hm"), CALL, Finish("tool_calls", "x"), Logprobs((1,)))
        assert done.choices == (Choice(0, "Hi", "hm", (CALL,), "tool_calls", "x", None, (1,)),)

    def test_rate_limits_are_read_from_the_headers(self) -> None:
        """None without such headers."""
        limits = of("Hi", headers={"x-ratelimit-remaining-requests": "7"}).rate_limits
        assert limits is not None
        assert limits.requests is not None
        assert limits.requests.remaining == 7
        assert of("Hi").rate_limits is None

    def test_a_refusal_is_a_field(self) -> None:
        """None if there was none."""
        assert (of(Refusal("I "), Refusal("cannot.")).refusal, of("Hi").refusal) == ("I cannot.", None)


class TestValue:
    """It is a value like any other."""

    def test_its_repr_can_be_read(self) -> None:
        """The repr has the content, without headers, messages and the like."""
        done = of("Hi", Usage(1, 2, raw={"x": "raw!"}), headers={"x": "header!"}, model="m", provider="p")
        shown = repr(done)
        assert shown.startswith("Completion(text='Hi', reasoning=''")
        assert "raw!" not in shown
        assert "header!" not in shown
        assert "Message(" not in shown
        assert len(shown) < 500

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
    def test_events_have_short_reprs(self, event: Any) -> None:
        """For a debugger."""
        assert repr(event).startswith(f"{type(event).__name__}(")
        assert len(repr(event)) < 260

    @pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("value", [*EVENTS, of("Hi", CALL)], ids=lambda value: type(value).__name__)
    def test_everything_survives_pickling_and_copying(self, value: Any, protocol: int) -> None:
        """For multiprocessing and caches."""
        assert pickle.loads(pickle.dumps(value, protocol)) == value
        assert copy.copy(value) == value
        assert copy.deepcopy(value) == value

    def test_an_error_survives_with_its_partial(self) -> None:
        """With its partial answer."""
        notes = Notes(TextSoFar())
        for item in ("Hel", Reasoning("hm"), CALL, Usage(1, 2)):
            notes.note(item)
        error = LLMBridgeError("cut")
        error.partial = notes.partial()
        same: Any
        for same in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
            assert same.partial == "Hel"
            assert (same.partial.reasoning, same.partial.tool_calls) == ("hm", (CALL,))
            assert same.partial.usage == Usage(1, 2)

    def test_it_cannot_be_changed(self) -> None:
        """No attribute can be set or deleted."""
        with pytest.raises(dataclasses.FrozenInstanceError):
            of("Hi").text = "Ho"  # type: ignore[misc]

    def test_equal_ones_are_equal(self) -> None:
        """Completions with the same content are equal."""
        assert of("Hi", CALL) == of("Hi", CALL)
        assert of("Hi") != of("Ho")


class TestWrittenDown:
    """`to_dict` and `from_dict`."""

    def everything(self) -> Completion:
        """An answer with every field set."""
        raw = {"deep": [{"a": None}]}
        media = (
            Media("audio", "audio/wav", bytes(range(256)), None, "Hi", "m1", raw),
            Media("image", url="https://x/y"),
        )
        done = of(
            "Hi", Reasoning("hm", "sig", raw={"r": 1}), CALL, Usage(1, 2, raw=raw), Logprobs(({"token": "Hi"},)),
            media[0], Finish("tool_calls", "x"), OtherChoice(1, Text("Ho")), OtherChoice(1, CALL),
            citations=(Citation("https://x", None, "T", "q", 0, 2, raw),), media=media,
            server_tools=(ServerTool("s", "search", {"q": 1}, [{"url": "u"}], raw),), response_id="r",
            served_model="m-1", extra={"system_fingerprint": "f"}, model="m", provider="p", request_id="q",
            first_piece_seconds=0.5, total_seconds=2.0, headers={"x-request-id": "q"},
        )  # fmt: skip
        calls = replace(CALL, problem="cut", signature="s", kind="custom", raw=raw)
        return replace(done, turns=(done.message, ToolResult(CALL, "rain").message), tool_calls=(CALL, calls))

    def test_everything_survives_json(self) -> None:
        """Fields that a comparison ignores survive too."""
        done = self.everything()
        again = Completion.from_dict(json.loads(json.dumps(done.to_dict(), allow_nan=False)))
        assert again == done
        assert again.to_dict() == done.to_dict()
        assert [one.raw for one in (*again.citations, *again.media)] == [
            one.raw for one in (*done.citations, *done.media)
        ]
        assert again.message.parts == done.message.parts
        assert {field.name for field in dataclasses.fields(Completion)} == set(done.to_dict())

    def test_no_field_is_left_at_its_default(self) -> None:
        """This keeps the test above complete; `refusal` and `parsed` have their own."""
        done, empty = self.everything(), Completion("")
        same = {item.name for item in dataclasses.fields(done) if getattr(done, item.name) == getattr(empty, item.name)}
        assert same == {"refusal", "parsed"}

    def test_an_answer_over_the_wire(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """The rate limits are kept, and cookies left out."""
        headers = {"Set-Cookie": "session=abc", "x-ratelimit-remaining-tokens": "7", "X-Api-Key": "k"}
        server.script(Reply(refusal="No.", headers=headers))
        done = mode.complete(client.chat("Hi"))
        again = Completion.from_dict(json.loads(json.dumps(done.to_dict())))
        assert (again.refusal, again.rate_limits) == ("No.", done.rate_limits)
        assert again.rate_limits is not None
        assert not {"set-cookie", "x-api-key"} & again.headers.keys()
        assert again == replace(done, headers=again.headers)

    def test_it_goes_back_as_the_answer_would(self, client: Client, server: LLMServer) -> None:
        """The loaded answer works in the messages of the next call."""
        server.script(Reply("Hi", tool_calls=[{"name": "f", "arguments": {}}]), Reply("x"), Reply("x"))
        done = client.chat("Hi").complete()
        for answer in (done, Completion.from_dict(json.loads(json.dumps(done.to_dict())))):
            client.chat([{"role": "user", "content": "x"}, answer, ToolResult(done.tool_calls[0], "")]).complete()
        assert server.requests[1].json == server.requests[2].json

    def test_what_was_parsed_is_json(self) -> None:
        """A class becomes a mapping; values without a JSON form become their `str`."""
        value = Choice(0, "Oslo")
        assert Completion.from_dict(Completion("", parsed=value).to_dict()).parsed["text"] == "Oslo"
        saved = Completion("", parsed={"a": float("nan"), "b": b"x"}, extra={"score": float("inf")}).to_dict()
        json.dumps(saved, allow_nan=False)
        assert saved["extra"] == {"score": None}

    def test_what_a_later_version_adds_is_left_out(self) -> None:
        """Unknown fields are ignored, and missing ones have their defaults."""
        saved = {"text": "Hi", "mood": "good", "usage": {"input_tokens": 1, "new": 2}}
        assert Completion.from_dict(saved) == Completion("Hi", usage=Usage(1))

    @pytest.mark.parametrize(
        ("saved", "message"),
        [
            (None, "completion must be a mapping, not None"),
            ({}, "completion is not complete: .*text"),
            ({"text": 5}, r"completion\.text must be of type str, not 5"),
            ({"text": "", "usage": []}, r"completion\.usage must be a mapping"),
            ({"text": "", "usage": {"input_tokens": True}}, r"usage\.input_tokens must be of type int"),
            ({"text": "", "tool_calls": [{"id": "c"}]}, r"tool_calls\[0\] is not complete"),
            ({"text": "", "tool_calls": "c"}, r"tool_calls must be of type tuple"),
            ({"text": "", "choices": [{"index": 0, "text": "", "tool_calls": [7]}]}, r"\[0\]\.tool_calls\[0\] must"),
            ({"text": "", "media": [{"kind": "image", "data": "?"}]}, r"media\[0\]\.data: "),
            ({"text": "", "message": {"role": "x", "content": ""}}, r"completion\.message: .*'x' is unknown"),
            ({"text": "", "turns": [3]}, r"turns\[0\] must be of type Message"),
            ({"text": "", "headers": None}, "headers must be of type Mapping"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_said(self, saved: Any, message: str) -> None:
        """The error names the place."""
        with pytest.raises(InvalidRequest, match=message):
            Completion.from_dict(saved)

    def test_it_is_a_dataclass_as_before(self) -> None:
        """`asdict`, `replace`, pickles and copies."""
        done = self.everything()
        assert dataclasses.asdict(done)["message"]["role"] == "assistant"
        assert dataclasses.asdict(done)["media"][0]["data"] == bytes(range(256))
        for again in (copy.copy(done), copy.deepcopy(done), pickle.loads(pickle.dumps(done)), replace(done)):
            assert again == done


class TestReplay:
    """In the messages of the next call, it is the assistant's turn."""

    def test_it_is_its_message(self) -> None:
        """Beside the caller's messages, and results."""
        done = of("Hi", CALL)
        turns = checked_messages([{"role": "user", "content": "x"}, done, ToolResult(CALL, "rain")])
        assert turns[1] == done.message == Message("assistant", "Hi", done.message.extra)
        assert turns[2].extra == {"tool_call_id": "call00001", "name": "get_weather"}

    @pytest.mark.parametrize("provider", TALKING, ids=lambda provider: provider.name)
    @pytest.mark.parametrize(
        "items",
        [
            ["Hi"],
            ["Hi", Reasoning("hm")],
            [Reasoning("hm", "sig"), Reasoning("", None, "secret"), "Hi"],
            [CALL],
            [Reasoning("hm", "sig"), "Hi", CALL],
            [ToolCall("call00001", "get_weather", {}, '{"city": "Z', "cut off")],
            [Reasoning("hm")],
            [Refusal("No.")],
        ],
        ids=["text", "reasoning", "signed", "call", "all", "broken", "only reasoning", "refusal"],
    )
    def test_every_dialect_sends_it_back(self, provider: type[Provider], items: list[Any]) -> None:
        """As strict JSON, with its text, its calls, and the result after them."""
        done = of(*items)
        turns: list[Any] = [{"role": "user", "content": "x"}, done]
        turns += [ToolResult(call, "rain") for call in done.tool_calls] or [{"role": "user", "content": "y"}]
        request = ChatRequest.checked(MODEL.get(provider.name, "m"), turns, {})
        sent = json.dumps(provider.encode(request).body, allow_nan=False, ensure_ascii=False)
        sent.encode()
        if done.text:
            assert done.text in sent
        if done.tool_calls:
            assert "get_weather" in sent
            assert "rain" in sent
        if CALL in done.tool_calls:
            assert "Zürich" in sent

    def test_an_answer_over_the_wire_goes_back(self, client: Client, server: LLMServer) -> None:
        """In OpenAI's format."""
        server.script(Reply(["Hel", "lo"]), Reply("x"))
        done = client.chat("Hi").complete()
        client.chat([{"role": "user", "content": "Hi"}, done, {"role": "user", "content": "And?"}]).complete()
        assert server.requests[1].json["messages"][1] == {"role": "assistant", "content": "Hello"}
