"""The rate limits in the headers of an answer, in one form for all services."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from llmbridge._service_errors.waits import PREFIXES, duration_seconds, number, seconds_until

__all__ = ["RateLimit", "RateLimits"]

_EPOCH_SECONDS = 1e8  # a larger number is a date: as a wait it would be three years
_EPOCH_MILLISECONDS = 1e11

# For each field and kind of limit, the names in use; the first that is there counts.
_NAMES: dict[str, tuple[str, ...]] = {
    "requests": (
        "x-ratelimit-{}-requests",
        "anthropic-ratelimit-requests-{}",
        "x-ratelimit-{}-req-minute",
        "x-ratelimit-{}",
        "ratelimit-{}",
    ),
    "tokens": (
        "x-ratelimit-{}-tokens",
        "anthropic-ratelimit-tokens-{}",
        "x-ratelimit-{}-tokens-minute",
        "x-ratelimitbysize-{}-minute",
        "ratelimitbysize-{}",
        "x-tokenlimit-{}",
    ),
    "input_tokens": ("anthropic-ratelimit-input-tokens-{}", "x-ratelimit-{}-tokens-prompt"),
    "output_tokens": ("anthropic-ratelimit-output-tokens-{}", "x-ratelimit-{}-tokens-generated"),
}


@dataclass(frozen=True, slots=True)
class RateLimit:
    """One limit; fields that the service did not send are None.

    Args:
        limit: The most in the service's time span (usually a minute, for some a day).
        remaining: How many are left.
        reset_seconds: Seconds, from the answer on, until all of them are back.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_seconds: float | None = None

    def __bool__(self) -> bool:
        return (self.limit, self.remaining, self.reset_seconds) != (None, None, None)


_UNKNOWN = RateLimit()


@dataclass(frozen=True, slots=True)
class RateLimits:
    """The limits in an answer's headers. A missing limit is false, and all its fields are None.

    Args:
        requests: Requests.
        tokens: Tokens, of the prompt and the answer together.
        input_tokens: Tokens of the prompt, if they have their own limit.
        output_tokens: Tokens of the answer, if they have their own limit.

    Example:
        >>> headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6m0s"}
        >>> limits = RateLimits.of(headers)
        >>> limits.requests
        RateLimit(limit=None, remaining=0, reset_seconds=360.0)
        >>> limits.tokens.remaining is None, limits.wait
        (True, 360.0)

    Source:
        OpenAI, Groq and Azure (`x-ratelimit-*-requests`, `-tokens`; "6m0s" or seconds), Anthropic
        (`anthropic-ratelimit-*`, RFC 3339), Mistral (`*-minute`, `ratelimitbysize-*`), OpenRouter (`x-ratelimit-*`,
        milliseconds since 1970), Fireworks (`-tokens-prompt`), Together (`x-tokenlimit-*`), and the IETF's draft
        "RateLimit header fields for HTTP" in its older form of three fields and its newer one of a single field.
    """

    requests: RateLimit = _UNKNOWN
    tokens: RateLimit = _UNKNOWN
    input_tokens: RateLimit = _UNKNOWN
    output_tokens: RateLimit = _UNKNOWN

    @classmethod
    def of(cls, headers: Mapping[str, str], now: float | None = None) -> RateLimits | None:
        """The limits in the headers of an answer, or None if there are none.

        Args:
            headers: Names in lower case.
            now: For dates: seconds as of `time.time()`; the current time if not given.
        """
        if not any("ratelimit" in name or "tokenlimit" in name for name in headers):
            return None
        now = time.time() if now is None else now
        found = {kind: _limit(headers, names, now) for kind, names in _NAMES.items()}
        found["requests"] = found["requests"] or _single_field(headers.get("ratelimit", ""))
        return cls(**found) if any(found.values()) else None

    @property
    def wait(self) -> float | None:
        """Seconds until all used-up limits are reset; None if none is used up."""
        return max(
            (
                limit.reset_seconds
                for limit in (self.requests, self.tokens, self.input_tokens, self.output_tokens)
                if limit.remaining == 0 and limit.reset_seconds is not None
            ),
            default=None,
        )


def _limit(headers: Mapping[str, str], names: tuple[str, ...], now: float) -> RateLimit:
    def text(field: str) -> str:
        for prefix in PREFIXES:
            for name in names:
                if value := headers.get(prefix + name.format(field)):
                    return value
        return ""

    return RateLimit(_count(text("limit")), _count(text("remaining")), _reset_seconds(text("reset"), now))


def _count(text: str) -> int | None:
    """A whole number from 0; the first of the IETF's list of limits ("100, 100;w=60")."""
    value = number(text.split(",")[0].split(";")[0])
    return None if value is None or value > 1e15 else int(value)


def _reset_seconds(text: str, now: float) -> float | None:
    value = number(text)
    if value is None:
        seconds = duration_seconds(text)
        return seconds_until(text, now) if seconds is None else seconds
    if value >= _EPOCH_MILLISECONDS:
        return max(0.0, value / 1000 - now)
    return max(0.0, value - now) if value >= _EPOCH_SECONDS else value


def _single_field(text: str) -> RateLimit:
    """The limit in a `ratelimit` field: `limit=100, remaining=50, reset=30`, or `"default";r=50;t=30`."""
    fields: dict[str, str] = dict(re.findall(r"\b(limit|remaining|reset|r|t)=(\d{1,12})\b", text[:1000]))
    remaining, reset = fields.get("remaining", fields.get("r", "")), fields.get("reset", fields.get("t", ""))
    return RateLimit(_count(fields.get("limit", "")), _count(remaining), number(reset))
