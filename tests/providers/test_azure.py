"""Azure: OpenAI's dialect with the path of a deployment, or below /openai/v1 without one."""

from __future__ import annotations

from typing import Any

import pytest

from llmbridge import Client, ConfigError, InvalidRequest, MissingKey, NotFound, chat, embed, models
from llmbridge.messages import ChatRequest
from llmbridge.providers.azure import Azure
from llmbridge.testing import LLMServer, Reply

KEY = "azure-key-0123456789"
OF_A_DEPLOYMENT = "/openai/deployments/chat-eu/{}?api-version=2024-10-21"

# Paths after the server's root in the base URL: chat, embeddings and models.
PLACES: dict[str, tuple[str, str, str]] = {
    "": (
        OF_A_DEPLOYMENT.format("chat/completions"),
        OF_A_DEPLOYMENT.format("embeddings"),
        "/openai/models?api-version=2024-10-21",
    ),
    "/gateway": (
        "/gateway" + OF_A_DEPLOYMENT.format("chat/completions"),
        "/gateway" + OF_A_DEPLOYMENT.format("embeddings"),
        "/gateway/openai/models?api-version=2024-10-21",
    ),
    "/openai/v1/": ("/openai/v1/chat/completions", "/openai/v1/embeddings", "/openai/v1/models"),
}


@pytest.mark.parametrize("place", PLACES)
class TestPlaces:
    """Both kinds of base URL, as argument and from the environment."""

    @pytest.fixture(autouse=True, params=["argument", "environment"])
    def asked(
        self, request: pytest.FixtureRequest, place: str, server: LLMServer, monkeypatch: pytest.MonkeyPatch
    ) -> dict[str, Any]:
        """Options that name the server."""
        if request.param == "environment":
            monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", server.root + place)
            monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
            return {"proxy": False, "retries": 0}
        return {"base_url": server.root + place, "api_key": KEY, "proxy": False, "retries": 0}

    def test_a_chat(self, place: str, asked: dict[str, Any], server: LLMServer) -> None:
        """The key in its own header, the model in the body as well, and max_tokens under its new name."""
        server.script(Reply("Hello"))
        done = chat("Hi", "azure:chat-eu", max_tokens=5, **asked).complete()
        assert (done.text, done.provider, done.model) == ("Hello", "azure", "chat-eu")
        assert done.usage is not None
        (received,) = server.requests
        assert received.path == PLACES[place][0]
        assert (received.header("api-key"), received.header("Authorization")) == (KEY, None)
        assert received.json == {
            "model": "chat-eu",
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens": 5,
        }

    def test_embeddings(self, place: str, asked: dict[str, Any], server: LLMServer) -> None:
        """A deployment of its own."""
        assert len(embed(["a", "b"], "azure:chat-eu", dimensions=3, **asked)[1]) == 3
        assert server.requests[0].path == PLACES[place][1]
        assert server.requests[0].json == {"model": "chat-eu", "input": ["a", "b"], "dimensions": 3}

    def test_models(self, place: str, asked: dict[str, Any], server: LLMServer) -> None:
        """The models of the resource."""
        server.script(Reply(models=["gpt-x"]))
        assert models("azure", **asked) == ["gpt-x"]
        assert server.requests[0].path == PLACES[place][2]
        assert server.requests[0].header("api-key") == KEY


def test_the_version_is_a_setting(server: LLMServer) -> None:
    """From a call or a client; it is not in the body."""
    with Client("azure:d", base_url=server.root, api_key=KEY, proxy=False, api_version="2025-04-01-preview") as client:
        client.chat("Hi").complete()
        client.chat("Hi", api_version="2024-06-01").complete()
    paths = [received.path.partition("?")[2] for received in server.requests]
    assert paths == ["api-version=2025-04-01-preview", "api-version=2024-06-01"]
    assert all("api_version" not in received.json for received in server.requests)


@pytest.mark.parametrize("version", ["", " ", 2024, ["v1"]])
def test_a_version_is_text(version: Any) -> None:
    """It becomes part of the URL."""
    with pytest.raises(InvalidRequest, match="api_version"):
        Azure.encode(ChatRequest.checked("d", "Hi", {"api_version": version}))


