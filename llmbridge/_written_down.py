"""Answers that come back as messages in the form in which the services' own packages write them down."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["as_said"]

_REASONING = ("reasoning_content", "reasoning")
# What only an answer carries. Even with nothing in it, there are services that refuse it.
_OF_ANSWERS = ("annotations", "audio", "function_call", "refusal", "tool_calls", *_REASONING)


def as_said(content: Any, extra: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The content of an assistant's turn with its reasoning as a part, and the rest without what is empty.

    The part says in `field` where the text stood, for servers that want it back there. A refusal in the place of the
    content is what the model said.

    Example:
        >>> as_said("Hi", {"reasoning": "Hm.", "annotations": []})
        ([{'type': 'reasoning', 'text': 'Hm.', 'field': 'reasoning'}, 'Hi'], {})
    """
    thoughts = {name: text for name in _REASONING if isinstance(text := extra.get(name), str) and text}
    kept = {key: value for key, value in extra.items() if (value or key not in _OF_ANSWERS) and key not in thoughts}
    if not content and isinstance(kept.get("refusal"), str):
        content = kept.pop("refusal")
    parts = content if isinstance(content, (list, tuple)) else [content] if content else []
    if not thoughts or any(isinstance(part, Mapping) and part.get("type") == "reasoning" for part in parts):
        return content, kept
    name, text = next(iter(thoughts.items()))  # a service that writes two writes the same text twice
    return [{"type": "reasoning", "text": text, "field": name}, *parts], kept
