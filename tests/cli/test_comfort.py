"""The extra `cli`: Markdown on a terminal, and completion by Tab."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scripts import DOCS, script
from test_chat_command import to
from test_command import needs_posix, one_line

from llmbridge.cli import main
from llmbridge.testing import LLMServer, Reply

MARKDOWN = (
    "# Title\n\nSome **bold** text and a <div>.\nA second line.\n\n- one\n\n  of two\n- two\n\n```py\n"
    + "".join(f"x{number} = {number}\n" for number in range(60))
    + "```\n\nSee [1].\n\n[1]: https://example.com\nend\x1b]52;c;ZXZpbA==\x07"
)


@pytest.fixture(autouse=True)
def _own_key(_no_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets a key, and a capable terminal."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-cli-secret")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")


Run = Callable[..., str]


@pytest.fixture
def shown() -> Run:
    """The command's output to a pseudo-terminal."""
    pty = pytest.importorskip("pty")

    def run(*words: str, code: int = 0) -> str:
        ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "llmbridge", *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs)
        os.close(theirs)
        pieces = []
        try:
            while piece := os.read(ours, 65536):
                pieces.append(piece)
        except OSError:
            pass  # Linux: the other end is closed
        finally:
            os.close(ours)
        assert process.wait(60) == code
        return b"".join(pieces).decode()

    return run


def final(shown: str) -> list[str]:
    """The lines that remain, without those that are overwritten."""
    lines = [""]
    row = 0
    for part in re.split(r"(\r|\n|\x1b\[\d*[A-Za-z]|\x1b\[\?\d+[hl])", shown):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part.startswith("\x1b[") and part.endswith("A"):
            row = max(row - int(part[2:-1] or 1), 0)
        elif part == "\x1b[2K":
            lines[row] = ""
        elif part and part != "\r" and not part.startswith("\x1b"):
            lines[row] = lines[row] + part
    return [line.rstrip() for line in lines]


SHELLS = {
    "bash": ["bash", "--norc", "--noprofile"],
    "zsh": ["zsh", "-f"],
    "fish": ["fish", "--no-config", "--init-command", "function fish_prompt; echo -n '$ '; end"],
}


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_in_a_shell(shell: str, tmp_path: Path) -> None:
    """After the line that docs/cli.md names, and nothing else."""
    pytest.importorskip("argcomplete")
    for program in ("tmux", shell):
        if not shutil.which(program):
            pytest.skip(f"needs {program}")
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    line = re.search(rf"^\| {shell} \| .* \| `(.*)` \|$", page, re.MULTILINE)
    assert line is not None
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {"HOME": str(tmp_path), "PATH": path, "PS1": "$ ", "TERM": "screen", "LANG": "C.UTF-8"}
    with script("terminals").Terminal(tmp_path, environment, SHELLS[shell]) as terminal:
        terminal.wait(lambda text: text.endswith("$ "))
        terminal.type(line[1].replace("\\", ""))
        terminal.press("Enter")
        terminal.wait(lambda text: re.search(r"completion.*\n(.*\n)*\$ $", text))
        for typed, completed in (("llmbridge conv", "conversations "), ("llmbridge -m anthr", "anthropic:")):
            terminal.type(typed)
            terminal.press("Tab")
            terminal.wait(lambda text, end=completed: text.endswith(f" {end}"))
            terminal.press("C-c")
            terminal.wait(lambda text: text.endswith("$ "))


@needs_posix
def test_markdown_is_rendered_and_nothing_of_it_is_lost(server: LLMServer, shown: Run) -> None:
    """Tags, line breaks, addresses and a block longer than the terminal stay; control characters are not obeyed."""
    pytest.importorskip("rich")
    server.default = Reply(re.findall(r"(?s).{1,40}", MARKDOWN), delay=0.02)
    output = shown("chat", *to(server), "Hi")
    lines = final(output)
    assert "\x1b]" not in output
    assert "**" not in "".join(lines)
    assert "```" not in "".join(lines)
    text = "\n".join(line.strip() for line in lines)
    assert "Some bold text and a <div>.\nA second line." in text
    assert "• one\nof two\n• two" in text
    assert "\n".join(f"x{number} = {number}" for number in range(60)) in text
    assert "[1]: https://example.com\nend␛]52;c;ZXZpbA==␇" in text


@needs_posix
def test_a_cut_answer_is_shown_as_far_as_it_came(server: LLMServer, shown: Run) -> None:
    """The error is on a line of its own."""
    server.default = Reply(["Half **an", "** ans"], end_mark=False, finish_reason=None)
    lines = [line for line in final(shown("chat", *to(server), "Hi", code=1)) if line]
    assert "Half" in lines[0]
    assert lines[1].startswith("llmbridge: ")


@needs_posix
@pytest.mark.parametrize("way", ["--plain", "TERM"])
@pytest.mark.quick(1)
def test_markdown_can_be_left_as_it_is(
    server: LLMServer, shown: Run, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an option, or on a terminal that cannot draw."""
    if way == "TERM":
        monkeypatch.setenv("TERM", "dumb")
    server.default = Reply("Some **bold** text")
    assert shown("chat", *to(server), "Hi", *([way] if way == "--plain" else [])) == "Some **bold** text\r\n"


def test_a_pipe_gets_markdown_as_it_is(server: LLMServer) -> None:
    """With or without rich."""
    server.default = Reply("Some **bold** text")
    run = subprocess.run(
        [sys.executable, "-m", "llmbridge", "chat", *to(server), "Hi"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    assert (run.stdout.split(), run.stderr) == ([b"Some", b"**bold**", b"text"], b"")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_what_it_needs(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The script names the command."""
    pytest.importorskip("argcomplete")
    assert main(["completion", shell]) == 0
    assert "llmbridge" in capsys.readouterr().out


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says what to install."""
    monkeypatch.setitem(sys.modules, "argcomplete.shell_integration", None)
    monkeypatch.setitem(sys.modules, "argcomplete", None)
    assert main(["completion", "bash"]) == 2
    assert "llmbridge[cli]" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("con", {"conversations"}),
        ("chat --sch", {"--schema"}),
        ("chat -m openai", {"openai:", "openai-compatible:", "openai-responses:"}),
        ("check ollama", {"ollama", "ollama-v1"}),
        ("chat --conversation wo", {"work"}),
        ("conversations show w", {"work"}),
        ("-m anthr", {"anthropic:"}),
        ("--sys", {"--system"}),
        ('"Hi there" --conversation w', {"work"}),
    ],
)
@pytest.mark.quick(2)
def test_tab_completes_commands_options_and_names(typed: str, offered: set[str], tmp_path: Path) -> None:
    """Completes words like a shell does."""
    pytest.importorskip("argcomplete")
    kept = tmp_path / "llmbridge" / "conversations"
    kept.mkdir(parents=True)
    (kept / "work.jsonl").write_text("", encoding="utf-8")
    line = f"llmbridge {typed}"
    asked = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": str(tmp_path / "answer"), "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9",
        "XDG_STATE_HOME": str(tmp_path), "APPDATA": str(tmp_path),
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-c", "from llmbridge.cli import main; main()"],
        env={**os.environ, **asked}, stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    found = {word.strip() for word in (tmp_path / "answer").read_text(encoding="utf-8").split("\n")}
    assert found - {""} == offered
