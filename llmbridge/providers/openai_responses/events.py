"""The events of a response without what is told a second time: at the end of each item, and at the end of all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbridge._framing import SSE, Record
from llmbridge.errors import ProtocolError
from llmbridge.provider import frame_json

if TYPE_CHECKING:
    from llmbridge._framing import Frame

__all__ = ["ENDS", "LastEvent", "ResponseEvents"]

ENDS = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
"""The last event of a stream is one of these; it holds the whole response."""
_CALL = "function_call"
_OUTPUT = '"output"'
_SIGNATURE = "encrypted_content"
_NEWS = (_CALL, _OUTPUT, _SIGNATURE)
_NEWS_BYTES = tuple(mark.encode() for mark in _NEWS)
_REASONING = b"response.reasoning"
_PIECE = "response.output_text.delta"
_TEXTS = (_PIECE.encode(), b"response.refusal.delta")
_UNNAMED = ""  # stands for whatever call it may be


class LastEvent(Record):
    """The last event, with nothing but news in it: `value` is its JSON, `data` is empty."""

    __slots__ = ("value",)

    def __init__(self, value: dict[str, Any]) -> None:
        super().__init__("")
        self.value = value


class ResponseEvents(SSE):
    r"""Server-sent events, without the end of a call whose arguments have come already, and without the items in the
    last event that have been told before it.

    Most services write everything in pieces and repeat it when it is over, some send a call, or all, only then; an
    event by itself does not show which.

    Example:
        >>> item = b'"output_index":1,"item":{"type":"function_call","call_id":"c","name":"f","arguments":"{}"}'
        >>> piece = b'data: {"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}\n\n'
        >>> done = b'data: {"type":"response.output_item.done",' + item + b'}\n\n'
        >>> len(ResponseEvents().feed(piece + done)), len(ResponseEvents().feed(done))
        (1, 1)
    """

    _begun: frozenset[int | str] = frozenset()
    _written: frozenset[int | str] = frozenset()
    _ended: frozenset[int | str] = frozenset()
    _has_text = False
    _has_reasoning = False
    _has_signature = False

    def _frames(self, whole: bytes) -> list[Frame]:
        frames = super()._frames(whole)
        if self._has_text and len(frames) == 1 and frames[0].event == _PIECE:
            return frames  # the usual event
        if not self._has_text:
            self._has_text = any(mark in whole for mark in _TEXTS)
        if not self._has_reasoning:
            self._has_reasoning = _REASONING in whole
        if any(mark in whole for mark in _NEWS_BYTES):
            return [kept for frame in frames if (kept := self._without_repetitions(frame)) is not None]
        return frames

    def _without_repetitions(self, frame: Frame) -> Frame | None:
        if not any(mark in frame.data for mark in _NEWS):
            return frame
        try:
            event = frame_json(frame)
        except ProtocolError:
            return frame  # decode() says so
        kind, item, response = event.get("type"), event.get("item"), event.get("response")
        if kind == "response.function_call_arguments.delta":
            self._written |= _names(event.get("output_index"), event.get("item_id")) or {_UNNAMED}
        elif kind in ENDS and isinstance(response, dict) and isinstance(response.get("output"), list):
            output = [new for place, item in enumerate(response["output"]) if (new := self._news(place, item))]
            return LastEvent({**event, "response": {**response, "output": output}})
        elif isinstance(item, dict) and item.get("type") == _CALL:
            return None if self._is_known(kind, item, event.get("output_index")) else frame
        elif isinstance(item, dict) and kind == "response.output_item.done" and item.get(_SIGNATURE):
            self._has_signature = True
        return frame

    def _is_known(self, kind: Any, item: dict[str, Any], place: Any) -> bool:
        """Whether all of a call in an event of its own has been told; if not, it has been now."""
        names = _names(place, item.get("id"), item.get("call_id"))
        if kind == "response.output_item.added":
            self._begun |= names
            if item.get("arguments"):
                self._written |= names
        if kind != "response.output_item.done":
            return False
        known = self._written if item.get("arguments") else self._written | self._begun
        self._ended |= names or {_UNNAMED}
        return _UNNAMED in known or bool(names & known)

    def _news(self, place: int, item: Any) -> dict[str, Any] | None:
        """What an item of the whole response says that no event before has said."""
        if not isinstance(item, dict):
            return None
        kind = item.get("type")
        if kind == "message":
            return None if self._has_text else item
        if kind == _CALL:
            names, told = _names(place, item.get("id"), item.get("call_id")), self._written | self._ended
            if _UNNAMED in told or names & told:
                return None
            # If another call was told, but none by these names, the service names its calls anew at the end.
            return item if not (self._begun | told) or (names & self._begun and item.get("arguments")) else None
        if kind == "reasoning":
            known = ("summary", "content") * self._has_reasoning + (_SIGNATURE,) * self._has_signature
            return {name: value for name, value in item.items() if name not in known}
        return None


def _names(*values: Any) -> frozenset[int | str]:
    """What tells a call from the others of its answer: its place and its ids, as far as they are given."""
    return frozenset(value for value in values if value.__class__ is int or (isinstance(value, str) and value))
