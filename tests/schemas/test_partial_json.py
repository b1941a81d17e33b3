"""The value so far of JSON that is still arriving."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge._schemas.partial_json import partial_json

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=12)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=4)),
    max_leaves=12,
)


def is_prefix(part: Any, whole: Any) -> bool:
    """Whether a value can grow into another one only by adding at its end."""
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, list) and isinstance(whole, list):
        complete = part[:-1] == whole[: max(len(part) - 1, 0)]
        return len(part) <= len(whole) and complete and (not part or is_prefix(part[-1], whole[len(part) - 1]))
    if isinstance(part, dict) and isinstance(whole, dict):
        keys, all_keys = list(part), list(whole)
        if keys != all_keys[: len(keys)]:
            return False
        return not keys or (
            all(part[key] == whole[key] for key in keys[:-1]) and is_prefix(part[keys[-1]], whole[keys[-1]])
        )
    return type(part) is type(whole) and bool(part == whole)


@given(
    value=VALUES,
    cut=st.floats(0, 1),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
)
def test_any_cut_gives_a_beginning_of_the_value(value: Any, cut: float, ascii_only: bool, indent: int | None) -> None:
    """Any cut of any spelling shows a beginning of the value; only a number at the root may change."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    part = partial_json(text[: round(cut * len(text))])
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        assert part is None or is_prefix(part, value)


@given(value=VALUES, ascii_only=st.booleans())
def test_the_whole_text_gives_the_whole_value(value: Any, ascii_only: bool) -> None:
    """The whole text gives the whole value."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert partial_json(text) == json.loads(text)
    assert partial_json(f" \n{text}\t ") == value


@given(value=VALUES.filter(lambda value: isinstance(value, (dict, list))))
def test_it_only_grows(value: Any) -> None:
    """A value that was shown is never taken back."""
    text = json.dumps(value)
    before: Any = None
    for end in range(len(text) + 1):
        now = partial_json(text[:end])
        assert before is None or is_prefix(before, now), text[:end]
        before = now


@given(st.text(alphabet='{}[]",:\\u0123456789dDabtruefalsn.-eE \n😀', max_size=40))
def test_no_text_makes_it_fail(text: str) -> None:
    """Invalid JSON gives something or nothing, never an error."""
    partial_json(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("  ", None),
        ("{", {}),
        ('{"a', {}),
        ('{"a"', {}),
        ('{"a":', {}),
        ('{"a": "', {"a": ""}),
        ('{"a": "x', {"a": "x"}),
        ('{"a": "x"', {"a": "x"}),
        ('{"a": "x", "b', {"a": "x"}),
        ('{"a": tru', {}),
        ('{"a": true', {"a": True}),
        ('{"a": 12', {}),
        ('{"a": 12,', {"a": 12}),
        ('{"a": 12}', {"a": 12}),
        ('{"a": -', {}),
        ('{"a": 1.', {}),
        ('{"a": 1e', {}),
        ("[1, 2", [1]),
        ("[1, [", [1, []]),
        ("[[1], {", [[1], {}]),
        ("tru", None),
        ("null", None),
        ("12", 12),
        ("-", None),
        ('"ab', "ab"),
    ],
)
def test_what_is_shown_of_a_cut_text(text: str, value: Any) -> None:
    """Open strings stay; keys without values, half words and incomplete numbers do not."""
    assert partial_json(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a\\', "a"),
        ('"a\\n', "a\n"),
        ('"a\\\\', "a\\"),
        ('"a\\\\\\', "a\\"),
        ('"a\\u', "a"),
        ('"a\\u00e', "a"),
        ('"a\\u00e9', "aé"),
        ('"a\\\\u00', "a\\u00"),
        ('"\\ud83d', ""),
        ('"\\ud83d\\ude0', ""),
        ('"\\ud83d\\ude00', "😀"),
        ('"\\ud83d"', "\ud83d"),
        ('"tab\there', "tab\there"),
    ],
)
def test_half_escapes_are_left_out(text: str, value: str) -> None:
    """Half an escape or surrogate pair is left out; an escaped backslash begins no escape."""
    assert partial_json(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": 1} and more', {"a": 1}),
        ('{"a": 1, oops', {"a": 1}),
        ('{"a": 1 "b"', {"a": 1}),
        ("[1, 2}", [1, 2]),
        ("[1,, 2]", [1]),
        ('{"a": "\\x"}', {}),
        ("[01]", []),
        ("{1: 2}", {}),
        ('{"a" 1}', {}),
        ("]", None),
        (": 1", None),
        ("[" + "9" * 5000 + ", 1]", []),
    ],
)
def test_invalid_json_ends_the_value(text: str, value: Any) -> None:
    """Invalid JSON gives the value up to the error."""
    assert partial_json(text) == value


def test_depth_is_unlimited() -> None:
    """A hundred thousand open brackets are read without recursion."""
    value = partial_json("[" * 100_000)
    depth = 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == 99_999


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda size: '{"a": "' + "x" * size,
        lambda size: '{"a": "' + "\\\\" * size,
        lambda size: "[" + "1, " * size,
        lambda size: '["' + "\\u00e9" * size,
        lambda size: " " * size,
        lambda size: "[" * size,
    ],
    ids=["text", "backslashes", "numbers", "escapes", "spaces", "brackets"],
)
def test_no_text_takes_more_than_linear_time(make: Any) -> None:
    """Half a million characters are read; a quadratic reader would exceed the test's time limit."""
    partial_json(make(500_000))
