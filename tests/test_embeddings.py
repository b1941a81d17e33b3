"""Embeddings of every dialect: requests of the right size, vectors in the order of the texts."""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
from typing import Any

import pytest
from modes import LOOPS, Async
from moments import cancelled_when

from llmbridge import (
    AuthError,
    Client,
    ClockExpired,
    ConfigError,
    Embeddings,
    InvalidRequest,
    Limits,
    ProtocolError,
    RateLimited,
    Retry,
    ServerError,
    Usage,
    aembed,
    embed,
)
from llmbridge.testing import LLMServer, Received, Reply

KEY = "sk-embed-0123456789"
DIALECTS = ("openai", "azure", "gemini", "ollama", "mistral", "cohere")
EACH = pytest.mark.parametrize("dialect", DIALECTS)
LOOP = pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))


def way(server: LLMServer, dialect: str = "openai", **options: Any) -> dict[str, Any]:
    """Model and options that lead to the server."""
    found = {"model": f"{dialect}:m", "base_url": server.base_url(dialect), "api_key": KEY, "proxy": False}
    return {**found, "retries": 0, **options}


def texts_of(received: Received) -> list[str]:
    """The texts in a request of any dialect."""
    body = received.json
    if "requests" in body:
        return [part["text"] for one in body["requests"] for part in one["content"]["parts"]]
    found: list[str] = body.get("input", body.get("texts"))
    return found


def answer(vectors: list[Any], usage: Any = None, indices: list[Any] | None = None) -> Reply:
    """OpenAI's exact answer."""
    entries = [{"object": "embedding", "embedding": vector} for vector in vectors]
    for entry, index in zip(entries, indices or range(len(vectors)), strict=True):
        entry["index"] = index
    body = {"object": "list", "data": entries, **({} if usage is None else {"usage": usage})}
    return Reply(body=json.dumps(body), content_type="application/json")


