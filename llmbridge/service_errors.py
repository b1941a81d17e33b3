"""What a service's error means: from any of the shapes in which services report one, to a class of the tree.

Statuses lie (a wrong key is 400 here and 500 there), so the code, the type and in a few cases the words count too.

Source: the error objects of OpenAI, Anthropic, Gemini, Mistral, FastAPI, llama.cpp, vLLM, LiteLLM and OpenRouter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from llmbridge.errors import (
    AuthError,
    BadRequest,
    ContextLengthExceeded,
    NotFound,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    ServerError,
    ServiceError,
    StatusError,
    StreamError,
)
from llmbridge.retry import retry_after_seconds
from llmbridge.secret import scrub

__all__ = ["BODY_LIMIT", "ServiceReport", "error_for_status", "error_in_stream"]

BODY_LIMIT = 64 * 1024
"""Bytes of an error's body that are read."""

_MESSAGE_LIMIT = 600
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_TITLE = re.compile(r"<title>(.{1,200}?)</title>", re.IGNORECASE | re.DOTALL)
_TOO_LONG = re.compile(
    r"context (length|window|size)|maximum context|prompt is too long|too many (input )?tokens|input is too long", re.I
)
_BAD_KEY = re.compile(r"api[ _-]?key (is )?(not valid|invalid|expired)|(invalid|incorrect) api[ _-]?key", re.I)

_BY_WORD: dict[str, type[StatusError]] = {
    "insufficient_quota": QuotaExceeded,
    "billing_error": QuotaExceeded,
    "billing_hard_limit_reached": QuotaExceeded,
    "exceeded_current_quota_error": QuotaExceeded,
    "context_length_exceeded": ContextLengthExceeded,
    "exceed_context_size_error": ContextLengthExceeded,
    "invalid_api_key": AuthError,
    "authentication_error": AuthError,
    "unauthenticated": AuthError,
    "permission_error": PermissionDenied,
    "permission_denied": PermissionDenied,
    "not_found_error": NotFound,
    "not_found": NotFound,
    "model_not_found": NotFound,
    "rate_limit_error": RateLimited,
    "rate_limit_exceeded": RateLimited,
    "resource_exhausted": RateLimited,
    "overloaded_error": Overloaded,
    "engine_overloaded": Overloaded,
    "unavailable": Overloaded,
    "api_error": ServerError,
    "server_error": ServerError,
    "internal_error": ServerError,
    "internal_server_error": ServerError,
    "internal": ServerError,
    "timeout_error": ServerError,
    "invalid_request_error": BadRequest,
    "invalid_argument": BadRequest,
    "bad_request": BadRequest,
}
_BY_STATUS: dict[int, type[StatusError]] = {
    400: BadRequest,
    401: AuthError,
    402: QuotaExceeded,
    403: PermissionDenied,
    404: NotFound,
    413: BadRequest,
    422: BadRequest,
    429: RateLimited,
    503: Overloaded,
    529: Overloaded,
}
# Words that say more than the status they come with.
_OVER_STATUS = (QuotaExceeded, ContextLengthExceeded, AuthError)
_PASSING = (408, 409, 425, 429)
_ADVICE: dict[type[StatusError], str] = {
    AuthError: "check the API key",
    PermissionDenied: "this key may not do that: check the account's rights to the model",
    NotFound: "check the model's name and the base_url",
    QuotaExceeded: "the account has no credit left, so waiting does not help",
    ContextLengthExceeded: "shorten the messages, or take a model with a longer context",
}


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """An error in one shape, whatever shape it came in.

    Args:
        message: The service's words.
        code: Its code, or its type where there is no code.
        words: Code, type and status name in lower case.
        status: A status that the report itself names.
    """

    message: str
    code: str | None = None
    words: tuple[str, ...] = ()
    status: int | None = None

    @classmethod
    def of(cls, report: Any) -> ServiceReport:
        """The report in a body or an event, given as text or as parsed JSON.

        Example:
            >>> ServiceReport.of('{"error": {"message": "No.", "type": "server_error", "code": 500}}').status
            500
            >>> ServiceReport.of({"detail": [{"loc": ["body", "n"], "msg": "too big"}]}).message
            'body.n: too big'
        """
        if isinstance(report, str):
            report = _parsed(report)
        while isinstance(report, list) and report and "msg" not in _mapping(report[0]):
            report = report[0]
        if not isinstance(report, Mapping):
            return cls(_words_of(report))
        inner = next((report[key] for key in ("error", "detail", "details") if report.get(key)), report)
        if not isinstance(inner, Mapping):
            return cls(_words_of(inner), **_codes(report))
        message = inner.get("message") or inner.get("error") or inner.get("detail") or inner
        return cls(_words_of(message), **_codes(inner))


