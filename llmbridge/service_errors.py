"""Turns the error report of a service, in any format, into an error of the class that it means.

A report goes through the modules of `_service_errors` in this order: `report` normalizes it, `words` finds its class
and what to do about it, `waits` how long to wait. The error is made here. Every dialect imports this module, which
imports the others only after an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmbridge._service_errors.waits import retry_after_seconds, wait_in_text
from llmbridge.errors import (
    FINAL,
    Overloaded,
    QuotaExceeded,
    RateLimited,
    ServerError,
    ServiceError,
    StatusError,
    StreamError,
    harmless,
)
from llmbridge.secret import scrub

if TYPE_CHECKING:
    from llmbridge._service_errors.report import ServiceReport

__all__ = ["BODY_LIMIT", "error_for_status", "error_in_stream"]

BODY_LIMIT = 64 * 1024
"""The most bytes that are read of an error's body."""

_MESSAGE_LIMIT = 600
_PASSING = (408, 409, 425, 429)
_NOTHING_THERE = (404, 405)
_UNKNOWN_THERE = (501, 505)  # the server does not know the method, or this version of HTTP
_MAY_ASK_TO_WAIT = (RateLimited, QuotaExceeded, ServerError)


def error_for_status(
    status: int,
    headers: Mapping[str, str],
    body: str,
    secrets: tuple[str, ...],
    reached: str,
    asked: str = "",
    address_hint: str = "",
) -> ServiceError:
    """The error for an answer with an error status.

    Args:
        status: The HTTP status.
        headers: Names in lower case.
        body: Cut to BODY_LIMIT.
        secrets: Masked wherever the service repeats them.
        reached: The host and port that answered.
        asked: Method and URL, for when nothing was found there.
        address_hint: What is likely wrong with the base URL then; "" if it looks right.

    Example:
        >>> body = '{"error": {"message": "Please try again in 1.5s.", "code": "rate_limit_exceeded"}}'
        >>> error = error_for_status(429, {}, body, (), "api.example.com:443")
        >>> type(error).__name__, error.retry_after, error.retryable
        ('RateLimited', 1.5, True)
    """
    from llmbridge._service_errors.report import ServiceReport
    from llmbridge._service_errors.words import kind_of, names_model

    body = scrub(body, secrets)[:BODY_LIMIT]
    if 300 <= status < 400:
        location = headers.get("location", "")
        only_scheme = " http://" in asked and location.startswith(f"https://{reached}/")
        right = "write https://" if only_scheme else "give the right base_url"
        text = f"{reached} redirects to {_host_of(location)}, and redirects are not followed: {right}"
        return StatusError(scrub(text, secrets), status=status, body=body)
    report = ServiceReport.of(body)
    nowhere = status in _NOTHING_THERE and not names_model(report)
    text = (
        f"{asked if nowhere and asked else reached} answered {status}: {_cleaned(report.message) or 'no reason given'}"
    )
    named = "x-request-id" in headers or "request-id" in headers  # then the call sets it
    request_id = None if named else report.request_id
    hint = address_hint if nowhere else ""
    return _error(text, kind_of(report, status) or StatusError, status, report, headers, body, request_id, hint)


def error_in_stream(report: Any, secrets: tuple[str, ...] = ()) -> ServiceError:
    """The error for a report inside a stream, as text or parsed JSON; see `error_for_status`."""
    from llmbridge._service_errors.report import ServiceReport, dumped
    from llmbridge._service_errors.words import kind_of

    body = scrub(report if isinstance(report, str) else dumped(report), secrets)
    parsed = ServiceReport.of(body)
    text = f"the service reported an error in its answer: {_cleaned(parsed.message)}"
    kind = kind_of(parsed, parsed.status)
    return _error(text, kind, parsed.status, parsed, {}, body[:BODY_LIMIT], parsed.request_id)


def _error(
    text: str,
    kind: type[StatusError] | None,
    status: int | None,
    report: ServiceReport,
    headers: Mapping[str, str],
    body: str,
    request_id: str | None,
    address_hint: str = "",
) -> ServiceError:
    """The error with its advice; a StreamError if neither code nor words give its class."""
    from llmbridge._service_errors.words import advice

    after = _retry_after(kind, headers, report) if kind else None
    hint = address_hint or (advice(kind, status, report, after, body) if kind else None)
    error_class: type[ServiceError] = kind or StreamError
    return error_class(
        f"{text} ({hint})" if hint else text,
        status=status,
        code=report.code,
        body=body,
        retry_after=after,
        retryable=_retryable(kind, status or 0, headers, report),
        request_id=request_id,
    )


def _retry_after(kind: type[StatusError], headers: Mapping[str, str], report: ServiceReport) -> float | None:
    """Seconds to wait: from a header, the details, the words, or the rate limits.

    The headers of the limits come last, since they say when a limit is whole again: a single request may pass earlier.
    """
    from llmbridge.rate_limits import RateLimits

    asked = retry_after_seconds(headers)
    if asked is not None or not issubclass(kind, _MAY_ASK_TO_WAIT):
        return asked
    asked = wait_in_text(report.message) if report.wait is None else report.wait
    if asked is None and kind is RateLimited and (limits := RateLimits.of(headers)):
        asked = limits.wait
    return asked


def _retryable(kind: type[StatusError] | None, status: int, headers: Mapping[str, str], report: ServiceReport) -> bool:
    from llmbridge._service_errors.words import never_passes

    if kind in FINAL or never_passes(report):
        return False
    asked = headers.get("x-should-retry", "").lower()
    if asked in ("true", "false"):
        return asked == "true"
    if not status and kind is ServerError:  # in a stream only the report's own words show the cause
        return True
    return kind in (RateLimited, Overloaded) or status in _PASSING or (status >= 500 and status not in _UNKNOWN_THERE)


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "another path"
    except ValueError:
        return "an invalid address"


def _cleaned(message: str) -> str:
    return harmless(message.strip(), _MESSAGE_LIMIT).strip()
