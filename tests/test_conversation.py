"""Conversations: the messages of each question, answers that were cut off, and saved files."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import gc
import inspect
import json
import os
import pickle
import signal
import stat
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import requests
from conftest import KEY
from modes import MODES, Async, Mode
from moments import cancelled_when

from llmbridge import (
    Client,
    ConfigError,
    Conversation,
    Image,
    InvalidOutput,
    InvalidRequest,
    LLMBridgeError,
    Message,
    Overloaded,
    Secret,
    StreamTruncated,
    ToolCall,
    ToolResult,
    TurnsExceeded,
    UnknownProvider,
    Usage,
    conversation,
    conversations,
    providers,
)
from llmbridge.events import Finish
from llmbridge.options import UNSET
from llmbridge.providers.openai import OpenAI
from llmbridge.stream import ChatStream
from llmbridge.testing import CLOSE, LLMServer, Reply, demo

DIALECTS = ["openai", "openai-responses", "anthropic", "gemini", "mistral", "cohere", "ollama"]
WEATHER = {"name": "weather", "arguments": {"city": "Oslo"}, "id": "call00001"}
TIME = {"name": "time", "arguments": {"zone": "UTC"}, "id": "call00002"}
CUT = Reply(["Hel", "lo"], end_mark=False, finish_reason=None, usage=False)
OPEN = Reply(["Hel", "lo"], end_mark=False, finish_reason=None, usage=False, keep_open=True)


def weather(city: str) -> str:
    """The weather."""
    return f"{city}: rain"


def time(zone: str) -> str:
    """The time."""
    return "12:00"


def of(server: LLMServer, provider: str = "openai", **options: Any) -> Conversation[Any]:
    """A conversation in a dialect."""
    dialect = "openai" if provider == "openai-responses" else provider
    client = Client(f"{provider}:m", base_url=server.base_url(dialect), api_key=KEY, retries=0, timeout=20)
    return client.conversation(**options)


def said(messages: list[Message]) -> list[tuple[str, str]]:
    """The messages in short."""
    return [(message.role, message.text) for message in messages]


def sent(server: LLMServer) -> list[tuple[str, Any]]:
    """The messages of the last request, in OpenAI's dialect."""
    return [(message["role"], message.get("content")) for message in server.requests[-1].json["messages"]]


