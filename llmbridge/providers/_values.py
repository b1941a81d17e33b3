"""Values of JSON, each as what it should be, or as nothing: services leave out and mistype things.

Nothing here raises: what an answer must have is for the dialects to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["as_text", "count", "is_report", "is_vector", "mapping", "string"]


def mapping(value: Any) -> Mapping[str, Any]:
    """The mapping that `value` is, or an empty one."""
    return value if isinstance(value, Mapping) else {}


def string(value: Any) -> str:
    """The text that `value` is, or an empty one."""
    return value if isinstance(value, str) else ""


def count(value: Any) -> int | None:
    """A number of tokens, or None for what is none.

    Example:
        >>> count(7), count(-1), count(True), count("7")
        (7, None, None, None)
    """
    return value if value.__class__ is int and value >= 0 else None


def is_vector(value: Any) -> bool:
    """Whether `value` is an embedding: a list of numbers that is not empty."""
    return isinstance(value, list) and bool(value) and set(map(type, value)) <= {int, float}


def is_report(fields: Mapping[str, Any]) -> bool:
    """Whether what holds nothing of an answer is the report of an error, as FastAPI and gateways write one.

    Example:
        >>> is_report({"detail": "boom"}), is_report({"code": 500, "message": "boom"}), is_report({"type": "ping"})
        (True, True, False)
        >>> is_report({"type": "status", "message": "loading"})
        False
    """
    if fields.get("detail"):
        return True
    kind = string(fields.get("type")).lower()
    return bool(string(fields.get("message"))) and (not kind or "error" in kind or "exception" in kind)


def as_text(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a message, a refusal in OpenAI's form as the text that it is elsewhere.

    Example:
        >>> as_text({"type": "refusal", "refusal": "No."})
        {'type': 'text', 'text': 'No.'}
    """
    if part["type"] == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    return part
