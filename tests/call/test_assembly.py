"""The decoded items repaired: texts, reasoning, calls, tokens, the end, and other choices."""

from __future__ import annotations

import itertools
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge import ProtocolError
from llmbridge._call.assembly import Assembly
from llmbridge.events import (
    Citation,
    EndOfPart,
    Finish,
    Logprobs,
    Media,
    MediaDelta,
    Other,
    OtherChoice,
    Reasoning,
    Refusal,
    Text,
    ToolCall,
    ToolCallDelta,
    Usage,
)

D = ToolCallDelta
HIGH, LOW, SIGN = "\ud83c", "\udf0d", "\N{REPLACEMENT CHARACTER}"
STOP, CALLED = Finish("stop", "stop"), Finish("tool_calls", "tool_calls")


def whole(*items: Any, think_tags: bool = False, answer_tool: str | None = None, cut: bool = False) -> list[Any]:
    """The repaired items, including those held back until the end."""
    assembly = Assembly(think_tags, answer_tool)
    found: list[Any] = []
    for item in items:
        assembly.take(item, found)
    assembly.close(found, cut)
    return found


def call(
    id: str = "a", name: str = "f", arguments: Any = None, text: str = "{}", problem: str | None = None
) -> ToolCall:
    """An expected call."""
    return ToolCall(id, name, arguments or {}, text, problem)


class TestText:
    """P5: all text is valid UTF-8."""

    @pytest.mark.parametrize("kind", [str, Reasoning, Refusal], ids=["text", "reasoning", "refusal"])
    def test_halves_of_a_pair_are_joined(self, kind: Any) -> None:
        """A pair that is split over several pieces is joined."""
        assert whole(kind(f"a{HIGH}"), kind(f"{LOW}b")) == [kind("a"), kind("🌍b")]

    @pytest.mark.parametrize("kind", [str, Reasoning, Refusal], ids=["text", "reasoning", "refusal"])
    def test_a_half_that_stays_alone_becomes_a_sign(self, kind: Any) -> None:
        """A lone half becomes U+FFFD, before the end."""
        assert whole(kind(HIGH), STOP) == [kind(SIGN), STOP]
        assert whole(kind(HIGH)) == [kind(SIGN)]
        assert whole(kind(LOW), kind(HIGH + HIGH)) == [kind(SIGN), kind(SIGN), kind(SIGN)]

    def test_halves_of_different_kinds_do_not_form_a_pair(self) -> None:
        """Halves in reasoning and in text do not form a pair."""
        assert whole(Reasoning(HIGH), LOW) == [SIGN, Reasoning(SIGN)]

    def test_halves_in_other_choices(self) -> None:
        """The halves of each choice are joined separately."""
        items = [OtherChoice(1, Text(HIGH)), OtherChoice(2, Text(HIGH)), OtherChoice(1, Text(LOW))]
        assert whole(*items) == [OtherChoice(1, Text("🌍")), OtherChoice(2, Text(SIGN))]

    def test_halves_in_all_that_a_service_names(self) -> None:
        """Names, signatures and a service's own objects are repaired too."""
        assert whole(Finish("other", HIGH)) == [Finish("other", SIGN)]
        assert whole(Reasoning("", signature=HIGH)) == [Reasoning("", signature=SIGN)]
        assert whole(Reasoning("", redacted=HIGH)) == [Reasoning("", redacted=SIGN)]
        assert whole(Logprobs(({"token": HIGH},))) == [Logprobs(({"token": SIGN},))]
        (usage,) = whole(Usage(1, 2, raw={HIGH: [HIGH]}))
        assert usage.raw == {SIGN: [SIGN]}

    def test_a_service_s_own_objects_are_not_copied(self) -> None:
        """A service's own objects are not copied if they need no repair."""
        logprobs, usage = Logprobs(({"token": "ü"},)), Usage(1, 2, raw={"a": 1})
        assert whole(logprobs)[0] is logprobs
        assert whole(usage)[0] is usage

    def test_endless_nesting_is_a_protocol_error(self) -> None:
        """P10: endless nesting is a ProtocolError, not a RecursionError."""
        nest: Any = []
        for _ in range(100_000):
            nest = [nest]
        with pytest.raises(ProtocolError):
            whole(Usage(1, 2, raw={"a": nest}))
        while nest:  # taken apart from outside, or CPython's own recursion would be deep
            nest = nest.pop()

    def test_nothing_empty_is_handed_out(self) -> None:
        """Empty text, reasoning and refusals are dropped."""
        assert whole("", Reasoning(""), Refusal(""), D(0), OtherChoice(1, Text(""))) == []

    def test_plain_says_when_nothing_can_be_wrong(self) -> None:
        """`plain` allows ASCII pieces to skip the repair."""
        assembly, items = Assembly(), []  # type: ignore[var-annotated]
        assert assembly.plain
        assembly.take(HIGH, items)
        assert not assembly.plain
        assembly.take(LOW, items)
        assert assembly.plain
        assert items == ["🌍"]


