"""The value so far of JSON that is still arriving."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["partial_json"]

_TOKEN = re.compile(
    r"""[ \t\n\r]*(?:
        (?P<mark>[{}\[\],:])
      | "(?P<text>[^"\\]*(?:\\.[^"\\]*)*)(?P<closed>")?
      | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?P<more>[0-9.eE+-]?)
      | (?P<word>true|false|null)
    )""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = {"true": True, "false": False, "null": None}
_NOTHING = object()


def partial_json(text: str) -> Any:
    r"""The value of a JSON text that may be truncated anywhere; takes time in proportion to its length.

    An open str is kept as far as it goes, without half an escape or half a surrogate pair. Parts that could still
    change are left out: a key without its value, half of a word, a number in a container that nothing follows yet. An
    invalid text gives the value up to the error.

    Args:
        text: JSON, or any beginning of it.

    Returns:
        Dicts, lists and plain values; None before the first value.

    Example:
        >>> partial_json('{"city": "Par')
        {'city': 'Par'}
        >>> partial_json('{"city": "Paris", "sizes": [1, 2, 30')
        {'city': 'Paris', 'sizes': [1, 2]}
        >>> partial_json('{"city": "Paris", "si')
        {'city': 'Paris'}
        >>> partial_json("") is None
        True
    """
    reader = _Reader()
    position = 0
    while match := _TOKEN.match(text, position):
        position = match.end()
        if not reader.take(match, last=position == len(text)):
            break
    return reader.root[0] if reader.root else None


class _Reader:
    """Builds the value from tokens. The root is the only item of a list, so that it is added like any other.

    `key` is the key that waits for its value; `expected` names the valid tokens: "value", "first value" (or the end of
    a list), "key" (or the end of an object), "colon", "next" (a comma or an end).
    """

    __slots__ = ("expected", "key", "root", "stack")

    def __init__(self) -> None:
        self.root: list[Any] = []
        self.stack: list[Any] = [self.root]
        self.key = ""
        self.expected = "value"

    def take(self, token: re.Match[str], *, last: bool) -> bool:
        """False if the rest of the text cannot be used."""
        if mark := token["mark"]:
            return self._mark(mark)
        if self.expected == "key":
            return self._take_key(token)
        value = self._scalar(token, last=last)
        if not self.expected.endswith("value") or value is _NOTHING:
            return False
        self._add(value)
        return True

    def _take_key(self, token: re.Match[str]) -> bool:
        key = _text(token["text"], closed=True) if token["closed"] else None
        if key is None:
            return False
        self.key, self.expected = key, "colon"
        return True

    def _scalar(self, token: re.Match[str], *, last: bool) -> Any:
        if (body := token["text"]) is not None:
            text = _text(body, closed=bool(token["closed"]))
            return _NOTHING if text is None else text
        if word := token["word"]:
            return _WORDS[word]
        if token["more"] or (last and len(self.stack) > 1):
            return _NOTHING
        try:
            return json.loads(token["number"])
        except ValueError:  # Python rejects numbers of more than 4300 digits
            return _NOTHING

    def _mark(self, mark: str) -> bool:
        if mark in "{[":
            if not self.expected.endswith("value"):
                return False
            opened: Any = {} if mark == "{" else []
            self._add(opened)
            self.stack.append(opened)
            self.expected = "key" if mark == "{" else "first value"
        elif mark in "}]":
            container = self.stack[-1]
            fits = self.expected in (("key", "next") if mark == "}" else ("first value", "next"))
            if not fits or len(self.stack) == 1 or isinstance(container, dict) != (mark == "}"):
                return False
            self.stack.pop()
            self.expected = "next"
        elif mark == ":":
            if self.expected != "colon":
                return False
            self.expected = "value"
        else:
            if self.expected != "next":
                return False
            self.expected = "key" if isinstance(self.stack[-1], dict) else "value"
        return len(self.stack) > 1

    def _add(self, value: Any) -> None:
        container = self.stack[-1]
        if isinstance(container, dict):
            container[self.key] = value
        else:
            container.append(value)
        self.expected = "next"


def _text(body: str, *, closed: bool) -> str | None:
    """The text between two quotes, or after the first one; None if it is not valid JSON."""
    if "\\" in body:
        if not closed:
            body = _without_half_escape(body)
        try:
            text: str = json.loads(f'"{body}"', strict=False)
        except ValueError:
            return None
        # Only an escape can produce half of a pair; its other half may be on its way.
        return text[:-1] if not closed and "\ud800" <= text[-1:] <= "\udbff" else text
    return body


def _without_half_escape(body: str) -> str:
    start = body.rfind("\\u", -5)
    if start < 0:
        return body
    backslashes = 0
    while start > backslashes and body[start - backslashes - 1] == "\\":
        backslashes += 1
    return body if backslashes % 2 else body[:start]
