"""The calls of a run: one thread waits for all of them, and others make the steps that block.

With a thread for each call, a thousand of them would want the interpreter's lock at once, and spend more CPU on
waiting for it than on the answers. The steps are those of `async for`: see `_aio`.
"""

from __future__ import annotations

import heapq
import selectors
import socket
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, suppress
from contextvars import Context
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from llmbridge._call.pipeline import Wait
from llmbridge._call.reading import TextView
from llmbridge._locks import monotonic
from llmbridge.errors import Cancelled, LLMBridgeError, without_frames

if TYPE_CHECKING:
    from llmbridge._call.pipeline import Pipeline

__all__ = ["Calls", "Steps", "begin_thread"]

_BLOCKING = 32  # threads for steps that block
_GROWTH_SECONDS = 0.1  # with steps that wait for a thread, before there are more
_LONG_SECONDS = 0.2  # a step that takes longer has to wait for something: more threads get more done
_TOGETHER = 16  # calls that are reported at the same time, if as many are over
_READS = 16  # of one answer, before others have their turn
_BURST_SECONDS = 0.005  # for what is new, before those that are under way have their turn
_LONGEST_SLEEP = 3600.0  # some selectors cannot wait for a month
_SELECTABLE = 500  # sockets, where only `select` waits for them: Windows takes 512

Steps = Generator[Any, None, Any]
"""Yields an answer, and is resumed when that has been read; if it failed, with its error. Returns the result."""

Begin = Callable[[Callable[[], None], str], threading.Thread]
Over = Callable[[Any], object]


class _Call:
    """One of them.

    Args:
        steps: See `Steps`.
        over: Called once, with the result or with the error.
        parses: Whether the generator may take a while between answers.
        blocks: Whether it may take a while before the first one, too.
    """

    __slots__ = ("blocks", "descriptor", "has_turn", "over", "parses", "rests", "steps", "view", "watched")

    def __init__(self, steps: Steps, over: Over, parses: bool, blocks: bool) -> None:
        self.steps = steps
        self.over = over
        self.parses = parses
        self.blocks = blocks
        self.view: TextView | None = None
        self.watched: Pipeline | None = None
        self.has_turn = False  # it is among those that go on without waiting
        self.descriptor = 0
        self.rests = 0  # a wait that is over has another number


_Then = Callable[[_Call, Any], None]


