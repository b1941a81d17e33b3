"""Answers recorded from real servers, replayed over real sockets: whole, byte by byte, cut, by every provider."""

from __future__ import annotations

import json
import pickle
import re
from typing import Any

import pytest
from modes import MODES, Async, Mode
from recordings import ALL, DATA, HELLO, Answer, Failure, Listing, names, provider_of, recorded, steps

from llmbridge import Client, LLMBridgeError, ServiceError, StreamTruncated, amodels
from llmbridge.completion import Completion
from llmbridge.stream import ChatStream
from llmbridge.testing import CLOSE, LLMServer, Reply

EVERY_MODE = pytest.mark.parametrize("mode", MODES.values(), ids=list(MODES))


def ask(client: Client, server: LLMServer, provider: str = "openai", **params: Any) -> ChatStream:
    """A call with a scripted answer."""
    return client.chat(
        "Hello",
        f"{provider}:tiny-script",
        base_url=server.root,
        api_key="sk-test",
        proxy=False,
        timeout=20,
        **params,
    )


def check_answer(answer: Completion, expected: Answer) -> None:
    """Checks that every field of an answer is the recorded one."""
    assert answer.text == expected.text
    assert (answer.finish_reason, answer.raw_finish_reason) == (expected.finish, expected.raw or expected.finish)
    assert answer.usage == expected.usage
    assert answer.reasoning == expected.reasoning
    assert tuple((call.name, call.arguments) for call in answer.tool_calls) == expected.calls
    assert all(call.id and call.problem is None for call in answer.tool_calls)
    assert len(answer.logprobs) == expected.logprobs


def check_failure(error: LLMBridgeError, expected: Failure, raw: bytes) -> None:
    """Checks that every field of an error is the recorded one."""
    assert type(error) is expected.error, error
    assert error.partial == expected.partial
    assert expected.says in error.message
    if not isinstance(error, ServiceError):
        return
    assert (error.status, error.code) == (expected.status, expected.code)
    assert expected.says in error.message
    assert error.body
    assert error.body.encode() in raw
    assert (error.retry_after, error.retryable) == (expected.retry_after, expected.retryable)


