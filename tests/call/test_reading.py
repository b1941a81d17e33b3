"""A stream is read once, but its completion is available again and again."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmbridge import BadRequest, ChatStream, Client, InvalidOutput, InvalidRequest
from llmbridge._call.pipeline import Pipeline
from llmbridge.testing import LLMServer, Reply

OBJECT = {"type": "object"}


def test_joining_twice_says_what_is_wrong(server: LLMServer, client: Client) -> None:
    """`str.join` replaces any TypeError from `iter()`, and InvalidRequest is one."""
    server.script(Reply("Hello"))
    stream = client.chat("x", schema=OBJECT)
    assert "".join(stream) == "Hello"
    for again in (stream, stream.events(), stream.objects()):
        with pytest.raises(InvalidRequest, match="has already been read"):
            "".join(again)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest, match="has already been read"):
            list(again)
    assert stream.text == "Hello"


def test_a_loop_that_was_not_begun_takes_nothing(server: LLMServer, client: Client) -> None:
    """Only the first step reads."""
    server.script(Reply("Hello"))
    stream = client.chat("x")
    iter(stream.events())
    assert stream.complete().text == "Hello"


@pytest.mark.slow
@pytest.mark.parametrize("second", [next, ChatStream.complete, list])
def test_a_second_reader_takes_nothing_from_the_first(
    server: LLMServer, client: Client, second: Callable[[ChatStream], object]
) -> None:
    """A second thread gets an error; the first one reads on."""
    server.default = Reply(["a", "b", "c"], delay=0.3)
    stream = client.chat("x")
    pieces: list[str] = []
    reader = threading.Thread(target=lambda: pieces.extend(next(stream) for _ in range(3)))
    reader.start()
    server.wait_for_requests(1)
    with pytest.raises(InvalidRequest, match="being read elsewhere"):
        second(stream)
    reader.join(20)
    assert pieces == ["a", "b", "c"]
    assert stream.complete().text == "abc"


def test_several_threads_complete_one_stream(server: LLMServer, client: Client) -> None:
    """Several threads share one answer after its schema retry."""
    held = threading.Event()
    server.script(Reply("bad"), Reply('{"a": 1}'))
    stream = client.chat("x", schema=OBJECT)
    assert "".join(stream) == "bad"

    def complete() -> str:
        held.wait(10)
        try:
            return stream.complete().text
        except InvalidRequest as error:
            return error.message

    with ThreadPoolExecutor(4) as threads:
        found = [threads.submit(complete) for _ in range(4)]
        held.set()
        assert [one.result() for one in found] == ['{"a": 1}'] * 4
    assert len(server.requests) == 2


def test_a_failed_schema_retry_fails_the_same_again(server: LLMServer, client: Client) -> None:
    """A failed schema retry raises the same error again, without another request."""
    server.script(Reply("bad"), Reply(status=400, error={"message": "nope"}))
    stream = client.chat("x", schema=OBJECT)
    errors = []
    for _ in range(3):
        with pytest.raises(BadRequest, match="nope") as caught:
            stream.complete()
        errors.append(caught.value)
    assert len({(error.status, error.body, error.provider, str(error.partial)) for error in errors}) == 1
    assert len({id(error) for error in errors}) == 3
    assert len(server.requests) == 2


def test_the_completion_times_both_requests(server: LLMServer, client: Client) -> None:
    """The times begin with the first request."""
    server.script(Reply("bad"), Reply('{"a": 1}'))
    stream = client.chat("x", schema=OBJECT)
    answer = stream.complete()
    assert answer.parsed == {"a": 1}
    assert stream.text == "bad"
    assert answer.first_piece_seconds == stream.first_piece_seconds
    assert stream._again is not None
    assert answer.total_seconds is not None
    assert stream.total_seconds is not None
    assert answer.total_seconds >= stream.total_seconds
    assert answer.total_seconds > (stream._again.total_seconds or 0)


@pytest.mark.slow
@pytest.mark.parametrize("reask", [0, 1])
def test_an_answer_that_does_not_fit_leaves_no_cycle(server: LLMServer, client: Client, reask: int) -> None:
    """The error and its frames are freed without a garbage collection."""
    server.script(*[Reply("bad")] * 2)
    gc.collect()
    known = {id(one) for one in gc.get_objects() if isinstance(one, Pipeline)}
    gc.disable()
    try:
        with contextlib.suppress(InvalidOutput):
            client.chat("x", schema=OBJECT, reask=reask).complete()
        assert not [one for one in gc.get_objects() if isinstance(one, Pipeline) and id(one) not in known]
    finally:
        gc.enable()
