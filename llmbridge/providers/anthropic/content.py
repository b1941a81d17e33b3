"""How a conversation is worded in Anthropic's dialect: turns of user and assistant, made of blocks.

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
        messages: All of them; instructions in the middle of a conversation go into the system prompt too.
        new_rules: The version of the API refuses documents in an assistant's turn and citations in a user's text.

    Raises:
        InvalidRequest: A message has no counterpart; says which.

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
        raise InvalidRequest("messages hold instructions only: Anthropic needs at least one message of the user")
    if turns[-1]["role"] == "assistant":
        _strip_end(turns[-1]["content"])
    for turn in turns:
        turn["content"] = _ordered(turn["content"])
    return system, turns


def _strip_end(blocks: list[_Block]) -> None:
    """Takes white space off the end of the turn that the model is to go on with.

    Texts of nothing but white space are gone already.

    Source: the service's "final assistant content cannot end with trailing whitespace".
    """
    if blocks[-1].get("type") == "text" and isinstance(blocks[-1].get("text"), str):
        blocks[-1] = {**blocks[-1], "text": blocks[-1]["text"].rstrip()}


def text_block(text: str) -> _Block:
    """A text as a block."""
    return {"type": "text", "text": text}


def _add_message(message: Message, system: list[_Block], turns: list[dict[str, Any]], new_rules: bool) -> None:
    extra = dict(message.extra)
    if message.role == "tool":
        _add_turn(turns, "user", [_tool_result(message, extra)], {})
        return
    extra.pop("name", None)  # Anthropic knows no name of who speaks
    blocks = _blocks(message)
    if message.role in ("system", "developer"):
        if any(block.get("type") != "text" for block in blocks):
            raise InvalidRequest("Anthropic takes only text as instructions: put the rest into a message of the user")
        system += blocks
    elif message.role == "user":
        if not blocks:
            raise InvalidRequest("the message is empty, which Anthropic refuses")
        if new_rules and any(block.get("type") == "text" and block.get("citations") for block in blocks):
            raise InvalidRequest("this version of Anthropic's API takes no citations in a user's text: leave them out")
        _add_turn(turns, "user", blocks, extra)
    else:
        if new_rules and any(block.get("type") == "document" for block in blocks):
            raise InvalidRequest("this version of Anthropic's API takes no document in an assistant's message")
        extra.pop("tool_calls", None)
        if blocks:  # an answer without anything in it is refused, and missed by nobody
            _add_turn(turns, "assistant", blocks, extra)


def _add_turn(turns: list[dict[str, Any]], role: str, blocks: list[_Block], extra: Mapping[str, Any]) -> None:
    """Adds to the last turn if it is of the same role: roles take turns, and tools' results belong into one."""
    if not turns or turns[-1]["role"] != role:
        turns.append({"role": role, "content": []})
    turns[-1]["content"] += blocks
    turns[-1].update((name, value) for name, value in extra.items() if value is not None)


def _ordered(blocks: list[_Block]) -> str | list[_Block]:
    """The content of a turn: the results of tools first, as the service demands; one plain text as it is."""
    if len(blocks) == 1 and set(blocks[0]) == {"type", "text"}:
        text: str = blocks[0]["text"]
        return text
    return sorted(blocks, key=lambda block: block.get("type") != "tool_result")


def _tool_use(call: ToolCall) -> _Block:
    if not call.id:
        raise InvalidRequest(f"the call of {call.name!r} has no id, which names it in the tool's answer")
    own = call.raw if call.raw and call.raw.get("type") == "tool_use" else {}
    return {**own, "type": "tool_use", "id": _call_id(call.id), "name": call.name, "input": dict(call.arguments)}


def _call_id(given: str) -> str:
    """The service refuses ids with other characters, as Kimi's are: `functions.add:0`."""
    return call_id(given, _CALL_ID, 32)


def _tool_result(message: Message, extra: dict[str, Any]) -> _Block:
    id = extra.pop("tool_call_id", None)
    if not isinstance(id, str) or not id:
        raise InvalidRequest("an answer to a tool call needs 'tool_call_id', the id of the call")
    extra.pop("name", None)
    result: _Block = {"type": "tool_result", "tool_use_id": _call_id(id)}
    if content := message.content if isinstance(message.content, str) else _blocks(message):
        result["content"] = content
    if extra.pop("is_error", None):
        result["is_error"] = True
    return {**result, **extra}


def _blocks(message: Message) -> list[_Block]:
    """The content without texts that hold nothing, which the service refuses."""
    if isinstance(message.content, str) and not message.extra:
        return [text_block(message.content)] if message.content.strip() else []
    said = message.role == "assistant"
    found = (_block(as_text(part), f"content[{place}]", said) for place, part in enumerate(message.parts))
    return [block for block in found if block is not None]


def _block(part: dict[str, Any], where: str, said: bool) -> _Block | None:
    """A part as a block; None for one that is left out. What is of no known type is the dialect's own.

    Args:
        part: Of a message.
        where: Which part it is.
        said: Whether the model has said it: the service takes no media there, of whatever service they are.
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
            f"{where}: a file that was uploaded elsewhere cannot be read here; one uploaded to Anthropic is "
            "{'type': 'document', 'source': {'type': 'file', 'file_id': ...}}"
        )
    rest = {name: value for name, value in part.items() if name not in ("type", kind)}
    return {**_media_block(media, where), **rest}


def _thought(part: Mapping[str, Any]) -> _Block | None:
    """Reasoning goes back as it came; without its proof the service would refuse it."""
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
        raise InvalidRequest(f"{where}: Anthropic takes no audio: transcribe it first, or ask another service")
    if media.url:
        return _titled(media, {"type": "url", "url": media.url})
    kind = "image/jpeg" if media.media_type == "image/jpg" else media.media_type
    if kind not in (_IMAGES if media.kind == "image" else ("application/pdf",)):
        if media.kind == "document" and kind.startswith("text/"):
            return _titled(media, {"type": "text", "media_type": "text/plain", "data": _plain_text(media.data, where)})
        wanted = "JPEG, PNG, GIF and WebP images" if media.kind == "image" else "PDF and plain text"
        raise InvalidRequest(f"{where}: Anthropic takes {wanted}, not {kind[:40]}: convert it first")
    return _titled(media, {"type": "base64", "media_type": kind, "data": media.data})


def _titled(media: MediaPart, source: dict[str, Any]) -> _Block:
    title = {"title": media.filename} if media.filename else {}
    return {"type": media.kind, "source": source, **title}


def _plain_text(data: str, where: str) -> str:
    import base64

    try:
        return base64.b64decode(data, validate=True).decode("utf-8-sig")
    except ValueError:
        raise InvalidRequest(f"{where}: the document is no text in UTF-8: convert it first") from None
