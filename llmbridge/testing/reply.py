"""What a test server is told to answer: an ordinary answer, and every way in which it can go wrong.

Every answer, well behaved or not, is a list of steps on a socket (write, sleep, close, reset, hold) before its first
byte is sent.
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
    """What can happen to a connection besides bytes and time; each of them ends it."""

    CLOSE = "close"
    """End the sending side in order (FIN), after everything written has left."""

    RESET = "reset"
    """Tear the connection down (RST); what the client has not read yet may be lost."""

    HOLD = "hold"
    """Write nothing more and keep the socket until the client leaves."""


CLOSE = Action.CLOSE
RESET = Action.RESET
HOLD = Action.HOLD

Step = Union[bytes, float, Action]


class _Default(str):
    """A finish reason that nobody chose: tool calls may replace it, which they must not do to a chosen "stop"."""

    __slots__ = ()


_STOP = _Default("stop")


@dataclass(frozen=True)
class Reply:
    """One scripted answer, put into the format of whatever endpoint is asked.

    Args:
        content: the answer's text; a list of str is sent as one event per item, a str as a single one.
        reasoning: text of the model's thinking, sent before the answer, in the same two forms and in the dialect's
            own place: `reasoning_content`, thinking blocks, parts with `thought`, `thinking`, a list of content.
        usage: a dict is sent as it is in the dialect's own place, True a count made up from the texts, False never
            anything; None (the default) sends the made-up count where the real service would: in OpenAI's streams to
            those who ask for it, everywhere else always.
        finish_reason: in OpenAI's words, which are translated (`length` is `max_tokens`, `MAX_TOKENS`, ...); other
            words (`pause_turn`) go out as they are, and None leaves the finish event out. By default the regular end:
            that of a tool call if there are any, of a refusal if there is one and the dialect marks it.
        tool_calls: mappings of `name`, `arguments` (a mapping; a str is sent as it is, valid JSON or not) and
            optionally `id`. Dialects that stream the arguments get them in small pieces.
        parts: the turn in its order, in place of content, reasoning and tool_calls: texts (a str, or a list of str that
            is sent as one event per item), `llmbridge.Reasoning` and `ToolCall` with the proofs that they have, and
            mappings. A mapping is the service's own object, sent as such: a content block (Anthropic), an item
            (Responses), a part or a field of the candidate (Gemini), a tool call or the fields of a delta (Chat
            Completions), a chunk of the content (Mistral), an event (Cohere), fields of the message (Ollama); so is
            the `raw` of any other event.
        refusal: what the model says instead of an answer.
        signature: what signs the reasoning, or the tool calls, where a dialect has that; reasoning without one gets a
            fixed signature.
        choices: the texts of choice 1 and on, in dialects that have several (OpenAI, Mistral, Gemini).
        logprobs: a raw list, sent as the log-probabilities of the content; item for item with the pieces of a stream.
        embeddings: the vectors of an embeddings endpoint; by default one of 8 numbers and length 1 for each text,
            made from the text, so that equal texts get equal vectors.
        models: the names in a list of models.
        model: the model to name; by default the one that was asked for.
        id: the id of the answer; by default one is made up.
        extra: what else stands at the top of the answer, such as `system_fingerprint`.
        status: the HTTP status; from 400 on, the content is the message of an error document.
        reason: the phrase after the status; by default the usual one.
        headers: more headers, a mapping or (name, value) pairs; they replace the server's own of the same name.
        content_type: by default `text/event-stream` for streams and a `body` under a good status, else JSON.
        body: exactly this body instead of an answer in the endpoint's format.
        error: a str or dict, reported in the stream after the content, in the dialect's own way (OpenAI's is
            `{"error": ...}`); the stream then ends without finish event and end mark. Under a status from 400 on it
            is what the error document holds.
        end_mark: whether `data: [DONE]` is sent, or what ends a stream in its place: Anthropic's `message_stop`,
            Ollama's line with `done`; Gemini has nothing of the kind. By default unless there is an `error`.
        lines: leave out the blank lines between events.
        transfer: how the body's end is shown: `chunked`, `length` (Content-Length), `close`, or `http10` (close, under
            an HTTP/1.0 status line); by default `chunked` for event streams and `length` for all else.
        gzip: compress the body, flushed after every HTTP chunk.
        header_delay: seconds before the status line.
        first_delay: seconds between headers and body.
        delay: seconds between HTTP chunks.
        split: bytes per write, headers included; 1 sends everything byte by byte.
        per_chunk: events per HTTP chunk.
        cut: close the connection after so many bytes of the body (as compressed, before transfer coding); an HTTP
            chunk in which they end stays unfinished.
        reset: with `cut`, reset the connection instead of closing it.
        stall: after so many bytes of the body write nothing more and hold the socket until the client leaves.
        keep_open: send everything but the end of the body, and hold the socket until the client leaves.
        raw: everything the server writes, status line and headers too: bytes, or a list of steps in which bytes are
            written, numbers are seconds to sleep, and `CLOSE`, `RESET` and `HOLD` end the connection. Without one of
            these three the connection stays open for the next request. Only `split` can be combined with it.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range, or contradicts another one.

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
        """What the answer consists of, in its order."""
        if self.parts is not None:
            return tuple(self.parts)
        thoughts, texts = pieces_of(self.reasoning), pieces_of(self.content)
        first = ((Thought(thoughts, self.signature),) if thoughts else (), (Words(texts),) if texts else ())
        return (*first[0], *first[1], *checked_calls(self.tool_calls))

    @property
    def finish(self) -> str | None:
        """The finish reason in OpenAI's words: the one that was chosen, else the one that fits the content."""
        return "tool_calls" if any(map(asks_caller, self.turn)) and not self.finish_chosen else self.finish_reason

    @property
    def finish_chosen(self) -> bool:
        """Whether `finish_reason` was given, be it the default value."""
        return not isinstance(self.finish_reason, _Default)

    @property
    def header_pairs(self) -> tuple[tuple[str, str], ...]:
        """The extra headers in order."""
        if isinstance(self.headers, Mapping):
            return tuple(self.headers.items())
        return tuple(self.headers or ())

    @property
    def raw_steps(self) -> tuple[Step, ...]:
        """The steps of `raw`; none if it was not given."""
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
        # Iterators are read here once, and lists copied, so that one Reply can be sent many times.
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
            raise ValueError(f"status must be within 200 and 999, not {self.status}; for others use raw")

    def _check_headers(self) -> None:
        pairs = self.header_pairs
        for pair in pairs:
            _require("one of the headers", pair, tuple)
        for text in [*(text for name, value in pairs for text in (name, value)), self.reason, self.content_type]:
            _require("a header", text, (str, type(None)))
            if any(char in (text or "") for char in "\r\n\0"):
                raise ValueError(f"a header cannot hold line ends or NUL: {text!r}; for broken ones use raw")
            (text or "").encode("latin-1")  # what HTTP headers can hold; anything else is a ValueError
        self._set("headers", pairs)

    def _check_combinations(self) -> None:
        ends = [name for name in ("cut", "stall") if getattr(self, name) is not None]
        ends += ["keep_open"] * self.keep_open
        if len(ends) > 1:
            raise ValueError(f"{' and '.join(ends)} contradict each other")
        if self.reset and self.cut is None:
            raise ValueError("reset needs cut, the number of body bytes after which to reset")
        if self.parts is not None and (self.content or self.reasoning is not None or self.tool_calls):
            raise ValueError("parts stand in place of content, reasoning and tool_calls: give either")
        if self.raw is None:
            return
        for option in fields(self):
            default = () if option.name == "headers" else option.default
            if option.name not in ("raw", "split") and getattr(self, option.name) != default:
                raise ValueError(f"raw is the whole answer and cannot be combined with {option.name}")


def _require(name: str, value: object, kinds: type | tuple[type, ...]) -> None:
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    # bool is an int to isinstance(), but True is no number of bytes.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join("None" if kind is type(None) else kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be {expected}, not {type(value).__name__}")


def _seconds(name: str, value: object) -> None:
    _require(name, value, (int, float))
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a number of seconds from 0 on, not {value}")


def _checked_text(name: str, text: str | Iterable[str]) -> str | tuple[str, ...]:
    _require(name, text, Iterable)
    kept = text if isinstance(text, str) else tuple(text)
    for piece in pieces_of(kept):
        _require(f"a piece of {name}", piece, str)
        piece.encode()  # refuses lone surrogates, with a ValueError
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
