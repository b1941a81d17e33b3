"""Client-side rate limits: how many requests and tokens per minute, and how many requests at once, a client may send.

There is no thread and no timer here. A call that wants to send a request puts a ticket into the queue, gets its delay,
and waits in its own way. All calls of a client share one queue, first come, first served. The methods that end a call
(`release`, `pause`, `learn`) may be called from a garbage collection.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmbridge._locks import keep_lock_free, monotonic
from llmbridge.errors import ConfigError
from llmbridge.rate_limits import RateLimits

__all__ = ["Limiter", "Limits", "Ticket", "estimate_tokens"]

_State = Literal["waiting", "granted", "over"]
_MINUTE = 60.0
_SECOND = 1.05  # a little more than one, since requests take unequally long to arrive
_BURST = 5
_ROUNDING = 1e-6
_LONGEST_PAUSE = 120.0
_RECENT = 20  # last answers: all calls wait if more than half of these are refusals, and at least so many:
_FEWEST_REFUSALS = 3
_SPREAD = 0.25  # the calls that waited are spread over this part of the wait afterwards
_MOST_TOKENS = 10_000_000  # a higher count for one request is ignored
_CHARACTERS_PER_TOKEN = 4
_TOKENS_OF_A_FILE = 1_000
_FILE_FIELDS = frozenset({"data", "file_data", "images", "b64_json"})
_ANSWER_FIELDS = frozenset(
    {"max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "num_predict"}
)


@dataclass(frozen=True, slots=True)
class Limits:
    """The rate limits of a client; None means no limit.

    Args:
        requests_per_minute: Requests that begin within any 60 seconds. Beyond `burst` they are spread over the minute,
            since many services count by the second.
        tokens_per_minute: Tokens of prompts and answers within any 60 seconds: estimated when a request begins, and
            corrected with the service's own count. A request larger than the limit is sent when nothing else was sent
            for a minute.
        concurrency: Requests in progress at once, until the end of their answers.
        burst: How many of `requests_per_minute` may begin at once after a quiet time; 5 if missing. The value of
            `requests_per_minute` lets all of them begin at once.

    Raises:
        ConfigError: A value is not a whole number from 1, or `burst` is set without `requests_per_minute`.

    Example:
        >>> Limits(requests_per_minute=60, concurrency=4).tokens_per_minute is None
        True
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    burst: int | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute", "concurrency", "burst"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ConfigError(f"{name} must be a whole number from 1, or None for no limit, not {value!r}")
        if self.burst is not None and self.requests_per_minute is None:
            raise ConfigError("burst is a part of requests_per_minute: set that as well")


class Ticket:
    """A place in the queue of a `Limiter`, and then the permission to send one request.

    Keep it before it enters the queue, and always give it back with `release`: a waiting ticket holds up all those
    behind it, a granted one takes up a place of `concurrency`. It can be released from any thread, in any state,
    repeatedly, and from a garbage collection.

    Args:
        limiter: The limiter whose queue it will enter; see `Limiter.enter`.
        tokens: How many the request is likely to take; see `estimate_tokens`.
        wake: Called when it is worth calling `delay` again: from any thread, so it may do no more than set a flag.
    """

    __slots__ = ("_limiter", "began", "refused", "state", "tokens", "wake")

    def __init__(self, limiter: Limiter, tokens: int, wake: Callable[[], object]) -> None:
        self._limiter = limiter
        self.wake = wake
        self.tokens = tokens
        self.state: _State = "waiting"
        self.began = 0.0
        self.refused = False

    def delay(self) -> float | None:
        """0 to go, else seconds after which to call again; None if that is not known before `wake` is called.

        The call that returns 0 grants the permission: from then on the request counts. Other numbers are estimates:
        call again afterwards, since the delay may have grown.
        """
        return self._limiter.delay_of(self)

    def answered(self) -> None:
        """Notes that the service has answered, with any status."""
        self._limiter.hear(self, None)

    def refuse(self, seconds: float | None) -> None:
        """Notes that the service answered with a rate limit.

        Args:
            seconds: How long to wait; None if it does not say.
        """
        self._limiter.hear(self, seconds or 0.0)

    def release(self, used_tokens: int | None = None) -> None:
        """Ends the request, or leaves the queue.

        Args:
            used_tokens: How many tokens it took, to correct the estimate; None if unknown. 0 for a request that was not
                answered.
        """
        self._limiter.take_back(self, used_tokens)


