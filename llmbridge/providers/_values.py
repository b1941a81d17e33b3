"""What the dialects share: values of an answer's JSON, each as what it should be; finish reasons, parts, ids of calls.

Services leave out and mistype things, and what an answer must have is for the dialects to say: of the functions here,
only `media_of` raises.
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
"""The types of a part of a message that is text."""

# What services write in each chunk of an answer that is not over, beside null and "".
_NOT_FINISHED = frozenset(("", "null", "none", "nil", "undefined", "not_finished", "finish_reason_unspecified"))
# The finish reasons of all dialects: gateways hand on those of the service behind them, unchanged or in other letters.
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
    """The mapping that `value` is, or an empty one."""
    return value if value.__class__ is dict or isinstance(value, Mapping) else {}


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


def finish_of(word: Any, own: Mapping[str, FinishReason], message: str = "", again: bool = True) -> Iterator[Finish]:
    """Why an answer ended, of the service's word for it; nothing where that says that it goes on.

    Args:
        word: As the service gave it.
        own: What the dialect's own words mean. Those of the other dialects are known, in any letters.
        message: What the service says about it.
        again: For an error: whether the same request may succeed at the next try.

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
        known = _HUMP.sub("_", word.strip()).lower().replace("-", "_")
        if known not in _NOT_FINISHED:
            reason = own.get(word) or _REASON_OF.get(known, "other")
            yield Finish(reason, word, message, again and reason == "error")


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
