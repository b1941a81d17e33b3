"""The lists of models: live from every dialect, in sync and async code."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from modes import LOOPS, Async
from moments import cancelled_when

from llmbridge import (
    AuthError,
    Client,
    ConfigError,
    ConnectFailed,
    ProtocolError,
    Retry,
    ServerError,
    UnknownProvider,
    amodels,
    embed,
    models,
    providers,
)
from llmbridge.testing import LLMServer, Reply

KEY = "sk-list-0123456789"
DIALECTS = {
    "openai": "/v1/models",
    "openai-compatible": "/v1/models",
    "openai-responses": "/v1/models",
    "azure": "/openai/models?api-version=2024-10-21",
    "anthropic": "/v1/models",
    "gemini": "/v1beta/models",
    "ollama": "/api/tags",
    "mistral": "/mistral/v1/models",
    "cohere": "/cohere/v1/models",
}
EACH = pytest.mark.parametrize("dialect", DIALECTS)
LOOP = pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))


def way(server: LLMServer, dialect: str = "openai", **options: Any) -> dict[str, Any]:
    """Options that lead to the server."""
    base_url = server.base_url("openai" if dialect == "openai-compatible" else dialect)
    return {"base_url": base_url, "api_key": KEY, "proxy": False, "retries": 0, **options}


def test_every_dialect_is_here() -> None:
    """All dialects with a list, except the rows of tests/providers/test_compatible.py, and those without a URL."""
    rows = "llmbridge.providers.compatible"
    with_list = {name for name, found in providers.known().items() if found.models_path and found.__module__ != rows}
    assert with_list == {*DIALECTS, "demo", "local"}


@EACH
def test_a_list(server: LLMServer, dialect: str) -> None:
    """The names, in the service's order; a GET without a body, with the key."""
    server.script(Reply(models=["b-2", "a-1"]))
    assert models(dialect, **way(server, dialect)) == ["b-2", "a-1"]
    (received,) = server.requests
    assert (received.method, received.body, received.header("Content-Type")) == ("GET", b"", None)
    assert received.path.partition("?")[0] == DIALECTS[dialect].partition("?")[0]
    assert received.header("Accept") == "application/json"
    assert KEY in "".join(value for _, value in received.headers)
    assert KEY not in received.path


@EACH
def test_an_empty_list(server: LLMServer, dialect: str) -> None:
    """A server without models is valid."""
    server.script(Reply(models=[]))
    assert models(dialect, **way(server, dialect)) == []


@EACH
def test_an_error(server: LLMServer, dialect: str) -> None:
    """In the service's own words."""
    server.script(Reply("No such key.", status=401))
    with pytest.raises(AuthError, match="No such key") as caught:
        models(dialect, **way(server, dialect))
    assert caught.value.provider == dialect


@EACH
@pytest.mark.parametrize("body", ["{}", "[]", '{"data": 1, "models": 1}', '"x"', "1"])
def test_invalid_lists(server: LLMServer, dialect: str, body: str) -> None:
    """An error of the tree, or nothing: never an invalid name."""
    server.script(Reply(body=body, content_type="application/json"))
    with contextlib.suppress(ProtocolError):
        assert models(dialect, **way(server, dialect)) == []


@EACH
@LOOP
def test_async(server: LLMServer, dialect: str, loop: Async) -> None:
    """The same in asyncio and trio."""
    server.script(Reply(models=["m"]))
    assert loop.run(lambda: amodels(dialect, **way(server, dialect))) == ["m"]


@pytest.mark.parametrize("name", ["vitalentum", "codelinkava"])
def test_providers_without_a_list(name: str) -> None:
    """The error names them; nothing is sent."""
    with pytest.raises(ConfigError, match=f"{name} cannot list its models"):
        models(name, api_key=KEY)


def test_what_is_refused() -> None:
    """Unknown names, unknown options, and no provider."""
    with pytest.raises(UnknownProvider, match="known are anthropic"):
        models("opnai")
    with pytest.raises(ConfigError, match="models\\(\\) has no option temperature") as caught:
        models("openai", temperature=1)
    assert "base_url" in str(caught.value)
    assert "run_tools" not in str(caught.value)
    with pytest.raises(ConfigError, match="no provider given: pass provider=") as caught:
        models()
    assert len(caught.value.message) < 100
    with pytest.raises(ConfigError, match="several models: say with provider="):
        Client(["demo", "openai:m"]).models()
    with pytest.raises(ConfigError, match="provider must be a name"):
        models(5)  # type: ignore[arg-type, unused-ignore]
    with pytest.raises(ConfigError, match="has no option temperature"):
        amodels("openai", temperature=1)


