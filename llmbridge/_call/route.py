"""Where a call can go: one model of one provider, and the memory of how it did lately (a circuit breaker)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from llmbridge._locks import keep_lock_free
from llmbridge.errors import (
    BadRequest,
    Cancelled,
    ConfigError,
    ContentFiltered,
    LLMBridgeError,
    ServiceError,
)
from llmbridge.provider import Provider
from llmbridge.retry import Retry

if TYPE_CHECKING:
    from llmbridge._transport import Call, HTTPRequest, Transport
    from llmbridge.limits import Limiter

__all__ = ["Breaker", "Route", "located"]

COOL_DOWN = 30.0
"""Seconds for which a model that failed is left out, unless its service says how long."""

_LONGEST = 600.0
_NEVER = float("-inf")


class Breaker:
    """Remembers that a model failed, so that the next calls do not wait for it in vain. Shared between threads.

    Closed, it lets all calls pass. A failure opens it for a cool-down; then one call is let through as a trial, which
    closes it or opens it again. A trial that is never heard of again (its process was forked, say) is followed by
    another one after a further cool-down.

    Nothing here waits for the lock: a garbage collection inside may end another call, which comes here as well.

    Args:
        clock: Seconds; another one for tests.

    Example:
        >>> breaker = Breaker(clock=lambda: 0.0)
        >>> breaker.admits()
        True
        >>> breaker.failed(LLMBridgeError("down"))
        >>> breaker.admits()
        False
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._open_until: float | None = None
        self._trial_until = _NEVER
        self._trial: object = None
        self._lock: threading.Lock
        keep_lock_free(self)

    def admits(self, call: object = None) -> bool:
        """Whether a call may try. Who is let through has to say how it went: succeeded, failed or gave_up.

        Args:
            call: Anything that stands for it, to be named again in `failed` and `gave_up`.
        """
        open_until = self._open_until
        if open_until is None:
            return True
        if not self._lock.acquire(blocking=False):
            return False  # somebody else is about to become the trial
        try:
            now = self._clock()
            if now < max(open_until, self._trial_until):
                return False
            self._trial, self._trial_until = call, now + COOL_DOWN
            return True
        finally:
            self._lock.release()

    def succeeded(self) -> None:
        """The model has answered."""
        self._open_until = None
        self._trial_until = _NEVER

    def failed(self, error: LLMBridgeError, call: object = None) -> None:
        """The model has not answered. What is the request's own fault says nothing about the model."""
        if not _counts(error):
            self.gave_up(call)
            return
        wait = error.retry_after if isinstance(error, ServiceError) else None
        until = self._clock() + min(COOL_DOWN if wait is None else wait, _LONGEST)
        self._open_until = max(self._open_until or _NEVER, until)
        self._trial_until = _NEVER

    def gave_up(self, call: object = None) -> None:
        """The call ended before it was known. One that was let through earlier leaves the trial of another alone."""
        if self._trial is call:
            self._trial_until = _NEVER


def _counts(error: LLMBridgeError) -> bool:
    return not isinstance(error, (BadRequest, ContentFiltered, ConfigError, Cancelled))


@dataclass(eq=False)
class Route:
    """One model of one provider.

    Args:
        provider: Decodes the answer.
        model: The model's name.
        prepare: Makes the request of its route, just before it is sent. May block, within the limits of the call.
        transport: Sends it.
        retry: When to try again.
        answer_tool: The tool whose arguments are the answer's text, if there is one.
        breaker: Its memory.
        limiter: Of its own client, if that has limits; they count in place of those of the call.
    """

    provider: type[Provider]
    model: str
    prepare: Callable[[Route, Call], HTTPRequest]
    transport: Callable[[], Transport]
    retry: Retry
    answer_tool: str | None = None
    breaker: Breaker = field(default_factory=Breaker)
    limiter: Limiter | None = None


def located(provider: type[Provider], model: str, call: Call) -> tuple[str, str]:
    """The base URL and the model's name, from a provider that may have to ask for them first.

    Raises:
        Cancelled, ClockExpired: The call has ended meanwhile.
        LLMBridgeError: There is none.
    """
    begin = getattr(provider, "begin_search", None)  # of `local` alone: all others know
    if begin is None:
        return provider.locate(model)
    search = begin(model, lambda: call.left)
    found: tuple[str, str] = call.search(search.result, search.stop)
    return found
