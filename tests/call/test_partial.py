"""`.partial` of an error holds what came before an answer was cut off, in each mode."""

from __future__ import annotations

import copy
import json
import pickle
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from conftest import KEY
from loopback import event
from modes import MODES, Mode

from llmbridge import (
    AllFailed,
    BadRequest,
    Cancelled,
    Client,
    ClockExpired,
    LLMBridgeError,
    Overloaded,
    Partial,
    ProtocolError,
    Retry,
    StreamTruncated,
    Timeout,
    Usage,
    chat,
    embed,
)
from llmbridge.testing import LLMServer, Reply

OVERLOADED = {"message": "busy", "type": "overloaded_error", "code": 503}
WEATHER = {"name": "get_weather", "arguments": '{"city": "Paris"}', "id": "c1"}
TIME = {
    "name": "get_time",
    "arguments": json.dumps({"zone": "UTC", "words": "long enough for many events"}),
    "id": "c2",
}


def _same(partial: Partial) -> tuple[str, str, Any, Any]:
    return str(partial), partial.reasoning, partial.tool_calls, partial.usage


BREAKS: dict[str, tuple[Reply, type[LLMBridgeError]]] = {
    "error": (Reply(["a", "b"], error=OVERLOADED), Overloaded),
    "cut": (Reply(["a", "b"], end_mark=False, finish_reason=None, usage=False), StreamTruncated),
    "stall": (Reply(["a", "b"], finish_reason=None, end_mark=False, usage=False, keep_open=True), ClockExpired),
    "garbage": (Reply(body=event("a") + event("b") + b"data: {nonsense\n\n"), ProtocolError),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BREAKS))
@pytest.mark.parametrize("way", ["text", "events", "complete"])
def test_the_text_that_came_is_in_the_error(server: LLMServer, client: Client, mode: Mode, name: str, way: str) -> None:
    """It is the str that was handed out, and needs no further request."""
    reply, kind = BREAKS[name]
    server.script(reply)
    stream = client.chat("x", timeout=Timeout(idle=0.5), retries=Retry(2, backoff=0.01))
    read: dict[str, Callable[[], Any]] = {
        "complete": lambda: mode.complete(stream),
        "text": lambda: mode.each(stream, lambda piece: None),
        "events": lambda: mode.each(stream.events(), lambda piece: None),
    }
    with pytest.raises(kind) as caught:
        read[way]()
    partial = caught.value.partial
    assert isinstance(partial, Partial)
    assert partial == "ab" == stream.text
    assert (partial.reasoning, partial.tool_calls, partial.usage) == ("", (), None)
    assert len(server.requests) == 1


def test_everything_beside_the_text_is_there_too(server: LLMServer, mode: Mode) -> None:
    """Reasoning, a complete call, and counted tokens."""
    server.script(Reply(["Let me ", "see"], reasoning=["Hm", "m"], tool_calls=[WEATHER], error=OVERLOADED))
    with Client("anthropic:m", base_url=server.base_url("anthropic"), api_key=KEY) as client:
        stream = client.chat("x")
        error = mode.read(stream).error
    assert type(error) is Overloaded
    partial = error.partial
    assert isinstance(partial, Partial)
    assert (partial, partial.reasoning) == ("Let me see", "Hmm")
    (call,) = partial.tool_calls
    assert (call.name, call.arguments, call.problem) == ("get_weather", {"city": "Paris"}, None)
    assert isinstance(partial.usage, Usage)
    assert partial.usage.input_tokens
    assert stream.tool_calls == partial.tool_calls
    assert stream.usage == partial.usage


@pytest.mark.parametrize("provider", ["openai", "anthropic", "openai-responses"])
def test_a_call_that_was_cut_off_says_so(server: LLMServer, mode: Mode, provider: str) -> None:
    """The call before is complete; the last one has a `problem`, and its text so far."""
    dialect = "openai" if provider == "openai-responses" else provider
    with Client(f"{provider}:m", base_url=server.base_url(dialect), api_key=KEY, retries=0, timeout=20) as client:
        whole = Reply(["Ok"], tool_calls=[WEATHER, TIME], usage=False)
        server.script(whole, whole)
        assert len(client.chat("x").complete().tool_calls) == 2
        body = _body_of(server)
        inside = body.index(b"get_time")
        for _ in range(3):  # the event that names it, and two more
            inside = body.index(b"\n\n", inside) + 2
        server.script(replace(whole, cut=inside))
        error = mode.read(client.chat("x")).error
    assert type(error) is StreamTruncated
    assert isinstance(error.partial, Partial)
    assert error.partial == "Ok"
    first, second = error.partial.tool_calls
    assert (first.name, first.arguments, first.problem) == ("get_weather", {"city": "Paris"}, None)
    assert second.name == "get_time"
    assert second.problem
    assert 0 < len(second.text) < len(TIME["arguments"])
    assert TIME["arguments"].startswith(second.text)


