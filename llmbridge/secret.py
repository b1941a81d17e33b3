"""Keys and passwords that never show: held behind a mask, checked before use, removed from what a server echoes."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, ParamSpec, TypeVar, Union

from llmbridge.errors import ConfigError, LLMBridgeError, Pending, without_frames

__all__ = ["MASK", "SHORTEST_SECRET", "Key", "KeyFunction", "MaskedStr", "Secret", "discreet", "scrub"]

_LEVELS = 3  # a service may quote, as a string of its JSON, the JSON of another one
_ESCAPE = re.compile(
    r'\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|["\\/bfnrt])'  # JSON's
    r"|%[2-7][0-9a-fA-F]|&#(?:[0-9]{2,3}|[xX][2-7][0-9a-fA-F]);"  # those of URLs and HTML, of ASCII
)

_MARKS = ("\\", "%", "&#")

_SHORT = {"\\\\": "\\", "\\/": "/", '\\"': '"'}

P = ParamSpec("P")
T = TypeVar("T")

MASK = "***"

SHORTEST_SECRET = 6
"""Characters: to mask what is shorter would garble texts, and guard nothing."""


class Secret:
    """A string whose `str`, `repr` and format are a mask, and which refuses to be pickled.

    Args:
        value: The key. Outer white space, the usual left-over of reading it from a file, is removed.
        name: What to call it in an error, e.g. "api_key".

    Raises:
        ConfigError: The value is no text, is empty, or holds a line break, NUL or another character that no HTTP
            header can carry. The value is not quoted.

    Example:
        >>> key = Secret(" sk-123\\n")
        >>> print(key, repr(key), key.reveal())
        *** Secret('***') sk-123
    """

    __slots__ = ("_value",)

    def __init__(self, value: str, name: str = "api_key") -> None:
        if not isinstance(value, str):
            raise ConfigError(f"{name} must be a str, not {type(value).__name__}")
        stripped = value.strip()
        if not stripped:
            raise ConfigError(f"{name} is empty: pass the key itself, or leave the argument out")
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
    """A header value that goes out as it is, and shows as a mask in every repr (a dict's, a traceback's locals)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"


def discreet(function: Callable[P, T]) -> Callable[P, T]:
    """The function, whose errors leave its frames behind: their locals hold keys, and crash reports show locals."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except LLMBridgeError as error:
            failure = Pending(without_frames(error))
        args, kwargs = (), {}  # type: ignore[assignment]
        raise failure.taken()

    return wrapper


def scrub(text: str, secrets: tuple[str, ...]) -> str:
    """`text` with each of the secrets replaced by a mask: servers echo keys in their error messages.

    Example:
        >>> scrub("Incorrect API key provided: sk-123", ("sk-123",))
        'Incorrect API key provided: ***'
    """
    known = sorted(filter(None, secrets), key=len, reverse=True)  # one may be the beginning of another
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
