"""Structured output from the call to the value: in sync, asyncio and trio, in every dialect and mode."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypedDict

import pytest
from loopback import DONE, FINISH, Listener, chunk, event, head, read_head
from modes import Mode

from llmbridge import Cancelled, Client, Completion, InvalidOutput, InvalidRequest, ToolResult
from llmbridge.testing import LLMServer, Reply


@dataclass
class City:
    """A city.

    Args:
        name: In English.
    """

    name: str
    inhabitants: int = 0
    rivers: list[str] = field(default_factory=list)


class Place(TypedDict):
    """The same as a TypedDict."""

    name: str
    inhabitants: int


OSLO = ['{"name": "Os', 'lo", "inhabit', 'ants": 700000, "riv', 'ers": ["Akerselva"]}']
VALUE = City("Oslo", 700000, ["Akerselva"])
GOOD, BAD = '{"name": "Oslo"}', '{"inhabitants": "many"}'


def answering(schema_mode: str, text: str) -> Reply:
    """The answer of a model in that mode."""
    if schema_mode == "tool":
        return Reply(tool_calls=[{"name": "City", "arguments": text}])
    return Reply([text[:10], text[10:]])


def sent_form(dialect: str, body: dict[str, Any]) -> Any:
    """The part of the request that describes the answer."""
    if dialect in ("openai", "mistral"):
        return body.get("response_format")
    if dialect == "anthropic":
        return body.get("output_config", {}).get("format")
    if dialect == "gemini":
        return {key: value for key, value in body["generationConfig"].items() if key.startswith("response")} or None
    return body.get("format")


def sent_schema(dialect: str, form: Any) -> Any:
    """The schema in it."""
    if dialect in ("openai", "mistral"):
        return form["json_schema"]["schema"]
    return {"anthropic": lambda: form["schema"], "gemini": lambda: form["responseJsonSchema"]}.get(
        dialect, lambda: form
    )()


def sent_tools(dialect: str, body: dict[str, Any]) -> list[str]:
    """The names of the tools on offer."""
    tools = body.get("tools", [])
    if dialect == "gemini":
        return [one["name"] for tool in tools for one in tool["functionDeclarations"]]
    return [tool["name"] if dialect == "anthropic" else tool["function"]["name"] for tool in tools]


CHOICES: dict[str, Any] = {
    "openai": {"type": "function", "function": {"name": "City"}},
    "mistral": {"type": "function", "function": {"name": "City"}},
    "anthropic": {"type": "tool", "name": "City"},
    "gemini": {"mode": "ANY", "allowedFunctionNames": ["City"]},
}
FREE_CHOICES: dict[str, Any] = {
    "openai": "required",
    "mistral": "any",
    "anthropic": {"type": "any"},
    "gemini": {"mode": "ANY"},
}
JSON_FORMS: dict[str, Any] = {
    "openai": {"type": "json_object"},
    "mistral": {"type": "json_object"},
    "anthropic": None,
    "gemini": {"responseMimeType": "application/json"},
    "ollama": "json",
}


def choice_of(dialect: str, body: dict[str, Any]) -> Any:
    """The request's tool choice."""
    return body["toolConfig"]["functionCallingConfig"] if dialect == "gemini" else body["tool_choice"]


