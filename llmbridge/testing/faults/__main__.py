"""`python -m llmbridge.testing.faults`: the catalogue as a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable

from . import FAULTS

__all__ = ["table"]


def table(names: Iterable[str] = FAULTS) -> str:
    """A line per fault: its name, what a correct client makes of it, the promise, and what happens."""
    rows = [("fault", "ends in", "promise", "what happens")]
    faults = [FAULTS[name] for name in names]
    rows += [(fault.name, fault.error or "the text", fault.promise, fault.summary) for fault in faults]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]) for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser("python -m llmbridge.testing.faults", description="The catalogue of faults.")
    parser.add_argument("fault", nargs="*", help="show only these")
    asked = parser.parse_args().fault
    if unknown := [name for name in asked if name not in FAULTS]:
        parser.error(f"unknown fault {unknown[0]!r}")
    sys.stdout.write(table(asked or FAULTS))
