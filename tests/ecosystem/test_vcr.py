"""P44 with vcrpy and pytest-recording: a recorded cassette plays without the service."""

from __future__ import annotations

import contextlib
import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import KEY
from loopback import DONE, FINISH, chunk, event, head
from modes import Mode

from llmbridge import Client, ClockExpired, RateLimited, Timeout
from llmbridge.testing import HOLD, LLMServer, Reply

vcr = pytest.importorskip("vcr")
BODY = event("При") + event("вет") + FINISH + DONE
MATCH = ["method", "uri", "body"]


@pytest.fixture(params=["own", "session"])
def options(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Options of a client: its own connections, or a session of the caller's."""
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(requests.Session()) if request.param == "session" else None
        yield {"session": session, "api_key": KEY, "retries": 0, "timeout": 20}


def cassette(path: Path, mode: str = "once", **options: Any) -> Any:
    """A cassette as tests use it: without the key."""
    options = {"filter_headers": ["authorization"], "match_on": MATCH, **options}
    return vcr.use_cassette(str(path), record_mode=mode, **options)


def test_p44_a_cassette_plays_what_it_has_recorded(
    server: LLMServer, options: dict[str, Any], tmp_path: Path, mode: Mode
) -> None:
    """Streams, whole answers, errors, compressed answers and embeddings are the same, and no key is saved."""
    path = tmp_path / "cassette.yaml"
    packed = gzip.compress(BODY)
    replies = [
        Reply(raw=[head("Transfer-Encoding: chunked"), *map(chunk, BODY.splitlines(keepends=True)), chunk(b"")]),
        Reply(raw=[head("Content-Encoding: gzip", f"Content-Length: {len(packed)}"), packed]),
        Reply("Later", status=429),
    ]
    with Client("openai:m", base_url=server.base_url("openai"), **options) as client:

        def seen() -> list[Any]:
            texts = [mode.read(client.chat(question)).pieces for question in ("one", "two")]
            error = mode.read(client.chat("three")).error
            assert isinstance(error, RateLimited)
            whole = mode.complete(client.chat("four", stream=False))
            vectors = client.embed("a", model="openai:e").vectors
            return [texts, error.message, whole.text, whole.usage, list(map(list, vectors))]

        assert client.chat("before").complete().text  # its kept connection must not be used below
        server.script(*replies)
        with cassette(path) as recorded:
            live = seen()
        assert (len(recorded), len(server.requests)) == (5, 6)
        assert live[0] == [["При", "вет"]] * 2
        assert client.chat("after").complete().text
        assert len(server.requests) == 7  # the cassette's connections are not used afterwards
        server.close()
        with cassette(path, "none") as played:
            assert seen() == live
        assert played.play_count == 5
    assert KEY not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("serializer", ["yaml", "json"])
def test_p44_a_cassette_without_a_filter_is_written(
    server: LLMServer, options: dict[str, Any], tmp_path: Path, mode: Mode, serializer: str
) -> None:
    """It contains the key, which is the caller's responsibility, but nothing else of llmbridge."""
    path = tmp_path / "open"
    with Client("openai:m", base_url=server.base_url("openai"), **options) as client:
        with cassette(path, filter_headers=[], serializer=serializer):
            live = mode.read(client.chat("x")).pieces
        server.close()
        with cassette(path, "none", filter_headers=[], serializer=serializer):
            assert mode.read(client.chat("x")).pieces == live
    text = path.read_text(encoding="utf-8")
    assert KEY in text
    assert "llmbridge.secret" not in text


def test_p44_what_no_cassette_holds_is_said_once(server: LLMServer, options: dict[str, Any], tmp_path: Path) -> None:
    """vcrpy's error comes through unchanged, and nothing is retried or sent."""
    with (
        Client("openai:m", base_url=server.base_url("openai"), **{**options, "retries": 3}) as client,
        cassette(tmp_path / "empty.yaml", "none"),
        pytest.raises(vcr.errors.CannotOverwriteExistingCassetteException, match=r"empty\.yaml"),
    ):
        list(client.chat("x"))
    assert not server.requests


def test_p44_over_tls(tls_server: LLMServer, options: dict[str, Any], ca_file: str, tmp_path: Path, mode: Mode) -> None:
    """The same over https://."""
    with Client("openai:m", base_url=tls_server.base_url("openai"), verify=ca_file, **options) as client:
        with cassette(tmp_path / "tls.yaml"):
            live = mode.read(client.chat("x")).pieces
        tls_server.close()
        with cassette(tmp_path / "tls.yaml", "none"):
            assert mode.read(client.chat("x")).pieces == live
    assert len(tls_server.requests) == 1


def test_p44_a_recording_has_its_clocks(server: LLMServer, options: dict[str, Any], tmp_path: Path, mode: Mode) -> None:
    """vcrpy reads the whole answer first, but the total timeout ends that."""
    server.script(Reply(raw=[head("Transfer-Encoding: chunked"), chunk(event("a")), HOLD]))
    with Client("openai:m", base_url=server.base_url("openai"), **options) as client, cassette(tmp_path / "held.yaml"):
        assert isinstance(mode.read(client.chat("x", timeout=Timeout(total=0.3))).error, ClockExpired)
        assert server.requests[0].gone.wait(5)


def test_p44_a_first_call_may_be_made_inside_a_cassette(server: LLMServer, tmp_path: Path) -> None:
    """llmbridge may be loaded while vcrpy has replaced classes: later calls still have timeouts."""
    program = f"""
import vcr
with vcr.use_cassette({str(tmp_path / "first.yaml")!r}):
    from llmbridge import Client, ClockExpired, Timeout
    client = Client("openai:m", base_url={server.base_url("openai")!r}, api_key="k-123456", retries=0)
    assert client.chat("x").complete().text
try:
    list(client.chat("y", timeout=Timeout(total=1.5)))
except ClockExpired as error:
    print("expired", error.partial)
"""
    server.script(Reply("x"), Reply(raw=[head("Transfer-Encoding: chunked"), chunk(event("a")), HOLD]))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("expired a\n", "")


def test_p44_pytest_recording_plays_with_the_network_blocked(server: LLMServer, tmp_path: Path) -> None:
    """`@pytest.mark.vcr` records with --record-mode, and plays with --block-network."""
    pytest.importorskip("pytest_recording")
    (tmp_path / "test_app.py").write_text(
        f"""
import asyncio
import pytest
from llmbridge import chat

@pytest.fixture(scope="module")
def vcr_config():
    return {{"filter_headers": ["authorization"], "match_on": ["method", "uri", "body"]}}

@pytest.mark.vcr
def test_stream():
    options = {{"base_url": {server.base_url("openai")!r}, "api_key": "sk-recorded-123456"}}
    assert "".join(chat("Hello", "openai:m", **options)).endswith("Hello")

    async def main():
        return [piece async for piece in chat("Again", "openai:m", **options)]

    assert "".join(asyncio.run(main())).endswith("Again")
""",
        encoding="utf-8",
    )

    def run(*options: str) -> None:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:xdist", *options]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    run("--record-mode=once")
    assert len(server.requests) == 2
    server.close()
    run("--block-network")
    (recorded,) = tmp_path.rglob("*.yaml")
    assert "sk-recorded" not in recorded.read_text(encoding="utf-8")
