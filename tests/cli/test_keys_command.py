"""`llmbridge keys`: keys get into the file and out of it, but are never shown."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_command import one_line

from llmbridge.cli import main
from llmbridge.keys import keys_path, set_key, stored_key, stored_names
from llmbridge.secret import Secret

KEY = "sk-typed-0123456789abcdef"

# Makes the terminal the one that Ctrl-C comes from.
IN_TERMINAL = """
import fcntl, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGINT, signal.default_int_handler)
from llmbridge.cli import main
sys.exit(main())
"""


@pytest.fixture(autouse=True)
def path(_no_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The test's own keys file, which does not exist yet."""
    chosen = tmp_path / "keys.json"
    monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", str(chosen))
    return chosen


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Puts bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_a_key_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """If it is not a terminal; line end and byte order mark are dropped, and the key is not repeated."""
    piped(monkeypatch, b"\xef\xbb\xbf" + KEY.encode() + b"\r\n")
    assert main(["keys", "set", "openai"]) == 0
    assert stored_key("openai") == Secret(KEY)
    out, err = capsys.readouterr()
    assert out == ""
    assert keys_path() in one_line(err)
    assert KEY not in err


def test_a_key_is_saved_under_the_name_that_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Dialects of one account share a key; for a provider without keys the command is an error."""
    for name, kept in (("openai-responses", "openai"), ("vertex-anthropic", "vertex")):
        piped(monkeypatch, KEY.encode())
        assert main(["keys", "set", name]) == 0
        assert stored_names() == [kept]
        assert f"the key of {kept} is saved" in one_line(capsys.readouterr().err)
        assert main(["keys", "remove", name]) == 0
        capsys.readouterr()
    for name, hint in (("demo", "demo has no key of its own"), ("local", "save the server's, one of ollama-v1,")):
        assert main(["keys", "set", name]) == 2
        assert hint in one_line(capsys.readouterr().err)
    assert stored_names() == []


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals of POSIX")
@pytest.mark.parametrize(("typed", "code"), [(KEY + "\n", 0), ("\n", 2), ("\x04", 2), ("\x03", 130)])
def test_a_key_is_typed_without_an_echo(typed: str, code: int, tmp_path: Path) -> None:
    """A terminal prompts for the key; an empty line or Ctrl-D changes nothing, Ctrl-C ends the command."""
    import pty

    terminal, its_own = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, "keys", "set", "openai"],
        stdin=its_own, stdout=its_own, stderr=its_own, start_new_session=True,
    )  # fmt: skip
    os.close(its_own)
    shown = b""
    try:
        while b"not shown" not in shown:
            shown += os.read(terminal, 1000)
        os.write(terminal, typed.encode())
        while data := os.read(terminal, 1000):
            shown += data
    except OSError:  # Linux: the other end is closed
        pass
    finally:
        os.close(terminal)
    assert process.wait(30) == code
    assert KEY.encode() not in shown
    assert b"Traceback" not in shown
    assert stored_names() == (["openai"] if code == 0 else [])


@pytest.mark.parametrize(
    "words",
    [
        ["openai", KEY],
        ["openai", "--key", KEY],
        ["openai", f"--key={KEY}"],
        ["openai", "--", KEY],
        ["--key", KEY, "openai"],
        [f"--key={KEY}", "openai"],
        [KEY],
        [KEY, "openai"],
    ],
)
def test_a_key_on_the_command_line_is_refused_unquoted(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In any position: nothing is saved, and nothing repeats it."""
    piped(monkeypatch, b"sk-other-key")
    assert main(["keys", "set", *words]) == 2
    assert stored_names() == []
    assert KEY not in one_line(capsys.readouterr().err)


def test_a_key_on_the_command_line_may_be_known_to_others(capsys: pytest.CaptureFixture[str]) -> None:
    """The message says why, and what to do about the shell's history."""
    assert main(["keys", "set", "openai", KEY]) == 2
    err = one_line(capsys.readouterr().err)
    assert "other users" in err
    assert "history" in err