@EACH
class TestEveryDialect:
    """The same for every dialect."""

    def test_a_text(self, server: LLMServer, dialect: str) -> None:
        """A str is one text; the answer names provider and model."""
        made = embed("one", **way(server, dialect))
        assert isinstance(made, Embeddings)
        assert (len(made), made.provider, made.model) == (1, dialect, "m")
        assert all(isinstance(number, float) for number in made[0])
        (received,) = server.requests
        assert (received.method, texts_of(received)) == ("POST", ["one"])
        assert received.header("Accept") == "application/json"
        assert (
            KEY
            in f"{received.header('Authorization')} {received.header('api-key')} {received.header('x-goog-api-key')}"
        )

    def test_texts_stay_in_order(self, server: LLMServer, dialect: str) -> None:
        """The server's vectors depend only on the text."""
        texts = ["one", "two", "one", "three"]
        made = embed(texts, **way(server, dialect))
        assert list(made) == [embed(text, **way(server, dialect))[0] for text in texts]
        assert made[0] == made[2] != made[1]

    def test_batches(self, server: LLMServer, dialect: str) -> None:
        """As large as the service allows, one after the other; the vectors in the order of all texts."""
        from llmbridge import providers

        most = min(providers.find(dialect).embeddings_batch, 512)
        texts = [f"text {number}" for number in range(2 * most + 1)]
        made = embed(iter(texts), **way(server, dialect))
        assert len(made) == len(texts)
        assert [len(texts_of(received)) for received in server.requests] == [most, most, 1]
        assert [text for received in server.requests for text in texts_of(received)] == texts
        assert made[most] == embed(texts[most], **way(server, dialect))[0]

    def test_tokens_are_added_up(self, server: LLMServer, dialect: str) -> None:
        """Of all requests, if the service counts them."""
        from llmbridge import providers

        most = min(providers.find(dialect).embeddings_batch, 512)
        made = embed(["one two"] * (most + 1), **way(server, dialect))
        assert made.usage is None or made.usage.input_tokens == 2 * (most + 1)
        assert (made.usage is None) is (dialect == "gemini")

    def test_dimensions(self, server: LLMServer, dialect: str) -> None:
        """One name for all services."""
        assert len(embed("one", dimensions=5, **way(server, dialect))[0]) == 5

    @pytest.mark.parametrize(
        "vector", [[], None, True, [True], [None], [float("nan")], [float("inf")], [10**400], ["1"]]
    )
    def test_p08_a_vector_is_a_list_of_numbers(self, server: LLMServer, dialect: str, vector: Any) -> None:
        """Not empty, and finite: otherwise only a useless search would show the mistake."""
        shapes: dict[str, Any] = {
            "gemini": {"embeddings": [{"values": vector}]},
            "ollama": {"embeddings": [vector]},
            "cohere": {"embeddings": {"float": [vector]}},
        }
        body = shapes.get(dialect, {"data": [{"index": 0, "embedding": vector}]})
        server.script(Reply(body=json.dumps(body), content_type="application/json"))
        with pytest.raises(ProtocolError, match="embedding"):
            embed("a", **way(server, dialect))

    @pytest.mark.parametrize(
        "name", ["dimensions", "output_dimension", "outputDimensionality", "output_dimensionality"]
    )
    def test_p08_dimensions_that_were_not_kept(self, server: LLMServer, dialect: str, name: str) -> None:
        """Under each service's name for them."""
        server.script(Reply(embeddings=[[1.0, 2.0]]))
        with pytest.raises(ProtocolError, match="3 dimensions were requested, but embeddings of 2 came back") as caught:
            embed("a", **way(server, dialect), **{name: 3})
        assert caught.value.provider == dialect

    def test_none_at_all(self, server: LLMServer, dialect: str) -> None:
        """No texts, no request, no vectors; not an error, so that a loop over batches needs no special case."""
        made = embed([], **way(server, dialect))
        assert (list(made), made.usage, made.provider) == ([], None, dialect)
        assert server.requests == []

    def test_an_error(self, server: LLMServer, dialect: str) -> None:
        """In the service's own words, with the class of its code."""
        server.script(Reply("No such key.", status=401))
        with pytest.raises(AuthError, match="No such key") as caught:
            embed("one", **way(server, dialect))
        assert (caught.value.provider, caught.value.model) == (dialect, "m")
        assert KEY not in str(caught.value)

    @LOOP
    def test_async(self, server: LLMServer, dialect: str, loop: Async) -> None:
        """The same in asyncio and trio."""
        made = loop.run(lambda: aembed(["one", "two"], **way(server, dialect)))
        assert list(made) == list(embed(["one", "two"], **way(server, dialect)))


