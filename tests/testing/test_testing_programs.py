"""The loopback server as a program: the demo, `python -m llmbridge.testing`, the pytest plugin."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import llmbridge.testing
from llmbridge.testing import demo
from llmbridge.testing.faults import FAULTS

ROOT = Path(llmbridge.testing.__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}
SOON = 10.0


@pytest.fixture
def demo_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The chat endpoint of a demo server without pauses, closed after the test."""
    monkeypatch.setattr(demo, "_server", None)
    monkeypatch.setattr(demo, "_PACE", 0.0)
    server = demo.demo_server()
    yield server.base_url("openai") + "/chat/completions"
    server.close()


def ask(url: str, prompt: Any, **options: Any) -> requests.Response:
    """The answer to one user message."""
    return requests.post(url, json={"messages": [{"role": "user", "content": prompt}], **options}, timeout=SOON)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The output and exit code of a Python program, run with warnings as errors."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=3 * SOON, check=False)


@pytest.mark.parametrize("prompt", ["", "Hi", "Привет, мир! 👋", "very long " * 1000, "two\nlines\tand \x07", "\ud800"])
def test_the_demo_says_that_it_is_one(demo_url: str, prompt: str) -> None:
    """Any prompt gets a short text that says no model is at work, and quotes the prompt's beginning."""
    texts = [ask(demo_url, prompt).json()["choices"][0]["message"]["content"] for _ in range(2)]
    assert texts[0] == texts[1]
    assert "demo: no model is at work" in texts[0]
    assert " ".join(prompt.split()).encode("utf-8", "replace").decode()[:50].strip() in texts[0]
    assert 150 <= len(texts[0]) <= 400
    assert not texts[0].isascii()


def test_the_demo_streams_many_pieces_with_usage(demo_url: str) -> None:
    """The answer is streamed word by word, and always has usage."""
    answer = ask(demo_url, "Hi", stream=True)
    *chunks, usage = [json.loads(line[6:]) for line in answer.content.split(b"\n\n")[:-2]]
    assert len(chunks) > 30
    assert usage["usage"]["completion_tokens"] == len(chunks) - 2
    assert usage["usage"]["prompt_tokens"] == 1


def test_the_demo_is_paced() -> None:
    """The pieces come about as fast as a model's."""
    assert 0.02 <= demo._PACE <= 0.03


def test_a_process_has_one_demo_server(demo_url: str) -> None:
    """Every call gives the same server, which records no prompts."""
    assert demo.demo_server() is demo.demo_server()
    assert ask(demo_url, "secret").ok
    assert demo.demo_server().requests == []


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise SystemExit(3)"])
def test_the_demo_never_keeps_the_interpreter_from_exiting(ending: str) -> None:
    """A program that leaves in the middle of an answer exits at once and prints nothing."""
    code = f"""
import socket, sys
from llmbridge.testing.demo import demo_server
sock = socket.create_connection(("127.0.0.1", int(demo_server().root.rpartition(":")[2])))
body = b'{{"stream": true, "messages": [{{"role": "user", "content": "Hi"}}]}}'
sock.sendall(b"POST /v1/chat/completions HTTP/1.1\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
assert sock.recv(100).startswith(b"HTTP/1.1 200")
sock.close()
{ending}
"""
    result = run(code)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 3 if ending else 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_gets_a_demo_server_of_its_own() -> None:
    """After a fork the child starts a new one; its exit and its close() do not affect the parent's servers."""
    code = """
import os, sys, urllib.request
from llmbridge.testing import LLMServer
from llmbridge.testing.demo import demo_server
def answers(server):
    return urllib.request.urlopen(server.base_url("openai") + "/models", timeout=10).status == 200
with LLMServer() as other:
    first = demo_server()
    assert answers(first)
    child = os.fork()
    if child == 0:
        assert demo_server() is not first and demo_server().root != first.root
        assert answers(demo_server())
        first.close()
        other.close()
        sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert demo_server() is first and answers(first) and answers(other)
"""
    # Since 3.12, forking beside threads gives a warning; here it is tested on purpose.
    result = run("import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n" + code)
    assert (result.stdout, result.stderr, result.returncode) == ("", "", 0)


def test_the_command_runs_until_it_is_interrupted() -> None:
    """It prints the URL first, answers with the given text, and ends at Ctrl-C with code 130 and no output."""
    command = [sys.executable, "-m", "llmbridge.testing", "--text", "Привет, мир", "--delay", "0.001"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as program:
        assert program.stdout
        try:
            root, *advice = [program.stdout.readline().strip() for _ in range(8)]
            answer = ask(f"{root}/v1/chat/completions", "Hi").json()
            program.send_signal(signal.SIGINT)
            rest, errors = program.communicate(timeout=SOON)
        finally:
            program.kill()  # no effect if it has ended
    assert answer["choices"][0]["message"]["content"] == "Привет, мир"
    assert f"--base-url {root}/v1" in advice[0]
    urls = dict(line.split(None, 1) for line in advice[2:6])
    assert urls[f"{root}/mistral/v1"] == "mistral"
    assert {"anthropic", "gemini", "ollama", "azure"} <= set(urls[root].split(", "))
    assert advice[6] == "Ctrl-C stops it."
    assert (rest, errors, program.returncode) == ("", "", 130)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "{taken}"], "cannot listen on port"),
        (["--port", "99999"], "cannot listen on port 99999"),
        (["--port", "x"], "--port"),
        (["--delay", "-1"], "--delay"),
        (["--delay", "nan"], "--delay"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unusable port or a wrong number is one clear message."""
    from llmbridge.testing.__main__ import main

    with llmbridge.testing.LLMServer() as server:
        taken = server.root.rpartition(":")[2]
        try:
            code = main([argument.format(taken=taken) for argument in arguments])
        except SystemExit as exc:
            code = exc.code  # type: ignore[assignment]
    assert code in (1, 2)
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_the_fixture_gives_a_fresh_server_to_each_test(tmp_path: Path) -> None:
    """`llm_server` exists once the plugin is loaded, is new for every test, and closed after it."""
    (tmp_path / "test_it.py").write_text(
        "import socket, pytest\n"
        "seen = []\n"
        "@pytest.mark.parametrize('n', [1, 2])\n"
        "def test_it(llm_server, n):\n"
        "    for old in seen:\n"
        "        with pytest.raises(OSError):\n"
        "            socket.create_connection(('127.0.0.1', int(old.root.rpartition(':')[2])), timeout=5)\n"
        "    assert llm_server not in seen and llm_server.requests == []\n"
        "    seen.append(llm_server)\n"
    )
    # The plugin is loaded by its module's name, so it need not be installed; an installed copy is disabled.
    plugin = ["-p", "no:llmbridge", "-p", "llmbridge.testing.pytest_plugin", "-p", "no:randomly"]
    command = [sys.executable, "-m", "pytest", "-q", *plugin, "-p", "no:cacheprovider", str(tmp_path)]
    result = subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, cwd=tmp_path, timeout=3 * SOON, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "2 passed" in result.stdout


@pytest.mark.slow
def test_the_catalogue_of_faults_is_a_program() -> None:
    """It prints all faults, or the named ones."""
    command = [sys.executable, "-m", "llmbridge.testing.faults"]
    everything = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(everything) == len(FAULTS) + 1
    one = subprocess.run([*command, "gzip-bomb"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert [line.split()[0] for line in one] == ["fault", "gzip-bomb"]
    wrong = subprocess.run([*command, "gzip-bom"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "unknown fault 'gzip-bom'" in wrong.stderr
