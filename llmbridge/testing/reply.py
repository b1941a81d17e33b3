"""What a test server answers: an ordinary answer, or one with any fault.

Before its first byte is sent, every answer is turned into a list of steps on a socket (write, sleep, close, reset,
hold).
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from typing import Any, Literal, Union

from .turn import Call, Part, Thought, Words, asks_caller, checked_calls, checked_part, pieces_of

__all__ = ["CLOSE", "HOLD", "RESET", "Action", "Call", "Reply", "Step"]

Transfer = Literal["chunked", "length", "close", "http10"]
Headers = Union[Mapping[str, str], Iterable[tuple[str, str]]]

_TRANSFERS = ("chunked", "length", "close", "http10")
_FLAGS = ("lines", "gzip", "reset", "keep_open")
_SECONDS = ("header_delay", "first_delay", "delay")
_COUNTS = {"split": 1, "per_chunk": 1, "cut": 0, "stall": 0}
_STRINGS = ("finish_reason", "model", "reason", "content_type", "refusal", "signature", "id")


class Action(enum.Enum):
    """Anything but bytes and time that can happen to a connection. Each action ends it."""

    CLOSE = "close"
    """End the sending side normally (FIN), after sending everything."""

    RESET = "reset"
    """Tear the connection down (RST); the client may lose what it has not read yet."""

    HOLD = "hold"
    """Send nothing more and keep the socket open until the client leaves."""


CLOSE = Action.CLOSE
RESET = Action.RESET
HOLD = Action.HOLD

Step = Union[bytes, float, Action]


class _Default(str):
    """The default finish reason: tool calls replace it, but not a chosen "stop"."""

    __slots__ = ()


_STOP = _Default("stop")


@dataclass(frozen=True)
class Reply:
    """One scripted answer, in the format of the requested endpoint.

    Args:
        content: The answer's text; a list of str is sent as one event per item, a str as a single one.
        reasoning: The model's reasoning, sent before the answer, in the same two forms and in the dialect's own place:
            `reasoning_content`, thinking blocks, parts with `thought`, `thinking`, a list of content.
        usage: A dict is sent unchanged in the dialect's own place, True sends made-up counts, False never sends any.
            None (the default) sends made-up counts if the real service would: in OpenAI's streams only if requested,
            elsewhere always.
        finish_reason: In OpenAI's words, which are translated (`length` is `max_tokens`, `MAX_TOKENS`, ...); other
            words (`pause_turn`) are sent unchanged, and None leaves out the finish event. By default the normal end:
            that of a tool call if there are any, or of a refusal if there is one and the dialect marks it.
        tool_calls: Mappings of `name`, `arguments` (a mapping; a str is sent unchanged, valid JSON or not) and
            optionally `id`. Dialects that stream the arguments send them in small pieces.
        parts: The turn in order, instead of content, reasoning and tool_calls: texts (a str, or a list of str that is
            sent as one event per item), `llmbridge.Reasoning` and `ToolCall` with their signatures, and mappings. A
            mapping is the service's own object: a content block (Anthropic), an item (Responses), a part or a field of
            the candidate (Gemini), a tool call or the fields of a delta (Chat Completions), a chunk of the content
            (Mistral), an event (Cohere), fields of the message (Ollama). So is the `raw` of any other event.
        refusal: A refusal instead of an answer.
        signature: The signature of the reasoning, or of the tool calls, in dialects that sign them; the default for
            reasoning is a fixed one.
        choices: The texts of choice 1 and on, in dialects with several (OpenAI, Mistral, Gemini).
        logprobs: A list, sent unchanged as the log probabilities of the content; in a stream one item per piece.
        embeddings: The vectors of an embeddings endpoint; by default one of 8 numbers and length 1 for each text, equal
            for equal texts.
        models: The names in a list of models.
        model: The model named in the answer; by default the requested one.
        id: The answer's id; made up by default.
        extra: Other fields at the top of the answer, such as `system_fingerprint`.
        status: The HTTP status; from 400 on, the content is the message of an error document.
        reason: The phrase after the status; by default the usual one.
        headers: More headers, a mapping or (name, value) pairs; they replace the server's own of the same name.
        content_type: By default `text/event-stream` for streams and a `body` with a status below 400, or else JSON.
        body: Exactly this body instead of an answer in the endpoint's format.
        error: A str or dict, reported in the stream after the content, in the dialect's own way (OpenAI's is
            `{"error": ...}`); the stream then ends without finish event and end mark. With a status from 400 on, the
            content of the error document.
        end_mark: Whether to send `data: [DONE]`, or its counterpart: Anthropic's `message_stop`, Ollama's line with
            `done`; Gemini has none. True by default, unless there is an `error`.
        lines: Leave out the blank lines between events.
        transfer: How the end of the body is marked: `chunked`, `length` (Content-Length), `close`, or `http10` (close,
            with an HTTP/1.0 status line); by default `chunked` for event streams and `length` otherwise.
        gzip: Compress the body, flushed after every HTTP chunk.
        header_delay: Seconds before the status line.
        first_delay: Seconds between headers and body.
        delay: Seconds between HTTP chunks.
        split: Bytes per write, headers included; 1 sends everything byte by byte.
        per_chunk: Events per HTTP chunk.
        cut: Close the connection after this many bytes of the body (compressed, without transfer coding); the HTTP
            chunk there stays unfinished.
        reset: With `cut`, reset the connection instead of closing it.
        stall: After this many bytes of the body, send nothing more and keep the socket open until the client leaves.
        keep_open: Send everything but the end of the body, and keep the socket open until the client leaves.
        raw: Everything that the server sends, with status line and headers: bytes, or a list of steps: bytes to send,
            numbers of seconds to sleep, and `CLOSE`, `RESET` and `HOLD` to end the connection. Without one of these
            three the connection stays open for the next request. Only `split` can be combined with it.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument is out of range, or contradicts another one.

    Example:
        >>> Reply(["Hel", "lo"], delay=0.01).pieces
        ('Hel', 'lo')
        >>> Reply("Slow down", status=429, headers={"Retry-After": "1"}).header_pairs
        (('Retry-After', '1'),)
        >>> Reply(tool_calls=[{"name": "get_weather", "arguments": {"city": "Paris"}}]).finish
        'tool_calls'
        >>> Reply(parts=["Let me look.", {"type": "compaction", "content": "So far: nothing."}]).pieces
        ('Let me look.',)
        >>> Reply("Hello", cut=-1)
        Traceback (most recent call last):
        ...
        ValueError: cut must be at least 0, not -1
    """

    content: str | Iterable[str] = ""
    _: KW_ONLY
    reasoning: str | Iterable[str] | None = None
    usage: Mapping[str, Any] | bool | None = None
    finish_reason: str | None = _STOP
    tool_calls: Iterable[Mapping[str, Any]] = ()
    parts: Iterable[Any] | None = None
    refusal: str | None = None
    signature: str | None = None
    choices: Iterable[str] = ()
    logprobs: Sequence[Any] | None = None
    embeddings: Iterable[Sequence[float]] | None = None
    models: Iterable[str] | None = None
    model: str | None = None
    id: str | None = None
    extra: Mapping[str, Any] | None = None
    status: int = 200
    reason: str | None = None
    headers: Headers | None = None
    content_type: str | None = None
    body: bytes | str | None = None
    error: str | Mapping[str, Any] | None = None
    end_mark: bool | None = None
    lines: bool = False
    transfer: Transfer | None = None
    gzip: bool = False
    header_delay: float = 0.0
    first_delay: float = 0.0
    delay: float = 0.0
    split: int | None = None
    per_chunk: int = 1
    cut: int | None = None
    reset: bool = False
    stall: int | None = None
    keep_open: bool = False
    raw: bytes | Iterable[Step] | None = None

    def __post_init__(self) -> None:
        self._check_types()
        self._check_texts()
        self._check_contents()
        self._check_numbers()
        self._check_headers()
        self._check_combinations()

    @property
    def pieces(self) -> tuple[str, ...]:
        """The content, one item per event."""
        return tuple(piece for part in self.turn if type(part) is Words for piece in part.pieces)

    @property
    def reasoning_pieces(self) -> tuple[str, ...]:
        """The reasoning, one item per event."""
        return tuple(piece for part in self.turn if isinstance(part, Thought) for piece in part.pieces)

    @property
    def calls(self) -> tuple[Call, ...]:
        """The tool calls."""
        return tuple(part for part in self.turn if isinstance(part, Call))

    @property
    def turn(self) -> tuple[Part, ...]:
        """The answer's parts in order."""
        if self.parts is not None:
            return tuple(self.parts)
        thoughts, texts = pieces_of(self.reasoning), pieces_of(self.content)
        first = ((Thought(thoughts, self.signature),) if thoughts else (), (Words(texts),) if texts else ())
        return (*first[0], *first[1], *checked_calls(self.tool_calls))

    @property
    def finish(self) -> str | None:
        """The finish reason in OpenAI's words: the chosen one, or the one that fits the content."""
        return "tool_calls" if any(map(asks_caller, self.turn)) and not self.finish_chosen else self.finish_reason

    @property
    def finish_chosen(self) -> bool:
        """Whether `finish_reason` was passed."""
        return not isinstance(self.finish_reason, _Default)

    @property
    def header_pairs(self) -> tuple[tuple[str, str], ...]:
        """The extra headers in order."""
        if isinstance(self.headers, Mapping):
            return tuple(self.headers.items())
        return tuple(self.headers or ())

    @property
    def raw_steps(self) -> tuple[Step, ...]:
        """The steps of `raw`; none if it was not passed."""
        if isinstance(self.raw, bytes):
            return (self.raw,)
        return tuple(self.raw or ())

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_types(self) -> None:
        for name in _FLAGS:
            _require(name, getattr(self, name), bool)
        for name in _STRINGS:
            _require(name, getattr(self, name), (str, type(None)))
        _require("usage", self.usage, (Mapping, bool, type(None)))
        _require("extra", self.extra, (Mapping, type(None)))
        _require("parts", self.parts, (Iterable, type(None)))
        _require("error", self.error, (Mapping, str, type(None)))
        _require("body", self.body, (bytes, str, type(None)))
        _require("end_mark", self.end_mark, (bool, type(None)))
        if self.transfer is not None and self.transfer not in _TRANSFERS:
            raise ValueError(f"transfer must be one of {', '.join(_TRANSFERS)}, not {self.transfer!r}")

    def _check_texts(self) -> None:
        # Iterators are consumed here, and lists copied, so that one Reply can be sent many times.
        self._set("content", _checked_text("content", self.content))
        if self.reasoning is not None:
            self._set("reasoning", _checked_text("reasoning", self.reasoning))
        if self.raw is not None and not isinstance(self.raw, bytes):
            self._set("raw", tuple(_step(step) for step in self.raw))
        if isinstance(self.body, str):
            self._set("body", self.body.encode())
        if self.parts is not None:
            self._set("parts", tuple(checked_part(part) for part in _no_string("parts", self.parts)))
        for name in ("usage", "error", "extra"):
            value = getattr(self, name)
            if isinstance(value, Mapping):
                self._set(name, json.loads(json.dumps(dict(value))))

    def _check_contents(self) -> None:
        self._set("tool_calls", tuple(call.as_mapping() for call in checked_calls(self.tool_calls)))
        for name in ("choices", "models"):
            if getattr(self, name) is not None:
                _require(name, getattr(self, name), Iterable)
                self._set(name, _checked_text(name, _no_string(name, getattr(self, name))))
        for text in (self.refusal, self.signature, self.model, self.id):
            (text or "").encode()
        if self.logprobs is not None:
            _require("logprobs", self.logprobs, (list, tuple))
            self._set("logprobs", json.loads(json.dumps(list(self.logprobs))))
        if self.embeddings is not None:
            self._set("embeddings", tuple(_vector(vector) for vector in self.embeddings))

    def _check_numbers(self) -> None:
        for name in _SECONDS:
            _seconds(name, getattr(self, name))
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if value is None and name != "per_chunk":
                continue
            _require(name, value, int)
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        _require("status", self.status, int)
        if not 200 <= self.status <= 999:
            raise ValueError(f"status must be within 200 and 999, not {self.status}; use raw for others")

    def _check_headers(self) -> None:
        pairs = self.header_pairs
        for pair in pairs:
            _require("one of the headers", pair, tuple)
        for text in [*(text for name, value in pairs for text in (name, value)), self.reason, self.content_type]:
            _require("a header", text, (str, type(None)))
            if any(char in (text or "") for char in "\r\n\0"):
                raise ValueError(f"a header cannot hold line ends or NUL: {text!r}; use raw for broken ones")
            (text or "").encode("latin-1")  # raises ValueError for anything else
        self._set("headers", pairs)

    def _check_combinations(self) -> None:
        ends = [name for name in ("cut", "stall") if getattr(self, name) is not None]
        ends += ["keep_open"] * self.keep_open
        if len(ends) > 1:
            raise ValueError(f"{' and '.join(ends)} contradict each other")
        if self.reset and self.cut is None:
            raise ValueError("reset needs cut, the number of body bytes after which to reset")
        if self.parts is not None and (self.content or self.reasoning is not None or self.tool_calls):
            raise ValueError("parts replace content, reasoning and tool_calls: pass either")
        if self.raw is None:
            return
        for option in fields(self):
            default = () if option.name == "headers" else option.default
            if option.name not in ("raw", "split") and getattr(self, option.name) != default:
                raise ValueError(f"raw is the whole answer: it cannot be combined with {option.name}")


def _require(name: str, value: object, kinds: type | tuple[type, ...]) -> None:
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    # bool is an int to isinstance(), but True is not a number of bytes.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__}")


def _seconds(name: str, value: object) -> None:
    _require(name, value, (int, float))
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a number of seconds, 0 or more, not {value}")


def _checked_text(name: str, text: str | Iterable[str]) -> str | tuple[str, ...]:
    _require(name, text, Iterable)
    kept = text if isinstance(text, str) else tuple(text)
    for piece in pieces_of(kept):
        _require(f"a piece of {name}", piece, str)
        piece.encode()  # raises ValueError for lone surrogates
    return kept


def _no_string(name: str, texts: Any) -> Any:
    if isinstance(texts, str):
        raise TypeError(f"{name} must be a list, not one str")
    return texts


def _vector(vector: Sequence[float]) -> tuple[float, ...]:
    for value in vector:
        _require("a number of embeddings", value, (int, float))
    return tuple(vector)


def _step(step: Step) -> Step:
    _require("a step of raw", step, (bytes, int, float, Action))
    if isinstance(step, (int, float)):
        _seconds("a step of raw", step)
    return step