class TestEveryDialect:
    """The request, and the value."""

    @pytest.mark.parametrize("schema_mode", [None, "native", "tool", "json"])
    @pytest.mark.parametrize("dialect", JSON_FORMS)
    def test_the_value(self, server: LLMServer, mode: Mode, dialect: str, schema_mode: Any) -> None:
        """Each service and mode gives the same dataclass."""
        if (dialect, schema_mode) == ("ollama", "tool"):
            pytest.skip("Ollama has no tool_choice: an error before anything is sent, see test_ollama.py")
        text = json.dumps({"name": "Oslo", "inhabitants": 700000, "rivers": ["Akerselva"]})
        server.script(answering(schema_mode or "native", text))
        with Client(f"{dialect}:m", base_url=server.base_url(dialect), api_key="sk-test", retries=0) as client:
            stream = client.chat("Oslo?", schema=City, schema_mode=schema_mode, max_tokens=100)
            answer = mode.complete(stream)
        assert answer.parsed == stream.parsed == VALUE
        assert json.loads(answer.text) == json.loads(text)
        assert (answer.finish_reason, answer.tool_calls) == ("stop", ())
        body = server.requests[0].json
        form = sent_form(dialect, body)
        if schema_mode == "tool":
            assert sent_tools(dialect, body) == ["City"]
            assert choice_of(dialect, body) == CHOICES[dialect]
            assert form is None
        elif schema_mode == "json":
            assert form == JSON_FORMS[dialect]
            assert '"inhabitants"' in server.requests[0].turns[0].text
        else:
            assert set(sent_schema(dialect, form)["properties"]) == {"name", "inhabitants", "rivers"}
            assert len(server.requests[0].turns) == 1

    @pytest.mark.parametrize("schema_mode", ["native", "tool"])
    @pytest.mark.parametrize("dialect", CHOICES)
    def test_objects_grow(self, server: LLMServer, mode: Mode, dialect: str, schema_mode: Any) -> None:
        """Each object contains more than the one before, and the last one is whole."""
        text = "".join(OSLO)
        reply = Reply(OSLO) if schema_mode == "native" else answering("tool", text)
        server.script(reply)
        with Client(f"{dialect}:m", base_url=server.base_url(dialect), api_key="sk-test", retries=0) as client:
            stream = client.chat("Oslo?", schema=City, schema_mode=schema_mode, max_tokens=100)
            objects = mode.read(stream.objects()).pieces
        assert objects[-1] == json.loads(text)
        assert all(earlier != later for earlier, later in pairwise(objects))
        assert [len(value) for value in objects] == sorted(len(value) for value in objects)
        assert stream.parsed == VALUE

    @pytest.mark.parametrize("dialect", JSON_FORMS)
    def test_a_schema_retry(self, server: LLMServer, mode: Mode, dialect: str) -> None:
        """The bad answer goes back with its problems."""
        server.script(Reply(BAD), Reply(GOOD))
        with Client(f"{dialect}:m", base_url=server.base_url(dialect), api_key="sk-test", retries=0) as client:
            assert mode.complete(client.chat("Oslo?", schema=City, max_tokens=100)).parsed == City("Oslo")
        question, said, correction = server.requests[1].turns
        assert (question.text, said.text) == ("Oslo?", BAD)
        assert "- name: " in correction.text
        assert "- inhabitants: " in correction.text


def test_an_object_is_handed_out_while_the_rest_is_not_there(mode: Mode) -> None:
    """The server continues only after the loop has got the first half."""
    seen = threading.Event()

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(head("Transfer-Encoding: chunked") + chunk(event(OSLO[0])))
        assert seen.wait(30)
        sock.sendall(chunk(event("".join(OSLO[1:])) + FINISH + DONE) + b"0\r\n\r\n")

    objects: list[Any] = []

    def body(value: Any) -> None:
        objects.append(value)
        seen.set()

    with (
        Listener(serve) as listener,
        Client("openai:m", base_url=f"http://127.0.0.1:{listener.port}/v1", api_key="sk-test", timeout=20) as client,
    ):
        mode.each(client.chat("x", schema=City).objects(), body)
    assert objects == [{"name": "Os"}, json.loads("".join(OSLO))]


