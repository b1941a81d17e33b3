"""Reasoning between tags at the beginning of an answer, separated from the text however the pieces are split."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge._call.assembly import ThinkTags
from llmbridge.events import Reasoning


def told(pieces: Iterable[str]) -> tuple[str, str]:
    """All reasoning and all text of the pieces."""
    tags = ThinkTags()
    items = [item for piece in pieces for item in tags(piece)] + tags.rest()
    assert "" not in items
    assert Reasoning("") not in items
    return (
        "".join(item.text for item in items if isinstance(item, Reasoning)),
        "".join(item for item in items if isinstance(item, str)),
    )


# Name: the whole answer, its reasoning and its text.
ANSWERS = {
    "no tags": ("Hello <b>you</b>", "", "Hello <b>you</b>"),
    "tags": ("<think>Hm.</think>4", "Hm.", "4"),
    "white space around the tags": (" \n<think>Hm.</think>\n\n4\n", "Hm.", "4\n"),
    "white space inside the tags": ("<think>\nHm.\n</think>4", "\nHm.\n", "4"),
    "nothing inside": ("<think></think>4", "", "4"),
    "nothing behind": ("<think>Hm.</think>\n", "Hm.", ""),
    "never closed": ("<think>Hm. 2 < 3 </thin", "Hm. 2 < 3 </thin", ""),
    "thinking": ("<thinking>Hm.</think></thinking>4", "Hm.</think>", "4"),
    "reasoning": ("<reasoning>Hm.</reasoning>4", "Hm.", "4"),
    "a tag that is none": ("<thinker>4", "", "<thinker>4"),
    "the beginning of a tag": ("<thi", "", "<thi"),
    "a tag in the middle": ("4 <think>no</think>", "", "4 <think>no</think>"),
    "a tag behind the tags": ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
    "nearly the end": ("<think><</</t</think</think>4", "<</</t</think", "4"),
    "leading white space": ("  \n Hi", "", "  \n Hi"),
    "white space alone": (" \n ", "", " \n "),
    "nothing": ("", "", ""),
}


class TestTags:
    """Reasoning and text."""

    @pytest.mark.parametrize("case", ANSWERS)
    def test_an_answer_whole_and_character_by_character(self, case: str) -> None:
        """An answer read whole or character by character is the same."""
        answer, reasoning, text = ANSWERS[case]
        assert told([answer]) == (reasoning, text)
        assert told(answer) == (reasoning, text)

    @given(
        parts=st.lists(
            st.sampled_from(["<think>", "</think>", "<thinking>", "</", "<", ">", "th", "ink", " ", "\n", "a"]),
            max_size=12,
        ),
        sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    )
    def test_any_cut_says_the_same(self, parts: list[str], sizes: list[int]) -> None:
        """Tags may be split anywhere."""
        answer = "".join(parts)
        pieces: list[str] = []
        rest = answer
        while rest:
            size = sizes[len(pieces) % len(sizes)]
            pieces.append(rest[:size])
            rest = rest[size:]
        assert told(pieces) == told([answer])

    @pytest.mark.slow
    @given(st.text(max_size=20))
    def test_an_answer_without_tags_is_unchanged(self, text: str) -> None:
        """White space is unchanged too."""
        if "<think" not in text and "<reasoning" not in text:
            assert told(text) == ("", text)


class TestLive:
    """Nothing is held back longer than necessary."""

    @pytest.mark.parametrize("first", ["H", "Hello", "4 < 5", "<b>", "< think>", " Hi", "\nHi"])
    def test_text_comes_at_once(self, first: str) -> None:
        """The first piece that cannot begin a tag is handed out, and every later one."""
        tags = ThinkTags()
        assert tags(first) == [first]
        assert tags.done
        assert tags("<think>") == ["<think>"]

    def test_reasoning_comes_at_once(self) -> None:
        """Only a possible beginning of the closing tag is held back."""
        tags = ThinkTags()
        assert tags("<think>Hm, ") == [Reasoning("Hm, ")]
        assert tags("a < b </") == [Reasoning("a < b ")]
        assert tags("b> ") == [Reasoning("</b> ")]
        assert tags("so</think> ") == [Reasoning("so")]
        assert tags("\n") == []
        assert tags(" 4 ") == ["4 "]
        assert tags.done

    def test_both_in_one_piece(self) -> None:
        """Reasoning and text in one piece come in order."""
        assert ThinkTags()("<think>Hm.</think> 4") == [Reasoning("Hm."), "4"]

    def test_endless_white_space_is_not_waited_for(self) -> None:
        """Endless white space is handed out, in linear time."""
        tags = ThinkTags()
        handed_out = [item for _ in range(50_000) for item in tags("\n")]
        assert len("".join(map(str, handed_out))) == 50_000
        assert tags.done

    def test_what_is_held_back_can_be_asked_for(self) -> None:
        """Before a call, the text that was held back was not a tag."""
        tags = ThinkTags()
        assert tags("<thi") == []
        assert tags.rest() == ["<thi"]
        assert tags.done
        assert tags.rest() == []

    def test_rest_does_not_end_the_reasoning(self) -> None:
        """The closing tag may still come."""
        tags = ThinkTags()
        assert tags("<think>a</") == [Reasoning("a")]
        assert tags.rest() == [Reasoning("</")]
        assert tags("b</think>4") == [Reasoning("b"), "4"]
