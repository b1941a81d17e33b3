"""What is imported for what: a plain chat loads one dialect, the transport, and nothing that only others need."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from llmbridge.testing import LLMServer, Reply

CORE = {
    "_answer", "_assembly", "_attempts", "_calls", "_forking", "_framing", "_http_request", "_model", "_notes",
    "_parsed", "_pipeline", "_plan", "_reading", "_route", "_shared", "_signal", "_text", "_think", "_version",
    "_waits", "client", "errors", "events", "messages", "options", "provider", "providers", "retry", "secret",
    "service_errors", "stream",
}  # fmt: skip
"""All that a chat may load of llmbridge before its first request, beside its dialect."""

DIALECTS = {
    "openai": ("openai", "_openai_", "_completions_"),
    "anthropic": ("anthropic", "_anthropic_"),
    "gemini": ("gemini", "_gemini_"),
    "ollama": ("ollama", "_ollama_"),
    "mistral": ("mistral", "_mistral_", "openai", "_openai_", "_completions_"),
    "cohere": ("cohere", "_cohere_"),
}
"""The modules of each dialect, and what the names of its private ones begin with."""

SHARED = {"providers._call_ids", "providers._media", "providers._values"}
"""What dialects may have in common."""

NOT_YET = {
    "anyio", "asyncio", "concurrent", "csv", "datetime", "decimal", "email", "hashlib", "html", "http",
    "multiprocessing", "numpy", "pydantic", "requests", "select", "selectors", "socket", "sqlite3", "ssl",
    "subprocess", "tempfile", "trio", "unittest", "urllib3", "uuid", "xml",
}  # fmt: skip
"""What nobody may load before the first request: much of it comes with requests then."""

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
    """The modules that a fresh interpreter has loaded after some code, those left out that it had before."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LLMBRIDGE_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", code + LOADED, model, url],
        env={**kept, "LLMBRIDGE_KEYS_FILE": os.devnull},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def own(modules: set[str]) -> set[str]:
    """Those of llmbridge, without its name."""
    return {name.removeprefix("llmbridge.") for name in modules if name.startswith("llmbridge.")}


def core(modules: set[str], provider: str) -> set[str]:
    """Those of llmbridge that belong to no dialect, or to another one."""
    names = DIALECTS[provider]
    return {
        module
        for module in own(modules) - SHARED
        if not any(
            module == f"providers.{name}" or (name[0] == "_" and module.startswith(f"providers.{name}"))
            for name in names
        )
    }


def foreign(modules: set[str]) -> set[str]:
    """The packages of others that modules belong to."""
    return {name.partition(".")[0] for name in modules} - {"llmbridge"}


def test_the_package_alone_loads_nothing() -> None:
    """`import llmbridge` loads two files, and of the standard library nothing but the types."""
    without = loaded("from __future__ import annotations; import sys, typing, contextlib, collections.abc, importlib")
    assert loaded(BEGIN) - without == {"llmbridge", "llmbridge._version"}


def test_a_chat_that_is_not_sent_loads_no_network() -> None:
    """What `chat()` checks before anything is sent takes the core and one dialect; no TLS, no e-mail, no event loop."""
    bare = loaded("import sys")  # what the environment itself loads at every start
    modules = loaded(BEGIN + CHAT)
    assert core(modules, "openai") <= CORE
    assert not NOT_YET & foreign(modules - bare)


@pytest.mark.slow
@pytest.mark.parametrize("provider", DIALECTS)
def test_a_chat_loads_its_dialect_alone(server: LLMServer, provider: str) -> None:
    """A whole call loads the core, the transport and one dialect; of everything else only what requests brings."""
    modules = loaded(f"{BEGIN}{CHAT}\nassert ''.join(stream) == 'Hello'", f"{provider}:m", server.base_url(provider))
    transport = {name for name in own(modules) if name.partition(".")[0] == "_transport"}
    assert transport
    assert core(modules, provider) - transport <= CORE
    brought = loaded("import sys, requests, sseclient")
    assert not NOT_YET & foreign(modules - brought)


def test_synchronous_use_loads_no_event_loop(server: LLMServer) -> None:
    """Whatever a script does without `async`, anyio and asyncio stay where they are."""
    modules = loaded(BEGIN + SYNCHRONOUS, url=server.base_url("openai"))
    assert {"llmbridge.completion", "llmbridge.embeddings", "llmbridge.tools", "llmbridge.service_errors"} <= modules
    brought = loaded("import sys, requests, sseclient")
    assert not {"anyio", "asyncio", "trio"} & foreign(modules - brought)
    assert "llmbridge._aio" not in modules


def test_an_error_loads_what_names_it() -> None:
    """What brings errors into one shape is loaded by the first error, and by nothing else."""
    late = {"llmbridge._error_report", "llmbridge._error_words", "llmbridge.rate_limits"}
    complete = f"{BEGIN}{CHAT}\nwith suppress(llmbridge.NotFound): print(stream.complete())"
    with LLMServer(Reply("Hello")) as server:
        assert not late & loaded(complete, url=server.base_url("openai"))
    with LLMServer(Reply("No such model.", status=404)) as server:
        assert late <= loaded(complete, url=server.base_url("openai"))
