"""The events of a stream: small frozen values, in order of arrival.

A plain `for` loop over a stream yields only the text; `ChatStream.events()` yields all of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Union

from llmbridge._text import short_repr
from llmbridge._tool_call import ToolCall
from llmbridge.errors import Partial

if TYPE_CHECKING:
    from llmbridge.messages import Message

__all__ = [
    "END",
    "Citation",
    "CitationInBytes",
    "End",
    "EndOfPart",
    "Event",
    "Finish",
    "FinishReason",
    "Item",
    "Logprobs",
    "Media",
    "MediaDelta",
    "NextCall",
    "Other",
    "OtherChoice",
    "Partial",
    "RawEvent",
    "Reasoning",
    "Refusal",
    "ServerTool",
    "Summary",
    "Text",
    "ToolCall",
    "ToolCallDelta",
    "ToolResult",
    "Usage",
]

_MOST_KEYS = 64  # of merged raw objects

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "pause", "error", "other"]


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer's text.

    Args:
        text: Never empty, always encodable as UTF-8.

    Example:
        >>> Text("Hel")
        Text(text='Hel')
    """

    text: str

    __repr__ = short_repr

    def __str__(self) -> str:
        return self.text

    def to_part(self) -> dict[str, Any]:
        """The event as a part of a message."""
        return {"type": "text", "text": self.text}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A piece of the model's refusal, which takes the place of the answer's text.

    Args:
        text: Never empty, always encodable as UTF-8.
    """

    text: str

    __repr__ = short_repr

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of the model's reasoning; it is not part of the answer's text.

    Args:
        text: Always encodable as UTF-8; empty only beside a signature or redacted reasoning.
        signature: The service's proof of the reasoning before it, to be sent back with it; ends a block.
        redacted: Encrypted reasoning, which the service does not show; a block of its own.
        raw: The service's own object for the whole block, to be sent back in its place; ends a block.

    Example:
        >>> Reasoning("Hm.").to_part()
        {'type': 'reasoning', 'text': 'Hm.'}
    """

    text: str
    signature: str | None = field(default=None, repr=False)
    redacted: str | None = field(default=None, repr=False)
    raw: Mapping[str, Any] | None = field(default=None, repr=False)

    __repr__ = short_repr

    def __str__(self) -> str:
        return self.text

    def to_part(self) -> dict[str, Any]:
        """The event as a part of a message."""
        own = {"signature": self.signature, "redacted": self.redacted, "raw": self.raw and dict(self.raw)}
        text = {} if self.redacted and not self.text else {"text": self.text}
        return {"type": "reasoning", **text, **{name: value for name, value in own.items() if value}}


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call that the model is still writing. `ToolCall` follows when the call is complete.

    Args:
        index: Which of the answer's calls it belongs to; None if the service does not say.
        id: The call's ID; None or "" if the service does not say.
        name: The tool's name; services send it once, or with every piece.
        arguments: A piece of the JSON text of the arguments.
        signature: The service's proof of the reasoning behind the call, to be sent back with it.
        whole: Whether this is the last piece of the call.
        kind: The kind of call, see `ToolCall`; "" if this piece does not say.
        raw: The service's own object for the whole call, if it holds more than the fields.
    """

    index: int | None = None
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    signature: str | None = None
    whole: bool = False
    kind: str = field(default="", repr=False)
    raw: Mapping[str, Any] | None = field(default=None, repr=False)

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a tool call, as it is sent back to the model.

    Args:
        call: The call it answers.
        text: What the model reads.
        failed: Whether the tool raised an error or could not be called; the text says so.
        value: What the function returned, or the exception it raised.
    """

    call: ToolCall
    text: str
    failed: bool = False
    value: Any = field(default=None, repr=False, compare=False)

    __repr__ = short_repr

    @property
    def message(self) -> Message:
        """The result as a message of the conversation; `.message.to_dict()` can be saved as JSON.

        Example:
            >>> ToolResult(ToolCall("c1", "add"), "5").message.to_dict()
            {'role': 'tool', 'content': '5', 'tool_call_id': 'c1', 'name': 'add'}
        """
        from llmbridge.messages import result_message

        return result_message(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_result

        return of_result(self)


@dataclass(frozen=True, slots=True)
class Citation:
    """A source of the answer. Each source is yielded once, even if the service repeats it.

    Args:
        url: The address of the source; None for a document.
        document: The service's name or number of a document it was given; None for a web page.
        title: The source's title.
        quote: The quoted words of the source.
        start: Index of the first character of the answer's text that it supports, if the service says so.
        end: Index after the last one.
        raw: The service's own object.

    Example:
        >>> answer, source = "The bridge is red.", Citation("https://example.com", start=4, end=10)
        >>> answer[source.start : source.end]
        'bridge'
    """

    url: str | None = None
    document: str | None = None
    title: str | None = None
    quote: str | None = None
    start: int | None = None
    end: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class Media:
    """An image, sound or file in an answer, or a piece of one: pieces with the same `id` belong together.

    `Completion.media` holds them whole.

    Args:
        kind: "image", "audio", "video" or "document".
        mime: Like "image/png"; "" if unknown.
        data: The bytes; empty if there is a URL.
        url: Where to download it.
        transcript: The spoken text.
        id: The service's ID for it.
        raw: The service's own object, without the data.

    Example:
        >>> Media("image", "image/png", b"...").to_part()
        {'type': 'image_url', 'image_url': {'url': 'data:image/png;base64,Li4u'}}
    """

    kind: str
    mime: str = ""
    data: bytes = field(default=b"", repr=False)
    url: str | None = None
    transcript: str = ""
    id: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    __repr__ = short_repr

    def to_part(self) -> dict[str, Any]:
        """The event as a part of a message, in the same form as `Image`, `Audio` and `Document`."""
        from base64 import b64encode

        data = b64encode(self.data).decode("ascii")
        url = self.url or f"data:{self.mime or 'application/octet-stream'};base64,{data}"
        part: dict[str, Any]
        if self.kind == "image":
            part = {"type": "image_url", "image_url": {"url": url}}
        elif self.kind == "audio" and not self.url:
            from llmbridge.parts import audio_format

            part = {"type": "input_audio", "input_audio": {"data": data, "format": audio_format(self.mime)}}
        else:
            part = {"type": "file", "file": {"filename": self.id or self.kind, "file_data": url}}
        own = {"transcript": self.transcript, "raw": dict(self.raw)}
        return {**part, **{name: value for name, value in own.items() if value}}

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_media

        return of_media(self)


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that the service runs itself. Yielded when it is called, and again with its result.

    Args:
        id: The service's ID of the call.
        name: The tool's name, like "web_search".
        arguments: The arguments of the call.
        result: The result in the service's own form; None while it is unknown.
        raw: The service's own object, sent back with the turn.
    """

    id: str
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    result: Any = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class Other:
    """Anything else the service sends, for which llmbridge has no event.

    Args:
        kind: The service's own word for it.
        raw: The service's own object.
        in_turn: Whether it is part of the model's turn, and is sent back with it.
    """

    kind: str
    raw: Mapping[str, Any] = field(default_factory=dict)
    in_turn: bool = False

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class RawEvent:
    """What the service sent: one event of its stream, or the whole document if it did not stream.

    Args:
        data: Its text.
        name: The event's name; "message" if it has none.

    Example:
        >>> RawEvent('{"id": "a"}').json
        {'id': 'a'}
    """

    data: str
    name: str = "message"

    __repr__ = short_repr

    @property
    def json(self) -> Any:
        """The text as JSON; None if it is not JSON, like OpenAI's end mark."""
        from llmbridge._json import parsed_json
        from llmbridge.errors import ProtocolError

        try:
            return parsed_json(self.data)
        except ProtocolError:
            return None


@dataclass(frozen=True, slots=True)
class Logprobs:
    """Log probabilities of the tokens in a piece of text.

    Args:
        raw: The service's own entries, one per token.
    """

    raw: tuple[Any, ...]

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens counted by the service; None for a count it did not give. Never estimated.

    Args:
        input_tokens: The whole prompt, cached tokens included.
        output_tokens: The whole answer, reasoning included.
        total_tokens: Their sum, from the service or computed.
        cached_input_tokens: The part of the prompt read from a cache.
        cache_write_tokens: The part of the prompt written to a cache.
        reasoning_tokens: The part of the answer spent on reasoning.
        raw: The service's own object.

    Example:
        >>> Usage(input_tokens=11, output_tokens=7).total_tokens
        18
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    total_tokens: int | None = None
    cached_input_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.total_tokens is None and self.input_tokens is not None and self.output_tokens is not None:
            object.__setattr__(self, "total_tokens", self.input_tokens + self.output_tokens)

    def merged(self, newer: Usage) -> Usage:
        """The newer counts, completed by the older ones: some services send the two halves separately.

        Args:
            newer: What the service counted later for the same call.

        Example:
            >>> Usage(input_tokens=10, output_tokens=1).merged(Usage(output_tokens=5)).total_tokens
            15
        """
        said = _counts_of(newer)
        counts = [known if now is None else now for known, now in zip(_counts_of(self), said, strict=True)]
        if tuple(counts) == said and self.raw.keys() <= newer.raw.keys():
            return newer  # some services count with every piece
        return self._together(newer, counts, newer.total_tokens)

    def plus(self, other: Usage | None) -> Usage:
        """The tokens of two calls together. A count that neither has stays None.

        Args:
            other: The usage of the other call; None adds nothing.

        Example:
            >>> Usage(1, 2).plus(Usage(10, 20)).total_tokens
            33
        """
        if other is None:
            return self
        pairs = zip(_counts_of(self), _counts_of(other), strict=True)
        sums = [None if a is b is None else (a or 0) + (b or 0) for a, b in pairs]
        return self._together(other, sums, None if self.total_tokens is None else other.total_tokens)

    def _together(self, newer: Usage, counts: list[int | None], total: int | None) -> Usage:
        """The counts and raw objects of both; a missing total becomes the sum of the other two."""
        usage = dict(zip(_COUNTS, counts, strict=True))
        if total is None and usage["input_tokens"] is not None and usage["output_tokens"] is not None:
            usage["total_tokens"] = None
        kept = [key for key in self.raw if key not in newer.raw][: max(0, _MOST_KEYS - len(newer.raw))]
        return Usage(**usage, raw={**{key: self.raw[key] for key in kept}, **newer.raw} if kept else newer.raw)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_usage

        return of_usage(self)


_COUNTS = tuple(count.name for count in fields(Usage) if count.name != "raw")
_counts_of = attrgetter(*_COUNTS)


@dataclass(frozen=True, slots=True)
class Finish:
    """Why the answer ended.

    Args:
        reason: In the same words for all services. "other" is anything without a word of its own; "pause" means that
            the service wants the turn back unchanged to continue it. An "error" of the first choice is raised.
        raw: The service's own word.
        message: The service's explanation.
        again: For an "error": whether the same request may succeed if retried.

    Example:
        >>> Finish("length", raw="MAX_TOKENS").reason
        'length'
    """

    reason: FinishReason
    raw: str = ""
    message: str = field(default="", repr=False)
    again: bool = field(default=False, repr=False, compare=False)

    __repr__ = short_repr


@dataclass(frozen=True, slots=True)
class OtherChoice:
    """An event of one of the other choices, if `n` asked for several.

    Args:
        index: The choice, from 1.
        event: Its event.
    """

    index: int
    event: Event

    @classmethod
    def of(cls, index: int, item: Item) -> OtherChoice:
        """What `decode` gives for an item of another choice.

        Example:
            >>> OtherChoice.of(1, "Hi")
            OtherChoice(index=1, event=Text(text='Hi'))
        """
        event: Any = Text(item) if isinstance(item, str) else item
        return cls(index, event)


class End:
    """A dialect's end mark. Nothing of the answer comes after it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"


END = End()


class EndOfPart:
    """The end of a part of the model's turn: text after it belongs to a new part. Internal, from `decode`.

    Args:
        raw: The service's own object for the finished text, with its text removed; it is filled in again when the turn
            is sent back. None if plain text is enough.
        needed: False keeps `raw` only in a turn whose reasoning has one as well.
    """

    __slots__ = ("needed", "raw")

    def __init__(self, raw: Mapping[str, Any] | None = None, needed: bool = True) -> None:
        self.raw = raw
        self.needed = needed


class NextCall:
    """The service is called again to continue the same turn, and counts its tokens anew. Internal."""

    __slots__ = ()


class Summary:
    """A summary of the answer after its pieces, or in place of them: only what no piece has said is handed out.

    Args:
        items: The summary's content, as `decode` gives it.
        certain: False if it may be another piece: it counts as a summary if it starts with all text before it.
    """

    __slots__ = ("certain", "items")

    def __init__(self, items: Iterable[Item], certain: bool = True) -> None:
        self.items = tuple(items)
        self.certain = certain


class CitationInBytes:
    """A `Citation` whose place is counted in bytes of the answer's UTF-8. Internal, from `decode`.

    Args:
        citation: The citation, with start and end in bytes.
        words: The answer's text at that place, if the service says so.
    """

    __slots__ = ("citation", "words")

    def __init__(self, citation: Citation, words: str = "") -> None:
        self.citation = citation
        self.words = words


@dataclass(frozen=True, slots=True)
class MediaDelta:
    """A piece of an image or sound from `decode`: base64 that may be cut anywhere. It becomes a `Media`.

    Args:
        kind: "image", "audio", "video" or "document".
        mime: Its media type; "" to detect it from the first bytes.
        data: A piece of the base64 text.
        transcript: A piece of the spoken text.
        id: The service's ID for it; None continues the last one of the same kind.
        raw: The service's own object, without the data.
    """

    kind: str
    mime: str = ""
    data: str = field(default="", repr=False)
    transcript: str = ""
    id: str | None = None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)


Event = Union[
    Text, Refusal, Reasoning, ToolCallDelta, ToolCall, ToolResult, Citation, Media, ServerTool, Other, Logprobs, Usage,
    Finish, OtherChoice
]  # fmt: skip

Item = Union[
    str, Refusal, Reasoning, ToolCallDelta, ToolCall, ToolResult, Citation, Media, MediaDelta, ServerTool, Other,
    Logprobs, Usage, Finish, OtherChoice, EndOfPart, NextCall, Summary, RawEvent, CitationInBytes
]  # fmt: skip
"""What a provider's `decode` gives: a str is a piece of the answer. Of tool calls it gives only the deltas."""