class TestAnswers:
    """Differences and faults of services."""

    def test_vectors_out_of_order(self, server: LLMServer) -> None:
        """The index decides."""
        server.script(answer([[3.0], [1.0], [2.0]], indices=[2, 0, 1]))
        assert list(embed(["a", "b", "c"], **way(server))) == [[1.0], [2.0], [3.0]]

    def test_vectors_without_an_index(self, server: LLMServer) -> None:
        """Then they are in order."""
        server.script(answer([[1], [2]], indices=[None, None]))
        assert list(embed(["a", "b"], **way(server))) == [[1.0], [2.0]]

    def test_base64(self, server: LLMServer) -> None:
        """32-bit numbers, little-endian, as with `encoding_format="base64"`."""
        packed = base64.b64encode(struct.pack("<3f", 0.5, -1.0, 2.0)).decode()
        server.script(answer([packed]))
        made = embed("a", encoding_format="base64", **way(server))
        assert list(made) == [[0.5, -1.0, 2.0]]
        assert server.requests[0].json["encoding_format"] == "base64"
        assert embed("a", encoding_format="base64", **way(server))[0] == pytest.approx(embed("a", **way(server))[0])

    @pytest.mark.parametrize(
        ("vectors", "message"),
        [
            ([[1.0]], "2 texts were sent, but 1 embeddings came back"),
            ([[1.0], [2.0], [3.0]], "2 texts were sent, but 3 embeddings came back"),
            ([[1.0], [2.0, 3.0]], "have different lengths"),
            ([[1.0], ["x"]], "not a list of numbers"),
            ([[1.0], None], "not a list of numbers"),
            ([[1.0], "%%%"], "base64"),
            (["", ""], "empty"),
            (["AADAfw==", "AADAfw=="], "not finite"),
        ],
    )
    def test_invalid_answers(self, server: LLMServer, vectors: list[Any], message: str) -> None:
        """A wrong text never gets a vector."""
        server.script(answer(vectors))
        with pytest.raises(ProtocolError, match=message) as caught:
            embed(["a", "b"], **way(server))
        assert caught.value.provider == "openai"

    def test_bits_are_eight_in_a_byte(self, server: LLMServer) -> None:
        """With packed bits, a vector has fewer numbers than dimensions."""
        server.script(answer([[1, 2]]), answer([[1, 2]]))
        assert list(embed("a", dimensions=16, output_dtype="ubinary", **way(server))) == [[1, 2]]
        with pytest.raises(ProtocolError, match="16 dimensions"):
            embed("a", dimensions=16, output_dtype="int8", **way(server))

    @pytest.mark.parametrize(
        ("reply", "message"),
        [
            (Reply(body="{}", content_type="application/json"), "has no embeddings"),
            (Reply(body="[1]", content_type="application/json"), "has no embeddings"),
            (Reply(body="{", content_type="application/json"), "invalid JSON"),
            (Reply(body="<html>", content_type="text/html"), "HTML"),
            (Reply(body="data: {}\n\n"), "stream instead of one JSON document"),
            (Reply(status=204), "empty response"),
        ],
    )
    def test_what_is_something_else(self, server: LLMServer, reply: Reply, message: str) -> None:
        """Mostly because of a wrong base URL."""
        server.script(reply)
        with pytest.raises(ProtocolError, match=message):
            embed("a", **way(server))

    def test_an_error_with_a_good_status(self, server: LLMServer) -> None:
        """The error is raised nevertheless."""
        error = {"error": {"message": "Slow down", "code": "rate_limit_exceeded"}}
        server.script(Reply(body=json.dumps(error), content_type="application/json"))
        with pytest.raises(RateLimited, match="Slow down"):
            embed("a", **way(server))

    def test_tokens_that_one_answer_does_not_count(self, server: LLMServer) -> None:
        """Then the sum is unknown."""
        counted = {"prompt_tokens": 4, "total_tokens": 4}
        server.script(answer([[1.0]] * 512, counted), answer([[1.0]]))
        assert embed(["a"] * 513, **way(server)).usage is None
        server.script(answer([[1.0]] * 512, counted), answer([[1.0]], counted))
        made = embed(["a"] * 513, **way(server)).usage
        assert isinstance(made, Usage)
        assert (made.input_tokens, made.total_tokens, made.output_tokens) == (8, 8, None)

    @pytest.mark.slow
    def test_the_longest_vectors_fit(self, server: LLMServer) -> None:
        """512 vectors of 4,096 numbers with all their digits are not too large."""
        server.script(answer([[0.012345678901234567] * 4096] * 512))
        made = embed(["a"] * 512, **way(server))
        assert (len(made), len(made[511])) == (512, 4096)


