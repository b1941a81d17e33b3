"""What all tests share: a server, a client of it, an environment without settings, and a check for leftovers."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from canary import KEY, canary, pytest_runtest_makereport  # noqa: F401 - a key that is new in each run, and its watch
from hypothesis import HealthCheck, settings
from modes import LOOPS, MODES, Async, Mode

from llmbridge import Client, providers
from llmbridge.testing import LLMServer

# In the background of a script, Ctrl-C may be ignored, also by every program started here.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An example takes long on a slow machine, and so does generating one.
settings.register_profile("all", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
settings.register_profile("quick", settings.get_profile("all"), max_examples=30)

_KEYS = ("_API_KEY", "_TOKEN", "_BASE_URL", "_ENDPOINT", "_ACCOUNT_ID")
_SETTINGS = (
    "OLLAMA_HOST",
    "DATABRICKS_HOST",
    "SNOWFLAKE_ACCOUNT",
    "GOOGLE_CLOUD_PROJECT",
    "GOOGLE_CLOUD_LOCATION",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUEST_METHOD",
    "NETRC",
)
_GRACE = 20.0
# One thread per process watches the timeouts of all calls; trio keeps idle worker threads for ten seconds.
_KNOWN_THREADS = ("llmbridge-watchdog", "Trio thread")
_DESCRIPTORS = Path("/proc/self/fd")


_CASES = 4


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A run without the slow tests has fewer of Hypothesis's examples."""
    settings.load_profile("quick" if _is_quick(config) else "all")


@pytest.hookimpl(trylast=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Of a test with many cases, a run without the slow ones makes a few, the same each time.

    To make all and leave most of them out would take longer than many of the tests.
    """
    if not _is_quick(metafunc.config) or not metafunc._calls:
        return
    test = metafunc.definition
    mark = test.get_closest_marker("quick")
    few = mark.args[0] if mark is not None else _CASES
    cases = [case for case in metafunc._calls if all(mark.name != "slow" for mark in case.marks)]
    cases.sort(key=lambda case: crc32(f"{test.nodeid}[{case.id}]".encode()))
    metafunc._calls[:] = cases[:few] or metafunc._calls[:1]


def _is_quick(config: pytest.Config) -> bool:
    return "not slow" in config.option.markexpr


def pytest_collection_finish() -> None:
    """Spares each collection of garbage the thousands of tests that are kept anyhow."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Removes the developer's proxies, keys, models, CA files and netrc, and other tests' providers."""
    for name in list(os.environ):
        if name.upper().endswith(("_PROXY", *_KEYS)) or name.startswith(("LLMBRIDGE_", "OPENAI_")) or name in _SETTINGS:
            monkeypatch.delenv(name)
    monkeypatch.setenv("LLMBRIDGE_KEYS_FILE", os.devnull)
    monkeypatch.setenv("LLMBRIDGE_KEEP", "0")
    monkeypatch.setenv("NETRC", os.devnull)
    monkeypatch.setattr(providers, "_registered", dict(providers._registered))


@pytest.fixture(autouse=True)
def _nothing_left(_no_settings: None) -> Iterator[None]:
    """After the test there is no thread, socket or file descriptor that was not there before."""
    threads, descriptors = set(threading.enumerate()), _descriptors()
    yield
    _close_what_a_process_keeps()
    end = time.monotonic() + _GRACE
    collected = False
    while left := [*_new_threads(threads), *_new_descriptors(descriptors)]:
        if time.monotonic() > end:
            pytest.fail(f"the test left behind: {', '.join(left)}")
        if not collected and time.monotonic() > end - _GRACE + 0.01:
            gc.collect()
            collected = True
        time.sleep(0.005)


def _close_what_a_process_keeps() -> None:
    """Closes the idle connections of `chat()` and the demo's server, which live as long as the process."""
    shared: Any = sys.modules.get("llmbridge._call.route")
    if shared is not None:
        shared.SHARED.close()
    demo: Any = sys.modules.get("llmbridge.testing.demo")
    if demo is not None and demo._server is not None:
        demo._server.close()
        demo._forget()


def _new_threads(known: set[threading.Thread]) -> list[str]:
    return [
        f"thread {thread.name}"
        for thread in threading.enumerate()
        if thread not in known and thread.is_alive() and not thread.name.startswith(_KNOWN_THREADS)
    ]


def _new_descriptors(known: dict[str, str]) -> list[str]:
    return [f"descriptor {number} ({what})" for number, what in _descriptors().items() if known.get(number) != what]


def _descriptors() -> dict[str, str]:
    if not _DESCRIPTORS.exists():
        return {}
    found = {}
    for entry in list(_DESCRIPTORS.iterdir()):
        try:
            found[entry.name] = os.readlink(entry)
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


@pytest.fixture
def server() -> Iterator[LLMServer]:
    """A new server that answers as scripted."""
    with LLMServer() as running:
        yield running


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    """A kind of user: a plain loop, asyncio or trio."""
    return MODES[request.param]


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> Async:
    """A kind of event loop."""
    return LOOPS[request.param]


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """An event that is set at the end at the latest, for functions that wait for it."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def client(server: LLMServer) -> Iterator[Client]:
    """A client of `server`, in OpenAI's dialect, with a key and without retries."""
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, timeout=20) as made:
        yield made


@pytest.fixture(scope="session")
def authority() -> Any:
    """A certificate authority that is not trusted by default."""
    return pytest.importorskip("trustme").CA()


@pytest.fixture(scope="session")
def ca_file(authority: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CA file for `authority`."""
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="session")
def tls_context(authority: Any) -> Any:
    """A TLS context for a server of 127.0.0.1 and localhost."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


@pytest.fixture
def tls_server(tls_context: Any) -> Iterator[LLMServer]:
    """`server`, over TLS."""
    with LLMServer(ssl_context=tls_context) as running:
        yield running


@pytest.fixture
def tls_client(tls_server: LLMServer, ca_file: str) -> Iterator[Client]:
    """A client that trusts `tls_server`."""
    base_url = tls_server.base_url("openai")
    with Client("openai:m", base_url=base_url, api_key=KEY, retries=0, timeout=20, verify=ca_file) as made:
        yield made


@pytest.fixture(scope="module")
def kernel() -> Iterator[Any]:
    """A Jupyter kernel with everything of llmbridge imported, for the tests in notebook/."""
    from kernels import Kernel

    running = Kernel()
    try:
        assert running.run("import asyncio, signal, sys\nfrom llmbridge import *").status == "ok"
        yield running
    finally:
        running.close()


@pytest.fixture(scope="session")
def dask_crew() -> Iterator[Any]:
    """A cluster of Dask, for the tests in engines/."""
    from crews import dask_crew

    with dask_crew() as found:
        yield found


@pytest.fixture(scope="session")
def ray_crew() -> Iterator[Any]:
    """A cluster of Ray, for the tests in engines/."""
    from crews import ray_crew

    with ray_crew() as found:
        yield found
