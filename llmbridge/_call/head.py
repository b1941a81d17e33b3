"""The metadata of an answer: its id, the model that gave it, and what else the service says about it.

Services repeat the metadata in every event, or send it in the first or the last one. So those two events are kept
unparsed until an attribute is read: a piece costs nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmbridge._json import mended_json, parsed_json
from llmbridge.errors import ProtocolError

if TYPE_CHECKING:
    from llmbridge.provider import Frame

__all__ = ["Head"]

_IDS = ("id", "responseId", "response_id")
_MODELS = ("model", "modelVersion", "model_version")
_INNER = ("response", "message")  # Responses and Anthropic nest the metadata
_SHORT = 64  # characters: Anthropic's end mark is shorter, pieces of text are longer
_NAMES = frozenset((*_IDS, *_MODELS))
_EMPTY: tuple[Any, ...] = (None, "", [], {})
# Fields of the answer itself, or of the kind of event.
_BODY = frozenset(
    """
    candidates choices content content_block data delta done done_reason error event finish_reason index
    logprobs message object output output_index promptFeedback prompt_feedback response role sequence_number
    stop_reason stop_sequence tool_calls type usage usageMetadata usage_metadata
    """.split()  # noqa: SIM905 - a table of words
)


class Head:
    """The first and the last event of an answer, and their metadata.

    Attributes:
        first, last: The events; None before there are any.
    """

    __slots__ = ("_found", "_looked_at", "first", "last")

    def __init__(self) -> None:
        self.first: Frame | None = None
        self.last: Frame | None = None
        self._looked_at: tuple[Frame | None, Frame | None] = (None, None)
        self._found: dict[str, Any] = {}

    def take(self, frames: list[Frame]) -> None:
        """Keeps the first and the last of the frames that hold metadata; end marks do not."""
        if self.first is None:
            self.first = frames[0]
        data = frames[-1].data
        if not data.startswith("[DONE]") and (len(data) > _SHORT or '"message_stop"' not in data):
            self.last = frames[-1]
        elif len(frames) > 1:
            self.last = frames[-2]

    def take_parsed(self, frame: Frame, value: Any) -> None:
        """Looks up the metadata of an answer's only frame in its JSON, so that it need not be parsed again."""
        self._looked_at, self._found = (frame, frame), _metadata(value, frame)

    @property
    def id(self) -> str | None:
        """The service's name for the answer."""
        return self._text(_IDS)

    @property
    def model(self) -> str | None:
        """The model that answers."""
        return self._text(_MODELS)

    @property
    def extra(self) -> dict[str, Any]:
        """Everything else that is not the answer itself."""
        return {name: value for name, value in self._fields().items() if name not in _NAMES}

    def _text(self, names: tuple[str, ...]) -> str | None:
        fields = self._fields()
        for name in names:
            if isinstance(value := fields.get(name), str):
                return value
        return None

    def _fields(self) -> dict[str, Any]:
        if self._looked_at != (self.first, self.last):
            self._looked_at = (self.first, self.last)
            self._found = {}
            for frame in (self.first, self.last) if self.first is not self.last else (self.first,):
                self._found.update(_parsed(frame))
        return self._found


def _parsed(frame: Frame | None) -> dict[str, Any]:
    """The metadata in a frame."""
    if frame is None:
        return {}
    try:
        return _metadata(parsed_json(frame.data), frame)
    except ProtocolError:
        return {}  # the decoder reports it


def _metadata(event: Any, frame: Frame) -> dict[str, Any]:
    """The metadata at the top level of a frame's JSON; fields that say nothing are left out."""
    if isinstance(event, list) and event:
        event = event[0]
    if not isinstance(event, dict):
        return {}
    if isinstance(delta := event.get("delta"), dict) and "stop_reason" in delta:  # Anthropic's last but one
        event = {**delta, **event}
    for name in _INNER:
        if isinstance(inner := event.get(name), dict) and ("id" in inner or "model" in inner):
            event = inner
            break
    found = {name: value for name, value in event.items() if name not in _BODY and value not in _EMPTY}
    if "\\u" not in frame.data:
        return found
    try:
        mended: dict[str, Any] = mended_json(found)  # half a surrogate pair comes as an escape
    except RecursionError:
        return {}
    return mended
