"""The documentation site has every page and every public name. `tox -e site` builds it, and complains of all else."""

from __future__ import annotations

import re
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path

import llmbridge
import llmbridge.testing

DOCS = Path(__file__).resolve().parents[2] / "docs"
INDEX = (DOCS / "index.md").read_text(encoding="utf-8")
SECTIONS = [*re.findall(r"^:::\{toctree\}\n(.*?)^:::$", INDEX, re.MULTILINE | re.DOTALL)]
REFERENCE = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.rst"))


def test_every_public_name_is_in_the_reference() -> None:
    """Once."""
    named = Counter(re.findall(r"^\.\. auto\w+:: llmbridge\.(?:testing\.)?(\w+)(?:\(\))?$", REFERENCE, re.MULTILINE))
    public = {*llmbridge.__all__, *llmbridge.testing.__all__} - {"__version__"}
    assert public - set(named) == set()
    assert [name for name, count in named.items() if count > 1] == []


def test_every_page_is_in_one_section() -> None:
    """A page that nobody finds is not read; a new one is named in docs/index.md."""
    entries = [line for section in SECTIONS for line in section.splitlines() if line and not line.startswith(":")]
    patterns = [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]
    names = {page.relative_to(DOCS).with_suffix("").as_posix() for page in DOCS.rglob("*.md")} - {"index"}
    placed = {name: sum(fnmatch(name, pattern) for pattern in patterns) for name in names}
    assert {name for name, count in placed.items() if count != 1} == set()


def test_the_reference_shows_nothing_private() -> None:
    """Names with an underscore are not for users."""
    assert re.findall(r"^\.\. auto.*\b_\w+", REFERENCE, re.MULTILINE) == []
