"""P38: a rate limit delays only its own call, retries do not come at once, and the minute is spread."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import KEY
from modes import Mode

from llmbridge import Client, ClockExpired, ConfigError, Limits, RateLimited, Retry, RetryAttempt
from llmbridge.limits import Limiter, Ticket
from llmbridge.testing import LLMServer, Reply

NOTHING_LEFT = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"}
REFUSALS = {
    "status": Reply(status=429, headers={"Retry-After": "30"}),
    "headers": Reply(status=429, headers={"Retry-After": "30", **NOTHING_LEFT}),
    "words": Reply("Please try again in 30s.", status=429),
    "in the stream": Reply(error={"message": "Please try again in 30s.", "code": "rate_limit_exceeded"}),
    "after a piece": Reply(["a"], error={"message": "Please try again in 30s.", "code": "rate_limit_exceeded"}),
}


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The current time."""
        return self.now


def client_of(server: LLMServer, **limits: int) -> Client:
    """A client with limits and without retries."""
    return Client(
        "openai:m", base_url=server.base_url("openai"), api_key=KEY, timeout=20, retries=0, limits=Limits(**limits)
    )


def begins(limiter: Limiter, clock: Clock, count: int, busy: Callable[[], float] = lambda: 0.0) -> list[float]:
    """When so many requests begin, each requested as soon as the last one went."""
    found = []
    for _ in range(count):
        clock.now += busy()
        ticket = Ticket(limiter, 0, lambda: None)
        limiter.enter(ticket)
        while delay := ticket.delay():
            clock.now += delay
        found.append(clock.now)
        ticket.release()
    return found


def most_within(seconds: float, times: list[float]) -> int:
    """The most of them, which are in order, within any time of that length."""
    return max(sum(begin <= time < begin + seconds - 1e-6 for time in times[at:]) for at, begin in enumerate(times))


# -- who waits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", REFUSALS)
def test_p38_a_refusal_holds_up_nobody_else(server: LLMServer, mode: Mode, form: str) -> None:
    """Not even the first one, nor by headers that say nothing remains."""
    server.script(REFUSALS[form], Reply("ok"))
    with client_of(server, concurrency=8) as client:
        assert type(mode.read(client.chat("x")).error) is RateLimited
        assert mode.complete(client.chat("y", timeout=15)).text == "ok"


@pytest.mark.quick(1)
def test_p38_one_in_twenty_holds_up_nobody(server: LLMServer, mode: Mode) -> None:
    """Rejected requests are retried by themselves; the others do not wait."""
    seen: set[str] = set()

    def answer(received: Any) -> Reply:
        row = received.user_text
        if int(row) % 20 or row in seen:
            return Reply("ok")
        seen.add(row)
        return Reply(status=429, headers={"Retry-After": "30"})

    server.default = answer
    waits: list[RetryAttempt] = []

    class Stop(Exception):
        """Ends a call that would wait."""

    def note(attempt: RetryAttempt) -> None:
        waits.append(attempt)
        raise Stop

    with client_of(server, concurrency=8) as client:
        for row in range(40):
            stream = client.chat(str(row), retries=Retry(1, on_retry=note), timeout=60)
            if row % 20:
                assert mode.complete(stream).text == "ok"
            else:
                with pytest.raises(Stop):
                    mode.complete(stream)
    assert len(waits) == 2


@pytest.mark.parametrize("form", REFUSALS)
@pytest.mark.quick(2)
def test_p38_all_wait_where_most_answers_are_refusals(server: LLMServer, mode: Mode, form: str) -> None:
    """Nothing is sent that would be rejected as well."""
    server.default = REFUSALS[form]
    with client_of(server, concurrency=8) as client:
        for _ in range(3):
            assert type(mode.read(client.chat("x")).error) is RateLimited
        error = mode.read(client.chat("x", timeout=0.2)).error
    assert isinstance(error, ClockExpired)
    assert "the client's own limits" in str(error)
    assert len(server.requests) == 3


def test_p38_old_answers_and_long_waits_do_not_count() -> None:
    """More than half of the last twenty, of the last minute; and no pause lasts hours."""
    clock = Clock()
    limiter = Limiter(Limits(concurrency=50), clock)

    def ask(refused_for: float | None = None) -> float:
        ticket = Ticket(limiter, 0, lambda: None)
        limiter.enter(ticket)
        delay = ticket.delay()
        if not delay:
            ticket.answered()
            if refused_for is not None:
                ticket.refuse(refused_for)
        ticket.release()
        return delay or 0.0

    for _ in range(12):
        assert ask() == 0
    for _ in range(11):  # of the last twenty are more than half
        assert ask(refused_for=10) == 0
    assert ask() == pytest.approx(10)
    clock.now += 61
    for _ in range(2):
        assert ask(refused_for=10) == 0
    assert ask() == 0
    clock.now += 61
    for _ in range(9):
        assert ask(refused_for=500) == 0


def test_p38_who_waited_behind_a_refusal_does_not_return_in_a_herd() -> None:
    """The calls in the queue are spread over a quarter of the wait."""
    clock = Clock()
    limiter = Limiter(Limits(concurrency=50), clock)
    refused = [Ticket(limiter, 0, lambda: None) for _ in range(3)]
    for ticket in refused:
        limiter.enter(ticket)
        assert ticket.delay() == 0
        ticket.answered()
        ticket.refuse(8)
        ticket.release()
    waiting = [Ticket(limiter, 0, lambda: None) for _ in range(20)]
    for ticket in waiting:
        limiter.enter(ticket)
    begun = []
    for ticket in waiting:
        while delay := ticket.delay():
            clock.now += delay
        begun.append(clock.now - 1000)
    assert begun[0] == pytest.approx(8)
    assert 9.8 < begun[-1] <= 10
    assert most_within(0.3, begun) <= 4


