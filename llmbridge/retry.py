"""When to retry a failed call, and how long to wait before: pure rules, without a clock or network."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Union

from llmbridge._service_errors.waits import retry_after_seconds
from llmbridge.errors import (
    FINAL,
    ConfigError,
    LLMBridgeError,
    ServiceError,
)

__all__ = ["Retry", "RetryAttempt", "RetryLike", "retry_after_seconds"]

_DOUBLINGS = 64
_MOST_SPREAD = 0.25


@dataclass(frozen=True, slots=True)
class RetryAttempt:
    """A retry that is about to wait.

    Args:
        error: Why the last try failed.
        number: Which retry it is, from 1.
        wait: Seconds until it is sent.
    """

    error: LLMBridgeError
    number: int
    wait: float


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how soon to retry a call that failed before its first piece.

    Args:
        times: Retries after the first try; 0 for none.
        backoff: Seconds before the first retry, doubled for each further one.
        max_backoff: The longest wait of that kind, in seconds.
        max_retry_after: The longest `retry_after` of a service to wait for, in seconds; if it is longer, the call fails
            at once with that error.
        jitter: The part of a wait, from 0 to 1, that may be changed at random, so that many clients do not return at
            once: a wait of `backoff` gets shorter, a wait set by the service longer, by at most a quarter.
        statuses: The HTTP statuses to retry. None is the default rule: 408, 409, 425, 429, and from 500 on, unless the
            service says that a retry is useless. Your own statuses replace that rule. Failed connections are retried in
            any case; an account without credit, a wrong key, a prompt that is too long or forbidden by the content
            policy never are.
        on_retry: Called before each wait, in the thread that waits. An exception from it ends the call.

    Raises:
        ConfigError: A value is negative, not a number, not a status, or not callable.

    Example:
        >>> Retry(times=5).max_backoff
        8.0
        >>> Retry(statuses=[429, 503], jitter=0).statuses == {429, 503}
        True
    """

    times: int = 2
    backoff: float = 0.5
    max_backoff: float = 8.0
    max_retry_after: float = 120.0
    jitter: float = 0.25
    statuses: Collection[int] | None = None
    on_retry: Callable[[RetryAttempt], object] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.times, bool) or not isinstance(self.times, int) or self.times < 0:
            raise ConfigError(f"retries must be a whole number from 0, or a Retry, not {self.times!r}")
        for name in ("backoff", "max_backoff", "max_retry_after"):
            if not _is_number(value := getattr(self, name)):
                raise ConfigError(f"{name} must be a number of seconds from 0, not {value!r}")
        if not (_is_number(self.jitter) and self.jitter <= 1):
            raise ConfigError(f"jitter must be a number from 0 to 1, not {self.jitter!r}")
        if self.statuses is not None:
            object.__setattr__(self, "statuses", _checked_statuses(self.statuses))
        if self.on_retry is not None and not callable(self.on_retry):
            raise ConfigError(f"on_retry must be a function of one RetryAttempt, not {self.on_retry!r}")

    @classmethod
    def of(cls, value: RetryLike) -> Retry:
        """The policy for `value`: None means the default, a number the retries."""
        if value is None:
            return cls()
        return value if isinstance(value, Retry) else cls(times=value)

    def decide(self, error: BaseException, number: int) -> float | None:
        """Seconds to wait at least before retrying after `error`, or None to give up; see `spread`.

        Args:
            error: Why the call failed, before its first piece.
            number: How many retries there were before.

        Example:
            >>> from llmbridge.errors import RateLimited
            >>> error = RateLimited("slow down", status=429, retry_after=3.0, retryable=True)
            >>> [Retry(times=2).decide(error, number) for number in range(3)]
            [3.0, 3.0, None]
        """
        if not self.covers(error):
            return None
        return self.wait(number, getattr(error, "retry_after", None))

    def covers(self, error: BaseException) -> bool:
        """Whether the policy retries after an error of this kind at all."""
        if isinstance(error, FINAL):
            return False
        if self.statuses is not None and isinstance(error, ServiceError) and error.status is not None:
            return error.status in self.statuses
        return bool(getattr(error, "retryable", False))

    def wait(self, number: int, retry_after: float | None) -> float | None:
        """Seconds to wait before the next retry, or None to give up.

        Args:
            number: How many retries there were before.
            retry_after: Seconds, as given by the service.
        """
        if number >= self.times:
            return None
        if retry_after is not None:
            return retry_after if retry_after <= self.max_retry_after else None
        shortened = 1 - self.jitter * random.random()  # noqa: S311 - spreads load, guards nothing
        return float(min(self.backoff * 2 ** min(number, _DOUBLINGS), self.max_backoff)) * shortened

    def spread(self, asked: float, number: int) -> float:
        """Lengthens a wait set by the service, so that the clients it rejected do not all return at once.

        From the third retry on, it is at least `backoff`, doubled each time, up to `max_backoff`: the service's wait
        was too short.

        Args:
            asked: The wait from `wait`, in seconds.
            number: How many retries there were before.

        Example:
            >>> 3.0 <= Retry().spread(3.0, 0) <= 3.75
            True
            >>> [Retry(times=9, jitter=0).spread(1.0, number) for number in range(6)]
            [1.0, 1.0, 2.0, 4.0, 8.0, 8.0]
        """
        if number > 1:
            asked = max(asked, min(max(asked, self.backoff) * 2 ** min(number - 1, _DOUBLINGS), self.max_backoff))
        return asked * (1 + min(self.jitter, _MOST_SPREAD) * random.random())  # noqa: S311

    def announce(self, error: LLMBridgeError, number: int, wait: float) -> None:
        """Calls `on_retry`, if there is one, with the arguments and the result of `decide`."""
        if self.on_retry is not None:
            self.on_retry(RetryAttempt(error, number + 1, wait))


RetryLike = Union[None, int, Retry]


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value < float("inf")


def _checked_statuses(statuses: Any) -> frozenset[int]:
    if isinstance(statuses, Collection) and not isinstance(statuses, (str, bytes)):
        found = list(statuses)
        if all(isinstance(status, int) and not isinstance(status, bool) and 400 <= status < 600 for status in found):
            return frozenset(found)
    raise ConfigError(f"statuses must be HTTP statuses from 400 to 599, as [429, 503], not {statuses!r}")