class Calls:
    """Makes calls, many at once.

    Args:
        begin_thread: Starts a thread that does some work, and has a name.
        broken: Called with the error that has ended all calls, unless it was that of one of them.
    """

    def __init__(self, begin_thread: Begin, broken: Over) -> None:
        self._begin_thread = begin_thread
        self._broken = broken
        self._inbox: deque[Callable[[], object]] = deque()
        self._asleep = self._cancelled = self._closed = False
        self._waits: threading.Thread | None = None
        self._under_way: set[_Call] = set()
        self._turns: deque[_Call] = deque()
        self._timers: list[tuple[float, int, _Call, int]] = []  # a heap, by when the wait is over
        self._numbers = count()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._unfinished = 0  # jobs
        self._given = 0  # all jobs so far
        self._taken = 0  # of them, by a thread before `_looked_at`
        self._looked_at = 0.0
        self._workers: list[threading.Thread] = []
        # Those that are over are reported together: each report wakes a thread that wants the interpreter's lock.
        self._finished: list[tuple[Over, Any]] = []

    # -- from any thread -----------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begins to wait for calls."""
        opened = ExitStack()
        try:
            self._selector = opened.enter_context(selectors.DefaultSelector())
            self._ear, self._bell = map(opened.enter_context, socket.socketpair())
            self._ear.setblocking(False)
            self._bell.setblocking(False)
            self._selector.register(self._ear, selectors.EVENT_READ)
            self._waits = self._begin_thread(partial(self._run, opened), "calls")
        except BaseException:
            opened.close()
            raise

    @property
    def threads(self) -> list[threading.Thread]:
        """Those that there are so far."""
        return [*self._workers, *([] if self._waits is None else [self._waits])]

    def begin(self, steps: Steps, over: Over, parses: bool = False, blocks: bool = False) -> None:
        """Begins a call.

        Args:
            steps, over, parses, blocks: See `_Call`.
        """
        call = _Call(steps, over, parses, blocks)
        self._under_way.add(call)
        self._soon(partial(self._resume, call, None))
        if self._closed:  # the thread has ended, and may not have seen it
            self._drop(call)

    def aside(self, function: Callable[[], object], over: Over) -> None:
        """Calls a function that may block, beside the calls.

        Args:
            function: The function.
            over: Called with None, or with the error.
        """
        self.begin(_only(function), over, blocks=True)

    def cancel(self) -> None:
        """Cancels all calls; each one is over as soon as it has noticed. From a signal handler, too."""
        self._cancelled = True
        for call in list(self._under_way):
            _cancel(call)

    def close(self) -> None:
        """Lets the threads end; what was not begun is dropped."""
        self._closed = True
        self._soon(bool)  # wakes it

    def _soon(self, act: Callable[[], object]) -> None:
        self._inbox.append(act)
        if self._asleep:
            self._asleep = False
            with suppress(OSError):  # it has ended, or has been woken a thousand times
                self._bell.send(b"\0")

    # -- in the thread that waits --------------------------------------------------------------------------------------

    def _run(self, opened: ExitStack) -> None:
        with opened:
            try:
                while not self._closed:
                    self._round()
            except BaseException as error:  # noqa: BLE001 - goes to those who wait for the calls
                self._broken(without_frames(error))
            finally:
                self._closed = True
                self._report()
                for _ in self._workers:
                    self._jobs.put(None)
                for call in list(self._under_way):
                    self._drop(call)

    def _round(self) -> None:
        """Takes in what has arrived and what has been asked for; waits until there is anything."""
        self._asleep = True
        arrived = self._selector.select(0 if self._inbox or self._turns else self._patience())
        self._asleep = False
        for key, _ in arrived:
            if key.data is None:
                with suppress(BlockingIOError):
                    self._ear.recv(4096)
            elif not key.data.has_turn:
                self._step(key.data)
        end = monotonic() + _BURST_SECONDS
        while self._inbox and monotonic() < end:
            self._inbox.popleft()()
        for _ in range(len(self._turns)):
            call = self._turns.popleft()
            call.has_turn = False
            self._step(call)
        while self._timers and self._timers[0][0] <= monotonic():
            self._woken(*heapq.heappop(self._timers)[2:])
        if not self._jobs.empty() and monotonic() >= self._looked_at + _GROWTH_SECONDS:
            self._look_at_threads()
        self._report()

    def _patience(self) -> float | None:
        """Seconds until there is something to do, even if nothing arrives."""
        due = self._timers[0][0] if self._timers else float("inf")
        if not self._jobs.empty():
            due = min(due, self._looked_at + _GROWTH_SECONDS)
        return None if due == float("inf") else min(max(0.0, due - monotonic()), _LONGEST_SLEEP)

    def _resume(self, call: _Call, failure: LLMBridgeError | None) -> None:
        """Begins, or goes on after an answer was read, or has failed."""
        step = partial(_next, call.steps, failure)
        if call.blocks or (call.parses and call.view is not None):
            self._in_thread(call, step, self._resumed, self._end)
            return
        try:
            outcome = step()
        except BaseException as error:  # noqa: BLE001 - it is the call's outcome
            self._end(call, without_frames(error))
        else:
            self._resumed(call, outcome)

    def _resumed(self, call: _Call, outcome: tuple[Any, Any]) -> None:
        answer, result = outcome
        if answer is None:
            self._end(call, result)
            return
        call.view = TextView(answer._reading)
        if self._cancelled:
            _cancel(call)
        self._step(call)

    def _end(self, call: _Call, outcome: Any) -> None:
        self._unwatch(call)
        with suppress(KeyError):
            self._under_way.remove(call)
            self._finished.append((call.over, outcome))
        if len(self._finished) >= _TOGETHER:
            self._report()

    def _report(self) -> None:
        finished, self._finished = self._finished, []
        for over, outcome in finished:
            over(outcome)

    def _drop(self, call: _Call) -> None:
        """Ends a call that nobody goes on with."""
        if call.view is not None:
            call.view.abandon()
        with suppress(KeyError):
            self._under_way.remove(call)
            call.over(Cancelled("the call was cancelled"))

    def _step(self, call: _Call) -> None:
        """Reads what has arrived."""
        assert call.view is not None
        try:
            for _ in range(_READS):
                outcome = _read(call.view.poll)
                if outcome is None or isinstance(outcome, Wait):
                    break
        except BaseException as error:  # noqa: BLE001 - it is the call's outcome
            self._failed(call, without_frames(error))
        else:
            self._went_on(call, outcome)

    def _went_on(self, call: _Call, outcome: Any) -> None:
        """A step has been made."""
        assert call.view is not None
        if outcome is Wait.SOCKET:
            self._watch(call)
            return
        if call.watched is not None and (outcome is Wait.THREAD or not self._is_watched(call)):
            self._unwatch(call)
        if outcome is None:
            self._resume(call, None)
        elif outcome is Wait.THREAD:
            self._in_thread(call, partial(_read, call.view.hop), self._went_on, self._failed)
        elif outcome is Wait.REST:
            self._rest(call)
        else:
            self._next_turn(call)

    def _next_turn(self, call: _Call) -> None:
        call.has_turn = True
        self._turns.append(call)

    def _failed(self, call: _Call, error: BaseException) -> None:
        assert call.view is not None
        self._unwatch(call)
        call.view.abandon()
        if isinstance(error, LLMBridgeError):
            self._resume(call, error)
        else:
            self._end(call, error)

    # -- waiting ------------------------------------------------------------------------------------------------------

    def _watch(self, call: _Call) -> None:
        """Waits for the socket; it stays registered from one read to the next."""
        assert call.view is not None
        if call.watched is not None:
            if self._is_watched(call):
                return
            self._unwatch(call)
        pipeline = call.view.source.current
        descriptor = pipeline.watch()
        if descriptor is None:  # it was given up meanwhile
            self._next_turn(call)
        elif isinstance(self._selector, selectors.SelectSelector) and len(self._selector.get_map()) >= _SELECTABLE:
            self._in_thread(call, partial(_arrival, descriptor), self._arrived, self._failed)
        else:
            call.watched, call.descriptor = pipeline, descriptor
            self._selector.register(descriptor, selectors.EVENT_READ, call)

    def _arrived(self, call: _Call, _: None) -> None:
        assert call.view is not None
        call.view.source.current.unwatched()
        self._step(call)

    def _is_watched(self, call: _Call) -> bool:
        """Whether the socket that is registered is still that of the call."""
        assert call.watched is not None and call.view is not None
        return call.watched.watched and call.watched is call.view.source.current

    def _unwatch(self, call: _Call) -> None:
        if (pipeline := call.watched) is not None:
            call.watched = None
            self._selector.unregister(call.descriptor)
            pipeline.unwatched()

    def _rest(self, call: _Call) -> None:
        """Waits for `Wait.REST`."""
        assert call.view is not None
        pipeline, number = call.view.source.current, call.rests
        if pipeline.rest is not None:
            heapq.heappush(self._timers, (monotonic() + pipeline.rest, next(self._numbers), call, number))
        pipeline.when_woken(lambda: self._soon(partial(self._woken, call, number)))

    def _woken(self, call: _Call, number: int) -> None:
        if call.rests == number:
            assert call.view is not None
            call.rests += 1
            call.view.source.current.when_woken(None)
            self._step(call)

    # -- steps that block ---------------------------------------------------------------------------------------------

    def _in_thread(self, call: _Call, step: Callable[[], Any], then: _Then, failed: _Then) -> None:
        def job() -> None:
            if self._closed:
                self._drop(call)
                return
            try:
                outcome = step()
            except BaseException as error:  # noqa: BLE001 - it is the call's outcome
                self._soon(partial(self._done, call, failed, without_frames(error)))
            else:
                self._soon(partial(self._done, call, then, outcome))

        if self._jobs.empty():
            self._taken, self._looked_at = self._given, monotonic()
        self._given += 1
        self._unfinished += 1
        self._jobs.put(job)
        if len(self._workers) < min(_BLOCKING, self._unfinished):
            self._more_threads(1)
        if not self._workers:  # the system gives none: that one holds up the others is better than that none goes on
            self._jobs.get_nowait()
            self._report()  # it may take long
            job()

    def _done(self, call: _Call, then: _Then, outcome: Any) -> None:
        self._unfinished -= 1
        then(call, outcome)

    def _look_at_threads(self) -> None:
        """Adds some, unless steps are so short that more threads would only get into each other's way."""
        now, waiting = monotonic(), self._jobs.qsize()
        taken = self._given - waiting
        if (taken - self._taken) * _LONG_SECONDS < (now - self._looked_at) * len(self._workers):
            self._more_threads(min(waiting, len(self._workers) // 8 + 1))
        self._taken, self._looked_at = taken, now

    def _more_threads(self, more: int) -> None:
        with suppress(RuntimeError):  # the system gives no more: those that there are go on
            for _ in range(more):
                self._workers.append(self._begin_thread(self._work, "worker"))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            del job


def begin_thread(context: Context, work: Callable[[], None], name: str) -> threading.Thread:
    """A thread at work, which is called llmbridge-map-NAME."""
    run = context.copy().run
    thread = threading.Thread(target=run, args=(work,), name=f"llmbridge-map-{name}", daemon=True)
    thread.start()
    return thread


def _next(steps: Steps, failure: LLMBridgeError | None) -> tuple[Any, Any]:
    """The next answer to read, and None; at the end, None and the result."""
    try:
        return (next(steps) if failure is None else steps.throw(failure)), None
    except StopIteration as end:
        return None, end.value


def _only(function: Callable[[], object]) -> Steps:
    """Steps that call a function."""
    function()
    yield from ()


def _read(step: Callable[[], Iterable[Any] | Wait | None]) -> Iterable[Any] | Wait | None:
    """Makes a step, and takes the pieces that it has read."""
    outcome = step()
    if outcome is not None and not isinstance(outcome, Wait):
        for _ in outcome:
            continue
    return outcome


def _arrival(descriptor: int) -> None:
    """Returns when a socket is readable."""
    with selectors.DefaultSelector() as alone:
        alone.register(descriptor, selectors.EVENT_READ)
        alone.select()


def _cancel(call: _Call) -> None:
    if (view := call.view) is not None:
        view.source.cancel()