class TestThinkTags:
    """Reasoning inside the text."""

    def test_text_is_handed_out_piece_by_piece(self) -> None:
        """Once a piece cannot begin a tag, text is handed out piece by piece."""
        assembly, items = Assembly(think_tags=True), []  # type: ignore[var-annotated]
        assert not assembly.plain
        assembly.take("Hel", items)
        assert items == ["Hel"]
        assert assembly.plain

    def test_reasoning_and_text_in_one_piece(self) -> None:
        """Reasoning and text in one piece come in order."""
        assert whole("<think>a</think>b", think_tags=True) == [Reasoning("a"), "b"]

    def test_without_tags_they_are_text(self) -> None:
        """Tags stay text for services that never write any."""
        assert whole("<think>a</think>b") == ["<think>a</think>b"]

    def test_halves_over_tags(self) -> None:
        """Reasoning and text each join their own halves."""
        pieces = f"<think>{HIGH}", f"{LOW}</think>{HIGH}", LOW
        assert whole(*pieces, think_tags=True) == [Reasoning("🌍"), "🌍"]

    @pytest.mark.parametrize("item", [STOP, D(0, "a", "f")], ids=["end", "call"])
    def test_what_might_have_begun_a_tag_comes_before(self, item: Any) -> None:
        """A possible beginning of a tag is handed out before the end, or before a call."""
        assert whole("<thi", item, think_tags=True)[:2] == ["<thi", item]

    def test_an_end_with_each_piece_does_not_end_the_reasoning(self) -> None:
        """Some services send a finish with each piece."""
        assert whole("<think>a", STOP, "b</think>c", STOP, think_tags=True) == [
            Reasoning("a"),
            STOP,
            Reasoning("b"),
            "c",
            STOP,
        ]

    def test_never_closed(self) -> None:
        """An answer whose tag is never closed is all reasoning."""
        assert whole("<think>a</", think_tags=True) == [Reasoning("a"), Reasoning("</")]

    def test_in_other_choices(self) -> None:
        """Tags in other choices work as in the first."""
        items = [OtherChoice(1, Text("<thi")), OtherChoice(1, Text("nk>a</think>b"))]
        assert whole(*items, think_tags=True) == [OtherChoice(1, Reasoning("a")), OtherChoice(1, Text("b"))]


