"""A model's Markdown is shown by notebooks, and nothing in it is run or fetched."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmbridge.notebook.markdown import code, fenced, literal, text_of

LITERAL = {
    "# Title\n\n*a* **b** [c](https://example.com)": "# Title\n\n*a* **b** [c](https://example.com)",
    "costs $5 to \\$6": "costs <span>&#36;</span>5 to <span>&#36;</span>6",
    "a < b & c, AT&T": "a &lt; b & c, AT&amp;T",
    "&lt;b&gt;": "&amp;lt;b&amp;gt;",
    "`a < $b & c`": "`a < $b & c`",
    "`a < b": "`a &lt; b",
    r"\(x\) \\(y\\)": r"\\<i></i>(x\\<i></i>) \\<i></i>(y\\<i></i>)",
    r"\[z\] \begin{a}": r"\\<i></i>[z\\<i></i>] \\<i></i>begin{a}",
    "![a](https://example.com/a.png)": r"\![a](https://example.com/a.png)",
    "[a](javascript:x) [b](mailto:a@b)": "[a]&#40;javascript:x) [b](mailto:a@b)",
    "[a]: javascript:x\n[b]: https://b": "[a]&#58; javascript:x\n[b]: https://b",
    "```python\na < b": "```python\na < b\n```",
    "```\n`$x`\n```\n$": "```\n`$x`\n```\n<span>&#36;</span>",
    "~~~\n```\n~~~": "````\n```\n````",
    "- a\n\n  ```\n  <b>\n  ```": "- a\n\n  ```\n  <b>\n  ```",
    "- a\n\n  ```\n<b>": "- a\n\n  ```\n  <b>\n  ```",
    "a\n\n      ```\n<b>": "a\n\n      ```\n&lt;b>",
    "| `a` | `<b>` |\n|---|---|\n| `<b>` |": "| `a` | `<b>` |\n|---|---|\n| `<b>` |",
    "| ` | `<b>` |\n|---|---|": "| ` | `&lt;b>` |\n|---|---|",
    "/// details": "//&#47; details",
    "": "",
}
"""For Markdown of a model, what a frontend gets."""


@pytest.mark.parametrize("text", LITERAL)
def test_what_a_frontend_would_act_on_is_shown(text: str) -> None:
    """HTML, math, images and links to programs; code stays as it is where every parser agrees that it is code."""
    assert literal(text) == LITERAL[text]


PIECES = [
    "`", "``", "```", "````", "~~~", "\n", "\n\n", " ", "  ", "    ", "- ", "1. ", "> ", "|", "\\", "<img src=x>",
    "<script>", "$", "](javascript:x)", "[a]", "[a]: javascript:x", "[a](\njavascript:x)", "!", "# ", "---\n",
    "|-|-|\n", "text", "&lt;img src=x&gt;", "/// details\n    attrs: {onclick: x}\n", "\t", "`<img src=x>`", "```html",
    "*", "\r", "{: onclick=x}", "\u2028", "\x0b", "<!--", "<details>\n", "<javascript:x>",
]  # fmt: skip


class Found(HTMLParser):
    """What of a page would be run or fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.acted_on: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag of the page."""
        run = any(
            name.startswith("on") or (name == "href" and (value or "").startswith("javascript"))
            for name, value in attrs
        )
        if run or tag in ("img", "script", "details"):
            self.acted_on.append(f"{tag} {attrs}")


def _commonmark() -> Callable[[str], str]:
    render: Callable[[str], str] = pytest.importorskip("markdown_it").MarkdownIt("commonmark").render
    return render


def _with_tables() -> Callable[[str], str]:
    render: Callable[[str], str] = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False}).render
    return render


def _nbconvert() -> Callable[[str], str]:
    filters: Any = pytest.importorskip("nbconvert.filters.markdown_mistune")
    render: Callable[[str], str] = filters.markdown2html_mistune
    return render


@pytest.mark.parametrize("parser", [_commonmark, _with_tables, _nbconvert])
@pytest.mark.quick(1)
def test_no_parser_finds_anything_to_run(parser: Callable[[], Callable[[str], str]]) -> None:
    """Whatever is put together of what means something in Markdown: no tag, no handler, no link to a program."""
    render = parser()

    @given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
    def check(text: str) -> None:
        page = Found()
        page.feed(render(literal(text)))
        assert page.acted_on == []

    check()


@pytest.mark.parametrize("text", ["a", "```", "`", "a\n````\nb", "<b>"])
def test_a_block_of_code_holds_anything(text: str) -> None:
    """The fence is longer than any run of backticks inside."""
    page = _commonmark()(fenced(text))
    assert page.count("<code>") == 1
    assert page.endswith("</code></pre>\n")


def test_words_are_no_markdown() -> None:
    """A title of a source, a model's name, a message of an error."""
    assert text_of("[a](b) *c* <d> $e$") == ("\\[a\\](b) \\*c\\* &lt;d> <span>&#36;</span>e<span>&#36;</span>")
    assert code("a`b") == "`` a`b ``"
