"""What a docstring says about a function or class, and about each of its parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

__all__ = ["read_docstring"]

_HEADINGS = "Args|Arguments|Parameters|Params|Attributes|Other Parameters|Keyword Args|Keyword Arguments"
_OTHERS = (
    "Returns?|Yields?|Raises|Examples?|Notes?|Warnings?|Warns|See Also|References|Todo|Usage|Source|Methods|Receives"
)
_GOOGLE = re.compile(rf"(?:{_HEADINGS}):\s*$")
_SECTION = re.compile(rf"(?:{_HEADINGS}|{_OTHERS}):?\s*$")
_NUMPY = re.compile(rf"(?:{_HEADINGS})\s*$")
_RULE = re.compile(r"-{3,}\s*$")
_ENTRY = re.compile(r"\*{0,2}(\w+)\s*(?:\(.*?\))?\s*:(?:\s+(.*)|$)")
_NUMPY_ENTRY = re.compile(r"(\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")
_FIELD = re.compile(r"[:@](?:param|parameter|arg|argument|key|keyword|attribute)\s+(?:[^:]*?\s)?\**(\w+)\s*:(.*)")
_ANY_FIELD = re.compile(r"[:@]\w+[^:]*:")


def read_docstring(docstring: str | None) -> tuple[str, dict[str, str]]:
    """The first paragraph, and the descriptions of parameters in Google, reST or NumPy style.

    Example:
        >>> read_docstring('''The weather now.
        ...
        ... Args:
        ...     city: Name of the city,
        ...         in English.
        ... ''')
        ('The weather now.', {'city': 'Name of the city, in English.'})
        >>> read_docstring("Adds.\\n\\n:param int a: the first\\n:returns: the sum")
        ('Adds.', {'a': 'the first'})
    """
    if not docstring:
        return "", {}
    lines = inspect.cleandoc(docstring).splitlines()
    return _summary(lines), {**dict(_numpy(lines)), **dict(_google(lines)), **dict(_fields(lines))}


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def _summary(lines: list[str]) -> str:
    paragraph: list[str] = []
    for i, line in enumerate(lines):
        ruled = i + 1 < len(lines) and _RULE.match(lines[i + 1])
        headed = _SECTION.match(line) and (ruled or line.rstrip().endswith(":"))
        if not line.strip() or headed or _ANY_FIELD.match(line):
            break
        paragraph.append(line)
    return _joined(paragraph)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _google(lines: list[str]) -> Iterator[tuple[str, str]]:
    for i, line in enumerate(lines):
        if not _GOOGLE.match(line.lstrip()):
            continue
        body = _indented_block(lines[i + 1 :], _indent(line))
        entry_indent = min((_indent(item) for item in body if item.strip()), default=0)
        for first, rest in _entries(body, entry_indent):
            if match := _ENTRY.match(first):
                yield match[1], _joined([match[2] or "", *rest])


def _numpy(lines: list[str]) -> Iterator[tuple[str, str]]:
    for i in range(len(lines) - 1):
        if not (_NUMPY.match(lines[i]) and _RULE.match(lines[i + 1])):
            continue
        body = []
        for j, line in enumerate(lines[i + 2 :], i + 2):
            if j + 1 < len(lines) and _RULE.match(lines[j + 1]):
                break
            body.append(line)
        for first, rest in _entries(body, 0):
            if match := _NUMPY_ENTRY.match(first):
                for name in match[1].split(","):
                    yield name.strip().lstrip("*"), _joined(rest)


def _fields(lines: list[str]) -> Iterator[tuple[str, str]]:
    for i, line in enumerate(lines):
        match = _FIELD.match(line.lstrip())
        if not match:
            continue
        rest: list[str] = []
        for following in lines[i + 1 :]:
            if not following.strip() or _ANY_FIELD.match(following.lstrip()):
                break
            rest.append(following)
        yield match[1], _joined([match[2], *rest])


def _indented_block(lines: list[str], indent: int) -> list[str]:
    block = []
    for line in lines:
        if line.strip() and _indent(line) <= indent:
            break
        block.append(line)
    return block


def _entries(lines: list[str], indent: int) -> Iterator[tuple[str, list[str]]]:
    """Each line at that indentation, with the lines below it that are further in."""
    first, rest = "", list[str]()
    for line in lines:
        if line.strip() and _indent(line) == indent:
            if first:
                yield first, rest
            first, rest = line.strip(), []
        else:
            rest.append(line)
    if first:
        yield first, rest
