"""Repetitions are handed out once, and nothing else is taken for a repetition."""

from __future__ import annotations

from typing import Any

import pytest

from llmbridge import ProtocolError, StreamError
from llmbridge._call.assembly import Assembly
from llmbridge._call.notes import Notes
from llmbridge._call.summary import failed_answer, storable
from llmbridge._text import TextSoFar
from llmbridge.events import (
    Citation,
    Finish,
    Item,
    Logprobs,
    Media,
    MediaDelta,
    Other,
    OtherChoice,
    Reasoning,
    Refusal,
    Summary,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)

STOP, CALLED = Finish("stop", "stop"), Finish("tool_calls", "tool_calls")
PAY = {"name": "pay", "arguments": '{"euros": 5}'}


def pay(id: str, whole: bool = False, **other: Any) -> ToolCallDelta:
    """A call in one piece."""
    return ToolCallDelta(other.pop("index", 0), id, **{**PAY, **other}, whole=whole)


def reads(*each: list[Any]) -> list[Item]:
    """The items handed out of several reads, recorded in between as a stream does."""
    notes = Notes(TextSoFar())
    assembly = Assembly(True, None, notes.items)
    out: list[Item] = []
    for items in each:
        found: list[Item] = []
        for item in items:
            assembly.take(item, found)
        for item in found:
            notes.note(item)
        out += found
    rest: list[Item] = []
    assembly.close(rest)
    return out + rest


@pytest.mark.parametrize("apart", [True, False], ids=["in reads of their own", "in one read"])
class TestSummary:
    """A summary after the pieces, in the same network read or in another."""

    def said(self, apart: bool, pieces: list[Any], *summary: Any) -> list[Item]:
        """The items handed out after the pieces."""
        items = [*pieces, Summary(summary)]
        out = reads(*[[item] for item in items]) if apart else reads(items)
        before = reads(pieces)
        assert out[: len(before)] == before or before[-1] not in out[: len(before)]
        return out[len(before) :]

    @pytest.mark.parametrize(
        ("pieces", "summary", "news"),
        [
            (["The bridge ", "is red."], "The bridge is red.", []),
            (["The bridge "], "The bridge is red.", ["is red."]),
            ([], "The bridge is red.", ["The bridge is red."]),
            (["The bridge is red.  "], "The bridge is red.", []),
            (["Another text"], "The bridge is red.", []),
            (["1", "1"], "11", []),
            (["1", "1"], "111", ["1"]),
            (["aß\U0001f600"], "aß\U0001f600!", ["!"]),
        ],
        ids=range(8),
    )
    def test_text(self, apart: bool, pieces: list[Any], summary: str, news: list[str]) -> None:
        """Only the continuation of the text is handed out."""
        assert self.said(apart, pieces, summary) == news

    def test_text_in_several_parts(self, apart: bool) -> None:
        """The summary may split the text differently."""
        assert self.said(apart, ["The br", "idge"], "The ", "bridge is ", "red.") == [" is ", "red."]

    def test_a_refusal(self, apart: bool) -> None:
        """A refusal comes once, whether it is marked as one or not."""
        assert self.said(apart, [Refusal("I cannot.")], Refusal("I cannot.")) == []
        assert self.said(apart, [], Refusal("I cannot.")) == [Refusal("I cannot.")]

    def test_reasoning(self, apart: bool) -> None:
        """Its text comes once; a signature that only the summary has is handed out."""
        assert self.said(apart, [Reasoning("Hm.")], Reasoning("Hm.")) == []
        assert self.said(apart, [Reasoning("Hm.", "s")], Reasoning("Hm.", "s")) == []
        assert self.said(apart, [Reasoning("Hm.")], Reasoning("Hm.", "s")) == [Reasoning("", "s")]
        assert self.said(apart, ["Yes"], Reasoning("Hm."), "Yes") == [Reasoning("Hm.")]

    def test_calls(self, apart: bool) -> None:
        """A tool runs once, even if the summary gives its call another id."""
        assert self.said(apart, [pay("c1"), CALLED], pay("c1", whole=True)) == []
        assert self.said(apart, [pay("c1"), CALLED], pay("renamed", whole=True)) == []
        assert self.said(apart, [pay("c1"), pay("c2", index=1), CALLED], pay("c1", True), pay("c2", True)) == []

    def test_two_equal_calls_are_two(self, apart: bool) -> None:
        """Two equal calls are two, if the pieces held one of them."""
        news = self.said(apart, [pay("c1"), CALLED], pay("c1", True), pay("c2", True, index=1))
        assert [item.id for item in news if isinstance(item, ToolCall)] == ["c2"]

    def test_a_call_that_only_the_summary_has(self, apart: bool) -> None:
        """A call that only the summary has is handed out, and the finish reason is "tool_calls"."""
        news = self.said(apart, ["Well."], "Well.", pay("c1", True), Finish("stop", "stop"))
        assert [type(item) for item in news] == [ToolCall, Finish]
        assert news[-1] == Finish("tool_calls", "stop")

    def test_the_rest(self, apart: bool) -> None:
        """Tokens count, the first finish stays; media, citations and log probabilities come once."""
        cited, image, odds = Citation(url="https://a.b/c"), Media("image", "image/png", b"x"), Logprobs((1,))
        pieces = ["Hi", cited, image, odds, STOP]
        assert self.said(apart, pieces, "Hi", cited, image, odds, Usage(1, 2), STOP) == [Usage(1, 2)]
        assert self.said(apart, ["Hi"], "Hi", cited, image, odds, STOP) == [cited, image, STOP]

    def test_other_choices(self, apart: bool) -> None:
        """Each choice has its own summary."""
        pieces = ["a", OtherChoice(1, Text("b"))]
        items = [OtherChoice.of(1, Summary(["bc"])), OtherChoice.of(2, Summary(["d"])), Summary(["a"])]
        out = reads(*[[item] for item in [*pieces, *items]]) if apart else reads([*pieces, *items])
        assert out == ["a", OtherChoice(1, Text("b")), OtherChoice(1, Text("c")), OtherChoice(2, Text("d"))]


