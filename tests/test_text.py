"""Halves of surrogate pairs: joined over pieces, replaced if alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge._text import SurrogateMender

# UTF-16 code units and what they mean: ordinary text, pairs, halves.
UNITS = st.lists(
    st.sampled_from(["a", "ü", "世", "\ud83d", "\ude00", "\ud800", "\udbff", "\udc00", "\udfff", "🌍"]), max_size=12
)


def mended(pieces: list[str]) -> str:
    """The whole output, including the rest."""
    mend = SurrogateMender()
    return "".join([mend(piece) for piece in pieces] + mend.rest())


@pytest.mark.parametrize("text", ["Hello", "Grüße, 世界 🌍!", "\x00", "\U0010ffff", "e\u0301"])
def test_whole_text_passes_unchanged(text: str) -> None:
    """Nothing is held back, nothing normalized."""
    mend = SurrogateMender()
    assert mend(text) == text
    assert mend.rest() == []


def test_a_pair_in_one_piece_becomes_its_character() -> None:
    r"""JSON's `\ud83d\ude00` may arrive as two code points."""
    assert mended(["a\ud83d\ude00b"]) == "a😀b"


def test_a_pair_over_two_pieces_is_joined() -> None:
    """The first half is held back."""
    mend = SurrogateMender()
    assert mend("Hi \ud83d") == "Hi "
    assert mend("\ude00!") == "😀!"
    assert mend.rest() == []


def test_a_first_half_alone_waits_as_nothing() -> None:
    """A piece that is only that half gives no text yet."""
    mend = SurrogateMender()
    assert [mend("\ud83d"), mend("\ude00")] == ["", "😀"]


def test_a_first_half_before_other_text_is_replaced() -> None:
    """Its second half did not come."""
    assert mended(["a\ud83d", "b"]) == "a\ufffdb"
    assert mended(["a\ud83db"]) == "a\ufffdb"


def test_a_second_half_alone_is_replaced_at_once() -> None:
    """There is nothing to wait for."""
    mend = SurrogateMender()
    assert mend("\ude00!") == "\ufffd!"


def test_two_first_halves_are_one_replacement_and_a_pair() -> None:
    """The second one has its other half."""
    assert mended(["\ud83d", "\ud83d", "\ude00"]) == "\ufffd😀"


def test_a_first_half_at_the_end_is_the_rest() -> None:
    """Once, and then no more."""
    mend = SurrogateMender()
    mend("x\ud83d")
    assert mend.rest() == ["\ufffd"]
    assert mend.rest() == []


@given(units=UNITS, cuts=st.lists(st.integers(1, 4), max_size=12))
def test_any_cut_gives_the_same_text(units: list[str], cuts: list[int]) -> None:
    """P1 for halves of characters; the output can always be encoded."""
    text = "".join(units)
    pieces, rest = [], text
    for size in cuts:
        pieces.append(rest[:size])
        rest = rest[size:]
    pieces = [piece for piece in [*pieces, rest] if piece]
    expected = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    mend = SurrogateMender()
    out = [mend(piece) for piece in pieces]
    for piece in out:
        piece.encode("utf-8")
    assert "".join(out + mend.rest()) == expected
