"""When a failed call is retried, and after how long: rules without a clock."""

from __future__ import annotations

import pickle
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge.errors import (
    AuthError,
    BadRequest,
    Cancelled,
    ClockExpired,
    ConfigError,
    ConnectFailed,
    ContentFiltered,
    ContextLengthExceeded,
    NotFound,
    Overloaded,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    ServerError,
    ServiceError,
    StatusError,
    StreamTruncated,
)
from llmbridge.retry import Retry, RetryAttempt, retry_after_seconds

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=timezone.utc)


class TestPolicy:
    """The caller's policy."""

    def test_the_defaults_are_the_promised_ones(self) -> None:
        """P13: two retries."""
        assert Retry() == Retry(times=2, backoff=0.5, max_backoff=8.0, max_retry_after=120.0, jitter=0.25)

    def test_none_a_number_and_a_policy_make_a_policy(self) -> None:
        """The values of `retries=`."""
        assert Retry.of(None) == Retry()
        assert Retry.of(0) == Retry(times=0)
        assert Retry.of(7) == Retry(times=7)
        policy = Retry(times=1, backoff=0)
        assert Retry.of(policy) is policy

    @pytest.mark.parametrize("times", [-1, 1.5, 2.0, "2", True, False, [2], float("nan")])
    def test_times_of_another_type_are_rejected(self, times: Any) -> None:
        """The error is a ValueError and says what to write."""
        with pytest.raises(ConfigError, match="whole number from 0") as caught:
            Retry.of(times)
        assert isinstance(caught.value, ValueError)

    @pytest.mark.parametrize("name", ["backoff", "max_backoff", "max_retry_after"])
    @pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), "1", None, True])
    def test_seconds_that_are_none_are_refused(self, name: str, value: Any) -> None:
        """The error names the field."""
        with pytest.raises(ConfigError, match=f"^{name} must be"):
            Retry(**{name: value})

    @pytest.mark.parametrize("jitter", [-0.1, 1.01, float("nan"), float("inf"), "1", None, True])
    def test_an_invalid_jitter_is_rejected(self, jitter: Any) -> None:
        """It is a fraction of the wait."""
        with pytest.raises(ConfigError, match=r"^jitter must be"):
            Retry(jitter=jitter)

    @pytest.mark.parametrize("statuses", [429, "429", ["429"], [429.0], [True], [200], [399], [600], b"\x01"])
    def test_statuses_that_are_none_are_refused(self, statuses: Any) -> None:
        """The error shows how to write them."""
        with pytest.raises(ConfigError, match=r"^statuses must be .*\[429, 503\]"):
            Retry(statuses=statuses)

    @pytest.mark.parametrize("statuses", [[429, 503], (503, 429), {429, 503}, frozenset({429, 503}), {429: 1, 503: 2}])
    def test_statuses_may_be_any_collection(self, statuses: Any) -> None:
        """They are stored as a set, so that a policy stays a value."""
        assert Retry(statuses=statuses) == Retry(statuses=[429, 503])
        assert hash(Retry(statuses=statuses)) == hash(Retry(statuses=[429, 503]))

    def test_a_callback_that_cannot_be_called_is_refused(self) -> None:
        """At once, not when the first call fails."""
        with pytest.raises(ConfigError, match=r"^on_retry must be"):
            Retry(on_retry="print")  # type: ignore[arg-type]

    def test_a_policy_is_a_value(self) -> None:
        """Comparable, hashable and picklable."""
        for policy in (Retry(3), Retry(statuses=[500]), Retry(on_retry=print)):
            assert pickle.loads(pickle.dumps(policy)) == policy
        assert len({Retry(3), Retry(3), Retry(4)}) == 2


def service_error(kind: type[ServiceError], status: int | None, retryable: bool) -> ServiceError:
    """An error of a service."""
    return kind("x", status=status, retryable=retryable)