def test_tags_in_a_summary_are_not_text() -> None:
    """Tags in a summary are reasoning, as in any other answer."""
    assert reads(["<think>Hm.</think>Yes"], [Summary(["<think>Hm.</think>Yes, red."])]) == [
        Reasoning("Hm."),
        "Yes",
        ", red.",
    ]


def test_reasoning_in_a_field_and_in_tags_comes_once() -> None:
    """The field wins, wherever the tags are split."""
    chunks: list[list[Any]] = [[Reasoning("Hm"), "<thi"], [Reasoning(" yes."), "nk>Hm yes.</th"], ["ink>\n\nRed."]]
    assert reads(*chunks) == [Reasoning("Hm"), Reasoning(" yes."), "Red."]


def test_reasoning_in_tags_and_then_in_a_field_comes_once() -> None:
    """The first one is handed out; a signature is new."""
    chunks: list[list[Any]] = [["<think>Hm"], [Reasoning("Hm"), " yes.</think>"], [Reasoning(" yes.", "s"), "Red."]]
    assert reads(*chunks) == [Reasoning("Hm"), Reasoning(" yes.", "s"), "Red."]


def test_a_failed_answer_is_an_error_with_the_services_words() -> None:
    """It is retryable if the dialect says so."""
    error = failed_answer(Finish("error", "MALFORMED_FUNCTION_CALL", "no such call", again=True))
    assert isinstance(error, StreamError)
    assert "no such call" in error.message
    assert (error.code, error.retryable) == ("MALFORMED_FUNCTION_CALL", True)
    assert not failed_answer(Finish("error", "abort")).retryable
    assert "'abort'" in failed_answer(Finish("error", "abort")).message


def test_an_end_that_is_an_error_is_raised() -> None:
    """A failed end is raised for the first choice, and handed out for another."""
    assembly = Assembly()
    found: list[Item] = []
    assembly.take(OtherChoice(1, Finish("error", "x")), found)
    assert (found, assembly.failure) == ([OtherChoice(1, Finish("error", "x"))], None)
    assembly.take(Finish("error", "x"), found)
    assert isinstance(assembly.failure, StreamError)


class TestStorable:
    """A service's own objects can be stored, sent and saved."""

    @pytest.mark.parametrize(
        ("raw", "kept"),
        [
            ({"a": [1, 1.5, None, True, "x"]}, {"a": [1, 1.5, None, True, "x"]}),
            ({"a": float("inf"), "b": [float("nan")]}, {"a": None, "b": [None]}),
            ({"\ud83d": "\ud83d\ude00"}, {"�": "😀"}),
        ],
        ids=range(3),
    )
    def test_what_json_and_utf8_can_carry(self, raw: Any, kept: Any) -> None:
        """Everything else is unchanged."""
        assert storable(raw) == kept
        assert storable(Other("x", raw)) == Other("x", kept)

    def test_not_without_an_end(self) -> None:
        """Endless nesting is rejected on arrival."""
        deep: Any = {}
        for _ in range(200):
            deep = {"a": deep}
        with pytest.raises(ProtocolError, match="nested too deeply"):
            storable(Other("x", deep))


@pytest.mark.parametrize(
    ("items", "thoughts"),
    [
        (["<think>Hm.</think>", Reasoning("Hm."), "4"], "Hm."),
        (["<think>H", Reasoning("H"), "m.", Reasoning("m."), "</think>4"], "Hm."),
        (["<think>\nHm.\n</think>", Reasoning("Hm."), Reasoning(" So 4."), "4"], "\nHm.\n So 4."),
        (["<think>Hm.</think>", Reasoning("Oh."), "4"], "Hm.Oh."),
    ],
)
def test_reasoning_in_a_field_behind_the_same_between_tags(items: list[Any], thoughts: str) -> None:
    """The same reasoning comes once; other reasoning is handed out."""
    for found in (reads(items), reads(*[[item] for item in items])):
        assert "".join(item.text for item in found if isinstance(item, Reasoning)) == thoughts
        assert "".join(item for item in found if isinstance(item, str)) == "4"


def test_sound_of_which_the_pieces_are_known() -> None:
    """The summary has the complete audio; only the missing rest is handed out."""
    pieces = [MediaDelta("audio", "audio/wav", "UklG", "H", "a"), MediaDelta("audio", "audio/wav", "RgAA", "i", "a")]
    assert reads(pieces, [Summary([MediaDelta("audio", "audio/wav", "UklGRgAA", "Hi", "a"), STOP])])[-1] == STOP
    (*_, news, end) = reads(pieces, [Summary([MediaDelta("audio", "audio/wav", "AAAA", "Hi", "a"), STOP])])
    assert (news, end) == (Media("audio", "audio/wav", b"\0\0\0", id="a"), STOP)


def test_the_address_alone_of_a_source_that_is_known() -> None:
    """A source with only its address is ignored if known, and replaced by a later, complete one."""
    bare, known = Citation("https://a.example"), Citation("https://a.example", title="A", start=0, end=1)
    assert reads([known], [bare]) == [known]
    assert reads(["Hi"], [Summary(["Hi", known, STOP]), bare]) == ["Hi", known, STOP]
    notes = Notes(TextSoFar())
    for item in reads([bare], [known]):
        notes.note(item)
    assert notes.citations == [known]
