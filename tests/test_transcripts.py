"""Answers recorded from real servers, replayed over real sockets: whole, byte by byte, and through every provider."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmbridge import (
    AuthError,
    BadRequest,
    Client,
    ContextLengthExceeded,
    LLMBridgeError,
    NotFound,
    Overloaded,
    RateLimited,
    ServerError,
    ServiceError,
    StreamTruncated,
    Usage,
)
from llmbridge.stream import ChatStream, Completion
from llmbridge.testing import CLOSE, LLMServer, Reply

DATA = Path(__file__).parent / "data" / "transcripts"
BROKEN_OFF = "connection closed by peer before the response was complete"


@dataclass(frozen=True)
class Answer:
    """What a recording of an answer holds, read off its bytes by eye."""

    text: str
    finish: str = "stop"
    usage: Usage | None = None
    reasoning: str = ""


@dataclass(frozen=True)
class Failure:
    """What a recording of an error holds, read off its bytes by eye."""

    error: type[LLMBridgeError]
    status: int | None = None
    code: str | None = None
    says: str = ""
    partial: str = ""
    retry_after: float | None = None
    retryable: bool = False


def used(prompt: int, answer: int, total: int, cached: int | None = None) -> Usage:
    """The tokens that a recording counts."""
    return Usage(input_tokens=prompt, output_tokens=answer, total_tokens=total, cached_input_tokens=cached)


HELLO = "Hello from a real engine: Grüße, 世界 🌍 bye."
TOO_LONG = Failure(
    ContextLengthExceeded,
    400,
    "exceed_context_size_error",
    "request (6020 tokens) exceeds the available context size (2048 tokens), try increasing it",
)
WRONG_KEY = Failure(AuthError, 401, "authentication_error", "Invalid API Key")
FIVE_HUNDRED = Failure(ServerError, 500, None, "Internal Server Error", retryable=True)

EXPECTED: dict[str, Answer | Failure] = {
    "aimock/chat_bad_json": Failure(BadRequest, 400, "invalid_json", "Malformed JSON: Expected property name or '}'"),
    "aimock/chat_disconnect": Failure(StreamTruncated, partial="This stream will"),
    "aimock/chat_err400": Failure(BadRequest, 400, "invalid_value", "Invalid parameter: temperature"),
    "aimock/chat_err401": Failure(AuthError, 401, "invalid_api_key", "Incorrect API key provided"),
    "aimock/chat_err404": Failure(NotFound, 404, "model_not_found", "The model does not exist"),
    "aimock/chat_err429": Failure(
        RateLimited, 429, "rate_limit_exceeded", "Rate limit exceeded", retry_after=1.0, retryable=True
    ),
    "aimock/chat_err500": Failure(ServerError, 500, "server_error", "The server had an error", retryable=True),
    "aimock/chat_err503": Failure(Overloaded, 503, "overloaded_error", "Overloaded", retryable=True),
    "aimock/chat_filter": Answer("I can", "content_filter"),
    "aimock/chat_json": Answer('{"ok":true,"items":[1,2]}'),
    "aimock/chat_late": Answer("The first token was three seconds late."),
    "aimock/chat_length": Answer("This was cut by the limit", "length"),
    "aimock/chat_no_fixture": Failure(
        Overloaded, 503, "no_fixture_match", "Strict mode: no fixture matched", retryable=True
    ),
    "aimock/chat_no_messages": Failure(
        BadRequest, 400, "invalid_request_error", "Missing required parameter: 'messages'"
    ),
    "aimock/chat_nostream": Answer("Counted answer.", usage=used(11, 7, 18)),
    "aimock/chat_reasoning": Answer("The answer is 4.", reasoning="Two and two make four."),
    "aimock/chat_slow": Answer("This one drips out slowly, token after token."),
    "aimock/chat_text": Answer("Hello from a real server. Grüße, 世界 🌍!"),
    "aimock/chat_tool": Answer("", "tool_calls"),
    "aimock/chat_tool_nostream": Answer("", "tool_calls", used(3, 14, 17)),
    "aimock/chat_toolfirst": Answer("Looking it up.", "tool_calls"),
    "aimock/chat_truncate": Failure(StreamTruncated, partial="This str"),
    "aimock/chat_twotools": Answer("", "tool_calls"),
    "aimock/chat_usage": Answer("Counted answer.", usage=used(11, 7, 18)),
    "llama_server/chat_bad_json": Failure(
        ServerError, 500, "server_error", "parse error at line 1, column 3", retryable=True
    ),
    "llama_server/chat_bad_key": WRONG_KEY,
    "llama_server/chat_bad_model": Answer(HELLO),
    "llama_server/chat_bad_param": Failure(BadRequest, 400, "invalid_request_error", "Field 'temperature'"),
    "llama_server/chat_bad_schema": Failure(BadRequest, 400, "invalid_request_error", "but got: wibble"),
    "llama_server/chat_json": Answer('{"ok": true, "n": [1, 2]}'),
    "llama_server/chat_length": Answer("tick tock " * 6, "length"),
    "llama_server/chat_logprobs": Answer("Hello from a", "length"),
    "llama_server/chat_no_key": WRONG_KEY,
    "llama_server/chat_no_messages": Failure(BadRequest, 400, "invalid_request_error", "'messages' is required"),
    "llama_server/chat_nostream": Answer(HELLO, usage=used(22, 13, 35, cached=21)),
    "llama_server/chat_progress": Answer(HELLO),
    "llama_server/chat_reasoning": Answer("The answer is 4.", reasoning="Two and two make four.\n"),
    "llama_server/chat_schema": Answer('{"ok": true}'),
    "llama_server/chat_stop": Answer("Hello from a"),
    "llama_server/chat_text": Answer(HELLO),
    "llama_server/chat_too_long": TOO_LONG,
    "llama_server/chat_too_long_nostream": TOO_LONG,
    "llama_server/chat_tool": Answer("", "tool_calls"),
    "llama_server/chat_tool_nostream": Answer("", "tool_calls", used(311, 7, 318, cached=218)),
    "llama_server/chat_twotools": Answer("", "tool_calls", used(449, 13, 462, cached=218)),
    "llama_server/chat_unknown_param": Answer("Hello from a", "length"),
    "llama_server/chat_usage": Answer(HELLO, usage=used(22, 13, 35, cached=21)),
    "transformers/chat_bad_json": Failure(BadRequest, 422, None, "body.1: JSON decode error"),
    "transformers/chat_bad_model": Failure(BadRequest, 400, None, "requested 'no-such-model'."),
    "transformers/chat_bad_param": FIVE_HUNDRED,
    "transformers/chat_json": Answer('{"ok": true, "n": [1, 2]}', usage=used(29, 5, 34)),
    "transformers/chat_length": Answer("tick tock " * 6, "length", used(29, 12, 41)),
    "transformers/chat_no_messages": FIVE_HUNDRED,
    "transformers/chat_nostream": Answer(HELLO, usage=used(22, 13, 35)),
    "transformers/chat_reasoning": Answer(
        "\n\nThe answer is 4.", usage=used(30, 9, 39), reasoning="\nTwo and two make four.\n"
    ),
    "transformers/chat_stop": Answer("Hello from a real", usage=used(22, 4, 26)),
    "transformers/chat_text": Answer(HELLO, usage=used(22, 13, 35)),
    "transformers/chat_tool": Answer("", "tool_calls", used(311, 7, 318)),
    "transformers/chat_tool_choice": Answer("", "tool_calls", used(311, 7, 318)),
    "transformers/chat_tool_nostream": Answer("", "tool_calls", used(311, 7, 318)),
    "transformers/chat_twotools": Answer("", "tool_calls", used(449, 13, 462)),
    "transformers/chat_unknown_param": Failure(BadRequest, 422, None, "Unexpected fields in the request: {'wibble'}"),
    "transformers/chat_usage": Answer(HELLO, usage=used(22, 13, 35)),
}
ANSWERS = [name for name, expected in EXPECTED.items() if isinstance(expected, Answer)]
FAILURES = [name for name, expected in EXPECTED.items() if isinstance(expected, Failure)]


@pytest.fixture
def server() -> Iterator[LLMServer]:
    """A fresh loopback server."""
    with LLMServer() as running:
        yield running


def recorded(name: str) -> bytes:
    """Everything the real server sent, status line and headers too."""
    return (DATA / f"{name}.txt").read_bytes()


def steps(name: str) -> list[Any]:
    """The recorded bytes, and the end of the connection that the recording saw behind them."""
    raw, end = recorded(name), json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))["end"]
    assert end in ("complete", BROKEN_OFF)
    closes = end == BROKEN_OFF or b"\r\nconnection: close\r\n" in raw.partition(b"\r\n\r\n")[0].lower() + b"\r\n"
    return [raw, CLOSE] if closes else [raw]


def ask(client: Client, server: LLMServer, provider: str = "openai") -> ChatStream:
    """A call that will be answered with what is scripted."""
    dialect = provider if provider in ("vitalentum", "codelinkava") else "openai"
    return client.chat(
        "Hello",
        f"{provider}:tiny-script",
        base_url=server.base_url(dialect),
        api_key="sk-test",
        proxy=False,
        timeout=20,
    )


def check_answer(answer: Completion, expected: Answer) -> None:
    """Every field of an answer is the recorded one."""
    assert answer.text == expected.text
    assert (answer.finish_reason, answer.raw_finish_reason) == (expected.finish, expected.finish)
    assert answer.usage == expected.usage
    assert answer.reasoning == expected.reasoning


def check_failure(error: LLMBridgeError, expected: Failure, raw: bytes) -> None:
    """Every field of an error is the recorded one."""
    assert type(error) is expected.error, error
    assert error.partial == expected.partial
    assert (error.provider, error.model) == ("openai", "tiny-script")
    if not isinstance(error, ServiceError):
        return
    assert (error.status, error.code) == (expected.status, expected.code)
    assert expected.says in error.message
    assert error.body
    assert error.body.encode() in raw
    assert (error.retry_after, error.retryable) == (expected.retry_after, expected.retryable)


def replay(server: LLMServer, name: str, split: int | None = None) -> None:
    """One recording, played and compared with the table."""
    server.script(Reply(raw=steps(name), split=split))
    expected = EXPECTED[name]
    with Client(retries=0) as client:
        stream = ask(client, server)
        if isinstance(expected, Answer):
            check_answer(stream.complete(), expected)
        else:
            with pytest.raises(expected.error) as caught:
                stream.complete()
            check_failure(caught.value, expected, recorded(name))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recording_replays_whole(server: LLMServer, name: str) -> None:
    """The recorded bytes in one send give the recorded answer or error."""
    replay(server, name)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_recording_replays_byte_by_byte(server: LLMServer, name: str) -> None:
    """The recorded bytes, each in a send of its own, give the same answer or error."""
    replay(server, name, split=1)


@pytest.mark.parametrize("provider", ["openai-compatible", "vitalentum", "codelinkava"])
@pytest.mark.parametrize("name", ["aimock/chat_text", "llama_server/chat_usage", "transformers/chat_reasoning"])
def test_a_recorded_stream_replays_through_every_provider(server: LLMServer, name: str, provider: str) -> None:
    """The line framing of the first services and the events of the others read the same streams."""
    server.script(Reply(raw=steps(name), split=7))
    expected = EXPECTED[name]
    assert isinstance(expected, Answer)
    with Client(retries=0) as client:
        check_answer(ask(client, server, provider).complete(), expected)


@pytest.mark.parametrize("name", ["aimock/chat_text", "llama_server/chat_length", "transformers/chat_usage"])
def test_the_pieces_are_those_that_the_server_sent(server: LLMServer, name: str) -> None:
    """Each recorded delta with text in it is one piece, whatever the network did to it."""
    texts = [delta_text(line[6:]) for line in recorded(name).split(b"\n") if line.startswith(b"data: {")]
    server.script(Reply(raw=steps(name), split=5))
    with Client(retries=0) as client:
        assert list(ask(client, server)) == [text for text in texts if text]


@pytest.mark.parametrize("name", EXPECTED)
def test_the_request_id_is_the_recorded_one(server: LLMServer, name: str) -> None:
    """Answers and errors alike carry the service's name for the request, where it sent one."""
    head = recorded(name).partition(b"\r\n\r\n")[0].decode()
    named = [line.partition(": ")[2] for line in head.split("\r\n") if line.lower().startswith("x-request-id: ")]
    server.script(Reply(raw=steps(name)))
    with Client(retries=0) as client:
        stream = ask(client, server)
        try:
            request_id = stream.complete().request_id
        except LLMBridgeError as error:
            request_id = error.request_id
    assert request_id == (named[0] if named else None)


