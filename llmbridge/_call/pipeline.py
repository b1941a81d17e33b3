"""One call, from the first request to the end of the answer: open (with retries), read, frame, decode, end.

`Pipeline.advance()` is the one blocking step that everything is made of: it returns what one network read brought, as a
list, so that a loop costs next to nothing per piece. `Pipeline.poll()` is the same step for an event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING
from weakref import ref

from llmbridge._call.answer import Answer, is_piece
from llmbridge._call.attempts import Attempts
from llmbridge._call.route import Route
from llmbridge.errors import Cancelled, LLMBridgeError, Pending, StreamTruncated
from llmbridge.events import Item, Usage
from llmbridge.options import Timeout, TotalClock

if TYPE_CHECKING:
    from llmbridge._call.head import Head
    from llmbridge._call.notes import Notes
    from llmbridge._transport import Call
    from llmbridge.limits import Limiter

__all__ = ["Pipeline", "Wait"]

_MOST_HELD = 1000  # items before the first piece


class Wait(Enum):
    """What to wait for before the next step."""

    SOCKET = "until the socket is readable"
    TURN = "until others have had their turn: nothing has come of what was read"
    THREAD = "in a worker thread: the step blocks"


class Pipeline:
    """A call that runs as far as `advance()` is called.

    Args:
        routes: Where it can go, in order; the next one is tried when one has failed before its first piece.
        timeout: The call's limits; the total starts with the first `advance()`, and covers all routes and waits.
        limiter: Lets requests through at the pace that the caller set; None for none.
        refused: The errors of routes that could not even be made.
        total: The clock of the chat that this call is a part of; None if it is all of it.

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
        self._answer: Answer | None = None
        self._failure = Pending()  # came behind what was returned last
        self._held: list[Item] = []  # came before the first piece, and is no piece
        self._cancelled = False
        self._awaited = False  # an event loop watches the socket: to close it would leave the loop waiting for ever
        self._over = False
        self._answered = False
        self.started: float | None = None
        self.ended: float | None = None

    @property
    def current(self) -> Pipeline:
        """Itself: the call that is asked for what is known of the answer, see `Source`."""
        return self

    @property
    def cancelled(self) -> bool:
        """Somebody has ended it, though a thread may still be on its way out of it."""
        return self._cancelled

    @property
    def provider(self) -> str:
        """The name of the provider that is asked."""
        return self._attempts.route.provider.name

    @property
    def model(self) -> str:
        """The name of the model that is asked."""
        return self._attempts.route.model

    @property
    def headers(self) -> Mapping[str, str]:
        """Of the answer, once it is there; names in lower case."""
        return self._attempts.headers

    @property
    def request_id(self) -> str | None:
        """The service's name for the request, once it is known."""
        return self._attempts.request_id

    @property
    def head(self) -> Head:
        """What stands at the top of the answer."""
        return self._attempts.head

    def listen(self, notes: Notes) -> None:
        """See `Source`. The notes know the call: a strong reference back would keep both until the collector comes."""
        known = ref(notes)
        self._attempts.told = lambda: alive.items() if (alive := known()) is not None else ()

    def keep_raw(self) -> None:
        """See `Source`."""
        self._attempts.raw = True

    def advance(self, may_skip_read: bool = False) -> list[Item] | None:
        """What the next read brings, at least one item; None at the end. Blocks until there is something.

        Args:
            may_skip_read: For `poll()`: nothing may block, and `[]` says that something would have to.

        Raises:
            LLMBridgeError: After everything that had arrived before was returned.
            Exception: What the caller's `on_retry` raises.
        """
        with self._busy:
            try:
                exchange = self._attempts.exchange
                if exchange is not None:
                    exchange.set_blocking(not may_skip_read)
                items = self._step(may_skip_read)
            except BaseException as error:
                self._awaited = False
                self._release(error)
                if isinstance(error, LLMBridgeError):
                    self._attempts.complete(error)
                raise
            if items is None:
                self._release()
            self._awaited = items == []  # while the lock is held: see close()
        if self._cancelled and not self._over:
            self.close()  # somebody wanted to while the lock was held
        return items

    def poll(self) -> list[Item] | Wait | None:
        """Like `advance`, without ever blocking: says what to wait for where it would have to.

        Raises:
            LLMBridgeError: As for `advance`.
        """
        answer, exchange = self._answer, self._attempts.exchange
        if self._over:
            return self.advance()
        if answer is None or exchange is None or exchange.readable is None or not self._attempts.settled:
            return Wait.THREAD  # before the first piece, an error is followed by waits and other requests
        items = self.advance(may_skip_read=True)
        if items == []:
            if not answer.ended:
                return Wait.SOCKET if answer.waiting else Wait.TURN
            # Behind the end mark, the rest of the body has to be read, which takes a while if it does not come.
            return Wait.THREAD
        return items

    @property
    def readable(self) -> int | None:
        """The file descriptor to wait for after `Wait.SOCKET`."""
        exchange = self._attempts.exchange
        return exchange.readable if exchange is not None else None

    @property
    def left(self) -> float:
        """Seconds until the total limit, which runs from the first question for it on."""
        return self._total.left

    def cancel(self) -> None:
        """Ends the call from any thread: a blocked `advance()` raises Cancelled at once."""
        self._cancelled = True
        if (call := self._call) is not None:
            call.cancel()

    def close(self) -> None:
        """Like `cancel`, and closes the connection here if nobody is reading from it or waiting for it."""
        self.cancel()
        if not self._busy.locked():
            with self._busy:  # whoever takes it meanwhile finds the call cancelled, and is out at once
                if not self._awaited:
                    self._release()

    def abandon(self) -> None:
        """Like `close`, by the task itself that has waited for the socket."""
        self._awaited = False
        self.close()

    def _step(self, may_skip_read: bool) -> list[Item] | None:
        if self._over:
            if self._cancelled and not self._answered:
                raise Cancelled("the call was cancelled")
            return None
        while True:
            answer = self._answer or self._open()
            try:
                return self._read(answer, may_skip_read)
            except LLMBridgeError as error:
                if self._attempts.settled or isinstance(error, Cancelled):
                    raise
                self._attempts.failed(error)
            self._answer = None
            self._held.clear()

    def _open(self) -> Answer:
        from llmbridge._transport import Call

        if self._call is None:
            if self._cancelled:
                raise Cancelled("the call was cancelled before it began")
            self.started = monotonic()
            self._total.check()
            self._call = Call(self._timeout, self._total.start())
            if self._cancelled:
                self._call.cancel()
        self._answer = self._attempts.open(self._call)
        return self._answer

    def _read(self, answer: Answer, may_skip_read: bool) -> list[Item] | None:
        """What the next read of the present answer brings."""
        self._raise_failure()
        exchange = self._attempts.exchange
        if may_skip_read and not (answer.ended or answer.pending) and exchange is not None and exchange.must_wait():
            answer.waiting = True
            return []
        while not answer.ended:
            items, self._failure.error = answer.read(bounded=may_skip_read)
            if items and (items := self._pieces(items)):
                return items
            self._raise_failure()
            if answer.waiting or (may_skip_read and not answer.ended):
                return []
        if answer.end_mark and exchange is not None:
            self._attempts.finished()
            if may_skip_read and not exchange.complete:
                return []
            self._finish(answer)
        rest, self._held = [*self._held, *(answer.last_items() or ())], []
        if not self._attempts.settled:
            self._attempts.answered()
        return rest or None

    def _pieces(self, items: list[Item]) -> list[Item]:
        """The items that may be handed out. Before there is a piece of the answer, another attempt may follow them."""
        attempts = self._attempts
        if not attempts.settled:
            first = next((at for at, item in enumerate(items) if is_piece(item)), len(items))
            self._held += items[:first]
            if counts := [item for item in self._held if isinstance(item, Usage)]:  # each says all that is known so far
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
        """Reads behind the end mark. The connection may serve others from here on, and is none of this call's."""
        exchange, self._attempts.exchange = self._attempts.exchange, None
        assert exchange is not None
        known = exchange.short  # the cut that the answer itself has met, and judged: it ended what was read last
        whole = exchange.finish()
        if not whole and exchange.short and not known:
            raise StreamTruncated("the answer has lost bytes: its body ended before the length that its headers gave")
        if not whole and answer.finish is None and self._attempts.route.provider.done_needs_finish:
            raise StreamTruncated("the answer was broken off: the service gave no reason to finish, and cut the body")

    def _release(self, error: BaseException | None = None) -> None:
        """Ends everything that is held. What belongs to the reader is closed by the reader."""
        if self.ended is None:
            self.ended = monotonic()
        self._over = True
        if self._answer is not None:
            self._answered = self._answer.ended
        self._attempts.release(error)
        if self._call is not None:
            self._call.end()
        self._answer = None