class TestDecide:
    """The errors that are retried."""

    @pytest.mark.parametrize(
        ("error", "again"),
        [
            (service_error(RateLimited, 429, True), True),
            (service_error(ServerError, 500, True), True),
            (service_error(ServerError, 500, False), False),
            (service_error(BadRequest, 400, False), False),
            (service_error(StatusError, 408, True), True),
            (service_error(Overloaded, None, True), True),
            (ConnectFailed("x"), True),
            (ClockExpired("x", clock="connect"), True),
            (ClockExpired("x", clock="idle"), False),
            (StreamTruncated("x"), False),
            (ProtocolError("x"), False),
            (Cancelled("x"), False),
            (ValueError("x"), False),
        ],
    )
    def test_the_default_rule_is_the_errors_own(self, error: Exception, again: bool) -> None:
        """The error's own `retryable`."""
        assert Retry().covers(error) is again
        assert (Retry().decide(error, 0) is not None) is again
        assert Retry(times=0).decide(error, 0) is None

    @pytest.mark.parametrize(
        ("error", "again"),
        [
            (service_error(BadRequest, 400, False), True),
            (service_error(RateLimited, 429, True), False),
            (service_error(ServerError, 500, True), False),
            (service_error(NotFound, 404, False), True),
            (service_error(Overloaded, None, True), True),
            (ConnectFailed("x"), True),
            (StreamTruncated("x"), False),
        ],
    )
    def test_given_statuses_take_the_place_of_the_rule(self, error: Exception, again: bool) -> None:
        """They add and remove statuses; errors without a status follow the rule."""
        assert Retry(statuses=[400, 404]).covers(error) is again

    @pytest.mark.parametrize("kind", [QuotaExceeded, AuthError, ContentFiltered, ContextLengthExceeded])
    def test_what_cannot_pass_is_never_repeated(self, kind: type[ServiceError]) -> None:
        """Whatever the statuses and the error itself say."""
        for status in (400, 429):
            assert not Retry(statuses=[400, 429]).covers(service_error(kind, status, True))

    def test_the_services_wait_is_kept(self) -> None:
        """If it is no longer than the policy allows."""
        error = RateLimited("x", status=429, retry_after=7.5, retryable=True)
        assert Retry().decide(error, 0) == 7.5
        assert Retry(max_retry_after=7).decide(error, 0) is None

    def test_the_callback_learns_what_comes(self) -> None:
        """The error, the number of the retry from 1, and the wait."""
        seen: list[RetryAttempt] = []
        error = service_error(RateLimited, 429, True)
        Retry(on_retry=seen.append).announce(error, 0, 0.5)
        Retry().announce(error, 1, 0.5)
        assert seen == [RetryAttempt(error, 1, 0.5)]


class TestWait:
    """The length of the wait."""

    def test_the_jitter_can_be_set(self) -> None:
        """Off, or up to the whole wait."""
        assert {Retry(jitter=0).wait(0, None) for _ in range(20)} == {0.5}
        waits = [Retry(jitter=1).wait(0, None) for _ in range(200)]
        assert min(wait for wait in waits if wait is not None) < 0.25

    def test_no_attempt_is_left_after_the_last(self) -> None:
        """None means giving up."""
        policy = Retry(times=2)
        assert [policy.wait(attempt, None) is None for attempt in range(4)] == [False, False, True, True]

    def test_zero_attempts_never_wait(self) -> None:
        """Even if the service gives a wait."""
        assert Retry(times=0).wait(0, None) is None
        assert Retry(times=0).wait(0, 1.0) is None

    @pytest.mark.parametrize(
        ("attempt", "longest"), [(0, 0.5), (1, 1.0), (2, 2.0), (3, 4.0), (4, 8.0), (5, 8.0), (60, 8.0)]
    )
    def test_the_wait_doubles_up_to_its_cap(self, attempt: int, longest: float) -> None:
        """Shortened at random by up to a quarter."""
        waits = [Retry(times=100).wait(attempt, None) for _ in range(200)]
        assert all(wait is not None and 0.75 * longest <= wait <= longest for wait in waits)

    def test_the_wait_is_jittered(self) -> None:
        """Many clients do not come back at the same moment."""
        assert len({Retry().wait(0, None) for _ in range(50)}) > 40

    def test_many_attempts_do_not_overflow(self) -> None:
        """2 to the power of thousands exceeds a float."""
        wait = Retry(times=10_000).wait(5_000, None)
        assert wait is not None
        assert wait <= 8.0

    def test_what_the_service_asks_for_wins(self) -> None:
        """Shorter or longer than the backoff, exactly."""
        assert Retry().wait(0, 0.0) == 0.0
        assert Retry().wait(0, 0.25) == 0.25
        assert Retry().wait(1, 60.0) == 60.0

    def test_more_than_the_longest_wait_gives_up(self) -> None:
        """P13: a service that wants hours does not cause a hidden wait."""
        policy = Retry(max_retry_after=10)
        assert policy.wait(0, 10.0) == 10.0
        assert policy.wait(0, 10.01) is None

    @given(st.integers(0, 50), st.none() | st.floats(0, 1e6))
    def test_a_wait_is_never_negative_or_endless(self, attempt: int, asked: float | None) -> None:
        """For any input."""
        wait = Retry(times=51).wait(attempt, asked)
        assert wait is None or 0 <= wait <= 120


