"""The exceptions of llmbridge: a class exists only where a caller would act differently on it.

::

    LLMBridgeError                  .message .provider .model .partial .request_id
    ├─ ConfigError                  the setup is wrong; nothing was sent                (also a ValueError)
    │  ├─ UnknownProvider           no provider of that name; the message lists the known ones
    │  ├─ MissingKey                no API key; the message names the variable to set
    │  └─ InvalidRequest            the caller's messages or parameters cannot be sent  (also a TypeError)
    ├─ TransportError               the network failed, before or after the first piece
    │  ├─ ConnectFailed             no connection: DNS, refused, TLS, proxy             (also a ConnectionError)
    │  ├─ StreamTruncated           the answer ended before its end mark
    │  └─ ClockExpired              .clock = connect | first_content | idle | total     (also a TimeoutError)
    ├─ ServiceError                 the service said no: .status .code .body .retry_after .retryable
    │  ├─ StatusError               ... with an HTTP status that no class below describes
    │  │  ├─ AuthError              the key is missing, wrong or expired
    │  │  ├─ PermissionDenied       the key is right, but not allowed to do this
    │  │  ├─ NotFound               no such model or endpoint
    │  │  ├─ BadRequest             the request is not valid for this service
    │  │  │  └─ ContextLengthExceeded   the prompt is longer than the model's context
    │  │  ├─ RateLimited            too many requests; wait `.retry_after` seconds
    │  │  ├─ QuotaExceeded          no credit left; waiting does not help
    │  │  ├─ ContentFiltered        the service's content policy refuses the prompt or the answer
    │  │  └─ ServerError            the service failed
    │  │     └─ Overloaded          the service has no capacity right now
    │  └─ StreamError               reported inside the stream, and no class above describes it
    ├─ ProtocolError                a success status, but not a valid answer
    ├─ InvalidOutput                the model's output does not fit the schema; .problems
    ├─ TurnsExceeded                the model went on calling tools past the limit of turns
    ├─ AllFailed                    none of several models answered; .errors holds each one's error
    ├─ WorkerLost                   the process that sent a row died each time
    └─ Cancelled                    `cancel()` or `close()` ended the call

An error that a service reports in the middle of a stream has the class of its code or type (a rate limit is
`RateLimited` wherever it is reported), or `StreamError` if these are unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmbridge.events import Citation, Media, ServerTool, ToolCall, Usage
    from llmbridge.messages import Message

__all__ = [
    "AllFailed",
    "AuthError",
    "BadRequest",
    "Cancelled",
    "ClockExpired",
    "ConfigError",
    "ConnectFailed",
    "ContentFiltered",
    "ContextLengthExceeded",
    "InvalidOutput",
    "InvalidRequest",
    "LLMBridgeError",
    "MissingKey",
    "NotFound",
    "Overloaded",
    "Partial",
    "PermissionDenied",
    "ProtocolError",
    "QuotaExceeded",
    "RateLimited",
    "ServerError",
    "ServiceError",
    "StatusError",
    "StreamError",
    "StreamTruncated",
    "TransportError",
    "TurnsExceeded",
    "UnknownProvider",
    "UnsupportedParameter",
    "WorkerLost",
]

E = TypeVar("E", bound=BaseException)
_LONGEST_MESSAGE = 4_000
_LONGEST_REPR = 200
# Characters that act as commands or are displayed out of place: C0, DEL, C1, line ends, bidi marks and isolates.
_MARKS = (0x61C, 0x200E, 0x200F)
_BLANKED = dict.fromkeys(
    (*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A), *_MARKS), " "
)
Clock = Literal["connect", "first_content", "idle", "total"]


def _rebuild(
    cls: type[LLMBridgeError], message: str, fields: dict[str, Any], cause: LLMBridgeError | None = None
) -> LLMBridgeError:
    error = cls(message)
    error.__dict__.update(fields)
    if cause is not None:
        error.__cause__ = cause
    return error


def harmless(text: str, limit: int) -> str:
    r"""Foreign text made safe for a message: on one line, without characters that a terminal or a log would obey.

    Args:
        text: Of any length.
        limit: The most characters to keep.

    Example:
        >>> harmless("\x1b[31mNo\r\n\u202emore", 100)
        '[31mNo more'
    """
    if not text.isprintable():
        whole = text[: 4 * limit].encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        text = " ".join(whole.translate(_BLANKED).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def without_frames(error: E) -> E:
    """The error without its frames and its context, which hold keys, prompts and received data.

    Crash reports show the locals of frames.
    """
    error.__traceback__ = None
    error.__context__ = None
    return error


def place_of(error: BaseException) -> str:
    """Where an error was raised, for a message: the error's own text may hold secrets.

    Example:
        >>> try:
        ...     raise KeyError("secret")
        ... except KeyError as error:
        ...     type(error).__name__ + place_of(error).partition(",")[0]
        'KeyError in <doctest llmbridge.errors.place_of[0]>'
    """
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    if place is None:
        return ""
    file = place.tb_frame.f_code.co_filename.replace("\\", "/").rpartition("/")[2]
    return f" in {file}, line {place.tb_lineno}"


class Pending:
    """An error that is raised later than it came, and once: `raise pending.taken()`.

    Raised out of a variable it would be kept: its traceback holds the frame, and the frame the variable. Such a cycle
    keeps everything that the frames hold, a connection say, until the garbage collector runs.
    """

    def __init__(self, error: LLMBridgeError | None = None) -> None:
        self.error = error

    def taken(self) -> LLMBridgeError:
        """The error, which is removed from here."""
        error, self.error = self.error, None
        assert error is not None
        return error


class Partial(str):
    """The text of an answer that was cut off, with what else had come.

    Attributes:
        reasoning: The model's reasoning.
        tool_calls: Calls that had begun; their `problem` says which were cut off.
        citations, media, server_tools: As a `Completion` has them.
        usage: Tokens, if the service had counted them.
        message: The turn so far, with everything in its place; None if it was empty.
        turns: If tools were run: the messages of the finished turns, including results, to continue from.

    Example:
        >>> Partial("Hel") == "Hel", Partial("Hel").tool_calls
        (True, ())
    """

    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    citations: tuple[Citation, ...] = ()
    media: tuple[Media, ...] = ()
    server_tools: tuple[ServerTool, ...] = ()
    usage: Usage | None = None
    message: Message | None = None
    turns: tuple[Message, ...] = ()

    def __repr__(self) -> str:
        text = str(self)
        return repr(text if len(text) <= _LONGEST_REPR else f"{text[: _LONGEST_REPR - 3]}...")

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_partial

        return of_partial(self)


class LLMBridgeError(Exception):
    """The base of all errors that llmbridge raises. Pickles and copies keep everything, also such a `__cause__`.

    Attributes:
        message: What went wrong and what to do about it, without secrets, on one line of at most 4000 characters.
        provider: Name of the provider, if one was chosen.
        model: Name of the model, if one was chosen.
        partial: The text that was handed out before the error, with what else had come; empty if there was none.
        request_id: The service's id of the request, to quote to its support.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str | None = None,
        model: str | None = None,
        partial: str = "",
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.provider: str | None = provider
        self.model: str | None = model
        self.partial: Partial = partial if isinstance(partial, Partial) else Partial(partial)
        self.request_id: str | None = request_id

    @property
    def message(self) -> str:
        """What went wrong and what to do about it, without secrets and control characters, on one line.

        It is shortened if it is long, since it quotes services.
        """
        words: str = self.__dict__["message"]
        return words

    @message.setter
    def message(self, words: str) -> None:
        self.__dict__["message"] = words = harmless(words, _LONGEST_MESSAGE)
        self.args = (words,)

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({harmless(self.message, _LONGEST_REPR)!r})"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_error

        return of_error(self)

    def _render_traceback_(self) -> list[str]:
        from llmbridge.notebook.tracebacks import of_error

        return of_error(self)

    def __reduce__(self) -> tuple[Any, ...]:
        cause = self.__cause__ if isinstance(self.__cause__, LLMBridgeError) else None
        return _rebuild, (type(self), self.message, dict(self.__dict__), cause)


