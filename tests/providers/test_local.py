"""`local`: the first model server on this computer that answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from loopback import Listener, free_port
from modes import MODES, Mode

from llmbridge import (
    Cancelled,
    Client,
    ClockExpired,
    ConnectFailed,
    InvalidRequest,
    LLMBridgeError,
    aembed,
    amodels,
    chat,
    embed,
    models,
)
from llmbridge.providers.compatible import SERVICES
from llmbridge.providers.local import Local
from llmbridge.testing import LLMServer, Received, Reply

EACH_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))


class Machine:
    """This computer: the servers on it, instead of the usual ports."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._stack = contextlib.ExitStack()
        for name in Local.servers:
            self.put(name, f"http://127.0.0.1:{free_port()}/v1")

    def put(self, name: str, base_url: str) -> None:
        """Sets a server's address."""
        self._monkeypatch.setenv(SERVICES[name].base_url_env, base_url)

    def run(self, name: str, *names: str, **reply: Any) -> LLMServer:
        """Starts a server with these models."""

        def answer(received: Received) -> Reply:
            return Reply(models=names) if received.method == "GET" else Reply(f"I am {received.model}.", **reply)

        server = self._stack.enter_context(LLMServer(answer))
        self.put(name, server.base_url("openai"))
        return server

    def close(self) -> None:
        """Stops all servers."""
        self._stack.close()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """A computer without servers."""
    made = Machine(monkeypatch)
    yield made
    made.close()


