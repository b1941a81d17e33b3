"""P44 with the libraries that mock requests, and with adapters and contexts of other packages."""

from __future__ import annotations

import contextlib
import gzip
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import KEY
from loopback import DONE, FINISH, event
from modes import Mode

from llmbridge import Client, RateLimited
from llmbridge.testing import LLMServer, Reply

BODY = event("При") + event("вет") + FINISH + DONE
URL = "https://api.openai.com/v1/chat/completions"
STREAM = {"Content-Type": "text/event-stream"}
Script = Callable[[int, bytes, dict[str, str]], object]


@contextlib.contextmanager
def _responses() -> Iterator[Script]:
    with pytest.importorskip("responses").RequestsMock() as mocked:
        yield lambda status, body, headers: mocked.post(URL, body=body, status=status, headers=headers)


@contextlib.contextmanager
def _requests_mock() -> Iterator[Script]:
    with pytest.importorskip("requests_mock").Mocker() as mocked:
        yield lambda status, body, headers: mocked.post(URL, content=body, status_code=status, headers=headers)


@contextlib.contextmanager
def _pook() -> Iterator[Script]:
    pook = pytest.importorskip("pook")
    with pook.use():
        yield lambda status, body, headers: pook.post(
            URL, reply=status, response_body=body, response_headers=headers, times=1
        )


MOCKS = {"responses": _responses, "requests_mock": _requests_mock, "pook": _pook}


@pytest.fixture(params=["own", "session"])
def caller(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of the real service, whose requests must not leave the process."""
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session()) if request.param == "session" else None
        yield stack.enter_context(Client("openai:m", session=session, api_key=KEY, retries=0, timeout=20))


@pytest.mark.parametrize("library", MOCKS)
def test_p44_a_mock_answers_every_call(caller: Client, mode: Mode, library: str) -> None:
    """A stream and an error, with a session and without."""
    with MOCKS[library]() as script:
        script(200, BODY, STREAM)
        assert mode.read(caller.chat("x")).pieces == ["При", "вет"]
    with MOCKS[library]() as script:
        script(429, b'{"error": {"message": "later"}}', {"Content-Type": "application/json"})
        assert isinstance(mode.read(caller.chat("x")).error, RateLimited)


@pytest.mark.parametrize("library", ["responses", "requests_mock"])
def test_p44_a_mock_may_answer_compressed(caller: Client, mode: Mode, library: str) -> None:
    """A compressed mocked answer is decompressed."""
    with MOCKS[library]() as script:
        script(200, gzip.compress(BODY), {**STREAM, "Content-Encoding": "gzip"})
        assert mode.read(caller.chat("x")).pieces == ["При", "вет"]


def test_p44_betamax_plays_what_it_has_recorded(server: LLMServer, tmp_path: Path, mode: Mode) -> None:
    """Its adapter is mounted on the caller's session."""
    betamax = pytest.importorskip("betamax")
    with requests.Session() as session:
        recorder = betamax.Betamax(session, cassette_library_dir=str(tmp_path))
        options: dict[str, Any] = {"session": session, "api_key": KEY, "retries": 0, "timeout": 20}
        with Client("openai:m", base_url=server.base_url("openai"), **options) as client:
            with recorder.use_cassette("one", record="once", match_requests_on=["method", "uri", "body"]):
                live = mode.read(client.chat("x")).pieces
            server.close()
            with recorder.use_cassette("one", record="none", match_requests_on=["method", "uri", "body"]):
                assert mode.read(client.chat("x")).pieces == live
    assert len(server.requests) == 1


def test_p44_adapters_and_sessions_of_others_are_used(server: LLMServer, mode: Mode) -> None:
    """requests-toolbelt's adapters and requests-ratelimiter's session work."""
    toolbelt = pytest.importorskip("requests_toolbelt.adapters.source")
    options_of = pytest.importorskip("requests_toolbelt.adapters.socket_options")
    limiter = pytest.importorskip("requests_ratelimiter")
    with requests.Session() as bound, requests.Session() as alive, limiter.LimiterSession(per_second=100) as limited:
        bound.mount("http://", toolbelt.SourceAddressAdapter("127.0.0.1"))
        alive.mount("http://", options_of.TCPKeepAliveAdapter())
        with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, timeout=20) as client:
            for session in (bound, alive, limited):
                for _ in range(2):
                    assert mode.complete(client.chat("x", session=session)).text
    assert server.connections == 3


PROGRAMS = {
    "truststore": "import truststore; truststore.inject_into_ssl()",
    "truststore later": """
from llmbridge import chat
assert chat("x", "openai:m", base_url=URL, api_key="k-123456").complete().text
import truststore; truststore.inject_into_ssl()""",
    "gevent": "from gevent import monkey; monkey.patch_all()",
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.quick(1)
def test_p44_patches_of_a_whole_process_are_borne(tls_server: LLMServer, ca_file: str, program: str) -> None:
    """TLS by the system's own store (which SSL_CERT_FILE extends here), and gevent's sockets and threads."""
    pytest.importorskip(program.split(maxsplit=1)[0])
    source = f"""
URL = {tls_server.base_url("openai")!r}
{PROGRAMS[program]}
from llmbridge import Client, Cancelled
import threading
for options in ({{}}, {{"verify": {ca_file!r}}}):
    with Client("openai:m", base_url=URL, api_key="k-123456", retries=0, timeout=20, **options) as client:
        for _ in range(2):
            print(len(list(client.chat("Hello"))))
        assert all(row.ok for row in client.map(map(str, range(40)), concurrency=40))
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env={"SSL_CERT_FILE": ca_file, "PATH": ""}
    )
    assert done.returncode == 0, done.stderr
    assert len(set(done.stdout.split())) == 1


def test_p44_a_frozen_clock_ends_every_wait(server: LLMServer, mode: Mode) -> None:
    """The pause before a retry passes, and timeouts work, in a test that has stopped the time."""
    freezegun = pytest.importorskip("freezegun")
    server.script(Reply(status=500), Reply("done"))
    frozen = freezegun.freeze_time("2020-01-01", real_asyncio=True, ignore=["trio"])  # whose own waits it stops
    with Client("openai-compatible:m", base_url=server.base_url("openai"), timeout=60) as client, frozen:
        assert mode.complete(client.chat("x")).text == "done"
