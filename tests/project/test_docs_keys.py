"""docs/keys.md: its examples for cloud services run, with stand-ins for the libraries that they import."""

from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmbridge
from llmbridge.testing import LLMServer, Reply

PAGE = (Path(__file__).parents[2] / "docs" / "keys.md").read_text(encoding="utf-8")
REFUSED = Reply("It has run out.", status=401)


def example(library: str) -> str:
    """The example of the page that needs a library."""
    (code,) = re.findall(rf"```python\n(# not run: needs {library}\b.*?)```", PAGE, re.DOTALL)
    return str(code)


@pytest.fixture
def run(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs an example against the server, with stand-ins for a library's modules."""
    monkeypatch.setattr(llmbridge, "Client", functools.partial(llmbridge.Client, base_url=server.root))
    server.script(REFUSED)

    def run_example(library: str, modules: dict[str, dict[str, Any]]) -> None:
        for name, parts in modules.items():
            for end in range(name.count(".") + 1):
                parent = ".".join(name.split(".")[: end + 1])
                if end < name.count(".") and parent in sys.modules:
                    continue
                monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
            vars(sys.modules[name]).update(parts)
        exec(compile(example(library), f"docs/keys.md, {library}", "exec"), {"__name__": "example"})

    return run_example


def sent(server: LLMServer) -> list[str | None]:
    """The tokens that the server received."""
    return [received.header("Authorization") for received in server.requests]


def test_entra(run: Callable[..., None], server: LLMServer) -> None:
    """azure-identity: a function that returns a token, and a new one at the next call."""
    asked: list[Any] = []

    class DefaultAzureCredential:
        pass

    def get_bearer_token_provider(credential: Any, *scopes: str) -> Callable[[], str]:
        assert isinstance(credential, DefaultAzureCredential)

        def provide() -> str:
            asked.append(scopes)
            return f"entra-{len(asked)}"

        return provide

    names = {
        "DefaultAzureCredential": DefaultAzureCredential,
        "get_bearer_token_provider": get_bearer_token_provider,
    }
    run("azure-identity", {"azure.identity": names})
    assert sent(server) == ["Bearer entra-1", "Bearer entra-2"]
    assert asked[0] == ("https://cognitiveservices.azure.com/.default",)
    assert [received.header("api-key") for received in server.requests] == [None, None]


def test_google(run: Callable[..., None], server: LLMServer) -> None:
    """google-auth: credentials that are refreshed when they have expired."""

    class Credentials:
        project_id = "p-1"
        token: str | None = None
        valid = False
        refreshed = 0

        @classmethod
        def from_service_account_file(cls, path: str, scopes: list[str]) -> Credentials:
            assert (path, scopes) == ("account.json", ["https://www.googleapis.com/auth/cloud-platform"])
            return cls()

        def refresh(self, request: Any) -> None:
            assert isinstance(request, Request)
            self.refreshed += 1
            self.token, self.valid = f"ya29.token-{self.refreshed}", self.refreshed > 1

    class Request:
        pass

    modules = {
        "google.auth.transport.requests": {"Request": Request},
        "google.oauth2.service_account": {"Credentials": Credentials},
    }
    run("google-auth", modules)
    assert sent(server) == ["Bearer ya29.token-1", "Bearer ya29.token-2"]
    assert server.requests[1].path.startswith("/v1/projects/p-1/locations/global/publishers/google/")


def test_databricks(run: Callable[..., None], server: LLMServer) -> None:
    """databricks-sdk: the header of any login method."""

    class Config:
        asked = 0

        def authenticate(self) -> dict[str, str]:
            self.asked += 1
            return {"Authorization": f"Bearer dapi-{self.asked}"}

    class WorkspaceClient:
        def __init__(self) -> None:
            self.config = Config()

    run("databricks-sdk", {"databricks.sdk": {"WorkspaceClient": WorkspaceClient}})
    assert sent(server) == ["Bearer dapi-1", "Bearer dapi-2"]
    assert server.requests[0].json["model"] == "databricks-claude-sonnet-5-5"


def test_snowflake(
    run: Callable[..., None], server: LLMServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyJWT: a token signed for each request, valid for an hour at most."""
    (tmp_path / "rsa_key.p8").write_text("a key", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    signed: list[dict[str, Any]] = []

    def encode(payload: dict[str, Any], key: str, algorithm: str) -> str:
        assert (key, algorithm) == ("a key", "RS256")
        signed.append(payload)
        return f"eyJ.jwt-{len(signed)}"

    run("PyJWT", {"jwt": {"encode": encode}})
    assert sent(server) == ["Bearer eyJ.jwt-1", "Bearer eyJ.jwt-2"]
    assert server.requests[0].header("X-Snowflake-Authorization-Token-Type") == "KEYPAIR_JWT"
    (claims, _) = signed
    assert claims["iss"].startswith(claims["sub"] + ".SHA256:")
    assert 0 < claims["exp"] - claims["iat"] <= 3600
