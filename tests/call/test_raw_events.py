"""The service's raw events beside ours, the identity of an answer, and events held before its first piece."""

from __future__ import annotations

import json
from typing import Any

import pytest
from modes import Mode

from llmbridge import Client, Other, RawEvent, Retry, ServerError, Text
from llmbridge.events import Finish
from llmbridge.testing import LLMServer, Reply


def chunk(text: str = "", **top: Any) -> bytes:
    """One event of a chat completions stream."""
    delta = {"content": text} if text else {}
    return (
        b"data: "
        + json.dumps({"id": "c1", "model": "m-9", "choices": [{"index": 0, "delta": delta}], **top}).encode()
        + b"\n\n"
    )


END = b'data: {"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"tier":"x"}\n\ndata: [DONE]\n\n'
BODY = chunk("Hel") + chunk("lo", unheard_of=1) + END


def test_each_raw_event_comes_before_its_items(server: LLMServer, client: Client, mode: Mode) -> None:
    """All raw events are there unchanged, including the end mark."""
    server.script(Reply(body=BODY))
    outcome = mode.read(client.chat("x").raw_events())
    assert outcome.error is None
    assert [type(event).__name__ for event in outcome.pieces if not isinstance(event, Other)] == [
        "RawEvent", "Text", "RawEvent", "Text", "RawEvent", "Finish", "RawEvent"
    ]  # fmt: skip
    raw = [event for event in outcome.pieces if isinstance(event, RawEvent)]
    assert raw[1].json["unheard_of"] == 1
    assert (raw[-1].data, raw[-1].json) == ("[DONE]", None)
    assert b"".join(b"data: " + event.data.encode() + b"\n\n" for event in raw) == BODY


def test_other_ways_of_reading_hide_them(server: LLMServer, client: Client, mode: Mode) -> None:
    """The text, the events and the whole answer are the same without `raw`."""
    server.script(*[Reply(body=BODY)] * 2)
    assert mode.read(client.chat("x")).pieces == ["Hel", "lo"]
    events = mode.read(client.chat("x").events()).pieces
    assert [event for event in events if isinstance(event, (Text, Finish))] == [
        Text("Hel"), Text("lo"), Finish("stop", "stop")
    ]  # fmt: skip
    assert not any(isinstance(event, RawEvent) for event in events)


def test_the_raw_events_of_a_failed_attempt_are_dropped(server: LLMServer, client: Client, mode: Mode) -> None:
    """Raw events of a failed attempt are dropped."""
    failed = Reply(body=chunk() + b'data: {"error": {"message": "overloaded", "code": 503}}\n\n')
    server.script(failed, Reply(body=BODY), failed)
    retries = Retry(1, backoff=0.01)
    outcome = mode.read(client.chat("x", retries=retries).raw_events())
    assert (outcome.error, len([event for event in outcome.pieces if isinstance(event, RawEvent)])) == (None, 4)
    outcome = mode.read(client.chat("x", retries=0).raw_events())
    assert isinstance(outcome.error, ServerError)


def test_who_answers_is_known_as_soon_as_the_service_says_so(server: LLMServer, client: Client) -> None:
    """The id and model are on the stream while it comes, and on the whole answer."""
    server.script(Reply(body=BODY))
    stream = client.chat("x")
    assert (stream.response_id, stream.served_model, stream.extra) == (None, None, {})
    assert next(stream) == "Hel"
    assert (stream.response_id, stream.served_model) == ("c1", "m-9")
    answer = stream.complete()
    assert (answer.response_id, answer.served_model, answer.extra["tier"]) == ("c1", "m-9", "x")
    assert answer.model == stream.model


def test_a_document_says_it_too(server: LLMServer, client: Client, mode: Mode) -> None:
    """A JSON document instead of a stream has them too."""
    document = {
        "id": "c2",
        "model": "m-1",
        "created": 5,
        "choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}],
    }
    server.script(Reply(body=json.dumps(document).encode(), content_type="application/json"))
    answer = mode.complete(client.chat("x"))
    assert (answer.response_id, answer.served_model, answer.extra) == ("c2", "m-1", {"created": 5})


@pytest.mark.parametrize("events", [1, 3000])
def test_tokens_before_the_first_piece_do_not_pile_up(server: LLMServer, client: Client, events: int) -> None:
    """Each count replaces the one before it."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    server.script(Reply(body=b"".join([chunk(usage=usage)] * events) + BODY))
    stream = client.chat("x")
    assert "".join(stream) == "Hello"
    assert stream.usage is not None
    assert stream.usage.total_tokens == 3
