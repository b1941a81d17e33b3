"""Every script of examples/ runs: by itself, or as a web app with a browser that asks and leaves."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmbridge.testing import LLMServer, Reply

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SCRIPTS: dict[str, tuple[list[str], str, list[str]]] = {  # arguments, standard input, what is shown
    "chat.py": (["Hello, you"], "", ["Your message began “Hello, you”", r"\[\d+ tokens, the first after \d\.\d\d s\]"]),
    "tools.py": ([], "", [r"\[find_order {'number': 'A-17'}\]", "The demo asked a tool.*lantern.*2026-12-24"]),
    "schema.py": (
        [],
        "",
        ["so far  {}", r"checked Order\(customer='Ada Lovelace', items=\[Item\(name='demo', count=2\)"],
    ),
    "conversation.py": (["kept.jsonl"], "Hello\nAnd then?\n", ["0 questions>, kept in kept.jsonl", "“And then\\?”"]),
    "async_many.py": ([], "One?\nTwo?\n", [r"(?m)^One\?\n  This is", r"(?m)^Two\?\n  This is"]),
    "many_topics.py": (
        ["topics.journal", "6"],
        "",
        [r"(?m)^assert +statement", r"{'statement': 6}\n6 done, \d+ tokens"],
    ),
    "compare.py": ([], "", ["openai:gpt-5.4-mini  +MissingKey: ", r"demo  .* tokens", "demo:demo answers: This is"]),
    "own_provider.py": ([], "", [r"^Hello!\nUsage\(.*output_tokens=2", "'said': 'Hi'"]),
}
FRAMEWORKS = ("django", "fastapi", "flask", "gradio", "streamlit")

# A service that thinks: one piece is there, and nothing follows as long as somebody waits.
SILENT = Reply(["first "], end_mark=False, finish_reason=None, keep_open=True)
SLOW = 60  # seconds that a start may take on a slow machine


def _environment(**more: str) -> dict[str, str]:
    """The developer's environment without its settings; what is started here is quiet and asks nobody else."""
    unwanted = re.compile(r"LLMBRIDGE_.*|.*_(API_KEY|TOKEN|BASE_URL|PROXY)|OPENAI_.*|PYTHON[A-Z]+", re.IGNORECASE)
    kept = {name: value for name, value in os.environ.items() if not unwanted.fullmatch(name)}
    quiet = {"PYTHONIOENCODING": "utf-8", "LLMBRIDGE_KEYS_FILE": os.devnull, "GRADIO_ANALYTICS_ENABLED": "False"}
    tidy = {"STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**kept, **quiet, **tidy, **more}


def _asking(server: LLMServer) -> dict[str, str]:
    """The settings that make an example ask the test's server."""
    return {"LLMBRIDGE_MODEL": "openai:m", "OPENAI_API_KEY": "sk-x", "OPENAI_BASE_URL": server.base_url("openai")}


def test_every_example_is_tested() -> None:
    """A new script is not forgotten here."""
    files = {file.name for file in EXAMPLES.glob("*.py")}
    assert files == {*SCRIPTS, *(f"{name}_app.py" for name in FRAMEWORKS)}
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert files == set(re.findall(r"\((\w+\.py)\)", index))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script(name: str, tmp_path: Path) -> None:
    """It answers by the demo, and warns of nothing."""
    arguments, typed, shown = SCRIPTS[name]
    run = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        cwd=tmp_path,
        env=_environment(),
        input=typed,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert (run.returncode, run.stderr) == (0, "")
    for part in shown:
        assert re.search(part, run.stdout), run.stdout


@pytest.mark.slow
def test_the_conversation_goes_on(tmp_path: Path) -> None:
    """Started again, it sends what was said before."""
    with LLMServer() as server:
        for _ in range(2):
            subprocess.run(
                [sys.executable, "-W", "error", str(EXAMPLES / "conversation.py")],
                cwd=tmp_path,
                env=_environment(**_asking(server)),
                input="Hello\n",
                stdout=subprocess.DEVNULL,
                encoding="utf-8",
                timeout=300,
                check=True,
            )
        roles = [turn["role"] for turn in server.requests[1].json["messages"]]
    assert roles == ["system", "user", "assistant", "user"]


# -- web apps ---------------------------------------------------------------------------------------------------------


def _needs(*modules: str) -> Any:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: tox -e examples")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _running(*command: str, port: int, **environment: str) -> Iterator[None]:
    """The program, from when it answers to the end of the block; then it is stopped, and has shown no traceback."""
    program = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    try:
        end = time.monotonic() + SLOW
        while time.monotonic() < end and program.poll() is None:
            try:
                _get(port, "/").close()
                break
            except OSError:
                time.sleep(0.05)
        yield
    finally:
        program.terminate()
        said = program.communicate(timeout=SLOW)[0]
    assert "Traceback" not in said, said


def _get(port: int, path: str, body: Any = None) -> http.client.HTTPResponse:
    """The answer, its body unread; closing it closes its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SLOW)
    headers = {"Connection": "close"}
    if body is None:
        connection.request("GET", path, headers=headers)
    else:
        connection.request("POST", path, json.dumps(body), {**headers, "Content-Type": "application/json"})
    return connection.getresponse()


def _events(response: http.client.HTTPResponse) -> Iterator[tuple[str, Any]]:
    """Name and value of each event, as soon as it is there."""
    name = "message"
    for line in map(bytes.decode, response):
        field, _, value = line.rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            yield name, json.loads(value)
            name = "message"


WEB_APPS = {
    "fastapi": ("uvicorn", "--app-dir", "examples", "--port", "{port}", "fastapi_app:app"),
    "django": ("uvicorn", "--app-dir", "examples", "--port", "{port}", "django_app:application"),
    "flask": ("flask", "--app", "examples/flask_app.py", "run", "--port", "{port}"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=_needs(name, "uvicorn")) for name in WEB_APPS])
def test_a_web_app(name: str) -> None:
    """It streams, says when the answer broke off, and a browser that leaves ends the call while the model is silent."""
    port = _free_port()
    command = [part.format(port=port) for part in WEB_APPS[name]]
    with LLMServer() as server, _running("-m", *command, port=port, PING_AFTER="0.2", **_asking(server)):
        server.script(Reply(["Hel", "lo\nyou"]), Reply(["Half"], error="it broke"), SILENT)

        with _get(port, "/chat?prompt=Hi") as response:
            assert response.headers.get_content_type() == "text/event-stream"
            assert list(_events(response)) == [("message", "Hel"), ("message", "lo\nyou"), ("end", "")]
        with _get(port, "/chat?prompt=Hi") as response:
            failed = [("message", "Half"), ("failed", "The answer broke off."), ("end", "")]
            assert list(_events(response)) == failed

        with _get(port, "/chat?prompt=Hi") as response:
            assert next(_events(response)) == ("message", "first ")
            assert not server.requests[2].gone.is_set()
        assert server.requests[2].gone.wait(30)


@pytest.mark.slow
@_needs("flask")
def test_flask_pings_while_the_model_is_silent() -> None:
    """A proxy between it and the browser hears something."""
    port = _free_port()
    command = ("flask", "--app", "examples/flask_app.py", "run", "--port", str(port))
    with (
        LLMServer(SILENT) as server,
        _running("-m", *command, port=port, PING_AFTER="0.1", **_asking(server)),
        _get(port, "/chat?prompt=Hi") as response,
    ):
        lines = map(bytes.decode, response)
        assert 'data: "first "\n' in lines  # read up to there
        assert ": ping\n" in lines


@pytest.mark.slow
@_needs("django", "uvicorn")
def test_django_answers_as_a_whole() -> None:
    """The sync view gives JSON, also for a service that fails."""
    port = _free_port()
    command = [part.format(port=port) for part in WEB_APPS["django"]]
    with LLMServer() as server, _running("-m", *command, port=port, **_asking(server)):
        server.script(Reply("Short.", usage={"total_tokens": 7}), Reply("no", status=400))
        with _get(port, "/summary?text=long") as response:
            assert json.load(response) == {"summary": "Short.", "tokens": 7}
        with _get(port, "/summary?text=long") as response:
            assert (response.status, json.load(response)) == (502, {"error": "The model gave no answer."})
    assert server.requests[0].user_text == "Summarise in one sentence: long"


@pytest.mark.slow
@_needs("gradio")
def test_gradio() -> None:
    """The page's endpoint gives the text so far, again and again."""
    port = _free_port()
    with (
        LLMServer(Reply(["Hel", "lo"])) as server,
        _running("examples/gradio_app.py", port=port, GRADIO_SERVER_PORT=str(port), **_asking(server)),
    ):
        _get(port, "/gradio_api/startup-events").close()  # as the program itself does, a moment later
        with _get(port, "/gradio_api/call/answer", {"data": ["Hi"]}) as response:
            call = json.load(response)["event_id"]
        with _get(port, f"/gradio_api/call/answer/{call}") as response:
            events = list(_events(response))
    assert [name for name, _ in events[-2:]] == ["generating", "complete"]
    assert [event[1][0] for event in (events[0], events[-1])] == ["Hel", "Hello"]


STREAMLIT = """
import sys
from streamlit.testing.v1 import AppTest

app = AppTest.from_file(sys.argv[1], default_timeout=60).run()
for question in sys.argv[2:]:
    app.chat_input[0].set_value(question).run()
assert not app.exception, app.exception
print([(message.name, message.children[0].value) for message in app.chat_message], [error.value for error in app.error])
"""


@pytest.mark.slow
@_needs("streamlit")
def test_streamlit() -> None:
    """It answers, remembers what was said, and shows an error below the text that came."""
    with LLMServer() as server:
        server.script(Reply(["Hel", "lo"]), Reply(["Half"], error="it broke"))
        run = subprocess.run(
            [sys.executable, "-c", STREAMLIT, str(EXAMPLES / "streamlit_app.py"), "Hi", "And?"],
            env=_environment(**_asking(server)),
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert run.returncode == 0, run.stderr
        said = [turn["content"] for turn in server.requests[1].json["messages"]]
    assert said == ["Answer briefly.", "Hi", "Hello", "And?"]
    assert "('assistant', 'Hello'), ('user', 'And?'), ('assistant', 'Half')" in run.stdout
    assert "The answer broke off: the service reported an error in its answer: it broke" in run.stdout