class TestRetryAfter:
    """P13: milliseconds, seconds or a date; garbage is ignored."""

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({}, None),
            ({"retry-after": "1"}, 1.0),
            ({"retry-after": "0"}, 0.0),
            ({"retry-after": " 7 "}, 7.0),
            ({"retry-after": "1.5"}, 1.5),
            ({"retry-after": "86400"}, 86400.0),
            ({"retry-after-ms": "250"}, 0.25),
            ({"retry-after-ms": "0"}, 0.0),
            ({"retry-after-ms": "1500.5"}, 1.5005),
            ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
            ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
            ({"retry-after-ms": "", "retry-after": "9"}, 9.0),
        ],
    )
    def test_numbers(self, headers: dict[str, str], seconds: float | None) -> None:
        """Milliseconds before seconds, fractions allowed."""
        assert retry_after_seconds(headers) == seconds

    @pytest.mark.parametrize(
        "text",
        [
            "",
            " ",
            "soon",
            "-1",
            "-0.5",
            "nan",
            "inf",
            "-inf",
            "1e400",
            "1,5",
            "1 s",
            "17ms",
            "6m0s",
            "0x10",
            "tomorrow at noon",
            "Mon, 99 Foo 2026 99:99:99 GMT",
            "Sat, 21 Nov",
            "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
            "\x00",
            "٣",
        ],
    )
    def test_garbage_is_ignored(self, text: str) -> None:
        """Nothing is raised, and the usual backoff applies."""
        found = retry_after_seconds({"retry-after": text})
        assert found is None or (text == "٣" and found == 3.0)
        assert retry_after_seconds({"retry-after-ms": text}) in (None, 0.003)

    @pytest.mark.parametrize("seconds", [0, 1, 90, 86400])
    def test_a_date(self, seconds: int) -> None:
        """The time until then."""
        text = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
        assert retry_after_seconds({"retry-after": text}, NOW) == seconds

    def test_a_date_of_the_past_is_now(self) -> None:
        """Clocks differ; a wait is never negative."""
        assert retry_after_seconds({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, NOW) == 0.0

    @pytest.mark.parametrize(
        "text",
        [
            "Sat, 21 Nov 2026 12:00:30 GMT",
            "Sat, 21 Nov 2026 12:00:30 -0000",
            "Sat, 21 Nov 2026 12:00:30",
            "21 Nov 2026 12:00:30 +0000",
            "Sat, 21 Nov 2026 13:00:30 +0100",
            "Sat Nov 21 12:00:30 2026",
            "Saturday, 21-Nov-26 12:00:30 GMT",
        ],
    )
    def test_a_date_in_any_spelling(self, text: str) -> None:
        """The three formats of HTTP, with and without a zone."""
        assert retry_after_seconds({"retry-after": text}, NOW) == 30.0

    def test_a_date_is_compared_with_the_present(self) -> None:
        """By default."""
        soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=60), usegmt=True)
        wait = retry_after_seconds({"retry-after": soon})
        assert wait is not None
        assert 50 < wait <= 60

    @given(st.text(max_size=40))
    def test_no_text_is_an_error(self, text: str) -> None:
        """Any header gives a number from 0, or None."""
        found = retry_after_seconds({"retry-after": text, "retry-after-ms": text})
        assert found is None or found >= 0

    def test_a_gateway_passes_it_on_under_another_name(self) -> None:
        """LiteLLM renames the header of the service behind it; its own header wins."""
        assert retry_after_seconds({"llm_provider-retry-after": "4"}) == 4.0
        assert retry_after_seconds({"llm_provider-retry-after": "4", "retry-after": "2"}) == 2.0