@pytest.mark.parametrize(
    "words", [["keys", KEY], ["keys", "remove", KEY], ["keys", "list", KEY], ["chat", "--key", KEY]]
)
def test_a_key_in_any_other_place_is_not_quoted(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Errors repeat nothing that may be a key."""
    assert main(words) == 2
    assert KEY not in one_line(capsys.readouterr().err)


def test_debug_may_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not a key."""
    piped(monkeypatch, KEY.encode())
    assert main(["keys", "set", "openai", "--debug"]) == 0
    assert stored_key("openai") == Secret(KEY)


@pytest.mark.parametrize(("typo", "meant"), [("opnai", "openai"), ("OpenAI", "openai"), ("vitalentun", "vitalentum")])
@pytest.mark.parametrize("action", ["set", "remove"])
def test_an_unknown_provider_is_refused_with_what_looks_like_it(
    action: str, typo: str, meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key under a wrong name would never be used."""
    piped(monkeypatch, KEY.encode())
    assert main(["keys", action, typo]) == 2
    assert meant in one_line(capsys.readouterr().err)
    assert stored_names() == []


@pytest.mark.parametrize(
    "given", [b"", b" \n", f"{KEY}\n{KEY}".encode(), f"{KEY}é".encode(), KEY.encode() + b"\xff", b"\0" * 9]
)
def test_input_that_is_not_a_key_changes_nothing(
    given: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Empty input, several lines, or characters that a key cannot have."""
    set_key("openai", "sk-before")
    piped(monkeypatch, given)
    assert main(["keys", "set", "openai"]) == 2
    assert KEY not in one_line(capsys.readouterr().err)
    assert stored_key("openai") == Secret("sk-before")


def test_a_closed_standard_input_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names standard input."""
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["keys", "set", "openai"]) == 2
    assert "standard input is closed" in one_line(capsys.readouterr().err)


def test_the_list_says_where_keys_come_from(
    path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The variable or the file, which of them wins, and no part of a key."""
    set_key("openai", KEY)
    set_key("gone", KEY)
    assert main(["keys", "list"]) == 0
    first = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    assert main(["keys", "list"]) == 0
    second = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert str(path) in first["openai"]
    assert "unknown provider" in first["gone"]
    assert "OPENAI_API_KEY" in second["openai"]
    assert "overrides the file" in second["openai"]
    shown = str([first, second])
    assert not any(part in shown for part in (KEY[-4:], KEY[:8], "sk-of"))


def test_the_list_as_json(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The same as JSON."""
    set_key("openai", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    assert main(["keys", "list", "--json"]) == 0
    found = {row.pop("provider"): row for row in json.loads(capsys.readouterr().out)}
    assert found["openai"] == {"variable": "OPENAI_API_KEY", "file": str(path), "known": True}


def test_an_empty_list_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays empty; a hint goes to standard error, with exit code 0."""
    assert main(["keys", "list"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "llmbridge keys set" in one_line(err)


def test_a_key_is_removed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A key left in the environment is mentioned; removing twice is an error."""
    set_key("openai", KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    assert main(["keys", "remove", "openai"]) == 0
    assert "OPENAI_API_KEY" in capsys.readouterr().err
    assert stored_names() == []
    assert main(["keys", "remove", "openai"]) == 2
    assert "no key of openai" in one_line(capsys.readouterr().err)


def test_the_key_of_a_provider_that_is_gone_is_removed() -> None:
    """Its package may have been uninstalled."""
    set_key("gone", KEY)
    assert main(["keys", "remove", "gone"]) == 0
    assert stored_names() == []


def test_the_path_is_printed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The path is printed, even if the file does not exist."""
    assert main(["keys", "path"]) == 0
    assert capsys.readouterr() == (f"{path}\n", "")


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("words", [["list"], ["set", "openai"], ["remove", "openai"]])
def test_a_file_that_others_can_read_is_an_error(
    words: list[str], path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message names the command to fix it, before a key is typed."""
    set_key("openai", KEY)
    path.chmod(0o644)
    piped(monkeypatch, b"sk-new-key")
    assert main(["keys", *words]) == 2
    assert f"chmod 600 {path}" in one_line(capsys.readouterr().err)
    assert sys.stdin.buffer.read() == b"sk-new-key"


def test_a_file_that_cannot_be_used_stops_no_list(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The models are listed all the same, and the problem is reported."""
    path.write_text("no JSON")
    path.chmod(0o600)
    assert main(["models"]) == 0
    out, err = capsys.readouterr()
    assert "demo" in out
    assert "JSON object" in one_line(err)


def test_a_saved_key_makes_a_provider_ready(capsys: pytest.CaptureFixture[str]) -> None:
    """Like a key in the environment."""
    set_key("openai", KEY)
    assert main(["models"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("openai:"))
    assert line.endswith("ready")


@pytest.mark.parametrize("words", [[], ["set"], ["remove"], ["nonsense"], ["list", "openai"], ["path", "x"]])
def test_a_wrong_command_is_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line, which refers to the help."""
    assert main(["keys", *words]) == 2
    assert "--help" in one_line(capsys.readouterr().err)


def test_the_help_says_that_no_key_is_shown() -> None:
    """And that there is no argument for one."""
    run = [sys.executable, "-m", "llmbridge", "keys", "set", "--help"]
    shown = subprocess.run(run, capture_output=True, text=True, timeout=300).stdout
    assert "unwanted" not in shown
    assert "PROVIDER" in shown
