"""What OpenAI's own models reject beyond the dialect: parameters, documents, images, IDs.

Source: OpenAI API reference, chat completions (`stop`), its guides on reasoning models, on GPT-5.2 ("parameter
compatibility") and on file inputs; Azure OpenAI, "reasoning models"; status 400 reported by users.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidRequest
from llmbridge.providers._values import TEXTS, call_id

if TYPE_CHECKING:
    from llmbridge.parts import MediaPart

__all__ = ["checked_ids", "checked_media", "moved_media", "refusals"]

_CALL_ID = re.compile(r".{0,40}", re.DOTALL)

_DATE = r"(-\d{4}-\d\d-\d\d)?"
_REASONS = re.compile(rf"(o1(-mini|-preview|-pro)?|o3(-mini|-pro)?|o4-mini|gpt-5(-mini|-nano|-pro|-codex)?){_DATE}")
_REASONS_IF_TOLD = re.compile(rf"gpt-5\.[1-4](-mini|-nano)?{_DATE}")
_REASONS_UNLESS_TOLD = re.compile(rf"(?!.*chat)gpt-(5\.[5-9]|[6-9](\.\d+)?)(-[a-z]+)*{_DATE}")
_NO_STOP = ("o3", "o4-mini", "gpt-5")

_USUAL = {"temperature": 1, "top_p": 1, "presence_penalty": 0, "frequency_penalty": 0}
_NEVER = ("logprobs", "top_logprobs", "logit_bias")
_SAMPLING = ("temperature", "top_p", "logprobs", "top_logprobs")

_Change = Callable[[dict[str, Any], list[dict[str, Any]]], dict[str, Any]]
_MEDIA = ("image_url", "input_audio", "file")
_TEXTS = (*TEXTS, "refusal")


def refusals(model: str, params: Mapping[str, Any]) -> dict[str, str]:
    """The parameters that a model is known to reject, each with what to do instead.

    Example:
        >>> refusals("gpt-5-mini", {"temperature": 0, "top_p": 1, "seed": 1})
        {'temperature': 'gpt-5-mini is a reasoning model and accepts only 1'}
        >>> refusals("gpt-4.1", {"temperature": 0})
        {}
    """
    found: dict[str, str] = {}
    reasons = _REASONS.fullmatch(model) is not None
    if reasons:
        for name in (name for name in (*_USUAL, *_NEVER) if _says_something(name, params)):
            usual = f"accepts only {_USUAL[name]}" if name in _USUAL else "does not accept it"
            found[name] = f"{model} is a reasoning model and {usual}"
    elif _thinks(model, params.get("reasoning_effort")):
        advice = f"{model} accepts it only with reasoning_effort='none'"
        found.update({name: advice for name in _SAMPLING if _says_something(name, params)})
    if params.get("stop") and (model.startswith(_NO_STOP[:2]) or (reasons and model.startswith(_NO_STOP))):
        found["stop"] = f"{model} does not support stop sequences"
    if isinstance(params.get("reasoning_effort"), int):
        found["reasoning_effort"] = "OpenAI takes a word (none, minimal, low, medium, high), not a number of tokens"
    return found


def _thinks(model: str, effort: Any) -> bool:
    """Whether a model that can do without reasoning reasons at this effort; None is its default."""
    if effort is None:
        return _REASONS_UNLESS_TOLD.fullmatch(model) is not None
    return effort != "none" and bool(_REASONS_IF_TOLD.fullmatch(model) or _REASONS_UNLESS_TOLD.fullmatch(model))


def _says_something(name: str, params: Mapping[str, Any]) -> bool:
    value = params.get(name)
    return value is not None and value != _USUAL[name] if name in _USUAL else bool(value)


def checked_ids(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a body, with IDs of tool calls shortened where other services made them longer than OpenAI's.

    Example:
        >>> [message] = checked_ids([{"role": "tool", "tool_call_id": "x" * 41, "content": "4"}])
        >>> len(message["tool_call_id"])
        32
    """
    return [_with_short_ids(message) for message in messages]


def _with_short_ids(message: dict[str, Any]) -> dict[str, Any]:
    short = dict(message)
    if isinstance(id := message.get("tool_call_id"), str):
        short["tool_call_id"] = call_id(id, _CALL_ID, 32)
    if calls := message.get("tool_calls"):
        short["tool_calls"] = [
            {**call, "id": call_id(call["id"], _CALL_ID, 32)} if isinstance(call.get("id"), str) else call
            for call in calls
        ]
    return short


