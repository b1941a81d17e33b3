"""`run_tools=True`: tools that run between the answers of a model, in sync, asyncio and trio."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest
from modes import Async, Mode

import llmbridge
from llmbridge import (
    Cancelled,
    ChatStream,
    Client,
    Completion,
    Finish,
    Image,
    InvalidOutput,
    ServerError,
    Text,
    ToolCall,
    ToolCallDelta,
    ToolResult,
    TurnsExceeded,
    Usage,
    set_thread_limit,
)
from llmbridge._call.pipeline import Pipeline
from llmbridge.messages import checked_messages
from llmbridge.testing import LLMServer, Reply
from llmbridge.tools import Tool

WAIT = 10  # seconds after which a test gives up


def asks(*calls: str | tuple[str, dict[str, Any]], **more: Any) -> Reply:
    """An answer that calls tools: by name, with or without arguments."""
    made = [(call, {}) if isinstance(call, str) else call for call in calls]
    return Reply(more.pop("text", ""), tool_calls=[{"name": name, "arguments": given} for name, given in made], **more)


def _interleaved() -> bytes:
    """A turn of Anthropic's that thinks twice, with a text between, in one network read."""
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
    for thought, signature in (("one", "S1"), ("two", "S2")):
        deltas = [
            {"type": "thinking_delta", "thinking": thought},
            {"type": "signature_delta", "signature": signature},
        ]
        blocks.append(({"type": "thinking", "thinking": ""}, deltas))
    blocks.insert(1, ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "Let me"}]))
    call = {"type": "tool_use", "id": "t1", "name": "add", "input": {}}
    blocks.append((call, [{"type": "input_json_delta", "partial_json": '{"a": 2, "b": 3}'}]))
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "m", "content": [], "usage": {}}}]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events += [{"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"}]
    return "".join(f"event: {said['type']}\ndata: {json.dumps(said)}\n\n" for said in events).encode()


INTERLEAVED = _interleaved()


def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


def results_of(events: list[Any]) -> list[ToolResult]:
    """The results among events."""
    return [event for event in events if isinstance(event, ToolResult)]


def messages_sent(server: LLMServer, index: int = -1) -> list[dict[str, Any]]:
    """The messages of a request."""
    found: list[dict[str, Any]] = server.requests[index].json["messages"]
    return found


