r"""A model's words as Markdown that a notebook shows and never runs.

A model's Markdown is kept: headings, lists, tables, code. What a frontend would act on is shown as it was written:
HTML, math between dollars or after `\(`, images (a frontend fetches them at once, from a server that the model has
chosen), links to anything but a web page or a mail address, and marimo's `///` blocks. Frontends clean HTML up in
different ways, and `nbconvert` does not at all, so nothing is left to them.

Code stays as it is, which is only safe where every parser agrees that it is code. Fences are therefore written anew,
longer than any run of backticks inside, and code between backticks counts only if all backticks of the line have
partners.
"""

from __future__ import annotations

import re

__all__ = ["code", "fenced", "literal", "small", "text_of"]

_MATH = r"(?=[()\[\]]|(?:begin|end)\{)"
_ACTED_ON = re.compile(
    rf"(?P<slashes>\\\\){_MATH}|\\\\|(?P<slash>\\){_MATH}"
    r"|\\?(?P<dollar>\$)|\\?(?P<tag><)|\\?(?P<entity>&)(?=[#\w])|(?P<image>!\[)|(?P<block>///)"
    r"|\](?P<link>\()(?!https?://|mailto:)|\](?P<definition>:)(?!\s+https?://)",
    re.IGNORECASE,
)
# An empty element keeps MathJax, which looks at finished HTML, from seeing what is on both sides of it as one.
_SHOWN = {
    "slashes": r"\\<i></i>", "slash": r"\\<i></i>", "dollar": "<span>&#36;</span>", "tag": "&lt;", "entity": "&amp;",
    "image": r"\![", "block": "//&#47;", "link": "]&#40;", "definition": "]&#58;",
}  # fmt: skip
_FENCE = re.compile(r"( *)(`{3,}(?=[^`]*$)|~{3,})[ \t]*([\w+#.-]*)")
_ITEM = re.compile(r"( *)(?:[-*+]|\d{1,9}[.)]) {1,4}(?=\S)")
_TABLE = re.compile(r"[\s>|:]*-[-\s>|:]*")
_SPAN = re.compile(r"(?<![\\`])(`+)(?!`)(?:.+?)(?<!`)\1(?!`)")
_SPECIAL = re.compile(r"([\\`*_\[\]#|~])")


def literal(text: str) -> str:
    r"""A model's Markdown, with nothing in it that a frontend would run or fetch; an open fence is closed.

    Example:
        >>> literal("**5 < 6** costs $5, `a < b`")
        '**5 &lt; 6** costs <span>&#36;</span>5, `a < b`'
        >>> print(literal("```html\n<b>"))
        ```html
        <b>
        ```
    """
    made: list[str] = []
    block: list[str] = []
    offsets: list[int] = []
    lines = iter(text.splitlines())
    for line in lines:
        opening = _FENCE.match(line)
        if opening is not None and _opens(len(opening[1]), offsets):
            made += [*_escaped(block), *_rewritten(opening, lines)]
            block = []
            continue
        _follow_lists(line, offsets, begins=not block)
        if line.strip():
            block.append(line)
        else:
            made += [*_escaped(block), ""]
            block = []
    return "\n".join([*made, *_escaped(block)])


def _opens(indent: int, offsets: list[int]) -> bool:
    """Whether a fence with that indent is one for every parser: further in, it would be text or indented code."""
    return indent <= 3 or any(offset <= indent <= offset + 3 for offset in offsets)


def _follow_lists(line: str, offsets: list[int], begins: bool) -> None:
    """Keeps the columns at which the open list items have their content."""
    item = _ITEM.match(line)
    if item is not None:
        offsets[:] = [offset for offset in offsets if offset <= len(item[1])]
        offsets.append(item.end())
    elif begins and line.strip() and not line.startswith(" "):
        offsets.clear()


def _rewritten(opening: re.Match[str], lines: object) -> list[str]:
    """A fence with its content, written so that no line inside can end it, and closed."""
    indent, mark, language = opening[1], opening[2], opening[3]
    ending = re.compile(rf" {{0,{len(indent) + 3}}}{mark[0]}{{{len(mark)},}}\s*")
    content: list[str] = []
    for line in lines:  # type: ignore[attr-defined]
        if ending.fullmatch(line):
            break
        content.append(line.removeprefix(indent) if line.startswith(indent) else line.lstrip(" "))
    return [indent + line for line in fenced("\n".join(content), language).split("\n")]


def _escaped(block: list[str]) -> list[str]:
    """Lines of text that belong together; code between backticks stays, as far as it is certain to be some."""
    table = any(map(_TABLE.fullmatch, block))
    certain = True
    made = []
    for line in block:
        cells = line.split("|") if table else [line]
        certain = certain and not any("`" in _SPAN.sub("", cell) for cell in cells)
        made.append(_line(line) if certain else _ACTED_ON.sub(_shown, line))
    return made


def _line(line: str) -> str:
    pieces, end = [], 0
    for span in _SPAN.finditer(line):
        pieces += [_ACTED_ON.sub(_shown, line[end : span.start()]), span[0]]
        end = span.end()
    return "".join([*pieces, _ACTED_ON.sub(_shown, line[end:])])


def _shown(found: re.Match[str]) -> str:
    return _SHOWN[found.lastgroup] if found.lastgroup else found[0]


def fenced(text: str, language: str = "") -> str:
    r"""Text as a block of code, whatever is in it.

    Example:
        >>> print(fenced("a < b", "python"))
        ```python
        a < b
        ```
    """
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    mark = "`" * max(3, longest + 1)
    return f"{mark}{language}\n{text}\n{mark}"


def code(text: str) -> str:
    """A few words as code within a line.

    Example:
        >>> code("a`b")
        '`` a`b ``'
    """
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    mark, space = "`" * (longest + 1), " " if longest else ""
    return f"{mark}{space}{' '.join(text.split())}{space}{mark}"


def text_of(words: str) -> str:
    """Words on one line that are not Markdown at all.

    Example:
        >>> text_of("a *b* <c>")
        'a \\\\*b\\\\* &lt;c>'
    """
    plain = _SPECIAL.sub(r"\\\1", " ".join(words.split()))
    return plain.replace("&", "&amp;").replace("<", "&lt;").replace("$", _SHOWN["dollar"])


def small(words: str) -> str:
    """A line in grey."""
    return f'<small style="color: gray">{text_of(words)}</small>'
