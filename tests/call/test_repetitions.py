"""Pieces that continue the one before, and pieces that only repeat it."""

from __future__ import annotations

from typing import Any

import pytest

from llmbridge._call.assembly import Assembly
from llmbridge.events import Finish, Media, MediaDelta, Summary

STOP = Finish("stop", "stop")


def test_sound_without_a_name_goes_on_with_the_sound_before() -> None:
    """Only the first piece has an id; bytes may be split anywhere, and begin with too few to detect their type."""
    assembly, found = Assembly(), []  # type: ignore[var-annotated]
    for piece in (MediaDelta("audio", transcript="Hi", id="a"), *(MediaDelta("audio", data=d) for d in "UklGRjEyM")):
        assembly.take(piece, found)
    for data in ("zRXQVZFAA", "A"):
        assembly.take(MediaDelta("audio", data=data), found)
    assembly.close(found)
    assert found[0] == Media("audio", transcript="Hi", id="a")
    assert b"".join(item.data for item in found) == b"RIFF1234WAVE\0\0"
    assert {(item.id, item.mime) for item in found[1:]} == {("a", "audio/wav")}


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ((["The "], ["bridge"], ["."]), "The bridge."),
        ((["The "], ["The bridge"], ["The bridge."]), "The bridge."),
        ((["1"], ["1"]), "11"),
        ((["The "], ["bridge."], ["The bridge.", STOP]), "The bridge."),
        ((["The "], ["bridge.", STOP]), "The bridge."),
        ((["The bridge.\n"], ["The bridge.", STOP]), "The bridge.\n"),
    ],
    ids=range(6),
)
def test_what_may_be_a_summary_is_what_it_begins_like(pieces: Any, text: str) -> None:
    """Nothing is lost, and nothing repeated."""
    told: list[Any] = []
    assembly = Assembly(told=lambda: told)
    for piece in pieces:
        items: list[Any] = []
        assembly.take(Summary(piece, certain=False), items)
        told += items
    assert "".join(item for item in told if isinstance(item, str)) == text
