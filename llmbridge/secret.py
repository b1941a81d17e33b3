"""Keys and passwords that never show: held behind a mask, checked before use, removed from what a server echoes."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
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
    "revealed",
    "scrub",
]

_LEVELS = 3  # a service may quote, as a string of its JSON, the JSON of another one
_ESCAPE = re.compile(
    r'\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|["\\/bfnrt])'  # JSON's
    r"|%[2-7][0-9a-fA-F]|&#(?:[0-9]{2,3}|[xX][2-7][0-9a-fA-F]);"  # those of URLs and HTML, of ASCII
)

_MARKS = ("\\", "%", "&#")

_SHORT = {"\\\\": "\\", "\\/": "/", '\\"': '"'}

_LIBRARIES = frozenset({"llmbridge", "requests", "urllib3", "sseclient", "socks", "anyio", *sys.stdlib_module_names})

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")
T = TypeVar("T")

MASK = "***"

SHORTEST_SECRET = 6
"""Characters: to mask what is shorter would garble texts, and guard nothing."""


def discreet(function: Callable[P, T]) -> Callable[P, T]:
    """The function, whose errors leave its frames behind: their locals hold keys, and crash reports show locals."""

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
            raise error  # noqa: TRY201 - in Python 3.10, a bare `raise` gives it its old frames back
        raise failure.taken()

    return wrapper


def callers_frames_only(error: E) -> E:
    """The error, and all that led to it, with no other frames than those of the caller's own functions and providers.

    Frames of llmbridge, and of the libraries that it calls, hold keys, headers and passwords in their locals. An error
    that came up elsewhere, as one that the caller was handling, keeps all of its frames.
    """
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        link = waiting.pop()
        if not isinstance(link, BaseException) or id(link) in seen:
            continue
        seen.add(id(link))
        trace = link.__traceback__
        # The plain methods: an exception that is a frozen dataclass lets nobody set anything.
        BaseException.with_traceback(link, None)
        BaseException.with_traceback(link, _callers_own(trace))
        waiting += (link.__cause__, link.__context__)
        if isinstance(group := getattr(link, "exceptions", ()), tuple):
            waiting += group
    return error


def _callers_own(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the frames of llmbridge and of libraries; as it is if it begins and stays outside."""
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
    """A string whose `str`, `repr` and format are a mask, and which refuses to be pickled.

    Args:
        value: The key. Outer white space, the usual left-over of reading it from a file, is removed.
        name: What to call it in an error, e.g. "api_key".

    Raises:
        ConfigError: The value is no text, is empty, is in quotes, or holds a line break, NUL or another character that
            no HTTP header can carry. The value is not quoted.

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
        """The value itself, for the one place that puts it on the wire."""
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
        raise TypeError("a Secret is not pickled: give the key again where it is used")


class KeyFunction:
    """A function that gives the key, asked again for each request; shows as a mask, and pickles if the function does.

    Args:
        function: Takes no arguments; returns the key as a str or Secret, or something to await that gives it.
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
        return f"KeyFunction({MASK})"  # a partial function shows its arguments, and those may be secrets

    def __reduce__(self) -> tuple[Any, ...]:
        return KeyFunction, (self._function, self.optional)


Key = Union[Secret, KeyFunction]
"""What a request's key comes from."""


class MaskedStr(str):
    """A header value or password that is a mask in all that is made of it: repr, slices, formatted and joined text.

    Its characters are those of the mask. The text itself is what it equals, what `encode()` gives, which is how
    http.client asks for a header's value, and what `reveal()` gives; it pickles as it is.

    Args:
        text: What is to be hidden; one that is hidden already stays so.

    Example:
        >>> value = MaskedStr("Bearer sk-123")
        >>> f"{value}", value[7:], ", ".join([value, value]), value == "Bearer sk-123"
        ('***', '', '***, ***', True)
    """

    __slots__ = ("_text",)
    _text: str

    def __new__(cls, text: str) -> MaskedStr:
        """One that looks like the mask, and knows the text."""
        masked = super().__new__(cls, MASK)
        masked._text = revealed(text)
        return masked

    def reveal(self) -> str:
        """The text itself, for the one place that puts it on the wire."""
        return self._text

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """The text itself, as it goes out."""
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
    """The text, without the mask if it wears one."""
    return text.reveal() if isinstance(text, MaskedStr) else str(text)


def scrub(text: str, secrets: tuple[str, ...]) -> str:
    """`text` with each of the secrets replaced by a mask: servers echo keys in their error messages.

    Example:
        >>> scrub("Incorrect API key provided: sk-123", ("sk-123",))
        'Incorrect API key provided: ***'
    """
    known = sorted(filter(None, map(revealed, secrets)), key=len, reverse=True)  # one may be the beginning of another
    if known and any(mark in text for mark in _MARKS):
        return _without_escaped(text, known)
    for secret in known:
        text = text.replace(secret, MASK)
    return text


def _without_escaped(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets, also where they are written with escapes, as any character may be."""
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
        text: What may hold some.
        places: Where each character, and the end, stands in the text that it began as.

    Returns:
        The new text, and the places of its characters.
    """
    pieces, kept, end = [], [], 0
    for escape in _ESCAPE.finditer(text):
        start = escape.start()
        pieces += [text[end:start], _SHORT.get(escape[0]) or _character(escape[0])]
        kept += places[end : start + 1]
        end = escape.end()
    return "".join([*pieces, text[end:]]), kept + places[end:]


def _character(escape: str) -> str:
    """What an escape stands for."""
    if escape[0] == "\\":
        character: str = json.loads(f'"{escape}"')
        return character
    if escape[0] == "%":
        return chr(int(escape[1:], 16))
    number = escape[2:-1]
    return chr(int(number[1:], 16) if number[0] in "xX" else int(number))
