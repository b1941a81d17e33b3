"""What `name.<Tab>` offers in notebooks (jedi) and editors (pyright): every attribute of every public object."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import llmbridge

ROOT = Path(__file__).parents[2]

MADE = {
    "chat('Hi')": ["acomplete", "complete", "events", "finish_reason", "partial", "show", "text"],
    "chat('Hi').complete()": ["choices", "parsed", "text", "usage"],
    "chat('Hi').complete().usage": ["output_tokens", "total_tokens"],
    "chat('Hi').complete().message": ["content", "role", "to_dict"],
    "chat('Hi').complete().rate_limits": ["requests", "tokens"],
    "next(iter(chat('Hi')))": ["strip", "upper"],
    "next(iter(chat('Hi').events()))": ["arguments", "name", "text"],
    "Client('demo')": ["chat", "conversation", "embed", "models", "run"],
    "Client('demo').chat('Hi')": ["complete", "objects", "tool_calls"],
    "Client('demo').run('Hi')": ["complete"],
    "conversation('demo')": ["ask", "messages", "save", "undo"],
    "conversation('demo').ask('Hi')": ["complete", "text"],
    "conversation('demo').messages[0]": ["content", "role"],
    "embed('Hi')": ["array", "vectors"],
    "Message('user', 'Hi')": ["tool_calls", "parts", "text"],
    "tool(print)": ["description", "name", "parameters", "run"],
    "LLMBridgeError('x').partial": ["message", "tool_calls", "upper"],
    "InvalidOutput('x')": ["partial", "problems"],
    "RateLimited('x')": ["request_id", "retry_after", "status"],
    "ClockExpired('x')": ["clock", "retryable"],
    "AllFailed('x')": ["errors"],
    "compatible('x')": ["create_async", "create_completion"],
    "Image('a.png')": ["to_part"],
    "Timeout()": ["idle", "total"],
    "Retry()": ["on_retry"],
    "Limits()": ["concurrency"],
}
"""For each expression, some of the names that must be offered after it."""

CLASSES = [name for name in llmbridge.__all__ if inspect.isclass(getattr(llmbridge, name))]

Offered = Callable[[str], "set[str]"]


class LanguageServer:
    """pyright, as an editor runs it: it is asked in JSON-RPC over its standard input."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "pyright.langserver", "--stdio"]
        self.process: Any = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self.count = 0
        folder = {"uri": ROOT.as_uri(), "name": "llmbridge"}
        can = {"workspace": {"configuration": True}}
        self.ask("initialize", {"processId": None, "workspaceFolders": [folder], "capabilities": can})
        self.send(method="initialized", params={})

    def send(self, **message: Any) -> None:
        """Writes a message."""
        data = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(data), data))
        self.process.stdin.flush()

    def ask(self, method: str, params: Any) -> Any:
        """The result of a request; what the server asks meanwhile is answered."""
        self.count += 1
        self.send(id=self.count, method=method, params=params)
        while True:
            headers = dict(line.lower().split(b":") for line in iter(self.process.stdout.readline, b"\r\n"))
            message = json.loads(self.process.stdout.read(int(headers[b"content-length"])))
            if message.get("method") == "workspace/configuration":
                python = {"pythonPath": sys.executable}
                sections = [item["section"] for item in message["params"]["items"]]
                self.send(id=message["id"], result=[python if name == "python" else {} for name in sections])
            elif "method" in message and "id" in message:
                self.send(id=message["id"], result=None)
            elif message.get("id") == self.count and "method" not in message:
                return message["result"]

    def offered(self, code: str) -> set[str]:
        """The names behind the end of the code."""
        document = {"uri": (ROOT / f"typed_{self.count}.py").as_uri()}
        opened = {**document, "languageId": "python", "version": 1, "text": code}
        self.send(method="textDocument/didOpen", params={"textDocument": opened})
        place = {"line": code.count("\n"), "character": len(code.rpartition("\n")[2])}
        found = self.ask("textDocument/completion", {"textDocument": document, "position": place})
        return {item["label"] for item in found["items"]}

    def close(self) -> None:
        """Ends it."""
        self.ask("shutdown", None)
        self.send(method="exit")
        self.process.communicate(timeout=60)


def _jedi(code: str) -> set[str]:
    jedi: Any = pytest.importorskip("jedi")
    here = jedi.api.environment.InterpreterEnvironment()
    return {name.name for name in jedi.Script(code, environment=here).complete()}


@pytest.fixture(scope="module", params=["jedi", "pyright"])
def offered(request: pytest.FixtureRequest) -> Iterator[Offered]:
    """Finds the names behind the end of a piece of code."""
    if request.param == "jedi":
        yield _jedi
        return
    pytest.importorskip("pyright")
    server = LanguageServer()
    yield server.offered
    server.close()


@pytest.mark.slow
@pytest.mark.parametrize("expression", MADE)
def test_the_attributes_of_a_value_are_offered(expression: str, offered: Offered) -> None:
    """A property that the tool stumbles over takes all others with it."""
    names = offered(f"from llmbridge import *\nmade = {expression}\nmade.")
    assert set(MADE[expression]) - names == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES)
def test_all_attributes_of_a_class_are_offered(name: str, offered: Offered) -> None:
    """Where a function says that it takes one."""
    own = [base for base in getattr(llmbridge, name).__mro__ if base.__module__.partition(".")[0] == "llmbridge"]
    public = {attribute for base in own for attribute in vars(base) if not attribute.startswith("_")}
    assert public - offered(f"import llmbridge\ndef take(made: llmbridge.{name}):\n    made.") == set()


def test_the_names_of_the_package_are_offered() -> None:
    """Which are loaded only when they are used."""
    assert set(llmbridge.__all__) - _jedi("import llmbridge\nllmbridge.") == set()


@pytest.mark.slow
def test_a_stream_and_its_answer_offer_their_attributes() -> None:
    """As above, for the two that everybody meets."""
    for expression in ("chat('Hi')", "chat('Hi').complete()"):
        assert set(MADE[expression]) - _jedi(f"from llmbridge import *\nmade = {expression}\nmade.") == set()
