"""An answer in another dialect is an error that names it: in every pair of dialects, as a stream and as a document."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from loopback import head
from modes import Mode, Outcome

from llmbridge import Client, ProtocolError, Provider, providers
from llmbridge._call.framing import Record
from llmbridge._call.shapes import foreign_document, foreign_stream, knows_stream, nothing_read
from llmbridge.events import END
from llmbridge.testing import CLOSE, LLMServer, Reply

SSE_TYPE, NDJSON_TYPE = "text/event-stream", "application/x-ndjson"


def said(*objects: Any, named: bool = False) -> bytes:
    """An event stream."""
    names = [f"event: {one['type']}\n" if named else "" for one in objects]
    return "".join(f"{name}data: {json.dumps(one)}\n\n" for name, one in zip(names, objects, strict=True)).encode()


def lines(*objects: Any) -> bytes:
    """JSON lines."""
    return "".join(f"{json.dumps(one)}\n" for one in objects).encode()


def chunk(delta: Any, finish: str | None = None) -> Any:
    """A chunk of OpenAI's."""
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def candidate(text: str, **more: Any) -> Any:
    """A candidate of Gemini's."""
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}] if text else []}, **more}]}


def response(status: str, *output: Any) -> Any:
    """An event of Responses."""
    return {"id": "resp_1", "object": "response", "status": status, "output": [*output], "error": None}


def message(*content: Any, stop: str | None = None) -> Any:
    """A message of Anthropic's."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    return {"type": "message", "role": "assistant", "content": [*content], "stop_reason": stop, "usage": usage}


def line(text: str, done: bool = False) -> Any:
    """A line of Ollama's."""
    more = {"done_reason": "stop", "prompt_eval_count": 1, "eval_count": 1} if done else {}
    return {"model": "m", "message": {"role": "assistant", "content": text}, "done": done, **more}