class TestCalls:
    """Tool calls from their pieces."""

    def test_a_call_comes_whole_before_the_end(self) -> None:
        """A call follows its pieces, before the end."""
        first, second = D(0, "a", "f", "{"), D(0, arguments="}")
        assert whole(first, second, CALLED) == [first, second, call(), CALLED]

    def test_a_call_without_an_end(self) -> None:
        """A call without an end comes when the answer is over."""
        assert whole(D(0, "a", "f", "{}")) == [D(0, "a", "f", "{}"), call()]

    def test_an_end_before_the_last_piece(self) -> None:
        """An incomplete call waits for its last piece; a complete one does not."""
        first, second, third = D(0, "a", "f", "{}"), D(1, "b", "f", '{"x"'), D(1, arguments=": 1}")
        assert whole(first, second, STOP, third, STOP) == [
            first,
            second,
            call(),
            Finish("tool_calls", "stop"),
            third,
            call("b", "f", {"x": 1}, '{"x": 1}'),
            Finish("tool_calls", "stop"),
        ]

    def test_an_end_with_each_call(self) -> None:
        """Each call comes once, although a finish follows each of them."""
        items = whole(D(None, "a", "f", "{}", whole=True), STOP, D(None, "b", "f", "{}", whole=True), STOP)
        assert [item for item in items if isinstance(item, ToolCall)] == [call("a"), call("b")]

    def test_a_call_that_has_not_begun_goes_on_behind_a_reason_to_finish(self) -> None:
        """Some servers send a finish with every chunk."""
        items = whole(D(0, "a", "f"), STOP, D(0, arguments='{"x": '), STOP, D(0, arguments="1}"), STOP)
        assert [item for item in items if isinstance(item, ToolCall)] == [call(arguments={"x": 1}, text='{"x": 1}')]

    def test_a_call_repeated_after_the_end_is_dropped(self) -> None:
        """A call with the same id and arguments is a repetition; other arguments make another call."""
        again = D(0, "a", "f", '{"x": 1}')
        items = whole(again, CALLED, again, CALLED, D(0, "a", "f", '{"x": 2}'), CALLED)
        assert [item.arguments for item in items if isinstance(item, ToolCall)] == [{"x": 1}, {"x": 2}]

    def test_a_call_comes_when_it_is_over(self) -> None:
        """Text after a call comes after it."""
        items = whole(D(0, "a", "f", "{}"), D(0, whole=True), Reasoning("x"), D(1, "b", "f", "{}", whole=True), "Y")
        kinds = [type(item) for item in items if not isinstance(item, ToolCallDelta)]
        assert kinds == [ToolCall, Reasoning, ToolCall, str]

    @pytest.mark.parametrize("reason", ["length", "content_filter"])
    def test_an_answer_that_was_cut_off(self, reason: Any) -> None:
        """The call has a `problem`, and comes before the end."""
        items = whole(D(0, "a", "f", '{"x": "y'), Finish(reason, reason))
        assert items[1].problem == "the answer was cut off inside the arguments"
        assert items[2:] == [Finish(reason, reason)]

    def test_an_answer_that_broke_off(self) -> None:
        """The call has the same `problem` after a lost connection."""
        assert whole(D(0, "a", "f", "{"), cut=True)[1].problem == "the answer was cut off inside the arguments"

    @pytest.mark.parametrize("raw", ["stop", "other", "STOP"])
    def test_an_end_after_calls_says_so(self, raw: str) -> None:
        """The finish reason is "tool_calls", although some services say "stop"."""
        finish = Finish("other" if raw == "other" else "stop", raw)
        assert whole(D(0, "a", "f", "{}"), finish)[-1] == Finish("tool_calls", raw)

    def test_an_end_without_calls_is_left_as_it_is(self) -> None:
        """A finish without calls is unchanged."""
        assert whole("Hi", STOP) == ["Hi", STOP]
        assert whole(D(0), STOP) == [STOP]

    def test_calls_of_other_choices(self) -> None:
        """Calls of several choices may be interleaved."""
        items = [D(0, "a", "f", "{"), OtherChoice(1, D(0, "b", "g", "{")), D(0, arguments="}")]
        items += [OtherChoice(1, D(0, arguments="}")), STOP, OtherChoice(1, STOP)]
        found = whole(*items)
        assert [item for item in found if isinstance(item, ToolCall)] == [call()]
        assert found[-2:] == [OtherChoice(1, call("b", "g")), OtherChoice(1, Finish("tool_calls", "stop"))]

    def test_calls_of_other_choices_without_an_end(self) -> None:
        """The calls of other choices come when the answer is over."""
        assert whole(OtherChoice(1, D(0, "b", "g", "{}")))[1:] == [OtherChoice(1, call("b", "g"))]

    def test_the_last_end_is_kept(self) -> None:
        """`finish` is the last one that was handed out."""
        assembly, items = Assembly(), []  # type: ignore[var-annotated]
        for item in (D(0, "a", "f", "{}"), STOP):
            assembly.take(item, items)
        assert assembly.finish == items[-1] == Finish("tool_calls", "stop")


class TestAnswerTool:
    """The tool whose arguments are the answer."""

    def test_its_arguments_are_text(self) -> None:
        """Its arguments are streamed as text, and the finish is a plain one."""
        items = [D(0, "a", "answer"), D(0, arguments='{"x":'), D(0, arguments=" 1}"), CALLED]
        assert whole(*items, answer_tool="answer") == ['{"x":', " 1}", Finish("stop", "tool_calls")]

    def test_other_calls_stay_calls(self) -> None:
        """Other calls stay calls, even interleaved with the answer's pieces."""
        items = [D(0, "a", "f", "{"), D(1, "b", "answer", "{"), D(0, arguments="}"), D(1, arguments="}"), CALLED]
        found = whole(*items, answer_tool="answer")
        assert found == [D(0, "a", "f", "{"), "{", D(0, arguments="}"), "}", call(), CALLED]

    def test_without_an_index(self) -> None:
        """A piece without index and name continues the last call."""
        items = [D(None, "a", "answer"), D(arguments="{}"), D(None, "b", "f"), D(arguments="{}")]
        assert whole(*items, answer_tool="answer")[0] == "{}"
        assert whole(*items, answer_tool="answer")[-1] == call("b")

    def test_names_with_every_piece(self) -> None:
        """llama-cpp-python sends the name with every piece."""
        items = [D(0, "a", "answer", "{"), D(0, "a", "answer", "}")]
        assert whole(*items, answer_tool="answer") == ["{", "}"]

    def test_halves_of_a_pair(self) -> None:
        """Split pairs in the arguments are joined like any other text."""
        assert whole(D(0, "a", "t", HIGH), D(0, arguments=LOW), answer_tool="t") == ["🌍"]

    def test_in_other_choices(self) -> None:
        """Other choices work as the first."""
        assert whole(OtherChoice(1, D(0, "a", "t", "{}")), answer_tool="t") == [OtherChoice(1, Text("{}"))]


