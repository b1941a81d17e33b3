"""Normalizes a service's error report, from any service's format.

Source: the error objects of OpenAI, Azure, Anthropic, Google (AIP-193), Mistral, Ollama, FastAPI, llama.cpp, vLLM,
LiteLLM, OpenRouter, xAI, Hugging Face.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from llmbridge._service_errors.waits import duration_seconds, number
from llmbridge._text import mended
from llmbridge.errors import harmless
from llmbridge.rate_limits import RateLimits

__all__ = ["ServiceReport", "dumped"]

_LONGEST_NAME = 200
_NESTED = 3  # the most reports that are nested as text in each other's messages
_TITLE = r"<title>(.{1,200}?)</title>"


@dataclass(frozen=True, slots=True)
class ServiceReport:
    """An error report in one format.

    Args:
        message: The service's words; a gateway's include those of the service behind it.
        code: Its code, or else its type.
        words: Everything that names the kind of error, in lower case: code, type and status name first, then those
            from the details.
        status: A status in the report itself.
        request_id: The service's id for the request, if the report holds it.
        wait: Seconds to wait, from the details.
    """

    message: str
    code: str | None = None
    words: tuple[str, ...] = ()
    status: int | None = None
    request_id: str | None = None
    wait: float | None = None

    @classmethod
    def of(cls, report: Any) -> ServiceReport:
        """The report in a body or an event, given as text or as parsed JSON.

        Example:
            >>> ServiceReport.of('{"error": {"message": "No.", "type": "server_error", "code": 500}}').status
            500
            >>> ServiceReport.of({"detail": [{"loc": ["body", "n"], "msg": "too big"}]}).message
            'body.n: too big'
        """
        found = _report(report, _NESTED)
        code, request_id = (text and harmless(text, _LONGEST_NAME) for text in (found.code, found.request_id))
        return replace(found, message=mended(found.message), code=code, request_id=request_id)


def _report(report: Any, depth: int) -> ServiceReport:
    report = _unwrapped(report)
    if not isinstance(report, Mapping):
        return ServiceReport(_message(report))
    inner = next((report[key] for key in ("error", "detail", "details") if report.get(key)), report)
    coded = inner if isinstance(inner, Mapping) else report
    message = inner
    if inner is coded:
        message = (
            inner if "loc" in inner else inner.get("message") or inner.get("error") or inner.get("detail") or inner
        )
    code, status, named = _codes(coded)
    flat = ServiceReport(
        _message(message),
        code,
        tuple(word.lower() for word in (*named, *_words_in_details(coded))),
        status,
        _text(report.get("request_id")) or _text(coded.get("request_id")),
        next(_waits(coded), None) or next(_waits(report), None),
    )
    return _with_nested(flat, coded, depth) if depth else flat


def _with_nested(outer: ServiceReport, fields: Mapping[str, Any], depth: int) -> ServiceReport:
    """The report of a gateway, with the nested report of the service behind it (as text or as an object)."""
    metadata = _mapping(fields.get("metadata"))  # OpenRouter's
    if raw := metadata.get("raw"):
        inner = _report(raw, depth - 1)
        message = f"{outer.message} ({_text(metadata.get('provider_name')) or 'upstream'}: {inner.message})"
    elif outer.message.lstrip().startswith(("{", "[")) and isinstance(_unwrapped(outer.message), Mapping):
        inner = _report(outer.message, depth - 1)
        message = inner.message
    else:
        return outer
    return replace(
        outer,
        message=message,
        words=outer.words + inner.words,
        request_id=outer.request_id or inner.request_id,
        wait=inner.wait if outer.wait is None else outer.wait,
    )


def _unwrapped(report: Any) -> Any:
    """The report without lists around it (Gemini's is a list of one element)."""
    if isinstance(report, str):
        report = _parsed(report)
    while isinstance(report, list) and report and not {"msg", "loc"} & _mapping(report[0]).keys():
        report = report[0]
    return report


def _parsed(body: str) -> Any:
    """The JSON in a body, or in an event (some gateways put their errors into one), or the text."""
    text = body.strip()
    if text.startswith(("data:", "event:")):
        lines = [line[5:].strip() for line in text.splitlines() if line.startswith("data:")]
        text = next((line for line in lines if line and not line.startswith("[DONE]")), text)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _codes(report: Mapping[str, Any]) -> tuple[str | None, int | None, list[str]]:
    """Code, status and the names of the kind of error; codes may be numbers, text or null."""
    values = [_code(report.get(key)) for key in ("code", "type", "status", "statusCode", "error_type")]
    numbers = [int(value) for value in values if re.fullmatch(r"[1-5]\d\d", value, re.ASCII)]
    texts = [value for value in values if value and not value.isdigit()]
    named = next((value for value in values[:2] if value), None)
    return texts[0] if texts else named, next((value for value in numbers if value >= 400), None), texts


def _code(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return ""
    return value if isinstance(value, str) else str(value) if abs(value) < 10**9 else ""


def _words_in_details(fields: Mapping[str, Any]) -> Iterator[str]:
    """The names of the kind of error in the details. Two are replaced by the words of other services."""
    inner_errors = (fields.get("innererror"), _mapping(fields.get("provider_specific_fields")).get("innererror"))
    for holder in (*inner_errors, *_mappings(fields.get("errors"))):
        yield from filter(None, (_text(_mapping(holder).get("code")), _text(_mapping(holder).get("reason"))))
    metadata = _mapping(fields.get("metadata"))
    yield from filter(None, [_text(metadata.get("error_type"))])
    if metadata.get("flagged_input") or metadata.get("reasons"):
        yield "content_filter"  # OpenRouter's moderation
    for detail in _mappings(fields.get("details")):
        yield from filter(None, [_text(detail.get("reason"))])
        if violations := list(_mappings(detail.get("violations"))):
            limits = " ".join(f"{item.get('quotaId')} {item.get('quotaMetric')}".lower() for item in violations)
            yield "quota_exhausted" if "perday" in limits or "per_day" in limits else "rate_limit_exceeded"


def _waits(fields: Mapping[str, Any]) -> Iterator[float]:
    """Seconds to wait, from any field of a report."""
    for detail in _mappings(fields.get("details")):
        for given in (detail.get("retryDelay"), _mapping(detail.get("metadata")).get("quotaResetDelay")):
            if isinstance(given, str) and (seconds := duration_seconds(given)) is not None:
                yield seconds
    for name in ("retry_after", "retry_after_seconds", "estimated_time"):  # the last: Hugging Face, while loading
        given = fields.get(name)
        if isinstance(given, (int, float)) and (seconds := number(dumped(given))) is not None:
            yield seconds
    headers = _mapping(_mapping(fields.get("metadata")).get("headers"))  # OpenRouter's
    limits = RateLimits.of({str(name).lower(): value for name, value in headers.items() if isinstance(value, str)})
    if limits is not None and limits.wait is not None:
        yield limits.wait


def _message(value: Any, depth: int = _NESTED) -> str:
    """The words in a message, which may be a list or an object itself."""
    if isinstance(value, str):
        return _html_title(value)
    if isinstance(value, list):
        return "; ".join(_message(item, depth) if not isinstance(item, list) else dumped(item) for item in value[:5])
    if isinstance(value, Mapping):
        if "msg" in value or "loc" in value:
            return _placed(value)
        if depth and (inner := value.get("detail")):  # Mistral's message may be a whole report of FastAPI
            return _message(inner, depth - 1)
    return "" if value is None else dumped(value)


def _placed(problem: Mapping[str, Any]) -> str:
    """One problem of FastAPI's list, with its place."""
    steps = problem.get("loc")
    place = ".".join(dumped(step).strip('"') for step in steps) if isinstance(steps, list) else ""
    message = problem.get("msg") or problem.get("message") or problem.get("type") or ""  # "message" is g4f's
    message = message if isinstance(message, str) else dumped(message)
    return f"{place}: {message}" if place else message


def _html_title(text: str) -> str:
    if not text.lstrip().startswith("<"):
        return text
    title = re.search(_TITLE, text, re.IGNORECASE | re.DOTALL)
    return f"an HTML page, titled {title[1].strip()!r}" if title else "an HTML page"


def dumped(value: Any) -> str:
    """Any value as JSON text."""
    try:
        return json.dumps(value, default=str)
    except (RecursionError, ValueError, TypeError):
        return "(nested too deeply)"


def _mappings(value: Any) -> Iterator[Mapping[str, Any]]:
    return (item for item in (value if isinstance(value, list) else ()) if isinstance(item, Mapping))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
