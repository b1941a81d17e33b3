"""The documentation site: `tox -e site` builds it from the pages of this folder and the docstrings of the package."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.ext import napoleon

import llmbridge

project = "llmbridge"
release = llmbridge.__version__
# "myst_nb" in place of "myst_parser", with nb_execution_mode = "off", renders notebooks too: those in docs/notebooks/.
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
exclude_patterns = ["_*"]
nitpicky = True
# The sections take whatever pages there are, for example of howto/*, also none.
logging.getLogger("sphinx.sphinx.directives.other").addFilter(lambda record: "glob pattern" not in str(record.msg))

# -- Markdown ---------------------------------------------------------------------------------------------------------

myst_enable_extensions = ["colon_fence"]  # a code host shows what it holds as text
myst_heading_anchors = 4  # links to headings are written as on a code host

_DOCS = Path(__file__).resolve().parent
_ELSEWHERE = {"changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md", "benchmarks": "benchmarks/README.md"}


def _read_page(app: Sphinx, name: str, source: list[str]) -> None:
    """Reads what a page shows from elsewhere; makes links between files those between pages, or downloads."""
    page = written = Path(app.env.doc2path(name)).resolve()
    if name in _ELSEWHERE:
        written = _DOCS.parent / _ELSEWHERE[name]
        source[0] = written.read_text(encoding="utf-8")
        app.env.note_dependency(str(written))
    pages = {_DOCS.parent / path: _DOCS / f"{shown}.md" for shown, path in _ELSEWHERE.items()}

    def link(match: re.Match[str]) -> str:
        target = (written.parent / match["path"]).resolve()
        target = target / "README.md" if target.is_dir() else target
        target = pages.get(target, target)
        if not target.is_file():
            return match[0]
        path = Path(os.path.relpath(target, page.parent)).as_posix()
        return f"]({path}{match['anchor']}" if target.is_relative_to(_DOCS) else f"](path:{path}"

    source[0] = re.sub(r"\]\((?P<path>[^)#:\s]+)(?P<anchor>[^)\s]*)", link, source[0])


# -- docstrings -------------------------------------------------------------------------------------------------------

autodoc_default_options = {"members": True}
autodoc_member_order = "bysource"
python_display_short_literal_types = True
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True
default_role = "name"
nitpick_ignore_regex = [
    # Their documentation is elsewhere, and the build uses no network.
    (r"py:.*", r"(collections\.abc|os|requests|ssl|threading|types)\..*"),
    # Type variables, and what no caller makes.
    (
        r"py:.*",
        r"(llmbridge\.[\w.]+\.)?(P|R|Given|Gives|Rest|Parsed|Value|TypeForm|_SpecialForm)",
    ),
    (r"py:.*", r"(llmbridge\.[\w.]+\.)?(AsyncResult|Framing|Reading|TransportOptions|View)"),
    (r"py:.*", r"llmbridge\.events\.(CitationInBytes|EndOfPart|MediaDelta|NextCall|Summary)"),
    (r"py:.*", r"Call|llmbridge\.testing\.(turn\.Call|turn\.Words|asked\.Tool)"),
]


def _name(
    name: str, rawtext: str, text: str, *_: Any, **__: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Text in single backticks: code, with a link where it is a public name of the package."""
    code, public = nodes.literal(rawtext, text), text.removesuffix("()")
    if public not in llmbridge.__all__:
        return [code], []
    link = {"refdomain": "py", "reftype": "obj", "reftarget": f"llmbridge.{public}", "refwarn": True}
    return [pending_xref(rawtext, code, refexplicit=True, **link)], []


_SECTIONS = napoleon.Config(
    napoleon_custom_sections=["Source", ("Raises, while iterating", "Raises")], napoleon_use_ivar=True
)


def _read_docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Reads the sections; those of a property as a method's, as napoleon takes words before a colon for a type."""
    kind = "method" if what == "property" else what
    lines[:] = napoleon.GoogleDocstring(lines, _SECTIONS, app, kind, name, obj, options).lines()


def _shorten(app: Sphinx, what: str, name: str, obj: Any, options: Any, arguments: str, result: str) -> Any:
    """Writes defaults that a dataclass makes as Python would accept them, and leaves private arguments out."""
    return arguments and re.sub(r", _\w+: \w+ = \w+", "", arguments).replace("<factory>", "..."), result


def _find(app: Sphinx, env: BuildEnvironment, node: pending_xref, code: nodes.TextElement) -> nodes.Node | None:
    """Finds a type that a signature names without its module, as the code does."""
    name, domain = node.get("reftarget", ""), env.domains.python_domain
    found = [
        full for full in domain.objects if full.startswith("llmbridge.") and name in (full, full.rpartition(".")[2])
    ]
    if node["refdomain"] != "py" or not found:
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, code)


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _read_page)
    app.add_role("name", _name)
    app.connect("autodoc-process-docstring", _read_docstring)
    app.connect("autodoc-process-signature", _shorten)
    app.connect("missing-reference", _find)


# -- HTML -------------------------------------------------------------------------------------------------------------

html_theme = "furo"
html_title = "llmbridge"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
