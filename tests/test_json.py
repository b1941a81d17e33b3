"""What is remembered of JSON."""

from __future__ import annotations

from typing import Any

import pytest

from llmbridge._json import remembered


@pytest.fixture
def made() -> list[Any]:
    """What `twice` was called with."""
    return []


@pytest.fixture
def twice(made: list[Any]) -> Any:
    """A function that is remembered."""

    @remembered
    def double(value: Any) -> Any:
        made.append(value)
        return [value, value]

    return double


def test_a_result_is_remembered(twice: Any, made: list[Any]) -> None:
    """Each call has its own, whatever the others do with theirs."""
    for _ in range(3):
        found = twice({"a": 1})
        assert found == [{"a": 1}, {"a": 1}]
        found.clear()
    assert made == [{"a": 1}]


@pytest.mark.parametrize("value", ["x" * 70_000, {1, 2}], ids=["very long", "not JSON"])
def test_some_results_are_made_each_time(twice: Any, made: list[Any], value: Any) -> None:
    """What is very long would fill the memory."""
    assert twice(value) == twice(value) == [value, value]
    assert len(made) == 2


def test_the_order_of_keys_counts(twice: Any, made: list[Any]) -> None:
    """Models write their answers in the order of the schema."""
    orders = [list(twice(value)[0]) for value in ({"a": 1, "b": 2}, {"b": 2, "a": 1})]
    assert orders == [["a", "b"], ["b", "a"]]
    assert len(made) == 2