@pytest.mark.parametrize("name", FAILURES)
def test_a_recorded_error_survives_pickling(server: LLMServer, name: str) -> None:
    """An error of a real call goes to another process and arrives with everything that it knew."""
    server.script(Reply(raw=steps(name)))
    with Client(retries=0) as client, pytest.raises(LLMBridgeError) as caught:
        ask(client, server).complete()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert vars(copy) == vars(caught.value)


def test_two_recordings_share_a_connection(server: LLMServer) -> None:
    """A stream that came to its end leaves the connection usable for the next one."""
    server.script(Reply(raw=steps("aimock/chat_text")), Reply(raw=steps("llama_server/chat_usage")))
    with Client(retries=0) as client:
        first, second = (ask(client, server).complete().text for _ in range(2))
    assert (first, second) == ("Hello from a real server. Grüße, 世界 🌍!", HELLO)
    assert server.connections == 1


@pytest.mark.parametrize("name", ["aimock/chat_text", "llama_server/chat_usage", "transformers/chat_text"])
def test_a_recording_cut_anywhere_in_its_text_is_truncated(server: LLMServer, name: str) -> None:
    """However much of a stream arrived before its end mark, all of its text is handed out, and then it is an error."""
    raw = recorded(name)
    events = [(event.end(), delta_text(event[1])) for event in re.finditer(rb"data: (\{.*\})\n\n", raw)]
    cuts = range(events[0][0] + 1, raw.rfind(b'"content"'), 97)
    server.script(*(Reply(raw=[raw[:cut], CLOSE]) for cut in cuts))
    with Client(retries=0) as client:
        for cut in cuts:
            with pytest.raises(StreamTruncated) as caught:
                ask(client, server).complete()
            whole = [text for end, text in events if end <= cut]
            next_text = events[len(whole)][1]  # its last bytes may be missing and its JSON be whole
            assert caught.value.partial in ("".join(whole), "".join(whole) + next_text), cut


