"""The text of an answer: repaired for UTF-8, and stored with little overhead.

JSON may hold half of a surrogate pair, and servers split pairs over two pieces.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

__all__ = ["SurrogateMender", "TextSoFar", "edits", "mended", "short_repr", "shortened", "shown"]

_FOLD_AT = 2048


class SurrogateMender:
    r"""Joins the halves of a pair that is split over two pieces; a lone half becomes U+FFFD.

    Example:
        >>> mend = SurrogateMender()
        >>> mend("Hi \ud83d"), mend("\ude00!"), mend("\ude00")
        ('Hi ', '😀!', '�')
    """

    __slots__ = ("half",)

    def __init__(self) -> None:
        self.half = ""

    def __call__(self, text: str) -> str:
        if self.half:
            text, self.half = self.half + text, ""
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            if "\ud800" <= text[-1] <= "\udbff":
                text, self.half = text[:-1], text[-1]
            return mended(text)
        return text

    def rest(self) -> list[str]:
        """The pending half, as U+FFFD."""
        half, self.half = self.half, ""
        return ["\N{REPLACEMENT CHARACTER}"] if half else []


def mended(text: str) -> str:
    r"""The text with pairs joined and lone halves replaced, so that UTF-8 can encode it.

    Example:
        >>> mended("Hi \ud83d\ude00\ud83d")
        'Hi 😀�'
    """
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def shortened(text: str, limit: int) -> str:
    """The text for a message: at most so many characters, with dots for the rest.

    Example:
        >>> shortened("a long story", 9), shortened("short", 9)
        ('a long...', 'short')
    """
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def shown(value: Any) -> str:
    """A value for a message: its repr, cut so that it quotes no more than a few words of a prompt.

    Example:
        >>> shown(["a", 1])
        "['a', 1]"
    """
    return shortened(repr(value), 40)


def short_repr(value: Any) -> str:
    """The `__repr__` of a dataclass that may hold a lot: on one line, each field cut.

    Example:
        >>> from llmbridge.events import Text
        >>> Text("a long story " * 10)
        Text(text='a long story a long story a long story a long story a lon...')
    """
    cut = ((field.name, getattr(value, field.name)) for field in fields(value) if field.repr)
    shown = (f"{name}={_cut(held)}" for name, held in cut)
    return f"{type(value).__name__}({', '.join(shown)})"


def _cut(value: Any) -> str:
    return repr(shortened(value, 60)) if isinstance(value, str) else shortened(repr(value), 80)


def edits(word: str, other: str) -> int:
    """How many letters were left out, added, replaced or swapped with their neighbour between two words.

    Example:
        >>> edits("time_out", "timeout"), edits("api_kye", "api_key")
        (1, 1)
    """
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, letter in enumerate(word):
        row = [i + 1]
        for j, meant in enumerate(other):
            count = min(last[j + 1] + 1, row[j] + 1, last[j] + (letter != meant))
            if i and j and letter == other[j - 1] and word[i - 1] == meant:
                count = min(count, before[j - 1] + 1)
            row.append(count)
        before, last = last, row
    return last[-1]


class TextSoFar:
    """Joins pieces: a str object takes ten times the memory of the few characters in it.

    The joined text is in one growing buffer. Many strings of medium size would be scattered between short-lived
    objects, and keep the memory around them from being reused.

    Attributes:
        add: Adds a piece; the plain method of a list, for hot loops.
    """

    __slots__ = ("_folded", "_folded_length", "_pieces", "add")

    def __init__(self) -> None:
        self._folded = bytearray()
        self._folded_length = 0
        self._pieces: list[str] = []
        self.add = self._pieces.append

    def fold(self) -> None:
        """Moves the added pieces into the buffer, if that is worth it; call it now and then."""
        if len(self._pieces) >= _FOLD_AT:
            joined = "".join(self._pieces)
            self._folded += joined.encode()
            self._folded_length += len(joined)
            self._pieces.clear()

    @property
    def length(self) -> int:
        """The number of characters."""
        return self._folded_length + sum(map(len, self._pieces))

    def __str__(self) -> str:
        return self._folded.decode() + "".join(self._pieces)