TEXT = {"type": "text", "text": "Hi"}
OUTPUT = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hi"}]}
COHERE_END = {"finish_reason": "COMPLETE", "usage": {"tokens": {"input_tokens": 1, "output_tokens": 1}}}
# The events of a stream; those that remain in an answer without text; a whole answer.
ANTHROPIC = [
    {"type": "message_start", "message": message()},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 1}},
    {"type": "message_stop"},
]
RESPONSES = [
    {"type": "response.created", "response": response("in_progress")},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message", "content": []}},
    {"type": "response.output_text.delta", "output_index": 0, "delta": "Hi"},
    {"type": "response.completed", "response": response("completed", OUTPUT)},
]
COHERE = [
    {"type": "message-start", "delta": {"message": {"role": "assistant", "content": []}}},
    {"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "text", "text": ""}}}},
    {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "Hi"}}}},
    {"type": "content-end", "index": 0},
    {"type": "message-end", "delta": COHERE_END},
]
DONE = b"data: [DONE]\n\n"
STREAMS = {
    "openai": said(chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi"}), chunk({}, "stop")) + DONE,
    "openai-responses": said(*RESPONSES, named=True),
    "anthropic": said(*ANTHROPIC, named=True),
    "gemini": said(candidate("Hi"), candidate("", finishReason="STOP")),
    "cohere": said(*COHERE, named=True),
    "ollama": lines(line("Hi"), line("", True)),
}
EMPTY = {
    "openai": said(chunk({"role": "assistant", "content": ""}), chunk({}, "stop")) + DONE,
    "openai-responses": said(RESPONSES[0], {"type": "response.completed", "response": response("completed")}),
    "anthropic": said(ANTHROPIC[0], *ANTHROPIC[-2:], named=True),
    "gemini": said(candidate("", finishReason="STOP")),
    "cohere": said(COHERE[0], COHERE[-1], named=True),
    "ollama": lines(line("", True)),
}
DOCUMENTS: dict[str, Any] = {
    "openai": {"object": "chat.completion", "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]},
    "openai-responses": response("completed", OUTPUT),
    "anthropic": message(TEXT, stop="end_turn"),
    "gemini": candidate("Hi", finishReason="STOP"),
    "cohere": {"message": {"role": "assistant", "content": [TEXT]}, **COHERE_END},
    "ollama": line("Hi", True),
}
NAMES = list(STREAMS)
PAIRS = [(spoken, asked) for spoken in NAMES for asked in NAMES if spoken != asked]


def kind_of(name: str) -> str:
    """The media type of a dialect's streams."""
    return NDJSON_TYPE if name == "ollama" else SSE_TYPE


def asked_for(server: LLMServer, mode: Mode, name: str, *replies: Reply) -> list[Outcome]:
    """How a client for that dialect reads the answers."""
    server.script(*replies)
    with Client(f"{name}:m", base_url=server.root, api_key="k-1234567", retries=0, timeout=20) as client:
        return [mode.read(client.chat("x")) for _ in replies]


@pytest.mark.parametrize("name", NAMES)
def test_each_dialect_is_read_by_its_own_provider(server: LLMServer, mode: Mode, name: str) -> None:
    """Each dialect is read by its own provider, so that the other tests depend only on the pair."""
    document = json.dumps(DOCUMENTS[name])
    replies = [Reply(body=STREAMS[name], content_type=kind_of(name)), Reply(body=document, content_type="")]
    assert asked_for(server, mode, name, *replies) == [Outcome(["Hi"], None)] * 2


@pytest.mark.parametrize(("spoken", "asked"), PAIRS)
def test_p8_another_dialect_is_named(server: LLMServer, mode: Mode, spoken: str, asked: str) -> None:
    """Whole, in small reads, truncated, without names, with an end mark after it, without text, as a document."""
    stream, kind = STREAMS[spoken], kind_of(spoken)
    cut = stream[: len(stream) * 2 // 3]
    replies = [
        Reply(body=stream, content_type=kind),
        Reply(body=stream, content_type=kind, split=7),
        Reply(body=stream + DONE, content_type=SSE_TYPE),
        Reply(body=EMPTY[spoken], content_type=kind),
        Reply(raw=[head("Content-Length: 100000", kind=kind), cut, CLOSE]),
        Reply(body=json.dumps(DOCUMENTS[spoken]), content_type="application/json"),
        Reply(body=json.dumps(DOCUMENTS[spoken], indent=2), content_type="application/json"),
    ]
    for place, outcome in enumerate(asked_for(server, mode, asked, *replies)):
        assert outcome.pieces == [], place
        assert type(outcome.error) is ProtocolError, place
        assert f"use {spoken}:MODEL or check the base_url" in str(outcome.error), place


@pytest.mark.parametrize("name", NAMES)
def test_p8_an_empty_answer_is_one(server: LLMServer, mode: Mode, name: str) -> None:
    """An empty answer is valid if the dialect's finish reason is there."""
    assert asked_for(server, mode, name, Reply(body=EMPTY[name], content_type=kind_of(name))) == [Outcome([], None)]


@pytest.mark.parametrize("name", NAMES)
def test_p6_a_stream_of_the_right_dialect_that_is_cut_is_too_short(server: LLMServer, mode: Mode, name: str) -> None:
    """A truncated stream of the right dialect is StreamTruncated, with or without text."""
    begun = EMPTY[name].split(b"\n\n")[0] + b"\n\n" if name not in ("gemini", "ollama") else None
    text = STREAMS[name][: STREAMS[name].index(b"Hi")] if begun else STREAMS[name].split(b"\n")[0] + b"\n\n"
    for body in filter(None, (begun, text)):
        cut = Reply(raw=[head("Content-Length: 100000", kind=kind_of(name)), body, CLOSE])
        for outcome in asked_for(server, mode, name, cut, Reply(body=body, content_type=kind_of(name))):
            assert type(outcome.error).__name__ == "StreamTruncated", body


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "body", [DONE, b"data: [DONE]\n", b"data: [DONE]", b": hi\n\ndata: [DONE]\n\n", b"data:\n\n" + DONE]
)
def test_p8_an_end_mark_alone_is_no_answer(server: LLMServer, mode: Mode, name: str, body: bytes) -> None:
    """An end mark alone is not an answer in any dialect."""
    (outcome,) = asked_for(server, mode, name, Reply(body=body, content_type=SSE_TYPE))
    assert (outcome.pieces, type(outcome.error)) == ([], ProtocolError)
    assert ("JSON lines" if name == "ollama" else "only the end mark") in str(outcome.error)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("end", [b"", DONE])
def test_p8_events_that_yield_nothing_are_not_an_answer(server: LLMServer, mode: Mode, name: str, end: bytes) -> None:
    """Events of an unknown dialect that yield nothing are not an answer."""
    body = said({"foo": 1}, {"bar": {"message": "Hi"}}) + end
    if name == "ollama":
        body = lines({"foo": 1}, {"bar": 2})
    (outcome,) = asked_for(server, mode, name, Reply(body=body, content_type=kind_of(name)))
    assert (outcome.pieces, type(outcome.error)) == ([], ProtocolError)
    assert "no answer" in str(outcome.error)


def test_p8_an_answer_without_anything_is_an_error(server: LLMServer, mode: Mode) -> None:
    """An answer without any content is an error, also as a document. Token counts are content."""
    nothing = said(chunk({"role": "assistant", "content": ""}))
    counted = said({"choices": [], "usage": {"prompt_tokens": 7}})
    replies = [Reply(body=body) for body in (nothing + DONE, b'{"choices": []}', nothing + counted + DONE)]
    *failed, empty = asked_for(server, mode, "openai", *replies)
    for outcome in failed:
        assert type(outcome.error) is ProtocolError
        assert "no finish reason" in str(outcome.error)
    assert empty == Outcome([], None)


def test_p8_json_lines_of_the_right_dialect_are_read(server: LLMServer, mode: Mode) -> None:
    """Streams without any `data:` are read, even when truncated."""
    body = lines(chunk({"content": "a"}), chunk({"content": "b"}), chunk({}, "stop"))
    replies = [Reply(body=body), Reply(body=body[:-10]), Reply(raw=[head("Content-Length: 9999"), body[:-10], CLOSE])]
    whole, *cut = asked_for(server, mode, "openai", *replies)
    assert whole == Outcome(["a", "b"], None)
    for outcome in cut:
        assert (outcome.pieces, type(outcome.error).__name__) == (["a", "b"], "StreamTruncated")


@pytest.mark.parametrize("name", ["azure", "mistral", "openrouter", "groq", "vllm", "vitalentum"])
def test_services_are_known_by_what_their_provider_reads(name: str) -> None:
    """The provider that reads a dialect's sample speaks it: there is no list of names."""
    provider, _ = providers.resolve_model(f"{name}:m", has_base_url=True)
    assert knows_stream([Record(json.dumps(chunk({"content": "Hi"})))], provider)
    assert foreign_document(DOCUMENTS["openai"], provider) is None
    assert "anthropic:MODEL" in str(foreign_document(DOCUMENTS["anthropic"], provider))


class Own(Provider):
    """A dialect of its own."""

    name = "own"

    @classmethod
    def decode(cls, frame: Any) -> Iterable[Any]:
        """Reads only its end."""
        return (END,) if frame.data == "end" else ()


def test_of_a_dialect_that_is_not_known_an_empty_answer_is_believed() -> None:
    """An empty answer is believed to its provider; known dialects are named nevertheless."""
    assert nothing_read([Record("end")], Own, over=True) is None
    assert not knows_stream([Record("end")], Own)
    assert "gemini:MODEL" in str(foreign_stream([Record(json.dumps(candidate("Hi")))], Own))


def test_the_report_of_an_error_is_in_no_dialect() -> None:
    """An error report is more precise than the name of a dialect."""
    provider = providers.resolve_model("openai:m")[0]
    assert foreign_document({"type": "message", "error": {"message": "no"}}, provider) is None
    assert foreign_document([{"error": {"message": "no"}}], provider) is None
    for odd in (None, 5, "x", [], [1], {}):
        assert foreign_document(odd, provider) is None