class TestSchemas:
    """Types of schemas."""

    def test_a_typed_dict(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Its value is a dict."""
        server.script(Reply('{"name": "Oslo", "inhabitants": 7}'))
        assert mode.complete(client.chat("x", schema=Place)).parsed == {"name": "Oslo", "inhabitants": 7}

    def test_a_json_schema(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """It is sent unchanged, and its value checked."""
        schema = {
            "type": "object",
            "properties": {"n": {"type": "integer", "minimum": 3}},
            "required": ["n"],
            "additionalProperties": False,
        }
        server.script(Reply('{"n": 2}'), Reply('{"n": 3}'))
        assert mode.complete(client.chat("x", schema=schema)).parsed == {"n": 3}
        assert server.requests[0].json["response_format"]["json_schema"]["schema"]["properties"]["n"]["minimum"] == 3

    def test_a_pydantic_model(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """pydantic validates it."""
        pydantic = pytest.importorskip("pydantic")
        model = pydantic.create_model("Sized", size=(int, pydantic.Field(gt=3)))
        server.script(Reply('{"size": 2}'), Reply('{"size": 4}'))
        answer = mode.complete(client.chat("x", schema=model))
        assert answer.parsed == model(size=4)
        assert "greater than 3" in server.requests[1].turns[-1].text

    def test_a_list(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Services accept only objects: the list is wrapped for them, and unwrapped again."""
        server.script(Reply(['{"value": [{"name": "Os', 'lo"}, {"name": "Bergen"}]}']))
        stream = client.chat("x", schema=list[City])
        assert mode.read(stream.objects()).pieces[-1] == [{"name": "Oslo"}, {"name": "Bergen"}]
        assert stream.parsed == [City("Oslo"), City("Bergen")]

    def test_a_fence_and_prose_around_it_are_left_aside(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Models that got only an instruction write so."""
        server.script(Reply(f"Sure!\n```json\n{GOOD}\n```\nAnything else?"))
        assert mode.complete(client.chat("x", schema=City, schema_mode="json")).parsed == City("Oslo")

    def test_an_invalid_schema_is_rejected_at_once(self, client: Client) -> None:
        """An invalid schema is rejected before anything is sent."""
        with pytest.raises(InvalidRequest, match="give the class itself"):
            client.chat("x", schema=VALUE)
        with pytest.raises(InvalidRequest, match="schema_mode"):
            client.chat("x", schema=City, schema_mode="strict")  # type: ignore[arg-type]

    def test_without_a_schema_parsed_is_none(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """And `objects()` raises."""
        server.script(Reply(GOOD))
        stream = client.chat("x")
        with pytest.raises(InvalidRequest, match="needs a schema"):
            stream.objects()
        assert mode.complete(stream).parsed is None


class TestWhatDoesNotFit:
    """Answers that do not fit."""

    def test_once_more_by_default(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """After one retry, the error lists all problems."""
        server.default = Reply(BAD)
        with pytest.raises(InvalidOutput, match="does not fit City") as info:
            mode.complete(client.chat("x", schema=City))
        assert len(server.requests) == 2
        assert [problem.partition(":")[0] for problem in info.value.problems] == ["name", "inhabitants"]
        assert (info.value.partial, info.value.provider, info.value.model) == (BAD, "openai", "m")

    @pytest.mark.parametrize(("reask", "requests"), [(0, 1), (1, 2), (3, 4)])
    def test_how_often_is_a_setting(
        self, server: LLMServer, client: Client, mode: Mode, reask: int, requests: int
    ) -> None:
        """The number of retries is a setting."""
        server.default = Reply("I do not know.")
        with pytest.raises(InvalidOutput, match="got prose"):
            mode.complete(client.chat("x", schema=City, reask=reask))
        assert len(server.requests) == requests
        assert len(server.requests[-1].turns) == 2 * requests - 1

    def test_it_is_a_setting_of_the_client_too(self, server: LLMServer, mode: Mode) -> None:
        """A client's setting holds for all its calls."""
        server.default = Reply(BAD)
        options: dict[str, Any] = {"base_url": server.base_url("openai"), "api_key": "sk-test"}
        with Client("openai:m", reask=0, **options) as client, pytest.raises(InvalidOutput):
            mode.complete(client.chat("x", schema=City))
        assert len(server.requests) == 1

    def test_the_completion_counts_both(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The usage covers both requests."""
        usage = {"prompt_tokens": 10, "completion_tokens": 5}
        server.script(Reply(BAD, usage=usage), Reply(GOOD, usage=usage))
        answer = mode.complete(client.chat("x", schema=City))
        assert answer.usage is not None
        assert answer.usage.total_tokens == 30
        assert answer.text == GOOD

    def test_a_loop_is_never_repeated(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A loop cannot retry after handing out text: `parsed` raises."""
        server.script(Reply(BAD), Reply(GOOD))
        stream = client.chat("x", schema=City)
        assert "".join(mode.read(stream).pieces) == BAD
        with pytest.raises(InvalidOutput):
            _ = stream.parsed
        assert len(server.requests) == 1

    def test_complete_after_a_loop_asks_once_more(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """`complete()` after the loop retries, and returns the same the next time."""
        server.script(Reply(BAD), Reply(GOOD))
        stream = client.chat("x", schema=City)
        mode.read(stream)
        assert [mode.complete(stream).parsed for _ in range(2)] == [City("Oslo")] * 2
        assert len(server.requests) == 2

    def test_parsed_is_there_at_the_end_only(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """Half an answer has no value."""
        server.script(Reply(OSLO))
        stream = client.chat("x", schema=City)

        def body(_: str) -> bool:
            with pytest.raises(InvalidRequest, match="at the end of the answer"):
                _ = stream.parsed
            return True

        mode.each(stream, body)

    def test_a_refusal_is_said_and_not_asked_again(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The refusal is the text, and is not retried."""
        server.script(Reply(refusal="I would rather not."))
        stream = client.chat("x", schema=City)
        with pytest.raises(InvalidOutput, match="refused") as info:
            mode.complete(stream)
        assert (info.value.partial, stream.text) == ("I would rather not.", "I would rather not.")
        assert len(server.requests) == 1

    @pytest.mark.parametrize(("reason", "words"), [("length", "max_tokens"), ("content_filter", "content policy")])
    def test_an_answer_that_was_cut_off_says_so(
        self, server: LLMServer, client: Client, mode: Mode, reason: str, words: str
    ) -> None:
        """A truncated answer is not retried: the next one would be truncated too."""
        server.script(Reply(OSLO[:2], finish_reason=reason))
        stream = client.chat("x", schema=City)
        objects: list[Any] = []
        mode.each(stream.objects(), objects.append)
        assert objects[-1]["name"] == "Oslo"
        with pytest.raises(InvalidOutput, match=words):
            mode.complete(stream)
        assert len(server.requests) == 1

    def test_a_cancelled_call_does_not_ask_again(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A call cancelled from within the loop is not retried."""
        server.script(Reply([BAD, " "]), Reply(GOOD))
        stream = client.chat("x", schema=City)
        with contextlib.suppress(Cancelled):  # unless all had arrived in one read
            mode.each(stream, lambda piece: stream.cancel())
        with pytest.raises((Cancelled, InvalidOutput, InvalidRequest)):
            mode.complete(stream)
        assert len(server.requests) == 1


def lookup(name: str) -> int:
    """Looks up a city's inhabitants."""
    return 700000 if name == "Oslo" else 0


LOOK_UP = Reply("Let me see.", tool_calls=[{"name": "lookup", "arguments": {"name": "Oslo"}, "id": "callAAAA1"}])


class TestWithTools:
    """Tools first, then the value."""

    @pytest.mark.parametrize("dialect", JSON_FORMS)
    def test_the_last_turn_is_the_value(self, server: LLMServer, mode: Mode, dialect: str) -> None:
        """Text of earlier turns does not count."""
        server.script(LOOK_UP, Reply(OSLO))
        with Client(f"{dialect}:m", base_url=server.base_url(dialect), api_key="sk-test", retries=0) as client:
            answer = mode.complete(client.run("x", tools=[lookup], schema=City, max_tokens=100))
        assert answer.parsed == VALUE
        assert answer.turns[1].text == "700000"

    @pytest.mark.parametrize("dialect", FREE_CHOICES)
    def test_the_answer_tool_joins_the_others(self, server: LLMServer, mode: Mode, dialect: str) -> None:
        """The model must call one of them."""
        server.script(LOOK_UP, answering("tool", "".join(OSLO)))
        with Client(f"{dialect}:m", base_url=server.base_url(dialect), api_key="sk-test", retries=0) as client:
            stream = client.run("x", tools=[lookup], schema=City, schema_mode="tool", max_tokens=100)
            events = mode.read(stream.events()).pieces
        assert [event.text for event in events if isinstance(event, ToolResult)] == ["700000"]
        assert (stream.parsed, stream.finish_reason) == (VALUE, "stop")
        for received in server.requests:
            assert sent_tools(dialect, received.json) == ["lookup", "City"]
            assert choice_of(dialect, received.json) == FREE_CHOICES[dialect]

    def test_objects_of_the_last_turn(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """A loop over objects runs the tools too."""
        tool_call = Reply(tool_calls=[{"name": "lookup", "arguments": {"name": "Oslo"}}])
        server.script(tool_call, Reply(OSLO))
        assert mode.read(client.run("x", tools=[lookup], schema=City).objects()).pieces[-1]["name"] == "Oslo"

    def test_a_turn_that_calls_the_callers_tools_has_no_value(
        self, server: LLMServer, client: Client, mode: Mode
    ) -> None:
        """Such a turn is neither an answer nor an error."""
        server.script(Reply(tool_calls=[{"name": "lookup", "arguments": {"name": "Oslo"}}]))
        answer: Completion = mode.complete(client.chat("x", tools=[lookup], schema=City))
        assert (answer.parsed, len(answer.tool_calls)) == (None, 1)

    def test_a_schema_retry_keeps_the_tool_results(self, server: LLMServer, client: Client, mode: Mode) -> None:
        """The tools do not run again."""
        ran: list[str] = []

        def lookup(name: str) -> int:
            ran.append(name)
            return 700000

        server.script(LOOK_UP, Reply(BAD), Reply(GOOD))
        answer = mode.complete(client.run("x", tools=[lookup], schema=City))
        assert (answer.parsed, ran) == (City("Oslo"), ["Oslo"])
        sent = server.requests[2].json["messages"]
        assert [message["role"] for message in sent] == ["user", "assistant", "tool", "assistant", "user"]
        assert sent[3]["content"] == BAD
