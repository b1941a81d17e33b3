"""What is imported when: a plain chat loads one dialect, the transport, and nothing that only other features need."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from llmbridge.testing import LLMServer, Reply

PUBLIC = {
    "client", "errors", "events", "messages", "options", "provider", "retry", "secret", "service_errors", "stream",
}  # fmt: skip
"""The public modules that a plain chat loads."""

AREAS = ("_schemas", "_tools")
"""Prefixes of private modules that a plain chat does not need."""

MOST = 29
"""How many modules of llmbridge a plain chat loads at most, without its dialect, the transport and folders.

One of them is loaded only if the first event comes alone and is empty.
"""

DIALECTS = {
    "openai:m": ("openai", {"openai"}),
    "groq:m": ("openai", {"compatible", "openai"}),
    "ollama-v1:m": ("openai", {"compatible", "openai"}),
    "llama3:8b": ("openai", {"compatible", "openai"}),
    "azure:m": ("azure", {"azure", "openai"}),
    "anthropic:m": ("anthropic", {"anthropic"}),
    "gemini:m": ("gemini", {"gemini"}),
    "vertex:m": ("vertex", {"vertex", "anthropic", "gemini"}),
    "ollama:m": ("ollama", {"ollama"}),
    "mistral:m": ("mistral", {"mistral", "openai"}),
    "cohere:m": ("cohere", {"cohere"}),
}
"""Model: the dialect that its server speaks, and the dialects whose modules are loaded."""

SHARED = {"_values"}
"""What the dialects share."""

NOT_YET = {
    "anyio", "asyncio", "concurrent", "csv", "datetime", "decimal", "email", "hashlib", "html", "http",
    "multiprocessing", "numpy", "pydantic", "requests", "select", "selectors", "socket", "sqlite3", "ssl",
    "subprocess", "tempfile", "trio", "unittest", "urllib3", "uuid", "xml",
}  # fmt: skip
"""What must not be loaded before the first request: much of it comes with requests."""

BEGIN = """
import sys
from contextlib import suppress
import llmbridge
model, url, before = sys.argv[1], sys.argv[2], set(sys.modules)
"""
LOADED = "\nprint(*sorted(sys.modules))"
CHAT = "\nstream = llmbridge.chat('Hi', model=model, api_key='k-0123456789', base_url=url, proxy=False)"

SYNCHRONOUS = """
asked = {"api_key": "k-0123456789", "base_url": url, "proxy": False}
def add(a: int, b: int) -> int:
    "Adds."
    return a + b
with llmbridge.Client(model, **asked) as client:
    with client.chat("Hi") as stream:
        print(*stream)
    print(*client.chat("Hi").events())
    print(client.chat("Hi").complete().rate_limits)
    print(client.chat("Hi", tools=[add], run_tools=True).complete())
    print(client.embed(["a", "b"]), client.models())
    stream = client.chat("Hi")
    stream.cancel()
    with suppress(llmbridge.Cancelled):
        stream.complete()
    with suppress(llmbridge.LLMBridgeError):
        client.chat("Hi", schema={"type": "object"}, retries=0).complete()
with suppress(llmbridge.LLMBridgeError):
    llmbridge.chat("Hi", model, **{**asked, "base_url": "http://127.0.0.1:1/v1", "retries": 0}).complete()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[LLMServer]:
    """Answers every request in every dialect."""
    with LLMServer(Reply(["Hel", "lo"])) as running:
        yield running


def loaded(code: str, model: str = "openai:m", url: str = "http://127.0.0.1:1") -> set[str]:
    """The modules that a fresh interpreter loads for some code, without those it had before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLMBRIDGE_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", code + LOADED, model, url],
        env={**kept, "LLMBRIDGE_KEYS_FILE": os.devnull},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def own(modules: set[str]) -> set[str]:
    """llmbridge's modules, without its name."""
    return {name.removeprefix("llmbridge.") for name in modules if name.startswith("llmbridge.")}


def dialects(modules: set[str]) -> set[str]:
    """The dialects of the modules: each has a file or a folder of its own."""
    return {name.split(".")[1] for name in own(modules) if name.startswith("providers.")} - SHARED


def check_core(modules: set[str]) -> None:
    """A plain chat loads only the core, its dialect and the transport."""
    names = own(modules)
    core = {name for name in names if not name.startswith(("providers", "_transport"))}
    assert not {name for name in core if name.startswith((*AREAS, "_aio")) or not (name[0] == "_" or name in PUBLIC)}
    files = {name for name in core if not any(other.startswith(f"{name}.") for other in core)}
    assert len(files) <= MOST, sorted(files)


def foreign(modules: set[str]) -> set[str]:
    """The other packages of the modules."""
    return {name.partition(".")[0] for name in modules} - {"llmbridge"}


def test_the_package_alone_loads_nothing() -> None:
    """`import llmbridge` loads two files, and of the standard library only what types need."""
    without = loaded("from __future__ import annotations; import sys, typing, contextlib, collections.abc, importlib")
    assert loaded(BEGIN) - without == {"llmbridge", "llmbridge._version"}


def test_a_chat_that_is_not_sent_loads_no_network() -> None:
    """The checks of `chat()` before sending need the core and one dialect; no TLS, no e-mail, no event loop."""
    bare = loaded("import sys")  # loaded by the environment at every start
    modules = loaded(BEGIN + CHAT)
    check_core(modules)
    assert dialects(modules) == {"openai"}
    assert not {name for name in own(modules) if name.startswith("_transport")}
    assert not NOT_YET & foreign(modules - bare)


@pytest.mark.slow
@pytest.mark.parametrize("model", DIALECTS)
def test_a_chat_loads_its_dialect_alone(server: LLMServer, model: str) -> None:
    """A whole call loads the core, the transport and one dialect, and otherwise only what requests brings."""
    spoken, expected = DIALECTS[model]
    modules = loaded(f"{BEGIN}{CHAT}\nassert ''.join(stream) == 'Hello'", model, server.base_url(spoken))
    check_core(modules)
    assert dialects(modules) == expected
    assert not {name for name in own(modules) if name.endswith("rules")}  # only for OpenAI's own models, unlike "m"
    assert "_transport" in own(modules)
    asks_others = ", importlib.metadata" if model == "llama3:8b" else ""  # whether they offer a provider llama3
    brought = loaded(f"import sys, requests, sseclient{asks_others}")
    assert not NOT_YET & foreign(modules - brought)


def test_synchronous_use_loads_no_event_loop(server: LLMServer) -> None:
    """A script without `async` never loads anyio and asyncio."""
    modules = loaded(BEGIN + SYNCHRONOUS, url=server.base_url("openai"))
    names = own(modules)
    assert {"completion", "_call.question", "schema", "tools"} <= names
    assert all(any(name.startswith(area) for name in names) for area in AREAS)
    assert not {"_aio", "cli", "keys", "limits", "parts", "testing"} & names
    assert dialects(modules) == {"openai"}
    brought = loaded("import sys, requests, sseclient")
    assert not {"anyio", "asyncio", "trio"} & foreign(modules - brought)


def test_an_error_loads_what_names_it() -> None:
    """The module that converts errors is loaded by the first error only."""
    complete = f"{BEGIN}{CHAT}\nwith suppress(llmbridge.NotFound): print(stream.complete())"

    def late(reply: Reply) -> set[str]:
        with LLMServer(reply) as server:
            names = own(loaded(complete, url=server.base_url("openai")))
        return {name for name in names if name.endswith(("rate_limits", "report", "words"))}

    assert late(Reply("Hello")) == set()
    assert len(late(Reply("No such model.", status=404))) == 3