@pytest.mark.parametrize(
    ("model", "params", "name"),
    [
        ("d", {"top_k": 3}, "top_k"),
        ("d", {"reasoning_effort": 2000}, "reasoning_effort"),
        ("gpt-5-mini", {"temperature": 0}, "temperature"),
    ],
)
def test_it_refuses_what_openai_refuses(model: str, params: dict[str, Any], name: str) -> None:
    """The models are the same, and are recognized if the deployment has the model's name."""
    with pytest.raises(InvalidRequest, match=f"azure rejects {name}"):
        chat("Hi", f"azure:{model}", base_url="http://127.0.0.1:1", api_key=KEY, **params).complete()


def test_it_takes_pictures_where_openai_does() -> None:
    """From users, not in system messages."""
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    turns = [{"role": "system", "content": [image]}, {"role": "user", "content": "Hi"}]
    with pytest.raises(InvalidRequest, match="a system message holds a part of type 'image_url'"):
        chat(turns, "azure:d", base_url="http://127.0.0.1:1", api_key=KEY).complete()


def test_names_are_quoted() -> None:
    """A slash or a question mark in a deployment or version is quoted."""
    path = Azure.encode(ChatRequest.checked("a/b?c", "Hi", {"api_version": "1&x=2"})).path
    assert path == "/openai/deployments/a%2Fb%3Fc/chat/completions?api-version=1%26x%3D2"
    assert Azure.path_below("https://x/openai/v1", path) == "/chat/completions"
    assert Azure.path_below("https://x/openai/v1/gateway", path) == path


def test_without_an_endpoint_or_a_key() -> None:
    """The messages name the variables."""
    with pytest.raises(ConfigError, match=r"https://NAME\.openai\.azure\.com, or set AZURE_OPENAI_ENDPOINT"):
        chat("Hi", "azure:d", api_key=KEY)


def test_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint alone is not enough."""
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://x.openai.azure.com")
    with pytest.raises(MissingKey, match="AZURE_OPENAI_API_KEY"):
        chat("Hi", "azure:d")


def test_a_token_of_entra_in_place_of_a_key(server: LLMServer) -> None:
    """As the caller's header, with the base URL as argument."""
    headers = {"Authorization": "Bearer entra-token-0123"}
    chat("Hi", "azure:d", base_url=server.root, headers=headers, proxy=False).complete()
    assert server.requests[0].header("Authorization") == "Bearer entra-token-0123"
    assert server.requests[0].header("api-key") is None


@pytest.mark.parametrize(
    ("given", "header"),
    [
        ("0123456789abcdef0123456789abcdef", "api-key"),
        ("A1b2" * 21, "api-key"),
        ("any-other-key", "api-key"),
        ("eyJ0eXAiOiJKV1Qi.eyJhdWQiOiJodHRw.c2lnbmF0dXJl", "Authorization"),
    ],
)
def test_a_key_and_a_token_go_into_different_headers(given: str, header: str, server: LLMServer) -> None:
    """Entra's tokens are JSON Web Tokens; Azure rejects them as keys, and keys as tokens."""
    chat("Hi", "azure:d", base_url=server.root, api_key=given, proxy=False).complete()
    bearer = f"Bearer {given}" if header == "Authorization" else None
    assert server.requests[0].header("Authorization") == bearer
    assert server.requests[0].header("api-key") == (None if bearer else given)


@pytest.mark.parametrize(
    ("given", "header"),
    [("0123456789abcdef0123456789abcdef", "api-key"), ("A1b2" * 21, "api-key"), ("entra-token", "Authorization")],
)
def test_a_function_gives_a_token(given: str, header: str, server: LLMServer) -> None:
    """Unless it looks like a key, which a vault may hold."""
    chat("Hi", "azure:d", base_url=server.root, api_key=lambda: given, proxy=False).complete()
    bearer = f"Bearer {given}" if header == "Authorization" else None
    assert server.requests[0].header("Authorization") == bearer
    assert server.requests[0].header("api-key") == (None if bearer else given)


def test_a_deployment_that_is_not_there(server: LLMServer) -> None:
    """The error has Azure's code."""
    error = {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}
    server.script(Reply(status=404, error=error))
    with pytest.raises(NotFound, match="does not exist") as caught:
        chat("Hi", "azure:d", base_url=server.root, api_key=KEY, proxy=False).complete()
    assert caught.value.code == "DeploymentNotFound"
