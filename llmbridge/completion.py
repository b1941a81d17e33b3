"""`Completion`: a whole answer, with its text, usage, tool calls and everything else."""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import TYPE_CHECKING, Any, Generic, SupportsIndex, TypeVar

from llmbridge._text import short_repr, shortened, shown
from llmbridge.errors import InvalidRequest
from llmbridge.events import Citation, FinishReason, Media, ServerTool, ToolCall, Usage
from llmbridge.messages import Message, Parsed
from llmbridge.options import is_sensitive, warn_caller

if TYPE_CHECKING:
    from llmbridge._call.notes import Notes
    from llmbridge.rate_limits import RateLimits

__all__ = ["Choice", "Completion", "as_data", "choices_of", "no_attribute", "of_data"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several answers to the same request.

    Args:
        index: From 0; choice 0 is the answer itself.
        text: Its text.
        reasoning: The model's reasoning, if the service shows it.
        tool_calls: The tool calls it makes.
        finish_reason: Why it ended, in the same words for all services.
        raw_finish_reason: The service's own word for it.
        refusal: The model's refusal, which is the text as well; None if it did not refuse.
        logprobs: The service's own entries, one per token; kept only if the call requested them.
    """

    index: int
    text: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    refusal: str | None = None
    logprobs: tuple[Any, ...] = ()

    __repr__ = short_repr

    if not TYPE_CHECKING:  # so that type checkers report unknown names

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, "its text is .text" if name in ("message", "content", "delta") else "")


@dataclass(frozen=True, slots=True)
class Completion(Generic[Parsed]):  # noqa: PLW1641 - the dataclass makes its __hash__
    """A whole answer. `str()` of it is its text. Put it into the messages of the next call to continue from it.

    You can use it like its text: `in`, `+`, `len()`, slices, formats, `==` with a str, `strip` and other methods of
    str. It is always true, as an answer without text may hold tool calls.

    Args:
        text: The answer. If tools were run, the text of the last turn.
        reasoning: The model's reasoning, if the service shows it.
        finish_reason: stop, length, tool_calls, content_filter, pause or other; None if the service gave none.
        raw_finish_reason: The service's own word for it.
        usage: Tokens counted by the service, for all turns together; None if it did not say.
        tool_calls: The tool calls the model makes.
        refusal: The model's refusal, which is the text as well; None if it did not refuse.
        parsed: The value parsed from the text by `schema`; None without a schema, or if the model calls tools instead
            of answering. To a type checker, an instance of the class given as `schema`.
        choices: All answers, if `n` asked for several; the first one is this one.
        logprobs: The service's own entries, one per token; kept only if the call requested them.
        message: The answer as a message, with what the service wants back in the next call (calls, signatures).
        turns: If tools were run: all messages after the caller's, this one included.
        citations: The answer's sources.
        media: Images, sound and files in the answer, each whole.
        server_tools: Calls of the service's own tools, with their results.
        response_id: The service's ID of the answer, to be passed as `previous_response_id`.
        served_model: The model that answered, according to the service; None if it does not say.
        extra: Other fields at the top of the answer (`system_fingerprint`, `service_tier`, `created` ...).
        model: The model that was called.
        provider: The provider's name.
        headers: The response headers, names in lower case.
        request_id: The service's ID of the request.
        first_piece_seconds: Seconds from the start of the call to its first piece; None if there was none.
        total_seconds: Seconds from the start of the call to its end.

    Example:
        >>> from llmbridge import chat
        >>> answer = chat("Hello", model="demo").complete()
        >>> "demo" in answer, answer.text == str(answer), answer.message.role
        (True, True, 'assistant')
    """

    text: str
    reasoning: str = ""
    finish_reason: FinishReason | None = None
    raw_finish_reason: str | None = None
    usage: Usage | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    refusal: str | None = None
    parsed: Parsed = None  # type: ignore[assignment]  # None without a schema: Parsed is unbound then
    choices: tuple[Choice, ...] = field(default=(), repr=False)
    logprobs: tuple[Any, ...] = field(default=(), repr=False)
    message: Message = field(default_factory=lambda: Message("assistant", ""), repr=False)
    turns: tuple[Message, ...] = field(default=(), repr=False)
    citations: tuple[Citation, ...] = ()
    media: tuple[Media, ...] = ()
    server_tools: tuple[ServerTool, ...] = field(default=(), repr=False)
    response_id: str | None = None
    served_model: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, repr=False)
    model: str = ""
    provider: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    request_id: str | None = None
    first_piece_seconds: float | None = None
    total_seconds: float | None = None

    def __str__(self) -> str:
        if not self.text and self.tool_calls:
            names = ", ".join(sorted({call.name for call in self.tool_calls}))
            warn_caller(
                f"this answer has no text: the model called {names}, but nobody ran it: pass run_tools=True, or "
                "answer the calls in .tool_calls yourself",
                RuntimeWarning,
            )
        return self.text

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name, "its text is .text" if name in ("content", "output_text") else "")

    def __repr__(self) -> str:
        said = f"text={shortened(self.text, 60)!r}, reasoning={shortened(self.reasoning, 30)!r}"
        called = f", tool_calls=[{', '.join(call.name for call in self.tool_calls)}]" if self.tool_calls else ""
        return f"Completion({said}{called}, finish_reason={self.finish_reason!r}, model='{self.provider}:{self.model}')"

    def __format__(self, form: str) -> str:
        return format(str(self), form)

    def __len__(self) -> int:
        return len(self.text)

    def __bool__(self) -> bool:
        return True

    def __contains__(self, part: str) -> bool:
        return part in self.text

    def __getitem__(self, place: SupportsIndex | slice) -> str:
        return self.text[place]

    def __iter__(self) -> Iterator[str]:
        return iter(self.text)

    def __add__(self, other: str | Completion[Any]) -> str:
        return self.text + str(other) if isinstance(other, (str, Completion)) else NotImplemented

    def __radd__(self, other: str) -> str:
        return other + self.text if isinstance(other, str) else NotImplemented

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return self.text == other
        if not isinstance(other, Completion):
            return NotImplemented
        return all(getattr(self, item.name) == getattr(other, item.name) for item in fields(self))

    def strip(self, characters: str | None = None) -> str:
        """`str.strip` of the text."""
        return self.text.strip(characters)

    def split(self, separator: str | None = None, most: SupportsIndex = -1) -> list[str]:
        """`str.split` of the text."""
        return self.text.split(separator, most)

    def splitlines(self, keepends: bool = False) -> list[str]:
        """`str.splitlines` of the text."""
        return self.text.splitlines(keepends)

    def lower(self) -> str:
        """`str.lower` of the text."""
        return self.text.lower()

    def upper(self) -> str:
        """`str.upper` of the text."""
        return self.text.upper()

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> str:
        """`str.replace` of the text."""
        return self.text.replace(old, new, count)

    def startswith(self, start: str | tuple[str, ...]) -> bool:
        """`str.startswith` of the text."""
        return self.text.startswith(start)

    def endswith(self, end: str | tuple[str, ...]) -> bool:
        """`str.endswith` of the text."""
        return self.text.endswith(end)

    @property
    def rate_limits(self) -> RateLimits | None:
        """What the service's rate limits still allow, from the response headers; None if they do not say."""
        from llmbridge.rate_limits import RateLimits

        return RateLimits.of(self.headers)

    def to_dict(self) -> dict[str, Any]:
        """The completion as JSON can hold it; `from_dict` reads it.

        Media become base64, and `parsed` becomes plain JSON. Headers that may hold a secret, like cookies, are left
        out.

        Example:
            >>> from llmbridge import chat
            >>> answer = chat("Hello", model="demo").complete()
            >>> Completion.from_dict(answer.to_dict()).text == answer.text
            True
        """
        from llmbridge._schemas.jsonable import as_json

        kept = {name: value for name, value in self.headers.items() if "ratelimit" in name or not is_sensitive(name)}
        own = {item.name: as_data(getattr(self, item.name)) for item in fields(self) if item.name != "parsed"}
        return {**own, "parsed": as_data(as_json(self.parsed, otherwise=str)), "headers": kept}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Completion[Any]:
        """The completion that `to_dict` saved, also after JSON.

        `parsed` stays plain JSON: dicts and lists instead of instances.

        Raises:
            InvalidRequest: It is not a completion. The message names the wrong part.
        """
        made: Completion[Any] = of_data(cls, saved, "completion")
        return made

    def _ipython_display_(self) -> None:
        from llmbridge.notebook.live import is_shown

        if not is_shown(self):
            raise NotImplementedError  # IPython goes on with _repr_mimebundle_

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_completion

        return of_completion(self)


def no_attribute(owner: object, name: str, instead: str) -> AttributeError:
    """The error for a missing attribute, with the name to use instead of one that other libraries have.

    Args:
        owner: The object without the attribute.
        name: The attribute.
        instead: What to write instead; "" if unknown.
    """
    says = f"{type(owner).__name__!r} object has no attribute {name!r}"
    return AttributeError(f"{says}: {instead}" if instead else says, name=name, obj=owner)


def choices_of(notes: Notes) -> tuple[Choice, ...]:
    """All choices of an answer: the first one and the others."""
    return (_choice_of(0, notes), *(_choice_of(index, other) for index, other in notes.others.items()))


def _choice_of(index: int, notes: Notes) -> Choice:
    return Choice(
        index=index,
        text=notes.turn_text,
        reasoning=notes.reasoning,
        tool_calls=tuple(notes.tool_calls),
        finish_reason=notes.finish.reason if notes.finish else None,
        raw_finish_reason=notes.finish.raw if notes.finish else None,
        refusal="".join(notes.refusal) or None,
        logprobs=tuple(notes.logprobs),
    )


def as_data(value: Any) -> Any:
    """A value of an answer as JSON can hold it: bytes as base64, NaN and infinity as null."""
    if isinstance(value, Message):
        return value.to_dict()
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: as_data(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, bytes):
        return b64encode(value).decode("ascii")
    if isinstance(value, Mapping):
        return {name: as_data(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_data(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def of_data(cls: type[T], saved: Any, where: str) -> T:
    """The value of a class that `as_data` has written down; what a later version has added is left out.

    Raises:
        InvalidRequest: It is not one; says in which place.
    """
    if not isinstance(saved, Mapping):
        raise InvalidRequest(f"{where} must be a mapping, not {shown(saved)}")
    given: dict[str, Any] = {}
    kinds = _kinds(cls)  # type: ignore[arg-type]
    for name, value in saved.items():
        if name in kinds:
            kind, usual = kinds[name]
            if type(value) is usual:
                given[name] = value
            elif value != [] or not kind.startswith("tuple["):  # which is empty by default
                given[name] = _restored(kind, value, f"{where}.{name}")
    try:
        return cls(**given)
    except TypeError as error:
        raise InvalidRequest(f"{where} is not complete: {error}") from None


@cache
def _kinds(cls: type[Any]) -> dict[str, tuple[str, type | None]]:
    """How the fields of a class are annotated, and which type of value needs no further look."""
    kinds = {item.name: str(item.type) for item in fields(cls)}
    usual = {"str": str, "FinishReason": str, "int": int, "float": float, "Message": Message}
    usual |= {"Mapping[str, Any]": dict, "Mapping[str, str]": dict}
    return {name: (kind, usual.get(kind.removesuffix(" | None"))) for name, kind in kinds.items()}


_CLASSES: dict[str, Any] = {
    made.__name__: made for made in (Choice, Citation, Completion, Media, ServerTool, ToolCall, Usage)
}
_PLAIN: dict[str, Any] = {
    "str": str, "FinishReason": str, "int": int, "float": (int, float), "Mapping[str, Any]": Mapping,
    "Mapping[str, str]": Mapping,
}  # fmt: skip


def _restored(kind: str, value: Any, where: str) -> Any:
    """The value of a field whose type is annotated as `kind`.

    Raises:
        InvalidRequest: It has another type.
    """
    inner = kind.removesuffix(" | None")
    if inner in ("Any", "Parsed") or (value is None and inner != kind):
        return value
    if inner in _CLASSES:
        return of_data(_CLASSES[inner], value, where)
    if inner.startswith("tuple[") and isinstance(value, (list, tuple)):
        item = inner.removeprefix("tuple[").removesuffix(", ...]")
        return tuple(_restored(item, part, f"{where}[{place}]") for place, part in enumerate(value))
    try:
        if inner == "Message" and isinstance(value, (Mapping, Message)):
            return value if isinstance(value, Message) else Message.from_dict(value)
        if inner == "bytes" and isinstance(value, str):
            return b64decode(value, validate=True)
    except (InvalidRequest, ValueError) as error:
        raise InvalidRequest(f"{where}: {error}") from None
    if isinstance(value, bool) or not isinstance(value, _PLAIN.get(inner, ())):
        raise InvalidRequest(f"{where} must be of type {kind}, not {shown(value)}")
    return value