class Limiter:
    """Lets requests go as `Limits` and the service allow; shared by all calls of a client.

    Args:
        limits: The client's rate limits.
        clock: Seconds from any beginning; for tests.

    Example:
        With a `call` that can be woken and ended from other threads::

            ticket = Ticket(limiter, estimate_tokens(body), wake=call.wake)   # once for each attempt
            try:
                limiter.enter(ticket)
                while (delay := ticket.delay()) != 0:
                    call.rest(delay)            # raises if the call is cancelled or times out
                answer = transport.post(call, request)
                ticket.answered()
                limiter.learn(RateLimits.of(answer.headers))
                ...                             # read the answer to its end
            except RateLimited as error:
                ticket.refuse(error.retry_after)
            finally:
                ticket.release(used_tokens)     # before the wait of a retry, too

        >>> limiter = Limiter(Limits(requests_per_minute=1), clock=lambda: 5.0)
        >>> first, second = Ticket(limiter, 0, print), Ticket(limiter, 0, print)
        >>> limiter.enter(first), limiter.enter(second), first.delay(), second.delay()
        (None, None, 0.0, 60.0)
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._lock: threading.Lock
        keep_lock_free(self)
        self._pid = os.getpid()
        self._queue: OrderedDict[Ticket, None] = OrderedDict()  # tickets may leave from the middle
        self._running: set[Ticket] = set()
        self._begun: deque[Ticket] = deque()  # of the last minute
        self._spent = 0  # their tokens
        self._even_at = float("-inf")  # when evenly spread requests will have caught up with those that began
        self._recent: deque[Ticket] = deque(maxlen=_RECENT)  # answered last
        self._paused_until = self._slow_until = float("-inf")
        # A garbage collection inside the lock may end a call, which puts its ticket here without taking the lock.
        self._returned: deque[tuple[Ticket, int | None]] = deque()
        self._pauses: deque[float] = deque()
        self._heard: deque[tuple[Ticket, float | None]] = deque()

    @property
    def waiting(self) -> int:
        """How many tickets are in the queue."""
        return len(self._queue)

    def enter(self, ticket: Ticket) -> None:
        """Puts a ticket of this limiter at the end of the queue."""
        with self._lock:
            if self._pid != os.getpid():
                self._forget_the_parent()
            self._queue[ticket] = None
        self._settle()

    def learn(self, rates: RateLimits | None) -> None:
        """Learns from the headers of a success: if nothing remains of a limit, all requests wait until it resets."""
        if rates is not None:
            self.pause(rates.wait)

    def pause(self, seconds: float | None) -> None:
        """Holds back all requests for that long; None changes nothing, and neither does too long a time.

        The next request then gets the long wait from the service itself, as a typed error.
        """
        if seconds is not None and 0 < seconds <= _LONGEST_PAUSE:
            self._pauses.append(self._clock() + seconds)

    def hear(self, ticket: Ticket, refused_for: float | None) -> None:
        """See `Ticket.answered` and `Ticket.refuse`.

        A refusal concerns only its own request. If most of the recent answers are refusals, all requests wait.
        """
        self._heard.append((ticket, None if refused_for is None else self._clock() + refused_for))

    def delay_of(self, ticket: Ticket) -> float | None:
        """See `Ticket.delay`."""
        with self._lock:
            changed = self._take_in()
            waited = ticket.state == "waiting"
            delay = self._delay_of(ticket) if waited else 0.0
            changed = changed or (waited and ticket.state != "waiting")
            head = self._head() if changed else None
        if head is not None and head is not ticket:
            head.wake()
        self._settle()
        return delay

    def take_back(self, ticket: Ticket, used_tokens: int | None) -> None:
        """See `Ticket.release`."""
        self._returned.append((ticket, used_tokens))
        self._settle()

    def _delay_of(self, ticket: Ticket) -> float | None:
        """The delay of a waiting ticket; inside the lock."""
        if ticket is not self._head():
            return None
        if self.limits.concurrency is not None and len(self._running) >= self.limits.concurrency:
            return None
        now = self._clock()
        self._take_in_answers(now)
        while self._pauses:
            self._paused_until = max(self._paused_until, self._pauses.popleft())
        delay = max(self._paused_until - now, self._delay_by_limits(ticket, now))
        if delay > 0:
            return delay
        del self._queue[ticket]
        if now < self._slow_until:
            self._paused_until = now + (self._slow_until - now) / (len(self._queue) + 1)
        ticket.state, ticket.began = "granted", now
        self._running.add(ticket)
        self._count(ticket)
        return 0.0

    def _count(self, ticket: Ticket) -> None:
        """Counts a request that has begun; inside the lock."""
        if self.limits.requests_per_minute is not None or self.limits.tokens_per_minute is not None:
            self._begun.append(ticket)
            self._spent += ticket.tokens
            pace = _MINUTE / (self.limits.requests_per_minute or float("inf"))
            self._even_at = max(self._even_at, ticket.began) + pace

    def recent(self) -> list[tuple[float, int]]:
        """How many seconds ago the requests of the last minute began, and how many tokens they took; oldest first."""
        with self._lock:
            self._take_in()
            now = self._clock()
            found = [(now - ticket.began, ticket.tokens) for ticket in self._begun if ticket.began + _MINUTE > now]
        self._settle()
        return found

    def resume(self, recent: Iterable[tuple[float, int]]) -> None:
        """Counts requests that another limiter has let go: what its `recent` said."""
        with self._lock:
            now = self._clock()
            for seconds, tokens in recent:
                ticket = Ticket(self, tokens, _ignore)
                ticket.state, ticket.began = "over", now - seconds
                self._count(ticket)
        self._settle()

    def _take_in_answers(self, now: float) -> None:
        """Counts the refusals among the answers; inside the lock."""
        while self._heard:
            ticket, until = self._heard.popleft()
            if until is None:
                self._recent.append(ticket)
                continue
            ticket.refused = True
            recent = [other.refused for other in self._recent if other.began + _MINUTE > now]
            if sum(recent) >= _FEWEST_REFUSALS and 2 * sum(recent) > len(recent) and until <= now + _LONGEST_PAUSE:
                self._paused_until = max(self._paused_until, until)
                self._slow_until = max(self._slow_until, until + _SPREAD * (until - now))

    def _delay_by_limits(self, ticket: Ticket, now: float) -> float:
        """Seconds until enough requests of the last minute are a minute old; inside the lock."""
        while self._begun and self._begun[0].began + _MINUTE <= now:
            self._spent -= self._begun.popleft().tokens
        until = float("-inf")
        requests, tokens = self.limits.requests_per_minute, self.limits.tokens_per_minute
        if requests is not None:
            burst = min(self.limits.burst or _BURST, requests)
            ahead = burst - 1 + _ROUNDING
            until = self._even_at - ahead * _MINUTE / requests - _MINUTE
            if len(self._begun) >= requests:
                until = max(until, self._begun[0].began)
            if len(self._begun) >= (in_a_second := max(burst, requests // 60)):
                until = max(until, self._begun[-in_a_second].began + _SECOND - _MINUTE)
        over = 0 if tokens is None else self._spent + ticket.tokens - tokens
        for earlier in self._begun:
            if over <= 0:
                break
            over -= earlier.tokens
            until = max(until, earlier.began)
        return until + _MINUTE - now

    def _head(self) -> Ticket | None:
        """The next ticket; inside the lock."""
        return next(iter(self._queue), None)

    def _take_in(self) -> bool:
        """Handles released tickets; inside the lock. Returns whether the first ticket's delay may have changed."""
        changed = False
        while self._returned:
            ticket, used_tokens = self._returned.popleft()
            if ticket.state == "waiting":
                self._queue.pop(ticket, None)  # it may have been released before it entered
            elif ticket.state == "granted":
                self._running.discard(ticket)
                counted = ticket.tokens if used_tokens is None or not 0 <= used_tokens <= _MOST_TOKENS else used_tokens
                if ticket.began + _MINUTE > self._clock() and self._begun:
                    self._spent += counted - ticket.tokens
                    ticket.tokens = counted
            changed = changed or ticket.state != "over"
            ticket.state, ticket.wake = "over", _ignore  # the ticket is kept for a while, the call should not be
        return changed

    def _forget_the_parent(self) -> None:
        """After a fork: tickets that wait or run belong to the parent. The requests that it has sent still count."""
        self._pid = os.getpid()
        self._returned.clear()
        for ticket in (*self._queue, *self._running):
            ticket.state = "over"
        self._queue.clear()
        self._running.clear()

    def _settle(self) -> None:
        """Handles tickets that were released while the lock was held; every holder of the lock calls it afterwards."""
        # `with` alone: a Ctrl-C between `acquire` and `try` would leave the lock taken forever.
        while self._returned and not self._lock.locked():
            with self._lock:
                head = self._head() if self._take_in() else None
            if head is not None:
                head.wake()