class TestBatches:
    """The limits of one request."""

    def test_long_texts_go_in_smaller_batches(self, server: LLMServer) -> None:
        """Services limit the tokens of a request too; a longer text is sent alone."""
        texts = ["a" * 200_000, "b" * 200_000, "c" * 200_000, "d", "e" * 600_000, "f"]
        embed(texts, **way(server))
        assert [[text[0] for text in texts_of(received)] for received in server.requests] == [
            ["a", "b"],
            ["c", "d"],
            ["e"],
            ["f"],
        ]

    def test_a_failure_ends_the_work(self, server: LLMServer) -> None:
        """Later batches are not requested."""
        server.script(Reply(), Reply("Down", status=500))
        with pytest.raises(ServerError):
            embed(["a"] * 2000, **way(server))
        assert len(server.requests) == 2

    def test_each_request_is_tried_again(self, server: LLMServer) -> None:
        """Like a chat."""
        down = Reply("Down", status=503)
        server.script(down, Reply(), down, Reply())
        made = embed(["a"] * 513, **way(server, retries=Retry(times=1, backoff=0.001)))
        assert (len(made), len(server.requests)) == (513, 4)

    def test_the_total_is_that_of_all_requests(self, server: LLMServer) -> None:
        """Not of each."""
        server.default = Reply(header_delay=0.25)
        with pytest.raises(ClockExpired) as caught:
            embed(["a"] * 512 * 20, **way(server, timeout=0.6))
        assert caught.value.clock == "total"
        assert "within 0.6 s" in caught.value.message  # as the caller said, not what was left of it
        assert len(server.requests) <= 4


class TestInput:
    """Input that is rejected before anything is sent."""

    @pytest.mark.parametrize("texts", [None, 5, b"text", {"a": 1}, ["a", None], ["a", b"b"], [["a"]]])
    def test_texts_are_texts(self, server: LLMServer, texts: Any) -> None:
        """The message names the wrong one."""
        with pytest.raises(InvalidRequest, match=r"texts\[\d\] must be a str|texts must be a str or several"):
            embed(texts, **way(server))
        assert server.requests == []

    def test_half_a_surrogate_pair(self, server: LLMServer) -> None:
        """UTF-8 cannot encode it."""
        with pytest.raises(InvalidRequest, match=r"texts\[1\]"):
            embed(["a", "\ud83d"], **way(server))

    def test_an_empty_text_is_refused_before_the_first_batch(self, server: LLMServer) -> None:
        """Even if it is the last one."""
        with pytest.raises(InvalidRequest, match="empty"):
            embed([*["a"] * 600, ""], **way(server))
        assert server.requests == []

    @pytest.mark.parametrize("model", ["anthropic:m", "groq:m", "deepseek:m"])
    def test_providers_without_embeddings(self, model: str) -> None:
        """The error names them."""
        with pytest.raises(ConfigError, match=f"{model.partition(':')[0]} has no embeddings"):
            embed("a", model, api_key=KEY)

    def test_no_model_and_no_such_option(self, server: LLMServer) -> None:
        """As for a chat."""
        with pytest.raises(ConfigError, match="no model given"):
            embed("a")
        with pytest.raises(ConfigError, match="timeout"):
            embed("a", **way(server, timeout=-1))

    def test_parameters_go_out_as_given(self, server: LLMServer) -> None:
        """Other parameters are the service's."""
        embed("a", user="me", **way(server))
        assert server.requests[0].json == {"model": "m", "input": ["a"], "user": "me"}

    def test_async_input_is_refused_at_the_call(self) -> None:
        """The call itself raises, without an await."""
        with pytest.raises(InvalidRequest):
            aembed(5, "demo")  # type: ignore[arg-type, unused-ignore]


