"""`python -m llmbridge.testing.faults`: the catalogue as a table."""

from __future__ import annotations

import sys

from . import FAULTS

__all__ = ["table"]


def table() -> str:
    """A line for each fault: its name, what a correct client makes of it, the promise, and what happens."""
    rows = [("fault", "ends in", "promise", "what happens")]
    rows += [(fault.name, fault.error or "the text", fault.promise, fault.summary) for fault in FAULTS.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
