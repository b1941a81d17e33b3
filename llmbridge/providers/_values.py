"""What the dialects share: type-safe access to an answer's JSON, finish reasons, parts, IDs of calls.

Services leave out and mistype fields, and each dialect decides what it requires: only `media_of` raises here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidRequest
from llmbridge.events import Finish, FinishReason

if TYPE_CHECKING:
    from llmbridge.messages import Message
    from llmbridge.parts import MediaPart

__all__ = [
    "TEXTS",
    "as_text",
    "beside_calls",
    "call_id",
    "count",
    "finish_of",
    "floats",
    "is_report",
    "is_vector",
    "mapping",
    "media_of",
    "own_form",
    "string",
]

TEXTS = ("text", "input_text", "output_text")
"""The types of message parts that hold text."""

# Besides null and "", what services send in every chunk of an unfinished answer.
_NOT_FINISHED = frozenset(("", "null", "none", "nil", "undefined", "not_finished", "finish_reason_unspecified"))
# Finish reasons of all dialects: gateways pass on those of the service behind them, sometimes in other letter case.
_REASONS: dict[FinishReason, str] = {
    "stop": "complete completed done end_turn endoftext eos eos_token normal stop stop_sequence stop_token",
    "length": """
        error_limit length max_completion_tokens max_length max_new_tokens max_output_tokens max_tokens
        model_context_window_exceeded model_length token_limit""",
    "tool_calls": "function_call function_calls tool_call tool_calls tool_use",
    "content_filter": """
        blocked blocklist content_filter content_filtered error_toxic guardrail_intervened image_prohibited_content
        image_recitation image_safety model_armor prohibited_content recitation refusal safety sensitive spii""",
    "pause": "pause pause_turn",
    "error": """
        abort aborted cancelled canceled error failed insufficient_system_resource internal_error
        malformed_function_call malformed_model_output malformed_response malformed_tool_use missing_thought_signature
        network_error server_error time_limit timeout too_many_tool_calls unexpected_tool_call""",
}
_HUMP = re.compile("(?<=[a-z])(?=[A-Z])")
_REASON_OF = {word: reason for reason, words in _REASONS.items() for word in words.split()}


def mapping(value: Any) -> Mapping[str, Any]:
    """`value` if it is a mapping, or else an empty one."""
    return value if value.__class__ is dict or (value is not None and isinstance(value, Mapping)) else {}


def string(value: Any) -> str:
    """`value` if it is a str, or else an empty one."""
    return value if isinstance(value, str) else ""


def count(value: Any) -> int | None:
    """`value` if it is a number of tokens, or else None.

    Example:
        >>> count(7), count(-1), count(True), count("7")
        (7, None, None, None)
    """
    return value if value.__class__ is int and value >= 0 else None


def finish_of(word: Any, own: Mapping[str, FinishReason], message: str = "", again: bool = True) -> Iterator[Finish]:
    """Why an answer ended, from the service's word for it; nothing if the word means that it continues.

    Args:
        word: The service's word.
        own: The meaning of the dialect's own words. Those of other dialects are known, in any letter case.
        message: The service's explanation.
        again: For an error: whether the same request may succeed if retried.

    Source:
        The finish reasons of OpenAI, Anthropic, Gemini, Mistral, Cohere, Bedrock, DeepSeek, Zhipu, watsonx, vLLM and
        text-generation-inference; the word "null" of ai00_server#90.

    Example:
        >>> list(finish_of("MAX_TOKENS", {"stop": "stop"}))
        [Finish(reason='length', raw='MAX_TOKENS')]
        >>> [finish.reason for word in ("stop", "null", "maxTokens", "new") for finish in finish_of(word, {})]
        ['stop', 'length', 'other']
    """
    if isinstance(word, str):
        known = word if word in _REASON_OF else _HUMP.sub("_", word.strip()).lower().replace("-", "_")
        if known not in _NOT_FINISHED:
            reason = own.get(word) or _REASON_OF.get(known, "other")
            yield Finish(reason, word, message, again and reason == "error")


def is_vector(value: Any) -> bool:
    """Whether `value` is an embedding: a non-empty list of numbers."""
    return isinstance(value, list) and bool(value) and set(map(type, value)) <= {int, float}


def floats(value: Any) -> list[float] | None:
    """The numbers of a list as floats; None if it is not a list of such numbers.

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
    """Whether a document without an answer reports an error, like those of FastAPI and gateways.

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
    """The part, with a refusal in OpenAI's form turned into text.

    Example:
        >>> as_text({"type": "refusal", "refusal": "No."})
        {'type': 'text', 'text': 'No.'}
    """
    if part["type"] == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    return part


def own_form(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a message as the service's own object, if there is one, with its text filled in again.

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
    """The message's parts except calls and opaque ones, for services with a separate field for calls."""
    return [part for part in message.parts if part["type"] not in ("tool_call", "opaque")]


def media_of(part: Mapping[str, Any], where: str) -> MediaPart | None:
    """The image, sound or document in a part, or None; see `MediaPart.of`.

    Args:
        part: A part of a message.
        where: Its place, for the error.

    Raises:
        InvalidRequest: It is not valid. The message names the place.

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
    """The id itself if the service accepts it, or one derived from it: always the same for the same id.

    Args:
        given: The id, from any service.
        taken: A pattern of the ids that the service accepts; these include letters and digits.
        length: The length of a derived id.

    Example:
        >>> word = re.compile("[a-z0-9_]+")
        >>> call_id("call_1", word, 9), call_id("functions.add:1", word, 9)
        ('call_1', '871704203')
    """
    if taken.fullmatch(given):
        return given
    from hashlib import sha256

    return sha256(given.encode()).hexdigest()[:length]