class ConfigError(LLMBridgeError, ValueError):
    """The setup is wrong (base URL, proxy, key, header, model string); nothing was sent."""


class UnknownProvider(ConfigError):
    """No provider has that name; the message lists the known ones."""


class MissingKey(ConfigError):
    """The service needs an API key and none was given; the message names the variable to set."""


class InvalidRequest(ConfigError, TypeError):
    """The messages or parameters cannot be sent as they are; nothing was sent."""


class TransportError(LLMBridgeError):
    """The network failed. `.partial` holds what had arrived."""

    @property
    def retryable(self) -> bool:
        """Whether the same call may be repeated without doing its work twice."""
        return False


class ConnectFailed(TransportError, ConnectionError):
    """No connection could be made: name not found, refused, TLS not trusted, proxy not reachable."""

    final: bool = False

    @property
    def retryable(self) -> bool:
        """False if waiting does not help (a certificate that is not trusted)."""
        return not self.final


class StreamTruncated(TransportError):
    """The answer ended before its end mark; all text that arrived was handed out first."""


class ClockExpired(TransportError, TimeoutError):
    """A timeout expired.

    Attributes:
        clock: Which one: "connect", "first_content" (request sent, no content yet), "idle" (between two pieces of
            content) or "total" (the whole call with its retries).
    """

    def __init__(self, message: str, *, clock: Clock = "total", **context: Any) -> None:
        super().__init__(message, **context)
        self.clock: Clock = clock

    @property
    def retryable(self) -> bool:
        """True for the connect timeout: nothing had been sent."""
        return self.clock == "connect"


