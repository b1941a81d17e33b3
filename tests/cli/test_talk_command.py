"""`llmbridge chat` as a conversation on a terminal, and saved conversations."""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from test_chat_command import PNG, to
from test_command import _RUN, needs_posix, one_line

from llmbridge.cli import main
from llmbridge.testing import LLMServer, Received, Reply

Type = Callable[..., int]


@pytest.fixture(autouse=True)
def folder(_no_settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Sets a key, and saves conversations here."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-cli-secret")
    monkeypatch.setenv("APPDATA" if os.name == "nt" else "XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("LLMBRIDGE_KEEP")
    return tmp_path / "llmbridge" / "conversations"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, server: LLMServer) -> Type:
    """Runs `llmbridge chat` on a terminal where these lines are typed, then Ctrl-D."""
    server.default = echo

    def run(*words: str, lines: Iterable[str] = (), options: tuple[str, ...] = ()) -> int:
        for stream in (sys.stdin, sys.stdout):
            monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
        waiting = iter(lines or words)

        def next_line(prompt: str = "") -> str:
            for line in waiting:
                return line
            raise EOFError

        monkeypatch.setattr("builtins.input", next_line)
        return main(["chat", *to(server), *options])

    return run


def echo(received: Received) -> Reply:
    """Repeats the question, with the number of messages."""
    messages = received.json["messages"]
    content = messages[-1]["content"]
    asked = content if isinstance(content, str) else content[0]["text"]
    return Reply("no", status=400) if asked == "fail" else Reply(f"{len(messages)}: {asked}")


def sent(server: LLMServer) -> list[tuple[str, Any]]:
    """The messages of the last request."""
    return [(message["role"], message["content"]) for message in server.requests[-1].json["messages"]]


def only_file(folder: Path) -> Path:
    """The only saved conversation."""
    (path,) = folder.glob("*.jsonl")
    return path


# -- talking ----------------------------------------------------------------------------------------------------------


