"""When a failed call is repeated, and how long to wait before: pure rules, no clock and no network."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from llmbridge.errors import ConfigError

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Retry", "RetryLike", "retry_after_seconds"]


_DOUBLINGS = 64
_PREFIXES = ("", "llm_provider-")  # LiteLLM passes the header of the service behind it on under this name


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how soon a call that failed before its first piece is repeated.

    Args:
        attempts: Repetitions after the first try; 0 for none.
        backoff: Seconds before the first repetition, doubled for each further one, and shortened at random by up to a
            quarter so that many clients do not come back at once.
        max_backoff: The longest wait of that kind, in seconds.
        max_retry_after: The longest wait that a service may ask for, in seconds; if it asks for more, the call fails
            at once with that error.

    Raises:
        ConfigError: A value is negative or no number.

    Example:
        >>> Retry(attempts=5).max_backoff
        8.0
    """

    attempts: int = 2
    backoff: float = 0.5
    max_backoff: float = 8.0
    max_retry_after: float = 120.0

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or self.attempts < 0:
            raise ConfigError(f"retries must be a whole number from 0, or a Retry, not {self.attempts!r}")
        for name in ("backoff", "max_backoff", "max_retry_after"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ConfigError(f"{name} must be a number of seconds from 0, not {value!r}")

    @classmethod
    def of(cls, value: RetryLike) -> Retry:
        """The policy that `value` stands for: None the default, a number the repetitions."""
        if value is None:
            return cls()
        return value if isinstance(value, Retry) else cls(attempts=value)

    def wait(self, attempt: int, retry_after: float | None) -> float | None:
        """Seconds to wait before repetition number `attempt` (from 0), or None to give up.

        Args:
            attempt: How many repetitions there were before.
            retry_after: What the service asked for.
        """
        if attempt >= self.attempts:
            return None
        if retry_after is not None:
            return retry_after if retry_after <= self.max_retry_after else None
        jitter = 1 - 0.25 * random.random()  # noqa: S311 - spreads load, guards nothing
        return float(min(self.backoff * 2 ** min(attempt, _DOUBLINGS), self.max_backoff)) * jitter


RetryLike = Union[None, int, Retry]


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a service asks to wait; None if it does not say, or says it in a way nobody understands.

    Args:
        headers: Of the response; looked up in lower case.
        now: For a date; the present time if not given.

    Example:
        >>> retry_after_seconds({"retry-after-ms": "250"}), retry_after_seconds({"retry-after": "soon"})
        (0.25, None)

    Source:
        RFC 9110 10.2.3 (seconds or date); `retry-after-ms` is sent by OpenAI and Azure.
    """
    for prefix in _PREFIXES:
        milliseconds = _number(headers.get(f"{prefix}retry-after-ms", ""))
        if milliseconds is not None:
            return milliseconds / 1000
        if text := headers.get(f"{prefix}retry-after", "").strip():
            seconds = _number(text)
            return _seconds_until(text, now) if seconds is None else seconds
    return None


def _seconds_until(text: str, now: datetime | None) -> float | None:
    from datetime import datetime, timezone  # these two cost more than the rest of this package's import
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - (now or datetime.now(timezone.utc))).total_seconds())


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None
