"""What the dialects share: finish reasons in the words of any of them."""

from __future__ import annotations

from typing import Any

import pytest
from modes import Mode

from llmbridge import Client, StreamError, StreamTruncated
from llmbridge.events import Finish
from llmbridge.providers._values import finish_of
from llmbridge.testing import LLMServer, Reply


def reasons(word: Any) -> list[str]:
    """The reasons for a word, in a dialect without words of its own."""
    return [finish.reason for finish in finish_of(word, {})]


@pytest.mark.parametrize("word", ["null", "None", "NULL", "", " ", "not_finished", None, 7, True, [], {"a": 1}])
def test_empty_words_are_not_a_finish(word: Any) -> None:
    """The answer continues."""
    assert reasons(word) == []


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("stop", "stop"),
        ("STOP", "stop"),
        ("end_turn", "stop"),
        ("COMPLETE", "stop"),
        ("MAX_TOKENS", "length"),
        ("max_output_tokens", "length"),
        ("tool-calls", "tool_calls"),
        ("tool_use", "tool_calls"),
        ("SAFETY", "content_filter"),
        ("content-filter", "content_filter"),
        ("pause_turn", "pause"),
        ("abort", "error"),
        ("Cancelled", "error"),
        ("canceled", "error"),
        ("MALFORMED_FUNCTION_CALL", "error"),
        ("nobody knows", "other"),
    ],
)
def test_words_of_any_dialect_are_understood(word: str, reason: str) -> None:
    """From any service; the word itself is kept."""
    assert list(finish_of(word, {})) == [Finish(reason, word)]  # type: ignore[arg-type]


def test_a_dialects_own_words_come_first() -> None:
    """They may have another meaning there."""
    assert list(finish_of("stop", {"stop": "length"})) == [Finish("length", "stop")]


def test_only_an_error_is_worth_another_try() -> None:
    """Other reasons are not retried."""
    tried = [finish.again for word in ("error", "stop") for again in (True, False)
             for finish in finish_of(word, {}, again=again)]  # fmt: skip
    assert tried == [True, False, False, False]


def test_the_services_words_are_kept() -> None:
    """If they say more than the reason."""
    [finish] = finish_of("error", {}, "no memory")
    assert finish.message == "no memory"


def events(*finishes: str | None) -> Reply:
    """A stream of pieces, each with its finish reason, and without an end mark."""
    pieces = [
        f'data: {{"choices": [{{"index": 0, "delta": {{"content": "a"}}, "finish_reason": {word}}}]}}\n\n'
        for word in ("null" if finish is None else f'"{finish}"' for finish in finishes)
    ]
    return Reply(body="".join(pieces).encode())


def test_an_answer_that_breaks_behind_a_word_for_nothing_is_cut_off(
    server: LLMServer, client: Client, mode: Mode
) -> None:
    """One that ends with a failure is an error; the text so far is kept."""
    server.script(events(None, "null", "None"), events(None, "abort"))
    with pytest.raises(StreamTruncated) as cut:
        mode.complete(client.chat("Hi"))
    with pytest.raises(StreamError, match="abort") as aborted:
        mode.complete(client.chat("Hi"))
    assert (cut.value.partial, aborted.value.partial) == ("aaa", "aa")