def test_questions_go_with_all_that_was_said(
    typed: Type, server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The conversation ends with Ctrl-D and code 0; only answers go to standard output."""
    assert typed("one", "", "  ", "two") == 0
    assert sent(server) == [("user", "one"), ("assistant", "1: one"), ("user", "two")]
    out, err = capsys.readouterr()
    assert out.split("\n")[:2] == ["1: one", "3: two"]
    assert "chatting with openai:m" in one_line(err)


@pytest.mark.parametrize("lines", [('"""one', "two", 'three"""'), ('"""', "one", "two", "three", '"""')])
def test_a_question_of_several_lines(typed: Type, server: LLMServer, lines: tuple[str, ...]) -> None:
    """Three quotes start and end it."""
    assert typed(*lines) == 0
    assert sent(server)[-1] == ("user", "one\ntwo\nthree")


def test_a_failure_ends_neither_the_conversation_nor_stays_in_it(
    typed: Type, server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next question replaces the one that failed."""
    assert typed("one", "fail", "two") == 0
    assert [content for _, content in sent(server)] == ["one", "1: one", "two"]
    assert "answered 400" in capsys.readouterr().err


def test_the_last_question_is_retried_or_removed(
    typed: Type, server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """/retry and /undo."""
    assert typed("one", "two", "/retry", "/undo", "three", "/undo", "/undo", "/undo", "/retry", "/quit", "never") == 0
    questions = [request.json["messages"][-1]["content"] for request in server.requests]
    assert questions == ["one", "two", "two", "three"]
    assert [content for _, content in sent(server)] == ["one", "1: one", "three"]
    err = capsys.readouterr().err
    assert "removed: three" in err
    assert "no question to remove" in err
    assert "no question to ask again" in err


def test_model_and_system_message_change(typed: Type, server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """/model and /system apply to the questions that follow."""
    assert typed("one", "/model openai:other", "/system Be brief.", "/model", "/system", "two") == 0
    assert server.requests[-1].json["model"] == "other"
    assert sent(server)[0] == ("system", "Be brief.")
    assert len(sent(server)) == 4
    err = capsys.readouterr().err
    assert "the model is openai:other" in err
    assert "the system message is: Be brief." in err


def test_files_are_attached_to_the_next_question(
    typed: Type, server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """/attach applies to the next question only, also with a name in quotes."""
    (tmp_path / "my cat.png").write_bytes(PNG)
    lines = ["/attach nothing.png", "/attach", f"/attach '{tmp_path / 'my cat.png'}'", "what?", "and now?"]
    assert typed(*lines) == 0
    first, _, second = [content for _, content in sent(server)]
    assert [part["type"] for part in first] == ["text", "image_url"]
    assert second == "and now?"


def test_conversations_are_saved_and_loaded(
    typed: Type, server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """/save and /load use the format of `Conversation.save`."""
    from llmbridge import Client, Conversation

    path = tmp_path / "talk.jsonl"
    assert typed("one", f"/save {path}") == 0
    with Client("demo") as client:
        assert len(Conversation.load(path, client).messages) == 2
    assert typed("/load nothing", f"/load {path}", "two") == 0
    assert [content for _, content in sent(server)] == ["one", "1: one", "two"]
    assert "1 questions loaded" in capsys.readouterr().err


def test_tokens_are_counted_and_commands_explained(typed: Type, capsys: pytest.CaptureFixture[str]) -> None:
    """/usage and /help work; a misspelled command is not sent, but a path is a question."""
    assert typed("/usage", "one", "/usage", "/help", "/usagge", "/etc/passwd is what?") == 0
    out, err = capsys.readouterr()
    assert "no tokens" in err
    assert "total_tokens" in err
    assert "/attach FILE|URL" in out
    assert "did you mean /usage?" in err
    assert "/etc/passwd is what?" in out


def test_without_readline_there_is_a_conversation_too(
    typed: Type, server: LLMServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows."""
    monkeypatch.setitem(sys.modules, "readline", None)
    assert typed("one") == 0
    assert len(server.requests) == 1


@pytest.mark.parametrize("option", ["--json", "-x"])
def test_output_for_programs_needs_a_prompt(typed: Type, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Then a missing prompt is an error."""
    assert typed("one", options=(option,)) == 2
    assert "no prompt" in capsys.readouterr().err


# -- saved ------------------------------------------------------------------------------------------------------------


def test_the_last_conversation_goes_on(server: LLMServer, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """-c restores messages, model, system message and address; the file is private."""
    server.default = echo
    assert main(["chat", *to(server), "--system", "Be brief.", "one"]) == 0
    path = only_file(folder)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = path.read_bytes()
    assert main(["-c", "two"]) == 0
    assert [content for _, content in sent(server)] == ["Be brief.", "one", "2: one", "two"]
    assert path.read_bytes().startswith(before)
    assert all(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert capsys.readouterr() == ("2: one\n4: two\n", "")


def test_a_named_conversation_goes_on(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--conversation restores it, whatever was asked in between."""
    server.default = echo
    for words in (["--conversation", "work", "one"], ["between"], ["--conversation", "work", "two"]):
        assert main(["chat", *to(server), *words]) == 0
    assert [content for _, content in sent(server)] == ["one", "1: one", "two"]


def test_nothing_is_kept_where_that_is_said(
    server: LLMServer, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: Type
) -> None:
    """LLMBRIDGE_KEEP=0 writes no file."""
    monkeypatch.setenv("LLMBRIDGE_KEEP", "0")
    assert main(["chat", *to(server), "one"]) == 0
    assert typed("one", "two") == 0
    assert not folder.parent.exists()
    capsys.readouterr()
    assert main(["chat", *to(server), "-c", "two"]) == 2
    assert "LLMBRIDGE_KEEP" in one_line(capsys.readouterr().err)


def test_what_got_no_answer_is_not_kept(server: LLMServer, folder: Path) -> None:
    """-c continues the last conversation that got an answer, even half of one."""
    server.script(Reply("no", status=400), Reply(["Half an ", "ans"], error="broken"))
    assert main(["chat", *to(server), "one"]) == 1
    assert not list(folder.iterdir())
    assert main(["chat", *to(server), "two"]) == 1
    assert "Half an ans" in only_file(folder).read_text(encoding="utf-8")
    assert main(["chat", *to(server), "-c", "three"]) == 0
    assert [content for _, content in sent(server)] == ["two", "Half an ans", "three"]


def test_a_line_that_was_not_written_whole_harms_nothing(server: LLMServer, folder: Path) -> None:
    """After a crash, the half line at the end is dropped, and the next lines are whole."""
    server.default = echo
    assert main(["chat", *to(server), "one"]) == 0
    with only_file(folder).open("ab") as file:
        file.write(b'{"role": "us')
    for question in ("two", "three"):
        assert main(["chat", *to(server), "-c", question]) == 0
    assert [content for _, content in sent(server)] == ["one", "1: one", "two", "3: two", "three"]


def test_two_at_once_lose_nothing(
    typed: Type, server: LLMServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second process saves its conversation under another name."""
    server.default = echo
    assert main(["chat", *to(server), "--conversation", "work", "one"]) == 0

    def lines() -> Iterator[str]:
        yield "two"
        path = folder / "work.jsonl"
        path.write_bytes(path.read_bytes() + b'{"messages": 1}\n')
        yield "three"

    assert typed(lines=lines(), options=("--conversation", "work")) == 0
    assert "saved as work-2" in capsys.readouterr().err
    assert "three" in (folder / "work-2.jsonl").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written_is_reported(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer is printed all the same."""
    (tmp_path / "llmbridge").write_text("a file", encoding="utf-8")
    server.default = Reply("Hello")
    assert main(["chat", *to(server), "one"]) == 0
    out, err = capsys.readouterr()
    assert out == "Hello\n"
    assert "not saved" in one_line(err)


def test_conversations_are_listed_shown_and_deleted(
    server: LLMServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Newest first, by name; damaged files are reported."""
    server.default = echo
    for name in ("first", "second"):
        assert main(["chat", *to(server), "--conversation", name, f"in {name}"]) == 0
    (folder / "damaged.jsonl").write_text("rubbish\n", encoding="utf-8")
    os.utime(folder / "first.jsonl", (1, 1))
    capsys.readouterr()
    assert main(["conversations"]) == 0
    out, err = capsys.readouterr()
    assert [line.split() for line in out.splitlines()] == [
        ["second", "openai:m", "in", "second"],
        ["first", "openai:m", "in", "first"],
    ]
    assert "damaged.jsonl, line 1" in one_line(err)
    assert main(["conversations", "show", "first"]) == 0
    assert capsys.readouterr().out == "> in first\n\n1: in first\n"
    assert main(["conversations", "show", "first", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["messages"]) == 2
    assert main(["conversations", "delete", "first", "nothing"]) == 2
    assert main(["conversations", "delete", "first", "damaged"]) == 0
    assert [path.name for path in folder.iterdir()] == ["second.jsonl"]
    assert main(["conversations", "delete", "--all"]) == 0
    assert main(["conversations", "show"]) == 2
    assert not list(folder.iterdir())


def test_a_shown_conversation_has_the_answers_without_their_reasoning(
    server: LLMServer, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `llmbridge chat` shows them, with a blank line between all messages."""
    server.default = Reply("It is 42.", reasoning="Let me think.")
    for words in (["Well?"], ["-c", "Sure?"]):
        assert main(["chat", *to(server), *words]) == 0
    capsys.readouterr()
    assert main(["conversations", "show"]) == 0
    assert capsys.readouterr().out == "> Well?\n\nIt is 42.\n\n> Sure?\n\nIt is 42.\n"


# -- a real terminal --------------------------------------------------------------------------------------------------


# Ctrl-C reaches the program that controls the terminal.
_OWN_TERMINAL = "import fcntl, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"


class Terminal:
    """`llmbridge chat` in a pseudo-terminal."""

    def __init__(self, *words: str) -> None:
        import pty

        self.end, theirs = pty.openpty()
        command = [sys.executable, "-c", _OWN_TERMINAL + _RUN, *words]
        env = {**os.environ, "TERM": "dumb"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=env
        )
        os.close(theirs)
        self.shown = ""

    def type(self, text: str) -> None:
        """Presses keys."""
        os.write(self.end, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads until the text has come, after everything waited for before."""
        end = time.monotonic() + 60
        while text not in self.shown:
            assert time.monotonic() < end, self.shown
            if select.select([self.end], [], [], 0.1)[0]:
                try:
                    self.shown += os.read(self.end, 4096).decode()
                except OSError:  # Linux: the other end is closed
                    assert text in self.shown
        self.shown = self.shown.partition(text)[2]

    def close(self) -> None:
        """Ends the process if it still runs."""
        self.process.kill()
        self.process.wait()
        os.close(self.end)


@pytest.fixture
def terminal(server: LLMServer) -> Iterator[Terminal]:
    """A conversation that waits for its first question."""
    opened = Terminal("chat", *to(server))
    opened.wait_for("> ")
    yield opened
    opened.close()


@needs_posix
def test_ctrl_c_stops_the_answer_and_not_the_conversation(terminal: Terminal, server: LLMServer, folder: Path) -> None:
    """The text so far is saved; at the prompt Ctrl-C clears the line, and Ctrl-D ends with code 0."""
    server.script(Reply(["one ", "two "] + ["more "] * 100, delay=0.3), echo)
    terminal.type("a long answer\n")
    terminal.wait_for("two ")
    terminal.type("\x03")
    terminal.wait_for("> ")
    assert server.requests[0].gone.wait(30)
    terminal.type("half a line")
    terminal.wait_for("half a line")
    time.sleep(0.5)  # a signal just before readline waits is handled at the next key
    terminal.type("\x03")
    terminal.wait_for("> ")
    terminal.type("short\n")
    terminal.wait_for(": short")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0
    roles = [role for role, _ in sent(server)]
    assert roles == ["user", "assistant", "user"]
    assert "one two" in only_file(folder).read_text(encoding="utf-8")


@needs_posix
def test_a_terminal_that_is_closed_loses_nothing(terminal: Terminal, server: LLMServer, folder: Path) -> None:
    """Closing the terminal, or a `kill`, saves the answer so far."""
    server.script(Reply(["one ", "two "] + ["more "] * 100, delay=0.3))
    terminal.type("a long answer\n")
    terminal.wait_for("two ")
    terminal.process.send_signal(signal.SIGHUP)
    assert terminal.process.wait(60) == 128 + signal.SIGHUP
    assert "one two" in only_file(folder).read_text(encoding="utf-8")


@needs_posix
def test_a_crash_loses_no_question(terminal: Terminal, server: LLMServer, folder: Path) -> None:
    """The question is saved before it is sent."""
    server.script(Reply(["one ", "two "] + ["more "] * 100, delay=0.3))
    terminal.type("a long answer\n")
    terminal.wait_for("two ")
    terminal.process.kill()
    terminal.process.wait(60)
    assert "a long answer" in only_file(folder).read_text(encoding="utf-8")


@needs_posix
def test_ctrl_c_keeps_what_had_come_of_a_single_answer(server: LLMServer, folder: Path) -> None:
    """Exit code 130, and -c continues from there."""
    server.script(Reply(["one ", "two "] + ["more "] * 100, delay=0.3), echo)
    process = subprocess.Popen(
        [sys.executable, "-c", _RUN, "chat", *to(server), "a long answer"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 4) == b"one "
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert main(["chat", *to(server), "-c", "go on"]) == 0
    assert [content.split()[0] for _, content in sent(server)] == ["a", "one", "go"]


@needs_posix
def test_what_is_typed_is_remembered_for_its_owner_alone(terminal: Terminal, folder: Path) -> None:
    """The arrow keys bring it back in the next conversation."""
    terminal.type("a question\n")
    terminal.wait_for("> ")
    terminal.type("\x04")
    assert terminal.process.wait(60) == 0
    history = folder.parent / "history"
    assert "a question" in history.read_text(encoding="utf-8")
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
