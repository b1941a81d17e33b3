"""One change of the source that breaks a promise: in a definition found by its name, whichever module it is in."""

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
    """The definition or the text in it is not found, or not once; or what comes out is not Python."""


@dataclass(frozen=True)
class Mutation:
    r"""A change in one place that breaks a promise.

    Args:
        promise: Its number, as "P1".
        breaks: What goes wrong then, in a few words.
        name: The definition that is changed, as `Transport.send`, `check_text` or `EVENT_LIMIT`, without its module.
            Where several modules define it, the text decides.
        old: Text that is in the definition exactly once; how it is spaced and broken into lines does not matter.
        new: Replaces it. Lines after the first are indented as the line in which the text begins.
    """

    promise: str
    breaks: str
    name: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.breaks}"

    def applied(self, root: Path) -> tuple[Path, str]:
        """The file that is changed, and its text with the change.

        Args:
            root: Of the repository; its package is read once.

        Raises:
            DoesNotApply: The source has changed, and the mutation has to follow.
        """
        definitions = _definitions(root).get(self.name, ())
        if not definitions:
            raise DoesNotApply(f"nothing is called {self.name}")
        pattern = re.compile(r"\s*".join(map(re.escape, re.findall(r"\w+|[^\w\s]", self.old))))
        places = [
            (path, text, found.span())
            for path, text, start, end in definitions
            for found in pattern.finditer(text, start, end)
        ]
        if len(places) != 1:
            defined = "once" if len(definitions) == 1 else f"{len(definitions)} times"
            raise DoesNotApply(f"{self.name}, defined {defined}, holds {self.old!r} {len(places)} times")
        path, text, (start, end) = places[0]
        line = text[text.rfind("\n", 0, start) + 1 : start]
        indent = line[: len(line) - len(line.lstrip())]
        changed = text[:start] + self.new.replace("\n", f"\n{indent}") + text[end:]
        try:
            compile(changed, str(path), "exec", dont_inherit=True)
        except SyntaxError as error:
            raise DoesNotApply(f"{path.name} is not Python then: {error}") from None
        return path, changed


_Definition = tuple[Path, str, int, int]
"""The file, its text, and where in the text the definition begins and ends."""


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
