"""The record of an answer: the turns, the message to send back, the partial answer, the tokens."""

from __future__ import annotations

import dataclasses
import gc
import json
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from llmbridge._call.notes import Notes
from llmbridge._text import TextSoFar
from llmbridge.events import (
    Citation,
    EndOfPart,
    Finish,
    Logprobs,
    Media,
    NextCall,
    Other,
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
from llmbridge.messages import Message

CALL = ToolCall("a", "f", {"x": 1}, '{"x": 1}')
SENT = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
CALLED = Finish("tool_calls", "tool_calls")


def noted(*items: Any) -> Notes:
    """The notes of these items."""
    notes = Notes(TextSoFar())
    for item in items:
        notes.note(item)
    return notes


class TestNotes:
    """One turn."""

    def test_text_comes_as_pieces_or_as_events(self) -> None:
        """Pieces and text events give the same text."""
        notes = noted("Hel", Text("lo"))
        assert (str(notes.text), notes.turn_text, notes.message()) == ("Hello", "Hello", Message("assistant", "Hello"))

    def test_a_record_of_text_alone_is_small(self) -> None:
        """A thousand answers under way keep the garbage collector busy: there are lists only for what has come."""

        def lists() -> int:
            return sum(type(some) is list for some in gc.get_objects())

        gc.collect()
        gc.disable()
        try:
            before = lists()
            kept = [noted("Hello", Finish("stop")) for _ in range(100)]
            assert lists() - before < 3 * len(kept)
        finally:
            gc.enable()

    def test_a_refusal_is_text_as_well(self) -> None:
        """A refusal counts as text too, and is marked as a refusal."""
        notes = noted(Refusal("I "), Refusal("cannot."))
        assert (str(notes.text), "".join(notes.refusal)) == ("I cannot.", "I cannot.")

    def test_everything_else_is_kept_by_its_kind(self) -> None:
        """Complete calls are kept, but not their pieces."""
        notes = noted(
            Reasoning("h"), Reasoning("m"), ToolCallDelta(0, "a"), CALL, Logprobs((1, 2)), Usage(1, 2), CALLED
        )
        assert str(notes.reasoning) == "hm"
        assert notes.tool_calls == [CALL]
        assert notes.logprobs == [1, 2]
        assert notes.usage == Usage(1, 2)
        assert notes.finish == CALLED

    def test_other_choices_have_notes_of_their_own(self) -> None:
        """Other choices are ordered by their index."""
        notes = noted("a", OtherChoice(2, Text("c")), OtherChoice(1, Text("b")), OtherChoice(1, CALLED))
        assert {index: str(own.text) for index, own in notes.others.items()} == {1: "b", 2: "c"}
        assert list(notes.others) == [1, 2]
        assert notes.others[1].finish == CALLED
        assert (notes.turn_text, notes.finish) == ("a", None)

    def test_nothing(self) -> None:
        """The notes of an empty answer."""
        notes = noted()
        assert (notes.message(), notes.usage, notes.turns) == (Message("assistant", ""), None, [])
        assert notes.partial() == ""


class TestMessage:
    """The message that goes back to the service."""

    def test_calls_without_text_have_no_content(self) -> None:
        """The content is None, as in OpenAI's format."""
        assert noted(CALL).message() == Message("assistant", None, {"tool_calls": [SENT]})

    def test_calls_beside_text(self) -> None:
        """Text and calls are both kept."""
        assert noted("Hm.", CALL).message() == Message("assistant", "Hm.", {"tool_calls": [SENT]})

    def test_reasoning_comes_before_the_text(self) -> None:
        """Pieces of reasoning are joined to one block."""
        assert noted(Reasoning("h"), Reasoning("m"), "4").message().content == [
            {"type": "reasoning", "text": "hm"},
            {"type": "text", "text": "4"},
        ]

    def test_a_signature_ends_a_block(self) -> None:
        """Each block has its own signature; redacted ones stay separate, in order."""
        items = Reasoning("a"), Reasoning("", "s1"), Reasoning("", None, "r"), Reasoning("b", "s2"), Reasoning("c")
        assert noted(*items).message().content == [
            {"type": "reasoning", "text": "a", "signature": "s1"},
            {"type": "reasoning", "redacted": "r"},
            {"type": "reasoning", "text": "b", "signature": "s2"},
            {"type": "reasoning", "text": "c"},
        ]

    def test_a_late_signature_belongs_to_the_reasoning(self) -> None:
        """llama-server sends the signature after the text."""
        assert noted(Reasoning("a"), "4", Reasoning("", "s")).message().content == [
            {"type": "reasoning", "text": "a", "signature": "s"},
            {"type": "text", "text": "4"},
        ]

    def test_text_and_reasoning_keep_their_order(self) -> None:
        """A signature is valid only in its place: elsewhere, services reject it."""
        items = (
            Reasoning("a"),
            Reasoning("", "s1"),
            "Let ",
            Text("me"),
            Reasoning("b"),
            Reasoning("", "s2"),
            "see.",
            CALL,
        )
        message = noted(*items).message()
        assert message.content == [
            {"type": "reasoning", "text": "a", "signature": "s1"},
            {"type": "text", "text": "Let me"},
            {"type": "reasoning", "text": "b", "signature": "s2"},
            {"type": "text", "text": "see."},
        ]
        assert message.extra == {"tool_calls": [SENT]}

    def test_a_signature_of_the_text_follows_it(self) -> None:
        """Gemini's signature of a text is not that of the reasoning before it."""
        assert noted(Reasoning("a"), "A", Reasoning("", redacted="r"), "B").message().content == [
            {"type": "reasoning", "text": "a"},
            {"type": "text", "text": "A"},
            {"type": "reasoning", "redacted": "r"},
            {"type": "text", "text": "B"},
        ]

    def test_reasoning_between_texts_stays_there_without_a_proof(self) -> None:
        """A block of reasoning keeps its place even if it is only a signature."""
        assert noted(
            "A", Reasoning("b"), "C", Reasoning("d"), "E", Reasoning("f"), Reasoning("", "s")
        ).message().content == [
            {"type": "text", "text": "A"},
            {"type": "reasoning", "text": "b"},
            {"type": "text", "text": "C"},
            {"type": "reasoning", "text": "d"},
            {"type": "text", "text": "E"},
            {"type": "reasoning", "text": "f", "signature": "s"},
        ]
        assert noted("A", Reasoning("", "s"), "B").message().content == [
            {"type": "text", "text": "A"},
            {"type": "reasoning", "text": "", "signature": "s"},
            {"type": "text", "text": "B"},
        ]

    def test_a_second_turn_counts_its_own_text(self) -> None:
        """Places are counted within the turn, however long earlier turns were."""
        notes = noted(
            Reasoning("a", "s"), *"x" * 5000, CALL, CALLED, ToolResult(CALL, "1"), "A", Reasoning("b", "t"), "B"
        )
        notes.text.fold()
        assert notes.message().content == [
            {"type": "text", "text": "A"},
            {"type": "reasoning", "text": "b", "signature": "t"},
            {"type": "text", "text": "B"},
        ]
        assert isinstance(notes.turns[0].content, list)
        assert [part.get("text", "")[:3] for part in notes.turns[0].content] == ["a", "xxx"]

    def test_a_call_s_signature_goes_back_with_it(self) -> None:
        """Gemini's signature of a call is kept."""
        (sent,) = noted(ToolCall("a", "f", {}, "{}", None, "s")).message().extra["tool_calls"]
        assert sent["signature"] == "s"

    @pytest.mark.parametrize(
        ("text", "problem", "sent"),
        [
            ('{"x":  1}', None, '{"x":  1}'),
            ('{"x": "a\tb"}', None, '{"x": 1}'),
            ('"{}"', None, '{"x": 1}'),
            ("", None, '{"x": 1}'),
            ('{"x": ', "cut off", '{"x": 1}'),
            ("[" * 100_000, "too deep", '{"x": 1}'),
        ],
        ids=range(6),
    )
    def test_arguments_go_back_as_json_that_anybody_reads(self, text: str, problem: str | None, sent: str) -> None:
        """Many services reject a whole conversation for one invalid call."""
        notes = noted(ToolCall("a", "f", {"x": 1}, text, problem))
        assert notes.message().extra["tool_calls"][0]["function"]["arguments"] == sent

    def test_the_message_can_be_asked_for_twice(self) -> None:
        """The second message is equal to the first."""
        notes = noted(Reasoning("a"), "b", CALL)
        assert notes.message() == notes.message()


class TestTurns:
    """Turns with tools."""

    def test_a_result_ends_the_turn(self) -> None:
        """The turn and its results are messages."""
        failed = ToolResult(ToolCall("b", "g"), "No.", failed=True)
        notes = noted("Hm.", CALL, ToolCall("b", "g", {}, "{}"), CALLED, ToolResult(CALL, "1"), failed, "One.")
        assert [turn.to_dict() for turn in notes.turns[1:]] == [
            {"role": "tool", "content": "1", "tool_call_id": "a", "name": "f"},
            {"role": "tool", "content": "No.", "tool_call_id": "b", "name": "g", "is_error": True},
        ]
        assert (notes.turns[0].content, [call.id for call in notes.turns[0].tool_calls]) == ("Hm.", ["a", "b"])
        assert (notes.turn_text, str(notes.text), notes.message().content) == ("One.", "Hm.One.", "One.")

    def test_a_new_turn_begins_with_nothing(self) -> None:
        """Only the text, the reasoning and the tokens cover all turns."""
        other = OtherChoice(1, Text("x"))
        first = [Reasoning("a", "s"), Refusal("no"), Logprobs((1,)), other, Usage(10, 1), CALL, CALLED]
        notes = noted(*first, ToolResult(CALL, "1"))
        assert (notes.tool_calls, notes.refusal, notes.logprobs, notes.finish) == ([], [], [], None)
        assert notes.others == {}
        assert notes.message() == Message("assistant", "")
        assert (str(notes.reasoning), notes.usage) == ("a", Usage(10, 1))

    def test_turns_with_several_rounds(self) -> None:
        """Each turn has its own text, and the tokens are added up."""
        second = ToolCall("b", "f", {}, "{}")
        notes = noted(
            "x", CALL, Usage(10, 1), ToolResult(CALL, "1"), "y", second, Usage(20, 2), ToolResult(second, "2")
        )
        notes.note("z")
        notes.note(Usage(30, 3))
        assert [turn.role for turn in notes.turns] == ["assistant", "tool", "assistant", "tool"]
        assert [turn.content for turn in notes.turns] == ["x", "1", "y", "2"]
        assert notes.usage == Usage(60, 6)
        assert notes.turn_text == "z"


class TestPartial:
    """The partial answer of an error."""

    def test_it_is_the_text_with_what_came_beside_it(self) -> None:
        """It compares as text."""
        partial = noted("Hel", Reasoning("hm"), CALL, Usage(1, 2)).partial()
        assert partial == "Hel"
        assert (partial.reasoning, partial.tool_calls, partial.usage) == ("hm", (CALL,), Usage(1, 2))

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_it_survives_pickling(self, protocol: int) -> None:
        """It keeps everything when pickled."""
        partial = noted("Hel", Reasoning("hm"), CALL, Usage(1, 2)).partial()
        same = pickle.loads(pickle.dumps(partial, protocol))
        assert (type(same), same, vars(same)) == (type(partial), partial, vars(partial))


class TestOrder:
    """A turn keeps its parts in order, and goes back so."""

    SECOND = ToolCall("b", "g", {}, "{}", None, "s2")

    def test_thoughts_and_calls_in_turn(self) -> None:
        """The calls are in `tool_calls`, and their places in the content."""
        message = noted(Reasoning("x", "s1"), CALL, "Then:", Reasoning("y"), self.SECOND, "Done.").message()
        assert [part["type"] for part in message.parts] == [
            "reasoning", "tool_call", "text", "reasoning", "tool_call", "text"
        ]  # fmt: skip
        assert message.tool_calls == (CALL, self.SECOND)
        assert message.extra["tool_calls"][0] == SENT
        assert message.reasoning == "xy"

    def test_thoughts_without_a_proof_are_kept_apart_by_what_comes_between(self) -> None:
        """Thoughts are separated by a call, media, or an object of the service."""
        for between in (CALL, Media("image", "image/png", b"x"), Other("x", {"a": 1}, in_turn=True)):
            parts = noted(Reasoning("x"), between, Reasoning("y"), "Z").message().parts
            assert [part.get("text") for part in parts if part["type"] == "reasoning"] == ["x", "y"]

    def test_what_the_service_alone_understands(self) -> None:
        """It is an opaque part in its place; objects outside of the turn are left out."""
        search = {"type": "search", "input": {"q": 1}}
        items = "A", Other("noise", {"n": 1}), ServerTool("s", "search", {"q": 1}, None, search), "B"
        parts = noted(*items).message().parts
        assert parts == [
            {"type": "text", "text": "A"},
            {"type": "opaque", "raw": search},
            {"type": "text", "text": "B"},
        ]

    def test_texts_that_are_parts_of_their_own(self) -> None:
        """The service's own object is kept if it holds more, with the text filled in again."""
        raw = {"type": "text", "text": "", "citations": [1]}
        parts = noted("A", "a", EndOfPart(), "B", EndOfPart(raw), EndOfPart(), "C").message().parts
        assert parts == [
            {"type": "text", "text": "Aa"},
            {"type": "text", "text": "B", "raw": raw},
            {"type": "text", "text": "C"},
        ]
        assert noted("A", EndOfPart()).message() == Message("assistant", "A")

    def test_an_object_that_is_not_needed_stays_beside_proven_reasoning_alone(self) -> None:
        """A plain answer stays plain text."""
        raw = {"id": "m", "text": ""}
        assert noted("A", EndOfPart(raw, needed=False)).message() == Message("assistant", "A")
        parts = noted(Reasoning("x", raw={"id": "r"}), "A", EndOfPart(raw, needed=False)).message().parts
        assert parts == [
            {"type": "reasoning", "text": "x", "raw": {"id": "r"}},
            {"type": "text", "text": "A", "raw": raw},
        ]

    def test_media_of_several_pieces_are_one(self) -> None:
        """The joined medium has the place of the first piece; later ones may only add data to send back."""
        pieces = [
            Media("audio", "audio/wav", b"ab", transcript="The ", id="a1"),
            Media("audio", "", b"cd", transcript="bridge", id="a1", raw={"id": "a1"}),
        ]
        notes = noted(pieces[0], "Hi", pieces[1])
        assert notes.media == [Media("audio", "audio/wav", b"abcd", None, "The bridge", "a1")]
        assert notes.message().parts[0] == {
            "type": "input_audio",
            "input_audio": {"data": "YWJjZA==", "format": "wav"},
            "transcript": "The bridge",
            "raw": {"id": "a1"},
        }

    def test_a_call_of_another_kind_says_whose_it_is(self) -> None:
        """Another service gets it as a function call."""
        source: Any = SimpleNamespace(current=SimpleNamespace(provider="played"))
        notes = Notes(TextSoFar(), source)
        notes.note(ToolCall("c", "shell", {"input": "ls"}, "ls", kind="custom"))
        assert notes.message().extra["tool_calls"][0]["by"] == "played"

    def test_two_images_without_a_name_are_two(self) -> None:
        """Even equal ones stay separate."""
        assert len(noted(*[Media("image", "image/png", b"x")] * 2).media) == 2

    def test_a_server_tool_and_its_result_are_one(self) -> None:
        """Both go back."""
        called, gave = ServerTool("s", "search", {"q": 1}, None, {"n": 1}), ServerTool("s", "search", {}, [2], {"n": 2})
        notes = noted(called, gave)
        assert notes.server_tools == [ServerTool("s", "search", {"q": 1}, [2], {"n": 2})]
        assert [part["raw"] for part in notes.message().parts] == [{"n": 1}, {"n": 2}]
        late = noted(ServerTool("s", "search"), ServerTool("s", "search", {"q": 2}, [3]))
        assert late.server_tools == [ServerTool("s", "search", {"q": 2}, [3])]

    def test_a_turn_that_goes_on_is_one(self) -> None:
        """Its tokens are those of both requests."""
        notes = noted("Let me ", Usage(1, 2), Finish("pause", "pause_turn"), NextCall(), "see.", Usage(10, 20), CALLED)
        assert (notes.turn_text, notes.turns, notes.finish) == ("Let me see.", [], CALLED)
        assert notes.usage == Usage(11, 22)

    def test_everything_survives_being_written_down(self) -> None:
        """JSON, pickle and `asdict` keep everything."""
        message = noted(
            Reasoning("x", "s"), CALL, Reasoning("y"), Other("o", {"o": [1]}, in_turn=True), self.SECOND, "Z",
            Media("image", "image/png", b"x", raw={"i": 1}), EndOfPart(),
        ).message()  # fmt: skip
        assert Message.from_dict(json.loads(json.dumps(message.to_dict()))) == message
        assert Message.from_dict(json.loads(json.dumps(dataclasses.asdict(message)))) == message
        assert pickle.loads(pickle.dumps(message)) == message
        assert message.parts == Message.from_dict(message.to_dict()).parts

    def test_a_partial_answer_has_all_of_it(self) -> None:
        """The partial answer of an error."""
        cited = Citation(url="https://a.b/c")
        partial = noted("A", cited, CALL, Media("image", "image/png", b"x"), ServerTool("s", "t")).partial()
        assert (partial.citations, partial.tool_calls) == ((cited,), (CALL,))
        assert (len(partial.media), len(partial.server_tools)) == (1, 1)
        assert partial.message is not None
        assert [part["type"] for part in partial.message.parts] == ["text", "tool_call", "image_url"]
        assert noted().partial().message is None