def delta_text(chunk: bytes) -> str:
    """The text in one recorded event."""
    return "".join(choice["delta"].get("content") or "" for choice in json.loads(chunk)["choices"])


@pytest.mark.parametrize("name", ["aimock/chat_text", "llama_server/chat_length", "transformers/chat_usage"])
def test_a_recording_cut_behind_its_finish_reason_is_whole(server: LLMServer, name: str) -> None:
    """What is lost then is the end mark, the end of the coding, or both; of the answer nothing is."""
    raw, expected = recorded(name), EXPECTED[name]
    assert isinstance(expected, Answer)
    finished = raw.index(b"\n\n", raw.index(f'"finish_reason":"{expected.finish}"'.encode())) + 2
    cuts = range(finished, len(raw))
    server.script(*(Reply(raw=[raw[:cut], CLOSE]) for cut in cuts))
    with Client(retries=0) as client:
        for _ in cuts:
            check_answer(ask(client, server).complete(), expected)


@pytest.mark.parametrize("lacking", [0, 1, 2])
@pytest.mark.parametrize("name", ["aimock/chat_usage", "llama_server/chat_usage", "transformers/chat_usage"])
def test_a_recording_without_its_last_line_ends_is_whole(server: LLMServer, name: str, lacking: int) -> None:
    """The last event counts if its content is all there, on a body that ends with its connection."""
    events = b"".join(re.findall(rb"data: [^\n]+\n\n", recorded(name)))
    body = events[: len(events) - lacking]
    server.script(Reply(body=body, content_type="text/event-stream", transfer="close"))
    expected = EXPECTED[name]
    assert isinstance(expected, Answer)
    with Client(retries=0) as client:
        check_answer(ask(client, server).complete(), expected)


