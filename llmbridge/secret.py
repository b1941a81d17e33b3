"""Keys and passwords that never show: masked, checked before use, and removed from the answers of servers."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, NoReturn, ParamSpec, SupportsIndex, TypeVar, Union

from llmbridge.errors import ConfigError, LLMBridgeError, Pending, without_frames

__all__ = [
    "MASK",
    "SHORTEST_SECRET",
    "Key",
    "KeyFunction",
    "MaskedStr",
    "Secret",
    "callers_frames_only",
    "discreet",
    "masked",
    "revealed",
    "scrub",
]

_LEVELS = 3  # a service may quote the JSON of another one in a string of its own JSON
_ESCAPE = re.compile(
    r'\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|["\\/bfnrt])'  # JSON's
    r"|%[2-7][0-9a-fA-F]|&#(?:[0-9]{2,3}|[xX][2-7][0-9a-fA-F]);"  # those of URLs and HTML, of ASCII
)

_SHORT = {"\\\\": "\\", "\\/": "/", '\\"': '"'}

_LIBRARIES = frozenset({"llmbridge", "requests", "urllib3", "sseclient", "socks", "anyio", *sys.stdlib_module_names})

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")
T = TypeVar("T")

MASK = "***"

SHORTEST_SECRET = 6
"""Characters: masking a shorter text would garble messages, and protect nothing."""


def discreet(function: Callable[P, T]) -> Callable[P, T]:
    """Removes the function's frames from its errors: their locals hold keys, and crash reports show locals."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except LLMBridgeError as error:
            args, kwargs = (), {}  # type: ignore[assignment]
            failure = Pending(without_frames(callers_frames_only(error)))
        except BaseException as error:
            args, kwargs = (), {}  # type: ignore[assignment]
            callers_frames_only(error)
            raise error  # noqa: TRY201 - in Python 3.10, a bare `raise` restores its old frames
        raise failure.taken()

    return wrapper


def callers_frames_only(error: E) -> E:
    """The error and its causes, with only the frames of the caller's own functions and providers.

    Frames of llmbridge, and of the libraries that it calls, hold keys, headers and passwords in their locals. An
    unrelated error, such as one that the caller was handling, keeps all of its frames.
    """
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop()
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        trace = link.__traceback__
        # The methods of the base class: an exception that is a frozen dataclass rejects attributes.
        BaseException.with_traceback(link, None)
        BaseException.with_traceback(link, _callers_own(trace))
        waiting += (link.__cause__, link.__context__)
        if isinstance(group := getattr(link, "exceptions", ()), tuple):
            waiting += group
    return error


