"""P44 with requests-cache: a second call gets the same answer without the service."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import KEY
from loopback import DONE, FINISH, chunk, event, head
from modes import Mode

from llmbridge import Client, RateLimited
from llmbridge.testing import CLOSE, LLMServer, Reply

requests_cache = pytest.importorskip("requests_cache")
BODY = event("При") + event("вет") + FINISH + DONE
PACKED = gzip.compress(BODY)
FORMS = {
    "chunked": [head("Transfer-Encoding: chunked"), *map(chunk, (BODY[:30], BODY[30:], b""))],
    "length": [head(f"Content-Length: {len(BODY)}"), BODY],
    "until the end": [head("Connection: close"), BODY, CLOSE],
    "gzip": [head(f"Content-Length: {len(PACKED)}", "Content-Encoding: gzip"), PACKED],
    "gzip in chunks": [head("Transfer-Encoding: chunked", "Content-Encoding: gzip"), chunk(PACKED), chunk(b"")],
}


@pytest.fixture(params=["memory", "sqlite", "filesystem"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A session that caches answers to POST."""
    with requests_cache.CachedSession(tmp_path / "kept", backend=request.param, allowable_methods=["POST"]) as made:
        yield made
        made.cache.close()


@pytest.mark.parametrize("form", FORMS)
def test_p44_a_cache_hands_the_pieces_on_as_they_were(server: LLMServer, session: Any, mode: Mode, form: str) -> None:
    """Pieces, raw events and the Completion are equal, and nothing is sent again."""
    server.script(*[Reply(raw=FORMS[form])] * 2)
    options: dict[str, Any] = {"session": session, "api_key": KEY, "retries": 0, "timeout": 20}
    with Client("openai:m", base_url=server.base_url("openai"), **options) as client:
        found = [mode.read(client.chat("x")).pieces for _ in range(3)]
        assert found == [["При", "вет"]] * 3
        raw = [[repr(item) for item in mode.read(client.chat("x").raw_events()).pieces] for _ in range(2)]
        assert raw[0] == raw[1]
        assert len(raw[0]) > 3
        assert mode.complete(client.chat("x")).finish_reason == "stop"
    assert len(server.requests) == 1


def test_p44_errors_are_not_kept(server: LLMServer, session: Any, mode: Mode) -> None:
    """The answer after a rejection comes from the service."""
    server.script(Reply("Later", status=429), Reply("x"))
    options: dict[str, Any] = {"session": session, "api_key": KEY, "retries": 0, "timeout": 20}
    with Client("openai:m", base_url=server.base_url("openai"), **options) as client:
        assert isinstance(mode.read(client.chat("x")).error, RateLimited)
        assert mode.read(client.chat("x")).pieces == ["x"]
        assert (
            mode.complete(client.chat("whole", stream=False)).text == client.chat("whole", stream=False).complete().text
        )
    assert len(server.requests) == 3


@pytest.mark.parametrize("serializer", ["pickle", "json", "yaml"])
@pytest.mark.parametrize("service", ["openai", "anthropic", "azure", "gemini"])
def test_p44_no_cache_keeps_a_key(server: LLMServer, tmp_path: Path, service: str, serializer: str) -> None:
    """In no service's header, and with no serializer."""
    options: dict[str, Any] = {"api_key": KEY, "headers": {"X-Other-Token": "canary-of-a-header"}, "retries": 0}
    kept: dict[str, Any] = {"backend": "filesystem", "allowable_methods": ["POST"], "serializer": serializer}
    with requests_cache.CachedSession(tmp_path / "kept", **kept) as session:
        with Client(f"{service}:m", base_url=server.base_url(service), session=session, **options) as client:
            assert client.chat("x").complete().text == client.chat("x").complete().text
        session.cache.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        assert KEY.encode() not in data
        assert b"canary-of" not in data
    assert len(server.requests) == 1
    assert server.requests[0].header("X-Other-Token") == "canary-of-a-header"


def test_p44_a_cache_for_all_sessions_counts(server: LLMServer, tmp_path: Path, mode: Mode) -> None:
    """`install_cache()` replaces the session class as long as it is installed."""
    server.script(*[Reply(["При", "вет"])] * 2)
    with Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, timeout=20) as client:
        requests_cache.install_cache(tmp_path / "all", backend="filesystem", allowable_methods=["POST"])
        try:
            assert [mode.read(client.chat("x")).pieces for _ in range(2)] == [["При", "вет"]] * 2
            assert len(server.requests) == 1
        finally:
            requests_cache.get_cache().close()
            requests_cache.uninstall_cache()
        assert mode.read(client.chat("x")).pieces == ["При", "вет"]
    assert len(server.requests) == 2