# -- how long a wait is ------------------------------------------------------------------------------------------


def test_p38_a_wait_is_spread_and_never_shorter_than_asked(server: LLMServer, mode: Mode) -> None:
    """By up to a quarter, for any form of `retry_after`."""
    soon = email.utils.formatdate(time.time() + 3600, usegmt=True)
    for headers, asked in (({"retry-after-ms": "3000"}, 3.0), ({"Retry-After": "8"}, 8.0), ({"Retry-After": soon}, 0)):
        server.default = Reply(status=429, headers=headers)
        seen: list[float] = []

        class Stop(Exception):
            """Ends a call that would wait."""

        def note(attempt: RetryAttempt, seen: list[float] = seen, stop: type[Exception] = Stop) -> None:
            least = attempt.error.retry_after  # type: ignore[attr-defined]
            assert least <= attempt.wait <= 1.25 * least
            seen.append(attempt.wait / least)
            raise stop

        policy = Retry(1, on_retry=note, max_retry_after=4000)
        with Client(
            "openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=policy, timeout=9000
        ) as client:
            for _ in range(8):
                with pytest.raises(Stop):
                    mode.complete(client.chat("x"))
        assert len(set(seen)) == 8
        assert max(seen) > 1.02
        assert asked == 0 or {Retry(jitter=0).spread(asked, 0)} == {asked}


def test_p38_a_wait_is_spread_no_further_than_the_total_clock(
    server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the service's wait fits into the timeout, it is waited for."""
    monkeypatch.setattr(random, "random", lambda: 1.0)
    server.script(Reply(status=429, headers={"retry-after-ms": "18000"}))
    waits: list[float] = []

    class Stop(Exception):
        """Ends a call that would wait."""

    def note(attempt: RetryAttempt) -> None:
        waits.append(attempt.wait)
        raise Stop

    with (
        Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=Retry(1, on_retry=note)) as client,
        pytest.raises(Stop),
    ):
        mode.complete(client.chat("x", timeout=20))
    assert waits == [18]


@pytest.mark.parametrize("asked", [0.01, 0])
@pytest.mark.quick(2)
def test_p38_a_wait_that_was_not_enough_is_doubled(server: LLMServer, mode: Mode, asked: float) -> None:
    """From the third retry on, up to the longest backoff; a missing wait is doubled too."""
    waits: list[float] = []
    policy = Retry(6, 0.01, 0.07, jitter=0, on_retry=lambda attempt: waits.append(attempt.wait))
    server.script(*[Reply(status=429, headers={"Retry-After": str(asked)})] * 6, Reply("ok"))
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=policy) as client:
        assert mode.complete(client.chat("x")).text == "ok"
    assert waits == pytest.approx([asked, asked, 0.02, 0.04, 0.07, 0.07])


# -- the minute --------------------------------------------------------------------------------------------------


@pytest.mark.quick(1)
def test_p38_requests_are_spread_over_the_minute(server: LLMServer, mode: Mode) -> None:
    """Five may begin at once; the rest follow one after the other."""
    started = time.monotonic()
    with client_of(server, requests_per_minute=3000) as client:
        assert all(mode.at_once([client.chat("x") for _ in range(25)]))
    assert time.monotonic() - started >= 20 / 50


@pytest.mark.parametrize(("limit", "burst"), [(3600, None), (3600, 60), (600, None), (60, None), (60, 20), (7, None)])
@pytest.mark.quick(1)
def test_p38_neither_the_second_nor_the_minute_gets_too_many(limit: int, burst: int | None) -> None:
    """A service that counts by the second rejects none; the first requests of a script do not wait."""
    clock, chance = Clock(), random.Random(7)
    limiter = Limiter(Limits(requests_per_minute=limit, burst=burst), clock)
    at_once = min(burst or 5, limit)
    found = begins(limiter, clock, min(3 * limit, 4000))
    assert found[at_once - 1] == 1000
    assert found[at_once] > 1000
    assert most_within(1, found) <= max(at_once, limit // 60)
    assert most_within(60, found) <= limit
    assert found[-1] - 1000 <= 1.06 * 60 * len(found) / limit
    clock.now += 300
    found = begins(limiter, clock, 500, busy=lambda: chance.expovariate(limit / 60))
    assert most_within(1, found) <= max(at_once, limit // 60)
    assert most_within(60, found) <= limit


def test_p38_a_burst_of_the_whole_minute_goes_at_once() -> None:
    """For services that count only by the minute."""
    clock = Clock()
    found = begins(Limiter(Limits(requests_per_minute=40, burst=40), clock), clock, 80)
    assert found[:40] == [1000] * 40
    assert found[40:] == [1060] * 40


@pytest.mark.parametrize("limits", [{"burst": 3}, {"burst": 0, "requests_per_minute": 9}])
def test_p38_a_burst_that_means_nothing_is_refused(limits: dict[str, int]) -> None:
    """The error names it."""
    with pytest.raises(ConfigError, match=r"^burst "):
        Limits(**limits)
