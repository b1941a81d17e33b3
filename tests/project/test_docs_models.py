"""The models that README.md and docs/ name: current ones, which take every parameter of the examples beside them.

README.md says "change one word". So every chat with the demo is also encoded, and not sent, for each model that
README.md or its own page names; an example that cannot run here is encoded for the model that it names.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from test_docs import BLOCKS, PAGES, ROOT, Block, _environment

from llmbridge import Client, providers

RUNNER = Path(__file__).with_name("change_one_word.py")
README = ROOT / "README.md"

# What a request needs to be encoded for a service whose address has an account in it.
ACCOUNTS = {
    "AZURE_OPENAI_ENDPOINT": "https://example.openai.azure.com",
    "DATABRICKS_HOST": "https://example.cloud.databricks.com",
    "SNOWFLAKE_ACCOUNT": "org-account",
    "GOOGLE_CLOUD_PROJECT": "project",
}

# Models that their services have shut down, or have said when. gpt-3.5-turbo is one of them too, but also what the dead
# services of docs/ancestors.md called their only model.
# Source: the services' pages of deprecations in November 2026.
RETIRED = re.compile(
    r"""(?<![\w.-])(
        gpt-4 | gpt-4-[\w.-]+ | gpt-4o[\w.-]* | gpt-4\.1[\w.-]* | gpt-5\.1
        | gpt-5(-mini|-nano|-pro|-codex|-chat-latest)? | o[134]-(mini|pro)
        | claude-[123][\w.-]* | claude-(sonnet|opus)-4(-[015])?([-@]20\d{6})?
        | gemini-1[\w.-]* | gemini-2\.0[\w.-]* | gemini-2\.5-(flash|pro) | command-(light|r|r-plus)
    )(?![\w.-])""",
    re.VERBOSE,
)

# Modules, lines of a longer example, and what other packages' users write.
NO_SCRIPT = re.compile(r"# (\w+\.py\b|from examples/|(openai|litellm|llm|g4f) \d)")

# They say what older models refuse, and name them for that.
RULES = (
    "docs/parameters.md",
    "providers/openai/rules.py",
    "providers/anthropic/thinking.py",
    "providers/gemini/request.py",
)


def named_models(text: str) -> list[str]:
    """Every provider:model in a text, where the provider is one of llmbridge and the model no placeholder."""
    known = "|".join(sorted(map(re.escape, providers.known()), key=len, reverse=True))
    found = re.findall(rf"(?<![\w:/.-])((?:{known}):[a-z0-9][\w.@/:-]*[\w@])", text)
    return sorted(set(found) - {"demo"})


def examples(page: Path) -> list[dict[str, Any]]:
    """The page's blocks of Python that are scripts or cells of a notebook."""
    return [
        {"place": str(block), "code": block.code, "runs": not block.first_line.startswith(("# not run", "# needs"))}
        for block in BLOCKS
        if block.page == page and block.kind == "python" and not NO_SCRIPT.match(block.first_line)
    ]


