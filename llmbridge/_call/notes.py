"""What was handed out of an answer so far: for the attributes of the stream, its completion, and an error.

A turn of the model is kept as its parts in order: the text once, and beside it the parts that are not text, with their
places in the text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmbridge._text import TextSoFar
from llmbridge.events import (
    Citation,
    EndOfPart,
    Finish,
    Item,
    Logprobs,
    Media,
    NextCall,
    Other,
    OtherChoice,
    Partial,
    Reasoning,
    Refusal,
    ServerTool,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    Usage,
)
from llmbridge.messages import Message

if TYPE_CHECKING:
    from llmbridge._call.reading import Source

__all__ = ["Notes", "PartsSoFar", "joined_media"]

_Part = dict[str, Any]
_NOTHING: Sequence[int] = (0,) * 6


class _Entry:
    """A part that is not text, or the end of a text part, with its place in the text of all turns."""

    __slots__ = ("part", "place")

    def __init__(self, place: int, part: _Part | EndOfPart | Sequence[Media] | None) -> None:
        self.place = place
        self.part = part


class PartsSoFar:
    """The parts of one turn, without their text: `TextSoFar` keeps it, and the places kept here divide it."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._media: set[Any] = set()
        self._thought = TextSoFar()
        self._thinking: _Entry | None = None  # the place of the open thought
        self._interrupted = False  # another part came since: the next thought is a new one
        self._has_raw = False

    def add(self, part: _Part, place: int) -> None:
        """Appends a whole part."""
        self._entries.append(_Entry(place, part))
        self._interrupted = True

    def add_opaque(self, raw: Mapping[str, Any], place: int) -> None:
        """Appends an object that only the service understands."""
        if raw:
            self.add({"type": "opaque", "raw": dict(raw)}, place)

    def add_media(self, key: Any, pieces: Sequence[Media], place: int) -> None:
        """Appends a medium, whose pieces may still grow."""
        if key not in self._media:
            self._media.add(key)
            self._entries.append(_Entry(place, pieces))
            self._interrupted = True

    def end_text(self, end: EndOfPart, place: int) -> None:
        """Notes the end of a text part."""
        self._entries.append(_Entry(place, end))

    def add_reasoning(self, item: Reasoning, place: int) -> None:
        """Appends a piece of reasoning; its end may come late, after text."""
        if item.text:
            if self._thinking is not None and (self._interrupted or place != self._thinking.place):
                self._end_thought()
            self._begin_thought(place)
            self._thought.add(item.text)
            self._thought.fold()
        if item.redacted:
            self._end_thought()
            self.add(item.to_part(), place)
        elif item.signature or item.raw:
            self._begin_thought(place)
            self._end_thought(item)

    def _begin_thought(self, place: int) -> None:
        if self._thinking is None:
            self._thinking = _Entry(place, None)
            self._entries.append(self._thinking)
            self._interrupted = False

    def _end_thought(self, end: Reasoning | None = None) -> None:
        if self._thinking is None:
            return
        end = end or Reasoning("")
        self._thinking.part = Reasoning(str(self._thought), end.signature, None, end.raw).to_part()
        self._has_raw = self._has_raw or bool(end.raw)
        self._thought, self._thinking = TextSoFar(), None

    def thoughts(self) -> list[Reasoning]:
        """The reasoning, as events."""
        known = ("text", "signature", "redacted", "raw")
        parts = [entry.part for entry in self._entries if isinstance(entry.part, dict)]
        thoughts = [Reasoning(**{"text": "", **{name: part[name] for name in known if name in part}})
                    for part in parts if part["type"] == "reasoning"]  # fmt: skip
        return [*thoughts, Reasoning(str(self._thought))] if self._thinking is not None else thoughts

    def all(self, text: str, turn_at: int, by: Mapping[str, str]) -> list[_Part]:
        """The parts, including the text.

        Args:
            text: Of the turn.
            turn_at: Where it begins in the text of all turns.
            by: The mark of the service whose own objects are among the parts.
        """
        thinking = self._thinking
        parts: list[_Part] = []
        said = 0
        for entry in [*self._entries, _Entry(turn_at + len(text), None)]:
            at = entry.place - turn_at
            if piece := text[said:at]:
                parts.append({"type": "text", "text": piece})
                said = at
            part = entry.part
            if entry is thinking:
                part = Reasoning(str(self._thought)).to_part()
            if isinstance(part, EndOfPart):
                self._own_text(part, parts, bool(piece))
            elif isinstance(part, dict):
                parts.append(dict(part))
            elif part is not None:
                parts.append(joined_media(part).to_part())
        for part in parts:
            if part.keys() & {"signature", "redacted", "raw", "kind"}:
                part.update(by)
        return parts

    def _own_text(self, end: EndOfPart, parts: list[_Part], has_text: bool) -> None:
        """Attaches the service's own object to the text part that it ends."""
        if end.raw and (end.needed or self._has_raw):
            if not has_text:
                parts.append({"type": "text", "text": ""})
            parts[-1]["raw"] = dict(end.raw)


