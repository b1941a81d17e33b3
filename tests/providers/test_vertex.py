"""Vertex AI: Gemini and Claude with paths for a project, and tokens of Google Cloud."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import pytest
from canary import KEY, Canary
from modes import Mode

from llmbridge import (
    AuthError,
    Client,
    ConfigError,
    InvalidRequest,
    LLMBridgeError,
    MissingKey,
    chat,
    embed,
    models,
    providers,
)
from llmbridge.messages import ChatRequest
from llmbridge.provider import Provider
from llmbridge.providers import vertex
from llmbridge.providers.vertex import Vertex, VertexAnthropic
from llmbridge.testing import LLMServer, Reply

BOTH = pytest.mark.parametrize("model", ["vertex:gemini-2.5-flash", "vertex-anthropic:claude-sonnet-4-5@20250929"])
PLACE = "/v1/projects/p-1/locations/europe-west4/publishers"
PATHS = {
    "vertex:gemini-2.5-flash": f"{PLACE}/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
    "vertex-anthropic:claude-sonnet-4-5@20250929": (
        f"{PLACE}/anthropic/models/claude-sonnet-4-5@20250929:streamRawPredict"
    ),
}


def encoded(provider: type[Provider], model: str, **params: Any) -> Any:
    """The encoded request of a question."""
    return provider.encode(ChatRequest.checked(model, "Hi", params))


class Google:
    """A stand-in for google-auth: the interface of its credentials, recording its use."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.refreshed = 0
        self.token: str | None = None
        self.valid = False
        self.failure: Exception | None = None

    def default(self, scopes: Any = None) -> tuple[Google, str]:
        """Like `google.auth.default`."""
        if self.failure is not None:
            raise self.failure
        self.scopes.append(scopes)
        return self, "a-project"

    def refresh(self, request: Any) -> None:
        """Like `Credentials.refresh`."""
        assert type(request).__name__ == "Request"
        self.refreshed += 1
        self.token, self.valid = f"ya29.token-{self.refreshed}", True


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Google:
    """The part of google-auth that is used."""
    made = Google()
    monkeypatch.setattr(vertex, "_found", None)
    for name, parts in {
        "google": {},
        "google.auth": {"default": made.default},
        "google.auth.transport": {},
        "google.auth.transport.requests": {"Request": type("Request", (), {})},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, name, module)
    return made


@pytest.fixture
def no_google(monkeypatch: pytest.MonkeyPatch) -> None:
    """google-auth is not installed."""
    monkeypatch.setitem(sys.modules, "google.auth", None)