def _body_of(server: LLMServer) -> bytes:
    """The body of the server's answer to the last request, sent again."""
    last = server.requests[-1]
    request = urllib.request.Request(server.root + last.path, last.body, dict(last.headers))
    quiet = urllib.request.HTTPHandler(debuglevel=0)  # from Python 3.13 on it prints the key where http.client would
    with urllib.request.build_opener(urllib.request.ProxyHandler({}), quiet).open(request) as answer:
        body: bytes = answer.read()
        return body


def test_the_turns_that_were_over_are_there_to_go_on_from(server: LLMServer, client: Client, mode: Mode) -> None:
    """Finished turns are kept, so that no tool has to run again after a later failure."""
    ran: list[str] = []

    def order(dish: str) -> str:
        ran.append(dish)
        return "ordered"

    server.script(
        Reply(tool_calls=[{"name": "order", "arguments": {"dish": "soup"}}]), Reply(status=400), Reply("Done.")
    )
    with pytest.raises(BadRequest) as caught:
        mode.complete(client.run("Soup, please", tools=[order]))
    turns = pickle.loads(pickle.dumps(caught.value)).partial.turns
    assert [turn.role for turn in turns] == ["assistant", "tool"]
    again = mode.complete(client.run([{"role": "user", "content": "Soup, please"}, *turns], tools=[order]))
    assert (again.text, ran) == ("Done.", ["soup"])


def test_a_cancelled_call_keeps_what_came(server: LLMServer, client: Client) -> None:
    """`cancel()` in mid-answer raises an error with a partial like any other."""
    server.script(Reply(["a", "b"], keep_open=True, finish_reason=None, end_mark=False))
    stream = client.chat("x")
    assert [next(stream), next(stream)] == ["a", "b"]
    stream.cancel()
    with pytest.raises(Cancelled) as caught:
        next(stream)
    assert caught.value.partial == "ab"


def test_before_the_first_piece_there_is_nothing(server: LLMServer, client: Client, mode: Mode) -> None:
    """It is an empty str without further parts."""
    server.script(Reply(status=403))
    error = mode.read(client.chat("x")).error
    assert error is not None
    assert isinstance(error.partial, Partial)
    assert _same(error.partial) == ("", "", (), None)


WAYS: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "pickle 0": lambda value: pickle.loads(pickle.dumps(value, 0)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_partial_travels_whole(server: LLMServer, way: str) -> None:
    """Text, reasoning, calls and tokens survive pickling and copying, alone and in their error."""
    server.script(Reply(["a"], reasoning=["r"], tool_calls=[WEATHER], error=OVERLOADED))
    with Client("anthropic:m", base_url=server.base_url("anthropic"), api_key=KEY) as client:
        error = MODES["sync"].read(client.chat("x")).error
    assert error is not None
    assert isinstance(error.partial, Partial)
    for again in (WAYS[way](error).partial, WAYS[way](error.partial)):
        assert type(again) is Partial
        assert _same(again) == _same(error.partial)
        assert again.tool_calls
        assert again.usage
    assert type(WAYS[way](error)) is Overloaded


def test_a_partial_is_a_str_for_all_purposes(server: LLMServer, client: Client) -> None:
    """It joins, splits, encodes and compares like a str."""
    server.script(Reply(["a ", "b"], error=OVERLOADED))
    error = MODES["sync"].read(client.chat("x")).error
    assert error is not None
    assert "".join([error.partial, "!"]) == "a b!"
    assert error.partial.split() == ["a", "b"]
    assert {error.partial: 1}["a b"] == 1
    assert f"{error.partial}" == "a b"


def test_an_error_before_the_first_piece_has_an_empty_partial_of_the_same_form() -> None:
    """Every LLMBridgeError has a `.partial`, whether anything was sent or not."""
    early = [
        LLMBridgeError("by itself"),
        AllFailed("several", errors=[LLMBridgeError("one", partial="text")]),
        _error_of(lambda: chat("Hi", "nobody:nothing")),
        _error_of(lambda: embed("Hi", "openai:m", base_url="http://127.0.0.1:1/v1", api_key=KEY, retries=0)),
        pickle.loads(pickle.dumps(LLMBridgeError("pickled"))),
    ]

    assert [_same(error.partial) for error in early] == [("", "", (), None)] * 5
    assert _same(LLMBridgeError("x", partial="text").partial) == ("text", "", (), None)


def _error_of(call: Callable[[], object]) -> LLMBridgeError:
    with pytest.raises(LLMBridgeError) as caught:
        call()
    return caught.value