def checked(models: list[str], blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """What the models refuse of the blocks."""
    with tempfile.TemporaryDirectory() as folder:  # for the files that examples write
        run = subprocess.run(
            [sys.executable, str(RUNNER)],
            input=json.dumps({"models": models, "blocks": blocks}),
            env={**_environment(), **ACCOUNTS},
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
    assert run.returncode == 0, run.stderr
    result: dict[str, Any] = json.loads(run.stdout)
    return result


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_examples_of_a_page_hold_for_the_models_that_it_names(page: Path) -> None:
    """None is refused by a model that README.md or the page names."""
    blocks = examples(page)
    if not blocks:
        pytest.skip("it has no example")
    models = named_models(README.read_text(encoding="utf-8") + page.read_text(encoding="utf-8"))
    result = checked(models, blocks)
    assert result["refused"] == []
    if any(re.search(r'(chat|conversation|Client)\([^[\n]*"demo"', block["code"]) for block in blocks):
        assert result["encoded"] > 0
    if page.parent.name == "providers" and any(not block["runs"] for block in blocks):
        assert result["skipped"] == []


def test_an_option_that_a_named_model_refuses_is_found() -> None:
    """README.md once had this temperature beside this model."""
    code = 'from llmbridge import chat\n\nprint(chat("Hi", model="demo", temperature=0.2).complete())\n'
    result = checked(["openai:gpt-5-mini", "ollama:llama3.2"], [{"place": "README.md:1", "code": code, "runs": True}])
    (refused,) = result["refused"]
    assert re.match(r"README.md:1: openai:gpt-5-mini: InvalidRequest: .*temperature", refused)


def test_an_example_that_cannot_run_here_is_checked_as_well() -> None:
    """With the model that it names."""
    code = 'from llmbridge import chat\n\nprint(chat("Hi", model="anthropic:claude-sonnet-5", top_k=3).complete())\n'
    result = checked([], [{"place": "page", "code": code, "runs": False}])
    assert len(result["refused"]) == 1
    assert result["encoded"] == 0


def commands() -> list[tuple[Block, list[str]]]:
    """The words of each call of `llmbridge` with an option -o in a block of shell."""
    found = []
    for block in BLOCKS:
        for line in block.code.splitlines() if block.kind == "sh" else ():
            words = shlex.split(line.partition("llmbridge ")[2], comments=True)
            if "-o" in words:
                found.append((block, words))
    return found


@pytest.mark.parametrize(("block", "words"), commands(), ids=str)
def test_the_options_of_a_command_hold_for_the_models(block: Block, words: list[str]) -> None:
    """-o NAME VALUE is taken by the model of -m, or by those that README.md names."""
    pairs = {words[at + 1]: words[at + 2] for at, word in enumerate(words) if word == "-o"}
    options = {name: json.loads(value) if re.match(r"[\d.{\[-]", value) else value for name, value in pairs.items()}
    named = [words[words.index("-m") + 1]] if "-m" in words else named_models(README.read_text(encoding="utf-8"))
    for model in named:
        Client(model, api_key="example-key").chat("Hi", **options)


def used(text: str, is_code: bool) -> set[str]:
    """The retired models that a text uses: anywhere in code, and behind a provider's name in prose."""
    behind = rf"(?:{'|'.join(map(re.escape, providers.known()))}):(?:[\w-]+/)?"
    return {
        match[1]
        for match in RETIRED.finditer(text)
        if is_code or re.search(behind + r"$", text[max(0, match.start() - 60) : match.start()])
    }


def test_a_retired_model_is_found() -> None:
    """In code, and behind a provider's name; one that is only spoken of is not."""
    assert used('model="claude-sonnet-4-5"', True) == {"claude-sonnet-4-5"}
    assert used("`openai:gpt-5-mini` or `openrouter:openai/gpt-5`", False) == {"gpt-5-mini", "gpt-5"}
    assert used("gpt-5-mini refuses it", False) == set()
    assert not used("gpt-5.4-mini claude-sonnet-5 gemini-3.5-flash gpt-5.1-mini", True)


@pytest.mark.parametrize(
    "page",
    # llm-terminals.md shows the list of models of another program.
    [page for page in PAGES if not page.as_posix().endswith((*RULES, "llm-terminals.md"))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_a_page_names_current_models(page: Path) -> None:
    """A reader who copies an example gets an answer."""
    text = page.read_text(encoding="utf-8")
    code = "".join(block.code for block in BLOCKS if block.page == page and block.kind)
    assert used(text, False) | used(code, True) == set()


def test_the_package_names_current_models() -> None:
    """In its defaults, messages and docstrings."""
    found = {
        str(path.relative_to(ROOT)): names
        for path in sorted((ROOT / "llmbridge").rglob("*.py"))
        if not path.as_posix().endswith(RULES) and (names := used(path.read_text(encoding="utf-8"), True))
    }
    assert found == {}
