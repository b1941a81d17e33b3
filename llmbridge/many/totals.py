"""The totals of a run, and the line that shows them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from llmbridge._locks import monotonic

__all__ = ["Progress", "ProgressLike", "Totals"]

_OFTEN, _SELDOM = 0.2, 60.0  # seconds between two lines on a terminal, and elsewhere


@dataclass(frozen=True, slots=True)
class Totals:
    """What a run has done so far, rows from the journal included.

    Args:
        read: Rows that were read from the input.
        done: Rows with an answer.
        failed: Rows that failed.
        resumed: Those of `done` whose answer was in the journal.
        gone: Answers in the journal whose rows are not in the input any more; known at the end.
        requests: Sent by this run.
        refused: Those of them that the service refused for being too many.
        input_tokens, output_tokens: Of all answers, as far as the service has counted them.
        wasted_tokens: Of attempts that came to nothing.
        width: How many requests may be under way now.
        seconds: Since the run began.
        errors: How many rows failed by which class of error.
    """

    read: int = 0
    done: int = 0
    failed: int = 0
    resumed: int = 0
    gone: int = 0
    requests: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    wasted_tokens: int = 0
    width: int = 0
    seconds: float = 0.0
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Rows a second, without those from the journal."""
        return (self.done - self.resumed + self.failed) / self.seconds if self.seconds else 0.0

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        from llmbridge.notebook.views import of_totals

        return of_totals(self)

    def __str__(self) -> str:
        failed = ", ".join(f"{count} {name}" for name, count in self.errors.items())
        resumed = f" ({self.resumed} from the journal)" if self.resumed else ""
        parts = (
            f"{self.done} done{resumed}",
            f"{self.failed} failed ({failed})" if self.failed else "",
            f"{self.input_tokens + self.output_tokens} tokens",
            f"{self.rate:.1f} rows/s, {self.width} at once" if self.requests else "",
        )
        return ", ".join(part for part in parts if part)


ProgressLike = Union[bool, Callable[[Totals], object], None]


class Progress:
    """Shows the totals now and then.

    Args:
        wanted: True for a line on standard error, or a function of the totals.
    """

    def __init__(self, wanted: ProgressLike) -> None:
        self._show = wanted if callable(wanted) else _shown_here() if wanted else None
        self._pause = _SELDOM if self._show is _write else _OFTEN
        self.due = monotonic() + self._pause if self._show else float("inf")

    def show(self, totals: Callable[[], Totals], last: bool = False) -> None:
        """Shows them if it is time, or the run is over."""
        if self._show is None or not (last or monotonic() >= self.due):
            return
        self.due = monotonic() + self._pause
        self._show(totals())
        if last and self._show is _rewrite:
            sys.stderr.write("\n")


def _shown_here() -> Callable[[Totals], object]:
    """What shows the totals: in a cell of a notebook, on a terminal, or elsewhere."""
    if "ipykernel" in sys.modules:
        from llmbridge.notebook.live import line_painter

        if (repaint := line_painter()) is not None:
            return repaint
    return _rewrite if sys.stderr is not None and sys.stderr.isatty() else _write


def _write(totals: Totals) -> None:
    sys.stderr.write(f"{totals}\n")
    sys.stderr.flush()


def _rewrite(totals: Totals) -> None:
    sys.stderr.write(f"\r\x1b[K{totals}")
    sys.stderr.flush()
