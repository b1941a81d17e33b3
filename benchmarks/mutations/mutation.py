"""One change of the source that breaks a promise, in a definition found by its name in any module."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["DoesNotApply", "Mutation"]


class DoesNotApply(Exception):
    """The definition or its text is not found exactly once, or the result is not Python."""


@dataclass(frozen=True)
class Mutation:
    r"""A change in one place that breaks a promise.

    Args:
        promise: Its number, like "P1".
        breaks: What goes wrong, in a few words.
        name: The definition to change, like `Transport.send`, `check_text` or `EVENT_LIMIT`, without its module. If
            several modules define it, the text decides.
        old: Text that occurs exactly once in the definition, regardless of spaces and line breaks.
        new: Its replacement. Lines after the first are indented like the line in which the text starts.
    """

    promise: str
    breaks: str
    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.breaks}"

    def applied(self, root: Path) -> tuple[Path, str]:
        """The changed file, and its text with the change.

        Args:
            root: The repository; its package is read once.

        Raises:
            DoesNotApply: The source has changed; adapt the mutation.
        """
        definitions = _definitions(root).get(self.name, ())
        if not definitions:
            raise DoesNotApply(f"there is no {self.name}")
        pattern = re.compile(r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", self.old))))
        places = [
            (path, text, found.span())
            for path, text, start, end in definitions
            for found in pattern.finditer(text, start, end)
        ]
        if len(places) != 1:
            defined = "once" if len(definitions) == 1 else f"{len(definitions)} times"
            raise DoesNotApply(f"{self.name}, defined {defined}, contains {self.old!r} {len(places)} times")
        path, text, (start, end) = places[0]
        line = text[text.rfind("\n", 0, start) + 1 : start]
        indent = line[: len(line) - len(line.lstrip())]
        changed = text[:start] + self.new.replace("\n", f"\n{indent}") + text[end:]
        try:
            compile(changed, str(path), "exec", dont_inherit=True)
        except SyntaxError as error:
            raise DoesNotApply(f"{path.name} would not be Python: {error}") from None
        return path, changed


_Definition = tuple[Path, str, int, int]
"""The file, its text, and the start and end of the definition in it."""


@cache
def _definitions(root: Path) -> Mapping[str, list[_Definition]]:
    """The functions, classes and assignments of the package by their qualified names."""
    found = defaultdict(list)
    for path in sorted((root / "llmbridge").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        begins = [0, *(line.end() for line in re.finditer("\n", text)), len(text)]  # where line 1, 2, .. begin
        for name, node in _named(ast.parse(text).body):
            found[name].append((path, text, begins[node.lineno - 1], begins[node.end_lineno or 0]))
    return found


def _named(nodes: Iterable[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.stmt]]:
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield prefix + node.name, node
        if isinstance(node, ast.ClassDef):
            yield from _named(node.body, f"{prefix}{node.name}.")
        targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
        yield from ((prefix + target.id, node) for target in targets if isinstance(target, ast.Name))
