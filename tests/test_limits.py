"""Client-side rate limits: which request goes when, in which order, on a clock of the test's own."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmbridge._locks import Signal
from llmbridge.errors import Cancelled, ConfigError
from llmbridge.limits import Limiter, Limits, Ticket, estimate_tokens
from llmbridge.rate_limits import RateLimit, RateLimits


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The current time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that does not move by itself."""
    return Clock()


def limiter_of(clock: Callable[[], float], **limits: int) -> Limiter:
    """A limiter on that clock."""
    return Limiter(Limits(**limits), clock=clock)


def join(limiter: Limiter, tokens: int = 0, wake: Callable[[], object] = lambda: None) -> Ticket:
    """A ticket at the end of the queue."""
    ticket = Ticket(limiter, tokens, wake)
    limiter.enter(ticket)
    return ticket


def wait(ticket: Ticket, rest: Callable[[float | None], object]) -> None:
    """Waits like a call, until the request may be sent."""
    while (delay := ticket.delay()) != 0:
        rest(delay)


def delays(*tickets: Ticket) -> list[float | None]:
    """The delay of each, in turn."""
    return [ticket.delay() for ticket in tickets]


class TestLimits:
    """The caller's settings."""

    @pytest.mark.parametrize("name", ["requests_per_minute", "tokens_per_minute", "concurrency"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, float("nan")])
    def test_an_invalid_count_is_rejected(self, name: str, value: Any) -> None:
        """The error names the field."""
        with pytest.raises(ConfigError, match=f"^{name} must be"):
            Limits(**{name: value})

    def test_limits_are_values(self) -> None:
        """Comparable, hashable, picklable."""
        assert pickle.loads(pickle.dumps(Limits(5, 6, 7))) == Limits(5, 6, 7)
        assert len({Limits(5), Limits(5), Limits()}) == 2

    def test_without_limits_everything_goes(self, clock: Clock) -> None:
        """Any number of requests, at once."""
        limiter = limiter_of(clock)
        assert delays(*(join(limiter, 10**9) for _ in range(100))) == [0.0] * 100


class TestRequests:
    """Requests per minute."""

    def test_no_more_begin_than_allowed(self, clock: Clock) -> None:
        """The next one waits until the first is a minute old, even if all of them are over."""
        limiter = limiter_of(clock, requests_per_minute=2)
        first, second, third = (join(limiter) for _ in range(3))
        assert first.delay() == 0
        clock.now += 10
        assert delays(second, third) == [0, 50]
        first.release()
        second.release()
        assert third.delay() == 50
        clock.now += 49.5
        assert third.delay() == 0.5
        clock.now += 0.5
        assert third.delay() == 0

    def test_one_that_was_not_granted_does_not_count(self, clock: Clock) -> None:
        """A ticket that leaves the queue does not use up the limit."""
        limiter = limiter_of(clock, requests_per_minute=1)
        join(limiter).release()
        assert join(limiter).delay() == 0

    @settings(max_examples=50, deadline=None)
    @given(
        limit=st.integers(1, 5),
        gaps=st.lists(st.floats(0, 40), min_size=1, max_size=30),
    )
    def test_in_any_minute_no_more_than_the_limit(self, limit: int, gaps: list[float]) -> None:
        """However they come."""
        clock = Clock()
        limiter = limiter_of(clock, requests_per_minute=limit)
        begun: list[float] = []
        for gap in gaps:
            clock.now += gap
            ticket = join(limiter)
            while delay := ticket.delay():
                clock.now += delay
            begun.append(clock.now)
        for index in range(len(begun) - limit):
            assert begun[index + limit] - begun[index] >= 60 - 1e-6


