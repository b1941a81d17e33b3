"""The requests of one call, until one of them is answered: limits, retries, and the models to fall back on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from llmbridge._call.answer import Answer
from llmbridge._call.head import Head
from llmbridge._call.route import Route
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
from llmbridge.secret import MaskedStr, revealed, scrub

if TYPE_CHECKING:
    from llmbridge._transport import Call, Exchange, HTTPRequest
    from llmbridge.events import Item
    from llmbridge.limits import Limiter, Ticket

__all__ = ["Attempts"]

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


class Attempts:
    """Sends the requests of a call. Only one thread at a time may be in here; the `Pipeline` sees to it.

    Args:
        routes: Where the call can go, in order.
        limiter: Lets requests through at the pace that the caller set; None for none.
        refused: The errors of routes that could not even be made.

    Attributes:
        route: The present one.
        exchange: The present request's, once it is answered.
        headers: Of the last answer, names in lower case.
        request_id: The service's name for the last request, once it is known.
        used_tokens: How many the service has counted.
        settled: The first piece has come: from now on nothing is repeated.
        head: What stands at the top of the answer.
        told: Gives what was handed out of this turn.
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
        self._repetitions = 0  # on the present route
        self._renewed = False  # a function has been asked for another key than the one that was refused
        self._admitted = False  # the present route's breaker waits to hear how it went
        self._admission = object()  # what it knows this call by
        self._asked = False  # the present attempt's request is on its way
        self._failed: LLMBridgeError | None = None  # what ended the last attempt
        self.settled = False
        self.exchange: Exchange | None = None
        self.headers: dict[str, str] = {}
        self.request_id: str | None = None
        self.used_tokens: int | None = None
        self.head = Head()
        self.told: Callable[[], Sequence[Item]] = tuple
        self.raw = False

    def open(self, call: Call) -> Answer:
        """Sends the request, again or elsewhere where that may help, until there is an answer with a success status.

        Raises:
            LLMBridgeError: There is none.
            Exception: What the caller's `on_retry` raises.
        """
        if self._began is None:
            self._began = monotonic()
            self._enter_route()
        while True:
            if self._failed is not None:
                outcome = self._next_step(call)
                if isinstance(outcome, Pending):
                    raise outcome.taken()
                call.sleep(outcome)
            try:
                return self._attempt(call)
            except LLMBridgeError as error:
                self.failed(error)

    @property
    def metered(self) -> bool:
        """Whether somebody wants to know the tokens that were used."""
        return self._ticket is not None

    def failed(self, error: LLMBridgeError) -> None:
        """The present attempt has come to nothing; `open` says what follows. Does not block."""
        self._failed = without_frames(error)
        self._drop(error)

    def answered(self) -> None:
        """The first piece has come."""
        self.settled = True
        self._tell_breaker(None)

    def finished(self) -> None:
        """The answer is whole: others may be sent, though a rest of its body may still be read."""
        self._end_ticket(None)

    def release(self, error: BaseException | None = None) -> None:
        """The call is over: ends everything that is held."""
        if self._admitted:
            self._admitted = False
            self.route.breaker.gave_up(self._admission)
        self._drop(error)

    def complete(self, error: LLMBridgeError) -> None:
        """Adds what only the call knows, and takes out what nobody should see."""
        error.message = scrub(error.message, self._secrets)
        if isinstance(error, ServiceError):
            error.body = scrub(error.body, self._secrets)
            error.code = error.code and scrub(error.code, self._secrets)
        if not isinstance(error, AllFailed):
            provider = self.route.provider
            error.provider = error.provider or provider.name
            error.model = error.model or harmless(self.route.model, _LONGEST_ID)  # a server may have named it
            error.request_id = error.request_id or self.request_id
            since = provider.offline_since
            if since and since not in error.message and not isinstance(error, Cancelled):
                error.message += (
                    f" ({provider.name} has been offline since {since}: "
                    "give base_url= to use another host that speaks its format)"
                )
        error.args = (error.message,)

    # -- one attempt -------------------------------------------------------------------------------------------

    def _attempt(self, call: Call) -> Answer:
        """Sends the request once."""
        self.headers, self.request_id, self.used_tokens, self._asked = {}, None, None, False
        if self._request is None or self.route.key_changes:
            self._request = self.route.prepare(self.route, call)
            self._keep_secret(self._request.secrets)
        self._queue_up(call, self._request)
        self._asked = True
        exchange = self.exchange = self.route.transport().send(call, self._request)
        self._take_headers(exchange)
        if exchange.status not in _SUCCESS:
            raise self._status_error(exchange, call)
        self.head = Head()
        route = self.route
        return Answer(exchange, route.provider, route.answer_tool, route.read, self.head, self.told, self.raw)

    def _queue_up(self, call: Call, request: HTTPRequest) -> None:
        """Waits until the client's own limits allow the request."""
        limiter = self.route.limiter or self._limiter
        if limiter is None:
            return
        from llmbridge.limits import Ticket, estimate_tokens

        # Kept before it enters: a Ctrl-C inside would leave it at the head of the queue, with nobody to give it back.
        self._ticket = Ticket(limiter, estimate_tokens(request.body), wake=call.wake)
        limiter.enter(self._ticket)
        try:
            self._ticket.wait(call.rest)
        except ClockExpired as error:
            error.message += ", and has waited for the client's own limits until then (limits=)"
            raise

    @property
    def _taught(self) -> Limiter | None:
        """The limiter that learns from the service. One of several services is none: it would hold up the others."""
        return self.route.limiter or (None if self._several else self._limiter)

    def _take_headers(self, exchange: Exchange) -> None:
        self.headers = exchange.headers
        self._keep_secret(exchange.secrets)
        ids = (harmless(self.headers[name], _LONGEST_ID) for name in _REQUEST_IDS if name in self.headers)
        self.request_id = next(ids, None)
        assert self._began is not None
        _log.debug("%s answered %d after %.3f s", self.route.provider.name, exchange.status, monotonic() - self._began)
        if (limiter := self._taught) is not None:
            from llmbridge.rate_limits import RateLimits

            limiter.learn(RateLimits.of(self.headers))

    def _keep_secret(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(dict.fromkeys(map(MaskedStr, (*self._secrets, *secrets))))

    def _status_error(self, exchange: Exchange, call: Call) -> LLMBridgeError:
        from llmbridge.service_errors import BODY_LIMIT, error_for_status

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
        longest = max(map(len, map(revealed, exchange.secrets)), default=0)
        text = body[: BODY_LIMIT + longest].decode("utf-8", "replace")
        if not exchange.legible and "\N{REPLACEMENT CHARACTER}" in text:
            text = ""  # compressed, though nobody asked for it; else it only says so
        return error_for_status(exchange.status, exchange.headers, text, exchange.secrets, exchange.host)

    def _drop(self, error: BaseException | None) -> None:
        """Ends what belongs to an attempt."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.close()
        self._end_ticket(error)

    def _end_ticket(self, error: BaseException | None) -> None:
        ticket = self._ticket
        if ticket is None:
            return
        if isinstance(error, RateLimited) and (limiter := self._taught) is not None:
            limiter.pause(error.retry_after)
        if error is None:
            ticket.release(self.used_tokens)
        else:
            refused = isinstance(error, (ServiceError, ConnectFailed)) and not self.settled
            ticket.release(0 if refused else None)
        self._ticket = None  # last: after a Ctrl-C in here it is given back again

    # -- what follows from a failure ---------------------------------------------------------------------------

    def _next_step(self, call: Call) -> float | Pending:
        """Seconds to wait before the next attempt, here or on another route; or the error, if there is to be none."""
        error, self._failed = self._failed, None
        assert error is not None
        self.complete(error)
        if isinstance(error, Cancelled) or (isinstance(error, ClockExpired) and error.clock == "total"):
            if self._asked:  # a model that uses up all the time that callers have is to be left out as well
                self._tell_breaker(error)
            return Pending(error)
        call.renew()
        if self._asked and self.route.key_changes and isinstance(error, AuthError) and not self._renewed:
            self._renewed = True  # no repetition: the key may have run out on the way
            _log.debug("%s refused the key: it is asked for once more", self.route.provider.name)
            return 0.0
        retry = self.route.retry
        wait = retry.decide(error, self._repetitions)
        if wait is None or (len(self._routes) > 1 and not (wait <= retry.max_backoff and call.leaves(wait))):
            return self._next_route(error)
        if not call.leaves(wait):
            cause = f"{type(error).__name__}: {error.message}"
            late = ClockExpired(f"the total limit leaves no time to wait {wait:g} s after {cause}", clock="total")
            late.__cause__ = error
            self._tell_breaker(error)
            return Pending(late)
        self._repetitions += 1
        _log.debug("%s: attempt %d failed, next in %.2f s", self.route.provider.name, self._repetitions, wait)
        retry.announce(error, self._repetitions - 1, wait)
        return wait

    def _next_route(self, error: LLMBridgeError) -> float | Pending:
        """Goes on with the next route that is not cooling down, or says that there is none."""
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
