"""The terminal in README.md: what its commands say today, small, and in a form that a browser shows."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from scripts import DOCS, script

PICTURE = DOCS / "picture.svg"


@pytest.mark.slow
def test_the_picture_is_what_its_script_draws() -> None:
    """Draw it again with `python docs/picture.py` when a command says something else."""
    assert PICTURE.read_text(encoding="utf-8") == script("picture").picture()


def test_the_picture_is_small_and_stands_alone() -> None:
    """Valid XML, with a title for those who cannot see it, and nothing fetched from elsewhere."""
    text = PICTURE.read_text(encoding="utf-8")
    root = ET.fromstring(text)
    assert len(text.encode()) < 60_000
    assert root.findtext("{http://www.w3.org/2000/svg}title")
    assert not re.search(r"<script|<image|href|url\(|@import", text)


def test_every_line_fits() -> None:
    """No text runs over the edge of the terminal."""
    root = ET.fromstring(PICTURE.read_text(encoding="utf-8"))
    lines = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert len(lines) > 10
    assert max(map(len, lines)) <= script("picture").COLUMNS
