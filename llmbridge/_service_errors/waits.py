"""How long a service wants a client to wait, in any form: numbers, durations, dates, words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["PREFIXES", "duration_seconds", "number", "retry_after_seconds", "seconds_until", "wait_in_text"]

PREFIXES = ("", "llm_provider-")  # LiteLLM passes on the headers of the service behind it under these names
_TEXT_LIMIT = 8_000
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# Patterns stay strings, compiled (and cached by re) only after an error.
_PART = (
    r"(\d{1,12}(?:\.\d{1,12})?)\s*(ms|milliseconds?|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|s|m|h|d)(?![a-z])"
)
_PARTS = rf"{_PART}(?:[\s,]{{0,2}}(?:and\s)?{_PART})*"
_GLUED = r"(\d{1,12}(?:\.\d{1,12})?)(ms|[smhd])"
_ASKED = (
    r"(?:try again|retry(?:ing)?|wait(?:ing)?|available again|resets?|replenished)\s{1,2}"
    r"(?:(?:in|after|for|at least|about)\s{1,2}){0,2}"
)


def retry_after_seconds(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait according to a response's headers; None without a valid one.

    Args:
        headers: Of the response, with names in lower case.
        now: For a date; the current time if not given.

    Example:
        >>> retry_after_seconds({"retry-after-ms": "250"}), retry_after_seconds({"retry-after": "soon"})
        (0.25, None)

    Source:
        RFC 9110 10.2.3 (seconds or date); `retry-after-ms` is sent by OpenAI and Azure.
    """
    for prefix in PREFIXES:
        milliseconds = number(headers.get(f"{prefix}retry-after-ms", ""))
        if milliseconds is not None:
            return milliseconds / 1000
        if text := headers.get(f"{prefix}retry-after", "").strip():
            seconds = number(text)
            return _seconds_until_date(text, now) if seconds is None else seconds
    return None


def wait_in_text(text: str) -> float | None:
    """Seconds to wait according to a message, or None.

    Example:
        >>> wait_in_text("Rate limit reached. Please try again in 1m30.5s. Visit our page."), wait_in_text("try again")
        (90.5, None)

    Source:
        OpenAI and Groq ("try again in 20ms", "in 7m12s"), Azure ("retry after 5 seconds"), Gemini ("retry in 46.1s").
    """
    # The phrase is found first: a single pattern for everything is slow in texts that repeat it.
    for found in re.finditer(_ASKED, text[:_TEXT_LIMIT], re.IGNORECASE):
        if whole := re.match(_PARTS, text[found.end() : found.end() + 80], re.IGNORECASE):
            return sum(float(count) * _unit(unit) for count, unit in re.findall(_PART, whole[0], re.IGNORECASE))
    return None


def duration_seconds(text: str) -> float | None:
    """Seconds of a duration in the short form of Go and protocol buffers, or None for anything else.

    Example:
        >>> [duration_seconds(text) for text in ("6m0s", "17ms", "1.5s", "1h16m0.5s", "soon", "-1s")]
        [360.0, 0.017, 1.5, 4560.5, None, None]
    """
    text = text.strip()
    if len(text) > 80 or not re.fullmatch(rf"(?:{_GLUED})+", text, re.ASCII):
        return None
    return sum(float(count) * _UNITS[unit] for count, unit in re.findall(_GLUED, text))


def seconds_until(text: str, now: float) -> float | None:
    """Seconds from `now` (as of `time.time()`) to an RFC 3339 date, 0 if it has passed; None if it is not a date.

    Example:
        >>> seconds_until("1970-01-01T00:01:30.123456789Z", 60.0)
        30.123456
    """
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,12})?(Z|[+-]\d\d:\d\d)", text.strip(), re.IGNORECASE)
    if not found:
        return None
    from datetime import datetime

    try:
        date = datetime.fromisoformat(found[1].upper() + ("+00:00" if found[3] in "Zz" else found[3]))
        fraction = float((found[2] or ".0")[:7])  # Python 3.10 reads only three or six digits
        return round(max(0.0, date.timestamp() + fraction - now), 6)
    except (ValueError, OverflowError):
        return None


def number(text: str) -> float | None:
    """A number from 0 in plain decimal or exponential notation, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def _seconds_until_date(text: str, now: datetime | None) -> float | None:
    from datetime import datetime, timezone  # takes longer to import than the rest of this package
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - (now or datetime.now(timezone.utc))).total_seconds())


def _unit(word: str) -> float:
    word = word.lower()
    if word.startswith(("ms", "milli")):
        return _UNITS["ms"]
    return _UNITS[word[0]]