class TestQuestions:
    """Each question is sent with everything before it."""

    def test_everything_before_goes_along(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """However the answers are read."""
        server.script(Reply(["A", "1"]), Reply("A2"), Reply("A3"), Reply("A4"))
        talk = client.conversation(system="Be brief.")
        pieces: list[Any] = []
        mode.each(talk.ask("Q1"), pieces.append)
        mode.each(talk.ask("Q2").events(), lambda event: None)
        assert mode.complete(talk.ask("Q3")).text == "A3"
        mode.each_within(talk.ask("Q4"), lambda piece: None)
        assert pieces == ["A", "1"]
        before = [("user", "Q1"), ("assistant", "A1"), ("user", "Q2"), ("assistant", "A2"), ("user", "Q3")]
        assert sent(server) == [("system", "Be brief."), *before, ("assistant", "A3"), ("user", "Q4")]
        assert said(talk.messages) == [*before, ("assistant", "A3"), ("user", "Q4"), ("assistant", "A4")]
        assert not talk.broken

    def test_the_answer_is_the_stream_of_a_chat(self, client: Client, server: LLMServer) -> None:
        """It is the stream of a chat, without a wrapper, and the conversation does not keep it alive."""
        stream = client.conversation().ask("x")
        assert type(stream) is ChatStream
        talk = client.conversation()
        stream = talk.ask("x")
        assert list(stream)
        known = weakref.ref(stream)
        del stream
        assert known() is None

    def test_a_stream_that_is_dropped_in_the_middle_is_closed(self, client: Client, server: LLMServer) -> None:
        """Even though the conversation lives on."""
        server.script(OPEN, Reply("A2"))
        talk = client.conversation()
        stream = talk.ask("Q1")
        assert next(stream) == "Hel"
        del stream
        gc.collect()
        assert talk.broken
        assert said(talk.messages) == [("user", "Q1"), ("assistant", "Hel")]
        assert talk.ask("Q2").complete().text == "A2"

    def test_options_hold_for_all_questions_or_for_one(self, client: Client, server: LLMServer) -> None:
        """Those of one question override the others."""
        talk = client.conversation(temperature=0.5, max_tokens=7)
        talk.ask("Q1", temperature=1).complete()
        talk.ask("Q2").complete()
        got = [(request.json["temperature"], request.json["max_completion_tokens"]) for request in server.requests]
        assert got == [(1, 7), (0.5, 7)]

    def test_what_becomes_of_the_callers_lists_does_not_matter(self, client: Client, server: LLMServer) -> None:
        """Options are copied."""
        stop = ["x"]
        talk = client.conversation(stop=stop)
        stop.append("y")
        talk.ask("Q").complete()
        assert server.requests[-1].json["stop"] == ["x"]

    def test_tools_of_an_iterator_are_offered_with_every_question(self, client: Client, server: LLMServer) -> None:
        """Iterators are read once."""
        talk = client.conversation(tools=iter([weather]))
        for _ in range(2):
            talk.ask("x").complete()
        assert [len(request.json["tools"]) for request in server.requests] == [1, 1]

    def test_usage_is_that_of_all_questions(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """Including questions that were taken back: they were paid for."""
        counts = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
        server.script(Reply("A", usage=counts), Reply("A", usage=counts), Reply("A", usage=False))
        talk = client.conversation()
        assert talk.usage is None
        for _ in range(3):
            mode.complete(talk.ask("Q"))
        talk.undo()
        talk.undo()
        assert talk.usage == Usage(6, 8, 14)

    @pytest.mark.parametrize(
        ("question", "content"),
        [
            ("Hi", "Hi"),
            (["Hi"], [{"type": "text", "text": "Hi"}]),
            (Message("user", "Hi"), "Hi"),
            ({"role": "user", "content": "Hi"}, "Hi"),
            ({"type": "text", "text": "Hi"}, [{"type": "text", "text": "Hi"}]),
            (
                Image("https://example.com/a.png"),
                [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}],
            ),
        ],
    )
    def test_a_question_has_many_forms(self, client: Client, server: LLMServer, question: Any, content: Any) -> None:
        """Each form is one message of the user."""
        talk = client.conversation()
        talk.ask(question).complete()
        assert sent(server) == [("user", content)]
        assert [message.role for message in talk.undo()] == ["user", "assistant"]

    def test_several_messages_are_one_question(self, client: Client, server: LLMServer) -> None:
        """They are taken back together; later changes to the caller's lists have no effect."""
        question: list[Any] = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, "3", "4"]
        talk = client.conversation()
        talk.ask(question).complete()
        question.clear()
        assert said(talk.messages)[:3] == [("user", "1"), ("assistant", "2"), ("user", "34")]
        assert len(talk.undo()) == 4
        assert talk.undo() == []

    @pytest.mark.parametrize(
        ("question", "message"),
        [
            ("", "the question is empty"),
            ([], "the question is an empty list"),
            (7, "must be a str or a mapping"),
            ({"role": "usr", "content": "x"}, "'usr' is unknown"),
            (ToolResult(ToolCall("c1", "weather"), "rain"), "'c1', but the last answer made these calls: none"),
            (None, "nothing to continue"),
        ],
    )
    def test_a_wrong_question_changes_nothing(
        self, client: Client, server: LLMServer, question: Any, message: str
    ) -> None:
        """The error comes before anything is sent."""
        talk = client.conversation()
        talk.ask("Q1").complete()
        before = talk.to_dict()
        with pytest.raises(InvalidRequest, match=message):
            talk.ask(question)
        assert talk.to_dict() == before
        assert len(server.requests) == 1

    def test_the_last_answer_is_not_given_once_more(self, client: Client, server: LLMServer) -> None:
        """As in the list of a chat."""
        server.script(Reply("", tool_calls=[WEATHER]))
        talk = client.conversation()
        answer = talk.ask("x").complete()
        with pytest.raises(InvalidRequest, match="already in the conversation"):
            talk.ask([answer, ToolResult(answer.tool_calls[0], "rain")])

    @pytest.mark.parametrize(
        ("options", "kind"),
        [
            ({"model": "opnai:x"}, UnknownProvider),
            ({"timeout": -1}, ConfigError),
            ({"messages": ["x"]}, ConfigError),
            ({"limits": 1}, ConfigError),
            ({"api_key": "a\nb"}, ConfigError),
        ],
    )
    def test_wrong_options_are_refused_at_once(self, options: dict[str, Any], kind: type[ConfigError]) -> None:
        """Not at the first question."""
        with pytest.raises(kind):
            conversation(**options)

    def test_there_is_one_of_the_package_too(self, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
        """Like `chat`."""
        monkeypatch.setattr(demo, "_PACE", 0.0)
        talk = conversation(model="demo")
        assert mode.complete(talk.ask("Hello")).text
        assert isinstance(talk, Conversation)
        assert "messages" not in inspect.signature(conversation).parameters
        assert "system" in inspect.signature(Client.conversation).parameters


class TestTools:
    """Every call has a result in the request, as services require."""

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_results_answer_the_calls(self, server: LLMServer, dialect: str) -> None:
        """Given alone, in a list, or with text; a call that was left out gets a result that says so."""
        both = Reply("", reasoning="Hm.", tool_calls=[WEATHER, TIME])
        server.script(both, Reply("Rain."), both, Reply("Both."), both, Reply("More."))
        talk = of(server, dialect, tools=[weather, time])
        first = talk.ask("Q1").complete()
        assert talk.ask(ToolResult(first.tool_calls[1], "12:00")).complete().text == "Rain."
        second = talk.ask("Q2").complete()
        assert talk.ask([ToolResult(call, "?") for call in second.tool_calls]).complete().text == "Both."
        third = talk.ask("Q3").complete()
        assert talk.ask(["so?", *(ToolResult(call, "!") for call in third.tool_calls)]).complete().text == "More."
        results = [message.text for message in talk.messages if message.role == "tool"]
        assert results == ["12:00", conversations._NO_RESULT, "?", "?", "!", "!"]

    @pytest.mark.parametrize("dialect", DIALECTS)
    def test_calls_may_be_passed_over(self, server: LLMServer, dialect: str) -> None:
        """They get a result that says so; until the next question they are unchanged."""
        server.script(Reply("", tool_calls=[WEATHER, TIME]), Reply("Fine."))
        talk = of(server, dialect, tools=[weather, time])
        answer = talk.ask("Q1").complete()
        assert talk.messages[-1] == answer.message
        assert talk.ask("Never mind.").complete().text == "Fine."
        assert [message.role for message in talk.messages] == ["user", "assistant", "tool", "tool", "user", "assistant"]
        talk.undo()
        assert talk.messages[-1] == answer.message

    def test_turns_of_tools_are_kept(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """Calls and results are taken back together."""
        server.script(Reply("", tool_calls=[WEATHER]), Reply("Rain."), Reply("Bye."))
        talk = client.conversation(tools=[weather], run_tools=True)
        answer = mode.complete(talk.ask("Q1"))
        assert talk.messages[1:] == list(answer.turns)
        mode.complete(talk.ask("Q2"))
        roles = [message["role"] for message in server.requests[-1].json["messages"]]
        assert roles == ["user", "assistant", "tool", "assistant", "user"]
        talk.undo()
        assert len(talk.undo()) == 4

    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.quick(2)
    def test_tools_that_were_interrupted(self, server: LLMServer, dialect: str) -> None:
        """The first result is kept; the other call has none."""
        server.script(Reply("", tool_calls=[WEATHER, TIME]), Reply("Fine."))

        def time(zone: str) -> str:
            """The time."""
            stream.cancel()
            return "12:00"

        def weather(city: str) -> str:
            """The weather."""
            return "rain"

        talk = of(server, dialect, tools=[weather, time], run_tools=True, max_turns=3)
        stream = talk.ask("Q1")
        with pytest.raises(LLMBridgeError):
            stream.complete()
        assert talk.broken
        assert talk.ask("Q2").complete().text == "Fine."

    def test_too_many_turns(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """The results so far are kept."""
        server.default = Reply("", tool_calls=[WEATHER])
        talk = client.conversation(tools=[weather], run_tools=True, max_turns=2)
        with pytest.raises(TurnsExceeded):
            mode.complete(talk.ask("Q1"))
        server.default = Reply("Fine.")
        assert [message.role for message in talk.messages] == ["user", "assistant", "tool"]
        assert mode.complete(talk.ask()).text == "Fine."
        assert sent(server)[-1] == ("tool", "Oslo: rain")


@dataclass
class City:
    """A schema."""

    name: str


class TestSchema:
    """Answers that must fit a schema."""

    def test_the_turns_of_a_schema_retry_are_kept(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """The same turns as in the completion, and the tokens."""
        server.script(Reply("What?", usage=True), Reply('{"name": "Oslo"}', usage=True), Reply("Fine."))
        talk = client.conversation(schema=City)
        answer = mode.complete(talk.ask("Q1"))
        assert answer.parsed == City("Oslo")
        assert talk.messages == [Message("user", "Q1"), *answer.turns]
        assert (len(answer.turns), talk.usage) == (3, answer.usage)
        assert mode.complete(talk.ask("Q2", schema=False)).text == "Fine."
        assert len(server.requests[-1].json["messages"]) == 5

    def test_an_answer_that_does_not_fit_is_whole(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """All answers are kept."""
        server.default = Reply("What?")
        talk = client.conversation(schema=City, schema_retries=2)
        with pytest.raises(InvalidOutput):
            mode.complete(talk.ask("Q1"))
        assert [message.role for message in talk.messages] == ["user", *["assistant", "user"] * 2, "assistant"]
        assert not talk.broken

    def test_a_schema_retry_that_breaks_off(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """Only the retry is broken."""
        server.script(Reply("What?"), CUT, Reply("Fine."))
        talk = client.conversation(schema=City)
        with pytest.raises(StreamTruncated):
            mode.complete(talk.ask("Q1"))
        assert talk.broken
        assert said(talk.messages)[-1] == ("assistant", "Hello")
        mode.complete(talk.ask("Q2", schema=False))
        assert sent(server)[-2:] == [("assistant", "Hello"), ("user", "Q2")]


def read(stream: ChatStream[Any], mode: Mode) -> None:
    """Reads to its error."""
    with pytest.raises(LLMBridgeError):
        mode.each(stream, lambda piece: None)


def leave(stream: ChatStream[Any], mode: Mode) -> None:
    """Leaves by `break` after the second piece."""
    got: list[str] = []
    mode.each(stream, lambda piece: (got.append(piece), len(got) == 2)[1])


def fail(stream: ChatStream[Any], mode: Mode) -> None:
    """Leaves by an exception of the loop's body after the second piece, as with Ctrl-C."""
    got: list[str] = []

    def body(piece: str) -> None:
        got.append(piece)
        if len(got) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mode.each(stream, body)


def close(stream: ChatStream[Any], mode: Mode) -> None:
    """Closes the stream from within, after the second piece."""
    got: list[str] = []
    read_on: Callable[[str], Any] = lambda piece: (got.append(piece), len(got) == 2 and stream.close())[0]  # noqa: E731
    with pytest.raises(LLMBridgeError):
        mode.each(stream, read_on)


WAYS = {"error": (CUT, read), "break": (OPEN, leave), "Ctrl-C": (OPEN, fail), "close": (OPEN, close)}


@pytest.mark.parametrize("way", WAYS)
class TestBroken:
    """An answer that was cut off is kept as far as it came."""

    def broken(self, talk: Conversation[Any], server: LLMServer, mode: Mode, way: str) -> None:
        """A conversation whose second answer was cut off."""
        reply, end = WAYS[way]
        server.script(Reply("A1"), reply, Reply("A3"))
        mode.complete(talk.ask("Q1"))
        end(talk.ask("Q2"), mode)
        assert talk.broken
        assert "broke off" in repr(talk)
        assert said(talk.messages)[2:] == [("user", "Q2"), ("assistant", "Hello")]

    def test_the_next_question_goes_on_from_there(
        self, client: Client, server: LLMServer, mode: Mode, way: str
    ) -> None:
        """The partial answer is sent along."""
        talk = client.conversation()
        self.broken(talk, server, mode, way)
        mode.complete(talk.ask("Go on."))
        assert sent(server)[-2:] == [("assistant", "Hello"), ("user", "Go on.")]
        assert not talk.broken

    def test_it_is_taken_back(self, client: Client, server: LLMServer, mode: Mode, way: str) -> None:
        """Question and answer are removed."""
        talk = client.conversation()
        self.broken(talk, server, mode, way)
        assert said(talk.undo()) == [("user", "Q2"), ("assistant", "Hello")]
        mode.complete(talk.ask("Q3"))
        assert sent(server) == [("user", "Q1"), ("assistant", "A1"), ("user", "Q3")]

    def test_it_is_tried_again(self, client: Client, server: LLMServer, mode: Mode, way: str) -> None:
        """`ask()` without a question repeats it; the partial answer is no longer sent, but kept."""
        talk = client.conversation()
        self.broken(talk, server, mode, way)
        assert mode.complete(talk.ask()).text == "A3"
        assert sent(server) == [("user", "Q1"), ("assistant", "A1"), ("user", "Q2")]
        assert said(talk.messages)[2:] == [("user", "Q2"), ("assistant", "A3")]
        assert said(talk.undo()) == [("user", "Q2"), ("assistant", "Hello"), ("assistant", "A3")]

    def test_it_is_saved_as_what_it_is(
        self, client: Client, server: LLMServer, mode: Mode, way: str, tmp_path: Path
    ) -> None:
        """The loaded conversation continues from it."""
        talk = client.conversation()
        self.broken(talk, server, mode, way)
        talk.save(tmp_path / "talk")
        again = Conversation.load(tmp_path / "talk", client)
        assert again.broken
        assert mode.complete(again.ask()).text == "A3"


class TestWhatBreaksOff:
    """Any way of breaking off leaves a valid next request."""

    @pytest.mark.parametrize("dialect", DIALECTS)
    @pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9, 0.97])
    @pytest.mark.quick(2)
    def test_cut_anywhere(self, server: LLMServer, dialect: str, share: float) -> None:
        """Inside reasoning, text or calls."""
        reply = Reply(["Hel", "lo"], reasoning="Hm.", signature="s" * 20, tool_calls=[WEATHER, TIME])
        server.script(reply)
        talk = of(server, dialect, tools=[weather, time])
        whole = talk.ask("Q1").complete()
        talk.undo()
        size = len(reply_body(server, dialect))
        server.script(replace(reply, cut=int(size * share)), Reply("Fine."), Reply("Good."))
        outcome = MODES["sync"].read(talk.ask("Q1"))
        assert whole.text.startswith("".join(outcome.pieces))
        assert talk.broken == (outcome.error is not None)
        assert talk.broken or share > 0.9, "it was to be cut before its finish"
        broken = talk.broken
        assert talk.ask("Q2").complete().text == "Fine."
        assert not broken or all(not message.tool_calls and not message.reasoning for message in talk.messages)
        talk.undo()
        assert talk.undo()
        assert talk.messages == []

    def test_nothing_came(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """The question can be retried or taken back; an empty answer is not sent."""
        server.script(Reply("busy", status=503), Reply("A"), Reply("busy", status=503))
        talk = client.conversation()
        with pytest.raises(Overloaded):
            mode.complete(talk.ask("Q1"))
        assert talk.broken
        assert said(talk.messages) == [("user", "Q1")]
        assert mode.complete(talk.ask()).text == "A"
        with pytest.raises(Overloaded):
            mode.complete(talk.ask("Q2"))
        assert said(talk.undo())[0] == ("user", "Q2")
        assert said(talk.messages) == [("user", "Q1"), ("assistant", "A")]

    def test_a_call_from_a_loop_that_was_left_may_be_answered(
        self, client: Client, server: LLMServer, mode: Mode
    ) -> None:
        """The answer is sent along then, with its calls."""
        server.script(Reply("", tool_calls=[WEATHER]), Reply("Rain."))
        talk = client.conversation()
        calls: list[ToolCall] = []
        mode.each(talk.ask("Q1").events(), lambda event: isinstance(event, ToolCall) and not calls.append(event))
        assert mode.complete(talk.ask(ToolResult(calls[0], "rain"))).text == "Rain."
        assert [role for role, _ in sent(server)] == ["user", "assistant", "tool"]

    def test_a_loop_that_was_left_at_the_finish(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """The answer is complete."""
        talk = client.conversation()
        server.script(Reply("Hello"))
        mode.each(talk.ask("Q1").events(), lambda event: isinstance(event, Finish))
        assert not talk.broken
        assert said(talk.messages)[1] == ("assistant", "Hello")

    def test_an_error_behind_the_finish(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """Something unknown is missing."""
        chunk = {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}
        body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode()
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 9999\r\n\r\n"
        server.script(Reply(raw=[head.encode() + body, CLOSE]))
        talk = client.conversation()
        with pytest.raises(StreamTruncated):
            mode.complete(talk.ask("Q1"))
        assert talk.broken
        assert said(talk.messages)[1] == ("assistant", "Hello")

    def test_a_cancelled_task(self, client: Client, server: LLMServer, loop: Async) -> None:
        """It can ask again at once, after awaiting or looping."""
        server.script(OPEN, Reply("A2"), OPEN, Reply("A4"))
        talk = client.conversation()

        def has_come(stream: ChatStream[Any]) -> bool:
            with contextlib.suppress(InvalidRequest):  # it has not been read yet
                return stream.text == "Hello"
            return False

        async def looped(stream: ChatStream[Any]) -> None:
            async for _ in stream:
                pass

        async def awaited(stream: ChatStream[Any]) -> None:
            await stream

        async def main() -> None:
            for number, way in enumerate((looped, awaited)):
                stream = talk.ask(f"Q{number}")
                await cancelled_when(functools.partial(has_come, stream), functools.partial(way, stream))
                assert talk.broken
                assert said(talk.messages)[-1] == ("assistant", "Hello")
                assert (await talk.ask("Go on.")).text == f"A{2 * number + 2}"
                assert sent(server)[-2:] == [("assistant", "Hello"), ("user", "Go on.")]

        loop.run(main)

    @pytest.mark.skipif(os.name == "nt", reason="signals come to nobody there")
    def test_a_signal_while_nothing_comes(self, client: Client, server: LLMServer) -> None:
        """Ctrl-C in the middle of a wait; the next question may come at once."""
        server.script(OPEN, Reply("A2"))
        talk = client.conversation()
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            talk.ask("Q1").complete()
        timer.join()
        assert said(talk.messages) == [("user", "Q1"), ("assistant", "Hello")]
        assert talk.ask("Go on.").complete().text == "A2"

    def test_a_time_limit_of_asyncio(self, client: Client, server: LLMServer) -> None:
        """The task's own cancellation."""
        server.script(OPEN, Reply("A2"))
        talk = client.conversation()

        async def main() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(talk.ask("Q1"), 0.3)
            assert said(talk.messages) == [("user", "Q1"), ("assistant", "Hello")]
            assert (await talk.ask("Go on.")).text == "A2"

        asyncio.run(main())


def reply_body(server: LLMServer, dialect: str) -> bytes:
    """The body of the server's answer to the last request, whatever its script is."""
    import urllib.request

    last = server.requests[-1]
    with LLMServer(Reply(["Hel", "lo"], reasoning="Hm.", signature="s" * 20, tool_calls=[WEATHER, TIME])) as other:
        request = urllib.request.Request(other.root + last.path, last.body, dict(last.headers))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPHandler(debuglevel=0))
        with opener.open(request) as answer:
            body: bytes = answer.read()
    return body


class TestOneAtATime:
    """Only one answer can be open at a time."""

    def test_within_the_loop_of_another(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """The error says so, and the loop goes on."""
        server.script(Reply(["a", "b"]), Reply("A2"))
        talk = client.conversation()
        errors: list[InvalidRequest] = []

        def body(piece: str) -> None:
            with pytest.raises(InvalidRequest, match="has not been read to its end") as caught:
                talk.ask("Q2")
            errors.append(caught.value)
            assert not talk.broken

        mode.each(talk.ask("Q1"), body)
        assert len(errors) == 2
        assert mode.complete(talk.ask("Q2")).text == "A2"
        assert said(talk.messages)[:2] == [("user", "Q1"), ("assistant", "ab")]

    def test_one_that_was_never_read(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """Nothing of it was sent: it must be read, closed or taken back first."""
        talk = client.conversation()
        first = talk.ask("Q1")
        with pytest.raises(InvalidRequest, match="has not been read to its end"):
            talk.ask("Q2")
        first.close()
        assert talk.broken
        mode.complete(talk.ask())
        assert sent(server) == [("user", "Q1")]
        second = talk.ask("Q2")
        assert said(talk.undo()) == [("user", "Q2")]
        read(second, mode)
        assert len(server.requests) == 1

    def test_two_threads(self, client: Client, server: LLMServer) -> None:
        """One of two threads may ask."""
        server.default = OPEN
        talk = client.conversation()
        barrier = threading.Barrier(8)
        asked: list[Any] = []

        def ask(name: str) -> None:
            barrier.wait()
            try:
                asked.append(talk.ask(name))
            except InvalidRequest as error:
                asked.append(error)

        threads = [threading.Thread(target=ask, args=(f"Q{number}",)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [isinstance(one, ChatStream) for one in asked].count(True) == 1
        assert len(talk.messages) == 1

    def test_undo_ends_an_answer_that_is_being_read(
        self, client: Client, server: LLMServer, mode: Mode, release: threading.Event
    ) -> None:
        """From another thread; the reader gets an error."""
        server.script(OPEN, Reply("A2"))
        talk = client.conversation()
        taken: list[Message] = []

        def undo() -> None:
            release.wait(10)
            taken.extend(talk.undo())

        thread = threading.Thread(target=undo)
        thread.start()
        got: list[str] = []
        with pytest.raises(LLMBridgeError):
            mode.each(talk.ask("Q1"), lambda piece: (got.append(piece), len(got) == 2 and release.set())[0])
        thread.join(30)
        assert said(taken) == [("user", "Q1"), ("assistant", "Hello")]
        assert mode.complete(talk.ask("Q2")).text == "A2"
        assert sent(server) == [("user", "Q2")]

    def test_what_is_said_can_be_seen_meanwhile(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """The partial answer is visible; a branch continues from there by itself."""
        server.script(Reply(["Hel", "lo"]), Reply("A2"))
        talk = client.conversation()
        seen: list[Any] = []
        branches: list[Conversation[Any]] = []
        mode.each(talk.ask("Q1"), lambda piece: (seen.append(said(talk.messages)), branches.append(talk.branch()))[0])
        assert seen == [[("user", "Q1"), ("assistant", "Hel")], [("user", "Q1"), ("assistant", "Hello")]]
        assert branches[0].broken
        assert mode.complete(branches[0].ask("Q2")).text == "A2"
        assert sent(server) == [("user", "Q1"), ("assistant", "Hel"), ("user", "Q2")]
        assert said(talk.messages) == [("user", "Q1"), ("assistant", "Hello")]


class Pausing(OpenAI):
    """A service that pauses on demand."""

    name = "pausing"

    @classmethod
    def decoder(cls) -> Any:
        """Finds the pause."""
        read = super().decoder()

        def decode(frame: Any) -> Any:
            for item in read(frame):
                yield Finish("pause", item.raw) if isinstance(item, Finish) and item.raw == "pause_turn" else item

        return decode


@pytest.fixture
def pausing(server: LLMServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of it."""
    monkeypatch.setitem(providers._registered, "pausing", Pausing)
    with Client("pausing:m", base_url=server.base_url("openai"), api_key=KEY, retries=0) as client:
        yield client


class TestPause:
    """A turn that the service wants back in order to continue."""

    def test_ask_without_a_question_continues(self, pausing: Client, server: LLMServer, mode: Mode) -> None:
        """The turn goes back unchanged; the next question comes after both parts."""
        server.script(Reply("Wait", finish_reason="pause_turn"), Reply("ed."), Reply("A2"))
        talk = pausing.conversation()
        assert mode.complete(talk.ask("Q1")).finish_reason == "pause"
        assert not talk.broken
        mode.complete(talk.ask())
        assert sent(server) == [("user", "Q1"), ("assistant", "Wait")]
        mode.complete(talk.ask("Q2"))
        assert sent(server) == [("user", "Q1"), ("assistant", "Wait"), ("assistant", "ed."), ("user", "Q2")]
        again = Conversation.from_dict(talk.to_dict(), pausing)
        again.undo()
        assert len(again.undo()) == 3

    def test_another_question_leaves_it_there(self, pausing: Client, server: LLMServer) -> None:
        """Half of an object of the service's own is left out; the text is sent."""
        server.script(Reply("Wait", finish_reason="pause_turn", reasoning="Hm."), Reply("A2"))
        talk = pausing.conversation()
        first = talk.ask("Q1").complete()
        assert talk.messages[-1] == first.message
        talk.ask("Q2").complete()
        assert talk.messages[1] == Message("assistant", "Wait")


class TestCopies:
    """Independent copies of conversations."""

    def test_a_branch_is_independent(self, client: Client, server: LLMServer, mode: Mode) -> None:
        """In both directions; the client and the options are shared."""
        talk = client.conversation(system="S")
        mode.complete(talk.ask("Q1"))
        other = talk.branch()
        mode.complete(other.ask("Q2"))
        assert (len(talk.messages), len(other.messages)) == (2, 4)
        talk.undo()
        assert (len(talk.messages), len(other.messages)) == (0, 4)
        assert sent(server)[0] == ("system", "S")
        assert len(client.connections.transports) == 1

    @pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda talk: pickle.loads(pickle.dumps(talk))])
    def test_copies_and_pickles_are_branches(self, server: LLMServer, way: Callable[[Any], Any]) -> None:
        """A pickle has the key if its client's has."""
        client = Client("openai:m", base_url=server.base_url("openai"), api_key=KEY, retries=0, pickle_key=True)
        talk = client.conversation(system="S", tools=[weather])
        talk.ask("Q1").complete()
        other = way(talk)
        assert type(other) is Conversation
        assert (other.messages, other.usage, repr(other)) == (talk.messages, talk.usage, repr(talk))
        other.ask("Q2").complete()
        assert len(talk.messages) == 2

    def test_no_pickle_has_a_key_of_the_conversation(self, server: LLMServer) -> None:
        """Nor a sensitive header."""
        with Client("openai:m", base_url=server.base_url("openai")) as client:
            talk = client.conversation(api_key=KEY, headers={"X-Api-Key": KEY}, proxy=f"http://me:{KEY}@127.0.0.1:9")
            assert KEY.encode() not in pickle.dumps(talk)
            assert KEY not in repr(talk)
            assert KEY not in json.dumps(talk.to_dict())

    def test_a_session_is_not_pickled(self, client: Client) -> None:
        """A session may hold anything."""
        with requests.Session() as session, pytest.raises(TypeError, match="session of your own cannot be pickled"):
            pickle.dumps(client.conversation(session=session))

    def test_a_default_one_is_pickled(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The functions of the package are found again."""
        monkeypatch.setattr(demo, "_PACE", 0.0)
        talk = pickle.loads(pickle.dumps(conversation(model="demo")))
        assert talk.ask("Hello").complete().text


class TestKept:
    """As a mapping and as a file."""

    def full(self, server: LLMServer) -> Conversation[Any]:
        """A conversation with everything in it."""
        server.script(
            Reply("Fine.", reasoning="Hm.", signature="sig", tool_calls=[WEATHER]), Reply("Rain.\u2028"), OPEN
        )
        talk = of(
            server, "anthropic", system="S", tools=[weather], max_tokens=9, stop=["x"], headers={"X-Secret": KEY},
            top_p=None, timeout=9, metadata={"user_id": "u"},
        )  # fmt: skip
        answer = talk.ask(["Look: ü", Image(b"\x89PNG\r\n\x1a\n")]).complete()
        talk.ask(ToolResult(answer.tool_calls[0], "rain")).complete()
        leave(talk.ask("Q3"), MODES["sync"])
        return talk

    def test_everything_that_is_data_survives(self, server: LLMServer, tmp_path: Path) -> None:
        """Both ways, and again."""
        talk = self.full(server)
        saved = json.loads(json.dumps(talk.to_dict(), allow_nan=False))
        path = tmp_path / "talk.jsonl"
        talk.save(path)
        for again in (
            Conversation.from_dict(saved, talk._client, tools=[weather]),
            Conversation.load(path, talk._client, tools=[weather]),
            Conversation.load(str(path), talk._client, tools=[weather]),
        ):
            assert again.to_dict() == saved
            assert (again.messages, again.usage, again.broken) == (talk.messages, talk.usage, True)
            assert len(again.undo()) == 2
            server.script(Reply("Good."))
            assert again.ask("Q4").complete().text == "Good."
            request = server.requests[-1].json
            assert (request["system"], request["max_tokens"], request["stop_sequences"]) == ("S", 9, ["x"])
            assert [tool["name"] for tool in request["tools"]] == ["weather"]
            assert request["messages"][1]["content"][0]["signature"] == "sig"

    def test_the_file_is_one_line_of_settings_and_one_for_each_message(self, server: LLMServer, tmp_path: Path) -> None:
        """The messages in their own format, without keys, addresses, headers and functions."""
        talk = self.full(server)
        path = tmp_path / "talk.jsonl"
        talk.save(path)
        text = path.read_text(encoding="utf-8")
        head, *messages = map(json.loads, text.removesuffix("\n").split("\n"))
        assert [Message.from_dict(message) for message in messages] == [turn.message for turn in talk._all()]
        assert head["settings"] == {"model": None, "system": "S", "max_tokens": 9, "stop": ["x"], "top_p": None}
        assert (head["conversation"], head["questions"], head["broken"]) == (1, [0, 2, 4], [5])
        for hidden in (KEY, "127.0.0.1", "X-Secret", "user_id"):
            assert hidden not in text
        assert "Look: ü" in text

    @pytest.mark.skipif(os.name == "nt", reason="access lists there")
    def test_the_file_belongs_to_its_owner(self, client: Client, tmp_path: Path, monkeypatch: Any) -> None:
        """From its first byte, whatever the umask and an earlier file."""
        path = tmp_path / "talk"
        path.write_text("before")
        path.chmod(0o666)
        modes: list[int] = []
        rename = os.replace
        monkeypatch.setattr(os, "replace", lambda a, b: (modes.append(os.stat(a).st_mode), rename(a, b)))
        before = os.umask(0)
        try:
            client.conversation().save(path)
        finally:
            os.umask(before)
        assert [stat.S_IMODE(mode) for mode in (*modes, path.stat().st_mode)] == [0o600, 0o600]
        assert os.listdir(tmp_path) == ["talk"]

    def test_a_save_that_fails_leaves_what_was_there(self, client: Client, tmp_path: Path, monkeypatch: Any) -> None:
        """The old file stays, and no other."""
        path = tmp_path / "talk"
        client.conversation(system="S").save(path)
        before = path.read_bytes()

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ConfigError, match=r"cannot save .*talk': No space left"):
            client.conversation().save(path)
        assert (path.read_bytes(), os.listdir(tmp_path)) == (before, ["talk"])
        with pytest.raises(ConfigError, match="cannot save"):
            client.conversation().save(tmp_path / "nowhere" / "talk")

    def test_what_is_given_at_loading_wins(self, client: Client, server: LLMServer) -> None:
        """None removes a setting."""
        saved = client.conversation(system="S", temperature=1, seed=3).to_dict()
        talk = Conversation.from_dict(saved, client, system="T", seed=None)
        talk.ask("Q").complete()
        assert sent(server)[0] == ("system", "T")
        assert (server.requests[-1].json["temperature"], "seed" in server.requests[-1].json) == (1, False)

    def test_settings_are_the_usual_parameters(self) -> None:
        """All named parameters of `chat`."""
        named = inspect.signature(Client.chat).parameters.values()
        usual = [parameter.name for parameter in named if parameter.default is UNSET]
        assert list(conversations._SETTINGS) == ["model", "system", *usual]

    def test_a_list_of_models_is_kept_if_it_is_one_of_names(self, client: Client) -> None:
        """Clients must be passed again."""
        assert conversation(model=["demo", "demo"]).to_dict()["settings"]["model"] == ["demo", "demo"]
        assert "model" not in conversation(model=[client]).to_dict()["settings"]

    def lines(self, client: Client, path: Path, change: Callable[[list[Any]], object]) -> None:
        """A file with a conversation of two messages, some of which were changed."""
        talk = client.conversation()
        talk.ask("Q1").complete()
        talk.save(path)
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        change(lines)
        written = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        path.write_bytes(b"\n".join(written) + b"\r\n\n")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda lines: lines[0].update(conversation=2), r"line 1 was saved by a newer llmbridge \(format 2\)"),
            (lambda lines: lines[0].update(conversation=0), r"line 1 was saved by an older llmbridge \(format 0\)"),
            (lambda lines: lines[0].update(conversation=True), "line 1 is not a saved conversation"),
            (lambda lines: lines.pop(0), "line 1 is not a saved conversation"),
            (lambda lines: lines.clear(), "line 1 is not JSON"),
            (lambda lines: lines.pop(), "line 1 promises 2 messages, but the file has 1"),
            (lambda lines: lines.append({"role": "user", "content": "x"}), "promises 2 .* but the file has 3"),
            (lambda lines: lines.__setitem__(2, b'{"role": "assis'), "line 3 is not JSON"),
            (lambda lines: lines.__setitem__(1, b"\xff\xfe"), "line 2 is not JSON"),
            (lambda lines: lines.__setitem__(1, b"[" * 100_000), "line 2 is not JSON"),
            (lambda lines: lines.__setitem__(2, []), r"line 3 must be a message, not \[\]"),
            (lambda lines: lines.__setitem__(2, {"role": "narrator", "content": "x"}), "'narrator' is unknown"),
            (lambda lines: lines.__setitem__(1, {"role": "user"}), "line 2: message has no 'content'"),
            (lambda lines: lines[0].update(settings={"base_url": "http://x"}), "line 1: settings must be"),
            (lambda lines: lines[0].update(settings={"system": {"a": 1}}), "line 1: settings must be"),
            (lambda lines: lines[0].pop("settings"), "line 1: settings must be"),
            (lambda lines: lines[0].update(usage=7), "line 1: usage must be a mapping, not 7"),
            (lambda lines: lines[0].update(usage={"input_tokens": "many"}), "usage.input_tokens must be of type int"),
            (lambda lines: lines[0].update(questions=[5]), "line 1: questions must be a list of numbers"),
            (lambda lines: lines[0].pop("broken"), "line 1: broken must be a list of numbers"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_with_a_file_is_said(
        self, client: Client, tmp_path: Path, change: Callable[[list[Any]], object], message: str
    ) -> None:
        """The error names the line."""
        self.lines(client, tmp_path / "talk", change)
        with pytest.raises(InvalidRequest, match=message) as caught:
            Conversation.load(tmp_path / "talk", client)
        assert "talk, line" in str(caught.value)

    def test_a_file_that_is_whole_is_read_however_lines_end(self, client: Client, tmp_path: Path) -> None:
        """Editors add their own line ends."""
        self.lines(client, tmp_path / "talk", lambda lines: None)
        assert len(Conversation.load(tmp_path / "talk", client).messages) == 2

    def test_a_file_that_is_not_there(self, client: Client, tmp_path: Path) -> None:
        """Or a folder."""
        with pytest.raises(InvalidRequest, match=r"cannot read .*: No such file"):
            Conversation.load(tmp_path / "nothing", client)
        for path in (tmp_path, "a\0b"):
            with pytest.raises(InvalidRequest, match="cannot read"):
                Conversation.load(path, client)
            with pytest.raises(ConfigError, match="cannot save"):
                client.conversation().save(path)

    @pytest.mark.parametrize(
        "saved", [None, [], {}, {"messages": 3}, {"messages": []}, {"conversation": 1, "messages": []}]
    )
    def test_other_mappings_are_refused(self, client: Client, saved: Any) -> None:
        """The error says what they are."""
        with pytest.raises(InvalidRequest):
            Conversation.from_dict(saved, client)

    def test_a_message_of_a_mapping_is_named_by_its_number(self, client: Client) -> None:
        """Instead of a line number."""
        saved = client.conversation().to_dict()
        with pytest.raises(InvalidRequest, match=r"messages\[0\] must be a message, not 7"):
            Conversation.from_dict({**saved, "messages": [7]}, client)


def test_its_repr_is_short(client: Client, server: LLMServer) -> None:
    """However long the conversation is."""
    talk = client.conversation(system="s" * 1000, api_key=Secret(KEY))
    assert repr(talk) == "<Conversation openai:m, 0 questions>"
    talk.ask("Q" * 1000).complete()
    assert repr(talk) == "<Conversation openai:m, 1 question>"
