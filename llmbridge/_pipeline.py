"""One call, from the first request to the end of the answer: open (with retries), read, frame, decode, end.

`Pipeline.advance()` is the one blocking step that everything is made of: it returns what one network read brought, as a
list, so that a loop costs next to nothing per piece. `Pipeline.poll()` is the same step for an event loop.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from enum import Enum
from time import monotonic
from typing import TYPE_CHECKING

from llmbridge._answer import Answer
from llmbridge.errors import (
    Cancelled,
    ClockExpired,
    LLMBridgeError,
    ProtocolError,
    ServiceError,
    StreamTruncated,
)
from llmbridge.events import Item
from llmbridge.options import Timeout
from llmbridge.provider import Provider
from llmbridge.retry import Retry
from llmbridge.secret import scrub
from llmbridge.service_errors import BODY_LIMIT, error_for_status

if TYPE_CHECKING:
    from llmbridge._transport import Call, Exchange, HTTPRequest, Transport

__all__ = ["Pipeline", "Wait"]


class Wait(Enum):
    """What to wait for before the next step."""

    SOCKET = "until the socket is readable"
    THREAD = "in a worker thread: the step blocks"


_log = logging.getLogger("llmbridge")
_ERROR_BODY_SECONDS = 5.0
_SUCCESS = range(200, 300)


class Pipeline:
    """A call that runs as far as `advance()` is called.

    Args:
        provider: Decodes the answer.
        model: For errors and logs.
        prepare: Makes the request, just before it is sent.
        transport: Sends it.
        timeout: The call's limits; the total starts with the first `advance()`.
        retry: When to try again.

    Attributes:
        status, headers: Of the answer, once it is there; headers in lower case.
        request_id: The service's name for the request, once it is known.
        started, ended: `time.monotonic()` of the first step and of the end.
    """

    def __init__(
        self,
        provider: type[Provider],
        model: str,
        prepare: Callable[[], HTTPRequest],
        transport: Callable[[], Transport],
        timeout: Timeout,
        retry: Retry,
    ) -> None:
        self._provider = provider
        self._model = model
        self._prepare = prepare
        self._transport = transport
        self._timeout = timeout
        self._retry = retry
        self._busy = threading.Lock()
        self._call: Call | None = None
        self._exchange: Exchange | None = None
        self._answer: Answer | None = None
        self._failure: LLMBridgeError | None = None
        self._secrets: tuple[str, ...] = ()
        self._cancelled = False
        self._awaited = False  # an event loop watches the socket: to close it would leave the loop waiting for ever
        self._over = False
        self._answered = False
        self._attempts = 0
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.request_id: str | None = None
        self.started: float | None = None
        self.ended: float | None = None

    def advance(self, may_skip_read: bool = False) -> list[Item] | None:
        """What the next read brings, at least one item; None at the end. Blocks until there is something.

        Args:
            may_skip_read: For `poll()`: nothing may block, and `[]` says that something would have to.

        Raises:
            LLMBridgeError: After everything that had arrived before was returned.
        """
        with self._busy:
            try:
                if self._exchange is not None:
                    self._exchange.set_blocking(not may_skip_read)
                items = self._step(may_skip_read)
            except BaseException as error:
                self._awaited = False
                self._release()
                if isinstance(error, LLMBridgeError):
                    self._complete(error)
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
        answer, exchange = self._answer, self._exchange
        if self._over:
            return self.advance()
        if answer is None or exchange is None or exchange.readable is None:
            return Wait.THREAD
        items = self.advance(may_skip_read=True)
        if items == []:
            # Behind the end mark, the rest of the body has to be read, which takes a while if it does not come.
            return Wait.THREAD if answer.end_mark else Wait.SOCKET
        return items

    @property
    def readable(self) -> int | None:
        """The file descriptor to wait for after `Wait.SOCKET`."""
        return self._exchange.readable if self._exchange is not None else None

    def cancel(self) -> None:
        """Ends the call from any thread: a blocked `advance()` raises Cancelled at once."""
        self._cancelled = True
        if (call := self._call) is not None:
            call.cancel()

    def close(self) -> None:
        """Like `cancel`, and closes the connection here if nobody is reading from it or waiting for it."""
        self.cancel()
        if self._busy.acquire(blocking=False):
            try:
                if not self._awaited:
                    self._release()
            finally:
                self._busy.release()

    def abandon(self) -> None:
        """Like `close`, by the task itself that has waited for the socket."""
        self._awaited = False
        self.close()

    def _step(self, may_skip_read: bool) -> list[Item] | None:
        self._raise_failure()
        if self._over:
            if self._cancelled and not self._answered:
                raise Cancelled("the call was cancelled")
            return None
        if self._answer is None:
            self._open()
        answer = self._answer
        assert answer is not None and self._call is not None
        if may_skip_read and not answer.ended and self._exchange is not None and self._exchange.must_wait():
            return []
        while not answer.ended:
            items, self._failure = answer.read()
            if items:
                self._call.content()
                return items
            self._raise_failure()
            if answer.waiting:
                return []
        if answer.end_mark:
            if may_skip_read and self._exchange is not None and not self._exchange.complete:
                return []
            self._finish(answer)
        return answer.last_items()

    def _raise_failure(self) -> None:
        """Raises the error that came behind what was returned before. No frame keeps it, or it would keep the frame."""
        failure, self._failure = self._failure, None
        if failure is not None:
            try:
                raise failure
            finally:
                del failure

    def _finish(self, answer: Answer) -> None:
        assert self._exchange is not None
        whole = self._exchange.finish()
        if not whole and answer.finish is None and self._provider.done_needs_finish:
            raise StreamTruncated("the answer was broken off: the service gave no reason to finish, and cut the body")

    def _open(self) -> None:
        """Sends the request, again where that may help, until there is an answer with a success status."""
        from llmbridge._transport import Call

        if self._cancelled:
            raise Cancelled("the call was cancelled before it began")
        self.started = monotonic()
        self._call = Call(self._timeout)
        if self._cancelled:
            self._call.cancel()
        request, transport = self._prepare(), self._transport()
        self._secrets = request.secrets
        while True:
            try:
                exchange = self._exchange = transport.post(self._call, request)
                self._take_headers(exchange)
                if exchange.status in _SUCCESS:
                    self._answer = Answer(exchange, self._provider)
                    return
                raise self._status_error(exchange, self._call)
            except LLMBridgeError as error:
                self._wait_before_retry(error)

    def _wait_before_retry(self, error: LLMBridgeError) -> None:
        """Returns when it is time to try again; raises the error if that is of no use."""
        assert self._call is not None
        wait = None
        if getattr(error, "retryable", False):
            wait = self._retry.wait(self._attempts, getattr(error, "retry_after", None))
        if wait is None:
            try:
                raise error
            finally:
                del error  # or its traceback would hold the frame that holds it
        self._attempts += 1
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        _log.debug("%s: attempt %d failed, next in %.2f s", self._provider.name, self._attempts, wait)
        self._call.renew()
        if not self._call.leaves(wait):
            raise ClockExpired(
                f"the total limit leaves no time for the wait of {wait:g} s before the next attempt", clock="total"
            ) from error
        self._call.sleep(wait)

    def _take_headers(self, exchange: Exchange) -> None:
        self.status, self.headers, self._secrets = exchange.status, exchange.headers, exchange.secrets
        self.request_id = next(
            (self.headers[name] for name in ("x-request-id", "request-id") if name in self.headers), None
        )
        assert self.started is not None
        _log.debug("%s answered %d after %.3f s", self._provider.name, exchange.status, monotonic() - self.started)

    def _status_error(self, exchange: Exchange, call: Call) -> LLMBridgeError:
        body = b""
        call.ends_within(_ERROR_BODY_SECONDS)
        try:
            while len(body) < BODY_LIMIT and (data := exchange.read()):
                body += data
        except (StreamTruncated, ProtocolError):
            pass  # what arrived of the body says enough; the status is the error
        except ClockExpired as error:
            if error.clock == "total":
                raise
            call.renew()  # the body was given little time, the call has more
        exchange.finish()
        text = body[: BODY_LIMIT + _longest(exchange.secrets)].decode("utf-8", "replace")
        return error_for_status(exchange.status, exchange.headers, text, exchange.secrets, exchange.host)

    def _complete(self, error: LLMBridgeError) -> None:
        """Adds what only the call knows, and takes out what nobody should see."""
        error.message = scrub(error.message, self._secrets)
        if isinstance(error, ServiceError):
            error.body = scrub(error.body, self._secrets)
            error.code = error.code and scrub(error.code, self._secrets)
        error.provider = error.provider or self._provider.name
        error.model = error.model or self._model
        error.request_id = error.request_id or self.request_id
        since = self._provider.offline_since
        if since and since not in error.message and not isinstance(error, Cancelled):
            error.message += (
                f" ({self._provider.name} has been offline since {since}: "
                "give base_url= to use another host that speaks its format)"
            )
        error.args = (error.message,)

    def _release(self) -> None:
        """Ends everything that is held. What belongs to the reader is closed by the reader."""
        if self.ended is None:
            self.ended = monotonic()
        self._over = True
        if self._answer is not None:
            self._answered = self._answer.ended
        if self._exchange is not None:
            self._exchange.close()
        if self._call is not None:
            self._call.end()
        self._exchange = self._answer = None


def _longest(secrets: tuple[str, ...]) -> int:
    return max(map(len, secrets), default=0)
