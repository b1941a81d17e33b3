"""Whole answers: the same as the streamed ones, and asked for by `map` where answers are quick."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from canary import KEY
from modes import Mode

from llmbridge import (
    BadRequest,
    Cancelled,
    ChatStream,
    Client,
    ClockExpired,
    LLMBridgeError,
    ProtocolError,
    Provider,
    RateLimited,
    Reasoning,
    Retry,
    ServerError,
    StreamTruncated,
    Timeout,
    ToolCall,
    providers,
    register,
)
from llmbridge._call import answer
from llmbridge._call.reading import finished
from llmbridge.events import END, End, Item
from llmbridge.many import asking
from llmbridge.many.asking import Brevity
from llmbridge.messages import ChatRequest
from llmbridge.provider import Encoded, Frame
from llmbridge.providers.openai import OpenAI, OpenAICompatible
from llmbridge.testing import LLMServer, Received, Reply
from llmbridge.testing.dialects import PATHS

WHOLE = sorted({"openrouter", *PATHS} - {"vitalentum", "codelinkava"})
IN_ORDER = ("anthropic", "vertex-anthropic", "gemini", "vertex", "openai-responses")
"""The dialects whose documents keep the order of reasoning, calls and text."""

TURN = [
    Reasoning("First.", "c2lnMQ=="),
    ToolCall("c1", "weather", {"city": "Oslo"}, signature="c2ln"),
    "Then ",
    Reasoning("Second.", "c2lnMg=="),
    ToolCall("c2", "weather", {"city": "Rome", "days": [1, 2.5]}),
]
REPLIES: dict[str, Reply] = {
    "text": Reply(["Grüße, ", "世界 ", "🌍!"], usage=True, model="m-2026", extra={"system_fingerprint": "fp_1"}),
    "reasoning": Reply("It is 4.", reasoning=["2 + 2, ", "so"], usage=True),
    "calls": Reply("Hm.", tool_calls=[{"id": "abcdefgh1", "name": "f", "arguments": {"a": 1}}]),
    "turn": Reply(parts=TURN, usage=True),
    "cut off": Reply("It is", finish_reason="length", usage=True),
    "filtered": Reply("It is", finish_reason="content_filter"),
    "refused": Reply("", refusal="Not that.", usage=True),
    "several": Reply("one", choices=["two", "three"], usage=True),
    "logprobs": Reply(["a", "b"], logprobs=[{"token": "a", "logprob": -1}, {"token": "b", "logprob": -2}]),
    "empty": Reply("", usage=True),
    "think tags": Reply("<think>2 + 2</think>\n\n4.", usage=True),
}
OWN_OBJECTS: dict[str, list[Any]] = {
    "anthropic": [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "bridges"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"encrypted_content": "RU5D"}]},
        {"type": "text", "text": "Red. ", "citations": [{"type": "char_location", "cited_text": "red"}]},
        {"type": "something_new", "value": [1]},
    ],
    "openai-responses": [
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"query": "x"}},
        {"type": "image_generation_call", "id": "ig_1", "result": "aGVsbG8="},
        {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "shell", "input": "echo hello"},
    ],
    "gemini": [
        "a",
        {"executableCode": {"code": "1"}},
        {"inline_data": {"mime_type": "image/png", "data": "aGk="}},
        {"groundingMetadata": {"webSearchQueries": ["x"]}},
    ],
    "openai": [
        {"audio": {"id": "a1", "data": "aGk=", "transcript": "Red."}},
        {"images": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]},
        {"annotations": [{"type": "url_citation", "url_citation": {"url": "https://example.org", "title": "T"}}]},
        {"id": "call_7", "type": "custom", "custom": {"name": "shell", "input": "echo hello"}},
    ],
    "mistral": ["a", {"type": "reference", "reference_ids": [1]}],
    "ollama": ["a", {"images": ["aGk="]}],
    "cohere": [
        "a",
        {"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"text": "a", "sources": []}}}},
    ],
}


def asked(server: LLMServer, name: str = "openai", model: str = "m", **options: Any) -> Client:
    """A client of a model, at the server."""
    at = server.base_url(name if name in PATHS else "openai")
    options = {"retries": 0, "timeout": 20, "unsupported": "drop", **options}
    if name.startswith("vertex"):
        options["project"] = "p"
    return Client(f"{name}:{model}", base_url=at, api_key=KEY, **options)


def said(stream: ChatStream) -> Any:
    """The whole answer but for times and made-up ids, arguments without their spaces; or its error."""
    try:
        data = {**stream.complete().to_dict(), "headers": None, "request_id": None}
    except LLMBridgeError as error:
        return type(error), error.message, str(error.partial)
    text = json.dumps({name: value for name, value in data.items() if not name.endswith("_seconds")})
    text = re.sub(r"test-\d+", "test", re.sub(r'"created(_at)?": [^,}]+', '"created": 0', text))
    return json.loads(re.sub(r'(\\*": |, )(?=(\\*"|[\[{\d]))', lambda found: found[0].rstrip(), text))


def streams(server: LLMServer) -> list[bool]:
    """Of each request in OpenAI's dialect, whether it asked for a stream."""
    return [received.json["stream"] for received in server.requests]