class TestTokens:
    """Tokens per minute."""

    def test_the_estimate_counts_at_first(self, clock: Clock) -> None:
        """Until enough of the sent tokens are a minute old."""
        limiter = limiter_of(clock, tokens_per_minute=100)
        assert join(limiter, 60).delay() == 0
        clock.now += 10
        assert join(limiter, 40).delay() == 0
        clock.now += 10
        large, small = join(limiter, 61), join(limiter, 1)
        assert delays(large, small) == [50, None]
        clock.now += 40
        assert delays(large, small) == [10, None]
        clock.now += 10
        assert delays(large, small) == [0, 0]

    @pytest.mark.parametrize("used", [10**30, 10_000_001, -1])
    def test_a_count_that_cannot_be_is_not_believed(self, clock: Clock, used: int) -> None:
        """An absurd count would stop the client, or lift the limit."""
        limiter = limiter_of(clock, tokens_per_minute=100)
        first = join(limiter, 90)
        assert first.delay() == 0
        first.release(used_tokens=used)
        assert delays(join(limiter, 10), join(limiter, 1)) == [0, 60]

    def test_what_was_used_puts_the_estimate_right(self, clock: Clock) -> None:
        """Downwards, which wakes the waiting ticket; and upwards."""
        limiter = limiter_of(clock, tokens_per_minute=100)
        first = join(limiter, 90)
        woken: list[int] = []
        second = join(limiter, 50, wake=lambda: woken.append(1))
        assert delays(first, second) == [0, 60]
        woken.clear()
        first.release(used_tokens=50)
        assert woken
        assert second.delay() == 0
        second.release(used_tokens=200)
        clock.now += 59
        assert join(limiter, 1).delay() == 1

    def test_without_a_figure_the_estimate_stays(self, clock: Clock) -> None:
        """Missing usage does not allow more requests."""
        limiter = limiter_of(clock, tokens_per_minute=100)
        first = join(limiter, 90)
        assert first.delay() == 0
        first.release()
        assert join(limiter, 50).delay() == 60

    def test_one_that_is_larger_than_the_limit_goes_alone(self, clock: Clock) -> None:
        """Otherwise it would wait forever."""
        limiter = limiter_of(clock, tokens_per_minute=100)
        assert join(limiter, 1).delay() == 0
        large = join(limiter, 5000)
        assert large.delay() == 60
        clock.now += 60
        assert large.delay() == 0
        assert join(limiter, 1).delay() == 60

    def test_a_figure_that_comes_late_harms_nothing(self, clock: Clock) -> None:
        """Requests older than a minute do not count, whatever they took."""
        limiter = limiter_of(clock, tokens_per_minute=100)
        first = join(limiter, 90)
        assert first.delay() == 0
        clock.now += 61
        assert join(limiter, 100).delay() == 0
        first.release(used_tokens=5)
        last = join(limiter, 1)
        assert last.delay() == 60
        clock.now += 60
        assert last.delay() == 0

    def test_only_the_first_figure_counts(self, clock: Clock) -> None:
        """A ticket released twice was one request."""
        limiter = limiter_of(clock, tokens_per_minute=100)
        first = join(limiter, 90)
        assert first.delay() == 0
        first.release(used_tokens=50)
        first.release(used_tokens=0)
        assert join(limiter, 51).delay() == 60


class TestConcurrency:
    """Requests at once."""

    def test_a_place_is_free_when_a_ticket_comes_back(self, clock: Clock) -> None:
        """The delay is unknown until then, so the waiting ticket is woken."""
        limiter = limiter_of(clock, concurrency=2)
        first, second = join(limiter), join(limiter)
        woken: list[int] = []
        third = join(limiter, wake=lambda: woken.append(1))
        assert delays(first, second, third) == [0, 0, None]
        woken.clear()
        second.release()
        assert woken
        assert third.delay() == 0

    def test_released_twice_counts_once(self, clock: Clock) -> None:
        """Closing after the end is common."""
        limiter = limiter_of(clock, concurrency=1)
        first = join(limiter)
        assert first.delay() == 0
        first.release()
        second, third = join(limiter), join(limiter)
        assert second.delay() == 0
        first.release(5)
        assert third.delay() is None

    def test_a_granted_ticket_stays_granted(self, clock: Clock) -> None:
        """Further calls of `delay` change nothing."""
        limiter = limiter_of(clock, concurrency=1, requests_per_minute=1)
        ticket = join(limiter)
        assert delays(ticket, ticket) == [0, 0]
        ticket.release()
        assert ticket.delay() == 0


