"""Matches text against a pattern in a bounded number of steps.

Python's `re` tries one way through a pattern after the other, and cannot be interrupted: for a text of 60 characters,
`^(a+)+$` takes longer than anybody lives, and blocks all threads. So `re` is used only if there are few ways. Otherwise
all ways are followed at once: each part of the pattern maps the set of places where it may begin to the set of places
where it may end.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

if sys.version_info >= (3, 11):
    from re import _compiler, _parser  # type: ignore[attr-defined]
else:
    import sre_compile as _compiler
    import sre_parse as _parser

__all__ = ["Patterns", "TooCostly"]

_STEPS = 5_000_000  # about a second
_FEW = 1_000_000.0  # steps of `re` that one search may take at most
_AS_FAST = 50  # steps of `re` that take as long as one step here
_REPEATS = ("MAX_REPEAT", "MIN_REPEAT")
_SINGLE = ("AT", "LITERAL", "NOT_LITERAL", "ANY", "IN", "FAILURE")


class TooCostly(Exception):
    """Finding out takes too many steps."""


class Patterns:
    """Searches with patterns, all of them together in a bounded number of steps.

    Attributes:
        slow: Whether the last search might have taken `re` a very long time.

    Example:
        >>> patterns = Patterns()
        >>> patterns.found("^(a+)+$", "a" * 60), patterns.found("^(a+)+$", "a" * 60 + "!")
        (True, False)
    """

    def __init__(self) -> None:
        self._left = _STEPS
        self.slow = False

    def found(self, pattern: str, text: str) -> bool | None:
        """Whether a part of the text matches; None if Python cannot read the pattern, which a service may.

        Raises:
            TooCostly: It takes too many steps.
        """
        parsed = _parsed(pattern)
        if parsed is None:
            return None
        ways = _ways(parsed, len(text) + 1) * (len(text) + 1) ** 2
        self.slow = ways > _FEW
        if not self.slow:
            self._take(1 + int(ways) // _AS_FAST)
            return re.search(pattern, text) is not None
        return bool(_Search(self, text).ends(parsed, set(range(len(text) + 1))))

    def _take(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise TooCostly


class _Search:
    """All ways of one text."""

    def __init__(self, patterns: Patterns, text: str) -> None:
        self._take = patterns._take
        self._text = text
        self._matches: dict[int, Any] = {}  # of parts that match at most one character

    def ends(self, parts: Any, begins: set[int]) -> set[int]:
        """Where the sequence of parts may end if it begins at one of these places."""
        for part in parts:
            self._take(1 + len(begins))
            begins = self._ends(part, parts.state, begins)
        return begins

    def _ends(self, part: Any, state: Any, begins: set[int]) -> set[int]:
        name, value = str(part[0]), part[1]
        if name == "BRANCH":
            return set().union(*(self.ends(branch, begins) for branch in value[1]))
        if name == "SUBPATTERN" and not value[1] and not value[2]:
            return self.ends(value[3], begins)
        if name in _REPEATS:
            return self._repeated(begins, *value)
        if name in ("ASSERT", "ASSERT_NOT"):
            direction, inner = value
            return {at for at in begins if self._asserted(inner, at, direction < 0) == (name == "ASSERT")}
        if name not in _SINGLE:
            raise TooCostly  # its matches depend on earlier ones
        match = self._matches.get(id(part))
        if match is None:
            match = self._matches[id(part)] = _compiler.compile(_parser.SubPattern(state, [part])).match
        return {found.end() for at in begins if (found := match(self._text, at))}

    def _repeated(self, begins: set[int], least: int, most: int, inner: Any) -> set[int]:
        for _ in range(least):
            before, begins = begins, self.ends(inner, begins)
            if begins == before:
                break  # no place is left, or repeating adds none
        found, new = set(begins), begins
        for _ in range(min(most - least, len(self._text))):
            if not (new := self.ends(inner, new) - found):
                break
            found |= new
        return found

    def _asserted(self, inner: Any, at: int, behind: bool) -> bool:
        if not behind:
            return bool(self.ends(inner, {at}))
        begin = at - inner.getwidth()[0]  # `re` accepts only lookbehinds of a fixed width
        return begin >= 0 and at in self.ends(inner, {begin})


@lru_cache(maxsize=256)
def _parsed(pattern: str) -> Any:
    try:
        re.compile(pattern)
        return _parser.parse(pattern)
    except (re.error, OverflowError):
        return None


def _ways(parts: Iterable[Any], length: int) -> float:
    """The most ways through the parts that `re` may try at one place of a text of that length."""
    ways = 1.0
    for kind, value in parts:
        name = str(kind)
        if name == "BRANCH":
            ways *= sum(_ways(branch, length) for branch in value[1])
        elif name in (*_REPEATS, "POSSESSIVE_REPEAT"):
            least, most, inner = value
            times = min(int(most), length)
            try:
                # An empty match may have to repeat more often than the text is long.
                ways *= max(times - min(least, times) + 1, least // length) * _ways(inner, length) ** times
            except OverflowError:
                return float("inf")
        elif name in ("SUBPATTERN", "ASSERT", "ASSERT_NOT"):
            ways *= _ways(value[-1], length)
        elif name == "ATOMIC_GROUP":
            ways *= _ways(value, length)
        elif name == "GROUPREF_EXISTS":
            ways *= sum(_ways(branch, length) for branch in value[1:] if branch)
    return ways