class ServiceError(LLMBridgeError):
    """The service answered with an error, by its status or inside the stream.

    Attributes:
        status: HTTP status, or the one in an error inside the stream; None if it has none.
        code: The service's own code or type of the error, e.g. "insufficient_quota".
        body: The error's body as text, cut to 64 KiB and without the caller's key.
        retry_after: Seconds to wait according to the service, or None.
        retryable: Whether the same request may succeed later.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        body: str = "",
        retry_after: float | None = None,
        retryable: bool = False,
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.status: int | None = status
        self.code: str | None = code
        self.body: str = body
        self.retry_after: float | None = retry_after
        self.retryable: bool = retryable


class StatusError(ServiceError):
    """The service answered with an HTTP error status."""


class AuthError(StatusError):
    """The API key is missing, wrong or expired (401)."""


class PermissionDenied(StatusError):
    """The key is valid, but not allowed to do this (403)."""


class NotFound(StatusError):
    """The model or the endpoint does not exist (404)."""


class BadRequest(StatusError):
    """The service does not accept the request (400, 413, 422)."""


class ContextLengthExceeded(BadRequest):
    """The prompt is longer than the model's context: shorten it or use another model."""


class RateLimited(StatusError):
    """Too many requests or tokens at a time (429): wait `.retry_after` seconds."""


class QuotaExceeded(StatusError):
    """The account has no credit left (402, insufficient_quota): waiting does not help."""


class ContentFiltered(StatusError):
    """The service's content policy rejected the prompt, or cut off the answer: word the prompt differently."""


class ServerError(StatusError):
    """The service failed (5xx)."""


class Overloaded(ServerError):
    """The service has no capacity right now (503, 529)."""


class StreamError(ServiceError):
    """The service reported an error inside the stream that no other class describes."""


class ProtocolError(LLMBridgeError):
    """A success status, but not a valid answer: HTML, broken JSON, an event past its limit, no events at all."""


class InvalidOutput(LLMBridgeError):
    """The model's output does not fit the schema; `.partial` is that output.

    Attributes:
        problems: One line for each place that does not fit: "path: what is wrong".
    """

    def __init__(self, message: str, *, problems: Sequence[str] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.problems: tuple[str, ...] = tuple(harmless(problem, _LONGEST_MESSAGE) for problem in problems)


class TurnsExceeded(LLMBridgeError):
    """The model still called tools at the limit of turns, instead of answering: raise `max_turns`, or fix the tools."""


class AllFailed(LLMBridgeError):
    """None of several models answered.

    Attributes:
        errors: The error of each model that was tried, in order; each names its provider and model.
    """

    def __init__(self, message: str, *, errors: Sequence[LLMBridgeError] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.errors: tuple[LLMBridgeError, ...] = tuple(errors)


class WorkerLost(LLMBridgeError):
    """The worker of an executor that sent a row of `map` died, each time, or the executor takes no more work."""


class Cancelled(LLMBridgeError):
    """`cancel()` or `close()` ended the call; `.partial` holds what had been handed out."""


class UnsupportedParameter(UserWarning):
    """A parameter that the service is known to reject was left out, because of `unsupported="warn"`."""


FINAL = (QuotaExceeded, AuthError, ContentFiltered, ContextLengthExceeded)
"""Errors of a service that a retry of the same request cannot fix."""
