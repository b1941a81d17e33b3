"""One call, from the first request to the end of the answer: open (with retries), read, frame, decode, end.

`Pipeline.advance()` is the blocking step on which everything is built. It returns the items of one network read as a
list, so that a loop costs next to nothing per piece. `Pipeline.poll()` is the same step for an event loop and never
blocks. `Pipeline.hop()` is for a worker thread of an event loop: it blocks only where the loop itself could not wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import ref

from llmbridge._call.answer import Answer, is_piece
from llmbridge._call.attempts import Attempts, Wait
from llmbridge._call.route import Route
from llmbridge._locks import monotonic
from llmbridge.errors import Cancelled, LLMBridgeError, Pending, StreamTruncated
from llmbridge.events import Item, Usage
from llmbridge.options import Timeout, TotalClock

if TYPE_CHECKING:
    from llmbridge._call.head import Head
    from llmbridge._call.notes import Notes
    from llmbridge._call.reading import Soon
    from llmbridge._transport import Call
    from llmbridge.limits import Limiter

__all__ = ["Pipeline", "Wait"]

_MOST_HELD = 1000  # items before the first piece
_LEFT_SECONDS = 1.0  # a call continues for so long without a reader


class Pipeline:
    """A call, which makes progress only in `advance()`, `hop()` and `poll()`.

    Args:
        routes: Where the call can go, in order; if one fails before its first piece, the next one is tried.
        timeout: The timeouts; the total starts with the first step, and covers all routes and waits.
        limiter: Applies the caller's limits; None for no limits.
        refused: The errors of routes that could not be built.
        total: The total timeout of the chat, if this call is only a part of it.

    Attributes:
        started, ended: `time.monotonic()` of the first step and of the end.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        timeout: Timeout,
        limiter: Limiter | None = None,
        refused: Sequence[LLMBridgeError] = (),
        total: TotalClock | None = None,
    ) -> None:
        self._attempts = Attempts(routes, limiter, refused)
        self._timeout = timeout
        self._total = total or TotalClock(timeout.total)
        self._busy = threading.Lock()
        self._call: Call | None = None
        self._opening: Generator[Wait, None, Answer] | None = None
        self._blocks = False  # whether the next step of `_opening` does
        self._answer: Answer | None = None
        self._failure = Pending()  # raised by the next step
        self._held: list[Item] = []  # items that came before the first piece
        self._cancelled = False
        self._over = False
        self._answered = False
        self.started: float | None = None
        self.ended: float | None = None

    @property
    def current(self) -> Pipeline:
        """See `Source`: itself."""
        return self

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` or `close` was called; a thread may still be leaving a step."""
        return self._cancelled

    @property
    def provider(self) -> str:
        """The name of the current route's provider."""
        return self._attempts.route.provider.name

    @property
    def model(self) -> str:
        """The name of the current route's model."""
        return self._attempts.route.model

    @property
    def answers_whole(self) -> bool:
        """Whether all services it can go to take `stream=False`."""
        return self._attempts.answers_whole

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers, once they are there; names in lower case."""
        return self._attempts.headers

    @property
    def request_id(self) -> str | None:
        """The service's id for the request, once it is known."""
        return self._attempts.request_id

    @property
    def head(self) -> Head:
        """The metadata of the answer."""
        return self._attempts.head

    def listen(self, notes: Notes) -> None:
        """See `Source`."""
        self._attempts.notes = ref(notes)

    def keep_raw(self) -> None:
        """See `Source`."""
        self._attempts.raw = True

    def advance(self) -> list[Item] | None:
        """The items of the next read, at least one; None at the end. Blocks until there is one.

        Raises:
            LLMBridgeError: After all items that arrived before the error were returned.
            Exception: As the caller's `on_retry` raises.
        """
        outcome = self._drive(may_block=True, in_loop=False)
        assert not isinstance(outcome, Wait)
        return outcome

    def hop(self) -> list[Item] | Wait | None:
        """`advance` in a worker thread of an event loop: returns early where the loop itself can wait.

        Raises:
            LLMBridgeError, Exception: As for `advance`.
        """
        return self._drive(may_block=True, in_loop=True)

    def poll(self) -> list[Item] | Wait | None:
        """Like `advance`, but never blocks: returns what to wait for instead.

        Raises:
            LLMBridgeError, Exception: As for `advance`.
        """
        return self._drive(may_block=False, in_loop=True)

    @property
    def readable(self) -> int | None:
        """The file descriptor to wait for after `Wait.SOCKET`."""
        exchange = self._attempts.later or self._attempts.exchange
        return exchange.readable if exchange is not None else None

    @property
    def rest(self) -> float | None:
        """Seconds to wait after `Wait.REST`; None to wait until the listener of `when_woken` is called."""
        return self._attempts.rest

    def when_woken(self, listener: Callable[[], object] | None) -> None:
        """Has a function called if `Wait.REST` ends early: see `Call.listen`."""
        if self._call is not None:
            self._call.listen(listener)

    @property
    def left(self) -> float:
        """Seconds until the total timeout; starts it, if it has not started."""
        return self._total.left

    def cancel(self) -> None:
        """Ends the call from any thread: a blocked `advance()` raises Cancelled at once."""
        self._cancelled = True
        if (call := self._call) is not None:
            call.cancel()

    def close(self) -> None:
        """Like `cancel`, and closes the connection here unless a reader or an event loop still uses it."""
        self.cancel()
        if not self._busy.locked():
            with self._busy:  # a thread that was faster finds the call cancelled, and leaves at once
                if not self._attempts.watched:
                    self._release()

    def watch(self) -> int | None:
        """`readable`, for an event loop that watches it: until `unwatched`, only a step may close the socket."""
        with self._busy:
            self._attempts.watched = (descriptor := self.readable) is not None
        return descriptor

    @property
    def watched(self) -> bool:
        """Whether the socket that `watch` gave is still the call's, and `unwatched` has not been called."""
        return self._attempts.watched

    def unwatched(self) -> None:
        """Notes that the event loop no longer watches the socket."""
        self._attempts.watched = False

    def abandon(self) -> None:
        """Like `close`, after the event loop has stopped watching the socket."""
        self._attempts.watched = False
        self.close()

    def must_wait(self) -> bool:
        """Whether `poll` would return `Wait.SOCKET`, as far as is known without a system call; starts the wait."""
        answer, exchange = self._answer, self._attempts.exchange
        if answer is None or exchange is None or answer.ended or answer.pending or self._failure.error is not None:
            return False
        try:
            return exchange.must_wait()
        except LLMBridgeError:
            return False  # the call has ended: the next step raises the error

    def leave(self, give_up: Callable[[], object], soon: Soon) -> None:
        """Notes that nobody waits for the next step any more, until `come_back` is called.

        Args:
            give_up: Called by any thread, if nobody has come back after a second.
            soon: Schedules a call in the event loop that makes the steps.
        """
        if self._call is not None and not self._over:
            if self._attempts.in_queue:
                self._call.listen(lambda: soon(self._step_back))
            self._call.leave(_LEFT_SECONDS, give_up)

    def _step_back(self) -> None:
        """Its turn in the queue has come: if nobody has come back, passes it on to the next call."""
        if self._call is not None and self._call.is_left:
            self._attempts.step_back()

    def come_back(self) -> None:
        """Notes that somebody waits for the next step again."""
        if self._call is not None:
            self._call.come_back()

    def _drive(self, may_block: bool, in_loop: bool) -> list[Item] | Wait | None:
        """Runs the next step, and releases everything at the end or at an error."""
        with self._busy:
            self._attempts.in_loop, self._attempts.polled = in_loop, in_loop and not may_block
            try:
                outcome = self._step(may_block, in_loop)
            except BaseException as error:
                self._release(error)
                if isinstance(error, LLMBridgeError):
                    self._attempts.complete(error)
                raise
            if outcome is None:
                self._release()
        if self._cancelled and not self._over:
            self.close()  # it was requested while the lock was held
        return outcome

    def _step(self, may_block: bool, in_loop: bool) -> list[Item] | Wait | None:
        if self._over:
            if self._cancelled and not self._answered:
                raise Cancelled("the call was cancelled")
            return None
        while True:
            if self._answer is None:
                if (wait := self._open(may_block, in_loop)) is not None:
                    return wait
                if in_loop and may_block and self.readable is not None:
                    return Wait.TURN  # the event loop waits for the answer
            assert self._answer is not None
            try:
                return self._read(self._answer, may_block)
            except LLMBridgeError as error:
                if self._attempts.settled or isinstance(error, Cancelled):
                    raise
                self._attempts.failed(error)
            self._answer = None
            self._held.clear()

    def _open(self, may_block: bool, in_loop: bool) -> Wait | None:
        """Continues until there is an answer, or returns what to wait for first."""
        if self._call is None:
            self._call = self._begun()
        if self._opening is None:
            self._opening = self._attempts.open(self._call)
        if self._blocks and not may_block:
            return Wait.THREAD
        try:
            while True:
                wait = next(self._opening)
                self._blocks = wait is Wait.THREAD
                if in_loop and not (may_block and self._blocks):
                    return wait
                if wait is Wait.REST:
                    self._call.rest(self._attempts.rest)
        except StopIteration as end:
            self._opening, self._answer = None, end.value
            return None

    def _begun(self) -> Call:
        """The new call, at its first step."""
        from llmbridge._transport import Call

        if self._cancelled:
            raise Cancelled("the call was cancelled before it began")
        self.started = monotonic()
        self._total.check()
        call = Call(self._timeout, self._total.start())
        self._call = call
        if self._cancelled:
            call.cancel()
        return call

    def _read(self, answer: Answer, may_block: bool) -> list[Item] | Wait | None:
        """The items of the next read of the current answer, or what to wait for."""
        self._raise_failure()
        exchange = self._attempts.exchange
        if exchange is not None:
            if not may_block and (exchange.readable is None or answer.heavy):
                return Wait.THREAD
            exchange.set_blocking(may_block)
            if not may_block and self.must_wait():
                return Wait.SOCKET
        while not answer.ended:
            items, self._failure.error = answer.read(bounded=not may_block)
            if items and (items := self._pieces(items)):
                return items
            self._raise_failure()
            if answer.waiting:
                return Wait.SOCKET
            # What is left to read takes no time once all of a short body is there.
            all_here = exchange is not None and exchange.exhausted and not (answer.pending or answer.heavy)
            if not (may_block or answer.ended or all_here):
                return Wait.TURN
        if answer.end_mark and exchange is not None:
            self._attempts.finished()
            # After the end mark, the rest of the body must be read, which takes a while if it does not come.
            if not (may_block or exchange.complete):
                return Wait.THREAD
            self._finish(answer)
        rest, self._held = [*self._held, *(answer.last_items() or ())], []
        if not self._attempts.settled:
            self._attempts.answered()
        return rest or None

    def _pieces(self, items: list[Item]) -> list[Item]:
        """The items that may be handed out; none before the first piece, since another attempt may still follow."""
        attempts = self._attempts
        if not attempts.settled:
            first = next((at for at, item in enumerate(items) if is_piece(item)), len(items))
            self._held += items[:first]
            if counts := [item for item in self._held if isinstance(item, Usage)]:  # each includes those before
                self._held = [item for item in self._held if item.__class__ is not Usage or item is counts[-1]]
            if first == len(items) and len(self._held) <= _MOST_HELD:
                return []
            attempts.answered()
            items, self._held = [*self._held, *items[first:]], []
        if attempts.metered:
            for item in items:
                if isinstance(item, Usage):
                    attempts.used_tokens = item.total_tokens
        assert self._call is not None
        self._call.content()
        return items

    def _raise_failure(self) -> None:
        if self._failure.error is not None:
            raise self._failure.taken()

    def _finish(self, answer: Answer) -> None:
        """Reads the rest after the end mark, and gives up the connection, which may serve other calls from here on."""
        exchange, self._attempts.exchange, self._attempts.watched = self._attempts.exchange, None, False
        assert exchange is not None
        known = exchange.short  # whether the answer has met the cut already, and judged it
        whole = exchange.finish()
        if not whole and exchange.short and not known:
            raise StreamTruncated("the answer has lost bytes: its body is shorter than its headers announced")
        if not whole and answer.finish is None and self._attempts.route.provider.done_needs_finish:
            raise StreamTruncated("the answer was broken off: its body ended early, without a finish reason")

    def _release(self, error: BaseException | None = None) -> None:
        """Ends the call, and releases everything that it holds."""
        if self.ended is None:
            self.ended = monotonic()
        self._over = True
        self._opening = None
        if self._answer is not None:
            self._answered = self._answer.ended
        self._attempts.release(error)
        if self._call is not None:
            self._call.end()
        self._answer = None