def _callers_own(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of llmbridge and of libraries; unchanged if it never enters llmbridge."""
    frames, link = [], trace
    while link is not None:
        package = str(link.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        # The methods of a named tuple are in a module of their own.
        frames.append((link, "collections" if package.startswith("namedtuple_") else package))
        link = link.tb_next
    if not frames or (frames[0][1] not in _LIBRARIES and all(package != "llmbridge" for _, package in frames)):
        return trace
    kept: TracebackType | None = None
    for link, package in reversed(frames):
        if package not in _LIBRARIES:
            kept = TracebackType(kept, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return kept


class Secret:
    """A string whose `str`, `repr` and format are a mask, and which cannot be pickled.

    Args:
        value: The key. White space around it, often left from reading it from a file, is removed.
        name: Its name in an error, e.g. "api_key".

    Raises:
        ConfigError: The value is not a str, is empty, is in quotes, or holds a line break, NUL or another character
            that an HTTP header cannot carry. The value is not quoted.

    Example:
        >>> key = Secret(" sk-123\\n")
        >>> print(key, repr(key), key.reveal())
        *** Secret('***') sk-123
    """

    __slots__ = ("_value",)

    @discreet
    def __init__(self, value: str, name: str = "api_key") -> None:
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be a str, not {type(value).__name__}")
        stripped = value.strip()
        if not stripped:
            raise ConfigError(f"{name} is empty: pass the key itself, or leave the argument out")
        if len(stripped) > 1 and stripped[0] == stripped[-1] and stripped[0] in "'\"":
            raise ConfigError(f"{name} is in quotes: leave them out")
        if not (stripped.isascii() and stripped.isprintable()):
            raise ConfigError(
                f"{name} holds a line break, a control character or a non-ASCII character: copy it again, "
                "without quotes, file names or text around it"
            )
        self._value = stripped

    def reveal(self) -> str:
        """The value itself, for the one place that sends it."""
        return self._value

    def __str__(self) -> str:
        return MASK

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret cannot be pickled: pass the key again where it is used")


class KeyFunction:
    """A function that returns the key, called for each request; shows as a mask, and pickles if the function does.

    Args:
        function: Takes no arguments; returns the key as a str or Secret, or an awaitable of one.
        optional: Whether it may return None for no key.

    Example:
        >>> from functools import partial
        >>> KeyFunction(partial(str, "sk-123"))
        KeyFunction(***)
    """

    __slots__ = ("_function", "optional")

    def __init__(self, function: Callable[[], Any], optional: bool = False) -> None:
        self._function = function
        self.optional = optional

    def __call__(self) -> Any:
        """What the function returns, unchecked."""
        return self._function()

    def __repr__(self) -> str:
        return f"KeyFunction({MASK})"  # a partial function shows its arguments, which may be secrets

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyFunction, (self._function, self.optional)


Key = Union[Secret, KeyFunction]
"""The source of a request's key."""


class MaskedStr(str):
    """A header value or password that appears as a mask in repr, slices, formatted and joined text.

    Its characters are those of the mask. It equals the hidden text, which `reveal()` returns, and `encode()` as well,
    with which http.client reads a header's value. It pickles with its text.

    Args:
        text: The text to hide; a hidden one stays so.

    Example:
        >>> value = MaskedStr("Bearer sk-123")
        >>> f"{value}", value[7:], ", ".join([value, value]), value == "Bearer sk-123"
        ('***', '', '***, ***', True)
    """

    __slots__ = ("_text",)
    _text: str

    def __new__(cls, text: str) -> MaskedStr:
        """Creates the str from the mask, and keeps the text."""
        masked = super().__new__(cls, MASK)
        masked._text = revealed(text)
        return masked

    def reveal(self) -> str:
        """The text itself, for the one place that sends it."""
        return self._text

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """The text itself, as it is sent."""
        return self._text.encode(encoding, errors)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and self._text == revealed(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return MaskedStr, (self._text,)


def revealed(text: str) -> str:
    """The text, unmasked if it is masked."""
    return text.reveal() if isinstance(text, MaskedStr) else str(text)


def masked(words: Iterable[str]) -> tuple[MaskedStr, ...]:
    """The words to mask in what servers send; short ones are left out.

    Example:
        >>> masked(["sk-123", "x"])
        ('***',)
    """
    return tuple(MaskedStr(word) for word in words if len(word) >= SHORTEST_SECRET)


def scrub(text: str, secrets: tuple[str, ...]) -> str:
    """`text` with each of the secrets masked: servers echo keys in their error messages.

    Example:
        >>> scrub("Incorrect API key provided: sk-123", ("sk-123",))
        'Incorrect API key provided: ***'
    """
    known = sorted(filter(None, map(revealed, secrets)), key=len, reverse=True)  # one may be a prefix of another
    if known and ("\\" in text or "%" in text or "&#" in text):
        return _without_escaped(text, known)
    for secret in known:
        text = text.replace(secret, MASK)
    return text


def _without_escaped(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets, even if some of their characters are written as escapes."""
    found: list[tuple[int, int]] = []
    plain, places = text, list(range(len(text) + 1))
    for level in range(_LEVELS + 1):
        if level:
            plain, places = _unescaped(plain, places)
        for secret in secrets:
            at = plain.find(secret)
            while at >= 0:
                found.append((places[at], places[at + len(secret)]))
                at = plain.find(secret, at + len(secret))
        if not _ESCAPE.search(plain):
            break
    pieces, end = [], 0
    for start, stop in sorted(found):
        if start >= end:
            pieces += [text[end:start], MASK]
        end = max(end, stop)
    return "".join([*pieces, text[end:]])


def _unescaped(text: str, places: list[int]) -> tuple[str, list[int]]:
    """`text` without one level of escapes.

    Args:
        text: A text that may hold escapes.
        places: The position of each character, and of the end, in the original text.

    Returns:
        The new text, and the positions of its characters.
    """
    pieces, kept, end = [], [], 0
    for escape in _ESCAPE.finditer(text):
        start = escape.start()
        pieces += [text[end:start], _SHORT.get(escape[0]) or _character(escape[0])]
        kept += places[end : start + 1]
        end = escape.end()
    return "".join([*pieces, text[end:]]), kept + places[end:]


def _character(escape: str) -> str:
    """The character that an escape represents."""
    if escape[0] == "\\":
        character: str = json.loads(f'"{escape}"')
        return character
    if escape[0] == "%":
        return chr(int(escape[1:], 16))
    number = escape[2:-1]
    return chr(int(number[1:], 16) if number[0] in "xX" else int(number))
