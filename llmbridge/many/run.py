"""A run: threads that read the input, make the calls, and keep order, and the queues between them.

One thread reads the input, some make the calls (see `calls`), and one conducts: it alone knows which rows wait, how
many requests may be under way, what is in the journal, and what comes next. The others report to it through a queue, so
that nothing here takes a lock: a run can be cancelled from a signal handler and from a garbage collection.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from llmbridge._call.reading import Reading
from llmbridge._locks import monotonic
from llmbridge.errors import (
    AllFailed,
    AuthError,
    BadRequest,
    Cancelled,
    ConfigError,
    ConnectFailed,
    InvalidOutput,
    LLMBridgeError,
    NotFound,
    Overloaded,
    PermissionDenied,
    ProtocolError,
    QuotaExceeded,
    RateLimited,
    TransportError,
    WorkerLost,
)
from llmbridge.many.calls import Calls, begin_thread
from llmbridge.many.journal import Journal, Keys
from llmbridge.many.row import Asked, Questions, Row, as_outcome
from llmbridge.many.totals import Progress, ProgressLike, Totals
from llmbridge.many.width import Width
from llmbridge.secret import callers_frames_only

if TYPE_CHECKING:
    from llmbridge.many.asking import Answered, Asking
    from llmbridge.retry import Retry

__all__ = ["Plan", "Run"]

_REFUSALS = (RateLimited, Overloaded)
_AGAIN = (TransportError, ProtocolError, InvalidOutput)  # nobody has seen the answer, so it may be made once more
_HOPELESS = (
    AllFailed, AuthError, ConfigError, ConnectFailed, NotFound, Overloaded, PermissionDenied, QuotaExceeded,
    RateLimited, WorkerLost,
)  # fmt: skip
_MOST_ALIKE = 20  # rows in a row that fail in one of these ways, before the run gives up
_FEWEST_OF_A_SHARE = 100  # rows before a share of them says something
_PULSE = 0.5  # seconds: on Windows, Ctrl-C interrupts no wait
_END_SECONDS = 1.0
_QUEUE_SECONDS = 0.02  # for which the queue of the client's limits is left alone
_FULL_SECONDS = 0.05  # to wait for more rows of one request


@dataclass(frozen=True)
class Plan:
    """How a run goes.

    Args:
        questions: Makes questions of the items.
        in_order: Whether rows come in the order of the input.
        concurrency: How many requests are under way; None adapts.
        most: The limit of that, where it adapts.
        window: How many rows are read ahead of those taken; None is four for each request.
        attempts: Requests for a row, without those that were refused for being too many.
        max_errors: How many rows may fail, or which share of them; None for any number.
        journal: The path of one.
        progress: See `Progress`.
        start: How many requests are under way at first, where it adapts.
    """

    questions: Questions
    in_order: bool
    concurrency: int | None
    most: int | None
    window: int | None
    attempts: int
    max_errors: float | None
    journal: str | None
    progress: ProgressLike
    start: int | None = None


class _End:
    """Comes behind the last row, with the error that ended the run."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Run:
    """The rows of an input, from `start` to the end or `cancel`.

    Args:
        asking: Sends the requests.
        items: The input.
        plan: The rest.

    Attributes:
        end_seconds: How long its end may take.
    """

    end_seconds = _END_SECONDS

    def __init__(self, asking: Asking, items: Iterable[Any], plan: Plan) -> None:
        self._asking = asking
        self._items = items
        self._plan = plan
        self._retry = replace(asking.retry, times=plan.attempts - 1)
        self._width = Width(plan.concurrency, plan.most, plan.start)
        self._progress = Progress(plan.progress)
        self._inbox: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._permits: SimpleQueue[bool] = SimpleQueue()  # to read one more item
        self._rows: SimpleQueue[list[Row[Any] | _End]] = SimpleQueue()
        self._here: deque[Row[Any] | _End] = deque()  # those of them that are about to be taken
        self._cancelled = False
        self._pid = os.getpid()
        self._begin_thread = begin = partial(begin_thread, copy_context())  # no method of its own: it is not in a cycle
        self._calls = Calls(begin, partial(_end_by, self._inbox))
        self._conductor: threading.Thread | None = None
        self._listener: Callable[[], object] | None = None
        # From here on, the conductor's own.
        self._journal: Journal | None = None
        self._keys: Keys | None = None
        self._ready: deque[Asked] = deque()
        self._ready_since = 0.0
        self._waiting: list[tuple[float, int, Asked]] = []  # a heap, by when they are sent again
        self._running = 0
        self._announced = 0  # rows whose `on_retry` is being called
        self._queue_at = 0.0  # when the queue of the client's limits is worth another look
        self._finished: list[tuple[Row[Any], Asked]] = []
        self._held: dict[int, Row[Any]] = {}  # whose turn has not come
        self._next = 0
        self._permitted = 0
        self._all_read = False
        self._alike = 0
        self._last_kind: type[BaseException] | None = None
        self._failure: BaseException | None = None  # comes behind all rows
        self._given_up = False
        self._began = monotonic()
        self._ended: float | None = None
        self._totals = dict.fromkeys(
            ("read", "done", "failed", "resumed", "gone", "requests", "refused", "input_tokens", "output_tokens"), 0
        )
        self._totals["wasted_tokens"] = 0
        self._errors: dict[str, int] = {}

    # -- by those who take the rows --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to read and to send."""
        if Reading.begun is not None:
            Reading.begun(self)
        self._began = monotonic()
        self._conductor = self._begin_thread(self._conduct, "conductor")

    def next(self) -> Row[Any] | None:
        """The next row; None at the end. Blocks.

        Raises:
            BaseException: What ended the run early.
        """
        while not self._here:
            try:
                self._here.extend(self._rows.get(timeout=_PULSE))
            except Empty:
                if self._pid != os.getpid():
                    raise TransportError(
                        "these rows belong to the parent process: call map() again in the forked child"
                    ) from None
        return self._taken(self._here.popleft())

    def next_now(self) -> Row[Any] | None:
        """The same, without blocking.

        Raises:
            Empty: There is none yet.
            BaseException: What ended the run early.
        """
        if not self._here:
            self._here.extend(self._rows.get_nowait())
        return self._taken(self._here.popleft())

    def listen(self, listener: Callable[[], object] | None) -> bool:
        """Has a function called by another thread when there is a row; False if there is one already."""
        self._listener = listener
        return self._rows.empty()

    def _taken(self, row: Row[Any] | _End) -> Row[Any] | None:
        if isinstance(row, Row):
            self._permits.put(True)
            return row
        error, row.error = row.error, None
        self._here.append(row)  # for the next call
        if error is None:
            return None
        try:
            raise callers_frames_only(error)
        finally:
            del error, row  # the frame would hold the error, and the error the frame

    def totals(self) -> Totals:
        """What has been done so far."""
        seconds = (self._ended or monotonic()) - self._began if self._conductor is not None else 0.0
        return Totals(**self._totals, width=self.width, seconds=seconds, errors=dict(self._errors))

    @property
    def width(self) -> int:
        """How many requests may be under way."""
        return self._width.now

    @property
    def window(self) -> int:
        """How many rows are read ahead of those taken."""
        return self._plan.window or 4 * self.width * self._asking.most

    def cancel(self) -> None:
        """Ends the run from any thread: nothing more is sent. May be repeated."""
        self._cancelled = True
        self._calls.cancel()
        if callable(stop := getattr(self._items, "stop", None)):
            stop()
        self._inbox.put((bool,))

    def close(self) -> None:
        """`cancel`, and waits until the journal is closed and no thread is left, for `end_seconds` at most."""
        self.cancel()
        if self._conductor is not None and threading.current_thread() not in (self._conductor, *self._calls.threads):
            self._conductor.join(self.end_seconds)

    # -- the threads -----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """Makes questions of the items, one for each permit."""
        failure: BaseException | None = None
        try:
            items = iter(self._items)
            for index in count():
                if not self._permits.get() or self._cancelled:
                    break
                try:
                    item = next(items)
                except StopIteration:
                    break
                self._inbox.put((self._take_in, self._plan.questions.ask(index, item)))
                del item
        except BaseException as error:  # noqa: BLE001 - raised behind the rows that were read
            failure = error
        self._inbox.put((self._end_of_input, failure))

    def _conduct(self) -> None:
        """Hears what the other threads report, and decides what follows."""
        error: BaseException | None = None
        whole = False
        try:
            if self._plan.journal is not None:
                self._journal = Journal(self._plan.journal, self._asking.settings)
                self._journal.begin()
            self._calls.start()
            self._begin_thread(self._read, "reader")
            while not self._over:
                self._permit()
                self._send()
                self._hear(self._patience())
                self._hand_out()
                self._look_at_clock()
            error, whole = self._failure, not self._cancelled
        except BaseException as failure:  # noqa: BLE001 - raised where the rows are taken
            self._given_up = True
            error = failure
        try:
            self._wind_up()
        except BaseException as failure:  # noqa: BLE001 - as above
            error = error or failure
        if error is None and self._cancelled and not whole:
            error = Cancelled("the run was cancelled")
        self._put([_End(error)])

    @property
    def _over(self) -> bool:
        if self._cancelled or self._given_up:
            return True
        return self._all_read and not (self._ready or self._waiting or self._running or self._announced)

    def _wind_up(self) -> None:
        """Ends what is under way, keeps what has come of it, and closes the journal."""
        end = monotonic() + self.end_seconds / 2
        try:
            if self._cancelled or self._given_up:
                self._stop()
                while self._running and (left := end - monotonic()) > 0:
                    self._hear(left)
            elif self._journal is not None:
                self._totals["gone"] = self._journal.left
            self._hand_out()
        finally:
            self._permits.put(False)
            self._calls.close()
            for kept in (self._journal, self._keys):
                if kept is not None:
                    kept.close()
        for thread in self._calls.threads:
            thread.join(max(0.0, end - monotonic()))
        self._ended = monotonic()
        self._progress.show(self.totals, last=True)

    def _stop(self) -> None:
        """Ends what is under way."""
        self.cancel()

    # -- the conductor's decisions -----------------------------------------------------------------------------------

    def _patience(self) -> float | None:
        """Seconds until there is something to do, even if nothing is reported."""
        due = self._progress.due
        if self._journal is not None:
            due = min(due, self._journal.due)
        if self._waiting or self._ready:
            now = monotonic()
            at = self._waiting[0][0] if self._waiting else due
            if self._ready:
                at = min(at, self._full_at)
            due = min(due, max(at, self._room_at(), self._queue_at))
            return max(0.0, min(due - now, _PULSE * 120))
        return None if due == float("inf") else max(0.0, due - monotonic())

    def _room_at(self) -> float:
        """When there may be room for another request, though none ends before."""
        return self._width.room_at(self._running)

    def _hear(self, seconds: float | None) -> None:
        """Takes in everything that the others have reported."""
        try:
            act, *about = self._inbox.get(timeout=seconds) if seconds is not None else self._inbox.get()
            while True:
                act(*about)
                act, *about = self._inbox.get_nowait()
        except Empty:
            pass

    def _look_at_clock(self) -> None:
        if self._journal is not None and monotonic() >= self._journal.due:
            self._journal.sync()
        self._progress.show(self.totals)

    def _permit(self) -> None:
        """Lets the reader go on if the window has become larger; each row that is taken lets it read another one."""
        while self._permitted < self.window:
            self._permitted += 1
            self._permits.put(True)

    def _take_in(self, asked: Asked) -> None:
        """A row was read."""
        self._totals["read"] += 1
        if asked.key is not None:
            self._keys = self._keys or Keys()
            self._keys.add(asked.key, asked.index)
        if asked.problem is not None:
            self._fail(asked, asked.problem)
        elif (row := self._from_journal(asked)) is not None:
            self._count(row, asked, row.usage)
        else:
            if not self._ready:
                self._ready_since = monotonic()
            self._ready.append(asked)

    def _from_journal(self, asked: Asked) -> Row[Any] | None:
        record = self._journal.found(asked.digest) if self._journal is not None else None
        if record is None:
            return None
        try:
            answer = self._asking.restored(record["answer"])
        except Exception:  # noqa: BLE001 - the class given as schema has become stricter
            return None
        return self._row(asked, answer, attempts=record["attempts"], seconds=record["seconds"], resumed=True)

    def _row(self, asked: Asked, answer: Any = None, **about: Any) -> Row[Any]:
        vector = answer if isinstance(answer, list) else None
        return Row(asked.index, asked.input, asked.key, None if vector is not None else answer, vector, **about)

    def _end_of_input(self, failure: BaseException | None) -> None:
        self._all_read = True
        self._failure = self._failure or failure

    def _send(self) -> None:
        """Begins as many requests as may be under way."""
        now = monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            self._ready.appendleft(heapq.heappop(self._waiting)[2])
        room = self._asking.room if now >= self._queue_at else 0
        while self._ready and self._width.room(self._running, now):
            if room <= 0:
                self._queue_at = self._queue_at if now < self._queue_at else now + _QUEUE_SECONDS
                return
            room -= 1
            if not (rows := self._together(now)):
                return
            for asked in rows:
                asked.began = now if asked.began is None else asked.began
                asked.attempts += 1
            self._running += 1
            self._totals["requests"] += 1
            self._width.sent(now)
            self._calls.begin(self._asking.steps(rows), partial(self._over_with, rows, now), self._asking.parses)

    def _together(self, now: float) -> list[Asked]:
        """The rows of the next request; none if it is worth waiting for more of them."""
        most = self._asking.most
        if most == 1 or self._ready[0].alone:
            return [self._ready.popleft()]
        if len(self._ready) < most and not self._all_read and now < self._full_at:
            return []
        rows: list[Asked] = []
        while self._ready and len(rows) < most and not self._ready[0].alone:
            rows.append(self._ready.popleft())
        self._ready_since = now
        return rows

    @property
    def _full_at(self) -> float:
        """When more rows for one request are not waited for any longer."""
        return self._ready_since + _FULL_SECONDS

    def _over_with(self, rows: list[Asked], sent: float, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            outcome = as_outcome(outcome)
        self._inbox.put((self._answered, rows, sent, outcome))

    def _answered(self, rows: list[Asked], sent: float, outcome: Answered | BaseException) -> None:
        """A request is over."""
        now = monotonic()
        refused = isinstance(outcome, _REFUSALS)
        asked_wait = getattr(outcome, "retry_after", None) or 0.0
        if refused or not isinstance(outcome, BaseException):
            self._width.heard(sent, now, self._running, refused, asked_wait)
        self._running -= 1
        if not isinstance(outcome, BaseException):
            for asked, answer in zip(rows, outcome.answers, strict=True):
                seconds = now - (asked.began or now)
                row = self._row(asked, answer, attempts=asked.attempts, seconds=seconds)
                self._count(row, asked, outcome.usage if asked is rows[0] else None)
            return
        if (self._cancelled or self._given_up) and isinstance(outcome, Cancelled):
            return
        if not isinstance(outcome, Exception):
            raise outcome
        self._totals["refused"] += refused
        if isinstance(outcome, LLMBridgeError) and outcome.partial.usage is not None:
            self._totals["wasted_tokens"] += outcome.partial.usage.total_tokens or 0
        if refused and self._width.hopeless(now):
            self._give_up(outcome)
        for asked in rows:
            self._again_or_fail(asked, outcome, refused, len(rows) > 1, now)

    def _again_or_fail(self, asked: Asked, error: Exception, refused: bool, shared: bool, now: float) -> None:
        """What becomes of a row whose request came to nothing."""
        assert isinstance(error, LLMBridgeError)
        if shared and isinstance(error, (BadRequest, ConfigError)):
            asked.alone = True  # one of them is to blame
            self._ready.appendleft(asked)
            return
        asked.failures += not refused
        number = asked.attempts - asked.failures if refused else asked.failures - 1
        wait = self._wait(error, refused, number)
        if wait is None:
            self._fail(asked, error)
            return
        if self._retry.on_retry is None:
            heapq.heappush(self._waiting, (now + wait, asked.index, asked))
            return
        self._announced += 1
        announce = partial(self._retry.announce, error, number, wait)
        self._calls.aside(announce, lambda outcome: self._inbox.put((self._called_back, asked, now + wait, outcome)))

    def _called_back(self, asked: Asked, at: float, failure: BaseException | None) -> None:
        """The caller knows that a row will be sent again."""
        self._announced -= 1
        if isinstance(failure, Cancelled) and (self._cancelled or self._given_up):
            return
        if failure is not None:
            raise failure
        heapq.heappush(self._waiting, (at, asked.index, asked))

    def _wait(self, error: LLMBridgeError, refused: bool, number: int) -> float | None:
        """Seconds until a row is sent again; None if it is not."""
        if not (refused or _may_help(self._retry, error)):
            return None
        policy = replace(self._retry, times=number + 1) if refused else self._retry
        asked = getattr(error, "retry_after", None)
        wait = policy.wait(number, asked)
        return wait if wait is None or asked is None else policy.spread(wait, number)

    def _fail(self, asked: Asked, error: LLMBridgeError) -> None:
        kind = type(error)
        self._totals["failed"] += 1
        self._errors[kind.__name__] = self._errors.get(kind.__name__, 0) + 1
        seconds = monotonic() - asked.began if asked.began is not None else 0.0
        self._finished.append((self._row(asked, error=error, attempts=asked.attempts, seconds=seconds), asked))
        self._alike = self._alike + 1 if kind is self._last_kind else 1
        self._last_kind = kind
        if isinstance(error, _HOPELESS) and self._alike >= _MOST_ALIKE:
            self._give_up(error)
        most = self._plan.max_errors
        if isinstance(most, float):
            most *= max(self._totals["done"] + self._totals["failed"], _FEWEST_OF_A_SHARE)
        if most is not None and self._totals["failed"] > most:
            self._give_up(error)

    def _give_up(self, error: LLMBridgeError | Exception) -> None:
        self._given_up = True
        self._failure = self._failure or error

    def _count(self, row: Row[Any], asked: Asked, usage: Any) -> None:
        """A row has its answer."""
        self._totals["done"] += 1
        self._totals["resumed"] += row.resumed
        if usage is not None:
            self._totals["input_tokens"] += usage.input_tokens or 0
            self._totals["output_tokens"] += usage.output_tokens or 0
        if not row.resumed:
            self._last_kind = None
        self._finished.append((row, asked))

    # -- handing out -------------------------------------------------------------------------------------------------

    def _hand_out(self) -> None:
        """Writes down what has come, and then lets others have it."""
        if not self._finished:
            return
        finished, self._finished = self._finished, []
        if self._journal is not None:
            self._journal.write(self._record(row, asked) for row, asked in finished if not row.resumed)
        rows: list[Row[Any] | _End] = [row for row, _ in finished]
        if self._plan.in_order:
            self._held.update((row.index, row) for row, _ in finished)
            rows = []
            while (row := self._held.pop(self._next, None)) is not None:
                rows.append(row)
                self._next += 1
        if rows:
            self._put(rows)

    def _record(self, row: Row[Any], asked: Asked) -> dict[str, Any]:
        error = row.error and {
            "type": type(row.error).__name__,
            "message": row.error.message,
            "status": getattr(row.error, "status", None),
        }
        answer = row.answer if row.vector is None else row.vector
        return {
            "digest": asked.digest.hex(),
            "error": error,
            "index": row.index,
            "key": row.key,
            "answer": None if error else self._asking.recorded(answer),
            "attempts": row.attempts,
            "seconds": round(row.seconds, 3),
        }

    def _put(self, rows: list[Row[Any] | _End]) -> None:
        self._rows.put(rows)
        if (listener := self._listener) is not None:
            listener()


def _end_by(inbox: SimpleQueue[tuple[Any, ...]], error: BaseException) -> None:
    """Has the conductor raise an error."""
    inbox.put((_raise, error))


def _raise(error: BaseException) -> None:
    raise error


def _may_help(retry: Retry, error: BaseException) -> bool:
    """Whether the same request may be answered at another time."""
    if isinstance(error, AllFailed):
        return any(_may_help(retry, other) for other in error.errors)
    return retry.covers(error) or (isinstance(error, _AGAIN) and not getattr(error, "final", False))
