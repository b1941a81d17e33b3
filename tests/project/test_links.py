"""Links of the pages, without a network: those within the repository are followed, others checked for their form."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "examples", "benchmarks")
PAGES = [*sorted(ROOT.glob("*.md")), *(page for name in FOLDERS for page in sorted((ROOT / name).rglob("*.md")))]
FENCE = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)`*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?P<ticks>`+).+?(?P=ticks)", re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(
    r"""\]\(\s*<?([^)\s>]+) | ^\s*\[[^\]]+\]:\s*<?([^\s>]+) | \b(?:href|src)="([^"]+)" | <(https?:[^>]+)>""",
    re.MULTILINE | re.VERBOSE,
)
HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
NAMED = re.compile(r"`((?:docs|examples|benchmarks|tests|llmbridge)/[\w./-]*\.\w+)`")


def prose(page: Path) -> str:
    """The page without its code, in which brackets mean something else."""
    return CODE.sub("``", FENCE.sub("", COMMENT.sub("", page.read_text(encoding="utf-8"))))


def links(page: Path) -> list[str]:
    """What a page links to."""
    return [next(filter(None, found)) for found in LINK.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """The anchors of the page's headings, as code hosts generate them."""
    counted: Counter[str] = Counter()
    found = set()
    for heading in HEADING.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.add(f"{slug}-{counted[slug]}" if counted[slug] else slug)
        counted[slug] += 1
    return found


def problem(page: Path, link: str) -> str:
    """What is wrong with a link; "" if nothing is."""
    parts = urlsplit(link)
    if parts.scheme in ("http", "https"):
        return "" if re.fullmatch(r"[\w.-]+\.[a-z]+|127\.0\.0\.1(:\d+)?", parts.netloc) else "this is not a URL"
    if parts.scheme:
        return "" if parts.scheme == "mailto" else f"what is {parts.scheme}:?"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_relative_to(ROOT):
        return "it leads out of the repository"
    name = target.relative_to(ROOT).as_posix()
    if not target.exists():
        return f"there is no {name}"
    if parts.fragment and target.suffix == ".md" and parts.fragment not in anchors(target):
        return f"{name} has no heading #{parts.fragment}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    """To a file of the repository, to a heading that is there, or to something that looks like a URL."""
    assert {link: said for link in links(page) if (said := problem(page, link))} == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_file_that_is_named_is_there(page: Path) -> None:
    """Each file that a page names exists. The changelog is exempt: files may have moved since."""
    if page.name != "CHANGELOG.md":
        text = FENCE.sub("", page.read_text(encoding="utf-8"))
        assert [name for name in NAMED.findall(text) if not (ROOT / name).exists()] == []


BROKEN = {
    "docs/none.md": "there is no docs/none.md",
    "docs/index.md#none": "docs/index.md has no heading #none",
    "#none": "README.md has no heading #none",
    "../elsewhere.md": "it leads out of the repository",
    "https://example": "this is not a URL",
    "htps://example.org": "what is htps:?",
    "#llmbridge": "",
    "docs/index.md": "",
    "https://example.org/a#b": "",
}


@pytest.mark.parametrize("link", BROKEN)
def test_a_broken_link_is_seen(link: str) -> None:
    """And one that leads somewhere is not taken for broken."""
    assert problem(ROOT / "README.md", link) == BROKEN[link]


def test_links_are_found(tmp_path: Path) -> None:
    """In each form that Markdown has for them, and not in code."""
    page = tmp_path / "page.md"
    page.write_text(
        '[a](one.md) `[b](none.md)` ![c](two.svg "C")\n\n```\n[d](none.md)\n```\n[e]: three.md\n<a href="four.md">\n',
        encoding="utf-8",
    )
    assert links(page) == ["one.md", "two.svg", "three.md", "four.md"]
    page.write_text("# One, `two`: [three](x)\n## One, two three\n```\n# Four\n```\n## Fünf_6!", encoding="utf-8")
    assert anchors(page) == {"one-two-three", "one-two-three-1", "fünf_6"}