def _ignore() -> None:
    """The `wake` of a ticket that is over."""


def estimate_tokens(body: Mapping[str, Any]) -> int:
    """A rough estimate of the tokens of a request, prompt and answer together, from its JSON body.

    Counts four characters as a token, a file or image as 1,000 tokens, and the answer at its longest allowed length.
    Code and scripts other than Latin take more tokens than that, answers mostly fewer.


    Example:
        >>> estimate_tokens({"messages": [{"role": "user", "content": "Write a haiku about rain."}], "max_tokens": 50})
        65
    """
    characters, others = 0, 0
    rest: list[tuple[str, Any]] = list(body.items())
    while rest:
        name, value = rest.pop()
        characters += len(name)
        if isinstance(value, str):
            is_file = name in _FILE_FIELDS or value.startswith("data:")
            others += _TOKENS_OF_A_FILE if is_file else 0
            characters += 0 if is_file else len(value)
        elif isinstance(value, Mapping):
            rest.extend((str(key), item) for key, item in value.items())
        elif isinstance(value, (list, tuple)):
            rest.extend((name if name in _FILE_FIELDS else "", item) for item in value)
        elif name in _ANSWER_FIELDS and isinstance(value, int) and value > 0:
            others += value
    return -(-characters // _CHARACTERS_PER_TOKEN) + others
