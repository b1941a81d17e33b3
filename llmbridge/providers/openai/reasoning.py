"""Reasoning with its signatures in OpenAI's dialect: read from answers, and written back into an assistant's turn.

Two services send a list of entries beside or instead of the reasoning's text: OpenRouter `reasoning_details`, LiteLLM
`thinking_blocks`. The models behind them require these entries back: whole, unchanged and in order.

An entry's text becomes `Reasoning` like any other. Its other fields (type, format, index, signature) are kept as JSON
in the signature; an entry without a text is kept as JSON in the redacted reasoning. If a text comes in pieces, only the
last one carries a signature, as it holds everything.

Source: OpenRouter, "Reasoning tokens"; LiteLLM, "Thinking / Reasoning content". In OpenRouter's streams the index does
not tell entries apart (OpenRouterTeam/ai-sdk-provider#519), but a change of type does.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llmbridge.errors import ProtocolError
from llmbridge.events import Reasoning

__all__ = ["read_entries", "write_entries"]

_TEXTS = {"reasoning.text": "text", "reasoning.summary": "summary", "thinking": "thinking"}
_PLAIN = {"reasoning_details": "reasoning.text", "thinking_blocks": "thinking"}
_HIDDEN = {"reasoning_details": "reasoning.encrypted", "thinking_blocks": "redacted_thinking"}
_SUMMARIES = "-responses-"  # in the format names of services that show only summaries


def read_entries(entries: Any, whole: bool) -> Iterator[Reasoning]:
    """The reasoning in the entries of an answer.

    Args:
        entries: The list; anything else is ignored.
        whole: Whether each entry is complete, as in an answer that is not streamed.

    Example:
        >>> [piece] = read_entries([{"type": "thinking", "thinking": "Hm.", "signature": "s"}], whole=False)
        >>> piece.text, piece.signature
        ('Hm.', '{"type": "thinking", "signature": "s"}')
    """
    known = [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []
    for entry, following in zip(known, [*known[1:], None], strict=False):
        name = _text_name(entry)
        text = entry.get(name)
        rest = {key: value for key, value in entry.items() if key != name}
        if not name:
            yield Reasoning("", None, _as_json(entry))
        elif rest.get("signature") or (text and (whole or (following is not None and _differ(entry, following)))):
            yield Reasoning(text if isinstance(text, str) else "", _as_json(rest))
        elif isinstance(text, str) and text:
            yield Reasoning(text)


def _text_name(entry: Mapping[str, Any]) -> str:
    """The name of the field with an entry's text; "" if there is none."""
    if isinstance(kind := entry.get("type"), str):
        return _TEXTS.get(kind, "")
    return "text" if isinstance(entry.get("text"), str) else ""


def _differ(entry: Mapping[str, Any], following: Mapping[str, Any]) -> bool:
    return any(entry.get(name) != following.get(name) for name in ("type", "index", "id"))


def _as_json(entry: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(entry), ensure_ascii=False)
    except RecursionError:
        raise ProtocolError("the service sent reasoning that is nested too deeply") from None


def write_entries(parts: Sequence[Mapping[str, Any]], field: str) -> list[dict[str, Any]]:
    """The entries from which the parts of an earlier turn were made, in order; empty if no part has a signature.

    Args:
        parts: Parts of type `reasoning`.
        field: The list's name: `reasoning_details` or `thinking_blocks`.

    Example:
        >>> signed = {"type": "reasoning", "text": "Hm.", "signature": '{"type": "thinking", "signature": "s"}'}
        >>> write_entries([signed], "thinking_blocks")
        [{'type': 'thinking', 'signature': 's', 'thinking': 'Hm.'}]
    """
    entries: list[dict[str, Any]] = []
    for part in reversed(parts):
        if (entry := _entry(part, field, entries[-1] if entries else None)) is not None:
            entries.append(entry)
    if not any(part.get("signature") or part.get("redacted") for part in parts):
        return []
    return entries[::-1]


def _entry(part: Mapping[str, Any], field: str, following: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The entry from which a part was made. A text without a signature belongs to the next entry."""
    if redacted := part.get("redacted"):
        return _from_json(redacted) or {"type": _HIDDEN[field], "data": redacted}
    text = str(part.get("text") or "")
    if signature := part.get("signature"):
        entry = _from_json(signature) or {"type": _PLAIN[field], "signature": signature}
        return {**entry, _text_name({"text": "", **entry}) or "text": text} if text else entry
    if not text or field == "thinking_blocks":  # a block without a signature is rejected
        return None
    form = following.get("format") if following is not None else None
    summary = isinstance(form, str) and _SUMMARIES in form
    said = {"type": "reasoning.summary", "summary": text} if summary else {"type": "reasoning.text", "text": text}
    return said if form is None else {**said, "format": form}


def _from_json(text: Any) -> dict[str, Any] | None:
    """The mapping in JSON text; None for another service's signature."""
    if not isinstance(text, str) or not text.startswith("{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
