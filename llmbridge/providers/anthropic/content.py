"""Conversations in Anthropic's dialect: turns of user and assistant, made of blocks.

Source: Anthropic API reference, "Create a Message"; the guides to tool use, vision, PDFs and thinking.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmbridge.errors import InvalidRequest
from llmbridge.messages import Message, call_of
from llmbridge.providers._values import TEXTS, as_text, call_id, media_of, own_form

if TYPE_CHECKING:
    from llmbridge.events import ToolCall
    from llmbridge.parts import MediaPart

__all__ = ["encode_messages", "text_block"]

_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_Block = dict[str, Any]


def encode_messages(messages: Sequence[Message], new_rules: bool = False) -> tuple[list[_Block], list[dict[str, Any]]]:
    """The blocks of the system prompt, and the turns.

    Args:
        messages: All of them; instructions inside the conversation are moved to the system prompt.
        new_rules: Whether this API version rejects documents in assistant turns and citations in user text.

    Raises:
        InvalidRequest: Anthropic does not support a message. The message says which.

    Example:
        >>> encode_messages([Message("system", "Be brief."), Message("user", "Hi"), Message("user", "there")])[1]
        [{'role': 'user', 'content': [{'type': 'text', 'text': 'Hi'}, {'type': 'text', 'text': 'there'}]}]
    """
    system: list[_Block] = []
    turns: list[dict[str, Any]] = []
    for place, message in enumerate(messages):
        try:
            _add_message(message, system, turns, new_rules)
        except InvalidRequest as error:
            raise InvalidRequest(f"messages[{place}]: {error.message}") from None
    if not turns:
        raise InvalidRequest("messages hold only instructions: Anthropic needs at least one user message")
    if turns[-1]["role"] == "assistant":
        _strip_end(turns[-1]["content"])
    for turn in turns:
        turn["content"] = _ordered(turn["content"])
    return system, turns


def _strip_end(blocks: list[_Block]) -> None:
    """Strips white space from the end of the turn that the model is to continue.

    Texts of white space only are already gone.

    Source: the service's "final assistant content cannot end with trailing whitespace".
    """
    if blocks[-1].get("type") == "text" and isinstance(blocks[-1].get("text"), str):
        blocks[-1] = {**blocks[-1], "text": blocks[-1]["text"].rstrip()}


def text_block(text: str) -> _Block:
    """A text block."""
    return {"type": "text", "text": text}


def _add_message(message: Message, system: list[_Block], turns: list[dict[str, Any]], new_rules: bool) -> None:
    extra = dict(message.extra)
    if message.role == "tool":
        _add_turn(turns, "user", [_tool_result(message, extra)], {})
        return
    extra.pop("name", None)  # Anthropic has no field for a speaker's name
    blocks = _blocks(message)
    if message.role in ("system", "developer"):
        if any(block.get("type") != "text" for block in blocks):
            raise InvalidRequest("Anthropic accepts only text in instructions: put the rest into a user message")
        system += blocks
    elif message.role == "user":
        if not blocks:
            raise InvalidRequest("the message is empty: Anthropic needs some content")
        if new_rules and any(block.get("type") == "text" and block.get("citations") for block in blocks):
            raise InvalidRequest("this version of Anthropic's API rejects citations in user text: leave them out")
        _add_turn(turns, "user", blocks, extra)
    else:
        if new_rules and any(block.get("type") == "document" for block in blocks):
            raise InvalidRequest("this version of Anthropic's API rejects documents in assistant messages")
        extra.pop("tool_calls", None)
        if blocks:  # an empty answer is rejected, and not needed
            _add_turn(turns, "assistant", blocks, extra)


def _add_turn(turns: list[dict[str, Any]], role: str, blocks: list[_Block], extra: Mapping[str, Any]) -> None:
    """Merges the blocks into the last turn if it has the same role: roles alternate, and tools' results share a
    turn."""
    if not turns or turns[-1]["role"] != role:
        turns.append({"role": role, "content": []})
    turns[-1]["content"] += blocks
    turns[-1].update((name, value) for name, value in extra.items() if value is not None)


def _ordered(blocks: list[_Block]) -> str | list[_Block]:
    """The content of a turn: tools' results first, as the service requires; a single plain text as a str."""
    if len(blocks) == 1 and set(blocks[0]) == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return sorted(blocks, key=lambda block: block.get("type") != "tool_result")


