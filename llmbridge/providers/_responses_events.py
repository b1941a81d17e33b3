"""The events of a response without the calls that are told a second time when they are over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbridge._framing import SSE
from llmbridge.errors import ProtocolError
from llmbridge.provider import frame_json

if TYPE_CHECKING:
    from llmbridge._framing import Frame

__all__ = ["ResponseEvents"]

_MARK = "function_call"
_UNNAMED = ""  # stands for whatever call it may be


class ResponseEvents(SSE):
    r"""Server-sent events, without the end of a call whose arguments have come already.

    Most services write a call in pieces and repeat all of it when it is over, some send it only then; an event by
    itself does not show which.

    Example:
        >>> item = b'"output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}'
        >>> piece = b'data: {"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}\n\n'
        >>> done = b'data: {"type":"response.output_item.done",' + item + b'}\n\n'
        >>> len(ResponseEvents().feed(piece + done)), len(ResponseEvents().feed(done))
        (1, 1)
    """

    _begun: frozenset[int | str] = frozenset()
    _written: frozenset[int | str] = frozenset()

    def _frames(self, whole: bytes) -> list[Frame]:
        frames = super()._frames(whole)
        if _MARK.encode() in whole:
            return [frame for frame in frames if _MARK not in frame.data or not self._is_known(frame)]
        return frames

    def _is_known(self, frame: Frame) -> bool:
        try:
            event = frame_json(frame)
        except ProtocolError:
            return False  # decode() says so
        if not isinstance(event, dict):
            return False
        kind, item = event.get("type"), event.get("item")
        if kind == "response.function_call_arguments.delta":
            self._written |= _names(event.get("output_index"), event.get("item_id")) or {_UNNAMED}
        if not isinstance(item, dict) or item.get("type") != _MARK:
            return False
        names = _names(event.get("output_index"), item.get("id"), item.get("call_id"))
        if kind == "response.output_item.added":
            self._begun |= names
            if item.get("arguments"):
                self._written |= names
        if kind != "response.output_item.done":
            return False
        known = self._written if item.get("arguments") else self._written | self._begun
        return _UNNAMED in known or bool(names & known)


def _names(*values: Any) -> frozenset[int | str]:
    """What tells a call from the others of its answer: its place and its ids, as far as they are given."""
    return frozenset(value for value in values if value.__class__ is int or (isinstance(value, str) and value))
