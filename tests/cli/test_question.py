"""The parts of a question on the command line: piped text and words, files, parameters, schemas, tools."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from test_chat_command import PNG, to
from test_command import one_line

from llmbridge.cli import main
from llmbridge.testing import LLMServer, Received, Reply

SUM = Reply("", tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}])


@pytest.fixture(autouse=True)
def _own_key(_no_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets a key."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-cli-secret")


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Puts bytes on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def asked(server: LLMServer) -> Any:
    """The content of the last message that was sent."""
    return server.requests[-1].json["messages"][-1]["content"]


# -- piped text and words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (["Write a", "commit message"], "+ a line\n\nWrite a commit message"),
        (["Before:", "-", "after", "it"], "Before:\n\n+ a line\n\nafter it"),
        (["-", "What is it?"], "+ a line\n\nWhat is it?"),
        (["What is it?", "-"], "What is it?\n\n+ a line"),
        (["Before", "--usage", "-", "--retries", "1", "and", "after"], "Before\n\n+ a line\n\nand after"),
        ([], "+ a line"),
    ],
)
def test_piped_text_goes_in_front_of_the_words_or_where_a_dash_is(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, words: list[str], sent: str
) -> None:
    """Piped text and words are separated by a blank line."""
    piped(monkeypatch, b"\xef\xbb\xbf+ a line\n")
    assert main(["chat", *to(server), *words]) == 0
    assert asked(server) == sent


@pytest.mark.parametrize("command", [["chat"], []], ids=["chat", "no command"])
@pytest.mark.quick(1)
def test_a_real_pipe_is_read(server: LLMServer, command: list[str]) -> None:
    """`git diff | llmbridge chat "Write a commit message"` sends the diff, also without the command's name."""
    words = [*command, *to(server), "Write a commit message"]
    run = subprocess.run([sys.executable, "-m", "llmbridge", *words], input=b"diff\n", capture_output=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, b"")
    assert asked(server) == "diff\n\nWrite a commit message"