def test_no_server_there() -> None:
    """The address is in the message."""
    with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1:9"):
        models("openai", base_url="http://127.0.0.1:9/v1", api_key=KEY, proxy=False, retries=0)


def test_it_is_tried_again(server: LLMServer) -> None:
    """Like a chat."""
    server.script(Reply("Down", status=503), Reply(models=["m"]))
    assert models("openai", **way(server, retries=Retry(times=1, backoff=0.001))) == ["m"]
    server.script(Reply("Down", status=503))
    with pytest.raises(ServerError):
        models("openai", **way(server))


class TestClient:
    """`Client.models`."""

    def test_the_defaults_of_a_client(self, server: LLMServer) -> None:
        """Its provider, key, URL and headers."""
        server.default = Reply(models=["m"])
        with Client("openai:m", headers={"X-App": "a"}, **way(server)) as client:
            assert client.models() == ["m"]
            assert client.models("openai-compatible", headers={"X-App": "b"}) == ["m"]
        first, second = server.requests
        assert (first.header("X-App"), second.header("X-App")) == ("a", "b")
        assert first.header("Authorization") == f"Bearer {KEY}"
        assert server.connections == 1

    @LOOP
    def test_in_async_code(self, server: LLMServer, loop: Async) -> None:
        """`Client.amodels`, in asyncio and trio, with the same defaults."""
        server.default = Reply(models=["m"])
        with Client("openai:m", headers={"X-App": "a"}, **way(server)) as client:
            assert loop.run(client.amodels) == ["m"]
        assert server.requests[0].header("X-App") == "a"

    def test_a_client_of_any_server(self, server: LLMServer) -> None:
        """With a base URL, a model's own name is enough."""
        server.default = Reply(models=["m"])
        with Client("llama3:8b", **way(server)) as client:
            assert client.models() == ["m"]

    def test_the_model_of_the_environment(self, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """LLMBRIDGE_MODEL names the provider."""
        monkeypatch.setenv("LLMBRIDGE_MODEL", "mistral:m")
        server.default = Reply(models=["m"])
        assert models(**way(server, "mistral")) == ["m"]
        assert server.requests[0].path == "/mistral/v1/models"


@LOOP
def test_cancelling(server: LLMServer, loop: Async) -> None:
    """The task is free at once, and the connection is closed."""
    server.default = Reply(header_delay=10)
    loop.run(lambda: cancelled_when(lambda: server.requests, lambda: amodels("openai", **way(server))))
    assert server.requests[0].gone.wait(30)


@pytest.mark.parametrize(
    ("dialect", "settings", "path", "headers"),
    [
        ("azure", {"api_version": "2025-01-01-preview"}, "/openai/models?api-version=2025-01-01-preview", {}),
        ("gemini", {"api_version": "v1"}, "/v1/models?pageSize=1000", {}),
        (
            "anthropic",
            {"api_version": "2026-10-21", "beta": ["a", "b"]},
            "/v1/models?limit=1000",
            {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b"},
        ),
    ],
)
def test_settings_of_the_client_or_the_call_count(
    server: LLMServer, dialect: str, settings: dict[str, Any], path: str, headers: dict[str, str]
) -> None:
    """The API version; None removes the client's. Other parameters are not sent."""
    server.default = Reply(models=["m"])
    with Client(f"{dialect}:m", temperature=0.5, **settings, **way(server, dialect)) as client:
        client.models()
        client.models(**dict.fromkeys(settings))
    models(dialect, **settings, **way(server, dialect))
    first, bare, last = server.requests
    for received in (first, last):
        assert received.path.endswith(path)
        assert {name: received.header(name) for name in headers} == headers
    assert (bare.path, bare.headers) != (first.path, first.headers)


@pytest.mark.parametrize("dialect", ["azure", "gemini", "anthropic"])
def test_an_invalid_setting_is_rejected_at_the_call(dialect: str) -> None:
    """As for a chat."""
    with pytest.raises(ConfigError, match="api_version"):
        models(dialect, api_version=7, base_url="http://127.0.0.1:9", api_key=KEY)


@pytest.mark.parametrize("name", ["run_tools", "unsupported"])
def test_what_only_a_chat_has_is_refused(name: str) -> None:
    """None is ignored, since wrappers pass it on."""
    assert models("demo", **{name: None}) == ["demo"]
    assert len(embed("a", model="demo", **{name: None})) == 1
    with pytest.raises(ConfigError, match=f"{name} is for chats only"):
        models("demo", **{name: True})
    with pytest.raises(ConfigError, match=f"{name} is for chats only"):
        embed("a", model="demo", **{name: True})