def error_for_status(
    status: int, headers: Mapping[str, str], body: str, secrets: tuple[str, ...], reached: str
) -> ServiceError:
    """The error for an answer whose status is no success.

    Args:
        status: The HTTP status.
        headers: Names in lower case.
        body: Cut to BODY_LIMIT.
        secrets: Masked wherever the service repeats them.
        reached: The host and port that answered.
    """
    body = scrub(body, secrets)[:BODY_LIMIT]
    if 300 <= status < 400:
        host = _host_of(headers.get("location", ""))
        text = f"{reached} redirects to {host}, and redirects are not followed: give the right base_url"
        return StatusError(scrub(text, secrets), status=status, body=body)
    report = ServiceReport.of(body)
    kind = _kind(report, status) or StatusError
    after = retry_after_seconds(headers)
    text = f"{reached} answered {status}: {_cleaned(report.message) or 'no reason given'}"
    return kind(
        _advised(text, kind, after),
        status=status,
        code=report.code,
        body=body,
        retry_after=after,
        retryable=_retryable(kind, status, headers),
    )


def error_in_stream(report: Any, secrets: tuple[str, ...] = ()) -> ServiceError:
    """The error for a report inside a stream, as text or parsed JSON; see `error_for_status`."""
    body = scrub(report if isinstance(report, str) else _dumped(report), secrets)
    parsed = ServiceReport.of(body)
    kind = _kind(parsed, parsed.status)
    message = f"the service reported an error in its answer: {_cleaned(parsed.message)}"
    error_class: type[ServiceError] = kind or StreamError
    return error_class(
        _advised(message, kind, None) if kind else message,
        status=parsed.status,
        code=parsed.code,
        body=body[:BODY_LIMIT],
        retryable=kind is not None and _retryable(kind, parsed.status or 0, {}),
    )


def _kind(report: ServiceReport, status: int | None) -> type[StatusError] | None:
    by_word = next((_BY_WORD[word] for word in report.words if word in _BY_WORD), None)
    by_status = _BY_STATUS.get(status or 0)
    if by_status is None and status is not None:
        by_status = ServerError if status >= 500 else BadRequest if status in (405, 411, 415) else None
    kind = by_word if by_word in _OVER_STATUS else by_status or by_word
    if kind in (BadRequest, ServerError, None):
        if _TOO_LONG.search(report.message):
            return ContextLengthExceeded
        if _BAD_KEY.search(report.message):
            return AuthError
    return kind


def _retryable(kind: type[StatusError], status: int, headers: Mapping[str, str]) -> bool:
    asked = headers.get("x-should-retry", "").lower()
    if asked in ("true", "false"):
        return asked == "true"
    if kind in (RateLimited, Overloaded):
        return True
    return kind not in (QuotaExceeded, ContextLengthExceeded, AuthError) and (status in _PASSING or status >= 500)


def _advised(text: str, kind: type[StatusError], retry_after: float | None) -> str:
    advice = _ADVICE.get(kind)
    if kind is RateLimited and retry_after is not None:
        advice = f"it asks to wait {retry_after:g} s"
    return f"{text} ({advice})" if advice else text


def _parsed(body: str) -> Any:
    """The JSON in a body, which may stand in an event (some gateways put their errors into one), or the text."""
    text = body.strip()
    if text.startswith(("data:", "event:")):
        lines = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
        text = next((line for line in lines if line and not line.startswith("[DONE]")), text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _codes(report: Mapping[str, Any]) -> dict[str, Any]:
    """Code, words and status of a report; codes may be numbers, text or null."""
    values = [value if isinstance(value := report.get(key), (str, int)) else None for key in ("code", "type", "status")]
    numbers = [int(str(value)) for value in values if re.fullmatch(r"[1-5]\d\d", str(value))]
    texts = [str(value) for value in values if isinstance(value, str) and value and not value.isdigit()]
    named = next((str(value) for value in values[:2] if value not in (None, "") and not isinstance(value, bool)), None)
    return {
        "code": texts[0] if texts else named,
        "words": tuple(text.lower() for text in texts),
        "status": next((number for number in numbers if number >= 400), None),
    }


def _words_of(value: Any) -> str:
    if isinstance(value, str):
        return _html_title(value)
    if isinstance(value, list):
        return "; ".join(_words_of(item) if not isinstance(item, list) else _dumped(item) for item in value[:5])
    if isinstance(value, Mapping) and "msg" in value:
        steps = value.get("loc")
        place = ".".join(_dumped(step).strip('"') for step in steps) if isinstance(steps, list) else ""
        message = value["msg"] if isinstance(value["msg"], str) else _dumped(value["msg"])
        return f"{place}: {message}" if place else message
    return "" if value is None else _dumped(value)


def _dumped(value: Any) -> str:
    try:
        return json.dumps(value, default=str)
    except (RecursionError, ValueError):
        return "(nested too deeply)"


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2] or "another path"
    except ValueError:
        return "an address that is none"


def _html_title(text: str) -> str:
    if not text.lstrip().startswith("<"):
        return text
    title = _TITLE.search(text)
    return f"an HTML page, titled {title[1].strip()!r}" if title else "an HTML page"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _cleaned(message: str) -> str:
    text = _CONTROL.sub(" ", message).strip()
    return text if len(text) <= _MESSAGE_LIMIT else f"{text[:_MESSAGE_LIMIT]}..."