class TestQueue:
    """First come, first served."""

    def test_no_request_overtakes(self, clock: Clock) -> None:
        """A small request does not overtake a large one."""
        limiter = limiter_of(clock, tokens_per_minute=100)
        assert join(limiter, 90).delay() == 0
        large, small = join(limiter, 50), join(limiter, 1)
        assert delays(small, large) == [None, 60]

    def test_a_granted_ticket_wakes_the_next(self, clock: Clock) -> None:
        """Down the whole queue."""
        limiter = limiter_of(clock)
        order: list[int] = []
        tickets: list[Ticket] = []
        for index in range(5):
            tickets.append(join(limiter, wake=lambda index=index: order.append(index)))  # type: ignore[misc]
        for ticket in tickets:
            assert ticket.delay() == 0
        assert order == [1, 2, 3, 4]

    def test_a_released_ticket_does_not_hold_up_the_others(self, clock: Clock) -> None:
        """At the head, and further back."""
        limiter = limiter_of(clock)
        woken: list[str] = []
        first = join(limiter)
        second = join(limiter, wake=lambda: woken.append("second"))
        third = join(limiter, wake=lambda: woken.append("third"))
        second.release()
        assert third.delay() is None
        woken.clear()
        first.release()
        assert woken == ["third"]
        assert third.delay() == 0

    def test_a_ticket_comes_back_from_inside_the_lock(self, clock: Clock) -> None:
        """As by a garbage collection inside the lock: it neither blocks nor gets lost."""
        collected: list[Ticket] = []

        def now() -> float:
            if collected:  # the clock is read inside the lock
                assert limiter._lock.locked()
                collected.pop().release()
                limiter.pause(5)
            return clock.now

        limiter = Limiter(Limits(concurrency=2), clock=now)
        first, second, third, fourth = (join(limiter) for _ in range(4))
        assert first.delay() == 0
        collected.append(first)
        assert second.delay() == 5
        assert not collected
        clock.now += 5
        assert delays(second, third, fourth) == [0, 0, None]


class TestService:
    """The service's own limits."""

    def test_a_pause_holds_up_everybody(self, clock: Clock) -> None:
        """A 429's `retry_after` holds for all who share the account."""
        limiter = limiter_of(clock)
        ticket = join(limiter)
        limiter.pause(30)
        assert ticket.delay() == 30
        clock.now += 10
        limiter.pause(5)  # a shorter one does not end a longer one
        assert ticket.delay() == 20
        clock.now += 20
        assert ticket.delay() == 0

    @pytest.mark.parametrize("seconds", [None, 0, -1, 121, float("nan"), float("inf")])
    def test_a_missing_or_too_long_pause_changes_nothing(self, clock: Clock, seconds: float | None) -> None:
        """If a service wants hours, the next request gets a typed error instead of a silent wait."""
        limiter = limiter_of(clock)
        limiter.pause(seconds)
        assert join(limiter).delay() == 0

    def test_used_up_limits_are_waited_for(self, clock: Clock) -> None:
        """From the headers of an answer."""
        limiter = limiter_of(clock)
        limiter.learn(None)
        limiter.learn(RateLimits(RateLimit(60, 3, 40.0)))
        assert join(limiter).delay() == 0
        limiter.learn(RateLimits(RateLimit(60, 0, 40.0), RateLimit(None, 0, 10.0)))
        assert join(limiter).delay() == 40