@pytest.mark.parametrize("name", ["aimock/chat_usage", "llama_server/chat_usage", "transformers/chat_usage"])
def test_a_recording_without_its_last_events_is_truncated(server: LLMServer, name: str) -> None:
    """A clean end of the body is no end of the answer: without finish reason and end mark it is an error."""
    events = re.findall(rb"data: [^\n]+\n\n", recorded(name))
    kept = [event for event in events if b'"content"' in event or b'"role"' in event]
    server.script(Reply(body=b"".join(kept), content_type="text/event-stream"))
    expected = EXPECTED[name]
    assert isinstance(expected, Answer)
    with Client(retries=0) as client, pytest.raises(StreamTruncated) as caught:
        ask(client, server).complete()
    assert caught.value.partial == expected.text


def test_every_recording_is_in_the_table() -> None:
    """No recording lies there without being checked."""
    assert {f"{path.parent.name}/{path.stem}" for path in DATA.glob("*/*.txt")} == set(EXPECTED)


def test_recorded_bytes_are_kept_as_they_came() -> None:
    """Neither git nor an editor has touched the line ends of a recording."""
    for path in DATA.glob("*/*.txt"):
        reads = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["reads_ms_bytes"]
        assert sum(size for _, size in reads) == path.stat().st_size, path.name
