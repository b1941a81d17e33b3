"""The requests of one call, until one of them is answered: limits, retries, and the models to fall back on."""

from __future__ import annotations

import logging
import re
from collections.abc import Generator, Sequence
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from weakref import ReferenceType

from llmbridge._call.answer import Answer
from llmbridge._call.head import Head
from llmbridge._call.route import Route
from llmbridge._locks import monotonic
from llmbridge.errors import (
    AllFailed,
    AuthError,
    Cancelled,
    ClockExpired,
    ConnectFailed,
    LLMBridgeError,
    Pending,
    ProtocolError,
    RateLimited,
    ServiceError,
    StreamTruncated,
    harmless,
    without_frames,
)
from llmbridge.secret import revealed, scrub

if TYPE_CHECKING:
    from llmbridge._call.notes import Notes
    from llmbridge._transport import Call, Exchange, HTTPRequest
    from llmbridge._transport.later import Later
    from llmbridge.events import Item
    from llmbridge.limits import Limiter, Ticket

__all__ = ["Attempts", "Wait"]

_log = logging.getLogger("llmbridge")
_ERROR_BODY_SECONDS = 5.0
_REQUEST_IDS = (
    "x-request-id",
    "request-id",  # Anthropic
    "x-generation-id",  # OpenRouter
    "apim-request-id",  # Azure
    "mistral-correlation-id",
)
_LONGEST_ID = 200
_SUCCESS = range(200, 300)
# In errors with a success status, which do not come from the service's API; the second is LM Studio's.
_NOT_THE_API = r"check the base_url$|Unexpected endpoint or method[^()]*(\([^()]*\))?$"


class Wait(Enum):
    """What to wait for before the next step."""

    SOCKET = "until the socket is readable"
    TURN = "until others have had their turn: the last read yielded nothing"
    REST = "for some seconds, or until the call is woken"
    THREAD = "for a worker thread: the step blocks"


