"""One change of the source that breaks a promise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DoesNotApply", "Mutation"]


class DoesNotApply(Exception):
    """The text that is to be changed is not in its file, or more than once."""


@dataclass(frozen=True)
class Mutation:
    """A change in one place that breaks a promise.

    Args:
        promise: "P1" to "P25".
        breaks: What goes wrong then, in a few words.
        path: The changed file, below `llmbridge/`.
        old: Stands there exactly once.
        new: Takes its place.
    """

    promise: str
    breaks: str
    path: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.breaks}"

    def applied(self, root: Path) -> str:
        """The text of the changed file.

        Args:
            root: Of the repository.

        Raises:
            DoesNotApply: The source has changed, and the mutation has to follow.
        """
        text = (root / "llmbridge" / self.path).read_text(encoding="utf-8")
        found = text.count(self.old)
        if found != 1:
            raise DoesNotApply(f"{self.path} holds {self.old!r} {found} times")
        return text.replace(self.old, self.new)