@pytest.mark.parametrize("words", [["-", "-"], ["-", "-f", "-"]])
def test_standard_input_is_used_once(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """Two dashes are an error."""
    piped(monkeypatch, b"text")
    assert main(["chat", *to(server), *words]) == 2
    assert "only once" in one_line(capsys.readouterr().err)


def test_an_empty_pipe_adds_nothing(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a program that prints nothing, the words alone are the prompt."""
    piped(monkeypatch, b"")
    assert main(["chat", *to(server), "Hello"]) == 0
    assert asked(server) == "Hello"


def test_piped_bytes_that_are_not_text_are_an_error(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Piped bytes that are not UTF-8 are an error."""
    piped(monkeypatch, b"caf\xe9")
    assert main(["chat", *to(server), "What is it?"]) == 2
    assert "UTF-8 (byte 3)" in one_line(capsys.readouterr().err)
    assert not server.requests


def test_the_first_words_without_a_command_are_a_prompt(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """`llmbridge "hi"` is `llmbridge chat "hi"`, with options before or after it."""
    server.default = Reply("Hello")
    assert main(["hi", *to(server)]) == 0
    assert main([*to(server), "hi"]) == 0
    assert main(["what", "is that?", *to(server)]) == 0
    assert [request.json["messages"][-1]["content"] for request in server.requests] == ["hi", "hi", "what is that?"]
    assert capsys.readouterr() == ("Hello\n" * 3, "")


@pytest.mark.parametrize(("word", "meant"), [("caht", "chat"), ("model", "models"), ("conversation", "conversations")])
def test_a_misspelled_command_is_not_sent_as_a_prompt(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error suggests the right command."""
    assert main([word, "Hello"]) == 2
    assert f"did you mean '{meant}'?" in one_line(capsys.readouterr().err)


# -- files ------------------------------------------------------------------------------------------------------------


def test_text_files_go_in_front(server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files come in order, before piped text and words."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"{name}\n", encoding="utf-8")
    piped(monkeypatch, b"piped")
    assert main(["chat", *to(server), "-f", str(tmp_path / "one"), "-f", str(tmp_path / "two"), "words"]) == 0
    assert asked(server) == "one\n\ntwo\n\npiped\n\nwords"


def test_attachments_are_what_their_bytes_are(server: LLMServer, tmp_path: Path) -> None:
    """An image, a text document, and an image by URL."""
    (tmp_path / "cat").write_bytes(PNG)
    (tmp_path / "notes.txt").write_text("some notes", encoding="utf-8")
    sources = [str(tmp_path / "cat"), str(tmp_path / "notes.txt"), "https://example.com/dog.jpg"]
    assert main(["chat", *to(server), "What?", *(word for source in sources for word in ("-a", source))]) == 0
    text, image, notes, dog = asked(server)
    assert text == {"type": "text", "text": "What?"}
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert "some notes" in json.dumps(notes)
    assert dog["image_url"]["url"] == "https://example.com/dog.jpg"


def test_an_attachment_can_be_piped_in(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-a -` reads bytes from standard input."""
    piped(monkeypatch, PNG)
    assert main(["chat", *to(server), "What?", "-a", "-"]) == 0
    assert asked(server)[1]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-f", "nothing.txt"], "-f: cannot read nothing.txt"),
        (["-a", "nothing.png"], "cannot attach nothing.png"),
        (["-a", "https://example.com/42"], "--image"),
        (["-a", sys.executable], "not a known kind"),
        (["-o", "timeout", "3"], "write --timeout"),
        (["-o", "max_turns", "x"], "whole number"),
        (["--retries", "two"], "--retries takes a whole number, like 3"),
        (["--limits", "fast"], "--limits takes requests per minute, like 20"),
        (["--limits", "0"], "--limits takes"),
        (["--schema", "name, age years"], "'years' is not a type"),
        (["--schema", "a b c"], "is not a field"),
        (["--schema", "{"], "is not JSON"),
        (["-T", "nothing"], "MODULE:FUNCTION"),
        (["-T", "no_such_module:f", "--yes"], "cannot import no_such_module:f"),
        (["-T", "os:sep", "--yes"], "is not a function"),
        (["--key", "two\nlines"], "key"),
        (["-c", "--conversation", "x"], "one of them"),
        (["--conversation", "../x"], "letters, digits"),
    ],
)
def test_a_wrong_option_is_an_error_before_sending(
    server: LLMServer, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and one line that names the option."""
    assert main(["chat", *to(server), "Hello", *words]) == 2
    assert told in one_line(capsys.readouterr().err)
    assert not server.requests


# -- parameters -------------------------------------------------------------------------------------------------------


def test_every_parameter_has_an_option(server: LLMServer) -> None:
    """-o takes numbers, words and JSON; a dash stands for an underscore."""
    words = ["-o", "temperature", "0.5", "-o", "max-tokens", "7", "-o", "stop", "END", "-o", "logit_bias", '{"5": 1}']
    assert main(["chat", *to(server), "Hello", *words]) == 0
    sent = server.requests[0].json
    assert (sent["temperature"], sent["stop"], sent["logit_bias"]) == (0.5, "END", {"5": 1})
    assert 7 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


def test_a_key_of_the_command_line_is_sent_and_never_shown(
    server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even if the service echoes it."""
    key = "a-key-0123456789"
    server.default = Reply(f"bad key {key}", status=401)
    assert main(["chat", *to(server), "--key", key, "--debug", "Hello"]) == 1
    assert server.requests[0].header("Authorization") == f"Bearer {key}"
    assert key not in "".join(capsys.readouterr())


def test_retries_say_how_often(server: LLMServer) -> None:
    """--retries 0 sends one request."""
    server.default = Reply("busy", status=503)
    assert main(["chat", *to(server), "--retries", "0", "Hello"]) == 1
    assert len(server.requests) == 1


def test_limits_are_for_all_requests_of_the_command(server: LLMServer) -> None:
    """Both forms of --limits work."""
    for limits in ("60", "requests-per-minute=60,concurrency=1"):
        assert main(["chat", *to(server), "--limits", limits, "Hello"]) == 0


@pytest.mark.parametrize(
    ("told", "option"),
    [
        ("max_turns", "-o max_turns"),
        ("base_url", "--base-url"),
        ("extra={'new_one': ...}", """-o extra '{"new_one": ...}'"""),
    ],
)
def test_texts_speak_of_options(told: str, option: str) -> None:
    """Messages name options instead of the library's arguments."""
    from llmbridge.cli._output import spoken

    assert spoken(f"check {told}") == f"check {option}"


def test_a_schema_is_written_as_fields(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--schema takes names with types, lists and descriptions; all are required."""
    server.default = Reply('{"name": "Ada", "age": 36, "tags": ["x"]}')
    assert main(["chat", *to(server), "--schema", "name, age int: in years, tags str[]", "Who?"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "Ada", "age": 36, "tags": ["x"]}
    schema = server.requests[0].json["response_format"]["json_schema"]["schema"]
    assert schema["required"] == ["name", "age", "tags"]
    assert schema["properties"]["age"] == {"type": "integer", "description": "in years"}


def test_fields_in_brackets_are_a_list_of_objects(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Each item has the fields; the list is printed, without what a service needs around it."""
    server.default = Reply('{"value": [{"name": "Ada", "tags": ["x"]}]}')
    assert main(["chat", *to(server), "--schema", " [name, tags str[]] ", "Who?"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "Ada", "tags": ["x"]}]


def test_json_is_indented_on_a_terminal_where_it_fills_more_than_a_line(
    server: LLMServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe always gets one line."""
    question = ["chat", *to(server), "--schema", "name", "Who?"]
    short, long = '{"name": "Ada"}', json.dumps({"name": "Ada " * 40})
    for terminal, answer, lines in ((False, long, 1), (True, long, 3), (True, short, 1)):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal, raising=False)
        server.default = Reply(answer)
        assert main(question) == 0
        out = capsys.readouterr().out
        assert out.count("\n") == lines
        assert json.loads(out) == json.loads(answer)


def test_a_warning_is_a_line_like_all_others(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """A warning has no path and no source line, unlike Python's."""
    words = ["-m", "openai-responses:m", "--base-url", server.base_url("openai-responses")]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert main(["chat", *words, "-o", "stop", "END", "-o", "unsupported", "warn", "Hello"]) == 0
    assert "stop" in one_line(capsys.readouterr().err)


# -- the last code block ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ("First:\n```py\nprint(1)\n```\nthen:\n```sh\nls\n```\nDone.", "ls\n"),
        ("1. Do\n   ~~~\n   a\n     b\n   ~~~\n", "a\n  b\n"),
        ("````md\n```\ninner\n```\n````", "```\ninner\n```\n"),
        ("Cut off:\n```py\nprint(", "print(\n"),
    ],
)
def test_the_last_code_block_alone(
    server: LLMServer, capsys: pytest.CaptureFixture[str], answer: str, code: str
) -> None:
    """-x prints the block without its fence and indentation."""
    server.default = Reply(answer)
    assert main(["chat", *to(server), "-x", "Hello"]) == 0
    assert capsys.readouterr() == (code, "")


def test_an_answer_without_code_is_an_error(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output stays empty; the answer goes to standard error."""
    server.default = Reply("I cannot.")
    assert main(["chat", *to(server), "-x", "Hello"]) == 1
    assert capsys.readouterr() == ("", "I cannot.\nllmbridge: the answer has no code block\n")


# -- tools ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tools(tmp_path: Path) -> str:
    """A file with a function."""
    path = tmp_path / "sums_of_a_test.py"
    path.write_text('def add(a: int, b: int) -> int:\n    """Adds."""\n    return a + b\n', encoding="utf-8")
    return f"{path}:add"


def test_tools_are_shown_and_run(server: LLMServer, tools: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Call and result go to standard error, the answer to standard output; usage counts all requests."""
    server.script(SUM, Reply("It is 3."))
    assert main(["chat", *to(server), "-T", tools, "--yes", "--json", "1 + 2?"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["text"] == "It is 3."
    assert json.loads(out)["usage"]["total_tokens"] > 8
    assert err == "llmbridge: the model calls add(a=1, b=2)\nllmbridge: add -> 3\n"
    assert server.requests[1].json["messages"][-1]["content"] == "3"


@pytest.mark.filterwarnings("default")
def test_a_tool_that_says_nothing_of_itself_is_told_once(
    server: LLMServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However many requests there are."""
    path = tmp_path / "silent_of_a_test.py"
    path.write_text("def add(a, b):\n    return a + b\n", encoding="utf-8")
    server.script(SUM, Reply("It is 3."))
    assert main(["chat", *to(server), "-T", f"{path}:add", "--yes", "1 + 2?"]) == 0
    assert capsys.readouterr().err.count("cannot know what the tool add does") == 1


def test_a_model_that_never_stops_calling_is_stopped(
    server: LLMServer, tools: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It stops after `-o max_turns` answers."""
    server.default = SUM
    assert main(["chat", *to(server), "-T", tools, "--yes", "-o", "max_turns", "2", "1 + 2?"]) == 1
    assert "-o max_turns" in capsys.readouterr().err
    assert len(server.requests) == 2


@pytest.mark.parametrize(("answer", "result"), [("y\n", "3"), ("\n", "The user did not allow this call.")])
def test_a_tool_runs_only_with_a_yes(
    server: LLMServer, tools: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: str, result: str
) -> None:
    """Without a yes, the model reads that the user refused."""
    (tmp_path / "terminal").write_text(answer, encoding="utf-8")
    monkeypatch.setattr("llmbridge.cli._answer._TERMINAL", str(tmp_path / "terminal"))
    server.script(SUM, Reply("Done."))
    assert main(["chat", *to(server), "-T", tools, "1 + 2?"]) == 0
    assert server.requests[1].json["messages"][-1]["content"] == result


def test_without_a_terminal_tools_need_yes(
    server: LLMServer, tools: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is sent, as no one could say yes."""
    monkeypatch.setattr("llmbridge.cli._answer._TERMINAL", str(tmp_path / "nothing"))
    assert main(["chat", *to(server), "-T", tools, "1 + 2?"]) == 2
    assert "--yes" in one_line(capsys.readouterr().err)
    assert not server.requests


def test_a_call_cannot_hide_itself(server: LLMServer, tools: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Control characters in a call are shown, not obeyed."""
    evil = {"a": "\x1b[2K\rharmless", "b": 2}

    def answer(received: Received) -> Reply:
        done = received.json["messages"][-1]["role"] == "tool"
        return Reply("Done.") if done else Reply("", tool_calls=[{"name": "add", "arguments": evil}])

    server.default = answer
    assert main(["chat", *to(server), "-T", tools, "--yes", "?"]) == 0
    assert "\x1b" not in capsys.readouterr().err