@pytest.mark.quick(40)
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("kind", REPLIES)
def test_p50_a_whole_answer_is_the_streamed_one(server: LLMServer, name: str, kind: str) -> None:
    """In every dialect: text, reasoning, calls, counts, reasons, log probabilities, and fields of the service's own."""
    if kind == "turn" and name not in IN_ORDER:
        pytest.skip("its documents do not say in which order the parts came")
    options = {"logprobs": True} if kind == "logprobs" else {}
    server.default = REPLIES[kind]
    with asked(server, name) as client:
        streamed, whole = (said(client.chat("Hi", **options, **more)) for more in ({}, {"stream": False}))
    assert streamed == whole
    first, second = server.requests
    assert first.header("accept") in ("text/event-stream", "application/x-ndjson")
    assert second.header("accept") == "application/json"


@pytest.mark.quick(7)
@pytest.mark.parametrize("name", OWN_OBJECTS)
def test_p50_the_service_s_own_objects_are_the_same(server: LLMServer, name: str) -> None:
    """Server tools, citations, media and what is not known yet."""
    server.default = Reply(parts=OWN_OBJECTS[name], usage=True)
    with asked(server, name) as client:
        streamed, whole = (said(client.chat("Hi", **more)) for more in ({}, {"stream": False}))
    assert streamed == whole
    assert streamed["message"]["content"]


# -- what becomes of a whole answer that fails ------------------------------------------------------------------------

