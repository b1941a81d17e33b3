"""docs/architecture.md is true: the modules that a call enters are those of the drawing, and imports go one way."""

from __future__ import annotations

import ast
import asyncio
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import llmbridge
from llmbridge import Client, chat
from llmbridge._transport.connections import RETURNS_ANY
from llmbridge.testing import LLMServer, Reply

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "llmbridge").rglob("*.py")
}

BY_NAME = {f"llmbridge.{name}": f"llmbridge.{module}" for name, module in llmbridge._MODULE_OF.items()}
"""The module behind `from llmbridge import NAME`."""


def module_of(path: str) -> str:
    """`_call/plan.py` as a module's name, without the package's."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def drawn(heading: str) -> list[str]:
    """The modules in the drawing under a heading of the page."""
    block = PAGE.partition(f"\n## {heading}\n")[2].partition("\n```\n")[2].partition("\n```")[0]
    return [module_of(path) for path in re.findall(r"[\w/]+\.py\b", block)]


CALL, ASYNC, TOOLS = (
    drawn(heading) for heading in ("One streaming call", "The same call, awaited", "The same call, with tools")
)


@contextmanager
def entered() -> Iterator[list[str]]:
    """The modules of llmbridge whose functions run meanwhile, in any thread, in the order of their first call."""
    found: list[str] = []

    def note(frame: FrameType, event: str, _: Any) -> None:
        name = str(frame.f_globals.get("__name__", ""))
        inside = name.startswith("llmbridge.") and not name.startswith("llmbridge.testing")
        if event == "call" and inside and frame.f_code.co_name != "<module>":
            module = name.removeprefix("llmbridge.")
            if module not in found:
                found.append(module)

    before = sys.getprofile()
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield found
    finally:
        sys.setprofile(before)
        threading.setprofile(before)


def whole_answer(client: Client) -> None:
    """A script's loop."""
    assert "".join(client.chat("Hi")) == "Hello"


def awaited_answer(client: Client) -> None:
    """An app's `await`."""

    async def main() -> str:
        return (await client.chat("Hi")).text

    assert asyncio.run(main()) == "Hello"


def tool_call(client: Client) -> None:
    """An answer on the way to which the model calls a function."""

    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    assert client.run("1 + 2?", tools=[add]).complete().text == "Hello"


ASKS = Reply("", tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}])


@pytest.mark.parametrize(
    ("use", "replies", "drawing"),
    [
        (whole_answer, [Reply(["Hel", "lo"])], [CALL]),
        (awaited_answer, [Reply(["Hel", "lo"])], [CALL, ASYNC]),
        (tool_call, [ASKS, Reply(["Hel", "lo"])], [CALL, TOOLS]),
    ],
)
def test_a_call_enters_the_modules_that_are_drawn(
    server: LLMServer, client: Client, use: Callable[[Client], None], replies: list[Reply], drawing: list[list[str]]
) -> None:
    """A call enters only the drawn modules, and all that its drawing adds, in the order of the main drawing."""
    server.script(*replies, *replies)
    use(client)  # one-time work of a process, like imports, is not drawn
    with entered() as modules:
        use(client)
    known = {module for part in drawing for module in part}
    assert set(modules) - known == set(), "the drawing in docs/architecture.md lacks these"
    needed = [module for module in drawing[-1] if RETURNS_ANY or module != "_transport.later"]
    assert {*needed} - {*modules} == set(), "the drawing in docs/architecture.md has these needlessly"
    if drawing == [CALL]:
        assert [module for module in modules if module in CALL] == needed


def test_the_functions_of_the_package_enter_by_the_same_door(server: LLMServer) -> None:
    """`chat()` is a method of a client: no module comes before it."""
    server.default = Reply("Hello")
    asked = {"api_key": "k-0123456789", "base_url": server.base_url("openai"), "proxy": False}
    chat("Hi", "openai:m", **asked).complete()
    with entered() as modules:
        assert "".join(chat("Hi", "openai:m", **asked)) == "Hello"
    assert set(modules) <= set(CALL)


def imports_of(module: str) -> set[str]:
    """The modules of llmbridge that a module imports, inside functions too, but not for type checkers only."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for child in node.orelse:
                visit(child)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                found.add(name if name in SOURCES else BY_NAME.get(name, node.module))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(SOURCES[module].read_text(encoding="utf-8")))
    return {name for name in found if name in SOURCES} - {module, "llmbridge"}


@cache
def graph() -> dict[str, set[str]]:
    """What each module imports."""
    return {module: imports_of(module) for module in SOURCES}


def circles() -> list[list[str]]:
    """The groups of modules that import each other."""
    reached: dict[str, set[str]] = {}
    for module in graph():
        seen: set[str] = set()
        ahead = [module]
        while ahead:
            new = graph()[ahead.pop()] - seen
            seen |= new
            ahead += new
        reached[module] = seen
    return sorted({tuple(sorted(o for o in seen if module in reached[o])) for module, seen in reached.items()} - {()})


def test_no_two_modules_import_each_other() -> None:
    """Imports inside functions count as well."""
    assert circles() == []


ROWS = re.findall(r"^\| (.+?) \|", PAGE.partition("\n## Rooms\n")[2].partition("\n## ")[0], re.MULTILINE)
ORDER = [name.replace("/", ".").removesuffix(".") for row in ROWS[1:] for name in re.findall(r"`([\w/]+)`", row)]


def place_of(module: str) -> int:
    """Where the page lists a module or its folder."""
    name = module.removeprefix("llmbridge.")
    while name not in ORDER:
        assert "." in name, f"docs/architecture.md does not list {module}"
        name = name.rpartition(".")[0]
    return ORDER.index(name)


def test_imports_go_the_way_that_the_page_prints() -> None:
    """A module imports only modules of its own folder, and those listed before it."""
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        if module != "llmbridge" and "." in module and not module.endswith(("._call", "._tools", "._service_errors"))
        for other in others
        if place_of(other) > place_of(module)
    ]
    assert wrong == []


def test_the_page_lists_no_module_that_is_gone() -> None:
    """Each name in the list is a module or a folder of the package."""
    assert [name for name in ORDER if f"llmbridge.{name}" not in SOURCES] == []
    assert len(ORDER) == len(set(ORDER)) > 40


def test_few_private_modules_lie_at_the_top() -> None:
    """A newcomer sees the public modules, and at most seven more files."""
    private = [name for name in SOURCES if re.fullmatch(r"llmbridge\._[a-z]\w*", name) and "__" not in name]
    files = [name for name in private if SOURCES[name].name != "__init__.py"]
    assert len(files) <= 7, files
