"""What tools return, as the model gets it: text, and beside it images, sound and documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbridge._text import mended
from llmbridge.messages import Message
from llmbridge.parts import Audio, Document, Image
from llmbridge.tools import Tool

if TYPE_CHECKING:
    from llmbridge.events import ToolResult

__all__ = ["result_message", "text_of"]

_MEDIA = (Image, Audio, Document)


def result_message(result: ToolResult) -> Message:
    """The answer to a tool call as a message; an image, sound or document, alone or in a list, is a part of it.

    Example:
        >>> from llmbridge.events import ToolCall, ToolResult
        >>> result_message(ToolResult(ToolCall("c1", "add"), "5")).to_dict()
        {'role': 'tool', 'content': '5', 'tool_call_id': 'c1', 'name': 'add'}
    """
    failed = {"is_error": True} if result.failed else {}
    parts = [item.to_part() if isinstance(item, _MEDIA) else _text(item) for item in _with_media(result.value)]
    extra = {"tool_call_id": result.call.id, "name": result.call.name, **failed}
    return Message("tool", parts or result.text, extra)


def text_of(value: Any) -> str:
    """A value as text; an image, sound or document is named only.

    Example:
        >>> text_of(["Here:", Image("https://example.com/cat.png")])
        "Here:\\nImage('https://example.com/cat.png')"
    """
    values = _with_media(value)
    if not values:
        return _text(value)
    return "\n".join(repr(item) if isinstance(item, _MEDIA) else _text(item) for item in values)


def _with_media(value: Any) -> list[Any]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values if any(isinstance(item, _MEDIA) for item in values) else []


def _text(value: Any) -> str:
    # A tool that asks a model itself means what that one says, not all that its Completion knows about the answer.
    says = isinstance(getattr(value, "message", None), Message)
    return mended(str(value.text) if says else Tool.result_text(value))
