"""How many requests to send at once, learned from the answers: pure rules, without a clock or a network.

The width doubles until the service refuses a request. From then on it grows by a twentieth each round, as long as it is
used, and faster again once it is beyond the width at which it was refused. If a wider round meets refusals and the one
before met none, it goes back, and stays there for some rounds. It shrinks by three tenths when a round has at least
three refusals and they are 15 % of it; a few scattered refusals leave it alone. If the service refuses most requests,
it counts them by time: from then on they are spread over time, as many a second as it has taken, and the width only
grows. These rules were measured against services that allow 60 requests a second, have 24 places, or refuse 5 % at
random; simpler ones lose rows.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from statistics import median

__all__ = ["Width"]

_START, _HIGH = 32, 512
_CUT, _STEP = 0.7, 0.05
_FEWEST, _SHARE = 3, 0.15  # refusals that count
_SHORTEST_ROUND = 20  # answers: fewer would not show a share
_ROUND_SECONDS = 1.0  # once it is known where the limit is: services count by the second, or longer
_FEW = 8  # answers: as many must be there before all wait
_FRESH = 0.1  # share of the last answer in what is typical
_LONGEST_ECHO = 1.0  # seconds
_SLOWER = 3.0  # times the best round: a service that puts what is too much into a queue
_FASTER = 1.5  # times the rows a second of that round, which make it worth the wait
_STAY = 4, 16  # rounds: the first time, and at most; twice as many each time
_PACE_STEP = 0.1  # the part by which the requests a second grow, doubled each time; half of it near the limit
_PACE_SHARE = 0.02  # refusals that are too many
_LATE = 0.05  # seconds that the next requests make up for
_HOPELESS, _HOPELESS_SECONDS = 10, 300.0


class Width:
    """The width of a run, one thread's own.

    Args:
        fixed: The number of requests at once; None adapts it.
        most: The upper limit.
        start: The width to begin with.

    Attributes:
        now: How many requests may be under way.

    Example:
        >>> width = Width(None, 100)
        >>> for number in range(32):
        ...     width.heard(sent=0.0, now=1.0, running=32)
        >>> width.now
        64
    """

    def __init__(self, fixed: int | None, most: int | None = None, start: int | None = None) -> None:
        self._high = min(_HIGH, most or _HIGH)
        self._adapts = fixed is None
        self.now = min(start or _START, self._high) if fixed is None else fixed
        self._paused_until = float("-inf")
        self._pace = _Pace()
        self._resting: deque[float] = deque()  # until when places are not given to the next
        self._typical = 0.0  # seconds of an answer
        self._step = 1.0  # the part by which it grows
        self._limit = 0  # where it was cut last
        self._without: int | None = None  # the width of the last round, if it had no refusals
        self._stays = self._stay = 0  # rounds that it stays as wide: still, and when it began to
        self._cut_at = float("-inf")
        self._best: tuple[float, float] | None = None  # seconds an answer, answers a second
        self._last: deque[bool] = deque(maxlen=max(self._high, _SHORTEST_ROUND))  # whether they were refused
        self._in_a_row = 0
        self._refused_since = 0.0
        self._new_round(float("inf"))

    def _new_round(self, now: float) -> None:
        self._began = now
        self._seconds: list[float] = []
        self._answers = self._refused = 0
        self._full = False

    def heard(self, sent: float, now: float, running: int, refused: bool = False, wait: float = 0.0) -> None:
        """A request is over.

        Args:
            sent: When it was sent.
            now: When it was over.
            running: How many were under way then, this one included.
            refused: Whether the service refused it because there were too many.
            wait: The wait that the service demanded, in seconds.
        """
        self._in_a_row = self._in_a_row + 1 if refused else 0
        if self._in_a_row == 1:
            self._refused_since = now
        self._last.append(refused)
        self._pace.heard(sent, now, refused)
        if refused and self._most_are_refused():
            self._paused_until = max(self._paused_until, now + wait)
            self._last.clear()
            if sent >= self._cut_at and not self._pace.known:
                self._cut(now, wait)
            if self._adapts:
                self._pace.learn(now, wait)
        if refused:
            self._resting.append(now + self._typical)
        else:
            self._typical += (now - sent - self._typical) * (_FRESH if self._typical else 1.0)
        if sent < self._cut_at:
            return  # it was sent at the width before the cut
        self._answers += 1
        self._full = self._full or running + len(self._resting) >= self.now
        if refused:
            self._refused += 1
            too_many = self._refused >= max(_FEWEST, _SHARE * max(self.now, self._answers))
            if too_many and not self._pace.known:
                self._cut(now, wait)
                return
        else:
            self._seconds.append(now - sent)
        long_enough = self._step == 1.0 or now >= self._began + _ROUND_SECONDS
        if self._answers >= max(self.now, _SHORTEST_ROUND) and long_enough:
            self._end_round(now)

    def sent(self, now: float) -> None:
        """A request was sent."""
        self._began = min(self._began, now)
        self._pace.sent(now)

    def _most_are_refused(self) -> bool:
        """Whether more than half of the last answers are refusals, of as many as a round has: refusals come first."""
        size = max(self.now, _FEW)
        return len(self._last) >= size and 2 * sum(islice(reversed(self._last), size)) > size

    def _end_round(self, now: float) -> None:
        if self._queues(now):
            self._cut(now)
            self._limit = self._high  # not an accident
            return
        before, self._without = self._without, None if self._refused else self.now
        if self._adapts and self._refused and self._step == _STEP and before is not None and before < self.now:
            self.now = self._without = before
            self._stays = self._stay = min(max(_STAY[0], 2 * self._stay), _STAY[1])
        elif self._stays:
            self._stays -= 1
        elif self._adapts and self._full:
            step = 1.0 if self._pace.known else self._step
            self.now = min(self.now + max(1, int(self.now * step)), self._high)
            if self.now > self._limit:
                self._step = min(1.0, 2 * self._step)  # the last cut may have been an accident
        self._new_round(now)

    def _queues(self, now: float) -> bool:
        """Whether the service makes the rows wait instead of refusing them."""
        if not self._seconds:
            return False
        took, rate = median(self._seconds), self._answers / max(now - self._began, 1e-9)
        if self._best is None or took < self._best[0]:
            self._best = took, rate
            return False
        slower = took > _SLOWER * self._best[0] and rate < _FASTER * self._best[1]
        if slower:
            self._best = took, rate  # the rows may have become longer: one cut is enough
        return slower

    def _cut(self, now: float, wait: float = 0.0) -> None:
        self._step, self._limit, self._without, self._stays = _STEP, self.now, None, 0
        self._cut_at = now + min(wait, _LONGEST_ECHO)  # until then, nobody expects anything but more refusals
        if self._adapts and self.now > 1:
            self.now = int(self.now * _CUT)
        self._new_round(now)

    def room(self, running: int, now: float) -> bool:
        """Whether another request may be sent.

        Refusals come sooner than answers: the place of one rests for as long as an answer would have taken, or it
        would be refused again and again. If most requests are refused, all places rest for as long as the service asks.
        """
        while self._resting and self._resting[0] <= now:
            self._resting.popleft()
        free = now >= max(self._paused_until, self._pace.next_at)
        return free and running + len(self._resting) < self.now

    def room_at(self, running: int) -> float:
        """When there may be room though no request ends before."""
        if running >= self.now:
            return float("inf")
        taken = running + len(self._resting) >= self.now
        free = max(self._paused_until, self._pace.next_at)
        return max(free, self._resting[0]) if taken else free

    def hopeless(self, now: float) -> bool:
        """Whether the service has refused everything for minutes."""
        return self._in_a_row >= _HOPELESS and now - self._refused_since >= _HOPELESS_SECONDS


class _Pace:
    """How many requests a second to send to a service that counts them by time. Any number, until it refuses most.

    Attributes:
        next_at: When the next may be sent.
    """

    def __init__(self) -> None:
        self.next_at = float("-inf")
        self._gap = 0.0  # seconds from one request to the next
        self._step = _PACE_STEP
        self._new_round(float("inf"))

    @property
    def known(self) -> bool:
        """Whether the service counts by time."""
        return self._gap > 0

    def _new_round(self, now: float) -> None:
        self._began = now
        self._sent = self._refused = 0

    def sent(self, now: float) -> None:
        """A request was sent."""
        self._began = min(self._began, now)
        self._sent += 1
        if self._gap:
            self.next_at = max(self.next_at, now - _LATE) + self._gap

    def learn(self, now: float, wait: float) -> None:
        """Most requests are refused: until the end of the wait, it will have taken what it takes in that time."""
        taken, seconds = self._sent - self._refused, now + wait - self._began
        if taken > 0 and seconds >= _ROUND_SECONDS:
            gap = seconds / taken
            self._gap = max(self._gap, min(gap, 2 * self._gap) if self._gap else gap)  # the round may have just begun
            self._step = _PACE_STEP
        self._new_round(now + wait)

    def heard(self, sent: float, now: float, refused: bool) -> None:
        """A request is over."""
        self._refused += refused and sent >= self._began
        seconds = now - self._began
        if not self._gap or seconds < _ROUND_SECONDS or self._sent <= self._refused:
            return
        if self._refused > _PACE_SHARE * self._sent:
            self._gap = max(self._gap, seconds / (self._sent - self._refused))
            self._step = _PACE_STEP / 2
        elif not self._refused and self._sent * self._gap > 0.8 * seconds:
            self._gap /= 1 + self._step
            self._step = min(1.0, 2 * self._step)
        self._new_round(now)