class TestUsage:
    """Token counts in several parts."""

    @pytest.mark.parametrize(
        ("known", "newer", "both"),
        [
            (Usage(10, 1), Usage(output_tokens=5), Usage(10, 5, 15)),
            (Usage(10, 1), Usage(12, 5), Usage(12, 5, 17)),
            (Usage(10), Usage(output_tokens=5), Usage(10, 5, 15)),
            (Usage(10, 1, 11), Usage(10, 5, 99), Usage(10, 5, 99)),
            (Usage(total_tokens=7), Usage(3), Usage(3, None, 7)),
            (Usage(10, 1, cached_input_tokens=4), Usage(reasoning_tokens=2), Usage(10, 1, 11, 4, None, 2)),
            (Usage(10, 1), Usage(output_tokens=0), Usage(10, 0, 10)),
        ],
    )
    def test_the_newer_counts_win(self, known: Usage, newer: Usage, both: Usage) -> None:
        """Newer counts replace older ones, unless they are empty."""
        assert known.merged(newer) == both
        assert whole(known, newer) == [known, both]

    def test_the_first_is_as_it_is(self) -> None:
        """The first count is unchanged."""
        usage = Usage(1)
        assert whole(usage)[0] is usage


class TestMedia:
    """Bytes decoded from base64 that is split anywhere."""

    ENCODED = b64encode(bytes(range(256))).decode()

    @given(st.lists(st.integers(0, 344), max_size=8))
    def test_any_cut(self, cuts: list[int]) -> None:
        """Any split gives the same bytes."""
        places = [0, *sorted(cuts), len(self.ENCODED)]
        pieces = [MediaDelta("audio", "", self.ENCODED[a:b]) for a, b in itertools.pairwise(places)]
        found = whole(*pieces)
        assert b"".join(item.data for item in found) == bytes(range(256))
        assert {item.mime for item in found if item.data} == {"audio/pcm"}

    @pytest.mark.parametrize(
        ("pieces", "data"),
        [
            (["YWI="], b"ab"),
            (["YW", "I"], b"ab"),
            (["YQ==", "Yg=="], b"ab"),
            (["YQ==Yg=="], b"ab"),
            (["Y\nW", " I="], b"ab"),
        ],
        ids=range(5),
    )
    def test_padding_and_white_space(self, pieces: list[str], data: bytes) -> None:
        """Padding may be missing, or follow each piece; lines may be broken."""
        found = whole(*(MediaDelta("image", "image/png", piece) for piece in pieces))
        assert b"".join(item.data for item in found) == data

    def test_invalid_base64_is_not_lost(self) -> None:
        """Invalid base64 is kept unchanged."""
        assert whole(MediaDelta("image", "image/png", "a", raw={"id": 1})) == [
            Media("image", "image/png", raw={"id": 1}),
            Other("image", {"data": "a==="}),
        ]

    def test_words_come_as_they_are_spoken(self) -> None:
        """Transcripts come with or without sound; ids distinguish two sounds."""
        assert whole(
            MediaDelta("audio", transcript="Hi", id="a"), MediaDelta("audio", data="UklGRjEyMzRXQVZF", id="b")
        ) == [
            Media("audio", transcript="Hi", id="a"),
            Media("audio", "audio/wav", b"RIFF1234WAVE", id="b"),
        ]


def test_a_source_comes_once() -> None:
    """Some services send the whole list of sources with every piece."""
    cited, other = Citation(url="https://a.b"), Citation(url="https://a.b", quote="x")
    assert whole(cited, "Hi", cited, other, Citation(url="https://a.b", raw={"n": 2})) == [cited, "Hi", other]


def test_the_end_of_a_part_ends_half_a_pair() -> None:
    """The end of a part also ends a possible tag."""
    end = EndOfPart()
    assert whole(HIGH, end, LOW) == [SIGN, end, SIGN]
    assert whole("<thi", end, "nk>", think_tags=True) == ["<thi", end, "nk>"]