@EACH_MODE
class TestChoice:
    """The choice of server and model."""

    @pytest.mark.parametrize("name", Local.servers)
    def test_the_one_that_runs(self, machine: Machine, mode: Mode, name: str) -> None:
        """Whichever it is; the answer names its model."""
        server = machine.run(name, "first", "second")
        done = mode.complete(chat("Hi", "local"))
        assert (done.text, done.model, done.provider) == ("I am first.", "first", "local")
        assert [(received.method, received.path) for received in server.requests] == [
            ("GET", "/v1/models"),
            ("POST", "/v1/chat/completions"),
        ]

    def test_the_first_in_order(self, machine: Machine, mode: Mode) -> None:
        """The others get no request."""
        later = machine.run("vllm", "v")
        machine.run("llamacpp", "l")
        assert mode.complete(chat("Hi", "local")).model == "l"
        assert later.requests == []

    def test_a_model_by_name(self, machine: Machine, mode: Mode) -> None:
        """On the first server that has it."""
        machine.run("ollama-v1", "llama3:8b", "phi:latest")
        machine.run("lmstudio", "org/qwen")
        assert mode.complete(chat("Hi", "local:org/qwen")).text == "I am org/qwen."
        assert mode.complete(chat("Hi", "local:llama3:8b")).text == "I am llama3:8b."
        assert mode.complete(chat("Hi", "local:phi")).model == "phi:latest"

    def test_models_for_embeddings_are_left_out(self, machine: Machine, mode: Mode) -> None:
        """A server with no others is skipped."""
        machine.run("ollama-v1", "nomic-embed-text", "mxbai-embed-large")
        machine.run("vllm", "BAAI/Embedder", "chatty")
        assert mode.complete(chat("Hi", "local")).model == "chatty"

    def test_the_next_call_looks_again(self, machine: Machine, mode: Mode) -> None:
        """Servers come and go."""
        machine.run("vllm", "v")
        assert mode.complete(chat("Hi", "local")).model == "v"
        machine.run("ollama-v1", "o")
        assert mode.complete(chat("Hi", "local")).model == "o"

    def test_nothing_runs(self, machine: Machine, mode: Mode) -> None:
        """One error says what to start and what was tried; it is not retried."""
        read = mode.read(chat("Hi", "local"))
        assert isinstance(read.error, ConnectFailed)
        assert "no local server answers" in str(read.error)
        assert "ollama serve" in str(read.error)
        assert all(name in str(read.error) for name in Local.servers)
        assert read.error.provider == "local"

    def test_no_server_has_the_model(self, machine: Machine, mode: Mode) -> None:
        """The error lists the models."""
        machine.run("ollama-v1", "a", "b", "c", "d", "e", "f")
        read = mode.read(chat("Hi", "local:z"))
        assert "no local server has the model 'z'" in str(read.error)
        assert "has a, b, c, d, e, ..." in str(read.error)

    def test_no_server_has_a_chat_model(self, machine: Machine, mode: Mode) -> None:
        """An Ollama without models, to begin with."""
        machine.run("ollama-v1")
        machine.run("vllm", "embedder")
        message = str(mode.read(chat("Hi", "local")).error)
        assert "no local server has a chat model" in message
        assert "has no models" in message
        assert "has embedder" in message

    def test_another_program_on_the_port(self, machine: Machine, mode: Mode) -> None:
        """It is skipped, and reported if no other server answers."""
        page = machine.run("ollama-v1")
        page.default = Reply(body="<html>Hello</html>", content_type="text/html")
        locked = machine.run("llamacpp")
        locked.default = Reply("Invalid API Key", status=401)
        message = str(mode.read(chat("Hi", "local")).error)
        assert "HTML" in message
        assert "Invalid API Key" in message
        assert len(locked.requests) == 1  # the search is not retried, unlike a call
        machine.run("vllm", "v")
        assert mode.complete(chat("Hi", "local")).model == "v"

    def test_a_variable_that_is_not_a_url(self, machine: Machine, mode: Mode) -> None:
        """It is reported, not skipped silently."""
        machine.put("llamacpp", "127.0.0.1")
        assert "llamacpp" in str(mode.read(chat("Hi", "local")).error)
        assert "LLAMACPP_BASE_URL is not a URL" in str(mode.read(chat("Hi", "local")).error)

    @pytest.mark.slow
    def test_a_fallback(self, machine: Machine, mode: Mode) -> None:
        """`Client(["local", "demo"])`: the demo if no server runs."""
        with Client(["local", "demo"]) as client:
            assert mode.complete(client.chat("Hi")).provider == "demo"
        machine.run("llamacpp", "l")
        with Client(["local", "demo"]) as client:
            assert mode.complete(client.chat("Hi")).provider == "local"

    def test_proxies_are_ignored(self, machine: Machine, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
        """The environment's proxies are ignored."""
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
        machine.run("lmstudio", "m")
        assert mode.complete(chat("Hi", "local")).text == "I am m."

    def test_a_base_url_is_taken_as_it_is(self, machine: Machine, mode: Mode, server: LLMServer) -> None:
        """There is no search then."""
        assert mode.complete(chat("Hi", "local:m", base_url=server.base_url("openai"), proxy=False)).model == "m"
        assert [received.method for received in server.requests] == ["POST"]


def test_ollama_is_found_by_its_own_variable(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """OLLAMA_HOST, without a path."""
    server = machine.run("ollama-v1", "m")
    monkeypatch.delenv("OLLAMA_V1_BASE_URL")
    monkeypatch.setenv("OLLAMA_HOST", server.root.removeprefix("http://"))
    assert chat("Hi", "local").complete().model == "m"


def test_the_loop_is_not_blocked_by_the_search(machine: Machine) -> None:
    """Only a worker thread waits for a server that hangs."""
    hang = threading.Event()

    def serve(sock: Any) -> None:
        sock.recv(4096)
        hang.wait(10)

    with Listener(serve) as listener:
        machine.put("ollama-v1", f"http://127.0.0.1:{listener.port}/v1")
        machine.run("vllm", "v")

        async def text() -> str:
            return (await chat("Hi", "local")).text

        async def main() -> str:
            answer = asyncio.create_task(text())
            while not listener.accepted:  # noqa: ASYNC110 - by another thread; the loop turns, nothing blocks it
                await asyncio.sleep(0.001)
            assert not answer.done()
            hang.set()
            return await answer

        assert asyncio.run(main()) == "I am v."


@EACH_MODE
@pytest.mark.parametrize("name", Local.servers)
def test_the_key_of_the_server_that_is_found(
    machine: Machine, mode: Mode, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its models and for the answer; other servers' keys are not sent."""
    for other in Local.servers:
        monkeypatch.setenv(SERVICES[other].key_env[0], f"key-of-{other}")
    server = machine.run(name, "m")
    assert mode.complete(chat("Hi", "local")).model == "m"
    assert mode.complete(chat("Hi", "local", api_key="my-own-key")).model == "m"
    keys = [(received.method, received.header("Authorization")) for received in server.requests]
    own = f"Bearer key-of-{name}"
    assert keys == [("GET", own), ("POST", own), ("GET", own), ("POST", "Bearer my-own-key")]


def test_embeddings_need_a_name(machine: Machine) -> None:
    """Any model would be wrong; a named one is found as for a chat."""
    machine.run("vllm", "nomic-embed-text")
    with pytest.raises(InvalidRequest, match="local:nomic-embed-text"):
        embed("a", "local")
    made = embed(["a", "b"], "local:nomic-embed-text")
    assert (len(made), made.provider) == (2, "local")
    assert asyncio.run(aembed("a", "local:nomic-embed-text"))[0] == made[0]


def test_models_of_the_first_that_answers(machine: Machine) -> None:
    """`models("local")`."""
    with pytest.raises(ConnectFailed, match="no local server answers"):
        models("local")
    machine.run("vllm", "a", "embedder")
    assert models("local") == ["a", "embedder"]
    assert asyncio.run(amodels("local")) == ["a", "embedder"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "ask",
    [
        lambda timeout: chat("Hi", "local", timeout=timeout).complete(),
        lambda timeout: embed("a", "local:m", timeout=timeout),
        lambda timeout: models("local", timeout=timeout),
        lambda timeout: asyncio.run(amodels("local", timeout=timeout)),
    ],
    ids=["chat", "embed", "models", "amodels"],
)
def test_the_total_ends_the_search(machine: Machine, ask: Callable[[float], Any]) -> None:
    """The error is the timeout, even if silent servers are left to try."""
    over = threading.Event()
    with Listener(lambda _: over.wait(20)) as listener:
        for name in Local.servers:
            machine.put(name, f"http://127.0.0.1:{listener.port}/v1")
        with pytest.raises(ClockExpired, match=r"within 0\.3 s|during the search for a local server") as caught:
            ask(0.3)
        over.set()
        assert (caught.value.clock, caught.value.provider) == ("total", "local")


def test_a_cancelled_search_ends_at_once(machine: Machine) -> None:
    """The request is stopped, and no other server is tried."""
    gone = threading.Event()

    def serve(sock: Any) -> None:
        while sock.recv(4096):
            continue
        gone.set()

    outcome: list[type] = []

    def read() -> None:
        try:
            stream.complete()
        except LLMBridgeError as error:
            outcome.append(type(error))

    later = machine.run("vllm", "v")
    with Listener(serve) as listener:
        machine.put("ollama-v1", f"http://127.0.0.1:{listener.port}/v1")
        stream = chat("Hi", "local")
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        while not listener.accepted:
            reader.join(0.001)
        stream.cancel()
        reader.join(30)
        assert outcome == [Cancelled]
        assert gone.wait(30)
    assert later.requests == []