def _tool_use(call: ToolCall) -> _Block:
    if not call.id:
        raise InvalidRequest(f"the call of {call.name!r} has no id, which the tool's result needs")
    own = call.raw if call.raw and call.raw.get("type") == "tool_use" else {}
    return {**own, "type": "tool_use", "id": _call_id(call.id), "name": call.name, "input": dict(call.arguments)}


def _call_id(given: str) -> str:
    """An ID that the service accepts; it rejects other characters, as in Kimi's `functions.add:0`."""
    return call_id(given, _CALL_ID, 32)


def _tool_result(message: Message, extra: dict[str, Any]) -> _Block:
    id = extra.pop("tool_call_id", None)
    if not isinstance(id, str) or not id:
        raise InvalidRequest("a tool result needs 'tool_call_id', the id of the call")
    extra.pop("name", None)
    result: _Block = {"type": "tool_result", "tool_use_id": _call_id(id)}
    if content := message.content if isinstance(message.content, str) else _blocks(message):
        result["content"] = content
    if extra.pop("is_error", None):
        result["is_error"] = True
    return {**result, **extra}


def _blocks(message: Message) -> list[_Block]:
    """The content without empty texts, which the service rejects."""
    if isinstance(message.content, str) and not message.extra:
        return [text_block(message.content)] if message.content.strip() else []
    said = message.role == "assistant"
    found = (_block(as_text(part), f"content[{place}]", said) for place, part in enumerate(message.parts))
    return [block for block in found if block is not None]


def _block(part: dict[str, Any], where: str, said: bool) -> _Block | None:
    """A part as a block; None if it is left out. Unknown types are sent as the dialect's own.

    Args:
        part: A part of a message.
        where: Its place.
        said: Whether it is the model's: the service accepts no media there.
    """
    kind = part["type"]
    if kind == "tool_call":
        return _tool_use(call_of(part))
    if kind == "opaque":
        return own_form(part)
    if kind in TEXTS and isinstance(part.get("text"), str):
        block = {**own_form(part), "type": "text"}
        return block if part["text"].strip() or block.get("citations") else None
    if kind == "reasoning":
        return _thought(part)
    if kind not in ("image_url", "input_audio", "file"):
        return part
    media = media_of(part, where)
    if said:
        spoken = part.get("transcript")
        return text_block(spoken) if isinstance(spoken, str) and spoken.strip() else None
    if media is None:
        raise InvalidRequest(
            f"{where}: a file uploaded to another service is not available here; for a file uploaded to Anthropic, "
            "write {'type': 'document', 'source': {'type': 'file', 'file_id': ...}}"
        )
    rest = {name: value for name, value in part.items() if name not in ("type", kind)}
    return {**_media_block(media, where), **rest}


def _thought(part: Mapping[str, Any]) -> _Block | None:
    """Reasoning, unchanged; without its signature the service would reject it."""
    own = {**part["raw"]} if isinstance(part.get("raw"), Mapping) else {}
    if part.get("redacted"):
        own = own if own.get("type") == "redacted_thinking" else {}
        return {**own, "type": "redacted_thinking", "data": part["redacted"]}
    if part.get("signature"):
        own = own if own.get("type") == "thinking" else {}
        return {**own, "type": "thinking", "thinking": part.get("text") or "", "signature": part["signature"]}
    return None


def _media_block(media: MediaPart, where: str) -> _Block:
    if media.kind == "audio":
        raise InvalidRequest(f"{where}: Anthropic does not accept audio: transcribe it first, or use another service")
    if media.url:
        return _titled(media, {"type": "url", "url": media.url})
    kind = "image/jpeg" if media.media_type == "image/jpg" else media.media_type
    if kind not in (_IMAGES if media.kind == "image" else ("application/pdf",)):
        if media.kind == "document" and kind.startswith("text/"):
            return _titled(media, {"type": "text", "media_type": "text/plain", "data": _plain_text(media.data, where)})
        wanted = "JPEG, PNG, GIF and WebP images" if media.kind == "image" else "PDF and plain text"
        raise InvalidRequest(f"{where}: Anthropic accepts {wanted}, not {kind[:40]}: convert it first")
    return _titled(media, {"type": "base64", "media_type": kind, "data": media.data})


def _titled(media: MediaPart, source: dict[str, Any]) -> _Block:
    title = {"title": media.filename} if media.filename else {}
    return {"type": media.kind, "source": source, **title}


def _plain_text(data: str, where: str) -> str:
    import base64

    try:
        return base64.b64decode(data, validate=True).decode("utf-8-sig")
    except ValueError:
        raise InvalidRequest(f"{where}: the document is not valid UTF-8: convert it first") from None