class TestWaiting:
    """How a call waits."""

    def test_the_callers_own_rest_is_used(self, clock: Clock) -> None:
        """With the known seconds, or None."""
        limiter = limiter_of(clock, requests_per_minute=1)
        assert join(limiter).delay() == 0
        rests: list[float | None] = []

        def rest(seconds: float | None) -> None:
            rests.append(seconds)
            clock.now += 45

        wait(join(limiter), rest)
        assert rests == [60, 15]

    def test_what_rest_raises_ends_the_wait(self, clock: Clock) -> None:
        """The others go on once the ticket is released."""
        limiter = limiter_of(clock, concurrency=1)
        first, second = join(limiter), join(limiter)
        assert first.delay() == 0

        def rest(seconds: float | None) -> None:
            raise Cancelled("the call was cancelled")

        with pytest.raises(Cancelled):
            wait(second, rest)
        second.release()
        first.release()
        assert join(limiter).delay() == 0

    def test_many_threads_keep_the_limit(self) -> None:
        """Never more at once than allowed, and all of them finish."""
        limiter = Limiter(Limits(concurrency=3))
        lock = threading.Lock()
        at_once, most, done = 0, 0, 0

        def run() -> None:
            nonlocal at_once, most, done
            for _ in range(20):
                woken = Signal()
                ticket = join(limiter, 10, woken.set)
                wait(ticket, woken.wait)
                with lock:
                    at_once += 1
                    most = max(most, at_once)
                with lock:
                    at_once -= 1
                    done += 1
                ticket.release()

        threads = [threading.Thread(target=run, daemon=True) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert done == 320
        assert most <= 3

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is for Unix")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_child_process_does_not_wait_for_its_parents_calls(self) -> None:
        """They end in the parent; and the lock may have been held by a thread that is not in the child."""
        limiter = Limiter(Limits(concurrency=1))
        held, waiting = join(limiter), join(limiter)
        assert held.delay() == 0
        with limiter._lock:
            child = os.fork()
            if child == 0:
                try:
                    goes = join(limiter).delay() == 0
                    waiting.release()
                    held.release()
                    os._exit(0 if goes and join(limiter).delay() is None else 1)
                finally:
                    os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert waiting.delay() is None


class TestEstimate:
    """The likely size of a request."""

    def test_texts_count_by_their_length(self) -> None:
        """Four characters a token, anywhere in the body."""
        assert estimate_tokens({}) == 0
        assert estimate_tokens({"m": "x" * 399}) == 100
        assert estimate_tokens({"m": ["x" * 199, {"n": "x" * 199}]}) == 100

    @pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
    def test_the_answer_counts_as_it_is_allowed_to_be(self, name: str) -> None:
        """At the top, or in the options of Gemini and Ollama."""
        assert estimate_tokens({name: 500}) in range(500, 510)
        assert estimate_tokens({"generationConfig": {"maxOutputTokens": 500}}) in range(500, 510)
        assert estimate_tokens({"options": {"num_predict": 500}}) in range(500, 510)
        assert estimate_tokens({"options": {"num_predict": -1}}) < 10

    @pytest.mark.parametrize(
        "part",
        [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 1_000_000}},
            {"type": "image", "source": {"type": "base64", "data": "A" * 1_000_000}},
            {"images": ["A" * 1_000_000]},
            {"type": "file", "file": {"file_data": "A" * 1_000_000}},
        ],
    )
    def test_a_file_does_not_count_by_its_length(self, part: dict[str, Any]) -> None:
        """A megabyte of base64 is far from a quarter of a million tokens."""
        assert 1000 <= estimate_tokens({"messages": [{"content": [part]}]}) < 1100

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
            max_leaves=10,
        )
    )
    def test_any_body_has_an_estimate(self, value: Any) -> None:
        """Any body gives a whole number from 0."""
        assert estimate_tokens({"body": value, "max_tokens": value}) >= 0
