"""The events of a message stream without those that write the input of tools which the service runs by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbridge._framing import SSE
from llmbridge.errors import ProtocolError
from llmbridge.provider import frame_json

if TYPE_CHECKING:
    from llmbridge._framing import Frame

__all__ = ["MessageEvents"]

_MARK = '_tool_use"'  # server_tool_use, mcp_tool_use; a call for the caller is plain "tool_use"


class MessageEvents(SSE):
    r"""Server-sent events, without the pieces of input in blocks that began as a call which is not for the caller.

    A piece of input looks the same in all of them, and only the event that began its block says whose tool it is for.

    Example:
        >>> begin = b'data: {"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use"}}\n\n'
        >>> piece = b'data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta"}}\n\n'
        >>> len(MessageEvents().feed(begin + piece + piece)), len(MessageEvents().feed(piece))
        (1, 1)
    """

    _foreign: frozenset[int] = frozenset()

    def _frames(self, whole: bytes) -> list[Frame]:
        frames = super()._frames(whole)
        if self._foreign or _MARK.encode() in whole:
            return [frame for frame in frames if not self._is_foreign(frame)]
        return frames

    def _is_foreign(self, frame: Frame) -> bool:
        if _MARK not in frame.data and "input_json_delta" not in frame.data:
            return False
        try:
            event = frame_json(frame)
        except ProtocolError:
            return False  # decode() says so
        if not isinstance(event, dict) or not isinstance(index := event.get("index"), int):
            return False
        block, delta = event.get("content_block"), event.get("delta")
        if isinstance(block, dict) and str(block.get("type")).endswith("_tool_use"):
            self._foreign |= {index}
        return isinstance(delta, dict) and delta.get("type") == "input_json_delta" and index in self._foreign
