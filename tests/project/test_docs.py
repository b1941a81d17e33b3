"""Every Python example in README.md and docs/ runs unchanged: without a key, a network or a warning.

The first line of a block may say what it is:

- `# notebook cell`: a notebook cell, with top-level `await`;
- `# NAME.py`: a module of that name, which later examples of the page import;
- `# test_NAME.py`: a test module, run by pytest;
- `# test_NAME.py, needs PACKAGE`: the same, where that package is installed;
- `# needs PACKAGE`: a script for workers of that package, which tests/engines runs;
- `# from examples/NAME.py`: lines of an example, which tests/project/test_examples.py runs; `# ...` is a gap;
- `# PACKAGE VERSION`: code for another package; runs where that package is installed (`tox -e examples`);
- `# not run: REASON`: only shown; the test is skipped with the reason.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)

EXCERPT = re.compile(r"# from (examples/\w+\.py)$")
ENGINE = re.compile(r"# needs (\w+)$")
FOREIGN = re.compile(r"# (openai|litellm|llm|g4f) \d")

# Like a notebook, which compiles a cell with top-level await into a coroutine for its running loop.
AT_ONCE = "import runpy, sys; from llmbridge.testing import demo; demo._PACE = 0.0; "  # nobody watches the words come
CELL = """
import ast, asyncio, inspect, pathlib, sys
path = pathlib.Path(sys.argv[1])
code = compile(path.read_text(encoding="utf-8"), path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
async def run():
    await eval(code, {"__name__": "__main__"})
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(run())
else:
    exec(code, {"__name__": "__main__"})
"""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    kind: str
    code: str

    @property
    def first_line(self) -> str:
        """The line that may say what the block is."""
        return self.code.partition("\n")[0]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def _blocks() -> list[Block]:
    blocks = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            blocks.append(Block(page, line, match["kind"].strip(), match["code"]))
    return blocks


BLOCKS = _blocks()


def _environment() -> dict[str, str]:
    """The developer's environment without keys, models, proxies and pytest options."""
    unwanted = re.compile(
        r"LLMBRIDGE_.*|.*_(API_KEY|TOKEN|BASE_URL|ENDPOINT)|OLLAMA_.*|OPENAI_.*|.*_PROXY|PYTEST_.*|PYTHON[A-Z]+",
        re.IGNORECASE,
    )
    kept = {name: value for name, value in os.environ.items() if not unwanted.fullmatch(name)}
    return {**kept, "PYTHONIOENCODING": "utf-8", "LLMBRIDGE_KEYS_FILE": os.devnull}


def _module(block: Block) -> str | None:
    """The module name that the block gives."""
    name = re.match(r"# (\w+\.py)(, needs \w+)?$", block.first_line)
    return name[1] if name else None


def _command(block: Block, path: Path) -> list[str]:
    if block.first_line == "# notebook cell":
        return ["-W", "error", "-c", AT_ONCE + CELL, str(path)]
    if path.name.startswith("test_"):
        return ["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly", str(path)]
    return ["-W", "error", "-c", f"{AT_ONCE}runpy.run_path(sys.argv[1], run_name='__main__')", str(path)]


PYTHON = [block for block in BLOCKS if block.kind == "python"]
EXCERPTS = [block for block in PYTHON if EXCERPT.match(block.first_line)]
THEIRS = [block for block in PYTHON if FOREIGN.match(block.first_line)]
ENGINES = [block for block in PYTHON if ENGINE.match(block.first_line)]
OURS = [block for block in PYTHON if block not in (*EXCERPTS, *THEIRS, *ENGINES)]


@pytest.mark.slow
@pytest.mark.parametrize("block", OURS, ids=str)
def test_the_example_runs(block: Block, tmp_path: Path) -> None:
    """The block runs in its own process, ends within seconds, prints something, and warns of nothing."""
    if reason := re.match(r"# not run: (.+)", block.first_line):
        pytest.skip(reason[1])
    if needed := re.search(r"\.py, needs (\w+)$", block.first_line):
        pytest.importorskip(needed[1], reason=f"needs {needed[1]}")
    for other in BLOCKS:
        if other.page == block.page and (module := _module(other)) and not module.startswith("test_"):
            (tmp_path / module).write_text(other.code, encoding="utf-8")
    path = tmp_path / (_module(block) or "example.py")
    path.write_text(block.code, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    run = subprocess.run(
        [sys.executable, *_command(block, path)],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, f"{block}\n{run.stdout}\n{run.stderr}"
    assert run.stderr == ""
    assert run.stdout.strip() or _module(block), f"{block} shows nothing"


def test_a_package_announces_a_provider_as_documented(tmp_path: Path) -> None:
    """What docs/new-provider.md shows, installed, are providers that `llmbridge providers` lists."""
    page = [block for block in BLOCKS if block.page.name == "new-provider.md"]
    (entry,) = (block for block in page if block.kind == "toml")
    told = configparser.ConfigParser()
    told.read_string(entry.code)
    found = {name: value.strip('"') for name, value in told['project.entry-points."llmbridge.providers"'].items()}
    metadata = tmp_path / "harbour-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: harbour\nVersion: 1.0\n", encoding="utf-8")
    lines = "\n".join(f"{name} = {value}" for name, value in found.items())
    (metadata / "entry_points.txt").write_text(f"[llmbridge.providers]\n{lines}\n", encoding="utf-8")
    for block in page:
        if (module := _module(block)) in {f"{name}.py" for name in found}:
            (tmp_path / module).write_text(block.code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "llmbridge", "providers"],
        env={**_environment(), "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.stderr == ""
    listed = [line.split()[:3] for line in run.stdout.splitlines()]
    assert len(found) == 2
    for name in found:
        assert [name, "needs", f"{name.upper()}_API_KEY"] in listed


def test_every_block_says_what_it_is() -> None:
    """No example is skipped because of an unknown language."""
    assert {block.kind for block in BLOCKS} <= {"python", "sh", "ini", "toml", "text", ""}
    assert sum(block.kind == "python" for block in BLOCKS) >= 10


def test_the_set_up_commands_are_those_of_the_check() -> None:
    """README.md has exactly two set-up commands, and .ci/run runs the same ones."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    set_up = readme.partition("\n## Set up\n")[2].partition("\n## ")[0]
    told = [match["code"].strip() for match in FENCE.finditer(set_up) if match["kind"] == "sh"]
    run = re.findall(r"^run '(python3 -m venv .*)'$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(told) == 2
    assert told == run


@pytest.mark.parametrize("block", EXCERPTS, ids=str)
def test_an_excerpt_is_what_the_example_has(block: Block) -> None:
    """What a page shows of an example is in it, line for line and in this order."""
    found = EXCERPT.match(block.first_line)
    assert found is not None
    rest = (ROOT / found[1]).read_text(encoding="utf-8")
    for part in block.code.partition("\n")[2].split("# ...\n"):
        assert part.strip("\n") in rest, part
        rest = rest.partition(part.strip("\n"))[2]


@pytest.mark.slow
@pytest.mark.parametrize("block", THEIRS, ids=str)
def test_the_code_for_another_package_runs(block: Block, tmp_path: Path) -> None:
    """It does what the page says, with its own client and a server that stands for the service."""
    package = block.first_line.split()[1]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    from llmbridge.testing.demo import demo_server

    address = demo_server().base_url("openai")
    settings = {"OPENAI_API_KEY": "sk-example", "OPENAI_BASE_URL": address, "OPENAI_API_BASE": address}
    home = {"HOME": str(tmp_path), "LLM_USER_PATH": str(tmp_path), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    path = tmp_path / "example.py"
    path.write_text(block.code, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env={**_environment(), **settings, **home},
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, f"{block}\n{run.stdout}\n{run.stderr}"
    assert run.stdout.strip(), f"{block} shows nothing"
