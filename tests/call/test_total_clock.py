"""The total timeout: one for a whole chat, its turns, the tools between them, and schema retries."""

from __future__ import annotations

import threading
import time
from typing import Any

import anyio
import pytest
from modes import Mode

import llmbridge._transport
import llmbridge.options
from llmbridge import Client, ClockExpired, Timeout, ToolResult
from llmbridge.testing import LLMServer, Reply

WAIT = 10  # seconds after which a test gives up
LONG = 1000.0
ASKS = Reply("", tool_calls=[{"name": "work", "arguments": {}}])
ASKS_TWICE = Reply("", tool_calls=[{"name": "work", "arguments": {}}] * 2)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.passed = 0.0

    def __call__(self) -> float:
        """The time of `time.monotonic`, and the shift."""
        return time.monotonic() + self.passed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the chats."""
    clock = Clock()
    monkeypatch.setattr(llmbridge.options, "monotonic", clock)
    return clock


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The end of the total timeout for each request."""
    known: list[float] = []

    class Seen(llmbridge._transport.Call):
        """A schema."""

        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            known.append(self._total_at)

    monkeypatch.setattr(llmbridge._transport, "Call", Seen)
    return known


def test_all_turns_have_one_end(server: LLMServer, client: Client, mode: Mode, ends: list[float]) -> None:
    """The second and the third request get the rest of the first one's time."""
    server.script(ASKS, ASKS, Reply("done"))

    def work() -> str:
        return "x"

    assert mode.complete(client.run("x", tools=[work], timeout=100)).text == "done"
    assert len(ends) == 3
    assert len(set(ends)) == 1


def test_a_schema_retry_shares_the_timeout_of_the_first_request(
    server: LLMServer, client: Client, mode: Mode, ends: list[float]
) -> None:
    """All schema retries share the end of the first request."""
    server.script(Reply("bad"), Reply("worse"), Reply('{"n": 1}'))
    answer = mode.complete(client.chat("x", schema={"type": "object"}, reask=2, timeout=100))
    assert answer.parsed == {"n": 1}
    assert len(ends) == 3
    assert len(set(ends)) == 1


def test_two_chats_have_two_clocks(server: LLMServer, client: Client, ends: list[float]) -> None:
    """Each chat has its own timeout, which starts with the reading."""
    server.script(Reply("a"), Reply("b"))
    streams = [client.chat("x", timeout=100), client.chat("x", timeout=100)]
    assert not ends
    for stream in streams:
        stream.complete()
    assert len(set(ends)) == 2


def test_no_turn_begins_after_the_end(server: LLMServer, client: Client, mode: Mode, clock: Clock) -> None:
    """The result of a slow function is handed out, and no other request is sent."""
    server.script(ASKS, Reply("late"))

    def work() -> str:
        clock.passed += LONG
        return "x"

    outcome = mode.read(client.run("x", tools=[work], timeout=100).events())
    assert isinstance(outcome.error, ClockExpired)
    assert outcome.error.clock == "total"
    assert outcome.error.message.startswith("the call did not end within 100 s")
    assert len(server.requests) == 1


def test_no_schema_retry_after_the_end(server: LLMServer, client: Client, clock: Clock) -> None:
    """Time that the caller spends in between counts."""
    server.script(Reply("bad"), Reply("{}"))
    stream = client.chat("x", schema={"type": "object"}, timeout=100)
    assert "".join(stream) == "bad"
    clock.passed += LONG
    with pytest.raises(ClockExpired, match="within 100 s"):
        stream.complete()
    assert len(server.requests) == 1


def test_it_ends_the_wait_for_functions(
    server: LLMServer, client: Client, mode: Mode, clock: Clock, release: threading.Event
) -> None:
    """Functions in threads run on by themselves."""
    server.script(ASKS_TWICE, Reply("late"))

    def work() -> str:
        clock.passed += LONG
        release.wait(WAIT)
        return "x"

    outcome = mode.read(client.run("x", tools=[work], timeout=100).events())
    assert isinstance(outcome.error, ClockExpired)
    assert "its tools were still running" in outcome.error.message
    assert (outcome.error.clock, outcome.error.provider, outcome.error.model) == ("total", "openai", "m")
    assert not any(isinstance(event, ToolResult) for event in outcome.pieces)
    assert len(server.requests) == 1


@pytest.mark.slow
def test_it_cancels_coroutines(server: LLMServer, client: Client, mode: Mode, clock: Clock) -> None:
    """Coroutines get to clean up."""
    server.script(ASKS, Reply("late"))
    ended = threading.Event()

    async def work() -> str:
        clock.passed += LONG
        try:
            await anyio.sleep(WAIT)
        finally:
            ended.set()
        return "x"

    outcome = mode.read(client.run("x", tools=[work], timeout=100).events())
    assert isinstance(outcome.error, ClockExpired)
    assert ended.wait(WAIT)


def test_without_a_total_nothing_ends(server: LLMServer, client: Client, clock: Clock) -> None:
    """`total=None` allows tools that wait for a person."""
    server.script(ASKS, Reply("done"))

    def work() -> str:
        clock.passed += 1e9
        return "x"

    assert client.run("x", tools=[work], timeout=Timeout(total=None)).complete().text == "done"
