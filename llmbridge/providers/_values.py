"""What the dialects share: values of an answer's JSON, each as what it should be; parts of messages; ids of calls.

Services leave out and mistype things, and what an answer must have is for the dialects to say: of the functions here,
only `media_of` raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidRequest

if TYPE_CHECKING:
    from llmbridge.messages import Message
    from llmbridge.parts import MediaPart

__all__ = [
    "TEXTS",
    "as_text",
    "beside_calls",
    "call_id",
    "count",
    "floats",
    "is_report",
    "is_vector",
    "mapping",
    "media_of",
    "own_form",
    "string",
]

TEXTS = ("text", "input_text", "output_text")
"""The types of a part of a message that is text."""


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


def floats(value: Any) -> list[float] | None:
    """The numbers of a list; None for what is not a list of numbers that a float can hold.

    Example:
        >>> floats([1, 0.5]), floats([True]), floats(None)
        ([1.0, 0.5], None, None)
    """
    if not isinstance(value, list) or not set(map(type, value)) <= {int, float}:
        return None
    try:
        return [float(number) for number in value]
    except OverflowError:
        return None


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


def own_form(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a message as the service's own object, if it has given one; the text in it is filled in again.

    Example:
        >>> own_form({"type": "text", "text": "Hi", "raw": {"type": "text", "text": "", "citations": [1]}})
        {'type': 'text', 'text': 'Hi', 'citations': [1]}
        >>> own_form({"type": "opaque", "raw": {"type": "search"}})
        {'type': 'search'}
    """
    raw = part.get("raw")
    if part["type"] == "opaque":
        return dict(raw or {})
    if part["type"] == "text" and isinstance(raw, Mapping):
        return {**raw, "text": part.get("text")}
    return part


def beside_calls(message: Message) -> list[dict[str, Any]]:
    """The parts of a message, for services that have a field of its own for calls, and take nothing opaque."""
    return [part for part in message.parts if part["type"] not in ("tool_call", "opaque")]


def media_of(part: Mapping[str, Any], where: str) -> MediaPart | None:
    """What a part shows, or None if it is no medium; see `MediaPart.of`.

    Args:
        part: Of a message.
        where: Which part it is, for the error.

    Raises:
        InvalidRequest: It cannot be read; says where it stands.

    Example:
        >>> try:
        ...     media_of({"type": "image_url"}, "messages[0]: content[1]")
        ... except InvalidRequest as error:
        ...     print(error.message.partition(" needs")[0])
        messages[0]: content[1]: an image_url part
    """
    from llmbridge.parts import MediaPart

    try:
        return MediaPart.of(part)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error.message}") from None


def call_id(given: str, taken: re.Pattern[str], length: int) -> str:
    """The id itself if the service takes it, or one made from it: the same id always gives the same.

    Args:
        given: The id, of whatever service.
        taken: What the service takes; letters and digits among it.
        length: Of the id that is made.

    Example:
        >>> word = re.compile("[a-z0-9_]+")
        >>> call_id("call_1", word, 9), call_id("functions.add:1", word, 9)
        ('call_1', '871704203')
    """
    if taken.fullmatch(given):
        return given
    from hashlib import sha256

    return sha256(given.encode()).hexdigest()[:length]