def _plain_text(parts: Any) -> str | None:
    """The text of the only part, if it holds nothing else."""
    if not isinstance(parts, list) or len(parts) != 1 or parts[0].keys() != {"type", "text"}:
        return None
    return parts[0]["text"] if parts[0]["type"] == "text" else None


def joined_media(pieces: Sequence[Media]) -> Media:
    """Joins the pieces of a medium.

    Example:
        >>> joined_media([Media("audio", "audio/wav", b"a"), Media("audio", data=b"b", transcript="Hi")])
        Media(kind='audio', mime='audio/wav', url=None, transcript='Hi', id=None)
    """
    if len(pieces) == 1:
        return pieces[0]
    raw: dict[str, Any] = {}
    for piece in pieces:
        raw.update(piece.raw)
    return Media(
        pieces[0].kind,
        next((piece.mime for piece in pieces if piece.mime), ""),
        b"".join(piece.data for piece in pieces),
        next((piece.url for piece in pieces if piece.url), None),
        "".join(piece.transcript for piece in pieces),
        pieces[0].id,
        raw,
    )


class Notes:
    """What was handed out so far. If tools are run, a turn ends with the first result.

    Args:
        text: The text of all turns; plain text is appended to it directly.
        source: The service that answers; only it can use its reasoning signatures.
        keep_logprobs: Whether the caller wants them: a service may send more of them than text unasked.

    Attributes:
        turns: The messages of the finished turns, including tool results.
        finish: The last Finish; None again while tools are run.
    """

    def __init__(self, text: TextSoFar, source: Source | None = None, keep_logprobs: bool = True) -> None:
        self._keep_logprobs = keep_logprobs
        self.text = text
        self.source = source
        self._reasoning: TextSoFar | None = None
        self.turns: list[Message] = []
        self.finish: Finish | None = None
        self._usage: Usage | None = None
        self._earlier_usage: Usage | None = None
        self._begin_turn()

    def _begin_turn(self) -> None:
        self._lists: dict[str, list[Any]] = {}  # made when first needed: most answers are only text
        self._parts: PartsSoFar | None = None
        self._media: dict[Any, list[Media]] = {}
        self._server_tools: dict[Any, ServerTool] = {}
        self._others: dict[int, Notes] = {}
        self._turn_at = self.text.length
        self._before = _NOTHING  # the length of each of `_said` when the last request began

    @property
    def usage(self) -> Usage | None:
        """The tokens of all turns."""
        return self._usage if self._earlier_usage is None else self._earlier_usage.plus(self._usage)

    @property
    def turn_text(self) -> str:
        """The text of the last turn."""
        return str(self.text)[self._turn_at :]

    @property
    def reasoning(self) -> str:
        """The reasoning of all turns."""
        return "" if self._reasoning is None else str(self._reasoning)

    @property
    def tool_calls(self) -> list[ToolCall]:
        """The tool calls of the last turn."""
        return self._lists.get("tool_calls", [])

    @property
    def citations(self) -> list[Citation]:
        """The sources of the last turn."""
        return self._lists.get("citations", [])

    @property
    def refusal(self) -> list[str]:
        """The pieces of the refusal message, of the last turn."""
        return self._lists.get("refusal", [])

    @property
    def logprobs(self) -> list[Any]:
        """All entries of the last turn, if they are kept."""
        return self._lists.get("logprobs", [])

    @property
    def media(self) -> list[Media]:
        """The media of the last turn, each whole."""
        return [joined_media(pieces) for pieces in self._media.values()]

    @property
    def server_tools(self) -> list[ServerTool]:
        """The calls of the service's own tools in the last turn, with their results."""
        return list(self._server_tools.values())

    @property
    def others(self) -> dict[int, Notes]:
        """The notes of the other choices, by index."""
        return dict(sorted(self._others.items()))

    def note(self, item: Item | Text) -> None:
        """Records an item that is handed out."""
        if isinstance(item, (str, Text)):
            self.text.add(str(item))
        elif isinstance(item, Reasoning):
            self._note_reasoning(item)
        elif isinstance(item, Usage):
            self._usage = item
        elif isinstance(item, Finish):
            self.finish = item
        elif isinstance(item, ToolCall):
            self._list("tool_calls").append(item)
            self._begun_parts().add(item.to_part(), self.text.length)
        elif isinstance(item, ToolResult):
            self._note_result(item)
        elif isinstance(item, Refusal):
            self._list("refusal").append(item.text)
            self.text.add(item.text)
        elif isinstance(item, Logprobs):
            if self._keep_logprobs:
                self._list("logprobs").extend(item.raw)
        elif isinstance(item, OtherChoice):
            self._note_other(item)
        elif not isinstance(item, ToolCallDelta):
            self._note_rest(item)

    def _list(self, kind: str) -> list[Any]:
        return self._lists.setdefault(kind, [])

    def _begun_parts(self) -> PartsSoFar:
        if self._parts is None:
            self._parts = PartsSoFar()
        return self._parts

    def _note_reasoning(self, item: Reasoning) -> None:
        if self._reasoning is None:
            self._reasoning = TextSoFar()
        self._reasoning.add(item.text)
        self._reasoning.fold()
        self._begun_parts().add_reasoning(item, self.text.length)

    def _note_rest(self, item: Any) -> None:
        """Records the items that few answers hold."""
        place = self.text.length
        if isinstance(item, NextCall):
            self._next_call()
        elif isinstance(item, EndOfPart):
            self._begun_parts().end_text(item, place)
        elif isinstance(item, Citation):
            citations = self._list("citations")
            if (bare := Citation(item.url)) in citations:  # replaces one with only the URL
                citations.remove(bare)
            citations.append(item)
        elif isinstance(item, Media):
            # Audio comes in pieces, with or without an id.
            key = (item.kind, item.id) if item.id or item.kind == "audio" else len(self._media)
            self._media.setdefault(key, []).append(item)
            self._begun_parts().add_media(key, self._media[key], place)
        elif isinstance(item, ServerTool):
            called = self._server_tools.get(item.id)
            self._server_tools[item.id or len(self._server_tools)] = (
                replace(called, arguments=item.arguments or called.arguments, result=item.result, raw=item.raw)
                if called
                else item
            )
            self._begun_parts().add_opaque(item.raw, place)
        elif isinstance(item, Other) and item.in_turn:
            self._begun_parts().add_opaque(item.raw, place)

    def _note_other(self, item: OtherChoice) -> None:
        other = self._others.get(item.index)
        if other is None:
            other = self._others[item.index] = Notes(TextSoFar(), self.source, self._keep_logprobs)
        other.note(item.event)
        other.text.fold()

    def _note_result(self, result: ToolResult) -> None:
        if self.tool_calls or not self.turns:
            self.turns.append(self.message())
            self._next_call()
            self._begin_turn()
        from llmbridge.messages import result_message

        self.turns.append(result_message(result))

    def _next_call(self) -> None:
        """Prepares for the model's next request, which has its own token counts."""
        self._earlier_usage, self._usage = self.usage, None
        self.finish = None
        self._before = [len(said) for said in self._said()]

    def message(self) -> Message:
        """The last turn as a message, with everything that a service may want back, in its original order."""
        if self._parts is None:
            return Message("assistant", self.turn_text)
        by = {"by": self.source.current.provider} if self.source is not None else {}
        parts = self._parts.all(self.turn_text, self._turn_at, by)
        if not parts:
            return Message("assistant", "")
        if (text := _plain_text(parts)) is not None:
            return Message("assistant", text)
        message = Message("assistant", parts)
        text = _plain_text(message.content)  # beside the calls, which are no longer in it
        return message if text is None else replace(message, content=text)

    def items(self) -> list[Item]:
        """What the model's last request returned, grouped by kind."""
        others = [OtherChoice.of(index, item) for index, other in self._others.items() for item in other.items()]
        text, *lists = (said[before:] for said, before in zip(self._said(), self._before, strict=True))
        return [str(text), *(item for items in lists for item in items), *others]

    def _said(self) -> tuple[Sequence[Any], ...]:
        """The text of the last turn, and its other items by kind."""
        thoughts = self._parts.thoughts() if self._parts is not None else []
        lists = (thoughts, self.tool_calls, self.citations, self.media, self.server_tools)
        return (self.turn_text, *lists)

    def all_turns(self) -> list[Message]:
        """The messages of all turns, to continue from; without the last one if it is empty."""
        last = self.message()
        return [*self.turns, last] if last.content or last.extra else [*self.turns]

    @property
    def broken_off(self) -> bool:
        """Whether the answer should not be validated: it was refused, filtered, or cut off."""
        return bool(self.refusal) or (self.finish is not None and self.finish.reason in ("length", "content_filter"))

    def partial(self) -> Partial:
        """What came before an error."""
        partial = Partial(str(self.text))
        partial.reasoning = self.reasoning
        partial.tool_calls = tuple(self.tool_calls)
        partial.citations = tuple(self.citations)
        partial.media = tuple(self.media)
        partial.server_tools = tuple(self.server_tools)
        partial.usage = self.usage
        partial.turns = tuple(self.turns)
        message = self.message()
        partial.message = message if message.content or message.extra else None
        return partial
