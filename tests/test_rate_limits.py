"""The rate limits in the headers of an answer: every service's names and spellings, in one form."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge._service_errors.waits import duration_seconds, number, seconds_until, wait_in_text
from llmbridge.rate_limits import RateLimit, RateLimits

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z

OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-requests": "17ms",
    "x-ratelimit-reset-tokens": "6m0s",
}
ANTHROPIC = {
    "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "0",
    "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:10Z",
    "anthropic-ratelimit-tokens-limit": "40000",
    "anthropic-ratelimit-tokens-remaining": "39000",
    "anthropic-ratelimit-tokens-reset": "2027-01-15T09:00:30+01:00",
    "anthropic-ratelimit-input-tokens-limit": "30000",
    "anthropic-ratelimit-input-tokens-remaining": "0",
    "anthropic-ratelimit-input-tokens-reset": "2027-01-15T08:00:20.5Z",
    "anthropic-ratelimit-output-tokens-limit": "8000",
    "anthropic-ratelimit-output-tokens-remaining": "8000",
    "anthropic-ratelimit-output-tokens-reset": "2027-01-15T07:59:00Z",
}

# Name: headers, and their limits.
HEADERS: dict[str, tuple[dict[str, str], RateLimits | None]] = {
    "openai": (OPENAI, RateLimits(RateLimit(60, 59, 0.017), RateLimit(150000, 149984, 360.0))),
    "litellm": (
        {f"llm_provider-{name}": value for name, value in OPENAI.items()},
        RateLimits(RateLimit(60, 59, 0.017), RateLimit(150000, 149984, 360.0)),
    ),
    "anthropic": (
        ANTHROPIC,
        RateLimits(
            RateLimit(50, 0, 10.0),
            RateLimit(40000, 39000, 30.0),
            RateLimit(30000, 0, 20.5),
            RateLimit(8000, 8000, 0.0),
        ),
    ),
    "groq": (
        {
            "x-ratelimit-limit-requests": "14400",
            "x-ratelimit-remaining-requests": "14370",
            "x-ratelimit-reset-requests": "2m59.56s",
            "x-ratelimit-limit-tokens": "18000",
            "x-ratelimit-remaining-tokens": "17997",
            "x-ratelimit-reset-tokens": "7.66s",
        },
        RateLimits(RateLimit(14400, 14370, 179.56), RateLimit(18000, 17997, 7.66)),
    ),
    "azure": (
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-remaining-tokens": "100",
            "x-ratelimit-reset-requests": "1",
        },
        RateLimits(RateLimit(None, 0, 1.0), RateLimit(None, 100, None)),
    ),
    "mistral": (
        {
            "x-ratelimit-limit-req-minute": "720",
            "x-ratelimit-remaining-req-minute": "717",
            "x-ratelimit-limit-tokens-minute": "5000000",
            "x-ratelimit-remaining-tokens-minute": "4999911",
            "x-ratelimit-tokens-query-cost": "52",
        },
        RateLimits(RateLimit(720, 717, None), RateLimit(5000000, 4999911, None)),
    ),
    "mistral by size": (
        {"ratelimitbysize-limit": "500000", "ratelimitbysize-remaining": "0", "ratelimitbysize-reset": "52"},
        RateLimits(tokens=RateLimit(500000, 0, 52.0)),
    ),
    "mistral by size and minute": (
        {"x-ratelimitbysize-limit-minute": "500000", "x-ratelimitbysize-remaining-minute": "4"},
        RateLimits(tokens=RateLimit(500000, 4, None)),
    ),
    "openrouter": (
        {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int((NOW + 12) * 1000))},
        RateLimits(RateLimit(20, 0, 12.0)),
    ),
    "github": (
        {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "3", "x-ratelimit-reset": str(int(NOW + 90))},
        RateLimits(RateLimit(20, 3, 90.0)),
    ),
    "fireworks": (
        {
            "x-ratelimit-limit-requests": "600",
            "x-ratelimit-limit-tokens-prompt": "60000",
            "x-ratelimit-remaining-tokens-generated": "7",
        },
        RateLimits(
            RateLimit(600, None, None),
            input_tokens=RateLimit(60000, None, None),
            output_tokens=RateLimit(None, 7, None),
        ),
    ),
    "together": (
        {"x-ratelimit-limit": "10", "x-tokenlimit-limit": "3000", "x-tokenlimit-remaining": "2000"},
        RateLimits(RateLimit(10, None, None), RateLimit(3000, 2000, None)),
    ),
    "ietf, three fields": (
        {"ratelimit-limit": "100, 100;w=60", "ratelimit-remaining": "50", "ratelimit-reset": "30"},
        RateLimits(RateLimit(100, 50, 30.0)),
    ),
    "ietf, one field": ({"ratelimit": '"default";r=50;t=30'}, RateLimits(RateLimit(None, 50, 30.0))),
    "ietf, one field of before": (
        {"ratelimit": "limit=100, remaining=0, reset=5"},
        RateLimits(RateLimit(100, 0, 5.0)),
    ),
    "a date of the past": (
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(NOW - 90))},
        RateLimits(RateLimit(None, 0, 0.0)),
    ),
    "none": ({"content-type": "application/json", "retry-after": "3"}, None),
    "no headers": ({}, None),
    "a policy alone": ({"ratelimit-policy": '"default";q=100;w=60'}, None),
    "garbage": (
        {"x-ratelimit-limit": "many", "x-ratelimit-remaining": "-1", "x-ratelimit-reset": "soon"},
        None,
    ),
    "more than anybody counts": ({"x-ratelimit-limit": "1e300", "x-ratelimit-remaining": "nan"}, None),
}


@pytest.mark.parametrize("case", HEADERS)
def test_every_services_headers(case: str) -> None:
    """The limits, the remaining ones, and the seconds until they reset."""
    headers, expected = HEADERS[case]
    assert RateLimits.of(headers, NOW) == expected


def test_a_missing_limit_is_false_and_its_fields_are_none() -> None:
    """So `limits.tokens.remaining` can be used without a check."""
    limits = RateLimits.of({"x-ratelimit-remaining-requests": "0"})
    assert limits is not None
    assert limits.requests
    assert not limits.tokens
    assert limits.tokens.remaining is None


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        (OPENAI, None),
        (OPENAI | {"x-ratelimit-remaining-requests": "0"}, 0.017),
        (OPENAI | {"x-ratelimit-remaining-requests": "0", "x-ratelimit-remaining-tokens": "0"}, 360.0),
        (ANTHROPIC, 20.5),
        ({"x-ratelimit-remaining": "0"}, None),
    ],
)
def test_the_wait_is_that_of_what_is_used_up(headers: dict[str, str], wait: float | None) -> None:
    """The longest of them; no wait while something remains of all limits."""
    limits = RateLimits.of(headers, NOW)
    assert limits is not None
    assert limits.wait == wait


def test_the_present_is_the_default() -> None:
    """By default, dates are compared with the current time."""
    limits = RateLimits.of({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "4102444800"})  # 2100-01-01
    assert limits is not None
    assert limits.wait is not None
    assert limits.wait > 86400


def test_limits_are_values() -> None:
    """Comparable, hashable, picklable."""
    limits = RateLimits.of(ANTHROPIC, NOW)
    assert pickle.loads(pickle.dumps(limits)) == limits
    assert len({limits, RateLimits.of(ANTHROPIC, NOW)}) == 1


@given(
    st.dictionaries(
        st.sampled_from(
            [*OPENAI, *ANTHROPIC, "x-ratelimit-limit", "x-ratelimit-reset", "ratelimit", "ratelimit-reset"]
        ),
        st.text(max_size=30)
        | st.integers().map(str)
        | st.floats().map(str)
        | st.datetimes().map(lambda at: at.isoformat() + "Z"),
    )
)
def test_no_header_is_an_error(headers: dict[str, str]) -> None:
    """Any headers give numbers from 0, or None."""
    limits = RateLimits.of(headers, NOW)
    if limits is not None:
        for limit in (limits.requests, limits.tokens, limits.input_tokens, limits.output_tokens):
            assert limit.limit is None or limit.limit >= 0
            assert limit.remaining is None or limit.remaining >= 0
            assert limit.reset_seconds is None or 0 <= limit.reset_seconds < float("inf")


class TestWaits:
    """Durations, dates and words."""

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("6m0s", 360.0),
            ("17ms", 0.017),
            ("1.5s", 1.5),
            (" 46s ", 46.0),
            ("1h16m0.667923083s", 4560.667923083),
            ("2d", 172800.0),
            ("", None),
            ("46", None),
            ("s", None),
            ("-1s", None),
            ("1s later", None),
            ("1 s", None),
            ("1y", None),
            ("9" * 50 + "s", None),
            ("1s" * 100, None),
        ],
    )
    def test_durations(self, text: str, seconds: float | None) -> None:
        """The short form only."""
        assert duration_seconds(text) == (None if seconds is None else pytest.approx(seconds))

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("Rate limit reached. Please try again in 20ms. Visit our page.", 0.02),
            ("Please try again in 1.2s", 1.2),
            ("Please try again in 7m12.432s. Need more tokens?", 432.432),
            ("try again in 1m30s", 90.0),
            ("try again in 6m0s.", 360.0),
            ("Please retry in 46.117342519s.", 46.117342519),
            ("Please retry after 5 seconds. Please go here", 5.0),
            ("Retry after 1 second", 1.0),
            ("Please wait 10 seconds and try again", 10.0),
            ("Please wait for 2 minutes", 120.0),
            ("try again in 1 minute and 30 seconds", 90.0),
            ("Try again in 100 milliseconds", 0.1),
            ("Your quota will reset after 14h20m5s.", 51605.0),
            ("Quota will be replenished in 2 days.", 172800.0),
            ("Please wait before trying again, try again in 3s", 3.0),
            ("try again later", None),
            ("try again in 5", None),
            ("try again in 3 more requests", None),
            ("try again at 10:30", None),
            ("retry after 1e9s", None),
            ("wait -5 seconds", None),
            ("it took 5 seconds", None),
            ("", None),
        ],
    )
    def test_words(self, text: str, seconds: float | None) -> None:
        """The wait in a message, in the wordings of the services."""
        assert wait_in_text(text) == (None if seconds is None else pytest.approx(seconds))

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("2027-01-15T08:00:10Z", 10.0),
            ("2027-01-15t08:00:10.5z", 10.5),
            ("2027-01-15T09:00:10+01:00", 10.0),
            ("2027-01-15T08:00:10.123456789Z", 10.123456),
            ("2020-01-01T00:00:00Z", 0.0),
            ("0001-01-01T00:00:00+23:59", 0.0),
            ("2027-13-15T08:00:10Z", None),
            ("2027-01-15T08:00:10", None),
            ("tomorrow", None),
        ],
    )
    def test_dates(self, text: str, seconds: float | None) -> None:
        """RFC 3339, with any number of digits, on every version of Python."""
        assert seconds_until(text, NOW) == seconds

    @given(st.text(max_size=60))
    def test_no_text_is_an_error(self, text: str) -> None:
        """A wait is never negative or infinite."""
        for found in (
            wait_in_text(text),
            wait_in_text(f"try again in {text}"),
            duration_seconds(text),
            seconds_until(text, NOW),
            number(text),
        ):
            assert found is None or 0 <= found < float("inf")
