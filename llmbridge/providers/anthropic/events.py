"""The events of a message stream, put right where only an earlier event tells what a later one means.

Source: Anthropic API reference, streaming: a count that `message_delta` leaves out is still that of `message_start`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmbridge._framing import SSE, Record
from llmbridge.errors import ProtocolError
from llmbridge.provider import frame_json

if TYPE_CHECKING:
    from llmbridge._framing import Frame

__all__ = ["MessageEvents"]

_MARK = '_tool_use"'  # server_tool_use, mcp_tool_use; a call for the caller is plain "tool_use"
_MARK_BYTES = _MARK.encode()
_PIECE = "content_block_delta"
_START, _LAST = "message_start", "message_delta"
_START_BYTES, _LAST_BYTES = _START.encode(), _LAST.encode()


class MessageEvents(SSE):
    r"""Server-sent events, without the pieces of input in blocks that began as a call which is not for the caller.

    A piece of input looks the same in all of them, and only the event that began its block says whose tool it is for.

    The counts at the end get those of the start that they do not repeat: the prompt is the sum of three of them.

    Example:
        >>> begin = b'data: {"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use"}}\n\n'
        >>> piece = b'data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta"}}\n\n'
        >>> len(MessageEvents().feed(begin + piece + piece)), len(MessageEvents().feed(piece))
        (1, 1)
    """

    _foreign: frozenset[int] = frozenset()
    _counted: dict[str, Any] | None = None

    def _frames(self, whole: bytes) -> list[Frame]:
        frames = super()._frames(whole)
        if len(frames) == 1 and frames[0].event == _PIECE and not self._foreign:
            return frames  # the usual event
        if (_LAST_BYTES if self._counted else _START_BYTES) in whole:
            frames = [self._with_counts(frame) for frame in frames]
        if self._foreign or _MARK_BYTES in whole:
            return [frame for frame in frames if not self._is_foreign(frame)]
        return frames

    def _with_counts(self, frame: Frame) -> Frame:
        """The frame; the last one with tokens, with those that only the first one told."""
        if _START not in frame.data and _LAST not in frame.data:
            return frame
        try:
            event = frame_json(frame)
            kind = event.get("type") or frame.event
            if kind == _START:
                self._counted = _known(event["message"]["usage"])
            elif kind == _LAST and self._counted and (usage := _known(event["usage"])):
                return Record(json.dumps({**event, "usage": {**self._counted, **usage}}), frame.event)
        except (ProtocolError, AttributeError, LookupError, TypeError, RecursionError):
            pass  # there are no counts in it; decode() says what else is wrong
        return frame

    def _is_foreign(self, frame: Frame) -> bool:
        if _MARK not in frame.data and "input_json_delta" not in frame.data:
            return False
        try:
            event = frame_json(frame)
        except ProtocolError:
            return False  # decode() says so
        if not isinstance(index := event.get("index"), int):
            return False
        block, delta = event.get("content_block"), event.get("delta")
        if isinstance(block, dict) and str(block.get("type")).endswith("_tool_use"):
            self._foreign |= {index}
        return isinstance(delta, dict) and delta.get("type") == "input_json_delta" and index in self._foreign


def _known(usage: Any) -> dict[str, Any]:
    """The counts that are told; null tells nothing."""
    return {name: count for name, count in usage.items() if count is not None}
