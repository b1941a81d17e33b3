"""The command `llmbridge`: what it prints where, its exit codes, and how it ends."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmbridge._version import __version__
from llmbridge.cli import main
from llmbridge.testing import LLMServer, Reply

# A parent that ignores SIGINT (nohup, a shell's background job) would pass this on to the child.
_RUN = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from llmbridge.cli import main
sys.exit(main())
"""

needs_posix = pytest.mark.skipif(os.name != "posix", reason="signals and devices of POSIX")


@pytest.fixture(autouse=True)
def _own_key(_no_settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets a key, and keeps settings of the developer's Python (like no buffering) from the processes."""
    for name in list(os.environ):
        if name.startswith("PYTHON"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-cli-secret")


Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts `llmbridge` with these words as a process."""
    processes = []

    def run(*words: str, stdout: object = subprocess.PIPE, **env: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-c", _RUN, *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,  # type: ignore[arg-type]
            stderr=subprocess.PIPE,
            env={**os.environ, **env},
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def _to(server: LLMServer) -> list[str]:
    return ["-m", "openai:m", "--base-url", server.base_url("openai")]


def _stdin(monkeypatch: pytest.MonkeyPatch, data: bytes, *, tty: bool = False) -> None:
    stream = io.TextIOWrapper(io.BytesIO(data))
    monkeypatch.setattr(stream.buffer, "isatty", lambda: tty, raising=False) if tty else None
    monkeypatch.setattr(sys, "stdin", stream)


def _last_user(server: LLMServer) -> str:
    text: str = server.requests[-1].json["messages"][-1]["content"]
    return text


def one_line(captured: str) -> str:
    """The line on standard error, after checking that it is one line of the command."""
    assert captured.startswith("llmbridge: ")
    assert captured.endswith("\n")
    assert captured.count("\n") == 1
    assert "Traceback" not in captured
    return captured


def unwrapped(table: str) -> str:
    """A table without the line breaks in its last column, after checking that it fits a terminal."""
    assert max(map(len, table.splitlines()), default=0) <= 80
    return re.sub(r"\n {4,}", " ", table)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_the_answer_is_all_there_is_on_standard_output(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The text and one line end go to standard output, nothing to standard error."""
    server.script(Reply(["Привет", ", ", "мир"]))
    assert main(["chat", *_to(server), "Hello"]) == 0
    assert capsys.readouterr() == ("Привет, мир\n", "")


def test_an_answer_that_ends_its_line_gets_no_second_line_end(
    server: LLMServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line end is added only if it is missing."""
    server.script(Reply(["one\n", "two\n"]))
    assert main(["chat", *_to(server), "Hello"]) == 0
    assert capsys.readouterr().out == "one\ntwo\n"


def test_the_words_are_one_prompt(server: LLMServer) -> None:
    """Words without quotes are joined to one prompt."""
    assert main(["chat", *_to(server), "What", "is a", "bridge?"]) == 0
    assert _last_user(server) == "What is a bridge?"


def test_the_system_message_comes_first(server: LLMServer) -> None:
    """--system is sent before the prompt."""
    assert main(["chat", *_to(server), "--system", "Be brief.", "Hello"]) == 0
    assert [(m["role"], m["content"]) for m in server.requests[0].json["messages"]] == [
        ("system", "Be brief."),
        ("user", "Hello"),
    ]


def test_the_model_of_the_environment_is_used(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """LLMBRIDGE_MODEL is the default of -m."""
    monkeypatch.setenv("LLMBRIDGE_MODEL", "openai:of-the-environment")
    assert main(["chat", "--base-url", server.base_url("openai"), "Hello"]) == 0
    assert main(["chat", "--base-url", server.base_url("openai"), "-m", "openai:of-the-option", "Hello"]) == 0
    assert [request.json["model"] for request in server.requests] == ["of-the-environment", "of-the-option"]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("words", [[], ["-"]], ids=["no argument", "dash"])
def test_the_prompt_comes_from_standard_input(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """Without an argument, or with a dash, standard input is the prompt, without BOM and final line end."""
    _stdin(monkeypatch, b"\xef\xbb\xbf" + "Что такое\nмост?\n".encode())
    assert main(["chat", *_to(server), *words]) == 0
    assert _last_user(server) == "Что такое\nмост?"


@pytest.mark.slow
def test_without_a_model_the_demo_answers_and_says_so(start: Start) -> None:
    """The demo's answer goes to standard output, a note to standard error; no key, no network."""
    process = start("chat", "Ein Brückengruß", OPENAI_API_KEY="")
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "demo" in out.decode().lower()
    assert "Ein Brückengruß" in out.decode()
    assert "demo" in one_line(err.decode())


@pytest.mark.slow
def test_the_demo_needs_no_proxy(start: Start) -> None:
    """The demo's loopback address bypasses the environment's proxies, even a dead one."""
    dead = "http://127.0.0.1:9"
    process = start("chat", "-m", "demo", "Hello", HTTP_PROXY=dead, http_proxy=dead, ALL_PROXY=dead, NO_PROXY="")
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, b"")
    assert out


def test_usage_goes_to_standard_error(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--usage prints the tokens in one line on standard error."""
    server.script(Reply("Hi", usage={"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}))
    assert main(["chat", *_to(server), "--usage", "Hello"]) == 0
    out, err = capsys.readouterr()
    assert out == "Hi\n"
    assert one_line(err) == "llmbridge: openai:m: input_tokens 11, output_tokens 7, total_tokens 18\n"


def test_usage_that_was_not_reported_is_not_made_up(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--usage says if the service did not count."""
    server.script(Reply("Hi", usage=False))
    assert main(["chat", *_to(server), "--usage", "Hello"]) == 0
    assert "no usage" in one_line(capsys.readouterr().err)


def test_json_is_one_object(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--json prints one object with everything that a script needs."""
    usage = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
    server.script(Reply(["При", "вет"], finish_reason="length", usage=usage))
    assert main(["chat", *_to(server), "--json", "Hello"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert 0 <= answer.pop("seconds") < 10
    assert answer == {
        "text": "Привет",
        "model": "m",
        "provider": "openai",
        "usage": {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18},
        "finish_reason": "length",
    }
    assert "Привет" in out
    assert err == ""


def test_a_proxy_is_used(server: LLMServer) -> None:
    """--proxy sends the request there."""
    words = ["chat", "-m", "openai:m", "--base-url", "http://model.invalid/v1", "--proxy", server.root, "Hello"]
    assert main(words) == 0
    assert server.requests[0].path == "http://model.invalid/v1/chat/completions"


def test_proxy_none_means_no_proxy(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead proxy of the environment is ignored with `--proxy none`."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    assert main(["chat", *_to(server), "--proxy", "none", "Hello"]) == 0


def test_a_terminal_gets_no_commands(
    server: LLMServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal shows escape sequences instead of obeying them; a file gets them unchanged."""
    evil = "a\x1b]52;c;ZXZpbA==\x07b\n\tc"
    server.default = Reply(evil)
    assert main(["chat", *_to(server), "Hello"]) == 0
    assert capsys.readouterr().out == evil + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["chat", *_to(server), "Hello"]) == 0
    assert capsys.readouterr().out == "a␛]52;c;ZXZpbA==␇b\n\tc\n"


def test_an_ascii_terminal_survives(start: Start, server: LLMServer) -> None:
    """Characters that the output cannot show become question marks; JSON is escaped, and loses nothing."""
    server.default = Reply("Мост!")
    plain = start("chat", *_to(server), "Hello", PYTHONIOENCODING="ascii")
    assert plain.communicate(timeout=30) == (b"????!\n", b"")
    escaped = start("chat", *_to(server), "--json", "Hello", PYTHONIOENCODING="ascii")
    assert json.loads(escaped.communicate(timeout=30)[0])["text"] == "Мост!"


@needs_posix
def test_words_are_utf8_in_every_locale(start: Start, server: LLMServer) -> None:
    """As typed on a terminal whose encoding differs from the locale's."""
    own = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    process = start("chat", *_to(server), "--system", "Kürzer", "Мост", "✓", **own)
    assert (process.communicate(timeout=30)[1], process.returncode) == (b"", 0)
    system, user = server.requests[0].json["messages"]
    assert (system["content"], user["content"]) == ("Kürzer", "Мост ✓")


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["chat", "--nonsense", "Hello"], "unknown option --nonsense"),
        (["--sytem", "Be brief.", "Hello"], "--sytem: did you mean --system? (see llmbridge chat --help)"),
        (["--temperature", "0", "Hello"], "unknown option --temperature; a parameter is written -o temperature VALUE"),
        (["check", "--timout=3"], "unknown option --timout: did you mean --timeout?"),
        (["chat", "--timeout", "soon", "Hello"], "--timeout takes seconds, like 30"),
        (["chat", "-m", "demo", "--timeout", "-1", "Hello"], "positive"),
        (["chat", "-m", "demo", "--timeout", "nan", "Hello"], "positive"),
        (["chat", "--base-url", "http://127.0.0.1:9/v1", "Hello"], "needs a model"),
        (["chat", "-m", "nobody:m", "Hello"], "nobody"),
        (["chat", "-m", "openai:m", "--base-url", "ftp://example.invalid", "Hello"], "http"),
        (["chat", "-m", "openai:m", "--proxy", "http://", "Hello"], "proxy"),
        (["chat", "-m", "vitalentum:gpt-3.5-turbo", "Hello"], "--base-url"),
        (["chat", "-m", "demo", ""], "empty"),
        (["chat", "-m", "demo", "no text: \udce9"], "the prompt is not UTF-8"),
        (["chat", "-m", "demo", "--system", "no text: \udce9", "Hello"], "the system message is not UTF-8"),
        (["embed", "-m", "demo", "no text: \udce9"], "the text is not UTF-8"),
    ],
)
def test_a_wrong_command_is_code_2(words: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what to fix, with exit code 2."""
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert hint in one_line(err)


def test_the_bare_command_shows_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, in fewer lines than a terminal has, and with exit code 2."""
    assert main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "\n    chat " in err
    assert err.count("\n") < 24


def test_a_terminal_shows_messages_with_unbroken_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are wrapped at its width; a pipe gets one line."""
    monkeypatch.setenv("COLUMNS", "40")
    command = ["chat", "-m", "openai:m", "Hello"]
    main(command)
    line = one_line(capsys.readouterr().err)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    main(command)
    wrapped = capsys.readouterr().err
    assert wrapped.replace("\n", " ") == line.replace("\n", " ")
    assert wrapped.count("\n") > 1
    assert max(map(len, wrapped.splitlines())) <= 40


def test_a_missing_key_is_code_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The line names the variable to set."""
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["chat", "-m", "openai:m", "Hello"]) == 2
    assert "OPENAI_API_KEY" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("data", "tty", "hint"),
    [(b"", True, "no prompt"), (b" \n", False, "empty"), (b"caf\xe9", False, "UTF-8 (byte 3)")],
    ids=["terminal", "empty", "latin-1"],
)
def test_an_unusable_standard_input_is_code_2(
    data: bytes, tty: bool, hint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a prompt nothing is sent: a terminal is not read, and bytes that are not UTF-8 are an error."""
    _stdin(monkeypatch, data, tty=tty)
    assert main(["chat", "-m", "demo"]) == 2
    assert hint in one_line(capsys.readouterr().err)


@pytest.mark.parametrize("status", [401, 404, 400, 302])
def test_an_error_of_the_service_is_code_1(status: int, server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The service's error is one line on standard error, whatever its message holds."""
    server.script(Reply("No\nway \x1b[31m", status=status))
    assert main(["chat", *_to(server), "Hello"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "\x1b" not in one_line(err)


@pytest.mark.slow
def test_a_refused_connection_is_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    """No server listens: one line, soon."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unheard.getsockname()[1]}/v1"
        assert main(["chat", "-m", "openai:m", "--base-url", url, "--timeout", "2", "Hello"]) == 1
    one_line(capsys.readouterr().err)


def test_a_cut_answer_stays_on_standard_output(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """The pieces before the cut stay, on a line of their own, and the cut is an error."""
    server.script(Reply(["Half an ", "ans"], end_mark=False, finish_reason=None))
    assert main(["chat", *_to(server), "Hello"]) == 1
    out, err = capsys.readouterr()
    assert out == "Half an ans\n"
    one_line(err)


def test_with_json_an_error_is_json(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--json leaves standard output empty and puts the error, with the text so far, on standard error."""
    server.script(Reply("Slow down", status=429, headers={"Retry-After": "500", "x-request-id": "r-1"}))
    server.script(Reply(["Half an ", "ans"], end_mark=False, finish_reason=None))
    codes = [main(["chat", *_to(server), "--json", "Hello"]) for _ in range(2)]
    codes.append(main(["chat", "-m", "nobody:m", "--json", "Hello"]))
    codes.append(main(["chat", "--json", "--nonsense", "Hello"]))
    out, err = capsys.readouterr()
    limited, cut, unknown, misused = (json.loads(line)["error"] for line in err.splitlines())
    assert (codes, out) == ([1, 1, 2, 2], "")
    assert (limited["type"], limited["status"], limited["retry_after"]) == ("RateLimited", 429, 500)
    assert limited["request_id"] == "r-1"
    assert (cut["type"], cut["partial"]) == ("StreamTruncated", "Half an ans")
    assert unknown["type"] == "UnknownProvider"
    assert (misused["type"], "--nonsense" in misused["message"]) == ("Misused", True)


def test_debug_shows_where_but_not_the_key(server: LLMServer, capsys: pytest.CaptureFixture[str]) -> None:
    """--debug adds log and traceback before the line; the key stays hidden, even if the server echoes it."""
    logger = logging.getLogger("llmbridge")
    before = (logger.level, list(logger.handlers))
    server.script(Reply("Incorrect API key: sk-cli-secret", status=401))
    assert main(["chat", *_to(server), "--debug", "Hello"]) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("llmbridge: ")
    assert "sk-cli-secret" not in err
    assert (logger.level, logger.handlers) == before


def test_a_bug_is_one_line_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An unexpected exception is one line that names it, whatever its message holds."""

    def known() -> None:
        raise RuntimeError("two\nlines \x1b[31m")

    monkeypatch.setattr("llmbridge.providers.known", known)
    assert main(["models"]) == 1
    err = one_line(capsys.readouterr().err)
    assert "unexpected RuntimeError: two lines" in err
    assert "\x1b" not in err


# -- how it ends ------------------------------------------------------------------------------------------------------


def _interrupted(process: subprocess.Popen[bytes]) -> tuple[float, bytes, bytes]:
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    return time.monotonic() - started, out, err


@needs_posix
def test_pieces_are_seen_at_once_and_ctrl_c_keeps_them(start: Start, server: LLMServer) -> None:
    """A piece is printed while the answer continues; Ctrl-C ends its line and the call, with code 130."""
    server.script(Reply(["one ", "two "] + ["more "] * 100, delay=0.3))
    process = start("chat", *_to(server), "Hello")
    assert process.stdout is not None
    assert os.read(process.stdout.fileno(), 4) == b"one "
    seconds, out, err = _interrupted(process)
    assert (process.returncode, err) == (130, b"")
    assert out.endswith(b"\n")
    assert out.count(b"\n") == 1
    assert seconds < 2
    assert server.requests[0].gone.wait(30)


@needs_posix
def test_ctrl_c_while_waiting_for_the_headers(start: Start, server: LLMServer) -> None:
    """Ctrl-C leaves a silent server at once."""
    server.script(Reply("never", header_delay=60))
    process = start("chat", *_to(server), "Hello")
    server.wait_for_requests(1, timeout=20)
    seconds, out, err = _interrupted(process)
    assert (process.returncode, out, err) == (130, b"\n", b"")
    assert seconds < 2
    assert server.requests[0].gone.wait(30)


@pytest.mark.slow
@needs_posix
def test_ctrl_c_while_connecting(start: Start) -> None:
    """Ctrl-C stops connecting at once; with --json standard output stays empty."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # room for one connection, which is never accepted
        for filler in (first, second):
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        process = start("chat", "--json", "-m", "openai:m", "--base-url", url, "Hello")
        time.sleep(1.5)
        assert process.poll() is None
        seconds, out, err = _interrupted(process)
    assert (process.returncode, out, err) == (130, b"", b"\n")
    assert seconds < 2


@needs_posix
def test_a_closed_pipe_ends_quietly(start: Start, server: LLMServer) -> None:
    """`| head -1` gets its line: no message, exit code 0, and the call ends."""
    server.script(Reply(["line\n"] * 1000, delay=0.02))
    process = start("chat", *_to(server), "Hello")
    assert process.stdout is not None
    assert process.stdout.readline() == b"line\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0
    assert server.requests[0].gone.wait(30)


@needs_posix
def test_a_table_into_a_closed_pipe_ends_quietly(start: Start) -> None:
    """Lists end as quietly as an answer."""
    reading, writing = os.pipe()
    os.close(reading)
    process = start("models", stdout=writing)
    os.close(writing)
    assert process.communicate(timeout=20)[1] == b""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_an_error(start: Start, server: LLMServer) -> None:
    """An answer that cannot be written is an error, in one line."""
    server.script(Reply(["one", "two"]))
    with open("/dev/full", "wb") as full:
        process = start("chat", *_to(server), "Hello", stdout=full)
    err = process.communicate(timeout=20)[1]
    assert process.returncode == 1
    assert "cannot write" in one_line(err.decode())


@needs_posix
@pytest.mark.parametrize("option", ["", "--json"])
def test_a_closed_standard_output_is_an_error(option: str) -> None:
    """Without standard output nothing is sent."""
    command = f'"{sys.executable}" -m llmbridge chat {option} -m demo Hello >&-'
    run = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=300)
    assert run.returncode == 2
    assert "standard output is closed" in run.stderr
    assert run.stderr.count("\n") == 1


# -- lists ------------------------------------------------------------------------------------------------------------


def test_models_say_what_would_work(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line is a value for -m, and whether it is set up."""
    monkeypatch.delenv("OPENAI_API_KEY")
    assert main(["models"]) == 0
    lines = {line.split()[0].partition(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines["demo"].split()[1:] == ["ready"]
    assert lines["openai"].endswith("needs OPENAI_API_KEY")
    assert lines["vitalentum"].endswith("offline")
    assert lines["codelinkava"].endswith("offline")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-cli-secret")
    assert main(["models"]) == 0
    assert any(line.startswith("openai:") and line.endswith("ready") for line in capsys.readouterr().out.splitlines())


def test_providers_say_their_state(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line has name, state, address and a note."""
    assert main(["providers"]) == 0
    lines = {line.split()[0]: line for line in unwrapped(capsys.readouterr().out).splitlines()}
    assert {"demo", "openai", "vitalentum", "codelinkava"} <= set(lines)
    assert "2023" in lines["vitalentum"]
    assert "sk-cli-secret" not in str(lines)


def test_addresses_of_the_environment_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`providers` shows addresses without passwords; a wrong variable affects one line only."""
    monkeypatch.setenv("VLLM_BASE_URL", "http://me:hidden@127.0.0.1:777/v1")
    monkeypatch.setenv("LMSTUDIO_BASE_URL", "rubbish")
    monkeypatch.setenv("OLLAMA_HOST", "rubbish://x")
    for command in ("providers", "models"):
        assert main([command]) == 0
        out = unwrapped(capsys.readouterr().out)
        lines = {line.split()[0].partition(":")[0]: line for line in out.splitlines()}
        assert "hidden" not in out
        assert "LMSTUDIO_BASE_URL is not a URL" in lines["lmstudio"]
        assert "OLLAMA_HOST must be" in lines["ollama"]
        assert lines["demo"].split()[1] == "ready"
        if command == "providers":
            assert "http://127.0.0.1:777/v1" in lines["vllm"]


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the package's."""
    with pytest.raises(SystemExit) as leaving:
        main(["--version"])
    assert leaving.value.code == 0
    assert capsys.readouterr().out == f"llmbridge {__version__}\n"


def test_it_runs_as_a_module() -> None:
    """`python -m llmbridge` is the same command, with the same name."""
    run = subprocess.run(
        [sys.executable, "-m", "llmbridge", "chat", "--help"], capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 0
    assert run.stdout.startswith("usage: llmbridge chat")
    assert "130" in run.stdout