def checked_media(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a body, with images, sound and documents only in user messages, where the service accepts them.

    Those in a tool's result are moved to a message after the results; a text document becomes text.

    Raises:
        InvalidRequest: One is in a system message, or is a document other than PDF or text.
    """
    return _moved(messages, _checked)


def moved_media(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a body, with images, sound and documents moved from tools' results to a user message after them.

    Like OpenAI, strict servers reject them in results, but every server accepts them in a user message. A result of
    plain text becomes a str, since some servers reject a list there.

    Example:
        >>> parts = [{"type": "text", "text": "See:"}, {"type": "image_url", "image_url": {"url": "https://a.b/c.png"}}]
        >>> [turn["role"] for turn in moved_media([{"role": "tool", "tool_call_id": "c", "content": parts}])]
        ['tool', 'user']
    """
    return _moved(messages, _as_answer)


def _moved(messages: Sequence[dict[str, Any]], change: _Change) -> list[dict[str, Any]]:
    """The changed messages; after tools' results come the parts that had to be moved."""
    changed: list[dict[str, Any]] = []
    moved: list[dict[str, Any]] = []
    for message in messages:
        if moved and message["role"] != "tool":
            changed.append({"role": "user", "content": moved})
            moved = []
        changed.append(change(message, moved) if isinstance(message.get("content"), list) else message)
    if moved:
        changed.append({"role": "user", "content": moved})
    return changed


def _as_answer(message: dict[str, Any], moved: list[dict[str, Any]]) -> dict[str, Any]:
    """A tool's result without media; other messages unchanged."""
    if message["role"] != "tool":
        return message
    media = [part for part in message["content"] if part.get("type") in _MEDIA]
    texts = _rest(message, media, moved)
    if isinstance(texts, list) and all(part.keys() == {"type", "text"} for part in texts):
        texts = "".join(part["text"] for part in texts)
    return {**message, "content": texts}


def _rest(message: Mapping[str, Any], others: list[dict[str, Any]], moved: list[dict[str, Any]]) -> Any:
    """A tool's result without the other parts, which are added to `moved`."""
    if others:
        call = message.get("tool_call_id")
        moved += [{"type": "text", "text": f"From the answer to the tool call {call}:"}, *others]
    rest = [part for part in message["content"] if not any(part is other for other in others)]
    return rest or ("The answer stands in the user's next message." if others else "")


def _checked(message: dict[str, Any], moved: list[dict[str, Any]]) -> dict[str, Any]:
    """A message without parts that its role does not accept; those that another role accepts are added to `moved`."""
    parts = [_checked_part(part) for part in message["content"]]
    role = message["role"]
    if role in ("user", "assistant"):  # the model's turns hold only its own parts here
        return {**message, "content": parts}
    others = [part for part in parts if part.get("type") not in _TEXTS]
    if not others:
        return {**message, "content": parts}
    if role != "tool":
        raise InvalidRequest(
            f"a {role} message holds a part of type {others[0].get('type')!r}, which OpenAI accepts only from users: "
            "put it into a user message"
        )
    return {**message, "content": _rest({**message, "content": parts}, others, moved)}


def _checked_part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") != "file":
        return part
    from llmbridge.parts import MediaPart

    media = MediaPart.of(part)
    if media is None:
        return part
    if media.url:
        raise InvalidRequest(
            "OpenAI's chat completions do not download documents: pass the document's bytes or a path, "
            "or use the provider openai-responses, which does"
        )
    if media.media_type.startswith("text/"):
        return {"type": "text", "text": _titled(media)}
    if media.media_type != "application/pdf":
        raise InvalidRequest(
            f"OpenAI's chat completions accept PDF and text documents, not {media.media_type}: convert it, "
            "or use the provider openai-responses"
        )
    return part


def _titled(media: MediaPart) -> str:
    import base64

    try:
        text = base64.b64decode(media.data).decode("utf-8-sig")
    except ValueError:
        raise InvalidRequest("the text document is not valid UTF-8: decode it, and pass it as text") from None
    return f"{media.filename}\n\n{text}" if media.filename else text