@EVERY_MODE
@pytest.mark.parametrize("split", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", names(Answer, Failure))
def test_a_recording_replays(server: LLMServer, mode: Mode, name: str, split: int | None) -> None:
    """The recorded bytes, in one send or one send each, give the recorded answer or error."""
    server.script(Reply(raw=steps(name), split=split))
    expected, provider = ALL[name], provider_of(name)
    with Client(retries=0) as client:
        if provider is None:
            assert isinstance(expected, Failure)
            with pytest.raises(expected.error) as caught:
                listed(client, server, name, mode)
            check_failure(caught.value, expected, recorded(name))
        elif isinstance(expected, Answer):
            asked = {"logprobs": True} if expected.logprobs else {}
            check_answer(mode.complete(ask(client, server, provider, **asked)), expected)
        else:
            assert isinstance(expected, Failure)
            with pytest.raises(expected.error) as caught:
                mode.complete(ask(client, server, provider))
            check_failure(caught.value, expected, recorded(name))
            assert (caught.value.provider, caught.value.model) == (provider, "tiny-script")


@EVERY_MODE
@pytest.mark.parametrize("split", [None, 1], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("name", names(Listing))
def test_a_recorded_list_of_models_replays(server: LLMServer, mode: Mode, name: str, split: int | None) -> None:
    """The recorded names, in order."""
    server.script(Reply(raw=steps(name), split=split))
    expected = ALL[name]
    assert isinstance(expected, Listing)
    with Client(retries=0) as client:
        assert listed(client, server, name, mode) == list(expected.models)


def listed(client: Client, server: LLMServer, name: str, mode: Mode) -> list[str]:
    """The list of models, from the recording's provider."""
    provider = "ollama" if "ollama" in name else "openai-compatible"
    options: dict[str, Any] = {"base_url": server.root, "api_key": "sk-test-key", "proxy": False, "retries": 0}
    if not isinstance(mode, Async):
        return client.models(provider, **options)
    found: list[str] = mode.run(lambda: amodels(provider, **options))
    return found


@pytest.mark.parametrize("provider", ["openai-compatible", "vitalentum", "codelinkava"])
@pytest.mark.parametrize("name", ["aimock/chat_text", "llama_server/chat_usage", "transformers/chat_reasoning"])
def test_a_recorded_stream_replays_through_every_provider(server: LLMServer, name: str, provider: str) -> None:
    """The first services' line framing and the others' events read the same streams."""
    server.script(Reply(raw=steps(name), split=7))
    expected = ALL[name]
    assert isinstance(expected, Answer)
    with Client(retries=0) as client:
        check_answer(ask(client, server, provider).complete(), expected)


@pytest.mark.parametrize("name", ["aimock/chat_text", "llama_server/chat_length", "transformers/chat_usage"])
def test_the_pieces_are_those_that_the_server_sent(server: LLMServer, name: str) -> None:
    """Each recorded delta with text is one piece, whatever the network did to it."""
    texts = [delta_text(line[6:]) for line in recorded(name).split(b"\n") if line.startswith(b"data: {")]
    server.script(Reply(raw=steps(name), split=5))
    with Client(retries=0) as client:
        assert list(ask(client, server)) == [text for text in texts if text]


@pytest.mark.parametrize("name", names(Answer, Failure, provider="openai"))
def test_the_request_id_is_the_recorded_one(server: LLMServer, name: str) -> None:
    """Answers and errors have the service's ID of the request, if it sent one."""
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


@pytest.mark.parametrize("name", names(Failure, provider="openai"))
def test_a_recorded_error_survives_pickling(server: LLMServer, name: str) -> None:
    """An error of a real call reaches another process with all its fields."""
    server.script(Reply(raw=steps(name)))
    with Client(retries=0) as client, pytest.raises(LLMBridgeError) as caught:
        ask(client, server).complete()
    copy = pickle.loads(pickle.dumps(caught.value))
    assert type(copy) is type(caught.value)
    assert vars(copy) == vars(caught.value)


def test_two_recordings_share_a_connection(server: LLMServer) -> None:
    """A complete stream leaves the connection usable for the next one."""
    server.script(Reply(raw=steps("aimock/chat_text")), Reply(raw=steps("llama_server/chat_usage")))
    with Client(retries=0) as client:
        first, second = (ask(client, server).complete().text for _ in range(2))
    assert (first, second) == ("Hello from a real server. Grüße, 世界 🌍!", HELLO)
    assert server.connections == 1


@pytest.mark.parametrize("name", ["aimock/chat_text", "llama_server/chat_usage", "transformers/chat_text"])
def test_a_recording_cut_anywhere_in_its_text_is_truncated(server: LLMServer, name: str) -> None:
    """All text before the cut is yielded, then it is an error."""
    raw = recorded(name)
    events = [(event.end(), delta_text(event[1])) for event in re.finditer(rb"data: (\{.*\})\n\n", raw)]
    cuts = range(events[0][0] + 1, raw.rfind(b'"content"'), 97)
    server.script(*(Reply(raw=[raw[:cut], CLOSE]) for cut in cuts))
    with Client(retries=0) as client:
        for cut in cuts:
            with pytest.raises(StreamTruncated) as caught:
                ask(client, server).complete()
            whole = [text for end, text in events if end <= cut]
            next_text = events[len(whole)][1]  # its last bytes may be missing while its JSON is complete
            assert caught.value.partial in ("".join(whole), "".join(whole) + next_text), cut


def delta_text(chunk: bytes) -> str:
    """The text in a recorded event."""
    return "".join(choice["delta"].get("content") or "" for choice in json.loads(chunk)["choices"])


@pytest.mark.parametrize("name", ["aimock/chat_text", "llama_server/chat_length", "transformers/chat_usage"])
def test_a_recording_cut_behind_its_finish_reason_is_whole(server: LLMServer, name: str) -> None:
    """Only the end mark or the end of the coding is lost, but nothing of the answer."""
    raw, expected = recorded(name), ALL[name]
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
    """The last event counts if it is complete, on a body that ends with its connection."""
    events = b"".join(re.findall(rb"data: [^\n]+\n\n", recorded(name)))
    body = events[: len(events) - lacking]
    server.script(Reply(body=body, content_type="text/event-stream", transfer="close"))
    expected = ALL[name]
    assert isinstance(expected, Answer)
    with Client(retries=0) as client:
        check_answer(ask(client, server).complete(), expected)


@pytest.mark.parametrize("name", ["aimock/chat_usage", "llama_server/chat_usage", "transformers/chat_usage"])
def test_a_recording_without_its_last_events_is_truncated(server: LLMServer, name: str) -> None:
    """A clean end of the body, but without finish reason and end mark, is an error."""
    events = re.findall(rb"data: [^\n]+\n\n", recorded(name))
    kept = [event for event in events if b'"content"' in event or b'"role"' in event]
    server.script(Reply(body=b"".join(kept), content_type="text/event-stream"))
    expected = ALL[name]
    assert isinstance(expected, Answer)
    with Client(retries=0) as client, pytest.raises(StreamTruncated) as caught:
        ask(client, server).complete()
    assert caught.value.partial == expected.text


def test_every_recording_is_in_the_table() -> None:
    """Every recording is checked."""
    assert {f"{path.parent.name}/{path.stem}" for path in DATA.glob("*/*.txt")} == set(ALL)


def test_recorded_bytes_are_kept_as_they_came() -> None:
    """Neither git nor an editor has changed the line ends of a recording."""
    for path in DATA.glob("*/*.txt"):
        reads = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["reads_ms_bytes"]
        assert sum(size for _, size in reads) == path.stat().st_size, path.name
