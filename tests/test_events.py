"""The events of a stream: small frozen values."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from typing import Any, get_args

import pytest

from llmbridge import Finish, Reasoning, Text, Usage
from llmbridge.events import END, End, FinishReason

EVENTS = [Text("ü"), Reasoning("hm"), Usage(1, 2, raw={"prompt_tokens": 1}), Finish("stop", "end_turn")]


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_an_event_cannot_be_changed(event: Any) -> None:
    """Setting any attribute is an error."""
    for field in dataclasses.fields(event):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, field.name, None)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_an_event_survives_pickling(event: Any, protocol: int) -> None:
    """Fields that a comparison ignores are kept too."""
    twin = pickle.loads(pickle.dumps(event, protocol))
    assert twin == event
    assert dataclasses.asdict(twin) == dataclasses.asdict(event) == dataclasses.asdict(copy.deepcopy(event))


@pytest.mark.parametrize("event", EVENTS, ids=repr)
def test_an_event_takes_no_further_attribute(event: Any) -> None:
    """There are thousands of them, so they have slots."""
    assert not hasattr(event, "__dict__")


def test_the_text_of_an_event_is_its_str() -> None:
    """Printing an event prints its text."""
    assert (str(Text("ü")), str(Reasoning("hm"))) == ("ü", "hm")


def test_text_and_reasoning_are_not_equal() -> None:
    """The same words mean something else in the reasoning."""
    assert Text("a") == Text("a")
    assert Text("a") != Reasoning("a")


class TestUsage:
    """Token counts."""

    def test_the_total_is_the_sum_if_the_service_gave_none(self) -> None:
        """The sum of both parts."""
        assert Usage(input_tokens=11, output_tokens=7).total_tokens == 18

    def test_the_services_own_total_stays(self) -> None:
        """It may include more than the two."""
        assert Usage(input_tokens=11, output_tokens=7, total_tokens=30).total_tokens == 30
        assert Usage(input_tokens=11, output_tokens=7, total_tokens=0).total_tokens == 0

    @pytest.mark.parametrize("usage", [Usage(), Usage(input_tokens=1), Usage(output_tokens=1)], ids=repr)
    def test_nothing_is_estimated(self, usage: Usage) -> None:
        """If one part is unknown, so is the total."""
        assert usage.total_tokens is None

    def test_zero_is_a_count(self) -> None:
        """Zero tokens is not the same as unknown."""
        assert Usage(input_tokens=0, output_tokens=0).total_tokens == 0

    def test_the_raw_object_does_not_show(self) -> None:
        """It can be read, but is not in repr or comparison."""
        usage = Usage(1, 2, raw={"wibble": 1})
        assert usage.raw == {"wibble": 1}
        assert "wibble" not in repr(usage)
        assert usage == Usage(1, 2)

    def test_all_fields_are_unknown_by_default(self) -> None:
        """None, and an empty raw object that is not shared."""
        assert dataclasses.astuple(Usage()) == (None, None, None, None, None, None, {})
        assert Usage().raw is not Usage().raw


class TestUsageTogether:
    """The tokens of two calls, and of two parts of one."""

    @pytest.mark.parametrize(
        ("first", "second", "both"),
        [
            (Usage(1, 2), Usage(10, 20), Usage(11, 22, 33)),
            (Usage(1, 2), None, Usage(1, 2)),
            (Usage(1), Usage(2), Usage(3)),
            (Usage(1, 2), Usage(10), Usage(11, 2, 13)),
            (Usage(total_tokens=3), Usage(total_tokens=4), Usage(total_tokens=7)),
            (Usage(total_tokens=3), Usage(5), Usage(5, None, 3)),
            (Usage(1, 2, 3, 4, 5, 6), Usage(1, 2, 3, 4, 5, 6), Usage(2, 4, 6, 8, 10, 12)),
            (Usage(), Usage(), Usage()),
            (Usage(1, 1, reasoning_tokens=0), Usage(1, 1), Usage(2, 2, reasoning_tokens=0)),
        ],
    )
    def test_what_is_known_is_added(self, first: Usage, second: Usage | None, both: Usage) -> None:
        """A field unknown in both stays unknown."""
        assert first.plus(second) == both

    def test_the_service_s_object_is_the_newer_one(self) -> None:
        """It is still JSON."""
        raw = Usage(1, raw={"a": 1}).plus(Usage(1, raw={"a": 2, "b": 1})).raw
        assert json.loads(json.dumps(raw)) == {"a": 2, "b": 1}

    def test_the_service_s_objects_are_merged(self) -> None:
        """The newer fields win."""
        assert Usage(1, 2, raw={"a": 1, "b": 1}).merged(Usage(1, 3, raw={"b": 2})).raw == {"a": 1, "b": 2}

    def test_counts_that_say_everything_are_taken_as_they_are(self) -> None:
        """Some services count with every piece."""
        newer = Usage(1, 3, raw={"b": 2})
        assert Usage(1, 2, raw={"b": 1}).merged(newer) is newer


class TestFinish:
    """Why an answer ended."""

    def test_the_vocabulary_is_the_documented_one(self) -> None:
        """Seven words for all services."""
        assert get_args(FinishReason) == ("stop", "length", "tool_calls", "content_filter", "pause", "error", "other")

    def test_the_services_own_word_is_kept(self) -> None:
        """Beside the common one; empty if there was none."""
        assert Finish("length", "MAX_TOKENS").raw == "MAX_TOKENS"
        assert Finish("stop").raw == ""


def test_the_end_mark_has_a_name() -> None:
    """Its repr in a debugger."""
    assert repr(END) == "END"
    assert isinstance(END, End)