class Attempts:
    """Sends the requests of a call. Only one thread at a time may be in here; the `Pipeline` sees to it.

    Args:
        routes: Where the call can go, in order.
        limiter: Applies the caller's limits; None for no limits.
        refused: The errors of routes that could not be built.

    Attributes:
        route: The current one.
        exchange: The current request's, once it is answered.
        later: What an event loop waits for until then.
        rest: Seconds for `Wait.REST`; None if only the call's `wake` ends it.
        in_loop: Whether an event loop waits for the socket.
        polled: Whether an event loop runs the current step, which must not block.
        headers: Of the last answer, names in lower case.
        request_id: The service's id for the last request, once it is known.
        used_tokens: How many the service has counted.
        settled: The first piece has come: from now on nothing is retried.
        head: The metadata of the answer.
        notes: What was handed out. A weak reference: the notes refer to the call, and a cycle would need the collector.
        raw: Whether the service's own events are wanted.
    """

    def __init__(self, routes: Sequence[Route], limiter: Limiter | None, refused: Sequence[LLMBridgeError]) -> None:
        self._routes = list(routes)
        self.route = self._routes[0]
        self._failures = list(refused)
        self._several = len(self._routes) + len(refused) > 1
        self._limiter = limiter
        self._ticket: Ticket | None = None
        self._request: HTTPRequest | None = None
        self._secrets: tuple[str, ...] = ()
        self._began: float | None = None
        self._repetitions = 0  # on the current route
        self._renewed = False  # the key was rejected, and the caller's function was called for another one
        self._admitted = False  # the current route's breaker waits for the outcome
        self._admission = object()  # identifies this call to the breaker
        self._asked = False  # the current attempt's request is on its way
        self._failed: LLMBridgeError | None = None  # what ended the last attempt
        self.settled = False
        self.exchange: Exchange | None = None
        self.later: Later | None = None
        self.rest: float | None = 0.0
        self.in_loop = self.polled = False
        self.watched = False  # the socket, by an event loop, which would wait for ever if others closed it
        self.headers: dict[str, str] = {}
        self.request_id: str | None = None
        self.used_tokens: int | None = None
        self.head = Head()
        self.notes: ReferenceType[Notes] | None = None
        self.raw = False

    def open(self, call: Call) -> Generator[Wait, None, Answer]:
        """Sends the request, with retries and fallbacks, until there is an answer with a success status.

        Yields:
            What to wait for before it can go on.

        Raises:
            LLMBridgeError: No attempt succeeded.
            Exception: What the caller's `on_retry` raises.
        """
        if self._began is None:
            self._began = monotonic()
            self._enter_route()
        while True:
            if self._failed is not None:
                if self.route.retry.on_retry is not None:
                    yield Wait.THREAD
                outcome = self._next_step(call)
                if isinstance(outcome, Pending):
                    raise outcome.taken()
                yield from self._pause(call, outcome)
            try:
                return (yield from self._attempt(call))
            except LLMBridgeError as error:
                self.failed(error)

    @property
    def answers_whole(self) -> bool:
        """Whether the service takes `stream=False`: of several, one that refuses it would pass the call to the next."""
        return not self._several and self.route.provider.answers_whole()

    @property
    def metered(self) -> bool:
        """Whether anything needs the token counts."""
        return self._ticket is not None

    def failed(self, error: LLMBridgeError) -> None:
        """Ends the current attempt; `open` decides what follows. Does not block."""
        self._failed = without_frames(error)
        self._drop(error)

    def answered(self) -> None:
        """Notes that the first piece has come."""
        self.settled = True
        self._tell_breaker(None)

    def finished(self) -> None:
        """Notes that the answer is complete: other requests may be sent while the rest of its body is read."""
        self._end_ticket(None)

    @property
    def in_queue(self) -> bool:
        """Whether the current attempt waits for the client's own limits."""
        return self._ticket is not None and self._ticket.state == "waiting"

    def step_back(self) -> None:
        """Nothing waits for the call any more: lets those behind it in the queue pass."""
        if self._ticket is not None and self.in_queue:
            self._ticket.release()

    def release(self, error: BaseException | None = None) -> None:
        """Ends the call, and frees everything it holds."""
        if self._admitted:
            self._admitted = False
            self.route.breaker.gave_up(self._admission)
        self._drop(error)

    def complete(self, error: LLMBridgeError) -> None:
        """Adds what only the call knows to an error, and removes secrets."""
        error.message = scrub(error.message, self._secrets)
        if isinstance(error, ServiceError):
            error.body = scrub(error.body, self._secrets)
            error.code = error.code and scrub(error.code, self._secrets)
        if re.search(_NOT_THE_API, error.message) and (hint := self._address_hint()):
            error.message += f" ({hint})"
        if isinstance(error, AuthError) and (origin := self.route.key_from()) and origin not in error.message:
            error.message += f": the key came from {origin}"
        if isinstance(error, ConnectFailed) and (hint := self._start_hint()) and hint not in error.message:
            error.message += f": {hint}"
        if not isinstance(error, AllFailed):
            provider = self.route.provider
            error.provider = error.provider or provider.name
            error.model = error.model or harmless(self.route.model, _LONGEST_ID)  # a server may have filled it in
            error.request_id = error.request_id or self.request_id
            since = provider.offline_since
            if since and since not in error.message and not isinstance(error, Cancelled):
                error.message += (
                    f" ({provider.name} has been offline since {since}: "
                    "give base_url= to use another host that speaks its format)"
                )
        error.args = (error.message,)

    # -- one attempt -------------------------------------------------------------------------------------------

    def _attempt(self, call: Call) -> Generator[Wait, None, Answer]:
        """Sends the request once."""
        self.headers, self.request_id, self.used_tokens, self._asked = {}, None, None, False
        limiter = self.route.limiter or self._limiter
        if self.route.may_block:
            yield Wait.THREAD
        if self._request is None or self.route.key_changes:
            self._request = self.route.request(call)
            self._keep_secret(self._request.secrets)
        if limiter is not None:
            yield from self._queue_up(call, limiter, self._request)
        exchange = self.exchange = yield from self._exchange(call, self._request)
        self._take_headers(exchange)
        if exchange.status not in _SUCCESS:
            yield Wait.THREAD
            raise self._status_error(exchange, call)
        self.head = Head()
        route = self.route
        return Answer(exchange, route.provider, route.answer_tool, route.read, self.head, self._told, self.raw)

    def _told(self) -> Sequence[Item]:
        """What was handed out of this turn."""
        notes = self.notes() if self.notes is not None else None
        return notes.items() if notes is not None else ()

    def _exchange(self, call: Call, request: HTTPRequest) -> Generator[Wait, None, Exchange]:
        """Sends the request, and waits for the headers of the answer."""
        from llmbridge._transport import Exchange

        call.answers_later = self.in_loop
        transport = self.route.transport()
        self._asked = self.polled
        answer = transport.send_at_once(call, request) if self.polled else None
        if answer is None:
            self._asked = False
            yield Wait.THREAD
            self._asked, call.answers_later = True, self.in_loop
            answer = transport.send(call, request)
        while not isinstance(answer, Exchange):
            self.later = answer
            yield Wait.SOCKET
            call.check()
            if (arrived := answer.arrived()) is None:
                continue
            if not arrived:
                yield Wait.THREAD
            answer = transport.send(call, request, answer)
        self.later = None
        return answer

    def _pause(self, call: Call, seconds: float) -> Generator[Wait, None, None]:
        """Waits for the full time, even if the call is woken meanwhile."""
        end = monotonic() + seconds
        call.only_total_runs()
        call.check()
        while (left := end - monotonic()) > 0:
            self.rest = left
            yield Wait.REST
            call.check()

    def _queue_up(self, call: Call, limiter: Limiter, request: HTTPRequest) -> Generator[Wait, None, None]:
        """Waits until the client's own limits allow the request."""
        from llmbridge.limits import Ticket, estimate_tokens

        tokens = estimate_tokens(request.body)
        call.only_total_runs()
        try:
            call.check()
            while self._ticket is None or self._ticket.state != "granted":
                # Kept before it enters: a Ctrl-C inside would leave it at the head of the queue forever.
                self._ticket = Ticket(limiter, tokens, wake=call.wake)
                limiter.enter(self._ticket)
                while (delay := self._ticket.delay()) != 0:
                    self.rest = delay
                    yield Wait.REST
                    call.check()
        except ClockExpired as error:
            error.message += ", still waiting for the client's own limits (limits=)"
            raise

    @property
    def _learner(self) -> Limiter | None:
        """The limiter that learns from the service; None for several services: one would hold up the others."""
        return self.route.limiter or (None if self._several else self._limiter)

    def _take_headers(self, exchange: Exchange) -> None:
        self.headers = exchange.headers
        self._keep_secret(exchange.secrets)
        ids = (harmless(self.headers[name], _LONGEST_ID) for name in _REQUEST_IDS if name in self.headers)
        self.request_id = next(ids, None)
        assert self._began is not None
        _log.debug("%s answered %d after %.3f s", self.route.provider.name, exchange.status, monotonic() - self._began)
        if (limiter := self._learner) is not None and self._ticket is not None:
            from llmbridge.rate_limits import RateLimits

            self._ticket.answered()
            if exchange.status in _SUCCESS:
                limiter.learn(RateLimits.of(self.headers))

    def _keep_secret(self, secrets: Sequence[str]) -> None:
        if new := [word for word in secrets if word not in self._secrets]:
            self._secrets = (*self._secrets, *new)

    def _status_error(self, exchange: Exchange, call: Call) -> LLMBridgeError:
        from llmbridge.service_errors import BODY_LIMIT, error_for_status

        body = b""
        exchange.set_blocking(True)
        call.ends_within(_ERROR_BODY_SECONDS)
        try:
            while len(body) < BODY_LIMIT and (data := exchange.read()):
                body += data
        except (StreamTruncated, ProtocolError):
            pass  # the status is the error; the part of the body that arrived is enough
        except ClockExpired as error:
            if error.clock == "total":
                raise
            call.renew()  # the body was given little time, but the call has more
        exchange.finish()
        longest = max(map(len, map(revealed, exchange.secrets)), default=0)
        text = body[: BODY_LIMIT + longest].decode("utf-8", "replace")
        if not exchange.legible and "\N{REPLACEMENT CHARACTER}" in text:
            text = ""  # compressed although we did not accept that; otherwise it only repeats the status
        assert self._request is not None
        parts = urlsplit(self._request.url)
        asked = f"{self._request.method} {parts.scheme}://{exchange.host}{parts.path}"
        return error_for_status(
            exchange.status, exchange.headers, text, exchange.secrets, exchange.host, asked, self._address_hint()
        )

    def _start_hint(self) -> str:
        from llmbridge._call.base_urls import start_hint

        return start_hint(self.route.provider, self._request.base_url) if self._request is not None else ""

    def _address_hint(self) -> str:
        from llmbridge._call.base_urls import hint

        return hint(self.route.provider, self._request.base_url) if self._request is not None else ""

    def _drop(self, error: BaseException | None) -> None:
        """Frees what belongs to one attempt."""
        exchange, self.exchange = self.later or self.exchange, None
        self.later, self.watched = None, False
        if exchange is not None:
            exchange.close()
        self._end_ticket(error)

    def _end_ticket(self, error: BaseException | None) -> None:
        ticket = self._ticket
        if ticket is None:
            return
        if isinstance(error, RateLimited) and self._learner is not None:
            ticket.refuse(error.retry_after)
        if error is None:
            ticket.release(self.used_tokens)
        else:
            refused = isinstance(error, (ServiceError, ConnectFailed)) and not self.settled
            ticket.release(0 if refused else None)
        self._ticket = None  # last: after a Ctrl-C in here, the next call gives it back

    # -- what follows from a failure ---------------------------------------------------------------------------

    def _next_step(self, call: Call) -> float | Pending:
        """Seconds to wait before the next attempt, here or on another route; or the error, if there is none."""
        error, self._failed = self._failed, None
        assert error is not None
        self.complete(error)
        if isinstance(error, Cancelled) or (isinstance(error, ClockExpired) and error.clock == "total"):
            if self._asked:  # a model that uses up the whole timeout gets a cool-down as well
                self._tell_breaker(error)
            return Pending(error)
        call.renew()
        if self._asked and self.route.key_changes and isinstance(error, AuthError) and not self._renewed:
            self._renewed = True  # does not count as a retry: the key may have expired on the way
            _log.debug("%s rejected the key: a new one is requested", self.route.provider.name)
            return 0.0
        retry = self.route.retry
        wait = retry.decide(error, self._repetitions)
        if wait is None or (len(self._routes) > 1 and not (wait <= retry.max_backoff and call.leaves(wait))):
            return self._next_route(error)
        if not call.leaves(wait):
            cause = f"{type(error).__name__}: {error.message}"
            late = ClockExpired(f"the total timeout leaves no time to wait {wait:g} s after {cause}", clock="total")
            late.__cause__ = error
            self._tell_breaker(error)
            return Pending(late)
        if getattr(error, "retry_after", None) is not None:
            spread = retry.spread(wait, self._repetitions)
            wait = spread if call.leaves(spread) else wait
        self._repetitions += 1
        _log.debug("%s: attempt %d failed, next in %.2f s", self.route.provider.name, self._repetitions, wait)
        retry.announce(error, self._repetitions - 1, wait)
        return wait

    def _next_route(self, error: LLMBridgeError) -> float | Pending:
        """Switches to the next route that is not cooling down, or returns the error if there is none."""
        self._tell_breaker(error)
        self._routes.remove(self.route)
        if not self._several:
            return Pending(error)
        self._failures.append(error)
        if not self._routes:
            return Pending(_all_failed(self._failures))
        _log.debug("%s failed: the next model is tried", self.route.provider.name)
        self._repetitions = 0
        self._renewed = False
        self._request = None
        self._enter_route()
        return 0.0

    def _enter_route(self) -> None:
        """Takes the first route that is not cooling down; if all are, the first: better a late answer than none."""
        self.route = self._routes[0]
        if self._several:
            ready = next((route for route in self._routes if route.breaker.admits(self._admission)), None)
            self._admitted = ready is not None
            self.route = ready or self.route

    def _tell_breaker(self, error: LLMBridgeError | None) -> None:
        self._admitted = False
        if not self._several:
            return
        if error is None:
            self.route.breaker.succeeded()
        else:
            self.route.breaker.failed(error, self._admission)


def _all_failed(errors: Sequence[LLMBridgeError]) -> AllFailed:
    causes = "; ".join(f"{error.provider}:{error.model}: {type(error).__name__}: {error.message}" for error in errors)
    return AllFailed(f"none of the {len(errors)} models answered: {causes}", errors=errors)