class TestClient:
    """`Client.embed`."""

    def test_the_defaults_of_a_client(self, server: LLMServer) -> None:
        """Model, key, URL and headers; parameters of chats stay out."""
        headers = {"X-App": "a"}
        with Client(**way(server), headers=headers, temperature=0.5) as client:
            assert client.embed("a").model == "m"
            assert client.embed("a", "openai:n", headers={"X-App": "b"}).model == "n"
        first, second = server.requests
        assert first.json == {"model": "m", "input": ["a"]}
        assert (first.header("X-App"), second.header("X-App"), second.json["model"]) == ("a", "b", "n")
        assert server.connections == 1

    @LOOP
    def test_in_async_code(self, server: LLMServer, loop: Async) -> None:
        """`Client.aembed`, in asyncio and trio, with the same defaults; bad input is rejected at the call."""
        with Client(**way(server), headers={"X-App": "a"}) as client:
            assert loop.run(lambda: client.aembed(["a", "b"])) == client.embed(["a", "b"])
            with pytest.raises(InvalidRequest):
                client.aembed(5)  # type: ignore[arg-type]
        assert [request.header("X-App") for request in server.requests] == ["a", "a"]

    def test_the_model_of_the_environment(self, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """LLMBRIDGE_MODEL."""
        monkeypatch.setenv("LLMBRIDGE_MODEL", "openai:from-env")
        options = {name: value for name, value in way(server).items() if name != "model"}
        assert embed("a", **options).model == "from-env"


class TestSequence:
    """`Embeddings` as a sequence, and as an array."""

    def test_it_is_a_sequence(self) -> None:
        """Of lists of float."""
        made = Embeddings([[1.0, 2.0], [3.0, 4.0]], Usage(2), "m", "openai")
        assert (len(made), made[1], made[-1], made[:1]) == (2, [3.0, 4.0], [3.0, 4.0], [[1.0, 2.0]])
        assert [3.0, 4.0] in made
        assert "1.0" not in repr(made)

    def test_an_array(self) -> None:
        """A numpy array of 32-bit numbers."""
        numpy = pytest.importorskip("numpy")
        made = Embeddings([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        assert (made.array.shape, made.array.dtype) == ((3, 2), numpy.float32)
        assert Embeddings([]).array.shape == (0, 0)
        assert numpy.asarray(made).tolist() == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]
        assert numpy.asarray(made, dtype="float64").dtype == numpy.float64
        with pytest.raises(ValueError, match="copy"):
            made.__array__(copy=False)

    def test_without_numpy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install, or what to use instead."""
        monkeypatch.setitem(sys.modules, "numpy", None)
        with pytest.raises(ConfigError, match=r"pip install numpy, or use \.vectors"):
            _ = Embeddings([[1.0]]).array


@LOOP
def test_cancelling(server: LLMServer, loop: Async) -> None:
    """The task is free at once, the connection is closed, and the next batch is not requested."""
    server.default = Reply(header_delay=10)
    loop.run(lambda: cancelled_when(lambda: server.requests, lambda: aembed(["a"] * 2000, **way(server))))
    assert server.requests[0].gone.wait(30)
    assert len(server.requests) == 1


def test_import_stays_small() -> None:
    """numpy is imported for an array, not before."""
    code = "import sys, llmbridge; llmbridge.embed('a', 'demo'); print('numpy' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=dict(os.environ)
    )
    assert (run.stdout, run.stderr) == ("False\n", "")


@pytest.mark.parametrize(
    ("dialect", "version", "within"),
    [("azure", "2025-01-01-preview", "?api-version={}"), ("gemini", "v1", "/{}/models/m")],
)
def test_settings_of_the_client_count(server: LLMServer, dialect: str, version: str, within: str) -> None:
    """The call overrides them; other parameters of a client are for chats."""
    server.default = Reply(embeddings=[[1.0]])
    with Client(api_version=version, temperature=0.5, **way(server, dialect)) as client:
        client.embed("a")
        client.embed("a", api_version=None)
    first, bare = server.requests
    assert within.format(version) in first.path
    assert within.format(version) not in bare.path
    assert "temperature" not in str(first.json)


def test_one_of_several_models_must_be_named() -> None:
    """A client with several models has no single one for vectors."""
    client = Client(["demo", "openai:m"])
    with pytest.raises(ConfigError, match="several models: say with model="):
        client.embed("a")
    assert len(client.embed("a", model="demo")) == 1


def test_what_belongs_to_a_client_is_refused() -> None:
    """The error says where it belongs."""
    with pytest.raises(ConfigError, match=r"limits belongs to a client.*Client\(\.\.\., limits=\.\.\.\)"):
        embed("a", model="demo", limits=Limits(concurrency=1))


def test_none_is_nothing_given(server: LLMServer) -> None:
    """No null is sent."""
    server.default = Reply(embeddings=[[1.0]])
    embed("a", dimensions=None, user=None, **way(server))
    assert not {"dimensions", "user"} & set(server.requests[0].json)