class TestWire:
    """The address and content of a request."""

    @BOTH
    def test_a_chat(self, model: str, mode: Mode, server: LLMServer) -> None:
        """In the dialect of its publisher, with a token as a Bearer."""
        server.script(Reply(["Hel", "lo"], usage={"prompt_tokens": 3, "completion_tokens": 2}))
        with Client(model, base_url=server.root, api_key="a-token", project="p-1", location="europe-west4") as client:
            done = mode.complete(client.chat("Hi", max_tokens=9))
        assert (done.text, done.finish_reason) == ("Hello", "stop")
        assert f"{done.provider}:{done.model}" == model
        assert done.usage is not None
        (received,) = server.requests
        assert received.path == PATHS[model]
        assert received.header("Authorization") == "Bearer a-token"
        assert not {"model", "project", "location"} & received.json.keys()

    def test_claude_takes_its_version_in_the_body(self, server: LLMServer) -> None:
        """Instead of the model and Anthropic's header; beta features stay in theirs."""
        model = "vertex-anthropic:claude-opus-4-1"
        chat("Hi", model, base_url=server.root, api_key="t", project="p", beta=["a", "b"], proxy=False).complete()
        (received,) = server.requests
        assert received.json["anthropic_version"] == "vertex-2023-10-16"
        assert received.json["stream"] is True
        assert received.header("anthropic-version") is None
        assert received.header("anthropic-beta") == "a,b"
        assert encoded(VertexAnthropic, "claude", stream=False).path.endswith("/models/claude:rawPredict")
        with pytest.raises(InvalidRequest, match="api_version: Vertex AI has only the version"):
            chat("Hi", model, base_url=server.root, api_version="2023-06-01")

    @BOTH
    def test_tools_run(self, model: str, server: LLMServer) -> None:
        """The result is sent back in the dialect's form."""

        def add(a: int, b: int) -> int:
            return a + b

        server.script(Reply("", tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}]), Reply("3"))
        with Client(model, base_url=server.root, api_key="t", project="p") as client:
            assert client.run("1 + 2?", tools=[add]).complete().text == "3"
        assert len(server.requests) == 2

    @BOTH
    @pytest.mark.parametrize(
        ("location", "host"),
        [
            (None, "aiplatform.googleapis.com"),
            ("global", "aiplatform.googleapis.com"),
            ("us-east5", "us-east5-aiplatform.googleapis.com"),
            ("eu", "aiplatform.eu.rep.googleapis.com"),
            ("us", "aiplatform.us.rep.googleapis.com"),
        ],
    )
    def test_each_location_has_its_host(self, model: str, location: str | None, host: str) -> None:
        """It is in the path as well."""
        name, _, model = model.partition(":")
        given = {} if location is None else {"location": location}
        made = encoded(providers.find(name), model, project="p", **given)
        assert made.base_url == f"https://{host}"
        assert made.path.startswith(f"/v1/projects/p/locations/{location or 'global'}/publishers/")

    def test_the_version_of_geminis_api_is_a_setting(self) -> None:
        """It is part of the path."""
        path = encoded(Vertex, "gemini-2.5-flash", project="p", api_version="v1beta1").path
        assert path.startswith("/v1beta1/projects/p/locations/global/publishers/google/models/")

    @BOTH
    def test_the_host_of_the_location_is_used(self, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Unless the caller gives another one; the error for an unknown host names it."""
        stream = chat(
            "Hi", model, api_key="t", project="p", location="nowhere-1", proxy="http://127.0.0.1:9", retries=0
        )
        seen: list[str] = []
        from llmbridge import _transport

        def note(self: Any, call: Any, request: Any) -> Any:
            seen.append(request.url)
            raise LLMBridgeError("not sent")

        monkeypatch.setattr(_transport.Transport, "send", note)
        with pytest.raises(LLMBridgeError, match="not sent"):
            stream.complete()
        assert seen[0].startswith("https://nowhere-1-aiplatform.googleapis.com/v1/projects/p/locations/nowhere-1/")


class TestSettings:
    """Where project and location come from."""

    @BOTH
    def test_the_environment(self, model: str, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """Google's own variables; the call's options win."""
        monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p-1")
        monkeypatch.setenv("GOOGLE_CLOUD_LOCATION", "europe-west4")
        asked: dict[str, Any] = {"base_url": server.root, "api_key": "t", "proxy": False}
        chat("Hi", model, **asked).complete()
        chat("Hi", model, project="p-2", location=None, **asked).complete()
        provider = providers.find(model.partition(":")[0])
        provider.create_completion(model.partition(":")[2], "Hi", stream=False, project="p-3", **asked)
        first, second, third = [received.path for received in server.requests]
        assert first == PATHS[model]
        assert second.startswith("/v1/projects/p-2/locations/europe-west4/")
        assert third.startswith("/v1/projects/p-3/locations/europe-west4/")

    @BOTH
    def test_without_a_project(self, model: str, server: LLMServer) -> None:
        """An error at the call; a gateway may know its own."""
        with pytest.raises(ConfigError, match="set the environment variable GOOGLE_CLOUD_PROJECT, or pass project="):
            chat("Hi", model, api_key="t")
        chat("Hi", model, base_url=server.root, api_key="t", proxy=False).complete()
        assert server.requests[0].path.startswith("/v1/publishers/")

    @BOTH
    @pytest.mark.parametrize(
        "wrong",
        [{"location": "evil.example/x"}, {"location": 5}, {"location": ""}, {"project": "a/b"}, {"project": ["p"]}],
    )
    def test_what_is_none(self, model: str, wrong: dict[str, Any]) -> None:
        """A location becomes part of the host that gets the token."""
        with pytest.raises(InvalidRequest, match=f"^{next(iter(wrong))} must be a str like"):
            chat("Hi", model, api_key="t", **{"project": "p", **wrong})

    def test_claude_under_geminis_name(self) -> None:
        """The error names the right provider."""
        with pytest.raises(InvalidRequest, match="'vertex-anthropic:claude-sonnet-4-5'"):
            chat("Hi", "vertex:claude-sonnet-4-5", api_key="t", project="p")

    @BOTH
    def test_neither_lists_models_nor_makes_embeddings(self, model: str) -> None:
        """An error at the call."""
        name = model.partition(":")[0]
        with pytest.raises(ConfigError, match="cannot list its models"):
            models(name, api_key="t")
        with pytest.raises(ConfigError, match="has no embeddings"):
            embed("x", model, api_key="t", project="p")


class TestToken:
    """Where the token comes from."""

    @BOTH
    def test_google_auth_gives_it(self, model: str, mode: Mode, server: LLMServer, google: Google) -> None:
        """Refreshed when it has expired, and loaded once for all calls."""
        with Client(model, base_url=server.root, project="p") as client:
            for _ in range(2):
                mode.complete(client.chat("Hi"))
            google.valid = False
            mode.complete(client.chat("Hi"))
        sent = [received.header("Authorization") for received in server.requests]
        assert sent == ["Bearer ya29.token-1", "Bearer ya29.token-1", "Bearer ya29.token-2"]
        assert google.scopes == [["https://www.googleapis.com/auth/cloud-platform"]]

    @BOTH
    def test_a_token_of_the_callers(
        self, model: str, mode: Mode, server: LLMServer, google: Google, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a str, from a function, or in a variable; google-auth is not used then."""
        google.failure = AssertionError("asked")
        with Client(model, base_url=server.root, project="p") as client:
            mode.complete(client.chat("Hi", api_key="token-1"))
            mode.complete(client.chat("Hi", api_key=lambda: "token-2"))
            monkeypatch.setenv("VERTEX_API_KEY", "token-3")
            mode.complete(client.chat("Hi"))
            mode.complete(client.chat("Hi", api_key="AQ.api-key"))
        sent = [received.header("Authorization") for received in server.requests]
        assert sent == ["Bearer token-1", "Bearer token-2", "Bearer token-3", None]
        assert server.requests[-1].header("x-goog-api-key") == "AQ.api-key"

    @BOTH
    def test_a_refused_token(self, model: str, server: LLMServer, google: Google) -> None:
        """It is requested once more, like from any function."""
        server.default = Reply("No.", status=401)
        with Client(model, base_url=server.root, project="p") as client, pytest.raises(AuthError):
            client.chat("Hi").complete()
        assert len(server.requests) == 2

    @BOTH
    def test_google_auth_without_credentials(
        self, model: str, mode: Mode, server: LLMServer, google: Google, canary: Canary
    ) -> None:
        """The error says what to do, and google-auth's error is its cause. Another server may need no token."""

        def fail(request: Any) -> None:
            token = KEY
            raise OSError(f"reauthentication is needed ({len(token)})")

        google.failure = RuntimeError("no credentials")
        errors = [mode.read(chat("Hi", model, project="p", proxy=False)).error]
        google.failure = RuntimeError("no credentials either")
        with Client(model, base_url=server.root, project="p") as client:
            assert mode.complete(client.chat("Hi")).text
            google.failure, google.refresh = None, fail  # type: ignore[method-assign]
            errors.append(mode.read(client.chat("Hi")).error)
        for error, kind in zip(errors, (RuntimeError, OSError), strict=True):
            assert type(error) is MissingKey
            assert "gcloud auth application-default login" in str(error)
            assert isinstance(error.__cause__, kind)
            assert error.__cause__.__traceback__ is None
            canary.look_at(error)
        assert [received.header("Authorization") for received in server.requests] == [None]

    @BOTH
    def test_without_google_auth(self, model: str, no_google: None, server: LLMServer) -> None:
        """The error says what to install; another server may need no token."""
        with pytest.raises(MissingKey, match=r"pip install 'llmbridge\[vertex\]'.*VERTEX_API_KEY"):
            chat("Hi", model, project="p")
        chat("Hi", model, project="p", base_url=server.root, proxy=False).complete()
        assert server.requests[0].header("Authorization") is None

    def test_it_is_imported_only_when_it_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It takes longer than all of llmbridge."""
        asked: list[str] = []
        look: Callable[..., Any] = vertex.import_module

        def note(name: str) -> Any:
            asked.append(name)
            return look(name)

        monkeypatch.setattr(vertex, "import_module", note)
        chat("Hi", "vertex:m", project="p", api_key="t")
        assert asked == []
