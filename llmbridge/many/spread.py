"""A run whose rows are sent by the workers of an executor, a shard at a time.

Each place for a shard has its own part of the client's limits and of `concurrency`, and takes over from the shard
before it what was sent within the last minute: so all workers together keep to the limits, without talking to each
other. The input, the order and the journal stay with the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from llmbridge._locks import monotonic
from llmbridge.errors import Cancelled, ConfigError, WorkerLost
from llmbridge.limits import Limits
from llmbridge.many.row import as_outcome
from llmbridge.many.run import Plan, Run
from llmbridge.many.shard import Report, Share, forget, packed_settings, packed_task, unpickled, work

if TYPE_CHECKING:
    from llmbridge.client import Client
    from llmbridge.many.asking import Asking
    from llmbridge.many.engines import Engine
    from llmbridge.many.row import Asked

__all__ = ["Spread"]

_SECONDS = 20.0  # of work in a shard
_MOST_ROWS = 200
_MOST_REQUESTS = 16  # where a request has many rows
_MOST_BYTES = 6_000_000  # Dask warns of tasks above 10 MB
_START = 32  # requests under way at the beginning, in all places together
_ROUNDS = 2  # in the first shard
_END_SECONDS = 2.0
_MINUTE = 60.0


@dataclass(slots=True)
class _Place:
    """A place for a shard.

    Args:
        limits: Its part of the client's limits.
        concurrency: Its part of the requests under way; None adapts.
        most: The limit of that, where it adapts.
        width: How many were under way at the end of the last shard.

    Attributes:
        recent: What was sent in the last minute, with the time at which it was so.
        rate: Rows a second in the last shard; None before the first.
    """

    limits: Limits | None
    concurrency: int | None
    most: int | None
    width: int
    recent: tuple[float, list[tuple[float, int]]] = field(default_factory=lambda: (0.0, []))
    rate: float | None = None

    def share(self, attempts: int) -> Share:
        """What the next shard may use."""
        more = monotonic() - self.recent[0]
        recent = [(seconds + more, tokens) for seconds, tokens in self.recent[1] if seconds + more < _MINUTE]
        return Share(self.limits, recent, self.concurrency, self.most, self.width, attempts)


@dataclass(eq=False, slots=True)
class _Shard:
    """Rows on their way to a worker and back.

    Attributes:
        losses: How many workers died with it.
        suspect: Whether it is sent alone, since its rows may be why.
        began: When it was sent last.
    """

    rows: list[Asked]
    contents: list[bytes]
    losses: int = 0
    suspect: bool = False
    began: float = field(default=0.0)


class Spread(Run):
    """See Run.

    Args:
        asking, items, plan: See Run.
        engine: Carries the shards.
        client, options: As given to `map`.

    Raises:
        ConfigError: They cannot be sent to workers.
    """

    end_seconds = _END_SECONDS

    def __init__(
        self,
        asking: Asking,
        items: Iterable[Any],
        plan: Plan,
        engine: Engine,
        client: Client,
        options: Mapping[str, Any],
    ) -> None:
        super().__init__(asking, items, plan)
        self._engine = engine
        self._limits = client._limits
        self._settings = packed_settings(client, asking, options, engine.dumps)
        self._most_rows = max(_MOST_ROWS, _MOST_REQUESTS * asking.most)
        self._places: list[_Place] = []
        self._free: list[_Place] = []
        self._again: deque[_Shard] = deque()  # whose workers died
        self._suspects: deque[_Shard] = deque()
        self._under_way: dict[_Shard, Future[bytes]] = {}

    def start(self) -> None:
        """See Run."""
        self._engine.open()
        self._places = _places(self._engine.workers, self._plan, self._limits)
        self._free = list(self._places)
        super().start()

    # -- what a run asks for ------------------------------------------------------------------------------------------

    @property
    def width(self) -> int:
        """See Run."""
        return sum(place.concurrency or place.width for place in self._places)

    @property
    def window(self) -> int:
        """See Run."""
        return self._plan.window or 2 * self._most_rows * len(self._places)

    @property
    def _over(self) -> bool:
        return super()._over and (self._cancelled or self._given_up or not (self._again or self._suspects))

    def _room_at(self) -> float:
        return 0.0 if self._free and not (self._suspects or self._is_trial) else float("inf")

    @property
    def _is_trial(self) -> bool:
        """Whether a suspect is under way, beside which nothing is sent."""
        return any(shard.suspect for shard in self._under_way)

    def _stop(self) -> None:
        """Nothing more is sent; what workers have finished by now is still heard of."""
        super()._stop()
        self._engine.stop()
        for future in list(self._under_way.values()):
            future.cancel()

    def _wind_up(self) -> None:
        try:
            super()._wind_up()
        finally:
            self._engine.close()
            forget(self._settings)

    # -- sending ------------------------------------------------------------------------------------------------------

    def _send(self) -> None:
        """Gives shards to all places that are free."""
        while self._free and (shard := self._next_shard(self._free[-1])) is not None:
            place = self._free.pop()
            share = place.share(self._plan.attempts)
            shard.began = monotonic()
            future = self._engine.send(work, packed_task(self._settings, shard.contents, share, self._engine.watched))
            self._running += 1
            self._under_way[shard] = future
            future.add_done_callback(partial(self._report, place, shard))

    def _report(self, place: _Place, shard: _Shard, future: Future[bytes]) -> None:
        self._inbox.put((self._heard_back, place, shard, future))

    def _next_shard(self, place: _Place) -> _Shard | None:
        """What is sent next; None if it is worth waiting."""
        if self._suspects:  # alone: another shard would be lost with it, or get the blame
            return None if self._running else self._suspects.popleft()
        if self._is_trial:
            return None
        if self._again:
            return self._again.popleft()
        rows = self._ready
        size = place.width * _ROUNDS * self._asking.most if place.rate is None else int(place.rate * _SECONDS)
        size = max(1, min(size, self._most_rows))
        if len(rows) < size * len(self._free) and not self._all_read and monotonic() < self._full_at:
            return None
        size = min(size, -(-len(rows) // len(self._places if self._all_read else self._free)))
        shard = _Shard([], [])
        room = _MOST_BYTES
        while rows and len(shard.rows) < size and room > 0:
            asked = rows.popleft()
            try:
                content = self._engine.dumps(asked.content)
            except Exception as error:  # noqa: BLE001 - of the caller's own objects
                self._fail(asked, ConfigError(f"row {asked.index} cannot be pickled: {type(error).__name__}: {error}"))
                self._inbox.put((bool,))  # or it would wait for a report before it hands the row out
                continue
            room -= len(content)
            shard.rows.append(asked)
            shard.contents.append(content)
        self._ready_since = monotonic()
        return shard if shard.rows else None

    # -- hearing back -------------------------------------------------------------------------------------------------

    def _heard_back(self, place: _Place, shard: _Shard, future: Future[bytes]) -> None:
        """A worker is done with a shard, or dead."""
        self._running -= 1
        del self._under_way[shard]
        self._free.append(place)
        if future.cancelled():
            error: BaseException | None = Cancelled("the task was cancelled")
        else:
            error = future.exception()
        if error is None:
            self._take_back(place, shard, unpickled(future.result()))
        elif isinstance(error, Cancelled) or self._engine.is_loss(error):
            self._lost(place, shard)
        else:
            self._give_up(ConfigError(f"the executor could not run a task: {type(error).__name__}: {error}"))

    def _take_back(self, place: _Place, shard: _Shard, report: Report) -> None:
        now = monotonic()
        totals = report.totals
        for name in ("requests", "refused", "input_tokens", "output_tokens", "wasted_tokens"):
            self._totals[name] += getattr(totals, name)
        place.recent = now, list(report.recent)
        place.width = totals.width or place.width
        place.rate = len(report.rows) / max(now - shard.began, 1e-3)
        for row in report.rows:
            asked = shard.rows[row.index]
            error = row.error
            about = {"attempts": row.attempts, "seconds": row.seconds}
            if error is None:
                try:
                    answer = row.vector if row.answer is None else self._asking.unpacked(row.answer)
                    self._count(self._row(asked, answer, **about), asked, None)
                    continue
                except Exception as failure:  # noqa: BLE001 - a class of the caller's: the row fails, not the run
                    error = as_outcome(failure)
            asked.attempts, asked.began = row.attempts, now - row.seconds
            self._fail(asked, error)
        if report.error is None:
            return
        if not isinstance(report.error, Cancelled):
            self._give_up(report.error)
        elif rest := sorted(set(range(len(shard.rows))) - {row.index for row in report.rows}):  # another stopped it
            left = [shard.rows[index] for index in rest], [shard.contents[index] for index in rest]
            self._lost(place, _Shard(*left, shard.losses, shard.suspect))

    def _lost(self, place: _Place, shard: _Shard) -> None:
        """A shard has not come back."""
        if self._cancelled or self._given_up:
            return
        if place.limits is not None:  # nobody knows what was sent: all of it, at the worst
            requests = [(0.0, 0)] * ((place.limits.requests_per_minute or 1) - 1)
            place.recent = monotonic(), [*requests, (0.0, place.limits.tokens_per_minute or 0)]
        shard.losses += 1
        if shard.losses <= self._engine.resends:
            self._again.append(shard)
        elif shard.suspect and len(shard.rows) == 1:
            [asked] = shard.rows
            asked.attempts = shard.losses
            self._fail(asked, WorkerLost(f"the worker that sent this row died, {shard.losses} times in a row"))
        else:
            half = -(-len(shard.rows) // 2) if shard.suspect else len(shard.rows)
            for part in (slice(0, half), slice(half, None)):
                if rows := shard.rows[part]:
                    self._suspects.append(_Shard(rows, shard.contents[part], shard.losses, suspect=True))


def _places(workers: int, plan: Plan, limits: Limits | None) -> list[_Place]:
    """As many places as there are workers, if there is something for each."""
    concurrency = plan.concurrency and min(plan.concurrency, plan.most or plan.concurrency)
    bounds = [concurrency or plan.most]
    if limits is not None:
        bounds += [limits.requests_per_minute, limits.tokens_per_minute]
    count = min(workers, *(bound for bound in bounds if bound is not None), workers)
    places = []
    for number in range(count):
        fixed, most = _part(concurrency, number, count), _part(plan.most, number, count)
        width = fixed or min(most or _START, max(1, _START // count))
        places.append(_Place(_limits(limits, number, count), fixed, most, width))
    return places


def _limits(whole: Limits | None, number: int, count: int) -> Limits | None:
    """A part of the limits, but for the concurrency, which the width keeps to."""
    if whole is None or (whole.requests_per_minute is None and whole.tokens_per_minute is None):
        return None
    requests = _part(whole.requests_per_minute, number, count)
    burst = None if requests is None else min(requests, max(1, (whole.burst or 1) // count))
    return Limits(requests, _part(whole.tokens_per_minute, number, count), burst=burst)


def _part(whole: int | None, number: int, count: int) -> int | None:
    """A part of a whole number; all parts together are the whole."""
    return None if whole is None else whole // count + (number < whole % count)