DOCUMENT = json.dumps(
    {"id": "c", "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
)
FAULTS: dict[str, tuple[Reply, type[LLMBridgeError]]] = {
    "cut off": (Reply("Hello", cut=20), StreamTruncated),
    "cut off in a chunk": (Reply("Hello", cut=20, transfer="chunked"), StreamTruncated),
    "cut off without a length": (Reply("Hello", cut=20, transfer="close"), ProtocolError),
    "reset": (Reply("Hello", cut=20, reset=True), StreamTruncated),
    "cut off in gzip": (Reply("Hello", cut=20, gzip=True), StreamTruncated),
    "broken gzip": (
        Reply(body=b"\x1f\x8b\x08 no", content_type="application/json", headers={"Content-Encoding": "gzip"}),
        ProtocolError,
    ),
    "half of it": (Reply(body=DOCUMENT[:-2], content_type="application/json"), ProtocolError),
    "HTML": (Reply(body="<html>Bad gateway</html>", content_type="text/html"), ProtocolError),
    "text": (Reply(body="Hello", content_type="text/plain"), ProtocolError),
    "nothing": (Reply(body=b"", transfer="length"), ProtocolError),
    "no content": (Reply("", status=204), ProtocolError),
    "an empty object": (Reply(body="{}", content_type="application/json"), ProtocolError),
    "an error in it": (
        Reply(body='{"error": {"message": "boom", "type": "server_error"}}', content_type="application/json"),
        ServerError,
    ),
    "a redirect": (Reply(status=302, headers={"Location": "/elsewhere"}), LLMBridgeError),
    "a time limit on the way": (Reply("took too long", status=504), ServerError),
    "silence": (Reply("Hello", header_delay=20), ClockExpired),
    "silence in the middle": (Reply("Hello", stall=20), ClockExpired),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_p50_what_goes_wrong_is_the_error_of_a_stream(server: LLMServer, mode: Mode, fault: str) -> None:
    """No half of a document is handed out, and each timeout runs."""
    reply, error = FAULTS[fault]
    server.script(reply)
    patience = 0.1 if error is ClockExpired else 20.0
    with asked(server, timeout=Timeout(first_content=patience)) as client, pytest.raises(error) as caught:
        mode.complete(client.chat("Hi", stream=False))
    assert (caught.value.partial, caught.value.provider) == ("", "openai")
    assert getattr(caught.value, "clock", None) == ("first_content" if error is ClockExpired else None)


def test_p50_a_whole_answer_has_a_limit(server: LLMServer, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not held in memory, however long it is."""
    monkeypatch.setattr(answer, "_DOCUMENT_LIMIT", 1000)
    server.script(Reply("x" * 2000), Reply("x" * 10))
    with asked(server) as client:
        with pytest.raises(ProtocolError, match="more than 1000 bytes"):
            mode.complete(client.chat("Hi", stream=False))
        assert mode.complete(client.chat("Hi", stream=False)).text == "x" * 10


def test_p50_a_refusal_keeps_its_wait(server: LLMServer, mode: Mode) -> None:
    """As for streams."""
    server.script(Reply("slow down", status=429, headers={"Retry-After": "7"}))
    with asked(server) as client, pytest.raises(RateLimited) as caught:
        mode.complete(client.chat("Hi", stream=False))
    assert caught.value.retry_after == 7


def test_p50_the_connection_is_kept(server: LLMServer, mode: Mode) -> None:
    """Compressed or not, in chunks or with a length."""
    server.script(Reply("a"), Reply("b", gzip=True), Reply("c", transfer="chunked"), Reply("d"))
    with asked(server) as client:
        assert [mode.complete(client.chat("Hi", stream=False)).text for _ in range(4)] == ["a", "b", "c", "d"]
    assert server.connections == 1


# -- when `map` asks for whole answers --------------------------------------------------------------------------------


def echo(received: Received) -> Reply:
    """Answers what was said."""
    return Reply(f"<{received.user_text}>", usage=True)


def texts(count: int) -> list[str]:
    """Rows."""
    return [f"row {number}" for number in range(count)]


@pytest.fixture
def client(server: LLMServer) -> Iterator[Client]:
    """A client of the server, which echoes; repetitions do not wait."""
    server.default = echo
    with asked(server, retries=Retry(backoff=0.001, max_backoff=0.01)) as made:
        yield made


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One quick answer is enough for whole ones."""
    monkeypatch.setattr(asking, "_QUICK", 1)


def test_p50_quick_answers_are_asked_for_whole(client: Client, server: LLMServer, mode: Mode) -> None:
    """After 16 of them; the rows are the same."""
    (rows,) = mode.in_turn([client.map(texts(40), concurrency=1)])
    assert streams(server) == [True] * 16 + [False] * 24
    assert [row.text for row in rows] == [f"<row {number}>" for number in range(40)]
    assert len({row.usage.total_tokens for row in rows}) == 1
    assert {(row.attempts, row.answer.finish_reason) for row in rows} == {(1, "stop")}


def test_p50_slow_answers_are_streamed(client: Client, server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are."""
    monkeypatch.setattr(asking, "_QUICK_SECONDS", 1e-9)
    client.map(texts(40), concurrency=4).complete()
    assert all(streams(server))


def test_p50_a_slow_answer_is_followed_by_streams() -> None:
    """Until as many were quick again; a failure makes it twice as many, but not those under way with it."""
    brevity = Brevity(5)

    def quick(times: int) -> bool:
        for _ in range(times):
            brevity.heard(4.9)
        return brevity.proven >= brevity.needed

    assert (quick(15), quick(1)) == (False, True)
    brevity.heard(5.0)
    assert (quick(15), quick(1)) == (False, True)
    for _ in range(3):
        brevity.failed()
    assert (quick(31), quick(1)) == (False, True)
    brevity.refused()
    assert not quick(1000)


@pytest.mark.parametrize(("first_content", "seconds"), [(300.0, 5.0), (3.0, 1.5), (None, 5.0)])
@pytest.mark.parametrize("where", ["call", "client"])
def test_p50_a_short_timeout_makes_answers_slow_earlier(
    server: LLMServer, first_content: float | None, seconds: float, where: str
) -> None:
    """It runs until a whole answer is complete, so half of it must be left."""
    timeout = {"timeout": Timeout(first_content=first_content)}
    with asked(server, **(timeout if where == "client" else {})) as client:
        rows = client.map(["a"], **(timeout if where == "call" else {}))
    assert rows._asking._brevity.seconds == seconds  # type: ignore[attr-defined]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("fault", FAULTS)
def test_p50_a_row_whose_whole_answer_fails_is_streamed(client: Client, server: LLMServer, fault: str) -> None:
    """It is not paid for twice in vain: what holds whole answers up, like a proxy, often lets streams pass."""
    reply, error = FAULTS[fault]
    server.default = lambda received: echo(received) if received.json["stream"] else reply
    patience = 1.5 if error is ClockExpired else 20.0
    rows = client.map(texts(3), concurrency=1, timeout=Timeout(first_content=patience)).complete()
    if fault == "a redirect":  # nothing that a stream could change
        assert (rows[1].attempts, rows[1].ok) == (1, False)
        return
    assert [(row.text, row.attempts) for row in rows] == [("<row 0>", 1), ("<row 1>", 2), ("<row 2>", 1)]
    assert streams(server) == [True, False, True, True]


def test_p50_a_row_that_has_failed_is_streamed_whatever_the_others_do(client: Client, server: LLMServer) -> None:
    """Also where they have been quick again meanwhile."""
    rows = client.map([])
    for failures in (0, 1):
        asked = rows._plan.questions.ask(0, "row")
        asked.failures = failures
        rows._asking._brevity.proven = 1000  # type: ignore[attr-defined]
        finished(rows._asking.steps([asked]))
    assert streams(server) == [False, True]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(
    "only",
    [
        Reply("This model only support stream mode, please enable the stream parameter.", status=400),
        Reply("Requests with max_tokens > 4096 must have stream=true", status=400),
        Reply("no such path", status=404),
        Reply("not with this method", status=405),
    ],
    ids=lambda reply: reply.content[:8],
)
def test_p50_a_service_that_only_streams_is_asked_for_streams(client: Client, server: LLMServer, only: Reply) -> None:
    """Its refusal costs no attempt, and whole answers are not asked for again; another refusal fails the row."""
    server.default = lambda received: echo(received) if received.json["stream"] else only
    rows = client.map(texts(40), concurrency=1).complete()
    assert [(row.text, row.attempts) for row in rows] == [(f"<row {number}>", 1) for number in range(40)]
    assert streams(server).count(False) == 1
    server.default = lambda received: (
        Reply("upstream: no", status=400) if received.user_text == "row 5" else echo(received)
    )
    assert [row.index for row in client.map(texts(9), concurrency=1) if isinstance(row.error, BadRequest)] == [5]
    assert sum(received.user_text == "row 5" for received in server.requests[-9:]) == 1


def test_p50_whole_answers_are_tried_again_however_often_they_have_failed() -> None:
    """What is learned outlives a run, so a long-lived client would never ask for them again."""
    brevity = Brevity(5)
    for _ in range(40):
        brevity.proven = 1
        brevity.failed()
    for _ in range(2000):
        brevity.heard(0.1)
    assert brevity.proven >= brevity.needed


@pytest.mark.usefixtures("at_once")
def test_p50_the_next_run_knows_that_answers_are_quick(client: Client, server: LLMServer) -> None:
    """Of the same client with the same settings; other answers may take longer."""
    server.default = echo
    asked_before: list[dict[str, Any]] = []
    for options in ({}, {}, {"max_tokens": 9}, {}):
        client.map(texts(5), concurrency=1, **options).complete()
        assert streams(server)[-5:] == [options not in asked_before, *[False] * 4]
        asked_before.append(options)
    with asked(server) as other:
        other.map(texts(5), concurrency=1).complete()
    assert streams(server)[-5:] == [True, *[False] * 4]


@pytest.mark.usefixtures("at_once")
def test_p50_the_next_run_knows_nothing_of_another_service(client: Client, server: LLMServer) -> None:
    """The same model at another address may be slower, or take what the first one refuses."""
    server.default = lambda received: Reply("a") if received.json.get("stream") else Reply("use stream", status=400)
    assert all(row.ok for row in client.map(texts(5), concurrency=1))
    with LLMServer(echo) as other:
        client.map(texts(5), concurrency=1, base_url=other.base_url("openai")).complete()
        assert streams(other) == [True, *[False] * 4]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("of_client", [False, True])
@pytest.mark.parametrize("given", [{"stream": True}, {"stream": False}, {"extra": {"stream": True}}], ids=str)
def test_p50_stream_decides_for_all_rows(
    client: Client, server: LLMServer, given: dict[str, Any], of_client: bool
) -> None:
    """Whether of the call, or of the client."""
    with asked(server, **(given if of_client else {})) as own:
        own.map(texts(5), concurrency=1, **({} if of_client else given)).complete()
    assert streams(server) == [given != {"stream": False}] * 5
    assert {received.header("accept") for received in server.requests} == {
        "application/json" if given == {"stream": False} else "text/event-stream"
    }


@pytest.mark.usefixtures("at_once")
def test_p50_an_answer_made_in_the_background_is_streamed(server: LLMServer) -> None:
    """Its document would come at once, without the answer."""
    server.default = Reply("Hello")
    with asked(server, "openai-responses") as client:
        assert [row.text for row in client.map(texts(5), concurrency=1, background=True)] == ["Hello"] * 5
    assert streams(server) == [True] * 5


def test_p50_a_journal_does_not_know_how_a_row_was_asked(client: Client, server: LLMServer, tmp_path: Any) -> None:
    """The answers are the same, so a run with the other way goes on from there."""
    journal = tmp_path / "journal"
    streamed = client.map(texts(5), journal=journal, stream=True).complete()
    for more in ({"stream": False}, {}):
        rows = client.map(texts(5), journal=journal, **more).complete()
        assert all(row.resumed for row in rows)
        assert [row.text for row in rows] == [row.text for row in streamed]
    assert len(server.requests) == 5


@pytest.mark.usefixtures("at_once")
def test_p50_a_run_of_whole_answers_ends_at_once(client: Client, server: LLMServer, mode: Mode) -> None:
    """Though nothing is heard of those under way."""
    release, waiting = threading.Event(), threading.Semaphore(0)

    def answer(received: Received) -> Reply:
        if not received.json["stream"]:
            waiting.release()
            release.wait(20)
        return echo(received)

    server.default = answer
    rows = client.map(texts(100), concurrency=3, order="done")

    def cancel() -> None:
        waiting.acquire()
        rows.cancel()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    try:
        outcome = mode.read(rows)
    finally:
        release.set()
        canceller.join()
    assert isinstance(outcome.error, Cancelled)
    assert len(outcome.pieces) < 10


def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@dataclass
class Review:
    """What is made of an answer."""

    positive: bool


@pytest.mark.usefixtures("at_once")
def test_p50_tools_and_schemas_work_alike(client: Client, server: LLMServer) -> None:
    """Each turn of a loop of tools and each retry for a schema is asked for whole answers."""
    call = Reply(tool_calls=[{"name": "add", "arguments": {"a": 1, "b": 2}}])
    server.default = lambda received: Reply("3") if received.turns[-1].role == "tool" else call
    assert [row.text for row in client.map(texts(3), tools=[add], run_tools=True, concurrency=1)] == ["3"] * 3
    assert streams(server) == [True] * 2 + [False] * 4

    server.default = lambda received: Reply('{"positive": true}' if len(received.turns) > 1 else "Yes!")
    rows = client.map(texts(2), schema=Review, concurrency=1).complete()
    assert [row.parsed for row in rows] == [Review(True)] * 2
    assert streams(server)[6:] == [True] * 2 + [False] * 2


@pytest.mark.usefixtures("at_once")
def test_p50_a_model_that_only_streams_does_not_pass_its_rows_to_the_next(client: Client, server: LLMServer) -> None:
    """Nobody would see that another model answers: with several, answers are streamed."""

    def answer(received: Received) -> Reply:
        whole = received.model == "a" and not received.json.get("stream")
        return Reply("streams only", status=400) if whole else Reply(received.model)

    server.default = answer
    with asked(server, model="a") as first, asked(server, model="b") as second:
        assert [row.text for row in Client([first, second]).map(texts(4), concurrency=1)] == ["a"] * 4


# -- which providers have them ----------------------------------------------------------------------------------------


def test_p50_providers_that_only_stream_are_never_asked_for_whole_answers() -> None:
    """Of those that llmbridge has, the two first ones."""
    streaming = {name for name, provider in providers.known().items() if not provider.answers_whole()}
    assert streaming >= {"vitalentum", "codelinkava"}
    assert not streaming.intersection(WHOLE)


class Own(Provider):
    """One that knows nothing of whole answers."""

    name = "own"

    @classmethod
    def encode(cls, request: ChatRequest) -> Encoded:
        """OpenAI's."""
        return OpenAI.encode(request)

    @classmethod
    def decode(cls, frame: Frame) -> Iterable[Item | End]:
        """The text."""
        if frame.data == "[DONE]":
            return [END]
        return [choice["delta"].get("content") or "" for choice in json.loads(frame.data)["choices"]]


class Changed(OpenAICompatible):
    """One that finds more in streams than the dialect has."""

    name = "changed"
    decode = Own.decode


class Named(OpenAICompatible):
    """One that changes nothing about answers."""

    name = "named"


class Read(Changed):
    """One that says how a document is read."""

    name = "read"
    decode_document = OpenAICompatible.decode_document


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize(("kind", "whole"), [(Own, False), (Changed, False), (Named, True), (Read, True)])
def test_p50_a_provider_that_changes_how_streams_are_read_streams(
    server: LLMServer, kind: type[Provider], whole: bool
) -> None:
    """A document would lack what it finds in them."""
    register(kind)
    server.default = echo
    with Client(f"{kind.name}:m", base_url=server.base_url("openai"), retries=0) as client:
        assert [row.text for row in client.map(texts(4), concurrency=1)] == [f"<row {number}>" for number in range(4)]
    assert streams(server) == [True, *([not whole] * 3)]