class TestTheLoop:
    """The model's calls are run, and it gets their results."""

    def test_a_function_is_called_and_its_result_sent(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Two requests: the second one holds the call and its result."""
        server.script(asks(("add", {"a": 2, "b": 3}), text="Let me see. "), Reply(["It is ", "5."]))
        stream = client.run("2 + 3?", tools=[add])
        assert mode.read(stream).pieces == ["Let me see. ", "It is ", "5."]
        first, second = server.requests
        assert first.json["tools"] == second.json["tools"]
        user, assistant, tool = messages_sent(server)
        assert user == {"role": "user", "content": "2 + 3?"}
        assert assistant["content"] == "Let me see. "
        assert [call["function"] for call in assistant["tool_calls"]] == [{"name": "add", "arguments": '{"a":2,"b":3}'}]
        assert tool == {"role": "tool", "tool_call_id": assistant["tool_calls"][0]["id"], "content": "5"}
        assert stream.finish_reason == "stop"

    @pytest.mark.parametrize("of_client", [False, True])
    def test_what_the_caller_does_with_his_lists_reaches_no_later_turn(
        self, server: LLMServer, client: Client, of_client: bool
    ) -> None:
        """An iterator of tools is read once, and each request of a call holds the same tools."""
        stop = ["a"]

        def more() -> str:
            stop.append("b")
            return "done"

        params: dict[str, Any] = {"tools": iter([more, add]), "stop": stop}
        if of_client:
            client, params = Client("openai:gpt-4o", base_url=server.base_url("openai"), api_key="none", **params), {}
        server.script(asks("more"), asks("more"), Reply("Well."))
        assert client.run("Go on", **params).complete().text == "Well."
        for request in server.requests:
            assert [tool["function"]["name"] for tool in request.json["tools"]] == ["more", "add"]
            assert request.json["stop"] == ["a"]

    def test_thoughts_go_back_in_the_place_where_they_stood(self, server: LLMServer, mode: Mode) -> None:
        """The thoughts stay between the texts: Anthropic rejects them elsewhere."""
        server.script(Reply(body=INTERLEAVED, content_type="text/event-stream"), Reply("5"))
        base_url = server.base_url("anthropic")
        with Client("anthropic:m", base_url=base_url, api_key="k", retries=0, timeout=20) as client:
            stream = client.run("x", tools=[add])
            mode.read(stream)
            kept = stream.complete().turns[0].content
        blocks = messages_sent(server)[1]["content"]
        assert [block.get("signature") or block.get("text") or block["type"] for block in blocks] == [
            "S1",
            "Let me",
            "S2",
            "tool_use",
        ]
        assert isinstance(kept, list)
        assert [part.get("signature") or part["text"] for part in kept] == ["S1", "Let me", "S2"]

    def test_run_tools_is_the_same_as_run(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The argument of chat, and a client's default."""
        server.script(asks(("add", {"a": 2, "b": 3})), Reply("5"), asks(("add", {"a": 2, "b": 3})), Reply("5"))
        assert mode.complete(client.chat("x", tools=[add], run_tools=True)).text == "5"
        options = {"base_url": server.base_url("openai"), "api_key": "sk-test"}
        with Client("openai:m", tools=[add], run_tools=True, **options) as other:
            assert mode.complete(other.chat("x")).text == "5"
        assert len(server.requests) == 4

    def test_run_asks_by_the_chat_of_a_subclass(self) -> None:
        """A subclass that overrides `chat`, to log or to count, sees the calls of `run` too."""
        seen: list[dict[str, Any]] = []

        class Logged(Client):
            def chat(self, messages: Any, model: Any = None, **options: Any) -> Any:
                seen.append(options)
                return super().chat(messages, model, **options)

        Logged("demo").run("x", "demo").close()
        Logged("demo").run("x", run_tools=False).close()
        assert seen == [{"run_tools": True}, {"run_tools": False}]

    def test_without_it_the_calls_are_the_callers(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Nothing is run, and nothing more is sent."""
        server.script(asks(("add", {"a": 2, "b": 3})))
        answer = mode.complete(client.chat("x", tools=[add]))
        assert [call.arguments for call in answer.tool_calls] == [{"a": 2, "b": 3}]
        assert len(server.requests) == 1

    def test_every_step_is_an_event_in_its_order(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Text, pieces of the call, the call, the end of the turn, the result, the next turn."""
        server.script(asks(("add", {"a": 2, "b": 3}), text="Hm."), Reply("5", usage=False))
        kinds = [type(event) for event in mode.read(client.run("x", tools=[add]).events()).pieces]
        kinds = [kind for index, kind in enumerate(kinds) if kind not in kinds[:index] or kind is Text]
        assert [kind for kind in kinds if kind is not Usage] == [
            Text,
            ToolCallDelta,
            ToolCall,
            Finish,
            ToolResult,
            Text,
        ]

    def test_a_result_names_its_call_and_holds_the_value(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The model gets text; the caller gets the value too."""
        value = {"rain": True, "mm": [1, 2]}
        server.script(asks("forecast"), Reply("Rain."))
        events = mode.read(client.run("x", tools=[_named("forecast", lambda: value)]).events()).pieces
        (result,) = results_of(events)
        (call,) = (event for event in events if isinstance(event, ToolCall))
        assert result.call == call
        assert (result.text, result.failed) == ('{"rain": true, "mm": [1, 2]}', False)
        assert result.value is value
        assert messages_sent(server)[-1]["content"] == result.text

    def test_the_completion_has_all_turns(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The text of the last turn, the sum of the tokens, and the messages to continue from."""
        usages = [{"prompt_tokens": 10, "completion_tokens": 5}, {"prompt_tokens": 20, "completion_tokens": 7}]
        server.script(
            asks(("add", {"a": 2, "b": 3}), text="Hm.", usage=usages[0]),
            asks(("add", {"a": 5, "b": 1}), usage=usages[0]),
            Reply("6.", usage=usages[1]),
        )
        stream = client.run("x", tools=[add])
        answer = mode.complete(stream)
        assert (answer.text, stream.text) == ("6.", "Hm.6.")
        assert answer.usage is not None
        assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (40, 17, 57)
        assert stream.usage == answer.usage
        assert [turn.role for turn in answer.turns] == ["assistant", "tool", "assistant", "tool", "assistant"]
        assert answer.turns[-1] == answer.message
        assert (answer.tool_calls, answer.finish_reason) == ((), "stop")
        server.script(Reply("Yes."))
        mode.complete(client.chat(["x", *answer.turns, {"role": "user", "content": "Sure?"}][1:], tools=[add]))
        assert [turn["role"] for turn in messages_sent(server)][-2:] == ["assistant", "user"]

    def test_headers_and_request_id_are_those_of_the_last_turn(
        self, server: LLMServer, client: Client, mode: Mode
    ) -> None:
        """Each turn is a request of its own."""
        replies = [asks(("add", {"a": 2, "b": 3}), headers={"X-Request-Id": "r-1"}), Reply("5")]
        server.script(replies[0], Reply("5", headers={"X-Request-Id": "r-2"}))
        stream = client.run("x", tools=[add])
        answer = mode.complete(stream)
        assert (answer.request_id, answer.headers["x-request-id"]) == ("r-2", "r-2")
        assert (stream.provider, stream.model) == ("openai", "m")
        assert answer.total_seconds is not None
        assert answer.total_seconds > 0
        assert "finished" in repr(stream)

    def test_an_answer_without_calls_is_one_request(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Unused tools change nothing."""
        server.script(Reply(["a", "b"]))
        assert mode.read(client.run("x", tools=[add])).pieces == ["a", "b"]
        assert mode.complete(client.run("x")).text
        assert len(server.requests) == 2

    def test_objects_of_the_answer_come_after_the_tools(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Values of Python types come in, and results of any kind go out."""
        seen: list[Any] = []

        def remember(day: Any, count: int = 1) -> None:
            seen.append((day, count))

        server.script(asks(("remember", {"day": "Monday"})), Reply("Done."))
        assert mode.complete(client.run("x", tools=[remember])).text == "Done."
        assert seen == [("Monday", 1)]
        assert messages_sent(server)[-1]["content"] == "null"

    def test_each_turn_may_fall_back(self, server: LLMServer, mode: Mode) -> None:
        """With several models, the conversation continues with any of them."""
        options: dict[str, Any] = {"api_key": "sk-test", "base_url": server.base_url("openai"), "retries": 0}
        server.script(Reply("no", status=500), asks(("add", {"a": 1, "b": 1})), Reply("2"))
        with Client("openai:a", **options) as first, Client("openai:b", **options) as second:
            stream = Client([first, second]).run("x", tools=[add])
            assert mode.complete(stream).text == "2"
            assert stream.model == "b"
        assert [received.model for received in server.requests] == ["a", "b", "b"]

    @pytest.mark.parametrize("choice", ["required", "add"])
    def test_a_tool_that_must_be_called_is_so_once(
        self, server: LLMServer, client: Client, mode: Mode, choice: str
    ) -> None:
        """Otherwise the model could never come to an answer."""
        server.script(asks(("add", {"a": 1, "b": 1})), Reply("2"))
        assert mode.complete(client.run("x", tools=[add], tool_choice=choice)).text == "2"
        assert ["tool_choice" in received.json for received in server.requests] == [True, False]

    def test_between_two_turns_there_is_no_finish_reason(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The finish reason belongs to the last answer, which has not ended."""
        server.script(asks(("add", {"a": 1, "b": 1})), Reply("2"))
        stream = client.run("x", tools=[add])
        reasons: list[Any] = []

        def body(event: Any) -> None:
            if isinstance(event, ToolResult):
                reasons.append(stream.finish_reason)

        mode.each(stream.events(), body)
        assert reasons == [None]
        assert stream.finish_reason == "stop"


class TestSeveralAtOnce:
    """The calls of one turn."""

    def test_functions_run_at_the_same_time(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Each function waits until all are running."""
        barrier = threading.Barrier(3)

        def meet(name: str) -> str:
            barrier.wait(WAIT)
            return name

        server.script(asks(*(("meet", {"name": name}) for name in "abc")), Reply("Met."))
        events = mode.read(client.run("x", tools=[meet]).events()).pieces
        assert [result.text for result in results_of(events)] == ["a", "b", "c"]
        assert [turn["content"] for turn in messages_sent(server)[-3:]] == ["a", "b", "c"]

    def test_coroutines_run_at_the_same_time(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Each coroutine waits for the other."""
        events: dict[str, anyio.Event] = {}

        async def meet(name: str, other: str) -> str:
            events.setdefault(name, anyio.Event()).set()
            with anyio.fail_after(WAIT):
                await events.setdefault(other, anyio.Event()).wait()
            return name

        server.script(asks(("meet", {"name": "a", "other": "b"}), ("meet", {"name": "b", "other": "a"})), Reply("Met."))
        found = mode.read(client.run("x", tools=[meet]).events()).pieces
        assert [result.text for result in results_of(found)] == ["a", "b"]

    def test_functions_and_coroutines_run_at_the_same_time(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A function and a coroutine wait for each other."""
        barrier = threading.Barrier(2)

        def stay() -> str:
            barrier.wait(WAIT)
            return "function"

        async def swim() -> str:
            await anyio.to_thread.run_sync(barrier.wait, WAIT)
            return "coroutine"

        server.script(asks("stay", "swim"), Reply("Met."))
        events = mode.read(client.run("x", tools=[stay, swim]).events()).pieces
        assert [result.text for result in results_of(events)] == ["function", "coroutine"]

    @pytest.mark.parametrize("kind", ["functions", "coroutines"])
    def test_a_result_is_handed_out_while_the_next_tool_runs(
        self, server: LLMServer, client: Client, mode: Mode, kind: str
    ) -> None:
        """The second tool ends only after the reader has got the result of the first."""
        seen = threading.Event()

        def wait(for_reader: bool) -> str:
            assert not for_reader or seen.wait(WAIT)
            return "late" if for_reader else "early"

        async def async_wait(for_reader: bool) -> str:
            return await anyio.to_thread.run_sync(wait, for_reader)

        async_wait.__name__ = "wait"
        server.script(asks(("wait", {"for_reader": False}), ("wait", {"for_reader": True})), Reply("Done."))
        got: list[str] = []

        def body(event: Any) -> None:
            if isinstance(event, ToolResult):
                got.append(event.text)
                seen.set()

        mode.each(client.run("x", tools=[wait if kind == "functions" else async_wait]).events(), body)
        assert got == ["early", "late"]

    def test_results_keep_the_order_of_the_calls(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Results are ordered, though the first tool ends last."""
        second_done = threading.Event()

        def slow() -> str:
            assert second_done.wait(WAIT)
            return "slow"

        def quick() -> str:
            second_done.set()
            return "quick"

        server.script(asks("slow", "quick"), Reply("Done."))
        events = mode.read(client.run("x", tools=[slow, quick]).events()).pieces
        assert [result.text for result in results_of(events)] == ["slow", "quick"]


class TestWhereToolsRun:
    """Threads, event loops and contexts."""

    def test_a_single_function_runs_in_the_thread_that_reads(self, server: LLMServer, client: Client) -> None:
        """A single function can use thread-bound objects."""
        server.script(asks("here"), Reply("Done."))
        events = list(client.run("x", tools=[_named("here", threading.get_ident)]).events())
        assert results_of(events)[0].value == threading.get_ident()

    def test_functions_never_run_in_an_event_loops_thread(self, server: LLMServer, client: Client, loop: Async) -> None:
        """Functions may block; the loop runs on."""
        server.script(asks("here"), Reply("Done."))
        events = loop.read(client.run("x", tools=[_named("here", threading.get_ident)]).events()).pieces
        assert results_of(events)[0].value != threading.get_ident()

    def test_coroutines_run_in_the_callers_event_loop(self, server: LLMServer, client: Client, loop: Async) -> None:
        """Coroutines may use objects of the caller's loop."""
        server.default = lambda received: asks("here") if len(received.json["messages"]) == 1 else Reply("Done.")

        async def here() -> int:
            await anyio.lowlevel.checkpoint()
            return threading.get_ident()

        events = loop.read(client.run("x", tools=[here]).events()).pieces
        assert results_of(events)[0].value == threading.get_ident()

        async def main() -> Completion:
            return await client.run("x", tools=[here])

        answer: Completion = loop.run(main)
        assert answer.turns[1].text == str(threading.get_ident())

    def test_a_plain_loop_runs_coroutines_in_one_event_loop_of_its_own(self, server: LLMServer, client: Client) -> None:
        """All coroutines of a turn share one loop, in a thread of its own."""

        async def here() -> tuple[int, int]:
            return threading.get_ident(), id(asyncio.get_running_loop())

        server.script(asks("here", "here"), Reply("Done."))
        first, second = (result.value for result in results_of(list(client.run("x", tools=[here]).events())))
        assert first == second
        assert first[0] != threading.get_ident()

    def test_a_notebook_may_use_the_plain_loop(self, server: LLMServer, client: Client) -> None:
        """Async tools work while an event loop runs in the calling thread."""

        async def double(n: int) -> int:
            await asyncio.sleep(0)
            return 2 * n

        async def cell() -> str:
            return client.run("x", tools=[double]).complete().turns[1].text

        server.script(asks(("double", {"n": 4})), Reply("8"))
        with pytest.warns(RuntimeWarning, match="blocks the event loop"):
            assert asyncio.run(cell()) == "8"

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("is_async", [False, True])
    def test_context_variables_are_seen(
        self, server: LLMServer, client: Client, mode: Mode, is_async: bool, count: int
    ) -> None:
        """Tools see the context variables of the request."""
        variable: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")

        async def async_user() -> str:
            return variable.get()

        server.script(asks(*["user"] * count), Reply("Done."))
        tool = _named("user", variable.get) if not is_async else async_user
        async_user.__name__ = "user"
        token = variable.set("Ada")
        try:
            events = mode.read(client.run("x", tools=[tool]).events()).pieces
        finally:
            variable.reset(token)
        assert [result.text for result in results_of(events)] == ["Ada"] * count

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_function_that_returns_a_coroutine_is_awaited(
        self, server: LLMServer, client: Client, mode: Mode, count: int
    ) -> None:
        """A function may return a coroutine without being async."""

        async def inner() -> str:
            await anyio.lowlevel.checkpoint()
            return "awaited"

        server.script(asks(*["outer"] * count), Reply("Done."))
        events = mode.read(client.run("x", tools=[_named("outer", inner)]).events()).pieces
        assert [result.text for result in results_of(events)] == ["awaited"] * count

    def test_a_tool_may_ask_a_model_itself(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A tool may read its own answer with or without awaiting it."""

        def ask() -> Completion:
            return client.chat("inner").complete()

        def lazily() -> ChatStream:
            return client.chat("inner")

        def answer(received: Any) -> Reply:
            messages = received.json["messages"]
            if messages[0]["content"] == "inner":
                return Reply(["from ", "inside"])
            return asks("ask", "lazily") if len(messages) == 1 else Reply("Done.")

        server.default = answer
        events = mode.read(client.run("x", tools=[ask, lazily]).events()).pieces
        assert [result.text for result in results_of(events)] == ["from inside", "from inside"]

    @pytest.mark.parametrize("whole", [False, True])
    def test_a_tool_that_asks_a_model_needs_no_thread_of_the_limit(
        self, server: LLMServer, client: Client, loop: Async, whole: bool
    ) -> None:
        """Even a single worker thread, which waits for the tool, is enough."""

        async def ask() -> str:
            return (await client.chat("inner")).text

        def answer(received: Any) -> Reply:
            messages = received.json["messages"]
            if messages[0]["content"] == "inner":
                return Reply("from inside")
            return asks("ask") if len(messages) == 1 else Reply("Done.")

        async def main() -> str:
            set_thread_limit(1)
            stream = client.run("x", tools=[ask])
            with anyio.fail_after(WAIT):
                if whole:
                    return (await stream).turns[1].text
                return results_of([event async for event in stream.events()])[0].text

        server.default = answer
        assert loop.run(main) == "from inside"


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 3000


def screenshot() -> Image:
    """Takes a picture of the screen."""
    return Image(PNG)


def pages() -> list[Any]:
    """The pages of a book."""
    return ["Two pages:", Image(PNG), {"more": False}]


def image_in(dialect: str, body: dict[str, Any]) -> str:
    """The base64 of the image in the last message of a request."""
    if dialect == "gemini":
        data: str = body["contents"][-1]["parts"][0]["functionResponse"]["parts"][0]["inlineData"]["data"]
        return data
    if dialect == "openai-responses":
        url: str = body["input"][-1]["output"][-1]["image_url"]
        return url.partition(",")[2]
    last = body["messages"][-1]
    if dialect == "ollama":
        found: list[str] = last["images"]
        return found[0]
    source: dict[str, str] = last["content"][0]["content"][0]["source"]
    return source["data"]


class TestImages:
    """Tools that return more than text."""

    @pytest.mark.parametrize("dialect", ["anthropic", "gemini", "openai-responses", "ollama"])
    def test_an_image_is_an_image_to_the_model(self, server: LLMServer, mode: Mode, dialect: str) -> None:
        """Services with images in results get the image; the text of the result is short."""
        server.script(asks("screenshot"), Reply("A screen."))
        options: dict[str, Any] = {"base_url": server.base_url(dialect), "api_key": "k", "retries": 0, "timeout": 20}
        with Client(f"{dialect}:m", **options) as client:
            events = mode.read(client.run("x", tools=[screenshot]).events()).pieces
        assert base64.b64decode(image_in(dialect, server.requests[1].json)) == PNG
        (result,) = results_of(events)
        assert result.text.startswith("Image('data:image/png;base64,")
        assert len(result.text) < 100
        assert result.value == Image(PNG)

    def test_images_among_other_things_are_parts_in_their_order(self, server: LLMServer, mode: Mode) -> None:
        """Other parts become text."""
        server.script(asks("pages"), Reply("Two."))
        options: dict[str, Any] = {"base_url": server.base_url("anthropic"), "api_key": "k", "timeout": 20}
        with Client("anthropic:m", **options) as client:
            answer = mode.complete(client.run("x", tools=[pages]))
        blocks = messages_sent(server)[-1]["content"][0]["content"]
        assert [block.get("text", block["type"]) for block in blocks] == ["Two pages:", "image", '{"more": false}']
        assert answer.turns[1].parts[1]["type"] == "image_url"

    def test_an_image_deep_inside_is_named_only(self, server: LLMServer, client: Client) -> None:
        """Its base64 would be read as text, and paid for."""

        def nested() -> dict[str, Any]:
            """Returns a picture and more."""
            return {"image": Image(PNG), "scale": 2}

        server.script(asks("nested"), Reply("A screen."))
        client.run("x", tools=[nested]).complete()
        content = messages_sent(server)[-1]["content"]
        assert json.loads(content)["scale"] == 2
        assert len(content) < 120

    def test_a_result_may_be_sent_by_the_caller(self, server: LLMServer, client: Client) -> None:
        """The result can be sent as a message."""
        call = ToolCall("c1", "screenshot", {}, "{}")
        result = ToolResult(call, "An image.", value=Image(PNG))
        message = checked_messages([result])[0]
        assert [part["type"] for part in message.parts] == ["image_url"]
        assert checked_messages([ToolResult(call, "No.", True, ValueError())])[0].content == "No."


class TestFailures:
    """The model reads the errors of tools."""

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.parametrize("is_async", [False, True])
    def test_the_model_gets_an_exception(
        self, server: LLMServer, client: Client, mode: Mode, is_async: bool, count: int
    ) -> None:
        """The model gets the class and message without a traceback; the caller gets the exception itself."""
        error = ValueError("no such city")

        def fail() -> str:
            raise error

        async def async_fail() -> str:
            raise error

        async_fail.__name__ = "fail"
        server.script(asks(*["fail"] * count), Reply("Sorry."))
        stream = client.run("x", tools=[async_fail if is_async else fail])
        results = results_of(mode.read(stream.events()).pieces)
        assert [(result.text, result.failed) for result in results] == [("ValueError: no such city", True)] * count
        assert all(result.value is error for result in results)
        assert stream.text == "Sorry."
        assert messages_sent(server)[-1]["content"] == "ValueError: no such city"

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_note_says_where_it_failed(self, server: LLMServer, client: Client, mode: Mode, count: int) -> None:
        """The frames are removed, since they lead to those that hold the whole call."""
        error = ValueError("no such city")

        def fail() -> str:
            try:
                raise KeyError("x")
            except KeyError:
                raise error  # noqa: B904 - the context is what matters

        server.script(asks(*["fail"] * count), Reply("Sorry."))
        results = results_of(mode.read(client.run("x", tools=[fail]).events()).pieces)
        assert [result.value for result in results] == [error] * count
        assert error.__traceback__ is None
        assert error.__context__ is not None
        assert error.__context__.__traceback__ is None
        (note,) = error.__notes__  # type: ignore[attr-defined,unused-ignore]
        assert note.splitlines()[0] == "Raised in a tool (most recent call last):"
        assert ", in fail" in note
        assert os.path.dirname(llmbridge.__file__) not in note

    @pytest.mark.parametrize("count", [1, 2])
    def test_an_exception_that_cannot_be_changed_is_a_failure_like_others(
        self, server: LLMServer, client: Client, mode: Mode, count: int
    ) -> None:
        """A frozen dataclass rejects attributes; waiting for its tool must not hang."""

        @dataclass(frozen=True)
        class NoSuchCity(Exception):
            name: str

        def fail() -> str:
            raise NoSuchCity("Oslo")

        server.script(asks(*["fail"] * count), Reply("Sorry."))
        results = results_of(mode.read(client.run("x", tools=[fail], timeout=WAIT).events()).pieces)
        assert [result.text for result in results] == ["NoSuchCity: Oslo"] * count
        for result in results:
            assert result.value.__traceback__ is None
            assert ", in fail" in result.value.__notes__[0]

    def test_a_note_has_no_frames_of_ours_between_the_tools(self, server: LLMServer, client: Client) -> None:
        """One exception raised in two threads at once has the frames of both."""

        def fail() -> str:
            raise ValueError("no such city")

        inner = Tool.of(fail)

        def outer() -> str:
            return str(inner.run({}))

        server.script(asks("outer"), Reply("Sorry."))
        (result,) = results_of(list(client.run("x", tools=[outer]).events()))
        (note,) = result.value.__notes__
        assert ", in outer" in note
        assert ", in fail" in note
        assert os.path.dirname(llmbridge.__file__) not in note

    @pytest.mark.parametrize("limit", [0, 1])
    def test_a_tool_may_fail_where_tracebacks_are_shortened(
        self, server: LLMServer, client: Client, monkeypatch: pytest.MonkeyPatch, limit: int
    ) -> None:
        """The note says where the tool failed even if sys.tracebacklimit is set."""

        def fail() -> str:
            return look_up("Oslo")

        def look_up(city: str) -> str:
            raise ValueError(city)

        monkeypatch.setattr("sys.tracebacklimit", limit, raising=False)
        server.script(asks("fail"), Reply("Sorry."))
        events = list(client.run("x", tools=[fail]).events())
        (result,) = results_of(events)
        assert ", in fail" in result.value.__notes__[0]
        assert Text("Sorry.") in events

    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.quick(1)
    def test_a_failing_tool_leaves_no_cycle(self, server: LLMServer, client: Client, count: int) -> None:
        """The call is freed without a garbage collection, though the results are kept."""

        def fail() -> str:
            raise KeyError("x")

        server.script(asks(*["fail"] * count), Reply("Sorry."))
        gc.collect()
        known = {id(one) for one in gc.get_objects() if isinstance(one, Pipeline)}
        gc.disable()
        try:
            results = results_of(list(client.run("x", tools=[fail]).events()))
            assert len(results) == count
            assert not [one for one in gc.get_objects() if isinstance(one, Pipeline) and id(one) not in known]
        finally:
            gc.enable()

    @pytest.mark.parametrize("is_async", [False, True])
    @pytest.mark.parametrize("given", [0, 1])
    def test_a_system_without_threads(
        self, server: LLMServer, client: Client, monkeypatch: pytest.MonkeyPatch, given: int, is_async: bool
    ) -> None:
        """A few threads are enough; without any, the tools fail, and the model reads it."""
        start = threading.Thread.start
        begun: list[threading.Thread] = []

        def limited(thread: threading.Thread) -> None:
            if thread.name.startswith("llmbridge-tool"):
                begun.append(thread)
                if len(begun) > given:
                    raise RuntimeError("can't start new thread")
            start(thread)

        def work() -> str:
            return "done"

        async def async_work() -> str:
            return "done"

        async_work.__name__ = "work"
        server.script(asks(*["work"] * 5), Reply("Ready."))
        monkeypatch.setattr(threading.Thread, "start", limited)
        results = results_of(list(client.run("x", tools=[async_work if is_async else work]).events()))
        said = "done" if given else "RuntimeError: can't start new thread"
        assert [(result.text, result.failed) for result in results] == [(said, not given)] * 5

    def test_at_most_32_threads(self, server: LLMServer, client: Client, mode: Mode, release: threading.Event) -> None:
        """The others wait for their turn, and are all called."""
        working: list[str] = []
        threads: set[int] = set()

        def work() -> str:
            threads.add(threading.get_ident())
            working.append(threading.current_thread().name)
            if len(working) == 32:
                release.set()
            assert release.wait(WAIT)
            return "done"

        server.script(asks(*["work"] * 100), Reply("Ready."))
        results = results_of(mode.read(client.run("x", tools=[work]).events()).pieces)
        assert [result.text for result in results] == ["done"] * 100
        assert len(threads) <= 32
        assert set(working) == {"llmbridge-tool-work"}

    def test_an_error_of_a_chat_inside_is_the_tools_failure(
        self, server: LLMServer, client: Client, mode: Mode
    ) -> None:
        """Even a Cancelled of another call is the tool's failure."""

        def ask() -> str:
            stream = client.chat("inner")
            stream.cancel()
            return stream.complete().text

        server.script(asks("ask"), Reply("Sorry."))
        stream = client.run("x", tools=[ask])
        (result,) = results_of(mode.read(stream.events()).pieces)
        assert result.failed
        assert isinstance(result.value, Cancelled)
        assert stream.text == "Sorry."

    def test_an_unknown_tool_is_answered_with_those_that_there_are(
        self, server: LLMServer, client: Client, mode: Mode
    ) -> None:
        """The other tools of the turn run."""
        server.script(asks("nope", ("add", {"a": 1, "b": 2})), Reply("3"))
        unknown, known = results_of(mode.read(client.run("x", tools=[add]).events()).pieces)
        assert unknown.failed
        assert "'nope'" in unknown.text
        assert "'add'" in unknown.text
        assert known.text == "3"

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ({"a": "many", "b": 3}, ["a: expected an integer", "many"]),
            ({"a": 1}, ["b"]),
            ({"a": 1, "b": 2, "c": 3}, ["c"]),
            ('{"a": 1, ', ["not valid JSON"]),
            ("[1, 2]", ["not a JSON object"]),
        ],
    )
    def test_arguments_that_do_not_fit_are_explained(
        self, server: LLMServer, client: Client, mode: Mode, arguments: Any, words: list[str]
    ) -> None:
        """Nothing is called, and the model may try again."""
        server.script(asks(("add", arguments)), asks(("add", {"a": 1, "b": 2})), Reply("3"))
        stream = client.run("x", tools=[add])
        first, second = results_of(mode.read(stream.events()).pieces)
        assert first.failed
        assert isinstance(first.value, InvalidOutput)
        assert all(word in first.text for word in words)
        assert (second.text, second.failed, stream.text) == ("3", False, "3")

    def test_what_utf8_cannot_carry_is_mended(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A result with half a surrogate pair does not end the conversation."""
        server.script(asks("odd"), Reply("Done."))
        (result,) = results_of(mode.read(client.run("x", tools=[_named("odd", lambda: "a\ud800b")]).events()).pieces)
        assert (result.text, result.failed) == ("a\N{REPLACEMENT CHARACTER}b", False)

    def test_an_error_is_cut_and_need_not_have_words(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Long messages, no message, and one that fails itself."""

        class Silent(Exception):
            def __str__(self) -> str:
                raise RuntimeError("never mind")

        errors: list[Exception] = [ValueError("x" * 100_000), TimeoutError(), Silent()]

        def fail(which: int) -> None:
            raise errors[which]

        server.script(asks(*(("fail", {"which": which}) for which in range(3))), Reply("Sorry."))
        long, empty, silent = results_of(mode.read(client.run("x", tools=[fail]).events()).pieces)
        assert len(long.text) < 3000
        assert long.text.startswith("ValueError: xxx")
        assert (empty.text, silent.text) == ("TimeoutError", "Silent")

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_base_exception_goes_through(self, server: LLMServer, client: Client, mode: Mode, count: int) -> None:
        """A tool may end the program."""

        def leave() -> None:
            raise SystemExit(3)

        server.script(asks(*["leave"] * count), Reply("not asked for"))
        with pytest.raises(SystemExit) as info:
            mode.each(client.run("x", tools=[leave]), lambda _: None)
        assert info.value.code == 3
        assert len(server.requests) == 1

    @pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError])
    def test_it_does_so_out_of_a_coroutine(self, server: LLMServer, client: Client, kind: type[BaseException]) -> None:
        """It does so from a coroutine too, even in a sync loop."""

        async def leave() -> None:
            raise kind

        server.script(asks("leave", "leave"))
        with pytest.raises(kind):
            client.run("x", tools=[leave]).complete()

    def test_an_error_in_a_later_turn_has_the_text_of_all(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The text stays; the tools do not run again."""
        ran: list[int] = []
        server.script(asks("once", text="Hm. "), Reply("down", status=500))
        stream = client.run("x", tools=[_named("once", lambda: ran.append(1))])
        outcome = mode.read(stream)
        assert outcome.pieces == ["Hm. "]
        assert isinstance(outcome.error, ServerError)
        assert outcome.error.partial == "Hm. "
        assert ran == [1]
        assert "closed" in repr(stream)

    def test_the_limit_of_turns(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The last turn's calls are not run; the error names them."""
        server.default = asks(("add", {"a": 1, "b": 1}))
        stream = client.run("x", tools=[add], max_turns=3)
        events: list[Any] = []
        with pytest.raises(TurnsExceeded, match=r"after 3 turns .* add: raise max_turns") as info:
            mode.each(stream.events(), events.append)
        assert len(results_of(events)) == 2
        assert len(server.requests) == 3
        assert (info.value.provider, info.value.model) == ("openai", "m")
        assert [call.name for call in info.value.partial.tool_calls] == ["add"]  # type: ignore[attr-defined]

    def test_the_limit_is_ten_by_default(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A model that never ends costs ten requests."""
        server.default = asks(("add", {"a": 1, "b": 1}))
        assert isinstance(mode.read(client.run("x", tools=[add])).error, TurnsExceeded)
        assert len(server.requests) == 10


class TestWhereItStops:
    """Calls that are left to the caller."""

    def test_a_tool_without_a_function_is_for_the_caller(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Nothing of that turn runs."""
        ran: list[int] = []
        server.script(asks("mine", "yours"))
        yours = {"name": "yours", "parameters": {"type": "object", "properties": {}}}
        answer = mode.complete(client.run("x", tools=[_named("mine", lambda: ran.append(1)), yours]))
        assert [call.name for call in answer.tool_calls] == ["mine", "yours"]
        assert (answer.finish_reason, ran, len(server.requests)) == ("tool_calls", [], 1)

    def test_without_any_function_nothing_is_answered(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The caller decides about a call of an unknown tool."""
        server.script(asks("nope"))
        answer = mode.complete(client.run("x", tools=[{"name": "yours"}]))
        assert [call.name for call in answer.tool_calls] == ["nope"]

    @pytest.mark.parametrize("reason", ["length", "content_filter"])
    def test_calls_of_an_answer_that_was_cut_off_are_not_run(
        self, server: LLMServer, client: Client, mode: Mode, reason: str
    ) -> None:
        """They may be incomplete."""
        server.script(asks(("add", {"a": 1, "b": 1}), finish_reason=reason))
        answer = mode.complete(client.run("x", tools=[add]))
        assert (answer.finish_reason, len(answer.tool_calls), len(server.requests)) == (reason, 1, 1)


class TestEnding:
    """Leaving or cancelling frees the caller at once, and sends nothing more."""

    @pytest.mark.parametrize("way", ["cancel", "close"])
    def test_a_call_is_cancelled_while_functions_run(
        self, server: LLMServer, client: Client, mode: Mode, way: str, release: threading.Event
    ) -> None:
        """Another thread cancels; the functions run on, and their results are dropped."""
        barrier = threading.Barrier(3)

        def hang() -> None:
            barrier.wait(WAIT)
            release.wait(WAIT)

        server.script(asks("hang", "hang", text="Hm."), Reply("not asked for"))
        stream = client.run("x", tools=[hang])
        with _when(lambda: barrier.wait(WAIT), getattr(stream, way)):
            outcome = mode.read(stream)
        assert not release.is_set()
        assert isinstance(outcome.error, Cancelled)
        assert (outcome.error.partial, outcome.error.provider, outcome.error.model) == ("Hm.", "openai", "m")
        assert len(server.requests) == 1

    def test_await_is_cancelled_while_functions_run(
        self, server: LLMServer, client: Client, mode: Mode, release: threading.Event
    ) -> None:
        """The same for the whole answer."""
        barrier = threading.Barrier(3)

        def hang() -> None:
            barrier.wait(WAIT)
            release.wait(WAIT)

        server.script(asks("hang", "hang"))
        stream = client.run("x", tools=[hang])
        with _when(lambda: barrier.wait(WAIT), stream.cancel), pytest.raises(Cancelled):
            mode.complete(stream)
        assert len(server.requests) == 1

    def test_a_call_is_cancelled_while_coroutines_run(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """They are cancelled in their event loop."""
        begun, cancelled = threading.Event(), threading.Event()

        async def hang() -> None:
            begun.set()
            try:
                await anyio.sleep(WAIT)
            except BaseException:
                cancelled.set()
                raise

        server.script(asks("hang", "hang"), Reply("not asked for"))
        stream = client.run("x", tools=[hang])
        with _when(lambda: begun.wait(WAIT), stream.cancel):
            outcome = mode.read(stream)
        assert isinstance(outcome.error, Cancelled)
        assert cancelled.wait(WAIT)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("count", [1, 2])
    def test_a_tool_may_end_its_own_call(self, server: LLMServer, client: Client, mode: Mode, count: int) -> None:
        """Its return value is dropped."""

        def stop() -> None:
            stream.cancel()

        server.script(asks(*["stop"] * count), Reply("not asked for"))
        stream = client.run("x", tools=[stop])
        assert isinstance(mode.read(stream).error, Cancelled)
        assert len(server.requests) == 1

    @pytest.mark.parametrize("whole", [False, True])
    def test_a_cancelled_task_has_its_coroutines_clean_up_first(
        self, server: LLMServer, client: Client, loop: Async, whole: bool
    ) -> None:
        """The task waits until its coroutines have cleaned up."""
        steps: list[str] = []
        server.script(asks(("hang", {"which": 0}), ("hang", {"which": 1})), Reply("not asked for"))

        async def main() -> None:
            begun = [anyio.Event(), anyio.Event()]

            async def hang(which: int) -> None:
                begun[which].set()
                try:
                    await anyio.sleep(WAIT)
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(0.02)
                    steps.append("cleaned")

            async def read() -> None:
                stream = client.run("x", tools=[hang])
                try:
                    if whole:
                        await stream
                    async for _ in stream:
                        continue
                finally:
                    steps.append("free")

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                for event in begun:
                    await event.wait()
                group.cancel_scope.cancel()

        loop.run(main)
        assert steps == ["cleaned", "cleaned", "free"]
        assert len(server.requests) == 1

    def test_a_cancelled_task_does_not_wait_for_functions(
        self, server: LLMServer, client: Client, loop: Async, release: threading.Event
    ) -> None:
        """Functions cannot be interrupted, so they are left to themselves."""
        begun = threading.Event()
        server.script(asks("hang"), Reply("not asked for"))

        def hang() -> None:
            begun.set()
            release.wait(WAIT)

        async def main() -> None:
            async def read() -> None:
                async for _ in client.run("x", tools=[hang]):
                    continue

            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await anyio.to_thread.run_sync(begun.wait, WAIT)
                group.cancel_scope.cancel()

        loop.run(main)
        assert not release.is_set()
        assert len(server.requests) == 1

    def test_asyncios_own_cancellation_reaches_the_coroutines(self, server: LLMServer, client: Client) -> None:
        """task.cancel() reaches them, and they may await in their clean-up."""
        steps: list[str] = []
        server.script(asks("hang"), Reply("not asked for"))

        async def main() -> None:
            begun = asyncio.Event()

            async def hang() -> None:
                begun.set()
                try:
                    await asyncio.sleep(WAIT)
                finally:
                    await asyncio.sleep(0.02)
                    steps.append("cleaned")

            async def read() -> Completion:
                return await client.run("x", tools=[hang])

            task = asyncio.create_task(read())
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert steps == ["cleaned"]
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main())

    @pytest.mark.slow
    @pytest.mark.parametrize("is_async", [False, True])
    def test_leaving_the_loop_between_two_results_ends_the_rest(
        self, server: LLMServer, client: Client, mode: Mode, is_async: bool, release: threading.Event
    ) -> None:
        """`break` at the first result, while the second tool runs."""
        begun, over = threading.Event(), threading.Event()

        def hang(long: bool) -> str:
            if long:
                begun.set()
                release.wait(WAIT)
            assert begun.wait(WAIT)
            return "done"

        async def async_hang(long: bool) -> str:
            try:
                if long:
                    begun.set()
                    await anyio.sleep(WAIT)
                while not begun.is_set():  # noqa: ASYNC110 - of all threads
                    await anyio.sleep(0.001)
            finally:
                if long:
                    over.set()
            return "done"

        async_hang.__name__ = "hang"
        server.script(asks(("hang", {"long": False}), ("hang", {"long": True})), Reply("not asked for"))
        stream = client.run("x", tools=[async_hang if is_async else hang])
        mode.each(stream.events(), lambda event: isinstance(event, ToolResult))
        gc.collect()
        assert not is_async or over.wait(WAIT)
        assert len(server.requests) == 1
        assert "closed" in repr(stream)

    def test_aclose_waits_for_the_coroutines(self, server: LLMServer, client: Client, loop: Async) -> None:
        """Between two results, it lets them clean up."""
        steps: list[str] = []
        server.script(asks(("hang", {"long": False}), ("hang", {"long": True})), Reply("not asked for"))

        async def main() -> None:
            begun = anyio.Event()

            async def hang(long: bool) -> None:
                if not long:
                    return
                begun.set()
                try:
                    await anyio.sleep(WAIT)
                finally:
                    with anyio.CancelScope(shield=True):
                        await anyio.sleep(0.02)
                    steps.append("cleaned")

            events = client.run("x", tools=[hang]).events().__aiter__()
            async for event in events:
                if isinstance(event, ToolResult):
                    await begun.wait()
                    break
            await events.aclose()  # type: ignore[attr-defined]
            assert steps == ["cleaned"]

        loop.run(main)

    def test_with_ends_the_call_too(
        self, server: LLMServer, client: Client, mode: Mode, release: threading.Event
    ) -> None:
        """The iterator lives on, but the call has ended."""
        server.script(asks("quick", "hang", text="Hm."), Reply("not asked for"))
        hang = _named("hang", lambda: release.wait(WAIT))
        stream = client.run("x", tools=[_named("quick", lambda: "done"), hang])
        kept = mode.each_within(stream, lambda _: True)
        assert stream.text == "Hm."
        assert "closed" in repr(stream)
        assert len(server.requests) == 1
        del kept

    def test_a_cancelled_stream_asks_nothing(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """It is cancelled before its first step."""
        stream = client.run("x", tools=[add])
        stream.cancel()
        assert isinstance(mode.read(stream).error, Cancelled)
        assert server.requests == []

    @pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
    @pytest.mark.parametrize("count", [1, 2])
    @pytest.mark.quick(1)
    def test_ctrl_c_ends_tools(self, server: LLMServer, count: int) -> None:
        """In a script, Ctrl-C interrupts a single tool; several are left behind, and the program ends."""
        server.script(asks(*["hang"] * count), Reply("not asked for"))
        script = f"""
            import threading, time
            from llmbridge import Client

            barrier = threading.Barrier({count})

            def hang():
                try:
                    if barrier.wait() == 0:
                        print("begun", flush=True)
                    for _ in range({WAIT * 300}):  # Ctrl-C interrupts no sleep that it comes just before
                        time.sleep(0.01)
                except KeyboardInterrupt:
                    print("interrupted", flush=True)
                    raise

            client = Client("openai:m", base_url={server.base_url("openai")!r}, api_key="sk-test")
            stream = client.run("x", tools=[hang])
            try:
                stream.complete()
            except KeyboardInterrupt:
                print("free", flush=True)
        """
        command = [sys.executable, "-W", "error", "-c", textwrap.dedent(script)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WAIT)
        assert out.split() == (["interrupted", "free"] if count == 1 else ["free"])
        assert (err, process.returncode) == ("", 0)
        assert len(server.requests) == 1


def _named(name: str, function: Callable[[], Any]) -> Callable[[], Any]:
    """A tool of that name without arguments."""

    def tool() -> Any:
        return function()

    tool.__name__ = name
    return tool


@contextlib.contextmanager
def _when(reached: Callable[[], object], act: Callable[[], object]) -> Iterator[None]:
    """Calls a function from another thread as soon as an event is set."""
    thread = threading.Thread(target=lambda: (reached(), act()))
    thread.start()
    try:
        yield
    finally:
        thread.join(WAIT)


CALLS = [
    {"name": "weather", "arguments": {"city": "Oslo"}, "id": "callAAAA1"},
    {"name": "fail", "arguments": {}, "id": "callAAAA2"},
]
FUNCTIONS = [
    {"type": "function", "id": "callAAAA1", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
    {"type": "function", "id": "callAAAA2", "function": {"name": "fail", "arguments": "{}"}},
]
ON_THE_WIRE: dict[str, list[dict[str, Any]]] = {
    "openai": [
        {"role": "assistant", "content": "Hm.", "tool_calls": FUNCTIONS},
        {"role": "tool", "tool_call_id": "callAAAA1", "content": "Oslo: rain"},
        {"role": "tool", "tool_call_id": "callAAAA2", "content": "ValueError: closed"},
    ],
    "anthropic": [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "a thought", "signature": "SIG"},
                {"type": "text", "text": "Hm."},
                {"type": "tool_use", "id": "callAAAA1", "name": "weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "callAAAA2", "name": "fail", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "callAAAA1", "content": "Oslo: rain"},
                {
                    "type": "tool_result",
                    "tool_use_id": "callAAAA2",
                    "content": "ValueError: closed",
                    "is_error": True,
                },
            ],
        },
    ],
    "gemini": [
        {
            "role": "model",
            "parts": [
                {"text": "Hm."},
                {
                    "functionCall": {"id": "callAAAA1", "name": "weather", "args": {"city": "Oslo"}},
                    "thoughtSignature": "SIG",
                },
                {"functionCall": {"id": "callAAAA2", "name": "fail", "args": {}}},
            ],
        },
        {
            "role": "user",
            "parts": [
                {"functionResponse": {"id": "callAAAA1", "name": "weather", "response": {"result": "Oslo: rain"}}},
                {"functionResponse": {"id": "callAAAA2", "name": "fail", "response": {"error": "ValueError: closed"}}},
            ],
        },
    ],
    "ollama": [
        {
            "role": "assistant",
            "content": "Hm.",
            "thinking": "a thought",
            "tool_calls": [
                {"id": "callAAAA1", "function": {"name": "weather", "arguments": {"city": "Oslo"}}},
                {"id": "callAAAA2", "function": {"name": "fail", "arguments": {}}},
            ],
        },
        {"role": "tool", "tool_name": "weather", "tool_call_id": "callAAAA1", "content": "Oslo: rain"},
        {"role": "tool", "tool_name": "fail", "tool_call_id": "callAAAA2", "content": "ValueError: closed"},
    ],
    "mistral": [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "a thought"}], "signature": "SIG"},
                {"type": "text", "text": "Hm."},
            ],
            "tool_calls": FUNCTIONS,
        },
        {"role": "tool", "tool_call_id": "callAAAA1", "name": "weather", "content": "Oslo: rain"},
        {"role": "tool", "tool_call_id": "callAAAA2", "name": "fail", "content": "ValueError: closed"},
    ],
}


@pytest.mark.parametrize("dialect", ON_THE_WIRE)
def test_what_goes_back_is_in_the_services_own_form(server: LLMServer, mode: Mode, dialect: str) -> None:
    """Text, reasoning with its signature, calls and results, and failures marked if the service can mark them."""

    def weather(city: str) -> str:
        return f"{city}: rain"

    def fail() -> None:
        raise ValueError("closed")

    server.script(Reply("Hm.", reasoning="a thought", signature="SIG", tool_calls=CALLS), Reply("It rains."))
    with Client(f"{dialect}:m", base_url=server.base_url(dialect), api_key="sk-test", retries=0) as client:
        answer = mode.complete(client.run("Weather?", tools=[weather, fail], max_tokens=100))
    assert answer.text == "It rains."
    sent = server.requests[-1].json
    assert sent["contents" if dialect == "gemini" else "messages"][1:] == ON_THE_WIRE[dialect]


@pytest.mark.parametrize("dialect", ["openai", "anthropic", "mistral"])  # other dialects send arguments as objects
def test_invalid_arguments_go_back_in_a_form_that_the_service_accepts(
    server: LLMServer, mode: Mode, dialect: str
) -> None:
    """The test server rejects what the service would; the model reads what was wrong."""
    calls = [{"name": "weather", "arguments": '{"city": "Os', "id": "callAAAA1"}]
    server.script(Reply(tool_calls=calls), Reply("Sorry."))
    with Client(f"{dialect}:m", base_url=server.base_url(dialect), api_key="sk-test", retries=0) as client:
        stream = client.run("Weather?", tools=[_named("weather", lambda: "rain")], max_tokens=100)
        events = mode.read(stream.events()).pieces
    assert [result.failed for result in results_of(events)] == [True]
    assert stream.text == "Sorry."
